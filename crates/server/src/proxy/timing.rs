//! How asking a server goes, measured for the access log: how often, at which address, how long each step took. Kept
//! only for requests whose log tells times, because it costs a clock reading a step. Decides nothing.

use crate::record::Attempts;
use eleven_net::clock;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::time::Instant;

/// The measurements of one request.
#[derive(Debug)]
pub(super) struct Timing {
    begun: Instant,
    /// The beginning of the step that is under way.
    since: Instant,
    attempts: Rc<Cell<Attempts>>,
}

/// Measures the attempt that goes on, and its end when it is dropped.
#[derive(Debug)]
pub(super) struct UntilEnd {
    begun: Instant,
    since: Instant,
    attempts: Rc<Cell<Attempts>>,
}

impl Timing {
    pub(super) fn begin() -> Timing {
        let now = clock::now();
        Timing { begun: now, since: now, attempts: Rc::default() }
    }

    /// Another attempt begins, by asking for a connection.
    pub(super) fn attempt(&mut self) {
        self.since = clock::now();
        self.change(|attempts| *attempts = Attempts { tries: attempts.tries + 1, ..Attempts::default() });
    }

    /// Its connection is there.
    pub(super) fn connected(&mut self, address: Option<SocketAddr>, is_new: bool) {
        let now = clock::now();
        let connect_us = is_new.then(|| micros(self.since, now));
        self.since = now;
        self.change(|attempts| (attempts.address, attempts.connect_us) = (address, connect_us));
    }

    /// Keeps the time until it is dropped.
    pub(super) fn until_end(&self) -> UntilEnd {
        UntilEnd { begun: self.begun, since: self.since, attempts: Rc::clone(&self.attempts) }
    }

    /// What is measured: it goes on changing.
    pub(super) fn attempts(&self) -> Rc<Cell<Attempts>> {
        Rc::clone(&self.attempts)
    }

    fn change(&self, change: impl FnOnce(&mut Attempts)) {
        let mut attempts = self.attempts.get();
        change(&mut attempts);
        self.attempts.set(attempts);
    }
}

impl UntilEnd {
    /// The head of the response is there.
    pub(super) fn head(&self) {
        let head_us = Some(micros(self.since, clock::now()));
        self.attempts.set(Attempts { head_us, ..self.attempts.get() });
    }
}

impl Drop for UntilEnd {
    fn drop(&mut self) {
        let total_us = Some(micros(self.begun, clock::now()));
        self.attempts.set(Attempts { total_us, ..self.attempts.get() });
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    to.saturating_duration_since(from).as_micros() as u64
}
