//! Request targets and authorities: the four forms of RFC 9112 §3.2, the authority of RFC 9110 §7.2 and RFC
//! 3986 §3.2, and the one canonical path that matching, access rules, logs and files all use (faults P01–P21).
//!
//! Nothing is repaired here (9112-3.2-02): a target is right, or it is refused.

use crate::Status;
use crate::grammar::{decimal, hex_digit};
use crate::method::Method;

/// The scheme of a target URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// The scheme of this name, in any case.
    pub fn from_bytes(name: &[u8]) -> Option<Scheme> {
        if name.eq_ignore_ascii_case(b"http") {
            Some(Scheme::Http)
        } else if name.eq_ignore_ascii_case(b"https") {
            Some(Scheme::Https)
        } else {
            None
        }
    }

    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// 80 or 443 (RFC 9110 §4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Which of the four forms a request target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`.
    Origin,
    /// `http://host/path?query`.
    Absolute(Scheme),
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// Why a request target was refused. All of them answer 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidTarget {
    /// Nothing between the two spaces.
    Empty,
    /// An octet that no target of this form may hold: control, space, obs-text, `#`, or a delimiter that
    /// must be percent-encoded.
    Octet(u8),
    /// A `%` that two hexadecimal digits do not follow.
    PercentEncoding,
    /// Neither `/…`, nor an absolute URI, nor `*`.
    Form,
    /// An absolute URI of another scheme than `http` and `https` (fault H07).
    Scheme,
    /// The authority of an absolute URI or of CONNECT.
    Authority(InvalidAuthority),
    /// `*` with another method than OPTIONS (9112-3.2.4-R1).
    AsteriskWithoutOptions,
    /// CONNECT with another form than `host:port` (9112-3.2.3-R1).
    ConnectWithoutAuthority,
}

/// A request target, as received, with its parts found. Keeps its memory from message to message.
#[derive(Clone)]
pub struct RequestTarget {
    raw: Vec<u8>,
    form: Form,
    authority: (u32, u32),
    path: (u32, u32),
    has_query: bool,
}

impl Default for RequestTarget {
    fn default() -> Self {
        RequestTarget {
            raw: Vec::new(),
            form: Form::Origin,
            authority: (0, 0),
            path: (0, 0),
            has_query: false,
        }
    }
}

impl RequestTarget {
    /// Reads a target for a request of this method.
    ///
    /// # Errors
    /// If it has none of the forms that RFC 9112 §3.2 allows with the method.
    pub fn parse(method: &Method, raw: &[u8]) -> Result<RequestTarget, InvalidTarget> {
        let mut target = RequestTarget::default();
        target.parse_into(method, raw)?;
        Ok(target)
    }

    /// As [`RequestTarget::parse`], into memory already held. After an error the target is unspecified.
    ///
    /// # Errors
    /// As [`RequestTarget::parse`].
    pub fn parse_into(&mut self, method: &Method, raw: &[u8]) -> Result<(), InvalidTarget> {
        self.raw.clear();
        self.raw.extend_from_slice(raw);
        self.authority = (0, 0);
        self.has_query = false;
        let Some(&first) = raw.first() else { return Err(InvalidTarget::Empty) };
        if *method == Method::Connect {
            // 9112-3.2.3-R1: and the other way round, nothing else takes authority-form.
            self.form = Form::Authority;
            self.path = (0, 0);
            self.authority = (0, raw.len() as u32);
            if first == b'/' || first == b'*' {
                return Err(InvalidTarget::ConnectWithoutAuthority);
            }
            let authority = Authority::parse(raw).map_err(InvalidTarget::Authority)?;
            return match authority.port {
                Some(1..) if !authority.host.is_empty() => Ok(()),
                _ => Err(InvalidTarget::ConnectWithoutAuthority),
            };
        }
        match first {
            b'/' => {
                self.form = Form::Origin;
                self.split_path(0)
            }
            b'*' if raw.len() == 1 => {
                self.form = Form::Asterisk;
                self.path = (0, 0);
                if *method == Method::Options { Ok(()) } else { Err(InvalidTarget::AsteriskWithoutOptions) }
            }
            _ => self.parse_absolute(),
        }
    }

    fn parse_absolute(&mut self) -> Result<(), InvalidTarget> {
        let Some(colon) = memchr::memchr(b':', &self.raw) else {
            let bad = self.raw.iter().find(|&&b| !is_path_octet(b));
            return Err(bad.map_or(InvalidTarget::Form, |&b| InvalidTarget::Octet(b)));
        };
        if self.raw.get(colon + 1..colon + 3) != Some(b"//") {
            return Err(InvalidTarget::Form);
        }
        let scheme = Scheme::from_bytes(&self.raw[..colon]).ok_or(InvalidTarget::Scheme)?;
        self.form = Form::Absolute(scheme);
        let start = colon + 3;
        let end = self.raw[start..]
            .iter()
            .position(|b| matches!(b, b'/' | b'?' | b'#'))
            .map_or(self.raw.len(), |n| start + n);
        self.authority = (start as u32, end as u32);
        let authority = Authority::parse(&self.raw[start..end]).map_err(InvalidTarget::Authority)?;
        // RFC 9110 §4.2.1: an http URI with an empty host is invalid.
        if authority.host.is_empty() {
            return Err(InvalidTarget::Authority(InvalidAuthority::EmptyHost));
        }
        self.split_path(end)
    }

    /// Checks the octets from `start` on, and finds where the path ends.
    fn split_path(&mut self, start: usize) -> Result<(), InvalidTarget> {
        let bytes = &self.raw[..];
        let mut i = start;
        // Four at a time, as long as nothing needs a second look.
        let plain = |b: u8| CLASS[b as usize] & PLAIN;
        for &[a, b, c, d] in bytes[start..].as_chunks::<4>().0 {
            if plain(a) & plain(b) & plain(c) & plain(d) == 0 {
                break;
            }
            i += 4;
        }
        while i < bytes.len() {
            let b = bytes[i];
            if is_path_octet(b) {
                if b == b'%' && !(is_hex_at(bytes, i + 1) && is_hex_at(bytes, i + 2)) {
                    return Err(InvalidTarget::PercentEncoding);
                }
            } else if b == b'?' {
                self.path = (start as u32, i as u32);
                self.has_query = true;
                return match bytes[i + 1..].iter().find(|&&b| !is_query_octet(b)) {
                    Some(&b) => Err(InvalidTarget::Octet(b)),
                    None => Ok(()),
                };
            } else {
                return Err(InvalidTarget::Octet(b));
            }
            i += 1;
        }
        self.path = (start as u32, i as u32);
        Ok(())
    }

    /// The target as received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// Its form.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The path, still percent-encoded. An absolute URI without one has `/` (RFC 9110 §4.2.3), the authority
    /// and asterisk forms an empty one.
    pub fn path(&self) -> &[u8] {
        let path = &self.raw[self.path.0 as usize..self.path.1 as usize];
        if path.is_empty() && matches!(self.form, Form::Absolute(_)) { b"/" } else { path }
    }

    /// Whether an absolute URI came without any path: with OPTIONS it then means `*` (9112-3.2.4-02).
    pub fn has_empty_path(&self) -> bool {
        self.path.0 == self.path.1
    }

    /// The query without its `?`; `Some` of nothing for a bare `?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.has_query.then(|| &self.raw[self.path.1 as usize + 1..])
    }

    /// Path and query as one: what an origin server is asked for (9112-3.2.1-01).
    pub fn path_and_query(&self) -> std::borrow::Cow<'_, [u8]> {
        let tail = &self.raw[self.path.0 as usize..];
        match self.form {
            Form::Absolute(_) if self.has_empty_path() => {
                let mut owned = Vec::with_capacity(tail.len() + 1);
                owned.push(b'/');
                owned.extend_from_slice(tail);
                owned.into()
            }
            Form::Authority | Form::Asterisk => self.raw[..].into(),
            _ => tail.into(),
        }
    }

    /// The authority of an absolute or authority form.
    pub fn authority(&self) -> Option<&[u8]> {
        (self.authority.1 > 0).then(|| &self.raw[self.authority.0 as usize..self.authority.1 as usize])
    }
}

impl std::fmt::Debug for RequestTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.form, String::from_utf8_lossy(&self.raw))
    }
}

fn is_hex_at(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|&b| hex_digit(b).is_some())
}

const UNRESERVED: u8 = 1;
const SUB_DELIM: u8 = 2;
const PATH: u8 = 4;
const QUERY: u8 = 8;
/// PATH without `%`, which must be followed by digits.
const PLAIN: u8 = 16;

const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut i = 0usize;
    while i < 256 {
        let b = i as u8;
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') {
            table[i] |= UNRESERVED | PATH | QUERY;
        }
        if matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=') {
            table[i] |= SUB_DELIM | PATH | QUERY;
        }
        if matches!(b, b':' | b'@' | b'/' | b'%') {
            table[i] |= PATH | QUERY;
        }
        // Outside RFC 3986, but every browser sends these raw (the URL standard's percent-encode sets), and
        // none of them can end a target or a line.
        if matches!(b, b'[' | b']' | b'|') {
            table[i] |= PATH | QUERY;
        }
        if matches!(b, b'?' | b'\\' | b'^' | b'`' | b'{' | b'}') {
            table[i] |= QUERY;
        }
        if table[i] & PATH != 0 && b != b'%' {
            table[i] |= PLAIN;
        }
        i += 1;
    }
    table
};

fn is_path_octet(b: u8) -> bool {
    CLASS[b as usize] & PATH != 0
}

fn is_query_octet(b: u8) -> bool {
    CLASS[b as usize] & QUERY != 0
}

/// A host with an optional port (RFC 3986 §3.2), without userinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host as written: a name, an IPv4 address, or an IP literal with its brackets. May be empty.
    pub host: &'a [u8],
    /// The port, if one is written (`host:` counts as none).
    pub port: Option<u16>,
}

/// Why an authority or Host value was refused (9112-3.2-06c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidAuthority {
    /// `user@host` (RFC 9110 §4.2.4).
    Userinfo,
    /// An octet that no host may hold.
    Octet(u8),
    /// A `%` that two hexadecimal digits do not follow.
    PercentEncoding,
    /// A bracketed literal that is no IPv6 address.
    IpLiteral,
    /// A port that is not a number up to 65535.
    Port,
    /// No host where one is needed.
    EmptyHost,
}

impl<'a> Authority<'a> {
    /// Reads `uri-host [ ":" port ]`, as in Host (RFC 9110 §7.2). An empty host is allowed here.
    ///
    /// A comma is refused although RFC 3986 has it among the sub-delims: it is a list of hosts (fault H03).
    ///
    /// # Errors
    /// Names the first thing wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Authority<'a>, InvalidAuthority> {
        // Nearly every host consists of unreserved octets.
        let plain = bytes.iter().position(|&b| CLASS[b as usize] & UNRESERVED == 0).unwrap_or(bytes.len());
        let (host, rest) = if matches!(bytes[plain..], [] | [b':', ..]) {
            bytes.split_at(plain)
        } else if bytes.first() == Some(&b'[') {
            let close = memchr::memchr(b']', bytes).ok_or(InvalidAuthority::IpLiteral)?;
            let literal = std::str::from_utf8(&bytes[1..close]).map_err(|_| InvalidAuthority::IpLiteral)?;
            literal.parse::<std::net::Ipv6Addr>().map_err(|_| InvalidAuthority::IpLiteral)?;
            (&bytes[..=close], &bytes[close + 1..])
        } else {
            let end = memchr::memchr(b':', bytes).unwrap_or(bytes.len());
            check_reg_name(&bytes[..end], &bytes[end..])?;
            (&bytes[..end], &bytes[end..])
        };
        let port = match rest {
            [] | [b':'] => None,
            [b':', digits @ ..] => match decimal(digits).and_then(|n| u16::try_from(n).ok()) {
                Some(port) => Some(port),
                None if digits.contains(&b'@') => return Err(InvalidAuthority::Userinfo),
                None => return Err(InvalidAuthority::Port),
            },
            [b, ..] => return Err(InvalidAuthority::Octet(*b)),
        };
        Ok(Authority { host, port })
    }

    /// The canonical host: lower case, without the dot of the DNS root (RFC 9110 §4.2.3, fault H10).
    pub fn canonical_host(&self) -> Vec<u8> {
        let mut host = self.host.to_ascii_lowercase();
        if host.len() > 1 && host.last() == Some(&b'.') {
            host.pop();
        }
        host
    }
}

fn check_reg_name(host: &[u8], rest: &[u8]) -> Result<(), InvalidAuthority> {
    for (i, &b) in host.iter().enumerate() {
        match b {
            b'@' => return Err(InvalidAuthority::Userinfo),
            b'%' if is_hex_at(host, i + 1) && is_hex_at(host, i + 2) => {}
            b'%' => return Err(InvalidAuthority::PercentEncoding),
            b',' => return Err(InvalidAuthority::Octet(b)),
            b if CLASS[b as usize] & (UNRESERVED | SUB_DELIM) != 0 => {}
            b => {
                // `user:pass@host` stops at the colon: say userinfo, not octet.
                let userinfo = rest.contains(&b'@') || host.contains(&b'@');
                return Err(if userinfo { InvalidAuthority::Userinfo } else { InvalidAuthority::Octet(b) });
            }
        }
    }
    Ok(())
}

/// Why a path names nothing that could be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPath {
    /// An encoded NUL: 400 (fault P05).
    Nul,
    /// `..` above the root: 400 (fault P01).
    AboveRoot,
    /// An encoded slash inside a segment: names no file; 404 (fault P02).
    EncodedSlash,
    /// A `%` that two hexadecimal digits do not follow: 400.
    PercentEncoding,
}

impl InvalidPath {
    /// What a request for it is answered with.
    pub fn status(self) -> Status {
        match self {
            InvalidPath::EncodedSlash => Status::NOT_FOUND,
            InvalidPath::Nul | InvalidPath::AboveRoot | InvalidPath::PercentEncoding => Status::BAD_REQUEST,
        }
    }
}

impl std::fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InvalidPath::Nul => "it holds an encoded NUL",
            InvalidPath::AboveRoot => "its dot segments lead above the root",
            InvalidPath::EncodedSlash => "it holds an encoded slash",
            InvalidPath::PercentEncoding => "it holds a % that two hexadecimal digits do not follow",
        })
    }
}

/// The canonical form of a path: decoded exactly once, dot segments resolved, empty segments dropped. Access
/// rules, routes, logs and the file system all see this one (faults P16, P17, P19).
///
/// Starts with `/`. Ends with `/` if the path meant a directory (`/a/`, `/a/.`, `/a/b/..`).
///
/// # Errors
/// If the path names nothing.
pub fn canonical_path(path: &[u8]) -> Result<Vec<u8>, InvalidPath> {
    let mut out = Vec::with_capacity(path.len() + 1);
    canonical_path_into(path, &mut out)?;
    Ok(out)
}

/// As [`canonical_path`], into memory already held.
///
/// # Errors
/// As [`canonical_path`].
pub fn canonical_path_into(path: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidPath> {
    out.clear();
    if is_canonical(path) {
        out.extend_from_slice(path);
        return Ok(());
    }
    resolve_path_into(path, out)
}

fn resolve_path_into(path: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidPath> {
    out.push(b'/');
    for raw in path.split(|&b| b == b'/') {
        let start = out.len();
        let mut i = 0;
        while i < raw.len() {
            let b = match raw[i] {
                b'%' => {
                    let high =
                        raw.get(i + 1).and_then(|&b| hex_digit(b)).ok_or(InvalidPath::PercentEncoding)?;
                    let low =
                        raw.get(i + 2).and_then(|&b| hex_digit(b)).ok_or(InvalidPath::PercentEncoding)?;
                    i += 2;
                    match high << 4 | low {
                        0 => return Err(InvalidPath::Nul),
                        b'/' => return Err(InvalidPath::EncodedSlash),
                        b => b,
                    }
                }
                0 => return Err(InvalidPath::Nul),
                b => b,
            };
            out.push(b);
            i += 1;
        }
        match &out[start..] {
            b"" => {}
            b"." => out.truncate(start),
            b".." => {
                out.truncate(start);
                out.pop();
                match memchr::memrchr(b'/', out) {
                    Some(slash) => out.truncate(slash + 1),
                    None => return Err(InvalidPath::AboveRoot),
                }
            }
            _ => out.push(b'/'),
        }
    }
    // Every segment was closed with a slash; the last one keeps it only if the path said so.
    let last = path.rsplit(|&b| b == b'/').next().unwrap_or(b"");
    let directory = matches!(last, b"" | b"." | b"..") || is_encoded_dots(last);
    if !directory && out.len() > 1 {
        out.pop();
    }
    Ok(())
}

/// Whether a path stands for itself, as nearly all do. A dot file is left to the long way. Without early exits, so
/// that many octets are looked at at once.
fn is_canonical(path: &[u8]) -> bool {
    let special = path.iter().fold(false, |found, &b| found | (b == b'%') | (b == 0));
    let segments = path.iter().zip(path.get(1..).unwrap_or_default());
    let dots =
        segments.fold(false, |found, (&b, &next)| found | ((b == b'/') & ((next == b'/') | (next == b'.'))));
    path.first() == Some(&b'/') && !special && !dots
}

fn is_encoded_dots(segment: &[u8]) -> bool {
    let mut decoded = segment.to_ascii_lowercase();
    while let Some(at) = memchr::memmem::find(&decoded, b"%2e") {
        decoded.splice(at..at + 3, *b".");
    }
    matches!(&decoded[..], b"." | b"..")
}

/// Appends `path` percent-encoded so that it can stand in a target or in Location: everything but unreserved,
/// `/` and a few harmless sub-delims (fault H17).
pub fn push_encoded_path(out: &mut Vec<u8>, path: &[u8]) {
    push_encoded(out, path, b"/!$&()*+,;=:@");
}

/// Appends `value` percent-encoded so that it can stand as a value in a query: everything but unreserved and `/`, so
/// that it cannot begin another parameter (fault H17).
pub fn push_encoded_value(out: &mut Vec<u8>, value: &[u8]) {
    push_encoded(out, value, b"/");
}

/// Encodes everything but unreserved characters and those of `plain`.
fn push_encoded(out: &mut Vec<u8>, bytes: &[u8], plain: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in bytes {
        if CLASS[b as usize] & UNRESERVED != 0 || plain.contains(&b) {
            out.push(b);
        } else {
            out.extend_from_slice(&[b'%', HEX[(b >> 4) as usize], HEX[(b & 15) as usize]]);
        }
    }
}

/// `bytes` with `%XX` decoded once; a `%` without two digits stays as it is. For queries and names, not paths.
pub fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let pair =
            (bytes.get(i + 1).and_then(|&b| hex_digit(b)), bytes.get(i + 2).and_then(|&b| hex_digit(b)));
        match (bytes[i], pair) {
            (b'%', (Some(high), Some(low))) => {
                out.push(high << 4 | low);
                i += 3;
            }
            (b, _) => {
                out.push(b);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn accept(
        method: Method,
        raw: &str,
        form: Form,
        authority: Option<&str>,
        path: &str,
        query: Option<&str>,
    ) {
        let target = RequestTarget::parse(&method, raw.as_bytes()).unwrap_or_else(|e| panic!("{raw}: {e:?}"));
        assert_eq!(target.form(), form, "{raw}");
        assert_eq!(target.authority(), authority.map(str::as_bytes), "{raw}");
        assert_eq!(target.path(), path.as_bytes(), "{raw}");
        assert_eq!(target.query(), query.map(str::as_bytes), "{raw}");
    }

    /// 9112-3.2.1, 9112-3.2.2-06, 9112-3.2.3-R1, 9112-3.2.4-R1.
    #[test]
    fn the_four_forms() {
        accept(Method::Get, "/", Form::Origin, None, "/", None);
        accept(Method::Get, "/a%20b?x=1&y[]=2", Form::Origin, None, "/a%20b", Some("x=1&y[]=2"));
        accept(Method::Get, "/?", Form::Origin, None, "/", Some(""));
        accept(Method::Get, "//evil/x", Form::Origin, None, "//evil/x", None);
        accept(Method::Get, "http://h", Form::Absolute(Scheme::Http), Some("h"), "/", None);
        accept(Method::Get, "HTTP://h:80/p?q", Form::Absolute(Scheme::Http), Some("h:80"), "/p", Some("q"));
        accept(
            Method::Get,
            "https://[::1]:8443?q",
            Form::Absolute(Scheme::Https),
            Some("[::1]:8443"),
            "/",
            Some("q"),
        );
        accept(Method::Connect, "h:443", Form::Authority, Some("h:443"), "", None);
        accept(Method::Options, "*", Form::Asterisk, None, "", None);
        let target = RequestTarget::parse(&Method::Get, b"http://h?q").unwrap();
        assert_eq!(target.path_and_query().as_ref(), b"/?q");
    }

    /// 9112-3.2-01, 9112-3.2-R1; faults H07, H13, H14, H15, H16, S76.
    #[test]
    fn what_no_form_allows() {
        use InvalidTarget as E;
        for (method, raw, expected) in [
            (Method::Get, &b""[..], E::Empty),
            (Method::Get, b"*", E::AsteriskWithoutOptions),
            (Method::Post, b"*", E::AsteriskWithoutOptions),
            (Method::Get, b"a", E::Form),
            (Method::Get, b"@evil/x", E::Form),
            (Method::Get, b"h:443", E::Form),
            (Method::Get, b"/a b", E::Octet(b' ')),
            (Method::Get, b"/a\x01b", E::Octet(1)),
            (Method::Get, b"/a\0", E::Octet(0)),
            (Method::Get, b"/a\x7f", E::Octet(0x7f)),
            (Method::Get, b"/\xc3\xa9", E::Octet(0xc3)),
            (Method::Get, b"/\xc0\xae", E::Octet(0xc0)),
            (Method::Get, b"/a#b", E::Octet(b'#')),
            (Method::Get, b"/?a#b", E::Octet(b'#')),
            (Method::Get, b"/<script>", E::Octet(b'<')),
            (Method::Get, b"/a\\b", E::Octet(b'\\')),
            (Method::Get, b"/a\"b", E::Octet(b'"')),
            (Method::Get, b"/%zz", E::PercentEncoding),
            (Method::Get, b"/%", E::PercentEncoding),
            (Method::Get, b"/%4", E::PercentEncoding),
            (Method::Get, b"foo://h/", E::Scheme),
            (Method::Get, b"file:///etc/passwd", E::Scheme),
            (Method::Get, b"http:///p", E::Authority(InvalidAuthority::EmptyHost)),
            // 9110-4.2.4-02
            (Method::Get, b"http://u@h/", E::Authority(InvalidAuthority::Userinfo)),
            (Method::Get, b"http://h:x/", E::Authority(InvalidAuthority::Port)),
            (Method::Get, b"http://h#f", E::Octet(b'#')),
            (Method::Get, b"http:/h", E::Form),
            (Method::Connect, b"/", E::ConnectWithoutAuthority),
            (Method::Connect, b"h", E::ConnectWithoutAuthority),
            (Method::Connect, b"h:", E::ConnectWithoutAuthority),
            (Method::Connect, b":443", E::ConnectWithoutAuthority),
            (Method::Connect, b"h:0", E::ConnectWithoutAuthority),
            (Method::Connect, b"h:99999", E::Authority(InvalidAuthority::Port)),
            (Method::Connect, b"http://h/", E::Authority(InvalidAuthority::Port)),
            (Method::Options, b"**", E::Form),
        ] {
            let text = String::from_utf8_lossy(raw);
            assert_eq!(RequestTarget::parse(&method, raw).unwrap_err(), expected, "{method} {text:?}");
        }
    }

    /// 9112-3.2-06c; faults H03, H04, H05.
    #[test]
    fn authorities() {
        for (raw, host, port) in [
            ("example.com", "example.com", None),
            ("example.com:", "example.com", None),
            ("EXAMPLE.com.:080", "EXAMPLE.com.", Some(80)),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("127.0.0.1", "127.0.0.1", None),
            ("", "", None),
            ("a%2Db", "a%2Db", None),
            ("a_b", "a_b", None),
        ] {
            let authority = Authority::parse(raw.as_bytes()).unwrap_or_else(|e| panic!("{raw}: {e:?}"));
            assert_eq!((authority.host, authority.port), (host.as_bytes(), port), "{raw}");
        }
        use InvalidAuthority as E;
        for (raw, expected) in [
            (&b"a@b"[..], E::Userinfo),
            (b"u:p@h", E::Userinfo),
            (b"a/b", E::Octet(b'/')),
            (b"a,b", E::Octet(b',')),
            (b"a, b", E::Octet(b',')),
            (b"###", E::Octet(b'#')),
            (b"a b", E::Octet(b' ')),
            (b"a\0", E::Octet(0)),
            (b"\xc3\xa9", E::Octet(0xc3)),
            (b"h:port", E::Port),
            (b"h:65536", E::Port),
            (b"h:-1", E::Port),
            (b"h:+1", E::Port),
            (b"h:80:80", E::Port),
            (b"[::1", E::IpLiteral),
            (b"[zz]", E::IpLiteral),
            (b"[::1]x", E::Octet(b'x')),
            (b"[127.0.0.1]", E::IpLiteral),
            (b"a%zz", E::PercentEncoding),
            (b"http://h", E::Port),
        ] {
            assert_eq!(Authority::parse(raw).unwrap_err(), expected, "{:?}", String::from_utf8_lossy(raw));
        }
        assert_eq!(Authority::parse(b"A.Example.:80").unwrap().canonical_host(), b"a.example");
    }

    /// Faults P01 to P07, P16, P19.
    #[test]
    fn what_stands_for_itself_is_what_resolving_makes_of_it() {
        const OCTETS: &[u8] = b"/.%2eaF\0";
        let mut plain = 0;
        for number in 0..8u32.pow(6) {
            let path: Vec<u8> = (0..6).map(|at| OCTETS[(number >> (3 * at) & 7) as usize]).collect();
            for path in [&path[..], &path[..3], &[b"/", &path[..]].concat()] {
                let mut resolved = Vec::new();
                let result = resolve_path_into(path, &mut resolved).map(|()| resolved);
                assert_eq!(canonical_path(path), result, "{}", path.escape_ascii());
                plain += u32::from(is_canonical(path));
            }
        }
        assert!(plain > 10_000, "{plain}");
    }

    #[test]
    fn canonical_paths() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("//a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/%2e", "/a/"),
            ("/a/b/%2E%2e", "/a/"),
            ("/a%20b", "/a b"),
            ("/%252e%252e/x", "/%2e%2e/x"),
            ("/..a/...", "/..a/..."),
            ("/a\\b", "/a\\b"),
            ("/admin;/x", "/admin;/x"),
            ("", "/"),
        ] {
            let path = canonical_path(raw.as_bytes()).unwrap_or_else(|e| panic!("{raw}: {e:?}"));
            assert_eq!(String::from_utf8_lossy(&path), expected, "{raw}");
        }
        for (raw, expected) in [
            ("/..", InvalidPath::AboveRoot),
            ("/a/../../b", InvalidPath::AboveRoot),
            ("/%2e%2e/etc/passwd", InvalidPath::AboveRoot),
            ("/.%2e/x", InvalidPath::AboveRoot),
            ("/a%00.html", InvalidPath::Nul),
            ("/a%2fb", InvalidPath::EncodedSlash),
            ("/%2e%2e%2fetc", InvalidPath::EncodedSlash),
            ("/%g0", InvalidPath::PercentEncoding),
        ] {
            assert_eq!(canonical_path(raw.as_bytes()).unwrap_err(), expected, "{raw}");
        }
    }

    /// Faults H17 and P21.
    #[test]
    fn encoded_paths_cannot_split_a_message() {
        let mut out = Vec::new();
        push_encoded_path(&mut out, b"/a b\r\nX: y/\xc3\xa9?#%");
        assert_eq!(out, b"/a%20b%0D%0AX:%20y/%C3%A9%3F%23%25");
    }
}
