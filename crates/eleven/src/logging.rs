//! The error log: what the libraries tell, on standard error. `--log` or `ELEVEN_LOG` chooses how much (`error`, `warn`, `info`,
//! `debug`, or per module as `warn,eleven_server::apps=info`). The access log is another thing: see the server.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts the log. Called once, before anything else may have something to say. `asked` is the filter of the command
/// line, which beats the environment.
///
/// # Errors
/// If the filter of the command line cannot be read. One of the environment is taken as far as it can.
pub fn start(asked: Option<&str>) -> Result<(), String> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    let filter = match asked {
        Some(text) => builder.parse(text).map_err(|error| format!("--log {text}: {error}"))?,
        None => builder.with_env_var("ELEVEN_LOG").from_env_lossy(),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
    Ok(())
}
