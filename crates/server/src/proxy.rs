//! The gateway (RFC 9110 §3.7; what everybody calls a reverse proxy): a request goes to one of a group of servers,
//! its response comes back. Says where a request goes, under which target and host, how often it is tried, and what
//! a failure is called. The forward proxy is `proxy/open.rs`, its neighbour with other rules of who may go where.
//!
//! What is forwarded is decided in `eleven_semantics::forwarding`; octets are moved in `proxy/flow.rs`.

pub mod asking;
pub mod buffer;
pub mod caching;
pub mod flow;
pub mod health;
pub mod open;
pub mod shared;
pub mod sticky;
mod timing;
pub mod tunnel;
pub mod upstream;

use crate::before::client::TrustedProxies;
use crate::handler::Handled;
use crate::refusal::refusal;
use crate::request::{Peer, Request, RequestContent};
use crate::response::{Content, Response};
use asking::{Soon, Spare};
use buffer::{BufferPlan, Buffered};
use eleven_client::error::{Cause, Failure, Phase, RetrySafety};
use eleven_client::exchange::Connection;
use eleven_client::pool::{Key, Pool, PoolLimits, Pooled};
use eleven_messaging::client::Request as Outgoing;
use eleven_messaging::{CloseReason, Config, Expectation, Framing, Length, Malformed};
use eleven_net::dial::Dialer;
use eleven_net::resolve::Resolver;
use eleven_net::{Stream, dial, proxy_protocol, resolve};
use eleven_semantics::forwarding::{self, Hop, Onward, Provenance, Refusal, Rules, Told};
use eleven_semantics::names::Known;
use eleven_semantics::proxy_status::{self, ProxyError};
use eleven_semantics::target::{self, Form, InvalidPath, Scheme};
use eleven_semantics::{Fields, Method, Status, Version};
use flow::{Answered, Failed, Flow, Incoming, Timeouts, Upload, Watch};
use health::HealthPlan;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use sticky::{Sticky, StickyPlan};
use tunnel::{Tunnel, TunnelLimits};
use upstream::{Balance, Budget, Ejection, Group, HashKey, Place, Server, ServerPlan, Shared};

/// How often the pool looks for connections that were closed.
const SWEEP: Duration = Duration::from_secs(5);

/// What an attempt counts that a server may have worked on, compared with one that cost it nothing.
const ATTEMPT_WEIGHT: u32 = 4;

/// Which Host a server is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostPolicy {
    /// The client's.
    #[default]
    Keep,
    /// The server's own.
    Server,
    /// This one.
    Fixed(Box<str>),
}

/// A gateway, as configured; shared by all workers.
#[derive(Debug)]
pub struct GatewayPlan {
    /// The servers.
    pub servers: Vec<ServerPlan>,
    /// How one is chosen.
    pub balance: Balance,
    /// The cookie that brings a client back to the server it was given, if there is to be one.
    pub sticky: Option<StickyPlan>,
    /// Take all of a request's content before a server is asked, if so.
    pub buffer: Option<BufferPlan>,
    /// When one that fails is left alone.
    pub ejection: Ejection,
    /// Active checks.
    pub health: Option<HealthPlan>,
    /// Which Host servers are asked for.
    pub host: HostPolicy,
    /// What is forwarded.
    pub rules: Rules,
    /// Whose word on the client is kept (it is replaced otherwise).
    pub trusted: TrustedProxies,
    /// Deadlines of an exchange.
    pub timeouts: Timeouts,
    /// Deadlines of opening connections.
    pub dial: dial::Options,
    /// Connections.
    pub pool: PoolLimits,
    /// Limits of what servers may send.
    pub protocol: Arc<Config>,
    /// Times a request is tried at most; attempts that cost the server nothing count a quarter.
    pub attempts_max: u32,
    /// Retries allowed for every ten requests.
    pub retries_per_ten: u32,
    /// Tunnels.
    pub tunnels: TunnelLimits,
    /// Say in Proxy-Status what happened in words, addresses included.
    pub tell_details: bool,
    /// What all workers know of the servers.
    pub shared: Vec<Arc<Shared>>,
}

impl GatewayPlan {
    /// A gateway to these servers, under this name in Via, with everything else as it usually is.
    pub fn new(servers: Vec<ServerPlan>, pseudonym: &str) -> GatewayPlan {
        let shared = servers.iter().map(|_| Arc::default()).collect();
        let mut protocol = Config::default();
        // Whoever configures a gateway knows that its servers speak HTTP/1.1; one that turns out not to is
        // remembered.
        protocol.options.assume_http11 = true;
        GatewayPlan {
            servers,
            balance: Balance::default(),
            sticky: None,
            buffer: None,
            ejection: Ejection::default(),
            health: None,
            host: HostPolicy::default(),
            rules: Rules::gateway(pseudonym),
            trusted: TrustedProxies::default(),
            timeouts: Timeouts::default(),
            dial: dial::Options::default(),
            pool: PoolLimits {
                connections_per_origin_max: 1024,
                idle_per_origin_max: 256,
                ..PoolLimits::default()
            },
            protocol: Arc::new(protocol),
            attempts_max: 3,
            retries_per_ten: 2,
            tunnels: TunnelLimits::default(),
            tell_details: false,
            shared,
        }
    }
}

/// A name for Via that no other process has, so that two of us behind each other do not see a loop.
pub fn unique_pseudonym() -> String {
    let random = eleven_net::random::bytes::<4>().unwrap_or_default();
    format!("eleven-{:08x}", u32::from_ne_bytes(random))
}

/// A gateway as one worker runs it.
pub struct Gateway {
    plan: Arc<GatewayPlan>,
    group: Group,
    pool: Pool,
    dialer: Dialer,
    budget: Budget,
    sticky: Option<Sticky>,
    /// For content that is taken whole without being told to.
    short: BufferPlan,
    watch: Watch,
    spare: Spare,
    /// Rules for clients whose word is replaced, and for those whose word is kept.
    replace: Rc<Rules>,
    append: Rc<Rules>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gateway({} servers, {:?})", self.group.servers().len(), self.pool)
    }
}

impl Gateway {
    /// Starts a gateway on this worker, inside its runtime: tasks of its own sweep the pool and check servers.
    pub fn start(plan: Arc<GatewayPlan>) -> Rc<Gateway> {
        let dialer = Dialer::new(Resolver::new(resolve::Limits::default()), plan.dial.clone());
        Self::with_dialer(plan, dialer)
    }

    /// The same, connecting in this way.
    pub fn with_dialer(plan: Arc<GatewayPlan>, dialer: Dialer) -> Rc<Gateway> {
        let pool = Pool::new(plan.pool.clone());
        tokio::task::spawn_local(pool.clone().sweep_every(SWEEP));
        let told = match plan.rules.provenance {
            Provenance::Pass => Told::Nothing,
            Provenance::Replace(told) | Provenance::Append(told) => told,
        };
        let gateway = Rc::new(Gateway {
            group: Group::new(&plan.servers, &plan.shared, plan.balance.clone(), plan.ejection.clone()),
            dialer,
            pool,
            budget: Budget::new(plan.retries_per_ten),
            sticky: plan.sticky.as_ref().map(|sticky| Sticky::new(sticky, &plan.servers)),
            short: BufferPlan::short(),
            watch: Watch::start(),
            spare: Spare::default(),
            replace: Rc::new(plan.rules.clone()),
            append: Rc::new(Rules { provenance: Provenance::Append(told), ..plan.rules.clone() }),
            plan,
        });
        health::start(&gateway);
        tokio::task::spawn_local(tell_idle(Rc::downgrade(&gateway), gateway.plan.shared.clone()));
        gateway
    }

    /// Connections to the server at an index that lie idle.
    fn idle_of(&self, index: usize) -> i64 {
        let server = self.group.server(index);
        self.pool.idle_of(server.handle(&self.pool)) as i64
    }

    /// What it was made from.
    pub fn plan(&self) -> &GatewayPlan {
        &self.plan
    }

    /// Answers a request by asking a server.
    pub fn handle(self: &Rc<Self>, request: &mut Request) -> Handled {
        if request.head.method == Method::Trace {
            return not_traced().into();
        }
        match self.prepare(request) {
            Ok(asking) => Soon::ask(self, asking, request),
            Err(answer) => (*answer).into(),
        }
    }

    fn rules_for(&self, request: &Request) -> &Rc<Rules> {
        let trusted = request.peer.ip().is_some_and(|ip| self.plan.trusted.contains(ip));
        if trusted { &self.append } else { &self.replace }
    }

    async fn connect(&self, server: &Server, fresh: bool, peer: &Peer) -> Result<Pooled, Failure> {
        let mut key = Rc::clone(&server.key);
        let header = server.plan.proxy_protocol.map(|version| proxy_header(version, peer));
        if let Some(header) = &header {
            // A connection is one client's, and said so in its first octets.
            let isolation = xxhash_rust::xxh3::xxh3_64(header);
            key = Rc::new(Key { isolation, ..(*key).clone() });
        }
        // Boxed where it is rare: every request carries the memory of this future, and few open a connection.
        let open = || Box::pin(self.open(server, header.as_deref()));
        let checkout = async {
            if fresh {
                Box::pin(self.pool.checkout_fresh(&key, open)).await
            } else {
                self.pool.checkout(&key, open).await
            }
        };
        let dial = &self.plan.dial;
        let longest_ms = self.plan.timeouts.queue_timeout_ms
            + dial.resolve_timeout_ms
            + dial.connect_timeout_ms
            + dial.tls_timeout_ms;
        within(longest_ms, checkout).await
    }

    /// Opens a connection to a server.
    async fn open(&self, server: &Server, header: Option<&[u8]>) -> Result<Connection, Failure> {
        let (mut stream, address): (Stream, Option<SocketAddr>) = match &server.plan.place {
            Place::Tcp { host, port } => {
                let (stream, address) = self.dialer.tcp(host, *port).await.map_err(Failure::dial)?;
                (stream, Some(address))
            }
            Place::Unix(path) => (self.dialer.unix(path).await.map_err(Failure::dial)?, None),
        };
        if let Some(header) = header {
            stream.write_all(header).await.map_err(|error| Failure::io(Phase::Connect, &error))?;
        }
        if let (Some(tls), Place::Tcp { host, .. }) = (&server.plan.tls, &server.plan.place) {
            stream = self.dialer.tls(stream, host, tls).await.map_err(Failure::dial)?;
        }
        server.opened();
        let name = String::from_utf8_lossy(&server.authority).into_owned();
        Ok(Connection::new(stream, Arc::clone(&self.plan.protocol), name, address))
    }

    /// The target for a server, where it is not the one received (9110-7.7-03): it was rewritten, or has dot
    /// segments that the server might resolve differently than whoever judged the request (fault X21).
    fn other_target(&self, request: &mut Request, server: &Server) -> Result<Option<Vec<u8>>, InvalidPath> {
        if request.head.target.form() == Form::Asterisk {
            return Ok(None);
        }
        let canonical = request.rewritten_path().is_some() || has_dot_segment(request.head.target.path());
        if !canonical && server.plan.prefix.is_empty() {
            return Ok(None);
        }
        let mut out = server.plan.prefix.as_bytes().to_vec();
        if canonical {
            target::push_encoded_path(&mut out, request.path()?);
        } else {
            out.extend_from_slice(request.head.target.path());
        }
        if let Some(query) = request.head.target.query() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        Ok(Some(out))
    }

    fn host<'a>(&'a self, host: &'a [u8], server: &'a Server) -> &'a [u8] {
        match &self.plan.host {
            HostPolicy::Keep if !host.is_empty() => host,
            HostPolicy::Keep | HostPolicy::Server => &server.authority,
            HostPolicy::Fixed(host) => host.as_bytes(),
        }
    }

    fn hash(&self, request: &Request) -> Option<u64> {
        let Balance::Hash(key) = &self.plan.balance else { return None };
        let hash = |bytes: &[u8]| xxhash_rust::xxh3::xxh3_64(bytes);
        match key {
            // The client's, not that of a trusted proxy before us: all would go to one server.
            HashKey::Address => Some(match request.client {
                Some(std::net::IpAddr::V4(ip)) => hash(&ip.octets()),
                Some(std::net::IpAddr::V6(ip)) => hash(&ip.octets()),
                None => 0,
            }),
            HashKey::Field(name) => request.head.fields.get(&**name).map(hash),
            HashKey::Cookie(name) => cookie(&request.head.fields, name.as_bytes()).map(hash),
        }
    }

    fn respond(&self, answered: Answered, offered: Option<&[u8]>) -> Result<Response, Box<Response>> {
        response(answered, offered, self.plan.tunnels).map_err(|error| self.error(error, None).into())
    }

    fn refused(&self, refusal: Refusal) -> Response {
        refused(refusal, &self.plan.rules.pseudonym)
    }

    fn failed(&self, failure: &Failure) -> Response {
        tracing::debug!(%failure, "a server did not answer");
        self.error(proxy_error(failure), Some(failure))
    }

    fn error(&self, error: ProxyError, failure: Option<&Failure>) -> Response {
        let details = failure.filter(|_| self.plan.tell_details).map(Failure::to_string);
        error_response(error, &self.plan.rules.pseudonym, details.as_deref())
    }
}

/// A connection, waited for no longer than this.
async fn within(
    longest_ms: u64,
    checkout: impl Future<Output = Result<Pooled, Failure>>,
) -> Result<Pooled, Failure> {
    match tokio::time::timeout(Duration::from_millis(longest_ms), checkout).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(Phase::Prepare, Cause::Timeout(longest_ms)).retry(RetrySafety::NotSent)),
    }
}

/// Tells the figures once a second how many connections lie idle here. A gateway that ended has none.
async fn tell_idle(gateway: std::rc::Weak<Gateway>, shared: Vec<Arc<Shared>>) {
    let mut told = vec![0; shared.len()];
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let gateway = gateway.upgrade();
        for (index, (shared, told)) in shared.iter().zip(&mut told).enumerate() {
            let idle = gateway.as_ref().map_or(0, |gateway| gateway.idle_of(index));
            shared.idle.fetch_add(idle - std::mem::replace(told, idle), Ordering::Relaxed);
        }
        if gateway.is_none() {
            return;
        }
    }
}

/// The authority of the target URI, as the client wrote it (9112-3.2.2-03, 9112-3.2.2-04: the target's wins).
fn authority(request: &Request) -> Vec<u8> {
    let text = request.head.target.authority().or_else(|| request.head.fields.get(Known::Host));
    text.unwrap_or_default().to_vec()
}

fn hop<'a>(peer: &Peer, host: &'a [u8]) -> Hop<'a> {
    Hop { address: peer.ip(), secure: peer.scheme == Scheme::Https, host }
}

/// The Upgrade a client offers, before the fields of the hop are removed.
fn offered_upgrade(request: &Request) -> Option<Vec<u8>> {
    request.head.fields.combined(Known::Upgrade).map(Cow::into_owned)
}

/// How the content is framed for the server.
fn length(request: &Request) -> Length {
    match (&request.content, request.head.framing) {
        (_, Framing::None) => Length::Absent,
        (_, Framing::Length(length)) => Length::Known(length),
        // Decoded and complete: its length is known now.
        (RequestContent::Whole(bytes, None), _) => Length::Known(bytes.len() as u64),
        _ => Length::Unknown,
    }
}

fn upload(content: RequestContent) -> Upload {
    match content {
        RequestContent::Empty => Upload::None,
        RequestContent::Whole(bytes, trailers) => {
            Upload::Whole(bytes, trailers.map(|fields| Rc::new(*fields)))
        }
        RequestContent::Pipe(reader) => Upload::Pipe(reader),
    }
}

/// Sets a sticky cookie. No store may give it to anybody else (9111-5.2.2.7-03a, 9111-5.2.2.7-04).
fn stick(fields: &mut Fields, cookie: Vec<u8>) {
    // Both were built by a grammar that is narrower than that of field values.
    let _ = fields.push(Known::SetCookie, cookie);
    let _ = fields.push(Known::CacheControl, "private=\"Set-Cookie\"");
}

/// Takes all of the content, if it is not here already.
async fn buffer(plan: &BufferPlan, request: &mut Request) -> Result<Option<Buffered>, Box<Response>> {
    let taken = match std::mem::take(&mut request.content) {
        RequestContent::Pipe(reader) => plan.take(reader, request.content_length).await.map(Some),
        RequestContent::Whole(bytes, _) if bytes.len() as u64 > plan.content_bytes_max => {
            Err(Status::CONTENT_TOO_LARGE)
        }
        other => {
            request.content = other;
            Ok(None)
        }
    };
    match taken {
        Ok(buffered) => Ok(buffered),
        Err(status) => {
            let mut response = Response::text(status, "text/plain; charset=utf-8", format!("{status}\n"));
            if status == Status::SERVICE_UNAVAILABLE {
                response.add(Known::RetryAfter, "1");
            }
            Err(response.into())
        }
    }
}

/// 9110-7.6.2-02: the answer of the final recipient.
fn final_recipient(method: &Method) -> Response {
    match method {
        Method::Options => {
            let mut response = Response::new(Status::NO_CONTENT);
            response.add(Known::Allow, METHODS);
            response
        }
        _ => not_traced(),
    }
}

/// What is passed on, whatever the next hop makes of it.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";

/// Why an expectation is refused: RFC 2616 §8.2.3.
const OLD_NEXT_HOP: &str = "The next server speaks HTTP/1.0 and cannot say 100 Continue.";

/// Fault X16: nobody gets his request echoed, nor the fields that others added to it. (9110-15.5.6-01)
fn not_traced() -> Response {
    let mut response = refusal(Status::METHOD_NOT_ALLOWED, "Requests are not echoed here.");
    response.add(Known::Allow, METHODS);
    response
}

/// A path with a segment that is, or reads once decoded as, `.` or `..`.
fn has_dot_segment(path: &[u8]) -> bool {
    let plain = |pair: &[u8]| pair != b"/." && pair[1] != b'%';
    if path.windows(2).all(plain) {
        return false; // no path begins with a percent sign
    }
    path.split(|&b| b == b'/')
        .any(|segment| segment.len() <= 6 && matches!(&target::percent_decode(segment)[..], b"." | b".."))
}

fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields
        .all(Known::Cookie)
        .flat_map(eleven_semantics::grammar::semicolons)
        .filter_map(|pair| pair.split_once_at(b'='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// `split_once` for octets.
trait SplitOnce {
    fn split_once_at(&self, at: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnce for [u8] {
    fn split_once_at(&self, at: u8) -> Option<(&[u8], &[u8])> {
        let index = memchr::memchr(at, self)?;
        Some((&self[..index], &self[index + 1..]))
    }
}

fn proxy_header(version: proxy_protocol::Version, peer: &Peer) -> Vec<u8> {
    let mut out = Vec::new();
    let header = match peer.address {
        Some(source) => {
            let ip = source.ip();
            let local = if ip.is_ipv4() {
                std::net::IpAddr::from([0, 0, 0, 0])
            } else {
                std::net::IpAddr::from([0u16; 8])
            };
            let destination = SocketAddr::new(local, peer.local_port);
            proxy_protocol::Header::Proxied { source, destination }
        }
        None => proxy_protocol::Header::Local,
    };
    proxy_protocol::write(&mut out, version, &header);
    out
}

/// Our response from a server's.
fn response(
    answered: Answered,
    offered: Option<&[u8]>,
    limits: TunnelLimits,
) -> Result<Response, ProxyError> {
    let Answered { status, fields, content, .. } = answered;
    let content = match content {
        Incoming::Empty => Content::Empty,
        Incoming::Described(length) => Content::Described(length),
        Incoming::Whole(bytes) => Content::Bytes(bytes),
        Incoming::Pipe(reader, length) => Content::Pipe(reader, length),
        Incoming::Flow(flowing, length) => Content::Flow(flowing, length),
        Incoming::Switched(connection, held) => {
            if !is_offered(&fields, offered) {
                return Err(ProxyError::HttpUpgradeFailed); // 9110-7.8-05
            }
            let (inbound, early) = connection.into_tunnel();
            Content::Switch(Box::new(Tunnel { inbound, early, limits, held: Box::new(held) }))
        }
    };
    Ok(Response { status, fields: fields.into(), content, close: None, notes: None, whole: None })
}

/// 9110-7.8-05: the protocol chosen is one that was offered.
fn is_offered(fields: &Fields, offered: Option<&[u8]>) -> bool {
    let Some(offered) = offered else { return false };
    let mut chosen = fields.list(Known::Upgrade).peekable();
    chosen.peek().is_some()
        && chosen.all(|protocol| {
            eleven_semantics::grammar::list(offered).any(|offer| offer.eq_ignore_ascii_case(protocol))
        })
}

fn refused(refusal: Refusal, name: &str) -> Response {
    match refusal {
        Refusal::Loop | Refusal::TooManyHops => error_response(ProxyError::ProxyLoopDetected, name, None),
        Refusal::TooManyConnectionOptions | Refusal::MaxForwards => {
            let mut response =
                error_response(ProxyError::HttpRequestError, name, Some("malformed hop fields"));
            response.close = Some(CloseReason::Handler);
            response
        }
    }
}

/// What a failure is called towards the client (RFC 9209 §2.3).
fn proxy_error(failure: &Failure) -> ProxyError {
    use ProxyError as E;
    use std::io::ErrorKind as Io;
    match failure.broke {
        Some(Malformed::HeadCut | Malformed::BodyCut) => return E::HttpResponseIncomplete,
        Some(Malformed::FieldSectionTooLarge | Malformed::TooManyFields) => {
            return E::HttpResponseHeaderSectionSize;
        }
        Some(Malformed::TrailersTooLarge) => return E::HttpResponseTrailerSectionSize,
        Some(
            Malformed::TransferEncoding | Malformed::CodingUnknown | Malformed::Gzip | Malformed::GzipBomb,
        ) => {
            return E::HttpResponseTransferCoding;
        }
        Some(Malformed::SwitchUnasked) => return E::HttpUpgradeFailed,
        _ => {}
    }
    match (&failure.cause, failure.phase) {
        (Cause::Timeout(_), Phase::Prepare) => E::ConnectionLimitReached,
        (Cause::Timeout(_), Phase::Resolve) => E::DnsTimeout,
        (_, Phase::Resolve) => E::DnsError,
        (Cause::Timeout(_), Phase::Connect | Phase::Tunnel | Phase::Tls) => E::ConnectionTimeout,
        (Cause::Certificate(_), _) => E::TlsCertificateError,
        (_, Phase::Tls) => E::TlsProtocolError,
        // Another proxy said no.
        (Cause::Status(_), Phase::Tunnel) => E::ConnectionRefused,
        (Cause::Unusable(_), Phase::Connect) => E::DestinationIpProhibited,
        // No port, or no memory for another socket, is left to us (faults D42, D43).
        (Cause::Io(Io::AddrNotAvailable | Io::OutOfMemory, _), Phase::Connect) => E::ConnectionLimitReached,
        (Cause::Io(Io::HostUnreachable | Io::NetworkUnreachable, _), Phase::Connect) => {
            E::DestinationIpUnroutable
        }
        (_, Phase::Connect) => E::ConnectionRefused,
        (Cause::Unusable(_), Phase::Send) => E::HttpRequestError,
        (Cause::Timeout(_), Phase::Send) => E::ConnectionWriteTimeout,
        (Cause::Timeout(_), Phase::Head) => E::HttpResponseTimeout,
        (Cause::Timeout(_), _) => E::ConnectionReadTimeout,
        (Cause::Malformed(_), _) => E::HttpProtocolError,
        (_, Phase::Content) => E::HttpResponseIncomplete,
        _ => E::ConnectionTerminated,
    }
}

/// A response of our own about a request that could not be forwarded. Says nothing of the request, and of servers
/// only what `details` allows (faults L12, L13).
fn error_response(error: ProxyError, name: &str, details: Option<&str>) -> Response {
    let mut response = match details {
        None => refusal(error.status(), error.meaning()),
        Some(details) => refusal(error.status(), &format!("{}\n{details}", error.meaning())),
    };
    response.add(Known::ProxyStatus, proxy_status::value(name, error, None, details));
    response.notes().refused = Some(error.token());
    response
}

#[cfg(test)]
mod tests;
