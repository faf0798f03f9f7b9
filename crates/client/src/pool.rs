//! Connections at rest, by origin, for one worker: which may be used again, how many there may be, how long they
//! wait. Single-threaded, without locks on the way of a request.
//!
//! The key of a pool holds everything that makes one connection different from another: scheme, host, port, proxy
//! with its credentials, TLS settings, socket path, and who the connection was authenticated for (fault K21). Does
//! not connect: the caller hands in how.

use crate::error::Failure;
use crate::exchange::Connection;
use eleven_net::clock;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Everything that tells connections apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Key {
    /// TLS to the origin.
    pub secure: bool,
    /// Host in canonical form.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The socket used in place of host and port.
    pub unix_socket: Option<PathBuf>,
    /// The proxy, as `scheme://host:port`.
    pub proxy: Option<String>,
    /// A hash of the credentials given to the proxy: never shared between two users.
    pub proxy_credentials: u64,
    /// Which TLS settings: roots, client certificate, verification. The number is the caller's.
    pub tls: u64,
    /// Anything else that must not be mixed: an address given by hand, a user.
    pub isolation: u64,
}

/// Limits of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLimits {
    /// Connections per key, busy and idle together.
    pub connections_per_origin_max: usize,
    /// Idle connections per key; what is beyond is closed.
    pub idle_per_origin_max: usize,
    /// Idle connections altogether.
    pub idle_max: usize,
    /// How long an idle connection is kept, if the server promises no less.
    pub idle_timeout_ms: u64,
    /// How much earlier than the server's promise a connection is given up: it may be closing it right now.
    pub idle_margin_ms: u64,
    /// Requests on one connection; 0 for no limit.
    pub requests_per_connection_max: u32,
}

impl Default for PoolLimits {
    fn default() -> PoolLimits {
        PoolLimits {
            // What browsers use; enough to fill a line, too few to be a burden.
            connections_per_origin_max: 6,
            idle_per_origin_max: 6,
            idle_max: 256,
            idle_timeout_ms: 60_000,
            idle_margin_ms: 1_000,
            requests_per_connection_max: 0,
        }
    }
}

/// Counters since the pool was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Connections opened.
    pub opened: u64,
    /// Times an idle one was used again.
    pub reused: u64,
    /// Idle ones closed because their time was over.
    pub expired: u64,
    /// Idle ones found closed, or with octets nobody asked for.
    pub dead: u64,
}

/// A pool. Clones are the same pool.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

struct Shared {
    limits: PoolLimits,
    origins: RefCell<HashMap<Rc<Key>, Rc<Origin>>>,
    counts: RefCell<PoolCounts>,
}

/// Where a pool keeps the connections of one key, for whoever asks for the same key often.
#[derive(Clone)]
pub struct Handle(Rc<Origin>);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({} idle)", self.0.idle.borrow().len())
    }
}

struct Origin {
    /// One permit per connection that may be busy.
    permits: Arc<Semaphore>,
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    connection: Box<Connection>,
    until: Instant,
}

/// A connection lent by a pool. Dropped, it is closed; [`Pooled::release`] gives it back.
pub struct Pooled {
    /// Boxed: it is handed from hand to hand, and large.
    connection: Option<Box<Connection>>,
    origin: Rc<Origin>,
    pool: Pool,
    reused: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Pool {
        Pool(Rc::new(Shared {
            limits,
            origins: RefCell::new(HashMap::new()),
            counts: RefCell::new(PoolCounts::default()),
        }))
    }

    fn origin(&self, key: &Rc<Key>) -> Rc<Origin> {
        let mut origins = self.0.origins.borrow_mut();
        if let Some(origin) = origins.get(key) {
            return Rc::clone(origin);
        }
        let limit = self.0.limits.connections_per_origin_max.clamp(1, Semaphore::MAX_PERMITS);
        let origin = Rc::new(Origin { permits: Arc::new(Semaphore::new(limit)), idle: RefCell::default() });
        origins.insert(Rc::clone(key), Rc::clone(&origin));
        origin
    }

    /// Where the connections of this key are kept.
    pub fn handle(&self, key: &Rc<Key>) -> Handle {
        Handle(self.origin(key))
    }

    /// An idle connection that still lives, if there is one and no limit stands against it. Waits for nothing.
    pub fn checkout_idle(&self, handle: &Handle) -> Option<Pooled> {
        let origin = &handle.0;
        if origin.idle.borrow().is_empty() {
            return None;
        }
        let permit = Arc::clone(&origin.permits).try_acquire_owned().ok()?;
        let connection = self.take_idle(origin)?;
        Some(self.reused(connection, Rc::clone(origin), Some(permit)))
    }

    fn reused(
        &self,
        connection: Box<Connection>,
        origin: Rc<Origin>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Pooled {
        self.0.counts.borrow_mut().reused += 1;
        Pooled { connection: Some(connection), origin, pool: self.clone(), reused: true, permit }
    }

    /// A connection for this key: an idle one that still lives, else a new one by `connect`, else the wait for
    /// one that is given back. The caller sets a deadline by dropping the future.
    ///
    /// # Errors
    /// Those of `connect`.
    pub async fn checkout<F>(&self, key: &Rc<Key>, connect: impl FnOnce() -> F) -> Result<Pooled, Failure>
    where
        F: Future<Output = Result<Connection, Failure>>,
    {
        let origin = self.origin(key);
        let permit = match Arc::clone(&origin.permits).try_acquire_owned() {
            Ok(permit) => Some(permit),
            // The semaphore is never closed; without a permit the limit would only be softer.
            Err(_) => Arc::clone(&origin.permits).acquire_owned().await.ok(),
        };
        if let Some(connection) = self.take_idle(&origin) {
            return Ok(self.reused(connection, origin, permit));
        }
        // In a box: opening is large and rare, and whoever waits here is moved about for every request.
        let connection = Box::pin(connect()).await?;
        self.0.counts.borrow_mut().opened += 1;
        Ok(Pooled { connection: Some(connection.into()), origin, pool: self.clone(), reused: false, permit })
    }

    /// A new connection for this key, never an idle one: for the second attempt of a request that an idle one
    /// failed.
    ///
    /// # Errors
    /// Those of `connect`.
    pub async fn checkout_fresh<F>(
        &self,
        key: &Rc<Key>,
        connect: impl FnOnce() -> F,
    ) -> Result<Pooled, Failure>
    where
        F: Future<Output = Result<Connection, Failure>>,
    {
        let origin = self.origin(key);
        // What failed one idle connection has likely ended its neighbours.
        origin.idle.borrow_mut().retain_mut(|idle| idle.connection.is_alive());
        let permit = Arc::clone(&origin.permits).acquire_owned().await.ok();
        let connection = Box::pin(connect()).await?;
        self.0.counts.borrow_mut().opened += 1;
        Ok(Pooled { connection: Some(connection.into()), origin, pool: self.clone(), reused: false, permit })
    }

    /// The idle connection used last that still lives: the others may rest until their time is over.
    fn take_idle(&self, origin: &Origin) -> Option<Box<Connection>> {
        let mut idle = origin.idle.borrow_mut();
        if idle.is_empty() {
            return None;
        }
        let now = clock::now();
        while let Some(mut candidate) = idle.pop() {
            if candidate.until <= now {
                self.0.counts.borrow_mut().expired += 1;
            } else if candidate.connection.is_alive() {
                return Some(candidate.connection);
            } else {
                self.0.counts.borrow_mut().dead += 1;
            }
        }
        None
    }

    /// Closes idle connections whose time is over or whose server has closed (9112-9.5-02). To be called every
    /// few seconds.
    pub fn sweep(&self) {
        let now = clock::now();
        let mut origins = self.0.origins.borrow_mut();
        for origin in origins.values() {
            origin.idle.borrow_mut().retain_mut(|idle| idle.until > now && idle.connection.is_alive());
        }
        let limit = self.0.limits.connections_per_origin_max.clamp(1, Semaphore::MAX_PERMITS);
        origins.retain(|_, origin| {
            !origin.idle.borrow().is_empty()
                || origin.permits.available_permits() < limit
                || Rc::strong_count(origin) > 1
        });
    }

    /// Sweeps for ever, once a period, until the last other handle to the pool is gone.
    pub async fn sweep_every(self, period: Duration) {
        let weak = Rc::downgrade(&self.0);
        drop(self);
        loop {
            tokio::time::sleep(period).await;
            match weak.upgrade() {
                Some(shared) => Pool(shared).sweep(),
                None => return,
            }
        }
    }

    /// Number of idle connections for one key.
    pub fn idle_of(&self, handle: &Handle) -> usize {
        handle.0.idle.borrow().len()
    }

    /// Closes all idle connections.
    pub fn clear(&self) {
        self.0.origins.borrow().values().for_each(|origin| origin.idle.borrow_mut().clear());
    }

    /// Idle connections now.
    pub fn idle_count(&self) -> usize {
        self.0.origins.borrow().values().map(|origin| origin.idle.borrow().len()).sum()
    }

    /// Counters since the pool was made.
    pub fn counts(&self) -> PoolCounts {
        *self.0.counts.borrow()
    }

    /// The limits it was made with.
    pub fn limits(&self) -> &PoolLimits {
        &self.0.limits
    }

    /// How long a connection may rest, by our own limit and by what the server said (Keep-Alive: timeout).
    fn rest(&self, connection: &Connection) -> Option<Duration> {
        let limits = &self.0.limits;
        let promise = connection.keep_alive();
        if promise.requests_left == Some(0) {
            return None;
        }
        let (sent, _) = connection.machine().counts();
        if limits.requests_per_connection_max > 0 && sent >= limits.requests_per_connection_max {
            return None;
        }
        let promised_ms = promise.timeout_secs.map_or(u64::MAX, |secs| u64::from(secs) * 1000);
        // A promise of one second or less is used for half of it.
        let promised_ms = promised_ms.saturating_sub(limits.idle_margin_ms).max(promised_ms / 2);
        let rest_ms = limits.idle_timeout_ms.min(promised_ms);
        (rest_ms > 0).then_some(Duration::from_millis(rest_ms))
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} idle, {:?})", self.idle_count(), self.counts())
    }
}

impl Pooled {
    /// Whether the connection was used before: then a failure before any response may mean no more than that
    /// the server had just closed it.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Gives the connection back if it can serve again; otherwise it is closed. What became of it.
    pub fn release(mut self) -> Released {
        let Some(mut connection) = self.connection.take() else { return Released::Closed };
        let rest = if connection.is_reusable() { self.pool.rest(&connection) } else { None };
        let Some(rest) = rest else { return Released::Closed };
        let limits = &self.pool.0.limits;
        let mut idle = self.origin.idle.borrow_mut();
        if idle.len() >= limits.idle_per_origin_max {
            return Released::Closed;
        }
        connection.rest();
        idle.push(Idle { connection, until: clock::now() + rest });
        drop(idle);
        if self.pool.idle_count_exceeds(limits.idle_max) {
            self.pool.drop_longest_idle();
        }
        // The permit goes with `self`, and the next in line finds the connection.
        Released::Kept
    }

    /// Takes the connection out for good: for a tunnel.
    pub fn into_connection(mut self) -> Option<Connection> {
        self.connection.take().map(|connection| *connection)
    }

    /// The permit still held, so that a tunnel counts as a connection of its origin.
    pub fn take_permit(&mut self) -> Option<OwnedSemaphorePermit> {
        self.permit.take()
    }
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It rests in the pool.
    Kept,
    /// It was closed.
    Closed,
}

impl Pool {
    fn idle_count_exceeds(&self, limit: usize) -> bool {
        // Counting is cheap while there are few origins, and exact.
        let origins = self.0.origins.borrow();
        origins.len() * self.0.limits.idle_per_origin_max > limit
            && origins.values().map(|origin| origin.idle.borrow().len()).sum::<usize>() > limit
    }

    fn drop_longest_idle(&self) {
        let origins = self.0.origins.borrow();
        let oldest = origins
            .values()
            .filter_map(|origin| origin.idle.borrow().first().map(|idle| (idle.until, origin)))
            .min_by_key(|(until, _)| *until);
        if let Some((_, origin)) = oldest {
            origin.idle.borrow_mut().remove(0);
        }
    }
}

impl std::ops::Deref for Pooled {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        // Only `release` and `into_connection` take it, and both consume `self`.
        self.connection.as_deref().expect("a lent connection is there until it is given back")
    }
}

impl std::ops::DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_deref_mut().expect("a lent connection is there until it is given back")
    }
}

#[cfg(test)]
mod tests;
