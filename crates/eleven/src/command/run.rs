//! `eleven run MODULE:ATTR`.

use super::Failure;
use crate::admin::AdminListener;
use crate::cli::Run;
use crate::process::{DRAIN_TIMEOUT, Duties, HangUp, Process};
use eleven_server::access_log::{AccessLog, Format};
use eleven_server::admin::Mounts;
use eleven_server::apps::pool::PoolLimits;
use eleven_server::apps::{AppSettings, Application, Buffering, Interface};
use eleven_server::handler::Handler;
use eleven_server::metrics::{Metrics, Sources};
use eleven_server::serve::{Endpoint, Options, Sockets, start_with};
use eleven_server::service::Service;
use eleven_server::worker::Settings;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Workers that one thread of the server feeds easily.
const WORKERS_PER_THREAD: usize = 4;

/// `eleven run`.
pub fn run(options: Run) -> Result<ExitCode, Failure> {
    let process = Process::begin()?;
    let admin = options.admin.plan()?;
    let threads = match options.server_threads {
        Some(threads) => usize::from(threads),
        None => usize::from(options.workers)
            .div_ceil(WORKERS_PER_THREAD)
            .min(eleven_net::worker::default_count())
            .max(1),
    };
    let application = Application::start(settings(&options)?, threads)
        .map_err(|error| Failure(format!("cannot prepare the application: {error}")))?;
    // One that does not start is reported by its worker. In development the page in the browser says it too.
    if application.wait_ready().is_err() && !options.reload {
        application.stop();
        return Err(Failure(format!("the application {:?} does not start", options.application)));
    }
    let log = if options.quiet { None } else { Some(Arc::new(AccessLog::stdout(Format::Combined)?)) };
    let handler = Arc::clone(&application);
    let metrics = Arc::new(Metrics::default());
    let admin =
        AdminListener::start(admin.as_ref(), metrics.clone(), Mounts::default(), process.inherited())?;
    metrics.set_sources(Sources {
        applications: vec![application.clone()],
        log: log.clone(),
        ..Sources::default()
    });
    let listen: Vec<Endpoint> = options.listen.iter().cloned().map(Into::into).collect();
    let sockets = Sockets::open(&listen, threads, process.inherited())?;
    let serving = Options {
        listen,
        workers: threads,
        settings: Settings::default(),
        connections_max: 0,
        connections_per_address_max: 0,
        log,
        metrics,
        service: Arc::new(move || Service::single(Handler::Application(Arc::clone(&handler)).gated(None))),
    };
    let running = start_with(sockets, serving)?;
    let reloaded = Arc::clone(&application);
    process.serve(
        running,
        Duties {
            what: format!("Running {}", options.application),
            pid_file: options.pid_file.clone(),
            drain_timeout: DRAIN_TIMEOUT,
            admin,
            certificates: None,
            renewed: Arc::default(),
            hang_up: HangUp::Calls(Box::new(move |_, _| reloaded.reload())),
        },
    )?;
    application.stop();
    Ok(ExitCode::SUCCESS)
}

fn settings(options: &Run) -> Result<AppSettings, Failure> {
    let mut settings = AppSettings::new(&options.application);
    settings.interface = match &*options.interface {
        "wsgi" => Interface::Wsgi,
        "asgi" => Interface::Asgi,
        _ => Interface::Auto,
    };
    settings.buffering = match &*options.buffering {
        "always" => Buffering::Always,
        "never" => Buffering::Never,
        _ => Buffering::Auto,
    };
    settings.factory = options.factory;
    if let Some(python) = &options.python {
        settings.python = python.clone();
    }
    settings.directory = options.chdir.as_deref().map(absolute).transpose()?;
    settings.python_path = options.python_path.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    for variable in &options.env {
        let (name, value) = variable
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure(format!("--env {variable:?} is not NAME=VALUE")))?;
        settings.environment.push((name.to_owned(), value.to_owned()));
    }
    settings.workers = usize::from(options.workers);
    settings.threads = usize::from(options.threads);
    settings.tasks = usize::from(options.tasks);
    settings.event_loop = options.event_loop.clone();
    settings.mount = mount(&options.mount)?;
    settings.development = options.reload;
    settings.watch = options.reload;
    settings.preload = options.preload;
    if let Some(probe) = &options.probe
        && !probe.starts_with('/')
    {
        return Err(Failure(format!("--probe {probe:?} is no path: it has to start with a slash")));
    }
    settings.probe = options.probe.clone();
    settings.drain_timeout_ms = options.graceful_timeout * 1000;
    settings.requests_max = options.max_requests;
    settings.age_max_s = options.max_age;
    settings.memory_bytes_max = options.max_memory << 20;
    if let Some(directory) = &options.runtime_directory {
        settings.runtime_directory = absolute(directory)?;
    }
    settings.limits = PoolLimits {
        queue_requests_max: options.queue,
        queue_timeout_ms: options.queue_timeout * 1000,
        request_timeout_ms: options.timeout * 1000,
        ..PoolLimits::default()
    };
    Ok(settings)
}

fn mount(path: &str) -> Result<String, Failure> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() || path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(Failure(format!("--mount {path:?} is no path: it has to start with a slash")))
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| Failure(format!("{}: {error}", path.display())))
}
