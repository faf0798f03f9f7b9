//! The cache in front of a gateway (RFC 9111): makes the engine's request of a client's, its way inbound of the
//! gateway, and a response of its reply. Decides nothing about caching: that is in `eleven_cache` and in
//! `eleven_semantics::caching`.

use super::{Gateway, stick};
use crate::handler::Handled;
use crate::record::Notes;
use crate::request::{Request, RequestContent};
use crate::response::{Content, Part, Response, ResponseFields};
use bytes::Bytes;
use eleven_cache::content::Reader;
use eleven_cache::reply::push_age;
use eleven_cache::{Answer, Ask, Body, Cache, Failed, Head, Inbound, Reply, Report, Scratch, Source};
use eleven_net::pipe::{self, Next, PipeWriter};
use eleven_semantics::caching::key::Site;
use eleven_semantics::names::Known;
use eleven_semantics::target::Form;
use eleven_semantics::{Fields, Method, RequestTarget, Status};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

/// Content on its way from the store to a connection.
const PIPE_BYTES: usize = 256 * 1024;

/// A cache, as configured; shared by all workers.
#[derive(Clone)]
pub struct CachingPlan {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Its name in Cache-Status, if that is to be sent (RFC 9211; C35).
    pub cache_status: Option<Box<str>>,
    /// Send X-Cache: `HIT`, `MISS` and so on.
    pub x_cache: bool,
}

impl std::fmt::Debug for CachingPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CachingPlan({:?})", self.cache.usage())
    }
}

/// A gateway with a cache in front, as one worker runs it.
pub struct Caching {
    gateway: Rc<Gateway>,
    plan: CachingPlan,
    scratch: RefCell<Scratch>,
}

impl std::fmt::Debug for Caching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Caching({:?}, {:?})", self.plan, self.gateway)
    }
}

impl Caching {
    /// This cache in front of this gateway.
    pub fn new(gateway: Rc<Gateway>, plan: CachingPlan) -> Rc<Caching> {
        Rc::new(Caching { gateway, plan, scratch: RefCell::default() })
    }

    /// Answers a request: from the store at once, or later by way of the gateway.
    pub fn handle(self: &Rc<Self>, request: &mut Request) -> Handled {
        if !is_for_caches(request) {
            return self.gateway.handle(request);
        }
        let site = Site::new(request.scheme(), &request.authority());
        if site.host.is_empty() {
            // Without a host there is no key that is nobody else's (C04).
            return self.gateway.handle(request);
        }
        let hit = {
            let target = request.head.target.path_and_query();
            let asked = asked(request, &site, &target);
            self.plan.cache.hit(&asked, &mut self.scratch.borrow_mut())
        };
        match hit {
            Some(reply) => self.response(reply).into(),
            None => {
                let (caching, request) = (Rc::clone(self), request.take());
                Handled::later(async move { caching.answer(request, &site).await })
            }
        }
    }

    async fn answer(&self, mut request: Request, site: &Site) -> Response {
        let content = std::mem::take(&mut request.content);
        let original = Rc::new(Original { request, content: Cell::new(content), sticky: Cell::default() });
        let onward = Onward { gateway: Rc::clone(&self.gateway), original: Rc::clone(&original) };
        let target = original.request.head.target.path_and_query();
        let asked = asked(&original.request, site, &target);
        let replied = self.plan.cache.respond(&asked, &onward).await;
        let sticky = original.sticky.take();
        match replied {
            Ok(reply) => {
                let mut response = self.response(reply);
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
            Err(Failed::Shared(_)) => Response::new(Status::BAD_GATEWAY),
        }
    }

    fn response(&self, reply: Reply) -> Response {
        let mut added = Fields::new();
        self.add_lines(&reply.report, &mut added);
        let (status, fields) = match reply.head {
            Head::Stored { stored, age } => {
                push_age(&mut added, age);
                (stored.status, ResponseFields::Stored(Arc::clone(&stored.fields), added))
            }
            Head::Made { status, mut fields } => {
                fields.extend(&added);
                (status, ResponseFields::Own(fields))
            }
        };
        let content = content(reply.body, status);
        let notes =
            Notes { cache: reply.report.word(), cache_reason: reply.report.reason(), ..Notes::default() };
        Response { status, fields, content, notes: Some(Rc::new(notes)), ..Response::new(status) }
    }

    fn add_lines(&self, report: &Report, added: &mut Fields) {
        if let Some(name) = &self.plan.cache_status {
            report.write_status(name, added);
        }
        if self.plan.x_cache {
            // A word of letters is a valid value.
            let _ = added.push("X-Cache", report.word());
        }
    }
}

/// What goes past the cache altogether: tunnels, switches of protocol, what is not about a resource.
fn is_for_caches(request: &Request) -> bool {
    !matches!(request.head.method, Method::Connect | Method::Trace)
        && !request.head.fields.contains(Known::Upgrade)
        && matches!(request.head.target.form(), Form::Origin | Form::Absolute(_))
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
}

/// The way inbound.
#[derive(Clone)]
struct Onward {
    gateway: Rc<Gateway>,
    original: Rc<Original>,
}

impl Inbound for Onward {
    type Error = Box<Response>;

    async fn send(&self, ask: Ask) -> Result<Answer, Box<Response>> {
        let Ok(target) = RequestTarget::parse(&ask.method, &ask.target) else {
            return Err(Response::new(Status::BAD_REQUEST).into());
        };
        let content = if ask.with_content { self.original.content.take() } else { RequestContent::Empty };
        let request = self.original.request.derive(ask.method, target, ask.fields, content);
        let mut cookie = None;
        let response = self.gateway.ask(request, &mut cookie).await?;
        self.original.sticky.set(cookie);
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
        // A gateway makes no other content; requests that switch protocols do not come here.
        _ => Box::new(Reader::of(Bytes::new())),
    }
}

/// The content of a reply in the form that is cheapest to send.
fn content(body: Body, status: Status) -> Content {
    match body {
        Body::Empty if status.never_has_content() => Content::Empty,
        Body::Empty => Content::Bytes(Bytes::new()),
        Body::Described(length) => Content::Described(length),
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
