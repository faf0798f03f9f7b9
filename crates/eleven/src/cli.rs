//! The command line, as typed. Each command has its options here and its work in `command/`.

use clap::{Args, Parser, Subcommand};
use eleven_net::listener::ListenAddr;
use std::path::PathBuf;

/// The complete HTTP/1.x system: serve, proxy, cache, tunnel, download, host applications.
#[derive(Debug, Parser)]
#[command(name = "eleven", version, about, arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a directory on the web.
    Serve(Serve),
    /// Run a diagnostic origin server, to debug clients and proxies against.
    Echo(Echo),
    /// Say everything that is wrong with a configuration file, without starting anything.
    Check(crate::command::check::Check),
    /// Write every key of the configuration with its default, or the JSON Schema.
    Config(crate::command::config::Config),
}

/// Options of every server.
#[derive(Debug, Args)]
pub struct Listen {
    /// Where to listen: HOST:PORT, :PORT (all addresses), or unix:PATH. May be given several times.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: Vec<ListenAddr>,
    /// Number of worker threads [default: one per processor].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Write no access log.
    #[arg(long, short)]
    pub quiet: bool,
    /// Most connections at a time [default: as many as the limit of open files allows].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub max_connections: usize,
    /// Most connections at a time from one client address; 0 for no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_connections_per_address: u32,
    /// Also answer HTTP/0.9 requests (a request line without version).
    #[arg(long)]
    pub http09: bool,
}

/// `eleven serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven serve                      this directory on http://127.0.0.1:8080/\n  eleven serve public --listen :80  for everyone, on port 80"
)]
pub struct Serve {
    /// The directory to serve.
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    #[command(flatten)]
    pub listen: Listen,
}

/// `eleven echo`.
#[derive(Debug, Args)]
#[command(
    after_help = "Paths:\n  /              greets; POST and PUT echo their content\n  /echo          the request as received, as text\n  /cookie        the cookie pairs\n  /status/NNN    that status\n  /delay/SECONDS answers late\n  /stream/N      N lines, chunked, with a trailer\n  /bytes/N       N octets\n  /early-hints   103 first, then 200"
)]
pub struct Echo {
    #[command(flatten)]
    pub listen: Listen,
}
