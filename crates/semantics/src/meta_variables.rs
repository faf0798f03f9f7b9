//! Meta-variables: a request as CGI (RFC 3875 §4.1) and its heirs WSGI (PEP 3333) and FastCGI see it. Decides
//! names, values and what must not be passed on; how they are encoded is for the caller's [`Sink`].
//!
//! Many names of fields lead to one variable (`X-A` and `X_A`), so only names of letters, digits and `-` become
//! variables (fault H18). `Proxy` becomes none (fault H19), nor does what belongs to the connection: framing was
//! settled below, and `CONTENT_LENGTH` tells what will really come.

use crate::fields::Fields;
use crate::grammar::{self, hex_digit};
use crate::method::Method;
use crate::names::Known;
use crate::target::{self, InvalidPath, RequestTarget};
use crate::version::Version;
use std::net::SocketAddr;

/// Takes the variables, one by one.
pub trait Sink {
    /// One variable. Names are not repeated.
    fn variable(&mut self, name: &[u8], value: &[u8]);
}

impl<F: FnMut(&[u8], &[u8])> Sink for F {
    fn variable(&mut self, name: &[u8], value: &[u8]) {
        self(name, value);
    }
}

/// What the variables are made from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// REQUEST_METHOD.
    pub method: &'a Method,
    /// QUERY_STRING and REQUEST_URI; and the host, where it is in absolute form.
    pub target: &'a RequestTarget,
    /// SERVER_PROTOCOL.
    pub version: Version,
    /// The header section.
    pub fields: &'a Fields,
    /// The decoded path, see [`application_path`].
    pub path: &'a [u8],
    /// SCRIPT_NAME: the prefix of the path that leads to the application, without a slash at its end; empty for
    /// the root.
    pub mount: &'a [u8],
    /// The length of the content that will be passed; `None` if it is not known yet.
    pub content_length: Option<u64>,
    /// The client, if it has an address.
    pub client: Option<SocketAddr>,
    /// The port the request came to.
    pub local_port: u16,
}

/// The path as an application sees it: decoded once, so that `%2F` is a slash and `//` stays.
///
/// A path with dot segments is given in its canonical form instead: access rules and routes were decided by
/// that form, and an application that resolves dots otherwise would be asked for something they did not see
/// (faults P16, P17).
///
/// # Errors
/// If the path holds an encoded NUL, a `%` without two digits, or dot segments that lead nowhere.
pub fn application_path(raw: &[u8]) -> Result<Vec<u8>, InvalidPath> {
    let mut path = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&octet) = raw.get(at) {
        at += 1;
        let octet = if octet == b'%' {
            let digit =
                |at: usize| raw.get(at).and_then(|&b| hex_digit(b)).ok_or(InvalidPath::PercentEncoding);
            let octet = digit(at)? << 4 | digit(at + 1)?;
            at += 2;
            octet
        } else {
            octet
        };
        if octet == 0 {
            return Err(InvalidPath::Nul);
        }
        path.push(octet);
    }
    if memchr::memchr(b'.', &path).is_some() && path.split(|&b| b == b'/').any(|s| matches!(s, b"." | b".."))
    {
        return target::canonical_path(raw);
    }
    if path.first() != Some(&b'/') {
        // `OPTIONS *` and an absolute target without a path.
        return Ok(b"/".to_vec());
    }
    Ok(path)
}

/// The rest of `path` beneath `mount`, as PATH_INFO has it: empty, or with a slash in front. `None` if the path is
/// not beneath it.
pub fn beneath<'a>(path: &'a [u8], mount: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(mount)?;
    (rest.is_empty() || rest[0] == b'/').then_some(rest)
}

/// The host the request is for, with its port if one is written: of an absolute target, else of Host
/// (9112-3.2.2-05).
pub fn host<'a>(target: &'a RequestTarget, fields: &'a Fields) -> Option<&'a [u8]> {
    target.authority().or_else(|| fields.get(Known::Host))
}

/// Whether a field becomes an `HTTP_` variable.
fn is_passed(name: &[u8], known: Option<Known>) -> bool {
    match known {
        Some(Known::Host | Known::ContentType | Known::ContentLength | Known::Expect) => false,
        Some(known) => !known.is_hop_by_hop(),
        None => {
            name.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'-')
                && !name.eq_ignore_ascii_case(b"proxy")
        }
    }
}

/// Tells all variables of the request but the scheme, whose name differs among CGI's heirs.
pub fn tell(source: &Source<'_>, sink: &mut impl Sink) {
    let mut number = Vec::with_capacity(20);
    let mut decimal = |sink: &mut _, name: &[u8], n: u64| {
        number.clear();
        grammar::push_decimal(&mut number, n);
        Sink::variable(sink, name, &number);
    };
    sink.variable(b"REQUEST_METHOD", source.method.as_str().as_bytes());
    let path_info = beneath(source.path, source.mount);
    if path_info.is_some() && !source.mount.is_empty() {
        sink.variable(b"SCRIPT_NAME", source.mount);
    }
    sink.variable(b"PATH_INFO", path_info.unwrap_or(source.path));
    sink.variable(b"QUERY_STRING", source.target.query().unwrap_or(b""));
    sink.variable(b"REQUEST_URI", source.target.as_bytes());
    sink.variable(b"SERVER_PROTOCOL", source.version.as_str().as_bytes());
    if let Some(host) = host(source.target, source.fields) {
        let name = match memchr::memrchr(b':', host) {
            Some(colon) if memchr::memchr(b']', &host[colon..]).is_none() => &host[..colon],
            _ => host,
        };
        if !name.is_empty() {
            sink.variable(b"SERVER_NAME", name);
        }
        sink.variable(b"HTTP_HOST", host);
    }
    if source.local_port != 0 {
        decimal(sink, b"SERVER_PORT", u64::from(source.local_port));
    }
    match source.client {
        Some(client) => {
            sink.variable(b"REMOTE_ADDR", client.ip().to_canonical().to_string().as_bytes());
            decimal(sink, b"REMOTE_PORT", u64::from(client.port()));
        }
        None => sink.variable(b"REMOTE_ADDR", b""),
    }
    // No variable at all where nothing comes: WSGI applications take a present CONTENT_LENGTH for content.
    if let Some(length) =
        source.content_length.filter(|&n| n > 0 || source.fields.contains(Known::ContentLength))
    {
        decimal(sink, b"CONTENT_LENGTH", length);
    }
    if let Some(media_type) = source.fields.get(Known::ContentType) {
        sink.variable(b"CONTENT_TYPE", media_type);
    }
    tell_fields(source.fields, sink);
}

/// The `HTTP_` variables. Lines of one name become one value (RFC 3875 §4.1.18), at the place of the first.
fn tell_fields(fields: &Fields, sink: &mut impl Sink) {
    let mut variable = Vec::with_capacity(64);
    let mut seen = 0u128;
    // Unknown names are compared with those before them, which a limit on the number of lines bounds.
    let mut told: Vec<&[u8]> = Vec::new();
    for field in fields.iter() {
        if !is_passed(field.name, field.known) {
            continue;
        }
        let repeated = match field.known {
            Some(known) => {
                let before = seen;
                seen |= known.mask();
                before == seen
            }
            None => {
                let before = told.iter().any(|name| name.eq_ignore_ascii_case(field.name));
                told.push(field.name);
                before
            }
        };
        if repeated {
            continue;
        }
        variable.clear();
        variable.extend_from_slice(b"HTTP_");
        variable.extend(field.name.iter().map(|&b| if b == b'-' { b'_' } else { b.to_ascii_uppercase() }));
        sink.variable(&variable, &value(fields, &field));
    }
}

fn value<'a>(fields: &'a Fields, field: &crate::fields::Field<'a>) -> std::borrow::Cow<'a, [u8]> {
    let separator: &[u8] = if field.known == Some(Known::Cookie) { b"; " } else { b", " };
    let mut lines = fields.all(field.name).skip(1).peekable();
    if lines.peek().is_none() {
        return field.value.into();
    }
    let mut joined = field.value.to_vec();
    for line in lines {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(line);
    }
    joined.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables of a request, as `NAME=value` lines.
    fn tell_all(method: Method, target: &str, lines: &[(&str, &str)], mount: &str) -> Vec<String> {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(*name, value).unwrap();
        }
        let target = RequestTarget::parse(&method, target.as_bytes()).unwrap();
        let path = application_path(target.path()).unwrap();
        let source = Source {
            method: &method,
            target: &target,
            version: Version::Http11,
            fields: &fields,
            path: &path,
            mount: mount.as_bytes(),
            content_length: Some(0),
            client: Some("[::ffff:192.0.2.1]:4711".parse().unwrap()),
            local_port: 8000,
        };
        let mut told = Vec::new();
        tell(&source, &mut |name: &[u8], value: &[u8]| {
            told.push(format!("{}={}", String::from_utf8_lossy(name), value.escape_ascii()));
        });
        let mut names: Vec<_> = told.iter().map(|line| line.split('=').next().unwrap()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a variable was told twice: {told:?}");
        told
    }

    #[track_caller]
    fn check(target: &str, lines: &[(&str, &str)], has: &[&str], has_not: &[&str]) {
        let told = tell_all(Method::Get, target, lines, "");
        for line in has {
            assert!(told.iter().any(|t| t == line), "{line} is missing in {told:?}");
        }
        for name in has_not {
            assert!(!told.iter().any(|t| t.split('=').next() == Some(name)), "{name} is in {told:?}");
        }
    }

    #[test]
    fn the_usual_request() {
        check(
            "/a%20b/%E2%98%83?x=%20&y",
            &[("Host", "example.org:8000"), ("User-Agent", "x/1"), ("X-Request-Id", "7")],
            &[
                "REQUEST_METHOD=GET",
                "PATH_INFO=/a b/\\xe2\\x98\\x83",
                "QUERY_STRING=x=%20&y",
                "REQUEST_URI=/a%20b/%E2%98%83?x=%20&y",
                "SERVER_PROTOCOL=HTTP/1.1",
                "SERVER_NAME=example.org",
                "SERVER_PORT=8000",
                "HTTP_HOST=example.org:8000",
                "HTTP_USER_AGENT=x/1",
                "HTTP_X_REQUEST_ID=7",
                "REMOTE_ADDR=192.0.2.1",
                "REMOTE_PORT=4711",
            ],
            &["SCRIPT_NAME", "CONTENT_LENGTH", "CONTENT_TYPE"],
        );
        check(
            "/",
            &[("Host", "[::1]:80")],
            &["SERVER_NAME=[::1]", "HTTP_HOST=[::1]:80", "QUERY_STRING="],
            &[],
        );
        check("/", &[("Host", "[::1]")], &["SERVER_NAME=[::1]"], &[]);
    }

    /// 9112-3.2.2-05: the host of an absolute target counts, not Host (fault H08).
    #[test]
    fn an_absolute_target_overrides_host() {
        let host = [("Host", "wrong.example")];
        check(
            "http://right.example:81/p?q",
            &host,
            &["HTTP_HOST=right.example:81", "SERVER_NAME=right.example", "PATH_INFO=/p", "QUERY_STRING=q"],
            &[],
        );
    }

    /// Faults H18 (two spellings of one variable) and H19 (httpoxy), S17 (framing by another spelling).
    #[test]
    fn what_never_becomes_a_variable() {
        check(
            "/",
            &[
                ("Host", "a"),
                ("Proxy", "http://evil"),
                ("X_Forwarded_For", "evil"),
                ("Content_Length", "5"),
                ("X.Real.Ip", "evil"),
                ("Content-Length", "0"),
                ("Transfer-Encoding", "chunked"),
                ("Connection", "close"),
                ("Keep-Alive", "x"),
                ("TE", "trailers"),
                ("Upgrade", "x"),
                ("Proxy-Authorization", "Basic x"),
                ("Expect", "100-continue"),
                ("Authorization", "Basic y"),
            ],
            &["HTTP_AUTHORIZATION=Basic y", "CONTENT_LENGTH=0"],
            &[
                "HTTP_PROXY",
                "HTTP_X_FORWARDED_FOR",
                "HTTP_X_REAL_IP",
                "HTTP_CONTENT_LENGTH",
                "HTTP_CONTENT_TYPE",
                "HTTP_TRANSFER_ENCODING",
                "HTTP_CONNECTION",
                "HTTP_KEEP_ALIVE",
                "HTTP_TE",
                "HTTP_UPGRADE",
                "HTTP_PROXY_AUTHORIZATION",
                "HTTP_EXPECT",
            ],
        );
    }

    #[test]
    fn lines_of_one_name_become_one_value() {
        check(
            "/",
            &[
                ("Host", "a"),
                ("Accept", "x"),
                ("X-A", "1"),
                ("accept", "y"),
                ("x-a", "2"),
                ("Cookie", "a=1"),
                ("Cookie", "b=2"),
            ],
            &["HTTP_ACCEPT=x, y", "HTTP_X_A=1, 2", "HTTP_COOKIE=a=1; b=2"],
            &[],
        );
    }

    #[test]
    fn mounts() {
        let told = |target| tell_all(Method::Get, target, &[("Host", "a")], "/app");
        assert!(told("/app/x").contains(&"SCRIPT_NAME=/app".to_owned()));
        assert!(told("/app/x").contains(&"PATH_INFO=/x".to_owned()));
        assert!(told("/app").contains(&"PATH_INFO=".to_owned()));
        assert!(told("/apple").contains(&"PATH_INFO=/apple".to_owned()));
        assert!(tell_all(Method::Options, "*", &[("Host", "a")], "").contains(&"PATH_INFO=/".to_owned()));
    }

    /// Faults P05 (NUL), P16, P17 (dots): accepted and refused side by side.
    #[test]
    fn paths() {
        for (raw, path) in [
            ("/", &b"/"[..]),
            ("/a//b", b"/a//b"),
            ("/a%2Fb", b"/a/b"),
            ("/a%25b", b"/a%b"),
            ("/caf%E9", b"/caf\xe9"),
            ("/a/../b", b"/b"),
            ("/a/%2e%2e/b", b"/b"),
            ("/x//../a", b"/a"),
            ("/a/./b/", b"/a/b/"),
            ("/a...b/..c", b"/a...b/..c"),
            ("/%0a", b"/\n"),
        ] {
            assert_eq!(application_path(raw.as_bytes()).as_deref(), Ok(path), "{raw}");
        }
        for (raw, why) in [
            ("/%00", InvalidPath::Nul),
            ("/a%", InvalidPath::PercentEncoding),
            ("/a%2", InvalidPath::PercentEncoding),
            ("/a%zz", InvalidPath::PercentEncoding),
            ("/..", InvalidPath::AboveRoot),
            ("/a/..%2fadmin", InvalidPath::EncodedSlash),
            ("/a%2f../admin", InvalidPath::EncodedSlash),
        ] {
            assert_eq!(application_path(raw.as_bytes()), Err(why), "{raw}");
        }
    }
}
