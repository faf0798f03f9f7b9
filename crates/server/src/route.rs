//! Which route of a site answers: by the canonical path (so that nothing is reached by another spelling, faults A06,
//! P16–P20), then pattern, method and host. An exact path wins over a prefix, a longer prefix over a shorter one, and among
//! equals the first written. The cost is one lookup for each segment of the path, however many routes there are.
//!
//! A prefix ends at a segment: `/img` is `/img` and everything beneath `/img/`, never `/images` (fault P20).

use crate::pattern::Pattern;
use crate::site::{FixedMap, HostPattern};
use eleven_semantics::Method;
use eleven_semantics::target::{Authority, Scheme};

/// What a request must be for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The path.
    pub path: PathMatch,
    /// What the path must fit besides.
    pub pattern: Option<Pattern>,
    /// The methods; all if empty. GET brings HEAD along.
    pub methods: Box<[Method]>,
    /// The hosts; all of the site's if empty.
    pub hosts: Box<[HostPattern]>,
}

/// What a path must be for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path and no other.
    Exact(Box<[u8]>),
    /// This path and everything beneath it. Without a slash at the end; empty for the root.
    Prefix(Box<[u8]>),
}

/// Why a path cannot be one of a route's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidRoutePath {
    /// Does not start with `/`.
    NotAbsolute,
    /// Holds `?` or `#`: routes see paths only.
    Query,
    /// `//`, `/./`, `/../` or a bad `%`: no request path has such a canonical form.
    NotCanonical,
    /// A `*`: a prefix needs none.
    Star,
}

impl std::fmt::Display for InvalidRoutePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            InvalidRoutePath::NotAbsolute => "a path starts with `/`",
            InvalidRoutePath::Query => "a route looks at the path only, not at a query",
            InvalidRoutePath::NotCanonical => {
                "no request could match: paths are compared decoded, without empty or dot segments"
            }
            InvalidRoutePath::Star => "`*` has no meaning here: a path covers everything beneath it",
        })
    }
}

impl PathMatch {
    fn read(text: &str) -> Result<Vec<u8>, InvalidRoutePath> {
        if !text.starts_with('/') {
            return Err(InvalidRoutePath::NotAbsolute);
        }
        if text.contains(['?', '#']) {
            return Err(InvalidRoutePath::Query);
        }
        if text.contains('*') {
            return Err(InvalidRoutePath::Star);
        }
        // What is written may be encoded or not, but it must be what requests are turned into.
        let canonical = eleven_semantics::target::canonical_path(text.as_bytes())
            .map_err(|_| InvalidRoutePath::NotCanonical)?;
        let decoded = eleven_semantics::target::percent_decode(text.as_bytes());
        if canonical == decoded { Ok(canonical) } else { Err(InvalidRoutePath::NotCanonical) }
    }

    /// A prefix, with or without a slash at its end.
    ///
    /// # Errors
    /// If no request could match.
    pub fn prefix(text: &str) -> Result<PathMatch, InvalidRoutePath> {
        let mut path = PathMatch::read(text)?;
        if path.last() == Some(&b'/') {
            path.pop();
        }
        Ok(PathMatch::Prefix(path.into()))
    }

    /// An exact path.
    ///
    /// # Errors
    /// If no request could match.
    pub fn exact(text: &str) -> Result<PathMatch, InvalidRoutePath> {
        PathMatch::read(text).map(|path| PathMatch::Exact(path.into()))
    }

    /// How many octets of a path that matched belong to the prefix.
    pub fn prefix_len(&self) -> usize {
        match self {
            PathMatch::Exact(_) => 0,
            PathMatch::Prefix(prefix) => prefix.len(),
        }
    }
}

impl std::fmt::Display for PathMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PathMatch::Exact(path) => f.write_str(&String::from_utf8_lossy(path)),
            PathMatch::Prefix(path) => write!(f, "{}/", String::from_utf8_lossy(path)),
        }
    }
}

impl Match {
    fn method(&self, method: &Method) -> bool {
        self.methods.is_empty()
            || self.methods.contains(method)
            || (*method == Method::Head && self.methods.contains(&Method::Get))
    }

    fn host(&self, authority: Option<&Authority<'_>>, scheme: Scheme) -> bool {
        self.hosts.is_empty()
            || authority
                .is_some_and(|authority| self.hosts.iter().any(|host| host.matches(authority, scheme)))
    }
}

/// The routes of one site; `R` is what stands for a route.
#[derive(Debug, Clone)]
pub struct RouteMap<R> {
    routes: Vec<(Match, R)>,
    exact: FixedMap<Vec<u32>>,
    prefixes: FixedMap<Vec<u32>>,
    longest_prefix: usize,
}

impl<R> Default for RouteMap<R> {
    fn default() -> Self {
        RouteMap {
            routes: Vec::new(),
            exact: FixedMap::default(),
            prefixes: FixedMap::default(),
            longest_prefix: 0,
        }
    }
}

/// What was found for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Routed<'a, R> {
    /// A route.
    Route(&'a Match, &'a R),
    /// Routes have the path, none has the method: 405 with these in Allow (9110-10.2.1-01).
    MethodNotAllowed(Vec<Method>),
    /// No route has the path: 404.
    NotFound,
}

impl<R> RouteMap<R> {
    /// Adds a route after all others.
    pub fn push(&mut self, condition: Match, route: R) {
        let index = self.routes.len() as u32;
        match &condition.path {
            PathMatch::Exact(path) => self.exact.entry(path.clone()).or_default().push(index),
            PathMatch::Prefix(path) => {
                self.longest_prefix = self.longest_prefix.max(path.len());
                self.prefixes.entry(path.clone()).or_default().push(index);
            }
        }
        self.routes.push((condition, route));
    }

    /// All routes as they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&Match, &R)> {
        self.routes.iter().map(|(condition, route)| (condition, route))
    }

    /// The route for a canonical path, a method and an authority.
    #[inline]
    pub fn find(
        &self,
        path: &[u8],
        method: &Method,
        authority: Option<&Authority<'_>>,
        scheme: Scheme,
    ) -> Routed<'_, R> {
        let mut allow = Vec::new();
        let mut pick = |indexes: &[u32]| {
            indexes.iter().map(|&index| &self.routes[index as usize]).find(|(condition, _)| {
                let is_meant = condition.host(authority, scheme)
                    && condition.pattern.as_ref().is_none_or(|pattern| pattern.fits(path));
                if !is_meant {
                    return false;
                }
                let fits = condition.method(method);
                if !fits {
                    allow.extend(condition.methods.iter().cloned());
                }
                fits
            })
        };
        if let Some((condition, route)) = self.exact.get(path).and_then(|indexes| pick(indexes)) {
            return Routed::Route(condition, route);
        }
        let mut prefix = path.strip_suffix(b"/").unwrap_or(path);
        loop {
            if prefix.len() <= self.longest_prefix
                && let Some((condition, route)) = self.prefixes.get(prefix).and_then(|indexes| pick(indexes))
            {
                return Routed::Route(condition, route);
            }
            match memchr::memrchr(b'/', prefix) {
                Some(slash) => prefix = &prefix[..slash],
                None => break,
            }
        }
        if allow.is_empty() {
            return Routed::NotFound;
        }
        if allow.contains(&Method::Get) {
            allow.push(Method::Head);
        }
        let mut seen = Vec::with_capacity(allow.len());
        for method in allow {
            if !seen.contains(&method) {
                seen.push(method);
            }
        }
        Routed::MethodNotAllowed(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(path: PathMatch) -> Match {
        Match { path, pattern: None, methods: [].into(), hosts: [].into() }
    }

    fn map() -> RouteMap<&'static str> {
        let mut map = RouteMap::default();
        let prefix = |text| on(PathMatch::prefix(text).unwrap());
        map.push(prefix("/api/"), "api");
        map.push(prefix("/api/v2"), "api-v2");
        map.push(on(PathMatch::exact("/api/v2/health").unwrap()), "health");
        map.push(on(PathMatch::exact("/").unwrap()), "home");
        map.push(
            Match { hosts: [HostPattern::parse("beta.test").unwrap()].into(), ..prefix("/img") },
            "beta-img",
        );
        map.push(prefix("/img"), "img");
        let pattern = |text: &str| Some(Pattern::parse(text).unwrap());
        map.push(Match { pattern: pattern("^/docs/[0-9]+$"), ..prefix("/docs") }, "page of docs");
        map.push(Match { pattern: pattern(r"\.png$"), ..prefix("/") }, "png");
        map.push(Match { methods: [Method::Put, Method::Delete].into(), ..prefix("/up") }, "put");
        map.push(Match { methods: [Method::Get].into(), ..prefix("/up") }, "get");
        map.push(prefix("/a%20b"), "space");
        map
    }

    /// Faults A06, A07, P17, P20: prefixes end at segments, and the more particular route wins whatever the order.
    #[test]
    fn paths_and_their_routes() {
        let mut map = map();
        let find = |map: &RouteMap<&str>, path: &str, method: &Method, host: &str| {
            let authority = Authority::parse(host.as_bytes()).unwrap();
            match map.find(path.as_bytes(), method, Some(&authority), Scheme::Http) {
                Routed::Route(_, route) => (*route).to_owned(),
                Routed::MethodNotAllowed(allow) => {
                    format!("405 {}", allow.iter().map(Method::as_str).collect::<Vec<_>>().join(","))
                }
                Routed::NotFound => "404".to_owned(),
            }
        };
        for (path, expected) in [
            ("/", "home"),
            ("/api", "api"),
            ("/api/", "api"),
            ("/api/x", "api"),
            ("/apix", "404"),
            ("/API/x", "404"),
            ("/api/v2", "api-v2"),
            ("/api/v2/", "api-v2"),
            ("/api/v2/x/y", "api-v2"),
            ("/api/v20", "api"),
            ("/api/v2/health", "health"),
            ("/api/v2/health/", "api-v2"),
            ("/img/a.png", "img"),
            ("/image", "404"),
            ("/a b/c", "space"),
            ("/x", "404"),
            ("/up/f", "get"),
            // A pattern narrows its route, and does not go before one with a longer path.
            ("/docs/17", "page of docs"),
            ("/docs/17/", "404"),
            ("/docs/a.png", "png"),
            ("/a/b.png", "png"),
            ("/b.png", "png"),
            ("/api/b.png", "api"),
            ("/b.png/c", "404"),
        ] {
            assert_eq!(find(&map, path, &Method::Get, "a.test"), expected, "{path}");
        }
        assert_eq!(find(&map, "/img/x", &Method::Get, "BETA.test"), "beta-img");
        assert_eq!(find(&map, "/up/f", &Method::Head, "a.test"), "get");
        assert_eq!(find(&map, "/up/f", &Method::Put, "a.test"), "put");
        // 9110-10.2.1-01, 9110-15.5.6-01: 405 names what the resource allows.
        assert_eq!(find(&map, "/up/f", &Method::Post, "a.test"), "405 PUT,DELETE,GET,HEAD");
        // With a route for everything, a shorter prefix takes what a longer one does not.
        map.push(on(PathMatch::prefix("/").unwrap()), "rest");
        assert_eq!(find(&map, "/up/f", &Method::Post, "a.test"), "rest");
        assert_eq!(find(&map, "/x", &Method::Other("FOO".into()), "a.test"), "rest");
        assert_eq!(find(&map, "/", &Method::Get, "a.test"), "home");
    }

    #[test]
    fn paths_of_a_configuration() {
        for bad in
            ["", "img", "/a?b", "/a#b", "/a/*", "/a//b", "/a/../b", "/./a", "/%zz", "/%00", "/a%2fb", "*"]
        {
            assert!(PathMatch::prefix(bad).is_err(), "{bad}");
            assert!(PathMatch::exact(bad).is_err(), "{bad}");
        }
        assert_eq!(PathMatch::prefix("/").unwrap().to_string(), "/");
        assert_eq!(PathMatch::prefix("/a").unwrap(), PathMatch::prefix("/a/").unwrap());
        assert_ne!(PathMatch::exact("/a").unwrap(), PathMatch::exact("/a/").unwrap());
        assert_eq!(PathMatch::exact("/%C3%A9").unwrap(), PathMatch::exact("/é").unwrap());
    }
}
