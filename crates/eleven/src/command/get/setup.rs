//! From options to an agent and requests. All that can be wrong with the command line is found here, before
//! anything is sent.

use super::body::{self, Body};
use super::har::Har;
use super::options::Get;
use super::show::Show;
use eleven_client::agent::{Agent, Ask, Listener, Options as AgentOptions, Told};
use eleven_client::connector::{Connector, Detour};
use eleven_client::credentials::{Credentials, Netrc, Secret};
use eleven_client::jar::Jar;
use eleven_client::partial::Directory;
use eleven_client::pool::PoolLimits;
use eleven_client::proxies::{Proxies, Proxy};
use eleven_client::transfer::Deadlines;
use eleven_client::{Cause, Failure, Phase};
use eleven_messaging::{Config, Limits, Options as ProtocolOptions};
use eleven_net::clock;
use eleven_net::dial::{Dialer, Family, Options as DialOptions};
use eleven_net::resolve::{Limits as ResolveLimits, Resolver};
use eleven_net::tls_config::{ClientSettings, Identity, Trust};
use eleven_net::tls_preset::Preset;
use eleven_semantics::date::HttpDate;
use eleven_semantics::redirect::Downgrade;
use eleven_semantics::uri::{Uri, Userinfo};
use eleven_semantics::{Fields, Known, Method, Version};
use std::cell::{OnceCell, RefCell};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Everything a run needs.
pub struct Setup {
    /// The agent.
    pub agent: Rc<Agent>,
    /// What to fetch.
    pub uris: Vec<Uri>,
    /// Other places that have the same.
    pub mirrors: Vec<Uri>,
    /// The method.
    pub method: Method,
    fields: Fields,
    body: Body,
    version: Version,
    har: Option<Rc<RefCell<Har>>>,
    /// The private cache, if there is one.
    pub cache: Option<Arc<eleven_cache::Cache>>,
    directory: OnceCell<Directory>,
}

/// A wish that cannot be met.
pub fn unusable(text: impl Into<String>) -> Failure {
    Failure::new(Phase::Prepare, Cause::Unusable(text.into()))
}

fn parse_uri(text: &str) -> Result<(Uri, Option<Userinfo>), Failure> {
    // A bare host is what people type; it means http, and then says so in the bar.
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let shown = super::show::harmless(text.as_bytes());
    Uri::parse(full.as_bytes()).map_err(|why| unusable(format!("the URL {shown:?} cannot be used: {why}")))
}

/// A URI with more in its query, for `--get`.
fn with_query(uri: &Uri, query: &str) -> Result<Uri, Failure> {
    let text = uri.without_fragment();
    let mark = match text.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    Ok(parse_uri(&format!("{text}{mark}{query}"))?.0)
}

/// The first line of a file, for secrets.
fn first_line(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(64 * 1024).read_to_end(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(64 * 1024).read_to_end(&mut text))
    };
    read.map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    let line = text.split(|&b| b == b'\n').next().unwrap_or(&[]);
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

impl Setup {
    /// Reads the options.
    ///
    /// # Errors
    /// The first thing wrong with them.
    pub fn new(options: &Get, show: &Rc<Show>) -> Result<Setup, Failure> {
        if options.insecure {
            show.warn("certificates are not verified: anybody on the way can read and change everything");
        }
        let mut texts = options.urls.clone();
        if let Some(path) = &options.urls_from {
            texts.extend(list_of_urls(path)?);
        }
        let mut userinfo = None;
        let mut uris = Vec::new();
        for text in &texts {
            let (uri, info) = parse_uri(text)?;
            if let Some(info) = info {
                userinfo.get_or_insert((uri.clone(), info));
            }
            uris.push(uri);
        }
        if uris.is_empty() {
            return Err(unusable("there is no URL to fetch"));
        }
        let printed = options.output.iter().filter(|path| path.as_os_str() == "-").count();
        match options.output.len() {
            0 => {}
            1 if uris.len() == 1 || printed == 1 => {}
            n if n == uris.len() && printed == 0 => {}
            _ => {
                return Err(unusable(
                    "there must be one -o FILE for each URL, or one -o - for all; or use -O or --output-dir",
                ));
            }
        }
        if let Some(format) = &options.write_out {
            super::report::check(format).map_err(unusable)?;
        }
        if !options.mirror.is_empty() && uris.len() > 1 {
            return Err(unusable("--mirror is for one file, and there are several URLs"));
        }
        let mirrors =
            options.mirror.iter().map(|text| Ok(parse_uri(text)?.0)).collect::<Result<Vec<_>, Failure>>()?;
        super::cached::check(options)?;
        let cache = match &options.cache {
            Some(directory) => super::cached::open(directory, show)?,
            None => None,
        };
        let mut body = body::of(options)?;
        if options.get {
            let query = body.take_query()?;
            uris = uris.iter().map(|uri| with_query(uri, &query)).collect::<Result<_, _>>()?;
        }
        let first = &uris[0];
        let method = method(options, &body)?;
        let fields = fields(options, &body)?;
        let credentials = credentials(options, first, userinfo)?;
        let agent = agent(options, first, credentials)?;
        let har = options.har.as_ref().map(|_| Rc::new(RefCell::new(Har::new())));
        let setup = Setup {
            agent: Rc::new(agent),
            uris,
            mirrors,
            method,
            fields,
            body,
            version: if options.http10 { Version::Http10 } else { Version::Http11 },
            har,
            cache,
            directory: OnceCell::new(),
        };
        setup.agent.listen(setup.listener(options, show)?);
        Ok(setup)
    }

    fn listener(&self, options: &Get, show: &Rc<Show>) -> Result<Option<Listener>, Failure> {
        let shown = show.listener();
        let dump = options.dump_header.as_deref().map(|path| dump(path, show)).transpose()?;
        let har = self.har.clone();
        if dump.is_none() && har.is_none() {
            return Ok(shown);
        }
        Ok(Some(Rc::new(move |told| {
            for listener in [&shown, &dump].into_iter().flatten() {
                listener(told);
            }
            if let Some(har) = &har {
                har.borrow_mut().hear(told, clock::wall());
            }
        })))
    }

    /// The request for a URI. Its content can be made again for each attempt, except from standard input.
    pub fn ask(&self, uri: &Uri) -> Ask {
        let mut ask = Ask::get(uri.clone());
        ask.method = self.method.clone();
        ask.fields = self.fields.clone();
        ask.version = self.version;
        (ask.content, ask.length) = self.body.content();
        ask.expect_continue = self.body.expects_continue;
        ask
    }

    /// What `-o` says for a URL.
    pub fn output<'a>(&self, options: &'a Get, index: usize) -> Option<&'a Path> {
        options.output.get(index).map(PathBuf::as_path)
    }

    /// The directory files go to, opened once.
    ///
    /// # Errors
    /// If it is not there.
    pub fn directory(&self, options: &Get) -> Result<Directory, Failure> {
        if let Some(directory) = self.directory.get() {
            return Ok(directory.clone());
        }
        if options.create_dirs {
            create_directories(&options.output_dir)?;
        }
        let directory = Directory::open(&options.output_dir)?;
        Ok(self.directory.get_or_init(|| directory).clone())
    }

    /// What is done at the end: cookies and the record are saved.
    pub fn finish(&self, options: &Get) -> Result<(), Failure> {
        if let (Some(path), Some(jar)) = (&options.cookie_jar, self.agent.jar()) {
            jar.borrow()
                .save(path, true, clock::unix_seconds())
                .map_err(|error| Failure::io(Phase::File, &error).at(path.display().to_string(), None))?;
        }
        if let (Some(path), Some(har)) = (&options.har, &self.har) {
            let text = har.borrow().to_json();
            std::fs::write(path, text)
                .map_err(|error| Failure::io(Phase::File, &error).at(path.display().to_string(), None))?;
        }
        Ok(())
    }
}

/// Writes the head of every response to a file, or to standard output.
fn dump(path: &Path, show: &Rc<Show>) -> Result<Listener, Failure> {
    let out: Box<dyn std::io::Write> = if path.as_os_str() == "-" {
        Box::new(std::io::stdout())
    } else {
        let file = std::fs::File::create(path);
        Box::new(file.map_err(|error| Failure::io(Phase::File, &error).at(path.display().to_string(), None))?)
    };
    let (out, show) = (RefCell::new(out), Rc::clone(show));
    Ok(Rc::new(move |told| {
        let (Told::Interim(_, head) | Told::Head(_, head, _)) = told else { return };
        let head = super::show::response_head(head);
        let mut out = out.borrow_mut();
        if let Err(error) = out.write_all(&head).and_then(|()| out.flush()) {
            show.warn(&format!("the heads cannot be written: {error}"));
        }
    }))
}

/// Makes a directory and those above it, where they are missing.
///
/// # Errors
/// If that cannot be.
pub fn create_directories(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::io(Phase::File, &error).at(path.display().to_string(), None))
}

/// If-Modified-Since or, with a minus before it, If-Unmodified-Since, from an HTTP date or the time of a file.
fn time_condition(text: &str) -> Result<(Known, [u8; 29]), Failure> {
    let (name, text) = match text.strip_prefix('-') {
        Some(rest) => (Known::IfUnmodifiedSince, rest),
        None => (Known::IfModifiedSince, text),
    };
    let now = HttpDate(clock::unix_seconds());
    let date = HttpDate::parse(text.as_bytes(), now).or_else(|| {
        let modified = std::fs::metadata(text).ok()?.modified().ok()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_secs()).ok().map(HttpDate)
    });
    match date {
        Some(date) => Ok((name, date.imf())),
        None => Err(unusable(format!("--time-cond {text:?} is neither an HTTP date nor a file"))),
    }
}

fn list_of_urls(path: &Path) -> Result<Vec<String>, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| unusable(format!("{}: {error}", path.display())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn method(options: &Get, body: &Body) -> Result<Method, Failure> {
    if let Some(name) = &options.request {
        let method = Method::from_bytes(name.as_bytes())
            .ok_or_else(|| unusable(format!("{:?} is no method", super::show::harmless(name.as_bytes()))))?;
        if method == Method::Connect {
            return Err(unusable("CONNECT is for tunnels through a proxy; see --proxy"));
        }
        return Ok(method);
    }
    Ok(match body.implied_method {
        Some(_) if options.head => {
            return Err(unusable("-I fetches only a head, and there is content to send"));
        }
        Some(method) => method(),
        None if options.head => Method::Head,
        None => Method::Get,
    })
}

fn fields(options: &Get, body: &Body) -> Result<Fields, Failure> {
    let mut fields = Fields::new();
    let bad = |line: &str, why: &str| {
        unusable(format!("the field {:?}: {why}", super::show::harmless(line.as_bytes())))
    };
    for (name, value) in &body.fields {
        fields.push(*name, value).map_err(|error| bad(name.name(), &error.to_string()))?;
    }
    if let Some(text) = &options.time_cond {
        let (name, value) = time_condition(text)?;
        fields.push(name, value).map_err(|error| bad(name.name(), &error.to_string()))?;
    }
    if let Some(referer) = &options.referer {
        fields.push(Known::Referer, referer).map_err(|error| bad(referer, &error.to_string()))?;
    }
    if let Some(cookie) = &options.cookie
        && options.cookie_jar.is_none()
    {
        fields.push(Known::Cookie, cookie).map_err(|error| bad("Cookie", &error.to_string()))?;
    }
    for line in &options.header {
        let (name, value) =
            line.split_once(':').ok_or_else(|| bad(line, "it has no colon; write Name: value"))?;
        let value = value.trim_matches([' ', '\t']);
        let known = Known::lookup(name.as_bytes());
        if let Some(
            known @ (Known::Host
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Connection
            | Known::KeepAlive
            | Known::Te
            | Known::Expect
            | Known::ProxyConnection),
        ) = known
        {
            return Err(bad(
                known.name(),
                "it belongs to the connection and is written by the program itself",
            ));
        }
        fields.remove(name);
        if !value.is_empty() {
            fields.push(name, value).map_err(|error| bad(name, &error.to_string()))?;
        }
    }
    Ok(fields)
}

fn credentials(
    options: &Get,
    first: &Uri,
    userinfo: Option<(Uri, Userinfo)>,
) -> Result<Credentials, Failure> {
    let mut credentials = Credentials::default();
    if options.netrc || options.netrc_file.is_some() {
        let path = match &options.netrc_file {
            Some(path) => path.clone(),
            None => std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default().join(".netrc"),
        };
        let text = std::fs::read(&path).map_err(|error| unusable(format!("{}: {error}", path.display())))?;
        let netrc = Netrc::parse(&text).map_err(|error| unusable(format!("{}, {error}", path.display())))?;
        credentials.set_netrc(netrc);
    }
    if let Some((uri, userinfo)) = userinfo {
        credentials.give(&uri, Secret::from(userinfo));
    }
    if let Some(user) = &options.user {
        let (user, password) = match (user.split_once(':'), &options.password_file) {
            (Some((user, password)), None) => (user.to_owned(), password.as_bytes().to_vec()),
            (None, Some(path)) => (user.clone(), first_line(path)?),
            (None, None) => {
                return Err(unusable("-u has no password; write USER:PASSWORD, or use --password-file"));
            }
            (Some(_), Some(_)) => {
                return Err(unusable("there are two passwords, in -u and in --password-file"));
            }
        };
        credentials.give(first, Secret::Password { user: user.into_bytes(), password });
    }
    if let Some(path) = &options.bearer_file {
        credentials.give(first, Secret::Bearer(first_line(path)?));
    }
    Ok(credentials)
}

fn agent(options: &Get, first: &Uri, credentials: Credentials) -> Result<Agent, Failure> {
    let dial = DialOptions {
        connect_timeout_ms: options.connect_timeout.0.as_millis() as u64,
        tls_timeout_ms: options.connect_timeout.0.as_millis() as u64,
        resolve_timeout_ms: options.connect_timeout.0.as_millis() as u64,
        from: options.interface,
        family: match (options.ipv4, options.ipv6, options.interface) {
            (true, _, _) => Some(Family::V4),
            (_, true, _) => Some(Family::V6),
            (_, _, Some(address)) => Some(if address.is_ipv4() { Family::V4 } else { Family::V6 }),
            _ => None,
        },
        ..DialOptions::default()
    };
    let resolver = Resolver::new(ResolveLimits { found_ttl_ms: 300_000, ..ResolveLimits::default() });
    for triple in &options.resolve {
        let (host, port, addresses) = resolve_triple(triple)?;
        resolver.set(&host, Some(port), &addresses);
    }
    let trust = if options.insecure {
        Trust::Anybody
    } else if options.cacert.is_empty() {
        Trust::Platform
    } else {
        Trust::Files(options.cacert.clone())
    };
    let identity = match (&options.cert, &options.key) {
        (Some(certificate), Some(key)) => {
            Some(Identity { certificate: certificate.clone(), key: key.clone(), ocsp: None })
        }
        _ => None,
    };
    let protocol = Config {
        limits: Limits { field_section_bytes_max: 256 * 1024, field_lines_max: 500, ..Limits::default() },
        options: ProtocolOptions { http09: options.http09, ..ProtocolOptions::default() },
    };
    let preset = if options.tls13 { Preset::Modern } else { Preset::default() };
    let tls = ClientSettings { trust, identity, preset };
    let detours = options.connect_to.iter().map(|text| detour(text)).collect::<Result<_, _>>()?;
    let connector =
        Connector::new(Dialer::new(resolver, dial), tls, Arc::new(protocol)).with_detours(detours);
    let defaults = AgentOptions::default();
    let agent_options = AgentOptions {
        // A cache stores each response under its own URI, so it follows by itself.
        follow: !options.no_location && options.cache.is_none(),
        redirects_max: options.max_redirs,
        downgrade: if options.allow_downgrade { Downgrade::Allow } else { Downgrade::Refuse },
        user_agent: options.user_agent.clone().unwrap_or(defaults.user_agent.clone()),
        preemptive: !options.auth_on_demand,
        deadlines: Deadlines {
            head_timeout_ms: options.head_timeout.0.as_millis() as u64,
            idle_timeout_ms: options.idle_timeout.0.as_millis() as u64,
            ..Deadlines::default()
        },
        unix_socket: options.unix_socket.clone(),
        ..defaults
    };
    let connections = match options.segments.0 {
        eleven_client::download::Segments::Fixed(count) => count,
        eleven_client::download::Segments::Auto => eleven_client::segments::SEGMENTS_MAX,
    };
    let limits = PoolLimits {
        connections_per_origin_max: connections.max(PoolLimits::default().connections_per_origin_max),
        ..PoolLimits::default()
    };
    let mut agent = Agent::new(agent_options, connector, limits)
        .with_credentials(credentials)
        .with_proxies(proxies(options)?);
    if options.cookie_jar.is_some() || options.cookie.is_some() {
        agent = agent.with_jar(jar(options, first)?);
    }
    Ok(agent)
}

fn jar(options: &Get, first: &Uri) -> Result<Jar, Failure> {
    let mut jar = Jar::new();
    if let Some(path) = &options.cookie_jar {
        let loaded = jar.load(path, clock::unix_seconds());
        loaded.map_err(|error| unusable(format!("{}: {error}", path.display())))?;
        if let Some(cookie) = &options.cookie {
            jar.give(cookie.as_bytes(), first.host(), clock::unix_seconds());
        }
    }
    Ok(jar)
}

/// `HOST1:PORT1:HOST2:PORT2`, each part perhaps empty, hosts perhaps IPv6 addresses in brackets.
fn detour(text: &str) -> Result<Detour, Failure> {
    let bad = || unusable(format!("--connect-to {text:?} is not HOST1:PORT1:HOST2:PORT2"));
    let host = |rest: &str| -> Option<(String, String)> {
        let (host, rest) = match rest.strip_prefix('[') {
            Some(_) => rest.split_once("]:").map(|(host, rest)| (format!("{host}]"), rest))?,
            None => rest.split_once(':').map(|(host, rest)| (host.to_owned(), rest))?,
        };
        Some((host, rest.to_owned()))
    };
    let port = |digits: &str| match digits {
        "" => Some(0),
        digits => eleven_semantics::grammar::decimal(digits.as_bytes())
            .and_then(|n| u16::try_from(n).ok())
            .filter(|&n| n > 0),
    };
    let read = || {
        let (from_host, rest) = host(text)?;
        let (from_port, rest) = rest.split_once(':')?;
        let (to_host, to_port) = host(rest)?;
        Some(Detour { from_host, from_port: port(from_port)?, to_host, to_port: port(&to_port)? })
    };
    read().ok_or_else(bad)
}

fn resolve_triple(text: &str) -> Result<(String, u16, Vec<std::net::IpAddr>), Failure> {
    let bad = || unusable(format!("--resolve {text:?} is not HOST:PORT:ADDRESS"));
    // The host may be an IPv6 address in brackets.
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (inside, rest) = inner.split_once("]:").ok_or_else(bad)?;
            (format!("[{inside}]"), rest)
        }
        None => text.split_once(':').map(|(host, rest)| (host.to_owned(), rest)).ok_or_else(bad)?,
    };
    let (port, addresses) = rest.split_once(':').ok_or_else(bad)?;
    let port = eleven_semantics::grammar::decimal(port.as_bytes()).and_then(|n| u16::try_from(n).ok());
    let addresses: Result<Vec<_>, _> =
        addresses.split(',').map(|a| a.trim_matches(['[', ']']).parse::<std::net::IpAddr>()).collect();
    match (port, addresses) {
        (Some(port @ 1..), Ok(addresses)) if !addresses.is_empty() => Ok((host, port, addresses)),
        _ => Err(bad()),
    }
}

fn proxies(options: &Get) -> Result<Proxies, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let no_proxy = options
        .no_proxy
        .clone()
        .or_else(|| environment("no_proxy"))
        .or_else(|| environment("NO_PROXY"))
        .unwrap_or_default();
    let proxies = match &options.proxy {
        Some(proxy) if proxy.is_empty() => Ok(Proxies::none()),
        Some(proxy) => {
            let text = match (&options.proxy_user, Proxy::parse(proxy)) {
                (Some(user), Ok(parsed)) => {
                    let (user, password) = user.split_once(':').unwrap_or((user, ""));
                    let encode = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
                    let scheme = parsed.uri.scheme().as_str();
                    format!("{scheme}://{}:{}@{}", encode(user), encode(password), parsed.uri.host_and_port())
                }
                _ => proxy.clone(),
            };
            Proxies::one(&text, &no_proxy)
        }
        None => Proxies::from_env(|name| {
            if name.eq_ignore_ascii_case("no_proxy") { Some(no_proxy.clone()) } else { environment(name) }
        }),
    };
    proxies.map_err(|why| unusable(format!("the proxy: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_by_hand() {
        let (host, port, addresses) = resolve_triple("example.com:443:127.0.0.1,[::1]").unwrap();
        assert_eq!((host.as_str(), port, addresses.len()), ("example.com", 443, 2));
        assert_eq!(resolve_triple("[::1]:80:127.0.0.1").unwrap().0, "[::1]");
        for bad in ["", "a", "a:80", "a:80:", "a:x:127.0.0.1", "a:0:127.0.0.1", "a:80:b", "a:+80:127.0.0.1"] {
            assert!(resolve_triple(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn detours() {
        let of = |text| detour(text).ok().map(|d| (d.from_host, d.from_port, d.to_host, d.to_port));
        let owned = |a: &str, b, c: &str, d| Some((a.to_owned(), b, c.to_owned(), d));
        assert_eq!(of("a:80:b:81"), owned("a", 80, "b", 81));
        assert_eq!(of("::b:81"), owned("", 0, "b", 81));
        assert_eq!(of("a:80::"), owned("a", 80, "", 0));
        assert_eq!(of("[::1]:80:[::2]:81"), owned("[::1]", 80, "[::2]", 81));
        for text in ["", "a", "a:80", "a:80:b", "a:80:b:0", "a:x:b:81", "a:+80:b:81", "a:80:b:81:c"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    /// Faults K11, K46.
    #[test]
    fn urls_as_people_type_them() {
        assert_eq!(parse_uri("example.com/x").unwrap().0.to_string(), "http://example.com/x");
        assert_eq!(parse_uri("localhost:8080").unwrap().0.port(), 8080);
        for bad in
            ["", "ftp://h/", "http://", "http://a b/", "http://h/\r\nX: y", "http://%41/", "http://h:0/"]
        {
            let failure = parse_uri(bad).unwrap_err();
            assert!(failure.to_string().contains("cannot be used"), "{bad}: {failure}");
        }
    }
}
