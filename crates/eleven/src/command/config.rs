//! `eleven config`: every key with its default and what it does, a file with its defaults filled in, or the JSON Schema.
//! Secrets are not shown.

use crate::config::{keys, schema};
use clap::Args;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `eleven config`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true)))]
pub struct Config {
    /// Write the configuration with every default; of FILE, if one is given, else of a server of the directory `.`.
    #[arg(long, group = "what")]
    print: bool,
    /// Write the JSON Schema, for editors.
    #[arg(long, group = "what")]
    schema: bool,
    /// Write the reference of every key, as Markdown.
    #[arg(long, group = "what")]
    reference: bool,
    /// The configuration file.
    #[arg(value_name = "FILE", requires = "print")]
    file: Option<PathBuf>,
}

/// What is printed where no file is given: it has every kind of section that there can be.
const EXAMPLE: &str =
    "[[listener]]\naddress = \"127.0.0.1:8080\"\n\n[[site]]\n\n[[site.route]]\nfiles = { root = \".\" }\n";

impl Config {
    /// Does it.
    pub fn run(self) -> ExitCode {
        let text = if self.schema {
            format!("{:#}\n", schema::json_schema(&keys::ROOT))
        } else if self.reference {
            schema::reference_page(&keys::ROOT)
        } else {
            let loaded = match &self.file {
                None => crate::config::load(EXAMPLE, "eleven.toml".as_ref()),
                Some(file) => match super::check::open(file) {
                    Ok(opened) => opened,
                    Err(code) => return code,
                },
            };
            if loaded.report.has_errors() {
                eprint!("{}", loaded.report.render(&loaded.sources, std::io::stderr().is_terminal()));
                return ExitCode::from(1);
            }
            schema::print(&loaded.raw, &loaded.sources)
        };
        // A reader that went away (`| head`) is no failure.
        let _ = std::io::stdout().write_all(text.as_bytes());
        ExitCode::SUCCESS
    }
}
