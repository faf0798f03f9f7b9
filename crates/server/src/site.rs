//! Which site answers: chosen by the authority of the target URI (RFC 9110 §7.2, §4.2.3), by exact name, then by the
//! longest wildcard, then the default site. Nobody's authority is a misdirected request: 421 (RFC 9110 §15.5.20).
//!
//! The lookup allocates nothing and does not depend on how many sites there are. That an absolute-form target
//! overrides Host (9112-3.2.2-06) is the request's business: it hands over the authority that counts.

use eleven_semantics::target::{Authority, Scheme};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Longest host looked up: a DNS name has 253 octets, an IPv6 literal 47.
const HOST_BYTES_MAX: usize = 255;

/// A hash for keys that only the operator chooses: nobody can make them collide, so speed is all that counts.
#[derive(Clone, Default)]
pub(crate) struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }
    // The length before the octets: they are hashed with their length anyway.
    fn write_usize(&mut self, _: usize) {}
}

pub(crate) type FixedMap<V> = HashMap<Box<[u8]>, V, BuildHasherDefault<Quick>>;

/// A name in a configuration: `example.org`, `*.example.org`, `[::1]`, each with an optional port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// Lower case, without the root's dot, without `*.`.
    host: Box<[u8]>,
    /// Matches names beneath `host` and not `host` itself.
    wildcard: bool,
    /// Only on this port; any if `None`.
    port: Option<u16>,
}

/// Why a name cannot be one of a site's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPattern {
    /// Nothing before the port.
    Empty,
    /// Longer than any DNS name.
    TooLong,
    /// A `*` elsewhere than as the whole first label.
    Wildcard,
    /// A scheme or a path: only the host is wanted.
    NotAHost,
    /// Anything that RFC 3986 §3.2 does not allow.
    Syntax,
}

impl std::fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InvalidPattern::Empty => "a host name is wanted",
            InvalidPattern::TooLong => "longer than any host name (255 octets)",
            InvalidPattern::Wildcard => "`*` may only be the whole first label, as in `*.example.org`",
            InvalidPattern::NotAHost => "only the host is wanted, without scheme or path",
            InvalidPattern::Syntax => "not a host name",
        })
    }
}

impl HostPattern {
    /// Reads a name as it stands in a configuration.
    ///
    /// # Errors
    /// If no Host value could ever match it.
    pub fn parse(text: &str) -> Result<HostPattern, InvalidPattern> {
        if text.contains('/') {
            return Err(InvalidPattern::NotAHost);
        }
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(InvalidPattern::Wildcard);
        }
        let authority = Authority::parse(rest.as_bytes()).map_err(|_| InvalidPattern::Syntax)?;
        let host = authority.canonical_host();
        match host.len() {
            0 => Err(InvalidPattern::Empty),
            n if n > HOST_BYTES_MAX => Err(InvalidPattern::TooLong),
            _ if host.starts_with(b".") => Err(InvalidPattern::Syntax),
            _ => Ok(HostPattern { host: canonical_literal(host).into(), wildcard, port: authority.port }),
        }
    }

    /// Whether an authority matches.
    pub fn matches(&self, authority: &Authority<'_>, scheme: Scheme) -> bool {
        let mut buffer = [0; HOST_BYTES_MAX];
        let Some(host) = canonical(authority.host, &mut buffer) else { return false };
        if self.port.is_some_and(|port| port != authority.port.unwrap_or(scheme.default_port())) {
            return false;
        }
        if !self.wildcard {
            return host == &self.host[..];
        }
        host.strip_suffix(&self.host[..]).is_some_and(|labels| labels.len() > 1 && labels.ends_with(b"."))
    }

    /// Whether it stands for many names.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

impl std::fmt::Display for HostPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{star}{}", String::from_utf8_lossy(&self.host))?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// An IPv6 literal in its one canonical spelling, so that `[0:0::1]` is `[::1]`.
fn canonical_literal(host: Vec<u8>) -> Vec<u8> {
    let inner = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    let address = inner.and_then(|inner| std::str::from_utf8(inner).ok()?.parse::<std::net::Ipv6Addr>().ok());
    address.map_or(host, |address| format!("[{address}]").into_bytes())
}

/// The host in lower case and without the root's dot, in the caller's buffer; `None` if too long for a name.
fn canonical<'a>(host: &[u8], buffer: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a [u8]> {
    if host.first() == Some(&b'[') {
        let literal = canonical_literal(host.to_ascii_lowercase());
        let out = buffer.get_mut(..literal.len())?;
        out.copy_from_slice(&literal);
        return Some(out);
    }
    let host = if host.len() > 1 { host.strip_suffix(b".").unwrap_or(host) } else { host };
    let out = buffer.get_mut(..host.len())?;
    out.copy_from_slice(host);
    out.make_ascii_lowercase();
    Some(out)
}

/// Where names lead; `S` is what stands for a site.
#[derive(Debug, Clone)]
pub struct SiteMap<S> {
    exact: FixedMap<S>,
    /// Keys are the part after `*.`.
    wildcards: FixedMap<S>,
    /// Names bound to a port, as `host:port`; looked at first.
    ports: FixedMap<S>,
    port_wildcards: FixedMap<S>,
    default: Option<S>,
}

impl<S> Default for SiteMap<S> {
    fn default() -> Self {
        SiteMap {
            exact: FixedMap::default(),
            wildcards: FixedMap::default(),
            ports: FixedMap::default(),
            port_wildcards: FixedMap::default(),
            default: None,
        }
    }
}

fn with_port(host: &[u8], port: u16) -> Vec<u8> {
    let mut key = host.to_vec();
    key.push(b':');
    eleven_semantics::grammar::push_decimal(&mut key, u64::from(port));
    key
}

impl<S> SiteMap<S> {
    /// Adds a name; gives the site back if the name is taken.
    ///
    /// # Errors
    /// With the site, if the name leads elsewhere already.
    pub fn insert(&mut self, pattern: &HostPattern, site: S) -> Result<(), S> {
        let (map, key) = match (pattern.port, pattern.wildcard) {
            (None, false) => (&mut self.exact, pattern.host.clone()),
            (None, true) => (&mut self.wildcards, pattern.host.clone()),
            (Some(port), false) => (&mut self.ports, with_port(&pattern.host, port).into()),
            (Some(port), true) => (&mut self.port_wildcards, with_port(&pattern.host, port).into()),
        };
        match map.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => Err(site),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(site);
                Ok(())
            }
        }
    }

    /// The site for authorities that no name matches.
    pub fn set_default(&mut self, site: S) {
        self.default = Some(site);
    }

    /// The site of an authority; of the default site if there is none (HTTP/1.0 without Host, or an empty
    /// Host). `None` means 421.
    #[inline]
    pub fn find(&self, authority: Option<&Authority<'_>>, scheme: Scheme) -> Option<&S> {
        let Some(authority) = authority.filter(|authority| !authority.host.is_empty()) else {
            return self.default.as_ref();
        };
        let mut buffer = [0; HOST_BYTES_MAX];
        let Some(host) = canonical(authority.host, &mut buffer) else { return self.default.as_ref() };
        self.bound_to_port(host, authority, scheme)
            .or_else(|| self.exact.get(host))
            .or_else(|| beneath(&self.wildcards, host, |suffix| self.wildcards.get(suffix)))
            .or(self.default.as_ref())
    }

    fn bound_to_port(&self, host: &[u8], authority: &Authority<'_>, scheme: Scheme) -> Option<&S> {
        if self.ports.is_empty() && self.port_wildcards.is_empty() {
            return None;
        }
        // RFC 9110 §4.2.3: no port, an empty port and the scheme's default port are one.
        let port = authority.port.unwrap_or(scheme.default_port());
        self.ports.get(&with_port(host, port)[..]).or_else(|| {
            beneath(&self.port_wildcards, host, |suffix| {
                self.port_wildcards.get(&with_port(suffix, port)[..])
            })
        })
    }
}

/// Asks for each proper suffix of `host` that starts after a dot, longest first.
fn beneath<'a, S>(map: &FixedMap<S>, host: &[u8], get: impl Fn(&[u8]) -> Option<&'a S>) -> Option<&'a S> {
    if map.is_empty() || host.first() == Some(&b'[') {
        return None;
    }
    memchr::memchr_iter(b'.', host).filter(|&dot| dot > 0).find_map(|dot| get(&host[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> SiteMap<&'static str> {
        let mut map = SiteMap::default();
        for (name, site) in [
            ("example.org", "org"),
            ("Www.Example.ORG.", "www"),
            ("*.example.org", "any"),
            ("*.deep.example.org", "deep"),
            ("example.org:8443", "org-8443"),
            ("*.ports.test:81", "ports"),
            ("plain.test:80", "plain"),
            ("[0:0::1]", "v6"),
            ("127.0.0.1", "v4"),
        ] {
            map.insert(&HostPattern::parse(name).unwrap(), site).unwrap();
        }
        map
    }

    /// 9110-4.2.3-01 and fault H10: case, port, trailing dot, the wildcard, and 421 for nobody's names.
    #[test]
    fn authorities_and_their_sites() {
        for (host, expected) in [
            ("example.org", Some("org")),
            ("EXAMPLE.org", Some("org")),
            ("example.org.", Some("org")),
            ("example.org:", Some("org")),
            ("example.org:80", Some("org")),
            ("example.org:8080", Some("org")),
            ("example.org:8443", Some("org-8443")),
            ("www.example.org", Some("www")),
            ("a.example.org", Some("any")),
            ("a.b.example.org", Some("any")),
            ("a.deep.example.org", Some("deep")),
            ("deep.example.org", Some("any")),
            ("x.ports.test:81", Some("ports")),
            ("x.ports.test", None),
            ("ports.test:81", None),
            ("plain.test", Some("plain")),
            ("plain.test:80", Some("plain")),
            ("plain.test:81", None),
            ("[::1]", Some("v6")),
            ("[0000::0001]:8080", Some("v6")),
            ("127.0.0.1:9", Some("v4")),
            ("127.0.0.2", None),
            ("badexample.org", None),
            (".example.org", None),
            ("example.org..", None),
            ("org", None),
            ("", None),
        ] {
            let authority = Authority::parse(host.as_bytes()).unwrap();
            assert_eq!(map().find(Some(&authority), Scheme::Http).copied(), expected, "{host:?}");
            let mut with_default = map();
            with_default.set_default("default");
            let found = with_default.find(Some(&authority), Scheme::Http).copied();
            assert_eq!(found, expected.or(Some("default")), "{host:?}");
        }
        assert_eq!(map().find(None, Scheme::Http), None);
        let long = "a".repeat(300);
        assert_eq!(map().find(Some(&Authority::parse(long.as_bytes()).unwrap()), Scheme::Http), None);
        // The default port is the scheme's.
        let authority = Authority::parse(b"plain.test").unwrap();
        assert_eq!(map().find(Some(&authority), Scheme::Https), None);
    }

    #[test]
    fn names_of_a_configuration() {
        for (text, shown) in [
            ("EXAMPLE.org.", "example.org"),
            ("*.a.b:80", "*.a.b:80"),
            ("[::0]", "[::]"),
            ("localhost", "localhost"),
        ] {
            let pattern = HostPattern::parse(text).unwrap();
            assert_eq!(pattern.to_string(), shown);
            assert_eq!(HostPattern::parse(shown), Ok(pattern));
        }
        for (text, reason) in [
            ("", InvalidPattern::Empty),
            (":80", InvalidPattern::Empty),
            ("*", InvalidPattern::Wildcard),
            ("*.", InvalidPattern::Empty),
            ("a.*.b", InvalidPattern::Wildcard),
            ("*a.b", InvalidPattern::Wildcard),
            ("http://a", InvalidPattern::NotAHost),
            ("a/b", InvalidPattern::NotAHost),
            ("a b", InvalidPattern::Syntax),
            ("a,b", InvalidPattern::Syntax),
            ("u@a", InvalidPattern::Syntax),
            ("a:99999", InvalidPattern::Syntax),
            ("*..a", InvalidPattern::Syntax),
        ] {
            assert_eq!(HostPattern::parse(text), Err(reason), "{text:?}");
        }
        assert!(HostPattern::parse(&"a".repeat(300)).is_err());
        let mut map = map();
        assert_eq!(map.insert(&HostPattern::parse("EXAMPLE.org").unwrap(), "twice"), Err("twice"));
    }

    /// A pattern by itself decides as the map does.
    #[test]
    fn a_single_pattern_agrees_with_the_map() {
        for name in ["example.org", "*.example.org", "example.org:8443", "*.ports.test:81", "[::1]"] {
            let pattern = HostPattern::parse(name).unwrap();
            let mut map = SiteMap::default();
            map.insert(&pattern, ()).unwrap();
            for host in [
                "example.org",
                "a.example.org",
                "xexample.org",
                "example.org:8443",
                "a.ports.test:81",
                "[::1]:5",
                "A.EXAMPLE.ORG.",
            ] {
                let authority = Authority::parse(host.as_bytes()).unwrap();
                assert_eq!(
                    pattern.matches(&authority, Scheme::Http),
                    map.find(Some(&authority), Scheme::Http).is_some(),
                    "{name} {host}"
                );
            }
        }
    }
}
