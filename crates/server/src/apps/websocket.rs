//! The server's end of WebSocket (RFC 6455): frames from and to the client, whole messages from and to the worker.
//! So no octet is unmasked in Python, and an application never sees a broken frame.
//!
//! Extensions are not offered. Pings are answered here, and a client that sends nothing is pinged.

use super::content::{Piece, Pieces, send_piece};
use super::exchange::Exchange;
use super::protocol::PieceKind;
use crate::response::{Content, Response, Switch};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use eleven_net::Stream;
use eleven_semantics::{Fields, Known, Method, Status, Version};
use sha1::{Digest, Sha1};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::UnixStream;

/// A message of the client is at most this long, all its frames together.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A client that sends nothing for so long is pinged.
const PING_AFTER_MS: u64 = 20_000;
/// A client that sends nothing for so long after a ping is gone.
const PONG_TIMEOUT_MS: u64 = 20_000;
/// How long a client may take to take a message or to answer a close.
const WRITE_TIMEOUT_MS: u64 = 30_000;
/// Read from the client at a time.
const READ_BYTES: usize = 16_384;

/// The key of a handshake this side can accept, if the request is one (RFC 6455 §4.2.1).
pub(super) fn handshake_key(method: &Method, version: Version, fields: &Fields) -> Option<Vec<u8>> {
    let key = fields.only("Sec-WebSocket-Key").one()?;
    let is_key = BASE64_STANDARD.decode(key).is_ok_and(|key| key.len() == 16);
    (*method == Method::Get
        && version >= Version::Http11
        && is_key
        && fields.only("Sec-WebSocket-Version").one() == Some(b"13")
        && fields.has_member(Known::Upgrade, "websocket")
        && fields.has_member(Known::Connection, "upgrade"))
    .then(|| key.to_vec())
}

/// What proves that a handshake was understood (RFC 6455 §4.2.2).
pub(super) fn accept_value(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finalize())
}

/// The response that accepts, after which the connection is the WebSocket's.
pub(super) fn accept(mut fields: Fields, key: &[u8], pieces: Pieces, exchange: Exchange) -> Response {
    fields.retain(|field| {
        !field.name.eq_ignore_ascii_case(b"Sec-WebSocket-Accept")
            && !field.name.eq_ignore_ascii_case(b"Sec-WebSocket-Extensions")
    });
    let mut response = Response::new(Status::SWITCHING_PROTOCOLS);
    response.fields = fields.into();
    response.add(Known::Upgrade, "websocket");
    response.add("Sec-WebSocket-Accept", accept_value(key));
    response.content = Content::Switch(Box::new(Bridge { pieces, exchange }));
    response
}

/// Why a WebSocket is failed, with the code for its close frame (RFC 6455 §7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// 1002.
    Protocol(&'static str),
    /// 1007.
    NotUtf8,
    /// 1009.
    TooLarge,
}

impl Fault {
    fn code(self) -> u16 {
        match self {
            Fault::Protocol(_) => 1002,
            Fault::NotUtf8 => 1007,
            Fault::TooLarge => 1009,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Fault::Protocol(why) => why,
            Fault::NotUtf8 => "text is not UTF-8",
            Fault::TooLarge => "message is too large",
        }
    }
}

/// What the client sent.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// The code and reason as sent: empty, or two octets and text.
    Close(Bytes),
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Reads frames. Knows no socket.
#[derive(Debug, Default)]
struct Reader {
    input: BytesMut,
    /// The message whose frames are coming: its opcode and what is there of it.
    message: Option<(u8, BytesMut)>,
}

impl Reader {
    /// The next message, if it is whole.
    fn next(&mut self) -> Result<Option<Message>, Fault> {
        loop {
            let Some((first, length, head)) = self.head()? else { return Ok(None) };
            if self.input.len() < head + length {
                return Ok(None);
            }
            let mut mask = [0; 4];
            mask.copy_from_slice(&self.input[head - 4..head]);
            self.input.advance(head);
            let mut octets = self.input.split_to(length);
            unmask(&mut octets, mask);
            if let Some(message) = self.frame(first & 0x80 != 0, first & 0x0f, octets)? {
                return Ok(Some(message));
            }
        }
    }

    /// The first octet, the length, and how long the head is.
    fn head(&self) -> Result<Option<(u8, usize, usize)>, Fault> {
        let [first, second, ..] = self.input[..] else { return Ok(None) };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(Fault::Protocol("a reserved bit is set"));
        }
        if second & 0x80 == 0 {
            return Err(Fault::Protocol("a frame is not masked"));
        }
        let short = usize::from(second & 0x7f);
        match opcode {
            0..=BINARY => {}
            CLOSE..=PONG if !fin || short > 125 => {
                return Err(Fault::Protocol("a control frame is fragmented or too long"));
            }
            CLOSE..=PONG => {}
            _ => return Err(Fault::Protocol("an unknown opcode")),
        }
        let (octets, head) = match short {
            126 => (2, 8),
            127 => (8, 14),
            _ => return Ok(Some((first, short, 6)).filter(|_| self.input.len() >= 6)),
        };
        if self.input.len() < head {
            return Ok(None);
        }
        let length = self.input[2..2 + octets].iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
        if length < 126 || (octets == 8 && length <= 0xffff) {
            return Err(Fault::Protocol("a length is not of minimal form"));
        }
        let before = self.message.as_ref().map_or(0, |(_, octets)| octets.len());
        match usize::try_from(length) {
            Ok(length) if length <= MESSAGE_BYTES_MAX - before => Ok(Some((first, length, head))),
            _ => Err(Fault::TooLarge),
        }
    }

    fn frame(&mut self, fin: bool, opcode: u8, octets: BytesMut) -> Result<Option<Message>, Fault> {
        match opcode {
            PING => return Ok(Some(Message::Ping(octets.freeze()))),
            PONG => return Ok(Some(Message::Pong)),
            CLOSE => return close(octets.freeze()).map(Some),
            0 => match &mut self.message {
                Some((_, before)) if before.len() + octets.len() > MESSAGE_BYTES_MAX => {
                    return Err(Fault::TooLarge);
                }
                Some((_, before)) => before.extend_from_slice(&octets),
                None => return Err(Fault::Protocol("a continuation of nothing")),
            },
            _ if self.message.is_some() => {
                return Err(Fault::Protocol("a message inside another"));
            }
            _ => self.message = Some((opcode, octets)),
        }
        if !fin {
            return Ok(None);
        }
        match self.message.take() {
            Some((TEXT, octets)) if std::str::from_utf8(&octets).is_err() => Err(Fault::NotUtf8),
            Some((TEXT, octets)) => Ok(Some(Message::Text(octets.freeze()))),
            Some((_, octets)) => Ok(Some(Message::Binary(octets.freeze()))),
            None => Ok(None),
        }
    }
}

fn close(octets: Bytes) -> Result<Message, Fault> {
    if octets.is_empty() {
        return Ok(Message::Close(octets));
    }
    let Some((code, reason)) = octets.split_first_chunk::<2>() else {
        return Err(Fault::Protocol("half a close code"));
    };
    if !matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Protocol("a close code that may not be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Fault::NotUtf8);
    }
    Ok(Message::Close(octets))
}

fn unmask(octets: &mut [u8], mask: [u8; 4]) {
    let word = u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001;
    let mut chunks = octets.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ word).to_ne_bytes());
    }
    for (octet, mask) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *octet ^= mask;
    }
}

/// A whole frame of the server: not masked, not fragmented.
fn frame(opcode: u8, octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + 10);
    out.push(0x80 | opcode);
    match octets.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(octets);
    out
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut octets = code.to_be_bytes().to_vec();
    octets.extend_from_slice(&reason.as_bytes()[..reason.len().min(123)]);
    frame(CLOSE, &octets)
}

/// Passes messages between a client and a worker.
struct Bridge {
    pieces: Pieces,
    exchange: Exchange,
}

/// What happens next on either side.
enum Step {
    FromClient(io::Result<usize>),
    FromWorker(Piece),
    Silence,
}

impl Switch for Bridge {
    fn run(mut self: Box<Self>, stream: Stream, received: Bytes) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let worker = self.pieces.stream();
            // Ends like any connection: what happened is told to the application, which ends the request.
            if let Err(error) = self.pass(stream, received, &worker).await {
                tracing::debug!(%error, "a WebSocket broke");
                let _ = send_piece(&worker, PieceKind::Close, &1006u16.to_be_bytes()).await;
            }
            drop(worker);
            drop(self.pieces);
            self.exchange.ended().await;
        })
    }
}

impl Bridge {
    async fn pass(&mut self, mut stream: Stream, received: Bytes, worker: &Rc<UnixStream>) -> io::Result<()> {
        let mut reader = Reader { input: BytesMut::from(&received[..]), message: None };
        let mut pinged = false;
        loop {
            loop {
                match reader.next() {
                    Ok(Some(Message::Text(octets))) => send_piece(worker, PieceKind::Text, &octets).await?,
                    Ok(Some(Message::Binary(octets))) => {
                        send_piece(worker, PieceKind::Binary, &octets).await?
                    }
                    Ok(Some(Message::Ping(octets))) => write(&mut stream, &frame(PONG, &octets)).await?,
                    Ok(Some(Message::Pong)) => {}
                    Ok(Some(Message::Close(octets))) => {
                        let code: &[u8] = if octets.is_empty() { &[0x03, 0xed] } else { &octets };
                        send_piece(worker, PieceKind::Close, code).await?;
                        write(&mut stream, &frame(CLOSE, &octets)).await?;
                        return stream.shutdown_write().await;
                    }
                    Ok(None) => break,
                    Err(fault) => {
                        tracing::debug!(?fault, "a WebSocket client broke the protocol");
                        send_piece(worker, PieceKind::Close, &fault.code().to_be_bytes()).await?;
                        write(&mut stream, &close_frame(fault.code(), fault.reason())).await?;
                        return stream.shutdown_write().await;
                    }
                }
            }
            match self.step(&mut stream, &mut reader.input, pinged).await {
                Step::FromClient(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Step::FromClient(result) => {
                    result?;
                    pinged = false;
                }
                Step::Silence if pinged => return Err(io::ErrorKind::TimedOut.into()),
                Step::Silence => {
                    pinged = true;
                    write(&mut stream, &frame(PING, b"")).await?;
                }
                Step::FromWorker(piece) => match piece.kind {
                    PieceKind::Text => write(&mut stream, &frame(TEXT, &piece.octets)).await?,
                    PieceKind::Binary => write(&mut stream, &frame(BINARY, &piece.octets)).await?,
                    PieceKind::Close => {
                        write(&mut stream, &frame(CLOSE, &piece.octets)).await?;
                        return closing(&mut stream, reader).await;
                    }
                    // The application ended without closing, or its worker died.
                    _ => {
                        write(&mut stream, &close_frame(1011, "the application ended")).await?;
                        return closing(&mut stream, reader).await;
                    }
                },
            }
        }
    }

    async fn step(&mut self, stream: &mut Stream, input: &mut BytesMut, pinged: bool) -> Step {
        let patience = Duration::from_millis(if pinged { PONG_TIMEOUT_MS } else { PING_AFTER_MS });
        let at = input.len();
        input.resize(at + READ_BYTES, 0);
        let waiting = poll_fn(|cx| {
            if let Poll::Ready(read) = stream.poll_read(cx, &mut input[at..]) {
                return Poll::Ready(Step::FromClient(read));
            }
            self.pieces.poll_next(cx).map(Step::FromWorker)
        });
        let step = tokio::time::timeout(patience, waiting).await.unwrap_or(Step::Silence);
        let read = if let Step::FromClient(Ok(read)) = step { read } else { 0 };
        input.truncate(at + read);
        step
    }
}

async fn write(stream: &mut Stream, octets: &[u8]) -> io::Result<()> {
    match tokio::time::timeout(Duration::from_millis(WRITE_TIMEOUT_MS), stream.write_all(octets)).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A close was sent: waits for the client's, so that it is sure to have got ours.
async fn closing(stream: &mut Stream, mut reader: Reader) -> io::Result<()> {
    let wait = async {
        loop {
            match reader.next() {
                Ok(Some(Message::Close(_))) | Err(_) => return,
                Ok(Some(_)) => continue,
                Ok(None) => {}
            }
            let mut octets = [0; 4096];
            match stream.read(&mut octets).await {
                Ok(0) | Err(_) => return,
                Ok(count) => reader.input.extend_from_slice(&octets[..count]),
            }
        }
    };
    // One that never answers is closed upon.
    let _ = tokio::time::timeout(Duration::from_millis(WRITE_TIMEOUT_MS), wait).await;
    stream.shutdown_write().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §1.3 gives this pair.
    #[test]
    fn the_handshake_of_the_rfc() {
        assert_eq!(accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    /// 9110-7.8-09: a WebSocket can honour nothing but a GET, so nothing else is switched to it.
    #[test]
    fn what_is_a_handshake() {
        let good = [
            ("Upgrade", "websocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ];
        let key = |lines: &[(&str, &str)], method, version| {
            let mut fields = Fields::new();
            for (name, value) in lines {
                fields.push(*name, value).unwrap();
            }
            handshake_key(&method, version, &fields)
        };
        assert!(key(&good, Method::Get, Version::Http11).is_some());
        assert!(key(&good, Method::Post, Version::Http11).is_none());
        assert!(key(&good, Method::Get, Version::Http10).is_none());
        for (at, value) in [(0, "h2c"), (1, "close"), (2, "c2hvcnQ="), (2, "!"), (3, "8")] {
            let mut lines = good;
            lines[at].1 = value;
            assert!(key(&lines, Method::Get, Version::Http11).is_none(), "{value}");
            let mut lines = good.to_vec();
            lines.remove(at);
            assert!(key(&lines, Method::Get, Version::Http11).is_none(), "without {at}");
        }
    }

    /// A client's frame.
    fn masked(first: u8, octets: &[u8]) -> Vec<u8> {
        let mut out = frame(first & 0x0f, octets);
        out[0] = first;
        let head = out.len() - octets.len();
        out[1] |= 0x80;
        let mask = [0x12, 0x34, 0x56, 0x78];
        unmask(&mut out[head..], mask);
        out.splice(head..head, mask);
        out
    }

    /// Reads `input` at once and octet by octet, which must come to the same.
    #[track_caller]
    fn read(input: &[u8]) -> Result<Vec<Message>, Fault> {
        let mut results = Vec::new();
        for step in [input.len().max(1), 1] {
            let mut reader = Reader::default();
            let mut messages = Ok(Vec::new());
            for part in input.chunks(step) {
                reader.input.extend_from_slice(part);
                while let Ok(found) = &mut messages {
                    match reader.next() {
                        Ok(Some(message)) => found.push(message),
                        Ok(None) => break,
                        Err(fault) => messages = Err(fault),
                    }
                }
            }
            results.push(messages);
        }
        let last = results.pop().unwrap();
        assert_eq!(last, results.pop().unwrap());
        last
    }

    #[test]
    fn messages() {
        let text = |text: &str| Message::Text(Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(read(&masked(0x81, "é".as_bytes())), Ok(vec![text("é")]));
        assert_eq!(read(&masked(0x81, b"")), Ok(vec![text("")]));
        for size in [125, 126, 65_535, 65_536] {
            let octets = vec![b'x'; size];
            assert_eq!(read(&masked(0x82, &octets)), Ok(vec![Message::Binary(octets.into())]));
        }
        // Fragments, with a ping between and a character cut in two.
        let mut input = masked(0x01, &[0xc3]);
        input.extend(masked(0x89, b"ping"));
        input.extend(masked(0x00, &[0xa9]));
        input.extend(masked(0x80, b"!"));
        input.extend(masked(0x8a, b""));
        assert_eq!(
            read(&input),
            Ok(vec![Message::Ping(Bytes::from_static(b"ping")), text("é!"), Message::Pong])
        );
        assert_eq!(read(&masked(0x88, b"")), Ok(vec![Message::Close(Bytes::new())]));
        assert_eq!(
            read(&masked(0x88, b"\x03\xe8x")),
            Ok(vec![Message::Close(Bytes::from_static(b"\x03\xe8x"))])
        );
    }

    #[test]
    fn faults() {
        let after = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
        for (input, code) in [
            (frame(TEXT, b"not masked"), 1002),
            (masked(0xc1, b"reserved"), 1002),
            (masked(0x83, b"opcode"), 1002),
            (masked(0x8b, b"opcode"), 1002),
            (masked(0x09, b"fragmented ping"), 1002),
            (masked(0x89, &[0; 126]), 1002),
            (masked(0x80, b"continues nothing"), 1002),
            (after(masked(0x01, b"a"), masked(0x81, b"b")), 1002),
            (masked(0x88, b"\x03"), 1002),
            (masked(0x88, b"\x03\xee"), 1002),
            (masked(0x88, b"\x00\x00"), 1002),
            (masked(0x88, b"\x03\xe8\xff"), 1007),
            (masked(0x81, b"\xff"), 1007),
            (masked(0x81, b"\xed\xa0\x80"), 1007),
            (vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0], 1002),
            (vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], 1002),
            (vec![0x82, 0xff, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0], 1009),
            (vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1009),
        ] {
            assert_eq!(read(&input).map_err(Fault::code), Err(code), "{input:02x?}");
        }
    }
}
