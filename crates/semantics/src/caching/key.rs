//! Cache keys (RFC 9111 §2) and their extension by Vary (§4.1): under which octets a response is found again,
//! and whether a stored one was selected by the same request fields.
//!
//! The key is length-prefixed, so no two requests share one by running parts together (C05), and always holds
//! scheme, host and port (C04). What is forwarded is the target that was keyed ([`KeyRules::target`], C06).

use crate::fields::Fields;
use crate::grammar;
use crate::names::Known;
use crate::target::Scheme;
use std::borrow::Cow;

/// Most field names that Vary may nominate; a response with more is not stored.
pub const VARY_NAMES_MAX: usize = 32;

/// Request fields by which applications and frameworks let a request stand for another one: another host, another
/// path, another method. None of them is in a key, so whoever sends one could have the answer to that other request
/// stored for everybody (C01, C14). What a gateway says of its client is not among them: it writes that itself.
const OVERRIDES: [&str; 14] = [
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-Host",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Forwarded-Host",
    "X-Forwarded-Server",
    "X-Forwarded-Port",
    "X-Forwarded-Scheme",
    "X-Forwarded-Prefix",
    "X-Forwarded-Path",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
];

/// Where a site is: the origin of RFC 9110 §4.3.1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Site {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its host, canonical (lower case, no final dot).
    pub host: Vec<u8>,
    /// Its port, the scheme's own if none was written.
    pub port: u16,
}

impl Site {
    /// The site of an authority.
    pub fn new(scheme: Scheme, authority: &crate::target::Authority<'_>) -> Site {
        let port = authority.port.unwrap_or_else(|| scheme.default_port());
        Site { scheme, host: authority.canonical_host(), port }
    }
}

/// What an operator may change about keys.
#[derive(Debug, Clone, Default)]
pub struct KeyRules {
    /// Sort the parameters of the query by name, so that their order does not matter.
    pub sort_query: bool,
    /// Parameters that are removed, from the key and from what is forwarded; a final `*` matches any ending.
    pub ignore_parameters: Vec<Box<str>>,
    /// Request fields that are part of the key, beside those that Vary nominates.
    pub fields: Vec<Box<str>>,
    /// Cookies whose values are part of the key.
    pub cookies: Vec<Box<str>>,
    /// A name that keeps caches of different routes or tenants apart.
    pub partition: Box<str>,
}

impl KeyRules {
    /// The target as it is keyed and as it must be forwarded: path and query, without the ignored parameters.
    pub fn target<'a>(&self, path_and_query: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.sort_query && self.ignore_parameters.is_empty() {
            return Cow::Borrowed(path_and_query);
        }
        let Some(at) = memchr::memchr(b'?', path_and_query) else { return Cow::Borrowed(path_and_query) };
        let (path, query) = (&path_and_query[..at], &path_and_query[at + 1..]);
        let mut parameters: Vec<&[u8]> = query.split(|&b| b == b'&').filter(|p| !self.ignores(p)).collect();
        if self.sort_query {
            // Stable, by name only: the order of values of one name may matter to the application.
            parameters.sort_by(|a, b| parameter_name(a).cmp(parameter_name(b)));
        }
        let mut target = path.to_vec();
        if !parameters.is_empty() {
            target.push(b'?');
            target.extend_from_slice(&parameters.join(&b'&'));
        }
        Cow::Owned(target)
    }

    fn ignores(&self, parameter: &[u8]) -> bool {
        let name = parameter_name(parameter);
        self.ignore_parameters.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start.as_bytes()),
            None => name == pattern.as_bytes(),
        })
    }

    /// The fields of a request as a shared cache may send them inbound: without those that make it stand for another
    /// request, unless they are part of the key. `None` if there are none of them.
    pub fn without_overrides(&self, request: &Fields) -> Option<Fields> {
        let is_override = |name: &[u8]| {
            name.first().is_some_and(|first| first.eq_ignore_ascii_case(&b'x'))
                && OVERRIDES.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
                && !self.fields.iter().any(|keyed| name.eq_ignore_ascii_case(keyed.as_bytes()))
        };
        if !request.iter().any(|field| is_override(field.name)) {
            return None;
        }
        let mut fields = request.clone();
        fields.retain(|field| !is_override(field.name));
        Some(fields)
    }

    /// Writes the primary key into `out`. `target` comes from [`KeyRules::target`].
    #[inline]
    pub fn write_key(&self, out: &mut Vec<u8>, site: &Site, target: &[u8], request: &Fields) {
        out.clear();
        write_uri(out, &self.partition, site, target);
        if !self.fields.is_empty() || !self.cookies.is_empty() {
            self.write_extra(out, request);
        }
    }

    #[cold]
    fn write_extra(&self, out: &mut Vec<u8>, request: &Fields) {
        for name in &self.fields {
            write_part(out, name.as_bytes());
            write_selecting(out, name.as_bytes(), request);
        }
        for name in &self.cookies {
            write_part(out, name.as_bytes());
            for value in cookie_values(request, name.as_bytes()) {
                out.push(1);
                write_part(out, value);
            }
            out.push(0);
        }
    }
}

/// Writes the part of a key that names the URI: the same for every request for it, whatever its fields, so
/// that invalidation finds all of them by this beginning.
pub fn write_uri(out: &mut Vec<u8>, partition: &str, site: &Site, target: &[u8]) {
    write_part(out, partition.as_bytes());
    write_site(out, site);
    write_part(out, target);
}

/// Writes scheme, host and port.
pub fn write_site(out: &mut Vec<u8>, site: &Site) {
    out.push(match site.scheme {
        Scheme::Http => 1,
        Scheme::Https => 2,
    });
    write_part(out, &site.host);
    out.extend_from_slice(&site.port.to_be_bytes());
}

fn write_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_be_bytes());
    out.extend_from_slice(part);
}

/// Reads back what [`write_uri`] wrote: partition, site and target. `None` if `key` is not one.
pub fn read_uri(key: &[u8]) -> Option<(&str, Site, &[u8])> {
    let (partition, rest) = read_part(key)?;
    let (scheme, rest) = match rest {
        [1, rest @ ..] => (Scheme::Http, rest),
        [2, rest @ ..] => (Scheme::Https, rest),
        _ => return None,
    };
    let (host, rest) = read_part(rest)?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let (target, _) = read_part(rest)?;
    let site = Site { scheme, host: host.to_vec(), port: u16::from_be_bytes(*port) };
    Some((std::str::from_utf8(partition).ok()?, site, target))
}

fn read_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

fn parameter_name(parameter: &[u8]) -> &[u8] {
    &parameter[..memchr::memchr(b'=', parameter).unwrap_or(parameter.len())]
}

fn cookie_values<'a>(request: &'a Fields, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    request.all(Known::Cookie).flat_map(|line| line.split(|&b| b == b';')).filter_map(move |pair| {
        let pair = grammar::trim_ows(pair);
        let at = memchr::memchr(b'=', pair)?;
        (&pair[..at] == name).then_some(&pair[at + 1..])
    })
}

/// What Vary nominates (RFC 9110 §12.5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// A `*` among the members: no request matches (9111-4.1-R1).
    Any,
    /// More than [`VARY_NAMES_MAX`] names.
    TooLong,
    /// These fields, in lower case, sorted, each once. Empty: every request matches.
    Names(Vec<Box<[u8]>>),
}

/// Reads Vary over all of its lines. A member that is no token counts as `*`: nobody knows what it means.
pub fn nominated(response: &Fields) -> Vary {
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for member in response.list(Known::Vary) {
        if member == b"*" || !grammar::is_token(member) {
            return Vary::Any;
        }
        let name = member.to_ascii_lowercase().into_boxed_slice();
        if let Err(at) = names.binary_search(&name) {
            if names.len() == VARY_NAMES_MAX {
                return Vary::TooLong;
            }
            names.insert(at, name);
        }
    }
    Vary::Names(names)
}

/// Writes what these nominated fields of a request come to, normalised, into `out`. Two requests select the
/// same response if and only if this is equal (9111-4-01c, 9111-4.1-R2).
pub fn write_variant(out: &mut Vec<u8>, names: &[Box<[u8]>], request: &Fields) {
    out.clear();
    for name in names {
        write_part(out, name);
        write_selecting(out, name, request);
    }
}

/// One field of a request as a selecting field: absent, or its value with what does not matter removed.
fn write_selecting(out: &mut Vec<u8>, name: &[u8], request: &Fields) {
    if !request.contains(name) {
        // 9111-4.1-R2: absent matches absent only.
        out.push(0);
        return;
    }
    out.push(1);
    let known = Known::lookup(name);
    match known {
        Some(Known::AcceptEncoding) => write_part(out, &accept_encoding(request)),
        Some(Known::AcceptLanguage) => write_part(out, &accept_language(request)),
        // One value whose commas and spaces mean something: compared as it is.
        Some(known) if known.is_singleton() || known == Known::Cookie => {
            for value in request.all(known) {
                write_part(out, value);
            }
            out.push(0);
        }
        _ => write_part(out, &as_list(request, name)),
    }
}

/// All lines joined, white space around commas removed; empty members stay.
fn as_list(request: &Fields, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, line) in request.all(name).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        let mut rest = line;
        loop {
            let end = grammar::unquoted(rest, b',');
            out.extend_from_slice(grammar::trim_ows(&rest[..end]));
            let Some(tail) = rest.get(end + 1..) else { break };
            out.push(b',');
            rest = tail;
        }
    }
    out
}

/// A member of a weighted list: its text in lower case, and its weight in thousandths. `None` if malformed.
fn weighted(member: &[u8]) -> Option<(Vec<u8>, u16)> {
    let mut parts = grammar::semicolons(member);
    let text = parts.next().filter(|text| grammar::is_token(text))?.to_ascii_lowercase();
    let weight = match parts.next() {
        None => 1000,
        Some(part) => {
            let value = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="))?;
            thousandths(value)?
        }
    };
    parts.next().is_none().then_some((text, weight))
}

/// `qvalue` (RFC 9110 §12.4.2).
fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, fraction) = match value {
        [whole @ (b'0' | b'1')] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return None,
    };
    let mut n = u16::from(whole - b'0');
    for i in 0..3 {
        let digit = fraction.get(i).copied().unwrap_or(b'0');
        n = n * 10 + u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (n <= 1000).then_some(n)
}

/// The members of a weighted list, best first, equal ones by name: their order carries no meaning (RFC 9110
/// §12.5.4). `None` if any is malformed.
fn by_weight(request: &Fields, name: Known) -> Option<Vec<(Vec<u8>, u16)>> {
    let mut members = request.list(name).map(weighted).collect::<Option<Vec<_>>>()?;
    members.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    members.dedup();
    Some(members)
}

fn join_weighted(members: &[(Vec<u8>, u16)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, (text, weight)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(text);
        if *weight != 1000 {
            out.push(b';');
            grammar::push_decimal(&mut out, u64::from(*weight));
        }
    }
    out
}

fn accept_language(request: &Fields) -> Vec<u8> {
    match by_weight(request, Known::AcceptLanguage) {
        Some(members) => join_weighted(&members),
        None => as_list(request, Known::AcceptLanguage.name().as_bytes()),
    }
}

/// Codings that nobody serves are left out, so that inventing one does not evict everybody's copy (C17).
fn accept_encoding(request: &Fields) -> Vec<u8> {
    const SERVED: [&[u8]; 7] = [b"gzip", b"br", b"zstd", b"deflate", b"identity", b"*", b"dcz"];
    match by_weight(request, Known::AcceptEncoding) {
        Some(mut members) => {
            for member in &mut members {
                if member.0 == b"x-gzip" {
                    member.0 = b"gzip".to_vec();
                }
            }
            members.retain(|(text, _)| SERVED.contains(&&text[..]));
            members.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            members.dedup();
            join_weighted(&members)
        }
        None => as_list(request, Known::AcceptEncoding.name().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Authority;

    fn site(scheme: Scheme, authority: &str) -> Site {
        Site::new(scheme, &Authority::parse(authority.as_bytes()).unwrap())
    }

    fn key(
        rules: &KeyRules,
        scheme: Scheme,
        authority: &str,
        target: &str,
        request: &[(&str, &str)],
    ) -> Vec<u8> {
        let mut out = vec![9; 3];
        let target = rules.target(target.as_bytes());
        rules.write_key(&mut out, &site(scheme, authority), &target, &request.iter().collect());
        out
    }

    /// 9111-4-01a, C02, C04, C05, C06.
    #[test]
    fn primary_keys() {
        let rules = KeyRules::default();
        let base = key(&rules, Scheme::Http, "h", "/a?b", &[]);
        for (scheme, authority, target, same) in [
            (Scheme::Http, "H:80", "/a?b", true),
            (Scheme::Http, "h.", "/a?b", true),
            (Scheme::Https, "h", "/a?b", false),
            (Scheme::Http, "h:81", "/a?b", false),
            (Scheme::Http, "h2", "/a?b", false),
            (Scheme::Http, "h", "/a?b=", false),
            (Scheme::Http, "h", "/a?", false),
            (Scheme::Http, "h", "/a", false),
            (Scheme::Http, "h", "/A?b", false),
            (Scheme::Http, "h", "/%61?b", false),
            (Scheme::Http, "h", "//a?b", false),
            (Scheme::Http, "h", "/a?b;c", false),
        ] {
            assert_eq!(key(&rules, scheme, authority, target, &[]) == base, same, "{authority} {target}");
        }
        // Parts do not run into each other.
        let tenant = |name: &str| KeyRules { partition: name.into(), ..KeyRules::default() };
        assert_ne!(
            key(&tenant("ab"), Scheme::Http, "c", "/", &[]),
            key(&tenant("a"), Scheme::Http, "bc", "/", &[])
        );
        // The beginning that names the URI is shared by all keys of it.
        let keyed = KeyRules { fields: vec!["X-Tenant".into()], ..KeyRules::default() };
        let mut uri = Vec::new();
        write_uri(&mut uri, "", &site(Scheme::Http, "h"), b"/a?b");
        let full = key(&keyed, Scheme::Http, "h", "/a?b", &[("X-Tenant", "1")]);
        assert!(full.starts_with(&uri));
        for whole in [&full, &uri] {
            assert_eq!(read_uri(whole), Some(("", site(Scheme::Http, "h"), &b"/a?b"[..])));
        }
        for cut in 0..uri.len() {
            assert_eq!(read_uri(&uri[..cut]), None);
        }
    }

    /// C01: fields and cookies that were made part of the key are.
    #[test]
    fn extra_key_parts() {
        let rules =
            KeyRules { fields: vec!["X-Tenant".into()], cookies: vec!["lang".into()], ..KeyRules::default() };
        let key = |request: &[(&str, &str)]| key(&rules, Scheme::Http, "h", "/", request);
        assert_ne!(key(&[]), key(&[("X-Tenant", "")]));
        assert_ne!(key(&[("X-Tenant", "1")]), key(&[("X-Tenant", "2")]));
        assert_ne!(key(&[("Cookie", "lang=de")]), key(&[("Cookie", "lang=en")]));
        assert_eq!(key(&[("Cookie", "a=1; lang=de")]), key(&[("Cookie", "lang=de; b=2")]));
        assert_ne!(key(&[("Cookie", "xlang=de")]), key(&[("Cookie", "lang=de")]));
    }

    /// C01, C14: what makes a request stand for another one is in the key or does not go inbound.
    #[test]
    fn overrides() {
        let kept = |rules: &KeyRules, fields: &[(&str, &str)]| {
            let fields: Fields = fields.iter().collect();
            rules.without_overrides(&fields).map(|left| {
                left.iter().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect::<Vec<_>>()
            })
        };
        let plain = KeyRules::default();
        for name in OVERRIDES {
            assert_eq!(kept(&plain, &[("A", "1"), (name, "x"), ("B", "2")]).unwrap(), ["A", "B"], "{name}");
            assert_eq!(kept(&plain, &[(&name.to_lowercase(), "x"), (name, "y")]).unwrap(), [""; 0]);
            let keyed = KeyRules { fields: vec![name.into()], ..KeyRules::default() };
            assert_eq!(kept(&keyed, &[(name, "x")]), None);
        }
        for name in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Requested-With", "Forwarded", "X", "Host"] {
            assert_eq!(kept(&plain, &[(name, "x")]), None, "{name}");
        }
    }

    #[test]
    fn queries() {
        let rules = KeyRules {
            sort_query: true,
            ignore_parameters: vec!["utm_*".into(), "fbclid".into()],
            ..KeyRules::default()
        };
        for (target, expected) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?b=2&a=1", "/a?a=1&b=2"),
            ("/a?b=2&a=1&b=1", "/a?a=1&b=2&b=1"),
            ("/a?utm_source=x", "/a"),
            ("/a?utm_source=x&c=1", "/a?c=1"),
            ("/a?fbclid=1&fbclid2=1", "/a?fbclid2=1"),
            // C02: a semicolon is no separator, so nothing hides behind an ignored parameter's name.
            ("/a?c=1;utm_source=x", "/a?c=1;utm_source=x"),
            ("/a?UTM_source=x", "/a?UTM_source=x"),
        ] {
            assert_eq!(rules.target(target.as_bytes()), expected.as_bytes(), "{target}");
        }
    }

    fn vary(lines: &[&str]) -> Vary {
        nominated(&lines.iter().map(|line| ("Vary", *line)).collect::<Vec<_>>().iter().collect())
    }

    /// 9111-4.1-R1: `*` anywhere never matches.
    #[test]
    fn vary_lists() {
        let names = |names: &[&str]| Vary::Names(names.iter().map(|n| n.as_bytes().into()).collect());
        for (lines, expected) in [
            (&[][..], names(&[])),
            (&[""], names(&[])),
            (&["Foo"], names(&["foo"])),
            (&["Foo, bar ,, FOO"], names(&["bar", "foo"])),
            (&["Foo", "Bar"], names(&["bar", "foo"])),
            (&["*"], Vary::Any),
            (&["*, *"], Vary::Any),
            (&["*", "*"], Vary::Any),
            (&[", *"], Vary::Any),
            (&["", "*"], Vary::Any),
            (&["*, Foo"], Vary::Any),
            (&["Foo, *"], Vary::Any),
            (&["Foo bar"], Vary::Any),
            (&["\"foo\""], Vary::Any),
        ] {
            assert_eq!(vary(lines), expected, "{lines:?}");
        }
        let many: Vec<String> = (0..=VARY_NAMES_MAX).map(|i| format!("a{i}")).collect();
        assert_eq!(vary(&[&many.join(",")]), Vary::TooLong);
        assert!(matches!(vary(&[&many[1..].join(",")]), Vary::Names(names) if names.len() == VARY_NAMES_MAX));
    }

    /// 9111-4-01c, 9111-4.1-01, 9111-4.1-R2, C17, C22.
    #[test]
    fn selecting_fields() {
        let select = |names: &[&str], request: &[(&str, &str)]| {
            let names: Vec<Box<[u8]>> = names.iter().map(|n| n.as_bytes().into()).collect();
            let mut out = Vec::new();
            write_variant(&mut out, &names, &request.iter().collect());
            out
        };
        for (names, a, b, same) in [
            (&["foo"][..], &[("Foo", "1")][..], &[("foo", "1")][..], true),
            (&["foo"], &[("Foo", "1")], &[("Foo", "2")], false),
            (&["foo"], &[("Foo", "1")], &[], false),
            (&["foo"], &[("Foo", "")], &[], false),
            (&["foo"], &[], &[], true),
            (&["foo"], &[("Foo", "1"), ("Other", "2")], &[("Foo", "1"), ("Other", "3")], true),
            (&["foo"], &[("Foo", "1, 2")], &[("Foo", "1"), ("Foo", "2")], true),
            (&["foo"], &[("Foo", "1,2")], &[("Foo", "1 ,\t2")], true),
            (&["foo"], &[("Foo", "1,2")], &[("Foo", "2,1")], false),
            (&["foo"], &[("Foo", "1,2")], &[("Foo", "1,,2")], false),
            (&["foo"], &[("Foo", "\"1, 2\"")], &[("Foo", "\"1,2\"")], false),
            (&["foo"], &[("Foo", "a")], &[("Foo", "A")], false),
            (&["bar", "foo"], &[("Foo", "1"), ("Bar", "abc")], &[("Bar", "abc"), ("Foo", "1")], true),
            (&["bar", "foo"], &[("Foo", "1")], &[("Bar", "1")], false),
            (&["bar", "foo"], &[("Foo", "1")], &[], false),
            (&["user-agent"], &[("User-Agent", "a, b")], &[("User-Agent", "a,b")], false),
            (&["cookie"], &[("Cookie", "a=1; b=2")], &[("Cookie", "a=1;b=2")], false),
            (&["origin"], &[("Origin", "https://a")], &[("Origin", "https://b")], false),
            (&["accept-language"], &[("Accept-Language", "en, de")], &[("Accept-Language", "de, en")], true),
            (&["accept-language"], &[("Accept-Language", "en, de")], &[("Accept-Language", "eN,  De")], true),
            (
                &["accept-language"],
                &[("Accept-Language", "en;q=0.5, de")],
                &[("Accept-Language", "de, en;q=0.500")],
                true,
            ),
            (
                &["accept-language"],
                &[("Accept-Language", "en;q=0.5, de")],
                &[("Accept-Language", "de;q=0.5, en")],
                false,
            ),
            (
                &["accept-language"],
                &[("Accept-Language", "en, de")],
                &[("Accept-Language", "fr;q=0.5, de;q=1.0")],
                false,
            ),
            (&["accept-language"], &[("Accept-Language", "en;q=2")], &[("Accept-Language", "en")], false),
            (
                &["accept-encoding"],
                &[("Accept-Encoding", "gzip, br")],
                &[("Accept-Encoding", "BR,x-gzip, exotic")],
                true,
            ),
            (&["accept-encoding"], &[("Accept-Encoding", "gzip")], &[("Accept-Encoding", "gzip;q=0")], false),
            (&["accept-encoding"], &[("Accept-Encoding", "exotic")], &[], false),
            (
                &["accept-encoding"],
                &[("Accept-Encoding", "gzip \u{80}")],
                &[("Accept-Encoding", "gzip")],
                false,
            ),
        ] {
            assert_eq!(select(names, a) == select(names, b), same, "{names:?} {a:?} {b:?}");
        }
    }
}
