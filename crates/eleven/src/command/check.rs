//! `eleven check`: reads a configuration as `eleven serve` would and says all that is wrong with it. Touches neither
//! network nor sockets. Exit code 0: it can be used; 1: it cannot; 2: there is no such file.

use crate::config::diagnose::Severity;
use crate::config::{FILE_BYTES_MAX, Loaded, load, read_limited};
use clap::{Args, ValueEnum};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `eleven check`.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file.
    #[arg(value_name = "FILE", default_value = "eleven.toml")]
    file: PathBuf,
    /// How to say it.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people: the line, underlined, with the likely fix.
    Text,
    /// For machines: one JSON list of objects with file, line, column, message and help.
    Json,
}

impl Check {
    /// Does it.
    pub fn run(self) -> ExitCode {
        let loaded = match open(&self.file) {
            Ok(opened) => opened,
            Err(code) => return code,
        };
        let path = self.file.display().to_string();
        let report = &loaded.report;
        match self.format {
            Format::Json => {
                let _ = writeln!(std::io::stdout(), "{:#}", report.json(&loaded.sources));
            }
            Format::Text => {
                let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                eprint!("{}", report.render(&loaded.sources, colour));
                if !report.has_errors() {
                    println!("{path}: {}", summary(&loaded));
                }
            }
        }
        if report.count(Severity::Error) == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

fn summary(loaded: &Loaded) -> String {
    let plan = &loaded.plan;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let listeners: Vec<_> = plan.listeners.iter().map(|listener| listener.address.to_string()).collect();
    format!(
        "ok, {} and {} on {}",
        count(plan.sites.len(), "site"),
        count(plan.routes().count(), "route"),
        listeners.join(", ")
    )
}

/// Reads a configuration file; what cannot be read is said on standard error.
///
/// # Errors
/// With the exit code, 2.
pub fn open(file: &Path) -> Result<Loaded, ExitCode> {
    let text = read_limited(file, FILE_BYTES_MAX).map_err(|error| {
        eprintln!("eleven: {} cannot be read: {error}", file.display());
        ExitCode::from(2)
    })?;
    Ok(load(&text, file))
}
