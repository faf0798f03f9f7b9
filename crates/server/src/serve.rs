//! From options to a running server: sockets bound before anything else starts, one thread per worker, and a stop
//! that lets running exchanges finish.

use crate::access_log::AccessLog;
use crate::service::Service;
use crate::session;
use crate::worker::{Settings, Worker, busy_response};
use eleven_net::ledger::{Caps, Ledger, Refused};
use eleven_net::listener::{BindError, Bound, ListenAddr, bind, raise_open_files};
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
    /// Addresses to listen on.
    pub listen: Vec<ListenAddr>,
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
    /// Makes the service of a worker, on the worker's thread.
    pub service: Arc<dyn Fn() -> Service + Send + Sync>,
}

/// A server that runs.
pub struct Running {
    addresses: Vec<String>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    log: Option<Arc<AccessLog>>,
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
    let mut of_workers: Vec<Vec<Bound>> = (0..workers).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for address in &options.listen {
        let bound = bind(address, workers)?;
        // Every worker has the same addresses.
        addresses.extend(bound.iter().take(1).flatten().map(|b| url(b, address)));
        of_workers.iter_mut().zip(bound).for_each(|(of_worker, bound)| of_worker.extend(bound));
    }
    let caps = caps(&options, workers);
    let (stop, stopped) = watch::channel(false);
    let mut threads = Vec::new();
    for (index, listeners) in of_workers.into_iter().enumerate() {
        let (service, settings, log) =
            (options.service.clone(), options.settings.clone(), options.log.clone());
        let stopped = stopped.clone();
        let make = move || async move {
            let ledger = Ledger::new(caps);
            let log = log.as_ref().map(|log| log.worker());
            let worker = Worker::new(Rc::new(service()), settings, ledger, log);
            if let Err(error) = work(worker, listeners, stopped).await {
                tracing::error!(%error, "a worker failed");
            }
        };
        threads.push(eleven_net::worker::spawn(format!("worker-{index}"), make)?);
    }
    Ok(Running { addresses, stop, threads, log: options.log })
}

fn caps(options: &Options, workers: usize) -> Caps {
    let open_files = raise_open_files();
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

fn url(bound: &Bound, asked: &ListenAddr) -> String {
    match (bound.local_addr(), asked) {
        (Some(address), ListenAddr::Tcp { host: None, .. }) => {
            format!("http://localhost:{}/", address.port())
        }
        (Some(address), _) => format!("http://{address}/"),
        (None, asked) => asked.to_string(),
    }
}

/// The life of a worker: accept and serve until told to stop, then let what runs finish.
async fn work(
    worker: Rc<Worker>,
    listeners: Vec<Bound>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let ledger = worker.ledger().clone();
    ledger.sweep();
    let sweeper = ledger.clone();
    tokio::task::spawn_local(async move { sweeper.keep_sweeping().await });
    let mut accepting = Vec::new();
    for bound in listeners {
        let port = bound.local_addr().map_or(0, |address| address.port());
        let (listener, worker, ledger) = (bound.listen()?, worker.clone(), ledger.clone());
        accepting.push(tokio::task::spawn_local(async move {
            let serve = |stream: Stream, peer: PeerAddr, slot| {
                tokio::task::spawn_local(session::serve(stream, peer, port, slot, worker.clone()));
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
        let _ = self.stop.send(true);
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
