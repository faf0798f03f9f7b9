//! One exchange with a server, content moving both ways at once: the request's as long as it comes and is wanted,
//! the response's as fast as the client takes it. Stands between the client crate's connection and our response.
//!
//! A response that is here whole when its head is read (most are) becomes one piece of memory, and the connection
//! goes back to its pool at once. Anything else flows: it is lent out of the buffer it was read into, or pumped through
//! a pipe by a task of its own for those who change or store it. What becomes of a failure (another attempt, 502, 504)
//! is not decided here.

use super::timing::UntilEnd;
use super::upstream::Lease;
use crate::request::ContentReader;
use crate::response::InterimSender;
use bytes::Bytes;
use eleven_client::error::{Cause, Failure, Phase, RetrySafety};
use eleven_client::exchange::{Connection, Event};
use eleven_client::pool::Pooled;
use eleven_messaging::client::{Early, Request as Outgoing, Retry};
use eleven_messaging::{Framing, ResponseHead};
use eleven_net::ledger::{Caps, Ledger, Phase as Waiting, SWEEP_MS, Slot};
use eleven_net::pipe::{Next, PipeReader, PipeWriter, Reason, pipe};
use eleven_semantics::forwarding::{self, Rules};
use eleven_semantics::{Fields, Method, Status, Version};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// A response up to this size is gathered if it is already there; one beyond flows.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// Octets of a response that flows, read at a time. They wait here while the client is slow, and nowhere else: this is
/// what such a client costs.
const FLOWING_READ_BYTES: usize = 32 * 1024;

/// Content of a response between the server's connection and whoever changes or stores it.
const PIPE_BYTES: usize = 16 * 1024;

/// How long each step may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to become free, where all allowed ones are in use.
    pub queue_timeout_ms: u64,
    /// From the request's last octet to the response's head.
    pub head_timeout_ms: u64,
    /// Without any progress, in either direction.
    pub idle_timeout_ms: u64,
    /// For a 100 before the content is sent anyway (RFC 9110 §10.1.1).
    pub continue_timeout_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            queue_timeout_ms: 5_000,
            head_timeout_ms: 60_000,
            idle_timeout_ms: 60_000,
            continue_timeout_ms: 1_000,
        }
    }
}

/// The content of a request on its way to the server.
#[derive(Debug)]
pub enum Upload {
    /// None.
    None,
    /// All of it is here.
    Whole(Bytes, Option<Rc<Fields>>),
    /// It comes. Not touched before the first octet may be sent, because reading is what asks the client for it.
    Pipe(ContentReader),
}

impl Upload {
    /// The same again for another attempt. A pipe has to be handed back instead.
    pub fn again(&self) -> Option<Upload> {
        match self {
            Upload::None => Some(Upload::None),
            Upload::Whole(bytes, trailers) => Some(Upload::Whole(bytes.clone(), trailers.clone())),
            Upload::Pipe(_) => None,
        }
    }
}

/// A failed attempt, with the content that comes through a pipe, if none of it was taken.
pub struct Failed {
    /// What happened.
    pub failure: Box<Failure>,
    /// The content, untouched.
    pub upload: Option<Upload>,
}

/// The response's content.
pub enum Incoming {
    /// There is none, and the head told no length.
    Empty,
    /// None for HEAD; GET would have this length.
    Described(Option<u64>),
    /// All of it.
    Whole(Bytes),
    /// It is here, with trailers behind it.
    Pipe(PipeReader<Option<Box<Fields>>>, Option<u64>),
    /// It flows.
    Flow(Box<Flowing>, Option<u64>),
    /// The connection is the other protocol's now.
    Switched(Box<Connection>, Vec<Box<dyn std::any::Any>>),
}

/// A response, prepared for the client.
pub struct Answered {
    /// The version of the server.
    pub version: Version,
    /// Its status.
    pub status: Status,
    /// Its fields, as they may go on.
    pub fields: Fields,
    /// Its content.
    pub content: Incoming,
}

/// An exchange under way.
pub struct Flow {
    connection: Pooled,
    lease: Option<Lease>,
    upload: Option<Upload>,
    /// Taken from the pipe and not yet queued.
    rest: Bytes,
    at: usize,
    touched: bool,
    head_seen: bool,
    /// What the method says: the response has no content, and the request may be repeated.
    is_head: bool,
    is_idempotent: bool,
    /// The connection itself was authenticated: it serves nobody else (fault X25).
    bound: bool,
    rules: Rc<Rules>,
    timeouts: Timeouts,
    patience: Patience,
    /// Content of the response that is here, until it is known whether it is all of it.
    gathered: Gathered,
    /// The content is held back until the server, or nobody for some time, says 100.
    holds_content: bool,
    /// Measures how long it takes.
    until_end: Option<UntilEnd>,
}

/// The clock of a worker's exchanges with servers. Deadlines are coarse, as those of client connections: writing
/// one down is a store, where a timer for each exchange would cost more than its parsing.
#[derive(Debug)]
pub struct Watch(Rc<Ledger>);

impl Watch {
    /// Starts it on this worker.
    pub fn start() -> Watch {
        let ledger = Ledger::new(Caps { connections_max: usize::MAX, connections_per_address_max: 0 });
        let watched = Rc::downgrade(&ledger);
        tokio::task::spawn_local(async move {
            while let Some(ledger) = watched.upgrade() {
                ledger.sweep();
                drop(ledger);
                tokio::time::sleep(Duration::from_millis(SWEEP_MS)).await;
            }
        });
        Watch(ledger)
    }

    fn patience(&self) -> Patience {
        Patience { clock: Clock::Ledger(Rc::clone(&self.0)), waiting_ms: 0, waited_ms: 0 }
    }
}

/// What is waited for at most.
struct Patience {
    clock: Clock,
    /// What is being waited for; 0 after progress, so that the wait begins anew.
    waiting_ms: u64,
    /// Waited before this clock ran.
    waited_ms: u64,
}

/// Where a wait is written down. A place in the ledger is taken by the first wait: many exchanges have none.
enum Clock {
    Ledger(Rc<Ledger>),
    Slot(Slot),
    /// Somebody else watches.
    Elsewhere(Rc<Ledger>),
}

/// An event of the connection, without a borrow.
enum Found {
    Interim,
    Head,
    /// Content, lent by the connection.
    Data,
    End(Option<Fields>),
    Switched,
}

impl Flow {
    /// Queues the request's head.
    ///
    /// # Errors
    /// If the request cannot be sent on this connection.
    pub fn begin(
        mut connection: Pooled,
        lease: Option<Lease>,
        request: &Outgoing<'_>,
        upload: Upload,
        rules: Rc<Rules>,
        timeouts: Timeouts,
        watch: &Watch,
    ) -> Result<Flow, Failed> {
        let framing = match connection.send(request) {
            Ok(framing) => framing,
            Err(failure) => return Err(Failed { failure: failure.into(), upload: Some(upload) }),
        };
        Ok(Flow {
            upload: framing.has_body().then_some(upload),
            holds_content: connection.machine().awaits_continue(),
            connection,
            lease,
            rest: Bytes::new(),
            at: 0,
            touched: false,
            head_seen: false,
            is_head: *request.method == Method::Head,
            is_idempotent: request.method.is_idempotent(),
            bound: forwarding::binds_connection(request.fields),
            rules,
            timeouts,
            patience: watch.patience(),
            gathered: Gathered::default(),
            until_end: None,
        })
    }

    /// Keeps the time until all is over.
    pub(super) fn measure(&mut self, until_end: Option<UntilEnd>) {
        self.until_end = until_end;
    }

    /// Keeps no deadline until [`Flow::watch`]: whoever polls it keeps one.
    pub fn leave_watch(&mut self) {
        if let Clock::Ledger(ledger) = &self.patience.clock {
            self.patience.clock = Clock::Elsewhere(Rc::clone(ledger));
        }
    }

    /// Keeps deadlines from now on, of which so many milliseconds have passed.
    pub fn watch(&mut self, waited_ms: u64) {
        if let Clock::Elsewhere(ledger) = &self.patience.clock {
            let clock = Clock::Ledger(Rc::clone(ledger));
            self.patience = Patience { clock, waiting_ms: 0, waited_ms };
        }
    }

    /// Waits for [`Flow::poll_answer`].
    ///
    /// # Errors
    /// As [`Flow::poll_answer`].
    pub async fn answer(self, interim: &InterimSender) -> Result<Answered, Failed> {
        let mut flow = Some(self);
        poll_fn(|cx| Flow::poll_answer(&mut flow, cx, || interim.clone(), &mut Fields::new())).await
    }

    /// The answer to the exchange in `flow`, which is taken out when there is one or none will come: its final
    /// head, and its content as far as it is here. Interim responses are passed on to whom `interim` names.
    /// `memory` is used for the fields.
    ///
    /// # Errors
    /// Any failure before anything of the response was handed out.
    pub fn poll_answer(
        flow: &mut Option<Flow>,
        cx: &mut Context<'_>,
        mut interim: impl FnMut() -> InterimSender,
        memory: &mut Fields,
    ) -> Poll<Result<Answered, Failed>> {
        let found = loop {
            let Some(flow) = flow.as_mut() else { break Ok(Found::End(None)) };
            match ready!(flow.poll(cx)) {
                Ok(Found::Interim) => flow.pass_interim(&mut interim),
                found => break found,
            }
        };
        if let (Ok(Found::Head | Found::Switched), Some(until_end)) =
            (&found, flow.as_ref().and_then(|flow| flow.until_end.as_ref()))
        {
            until_end.head();
        }
        let Some(mut flow) = flow.take() else {
            let failure = Failure::new(Phase::Prepare, Cause::Closed).into();
            return Poll::Ready(Err(Failed { failure, upload: None }));
        };
        Poll::Ready(match found {
            Ok(Found::Head) => {
                flow.head_seen = true;
                let is_idempotent = flow.is_idempotent;
                flow.respond(cx, memory).map_err(|mut failure| {
                    // Nothing of it reached the client, so repeating is as safe as the method.
                    if is_idempotent {
                        failure.retry = RetrySafety::Idempotent;
                    }
                    Failed { failure: failure.into(), upload: None }
                })
            }
            Ok(Found::Switched) => flow.switched(),
            Ok(_) => Err(flow.failed(Failure::new(Phase::Head, Cause::Closed))),
            Err(failure) => Err(flow.failed(failure)),
        })
    }

    fn failed(self, failure: Failure) -> Failed {
        let upload = self.upload.filter(|upload| !self.touched && matches!(upload, Upload::Pipe(_)));
        Failed { failure: failure.into(), upload }
    }

    /// 9110-15.2-04. A 100 is not passed on as such: it lets us read the content, and reading it makes our own
    /// connection say 100 to the client.
    fn pass_interim(&mut self, interim: &mut impl FnMut() -> InterimSender) {
        let head = self.connection.head_mut();
        if head.status == Status::CONTINUE {
            return;
        }
        let (status, version) = (head.status, head.version);
        let mut fields = std::mem::take(&mut head.fields);
        if forwarding::response(version, status, &mut fields, &self.rules).is_ok() {
            interim().send(status, fields);
        }
    }

    fn respond(mut self, cx: &mut Context<'_>, memory: &mut Fields) -> Result<Answered, Failure> {
        let described =
            self.is_head.then(|| length_for_get(self.connection.head(), self.connection.machine().config()));
        let head = self.connection.head_mut();
        let (status, version, framing) = (head.status, head.version, head.framing);
        let mut fields = std::mem::replace(&mut head.fields, std::mem::take(memory));
        forwarding::response(version, status, &mut fields, &self.rules)
            .map_err(|refusal| Failure::new(Phase::Head, Cause::Malformed(refusal.to_string())))?;
        self.bound |= forwarding::binds_connection(&fields);
        self.stop_unwanted_upload(status);
        if !self.connection.is_receiving_content() {
            let content = match described {
                Some(length) => Incoming::Described(length),
                None if status.never_has_content() => Incoming::Empty,
                None => Incoming::Whole(Bytes::new()),
            };
            self.finish();
            return Ok(Answered { version, status, fields, content });
        }
        let content = self.gather(cx, framing)?;
        Ok(Answered { version, status, fields, content })
    }

    /// The final head came before the content was sent: a refusal needs none of it, nor does a server that closes
    /// (9112-9.5-06). Otherwise sending goes on beside the response (9110-7.5-01).
    fn stop_unwanted_upload(&mut self, status: Status) {
        let stop = match self.connection.machine().early_response() {
            Some(Early::Stop) => true,
            Some(Early::MayFinish) => status.code() >= 400,
            None => false,
        };
        if stop {
            self.connection.abandon();
            self.upload = None;
            self.rest = Bytes::new();
        }
    }

    /// Takes what is there. If that is all, it is the content; else a task pumps the rest.
    fn gather(mut self, cx: &mut Context<'_>, framing: Framing) -> Result<Incoming, Failure> {
        let length = framing.content_length();
        if length.is_some_and(|length| length > GATHERED_BYTES_MAX as u64) {
            return Ok(self.flowing(length));
        }
        loop {
            match self.poll(cx) {
                Poll::Ready(Ok(Found::Data)) => self.gathered.push(self.connection.content()),
                Poll::Ready(Ok(Found::End(trailers))) => {
                    let trailers = self.sift(trailers);
                    let mut content = self.gathered.take();
                    self.finish();
                    return Ok(match trailers {
                        None => Incoming::Whole(content),
                        Some(trailers) => {
                            // Trailers need the chunked coding, and so a pipe, which holds it all already.
                            let (mut writer, reader) = pipe(GATHERED_BYTES_MAX * 2);
                            let _ = writer.push(&mut content);
                            writer.complete(Some(Box::new(trailers)));
                            Incoming::Pipe(reader, None)
                        }
                    });
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(failure)) => return Err(failure),
                Poll::Pending => return Ok(self.flowing(length)),
            }
            if self.gathered.len() > GATHERED_BYTES_MAX {
                return Ok(self.flowing(length));
            }
        }
    }

    fn sift(&self, trailers: Option<Fields>) -> Option<Fields> {
        let mut trailers = trailers?;
        forwarding::trailers(&mut trailers, &self.rules);
        (!trailers.is_empty()).then_some(trailers)
    }

    /// The response is complete: the connection rests, unless the request is not.
    fn finish(mut self) {
        if self.upload.is_some() || self.connection.machine().is_sending() {
            // The response did not need the rest of the content (9112-9.3-03); nobody sends it for nothing.
            self.connection.abandon();
        }
        drop(self.lease.take());
        if !self.bound {
            self.connection.release();
        }
    }

    fn switched(mut self) -> Result<Answered, Failed> {
        let head = self.connection.head_mut();
        let (status, version) = (head.status, head.version);
        let mut fields = std::mem::take(&mut head.fields);
        if let Err(refusal) = forwarding::response(version, status, &mut fields, &self.rules) {
            let failure = Failure::new(Phase::Head, Cause::Malformed(refusal.to_string()));
            return Err(self.failed(failure));
        }
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
        if let Some(lease) = self.lease.take() {
            held.push(Box::new(lease));
        }
        if let Some(permit) = self.connection.take_permit() {
            held.push(Box::new(permit));
        }
        match self.connection.into_connection() {
            Some(connection) => {
                let content = Incoming::Switched(Box::new(connection), held);
                Ok(Answered { version, status, fields, content })
            }
            None => Err(Failed { failure: Failure::new(Phase::Head, Cause::Closed).into(), upload: None }),
        }
    }

    fn flowing(mut self, length: Option<u64>) -> Incoming {
        // It may take its time now.
        self.watch(0);
        if length.is_none_or(|length| length > FLOWING_READ_BYTES as u64) {
            self.connection.set_read_bytes(FLOWING_READ_BYTES);
        }
        Incoming::Flow(
            Box::new(Flowing { lent: Lent::First(self.gathered.take()), flow: Some(self) }),
            length,
        )
    }

    async fn pump(mut self, writer: PipeWriter<Option<Box<Fields>>>, mut rest: Bytes) {
        let mut writer = writer;
        let end = poll_fn(|cx| self.poll_pump(cx, &mut writer, &mut rest)).await;
        match end {
            End::Complete(trailers) => {
                writer.complete(self.sift(trailers).map(Box::new));
                self.end();
            }
            // Dropping the connection tells the server; nothing of it can be used again (fault R31).
            End::ReaderGone => {}
            End::Failed(failure) => {
                tracing::debug!(%failure, "a response was cut short");
                writer.abort(reason(&failure.cause));
            }
        }
    }

    /// Moves content both ways until the response has ended one way or the other. Nothing is read before what was read
    /// has found room.
    fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut PipeWriter<Option<Box<Fields>>>,
        rest: &mut Bytes,
    ) -> Poll<End> {
        loop {
            // Seen at once, also while the server is silent.
            if writer.poll_reader_gone(cx).is_ready() {
                return Poll::Ready(End::ReaderGone);
            }
            if !rest.is_empty() {
                match writer.push(rest) {
                    Err(_) => return Poll::Ready(End::ReaderGone),
                    Ok(0) => {
                        // The client is slow: no deadline of the server's runs. Its upload goes on.
                        if let Err(failure) = self.poll_upload(cx) {
                            return Poll::Ready(End::Failed(failure));
                        }
                        return if writer.poll_ready(cx).is_pending() { Poll::Pending } else { continue };
                    }
                    Ok(_) => continue,
                }
            }
            if writer.poll_ready(cx).is_pending() {
                return match self.poll_upload(cx) {
                    Err(failure) => Poll::Ready(End::Failed(failure)),
                    Ok(_) => Poll::Pending,
                };
            }
            match self.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Found::Data)) => *rest = Bytes::copy_from_slice(self.connection.content()),
                Poll::Ready(Ok(Found::End(trailers))) => return Poll::Ready(End::Complete(trailers)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(End::Failed(failure)),
            }
        }
    }

    /// The response is complete. The client may still be sending what the server reads.
    fn end(mut self) {
        if self.upload.is_none() {
            return self.finish();
        }
        tokio::task::spawn_local(async move {
            if poll_fn(|cx| self.poll_rest_of_upload(cx)).await.is_ok() {
                self.finish();
            }
        });
    }

    fn poll_rest_of_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self.poll_upload(cx) {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(failure) => Poll::Ready(Err(failure)),
            Ok(Poll::Pending) => {
                let waiting = self.timeouts.idle_timeout_ms;
                self.patience.poll(cx, waiting).map(|()| Err(self.connection.timed_out(waiting)))
            }
        }
    }

    /// Moves the request's content, then looks for what the server sent, then at the clock.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found, Failure>> {
        let sent = if self.upload.is_none() && self.connection.is_flushed() {
            Poll::Ready(())
        } else {
            let written = self.connection.written();
            let sent = self.poll_upload(cx)?;
            if self.connection.written() != written {
                self.patience.waiting_ms = 0;
            }
            sent
        };
        match self.connection.poll_receive(cx) {
            Poll::Ready(Ok(event)) => {
                let found = match event {
                    Event::Interim => Found::Interim,
                    Event::Head => Found::Head,
                    Event::Data(_) => Found::Data,
                    Event::End(trailers) => Found::End(trailers),
                    Event::Switched => Found::Switched,
                    Event::Closed => {
                        let failure = self.closed();
                        return Poll::Ready(Err(failure));
                    }
                };
                self.patience.waiting_ms = 0;
                return Poll::Ready(Ok(found));
            }
            Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
            Poll::Pending => {}
        }
        let idle = self.head_seen || sent.is_pending();
        let waiting = match (self.holds_content, idle) {
            (true, _) => self.timeouts.continue_timeout_ms,
            (false, true) => self.timeouts.idle_timeout_ms,
            (false, false) => self.timeouts.head_timeout_ms,
        };
        match self.patience.poll(cx, waiting) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if self.holds_content => {
                // The server may not know 100 (9110-10.1.1-05): the content goes out now.
                self.holds_content = false;
                self.poll(cx)
            }
            Poll::Ready(()) => Poll::Ready(Err(self.connection.timed_out(waiting))),
        }
    }

    fn closed(&self) -> Failure {
        let retry = match self.connection.retry(0) {
            Retry::NotSent => RetrySafety::NotSent,
            Retry::Idempotent => RetrySafety::Idempotent,
            Retry::NotIdempotent => RetrySafety::MayHaveBeenProcessed,
            Retry::Answered => RetrySafety::Never,
        };
        let phase = if self.head_seen { Phase::Content } else { Phase::Head };
        Failure::new(phase, Cause::Closed).retry(retry).at(self.connection.host(), self.connection.address())
    }

    /// Moves the request's content until it or the server has to wait. Ready when all is sent.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        loop {
            if self.connection.poll_flush(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.connection.is_write_broken() {
                self.upload = None;
            }
            if self.upload.is_none() {
                return Ok(Poll::Ready(()));
            }
            self.holds_content &= self.connection.machine().awaits_continue();
            if self.holds_content {
                return Ok(Poll::Pending);
            }
            if self.poll_push(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }

    /// Queues the next piece of content, or its end.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        let mut trailers = None;
        let more = match &mut self.upload {
            None | Some(Upload::None) => false,
            Some(Upload::Whole(bytes, with)) => {
                self.at += self.connection.push_content(&bytes[self.at..])?;
                trailers = with.as_deref().cloned();
                self.at < bytes.len()
            }
            Some(Upload::Pipe(reader)) => {
                self.touched = true;
                let mut open = true;
                if self.rest.is_empty() {
                    match reader.poll_next(cx) {
                        Poll::Pending => return Ok(Poll::Pending),
                        Poll::Ready(Next::Data(data)) => self.rest = data,
                        Poll::Ready(Next::Complete(with)) => {
                            (trailers, open) = (with.map(|with| *with), false)
                        }
                        Poll::Ready(Next::Aborted(reason)) => {
                            // The server must not take what it got for the whole (invariant 9).
                            self.connection.abandon();
                            return Err(Failure::new(Phase::Send, Cause::Unusable(reason.to_string())));
                        }
                    }
                }
                let taken = self.connection.push_content(&self.rest)?;
                let _ = self.rest.split_to(taken);
                open
            }
        };
        if !more {
            if let Some(trailers) = &mut trailers {
                forwarding::trailers(trailers, &self.rules);
            }
            self.connection.finish(trailers.as_ref().filter(|trailers| !trailers.is_empty()))?;
            self.upload = None;
        }
        Ok(Poll::Ready(()))
    }
}

/// The rest of a response: read from its server when what was read before is gone, and lent to whoever sends it, out of
/// the buffer it was read into.
pub struct Flowing {
    flow: Option<Flow>,
    lent: Lent,
}

/// Content that waits.
enum Lent {
    /// What was here with the head, before it was asked for.
    First(Bytes),
    /// The same, once it was.
    Gathered(Bytes),
    /// In the connection's buffer, behind so many octets that are gone.
    Received(usize),
}

/// What comes next of a response that flows.
pub enum Flowed {
    /// Content: see [`Flowing::lent`].
    Data,
    /// It is complete.
    Complete(Option<Box<Fields>>),
    /// It is not, and never will be.
    Aborted(Reason),
}

impl Flowing {
    /// Content that is here.
    pub fn lent(&self) -> &[u8] {
        match (&self.lent, &self.flow) {
            (Lent::Gathered(bytes), _) => bytes,
            (Lent::Received(gone), Some(flow)) => &flow.connection.content()[*gone..],
            (Lent::Received(_), None) | (Lent::First(_), _) => &[],
        }
    }

    /// So many octets of it are gone.
    pub fn advance(&mut self, count: usize) {
        match &mut self.lent {
            Lent::Gathered(bytes) => drop(bytes.split_to(count)),
            Lent::Received(gone) => *gone += count,
            Lent::First(_) => {}
        }
    }

    /// What comes next. To be asked when nothing is lent; moves the request's content, too.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Flowed> {
        if let Lent::First(first) = &mut self.lent
            && !first.is_empty()
        {
            self.lent = Lent::Gathered(std::mem::take(first));
            return Poll::Ready(Flowed::Data);
        }
        loop {
            let Some(flow) = &mut self.flow else {
                return Poll::Ready(Flowed::Aborted(Reason::AlreadyEnded));
            };
            let found = ready!(flow.poll(cx));
            self.lent = Lent::Received(0);
            let ended = match found {
                Ok(Found::Data) => return Poll::Ready(Flowed::Data),
                Ok(Found::End(trailers)) => Ok(trailers),
                Ok(_) => continue,
                Err(failure) => Err(failure),
            };
            let Some(flow) = self.flow.take() else { continue };
            return Poll::Ready(match ended {
                Ok(trailers) => {
                    let trailers = flow.sift(trailers);
                    flow.end();
                    Flowed::Complete(trailers.map(Box::new))
                }
                Err(failure) => {
                    tracing::debug!(%failure, "a response was cut short");
                    Flowed::Aborted(reason(&failure.cause))
                }
            });
        }
    }

    /// Moves the request's content while the client does not take the response's: no deadline of the server's runs.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let Some(flow) = &mut self.flow {
            // A failure is found again when the response goes on.
            let _ = flow.poll_upload(cx);
        }
    }

    /// The same content through a pipe, which a task fills.
    pub fn into_pipe(self) -> PipeReader<Option<Box<Fields>>> {
        let first = match self.lent {
            Lent::First(first) | Lent::Gathered(first) => first,
            Lent::Received(_) => Bytes::copy_from_slice(self.lent()),
        };
        let (writer, reader) = pipe(PIPE_BYTES + first.len());
        if let Some(flow) = self.flow {
            tokio::task::spawn_local(flow.pump(writer, first));
        }
        reader
    }
}

/// How the pumping of a response ended.
enum End {
    Complete(Option<Fields>),
    ReaderGone,
    Failed(Failure),
}

/// Pieces that become one; the only piece is copied once.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    more: Vec<u8>,
}

impl Gathered {
    fn len(&self) -> usize {
        if self.more.is_empty() { self.first.len() } else { self.more.len() }
    }

    fn push(&mut self, data: &[u8]) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = Bytes::copy_from_slice(data);
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(data);
    }

    fn take(&mut self) -> Bytes {
        if self.more.is_empty() {
            std::mem::take(&mut self.first)
        } else {
            Bytes::from(std::mem::take(&mut self.more))
        }
    }
}

impl Patience {
    /// Ready when nothing has moved for `waiting_ms`.
    fn poll(&mut self, cx: &mut Context<'_>, waiting_ms: u64) -> Poll<()> {
        if let Clock::Ledger(ledger) = &self.clock
            && let Ok(slot) = ledger.enter(None)
        {
            // There is always room in it.
            self.clock = Clock::Slot(slot);
        }
        let Clock::Slot(slot) = &self.clock else { return Poll::Pending };
        if self.waiting_ms != waiting_ms {
            self.waiting_ms = waiting_ms;
            let waited_ms = std::mem::take(&mut self.waited_ms);
            slot.begin(Waiting::Handling, waiting_ms.saturating_sub(waited_ms));
        }
        slot.poll_verdict(cx).map(|_| ())
    }
}

/// The length that a response to HEAD says GET would have.
fn length_for_get(head: &ResponseHead, config: &eleven_messaging::Config) -> Option<u64> {
    let framing = eleven_messaging::framing::response(
        &Method::Get,
        head.version,
        head.status,
        &head.fields,
        &config.options,
    );
    match framing {
        Ok(Framing::Length(length)) => Some(length),
        _ => None,
    }
}

fn reason(cause: &Cause) -> Reason {
    match cause {
        Cause::Timeout(_) => Reason::TimedOut,
        Cause::Malformed(_) => Reason::Malformed,
        Cause::Closed | Cause::Short(..) => Reason::Truncated,
        _ => Reason::Broken,
    }
}
