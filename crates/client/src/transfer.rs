//! One exchange from beginning to end: sends the request while it listens for the response (9112-9.5-05), waits
//! for 100 within bounds, and keeps a deadline at every step. The common case on top of [`Connection`].
//!
//! Does not decide whether to try again, and knows neither redirections nor codings.

use crate::error::{Cause, Failure, Phase};
use crate::exchange::{Connection, Found};
use bytes::Bytes;
use eleven_messaging::ResponseHead;
use eleven_messaging::client::{Early, Request};
use eleven_net::clock;
use eleven_net::conduit::Conduit;
use eleven_net::pipe::{Next, PipeReader};
use eleven_semantics::Fields;
use std::future::poll_fn;
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The content of a request.
#[derive(Debug, Default)]
pub enum Content {
    /// None, and no word about it.
    #[default]
    None,
    /// Octets in memory.
    Bytes(Bytes),
    /// A file, from its start; its length was announced.
    File(std::fs::File, u64),
    /// Octets that come, and trailers behind them.
    Pipe(PipeReader<Option<Fields>>),
}

impl Content {
    /// Whether it can be sent again from its start.
    pub fn is_replayable(&self) -> bool {
        !matches!(self, Content::Pipe(_))
    }

    /// A second one like it; `None` for a pipe.
    pub fn again(&self) -> Option<Content> {
        match self {
            Content::None => Some(Content::None),
            Content::Bytes(bytes) => Some(Content::Bytes(bytes.clone())),
            Content::File(file, length) => Some(Content::File(file.try_clone().ok()?, *length)),
            Content::Pipe(_) => None,
        }
    }
}

/// How long each step may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From the request's last octet to the final head.
    pub head_timeout_ms: u64,
    /// Without any progress, in either direction.
    pub idle_timeout_ms: u64,
    /// For a 100 before content is sent anyway (RFC 9110 §10.1.1).
    pub continue_timeout_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { head_timeout_ms: 60_000, idle_timeout_ms: 60_000, continue_timeout_ms: 1_000 }
    }
}

/// One exchange on a connection, borrowed or owned.
pub struct Exchange<C> {
    connection: C,
    outgoing: Option<Outgoing>,
    deadlines: Deadlines,
    /// Made when first waited for: many an exchange is over before.
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the present wait ends in failure, and how long it was, in milliseconds.
    until: Instant,
    waiting_ms: u64,
    /// When a 100 is no longer waited for.
    continue_until: Option<Instant>,
    /// Something was sent or received since the wait began.
    moved: bool,
    complete: bool,
    trailers: Option<Fields>,
}

/// Content on its way out.
struct Outgoing {
    content: Content,
    at: u64,
    /// What a pipe gave and the queue had no room for.
    rest: Bytes,
}

/// Octets of a file read at a time for sending.
const FILE_READ_BYTES: usize = 32 * 1024;

impl<C: DerefMut<Target = Connection>> Exchange<C> {
    /// Begins an exchange: queues the head of `request`; `content` must suit its length.
    ///
    /// # Errors
    /// If the request may not be sent now or here.
    pub fn begin(
        mut connection: C,
        request: &Request<'_>,
        content: Content,
        deadlines: Deadlines,
    ) -> Result<Exchange<C>, Failure> {
        let framing = connection.send(request)?;
        let now = clock::now();
        let continue_until = connection
            .machine()
            .awaits_continue()
            .then(|| clock::deadline(now, deadlines.continue_timeout_ms));
        Ok(Exchange {
            outgoing: framing.has_body().then(|| Outgoing { content, at: 0, rest: Bytes::new() }),
            connection,
            deadlines,
            sleep: None,
            until: now,
            waiting_ms: 0,
            continue_until,
            moved: true,
            complete: false,
            trailers: None,
        })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The same, to change how it reads.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Gives the connection back.
    pub fn into_connection(self) -> C {
        self.connection
    }

    /// Waits for the final head. Interim responses are handed to `interim` as they come.
    ///
    /// # Errors
    /// Any failure, with its retry safety.
    pub async fn head(&mut self, mut interim: impl FnMut(&ResponseHead)) -> Result<HeadKind, Failure> {
        loop {
            match poll_fn(|cx| self.poll_drive(cx)).await? {
                Found::Interim => interim(self.connection.head()),
                Found::Head => {
                    self.complete = !self.connection.is_receiving_content();
                    self.after_head();
                    return Ok(HeadKind::Final);
                }
                Found::Switched => {
                    self.complete = true;
                    return Ok(HeadKind::Switched);
                }
                Found::Closed | Found::Data(..) | Found::Decoded | Found::End(_) => {
                    return Err(self.connection.failure(Phase::Head, Cause::Closed));
                }
            }
        }
    }

    /// The final head came before the content was sent: a refusal needs none of it any more, and neither does a
    /// server that closes (9112-9.5-06). Otherwise sending goes on (9110-7.5-01).
    fn after_head(&mut self) {
        let refused = self.connection.head().status.code() >= 400;
        match self.connection.machine().early_response() {
            Some(Early::Stop) => {}
            Some(Early::MayFinish) if refused => {}
            _ => return,
        }
        self.connection.abandon();
        self.outgoing = None;
    }

    /// The next piece of content; `None` when the response is complete.
    ///
    /// # Errors
    /// Any failure.
    pub async fn data(&mut self) -> Result<Option<&[u8]>, Failure> {
        let found = poll_fn(|cx| self.poll_content(cx)).await?;
        Ok(found.and_then(|found| self.connection.lend(&found)))
    }

    /// As [`Exchange::data`], for whoever polls.
    ///
    /// # Errors
    /// Any failure.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Failure>> {
        let found = std::task::ready!(self.poll_content(cx))?;
        Poll::Ready(Ok(found.and_then(|found| self.connection.lend(&found))))
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Found>, Failure>> {
        while !self.complete {
            match std::task::ready!(self.poll_drive(cx))? {
                found @ (Found::Data(..) | Found::Decoded) => return Poll::Ready(Ok(Some(found))),
                Found::End(trailers) => {
                    self.complete = true;
                    self.trailers = trailers;
                }
                Found::Closed => {
                    return Poll::Ready(Err(self.connection.failure(Phase::Content, Cause::Closed)));
                }
                Found::Interim | Found::Head | Found::Switched => {}
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Octets of content that may go by [`Exchange::convey`] instead of [`Exchange::data`].
    pub fn conveyable(&self) -> Option<u64> {
        if self.outgoing.is_none() && !self.complete { self.connection.conveyable() } else { None }
    }

    /// Moves the next octets of content into an empty conduit, at most `max`; how many. Only of content that is
    /// [`Exchange::conveyable`].
    ///
    /// # Errors
    /// Any failure.
    pub async fn convey(&mut self, conduit: &mut Conduit, max: u64) -> Result<usize, Failure> {
        poll_fn(|cx| {
            if let Poll::Ready(result) = self.connection.poll_convey(cx, conduit, max) {
                self.moved = true;
                return Poll::Ready(result);
            }
            match self.poll_deadline(cx, true) {
                Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
                Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// The trailer section, once the response is complete.
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref()
    }

    /// Whether the response is complete.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Ends the sending half after the response is complete: whoever was answered needs no more content, and
    /// the connection ends if some was still to be sent.
    ///
    /// # Errors
    /// Any failure of sending.
    pub async fn settle(&mut self) -> Result<(), Failure> {
        if self.connection.machine().is_sending() {
            self.connection.abandon();
            self.outgoing = None;
        }
        if self.connection.is_flushed() { Ok(()) } else { self.connection.flush().await }
    }

    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found, Failure>> {
        let written = self.connection.written();
        let sent = self.poll_send(cx)?;
        if let Poll::Ready(result) = self.connection.poll_found(cx) {
            self.moved = true;
            return Poll::Ready(result);
        }
        self.moved |= self.connection.written() != written;
        self.poll_deadline(cx, sent.is_ready())
    }

    /// Moves content towards the peer until it or its source has to wait. Ready when all is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        loop {
            match self.connection.poll_flush(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Ok(Poll::Pending),
            }
            if self.connection.is_write_broken() {
                self.outgoing = None;
            }
            if self.outgoing.is_none() {
                return Ok(Poll::Ready(()));
            }
            if self.connection.machine().awaits_continue()
                && self.continue_until.is_some_and(|until| clock::now() < until)
            {
                return Ok(Poll::Pending);
            }
            self.continue_until = None;
            if self.poll_push(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }

    /// Queues the next piece of content, or the end.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        let Some(Outgoing { content, at, rest }) = &mut self.outgoing else { return Ok(Poll::Ready(())) };
        let mut trailers = None;
        let more = match content {
            Content::None => false,
            Content::Bytes(bytes) => {
                let left = bytes.get(*at as usize..).unwrap_or(&[]);
                *at += self.connection.push_content(left)? as u64;
                (*at as usize) < bytes.len()
            }
            Content::File(file, length) => {
                use std::os::unix::fs::FileExt;
                let mut buffer = [0; FILE_READ_BYTES];
                let want = (*length - *at).min(FILE_READ_BYTES as u64) as usize;
                let read = file.read_at(&mut buffer[..want], *at);
                let read = read.map_err(|error| Failure::io(Phase::File, &error))?;
                *at += self.connection.push_content(&buffer[..read])? as u64;
                if read == 0 && *at < *length {
                    // It was promised longer: nobody may take this for the whole.
                    self.connection.abandon();
                    return Err(Failure::new(Phase::File, Cause::Short(*at, *length)));
                }
                *at < *length
            }
            Content::Pipe(pipe) => {
                let mut open = true;
                if rest.is_empty() {
                    match pipe.poll_next(cx) {
                        Poll::Pending => return Ok(Poll::Pending),
                        Poll::Ready(Next::Data(next)) => *rest = next,
                        Poll::Ready(Next::Complete(fields)) => (trailers, open) = (fields, false),
                        Poll::Ready(Next::Aborted(reason)) => {
                            self.connection.abandon();
                            return Err(Failure::new(Phase::Send, Cause::Unusable(reason.to_string())));
                        }
                    }
                }
                let taken = self.connection.push_content(rest)?;
                let _ = rest.split_to(taken);
                open
            }
        };
        self.moved = true;
        if !more {
            self.connection.finish(trailers.as_ref())?;
            self.outgoing = None;
        }
        Ok(Poll::Ready(()))
    }

    /// Sets the clock to what is waited for now, and fails when it rings.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, sent: bool) -> Poll<Result<Found, Failure>> {
        let content = self.connection.is_receiving_content() || !sent;
        let wanted = if content { self.deadlines.idle_timeout_ms } else { self.deadlines.head_timeout_ms };
        if self.moved || wanted != self.waiting_ms {
            // Progress since the wait began: it begins anew.
            self.moved = false;
            self.waiting_ms = wanted;
            self.until = clock::deadline(clock::now(), wanted);
        }
        let rings = self.continue_until.map_or(self.until, |until| until.min(self.until));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(rings)));
        if sleep.deadline() != rings {
            sleep.as_mut().reset(rings);
        }
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.until <= clock::now() {
            return Poll::Ready(Err(self.connection.timed_out(self.waiting_ms)));
        }
        // No 100 came: the server may not know it. Send anyway (RFC 9110 §10.1.1).
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Which head ended the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// A final response.
    Final,
    /// The switch to another protocol that the request asked for.
    Switched,
}

/// The pause before retry number `attempt` (from 0) of a request whose connection closed before any answer, by
/// RFC 2616 §8.2.4: T = R * 2^N, R the measured round trip, 5 s if unknown; at most a minute.
pub fn back_off(round_trip: Option<Duration>, attempt: u32) -> Duration {
    let r = round_trip.unwrap_or(Duration::from_secs(5));
    r.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests;
