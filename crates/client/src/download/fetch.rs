//! What moves the octets of a download: one pump for each connection, each filling a piece of the plan, and helpers
//! that take pieces while there are any. Shares its state with nobody but the driver in `attempt`.

use super::asks::{add_range, unusable};
use super::{Options, READ_BYTES};
use crate::agent::{Agent, Ask, Response};
use crate::error::{Cause, Failure, Phase};
use crate::partial::Partial;
use crate::progress::{Event, Progress};
use crate::rate::RateLimit;
use crate::replies::{self, Asked, Reply};
use crate::segments::{Claim, Plan, RangeSet};
use crate::verify::Running;
use eleven_net::clock;
use eleven_net::conduit::Conduit;
use eleven_semantics::Fields;
use eleven_semantics::uri::Uri;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::sync::Notify;

/// What the connections of one download share.
pub(super) struct Shared {
    pub(super) agent: Rc<Agent>,
    pub(super) progress: Progress,
    pub(super) ask: Box<dyn Fn(&Uri) -> Ask>,
    pub(super) uris: Vec<Uri>,
    /// Which of them is asked first.
    first_place: Cell<usize>,
    pub(super) options: Options,
    pub(super) partial: RefCell<Option<Partial>>,
    pub(super) plan: RefCell<Plan>,
    pub(super) rate: RefCell<Option<RateLimit>>,
    /// Octets received in this run.
    pub(super) received: Cell<u64>,
    /// Connections that fetch.
    pub(super) active: Cell<usize>,
    /// A helper was refused: no more of them.
    pub(super) saturated: Cell<bool>,
    /// The server does not do ranges.
    pub(super) single: Cell<bool>,
    /// The length was not told beforehand.
    pub(super) open_ended: Cell<bool>,
    /// Digests made on the way, if any are needed.
    pub(super) running: RefCell<Option<Running>>,
    pub(super) failed: RefCell<Option<Failure>>,
    pub(super) changed: Notify,
}

/// From this much on content goes past memory, and room for it is asked for.
const LARGE_BYTES_MIN: u64 = 1024 * 1024;

/// How content goes from one connection into the file: straight, as pages of the kernel, or through a buffer.
struct Way {
    straight: bool,
    /// Made when first needed, for large content only.
    conduit: Option<Conduit>,
    read_bytes: usize,
}

impl Way {
    /// Whether so much content is worth the straight way.
    fn is_for(&self, left: u64) -> bool {
        self.straight && (self.conduit.is_some() || left >= LARGE_BYTES_MIN)
    }

    /// The conduit; none if there is none to be had, and then never again.
    fn conduit(&mut self) -> Option<&mut Conduit> {
        if self.conduit.is_none() {
            self.conduit = Conduit::new().ok();
            self.straight = self.conduit.is_some();
        }
        self.conduit.as_mut()
    }
}

impl Shared {
    pub(super) fn new(
        agent: Rc<Agent>,
        progress: Progress,
        ask: Box<dyn Fn(&Uri) -> Ask>,
        uris: Vec<Uri>,
        options: Options,
    ) -> Shared {
        Shared {
            agent,
            progress,
            ask,
            uris,
            first_place: Cell::new(0),
            plan: RefCell::new(Plan::new(0, RangeSet::new(), 1, options.split_bytes_min)),
            rate: RefCell::new(options.rate_limit.map(RateLimit::new)),
            options,
            partial: RefCell::new(None),
            received: Cell::new(0),
            active: Cell::new(0),
            saturated: Cell::new(false),
            single: Cell::new(false),
            open_ended: Cell::new(false),
            running: RefCell::new(None),
            failed: RefCell::new(None),
            changed: Notify::new(),
        }
    }

    /// The place that is asked first.
    pub(super) fn place(&self) -> &Uri {
        &self.uris[self.first_place.get()]
    }

    /// From now on another place is asked first.
    pub(super) fn next_place(&self) {
        self.first_place.set((self.first_place.get() + 1) % self.uris.len());
    }

    pub(super) fn release(&self, claim: Option<Claim>) {
        if let Some(claim) = claim {
            self.plan.borrow_mut().release(claim.id);
        }
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        (self.progress)(event);
    }

    /// Reads a response into its piece, until the piece is finished or stolen away, or the response ends at
    /// `end`. Gives the connection back if everything of it was read.
    pub(super) async fn pump(
        &self,
        mut response: Response,
        claim: Claim,
        end: u64,
        first: bool,
    ) -> Result<Option<Fields>, Failure> {
        let result = self.pump_content(&mut response, claim, end).await;
        if result.is_err() {
            self.plan.borrow_mut().release(claim.id);
            return result;
        }
        let at_end = response.is_complete();
        let trailers = response.trailers().cloned();
        if at_end {
            response.finish().await;
        }
        self.plan.borrow_mut().release(claim.id);
        self.changed.notify_waiters();
        Ok(trailers.filter(|_| first && at_end))
    }

    async fn pump_content(
        &self,
        response: &mut Response,
        claim: Claim,
        end: u64,
    ) -> Result<Option<Fields>, Failure> {
        let mut way = self.way();
        let mut reserved = 0;
        loop {
            if let Some(failure) = self.failed.borrow_mut().take() {
                return Err(failure);
            }
            let finished = self.plan.borrow().is_finished(claim.id);
            let position = self.plan.borrow().position(claim.id);
            if finished && position < end {
                return Ok(None); // the rest was stolen, or is not ours
            }
            if position >= reserved && end != u64::MAX && end - position >= LARGE_BYTES_MIN {
                reserved = self.with_partial(|partial| Ok(partial.reserve(position, end)))?;
            }
            let straight = response.conveyable().filter(|&left| !finished && way.is_for(left));
            if straight.is_some()
                && let Some(conduit) = way.conduit()
            {
                let wanted = self.plan.borrow().wanted(claim.id, end - position);
                let count = response.convey(conduit, wanted).await? as u64;
                self.check_size(position + count)?;
                // Another connection may have taken the end of the piece meanwhile: what is not ours is dropped.
                let count = self.plan.borrow().wanted(claim.id, count);
                self.with_partial(|partial| partial.write_from(conduit, position, count as usize))?;
                self.arrived(claim, count);
                continue;
            }
            response.connection_mut().set_read_bytes(way.read_bytes);
            let Some(data) = response.data().await? else {
                return self.content_ended(claim, position, end).map(|()| None);
            };
            let count = data.len() as u64;
            let wanted = self.plan.borrow().wanted(claim.id, count);
            if finished || (wanted < count && position + wanted >= end) {
                let text = "more octets than were promised".to_owned();
                return Err(Failure::new(Phase::Content, Cause::Malformed(text)));
            }
            self.check_size(position + wanted)?;
            let data = &data[..wanted as usize];
            self.with_partial(|partial| partial.write(data, position))?;
            if let Some(running) = self.running.borrow_mut().as_mut() {
                running.push(data, position);
            }
            self.arrived(claim, wanted);
            let pause = self.rate.borrow_mut().as_mut().map(|rate| rate.take(count, clock::now()));
            if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// How content is to go from a connection into the file.
    fn way(&self) -> Way {
        let limited = self.rate.borrow().as_ref().map(RateLimit::read_bytes);
        // Octets that are counted or hashed on the way must be seen.
        let straight = limited.is_none() && self.running.borrow().is_none();
        Way { straight, conduit: None, read_bytes: limited.unwrap_or(READ_BYTES) }
    }

    fn with_partial<T>(&self, write: impl FnOnce(&Partial) -> Result<T, Failure>) -> Result<T, Failure> {
        match self.partial.borrow().as_ref() {
            Some(partial) => write(partial),
            None => Err(Failure::new(Phase::Content, Cause::Cancelled)),
        }
    }

    fn check_size(&self, bytes: u64) -> Result<(), Failure> {
        let most = self.options.content_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        Err(Failure::new(Phase::Content, Cause::TooLarge("content_bytes_max", most)))
    }

    fn arrived(&self, claim: Claim, count: u64) {
        self.plan.borrow_mut().advance(claim.id, count);
        self.received.set(self.received.get() + count);
    }

    fn content_ended(&self, claim: Claim, position: u64, end: u64) -> Result<(), Failure> {
        if self.open_ended.get() && end == u64::MAX {
            // Only now is the length known: it ends here, by a framing that proved it.
            let done = self.plan.borrow().done().clone();
            *self.plan.borrow_mut() = Plan::new(position, done, 1, self.options.split_bytes_min);
            self.open_ended.set(false);
            return Ok(());
        }
        if position < end && !self.plan.borrow().is_finished(claim.id) {
            return Err(Failure::new(
                Phase::Content,
                Cause::Short(position - claim.start, end - claim.start),
            ));
        }
        Ok(())
    }

    /// What is left after the first response: pieces given back or never taken, and helpers at work.
    pub(super) async fn finish_rest(self: &Rc<Self>) -> Result<(), Failure> {
        loop {
            if self.plan.borrow().is_complete() {
                return Ok(());
            }
            if let Some(failure) = self.failed.borrow_mut().take() {
                return Err(failure);
            }
            let waiting = self.changed.notified();
            let claim = self.plan.borrow_mut().claim();
            match claim {
                Some(claim) => self.fetch_piece(claim, 0).await?,
                None => waiting.await,
            }
        }
    }

    /// One piece by one request, from the mirror of this number.
    async fn fetch_piece(&self, claim: Claim, mirror: usize) -> Result<(), Failure> {
        let result = self.ask_piece(claim, mirror).await;
        let (response, end) = match result {
            Ok(found) => found,
            Err(failure) => {
                self.plan.borrow_mut().release(claim.id);
                return Err(failure);
            }
        };
        self.pump(response, claim, end, false).await.map(|_| ())
    }

    async fn ask_piece(&self, claim: Claim, mirror: usize) -> Result<(Response, u64), Failure> {
        let uri = &self.uris[(self.first_place.get() + mirror) % self.uris.len()];
        let subject = self.partial.borrow().as_ref().and_then(|partial| partial.subject().cloned());
        let Some(mut subject) = subject else { return Err(Failure::new(Phase::Content, Cause::Cancelled)) };
        let foreign = !mirror.is_multiple_of(self.uris.len());
        if foreign && self.options.sha256.is_some() {
            // The digest over all of it is proof enough; a mirror's tags are its own.
            (subject.etag, subject.last_modified) = (None, None);
        }
        let mut ask = (self.ask)(uri);
        add_range(&mut ask, claim.start, Some(claim.end), subject.if_range())?;
        let response = self.agent.send(ask).await?;
        let asked = Asked::Part { start: claim.start, end: Some(claim.end), subject: &subject };
        let new = replies::subject("", response.head());
        match replies::judge(asked, "", response.head()) {
            // Fault K41: a mirror must have the same file, and that takes a validator or a digest.
            Reply::Part { .. } if foreign && self.options.sha256.is_none() && new.etag != subject.etag => {
                Err(Failure::new(Phase::Verify, Cause::Changed("a mirror has another validator".into())))
            }
            Reply::Part { end, .. } => Ok((response, end)),
            Reply::Status(code) => Err(Failure::new(Phase::Head, Cause::Status(code))),
            Reply::Changed(_, why) => Err(Failure::new(Phase::Verify, Cause::Changed(why.to_owned()))),
            _ => Err(unusable(&response, "no usable answer to a request for a part")),
        }
    }

    /// A helper: takes pieces until none is left, and leaves at the first trouble; what it had is free again.
    pub(super) async fn help(self: Rc<Self>, mirror: usize) {
        loop {
            let claim = self.plan.borrow_mut().claim();
            let Some(claim) = claim else { break };
            if let Err(failure) = self.fetch_piece(claim, mirror).await {
                let text = format!("one connection less: {failure}");
                self.tell(&Event::Note(&text));
                self.saturated.set(true);
                break;
            }
        }
        self.active.set(self.active.get() - 1);
        self.changed.notify_waiters();
    }

    /// Begins to make durable what is here.
    pub(super) fn checkpoint(&self) -> Result<(), Failure> {
        let plan = self.plan.borrow();
        self.partial.borrow_mut().as_mut().map_or(Ok(()), |partial| partial.checkpoint(plan.done()))
    }
}
