//! A FastCGI client (Open Market's FastCGI 1.0), for PHP-FPM and its like: which script answers, what it is told, and
//! what its answer means (RFC 3875 §6).
//!
//! The usual set-up has one script behind everything (a front controller): a path that is a file beneath the root is
//! served as a file, one that is a script runs that script, everything else runs the index script. Only regular
//! files that are beneath the root by the kernel's word are run, so a path cannot turn an upload into a script.
//!
//! Each request has a connection of its own. Kept connections would each occupy a process of PHP-FPM.

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
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

const HEAD_BYTES: usize = 8;
const RECORD_BYTES_MAX: usize = 65_535;
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
        FastCgi { settings, root, files }
    }

    /// Answers a request by a file or a script.
    pub fn handle(&self, request: &mut Request, worker: &Worker) -> Handled {
        let path = match request.path() {
            Ok(path) => path.to_vec(),
            Err(_) => return Response::new(Status::BAD_REQUEST).into(),
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
        match std::mem::take(&mut request.content) {
            RequestContent::Empty => {
                let params = params(&settings, request, &script, 0);
                Handled::later(exchange(settings, params, None, request.head.method == Method::Head))
            }
            RequestContent::Whole(octets, trailers) => {
                let mut spool = spool;
                let pushed = spool.push(octets);
                let gathered = whole(spool, trailers);
                if pushed.is_err() {
                    return Response::new(Status::INSUFFICIENT_STORAGE).into();
                }
                Handled::later(collected(settings, request.take(), script, async { gathered }))
            }
            RequestContent::Pipe(reader) => {
                let gathering = gather(reader, None, settings.request_spool_bytes_max, spool);
                Handled::later(collected(settings, request.take(), script, gathering))
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

async fn collected(
    settings: Arc<FastCgiSettings>,
    request: Request,
    script: Script,
    gathering: impl Future<Output = Gathered>,
) -> Response {
    let is_head = request.head.method == Method::Head;
    let (source, length) = match gathering.await {
        Gathered::Inline(octets) => {
            let mut spool = Spool::new(octets.len() + 1024, &settings.spool_directory);
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
    let params = params(&settings, &request, &script, length);
    exchange(settings, params, Some(source), is_head).await
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

/// What begins a request: who answers, and all variables.
fn opening(params: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(params.len() + 64);
    // A responder; the connection is closed after it.
    push_record(&mut out, BEGIN, &[0, 1, 0, 0, 0, 0, 0, 0]);
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

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}
type Connection = Box<dyn Duplex>;

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

/// Writes the request; content follows as fast as it is taken.
async fn write_request(
    mut to: WriteHalf<Connection>,
    params: Vec<u8>,
    source: Option<Source>,
) -> io::Result<()> {
    to.write_all(&opening(&params)).await?;
    if let Some(Source { mut collected, .. }) = source {
        while !collected.is_empty() {
            for part in collected.pop()?.chunks(CONTENT_BYTES) {
                to.write_all(&record_head(STDIN, part.len())).await?;
                to.write_all(part).await?;
            }
        }
    }
    to.write_all(&record_head(STDIN, 0)).await?;
    to.flush().await
}

/// Ends a task when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads the response of one request.
struct Answer {
    settings: Arc<FastCgiSettings>,
    from: ReadHalf<Connection>,
    input: BytesMut,
    errors: Vec<u8>,
    _writing: Task,
}

impl Answer {
    /// The next record that is no error output. An error says what the server did wrong, and the status for it.
    async fn next(&mut self) -> Result<Record, (Status, String)> {
        let silence = Duration::from_millis(self.settings.response_timeout_ms);
        loop {
            match record(&mut self.input).map_err(|why| (Status::BAD_GATEWAY, why.to_owned()))? {
                Some(Record::Err(octets)) => {
                    let room = ERRORS_BYTES_MAX - self.errors.len();
                    self.errors.extend_from_slice(&octets[..octets.len().min(room)]);
                }
                Some(record) => return Ok(record),
                None => match tokio::time::timeout(silence, self.from.read_buf(&mut self.input)).await {
                    Err(_) => return Err((Status::GATEWAY_TIMEOUT, "it is silent".to_owned())),
                    Ok(Ok(0)) => return Err((Status::BAD_GATEWAY, "it closed the connection".to_owned())),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err((Status::BAD_GATEWAY, error.to_string())),
                },
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.errors.is_empty() {
            let errors = String::from_utf8_lossy(&self.errors);
            tracing::warn!(server = %self.settings.address, errors = errors.trim_end(), "a script wrote to its error stream");
        }
    }
}

async fn exchange(
    settings: Arc<FastCgiSettings>,
    params: Vec<u8>,
    source: Option<Source>,
    is_head: bool,
) -> Response {
    let limit = Duration::from_millis(settings.connect_timeout_ms);
    let connection = match tokio::time::timeout(limit, connect(&settings.address)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::error!(server = %settings.address, %error, "the FastCGI server cannot be reached (502)");
            return Response::new(Status::BAD_GATEWAY);
        }
        Err(_) => {
            tracing::error!(server = %settings.address, "connecting to the FastCGI server took too long (504)");
            return Response::new(Status::GATEWAY_TIMEOUT);
        }
    };
    let (from, to) = tokio::io::split(connection);
    let writing = tokio::task::spawn_local(async move {
        if let Err(error) = write_request(to, params, source).await {
            // It may answer without reading; what it answers counts.
            tracing::debug!(%error, "the FastCGI server did not take the whole request");
        }
    });
    let input = BytesMut::with_capacity(RECORD_BYTES_MAX);
    let mut answer =
        Answer { settings: Arc::clone(&settings), from, input, errors: Vec::new(), _writing: Task(writing) };
    match respond(&mut answer).await {
        Ok((head, first, ended)) => content(answer, head, first, ended, is_head),
        Err((status, why)) => {
            tracing::error!(server = %settings.address, status = status.code(), "the FastCGI server failed: {why}");
            Response::new(status)
        }
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
            Ok(Some(Record::Err(octets))) => {
                let room = ERRORS_BYTES_MAX - answer.errors.len();
                answer.errors.extend_from_slice(&octets[..octets.len().min(room)]);
            }
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
        let spool = Spool::new(answer.settings.spool_memory_bytes_max, &answer.settings.spool_directory);
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
                Step::Read(Ok(Record::End(_))) => self.end = Some(Ok(())),
                Step::Read(Ok(Record::Err(_))) => {}
                Step::Read(Err(reason)) => self.end = Some(Err(reason)),
            }
        }
        match self.end {
            Some(Ok(())) if self.left.is_some_and(|left| left > 0) => {
                tracing::error!(server = %self.answer.settings.address, "a script gave less content than its Content-Length says");
                self.writer.abort(Reason::Truncated);
            }
            Some(Ok(())) => self.writer.complete(None),
            Some(Err(reason)) => self.writer.abort(reason),
            None => self.writer.abort(Reason::WriterGone),
        }
    }

    async fn step(&mut self) -> Step {
        let full = self.spool.len() >= self.answer.settings.response_spool_bytes_max;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_pairs() {
        let mut out = Vec::new();
        push_pair(&mut out, b"AB", &[b'x'; 127]);
        assert_eq!(out[..4], [2, 127, b'A', b'B']);
        out.clear();
        push_pair(&mut out, b"A", &[b'x'; 128]);
        assert_eq!(out[..6], [1, 0x80, 0, 0, 128, b'A']);
    }

    #[test]
    fn requests_open_with_all_variables() {
        let opened = opening(&[7; 40_000]);
        assert_eq!(opened[..16], [1, BEGIN, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(opened[16..24], [1, PARAMS, 0, 1, 0x80, 0, 0, 0]);
        assert_eq!(opened[opened.len() - 8..], [1, PARAMS, 0, 1, 0, 0, 0, 0]);
        assert_eq!(opened.len(), 16 + 8 + 32_768 + 8 + 7_232 + 8);
    }

    #[test]
    fn records() {
        let mut input = Vec::new();
        push_record(&mut input, STDOUT, b"hello");
        // Padding, and a record of another request.
        input.extend_from_slice(&[1, STDERR, 0, 1, 0, 1, 3, 0, b'e', 0, 0, 0]);
        input.extend_from_slice(&[1, STDOUT, 0, 9, 0, 1, 0, 0, b'x']);
        push_record(&mut input, END, &[0, 0, 0, 0, 0, 0, 0, 0]);
        for step in [1, input.len()] {
            let (mut buffer, mut records) = (BytesMut::new(), Vec::new());
            for part in input.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(found) = record(&mut buffer).unwrap() {
                    records.push(found);
                }
            }
            let expected = [
                Record::Out(Bytes::from_static(b"hello")),
                Record::Err(Bytes::from_static(b"e")),
                Record::End(Ok(())),
            ];
            assert_eq!(records, expected);
        }
        let mut bad = BytesMut::from(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]);
        assert!(record(&mut bad).is_err());
        let mut overloaded = BytesMut::from(&[1, END, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0][..]);
        assert_eq!(record(&mut overloaded), Ok(Some(Record::End(Err("it is overloaded")))));
        let mut short = BytesMut::from(&[1, END, 0, 1, 0, 1, 0, 0, 0][..]);
        assert!(record(&mut short).is_err());
    }

    #[test]
    fn heads_as_cgi_has_them() {
        let read = |text: &str| {
            cgi_head(text.as_bytes()).map(|head| head.map(|(at, head)| (at, head.status.code())))
        };
        assert_eq!(read("Content-type: text/html\r\n\r\nbody"), Ok(Some((27, 200))));
        assert_eq!(read("Status: 404 Not Found\nX: y\n\n"), Ok(Some((28, 404))));
        assert_eq!(read("Location: /a\r\n\r\n"), Ok(Some((16, 302))));
        assert_eq!(read("Status: 301\r\nLocation: /a\r\n\r\n"), Ok(Some((29, 301))));
        assert_eq!(read("\n"), Ok(Some((1, 200))));
        assert_eq!(read("Content-type: text/html\r\n"), Ok(None));
        for bad in [
            "no field\r\n\r\n",
            "Status: 99\r\n\r\n",
            "Status: 100 Continue\r\n\r\n",
            "Status: 2000\r\n\r\n",
            "bad name: x\r\n\r\n",
            "X: a\rb\r\n\r\n",
            "Content-Length: +5\r\n\r\n",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(cgi_head(&vec![b'x'; SECTION_BYTES_MAX + 1]).is_err());
        let (_, head) = cgi_head(b"Transfer-Encoding: chunked\nConnection: close\nContent-Length: 7\n\n")
            .unwrap()
            .unwrap();
        assert_eq!((head.fields.len(), head.content_length), (0, Some(7)));
    }

    /// An upload is not a script, and a script's source is not a file (faults of `cgi.fix_pathinfo`).
    #[test]
    fn which_script_answers() {
        let folder = std::env::temp_dir().join(format!("eleven-scripts-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("admin.php")).unwrap();
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        for name in ["index.php", "sub/info.php", "evil.jpg"] {
            std::fs::write(folder.join(name), "<?php").unwrap();
        }
        let settings = FastCgiSettings::new(FastCgiAddress::Unix("/nowhere".into()), &folder);
        let root = Root::open_directory(&folder, Default::default()).unwrap();
        let fastcgi = FastCgi::new(Arc::new(settings), Arc::new(root), None);
        let script = |path: &str| fastcgi.script(path.as_bytes());
        let is = |name: &str, rest: &str| Some(Script { name: name.into(), path_info: rest.into() });
        assert_eq!(script("/sub/info.php"), is("/sub/info.php", ""));
        assert_eq!(script("/sub/info.php/a/b.php"), is("/sub/info.php", "/a/b.php"));
        assert_eq!(script("/index.php"), is("/index.php", ""));
        for none in ["/", "/evil.jpg/x.php", "/missing.php", "/admin.php", "/sub/info.phpx", "/sub/info.PHP"]
        {
            assert_eq!(script(none), None, "{none}");
        }
        assert_eq!(fastcgi.index(), is("/index.php", ""));
        assert!(holds_script_name(b"/a/info.PHP/x", b".php"));
        assert!(!holds_script_name(b"/a/php/x.css", b".php"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
