//! `eleven man`: the manual pages, made from the command line itself, one for each command.

use super::Failure;
use crate::cli::Cli;
use clap::{Args, CommandFactory};
use clap_mangen::Man;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `eleven man`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven man | man -l -                         the page of eleven itself\n  eleven man --output /usr/share/man/man1       all pages"
)]
pub struct ManPages {
    /// Write all pages into this directory, instead of the first one to standard output.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

impl ManPages {
    /// Writes them.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn run(&self) -> Result<ExitCode, Failure> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        match &self.output {
            None => Man::new(command).render(&mut std::io::stdout().lock())?,
            Some(directory) => {
                std::fs::create_dir_all(directory)?;
                write(&command, "eleven", directory)
                    .map_err(|error| Failure(format!("{}: {error}", directory.display())))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The page of a command, and those of its commands: `eleven-cache-purge.1`.
fn write(command: &clap::Command, name: &str, directory: &Path) -> std::io::Result<()> {
    let mut page = Vec::new();
    // Known by its whole name in the title, and by its words in the synopsis.
    let named = command.clone().name(leaked(name)).display_name(leaked(name));
    Man::new(named).render(&mut page)?;
    std::fs::write(directory.join(format!("{name}.1")), page)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below, &format!("{name}-{}", below.get_name()), directory)?;
    }
    Ok(())
}

/// clap keeps names for ever; there are a few dozen, once.
fn leaked(name: &str) -> &'static str {
    Box::leak(name.to_owned().into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = std::env::temp_dir().join(format!("eleven-man-{}", std::process::id()));
        let pages = ManPages { output: Some(directory.clone()) };
        assert!(pages.run().is_ok());
        for name in ["eleven", "eleven-serve", "eleven-get", "eleven-upgrade", "eleven-man"] {
            let page = std::fs::read_to_string(directory.join(format!("{name}.1"))).unwrap();
            assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{name}");
        }
        let serve = std::fs::read_to_string(directory.join("eleven-serve.1")).unwrap();
        assert!(serve.contains("\\-\\-listen"), "its options are there");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
