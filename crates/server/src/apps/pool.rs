//! Who executes which request: the workers of one application, their slots, and the queue before them. Decides
//! placing, queueing, taking back and giving up; starts no process and reads no response.
//!
//! All threads of the server share it, so it is behind a lock: a queue in front of several processes is one queue,
//! or a request would wait for a busy worker beside an idle one. What happens under the lock is a few steps and one
//! system call that does not wait.
//!
//! A worker with threads gets requests up to its number of threads, and a few more while its requests are short:
//! then it never sleeps between two, and may send several responses at once. Those wait in its socket, from where they
//! are taken back as soon as another worker has nothing to do. While no request took long for a good while, a worker with
//! one thread gets several in one packet; those it cannot give back, but it tells which it has begun, and the others
//! outlive it. An event loop gets as many as it may have at once.

use super::protocol::{self, CANCEL, FORCE, Ticket};
use super::shelf::Mark;
use eleven_net::packet::PacketPair;
use std::collections::{HashMap, VecDeque};
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

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full.
    Full,
    /// The application was stopped.
    Closed,
}

/// A request as it is submitted: whose it is, and the message for the worker.
#[derive(Debug)]
pub struct Submission {
    /// Where its response goes.
    pub ticket: Ticket,
    /// The message.
    pub message: Vec<u8>,
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
    /// Counts what the worker was given.
    turn: u32,
    /// When the worker can have begun; `None` while it is behind others.
    begun: Option<Instant>,
    since: Instant,
    /// The head of its response came, so its time no longer counts.
    answered: bool,
    /// Its client was told 504.
    over: bool,
    /// The worker may keep its response for a moment.
    may_hold: bool,
    /// It came in one packet with others and waits for them: what another worker gets if this one dies before its turn.
    message: Option<Vec<u8>>,
}

struct Worker {
    number: u32,
    pair: Arc<PacketPair>,
    /// Requests at once: threads, or tasks of an event loop.
    slots: usize,
    event_loop: bool,
    running: VecDeque<Running>,
    /// Given to it, but not sent yet: the last of `running`.
    outgoing: Vec<Waiting>,
    turn: u32,
    /// Running mean of the time a request takes.
    mean_us: u64,
    /// The longest of the last few hundred.
    longest_us: u64,
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
/// Requests and octets in one packet at most, so that it fits into any socket.
const PACKET_REQUESTS_MAX: usize = 16;
const PACKET_BYTES_MAX: usize = 65_536;

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
        // Hundreds have to be fast before several go into one packet again: those could not be given to another worker.
        self.longest_us = took.max(self.longest_us - self.longest_us / 128);
    }

    /// Whether several requests may go to it in one packet. An event loop begins all of them at once anyway.
    fn takes_packets(&self, has_mark: bool) -> bool {
        self.event_loop || (has_mark && self.slots == 1 && self.longest_us < AHEAD_US && self.ahead() > 1)
    }

    /// Gives it a request, which [`Worker::send`] will send.
    fn give(&mut self, request: Waiting, now: Instant) {
        self.turn = self.turn.wrapping_add(1);
        let begun = (self.running.len() < self.slots).then_some(now);
        self.running.push_back(Running {
            ticket: request.ticket,
            turn: self.turn,
            begun,
            since: request.since,
            answered: false,
            over: false,
            may_hold: false,
            message: None,
        });
        self.outgoing.push(request);
    }

    /// Sends what it was given. What its socket has no room for is left in `outgoing` and no longer running. It may keep a
    /// response for a moment if it has others before it or right after it.
    fn send(&mut self, has_mark: bool, packet: &mut Vec<u8>) {
        let in_packets = self.takes_packets(has_mark);
        let first = self.running.len() - self.outgoing.len();
        let mut sent = 0;
        while sent < self.outgoing.len() {
            packet.clear();
            let start = sent;
            while let Some(request) = self.outgoing.get_mut(sent) {
                let octets = packet.len() + request.message.len();
                if sent > start
                    && (!in_packets || sent - start == PACKET_REQUESTS_MAX || octets > PACKET_BYTES_MAX)
                {
                    break;
                }
                let (at, all) = (first + sent, self.running.len());
                let running = &mut self.running[at];
                running.may_hold = !self.event_loop && (at >= self.slots || at + 1 < all);
                protocol::set_turn(&mut request.message, running.turn, running.may_hold);
                packet.extend_from_slice(&request.message);
                sent += 1;
            }
            if !matches!(self.pair.send(packet), Ok(true)) {
                sent = start;
                break;
            }
            if sent - start > 1 && !self.event_loop {
                for at in start..sent {
                    self.running[first + at].message = Some(std::mem::take(&mut self.outgoing[at].message));
                }
            }
        }
        self.running.truncate(first + sent);
        self.outgoing.drain(..sent);
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
    /// What workers with one thread say of what they have begun.
    marks: HashMap<u32, Mark>,
    buffer: Box<[u8]>,
    packet: Vec<u8>,
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

    /// Sends what a worker was given. Tells the threads that wait for responses that they may be kept, if they do not
    /// know of any that are. What there is no room for waits.
    fn send(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let given = worker.outgoing.len();
        if given == 0 {
            return;
        }
        worker.send(self.marks.contains_key(&worker.number), &mut self.packet);
        let back = std::mem::take(&mut worker.outgoing);
        let sent = given - back.len();
        for at in worker.running.len() - sent..worker.running.len() {
            let Running { ticket, may_hold, .. } = self.workers[index].running[at];
            if may_hold
                && let Some(looking) = self.looking.get_mut(usize::from(ticket.thread))
                && !std::mem::replace(looking, true)
            {
                self.tell(ticket.thread, Notice::MayBeHeld);
            }
        }
        self.wait_first(back);
    }

    /// The worker that a new request is for; `None` if it has to wait.
    fn choose(&self) -> Option<usize> {
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
        if let Some((index, _)) = free {
            return Some(index);
        }
        // Nobody is free: look ahead, but never past those who wait already.
        if !self.waiting.is_empty() {
            return None;
        }
        let with_room =
            (0..self.workers.len()).filter(|&i| self.workers[i].open && self.workers[i].room() > 0);
        with_room.min_by_key(|&i| self.workers[i].running.len())
    }

    /// Gives a worker that has room what waits, or what waits behind another worker.
    fn feed(&mut self, index: usize, now: Instant) {
        while self.workers[index].open && self.workers[index].room() > 0 {
            let Some(next) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= next.message.len();
            self.workers[index].give(next, now);
        }
        self.send(index);
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
        let back = self.take_back(victim);
        self.wait_first(back);
        if let Some(next) = self.waiting.pop_front() {
            self.waiting_bytes -= next.message.len();
            self.workers[thief].give(next, now);
            self.send(thief);
        }
    }

    /// Takes the oldest packet back that a worker has not received.
    fn take_back(&mut self, index: usize) -> Vec<Waiting> {
        let mut back = Vec::new();
        let worker = &mut self.workers[index];
        // A cancellation that nobody received is for nobody.
        while back.is_empty()
            && let Ok(Some(octets)) = worker.pair.take_back(&mut self.buffer)
        {
            for message in protocol::messages(&self.buffer[..octets]) {
                let Some(ticket) = protocol::ticket_of(message) else { continue };
                let Some(at) = worker.running.iter().position(|r| r.ticket == ticket) else { continue };
                if let Some(running) = worker.running.remove(at) {
                    back.push(Waiting { ticket, message: message.to_vec(), since: running.since });
                }
            }
        }
        back
    }

    /// Puts requests before those that wait.
    fn wait_first(&mut self, requests: Vec<Waiting>) {
        for request in requests.into_iter().rev() {
            self.waiting_bytes += request.message.len();
            self.waiting.push_front(request);
        }
    }

    /// Puts back into the queue what a worker has not received, in its order.
    fn take_all_back(&mut self, index: usize) {
        let mut all = Vec::new();
        loop {
            let back = self.take_back(index);
            if back.is_empty() {
                break;
            }
            all.extend(back);
        }
        self.wait_first(all);
    }

    /// Puts back into the queue what a dead worker had received in a packet and not begun.
    fn take_unbegun_back(&mut self, index: usize, begun: u32) {
        let worker = &mut self.workers[index];
        let mut back = Vec::new();
        worker.running.retain_mut(|running| {
            // Turns wrap.
            let is_begun = running.turn.wrapping_sub(begun).cast_signed() <= 0;
            match running.message.take() {
                Some(message) if !is_begun && !running.over => {
                    back.push(Waiting { ticket: running.ticket, message, since: running.since });
                    false
                }
                _ => true,
            }
        });
        self.wait_first(back);
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
                marks: HashMap::new(),
                packet: Vec::new(),
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
            outgoing: Vec::new(),
            turn: 0,
            mean_us: MEAN_US_AT_START,
            longest_us: MEAN_US_AT_START,
            open: true,
            served: 0,
        });
        let index = state.workers.len() - 1;
        state.feed(index, now);
    }

    /// Tells where a worker with one thread says what it has begun.
    pub(super) fn set_mark(&self, number: u32, mark: Mark) {
        self.lock().marks.entry(number).or_insert(mark);
    }

    /// Gives requests to workers or lets them wait. Those that are not taken are left in `requests`, with the reason.
    pub fn submit(&self, requests: &mut Vec<Submission>, now: Instant) -> Option<Refused> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.closed {
            return Some(Refused::Closed);
        }
        let mut refused = Vec::new();
        for Submission { ticket, message } in requests.drain(..) {
            if let Some(index) = state.choose() {
                state.workers[index].give(Waiting { ticket, message, since: now }, now);
            } else if state.waiting.len() >= self.limits.queue_requests_max
                || state.waiting_bytes + message.len() > self.limits.queue_bytes_max
            {
                refused.push(Submission { ticket, message });
            } else {
                state.waiting_bytes += message.len();
                state.waiting.push_back(Waiting { ticket, message, since: now });
            }
        }
        for index in 0..state.workers.len() {
            state.send(index);
        }
        *requests = refused;
        (!requests.is_empty()).then_some(Refused::Full)
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
        let mark = state.marks.remove(&number);
        let Some(index) = state.index(number) else { return };
        state.workers[index].open = false;
        state.take_all_back(index);
        if let Some(begun) = mark.and_then(|mark| mark.begun()) {
            state.take_unbegun_back(index, begun);
        }
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
        protocol::finish_message(&mut message, flags, b"");
        // If there is no room the task runs to its end, which is only slower.
        let _ = worker.pair.send(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{REQUEST, begin_message, finish_message};
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

    fn submission(request: u32, octets: usize) -> Submission {
        let mut message = Vec::new();
        begin_message(REQUEST, ticket(request), &mut message);
        finish_message(&mut message, 0, &vec![0; octets]);
        Submission { ticket: ticket(request), message }
    }

    /// What became of a request.
    #[derive(Debug, PartialEq, Eq)]
    enum Submitted {
        Placed,
        Waiting,
        Refused(Refused),
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
            self.submit_with(request, 0, ms)
        }

        /// With so many octets of content.
        fn submit_with(&self, request: u32, octets: usize, ms: u64) -> Submitted {
            let waiting = self.pool.numbers().waiting;
            match self.pool.submit(&mut vec![submission(request, octets)], self.at(ms)) {
                Some(refused) => Submitted::Refused(refused),
                None if self.pool.numbers().waiting > waiting => Submitted::Waiting,
                None => Submitted::Placed,
            }
        }

        /// What worker `index` receives next, as itself.
        fn received(&self, index: usize) -> Option<u32> {
            let mut buffer = vec![0; 100_000];
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
            let worker = &mut self.pool.lock().workers[index];
            (worker.mean_us, worker.longest_us) = (100, 100);
        }

        /// Has worker `index` say that it has begun so many.
        fn mark(&self, index: usize, begun: u32) {
            self.pool.set_mark(index as u32, Mark::of(begun));
        }

        /// Submits several at once, each with so many octets of content.
        fn submit_several(&self, requests: std::ops::RangeInclusive<u32>, octets: usize) {
            let mut all: Vec<_> = requests.map(|request| submission(request, octets)).collect();
            assert_eq!(self.pool.submit(&mut all, self.start), None);
        }

        /// The next packet of worker `index`.
        fn received_packet(&self, index: usize) -> Vec<u32> {
            let mut buffer = vec![0; 100_000];
            let octets = self.pairs[index].take_back(&mut buffer).unwrap().unwrap_or(0);
            let messages = protocol::messages(&buffer[..octets]);
            messages.map(|message| protocol::ticket_of(message).unwrap().request).collect()
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
        assert_eq!(bench.submit(6, 0), Submitted::Refused(Refused::Full));
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
        assert_eq!(bench.submit_with(1, 600, 0), Submitted::Waiting);
        assert_eq!(bench.submit_with(2, 600, 0), Submitted::Refused(Refused::Full));
        bench.pool.withdraw(ticket(1), false, bench.start);
        assert_eq!(bench.submit_with(3, 600, 0), Submitted::Waiting);
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
        assert_eq!(bench.pairs[0].take_back(&mut buffer).unwrap(), Some(20));
        assert_eq!((buffer[0], buffer[2], buffer[4]), (CANCEL, 0, 7));
        assert_eq!(bench.pairs[0].take_back(&mut buffer).unwrap(), Some(20));
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

    /// What the tests below have in common: one fast worker that says what it has begun.
    fn marked(turn: u32) -> Bench {
        let bench = Bench::new(1, 1, false);
        bench.mark(0, turn);
        bench
    }

    /// Requests that come at once to a worker that was fast for long go in one packet, and only then.
    #[test]
    fn several_in_one_packet() {
        let bench = marked(0);
        bench.submit_several(1..=4, 0);
        assert_eq!(bench.received_packet(0), [1], "no worker is fast from the start");
        assert!(bench.received_packet(0).is_empty());
        bench.warm(0);
        bench.done(0, 1, 0);
        assert_eq!(bench.received_packet(0), [2, 3, 4]);
        // Not more than are allowed to be ahead, and not more octets than a packet has.
        for request in 2..=4 {
            bench.done(0, request, 0);
        }
        bench.submit_several(10..=12, 30_000);
        assert_eq!(bench.received_packet(0), [10, 11]);
        assert_eq!(bench.received_packet(0), [12]);
        // Without a mark nobody would know what a dead worker has begun.
        let bench = Bench::new(1, 1, false);
        bench.warm(0);
        bench.submit_several(1..=2, 0);
        assert_eq!(bench.received_packet(0), [1]);
        // Nor with several threads, each of which takes a packet.
        let bench = Bench::new(1, 2, false);
        bench.mark(0, 0);
        bench.warm(0);
        bench.submit_several(1..=2, 0);
        assert_eq!(bench.received_packet(0), [1]);
        // An event loop begins all of them at once.
        let bench = Bench::new(1, 100, true);
        bench.submit_several(1..=40, 0);
        assert_eq!(bench.received_packet(0), (1..=16).collect::<Vec<_>>());
    }

    /// One slow request ends packets for the next few hundred.
    #[test]
    fn packets_only_after_hundreds_of_fast_requests() {
        let bench = marked(0);
        bench.warm(0);
        bench.submit(1, 0);
        bench.done(0, 1, 1000);
        let took = |bench: &Bench| {
            bench.pool.lock().workers[0].learn(Duration::from_micros(100));
            bench.pool.lock().workers[0].takes_packets(true)
        };
        let fast = (1..2000).find(|_| took(&bench)).unwrap();
        assert!((500..1000).contains(&fast), "{fast}");
    }

    /// A crash costs the request that was being executed and no other, also of a packet.
    #[test]
    fn what_a_dead_worker_had_not_begun_goes_to_another() {
        for (begun, crashed) in [(0, None), (1, Some(1)), (3, Some(3))] {
            let mut bench = marked(begun);
            bench.warm(0);
            bench.submit_several(1..=3, 0);
            assert_eq!(bench.received_packet(0), [1, 2, 3]);
            bench.submit(4, 0);
            // What it said before its death counts.
            for request in 1..begun {
                bench.done(0, request, 0);
            }
            bench.pool.gone(0, bench.at(10));
            let mut told = vec![Notice::WorkerGone(0)];
            told.extend(crashed.map(|request| Notice::Crashed(ticket(request))));
            assert_eq!(bench.told(), told);
            bench.add(4, false);
            let given: Vec<_> = std::iter::from_fn(|| bench.received(1)).collect();
            assert_eq!(given, (begun + 1..=4).collect::<Vec<_>>(), "after {begun}");
        }
    }

    #[test]
    fn turns_wrap() {
        let mut bench = marked(u32::MAX);
        bench.warm(0);
        bench.pool.lock().workers[0].turn = u32::MAX - 1;
        bench.submit_several(1..=3, 0);
        assert_eq!(bench.received_packet(0), [1, 2, 3]);
        bench.pool.lock().workers[0].running[2].over = true;
        bench.pool.gone(0, bench.at(10));
        // The client of the third was told 504: it is not executed later.
        assert_eq!(bench.told(), [Notice::WorkerGone(0), Notice::Crashed(ticket(1))]);
        assert_eq!(bench.pool.numbers().waiting, 1);
    }

    /// A packet that was not received goes back whole: one to the idle worker, the others to whoever is free next.
    #[test]
    fn a_packet_is_taken_back() {
        let bench = Bench::new(2, 1, false);
        bench.mark(0, 0);
        bench.warm(0);
        bench.submit(1, 0);
        bench.submit(2, 0);
        assert_eq!((bench.received(0), bench.received(1)), (Some(1), Some(2)));
        bench.submit_several(3..=5, 0);
        bench.done(1, 2, 0);
        assert_eq!(bench.received(1), Some(3));
        assert_eq!(bench.pool.numbers().waiting, 2);
        bench.done(1, 3, 0);
        assert_eq!(bench.received(1), Some(4));
        bench.done(0, 1, 0);
        assert_eq!(bench.received(0), Some(5));
    }

    #[test]
    fn a_closed_pool_takes_nothing() {
        let mut bench = Bench::new(0, 1, false);
        bench.submit(1, 0);
        bench.pool.close();
        assert_eq!(bench.told(), [Notice::Expired(ticket(1))]);
        assert_eq!(bench.submit(2, 0), Submitted::Refused(Refused::Closed));
    }
}
