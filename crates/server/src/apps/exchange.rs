//! One request of an application, from the queue to the last octet of its response: waits for what the worker
//! sends, makes a response of it, and keeps content for slow clients so that the worker need not wait for them.
//!
//! What an application does wrong is decided here: a head that cannot be sent, too little or too much content, no
//! answer at all. Each gets its status and one log line.

use super::content::{Piece, Pieces, Source, feed};
use super::pool::Refused;
use super::protocol::{self, AppHead, BadHead, CONTINUED, END, FrameHead, FrameKind, PieceKind, Ticket};
use super::receiver::{Event, Inbox, Receiver};
use super::settings::AppSettings;
use super::websocket;
use crate::response::{Content, FileRange, InterimSender, Response};
use crate::spool::Spool;
use bytes::Bytes;
use eleven_net::pipe::{PipeWriter, Reason, pipe};
use eleven_semantics::{Fields, Known, Status};
use std::fs::File;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Content between the exchange and the session.
const PIPE_BYTES: usize = 65_536;
/// Read from a file at a time, where the kernel cannot send it.
const FILE_READ_BYTES: usize = 65_536;
/// What a client whose request found no worker should wait.
const RETRY_AFTER_S: &str = "1";
/// A WebSocket message of the application is at most this long.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Ends a task when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the exchange is about, beside the request itself.
pub(super) struct About {
    pub settings: Arc<AppSettings>,
    pub is_head: bool,
    /// The key of a WebSocket handshake.
    pub websocket: Option<Vec<u8>>,
    /// For the log.
    pub name: String,
    pub interim: InterimSender,
}

/// A request that a worker has or will have.
pub(super) struct Exchange {
    receiver: Rc<Receiver>,
    ticket: Ticket,
    inbox: Rc<Inbox>,
    about: About,
    source: Option<Source>,
    pieces: Option<Pieces>,
    /// A piece of the response that came before the frame that announces it.
    early: Option<Piece>,
    feeder: Option<Task>,
    complete: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.receiver.close(self.ticket, &self.inbox, self.complete);
    }
}

enum Input {
    Event(Event),
    Piece(Piece),
}

impl Exchange {
    pub(super) fn new(
        receiver: Rc<Receiver>,
        ticket: Ticket,
        inbox: Rc<Inbox>,
        about: About,
        source: Option<Source>,
    ) -> Exchange {
        Exchange {
            receiver,
            ticket,
            inbox,
            about,
            source,
            pieces: None,
            early: None,
            feeder: None,
            complete: false,
        }
    }

    /// The response of a request that was refused or lost.
    fn refuse(&mut self, status: Status) -> Response {
        self.complete = true;
        let mut response = Response::new(status);
        if status == Status::SERVICE_UNAVAILABLE {
            response.add(Known::RetryAfter, RETRY_AFTER_S);
        }
        response
    }

    /// Answers a request whose head is too large for a message.
    pub(super) fn refused_as_too_large(mut self) -> Response {
        tracing::warn!(
            request = self.about.name,
            "target and fields are too large for the application (431)"
        );
        self.inbox.done.set(true);
        self.refuse(Status::REQUEST_HEADER_FIELDS_TOO_LARGE)
    }

    /// An event, or a piece that may be handled before the response begins.
    fn poll_input(&mut self, cx: &mut Context<'_>, pieces_wanted: bool) -> Poll<Input> {
        if let Poll::Ready(event) = self.inbox.poll(cx) {
            return Poll::Ready(Input::Event(event));
        }
        loop {
            if pieces_wanted && let Some(piece) = self.early.take() {
                return Poll::Ready(Input::Piece(piece));
            }
            if self.early.is_some() {
                return Poll::Pending;
            }
            let Some(pieces) = &mut self.pieces else { return Poll::Pending };
            match pieces.poll_next(cx) {
                Poll::Ready(piece) if piece.kind == PieceKind::Read => self.start_feeding(),
                Poll::Ready(piece) => self.early = Some(piece),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The application asks for content: only now is the pipe read, and the client told to continue.
    fn start_feeding(&mut self) {
        if let (Some(pieces), Some(source)) = (&self.pieces, self.source.take()) {
            self.feeder = Some(Task(tokio::task::spawn_local(feed(pieces.stream(), source))));
        }
    }

    fn connected(&mut self, stream: tokio::net::UnixStream) {
        let bytes_max =
            if self.about.websocket.is_some() { MESSAGE_BYTES_MAX } else { protocol::PIECE_BYTES_MAX };
        self.pieces = Some(Pieces::new(stream, bytes_max));
    }

    /// Waits for the response.
    pub(super) async fn respond(mut self) -> Response {
        loop {
            let Input::Event(event) = poll_fn(|cx| self.poll_input(cx, false)).await else { continue };
            match event {
                Event::Frame(frame, payload) => match frame.kind {
                    FrameKind::Hints => self.hint(&frame, &payload),
                    FrameKind::Response => return self.response(frame, payload).await,
                    FrameKind::Failed => return self.failed(&payload),
                    // Content without a head: of a request that went wrong here before.
                    _ => {}
                },
                Event::Content(stream) => self.connected(stream),
                Event::Expired => {
                    tracing::warn!(request = self.about.name, "no worker was free in time (503)");
                    return self.refuse(Status::SERVICE_UNAVAILABLE);
                }
                Event::Refused(why) => {
                    let why = match why {
                        Refused::Full => "the queue before the workers is full",
                        Refused::Closed => "the application is being stopped",
                    };
                    tracing::warn!(request = self.about.name, "{why} (503)");
                    return self.refuse(Status::SERVICE_UNAVAILABLE);
                }
                Event::Crashed => {
                    tracing::error!(request = self.about.name, "the worker died before it answered (502)");
                    return self.refuse(Status::BAD_GATEWAY);
                }
                Event::TimedOut => {
                    tracing::error!(
                        request = self.about.name,
                        "the application did not answer in time (504)"
                    );
                    return self.refuse(Status::GATEWAY_TIMEOUT);
                }
            }
        }
    }

    fn hint(&self, frame: &FrameHead, payload: &[u8]) {
        match protocol::app_head(&payload[..frame.head], frame.fields) {
            Ok(head) => self.about.interim.send(Status::EARLY_HINTS, head.fields),
            Err(error) => tracing::error!(request = self.about.name, %error, "an early hint was not sent"),
        }
    }

    /// The application raised before its head.
    fn failed(&mut self, traceback: &[u8]) -> Response {
        let response = self.refuse(Status::INTERNAL_SERVER_ERROR);
        if self.about.settings.development && !traceback.is_empty() {
            return super::traceback_page(&String::from_utf8_lossy(traceback));
        }
        response
    }

    fn unusable(&mut self, why: &str) -> Response {
        tracing::error!(request = self.about.name, "the application's response cannot be sent (500): {why}");
        if self.about.settings.development {
            self.complete = true;
            return super::traceback_page(why);
        }
        self.refuse(Status::INTERNAL_SERVER_ERROR)
    }

    async fn response(mut self, frame: FrameHead, payload: Bytes) -> Response {
        let head = match protocol::app_head(&payload[..frame.head], frame.fields) {
            Ok(head) => head,
            Err(error) => return self.bad_head(&error),
        };
        let content = payload.slice(frame.head..);
        if head.status == Status::SWITCHING_PROTOCOLS && self.about.websocket.is_some() {
            return self.switch(head).await;
        }
        if head.status.is_interim() {
            return self.unusable(&format!("{} is no status of a final response", head.status));
        }
        if head.status.never_has_content() || self.about.is_head {
            // A list of no length may mean that the application left the content out for HEAD by itself.
            let length = head.content_length.or(frame.length.filter(|&length| length > 0));
            let kind = if self.about.is_head && !head.status.never_has_content() {
                Content::Described(length)
            } else {
                Content::Empty
            };
            self.complete = frame.flags & END != 0;
            return with(head, kind);
        }
        if frame.flags & END != 0 {
            self.complete = true;
            return match head.content_length {
                Some(declared) if declared != content.len() as u64 => self.unusable(&format!(
                    "Content-Length says {declared} octets, the application gave {}",
                    content.len()
                )),
                _ => with(head, Content::Bytes(content)),
            };
        }
        if frame.flags & CONTINUED == 0 && head.content_length == Some(content.len() as u64) {
            // All is here, although the application has not said so yet.
            self.complete = true;
            return with(head, Content::Bytes(content));
        }
        self.stream(head, frame, content).await
    }

    fn bad_head(&mut self, error: &BadHead) -> Response {
        self.unusable(&error.to_string())
    }

    /// A response whose content is still coming.
    async fn stream(mut self, head: AppHead, frame: FrameHead, first: Bytes) -> Response {
        let continued = frame.flags & CONTINUED != 0;
        let length = head.content_length.or(frame.length);
        if continued && let Some(range) = self.whole_file(&frame, length).await {
            self.complete = true;
            return with(head, Content::File(range));
        }
        let (writer, reader) = pipe(PIPE_BYTES);
        let spool =
            Spool::new(self.about.settings.spool_memory_bytes_max, &self.about.settings.runtime_directory);
        let pump = Pump {
            exchange: self,
            writer,
            spool,
            file: None,
            current: Bytes::new(),
            left: length,
            continued,
            end: None,
        };
        tokio::task::spawn_local(pump.run(first));
        with(head, Content::Pipe(reader, length))
    }

    /// The file, if the response is a file and nothing else: the kernel can send it.
    async fn whole_file(&mut self, frame: &FrameHead, length: Option<u64>) -> Option<FileRange> {
        let piece = self.piece().await?;
        let range = match (piece.kind, &piece.file, protocol::file_range(&piece.octets)) {
            // An empty piece comes before a file, from the event loop.
            (PieceKind::Data, ..) if piece.octets.is_empty() => {
                return Box::pin(self.whole_file(frame, length)).await;
            }
            (PieceKind::File, Some(_), Some(range)) => range,
            _ => {
                self.early = Some(piece);
                return None;
            }
        };
        if frame.length != Some(range.1) || length.is_some_and(|length| length > range.1) {
            self.early = Some(piece);
            return None;
        }
        let file = File::from(piece.file?);
        Some(FileRange { file: Rc::new(file), offset: range.0, length: length.unwrap_or(range.1) })
    }

    /// The next piece; `None` if something else happened, which is kept for later.
    async fn piece(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.early.take() {
                return Some(piece);
            }
            match poll_fn(|cx| self.poll_input(cx, true)).await {
                Input::Piece(piece) => return Some(piece),
                Input::Event(Event::Content(stream)) => self.connected(stream),
                Input::Event(Event::Crashed | Event::TimedOut | Event::Expired | Event::Refused(_)) => {
                    self.early = Some(Piece { kind: PieceKind::Abort, octets: Bytes::new(), file: None });
                    return None;
                }
                // END and DONE of a response whose content is on the other connection.
                Input::Event(Event::Frame(..)) => {}
            }
        }
    }

    /// A WebSocket was accepted.
    async fn switch(mut self, head: AppHead) -> Response {
        while self.pieces.is_none() {
            match poll_fn(|cx| self.inbox.poll(cx)).await {
                Event::Content(stream) => self.connected(stream),
                Event::Frame(frame, _) if frame.flags & protocol::DONE == 0 => {}
                _ => return self.refuse(Status::BAD_GATEWAY),
            }
        }
        let (Some(pieces), Some(key)) = (self.pieces.take(), self.about.websocket.take()) else {
            return self.refuse(Status::BAD_GATEWAY);
        };
        websocket::accept(head.fields, &key, pieces, self)
    }

    /// Waits until the worker is done with the request.
    pub(super) async fn ended(&mut self) {
        while !self.inbox.done.get() {
            if let Event::TimedOut = poll_fn(|cx| self.inbox.poll(cx)).await {
                return;
            }
        }
        self.complete = true;
    }
}

fn with(head: AppHead, content: Content) -> Response {
    let mut response = Response::new(head.status);
    response.fields = head.fields.into();
    response.content = content;
    response
}

/// Moves content from the worker to the session, keeping what the session does not take.
struct Pump {
    exchange: Exchange,
    writer: PipeWriter<Option<Box<Fields>>>,
    spool: Spool,
    /// A file among other content: descriptor, offset, octets left.
    file: Option<(File, u64, u64)>,
    current: Bytes,
    /// Octets still to come, if the length was told.
    left: Option<u64>,
    continued: bool,
    end: Option<Result<Option<Box<Fields>>, Reason>>,
}

enum Step {
    ReaderGone,
    Input(Input),
    Room,
}

impl Pump {
    async fn run(mut self, first: Bytes) {
        self.keep(first);
        loop {
            if self.current.is_empty() && !self.refill() {
                self.end = Some(Err(Reason::Storage));
            }
            if self.current.is_empty() && self.file.is_none() && self.end.is_some() {
                break;
            }
            match poll_fn(|cx| self.poll_step(cx)).await {
                // The client left: dropping all of this closes the connection to the worker.
                Step::ReaderGone => return,
                Step::Room => {
                    // Fails only if the reader has gone, which the next step tells.
                    let _ = self.writer.push(&mut self.current);
                }
                Step::Input(Input::Event(event)) => self.event(event),
                Step::Input(Input::Piece(piece)) => self.piece(piece),
            }
        }
        self.finish();
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.writer.poll_reader_gone(cx).is_ready() {
            return Poll::Ready(Step::ReaderGone);
        }
        if !self.current.is_empty() && self.writer.poll_ready(cx).is_ready() {
            return Poll::Ready(Step::Room);
        }
        let full = self.spool.len() >= self.exchange.about.settings.response_spool_bytes_max;
        if self.end.is_none() && self.file.is_none() && !full {
            return self.exchange.poll_input(cx, self.continued).map(Step::Input);
        }
        Poll::Pending
    }

    /// Takes the next octets to be sent. `false` if they cannot be read.
    fn refill(&mut self) -> bool {
        match self.spool.pop() {
            Ok(octets) => self.current = octets,
            Err(error) => {
                tracing::error!(%error, "content kept on disk cannot be read");
                return false;
            }
        }
        let Some((file, offset, left)) = &mut self.file else { return true };
        if !self.current.is_empty() {
            return true;
        }
        let mut octets = vec![0; FILE_READ_BYTES.min(usize::try_from(*left).unwrap_or(FILE_READ_BYTES))];
        match file.read_at(&mut octets, *offset) {
            Ok(count) => {
                octets.truncate(count);
                *offset += count as u64;
                *left -= count as u64;
                if *left == 0 || count == 0 {
                    self.file = None;
                }
                self.current = octets.into();
                true
            }
            Err(error) => {
                tracing::error!(%error, "the application's file cannot be read");
                self.file = None;
                false
            }
        }
    }

    /// Keeps content to be sent, but not more than was promised.
    fn keep(&mut self, mut octets: Bytes) {
        if let Some(left) = &mut self.left {
            if octets.len() as u64 > *left {
                tracing::error!(
                    request = self.exchange.about.name,
                    "the application gave more content than its Content-Length says; the rest is dropped"
                );
                octets.truncate(*left as usize);
                self.end = Some(Ok(None));
            }
            *left -= octets.len() as u64;
        }
        if let Err(error) = self.spool.push(octets) {
            tracing::error!(%error, "content for a slow client cannot be kept on disk");
            self.end = Some(Err(Reason::Storage));
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Content(stream) => self.exchange.connected(stream),
            Event::Crashed | Event::TimedOut | Event::Expired | Event::Refused(_) => {
                self.end = Some(Err(Reason::Broken))
            }
            Event::Frame(frame, payload) => {
                match frame.kind {
                    FrameKind::Content => self.keep(payload),
                    FrameKind::Trailers => {
                        self.end = Some(Ok(protocol::trailers(payload.split(|&b| b == 0).skip(1))));
                    }
                    _ => {}
                }
                if frame.flags & CONTINUED != 0 {
                    self.continued = true;
                }
                if frame.flags & protocol::ABORT != 0 {
                    self.end = Some(Err(Reason::Cancelled));
                } else if frame.flags & END != 0 && self.end.is_none() {
                    self.end = Some(Ok(None));
                }
            }
        }
    }

    fn piece(&mut self, piece: Piece) {
        match piece.kind {
            PieceKind::Data => self.keep(piece.octets),
            PieceKind::File => {
                let range = protocol::file_range(&piece.octets);
                if let (Some(file), Some((offset, length))) = (piece.file, range) {
                    let allowed = self.left.map_or(length, |left| left.min(length));
                    self.left = self.left.map(|left| left - allowed);
                    if allowed > 0 {
                        self.file = Some((File::from(file), offset, allowed));
                    }
                }
            }
            PieceKind::Trailers => {
                // END follows and must not take them away again.
                self.end = Some(Ok(protocol::trailers(piece.octets.split(|&b| b == 0))));
            }
            PieceKind::End => self.end = Some(Ok(None)),
            _ => self.end = Some(Err(Reason::Cancelled)),
        }
    }

    fn finish(mut self) {
        match self.end.take() {
            Some(Ok(_)) if self.left.is_some_and(|left| left > 0) => {
                tracing::error!(
                    request = self.exchange.about.name,
                    missing = self.left,
                    "the application gave less content than its Content-Length says"
                );
                self.exchange.complete = true;
                self.writer.abort(Reason::Truncated);
            }
            Some(Ok(trailers)) => {
                self.exchange.complete = true;
                self.writer.complete(trailers);
            }
            Some(Err(reason)) => self.writer.abort(reason),
            None => self.writer.abort(Reason::WriterGone),
        }
    }
}
