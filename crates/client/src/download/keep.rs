//! Beside a download: tells its progress, has checkpoints made, notices a stall, and decides how many connections it is
//! worth. Moves no content.

use super::Segments;
use super::fetch::Shared;
use crate::error::{Cause, Failure, Phase};
use crate::progress::Event;
use crate::rate::Minimum;
use eleven_net::clock;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Beside the pumps: tells progress, makes checkpoints, watches the speed, and adds helpers while they help.
pub(super) async fn keep(shared: Rc<Shared>, can_split: bool) {
    const TICK: Duration = Duration::from_millis(100);
    let begun = clock::now();
    let most = match shared.options.segments {
        _ if !can_split => 1,
        Segments::Fixed(count) => count.clamp(1, crate::segments::SEGMENTS_MAX),
        Segments::Auto => crate::segments::SEGMENTS_MAX,
    };
    let mut helpers = Aborting(Vec::new());
    let mut ramp = Ramp::new(matches!(shared.options.segments, Segments::Auto));
    let mut minimum = Minimum::new(clock::now());
    let (mut synced_at, mut synced_bytes) = (clock::now(), shared.received.get());
    let mut told = u64::MAX;
    loop {
        let left = {
            let plan = shared.plan.borrow();
            plan.length() - plan.done().total()
        };
        let wanted = ramp.wanted(shared.received.get(), left, clock::now(), most);
        while shared.active.get() < wanted && !shared.saturated.get() && shared.plan.borrow().has_work() {
            shared.active.set(shared.active.get() + 1);
            let mirror = shared.active.get() - 1;
            helpers.0.push(tokio::task::spawn_local(Rc::clone(&shared).help(mirror)));
            shared.tell(&Event::Connections(shared.active.get()));
        }
        // While the number of connections is still to be found out, each moment counts.
        let young = ramp.auto && clock::now() - begun < Ramp::STEP * 8;
        tokio::time::sleep(if young { Ramp::STEP } else { TICK }).await;
        let here = shared.plan.borrow().done().total();
        if here != told {
            told = here;
            shared.tell(&Event::Here(here));
        }
        let now = clock::now();
        let limited =
            shared.options.rate_limit.is_some_and(|rate| rate < 4 * crate::rate::MINIMUM_BYTES_PER_SECOND);
        if !limited && minimum.is_stalled(shared.received.get(), now) {
            let cause = Cause::Timeout(crate::rate::MINIMUM_OVER_MS);
            *shared.failed.borrow_mut() = Some(Failure::new(Phase::Content, cause));
        }
        let bytes = shared.received.get() - synced_bytes;
        let due =
            now.saturating_duration_since(synced_at) >= Duration::from_millis(shared.options.checkpoint_ms);
        if bytes > 0 && (due || bytes >= shared.options.checkpoint_bytes) {
            (synced_at, synced_bytes) = (now, shared.received.get());
            if let Err(failure) = shared.checkpoint() {
                *shared.failed.borrow_mut() = Some(failure);
                shared.changed.notify_waiters();
            }
        }
    }
}

/// How many connections to use, where that is for us to find out: doubled step by step as long as there is work for
/// more than a moment. A full line loses nothing by it, a limit per connection is overcome by it. (The speed of
/// one is no proof: servers that limit begin with a burst.)
pub(super) struct Ramp {
    auto: bool,
    current: usize,
    begun: Option<(tokio::time::Instant, u64)>,
    stepped: Option<tokio::time::Instant>,
}

impl Ramp {
    /// How long one step lasts at least: sixteen connections after a tenth of a second.
    const STEP: Duration = Duration::from_millis(25);
    /// With less than this left, a new connection would come too late.
    const WORTHWHILE_S: f64 = 1.0;

    pub(super) fn new(auto: bool) -> Ramp {
        Ramp { auto, current: 1, begun: None, stepped: None }
    }

    /// The number wanted, with `received` octets in this run, `left` to come, and at most `most` allowed.
    pub(super) fn wanted(
        &mut self,
        received: u64,
        left: u64,
        now: tokio::time::Instant,
        most: usize,
    ) -> usize {
        if !self.auto {
            return most;
        }
        let begun = *self.begun.get_or_insert((now, received));
        let stepped = *self.stepped.get_or_insert(now);
        if now.saturating_duration_since(stepped) >= Ramp::STEP && self.current < most {
            let took = now.saturating_duration_since(begun.0).as_secs_f64();
            let speed = (received - begun.1) as f64 / took;
            if left as f64 > speed * Ramp::WORTHWHILE_S {
                self.current *= 2;
                self.stepped = Some(now);
            }
        }
        self.current.min(most)
    }
}

/// Tasks that end with their owner.
pub(super) struct Aborting(pub(super) Vec<JoinHandle<()>>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
