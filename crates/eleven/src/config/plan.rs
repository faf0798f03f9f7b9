//! Second pass: what the values mean together. Names that lead to two sites, routes without a handler, paths that match
//! nothing, files that are not there: each with its place, the reason, and what to do.

mod acme;
mod admin;
mod apps;
mod cache;
mod proxy;
mod redirects;
mod trace;

use super::diagnose::{Diagnostic, Report, Sources, nearest};
use super::raw::{Span, Table, Text};
use eleven_net::clock;
use eleven_net::file::{Options as RootOptions, Symlinks};
use eleven_net::listener::ListenAddr;
use eleven_net::ocsp::Stapling;
use eleven_net::tls_certificates::{Loaded, Pair};
use eleven_net::tls_config::{Identity, ServerSettings};
use eleven_net::tls_preset::Preset;
use eleven_semantics::date::HttpDate;
use eleven_semantics::grammar::{is_field_value, is_token, trim_ows};
use eleven_semantics::media_type::MediaType;
use eleven_semantics::negotiation::is_language_tag;
use eleven_semantics::target::Authority;
use eleven_semantics::{Method, Status};
use eleven_server::access_log::{Format, Template as LogTemplate, WORDS};
use eleven_server::after::compress::{Coding, Compress, Levels};
use eleven_server::after::error_page::{ErrorPages, Page, StatusSet};
use eleven_server::after::fields::{CacheRule, FieldRules, Line, TypeSet, is_reserved};
use eleven_server::before::access::Addresses;
use eleven_server::before::auth::{Authentication, Basic, Digest, Hash, PasswordFile};
use eleven_server::before::client::{ChainField, TrustedProxies};
use eleven_server::before::cors::Cors;
use eleven_server::before::limit::{Limiter, Rate};
use eleven_server::before::redirect::Template;
use eleven_server::files::listing::ListingOptions;
use eleven_server::files::upload::UploadOptions;
use eleven_server::files::{self, FilesOptions};
use eleven_server::overload::Limits;
use eleven_server::pattern::Pattern;
use eleven_server::plan::{
    AccessLogPlan, AcmePlan, CacheRules, FilesPlan, FixedPlan, HandlerPlan, Listener, ListenerTls, Plan,
    Policy, ProcessPlan, Route, Site, SiteLogPlan,
};
use eleven_server::route::{Match, PathMatch};
use eleven_server::site::{HostPattern, SiteMap};
use eleven_server::worker::Settings;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Makes the plan, reporting everything that is wrong. With an error in the report the plan must not be used.
pub fn build(root: &Table, sources: &Sources, report: &mut Report) -> Plan {
    let mut builder = Builder {
        report,
        sources,
        routes: 0,
        content_bytes_max: 0,
        trusted: TrustedProxies::default(),
        listeners: Vec::new(),
        upstreams: Vec::new(),
        cache_rules: None,
        logs: Vec::new(),
        has_log: false,
        log_format: None,
    };
    builder.plan(root)
}

/// The sites, and how they are found.
#[derive(Default)]
struct Sites {
    all: Vec<Arc<Site>>,
    names: SiteMap<Arc<Site>>,
    by_listener: Vec<(ListenAddr, SiteMap<Arc<Site>>)>,
}

/// What a site answers for: a name, or every name that nobody has.
struct Claim<W> {
    what: W,
    span: Span,
    /// Only there; everywhere if empty.
    listeners: Vec<ListenAddr>,
    site: Arc<Site>,
}

/// All claims.
#[derive(Default)]
struct Named {
    names: Vec<Claim<HostPattern>>,
    defaults: Vec<Claim<()>>,
}

impl Named {
    /// What leads where at a listener, or at those that no site keeps to. A site that keeps to it goes before one that
    /// answers everywhere.
    fn map(&self, listener: Option<&ListenAddr>) -> SiteMap<Arc<Site>> {
        let mut map = SiteMap::default();
        let is_own = |listeners: &[ListenAddr]| listener.is_some_and(|own| listeners.contains(own));
        for own in [true, false] {
            let holds = |listeners: &[ListenAddr]| match own {
                true => is_own(listeners),
                false => listeners.is_empty(),
            };
            for claim in self.names.iter().filter(|claim| holds(&claim.listeners)) {
                // What is there already goes before.
                let _ = map.insert(&claim.what, claim.site.clone());
            }
        }
        let default = self.defaults.iter().find(|claim| is_own(&claim.listeners));
        let default = default.or_else(|| self.defaults.iter().find(|claim| claim.listeners.is_empty()));
        if let Some(claim) = default {
            map.set_default(claim.site.clone());
        }
        map
    }
}

/// Whether two sites would answer the same request if they had the same name.
fn meet(one: &[ListenAddr], other: &[ListenAddr]) -> bool {
    (one.is_empty() && other.is_empty()) || one.iter().any(|listener| other.contains(listener))
}

struct Builder<'a> {
    report: &'a mut Report,
    sources: &'a Sources,
    /// Routes made so far: the next one's index.
    routes: usize,
    /// Size of request content where nothing else is said.
    content_bytes_max: u64,
    trusted: TrustedProxies,
    listeners: Vec<ListenAddr>,
    upstreams: Vec<proxy::Upstream>,
    /// What routes with a cache do where they say nothing themselves; `None` without a `[cache]`.
    cache_rules: Option<CacheRules>,
    /// Logs so far, that of the server first if it has one.
    logs: Vec<(AccessLogPlan, Span)>,
    has_log: bool,
    /// The format of the server's log, as written.
    log_format: Option<String>,
}

/// Versions and suites, where the table says which.
fn preset(tls: &Table) -> Preset {
    tls.text("preset").and_then(|text| Preset::named(text.text)).unwrap_or_default()
}

/// Longest file of passwords, error pages or templates that is read.
const SIDE_FILE_BYTES_MAX: u64 = 16 << 20;

impl Builder<'_> {
    fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.report.push(Diagnostic::error(span.clone(), message))
    }

    /// As [`Builder::error`], where nothing is to be added.
    fn complain(&mut self, span: &Span, message: impl Into<String>) {
        self.error(span, message);
    }

    fn warning(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.report.push(Diagnostic::warning(span.clone(), message))
    }

    fn path(&self, text: Text<'_>) -> PathBuf {
        self.base(text.span).join(text.text)
    }

    /// Where relative paths start that are written there.
    fn base(&self, span: &Span) -> &Path {
        self.sources.directory(span)
    }

    fn plan(&mut self, root: &Table) -> Plan {
        let acme = self.acme(root);
        let listeners = self.listeners(root, acme.as_ref());
        let trusted_proxies = TrustedProxies {
            networks: self.networks(root, "trusted_proxies"),
            field: match root.text("trusted_proxies_field").map(|text| text.text) {
                Some("Forwarded") => ChainField::Forwarded,
                _ => ChainField::XForwardedFor,
            },
        };
        self.trusted = trusted_proxies.clone();
        self.listeners = listeners.iter().map(|listener| listener.address.clone()).collect();
        self.upstreams(root);
        let access_log = root.section("log").and_then(|log| self.access_log(log));
        if let (Some(plan), Some(log)) = (&access_log, root.section("log")) {
            self.logs.push((plan.clone(), log.span_of("access")));
            self.has_log = true;
        }
        self.log_format =
            root.section("log").and_then(|log| log.text("format")).map(|text| text.text.to_owned());
        let server_field = root.text("server_field").map_or("", |text| self.field_value(text)).into();
        let mut settings = self.settings(root);
        let limits = root.section("limits");
        let limit = |name: &str| limits.map_or(0, |limits| limits.number(name));
        self.content_bytes_max = limit("content_bytes_max");
        let (trace, otlp) = self.trace(root);
        let admin = root.section("admin").and_then(|admin| self.admin(admin));
        let cache = root.section("cache").map(|cache| self.cache(cache));
        self.cache_rules = root.section("cache").map(|cache| self.cache_rules(cache));
        let Sites { all: sites, names, by_listener: names_by_listener } = self.sites(root);
        // The session cuts at the highest; what is lower is cut where the route is known.
        let of_routes =
            sites.iter().flat_map(|site| site.routes.iter()).map(|(_, route)| route.policy.content_bytes_max);
        settings.limits.content_bytes_max = of_routes.max().unwrap_or(0).max(self.content_bytes_max);
        Plan {
            listeners,
            workers: root.number("workers") as usize,
            acme,
            process: ProcessPlan {
                pid_file: root.text("pid_file").map(|text| self.path(text)),
                drain_timeout_ms: root.number("drain_timeout"),
                user: root.text("user").map(|text| text.text.into()),
                group: root.text("group").map(|text| text.text.into()),
                sandbox: root.flag("sandbox"),
            },
            settings,
            connections_max: limit("connections_max") as usize,
            connections_per_address_max: limit("connections_per_address_max") as u32,
            trusted_proxies,
            access_log,
            trace,
            otlp,
            admin,
            cache,
            server_field,
            names,
            names_by_listener,
            sites,
        }
    }

    fn listeners(&mut self, root: &Table, acme: Option<&AcmePlan>) -> Vec<Listener> {
        let loaded = Loaded::default();
        let identities = self.identities(root, &loaded);
        let ordered = acme.map(acme::identities).unwrap_or_default();
        let trusting = !root.list("trusted_proxies").is_empty();
        let mut listeners: Vec<(Listener, Span)> = Vec::new();
        for table in root.sections("listener") {
            let Some(text) = table.text("address") else { continue };
            let address = match read_address(text.text, self.base(text.span)) {
                Ok(address) => address,
                Err(reason) => {
                    let help = address_help(text.text);
                    let diagnostic = self
                        .error(text.span, format!("`{}` is no address to listen on: {reason}", text.text));
                    if let Some(help) = help {
                        diagnostic.help(help);
                    }
                    continue;
                }
            };
            // Port 0 is another port each time.
            let is_fresh = matches!(address, ListenAddr::Tcp { port: 0, .. });
            match listeners.iter().find(|(other, _)| other.address == address && !is_fresh) {
                Some((_, before)) => {
                    let before = before.clone();
                    self.error(text.span, format!("`{address}` is listened on twice"))
                        .related(before, "the first time");
                }
                None => {
                    let tls = table
                        .section("tls")
                        .map(|tls| self.listener_tls(tls, &identities, &ordered, &loaded));
                    let proxy_protocol = table.flag("proxy_protocol");
                    if proxy_protocol && !trusting && matches!(address, ListenAddr::Tcp { .. }) {
                        self.error(
                            &table.span_of("proxy_protocol"),
                            "there are no `trusted_proxies`: nobody could connect",
                        )
                        .help("name them at the top: `trusted_proxies = [\"10.0.0.0/8\"]`".into());
                    }
                    listeners.push((Listener { address, tls, proxy_protocol }, text.span.clone()));
                }
            }
        }
        if listeners.is_empty() {
            let address = ListenAddr::Tcp { host: Some("127.0.0.1".into()), port: 8080 };
            return vec![Listener { address, tls: None, proxy_protocol: false }];
        }
        listeners.into_iter().map(|(listener, _)| listener).collect()
    }

    /// Says that a certificate has ended already: it is shown all the same, for there is no better one.
    fn warn_of_end(&mut self, site: &Table, pair: &Pair, now_unix_s: i64) {
        let Some(end) = pair.facts().map(|facts| facts.not_after_unix_s).filter(|end| *end < now_unix_s)
        else {
            return;
        };
        let ended = String::from_utf8_lossy(&HttpDate(end).imf()).into_owned();
        self.warning(
            &site.span_of("certificate"),
            format!("this certificate expired on {ended}: clients will refuse it"),
        )
        .help("put a new one in its file; it is taken within ten seconds, without a reload".into());
    }

    /// The files of a site's certificate.
    fn identity(&self, site: &Table) -> Option<Identity> {
        Some(Identity {
            certificate: self.path(site.text("certificate")?),
            key: self.path(site.text("key")?),
            ocsp: site.text("ocsp").map(|text| self.path(text)),
        })
    }

    /// Says what is missing where a site has no certificate with a key.
    fn complain_of_half(&mut self, site: &Table) {
        if let Some(lonely) = site.text("certificate").or(site.text("key")) {
            self.complain(lonely.span, "a certificate needs its key, and a key its certificate");
        } else if site.is_written("ocsp") {
            let of_other = "there is no `certificate` here to staple this response to";
            self.complain(&site.span_of("ocsp"), of_other);
        }
    }

    /// The certificates of all sites, each checked by itself so that a mistake is shown where it is.
    fn identities(&mut self, root: &Table, loaded: &Loaded) -> Vec<Identity> {
        let secured = root.sections("listener").any(|listener| listener.section("tls").is_some());
        // Loading is the long part of a large configuration, and is done for all at once.
        let of_sites: Vec<_> = root.sections("site").map(|site| self.identity(site)).collect();
        let written: Vec<_> = of_sites.iter().flatten().cloned().collect();
        let mut outcomes = loaded.load_all(&written).into_iter();
        let mut identities = Vec::new();
        for (site, identity) in root.sections("site").zip(of_sites) {
            let Some((identity, outcome)) = identity.and_then(|it| Some((it, outcomes.next()?))) else {
                self.complain_of_half(site);
                continue;
            };
            match outcome {
                Ok(pair) => {
                    identities.push(identity);
                    let now = clock::unix_seconds();
                    self.warn_of_end(site, &pair, now);
                    if let Some(Stapling { file, outcome: Err(why), .. }) = pair.stapling(now) {
                        self.warning(
                            &site.span_of("ocsp"),
                            format!("the OCSP response `{}` is not stapled: {why}", file.display()),
                        )
                        .help(
                            "it is looked at again every ten seconds, and stapled as soon as it is good"
                                .into(),
                        );
                    }
                }
                Err(why) => self.complain(&site.span_of("certificate"), why.to_string()),
            }
            if !secured {
                self.warning(
                    &site.span_of("certificate"),
                    "no listener speaks TLS, so nobody sees this certificate",
                )
                .help("give a `[[listener]]` `tls = true`".into());
            }
        }
        identities
    }

    fn listener_tls(
        &mut self,
        tls: &Table,
        identities: &[Identity],
        ordered: &[Identity],
        loaded: &Loaded,
    ) -> ListenerTls {
        let mut settings = ServerSettings {
            identities: identities.to_vec(),
            client_trust: tls.texts("client_ca").map(|text| self.path(text)).collect(),
            client_certificate_optional: tls.flag("client_optional"),
            preset: preset(tls),
            loaded: loaded.clone(),
        };
        let self_signed = tls.flag("self_signed");
        if identities.is_empty() {
            if !self_signed && ordered.is_empty() {
                self.error(&tls.span, "this listener has no certificate to show").help(
                    "give a site `certificate` and `key` or `acme = true`, or say `self_signed = true` for development"
                        .into(),
                );
            }
        } else if let Err(why) = settings.build() {
            self.complain(&tls.span_of("client_ca"), why.to_string());
        }
        settings.identities.extend_from_slice(ordered);
        ListenerTls { settings, self_signed }
    }

    fn settings(&mut self, root: &Table) -> Settings {
        let mut settings = Settings::default();
        let mut protocol = (*settings.protocol).clone();
        protocol.options.http09 = root.flag("http09");
        protocol.options.keep_underscore_names = root.flag("keep_underscore_names");
        protocol.options.transfer_gzip = root.flag("transfer_gzip");
        let timeouts = &mut settings.timeouts;
        timeouts.stop_timeout_ms = root.number("stop_timeout");
        if let Some(limits) = root.section("limits") {
            let size = |name: &str| limits.number(name) as usize;
            let of_engine = &mut protocol.limits;
            of_engine.method_bytes_max = size("method_bytes_max");
            of_engine.target_bytes_max = size("target_bytes_max");
            of_engine.field_section_bytes_max = size("field_section_bytes_max");
            of_engine.field_lines_max = size("field_lines_max");
            of_engine.trailer_section_bytes_max = size("trailer_section_bytes_max");
            of_engine.trailer_lines_max = size("trailer_lines_max");
            of_engine.chunk_extension_bytes_max = size("chunk_extension_bytes_max");
            of_engine.pipelined_requests_max = size("pipelined_requests_max");
            timeouts.head_timeout_ms = limits.number("head_timeout");
            timeouts.head_timeout_extended_ms = limits.number("head_timeout_extended");
            timeouts.head_rate_min = limits.number("head_rate_min");
            timeouts.idle_timeout_ms = limits.number("idle_timeout");
            timeouts.progress_window_ms = limits.number("progress_window");
            timeouts.content_rate_min = limits.number("content_rate_min");
            timeouts.send_rate_min = limits.number("send_rate_min");
            timeouts.linger_timeout_ms = limits.number("linger_timeout");
            timeouts.linger_idle_timeout_ms = limits.number("linger_idle_timeout");
            timeouts.linger_bytes_max = limits.number("linger_bytes_max");
            settings.limits.concurrent_requests_max = size("concurrent_requests_max");
            settings.overload = Limits {
                working_max: size("working_max"),
                waiting_max: size("waiting_max"),
                patience_ms: limits.number("waiting_timeout"),
                patience_standing_ms: limits.number("waiting_timeout_standing"),
            };
            if timeouts.head_timeout_extended_ms < timeouts.head_timeout_ms {
                self.error(
                    &limits.span_of("head_timeout_extended"),
                    "`head_timeout_extended` is shorter than `head_timeout`",
                );
            }
        }
        settings.protocol = Arc::new(protocol);
        settings
    }

    fn access_log(&mut self, log: &Table) -> Option<AccessLogPlan> {
        let format = log.text("format").and_then(|text| self.log_format(text));
        let path = match log.text("access")? {
            Text { text: "off", .. } => return None,
            text => self.log_path(text)?,
        };
        Some(AccessLogPlan { path, format: format? })
    }

    /// A file to write lines to, or standard output.
    fn log_path(&mut self, text: Text<'_>) -> Option<Option<PathBuf>> {
        if text.text == "stdout" {
            return Some(None);
        }
        let path = self.path(text);
        if let Some(parent) =
            path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir())
        {
            let parent = parent.display().to_string();
            self.error(text.span, format!("there is no directory `{parent}` for the access log"));
            return None;
        }
        if path.is_dir() {
            self.error(text.span, format!("`{}` is a directory", text.text));
            return None;
        }
        Some(Some(path))
    }

    /// A log of a site's own; that of the server, if it is the same.
    fn site_log(&mut self, log: &Table) -> SiteLogPlan {
        let Some(access) = log.text("access") else { return SiteLogPlan::Main };
        if access.text == "off" {
            return SiteLogPlan::Off;
        }
        let inherited = self.log_format.clone().unwrap_or_default();
        let format = match log.text("format") {
            Some(text) => self.log_format(text),
            // What is wrong with it is said where it stands.
            None => Format::named(&inherited)
                .or_else(|| LogTemplate::parse(&inherited).ok().map(Format::Template)),
        };
        let (Some(path), Some(format)) = (self.log_path(access), format) else { return SiteLogPlan::Main };
        let plan = AccessLogPlan { path, format };
        let span = access.span.clone();
        match self.logs.iter().position(|(other, _)| other.path == plan.path) {
            Some(at) if self.logs[at].0 != plan => {
                let before = self.logs[at].1.clone();
                self.error(&span, format!("`{}` is written in two formats", access.text))
                    .help("give both the same `format`, or each a file of its own".into())
                    .related(before, "the other");
            }
            // The server's own comes first.
            Some(0) if self.has_log => return SiteLogPlan::Main,
            Some(_) => {}
            None => self.logs.push((plan.clone(), span)),
        }
        SiteLogPlan::Own(plan)
    }

    fn log_format(&mut self, text: Text<'_>) -> Option<Format> {
        const NAMES: [&str; 3] = ["combined", "common", "json"];
        match text.text {
            name if Format::named(name).is_some() => Format::named(name),
            name if !name.contains('{') => {
                let help = match nearest(name, NAMES.into_iter()) {
                    Some(found) => format!("did you mean `\"{found}\"`?"),
                    None => {
                        "one of `\"combined\"`, `\"common\"`, `\"json\"`, or a template with `{words}`".into()
                    }
                };
                self.error(text.span, format!("`{name}` is no format of the access log")).help(help);
                None
            }
            template => match LogTemplate::parse(template) {
                Ok(template) => Some(Format::Template(template)),
                Err(why) => {
                    let words: Vec<_> = WORDS.iter().map(|(word, _)| format!("{{{word}}}")).collect();
                    let help = format!("words: {}, {{request.Name}}, {{response.Name}}", words.join(", "));
                    self.error(text.span, format!("the format of the access log: {why}")).help(help);
                    None
                }
            },
        }
    }

    fn sites(&mut self, root: &Table) -> Sites {
        let mut sites = Sites::default();
        let mut named = Named::default();
        for table in root.sections("site") {
            let names = self.hosts(table, "names");
            let redirect_names = self.hosts(table, "redirect_names");
            let listeners = self.site_listeners(table);
            let policy = self.policy(table, None);
            let host: Box<str> = match names.iter().find(|(name, _)| !name.is_wildcard()) {
                Some((name, _)) => name.to_string().into(),
                None => "".into(),
            };
            let name: Arc<str> = names.first().map_or("default".into(), |(name, _)| name.to_string().into());
            let site = Arc::new(self.site(table, name, host, policy));
            for (pattern, span) in &names {
                self.claim(&mut named, pattern, span, &listeners, &site);
            }
            if !redirect_names.is_empty() {
                if site.host.is_empty() {
                    self.error(
                        &table.span_of("redirect_names"),
                        "`redirect_names` need a first name to lead to",
                    )
                    .help("give the site a name without `*` in `names`".into());
                }
                let elsewhere = Arc::new(self.redirect_site(&site));
                for (pattern, span) in &redirect_names {
                    self.claim(&mut named, pattern, span, &listeners, &elsewhere);
                }
                sites.all.push(elsewhere);
            }
            if names.is_empty() || table.flag("default") {
                let span = if names.is_empty() { table.span.clone() } else { table.span_of("default") };
                let before = named.defaults.iter().find(|other| meet(&other.listeners, &listeners));
                match before.map(|before| before.span.clone()) {
                    Some(before) => {
                        self.error(&span, "a second default site")
                            .help(
                                "a site is the default if it says `default = true` or has no `names`".into(),
                            )
                            .related(before, "the first");
                    }
                    None => named.defaults.push(Claim { what: (), span, listeners, site: site.clone() }),
                }
            }
            sites.all.push(site);
        }
        if !root.is_written("site") && !root.doubtful {
            self.error(&(0..0), "there is no site")
                .help("add a `[[site]]` with a `root`, for example `root = \"/var/www\"`".into());
        }
        sites.names = named.map(None);
        let mut own: Vec<&ListenAddr> = Vec::new();
        for listener in named
            .names
            .iter()
            .flat_map(|claim| &claim.listeners)
            .chain(named.defaults.iter().flat_map(|claim| &claim.listeners))
        {
            if !own.contains(&listener) {
                own.push(listener);
            }
        }
        sites.by_listener =
            own.into_iter().map(|listener| (listener.clone(), named.map(Some(listener)))).collect();
        sites
    }

    /// The listeners that a site keeps to; none for all of them.
    fn site_listeners(&mut self, table: &Table) -> Vec<ListenAddr> {
        let mut listeners = Vec::new();
        for text in table.texts("listeners") {
            let address = read_address(text.text, self.base(text.span));
            match address {
                Ok(address) if self.listeners.contains(&address) => listeners.push(address),
                Ok(_) => {
                    let known: Vec<String> =
                        self.listeners.iter().map(|known| format!("`{known}`")).collect();
                    self.error(
                        text.span,
                        format!("there is no `[[listener]]` with the address `{}`", text.text),
                    )
                    .help(format!("there are {}", known.join(", ")));
                }
                Err(reason) => {
                    self.complain(text.span, format!("`{}` is no address to listen on: {reason}", text.text));
                }
            }
        }
        listeners
    }

    fn claim(
        &mut self,
        named: &mut Named,
        pattern: &HostPattern,
        span: &Span,
        listeners: &[ListenAddr],
        site: &Arc<Site>,
    ) {
        let mut others = named.names.iter().filter(|other| other.what == *pattern);
        match others.find(|other| meet(&other.listeners, listeners)).map(|before| before.span.clone()) {
            Some(before) => {
                self.error(span, format!("`{pattern}` leads to two sites")).related(before, "the first");
            }
            None => named.names.push(Claim {
                what: pattern.clone(),
                span: span.clone(),
                listeners: listeners.to_vec(),
                site: site.clone(),
            }),
        }
    }

    fn hosts(&mut self, table: &Table, key: &str) -> Vec<(HostPattern, Span)> {
        let mut hosts = Vec::new();
        for text in table.texts(key) {
            match HostPattern::parse(text.text) {
                Ok(pattern) => hosts.push((pattern, text.span.clone())),
                Err(why) => {
                    let bare = text.text.split_once("://").map_or(text.text, |(_, rest)| rest);
                    let bare = bare.split(['/', '?', '#']).next().unwrap_or_default();
                    let bare =
                        bare.strip_prefix('.').map_or(bare.to_owned(), |beneath| format!("*.{beneath}"));
                    let is_other = bare != text.text && HostPattern::parse(&bare).is_ok();
                    let diagnostic =
                        self.error(text.span, format!("`{}` is no name of a site: {why}", text.text));
                    if is_other {
                        diagnostic.help(format!("write `\"{bare}\"`"));
                    }
                }
            }
        }
        hosts
    }

    /// A site that only leads to the first name of another one.
    fn redirect_site(&mut self, site: &Site) -> Site {
        let index = self.next_route();
        let handler = match Template::parse(&format!("{{scheme}}://{}{{path}}{{query}}", site.host)) {
            Ok(template) => HandlerPlan::Redirect(Status::PERMANENT_REDIRECT, template),
            // The host is empty or has a port: reported already.
            Err(_) => HandlerPlan::Echo,
        };
        let route = Route {
            name: "/".into(),
            index,
            strip_prefix: false,
            rewrite: None,
            tries: Box::default(),
            handler,
            cache: None,
            policy: Policy::default(),
            log: site.log.clone(),
        };
        let mut routes = eleven_server::route::RouteMap::default();
        routes.push(everything(), Arc::new(route));
        Site {
            name: site.name.clone(),
            host: site.host.clone(),
            https_only: site.https_only,
            certificate: site.certificate.clone(),
            routes,
            policy: Policy::default(),
            log: site.log.clone(),
        }
    }

    fn next_route(&mut self) -> usize {
        self.routes += 1;
        self.routes - 1
    }

    fn site(&mut self, table: &Table, name: Arc<str>, host: Box<str>, policy: Policy) -> Site {
        let mut routes = eleven_server::route::RouteMap::default();
        let mut seen: Vec<(Match, Span)> = Vec::new();
        let log = table.section("log").map_or(SiteLogPlan::Main, |log| self.site_log(log));
        for route_table in table.sections("route") {
            let Some(condition) = self.condition(route_table) else {
                // Its path is wrong; the rest of it is looked at all the same.
                self.route(route_table, &everything(), &policy, &log);
                continue;
            };
            let span = route_table.span.clone();
            if let Some((_, before)) = seen.iter().find(|(other, _)| covers(other, &condition)) {
                let before = before.clone();
                self.warning(&span, "this route is never reached")
                    .related(before, "this one takes all it could");
            }
            seen.push((condition.clone(), span));
            let route = self.route(route_table, &condition, &policy, &log);
            routes.push(condition, Arc::new(route));
        }
        if let Some(redirects) = table.section("redirects") {
            self.redirects(redirects, &policy, &log, &mut routes);
        }
        if let Some(root) = table.text("root") {
            let by_route = seen.iter().find(|(other, _)| covers(other, &everything()));
            let by_redirect = || routes.iter().any(|(other, _)| covers(other, &everything()));
            let taken = by_route.map(|(_, before)| before.clone());
            if let Some(before) = taken.or_else(|| by_redirect().then(|| table.span_of("redirects"))) {
                self.error(root.span, "`root` is never reached: a route takes every path")
                    .help("leave out `root`, or give the route a narrower `path`".into())
                    .related(before, "this route");
            }
            let files = FilesPlan {
                root: self.root_directory(root),
                access: RootOptions::default(),
                options: default_files(),
            };
            let route = Route {
                name: "/".into(),
                index: self.next_route(),
                strip_prefix: false,
                rewrite: None,
                tries: Box::default(),
                handler: HandlerPlan::Files(files),
                cache: None,
                policy: policy.clone(),
                log: log.clone(),
            };
            routes.push(everything(), Arc::new(route));
        } else if !["route", "root", "redirects"].iter().any(|key| table.is_written(key)) && !table.doubtful {
            self.error(&table.span, "this site has nothing to serve")
                .help("give it a `root`, or a `[[site.route]]`".into());
        }
        let certificate = table.text("certificate").map(|text| self.path(text));
        Site { name, host, https_only: table.flag("https_only"), certificate, routes, policy, log }
    }

    /// What a route takes; `None` after reporting that its path is wrong.
    fn condition(&mut self, table: &Table) -> Option<Match> {
        let path = match (table.text("path"), table.text("exact")) {
            (Some(_), Some(exact)) => {
                self.error(exact.span, "a route has either `path` or `exact`")
                    .related(table.span_of("path"), "`path` is here");
                None
            }
            (Some(path), None) => self.route_path(path, PathMatch::prefix),
            (None, Some(exact)) => self.route_path(exact, PathMatch::exact),
            (None, None) if table.is_written("path") || table.is_written("exact") => None,
            (None, None) => PathMatch::prefix("/").ok(),
        };
        let methods = self.methods(table, "methods").into();
        let hosts = self.hosts(table, "hosts").into_iter().map(|(pattern, _)| pattern).collect();
        let pattern = table.text("pattern").and_then(|text| self.pattern(table, text));
        // A pattern that is wrong must not become a route without one.
        let is_wrong = pattern.is_none() && table.is_written("pattern");
        Some(Match { path: path.filter(|_| !is_wrong)?, pattern, methods, hosts })
    }

    fn pattern(&mut self, table: &Table, text: Text<'_>) -> Option<Pattern> {
        if table.is_written("exact") {
            self.error(text.span, "an `exact` path needs no `pattern`")
                .related(table.span_of("exact"), "`exact` is here");
        }
        match Pattern::parse(text.text) {
            Ok(pattern) => Some(pattern),
            Err(why) => {
                let wide = text.text.starts_with('*');
                let diagnostic =
                    self.error(text.span, format!("`{}` is no regular expression: {why}", text.text));
                if wide {
                    diagnostic.help("`*` alone is none; `\\.png$` means every path that ends so".into());
                }
                None
            }
        }
    }

    /// Templates may only name groups that there are.
    fn groups(&mut self, table: &Table, condition: &Match, route: &Route) {
        let there = condition.pattern.as_ref().map_or(0, Pattern::groups);
        let mut used = Vec::new();
        let mut note = |template: &Template, span| used.push((template.highest_group(), span));
        if let Some(template) = &route.rewrite {
            note(template, table.span_of("rewrite"));
        }
        for template in &route.tries {
            note(template, table.section("files").map_or(table.span.clone(), |files| files.span_of("try")));
        }
        if let HandlerPlan::Redirect(_, template) = &route.handler {
            let span = table.section("redirect").map(|redirect| redirect.span_of("to"));
            note(template, span.unwrap_or_else(|| table.span.clone()));
        }
        for (highest, span) in used.into_iter().filter(|(highest, _)| *highest > there) {
            let help = match &condition.pattern {
                None => "groups are those of the route's `pattern`".into(),
                Some(pattern) => format!("`{pattern}` has {there}; round brackets make one"),
            };
            self.error(&span, format!("`{{{highest}}}` names a group that there is not")).help(help);
        }
    }

    fn route_path<E: std::fmt::Display>(
        &mut self,
        text: Text<'_>,
        read: impl Fn(&str) -> Result<PathMatch, E>,
    ) -> Option<PathMatch> {
        match read(text.text) {
            Ok(path) => Some(path),
            Err(why) => {
                let bare = text.text.trim_end_matches('*').trim_end_matches("/*");
                let repaired = if bare.starts_with('/') { bare.to_owned() } else { format!("/{bare}") };
                let diagnostic =
                    self.error(text.span, format!("`{}` is no path of a route: {why}", text.text));
                if read(&repaired).is_ok() {
                    diagnostic.help(format!("write `\"{repaired}\"`"));
                }
                None
            }
        }
    }

    fn methods(&mut self, table: &Table, key: &str) -> Vec<Method> {
        let mut methods = Vec::new();
        for text in table.texts(key) {
            let upper = text.text.to_ascii_uppercase();
            match Method::from_bytes(text.text.as_bytes()) {
                None => self.complain(text.span, format!("`{}` is no method", text.text)),
                // 9110-9.1-01: `get` is another method, and certainly not the one meant.
                Some(method) if !method.is_known() && upper != text.text => {
                    self.error(
                        text.span,
                        format!("methods are case-sensitive, and nobody sends `{}`", text.text),
                    )
                    .help(format!("write `\"{upper}\"`"));
                }
                Some(method) => methods.push(method),
            }
        }
        methods
    }

    fn route(
        &mut self,
        table: &Table,
        condition: &Match,
        site_policy: &Policy,
        site_log: &SiteLogPlan,
    ) -> Route {
        let rewrite = table.text("rewrite").and_then(|text| self.local_template(text, "rewrite"));
        let tries = table.section("files").map_or(Box::default(), |files| {
            files.texts("try").filter_map(|text| self.local_template(text, "try")).collect()
        });
        let route = Route {
            name: condition.path.to_string().into(),
            index: self.next_route(),
            strip_prefix: table.flag("strip_prefix"),
            rewrite,
            tries,
            handler: self.handler(table),
            cache: self.route_cache(table, condition).map(Arc::new),
            policy: self.policy(table, Some(site_policy)),
            log: table.section("log").map_or_else(|| site_log.clone(), |log| self.site_log(log)),
        };
        self.groups(table, condition, &route);
        route
    }

    /// A template that leads to a path of this server.
    fn local_template(&mut self, text: Text<'_>, key: &str) -> Option<Template> {
        let template = self.template(text, key);
        let local =
            text.text.starts_with('/') || text.text.starts_with("{path}") || text.text.starts_with("{rest}");
        if template.is_some() && !local {
            self.error(text.span, format!("`{key}` stays on this server: it starts with `/`"))
                .help("to send the client elsewhere, use `redirect`".into());
        }
        template
    }

    fn handler(&mut self, table: &Table) -> HandlerPlan {
        const HANDLERS: [&str; 8] =
            ["files", "redirect", "fixed", "echo", "proxy", "forward", "app", "fastcgi"];
        let written: Vec<&str> = HANDLERS.into_iter().filter(|name| table.is_written(name)).collect();
        let mut found = None;
        for name in &written {
            let Some(section) = table.section(name) else { continue };
            let handler = match *name {
                "files" => HandlerPlan::Files(self.files(section)),
                "redirect" => self.redirect(section),
                "fixed" => HandlerPlan::Fixed(self.fixed(section)),
                "proxy" => self.gateway(section).unwrap_or(HandlerPlan::Echo),
                "forward" => self.forward(section).unwrap_or(HandlerPlan::Echo),
                "app" => self.application(section),
                "fastcgi" => self.fastcgi(section).unwrap_or(HandlerPlan::Echo),
                _ => HandlerPlan::Echo,
            };
            found.get_or_insert(handler);
        }
        match written[..] {
            [] if table.doubtful => {}
            [] => {
                self.error(&table.span, "this route has no handler")
                    .help(format!("give it one of {}", HANDLERS.map(|name| format!("`{name}`")).join(", ")));
            }
            [first, second, ..] => {
                self.error(
                    &table.span_of(second),
                    format!("a route has one handler, and this is a second one: `{second}`"),
                )
                .related(table.span_of(first), format!("`{first}` is the first"));
            }
            [_] => {}
        }
        found.unwrap_or(HandlerPlan::Echo)
    }

    fn files(&mut self, table: &Table) -> FilesPlan {
        let mut options = FilesOptions::default();
        let mut index: Vec<Box<[u8]>> = Vec::new();
        for text in table.texts("index") {
            if text.text.is_empty() || text.text.contains('/') {
                self.error(text.span, format!("`{}` is no name of a file in a directory", text.text));
            } else {
                index.push(text.text.as_bytes().into());
            }
        }
        options.lookups.index = index.into();
        options.lookups.siblings =
            table.texts("precompressed").filter_map(|text| sibling(text.text)).collect();
        let mut languages: Vec<Box<str>> = Vec::new();
        for text in table.texts("languages") {
            if is_language_tag(text.text.as_bytes()) && text.text != "*" {
                languages.push(text.text.into());
            } else {
                self.error(text.span, format!("`{}` is no language tag", text.text))
                    .help("such as `\"en\"`, `\"zh-CN\"`".into());
            }
        }
        options.lookups.languages = languages.into();
        for (extension, value) in table.map("types") {
            let Some(media) = value.text().filter(|text| self.is_media_type(*text)) else { continue };
            let extension = extension.text.strip_prefix('.').unwrap_or(extension.text);
            options.types.set(extension, media.text);
        }
        let charset = table.text("charset").map_or("", |text| text.text);
        if !charset.is_empty() && !is_token(charset.as_bytes()) {
            self.error(&table.span_of("charset"), format!("`{charset}` is no name of a charset"));
        }
        options.types.set_charset((!charset.is_empty()).then_some(charset));
        if let Some(media) = table.text("default_type").filter(|text| self.is_media_type(*text)) {
            options.types.set_fallback(media.text);
        }
        options.ranges.ranges_max = table.number("ranges_max") as usize;
        options.strict_negotiation = table.flag("strict_negotiation");
        options.listing = table
            .section("listing")
            .map(|listing| ListingOptions { entries_max: listing.number("entries_max") as usize });
        options.upload = table.section("uploads").map(|uploads| self.uploads(uploads));
        FilesPlan {
            root: table.text("root").map_or(PathBuf::new(), |text| self.root_directory(text)),
            access: RootOptions {
                symlinks: match table.text("symlinks") {
                    Some(Text { text: "beneath", .. }) => Symlinks::Beneath,
                    _ => Symlinks::Refuse,
                },
                dot_names: table.flag("hidden"),
            },
            options,
        }
    }

    fn is_media_type(&mut self, text: Text<'_>) -> bool {
        let valid = MediaType::parse(text.text.as_bytes()).is_some();
        if !valid {
            self.error(text.span, format!("`{}` is no media type", text.text));
        }
        valid
    }

    fn uploads(&mut self, table: &Table) -> UploadOptions {
        let mode = table.text("mode").map_or(0o644, |text| {
            let digits = text.text.strip_prefix("0o").unwrap_or(text.text);
            let octal = digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) && (3..=4).contains(&digits.len());
            let mode = u32::from_str_radix(digits, 8).unwrap_or(0);
            if !octal || mode > 0o777 || mode & 0o600 != 0o600 {
                self.error(
                    text.span,
                    format!("`{}` are no permissions of a file that can be served", text.text),
                )
                .help(
                    "three octal digits; the owner must be able to read and write: `\"644\"`, `\"600\"`"
                        .into(),
                );
            }
            mode
        });
        UploadOptions {
            content_bytes_max: table.number("content_bytes_max"),
            create_directories: table.flag("create_directories"),
            delete: table.flag("delete"),
            mode,
            conditional: table.flag("conditional"),
        }
    }

    /// Fault P22: a root that is not there is refused, never replaced by anything.
    fn root_directory(&mut self, text: Text<'_>) -> PathBuf {
        let path = self.path(text);
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => self.complain(text.span, format!("`{}` is not a directory", path.display())),
            Err(error) => {
                let shown = path.display().to_string();
                let neighbours = path.parent().map(directories).unwrap_or_default();
                let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
                let found = nearest(&name, neighbours.iter().map(|name| &**name)).map(str::to_owned);
                let diagnostic = self.error(text.span, format!("`{shown}` cannot be served: {error}"));
                if let Some(found) = found {
                    diagnostic.help(format!("there is a directory `{found}` beside it"));
                }
            }
        }
        path
    }

    fn redirect(&mut self, table: &Table) -> HandlerPlan {
        let status = table.text("status").and_then(|text| text.text.parse().ok()).and_then(Status::new);
        let template = table.text("to").and_then(|text| self.template(text, "redirect.to"));
        match template {
            Some(template) => HandlerPlan::Redirect(status.unwrap_or(Status::PERMANENT_REDIRECT), template),
            None => HandlerPlan::Echo,
        }
    }

    fn template(&mut self, text: Text<'_>, key: &str) -> Option<Template> {
        match Template::parse(text.text) {
            Ok(template) => Some(template),
            Err(why) => {
                self.error(text.span, format!("`{key}`: {why}"));
                None
            }
        }
    }

    fn fixed(&mut self, table: &Table) -> FixedPlan {
        let code = table.number("status") as u16;
        let status = Status::new(code).unwrap_or(Status::OK);
        if matches!(code, 206 | 304 | 401 | 407 | 416) {
            self.error(&table.span_of("status"), format!("{code} means nothing as a fixed response")).help(
                match code {
                    401 => "to ask for a password, use `access`".into(),
                    _ => "it answers something that only this request said".into(),
                },
            );
        }
        let content = table.text("text").map_or("", |text| text.text).to_owned();
        if status.never_has_content() && !content.is_empty() {
            self.error(&table.span_of("text"), format!("a {code} response has no content"));
        }
        if matches!(code, 301..=303 | 307 | 308) {
            self.warning(&table.span_of("status"), format!("a {code} without Location leads nowhere"))
                .help("use `redirect`".into());
        }
        let media_type = table.text("content_type").map_or("", |text| {
            self.is_media_type(text);
            text.text
        });
        let upgrade = self.protocols(table, code);
        FixedPlan {
            status,
            content: content.into(),
            media_type: media_type.into(),
            retry_after_s: table.optional_number("retry_after").map(|ms| ms.div_ceil(1000)),
            upgrade,
        }
    }

    /// The protocols that a 426 must name (9110-15.5.22-01), and that nothing else may: to offer them is to say that
    /// this server would speak them.
    fn protocols(&mut self, table: &Table, code: u16) -> Box<str> {
        let mut protocols = Vec::new();
        for text in table.texts("upgrade") {
            // protocol = protocol-name ["/" protocol-version], both tokens
            let (name, version) = text.text.split_once('/').unwrap_or((text.text, "1"));
            match is_token(name.as_bytes()) && is_token(version.as_bytes()) {
                true => protocols.push(text.text),
                false => self.complain(text.span, format!("`{}` is no protocol", text.text)),
            }
        }
        match (code, table.list("upgrade").is_empty()) {
            (426, true) => {
                self.error(&table.span_of("status"), "a 426 says which protocol is wanted").help(
                    "name it: `upgrade = \"websocket\"`; to lead clients to `https`, use `https_only`".into(),
                );
            }
            (426, false) | (_, true) => {}
            (_, false) => self.complain(&table.span_of("upgrade"), "`upgrade` is for a status of 426"),
        }
        protocols.join(", ").into()
    }

    /// What a route (or a site) says; for what it does not say, what its site says.
    fn policy(&mut self, table: &Table, site: Option<&Policy>) -> Policy {
        let mut policy = site
            .cloned()
            .unwrap_or_else(|| Policy { content_bytes_max: self.content_bytes_max, ..Policy::default() });
        if let Some(access) = table.section("access") {
            policy.addresses =
                Addresses { allow: self.networks(access, "allow"), deny: self.networks(access, "deny") };
            policy.authentication = self.authentication(access);
            policy.satisfy_any = access.text("satisfy").is_some_and(|text| text.text == "any");
            if policy.satisfy_any
                && (!policy.authentication.is_required() || policy.addresses.allow.is_empty())
            {
                self.error(
                    &access.span_of("satisfy"),
                    "`satisfy = \"any\"` needs both `allow` and a password",
                )
                .help("otherwise there is nothing to choose from".into());
            }
        }
        if let Some(rate) = table.section("rate") {
            let requests = rate.number("requests").max(1);
            policy.rate = Some(Arc::new(Limiter::new(Rate {
                requests,
                per_ms: rate.number("per").max(1),
                burst: rate.optional_number("burst").unwrap_or(requests),
                addresses_max: rate.number("addresses_max") as usize,
            })));
        }
        if let Some(cors) = table.section("cors") {
            policy.cors = self.cors(cors).map(Arc::new);
        }
        if let Some(working) = table.optional_number("working_max") {
            policy.working_max = Some(working as usize);
        }
        if let Some(bytes) = table.optional_number("content_bytes_max") {
            policy.content_bytes_max = bytes;
        }
        if table.is_written("early_hints") {
            policy.early_hints = table.texts("early_hints").map(|text| self.link(text).into()).collect();
        }
        const FIELD_KEYS: [&str; 4] = ["fields", "security", "cache_control", "cache_rule"];
        if FIELD_KEYS.iter().any(|key| table.is_written(key)) {
            policy.fields = Arc::new(self.field_rules(table, &policy.fields));
        }
        if let Some(compress) = table.section("compress") {
            policy.compress = self.compress(compress).map(Arc::new);
        }
        if table.is_written("error_page") {
            policy.error_pages = Arc::new(self.error_pages(table));
        }
        policy
    }

    fn networks(&mut self, table: &Table, key: &str) -> Box<[ipnet::IpNet]> {
        let mut networks = Vec::new();
        for text in table.texts(key) {
            let network = text.text.parse::<ipnet::IpNet>().ok();
            let network = network.or_else(|| text.text.parse::<IpAddr>().ok().map(ipnet::IpNet::from));
            match network {
                Some(network) if network.trunc() != network => {
                    self.error(text.span, format!("`{network}` has bits set beyond its length"))
                        .help(format!("write `\"{}\"`, or the address alone", network.trunc()));
                }
                Some(network) => networks.push(network),
                None => {
                    self.error(text.span, format!("`{}` is neither an address nor a network", text.text))
                        .help("such as `\"192.0.2.1\"`, `\"10.0.0.0/8\"`, `\"2001:db8::/32\"`".into());
                }
            }
        }
        networks.into()
    }

    fn authentication(&mut self, access: &Table) -> Authentication {
        let basic = access.section("basic").and_then(|table| self.basic(table));
        let digest = access.section("digest").and_then(|table| self.digest(table));
        Authentication { basic, digest }
    }

    fn basic(&mut self, table: &Table) -> Option<Basic> {
        let realm = table.text("realm").map_or("", |text| self.realm(text));
        let mut users = PasswordFile::default();
        for (name, value) in table.map("users") {
            if name.text.is_empty() || name.text.contains(':') {
                self.error(name.span, format!("`{}` is no user name: it has a colon or is empty", name.text));
                continue;
            }
            let Some(hash) = value.text() else { continue };
            match Hash::parse(hash.text) {
                Ok(hash) => {
                    users.insert(name.text, hash);
                }
                Err(why) => self.complain(hash.span, format!("the password of `{}`: {why}", name.text)),
            }
        }
        let path = table.text("file").map(|text| self.path(text));
        if path.is_none() && users.is_empty() && !table.is_written("users") {
            self.error(&table.span, "nobody could come in: there are no users")
                .help("give `file` an htpasswd file, or `users` names with hashes".into());
            return None;
        }
        match Basic::new(realm, users, path, random_key()) {
            Ok(basic) => Some(basic),
            Err(why) => {
                self.error(&table.span_of("file"), format!("the password file: {why}"));
                None
            }
        }
    }

    fn digest(&mut self, table: &Table) -> Option<Digest> {
        let realm = table.text("realm").map_or("", |text| self.realm(text));
        let file = table.text("file")?;
        let path = self.path(file);
        // A device or a log given by mistake must not fill the memory.
        if let Err(error) = super::read_limited(&path, SIDE_FILE_BYTES_MAX) {
            self.error(file.span, format!("the password file: it cannot be read: {error}"));
            return None;
        }
        let lifetime_s = (table.number("nonce_lifetime") / 1000) as i64;
        Digest::of_file(realm, path, lifetime_s, table.flag("md5"), random_key())
            .map_err(|why| self.complain(file.span, format!("the password file: {why}")))
            .ok()
    }

    fn realm<'t>(&mut self, text: Text<'t>) -> &'t str {
        if text.text.chars().any(char::is_control) {
            self.error(text.span, "a realm has no control characters");
            return "";
        }
        text.text
    }

    fn cors(&mut self, table: &Table) -> Option<Cors> {
        let mut any = false;
        let mut origins: Vec<Box<str>> = Vec::new();
        for text in table.texts("origins") {
            match text.text {
                "*" => any = true,
                "null" => {
                    self.error(
                        text.span,
                        "`null` is the origin of every sandboxed page, also of an attacker's",
                    );
                }
                origin if is_origin(origin) => origins.push(origin.into()),
                origin => {
                    self.error(text.span, format!("`{origin}` is no origin as browsers send it"))
                        .help("scheme, host in lower case, port if not the default, nothing after: `\"https://app.example\"`".into());
                }
            }
        }
        let credentials = table.flag("credentials");
        if any && credentials {
            self.error(
                &table.span_of("credentials"),
                "every site of the world could act as the user: `\"*\"` with credentials",
            )
            .help("name the origins".into());
        }
        let methods = self.methods(table, "methods");
        Some(Cors {
            origins: (!any).then(|| origins.into()),
            methods: methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ").into(),
            request_fields: self.field_names(table, "request_fields").join(", ").into(),
            expose: self.field_names(table, "expose").join(", ").into(),
            credentials,
            max_age_s: table.number("max_age") / 1000,
        })
    }

    fn field_names(&mut self, table: &Table, key: &str) -> Vec<String> {
        table.texts(key).filter(|text| self.field_name(*text)).map(|text| text.text.to_owned()).collect()
    }

    fn field_name(&mut self, text: Text<'_>) -> bool {
        let valid = is_token(text.text.as_bytes());
        if !valid {
            let help = text.text.trim_end_matches(':').trim();
            let help = is_token(help.as_bytes()).then(|| format!("write `\"{help}\"`"));
            let diagnostic = self.error(text.span, format!("`{}` is no name of a field", text.text));
            if let Some(help) = help {
                diagnostic.help(help);
            }
        }
        valid
    }

    /// A field that a configuration may change.
    fn own_field_name(&mut self, text: Text<'_>) -> bool {
        if !self.field_name(text) {
            return false;
        }
        let reserved = is_reserved(text.text);
        if reserved {
            self.error(text.span, format!("`{}` belongs to the connection or to the framing", text.text))
                .help("the server writes it itself".into());
        }
        !reserved
    }

    fn field_value<'t>(&mut self, text: Text<'t>) -> &'t str {
        let bytes = text.text.as_bytes();
        if !is_field_value(bytes) || trim_ows(bytes).len() != bytes.len() {
            self.error(
                text.span,
                "no value of a field: it has a control character, or white space at an end",
            );
            return "";
        }
        text.text
    }

    fn link<'t>(&mut self, text: Text<'t>) -> &'t str {
        if !text.text.starts_with('<') || !text.text.contains(">;") {
            self.error(text.span, "no Link value")
                .help("such as `\"</style.css>; rel=preload; as=style\"`".into());
        }
        self.field_value(text)
    }

    fn field_rules(&mut self, table: &Table, site: &FieldRules) -> FieldRules {
        let mut rules = site.clone();
        if let Some(fields) = table.section("fields") {
            rules.remove = fields
                .texts("remove")
                .filter(|text| self.own_field_name(*text))
                .map(|text| text.text.into())
                .collect();
            rules.set = Box::default();
            rules.add = Box::default();
            let mut set = Vec::new();
            for (name, value) in fields.map("set") {
                let valid = self.own_field_name(name);
                if let Some(value) = value.text() {
                    let value = self.field_value(value).into();
                    if valid {
                        set.push(Line { name: name.text.into(), value });
                    }
                }
            }
            let mut add = Vec::new();
            for (name, values) in fields.map("add") {
                let valid = self.own_field_name(name);
                for value in values.texts() {
                    let value = self.field_value(value).into();
                    if valid {
                        add.push(Line { name: name.text.into(), value });
                    }
                }
            }
            (rules.set, rules.add) = (set.into(), add.into());
            rules.on_errors = fields.flag("on_errors");
        }
        if table.is_written("security") {
            let (preset, secured) = presets(table.texts("security").map(|text| text.text));
            (rules.preset, rules.preset_secured) = (preset.into(), secured.into());
        }
        if table.is_written("cache_rule") {
            rules.cache = table.sections("cache_rule").filter_map(|rule| self.cache_rule(rule)).collect();
        }
        if let Some(text) = table.text("cache_control") {
            rules.cache_fallback = Some(self.cache_directives(text).into());
        }
        rules
    }

    /// A value of Cache-Control that caches would understand (RFC 9111 §5.2).
    fn cache_directives<'t>(&mut self, text: Text<'t>) -> &'t str {
        let value = self.field_value(text);
        if let Err(unfit) = eleven_semantics::caching::written::judge(value.as_bytes()) {
            self.error(text.span, unfit.to_string()).help(
                "such as `\"max-age=3600\"`, `\"no-cache\"`, `\"public, max-age=60, immutable\"`".into(),
            );
        }
        value
    }

    fn cache_rule(&mut self, table: &Table) -> Option<CacheRule> {
        let types = self.types(table, "types");
        let value = table.text("value").map_or("", |text| self.cache_directives(text));
        let expires_s = match (table.flag("expires"), max_age(value)) {
            (false, _) => None,
            (true, Some(seconds)) => Some(seconds),
            (true, None) => {
                self.error(&table.span_of("expires"), "Expires is made from max-age, and `value` has none");
                None
            }
        };
        Some(CacheRule { types: types?, value: value.into(), expires_s })
    }

    fn types(&mut self, table: &Table, key: &str) -> Option<TypeSet> {
        let texts: Vec<Text<'_>> = table.texts(key).collect();
        match TypeSet::parse(texts.iter().map(|text| text.text)) {
            Ok(types) => Some(types),
            Err(index) => {
                self.error(texts[index].span, format!("`{}` is no media type", texts[index].text)).help(
                    "such as `\"text/html\"`, `\"image/*\"`, `\"application/*+json\"`, without parameters"
                        .into(),
                );
                None
            }
        }
    }

    fn compress(&mut self, table: &Table) -> Option<Compress> {
        let types = self.types(table, "types")?;
        let mut codings: Vec<Coding> = Vec::new();
        for text in table.texts("codings") {
            match Coding::from_name(text.text) {
                Some(coding) if codings.contains(&coding) => {
                    self.error(text.span, format!("`{}` is there twice", text.text));
                }
                coding => codings.extend(coding),
            }
        }
        if codings.is_empty() {
            self.error(&table.span_of("codings"), "nothing to compress with")
                .help("leave out `compress`".into());
            return None;
        }
        let level = |name: &str| table.number(name) as u8;
        Some(Compress::new(
            &codings,
            table.number("bytes_min"),
            types,
            Levels { gzip: level("gzip_level"), br: level("br_level"), zstd: level("zstd_level") },
            table.flag("credentialed"),
            table.number("memory_bytes_max"),
        ))
    }

    fn error_pages(&mut self, table: &Table) -> ErrorPages {
        let mut pages = ErrorPages::default();
        for page_table in table.sections("error_page") {
            let page = self.error_page(page_table);
            for text in page_table.texts("status") {
                match StatusSet::parse(text.text) {
                    Some(statuses) => page.iter().for_each(|page| pages.push(statuses, page.clone())),
                    None => {
                        self.error(text.span, format!("`{}` is no status of an error", text.text))
                            .help("from `\"400\"` to `\"599\"`, or `\"4xx\"`, `\"5xx\"`".into());
                    }
                }
            }
        }
        pages
    }

    fn error_page(&mut self, table: &Table) -> Option<Page> {
        let read = |this: &mut Self, text: Text<'_>| {
            let read = super::read_limited(&this.path(text), SIDE_FILE_BYTES_MAX);
            let shown = this.path(text).display().to_string();
            let not_read = |error: std::io::Error| {
                let diagnostic =
                    this.error(text.span, format!("the error page `{shown}` cannot be read: {error}"));
                if text.text.starts_with('/') {
                    diagnostic.help("this is a path of the file system, not of the site".into());
                }
            };
            read.map_err(not_read).ok()
        };
        match (table.text("file"), table.text("template")) {
            (Some(file), None) => {
                let text = read(self, file)?;
                let types = eleven_server::files::media::MediaTypes::default();
                Some(Page::Fixed(text.into(), types.content_type(file.text.as_bytes()).into()))
            }
            (None, Some(template)) => match Page::template(read(self, template)?) {
                Ok(page) => Some(page),
                Err(why) => {
                    self.error(template.span, format!("the template of the error page: {why}"));
                    None
                }
            },
            (Some(_), Some(template)) => {
                self.error(template.span, "an error page has either `file` or `template`")
                    .related(table.span_of("file"), "`file` is here");
                None
            }
            (None, None) => {
                self.error(&table.span, "an error page needs `file` or `template`");
                None
            }
        }
    }
}

fn everything() -> Match {
    Match { path: PathMatch::Prefix([].into()), pattern: None, methods: [].into(), hosts: [].into() }
}

/// Whether a route written earlier takes everything that a later one could.
fn covers(earlier: &Match, later: &Match) -> bool {
    earlier.path == later.path
        && (earlier.pattern.is_none() || earlier.pattern == later.pattern)
        && (earlier.methods.is_empty()
            || (!later.methods.is_empty()
                && later.methods.iter().all(|method| earlier.methods.contains(method))))
        && (earlier.hosts.is_empty()
            || (!later.hosts.is_empty() && later.hosts.iter().all(|host| earlier.hosts.contains(host))))
}

fn directories(parent: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().take(1000).flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The files of a site that says nothing but its `root`.
fn default_files() -> FilesOptions {
    let mut options = FilesOptions::default();
    options.lookups.index = [&b"index.html"[..], b"index.htm"].map(Into::into).into();
    options
}

fn sibling(name: &str) -> Option<files::resolve::Coding> {
    files::resolve::Coding::ALL.into_iter().find(|coding| coding.name() == name)
}

/// What was probably meant by what is no address to listen on.
fn address_help(text: &str) -> Option<String> {
    let is_port = |text: &str| text.parse::<u16>().is_ok() && !text.starts_with('+');
    let ends_in_port = |text: &str| {
        text.rsplit_once(':')
            .is_some_and(|(host, port)| host.parse::<std::net::Ipv6Addr>().is_ok() && is_port(port))
    };
    if is_port(text) {
        return Some(format!(
            "write `\":{text}\"` for every address, `\"127.0.0.1:{text}\"` for this machine only"
        ));
    }
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some(format!("write `\"{text}:80\"`"));
    }
    // `::1:80` may be both; the reason says what it takes it for.
    if text.parse::<std::net::Ipv6Addr>().is_ok() && !ends_in_port(text) {
        return Some(format!("write `\"[{text}]:80\"`"));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if is_port(port) && !host.contains([':', '/']) => {
            Some(format!("write an IP address, or `\":{port}\"` for every one; names belong to a `[[site]]`"))
        }
        _ => None,
    }
}

/// An address to listen on. Names other than `localhost` are refused: reading a configuration asks nobody.
///
/// # Errors
/// In words.
pub fn read_address(text: &str, directory: &Path) -> Result<ListenAddr, String> {
    match text.parse::<ListenAddr>()? {
        ListenAddr::Unix(path) => {
            let path = directory.join(path);
            // sockaddr_un has room for 107 octets and a NUL.
            if path.as_os_str().len() > 107 {
                return Err("the path of a Unix socket has at most 107 octets".into());
            }
            Ok(ListenAddr::Unix(path))
        }
        ListenAddr::Tcp { host: Some(host), .. }
            if host != "localhost" && host.parse::<IpAddr>().is_err() =>
        {
            Err(format!("`{host}` is no IP address, and names are not looked up"))
        }
        address => Ok(address),
    }
}

/// An origin as browsers serialise it (RFC 6454 §6.1).
fn is_origin(text: &str) -> bool {
    let (rest, default) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, 443),
        (None, Some(rest)) => (rest, 80),
        _ => return false,
    };
    let Ok(authority) = Authority::parse(rest.as_bytes()) else { return false };
    !authority.host.is_empty()
        && authority.host == &authority.canonical_host()[..]
        && authority.port != Some(default)
        && !rest.ends_with(':')
}

/// The max-age of a Cache-Control value.
fn max_age(value: &str) -> Option<u32> {
    value.split(',').find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        let seconds = eleven_semantics::grammar::decimal(seconds.as_bytes())?;
        name.eq_ignore_ascii_case("max-age").then_some(seconds.min(u64::from(u32::MAX)) as u32)
    })
}

/// The fields of the presets: those for every connection, and those for secured ones.
fn presets<'t>(names: impl Iterator<Item = &'t str>) -> (Vec<Line>, Vec<Line>) {
    let (mut all, mut secured) = (Vec::new(), Vec::new());
    let line = |name: &str, value: &str| Line { name: name.into(), value: value.into() };
    let mut policies = Vec::new();
    for name in names {
        match name {
            "nosniff" => all.push(line("X-Content-Type-Options", "nosniff")),
            "hsts" => secured.push(line("Strict-Transport-Security", "max-age=31536000")),
            "hsts-subdomains" => {
                secured.push(line("Strict-Transport-Security", "max-age=31536000; includeSubDomains"));
            }
            "deny-frames" => {
                all.push(line("X-Frame-Options", "DENY"));
                policies.push("frame-ancestors 'none'");
            }
            "self-only" => policies.push("default-src 'self'; base-uri 'self'; object-src 'none'"),
            "no-referrer" => all.push(line("Referrer-Policy", "no-referrer")),
            "same-origin-referrer" => all.push(line("Referrer-Policy", "same-origin")),
            "isolate" => {
                all.push(line("Cross-Origin-Opener-Policy", "same-origin"));
                all.push(line("Cross-Origin-Resource-Policy", "same-origin"));
            }
            _ => {}
        }
    }
    if !policies.is_empty() {
        all.push(line("Content-Security-Policy", &policies.join("; ")));
    }
    (all, secured)
}

/// Fresh randomness.
///
/// # Panics
/// If the system has none: then nothing that needs secrets may start.
fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    getrandom::fill(&mut key).expect("the system has no randomness");
    key
}
