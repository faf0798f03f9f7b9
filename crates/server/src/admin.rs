//! The admin listener: what the server tells about itself, and what it can be told, over a socket of its own that the
//! public never reaches. It is an ordinary server of one worker with this handler, so that it answers while the others
//! are busy, and while they are finishing.
//!
//! Who may come in is decided by [`Access`]: a Unix socket or a loopback address needs nothing, any other address a
//! token (RFC 6750 §2.1). Whatever the address, a Host that is a stranger's name is refused (DNS rebinding), as is a
//! request from a page of another origin; no CORS field is ever sent. What the figures mean is `metrics`'.

mod access;
mod page;

pub use access::{Access, Denied, Exposed, Token};

use crate::handler::{Handled, Handler};
use crate::metrics::Metrics;
use crate::metrics::exposition::Dialect;
use crate::refusal::refusal;
use crate::request::Request;
use crate::response::Response;
use crate::serve::{Options, Running, Sockets, StartError, start_with};
use crate::service::Service;
use crate::worker::{Settings, Worker};
use eleven_net::handover::Inherited;
use eleven_net::listener::ListenAddr;
use eleven_semantics::names::Known;
use eleven_semantics::{Method, Status};
use std::rc::Rc;
use std::sync::Arc;

/// Where the admin listener is when nothing else is said.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:8011";

/// Connections at a time: some pages, scrapers and health checks.
const CONNECTIONS_MAX: usize = 128;
/// Content of a request.
const CONTENT_BYTES_MAX: u64 = 1 << 20;
/// How long a page that is being sent may delay the end of the process.
const STOP_TIMEOUT_MS: u64 = 1_000;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The admin listener, as configured.
#[derive(Debug, Clone)]
pub struct AdminPlan {
    /// Where it listens.
    pub address: ListenAddr,
    /// Who may come in.
    pub access: Access,
}

impl AdminPlan {
    /// A listener on this address.
    ///
    /// # Errors
    /// If others than this machine's programs can reach the address, and there is no token.
    pub fn new(
        address: ListenAddr,
        token: Option<Token>,
        hosts: Vec<Box<str>>,
    ) -> Result<AdminPlan, Exposed> {
        let access = Access::new(&address, token, hosts)?;
        Ok(AdminPlan { address, access })
    }
}

/// Answers what stands beneath a path: the way for other parts of the server to be told something. It is called on the
/// admin worker's thread, only after [`Access`] let the request in.
pub type Mounted = Arc<dyn Fn(&mut Request) -> Handled + Send + Sync>;

/// What stands beneath which path, besides the admin listener's own. The longest prefix that fits answers.
#[derive(Clone, Default)]
pub struct Mounts(Vec<(&'static str, Mounted)>);

impl Mounts {
    /// Lets a function answer what begins with this path, which ends with a slash.
    pub fn add(&mut self, prefix: &'static str, answer: Mounted) {
        self.0.push((prefix, answer));
        self.0.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    fn find(&self, path: &[u8]) -> Option<&Mounted> {
        self.0.iter().find(|(prefix, _)| path.starts_with(prefix.as_bytes())).map(|(_, answer)| answer)
    }
}

impl std::fmt::Debug for Mounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(prefix, _)| prefix)).finish()
    }
}

/// The handler.
#[derive(Debug)]
pub struct Admin {
    access: Access,
    metrics: Arc<Metrics>,
    mounts: Mounts,
}

/// What the admin listener has at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Page,
    Events,
    Health,
    Metrics,
    Status,
}

/// Its own places.
const PLACES: [(&str, Place); 5] = [
    ("/", Place::Page),
    ("/events", Place::Events),
    ("/health", Place::Health),
    ("/metrics", Place::Metrics),
    ("/status.json", Place::Status),
];

impl Admin {
    /// Answers a request.
    pub fn handle(&self, request: &mut Request, worker: &Worker) -> Handled {
        let path = request.path().map(<[u8]>::to_vec).unwrap_or_default();
        let place = PLACES.iter().find(|(own, _)| own.as_bytes() == path).map(|(_, place)| *place);
        // Whether the server runs is no secret to whoever can connect; health checks seldom know tokens. The page has
        // no figures in it, and is where a person gives the token.
        let open = matches!(place, Some(Place::Health | Place::Page));
        if let Err(denied) = self.access.judge(request, open) {
            return denial(denied).into();
        }
        let mut handled = match (place, self.mounts.find(&path)) {
            (Some(place), _) => self.own(place, request, worker),
            (None, Some(mounted)) => return mounted(request),
            (None, None) => refusal(Status::NOT_FOUND, "The admin listener has nothing there.").into(),
        };
        if let Handled::Ready(response) = &mut handled {
            harden(response);
        }
        handled
    }

    fn own(&self, place: Place, request: &Request, worker: &Worker) -> Handled {
        if !matches!(request.head.method, Method::Get | Method::Head) {
            let mut response = refusal(Status::METHOD_NOT_ALLOWED, "This can only be read.");
            response.add(Known::Allow, "GET, HEAD");
            return response.into();
        }
        match place {
            Place::Page => page::page().into(),
            Place::Events if request.head.method == Method::Head => Response::new(Status::OK).into(),
            Place::Events => page::events(&self.metrics, worker.ledger()).into(),
            Place::Health => self.health().into(),
            Place::Metrics => {
                let dialect = Dialect::of(&request.head.fields);
                Response::text(Status::OK, dialect.media_type(), self.metrics.exposition(dialect)).into()
            }
            Place::Status => Response::text(Status::OK, JSON, self.metrics.status().to_string()).into(),
        }
    }

    /// 200 while the server takes requests, 503 once it is finishing: whoever sends it traffic should stop.
    fn health(&self) -> Response {
        if self.metrics.is_draining() {
            Response::text(Status::SERVICE_UNAVAILABLE, TEXT, "draining\n")
        } else {
            Response::text(Status::OK, TEXT, "ok\n")
        }
    }
}

fn denial(denied: Denied) -> Response {
    let status = match denied {
        Denied::NoToken | Denied::WrongToken => Status::UNAUTHORIZED,
        Denied::Host => Status::MISDIRECTED_REQUEST,
        Denied::OtherOrigin => Status::FORBIDDEN,
    };
    let mut response = refusal(status, denied.reason());
    if status == Status::UNAUTHORIZED {
        // RFC 6750 §3.
        let challenge = match denied {
            Denied::WrongToken => "Bearer realm=\"eleven admin\", error=\"invalid_token\"",
            _ => "Bearer realm=\"eleven admin\"",
        };
        response.add(Known::WwwAuthenticate, challenge);
    }
    harden(&mut response);
    response
}

/// Figures are of the moment and of nobody else's page.
fn harden(response: &mut Response) {
    response.add(Known::CacheControl, "no-store");
    response.add("X-Content-Type-Options", "nosniff");
    response.add("Cross-Origin-Resource-Policy", "same-origin");
    response.add("Referrer-Policy", "no-referrer");
}

/// Starts the admin listener of a server.
///
/// # Errors
/// If its address cannot be listened on.
pub fn start(
    plan: &AdminPlan,
    metrics: Arc<Metrics>,
    mounts: Mounts,
    inherited: &Inherited,
) -> Result<Running, StartError> {
    let mut settings = Settings::default();
    settings.limits.content_bytes_max = CONTENT_BYTES_MAX;
    settings.timeouts.stop_timeout_ms = STOP_TIMEOUT_MS;
    let access = plan.access.clone();
    let service = move || {
        tokio::task::spawn_local(Metrics::keep_history(Arc::downgrade(&metrics)));
        let admin = Admin { access: access.clone(), metrics: metrics.clone(), mounts: mounts.clone() };
        Service::single(Handler::Admin(Rc::new(admin)))
    };
    let listen = vec![plan.address.clone().into()];
    let sockets = Sockets::open(&listen, 1, inherited)?;
    let options = Options {
        listen,
        workers: 1,
        settings,
        connections_max: CONNECTIONS_MAX,
        connections_per_address_max: 0,
        log: None,
        metrics: Arc::default(),
        service: Arc::new(service),
    };
    let running = start_with(sockets, options)?;
    if let ListenAddr::Unix(path) = &plan.address {
        use std::os::unix::fs::PermissionsExt;
        // Whoever may open the socket may look: its owner, unless somebody widens it.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(running)
}

#[cfg(test)]
mod tests;
