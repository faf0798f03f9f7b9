//! The ledger of a worker's connections: what each one does, until when it may, and who has to go when there
//! is no more room. One slab, no locks, no timer of its own per connection.
//!
//! A connection writes its phase and deadline into its slot (two stores), and asks the slot for a verdict
//! whenever it waits. A sweep a few times a second finds the overdue ones and wakes them. Deadlines are
//! therefore coarse, late by up to [`SWEEP_MS`], which is as it should be for seconds.

use crate::clock;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// Milliseconds between sweeps.
pub const SWEEP_MS: u64 = 250;

/// Connections woken at a time: each then writes a last response, or closes, and nobody else is served meanwhile.
const WAKES_MAX: usize = 32;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between messages.
    Idle,
    /// A head has begun to come.
    Head,
    /// Content of a request is awaited.
    Content,
    /// A response is being made.
    Handling,
    /// A response is being sent.
    Sending,
    /// The connection is closing in stages.
    Lingering,
    /// The connection speaks another protocol.
    Tunnel,
}

/// Why a connection must stop waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The deadline of its phase has passed.
    Overdue,
    /// It makes room for a newcomer.
    Evicted,
    /// The worker is stopping. Comes once; what runs may finish.
    Stopping,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    /// When the phase began, in milliseconds of the ledger.
    since: u64,
    deadline: u64,
    verdict: Option<Verdict>,
    waker: Option<Waker>,
    address: Option<IpAddr>,
}

#[derive(Debug)]
enum Place {
    Taken(Entry),
    Free { next: usize },
}

const NONE: usize = usize::MAX;

/// All connections of a worker.
#[derive(Debug)]
pub struct Ledger {
    places: RefCell<Vec<Place>>,
    free: Cell<usize>,
    count: Cell<usize>,
    started: Instant,
    now: Cell<u64>,
    stopping: Cell<bool>,
    per_address: RefCell<HashMap<IpAddr, u32>>,
    limits: Cell<Caps>,
    /// Connections that were asked to go and have not left yet.
    leaving: Cell<usize>,
    released: Notify,
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// In all, per worker.
    pub connections_max: usize,
    /// From one address, per worker; 0 for no limit.
    pub connections_per_address_max: u32,
}

/// Why a newcomer was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its address has as many connections as it may.
    Address,
    /// There is no room, and nobody could be asked to go.
    Full,
}

/// A connection's place in the ledger. Dropping it gives the place back.
#[derive(Debug)]
pub struct Slot {
    ledger: Rc<Ledger>,
    index: usize,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(caps: Caps) -> Rc<Ledger> {
        Rc::new(Ledger {
            places: RefCell::new(Vec::new()),
            free: Cell::new(NONE),
            count: Cell::new(0),
            started: clock::now(),
            now: Cell::new(0),
            stopping: Cell::new(false),
            per_address: RefCell::new(HashMap::new()),
            limits: Cell::new(caps),
            leaving: Cell::new(0),
            released: Notify::new(),
        })
    }

    /// Connections now.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Whether the worker is stopping.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Milliseconds since the ledger was made, as of the last sweep.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now.get()
    }

    /// Enters a connection. Where there is no room, the one that makes the slowest progress is asked to go, and
    /// the newcomer is let in beyond the cap while that one leaves (fault D02).
    ///
    /// # Errors
    /// If there is no room and nobody to ask, or the address has too many.
    pub fn enter(self: &Rc<Ledger>, address: Option<IpAddr>) -> Result<Slot, Refused> {
        let counted = address.filter(|_| self.limits.get().connections_per_address_max > 0);
        if let Some(address) = counted {
            let mut per_address = self.per_address.borrow_mut();
            let count = per_address.entry(address).or_insert(0);
            if *count >= self.limits.get().connections_per_address_max {
                return Err(Refused::Address);
            }
            *count += 1;
        }
        let staying = self.count.get() - self.leaving.get();
        if staying >= self.limits.get().connections_max && !self.evict() {
            if let Some(address) = counted {
                self.forget_address(address);
            }
            return Err(Refused::Full);
        }
        let entry = Entry {
            phase: Phase::Idle,
            since: self.now.get(),
            deadline: u64::MAX,
            verdict: None,
            waker: None,
            address: counted,
        };
        self.count.set(self.count.get() + 1);
        let mut places = self.places.borrow_mut();
        let index = match self.free.get() {
            NONE => {
                places.push(Place::Taken(entry));
                places.len() - 1
            }
            index => {
                if let Place::Free { next } = places[index] {
                    self.free.set(next);
                }
                places[index] = Place::Taken(entry);
                index
            }
        };
        Ok(Slot { ledger: self.clone(), index })
    }

    fn forget_address(&self, address: IpAddr) {
        let mut per_address = self.per_address.borrow_mut();
        if let Some(count) = per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                per_address.remove(&address);
            }
        }
    }

    /// Asks connections to go: those whose heads have been under way longest, then those idle longest. One in
    /// 64 go at a time, so that a flood of newcomers does not pay for a search each. Connections in the midst
    /// of an exchange stay. Whether there was one.
    pub fn evict(&self) -> bool {
        let mut places = self.places.borrow_mut();
        let mut candidates: Vec<(u8, u64, usize)> = Vec::new();
        for (index, place) in places.iter().enumerate() {
            let Place::Taken(entry) = place else { continue };
            let rank = match entry.phase {
                _ if entry.verdict.is_some() => continue,
                Phase::Head => 0,
                Phase::Lingering => 1,
                Phase::Idle => 2,
                _ => continue,
            };
            candidates.push((rank, entry.since, index));
        }
        let count = (self.count.get() / 64 + 1).min(candidates.len());
        if count == 0 {
            return false;
        }
        candidates.select_nth_unstable(count - 1);
        for &(_, _, index) in &candidates[..count] {
            if let Place::Taken(entry) = &mut places[index] {
                entry.verdict = Some(Verdict::Evicted);
                wake(entry);
            }
        }
        self.leaving.set(self.leaving.get() + count);
        true
    }

    /// Waits until a connection has left: for an accept loop that ran out of file descriptors.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    /// Other limits from now on. Connections beyond them stay until they yield to newcomers.
    pub fn set_limits(&self, caps: Caps) {
        self.limits.set(caps);
    }

    /// From now on [`Ledger::is_stopping`] holds, but nobody is told: what lies idle may stay until its time is up,
    /// or until its next exchange, which will be its last.
    pub fn drain(&self) {
        self.stopping.set(true);
    }

    /// Tells every connection, and those still to come, that the worker is stopping.
    pub fn stop(&self) {
        self.stopping.set(true);
        for place in self.places.borrow_mut().iter_mut() {
            if let Place::Taken(entry) = place
                && entry.verdict.is_none()
            {
                entry.verdict = Some(Verdict::Stopping);
                wake(entry);
            }
        }
    }

    /// Waits until the last connection has left.
    pub async fn emptied(&self) {
        while self.count.get() > 0 {
            self.released.notified().await;
        }
    }

    /// Looks for overdue connections, once.
    pub fn sweep(&self) {
        let mut at = 0;
        while let Some(next) = self.sweep_from(at) {
            at = next;
        }
    }

    /// Sweeps from this place on until [`WAKES_MAX`] connections were woken: the place to go on from, if any is left.
    fn sweep_from(&self, first: usize) -> Option<usize> {
        self.now.set(self.started.elapsed().as_millis() as u64);
        let now = self.now.get();
        let mut woken = 0;
        for (at, place) in self.places.borrow_mut().iter_mut().enumerate().skip(first) {
            if let Place::Taken(entry) = place
                && entry.deadline <= now
                && entry.verdict != Some(Verdict::Evicted)
            {
                entry.verdict = Some(Verdict::Overdue);
                wake(entry);
                woken += 1;
                if woken == WAKES_MAX {
                    return Some(at + 1);
                }
            }
        }
        None
    }

    /// Sweeps for ever. Where many connections are overdue at once, those who are not get their turns in between.
    pub async fn keep_sweeping(&self) {
        let mut interval = tokio::time::interval(Duration::from_millis(SWEEP_MS));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let mut at = 0;
            while let Some(next) = self.sweep_from(at) {
                // The runtime looks at its sockets before it comes back.
                tokio::task::yield_now().await;
                at = next;
            }
        }
    }

    /// Counts the connections by phase, for the metrics: idle, head, content, handling, sending, lingering,
    /// tunnel.
    pub fn phases(&self) -> [usize; 7] {
        let mut counts = [0; 7];
        for place in self.places.borrow().iter() {
            if let Place::Taken(entry) = place {
                counts[entry.phase as usize] += 1;
            }
        }
        counts
    }
}

fn wake(entry: &mut Entry) {
    if let Some(waker) = entry.waker.take() {
        waker.wake();
    }
}

impl Slot {
    fn with<R>(&self, f: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        match &mut self.ledger.places.borrow_mut()[self.index] {
            Place::Taken(entry) => Some(f(entry)),
            Place::Free { .. } => None,
        }
    }

    /// Counts the connection as one of this address, whom the one it was entered for speaks for.
    ///
    /// # Errors
    /// If that one has too many. The connection is then counted for nobody.
    pub fn count_for(&self, address: IpAddr) -> Result<(), Refused> {
        let ledger = &self.ledger;
        if let Some(before) = self.with(|entry| entry.address.take()).flatten() {
            ledger.forget_address(before);
        }
        let max = ledger.limits.get().connections_per_address_max;
        if max == 0 {
            return Ok(());
        }
        let mut per_address = ledger.per_address.borrow_mut();
        let count = per_address.entry(address).or_insert(0);
        if *count >= max {
            return Err(Refused::Address);
        }
        *count += 1;
        self.with(|entry| entry.address = Some(address));
        Ok(())
    }

    /// The ledger it is in.
    pub fn ledger(&self) -> &Rc<Ledger> {
        &self.ledger
    }

    /// Begins a phase that may last so many milliseconds (`u64::MAX`: for ever).
    #[inline]
    pub fn begin(&self, phase: Phase, for_ms: u64) {
        let now = self.ledger.now.get();
        self.with(|entry| {
            entry.phase = phase;
            entry.since = now;
            entry.deadline = now.saturating_add(for_ms);
            if entry.verdict == Some(Verdict::Overdue) {
                entry.verdict = None;
            }
        });
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        self.with(|entry| entry.phase).unwrap_or(Phase::Idle)
    }

    /// How long the current phase has lasted, in milliseconds.
    pub fn phase_ms(&self) -> u64 {
        let now = self.ledger.now.get();
        self.with(|entry| now.saturating_sub(entry.since)).unwrap_or(0)
    }

    /// Lets the current phase last so many milliseconds from now.
    pub fn extend(&self, for_ms: u64) {
        let now = self.ledger.now.get();
        self.with(|entry| {
            entry.deadline = now.saturating_add(for_ms);
            if entry.verdict == Some(Verdict::Overdue) {
                entry.verdict = None;
            }
        });
    }

    /// The verdict, if there is one; else arranges to be woken for it. [`Verdict::Stopping`] is given once.
    #[inline]
    pub fn poll_verdict(&self, cx: &mut Context<'_>) -> Poll<Verdict> {
        self.with(|entry| match entry.verdict {
            Some(verdict) => {
                if verdict == Verdict::Stopping {
                    entry.verdict = None;
                }
                Poll::Ready(verdict)
            }
            None => {
                match &mut entry.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    empty => *empty = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        })
        .unwrap_or(Poll::Pending)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let ledger = &self.ledger;
        let mut places = ledger.places.borrow_mut();
        let old = std::mem::replace(&mut places[self.index], Place::Free { next: ledger.free.get() });
        ledger.free.set(self.index);
        drop(places);
        ledger.count.set(ledger.count.get() - 1);
        if let Place::Taken(entry) = old {
            if entry.verdict == Some(Verdict::Evicted) {
                ledger.leaving.set(ledger.leaving.get() - 1);
            }
            if let Some(address) = entry.address {
                ledger.forget_address(address);
            }
        }
        ledger.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn ledger(connections_max: usize, per_address: u32) -> Rc<Ledger> {
        Ledger::new(Caps { connections_max, connections_per_address_max: per_address })
    }

    /// Fault D02: the slowest head yields, then the longest idle; an exchange never does.
    #[tokio::test(start_paused = true)]
    async fn the_slowest_yields_to_a_newcomer() {
        let ledger = ledger(3, 0);
        let idle = ledger.enter(None).unwrap();
        let head = ledger.enter(None).unwrap();
        let busy = ledger.enter(None).unwrap();
        head.begin(Phase::Head, 10_000);
        busy.begin(Phase::Handling, u64::MAX);
        let _fourth = ledger.enter(None).unwrap();
        assert_eq!(poll_fn(|cx| head.poll_verdict(cx)).await, Verdict::Evicted);
        let _fifth = ledger.enter(None).unwrap();
        assert_eq!(poll_fn(|cx| idle.poll_verdict(cx)).await, Verdict::Evicted);
        _fourth.begin(Phase::Sending, 1);
        _fifth.begin(Phase::Sending, 1);
        assert!(matches!(ledger.enter(None), Err(Refused::Full)));
        drop((idle, head, busy));
        assert_eq!(ledger.count(), 2);
        assert!(ledger.enter(None).is_ok());
    }

    /// Fault D10.
    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_own_cap() {
        let ledger = ledger(10, 1);
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        let first = ledger.enter(Some(address)).unwrap();
        assert!(matches!(ledger.enter(Some(address)), Err(Refused::Address)));
        assert!(ledger.enter(Some("::1".parse().unwrap())).is_ok());
        drop(first);
        assert!(ledger.enter(Some(address)).is_ok());
    }

    /// Fault D40.
    #[tokio::test(start_paused = true)]
    async fn deadlines_come_with_a_sweep_and_can_be_moved() {
        let ledger = ledger(10, 0);
        let slot = ledger.enter(None).unwrap();
        slot.begin(Phase::Head, 1000);
        tokio::time::advance(Duration::from_millis(999)).await;
        ledger.sweep();
        let pending = poll_fn(|cx| Poll::Ready(slot.poll_verdict(cx).is_pending())).await;
        assert!(pending);
        tokio::time::advance(Duration::from_millis(1)).await;
        ledger.sweep();
        assert_eq!(poll_fn(|cx| slot.poll_verdict(cx)).await, Verdict::Overdue);
        slot.begin(Phase::Sending, 1000);
        let pending = poll_fn(|cx| Poll::Ready(slot.poll_verdict(cx).is_pending())).await;
        assert!(pending, "a new phase is a new chance");
        ledger.stop();
        assert_eq!(poll_fn(|cx| slot.poll_verdict(cx)).await, Verdict::Stopping);
        assert!(ledger.is_stopping());
    }

    /// Fault D01: a thousand that are overdue at once do not keep others from their turns.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn many_that_are_overdue_are_woken_a_few_at_a_time() {
        const OVERDUE: usize = 1000;
        let ledger = ledger(2 * OVERDUE, 0);
        let ended = Rc::new(Cell::new(0));
        for _ in 0..OVERDUE {
            let (slot, ended) = (ledger.enter(None).unwrap(), ended.clone());
            slot.begin(Phase::Head, 1000);
            tokio::task::spawn_local(async move {
                assert_eq!(poll_fn(|cx| slot.poll_verdict(cx)).await, Verdict::Overdue);
                ended.set(ended.get() + 1);
            });
        }
        // They wait by now; then all are overdue before the first sweep.
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_millis(1000)).await;
        let sweeping = ledger.clone();
        tokio::task::spawn_local(async move { sweeping.keep_sweeping().await });
        let (mut before, mut most) = (0, 0);
        while before < OVERDUE {
            tokio::task::yield_now().await;
            most = most.max(ended.get() - before);
            before = ended.get();
        }
        assert!((1..=2 * WAKES_MAX).contains(&most), "{most} between two turns of another");
    }
}
