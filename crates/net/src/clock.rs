//! Time for everything that waits: a monotonic clock for deadlines and a wall clock for `Date`, ages and logs.
//! Both stand on tokio's time, so a test with paused time moves them together and a run can be repeated.
//!
//! Deadlines use the monotonic clock only: a step of the wall clock expires nothing and panics nowhere
//! (faults F37, F38). Formatting a date is not done here; this crate knows no HTTP.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

thread_local! {
    /// A wall clock set by a test: the wall time, and the monotonic time at which it was that.
    static SET: Cell<Option<(Duration, Instant)>> = const { Cell::new(None) };
}

/// The monotonic time: one `clock_gettime` through the vDSO, no system call.
#[inline]
pub fn now() -> Instant {
    Instant::now()
}

/// Whole seconds since 1970-01-01 UTC, negative before it. One vDSO call, no system call.
#[inline]
pub fn unix_seconds() -> i64 {
    wall().0
}

/// Wall time as seconds and nanoseconds since 1970-01-01 UTC.
#[inline]
pub fn wall() -> (i64, u32) {
    if let Some((wall, at)) = SET.get() {
        let now = wall + Instant::now().saturating_duration_since(at);
        return (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos());
    }
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        // A clock before 1970 (fault F38): count backwards, nanoseconds always forwards.
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (-seconds, 0),
                nanos => (-seconds - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// Sets this thread's wall clock, which from then on moves with the monotonic one. For simulation; nothing
/// in a running server calls it.
pub fn set_unix_seconds(seconds: u64) {
    SET.set(Some((Duration::from_secs(seconds), Instant::now())));
}

/// Gives this thread the system's wall clock back.
pub fn unset() {
    SET.set(None);
}

/// `now + milliseconds`, or about thirty years ahead where that would overflow: a limit of `u64::MAX`
/// means "never" and must not panic.
#[inline]
pub fn deadline(now: Instant, milliseconds: u64) -> Instant {
    now.checked_add(Duration::from_millis(milliseconds))
        .unwrap_or_else(|| now + Duration::from_secs(30 * 365 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_set_wall_clock_moves_with_paused_time() {
        set_unix_seconds(4_291_747_199); // 2105-12-31T23:59:59Z
        assert_eq!(unix_seconds(), 4_291_747_199);
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(wall(), (4_291_747_200, 500_000_000));
        unset();
        assert!(unix_seconds() < 4_291_747_199);
    }

    /// Faults F37 and F38: the largest limits overflow nothing.
    #[test]
    fn deadlines_saturate() {
        let now = now();
        assert_eq!(deadline(now, 5), now + Duration::from_millis(5));
        assert!(deadline(now, u64::MAX) > now + Duration::from_secs(86_400));
    }
}
