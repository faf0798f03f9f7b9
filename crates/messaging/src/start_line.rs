//! Request lines and status lines (RFC 9112 §3, §4) and the version in them (§2.3). Single spaces, nothing
//! repaired: splitting on any white space is allowed by the RFC and is how smuggling starts (fault S87).

use crate::error::Malformed;
use crate::limits::{Limits, Options};
use eleven_semantics::grammar;
use eleven_semantics::{Method, RequestTarget, Status, Version};

/// Reads a request line without its CRLF.
///
/// The target's memory is reused. A line without version is an HTTP/0.9 request if the options allow it.
///
/// # Errors
/// The first rule broken, in the order method, limits, version, target.
#[inline]
pub fn request_line(
    line: &[u8],
    limits: &Limits,
    options: &Options,
    target: &mut RequestTarget,
) -> Result<(Method, Version), Malformed> {
    let space = match method_end(line, limits) {
        Some(space) if space <= limits.method_bytes_max => space,
        _ => return Err(no_method(line, limits)),
    };
    let rest = &line[space + 1..];
    let method = Method::from_bytes(&line[..space]).ok_or(Malformed::Method)?;
    let (raw, version) = match target_end(rest, limits) {
        Some(0) => return Err(Malformed::RequestLine),
        Some(at) => (&rest[..at], version(&rest[at + 1..])?),
        None if rest.len() > limits.target_bytes_max => return Err(Malformed::TargetTooLong),
        None if options.http09 && method == Method::Get => (rest, Version::Http09),
        None if rest.contains(&b'\r') => return Err(Malformed::BareCr),
        None => return Err(Malformed::RequestLine),
    };
    target.parse_into(&method, raw).map_err(Malformed::Target)?;
    Ok((method, version))
}

/// A request line whose end has not come: wrong already? Says the same of it as [`request_line`] would of any
/// line that begins so, and nothing that more octets could change.
///
/// # Errors
/// As [`request_line`].
pub fn unfinished_request_line(input: &[u8], limits: &Limits) -> Result<(), Malformed> {
    // A CR at the end may belong to the line end.
    let line = input.strip_suffix(b"\r").unwrap_or(input);
    let Some(space) = method_end(line, limits) else {
        return if line.len() > limits.method_bytes_max { Err(no_method(line, limits)) } else { Ok(()) };
    };
    let rest = &line[space + 1..];
    let fault = match target_end(rest, limits) {
        Some(0) => Malformed::RequestLine,
        Some(at) if rest.len() > at + 1 + VERSION_BYTES => Malformed::Version,
        None if rest.len() > limits.target_bytes_max => Malformed::TargetTooLong,
        _ => return Ok(()),
    };
    Err(if grammar::is_token(&line[..space]) { fault } else { Malformed::Method })
}

/// Length of `HTTP/1.1`.
const VERSION_BYTES: usize = 8;

/// Where the method ends, if that is within its limit.
#[inline]
fn method_end(line: &[u8], limits: &Limits) -> Option<usize> {
    line.iter().take(limits.method_bytes_max.saturating_add(1)).position(|&b| b == b' ')
}

/// Where the target ends, if that is within its limit.
#[inline]
fn target_end(rest: &[u8], limits: &Limits) -> Option<usize> {
    memchr::memchr(b' ', &rest[..rest.len().min(limits.target_bytes_max.saturating_add(1))])
}

#[cold]
fn no_method(line: &[u8], limits: &Limits) -> Malformed {
    if line.len() > limits.method_bytes_max {
        let token = grammar::is_token(&line[..limits.method_bytes_max + 1]);
        if token { Malformed::MethodTooLong } else { Malformed::Method }
    } else if line.contains(&b'\r') {
        Malformed::BareCr
    } else {
        Malformed::RequestLine
    }
}

/// `HTTP-version`. Minor versions above 1 are treated as HTTP/1.1 (9110-6.2-06).
///
/// # Errors
/// [`Malformed::Version`] unless exactly `HTTP/` DIGIT `.` DIGIT, [`Malformed::VersionUnsupported`] for another
/// major version than 1.
#[inline]
pub fn version(bytes: &[u8]) -> Result<Version, Malformed> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', b'0'..=b'9'] => {
            if *major == b'1' {
                Ok(Version::Http11)
            } else {
                Err(Malformed::VersionUnsupported)
            }
        }
        _ => Err(Malformed::Version),
    }
}

/// Reads a status line without its CRLF: version, status, and the reason phrase as received.
///
/// The space after the code is required of servers (9112-4-04), but its absence before an empty reason harms
/// nobody and is common, so `HTTP/1.1 200` is taken.
///
/// # Errors
/// [`Malformed::StatusLine`] or a version error; a reason phrase with a control in it is refused (fault H21).
pub fn status_line<'a>(line: &'a [u8], limits: &Limits) -> Result<(Version, Status, &'a [u8]), Malformed> {
    let Some((head, rest)) = line.split_at_checked(8) else { return Err(Malformed::StatusLine) };
    let version = version(head).map_err(|e| match e {
        Malformed::Version => Malformed::StatusLine,
        other => other,
    })?;
    let (digits, reason) = match rest {
        [b' ', a, b, c] => ([*a, *b, *c], &[][..]),
        [b' ', a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
        _ => return Err(Malformed::StatusLine),
    };
    // 9112-4-R1: three digits; 9110-15-R1: the first from 1 to 5.
    let code = grammar::decimal(&digits).ok_or(Malformed::StatusLine)?;
    let status = Status::new(code as u16).ok_or(Malformed::StatusLine)?;
    if reason.len() > limits.reason_bytes_max || !grammar::is_field_value(reason) {
        return Err(Malformed::StatusLine);
    }
    Ok((version, status, reason))
}
