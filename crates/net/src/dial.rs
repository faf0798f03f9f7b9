//! Opening connections: resolve, try addresses by Happy Eyeballs (RFC 8305), shake hands. Each phase has its
//! deadline, and a failure names phase, address and cause. Each address is judged before it is connected to,
//! so a name cannot lead where its owner may not go (faults X11, X12).

use crate::address::{self, Special};
use crate::resolve::{ResolveError, Resolver};
use crate::stream::Stream;
use crate::tls::{CertificateProblem, TlsStream};
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// Deadlines and choices of a dialer.
#[derive(Debug, Clone)]
pub struct Options {
    /// For the resolver to answer.
    pub resolve_timeout_ms: u64,
    /// For any address to be connected, all attempts together.
    pub connect_timeout_ms: u64,
    /// For the TLS handshake.
    pub tls_timeout_ms: u64,
    /// Between the starts of two attempts (RFC 8305 §5 recommends 250 ms).
    pub attempt_delay_ms: u64,
    /// Addresses tried.
    pub attempts_max: usize,
    /// The local address to connect from.
    pub from: Option<IpAddr>,
    /// Addresses of this family only.
    pub family: Option<Family>,
    /// Where connections may lead.
    pub destinations: Destinations,
}

/// A version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            resolve_timeout_ms: 5_000,
            connect_timeout_ms: 10_000,
            tls_timeout_ms: 10_000,
            attempt_delay_ms: 250,
            attempts_max: 8,
            from: None,
            family: None,
            destinations: Destinations::Any,
        }
    }
}

/// Where connections may lead, by address.
#[derive(Debug, Clone, Default)]
pub enum Destinations {
    /// Anywhere: whoever configures the name answers for it (a user agent, a gateway).
    #[default]
    Any,
    /// The public Internet, and these networks: strangers choose the name (a forward proxy).
    Public(Arc<[IpNet]>),
}

impl Destinations {
    /// Why `ip` may not be connected to.
    pub fn refuses(&self, ip: IpAddr) -> Option<Special> {
        let Destinations::Public(also) = self else { return None };
        let ip = address::canonical(ip);
        if also.iter().any(|network| network.contains(&ip)) { None } else { address::special(ip) }
    }
}

/// Which part of opening a connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Asking the resolver.
    Resolve,
    /// Connecting.
    Connect,
    /// Shaking hands.
    Tls,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Resolve => "resolving",
            Phase::Connect => "connecting to",
            Phase::Tls => "TLS handshake with",
        })
    }
}

/// Why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The deadline of the phase passed.
    #[error("timed out after {0} ms")]
    TimedOut(u64),
    /// The name has no address.
    #[error(transparent)]
    Name(#[from] ResolveError),
    /// Every address is one that connections may not lead to.
    #[error("{0} addresses are not allowed as destinations")]
    Denied(Special),
    /// The peer refused, or cannot be reached.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer's certificate was refused.
    #[error("certificate refused: {0}")]
    Certificate(CertificateProblem),
    /// TLS failed otherwise.
    #[error("TLS failed: {0}")]
    Tls(rustls::Error),
}

/// A connection that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{phase} {host}{}: {cause}", .address.map(|a| format!(" ({a})")).unwrap_or_default())]
pub struct DialError {
    /// What was being done.
    pub phase: Phase,
    /// The host or path as configured, with its port.
    pub host: String,
    /// The address of the last attempt, if one was made.
    pub address: Option<SocketAddr>,
    /// Why.
    pub cause: Cause,
}

impl DialError {
    /// Whether it was a deadline (a gateway answers 504, else 502).
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::TimedOut(_))
    }
}

/// A network in memory: a stream to whoever is behind a host and port, or why there is nobody.
pub type Network = dyn Fn(&str, u16) -> io::Result<Stream>;

/// Opens connections.
#[derive(Clone)]
pub struct Dialer {
    resolver: Resolver,
    options: Options,
    network: Option<Rc<Network>>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Dialer {
    /// A dialer over a resolver.
    pub fn new(resolver: Resolver, options: Options) -> Dialer {
        Dialer { resolver, options, network: None }
    }

    /// The same in a simulated world: names are not looked up, `network` connects. What is connected to passes for a
    /// public address.
    pub fn in_memory(network: Rc<Network>, options: Options) -> Dialer {
        let resolver = Resolver::new(crate::resolve::Limits::default());
        Dialer { resolver, options, network: Some(network) }
    }

    /// Its resolver.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Its options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A TCP connection to `host`, and the address it leads to. TCP_NODELAY is set.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn tcp(&self, host: &str, port: u16) -> Result<(Stream, SocketAddr), DialError> {
        let fail = |phase, address, cause| DialError { phase, host: with_port(host, port), address, cause };
        if let Some(network) = &self.network {
            let address = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), port);
            return match network(host, port) {
                Ok(stream) => Ok((stream, address)),
                Err(error) => Err(fail(Phase::Connect, Some(address), error.into())),
            };
        }
        let addresses = within(self.options.resolve_timeout_ms, self.resolver.resolve(host, port))
            .await
            .map_err(|timeout| fail(Phase::Resolve, None, timeout))?
            .map_err(|error| fail(Phase::Resolve, None, error.into()))?;

        let mut denied = None;
        let mut allowed: Vec<SocketAddr> = Vec::new();
        let family = self.options.family;
        for ip in interleaved(&addresses)
            .into_iter()
            .filter(|ip| family.is_none_or(|f| (f == Family::V4) == ip.is_ipv4()))
        {
            match self.options.destinations.refuses(ip) {
                Some(special) => denied = Some((ip, special)),
                None => allowed.push(SocketAddr::new(ip, port)),
            }
        }
        allowed.truncate(self.options.attempts_max.max(1));
        if let (true, Some((ip, special))) = (allowed.is_empty(), denied) {
            return Err(fail(Phase::Connect, Some(SocketAddr::new(ip, port)), Cause::Denied(special)));
        }

        if allowed.is_empty() {
            let error =
                io::Error::new(io::ErrorKind::Unsupported, "it has no address of the version asked for");
            return Err(fail(Phase::Connect, None, error.into()));
        }

        let mut race = Race::new(&allowed, &self.options);
        match within(self.options.connect_timeout_ms, poll_fn(|cx| race.poll(cx))).await {
            Ok(Ok((socket, address))) => Ok((Stream::Tcp(socket), address)),
            Ok(Err(error)) => Err(fail(Phase::Connect, race.last, error.into())),
            Err(timeout) => Err(fail(Phase::Connect, race.last, timeout)),
        }
    }

    /// A connection to a Unix socket.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn unix(&self, path: &Path) -> Result<Stream, DialError> {
        let fail = |cause| DialError {
            phase: Phase::Connect,
            host: path.display().to_string(),
            address: None,
            cause,
        };
        let connected = within(self.options.connect_timeout_ms, UnixStream::connect(path)).await;
        Ok(Stream::Unix(connected.map_err(fail)?.map_err(|error| fail(error.into()))?))
    }

    /// TLS over an open stream, as a client that expects `host`.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn tls(
        &self,
        stream: Stream,
        host: &str,
        config: &Arc<rustls::ClientConfig>,
    ) -> Result<Stream, DialError> {
        let fail = |cause| DialError { phase: Phase::Tls, host: host.to_owned(), address: None, cause };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|_| fail(Cause::Name(ResolveError::InvalidHost(address::InvalidHost))))?;
        let connection = rustls::ClientConnection::new(Arc::clone(config), name)
            .map_err(|error| fail(Cause::Tls(error)))?;
        let shaken = within(self.options.tls_timeout_ms, TlsStream::handshake(stream, connection)).await;
        match shaken.map_err(fail)? {
            Ok(tls) => Ok(Stream::Tls(Box::new(tls))),
            Err(error) => Err(fail(tls_cause(error))),
        }
    }
}

fn tls_cause(error: io::Error) -> Cause {
    match error.downcast::<rustls::Error>() {
        Ok(error) => match CertificateProblem::from_error(&error) {
            Some(problem) => Cause::Certificate(problem),
            None => Cause::Tls(error),
        },
        Err(error) => Cause::Io(error),
    }
}

fn with_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

async fn within<T>(milliseconds: u64, future: impl Future<Output = T>) -> Result<T, Cause> {
    tokio::time::timeout(Duration::from_millis(milliseconds), future)
        .await
        .map_err(|_| Cause::TimedOut(milliseconds))
}

/// The addresses with their families alternating, beginning with the resolver's first choice (RFC 8305 §4).
fn interleaved(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let of = |v6: bool| addresses.iter().copied().filter(move |ip| ip.is_ipv6() == v6);
    let (mut first, mut second) = (of(first_is_v6), of(!first_is_v6));
    let mut order = Vec::with_capacity(addresses.len());
    loop {
        let before = order.len();
        order.extend(first.next());
        order.extend(second.next());
        if order.len() == before {
            return order;
        }
    }
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

/// Attempts that run side by side, each started when the one before failed or took too long.
struct Race<'a> {
    waiting: std::slice::Iter<'a, SocketAddr>,
    running: Vec<(SocketAddr, Attempt)>,
    next_start: Pin<Box<tokio::time::Sleep>>,
    delay: Duration,
    from: Option<IpAddr>,
    last: Option<SocketAddr>,
    error: Option<io::Error>,
}

impl<'a> Race<'a> {
    fn new(addresses: &'a [SocketAddr], options: &Options) -> Race<'a> {
        Race {
            waiting: addresses.iter(),
            running: Vec::new(),
            next_start: Box::pin(tokio::time::sleep(Duration::ZERO)),
            delay: Duration::from_millis(options.attempt_delay_ms),
            from: options.from,
            last: None,
            error: None,
        }
    }

    fn start_next(&mut self) -> bool {
        let Some(&address) = self.waiting.next() else { return false };
        self.running.push((address, Box::pin(connect(address, self.from))));
        self.next_start.as_mut().reset(crate::clock::now() + self.delay);
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        loop {
            let mut failed = false;
            let mut index = 0;
            while index < self.running.len() {
                let (address, attempt) = &mut self.running[index];
                match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(socket)) => {
                        self.last = Some(*address);
                        return Poll::Ready(Ok((socket, *address)));
                    }
                    Poll::Ready(Err(error)) => {
                        self.last = Some(*address);
                        self.error = Some(error);
                        drop(self.running.remove(index));
                        failed = true;
                    }
                    Poll::Pending => {
                        self.last.get_or_insert(*address);
                        index += 1;
                    }
                }
            }
            let due = self.running.is_empty() || failed || self.next_start.as_mut().poll(cx).is_ready();
            if due && self.start_next() {
                continue;
            }
            if self.running.is_empty() {
                let none = || io::Error::new(io::ErrorKind::NotFound, "no address to connect to");
                return Poll::Ready(Err(self.error.take().unwrap_or_else(none)));
            }
            return Poll::Pending;
        }
    }
}

async fn connect(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    if let Some(from) = from.filter(|from| from.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::Limits;
    use tokio::net::TcpListener;

    fn dialer(addresses: &[&str], options: Options) -> Dialer {
        let resolver = Resolver::new(Limits::default());
        let ips: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        resolver.set("h.example", None, &ips);
        Dialer::new(resolver, options)
    }

    #[test]
    fn families_alternate() {
        let ips: Vec<IpAddr> =
            ["::1", "::2", "::3", "1.1.1.1"].iter().map(|ip| ip.parse().unwrap()).collect();
        let order: Vec<String> = interleaved(&ips).iter().map(IpAddr::to_string).collect();
        assert_eq!(order, ["::1", "1.1.1.1", "::2", "::3"]);
        assert!(interleaved(&[]).is_empty());
    }

    /// Fault F07: a refusing address costs nothing but the attempt; the next is tried at once.
    #[tokio::test(flavor = "local")]
    async fn the_next_address_is_tried_when_one_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody listens on these addresses of the loopback network.
        let dialer = dialer(&["127.0.0.77", "127.0.0.78", "127.0.0.1"], Options::default());
        let (stream, address) = dialer.tcp("h.example", port).await.unwrap();
        assert_eq!(address.to_string(), format!("127.0.0.1:{port}"));
        assert_eq!(stream.peer_addr().unwrap().to_string(), address.to_string());
    }

    #[tokio::test(flavor = "local")]
    async fn failures_name_phase_address_and_cause() {
        // Bound and not listening: the port is taken, and refuses.
        let nobody = TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = nobody.local_addr().unwrap().port();
        let error = dialer(&["127.0.0.1"], Options::default()).tcp("h.example", port).await.unwrap_err();
        assert_eq!((error.phase, error.is_timeout()), (Phase::Connect, false));
        assert_eq!(error.address.unwrap().port(), port);
        let text = error.to_string();
        assert!(text.starts_with(&format!("connecting to h.example:{port} (127.0.0.1:{port}): ")), "{text}");

        let resolver = Resolver::with_lookup(Limits::default(), |_| Err(io::Error::other("nope")));
        let error = Dialer::new(resolver, Options::default()).tcp("x.example", 80).await.unwrap_err();
        assert_eq!(error.to_string(), "resolving x.example:80: no address found: nope");

        let error =
            dialer(&["127.0.0.1"], Options::default()).unix(Path::new("/absent/s")).await.unwrap_err();
        assert!(error.to_string().starts_with("connecting to /absent/s: "), "{error}");
    }

    /// Fault F08: a resolver that does not answer.
    #[tokio::test(flavor = "local")]
    async fn a_resolver_that_hangs_is_a_timeout_of_its_phase() {
        let (hold, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let resolver = Resolver::with_lookup(Limits::default(), move |_| {
            let _ = wait.lock().unwrap().recv();
            Ok(Vec::new())
        });
        let options = Options { resolve_timeout_ms: 1, ..Options::default() };
        let error = Dialer::new(resolver, options).tcp("x.example", 80).await.unwrap_err();
        assert_eq!((error.phase, error.is_timeout()), (Phase::Resolve, true));
        drop(hold);
    }

    /// Faults X11 and X12: judged after resolution, address by address.
    #[tokio::test(flavor = "local")]
    async fn destinations_are_judged_by_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let public = |also: &[&str]| {
            let also: Vec<IpNet> = also.iter().map(|net| net.parse().unwrap()).collect();
            Options { destinations: Destinations::Public(also.into()), ..Options::default() }
        };
        for inside in ["127.0.0.1", "::ffff:127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "0.0.0.0"] {
            let error = dialer(&[inside], public(&[])).tcp("h.example", port).await.unwrap_err();
            assert!(matches!(error.cause, Cause::Denied(_)), "{inside}: {error}");
        }
        let error = dialer(&[], public(&[])).tcp("127.0.0.1", port).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Denied(Special::Loopback)));
        let allowed = dialer(&["10.0.0.1", "127.0.0.1"], public(&["127.0.0.0/8"]));
        let (_, address) = allowed.tcp("h.example", port).await.unwrap();
        assert!(address.ip().is_loopback());
    }
}
