//! Two kinds of error, kept apart: the peer broke the protocol ([`Malformed`], one variant per rule, with the
//! status that answers it), or this crate was called wrongly ([`Misuse`]).

use eleven_semantics::Status;
use eleven_semantics::names::Known;
use eleven_semantics::target::{InvalidAuthority, InvalidTarget};

/// A rule that the peer broke. Always ends the connection: what follows cannot be trusted (fault S90).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The first octet can begin no message (a TLS handshake on a plain port, say; fault A20).
    NotHttp,
    /// LF without CR before it (9112-2.2-02: accepting it is optional, and we do not; faults S18, S78).
    BareLf,
    /// CR without LF after it (9112-2.2-04).
    BareCr,
    /// More empty lines before a request line than are skipped.
    EmptyLines,
    /// The request line is not `method SP target SP version` (9112-3-R1, 9112-3.2-R1).
    RequestLine,
    /// The method is not a token.
    Method,
    /// The method is longer than any we know (9112-3-02).
    MethodTooLong,
    /// The version is not `HTTP/` DIGIT `.` DIGIT (9112-2.3-R1).
    Version,
    /// A major version that is not spoken here.
    VersionUnsupported,
    /// The request target (9112-3.2-01).
    Target(InvalidTarget),
    /// The target passes the limit (9112-3-03).
    TargetTooLong,
    /// The status line is not `version SP 3DIGIT SP reason` (9112-4-R1).
    StatusLine,
    /// A field line without colon, or with an empty name or one that is no token (9112-5-R1).
    FieldName,
    /// White space between name and colon (9112-5.1-01).
    SpaceBeforeColon,
    /// A control other than HTAB in a field value (9110-5.5-04).
    FieldValue,
    /// A continuation line, or white space before the first field (9112-5.2-02, 9112-2.2-09).
    ObsFold,
    /// The header section passes its limit in octets (9110-5.4-01).
    FieldSectionTooLarge,
    /// The header section has too many lines.
    TooManyFields,
    /// No Host in an HTTP/1.1 request (9112-3.2-06a).
    HostMissing,
    /// Several Host lines (9112-3.2-06b).
    HostRepeated,
    /// Host is no host (9112-3.2-06c).
    HostInvalid(InvalidAuthority),
    /// Several lines of a field that decides who is speaking or what is meant (fault X24).
    Repeated(Known),
    /// Content-Length is not one number (9112-6.3-05).
    ContentLength,
    /// Content-Length together with Transfer-Encoding (9112-6.1-12).
    LengthAndCoding,
    /// Transfer-Encoding in an HTTP/1.0 message (9112-6.1-14).
    CodingIn10,
    /// Transfer-Encoding that is no list of transfer codings, has parameters on a known one, or applies chunked
    /// twice (9112-7.1-04, 9112-6.1-02).
    TransferEncoding,
    /// A request whose last transfer coding is not chunked (9112-6.3-03).
    ChunkedNotLast,
    /// A well-formed transfer coding that is not implemented (9112-6.1-09).
    CodingUnknown,
    /// CONNECT with content (RFC 9110 §9.3.6, fault S76).
    ConnectContent,
    /// A chunk size that is not 1*HEXDIG, or passes 64 bits (9112-7.1-R1, 9112-7.1-03).
    ChunkSize,
    /// A chunk extension outside the grammar (RFC 9112 §7.1.1).
    ChunkExtension,
    /// Chunk extensions pass their limit (9112-7.1.1-R1).
    ChunkExtensionsTooLarge,
    /// Chunk data not followed by CRLF (9112-7.1-R2).
    ChunkEnd,
    /// More chunk framing than data, by far (fault D18).
    ChunkOverhead,
    /// A trailer section past its limits (fault D20).
    TrailersTooLarge,
    /// The `gzip` transfer coding is broken or ends early.
    Gzip,
    /// The `gzip` transfer coding expands beyond all measure (fault G17).
    GzipBomb,
    /// The connection ended inside a head (9112-8-01).
    HeadCut,
    /// The connection ended before the body did (9112-6.3-08).
    BodyCut,
    /// More interim responses than a client bears (fault R07).
    TooManyInterim,
    /// A response nobody asked for (9112-9.2-02a, fault R04).
    Unsolicited,
    /// 101 to a request without Upgrade (fault R08).
    SwitchUnasked,
}

impl Malformed {
    /// The status that answers a request with this fault. (A gateway answers 502 for the same in a response.)
    pub fn status(&self) -> Status {
        match self {
            Malformed::MethodTooLong | Malformed::CodingUnknown => Status::NOT_IMPLEMENTED,
            Malformed::TargetTooLong => Status::URI_TOO_LONG,
            Malformed::FieldSectionTooLarge | Malformed::TooManyFields | Malformed::TrailersTooLarge => {
                Status::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Malformed::VersionUnsupported => Status::HTTP_VERSION_NOT_SUPPORTED,
            _ => Status::BAD_REQUEST,
        }
    }

    /// A short stable name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Malformed::NotHttp => "not-http",
            Malformed::BareLf => "bare-lf",
            Malformed::BareCr => "bare-cr",
            Malformed::EmptyLines => "empty-lines",
            Malformed::RequestLine => "request-line",
            Malformed::Method => "method",
            Malformed::MethodTooLong => "method-too-long",
            Malformed::Version => "version",
            Malformed::VersionUnsupported => "version-unsupported",
            Malformed::Target(_) => "target",
            Malformed::TargetTooLong => "target-too-long",
            Malformed::StatusLine => "status-line",
            Malformed::FieldName => "field-name",
            Malformed::SpaceBeforeColon => "space-before-colon",
            Malformed::FieldValue => "field-value",
            Malformed::ObsFold => "obs-fold",
            Malformed::FieldSectionTooLarge => "field-section-too-large",
            Malformed::TooManyFields => "too-many-fields",
            Malformed::HostMissing => "host-missing",
            Malformed::HostRepeated => "host-repeated",
            Malformed::HostInvalid(_) => "host-invalid",
            Malformed::Repeated(_) => "field-repeated",
            Malformed::ContentLength => "content-length",
            Malformed::LengthAndCoding => "length-and-coding",
            Malformed::CodingIn10 => "coding-in-1.0",
            Malformed::TransferEncoding => "transfer-encoding",
            Malformed::ChunkedNotLast => "chunked-not-last",
            Malformed::CodingUnknown => "coding-unknown",
            Malformed::ConnectContent => "connect-content",
            Malformed::ChunkSize => "chunk-size",
            Malformed::ChunkExtension => "chunk-extension",
            Malformed::ChunkExtensionsTooLarge => "chunk-extensions-too-large",
            Malformed::ChunkEnd => "chunk-end",
            Malformed::ChunkOverhead => "chunk-overhead",
            Malformed::TrailersTooLarge => "trailers-too-large",
            Malformed::Gzip => "gzip",
            Malformed::GzipBomb => "gzip-bomb",
            Malformed::HeadCut => "head-cut",
            Malformed::BodyCut => "body-cut",
            Malformed::TooManyInterim => "too-many-interim",
            Malformed::Unsolicited => "unsolicited",
            Malformed::SwitchUnasked => "switch-unasked",
        }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match self {
            Malformed::NotHttp => "these octets do not begin an HTTP message; a TLS client on a plain port?",
            Malformed::BareLf => "a line ends in LF without CR",
            Malformed::BareCr => "CR stands without LF",
            Malformed::EmptyLines => "too many empty lines before the request line",
            Malformed::RequestLine => "the request line is not \"method target version\" with single spaces",
            Malformed::Method => "the method is not a token",
            Malformed::MethodTooLong => "the method is longer than any implemented one",
            Malformed::Version => "the version is not of the form HTTP/1.1",
            Malformed::VersionUnsupported => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Malformed::Target(why) => {
                return write!(f, "the request target is invalid: {}", target_text(why));
            }
            Malformed::TargetTooLong => "the request target is too long",
            Malformed::StatusLine => "the status line is not \"version code reason\"",
            Malformed::FieldName => "a field line has no valid name followed by a colon",
            Malformed::SpaceBeforeColon => "white space stands between a field name and its colon",
            Malformed::FieldValue => "a field value holds a control character",
            Malformed::ObsFold => "a field line begins with white space",
            Malformed::FieldSectionTooLarge => "the header section is too large",
            Malformed::TooManyFields => "the header section has too many field lines",
            Malformed::HostMissing => "an HTTP/1.1 request needs a Host field",
            Malformed::HostRepeated => "there is more than one Host field",
            Malformed::HostInvalid(_) => "the Host field is not a host with an optional port",
            Malformed::Repeated(known) => return write!(f, "there is more than one {} field", known.name()),
            Malformed::ContentLength => "Content-Length is not one decimal number",
            Malformed::LengthAndCoding => "Content-Length and Transfer-Encoding exclude each other",
            Malformed::CodingIn10 => "HTTP/1.0 has no Transfer-Encoding",
            Malformed::TransferEncoding => "Transfer-Encoding is malformed",
            Malformed::ChunkedNotLast => "the last transfer coding of a request must be chunked",
            Malformed::CodingUnknown => "a transfer coding is not implemented",
            Malformed::ConnectContent => "a CONNECT request has no content",
            Malformed::ChunkSize => "a chunk size is not a hexadecimal number of up to 16 digits",
            Malformed::ChunkExtension => "a chunk extension is malformed",
            Malformed::ChunkExtensionsTooLarge => "the chunk extensions are too large",
            Malformed::ChunkEnd => "chunk data is not followed by CRLF",
            Malformed::ChunkOverhead => "the chunks are too small for their framing",
            Malformed::TrailersTooLarge => "the trailer section is too large",
            Malformed::Gzip => "the gzip transfer coding is broken",
            Malformed::GzipBomb => "the gzip transfer coding expands too far",
            Malformed::HeadCut => "the connection ended inside the header section",
            Malformed::BodyCut => "the connection ended before the body did",
            Malformed::TooManyInterim => "too many interim responses",
            Malformed::Unsolicited => "a response came that nobody asked for",
            Malformed::SwitchUnasked => "the server switched protocols without being asked",
        };
        f.write_str(text)
    }
}

fn target_text(why: &InvalidTarget) -> String {
    match why {
        InvalidTarget::Empty => "it is empty".into(),
        InvalidTarget::Octet(b) if (0x21..0x7f).contains(b) => {
            format!("{:?} must be percent-encoded", char::from(*b))
        }
        InvalidTarget::Octet(b) => format!("octet 0x{b:02x} must be percent-encoded"),
        InvalidTarget::PercentEncoding => "% is not followed by two hexadecimal digits".into(),
        InvalidTarget::Form => "it is neither a path nor an absolute URI".into(),
        InvalidTarget::Scheme => "its scheme is neither http nor https".into(),
        InvalidTarget::Authority(_) => "its authority is not a host with an optional port".into(),
        InvalidTarget::AsteriskWithoutOptions => "* goes with OPTIONS only".into(),
        InvalidTarget::ConnectWithoutAuthority => "CONNECT takes host:port".into(),
    }
}

impl std::error::Error for Malformed {}

/// A wrong call of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// A response without a request to answer, or a second final response.
    NothingToAnswer,
    /// An interim status where a final one is needed, or the other way round.
    WrongClass,
    /// 101 or 2xx to CONNECT where the request offered no switch.
    NoSwitchOffered,
    /// More content than the length that was announced.
    TooMuchContent,
    /// The content ended before the length that was announced.
    TooLittleContent,
    /// A field that this crate writes itself (framing, Connection), or a trailer that may be none.
    ForbiddenField,
    /// A step that the state of the connection does not allow.
    OutOfTurn,
    /// Content with a status or method that has none.
    NoContentAllowed,
    /// Responses outstanding must come before this request goes out.
    MustWait,
    /// A request target that no request line can hold, or that does not go with the method.
    InvalidTarget,
    /// A Host that is missing or none.
    InvalidHost,
    /// Content of unknown length for a server that is not known to speak HTTP/1.1 (9112-6.1-10).
    LengthNeeded,
    /// A version that the options do not allow.
    VersionOff,
}

impl std::fmt::Display for Misuse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Misuse::NothingToAnswer => "no request is waiting for this response",
            Misuse::WrongClass => "interim and final responses go different ways",
            Misuse::NoSwitchOffered => "the request offered no switch of protocols",
            Misuse::TooMuchContent => "the content is longer than was announced",
            Misuse::TooLittleContent => "the content is shorter than was announced",
            Misuse::ForbiddenField => "this field is not the caller's to send here",
            Misuse::OutOfTurn => "the connection is not in a state for this step",
            Misuse::NoContentAllowed => "this message has no content",
            Misuse::MustWait => "the responses outstanding must come first",
            Misuse::InvalidTarget => "the request target is invalid or does not go with the method",
            Misuse::InvalidHost => "an HTTP/1.1 request needs a valid Host",
            Misuse::LengthNeeded => {
                "the server is not known to speak HTTP/1.1: the length of the content is needed"
            }
            Misuse::VersionOff => "HTTP/0.9 is switched off",
        })
    }
}

impl std::error::Error for Misuse {}
