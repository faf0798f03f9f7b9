//! What is done when more is asked for than can be worked on: so many requests are worked on at once, some wait a
//! short time, the rest is refused at once (503 with Retry-After), so that those who are let in are answered in time.
//! Decides only, and knows no clock: [`gated`] has the tasks. What is answered from memory or a file does not come
//! here: refusing it would cost as much as answering it.
//!
//! How long a request may wait depends on how the queue has fared (the idea of CoDel, for requests): a queue that was
//! empty a while ago is a burst, and has patience; one that has stood longer than that patience is overload, and
//! waiting in it helps nobody, so the wait is kept short. (Where few are worked on at once, a short queue is empty now and
//! then by chance; that is no end of overload.) Whoever would not get his turn in time at the pace at which
//! places become free is refused when he comes, not when his time is over.

pub mod gated;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

/// Requests worked on at once by one worker, where nothing else is said. Each holds a few buffers.
pub const WORKING_PER_WORKER: usize = 2048;
/// Places that became free before their pace is believed.
const PACE_KNOWN: u32 = 16;
/// The pace is the mean time between so many of the last places, more or less.
const PACE_PARTS: u64 = 32;

/// How much, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests worked on at once, up to the head of their responses. 0: as is usual, [`WORKING_PER_WORKER`] each.
    pub working_max: usize,
    /// Requests that wait.
    pub waiting_max: usize,
    /// How long one may wait in a queue that was empty so long ago or less, in milliseconds.
    pub patience_ms: u64,
    /// How long one may wait in a queue that has stood for longer.
    pub patience_standing_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { working_max: 0, waiting_max: 1024, patience_ms: 1_000, patience_standing_ms: 100 }
    }
}

impl Limits {
    /// The share of one of so many workers in limits of a whole process.
    #[must_use]
    pub fn share(&self, workers: usize) -> Limits {
        let workers = workers.max(1);
        let working_max = match self.working_max {
            0 => WORKING_PER_WORKER,
            max => max.div_ceil(workers),
        };
        Limits { working_max, waiting_max: self.waiting_max.div_ceil(workers), ..*self }
    }
}

/// Why a request is not worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    QueueFull,
    /// It would not get its turn in time.
    NoHope,
    /// It waited, and its time is over.
    Waited,
}

impl Refused {
    /// Its name in logs and figures.
    pub fn name(self) -> &'static str {
        match self {
            Refused::QueueFull => "overload-queue-full",
            Refused::NoHope => "overload-no-hope",
            Refused::Waited => "overload-waited",
        }
    }
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Names it.
    pub number: u64,
    /// When its time is over.
    pub until_us: u64,
}

/// Who works and who waits, of one worker. `T` is what is known of one who waits. Times are microseconds of any clock
/// that does not go back.
#[derive(Debug)]
pub struct Queue<T> {
    limits: Limits,
    working: usize,
    waiting: VecDeque<(u64, T)>,
    next: u64,
    /// Since when somebody waits, moments without anybody included.
    standing_since_us: Option<u64>,
    /// When the last one went who waited.
    emptied_us: u64,
    /// When a place became free last while somebody waited, and how many did.
    freed_us: u64,
    freed: u32,
    /// Mean time between two.
    pace_us: u64,
}

impl<T> Queue<T> {
    /// Nobody works, nobody waits.
    pub fn new(limits: Limits) -> Queue<T> {
        Queue {
            limits: limits.share(1),
            working: 0,
            waiting: VecDeque::new(),
            next: 0,
            standing_since_us: None,
            emptied_us: 0,
            freed_us: 0,
            freed: 0,
            pace_us: 0,
        }
    }

    /// Other limits, from now on. Who was let in stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.share(1);
    }

    /// Requests that are worked on.
    pub fn working(&self) -> usize {
        self.working
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lets one in, if there is room and nobody was here before. What usually happens, so it needs no clock.
    #[inline]
    pub fn enter(&mut self) -> bool {
        let room = self.working < self.limits.working_max && self.waiting.is_empty();
        self.working += usize::from(room);
        room
    }

    /// Has one wait for whom there was no room.
    ///
    /// # Errors
    /// Where waiting would be in vain.
    pub fn wait(&mut self, now_us: u64, who: T) -> Result<Place, Refused> {
        if self.waiting.len() >= self.limits.waiting_max {
            return Err(Refused::QueueFull);
        }
        let moment_us = self.limits.patience_standing_ms.saturating_mul(1000);
        if self.waiting.is_empty() && now_us.saturating_sub(self.emptied_us) >= moment_us {
            self.standing_since_us = None;
        }
        let patience_us = self.patience_us(now_us);
        let turn_us = self.pace_us.saturating_mul(self.waiting.len() as u64 + 1);
        if self.standing_since_us.is_some() && self.freed >= PACE_KNOWN && turn_us > patience_us {
            return Err(Refused::NoHope);
        }
        if self.standing_since_us.is_none() {
            (self.standing_since_us, self.freed) = (Some(now_us), 0);
        }
        let place = Place { number: self.next, until_us: now_us.saturating_add(patience_us) };
        self.next += 1;
        self.waiting.push_back((place.number, who));
        Ok(place)
    }

    fn patience_us(&self, now_us: u64) -> u64 {
        let patience_us = self.limits.patience_ms.saturating_mul(1000);
        match self.standing_since_us {
            Some(since) if now_us.saturating_sub(since) >= patience_us => {
                patience_us.min(self.limits.patience_standing_ms.saturating_mul(1000))
            }
            _ => patience_us,
        }
    }

    /// One is done. If another has waited, it is let in.
    #[inline]
    pub fn leave(&mut self, now_us: impl FnOnce() -> u64) -> Option<T> {
        self.working = self.working.saturating_sub(1);
        if self.waiting.is_empty() { None } else { self.follow(now_us()) }
    }

    fn follow(&mut self, now_us: u64) -> Option<T> {
        let took_us = now_us.saturating_sub(self.freed_us);
        self.freed_us = now_us;
        // What lies before the first says nothing.
        if self.freed > 0 {
            let parts = u64::from(self.freed).min(PACE_PARTS);
            self.pace_us = (self.pace_us * (parts - 1) + took_us) / parts;
        }
        self.freed = self.freed.saturating_add(1);
        if self.working >= self.limits.working_max {
            return None; // the limit was lowered
        }
        let (_, who) = self.waiting.pop_front()?;
        self.working += 1;
        self.note_empty(now_us);
        Some(who)
    }

    /// One goes away that waited: its time is over, or its client left.
    pub fn withdraw(&mut self, number: u64, now_us: u64) {
        if let Ok(at) = self.waiting.binary_search_by_key(&number, |(number, _)| *number) {
            self.waiting.remove(at);
            self.note_empty(now_us);
        }
    }

    fn note_empty(&mut self, now_us: u64) {
        if self.waiting.is_empty() {
            self.emptied_us = now_us;
        }
    }
}
