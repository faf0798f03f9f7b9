//! How fast octets may come, and how slow they must not come. Takes time as an argument.

use std::time::Duration;
use tokio::time::Instant;

/// A limit of octets per second, shared by all connections of a download.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    /// When all octets taken so far are paid for.
    paid_until: Option<Instant>,
}

/// How much may be taken at once after a pause: a tenth of a second's worth.
const BURST: Duration = Duration::from_millis(100);

impl RateLimit {
    /// A limit.
    pub fn new(bytes_per_second: u64) -> RateLimit {
        RateLimit { bytes_per_second: bytes_per_second.max(1), paid_until: None }
    }

    /// Takes `bytes` at `now`: how long to wait before more is read.
    pub fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let floor = now.checked_sub(BURST).unwrap_or(now);
        let from = self.paid_until.map_or(now, |until| until.max(floor));
        let until = from + cost;
        self.paid_until = Some(until);
        until.saturating_duration_since(now)
    }

    /// A reading size that keeps the stream even.
    pub fn read_bytes(&self) -> usize {
        (self.bytes_per_second / 10).clamp(1024, 64 * 1024) as usize
    }
}

/// Octets per second below which a transfer counts as stalled (fault K35).
pub const MINIMUM_BYTES_PER_SECOND: u64 = 1024;
/// The time over which the minimum is averaged, in milliseconds.
pub const MINIMUM_OVER_MS: u64 = 30_000;

/// Watches that a transfer keeps a minimum.
#[derive(Debug)]
pub struct Minimum {
    since: Instant,
    bytes: u64,
}

impl Minimum {
    /// From now on.
    pub fn new(now: Instant) -> Minimum {
        Minimum { since: now, bytes: 0 }
    }

    /// Whether the transfer, with `total` octets so far, is too slow.
    pub fn is_stalled(&mut self, total: u64, now: Instant) -> bool {
        let window = Duration::from_millis(MINIMUM_OVER_MS);
        if now.saturating_duration_since(self.since) < window {
            return false;
        }
        let stalled = total - self.bytes < MINIMUM_BYTES_PER_SECOND * (MINIMUM_OVER_MS / 1000);
        (self.since, self.bytes) = (now, total);
        stalled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_on_average() {
        let begun = Instant::now();
        let mut limit = RateLimit::new(1_000_000);
        let mut total = 0u64;
        while total < 10_000_000 {
            let pause = limit.take(16_384, Instant::now());
            total += 16_384;
            tokio::time::sleep(pause).await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((9.8..10.3).contains(&took), "{took}");
        // A pause is not saved up.
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(limit.take(1_000_000, Instant::now()) >= Duration::from_millis(899));
    }

    /// Fault K35.
    #[tokio::test(start_paused = true)]
    async fn the_minimum_is_an_average() {
        let mut minimum = Minimum::new(Instant::now());
        let at = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert!(!minimum.is_stalled(0, at(29)));
        assert!(!minimum.is_stalled(40_000, at(31)));
        assert!(minimum.is_stalled(40_010, at(62)), "1 octet now and then is a stall");
        assert!(!minimum.is_stalled(1_000_000, at(93)));
    }
}
