//! The client's end of a connection: requests go into octets, responses come out of octets, matched in order.
//! Holds pipelining, `Expect: 100-continue`, interim responses, the hand-over to another protocol, what may be
//! retried, and whether the connection can serve another exchange. The mirror of [`crate::server`].
//!
//! It never waits and never decides *whether* to retry or to reuse: it knows what may be, and why not. Which
//! target form goes to whom, redirection and pooling are the caller's (`eleven-client`).

use crate::body::{BodyDecoder, BodyEncoder, Piece};
use crate::cycle::{self, Side, State, Step};
use crate::error::{Malformed, Misuse};
use crate::framing::Framing;
use crate::head::{self, Progress, ResponseHead, Scan};
use crate::limits::Config;
use crate::persistence::{self, CloseReason, Persistence};
use crate::server::Length;
use eleven_semantics::grammar::{self, push_decimal};
use eleven_semantics::names::Known;
use eleven_semantics::status::Class;
use eleven_semantics::target::Authority;
use eleven_semantics::{Fields, Method, Status, Version};
use std::collections::VecDeque;
use std::sync::Arc;

/// One connection, as the client sees it.
#[derive(Debug)]
pub struct ClientConnection {
    config: Arc<Config>,
    receive: Receive,
    /// The client's side of the request that is being sent.
    client: State,
    /// The server's side of the response that is being received.
    server: State,
    /// The oldest request without a complete response, and those behind it.
    front: Option<Outstanding>,
    behind: VecDeque<Outstanding>,
    /// Of the request being sent, while it has a body.
    encoder: Option<BodyEncoder>,
    sending: Sending,
    /// The final response to the oldest request has begun.
    answer_begun: bool,
    interim_count: u32,
    interim_bytes: usize,
    peer_version: Option<Version>,
    keep_alive: KeepAlive,
    /// Set as soon as it is known that no further exchange follows.
    closing: Option<CloseReason>,
    sent: u32,
    answered: u32,
}

#[derive(Debug)]
enum Receive {
    Head(Scan),
    Body(BodyDecoder),
    /// Nothing more is read: the last response is complete, or the server broke the protocol.
    Stopped,
    /// The server closed its direction.
    Closed,
    Switched,
}

/// What must be remembered of the request whose body is being sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sending {
    awaits_continue: bool,
    /// A final response came while the content was still held back for want of a 100.
    withheld: bool,
    /// A final response came that has no use for the content: a redirection or an error.
    refused: bool,
}

/// What must be remembered of a request until its response is complete.
#[derive(Debug, Clone, Copy)]
struct Outstanding {
    kind: Kind,
    version: Version,
    idempotent: bool,
    offers_upgrade: bool,
    said_close: bool,
}

/// What the method says of the response's framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Get,
    Head,
    Connect,
    Other,
}

/// A request head to be written.
///
/// The machine writes Host (first, RFC 9110 §7.2), the framing fields, Connection, TE and Expect itself; none of
/// them may be among the fields. Upgrade may, and is then listed in Connection (9110-7.8-02).
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The request target in the form that suits the receiver (RFC 9112 §3.2): origin-form for an origin
    /// server, absolute-form for a proxy, authority-form for CONNECT, `*` for a server-wide OPTIONS.
    pub target: &'a [u8],
    /// The authority of the target URI without userinfo (9112-3.2-04); empty if the URI has none
    /// (9112-3.2-05). `None` only below HTTP/1.1.
    pub host: Option<&'a [u8]>,
    /// The other fields.
    pub fields: &'a Fields,
    /// The length of the content. [`Length::Absent`] for no content and no word about it, which suits methods
    /// without a meaning for content; POST and its kind say `Known(0)` (9110-8.6-02).
    pub length: Length,
    /// HTTP/1.1; HTTP/1.0 for servers that need it; HTTP/0.9 where the options allow it, for a bare GET.
    pub version: Version,
    /// Wait for 100 before the content (RFC 9110 §10.1.1). Ignored without content, or below HTTP/1.1.
    pub expect_continue: bool,
    /// `TE: trailers`: trailers of the response are wanted, and will not be lost on the way.
    pub te_trailers: bool,
    /// `TE: gzip`: the `gzip` transfer coding is welcome in the response.
    pub te_gzip: bool,
    /// Apply the `gzip` transfer coding to the content. Only for a server that is known to understand it.
    pub gzip: bool,
    /// `Connection: close`: no further request will follow.
    pub close: bool,
}

impl<'a> Request<'a> {
    /// An HTTP/1.1 request without content and without any wish.
    pub fn new(method: &'a Method, target: &'a [u8], host: &'a [u8], fields: &'a Fields) -> Request<'a> {
        Request {
            method,
            target,
            host: Some(host),
            fields,
            length: Length::Absent,
            version: Version::Http11,
            expect_continue: false,
            te_trailers: false,
            te_gzip: false,
            gzip: false,
            close: false,
        }
    }
}

/// What [`ClientConnection::receive`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived<'b> {
    /// All usable octets were taken; call again with more.
    NeedMore,
    /// An interim response other than 101; its head was filled in. The final one is still to come.
    Interim,
    /// The head of the final response was filled in. If its framing has no body, the response is complete.
    Head,
    /// Content of the response, lent from the input.
    Data(&'b [u8]),
    /// Content of the response that a transfer coding was taken off.
    Decoded(Vec<u8>),
    /// The response is complete, with its trailer section. Comes only for responses with a body.
    End(Option<Fields>),
    /// The server accepted the switch (101, or 2xx to CONNECT); its head was filled in. What follows, what is
    /// already there first, belongs to the other protocol. Which protocol a 101 chose stands in its Upgrade
    /// field, and the caller compares that with what it offered.
    Switched,
    /// The octets from here on belong to the protocol switched to.
    Tunnel,
    /// Nothing is read any more: the connection ends ([`ClientConnection::closing`] says why).
    Stopped,
    /// The server closed between messages. Requests still outstanding got no answer; see
    /// [`ClientConnection::retry`].
    Closed,
}

/// What the server promised in `Keep-Alive` (RFC 9112 appendix C.2.2); a hint, never a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepAlive {
    /// It keeps an idle connection so long. Reuse well before.
    pub timeout_secs: Option<u32>,
    /// It answers so many more requests on this connection.
    pub requests_left: Option<u32>,
}

/// Whether a request that got no complete answer may be sent again on another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Yes: no octet of it went out.
    NotSent,
    /// Yes: nothing of a final response came, and the method is idempotent (RFC 9110 §9.2.2).
    Idempotent,
    /// No: it may have been processed, and doing so twice is not the same.
    NotIdempotent,
    /// No: its final response had begun.
    Answered,
}

impl Retry {
    /// Whether sending it again is safe, as far as the protocol goes. (Whether its content can be had again is
    /// the caller's to know.)
    pub fn is_safe(self) -> bool {
        matches!(self, Retry::NotSent | Retry::Idempotent)
    }
}

/// What to do about a request body when the final response has come before its end (RFC 9112 §9.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// The content may still be wanted, or will at least be read: sending all of it keeps the connection;
    /// [`ClientConnection::abandon`] ends it.
    MayFinish,
    /// The content is not wanted and the connection ends, or the content was still held back: stop sending now
    /// with [`ClientConnection::abandon`] (9112-9.5-06).
    Stop,
}

impl ClientConnection {
    /// A new connection.
    pub fn new(config: Arc<Config>) -> ClientConnection {
        ClientConnection {
            config,
            receive: Receive::Head(Scan::FRESH),
            client: State::Idle,
            server: State::Idle,
            front: None,
            behind: VecDeque::new(),
            encoder: None,
            sending: Sending::default(),
            answer_begun: false,
            interim_count: 0,
            interim_bytes: 0,
            peer_version: None,
            keep_alive: KeepAlive::default(),
            closing: None,
            sent: 0,
            answered: 0,
        }
    }

    /// The configuration it runs under.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Requests without a complete response.
    pub fn pending(&self) -> usize {
        usize::from(self.front.is_some()) + self.behind.len()
    }

    /// Requests sent, and responses completely received, so far.
    pub fn counts(&self) -> (u32, u32) {
        (self.sent, self.answered)
    }

    /// The version of the server, once a response told it, or [`ClientConnection::learn_version`] did.
    pub fn peer_version(&self) -> Option<Version> {
        self.peer_version
    }

    /// Hands in what is known of the server from elsewhere: from another connection to it, or by
    /// configuration. Content of unknown length goes only to servers known to speak HTTP/1.1 (9112-6.1-10).
    pub fn learn_version(&mut self, version: Version) {
        self.peer_version.get_or_insert(version);
    }

    /// What the server last promised of keeping the connection.
    pub fn keep_alive(&self) -> KeepAlive {
        self.keep_alive
    }

    /// Why the connection will end, if that is known.
    pub fn closing(&self) -> Option<CloseReason> {
        self.closing
    }

    /// Whether the last request is still being sent.
    pub fn is_sending(&self) -> bool {
        self.client == State::SendBody
    }

    /// Whether the head of a final response was received and its content is not yet complete.
    pub fn is_receiving_content(&self) -> bool {
        matches!(self.receive, Receive::Body(_))
    }

    /// Whether nothing comes of [`ClientConnection::receive`] before there are octets, or their end: a head is awaited
    /// and none of it is here.
    pub fn awaits_octets(&self) -> bool {
        matches!(&self.receive, Receive::Head(scan) if scan.is_fresh())
    }

    /// Octets of content still to come of a body that is delimited by its length alone. Whoever drives the connection
    /// may move them without lending them here, and says so by [`ClientConnection::pass_content`].
    pub fn passable_content(&self) -> Option<u64> {
        if let Receive::Body(decoder) = &self.receive { decoder.passable() } else { None }
    }

    /// `count` octets of content were moved past this machine.
    ///
    /// # Errors
    /// If [`ClientConnection::passable_content`] is less; nothing is changed then.
    pub fn pass_content(&mut self, count: u64) -> Result<(), Misuse> {
        if let Receive::Body(decoder) = &mut self.receive {
            decoder.pass(count)
        } else {
            Err(Misuse::OutOfTurn)
        }
    }

    /// Whether the content is to be held back for a 100, a final response, or the caller's patience to end.
    pub fn awaits_continue(&self) -> bool {
        self.is_sending() && self.sending.awaits_continue
    }

    /// Whether the final response came before the request was sent to its end, and what follows from that.
    pub fn early_response(&self) -> Option<Early> {
        let complete = self.front.is_none();
        if !self.is_sending() || !(complete || (self.answer_begun && self.behind.is_empty())) {
            return None;
        }
        let unwanted = self.closing.is_some() && (self.sending.refused || complete);
        Some(if unwanted || self.sending.withheld { Early::Stop } else { Early::MayFinish })
    }

    /// Whether both directions stand at a proven message boundary, so that another request may go out, now or
    /// after a rest in a pool. `unread_bytes` is what the driver has read and not handed in: surplus octets are
    /// never the next response (faults R03, R31, R32).
    pub fn is_reusable(&self, unread_bytes: usize) -> bool {
        unread_bytes == 0
            && self.front.is_none()
            && self.closing.is_none()
            && self.server == State::Idle
            && matches!(self.client, State::Idle | State::Done)
            && matches!(&self.receive, Receive::Head(scan) if scan.is_fresh())
    }

    /// What becomes of the connection after the exchanges under way.
    pub fn persistence(&self) -> Persistence {
        self.closing.map_or(Persistence::Keep, Persistence::Close)
    }

    /// Whether an outstanding request may be sent again elsewhere once this connection has failed. The oldest
    /// has index 0. `any_octet_sent` is the driver's knowledge whether any of it went out.
    ///
    /// A `close` received with an earlier response makes no difference: later requests should not have been
    /// processed, but that is not to be relied on (9112-9.6-08b).
    pub fn retry(&self, index: usize, any_octet_sent: bool) -> Retry {
        let answered = index == 0 && self.front.is_some() && self.answer_begun;
        match self.front.iter().chain(&self.behind).nth(index) {
            _ if !any_octet_sent => Retry::NotSent,
            Some(_) if answered => Retry::Answered,
            Some(request) if request.idempotent => Retry::Idempotent,
            Some(_) => Retry::NotIdempotent,
            None => Retry::Answered,
        }
    }

    /// Whether a request may be sent now: the one before is complete, and if answers are still to come, the
    /// connection is known to persist and nothing outstanding could do harm if it had to be repeated
    /// (9112-9.3.2-05). After a failed pipeline, wait for each answer on the next connection (9112-9.3.2-04).
    ///
    /// # Errors
    /// [`Misuse::OutOfTurn`] if the connection ends or a request is not complete, [`Misuse::MustWait`] if the
    /// responses outstanding must come first.
    pub fn may_send(&self) -> Result<(), Misuse> {
        if self.closing.is_some() || !matches!(self.client, State::Idle | State::Done) {
            // 9112-9.6-02a, 9112-9.6-08a; a switch that was offered must be answered first.
            return Err(Misuse::OutOfTurn);
        }
        let persists = self.config.options.assume_http11 || self.peer_version == Some(Version::Http11);
        let harmless = self.front.iter().chain(&self.behind).all(|outstanding| outstanding.idempotent);
        if self.pending() > 0
            && !(persists && harmless && self.pending() < self.config.limits.pipelined_requests_max)
        {
            return Err(Misuse::MustWait);
        }
        Ok(())
    }

    /// Writes a request head. If the framing returned has no body, the request is complete; else its content
    /// follows through [`ClientConnection::body`], and [`ClientConnection::finish`] ends it.
    ///
    /// # Errors
    /// Nothing is written if the request cannot be sent now or here, or holds what is not the caller's.
    pub fn send(&mut self, request: &Request<'_>, out: &mut Vec<u8>) -> Result<Framing, Misuse> {
        self.may_send()?;
        self.check(request)?;
        let framing = self.choose_framing(request)?;
        let upgrade = request.fields.contains(Known::Upgrade);
        let connect = *request.method == Method::Connect;
        let expect = request.expect_continue && framing.has_body() && request.version >= Version::Http11;
        if self.client == State::Done {
            Self::step(Side::Client, &mut self.client, Step::Restart)?;
        }
        Self::step(Side::Client, &mut self.client, Step::RequestHead)?;
        write_head(request, framing, upgrade, expect, out);
        let outstanding = Outstanding {
            kind: match request.method {
                Method::Get => Kind::Get,
                Method::Head => Kind::Head,
                Method::Connect => Kind::Connect,
                _ => Kind::Other,
            },
            version: request.version,
            idempotent: request.method.is_idempotent(),
            offers_upgrade: upgrade && !connect,
            said_close: request.close || request.version == Version::Http09,
        };
        self.sent = self.sent.saturating_add(1);
        self.sending = Sending { awaits_continue: expect, ..Sending::default() };
        if outstanding.said_close {
            self.closing = Some(CloseReason::ClientAsked);
        }
        if self.front.is_none() {
            self.begin_awaiting(outstanding);
        } else {
            self.behind.push_back(outstanding);
        }
        if framing.has_body() {
            self.encoder = Some(BodyEncoder::new(framing));
        } else {
            self.end_request(upgrade || connect)?;
        }
        Ok(framing)
    }

    fn begin_awaiting(&mut self, request: Outstanding) {
        self.front = Some(request);
        self.answer_begun = false;
        self.interim_count = 0;
        self.interim_bytes = 0;
        advance(Side::Server, &mut self.server, Step::RequestHead);
    }

    fn end_request(&mut self, offers_switch: bool) -> Result<(), Misuse> {
        let step = if offers_switch { Step::EndOfferingSwitch } else { Step::End };
        Self::step(Side::Client, &mut self.client, step)
    }

    fn step(side: Side, state: &mut State, step: Step) -> Result<(), Misuse> {
        *state = cycle::next(side, *state, step).ok_or(Misuse::OutOfTurn)?;
        Ok(())
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Misuse> {
        const OURS: &[Known] = &[
            Known::Host,
            Known::ContentLength,
            Known::TransferEncoding,
            Known::Connection,
            Known::KeepAlive,
            Known::ProxyConnection,
            Known::Te,
            Known::Expect,
        ];
        if request.fields.contains_any(OURS) {
            return Err(Misuse::ForbiddenField);
        }
        // Nothing that could end the target early, or that no URI holds, gets into the request line.
        let connect = *request.method == Method::Connect;
        let fits = match request.target {
            [b'/', ..] => !connect,
            b"*" => *request.method == Method::Options,
            [] => false,
            _ => true,
        };
        if !fits || !request.target.iter().all(|&b| b.is_ascii_graphic() && b != b'#') {
            return Err(Misuse::InvalidTarget);
        }
        match request.host {
            Some([]) => {}
            Some(host) if Authority::parse(host).is_ok() => {}
            None if request.version < Version::Http11 => {} // 9112-3.2-03
            _ => return Err(Misuse::InvalidHost),
        }
        let bare = request.fields.is_empty() && request.length == Length::Absent;
        match request.version {
            Version::Http11 => Ok(()),
            // 9110-7.8-06: HTTP/1.0 has no Upgrade.
            Version::Http10 if request.fields.contains(Known::Upgrade) => Err(Misuse::ForbiddenField),
            Version::Http10 => Ok(()),
            Version::Http09 if !self.config.options.http09 => Err(Misuse::VersionOff),
            Version::Http09 if *request.method == Method::Get && bare && self.sent == 0 => Ok(()),
            Version::Http09 => Err(Misuse::OutOfTurn),
        }
    }

    fn choose_framing(&self, request: &Request<'_>) -> Result<Framing, Misuse> {
        if *request.method == Method::Connect && request.length != Length::Absent {
            return Err(Misuse::NoContentAllowed); // RFC 9110 §9.3.6
        }
        let speaks_11 = request.version >= Version::Http11
            && (self.config.options.assume_http11 || self.peer_version == Some(Version::Http11));
        match request.length {
            Length::Absent => Ok(Framing::None),
            Length::Known(n) if n > 0 && request.gzip && speaks_11 => Ok(Framing::Chunked { gzip: true }),
            Length::Known(n) => Ok(Framing::Length(n)), // 9112-6.3-11
            Length::Unknown if speaks_11 => Ok(Framing::Chunked { gzip: request.gzip }),
            Length::Unknown => Err(Misuse::LengthNeeded), // 9112-6.3-13
        }
    }

    /// The encoder of the request whose head went out last. To ask for it is to send content: a 100 is not
    /// waited for any more.
    ///
    /// # Errors
    /// If no request body is under way.
    #[inline]
    pub fn body(&mut self) -> Result<&mut BodyEncoder, Misuse> {
        self.sending.awaits_continue = false;
        self.encoder.as_mut().ok_or(Misuse::OutOfTurn)
    }

    /// Ends a request that has a body: appends its end.
    ///
    /// # Errors
    /// As [`BodyEncoder::finish`]; then the request was cut and the connection must be closed.
    pub fn finish(&mut self, trailers: Option<&Fields>, out: &mut Vec<u8>) -> Result<(), Misuse> {
        let mut encoder = self.encoder.take().ok_or(Misuse::OutOfTurn)?;
        if let Err(misuse) = encoder.finish(trailers, out) {
            self.cut_request();
            return Err(misuse);
        }
        self.sending.awaits_continue = false;
        let last = self.behind.back().or(self.front.as_ref());
        let offers = last.is_some_and(|o| o.offers_upgrade) && self.early_response().is_none();
        self.end_request(offers)
    }

    /// Stops sending a request before its end. Its response may still be read, and then the connection ends:
    /// there is no way to end the body that a server could not take for the whole of it.
    pub fn abandon(&mut self) {
        if self.is_sending() {
            self.cut_request();
        }
    }

    fn cut_request(&mut self) {
        self.encoder = None;
        self.sending.awaits_continue = false;
        self.client = State::Error;
        self.closing.get_or_insert(CloseReason::RequestCut);
        // The early response may be complete already.
        if self.front.is_none() && matches!(self.receive, Receive::Head(_)) {
            self.receive = Receive::Stopped;
        }
    }

    /// Reads from the front of `input`: how much was taken, and what it was. What was not taken must stand at
    /// the front of the next call's input. `end_of_input` says that the server will send nothing after it.
    ///
    /// Call it also before an idle connection is used again: whatever came in the meantime was not asked for.
    ///
    /// # Errors
    /// The first rule that the server broke. Nothing is read after that, and the connection must be closed.
    #[inline]
    pub fn receive<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
        head: &mut ResponseHead,
    ) -> Result<(usize, Arrived<'b>), Malformed> {
        let result = match &mut self.receive {
            Receive::Head(_) => self.receive_head(input, end_of_input, head),
            Receive::Body(_) => self.receive_body(input, end_of_input),
            Receive::Stopped => Ok((0, Arrived::Stopped)),
            Receive::Closed => Ok((0, Arrived::Closed)),
            Receive::Switched => Ok((0, Arrived::Tunnel)),
        };
        if let Err(malformed) = result {
            self.receive = Receive::Stopped;
            self.server = State::Error;
            self.closing = Some(CloseReason::Malformed(malformed));
        }
        result
    }

    fn receive_head<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
        head: &mut ResponseHead,
    ) -> Result<(usize, Arrived<'b>), Malformed> {
        let Some(front) = self.front else { return self.receive_unasked(input, end_of_input) };
        let Receive::Head(scan) = &mut self.receive else { return Ok((0, Arrived::Stopped)) };
        if input.is_empty() {
            return Ok((0, if end_of_input { self.peer_closed() } else { Arrived::NeedMore }));
        }
        const BEGINNING: &[u8] = b"HTTP/";
        if scan.searched() < BEGINNING.len() && !input.iter().zip(BEGINNING).all(|(a, b)| a == b) {
            return self.receive_http09(front, head);
        }
        let complete = scan.is_fresh() || head::scan_response_head(input, &self.config, scan)?;
        let progress = if complete {
            head::response_head(input, &self.config, &front.kind.method(), head)?
        } else {
            Progress::Incomplete(*scan)
        };
        match progress {
            Progress::Complete(end) => Ok((end, self.begin_response(front, head, end)?)),
            Progress::Incomplete(_) if end_of_input => {
                let tiny = input.len() < BEGINNING.len() && self.may_be_http09(front);
                if tiny { self.receive_http09(front, head) } else { Err(Malformed::HeadCut) }
            }
            Progress::Incomplete(so_far) => {
                *scan = so_far;
                Ok((0, Arrived::NeedMore))
            }
        }
    }

    /// Octets while nothing is outstanding (9112-9.2-02a, 9112-9.2-02b): only empty lines are borne.
    fn receive_unasked<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
    ) -> Result<(usize, Arrived<'b>), Malformed> {
        let mut at = 0;
        while let [b'\r', b'\n', ..] = input[at..] {
            at += 2;
        }
        match input[at..] {
            [] if end_of_input => Ok((at, self.peer_closed())),
            [] => Ok((at, Arrived::NeedMore)),
            [b'\r'] if !end_of_input => Ok((at, Arrived::NeedMore)),
            _ => Err(Malformed::Unsolicited),
        }
    }

    fn peer_closed(&mut self) -> Arrived<'static> {
        self.receive = Receive::Closed;
        self.closing.get_or_insert(CloseReason::PeerClosed);
        Arrived::Closed
    }

    fn may_be_http09(&self, front: Outstanding) -> bool {
        let first = self.answered == 0 && self.interim_count == 0;
        self.config.options.http09 && front.kind == Kind::Get && first
    }

    /// What does not begin with a version is the whole of an HTTP/0.9 response, if those are spoken here.
    fn receive_http09<'b>(
        &mut self,
        front: Outstanding,
        head: &mut ResponseHead,
    ) -> Result<(usize, Arrived<'b>), Malformed> {
        if !self.may_be_http09(front) {
            return Err(Malformed::StatusLine);
        }
        head.version = Version::Http09;
        head.status = Status::OK;
        head.reason.clear();
        head.fields.clear();
        head.framing = Framing::UntilClose { gzip: false };
        Ok((0, self.begin_response(front, head, 0)?))
    }

    fn begin_response(
        &mut self,
        front: Outstanding,
        head: &ResponseHead,
        head_bytes: usize,
    ) -> Result<Arrived<'static>, Malformed> {
        self.receive = Receive::Head(Scan::FRESH);
        if head.status == Status::SWITCHING_PROTOCOLS {
            return self.switch(front, head);
        }
        if head.status.is_interim() {
            self.interim_count += 1;
            self.interim_bytes += head_bytes;
            let limits = &self.config.limits;
            if self.interim_count > limits.interim_responses_max
                || self.interim_bytes > limits.interim_bytes_max
            {
                return Err(Malformed::TooManyInterim);
            }
            if head.status == Status::CONTINUE && self.behind.is_empty() {
                self.sending.awaits_continue = false;
            }
            return Ok(Arrived::Interim);
        }
        self.peer_version = Some(head.version);
        if front.kind == Kind::Connect && head.status.class() == Class::Successful {
            return self.switch(front, head);
        }
        self.answer_begun = true;
        advance(Side::Server, &mut self.server, Step::FinalHead);
        if self.behind.is_empty() {
            self.sending.withheld |= self.awaits_continue();
            self.sending.awaits_continue = false;
            self.sending.refused = head.status.class() >= Class::Redirection;
            if let Some(state) = cycle::next(Side::Client, self.client, Step::SwitchDeclined) {
                self.client = state;
            }
        }
        self.keep_alive = keep_alive(&head.fields);
        if let Some(reason) = reason_to_close(front, head) {
            self.closing = Some(reason);
        }
        if head.framing.has_body() {
            self.receive = Receive::Body(BodyDecoder::new(head.framing));
        } else {
            self.end_response();
        }
        Ok(Arrived::Head)
    }

    /// 101, or 2xx to CONNECT: only where it was offered, and only after the whole request (fault R08).
    fn switch(&mut self, front: Outstanding, head: &ResponseHead) -> Result<Arrived<'static>, Malformed> {
        let offered = match head.status {
            Status::SWITCHING_PROTOCOLS => {
                front.offers_upgrade
                    && head.fields.contains(Known::Upgrade)
                    && head.fields.has_member(Known::Connection, "upgrade")
            }
            _ => front.kind == Kind::Connect,
        };
        match (offered, cycle::next(Side::Client, self.client, Step::Switch)) {
            (true, Some(state)) => self.client = state,
            _ => return Err(Malformed::SwitchUnasked),
        }
        advance(Side::Server, &mut self.server, Step::Switch);
        self.receive = Receive::Switched;
        self.closing = Some(CloseReason::Switched);
        self.front = None;
        Ok(Arrived::Switched)
    }

    fn receive_body<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
    ) -> Result<(usize, Arrived<'b>), Malformed> {
        let Receive::Body(decoder) = &mut self.receive else { return Ok((0, Arrived::Stopped)) };
        let (taken, piece) = decoder.decode(input, end_of_input, &self.config)?;
        let arrived = match piece {
            Piece::NeedMore => Arrived::NeedMore,
            Piece::Data(data) => Arrived::Data(data),
            Piece::Decoded(data) => Arrived::Decoded(data),
            Piece::End => {
                let trailers = decoder.take_trailers();
                self.end_response();
                Arrived::End(trailers)
            }
        };
        Ok((taken, arrived))
    }

    /// A response is complete: the next request moves up.
    fn end_response(&mut self) {
        self.answered = self.answered.saturating_add(1);
        self.front = None;
        advance(Side::Server, &mut self.server, Step::End);
        if self.closing_now() {
            advance(Side::Server, &mut self.server, Step::NoMore);
            self.receive = Receive::Stopped;
            return;
        }
        advance(Side::Server, &mut self.server, Step::Restart);
        self.receive = Receive::Head(Scan::FRESH);
        if let Some(next) = self.behind.pop_front() {
            self.begin_awaiting(next);
        }
    }

    /// What the server said ends all at once; our own wish waits for the responses outstanding.
    fn closing_now(&self) -> bool {
        match self.closing {
            None => false,
            Some(
                CloseReason::ServerAsked
                | CloseReason::OldVersion
                | CloseReason::UntilClose
                | CloseReason::ConnectRefused
                | CloseReason::Ambiguous
                | CloseReason::PeerClosed
                | CloseReason::Malformed(_),
            ) => true,
            Some(_) => self.behind.is_empty(),
        }
    }

    /// The connection is to end after the responses outstanding, or at once if it is idle.
    pub fn stop(&mut self, reason: CloseReason) {
        self.closing.get_or_insert(reason);
        if self.front.is_none() && matches!(self.receive, Receive::Head(_)) {
            self.receive = Receive::Stopped;
        }
    }
}

/// A step that what was checked before allows. Were it not so, nothing more would be done on this side.
fn advance(side: Side, state: &mut State, step: Step) {
    let next = cycle::next(side, *state, step);
    debug_assert!(next.is_some(), "{side:?} in {state:?} cannot {step:?}");
    *state = next.unwrap_or(State::Error);
}

impl Kind {
    /// A method that frames responses as this kind does.
    fn method(self) -> Method {
        match self {
            Kind::Head => Method::Head,
            Kind::Connect => Method::Connect,
            Kind::Get | Kind::Other => Method::Get,
        }
    }
}

fn write_head(request: &Request<'_>, framing: Framing, upgrade: bool, expect: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target);
    match request.version {
        Version::Http09 => {
            out.extend_from_slice(b"\r\n");
            return;
        }
        Version::Http10 => out.extend_from_slice(b" HTTP/1.0\r\n"),
        Version::Http11 => out.extend_from_slice(b" HTTP/1.1\r\n"),
    }
    if let Some(host) = request.host {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(host);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(request.fields.wire());
    match framing {
        Framing::Length(n) => {
            out.extend_from_slice(b"Content-Length: ");
            push_decimal(out, n);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked { gzip: false } => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Chunked { gzip: true } => out.extend_from_slice(b"Transfer-Encoding: gzip, chunked\r\n"),
        Framing::None | Framing::UntilClose { .. } => {}
    }
    if expect {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    write_connection(request, upgrade, out);
    out.extend_from_slice(b"\r\n");
}

/// Connection, with TE, which it must name (9112-7.4-03), and never `chunked` in TE (9112-7.4-01).
fn write_connection(request: &Request<'_>, upgrade: bool, out: &mut Vec<u8>) {
    let te: &[u8] = match (request.te_trailers, request.te_gzip) {
        _ if request.version < Version::Http11 => b"",
        (true, true) => b"TE: trailers, gzip\r\n",
        (true, false) => b"TE: trailers\r\n",
        (false, true) => b"TE: gzip\r\n",
        (false, false) => b"",
    };
    out.extend_from_slice(te);
    let options: &[u8] = match (request.close, upgrade, !te.is_empty()) {
        (false, false, false) if request.version < Version::Http11 => b"keep-alive",
        (false, false, false) => return,
        (true, false, false) => b"close",
        (false, true, false) => b"upgrade",
        (false, false, true) => b"TE",
        (true, true, false) => b"close, upgrade",
        (true, false, true) => b"close, TE",
        (false, true, true) => b"upgrade, TE",
        (true, true, true) => b"close, upgrade, TE",
    };
    out.extend_from_slice(b"Connection: ");
    out.extend_from_slice(options);
    out.extend_from_slice(b"\r\n");
}

/// Why no request may follow the one that this final response answers (9112-9.3-R1), if so.
fn reason_to_close(request: Outstanding, head: &ResponseHead) -> Option<CloseReason> {
    if request.said_close {
        return Some(CloseReason::ClientAsked); // 9112-9.6-02b
    }
    if request.kind == Kind::Connect {
        return Some(CloseReason::ConnectRefused); // fault S75; RFC 9931
    }
    if matches!(head.framing, Framing::UntilClose { .. }) {
        return Some(CloseReason::UntilClose);
    }
    let wish = persistence::wish(head.version, &head.fields);
    if wish.said_close {
        return Some(CloseReason::ServerAsked); // 9112-9.6-08a
    }
    // A request below HTTP/1.1 asked for keep-alive, and only a plain yes is one.
    if !wish.persist || (request.version < Version::Http11 && !wish.said_keep_alive) {
        return Some(CloseReason::OldVersion);
    }
    is_contradictory(head).then_some(CloseReason::Ambiguous)
}

/// A response without body whose fields speak of one that cannot be: what follows may be that body (faults R09,
/// R10). With HEAD and 304 the fields tell of another response, but not two things at once.
fn is_contradictory(head: &ResponseHead) -> bool {
    let coding = head.fields.contains(Known::TransferEncoding);
    match head.status {
        _ if head.framing.has_body() => false,
        Status::NO_CONTENT => {
            coding || head.fields.get(Known::ContentLength).is_some_and(|v| grammar::decimal(v) != Some(0))
        }
        // 9112-6.1-14: a coding in HTTP/1.0 is faulty even where no body follows (fault R28).
        _ => coding && (head.version < Version::Http11 || head.fields.contains(Known::ContentLength)),
    }
}

fn keep_alive(fields: &Fields) -> KeepAlive {
    let mut found = KeepAlive::default();
    if !fields.contains(Known::KeepAlive) {
        return found;
    }
    for member in fields.list(Known::KeepAlive) {
        let Some((name, value)) = grammar::parameter(member) else { continue };
        let number = grammar::decimal_saturating(value).map(|n| n.min(u64::from(u32::MAX)) as u32);
        if name.eq_ignore_ascii_case(b"timeout") {
            found.timeout_secs = number;
        } else if name.eq_ignore_ascii_case(b"max") {
            found.requests_left = number;
        }
    }
    found
}
