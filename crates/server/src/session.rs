//! MEETING PLACE of the server: the one place where a stream and a connection machine meet. A session reads,
//! lets the machine find requests, asks the service, and writes what the machine makes of the responses.
//!
//! Most exchanges go the short way: the request has come whole, its handler answers at once from memory, and
//! everything is done in one read and one write out of buffers that the worker lends. An answer that comes soon,
//! from a server behind this one, is waited for in between (`session/soon.rs`). Whatever has to wait longer
//! (content, a slow handler, a large file, a full socket) goes the long way, `session/long.rs`.
//! All decisions are taken below or in handlers; this file moves octets.

mod close;
mod long;
mod soon;
#[cfg(test)]
mod tests;

use crate::metrics::Exchange;
use crate::record::Record;
use crate::refusal::{self, refusal};
use crate::request::{Local, Peer, Request, RequestContent};
use crate::response::{Content, Response};
use crate::worker::{Scratch, Worker};
use bytes::Bytes;
use eleven_messaging::{
    Answer, CloseReason, Framing, Length, Malformed, Misuse, Persistence, Received, ServerConnection,
};
use eleven_net::ledger::{Phase, Slot, Verdict};
use eleven_net::{PeerAddr, Stream, clock};
use eleven_semantics::target::Scheme;
use eleven_semantics::{Fields, Known, Status, Version};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Content from memory that is copied behind its head, so that pipelined responses leave in one write. Larger
/// content is written from where it is.
const COPIED_BYTES_MAX: usize = 8 * 1024;
/// How long the rest of a head may take when the worker is stopped.
const STOP_HEAD_MS: u64 = 2_000;

/// One connection.
pub(crate) struct Session {
    stream: Stream,
    machine: ServerConnection,
    slot: Slot,
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    /// Octets received and not yet taken: the beginning of a head, as a rule empty.
    carry: Vec<u8>,
    number: u64,
    /// An answer that comes soon.
    awaited: Option<soon::Awaited>,
}

/// What comes after a round.
enum Turn {
    /// Wait for more input.
    Wait,
    /// Go the long way.
    Long(Box<long::Start>),
    /// The connection is done.
    Close(CloseReason),
}

/// Serves a connection to its end. The future is a pointer: what it points to is all that a connection at rest
/// holds, and is never copied.
pub fn serve(
    stream: Stream,
    peer: PeerAddr,
    local: Local,
    slot: Slot,
    worker: Rc<Worker>,
) -> impl Future<Output = ()> {
    let address = match peer {
        PeerAddr::Ip(address) => Some(address),
        PeerAddr::Unix | PeerAddr::Memory => None,
    };
    let scheme = if stream.is_tls() { Scheme::Https } else { Scheme::Http };
    let server_name = match &stream {
        Stream::Tls(tls) => tls.server_name().map(Box::from),
        _ => None,
    };
    let settings = worker.settings();
    slot.begin(Phase::Idle, settings.timeouts.idle_timeout_ms);
    Box::new(Session {
        stream,
        machine: ServerConnection::new(settings.protocol.clone()),
        slot,
        number: worker.next_connection(),
        worker,
        peer: Rc::new(Peer {
            address,
            scheme,
            local_port: local.port,
            listener: local.listener,
            server_name,
        }),
        carry: Vec::new(),
        awaited: None,
    })
    .run()
}

impl Session {
    async fn run(mut self: Box<Session>) {
        let reason = loop {
            // Boxed turns, so that a connection at rest does not hold the memory of a busy one.
            match poll_fn(|cx| self.poll_round(cx)).await {
                Turn::Wait => {}
                Turn::Long(start) => match Box::pin(long::run(&mut self, *start)).await {
                    long::Outcome::Keep => self.rest(),
                    long::Outcome::Close(reason) => break reason,
                    long::Outcome::Switch(switch, received) => {
                        let Session { stream, slot, worker, .. } = *self;
                        slot.begin(Phase::Tunnel, u64::MAX);
                        worker.recorder().closed(CloseReason::Switched.name());
                        return switch.run(stream, received).await;
                    }
                },
                Turn::Close(reason) => break reason,
            }
        };
        self.worker.recorder().closed(reason.name());
        if close::is_staged(reason, self.carry.is_empty()) {
            Box::pin(close::in_stages(&mut self, reason)).await;
        } else if close::is_orderly(reason) {
            self.stream.announce_close();
        }
    }

    /// Between requests: the idle deadline runs, and settings may have changed.
    fn rest(&mut self) {
        let settings = self.worker.settings();
        if self.machine.is_idle() && !std::sync::Arc::ptr_eq(self.machine.config(), &settings.protocol) {
            self.machine.set_config(settings.protocol.clone());
        }
        self.slot.begin(Phase::Idle, settings.timeouts.idle_timeout_ms);
    }

    /// Reads what is there and answers what can be answered at once.
    fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        // What the long way left over is looked at before anything is read.
        let mut fresh = !self.carry.is_empty() && self.slot.phase() == Phase::Idle;
        loop {
            if self.awaited.is_none() {
                let mut scratch = self.worker.take_scratch();
                let turn = self.round(&mut scratch, std::mem::take(&mut fresh));
                self.worker.return_scratch(scratch);
                match turn {
                    Turn::Wait => {}
                    other => return Poll::Ready(other),
                }
                if self.awaited.is_some() {
                    // Its server is asked when all sessions that have something to read have read it. Requests that
                    // leave together find the server still awake, and waking it is what costs most of a send.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            if self.awaited.is_some() {
                match ready!(self.poll_awaited(cx)) {
                    Turn::Wait => {}
                    other => return Poll::Ready(other),
                }
            }
            // Until none is left: only then will the next one wake this task.
            while let Poll::Ready(verdict) = self.slot.poll_verdict(cx) {
                if let Some(reason) = self.on_verdict(verdict) {
                    return Poll::Ready(Turn::Close(reason));
                }
            }
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Turn::Close(CloseReason::Broken)),
            }
        }
    }

    /// While waiting for a head: must the connection go?
    fn on_verdict(&mut self, verdict: Verdict) -> Option<CloseReason> {
        let in_head = self.slot.phase() == Phase::Head;
        match verdict {
            Verdict::Overdue if in_head => {
                let timeouts = &self.worker.settings().timeouts;
                let (elapsed, extended) = (self.slot.phase_ms(), timeouts.head_timeout_extended_ms);
                let fast = self.carry.len() as u64 >= timeouts.head_rate_min * (elapsed / 1000);
                // Sooner than that only after a stop, which gave it a moment and no more.
                let had_its_time = elapsed >= timeouts.head_timeout_ms;
                if fast && had_its_time && elapsed < extended {
                    self.slot.extend(extended - elapsed);
                    return None;
                }
                self.say_goodbye(
                    Status::REQUEST_TIMEOUT,
                    "The request did not come in time.",
                    CloseReason::HeadTimeout,
                );
                Some(CloseReason::HeadTimeout)
            }
            Verdict::Overdue => Some(CloseReason::IdleTimeout),
            Verdict::Evicted if in_head => {
                self.say_goodbye(
                    Status::SERVICE_UNAVAILABLE,
                    "There are too many connections.",
                    CloseReason::Evicted,
                );
                Some(CloseReason::Evicted)
            }
            Verdict::Evicted => Some(CloseReason::Evicted),
            // A request that has begun to come is still answered, with `Connection: close`, if its head comes soon.
            Verdict::Stopping if in_head => {
                let timeouts = &self.worker.settings().timeouts;
                let left = timeouts.head_timeout_ms.saturating_sub(self.slot.phase_ms());
                self.slot.extend(left.min(STOP_HEAD_MS));
                None
            }
            Verdict::Stopping => Some(CloseReason::Stopping),
        }
    }

    /// A last response to octets that never became a request; as much of it as the socket takes at once.
    fn say_goodbye(&mut self, status: Status, why: &str, reason: CloseReason) {
        let mut response = refusal(status, why);
        response.close = Some(reason);
        let mut out = Vec::new();
        if self.write_short(&response, &mut out, usize::MAX, false).is_ok() {
            let _ = self.stream.try_write(&out);
            self.record_unreadable(&response, out.len(), reason);
        }
    }

    /// One read, the requests in it, one write.
    fn round(&mut self, scratch: &mut Scratch, carried_only: bool) -> Turn {
        let carried = self.carry.len();
        if scratch.input.len() < carried + 4096 {
            // A head larger than the buffer is refused by the machine long before this matters.
            scratch.input.resize(carried + 4096, 0);
        }
        scratch.input[..carried].copy_from_slice(&self.carry);
        let read = if carried_only {
            Ok(carried)
        } else {
            match self.stream.try_read(&mut scratch.input[carried..]) {
                Ok(0) => Err(None),
                Ok(n) => Ok(carried + n),
                Err(error) => Err(Some(error)),
            }
        };
        let (len, end_of_input) = match read {
            Ok(len) => (len, false),
            Err(None) => (carried, true),
            Err(Some(error)) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Wait,
            // Over TLS an end that was not announced is an end all the same between messages (9112-9.8-05).
            Err(Some(error)) if error.kind() == io::ErrorKind::UnexpectedEof => (carried, true),
            Err(Some(_)) => return Turn::Close(CloseReason::Broken),
        };
        self.carry.clear();
        scratch.out.clear();
        self.exchanges(scratch, len, end_of_input)
    }

    /// Answers the requests that stand in the input.
    fn exchanges(&mut self, scratch: &mut Scratch, len: usize, end_of_input: bool) -> Turn {
        let Scratch { input, out, request } = scratch;
        let input = &input[..len];
        let mut at = 0;
        loop {
            let begun_at = at;
            let (taken, received) = match self.machine.receive(&input[at..], end_of_input, &mut request.head)
            {
                Ok(found) => found,
                Err(why) => return self.refuse(out, why),
            };
            at += taken;
            match received {
                Received::Head => {}
                Received::NeedMore => return self.pause(out, &input[at..]),
                Received::Closed => return self.flush_then(out, Turn::Close(CloseReason::PeerClosed)),
                Received::Stopped | Received::Blocked | Received::Tunnel => {
                    let reason = self.machine.closing().unwrap_or(CloseReason::Internal);
                    return self.flush_then(out, Turn::Close(reason));
                }
                // Content of a request that was answered already: thrown away.
                Received::Data(_) | Received::Decoded(_) | Received::End(_) => continue,
            }
            request.peer = self.peer.clone();
            request.renew();
            if self.machine.is_receiving_content() {
                match self.gather(&input[at..], end_of_input, request) {
                    Ok(Gathered::Whole(taken)) => at += taken,
                    Ok(Gathered::Part(start)) => {
                        let out = std::mem::take(out);
                        return Turn::Long(long::Start::with_content(
                            *start,
                            out,
                            end_of_input,
                            input.len() - begun_at,
                            request.take(),
                        ));
                    }
                    Err(why) => return self.refuse(out, why),
                }
            }
            let weight = self.worker.weigh();
            request.is_recorded = weight > 0 || self.worker.is_logged();
            // The clock is read for those who look at the times.
            request.is_timed = weight > 0 || self.worker.is_log_timed();
            let started = request.is_timed.then(clock::now);
            let is_safe = request.head.method.is_safe();
            let service = self.worker.service();
            let handled = catch_unwind(AssertUnwindSafe(|| service.handle(request, &self.worker)));
            let handled = handled.unwrap_or_else(|_| {
                tracing::error!("a handler panicked");
                refusal::internal_error().into()
            });
            let interim = request.take_interim();
            let response = match handled {
                crate::handler::Handled::Ready(response)
                    if interim.is_none() && is_short(&response.content) =>
                {
                    response
                }
                // Nothing else is under way on the connection.
                crate::handler::Handled::Soon(soon)
                    if interim.is_none() && out.is_empty() && at == input.len() && !end_of_input =>
                {
                    let meta = long::Meta::of(request, weight, started);
                    self.expect(soon, meta, is_safe, at - begun_at);
                    return Turn::Wait;
                }
                handled => {
                    let rest = input[at..].to_vec();
                    let begun = long::Begun {
                        handled,
                        interim,
                        meta: long::Meta::of(request, weight, started),
                        safe: is_safe,
                    };
                    let out = std::mem::take(out);
                    let start = long::Start::handled(begun, out, rest, end_of_input, input.len() - begun_at);
                    return Turn::Long(Box::new(start));
                }
            };
            let before = out.len();
            let Ok((persistence, large)) =
                self.write_short(&response, out, COPIED_BYTES_MAX, at < input.len())
            else {
                return self.flush_then(out, Turn::Close(CloseReason::Internal));
            };
            let sent_bytes = (out.len() - before + large.as_ref().map_or(0, Bytes::len)) as u64;
            let counted = Exchange {
                handler: service.name(),
                status: response.status.code(),
                received_bytes: (at - begun_at) as u64,
                sent_bytes,
                ..Exchange::default()
            };
            self.record(Some(Asked::by(request)), &response, counted, weight, started, persistence);
            if let crate::response::ResponseFields::Stored(_, added) = response.fields {
                self.worker.return_added(added);
            }
            let next = match persistence {
                Persistence::Keep => None,
                Persistence::Close(reason) => Some(reason),
            };
            if let Some(content) = large {
                match self.write_gathered(out, content) {
                    Ok(None) => {}
                    Ok(Some(left)) => {
                        let rest = input[at..].to_vec();
                        return Turn::Long(Box::new(long::Start::unsent(left, next, rest, end_of_input)));
                    }
                    Err(_) => return Turn::Close(CloseReason::Broken),
                }
            }
            if let Some(reason) = next {
                self.carry.extend_from_slice(&input[at..]);
                return self.flush_then(out, Turn::Close(reason));
            }
            if out.len() >= self.worker.settings().limits.out_bytes_max && at < input.len() {
                match self.flush(out) {
                    Ok(None) => {}
                    Ok(Some(left)) => {
                        let rest = input[at..].to_vec();
                        return Turn::Long(Box::new(long::Start::unsent(left, None, rest, end_of_input)));
                    }
                    Err(_) => return Turn::Close(CloseReason::Broken),
                }
            }
        }
    }

    /// Takes the content of a request if all of it is in the input.
    fn gather(
        &mut self,
        input: &[u8],
        end_of_input: bool,
        request: &mut Request,
    ) -> Result<Gathered, Malformed> {
        let limit = self.worker.settings().limits.content_bytes_max;
        // Announced content that cannot be here whole is not copied twice.
        let awaits = self.machine.awaits_continue() && input.is_empty();
        if awaits || request.content_length.is_some_and(|n| n > input.len() as u64 || n > limit) {
            return Ok(Gathered::Part(Box::new(long::Content::begun(Vec::new(), input))));
        }
        let mut content = Vec::new();
        let mut at = 0;
        loop {
            let (taken, received) = self.machine.receive(&input[at..], end_of_input, &mut request.head)?;
            at += taken;
            match received {
                Received::Data(data) => content.extend_from_slice(data),
                Received::Decoded(data) => content.extend_from_slice(&data),
                Received::End(trailers) => {
                    request.content = RequestContent::Whole(content.into(), trailers.map(Box::new));
                    return Ok(Gathered::Whole(at));
                }
                _ => return Ok(Gathered::Part(Box::new(long::Content::begun(content, &input[at..])))),
            }
        }
    }

    /// Writes a response that needs no waiting: head, content, end. Content beyond `copied_max` octets is
    /// returned, to be written after `out`. `more`: another request has come already, and even a worker that is
    /// stopping answers it.
    fn write_short(
        &mut self,
        response: &Response,
        out: &mut Vec<u8>,
        copied_max: usize,
        more: bool,
    ) -> Result<(Persistence, Option<Bytes>), Misuse> {
        let machine = &mut self.machine;
        let last = self.worker.ledger().is_stopping() && !more;
        let close = response.close.or(last.then_some(CloseReason::Stopping));
        self.worker.with_date(|date| write_head(machine, response, close, false, date, out))?;
        let body = machine.body()?;
        let mut large = None;
        match &response.content {
            // HEAD, 204 and the like.
            _ if body.is_silent() => {}
            Content::Bytes(bytes) if bytes.len() > copied_max && body.is_plain() => {
                body.begin(bytes.len(), out)?;
                large = Some(bytes.clone());
            }
            Content::Bytes(bytes) => body.write(bytes, out)?,
            _ => {}
        }
        Ok((machine.finish(None, out)?, large))
    }

    /// Answers what the client broke, and ends the connection.
    fn refuse(&mut self, out: &mut Vec<u8>, why: Malformed) -> Turn {
        let before = out.len();
        let response = refusal::malformed(why);
        let reason = CloseReason::Malformed(why);
        // Where nobody is left to read it, or the peer does not speak HTTP, the response does no harm.
        if self.write_short(&response, out, usize::MAX, false).is_ok() {
            self.record_unreadable(&response, out.len() - before, reason);
        }
        self.flush_then(out, Turn::Close(reason))
    }

    /// The input is used up: write what there is, keep the beginning of the next head.
    fn pause(&mut self, out: &mut Vec<u8>, rest: &[u8]) -> Turn {
        self.carry.extend_from_slice(rest);
        let settings = self.worker.settings();
        let began = !rest.is_empty() || self.machine.is_receiving_content();
        match (self.slot.phase(), began) {
            (Phase::Head, true) => {}
            (_, true) => self.slot.begin(Phase::Head, settings.timeouts.head_timeout_ms),
            (Phase::Idle, false) if out.is_empty() => {}
            (_, false) => self.rest(),
        }
        self.flush_then(out, Turn::Wait)
    }

    /// Writes all of `out`, then takes the turn; the long way if the socket is full.
    fn flush_then(&mut self, out: &mut Vec<u8>, turn: Turn) -> Turn {
        match self.flush(out) {
            Ok(None) => turn,
            Ok(Some(left)) => {
                let (next, rest) = match turn {
                    Turn::Close(reason) => (Some(reason), Vec::new()),
                    _ => (None, std::mem::take(&mut self.carry)),
                };
                Turn::Long(Box::new(long::Start::unsent(left, next, rest, false)))
            }
            Err(_) => Turn::Close(CloseReason::Broken),
        }
    }

    /// Writes `out`; what the socket did not take.
    fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<Option<long::Unsent>> {
        if out.is_empty() {
            return Ok(None);
        }
        let sent = accepted(self.stream.try_write(out))?;
        if sent == out.len() {
            out.clear();
            return Ok(None);
        }
        Ok(Some(long::Unsent { head: out.split_off(sent), content: Bytes::new() }))
    }

    /// Writes `out` and `content` in one call; what the socket did not take.
    fn write_gathered(&mut self, out: &mut Vec<u8>, mut content: Bytes) -> io::Result<Option<long::Unsent>> {
        let sent = accepted(self.stream.try_write_vectored(&[IoSlice::new(out), IoSlice::new(&content)]))?;
        if sent == out.len() + content.len() {
            out.clear();
            return Ok(None);
        }
        let head = out.split_off(sent.min(out.len()));
        let from_content = sent.saturating_sub(out.len());
        out.clear();
        Ok(Some(long::Unsent { head, content: content.split_off(from_content) }))
    }

    /// Counts an exchange of the short way; tells the log of it, and the figures what they ask for.
    fn record<'a>(
        &self,
        asked: Option<Asked<'_>>,
        response: &'a Response,
        mut counted: Exchange<'a>,
        weight: u32,
        started: Option<tokio::time::Instant>,
        persistence: Persistence,
    ) {
        if let Some(notes) = &response.notes {
            notes.count_in(&mut counted);
        }
        self.worker.recorder().count(&counted);
        if weight == 0 && counted.refused.is_none() && !self.worker.is_logged() {
            return;
        }
        let asked = asked.unwrap_or(Asked::NOTHING);
        let is_bodiless = asked.method == b"HEAD" || response.status.never_has_content();
        let duration_us = started.map_or(0, |started| started.elapsed().as_micros() as u64);
        let mut record = Record {
            time_unix_ms: match started {
                Some(_) => wall_ms(),
                None => self.worker.now().0 * 1000,
            },
            client: self.peer.ip(),
            method: asked.method,
            target: asked.target,
            version: asked.version,
            host: asked.fields.map_or(&b""[..], |fields| fields.get(Known::Host).unwrap_or_default()),
            handler: counted.handler,
            request_fields: asked.fields,
            response_fields: Some(response.fields.get()),
            status: counted.status,
            content_bytes: if is_bodiless { 0 } else { response.content.length().unwrap_or(0) },
            sent_bytes: counted.sent_bytes,
            received_bytes: counted.received_bytes,
            duration_us,
            first_octet_us: duration_us,
            connection: self.number,
            requests_before: self.machine.served().saturating_sub(1),
            closed: match persistence {
                Persistence::Keep => None,
                Persistence::Close(reason) => Some(reason.name()),
            },
            ..Record::default()
        };
        if let Some(notes) = &response.notes {
            notes.add_to(&mut record);
            notes.end_span(&record);
        }
        self.worker.recorder().sample(&record, counted.handler, weight);
        if let Some(log) = self.worker.log_of(response.notes.as_deref()) {
            log.record(&record);
        }
    }

    /// Records the answer to octets that never became a request.
    fn record_unreadable(&self, response: &Response, sent: usize, reason: CloseReason) {
        let refused = match reason {
            CloseReason::Malformed(why) => why.name(),
            other => other.name(),
        };
        let record = Record {
            time_unix_ms: wall_ms(),
            client: self.peer.ip(),
            status: response.status.code(),
            content_bytes: response.content.length().unwrap_or(0),
            sent_bytes: sent as u64,
            connection: self.number,
            requests_before: self.machine.served(),
            closed: Some(reason.name()),
            refused: Some(refused),
            ..Record::default()
        };
        self.worker.recorder().count(&Exchange {
            status: record.status,
            sent_bytes: record.sent_bytes,
            refused: record.refused,
            ..Exchange::default()
        });
        self.worker.recorder().sample(&record, "", 0);
        if let Some(log) = self.worker.log_of(None) {
            log.record(&record);
        }
    }
}

/// Milliseconds since 1970.
fn wall_ms() -> i64 {
    let (seconds, nanos) = clock::wall();
    seconds * 1000 + i64::from(nanos / 1_000_000)
}

/// What the record tells of a request.
struct Asked<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: Version,
    fields: Option<&'a Fields>,
}

impl<'a> Asked<'a> {
    /// Of a request that nobody looks at.
    const NOTHING: Asked<'static> =
        Asked { method: b"", target: b"", version: Version::Http11, fields: None };

    fn by(request: &'a Request) -> Asked<'a> {
        let head = &request.head;
        Asked {
            method: head.method.as_str().as_bytes(),
            target: request.received_target(),
            version: head.version,
            fields: Some(&head.fields),
        }
    }
}

/// Content of a request, as far as it stood in the input.
enum Gathered {
    /// All of it was put into the request; so many octets were taken.
    Whole(usize),
    Part(Box<long::Content>),
}

/// Whether a response can be written without waiting.
fn is_short(content: &Content) -> bool {
    matches!(content, Content::Empty | Content::Bytes(_) | Content::Described(_))
}

fn accepted(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// Writes the head of a final response.
fn write_head(
    machine: &mut ServerConnection,
    response: &Response,
    close: Option<CloseReason>,
    content_is_read: bool,
    date: &[u8],
    out: &mut Vec<u8>,
) -> Result<Framing, Misuse> {
    let length = match &response.content {
        Content::Empty | Content::Switch(_) => Length::Absent,
        content => content.length().map_or(Length::Unknown, Length::Known),
    };
    let fields = response.fields.get();
    let added = match &response.fields {
        crate::response::ResponseFields::Stored(_, added) => Some(added),
        _ => None,
    };
    let compressible = response.status == Status::OK
        && !fields.contains(eleven_semantics::Known::ContentEncoding)
        && !matches!(response.content, Content::File(_) | Content::Parts(_));
    let answer =
        Answer { status: response.status, fields, added, length, date, close, content_is_read, compressible };
    machine.respond(&answer, out)
}
