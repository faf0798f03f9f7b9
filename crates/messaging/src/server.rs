//! The server's end of a connection: requests come out of octets, responses go into octets, in order. Holds
//! pipelining, 100-continue, the hand-over to another protocol, and when the connection ends.
//!
//! It never waits: the driver brings octets and takes octets, and asks what is next.

use crate::body::{BodyDecoder, BodyEncoder, Piece};
use crate::cycle::{self, Side, State, Step};
use crate::error::{Malformed, Misuse};
use crate::framing::{self, Framing};
use crate::head::{self, Expectation, Progress, RequestHead, Scan};
use crate::limits::Config;
use crate::persistence::{self, CloseReason, Persistence, Unread};
use eleven_semantics::expect;
use eleven_semantics::grammar::push_decimal;
use eleven_semantics::names::Known;
use eleven_semantics::status::Class;
use eleven_semantics::{Fields, Method, Status, Version};
use std::collections::VecDeque;
use std::sync::Arc;

/// One connection, as the server sees it.
#[derive(Debug)]
pub struct ServerConnection {
    config: Arc<Config>,
    receive: Receive,
    /// The client's side of the request that is being received.
    client: State,
    /// The server's side of the request that is being answered.
    server: State,
    /// The request being answered, and those behind it.
    front: Option<Pending>,
    behind: VecDeque<Pending>,
    encoder: Option<BodyEncoder>,
    /// Set as soon as it is known that no further exchange follows the response under way.
    closing: Option<CloseReason>,
    /// The rule that the client broke. Requests before it are still answered, then the fault itself.
    fault: Option<Malformed>,
    served: u32,
}

#[derive(Debug)]
enum Receive {
    Head {
        scan: Scan,
        empty_lines: u8,
    },
    Body(BodyDecoder),
    /// The request offered a switch; the next octets may not be HTTP.
    MightSwitch,
    /// Nothing more is read as HTTP.
    Stopped,
    Switched,
}

impl Receive {
    const FRESH: Receive = Receive::Head { scan: Scan::FRESH, empty_lines: 0 };
}

/// What must be remembered of a request until it is answered.
#[derive(Debug, Clone, Copy)]
struct Pending {
    version: Version,
    head_only: bool,
    connect: bool,
    offers_upgrade: bool,
    te_gzip: bool,
    persist: bool,
    said_keep_alive: bool,
    awaits_continue: bool,
    /// It offered a switch and said 100-continue, and no 100 went out.
    lacks_continue: bool,
    /// Its content broke a rule or broke off: the connection ends with its response.
    failed: bool,
}

/// What [`ServerConnection::receive`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'b> {
    /// All usable octets were taken; call again with more.
    NeedMore,
    /// The head was filled in. If its framing has no body, the request is complete.
    Head,
    /// Content of the request, lent from the input.
    Data(&'b [u8]),
    /// Content of the request that a transfer coding was taken off.
    Decoded(Vec<u8>),
    /// The request is complete, with its trailer section. Comes only for requests with a body.
    End(Option<Fields>),
    /// Nothing is read before a response has gone out: too many requests wait, or the last one offered a switch.
    Blocked,
    /// Nothing is read any more: the connection ends after the responses owed.
    Stopped,
    /// The client closed between messages.
    Closed,
    /// The octets from here on belong to the protocol switched to.
    Tunnel,
}

/// The length of a response's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// No content. Nothing is said of a length where silence means none (204, 304, the answer to HEAD; in
    /// requests always).
    Absent,
    /// So many octets.
    Known(u64),
    /// Not known beforehand.
    Unknown,
}

/// A final response head to be written.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// A final status; 101 goes through [`ServerConnection::switch`].
    pub status: Status,
    /// The header section, without framing, Connection and Keep-Alive.
    pub fields: &'a Fields,
    /// More lines behind them, where the fields are shared with other responses (Age of a stored one).
    pub added: Option<&'a Fields>,
    /// The length of the content, also where none will be sent (HEAD).
    pub length: Length,
    /// The line `Date: … CRLF`, used unless the fields have a Date; empty for a server without a clock.
    pub date: &'a [u8],
    /// The driver's wish to end the connection.
    pub close: Option<CloseReason>,
    /// The driver goes on reading the request's content for its handler while the response is under way, so
    /// that content which has not come yet is no reason to close.
    pub content_is_read: bool,
    /// The content is worth a `gzip` transfer coding where the client asks for it.
    pub compressible: bool,
}

impl ServerConnection {
    /// A new connection.
    pub fn new(config: Arc<Config>) -> ServerConnection {
        ServerConnection {
            config,
            receive: Receive::FRESH,
            client: State::Idle,
            server: State::Idle,
            front: None,
            behind: VecDeque::new(),
            encoder: None,
            closing: None,
            fault: None,
            served: 0,
        }
    }

    /// The configuration it runs under.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Takes a new configuration; only between requests, when [`ServerConnection::is_idle`].
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Nothing is owed and nothing has begun: the connection may wait, or close without harm to anyone.
    pub fn is_idle(&self) -> bool {
        self.front.is_none()
            && self.server == State::Idle
            && self.closing().is_none()
            && matches!(&self.receive, Receive::Head { scan, .. } if scan.is_fresh())
    }

    /// Requests received and not completely answered.
    pub fn pending(&self) -> usize {
        usize::from(self.front.is_some()) + self.behind.len()
    }

    /// Requests whose head was received so far.
    pub fn served(&self) -> u32 {
        self.served
    }

    /// Whether content of a request is still to come.
    pub fn is_receiving_content(&self) -> bool {
        matches!(self.receive, Receive::Body(_))
    }

    /// Whether the content still to come belongs to the request that is being answered (else that one is
    /// complete, or was answered already).
    fn front_is_receiving(&self) -> bool {
        self.is_receiving_content() && self.behind.is_empty() && self.front.is_some()
    }

    /// Whether a final response head can be written now.
    pub fn owes_response(&self) -> bool {
        self.server == State::SendResponse
    }

    /// Whether the client waits for `100 Continue` before it sends the content of the request being answered.
    pub fn awaits_continue(&self) -> bool {
        self.front_is_receiving() && self.front.is_some_and(|p| p.awaits_continue)
    }

    /// Whether an interim response can be written now: the client knows them (HTTP/1.1) and no final head has
    /// gone out.
    pub fn allows_interim(&self) -> bool {
        self.server == State::SendResponse && self.front.is_some_and(|p| p.version >= Version::Http11)
    }

    /// Whether the request being answered is complete and offers a switch.
    pub fn may_switch(&self) -> bool {
        matches!(self.receive, Receive::MightSwitch) && self.behind.is_empty()
    }

    /// Whether the content still to come is of no use to anyone: its request was answered, or its final head
    /// is out. It may be read and thrown away.
    pub fn content_is_unwanted(&self) -> bool {
        self.is_receiving_content()
            && self.behind.is_empty()
            && (self.front.is_none() || self.server != State::SendResponse)
    }

    /// Why the connection will end after the current response, or after a fault, if that is known.
    pub fn closing(&self) -> Option<CloseReason> {
        self.closing.or(self.fault.map(CloseReason::Malformed))
    }

    fn step(side: Side, state: &mut State, step: Step) -> Result<(), Misuse> {
        *state = cycle::next(side, *state, step).ok_or(Misuse::OutOfTurn)?;
        Ok(())
    }

    /// Reads from the front of `input`: how much was taken, and what it was. What was not taken must stand at
    /// the front of the next call's input. `end_of_input` says that the client will send nothing after it.
    ///
    /// # Errors
    /// The first rule that the client broke. Nothing is read after that; what is owed can still be answered,
    /// and the fault with it.
    #[inline]
    pub fn receive<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
        head: &mut RequestHead,
    ) -> Result<(usize, Received<'b>), Malformed> {
        let result = match &mut self.receive {
            Receive::Head { .. } => self.receive_head(input, end_of_input, head),
            Receive::Body(_) => self.receive_body(input, end_of_input),
            Receive::MightSwitch => Ok((0, Received::Blocked)),
            Receive::Stopped => Ok((0, Received::Stopped)),
            Receive::Switched => Ok((0, Received::Tunnel)),
        };
        if let Err(malformed) = result {
            self.fail(malformed);
        }
        result
    }

    #[cold]
    fn fail(&mut self, malformed: Malformed) {
        if self.is_receiving_content()
            && let Some(last) = self.behind.back_mut().or(self.front.as_mut())
        {
            last.failed = true;
        }
        self.receive = Receive::Stopped;
        self.client = State::Error;
        self.fault = Some(malformed);
    }

    fn receive_head<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
        head: &mut RequestHead,
    ) -> Result<(usize, Received<'b>), Malformed> {
        let Receive::Head { scan, empty_lines } = &mut self.receive else {
            return Ok((0, Received::Stopped));
        };
        let mut at = 0;
        if scan.is_fresh() {
            // 9112-2.2-07: an empty line before the request line is skipped.
            while let [b'\r', b'\n', ..] = input[at..] {
                at += 2;
                *empty_lines += 1;
                if *empty_lines > self.config.limits.empty_lines_max {
                    return Err(Malformed::EmptyLines);
                }
            }
            match input[at..] {
                [] if end_of_input => return Ok((at, Received::Closed)),
                [] => return Ok((at, Received::NeedMore)),
                [b'\r'] if !end_of_input => return Ok((at, Received::NeedMore)),
                [first, ..] => check_first_octet(first)?,
            }
        }
        if self.pending() >= self.config.limits.pipelined_requests_max {
            return Ok((at, Received::Blocked));
        }
        let Receive::Head { scan, .. } = &mut self.receive else { return Ok((0, Received::Stopped)) };
        let input = &input[at..];
        let progress = if scan.is_fresh() || head::scan_request_head(input, &self.config, scan, head)? {
            head::request_head(input, &self.config, head)?
        } else {
            Progress::Incomplete(*scan)
        };
        match progress {
            Progress::Complete(end) => {
                self.begin_request(head)?;
                Ok((at + end, Received::Head))
            }
            Progress::Incomplete(_) if end_of_input => Err(Malformed::HeadCut),
            Progress::Incomplete(so_far) => {
                *scan = so_far;
                Ok((at, Received::NeedMore))
            }
        }
    }

    fn begin_request(&mut self, head: &RequestHead) -> Result<(), Malformed> {
        let wish = persistence::wish(head.version, &head.fields);
        // 9110-7.8-06: Upgrade in an HTTP/1.0 request is ignored.
        let offers_upgrade = head.version >= Version::Http11
            && head.fields.contains(Known::Upgrade)
            && head.fields.has_member(Known::Connection, "upgrade");
        let pending = Pending {
            version: head.version,
            head_only: head.method == Method::Head,
            connect: head.method == Method::Connect,
            offers_upgrade,
            te_gzip: head.version >= Version::Http11
                && self.config.options.transfer_gzip
                && head.fields.contains(Known::Te)
                && framing::te_allows_gzip(&head.fields),
            persist: wish.persist,
            said_keep_alive: wish.said_keep_alive && wish.persist,
            awaits_continue: head.expectation == Expectation::Continue,
            // The head's own says nothing where no content is announced.
            lacks_continue: offers_upgrade
                && expect::expectation(head.version, &head.fields) == expect::Expectation::Continue,
            failed: false,
        };
        self.served = self.served.saturating_add(1);
        // These steps cannot fail: a head is read only between messages.
        self.client = State::SendBody;
        if self.front.is_none() && self.server == State::Idle {
            self.front = Some(pending);
            self.server = State::SendResponse;
        } else {
            self.behind.push_back(pending);
        }
        if head.framing.has_body() {
            self.receive = Receive::Body(BodyDecoder::new(head.framing));
        } else {
            self.end_request();
        }
        Ok(())
    }

    /// The request is complete: what may be read next?
    fn end_request(&mut self) {
        self.client = State::Done;
        let limit = self.config.limits.requests_per_connection_max;
        // An already answered request leaves no pending entry; it declined any switch then.
        let last = self.behind.back().or(self.front.as_ref()).copied();
        self.receive = match last {
            _ if self.closing().is_some() => Receive::Stopped,
            Some(p) if (p.connect || p.offers_upgrade) && !self.last_has_head_out() => {
                self.client = State::MightSwitch;
                Receive::MightSwitch
            }
            // 9112-9.6-05: nothing is processed after a request that ends the connection.
            Some(p) if !p.persist => Receive::Stopped,
            _ if limit > 0 && self.served >= limit => Receive::Stopped,
            _ => {
                self.client = State::Idle;
                Receive::FRESH
            }
        };
    }

    /// Whether the request received last has its final head on the way already.
    fn last_has_head_out(&self) -> bool {
        self.behind.is_empty() && self.server != State::SendResponse
    }

    fn receive_body<'b>(
        &mut self,
        input: &'b [u8],
        end_of_input: bool,
    ) -> Result<(usize, Received<'b>), Malformed> {
        let Receive::Body(decoder) = &mut self.receive else { return Ok((0, Received::Stopped)) };
        let (taken, piece) = decoder.decode(input, end_of_input, &self.config)?;
        let received = match piece {
            Piece::NeedMore => return Ok((taken, Received::NeedMore)),
            Piece::Data(data) => Received::Data(data),
            Piece::Decoded(data) => Received::Decoded(data),
            Piece::End => {
                let trailers = decoder.take_trailers();
                self.end_request();
                return Ok((taken, Received::End(trailers)));
            }
        };
        // Octets of the content are there: it was not withheld for want of a 100 (9110-10.1.1-07).
        if let Some(last) = self.behind.back_mut().or(self.front.as_mut()) {
            last.awaits_continue = false;
        }
        Ok((taken, received))
    }

    /// Writes an interim response other than 101. `false` if it is withheld, because the client would not
    /// understand it (9110-15.2-02).
    ///
    /// # Errors
    /// If the status is not interim, or no request waits for its final response.
    pub fn interim(&mut self, status: Status, fields: &Fields, out: &mut Vec<u8>) -> Result<bool, Misuse> {
        if !status.is_interim() || status == Status::SWITCHING_PROTOCOLS {
            return Err(Misuse::WrongClass);
        }
        check_fields(fields)?;
        let front = self.front.as_mut().ok_or(Misuse::NothingToAnswer)?;
        Self::step(Side::Server, &mut self.server, Step::Interim)?;
        if front.version < Version::Http11 {
            return Ok(false);
        }
        if status == Status::CONTINUE {
            front.awaits_continue = false;
            front.lacks_continue = false;
        }
        push_status_line(status, out);
        out.extend_from_slice(fields.wire());
        out.extend_from_slice(b"\r\n");
        Ok(true)
    }

    /// Writes the head of a final response. Its content follows through [`ServerConnection::body`], and
    /// [`ServerConnection::finish`] ends it. The framing used is returned; [`Framing::None`] says that no octet
    /// of content may be sent.
    ///
    /// Without a waiting request this answers octets that never became one (400, 408).
    ///
    /// # Errors
    /// If the status is interim, a final head is out already, or the fields hold what is not the caller's.
    #[inline]
    pub fn respond(&mut self, answer: &Answer<'_>, out: &mut Vec<u8>) -> Result<Framing, Misuse> {
        if answer.status.is_interim() {
            return Err(Misuse::WrongClass);
        }
        check_fields(answer.fields)?;
        if let Some(added) = answer.added {
            check_fields(added)?;
        }
        let tunnel = self.front.is_some_and(|p| p.connect) && answer.status.class() == Class::Successful;
        if tunnel {
            return Err(Misuse::WrongClass); // that is a switch
        }
        Self::step(Side::Server, &mut self.server, Step::FinalHead)?;
        self.decline_switch();
        let framing = self.choose_framing(answer);
        if self.closing.is_none() {
            self.closing = self.reason_to_close(answer, framing);
        }
        if self.closing.is_some() && !self.is_receiving_content() {
            self.receive = Receive::Stopped;
        }
        self.write_head(answer, framing, out);
        let sent = match framing {
            // HEAD: the head told the framing of GET, the body stays out (9110-9.3.2-01).
            _ if self.front.is_some_and(|p| p.head_only) || answer.status.never_has_content() => {
                Framing::None
            }
            other => other,
        };
        self.encoder = Some(BodyEncoder::new(sent));
        Ok(sent)
    }

    /// A final response declines the switch that its request offered; after CONNECT the connection ends, since
    /// the client may have sent octets for the tunnel already (fault S75).
    fn decline_switch(&mut self) {
        let Some(front) = self.front else { return };
        if front.connect && self.closing.is_none() {
            self.closing = Some(CloseReason::ConnectRefused);
        }
        if self.may_switch() {
            self.receive = if front.persist { Receive::FRESH } else { Receive::Stopped };
            self.client = if front.persist { State::Idle } else { State::Done };
        }
    }

    fn choose_framing(&self, answer: &Answer<'_>) -> Framing {
        let version = self.front.map_or(Version::Http11, |p| p.version);
        let te_gzip = answer.compressible && self.front.is_some_and(|p| p.te_gzip);
        if answer.status == Status::RESET_CONTENT {
            return Framing::Length(0); // 9110-15.3.6-01
        }
        match answer.length {
            // Silence about the length would mean content until the connection closes (RFC 9112 §6.3 rule 8).
            Length::Absent
                if self.front.is_some_and(|p| p.head_only) || answer.status.never_has_content() =>
            {
                Framing::None
            }
            Length::Absent => Framing::Length(0),
            Length::Known(n) if te_gzip && n >= 256 => Framing::Chunked { gzip: true },
            Length::Known(n) => Framing::Length(n),
            // 9112-6.1-11: no transfer coding towards less than HTTP/1.1.
            Length::Unknown if version < Version::Http11 => Framing::UntilClose { gzip: false },
            Length::Unknown => Framing::Chunked { gzip: te_gzip },
        }
    }

    fn unread(&self) -> Unread {
        if !self.front_is_receiving() {
            return Unread::Nothing;
        }
        if self.awaits_continue() {
            return Unread::Withheld;
        }
        match &self.receive {
            Receive::Body(decoder) => decoder.remaining().map_or(Unread::Unknown, Unread::Known),
            _ => Unread::Nothing,
        }
    }

    fn reason_to_close(&self, answer: &Answer<'_>, framing: Framing) -> Option<CloseReason> {
        let fault = self.fault.map(CloseReason::Malformed);
        let Some(front) = self.front else { return fault.or(answer.close).or(Some(CloseReason::Internal)) };
        if front.failed {
            return fault;
        }
        if answer.close.is_some() {
            return answer.close;
        }
        if !front.persist {
            let old = front.version < Version::Http11;
            return Some(if old { CloseReason::OldVersion } else { CloseReason::ClientAsked });
        }
        let head_only = front.head_only || answer.status.never_has_content();
        if matches!(framing, Framing::UntilClose { .. }) && !head_only {
            return Some(CloseReason::UntilClose);
        }
        let limit = self.config.limits.requests_per_connection_max;
        if limit > 0 && self.behind.is_empty() && self.served >= limit {
            return Some(CloseReason::RequestsMax);
        }
        let unread = if answer.content_is_read { Unread::Nothing } else { self.unread() };
        match persistence::after_unread(unread, self.config.limits.drain_bytes_max) {
            Persistence::Keep => None,
            Persistence::Close(reason) => Some(reason),
        }
    }

    fn write_head(&self, answer: &Answer<'_>, framing: Framing, out: &mut Vec<u8>) {
        if self.front.is_some_and(|p| p.version == Version::Http09) {
            return; // HTTP/0.9 has no response head
        }
        push_status_line(answer.status, out);
        if !answer.fields.contains(Known::Date) {
            out.extend_from_slice(answer.date);
        }
        out.extend_from_slice(answer.fields.wire());
        if let Some(added) = answer.added {
            out.extend_from_slice(added.wire());
        }
        match framing {
            // 9110-8.6-05, 9112-6.1-07: neither field in a 204.
            _ if answer.status == Status::NO_CONTENT => {}
            Framing::None | Framing::UntilClose { .. } => {}
            Framing::Length(n) => {
                out.extend_from_slice(b"Content-Length: ");
                push_decimal(out, n);
                out.extend_from_slice(b"\r\n");
            }
            Framing::Chunked { gzip: false } => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Chunked { gzip: true } => out.extend_from_slice(b"Transfer-Encoding: gzip, chunked\r\n"),
        }
        self.write_connection(answer.fields.contains(Known::Upgrade), out);
        out.extend_from_slice(b"\r\n");
    }

    /// Connection and Keep-Alive (9112-9.3-03, 9112-9.6-01; 9110-7.8-02 for Upgrade).
    fn write_connection(&self, upgrade: bool, out: &mut Vec<u8>) {
        if upgrade {
            out.extend_from_slice(b"Connection: upgrade\r\n");
        }
        if self.closing.is_some() {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if self.front.is_some_and(|p| p.said_keep_alive) {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
            out.extend_from_slice(b"Keep-Alive: timeout=");
            push_decimal(out, u64::from(self.config.limits.idle_timeout_secs));
            let limit = self.config.limits.requests_per_connection_max;
            if limit > 0 {
                out.extend_from_slice(b", max=");
                push_decimal(out, u64::from(limit.saturating_sub(self.served)));
            }
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The encoder of the response whose head went out last.
    ///
    /// # Errors
    /// If no response is under way.
    #[inline]
    pub fn body(&mut self) -> Result<&mut BodyEncoder, Misuse> {
        self.encoder.as_mut().ok_or(Misuse::OutOfTurn)
    }

    /// Ends the response: appends the end of its body, and says what becomes of the connection. With
    /// [`Persistence::Keep`] the rest of the request, if it was not read, comes out of
    /// [`ServerConnection::receive`] and is to be thrown away.
    ///
    /// # Errors
    /// As [`BodyEncoder::finish`]; then the response was cut, and the connection must be closed so that the
    /// client notices.
    #[inline]
    pub fn finish(&mut self, trailers: Option<&Fields>, out: &mut Vec<u8>) -> Result<Persistence, Misuse> {
        let mut encoder = self.encoder.take().ok_or(Misuse::OutOfTurn)?;
        let finished = encoder.finish(trailers, out);
        let step = if finished.is_ok() { Step::End } else { Step::Fail };
        Self::step(Side::Server, &mut self.server, step)?;
        if let Err(misuse) = finished {
            self.closing = Some(CloseReason::ResponseCut);
            self.receive = Receive::Stopped;
            return Err(misuse);
        }
        self.front = None;
        if let Some(reason) = self.closing {
            Self::step(Side::Server, &mut self.server, Step::NoMore)?;
            self.behind.clear();
            self.receive = Receive::Stopped;
            return Ok(Persistence::Close(reason));
        }
        self.server = State::Idle;
        if let Some(next) = self.behind.pop_front() {
            self.front = Some(next);
            self.server = State::SendResponse;
        }
        Ok(Persistence::Keep)
    }

    /// Accepts the switch that the request offered: writes 101, or 2xx to CONNECT. After that, octets in both
    /// directions belong to the other protocol, those already received first.
    ///
    /// # Errors
    /// If the request offered none, is not complete, or the status is no acceptance.
    pub fn switch(
        &mut self,
        status: Status,
        fields: &Fields,
        date: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        let front = self.front.ok_or(Misuse::NothingToAnswer)?;
        let accepts = if front.connect {
            status.class() == Class::Successful
        } else {
            status == Status::SWITCHING_PROTOCOLS && fields.contains(Known::Upgrade)
        };
        if !accepts {
            return Err(Misuse::WrongClass);
        }
        if !self.may_switch() {
            return Err(Misuse::NoSwitchOffered);
        }
        check_fields(fields)?;
        Self::step(Side::Server, &mut self.server, Step::Switch)?;
        Self::step(Side::Client, &mut self.client, Step::Switch)?;
        self.receive = Receive::Switched;
        self.closing = Some(CloseReason::Switched);
        // 9110-7.8-12: even where there was nothing to wait for.
        if front.lacks_continue && !front.connect {
            push_status_line(Status::CONTINUE, out);
            out.extend_from_slice(b"\r\n");
        }
        push_status_line(status, out);
        if !fields.contains(Known::Date) {
            out.extend_from_slice(date);
        }
        out.extend_from_slice(fields.wire());
        if !front.connect {
            out.extend_from_slice(b"Connection: upgrade\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// The connection is to end after the response under way, or at once if it is idle.
    pub fn stop(&mut self, reason: CloseReason) {
        if self.closing.is_none() {
            self.closing = Some(reason);
        }
        if !self.is_receiving_content() && !matches!(self.receive, Receive::MightSwitch) {
            self.receive = Receive::Stopped;
        }
    }
}

/// Octets that can begin no request are refused at once, rather than when a line end comes or a deadline runs
/// out: a TLS handshake on a plain port, above all.
fn check_first_octet(first: u8) -> Result<(), Malformed> {
    match first {
        _ if eleven_semantics::grammar::is_tchar(first) => Ok(()),
        b'\n' => Err(Malformed::BareLf),
        b'\r' => Err(Malformed::BareCr),
        b' ' | b'\t' => Err(Malformed::RequestLine),
        0x21..=0x7e => Err(Malformed::Method),
        _ => Err(Malformed::NotHttp),
    }
}

fn check_fields(fields: &Fields) -> Result<(), Misuse> {
    const OURS: &[Known] = &[
        Known::ContentLength,
        Known::TransferEncoding,
        Known::Connection,
        Known::KeepAlive,
        Known::ProxyConnection,
    ];
    if fields.contains_any(OURS) { Err(Misuse::ForbiddenField) } else { Ok(()) }
}

fn push_status_line(status: Status, out: &mut Vec<u8>) {
    match status.line() {
        Some(line) => out.extend_from_slice(line),
        None => {
            // 9112-4-04: the space stays, though there is no phrase.
            out.extend_from_slice(b"HTTP/1.1 ");
            push_decimal(out, u64::from(status.code()));
            out.extend_from_slice(b" \r\n");
        }
    }
}
