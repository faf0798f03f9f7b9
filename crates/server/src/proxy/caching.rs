//! The cache in front of a handler (RFC 9111): makes the engine's request of a client's, its way inbound of the
//! handler, and a response of its reply. Decides nothing about caching: that is in `eleven_cache` and in
//! `eleven_semantics::caching`.

use super::stick;
use crate::handler::{Handled, Handler};
use crate::plan::CacheRules;
use crate::record::Notes;
use crate::refusal::refusal;
use crate::request::{Request, RequestContent};
use crate::response::{Content, FileRange, Part, Response, ResponseFields};
use crate::worker::Worker;
use bytes::Bytes;
use eleven_cache::content::Reader;
use eleven_cache::reply::push_age;
use eleven_cache::{Answer, Ask, Body, Cache, Failed, Head, Inbound, Reply, Report, Scratch, Source};
use eleven_net::pipe::{self, Next, PipeWriter, Reason};
use eleven_semantics::caching::key::Site;
use eleven_semantics::names::Known;
use eleven_semantics::target::{Form, Scheme};
use eleven_semantics::{Fields, Method, RequestTarget, Status};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

/// Content on its way from the store to a connection.
const PIPE_BYTES: usize = 256 * 1024;
/// A piece of a file on its way into the store.
const FILE_BYTES: u64 = 64 * 1024;

/// A cache as one route uses it; shared by all workers.
#[derive(Clone)]
pub struct CachingPlan {
    cache: Arc<Cache>,
    rules: Arc<CacheRules>,
}

impl CachingPlan {
    /// The store of this cache, under these rules.
    pub fn new(cache: &Cache, rules: Arc<CacheRules>) -> CachingPlan {
        CachingPlan { cache: cache.with(rules.config.clone()), rules }
    }

    /// The cache.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }
}

impl std::fmt::Debug for CachingPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CachingPlan({:?})", self.cache.usage())
    }
}

/// A handler with a cache in front, as one worker runs it.
pub struct Caching {
    behind: Rc<Handler>,
    plan: CachingPlan,
    scratch: RefCell<Scratch>,
    /// The site of the request before: most are for the same one.
    last: RefCell<Last>,
    /// What the record says of a hit.
    hit: Rc<Notes>,
}

/// A host as it was written, and the site it means.
struct Last {
    text: Vec<u8>,
    site: Rc<Site>,
}

impl std::fmt::Debug for Caching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Caching({:?}, {:?})", self.plan, self.behind)
    }
}

impl Caching {
    /// This cache in front of this handler.
    pub fn new(behind: Handler, plan: CachingPlan) -> Rc<Caching> {
        let nowhere = Rc::new(Site { scheme: Scheme::Http, host: Vec::new(), port: 0 });
        Rc::new(Caching {
            behind: Rc::new(behind),
            plan,
            scratch: RefCell::default(),
            last: RefCell::new(Last { text: Vec::new(), site: nowhere }),
            hit: Rc::new(Notes { cache: "HIT", ..Notes::default() }),
        })
    }

    /// What stands behind the cache.
    pub fn behind(&self) -> &Handler {
        &self.behind
    }

    /// Answers a request: from the store at once, or later by way of the handler.
    pub fn handle(self: &Rc<Self>, request: &mut Request, worker: &Rc<Worker>) -> Handled {
        let Some(site) = self.site(request) else { return self.behind.handle(request, worker) };
        if let Handler::Forward(proxy) = self.behind.inner() {
            // Who may use the proxy is settled before anything is answered, from the store too.
            let (caching, proxy, worker) = (Rc::clone(self), Rc::clone(proxy), Rc::clone(worker));
            let mut request = request.take();
            return Handled::later(async move {
                if let Err(response) = proxy.admit(&request).await {
                    return *response;
                }
                match caching.hit(&mut request, &site, &worker) {
                    Some(response) => response,
                    None => caching.answer(request, &site, &worker).await,
                }
            });
        }
        match self.hit(request, &site, worker) {
            Some(response) => response.into(),
            None => {
                let (caching, worker, request) = (Rc::clone(self), Rc::clone(worker), request.take());
                Handled::later(async move { caching.answer(request, &site, &worker).await })
            }
        }
    }

    /// The site whose responses may answer the request; `None` for what goes past the cache altogether: tunnels,
    /// switches of protocol, what is not about a resource, and methods that the route left out.
    fn site(&self, request: &Request) -> Option<Rc<Site>> {
        let scheme = match request.head.target.form() {
            Form::Origin => request.scheme(),
            // A forward proxy is asked for a site of that scheme, whatever the client's connection is.
            Form::Absolute(scheme) if matches!(self.behind.inner(), Handler::Forward(_)) => scheme,
            Form::Absolute(_) => request.scheme(),
            _ => return None,
        };
        let rules = &self.plan.rules;
        let past = match request.head.method {
            Method::Connect | Method::Trace => true,
            Method::Get => rules.bypass_get || rules.config.policy.bypasses(&request.head.fields),
            Method::Head => rules.bypass_head || rules.config.policy.bypasses(&request.head.fields),
            _ => false,
        };
        let forward = matches!(self.behind.inner(), Handler::Forward(_));
        if past || request.head.fields.contains(Known::Upgrade) || (forward && scheme != Scheme::Http) {
            return None;
        }
        let text = request.host_text();
        let mut last = self.last.borrow_mut();
        if last.text != text || last.site.scheme != scheme {
            last.text.clear();
            last.text.extend_from_slice(text);
            last.site = Rc::new(Site::new(scheme, &request.authority()));
        }
        // Without a host there is no key that is nobody else's (C04).
        (!last.site.host.is_empty()).then(|| Rc::clone(&last.site))
    }

    #[inline]
    fn hit(&self, request: &mut Request, site: &Site, worker: &Worker) -> Option<Response> {
        let reply = {
            let target = request.head.target.path_and_query();
            let asked = asked(request, site, &target);
            self.plan.cache.hit(&asked, &mut self.scratch.borrow_mut(), worker.now())?
        };
        Some(self.response(reply, worker))
    }

    async fn answer(&self, mut request: Request, site: &Site, worker: &Rc<Worker>) -> Response {
        let content = std::mem::take(&mut request.content);
        let original = Rc::new(Original {
            request,
            content: Cell::new(content),
            sticky: Cell::default(),
            notes: Cell::default(),
        });
        let behind = Rc::clone(&self.behind);
        let onward = Onward { behind, original: Rc::clone(&original), worker: Rc::clone(worker) };
        let target = original.request.head.target.path_and_query();
        let asked = asked(&original.request, site, &target);
        let replied = self.plan.cache.respond(&asked, &onward).await;
        let sticky = original.sticky.take();
        match replied {
            Ok(reply) => {
                let mut response = self.response(reply, worker);
                if let Some(asked) = original.notes.take() {
                    let notes = response.notes();
                    notes.upstream.clone_from(&asked.upstream);
                    notes.attempts.clone_from(&asked.attempts);
                }
                if let Some(cookie) = sticky {
                    // For this client: what is in the store has none.
                    stick(response.fields.to_add(), cookie);
                }
                response
            }
            Err(Failed::Inbound(response)) => *response,
            Err(Failed::MustRevalidate(mut response)) => {
                // 9111-5.2.2.2-03: an answer is there, and may not be used.
                response.status = Status::GATEWAY_TIMEOUT;
                *response
            }
            Err(Failed::Shared(_)) => refusal(Status::BAD_GATEWAY, "The response could not be fetched."),
        }
    }

    fn response(&self, reply: Reply, worker: &Worker) -> Response {
        let mut added = worker.take_added();
        self.add_lines(&reply.report, &mut added);
        let (status, fields) = match reply.head {
            Head::Stored { stored, age } => {
                push_age(&mut added, age);
                (stored.status, ResponseFields::Stored(Arc::clone(&stored.fields), added))
            }
            Head::Made { status, mut fields } => {
                fields.extend(&added);
                worker.return_added(added);
                (status, ResponseFields::Own(fields))
            }
        };
        let content = content(reply.body, status);
        let notes = match reply.report.word() {
            "HIT" => Rc::clone(&self.hit),
            cache => Rc::new(Notes { cache, cache_reason: reply.report.reason(), ..Notes::default() }),
        };
        Response { status, fields, content, close: None, notes: Some(notes), whole: None }
    }

    fn add_lines(&self, report: &Report, added: &mut Fields) {
        if let Some(name) = &self.plan.rules.cache_status {
            report.write_status(name, added);
        }
        if self.plan.rules.x_cache {
            // A word of letters is a valid value.
            let _ = added.push("X-Cache", report.word());
        }
    }
}

fn asked<'a>(request: &'a Request, site: &'a Site, target: &'a [u8]) -> eleven_cache::Request<'a> {
    eleven_cache::Request {
        method: &request.head.method,
        site,
        target,
        fields: &request.head.fields,
        has_content: request.head.framing.has_body(),
    }
}

/// The client's request, from which those of the cache are made.
struct Original {
    request: Request,
    /// Its content, which goes inbound once.
    content: Cell<RequestContent>,
    /// The sticky cookie to set.
    sticky: Cell<Option<Vec<u8>>>,
    /// What is to be told of the server that was asked last.
    notes: Cell<Option<Rc<Notes>>>,
}

impl Original {
    fn note(&self, result: &Result<Response, Box<Response>>) {
        let response = match result {
            Ok(response) => response,
            Err(response) => response,
        };
        self.notes.set(response.notes.clone());
    }
}

/// The way inbound.
#[derive(Clone)]
struct Onward {
    behind: Rc<Handler>,
    original: Rc<Original>,
    worker: Rc<Worker>,
}

impl Inbound for Onward {
    type Error = Box<Response>;

    async fn send(&self, ask: Ask) -> Result<Answer, Box<Response>> {
        let original = &self.original.request;
        let absolute;
        let target = match (self.behind.inner(), original.head.target.authority()) {
            (Handler::Forward(_), Some(authority)) => {
                absolute = [b"http://", authority, &ask.target].concat();
                &absolute
            }
            _ => &ask.target,
        };
        let Ok(target) = RequestTarget::parse(&ask.method, target) else {
            return Err(refusal(Status::BAD_REQUEST, "The target cannot be asked for.").into());
        };
        let content = if ask.with_content { self.original.content.take() } else { RequestContent::Empty };
        let mut request = original.derive(ask.method, target, ask.fields, content);
        // A stored response, if one may be used, is better than being refused here (stale-if-error).
        let _permit = match &*self.behind {
            Handler::Gated(gated) => Some(gated.admit(&self.worker).await?),
            _ => None,
        };
        let response = match self.behind.inner() {
            Handler::Gateway(gateway) => {
                let mut cookie = None;
                let result = gateway.ask(request, &mut cookie).await;
                self.original.sticky.set(cookie);
                self.original.note(&result);
                result?
            }
            Handler::Forward(proxy) => {
                let result = proxy.ask(request).await;
                self.original.note(&result);
                result?
            }
            other => match other.handle(&mut request, &self.worker) {
                Handled::Ready(response) => response,
                Handled::Soon(soon) => soon.into_later(0).1.await,
                Handled::Later(future) => future.await,
            },
        };
        let length = response.content.length();
        Ok(Answer {
            status: response.status,
            fields: own(response.fields),
            length,
            body: source(response.content),
        })
    }
}

fn own(mut fields: ResponseFields) -> Fields {
    std::mem::take(fields.to_mut())
}

fn source(content: Content) -> Box<dyn Source> {
    match content {
        Content::Pipe(reader, _) => Box::new(reader),
        Content::Flow(flowing, _) => Box::new(flowing.into_pipe()),
        Content::Bytes(bytes) => Box::new(Reader::of(bytes)),
        Content::File(range) => read(vec![Part::File(range)]),
        Content::Parts(parts) => read(parts),
        // Requests that switch protocols do not come here.
        Content::Empty | Content::Described(_) | Content::Switch(_) => Box::new(Reader::of(Bytes::new())),
    }
}

/// Content that is in files, as far as the store wants it.
fn read(parts: Vec<Part>) -> Box<dyn Source> {
    let (writer, reader) = pipe::pipe::<Option<Box<Fields>>>(PIPE_BYTES);
    tokio::task::spawn_local(read_into(parts, writer));
    Box::new(reader)
}

async fn read_into(parts: Vec<Part>, mut writer: PipeWriter<Option<Box<Fields>>>) {
    for part in parts {
        let range = match part {
            Part::Bytes(bytes) => {
                if writer.send(bytes).await.is_err() {
                    return;
                }
                continue;
            }
            Part::File(range) => range,
        };
        let FileRange { file, mut offset, mut length } = range;
        // A descriptor of its own goes to the threads that may block.
        let Ok(file) = file.try_clone().map(Arc::new) else { return writer.abort(Reason::Storage) };
        while length > 0 {
            let wanted = length.min(FILE_BYTES);
            match read_at(file.clone(), offset, wanted).await {
                Some(bytes) => {
                    if writer.send(bytes).await.is_err() {
                        return;
                    }
                    (offset, length) = (offset + wanted, length - wanted);
                }
                None => return writer.abort(Reason::Storage),
            }
        }
    }
    writer.complete(None);
}

/// So many octets of a file; `None` if it has not that many, or cannot be read (fault P24).
async fn read_at(file: Arc<File>, offset: u64, wanted: u64) -> Option<Bytes> {
    let read = move || {
        let mut octets = vec![0; wanted as usize];
        file.read_exact_at(&mut octets, offset).ok().map(|()| Bytes::from(octets))
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// The content of a reply in the form that is cheapest to send.
fn content(body: Body, status: Status) -> Content {
    match body {
        Body::Empty if status.never_has_content() => Content::Empty,
        Body::Empty => Content::Bytes(Bytes::new()),
        Body::Described(length) => Content::Described(length),
        Body::Whole(octets) => Content::Bytes(octets),
        Body::Pieces(pieces) => Content::Parts(pieces.into_iter().map(Part::Bytes).collect()),
        Body::Reader(mut reader) => {
            if let Some(whole) = reader.take_whole() {
                return Content::Bytes(whole);
            }
            if let Some(pieces) = reader.take_pieces() {
                return Content::Parts(pieces.into_iter().map(Part::Bytes).collect());
            }
            let length = reader.remaining();
            flowing(Box::new(reader), length)
        }
        Body::Flowing(source, length) => flowing(source, length),
    }
}

fn flowing(source: Box<dyn Source>, length: Option<u64>) -> Content {
    let (writer, reader) = pipe::pipe(PIPE_BYTES);
    tokio::task::spawn_local(pump(source, writer));
    Content::Pipe(reader, length)
}

/// Moves content from the store into a pipe, until it ends or nobody reads any more.
async fn pump(mut source: Box<dyn Source>, mut writer: PipeWriter<Option<Box<Fields>>>) {
    loop {
        match poll_fn(|cx| source.poll_next(cx)).await {
            Next::Data(data) => {
                if writer.send(data).await.is_err() {
                    return;
                }
            }
            Next::Complete(()) => return writer.complete(None),
            Next::Aborted(reason) => return writer.abort(reason),
        }
    }
}
