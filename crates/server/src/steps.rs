//! The way of a request through a plan: site, route, the steps before the handler, the handler, the steps after it. The
//! order is a question of security (passwords before content, the client's address before its rate), so it stands here
//! on one screen: `before` and `after`. What a step does is in its own file.

use crate::after::compress::Asked;
use crate::after::error_page::Reading;
use crate::apps::Application;
use crate::apps::fastcgi::{FastCgi, FastCgiSettings};
use crate::before::access::AddressVerdict;
use crate::before::auth::{Denied, Job, Judgement, Outcome};
use crate::before::cors::Cors;
use crate::before::redirect::{Place, Template};
use crate::before::trace::{Ids, REQUEST_ID, TracePlan};
use crate::files::{Files, FilesOptions, upload};
use crate::finished::{Circumstances, Finished};
use crate::fixed::{Fixed, Redirect};
use crate::handler::{Handled, Handler};
use crate::metrics::Sources;
use crate::overload::Limits;
use crate::overload::gated::Gate;
use crate::plan::{CachePlan, HandlerPlan, Plan, Policy, Route, Site};
use crate::proxy::caching::{Caching, CachingPlan};
use crate::proxy::open::OpenProxy;
use crate::proxy::{Gateway, GatewayPlan};
use crate::record::{Notes, SiteLog};
use crate::request::{ContentReader, Request, RequestContent};
use crate::response::{Content, Response, ResponseFields};
use crate::route::{Match, Routed};
use crate::service::Service;
use crate::site::SiteMap;
use crate::site_log::{self, Logs, SiteLogs};
use crate::spans::{SpanId, Spans};
use crate::store;
use crate::worker::Worker;
use bytes::Bytes;
use eleven_cache::Cache;
use eleven_net::clock;
use eleven_net::file::{Options as RootOptions, Root, Symlinks};
use eleven_net::pipe::{Next, Reason, pipe};
use eleven_semantics::target::{Authority, InvalidPath, push_encoded_path};
use eleven_semantics::{Fields, Known, Method, Status, Version};
use std::cell::RefCell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// Content on its way from the connection through a limit to its handler.
const LIMITED_PIPE_BYTES: usize = 16 * 1024;

/// A plan with what it needs of the system: directories opened. Made once, before anything starts.
#[derive(Debug)]
pub struct Prepared {
    plan: Arc<Plan>,
    /// The trees of file routes, by route.
    files: Vec<Option<Files>>,
    /// What applications need, by route.
    applications: Vec<Option<PreparedApplication>>,
    /// The store, and what it was made by.
    store: Option<(CachePlan, Arc<Cache>)>,
    /// How routes use it, by route.
    caches: Vec<Option<CachingPlan>>,
    /// The logs of sites that have their own.
    logs: Vec<site_log::Opened>,
    /// Whoever is told of sampled traces.
    spans: Option<Arc<Spans>>,
}

/// An application that runs, or whose directory is open.
#[derive(Debug)]
enum PreparedApplication {
    Python(Arc<Application>),
    FastCgi(Arc<FastCgiSettings>, Arc<Root>, Files),
}

/// Why a plan cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A directory cannot be opened (fault P22).
    #[error("the directory {0} cannot be opened: {1}")]
    Root(PathBuf, std::io::Error),
    /// The log of a site cannot be opened.
    #[error("cannot open the access log {0}: {1}")]
    Log(PathBuf, std::io::Error),
    /// An application cannot be prepared.
    #[error("the application {0:?} cannot be prepared: {1}")]
    Application(String, std::io::Error),
    /// An application does not start; its worker has said why.
    #[error("the application {0:?} does not start")]
    DoesNotStart(String),
    /// The directory of the cache cannot be used.
    #[error("the cache in {0} cannot be used: {1}")]
    Cache(PathBuf, String),
}

/// What is known of a route besides its plan.
fn mount(condition: &Match, route: &Route) -> Vec<u8> {
    match (&condition.path, route.strip_prefix) {
        (crate::route::PathMatch::Prefix(prefix), true) => prefix.to_vec(),
        _ => Vec::new(),
    }
}

/// Starts the applications of a plan, and waits until each is ready.
fn applications(plan: &Plan) -> Result<Vec<Option<PreparedApplication>>, PrepareError> {
    let threads = if plan.workers == 0 { eleven_net::worker::default_count() } else { plan.workers };
    let mut prepared = Vec::new();
    for (condition, route) in plan.sites.iter().flat_map(|site| site.routes.iter()) {
        if prepared.len() <= route.index {
            prepared.resize_with(route.index + 1, || None);
        }
        let mount = String::from_utf8_lossy(&mount(condition, route)).into_owned();
        prepared[route.index] = match &route.handler {
            HandlerPlan::Application(settings) => {
                let mut settings = (**settings).clone();
                settings.mount = mount;
                let (name, development) = (settings.application.clone(), settings.development);
                let application = Application::start(settings, threads)
                    .map_err(|error| PrepareError::Application(name.clone(), error))?;
                if application.wait_ready().is_err() && !development {
                    return Err(PrepareError::DoesNotStart(name));
                }
                Some(PreparedApplication::Python(application))
            }
            HandlerPlan::FastCgi(settings, path) => {
                let open = || {
                    Root::open_directory(path, Default::default())
                        .map_err(|error| PrepareError::Root(path.clone(), error))
                };
                let files = Files::new(open()?, mount.as_bytes(), FilesOptions::default());
                let settings = Arc::new(FastCgiSettings { mount, ..(**settings).clone() });
                Some(PreparedApplication::FastCgi(settings, Arc::new(open()?), files))
            }
            _ => None,
        };
    }
    Ok(prepared)
}

impl Prepared {
    /// Opens what the plan names. What was stored under the plan before stays, if the store is the same one.
    ///
    /// # Errors
    /// At the first thing that cannot be opened.
    pub fn new(plan: Plan, before: Option<&Prepared>) -> Result<Prepared, PrepareError> {
        let mut files = Vec::new();
        for (condition, route) in plan.sites.iter().flat_map(|site| site.routes.iter()) {
            if files.len() <= route.index {
                files.resize_with(route.index + 1, || None);
            }
            if let HandlerPlan::Files(tree) = &route.handler {
                let root = Root::open_directory(&tree.root, tree.access)
                    .map_err(|error| PrepareError::Root(tree.root.clone(), error))?;
                if tree.options.upload.is_some() {
                    // Hidden files are looked at, links are not followed.
                    let access = RootOptions { dot_names: true, symlinks: Symlinks::Refuse };
                    let root = Root::open_directory(&tree.root, access)
                        .map_err(|error| PrepareError::Root(tree.root.clone(), error))?;
                    upload::reap(root);
                }
                files[route.index] = Some(Files::new(root, &mount(condition, route), tree.options.clone()));
            }
        }
        let kept = before.and_then(|before| before.store.clone());
        let store = match (&plan.cache, kept) {
            (Some(wanted), Some((made_by, cache))) if is_same_store(wanted, &made_by) => {
                Some((made_by, cache))
            }
            (Some(wanted), _) => {
                let place = || wanted.directory.as_ref().map(|(path, _)| path.clone()).unwrap_or_default();
                let cache =
                    store::open(wanted).map_err(|error| PrepareError::Cache(place(), error.to_string()))?;
                Some((wanted.clone(), cache))
            }
            (None, _) => None,
        };
        let mut caches = Vec::new();
        for (_, route) in plan.sites.iter().flat_map(|site| site.routes.iter()) {
            if caches.len() <= route.index {
                caches.resize_with(route.index + 1, || None);
            }
            if let (Some((_, cache)), Some(rules)) = (&store, &route.cache) {
                caches[route.index] = Some(CachingPlan::new(cache, rules.clone()));
            }
        }
        let before = before.map_or(&[][..], |before| &before.logs);
        let logs = site_log::open(&plan, before).map_err(|(path, error)| PrepareError::Log(path, error))?;
        let applications = applications(&plan)?;
        Ok(Prepared { plan: Arc::new(plan), files, applications, store, caches, logs, spans: None })
    }

    /// The same, and whoever is told of sampled traces.
    #[must_use]
    pub fn telling(self, spans: Option<Arc<Spans>>) -> Prepared {
        Prepared { spans, ..self }
    }

    /// The store of responses, if there is one.
    pub fn store(&self) -> Option<Arc<Cache>> {
        self.store.as_ref().map(|(_, cache)| cache.clone())
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What of it has figures of its own.
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        for route in self.plan.routes() {
            if let HandlerPlan::Gateway(plan) = &route.handler
                && !sources.gateways.iter().any(|known| Arc::ptr_eq(known, plan))
            {
                sources.gateways.push(plan.clone());
            }
        }
        for application in self.applications.iter().flatten() {
            if let PreparedApplication::Python(application) = application {
                sources.applications.push(application.clone());
            }
        }
        sources.cache = self.store();
        sources.spans.clone_from(&self.spans);
        sources
    }

    /// The service of one worker; to be called on the worker's thread, inside its runtime.
    pub fn service(&self) -> Service {
        let mut places = Vec::new();
        let (mut gateways, mut gates) = (Vec::new(), Vec::new());
        let logs = Logs::new(&self.logs);
        for site in &self.plan.sites {
            for (condition, route) in site.routes.iter() {
                if places.len() <= route.index {
                    places.resize_with(route.index + 1, || None);
                }
                let handler = self.handler(site, condition, route, &mut gateways);
                let handler = handler.map(|handler| match route.policy.working_max {
                    Some(0) => handler,
                    None => handler.gated(None),
                    Some(_) => handler.gated(self.gate(route).inspect(|gate| gates.push(Rc::clone(gate)))),
                });
                let cache = self.caches.get(route.index).and_then(Option::as_ref);
                let handler = handler.map(|handler| match cache {
                    Some(cache) => Handler::Caching(Caching::new(handler, cache.clone())),
                    None => handler,
                });
                let log = logs.of(&route.log);
                places[route.index] = Some(Rc::new(Spot::new(site, Some(route), handler, log)));
            }
        }
        let seed = eleven_net::random_bytes().unwrap_or_else(|error| {
            // Without randomness nothing that needs secrets has started; ids only have to differ.
            tracing::warn!(%error, "ids of requests are drawn from the time");
            monotonic_ns().to_ne_bytes().repeat(2).try_into().unwrap_or_default()
        });
        let (plan, ids, spans) = (self.plan.clone(), Ids::new(seed), self.spans.clone());
        let finished = RefCell::default();
        Service::Planned(Rc::new(Steps { plan, places, gates, finished, ids, logs, spans }))
    }

    /// The gate of a route that has one to itself.
    fn gate(&self, route: &Route) -> Option<Rc<Gate>> {
        let workers =
            if self.plan.workers == 0 { eleven_net::worker::default_count() } else { self.plan.workers };
        let working_max = route.policy.working_max?;
        Some(Gate::new(Limits { working_max, ..self.plan.settings.overload }.share(workers)))
    }

    /// `gateways` are those of this worker so far: routes to one group share its connections and its health.
    fn handler(
        &self,
        site: &Site,
        condition: &Match,
        route: &Route,
        gateways: &mut Vec<(Arc<GatewayPlan>, Rc<Gateway>)>,
    ) -> Option<Handler> {
        Some(match &route.handler {
            HandlerPlan::Files(_) => Handler::Files(self.files[route.index].clone()?),
            HandlerPlan::Redirect(status, to) => Handler::Redirect(Redirect {
                status: *status,
                to: to.clone(),
                prefix_len: condition.path.prefix_len(),
                pattern: condition.pattern.clone(),
                host: site.host.clone(),
            }),
            HandlerPlan::Fixed(fixed) => Handler::Fixed(Fixed(fixed.clone())),
            HandlerPlan::Echo => Handler::Echo(crate::echo::Echo),
            HandlerPlan::Gateway(plan) => {
                let known = gateways.iter().find(|(other, _)| Arc::ptr_eq(other, plan));
                let gateway = known.map_or_else(|| Gateway::start(plan.clone()), |(_, known)| known.clone());
                gateways.push((plan.clone(), gateway.clone()));
                Handler::Gateway(gateway)
            }
            HandlerPlan::Forward(plan) => Handler::Forward(OpenProxy::start(plan.clone())),
            HandlerPlan::Application(_) | HandlerPlan::FastCgi(..) => {
                match self.applications.get(route.index)?.as_ref()? {
                    PreparedApplication::Python(application) => Handler::Application(application.clone()),
                    PreparedApplication::FastCgi(settings, root, files) => Handler::FastCgi(Rc::new(
                        FastCgi::new(settings.clone(), root.clone(), Some(files.clone())),
                    )),
                }
            }
        })
    }
}

/// Whether what was opened for one plan serves the other. A directory has one owner, also while the configuration is
/// read again: its sizes change with the next start.
fn is_same_store(wanted: &CachePlan, made_by: &CachePlan) -> bool {
    if wanted == made_by {
        return true;
    }
    let directory = |plan: &CachePlan| plan.directory.as_ref().map(|(path, _)| path.clone());
    let same = directory(wanted).is_some() && directory(wanted) == directory(made_by);
    if same {
        tracing::warn!("the sizes of the cache change with the next start");
    }
    same
}

/// A worker's way through a plan.
#[derive(Debug)]
pub struct Steps {
    plan: Arc<Plan>,
    /// By the index of their route.
    places: Vec<Option<Rc<Spot>>>,
    /// Those of routes that have one to themselves.
    gates: Vec<Rc<Gate>>,
    finished: RefCell<Finished>,
    ids: Ids,
    logs: Logs,
    /// Whoever is told of sampled traces.
    spans: Option<Arc<Spans>>,
}

/// What a worker keeps of a route: one pointer to it goes with a request, instead of one to each part.
#[derive(Debug)]
struct Spot {
    site: Arc<Site>,
    route: Option<Arc<Route>>,
    handler: Option<Handler>,
    /// What the record says of every exchange here.
    notes: Rc<Notes>,
}

impl Spot {
    fn new(site: &Arc<Site>, route: Option<&Arc<Route>>, handler: Option<Handler>, log: SiteLog) -> Spot {
        let kind = route.map_or("", |route| route.handler.name());
        let notes = Notes { site: Some(site.name.clone()), handler: kind, log, ..Notes::default() };
        Spot { site: site.clone(), route: route.cloned(), handler, notes: Rc::new(notes) }
    }

    fn policy(&self) -> &Policy {
        self.route.as_ref().map_or(&self.site.policy, |route| &route.policy)
    }
}

/// Where a request goes.
enum Goal<'p> {
    Route(&'p Arc<Site>, &'p Match, &'p Arc<Route>),
    /// A site, but none of its routes.
    Nowhere(&'p Arc<Site>, Nowhere),
    /// No site.
    Misdirected,
}

impl Goal<'_> {
    /// The route's, if there is one.
    fn index(&self) -> usize {
        if let Goal::Route(_, _, route) = self { route.index } else { usize::MAX }
    }
}

/// A template did not lead to a path.
struct BadPath;

enum Nowhere {
    NotFound,
    BadPath,
    MethodNotAllowed(Vec<Method>),
}

/// What the steps after the handler must know of the request, which the handler may have taken.
#[derive(Default)]
struct Trip {
    spot: Option<Rc<Spot>>,
    user: Option<Box<[u8]>>,
    /// The client, where it is another than the peer.
    client: Option<IpAddr>,
    /// What the request is called, if it is.
    request_id: Option<Box<[u8]>>,
    /// Its place in a sampled trace.
    span: Option<SpanId>,
    refused: Option<&'static str>,
    reading: Option<Reading>,
    scheme_is_secure: bool,
    /// The request's Origin, where the route has a policy for origins.
    origin: Option<Fields>,
    asked: Option<Asked>,
    /// The media type that the path suggests, for a 304 that states none.
    media_type: Option<&'static str>,
}

/// Why a request does not go on to its handler now.
enum Stop {
    Answer(Box<Response>),
    /// A password must be hashed first.
    Hash(Box<Job>),
}

impl Stop {
    fn answer(response: Response) -> Stop {
        Stop::Answer(Box::new(response))
    }
}

impl Trip {
    fn policy(&self) -> Option<&Policy> {
        self.spot.as_ref().map(|spot| spot.policy())
    }

    fn route(&self) -> Option<&Route> {
        self.spot.as_ref().and_then(|spot| spot.route.as_deref())
    }

    /// An answer that words itself later, and the reason for the record.
    fn refuse(&mut self, status: Status, why: &'static str) -> Response {
        self.refused = Some(why);
        Response::new(status)
    }
}

impl Steps {
    /// The gates that some routes have to themselves.
    pub(crate) fn gates(&self) -> &[Rc<Gate>] {
        &self.gates
    }

    /// What logs of their own sites have.
    pub(crate) fn site_logs(&self) -> SiteLogs {
        let known = self.logs.known;
        // A span needs what a line of a log needs.
        let spans = self.spans.is_some();
        SiteLogs { any: known.any || spans, timed: known.timed || spans }
    }

    /// Whether CONNECT may reach a handler.
    pub fn takes_connect(&self) -> bool {
        self.places.iter().flatten().filter_map(|spot| spot.handler.as_ref()).any(Handler::takes_connect)
    }

    /// Answers a request.
    pub fn handle(self: &Rc<Self>, request: &mut Request, worker: &Rc<Worker>) -> Handled {
        let goal = self.goal(request);
        let spot = match &goal {
            Goal::Route(_, _, route) => self.places.get(route.index).cloned().flatten(),
            Goal::Nowhere(site, _) => Some(Rc::new(Spot::new(site, None, None, self.logs.of(&site.log)))),
            Goal::Misdirected => None,
        };
        let mut trip = Trip { spot, ..Trip::default() };
        match self.before(&goal, request, &mut trip, worker) {
            Ok(()) => self.call(&goal, request, trip, worker),
            Err(Stop::Answer(mut response)) => {
                self.after(&mut response, &trip, Some(request), worker);
                Handled::Ready(*response)
            }
            Err(Stop::Hash(job)) => {
                trip.reading = Some(Reading::of(&request.head.fields));
                let (steps, worker, mut request) = (self.clone(), worker.clone(), request.take());
                Handled::later(async move {
                    let hashed = tokio::task::spawn_blocking(move || job.run()).await;
                    let outcome = hashed.unwrap_or(Err(Denied::Busy));
                    steps.resume(&mut request, trip, outcome, &worker).await
                })
            }
        }
    }

    /// Goes on after a password was hashed.
    async fn resume(
        self: Rc<Self>,
        request: &mut Request,
        mut trip: Trip,
        outcome: Outcome,
        worker: &Rc<Worker>,
    ) -> Response {
        // The plan is the same one, so this finds what was found before.
        let goal = self.goal(request);
        let passed = self
            .authenticated(outcome, request, &mut trip, worker)
            .and_then(|()| self.admitted(&goal, request, &mut trip));
        match passed {
            Ok(()) => match self.call(&goal, request, trip, worker) {
                Handled::Ready(response) => response,
                Handled::Soon(soon) => soon.into_later(0).1.await,
                Handled::Later(future) => future.await,
            },
            Err(Stop::Answer(mut response)) => {
                self.after(&mut response, &trip, Some(request), worker);
                *response
            }
            Err(Stop::Hash(_)) => Response::new(Status::INTERNAL_SERVER_ERROR),
        }
    }

    /// Site by authority, route by canonical path, method and host. A preflight goes where the request that it asks
    /// about would go.
    fn goal(&self, request: &mut Request) -> Goal<'_> {
        request.find_path();
        let (request, scheme) = (&*request, request.scheme());
        let authority = request.authority();
        let Some(site) = self.names(request).find(Some(&authority), scheme) else {
            return Goal::Misdirected;
        };
        if !self.is_rightly_secured(request, &authority, site) {
            return Goal::Misdirected;
        }
        let path = match request.found_path() {
            Ok(path) => path,
            // An encoded slash names no file and no route; the rest is no path at all (faults P01, P02, P05).
            Err(InvalidPath::EncodedSlash) => return Goal::Nowhere(site, Nowhere::NotFound),
            Err(_) => return Goal::Nowhere(site, Nowhere::BadPath),
        };
        let head = &request.head;
        let asked_about = Cors::preflight_method(&head.method, &head.fields);
        let method = asked_about.as_ref().unwrap_or(&head.method);
        match site.routes.find(path, method, Some(&authority), scheme) {
            Routed::Route(condition, route) => Goal::Route(site, condition, route),
            Routed::MethodNotAllowed(allow) => Goal::Nowhere(site, Nowhere::MethodNotAllowed(allow)),
            Routed::NotFound => Goal::Nowhere(site, Nowhere::NotFound),
        }
    }

    /// The sites of the listener that a request came by.
    fn names(&self, request: &Request) -> &SiteMap<Arc<Site>> {
        self.plan.names_of(request.peer.listener.as_deref())
    }

    /// 9110-7.4-01, 9110-7.4-02: `https` is answered over TLS only, and under a certificate only for the site that it
    /// was chosen for. Gateways that are trusted speak for others as they like, and a proxy's targets are not ours.
    fn is_rightly_secured(&self, request: &Request, authority: &Authority<'_>, site: &Arc<Site>) -> bool {
        let other_name = request.peer.server_name.as_deref().filter(|name| {
            !name.as_bytes().eq_ignore_ascii_case(authority.host) && !authority.host.is_empty()
        });
        if !request.is_short_of_tls() && other_name.is_none() {
            return true;
        }
        let of_other = other_name.map(|name| Authority { host: name.as_bytes(), port: authority.port });
        let same_certificate = of_other.as_ref().is_none_or(|other| {
            let other = self.names(request).find(Some(other), request.scheme());
            other.is_none_or(|other| other.certificate == site.certificate)
        });
        let is_forward =
            || site.routes.iter().any(|(_, route)| matches!(route.handler, HandlerPlan::Forward(_)));
        let is_trusted = || request.peer.ip().is_some_and(|peer| self.plan.trusted_proxies.contains(peer));
        (same_certificate && !request.is_short_of_tls()) || is_trusted() || is_forward()
    }

    // --- the order before the handler ---

    fn before(
        &self,
        goal: &Goal<'_>,
        request: &mut Request,
        trip: &mut Trip,
        worker: &Rc<Worker>,
    ) -> Result<(), Stop> {
        self.identify(request, trip);
        self.secure(goal, request)?;
        self.limit(request, trip)?;
        let excused = self.address(request, trip)?;
        self.preflight(request, trip)?;
        self.authenticate(excused, request, trip, worker)?;
        self.admitted(goal, request, trip)
    }

    /// What comes after the password: nothing here tells a stranger anything.
    fn admitted(&self, goal: &Goal<'_>, request: &mut Request, trip: &mut Trip) -> Result<(), Stop> {
        self.lead_nowhere(goal, trip)?;
        self.size(request, trip)?;
        self.early_hints(request, trip);
        self.codings(request, trip);
        self.rewrite(goal, request, trip)
    }

    // --- the order after the handler ---

    fn after(&self, response: &mut Response, trip: &Trip, request: Option<&Request>, worker: &Worker) {
        match Steps::repeatable(response, trip, request) {
            None => self.finish(response, trip, request, worker),
            Some((fields, content, circumstances)) => {
                let known = self.finished.borrow().get(&fields, &content, circumstances);
                if let Some((fields, content)) = known {
                    response.fields = ResponseFields::Shared(fields);
                    response.content = Content::Bytes(content);
                } else {
                    self.finish(response, trip, request, worker);
                    self.keep((fields, content), circumstances, response);
                }
            }
        }
        if let Some(id) = &trip.request_id {
            // Letters and digits, which any field may hold.
            let _ = response.fields.to_mut().set(REQUEST_ID, id);
        }
        self.note(response, trip);
    }

    fn finish(&self, response: &mut Response, trip: &Trip, request: Option<&Request>, worker: &Worker) {
        self.word(response, trip, request);
        self.change_fields(response, trip, worker);
        self.share(response, trip);
        self.compress(response, trip, request);
    }

    /// A response that becomes the same one each time: a file from memory, as it is, and nothing that looks at the
    /// time or at another field than Accept-Encoding.
    fn repeatable(
        response: &Response,
        trip: &Trip,
        request: Option<&Request>,
    ) -> Option<(Rc<Fields>, Bytes, Circumstances)> {
        let (ResponseFields::Shared(fields), Content::Bytes(content)) = (&response.fields, &response.content)
        else {
            return None;
        };
        let is_whole = response.status == Status::OK && request?.head.method == Method::Get;
        let route = trip.route().filter(|route| route.policy.fields.is_constant())?;
        let circumstances = Circumstances {
            route: route.index,
            is_secure: trip.scheme_is_secure,
            coding: trip.asked.as_ref().and_then(Asked::coding),
        };
        let is_constant = is_whole && trip.origin.is_none();
        is_constant.then(|| (fields.clone(), content.clone(), circumstances))
    }

    fn keep(&self, made_of: (Rc<Fields>, Bytes), circumstances: Circumstances, response: &mut Response) {
        // What flows was not made whole, and may not be made of the next one.
        let Content::Bytes(content) = &response.content else { return };
        let fields = match std::mem::replace(&mut response.fields, Fields::new().into()) {
            ResponseFields::Own(own) => Rc::new(own),
            ResponseFields::Shared(shared) => shared,
            stored @ ResponseFields::Stored(..) => return response.fields = stored,
        };
        response.fields = ResponseFields::Shared(fields.clone());
        self.finished.borrow_mut().keep(made_of, circumstances, fields, content.clone());
    }

    // --- before ---

    /// The client, behind proxies that are trusted.
    fn identify(&self, request: &mut Request, trip: &mut Trip) {
        request.client = self.plan.trusted_proxies.client(request.peer.ip(), &request.head.fields);
        trip.client = request.client.filter(|client| Some(*client) != request.peer.ip());
        trip.scheme_is_secure = request.scheme() == eleven_semantics::target::Scheme::Https;
        if self.plan.trace != TracePlan::default() {
            let is_trusted = request.peer.ip().is_some_and(|ip| self.plan.trusted_proxies.contains(ip));
            let marked = self.plan.trace.mark(request, is_trusted, &self.ids);
            (trip.request_id, trip.span) = (marked.request_id, marked.span.filter(|_| self.spans.is_some()));
        }
        // A script must be able to read refusals too.
        if trip.policy().is_some_and(|policy| policy.cors.is_some()) {
            let mut origin = Fields::new();
            for value in request.head.fields.all(Known::Origin) {
                let _ = origin.push(Known::Origin, value);
            }
            trip.origin = Some(origin);
        }
    }

    /// 308 to `https`, before a password could be sent in the clear.
    fn secure(&self, goal: &Goal<'_>, request: &mut Request) -> Result<(), Stop> {
        let (Goal::Route(site, ..) | Goal::Nowhere(site, _)) = goal else { return Ok(()) };
        if !site.https_only || request.scheme() == eleven_semantics::target::Scheme::Https {
            return Ok(());
        }
        static TO: OnceLock<Template> = OnceLock::new();
        let to = TO.get_or_init(|| {
            Template::parse("https://{host}{path}{query}").expect("a template that is right")
        });
        // The port of plain requests is not that of secured ones.
        let host = match site.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.into(),
            _ if site.host.is_empty() => {
                String::from_utf8_lossy(&request.authority().canonical_host()).into()
            }
            _ => site.host.clone(),
        };
        let redirect = Redirect {
            status: Status::PERMANENT_REDIRECT,
            to: to.clone(),
            prefix_len: 0,
            pattern: None,
            host,
        };
        Err(Stop::answer(redirect.handle(request)))
    }

    /// 429 (RFC 6585 §4).
    fn limit(&self, request: &Request, trip: &mut Trip) -> Result<(), Stop> {
        let limiter = trip.policy().and_then(|policy| policy.rate.clone());
        let (Some(limiter), Some(client)) = (limiter, request.client) else { return Ok(()) };
        match limiter.admit(client, monotonic_ns()) {
            Ok(()) => Ok(()),
            Err(too_many) => {
                let mut response = trip.refuse(Status::TOO_MANY_REQUESTS, "rate");
                response.add(Known::RetryAfter, too_many.retry_after_s.to_string());
                Err(Stop::answer(response))
            }
        }
    }

    /// 403 by address; whether the address makes a password needless.
    fn address(&self, request: &Request, trip: &mut Trip) -> Result<bool, Stop> {
        let Some(policy) = trip.policy() else { return Ok(true) };
        let verdict = policy.addresses.judge(request.client);
        match (policy.satisfy_any, verdict) {
            (true, AddressVerdict::Denied) => {}
            (true, verdict) => return Ok(verdict.passes()),
            (false, verdict) if verdict.passes() => return Ok(false),
            (false, _) => {}
        }
        Err(Stop::answer(trip.refuse(Status::FORBIDDEN, "address")))
    }

    /// Browsers ask without credentials, so this comes before them.
    fn preflight(&self, request: &Request, trip: &mut Trip) -> Result<(), Stop> {
        let head = &request.head;
        let Some(cors) = trip.policy().and_then(|policy| policy.cors.clone()) else { return Ok(()) };
        if Cors::is_preflight(&head.method, &head.fields) {
            let mut response = Response::new(Status::NO_CONTENT);
            response.fields = cors.answer_preflight(&head.fields).into();
            return Err(Stop::answer(response));
        }
        Ok(())
    }

    /// 401 (9110-11.4-01, 9110-15.5.2-01), or a hash to be made.
    fn authenticate(
        &self,
        excused: bool,
        request: &mut Request,
        trip: &mut Trip,
        worker: &Rc<Worker>,
    ) -> Result<(), Stop> {
        let Some(policy) = trip.policy() else { return Ok(()) };
        if excused || !policy.authentication.is_required() {
            return Ok(());
        }
        let head = &request.head;
        let judgement = policy.authentication.judge(
            &head.fields,
            head.method.as_str(),
            head.target.as_bytes(),
            worker.now().0,
        );
        match judgement {
            Judgement::Settled(outcome) => self.authenticated(outcome, request, trip, worker),
            Judgement::Hash(job) => Err(Stop::Hash(Box::new(job))),
        }
    }

    fn authenticated(
        &self,
        outcome: Outcome,
        request: &mut Request,
        trip: &mut Trip,
        worker: &Rc<Worker>,
    ) -> Result<(), Stop> {
        let denied = match outcome {
            Ok(user) => {
                request.user = Some(user.clone());
                trip.user = Some(user);
                return Ok(());
            }
            Err(denied) => denied,
        };
        let status = match denied {
            Denied::Missing | Denied::Wrong | Denied::Stale => Status::UNAUTHORIZED,
            Denied::Malformed => Status::BAD_REQUEST,
            Denied::Busy => Status::SERVICE_UNAVAILABLE,
        };
        let mut response = trip.refuse(status, denied.reason());
        if let (Status::UNAUTHORIZED, Some(policy)) = (status, trip.policy()) {
            policy.authentication.challenge(denied, worker.now().0, response.fields.to_mut());
        }
        if denied == Denied::Busy {
            response.add(Known::RetryAfter, "1");
        }
        Err(Stop::answer(response))
    }

    /// 404, 405, 400, 421: what there is no route for.
    fn lead_nowhere(&self, goal: &Goal<'_>, trip: &mut Trip) -> Result<(), Stop> {
        Err(Stop::answer(match goal {
            Goal::Route(..) => return Ok(()),
            Goal::Misdirected => trip.refuse(Status::MISDIRECTED_REQUEST, "no-such-site"),
            Goal::Nowhere(_, Nowhere::NotFound) => trip.refuse(Status::NOT_FOUND, "no-such-route"),
            Goal::Nowhere(_, Nowhere::BadPath) => trip.refuse(Status::BAD_REQUEST, "bad-path"),
            Goal::Nowhere(_, Nowhere::MethodNotAllowed(allow)) => {
                let mut response = trip.refuse(Status::METHOD_NOT_ALLOWED, "method");
                let names: Vec<&str> = allow.iter().map(Method::as_str).collect();
                response.add(Known::Allow, names.join(", "));
                response
            }
        }))
    }

    /// 413: what is announced is refused before any of it is asked for; what flows is cut at the limit.
    fn size(&self, request: &mut Request, trip: &mut Trip) -> Result<(), Stop> {
        let Some(max) = trip.policy().map(|policy| policy.content_bytes_max) else { return Ok(()) };
        let length = match &request.content {
            RequestContent::Empty => return Ok(()),
            RequestContent::Whole(bytes, _) => Some(bytes.len() as u64),
            RequestContent::Pipe(_) => request.content_length,
        };
        match length {
            Some(length) if length <= max => {}
            Some(_) => return Err(Stop::answer(trip.refuse(Status::CONTENT_TOO_LARGE, "content-too-large"))),
            None if max == u64::MAX => {}
            None => {
                if let RequestContent::Pipe(reader) = std::mem::take(&mut request.content) {
                    request.content = RequestContent::Pipe(limited(reader, max));
                }
            }
        }
        Ok(())
    }

    /// 103 (RFC 8297), for pages, to clients that understand it.
    fn early_hints(&self, request: &mut Request, trip: &Trip) {
        let Some(hints) = trip.policy().map(|policy| &policy.early_hints).filter(|hints| !hints.is_empty())
        else {
            return;
        };
        let head = &request.head;
        let page = head.method == Method::Get && Reading::of(&head.fields) == Reading::Html;
        if !page || head.version < Version::Http11 {
            return;
        }
        let mut fields = Fields::new();
        for link in hints.iter() {
            let _ = fields.push(Known::Link, link.as_bytes());
        }
        request.interim().send(Status::EARLY_HINTS, fields);
    }

    /// Reads what codings the client takes, and gives the handler the entity tags that it knows.
    fn codings(&self, request: &mut Request, trip: &mut Trip) {
        let Some(compress) = trip.policy().and_then(|policy| policy.compress.as_ref()) else { return };
        let asked = compress.ask(&request.head.method, &mut request.head.fields);
        trip.asked = Some(asked);
        if request.head.fields.contains_any(&[Known::IfNoneMatch, Known::IfModifiedSince, Known::Range]) {
            trip.media_type = request.path().ok().and_then(media_type_of);
        }
    }

    /// Another path for the handler.
    fn rewrite(&self, goal: &Goal<'_>, request: &mut Request, trip: &mut Trip) -> Result<(), Stop> {
        let Goal::Route(_, _, route) = goal else { return Ok(()) };
        // Files know where they are mounted; what others see of a path is what is left of it.
        let stripped = route.strip_prefix && !matches!(route.handler, HandlerPlan::Files(_));
        let template = match &route.rewrite {
            Some(template) => template,
            None if stripped => {
                static REST: OnceLock<Template> = OnceLock::new();
                REST.get_or_init(|| Template::parse("{path}{query}").expect("a template that is right"))
            }
            None => return Ok(()),
        };
        self.lead(template, goal, request)
            .map_err(|BadPath| Stop::answer(trip.refuse(Status::BAD_REQUEST, "rewrite")))
    }

    /// Leads a request to where a template says. Where the handler does not see the route's prefix, the template does
    /// not either.
    fn lead(&self, template: &Template, goal: &Goal<'_>, request: &mut Request) -> Result<(), BadPath> {
        let Goal::Route(site, condition, route) = goal else { return Ok(()) };
        let path = request.path().map_err(|_| BadPath)?.to_vec();
        let host = request.head.fields.get(Known::Host).unwrap_or_default();
        let mount = mount(condition, route);
        let seen = match path.strip_prefix(&mount[..]) {
            Some(b"") => b"/",
            Some(seen) => seen,
            None => &path,
        };
        let place = Place {
            path: seen,
            prefix_len: condition.path.prefix_len() - mount.len(),
            query: request.head.target.query(),
            host: if site.host.is_empty() { host } else { site.host.as_bytes() },
            scheme: request.scheme(),
            caught: condition.pattern.as_ref().map(|pattern| pattern.catch(&path)).unwrap_or_default(),
        };
        let mut target = Vec::new();
        if let HandlerPlan::Files(_) = &route.handler {
            push_encoded_path(&mut target, &mount);
        }
        target.extend_from_slice(&template.expand(&place));
        request.rewrite(&target).map_err(|_| BadPath)?;
        request.path().map(|_| ()).map_err(|_| BadPath)
    }

    // --- the handler ---

    fn call(
        self: &Rc<Self>,
        goal: &Goal<'_>,
        request: &mut Request,
        mut trip: Trip,
        worker: &Rc<Worker>,
    ) -> Handled {
        let place = self.places.get(goal.index()).and_then(Option::as_ref);
        let (Goal::Route(_, _, route), Some(handler)) = (goal, place.and_then(|spot| spot.handler.as_ref()))
        else {
            let mut response = Response::new(Status::INTERNAL_SERVER_ERROR);
            self.after(&mut response, &trip, Some(request), worker);
            return Handled::Ready(response);
        };
        if !handler.answers_at_once(&request.head.method) {
            trip.reading = trip.reading.or_else(|| Some(Reading::of(&request.head.fields)));
            if let Some(asked) = &mut trip.asked {
                asked.remember(request);
            }
        }
        if trip.policy().is_some_and(|policy| !policy.fields.cache.is_empty()) && trip.media_type.is_none() {
            trip.media_type = request.path().ok().and_then(media_type_of);
        }
        let mut handled = handler.handle(request, worker);
        let asked_for = (!route.tries.is_empty()).then(|| request.head.target.path_and_query().into_owned());
        for template in &route.tries {
            match &handled {
                Handled::Ready(response) if response.status == Status::NOT_FOUND => {}
                _ => break,
            }
            // Each is told of what was asked for, not of the last one tried.
            let back = request.rewrite(asked_for.as_deref().unwrap_or_default());
            if back.is_ok() && self.lead(template, goal, request).is_ok() {
                handled = handler.handle(request, worker);
            }
        }
        match handled {
            Handled::Ready(ref mut response) => {
                self.after(response, &trip, Some(request), worker);
                handled
            }
            Handled::Soon(soon) => {
                let (steps, worker) = (self.clone(), worker.clone());
                Handled::Soon(soon.then(move |mut response| {
                    steps.after(&mut response, &trip, None, &worker);
                    response
                }))
            }
            Handled::Later(future) => {
                let (steps, worker) = (self.clone(), worker.clone());
                Handled::later(async move {
                    let mut response = future.await;
                    steps.after(&mut response, &trip, None, &worker);
                    response
                })
            }
        }
    }

    // --- after ---

    /// Words an error that has no content yet, and 405 to what no handler of ours knows.
    fn word(&self, response: &mut Response, trip: &Trip, request: Option<&Request>) {
        if response.status.code() < 400 {
            return;
        }
        let silent = matches!(&response.content, Content::Bytes(bytes) if bytes.is_empty());
        let none = crate::after::error_page::ErrorPages::default();
        let pages = trip.policy().map_or(&none, |policy| &policy.error_pages);
        // What an application said stays; what this server said in passing gives way to the site's own page.
        let refused = response.notes.as_ref().is_some_and(|notes| notes.refused.is_some());
        let ours = refused || trip.route().is_none_or(|route| route.handler.is_ours());
        let flows = matches!(response.content, Content::Pipe(..) | Content::Flow(..));
        let gives_way = ours && pages.has(response.status) && !flows;
        if !silent && !gives_way {
            return;
        }
        let reading = trip.reading.or_else(|| request.map(|request| Reading::of(&request.head.fields)));
        let (content, media_type) = pages.word(response.status, reading.unwrap_or_default(), "", "");
        let fields = response.fields.to_mut();
        let _ = fields.set(Known::ContentType, media_type.as_bytes());
        response.content = Content::Bytes(content);
    }

    fn change_fields(&self, response: &mut Response, trip: &Trip, worker: &Worker) {
        if let Some(policy) = trip.policy()
            && !policy.fields.is_empty()
        {
            let scheme = match trip.scheme_is_secure {
                true => eleven_semantics::target::Scheme::Https,
                false => eleven_semantics::target::Scheme::Http,
            };
            let now = worker.now();
            let whole = response.whole.clone();
            let unstated = || {
                let of_whole = whole.as_ref().and_then(|(fields, _)| fields.get(Known::ContentType));
                of_whole.or(trip.media_type.map(str::as_bytes))
            };
            policy.fields.apply(response.status, response.fields.to_mut(), scheme, unstated, now);
        }
        if !self.plan.server_field.is_empty() && !response.fields.get().contains(Known::Server) {
            let _ = response.fields.to_mut().push(Known::Server, self.plan.server_field.as_bytes());
        }
    }

    /// Which origins' scripts may read it.
    fn share(&self, response: &mut Response, trip: &Trip) {
        if let (Some(origin), Some(cors)) =
            (&trip.origin, trip.policy().and_then(|policy| policy.cors.as_ref()))
        {
            cors.decorate(origin, response.fields.to_mut());
        }
    }

    fn compress(&self, response: &mut Response, trip: &Trip, request: Option<&Request>) {
        if let (Some(asked), Some(compress)) =
            (&trip.asked, trip.policy().and_then(|policy| policy.compress.as_ref()))
        {
            compress.apply(asked, response, request, compress, || trip.media_type);
        }
    }

    /// For the record.
    fn note(&self, response: &mut Response, trip: &Trip) {
        let plain = trip.user.is_none()
            && trip.client.is_none()
            && trip.refused.is_none()
            && trip.request_id.is_none()
            && trip.span.is_none();
        match (&response.notes, &trip.spot) {
            (None, Some(spot)) if plain => response.notes = Some(spot.notes.clone()),
            _ => {
                let notes = response.notes();
                if let Some(spot) = &trip.spot {
                    notes.log = spot.notes.log.clone();
                }
                notes.site = trip.spot.as_ref().map(|spot| spot.site.name.clone());
                if let Some(route) = trip.route()
                    && notes.handler.is_empty()
                {
                    notes.handler = route.handler.name();
                }
                notes.user.clone_from(&trip.user);
                notes.client = trip.client;
                notes.request_id.clone_from(&trip.request_id);
                notes.span = trip.span.zip(self.spans.clone());
                notes.refused = notes.refused.or(trip.refused);
            }
        }
    }
}

/// The media type that a path suggests by its extension.
fn media_type_of(path: &[u8]) -> Option<&'static str> {
    let name = path.rsplit(|&b| b == b'/').next()?;
    // A directory is shown by its index page.
    if name.is_empty() {
        return Some("text/html");
    }
    let extension = name.rsplit(|&b| b == b'.').next().filter(|extension| extension.len() < name.len())?;
    mime_guess::from_ext(std::str::from_utf8(extension).ok()?).first_raw()
}

/// Nanoseconds of a clock that does not go back, the same for all workers.
fn monotonic_ns() -> u64 {
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    let now = clock::now();
    let start = *START.get_or_init(|| now);
    u64::try_from(now.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}

/// Content cut off where it passes a limit. Nothing is asked of the client before the handler asks.
fn limited(mut reader: ContentReader, max: u64) -> ContentReader {
    let (mut writer, limited) = pipe(LIMITED_PIPE_BYTES);
    tokio::task::spawn_local(async move {
        // Asking for content is what sends 100 to the client, so nothing is asked before the handler asks.
        let wanted = |cx: &mut Context<'_>| match writer.poll_reader_gone(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => writer.poll_wanted(cx),
        };
        poll_fn(wanted).await;
        let mut left = max;
        loop {
            let next = poll_fn(|cx| match writer.poll_reader_gone(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => reader.poll_next(cx).map(Some),
            });
            match next.await {
                Some(Next::Data(data)) => {
                    left = match left.checked_sub(data.len() as u64) {
                        Some(left) => left,
                        None => return writer.abort(Reason::TooLarge),
                    };
                    if writer.send(data).await.is_err() {
                        return;
                    }
                }
                Some(Next::Complete(trailers)) => return writer.complete(trailers),
                Some(Next::Aborted(reason)) => return writer.abort(reason),
                None => return,
            }
        }
    });
    limited
}
