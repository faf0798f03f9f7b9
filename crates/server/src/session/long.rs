//! The long way of an exchange: everything that waits. Request content flows to its handler while the response
//! may already flow back; pipelined safe requests are worked on at once and answered in order; what the socket
//! does not take waits here. One loop moves whatever can move: requests and handlers here, octets in `input` and
//! `output`.

mod input;
mod output;

use super::{Asked, Session, write_head};
use crate::handler::Handled;
use crate::metrics::Exchange;
use crate::proxy::flow::{Flowed, Flowing};
use crate::record::{Notes, Record};
use crate::refusal::{self, refusal};
use crate::request::{Request, RequestContent};
use crate::response::{Content as ResponseContent, FileRange, InterimSender, Part, Response, Switch};
use crate::worker::Settings;
use bytes::Bytes;
use eleven_messaging::{CloseReason, Framing, Malformed, Misuse, Persistence, Received};
use eleven_net::clock;
use eleven_net::ledger::{Phase, Verdict};
use eleven_net::pipe::{Next, PipeReader, PipeWriter, Reason, pipe};
use eleven_semantics::names::Known;
use eleven_semantics::{Fields, Method, Status, Version};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Rounds of the loop before other connections get their turn.
const ROUNDS_MAX: usize = 16;
/// Octets of a file sent in one call.
const FILE_STEP_BYTES: usize = 2 * 1024 * 1024;
/// Octets gathered from a flowing response before they are written.
const GATHERED_BYTES: usize = 32 * 1024;
/// Pieces below this are gathered; larger ones are written from where they are.
const SMALL_PIECE_BYTES: usize = 8 * 1024;
/// Large pieces of one content that go out in one call: a MiB of a stored response.
const RUN_PIECES_MAX: usize = 16;
/// Input read at a time.
const INPUT_STEP_BYTES: usize = 32 * 1024;
/// Input kept while nothing takes it: a few pipelined requests.
const INPUT_KEPT_BYTES: usize = 16 * 1024;

/// What the short way hands over.
pub(super) struct Start {
    out: Vec<u8>,
    content: Bytes,
    ending: Option<CloseReason>,
    input: Vec<u8>,
    end_of_input: bool,
    /// Octets of the first request, and of what came after it, as far as they were read.
    received_bytes: usize,
    first: Option<First>,
}

enum First {
    Handled(Begun),
    WithContent(Request, Vec<u8>),
}

/// A request that its handler has.
pub(super) struct Begun {
    pub handled: Handled,
    pub interim: Option<InterimSender>,
    pub meta: Option<Meta>,
    pub safe: bool,
}

/// What the socket did not take.
pub(super) struct Unsent {
    pub head: Vec<u8>,
    pub content: Bytes,
}

/// The content of a request as far as it was read, and the input after it.
pub(super) struct Content {
    read: Vec<u8>,
    input: Vec<u8>,
}

impl Content {
    pub(super) fn begun(read: Vec<u8>, input: &[u8]) -> Content {
        Content { read, input: input.to_vec() }
    }
}

impl Start {
    pub(super) fn with_content(
        content: Content,
        out: Vec<u8>,
        end_of_input: bool,
        received_bytes: usize,
        request: Request,
    ) -> Box<Start> {
        Box::new(Start {
            out,
            content: Bytes::new(),
            ending: None,
            input: content.input,
            end_of_input,
            received_bytes,
            first: Some(First::WithContent(request, content.read)),
        })
    }

    pub(super) fn handled(
        begun: Begun,
        out: Vec<u8>,
        input: Vec<u8>,
        end_of_input: bool,
        received_bytes: usize,
    ) -> Start {
        let first = Some(First::Handled(begun));
        Start { out, content: Bytes::new(), ending: None, input, end_of_input, received_bytes, first }
    }

    pub(super) fn unsent(
        unsent: Unsent,
        ending: Option<CloseReason>,
        input: Vec<u8>,
        end_of_input: bool,
    ) -> Start {
        let received_bytes = input.len();
        Start {
            out: unsent.head,
            content: unsent.content,
            ending,
            input,
            end_of_input,
            received_bytes,
            first: None,
        }
    }
}

/// What the log and the figures need of a request that a handler took along.
pub(super) struct Meta {
    method: Method,
    target: Vec<u8>,
    version: Version,
    fields: Fields,
    started: Instant,
    first_octet_us: u64,
    weight: u32,
}

impl Meta {
    /// `None` where nobody asks. `started` is when it began, if the clock was read then.
    pub(super) fn of(request: &Request, weight: u32, started: Option<Instant>) -> Option<Meta> {
        // A log that tells no times tells the rest.
        request.is_recorded.then(|| Meta {
            method: request.head.method.clone(),
            target: request.received_target().to_vec(),
            version: request.head.version,
            fields: request.head.fields.clone(),
            started: started.unwrap_or_else(clock::now),
            first_octet_us: 0,
            weight,
        })
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            method: self.method.as_str().as_bytes(),
            target: &self.target,
            version: self.version,
            fields: Some(&self.fields),
        }
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }
}

/// How the long way ends.
pub(super) enum Outcome {
    /// Back to the short way.
    Keep,
    Close(CloseReason),
    /// The connection changes hands, with the octets that came after the request.
    Switch(Box<dyn Switch>, Bytes),
}

/// A request that is not completely answered.
struct InFlight {
    state: State,
    interim: Option<InterimSender>,
    meta: Option<Meta>,
    notes: Option<Rc<Notes>>,
    safe: bool,
}

enum State {
    /// Not handed to its handler yet: it must wait for those before it.
    Waiting(Box<Request>),
    Running(Pin<Box<dyn Future<Output = Response>>>),
    Ready(Box<Response>),
}

/// A response on its way out.
struct Sending {
    source: Source,
    status: Status,
    fields: crate::response::ResponseFields,
    content_bytes: u64,
    /// Only the end of the connection ends it.
    until_close: bool,
}

enum Source {
    Bytes(Bytes),
    Parts(VecDeque<Part>),
    Pipe(PipeReader<Option<Box<Fields>>>),
    Flow(Box<Flowing>),
    Done,
}

impl Sending {
    /// Content that is sent from where it was read into.
    fn lent(&self) -> &[u8] {
        if let Source::Flow(flowing) = &self.source { flowing.lent() } else { &[] }
    }
}

/// Where the content of the request being received goes.
enum Intake {
    Nowhere,
    Pipe {
        writer: PipeWriter<Option<Box<Fields>>>,
        early: Bytes,
    },
    /// Nobody wants it: it is read away once its response is on its way.
    Unwanted,
}

struct Long<'s> {
    session: &'s mut Session,
    settings: Rc<Settings>,
    input: Vec<u8>,
    at: usize,
    end_of_input: bool,
    out: Vec<u8>,
    out_at: usize,
    /// Content written right after `out`, from where it is, and then the octets that close its chunk.
    tail: Bytes,
    /// More of it, behind `tail`; nothing stands here while `tail` is empty.
    run: VecDeque<Bytes>,
    suffix: &'static [u8],
    file: Option<FileRange>,
    queue: VecDeque<InFlight>,
    sending: Option<Sending>,
    switch: Option<Box<dyn Switch>>,
    intake: Intake,
    intake_bytes: u64,
    /// Content read away that nobody wanted, and whether it passed its limit.
    drained_bytes: u64,
    overdrawn: bool,
    ending: Option<CloseReason>,
    /// A close-delimited response was cut: only a reset tells the client.
    reset: bool,
    /// Whether a response was begun that only the close ends.
    until_close: bool,
    /// Octets moved since the phase began, for the minimum rates.
    sent_bytes: u64,
    received_bytes: u64,
    marked: (u64, u64),
    /// Octets sent and received that were recorded with an exchange.
    recorded: (u64, u64),
    phase: Phase,
    /// The last attempt to write found the socket full.
    blocked: bool,
}

/// Goes the long way until nothing waits any more.
pub(super) async fn run(session: &mut Session, start: Start) -> Outcome {
    // What is left of earlier responses was recorded with them.
    let recorded = ((start.out.len() + start.content.len()) as u64, 0);
    let mut long = Long {
        settings: session.worker.settings(),
        session,
        input: start.input,
        at: 0,
        end_of_input: start.end_of_input,
        out: start.out,
        out_at: 0,
        tail: start.content,
        run: VecDeque::new(),
        suffix: b"",
        file: None,
        queue: VecDeque::new(),
        sending: None,
        switch: None,
        intake: Intake::Nowhere,
        intake_bytes: 0,
        drained_bytes: 0,
        overdrawn: false,
        ending: start.ending,
        reset: false,
        until_close: false,
        sent_bytes: 0,
        received_bytes: start.received_bytes as u64,
        marked: (0, 0),
        recorded,
        phase: Phase::Idle,
        blocked: false,
    };
    match start.first {
        Some(First::Handled(begun)) => long.enqueue(begun),
        Some(First::WithContent(request, read)) => long.begin_content(request, read.into()),
        None => {}
    }
    let outcome = poll_fn(|cx| long.poll(cx)).await;
    // A response that only the close ends, and that is not out: no end may look like its own.
    if long.reset || (long.until_close && !long.all_out()) {
        let _ = long.session.stream.set_linger_reset();
    }
    if let Outcome::Keep = outcome {
        long.session.carry = long.input.split_off(long.at);
    }
    outcome
}

impl Long<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        for _ in 0..ROUNDS_MAX {
            let mut moved = self.start_front();
            moved |= self.poll_handlers(cx);
            moved |= self.poll_interims(cx);
            moved |= self.begin_response();
            moved |= self.fill(cx);
            match self.poll_write(cx) {
                Ok(wrote) => moved |= wrote,
                Err(_) => return Poll::Ready(Outcome::Close(CloseReason::Broken)),
            }
            match self.poll_input(cx) {
                Ok(read) => moved |= read,
                Err(_) => return Poll::Ready(Outcome::Close(CloseReason::Broken)),
            }
            if let Some(outcome) = self.outcome() {
                return Poll::Ready(outcome);
            }
            if !moved {
                self.note_phase();
                while let Poll::Ready(verdict) = self.session.slot.poll_verdict(cx) {
                    match self.on_verdict(verdict) {
                        Some(outcome) => return Poll::Ready(outcome),
                        None if verdict == Verdict::Overdue => {
                            moved = true;
                            break;
                        }
                        None => {}
                    }
                }
                if !moved {
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether all that was begun has been handed to the transport.
    fn all_out(&self) -> bool {
        let is_written = self.out_at == self.out.len() && self.tail.is_empty() && self.file.is_none();
        is_written && self.sending.is_none()
    }

    /// The long way ends when everything is out and nothing is owed.
    fn outcome(&mut self) -> Option<Outcome> {
        if !self.all_out() {
            return None;
        }
        if let Some(switch) = self.switch.take() {
            let rest = Bytes::from(self.input.split_off(self.at));
            return Some(Outcome::Switch(switch, rest));
        }
        if let Some(reason) = self.ending {
            self.session.carry = self.input.split_off(self.at.min(self.input.len()));
            return Some(Outcome::Close(reason));
        }
        if self.overdrawn {
            return Some(Outcome::Close(CloseReason::ContentUnread));
        }
        let idle = self.queue.is_empty() && !self.session.machine.is_receiving_content();
        idle.then_some(Outcome::Keep)
    }

    fn enqueue(&mut self, begun: Begun) {
        let Begun { handled, mut interim, meta, safe } = begun;
        let state = match handled {
            Handled::Soon(soon) => {
                let (sender, future) = soon.into_later(0);
                interim = Some(sender);
                State::Running(future)
            }
            Handled::Ready(response) => State::Ready(Box::new(response)),
            Handled::Later(future) => State::Running(future),
        };
        self.queue.push_back(InFlight { state, interim, meta, notes: None, safe });
    }

    /// What is to be known of a request when it is answered.
    fn meta_of(&self, request: &mut Request) -> Option<Meta> {
        let weight = self.session.worker.weigh();
        request.is_recorded = weight > 0 || self.session.worker.is_logged();
        request.is_timed = weight > 0 || self.session.worker.is_log_timed();
        Meta::of(request, weight, None)
    }

    fn handle(&mut self, mut request: Request) {
        let meta = self.meta_of(&mut request);
        let safe = request.head.method.is_safe();
        let service = self.session.worker.service();
        let handled = catch_unwind(AssertUnwindSafe(|| service.handle(&mut request, &self.session.worker)))
            .unwrap_or_else(|_| {
                tracing::error!("a handler panicked");
                refusal::internal_error().into()
            });
        let interim = request.take_interim();
        self.enqueue(Begun { handled, interim, meta, safe });
    }

    /// A request whose content is still coming. `read` is what was read of it.
    fn begin_content(&mut self, mut request: Request, read: Bytes) {
        let limit = self.settings.limits.content_bytes_max;
        if request.content_length.is_some_and(|n| n > limit) {
            let meta = self.meta_of(&mut request);
            self.intake = Intake::Unwanted;
            self.enqueue(Begun { handled: too_large().into(), interim: None, meta, safe: false });
            return;
        }
        let (writer, reader) = pipe(self.settings.limits.pipe_bytes_max);
        self.intake_bytes = read.len() as u64;
        self.intake = Intake::Pipe { writer, early: read };
        request.content = RequestContent::Pipe(reader);
        self.handle(request);
    }

    /// Hands the front request to its handler, if it had to wait.
    fn start_front(&mut self) -> bool {
        if !matches!(self.queue.front(), Some(InFlight { state: State::Waiting(_), .. })) {
            return false;
        }
        let Some(InFlight { state: State::Waiting(request), .. }) = self.queue.pop_front() else {
            return false;
        };
        let behind = std::mem::take(&mut self.queue);
        if request.head.framing.has_body() {
            self.begin_content(*request, Bytes::new());
        } else {
            self.handle(*request);
        }
        self.queue.extend(behind);
        true
    }

    fn poll_handlers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        for in_flight in &mut self.queue {
            let State::Running(future) = &mut in_flight.state else { continue };
            let response = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Pending) => continue,
                Ok(Poll::Ready(response)) => response,
                // One request is lost, not the server (fault F41).
                Err(_) => {
                    tracing::error!("a handler panicked");
                    refusal::internal_error()
                }
            };
            in_flight.state = State::Ready(Box::new(response));
            moved = true;
        }
        moved
    }

    fn poll_interims(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(front) = self.queue.front() else { return false };
        let Some(interim) = &front.interim else { return false };
        if self.sending.is_some() {
            return false;
        }
        let mut moved = false;
        while let Poll::Ready((status, fields)) = interim.poll_next(cx) {
            moved = true;
            // Withheld from HTTP/1.0; a wrong call of a handler is its own loss.
            if let Err(misuse) = self.session.machine.interim(status, &fields, &mut self.out) {
                tracing::warn!(%status, %misuse, "an interim response was not sent");
            }
        }
        moved
    }

    /// Says in the ledger what is being waited for.
    fn note_phase(&mut self) {
        let waits_for_content = self.session.machine.is_receiving_content()
            && !self.session.machine.awaits_continue()
            && self.at == self.input.len()
            && match &self.intake {
                Intake::Pipe { early, .. } => early.is_empty(),
                Intake::Unwanted | Intake::Nowhere => self.session.machine.content_is_unwanted(),
            };
        let phase = if self.blocked {
            Phase::Sending
        } else if waits_for_content {
            Phase::Content
        } else {
            Phase::Handling
        };
        if phase != self.phase {
            self.phase = phase;
            self.marked = (self.sent_bytes, self.received_bytes);
            let window = match phase {
                Phase::Handling => u64::MAX,
                _ => self.settings.timeouts.progress_window_ms,
            };
            self.session.slot.begin(phase, window);
        }
    }

    fn on_verdict(&mut self, verdict: Verdict) -> Option<Outcome> {
        match verdict {
            Verdict::Evicted => Some(Outcome::Close(CloseReason::Evicted)),
            // `begin_response` sees that the worker is stopping.
            Verdict::Stopping => None,
            Verdict::Overdue => self.on_overdue(),
        }
    }

    /// A window has passed: go on if enough has moved in it (faults D03, D04).
    fn on_overdue(&mut self) -> Option<Outcome> {
        let timeouts = &self.settings.timeouts;
        let (moved, rate) = match self.phase {
            Phase::Sending => (self.sent_bytes - self.marked.0, timeouts.send_rate_min),
            _ => (self.received_bytes - self.marked.1, timeouts.content_rate_min),
        };
        self.marked = (self.sent_bytes, self.received_bytes);
        if moved >= rate * timeouts.progress_window_ms / 1000 {
            self.session.slot.extend(timeouts.progress_window_ms);
            return None;
        }
        if self.phase == Phase::Sending {
            return Some(Outcome::Close(CloseReason::SendTimeout));
        }
        if let Intake::Pipe { writer, .. } = std::mem::replace(&mut self.intake, Intake::Nowhere) {
            writer.abort(Reason::TimedOut);
        }
        if self.sending.is_some() || !self.session.machine.owes_response() {
            return Some(Outcome::Close(CloseReason::ContentTimeout));
        }
        let mut response = refusal(Status::REQUEST_TIMEOUT, "The content came too slowly.");
        response.close = Some(CloseReason::ContentTimeout);
        self.replace_last(response);
        self.phase = Phase::Idle;
        None
    }

    /// Records an exchange that is over, as far as this side can know.
    fn record(
        &mut self,
        status: Status,
        fields: &crate::response::ResponseFields,
        content_bytes: u64,
        persistence: Persistence,
    ) {
        let front = self.queue.front_mut();
        let (meta, notes) = front.map_or((None, None), |front| (front.meta.take(), front.notes.take()));
        let sent = self.sent_bytes + (self.out.len() - self.out_at) as u64;
        let received = self.received_bytes - (self.input.len() - self.at) as u64;
        let before = std::mem::replace(&mut self.recorded, (sent, received));
        let service = self.session.worker.service();
        let mut counted = Exchange {
            handler: service.name(),
            status: status.code(),
            sent_bytes: sent.saturating_sub(before.0),
            received_bytes: received.saturating_sub(before.1),
            refused: match persistence {
                Persistence::Close(CloseReason::Malformed(why)) => Some(why.name()),
                Persistence::Close(CloseReason::ResponseCut) => Some("response-cut"),
                _ => None,
            },
            ..Exchange::default()
        };
        if let Some(notes) = &notes {
            notes.count_in(&mut counted);
        }
        let worker = &self.session.worker;
        worker.recorder().count(&counted);
        if meta.is_none() && counted.refused.is_none() {
            return;
        }
        let (seconds, nanos) = clock::wall();
        let now_ms = seconds * 1000 + i64::from(nanos / 1_000_000);
        let duration_us = meta.as_ref().map_or(0, |m| m.started.elapsed().as_micros() as u64);
        let mut record = Record {
            time_unix_ms: now_ms - (duration_us / 1000) as i64,
            client: self.session.peer.ip(),
            handler: counted.handler,
            response_fields: Some(fields.get()),
            status: counted.status,
            content_bytes,
            sent_bytes: counted.sent_bytes,
            received_bytes: counted.received_bytes,
            duration_us,
            connection: self.session.number,
            requests_before: self.session.machine.served().saturating_sub(1),
            closed: match persistence {
                Persistence::Keep => None,
                Persistence::Close(reason) => Some(reason.name()),
            },
            refused: counted.refused,
            ..Record::default()
        };
        if let Some(meta) = &meta {
            record.method = meta.method.as_str().as_bytes();
            record.target = &meta.target;
            record.version = meta.version;
            record.first_octet_us = meta.first_octet_us;
            record.host = meta.fields.get(Known::Host).unwrap_or_default();
            record.request_fields = Some(&meta.fields);
        }
        if let Some(notes) = &notes {
            notes.add_to(&mut record);
            notes.end_span(&record);
        }
        let weight = meta.as_ref().map_or(0, |meta| meta.weight);
        worker.recorder().sample(&record, counted.handler, weight);
        if let Some(log) = worker.log_of(notes.as_deref()) {
            log.record(&record);
        }
    }
}

fn too_large() -> Response {
    let mut response = refusal(Status::CONTENT_TOO_LARGE, "The content is larger than is taken here.");
    response.close = Some(CloseReason::ContentUnread);
    response
}
