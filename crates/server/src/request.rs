//! A request as handlers see it: the head, the content as it comes in, and who sent it. What the connection
//! needs to know (framing, persistence) was settled below and is not here.

use crate::response::InterimSender;
use bytes::Bytes;
use eleven_messaging::{Expectation, Framing, RequestHead};
use eleven_net::listener::ListenAddr;
use eleven_net::pipe::PipeReader;
use eleven_semantics::names::Known;
use eleven_semantics::target::{self, Authority, Form, InvalidPath, InvalidTarget, RequestTarget, Scheme};
use eleven_semantics::{Fields, Method};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// Who is at the other end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The address of the client, unless it came over a Unix socket.
    pub address: Option<SocketAddr>,
    /// The scheme of the connection: `https` over TLS.
    pub scheme: Scheme,
    /// The port of the listener, for the target URI where no other is named; 0 if unknown.
    pub local_port: u16,
    /// The listener that it came by, as it is called in the configuration; `None` if unknown.
    pub listener: Option<Arc<ListenAddr>>,
    /// The name by which the certificate was chosen (SNI).
    pub server_name: Option<Box<str>>,
}

impl Peer {
    /// The address without the port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip().to_canonical())
    }
}

/// Where a connection came in.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// The port; 0 if there is none.
    pub port: u16,
    /// The listener, as it is called in the configuration.
    pub listener: Option<Arc<ListenAddr>>,
}

/// The content of a request.
#[derive(Debug, Default)]
pub enum RequestContent {
    /// None.
    #[default]
    Empty,
    /// All of it, already received, with its trailer section.
    Whole(Bytes, Option<Box<Fields>>),
    /// On its way. The client is told `100 Continue` when the pipe is first read and not before.
    Pipe(ContentReader),
}

/// Content that flows, ending with a trailer section or cut off with a reason.
pub type ContentReader = PipeReader<Option<Box<Fields>>>;

/// A request on its way through the server. Keeps its memory from one to the next where it is not taken.
#[derive(Debug)]
pub struct Request {
    /// Method, target, version and fields.
    pub head: RequestHead,
    /// The content.
    pub content: RequestContent,
    /// The length of the content, where the head told it.
    pub content_length: Option<u64>,
    /// Who sent it.
    pub peer: Rc<Peer>,
    /// The client: the peer, or whom trusted proxies say they speak for. `None` on Unix sockets.
    pub client: Option<IpAddr>,
    /// The authenticated user.
    pub user: Option<Box<[u8]>>,
    /// The record needs what is left after [`Request::take`].
    pub(crate) is_recorded: bool,
    /// A log tells of it how long it took.
    pub(crate) is_timed: bool,
    /// The target as received, if it was rewritten.
    received_target: Option<Box<[u8]>>,
    interim: Option<InterimSender>,
    path: Vec<u8>,
    path_state: PathState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathState {
    Unknown,
    Known,
    Rewritten,
    Invalid(InvalidPath),
}

impl Request {
    /// An empty request from this peer, to be filled.
    pub fn new(peer: Rc<Peer>) -> Request {
        Request {
            head: RequestHead::default(),
            content: RequestContent::Empty,
            content_length: Some(0),
            client: peer.ip(),
            peer,
            user: None,
            is_recorded: false,
            is_timed: false,
            received_target: None,
            interim: None,
            path: Vec::new(),
            path_state: PathState::Unknown,
        }
    }

    /// Forgets what was derived from the last head, keeping the memory. To be called for each new head.
    pub fn renew(&mut self) {
        self.content = RequestContent::Empty;
        self.content_length = self.head.framing.content_length();
        self.interim = None;
        self.client = self.peer.ip();
        self.user = None;
        self.received_target = None;
        self.path_state = PathState::Unknown;
    }

    /// Moves the request out, leaving an empty one of the same peer that sends interim responses to the same
    /// place.
    pub fn take(&mut self) -> Request {
        let mut left = Request::new(self.peer.clone());
        left.interim = Some(self.interim());
        (left.is_recorded, left.is_timed) = (self.is_recorded, self.is_timed);
        if self.is_recorded {
            left.head = self.head.clone();
            left.received_target = self.received_target.clone();
        }
        std::mem::replace(self, left)
    }

    /// Moves the request into `kept`, which was renewed, and the memory of what was there into this one; what is left is
    /// empty, as after [`Request::take`].
    pub(crate) fn move_into(&mut self, kept: &mut Request) {
        std::mem::swap(self, kept);
        self.peer.clone_from(&kept.peer);
        self.is_recorded = kept.is_recorded;
        if self.is_recorded {
            self.head.clone_from(&kept.head);
        } else {
            // Of another client, perhaps.
            self.head.fields.clear();
        }
        self.received_target.clone_from(&kept.received_target);
    }

    /// Sends interim responses to where `other` sends them.
    pub(crate) fn share_interim(&mut self, other: &mut Request) {
        self.interim = Some(other.interim());
    }

    /// Whether anybody asked for the way of interim responses.
    pub(crate) fn has_interim(&self) -> bool {
        self.interim.is_some()
    }

    /// A request made from this one, of the same client and over the same way for interim responses, but with
    /// another method, target, header section and content. What the path was rewritten to stays.
    pub(crate) fn derive(
        &self,
        method: Method,
        target: RequestTarget,
        fields: Fields,
        content: RequestContent,
    ) -> Request {
        let has_content = !matches!(content, RequestContent::Empty);
        let framing = if has_content { self.head.framing } else { Framing::None };
        let expectation = if has_content { self.head.expectation } else { Expectation::None };
        let head = RequestHead { method, target, fields, framing, expectation, version: self.head.version };
        let mut derived = Request::new(self.peer.clone());
        derived.content_length = head.framing.content_length();
        derived.head = head;
        derived.content = content;
        derived.interim.clone_from(&self.interim);
        (derived.is_recorded, derived.is_timed) = (self.is_recorded, self.is_timed);
        if self.path_state == PathState::Rewritten {
            derived.set_path(&self.path);
        }
        derived
    }

    /// The way to send interim responses (103 and others) before the final one.
    pub fn interim(&mut self) -> InterimSender {
        self.interim.get_or_insert_default().clone()
    }

    /// The interim responses a handler wants to send, if it asked for the way.
    pub(crate) fn take_interim(&mut self) -> Option<InterimSender> {
        self.interim.take()
    }

    /// The canonical path: decoded once, dots resolved. Computed on first use.
    ///
    /// # Errors
    /// If the path names nothing that could be looked up.
    pub fn path(&mut self) -> Result<&[u8], InvalidPath> {
        self.find_path();
        self.found_path()
    }

    /// Computes the canonical path, so that [`Request::found_path`] has it.
    pub(crate) fn find_path(&mut self) {
        if self.path_state == PathState::Unknown {
            let result = target::canonical_path_into(self.head.target.path(), &mut self.path);
            self.path_state = result.map_or_else(PathState::Invalid, |()| PathState::Known);
        }
    }

    /// The canonical path as it was last computed; empty if it never was.
    pub(crate) fn found_path(&self) -> Result<&[u8], InvalidPath> {
        match self.path_state {
            PathState::Invalid(why) => Err(why),
            PathState::Unknown => Ok(b""),
            PathState::Known | PathState::Rewritten => Ok(&self.path),
        }
    }

    /// Replaces the canonical path (rewrites). It must be canonical.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path.clear();
        self.path.extend_from_slice(path);
        self.path_state = PathState::Rewritten;
    }

    /// Replaces path and query of the target, as they stand in a request line. The authority stays, and what
    /// was received stays for the record.
    ///
    /// # Errors
    /// If no target may read so; then nothing is changed.
    pub fn rewrite(&mut self, path_and_query: &[u8]) -> Result<(), InvalidTarget> {
        let received = self.head.target.as_bytes().into();
        let target = match (self.head.target.form(), self.head.target.authority()) {
            (Form::Absolute(scheme), Some(authority)) => {
                [scheme.as_str().as_bytes(), b"://", authority, path_and_query].concat()
            }
            _ => path_and_query.to_vec(),
        };
        self.head.target = RequestTarget::parse(&self.head.method, &target)?;
        self.received_target.get_or_insert(received);
        self.path_state = PathState::Unknown;
        Ok(())
    }

    /// Whether the target is no longer what was received.
    pub fn has_other_target(&self) -> bool {
        self.received_target.is_some()
    }

    /// The target as received.
    pub fn received_target(&self) -> &[u8] {
        self.received_target.as_deref().unwrap_or_else(|| self.head.target.as_bytes())
    }

    /// Whether the path is no longer that of the target.
    pub fn is_rewritten(&self) -> bool {
        self.path_state == PathState::Rewritten
    }

    /// The path, if it is no longer that of the target.
    pub fn rewritten_path(&self) -> Option<&[u8]> {
        (self.path_state == PathState::Rewritten).then_some(&self.path)
    }

    /// The authority the request is for: of an absolute target, else of Host (9112-3.2.2-05). Empty if neither
    /// names one. It was checked when the head was read.
    pub fn authority(&self) -> Authority<'_> {
        const NONE: Authority<'static> = Authority { host: b"", port: None };
        Authority::parse(self.host_text()).unwrap_or(NONE)
    }

    /// The authority as it was written; empty if there is none.
    pub fn host_text(&self) -> &[u8] {
        self.head.target.authority().or_else(|| self.head.fields.get(Known::Host)).unwrap_or_default()
    }

    /// The scheme of the target URI: of the connection, which an absolute target cannot change (fault H08).
    pub fn scheme(&self) -> Scheme {
        self.peer.scheme
    }

    /// Whether an `https` resource is asked for over a connection that is not secured (9110-7.4-02).
    pub fn is_short_of_tls(&self) -> bool {
        self.scheme() == Scheme::Http && self.head.target.form() == Form::Absolute(Scheme::Https)
    }

    /// Whether the target is of absolute form.
    pub fn is_absolute(&self) -> bool {
        matches!(self.head.target.form(), Form::Absolute(_))
    }
}
