//! Who executes which request: the workers of one application, their slots, and the queue before them. Decides
//! placing, queueing, taking back and giving up; starts no process and reads no response.
//!
//! All threads of the server share it, so it is behind a lock: a queue in front of several processes is one queue,
//! or a request would wait for a busy worker beside an idle one. What happens under the lock is a few steps and one
//! system call that does not wait.
//!
//! A worker with threads gets requests up to its number of threads, and a few more while its requests are short:
//! then it never sleeps between two, and may send several responses at once. Those wait in its socket, from where they are taken back as soon as another
//! worker has nothing to do. An event loop gets as many as it may have at once.

use super::protocol::{self, CANCEL, FORCE, Ticket};
use eleven_net::packet::PacketPair;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Limits of the queue and of requests.
#[derive(Debug, Clone)]
pub struct PoolLimits {
    /// Requests that wait for a worker; more are answered 503 at once.
    pub queue_requests_max: usize,
    /// Octets of all that wait.
    pub queue_bytes_max: usize,
    /// How long a request waits for a worker before 503.
    pub queue_timeout_ms: u64,
    /// How long a request may take once a worker has it, up to its response head; 0: without limit.
    pub request_timeout_ms: u64,
}

impl Default for PoolLimits {
    fn default() -> PoolLimits {
        PoolLimits {
            queue_requests_max: 2048,
            queue_bytes_max: 64 << 20,
            queue_timeout_ms: 30_000,
            request_timeout_ms: 30_000,
        }
    }
}

/// What happened to a request that a thread was asked to care for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It waited too long for a worker: 503.
    Expired(Ticket),
    /// Its worker is gone: 502.
    Crashed(Ticket),
    /// It took too long: 504.
    TimedOut(Ticket),
    /// A worker is gone; what it sent before is to be read first.
    WorkerGone(u32),
    /// A worker may keep the response of a request: from now on it may stand on the worker's shelf.
    MayBeHeld,
}

/// What became of a submitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// A worker has it.
    Placed,
    /// It waits.
    Waiting,
    /// The queue is full.
    Full,
    /// The application was stopped.
    Closed,
}

/// Whether something of a request came while its time was not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// It did, or the request has no limit.
    InTime,
    /// The limit was over first.
    TooLate,
}

/// A request over its time, for the supervisor to act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// The worker that has it.
    pub worker: u32,
    /// The request.
    pub ticket: Ticket,
    /// The worker has nothing else to lose: it can be killed at once.
    pub alone: bool,
}

struct Running {
    ticket: Ticket,
    /// When the worker can have begun; `None` while it is behind others in the worker's socket.
    begun: Option<Instant>,
    since: Instant,
    /// The head of its response came, so its time no longer counts.
    answered: bool,
    /// Its client was told 504.
    over: bool,
    /// The worker may keep its response for a moment.
    may_hold: bool,
}

struct Worker {
    number: u32,
    pair: Arc<PacketPair>,
    /// Requests at once: threads, or tasks of an event loop.
    slots: usize,
    event_loop: bool,
    running: VecDeque<Running>,
    /// Running mean of the time a request takes.
    mean_us: u64,
    /// Takes new requests.
    open: bool,
    served: u64,
}

/// Before anything is known: too long for looking ahead.
const MEAN_US_AT_START: u64 = 50_000;
/// Time that the requests given beyond the slots will take together.
const AHEAD_US: u64 = 2_500;
/// Those requests at most.
const AHEAD_REQUESTS_MAX: u64 = 16;

impl Worker {
    /// Requests given beyond the slots: little work, so that no request waits long behind others of the usual kind.
    fn ahead(&self) -> usize {
        if self.event_loop {
            return 0;
        }
        (AHEAD_US / self.mean_us.max(1)).min(AHEAD_REQUESTS_MAX) as usize
    }

    fn room(&self) -> usize {
        (self.slots + self.ahead()).saturating_sub(self.running.len())
    }

    fn learn(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(10_000_000);
        // One slow request stops looking ahead at once; sixteen fast ones bring it back.
        self.mean_us = if took > self.mean_us * 4 { took } else { (self.mean_us * 7 + took) / 8 };
    }

    /// Gives it a message. `false` if its socket is full or closed. It may keep the response for a moment if it has
    /// others before this one, or is given others right after (`more`).
    fn give(&mut self, message: &mut [u8], ticket: Ticket, since: Instant, more: bool, now: Instant) -> bool {
        let is_behind = self.running.len() >= self.slots;
        let may_hold = !self.event_loop && (is_behind || (more && self.room() > 1));
        protocol::set_may_hold(message, may_hold);
        if !matches!(self.pair.send(message), Ok(true)) {
            return false;
        }
        let begun = (!is_behind).then_some(now);
        self.running.push_back(Running { ticket, begun, since, answered: false, over: false, may_hold });
        true
    }
}

struct Waiting {
    ticket: Ticket,
    message: Vec<u8>,
    since: Instant,
}

struct State {
    workers: Vec<Worker>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    threads: Vec<Option<UnboundedSender<Notice>>>,
    /// The threads that know that they have requests whose responses may be kept.
    looking: Vec<bool>,
    closed: bool,
    buffer: Box<[u8]>,
}

/// The workers of one application and the queue before them.
pub struct Pool {
    state: Mutex<State>,
    limits: PoolLimits,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({:?})", self.numbers())
    }
}

/// Numbers for metrics and status pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolNumbers {
    /// Workers that take requests.
    pub workers: usize,
    /// Requests that workers have.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
}

impl State {
    fn tell(&self, thread: u8, notice: Notice) {
        if let Some(Some(sender)) = self.threads.get(usize::from(thread)) {
            // A thread that has ended waits for nothing.
            let _ = sender.send(notice);
        }
    }

    /// Gives a worker a message. Tells the thread that waits for the response that it may be kept, if it does not know
    /// of any that are.
    fn give(
        &mut self,
        index: usize,
        message: &mut [u8],
        ticket: Ticket,
        since: Instant,
        now: Instant,
    ) -> bool {
        let worker = &mut self.workers[index];
        if !worker.give(message, ticket, since, !self.waiting.is_empty(), now) {
            return false;
        }
        if worker.running.back().is_some_and(|running| running.may_hold)
            && let Some(looking) = self.looking.get_mut(usize::from(ticket.thread))
            && !std::mem::replace(looking, true)
        {
            self.tell(ticket.thread, Notice::MayBeHeld);
        }
        true
    }

    fn place(&mut self, message: &mut [u8], ticket: Ticket, since: Instant, now: Instant) -> bool {
        let mut free: Option<(usize, usize)> = None;
        for (index, worker) in self.workers.iter().enumerate() {
            let load = worker.running.len();
            if worker.open && load < worker.slots && free.is_none_or(|(_, least)| load < least) {
                free = Some((index, load));
                if load == 0 {
                    break;
                }
            }
        }
        if let Some((index, _)) = free
            && self.give(index, message, ticket, since, now)
        {
            return true;
        }
        // Nobody is free: look ahead, but never past those who wait already.
        if !self.waiting.is_empty() {
            return false;
        }
        let with_room =
            (0..self.workers.len()).filter(|&i| self.workers[i].open && self.workers[i].room() > 0);
        with_room
            .min_by_key(|&i| self.workers[i].running.len())
            .is_some_and(|i| self.give(i, message, ticket, since, now))
    }

    /// Gives a worker that has room what waits, or what waits behind another worker.
    fn feed(&mut self, index: usize, now: Instant) {
        while self.workers[index].open && self.workers[index].room() > 0 {
            let Some(mut next) = self.waiting.pop_front() else { break };
            if !self.give(index, &mut next.message, next.ticket, next.since, now) {
                self.waiting.push_front(next);
                return;
            }
            self.waiting_bytes -= next.message.len();
        }
        if self.workers[index].open && self.workers[index].running.is_empty() {
            self.steal(index, now);
        }
    }

    fn steal(&mut self, thief: usize, now: Instant) {
        let behind = |worker: &Worker| worker.running.iter().filter(|r| r.begun.is_none()).count();
        let Some(victim) = (0..self.workers.len())
            .filter(|&i| i != thief && behind(&self.workers[i]) > 0)
            .max_by_key(|&i| behind(&self.workers[i]))
        else {
            return;
        };
        if let Some(((ticket, since), octets)) = self.take_back(victim) {
            let mut message = self.buffer[..octets].to_vec();
            if !self.give(thief, &mut message, ticket, since, now) {
                self.wait_first(ticket, message, since);
            }
        }
    }

    /// Takes the oldest message back that a worker has not received: whose it is and since when, its octets being
    /// in the buffer.
    fn take_back(&mut self, index: usize) -> Option<((Ticket, Instant), usize)> {
        loop {
            let octets = self.workers[index].pair.take_back(&mut self.buffer).ok()??;
            // A cancellation that nobody received is for nobody.
            let Some(ticket) = protocol::ticket_of(&self.buffer[..octets]) else { continue };
            let running = &mut self.workers[index].running;
            let at = running.iter().position(|r| r.ticket == ticket)?;
            let since = running.remove(at)?.since;
            return Some(((ticket, since), octets));
        }
    }

    fn wait_first(&mut self, ticket: Ticket, message: Vec<u8>, since: Instant) {
        self.waiting_bytes += message.len();
        self.waiting.push_front(Waiting { ticket, message, since });
    }

    /// Puts back into the queue what a worker has not received, in its order.
    fn take_all_back(&mut self, index: usize) {
        let mut back = Vec::new();
        while let Some(((ticket, since), octets)) = self.take_back(index) {
            back.push((ticket, self.buffer[..octets].to_vec(), since));
        }
        for (ticket, message, since) in back.into_iter().rev() {
            self.wait_first(ticket, message, since);
        }
    }

    fn feed_all(&mut self, now: Instant) {
        for index in 0..self.workers.len() {
            if self.waiting.is_empty() {
                break;
            }
            self.feed(index, now);
        }
    }

    fn index(&self, number: u32) -> Option<usize> {
        self.workers.iter().position(|worker| worker.number == number)
    }
}

impl Pool {
    /// A pool without workers, for this many server threads.
    pub fn new(limits: PoolLimits, threads: usize) -> Pool {
        Pool {
            state: Mutex::new(State {
                workers: Vec::new(),
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                threads: (0..threads).map(|_| None).collect(),
                looking: vec![false; threads],
                closed: false,
                buffer: vec![0; protocol::MESSAGE_BYTES_MAX].into(),
            }),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock is left half done by a panic that matters more than the next request.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a thread's requests from now on what happens to them.
    pub fn attach(&self, thread: u8, sender: UnboundedSender<Notice>) {
        if let Some(slot) = self.lock().threads.get_mut(usize::from(thread)) {
            *slot = Some(sender);
        }
    }

    /// Adds a worker that is ready.
    pub fn add(&self, number: u32, pair: Arc<PacketPair>, slots: usize, event_loop: bool, now: Instant) {
        let mut state = self.lock();
        state.workers.push(Worker {
            number,
            pair,
            slots: slots.max(1),
            event_loop,
            running: VecDeque::new(),
            mean_us: MEAN_US_AT_START,
            open: true,
            served: 0,
        });
        let index = state.workers.len() - 1;
        state.feed(index, now);
    }

    /// Gives a request to a worker or lets it wait.
    pub fn submit(&self, ticket: Ticket, message: &mut [u8], now: Instant) -> Submitted {
        let mut state = self.lock();
        if state.closed {
            return Submitted::Closed;
        }
        if state.place(message, ticket, now, now) {
            return Submitted::Placed;
        }
        if state.waiting.len() >= self.limits.queue_requests_max
            || state.waiting_bytes + message.len() > self.limits.queue_bytes_max
        {
            return Submitted::Full;
        }
        state.waiting_bytes += message.len();
        state.waiting.push_back(Waiting { ticket, message: message.to_vec(), since: now });
        Submitted::Waiting
    }

    /// The head of a response came: the time for the request is over only for its content. Tells whether it came
    /// too late: then the client is answered 504, whatever came.
    pub fn answered(&self, number: u32, ticket: Ticket) -> Timing {
        let mut state = self.lock();
        let Some(index) = state.index(number) else { return Timing::InTime };
        let Some(running) = state.workers[index].running.iter_mut().find(|r| r.ticket == ticket) else {
            return Timing::InTime;
        };
        running.answered = true;
        if running.over { Timing::TooLate } else { Timing::InTime }
    }

    /// A worker is done with these requests, and has said so at once. Adds those whose clients were to be answered 504
    /// before to `late`.
    pub fn done(
        &self,
        number: u32,
        tickets: impl Iterator<Item = Ticket> + Clone,
        now: Instant,
        late: &mut Vec<Ticket>,
    ) {
        let Some(all) = NonZeroU32::new(tickets.clone().count() as u32) else { return };
        let mut state = self.lock();
        let Some(index) = state.index(number) else { return };
        let worker = &mut state.workers[index];
        let mut began = None;
        for ticket in tickets {
            let Some(at) = worker.running.iter().position(|r| r.ticket == ticket) else { continue };
            let Some(running) = worker.running.remove(at) else { continue };
            began = began.or(running.begun);
            worker.served += 1;
            if running.over {
                late.push(ticket);
            }
            // The first that waited behind it begins now.
            let slots = worker.slots;
            if let Some(next) = worker.running.iter_mut().take(slots).find(|r| r.begun.is_none()) {
                next.begun = Some(now);
            }
        }
        // Of several, the first took the time of all.
        if let Some(began) = began {
            worker.learn(now.saturating_duration_since(began) / all.get());
        }
        state.feed(index, now);
    }

    /// Nobody waits for a request any more: its client left, or (`complete`) has all of the response. What waits is
    /// forgotten; an event loop is told that a client left. A thread that goes on with it has the time of one
    /// request for that, a task whose response is complete all time it wants.
    pub fn withdraw(&self, ticket: Ticket, complete: bool, now: Instant) {
        let mut state = self.lock();
        if let Some(at) = state.waiting.iter().position(|waiting| waiting.ticket == ticket) {
            if let Some(gone) = state.waiting.remove(at) {
                state.waiting_bytes -= gone.message.len();
            }
            return;
        }
        if !complete {
            cancel(&mut state, ticket, 0);
        }
        let threads = state.workers.iter_mut().filter(|worker| !(complete && worker.event_loop));
        let mut all = threads.flat_map(|worker| worker.running.iter_mut());
        if let Some(running) = all.find(|running| running.ticket == ticket && running.answered) {
            running.answered = false;
            running.begun = Some(now);
        }
    }

    /// Tells an event loop to end the task of a request.
    pub fn force(&self, ticket: Ticket) {
        cancel(&mut self.lock(), ticket, FORCE);
    }

    /// Gives a worker no more requests; those it has not received go to others. It ends when it is done.
    pub fn retire(&self, number: u32, now: Instant) {
        let mut state = self.lock();
        let Some(index) = state.index(number) else { return };
        state.workers[index].open = false;
        state.take_all_back(index);
        state.workers[index].pair.finish();
        state.feed_all(now);
    }

    /// A worker is gone. Requests it had received are lost, the others go to other workers.
    pub fn gone(&self, number: u32, now: Instant) {
        let mut state = self.lock();
        let Some(index) = state.index(number) else { return };
        state.workers[index].open = false;
        state.take_all_back(index);
        let worker = state.workers.remove(index);
        for thread in 0..state.threads.len() {
            // A response may still be in its socket: the thread reads that before it believes the loss.
            state.tell(thread as u8, Notice::WorkerGone(number));
        }
        for running in worker.running.iter().filter(|running| !running.over) {
            state.tell(running.ticket.thread, Notice::Crashed(running.ticket));
        }
        state.feed_all(now);
    }

    /// Looks for what waited or took too long. Requests over their time are returned once.
    pub fn tick(&self, now: Instant) -> Vec<Overdue> {
        let mut state = self.lock();
        let patience = Duration::from_millis(self.limits.queue_timeout_ms);
        let expired = |since: Instant| now.saturating_duration_since(since) >= patience;
        // Those behind a worker that does not come to them wait like all others.
        for index in 0..state.workers.len() {
            if state.workers[index].running.iter().any(|r| r.begun.is_none() && expired(r.since)) {
                state.take_all_back(index);
            }
        }
        while state.waiting.front().is_some_and(|waiting| expired(waiting.since)) {
            if let Some(waiting) = state.waiting.pop_front() {
                state.waiting_bytes -= waiting.message.len();
                state.tell(waiting.ticket.thread, Notice::Expired(waiting.ticket));
            }
        }
        state.feed_all(now);
        if self.limits.request_timeout_ms == 0 {
            return Vec::new();
        }
        let limit = Duration::from_millis(self.limits.request_timeout_ms);
        let mut overdue = Vec::new();
        for worker in &mut state.workers {
            let alone = worker.slots == 1 && !worker.event_loop;
            for running in &mut worker.running {
                let late = running.begun.is_some_and(|begun| now.saturating_duration_since(begun) >= limit);
                if late && !running.answered && !running.over {
                    running.over = true;
                    overdue.push(Overdue { worker: worker.number, ticket: running.ticket, alone });
                }
            }
        }
        for late in &overdue {
            state.tell(late.ticket.thread, Notice::TimedOut(late.ticket));
        }
        overdue
    }

    /// Whether this thread has requests whose responses workers may keep. If not, it is told when that changes.
    pub fn may_be_held(&self, thread: u8) -> bool {
        let mut state = self.lock();
        let has =
            state.workers.iter().flat_map(|w| &w.running).any(|r| r.may_hold && r.ticket.thread == thread);
        if let Some(looking) = state.looking.get_mut(usize::from(thread)) {
            *looking = has;
        }
        has
    }

    /// Requests served by a worker and those it has now.
    pub fn worker(&self, number: u32) -> Option<(u64, usize)> {
        let state = self.lock();
        state.index(number).map(|index| (state.workers[index].served, state.workers[index].running.len()))
    }

    /// Whether a worker still has this request.
    pub fn has(&self, number: u32, ticket: Ticket) -> bool {
        let state = self.lock();
        state.index(number).is_some_and(|i| state.workers[i].running.iter().any(|r| r.ticket == ticket))
    }

    /// Takes no more requests; those that wait are given up.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        while let Some(waiting) = state.waiting.pop_front() {
            state.tell(waiting.ticket.thread, Notice::Expired(waiting.ticket));
        }
        state.waiting_bytes = 0;
    }

    /// Numbers for metrics.
    pub fn numbers(&self) -> PoolNumbers {
        let state = self.lock();
        PoolNumbers {
            workers: state.workers.iter().filter(|worker| worker.open).count(),
            running: state.workers.iter().map(|worker| worker.running.len()).sum(),
            waiting: state.waiting.len(),
        }
    }
}

fn cancel(state: &mut State, ticket: Ticket, flags: u8) {
    let mut loops = state.workers.iter().filter(|worker| worker.event_loop);
    if let Some(worker) = loops.find(|worker| worker.running.iter().any(|r| r.ticket == ticket)) {
        let mut message = Vec::new();
        protocol::begin_message(CANCEL, ticket, &mut message);
        protocol::finish_head(&mut message, flags);
        // If there is no room the task runs to its end, which is only slower.
        let _ = worker.pair.send(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{REQUEST, begin_message, finish_head};
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    /// A pool whose workers are played by the test.
    struct Bench {
        pool: Pool,
        pairs: Vec<Arc<PacketPair>>,
        notices: UnboundedReceiver<Notice>,
        start: Instant,
    }

    fn ticket(request: u32) -> Ticket {
        Ticket { thread: 0, request }
    }

    impl Bench {
        fn new(workers: usize, slots: usize, event_loop: bool) -> Bench {
            let limits = PoolLimits {
                queue_requests_max: 3,
                queue_bytes_max: 1000,
                queue_timeout_ms: 1000,
                request_timeout_ms: 5000,
            };
            let (pool, start) = (Pool::new(limits, 1), Instant::now());
            let (sender, notices) = unbounded_channel();
            pool.attach(0, sender);
            let mut bench = Bench { pool, pairs: Vec::new(), notices, start };
            for _ in 0..workers {
                bench.add(slots, event_loop);
            }
            bench
        }

        fn add(&mut self, slots: usize, event_loop: bool) {
            let pair = Arc::new(PacketPair::new().unwrap());
            self.pool.add(self.pairs.len() as u32, Arc::clone(&pair), slots, event_loop, self.start);
            self.pairs.push(pair);
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn submit(&self, request: u32, ms: u64) -> Submitted {
            let mut message = Vec::new();
            begin_message(REQUEST, ticket(request), &mut message);
            finish_head(&mut message, 0);
            self.pool.submit(ticket(request), &mut message, self.at(ms))
        }

        /// What worker `index` receives next, as itself.
        fn received(&self, index: usize) -> Option<u32> {
            let mut buffer = [0; 64];
            let octets = self.pairs[index].take_back(&mut buffer).unwrap()?;
            Some(protocol::ticket_of(&buffer[..octets]).unwrap().request)
        }

        fn done(&self, index: usize, request: u32, ms: u64) {
            self.pool.done(index as u32, std::iter::once(ticket(request)), self.at(ms), &mut Vec::new());
        }

        /// What the thread is told of its requests, beside that their responses may be kept.
        fn told(&mut self) -> Vec<Notice> {
            let mut told = self.told_all();
            told.retain(|notice| *notice != Notice::MayBeHeld);
            told
        }

        fn told_all(&mut self) -> Vec<Notice> {
            let mut told = Vec::new();
            while let Ok(notice) = self.notices.try_recv() {
                told.push(notice);
            }
            told
        }

        /// Makes worker `index` known as fast.
        fn warm(&self, index: usize) {
            self.pool.lock().workers[index].mean_us = 100;
        }
    }

    #[test]
    fn free_workers_first_then_the_queue_in_order() {
        let bench = Bench::new(2, 1, false);
        assert_eq!(bench.submit(1, 0), Submitted::Placed);
        assert_eq!(bench.submit(2, 0), Submitted::Placed);
        for request in 3..6 {
            assert_eq!(bench.submit(request, 0), Submitted::Waiting);
        }
        assert_eq!(bench.submit(6, 0), Submitted::Full);
        assert_eq!((bench.received(0), bench.received(1)), (Some(1), Some(2)));
        bench.done(1, 2, 100);
        assert_eq!(bench.received(1), Some(3));
        bench.done(0, 1, 100);
        assert_eq!(bench.received(0), Some(4));
        assert_eq!(bench.received(0), None);
        assert_eq!(bench.pool.numbers(), PoolNumbers { workers: 2, running: 2, waiting: 1 });
    }

    #[test]
    fn octets_of_the_queue_are_limited() {
        let bench = Bench::new(0, 1, false);
        let mut message = vec![0; 600];
        begin_message(REQUEST, ticket(1), &mut message);
        message.resize(600, 0);
        assert_eq!(bench.pool.submit(ticket(1), &mut message, bench.start), Submitted::Waiting);
        assert_eq!(bench.pool.submit(ticket(2), &mut message, bench.start), Submitted::Full);
        bench.pool.withdraw(ticket(1), false, bench.start);
        assert_eq!(bench.pool.submit(ticket(3), &mut message, bench.start), Submitted::Waiting);
    }

    #[test]
    fn looking_ahead_only_while_requests_are_short_and_back_when_another_is_idle() {
        let bench = Bench::new(2, 1, false);
        bench.warm(0);
        for request in 1..=4 {
            assert_eq!(bench.submit(request, 0), Submitted::Placed, "{request}");
        }
        // The other worker is not known to be fast and got one.
        assert_eq!(bench.received(1), Some(2));
        assert_eq!(bench.received(0), Some(1));
        // It becomes idle while the first is stuck: it gets what waits behind the first.
        bench.done(1, 2, 400);
        assert_eq!(bench.received(1), Some(3));
        bench.done(1, 3, 800);
        assert_eq!(bench.received(1), Some(4));
        assert_eq!(bench.received(0), None);
        // The slow request has ended the looking ahead of the first worker.
        bench.done(0, 1, 900);
        assert_eq!(bench.pool.lock().workers[0].ahead(), 0);
    }

    /// A crash costs the request that was being executed and no other.
    #[test]
    fn what_a_dead_worker_had_not_received_goes_to_another() {
        let mut bench = Bench::new(1, 1, false);
        bench.warm(0);
        for request in 1..=3 {
            assert_eq!(bench.submit(request, 0), Submitted::Placed);
        }
        assert_eq!(bench.received(0), Some(1));
        bench.pool.gone(0, bench.at(10));
        assert_eq!(bench.told(), [Notice::WorkerGone(0), Notice::Crashed(ticket(1))]);
        bench.add(4, false);
        assert_eq!((bench.received(1), bench.received(1), bench.received(1)), (Some(2), Some(3), None));
    }

    #[test]
    fn a_retired_worker_ends_and_gets_nothing_more() {
        let mut bench = Bench::new(1, 1, false);
        bench.warm(0);
        bench.submit(1, 0);
        bench.submit(2, 0);
        assert_eq!(bench.received(0), Some(1));
        bench.pool.retire(0, bench.at(0));
        assert_eq!(bench.received(0), None);
        assert_eq!(bench.submit(3, 0), Submitted::Waiting);
        bench.add(2, false);
        assert_eq!((bench.received(1), bench.received(1)), (Some(2), Some(3)));
        bench.done(0, 1, 5);
        bench.pool.gone(0, bench.at(6));
        assert_eq!(bench.told(), [Notice::WorkerGone(0)]);
    }

    #[test]
    fn waiting_has_an_end() {
        let mut bench = Bench::new(1, 1, false);
        bench.warm(0);
        for request in 1..=2 {
            bench.submit(request, 0);
        }
        assert_eq!(bench.received(0), Some(1));
        bench.submit(3, 500);
        assert_eq!(bench.pool.tick(bench.at(999)), []);
        assert_eq!(bench.told(), []);
        // Request 2 waits in the worker's socket, which is no better than waiting in the queue.
        bench.pool.tick(bench.at(1000));
        assert_eq!(bench.told(), [Notice::Expired(ticket(2))]);
        bench.pool.tick(bench.at(1500));
        assert_eq!(bench.told(), [Notice::Expired(ticket(3))]);
    }

    #[test]
    fn requests_have_an_end_unless_answered() {
        let mut bench = Bench::new(1, 2, false);
        bench.submit(1, 0);
        bench.submit(2, 0);
        assert_eq!((bench.received(0), bench.received(0)), (Some(1), Some(2)));
        bench.pool.answered(0, ticket(2));
        assert_eq!(bench.pool.tick(bench.at(4999)), []);
        let late = Overdue { worker: 0, ticket: ticket(1), alone: false };
        assert_eq!(bench.pool.tick(bench.at(5000)), [late]);
        assert_eq!(bench.pool.tick(bench.at(9000)), []);
        assert_eq!(bench.told(), [Notice::TimedOut(ticket(1))]);
        // Once its client is gone, an answered request has its time again.
        bench.submit(3, 10_000);
        bench.pool.withdraw(ticket(2), true, bench.at(10_000));
        assert_eq!(bench.pool.tick(bench.at(14_999)), []);
        assert_eq!(bench.pool.tick(bench.at(15_000)).len(), 1);
        bench.told();
        assert!(bench.pool.has(0, ticket(1)));
        // What its worker still says of it is too late, of others not.
        assert_eq!(bench.pool.answered(0, ticket(1)), Timing::TooLate);
        assert_eq!(bench.pool.answered(0, ticket(99)), Timing::InTime);
        // When the worker is killed for it, the client is not told twice.
        bench.pool.gone(0, bench.at(16_000));
        assert_eq!(bench.told(), [Notice::WorkerGone(0)]);
    }

    #[test]
    fn an_event_loop_is_told_that_a_client_left() {
        let bench = Bench::new(1, 100, true);
        for request in 1..=50 {
            assert_eq!(bench.submit(request, 0), Submitted::Placed);
        }
        let mut buffer = [0; 64];
        for _ in 1..=50 {
            bench.pairs[0].take_back(&mut buffer).unwrap().unwrap();
        }
        bench.pool.withdraw(ticket(7), false, bench.start);
        bench.pool.force(ticket(8));
        bench.pool.withdraw(ticket(99), false, bench.start);
        assert_eq!(bench.pairs[0].take_back(&mut buffer).unwrap(), Some(12));
        assert_eq!((buffer[0], buffer[2], buffer[4]), (CANCEL, 0, 7));
        assert_eq!(bench.pairs[0].take_back(&mut buffer).unwrap(), Some(12));
        assert_eq!((buffer[0], buffer[2], buffer[4]), (CANCEL, FORCE, 8));
        assert_eq!(bench.pairs[0].take_back(&mut buffer).unwrap(), None);
    }

    /// The thread has to know when it has to look at shelves.
    #[test]
    fn a_thread_knows_whether_its_responses_may_be_kept() {
        let mut bench = Bench::new(1, 1, false);
        bench.warm(0);
        bench.submit(1, 0);
        assert!(!bench.pool.may_be_held(0));
        assert_eq!(bench.told_all(), []);
        bench.submit(2, 0);
        bench.submit(3, 0);
        assert_eq!(bench.told_all(), [Notice::MayBeHeld], "once");
        assert!(bench.pool.may_be_held(0));
        let mut buffer = [0; 64];
        for may_hold in [false, true, true] {
            bench.pairs[0].take_back(&mut buffer).unwrap().unwrap();
            assert_eq!(buffer[2] & protocol::MAY_HOLD != 0, may_hold);
        }
        let mut late = Vec::new();
        bench.pool.done(0, [1, 2, 3].map(ticket).into_iter(), bench.at(1), &mut late);
        assert_eq!(late, []);
        assert_eq!(bench.pool.worker(0), Some((3, 0)));
        assert!(!bench.pool.may_be_held(0));
        bench.submit(4, 1);
        bench.submit(5, 1);
        assert_eq!(bench.told_all(), [Notice::MayBeHeld], "once more");
        // The first of several that waited: others follow at once.
        let mut bench = Bench::new(0, 1, false);
        for request in 1..=3 {
            bench.submit(request, 0);
        }
        bench.add(3, false);
        for may_hold in [true, true, false] {
            bench.pairs[0].take_back(&mut buffer).unwrap().unwrap();
            assert_eq!(buffer[2] & protocol::MAY_HOLD != 0, may_hold);
        }
    }

    /// Of answers that come together, each is taken to have its share of the time; those over their time are named.
    #[test]
    fn answers_that_come_together() {
        let mut bench = Bench::new(1, 2, false);
        for request in 1..=2 {
            bench.submit(request, 0);
        }
        let mut late = Vec::new();
        bench.pool.done(0, [1, 2, 77].map(ticket).into_iter(), bench.at(30), &mut late);
        assert_eq!(bench.pool.lock().workers[0].mean_us, (MEAN_US_AT_START * 7 + 10_000) / 8);
        bench.submit(3, 100);
        bench.pool.tick(bench.at(5100));
        bench.pool.done(0, std::iter::once(ticket(3)), bench.at(5200), &mut late);
        assert_eq!(late, [ticket(3)]);
        assert_eq!(bench.told(), [Notice::TimedOut(ticket(3))]);
    }

    #[test]
    fn a_closed_pool_takes_nothing() {
        let mut bench = Bench::new(0, 1, false);
        bench.submit(1, 0);
        bench.pool.close();
        assert_eq!(bench.told(), [Notice::Expired(ticket(1))]);
        assert_eq!(bench.submit(2, 0), Submitted::Closed);
    }
}
