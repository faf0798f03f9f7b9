//! What went wrong, where, and whether trying again is safe. One type for the whole crate: the proxy turns it
//! into 502 or 504, the downloader into another attempt, the command into a sentence and an exit code.

use eleven_messaging::Malformed;
use eleven_net::tls_config::CertificateProblem;
use std::fmt;
use std::net::SocketAddr;

/// The step of an exchange that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Reading the URI, or finding credentials and proxies.
    Prepare,
    /// Turning a name into addresses.
    Resolve,
    /// Opening the transport connection.
    Connect,
    /// Asking a proxy for a tunnel.
    Tunnel,
    /// The TLS handshake.
    Tls,
    /// Sending the request.
    Send,
    /// Waiting for and reading the response head.
    Head,
    /// Reading the content.
    Content,
    /// Comparing lengths, ranges and digests.
    Verify,
    /// Writing to a file.
    File,
}

impl Phase {
    /// For tables and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Prepare => "prepare",
            Phase::Resolve => "resolve",
            Phase::Connect => "connect",
            Phase::Tunnel => "tunnel",
            Phase::Tls => "tls",
            Phase::Send => "send",
            Phase::Head => "head",
            Phase::Content => "content",
            Phase::Verify => "verify",
            Phase::File => "file",
        }
    }
}

/// Why it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A deadline passed, in milliseconds.
    Timeout(u64),
    /// The peer closed the connection, or reset it.
    Closed,
    /// Another error of the operating system.
    Io(std::io::ErrorKind, String),
    /// No address for the name.
    NotFound(String),
    /// The certificate or the handshake: what TLS says about it.
    Tls(String),
    /// The certificate is not trusted, not valid now, or for another name.
    Certificate(String),
    /// The peer broke the protocol.
    Malformed(String),
    /// A limit of ours was passed; its name and value.
    TooLarge(&'static str, u64),
    /// A redirection that is not followed.
    Redirect(eleven_semantics::redirect::NotFollowed),
    /// The final status is an error.
    Status(u16),
    /// The content ended before its promised length: octets received, octets promised.
    Short(u64, u64),
    /// The content does not have the digest it should have.
    Digest(String),
    /// Parts of one file do not belong together.
    Changed(String),
    /// Content coding: malformed or truncated.
    Coding(String),
    /// The wish itself cannot be met: what, and what to do.
    Unusable(String),
    /// Stopped by the caller.
    Cancelled,
}

/// Whether the request may be sent again without asking (RFC 9110 §9.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetrySafety {
    /// The server cannot have seen it: always safe.
    NotSent,
    /// It may have been processed, but doing so twice means the same: the method is idempotent.
    Idempotent,
    /// It may have been processed, and doing so twice would not be the same.
    MayHaveBeenProcessed,
    /// Trying again would fail again, or a response was already seen.
    Never,
}

/// A failed exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub phase: Phase,
    /// Why.
    pub cause: Cause,
    /// Whether the same request may be sent again.
    pub retry: RetrySafety,
    /// Host and port that were asked.
    pub host: String,
    /// The address that was asked, once it is known.
    pub address: Option<SocketAddr>,
    /// The rule of the protocol that the server broke, where it was one.
    pub broke: Option<Malformed>,
}

impl RetrySafety {
    /// Whether sending it again is safe.
    pub fn is_safe(self) -> bool {
        matches!(self, RetrySafety::NotSent | RetrySafety::Idempotent)
    }
}

impl Failure {
    /// A failure that another attempt would not change.
    pub fn new(phase: Phase, cause: Cause) -> Failure {
        Failure { phase, cause, retry: RetrySafety::Never, host: String::new(), address: None, broke: None }
    }

    /// The same with this retry safety.
    #[must_use]
    pub fn retry(mut self, retry: RetrySafety) -> Failure {
        self.retry = retry;
        self
    }

    /// The same with the peer's name.
    #[must_use]
    pub fn at(mut self, host: impl Into<String>, address: Option<SocketAddr>) -> Failure {
        self.host = host.into();
        self.address = address.or(self.address);
        self
    }

    /// From an error of the operating system. A reset or a broken pipe is a close.
    pub fn io(phase: Phase, error: &std::io::Error) -> Failure {
        use std::io::ErrorKind as K;
        let cause = match error.kind() {
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof => Cause::Closed,
            K::TimedOut => Cause::Timeout(0),
            kind => Cause::Io(kind, error.to_string()),
        };
        Failure::new(phase, cause)
    }

    /// From a connection that could not be opened: nothing was sent.
    pub fn dial(error: eleven_net::dial::DialError) -> Failure {
        use eleven_net::dial::{Cause as DialCause, Phase as DialPhase};
        let phase = match error.phase {
            DialPhase::Resolve => Phase::Resolve,
            DialPhase::Connect => Phase::Connect,
            DialPhase::Tls => Phase::Tls,
        };
        let cause = match error.cause {
            DialCause::TimedOut(ms) => Cause::Timeout(ms),
            DialCause::Name(why) => Cause::NotFound(why.to_string()),
            DialCause::Denied(special) => {
                Cause::Unusable(format!("{special} addresses are not allowed as destinations"))
            }
            DialCause::Io(error) => Failure::io(phase, &error).cause,
            DialCause::Certificate(problem) => Cause::Certificate(problem.to_string()),
            DialCause::Tls(error) => Cause::Tls(error.to_string()),
        };
        Failure::new(phase, cause).retry(RetrySafety::NotSent).at(error.host, error.address)
    }

    /// Whether a fresh attempt may succeed where this one failed: network weather, not a wrong wish.
    pub fn is_transient(&self) -> bool {
        match &self.cause {
            Cause::Timeout(_) | Cause::Closed | Cause::Short(..) => true,
            Cause::Status(code) => matches!(code, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Cause::Io(kind, _) => {
                use std::io::ErrorKind as K;
                self.phase != Phase::File
                    && matches!(
                        kind,
                        K::ConnectionRefused
                            | K::HostUnreachable
                            | K::NetworkUnreachable
                            | K::NetworkDown
                            | K::AddrNotAvailable
                    )
            }
            _ => false,
        }
    }

    /// Whether nobody listens there. From a server that has not answered yet that is more likely a wrong address than weather.
    pub fn is_refused(&self) -> bool {
        matches!(self.cause, Cause::Io(std::io::ErrorKind::ConnectionRefused, _))
    }

    /// What a user may try, if there is anything to say.
    pub fn advice(&self) -> Option<&'static str> {
        use std::io::ErrorKind as K;
        Some(match (&self.cause, self.phase) {
            (Cause::NotFound(_), _) => "check the name, or give its address with --resolve",
            (Cause::Io(K::ConnectionRefused, _), _) => "is the server running on that port?",
            (Cause::Timeout(_), Phase::Connect) => {
                "the host does not answer; a longer --connect-timeout may help"
            }
            (Cause::Timeout(_), Phase::Head) => "the server accepts but does not answer; see --head-timeout",
            (Cause::Timeout(_), Phase::Content) => "the transfer stalled; see --idle-timeout and --retry",
            (Cause::Certificate(why), _) if *why == CertificateProblem::UnknownIssuer.to_string() => {
                "trust its issuer with --cacert FILE if you know it"
            }
            (Cause::Redirect(eleven_semantics::redirect::NotFollowed::Downgrade), _) => {
                "use --allow-downgrade if that is acceptable"
            }
            (Cause::Status(401), _) => "give credentials with -u USER or --netrc",
            (Cause::Status(407), _) => "give the proxy's credentials with --proxy-user",
            (Cause::Io(K::StorageFull | K::QuotaExceeded, _), _) => {
                "make room, then run the same command with --continue"
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cause == Cause::Cancelled {
            return f.write_str("interrupted");
        }
        let doing = match self.phase {
            Phase::Prepare => "cannot start",
            Phase::Resolve => "cannot resolve",
            Phase::Connect => "cannot connect to",
            Phase::Tunnel => "no tunnel through the proxy to",
            Phase::Tls => "no secure connection to",
            Phase::Send => "cannot send the request to",
            Phase::Head => "no usable response from",
            Phase::Content => "incomplete content from",
            Phase::Verify => "wrong content from",
            Phase::File => "cannot write",
        };
        f.write_str(doing)?;
        if !self.host.is_empty() {
            write!(f, " {}", self.host)?;
        }
        if let Some(address) = self.address {
            write!(f, " [{address}]")?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Timeout(0) => f.write_str("timed out"),
            Cause::Timeout(ms) => write!(f, "timed out after {}.{:03} s", ms / 1000, ms % 1000),
            Cause::Closed => f.write_str("the connection was closed"),
            Cause::Io(_, text) | Cause::Unusable(text) | Cause::Changed(text) => f.write_str(text),
            Cause::NotFound(text) => write!(f, "the name has no address ({text})"),
            Cause::Tls(text) => write!(f, "TLS: {text}"),
            Cause::Certificate(text) => write!(f, "the certificate is not acceptable: {text}"),
            Cause::Malformed(text) => write!(f, "the server broke the protocol: {text}"),
            Cause::TooLarge(name, limit) => write!(f, "more than {limit} allowed by {name}"),
            Cause::Redirect(why) => write!(f, "{why}"),
            Cause::Status(code) => {
                let phrase = eleven_semantics::Status::new(*code).map_or("", |status| status.phrase());
                write!(f, "status {code}{}{phrase}", if phrase.is_empty() { "" } else { " " })
            }
            Cause::Short(got, promised) => write!(f, "it ended after {got} of {promised} octets"),
            Cause::Digest(text) => write!(f, "digest mismatch: {text}"),
            Cause::Coding(text) => write!(f, "content coding: {text}"),
            Cause::Cancelled => f.write_str("cancelled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn failures_say_phase_peer_and_cause() {
        let failure = Failure::io(Phase::Connect, &Error::from(ErrorKind::ConnectionRefused))
            .at("h:80", Some("127.0.0.1:80".parse().unwrap()))
            .retry(RetrySafety::NotSent);
        assert_eq!(failure.to_string(), "cannot connect to h:80 [127.0.0.1:80]: connection refused");
        assert!(failure.is_transient() && failure.advice().is_some());
        let failure = Failure::new(Phase::Head, Cause::Timeout(1500)).at("h:80", None);
        assert_eq!(failure.to_string(), "no usable response from h:80: timed out after 1.500 s");
    }

    #[test]
    fn what_may_be_tried_again() {
        for (phase, cause, transient) in [
            (Phase::Head, Cause::Closed, true),
            (Phase::Content, Cause::Short(1, 2), true),
            (Phase::Head, Cause::Status(503), true),
            (Phase::Head, Cause::Status(404), false),
            (Phase::Head, Cause::Malformed(String::new()), false),
            (Phase::Tls, Cause::Certificate(String::new()), false),
            (Phase::File, Cause::Io(ErrorKind::StorageFull, String::new()), false),
            (Phase::Verify, Cause::Digest(String::new()), false),
            (Phase::Resolve, Cause::NotFound(String::new()), false),
        ] {
            let failure = Failure::new(phase, cause);
            assert_eq!(failure.is_transient(), transient, "{failure}");
        }
        assert_eq!(Failure::io(Phase::Send, &ErrorKind::BrokenPipe.into()).cause, Cause::Closed);
    }
}
