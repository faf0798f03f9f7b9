//! Invalidation (RFC 9111 §4.4): which URIs a response to an unsafe request makes invalid, and which cache
//! groups (RFC 9875). What "invalid" does to a stored response is the store's business.

use super::key::Site;
use crate::fields::{Fields, Only};
use crate::grammar;
use crate::method::Method;
use crate::names::Known;
use crate::status::{Class, Status};
use crate::structured::{self, Member};
use crate::target::{Authority, Scheme};

/// Most groups of one response that count; RFC 9875 §2 wants at least 32.
pub const GROUPS_MAX: usize = 64;

/// Whether a response to this method invalidates (9111-4.4-01): the method is unsafe or unknown, and the
/// response is no error (2xx or 3xx; C24).
pub fn invalidates(method: &Method, status: Status) -> bool {
    !method.is_safe() && matches!(status.class(), Class::Successful | Class::Redirection)
}

/// The targets (path and query) on the request's own site that such a response makes invalid: the target URI
/// itself, and those of Location and Content-Location (9111-4.4-02) unless they are elsewhere (9111-4.4-03).
pub fn invalidated(site: &Site, target: &[u8], response: &Fields) -> Vec<Vec<u8>> {
    let mut targets = vec![target.to_vec()];
    for name in [Known::Location, Known::ContentLocation] {
        if let Only::One(reference) = response.only(name)
            && let Some(target) = resolve(site, target, reference)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
    }
    targets
}

/// The path and query that a URI reference names, seen from `target` on `site`; `None` if it names another
/// origin, or nothing (RFC 3986 §5.2). The fragment does not count.
pub fn resolve(site: &Site, target: &[u8], reference: &[u8]) -> Option<Vec<u8>> {
    let reference = &reference[..memchr::memchr(b'#', reference).unwrap_or(reference.len())];
    if !reference.iter().all(|&b| b > b' ' && b != 0x7f) {
        return None;
    }
    let rest = match scheme_of(reference) {
        Some((scheme, rest)) => {
            let scheme = Scheme::from_bytes(scheme)?;
            if scheme != site.scheme || !rest.starts_with(b"//") {
                return None;
            }
            rest
        }
        None => reference,
    };
    if let Some(rest) = rest.strip_prefix(b"//") {
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let authority = Authority::parse(&rest[..end]).ok()?;
        if Site::new(site.scheme, &authority) != *site {
            return None;
        }
        let tail = &rest[end..];
        return Some(if tail.starts_with(b"/") {
            without_dots(tail)
        } else {
            without_dots(&[b"/", tail].concat())
        });
    }
    let base_path = &target[..memchr::memchr(b'?', target).unwrap_or(target.len())];
    Some(match rest {
        [] => target.to_vec(),
        [b'/', ..] => without_dots(rest),
        [b'?', ..] => [base_path, rest].concat(),
        _ => {
            let directory = memchr::memrchr(b'/', base_path).map_or(0, |slash| slash + 1);
            without_dots(&[&base_path[..directory], rest].concat())
        }
    })
}

/// The scheme of an absolute reference and what follows its colon.
fn scheme_of(reference: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = reference.iter().position(|b| matches!(b, b':' | b'/' | b'?'))?;
    let scheme = &reference[..colon];
    let valid = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    (reference[colon] == b':' && valid).then_some((scheme, &reference[colon + 1..]))
}

/// `remove_dot_segments` (RFC 3986 §5.2.4) on the path of a path and query.
fn without_dots(path_and_query: &[u8]) -> Vec<u8> {
    let query_at = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(query_at);
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut parts = path.split(|&b| b == b'/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            b"." | b".." => {
                if part == b".." {
                    segments.pop();
                }
                if last {
                    segments.push(b"");
                }
            }
            part => segments.push(part),
        }
    }
    let mut out = Vec::with_capacity(path_and_query.len());
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(query);
    out
}

/// The groups that a stored response belongs to (RFC 9875 §2). A field that is not a list of strings names
/// none.
pub fn groups(response: &Fields) -> Vec<Box<str>> {
    string_list(response, Known::CacheGroups)
}

/// The groups that a response invalidates (RFC 9875 §3): none for safe methods.
pub fn invalidated_groups(method: &Method, status: Status, response: &Fields) -> Vec<Box<str>> {
    if invalidates(method, status) {
        string_list(response, Known::CacheGroupInvalidation)
    } else {
        Vec::new()
    }
}

fn string_list(fields: &Fields, name: Known) -> Vec<Box<str>> {
    let Some(value) = fields.combined(name) else { return Vec::new() };
    let Ok(list) = structured::parse_list(&value) else { return Vec::new() };
    let mut strings = Vec::new();
    for member in &list.0 {
        let Member::Item(item) = member else { return Vec::new() };
        let Some(text) = item.value.string() else { return Vec::new() };
        if strings.len() < GROUPS_MAX {
            strings.push(text.into());
        }
    }
    strings
}

/// The tags an operator may purge by: Surrogate-Key (separated by spaces), Cache-Tag (by commas), and the
/// names of Cache-Groups.
pub fn tags(response: &Fields) -> Vec<Box<str>> {
    let mut tags = groups(response);
    let mut add = |tag: &[u8]| {
        if let Ok(text) = std::str::from_utf8(tag)
            && !text.is_empty()
            && tags.len() < 4 * GROUPS_MAX
            && !tags.iter().any(|known| **known == *text)
        {
            tags.push(text.into());
        }
    };
    for line in response.all(Known::SurrogateKey) {
        line.split(|&b| grammar::is_ows(b)).for_each(&mut add);
    }
    for line in response.all("Cache-Tag") {
        grammar::list(line).for_each(&mut add);
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site { scheme: Scheme::Http, host: b"h".to_vec(), port: 80 }
    }

    /// 9111-4.4-01, C24.
    #[test]
    fn methods_and_statuses() {
        for (method, status, expected) in [
            (Method::Get, 200, false),
            (Method::Head, 200, false),
            (Method::Options, 200, false),
            (Method::Trace, 200, false),
            (Method::Post, 200, true),
            (Method::Put, 204, true),
            (Method::Delete, 303, true),
            (Method::Patch, 200, true),
            (Method::Other("M-SEARCH".into()), 200, true),
            (Method::Post, 100, false),
            (Method::Post, 400, false),
            (Method::Post, 403, false),
            (Method::Post, 500, false),
        ] {
            assert_eq!(invalidates(&method, Status::new(status).unwrap()), expected, "{method} {status}");
        }
    }

    /// 9111-4.4-02, 9111-4.4-03, RFC 3986 §5.4.
    #[test]
    fn references() {
        for (reference, expected) in [
            ("", Some("/a/b?q")),
            ("#f", Some("/a/b?q")),
            ("c", Some("/a/c")),
            ("./c", Some("/a/c")),
            ("../c", Some("/c")),
            ("../../../c", Some("/c")),
            ("?x", Some("/a/b?x")),
            ("/x/./y/../z?w#f", Some("/x/z?w")),
            ("/x/..", Some("/")),
            ("/x/.", Some("/x/")),
            ("/", Some("/")),
            ("//h/x", Some("/x")),
            ("//H:80/x", Some("/x")),
            ("http://h/x?y", Some("/x?y")),
            ("HTTP://h", Some("/")),
            ("http://h?y", Some("/?y")),
            ("http://h.:80/x", Some("/x")),
            ("http://h:81/x", None),
            ("https://h/x", None),
            ("http://other/x", None),
            ("//other/x", None),
            ("http://u@h/x", None),
            ("http:x", None),
            ("mailto:x@h", None),
            ("javascript:alert(1)", None),
            ("/a b", None),
            ("/a\u{7f}b", None),
            ("//[::1", None),
            ("c:d/e", None),
            ("./c:d", Some("/a/c:d")),
        ] {
            let got = resolve(&site(), b"/a/b?q", reference.as_bytes());
            assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{reference}");
        }
    }

    #[test]
    fn targets() {
        let check = |pairs: &[(&str, &str)]| {
            invalidated(&site(), b"/form", &pairs.iter().collect())
                .into_iter()
                .map(|t| String::from_utf8(t).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(check(&[]), ["/form"]);
        assert_eq!(check(&[("Location", "/a"), ("Content-Location", "b")]), ["/form", "/a", "/b"]);
        assert_eq!(check(&[("Location", "/form"), ("Content-Location", "http://evil/x")]), ["/form"]);
        assert_eq!(check(&[("Location", "/a"), ("Location", "/b")]), ["/form"]);
    }

    /// RFC 9875 §2, §3.
    #[test]
    fn cache_groups() {
        let list = |text: &str| groups(&[("Cache-Groups", text)].iter().collect());
        let names = |names: &[&str]| names.iter().map(|n| Box::from(*n)).collect::<Vec<Box<str>>>();
        assert_eq!(list("\"a\";x=1, \"B b\""), names(&["a", "B b"]));
        for bad in ["", "a", "\"a\", b", "\"a\"; \"b\"", "(\"a\")", "\"a\",", "1"] {
            assert_eq!(list(bad), names(&[]), "{bad}");
        }
        let long = "x".repeat(40);
        let many: Vec<String> = (0..32).map(|i| format!("\"{long}{i}\"")).collect();
        assert_eq!(list(&many.join(", ")).len(), 32);

        let fields: Fields = [("Cache-Group-Invalidation", "\"a\"")].iter().collect();
        let by = |method, status| invalidated_groups(&method, Status::new(status).unwrap(), &fields).len();
        assert_eq!((by(Method::Post, 200), by(Method::Get, 200), by(Method::Post, 500)), (1, 0, 0));
    }

    #[test]
    fn purge_tags() {
        let fields: Fields =
            [("Surrogate-Key", "a  b"), ("Cache-Tag", "c, b,d e"), ("Cache-Groups", "\"g\"")]
                .iter()
                .collect();
        assert_eq!(tags(&fields), ["g", "a", "b", "c", "d e"].map(Box::from));
    }
}
