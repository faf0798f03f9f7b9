//! What all workers know of one server: whether it passes its checks, whether an operator drains it, whether it is
//! left alone after failures and until when, whether it starts slowly, and the counts that the metrics show. Atomics in
//! one small struct, each true by itself; who gets a request is decided in `proxy/upstream.rs`.

use super::upstream::Ejection;
use eleven_net::clock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What all workers know of a server.
#[derive(Debug)]
pub struct Shared {
    /// The checks find it healthy. True where there are none. Changed by [`Shared::set_healthy`].
    pub healthy: AtomicBool,
    /// It gets no new requests; sticky clients keep it. An operator's switch.
    pub draining: AtomicBool,
    /// Requests it is answering, over all workers.
    pub active: AtomicU32,
    /// A worker runs its checks.
    pub checked: AtomicBool,
    /// Times it was asked, for the metrics.
    pub asked: AtomicU64,
    /// Times it could not be reached or broke its connection, for the metrics.
    pub failed: AtomicU64,
    /// Connections opened to it, for the metrics.
    pub opened: AtomicU64,
    /// Connections to it that lie idle in the pools of all workers, as of the last second.
    pub idle: AtomicI64,
    /// Failures in a row, whichever worker saw them.
    failures: AtomicU32,
    /// Ejections since it answered last.
    ejections: AtomicU32,
    /// Milliseconds after `epoch`; 0 for not ejected.
    ejected_until_ms: AtomicU64,
    /// When it came back, in milliseconds after `epoch`; 0 where it has its full share.
    returned_at_ms: AtomicU64,
    epoch: Instant,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            healthy: AtomicBool::new(true),
            draining: AtomicBool::new(false),
            active: AtomicU32::new(0),
            checked: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            idle: AtomicI64::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
            returned_at_ms: AtomicU64::new(0),
            epoch: clock::now(),
        }
    }
}

impl Shared {
    /// Never 0, which means "not".
    fn ms(&self, at: Instant) -> u64 {
        (at.saturating_duration_since(self.epoch).as_millis() as u64).max(1)
    }

    /// Whether it is left alone now. Whoever finds that the time is over begins the slow start.
    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return false;
        }
        let now = self.ms(now);
        if until > now {
            return true;
        }
        let over = self.ejected_until_ms.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
        if over.is_ok() {
            self.returned_at_ms.store(now, Ordering::Relaxed);
        }
        false
    }

    /// How long it is still left alone, for showing it.
    pub fn ejected_for(&self, now: Instant) -> Option<Duration> {
        let left = self.ejected_until_ms.load(Ordering::Relaxed).saturating_sub(self.ms(now));
        (left > 0).then(|| Duration::from_millis(left))
    }

    /// What the checks found. A server that comes back begins with less than its share.
    pub fn set_healthy(&self, healthy: bool, now: Instant) {
        if !self.healthy.swap(healthy, Ordering::Relaxed) && healthy {
            self.returned_at_ms.store(self.ms(now), Ordering::Relaxed);
        }
    }

    /// How long ago it came back, while that is less than `slow_start_ms`.
    pub fn returned_since_ms(&self, now: Instant, slow_start_ms: u64) -> Option<u64> {
        let returned = self.returned_at_ms.load(Ordering::Relaxed);
        if returned == 0 {
            return None;
        }
        let since = self.ms(now).saturating_sub(returned);
        if since < slow_start_ms {
            return Some(since);
        }
        // Only this one: it may have come back once more in the meantime.
        let _ = self.returned_at_ms.compare_exchange(returned, 0, Ordering::Relaxed, Ordering::Relaxed);
        None
    }

    /// It answered: whatever it did before is forgiven.
    pub fn succeeded(&self) {
        // Read first: a store for each request would take the line of memory away from the other workers.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// It could not be reached or broke its connection. How long it is left alone from now on, if this was once too
    /// often; `may_eject` is false where there is no other server.
    pub fn failed(&self, ejection: &Ejection, may_eject: bool, now: Instant) -> Option<Duration> {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let before = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1));
        let failures = before.map_or(u32::MAX, |before| before + 1);
        // Those that were under way when it was ejected say nothing new.
        if ejection.failures == 0 || failures < ejection.failures || !may_eject || self.is_ejected(now) {
            return None;
        }
        let times = self.ejections.load(Ordering::Relaxed);
        let pause_ms = ejection.first_ms.saturating_mul(1 << times.min(20)).min(ejection.longest_ms);
        let until = self.ms(now).saturating_add(pause_ms);
        // One of several workers ejects it.
        self.ejected_until_ms.compare_exchange(0, until, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.ejections.store(times.saturating_add(1), Ordering::Relaxed);
        Some(Duration::from_millis(pause_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Failures that several workers see are counted together, and one of them ejects.
    #[test]
    fn workers_count_failures_together() {
        let shared = Arc::new(Shared::default());
        let ejection = Ejection { failures: 100, first_ms: 30_000, ..Ejection::default() };
        let now = clock::now();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (shared, ejection) = (Arc::clone(&shared), ejection.clone());
                std::thread::spawn(move || {
                    (0..50).filter(|_| shared.failed(&ejection, true, now).is_some()).count()
                })
            })
            .collect();
        let ejected: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        assert_eq!(ejected, 1);
        assert!(shared.is_ejected(now));
        assert_eq!(shared.ejected_for(now), Some(Duration::from_millis(30_000)));
        assert_eq!(shared.failed.load(Ordering::Relaxed), 200);
        let later = now + Duration::from_millis(30_001);
        assert!(!shared.is_ejected(later));
        assert_eq!(shared.ejected_for(later), None);
        assert_eq!(shared.returned_since_ms(later, 5_000), Some(0));
        assert_eq!(shared.returned_since_ms(later + Duration::from_secs(5), 5_000), None);
    }

    #[test]
    fn one_server_alone_is_never_left_alone() {
        let shared = Shared::default();
        let now = clock::now();
        assert!((0..50).all(|_| shared.failed(&Ejection::default(), false, now).is_none()));
        assert!(!shared.is_ejected(now));
        let never = Ejection { failures: 0, ..Ejection::default() };
        assert!((0..50).all(|_| shared.failed(&never, true, now).is_none()));
    }
}
