//! Opening a connection by the right way: directly, over a Unix socket, to an HTTP proxy, or through a tunnel
//! that a proxy opens with CONNECT (RFC 9110 §9.3.6). Says how long each step took.
//!
//! Does not choose the proxy (`proxies.rs`) and does not keep connections (`pool.rs`).

use crate::credentials::digest_answer;
use crate::error::{Cause, Failure, Phase, RetrySafety};
use crate::exchange::{Connection, Event};
use crate::pool::Key;
use crate::proxies::Proxy;
use eleven_messaging::Config;
use eleven_messaging::client::Request;
use eleven_net::dial::Dialer;
use eleven_net::tls_config::ClientSettings;
use eleven_net::{Stream, clock};
use eleven_semantics::auth::{self, Able, Auth, basic, digest};
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Known, Method, Status};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The way to an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// To the origin's own address.
    Direct,
    /// To a socket on this machine, whatever the URI's host.
    Unix(PathBuf),
    /// To a proxy, which is sent the target in absolute-form (9112-3.2.2-01).
    Proxy(Proxy),
    /// Through a tunnel that a proxy opens.
    Tunnel(Proxy),
}

/// A way, and the key of the pool for connections that went it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Names the connections that may serve it.
    pub key: Rc<Key>,
    /// The way.
    pub via: Via,
}

/// How long opening took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenTimes {
    /// Asking for addresses.
    pub resolve: Duration,
    /// Connecting.
    pub connect: Duration,
    /// The proxy's answer to CONNECT.
    pub tunnel: Duration,
    /// The TLS handshake with the origin.
    pub tls: Duration,
}

/// Opens connections.
#[derive(Debug)]
pub struct Connector {
    dialer: Dialer,
    tls_settings: ClientSettings,
    /// Made when first needed: reading the system's roots takes longer than a small download.
    tls: OnceCell<Arc<rustls::ClientConfig>>,
    config: Arc<Config>,
    tunnel_timeout_ms: u64,
    proxy_secrets: ProxySecrets,
    detours: Vec<Detour>,
}

/// Connections for one host and port that are to lead to another. Only the connection: names in requests and
/// certificates stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detour {
    /// The host; any if empty.
    pub from_host: String,
    /// The port; any if 0.
    pub from_port: u16,
    /// The host to connect to; the same if empty.
    pub to_host: String,
    /// The port to connect to; the same if 0.
    pub to_port: u16,
}

/// What proxies have asked for, so that the next request can answer at once.
#[derive(Debug, Default)]
pub struct ProxySecrets(RefCell<HashMap<String, (digest::Challenge, u32)>>);

impl ProxySecrets {
    /// The value of Proxy-Authorization for a request with this target: Digest where the proxy asked for it, else
    /// Basic; nothing without a user's name.
    pub fn value(&self, proxy: &Proxy, method: &str, target: &str) -> Option<Vec<u8>> {
        let userinfo = proxy.userinfo.as_ref()?;
        let password = userinfo.password.as_deref().unwrap_or_default();
        match self.0.borrow_mut().get_mut(&proxy.uri.host_and_port()) {
            Some((challenge, count)) => {
                *count += 1;
                digest_answer(challenge, &userinfo.user, password, method, target, *count)
            }
            None => basic::encode(&userinfo.user, password).ok(),
        }
    }

    /// A proxy refused what it was sent. Is there something else to answer with? Basic went out already; a Digest that
    /// was refused is tried again only if its nonce had become stale.
    pub fn challenged(&self, proxy: &Proxy, challenges: &[Auth]) -> bool {
        let able = Able { digest: proxy.userinfo.is_some(), ..Able::default() };
        let chosen = auth::choose(challenges, able).and_then(|auth| digest::Challenge::read(auth).ok());
        let Some(challenge) = chosen else { return false };
        let known = self.0.borrow().contains_key(&proxy.uri.host_and_port());
        if known && !challenge.stale {
            return false;
        }
        self.0.borrow_mut().insert(proxy.uri.host_and_port(), (challenge, 0));
        true
    }
}

impl Connector {
    /// A connector.
    pub fn new(dialer: Dialer, tls_settings: ClientSettings, config: Arc<Config>) -> Connector {
        let proxy_secrets = ProxySecrets::default();
        Connector {
            dialer,
            tls_settings,
            tls: OnceCell::new(),
            config,
            tunnel_timeout_ms: 30_000,
            proxy_secrets,
            detours: Vec::new(),
        }
    }

    /// Leads connections elsewhere; the first that fits counts.
    #[must_use]
    pub fn with_detours(mut self, detours: Vec<Detour>) -> Connector {
        self.detours = detours;
        self
    }

    /// Where a connection for this host and port leads.
    fn aim<'a>(&'a self, host: &'a str, port: u16) -> (&'a str, u16) {
        let fits = |detour: &&Detour| {
            (detour.from_host.is_empty() || detour.from_host.eq_ignore_ascii_case(host))
                && (detour.from_port == 0 || detour.from_port == port)
        };
        match self.detours.iter().find(fits) {
            None => (host, port),
            Some(detour) => (
                if detour.to_host.is_empty() { host } else { &detour.to_host },
                if detour.to_port == 0 { port } else { detour.to_port },
            ),
        }
    }

    /// The configuration of its connections.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// What proxies have asked for.
    pub fn proxy_secrets(&self) -> &ProxySecrets {
        &self.proxy_secrets
    }

    /// The dialer.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Opens a connection for `uri` by `route`.
    ///
    /// # Errors
    /// Which step failed; nothing of a request was sent.
    pub async fn open(&self, uri: &Uri, route: &Route) -> Result<(Connection, OpenTimes), Failure> {
        let mut times = OpenTimes::default();
        let host = uri.host_and_port();
        let (stream, address) = match &route.via {
            Via::Unix(path) => {
                let begun = clock::now();
                let stream = self.dialer.unix(path).await.map_err(Failure::dial)?;
                times.connect = clock::now() - begun;
                (stream, None)
            }
            Via::Direct => self.tcp(uri, &mut times).await?,
            Via::Proxy(proxy) => self.to_proxy(proxy, &mut times).await?,
            Via::Tunnel(proxy) => {
                let (stream, address) = self.to_proxy(proxy, &mut times).await?;
                let begun = clock::now();
                let target = uri.host_and_port();
                let asked = self.proxy_secrets.value(proxy, "CONNECT", &target);
                let tunnel = self.tunnel(stream, address, uri, proxy, asked).await;
                let (stream, address) = match tunnel {
                    Ok(stream) => (stream, address),
                    // RFC 9110 §15.5.8: once more, with what the proxy asks for, on a connection that it has not
                    // spoken on.
                    Err((_, Some(challenges))) if self.proxy_secrets.challenged(proxy, &challenges) => {
                        let (stream, address) = self.to_proxy(proxy, &mut OpenTimes::default()).await?;
                        let value = self.proxy_secrets.value(proxy, "CONNECT", &target);
                        let again = self.tunnel(stream, address, uri, proxy, value).await;
                        (again.map_err(|(failure, _)| failure)?, address)
                    }
                    Err((failure, _)) => return Err(failure),
                };
                times.tunnel = clock::now() - begun;
                (stream, address)
            }
        };
        let stream = if uri.is_secure() {
            let begun = clock::now();
            let stream =
                self.secure(stream, uri).await.map_err(|failure| failure.at(host.as_str(), address))?;
            times.tls = clock::now() - begun;
            stream
        } else {
            stream
        };
        Ok((Connection::new(stream, Arc::clone(&self.config), host, address), times))
    }

    async fn tcp(&self, uri: &Uri, times: &mut OpenTimes) -> Result<(Stream, Option<SocketAddr>), Failure> {
        // Asked beforehand for the time it takes; the dialer finds the answer in the cache.
        let begun = clock::now();
        let (host, port) = self.aim(uri.host(), uri.port());
        let limit = Duration::from_millis(self.dialer.options().resolve_timeout_ms);
        let lookup = self.dialer.resolver().resolve(host, port);
        let known = tokio::time::timeout(limit, lookup).await;
        times.resolve = clock::now() - begun;
        if known.is_err() {
            return Err(Failure::new(
                Phase::Resolve,
                Cause::Timeout(self.dialer.options().resolve_timeout_ms),
            )
            .retry(RetrySafety::NotSent)
            .at(uri.host_and_port(), None));
        }
        let begun = clock::now();
        let (stream, address) = self.dialer.tcp(host, port).await.map_err(Failure::dial)?;
        times.connect = clock::now() - begun;
        Ok((stream, Some(address)))
    }

    async fn to_proxy(
        &self,
        proxy: &Proxy,
        times: &mut OpenTimes,
    ) -> Result<(Stream, Option<SocketAddr>), Failure> {
        let (stream, address) = self.tcp(&proxy.uri, times).await?;
        let stream = if proxy.uri.is_secure() { self.secure(stream, &proxy.uri).await? } else { stream };
        Ok((stream, address))
    }

    async fn secure(&self, stream: Stream, uri: &Uri) -> Result<Stream, Failure> {
        let config = match self.tls.get() {
            Some(config) => config,
            None => {
                let config = self.tls_settings.build().map_err(|error| {
                    Failure::new(Phase::Tls, Cause::Unusable(error.to_string())).at(uri.host_and_port(), None)
                })?;
                self.tls.get_or_init(|| config)
            }
        };
        self.dialer
            .tls(stream, uri.host(), config)
            .await
            .map_err(|error| Failure::dial(error).at(uri.host_and_port(), None))
    }

    /// Asks a proxy for a tunnel to the origin of `uri`. A refusal for lack of credentials comes with what the proxy
    /// asks for.
    async fn tunnel(
        &self,
        stream: Stream,
        address: Option<SocketAddr>,
        uri: &Uri,
        proxy: &Proxy,
        authorization: Option<Vec<u8>>,
    ) -> Result<Stream, (Failure, Option<Vec<Auth>>)> {
        let target = uri.host_and_port();
        let fail = |cause| {
            Failure::new(Phase::Tunnel, cause).retry(RetrySafety::NotSent).at(target.as_str(), address)
        };
        let mut fields = Fields::new();
        if let Some(value) = authorization {
            fields
                .push(Known::ProxyAuthorization, value)
                .map_err(|error| (fail(Cause::Unusable(error.to_string())), None))?;
        }
        let mut connection =
            Connection::new(stream, Arc::clone(&self.config), proxy.uri.host_and_port(), address);
        let request = Request::new(&Method::Connect, target.as_bytes(), target.as_bytes(), &fields);
        connection.send(&request).map_err(|failure| (failure, None))?;
        let limit = Duration::from_millis(self.tunnel_timeout_ms);
        let answered = tokio::time::timeout(limit, async {
            connection.flush().await?;
            loop {
                match connection.receive().await? {
                    Event::Interim => {}
                    Event::Switched => return Ok::<bool, Failure>(true),
                    _ => return Ok(false),
                }
            }
        })
        .await;
        match answered {
            Err(_) => Err((fail(Cause::Timeout(self.tunnel_timeout_ms)), None)),
            Ok(Err(failure)) => Err((fail(failure.cause), None)),
            Ok(Ok(false)) => {
                let head = connection.head();
                let failure = fail(Cause::Status(head.status.code())).retry(RetrySafety::Never);
                let asks = head.status == Status::PROXY_AUTHENTICATION_REQUIRED;
                Err((failure, asks.then(|| auth::challenges(&head.fields, Known::ProxyAuthenticate))))
            }
            Ok(Ok(true)) => match connection.into_tunnel() {
                (stream, early) if early.is_empty() => Ok(stream),
                // We speak first; what came before that is nobody's TLS.
                _ => Err((fail(Cause::Malformed("octets before the tunnel was used".into())), None)),
            },
        }
    }
}

/// The value of Proxy-Authorization for the credentials in the proxy's URI.
pub fn proxy_authorization(proxy: &Proxy) -> Option<Vec<u8>> {
    let userinfo = proxy.userinfo.as_ref()?;
    basic::encode(&userinfo.user, userinfo.password.as_deref().unwrap_or_default()).ok()
}

/// The route to `uri`: by a socket if one is given, else by a proxy if one is chosen, else directly.
pub fn route(uri: &Uri, socket: Option<&PathBuf>, proxy: Option<&Proxy>) -> Route {
    let mut key =
        Key { secure: uri.is_secure(), host: uri.host().to_owned(), port: uri.port(), ..Key::default() };
    let via = match (socket, proxy) {
        (Some(path), _) => {
            key.unix_socket = Some(path.clone());
            Via::Unix(path.clone())
        }
        (None, Some(proxy)) => {
            let scheme = proxy.uri.scheme().as_str();
            key.proxy = Some(format!("{scheme}://{}", proxy.uri.host_and_port()));
            key.proxy_credentials = hash(&proxy_authorization(proxy));
            if uri.is_secure() {
                Via::Tunnel(proxy.clone())
            } else {
                // One connection to a proxy serves all http origins, but sharing it saves little and mixes what
                // should be apart.
                Via::Proxy(proxy.clone())
            }
        }
        (None, None) => Via::Direct,
    };
    Route { key: Rc::new(key), via }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
