//! The commands.

pub mod cache;
pub mod check;
pub mod completions;
pub mod config;
pub mod control;
pub mod get;
pub mod healthcheck;
pub mod man;
mod proxy;
mod run;
mod serve;
pub mod top;
pub mod upstreams;

use crate::cli::{Cli, Command};
use std::process::ExitCode;

/// A command that failed: one line for the user.
#[derive(Debug)]
pub struct Failure(pub String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Runs the command.
///
/// # Errors
/// What went wrong, in one line.
pub fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Serve(options) => serve::serve(options),
        Command::Echo(options) => serve::echo(options),
        Command::Proxy(options) => proxy::proxy(options),
        Command::Forward(options) => proxy::forward(options),
        Command::Check(options) => Ok(options.run()),
        Command::Config(options) => Ok(options.run()),
        Command::Reload(options) => control::reload(&options),
        Command::Upgrade(options) => control::upgrade(&options),
        Command::Run(options) => run::run(*options),
        Command::Get(options) => Ok(options.run()),
        Command::Cache(options) => options.run(),
        Command::Healthcheck(options) => options.run(),
        Command::Man(options) => options.run(),
        Command::Top(options) => options.run(),
        Command::Upstreams(options) => options.run(),
        Command::Completions(options) => Ok(options.run()),
    }
}
