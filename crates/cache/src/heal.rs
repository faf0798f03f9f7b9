//! Content from disk that mends itself: when a block turns out to be bad in the middle of a response, the
//! stored response is dropped and the rest is asked for inbound, from the first octet that was not sent yet,
//! on condition that the representation is still the same one. If it is not, the response breaks off visibly;
//! wrong octets are never sent.

use crate::content::Reader;
use crate::reply::{Answer, Ask, Inbound, Source};
use crate::store::Store;
use crate::stored::Stored;
use eleven_net::clock;
use eleven_net::pipe::{Next, Reason};
use eleven_semantics::Known;
use eleven_semantics::caching::partial::{self, Part};
use eleven_semantics::date::HttpDate;
use eleven_semantics::range;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

type Asking<E> = Pin<Box<dyn Future<Output = Result<Answer, E>>>>;

enum State<E> {
    /// From disk.
    Reading(Reader),
    /// A block was bad; the rest was asked for, up to this position.
    Asking(Asking<E>, Arc<Stored>, u64, u64),
    /// From inbound; so many octets are still to come.
    Flowing(Box<dyn Source>, u64),
    /// Past help.
    Failed,
}

/// A reader that is helped from inbound.
pub(crate) struct Healing<I: Inbound> {
    state: State<I::Error>,
    store: Arc<Store>,
    stored: Arc<Stored>,
    ask: Ask,
    inbound: I,
}

impl<I: Inbound> Healing<I> {
    /// `ask` is the client's request, without its conditions.
    pub(crate) fn new(
        store: Arc<Store>,
        stored: Arc<Stored>,
        reader: Reader,
        ask: Ask,
        inbound: I,
    ) -> Healing<I> {
        Healing { state: State::Reading(reader), store, stored, ask, inbound }
    }

    /// Drops the stored response, and asks for the rest of it.
    fn heal(&mut self, at: u64, remaining: Option<u64>) -> State<I::Error> {
        let (store, bad) = (self.store.clone(), self.stored.clone());
        tokio::task::spawn_local(async move { store.remove(&bad).await });
        let now = HttpDate(clock::unix_seconds());
        let (Some(validator), Some(remaining)) = (partial::if_range(&self.stored.fields, now), remaining)
        else {
            return State::Failed;
        };
        let mut ask = self.ask.clone();
        let mut wanted = Vec::new();
        range::write_range(&mut wanted, at, Some(at + remaining - 1));
        let written =
            ask.fields.set(Known::Range, wanted).is_ok() && ask.fields.set(Known::IfRange, validator).is_ok();
        if !written {
            return State::Failed;
        }
        let inbound = self.inbound.clone();
        State::Asking(Box::pin(async move { inbound.send(ask).await }), self.stored.clone(), at, remaining)
    }
}

/// Whether the answer is the rest, of the same representation.
fn is_the_rest(answer: &Answer, stored: &Stored, at: u64, remaining: u64) -> bool {
    let now = HttpDate(clock::unix_seconds());
    match partial::part(answer.status, &answer.fields, answer.length) {
        Ok(Part::Span(span, complete)) => {
            span.first == at
                && span.len() == remaining
                && complete.is_none_or(|complete| Some(complete) == stored.content.length())
                && partial::may_combine(&stored.fields, &answer.fields, now)
        }
        _ => false,
    }
}

impl<I: Inbound> Source for Healing<I> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>> {
        loop {
            match &mut self.state {
                State::Reading(reader) => match ready!(reader.poll_next(cx)) {
                    Next::Aborted(Reason::Storage) => {
                        let (at, remaining) = (reader.position(), reader.remaining());
                        self.state = self.heal(at, remaining);
                    }
                    next => return Poll::Ready(next),
                },
                State::Asking(asking, stored, at, remaining) => {
                    self.state = match ready!(asking.as_mut().poll(cx)) {
                        Ok(answer) if is_the_rest(&answer, stored, *at, *remaining) => {
                            State::Flowing(answer.body, *remaining)
                        }
                        _ => State::Failed,
                    };
                }
                State::Flowing(source, remaining) => {
                    return Poll::Ready(match ready!(source.poll_next(cx)) {
                        Next::Data(data) if data.len() as u64 <= *remaining => {
                            *remaining -= data.len() as u64;
                            Next::Data(data)
                        }
                        Next::Complete(()) if *remaining == 0 => Next::Complete(()),
                        Next::Aborted(reason) => Next::Aborted(reason),
                        Next::Data(_) => Next::Aborted(Reason::Malformed),
                        Next::Complete(()) => Next::Aborted(Reason::Truncated),
                    });
                }
                State::Failed => return Poll::Ready(Next::Aborted(Reason::Storage)),
            }
        }
    }
}
