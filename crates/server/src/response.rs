//! A response as handlers make it. Framing, Connection and Date are added when it is written; only `session.rs`
//! writes it.

use crate::proxy::flow::Flowing;
use crate::record::Notes;
use bytes::Bytes;
use eleven_messaging::CloseReason;
use eleven_net::Stream;
use eleven_net::pipe::PipeReader;
use eleven_semantics::{Fields, Status};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A final response.
#[derive(Debug)]
pub struct Response {
    /// A final status, or 101 with [`Content::Switch`].
    pub status: Status,
    /// The header section, without framing, Connection and Keep-Alive. Date only where it must be kept (a
    /// forwarded response).
    pub fields: ResponseFields,
    /// The content that GET would have; for HEAD it is left out when written.
    pub content: Content,
    /// The connection is to end after this response.
    pub close: Option<CloseReason>,
    /// What the record is to say of it, if anything.
    pub notes: Option<Rc<Notes>>,
    /// Fields and content length that the 200 in place of this 206 or 304 would have, for the steps that go by them
    /// (9110-15.3.7-02, 9110-15.4.5-01).
    pub whole: Option<(Rc<Fields>, u64)>,
}

/// Fields made for this response, or shared with others (hot files, stored responses).
#[derive(Debug, Clone)]
pub enum ResponseFields {
    /// Of this response alone.
    Own(Fields),
    /// Shared among responses of a worker.
    Shared(Rc<Fields>),
    /// Shared among workers, with a few lines of its own added (Age, Cache-Status).
    Stored(Arc<Fields>, Fields),
}

impl ResponseFields {
    /// For changing: copies shared ones first.
    pub fn to_mut(&mut self) -> &mut Fields {
        match self {
            ResponseFields::Own(_) => {}
            ResponseFields::Shared(shared) => *self = ResponseFields::Own((**shared).clone()),
            ResponseFields::Stored(stored, added) => {
                let mut all = (**stored).clone();
                all.extend(added);
                *self = ResponseFields::Own(all);
            }
        }
        match self {
            ResponseFields::Own(fields) => fields,
            _ => unreachable!("made its own above"),
        }
    }

    /// For adding lines, without a copy of stored ones.
    pub fn to_add(&mut self) -> &mut Fields {
        match self {
            ResponseFields::Stored(_, added) => added,
            other => other.to_mut(),
        }
    }

    /// For reading; the added lines of stored fields are not seen.
    pub fn get(&self) -> &Fields {
        match self {
            ResponseFields::Own(fields) => fields,
            ResponseFields::Shared(shared) => shared,
            ResponseFields::Stored(stored, _) => stored,
        }
    }
}

impl From<Fields> for ResponseFields {
    fn from(fields: Fields) -> Self {
        ResponseFields::Own(fields)
    }
}

/// The content of a response, in the form that is cheapest to send.
pub enum Content {
    /// None, and no length is told (204, 304).
    Empty,
    /// In memory.
    Bytes(Bytes),
    /// A range of an open file. If the file turns out shorter, the connection ends rather than lie (fault P24).
    File(FileRange),
    /// Several pieces, of known length all together: `multipart/byteranges`.
    Parts(Vec<Part>),
    /// Flows from somewhere; chunked unless the length is known.
    Pipe(PipeReader<Option<Box<Fields>>>, Option<u64>),
    /// Flows from another server, out of the buffer it was read into; chunked unless the length is known.
    Flow(Box<Flowing>, Option<u64>),
    /// Nothing is sent, but HEAD is told this length (`None`: chunked).
    Described(Option<u64>),
    /// The connection changes hands: after 101, or 2xx to CONNECT.
    Switch(Box<dyn Switch>),
}

/// A range of an open file.
#[derive(Debug, Clone)]
pub struct FileRange {
    /// The file, opened and checked; served from this descriptor only.
    pub file: Rc<File>,
    /// The first octet.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// A piece of [`Content::Parts`].
#[derive(Debug, Clone)]
pub enum Part {
    /// In memory.
    Bytes(Bytes),
    /// From a file.
    File(FileRange),
}

impl Part {
    /// Its length in octets.
    pub fn length(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File(range) => range.length,
        }
    }
}

/// Takes over a connection that switched protocols.
pub trait Switch {
    /// Runs until the connection is done. `received` holds octets that came after the request and belong to
    /// the new protocol.
    fn run(self: Box<Self>, stream: Stream, received: Bytes) -> Pin<Box<dyn Future<Output = ()>>>;
}

impl Content {
    /// The length in octets; `None` if it flows without one, or there is none to tell.
    pub fn length(&self) -> Option<u64> {
        match self {
            Content::Empty | Content::Switch(_) => None,
            Content::Bytes(bytes) => Some(bytes.len() as u64),
            Content::File(range) => Some(range.length),
            Content::Parts(parts) => Some(parts.iter().map(Part::length).sum()),
            Content::Pipe(_, length) | Content::Flow(_, length) | Content::Described(length) => *length,
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Content::Empty => "Empty",
            Content::Bytes(_) => "Bytes",
            Content::File(_) => "File",
            Content::Parts(_) => "Parts",
            Content::Pipe(..) => "Pipe",
            Content::Flow(..) => "Flow",
            Content::Described(_) => "Described",
            Content::Switch(_) => "Switch",
        };
        write!(f, "{name}({:?})", self.length())
    }
}

impl Response {
    /// A response without content. Statuses that allow content get an empty one.
    pub fn new(status: Status) -> Response {
        let content = if status.never_has_content() { Content::Empty } else { Content::Bytes(Bytes::new()) };
        Response { status, fields: Fields::new().into(), content, close: None, notes: None, whole: None }
    }

    /// A response with this text and media type.
    pub fn text(status: Status, media_type: &'static str, text: impl Into<Bytes>) -> Response {
        let mut response = Response::new(status);
        response.add(eleven_semantics::Known::ContentType, media_type);
        response.content = Content::Bytes(text.into());
        response
    }

    /// What the record is to say of it.
    pub fn notes(&mut self) -> &mut Notes {
        Rc::make_mut(self.notes.get_or_insert_default())
    }

    /// Adds a field line. A value that no field may have is a fault of the handler; it is left out, so that
    /// nothing can split the message (fault R21).
    pub fn add(
        &mut self,
        name: impl eleven_semantics::fields::Name,
        value: impl AsRef<[u8]>,
    ) -> &mut Response {
        if let Err(why) = self.fields.to_mut().push(name, value) {
            tracing::error!(name = %String::from_utf8_lossy(name.octets()), %why, "a handler made an invalid field");
        }
        self
    }
}

/// Sends interim responses of one request to its session.
#[derive(Debug, Clone, Default)]
pub struct InterimSender(Rc<RefCell<InterimQueue>>);

#[derive(Debug, Default)]
struct InterimQueue {
    waiting: VecDeque<(Status, Fields)>,
    waker: Option<Waker>,
}

/// Interim responses that wait at a time; more are dropped, oldest kept.
const INTERIM_MAX: usize = 32;

impl InterimSender {
    /// Hands over an interim response. It goes to clients of HTTP/1.1, if the final head has not gone out yet.
    pub fn send(&self, status: Status, fields: Fields) {
        let mut queue = self.0.borrow_mut();
        if status.is_interim() && queue.waiting.len() < INTERIM_MAX {
            queue.waiting.push_back((status, fields));
        }
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    /// The next interim response to be written.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<(Status, Fields)> {
        let mut queue = self.0.borrow_mut();
        match queue.waiting.pop_front() {
            Some(next) => Poll::Ready(next),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
