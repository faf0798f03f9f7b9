//! The long way of an exchange: everything that waits. Request content flows to its handler while the response
//! may already flow back; pipelined safe requests are worked on at once and answered in order; what the socket
//! does not take waits here. One loop moves whatever can move, each part in a function of its own.

use super::{Session, write_head};
use crate::handler::Handled;
use crate::record::{Notes, Record};
use crate::request::{Request, RequestContent};
use crate::response::{Content as ResponseContent, FileRange, InterimSender, Part, Response, Switch};
use crate::service;
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
    first: Option<First>,
}

enum First {
    Handled { handled: Handled, interim: Option<InterimSender>, meta: Option<Meta>, safe: bool },
    WithContent(Request, Vec<u8>),
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
        request: Request,
    ) -> Box<Start> {
        Box::new(Start {
            out,
            content: Bytes::new(),
            ending: None,
            input: content.input,
            end_of_input,
            first: Some(First::WithContent(request, content.read)),
        })
    }

    pub(super) fn handled(
        handled: Handled,
        interim: Option<InterimSender>,
        meta: Option<Meta>,
        safe: bool,
        out: Vec<u8>,
        input: Vec<u8>,
        end_of_input: bool,
    ) -> Start {
        let first = Some(First::Handled { handled, interim, meta, safe });
        Start { out, content: Bytes::new(), ending: None, input, end_of_input, first }
    }

    pub(super) fn unsent(
        unsent: Unsent,
        ending: Option<CloseReason>,
        input: Vec<u8>,
        end_of_input: bool,
    ) -> Start {
        Start { out: unsent.head, content: unsent.content, ending, input, end_of_input, first: None }
    }
}

/// What the log needs of a request that a handler took along.
pub(super) struct Meta {
    method: Method,
    target: Vec<u8>,
    version: Version,
    fields: Fields,
    started: Instant,
}

impl Meta {
    pub(super) fn of(request: &Request) -> Meta {
        Meta {
            method: request.head.method.clone(),
            target: request.received_target().to_vec(),
            version: request.head.version,
            fields: request.head.fields.clone(),
            started: clock::now(),
        }
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
    notes: Option<Box<Notes>>,
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
    Done,
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
    /// Octets moved since the phase began, for the minimum rates.
    sent_bytes: u64,
    received_bytes: u64,
    marked: (u64, u64),
    phase: Phase,
    /// The last attempt to write found the socket full.
    blocked: bool,
}

/// Goes the long way until nothing waits any more.
pub(super) async fn run(session: &mut Session, start: Start) -> Outcome {
    let mut long = Long {
        settings: session.worker.settings(),
        session,
        input: start.input,
        at: 0,
        end_of_input: start.end_of_input,
        out: start.out,
        out_at: 0,
        tail: start.content,
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
        sent_bytes: 0,
        received_bytes: 0,
        marked: (0, 0),
        phase: Phase::Idle,
        blocked: false,
    };
    match start.first {
        Some(First::Handled { handled, interim, meta, safe }) => long.enqueue(handled, interim, meta, safe),
        Some(First::WithContent(request, read)) => long.begin_content(request, read.into()),
        None => {}
    }
    let outcome = poll_fn(|cx| long.poll(cx)).await;
    if long.reset {
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

    /// The long way ends when everything is out and nothing is owed.
    fn outcome(&mut self) -> Option<Outcome> {
        let all_out = self.out_at == self.out.len() && self.tail.is_empty() && self.file.is_none();
        if !all_out || self.sending.is_some() {
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

    // --- requests and handlers ---

    fn enqueue(&mut self, handled: Handled, interim: Option<InterimSender>, meta: Option<Meta>, safe: bool) {
        let state = match handled {
            Handled::Ready(response) => State::Ready(Box::new(response)),
            Handled::Later(future) => State::Running(future),
        };
        self.queue.push_back(InFlight { state, interim, meta, notes: None, safe });
    }

    fn handle(&mut self, mut request: Request) {
        let meta = self.session.worker.log().map(|_| Meta::of(&request));
        let safe = request.head.method.is_safe();
        let service = self.session.worker.service();
        let handled = catch_unwind(AssertUnwindSafe(|| service.handle(&mut request, &self.session.worker)))
            .unwrap_or_else(|_| {
                tracing::error!("a handler panicked");
                service::internal_error().into()
            });
        let interim = request.take_interim();
        self.enqueue(handled, interim, meta, safe);
    }

    /// A request whose content is still coming. `read` is what was read of it.
    fn begin_content(&mut self, mut request: Request, read: Bytes) {
        let limit = self.settings.limits.content_bytes_max;
        if request.content_length.is_some_and(|n| n > limit) {
            let meta = self.session.worker.log().map(|_| Meta::of(&request));
            self.intake = Intake::Unwanted;
            self.enqueue(too_large().into(), None, meta, false);
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
                    service::internal_error()
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

    // --- responses ---

    /// Writes the head of the response that is due, if it is ready.
    fn begin_response(&mut self) -> bool {
        if self.sending.is_some() || self.switch.is_some() || self.ending.is_some() {
            return false;
        }
        let Some(front @ InFlight { state: State::Ready(_), .. }) = self.queue.front_mut() else {
            return false;
        };
        let placeholder = State::Ready(Box::new(Response::new(Status::OK)));
        let State::Ready(response) = std::mem::replace(&mut front.state, placeholder) else { return false };
        let mut response = *response;
        front.notes = response.notes.take();
        if let ResponseContent::Switch(_) = response.content {
            return self.begin_switch(response);
        }
        let stopping = self.session.worker.ledger().is_stopping();
        let close = response.close.or(stopping.then_some(CloseReason::Stopping));
        let reading = self.is_read_by_handler();
        let (machine, out) = (&mut self.session.machine, &mut self.out);
        let written =
            self.session.worker.with_date(|date| write_head(machine, &response, close, reading, date, out));
        let framing = match written {
            Ok(framing) => framing,
            Err(misuse) => {
                tracing::error!(status = %response.status, %misuse, "a response could not be written");
                return self.fall_back(misuse);
            }
        };
        let machine = &mut self.session.machine;
        let silent = machine.body().is_ok_and(|body| body.is_silent());
        let content_bytes = match &response.content {
            // Counted as it flows.
            ResponseContent::Pipe(..) => 0,
            content => content.length().filter(|_| !silent).unwrap_or(0),
        };
        let source = match response.content {
            _ if silent => Source::Done,
            ResponseContent::Bytes(bytes) => Source::Bytes(bytes),
            ResponseContent::File(range) => Source::Parts([Part::File(range)].into()),
            ResponseContent::Parts(parts) => Source::Parts(parts.into()),
            ResponseContent::Pipe(reader, _) => Source::Pipe(reader),
            ResponseContent::Empty | ResponseContent::Described(_) | ResponseContent::Switch(_) => {
                Source::Done
            }
        };
        let until_close = matches!(framing, Framing::UntilClose { .. });
        let (status, fields) = (response.status, response.fields);
        self.sending = Some(Sending { source, status, fields, content_bytes, until_close });
        true
    }

    /// Whether the content still to come is for the front request, and its handler reads it.
    fn is_read_by_handler(&self) -> bool {
        let alive = matches!(&self.intake, Intake::Pipe { writer, .. } if !writer.is_reader_gone());
        alive && self.queue.len() == 1 && !self.session.machine.awaits_continue()
    }

    /// A response that the machine does not write as it is: 500 instead, if that is still possible.
    fn fall_back(&mut self, misuse: Misuse) -> bool {
        if let Some(front) = self.queue.front_mut()
            && self.session.machine.owes_response()
            && misuse != Misuse::OutOfTurn
        {
            front.state = State::Ready(Box::new(service::internal_error()));
        } else {
            self.ending = Some(CloseReason::Internal);
        }
        true
    }

    fn begin_switch(&mut self, response: Response) -> bool {
        let ResponseContent::Switch(switch) = response.content else { return false };
        let (machine, out) = (&mut self.session.machine, &mut self.out);
        let fields = response.fields.get();
        let switched =
            self.session.worker.with_date(|date| machine.switch(response.status, fields, date, out));
        if let Err(misuse) = switched {
            tracing::error!(%misuse, "a handler switched protocols without being asked");
            return self.fall_back(misuse);
        }
        self.log_response(response.status, &response.fields, 0, Persistence::Close(CloseReason::Switched));
        self.queue.pop_front();
        self.switch = Some(switch);
        true
    }

    /// Moves content of the response into the output, up to a measure.
    fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.out.len() - self.out_at < GATHERED_BYTES && self.tail.is_empty() && self.file.is_none() {
            let Some(sending) = &mut self.sending else { break };
            let step = match &mut sending.source {
                Source::Bytes(bytes) => {
                    let bytes = std::mem::take(bytes);
                    sending.source = Source::Done;
                    self.put(bytes)
                }
                Source::Parts(parts) => match parts.pop_front() {
                    Some(Part::Bytes(bytes)) => self.put(bytes),
                    Some(Part::File(range)) => self.put_file(range),
                    None => self.end_response(None),
                },
                Source::Pipe(reader) => match reader.poll_next(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Next::Data(bytes)) => {
                        sending.content_bytes += bytes.len() as u64;
                        self.put(bytes)
                    }
                    Poll::Ready(Next::Complete(trailers)) => self.end_response(trailers),
                    Poll::Ready(Next::Aborted(reason)) => {
                        tracing::debug!(%reason, "the content of a response broke off");
                        self.cut();
                        Ok(())
                    }
                },
                Source::Done => self.end_response(None),
            };
            if let Err(misuse) = step {
                tracing::error!(%misuse, "a response was cut");
                self.cut();
            }
            moved = true;
        }
        moved
    }

    fn put(&mut self, bytes: Bytes) -> Result<(), Misuse> {
        let body = self.session.machine.body()?;
        if bytes.len() < SMALL_PIECE_BYTES || !body.is_transparent() {
            return body.write(&bytes, &mut self.out);
        }
        body.begin(bytes.len(), &mut self.out)?;
        self.suffix = body.after();
        self.tail = bytes;
        Ok(())
    }

    fn put_file(&mut self, range: FileRange) -> Result<(), Misuse> {
        // Files are never under a transfer coding: their length is known, and `write_head` asks for none.
        self.session.machine.body()?.begin(range.length as usize, &mut self.out)?;
        if range.length > 0 {
            self.file = Some(range);
        }
        Ok(())
    }

    fn end_response(&mut self, trailers: Option<Box<Fields>>) -> Result<(), Misuse> {
        let trailers = trailers.map(|mut trailers| {
            trailers.retain(|t| t.known.is_none_or(|known| known.allowed_in_trailers()));
            trailers
        });
        let persistence = self.session.machine.finish(trailers.as_deref(), &mut self.out)?;
        if let Some(sent) = self.sending.take() {
            self.log_response(sent.status, &sent.fields, sent.content_bytes, persistence);
        }
        self.queue.pop_front();
        if let Persistence::Close(reason) = persistence {
            self.ending = Some(reason);
            self.queue.clear();
        }
        Ok(())
    }

    /// The response cannot be completed: its end must not look like one (design, invariant 9).
    fn cut(&mut self) {
        // What was gathered goes out; the missing end tells the rest.
        let _ = self.session.machine.finish(None, &mut Vec::new());
        if let Some(sent) = self.sending.take() {
            self.reset |= sent.until_close;
            let close = Persistence::Close(CloseReason::ResponseCut);
            self.log_response(sent.status, &sent.fields, sent.content_bytes, close);
        }
        self.queue.clear();
        self.file = None;
        self.ending = Some(CloseReason::ResponseCut);
    }

    // --- output ---

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            let sent = if self.out_at < self.out.len() || !self.tail.is_empty() {
                let slices = [IoSlice::new(&self.out[self.out_at..]), IoSlice::new(&self.tail)];
                let used = if self.tail.is_empty() { &slices[..1] } else { &slices[..] };
                self.session.stream.try_write_vectored(used).map(|n| self.advance(n))
            } else if let Some(range) = &mut self.file {
                let step = range.length.min(FILE_STEP_BYTES as u64) as usize;
                match self.session.stream.try_send_file(&range.file, &mut range.offset, step) {
                    Ok(0) => {
                        // Fault P24: the file shrank. Never pad, never lie about the length.
                        tracing::warn!("a file became shorter while it was sent");
                        self.cut();
                        return Ok(true);
                    }
                    Ok(n) => {
                        self.sent_bytes += n as u64;
                        range.length -= n as u64;
                        if range.length == 0 {
                            self.file = None;
                        }
                        // One step a round: other connections want their turn.
                        self.blocked = false;
                        return Ok(true);
                    }
                    Err(error) => Err(error),
                }
            } else {
                self.blocked = false;
                return Ok(moved);
            };
            match sent {
                Ok(()) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.session.stream.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => {
                            self.blocked = true;
                            return Ok(moved);
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, mut sent: usize) {
        self.sent_bytes += sent as u64;
        let from_out = sent.min(self.out.len() - self.out_at);
        self.out_at += from_out;
        sent -= from_out;
        if sent > 0 {
            let _ = self.tail.split_to(sent);
        }
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
            if self.tail.is_empty() {
                self.out.extend_from_slice(std::mem::take(&mut self.suffix));
            }
        }
    }

    // --- input ---

    fn poll_input(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            match self.consume(cx) {
                Consumed::Some => moved = true,
                Consumed::Blocked => return Ok(moved | self.poll_read(cx, INPUT_KEPT_BYTES)?),
                Consumed::NeedMore if self.end_of_input => return Ok(moved),
                Consumed::NeedMore => {
                    if !self.poll_read(cx, usize::MAX)? {
                        return Ok(moved);
                    }
                    moved = true;
                }
            }
        }
    }

    /// Reads, unless more than `kept_max` octets wait already.
    fn poll_read(&mut self, cx: &mut Context<'_>, kept_max: usize) -> io::Result<bool> {
        if self.end_of_input || self.input.len() - self.at >= kept_max {
            return Ok(false);
        }
        if self.at > 0 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let before = self.input.len();
        self.input.resize(before + INPUT_STEP_BYTES, 0);
        let read = self.session.stream.poll_read(cx, &mut self.input[before..]);
        let got = match &read {
            Poll::Ready(Ok(n)) => *n,
            _ => 0,
        };
        self.input.truncate(before + got);
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.end_of_input = true;
                Ok(true)
            }
            Poll::Ready(Ok(n)) => {
                self.received_bytes += n as u64;
                Ok(true)
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.end_of_input = true;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn consume(&mut self, cx: &mut Context<'_>) -> Consumed {
        if self.session.machine.is_receiving_content() {
            self.consume_content(cx)
        } else if self.may_take_request() {
            self.consume_head()
        } else {
            Consumed::Blocked
        }
    }

    /// Pipelined requests are taken early only while all that wait are safe (9112-9.3.2-02a).
    fn may_take_request(&self) -> bool {
        !self.queue.is_empty()
            && self.ending.is_none()
            && self.switch.is_none()
            && self.queue.len() < self.settings.limits.concurrent_requests_max
            && self.queue.iter().all(|in_flight| in_flight.safe)
    }

    fn consume_head(&mut self) -> Consumed {
        if self.at == self.input.len() {
            // The end between requests is no fault: what is owed is still sent (half-close).
            return Consumed::NeedMore;
        }
        let mut request = Request::new(self.session.peer.clone());
        let received =
            self.session.machine.receive(&self.input[self.at..], self.end_of_input, &mut request.head);
        match received {
            Ok((taken, Received::Head)) => {
                self.at += taken;
                request.renew();
                let safe = request.head.method.is_safe() && !request.head.framing.has_body();
                if safe {
                    self.handle(request);
                } else {
                    let state = State::Waiting(Box::new(request));
                    self.queue.push_back(InFlight {
                        state,
                        interim: None,
                        meta: None,
                        notes: None,
                        safe: false,
                    });
                }
                Consumed::Some
            }
            Ok((taken, Received::NeedMore)) => {
                self.at += taken;
                Consumed::NeedMore
            }
            Ok((taken, _)) => {
                self.at += taken;
                Consumed::Blocked
            }
            Err(why) => {
                // Answered after those before it; the machine says when it is its turn.
                let state = State::Ready(Box::new(service::malformed(why)));
                self.queue.push_back(InFlight { state, interim: None, meta: None, notes: None, safe: false });
                Consumed::Some
            }
        }
    }

    fn consume_content(&mut self, cx: &mut Context<'_>) -> Consumed {
        match self.make_room(cx) {
            Room::Yes => {}
            Room::Made => return Consumed::Some,
            Room::No => return Consumed::Blocked,
        }
        let mut unused = Default::default();
        let input = &self.input[self.at..];
        let (taken, received) = match self.session.machine.receive(input, self.end_of_input, &mut unused) {
            Ok(found) => found,
            Err(why) => {
                self.content_failed(why);
                return Consumed::Some;
            }
        };
        self.at += taken;
        let mut data = match received {
            Received::Data(data) => Bytes::copy_from_slice(data),
            Received::Decoded(data) => Bytes::from(data),
            Received::End(trailers) => {
                if let Intake::Pipe { writer, .. } = std::mem::replace(&mut self.intake, Intake::Nowhere) {
                    writer.complete(trailers.map(Box::new));
                }
                return Consumed::Some;
            }
            _ => return Consumed::NeedMore,
        };
        self.intake_bytes += data.len() as u64;
        if !matches!(self.intake, Intake::Pipe { .. }) {
            self.drained_bytes += data.len() as u64;
            if self.drained_bytes > self.session.machine.config().limits.drain_bytes_max {
                // Too much to read away for the sake of one more exchange.
                self.overdrawn = true;
            }
        }
        if let Intake::Pipe { writer, early } = &mut self.intake {
            if self.intake_bytes > self.settings.limits.content_bytes_max {
                self.content_too_large();
                return Consumed::Some;
            }
            match writer.push(&mut data) {
                // What does not fit waits, and nothing more is read before it has gone.
                Ok(_) => *early = data,
                Err(_) => self.intake = Intake::Unwanted,
            }
        }
        Consumed::Some
    }

    /// Whether content may be read for whoever takes it.
    fn make_room(&mut self, cx: &mut Context<'_>) -> Room {
        let machine = &mut self.session.machine;
        let Intake::Pipe { writer, early } = &mut self.intake else {
            // Read away once the response is on its way; before that the handler may still be thinking.
            return if machine.content_is_unwanted() { Room::Yes } else { Room::No };
        };
        match writer.poll_ready(cx) {
            Poll::Pending => return Room::No,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => {
                self.intake = Intake::Unwanted;
                return Room::Made;
            }
        }
        if !early.is_empty() {
            // Cannot fail: the reader was there a moment ago.
            let _ = writer.push(early);
            return Room::Made;
        }
        if machine.awaits_continue() && machine.allows_interim() && writer.poll_wanted(cx).is_ready() {
            // 9110-10.1.1-06: now that somebody reads.
            let sent = machine.interim(Status::CONTINUE, &Fields::new(), &mut self.out);
            debug_assert!(sent.is_ok());
            return Room::Made;
        }
        Room::Yes
    }

    /// The client broke the framing of its content, or broke off.
    fn content_failed(&mut self, why: Malformed) {
        let reason = if why == Malformed::BodyCut { Reason::Truncated } else { Reason::Malformed };
        if let Intake::Pipe { writer, .. } = std::mem::replace(&mut self.intake, Intake::Nowhere) {
            writer.abort(reason);
        }
        self.replace_last(service::malformed(why));
    }

    fn content_too_large(&mut self) {
        if let Intake::Pipe { writer, .. } = std::mem::replace(&mut self.intake, Intake::Unwanted) {
            writer.abort(Reason::TooLarge);
        }
        self.replace_last(too_large());
    }

    /// Answers the request whose content failed with this instead of what its handler says, unless that is on
    /// its way already.
    fn replace_last(&mut self, response: Response) {
        let on_its_way = self.sending.is_some() && self.queue.len() == 1;
        match self.queue.back_mut() {
            Some(last) if !on_its_way => last.state = State::Ready(Box::new(response)),
            _ => {}
        }
    }

    // --- deadlines ---

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
        let mut response = service::refusal(Status::REQUEST_TIMEOUT, "The content came too slowly.");
        response.close = Some(CloseReason::ContentTimeout);
        self.replace_last(response);
        self.phase = Phase::Idle;
        None
    }

    fn log_response(
        &mut self,
        status: Status,
        fields: &crate::response::ResponseFields,
        content_bytes: u64,
        persistence: Persistence,
    ) {
        let Some(log) = self.session.worker.log() else { return };
        let front = self.queue.front_mut();
        let (meta, notes) = front.map_or((None, None), |front| (front.meta.take(), front.notes.take()));
        let (seconds, nanos) = clock::wall();
        let now_ms = seconds * 1000 + i64::from(nanos / 1_000_000);
        let duration_us = meta.as_ref().map_or(0, |m| m.started.elapsed().as_micros() as u64);
        let mut record = Record {
            time_unix_ms: now_ms - (duration_us / 1000) as i64,
            client: self.session.peer.ip(),
            handler: self.session.worker.service().name(),
            response_fields: Some(fields.get()),
            status: status.code(),
            content_bytes,
            sent_bytes: self.sent_bytes + (self.out.len() - self.out_at) as u64,
            received_bytes: self.received_bytes,
            duration_us,
            connection: self.session.number,
            requests_before: self.session.machine.served().saturating_sub(1),
            closed: match persistence {
                Persistence::Keep => None,
                Persistence::Close(reason) => Some(reason.name()),
            },
            refused: match persistence {
                Persistence::Close(CloseReason::Malformed(why)) => Some(why.name()),
                Persistence::Close(CloseReason::ResponseCut) => Some("response-cut"),
                _ => None,
            },
            ..Record::default()
        };
        if let Some(meta) = &meta {
            record.method = meta.method.as_str().as_bytes();
            record.target = &meta.target;
            record.version = meta.version;
            record.host = meta.fields.get(Known::Host).unwrap_or_default();
            record.request_fields = Some(&meta.fields);
        }
        if let Some(notes) = &notes {
            notes.add_to(&mut record);
        }
        log.record(&record);
    }
}

/// Whether there is room for content.
enum Room {
    Yes,
    /// Something else moved first; look again.
    Made,
    No,
}

/// What became of the input.
enum Consumed {
    /// Something was taken, or something else moved.
    Some,
    /// More input is needed.
    NeedMore,
    /// Nothing may be taken for now.
    Blocked,
}

fn too_large() -> Response {
    let mut response =
        service::refusal(Status::CONTENT_TOO_LARGE, "The content is larger than is taken here.");
    response.close = Some(CloseReason::ContentUnread);
    response
}
