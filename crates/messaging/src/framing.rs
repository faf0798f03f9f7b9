//! Message body length (RFC 9112 §6.3): one decision from all field lines together, for requests and for
//! responses. Nobody else reads Content-Length or Transfer-Encoding.

use crate::error::Malformed;
use crate::limits::Options;
use eleven_semantics::grammar::{decimal, is_token, list, unquoted};
use eleven_semantics::names::Known;
use eleven_semantics::status::Class;
use eleven_semantics::{Fields, Method, Status, Version};

/// How the body of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many octets.
    Length(u64),
    /// The chunked transfer coding, after `gzip` if so.
    Chunked {
        /// The `gzip` transfer coding was applied before chunked.
        gzip: bool,
    },
    /// Until the connection closes (responses only).
    UntilClose {
        /// The `gzip` transfer coding was applied.
        gzip: bool,
    },
}

impl Framing {
    /// Whether octets of a body follow the head.
    pub fn has_body(&self) -> bool {
        !matches!(self, Framing::None | Framing::Length(0))
    }

    /// The length of the content, where the head tells it.
    pub fn content_length(&self) -> Option<u64> {
        match self {
            Framing::None => Some(0),
            Framing::Length(n) => Some(*n),
            Framing::Chunked { .. } | Framing::UntilClose { .. } => None,
        }
    }
}

/// The transfer codings of a message, in the order applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codings {
    Chunked,
    GzipChunked,
    Gzip,
}

/// The framing of a request.
///
/// # Errors
/// Whatever leaves room for two readings (9112-6.1-12, 9112-6.3-03, 9112-6.3-05 and their kin).
#[inline]
pub fn request(version: Version, fields: &Fields, options: &Options) -> Result<Framing, Malformed> {
    if !fields.contains_any(&[Known::ContentLength, Known::TransferEncoding]) {
        return Ok(Framing::None); // rule 7
    }
    if !fields.contains(Known::TransferEncoding) {
        return content_length(fields, Repeated::Refused).map(Framing::Length); // rules 5 and 6
    }
    if version < Version::Http11 {
        return Err(Malformed::CodingIn10);
    }
    if fields.contains(Known::ContentLength) {
        return Err(Malformed::LengthAndCoding); // rule 3, the strict way
    }
    match codings(fields, options)? {
        Codings::Chunked => Ok(Framing::Chunked { gzip: false }),
        Codings::GzipChunked => Ok(Framing::Chunked { gzip: true }),
        Codings::Gzip => Err(Malformed::ChunkedNotLast), // rule 4
    }
}

/// The framing of a response to a request with `method`.
///
/// # Errors
/// As [`request`]; a gateway answers 502 to its own client.
pub fn response(
    method: &Method,
    version: Version,
    status: Status,
    fields: &Fields,
    options: &Options,
) -> Result<Framing, Malformed> {
    if *method == Method::Head || status.never_has_content() {
        return Ok(Framing::None); // rule 1
    }
    if *method == Method::Connect && status.class() == Class::Successful {
        return Ok(Framing::None); // rule 2: a tunnel begins here (9112-6.3-01)
    }
    if fields.contains(Known::TransferEncoding) {
        if version < Version::Http11 {
            return Err(Malformed::CodingIn10);
        }
        if fields.contains(Known::ContentLength) {
            return Err(Malformed::LengthAndCoding);
        }
        return Ok(match codings(fields, options)? {
            Codings::Chunked => Framing::Chunked { gzip: false },
            Codings::GzipChunked => Framing::Chunked { gzip: true },
            Codings::Gzip => Framing::UntilClose { gzip: true },
        });
    }
    if fields.contains(Known::ContentLength) {
        return content_length(fields, Repeated::IfIdentical).map(Framing::Length);
    }
    Ok(Framing::UntilClose { gzip: false }) // rule 8
}

/// Whether a list of identical lengths is one length. RFC 9110 §8.6 allows it; in a request it is a sign of an
/// attack (fault S27), in a response of a clumsy server.
#[derive(PartialEq, Eq)]
enum Repeated {
    Refused,
    IfIdentical,
}

fn content_length(fields: &Fields, repeated: Repeated) -> Result<u64, Malformed> {
    let mut length = None;
    for value in fields.all(Known::ContentLength) {
        if repeated == Repeated::Refused {
            let n = decimal(value).ok_or(Malformed::ContentLength)?;
            if length.replace(n).is_some() {
                return Err(Malformed::ContentLength);
            }
            continue;
        }
        // An empty member (`5,`) is no number: split by hand, `list` would skip it.
        for member in value.split(|&b| b == b',') {
            let n = decimal(eleven_semantics::grammar::trim_ows(member)).ok_or(Malformed::ContentLength)?;
            if length.replace(n).is_some_and(|before| before != n) {
                return Err(Malformed::ContentLength);
            }
        }
    }
    length.ok_or(Malformed::ContentLength)
}

fn codings(fields: &Fields, options: &Options) -> Result<Codings, Malformed> {
    let mut gzip = false;
    let mut chunked = false;
    let mut unknown = false;
    let mut any = false;
    for member in fields.all(Known::TransferEncoding).flat_map(list) {
        any = true;
        let name_end = unquoted(member, b';');
        let name = eleven_semantics::grammar::trim_ows(&member[..name_end]);
        if !is_token(name) {
            return Err(Malformed::TransferEncoding);
        }
        if chunked {
            // Something after chunked, be it chunked again.
            return Err(if name.eq_ignore_ascii_case(b"chunked") {
                Malformed::TransferEncoding
            } else {
                Malformed::ChunkedNotLast
            });
        }
        let has_parameters = name_end < member.len();
        if name.eq_ignore_ascii_case(b"chunked") {
            if has_parameters {
                return Err(Malformed::TransferEncoding); // 9112-7.1-04
            }
            chunked = true;
        } else if is_gzip(name) {
            if has_parameters {
                return Err(Malformed::TransferEncoding); // 9112-7.2-01
            }
            unknown |= gzip || !options.transfer_gzip;
            gzip = true;
        } else if name.eq_ignore_ascii_case(b"identity") {
            // Was a transfer coding once (RFC 2616), is none now (fault S05).
            return Err(Malformed::TransferEncoding);
        } else {
            unknown = true;
        }
    }
    match (any, unknown, gzip, chunked) {
        (false, ..) => Err(Malformed::TransferEncoding),
        (_, true, ..) => Err(Malformed::CodingUnknown), // 9112-6.1-09
        (_, _, false, true) => Ok(Codings::Chunked),
        (_, _, true, true) => Ok(Codings::GzipChunked),
        (_, _, true, false) => Ok(Codings::Gzip),
        (_, _, false, false) => Err(Malformed::ChunkedNotLast),
    }
}

/// `gzip` and its old name (9112-7.2-R1), in any case (9112-7-R1).
fn is_gzip(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip")
}

/// Whether TE lists `gzip` with a weight above zero (RFC 9110 §10.1.4), for this connection.
pub fn te_allows_gzip(fields: &Fields) -> bool {
    te_is_ours(fields)
        && fields.list(Known::Te).any(|member| {
            let mut parts = eleven_semantics::grammar::semicolons(member);
            parts.next().is_some_and(is_gzip)
                && parts.all(|parameter| match eleven_semantics::grammar::parameter(parameter) {
                    Some((name, value)) if name.eq_ignore_ascii_case(b"q") => {
                        eleven_semantics::grammar::qvalue(value).is_some_and(|q| q > 0)
                    }
                    _ => true,
                })
        })
}

/// Whether TE says that trailers are welcome (RFC 9110 §6.5.1, §10.1.4), on this connection.
pub fn te_allows_trailers(fields: &Fields) -> bool {
    te_is_ours(fields) && fields.has_member(Known::Te, "trailers")
}

/// TE without the connection option `TE` (9112-7.4-03) may come from beyond an intermediary that did not know it,
/// and speaks of another connection then.
fn te_is_ours(fields: &Fields) -> bool {
    fields.contains(Known::Te) && fields.has_member(Known::Connection, "te")
}
