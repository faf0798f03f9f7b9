//! The forward proxy (RFC 9110 §3.7): requests in absolute-form go to the origin server they name, CONNECT opens a
//! tunnel. Says who may use it and where it may lead: by default this machine's own programs, to the public
//! Internet, tunnels to port 443 only. There is no setting by which it is open to everybody by accident
//! (faults X10 to X15).

use super::flow::{Failed, Flow, Timeouts, Watch};
use super::timing::{Timing, UntilEnd};
use super::tunnel::{Tunnel, TunnelLimits};
use super::{
    authority, error_response, final_recipient, hop, length, offered_upgrade, proxy_error, response, upload,
    within,
};
use crate::before::auth::{Authentication, Denied, Judgement, Outcome};
use crate::handler::Handled;
use crate::refusal::refusal;
use crate::request::Request;
use crate::response::{Content, Response};
use eleven_client::connector::proxy_authorization;
use eleven_client::error::{Cause, Failure};
use eleven_client::exchange::{Connection, Event};
use eleven_client::pool::{Key, Pool, PoolLimits};
use eleven_client::proxies::Proxy;
use eleven_messaging::client::Request as Outgoing;
use eleven_messaging::{CloseReason, Config, Expectation};
use eleven_net::dial::{self, Destinations, Dialer};
use eleven_net::resolve::{self, Resolver};
use eleven_net::{PeerAddr, Stream, clock};
use eleven_semantics::forwarding::{self, Onward, Rules};
use eleven_semantics::names::Known;
use eleven_semantics::proxy_status::ProxyError;
use eleven_semantics::target::{Authority, Form, Scheme};
use eleven_semantics::{Fields, Method, Status, Version};
use ipnet::IpNet;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Origin servers whose version is remembered.
const VERSIONS_MAX: usize = 1024;
/// How long.
const VERSION_REMEMBERED: Duration = Duration::from_secs(300);

/// A forward proxy, as configured; shared by all workers.
#[derive(Debug)]
pub struct OpenPlan {
    /// Clients that need no password, beside this machine's own.
    pub clients: Vec<IpNet>,
    /// Passwords: whoever is not among the clients must have one. Without them, nobody else is served.
    pub authentication: Authentication,
    /// Special networks it may lead to, beside the public Internet (faults X11, X12).
    pub destinations: Vec<IpNet>,
    /// Ports that tunnels may lead to (fault X14).
    pub connect_ports: Vec<u16>,
    /// Ports this process listens on: a way back to itself is a loop (fault X15).
    pub own_ports: Vec<u16>,
    /// What is forwarded.
    pub rules: Rules,
    /// Deadlines of an exchange.
    pub timeouts: Timeouts,
    /// Deadlines of opening connections; their destinations are set from the above.
    pub dial: dial::Options,
    /// Connections.
    pub pool: PoolLimits,
    /// Limits of what servers may send.
    pub protocol: Arc<Config>,
    /// Tunnels.
    pub tunnels: TunnelLimits,
    /// Say in Proxy-Status what happened in words.
    pub tell_details: bool,
    /// The proxy through which everything goes. It looks names up, and says where they may lead; what is refused by
    /// its address alone is refused here.
    pub parent: Option<Parent>,
}

/// Another proxy, next on the way.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Where it is, with our credentials there.
    pub proxy: Proxy,
    /// TLS to it.
    pub tls: Option<Arc<eleven_net::tls_config::ClientConfig>>,
}

impl OpenPlan {
    /// A proxy under this name in Via, with everything else as it usually is.
    pub fn new(pseudonym: &str) -> OpenPlan {
        let mut protocol = Config::default();
        protocol.options.assume_http11 = true;
        OpenPlan {
            clients: Vec::new(),
            authentication: Authentication::default(),
            destinations: Vec::new(),
            connect_ports: vec![443],
            own_ports: Vec::new(),
            rules: Rules::proxy(pseudonym),
            timeouts: Timeouts::default(),
            dial: dial::Options::default(),
            pool: PoolLimits { connections_per_origin_max: 64, ..PoolLimits::default() },
            protocol: Arc::new(protocol),
            tunnels: TunnelLimits::default(),
            tell_details: true,
            parent: None,
        }
    }
}

/// A forward proxy as one worker runs it.
pub struct OpenProxy {
    plan: Arc<OpenPlan>,
    pool: Pool,
    dialer: Dialer,
    /// To the parent, which may be anywhere: the operator named it.
    to_parent: Dialer,
    rules: Rc<Rules>,
    watch: Watch,
    /// Servers that speak HTTP/1.0, and until when that is believed.
    old_servers: RefCell<HashMap<Rc<Key>, Instant>>,
}

impl std::fmt::Debug for OpenProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenProxy({:?})", self.pool)
    }
}

impl OpenProxy {
    /// Starts a forward proxy on this worker, inside its runtime.
    pub fn start(plan: Arc<OpenPlan>) -> Rc<OpenProxy> {
        Self::with_resolver(plan, Resolver::new(resolve::Limits::default()))
    }

    /// The same with this resolver.
    pub fn with_resolver(plan: Arc<OpenPlan>, resolver: Resolver) -> Rc<OpenProxy> {
        let pool = Pool::new(plan.pool.clone());
        tokio::task::spawn_local(pool.clone().sweep_every(super::SWEEP));
        let destinations = Destinations::Public(plan.destinations.clone().into());
        let options = dial::Options { destinations, ..plan.dial.clone() };
        let to_parent = Dialer::new(resolver.clone(), plan.dial.clone());
        Rc::new(OpenProxy {
            dialer: Dialer::new(resolver, options),
            to_parent,
            rules: Rc::new(plan.rules.clone()),
            watch: Watch::start(),
            pool,
            old_servers: RefCell::default(),
            plan,
        })
    }

    /// Answers a request: forwards it, opens a tunnel, or says why not.
    pub fn handle(self: &Rc<Self>, request: &mut Request) -> Handled {
        let proxy = Rc::clone(self);
        let request = request.take();
        Handled::later(async move {
            let version = request.head.version;
            let mut response = match proxy.admit(&request).await {
                Ok(()) if request.head.method == Method::Connect => proxy.connect(request).await,
                Ok(()) => proxy.ask(request).await.unwrap_or_else(|failed| *failed),
                Err(response) => *response,
            };
            if version < Version::Http11 && !matches!(response.content, Content::Switch(_)) {
                // 9112-9.3-07: keep-alive of HTTP/1.0 does not pass a proxy.
                response.close.get_or_insert(CloseReason::Handler);
            }
            response
        })
    }

    fn is_client(&self, address: Option<IpAddr>) -> bool {
        match address {
            // Over a Unix socket: this machine's own programs, those its mode lets in.
            None => true,
            Some(ip) => ip.is_loopback() || self.plan.clients.iter().any(|network| network.contains(&ip)),
        }
    }

    /// Who may use it (fault X10): known clients, and those with a password.
    pub(super) async fn admit(&self, request: &Request) -> Result<(), Box<Response>> {
        let authentication = &self.plan.authentication;
        if !authentication.is_required() {
            if self.is_client(request.peer.ip()) {
                return Ok(());
            }
            return Err(Box::new(self.error(ProxyError::HttpRequestDenied, None)));
        }
        if self.plan.clients.iter().any(|network| request.peer.ip().is_some_and(|ip| network.contains(&ip))) {
            return Ok(());
        }
        // The scheme's rules are those of Authorization (RFC 9110 §11.7.2), under another name.
        let mut credentials = Fields::new();
        for value in request.head.fields.all(Known::ProxyAuthorization) {
            let _ = credentials.push(Known::Authorization, value);
        }
        let now_s = clock::unix_seconds();
        let method = request.head.method.as_str();
        let judge = |target: &[u8]| authentication.judge(&credentials, method, target, now_s);
        let mut judgement = judge(request.head.target.as_bytes());
        if matches!(judgement, Judgement::Settled(Err(Denied::Malformed))) && request.is_absolute() {
            // RFC 7616 §3.4.6 wants the target that stands in the request line; curl and others name its path.
            judgement = judge(&request.head.target.path_and_query());
        }
        let outcome: Outcome = match judgement {
            Judgement::Settled(outcome) => outcome,
            Judgement::Hash(job) => {
                tokio::task::spawn_blocking(move || job.run()).await.unwrap_or(Err(Denied::Busy))
            }
        };
        let Err(why) = outcome else { return Ok(()) };
        tracing::debug!(reason = why.reason(), "a client of the forward proxy was not admitted");
        let mut response = match why {
            Denied::Malformed => refusal(Status::BAD_REQUEST, "Proxy-Authorization cannot be read."),
            Denied::Busy => {
                refusal(Status::SERVICE_UNAVAILABLE, "Too many passwords are being checked. Try again.")
            }
            // 9110-11.7.1-01, 9110-15.5.8-01
            Denied::Missing | Denied::Wrong | Denied::Stale => {
                let status = Status::PROXY_AUTHENTICATION_REQUIRED;
                let mut response = Response::text(status, "text/plain; charset=utf-8", format!("{status}\n"));
                let mut challenges = Fields::new();
                authentication.challenge(why, now_s, &mut challenges);
                for challenge in challenges.all(Known::WwwAuthenticate) {
                    response.add(Known::ProxyAuthenticate, challenge);
                }
                response
            }
        };
        if request.head.method == Method::Connect {
            response.close = Some(CloseReason::ConnectRefused);
        }
        Err(Box::new(response))
    }

    // --- requests in absolute-form ---

    /// Asks the server that a request names, which was admitted.
    ///
    /// # Errors
    /// The response that says so, if it did not answer: a cache may have something better.
    pub(super) async fn ask(&self, request: Request) -> Result<Response, Box<Response>> {
        let mut asked = Asked::for_log_of(&request);
        let mut result = self.exchange(request, &mut asked).await;
        match &mut result {
            Ok(response) => asked.note(response),
            Err(response) => asked.note(response),
        }
        result
    }

    async fn exchange(&self, mut request: Request, asked: &mut Asked) -> Result<Response, Box<Response>> {
        let Form::Absolute(scheme) = request.head.target.form() else {
            return Ok(refusal(
                Status::BAD_REQUEST,
                "This is a proxy: it takes targets in absolute-form, and CONNECT.",
            ));
        };
        if scheme != Scheme::Http {
            // Fault X23. Clients that want https use CONNECT, and keep their secrets to themselves.
            return Ok(refusal(Status::BAD_REQUEST, "Only http targets are forwarded."));
        }
        if request.head.method == Method::Trace {
            return Ok(super::not_traced());
        }
        let host = authority(&request);
        let offered = offered_upgrade(&request);
        let onward = forwarding::request(
            &request.head.method,
            request.head.version,
            request.head.framing.has_body(),
            &mut request.head.fields,
            &self.rules,
            &hop(&request.peer, &host),
        );
        let te_trailers = match onward {
            Ok(Onward::Forward { te_trailers, .. }) => te_trailers,
            Ok(Onward::AnswerHere) => return Ok(final_recipient(&request.head.method)),
            Err(refusal) => return Ok(super::refused(refusal, &self.rules.pseudonym)),
        };
        let Some((name, port)) = Authority::parse(&host).ok().and_then(|a| host_and_port(&a, 80)) else {
            return Ok(refusal(Status::BAD_REQUEST, "The target names no host and port."));
        };
        if let Some(parent) = &self.plan.parent {
            if self.is_refused_by_address(&name) {
                return Ok(self.error(ProxyError::DestinationIpProhibited, None));
            }
            if let Some(credentials) = proxy_authorization(&parent.proxy) {
                // Base64 is a valid value.
                let _ = request.head.fields.push(Known::ProxyAuthorization, credentials);
            }
        }
        let proxy = self.plan.parent.as_ref().map(|parent| parent.proxy.uri.host_and_port());
        let key = Rc::new(Key { host: name, port, proxy, ..Key::default() });
        let expects = request.head.expectation == Expectation::Continue;
        if expects && self.is_old(&key) {
            return Ok(refusal(Status::EXPECTATION_FAILED, super::OLD_NEXT_HOP));
        }
        let interim = request.interim();
        let length = length(&request);
        let mut upload = upload(std::mem::take(&mut request.content));
        let target = match &self.plan.parent {
            // 9112-3.2.2-01: to a proxy in absolute-form, as it came.
            Some(_) => request.head.target.as_bytes().to_vec(),
            None => onward_target(&request),
        };
        asked.server(&key.host, key.port);
        let mut fresh = false;
        loop {
            let outgoing = Outgoing {
                host: Some(&host),
                length,
                te_trailers,
                expect_continue: expects && matches!(upload, super::Upload::Pipe(_)),
                ..Outgoing::new(&request.head.method, &target, b"", &request.head.fields)
            };
            let open = || Box::pin(self.open(&key));
            let checkout = async {
                if fresh {
                    Box::pin(self.pool.checkout_fresh(&key, open)).await
                } else {
                    self.pool.checkout(&key, open).await
                }
            };
            asked.time(Timing::attempt);
            let connection = match within(self.longest_ms(), checkout).await {
                Ok(connection) => connection,
                Err(failure) => {
                    drop(asked.until_end());
                    return Err(self.failed(&failure).into());
                }
            };
            let (again, reused) = (upload.again(), connection.is_reused());
            asked.time(|timing| timing.connected(connection.address(), !reused));
            let rules = Rc::clone(&self.rules);
            let flow =
                Flow::begin(connection, None, &outgoing, upload, rules, self.plan.timeouts, &self.watch);
            let result = match flow {
                Ok(mut flow) => {
                    flow.measure(asked.until_end());
                    flow.answer(&interim).await
                }
                Err(failed) => Err(failed),
            };
            match result {
                Ok(answered) => {
                    self.learn(&key, answered.version);
                    return response(answered, offered.as_deref(), self.plan.tunnels)
                        .map_err(|error| self.error(error, None).into());
                }
                // Only what an idle connection did that the server had just closed is worth another attempt.
                Err(Failed { failure, upload: untouched }) => {
                    let stale = reused
                        && failure.cause == Cause::Closed
                        && failure.broke.is_none()
                        && failure.retry.is_safe();
                    match again.or(untouched) {
                        Some(next) if stale && !fresh => (upload, fresh) = (next, true),
                        _ => return Err(self.failed(&failure).into()),
                    }
                }
            }
        }
    }

    /// How long a connection may be waited for: until one is free, and for opening it.
    fn longest_ms(&self) -> u64 {
        let dial = &self.plan.dial;
        self.plan.timeouts.queue_timeout_ms
            + dial.resolve_timeout_ms
            + dial.connect_timeout_ms
            + dial.tls_timeout_ms
    }

    async fn open(&self, key: &Rc<Key>) -> Result<Connection, Failure> {
        if let Some(parent) = &self.plan.parent {
            return self.open_parent(parent).await;
        }
        let (stream, address) = self.dial(&key.host, key.port).await?;
        let name = format!("{}:{}", key.host, key.port);
        Ok(Connection::new(stream, Arc::clone(&self.plan.protocol), name, Some(address)))
    }

    async fn open_parent(&self, parent: &Parent) -> Result<Connection, Failure> {
        let uri = &parent.proxy.uri;
        let (mut stream, address) =
            self.to_parent.tcp(uri.host(), uri.port()).await.map_err(Failure::dial)?;
        if let Some(tls) = &parent.tls {
            stream = self.to_parent.tls(stream, uri.host(), tls).await.map_err(Failure::dial)?;
        }
        Ok(Connection::new(stream, Arc::clone(&self.plan.protocol), uri.host_and_port(), Some(address)))
    }

    /// Whether a destination needs no resolver to be refused.
    fn is_refused_by_address(&self, host: &str) -> bool {
        let destinations = &self.dialer.options().destinations;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => destinations.refuses(ip).is_some(),
            // RFC 6761 §6.3: these are the parent's own loopback.
            Err(_) if is_localhost(bare) => destinations.refuses(IpAddr::from([127, 0, 0, 1])).is_some(),
            // Whatever ends in a number is an address in some notation, which only its reader knows.
            Err(_) => bare
                .trim_end_matches('.')
                .rsplit('.')
                .next()
                .is_some_and(|label| label.starts_with(|first: char| first.is_ascii_digit())),
        }
    }

    /// Connects, and makes sure that it did not connect to this process (fault X15): who is reached under the
    /// address he is reached from is on this machine.
    async fn dial(&self, host: &str, port: u16) -> Result<(Stream, SocketAddr), Failure> {
        let (stream, address) = self.dialer.tcp(host, port).await.map_err(Failure::dial)?;
        let from_here = matches!(stream.local_addr(), Ok(PeerAddr::Ip(local)) if local.ip() == address.ip());
        if from_here && self.plan.own_ports.contains(&port) {
            let cause = Cause::Unusable("the destination is this proxy".into());
            return Err(Failure::new(eleven_client::Phase::Connect, cause).at(host, Some(address)));
        }
        Ok((stream, address))
    }

    fn is_old(&self, key: &Rc<Key>) -> bool {
        self.old_servers.borrow().get(key).is_some_and(|until| *until > clock::now())
    }

    fn learn(&self, key: &Rc<Key>, version: Version) {
        let mut old = self.old_servers.borrow_mut();
        if version == Version::Http11 {
            if !old.is_empty() {
                old.remove(key);
            }
            return;
        }
        if old.len() >= VERSIONS_MAX {
            let now = clock::now();
            old.retain(|_, until| *until > now);
            if old.len() >= VERSIONS_MAX {
                old.clear();
            }
        }
        old.insert(Rc::clone(key), clock::now() + VERSION_REMEMBERED);
    }

    // --- CONNECT ---

    async fn connect(&self, mut request: Request) -> Response {
        let mut asked = Asked::for_log_of(&request);
        let opened = self.tunnel(&mut request, &mut asked).await;
        drop(asked.until_end());
        let mut response = match opened {
            Ok(tunnel) => {
                let mut response = Response::new(Status::OK);
                response.content = Content::Switch(Box::new(tunnel));
                asked.note(&mut response);
                return response;
            }
            Err(response) => *response,
        };
        asked.note(&mut response);
        // What the client sent behind it is no request (RFC 9931 §3).
        response.close = Some(CloseReason::ConnectRefused);
        response
    }

    async fn tunnel(&self, request: &mut Request, asked: &mut Asked) -> Result<Tunnel, Box<Response>> {
        let refuse = |error| Err(Box::new(self.error(error, None)));
        let authority = request.head.target.authority().and_then(|text| Authority::parse(text).ok());
        let Some((host, port)) = authority.and_then(|authority| host_and_port(&authority, 0)) else {
            return refuse(ProxyError::HttpRequestError);
        };
        if !self.plan.connect_ports.contains(&port) {
            return refuse(ProxyError::HttpRequestDenied); // 9110-9.3.6-05, fault X14
        }
        // Fault X18: two proxies that take each other for the next would go round for ever.
        let head = &mut request.head;
        let hop = hop(&request.peer, b"");
        if let Err(refusal) =
            forwarding::request(&head.method, head.version, false, &mut head.fields, &self.rules, &hop)
        {
            return Err(super::refused(refusal, &self.rules.pseudonym).into());
        }
        asked.server(&host, port);
        asked.time(Timing::attempt);
        let opened = match &self.plan.parent {
            None => self.dial(&host, port).await.map(|(stream, _)| (stream, Vec::new())),
            Some(_) if self.is_refused_by_address(&host) => {
                return refuse(ProxyError::DestinationIpProhibited);
            }
            Some(parent) => self.tunnel_through(parent, &host, port, &head.fields).await,
        };
        match opened {
            Ok((inbound, early)) => {
                let address = match inbound.peer_addr() {
                    Ok(PeerAddr::Ip(address)) => Some(address),
                    _ => None,
                };
                asked.time(|timing| timing.connected(address, true));
                Ok(Tunnel { inbound, early, limits: self.plan.tunnels, held: Box::new(()) })
            }
            Err(failure) => Err(self.failed(&failure).into()),
        }
    }

    /// Has the parent open a tunnel.
    async fn tunnel_through(
        &self,
        parent: &Parent,
        host: &str,
        port: u16,
        fields: &Fields,
    ) -> Result<(Stream, Vec<u8>), Failure> {
        let mut connection = self.open_parent(parent).await?;
        let target = format!("{host}:{port}");
        let mut own = Fields::new();
        for via in fields.all(Known::Via) {
            let _ = own.push(Known::Via, via);
        }
        if let Some(credentials) = proxy_authorization(&parent.proxy) {
            let _ = own.push(Known::ProxyAuthorization, credentials);
        }
        connection.send(&Outgoing::new(&Method::Connect, target.as_bytes(), target.as_bytes(), &own))?;
        let limit_ms = self.plan.timeouts.head_timeout_ms;
        let answered = tokio::time::timeout(Duration::from_millis(limit_ms), async {
            connection.flush().await?;
            loop {
                match connection.receive().await? {
                    Event::Interim => {}
                    Event::Switched => return Ok::<bool, Failure>(true),
                    _ => return Ok(false),
                }
            }
        });
        let fail = |cause| Failure::new(eleven_client::Phase::Tunnel, cause).at(target.as_str(), None);
        match answered.await {
            Err(_) => Err(fail(Cause::Timeout(limit_ms))),
            Ok(Err(failure)) => Err(fail(failure.cause)),
            Ok(Ok(false)) => Err(fail(Cause::Status(connection.head().status.code()))),
            Ok(Ok(true)) => Ok(connection.into_tunnel()),
        }
    }

    fn failed(&self, failure: &Failure) -> Response {
        tracing::debug!(%failure, "a server did not answer");
        self.error(proxy_error(failure), Some(failure))
    }

    fn error(&self, error: ProxyError, failure: Option<&Failure>) -> Response {
        let details = failure.filter(|_| self.plan.tell_details).map(Failure::to_string);
        error_response(error, &self.rules.pseudonym, details.as_deref())
    }
}

/// What the log is to know of who was asked.
struct Asked {
    is_recorded: bool,
    server: Option<Arc<str>>,
    timing: Option<Timing>,
}

impl Asked {
    fn for_log_of(request: &Request) -> Asked {
        Asked {
            is_recorded: request.is_recorded || request.is_timed,
            server: None,
            timing: request.is_timed.then(Timing::begin),
        }
    }

    fn server(&mut self, host: &str, port: u16) {
        if self.is_recorded {
            self.server = Some(format!("{host}:{port}").into());
        }
    }

    fn time(&mut self, step: impl FnOnce(&mut Timing)) {
        if let Some(timing) = &mut self.timing {
            step(timing);
        }
    }

    fn until_end(&self) -> Option<UntilEnd> {
        self.timing.as_ref().map(Timing::until_end)
    }

    /// Nothing where no server came into question.
    fn note(&self, response: &mut Response) {
        if let Some(server) = &self.server {
            let notes = response.notes();
            notes.upstream = Some(Arc::clone(server));
            notes.attempts = self.timing.as_ref().map(Timing::attempts);
        }
    }
}

/// `localhost` and the names below it.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let top = name.rsplit('.').next().unwrap_or(name);
    top.eq_ignore_ascii_case("localhost")
}

/// Host in canonical form, and port.
fn host_and_port(authority: &Authority<'_>, default: u16) -> Option<(String, u16)> {
    let host = String::from_utf8(authority.canonical_host()).ok()?;
    let port = authority.port.unwrap_or(default);
    (!host.is_empty() && port != 0).then_some((host, port))
}

/// The target in origin-form (9112-3.2.1-01), or `*` for an OPTIONS of a whole server (9112-3.2.4-02).
fn onward_target(request: &Request) -> Vec<u8> {
    let target = &request.head.target;
    if request.head.method == Method::Options && target.has_empty_path() && target.query().is_none() {
        return b"*".to_vec();
    }
    target.path_and_query().into_owned()
}
