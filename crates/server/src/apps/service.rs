//! Services of this process: anything that is a `tower::Service` of `http` messages, an axum router first of all, behind
//! this server. The one place where the `http` types appear; they are converted here, once each way.
//!
//! A protocol switch (WebSocket) is a response made by [`switch`] or [`websocket`], which carries what is to be done
//! with the connection.

use super::websocket::{accept_value, handshake_key};
use crate::handler::{Handled, Handler};
use crate::request::{ContentReader, Request, RequestContent};
use crate::response::{Content, Response, Switch};
use crate::serve::{Options, Running, StartError, start};
use crate::service::Service as Served;
use bytes::{Buf, Bytes};
use eleven_net::Stream;
use eleven_net::listener::ListenAddr;
use eleven_net::pipe::{Next, PipeWriter, Reason, pipe};
use eleven_semantics::meta_variables;
use eleven_semantics::{Fields, Known, Method, Status, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tower_service::Service;

/// Content between a service and the session.
const PIPE_BYTES: usize = 65_536;

/// Serves a service until told to stop, with usual limits: `serve(address, router)?.wait()`.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve<S, B>(address: ListenAddr, service: S) -> Result<Running, StartError>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Future: 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data: Buf, Error: Into<BoxError>> + 'static,
{
    start(Options {
        listen: vec![address.into()],
        workers: eleven_net::worker::default_count(),
        settings: Default::default(),
        connections_max: 0,
        connections_per_address_max: 0,
        log: None,
        metrics: Default::default(),
        service: Arc::new(move || Served::single(Handler::InProcess(InProcess::new(service.clone())))),
    })
}

/// An error of a service or of its content.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A service as a handler. One for each thread.
#[derive(Clone)]
pub struct InProcess(Rc<dyn Call>);

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

/// Hides the type of the service: the set of handlers is closed, that of services is not.
trait Call {
    fn call(&self, request: &mut Request) -> Handled;
}

struct Tower<S>(S);

impl InProcess {
    /// A handler that answers by `service`.
    pub fn new<S, B>(service: S) -> InProcess
    where
        S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + 'static,
        S::Future: 'static,
        S::Error: Into<BoxError>,
        B: HttpBody<Data: Buf, Error: Into<BoxError>> + 'static,
    {
        InProcess(Rc::new(Tower(service)))
    }

    /// A handler that answers by a function.
    #[cfg(test)]
    pub(crate) fn of(answer: impl Fn(&mut Request) -> Handled + 'static) -> InProcess {
        struct Function<F>(F);
        impl<F: Fn(&mut Request) -> Handled> Call for Function<F> {
            fn call(&self, request: &mut Request) -> Handled {
                self.0(request)
            }
        }
        InProcess(Rc::new(Function(answer)))
    }

    /// Answers a request by the service.
    pub fn handle(&self, request: &mut Request) -> Handled {
        self.0.call(request)
    }
}

impl<S, B> Call for Tower<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + 'static,
    S::Future: 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data: Buf, Error: Into<BoxError>> + 'static,
{
    fn call(&self, request: &mut Request) -> Handled {
        let Some(converted) = http_request(request) else {
            return Response::new(Status::BAD_REQUEST).into();
        };
        let mut service = self.0.clone();
        let is_head = request.head.method == Method::Head;
        Handled::later(async move {
            // Back-pressure of the service: it says when it takes a request.
            let answered = match std::future::poll_fn(|cx| service.poll_ready(cx)).await {
                Ok(()) => service.call(converted).await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(response) => http_response(response, is_head).await,
                Err(error) => {
                    let error: BoxError = error.into();
                    tracing::error!(%error, "the service failed (500)");
                    Response::new(Status::INTERNAL_SERVER_ERROR)
                }
            }
        })
    }
}

/// The client's address and the scheme of its connection: an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The address, unless it came over a Unix socket.
    pub address: Option<std::net::SocketAddr>,
    /// Over TLS.
    pub secure: bool,
}

/// The request as `http` has it. `None` for a target that `http::Uri` cannot hold.
fn http_request(request: &mut Request) -> Option<http::Request<Body>> {
    let head = &request.head;
    let mut converted = http::Request::new(Body::empty());
    *converted.method_mut() = http::Method::from_bytes(head.method.as_str().as_bytes()).ok()?;
    let target = head.target.path_and_query();
    *converted.uri_mut() = http::Uri::try_from(if target.is_empty() { b"/" } else { &*target }).ok()?;
    *converted.version_mut() =
        if head.version == Version::Http10 { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    let headers = converted.headers_mut();
    headers.reserve(head.fields.len());
    if let Some(host) = meta_variables::host(&head.target, &head.fields) {
        headers.insert(http::header::HOST, http::HeaderValue::from_bytes(host).ok()?);
    }
    for field in head.fields.iter() {
        // Framing was settled below; Upgrade and Connection say what a switch is asked for.
        let framing = [Known::Host, Known::ContentLength, Known::TransferEncoding, Known::Expect];
        if field.known.is_some_and(|known| framing.contains(&known)) {
            continue;
        }
        let name = http::HeaderName::from_bytes(field.name).ok()?;
        headers.append(name, http::HeaderValue::from_bytes(field.value).ok()?);
    }
    if let Some(length) =
        request.content_length.filter(|&n| n > 0 || head.fields.contains(Known::ContentLength))
    {
        headers.insert(http::header::CONTENT_LENGTH, length.into());
    }
    let client = Client {
        address: request.peer.address,
        secure: request.scheme() == eleven_semantics::target::Scheme::Https,
    };
    converted.extensions_mut().insert(client);
    let length = request.content_length;
    *converted.body_mut() = match std::mem::take(&mut request.content) {
        RequestContent::Empty => Body::empty(),
        RequestContent::Whole(octets, trailers) => {
            Body(Inner::Whole(Some(octets), trailers.as_deref().map(header_map)))
        }
        RequestContent::Pipe(reader) => Body::flowing(reader, length),
    };
    Some(converted)
}

fn header_map(fields: &Fields) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for field in fields.iter() {
        let name = http::HeaderName::from_bytes(field.name);
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
    map
}

/// The content of a request. May be sent to other threads; the client is told to continue when it is first read.
#[derive(Debug, Default)]
pub struct Body(Inner);

#[derive(Debug, Default)]
enum Inner {
    #[default]
    Empty,
    Whole(Option<Bytes>, Option<http::HeaderMap>),
    Flowing {
        wanted: Option<oneshot::Sender<()>>,
        frames: mpsc::Receiver<Result<Frame<Bytes>, Reason>>,
        left: Option<u64>,
    },
}

impl Body {
    /// No content.
    pub fn empty() -> Body {
        Body(Inner::Empty)
    }

    fn flowing(reader: ContentReader, length: Option<u64>) -> Body {
        let (wanted, asked) = oneshot::channel();
        let (sender, frames) = mpsc::channel(1);
        tokio::task::spawn_local(forward(reader, asked, sender));
        Body(Inner::Flowing { wanted: Some(wanted), frames, left: length })
    }
}

/// Passes content on to where the service is, once it asks.
async fn forward(
    mut reader: ContentReader,
    asked: oneshot::Receiver<()>,
    frames: mpsc::Sender<Result<Frame<Bytes>, Reason>>,
) {
    if asked.await.is_err() {
        return;
    }
    loop {
        let (frame, last) = match reader.next().await {
            Next::Data(octets) => (Ok(Frame::data(octets)), false),
            Next::Complete(None) => return,
            Next::Complete(Some(trailers)) => (Ok(Frame::trailers(header_map(&trailers))), true),
            Next::Aborted(reason) => (Err(reason), true),
        };
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Reason;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Whole(octets, trailers) => {
                let data = octets.take().filter(|octets| !octets.is_empty()).map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Inner::Flowing { wanted, frames, left } => {
                if let Some(wanted) = wanted.take() {
                    let _ = wanted.send(());
                }
                let frame = ready!(frames.poll_recv(cx));
                if let (Some(left), Some(Ok(frame))) = (left, &frame) {
                    *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Whole(octets, trailers) => {
                octets.as_ref().is_none_or(Bytes::is_empty) && trailers.is_none()
            }
            Inner::Flowing { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Whole(octets, _) => {
                SizeHint::with_exact(octets.as_ref().map_or(0, |octets| octets.len() as u64))
            }
            Inner::Flowing { left: Some(left), .. } => SizeHint::with_exact(*left),
            Inner::Flowing { left: None, .. } => SizeHint::default(),
        }
    }
}

/// The response of a service as this server has it.
async fn http_response<B>(response: http::Response<B>, is_head: bool) -> Response
where
    B: HttpBody<Data: Buf, Error: Into<BoxError>> + 'static,
{
    let (mut parts, body) = response.into_parts();
    let Some(status) = Status::new(parts.status.as_u16()) else {
        tracing::error!(
            status = parts.status.as_u16(),
            "a service answered with a status that is none (500)"
        );
        return Response::new(Status::INTERNAL_SERVER_ERROR);
    };
    let switch = parts.extensions.remove::<Accepted>().and_then(|accepted| accepted.take());
    if status.is_interim() && switch.is_none() {
        tracing::error!(%status, "a service answered with an interim status (500)");
        return Response::new(Status::INTERNAL_SERVER_ERROR);
    }
    let mut converted = Response::new(status);
    let mut fields = Fields::new();
    let mut declared = None;
    for (name, value) in &parts.headers {
        match Known::lookup(name.as_str().as_bytes()) {
            Some(Known::ContentLength) => declared = eleven_semantics::grammar::decimal(value.as_bytes()),
            Some(Known::Upgrade) if switch.is_some() || status == Status::UPGRADE_REQUIRED => {
                push(&mut fields, name, value)
            }
            Some(Known::Date) => {}
            Some(known) if known.is_hop_by_hop() => {}
            _ => push(&mut fields, name, value),
        }
    }
    converted.fields = fields.into();
    if let Some(run) = switch {
        converted.content = Content::Switch(Box::new(Run(run)));
        return converted;
    }
    let length = body.size_hint().exact().or(declared);
    converted.content = if status.never_has_content() {
        Content::Empty
    } else if is_head {
        Content::Described(length.filter(|&n| n > 0).or(declared))
    } else {
        content(Box::pin(body), length).await
    };
    converted
}

fn push(fields: &mut Fields, name: &http::HeaderName, value: &http::HeaderValue) {
    let value = eleven_semantics::grammar::trim_ows(value.as_bytes());
    if let Err(why) = fields.push(name.as_str(), value) {
        tracing::error!(%name, %why, "a field of a service's response was left out");
    }
}

/// Content in the cheapest form: octets if they are all there, else a pipe.
async fn content<B>(mut body: Pin<Box<B>>, length: Option<u64>) -> Content
where
    B: HttpBody<Data: Buf, Error: Into<BoxError>> + 'static,
{
    if body.is_end_stream() {
        return Content::Bytes(Bytes::new());
    }
    // The first frame, if it is ready: most bodies have one.
    let mut first = None;
    let polled = std::future::poll_fn(|cx| Poll::Ready(body.as_mut().poll_frame(cx))).await;
    match polled {
        Poll::Ready(None) => return Content::Bytes(Bytes::new()),
        Poll::Ready(Some(Ok(frame))) => {
            let data = frame.into_data().map(|mut data| data.copy_to_bytes(data.remaining()));
            match data {
                Ok(octets) if body.is_end_stream() || length == Some(octets.len() as u64) => {
                    return Content::Bytes(octets);
                }
                Ok(octets) => first = Some(octets),
                Err(_) => return Content::Bytes(Bytes::new()),
            }
        }
        Poll::Ready(Some(Err(error))) => {
            let error: BoxError = error.into();
            tracing::error!(%error, "the content of a service's response failed");
            let (writer, reader) = pipe(PIPE_BYTES);
            writer.abort(Reason::Cancelled);
            return Content::Pipe(reader, length);
        }
        Poll::Pending => {}
    }
    let (writer, reader) = pipe(PIPE_BYTES);
    tokio::task::spawn_local(pump(body, writer, first));
    Content::Pipe(reader, length)
}

async fn pump<B>(mut body: Pin<Box<B>>, mut writer: PipeWriter<Option<Box<Fields>>>, first: Option<Bytes>)
where
    B: HttpBody<Data: Buf, Error: Into<BoxError>> + 'static,
{
    if let Some(octets) = first
        && writer.send(octets).await.is_err()
    {
        return;
    }
    loop {
        // A client that leaves drops the body at once, also while it has nothing to send.
        let frame = std::future::poll_fn(|cx| match writer.poll_reader_gone(cx) {
            Poll::Ready(()) => Poll::Ready(Err(())),
            Poll::Pending => body.as_mut().poll_frame(cx).map(Ok),
        });
        let Ok(frame) = frame.await else { return };
        match frame {
            None => return writer.complete(None),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(mut data) => {
                    let octets = data.copy_to_bytes(data.remaining());
                    if writer.send(octets).await.is_err() {
                        return;
                    }
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().ok().map(|map| {
                        let mut fields = Fields::new();
                        map.iter().for_each(|(name, value)| push(&mut fields, name, value));
                        Box::new(fields)
                    });
                    return writer.complete(trailers);
                }
            },
            Some(Err(error)) => {
                let error: BoxError = error.into();
                tracing::error!(%error, "the content of a service's response failed");
                return writer.abort(Reason::Cancelled);
            }
        }
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;
type RunSwitched = Box<dyn FnOnce(Switched) -> Task + Send>;

/// What a switched connection is for, on its way in the response's extensions.
#[derive(Clone)]
struct Accepted(Arc<Mutex<Option<RunSwitched>>>);

impl Accepted {
    fn take(&self) -> Option<RunSwitched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Run(RunSwitched);

impl Switch for Run {
    fn run(self: Box<Self>, stream: Stream, received: Bytes) -> Task {
        (self.0)(Switched { stream, received })
    }
}

/// A response that accepts a switch to `protocol`, which the request must have offered in Upgrade. `run` gets the
/// connection; its future stays on the thread of the connection.
pub fn switch<B, F>(
    protocol: http::HeaderValue,
    body: B,
    run: impl FnOnce(Switched) -> F + Send + 'static,
) -> http::Response<B>
where
    F: Future<Output = ()> + 'static,
{
    let mut response = http::Response::new(body);
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(http::header::UPGRADE, protocol);
    let run: RunSwitched = Box::new(move |switched| Box::pin(run(switched)));
    response.extensions_mut().insert(Accepted(Arc::new(Mutex::new(Some(run)))));
    response
}

/// A response that accepts a WebSocket; `None` if the request is not the handshake of one (RFC 6455 §4.2.1). `run`
/// gets the connection, to which a WebSocket library may be put in the role of a server.
pub fn websocket<R, B, F>(
    request: &http::Request<R>,
    body: B,
    run: impl FnOnce(Switched) -> F + Send + 'static,
) -> Option<http::Response<B>>
where
    F: Future<Output = ()> + 'static,
{
    let mut fields = Fields::new();
    for (name, value) in request.headers() {
        push(&mut fields, name, value);
    }
    let method = Method::from_bytes(request.method().as_str().as_bytes())?;
    let version = if request.version() == http::Version::HTTP_11 { Version::Http11 } else { Version::Http10 };
    let key = handshake_key(&method, version, &fields)?;
    let mut response = switch(http::HeaderValue::from_static("websocket"), body, run);
    let accept = http::HeaderValue::from_str(&accept_value(&key)).ok()?;
    response.headers_mut().insert("sec-websocket-accept", accept);
    Some(response)
}

/// A connection that switched protocols: octets both ways.
#[derive(Debug)]
pub struct Switched {
    stream: Stream,
    /// What came before the switch was done.
    received: Bytes,
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let count = self.received.len().min(into.remaining());
            into.put_slice(&self.received.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let count = ready!(self.stream.poll_read(cx, into.initialize_unfilled()))?;
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Switched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write_vectored(cx, &[IoSlice::new(octets)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown_write(cx)
    }
}
