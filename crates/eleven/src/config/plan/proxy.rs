//! Second pass, the proxies: groups of servers, gateways to them, and the forward proxy. Names of servers are looked up
//! when they are needed, never here: one that does not resolve must not stop a start.

use super::Builder;
use crate::config::diagnose::nearest;
use crate::config::raw::{Span, Table, Text};
use eleven_client::proxies::Proxy;
use eleven_net::listener::ListenAddr;
use eleven_net::proxy_protocol;
use eleven_net::tls_config::{ClientSettings, Identity, Trust};
use eleven_semantics::cookie::{InvalidCookie, SameSite};
use eleven_semantics::forwarding::{Provenance, Told, Trailers, is_pseudonym};
use eleven_semantics::uri::{Uri, Userinfo};
use eleven_server::plan::HandlerPlan;
use eleven_server::proxy::buffer::BufferPlan;
use eleven_server::proxy::health::HealthPlan;
use eleven_server::proxy::open::{OpenPlan, Parent};
use eleven_server::proxy::sticky::{Secure, StickyPlan};
use eleven_server::proxy::upstream::{Balance, Ejection, HashKey, Place, ServerPlan};
use eleven_server::proxy::{GatewayPlan, HostPolicy, unique_pseudonym};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A group of servers, by name.
pub(super) struct Upstream {
    name: String,
    span: Span,
    /// Nothing, if something is wrong with it, which was reported.
    plan: Option<Arc<GatewayPlan>>,
}

impl Builder<'_> {
    /// Reads the groups, so that routes can name them.
    pub(super) fn upstreams(&mut self, root: &Table) {
        for table in root.sections("upstream") {
            let Some(name) = table.text("name") else { continue };
            if let Some(before) = self.upstreams.iter().find(|upstream| upstream.name == name.text) {
                let before = before.span.clone();
                self.error(name.span, format!("two upstreams are called `{}`", name.text))
                    .related(before, "the first");
                continue;
            }
            let plan = self.upstream(table).map(Arc::new);
            self.upstreams.push(Upstream { name: name.text.to_owned(), span: name.span.clone(), plan });
        }
    }

    fn upstream(&mut self, table: &Table) -> Option<GatewayPlan> {
        let tls = self.client_tls(table);
        let mut servers: Vec<ServerPlan> =
            table.texts("servers").filter_map(|text| self.server(text, &tls)).collect();
        for server in table.sections("server") {
            let plan = server.text("url").and_then(|text| self.server(text, &tls));
            servers.extend(plan.map(|plan| ServerPlan {
                weight: server.number("weight") as u32,
                backup: server.flag("backup"),
                proxy_protocol: match server.text("proxy_protocol").map(|text| text.text) {
                    Some("v1") => Some(proxy_protocol::Version::V1),
                    Some("v2") => Some(proxy_protocol::Version::V2),
                    _ => None,
                },
                ..plan
            }));
        }
        if servers.is_empty() {
            if !table.is_written("servers") && !table.is_written("server") && !table.doubtful {
                self.error(&table.span, "this upstream has no servers").help(
                    "`servers = [\"http://127.0.0.1:3000\"]`, or a `[[upstream.server]]` for each".into(),
                );
            }
            return None;
        }
        if servers.iter().all(|server| server.backup || server.weight == 0) {
            self.warning(&table.span, "no server of this upstream gets requests as long as all is well");
        }
        let pseudonym = match table.text("via") {
            None => unique_pseudonym(),
            Some(text) if is_pseudonym(text.text) => text.text.to_owned(),
            Some(text) => {
                self.error(text.span, format!("`{}` is no name for Via", text.text))
                    .help("letters, digits, dots and hyphens".into());
                return None;
            }
        };
        let mut plan = GatewayPlan::new(servers, &pseudonym);
        plan.balance = self.balance(table);
        plan.sticky = table.section("sticky").map(|sticky| self.sticky(sticky));
        plan.host = match table.text("host").map(|text| text.text) {
            None | Some("keep") => HostPolicy::Keep,
            Some("server") => HostPolicy::Server,
            Some(other) => HostPolicy::Fixed(other.into()),
        };
        if let HostPolicy::Fixed(host) = &plan.host
            && eleven_semantics::target::Authority::parse(host.as_bytes()).is_err()
        {
            self.complain(&table.span_of("host"), format!("`{host}` is no host"));
        }
        self.rules(table, &mut plan);
        plan.buffer = table.section("buffer_requests").map(|buffer| self.buffer(buffer));
        plan.health = table.section("health").map(|health| self.health(health));
        if let Some(ejection) = table.section("ejection") {
            plan.ejection = Ejection {
                failures: ejection.number("failures") as u32,
                first_ms: ejection.number("first"),
                longest_ms: ejection.number("longest"),
                slow_start_ms: ejection.number("slow_start"),
            };
        }
        if let Some(timeouts) = table.section("timeouts") {
            plan.dial.resolve_timeout_ms = timeouts.number("resolve");
            plan.dial.connect_timeout_ms = timeouts.number("connect");
            plan.dial.tls_timeout_ms = timeouts.number("tls");
            plan.timeouts.queue_timeout_ms = timeouts.number("queue");
            plan.timeouts.head_timeout_ms = timeouts.number("head");
            plan.timeouts.idle_timeout_ms = timeouts.number("idle");
            plan.timeouts.continue_timeout_ms = timeouts.number("continue");
            plan.tunnels.idle_timeout_ms = timeouts.number("tunnel_idle");
            plan.tunnels.half_closed_timeout_ms = timeouts.number("tunnel_half_closed");
        }
        if let Some(pool) = table.section("connections") {
            plan.pool.connections_per_origin_max = pool.number("per_server_max") as usize;
            plan.pool.idle_per_origin_max = pool.number("idle_per_server_max") as usize;
            plan.pool.idle_timeout_ms = pool.number("idle_timeout");
            plan.pool.requests_per_connection_max = pool.number("requests_max") as u32;
        }
        plan.attempts_max = table.number("attempts_max") as u32;
        plan.retries_per_ten = table.number("retries_per_ten") as u32;
        plan.tell_details = table.flag("tell_details");
        plan.trusted = self.trusted.clone();
        Some(plan)
    }

    fn rules(&mut self, table: &Table, plan: &mut GatewayPlan) {
        plan.rules.provenance = Provenance::Replace(match table.text("tell").map(|text| text.text) {
            Some("Forwarded") => Told::Forwarded,
            Some("both") => Told::Both,
            Some("nothing") => Told::Nothing,
            _ => Told::Legacy,
        });
        plan.rules.via_in_responses = table.flag("via_in_responses");
        let upgrades: Vec<Text<'_>> = table.texts("upgrades").collect();
        plan.rules.upgrades = upgrades.iter().map(|text| text.text.to_ascii_lowercase().into()).collect();
        if let Some(text) = upgrades.iter().find(|text| text.text.eq_ignore_ascii_case("h2c")) {
            self.error(text.span, "`h2c` would carry requests past every rule here");
        }
        plan.rules.trailers = match table.text("trailers").map(|text| text.text) {
            Some("none") => Trailers::None,
            _ => Trailers::Safe,
        };
    }

    fn balance(&mut self, table: &Table) -> Balance {
        let name = table.text("hash_name");
        let hashed = |this: &mut Self, make: fn(Box<str>) -> HashKey| match name {
            Some(name) => Balance::Hash(make(name.text.to_ascii_lowercase().into())),
            None => {
                let span = table.span_of("balance");
                this.error(&span, "what to hash is not said").help("name it in `hash_name`".into());
                Balance::default()
            }
        };
        match table.text("balance").map(|text| text.text) {
            Some("least-requests") => Balance::LeastRequests,
            Some("two-choices") => Balance::TwoChoices,
            Some("hash-address") => Balance::Hash(HashKey::Address),
            Some("hash-field") => hashed(self, HashKey::Field),
            // Names of cookies are case-sensitive.
            Some("hash-cookie") => match name {
                Some(name) => Balance::Hash(HashKey::Cookie(name.text.into())),
                None => hashed(self, HashKey::Cookie),
            },
            _ => Balance::RoundRobin,
        }
    }

    fn buffer(&mut self, table: &Table) -> BufferPlan {
        let mut plan = BufferPlan::default().with_disk(table.number("disk_bytes_max"));
        plan.memory_bytes_max = table.number("memory_bytes_max") as usize;
        plan.content_bytes_max = table.number("content_bytes_max");
        if let Some(text) = table.text("directory") {
            plan.directory = self.root_directory(text);
        }
        plan
    }

    fn sticky(&mut self, table: &Table) -> StickyPlan {
        let mut plan = StickyPlan::new(table.text("cookie").map_or("route", |text| text.text));
        plan.secure = match table.text("secure").map(|text| text.text) {
            Some("always") => Secure::Always,
            Some("never") => Secure::Never,
            _ => Secure::Auto,
        };
        plan.http_only = table.flag("http_only");
        plan.same_site = match table.text("same_site").map(|text| text.text) {
            Some("strict") => SameSite::Strict,
            Some("none") => SameSite::None,
            _ => SameSite::Lax,
        };
        plan.path = table.text("path").map_or("/", |text| text.text).into();
        plan.max_age_s = table.optional_number("max_age").map(|ms| ms / 1000);
        if let Some(secret) = table.text("secret") {
            plan.secret = secret.text.as_bytes().into();
        }
        match plan.check() {
            Ok(()) if plan.path.starts_with('/') => {}
            Ok(()) | Err(InvalidCookie::Attribute | InvalidCookie::Value) => {
                self.complain(&table.span_of("path"), format!("`{}` is no path of a cookie", plan.path));
            }
            Err(InvalidCookie::Name) => {
                self.complain(&table.span_of("cookie"), format!("`{}` is no name of a cookie", plan.cookie));
            }
            Err(InvalidCookie::Useless) => {
                self.error(&table.span, "no browser would keep this cookie").help(
                    "`same_site = \"none\"` and names with `__Secure-` need `secure`, `__Host-` the path `/` too"
                        .into(),
                );
            }
        }
        plan
    }

    fn health(&mut self, table: &Table) -> HealthPlan {
        let path = table.text("path").map_or("/", |text| {
            if !text.text.starts_with('/') || !text.text.bytes().all(|b| b.is_ascii_graphic()) {
                self.complain(text.span, format!("`{}` is no path to ask for", text.text));
            }
            text.text
        });
        HealthPlan {
            interval_ms: table.number("interval"),
            timeout_ms: table.number("timeout"),
            path: path.into(),
            statuses: table.text("statuses").map_or(200..=399, |text| self.statuses(text)),
            rise: table.number("rise") as u32,
            fall: table.number("fall") as u32,
        }
    }

    fn statuses(&mut self, text: Text<'_>) -> RangeInclusive<u16> {
        let code = |text: &str| {
            let code = eleven_semantics::grammar::decimal(text.trim().as_bytes())?;
            (100..=599).contains(&code).then_some(code as u16)
        };
        let (first, last) = text.text.split_once('-').unwrap_or((text.text, text.text));
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => first..=last,
            _ => {
                self.error(text.span, format!("`{}` are no status codes", text.text))
                    .help("one, or from one to another: `\"200\"`, `\"200-399\"`".into());
                200..=399
            }
        }
    }

    /// A server by its URL.
    fn server(&mut self, text: Text<'_>, tls: &ClientSettings) -> Option<ServerPlan> {
        if let Some(path) = text.text.strip_prefix("unix:") {
            let place = Place::Unix(self.base(text.span).join(path));
            return Some(ServerPlan { place, ..ServerPlan::tcp("", 80) });
        }
        let uri = match Uri::parse(text.text.as_bytes()) {
            Ok((_, Some(_))) => {
                self.complain(text.span, "a server's URL holds no password");
                return None;
            }
            Ok((uri, None)) if uri.query().is_some() => {
                self.complain(text.span, "a server's URL may have a path, but no query");
                return None;
            }
            Ok((uri, None)) => uri,
            Err(why) => {
                let diagnostic =
                    self.error(text.span, format!("`{}` is no URL of a server: {why}", text.text));
                if !text.text.contains("://") {
                    diagnostic.help(format!("write `\"http://{}\"`", text.text));
                }
                return None;
            }
        };
        let mut plan = ServerPlan::tcp(uri.host(), uri.port());
        plan.prefix = uri.path().trim_end_matches('/').into();
        if uri.is_secure() {
            match tls.build() {
                Ok(config) => plan.tls = Some(config),
                Err(why) => {
                    self.complain(text.span, format!("TLS to `{}`: {why}", text.text));
                    return None;
                }
            }
        }
        Some(plan)
    }

    fn client_tls(&mut self, table: &Table) -> ClientSettings {
        let Some(tls) = table.section("tls") else { return ClientSettings::default() };
        let files: Vec<_> = tls.texts("ca").map(|text| self.path(text)).collect();
        let trust = match (tls.flag("insecure"), files.is_empty()) {
            (true, _) => {
                self.warning(
                    &tls.span_of("insecure"),
                    "anybody between here and the servers can read and change what is sent",
                );
                Trust::Anybody
            }
            (false, true) => Trust::Platform,
            (false, false) => Trust::Files(files),
        };
        let identity = match (tls.text("certificate"), tls.text("key")) {
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate: self.path(certificate), key: self.path(key), ocsp: None })
            }
            (None, None) => None,
            (Some(lonely), None) | (None, Some(lonely)) => {
                self.complain(lonely.span, "a certificate needs its key, and a key its certificate");
                None
            }
        };
        ClientSettings { trust, identity, preset: super::preset(tls) }
    }

    /// `proxy = { upstream = … }`: a group by its name, or one server by its URL.
    pub(super) fn gateway(&mut self, table: &Table) -> Option<HandlerPlan> {
        let text = table.text("upstream")?;
        if let Some(upstream) = self.upstreams.iter().find(|upstream| upstream.name == text.text) {
            return upstream.plan.clone().map(HandlerPlan::Gateway);
        }
        if text.text.contains("://") || text.text.starts_with("unix:") {
            let server = self.server(text, &ClientSettings::default())?;
            let mut plan = GatewayPlan::new(vec![server], &unique_pseudonym());
            plan.trusted = self.trusted.clone();
            return Some(HandlerPlan::Gateway(Arc::new(plan)));
        }
        let names: Vec<String> = self.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        let help = match nearest(text.text, names.iter().map(|name| &**name)) {
            Some(found) => format!("did you mean `\"{found}\"`?"),
            None => "name an `[[upstream]]`, or give the URL of a server: `\"http://127.0.0.1:3000\"`".into(),
        };
        self.error(text.span, format!("there is no upstream `{}`", text.text)).help(help);
        None
    }

    /// `forward = {…}`: fault X10, nobody opens a proxy by leaving something out.
    pub(super) fn forward(&mut self, table: &Table) -> Option<HandlerPlan> {
        let mut plan = OpenPlan::new(&unique_pseudonym());
        plan.clients = self.networks(table, "clients").into();
        plan.destinations = self.networks(table, "destinations").into();
        plan.connect_ports = table
            .list("connect_ports")
            .iter()
            .filter_map(|value| value.number())
            .map(|port| port as u16)
            .collect();
        if let Some(basic) = table.section("basic") {
            plan.authentication.basic = self.basic(basic);
        }
        if let Some(digest) = table.section("digest") {
            plan.authentication.digest = self.digest(digest);
        }
        if let Some(text) = table.text("parent") {
            plan.parent = Some(self.parent(text, table.text("parent_user"))?);
        }
        plan.own_ports = self.listeners.iter().filter_map(port).collect();
        let has_users = table.is_written("basic") || table.is_written("digest");
        if plan.clients.is_empty() && !has_users {
            let open = self.listeners.iter().find(|address| !is_local(address)).map(ToString::to_string);
            if let Some(open) = open {
                self.error(&table.span, format!("everybody who reaches {open} could use this proxy"))
                    .help("say who may: `clients = [\"10.0.0.0/8\"]`, `basic` or `digest`".into());
                return None;
            }
        }
        Some(HandlerPlan::Forward(Arc::new(plan)))
    }
}

impl Builder<'_> {
    /// The proxy that is next on the way.
    fn parent(&mut self, text: Text<'_>, user: Option<Text<'_>>) -> Option<Parent> {
        let mut proxy = match Proxy::parse(text.text) {
            Ok(proxy) if proxy.userinfo.is_some() => {
                self.error(text.span, "a URL in the configuration holds no password")
                    .help("who we are there stands in `parent_user`".into());
                return None;
            }
            Ok(proxy) => proxy,
            Err(why) => {
                self.complain(text.span, why);
                return None;
            }
        };
        proxy.userinfo = user.map(|user| {
            let (user, password) = user.text.split_once(':').unwrap_or((user.text, ""));
            Userinfo { user: user.into(), password: Some(password.into()) }
        });
        let tls = match proxy.uri.is_secure().then(|| ClientSettings::default().build()).transpose() {
            Ok(tls) => tls,
            Err(why) => {
                self.complain(text.span, format!("TLS to the parent: {why}"));
                return None;
            }
        };
        Some(Parent { proxy, tls })
    }
}

fn port(address: &ListenAddr) -> Option<u16> {
    match address {
        ListenAddr::Tcp { port, .. } => Some(*port),
        ListenAddr::Unix(_) | ListenAddr::Inherited(_) => None,
    }
}

fn is_local(address: &ListenAddr) -> bool {
    match address {
        ListenAddr::Tcp { host: Some(host), .. } => {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        ListenAddr::Tcp { host: None, .. } => false,
        ListenAddr::Unix(_) => true,
        // Whoever passes it knows who reaches it; we do not.
        ListenAddr::Inherited(_) => false,
    }
}
