//! The middle of the short way: an answer that comes soon, from a server that was asked already. The session polls it
//! itself, and writes it like one that was there at once. It goes the long way if the answer is not whole when it
//! comes, takes longer, has interim responses before it, or the client does anything in the meantime.

use super::*;
use crate::handler::Handled;
use crate::proxy::asking::{SOON_MS, Soon};

/// An answer that is waited for.
pub(super) struct Awaited {
    soon: Soon,
    /// Boxed, because few have one, and every session has room for this.
    meta: Option<Box<long::Meta>>,
    safe: bool,
    /// Octets of the request.
    received_bytes: usize,
}

impl Session {
    /// Waits for the answer to a request that the handler has taken.
    pub(super) fn expect(&mut self, soon: Soon, meta: Option<long::Meta>, safe: bool, received_bytes: usize) {
        self.slot.begin(Phase::Handling, SOON_MS);
        self.awaited = Some(Awaited { soon, meta: meta.map(Box::new), safe, received_bytes });
    }

    pub(super) fn poll_awaited(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let Some(awaited) = &mut self.awaited else { return Poll::Ready(Turn::Wait) };
        match catch_unwind(AssertUnwindSafe(|| awaited.soon.poll(cx))) {
            Ok(Poll::Ready(response)) => Poll::Ready(self.answer_awaited(response)),
            Ok(Poll::Pending) => {
                let goes_on = awaited.soon.is_slow()
                    || self.stream.poll_read_ready(cx).is_ready()
                    || self.slot.poll_verdict(cx).is_ready();
                if goes_on { Poll::Ready(self.await_longer()) } else { Poll::Pending }
            }
            // One request is lost, not the server (fault F41).
            Err(_) => {
                tracing::error!("a handler panicked");
                Poll::Ready(self.answer_awaited(refusal::internal_error()))
            }
        }
    }

    /// The long way, for an answer that has not come.
    fn await_longer(&mut self) -> Turn {
        let Some(awaited) = self.awaited.take() else { return Turn::Wait };
        let Awaited { soon, meta, safe, received_bytes } = awaited;
        let meta = meta.map(|meta| *meta);
        let (interim, future) = soon.into_later(self.slot.phase_ms());
        let begun = long::Begun { handled: Handled::Later(future), interim: Some(interim), meta, safe };
        Turn::Long(Box::new(start(begun, received_bytes)))
    }

    fn answer_awaited(&mut self, response: Response) -> Turn {
        let Some(awaited) = self.awaited.take() else { return Turn::Wait };
        let Awaited { mut soon, meta, safe, received_bytes } = awaited;
        let interim = soon.interim();
        if interim.is_some() || !is_short(&response.content) {
            let meta = meta.map(|meta| *meta);
            let begun = long::Begun { handled: Handled::Ready(response), interim, meta, safe };
            return Turn::Long(Box::new(start(begun, received_bytes)));
        }
        let mut scratch = self.worker.take_scratch();
        scratch.out.clear();
        let turn = self.write_awaited(&response, meta, received_bytes, &mut scratch.out);
        self.worker.return_scratch(scratch);
        soon.done(Some(response));
        turn
    }

    fn write_awaited(
        &mut self,
        response: &Response,
        meta: Option<Box<long::Meta>>,
        received_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Turn {
        let Ok((persistence, large)) = self.write_short(response, out, COPIED_BYTES_MAX, false) else {
            return Turn::Close(CloseReason::Internal);
        };
        let service = self.worker.service();
        let counted = Exchange {
            handler: service.name(),
            status: response.status.code(),
            received_bytes: received_bytes as u64,
            sent_bytes: (out.len() + large.as_ref().map_or(0, Bytes::len)) as u64,
            ..Exchange::default()
        };
        let (asked, weight) =
            (meta.as_deref().map(long::Meta::asked), meta.as_deref().map_or(0, long::Meta::weight));
        self.record(asked, response, counted, weight, meta.as_deref().map(long::Meta::started), persistence);
        let next = match persistence {
            Persistence::Keep => None,
            Persistence::Close(reason) => Some(reason),
        };
        let left = match large {
            Some(content) => self.write_gathered(out, content),
            None => self.flush(out),
        };
        match (left, next) {
            (Err(_), _) => Turn::Close(CloseReason::Broken),
            (Ok(Some(left)), _) => Turn::Long(Box::new(long::Start::unsent(left, next, Vec::new(), false))),
            (Ok(None), Some(reason)) => Turn::Close(reason),
            (Ok(None), None) => {
                self.rest();
                Turn::Wait
            }
        }
    }
}

fn start(begun: long::Begun, received_bytes: usize) -> long::Start {
    long::Start::handled(begun, Vec::new(), Vec::new(), false, received_bytes)
}
