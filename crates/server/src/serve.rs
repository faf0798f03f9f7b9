//! From options to a running server: sockets bound before anything else starts, one thread per worker, changes while it
//! runs (service, settings, log, listeners), and two ways to end: a stop that lets running exchanges finish, and a
//! drain for when another process goes on with the same sockets.

use crate::access_log::{self, AccessLog};
use crate::metrics::Metrics;
use crate::relayed::{self, Accepted, Relays};
use crate::request::Local;
use crate::secure;
use crate::service::Service;
use crate::session;
use crate::worker::{Settings, Worker, busy_response};
use arc_swap::ArcSwapOption;
use eleven_net::descriptors::{limit, raise_limit};
use eleven_net::handover::Inherited;
use eleven_net::ledger::{Caps, Ledger, Refused, SWEEP_MS};
use eleven_net::listener::{BindError, Bound, Cease, ListenAddr, claim};
use eleven_net::tls_config::ServerConfig;
use eleven_net::{PeerAddr, Stream};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

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

/// The TLS settings of an endpoint, which a change of certificates replaces while it listens. Empty: plain HTTP.
pub type TlsSlot = Arc<ArcSwapOption<ServerConfig>>;

/// An address to listen on.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The address.
    pub address: ListenAddr,
    /// What is spoken there.
    pub tls: TlsSlot,
    /// Where connections begin with a header of the PROXY protocol: who may connect. Empty: no such header.
    pub relays: RelaySlot,
}

/// The relays of an endpoint, which a reload replaces while it listens.
pub type RelaySlot = Arc<ArcSwapOption<Relays>>;

impl From<ListenAddr> for Endpoint {
    fn from(address: ListenAddr) -> Endpoint {
        Endpoint { address, tls: TlsSlot::default(), relays: RelaySlot::default() }
    }
}

/// An address that is listened on: its sockets, by worker, and what is spoken there.
struct Opened {
    /// Names it between the workers and whoever directs them.
    number: u64,
    endpoint: Endpoint,
    of_workers: Vec<Vec<Bound>>,
}

/// Addresses that are bound, but not served yet: the time to give up privileges.
pub struct Sockets {
    workers: usize,
    opened: Vec<Opened>,
}

impl Sockets {
    /// Binds all addresses for so many workers, or takes what somebody else bound for them.
    ///
    /// # Errors
    /// If an address cannot be bound. Nothing is bound then.
    pub fn open(listen: &[Endpoint], workers: usize, inherited: &Inherited) -> Result<Sockets, BindError> {
        let workers = workers.max(1);
        let mut sockets = Sockets { workers, opened: Vec::new() };
        for endpoint in listen {
            sockets.add(sockets.opened.len() as u64, endpoint, inherited)?;
        }
        Ok(sockets)
    }

    fn add(&mut self, number: u64, endpoint: &Endpoint, inherited: &Inherited) -> Result<(), BindError> {
        let of_workers = claim(&endpoint.address, self.workers, inherited)?;
        self.opened.push(Opened { number, endpoint: endpoint.clone(), of_workers });
        Ok(())
    }

    /// The URLs they can be reached at, with the ports that the system chose.
    pub fn addresses(&self) -> Vec<String> {
        self.opened.iter().flat_map(Opened::urls).collect()
    }
}

impl Opened {
    /// Every worker has the same addresses.
    fn urls(&self) -> impl Iterator<Item = String> {
        self.of_workers.iter().take(1).flatten().map(|bound| url(bound, &self.endpoint))
    }
}

/// A log that takes the place of another, or of none.
type NewLog = Option<Arc<AccessLog>>;

/// What a worker is told while it runs.
enum Order {
    /// Serve with these from now on.
    Serve { service: MakeService, settings: Settings, caps: Caps, log: Option<NewLog> },
    /// Accept from these sockets, too.
    Listen { number: u64, sockets: Vec<Bound>, endpoint: Endpoint },
    /// Give up the sockets of this number.
    Cease(u64),
    /// Another process accepts from now on. What runs may go on for so long.
    Drain(Duration),
    /// End soon.
    Stop,
}

/// A worker, as whoever directs it sees it.
struct Directed {
    orders: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    /// Counts on while the worker gets its turns.
    heartbeat: Arc<AtomicU64>,
}

/// A server that runs.
pub struct Running {
    addresses: Vec<String>,
    workers: Vec<Directed>,
    /// Handles of all listening sockets: to be handed over, and to be given up.
    opened: Vec<Opened>,
    next_number: u64,
    log: Option<Arc<AccessLog>>,
    log_before: Option<Arc<AccessLog>>,
    metrics: Arc<Metrics>,
    heartbeats: Vec<u64>,
}

/// Tells a running server to stop, from anywhere.
#[derive(Clone)]
pub struct Stopper {
    orders: Vec<mpsc::UnboundedSender<Order>>,
    metrics: Arc<Metrics>,
}

impl Stopper {
    /// As [`Running::stop`].
    pub fn stop(&self) {
        self.metrics.drain();
        for orders in &self.orders {
            let _ = orders.send(Order::Stop);
        }
    }
}

/// Everything of a running server that can be replaced.
pub struct Change {
    /// Makes the service of a worker.
    pub service: MakeService,
    /// Deadlines and limits.
    pub settings: Settings,
    /// Connections in all; 0 for as many as the open files allow.
    pub connections_max: usize,
    /// Connections per client address; 0 for no limit.
    pub connections_per_address_max: u32,
    /// The access log; the one in force may go on.
    pub log: Option<Arc<AccessLog>>,
    /// Where to listen. Addresses that are listened on already go on without a gap, and keep their slot for TLS.
    pub listen: Vec<Endpoint>,
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
    let sockets = Sockets::open(&options.listen, options.workers, &Inherited::default())?;
    start_with(sockets, options)
}

/// Starts the workers on sockets that are bound; what `options` say of addresses and the number of workers is not
/// looked at again.
///
/// # Errors
/// If a worker cannot be started.
pub fn start_with(sockets: Sockets, options: Options) -> Result<Running, StartError> {
    let Sockets { workers: count, opened } = sockets;
    let caps = caps(options.connections_max, options.connections_per_address_max, count);
    let mut workers = Vec::new();
    for index in 0..count {
        let (orders, received) = mpsc::unbounded_channel();
        let heartbeat = Arc::new(AtomicU64::new(0));
        let (service, log) = (options.service.clone(), options.log.clone());
        let settings = share(&options.settings, count);
        let (beat, metrics) = (heartbeat.clone(), options.metrics.clone());
        let make = move || async move {
            let ledger = Ledger::new(caps);
            let log = log.as_ref().map(|log| log.worker());
            let worker = Worker::new(Rc::new(service()), settings, ledger, log, metrics.recorder());
            work(worker, received, beat).await;
        };
        let thread = Some(eleven_net::worker::spawn(format!("worker-{index}"), make)?);
        workers.push(Directed { orders, thread, heartbeat });
    }
    options.metrics.started();
    let mut running = Running {
        addresses: Vec::new(),
        heartbeats: vec![0; workers.len()],
        workers,
        next_number: opened.len() as u64,
        opened,
        log: options.log,
        log_before: None,
        metrics: options.metrics,
    };
    for opened in &running.opened {
        running.listen(opened)?;
    }
    running.addresses = running.urls();
    Ok(running)
}

/// The settings of one of so many workers.
fn share(settings: &Settings, workers: usize) -> Settings {
    Settings { overload: settings.overload.share(workers), ..settings.clone() }
}

fn caps(connections_max: usize, connections_per_address_max: u32, workers: usize) -> Caps {
    let open_files = match raise_limit() {
        Ok(limit) => limit.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays as it is");
            limit().unwrap_or(1024)
        }
    };
    let available =
        usize::try_from(open_files.saturating_sub(DESCRIPTORS_RESERVED).max(16)).unwrap_or(usize::MAX);
    let all = match connections_max {
        0 => available,
        max => max.min(available),
    };
    Caps {
        connections_max: (all / workers).max(1),
        connections_per_address_max: match connections_per_address_max {
            0 => 0,
            max => max.div_ceil(workers as u32),
        },
    }
}

fn url(bound: &Bound, asked: &Endpoint) -> String {
    let scheme = if asked.tls.load().is_some() { "https" } else { "http" };
    match (bound.local_addr(), &asked.address) {
        (Some(address), ListenAddr::Tcp { host: None, .. }) => {
            format!("{scheme}://localhost:{}/", address.port())
        }
        (Some(address), _) => format!("{scheme}://{address}/"),
        (None, asked) => asked.to_string(),
    }
}

/// The life of a worker: accept and serve as ordered until told to stop, then let what runs finish.
async fn work(worker: Rc<Worker>, mut orders: mpsc::UnboundedReceiver<Order>, heartbeat: Arc<AtomicU64>) {
    let ledger = worker.ledger().clone();
    ledger.sweep();
    let sweeper = ledger.clone();
    tokio::task::spawn_local(async move { sweeper.keep_sweeping().await });
    tokio::task::spawn_local(publish(worker.clone()));
    tokio::task::spawn_local(beat(heartbeat));
    let mut accepting: HashMap<u64, Accepting> = HashMap::new();
    let mut drained = None;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = emptied_or_late(&ledger, drained), if drained.is_some() => break,
        };
        match order {
            Some(Order::Serve { service, settings, caps, log }) => {
                ledger.set_limits(caps);
                worker.replace(Rc::new(service()), settings);
                if let Some(log) = log {
                    worker.replace_log(log.as_ref().map(|log| log.worker()));
                }
            }
            Some(Order::Listen { number, sockets, endpoint }) => {
                accepting.insert(number, accept(&worker, sockets, &endpoint));
            }
            Some(Order::Cease(number)) => {
                if let Some(accepting) = accepting.remove(&number) {
                    accepting.cease(Cease::Close).await;
                }
            }
            Some(Order::Drain(patience)) => {
                for (_, accepting) in accepting.drain() {
                    accepting.cease(Cease::Leave).await;
                }
                ledger.drain();
                drained = Some(tokio::time::Instant::now() + patience);
            }
            Some(Order::Stop) | None => break,
        }
    }
    for (_, accepting) in accepting.drain() {
        accepting.cease(Cease::Close).await;
    }
    ledger.stop();
    let patience = Duration::from_millis(worker.settings().timeouts.stop_timeout_ms);
    if tokio::time::timeout(patience, ledger.emptied()).await.is_err() {
        tracing::warn!(connections = ledger.count(), "stopping with connections that would not finish");
    }
}

/// Ready when the last connection has left, or has had its time.
async fn emptied_or_late(ledger: &Ledger, by: Option<tokio::time::Instant>) {
    if let Some(by) = by {
        let _ = tokio::time::timeout_at(by, ledger.emptied()).await;
    }
}

/// Shows that this worker gets its turns.
async fn beat(heartbeat: Arc<AtomicU64>) {
    let mut interval = tokio::time::interval(Duration::from_millis(SWEEP_MS));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        heartbeat.fetch_add(1, Ordering::Relaxed);
    }
}

/// The accept loops of one address.
struct Accepting {
    cease: watch::Sender<Option<Cease>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Accepting {
    async fn cease(self, how: Cease) {
        let _ = self.cease.send(Some(how));
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

fn accept(worker: &Rc<Worker>, sockets: Vec<Bound>, endpoint: &Endpoint) -> Accepting {
    let Endpoint { address, tls, relays } = endpoint;
    let name = Arc::new(address.clone());
    let (cease, ceased) = watch::channel(None);
    let mut tasks = Vec::new();
    for bound in sockets {
        let port = bound.local_addr().map_or(0, |address| address.port());
        let listener = match bound.listen() {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, port, "a worker cannot listen");
                continue;
            }
        };
        let (worker, tls, relays) = (worker.clone(), tls.clone(), relays.clone());
        let local = Local { port, listener: Some(name.clone()) };
        let mut ceased = ceased.clone();
        tasks.push(tokio::task::spawn_local(async move {
            let serve = |stream: Stream, peer: PeerAddr, slot| {
                worker.recorder().accepted();
                let (worker, local) = (worker.clone(), local.clone());
                match (relays.load_full(), tls.load_full()) {
                    (Some(relays), tls) => {
                        let accepted = Accepted { stream, peer, local, slot };
                        tokio::task::spawn_local(relayed::serve(accepted, worker, relays, tls))
                    }
                    (None, None) => {
                        tokio::task::spawn_local(session::serve(stream, peer, local, slot, worker))
                    }
                    (None, Some(config)) => {
                        tokio::task::spawn_local(secure::serve(stream, peer, local, slot, worker, config))
                    }
                };
            };
            let refuse = |stream: Stream, why| refuse(&worker, stream, why);
            let told = async move {
                // Nobody who could tell is left: as for a stop.
                ceased.wait_for(Option::is_some).await.ok().and_then(|how| *how).unwrap_or(Cease::Close)
            };
            // One relay brings many clients; they are counted once they are known.
            let is_counted = || relays.load().is_none();
            listener.accept_all(worker.ledger(), serve, refuse, told, is_counted).await;
        }));
    }
    Accepting { cease, tasks }
}

/// Tells the figures once a second what the connections are doing.
async fn publish(worker: Rc<Worker>) {
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        worker.recorder().publish(worker.ledger().phases(), worker.queued());
    }
}

/// Tells a newcomer that there is no room; as much as its socket takes at once.
fn refuse(worker: &Worker, mut stream: Stream, why: Refused) {
    tracing::debug!(?why, "a connection was refused");
    worker.recorder().refused_connection(match why {
        Refused::Address => "per-address",
        Refused::Full => "full",
    });
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

    fn urls(&self) -> Vec<String> {
        self.opened.iter().flat_map(Opened::urls).collect()
    }

    /// Where an address that is listened on finds its TLS settings.
    pub fn tls_slot(&self, address: &ListenAddr) -> Option<TlsSlot> {
        let opened = self.opened.iter().find(|opened| opened.endpoint.address == *address);
        opened.map(|opened| opened.endpoint.tls.clone())
    }

    /// Has all workers accept from an address.
    fn listen(&self, opened: &Opened) -> io::Result<()> {
        for (worker, sockets) in self.workers.iter().zip(&opened.of_workers) {
            let sockets: io::Result<Vec<Bound>> = sockets.iter().map(Bound::try_clone).collect();
            let (number, endpoint) = (opened.number, opened.endpoint.clone());
            let _ = worker.orders.send(Order::Listen { number, sockets: sockets?, endpoint });
        }
        Ok(())
    }

    /// Asks the workers to stop: listeners close at once, what runs may finish.
    pub fn stop(&self) {
        for opened in &self.opened {
            opened.of_workers.iter().flatten().for_each(Bound::unlink);
        }
        self.stopper().stop();
    }

    /// What tells it to stop while somebody waits for that.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            orders: self.workers.iter().map(|worker| worker.orders.clone()).collect(),
            metrics: self.metrics.clone(),
        }
    }

    /// Replaces service, settings, log and listeners in all workers, without touching a connection. Those that came
    /// by an address that is given up are served on. The number of workers stays.
    ///
    /// # Errors
    /// If an address cannot be bound. Nothing has changed then.
    pub fn change(&mut self, change: Change) -> Result<(), StartError> {
        let mut new = Sockets { workers: self.workers.len(), opened: Vec::new() };
        for endpoint in &change.listen {
            if self.tls_slot(&endpoint.address).is_none() {
                new.add(self.next_number, endpoint, &Inherited::default())?;
                self.next_number += 1;
            }
        }
        for opened in &new.opened {
            // Only a lack of descriptors is in the way here.
            if let Err(error) = self.listen(opened) {
                new.opened.iter().for_each(|opened| self.cease(opened.number));
                return Err(error.into());
            }
        }
        let wanted = |opened: &Opened| change.listen.iter().any(|e| e.address == opened.endpoint.address);
        let (kept, dropped): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.opened).into_iter().partition(wanted);
        for opened in &kept {
            if let Some(now) = change.listen.iter().find(|e| e.address == opened.endpoint.address) {
                opened.endpoint.relays.store(now.relays.load_full());
            }
        }
        self.opened = kept;
        self.opened.append(&mut new.opened);
        for opened in dropped {
            let number = opened.number;
            // Our handles first: the workers close the last ones.
            drop(opened);
            self.cease(number);
        }
        let is_same = match (&self.log, &change.log) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (before, now) => before.is_none() && now.is_none(),
        };
        let log = (!is_same).then(|| change.log.clone());
        let caps = caps(change.connections_max, change.connections_per_address_max, self.workers.len());
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Serve {
                service: change.service.clone(),
                settings: share(&change.settings, self.workers.len()),
                caps,
                log: log.clone(),
            });
        }
        if let Some(log) = log {
            // Kept until the next one: lines may still be on their way to it.
            self.log_before = std::mem::replace(&mut self.log, log);
        }
        self.addresses = self.urls();
        Ok(())
    }

    fn cease(&self, number: u64) {
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Cease(number));
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Handles of all listening sockets, each with the address it was asked for by.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn sockets(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let mut sockets = Vec::new();
        for opened in &self.opened {
            for (at, bound) in opened.of_workers.iter().flatten().enumerate() {
                // Clones of one socket are sent once: a Unix socket, and those that a manager passed.
                let seen = opened.of_workers.iter().flatten().take(at).any(|other| other.is_same(bound));
                if !seen {
                    sockets.push((opened.endpoint.address.to_string(), bound.to_owned_fd()?));
                }
            }
        }
        Ok(sockets)
    }

    /// Leaves accepting to another process that has the same sockets. Exchanges go on, and tunnels, no longer than
    /// `patience`; idle connections stay until their time is up or their next exchange, which is their last.
    pub fn drain(&self, patience: Duration) {
        self.metrics.drain();
        for opened in &self.opened {
            opened.of_workers.iter().flatten().for_each(Bound::disown);
        }
        for worker in &self.workers {
            let _ = worker.orders.send(Order::Drain(patience));
        }
    }

    /// Whether every worker had its turn since this was asked last.
    pub fn is_alive(&mut self) -> bool {
        let now: Vec<u64> =
            self.workers.iter().map(|worker| worker.heartbeat.load(Ordering::Relaxed)).collect();
        let alive = now.iter().zip(&self.heartbeats).all(|(now, before)| now != before);
        self.heartbeats = now;
        alive
    }

    /// The figures.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Opens log files anew, after a rotation.
    pub fn reopen_logs(&self) {
        access_log::reopen_all();
    }

    /// The access log in force.
    pub fn log(&self) -> Option<Arc<AccessLog>> {
        self.log.clone()
    }

    /// Waits until every worker has ended.
    pub fn wait(&mut self) {
        for worker in &mut self.workers {
            if worker.thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!("a worker panicked");
            }
        }
        access_log::flush_all();
    }
}
