//! `eleven serve DIR` and `eleven echo`.

use super::Failure;
use crate::admin::AdminListener;
use crate::certificates::Certificates;
use crate::cli::{Echo, Listen, Serve};
use crate::signals;
use eleven_net::file::{Options as RootOptions, Root};
use eleven_server::access_log::{AccessLog, Format};
use eleven_server::admin::Mounts;
use eleven_server::files::{Files, FilesOptions};
use eleven_server::handler::Handler;
use eleven_server::metrics::Metrics;
use eleven_server::plan::{AccessLogPlan, Plan};
use eleven_server::serve::{Endpoint, Options, Running, start};
use eleven_server::service::Service;
use eleven_server::steps::Prepared;
use eleven_server::worker::Settings;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// `eleven serve`.
pub fn serve(options: Serve) -> Result<ExitCode, Failure> {
    if let Some(config) = &options.config {
        return configured(config, &options.listen);
    }
    let directory = &options.directory;
    let root = Root::open_directory(directory, RootOptions::default())
        .map_err(|error| Failure(format!("cannot serve {}: {error}", directory.display())))?;
    let files = Files::new(root, b"", file_options());
    let service = move || Service::single(Handler::Files(files.clone()));
    run(&options.listen, &format!("Serving {}", directory.display()), Arc::new(service))
}

/// `eleven serve --config FILE`. A configuration with a mistake starts nothing.
fn configured(file: &Path, listen: &Listen) -> Result<ExitCode, Failure> {
    let prepared = match load(file, None) {
        Ok(prepared) => Arc::new(prepared),
        Err(Refused::Said(code)) => return Ok(code),
        Err(Refused::Failure(failure)) => return Err(failure),
    };
    let plan = prepared.plan().clone();
    let mut current = prepared.clone();
    let mut certificates = Certificates::of(&listen.tls)?;
    let tls = certificates.as_ref().and_then(Certificates::slot);
    let mut endpoints = Vec::new();
    for listener in &plan.listeners {
        let tls = match &listener.tls {
            Some(own) => {
                Some(certificates.get_or_insert_default().add(own.settings.clone(), own.self_signed)?)
            }
            None => tls.clone(),
        };
        endpoints.push(Endpoint { address: listener.address.clone(), tls });
    }
    let log = match plan.access_log.as_ref().filter(|_| !listen.quiet) {
        None => None,
        Some(AccessLogPlan { path: None, format }) => Some(AccessLog::stdout(format.clone())?),
        Some(AccessLogPlan { path: Some(path), format }) => {
            Some(AccessLog::file(format.clone(), path).map_err(|error| {
                Failure(format!("cannot open the access log {}: {error}", path.display()))
            })?)
        }
    };
    let metrics = Arc::new(Metrics::default());
    let admin = match listen.admin.plan()? {
        Some(asked) => Some(asked),
        None => plan.admin.clone(),
    };
    let _admin = AdminListener::start(admin.as_ref(), metrics.clone(), Mounts::default())?;
    let running = start(Options {
        listen: endpoints,
        workers: if plan.workers == 0 { eleven_net::worker::default_count() } else { plan.workers },
        settings: plan.settings.clone(),
        connections_max: plan.connections_max,
        connections_per_address_max: plan.connections_per_address_max,
        log: log.map(Arc::new),
        metrics,
        service: Arc::new(move || prepared.service()),
    })?;
    for address in running.addresses() {
        eprintln!("Serving {} on {address}", file.display());
    }
    signals::until_stopped_or_hung_up(running, certificates, |running| {
        reload(file, &plan, &mut current, running);
    })?;
    eleven_server::apps::stop_all();
    Ok(ExitCode::SUCCESS)
}

/// Why a configuration is not taken.
enum Refused {
    /// Its mistakes were said already.
    Said(ExitCode),
    Failure(Failure),
}

/// Reads a configuration, says what is wrong with it, and prepares it.
fn load(file: &Path, before: Option<&Prepared>) -> Result<Prepared, Refused> {
    let (text, loaded) = super::check::open(file).map_err(Refused::Said)?;
    if !loaded.report.is_empty() {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", loaded.report.render(&file.display().to_string(), &text, colour));
    }
    if loaded.report.has_errors() {
        return Err(Refused::Said(ExitCode::from(1)));
    }
    Prepared::new(loaded.plan, before).map_err(|error| Refused::Failure(error.into()))
}

/// Puts the configuration as it is now in place of the one in force. A wrong one changes nothing.
fn reload(file: &Path, started: &Plan, before: &mut Arc<Prepared>, running: &Running) {
    let prepared = match load(file, Some(before)) {
        Ok(prepared) => Arc::new(prepared),
        Err(Refused::Said(_)) => {
            eprintln!("eleven: the configuration stays as it was");
            return;
        }
        Err(Refused::Failure(failure)) => {
            eprintln!("eleven: the configuration stays as it was: {failure}");
            return;
        }
    };
    let plan = prepared.plan().clone();
    let addresses = |plan: &Plan| -> Vec<_> {
        plan.listeners.iter().map(|listener| (listener.address.clone(), listener.tls.is_some())).collect()
    };
    if addresses(&plan) != addresses(started) || plan.workers != started.workers {
        eprintln!("eleven: listeners and workers change with the next start; everything else changes now");
    }
    *before = prepared.clone();
    running.replace(plan.settings.clone(), Arc::new(move || prepared.service()));
    eprintln!("eleven: {} read anew", file.display());
}

/// The default plan for a directory.
fn file_options() -> FilesOptions {
    let mut options = FilesOptions::default();
    options.lookups.index = [&b"index.html"[..], b"index.htm"].into_iter().map(Into::into).collect();
    options
}

/// `eleven echo`.
pub fn echo(options: Echo) -> Result<ExitCode, Failure> {
    let service = || Service::single(Handler::Echo(eleven_server::echo::Echo));
    run(&options.listen, "Echo server", Arc::new(service))
}

/// Starts a server, says where it is, and waits for its end.
pub fn run(
    listen: &Listen,
    what: &str,
    service: Arc<dyn Fn() -> Service + Send + Sync>,
) -> Result<ExitCode, Failure> {
    let log = if listen.quiet { None } else { Some(Arc::new(AccessLog::stdout(Format::Combined)?)) };
    let mut settings = Settings::default();
    if listen.http09 {
        let mut protocol = (*settings.protocol).clone();
        protocol.options.http09 = true;
        settings.protocol = Arc::new(protocol);
    }
    let certificates = Certificates::of(&listen.tls)?;
    let tls = certificates.as_ref().and_then(Certificates::slot);
    let endpoints =
        listen.listen.iter().map(|address| Endpoint { address: address.clone(), tls: tls.clone() }).collect();
    let metrics = Arc::new(Metrics::default());
    let admin = listen.admin.plan()?;
    let _admin = AdminListener::start(admin.as_ref(), metrics.clone(), Mounts::default())?;
    let running = start(Options {
        listen: endpoints,
        workers: listen.workers.map_or_else(eleven_net::worker::default_count, usize::from),
        settings,
        connections_max: listen.max_connections,
        connections_per_address_max: listen.max_connections_per_address,
        log,
        metrics,
        service,
    })?;
    for address in running.addresses() {
        eprintln!("{what} on {address}");
    }
    signals::until_stopped(running, certificates)?;
    Ok(ExitCode::SUCCESS)
}
