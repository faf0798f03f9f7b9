//! `eleven serve DIR` and `eleven echo`.

use super::Failure;
use crate::acme::{self, Acme};
use crate::admin::AdminListener;
use crate::certificates::Certificates;
use crate::cli::{Echo, Listen, Serve};
use crate::otlp::Exporter;
use crate::privileges;
use crate::process::{DRAIN_TIMEOUT, Duties, HangUp, Process};
use crate::sandbox::{Reach, Sandbox};
use eleven_net::file::{Options as RootOptions, Root};
use eleven_net::listener::ListenAddr;
use eleven_net::tls_config::ServerSettings;
use eleven_server::access_log::{AccessLog, Format};
use eleven_server::admin::Mounts;
use eleven_server::files::{Files, FilesOptions};
use eleven_server::handler::Handler;
use eleven_server::metrics::{Metrics, Sources};
use eleven_server::plan::{AccessLogPlan, Plan};
use eleven_server::relayed::Relays;
use eleven_server::serve::{
    Change, Endpoint, MakeService, Options, RelaySlot, Running, Sockets, TlsSlot, start_with,
};
use eleven_server::service::Service;
use eleven_server::spans::Spans;
use eleven_server::steps::Prepared;
use eleven_server::worker::Settings;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// `eleven serve`.
pub fn serve(options: Serve) -> Result<ExitCode, Failure> {
    if let Some(config) = &options.config {
        return configured(config, &options.listen);
    }
    let directory = &options.directory;
    let root = Root::open_directory(directory, RootOptions::default())
        .map_err(|error| Failure(format!("cannot serve {}: {error}", directory.display())))?;
    let files = Files::new(root, b"", file_options());
    let sandbox = match options.listen.no_sandbox {
        true => Sandbox::off(),
        false => Sandbox::new(Reach::reading(directory))?,
    };
    let service = move || {
        sandbox.enter();
        Service::single(Handler::Files(files.clone()))
    };
    let what = format!("Serving {}", directory.display());
    run(&options.listen, &what, Sources::default(), Arc::new(service))
}

/// `eleven serve --config FILE`. A configuration with a mistake starts nothing.
fn configured(file: &Path, listen: &Listen) -> Result<ExitCode, Failure> {
    let process = Process::begin()?;
    let plan = match load(file) {
        Ok(plan) => plan,
        Err(Refused::Said(code)) => return Ok(code),
        Err(Refused::Failure(failure)) => return Err(failure),
    };
    let user = listen.user.as_deref().or(plan.process.user.as_deref());
    let group = listen.group.as_deref().or(plan.process.group.as_deref());
    if let Some(orders) = &plan.acme {
        acme::prepare(orders)?;
        privileges::give_directory(user, group, &orders.store)?;
    }
    let asked = Certificates::of(&listen.tls)?;
    let mut certificates = Certificates::default();
    let endpoints = endpoints(&plan, asked.as_ref(), None, &mut certificates, |_| None)?;
    certificates.commit();
    let workers = if plan.workers == 0 { eleven_net::worker::default_count() } else { plan.workers };
    let sockets = Sockets::open(&endpoints, workers, process.inherited())?;
    // Nothing is opened, written or started as root beyond this.
    privileges::give_up(user, group)?;
    privileges::warn_of_unreadable(certificates.files());
    let confined = plan.process.sandbox && !listen.no_sandbox;
    let sandbox = if confined { Sandbox::new(Reach::of(&plan))? } else { Sandbox::off() };
    let exporter = plan.otlp.as_ref().map(Exporter::start).transpose()?;
    let spans = exporter.as_ref().map(Exporter::spans);
    let prepared = Arc::new(Prepared::new(plan, None)?.telling(spans.clone()));
    let plan = prepared.plan().clone();
    let log = access_log(&plan, listen.quiet)?;
    let metrics = Arc::new(Metrics::default());
    let admin = match listen.admin.plan()? {
        Some(asked) => Some(asked),
        None => plan.admin.clone(),
    };
    let admin =
        AdminListener::start(admin.as_ref(), metrics.clone(), Mounts::default(), process.inherited())?;
    metrics.set_certificates(certificates.facts());
    metrics.set_sources(Sources { log: log.clone(), ..prepared.sources() });
    let service = service_of(&prepared, &sandbox);
    let options = Options {
        listen: endpoints,
        workers,
        settings: plan.settings.clone(),
        connections_max: plan.connections_max,
        connections_per_address_max: plan.connections_per_address_max,
        log,
        metrics,
        service,
    };
    let running = start_with(sockets, options)?;
    let renewed = Arc::new(Notify::new());
    let acme = plan.acme.clone().map(|orders| Acme::start(orders, renewed.clone())).transpose()?;
    let mut reloading = Reloading {
        file: file.to_owned(),
        quiet: listen.quiet,
        asked,
        sandbox,
        acme,
        renewed: renewed.clone(),
        spans,
        started: plan.clone(),
        current: prepared,
    };
    process.serve(
        running,
        Duties {
            what: format!("Serving {}", file.display()),
            pid_file: listen.pid_file.clone().or_else(|| plan.process.pid_file.clone()),
            drain_timeout: Duration::from_millis(plan.process.drain_timeout_ms),
            admin,
            certificates: (!certificates.is_empty()).then_some(certificates),
            renewed,
            hang_up: HangUp::Calls(Box::new(move |running, certificates| {
                let reloaded = reloading.reload(running, certificates);
                running.metrics().reloaded(reloaded.is_ok());
                match reloaded {
                    Ok(()) => eprintln!("eleven: {} read anew", reloading.file.display()),
                    Err(Refused::Said(_)) => eprintln!("eleven: the configuration stays as it was"),
                    Err(Refused::Failure(failure)) => {
                        eprintln!("eleven: the configuration stays as it was: {failure}");
                    }
                }
            })),
        },
    )?;
    eleven_server::apps::stop_all();
    if let Some(exporter) = exporter {
        exporter.end();
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the service of a worker, which is confined from then on.
fn service_of(prepared: &Arc<Prepared>, sandbox: &Sandbox) -> MakeService {
    let (prepared, sandbox) = (prepared.clone(), sandbox.clone());
    Arc::new(move || {
        sandbox.enter();
        prepared.service()
    })
}

/// The addresses of a plan, with certificates that are read and checked but not in force. `known` finds the slot of
/// an address that is listened on already.
fn endpoints(
    plan: &Plan,
    asked: Option<&(ServerSettings, bool)>,
    before: Option<&Certificates>,
    certificates: &mut Certificates,
    known: impl Fn(&ListenAddr) -> Option<TlsSlot>,
) -> Result<Vec<Endpoint>, Failure> {
    let mut endpoints = Vec::new();
    for listener in &plan.listeners {
        let own = listener.tls.as_ref().map(|own| (own.settings.clone(), own.self_signed));
        let tls = known(&listener.address).unwrap_or_default();
        certificates.add(own.or_else(|| asked.cloned()), &tls, before)?;
        let relays = RelaySlot::default();
        if listener.proxy_protocol {
            relays.store(Some(Arc::new(Relays { networks: plan.trusted_proxies.networks.clone() })));
        }
        endpoints.push(Endpoint { address: listener.address.clone(), tls, relays });
    }
    Ok(endpoints)
}

fn access_log(plan: &Plan, quiet: bool) -> Result<Option<Arc<AccessLog>>, Failure> {
    Ok(match plan.access_log.as_ref().filter(|_| !quiet) {
        None => None,
        Some(AccessLogPlan { path: None, format }) => Some(Arc::new(AccessLog::stdout(format.clone())?)),
        Some(AccessLogPlan { path: Some(path), format }) => {
            let log = AccessLog::file(format.clone(), path).map_err(|error| {
                Failure(format!("cannot open the access log {}: {error}", path.display()))
            })?;
            Some(Arc::new(log))
        }
    })
}

/// Why a configuration is not taken.
enum Refused {
    /// Its mistakes were said already.
    Said(ExitCode),
    Failure(Failure),
}

impl<E: Into<Failure>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Failure(error.into())
    }
}

/// Reads a configuration, and says what is wrong with it.
fn load(file: &Path) -> Result<Plan, Refused> {
    let loaded = super::check::open(file).map_err(Refused::Said)?;
    if !loaded.report.is_empty() {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", loaded.report.render(&loaded.sources, colour));
    }
    if loaded.report.has_errors() {
        return Err(Refused::Said(ExitCode::from(1)));
    }
    Ok(loaded.plan)
}

/// What a reload needs to know.
struct Reloading {
    file: PathBuf,
    quiet: bool,
    /// TLS by the command line.
    asked: Option<(ServerSettings, bool)>,
    sandbox: Sandbox,
    acme: Option<Acme>,
    /// Told when there is a new certificate.
    renewed: Arc<Notify>,
    /// Where sampled traces go.
    spans: Option<Arc<Spans>>,
    /// The plan that the process was started with.
    started: Arc<Plan>,
    current: Arc<Prepared>,
}

impl Reloading {
    /// Puts the configuration as it is now in place of the one in force, all of it or nothing.
    fn reload(
        &mut self,
        running: &mut Running,
        certificates: &mut Option<Certificates>,
    ) -> Result<(), Refused> {
        let plan = load(&self.file)?;
        self.sandbox.check(&Reach::of(&plan))?;
        if let Some(orders) = &plan.acme {
            acme::prepare(orders)?;
        }
        let prepared = Arc::new(Prepared::new(plan, Some(&self.current))?.telling(self.spans.clone()));
        let plan = prepared.plan().clone();
        let mut new = Certificates::default();
        let known = |address: &ListenAddr| running.tls_slot(address);
        let listen = endpoints(&plan, self.asked.as_ref(), certificates.as_ref(), &mut new, known)?;
        let log = if plan.access_log == self.current.plan().access_log {
            running.log()
        } else {
            access_log(&plan, self.quiet)?
        };
        let before = running.addresses().to_vec();
        running.change(Change {
            service: service_of(&prepared, &self.sandbox),
            settings: plan.settings.clone(),
            connections_max: plan.connections_max,
            connections_per_address_max: plan.connections_per_address_max,
            log,
            listen,
        })?;
        // Nothing can fail from here on, but a thread that orders certificates for the first time.
        new.commit();
        match (&self.acme, &plan.acme) {
            (Some(running), orders) => running.replace(orders.clone()),
            (None, Some(orders)) => self.acme = Some(Acme::start(orders.clone(), self.renewed.clone())?),
            (None, None) => {}
        }
        running.metrics().set_certificates(new.facts());
        running.metrics().set_sources(Sources { log: running.log(), ..prepared.sources() });
        running.reopen_logs();
        *certificates = (!new.is_empty()).then_some(new);
        for address in running.addresses().iter().filter(|address| !before.contains(address)) {
            eprintln!("eleven: now also on {address}");
        }
        for address in before.iter().filter(|address| !running.addresses().contains(address)) {
            eprintln!("eleven: no longer on {address}");
        }
        for what in self.started.only_at_start(&plan) {
            eprintln!("eleven: {what} changes with the next start, or with `eleven upgrade`");
        }
        self.current = prepared;
        Ok(())
    }
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
    run(&options.listen, "Echo server", Sources::default(), Arc::new(service))
}

/// Starts a server, says where it is, and waits for its end.
pub fn run(
    listen: &Listen,
    what: &str,
    sources: Sources,
    service: Arc<dyn Fn() -> Service + Send + Sync>,
) -> Result<ExitCode, Failure> {
    let process = Process::begin()?;
    let mut settings = Settings::default();
    if listen.http09 {
        let mut protocol = (*settings.protocol).clone();
        protocol.options.http09 = true;
        settings.protocol = Arc::new(protocol);
    }
    let asked = Certificates::of(&listen.tls)?;
    let mut certificates = Certificates::default();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for address in &listen.listen {
        let endpoint = Endpoint::from(address.clone());
        if !listen.proxy_protocol.is_empty() {
            let networks = listen.proxy_protocol.clone().into();
            endpoint.relays.store(Some(Arc::new(Relays { networks })));
        }
        certificates.add(asked.clone(), &endpoint.tls, None)?;
        endpoints.push(endpoint);
    }
    certificates.say_remarks();
    certificates.commit();
    let workers = listen.workers.map_or_else(eleven_net::worker::default_count, usize::from);
    let sockets = Sockets::open(&endpoints, workers, process.inherited())?;
    privileges::give_up(listen.user.as_deref(), listen.group.as_deref())?;
    privileges::warn_of_unreadable(certificates.files());
    let log = if listen.quiet { None } else { Some(Arc::new(AccessLog::stdout(Format::Combined)?)) };
    let metrics = Arc::new(Metrics::default());
    metrics.set_certificates(certificates.facts());
    metrics.set_sources(Sources { log: log.clone(), ..sources });
    let admin = listen.admin.plan()?;
    let admin =
        AdminListener::start(admin.as_ref(), metrics.clone(), Mounts::default(), process.inherited())?;
    let options = Options {
        listen: endpoints,
        workers,
        settings,
        connections_max: listen.max_connections,
        connections_per_address_max: listen.max_connections_per_address,
        log,
        metrics,
        service,
    };
    let running = start_with(sockets, options)?;
    process.serve(
        running,
        Duties {
            what: what.to_owned(),
            pid_file: listen.pid_file.clone(),
            drain_timeout: DRAIN_TIMEOUT,
            admin,
            certificates: (!certificates.is_empty()).then_some(certificates),
            renewed: Arc::default(),
            hang_up: HangUp::Ends,
        },
    )?;
    Ok(ExitCode::SUCCESS)
}
