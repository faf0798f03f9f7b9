//! Several requests on one connection without waiting for the answers (RFC 9112 §9.3.2): an option for many small
//! things from one origin over a long line. Only safe and idempotent requests without content, and only on a
//! connection that was seen to persist. What stays unanswered when the server closes early is given back to the
//! caller, who asks again without pipelining (9112-9.3.2-03, 9112-9.3.2-04).

use crate::error::{Cause, Failure, Phase};
use crate::exchange::{Connection, Found};
use crate::transfer::Deadlines;
use eleven_messaging::ResponseHead;
use eleven_messaging::client::Request;
use eleven_net::clock;
use eleven_semantics::Fields;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// Takes what comes, response by response, in the order of the requests.
pub trait Sink {
    /// The head of the final response to the request of this index.
    ///
    /// # Errors
    /// Ends the pipeline.
    fn head(&mut self, index: usize, head: &ResponseHead) -> Result<(), Failure>;
    /// Content of it.
    ///
    /// # Errors
    /// Ends the pipeline.
    fn data(&mut self, index: usize, octets: &[u8]) -> Result<(), Failure>;
    /// It is complete.
    ///
    /// # Errors
    /// Ends the pipeline.
    fn end(&mut self, index: usize, trailers: Option<&Fields>) -> Result<(), Failure>;
}

/// How a pipeline ended.
#[derive(Debug)]
pub struct Ended {
    /// Requests that were completely answered: the first so many.
    pub answered: usize,
    /// Why it ended before the last, if it did.
    pub failure: Option<Failure>,
}

/// Whether a connection may be used for pipelining: it has answered in HTTP/1.1, and stands open.
pub fn is_fit(connection: &Connection) -> bool {
    let (_, answered) = connection.machine().counts();
    answered > 0
        && connection.machine().peer_version() == Some(eleven_semantics::Version::Http11)
        && connection.is_reusable()
}

/// Sends `requests`, at most `depth` ahead of the answers. All of them must be safe and without content.
pub async fn run(
    connection: &mut Connection,
    requests: &[Request<'_>],
    depth: usize,
    deadlines: Deadlines,
    sink: &mut dyn Sink,
) -> Ended {
    let now = clock::now();
    let mut pipeline = Pipeline {
        connection,
        requests,
        depth: depth.max(1),
        next: 0,
        answered: 0,
        outstanding: VecDeque::new(),
        idle_timeout_ms: deadlines.head_timeout_ms.min(deadlines.idle_timeout_ms),
        sleep: Box::pin(tokio::time::sleep_until(clock::deadline(now, deadlines.head_timeout_ms))),
        moved: true,
    };
    let failure = pipeline.drive(sink).await.err();
    Ended { answered: pipeline.answered, failure }
}

struct Pipeline<'a, 'r> {
    connection: &'a mut Connection,
    requests: &'a [Request<'r>],
    depth: usize,
    next: usize,
    answered: usize,
    outstanding: VecDeque<usize>,
    idle_timeout_ms: u64,
    sleep: Pin<Box<Sleep>>,
    moved: bool,
}

impl Pipeline<'_, '_> {
    async fn drive(&mut self, sink: &mut dyn Sink) -> Result<(), Failure> {
        while self.answered < self.requests.len() {
            self.fill()?;
            let Some(&index) = self.outstanding.front() else {
                // The connection takes no more requests, and all that went out were answered.
                return Err(Failure::new(Phase::Send, Cause::Closed));
            };
            let found = poll_fn(|cx| self.poll_step(cx)).await?;
            match &found {
                Found::Interim => {}
                Found::Head => {
                    sink.head(index, self.connection.head())?;
                    if !self.connection.is_receiving_content() {
                        self.answer(index, None, sink)?;
                    }
                }
                Found::Data(..) | Found::Decoded => {
                    sink.data(index, self.connection.lend(&found).unwrap_or(&[]))?;
                }
                Found::End(trailers) => self.answer(index, trailers.as_ref(), sink)?,
                Found::Switched | Found::Closed => {
                    return Err(self.connection.failure(Phase::Head, Cause::Closed));
                }
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        index: usize,
        trailers: Option<&Fields>,
        sink: &mut dyn Sink,
    ) -> Result<(), Failure> {
        sink.end(index, trailers)?;
        self.outstanding.pop_front();
        self.answered += 1;
        Ok(())
    }

    /// Queues requests up to the depth, several at a time: one write for them. A connection that will close takes no
    /// more.
    fn fill(&mut self) -> Result<(), Failure> {
        if self.outstanding.len() > self.depth / 2 {
            return Ok(());
        }
        while self.outstanding.len() < self.depth
            && self.next < self.requests.len()
            && self.connection.machine().may_send().is_ok()
        {
            self.connection.send(&self.requests[self.next])?;
            self.outstanding.push_back(self.next);
            self.next += 1;
        }
        Ok(())
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Found, Failure>> {
        let written = self.connection.written();
        if let Poll::Ready(Err(failure)) = self.connection.poll_flush(cx) {
            return Poll::Ready(Err(failure));
        }
        if let Poll::Ready(result) = self.connection.poll_found(cx) {
            self.moved = true;
            return Poll::Ready(result);
        }
        if self.connection.written() != written || self.moved {
            self.moved = false;
            self.sleep.as_mut().reset(clock::deadline(clock::now(), self.idle_timeout_ms));
        }
        if self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(self.connection.timed_out(self.idle_timeout_ms)));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
