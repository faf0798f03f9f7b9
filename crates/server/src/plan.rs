//! The configuration as the server uses it: checked, complete, immutable. Every worker reads the same one; a reload
//! makes another. Nothing in it may be absent that has a default, and nothing in it waits or does I/O.
//!
//! Text is turned into a plan by the binary (`eleven::config`); a Rust program may build one itself.

use crate::access_log;
use crate::admin::AdminPlan;
use crate::after::compress::Compress;
use crate::after::error_page::ErrorPages;
use crate::after::fields::FieldRules;
use crate::apps::AppSettings;
use crate::apps::fastcgi::FastCgiSettings;
use crate::before::access::Addresses;
use crate::before::auth::Authentication;
use crate::before::client::TrustedProxies;
use crate::before::cors::Cors;
use crate::before::limit::Limiter;
use crate::before::redirect::Template;
use crate::before::trace::TracePlan;
use crate::files::FilesOptions;
use crate::proxy::GatewayPlan;
use crate::proxy::open::OpenPlan;
use crate::route::RouteMap;
use crate::site::SiteMap;
use crate::worker::Settings;
use bytes::Bytes;
use eleven_net::file::Options as RootOptions;
use eleven_net::listener::ListenAddr;
use eleven_net::tls_config::ServerSettings;
use eleven_semantics::Status;
use eleven_semantics::uri::Uri;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that decides what the server does.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to listen on.
    pub listeners: Vec<Listener>,
    /// Threads that serve; 0 for one for each processor.
    pub workers: usize,
    /// How the process runs, beside what it serves.
    pub process: ProcessPlan,
    /// Certificates ordered from an authority.
    pub acme: Option<AcmePlan>,
    /// Limits and deadlines of connections.
    pub settings: Settings,
    /// Connections in all; 0 for as many as the open files allow.
    pub connections_max: usize,
    /// Connections per client address; 0 for no limit.
    pub connections_per_address_max: u32,
    /// Whose word about the client is believed.
    pub trusted_proxies: TrustedProxies,
    /// The access log, if there is one.
    pub access_log: Option<AccessLogPlan>,
    /// What is done about the identity of requests.
    pub trace: TracePlan,
    /// Who is told of sampled traces, if anybody is.
    pub otlp: Option<OtlpPlan>,
    /// The admin listener, if there is one.
    pub admin: Option<AdminPlan>,
    /// The Server field of responses; empty for none.
    pub server_field: Box<str>,
    /// The store of routes with a cache.
    pub cache: Option<CachePlan>,
    /// Which site answers for a name, where the listener has no sites of its own.
    pub names: SiteMap<Arc<Site>>,
    /// The same for listeners that have sites of their own; sites that answer everywhere are among them.
    pub names_by_listener: Vec<(ListenAddr, SiteMap<Arc<Site>>)>,
    /// Every site, as written.
    pub sites: Vec<Arc<Site>>,
}

/// How the process runs, beside what it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessPlan {
    /// Where its number is written.
    pub pid_file: Option<PathBuf>,
    /// How long exchanges and tunnels may go on after another process took over.
    pub drain_timeout_ms: u64,
    /// Whom a process that was started as root becomes.
    pub user: Option<Box<str>>,
    /// The group it belongs to then.
    pub group: Option<Box<str>>,
    /// Workers reach files only where the plan serves or stores some.
    pub sandbox: bool,
}

/// A collector of traces (OTLP over HTTP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpPlan {
    /// Where spans are sent.
    pub endpoint: Uri,
    /// What this server is called there.
    pub service_name: Box<str>,
}

/// Certificates that are ordered from an authority (ACME, RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmePlan {
    /// The authority's directory, a URL.
    pub directory: String,
    /// Where it reaches the operator, URLs such as `mailto:…`.
    pub contact: Vec<Box<str>>,
    /// Where certificates and the account are stored.
    pub store: PathBuf,
    /// Whom to trust as the authority's server, instead of the system's roots.
    pub ca: Option<PathBuf>,
    /// Prove names by TLS-ALPN-01 instead of HTTP-01.
    pub tls_alpn: bool,
    /// What is ordered.
    pub certificates: Vec<AcmeCertificate>,
}

/// A certificate to be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeCertificate {
    /// Its names.
    pub names: Vec<String>,
    /// The file of the certificate, its chain and its key.
    pub file: PathBuf,
}

/// An address to listen on.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Where.
    pub address: ListenAddr,
    /// Speak TLS there.
    pub tls: Option<ListenerTls>,
    /// Connections begin with a header of the PROXY protocol, and only trusted proxies may connect.
    pub proxy_protocol: bool,
}

/// TLS of a listener.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// Certificates and what is asked of clients.
    pub settings: ServerSettings,
    /// Make a certificate on the spot, for development.
    pub self_signed: bool,
}

/// Where the access log goes, and how its lines look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogPlan {
    /// A file, or standard output.
    pub path: Option<PathBuf>,
    /// The format.
    pub format: access_log::Format,
}

/// The store of stored responses, shared by all routes that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePlan {
    /// Octets in memory.
    pub memory_bytes_max: u64,
    /// A directory to store in as well, and octets in it.
    pub directory: Option<(PathBuf, u64)>,
}

/// How a route uses the store: under which rules, and what it says of it. As the RFC has it if nothing is changed.
#[derive(Debug, Clone, Default)]
pub struct CacheRules {
    /// What is stored, under which keys, and for how long.
    pub config: eleven_cache::Config,
    /// GET goes past the store.
    pub bypass_get: bool,
    /// HEAD goes past the store.
    pub bypass_head: bool,
    /// Our name in Cache-Status, if that is sent (RFC 9211).
    pub cache_status: Option<Box<str>>,
    /// Send X-Cache.
    pub x_cache: bool,
}

/// A site.
#[derive(Debug)]
pub struct Site {
    /// Its first name, or `default`: for logs.
    pub name: Arc<str>,
    /// Host and port as redirections name it; empty if the site has no name of its own.
    pub host: Box<str>,
    /// Plain requests are redirected to `https` (308).
    pub https_only: bool,
    /// The file of its own certificate, if it has one.
    pub certificate: Option<PathBuf>,
    /// Its routes.
    pub routes: RouteMap<Arc<Route>>,
    /// What holds where no route does: for 404 and 405.
    pub policy: Policy,
    /// Where its exchanges are logged.
    pub log: SiteLogPlan,
}

/// Where the exchanges of a site or a route are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SiteLogPlan {
    /// With those of the others.
    #[default]
    Main,
    /// Nowhere.
    Off,
    /// In a log of its own, which other sites may share.
    Own(AccessLogPlan),
}

/// A route: what is done before and after the handler, and which handler.
#[derive(Debug)]
pub struct Route {
    /// What it takes, for logs: `/api/`.
    pub name: Box<str>,
    /// Its number in the plan; handlers are found by it.
    pub index: usize,
    /// The handler sees the path without the route's prefix.
    pub strip_prefix: bool,
    /// Another path for the handler.
    pub rewrite: Option<Template>,
    /// Paths for the handler to try in turn where it has nothing (404).
    pub tries: Box<[Template]>,
    /// What answers.
    pub handler: HandlerPlan,
    /// Its responses are stored, under these rules.
    pub cache: Option<Arc<CacheRules>>,
    /// What is done before and after.
    pub policy: Policy,
    /// Where its exchanges are logged.
    pub log: SiteLogPlan,
}

/// What is done before and after a handler.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Which addresses may come in.
    pub addresses: Addresses,
    /// Who must say a password.
    pub authentication: Authentication,
    /// An allowed address needs no password.
    pub satisfy_any: bool,
    /// How often one client may ask.
    pub rate: Option<Arc<Limiter>>,
    /// Requests that its handler may work on at once, in the whole process; `None`: among those of all routes, 0:
    /// any number.
    pub working_max: Option<usize>,
    /// Size of request content.
    pub content_bytes_max: u64,
    /// Which origins' scripts may read.
    pub cors: Option<Arc<Cors>>,
    /// Values of Link to send ahead in a 103.
    pub early_hints: Arc<[Box<str>]>,
    /// Changes to the fields of responses.
    pub fields: Arc<FieldRules>,
    /// Content codings made on the way.
    pub compress: Option<Arc<Compress>>,
    /// Own pages for errors.
    pub error_pages: Arc<ErrorPages>,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            addresses: Addresses::default(),
            authentication: Authentication::default(),
            satisfy_any: false,
            rate: None,
            working_max: None,
            content_bytes_max: u64::MAX,
            cors: None,
            early_hints: Arc::default(),
            fields: Arc::default(),
            compress: None,
            error_pages: Arc::default(),
        }
    }
}

/// What answers, described; workers make their handlers from it.
#[derive(Debug)]
pub enum HandlerPlan {
    /// Files of a directory.
    Files(FilesPlan),
    /// A redirection.
    Redirect(Status, Template),
    /// Always the same.
    Fixed(FixedPlan),
    /// The diagnostic origin server.
    Echo,
    /// Other servers. Routes to the same group share one plan.
    Gateway(Arc<GatewayPlan>),
    /// The servers that requests name.
    Forward(Arc<OpenPlan>),
    /// A Python application.
    Application(Arc<AppSettings>),
    /// Scripts behind a FastCGI server, looked for in this directory.
    FastCgi(Arc<FastCgiSettings>, PathBuf),
}

impl HandlerPlan {
    /// Its kind, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            HandlerPlan::Files(_) => "files",
            HandlerPlan::Redirect(..) => "redirect",
            HandlerPlan::Fixed(_) => "fixed",
            HandlerPlan::Echo => "echo",
            HandlerPlan::Gateway(_) => "proxy",
            HandlerPlan::Forward(_) => "forward",
            HandlerPlan::Application(_) => "application",
            HandlerPlan::FastCgi(..) => "fastcgi",
        }
    }

    /// Whether what it says of an error is this server's own wording, which a site may replace by its own.
    pub fn is_ours(&self) -> bool {
        match self {
            HandlerPlan::Files(_) | HandlerPlan::Redirect(..) => true,
            HandlerPlan::Fixed(fixed) => fixed.content.is_empty(),
            HandlerPlan::Echo | HandlerPlan::Gateway(_) | HandlerPlan::Forward(_) => false,
            HandlerPlan::Application(_) | HandlerPlan::FastCgi(..) => false,
        }
    }
}

/// Files of a directory.
#[derive(Debug, Clone)]
pub struct FilesPlan {
    /// The directory.
    pub root: PathBuf,
    /// What may be reached beneath it.
    pub access: RootOptions,
    /// How it is served.
    pub options: FilesOptions,
}

/// A response that is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedPlan {
    /// Its status.
    pub status: Status,
    /// Its content; empty with an error status: the error page.
    pub content: Bytes,
    /// The media type of the content.
    pub media_type: Box<str>,
    /// The value of Retry-After, in seconds.
    pub retry_after_s: Option<u64>,
    /// The protocols of Upgrade, as in the field; empty for none. A 426 has some (9110-15.5.22-01).
    pub upgrade: Box<str>,
}

impl Plan {
    /// What of a plan that takes the place of this one, the one a process was started with, cannot change in it.
    pub fn only_at_start(&self, next: &Plan) -> Vec<&'static str> {
        let mut what = Vec::new();
        if self.workers != next.workers {
            what.push("the number of workers");
        }
        if self.process != next.process {
            what.push("`user`, `group`, `sandbox`, `pid_file` or `drain_timeout`");
        }
        if self.otlp != next.otlp {
            what.push("`otlp` or `service_name`");
        }
        what
    }

    /// The sites that answer at a listener.
    pub fn names_of(&self, listener: Option<&ListenAddr>) -> &SiteMap<Arc<Site>> {
        let own = || self.names_by_listener.iter().find(|(address, _)| Some(address) == listener);
        // Mostly there are none.
        if self.names_by_listener.is_empty() {
            &self.names
        } else {
            own().map_or(&self.names, |(_, names)| names)
        }
    }

    /// Every route, by its index.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.sites.iter().flat_map(|site| site.routes.iter().map(|(_, route)| route))
    }
}
