//! The command line, as typed. Each command has its options here and its work in `command/`.

use crate::admin::AdminOptions;
use clap::{Args, Parser, Subcommand};
use eleven_net::listener::ListenAddr;
use std::path::PathBuf;

/// The complete HTTP/1.x system: serve, proxy, cache, tunnel, download, host applications.
#[derive(Debug, Parser)]
#[command(name = "eleven", version, about, arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    /// How much to tell on standard error: error, warn, info, debug, or per module [default: warn, or ELEVEN_LOG].
    #[arg(long, global = true, value_name = "LEVEL", hide_short_help = true)]
    pub log: Option<String>,
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
    /// Stand before one or more servers and pass requests on to them (a reverse proxy).
    Proxy(Proxy),
    /// Pass requests of this machine's programs on to the servers they name (a forward proxy).
    Forward(Forward),
    /// Say everything that is wrong with a configuration file, without starting anything.
    Check(crate::command::check::Check),
    /// Write every key of the configuration with its default, or the JSON Schema.
    Config(crate::command::config::Config),
    /// Have a running server read its configuration, certificates and log files anew.
    Reload(Controlled),
    /// Replace a running server by the program as it is installed now, without losing a connection.
    Upgrade(Controlled),
    /// Run a Python application (WSGI or ASGI) in worker processes.
    Run(Box<Run>),
    /// Fetch, save, upload: complete and verified, or not at all.
    Get(Box<crate::command::get::Get>),
    /// Ask a running cache, purge it, fill it; explain why a response is stored or not.
    Cache(Box<crate::command::cache::Cache>),
    /// Ask a server once whether it serves: for containers and supervisors.
    Healthcheck(crate::command::healthcheck::Healthcheck),
    /// Write the manual pages.
    Man(crate::command::man::ManPages),
    /// Show what a running server is doing, live in the terminal.
    Top(crate::command::top::Top),
    /// Show the servers behind a running gateway, and take one out for a while.
    Upstreams(crate::command::upstreams::Upstreams),
    /// Write the completions of this command line for a shell.
    Completions(crate::command::completions::Completions),
}

/// Options of every server.
#[derive(Debug, Args)]
pub struct Listen {
    /// Where to listen: HOST:PORT, :PORT (all addresses), unix:PATH, or fd:NAME (a socket of the service manager). May be given several times.
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
    /// Connections come from relays in this network, and each begins with a header of the PROXY protocol (v1 or v2) that
    /// says who made it. Nobody else may connect. May be given several times.
    #[arg(long, value_name = "NETWORK")]
    pub proxy_protocol: Vec<ipnet::IpNet>,
    /// Also answer HTTP/0.9 requests (a request line without version).
    #[arg(long)]
    pub http09: bool,
    /// Write the number of the process into this file while it runs.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Become this user once the addresses are bound, when started as root.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// And a member of this group [default: the user's own].
    #[arg(long, value_name = "NAME", requires = "user")]
    pub group: Option<String>,
    /// Do not confine the threads that serve to the directories served (Landlock).
    #[arg(long, hide_short_help = true)]
    pub no_sandbox: bool,
    #[command(flatten)]
    pub tls: Tls,
    #[command(flatten)]
    pub admin: AdminOptions,
}

/// Which running server is meant.
#[derive(Debug, Args)]
pub struct Controlled {
    /// The server with this configuration, which is checked first and has to name a `pid_file`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The server that wrote its number into this file.
    #[arg(long, value_name = "FILE", conflicts_with = "pid")]
    pub pid_file: Option<PathBuf>,
    /// The server with this number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
}

/// Options of servers that speak TLS.
#[derive(Debug, Args)]
pub struct Tls {
    /// Speak TLS with this certificate chain (PEM). With --tls-key; may be given several times, for several names.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Vec<PathBuf>,
    /// The private key (PEM) of the certificate given in the same place.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Vec<PathBuf>,
    /// Speak TLS with a certificate made on the spot: for development, browsers will warn.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub tls_self_signed: bool,
    /// Versions and suites by Mozilla's names: `intermediate` is TLS 1.2 and 1.3, `modern` TLS 1.3 only.
    #[arg(long, value_name = "NAME", default_value = "intermediate", value_parser = ["modern", "intermediate"])]
    pub tls_preset: String,
    /// Ask clients for a certificate issued by one of these (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Vec<PathBuf>,
    /// Serve clients that show no certificate, too.
    #[arg(long, requires = "tls_client_ca")]
    pub tls_client_optional: bool,
}

/// `eleven serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven serve                      this directory on http://127.0.0.1:8080/\n  eleven serve public --listen :80  for everyone, on port 80\n  eleven serve --config eleven.toml sites, routes and more (see `eleven config --print`)"
)]
pub struct Serve {
    /// The directory to serve.
    #[arg(default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// Serve what this configuration file says instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["directory", "listen", "workers", "http09", "max_connections", "max_connections_per_address"])]
    pub config: Option<PathBuf>,
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

/// `eleven proxy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven proxy http://127.0.0.1:3000                 one server\n  eleven proxy http://a:3000 http://b:3000            two, in turn\n  eleven proxy unix:/run/app.sock --listen :80        a server on a Unix socket\n  eleven proxy http://127.0.0.1:3000 --cache          with a cache in front"
)]
pub struct Proxy {
    /// The servers: http://HOST[:PORT][/PATH], https://…, or unix:PATH.
    #[arg(value_name = "URL", required = true)]
    pub servers: Vec<String>,
    /// Which Host the servers are asked for: keep (the client's), server (their own), or a name.
    #[arg(long, value_name = "HOST", default_value = "keep")]
    pub host: String,
    /// Bring clients back to the server they were given first, by a cookie of this name.
    #[arg(long, value_name = "COOKIE", num_args = 0..=1, require_equals = true, default_missing_value = "route")]
    pub sticky: Option<String>,
    /// Take all of a request's content, in memory and on disk, before a server is asked.
    #[arg(long)]
    pub buffer_requests: bool,
    /// Check the servers by asking for this path every few seconds.
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// The name this gateway has in Via [default: one of its own].
    #[arg(long, value_name = "NAME")]
    pub via: Option<String>,
    /// Trust only the certificates in this PEM file for https servers [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// Trust any certificate. For experiments only.
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub caching: Caching,
    #[command(flatten)]
    pub listen: Listen,
}

/// Options of a cache (RFC 9111).
#[derive(Debug, Args)]
pub struct Caching {
    /// Store responses in memory, as RFC 9111 allows a shared cache, in at most SIZE octets.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true, default_missing_value = "256M", value_parser = size)]
    pub cache: Option<u64>,
    /// Store them in this directory as well, where they survive a restart. Implies --cache.
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// At most so many octets in the cache directory.
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = size)]
    pub cache_dir_size: u64,
    /// Say in Cache-Status what the cache did with each request (RFC 9211).
    #[arg(long)]
    pub cache_status: bool,
    /// The same in one word: X-Cache.
    #[arg(long)]
    pub x_cache: bool,
    /// Store no response in which a cookie is involved, unless it is marked public.
    #[arg(long)]
    pub cache_careful_with_cookies: bool,
}

/// A number of octets: `1000`, `64K`, `256M`, `10G`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G', 'T']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err("one unit of K, M, G or T".into()),
    };
    let number = eleven_semantics::grammar::decimal(digits.as_bytes()).filter(|n| *n > 0);
    number
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(|| "a size is a number, and K, M, G or T after it".into())
}

/// `eleven forward`.
#[derive(Debug, Args)]
#[command(
    after_help = "By default only this machine's programs may use it, tunnels go to port 443 only, and private\nand loopback destinations are refused.\n\nExamples:\n  eleven forward                                      http_proxy=http://127.0.0.1:8080\n  eleven forward --listen :3128 --allow-client 10.0.0.0/8\n  eleven forward --cache                              with a shared cache for plain http"
)]
pub struct Forward {
    /// A network whose clients may use it. May be given several times.
    #[arg(long, value_name = "NETWORK")]
    pub allow_client: Vec<ipnet::IpNet>,
    /// A file of users and password hashes (htpasswd): whoever is in it may use it.
    #[arg(long, value_name = "FILE")]
    pub users: Option<PathBuf>,
    /// A file of users for the Digest scheme (htdigest, realm `proxy`): the password never crosses the wire.
    #[arg(long, value_name = "FILE")]
    pub digest: Option<PathBuf>,
    /// Another proxy through which everything goes: http[s]://[USER:PASSWORD@]HOST[:PORT].
    #[arg(long, value_name = "URL")]
    pub parent: Option<String>,
    /// A private network that it may lead to. May be given several times.
    #[arg(long, value_name = "NETWORK")]
    pub allow_destination: Vec<ipnet::IpNet>,
    /// A port that tunnels may lead to. May be given several times.
    #[arg(long, value_name = "PORT", default_value = "443")]
    pub connect_port: Vec<u16>,
    /// The name this proxy has in Via [default: one of its own].
    #[arg(long, value_name = "NAME")]
    pub via: Option<String>,
    #[command(flatten)]
    pub caching: Caching,
    #[command(flatten)]
    pub listen: Listen,
}

/// `eleven run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven run app:application                       one worker on http://127.0.0.1:8000/\n  eleven run app --workers 4 --listen :80          for everyone, four processes\n  eleven run 'app:create()' --reload               for development\n\nSignals: HUP replaces the workers by new ones without a failed request; TERM and INT stop\nonce what runs has finished; USR1 opens log files anew.\ndocs/applications.md has the options of Gunicorn and what they are called here."
)]
pub struct Run {
    /// MODULE:ATTRIBUTE. The attribute may be dotted or a call without arguments; without one, `application` or
    /// `app` is looked for.
    #[arg(value_name = "MODULE:ATTR")]
    pub application: String,
    /// Where to listen: HOST:PORT, :PORT (all addresses), unix:PATH, or fd:NAME (a socket of the service manager). May be given several times.
    #[arg(long, short, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub listen: Vec<ListenAddr>,
    /// Worker processes.
    #[arg(long, short, value_name = "N", env = "WEB_CONCURRENCY", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: u16,
    /// Threads in each worker (WSGI).
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Requests at once in each worker (ASGI).
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10000))]
    pub tasks: u16,
    /// What the application speaks.
    #[arg(long, value_name = "auto|wsgi|asgi", default_value = "auto", value_parser = ["auto", "wsgi", "asgi"])]
    pub interface: String,
    /// The attribute is a function that makes the application.
    #[arg(long)]
    pub factory: bool,
    /// The interpreter [default: of the virtual environment that is active, else python3].
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// Run in this directory.
    #[arg(long, value_name = "DIR")]
    pub chdir: Option<PathBuf>,
    /// Another directory to import from. May be given several times.
    #[arg(long, value_name = "DIR")]
    pub python_path: Vec<PathBuf>,
    /// Set a variable of the workers' environment. May be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The path under which the application is mounted (SCRIPT_NAME).
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub mount: String,
    /// Event loop of ASGI workers.
    #[arg(long = "loop", value_name = "auto|asyncio|uvloop", default_value = "auto", value_parser = ["auto", "asyncio", "uvloop"])]
    pub event_loop: String,
    /// For development: replace the workers when a source file changes, and show tracebacks in the browser.
    #[arg(long)]
    pub reload: bool,
    /// Import the application once and fork the workers, which then share its memory. Without effect with --reload.
    #[arg(long)]
    pub preload: bool,
    /// A path that a new worker must answer (with less than 500) before it gets requests.
    #[arg(long, value_name = "PATH")]
    pub probe: Option<String>,
    /// When request content is collected before a worker gets the request.
    #[arg(long, value_name = "auto|always|never", default_value = "auto", value_parser = ["auto", "always", "never"])]
    pub buffering: String,
    /// Seconds a request may take in a worker; then 504 and the worker is killed. 0 for no limit.
    #[arg(long, short, value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Seconds a request may wait for a worker; then 503.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub queue_timeout: u64,
    /// Requests that may wait for a worker; more are answered 503 at once.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub queue: usize,
    /// Seconds a worker may take to finish what it has when it is replaced or stopped.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub graceful_timeout: u64,
    /// Replace a worker after so many requests (and up to a tenth more); 0 for never.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_requests: u64,
    /// Replace a worker after so many seconds (and up to a tenth more); 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub max_age: u64,
    /// Replace a worker that holds more than so many MiB of memory; 0 for never.
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    pub max_memory: u64,
    /// Threads of the server itself [default: one for every four workers, up to the number of processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=250))]
    pub server_threads: Option<u16>,
    /// Where sockets and content of slow clients go [default: the system's directory for temporary files].
    #[arg(long, value_name = "DIR")]
    pub runtime_directory: Option<PathBuf>,
    /// Write no access log.
    #[arg(long, short)]
    pub quiet: bool,
    /// Write the number of the process into this file while it runs.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    #[command(flatten)]
    pub admin: AdminOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in
            [("1", 1), ("64K", 65_536), ("256M", 1 << 28), ("10G", 10 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "K", "+1", "-1", "1k", "1.5G", "1KB", "1GG", "99999999999T", " 1", "1 M"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
