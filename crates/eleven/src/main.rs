//! `eleven`: reads the command line, calls the crates, words what went wrong. Decides nothing about HTTP.

mod acme;
mod admin;
mod certificates;
mod cli;
mod command;
mod config;
mod logging;
#[cfg(not(feature = "otlp"))]
mod no_otlp;
mod notify;
#[cfg(feature = "otlp")]
mod otlp;
mod pid_file;
mod privileges;
mod process;
mod sandbox;

use clap::Parser;
#[cfg(not(feature = "otlp"))]
use no_otlp as otlp;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    if let Err(failure) = logging::start(cli.log.as_deref()) {
        eprintln!("eleven: {failure}");
        return ExitCode::from(2);
    }
    match command::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("eleven: {failure}");
            ExitCode::from(1)
        }
    }
}
