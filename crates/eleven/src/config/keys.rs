//! Every key of the configuration, once: name, what it takes, default, what it does. The reader, `config --print`, the JSON
//! Schema and `docs/configuration.md` all come from here.

use super::schema::Default::{Absent, Is, Required};
use super::schema::{Default, Key, Kind, Section, each_section};

const fn key(name: &'static str, kind: Kind, default: Default, doc: &'static str) -> Key {
    Key { name, kind, default, doc }
}

const fn section(name: &'static str, doc: &'static str, own: &'static [Key]) -> Section {
    Section { name, doc, own, shared: &[] }
}

const fn integer(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Bytes { min, max }
}

/// From one millisecond to the limit.
const fn time(max: u64) -> Kind {
    Kind::Millis { min: 1, max }
}

const HOUR: u64 = 3_600_000;
const YEAR: u64 = 365 * 24 * HOUR;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const ANY_TEXT: Kind = Kind::Text("a text");
const PATH: Kind = Kind::Text("the path of a file");
const DIRECTORY: Kind = Kind::Text("the path of a directory");
const ROUTE_PATH: Kind = Kind::Text("a path such as `\"/api\"`");
const HOST: Kind = Kind::Text("a host name, `\"*.…\"` for all names beneath one");
const METHOD: Kind = Kind::Text("a method such as `\"GET\"`");
const NETWORK: Kind = Kind::Text("an address or a network such as `\"10.0.0.0/8\"`");
const FIELD_NAME: Kind = Kind::Text("the name of a field");
const FIELD_VALUE: Kind = Kind::Text("the value of a field");
const MEDIA_TYPE: Kind = Kind::Text("a media type such as `\"text/html\"`");
const TEMPLATE: Kind =
    Kind::Text("a text with `{path}`, `{rest}`, `{query}`, `{host}`, `{scheme}` or `{1}` to `{9}` in it");

/// The whole file.
pub static ROOT: Section = section(
    "",
    "What the server listens on, the sites it answers for, and its limits. Paths are relative to the file's own directory. In any text `${NAME}` is the value of an environment variable, `${NAME:-text}` gives a default, and `$$` is a dollar sign. Sizes are whole numbers of octets or have a unit (`\"64KiB\"`), times always have one (`\"500ms\"`, `\"30s\"`, `\"5m\"`). Where a list is taken, a single value needs no brackets; where a table without required keys is taken, `true` switches it on with its defaults.",
    &[
        INCLUDE,
        key("listener", Kind::Sections(&LISTENER), Absent("one on 127.0.0.1:8080"), "What to listen on."),
        key("site", Kind::Sections(&SITE), Absent("there must be at least one"), "The sites."),
        key(
            "upstream",
            Kind::Sections(&UPSTREAM),
            Is("[]"),
            "Groups of servers that routes pass requests on to.",
        ),
        key("workers", integer(0, 1024), Is("0"), "Threads that serve. 0: one for each processor."),
        key(
            "trusted_proxies",
            Kind::List(&NETWORK),
            Is("[]"),
            "Whose word about the client is believed (Forwarded, X-Forwarded-For). Everybody else's is ignored.",
        ),
        key(
            "trusted_proxies_field",
            Kind::Choice(&[("X-Forwarded-For", "what most proxies write"), ("Forwarded", "RFC 7239")]),
            Is("\"X-Forwarded-For\""),
            "The field that these proxies write. The other one is the client's own invention and is not looked at.",
        ),
        key(
            "http09",
            Kind::Bool,
            Is("false"),
            "Answer HTTP/0.9 requests too (a request line without version).",
        ),
        key(
            "keep_underscore_names",
            Kind::Bool,
            Is("false"),
            "Keep request fields whose name reads like one of framing, of the connection or of the forwarding chain once `_` is taken for `-`. They are dropped otherwise, because gateways mistake them.",
        ),
        key(
            "transfer_gzip",
            Kind::Bool,
            Is("true"),
            "Understand the gzip transfer coding, and send it to clients whose TE asks for it.",
        ),
        key(
            "stop_timeout",
            time(24 * HOUR),
            Is("\"30s\""),
            "How long running exchanges may take to finish when the server stops.",
        ),
        key(
            "drain_timeout",
            time(7 * 24 * HOUR),
            Is("\"1h\""),
            "How long exchanges and tunnels may go on in the old process after `eleven upgrade`.",
        ),
        key(
            "pid_file",
            PATH,
            Absent("no such file"),
            "Where the number of the process is written while it runs, for `eleven reload` and `eleven upgrade`.",
        ),
        key(
            "user",
            ANY_TEXT,
            Absent("it stays whoever it is"),
            "Whom a process that was started as root becomes once its addresses are bound and its certificates read. It gives up everything of root.",
        ),
        key(
            "group",
            ANY_TEXT,
            Absent("the user's own"),
            "The group it belongs to then, besides the user's others.",
        ),
        key(
            "sandbox",
            Kind::Bool,
            Is("true"),
            "Threads that serve reach files only beneath the directories that this configuration serves or stores in (Landlock, where the kernel has it).",
        ),
        key("server_field", ANY_TEXT, Is("\"\""), "The Server field of responses. Empty: none."),
        key(
            "acme",
            Kind::Section(&ACME),
            Absent("no certificate is ordered"),
            "Certificates from an authority, for sites with `acme = true` (RFC 8555).",
        ),
        key("limits", Kind::Section(&LIMITS), Is("{}"), "What clients may ask of the server."),
        key("log", Kind::Section(&LOG), Is("{}"), "The access log."),
        key(
            "trace",
            Kind::Section(&TRACE),
            Absent("fields go on as they came"),
            "What requests are called over all servers that they pass.",
        ),
        key(
            "admin",
            Kind::Section(&ADMIN),
            Absent("there is none"),
            "A listener for figures, health and administration.",
        ),
        key(
            "cache",
            Kind::Section(&CACHE),
            Absent("nothing is stored"),
            "Where routes with a `cache` store responses (RFC 9111).",
        ),
    ],
);

const INCLUDE: Key = key(
    "include",
    Kind::List(&Kind::Text("the path of a file, with `*` and `?` for several such as `\"sites/*.toml\"`")),
    Is("[]"),
    "Files with more sites, upstreams and listeners, in the order of their names. Paths in them are relative to their own directory. A name without `*` and `?` must exist.",
);

/// A file that another one includes.
pub static INCLUDED: Section = section(
    "",
    "Sites, upstreams and listeners in a file of their own.",
    &[
        INCLUDE,
        key("listener", Kind::Sections(&LISTENER), Is("[]"), "What to listen on."),
        key("site", Kind::Sections(&SITE), Is("[]"), "The sites."),
        key("upstream", Kind::Sections(&UPSTREAM), Is("[]"), "Groups of servers."),
    ],
);

/// `[[listener]]`
pub static LISTENER: Section = section(
    "listener",
    "An address and port, or a Unix socket.",
    &[
        key(
            "address",
            Kind::Text(
                "`\"host:port\"`, `\":port\"` for every address, `\"unix:PATH\"`, or `\"fd:NAME\"` for a socket of the service manager",
            ),
            Required,
            "Where to listen.",
        ),
        key(
            "tls",
            Kind::Section(&LISTENER_TLS),
            Absent("plain HTTP"),
            "Speak TLS here, with the certificates of all sites; the name that a client asks for chooses.",
        ),
        key(
            "proxy_protocol",
            Kind::Bool,
            Is("false"),
            "Every connection begins with a header of the PROXY protocol (v1 or v2), before TLS, that says who made it. Only the `trusted_proxies` may connect, and whoever reaches a Unix socket.",
        ),
    ],
);

/// Versions and suites of TLS.
const PRESET: Kind = Kind::Choice(&[
    ("modern", "TLS 1.3 only"),
    (
        "intermediate",
        "TLS 1.3, and 1.2 with forward secrecy (ECDHE) and authenticated encryption (AES-GCM, ChaCha20-Poly1305)",
    ),
]);

/// `tls = {…}` of a listener
pub static LISTENER_TLS: Section = section(
    "listener.tls",
    "TLS 1.3 and 1.2. Certificates are read anew when their files change.",
    &[
        key(
            "self_signed",
            Kind::Bool,
            Is("false"),
            "Make a certificate on the spot, for development. Browsers warn.",
        ),
        key(
            "client_ca",
            Kind::List(&PATH),
            Is("[]"),
            "Ask clients for a certificate issued by one of these (PEM).",
        ),
        key("client_optional", Kind::Bool, Is("false"), "Serve clients that show none, too."),
        key("preset", PRESET, Is("\"intermediate\""), "Versions and suites, by Mozilla's names."),
    ],
);

/// `[acme]`
pub static ACME: Section = section(
    "acme",
    "The authority that issues certificates, and how it is convinced. Nothing waits for it: until a certificate is issued, one made on the spot stands in. Renewed when the authority suggests it (RFC 9773), or after two thirds of its life. By using it you agree to the authority's terms of service.",
    &[
        key(
            "store",
            DIRECTORY,
            Required,
            "Where certificates, keys and the account are kept, for their owner only.",
        ),
        key(
            "directory",
            Kind::Text("the URL of a directory"),
            Is("\"https://acme-v02.api.letsencrypt.org/directory\""),
            "The authority. The default is Let's Encrypt.",
        ),
        key(
            "staging",
            Kind::Bool,
            Is("false"),
            "Ask Let's Encrypt's test system, whose certificates browsers refuse, instead. Try this first: the real one counts failures.",
        ),
        key(
            "contact",
            Kind::List(&Kind::Text("a URL such as `\"mailto:admin@example.org\"`")),
            Is("[]"),
            "Where the authority reaches you.",
        ),
        key(
            "challenge",
            Kind::Choice(&[
                ("http-01", "by a request on port 80"),
                ("tls-alpn-01", "by a handshake on port 443"),
            ]),
            Is("\"http-01\""),
            "How the authority looks whether the names lead here.",
        ),
        key(
            "ca",
            PATH,
            Absent("the system's"),
            "Trust only this certificate (PEM) as the authority's own: for an authority within a company, and for tests.",
        ),
    ],
);

/// `[limits]`
pub static LIMITS: Section = section(
    "limits",
    "What a client may ask of the server, and how long it may take. Each limit has its own answer.",
    &[
        key("method_bytes_max", bytes(8, 1024), Is("64"), "Longest method. Beyond: 501."),
        key("target_bytes_max", bytes(256, MIB), Is("\"8KiB\""), "Longest request target. Beyond: 414."),
        key(
            "field_section_bytes_max",
            bytes(256, 16 * MIB),
            Is("\"32KiB\""),
            "Size of a header section. Beyond: 431.",
        ),
        key("field_lines_max", integer(1, 10_000), Is("100"), "Number of field lines. Beyond: 431."),
        key(
            "trailer_section_bytes_max",
            bytes(0, 16 * MIB),
            Is("\"8KiB\""),
            "Size of a trailer section. Beyond: 431.",
        ),
        key("trailer_lines_max", integer(0, 10_000), Is("32"), "Number of trailer field lines. Beyond: 431."),
        key(
            "chunk_extension_bytes_max",
            bytes(0, MIB),
            Is("\"4KiB\""),
            "All chunk extensions of a message together. Beyond: 400.",
        ),
        key("pipelined_requests_max", integer(1, 10_000), Is("64"), "Requests read ahead on one connection."),
        key(
            "concurrent_requests_max",
            integer(1, 1000),
            Is("8"),
            "Pipelined safe requests of one connection that are worked on at once.",
        ),
        key(
            "content_bytes_max",
            bytes(0, TIB),
            Is("\"1GiB\""),
            "Size of request content, where a site or a route does not say otherwise. Beyond: 413.",
        ),
        key(
            "head_timeout",
            time(HOUR),
            Is("\"10s\""),
            "From the first octet of a head to its last. Beyond: 408.",
        ),
        key(
            "head_timeout_extended",
            time(HOUR),
            Is("\"30s\""),
            "The same for a head that keeps coming at `head_rate_min`.",
        ),
        key(
            "head_rate_min",
            bytes(0, MIB),
            Is("500"),
            "Octets a second at which a head may take the longer time.",
        ),
        key(
            "idle_timeout",
            time(24 * HOUR),
            Is("\"60s\""),
            "How long a connection may lie idle between requests.",
        ),
        key("progress_window", time(24 * HOUR), Is("\"30s\""), "Over how long the rates below are averaged."),
        key(
            "content_rate_min",
            bytes(0, MIB),
            Is("\"1KiB\""),
            "Octets a second that request content must make. Below: 408.",
        ),
        key(
            "send_rate_min",
            bytes(0, MIB),
            Is("\"1KiB\""),
            "Octets a second that a reader must take while there is something to send. Below: the connection closes.",
        ),
        key(
            "linger_timeout",
            time(HOUR),
            Is("\"10s\""),
            "A connection that closes is read from for so long, that its last response is not lost.",
        ),
        key("linger_idle_timeout", time(HOUR), Is("\"2s\""), "And no longer than this after the last octet."),
        key("linger_bytes_max", bytes(0, 1 << 30), Is("\"64MiB\""), "Octets read away while it closes."),
        key(
            "connections_max",
            integer(0, 10_000_000),
            Is("0"),
            "Connections in all. 0: as many as the limit of open files allows. Beyond: the slowest or longest idle one yields.",
        ),
        key(
            "connections_per_address_max",
            integer(0, 1_000_000),
            Is("0"),
            "Connections from one client address. 0: as many as in all. Beyond: 503.",
        ),
        key(
            "working_max",
            integer(0, 10_000_000),
            Is("0"),
            "Requests that gateways, proxies and applications work on at once, up to the head of their responses, in all. 0: 2048 for each worker. Beyond, they wait.",
        ),
        key(
            "waiting_max",
            integer(0, 10_000_000),
            Is("1024"),
            "Requests that wait for their turn. Beyond: 503.",
        ),
        key(
            "waiting_timeout",
            time(HOUR),
            Is("\"1s\""),
            "How long one may wait. Beyond, or if it would come to that at the pace of the last ones: 503.",
        ),
        key(
            "waiting_timeout_standing",
            time(HOUR),
            Is("\"100ms\""),
            "The same in a queue that has not been empty for longer than `waiting_timeout`.",
        ),
    ],
);

/// `[trace]`
pub static TRACE: Section = section(
    "trace",
    "The identity of requests. The access log tells the id as `{request_id}`, and the trace as `{request.traceparent}`.",
    &[
        key(
            "request_id",
            Kind::Bool,
            Is("true"),
            "Give each request an `X-Request-Id`, for handlers, upstreams, the log and the client. One that a trusted proxy gave is kept, any other is replaced.",
        ),
        key(
            "context",
            Kind::Choice(&[
                ("pass", "traceparent and tracestate go on as they came"),
                ("continue", "a trace that came is continued, whoever sent it; without one, one begins"),
                ("restart", "the same, but only trusted proxies are believed"),
            ]),
            Is("\"restart\""),
            "W3C Trace Context.",
        ),
        key(
            "sampled_one_in",
            integer(1, 1_000_000_000),
            Is("1"),
            "Of so many traces that begin here one is sampled; what others began, they have decided.",
        ),
        key(
            "otlp",
            Kind::Text("a URL such as `\"http://127.0.0.1:4318\"`"),
            Absent("nobody is told"),
            "The collector that is told of sampled traces (OTLP over HTTP, JSON); without a path, `/v1/traces`. Fields such as credentials come from `OTEL_EXPORTER_OTLP_HEADERS`. Changes with the next start.",
        ),
        key("service_name", Kind::Text("a name"), Is("\"eleven\""), "What this server is called there."),
    ],
);

/// `[admin]`
pub static ADMIN: Section = section(
    "admin",
    "What the server tells of itself, on a listener of its own: `/metrics` (Prometheus), `/status.json`, `/health` and a page. A change takes effect with the next start.",
    &[
        key(
            "address",
            Kind::Text("`\"host:port\"` or `\"unix:PATH\"`"),
            Is("\"127.0.0.1:8011\""),
            "Where to listen. Other than loopback addresses and Unix sockets need a token.",
        ),
        key(
            "token",
            Kind::Secret,
            Absent("no token is asked for"),
            "What clients must send as `Authorization: Bearer TOKEN`. At least 16 characters.",
        ),
        key(
            "hosts",
            Kind::List(&HOST),
            Is("[]"),
            "Names the listener is reached by, besides addresses and `localhost`. Requests for other names are refused, so that no web page can lead a browser here.",
        ),
    ],
);

/// `[log]`
pub static LOG: Section = section(
    "log",
    "One line for each exchange. Control characters are escaped, secrets are hidden, and no request ever waits for the disk.",
    &[
        key(
            "access",
            Kind::Text("`\"stdout\"`, `\"off\"`, or the path of a file"),
            Is("\"stdout\""),
            "Where the lines go. A file is opened anew on SIGUSR1 and when it was renamed.",
        ),
        key(
            "format",
            Kind::Text("`\"combined\"`, `\"common\"`, `\"json\"`, or a template with `{words}`"),
            Is("\"combined\""),
            "How a line looks. In a template: `{client}`, `{user}`, `{time}`, `{request}`, `{status}`, `{content_bytes}`, `{duration_us}`, `{closed}`, `{refused}`, `{request.Name}`, `{response.Name}` and more; a wrong word is answered with the list of all.",
        ),
    ],
);

/// `log = {…}` of a site
pub static SITE_LOG: Section = section(
    "site.log",
    "A log of a site's or a route's own, instead of the server's. They may share a file.",
    &[
        key(
            "access",
            Kind::Text("`\"stdout\"`, `\"off\"`, or the path of a file"),
            Required,
            "Where the lines go. A file is opened anew on SIGUSR1 and when it was renamed.",
        ),
        key(
            "format",
            Kind::Text("`\"combined\"`, `\"common\"`, `\"json\"`, or a template with `{words}`"),
            Absent("that of `[log]`"),
            "How a line looks.",
        ),
    ],
);

/// `[cache]`
pub static CACHE: Section = section(
    "cache",
    "A shared cache in memory and, with a directory, on disk. Scheme, host and port are part of every key, so sites never see each other's responses. It stays over a reload, the directory over a restart.",
    &[
        key("memory_bytes_max", bytes(MIB, 1 << 40), Is("\"256MiB\""), "Memory for stored responses."),
        key("directory", DIRECTORY, Absent("in memory only"), "Store in this directory as well."),
        key("directory_bytes_max", bytes(MIB, 1 << 50), Is("\"10GiB\""), "Octets in the directory."),
        key(
            "careful_with_cookies",
            Kind::Bool,
            Is("false"),
            "Store nothing in which a cookie is involved, unless it is marked `public`.",
        ),
        key(
            "targeted_fields",
            Kind::List(&FIELD_NAME),
            Is("[\"CDN-Cache-Control\", \"Surrogate-Control\"]"),
            "Fields that govern this cache in place of Cache-Control and Expires (RFC 9213); the first that is there and valid.",
        ),
        key("cache_status", Kind::Bool, Is("false"), "Say in Cache-Status what the cache did (RFC 9211)."),
        key("x_cache", Kind::Bool, Is("false"), "The same in one word: X-Cache."),
    ],
);

/// `cache = {…}` of a route
pub static ROUTE_CACHE: Section = section(
    "site.route.cache",
    "Stores the route's responses in the store of `[cache]` and answers with them, as RFC 9111 allows. `true` is enough; the keys change what is stored, under which key, and for how long. Scheme, host, port, path and query are always part of the key.",
    &[
        key(
            "methods",
            Kind::List(&Kind::Choice(&[
                ("GET", "stored and answered"),
                ("HEAD", "answered with what GET stored"),
                ("POST", "stored where its Content-Location is its own target (RFC 9110 §9.3.3)"),
            ])),
            Is("[\"GET\", \"HEAD\", \"POST\"]"),
            "Methods that the store is for. The others go past it; those that are unsafe still make stored responses invalid.",
        ),
        key(
            "statuses",
            Kind::List(&Kind::Code("a status, a class such as `\"2xx\"`, or `\"200-299\"`")),
            Is("[]"),
            "Only these are stored. None: all that the RFC allows.",
        ),
        key(
            "sort_query",
            Kind::Bool,
            Is("false"),
            "The order of the query's parameters does not matter. Servers get them sorted.",
        ),
        key(
            "ignore_parameters",
            Kind::List(&Kind::Text("the name of a parameter, or its beginning and `*`")),
            Is("[]"),
            "Parameters taken out of the query, for the key and for servers: `[\"utm_*\", \"fbclid\"]`.",
        ),
        key(
            "key_fields",
            Kind::List(&FIELD_NAME),
            Is("[]"),
            "Request fields that are part of the key, besides those that Vary names.",
        ),
        key(
            "key_cookies",
            Kind::List(&Kind::Text("the name of a cookie")),
            Is("[]"),
            "Cookies whose values are part of the key.",
        ),
        key(
            "bypass_cookies",
            Kind::List(&Kind::Text("the name of a cookie, or its beginning and `*`")),
            Is("[]"),
            "Requests with one of these cookies are somebody's own: they go past the store, and nothing of them is stored: `[\"sessionid\", \"wordpress_logged_in_*\"]`.",
        ),
        key(
            "partition",
            ANY_TEXT,
            Is("\"\""),
            "A name that keeps what this route stores apart from the other routes' (of another tenant). A route with `rewrite` has one of its own.",
        ),
        key(
            "default_lifetime",
            time(YEAR),
            Absent("stale at once"),
            "How long responses are fresh that say nothing and have no Last-Modified.",
        ),
        key("lifetime_max", time(100 * YEAR), Absent("as the server says"), "Longest lifetime of anything."),
        key(
            "heuristic_percent",
            integer(0, 100),
            Is("10"),
            "Part of the time since Last-Modified that counts as fresh where nothing is said (RFC 9111 §4.2.2). 0: none.",
        ),
        key("heuristic_max", time(YEAR), Is("\"1d\""), "Longest lifetime that is guessed so."),
        key("heuristic_error_max", time(YEAR), Is("\"1m\""), "The same for 4xx and 5xx."),
        key(
            "stale_while_revalidate",
            time(YEAR),
            Absent("as the server says"),
            "How long a stale response is served while it is validated in the background, where the server does not say (RFC 5861 §3).",
        ),
        key(
            "stale_if_error",
            time(YEAR),
            Absent("as the server says"),
            "How long a stale response is served in place of 500, 502, 503 and 504, where the server does not say (RFC 5861 §4).",
        ),
        key(
            "stale_when_disconnected",
            Kind::Bool,
            Is("true"),
            "Serve stale responses while the server cannot be reached, where nothing forbids it (RFC 9111 §4.2.4).",
        ),
        key("stale_max", time(YEAR), Is("\"7d\""), "Longest staleness of anything served."),
        key(
            "honour_requests",
            Kind::Bool,
            Is("true"),
            "Requests may ask for something fresher (`no-cache`, `max-age`). Without it nobody can make the servers work by reloading.",
        ),
        key(
            "careful_with_cookies",
            Kind::Bool,
            Absent("`cache.careful_with_cookies`"),
            "Store nothing in which a cookie is involved, unless it is marked `public`.",
        ),
        key(
            "targeted_fields",
            Kind::List(&FIELD_NAME),
            Absent("`cache.targeted_fields`"),
            "Fields that govern this cache in place of Cache-Control (RFC 9213).",
        ),
        key(
            "cache_status",
            Kind::Bool,
            Absent("`cache.cache_status`"),
            "Say in Cache-Status what the cache did.",
        ),
        key("x_cache", Kind::Bool, Absent("`cache.x_cache`"), "The same in one word: X-Cache."),
    ],
);

/// `[[site]]`
pub static SITE: Section = Section {
    name: "site",
    doc: "A site: the names it answers for, and its routes. Everything that a route can say about access, fields, compression and so on can stand here too and then holds for every route that does not say it itself.",
    own: &[
        key(
            "names",
            Kind::List(&HOST),
            Is("[]"),
            "Its host names, the canonical one first. A name with a port answers on that port only. None: it answers for every name that no other site has.",
        ),
        key(
            "listeners",
            Kind::List(&Kind::Text("the `address` of a `[[listener]]`")),
            Is("[]"),
            "Only requests that come in there. Where it has the same name as a site that answers everywhere, it goes first. None: all listeners.",
        ),
        key(
            "redirect_names",
            Kind::List(&HOST),
            Is("[]"),
            "Names that are redirected (308) to the first of `names`.",
        ),
        key(
            "default",
            Kind::Bool,
            Is("false"),
            "It answers also for names that no site has. Without a default such requests get 421.",
        ),
        key(
            "certificate",
            PATH,
            Absent("no certificate of its own"),
            "Its certificate chain (PEM), for listeners with `tls`.",
        ),
        key("key", PATH, Absent("see `certificate`"), "The private key of the certificate (PEM)."),
        key(
            "ocsp",
            PATH,
            Absent("nothing is stapled"),
            "An OCSP response for the certificate (DER), stapled until it expires. Read again when it changes; nothing fetches it.",
        ),
        key(
            "acme",
            Kind::Bool,
            Is("false"),
            "Order its certificate from the authority of `[acme]`, for all of `names` and `redirect_names`.",
        ),
        key("https_only", Kind::Bool, Is("false"), "Plain requests are redirected (308) to `https`."),
        key(
            "root",
            DIRECTORY,
            Absent("no files but those of the routes"),
            "Serves this directory: short for a route `/` with `files`.",
        ),
        key(
            "route",
            Kind::Sections(&ROUTE),
            Is("[]"),
            "Its routes. The most particular path wins, whatever the order.",
        ),
        key(
            "redirects",
            Kind::Section(&REDIRECTS),
            Absent("none"),
            "Many paths that lead elsewhere, without a route for each.",
        ),
    ],
    shared: POLICY,
};

/// `[site.redirects]`
pub static REDIRECTS: Section = section(
    "site.redirects",
    "Paths and where they lead. A path that ends with `/*` takes everything beneath it, and `{rest}` is what the star stands for; any other is exact. They take part in the choice of a route like routes: the most particular path wins.",
    &[
        key(
            "paths",
            Kind::Map(&TEMPLATE),
            Is("{}"),
            "Where each path leads: `{ \"/old\" = \"/new\", \"/blog/*\" = \"https://blog.example.org/{rest}{query}\" }`.",
        ),
        key(
            "file",
            PATH,
            Absent("no file"),
            "More of them in a file, one to a line: path, where it leads, and the status if it is another. Lines that start with `#` say nothing.",
        ),
        key("status", REDIRECT_STATUS, Is("\"308\""), "How, where a line does not say."),
    ],
);

const REDIRECT_STATUS: Kind = Kind::Choice(&[
    ("301", "moved permanently, POST may become GET"),
    ("302", "found, POST may become GET"),
    ("303", "see other, by GET"),
    ("307", "temporarily, same method"),
    ("308", "permanently, same method"),
]);

/// `[[site.route]]`
pub static ROUTE: Section = Section {
    name: "site.route",
    doc: "Which requests it takes (`path` or `exact`, `pattern`, `methods`, `hosts`) and what it does with them: exactly one of `files`, `redirect`, `fixed`, `echo`, `proxy`, `forward`, `app`, `fastcgi`. Where two routes have the same path, the first whose pattern, methods and hosts take the request answers.",
    own: &[
        key(
            "path",
            ROUTE_PATH,
            Absent("`/`"),
            "This path and everything beneath it. It ends at a segment: `/img` never takes `/images`.",
        ),
        key("exact", ROUTE_PATH, Absent("see `path`"), "This path only."),
        key(
            "pattern",
            Kind::Text("a regular expression such as `\"^/user/([0-9]+)$\"`"),
            Absent("every path that `path` covers"),
            "Only paths that hold a match, anywhere in the whole path unless `^` and `$` bind it; `(?i)` before it ignores case. What its groups caught is `{1}` to `{9}` in `rewrite`, `redirect.to` and `files.try`. The syntax is that of Rust's `regex`, without look-around and backreferences.",
        ),
        key(
            "methods",
            Kind::List(&METHOD),
            Is("[]"),
            "Only these methods; GET brings HEAD. None: all. A path that exists for other methods only answers 405 with Allow.",
        ),
        key("hosts", Kind::List(&HOST), Is("[]"), "Only these of the site's names. None: all."),
        key(
            "strip_prefix",
            Kind::Bool,
            Is("false"),
            "The handler sees the path without `path`: with `path = \"/docs\"` and `files.root = \"/srv/docs\"`, `/docs/a` is `/srv/docs/a`.",
        ),
        key(
            "rewrite",
            TEMPLATE,
            Absent("the path stays"),
            "Another path (and query) for the handler. The client does not see it.",
        ),
        key("files", Kind::Section(&FILES), Absent("not its handler"), "Serves files of a directory."),
        key("redirect", Kind::Section(&REDIRECT), Absent("not its handler"), "Sends the client elsewhere."),
        key("fixed", Kind::Section(&FIXED), Absent("not its handler"), "Always gives the same response."),
        key(
            "echo",
            Kind::Section(&ECHO),
            Absent("not its handler"),
            "Shows the request as it arrived, for people who debug clients and proxies.",
        ),
        key(
            "proxy",
            Kind::Section(&PROXY),
            Absent("not its handler"),
            "Passes requests on to other servers (a gateway, or reverse proxy).",
        ),
        key(
            "forward",
            Kind::Section(&FORWARD),
            Absent("not its handler"),
            "Passes requests on to the servers that they name (a forward proxy), CONNECT too. For the route `/` of the default site.",
        ),
        key("app", Kind::Section(&APP), Absent("not its handler"), "A Python application (WSGI or ASGI)."),
        key(
            "fastcgi",
            Kind::Section(&FASTCGI),
            Absent("not its handler"),
            "Scripts behind a FastCGI server, such as PHP-FPM.",
        ),
        key(
            "cache",
            Kind::Section(&ROUTE_CACHE),
            Absent("nothing of it is stored"),
            "Stores its responses and answers with them. Needs a `[cache]`.",
        ),
    ],
    shared: POLICY,
};

/// What both a site and a route may say.
const POLICY: &[Key] = &[
    key(
        "log",
        Kind::Section(&SITE_LOG),
        Absent("in the log of the server"),
        "A log of its own, or none: `{ access = \"off\" }`.",
    ),
    key("access", Kind::Section(&ACCESS), Absent("open to everybody"), "Who may come in."),
    key("rate", Kind::Section(&RATE), Absent("no limit"), "How often one client may ask."),
    key(
        "cors",
        Kind::Section(&CORS),
        Absent("no cross-origin access"),
        "Which other origins' scripts may read responses.",
    ),
    key(
        "content_bytes_max",
        bytes(0, TIB),
        Absent("`limits.content_bytes_max`"),
        "Size of request content. Beyond: 413.",
    ),
    key(
        "working_max",
        integer(0, 10_000_000),
        Absent("among all of `limits.working_max`"),
        "Requests that the gateway, proxy or application of each route works on at once, apart from those of `limits`; others wait, as `limits` say. 0: any number.",
    ),
    key("fields", Kind::Section(&FIELDS), Absent("as they are"), "Changes to the fields of responses."),
    key(
        "security",
        Kind::List(&Kind::Choice(&[
            ("nosniff", "`X-Content-Type-Options: nosniff`"),
            ("hsts", "`Strict-Transport-Security: max-age=31536000`, on secured connections only"),
            ("hsts-subdomains", "the same with `includeSubDomains`"),
            ("deny-frames", "`X-Frame-Options: DENY` and `frame-ancestors 'none'`"),
            (
                "self-only",
                "`Content-Security-Policy: default-src 'self'; base-uri 'self'; object-src 'none'`",
            ),
            ("no-referrer", "`Referrer-Policy: no-referrer`"),
            ("same-origin-referrer", "`Referrer-Policy: same-origin`"),
            (
                "isolate",
                "`Cross-Origin-Opener-Policy: same-origin` and `Cross-Origin-Resource-Policy: same-origin`",
            ),
        ])),
        Is("[]"),
        "Presets of security fields. A field that the response has already is left as it is.",
    ),
    key(
        "cache_control",
        FIELD_VALUE,
        Absent("no Cache-Control is added"),
        "The Cache-Control of responses that have none, where no `cache_rule` says otherwise.",
    ),
    key(
        "cache_rule",
        Kind::Sections(&CACHE_RULE),
        Is("[]"),
        "Cache-Control by media type; the first that fits.",
    ),
    key(
        "early_hints",
        Kind::List(&Kind::Text("a Link value such as `\"</style.css>; rel=preload; as=style\"`")),
        Is("[]"),
        "Links sent ahead in a 103 response to clients of HTTP/1.1 that ask for a page.",
    ),
    key(
        "compress",
        Kind::Section(&COMPRESS),
        Absent("responses are sent as they are"),
        "Content codings made on the way.",
    ),
    key(
        "error_page",
        Kind::Sections(&ERROR_PAGE),
        Is("[]"),
        "Own pages for errors. Without one, people get a plain page and programs get `application/problem+json`.",
    ),
];

/// `files = {…}`
pub static FILES: Section = section(
    "site.route.files",
    "Files of a directory, with validators, conditional and range requests. Nothing outside the directory is ever reached, whatever the path or a symbolic link says.",
    &[
        key("root", DIRECTORY, Required, "The directory."),
        key(
            "index",
            Kind::List(&Kind::Text("the name of a file")),
            Is("[\"index.html\", \"index.htm\"]"),
            "What stands for a directory; the first that exists.",
        ),
        key(
            "try",
            Kind::List(&TEMPLATE),
            Is("[]"),
            "Paths to try in turn where there is no file: `[\"{path}.html\"]` for pages without their extension, `[\"/index.html\"]` for a single-page application.",
        ),
        key(
            "hidden",
            Kind::Bool,
            Is("false"),
            "Serve names that start with a dot. `/.well-known` is always served.",
        ),
        key(
            "symlinks",
            Kind::Choice(&[
                ("refuse", "they are as if they were not there"),
                ("beneath", "followed, as long as they stay in the directory"),
            ]),
            Is("\"refuse\""),
            "Symbolic links.",
        ),
        key(
            "precompressed",
            Kind::List(&Kind::Choice(&[
                ("br", "`page.html.br`"),
                ("zstd", "`page.html.zst`"),
                ("gzip", "`page.html.gz`"),
            ])),
            Is("[]"),
            "Compressed siblings to look for, the preferred one first. They are sent to clients that take them, each with its own ETag.",
        ),
        key(
            "languages",
            Kind::List(&Kind::Text("a language tag such as `\"en\"`")),
            Is("[]"),
            "Languages in which pages may exist (`page.html.en`), the preferred one first; chosen by Accept-Language.",
        ),
        key(
            "strict_negotiation",
            Kind::Bool,
            Is("false"),
            "Answer 406 where no variant is acceptable, instead of sending one all the same.",
        ),
        key(
            "types",
            Kind::Map(&MEDIA_TYPE),
            Is("{}"),
            "Media types by extension, before those that are built in: `{ \"md\" = \"text/markdown; charset=utf-8\" }`.",
        ),
        key("charset", ANY_TEXT, Is("\"utf-8\""), "Added to text types. Empty: none."),
        key(
            "default_type",
            MEDIA_TYPE,
            Is("\"application/octet-stream\""),
            "The media type of unknown extensions.",
        ),
        key(
            "ranges_max",
            integer(1, 200),
            Is("16"),
            "Ranges in one request. With more, the whole file is sent.",
        ),
        key(
            "listing",
            Kind::Section(&LISTING),
            Absent("404"),
            "Lists directories that have no index file: as a page, or as JSON by Accept.",
        ),
        key(
            "uploads",
            Kind::Section(&UPLOADS),
            Absent("405"),
            "Takes PUT and DELETE. Give the route `access` too.",
        ),
    ],
);

/// `listing = {…}`
pub static LISTING: Section = section(
    "site.route.files.listing",
    "A listing that can be sorted, works by keyboard, on a phone and in the dark, and loads nothing from elsewhere.",
    &[key(
        "entries_max",
        integer(1, 1_000_000),
        Is("4000"),
        "Entries shown; a note says where there are more.",
    )],
);

/// `uploads = {…}`
pub static UPLOADS: Section = section(
    "site.route.files.uploads",
    "PUT replaces a file as a whole: new content is written beside it, synced, and renamed into place. If anything fails the old content stands. If-Match, If-None-Match, Content-Digest and Repr-Digest are honoured.",
    &[
        key("content_bytes_max", bytes(0, TIB), Is("\"1GiB\""), "Size of one upload. Beyond: 413."),
        key(
            "create_directories",
            Kind::Bool,
            Is("false"),
            "Make directories that are missing on the way, instead of 409.",
        ),
        key("delete", Kind::Bool, Is("true"), "DELETE removes files."),
        key(
            "conditional",
            Kind::Bool,
            Is("false"),
            "Who changes or removes a file must say on which state that is based (If-Match, If-Unmodified-Since), so that nobody's change is lost. Else: 428.",
        ),
        key(
            "mode",
            Kind::Text("permission bits in octal such as `\"644\"`"),
            Is("\"644\""),
            "Permissions of new files, less the umask. A replaced file keeps its own.",
        ),
    ],
);

/// `redirect = {…}`
pub static REDIRECT: Section = section(
    "site.route.redirect",
    "A redirection (RFC 9110 §15.4).",
    &[
        key(
            "to",
            TEMPLATE,
            Required,
            "Where to. `{path}` is the path asked for, `{rest}` its part beneath the route's `path`, `{query}` the query with its `?`, `{host}` the site's first name (or the host asked for, if the site has none), `{scheme}` the scheme, `{1}` to `{9}` what the groups of the route's `pattern` caught. What stands behind a `?` is encoded as the value of a parameter.",
        ),
        key("status", REDIRECT_STATUS, Is("\"308\""), "How."),
    ],
);

/// `fixed = {…}`
pub static FIXED: Section = section(
    "site.route.fixed",
    "A response that is always the same: 410 for what is gone, 503 for maintenance.",
    &[
        key("status", integer(200, 599), Is("200"), "The status code."),
        key(
            "text",
            ANY_TEXT,
            Is("\"\""),
            "The content. Empty with a status of 400 and above: the error page.",
        ),
        key("content_type", MEDIA_TYPE, Is("\"text/plain; charset=utf-8\""), "Its media type."),
        key("retry_after", time(YEAR), Absent("no Retry-After"), "When to come again."),
        key(
            "upgrade",
            Kind::List(&Kind::Text("a protocol such as `\"websocket\"` or `\"TLS/1.3\"`")),
            Is("[]"),
            "With a status of 426: the protocols that would be spoken here, the preferred one first.",
        ),
    ],
);

/// `echo = {…}`
pub static ECHO: Section = section("site.route.echo", "The diagnostic origin server of `eleven echo`.", &[]);

/// `proxy = {…}`
pub static PROXY: Section = section(
    "site.route.proxy",
    "Passes requests on. Fields of the connection stay here, trailers and interim responses go through, WebSockets work without more being said.",
    &[
        key(
            "upstream",
            Kind::Text("the name of an `[[upstream]]`, or the URL of a server"),
            Required,
            "Where to.",
        ),
        key("cache", Kind::Bool, Is("false"), "Short for `cache = true` of the route."),
    ],
);

/// `app = {…}`
pub static APP: Section = section(
    "site.route.app",
    "A Python application in worker processes. The route's prefix is its SCRIPT_NAME if `strip_prefix` says so. A signal HUP replaces the workers without a failed request.",
    &[
        key(
            "application",
            Kind::Text("`\"MODULE:ATTRIBUTE\"`"),
            Required,
            "The application: an attribute (dotted, or a call without arguments) of a module.",
        ),
        key(
            "interface",
            Kind::Choice(&[
                ("auto", "a coroutine function is ASGI"),
                ("wsgi", "PEP 3333"),
                ("asgi", "ASGI 3"),
            ]),
            Is("\"auto\""),
            "What it speaks.",
        ),
        key("directory", DIRECTORY, Absent("the server's"), "Where it runs and imports from."),
        key(
            "python",
            PATH,
            Absent("that of the active virtual environment, else python3"),
            "The interpreter.",
        ),
        key(
            "environment",
            Kind::List(&ANY_TEXT),
            Is("[]"),
            "Variables of the process environment, as `\"NAME=VALUE\"`.",
        ),
        key("workers", integer(1, 512), Is("1"), "Worker processes."),
        key("threads", integer(1, 1024), Is("1"), "Threads in each (WSGI)."),
        key("tasks", integer(1, 10_000), Is("256"), "Requests at once in each (ASGI)."),
        key(
            "timeout",
            time(24 * HOUR),
            Is("\"30s\""),
            "How long a request may take in a worker. Beyond: 504, and the worker is killed.",
        ),
        key(
            "queue_timeout",
            time(24 * HOUR),
            Is("\"30s\""),
            "How long a request may wait for a worker. Beyond: 503.",
        ),
        key("queue_requests_max", integer(0, 1_000_000), Is("2048"), "How many may wait. Beyond: 503."),
        key(
            "drain_timeout",
            time(24 * HOUR),
            Is("\"30s\""),
            "How long a worker that is replaced may take to finish.",
        ),
        key(
            "requests_max",
            integer(0, u32::MAX as u64),
            Is("0"),
            "Requests after which a worker is replaced, and up to a tenth more. 0: never.",
        ),
        key(
            "age_max",
            time(YEAR),
            Absent("never"),
            "Age at which a worker is replaced, and up to a tenth more.",
        ),
        key("memory_bytes_max", bytes(MIB, TIB), Absent("never"), "Memory at which a worker is replaced."),
        key(
            "preload",
            Kind::Bool,
            Is("false"),
            "Import the application once and fork the workers, which then share its memory.",
        ),
        key(
            "probe",
            Kind::Text("a path such as `\"/health\"`"),
            Absent("none"),
            "A path that a new worker must answer with less than 500 before it gets requests.",
        ),
        key(
            "buffering",
            Kind::Choice(&[
                ("auto", "for WSGI, unless the client waits for `100 Continue`; for ASGI, if it is short"),
                (
                    "always",
                    "no slow upload holds a worker; `100 Continue` comes before the application reads",
                ),
                ("never", "only what is short and complete"),
            ]),
            Is("\"auto\""),
            "When request content is collected before a worker gets the request.",
        ),
    ],
);

/// `fastcgi = {…}`
pub static FASTCGI: Section = section(
    "site.route.fastcgi",
    "A directory with scripts, such as PHP: a path that is a file is served as a file, one that is a script runs it, every other one runs the index script.",
    &[
        key("server", Kind::Text("`\"unix:PATH\"` or `\"ADDRESS:PORT\"`"), Required, "The FastCGI server."),
        key("root", DIRECTORY, Required, "The directory of files and scripts."),
        key("script_root", ANY_TEXT, Absent("the same"), "The same directory as the FastCGI server sees it."),
        key(
            "index",
            ANY_TEXT,
            Is("\"index.php\""),
            "The script behind everything that is neither file nor script.",
        ),
        key(
            "suffix",
            ANY_TEXT,
            Is("\".php\""),
            "What a script's name ends with. Nothing with it is served as a file.",
        ),
        key("connect_timeout", time(HOUR), Is("\"5s\""), "How long connecting may take."),
        key("timeout", time(24 * HOUR), Is("\"60s\""), "How long a script may be silent. Beyond: 504."),
        key(
            "idle_per_thread_max",
            integer(0, 10_000),
            Is("0"),
            "Connections that each thread of the server (`workers`) keeps between requests. Each of them occupies a process of PHP-FPM, so all together have to be fewer than its `pm.max_children`.",
        ),
        key("idle_timeout", time(HOUR), Is("\"10s\""), "How long one is kept."),
        key("variables", Kind::List(&ANY_TEXT), Is("[]"), "More variables for scripts, as `\"NAME=VALUE\"`."),
    ],
);

/// `forward = {…}`
pub static FORWARD: Section = section(
    "site.route.forward",
    "A forward proxy. It serves programs of this machine, and others only if it is said whom; it leads to the public Internet, and to special networks only if it is said which.",
    &[
        key(
            "clients",
            Kind::List(&NETWORK),
            Is("[]"),
            "Clients that need no password, beside this machine's own.",
        ),
        key(
            "basic",
            Kind::Section(&BASIC),
            Absent("nobody else is served"),
            "Passwords for everybody else (407).",
        ),
        key(
            "digest",
            Kind::Section(&DIGEST),
            Absent("as `basic`"),
            "Passwords that never cross the wire (407).",
        ),
        key(
            "parent",
            Kind::Text("the URL of a proxy such as `\"http://proxy.example:3128\"`"),
            Absent("everything goes to where it leads"),
            "Another proxy through which everything goes. It looks names up and says where they may lead; special addresses are refused here all the same.",
        ),
        key("parent_user", Kind::Secret, Absent("none"), "Who we are there: `\"USER:PASSWORD\"`."),
        key(
            "destinations",
            Kind::List(&NETWORK),
            Is("[]"),
            "Networks it may lead to beside the public Internet, such as `\"10.0.0.0/8\"`.",
        ),
        key(
            "connect_ports",
            Kind::List(&Kind::Integer { min: 1, max: 65535 }),
            Is("[443]"),
            "Ports that tunnels may lead to.",
        ),
    ],
);

/// `[[upstream]]`
pub static UPSTREAM: Section = section(
    "upstream",
    "A group of servers. Their names are looked up when they are needed: one that does not resolve stops nothing but its own requests.",
    &[
        key("name", ANY_TEXT, Required, "What routes call it."),
        key(
            "servers",
            Kind::List(&SERVER_URL),
            Is("[]"),
            "The servers, where nothing more is to be said of them.",
        ),
        key("server", Kind::Sections(&SERVER), Is("[]"), "Servers of which more is to be said."),
        key(
            "balance",
            Kind::Choice(&[
                ("round-robin", "in turn, by weight"),
                ("least-requests", "the one with the fewest requests for its weight"),
                ("two-choices", "the less busy of two drawn at random"),
                ("hash-address", "always the same one for a client's address"),
                ("hash-field", "always the same one for the value of the field `hash_name`"),
                ("hash-cookie", "always the same one for the value of the cookie `hash_name`"),
            ]),
            Is("\"round-robin\""),
            "How one is chosen.",
        ),
        key("hash_name", ANY_TEXT, Absent("nothing is hashed"), "The field or cookie that is hashed."),
        key(
            "sticky",
            Kind::Section(&STICKY),
            Absent("no cookie is set"),
            "Brings a client back to the server it was given first, by a cookie, whatever `balance` says.",
        ),
        key(
            "host",
            Kind::Text("`\"keep\"`, `\"server\"`, or a host"),
            Is("\"keep\""),
            "The Host that servers are asked for: the client's, their own, or this one.",
        ),
        key(
            "tell",
            Kind::Choice(&[
                ("X-Forwarded-For", "`X-Forwarded-For`, `-Host`, `-Proto`"),
                ("Forwarded", "RFC 7239"),
                ("both", "both"),
                ("nothing", "neither"),
            ]),
            Is("\"X-Forwarded-For\""),
            "In which fields servers are told of the client. What a client says of itself is removed, unless it is one of the `trusted_proxies`.",
        ),
        key("via", ANY_TEXT, Absent("a random name"), "Our name in Via; loops are found by it."),
        key("via_in_responses", Kind::Bool, Is("true"), "Via in responses too."),
        key(
            "upgrades",
            Kind::List(&Kind::Text("the name of a protocol")),
            Is("[\"websocket\"]"),
            "Protocols that a connection may switch to.",
        ),
        key(
            "trailers",
            Kind::Choice(&[("safe", "those that frame, route and authenticate nothing"), ("none", "none")]),
            Is("\"safe\""),
            "Which trailer fields go on.",
        ),
        key(
            "buffer_requests",
            Kind::Section(&BUFFER_REQUESTS),
            Absent("content flows to the server as it comes"),
            "Takes all of a request's content before a server is asked, so that a slow client holds none.",
        ),
        key("tls", Kind::Section(&CLIENT_TLS), Is("{}"), "For servers with `https`."),
        key(
            "health",
            Kind::Section(&HEALTH),
            Absent("servers are judged by their answers only"),
            "Asks servers from time to time how they are.",
        ),
        key("ejection", Kind::Section(&EJECTION), Is("{}"), "Leaves a server that fails alone for a while."),
        key(
            "timeouts",
            Kind::Section(&UPSTREAM_TIMEOUTS),
            Is("{}"),
            "How long things may take. Beyond: 504, or another server.",
        ),
        key("connections", Kind::Section(&CONNECTIONS), Is("{}"), "Connections to servers, for each worker."),
        key("attempts_max", integer(1, 100), Is("3"), "Times a request is tried, as long as that is safe."),
        key(
            "retries_per_ten",
            integer(0, 100),
            Is("2"),
            "Retries for every ten requests, so that an outage is not made worse.",
        ),
        key(
            "tell_details",
            Kind::Bool,
            Is("false"),
            "Say in Proxy-Status what happened, addresses included.",
        ),
    ],
);

const SERVER_URL: Kind = Kind::Text("a URL such as `\"http://10.0.0.1:3000\"`, or `\"unix:PATH\"`");

/// `[[upstream.server]]`
pub static SERVER: Section = section(
    "upstream.server",
    "One server.",
    &[
        key("url", SERVER_URL, Required, "Where it is. A path goes before every request's."),
        key("weight", integer(0, 1000), Is("1"), "Its share of requests, compared with the others. 0: none."),
        key("backup", Kind::Bool, Is("false"), "It gets requests only when no other can take them."),
        key(
            "proxy_protocol",
            Kind::Choice(&[("none", "no"), ("v1", "in the text form"), ("v2", "in the binary form")]),
            Is("\"none\""),
            "Tell it the client's address before the first octet of each connection.",
        ),
    ],
);

/// `sticky = {…}`
pub static STICKY: Section = section(
    "upstream.sticky",
    "The cookie of sticky servers. Its value is a keyed hash and tells nobody where the server is. When the server is out, another takes the client over; one with `weight = 0` keeps the clients it has and gets no others. In front of a cache, what is in the store is given out without asking any server.",
    &[
        key("cookie", ANY_TEXT, Is("\"route\""), "Its name."),
        key(
            "secure",
            Kind::Choice(&[
                ("auto", "if it is set over TLS"),
                ("always", "as where a proxy before this server speaks TLS"),
                ("never", "no"),
            ]),
            Is("\"auto\""),
            "Whether browsers send it over TLS only.",
        ),
        key("http_only", Kind::Bool, Is("true"), "Scripts do not see it."),
        key(
            "same_site",
            Kind::Choice(&[
                ("lax", "with links from other sites"),
                ("strict", "never with requests from other sites"),
                ("none", "always; needs `secure`"),
            ]),
            Is("\"lax\""),
            "When requests that come from other sites carry it.",
        ),
        key("path", Kind::Text("a path"), Is("\"/\""), "The paths it is sent with."),
        key("max_age", time(400 * 24 * HOUR), Absent("as long as the browser runs"), "How long it is kept."),
        key(
            "secret",
            Kind::Secret,
            Absent("a new one with every start"),
            "The key of the hash. Where it is the same, other instances understand the cookie, and this one does after a restart.",
        ),
    ],
);

/// `buffer_requests = {…}`
pub static BUFFER_REQUESTS: Section = section(
    "upstream.buffer_requests",
    "Buffering of request content, in memory and then in a file without a name. What was chunked has a length then, `100 Continue` is said here, and a request that may be repeated can be repeated with its content.",
    &[
        key(
            "memory_bytes_max",
            bytes(0, GIB),
            Is("\"64KiB\""),
            "Of one request in memory; the rest is in a file.",
        ),
        key("content_bytes_max", bytes(1, TIB), Is("\"1GiB\""), "Of one request altogether. Beyond: 413."),
        key(
            "disk_bytes_max",
            bytes(0, 1024 * TIB),
            Is("\"8GiB\""),
            "In all files of this upstream. Beyond: 503.",
        ),
        key("directory", DIRECTORY, Absent("the system's for temporary files"), "Where the files are."),
    ],
);

/// `tls = {…}` of an upstream
pub static CLIENT_TLS: Section = section(
    "upstream.tls",
    "TLS to servers. Their certificates are verified.",
    &[
        key(
            "ca",
            Kind::List(&PATH),
            Is("[]"),
            "Trust these authorities (PEM) and no others. None: those of the system.",
        ),
        key("certificate", PATH, Absent("none is shown"), "A certificate to show when asked for one (PEM)."),
        key("key", PATH, Absent("see `certificate`"), "Its key (PEM)."),
        key("preset", PRESET, Is("\"intermediate\""), "Versions and suites, by Mozilla's names."),
        key("insecure", Kind::Bool, Is("false"), "Verify nothing. For tests."),
    ],
);

/// `health = {…}`
pub static HEALTH: Section = section(
    "upstream.health",
    "Active checks.",
    &[
        key("path", Kind::Text("a path"), Is("\"/\""), "What is asked for."),
        key(
            "statuses",
            Kind::Code("status codes such as `\"200-399\"`"),
            Is("\"200-399\""),
            "What a healthy server answers.",
        ),
        key("interval", time(HOUR), Is("\"5s\""), "Between two checks."),
        key("timeout", time(HOUR), Is("\"2s\""), "For one check."),
        key("rise", integer(1, 100), Is("2"), "Successes in a row that bring a server back."),
        key("fall", integer(1, 100), Is("3"), "Failures in a row that take it out."),
    ],
);

/// `ejection = {…}`
pub static EJECTION: Section = section(
    "upstream.ejection",
    "Passive checks: by how requests fare.",
    &[
        key("failures", integer(0, 1000), Is("3"), "Failures in a row. 0: never."),
        key("first", time(HOUR), Is("\"1s\""), "For how long at first; twice as long each time."),
        key("longest", time(24 * HOUR), Is("\"30s\""), "For how long at most."),
        key(
            "slow_start",
            Kind::Millis { min: 0, max: HOUR },
            Is("\"0ms\""),
            "Until a server that came back gets its full share.",
        ),
    ],
);

/// `timeouts = {…}`
pub static UPSTREAM_TIMEOUTS: Section = section(
    "upstream.timeouts",
    "How long things may take.",
    &[
        key("resolve", time(HOUR), Is("\"5s\""), "To find a server's address."),
        key("connect", time(HOUR), Is("\"10s\""), "To connect, all addresses together."),
        key("tls", time(HOUR), Is("\"10s\""), "For the TLS handshake."),
        key("queue", time(HOUR), Is("\"5s\""), "For a connection to become free. Beyond: 503."),
        key("head", time(24 * HOUR), Is("\"60s\""), "From the request's last octet to the response's head."),
        key("idle", time(24 * HOUR), Is("\"60s\""), "Without any progress."),
        key("continue", time(HOUR), Is("\"1s\""), "For a 100 before content is sent anyway."),
        key("tunnel_idle", time(24 * HOUR), Is("\"10m\""), "A tunnel without an octet."),
        key("tunnel_half_closed", time(24 * HOUR), Is("\"60s\""), "A tunnel of which one side has ended."),
    ],
);

/// `connections = {…}`
pub static CONNECTIONS: Section = section(
    "upstream.connections",
    "Connections to servers, kept and used again.",
    &[
        key("per_server_max", integer(1, 1_000_000), Is("1024"), "To one server; more requests wait."),
        key("idle_per_server_max", integer(0, 1_000_000), Is("256"), "Kept to one server."),
        key(
            "idle_timeout",
            time(24 * HOUR),
            Is("\"60s\""),
            "How long one is kept, unless the server says less.",
        ),
        key("requests_max", integer(0, u32::MAX as u64), Is("0"), "Requests on one. 0: no limit."),
    ],
);

/// `access = {…}`
pub static ACCESS: Section = section(
    "access",
    "Addresses and credentials. Without `satisfy = \"any\"` a request must pass every one that is given.",
    &[
        key("allow", Kind::List(&NETWORK), Is("[]"), "Addresses that may come in. None: all."),
        key("deny", Kind::List(&NETWORK), Is("[]"), "Addresses that may not, even if `allow` has them. 403."),
        key(
            "basic",
            Kind::Section(&BASIC),
            Absent("no password is asked for"),
            "User name and password by the Basic scheme (RFC 7617). Use it over TLS only.",
        ),
        key(
            "digest",
            Kind::Section(&DIGEST),
            Absent("no password is asked for"),
            "User name and password by the Digest scheme (RFC 7616).",
        ),
        key(
            "satisfy",
            Kind::Choice(&[
                ("all", "address and password"),
                ("any", "an allowed address, or else a password"),
            ]),
            Is("\"all\""),
            "Whether both the address and the password count.",
        ),
    ],
);

/// `basic = {…}`
pub static BASIC: Section = section(
    "access.basic",
    "The Basic scheme.",
    &[
        key("realm", ANY_TEXT, Is("\"restricted\""), "What the user is asked a password for."),
        key(
            "file",
            PATH,
            Absent("see `users`"),
            "An htpasswd file: `user:hash` lines with bcrypt, argon2, SHA-crypt (`$5$`, `$6$`) or apr1 hashes. Read anew when it changes.",
        ),
        key(
            "users",
            Kind::Map(&Kind::Secret),
            Is("{}"),
            "Users with the hashes of their passwords, in the configuration itself.",
        ),
    ],
);

/// `digest = {…}`
pub static DIGEST: Section = section(
    "access.digest",
    "The Digest scheme: the password never crosses the wire, and a listener cannot use what he heard.",
    &[
        key(
            "realm",
            ANY_TEXT,
            Is("\"restricted\""),
            "What the user is asked a password for. It is part of every hash in the file.",
        ),
        key(
            "file",
            PATH,
            Required,
            "An htdigest file: `user:realm:hash` lines, the hash of `user:realm:password` by MD5 (32 digits) or SHA-256 (64). Read anew when it changes.",
        ),
        key(
            "nonce_lifetime",
            Kind::Millis { min: 1000, max: 24 * HOUR },
            Is("\"5m\""),
            "How long a nonce holds before the client must ask for a new one.",
        ),
        key(
            "md5",
            Kind::Bool,
            Is("true"),
            "Offer MD5 beside SHA-256, for browsers that know nothing better.",
        ),
    ],
);

/// `rate = {…}`
pub static RATE: Section = section(
    "rate",
    "A limit for each client address (IPv6: each /64 network). Beyond: 429 with Retry-After.",
    &[
        key("requests", integer(1, 1_000_000_000), Required, "How many requests …"),
        key("per", time(24 * HOUR), Is("\"1s\""), "… in how long."),
        key(
            "burst",
            integer(1, 1_000_000),
            Absent("the same as `requests`"),
            "How many may come at once before the rate counts.",
        ),
        key(
            "addresses_max",
            integer(16, 100_000_000),
            Is("65536"),
            "Addresses remembered; the longest quiet one is forgotten first.",
        ),
    ],
);

/// `cors = {…}`
pub static CORS: Section = section(
    "cors",
    "Cross-origin resource sharing (the Fetch standard). Preflight requests are answered by the server itself.",
    &[
        key(
            "origins",
            Kind::List(&Kind::Text("an origin such as `\"https://app.example\"`, or `\"*\"`")),
            Required,
            "Whose scripts may read responses.",
        ),
        key(
            "methods",
            Kind::List(&METHOD),
            Is("[\"GET\", \"HEAD\", \"POST\"]"),
            "Methods that a preflight grants.",
        ),
        key("request_fields", Kind::List(&FIELD_NAME), Is("[]"), "Request fields that a preflight grants."),
        key("expose", Kind::List(&FIELD_NAME), Is("[]"), "Response fields that scripts may read."),
        key(
            "credentials",
            Kind::Bool,
            Is("false"),
            "Cookies and passwords may be sent along. Not with `\"*\"`.",
        ),
        key("max_age", time(24 * HOUR), Is("\"10m\""), "How long a preflight holds."),
    ],
);

/// `fields = {…}`
pub static FIELDS: Section = section(
    "fields",
    "Changes to the fields of responses, in this order: removed, set, added. Fields of framing and of the connection (Content-Length, Transfer-Encoding, Connection, Date …) are not for a configuration to change.",
    &[
        key("remove", Kind::List(&FIELD_NAME), Is("[]"), "Fields to take away."),
        key("set", Kind::Map(&FIELD_VALUE), Is("{}"), "Fields to set, in place of what the response has."),
        key("add", Kind::Map(&Kind::List(&FIELD_VALUE)), Is("{}"), "Fields to add to what the response has."),
        key("on_errors", Kind::Bool, Is("true"), "Do it for responses of 400 and above too."),
    ],
);

/// `[[cache_rule]]`
pub static CACHE_RULE: Section = section(
    "cache_rule",
    "Cache-Control for responses of some media types that have none yet.",
    &[
        key(
            "types",
            Kind::List(&Kind::Text("a media type such as `\"image/*\"`")),
            Required,
            "Which media types.",
        ),
        key("value", FIELD_VALUE, Required, "The value of Cache-Control."),
        key(
            "expires",
            Kind::Bool,
            Is("false"),
            "Send Expires too, from the value's max-age, for caches of HTTP/1.0.",
        ),
    ],
);

/// `compress = {…}`
pub static COMPRESS: Section = section(
    "compress",
    "Dynamic compression, chosen by Accept-Encoding. What is compressed already, small, partial or marked `no-transform` is left alone; every coding has its own ETag and Vary is set.",
    &[
        key(
            "codings",
            Kind::List(&Kind::Choice(&[
                ("br", "brotli"),
                ("zstd", "Zstandard"),
                ("gzip", "what everybody understands"),
            ])),
            Is("[\"zstd\", \"br\", \"gzip\"]"),
            "Codings offered; of those a client likes equally, the first.",
        ),
        key("bytes_min", bytes(0, 16 * MIB), Is("\"1KiB\""), "Content shorter than this is left alone."),
        key(
            "types",
            Kind::List(&Kind::Text("a media type such as `\"text/*\"`")),
            Is(
                "[\"text/*\", \"application/json\", \"application/*+json\", \"application/javascript\", \"application/xml\", \"application/*+xml\", \"application/wasm\", \"image/svg+xml\", \"font/ttf\", \"font/otf\", \"application/vnd.ms-fontobject\"]",
            ),
            "Media types that are compressed.",
        ),
        key("gzip_level", integer(1, 9), Is("6"), "Effort of gzip."),
        key("br_level", integer(0, 11), Is("5"), "Effort of brotli."),
        key("zstd_level", integer(1, 19), Is("6"), "Effort of Zstandard."),
        key(
            "memory_bytes_max",
            bytes(0, 64 << 30),
            Is("\"32MiB\""),
            "Memory for results, so that a hot file is compressed once.",
        ),
        key(
            "credentialed",
            Kind::Bool,
            Is("false"),
            "Compress also responses to requests with cookies or credentials. Off, because who can make a victim's browser ask and sees the length can guess secrets in the response (BREACH).",
        ),
    ],
);

/// `[[error_page]]`
pub static ERROR_PAGE: Section = section(
    "error_page",
    "A page for people. Programs (by Accept) still get `application/problem+json`.",
    &[
        key(
            "status",
            Kind::List(&Kind::Code("a status code, or a class such as `\"5xx\"`")),
            Required,
            "For which errors.",
        ),
        key("file", PATH, Absent("see `template`"), "A file, sent as it is."),
        key(
            "template",
            PATH,
            Absent("see `file`"),
            "A minijinja template; it may use `status`, `phrase`, `detail` and `request_id`.",
        ),
    ],
);

/// What other servers call things.
const FOREIGN: &[(&str, &str)] = &[
    ("listen", "listener"),
    ("bind", "address"),
    ("server", "site"),
    ("server_name", "names"),
    ("server_names", "names"),
    ("host", "names"),
    ("hostname", "names"),
    ("domain", "names"),
    ("domains", "names"),
    ("location", "route"),
    ("redirs", "redirects"),
    ("redir", "redirect"),
    ("try_files", "try"),
    ("alias", "strip_prefix"),
    ("expires", "cache_rule"),
    ("regex", "pattern"),
    ("map", "redirects"),
    ("log_format", "format"),
    ("gzip_static", "precompressed"),
    ("allow_methods", "methods"),
    ("default_server", "default"),
    ("virtual_host", "site"),
    ("vhost", "site"),
    ("document_root", "root"),
    ("dir", "root"),
    ("directory", "root"),
    ("worker_processes", "workers"),
    ("threads", "workers"),
    ("gzip", "compress"),
    ("encode", "compress"),
    ("compression", "compress"),
    ("header", "fields"),
    ("headers", "fields"),
    ("add_header", "fields"),
    ("ssl_certificate", "certificate"),
    ("ssl_certificate_key", "key"),
    ("ssl", "tls"),
    ("ssl_protocols", "preset"),
    ("ssl_ciphers", "preset"),
    ("protocols", "preset"),
    ("ciphers", "preset"),
    ("tls_version", "preset"),
    ("min_version", "preset"),
    ("tls13_only", "preset"),
    ("ssl_stapling", "ocsp"),
    ("ssl_stapling_file", "ocsp"),
    ("return", "fixed"),
    ("proxy_pass", "proxy"),
    ("reverse_proxy", "proxy"),
    ("backend", "upstream"),
    ("respond", "fixed"),
    ("rewrite_to", "rewrite"),
    ("error_document", "error_page"),
    ("auth", "access"),
    ("auth_basic", "access"),
    ("basicauth", "basic"),
    ("basic_auth", "basic"),
    ("ratelimit", "rate"),
    ("limit_req", "rate"),
    ("keepalive_timeout", "idle_timeout"),
    ("client_max_body_size", "content_bytes_max"),
    ("max_body_size", "content_bytes_max"),
    ("access_log", "access"),
    ("autoindex", "listing"),
    ("browse", "listing"),
    ("body", "text"),
    ("code", "status"),
    ("url", "to"),
    ("target", "to"),
    ("location_path", "path"),
    ("prefix", "path"),
    ("expose_headers", "expose"),
    ("allow_headers", "request_fields"),
    ("allow_origins", "origins"),
    ("min_length", "bytes_min"),
    ("password_file", "file"),
    ("htpasswd", "file"),
];

/// What we call what others call by this name.
pub fn foreign_name(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    FOREIGN.iter().find(|(foreign, _)| *foreign == name).map(|(_, ours)| *ours)
}

/// The sections that have a key of this name, in backquotes.
pub fn sections_with(name: &str) -> Vec<String> {
    let mut sections = Vec::new();
    each_section(&ROOT, &mut sections);
    let mut found: Vec<String> = sections
        .into_iter()
        .filter(|section| section.key(name).is_some())
        .map(|section| {
            if section.name.is_empty() { "the top of the file".into() } else { format!("`{}`", section.name) }
        })
        .collect();
    // A key that stands everywhere says nothing.
    if found.len() > 4 {
        found.clear();
    }
    found
}
