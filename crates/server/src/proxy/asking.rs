//! One request on its way to the servers of a group: which of them is asked, how often, and what becomes of an
//! attempt that failed (RFC 9110 §9.2.2). Octets are moved in `flow`; what is forwarded is decided in
//! `eleven_semantics::forwarding`; what a failure is called stands with the gateway.
//!
//! Most requests find an idle connection and are answered in a moment: these are [`Soon`], which the session polls
//! itself, without a task, a future or a pipe. All others, and those of which anything unusual comes, go on as
//! a future.

use super::timing::Timing;
use super::upstream::Lease;
use super::*;
use crate::overload::gated::Permit;
use crate::refusal::{bad_path, refusal};
use crate::response::InterimSender;
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How long an answer may take to be one that comes soon. Beyond, the exchange is watched like any other.
pub const SOON_MS: u64 = 1_000;

/// Exchanges whose memory is kept for the next ones, for each worker.
const SPARE_MAX: usize = 64;
/// Memory of an exchange that is not kept beyond this.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// The memory of exchanges that are done.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "an exchange is moved as a pointer, and brought back as one")]
pub struct Spare(RefCell<Vec<Box<Asking>>>);

/// A request on its way.
pub struct Asking {
    request: Request,
    rules: Rc<Rules>,
    /// The authority asked for by the client.
    host: Vec<u8>,
    /// The Upgrade a client offers, before the fields of the hop were removed.
    offered: Option<Vec<u8>>,
    te_trailers: bool,
    /// The target for the server, where it is not the one received.
    target: Option<Vec<u8>>,
    hash: Option<u64>,
    /// The server that a sticky cookie means.
    wanted: Option<usize>,
    /// The sticky cookie to set. It is for this client and not for a store.
    cookie: Option<Vec<u8>>,
    length: Length,
    upload: Upload,
    /// The content is to be taken whole before a server is asked, and stands with the request till then.
    to_buffer: bool,
    /// What was taken.
    buffered: Option<Buffered>,
    tried: Vec<usize>,
    attempts: u32,
    last: Option<Box<Failure>>,
    /// An idle connection failed: the next is to be a new one.
    fresh: bool,
    /// The attempt under way.
    flow: Option<Flow>,
    index: usize,
    /// That server was chosen and not asked yet: choosing twice would upset the rotation.
    chosen: bool,
    reused: bool,
    again: Option<Upload>,
    /// For the log.
    timing: Option<Timing>,
    /// For the fields of the response.
    memory: Fields,
}

/// What came of beginning an attempt.
enum Begun {
    UnderWay,
    Failed(Failed),
    /// There is none.
    Instead(Result<Response, Box<Response>>),
}

/// What follows from an attempt.
enum Judged {
    Answer(Result<Response, Box<Response>>),
    /// It is tried again.
    Again,
}

impl Asking {
    fn new(request: Request, rules: Rc<Rules>) -> Asking {
        Asking {
            request,
            rules,
            host: Vec::new(),
            offered: None,
            te_trailers: false,
            target: None,
            hash: None,
            wanted: None,
            cookie: None,
            length: Length::Absent,
            upload: Upload::None,
            to_buffer: false,
            buffered: None,
            tried: Vec::new(),
            attempts: 0,
            last: None,
            fresh: false,
            flow: None,
            index: 0,
            chosen: false,
            reused: false,
            again: None,
            timing: None,
            memory: Fields::new(),
        }
    }

    fn poll_flow(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, Failed>> {
        let Asking { flow, request, memory, .. } = self;
        Flow::poll_answer(flow, cx, || request.interim(), memory)
    }

    /// Forgets everything but the memory.
    fn renew(&mut self) {
        self.request.renew();
        self.offered = None;
        (self.wanted, self.cookie) = (None, None);
        (self.upload, self.again) = (Upload::None, None);
        self.buffered = None;
        self.tried.clear();
        self.attempts = 0;
        self.last = None;
        (self.fresh, self.chosen) = (false, false);
        self.flow = None;
        self.timing = None;
    }

    /// Whoever has all of the content has met the expectation.
    fn expects_continue(&self) -> bool {
        self.buffered.is_none() && self.request.head.expectation == Expectation::Continue
    }

    fn memory_bytes(&self) -> usize {
        self.request.head.fields.memory_bytes() + self.memory.memory_bytes() + self.host.capacity()
    }
}

impl Gateway {
    /// Judges a request, takes it, and makes of its fields those that go on.
    ///
    /// # Errors
    /// The response, where no server is to be asked.
    pub(super) fn prepare(&self, request: &mut Request) -> Result<Box<Asking>, Box<Response>> {
        let rules = self.rules_for(request);
        let mut asking = match self.spare.0.borrow_mut().pop() {
            Some(spare) => spare,
            None => Box::new(Asking::new(Request::new(Rc::clone(&request.peer)), Rc::clone(rules))),
        };
        request.move_into(&mut asking.request);
        asking.rules.clone_from(rules);
        match self.forward(&mut asking) {
            Ok(()) => Ok(asking),
            Err(answer) => Err(answer),
        }
    }

    fn forward(&self, asking: &mut Asking) -> Result<(), Box<Response>> {
        let request = &mut asking.request;
        let host = request.head.target.authority().or_else(|| request.head.fields.get(Known::Host));
        asking.host.clear();
        asking.host.extend_from_slice(host.unwrap_or_default());
        asking.offered = offered_upgrade(request);
        let onward = forwarding::request(
            &request.head.method,
            request.head.version,
            request.head.framing.has_body(),
            &mut request.head.fields,
            &asking.rules,
            &hop(&request.peer, &asking.host),
        );
        asking.te_trailers = match onward {
            Ok(Onward::Forward { te_trailers, .. }) => te_trailers,
            Ok(Onward::AnswerHere) => return Err(final_recipient(&request.head.method).into()),
            Err(refusal) => return Err(self.refused(refusal).into()),
        };
        self.budget.deposit();
        asking.timing = request.is_timed.then(Timing::begin);
        asking.hash = self.hash(request);
        asking.wanted = self.sticky.as_ref().and_then(|sticky| sticky.wanted(&request.head.fields));
        asking.length = length(request);
        asking.to_buffer = match request.content {
            RequestContent::Empty => false,
            RequestContent::Whole(..) => self.plan.buffer.is_some(),
            RequestContent::Pipe(_) => self.plan.buffer.is_some() || is_worth_keeping(request),
        };
        if !asking.to_buffer {
            asking.upload = upload(std::mem::take(&mut request.content));
        }
        Ok(())
    }

    /// Asks a server. `cookie` is the sticky cookie to set, if there is one to set; it is for this client and not
    /// for a store.
    ///
    /// # Errors
    /// The response that says so, if no server answered: a cache may have something better.
    pub async fn ask(
        &self,
        mut request: Request,
        cookie: &mut Option<Vec<u8>>,
    ) -> Result<Response, Box<Response>> {
        match self.prepare(&mut request) {
            Ok(mut asking) => {
                let mut result = self.answer(&mut asking).await;
                *cookie = asking.cookie.take();
                match &mut result {
                    Ok(response) => self.note(&asking, response),
                    Err(response) => self.note(&asking, response),
                }
                result
            }
            Err(response) => Ok(*response),
        }
    }

    /// Tries until there is an answer or no more attempt.
    async fn answer(&self, asking: &mut Asking) -> Result<Response, Box<Response>> {
        loop {
            let result = match asking.flow {
                Some(_) => poll_fn(|cx| asking.poll_flow(cx)).await,
                None => match self.attempt(asking).await {
                    Begun::UnderWay => continue,
                    Begun::Failed(failed) => Err(failed),
                    Begun::Instead(answer) => return answer,
                },
            };
            if let Judged::Answer(answer) = self.judge(asking, result) {
                return answer;
            }
        }
    }

    /// Chooses the server of the next attempt, if there is one.
    fn choose(&self, asking: &mut Asking) -> Option<&Server> {
        if !std::mem::take(&mut asking.chosen) {
            let returns = asking.wanted.filter(|&wanted| self.group.takes_back(wanted, &asking.tried));
            asking.index = returns.or_else(|| self.group.pick(asking.hash, &asking.tried))?;
        }
        Some(self.group.server(asking.index))
    }

    /// Takes all of the content, if it is to be here before a server is asked.
    ///
    /// # Errors
    /// The response, where it does not come, or is too large.
    async fn buffer(&self, asking: &mut Asking) -> Result<(), Box<Response>> {
        if !std::mem::take(&mut asking.to_buffer) {
            return Ok(());
        }
        let plan = self.plan.buffer.as_ref().unwrap_or(&self.short);
        asking.buffered = buffer(plan, &mut asking.request).await?;
        match &asking.buffered {
            Some(buffered) => {
                asking.length = buffered.length().map_or(Length::Unknown, Length::Known);
                asking.upload = buffered.upload();
            }
            None => asking.upload = upload(std::mem::take(&mut asking.request.content)),
        }
        Ok(())
    }

    /// Begins an attempt: chooses a server, waits for a connection to it, and queues the request.
    async fn attempt(&self, asking: &mut Asking) -> Begun {
        // Boxed: every request carries the memory of this future, and most have no content.
        if asking.to_buffer
            && let Err(response) = Box::pin(self.buffer(asking)).await
        {
            return Begun::Instead(Ok(*response));
        }
        let Some(server) = self.choose(asking) else {
            let failed = match asking.last.take() {
                Some(failure) => self.failed(&failure),
                None => self.error(ProxyError::DestinationUnavailable, None),
            };
            return Begun::Instead(Err(failed.into()));
        };
        if asking.expects_continue() && server.version() == Some(Version::Http10) {
            // RFC 2616 §8.2.3: the expectation cannot be met beyond.
            return Begun::Instead(Ok(refusal(Status::EXPECTATION_FAILED, super::OLD_NEXT_HOP)));
        }
        match self.other_target(&mut asking.request, server) {
            Ok(target) => asking.target = target,
            Err(why) => return Begun::Instead(Ok(bad_path(why))),
        }
        let lease = server.lease();
        if let Some(timing) = &mut asking.timing {
            timing.attempt();
        }
        match self.connect(server, asking.fresh, &asking.request.peer).await {
            Ok(connection) => self.begin(asking, connection, lease),
            Err(failure) => {
                drop(asking.timing.as_ref().map(Timing::until_end));
                asking.reused = false;
                asking.again = None;
                let upload = Some(std::mem::replace(&mut asking.upload, Upload::None));
                Begun::Failed(Failed { failure: failure.into(), upload })
            }
        }
    }

    /// Queues the request on a connection to the server that was chosen.
    fn begin(&self, asking: &mut Asking, connection: Pooled, lease: Lease) -> Begun {
        let server = self.group.server(asking.index);
        let head = &asking.request.head;
        let target = match &asking.target {
            Some(target) => Cow::Borrowed(&target[..]),
            None if head.target.form() == Form::Asterisk => Cow::Borrowed(&b"*"[..]),
            None => head.target.path_and_query(),
        };
        let outgoing = Outgoing {
            host: Some(self.host(&asking.host, server)),
            length: asking.length,
            te_trailers: asking.te_trailers,
            expect_continue: asking.expects_continue() && matches!(asking.upload, Upload::Pipe(_)),
            ..Outgoing::new(&head.method, &target, b"", &head.fields)
        };
        asking.reused = connection.is_reused();
        if let Some(timing) = &mut asking.timing {
            timing.connected(connection.address(), !asking.reused);
        }
        asking.again = asking.upload.again();
        let upload = std::mem::replace(&mut asking.upload, Upload::None);
        let (rules, timeouts) = (Rc::clone(&asking.rules), self.plan.timeouts);
        match Flow::begin(connection, Some(lease), &outgoing, upload, rules, timeouts, &self.watch) {
            Ok(mut flow) => {
                flow.measure(asking.timing.as_ref().map(Timing::until_end));
                asking.flow = Some(flow);
                Begun::UnderWay
            }
            Err(failed) => Begun::Failed(failed),
        }
    }

    /// Begins the first attempt, if that needs no waiting, and nothing unusual is to be expected.
    fn begin_at_once(&self, asking: &mut Asking) -> bool {
        let plain = !matches!(asking.upload, Upload::Pipe(_))
            && !asking.to_buffer
            && asking.request.head.expectation == Expectation::None
            && asking.offered.is_none();
        if !plain {
            return false;
        }
        let Some(server) = self.choose(asking) else { return false };
        asking.chosen = true;
        if server.plan.proxy_protocol.is_some() {
            return false;
        }
        let Ok(target) = self.other_target(&mut asking.request, server) else { return false };
        asking.target = target;
        let Some(connection) = self.pool.checkout_idle(server.handle(&self.pool)) else { return false };
        if let Some(timing) = &mut asking.timing {
            timing.attempt();
        }
        match self.begin(asking, connection, server.lease()) {
            Begun::UnderWay => {
                asking.chosen = false;
                if let Some(flow) = &mut asking.flow {
                    flow.leave_watch();
                }
                return true;
            }
            // What is wrong with it is found again, and said, on the usual way.
            Begun::Failed(failed) => {
                asking.upload = asking.again.take().or(failed.upload).unwrap_or(Upload::None);
            }
            Begun::Instead(_) => {}
        }
        false
    }

    /// What follows from an attempt.
    fn judge(&self, asking: &mut Asking, result: Result<Answered, Failed>) -> Judged {
        let index = asking.index;
        let failed = match result {
            Ok(answered) => {
                self.group.server(index).learn_version(answered.version);
                self.group.succeeded(index);
                if let Some(sticky) = self.sticky.as_ref().filter(|_| asking.wanted != Some(index)) {
                    asking.cookie = sticky.set_cookie(index, asking.request.scheme() == Scheme::Https);
                }
                return Judged::Answer(self.respond(answered, asking.offered.as_deref()));
            }
            Err(failed) => failed,
        };
        let Failed { failure, upload: untouched } = failed;
        if matches!(failure.phase, Phase::Resolve | Phase::Connect | Phase::Tls | Phase::Head) {
            self.group.failed(index);
        }
        let whole = || asking.buffered.as_ref().map(Buffered::upload);
        let again = asking.again.take().or(untouched).or_else(whole);
        // An idle connection that the server had just closed says nothing about the server.
        let stale = asking.reused && failure.cause == Cause::Closed && failure.broke.is_none();
        // Only what a server may have worked on costs: repeating the rest adds no load.
        let free = stale || failure.phase <= Phase::Tls;
        asking.attempts += if free { 1 } else { ATTEMPT_WEIGHT };
        let may_retry = failure.retry.is_safe()
            && asking.attempts < self.plan.attempts_max * ATTEMPT_WEIGHT
            && (free || !matches!(failure.cause, Cause::Timeout(_)));
        let Some(next) = again.filter(|_| may_retry && (free || self.budget.withdraw())) else {
            return Judged::Answer(Err(self.failed(&failure).into()));
        };
        tracing::debug!(%failure, server = %self.group.server(index).plan, "trying again");
        asking.upload = next;
        asking.fresh = stale;
        if !stale && self.group.servers().len() > 1 {
            asking.tried.push(index);
        } else if failure.phase <= Phase::Tls {
            // The only server would do no better at once, and whoever waited for a connection has waited enough.
            return Judged::Answer(Err(self.failed(&failure).into()));
        }
        asking.last = Some(failure);
        Judged::Again
    }

    /// Tells the record who was asked, and how it went.
    fn note(&self, asking: &Asking, response: &mut Response) {
        let request = &asking.request;
        if !(request.is_recorded || request.is_timed) || asking.index >= self.group.servers().len() {
            return;
        }
        let notes = response.notes();
        notes.upstream = Some(self.group.server(asking.index).name.clone());
        notes.attempts = asking.timing.as_ref().map(Timing::attempts);
    }

    /// Keeps the memory of an exchange that is done.
    fn keep(&self, mut asking: Box<Asking>) {
        let mut spare = self.spare.0.borrow_mut();
        if spare.len() < SPARE_MAX && asking.memory_bytes() <= SPARE_BYTES_MAX {
            asking.renew();
            spare.push(asking);
        }
    }
}

/// Content that is taken whole in any case: so short that it is as good as here, and needed again if the server dies over
/// a request that may be repeated.
fn is_worth_keeping(request: &Request) -> bool {
    request.head.method.is_idempotent()
        && request.head.expectation == Expectation::None
        && request.content_length.is_some_and(|length| length <= buffer::SHORT_BYTES_MAX)
}

/// An answer that is likely here in a moment: a server was asked over a connection that was there already.
pub struct Soon {
    gateway: Rc<Gateway>,
    asking: Box<Asking>,
    after: Option<Box<dyn FnOnce(Response) -> Response>>,
    /// It is tried again, which may mean to wait for a connection.
    is_slow: bool,
    /// It is worked on, as far as the gate before the gateway knows.
    permit: Option<Permit>,
}

impl std::fmt::Debug for Soon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Soon({:?})", self.gateway)
    }
}

impl Soon {
    /// Asks a server, at once if possible. `left` is what remains of the request with its session.
    pub(super) fn ask(gateway: &Rc<Gateway>, mut asking: Box<Asking>, left: &mut Request) -> Handled {
        let at_once = gateway.begin_at_once(&mut asking);
        if !at_once {
            left.share_interim(&mut asking.request);
        }
        let soon = Soon { gateway: Rc::clone(gateway), asking, after: None, is_slow: false, permit: None };
        if at_once { Handled::Soon(soon) } else { Handled::Later(Box::pin(soon.later(0))) }
    }

    /// Does this to the answer.
    pub fn then(mut self, after: impl FnOnce(Response) -> Response + 'static) -> Soon {
        self.after = Some(match self.after.take() {
            None => Box::new(after),
            Some(before) => Box::new(move |response| after(before(response))),
        });
        self
    }

    /// Keeps a permit until the answer is there.
    #[must_use]
    pub(crate) fn holding(mut self, permit: Permit) -> Soon {
        self.permit = Some(permit);
        self
    }

    /// The answer, once; poll no further then.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response> {
        if self.is_slow {
            return Poll::Pending;
        }
        let result = ready!(self.asking.poll_flow(cx));
        match self.gateway.judge(&mut self.asking, result) {
            Judged::Answer(answer) => Poll::Ready(self.finish(answer)),
            Judged::Again => {
                self.is_slow = true;
                Poll::Pending
            }
        }
    }

    /// Whether polling leads to nothing more: it has to go on as a future.
    pub fn is_slow(&self) -> bool {
        self.is_slow || self.asking.request.has_interim()
    }

    /// The interim responses, if there were any.
    pub fn interim(&mut self) -> Option<InterimSender> {
        self.asking.request.has_interim().then(|| self.asking.request.interim())
    }

    /// The way for interim responses, and the answer as a future. It was waited for so long already.
    pub fn into_later(mut self, waited_ms: u64) -> (InterimSender, Pin<Box<dyn Future<Output = Response>>>) {
        (self.asking.request.interim(), Box::pin(self.later(waited_ms)))
    }

    async fn later(mut self, waited_ms: u64) -> Response {
        if let Some(flow) = &mut self.asking.flow {
            flow.watch(waited_ms);
        }
        let answer = self.gateway.answer(&mut self.asking).await;
        let response = self.finish(answer);
        self.done(None);
        response
    }

    fn finish(&mut self, answer: Result<Response, Box<Response>>) -> Response {
        let mut response = answer.unwrap_or_else(|failed| *failed);
        self.gateway.note(&self.asking, &mut response);
        if let Some(cookie) = self.asking.cookie.take() {
            stick(response.fields.to_mut(), cookie);
        }
        match self.after.take() {
            Some(after) => after(response),
            None => response,
        }
    }

    /// The answer was written: what memory there is serves the next exchange.
    pub fn done(mut self, response: Option<Response>) {
        if let Some(Response { fields: crate::response::ResponseFields::Own(fields), .. }) = response {
            self.asking.memory = fields;
        }
        self.gateway.keep(self.asking);
    }
}
