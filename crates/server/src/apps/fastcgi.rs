//! A FastCGI client (Open Market's FastCGI 1.0), for PHP-FPM and its like: which script answers, what it is told, and
//! what its answer means (RFC 3875 §6).
//!
//! The usual set-up has one script behind everything (a front controller): a path that is a file beneath the root is
//! served as a file, one that is a script runs that script, everything else runs the index script. Only regular
//! files that are beneath the root by the kernel's word are run, so a path cannot turn an upload into a script.
//!
//! Each request has a connection to itself, which is closed after it or, if the settings want it, kept for the next. A
//! kept one may be closed by the server just when a request is sent over it: only requests that may be sent twice go
//! that way (RFC 9110 §9.2.2), and are sent again over a new connection if nothing was heard.

mod kept;
#[cfg(test)]
mod tests;

use self::kept::{Connection, Kept};
use super::content::{Gathered, Rest, Source, gather, whole};
use crate::files::Files;
use crate::handler::Handled;
use crate::request::{Request, RequestContent};
use crate::response::{Content, Response};
use crate::spool::Spool;
use crate::worker::Worker;
use bytes::{Buf, Bytes, BytesMut};
use eleven_net::file::{Kind, Root};
use eleven_net::pipe::{PipeWriter, Reason, pipe};
use eleven_semantics::meta_variables::{self, Source as Variables};
use eleven_semantics::target::Scheme;
use eleven_semantics::{Fields, Known, Method, Status, grammar};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

const HEAD_BYTES: usize = 8;
/// Room for reading responses, to begin with.
const INPUT_BYTES: usize = 16_384;
/// Content put into one record: a multiple of eight, so that no padding is needed.
const CONTENT_BYTES: usize = 32_768;
/// The header section of a response.
const SECTION_BYTES_MAX: usize = 65_536;
/// Of what a script writes to its error stream, so much is logged.
const ERRORS_BYTES_MAX: usize = 16_384;
/// Content between the exchange and the session.
const PIPE_BYTES: usize = 65_536;
/// A path may name a script in several places; more are not looked for, since each costs a look at the disk.
const SCRIPTS_LOOKED_FOR_MAX: usize = 4;
/// The one request of a connection.
const REQUEST_ID: u16 = 1;

const BEGIN: u8 = 1;
const END: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// Where the FastCGI server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FastCgiAddress {
    /// A Unix socket.
    Unix(PathBuf),
    /// An address.
    Tcp(SocketAddr),
}

impl fmt::Display for FastCgiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FastCgiAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            FastCgiAddress::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// What FastCGI is used with.
#[derive(Debug, Clone)]
pub struct FastCgiSettings {
    /// The FastCGI server.
    pub address: FastCgiAddress,
    /// The directory of scripts and files, as the FastCGI server calls it.
    pub script_root: PathBuf,
    /// The script behind everything that is no file, such as `index.php`.
    pub index: String,
    /// What a script's name ends with.
    pub suffix: String,
    /// The path of the route, without a slash at its end; empty for the root.
    pub mount: String,
    /// More variables.
    pub variables: Vec<(String, String)>,
    /// How long connecting may take.
    pub connect_timeout_ms: u64,
    /// How long the script may be silent.
    pub response_timeout_ms: u64,
    /// Connections that each thread keeps between requests; 0: none. Each occupies a process of PHP-FPM.
    pub idle_per_thread_max: usize,
    /// How long one is kept.
    pub idle_timeout_ms: u64,
    /// Octets of request content that are collected; larger content is refused with 413, as its length has to be
    /// known before.
    pub request_spool_bytes_max: u64,
    /// Octets of a response kept for a slow client.
    pub response_spool_bytes_max: u64,
    /// Of either, octets in memory.
    pub spool_memory_bytes_max: usize,
    /// Where the rest is kept.
    pub spool_directory: PathBuf,
}

impl FastCgiSettings {
    /// PHP beneath `root`, with usual limits.
    pub fn new(address: FastCgiAddress, root: impl Into<PathBuf>) -> FastCgiSettings {
        FastCgiSettings {
            address,
            script_root: root.into(),
            index: "index.php".to_owned(),
            suffix: ".php".to_owned(),
            mount: String::new(),
            variables: Vec::new(),
            connect_timeout_ms: 5_000,
            response_timeout_ms: 60_000,
            idle_per_thread_max: 0,
            idle_timeout_ms: 10_000,
            request_spool_bytes_max: 1 << 30,
            response_spool_bytes_max: 1 << 30,
            spool_memory_bytes_max: 256 << 10,
            spool_directory: std::env::temp_dir(),
        }
    }
}

/// A FastCGI server as a handler. One for each thread.
#[derive(Debug)]
pub struct FastCgi {
    settings: Arc<FastCgiSettings>,
    root: Arc<Root>,
    /// Serves what is no script. Without it every path runs a script.
    files: Option<Files>,
    kept: Rc<Kept>,
}

/// The script that answers a path.
#[derive(Debug, PartialEq, Eq)]
struct Script {
    /// Its path beneath the root, with a slash in front.
    name: Vec<u8>,
    /// The rest of the path.
    path_info: Vec<u8>,
}

impl FastCgi {
    /// A handler whose scripts are looked for in `root`.
    pub fn new(settings: Arc<FastCgiSettings>, root: Arc<Root>, files: Option<Files>) -> FastCgi {
        let kept = Rc::new(Kept::new(settings.idle_per_thread_max, settings.idle_timeout_ms));
        FastCgi { settings, root, files, kept }
    }

    /// Answers a request by a file or a script.
    pub fn handle(&self, request: &mut Request, worker: &Worker) -> Handled {
        let path = match request.path() {
            Ok(path) => path.to_vec(),
            Err(why) => return Response::new(why.status()).into(),
        };
        let beneath = meta_variables::beneath(&path, self.settings.mount.as_bytes()).unwrap_or(&path);
        let script = self.script(beneath);
        let is_file_method = matches!(request.head.method, Method::Get | Method::Head);
        if let (None, Some(files), true) = (&script, &self.files, is_file_method)
            && !holds_script_name(beneath, self.settings.suffix.as_bytes())
            && let Handled::Ready(response) = files.handle(request, &worker.lend_to_files())
            && matches!(response.status.code(), 200..=299 | 304 | 412 | 416)
        {
            return Handled::Ready(response);
        }
        let Some(script) = script.or_else(|| self.index()) else {
            return Response::new(Status::NOT_FOUND).into();
        };
        let spool = Spool::new(self.settings.spool_memory_bytes_max, &self.settings.spool_directory);
        let settings = Arc::clone(&self.settings);
        let server = Server { settings: Arc::clone(&settings), kept: Rc::clone(&self.kept) };
        match std::mem::take(&mut request.content) {
            RequestContent::Empty => {
                let asked = Asked::new(&settings, request, &script, 0);
                Handled::later(exchange(server, asked, None))
            }
            RequestContent::Whole(octets, trailers) => {
                let mut spool = spool;
                let pushed = spool.push(octets);
                let gathered = whole(spool, trailers);
                if pushed.is_err() {
                    return Response::new(Status::INSUFFICIENT_STORAGE).into();
                }
                Handled::later(collected(server, request.take(), script, async { gathered }))
            }
            RequestContent::Pipe(reader) => {
                let gathering = gather(reader, None, settings.request_spool_bytes_max, spool);
                Handled::later(collected(server, request.take(), script, gathering))
            }
        }
    }

    fn is_script(&self, name: &[u8]) -> bool {
        let name = name.strip_prefix(b"/").unwrap_or(name);
        self.root.open(name).is_ok_and(|opened| opened.meta.kind == Kind::File)
    }

    /// The script named in the path, if there is one.
    fn script(&self, path: &[u8]) -> Option<Script> {
        let suffix = self.settings.suffix.as_bytes();
        let is_end =
            |&end: &usize| path[..end].ends_with(suffix) && matches!(path.get(end), None | Some(b'/'));
        let ends = (1..=path.len()).filter(is_end).take(SCRIPTS_LOOKED_FOR_MAX);
        for end in ends {
            if self.is_script(&path[..end]) {
                return Some(Script { name: path[..end].to_vec(), path_info: path[end..].to_vec() });
            }
        }
        None
    }

    fn index(&self) -> Option<Script> {
        let name = [b"/", self.settings.index.as_bytes()].concat();
        self.is_script(&name).then_some(Script { name, path_info: Vec::new() })
    }
}

/// Whether a segment of the path looks like a script: its source is never served.
fn holds_script_name(path: &[u8], suffix: &[u8]) -> bool {
    path.split(|&b| b == b'/').any(|segment| {
        segment.len() >= suffix.len() && segment[segment.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
    })
}

/// Where requests of this thread go.
#[derive(Debug, Clone)]
struct Server {
    settings: Arc<FastCgiSettings>,
    kept: Rc<Kept>,
}

/// A request as the FastCGI server is told.
#[derive(Debug)]
struct Asked {
    params: Bytes,
    is_head: bool,
    /// It means the same when it is sent twice.
    is_idempotent: bool,
}

impl Asked {
    fn new(settings: &FastCgiSettings, request: &Request, script: &Script, length: u64) -> Asked {
        let method = &request.head.method;
        Asked {
            params: params(settings, request, script, length).into(),
            is_head: *method == Method::Head,
            is_idempotent: method.is_idempotent(),
        }
    }
}

async fn collected(
    server: Server,
    request: Request,
    script: Script,
    gathering: impl Future<Output = Gathered>,
) -> Response {
    let (source, length) = match gathering.await {
        Gathered::Inline(octets) => {
            let mut spool = Spool::new(octets.len() + 1024, &server.settings.spool_directory);
            let length = octets.len() as u64;
            if spool.push(octets).is_err() {
                return Response::new(Status::INSUFFICIENT_STORAGE);
            }
            (Source { collected: spool, rest: Rest::End(None) }, length)
        }
        Gathered::Stream(source @ Source { rest: Rest::End(_), .. }, Some(length)) => (source, length),
        // CGI tells the length before the content.
        Gathered::Stream(..) => return Response::new(Status::CONTENT_TOO_LARGE),
        Gathered::Aborted(Reason::Storage) => return Response::new(Status::INSUFFICIENT_STORAGE),
        Gathered::Aborted(_) => return Response::new(Status::BAD_REQUEST),
    };
    let asked = Asked::new(&server.settings, &request, &script, length);
    exchange(server, asked, Some(source)).await
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..=127) => out.push(short),
        _ => out.extend_from_slice(&(length as u32 | 0x8000_0000).to_be_bytes()),
    }
}

fn push_pair(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    push_length(out, name.len());
    push_length(out, value.len());
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// All variables, as name-value pairs.
fn params(settings: &FastCgiSettings, request: &Request, script: &Script, length: u64) -> Vec<u8> {
    let head = &request.head;
    let mut out = Vec::with_capacity(2048);
    let root = settings.script_root.as_os_str().as_encoded_bytes();
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let file = [root, &script.name].concat();
    let name = [settings.mount.as_bytes(), &script.name].concat();
    let https = request.scheme() == Scheme::Https;
    for (name, value) in [
        (&b"GATEWAY_INTERFACE"[..], &b"CGI/1.1"[..]),
        (b"SERVER_SOFTWARE", concat!("eleven/", env!("CARGO_PKG_VERSION")).as_bytes()),
        // PHP refuses to run a script without it when it was built for safety from direct calls.
        (b"REDIRECT_STATUS", b"200"),
        (b"REQUEST_SCHEME", request.scheme().as_str().as_bytes()),
        (b"DOCUMENT_ROOT", root),
        (b"SCRIPT_FILENAME", &file),
        (b"SCRIPT_NAME", &name),
        (b"DOCUMENT_URI", &name),
        (b"PATH_INFO", &script.path_info),
    ] {
        push_pair(&mut out, name, value);
    }
    if https {
        push_pair(&mut out, b"HTTPS", b"on");
    }
    let variables = Variables {
        method: &head.method,
        target: &head.target,
        version: head.version,
        fields: &head.fields,
        path: b"",
        mount: b"",
        content_length: Some(length),
        client: request.peer.address,
        local_port: request.peer.local_port,
    };
    meta_variables::tell(&variables, &mut |name: &[u8], value: &[u8]| {
        if name != b"PATH_INFO" {
            push_pair(&mut out, name, value);
        }
    });
    for (name, value) in &settings.variables {
        push_pair(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

fn record_head(kind: u8, length: usize) -> [u8; HEAD_BYTES] {
    let ([id_high, id_low], [high, low]) = (REQUEST_ID.to_be_bytes(), (length as u16).to_be_bytes());
    [1, kind, id_high, id_low, high, low, 0, 0]
}

fn push_record(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    out.extend_from_slice(&record_head(kind, content.len()));
    out.extend_from_slice(content);
}

/// What begins a request: who answers, whether the connection is to be kept, and all variables.
fn opening(params: &[u8], keep: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(params.len() + 64);
    // The role is that of a responder.
    push_record(&mut out, BEGIN, &[0, 1, u8::from(keep), 0, 0, 0, 0, 0]);
    for part in params.chunks(CONTENT_BYTES) {
        push_record(&mut out, PARAMS, part);
    }
    push_record(&mut out, PARAMS, &[]);
    out
}

/// A record of the FastCGI server.
#[derive(Debug, PartialEq, Eq)]
enum Record {
    Out(Bytes),
    Err(Bytes),
    /// Whether the request was served, or why not.
    End(Result<(), &'static str>),
}

/// Takes the next record that matters off the front of `input`.
fn record(input: &mut BytesMut) -> Result<Option<Record>, &'static str> {
    loop {
        let Some(&[version, kind, id_high, id_low, high, low, padding, _]) = input.first_chunk() else {
            return Ok(None);
        };
        if version != 1 {
            return Err("it does not speak FastCGI 1");
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let total = HEAD_BYTES + length + usize::from(padding);
        if input.len() < total {
            return Ok(None);
        }
        let mut whole = input.split_to(total);
        whole.advance(HEAD_BYTES);
        whole.truncate(length);
        let content = whole.freeze();
        if u16::from_be_bytes([id_high, id_low]) != REQUEST_ID {
            // Management records, and requests that nobody made.
            continue;
        }
        match kind {
            STDOUT => return Ok(Some(Record::Out(content))),
            STDERR => return Ok(Some(Record::Err(content))),
            END => {
                return Ok(Some(Record::End(match content.get(4) {
                    Some(0) => Ok(()),
                    Some(2) => Err("it is overloaded"),
                    Some(_) => Err("it refuses the request"),
                    None => return Err("its end of request is too short"),
                })));
            }
            _ => {}
        }
    }
}

/// A response head as CGI has it (RFC 3875 §6.2, 6.3).
#[derive(Debug)]
struct CgiHead {
    status: Status,
    fields: Fields,
    content_length: Option<u64>,
}

/// Reads the header section at the start of `input`: its length, and what it says. `None` if it is not all there.
fn cgi_head(input: &[u8]) -> Result<Option<(usize, CgiHead)>, String> {
    let mut head = CgiHead { status: Status::OK, fields: Fields::new(), content_length: None };
    let (mut at, mut status) = (0, None);
    loop {
        let Some(end) = memchr::memchr(b'\n', &input[at..]) else {
            if input.len() > SECTION_BYTES_MAX {
                return Err("its header section is too long".to_owned());
            }
            return Ok(None);
        };
        let line = &input[at..at + end];
        at += end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let text = || String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
        let colon = memchr::memchr(b':', line).ok_or_else(|| format!("no header field: {:?}", text()))?;
        let (name, value) = (&line[..colon], grammar::trim_ows(&line[colon + 1..]));
        match Known::lookup(name) {
            Some(Known::ContentLength) => {
                head.content_length =
                    Some(grammar::decimal(value).ok_or_else(|| format!("no length: {:?}", text()))?);
            }
            Some(Known::Date) => {}
            Some(known) if known.is_hop_by_hop() => {}
            _ if name.eq_ignore_ascii_case(b"status") => {
                let code = value.get(..3).and_then(grammar::decimal).and_then(|n| Status::new(n as u16));
                let code =
                    code.filter(|code| !code.is_interim() && matches!(value.get(3), None | Some(b' ')));
                status = Some(code.ok_or_else(|| format!("no final status: {:?}", text()))?);
            }
            _ => head.fields.push(name, value).map_err(|why| format!("{why}: {:?}", text()))?,
        }
    }
    let redirects = head.fields.contains(Known::Location);
    head.status = status.unwrap_or(if redirects { Status::FOUND } else { Status::OK });
    Ok(Some((at, head)))
}

async fn connect(address: &FastCgiAddress) -> io::Result<Connection> {
    Ok(match address {
        FastCgiAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        FastCgiAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    })
}

/// Writes the request; content follows as fast as it is taken. Returns the side it wrote to.
async fn write_request(
    mut to: WriteHalf<Connection>,
    opening: Vec<u8>,
    source: Option<Source>,
) -> io::Result<WriteHalf<Connection>> {
    let mut opening = opening;
    if source.is_none() {
        // All there is goes out in one call.
        opening.extend_from_slice(&record_head(STDIN, 0));
    }
    to.write_all(&opening).await?;
    if let Some(Source { mut collected, .. }) = source {
        while !collected.is_empty() {
            for part in collected.pop()?.chunks(CONTENT_BYTES) {
                to.write_all(&record_head(STDIN, part.len())).await?;
                to.write_all(part).await?;
            }
        }
        to.write_all(&record_head(STDIN, 0)).await?;
    }
    to.flush().await?;
    Ok(to)
}

/// Writes the request while the response is read. Dropping it ends that.
struct Writing(JoinHandle<Option<WriteHalf<Connection>>>);

impl Writing {
    fn start(to: WriteHalf<Connection>, opening: Vec<u8>, source: Option<Source>) -> Writing {
        Writing(tokio::task::spawn_local(async move {
            let written = write_request(to, opening, source).await;
            // It may answer without reading; what it answers counts.
            written
                .inspect_err(
                    |error| tracing::debug!(%error, "the FastCGI server did not take the whole request"),
                )
                .ok()
        }))
    }

    /// The side that was written to, if the whole request was.
    async fn finished(&mut self) -> Option<WriteHalf<Connection>> {
        if self.0.is_finished() { (&mut self.0).await.ok().flatten() } else { None }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the response of one request.
struct Answer {
    server: Server,
    /// `None` once the connection was kept.
    from: Option<ReadHalf<Connection>>,
    input: BytesMut,
    errors: Vec<u8>,
    writing: Writing,
    /// Something came from the server.
    is_heard: bool,
}

impl Answer {
    /// The next record that is no error output. An error says what the server did wrong, and the status for it.
    async fn next(&mut self) -> Result<Record, (Status, String)> {
        let silence = Duration::from_millis(self.server.settings.response_timeout_ms);
        let closed = || (Status::BAD_GATEWAY, "it closed the connection".to_owned());
        loop {
            match record(&mut self.input).map_err(|why| (Status::BAD_GATEWAY, why.to_owned()))? {
                Some(Record::Err(octets)) => self.note(&octets),
                Some(record) => return Ok(record),
                None => {
                    let from = self.from.as_mut().ok_or_else(closed)?;
                    match tokio::time::timeout(silence, from.read_buf(&mut self.input)).await {
                        Err(_) => return Err((Status::GATEWAY_TIMEOUT, "it is silent".to_owned())),
                        Ok(Ok(0)) => return Err(closed()),
                        Ok(Ok(_)) => self.is_heard = true,
                        Ok(Err(error)) => return Err((Status::BAD_GATEWAY, error.to_string())),
                    }
                }
            }
        }
    }

    /// Takes what a script wrote to its error stream.
    fn note(&mut self, octets: &[u8]) {
        let room = ERRORS_BYTES_MAX - self.errors.len();
        self.errors.extend_from_slice(&octets[..octets.len().min(room)]);
    }

    /// The request is over: its connection may serve the next, unless something of this one is left.
    async fn release(&mut self) {
        if !self.input.is_empty() || !self.server.kept.is_on() {
            return;
        }
        if let Some(to) = self.writing.finished().await
            && let Some(from) = self.from.take()
        {
            self.server.kept.keep(from.unsplit(to));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.errors.is_empty() {
            let errors = String::from_utf8_lossy(&self.errors);
            let server = &self.server.settings.address;
            tracing::warn!(%server, errors = errors.trim_end(), "a script wrote to its error stream");
        }
    }
}

async fn exchange(server: Server, asked: Asked, source: Option<Source>) -> Response {
    // Content cannot be sent again, as it is gone then.
    if asked.is_idempotent
        && source.is_none()
        && let Some(connection) = server.kept.take()
    {
        match ask(&server, connection, &asked, None).await {
            Err(failed) if !failed.is_heard && failed.status == Status::BAD_GATEWAY => {
                tracing::debug!(server = %server.settings.address, why = failed.why, "a kept connection was closed");
            }
            result => return answered(&server, result),
        }
    }
    let limit = Duration::from_millis(server.settings.connect_timeout_ms);
    match tokio::time::timeout(limit, connect(&server.settings.address)).await {
        Ok(Ok(connection)) => answered(&server, ask(&server, connection, &asked, source).await),
        Ok(Err(error)) => {
            tracing::error!(server = %server.settings.address, %error, "the FastCGI server cannot be reached (502)");
            Response::new(Status::BAD_GATEWAY)
        }
        Err(_) => {
            tracing::error!(server = %server.settings.address, "connecting to the FastCGI server took too long (504)");
            Response::new(Status::GATEWAY_TIMEOUT)
        }
    }
}

/// Why there is no response.
struct Failed {
    status: Status,
    why: String,
    /// Something came from the server.
    is_heard: bool,
}

fn answered(server: &Server, result: Result<Response, Failed>) -> Response {
    result.unwrap_or_else(|Failed { status, why, .. }| {
        tracing::error!(server = %server.settings.address, status = status.code(), "the FastCGI server failed: {why}");
        Response::new(status)
    })
}

/// Sends the request and waits for the head of the response.
async fn ask(
    server: &Server,
    connection: Connection,
    asked: &Asked,
    source: Option<Source>,
) -> Result<Response, Failed> {
    let (from, to) = tokio::io::split(connection);
    let mut answer = Answer {
        server: server.clone(),
        from: Some(from),
        input: BytesMut::with_capacity(INPUT_BYTES),
        errors: Vec::new(),
        writing: Writing::start(to, opening(&asked.params, server.kept.is_on()), source),
        is_heard: false,
    };
    match respond(&mut answer).await {
        Ok((head, first, ended)) => {
            if ended {
                answer.release().await;
            }
            Ok(content(answer, head, first, ended, asked.is_head))
        }
        Err((status, why)) => Err(Failed { status, why, is_heard: answer.is_heard }),
    }
}

/// Waits for the head. Returns it with the content that came along, and whether that is all.
async fn respond(answer: &mut Answer) -> Result<(CgiHead, Bytes, bool), (Status, String)> {
    let mut section = BytesMut::new();
    loop {
        match answer.next().await? {
            Record::Out(octets) => section.extend_from_slice(&octets),
            Record::End(Err(why)) => return Err((Status::SERVICE_UNAVAILABLE, why.to_owned())),
            Record::End(Ok(())) => {
                return Err((Status::BAD_GATEWAY, "the script gave no response".to_owned()));
            }
            Record::Err(_) => {}
        }
        if let Some((length, head)) = cgi_head(&section).map_err(|why| (Status::BAD_GATEWAY, why))? {
            section.advance(length);
            break finish_short(answer, section, head).await;
        }
    }
}

/// A short response is complete by now or within the same read: then its length can be told.
async fn finish_short(
    answer: &mut Answer,
    mut first: BytesMut,
    head: CgiHead,
) -> Result<(CgiHead, Bytes, bool), (Status, String)> {
    loop {
        match record(&mut answer.input) {
            Ok(Some(Record::Out(octets))) => first.extend_from_slice(&octets),
            Ok(Some(Record::End(_))) => return Ok((head, first.freeze(), true)),
            Ok(Some(Record::Err(octets))) => answer.note(&octets),
            Ok(None) => return Ok((head, first.freeze(), false)),
            Err(why) => return Err((Status::BAD_GATEWAY, why.to_owned())),
        }
    }
}

fn content(answer: Answer, head: CgiHead, first: Bytes, ended: bool, is_head: bool) -> Response {
    let mut response = Response::new(head.status);
    response.fields = head.fields.into();
    response.content = if head.status.never_has_content() {
        Content::Empty
    } else if is_head {
        Content::Described(head.content_length)
    } else if ended && head.content_length.is_none_or(|length| length == first.len() as u64) {
        Content::Bytes(first)
    } else {
        let (writer, reader) = pipe(PIPE_BYTES);
        let spool = Spool::new(
            answer.server.settings.spool_memory_bytes_max,
            &answer.server.settings.spool_directory,
        );
        let end = ended.then_some(Ok(()));
        let pump = Pump { answer, writer, spool, current: Bytes::new(), left: head.content_length, end };
        tokio::task::spawn_local(pump.run(first));
        Content::Pipe(reader, head.content_length)
    };
    response
}

/// Moves content from the script to the session, keeping what the session does not take yet.
struct Pump {
    answer: Answer,
    writer: PipeWriter<Option<Box<Fields>>>,
    spool: Spool,
    current: Bytes,
    left: Option<u64>,
    end: Option<Result<(), Reason>>,
}

enum Step {
    ReaderGone,
    Room,
    Read(Result<Record, Reason>),
}

impl Pump {
    async fn run(mut self, first: Bytes) {
        self.keep(first);
        loop {
            if self.current.is_empty() {
                match self.spool.pop() {
                    Ok(octets) => self.current = octets,
                    Err(_) => self.end = Some(Err(Reason::Storage)),
                }
            }
            if self.current.is_empty() && self.end.is_some() {
                break;
            }
            match self.step().await {
                Step::ReaderGone => return,
                Step::Room => {
                    // Fails only if the reader has gone, which the next step tells.
                    let _ = self.writer.push(&mut self.current);
                }
                Step::Read(Ok(Record::Out(octets))) => self.keep(octets),
                Step::Read(Ok(Record::End(_))) => {
                    self.end = Some(Ok(()));
                    self.answer.release().await;
                }
                Step::Read(Ok(Record::Err(_))) => {}
                Step::Read(Err(reason)) => self.end = Some(Err(reason)),
            }
        }
        match self.end {
            Some(Ok(())) if self.left.is_some_and(|left| left > 0) => {
                tracing::error!(server = %self.answer.server.settings.address, "a script gave less content than its Content-Length says");
                self.writer.abort(Reason::Truncated);
            }
            Some(Ok(())) => self.writer.complete(None),
            Some(Err(reason)) => self.writer.abort(reason),
            None => self.writer.abort(Reason::WriterGone),
        }
    }

    async fn step(&mut self) -> Step {
        let full = self.spool.len() >= self.answer.server.settings.response_spool_bytes_max;
        let reads = self.end.is_none() && !full;
        let (answer, writer, has_output) = (&mut self.answer, &mut self.writer, !self.current.is_empty());
        let mut reading =
            std::pin::pin!(async { if reads { answer.next().await } else { std::future::pending().await } });
        poll_fn(|cx| {
            if writer.poll_reader_gone(cx).is_ready() {
                return Poll::Ready(Step::ReaderGone);
            }
            if has_output && writer.poll_ready(cx).is_ready() {
                return Poll::Ready(Step::Room);
            }
            reading.as_mut().poll(cx).map(|result| {
                Step::Read(result.map_err(|(status, why)| {
                    tracing::error!(
                        status = status.code(),
                        "the FastCGI server failed within its response: {why}"
                    );
                    if status == Status::GATEWAY_TIMEOUT { Reason::TimedOut } else { Reason::Broken }
                }))
            })
        })
        .await
    }

    fn keep(&mut self, mut octets: Bytes) {
        if let Some(left) = &mut self.left {
            octets.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= octets.len() as u64;
        }
        if let Err(error) = self.spool.push(octets) {
            tracing::error!(%error, "content for a slow client cannot be kept on disk");
            self.end = Some(Err(Reason::Storage));
        }
    }
}
