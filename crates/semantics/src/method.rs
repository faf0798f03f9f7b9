//! Request methods (RFC 9110 §9) and their properties, in one table. Method names are case-sensitive
//! (9110-9.1-01): `get` is an unknown method.

use crate::grammar;

/// A request method.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Method {
    /// RFC 9110 §9.3.1.
    Get,
    /// RFC 9110 §9.3.2.
    Head,
    /// RFC 9110 §9.3.3.
    Post,
    /// RFC 9110 §9.3.4.
    Put,
    /// RFC 9110 §9.3.5.
    Delete,
    /// RFC 9110 §9.3.6.
    Connect,
    /// RFC 9110 §9.3.7.
    Options,
    /// RFC 9110 §9.3.8.
    Trace,
    /// RFC 5789.
    Patch,
    /// Any other token, kept as received.
    Other(Box<str>),
}

/// What the RFC says of a method.
struct Properties {
    name: &'static str,
    safe: bool,
    idempotent: bool,
    cacheable: bool,
}

const GET: Properties = Properties { name: "GET", safe: true, idempotent: true, cacheable: true };
const HEAD: Properties = Properties { name: "HEAD", safe: true, idempotent: true, cacheable: true };
const POST: Properties = Properties { name: "POST", safe: false, idempotent: false, cacheable: true };
const PUT: Properties = Properties { name: "PUT", safe: false, idempotent: true, cacheable: false };
const DELETE: Properties = Properties { name: "DELETE", safe: false, idempotent: true, cacheable: false };
const CONNECT: Properties = Properties { name: "CONNECT", safe: false, idempotent: false, cacheable: false };
const OPTIONS: Properties = Properties { name: "OPTIONS", safe: true, idempotent: true, cacheable: false };
const TRACE: Properties = Properties { name: "TRACE", safe: true, idempotent: true, cacheable: false };
const PATCH: Properties = Properties { name: "PATCH", safe: false, idempotent: false, cacheable: false };
/// Nothing may be assumed of an unknown method (RFC 9110 §9.1).
const OTHER: Properties = Properties { name: "", safe: false, idempotent: false, cacheable: false };

impl Method {
    /// The method of this name; `None` if the name is not a token.
    #[inline]
    pub fn from_bytes(name: &[u8]) -> Option<Method> {
        Some(match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ if grammar::is_token(name) => Method::Other(std::str::from_utf8(name).ok()?.into()),
            _ => return None,
        })
    }

    fn properties(&self) -> &'static Properties {
        match self {
            Method::Get => &GET,
            Method::Head => &HEAD,
            Method::Post => &POST,
            Method::Put => &PUT,
            Method::Delete => &DELETE,
            Method::Connect => &CONNECT,
            Method::Options => &OPTIONS,
            Method::Trace => &TRACE,
            Method::Patch => &PATCH,
            Method::Other(_) => &OTHER,
        }
    }

    /// The name as it stands in a request line.
    pub fn as_str(&self) -> &str {
        match self {
            Method::Other(name) => name,
            known => known.properties().name,
        }
    }

    /// Essentially read-only (RFC 9110 §9.2.1).
    pub fn is_safe(&self) -> bool {
        self.properties().safe
    }

    /// May be repeated with the same intended effect (RFC 9110 §9.2.2), and so retried.
    pub fn is_idempotent(&self) -> bool {
        self.properties().idempotent
    }

    /// Responses may be stored for reuse (RFC 9110 §9.2.3), the method's own conditions permitting.
    pub fn is_cacheable(&self) -> bool {
        self.properties().cacheable
    }

    /// One of the methods that this system implements somewhere: others get 501 (9110-9.1-03), a known one
    /// that a resource does not allow gets 405 (9110-9.1-04).
    pub fn is_known(&self) -> bool {
        !matches!(self, Method::Other(_))
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_case_sensitive_tokens() {
        assert_eq!(Method::from_bytes(b"GET"), Some(Method::Get));
        assert_eq!(Method::from_bytes(b"get"), Some(Method::Other("get".into())));
        assert_eq!(Method::from_bytes(b"M-SEARCH"), Some(Method::Other("M-SEARCH".into())));
        for bad in [&b""[..], b"G T", b"G=\"", b"GET:", b"G\xc3"] {
            assert_eq!(Method::from_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn properties_follow_rfc_9110_9_2() {
        let all = [
            Method::Get,
            Method::Head,
            Method::Post,
            Method::Put,
            Method::Delete,
            Method::Connect,
            Method::Options,
            Method::Trace,
            Method::Patch,
            Method::Other("X".into()),
        ];
        let names = |f: fn(&Method) -> bool| {
            all.iter().filter(|m| f(m)).map(|m| m.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(Method::is_safe), ["GET", "HEAD", "OPTIONS", "TRACE"]);
        assert_eq!(names(Method::is_idempotent), ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"]);
        assert_eq!(names(Method::is_cacheable), ["GET", "HEAD", "POST"]);
    }
}
