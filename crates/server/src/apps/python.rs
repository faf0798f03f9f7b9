//! A Python application as a handler: what its worker is told of a request. Everything after that is the business
//! of the exchange.

use super::content::{Gathered, Rest, Source, gather, whole};
use super::exchange::{About, Exchange};
use super::package::RuntimeDirectory;
use super::pool::{Pool, PoolNumbers, Submission};
use super::protocol::{
    self, CONTENT_INLINE, CONTENT_STREAM, HEAD_METHOD, REQUEST, USUAL, USUAL_VARIABLES, WEBSOCKET,
};
use super::receiver::Receiver;
use super::settings::{AppSettings, Buffering, Interface};
use super::supervisor::{self, Command, Known};
use super::{traceback_page, websocket};
use crate::handler::Handled;
use crate::request::{Request, RequestContent};
use crate::response::Response;
use crate::spool::Spool;
use eleven_messaging::Expectation;
use eleven_net::pipe::Reason;
use eleven_semantics::meta_variables::{self, Source as Variables};
use eleven_semantics::target::{InvalidPath, Scheme};
use eleven_semantics::{Known as Field, Method, Status, Version, grammar};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Most messages are not longer.
const MESSAGE_BYTES_USUAL: usize = 1024;

thread_local! {
    /// This thread's receivers, by the application's number.
    static RECEIVERS: RefCell<HashMap<u64, Rc<Receiver>>> = RefCell::default();
}

static APPLICATIONS: AtomicU64 = AtomicU64::new(0);

/// The supervisors of all applications that were not stopped: [`stop_all`] waits for them.
static SUPERVISORS: Mutex<Vec<Supervised>> = Mutex::new(Vec::new());

struct Supervised {
    number: u64,
    commands: mpsc::UnboundedSender<Command>,
    thread: JoinHandle<()>,
}

impl Supervised {
    fn stop(self) {
        let _ = self.commands.send(Command::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the supervisor of an application panicked");
        }
    }
}

fn supervisors() -> std::sync::MutexGuard<'static, Vec<Supervised>> {
    SUPERVISORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the workers of all applications of this process finish what they have, and waits for their end. To be called
/// before the process ends, so that nothing of them is left.
pub fn stop_all() {
    let all = std::mem::take(&mut *supervisors());
    for supervised in &all {
        // All at once: they need not wait for one another.
        let _ = supervised.commands.send(Command::Stop);
    }
    all.into_iter().for_each(Supervised::stop);
}

/// An application and its workers. Shared by all threads of the server.
#[derive(Debug)]
pub struct Application {
    number: u64,
    settings: Arc<AppSettings>,
    pool: Arc<Pool>,
    known: Arc<Known>,
    /// For threads that have not come yet.
    listeners: Mutex<Vec<(u8, UnixListener)>>,
    commands: mpsc::UnboundedSender<Command>,
    reloads: AtomicU64,
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Application {
    /// Starts the workers of an application that `threads` threads of the server will call. Returns at once; see
    /// [`Application::wait_ready`].
    ///
    /// # Errors
    /// If the runtime directory or its sockets cannot be made.
    pub fn start(settings: AppSettings, threads: usize) -> io::Result<Arc<Application>> {
        let threads = threads.clamp(1, 250);
        let directory = Arc::new(RuntimeDirectory::create(&settings.runtime_directory)?);
        let control = listen(&directory.socket(0))?;
        let listeners: io::Result<Vec<_>> =
            (1..=threads).rev().map(|t| Ok((t as u8, listen(&directory.socket(t))?))).collect();
        let settings = Arc::new(settings);
        let pool = Arc::new(Pool::new(settings.limits.clone(), threads + 1));
        let known = Arc::new(Known::new());
        let (commands, received) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let supervise = supervisor::run(
            settings.clone(),
            directory,
            pool.clone(),
            known.clone(),
            threads,
            control,
            received,
        );
        let thread = std::thread::Builder::new()
            .name("applications".to_owned())
            .spawn(move || runtime.block_on(supervise))?;
        let number = APPLICATIONS.fetch_add(1, Ordering::Relaxed);
        let mut supervisors = supervisors();
        // Those that ended by themselves need no care any more.
        supervisors.retain(|supervised| !supervised.thread.is_finished());
        supervisors.push(Supervised { number, commands: commands.clone(), thread });
        drop(supervisors);
        Ok(Arc::new(Application {
            number,
            settings,
            pool,
            known,
            listeners: Mutex::new(listeners?),
            commands,
            reloads: AtomicU64::new(0),
        }))
    }

    /// Waits until the first worker is ready.
    ///
    /// # Errors
    /// The traceback, if the application does not start.
    pub fn wait_ready(&self) -> Result<(), Arc<str>> {
        self.known.wait_ready()
    }

    /// Replaces all workers by new ones, one after the other. Each old one takes requests until its successor is
    /// ready; if one does not get ready, the old ones stay.
    pub fn reload(&self) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        let _ = self.commands.send(Command::Reload);
    }

    /// As [`Application::reload`], and waits until it is over.
    pub fn reload_and_wait(&self) {
        self.reload();
        self.known.wait_reloads(self.reloads.load(Ordering::Relaxed));
    }

    /// Lets the workers finish what they have, and waits for their end.
    pub fn stop(&self) {
        let mut supervisors = supervisors();
        let own = supervisors.iter().position(|supervised| supervised.number == self.number);
        let own = own.map(|at| supervisors.swap_remove(at));
        drop(supervisors);
        if let Some(own) = own {
            own.stop();
        }
    }

    /// What it was started by: `module:attribute`.
    pub fn name(&self) -> &str {
        &self.settings.application
    }

    /// Numbers for metrics.
    pub fn numbers(&self) -> PoolNumbers {
        self.pool.numbers()
    }

    fn receiver(&self) -> io::Result<Rc<Receiver>> {
        RECEIVERS.with_borrow_mut(|receivers| {
            if let Some(receiver) = receivers.get(&self.number) {
                return Ok(Rc::clone(receiver));
            }
            let next = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((thread, listener)) = next else {
                return Err(io::Error::other("more threads call the application than it was started for"));
            };
            let receiver =
                Receiver::start(thread, listener, Arc::clone(&self.pool), Arc::clone(&self.known))?;
            receivers.insert(self.number, Rc::clone(&receiver));
            Ok(receiver)
        })
    }

    /// Answers a request by a worker.
    pub fn handle(&self, request: &mut Request) -> Handled {
        if let Some(why) = self.known.broken() {
            return if self.settings.development {
                traceback_page(&why).into()
            } else {
                Response::new(Status::SERVICE_UNAVAILABLE).into()
            };
        }
        if self.known.interface() == Interface::Auto {
            // Its first worker is still starting, so nobody knows yet what to say to it.
            let mut response = Response::new(Status::SERVICE_UNAVAILABLE);
            response.add(Field::RetryAfter, "1");
            return response.into();
        }
        let receiver = match self.receiver() {
            Ok(receiver) => receiver,
            Err(error) => {
                tracing::error!(%error, "the application cannot be reached from this thread");
                return Response::new(Status::INTERNAL_SERVER_ERROR).into();
            }
        };
        let call = match Call::new(self, request) {
            Ok(call) => call,
            Err(why) => return Response::new(why.status()).into(),
        };
        match std::mem::take(&mut request.content) {
            RequestContent::Empty => self.submit(&receiver, request, call, Content::empty()),
            RequestContent::Whole(octets, None) if octets.len() <= protocol::INLINE_BYTES_MAX => {
                self.submit(&receiver, request, call, Content::Inline(octets))
            }
            RequestContent::Whole(octets, trailers) => {
                let mut spool = self.spool();
                // It is in memory already, and as much as the session lets be there.
                match spool.push(octets) {
                    Ok(()) => self.submit(&receiver, request, call, Content::of(whole(spool, trailers))),
                    Err(error) => {
                        tracing::error!(%error, "request content cannot be kept on disk");
                        Response::new(Status::INSUFFICIENT_STORAGE).into()
                    }
                }
            }
            RequestContent::Pipe(reader) => {
                let gathering = gather(reader, request.content_length, self.collect(request), self.spool());
                self.gather_and_submit(receiver, request.take(), call, gathering)
            }
        }
    }

    fn spool(&self) -> Spool {
        Spool::new(self.settings.spool_memory_bytes_max, &self.settings.runtime_directory)
    }

    /// How much content is collected before a worker gets the request.
    fn collect(&self, request: &Request) -> u64 {
        let all = self.settings.request_spool_bytes_max;
        match self.settings.buffering {
            Buffering::Always => all,
            Buffering::Never => 0,
            Buffering::Auto if request.head.expectation == Expectation::Continue => 0,
            Buffering::Auto if self.known.interface() == Interface::Asgi => {
                let short = request.content_length.is_some_and(|n| n <= protocol::INLINE_BYTES_MAX as u64);
                if short { protocol::INLINE_BYTES_MAX as u64 } else { 0 }
            }
            Buffering::Auto => all,
        }
    }

    fn gather_and_submit(
        &self,
        receiver: Rc<Receiver>,
        mut request: Request,
        call: Call,
        gathering: impl Future<Output = Gathered> + 'static,
    ) -> Handled {
        Handled::later(async move {
            let content = match gathering.await {
                Gathered::Aborted(Reason::Storage) => return Response::new(Status::INSUFFICIENT_STORAGE),
                // The client is at fault or gone; if it is still there it may read this.
                Gathered::Aborted(_) => return Response::new(Status::BAD_REQUEST),
                gathered => Content::of(gathered),
            };
            match submit(&receiver, &mut request, call, content) {
                Ok(exchange) => exchange.respond().await,
                Err(response) => *response,
            }
        })
    }

    fn submit(
        &self,
        receiver: &Rc<Receiver>,
        request: &mut Request,
        call: Call,
        content: Content,
    ) -> Handled {
        match submit(receiver, request, call, content) {
            Ok(exchange) => Handled::later(exchange.respond()),
            Err(response) => (*response).into(),
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
    }
}

/// What a call of the application needs beside the request.
struct Call {
    settings: Arc<AppSettings>,
    is_asgi: bool,
    path: Vec<u8>,
    websocket: Option<Vec<u8>>,
}

impl Call {
    fn new(application: &Application, request: &Request) -> Result<Call, InvalidPath> {
        let is_asgi = application.known.interface() == Interface::Asgi;
        let head = &request.head;
        let websocket = (is_asgi && head.fields.contains(Field::Upgrade))
            .then(|| websocket::handshake_key(&head.method, head.version, &head.fields))
            .flatten();
        let path = meta_variables::application_path(head.target.path())?;
        Ok(Call { settings: Arc::clone(&application.settings), is_asgi, path, websocket })
    }
}

/// Content as the message carries it.
enum Content {
    Inline(bytes::Bytes),
    Stream(Source, Option<u64>),
}

impl Content {
    fn empty() -> Content {
        Content::Inline(bytes::Bytes::new())
    }

    fn of(gathered: Gathered) -> Content {
        match gathered {
            Gathered::Inline(octets) => Content::Inline(octets),
            Gathered::Stream(source, length) => Content::Stream(source, length),
            Gathered::Aborted(_) => Content::empty(),
        }
    }
}

fn submit(
    receiver: &Rc<Receiver>,
    request: &mut Request,
    call: Call,
    content: Content,
) -> Result<Exchange, Box<Response>> {
    let is_head = request.head.method == Method::Head;
    let mut flags = if is_head { HEAD_METHOD } else { 0 };
    let (length, source) = match &content {
        Content::Inline(octets) => (Some(octets.len() as u64), None),
        Content::Stream(Source { rest: Rest::End(_), .. }, length) => (*length, Some(())),
        Content::Stream(_, length) => (*length, Some(())),
    };
    flags |= if source.is_some() { CONTENT_STREAM } else { CONTENT_INLINE };
    flags |= if call.websocket.is_some() { WEBSOCKET } else { 0 };
    let (ticket, inbox) = receiver.open();
    let mut message = Vec::with_capacity(MESSAGE_BYTES_USUAL);
    protocol::begin_message(REQUEST, ticket, &mut message);
    if call.is_asgi {
        asgi_head(request, &call, length, &mut message);
    } else {
        flags |= wsgi_head(request, &call, length, &mut message);
    }
    let inline = if let Content::Inline(octets) = &content { &octets[..] } else { b"" };
    protocol::finish_message(&mut message, flags, inline);
    let name =
        format!("{} {}", request.head.method.as_str(), String::from_utf8_lossy(request.head.target.path()),);
    let about = About {
        settings: call.settings,
        is_head,
        websocket: call.websocket,
        name,
        interim: request.interim(),
    };
    let source = if let Content::Stream(source, _) = content { Some(source) } else { None };
    let exchange = Exchange::new(Rc::clone(receiver), ticket, inbox, about, source);
    if message.len() > protocol::MESSAGE_BYTES_MAX - 1024 {
        return Err(Box::new(exchange.refused_as_too_large()));
    }
    receiver.submit(Submission { ticket, message });
    Ok(exchange)
}

/// The values of the usual variables, then name, value, name, value... of the others. Of a request that lacks a usual
/// one, names and values of all. Returns the flag that says which.
fn wsgi_head(request: &Request, call: &Call, length: Option<u64>, out: &mut Vec<u8>) -> u8 {
    let head = &request.head;
    let variables = Variables {
        method: &head.method,
        target: &head.target,
        version: head.version,
        fields: &head.fields,
        path: &call.path,
        mount: call.settings.mount.as_bytes(),
        content_length: length,
        client: request.peer.address,
        local_port: request.peer.local_port,
    };
    let is_https = request.scheme() == Scheme::Https;
    let start = out.len();
    let (mut usual, mut others) = (USUAL_VARIABLES.iter(), Vec::new());
    meta_variables::tell(&variables, &mut |name: &[u8], value: &[u8]| {
        if usual.as_slice().first().is_some_and(|next| next.as_bytes() == name) {
            usual.next();
            push_parts(out, &[value]);
        } else {
            push_parts(&mut others, &[name, value]);
        }
    });
    let is_usual = usual.as_slice().is_empty();
    if is_usual {
        out.extend_from_slice(&others);
    } else {
        out.truncate(start);
        meta_variables::tell(&variables, &mut |name: &[u8], value: &[u8]| push_parts(out, &[name, value]));
    }
    if is_https {
        push_parts(out, &[b"wsgi.url_scheme", b"https"]);
    }
    out.pop();
    if is_usual { USUAL } else { 0 }
}

fn push_parts(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
        out.push(0);
    }
}

/// The parts of a scope, then the fields.
fn asgi_head(request: &Request, call: &Call, length: Option<u64>, out: &mut Vec<u8>) {
    let head = &request.head;
    let mut part = |octets: &[u8]| {
        out.extend_from_slice(octets);
        out.push(0);
    };
    let mut number = Vec::new();
    let mut decimal = |n: u64| {
        number.clear();
        grammar::push_decimal(&mut number, n);
        number.clone()
    };
    part(head.method.as_str().as_bytes());
    part(if head.version == Version::Http10 { b"1.0" } else { b"1.1" });
    part(request.scheme().as_str().as_bytes());
    part(&call.path);
    part(head.target.path());
    part(head.target.query().unwrap_or(b""));
    part(call.settings.mount.as_bytes());
    match request.peer.address {
        Some(address) => {
            part(address.ip().to_canonical().to_string().as_bytes());
            part(&decimal(u64::from(address.port())));
        }
        None => {
            part(b"");
            part(b"");
        }
    }
    let authority = request.authority();
    part(authority.host);
    match request.peer.local_port {
        0 => part(b""),
        port => part(&decimal(u64::from(port))),
    }
    if let Some(host) = meta_variables::host(&head.target, &head.fields) {
        part(b"host");
        part(host);
    }
    for field in head.fields.iter() {
        let left_out = match field.known {
            Some(Field::Host | Field::ContentLength | Field::Expect) => true,
            Some(known) => known.is_hop_by_hop(),
            // `X_A` would be taken for `X-A` by whatever makes variables of it (fault H18).
            None => memchr::memchr(b'_', field.name).is_some() || field.name.eq_ignore_ascii_case(b"proxy"),
        };
        if !left_out {
            part(&field.name.to_ascii_lowercase());
            part(field.value);
        }
    }
    if let Some(length) = length.filter(|&n| n > 0 || head.fields.contains(Field::ContentLength)) {
        part(b"content-length");
        part(&decimal(length));
    }
    out.pop();
}
