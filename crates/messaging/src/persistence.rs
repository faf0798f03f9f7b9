//! Persistence (RFC 9112 §9.3, §9.6): whether a connection serves another exchange, and if not, why. The reason
//! reaches the log, the metrics and the close itself.

use crate::error::Malformed;
use eleven_semantics::names::Known;
use eleven_semantics::{Fields, Version};

/// What becomes of a connection after an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Another exchange may follow.
    Keep,
    /// It ends after this response.
    Close(CloseReason),
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client sent `Connection: close` (9112-9.6-03).
    ClientAsked,
    /// The server sent `Connection: close` (9112-9.6-08a).
    ServerAsked,
    /// An HTTP/1.0 peer without keep-alive (9112-9.3-R1), or HTTP/0.9.
    OldVersion,
    /// The peer closed between messages.
    PeerClosed,
    /// The peer broke the protocol.
    Malformed(Malformed),
    /// The response is delimited by the close (RFC 9112 §6.3 rule 8).
    UntilClose,
    /// The response went out before the request's content was read (9112-9.3-05).
    ContentUnread,
    /// CONNECT was refused (RFC 9931).
    ConnectRefused,
    /// The connection served as many requests as it may.
    RequestsMax,
    /// The server is stopping.
    Stopping,
    /// No next request came in time.
    IdleTimeout,
    /// A head did not come in time (408).
    HeadTimeout,
    /// Request content came too slowly (408).
    ContentTimeout,
    /// The peer does not read what it asked for.
    SendTimeout,
    /// The connection made room for a newcomer.
    Evicted,
    /// There are more connections than may be.
    ConnectionsMax,
    /// The response could not be completed; its end was cut so that nobody takes it for whole.
    ResponseCut,
    /// The request was not sent to its end (client).
    RequestCut,
    /// The response contradicts itself about a body (client; faults R09, R10).
    Ambiguous,
    /// Reading or writing failed.
    Broken,
    /// The connection speaks another protocol now (101, CONNECT).
    Switched,
    /// The handler of the request wished so.
    Handler,
    /// A fault of this program.
    Internal,
}

impl CloseReason {
    /// A short stable name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            CloseReason::ClientAsked => "client-asked",
            CloseReason::ServerAsked => "server-asked",
            CloseReason::OldVersion => "old-version",
            CloseReason::PeerClosed => "peer-closed",
            CloseReason::Malformed(_) => "malformed",
            CloseReason::UntilClose => "until-close",
            CloseReason::ContentUnread => "content-unread",
            CloseReason::ConnectRefused => "connect-refused",
            CloseReason::RequestsMax => "requests-max",
            CloseReason::Stopping => "stopping",
            CloseReason::IdleTimeout => "idle-timeout",
            CloseReason::HeadTimeout => "head-timeout",
            CloseReason::ContentTimeout => "content-timeout",
            CloseReason::SendTimeout => "send-timeout",
            CloseReason::Evicted => "evicted",
            CloseReason::ConnectionsMax => "connections-max",
            CloseReason::ResponseCut => "response-cut",
            CloseReason::RequestCut => "request-cut",
            CloseReason::Ambiguous => "ambiguous",
            CloseReason::Broken => "broken",
            CloseReason::Switched => "switched",
            CloseReason::Handler => "handler",
            CloseReason::Internal => "internal",
        }
    }

    /// Whether the peer may still be sending, so that closing at once could reset the connection under the
    /// response it has not read yet (9112-9.6-R1). Then the close is done in stages.
    pub fn needs_lingering(&self) -> bool {
        !matches!(
            self,
            // It said itself that nothing follows, or is gone, or is owed a visible cut.
            CloseReason::ClientAsked
                | CloseReason::PeerClosed
                | CloseReason::Evicted
                | CloseReason::SendTimeout
                | CloseReason::ResponseCut
                | CloseReason::Broken
                | CloseReason::Switched
        )
    }
}

/// What a message says of persistence, by its version and Connection field (9112-9.3-R1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The connection may persist as far as this message goes.
    pub persist: bool,
    /// It said `close`, rather than merely being old.
    pub said_close: bool,
    /// It said `keep-alive`, and so wants to be told that we do (RFC 9112 §9.3, appendix C.2.2).
    pub said_keep_alive: bool,
}

/// Reads the wish of a message.
#[inline]
pub fn wish(version: Version, fields: &Fields) -> Wish {
    if !fields.contains(Known::Connection) {
        let persist = version == Version::Http11;
        return Wish { persist, said_close: false, said_keep_alive: false };
    }
    // Nearly every Connection field is one word.
    let only = fields.only(Known::Connection).one();
    let is = |option: &str| only.is_some_and(|value| value.eq_ignore_ascii_case(option.as_bytes()));
    let (said_close, said_keep_alive) = match (is("close"), is("keep-alive")) {
        (false, false) => (
            fields.has_member(Known::Connection, "close"),
            fields.has_member(Known::Connection, "keep-alive"),
        ),
        found => found,
    };
    let persist =
        !said_close && (version == Version::Http11 || (version == Version::Http10 && said_keep_alive));
    Wish { persist, said_close, said_keep_alive }
}

/// How much of a request's content is still to come when its response goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Nothing.
    Nothing,
    /// So many octets.
    Known(u64),
    /// Nobody knows (chunked).
    Unknown,
    /// The client waits for 100 and will get the final response instead: it may send the content or not, and
    /// the next octets are ambiguous (faults S46, S50).
    Withheld,
}

/// Whether a connection whose request was not read to its end may go on: yes if the rest is little enough to
/// be read away (9112-9.3-05).
pub fn after_unread(unread: Unread, drain_bytes_max: u64) -> Persistence {
    match unread {
        Unread::Nothing => Persistence::Keep,
        Unread::Known(n) if n <= drain_bytes_max => Persistence::Keep,
        _ => Persistence::Close(CloseReason::ContentUnread),
    }
}
