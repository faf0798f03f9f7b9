//! The frames between server and worker (docs/worker-protocol.md): reading and writing octets, nothing else.
//! The numbers here and those in `python/eleven_worker/wire.py` are one table in two languages; a test compares
//! them.

use eleven_semantics::fields::InvalidField;
use eleven_semantics::{Fields, Known, Status, grammar};

/// Version of the protocol, said by the worker when it is ready.
pub const VERSION: u64 = 1;

/// Octets before the head of a queue message.
pub const QUEUE_BYTES: usize = 20;
/// A message on the queue socket is at most this long: the kernel's default socket buffer.
pub const MESSAGE_BYTES_MAX: usize = 212_992;
/// Content of one message that goes inline, in either direction.
pub const INLINE_BYTES_MAX: usize = 65_536;
/// Content in one piece on a content connection.
pub const PIECE_BYTES_MAX: usize = 65_536;
/// Octets before the payload of a frame on a response connection.
pub const FRAME_BYTES: usize = 24;
/// Octets before the payload of a piece on a content connection.
pub const PIECE_BYTES: usize = 8;
/// Octets that open a connection from a worker.
pub const HELLO_BYTES: usize = 28;

/// Queue message: a request.
pub const REQUEST: u8 = 1;
/// Queue message: a client left, or the time of its request is over.
pub const CANCEL: u8 = 2;

/// Request flag: all content follows the head.
pub const CONTENT_INLINE: u8 = 1;
/// Request flag: content comes over a content connection, once asked for.
pub const CONTENT_STREAM: u8 = 2;
/// Request flag: the response has no content.
pub const HEAD_METHOD: u8 = 4;
/// Request flag: a WebSocket handshake.
pub const WEBSOCKET: u8 = 8;
/// Cancel flag: end the task.
pub const FORCE: u8 = 16;
/// Request flag: the worker has others as well, so it may keep the response for a moment to send several at once.
pub const MAY_HOLD: u8 = 32;

/// Request flag: the head begins with the values of [`USUAL_VARIABLES`], without their names.
pub const USUAL: u8 = 64;

/// Variables that nearly every request has, in the order in which they are told.
pub const USUAL_VARIABLES: [&str; 10] = [
    "REQUEST_METHOD",
    "PATH_INFO",
    "QUERY_STRING",
    "REQUEST_URI",
    "SERVER_PROTOCOL",
    "SERVER_NAME",
    "HTTP_HOST",
    "SERVER_PORT",
    "REMOTE_ADDR",
    "REMOTE_PORT",
];

/// Octets of one worker thread's part of the shelf.
pub const SHELF_BYTES: usize = 65_536;
/// Octets at the beginning of such a part.
pub const SHELF_HEAD_BYTES: usize = 16;
/// Where in it the turn of the request stands that the thread has begun last.
pub const SHELF_TURN_AT: usize = 12;

/// What a part of the shelf says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShelfHead {
    /// Counts the times that the part was filled.
    pub batch: u32,
    /// Octets of whole frames that follow.
    pub octets: usize,
    /// The server thread that they are for.
    pub thread: u32,
}

/// Reads the head of a part of the shelf; `None` if nothing stands there.
pub fn shelf_head(head: &[u8; SHELF_HEAD_BYTES]) -> Option<ShelfHead> {
    // The worker writes words of its own memory.
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let octets = word(4) as usize;
    (octets > 0 && octets <= SHELF_BYTES - SHELF_HEAD_BYTES).then(|| ShelfHead {
        batch: word(0),
        octets,
        thread: word(8),
    })
}

/// Frame flag: the content is complete.
pub const END: u8 = 1;
/// Frame flag: the rest of the content comes over the content connection.
pub const CONTINUED: u8 = 2;
/// Frame flag: the content ends early.
pub const ABORT: u8 = 4;
/// Frame flag: the worker's slot is free.
pub const DONE: u8 = 8;

/// The magic octets of a response connection.
pub const HELLO_RESPONSES: &[u8; 4] = b"ELR1";
/// The magic octets of a content connection.
pub const HELLO_CONTENT: &[u8; 4] = b"ELC1";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Head and first content of a response.
    Response = 1,
    /// More content.
    Content = 2,
    /// Head of a 103 response.
    Hints = 3,
    /// Trailer fields.
    Trailers = 4,
    /// The application raised before its head.
    Failed = 5,
    /// The worker is ready.
    Ready = 6,
    /// The application did not start.
    Broken = 7,
    /// A source file changed.
    Changed = 8,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<FrameKind> {
        use FrameKind::*;
        [Response, Content, Hints, Trailers, Failed, Ready, Broken, Changed]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PieceKind {
    /// Content.
    Data = 1,
    /// Content is complete.
    End = 2,
    /// Trailer fields.
    Trailers = 3,
    /// An open file, in ancillary data.
    File = 4,
    /// Content ends early.
    Abort = 5,
    /// The application asks for request content.
    Read = 6,
    /// A WebSocket text message.
    Text = 7,
    /// A WebSocket binary message.
    Binary = 8,
    /// WebSocket close.
    Close = 9,
}

impl PieceKind {
    fn from_number(number: u8) -> Option<PieceKind> {
        use PieceKind::*;
        [Data, End, Trailers, File, Abort, Read, Text, Binary, Close]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The worker broke the protocol: a fault of this build, or an application that writes to file descriptors that
/// are not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A number that stands for nothing.
    #[error("the worker sent a frame of unknown kind {0}")]
    Kind(u8),
    /// A length past the limit.
    #[error("the worker sent a frame of {0} octets")]
    TooLong(usize),
    /// The head is longer than the payload.
    #[error("the worker sent a frame whose head is longer than the frame")]
    Head,
}

/// Where a request's message goes and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The server thread that waits for the response.
    pub thread: u8,
    /// The request's number on that thread.
    pub request: u32,
}

/// Starts a queue message; the head is appended to it, then [`finish_message`] is called.
pub fn begin_message(kind: u8, ticket: Ticket, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[kind, ticket.thread, 0, 0]);
    out.extend_from_slice(&ticket.request.to_le_bytes());
    out.extend_from_slice(&[0; 12]);
}

/// Ends the head of a queue message, and adds the content that comes with it.
pub fn finish_message(message: &mut Vec<u8>, flags: u8, content: &[u8]) {
    let head = (message.len() - QUEUE_BYTES) as u32;
    message[2] = flags;
    message[8..12].copy_from_slice(&head.to_le_bytes());
    message[12..16].copy_from_slice(&(content.len() as u32).to_le_bytes());
    message.extend_from_slice(content);
}

/// Numbers a message among those for its worker, and says whether the worker may keep the response for a moment.
pub fn set_turn(message: &mut [u8], turn: u32, may_hold: bool) {
    message[2] = if may_hold { message[2] | MAY_HOLD } else { message[2] & !MAY_HOLD };
    message[16..20].copy_from_slice(&turn.to_le_bytes());
}

/// The messages of one packet.
pub fn messages(packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet;
    std::iter::from_fn(move || {
        let head = rest.first_chunk::<QUEUE_BYTES>()?;
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (message, after) = rest.split_at_checked(QUEUE_BYTES + word(8) + word(12))?;
        rest = after;
        Some(message)
    })
}

/// Whose a queue message is; `None` if it is no request.
pub fn ticket_of(message: &[u8]) -> Option<Ticket> {
    let head = message.first_chunk::<QUEUE_BYTES>()?;
    (head[0] == REQUEST).then(|| Ticket {
        thread: head[1],
        request: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
    })
}

/// The first octets of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Octets of payload.
    pub payload: usize,
    /// The request on this thread.
    pub request: u32,
    /// What it is.
    pub kind: FrameKind,
    /// END, CONTINUED, ABORT, DONE.
    pub flags: u8,
    /// Number of fields in the head.
    pub fields: usize,
    /// Octets of head in the payload.
    pub head: usize,
    /// Length of the whole content.
    pub length: Option<u64>,
}

/// Head and inline content of a response are at most this long together; also tracebacks.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;

/// Reads the first octets of a frame; `None` if they are not all there.
///
/// # Errors
/// If they are not a frame's.
pub fn frame_head(input: &[u8]) -> Result<Option<FrameHead>, Broken> {
    let Some(head) = input.first_chunk::<FRAME_BYTES>() else { return Ok(None) };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let mut length = [0; 8];
    length.copy_from_slice(&head[16..24]);
    let frame = FrameHead {
        payload: word(0) as usize,
        request: word(4),
        kind: FrameKind::from_number(head[8]).ok_or(Broken::Kind(head[8]))?,
        flags: head[9],
        fields: usize::from(u16::from_le_bytes([head[10], head[11]])),
        head: word(12) as usize,
        length: u64::try_from(i64::from_le_bytes(length)).ok(),
    };
    if frame.payload > PAYLOAD_BYTES_MAX {
        return Err(Broken::TooLong(frame.payload));
    }
    if frame.head > frame.payload {
        return Err(Broken::Head);
    }
    Ok(Some(frame))
}

/// Reads the first octets of a piece: kind and length.
///
/// # Errors
/// If they are not a piece's, or it is longer than `bytes_max`.
pub fn piece_head(input: &[u8], bytes_max: usize) -> Result<Option<(PieceKind, usize)>, Broken> {
    let Some(head) = input.first_chunk::<PIECE_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let kind = PieceKind::from_number(head[4]).ok_or(Broken::Kind(head[4]))?;
    if length > bytes_max {
        return Err(Broken::TooLong(length));
    }
    Ok(Some((kind, length)))
}

/// The first octets of a piece.
pub fn piece(kind: PieceKind, length: usize) -> [u8; PIECE_BYTES] {
    let length = (length as u32).to_le_bytes();
    [length[0], length[1], length[2], length[3], kind as u8, 0, 0, 0]
}

/// Offset and length of a FILE piece.
pub fn file_range(payload: &[u8]) -> Option<(u64, u64)> {
    let (offset, length) = (payload.get(..8)?, payload.get(8..16)?);
    Some((u64::from_le_bytes(offset.try_into().ok()?), u64::from_le_bytes(length.try_into().ok()?)))
}

/// Who connects, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// A content connection (else a response connection).
    pub content: bool,
    /// The worker's secret.
    pub token: [u8; 16],
    /// The worker's number.
    pub worker: u32,
    /// The request, of a content connection.
    pub request: u32,
}

/// Reads the opening of a connection.
pub fn hello(input: &[u8; HELLO_BYTES]) -> Option<Hello> {
    let content = match input.first_chunk::<4>()? {
        magic if magic == HELLO_CONTENT => true,
        magic if magic == HELLO_RESPONSES => false,
        _ => return None,
    };
    let mut token = [0; 16];
    token.copy_from_slice(&input[4..20]);
    let word = |at: usize| u32::from_le_bytes([input[at], input[at + 1], input[at + 2], input[at + 3]]);
    Some(Hello { content, token, worker: word(20), request: word(24) })
}

/// Why a head that an application made cannot be sent. The request is answered with 500.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// Not three digits and a reason phrase, or no final status.
    #[error("the status {0:?} is not three digits and a reason phrase")]
    Status(String),
    /// A field name that is no token, or a value with control characters.
    #[error("the field {name:?} is invalid: {why}")]
    Field {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: InvalidField,
    },
    /// A NUL in a name or a value.
    #[error("a header field holds NUL")]
    Nul,
    /// Content-Length is no number, or there are several that differ.
    #[error("Content-Length {0:?} is not a length")]
    ContentLength(String),
}

/// A head as an application made it.
#[derive(Debug)]
pub struct AppHead {
    /// The status.
    pub status: Status,
    /// The fields, without those of framing, connection and Date, which are the server's.
    pub fields: Fields,
    /// The Content-Length that was among them.
    pub content_length: Option<u64>,
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(&octets[..octets.len().min(200)]).into_owned()
}

fn status(line: &[u8]) -> Option<Status> {
    let (code, rest) = line.split_at_checked(3)?;
    let code = grammar::decimal(code).and_then(|n| Status::new(n as u16))?;
    matches!(rest.first(), None | Some(b' ')).then_some(code)
}

/// Reads status and fields, separated by NUL.
///
/// # Errors
/// Names what the application did wrong.
pub fn app_head(head: &[u8], count: usize) -> Result<AppHead, BadHead> {
    if memchr::memchr_iter(0, head).count() != 2 * count {
        return Err(BadHead::Nul);
    }
    let mut parts = head.split(|&b| b == 0);
    let line = parts.next().unwrap_or(b"");
    let status = status(line).ok_or_else(|| BadHead::Status(text(line)))?;
    let mut fields = Fields::with_capacity(head.len() + 2 * count + 64);
    let mut content_length = None;
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let value = grammar::trim_ows(value);
        match Known::lookup(name) {
            Some(Known::ContentLength) => {
                let length = grammar::decimal(value).ok_or_else(|| BadHead::ContentLength(text(value)))?;
                if content_length.replace(length).is_some_and(|before| before != length) {
                    return Err(BadHead::ContentLength(text(value)));
                }
            }
            Some(Known::Date) => {}
            Some(Known::Upgrade) if status == Status::UPGRADE_REQUIRED => push(&mut fields, name, value)?,
            Some(known) if known.is_hop_by_hop() => {}
            _ => push(&mut fields, name, value)?,
        }
    }
    Ok(AppHead { status, fields, content_length })
}

fn push(fields: &mut Fields, name: &[u8], value: &[u8]) -> Result<(), BadHead> {
    fields.push(name, value).map_err(|why| BadHead::Field { name: text(name), why })
}

/// Reads trailer fields. Those that no trailer section may have are left out (RFC 9110 §6.5.1).
pub fn trailers<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Option<Box<Fields>> {
    let mut fields = Fields::new();
    let mut parts = parts;
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if Known::lookup(name).is_none_or(Known::allowed_in_trailers) {
            // An invalid one is dropped: the content before it was sent already.
            let _ = fields.push(name, grammar::trim_ows(value));
        }
    }
    (!fields.is_empty()).then(|| Box::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The constants of wire.py: `A, B = 1, 2` and `A = 1`.
    fn python_constants() -> std::collections::HashMap<String, u64> {
        let source = include_str!("python/eleven_worker/wire.py");
        let mut found = std::collections::HashMap::new();
        // The one statement over several lines is brought into the form of the others.
        let names =
            source.split_once("(\n    PIECE_DATA,").unwrap().1.split_once(") = range(1, 10)").unwrap().0;
        for (index, name) in format!("PIECE_DATA,{names}").split(',').map(str::trim).enumerate() {
            found.insert(name.to_owned(), index as u64 + 1);
        }
        for line in source.lines().filter(|line| !line.starts_with([' ', '#', ')'])) {
            let Some((names, values)) = line.split_once(" = ") else { continue };
            for (name, value) in names.split(", ").zip(values.split(", ")) {
                if let Ok(value) = value.parse() {
                    found.insert(name.to_owned(), value);
                }
            }
        }
        found
    }

    #[test]
    fn both_languages_have_the_same_numbers() {
        let python = python_constants();
        for (name, number) in [
            ("VERSION", VERSION),
            ("REQUEST", REQUEST.into()),
            ("CANCEL", CANCEL.into()),
            ("CONTENT_INLINE", CONTENT_INLINE.into()),
            ("CONTENT_STREAM", CONTENT_STREAM.into()),
            ("HEAD_METHOD", HEAD_METHOD.into()),
            ("WEBSOCKET", WEBSOCKET.into()),
            ("FORCE", FORCE.into()),
            ("MAY_HOLD", MAY_HOLD.into()),
            ("USUAL", USUAL.into()),
            ("SHELF_BYTES", SHELF_BYTES as u64),
            ("RESPONSE", FrameKind::Response as u64),
            ("CONTENT", FrameKind::Content as u64),
            ("HINTS", FrameKind::Hints as u64),
            ("TRAILERS", FrameKind::Trailers as u64),
            ("FAILED", FrameKind::Failed as u64),
            ("READY", FrameKind::Ready as u64),
            ("BROKEN", FrameKind::Broken as u64),
            ("CHANGED", FrameKind::Changed as u64),
            ("END", END.into()),
            ("CONTINUED", CONTINUED.into()),
            ("ABORT", ABORT.into()),
            ("DONE", DONE.into()),
            ("PIECE_DATA", PieceKind::Data as u64),
            ("PIECE_END", PieceKind::End as u64),
            ("PIECE_TRAILERS", PieceKind::Trailers as u64),
            ("PIECE_FILE", PieceKind::File as u64),
            ("PIECE_ABORT", PieceKind::Abort as u64),
            ("PIECE_READ", PieceKind::Read as u64),
            ("PIECE_TEXT", PieceKind::Text as u64),
            ("PIECE_BINARY", PieceKind::Binary as u64),
            ("PIECE_CLOSE", PieceKind::Close as u64),
            ("INLINE_BYTES_MAX", INLINE_BYTES_MAX as u64),
            ("MESSAGE_BYTES_MAX", MESSAGE_BYTES_MAX as u64),
            ("PIECE_BYTES_MAX", PIECE_BYTES_MAX as u64),
        ] {
            assert_eq!(python.get(name), Some(&number), "{name}");
        }
        let source = include_str!("python/eleven_worker/wire.py");
        for line in [
            "QUEUE = struct.Struct(\"<BBBBIIII\")",
            "SHELF = struct.Struct(\"=IIII\")",
            "FRAME = struct.Struct(\"<IIBBHIq\")",
            "HELLO = struct.Struct(\"<4s16sII\")",
            "PIECE = struct.Struct(\"<IBxxx\")",
            "FILE = struct.Struct(\"<QQ\")",
        ] {
            assert!(source.contains(line), "{line}");
        }
        let list = source.split_once("USUAL_VARIABLES = (").unwrap().1.split_once("\n)").unwrap().0;
        let names: Vec<_> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(names, USUAL_VARIABLES);
        assert_eq!((QUEUE_BYTES, SHELF_HEAD_BYTES), (20, 16));
    }

    #[test]
    fn messages_are_known_again() {
        let ticket = Ticket { thread: 3, request: 70_000 };
        let mut message = Vec::new();
        begin_message(REQUEST, ticket, &mut message);
        message.extend_from_slice(b"A\0b");
        finish_message(&mut message, CONTENT_INLINE, b"content");
        set_turn(&mut message, 9, true);
        assert_eq!(&message[8..], b"\x03\0\0\0\x07\0\0\0\x09\0\0\0A\0bcontent");
        assert_eq!(message[2], CONTENT_INLINE | MAY_HOLD);
        set_turn(&mut message, 10, false);
        assert_eq!((message[2], message[16]), (CONTENT_INLINE, 10));
        assert_eq!(ticket_of(&message), Some(ticket));
        let mut cancel = Vec::new();
        begin_message(CANCEL, ticket, &mut cancel);
        assert_eq!(ticket_of(&cancel), None);
        assert_eq!(ticket_of(b"short"), None);
        let packet = [&message[..], &cancel, &message, &message[..25]].concat();
        let found: Vec<_> = messages(&packet).collect();
        assert_eq!(found, [&message[..], &cancel, &message], "the last is cut and left out");
        assert_eq!(messages(b"").count(), 0);
    }

    fn frame(payload: u32, kind: u8, head: u32, length: i64) -> Vec<u8> {
        let mut out = payload.to_le_bytes().to_vec();
        out.extend_from_slice(&7u32.to_le_bytes());
        out.extend_from_slice(&[kind, END | DONE, 2, 0]);
        out.extend_from_slice(&head.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out
    }

    #[test]
    fn frames_and_pieces() {
        let good = frame(100, 1, 10, -1);
        for end in 0..good.len() {
            assert_eq!(frame_head(&good[..end]), Ok(None));
        }
        let head = frame_head(&good).unwrap().unwrap();
        assert_eq!((head.payload, head.request, head.kind), (100, 7, FrameKind::Response));
        assert_eq!((head.flags, head.fields, head.head, head.length), (END | DONE, 2, 10, None));
        assert_eq!(frame_head(&frame(1, 2, 0, 5)).unwrap().unwrap().length, Some(5));
        assert_eq!(frame_head(&frame(1, 0, 0, 0)), Err(Broken::Kind(0)));
        assert_eq!(frame_head(&frame(1, 99, 0, 0)), Err(Broken::Kind(99)));
        assert_eq!(frame_head(&frame(1, 1, 2, 0)), Err(Broken::Head));
        assert_eq!(frame_head(&frame(u32::MAX, 1, 2, 0)), Err(Broken::TooLong(u32::MAX as usize)));
        let data = piece(PieceKind::Data, 300);
        assert_eq!(piece_head(&data, 300), Ok(Some((PieceKind::Data, 300))));
        assert_eq!(piece_head(&data, 299), Err(Broken::TooLong(300)));
        assert_eq!(piece_head(&data[..7], 300), Ok(None));
        assert_eq!(piece_head(&[0; 8], 300), Err(Broken::Kind(0)));
    }

    /// Fault R21: whatever the application gives, nothing splits the response.
    #[test]
    fn heads_of_applications() {
        let head =
            app_head(b"200 OK\0Content-Type\0text/plain\0Content-Length\x005\0Connection\0close\0Date\0x", 4);
        let head = head.unwrap();
        assert_eq!((head.status, head.content_length), (Status::OK, Some(5)));
        assert_eq!(head.fields.wire(), b"Content-Type: text/plain\r\n");
        // 9110-15.5.22-01
        let head = app_head(b"426 Upgrade Required\0Upgrade\0websocket\0Connection\0upgrade", 2).unwrap();
        assert_eq!(head.fields.wire(), b"Upgrade: websocket\r\n");
        assert_eq!(app_head(b"404", 0).unwrap().status, Status::NOT_FOUND);
        assert_eq!(app_head(b"200 OK\0A\0 padded ", 1).unwrap().fields.wire(), b"A: padded\r\n");
        for (head, count) in [
            (&b"200 OK\0A\0b\0c"[..], 1),
            (b"200 OK\0A", 1),
            (b"200 OK\0A\0b", 0),
            (b"200OK", 0),
            (b"+20 OK", 0),
            (b"20", 0),
            (b"", 0),
            (b"999 Far", 0),
            (b"200 OK\0A b\0c", 1),
            (b"200 OK\0\0c", 1),
            (b"200 OK\0A\0b\r\nC: d", 1),
            (b"200 OK\0A\0b\x7f", 1),
            (b"200 OK\0Content-Length\0+5", 1),
            (b"200 OK\0Content-Length\0", 1),
            (b"200 OK\0Content-Length\x005\0content-length\x006", 2),
        ] {
            assert!(app_head(head, count).is_err(), "{}", head.escape_ascii());
        }
    }

    #[test]
    fn trailers_that_may_be() {
        let parts = [&b"X-Sum"[..], b"7", b"Content-Length", b"5", b"bad name", b"x", b"ETag", b"\"a\""];
        let fields = trailers(parts.into_iter()).unwrap();
        assert_eq!(fields.wire(), b"X-Sum: 7\r\nETag: \"a\"\r\n");
        assert!(trailers([&b"Host"[..], b"x"].into_iter()).is_none());
    }

    #[test]
    fn hellos() {
        let mut octets = [0u8; HELLO_BYTES];
        octets[..4].copy_from_slice(HELLO_CONTENT);
        octets[4..20].fill(9);
        octets[20] = 3;
        octets[24] = 4;
        assert_eq!(hello(&octets), Some(Hello { content: true, token: [9; 16], worker: 3, request: 4 }));
        octets[..4].copy_from_slice(b"GET ");
        assert_eq!(hello(&octets), None);
    }
}
