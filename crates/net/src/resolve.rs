//! Names to addresses: the system's resolver (`getaddrinfo`, with its hosts file and its order of RFC 6724)
//! on the blocking pool, behind a small cache and a limit of lookups at a time. Static entries come first.
//!
//! `getaddrinfo` tells no TTL, so answers are kept for a fixed short time. Decides nothing about which
//! addresses may be connected to; that is [`crate::dial`]'s, address by address.

use crate::address::{Host, InvalidHost};
use crate::clock;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

/// Limits of a resolver.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long an answer is used. Short, because the system's resolver does not tell the record's TTL.
    pub found_ttl_ms: u64,
    /// How long a failure is remembered, so that a dead name costs one lookup, not one per request.
    pub failed_ttl_ms: u64,
    /// Names remembered.
    pub entries_max: usize,
    /// Lookups at a time; each holds a thread of the blocking pool that nothing can interrupt.
    pub lookups_max: usize,
    /// Addresses used of one answer (fault F08).
    pub addresses_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            found_ttl_ms: 30_000,
            failed_ttl_ms: 1_000,
            entries_max: 1024,
            lookups_max: 16,
            addresses_max: 32,
        }
    }
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Not a name at all.
    #[error(transparent)]
    InvalidHost(#[from] InvalidHost),
    /// The resolver knows no address for it.
    #[error("no address found: {0}")]
    NotFound(Rc<str>),
}

type Answer = Result<Rc<[IpAddr]>, ResolveError>;

struct Slot {
    answer: OnceCell<(Answer, Instant)>,
}

/// What is asked for an answer instead of the system, in tests.
type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// A resolver for one worker. Cloning shares it.
#[derive(Clone)]
pub struct Resolver(Rc<Inner>);

struct Inner {
    limits: Limits,
    overrides: RefCell<HashMap<(String, Option<u16>), Rc<[IpAddr]>>>,
    slots: RefCell<HashMap<String, Rc<Slot>>>,
    lookups: Arc<Semaphore>,
    lookup: Lookup,
}

fn ask_the_system(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for address in (name, 0u16).to_socket_addrs()? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

impl Resolver {
    /// A resolver that asks the system.
    pub fn new(limits: Limits) -> Resolver {
        Resolver::with_lookup(limits, ask_the_system)
    }

    /// A resolver that asks `lookup`, on the blocking pool. For simulation.
    pub fn with_lookup(
        limits: Limits,
        lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Resolver {
        let lookups = Arc::new(Semaphore::new(limits.lookups_max.max(1)));
        Resolver(Rc::new(Inner {
            limits,
            overrides: RefCell::default(),
            slots: RefCell::default(),
            lookups,
            lookup: Arc::new(lookup),
        }))
    }

    /// Answers `host` (with `port`, or every port) by these addresses from now on.
    pub fn set(&self, host: &str, port: Option<u16>, addresses: &[IpAddr]) {
        self.0.overrides.borrow_mut().insert((key(host), port), addresses.into());
    }

    /// The addresses of `host`, in order of preference, at least one. A host that is an address is its own
    /// answer. There is no deadline in here: drop the future.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, host: &str, port: u16) -> Answer {
        let key = key(host);
        let overridden = {
            let overrides = self.0.overrides.borrow();
            let exact = (key.clone(), Some(port));
            overrides.get(&exact).or_else(|| overrides.get(&(exact.0, None))).cloned()
        };
        if let Some(addresses) = overridden {
            return Ok(addresses);
        }
        match Host::parse(host)? {
            Host::Ip(ip) => return Ok(Rc::new([ip])),
            Host::Name(_) => {}
        }
        let slot = self.slot(&key);
        // Several tasks that ask for one name share one lookup; if the one that asks is dropped, another
        // takes over.
        let (answer, _) = slot.answer.get_or_init(|| self.look_up(&key)).await;
        answer.clone()
    }

    /// The slot of a name, made anew when its answer is too old.
    fn slot(&self, key: &str) -> Rc<Slot> {
        let now = clock::now();
        let mut slots = self.0.slots.borrow_mut();
        let valid = |slot: &Rc<Slot>| slot.answer.get().is_none_or(|(_, until)| *until > now);
        if let Some(slot) = slots.get(key).filter(|slot| valid(slot)) {
            return Rc::clone(slot);
        }
        if slots.len() >= self.0.limits.entries_max {
            slots.retain(|_, slot| valid(slot));
        }
        if slots.len() >= self.0.limits.entries_max {
            // Full of names in use: forget them all rather than keep a list of ages. It costs lookups.
            slots.clear();
        }
        let slot = Rc::new(Slot { answer: OnceCell::new() });
        slots.insert(key.to_owned(), Rc::clone(&slot));
        slot
    }

    async fn look_up(&self, name: &str) -> (Answer, Instant) {
        let found = self.ask(name).await;
        let limits = &self.0.limits;
        let (answer, ttl_ms) = match found {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.truncate(limits.addresses_max.max(1));
                (Ok(Rc::from(addresses)), limits.found_ttl_ms)
            }
            Ok(_) => (Err(ResolveError::NotFound("the answer is empty".into())), limits.failed_ttl_ms),
            Err(error) => (Err(ResolveError::NotFound(error.to_string().into())), limits.failed_ttl_ms),
        };
        (answer, clock::now() + Duration::from_millis(ttl_ms))
    }

    async fn ask(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.0.lookups).acquire_owned().await.map_err(io::Error::other)?;
        let (lookup, name) = (Arc::clone(&self.0.lookup), name.to_owned());
        let lookup = tokio::task::spawn_blocking(move || {
            // Held until the thread is free again, also when nobody waits for the answer any more.
            let _permit = permit;
            lookup(&name)
        });
        lookup.await.map_err(io::Error::other)?
    }
}

/// Names are compared without regard to case and to a trailing dot.
fn key(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resolver({} names)", self.0.slots.borrow().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn counted(limits: Limits) -> (Resolver, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let resolver = Resolver::with_lookup(limits, move |name| {
            counter.fetch_add(1, Ordering::Relaxed);
            match name {
                "a.example" => Ok(ips(&["192.0.2.1", "2001:db8::1"])),
                "many.example" => Ok((0..1000u32).map(|i| IpAddr::V4(i.into())).collect()),
                "empty.example" => Ok(Vec::new()),
                _ => Err(io::Error::other("no such name")),
            }
        });
        (resolver, count)
    }

    #[tokio::test(flavor = "local")]
    async fn answers_are_shared_and_remembered() {
        let (resolver, count) = counted(Limits::default());
        let (a, b, c) = tokio::join!(
            resolver.resolve("a.example", 80),
            resolver.resolve("A.Example.", 443),
            resolver.resolve("a.example", 80)
        );
        assert_eq!(a.as_deref(), Ok(&ips(&["192.0.2.1", "2001:db8::1"])[..]));
        assert_eq!((&a, &a), (&b, &c));
        assert_eq!(count.load(Ordering::Relaxed), 1);
        // Fault F08: failures too, and long answers are cut.
        for _ in 0..3 {
            assert!(resolver.resolve("absent.example", 80).await.is_err());
            assert!(resolver.resolve("empty.example", 80).await.is_err());
        }
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert_eq!(resolver.resolve("many.example", 80).await.unwrap().len(), 32);
    }

    #[tokio::test(flavor = "local")]
    async fn answers_grow_old() {
        let (resolver, count) = counted(Limits { found_ttl_ms: 0, ..Limits::default() });
        resolver.resolve("a.example", 80).await.unwrap();
        resolver.resolve("a.example", 80).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(flavor = "local")]
    async fn the_cache_is_bounded() {
        let (resolver, _) = counted(Limits { entries_max: 4, ..Limits::default() });
        for i in 0..40 {
            let _ = resolver.resolve(&format!("x{i}.example"), 80).await;
            assert!(resolver.0.slots.borrow().len() <= 4);
        }
    }

    #[tokio::test(flavor = "local")]
    async fn static_entries_and_addresses_ask_nobody() {
        let (resolver, count) = counted(Limits::default());
        resolver.set("a.example", Some(80), &ips(&["127.0.0.1"]));
        resolver.set("b.example", None, &ips(&["127.0.0.2"]));
        assert_eq!(resolver.resolve("a.example", 80).await.as_deref(), Ok(&ips(&["127.0.0.1"])[..]));
        assert_eq!(resolver.resolve("B.example", 9).await.as_deref(), Ok(&ips(&["127.0.0.2"])[..]));
        assert_eq!(resolver.resolve("[::1]", 9).await.as_deref(), Ok(&ips(&["::1"])[..]));
        assert_eq!(count.load(Ordering::Relaxed), 0);
        assert!(resolver.resolve("a.example", 81).await.is_ok());
        assert_eq!(count.load(Ordering::Relaxed), 1);
        // Fault X11: what the system would read as 127.0.0.1 is not even asked.
        for disguised in ["0x7f.1", "2130706433", "127.1"] {
            assert_eq!(
                resolver.resolve(disguised, 80).await,
                Err(ResolveError::InvalidHost(InvalidHost)),
                "{disguised}"
            );
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(flavor = "local")]
    async fn the_system_knows_localhost() {
        let resolver = Resolver::new(Limits::default());
        let addresses = resolver.resolve("localhost", 80).await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback));
    }
}
