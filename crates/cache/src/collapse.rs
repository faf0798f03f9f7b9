//! Collapsed requests (RFC 9111 §4): of many requests for one thing that is not stored, one is sent and the
//! others wait for what it brings. Decides who fetches and who waits; what may be done with the result is the
//! engine's business.
//!
//! Nobody waits in a line: a result that cannot be shared releases all waiters at once, and is remembered for
//! a while so that later requests do not even begin to wait. A fetcher that vanishes passes its role on. Every
//! wait has a deadline, after which the waiter goes by itself.

use crate::stored::Stored;
use eleven_semantics::caching::NotStored;
use eleven_semantics::caching::reuse::Failure;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Limits of collapsing.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a request waits for another one's response, in milliseconds.
    pub wait_ms_max: u64,
    /// How long a result that could not be shared is remembered, in milliseconds.
    pub remember_ms: u64,
    /// Requests that wait for one response; more go by themselves.
    pub waiters_max: usize,
    /// Keys of which such a result is remembered, per shard.
    pub remembered_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { wait_ms_max: 10_000, remember_ms: 120_000, waiters_max: 100_000, remembered_max: 4096 }
    }
}

/// What the fetcher brought.
#[derive(Clone)]
pub enum Landing {
    /// A response that is being stored: readers may begin.
    Stored(Arc<Stored>),
    /// A response that is not stored, for this reason.
    Refused(NotStored),
    /// A response that is stored, but that others may not use without validating it themselves.
    NotShared,
    /// None: the origin server failed.
    Failed(Failure),
}

/// What a request is to do.
pub enum Role {
    /// Fetch, and tell the others through the ticket.
    Fetch(Ticket),
    /// Wait for another one's response.
    Wait(Waiter),
    /// Fetch without telling anybody: results for this key are not shared, or too many wait already.
    Alone,
}

struct Flight {
    state: Mutex<State>,
}

struct State {
    landing: Option<Landing>,
    /// The fetcher is gone; whoever looks first takes over.
    vacant: bool,
    waiters: HashMap<u64, Option<Waker>>,
    next: u64,
}

impl State {
    fn wake_all(&mut self) {
        for waker in self.waiters.values_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

#[derive(Default)]
struct Shard {
    flights: HashMap<Box<[u8]>, Arc<Flight>>,
    remembered: HashMap<u64, Instant>,
}

const SHARDS: usize = 32;

/// The flights of a cache.
pub struct Collapse {
    shards: [Mutex<Shard>; SHARDS],
    limits: Limits,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collapse {
    /// With these limits.
    pub fn new(limits: Limits) -> Arc<Collapse> {
        Arc::new(Collapse { shards: std::array::from_fn(|_| Mutex::default()), limits })
    }

    fn shard(&self, key: &[u8]) -> (u64, MutexGuard<'_, Shard>) {
        let hash = xxh3_64(key);
        (hash, lock(&self.shards[(hash >> 32) as usize % SHARDS]))
    }

    /// Joins whoever fetches this key, or becomes the fetcher.
    pub fn join(self: &Arc<Self>, key: &[u8], now: Instant) -> Role {
        let (hash, mut shard) = self.shard(key);
        if let Some(until) = shard.remembered.get(&hash) {
            if *until > now {
                return Role::Alone;
            }
            shard.remembered.remove(&hash);
        }
        if let Some(flight) = shard.flights.get(key) {
            let flight = flight.clone();
            let mut state = lock(&flight.state);
            if state.waiters.len() >= self.limits.waiters_max {
                return Role::Alone;
            }
            let number = state.next;
            state.next += 1;
            state.waiters.insert(number, None);
            drop(state);
            let deadline = now + Duration::from_millis(self.limits.wait_ms_max);
            return Role::Wait(Waiter { collapse: self.clone(), flight, key: key.into(), number, deadline });
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State { landing: None, vacant: false, waiters: HashMap::new(), next: 0 }),
        });
        shard.flights.insert(key.into(), flight.clone());
        Role::Fetch(Ticket { collapse: self.clone(), flight, key: key.into(), landed: false })
    }

    /// Forgets that results for this key could not be shared: one was.
    fn forget(&self, key: &[u8]) {
        let (hash, mut shard) = self.shard(key);
        shard.remembered.remove(&hash);
    }

    fn remember(&self, key: &[u8], now: Instant) {
        let (hash, mut shard) = self.shard(key);
        if shard.remembered.len() >= self.limits.remembered_max {
            shard.remembered.retain(|_, until| *until > now);
            if shard.remembered.len() >= self.limits.remembered_max {
                // Under such pressure, forgetting all of them is no worse than forgetting any.
                shard.remembered.clear();
            }
        }
        shard.remembered.insert(hash, now + Duration::from_millis(self.limits.remember_ms));
    }

    fn remove(&self, key: &[u8], flight: &Arc<Flight>) {
        let (_, mut shard) = self.shard(key);
        if shard.flights.get(key).is_some_and(|there| Arc::ptr_eq(there, flight)) {
            shard.flights.remove(key);
        }
    }

    /// Fetches under way.
    pub fn flights(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).flights.len()).sum()
    }
}

/// The fetcher's part. Dropped without a landing, it passes the role to one of the waiters.
pub struct Ticket {
    collapse: Arc<Collapse>,
    flight: Arc<Flight>,
    key: Box<[u8]>,
    landed: bool,
}

impl Ticket {
    /// Tells all waiters what was brought. A response that is being stored keeps its flight until the ticket
    /// is dropped, so that later requests find it while it arrives.
    pub fn land(&mut self, landing: Landing, now: Instant) {
        let stays = matches!(landing, Landing::Stored(_));
        match &landing {
            Landing::Stored(_) => self.collapse.forget(&self.key),
            Landing::Refused(why) if why.is_lasting() => self.collapse.remember(&self.key, now),
            Landing::NotShared => self.collapse.remember(&self.key, now),
            Landing::Refused(_) | Landing::Failed(_) => {}
        }
        self.landed = true;
        if !stays {
            self.collapse.remove(&self.key, &self.flight);
        }
        let mut state = lock(&self.flight.state);
        state.landing = Some(landing);
        state.wake_all();
    }

    /// How many wait at this moment.
    pub fn waiters(&self) -> usize {
        lock(&self.flight.state).waiters.len()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.landed {
            self.collapse.remove(&self.key, &self.flight);
            return;
        }
        // Under the shard's lock, so that nobody joins a flight that has no fetcher and no heir.
        let (_, mut shard) = self.collapse.shard(&self.key);
        let mut state = lock(&self.flight.state);
        if state.waiters.is_empty() {
            if shard.flights.get(&self.key).is_some_and(|there| Arc::ptr_eq(there, &self.flight)) {
                shard.flights.remove(&self.key);
            }
        } else {
            state.vacant = true;
            state.wake_all();
        }
    }
}

/// A waiter's part.
pub struct Waiter {
    collapse: Arc<Collapse>,
    flight: Arc<Flight>,
    key: Box<[u8]>,
    number: u64,
    deadline: Instant,
}

/// How waiting ended.
pub enum Waited {
    /// The fetcher brought this.
    Landed(Landing),
    /// The fetcher vanished: this request is the fetcher now.
    TakeOver(Ticket),
    /// The deadline passed.
    TimedOut,
}

impl Waiter {
    /// Waits.
    pub async fn wait(self) -> Waited {
        match tokio::time::timeout_at(self.deadline, poll_fn(|cx| self.poll(cx))).await {
            Ok(waited) => waited,
            Err(_) => Waited::TimedOut,
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Waited> {
        let mut state = lock(&self.flight.state);
        if let Some(landing) = &state.landing {
            return Poll::Ready(Waited::Landed(landing.clone()));
        }
        if std::mem::take(&mut state.vacant) {
            return Poll::Ready(Waited::TakeOver(Ticket {
                collapse: self.collapse.clone(),
                flight: self.flight.clone(),
                key: self.key.clone(),
                landed: false,
            }));
        }
        if let Some(waker) = state.waiters.get_mut(&self.number) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let (_, mut shard) = self.collapse.shard(&self.key);
        let mut state = lock(&self.flight.state);
        state.waiters.remove(&self.number);
        // The last heir of a flight without a fetcher takes the flight along.
        if state.vacant
            && state.waiters.is_empty()
            && shard.flights.get(&self.key).is_some_and(|there| Arc::ptr_eq(there, &self.flight))
        {
            shard.flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn fetch(collapse: &Arc<Collapse>, key: &[u8]) -> Ticket {
        match collapse.join(key, Instant::now()) {
            Role::Fetch(ticket) => ticket,
            _ => panic!("should fetch"),
        }
    }

    fn wait(collapse: &Arc<Collapse>, key: &[u8]) -> Waiter {
        match collapse.join(key, Instant::now()) {
            Role::Wait(waiter) => waiter,
            _ => panic!("should wait"),
        }
    }

    /// Fault D31.
    #[tokio::test(start_paused = true)]
    async fn one_fetches_and_all_get_it() {
        let collapse = Collapse::new(Limits::default());
        let mut ticket = fetch(&collapse, b"k");
        let early = wait(&collapse, b"k");
        let waiting = tokio::spawn(early.wait());
        tokio::task::yield_now().await;
        assert!(matches!(collapse.join(b"other", Instant::now()), Role::Fetch(_)));
        assert_eq!(ticket.waiters(), 1);
        ticket.land(Landing::Stored(stored(b"k", 7, &[], &[], b"x")), Instant::now());
        assert!(matches!(waiting.await.unwrap(), Waited::Landed(Landing::Stored(s)) if s.id == 7));
        // While it arrives, later ones find it too; afterwards the store has it.
        assert!(matches!(wait(&collapse, b"k").wait().await, Waited::Landed(Landing::Stored(_))));
        drop(ticket);
        assert!(matches!(collapse.join(b"k", Instant::now()), Role::Fetch(_)));
        assert_eq!(collapse.flights(), 0);
    }

    /// Fault D33.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_shared_releases_all_and_is_remembered() {
        let collapse = Collapse::new(Limits::default());
        for (landing, remembered) in [
            (Landing::Refused(NotStored::Private), true),
            (Landing::NotShared, true),
            (Landing::Refused(NotStored::RequestNoStore), false),
            (Landing::Failed(Failure::Disconnected), false),
        ] {
            let mut ticket = fetch(&collapse, b"k");
            let waiters: Vec<_> = (0..50).map(|_| tokio::spawn(wait(&collapse, b"k").wait())).collect();
            tokio::task::yield_now().await;
            ticket.land(landing, Instant::now());
            drop(ticket);
            for waiter in waiters {
                assert!(matches!(waiter.await.unwrap(), Waited::Landed(_)));
            }
            if remembered {
                assert!(matches!(collapse.join(b"k", Instant::now()), Role::Alone));
                tokio::time::advance(Duration::from_millis(120_001)).await;
            }
            assert!(matches!(collapse.join(b"k", Instant::now()), Role::Fetch(_)));
        }
        assert_eq!(collapse.flights(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetcher_that_vanishes_passes_the_role_on() {
        let collapse = Collapse::new(Limits::default());
        let ticket = fetch(&collapse, b"k");
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let waiter = wait(&collapse, b"k");
                // Each heir vanishes too, and passes the role on.
                tokio::spawn(async { matches!(waiter.wait().await, Waited::TakeOver(_)) })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(ticket);
        let mut heirs = 0;
        for waiter in waiters {
            heirs += u32::from(waiter.await.unwrap());
        }
        assert_eq!(heirs, 3);
        assert_eq!(collapse.flights(), 0);
        // Nobody waits: nothing is left behind.
        drop(fetch(&collapse, b"k"));
        assert_eq!(collapse.flights(), 0);
        // The heir is dropped before it looks.
        let ticket = fetch(&collapse, b"k");
        let waiter = wait(&collapse, b"k");
        drop(ticket);
        drop(waiter);
        assert_eq!(collapse.flights(), 0);
    }

    /// Faults D31 and D32.
    #[tokio::test(start_paused = true)]
    async fn waiting_has_a_deadline_and_a_limit() {
        let collapse = Collapse::new(Limits { waiters_max: 1, ..Limits::default() });
        let _ticket = fetch(&collapse, b"k");
        let waiter = wait(&collapse, b"k");
        assert!(matches!(collapse.join(b"k", Instant::now()), Role::Alone));
        let before = Instant::now();
        assert!(matches!(waiter.wait().await, Waited::TimedOut));
        assert_eq!(before.elapsed().as_millis(), 10_000);
        assert!(matches!(collapse.join(b"k", Instant::now()), Role::Wait(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_of_refusals_is_bounded() {
        let collapse = Collapse::new(Limits { remembered_max: 4, ..Limits::default() });
        for n in 0..10_000u32 {
            let mut ticket = fetch(&collapse, &n.to_be_bytes());
            ticket.land(Landing::NotShared, Instant::now());
        }
        assert!(collapse.shards.iter().all(|shard| lock(shard).remembered.len() <= 4));
    }
}
