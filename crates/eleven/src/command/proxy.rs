//! `eleven proxy URL…` and `eleven forward`.

use super::Failure;
use super::serve::run;
use crate::cli::{Forward, Listen, Proxy};
use crate::sandbox::{Reach, Sandbox};
use eleven_cache::memory;
use eleven_client::proxies;
use eleven_net::listener::ListenAddr;
use eleven_net::tls_config::{ClientSettings, Trust};
use eleven_semantics::caching::{Cookies, Policy};
use eleven_semantics::forwarding::is_pseudonym;
use eleven_semantics::uri::Uri;
use eleven_server::before::auth::{Basic, Digest, DigestFile, PasswordFile};
use eleven_server::handler::Handler;
use eleven_server::metrics::Sources;
use eleven_server::plan::{CachePlan, CacheRules};
use eleven_server::proxy::buffer::BufferPlan;
use eleven_server::proxy::caching::{Caching, CachingPlan};
use eleven_server::proxy::health::HealthPlan;
use eleven_server::proxy::open::{OpenPlan, OpenProxy, Parent};
use eleven_server::proxy::sticky::StickyPlan;
use eleven_server::proxy::upstream::{Place, ServerPlan};
use eleven_server::proxy::{Gateway, GatewayPlan, HostPolicy, unique_pseudonym};
use eleven_server::service::Service;
use eleven_server::store;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// `eleven proxy`.
pub fn proxy(options: Proxy) -> Result<ExitCode, Failure> {
    let trust = match (&options.cacert, options.insecure) {
        (_, true) => Trust::Anybody,
        (Some(file), false) => Trust::Files(vec![file.clone()]),
        (None, false) => Trust::Platform,
    };
    let settings = ClientSettings { trust, ..ClientSettings::default() };
    let servers: Result<Vec<ServerPlan>, Failure> =
        options.servers.iter().map(|url| server(url, &settings)).collect();
    let mut plan = GatewayPlan::new(servers?, &pseudonym(options.via.as_deref())?);
    plan.host = match options.host.as_str() {
        "keep" => HostPolicy::Keep,
        "server" => HostPolicy::Server,
        other => HostPolicy::Fixed(other.into()),
    };
    if let Some(cookie) = &options.sticky {
        let sticky = StickyPlan::new(cookie);
        if sticky.check().is_err() {
            return Err(Failure(format!("{cookie}: this is no name of a cookie")));
        }
        plan.sticky = Some(sticky);
    }
    plan.buffer = options.buffer_requests.then(BufferPlan::default);
    if let Some(path) = &options.health {
        plan.health = Some(HealthPlan { path: path.as_str().into(), ..HealthPlan::default() });
    }
    let names: Vec<String> = plan.servers.iter().map(ToString::to_string).collect();
    let plan = Arc::new(plan);
    let caching = caching(&options.caching)?;
    let sources = Sources {
        gateways: vec![plan.clone()],
        cache: caching.as_ref().map(|caching| caching.cache().clone()),
        ..Sources::default()
    };
    let sandbox = sandbox(&options.listen, &options.caching, iter::empty())?;
    let service = move || {
        sandbox.enter();
        Service::single(cached(Handler::Gateway(Gateway::start(Arc::clone(&plan))), caching.as_ref()))
    };
    run(&options.listen, &format!("Gateway to {}", names.join(", ")), sources, Arc::new(service))
}

/// A handler behind a gate, with the cache in front if there is one.
fn cached(handler: Handler, caching: Option<&CachingPlan>) -> Handler {
    let handler = handler.gated(None);
    match caching {
        Some(caching) => Handler::Caching(Caching::new(handler, caching.clone())),
        None => handler,
    }
}

/// The cache, if one is asked for.
fn caching(options: &crate::cli::Caching) -> Result<Option<CachingPlan>, Failure> {
    if options.cache.is_none() && options.cache_dir.is_none() {
        return Ok(None);
    }
    let plan = CachePlan {
        memory_bytes_max: options.cache.unwrap_or_else(|| memory::Limits::default().bytes_max),
        directory: options.cache_dir.clone().map(|directory| (directory, options.cache_dir_size)),
    };
    let cookies = if options.cache_careful_with_cookies { Cookies::Careful } else { Cookies::PerRfc };
    let policy = Arc::new(Policy { cookies, ..Policy::default() });
    let rules = CacheRules {
        config: eleven_cache::Config { policy, ..Default::default() },
        cache_status: options.cache_status.then(|| "eleven".into()),
        x_cache: options.x_cache,
        ..CacheRules::default()
    };
    let cache = store::open(&plan)?;
    Ok(Some(CachingPlan::new(&cache, Arc::new(rules))))
}

/// What the threads that serve may reach.
fn sandbox(
    listen: &Listen,
    caching: &crate::cli::Caching,
    passwords: impl Iterator<Item = PathBuf>,
) -> Result<Sandbox, Failure> {
    match listen.no_sandbox {
        true => Ok(Sandbox::off()),
        false => Sandbox::new(Reach::forwarding(caching.cache_dir.as_deref(), passwords)),
    }
}

/// A server by its URL: `http://…`, `https://…` or `unix:/path`.
fn server(url: &str, settings: &ClientSettings) -> Result<ServerPlan, Failure> {
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(ServerPlan { place: Place::Unix(path.into()), ..ServerPlan::tcp("", 80) });
    }
    let (uri, userinfo) = Uri::parse(url.as_bytes()).map_err(|error| Failure(format!("{url}: {error}")))?;
    if userinfo.is_some() {
        return Err(Failure("a server's URL may hold no password".into()));
    }
    let mut plan = ServerPlan::tcp(uri.host(), uri.port());
    if uri.is_secure() {
        plan.tls = Some(settings.build()?);
    }
    if uri.query().is_some() {
        return Err(Failure(format!("{url}: a server's URL may have a path, but no query")));
    }
    plan.prefix = uri.path().trim_end_matches('/').into();
    Ok(plan)
}

fn pseudonym(given: Option<&str>) -> Result<String, Failure> {
    match given {
        None => Ok(unique_pseudonym()),
        Some(name) if is_pseudonym(name) => Ok(name.to_owned()),
        Some(name) => Err(Failure(format!("{name}: a name for Via has letters, digits, dots and hyphens"))),
    }
}

/// How long a nonce of the Digest scheme is good for.
const NONCE_LIFETIME_S: i64 = 300;

/// `eleven forward`.
pub fn forward(options: Forward) -> Result<ExitCode, Failure> {
    let mut plan = OpenPlan::new(&pseudonym(options.via.as_deref())?);
    plan.clients = options.allow_client;
    plan.destinations = options.allow_destination;
    plan.connect_ports = options.connect_port;
    if let Some(file) = &options.users {
        plan.authentication.basic = Some(users(file)?);
    }
    if let Some(file) = &options.digest {
        plan.authentication.digest = Some(digest(file)?);
    }
    plan.parent = options.parent.as_deref().map(parent).transpose()?;
    let closed = !plan.authentication.is_required() && plan.clients.is_empty();
    for address in &options.listen.listen {
        if let ListenAddr::Tcp { port, .. } = address {
            plan.own_ports.push(*port);
        }
        // Fault X10: nobody opens a proxy by leaving something out.
        if closed && !is_local(address) {
            return Err(Failure(format!(
                "{address}: others could use this proxy; say who may, with --allow-client NETWORK or --users FILE"
            )));
        }
    }
    let plan = Arc::new(plan);
    let caching = caching(&options.caching)?;
    let sources =
        Sources { cache: caching.as_ref().map(|caching| caching.cache().clone()), ..Sources::default() };
    let sandbox = sandbox(&options.listen, &options.caching, plan.authentication.files())?;
    let service = move || {
        sandbox.enter();
        Service::single(cached(Handler::Forward(OpenProxy::start(Arc::clone(&plan))), caching.as_ref()))
    };
    run(&options.listen, "Forward proxy", sources, Arc::new(service))
}

/// Whether only this machine's own programs can connect to an address.
fn is_local(address: &ListenAddr) -> bool {
    match address {
        // Other names are not looked up for this: they may mean something else tomorrow.
        ListenAddr::Tcp { host: Some(host), .. } => {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        ListenAddr::Tcp { host: None, .. } => false,
        ListenAddr::Unix(_) => true,
        // Whoever passes it knows who reaches it; we do not.
        ListenAddr::Inherited(_) => false,
    }
}

fn users(file: &Path) -> Result<Basic, Failure> {
    let key = eleven_net::random::bytes::<32>()?;
    Basic::new("proxy", PasswordFile::default(), Some(file.to_owned()), key)
        .map_err(|error| Failure(format!("{}: {error}", file.display())))
}

fn digest(file: &Path) -> Result<Digest, Failure> {
    let fail = |why: &dyn std::fmt::Display| Failure(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| fail(&error))?;
    let users = DigestFile::parse(&text, "proxy").map_err(|error| fail(&error))?;
    Ok(Digest::new("proxy", users, NONCE_LIFETIME_S, true, eleven_net::random::bytes::<32>()?))
}

/// The proxy that is next on the way. What is said of it is not shown: its credentials stand in the URL.
fn parent(url: &str) -> Result<Parent, Failure> {
    let proxy = proxies::Proxy::parse(url).map_err(|why| Failure(format!("the parent: {why}")))?;
    let tls = proxy.uri.is_secure().then(|| ClientSettings::default().build()).transpose()?;
    Ok(Parent { proxy, tls })
}
