//! Groups of servers behind a gateway, and which of them gets a request: rotation by weight, least requests, two
//! choices, or a consistent hash; servers that are down, ejected or drained are passed over, backups come last.
//!
//! The rotation is one worker's own; what is known of a server is shared by all workers (`proxy/shared.rs`). Decides only; connects to nobody.

pub use super::shared::Shared;
use eleven_client::pool::{Handle, Key, Pool};
use eleven_net::proxy_protocol;
use eleven_net::{clock, random};
use eleven_semantics::Version;
use std::cell::{Cell, OnceCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A host (a name, or an address, IPv6 in brackets) and port.
    Tcp {
        /// The host.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// A server of a group, as configured.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// Where it is.
    pub place: Place,
    /// TLS to it; verified against its host (fault A13).
    pub tls: Option<Arc<eleven_net::tls_config::ClientConfig>>,
    /// What goes before every path: `/app` for `http://host/app`; empty for none.
    pub prefix: Box<str>,
    /// How many of the requests it gets, compared with the others.
    pub weight: u32,
    /// It gets requests only when no other can take them.
    pub backup: bool,
    /// Tell it the client's address before the first octet of each connection.
    pub proxy_protocol: Option<proxy_protocol::Version>,
}

impl ServerPlan {
    /// A plain server on a host and port.
    pub fn tcp(host: &str, port: u16) -> ServerPlan {
        ServerPlan {
            place: Place::Tcp { host: host.into(), port },
            tls: None,
            prefix: "".into(),
            weight: 1,
            backup: false,
            proxy_protocol: None,
        }
    }

    /// The authority to ask it for, when the client's is not kept.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Tcp { host, port } if *port == self.default_port() => host.to_string(),
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }

    fn default_port(&self) -> u16 {
        if self.tls.is_some() { 443 } else { 80 }
    }
}

impl std::fmt::Display for ServerPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.place {
            Place::Tcp { host, port } => write!(f, "{scheme}://{host}:{port}{}", self.prefix),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a server is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// In turn, by weight, evenly spread.
    #[default]
    RoundRobin,
    /// The one with the fewest requests for its weight.
    LeastRequests,
    /// The less busy of two drawn at random: nearly as good, and no herd when many workers choose.
    TwoChoices,
    /// The same one for the same key, with as little change as possible when servers come and go.
    Hash(HashKey),
}

/// What is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Address,
    /// A request field, in lower case.
    Field(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

/// When a server that fails is left alone, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row that eject it; 0 for never.
    pub failures: u32,
    /// How long at first; doubled each time.
    pub first_ms: u64,
    /// How long at most.
    pub longest_ms: u64,
    /// After it comes back, how long until it gets its full share.
    pub slow_start_ms: u64,
}

impl Default for Ejection {
    fn default() -> Ejection {
        Ejection { failures: 3, first_ms: 1_000, longest_ms: 30_000, slow_start_ms: 0 }
    }
}

/// A server as one worker sees it.
#[derive(Debug)]
pub struct Server {
    /// As configured.
    pub plan: ServerPlan,
    /// Of its connections in the pool.
    pub key: Rc<Key>,
    handle: OnceCell<Handle>,
    /// Its own authority.
    pub authority: Box<[u8]>,
    /// Its name, for logs.
    pub name: Arc<str>,
    shared: Arc<Shared>,
    current: Cell<i64>,
    version: Cell<Option<(Version, Instant)>>,
}

/// How long the version a server spoke is remembered.
const VERSION_REMEMBERED: Duration = Duration::from_secs(300);

/// A group of servers.
#[derive(Debug)]
pub struct Group {
    servers: Vec<Server>,
    balance: Balance,
    ejection: Ejection,
    random: Cell<u64>,
    has_backups: bool,
}

/// A request counted with its server until this is dropped.
#[derive(Debug)]
pub struct Lease(Arc<Shared>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    fn new(index: usize, plan: ServerPlan, shared: Arc<Shared>) -> Server {
        let (host, port, unix_socket) = match &plan.place {
            Place::Tcp { host, port } => (host.to_ascii_lowercase(), *port, None),
            Place::Unix(path) => (String::new(), 0, Some(path.clone())),
        };
        let secure = plan.tls.is_some();
        // Two servers of a group may have the same address with different TLS settings.
        let key = Rc::new(Key { secure, host, port, unix_socket, tls: index as u64, ..Key::default() });
        Server {
            authority: plan.authority().into_bytes().into(),
            name: plan.to_string().into(),
            plan,
            key,
            handle: OnceCell::new(),
            shared,
            current: Cell::new(0),
            version: Cell::new(None),
        }
    }

    /// Where the pool keeps its connections.
    pub fn handle(&self, pool: &Pool) -> &Handle {
        self.handle.get_or_init(|| pool.handle(&self.key))
    }

    /// Counts a connection that was opened to it.
    pub fn opened(&self) {
        self.shared.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request with it.
    pub fn lease(&self) -> Lease {
        self.shared.active.fetch_add(1, Ordering::Relaxed);
        self.shared.asked.fetch_add(1, Ordering::Relaxed);
        Lease(Arc::clone(&self.shared))
    }

    /// Requests it is answering, over all workers.
    pub fn active(&self) -> u32 {
        self.shared.active.load(Ordering::Relaxed)
    }

    /// The version it spoke lately.
    pub fn version(&self) -> Option<Version> {
        let (version, at) = self.version.get()?;
        (clock::now().saturating_duration_since(at) < VERSION_REMEMBERED).then_some(version)
    }

    /// Remembers the version it spoke.
    pub fn learn_version(&self, version: Version) {
        if version == Version::Http11 && self.version.get().is_none() {
            return; // what everybody is taken for needs no memory
        }
        self.version.set(Some((version, clock::now())));
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.shared.is_ejected(now)
    }

    fn passes_checks(&self) -> bool {
        self.shared.healthy.load(Ordering::Relaxed)
    }

    fn is_in_service(&self) -> bool {
        self.passes_checks() && !self.shared.draining.load(Ordering::Relaxed)
    }

    /// Its weight now, in hundredths: less while it starts slowly.
    fn weight(&self, now: Instant, slow_start_ms: u64) -> u64 {
        let full = u64::from(self.plan.weight) * 100;
        let Some(since) = self.shared.returned_since_ms(now, slow_start_ms) else { return full };
        (full * since / slow_start_ms.max(1)).max(1).min(full)
    }
}

impl Group {
    /// A group. `shared` holds one for each server, in order.
    pub fn new(plans: &[ServerPlan], shared: &[Arc<Shared>], balance: Balance, ejection: Ejection) -> Group {
        let servers: Vec<Server> = plans
            .iter()
            .enumerate()
            .map(|(index, plan)| {
                Server::new(index, plan.clone(), shared.get(index).cloned().unwrap_or_default())
            })
            .collect();
        let seed = random::bytes::<8>().map_or(0x9e37_79b9, u64::from_ne_bytes);
        let has_backups = plans.iter().any(|plan| plan.backup);
        Group { servers, balance, ejection, random: Cell::new(seed | 1), has_backups }
    }

    /// Its servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server at an index that [`Group::pick`] gave.
    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// The server for the next request, not one of those tried already. Ejected servers are better than none;
    /// unhealthy and drained ones are not.
    pub fn pick(&self, hash: Option<u64>, tried: &[usize]) -> Option<usize> {
        if let [only] = &self.servers[..] {
            // The common case. Being ejected helps nobody where there is no other.
            return (tried.is_empty() && only.is_in_service()).then_some(0);
        }
        let now = clock::now();
        let backups: &[bool] = if self.has_backups { &[false, true] } else { &[false] };
        for ejected_too in [false, true] {
            for &backup in backups {
                let usable = |index: usize| {
                    let server = &self.servers[index];
                    server.plan.backup == backup
                        && server.plan.weight > 0
                        && !tried.contains(&index)
                        && server.is_in_service()
                        && (ejected_too || !server.is_ejected(now))
                };
                if let Some(index) = self.choose(hash, now, usable) {
                    return Some(index);
                }
            }
        }
        None
    }

    /// Whether a client may come back to the server at this index: it is healthy and not left alone. One that is
    /// drained, or has no weight, keeps the clients it has.
    pub fn takes_back(&self, index: usize, tried: &[usize]) -> bool {
        let now = clock::now();
        let server = &self.servers[index];
        !tried.contains(&index) && server.passes_checks() && !server.is_ejected(now)
    }

    fn choose(&self, hash: Option<u64>, now: Instant, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let indexes = (0..self.servers.len()).filter(|&index| usable(index));
        match (&self.balance, hash) {
            (Balance::Hash(_), Some(hash)) => self.by_hash(hash, indexes),
            (Balance::LeastRequests, _) => {
                let share = |&index: &usize| {
                    let server = &self.servers[index];
                    // Compared as fractions of the weight, without dividing by it.
                    (u64::from(server.active()) + 1) * 1_000_000 / self.weight(index, now)
                };
                // Ties go round, so that idle servers share the work.
                let start = self.draw() as usize;
                let count = self.servers.len();
                indexes.min_by_key(|index| (share(index), (index + start) % count))
            }
            (Balance::TwoChoices, _) => {
                let usable: Vec<usize> = indexes.collect();
                let first = *usable.get(self.draw() as usize % usable.len().max(1))?;
                let second = usable[self.draw() as usize % usable.len()];
                let busy = |index: usize| {
                    (u64::from(self.servers[index].active()) + 1) * 1_000_000 / self.weight(index, now)
                };
                Some(if busy(second) < busy(first) { second } else { first })
            }
            (Balance::RoundRobin | Balance::Hash(_), _) => self.in_turn(now, indexes),
        }
    }

    fn weight(&self, index: usize, now: Instant) -> u64 {
        self.servers[index].weight(now, self.ejection.slow_start_ms).max(1)
    }

    /// Smooth weighted rotation: each gains its weight, the richest is chosen and pays the total.
    fn in_turn(&self, now: Instant, indexes: impl Iterator<Item = usize>) -> Option<usize> {
        let (mut total, mut best) = (0i64, None::<usize>);
        for index in indexes {
            let weight = self.weight(index, now) as i64;
            let server = &self.servers[index];
            server.current.set(server.current.get() + weight);
            total += weight;
            if best.is_none_or(|best| server.current.get() > self.servers[best].current.get()) {
                best = Some(index);
            }
        }
        let chosen = &self.servers[best?];
        chosen.current.set(chosen.current.get() - total);
        best
    }

    /// Rendezvous hashing: every server draws a number from the key, weighted, and the highest wins. A server
    /// that goes away moves only its own keys.
    fn by_hash(&self, hash: u64, indexes: impl Iterator<Item = usize>) -> Option<usize> {
        let score = |index: usize| {
            let server = &self.servers[index];
            let name = xxhash_rust::xxh3::xxh3_64_with_seed(&server.authority, hash);
            // Uniform in (0, 1); -weight/ln(u) makes the share proportional to the weight.
            let uniform = ((name >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -f64::from(server.plan.weight) / uniform.ln()
        };
        indexes.max_by(|&a, &b| score(a).total_cmp(&score(b)))
    }

    /// A number drawn by xorshift: for spreading load, not for secrets.
    fn draw(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32
    }

    /// A server answered: whatever it did before is forgiven.
    pub fn succeeded(&self, index: usize) {
        self.servers[index].shared.succeeded();
    }

    /// A server could not be reached or broke its connection.
    pub fn failed(&self, index: usize) {
        let server = &self.servers[index];
        let ejected = server.shared.failed(&self.ejection, self.servers.len() > 1, clock::now());
        if let Some(pause) = ejected {
            let pause_ms = pause.as_millis() as u64;
            tracing::warn!(server = %server.plan, pause_ms, "a server is left alone after failures");
        }
    }
}

/// Retries as a share of requests, so that a failing group is not asked twice as often as a healthy one.
#[derive(Debug)]
pub struct Budget {
    /// Tenths of a retry that are left.
    tenths: Cell<u32>,
    deposit_tenths: u32,
    most_tenths: u32,
}

impl Budget {
    /// One retry allowed for each `10 / tenths` requests, and a few to begin with.
    pub fn new(tenths: u32) -> Budget {
        Budget { tenths: Cell::new(100), deposit_tenths: tenths, most_tenths: 1000 }
    }

    /// A request came.
    pub fn deposit(&self) {
        self.tenths.set((self.tenths.get() + self.deposit_tenths).min(self.most_tenths));
    }

    /// Takes a retry, if one is left.
    pub fn withdraw(&self) -> bool {
        match self.tenths.get().checked_sub(10) {
            Some(left) => {
                self.tenths.set(left);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(balance: Balance, weights: &[u32]) -> Group {
        let plans: Vec<ServerPlan> = weights
            .iter()
            .enumerate()
            .map(|(i, &weight)| ServerPlan { weight, ..ServerPlan::tcp(&format!("s{i}"), 80) })
            .collect();
        let shared: Vec<Arc<Shared>> = plans.iter().map(|_| Arc::default()).collect();
        Group::new(&plans, &shared, balance, Ejection::default())
    }

    #[test]
    fn rotation_is_even_and_by_weight() {
        let g = group(Balance::RoundRobin, &[5, 1, 1]);
        let order: String = (0..14).map(|_| g.pick(None, &[]).unwrap().to_string()).collect();
        assert_eq!(order, "00102000010200");
        let g = group(Balance::RoundRobin, &[1, 0, 1]);
        let order: String = (0..4).map(|_| g.pick(None, &[]).unwrap().to_string()).collect();
        assert_eq!(order, "0202");
    }

    #[test]
    fn the_least_busy_is_chosen() {
        let g = group(Balance::LeastRequests, &[1, 1, 2]);
        let mut leases = Vec::new();
        for _ in 0..8 {
            leases.push(g.server(g.pick(None, &[]).unwrap()).lease());
        }
        assert_eq!(g.servers().iter().map(Server::active).collect::<Vec<_>>(), [2, 2, 4]);
        leases.clear();
        assert!(g.servers().iter().all(|server| server.active() == 0));
        let g = group(Balance::TwoChoices, &[1, 1]);
        let _busy: Vec<Lease> = (0..9).map(|_| g.server(0).lease()).collect();
        let ones = (0..100).filter(|_| g.pick(None, &[]) == Some(1)).count();
        assert!(ones > 50, "{ones}");
    }

    #[test]
    fn a_hash_sticks_and_moves_little() {
        let key = || Balance::Hash(HashKey::Address);
        let (all, fewer) = (group(key(), &[1, 1, 1, 1]), group(key(), &[1, 1, 1, 0]));
        let mut counts = [0; 4];
        for hash in 0..4000u64 {
            let before = all.pick(Some(hash), &[]).unwrap();
            assert_eq!(all.pick(Some(hash), &[]), Some(before));
            counts[before] += 1;
            let after = fewer.pick(Some(hash), &[]).unwrap();
            assert!(before == after || before == 3, "only the keys of the lost server move");
            assert_ne!(all.pick(Some(hash), &[before]), Some(before));
        }
        assert!(counts.iter().all(|&count| (800..1200).contains(&count)), "{counts:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_eject_for_longer_each_time() {
        let g = group(Balance::RoundRobin, &[1, 1]);
        let picks = |g: &Group| (0..10).filter(|_| g.pick(None, &[]) == Some(0)).count();
        for _ in 0..2 {
            g.failed(0);
        }
        assert_eq!(picks(&g), 5);
        // Others that were under way make it no worse.
        for _ in 0..5 {
            g.failed(0);
        }
        assert_eq!(picks(&g), 0);
        // Ejected is better than none.
        assert_eq!(g.pick(None, &[1]), Some(0));
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(picks(&g), 5);
        g.failed(0);
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(picks(&g), 0);
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(picks(&g), 5);
        g.succeeded(0);
        g.failed(0);
        assert_eq!(picks(&g), 5);
    }

    #[test]
    fn unhealthy_drained_and_backup_servers() {
        let plans = [ServerPlan::tcp("a", 80), ServerPlan { backup: true, ..ServerPlan::tcp("b", 80) }];
        let shared: Vec<Arc<Shared>> = plans.iter().map(|_| Arc::default()).collect();
        let g = Group::new(&plans, &shared, Balance::RoundRobin, Ejection::default());
        assert_eq!(g.pick(None, &[]), Some(0));
        assert_eq!(g.pick(None, &[0]), Some(1));
        shared[0].healthy.store(false, Ordering::Relaxed);
        assert_eq!(g.pick(None, &[]), Some(1));
        shared[1].draining.store(true, Ordering::Relaxed);
        assert_eq!(g.pick(None, &[]), None);
        assert_eq!(g.pick(None, &[0, 1]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_returns_starts_slowly() {
        let plans = [ServerPlan::tcp("a", 80), ServerPlan::tcp("b", 80)];
        let shared: Vec<Arc<Shared>> = plans.iter().map(|_| Arc::default()).collect();
        let ejection = Ejection { slow_start_ms: 10_000, ..Ejection::default() };
        let g = Group::new(&plans, &shared, Balance::RoundRobin, ejection);
        shared[0].set_healthy(false, clock::now());
        assert_eq!(g.pick(None, &[]), Some(1));
        shared[0].set_healthy(true, clock::now());
        tokio::time::advance(Duration::from_millis(2_500)).await;
        let picks = (0..100).filter(|_| g.pick(None, &[]) == Some(0)).count();
        assert!((15..25).contains(&picks), "{picks}");
        tokio::time::advance(Duration::from_millis(10_000)).await;
        let picks = (0..100).filter(|_| g.pick(None, &[]) == Some(0)).count();
        assert!((45..=55).contains(&picks), "{picks}");
    }

    /// Fault D30.
    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = Budget::new(2);
        let spent = (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(spent, 10);
        (0..50).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10);
    }

    #[test]
    fn authorities_leave_out_the_default_port() {
        assert_eq!(ServerPlan::tcp("a", 80).authority(), "a");
        assert_eq!(ServerPlan::tcp("[::1]", 8080).authority(), "[::1]:8080");
        let unix = ServerPlan { place: Place::Unix("/run/app.sock".into()), ..ServerPlan::tcp("", 0) };
        assert_eq!((unix.authority(), unix.to_string()), ("localhost".into(), "unix:/run/app.sock".into()));
    }
}
