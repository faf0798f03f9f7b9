//! The admin listener of a server, as asked for on the command line or in the configuration; and how commands that ask
//! a running server find it.

use crate::command::Failure;
use crate::config::read_limited;
use clap::Args;
use eleven_net::handover::Inherited;
use eleven_net::listener::ListenAddr;
use eleven_server::admin::{self, AdminPlan, Mounts, Token};
use eleven_server::metrics::Metrics;
use eleven_server::serve::Running;
use eleven_server::{admin_cache, admin_upstreams};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest file of a token, in octets.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// Options of servers that have an admin listener.
#[derive(Debug, Clone, Args)]
pub struct AdminOptions {
    /// Tell figures, health and more here: HOST:PORT or unix:PATH. Other than loopback addresses need a token.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<ListenAddr>,
    /// A file with the token that the admin listener asks for (or in the environment, ELEVEN_ADMIN_TOKEN).
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub admin_token_file: Option<PathBuf>,
}

/// Options of commands that ask a running server.
#[derive(Debug, Clone, Args)]
pub struct AskOptions {
    /// The admin listener of the running server: HOST:PORT or unix:PATH [default: 127.0.0.1:8011].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<ListenAddr>,
    /// A file with the token that it asks for (or in the environment, ELEVEN_ADMIN_TOKEN).
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub admin_token_file: Option<PathBuf>,
}

impl AskOptions {
    /// The token as it is sent.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn token_text(&self) -> Result<Option<String>, Failure> {
        token_text(self.admin_token_file.as_deref())
    }
}

impl AdminOptions {
    /// The admin listener that is asked for.
    ///
    /// # Errors
    /// If its token cannot be read, or is missing where it must not be.
    pub fn plan(&self) -> Result<Option<AdminPlan>, Failure> {
        let Some(address) = &self.admin else { return Ok(None) };
        Ok(Some(AdminPlan::new(address.clone(), self.token()?, Vec::new())?))
    }

    /// The token, from the file or the environment.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub fn token(&self) -> Result<Option<Token>, Failure> {
        Ok(token_text(self.admin_token_file.as_deref())?.map(|text| Token::new(&text)).transpose()?)
    }
}

/// The token of this file, or that of the environment.
fn token_text(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let text = match file {
        Some(file) => read_limited(file, TOKEN_FILE_BYTES_MAX)
            .map_err(|error| Failure(format!("{}: {error}", file.display())))?,
        None => match std::env::var("ELEVEN_ADMIN_TOKEN") {
            Ok(text) => text,
            Err(_) => return Ok(None),
        },
    };
    Ok(Some(text.trim().to_owned()))
}

/// An admin listener that runs, if there is one. It outlives the server, so that it can tell that it is finishing.
pub struct AdminListener(Option<Running>);

impl AdminListener {
    /// Starts it, and says where it is.
    ///
    /// # Errors
    /// If its address cannot be listened on.
    pub fn start(
        plan: Option<&AdminPlan>,
        metrics: Arc<Metrics>,
        mut mounts: Mounts,
        inherited: &Inherited,
    ) -> Result<Self, Failure> {
        let Some(plan) = plan else { return Ok(AdminListener(None)) };
        admin_cache::mount(&mut mounts, metrics.clone());
        admin_upstreams::mount(&mut mounts, metrics.clone());
        let running = admin::start(plan, metrics, mounts, inherited)?;
        for address in running.addresses() {
            eprintln!("Admin listener on {address}");
        }
        Ok(AdminListener(Some(running)))
    }

    /// Its sockets, for a process that takes over.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn sockets(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        self.0.as_ref().map_or(Ok(Vec::new()), Running::sockets)
    }

    /// Leaves its sockets to a process that took over.
    pub fn hand_over(&self) {
        if let Some(running) = &self.0 {
            running.drain(Duration::ZERO);
        }
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        if let Some(running) = &mut self.0 {
            running.stop();
            running.wait();
        }
    }
}
