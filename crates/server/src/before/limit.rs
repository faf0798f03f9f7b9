//! How often one client may ask: the generic cell rate algorithm (one number per address, no timer), in shards shared
//! by the workers, with a bounded number of addresses. IPv6 clients count by their /64, since one host has all of it.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Shards, so that workers rarely meet.
const SHARDS: usize = 16;

/// A rate: so many requests in so long, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests …
    pub requests: u64,
    /// … in this time, in milliseconds.
    pub per_ms: u64,
    /// Requests that may come at once; at least 1.
    pub burst: u64,
    /// Addresses remembered.
    pub addresses_max: usize,
}

/// The state of a rate for all addresses seen.
pub struct Limiter {
    /// Time of one request, in nanoseconds.
    interval: u64,
    /// How far a client may be ahead of its time.
    tolerance: u64,
    shards: Box<[Mutex<Shard>]>,
    shard_max: usize,
    /// Randomly keyed: the addresses are the clients' choice.
    hash: RandomState,
}

/// Two generations: when the young one is full, the old one is forgotten. An address that asks moves to the young
/// one, so what is forgotten was quiet for at least half of the room.
#[derive(Default)]
struct Shard {
    young: HashMap<u128, u64>,
    old: HashMap<u128, u64>,
}

/// The client asked too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    /// When it may ask again, in whole seconds from now, at least 1: the value of Retry-After.
    pub retry_after_s: u64,
}

impl Limiter {
    /// A limiter where nobody has asked yet.
    pub fn new(rate: Rate) -> Limiter {
        let interval = (rate.per_ms.saturating_mul(1_000_000) / rate.requests.max(1)).max(1);
        Limiter {
            interval,
            tolerance: interval.saturating_mul(rate.burst.max(1) - 1),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max: (rate.addresses_max / SHARDS / 2).max(1),
            hash: RandomState::new(),
        }
    }

    /// Counts a request of a client at a time (nanoseconds of any clock that does not go back).
    ///
    /// # Errors
    /// If it asked too often; then the request does not count.
    pub fn admit(&self, client: IpAddr, now_ns: u64) -> Result<(), TooMany> {
        let key = key(client);
        let shard = &self.shards[self.hash.hash_one(key) as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        // The time at which the client would be even, had it asked as slowly as allowed.
        let even = shard.young.get(&key).or_else(|| shard.old.get(&key)).copied().unwrap_or(0).max(now_ns);
        let ahead = even - now_ns;
        if ahead > self.tolerance {
            let wait_ns = ahead - self.tolerance;
            return Err(TooMany { retry_after_s: wait_ns.div_ceil(1_000_000_000).max(1) });
        }
        if shard.young.len() >= self.shard_max && !shard.young.contains_key(&key) {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, even.saturating_add(self.interval));
        Ok(())
    }

    /// Addresses remembered.
    pub fn addresses(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Limiter({} ns each, {} ns ahead)", self.interval, self.tolerance)
    }
}

fn key(client: IpAddr) -> u128 {
    match client.to_canonical() {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        // Never equal to an IPv4 key: the upper half of a global IPv6 address is not zero.
        IpAddr::V6(v6) => u128::from(v6) >> 64 << 64 | 1 << 63,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limiter(requests: u64, per_ms: u64, burst: u64, addresses_max: usize) -> Limiter {
        Limiter::new(Rate { requests, per_ms, burst, addresses_max })
    }

    /// 9110-10.2.3-R1 and fault A03: the rate, the burst, and when to come again.
    #[test]
    fn a_burst_and_then_the_rate() {
        let limiter = limiter(2, 1000, 3, 1000);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let start = 5 * SECOND;
        for _ in 0..3 {
            assert_eq!(limiter.admit(client, start), Ok(()));
        }
        assert_eq!(limiter.admit(client, start), Err(TooMany { retry_after_s: 1 }));
        // Refused requests do not push the time away.
        for _ in 0..100 {
            assert!(limiter.admit(client, start).is_err());
        }
        assert_eq!(limiter.admit(client, start + SECOND / 2), Ok(()));
        assert!(limiter.admit(client, start + SECOND / 2).is_err());
        assert_eq!(limiter.admit("192.0.2.2".parse().unwrap(), start), Ok(()));
        // After a quiet time the whole burst is there again, and not more.
        let later = start + 100 * SECOND;
        let admitted = (0..10).filter(|_| limiter.admit(client, later).is_ok()).count();
        assert_eq!(admitted, 3);
    }

    #[test]
    fn slow_rates_say_how_long_to_wait() {
        let limiter = limiter(1, 60_000, 1, 1000);
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(limiter.admit(client, 0), Ok(()));
        assert_eq!(limiter.admit(client, 0), Err(TooMany { retry_after_s: 60 }));
        assert_eq!(limiter.admit(client, 30 * SECOND + 1), Err(TooMany { retry_after_s: 30 }));
        assert_eq!(limiter.admit(client, 60 * SECOND), Ok(()));
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let limiter = limiter(1, 1000, 1, 1000);
        let admit = |text: &str| limiter.admit(text.parse().unwrap(), 0).is_ok();
        assert!(admit("2001:db8::1"));
        assert!(!admit("2001:db8::2"));
        assert!(admit("2001:db8:0:1::1"));
        assert!(admit("192.0.2.1"));
        assert!(!admit("::ffff:192.0.2.1"));
    }

    /// A flood of addresses costs bounded memory and does not free the one that asks all the time.
    #[test]
    fn memory_is_bounded_and_busy_addresses_are_remembered() {
        let limiter = limiter(1, 3_600_000, 1, 1024);
        let busy: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(limiter.admit(busy, 0).is_ok());
        let mut forgotten = 0;
        for i in 0..100_000u32 {
            let _ = limiter.admit(IpAddr::V4((0x0a00_0000 + i).into()), 0);
            if limiter.addresses() > 1024 + SHARDS {
                panic!("{} addresses remembered", limiter.addresses());
            }
            if i % 4 == 0 && limiter.admit(busy, 0).is_ok() {
                forgotten += 1;
            }
        }
        // It was refused each time it asked, so it never moved: it may be forgotten as often as the room turns over.
        assert!(forgotten <= 100_000 / 1024 * 2 + 1, "{forgotten}");
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        for limiter in
            [limiter(u64::MAX, 1, u64::MAX, 0), limiter(1, u64::MAX, u64::MAX, 0), limiter(0, 0, 0, 0)]
        {
            let _ = limiter.admit("192.0.2.1".parse().unwrap(), u64::MAX);
            let _ = limiter.admit("192.0.2.1".parse().unwrap(), 0);
        }
    }
}
