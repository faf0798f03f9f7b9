//! Where a stream and a client's connection machine meet: one connection, its buffers, and the exchanges on it.
//!
//! All pieces are poll functions without deadlines, for whoever moves content both ways at once (the proxy);
//! `transfer.rs` makes the common case of them. A small exchange costs one write and one read, and allocates
//! nothing: buffers and heads are reused. Decides neither whether to retry nor where to connect; a [`Failure`]
//! says what would be safe.

use crate::error::{Cause, Failure, Phase, RetrySafety};
use eleven_messaging::client::{Arrived, ClientConnection, KeepAlive, Request, Retry};
use eleven_messaging::{CloseReason, Config, Framing, Malformed, Persistence, ResponseHead};
use eleven_net::Stream;
use eleven_net::conduit::Conduit;
use eleven_net::stream::is_disconnect;
use eleven_semantics::Fields;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Octets read at a time where nothing else was asked for.
pub const READ_BYTES: usize = 16 * 1024;

/// Octets queued for sending at most; beyond it content waits where it is.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024;

/// A connection to a server or proxy.
pub struct Connection {
    stream: Stream,
    machine: ClientConnection,
    head: ResponseHead,
    /// Received and not yet taken: `input[start..end]`.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Content that a transfer coding was taken off, while it is lent.
    decoded: Vec<u8>,
    /// What is lent: octets of `input`, or `decoded`.
    lent: Lent,
    /// To be sent: `queue[sent..]`.
    queue: Vec<u8>,
    sent: usize,
    /// Octets written to the stream so far, and where each outstanding request began among them.
    written: u64,
    queued: u64,
    request_starts: VecDeque<u64>,
    ended: bool,
    /// The peer takes nothing more. Its response may still be readable.
    write_broken: bool,
    read_bytes: usize,
    address: Option<SocketAddr>,
    host: Arc<str>,
}

/// Where content that is lent stands.
#[derive(Debug, Clone, Copy)]
enum Lent {
    Input(usize, usize),
    Decoded,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// An interim response; its head is in [`Connection::head`] until the next call.
    Interim,
    /// The head of the final response is in [`Connection::head`]. Without a body the exchange is complete.
    Head,
    /// Content, as lent.
    Data(&'a [u8]),
    /// The response is complete, with its trailer section. Only for responses with a body.
    End(Option<Fields>),
    /// The server accepted the switch to another protocol; see [`Connection::into_tunnel`].
    Switched,
    /// The server closed in peace while no response was owed.
    Closed,
}

/// As [`Event`], without a borrow.
pub(crate) enum Found {
    Interim,
    Head,
    /// Content at `input[from..to]`.
    Data(usize, usize),
    Decoded,
    End(Option<Fields>),
    Switched,
    Closed,
}

impl Connection {
    /// A connection on a stream that is ready to use.
    pub fn new(
        stream: Stream,
        config: Arc<Config>,
        host: impl Into<Arc<str>>,
        address: Option<SocketAddr>,
    ) -> Connection {
        Connection {
            stream,
            machine: ClientConnection::new(config),
            head: ResponseHead::default(),
            input: Vec::new(),
            start: 0,
            end: 0,
            decoded: Vec::new(),
            lent: Lent::Input(0, 0),
            queue: Vec::new(),
            sent: 0,
            written: 0,
            queued: 0,
            request_starts: VecDeque::new(),
            ended: false,
            write_broken: false,
            read_bytes: READ_BYTES,
            address,
            host: host.into(),
        }
    }

    /// The head of the response that came last.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The same, to take its fields out. The next response needs none of it.
    pub fn head_mut(&mut self) -> &mut ResponseHead {
        &mut self.head
    }

    /// The machine, for what it knows: versions, counts, whether content waits for 100.
    pub fn machine(&self) -> &ClientConnection {
        &self.machine
    }

    /// The same, to tell it what is known of the server, or to stop.
    pub fn machine_mut(&mut self) -> &mut ClientConnection {
        &mut self.machine
    }

    /// The stream, for what it knows: addresses, TLS.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Who is at the other end.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Host and port as asked for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Octets read at a time. Large for downloads: a system call costs as much as 10 KiB copied.
    pub fn set_read_bytes(&mut self, read_bytes: usize) {
        self.read_bytes = read_bytes.max(1024);
    }

    /// Memory held, for accounting.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Connection>()
            + self.input.capacity()
            + self.queue.capacity()
            + self.decoded.capacity()
            + self.head.fields.memory_bytes()
            + self.stream.memory_bytes()
    }

    pub(crate) fn failure(&self, phase: Phase, cause: Cause) -> Failure {
        let any_sent = self.request_starts.front().is_none_or(|&start| self.written > start);
        let retry = match self.machine.retry(0, any_sent) {
            Retry::NotSent => RetrySafety::NotSent,
            Retry::Idempotent => RetrySafety::Idempotent,
            Retry::NotIdempotent => RetrySafety::MayHaveBeenProcessed,
            Retry::Answered => RetrySafety::Never,
        };
        Failure::new(phase, cause).retry(retry).at(&*self.host, self.address)
    }

    fn io_failure(&self, phase: Phase, error: &io::Error) -> Failure {
        let cause = Failure::io(phase, error).cause;
        self.failure(phase, cause)
    }

    /// Where the exchange stands, for naming a failure.
    fn phase(&self) -> Phase {
        if self.request_starts.front().is_some_and(|&start| self.written <= start) {
            Phase::Send
        } else if self.is_receiving_content() {
            Phase::Content
        } else {
            Phase::Head
        }
    }

    /// Whether an outstanding request could be sent again elsewhere; 0 is the oldest.
    pub fn retry(&self, index: usize) -> Retry {
        let any_sent = self.request_starts.get(index).is_none_or(|&start| self.written > start);
        self.machine.retry(index, any_sent)
    }

    /// A failure by a deadline of the caller's, with what is known here.
    pub fn timed_out(&self, milliseconds: u64) -> Failure {
        self.failure(self.phase(), Cause::Timeout(milliseconds))
    }

    // ---- sending ------------------------------------------------------------------------------------------

    /// Queues a request head. Nothing is written before [`Connection::poll_flush`].
    ///
    /// # Errors
    /// If the request may not be sent now or here; the connection is as it was.
    pub fn send(&mut self, request: &Request<'_>) -> Result<Framing, Failure> {
        let before = self.queue.len();
        let framing = self.machine.send(request, &mut self.queue).map_err(|misuse| {
            Failure::new(Phase::Send, Cause::Unusable(misuse.to_string()))
                .retry(RetrySafety::NotSent)
                .at(&*self.host, self.address)
        })?;
        self.request_starts.push_back(self.queued);
        self.queued += (self.queue.len() - before) as u64;
        Ok(framing)
    }

    /// Queues content, as much as there is room for; how much that was. Zero means: flush first.
    ///
    /// # Errors
    /// If there is no request body under way, or more content than was announced.
    pub fn push_content(&mut self, content: &[u8]) -> Result<usize, Failure> {
        if self.write_broken {
            return Ok(content.len()); // nobody reads it any more
        }
        let room = QUEUE_BYTES_MAX.saturating_sub(self.queue.len() - self.sent);
        let taken = content.len().min(room);
        if taken > 0 {
            self.compact_queue();
            let before = self.queue.len();
            let encoder = self.machine.body();
            let written = encoder.and_then(|encoder| encoder.write(&content[..taken], &mut self.queue));
            self.queued += (self.queue.len() - before) as u64;
            written.map_err(|misuse| self.failure(Phase::Send, Cause::Unusable(misuse.to_string())))?;
        }
        Ok(taken)
    }

    /// Queues the end of the content, with its trailer section.
    ///
    /// # Errors
    /// If the content was shorter than announced, or a trailer may be none; the request is then cut.
    pub fn finish(&mut self, trailers: Option<&Fields>) -> Result<(), Failure> {
        if self.write_broken {
            return Ok(());
        }
        let before = self.queue.len();
        let finished = self.machine.finish(trailers, &mut self.queue);
        self.queued += (self.queue.len() - before) as u64;
        finished.map_err(|misuse| self.failure(Phase::Send, Cause::Unusable(misuse.to_string())))
    }

    /// Stops sending the request before its end. The response may still be read; then the connection ends.
    pub fn abandon(&mut self) {
        self.machine.abandon();
    }

    fn compact_queue(&mut self) {
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
        }
    }

    /// What is queued and not yet written: a request head as it will go out, for showing.
    pub fn queued(&self) -> &[u8] {
        &self.queue[self.sent..]
    }

    /// Whether everything queued was written.
    pub fn is_flushed(&self) -> bool {
        self.sent == self.queue.len()
    }

    /// Writes what is queued. A peer that takes nothing more is no error here: it may have answered already
    /// (9112-9.5-05), and reading will tell.
    ///
    /// # Errors
    /// Other errors of the transport.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.sent < self.queue.len() {
            match self.stream.try_write(&self.queue[self.sent..]) {
                Ok(0) => self.break_write(),
                Ok(count) => {
                    self.sent += count;
                    self.written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = ready!(self.stream.poll_write_ready(cx)) {
                        return Poll::Ready(Err(self.io_failure(Phase::Send, &error)));
                    }
                }
                Err(error) if is_disconnect(&error) => self.break_write(),
                Err(error) => return Poll::Ready(Err(self.io_failure(Phase::Send, &error))),
            }
        }
        self.compact_queue();
        Poll::Ready(Ok(()))
    }

    fn break_write(&mut self) {
        self.write_broken = true;
        self.sent = self.queue.len();
        self.machine.abandon();
        self.machine.stop(CloseReason::Broken);
    }

    /// Waits for [`Connection::poll_flush`].
    ///
    /// # Errors
    /// As [`Connection::poll_flush`].
    pub async fn flush(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    // ---- receiving ----------------------------------------------------------------------------------------

    /// Whether the final head was received and its content is not yet complete.
    pub fn is_receiving_content(&self) -> bool {
        self.machine.is_receiving_content()
    }

    /// Waits for what comes next.
    ///
    /// # Errors
    /// If the server breaks the protocol or the connection; it must not be used after that.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event<'_>, Failure>> {
        let found = ready!(self.poll_found(cx))?;
        self.lent = match found {
            Found::Data(from, to) => Lent::Input(from, to),
            Found::Decoded => Lent::Decoded,
            _ => Lent::Input(0, 0),
        };
        Poll::Ready(Ok(match found {
            Found::Interim => Event::Interim,
            Found::Head => Event::Head,
            Found::Data(from, to) => Event::Data(&self.input[from..to]),
            Found::Decoded => Event::Data(&self.decoded),
            Found::End(trailers) => Event::End(trailers),
            Found::Switched => Event::Switched,
            Found::Closed => Event::Closed,
        }))
    }

    /// The content that the last [`Event::Data`] lent; empty after any other event.
    pub fn content(&self) -> &[u8] {
        match self.lent {
            Lent::Input(from, to) => &self.input[from..to],
            Lent::Decoded => &self.decoded,
        }
    }

    pub(crate) fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found, Failure>> {
        loop {
            // Also with nothing new: the end of a body is found behind its last octet.
            let idle = self.start == self.end && !self.ended && self.machine.awaits_octets();
            if !idle && let Some(found) = self.step()? {
                return Poll::Ready(Ok(found));
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// Takes what is in the buffer one step further; `None` if more is needed.
    fn step(&mut self) -> Result<Option<Found>, Failure> {
        let pending = self.machine.pending();
        let input = &self.input[self.start..self.end];
        let (taken, arrived) = match self.machine.receive(input, self.ended, &mut self.head) {
            Ok(result) => result,
            Err(malformed) => return Err(self.malformed(malformed)),
        };
        let base = self.input.as_ptr() as usize;
        let found = match arrived {
            Arrived::NeedMore => None,
            Arrived::Interim => Some(Found::Interim),
            Arrived::Head => Some(Found::Head),
            Arrived::Data(data) => {
                // Lent from `input`, so its place there is the difference of the addresses.
                let from = data.as_ptr() as usize - base;
                Some(Found::Data(from, from + data.len()))
            }
            Arrived::Decoded(data) => {
                self.decoded = data;
                Some(Found::Decoded)
            }
            Arrived::End(trailers) => Some(Found::End(trailers)),
            Arrived::Switched => Some(Found::Switched),
            Arrived::Tunnel | Arrived::Stopped | Arrived::Closed => Some(Found::Closed),
        };
        self.start += taken;
        if matches!(found, Some(Found::Closed)) && pending > 0 {
            let phase = self.phase();
            return Err(self.failure(phase, Cause::Closed));
        }
        if found.is_none() && self.ended {
            return Ok(Some(Found::Closed));
        }
        if self.machine.pending() < pending {
            self.request_starts.pop_front();
        }
        Ok(found)
    }

    fn malformed(&self, malformed: Malformed) -> Failure {
        let phase = self.phase();
        let cause = match malformed {
            // Cut by a close: the network's fault as likely as the server's.
            Malformed::HeadCut | Malformed::BodyCut => Cause::Closed,
            other => Cause::Malformed(other.to_string()),
        };
        Failure { broke: Some(malformed), ..self.failure(phase, cause) }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() && self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // Grows only with what was received, never by what was declared; the machine's limits bound it.
        if self.end == self.input.len() || self.input.len() < self.read_bytes {
            let length = self.read_bytes.max(if self.end == self.input.len() { self.end * 2 } else { 0 });
            self.input.resize(length, 0);
        }
        match ready!(self.stream.poll_read(cx, &mut self.input[self.end..])) {
            Ok(0) => self.ended = true,
            Ok(count) => self.end += count,
            // An end between messages is an end, announced or not; within one it is a failure
            // (9112-9.8-R1: a response delimited by it is complete only after a proper one).
            Err(error) if is_disconnect(&error) && self.machine.pending() == 0 => self.ended = true,
            Err(error) => {
                let phase = if self.write_broken { Phase::Send } else { self.phase() };
                return Poll::Ready(Err(self.io_failure(phase, &error)));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Octets of content that may go past this program's memory, by `Connection::poll_convey`: nothing of them was
    /// read yet, they end by their number, and they are on the wire what they are.
    pub fn conveyable(&self) -> Option<u64> {
        let plain = self.start == self.end && !self.ended && self.stream.socket().is_some();
        self.machine.passable_content().filter(|&left| plain && left > 0)
    }

    /// Moves content that is [`Connection::conveyable`] into an empty conduit, at most `max` octets; waits for the
    /// first.
    ///
    /// # Errors
    /// If the connection ends or breaks before.
    pub(crate) fn poll_convey(
        &mut self,
        cx: &mut Context<'_>,
        conduit: &mut Conduit,
        max: u64,
    ) -> Poll<Result<usize, Failure>> {
        let max = max.min(self.conveyable().unwrap_or(0)).min(1 << 30) as usize;
        loop {
            match conduit.try_fill(&self.stream, max) {
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(Err(self.failure(Phase::Content, Cause::Closed)));
                }
                Ok(count) => {
                    let passed = self.machine.pass_content(count as u64);
                    let passed = passed.map(|()| count);
                    return Poll::Ready(passed.map_err(|misuse| {
                        self.failure(Phase::Content, Cause::Unusable(misuse.to_string()))
                    }));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = ready!(self.stream.poll_read_ready(cx)) {
                        return Poll::Ready(Err(self.io_failure(Phase::Content, &error)));
                    }
                }
                Err(error) => return Poll::Ready(Err(self.io_failure(Phase::Content, &error))),
            }
        }
    }

    /// What a [`Found`] refers to.
    pub(crate) fn lend(&self, found: &Found) -> Option<&[u8]> {
        match found {
            Found::Data(from, to) => Some(&self.input[*from..*to]),
            Found::Decoded => Some(&self.decoded),
            _ => None,
        }
    }

    /// Octets written to the stream so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether the peer takes nothing more.
    pub fn is_write_broken(&self) -> bool {
        self.write_broken
    }

    /// Waits for what comes next. See [`Connection::poll_receive`].
    ///
    /// # Errors
    /// As [`Connection::poll_receive`].
    pub async fn receive(&mut self) -> Result<Event<'_>, Failure> {
        let found = poll_fn(|cx| self.poll_found(cx)).await?;
        Ok(match found {
            Found::Interim => Event::Interim,
            Found::Head => Event::Head,
            Found::Data(from, to) => Event::Data(&self.input[from..to]),
            Found::Decoded => Event::Data(&self.decoded),
            Found::End(trailers) => Event::End(trailers),
            Found::Switched => Event::Switched,
            Found::Closed => Event::Closed,
        })
    }

    // ---- between exchanges --------------------------------------------------------------------------------

    /// What becomes of the connection after the exchanges under way.
    pub fn persistence(&self) -> Persistence {
        self.machine.persistence()
    }

    /// What the server last promised of keeping it.
    pub fn keep_alive(&self) -> KeepAlive {
        self.machine.keep_alive()
    }

    /// Whether it stands at a proven message boundary in both directions, with nothing left over.
    pub fn is_reusable(&self) -> bool {
        !self.ended
            && !self.write_broken
            && self.is_flushed()
            && self.machine.is_reusable(self.end - self.start)
    }

    /// Whether an idle connection can be used again *now*: the server has neither closed it nor said anything
    /// unasked (9112-9.2-02b). Costs no system call unless something happened on it.
    pub fn is_alive(&mut self) -> bool {
        if !self.is_reusable() {
            return false;
        }
        if self.input.is_empty() {
            self.input.resize(self.read_bytes, 0);
        }
        (self.start, self.end) = (0, 0);
        match self.stream.try_read(&mut self.input) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Ok(count) if count > 0 => {
                self.end = count;
                // An empty line after a response is borne, anything else ends it.
                self.step().is_ok_and(|found| found.is_none()) && self.is_reusable()
            }
            _ => false,
        }
    }

    /// Gives back memory that a resting connection does not need.
    pub fn rest(&mut self) {
        self.read_bytes = READ_BYTES;
        self.lent = Lent::Input(0, 0);
        if self.input.len() > READ_BYTES {
            self.input = Vec::new();
        }
        if self.queue.capacity() > READ_BYTES {
            self.queue = Vec::new();
        }
        self.decoded = Vec::new();
    }

    /// The stream after a switch, and what of the other protocol was already read.
    pub fn into_tunnel(mut self) -> (Stream, Vec<u8>) {
        self.input.truncate(self.end);
        self.input.drain(..self.start);
        (self.stream, self.input)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection(to {} at {:?}, {:?})", self.host, self.address, self.persistence())
    }
}
