//! From options to a running server: sockets bound before anything else starts, one thread per worker, and a stop
//! that lets running exchanges finish.

use crate::access_log::AccessLog;
use crate::metrics::Metrics;
use crate::secure;
use crate::service::Service;
use crate::session;
use crate::worker::{Settings, Worker, busy_response};
use arc_swap::ArcSwap;
use eleven_net::descriptors::{limit, raise_limit};
use eleven_net::ledger::{Caps, Ledger, Refused};
use eleven_net::listener::{BindError, Bound, ListenAddr, bind};
use eleven_net::tls_config::ServerConfig;
use eleven_net::{PeerAddr, Stream};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// Descriptors kept back for files, logs and connections to other servers.
const DESCRIPTORS_RESERVED: u64 = 64;

/// What to serve, where.
pub struct Options {
    /// Where to listen.
    pub listen: Vec<Endpoint>,
    /// Number of workers, at least one.
    pub workers: usize,
    /// Deadlines and limits.
    pub settings: Settings,
    /// Connections in all; 0 for as many as the open files allow.
    pub connections_max: usize,
    /// Connections per client address; 0 for no limit.
    pub connections_per_address_max: u32,
    /// The access log.
    pub log: Option<Arc<AccessLog>>,
    /// Where figures go, and who is told that it stops.
    pub metrics: Arc<Metrics>,
    /// Makes the service of a worker, on the worker's thread.
    pub service: MakeService,
}

/// Makes the service of a worker, on the worker's thread.
pub type MakeService = Arc<dyn Fn() -> Service + Send + Sync>;

/// What replaces service and settings of a running server.
type Generation = Option<(MakeService, Settings)>;

/// The TLS settings of an endpoint, which a change of certificates replaces while it listens.
pub type TlsSlot = Arc<ArcSwap<ServerConfig>>;

/// An address to listen on.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The address.
    pub address: ListenAddr,
    /// Speak TLS there.
    pub tls: Option<TlsSlot>,
}

impl From<ListenAddr> for Endpoint {
    fn from(address: ListenAddr) -> Endpoint {
        Endpoint { address, tls: None }
    }
}

/// A bound socket with what is spoken on it.
type BoundEndpoint = (Bound, Option<TlsSlot>);

/// A server that runs.
pub struct Running {
    addresses: Vec<String>,
    stop: watch::Sender<bool>,
    generation: watch::Sender<Generation>,
    threads: Vec<JoinHandle<()>>,
    log: Option<Arc<AccessLog>>,
    metrics: Arc<Metrics>,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system gave no thread or poller.
    #[error("cannot start a worker: {0}")]
    Worker(#[from] io::Error),
}

/// Binds all addresses, then starts the workers.
///
/// # Errors
/// If an address cannot be bound, or a worker cannot be started. Nothing runs then.
pub fn start(options: Options) -> Result<Running, StartError> {
    let workers = options.workers.max(1);
    let mut of_workers: Vec<Vec<BoundEndpoint>> = (0..workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for endpoint in &options.listen {
        let bound = bind(&endpoint.address, workers)?;
        // Every worker has the same addresses.
        addresses.extend(bound.iter().take(1).flatten().map(|b| url(b, endpoint)));
        for (of_worker, bound) in of_workers.iter_mut().zip(bound) {
            of_worker.extend(bound.into_iter().map(|bound| (bound, endpoint.tls.clone())));
        }
    }
    let caps = caps(&options, workers);
    let (stop, stopped) = watch::channel(false);
    let (generation, generations) = watch::channel(None);
    let mut threads = Vec::new();
    for (index, listeners) in of_workers.into_iter().enumerate() {
        let (service, settings, log) =
            (options.service.clone(), options.settings.clone(), options.log.clone());
        let (stopped, generations) = (stopped.clone(), generations.clone());
        let make = move || async move {
            let ledger = Ledger::new(caps);
            let log = log.as_ref().map(|log| log.worker());
            let worker = Worker::new(Rc::new(service()), settings, ledger, log);
            if let Err(error) = work(worker, listeners, stopped, generations).await {
                tracing::error!(%error, "a worker failed");
            }
        };
        threads.push(eleven_net::worker::spawn(format!("worker-{index}"), make)?);
    }
    options.metrics.started();
    Ok(Running { addresses, stop, generation, threads, log: options.log, metrics: options.metrics })
}

fn caps(options: &Options, workers: usize) -> Caps {
    let open_files = match raise_limit() {
        Ok(limit) => limit.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit().unwrap_or(1024)
        }
    };
    let available =
        usize::try_from(open_files.saturating_sub(DESCRIPTORS_RESERVED).max(16)).unwrap_or(usize::MAX);
    let all = match options.connections_max {
        0 => available,
        max => max.min(available),
    };
    Caps {
        connections_max: (all / workers).max(1),
        connections_per_address_max: match options.connections_per_address_max {
            0 => 0,
            max => max.div_ceil(workers as u32),
        },
    }
}

fn url(bound: &Bound, asked: &Endpoint) -> String {
    let scheme = if asked.tls.is_some() { "https" } else { "http" };
    match (bound.local_addr(), &asked.address) {
        (Some(address), ListenAddr::Tcp { host: None, .. }) => {
            format!("{scheme}://localhost:{}/", address.port())
        }
        (Some(address), _) => format!("{scheme}://{address}/"),
        (None, asked) => asked.to_string(),
    }
}

/// The life of a worker: accept and serve until told to stop, then let what runs finish.
async fn work(
    worker: Rc<Worker>,
    listeners: Vec<BoundEndpoint>,
    mut stopped: watch::Receiver<bool>,
    generations: watch::Receiver<Generation>,
) -> io::Result<()> {
    let ledger = worker.ledger().clone();
    ledger.sweep();
    let sweeper = ledger.clone();
    tokio::task::spawn_local(async move { sweeper.keep_sweeping().await });
    tokio::task::spawn_local(replace(worker.clone(), generations));
    let mut accepting = Vec::new();
    for (bound, tls) in listeners {
        let port = bound.local_addr().map_or(0, |address| address.port());
        let (listener, worker, ledger) = (bound.listen()?, worker.clone(), ledger.clone());
        accepting.push(tokio::task::spawn_local(async move {
            let serve = |stream: Stream, peer: PeerAddr, slot| match &tls {
                None => {
                    tokio::task::spawn_local(session::serve(stream, peer, port, slot, worker.clone()));
                }
                Some(tls) => {
                    let config = tls.load_full();
                    tokio::task::spawn_local(secure::serve(stream, peer, port, slot, worker.clone(), config));
                }
            };
            listener.accept_all(&ledger, serve, refuse).await;
        }));
    }
    let _ = stopped.wait_for(|stop| *stop).await;
    for task in accepting {
        task.abort();
        let _ = task.await;
    }
    ledger.stop();
    let patience = Duration::from_millis(worker.settings().timeouts.stop_timeout_ms);
    if tokio::time::timeout(patience, ledger.emptied()).await.is_err() {
        tracing::warn!(connections = ledger.count(), "stopping with connections that would not finish");
    }
    Ok(())
}

/// Takes each new generation of service and settings. Connections do between requests; what runs keeps its own.
async fn replace(worker: Rc<Worker>, mut generations: watch::Receiver<Generation>) {
    while generations.changed().await.is_ok() {
        let next = generations.borrow_and_update().clone();
        if let Some((service, settings)) = next {
            worker.replace(Rc::new(service()), settings);
        }
    }
}

/// Tells a newcomer that there is no room; as much as its socket takes at once.
fn refuse(mut stream: Stream, why: Refused) {
    tracing::debug!(?why, "a connection was refused");
    tokio::task::spawn_local(async move {
        let _ = stream.write_all(&busy_response()).await;
        let _ = stream.shutdown_write().await;
    });
}

impl Running {
    /// The URLs it can be reached at, with the ports that the system chose.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Asks the workers to stop: listeners close at once, what runs may finish.
    pub fn stop(&self) {
        self.metrics.drain();
        let _ = self.stop.send(true);
    }

    /// Replaces service and settings in all workers, without touching a connection.
    pub fn replace(&self, settings: Settings, service: MakeService) {
        let _ = self.generation.send(Some((service, settings)));
    }

    /// Opens log files anew, after a rotation.
    pub fn reopen_logs(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// Waits until every worker has ended.
    pub fn wait(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        if let Some(log) = &self.log {
            log.flush();
        }
    }
}
