//! Target URIs of the schemes `http` and `https` (RFC 9110 §4.2), and how a reference is resolved against one
//! (RFC 3986 §5, strictly). What a user typed, what Location says, what a request asks for: all of them are a
//! [`Uri`], which cannot hold an octet that could end a request line (faults K02, K11, K46).
//!
//! Does not know request targets as received (`target.rs`), names and addresses, or international names: a
//! host beyond ASCII must come in its `xn--` form.

use crate::grammar::hex_digit;
use crate::target::{Authority, InvalidAuthority, Scheme};

/// Longest URI that is read, in octets. RFC 9110 §4.1 asks for 8000 at least (9110-4.1-01).
pub const URI_BYTES_MAX: usize = 32 * 1024;

/// An absolute `http` or `https` URI: canonical scheme and host, dot segments resolved, no userinfo.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    scheme: Scheme,
    host: String,
    port: u16,
    /// Path and query as sent in a request line; begins with `/`.
    path_and_query: String,
    path_len: usize,
    fragment: Option<String>,
}

/// `user:password` as it stood in a URI, percent-decoded. Never part of a message (9110-4.2.4-01).
#[derive(Clone, PartialEq, Eq)]
pub struct Userinfo {
    /// What stood before the first colon.
    pub user: Vec<u8>,
    /// What stood after it.
    pub password: Option<Vec<u8>>,
}

impl std::fmt::Debug for Userinfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Userinfo(<hidden>)")
    }
}

/// Why text is no usable URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidUri {
    /// Nothing there.
    Empty,
    /// Longer than [`URI_BYTES_MAX`].
    TooLong,
    /// A space, control, or other octet that must be percent-encoded.
    Octet(u8),
    /// A `%` that two hexadecimal digits do not follow.
    PercentEncoding,
    /// No scheme where an absolute URI is needed.
    NoScheme,
    /// Another scheme than `http` and `https` (fault K02).
    Scheme,
    /// `http:` without `//` and an authority.
    NoAuthority,
    /// The authority is wrong.
    Authority(InvalidAuthority),
    /// A percent-encoded octet in the host (fault K46).
    PercentInHost,
    /// Port 0.
    PortZero,
    /// A label of the host that no name in the DNS can have: empty, or longer than 63 octets.
    HostLabel,
}

impl std::fmt::Display for InvalidUri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InvalidUri::Empty => f.write_str("it is empty"),
            InvalidUri::TooLong => write!(f, "it is longer than {URI_BYTES_MAX} octets"),
            InvalidUri::Octet(b' ') => f.write_str("it holds a space; write %20"),
            InvalidUri::Octet(b @ (..=0x1f | 0x7f)) => write!(f, "it holds the control octet 0x{b:02x}"),
            InvalidUri::Octet(b @ 0x80..) => {
                write!(f, "its host holds the octet 0x{b:02x}; write an international name in its xn-- form")
            }
            InvalidUri::Octet(b) => write!(f, "it holds '{}' where that may not stand", char::from(*b)),
            InvalidUri::PercentEncoding => f.write_str("a % in it is not followed by two hexadecimal digits"),
            InvalidUri::NoScheme => f.write_str("it has no scheme; write http://... or https://..."),
            InvalidUri::Scheme => f.write_str("only http and https are spoken here"),
            InvalidUri::NoAuthority => f.write_str("it names no host after the scheme"),
            InvalidUri::Authority(InvalidAuthority::Port) => {
                f.write_str("its port is no number from 1 to 65535")
            }
            InvalidUri::Authority(InvalidAuthority::EmptyHost) => f.write_str("its host is empty"),
            InvalidUri::Authority(InvalidAuthority::IpLiteral) => {
                f.write_str("the address in brackets is no IPv6 address")
            }
            InvalidUri::Authority(InvalidAuthority::Userinfo) => f.write_str("it holds user information"),
            InvalidUri::Authority(_) => f.write_str("its host holds what no host name may hold"),
            InvalidUri::PercentInHost => f.write_str("its host holds a percent sign"),
            InvalidUri::PortZero => f.write_str("port 0 cannot be connected to"),
            InvalidUri::HostLabel => f.write_str("a label of its host is empty or longer than 63 octets"),
        }
    }
}

impl std::error::Error for InvalidUri {}

impl Uri {
    /// Reads an absolute URI. Userinfo, if any, is taken out and returned beside it.
    ///
    /// # Errors
    /// Names the first thing wrong.
    pub fn parse(text: &[u8]) -> Result<(Uri, Option<Userinfo>), InvalidUri> {
        let reference = Reference::split(text)?;
        let scheme = reference.scheme.ok_or(InvalidUri::NoScheme)?;
        let scheme = Scheme::from_bytes(scheme).ok_or(InvalidUri::Scheme)?;
        let (authority, userinfo) = reference.authority.ok_or(InvalidUri::NoAuthority)?.read()?;
        let uri =
            Uri::build(scheme, authority, reference.path, reference.query, encode(reference.fragment)?)?;
        Ok((uri, userinfo))
    }

    /// The URI of an origin and a target in origin-form, both already checked by the caller's parser.
    ///
    /// # Errors
    /// If host, port or target could not stand in a URI.
    pub fn from_parts(scheme: Scheme, authority: &[u8], target: &[u8]) -> Result<Uri, InvalidUri> {
        let authority = RawAuthority { userinfo: None, host_and_port: authority }.read()?.0;
        let (path, query) = match memchr::memchr(b'?', target) {
            Some(at) => (&target[..at], Some(&target[at + 1..])),
            None => (target, None),
        };
        Uri::build(scheme, authority, path, query, None)
    }

    fn build(
        scheme: Scheme,
        authority: (String, Option<u16>),
        path: &[u8],
        query: Option<&[u8]>,
        fragment: Option<String>,
    ) -> Result<Uri, InvalidUri> {
        let mut path_and_query = remove_dot_segments(&encode(Some(path))?.unwrap_or_default());
        if path_and_query.is_empty() {
            path_and_query.push('/'); // 9112-3.2.1-02
        }
        let path_len = path_and_query.len();
        if let Some(query) = encode(query)? {
            path_and_query.push('?');
            path_and_query.push_str(&query);
        }
        let (host, port) = authority;
        let port = port.unwrap_or(scheme.default_port());
        Ok(Uri { scheme, host, port, path_and_query, path_len, fragment })
    }

    /// Resolves a reference against this URI (RFC 3986 §5.2, strict: a scheme makes a reference absolute).
    /// Without a fragment of its own the result inherits this one's (9110-10.2.2-01).
    ///
    /// # Errors
    /// If the reference is malformed or leads to another scheme.
    pub fn resolve(&self, reference: &[u8]) -> Result<(Uri, Option<Userinfo>), InvalidUri> {
        let parts = Reference::split(reference)?;
        if parts.scheme.is_some() {
            let (mut uri, userinfo) = Uri::parse(reference)?;
            uri.fragment = uri.fragment.or_else(|| self.fragment.clone());
            return Ok((uri, userinfo));
        }
        let fragment = match encode(parts.fragment)? {
            None => self.fragment.clone(),
            own => own,
        };
        if let Some(authority) = parts.authority {
            let (authority, userinfo) = authority.read()?;
            let uri = Uri::build(self.scheme, authority, parts.path, parts.query, fragment)?;
            return Ok((uri, userinfo));
        }
        let origin = (self.host.clone(), Some(self.port));
        let uri = if parts.path.is_empty() {
            let query = parts.query.or(self.query().map(str::as_bytes));
            Uri::build(self.scheme, origin, self.path().as_bytes(), query, fragment)?
        } else if parts.path[0] == b'/' {
            Uri::build(self.scheme, origin, parts.path, parts.query, fragment)?
        } else {
            let base = self.path();
            let directory = base.rfind('/').map_or("/", |at| &base[..=at]);
            let merged = [directory.as_bytes(), parts.path].concat();
            Uri::build(self.scheme, origin, &merged, parts.query, fragment)?
        };
        Ok((uri, None))
    }

    /// Its scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether its scheme is `https`.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The host in lower case; an IPv6 address with its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host as a resolver or a certificate check wants it: an IPv6 address without its brackets.
    pub fn host_bare(&self) -> &str {
        self.host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The port, written or implied.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host, and port unless it is the scheme's own: the value of Host (9112-3.2-04).
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Host and port, always both: the target of CONNECT (9110-9.3.6-01).
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The path, percent-encoded, beginning with `/`.
    pub fn path(&self) -> &str {
        &self.path_and_query[..self.path_len]
    }

    /// The query without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query[self.path_len..].strip_prefix('?')
    }

    /// The target in origin-form (9112-3.2.1-01).
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// The fragment without its `#`. Never sent.
    pub fn fragment(&self) -> Option<&str> {
        self.fragment.as_deref()
    }

    /// The URI without its fragment: the target in absolute-form (9112-3.2.2-01), and the value of Referer
    /// (9110-10.1.3-01).
    pub fn without_fragment(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.authority(), self.path_and_query)
    }

    /// Whether both have the same origin: scheme, host and port (RFC 9110 §4.3.1).
    pub fn same_origin(&self, other: &Uri) -> bool {
        self.scheme == other.scheme && self.port == other.port && self.host == other.host
    }
}

impl std::fmt::Display for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.without_fragment())?;
        self.fragment.as_ref().map_or(Ok(()), |fragment| write!(f, "#{fragment}"))
    }
}

impl std::fmt::Debug for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The five components of RFC 3986 §3, unchecked, as its appendix B splits them.
struct Reference<'a> {
    scheme: Option<&'a [u8]>,
    authority: Option<RawAuthority<'a>>,
    path: &'a [u8],
    query: Option<&'a [u8]>,
    fragment: Option<&'a [u8]>,
}

impl<'a> Reference<'a> {
    fn split(text: &'a [u8]) -> Result<Reference<'a>, InvalidUri> {
        if text.len() > URI_BYTES_MAX {
            return Err(InvalidUri::TooLong);
        }
        // Said first, whatever part they stand in: such a URI could split a message (fault K11).
        if let Some(&b) = text.iter().find(|&&b| b <= b' ' || b == 0x7f) {
            return Err(InvalidUri::Octet(b));
        }
        let (text, fragment) = cut(text, b'#');
        let (text, query) = cut(text, b'?');
        let (scheme, rest) = match text.iter().position(|b| matches!(b, b':' | b'/')) {
            Some(at) if text[at] == b':' && is_scheme(&text[..at]) => (Some(&text[..at]), &text[at + 1..]),
            // RFC 3986 §4.2: the first segment of a relative path holds no colon.
            Some(at) if text[at] == b':' => return Err(InvalidUri::Octet(b':')),
            _ => (None, text),
        };
        let (authority, path) = match rest.strip_prefix(b"//") {
            Some(rest) => {
                let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
                (Some(RawAuthority::split(&rest[..end])), &rest[end..])
            }
            None => (None, rest),
        };
        Ok(Reference { scheme, authority, path, query, fragment })
    }
}

fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(at, text) {
        Some(i) => (&text[..i], Some(&text[i + 1..])),
        None => (text, None),
    }
}

fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

struct RawAuthority<'a> {
    userinfo: Option<&'a [u8]>,
    host_and_port: &'a [u8],
}

type HostAndPort = (String, Option<u16>);

impl<'a> RawAuthority<'a> {
    fn split(text: &'a [u8]) -> RawAuthority<'a> {
        // The *first* @: a second one would then stand in the host, and is refused there.
        match memchr::memchr(b'@', text) {
            Some(at) => RawAuthority { userinfo: Some(&text[..at]), host_and_port: &text[at + 1..] },
            None => RawAuthority { userinfo: None, host_and_port: text },
        }
    }

    fn read(&self) -> Result<(HostAndPort, Option<Userinfo>), InvalidUri> {
        if let Some(&b) = self.host_and_port.iter().find(|b| !b.is_ascii()) {
            return Err(InvalidUri::Octet(b));
        }
        let authority = Authority::parse(self.host_and_port).map_err(InvalidUri::Authority)?;
        if authority.host.is_empty() {
            return Err(InvalidUri::Authority(InvalidAuthority::EmptyHost));
        }
        if authority.host.contains(&b'%') {
            return Err(InvalidUri::PercentInHost);
        }
        if authority.port == Some(0) {
            return Err(InvalidUri::PortZero);
        }
        let host = authority.canonical_host();
        let bracketed = host[0] == b'[';
        if !bracketed && host.split(|&b| b == b'.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(InvalidUri::HostLabel);
        }
        let mut host = String::from_utf8(host).map_err(|_| InvalidUri::HostLabel)?;
        if bracketed {
            // One spelling for one address: RFC 5952 is what the standard library writes.
            let address: std::net::Ipv6Addr = host[1..host.len() - 1]
                .parse()
                .map_err(|_| InvalidUri::Authority(InvalidAuthority::IpLiteral))?;
            host = format!("[{address}]");
        }
        let userinfo = match self.userinfo {
            None => None,
            Some(text) => {
                check_percent(text)?;
                // Browsers read it as a slash, and would go to another host (fault X22).
                if text.contains(&b'\\') {
                    return Err(InvalidUri::Octet(b'\\'));
                }
                let (user, password) = cut(text, b':');
                let decode = crate::target::percent_decode;
                Some(Userinfo { user: decode(user), password: password.map(decode) })
            }
        };
        Ok(((host, authority.port), userinfo))
    }
}

fn check_percent(text: &[u8]) -> Result<(), InvalidUri> {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'%', &text[at..]) {
        let i = at + found;
        if !(text.len() > i + 2 && hex_digit(text[i + 1]).is_some() && hex_digit(text[i + 2]).is_some()) {
            return Err(InvalidUri::PercentEncoding);
        }
        at = i + 3;
    }
    Ok(())
}

/// Path, query or fragment with every octet that RFC 3986 does not allow there percent-encoded. Octets beyond
/// ASCII are encoded as they are (RFC 3987 §3.1); controls and spaces were refused before.
fn encode(text: Option<&[u8]>) -> Result<Option<String>, InvalidUri> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let Some(text) = text else { return Ok(None) };
    check_percent(text)?;
    let mut out = String::with_capacity(text.len());
    for &b in text {
        if b <= b' ' || b == 0x7f {
            return Err(InvalidUri::Octet(b));
        }
        let plain = b.is_ascii_alphanumeric() || memchr::memchr(b, b"-._~!$&'()*+,;=:@/?%[]|").is_some();
        if plain {
            out.push(char::from(b));
        } else {
            out.push('%');
            out.push(char::from(HEX[(b >> 4) as usize]));
            out.push(char::from(HEX[(b & 15) as usize]));
        }
    }
    Ok(Some(out))
}

/// RFC 3986 §5.2.4.
fn remove_dot_segments(path: &str) -> String {
    if !path.contains("/.") {
        return path.to_owned();
    }
    let mut out: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                out.pop();
            }
            other => {
                out.push(other);
                continue;
            }
        }
        if last {
            out.push("");
        }
    }
    let mut joined = String::with_capacity(path.len());
    for segment in out {
        joined.push('/');
        joined.push_str(segment);
    }
    if joined.is_empty() {
        joined.push('/');
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn uri(text: &str) -> Uri {
        Uri::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e:?}")).0
    }

    /// 9112-3.2-04, 9112-3.2.1-01, 9112-3.2.1-02, 9110-4.1-01, 9110-9.3.6-01, 9110-10.1.3-01.
    #[test]
    fn absolute_uris_in_their_parts() {
        for (text, authority, target, connect) in [
            ("http://example.com", "example.com", "/", "example.com:80"),
            ("HTTP://EXAMPLE.com.:080/a?b#c", "example.com", "/a?b", "example.com:80"),
            ("https://h:443", "h", "/", "h:443"),
            ("https://h:8443?q", "h:8443", "/?q", "h:8443"),
            ("http://[::1]:8080/x", "[::1]:8080", "/x", "[::1]:8080"),
            ("http://[0:0::1]/x", "[::1]", "/x", "[::1]:80"),
            ("http://h/a/./b/../c", "h", "/a/c", "h:80"),
            ("http://h/../../x", "h", "/x", "h:80"),
            ("http://h/a/..", "h", "/", "h:80"),
            ("http://h//a//b", "h", "//a//b", "h:80"),
            ("http://h/%7Ea%2fb", "h", "/%7Ea%2fb", "h:80"),
            ("http://h/\u{e9}?\u{e9}", "h", "/%C3%A9?%C3%A9", "h:80"),
            ("http://h/{a}\\b<c>\"^`", "h", "/%7Ba%7D%5Cb%3Cc%3E%22%5E%60", "h:80"),
            // 6265-6.3-01, 6265-6.3-02: hosts are compared in their A-label form, and taken in no other.
            ("http://xn--bcher-kva.example/", "xn--bcher-kva.example", "/", "xn--bcher-kva.example:80"),
            ("http://u:p@h/x", "h", "/x", "h:80"),
        ] {
            let uri = uri(text);
            assert_eq!(uri.authority(), authority, "{text}");
            assert_eq!(uri.path_and_query(), target, "{text}");
            assert_eq!(uri.host_and_port(), connect, "{text}");
        }
        let long = format!("http://h/{}", "a".repeat(8000));
        assert_eq!(uri(&long).path().len(), 8001);
        assert_eq!(uri("http://u:p@h:81/x?y#z").without_fragment(), "http://h:81/x?y");
        assert_eq!(uri("http://h/x#z").to_string(), "http://h/x#z");
        assert_eq!(uri("http://[::1]/").host_bare(), "::1");
    }

    /// 9110-4.2.1-01, 9110-4.2.2-01; faults K02, K11, K46.
    /// Fault X22.
    #[test]
    fn what_is_no_uri() {
        use InvalidUri as E;
        for (text, expected) in [
            (&b""[..], E::NoScheme),
            (b"example.com", E::NoScheme),
            (b"/path", E::NoScheme),
            (b"example.com:80/x", E::Scheme),
            (b"file:///etc/passwd", E::Scheme),
            (b"gopher://h/", E::Scheme),
            (b"javascript:alert(1)", E::Scheme),
            (b"http:x", E::NoAuthority),
            (b"http:/x", E::NoAuthority),
            // 9110-4.2.1-02, 9110-4.2.2-02
            (b"http://", E::Authority(InvalidAuthority::EmptyHost)),
            (b"https:///x", E::Authority(InvalidAuthority::EmptyHost)),
            (b"http://:80/", E::Authority(InvalidAuthority::EmptyHost)),
            (b"http://h /", E::Octet(b' ')),
            (b"http://h/a b", E::Octet(b' ')),
            (b"http://h/a\r\nX: y", E::Octet(b'\r')),
            (b"http://h/a\nb", E::Octet(b'\n')),
            (b"http://h/a\0", E::Octet(0)),
            (b"http://h/\x1b[2J", E::Octet(0x1b)),
            (b"http://h/\x7f", E::Octet(0x7f)),
            (b"http://h/%", E::PercentEncoding),
            (b"http://h/%4", E::PercentEncoding),
            (b"http://h/%zz", E::PercentEncoding),
            (b"http://h/?%zz", E::PercentEncoding),
            (b"http://a%2f.b/", E::PercentInHost),
            (b"http://a%41/", E::PercentInHost),
            (b"http://b\xc3\xbccher.example/", E::Octet(0xc3)),
            (b"http://h:0/", E::PortZero),
            (b"http://h:99999/", E::Authority(InvalidAuthority::Port)),
            (b"http://h:+80/", E::Authority(InvalidAuthority::Port)),
            (b"http://[zz]/", E::Authority(InvalidAuthority::IpLiteral)),
            (b"http://a@b@c/", E::Authority(InvalidAuthority::Userinfo)),
            (b"http://a\\@b/", E::Octet(b'\\')),
            (b"http://a..b/", E::HostLabel),
            (b"http://.a/", E::HostLabel),
            (b"1http://h/", E::Octet(b':')),
        ] {
            assert_eq!(Uri::parse(text).unwrap_err(), expected, "{:?}", String::from_utf8_lossy(text));
        }
        // What RFC 3986 says is clear, whoever else reads it differently.
        assert_eq!(Uri::parse(b"http://a@b#@c@d/").unwrap().0.host(), "b");
        let label = format!("http://{}.example/", "a".repeat(64));
        assert_eq!(Uri::parse(label.as_bytes()).unwrap_err(), E::HostLabel);
        let long = format!("http://h/{}", "a".repeat(URI_BYTES_MAX));
        assert_eq!(Uri::parse(long.as_bytes()).unwrap_err(), E::TooLong);
    }

    #[test]
    fn userinfo_is_taken_out_and_decoded() {
        let (uri, userinfo) = Uri::parse(b"http://us%40er:p%3Ass:x@h/").unwrap();
        let userinfo = userinfo.unwrap();
        assert_eq!(
            (userinfo.user.as_slice(), userinfo.password.as_deref()),
            (&b"us@er"[..], Some(&b"p:ss:x"[..]))
        );
        assert_eq!(uri.to_string(), "http://h/");
        assert!(!format!("{userinfo:?}").contains("us@er"), "secrets stay out of debug output");
    }

    /// 9110-15.4-02a, 9110-10.2.2-01; the examples of RFC 3986 §5.4 that stay within http.
    #[test]
    fn references_resolve_as_rfc_3986_has_it() {
        let base = uri("http://a/b/c/d;p?q");
        for (reference, expected) in [
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g/"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("g#s", "http://a/b/c/g#s"),
            ("g?y#s", "http://a/b/c/g?y#s"),
            (";x", "http://a/b/c/;x"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("https://x:8/y", "https://x:8/y"),
            ("?a:b", "http://a/b/c/d;p?a:b"),
        ] {
            let (uri, _) =
                base.resolve(reference.as_bytes()).unwrap_or_else(|e| panic!("{reference}: {e:?}"));
            assert_eq!(uri.to_string(), expected, "{reference}");
        }
        let with_fragment = uri("http://a/b#frag");
        assert_eq!(with_fragment.resolve(b"/c").unwrap().0.to_string(), "http://a/c#frag");
        assert_eq!(with_fragment.resolve(b"http://z/c").unwrap().0.to_string(), "http://z/c#frag");
        assert_eq!(with_fragment.resolve(b"/c#own").unwrap().0.to_string(), "http://a/c#own");
        assert_eq!(base.resolve(b"ftp://h/").unwrap_err(), InvalidUri::Scheme);
        // Strict: a base's scheme in a relative reference is not ignored.
        assert_eq!(base.resolve(b"http:g").unwrap_err(), InvalidUri::NoAuthority);
        assert_eq!(uri("http://h:81/a").resolve(b"b").unwrap().0.to_string(), "http://h:81/b");
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let base = uri("https://h/a");
        assert!(base.same_origin(&uri("https://H:443/b")));
        for other in ["http://h/", "https://h:444/", "https://x/", "http://h:443/"] {
            assert!(!base.same_origin(&uri(other)), "{other}");
        }
    }
}
