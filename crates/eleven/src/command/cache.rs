//! `eleven cache`: what an operator asks of a running cache (stats, list, purge, by its admin listener), why a response
//! is stored or not (explain), and filling it ahead (warm).

pub mod admin;
mod explain;
mod warm;

use super::Failure;
use clap::{Args, Subcommand};
use eleven_client::agent::{Agent, Options as AgentOptions};
use eleven_client::connector::Connector;
use eleven_client::pool::PoolLimits;
use eleven_net::dial::Dialer;
use eleven_net::resolve::Resolver;
use eleven_net::tls_config::{ClientSettings, Trust};
use eleven_semantics::{Fields, Known};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// `eleven cache`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven cache explain https://example.com/        why it is stored or not, and how long it is fresh\n  eleven cache stats                              of the cache behind --admin 127.0.0.1:8011\n  eleven cache list 'http://example.com/img/*'    what is stored beneath a path\n  eleven cache purge --tag product-17 --soft      validate before the next use whatever has this tag\n  eleven cache purge --everything --dry-run       how much that would be\n  eleven cache warm --sitemap http://example.com/sitemap.xml"
)]
pub struct Cache {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say in plain words why a response is or is not stored, and how long it is fresh.
    Explain(explain::Explain),
    /// What is stored.
    List(admin::List),
    /// Remove stored responses, or have them validated before their next use.
    Purge(admin::Purge),
    /// The store in numbers.
    Stats(admin::Stats),
    /// Fetch URLs so that they are stored before anybody asks.
    Warm(warm::Warm),
}

impl Cache {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, in one line.
    pub fn run(self) -> Result<ExitCode, Failure> {
        eleven_net::worker::run(async move {
            match self.action {
                Action::Explain(options) => options.run().await,
                Action::List(options) => options.run().await,
                Action::Purge(options) => options.run().await,
                Action::Stats(options) => options.run().await,
                Action::Warm(options) => options.run().await,
            }
        })?
    }
}

/// Which certificates are trusted, for https.
#[derive(Debug, Clone, Args)]
struct Trusting {
    /// Trust only the certificates in this PEM file [default: the system's].
    #[arg(long, value_name = "FILE")]
    cacert: Vec<PathBuf>,
    /// Trust any certificate. For experiments only.
    #[arg(long)]
    insecure: bool,
}

impl Trusting {
    /// An agent that follows nothing by itself.
    fn agent(&self, options: AgentOptions, connections: usize) -> Agent {
        let trust = match (self.insecure, self.cacert.is_empty()) {
            (true, _) => Trust::Anybody,
            (false, true) => Trust::Platform,
            (false, false) => Trust::Files(self.cacert.clone()),
        };
        let dialer = Dialer::new(Resolver::new(Default::default()), Default::default());
        let settings = ClientSettings { trust, ..ClientSettings::default() };
        let connector = Connector::new(dialer, settings, Arc::new(Default::default()));
        let limits = PoolLimits { connections_per_origin_max: connections.max(1), ..PoolLimits::default() };
        Agent::new(AgentOptions { follow: false, ..options }, connector, limits)
    }
}

/// Lines `Name: value` of a command line.
fn fields(lines: &[String]) -> Result<Fields, Failure> {
    let mut fields = Fields::new();
    for line in lines {
        let wrong = |why: &str| Failure(format!("{line:?} is no field: {why}"));
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("write it as `Name: value`"))?;
        let known = Known::lookup(name.as_bytes());
        if matches!(
            known,
            Some(Known::Host | Known::ContentLength | Known::TransferEncoding | Known::Connection)
        ) {
            return Err(wrong("that one is made by eleven itself"));
        }
        fields.push(name, value.trim()).map_err(|error| wrong(&error.to_string()))?;
    }
    Ok(fields)
}

/// A URL of the command line; a bare host means http.
fn url(text: &str) -> Result<eleven_semantics::uri::Uri, Failure> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let (uri, _) = eleven_semantics::uri::Uri::parse(full.as_bytes())
        .map_err(|why| Failure(format!("the URL {text:?} cannot be used: {why}")))?;
    Ok(uri)
}
