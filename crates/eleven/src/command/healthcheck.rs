//! `eleven healthcheck`: asks a server once whether it serves, for containers and supervisors. 0 if it does, 1 if not;
//! nothing is printed but the reason.

use super::Failure;
use clap::Args;
use eleven_client::agent::{Agent, Ask, Options as AgentOptions};
use eleven_client::connector::Connector;
use eleven_client::pool::PoolLimits;
use eleven_net::dial::Dialer;
use eleven_net::resolve::Resolver;
use eleven_net::tls_config::{ClientSettings, Trust};
use eleven_semantics::uri::Uri;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// `eleven healthcheck`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven healthcheck                                a server on http://127.0.0.1:8080/\n  eleven healthcheck http://127.0.0.1:8011/health   by the admin listener\n  eleven healthcheck unix:/run/eleven/admin.sock"
)]
pub struct Healthcheck {
    /// http://…, https://… (whatever its certificate), or unix:PATH (then `/health` is asked for).
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:8080/")]
    pub url: String,
    /// How long an answer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

impl Healthcheck {
    /// Asks, and judges the status: anything below 400 is well, and a redirection is not followed.
    ///
    /// # Errors
    /// Why it is not well.
    pub fn run(self) -> Result<ExitCode, Failure> {
        let patience = Duration::from_secs(self.timeout);
        let status = eleven_net::worker::run(async move {
            tokio::time::timeout(patience, self.ask())
                .await
                .unwrap_or_else(|_| Err(Failure(format!("no answer within {} seconds", patience.as_secs()))))
        })??;
        if status < 400 { Ok(ExitCode::SUCCESS) } else { Err(Failure(format!("it answers {status}"))) }
    }

    async fn ask(&self) -> Result<u16, Failure> {
        let (url, unix_socket) = match self.url.strip_prefix("unix:") {
            Some(path) => ("http://localhost/health", Some(PathBuf::from(path))),
            None => (&*self.url, None),
        };
        let (uri, _) = Uri::parse(url.as_bytes()).map_err(|why| Failure(format!("{url}: {why}")))?;
        let dialer = Dialer::new(Resolver::new(Default::default()), Default::default());
        // It is asked whether it serves, not who it is.
        let settings = ClientSettings { trust: Trust::Anybody, ..ClientSettings::default() };
        let connector = Connector::new(dialer, settings, Arc::new(Default::default()));
        let options = AgentOptions { follow: false, unix_socket, ..AgentOptions::default() };
        let agent = Agent::new(options, connector, PoolLimits::default());
        let response =
            agent.send(Ask::get(uri)).await.map_err(|why| Failure(format!("{}: {why}", self.url)))?;
        Ok(response.head().status.code())
    }
}
