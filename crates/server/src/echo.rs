//! The diagnostic origin server, for people who debug clients and proxies: greets, echoes content and requests,
//! and answers with any status, delay, stream or size on demand.

use crate::handler::Handled;
use crate::refusal::bad_path;
use crate::request::{ContentReader, Request, RequestContent};
use crate::response::{Content, Response};
use bytes::Bytes;
use eleven_net::pipe::{Next, Reason, pipe};
use eleven_semantics::grammar::decimal;
use eleven_semantics::names::Known;
use eleven_semantics::{Fields, Method, Status};
use std::time::Duration;

const TEXT: &str = "text/plain; charset=utf-8";
const GREETING: &str = "Hello from eleven.\n";
/// Longest `/delay`, in seconds.
const DELAY_SECONDS_MAX: u64 = 60;
/// Most lines of `/stream`.
const STREAM_LINES_MAX: u64 = 1_000_000;
/// Largest `/bytes`, in octets: 1 GiB.
const BYTES_MAX: u64 = 1 << 30;
/// Content that `/echo` repeats: 1 MiB.
const ECHOED_BYTES_MAX: usize = 1 << 20;
/// Content that flows waits in no more than this many octets.
const PIPE_BYTES: usize = 64 * 1024;

/// The handler.
#[derive(Debug, Default)]
pub struct Echo;

impl Echo {
    /// Answers a request.
    pub fn handle(&self, request: &mut Request) -> Handled {
        let path = match request.path() {
            Ok(path) => path.to_vec(),
            Err(why) => return bad_path(why).into(),
        };
        let segments: Vec<&[u8]> = path[1..].split(|&b| b == b'/').collect();
        let allowed: &'static str = match segments[0] {
            b"" if request.head.method == Method::Options => {
                return allow_options("GET, HEAD, POST, PUT, OPTIONS");
            }
            b"" => "GET, HEAD, POST, PUT, OPTIONS",
            b"echo" => "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS",
            b"status" | b"delay" => "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS",
            _ => "GET, HEAD, OPTIONS",
        };
        if request.head.method == Method::Options {
            return allow_options(allowed);
        }
        if !allowed.split(", ").any(|m| m == request.head.method.as_str()) {
            let status = if request.head.method.is_known() {
                Status::METHOD_NOT_ALLOWED
            } else {
                Status::NOT_IMPLEMENTED
            };
            let mut response = Response::text(status, TEXT, format!("{status}\n"));
            response.add(Known::Allow, allowed);
            return response.into();
        }
        match (segments[0], segments.get(1).copied().unwrap_or_default()) {
            (b"", _) if matches!(request.head.method, Method::Post | Method::Put) => echo_content(request),
            (b"", _) => Response::text(Status::OK, TEXT, GREETING).into(),
            (b"echo", _) => echo_request(request),
            (b"cookie", _) => Response::text(Status::OK, TEXT, cookies(&request.head.fields)).into(),
            (b"status", code) => status(code).into(),
            (b"delay", seconds) => delay(seconds),
            (b"stream", lines) => stream(lines),
            (b"bytes", length) => octets(length),
            (b"early-hints", _) => early_hints(request),
            _ => Response::text(Status::NOT_FOUND, TEXT, "no such page; try /, /echo, /cookie, /status/404, /delay/1, /stream/10, /bytes/1000, /early-hints\n").into(),
        }
    }
}

fn allow_options(methods: &'static str) -> Handled {
    let mut response = Response::new(Status::NO_CONTENT);
    response.add(Known::Allow, methods);
    response.into()
}

fn bad(text: &'static str) -> Response {
    Response::text(Status::BAD_REQUEST, TEXT, text)
}

/// The content as it came, with its media type and trailers. Of unknown length it goes out as it came in.
fn echo_content(request: &mut Request) -> Handled {
    let mut response = Response::new(Status::OK);
    for known in [Known::ContentType, Known::ContentEncoding, Known::ContentLanguage] {
        if let Some(value) = request.head.fields.combined(known) {
            response.add(known, value);
        }
    }
    if !request.head.fields.contains(Known::ContentType) {
        response.add(Known::ContentType, "application/octet-stream");
    }
    response.content = match std::mem::take(&mut request.content) {
        RequestContent::Empty => Content::Bytes(Bytes::new()),
        RequestContent::Whole(bytes, trailers) => whole(bytes, trailers),
        RequestContent::Pipe(content) => {
            return Handled::later(echo_flowing(response, content, request.content_length));
        }
    };
    response.into()
}

/// Content that is here already, with its trailers if it has any.
fn whole(mut bytes: Bytes, trailers: Option<Box<Fields>>) -> Content {
    if trailers.is_none() {
        return Content::Bytes(bytes);
    }
    let (mut writer, reader) = pipe(bytes.len() + 128);
    // The pipe was made large enough to take it all at once.
    let _ = writer.push(&mut bytes);
    writer.complete(trailers);
    Content::Pipe(reader, None)
}

/// Waits for the end of content that is small, so that a fault in its framing is answered with 400, and the
/// connection can go on behind it; larger content flows back while it still comes.
async fn echo_flowing(mut response: Response, mut content: ContentReader, length: Option<u64>) -> Response {
    let mut begun = Vec::new();
    while begun.len() < PIPE_BYTES {
        match content.next().await {
            Next::Data(bytes) => begun.extend_from_slice(&bytes),
            Next::Complete(trailers) => {
                response.content = whole(begun.into(), trailers);
                return response;
            }
            // Whatever the client did wrong, the session has the better words for it.
            Next::Aborted(reason) => return bad_because(reason),
        }
    }
    let (mut writer, reader) = pipe(PIPE_BYTES);
    tokio::task::spawn_local(async move {
        let mut next = Next::Data(begun.into());
        loop {
            match next {
                Next::Data(bytes) => {
                    if writer.send(bytes).await.is_err() {
                        return;
                    }
                }
                Next::Complete(trailers) => return writer.complete(trailers),
                Next::Aborted(reason) => return writer.abort(reason),
            }
            next = content.next().await;
        }
    });
    response.content = Content::Pipe(reader, length);
    response
}

fn bad_because(reason: Reason) -> Response {
    Response::text(Status::BAD_REQUEST, TEXT, format!("{reason}\n"))
}

/// The request as received, with its content, up to a measure.
fn echo_request(request: &mut Request) -> Handled {
    if !matches!(request.content, RequestContent::Pipe(_)) {
        return Response::text(Status::OK, TEXT, describe(request)).into();
    }
    let mut request = request.take();
    Handled::later(async move {
        if let RequestContent::Pipe(reader) = std::mem::take(&mut request.content) {
            request.content = match read_whole(reader, ECHOED_BYTES_MAX).await {
                Ok((content, trailers)) => RequestContent::Whole(content, trailers),
                Err(Reason::TooLarge) => return Response::new(Status::CONTENT_TOO_LARGE),
                Err(_) => return bad("the content did not come to its end\n"),
            };
        }
        Response::text(Status::OK, TEXT, describe(&request))
    })
}

/// The request as received, line by line.
fn describe(request: &Request) -> Vec<u8> {
    let head = &request.head;
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target.as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.version.as_str().as_bytes());
    out.push(b'\n');
    for field in head.fields.iter() {
        out.extend_from_slice(field.name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.push(b'\n');
    }
    if let RequestContent::Whole(content, trailers) = &request.content {
        out.push(b'\n');
        out.extend_from_slice(content);
        if let Some(trailers) = trailers {
            out.push(b'\n');
            for field in trailers.iter() {
                out.extend_from_slice(field.name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value);
                out.push(b'\n');
            }
        }
    }
    out
}

/// The cookie pairs, one a line.
fn cookies(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for value in fields.all(Known::Cookie) {
        for pair in eleven_semantics::grammar::semicolons(value) {
            out.extend_from_slice(pair);
            out.push(b'\n');
        }
    }
    out
}

fn status(code: &[u8]) -> Response {
    let Some(status) = decimal(code).and_then(|n| u16::try_from(n).ok()).and_then(Status::new) else {
        return bad("/status/NNN takes a status code from 200 to 599\n");
    };
    if status.is_interim() {
        return bad("/status/NNN takes a final status code, from 200 to 599\n");
    }
    if status.never_has_content() || status == Status::RESET_CONTENT {
        return Response::new(status);
    }
    let mut response = Response::text(status, TEXT, format!("{status}\n"));
    match status {
        // 9110-11.6.1-01, 9110-15.5.8-01, 9110-15.5.6-01 and others: what the status must come with.
        Status::UNAUTHORIZED => {
            response.add(Known::WwwAuthenticate, "Basic realm=\"eleven\", charset=\"UTF-8\"")
        }
        Status::PROXY_AUTHENTICATION_REQUIRED => {
            response.add(Known::ProxyAuthenticate, "Basic realm=\"eleven\", charset=\"UTF-8\"")
        }
        Status::METHOD_NOT_ALLOWED => response.add(Known::Allow, "GET, HEAD, OPTIONS"),
        Status::RANGE_NOT_SATISFIABLE => response.add(Known::ContentRange, "bytes */0"),
        Status::UPGRADE_REQUIRED => response.add(Known::Upgrade, "websocket"),
        Status::SERVICE_UNAVAILABLE | Status::TOO_MANY_REQUESTS => response.add(Known::RetryAfter, "1"),
        _ if (300..400).contains(&status.code()) => response.add(Known::Location, "/"),
        _ => &mut response,
    };
    response
}

fn delay(seconds: &[u8]) -> Handled {
    let (whole, fraction) = match seconds.iter().position(|&b| b == b'.') {
        Some(at) => (&seconds[..at], &seconds[at + 1..]),
        None => (seconds, &b""[..]),
    };
    let millis = match (decimal(whole), fraction.len()) {
        (Some(n), 0) if n <= DELAY_SECONDS_MAX => n * 1000,
        (Some(n), digits @ 1..=3) if n < DELAY_SECONDS_MAX => match decimal(fraction) {
            Some(part) => n * 1000 + part * 10u64.pow(3 - digits as u32),
            None => return bad("/delay/SECONDS takes a number such as 1 or 0.25\n").into(),
        },
        _ => return bad("/delay/SECONDS takes a number up to 60, such as 1 or 0.25\n").into(),
    };
    Handled::later(async move {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Response::text(Status::OK, TEXT, format!("waited {millis} ms\n"))
    })
}

/// N lines, chunked, with a trailer that counts them.
fn stream(lines: &[u8]) -> Handled {
    let Some(lines) = decimal(lines).filter(|&n| n <= STREAM_LINES_MAX) else {
        return bad("/stream/N takes a number of lines up to 1000000\n").into();
    };
    let (mut writer, reader) = pipe(PIPE_BYTES);
    tokio::task::spawn_local(async move {
        for line in 1..=lines {
            if writer.send(Bytes::from(format!("line {line} of {lines}\n"))).await.is_err() {
                return;
            }
        }
        let trailers: Fields = [("Stream-Lines", lines.to_string())].iter().collect();
        writer.complete(Some(Box::new(trailers)));
    });
    let mut response = Response::text(Status::OK, TEXT, "");
    response.add(Known::Trailer, "Stream-Lines");
    response.content = Content::Pipe(reader, None);
    response.into()
}

/// N octets that repeat a line, with a length.
fn octets(length: &[u8]) -> Handled {
    const LINE: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
    let Some(length) = decimal(length).filter(|&n| n <= BYTES_MAX) else {
        return bad("/bytes/N takes a number of octets up to 1073741824\n").into();
    };
    let mut response = Response::new(Status::OK);
    response.add(Known::ContentType, "application/octet-stream");
    if length <= PIPE_BYTES as u64 {
        let bytes: Vec<u8> = LINE.iter().copied().cycle().take(length as usize).collect();
        response.content = Content::Bytes(bytes.into());
        return response.into();
    }
    let (mut writer, reader) = pipe(4 * PIPE_BYTES);
    tokio::task::spawn_local(async move {
        let block = Bytes::from(LINE.repeat(PIPE_BYTES / LINE.len()));
        let mut left = length;
        while left > 0 {
            let n = left.min(block.len() as u64);
            if writer.send(block.slice(..n as usize)).await.is_err() {
                return;
            }
            left -= n;
        }
        writer.complete(None);
    });
    response.content = Content::Pipe(reader, Some(length));
    response.into()
}

/// 103 first, then 200 (RFC 8297).
fn early_hints(request: &mut Request) -> Handled {
    let hints: Fields = [("Link", "</style.css>; rel=preload; as=style")].iter().collect();
    request.interim().send(Status::EARLY_HINTS, hints);
    let mut response = Response::text(Status::OK, TEXT, GREETING);
    response.add(Known::Link, "</style.css>; rel=preload; as=style");
    response.into()
}

/// Reads content to its end, up to a limit; for handlers that need it whole.
///
/// # Errors
/// [`Reason::TooLarge`] past the limit, or why it broke off.
pub async fn read_whole(
    mut content: ContentReader,
    bytes_max: usize,
) -> Result<(Bytes, Option<Box<Fields>>), Reason> {
    let mut whole = Vec::new();
    loop {
        match content.next().await {
            Next::Data(bytes) if whole.len() + bytes.len() > bytes_max => return Err(Reason::TooLarge),
            Next::Data(bytes) => whole.extend_from_slice(&bytes),
            Next::Complete(trailers) => return Ok((whole.into(), trailers)),
            Next::Aborted(reason) => return Err(reason),
        }
    }
}
