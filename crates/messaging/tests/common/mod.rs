//! Drivers for the tests: octets in pieces through a machine, and what came of them as text that can be compared.
//! Data is joined, since how it comes in pieces is the delivery's business; everything else is kept in order.

#![allow(dead_code)]

use eleven_messaging::{Answer, Length, Persistence, Received, Request};
use eleven_messaging::{
    Arrived, ClientConnection, Config, Framing, Malformed, RequestHead, ResponseHead, ServerConnection,
};
use eleven_semantics::{Fields, Method, Status, Version};
use std::fmt::Write;
use std::sync::Arc;

/// Shows octets as text, with CR and LF visible.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

pub fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().collect()
}

fn framing(framing: Framing) -> String {
    match framing {
        Framing::None => "none".into(),
        Framing::Length(n) => format!("length {n}"),
        Framing::Chunked { gzip: false } => "chunked".into(),
        Framing::Chunked { gzip: true } => "gzip chunked".into(),
        Framing::UntilClose { gzip: false } => "until-close".into(),
        Framing::UntilClose { gzip: true } => "gzip until-close".into(),
    }
}

/// A transcript that joins data.
#[derive(Default)]
struct Script {
    text: String,
    data: Vec<u8>,
}

impl Script {
    fn data(&mut self, data: &[u8]) {
        assert!(!data.is_empty(), "data events are never empty");
        self.data.extend_from_slice(data);
    }

    fn line(&mut self, line: &str) {
        if !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            let _ = writeln!(self.text, "data {}", shown(&data));
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn end(mut self, line: &str) -> String {
        self.line(line);
        self.text
    }
}

/// The octets received and not taken, as a driver holds them.
struct Buffer {
    held: Vec<u8>,
    pieces: std::vec::IntoIter<Vec<u8>>,
}

impl Buffer {
    fn new(pieces: &[&[u8]]) -> Buffer {
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|p| p.to_vec()).collect();
        Buffer { held: Vec::new(), pieces: pieces.into_iter() }
    }

    /// Adds the next piece; false if there is none.
    fn more(&mut self) -> bool {
        match self.pieces.next() {
            Some(piece) => {
                self.held.extend_from_slice(&piece);
                true
            }
            None => false,
        }
    }
}

/// Feeds octets to a server that answers each complete request with an empty 200, and tells what it saw. The
/// last line says how it ended.
pub fn serve(config: &Arc<Config>, pieces: &[&[u8]]) -> String {
    let mut connection = ServerConnection::new(config.clone());
    let mut buffer = Buffer::new(pieces);
    let mut script = Script::default();
    let mut head = RequestHead::default();
    let mut end_of_input = false;
    loop {
        let result = connection.receive(&buffer.held, end_of_input, &mut head);
        let mut complete = false;
        let taken = match result {
            Err(malformed) => {
                return script.end(&format!("refused {} {}", malformed.status().code(), malformed.name()));
            }
            Ok((taken, received)) => {
                match received {
                    Received::NeedMore => {
                        buffer.held.drain(..taken);
                        if !buffer.more() {
                            assert!(!end_of_input, "nothing more will come, and more is asked for");
                            end_of_input = true;
                        }
                        continue;
                    }
                    Received::Head => {
                        script.line(&request_line(&head));
                        complete = !head.framing.has_body();
                    }
                    Received::Data(data) => script.data(data),
                    Received::Decoded(data) => script.data(&data),
                    Received::End(trailers) => {
                        script.line(&format!("end{}", trailers_text(trailers)));
                        complete = true;
                    }
                    Received::Blocked => return script.end("blocked"),
                    Received::Tunnel => return script.end("tunnel"),
                    Received::Stopped => return script.end("stopped"),
                    Received::Closed => return script.end("closed"),
                }
                taken
            }
        };
        buffer.held.drain(..taken);
        if complete {
            if connection.may_switch() {
                let rest = shown(&remaining(&mut buffer));
                return script.end(&format!("might switch before {rest:?}"));
            }
            let persistence = answer(&mut connection, &mut Vec::new());
            if let Persistence::Close(reason) = persistence {
                return script.end(&format!("closes: {}", reason.name()));
            }
        }
    }
}

fn remaining(buffer: &mut Buffer) -> Vec<u8> {
    while buffer.more() {}
    std::mem::take(&mut buffer.held)
}

fn trailers_text(trailers: Option<Fields>) -> String {
    trailers.map_or(String::new(), |t| format!(" trailers {}", shown(t.wire())))
}

fn request_line(head: &RequestHead) -> String {
    format!(
        "{} {} {} [{}] {}{}",
        head.method,
        shown(head.target.as_bytes()),
        head.version,
        shown(head.fields.wire()),
        framing(head.framing),
        match head.expectation {
            eleven_messaging::Expectation::None => "",
            eleven_messaging::Expectation::Continue => " expects 100",
            eleven_messaging::Expectation::Unknown => " expects the unknown",
        }
    )
}

/// Answers the request at the front with an empty 200.
pub fn answer(connection: &mut ServerConnection, out: &mut Vec<u8>) -> Persistence {
    let fields = Fields::new();
    let answer = Answer {
        status: Status::OK,
        fields: &fields,
        added: None,
        length: Length::Known(0),
        date: b"",
        close: None,
        content_is_read: false,
        compressible: false,
    };
    connection.respond(&answer, out).expect("a response is owed");
    connection.finish(None, out).expect("the response is complete")
}

/// A request of the client tests: method, and what it says beyond a plain one.
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    Plain(&'static str),
    Closing(&'static str),
    Upgrading,
    Connecting,
    Old,
    Oldest,
}

/// Sends requests (pipelined if several), feeds octets to the client, and tells what it saw. The last line says
/// how it ended and whether the connection could be used again.
pub fn ask(config: &Arc<Config>, requests: &[Asked], pieces: &[&[u8]]) -> String {
    let mut connection = ClientConnection::new(config.clone());
    if requests.len() > 1 {
        connection.learn_version(Version::Http11);
    }
    let mut out = Vec::new();
    for asked in requests {
        send(&mut connection, *asked, &mut out);
    }
    let mut buffer = Buffer::new(pieces);
    let mut script = Script::default();
    let mut head = ResponseHead::default();
    let mut end_of_input = false;
    loop {
        let (taken, arrived) = match connection.receive(&buffer.held, end_of_input, &mut head) {
            Err(malformed) => {
                assert!(!connection.is_reusable(0));
                return script.end(&format!("refused {}", malformed.name()));
            }
            Ok(found) => found,
        };
        match arrived {
            Arrived::NeedMore => {
                buffer.held.drain(..taken);
                // A driver looks whether it is done before it waits.
                let done = connection.pending() == 0 && buffer.held.is_empty();
                if done && connection.is_reusable(0) && buffer.pieces.len() == 0 {
                    return script.end("reusable");
                }
                if !buffer.more() {
                    assert!(!end_of_input, "nothing more will come, and more is asked for");
                    end_of_input = true;
                }
                continue;
            }
            Arrived::Interim => script.line(&response_line("interim", &head)),
            Arrived::Head => script.line(&response_line("final", &head)),
            Arrived::Data(data) => script.data(data),
            Arrived::Decoded(data) => script.data(&data),
            Arrived::End(trailers) => script.line(&format!("end{}", trailers_text(trailers))),
            Arrived::Switched => {
                script.line(&response_line("switched", &head));
                buffer.held.drain(..taken);
                assert_eq!(connection.receive(&buffer.held, false, &mut head), Ok((0, Arrived::Tunnel)));
                let rest = shown(&remaining(&mut buffer));
                return script.end(&format!("tunnel {rest:?}"));
            }
            Arrived::Tunnel => return script.end("tunnel"),
            Arrived::Stopped | Arrived::Closed => {
                assert!(!connection.is_reusable(0));
                let reason = connection.closing().expect("a reason").name();
                return script.end(&format!("closes: {reason}, {} unanswered", connection.pending()));
            }
        }
        buffer.held.drain(..taken);
    }
}

fn response_line(kind: &str, head: &ResponseHead) -> String {
    format!(
        "{kind} {} {} {:?} [{}] {}",
        head.version,
        head.status.code(),
        shown(&head.reason),
        shown(head.fields.wire()),
        framing(head.framing)
    )
}

fn send(connection: &mut ClientConnection, asked: Asked, out: &mut Vec<u8>) {
    let none = Fields::new();
    let upgrade = fields(&[("Upgrade", "echo")]);
    let (name, target) = match asked {
        Asked::Plain(name) | Asked::Closing(name) => (name, "/"),
        Asked::Connecting => ("CONNECT", "a.example:443"),
        _ => ("GET", "/"),
    };
    let method = Method::from_bytes(name.as_bytes()).expect("a method");
    let mut request = Request::new(&method, target.as_bytes(), b"a.example", &none);
    match asked {
        Asked::Closing(_) => request.close = true,
        Asked::Upgrading => request.fields = &upgrade,
        Asked::Old => request.version = Version::Http10,
        Asked::Oldest => request.version = Version::Http09,
        _ => {}
    }
    connection.send(&request, out).expect("the request can be sent");
}

/// The refusal of a message, for tests that look at nothing else.
pub fn refusal<T>(result: Result<T, Malformed>) -> String {
    result.map_or_else(|m| m.name().to_owned(), |_| "accepted".to_owned())
}
