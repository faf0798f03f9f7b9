//! Content from disk that mends itself: when a block turns out to be bad in the middle of a response, the
//! stored response is dropped and the rest is asked for inbound, from the first octet that was not sent yet,
//! on condition that the representation is still the same one. That holds for what is stored and for what is
//! still being written and read back by a reader that fell behind. An origin server that answers with the whole
//! is read past what was sent already. If the representation is another one by now, the response breaks off
//! visibly; wrong octets are never sent.

use crate::content::{Content, Reader};
use crate::reply::{Answer, Ask, Inbound, Source};
use crate::store::Store;
use crate::stored::Stored;
use bytes::Bytes;
use eleven_net::clock;
use eleven_net::pipe::{Next, Reason};
use eleven_semantics::caching::partial::{self, Part};
use eleven_semantics::date::HttpDate;
use eleven_semantics::range;
use eleven_semantics::{Known, Status};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

type Asking<E> = Pin<Box<dyn Future<Output = Result<Answer, E>>>>;

/// What of the content was not sent yet.
#[derive(Debug, Clone, Copy)]
struct Rest {
    /// Position of its first octet.
    at: u64,
    /// Its length; `None` up to the end of a representation whose length is not known yet.
    length: Option<u64>,
}

enum State<E> {
    /// From disk.
    Reading(Reader),
    /// A block was bad; this was asked for.
    Asking(Asking<E>, Rest),
    /// From inbound.
    Flowing(Rescue),
    /// Past help.
    Failed,
}

/// What came from inbound to help.
struct Rescue {
    source: Box<dyn Source>,
    /// Octets that were sent already and come again.
    skip: u64,
    /// Octets still to be sent, if that is known.
    remaining: Option<u64>,
    /// Whether the source goes on behind them.
    goes_on: bool,
}

impl Rescue {
    /// The answer, if it is the rest or contains it, of the same representation.
    fn of(answer: Answer, stored: &Stored, rest: Rest) -> Option<Rescue> {
        let now = HttpDate(clock::unix_seconds());
        let total = stored.content.length();
        let part = partial::part(answer.status, &answer.fields, answer.length).ok()?;
        if !partial::may_combine(&stored.fields, &answer.fields, now) {
            return None;
        }
        let (skip, remaining, goes_on) = match part {
            Part::Span(span, complete) if stored.status == Status::OK => {
                let known = total.is_none() || complete.is_none() || complete == total;
                let wanted = match rest.length {
                    Some(length) => span.len() == length,
                    None => complete == Some(span.last + 1),
                };
                if span.first != rest.at || !known || !wanted {
                    return None;
                }
                (0, Some(span.len()), false)
            }
            Part::Whole if answer.status == stored.status => {
                if let (Some(told), Some(total)) = (answer.length, total)
                    && told != total
                {
                    return None;
                }
                let remaining = rest.length.or(answer.length.and_then(|told| told.checked_sub(rest.at)));
                let end = remaining.map(|remaining| rest.at + remaining);
                (rest.at, remaining, end.is_some() && end != total.or(answer.length))
            }
            _ => return None,
        };
        Some(Rescue { source: answer.body, skip, remaining, goes_on })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>> {
        loop {
            if self.goes_on && self.remaining == Some(0) {
                return Poll::Ready(Next::Complete(()));
            }
            let mut data = match ready!(self.source.poll_next(cx)) {
                Next::Data(data) => data,
                Next::Complete(()) if self.skip == 0 && self.remaining.unwrap_or(0) == 0 => {
                    return Poll::Ready(Next::Complete(()));
                }
                Next::Complete(()) => return Poll::Ready(Next::Aborted(Reason::Truncated)),
                Next::Aborted(reason) => return Poll::Ready(Next::Aborted(reason)),
            };
            let skipped = self.skip.min(data.len() as u64);
            self.skip -= skipped;
            data = data.slice(skipped as usize..);
            if data.is_empty() {
                continue;
            }
            return Poll::Ready(self.counted(data));
        }
    }

    fn counted(&mut self, mut data: Bytes) -> Next<()> {
        if let Some(remaining) = &mut self.remaining {
            if data.len() as u64 > *remaining {
                if !self.goes_on {
                    return Next::Aborted(Reason::Malformed);
                }
                data.truncate(*remaining as usize);
            }
            *remaining -= data.len() as u64;
        }
        Next::Data(data)
    }
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
    /// Whether this content may ever need help: what is on disk, or on its way there.
    pub(crate) fn may_help(store: &Store, content: &Content) -> bool {
        match content {
            Content::Disk(_) => true,
            Content::Filling(_) => store.disk().is_some(),
            _ => false,
        }
    }

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
    fn heal(&mut self, rest: Rest) -> State<I::Error> {
        let (store, bad) = (self.store.clone(), self.stored.clone());
        tokio::task::spawn_local(async move { store.remove(&bad).await });
        let now = HttpDate(clock::unix_seconds());
        let Some(validator) = partial::if_range(&self.stored.fields, now) else { return State::Failed };
        let mut ask = self.ask.clone();
        let mut wanted = Vec::new();
        // Somebody who has all octets does not read on, so there is at least one.
        range::write_range(&mut wanted, rest.at, rest.length.map(|length| rest.at + length.max(1) - 1));
        let written =
            ask.fields.set(Known::Range, wanted).is_ok() && ask.fields.set(Known::IfRange, validator).is_ok();
        if !written {
            return State::Failed;
        }
        let inbound = self.inbound.clone();
        State::Asking(Box::pin(async move { inbound.send(ask).await }), rest)
    }
}

impl<I: Inbound> Source for Healing<I> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>> {
        loop {
            match &mut self.state {
                State::Reading(reader) => match ready!(reader.poll_next(cx)) {
                    Next::Aborted(Reason::Storage) => {
                        let rest = Rest { at: reader.position(), length: reader.remaining() };
                        self.state = self.heal(rest);
                    }
                    next => return Poll::Ready(next),
                },
                State::Asking(asking, rest) => {
                    let answer = ready!(asking.as_mut().poll(cx)).ok();
                    self.state = match answer.and_then(|answer| Rescue::of(answer, &self.stored, *rest)) {
                        Some(rescue) => State::Flowing(rescue),
                        None => State::Failed,
                    };
                }
                State::Flowing(rescue) => return rescue.poll_next(cx),
                State::Failed => return Poll::Ready(Next::Aborted(Reason::Storage)),
            }
        }
    }
}
