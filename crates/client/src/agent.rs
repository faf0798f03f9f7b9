//! The user agent: one request of the user becomes as many exchanges as it takes. Cookies, credentials,
//! redirections, and the one retry that is safe without asking (RFC 9110 §9.2.2) are decided here by the tables
//! of `semantics`; connections come from the pool.
//!
//! Does not decode content and does not write files.

use crate::connector::{self, Connector, OpenTimes, Route, Via};
use crate::credentials::{Credentials, Secret, digest_answer};
use crate::error::{Cause, Failure, Phase, RetrySafety};
use crate::exchange::Connection;
use crate::jar::Jar;
use crate::pipeline;
use crate::pool::{Pool, PoolLimits, Pooled};
use crate::proxies::Proxies;
use crate::transfer::{Content, Deadlines, Exchange, HeadKind};
use eleven_messaging::ResponseHead;
use eleven_messaging::client::Request;
use eleven_messaging::server::Length;
use eleven_net::clock;
use eleven_net::conduit::Conduit;
use eleven_semantics::auth::{self, Able, basic, digest};
use eleven_semantics::cookie::Context;
use eleven_semantics::redirect::{self, Chain, Downgrade, Step};
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Known, Method, Status, Version};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Content of a redirection or challenge that is read away so that its connection can be used again.
const DRAIN_BYTES_MAX: usize = 64 * 1024;

/// How an agent behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Follow redirections.
    pub follow: bool,
    /// Redirections followed at most.
    pub redirects_max: usize,
    /// What to do with a redirection from https to http.
    pub downgrade: Downgrade,
    /// Send Referer on redirections.
    pub auto_referer: bool,
    /// The value of User-Agent; none is sent if empty.
    pub user_agent: String,
    /// Send Basic and Bearer credentials before being asked.
    pub preemptive: bool,
    /// Deadlines of an exchange.
    pub deadlines: Deadlines,
    /// For everything up to the final head, in milliseconds; `u64::MAX` for none.
    pub total_timeout_ms: u64,
    /// Retries without asking when a connection closes under a request that can be repeated.
    pub automatic_retries_max: u32,
    /// The socket all requests go to, instead of the URI's host.
    pub unix_socket: Option<PathBuf>,
    /// Octets read at a time.
    pub read_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            follow: true,
            redirects_max: redirect::REDIRECTS_MAX,
            downgrade: Downgrade::Refuse,
            auto_referer: false,
            user_agent: concat!("eleven/", env!("CARGO_PKG_VERSION")).to_owned(),
            preemptive: true,
            deadlines: Deadlines::default(),
            total_timeout_ms: u64::MAX,
            automatic_retries_max: 1,
            unix_socket: None,
            read_bytes: crate::exchange::READ_BYTES,
        }
    }
}

/// What a user asks for.
#[derive(Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Where.
    pub uri: Uri,
    /// Fields beside those that the agent makes (User-Agent, Cookie, Authorization, Referer).
    pub fields: Fields,
    /// The content.
    pub content: Content,
    /// Its length.
    pub length: Length,
    /// The version to speak.
    pub version: Version,
    /// Wait for 100 before sending content.
    pub expect_continue: bool,
    /// Close the connection afterwards.
    pub close: bool,
}

impl Ask {
    /// A GET.
    pub fn get(uri: Uri) -> Ask {
        Ask {
            method: Method::Get,
            uri,
            fields: Fields::new(),
            content: Content::None,
            length: Length::Absent,
            version: Version::Http11,
            expect_continue: false,
            close: false,
        }
    }
}

/// How long the parts of the last exchange took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Opening the connection; all zero if one was used again.
    pub open: OpenTimes,
    /// Waiting for a connection of the pool.
    pub blocked: Duration,
    /// From the connection to the final head.
    pub wait: Duration,
    /// An idle connection was used again.
    pub reused: bool,
}

/// What an agent tells while it works. The number names the exchange.
#[derive(Debug)]
pub enum Told<'a> {
    /// A request head is on its way out: [`Connection::queued`].
    Request(u64, &'a Connection, &'a Uri),
    /// An interim response.
    Interim(u64, &'a ResponseHead),
    /// A final response, the last one or one that leads on.
    Head(u64, &'a ResponseHead, &'a Times),
    /// The exchange is over: octets of content received, how long they took, and whether they were all.
    End(u64, u64, Duration, bool),
    /// The next request of a chain.
    Redirected(&'a Uri, &'a Uri),
    /// The request is sent again.
    Retry(&'a Failure, Duration),
}

/// Whoever listens.
pub type Listener = Rc<dyn Fn(&Told<'_>)>;

/// One redirection that was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Who redirected.
    pub from: Uri,
    /// How.
    pub status: Status,
    /// Whereto.
    pub to: Uri,
}

/// A user agent for one worker.
pub struct Agent {
    options: Options,
    connector: Connector,
    pool: Pool,
    proxies: Proxies,
    credentials: Credentials,
    jar: Option<RefCell<Jar>>,
    digests: RefCell<HashMap<String, (digest::Challenge, u32)>>,
    exchanges: Cell<u64>,
    listener: RefCell<Option<Listener>>,
    round_trip: Cell<Option<Duration>>,
}

/// A response whose content is still to be read.
pub struct Response {
    exchange: Exchange<Pooled>,
    /// The URI that answered.
    pub uri: Uri,
    /// The way there.
    pub hops: Vec<Hop>,
    /// How long it took.
    pub times: Times,
    /// Interim responses seen.
    pub interim: u32,
    /// The other protocol was switched to.
    pub switched: bool,
    end: TellEnd,
}

/// Tells the end of an exchange when it is dropped.
struct TellEnd {
    listener: Option<Listener>,
    id: u64,
    since: Instant,
    octets: u64,
    complete: bool,
}

impl Drop for TellEnd {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener(&Told::End(self.id, self.octets, clock::now() - self.since, self.complete));
        }
    }
}

impl Response {
    /// Its head.
    pub fn head(&self) -> &ResponseHead {
        self.exchange.connection().head()
    }

    /// Who answered.
    pub fn address(&self) -> Option<SocketAddr> {
        self.exchange.connection().address()
    }

    /// The connection, for how it reads.
    pub fn connection_mut(&mut self) -> &mut Connection {
        self.exchange.connection_mut()
    }

    /// The next piece of content; `None` when it is complete.
    ///
    /// # Errors
    /// Any failure.
    pub async fn data(&mut self) -> Result<Option<&[u8]>, Failure> {
        let data = self.exchange.data().await?;
        match data {
            Some(data) => self.end.octets += data.len() as u64,
            None => self.end.complete = true,
        }
        Ok(data)
    }

    /// As [`Response::data`], for whoever polls.
    ///
    /// # Errors
    /// Any failure.
    pub fn poll_data(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Option<&[u8]>, Failure>> {
        let data = std::task::ready!(self.exchange.poll_data(cx))?;
        match data {
            Some(data) => self.end.octets += data.len() as u64,
            None => self.end.complete = true,
        }
        std::task::Poll::Ready(Ok(data))
    }

    /// Octets of content to come, where that is known.
    pub fn content_left(&self) -> Option<u64> {
        self.head().framing.content_length().map(|length| length.saturating_sub(self.end.octets))
    }

    /// As [`Response::finish`], without waiting: a connection on which something is still to be sent is closed.
    pub fn finish_now(self) {
        let connection = self.exchange.connection();
        let at_rest = !connection.machine().is_sending() && connection.is_flushed();
        if self.exchange.is_complete() && !self.switched && at_rest {
            self.exchange.into_connection().release();
        }
    }

    /// Octets of content that may go by [`Response::convey`] instead of [`Response::data`].
    pub fn conveyable(&self) -> Option<u64> {
        self.exchange.conveyable()
    }

    /// Moves the next octets of content into an empty conduit, past this program's memory; how many.
    ///
    /// # Errors
    /// Any failure.
    pub async fn convey(&mut self, conduit: &mut Conduit, max: u64) -> Result<usize, Failure> {
        let count = self.exchange.convey(conduit, max).await?;
        self.end.octets += count as u64;
        Ok(count)
    }

    /// The trailer section, once the content is complete.
    pub fn trailers(&self) -> Option<&Fields> {
        self.exchange.trailers()
    }

    /// Whether the content is complete.
    pub fn is_complete(&self) -> bool {
        self.exchange.is_complete()
    }

    /// The exchange, for whoever drives it by hand.
    pub fn exchange_mut(&mut self) -> &mut Exchange<Pooled> {
        &mut self.exchange
    }

    /// Ends it: a connection whose response is complete goes back to the pool, any other is closed.
    pub async fn finish(mut self) {
        if self.exchange.is_complete() && !self.switched && self.exchange.settle().await.is_ok() {
            self.exchange.into_connection().release();
        }
    }

    /// Reads away what is left, within a limit, and ends it.
    pub async fn drain(mut self) {
        let mut octets = 0;
        while let Ok(Some(data)) = self.data().await {
            octets += data.len();
            if octets > DRAIN_BYTES_MAX {
                return; // cheaper to close
            }
        }
        self.finish().await;
    }

    /// The connection after a switch of protocols.
    pub fn into_connection(self) -> Pooled {
        self.exchange.into_connection()
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response({:?} from {})", self.head().status, self.uri)
    }
}

/// The state of one user request on its way through redirections and challenges.
struct Journey {
    ask: Ask,
    first: Uri,
    chain: Chain,
    hops: Vec<Hop>,
    /// An answer to a challenge, for the present origin.
    authorization: Option<Vec<u8>>,
    /// The challenge answered last, so that a repeated one is not answered again (9110-15.5.2-03).
    answered: bool,
    /// The same of a proxy's.
    proxy_answered: bool,
    referer: Option<String>,
    retries: u32,
    /// The jar's, when the present request was sent.
    generation: u64,
}

impl Agent {
    /// An agent.
    pub fn new(options: Options, connector: Connector, limits: PoolLimits) -> Agent {
        Agent {
            options,
            connector,
            pool: Pool::new(limits),
            proxies: Proxies::none(),
            credentials: Credentials::default(),
            jar: None,
            digests: RefCell::default(),
            exchanges: Cell::new(0),
            listener: RefCell::new(None),
            round_trip: Cell::new(None),
        }
    }

    /// Uses these proxies.
    #[must_use]
    pub fn with_proxies(mut self, proxies: Proxies) -> Agent {
        self.proxies = proxies;
        self
    }

    /// Uses these credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Agent {
        self.credentials = credentials;
        self
    }

    /// Keeps cookies in this jar. Without one no cookie is read or sent (6265-7.2-03a, 6265-7.2-03b).
    #[must_use]
    pub fn with_jar(mut self, jar: Jar) -> Agent {
        self.jar = Some(RefCell::new(jar));
        self
    }

    /// Tells `listener` what happens.
    pub fn listen(&self, listener: Option<Listener>) {
        *self.listener.borrow_mut() = listener;
    }

    /// The jar.
    pub fn jar(&self) -> Option<&RefCell<Jar>> {
        self.jar.as_ref()
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The round trip measured last.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.get()
    }

    fn tell(&self, told: &Told<'_>) {
        let listener = self.listener.borrow().clone();
        if let Some(listener) = listener {
            listener(told);
        }
    }

    /// Sends a request and follows where it leads. The response's content is still to be read.
    ///
    /// # Errors
    /// Why there is no final response.
    pub async fn send(&self, ask: Ask) -> Result<Response, Failure> {
        if ask.method == Method::Trace && ask.length != Length::Absent {
            let text = "TRACE has no content".to_owned(); // 9110-9.3.8-04
            return Err(Failure::new(Phase::Prepare, Cause::Unusable(text)));
        }
        let mut journey = Journey::new(ask, &self.options);
        let limit = self.options.total_timeout_ms;
        if limit == u64::MAX {
            return self.travel(&mut journey).await;
        }
        match tokio::time::timeout(Duration::from_millis(limit), self.travel(&mut journey)).await {
            Ok(result) => result,
            Err(_) => {
                Err(Failure::new(Phase::Head, Cause::Timeout(limit))
                    .at(journey.ask.uri.host_and_port(), None))
            }
        }
    }

    async fn travel(&self, journey: &mut Journey) -> Result<Response, Failure> {
        loop {
            journey.generation = self.generation();
            let mut response = self.attempt(journey).await?;
            let status = response.head().status;
            self.take_cookies(&response);
            if status == Status::UNAUTHORIZED && !journey.answered && self.answer(journey, &response) {
                journey.answered = true;
                journey.renew_content()?;
                response.drain().await;
                continue;
            }
            if self.changes_its_wish(journey, &response) {
                journey.renew_content()?;
                response.drain().await;
                continue;
            }
            let step = match self.next_step(journey, &response) {
                Ok(Some(step)) => step,
                Ok(None) => {
                    response.hops = std::mem::take(&mut journey.hops);
                    return Ok(response);
                }
                Err(failure) => {
                    response.drain().await;
                    return Err(failure);
                }
            };
            self.tell(&Told::Redirected(&response.uri, &step.uri));
            response.drain().await;
            journey.take_step(step, status, self.options.auto_referer)?;
        }
    }

    /// Whether a refusal is answered by another request of the same kind: to a proxy with the credentials it asks for
    /// (9110-15.5.8-02), or without an expectation that cannot be met (9110-10.1.1-06).
    fn changes_its_wish(&self, journey: &mut Journey, response: &Response) -> bool {
        let head = response.head();
        match head.status {
            Status::PROXY_AUTHENTICATION_REQUIRED if !journey.proxy_answered => {
                let Via::Proxy(proxy) = self.route(&journey.ask.uri).via else { return false };
                let challenges = auth::challenges(&head.fields, Known::ProxyAuthenticate);
                let own = journey.ask.fields.contains(Known::ProxyAuthorization);
                journey.proxy_answered =
                    !own && self.connector.proxy_secrets().challenged(&proxy, &challenges);
                journey.proxy_answered
            }
            Status::EXPECTATION_FAILED => std::mem::replace(&mut journey.ask.expect_continue, false),
            _ => false,
        }
    }

    fn generation(&self) -> u64 {
        self.jar.as_ref().map_or(0, |jar| jar.borrow().generation())
    }

    fn next_step(&self, journey: &mut Journey, response: &Response) -> Result<Option<Step>, Failure> {
        if !self.options.follow {
            return Ok(None);
        }
        let head = response.head();
        let generations = (journey.generation, self.generation());
        match journey.chain.follow(
            &journey.ask.method,
            &journey.ask.uri,
            head.status,
            &head.fields,
            generations,
        ) {
            Ok(step) => Ok(Some(step)),
            Err(why) if why.is_final() => Ok(None),
            Err(why) => Err(Failure::new(Phase::Head, Cause::Redirect(why))
                .at(journey.ask.uri.host_and_port(), response.address())),
        }
    }

    /// One exchange, with the retries that are safe without asking.
    async fn attempt(&self, journey: &mut Journey) -> Result<Response, Failure> {
        let mut fresh = false;
        loop {
            let (failure, reused) = match self.exchange(journey, fresh).await {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            // Only what closed without a word: a timeout or a broken protocol would come again.
            let closed = failure.cause == Cause::Closed
                && matches!(failure.phase, Phase::Send | Phase::Head)
                && failure.retry.is_safe();
            // 9110-9.2.2-03: an automatic retry that failed is not retried; a stale idle connection is none.
            let allowed = reused || journey.retries < self.options.automatic_retries_max;
            if !(closed && allowed) || journey.renew_content().is_err() {
                return Err(failure);
            }
            let mut pause = Duration::ZERO;
            if !reused {
                // RFC 2616 §8.2.4: T = R * 2^N before the Nth retry.
                pause = crate::transfer::back_off(self.round_trip.get(), journey.retries);
                journey.retries += 1;
            }
            self.tell(&Told::Retry(&failure, pause));
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            fresh = true;
        }
    }

    /// One exchange up to its final head. A failure comes with whether an idle connection was used.
    async fn exchange(&self, journey: &mut Journey, fresh: bool) -> Result<Response, (Failure, bool)> {
        let uri = journey.ask.uri.clone();
        let route = self.route(&uri);
        let fields = self.fields(journey, &route).map_err(|failure| (failure, false))?;
        let begun = clock::now();
        let open_times = Cell::new(OpenTimes::default());
        let opened = Cell::new(Duration::ZERO);
        let connect = || async {
            let begun = clock::now();
            let (connection, times) = self.connector.open(&uri, &route).await?;
            open_times.set(times);
            opened.set(clock::now() - begun);
            self.round_trip.set(Some(times.connect));
            Ok(connection)
        };
        let pooled = if fresh {
            self.pool.checkout_fresh(&route.key, connect).await
        } else {
            self.pool.checkout(&route.key, connect).await
        };
        let mut pooled = pooled.map_err(|failure| (failure, false))?;
        pooled.set_read_bytes(self.options.read_bytes);
        let reused = pooled.is_reused();
        let sent_at = clock::now();
        let mut times = Times {
            open: open_times.get(),
            blocked: (sent_at - begun).saturating_sub(opened.get()),
            wait: Duration::ZERO,
            reused,
        };
        let mut interim = 0;
        let id = self.exchanges.get();
        self.exchanges.set(id + 1);
        let result =
            self.converse(id, journey, &route, &fields, pooled, sent_at, &mut times, &mut interim).await;
        let (exchange, switched) = result.map_err(|failure| (failure, reused))?;
        let end = TellEnd {
            listener: self.listener.borrow().clone(),
            id,
            since: clock::now(),
            octets: 0,
            complete: exchange.is_complete(),
        };
        Ok(Response { exchange, uri, hops: Vec::new(), times, interim, switched, end })
    }

    #[allow(clippy::too_many_arguments)]
    async fn converse(
        &self,
        id: u64,
        journey: &mut Journey,
        route: &Route,
        fields: &Fields,
        pooled: Pooled,
        sent_at: Instant,
        times: &mut Times,
        interim: &mut u32,
    ) -> Result<(Exchange<Pooled>, bool), Failure> {
        let ask = &mut journey.ask;
        let absolute = matches!(route.via, Via::Proxy(_)).then(|| ask.uri.without_fragment());
        let target = absolute.as_deref().unwrap_or_else(|| ask.uri.path_and_query());
        let authority = ask.uri.authority();
        let request = Request {
            length: ask.length,
            version: ask.version,
            expect_continue: ask.expect_continue,
            te_trailers: true,
            close: ask.close,
            ..Request::new(&ask.method, target.as_bytes(), authority.as_bytes(), fields)
        };
        let content = std::mem::take(&mut ask.content);
        // A second one like it stays for a retry or a redirection that keeps the content.
        if let Some(again) = content.again() {
            ask.content = again;
        }
        let mut exchange = Exchange::begin(pooled, &request, content, self.options.deadlines)?;
        self.tell(&Told::Request(id, exchange.connection(), &ask.uri));
        let kind = exchange
            .head(|head| {
                *interim += 1;
                self.tell(&Told::Interim(id, head));
            })
            .await?;
        times.wait = clock::now() - sent_at;
        self.tell(&Told::Head(id, exchange.connection().head(), times));
        Ok((exchange, kind == HeadKind::Switched))
    }

    /// Sends several requests ahead of their answers, on a connection of the pool that was seen to persist. All of
    /// them must be GET to one origin. Redirections, challenges and retries are the caller's: what comes back is
    /// what each request got, in order, and what got nothing.
    ///
    /// `None` if no connection is fit: an ordinary request first makes one.
    ///
    /// # Errors
    /// If there is no connection at all.
    pub async fn pipelined(
        &self,
        asks: Vec<Ask>,
        depth: usize,
        sink: &mut dyn pipeline::Sink,
    ) -> Result<Option<pipeline::Ended>, Failure> {
        let Some(first) = asks.first().map(|ask| ask.uri.clone()) else { return Ok(None) };
        let route = self.route(&first);
        let mut prepared = Vec::with_capacity(asks.len());
        for ask in asks {
            if !ask.uri.same_origin(&first) || ask.method != Method::Get {
                let text = "only GET to one origin can be pipelined".to_owned();
                return Err(Failure::new(Phase::Prepare, Cause::Unusable(text)));
            }
            let journey = Journey::new(ask, &self.options);
            let fields = self.fields(&journey, &route)?;
            let absolute = matches!(route.via, Via::Proxy(_)).then(|| journey.ask.uri.without_fragment());
            let target = absolute.unwrap_or_else(|| journey.ask.uri.path_and_query().to_owned());
            prepared.push((target, journey.ask.uri.authority(), fields));
        }
        let mut pooled = self
            .pool
            .checkout(&route.key, || async { Ok(self.connector.open(&first, &route).await?.0) })
            .await?;
        if !pipeline::is_fit(&pooled) {
            pooled.release();
            return Ok(None);
        }
        pooled.set_read_bytes(64 * 1024);
        let requests: Vec<Request<'_>> = prepared
            .iter()
            .map(|(target, authority, fields)| {
                Request::new(&Method::Get, target.as_bytes(), authority.as_bytes(), fields)
            })
            .collect();
        let ended = pipeline::run(&mut pooled, &requests, depth, self.options.deadlines, sink).await;
        if ended.failure.is_none() {
            pooled.release();
        }
        Ok(Some(ended))
    }

    fn route(&self, uri: &Uri) -> Route {
        connector::route(uri, self.options.unix_socket.as_ref(), self.proxies.select(uri))
    }

    /// The fields of the next request.
    fn fields(&self, journey: &Journey, route: &Route) -> Result<Fields, Failure> {
        let ask = &journey.ask;
        let mut fields = Fields::with_capacity(256);
        let mut set = |name: Known, value: &[u8]| {
            fields.push(name, value).map_err(|error| {
                let text = format!("{}: {error}", name.name());
                Failure::new(Phase::Prepare, Cause::Unusable(text))
            })
        };
        if !self.options.user_agent.is_empty() && !ask.fields.contains(Known::UserAgent) {
            set(Known::UserAgent, self.options.user_agent.as_bytes())?; // 9110-10.1.5-01
        }
        if !ask.fields.contains(Known::Accept) {
            set(Known::Accept, b"*/*")?;
        }
        if let Some(referer) = &journey.referer
            && !ask.fields.contains(Known::Referer)
        {
            set(Known::Referer, referer.as_bytes())?;
        }
        // 9110-9.3.8-02: what TRACE carries comes back, and to whoever looks on.
        let secrets = ask.method != Method::Trace;
        if secrets
            && !ask.fields.contains(Known::Authorization)
            && let Some(value) = self.authorization(journey)
        {
            set(Known::Authorization, &value)?;
        }
        if let Some(jar) = self.jar.as_ref().filter(|_| secrets) {
            let context = context_of(&ask.uri);
            let jar_value = jar.borrow_mut().field(&context, ask.method.is_safe(), clock::unix_seconds());
            // 6265-5.4-01: one Cookie field; what the user wrote by hand joins it.
            let own = ask.fields.get(Known::Cookie);
            let value = match (own, jar_value) {
                (Some(own), Some(value)) => Some([own, b"; ", &value].concat()),
                (Some(own), None) => Some(own.to_vec()),
                (None, value) => value,
            };
            if let Some(value) = value {
                set(Known::Cookie, &value)?;
            }
        }
        if let Via::Proxy(proxy) = &route.via
            && !ask.fields.contains(Known::ProxyAuthorization)
            && let Some(value) = {
                let target = ask.uri.without_fragment();
                self.connector.proxy_secrets().value(proxy, ask.method.as_str(), &target)
            }
        {
            set(Known::ProxyAuthorization, &value)?;
        }
        let with_jar = self.jar.is_some();
        let mut given = ask.fields.clone();
        given.retain(|field| {
            let secret = field.known == Some(Known::Cookie) || redirect::is_sensitive_name(field.name);
            (secrets || !secret) && !(with_jar && field.known == Some(Known::Cookie))
        });
        fields.extend(&given);
        Ok(fields)
    }

    /// Credentials for the next request: the answer to a challenge, a nonce that is still good, or what may go
    /// without being asked for.
    fn authorization(&self, journey: &Journey) -> Option<Vec<u8>> {
        if let Some(value) = &journey.authorization {
            return Some(value.clone());
        }
        let ask = &journey.ask;
        let secret = self.credentials.find(&journey.first, &ask.uri)?;
        let mut digests = self.digests.borrow_mut();
        if let (Some((challenge, count)), Secret::Password { user, password }) =
            (digests.get_mut(&origin_of(&ask.uri)), &secret)
        {
            *count += 1;
            let (method, target) = (ask.method.as_str(), ask.uri.path_and_query());
            return digest_answer(challenge, user, password, method, target, *count);
        }
        if !self.options.preemptive {
            return None;
        }
        match &secret {
            Secret::Bearer(token) => auth::bearer(token),
            Secret::Password { user, password } => basic::encode(user, password).ok(),
        }
    }

    /// Answers a 401, if there is something to answer with that was not just refused.
    fn answer(&self, journey: &mut Journey, response: &Response) -> bool {
        if journey.ask.fields.contains(Known::Authorization) || !journey.ask.content.is_replayable() {
            return false;
        }
        let Some(secret) = self.credentials.find(&journey.first, &journey.ask.uri) else { return false };
        let challenges = auth::challenges(&response.head().fields, Known::WwwAuthenticate);
        let password = matches!(secret, Secret::Password { .. });
        // What went out before being asked was refused: only something else is worth another try.
        let asked_first = !self.options.preemptive;
        let able = Able {
            bearer: matches!(secret, Secret::Bearer(_)) && asked_first,
            digest: password,
            basic: password
                && (asked_first || self.digests.borrow().contains_key(&origin_of(&journey.ask.uri))),
        };
        let Some(chosen) = auth::choose(&challenges, able) else { return false };
        journey.authorization = match (&secret, digest::Challenge::read(chosen)) {
            (Secret::Password { user, password }, Ok(challenge)) => {
                let (method, target) = (journey.ask.method.as_str(), journey.ask.uri.path_and_query());
                let value = digest_answer(&challenge, user, password, method, target, 1);
                self.digests.borrow_mut().insert(origin_of(&journey.ask.uri), (challenge, 1));
                value
            }
            (Secret::Password { user, password }, Err(_)) => basic::encode(user, password).ok(),
            (Secret::Bearer(token), _) => auth::bearer(token),
        };
        journey.authorization.is_some()
    }

    fn take_cookies(&self, response: &Response) {
        if let Some(jar) = &self.jar {
            let context = context_of(&response.uri);
            let fields = &response.head().fields;
            jar.borrow_mut().receive(fields.all(Known::SetCookie), &context, clock::unix_seconds());
        }
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agent({:?})", self.pool)
    }
}

impl Journey {
    fn new(ask: Ask, options: &Options) -> Journey {
        Journey {
            first: ask.uri.clone(),
            chain: Chain::new(options.redirects_max, options.downgrade),
            ask,
            hops: Vec::new(),
            authorization: None,
            answered: false,
            proxy_answered: false,
            referer: None,
            retries: 0,
            generation: 0,
        }
    }

    /// Makes the content ready to be sent again. [`Agent::converse`] keeps a second one where there can be one.
    fn renew_content(&self) -> Result<(), Failure> {
        if matches!(self.ask.content, Content::None)
            && !matches!(self.ask.length, Length::Absent | Length::Known(0))
        {
            let text = "the content cannot be sent a second time".to_owned();
            return Err(Failure::new(Phase::Send, Cause::Unusable(text)).retry(RetrySafety::Never));
        }
        Ok(())
    }

    fn take_step(&mut self, step: Step, status: Status, auto_referer: bool) -> Result<(), Failure> {
        let from = std::mem::replace(&mut self.ask.uri, step.uri.clone());
        if auto_referer {
            self.referer = redirect::referer(&from, &step.uri);
        }
        redirect::rewrite_fields(&mut self.ask.fields, &step);
        if step.content == redirect::Content::Drop {
            self.ask.content = Content::None;
            self.ask.length = Length::Absent;
        } else {
            self.renew_content()?;
        }
        self.ask.method = step.method;
        self.authorization = None;
        self.answered = false;
        self.hops.push(Hop { from, status, to: step.uri });
        Ok(())
    }
}

fn context_of(uri: &Uri) -> Context<'_> {
    Context { host: uri.host(), path: uri.path().as_bytes(), secure: uri.is_secure(), same_site: true }
}

fn origin_of(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme().as_str(), uri.host_and_port())
}

#[cfg(test)]
mod tests;
