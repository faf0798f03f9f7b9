//! Following a redirection (RFC 9110 §15.4): where to, with which method, content and fields, and when not.
//!
//! One [`Chain`] lives as long as one user request. It never regains what it once dropped (fault K06), because
//! fields are removed from the very section that is sent next. Does not send anything.

use crate::fields::{Fields, Only};
use crate::method::Method;
use crate::names::Known;
use crate::status::Status;
use crate::uri::{InvalidUri, Uri};

/// Redirections followed before giving up (fault K01).
pub const REDIRECTS_MAX: usize = 20;

/// Longest Location that is read, in octets (fault K11).
pub const LOCATION_BYTES_MAX: usize = 8 * 1024;

/// What to do with a redirection from https to http (fault K03).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Downgrade {
    /// Stop there.
    #[default]
    Refuse,
    /// Follow.
    Allow,
}

/// The next request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it goes.
    pub uri: Uri,
    /// With which method.
    pub method: Method,
    /// Whether the content goes with it.
    pub content: Content,
    /// Whether credentials, cookies and other secrets may go with it.
    pub origin: Origin,
}

/// What happens to the content of a request that is redirected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Sent again, unchanged.
    Keep,
    /// Left out, and the fields that describe it (9110-15.4-02e).
    Drop,
}

/// Where a redirection leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// To the same scheme, host and port.
    Same,
    /// To another one.
    Other,
}

/// Why a response is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFollowed {
    /// Not 301, 302, 303, 307 or 308: nothing to follow automatically.
    NotARedirect,
    /// No Location: the response is shown as it is.
    NoLocation,
    /// Several Location lines: nobody knows which one is meant.
    SeveralLocations,
    /// Location longer than [`LOCATION_BYTES_MAX`].
    LocationTooLong,
    /// Location is no http(s) URI reference.
    InvalidLocation(InvalidUri),
    /// Location carries user information.
    Userinfo,
    /// From https to http.
    Downgrade,
    /// The same request was made before in this chain, and nothing changed since.
    Loop,
    /// More than the chain's limit.
    TooMany,
}

impl NotFollowed {
    /// Whether the response is an ordinary final response. Otherwise following failed, and that is an error.
    pub fn is_final(self) -> bool {
        matches!(self, NotFollowed::NotARedirect | NotFollowed::NoLocation)
    }
}

impl std::fmt::Display for NotFollowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotFollowed::NotARedirect => f.write_str("the response is no redirection"),
            NotFollowed::NoLocation => f.write_str("the redirection has no Location"),
            NotFollowed::SeveralLocations => f.write_str("the redirection has several Location fields"),
            NotFollowed::LocationTooLong => write!(f, "Location is longer than {LOCATION_BYTES_MAX} octets"),
            NotFollowed::InvalidLocation(why) => write!(f, "Location cannot be followed: {why}"),
            NotFollowed::Userinfo => f.write_str("Location carries user information"),
            NotFollowed::Downgrade => f.write_str("the redirection leads from https to http"),
            NotFollowed::Loop => f.write_str("the redirections go round in a circle"),
            NotFollowed::TooMany => f.write_str("too many redirections"),
        }
    }
}

/// The requests of one chain of redirections.
#[derive(Debug, Clone)]
pub struct Chain {
    visited: Vec<(Method, String, u64)>,
    redirects_max: usize,
    downgrade: Downgrade,
}

impl Chain {
    /// A chain that follows at most `redirects_max` times.
    pub fn new(redirects_max: usize, downgrade: Downgrade) -> Chain {
        Chain { visited: Vec::new(), redirects_max, downgrade }
    }

    /// How many redirections were followed.
    pub fn followed(&self) -> usize {
        self.visited.len()
    }

    /// Decides over the response to `method` at `uri`. `generations` are any numbers that change when the user
    /// agent's state does (a cookie was stored): the one when the request was sent, and the one now. The same
    /// request in another state is no loop.
    ///
    /// # Errors
    /// Why the response is not followed.
    pub fn follow(
        &mut self,
        method: &Method,
        uri: &Uri,
        status: Status,
        fields: &Fields,
        generations: (u64, u64),
    ) -> Result<Step, NotFollowed> {
        if !matches!(status.code(), 301 | 302 | 303 | 307 | 308) {
            return Err(NotFollowed::NotARedirect);
        }
        let location = match fields.only(Known::Location) {
            Only::Absent => return Err(NotFollowed::NoLocation),
            Only::Several => return Err(NotFollowed::SeveralLocations),
            Only::One(location) => location,
        };
        if location.len() > LOCATION_BYTES_MAX {
            return Err(NotFollowed::LocationTooLong);
        }
        let (to, userinfo) = uri.resolve(location).map_err(NotFollowed::InvalidLocation)?;
        // Credentials come from the user and not from a server, on the same origin as well (fault K11).
        if userinfo.is_some() {
            return Err(NotFollowed::Userinfo);
        }
        if uri.is_secure() && !to.is_secure() && self.downgrade == Downgrade::Refuse {
            return Err(NotFollowed::Downgrade);
        }
        if self.visited.len() >= self.redirects_max {
            return Err(NotFollowed::TooMany);
        }
        let (next, content) = method_after(status, method);
        let here = (method.clone(), uri.without_fragment(), generations.0);
        let there = (next.clone(), to.without_fragment(), generations.1);
        if here == there || self.visited.contains(&there) {
            return Err(NotFollowed::Loop);
        }
        self.visited.push(here);
        let origin = if uri.same_origin(&to) { Origin::Same } else { Origin::Other };
        Ok(Step { uri: to, method: next, content, origin })
    }
}

/// The method of the redirected request, and whether content goes with it (fault K10).
///
/// 303 always means GET, or HEAD for HEAD (9110-15.4.4-R1). 301 and 302 turn POST into GET, as everybody does
/// (9110-15.4.2-03, 9110-15.4.3-03), and leave other methods alone. 307 and 308 never change it
/// (9110-15.4.8-01, 9110-15.4.9-02).
pub fn method_after(status: Status, method: &Method) -> (Method, Content) {
    match (status.code(), method) {
        (303, Method::Head) => (Method::Head, Content::Drop),
        (303, _) | (301 | 302, Method::Post) => (Method::Get, Content::Drop),
        _ => (method.clone(), Content::Keep),
    }
}

/// Takes out of the request's fields what must not or should not go to the next target
/// (9110-15.4-02b to -02e, 9110-17.13-R1; faults K04, K05).
///
/// Fields of the connection, and what was generated for the former target (Host, Referer, Origin, conditions),
/// always go. Credentials go when the origin changes. Range and If-Range stay: they guard themselves.
pub fn rewrite_fields(fields: &mut Fields, step: &Step) {
    fields.retain(|field| {
        let Some(known) = field.known else {
            return step.origin == Origin::Same || !is_sensitive_name(field.name);
        };
        if known.is_hop_by_hop() {
            // TE is no secret and is this agent's own wish; it is generated anew with its Connection option.
            return false;
        }
        match known {
            Known::Host
            | Known::Referer
            | Known::Origin
            | Known::Connection
            | Known::IfMatch
            | Known::IfNoneMatch
            | Known::IfModifiedSince
            | Known::IfUnmodifiedSince => false,
            Known::Authorization | Known::Cookie => step.origin == Origin::Same,
            Known::ContentEncoding
            | Known::ContentLanguage
            | Known::ContentLocation
            | Known::ContentType
            | Known::ContentLength
            | Known::ContentDigest
            | Known::ReprDigest
            | Known::ContentDisposition
            | Known::ContentRange
            | Known::LastModified
            | Known::ETag
            | Known::Expect
            | Known::Trailer => step.content == Content::Keep,
            _ => true,
        }
    });
}

/// Whether a field that this system does not know by meaning looks like a credential: `X-Api-Key`,
/// `X-Auth-Token`, `Private-Token` and their kin. A user who needs one at the other origin says so there.
pub fn is_sensitive_name(name: &[u8]) -> bool {
    const MARKS: [&[u8]; 8] =
        [b"auth", b"token", b"api-key", b"apikey", b"secret", b"session", b"passw", b"credential"];
    let lower = name.to_ascii_lowercase();
    lower == b"cookie2" || MARKS.iter().any(|mark| memchr::memmem::find(&lower, mark).is_some())
}

/// The value of Referer for a request to `to` that comes from `from`, or none (fault K09). Never a fragment or
/// userinfo (9110-10.1.3-01); nothing from a secure to an unsecured resource (9110-10.1.3-05); only the origin
/// across origins (9110-10.1.3-03, 9110-10.1.3-04).
pub fn referer(from: &Uri, to: &Uri) -> Option<String> {
    if from.is_secure() && !to.is_secure() {
        return None;
    }
    Some(if from.same_origin(to) {
        from.without_fragment()
    } else {
        format!("{}://{}/", from.scheme().as_str(), from.authority())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        Uri::parse(text.as_bytes()).unwrap().0
    }

    fn location(value: &str) -> Fields {
        [("Location", value)].iter().collect()
    }

    fn follow(chain: &mut Chain, from: &str, status: u16, to: &str) -> Result<Step, NotFollowed> {
        chain.follow(&Method::Get, &uri(from), Status::new(status).unwrap(), &location(to), (0, 0))
    }

    fn fresh() -> Chain {
        Chain::new(REDIRECTS_MAX, Downgrade::Refuse)
    }

    /// 9110-15.4-02d, 9110-15.4.2-03, 9110-15.4.3-03, 9110-15.4.4-R1, 9110-15.4.8-01, 9110-15.4.9-02; K10.
    #[test]
    fn methods_by_status() {
        use Content::{Drop, Keep};
        for (status, before, after, content) in [
            (301, Method::Get, Method::Get, Keep),
            (301, Method::Head, Method::Head, Keep),
            (301, Method::Post, Method::Get, Drop),
            (301, Method::Put, Method::Put, Keep),
            (301, Method::Delete, Method::Delete, Keep),
            (302, Method::Post, Method::Get, Drop),
            (302, Method::Patch, Method::Patch, Keep),
            (303, Method::Post, Method::Get, Drop),
            (303, Method::Put, Method::Get, Drop),
            (303, Method::Delete, Method::Get, Drop),
            (303, Method::Head, Method::Head, Drop),
            (303, Method::Other("X".into()), Method::Get, Drop),
            (307, Method::Post, Method::Post, Keep),
            (307, Method::Put, Method::Put, Keep),
            (308, Method::Post, Method::Post, Keep),
            (308, Method::Head, Method::Head, Keep),
        ] {
            let status = Status::new(status).unwrap();
            assert_eq!(method_after(status, &before), (after, content), "{status:?} {before}");
        }
    }

    /// 9110-15.4.1-02, 9110-15.4-01; faults K02, K03, K11, K12.
    #[test]
    fn what_is_followed_and_what_not() {
        for (from, status, to, expected) in [
            ("http://a/x", 301, "/y", "http://a/y"),
            ("http://a/x", 302, "y?z", "http://a/y?z"),
            ("http://a/x", 303, "//b/", "http://b/"),
            ("http://a/x", 307, "https://a/x", "https://a/x"),
            ("http://a/x", 308, "http://a:81/x", "http://a:81/x"),
            ("https://a/x#f", 301, "/y", "https://a/y#f"),
        ] {
            assert_eq!(follow(&mut fresh(), from, status, to).unwrap().uri.to_string(), expected);
        }
        for (from, status, to, expected) in [
            ("http://a/", 200, "/y", NotFollowed::NotARedirect),
            ("http://a/", 201, "/y", NotFollowed::NotARedirect),
            ("http://a/", 300, "/y", NotFollowed::NotARedirect),
            ("http://a/", 304, "/y", NotFollowed::NotARedirect),
            ("http://a/", 305, "/y", NotFollowed::NotARedirect),
            ("https://a/", 301, "http://a/", NotFollowed::Downgrade),
            ("https://a/", 301, "http://b/", NotFollowed::Downgrade),
            ("http://a/", 301, "file:///etc/passwd", NotFollowed::InvalidLocation(InvalidUri::Scheme)),
            ("http://a/", 301, "ftp://h/", NotFollowed::InvalidLocation(InvalidUri::Scheme)),
            ("http://a/", 301, "/a b", NotFollowed::InvalidLocation(InvalidUri::Octet(b' '))),
            ("http://a/", 301, "http://u:p@b/", NotFollowed::Userinfo),
            ("http://a/", 301, "http://u@a/x", NotFollowed::Userinfo),
            ("http://a/", 301, "http://%41/", NotFollowed::InvalidLocation(InvalidUri::PercentInHost)),
        ] {
            assert_eq!(follow(&mut fresh(), from, status, to).unwrap_err(), expected, "{status} {to}");
        }
        let get = |fields: &Fields| {
            fresh().follow(&Method::Get, &uri("http://a/"), Status::FOUND, fields, (0, 0)).unwrap_err()
        };
        assert_eq!(get(&Fields::new()), NotFollowed::NoLocation);
        assert!(get(&Fields::new()).is_final() && !NotFollowed::Downgrade.is_final());
        assert_eq!(
            get(&[("Location", "/a"), ("Location", "/b")].iter().collect()),
            NotFollowed::SeveralLocations
        );
        assert_eq!(get(&location(&format!("/{}", "a".repeat(65536)))), NotFollowed::LocationTooLong);
        let mut allowed = Chain::new(5, Downgrade::Allow);
        assert!(follow(&mut allowed, "https://a/", 301, "http://a/").is_ok());
    }

    /// 9110-15.4-03, fault K01.
    #[test]
    fn circles_and_endless_chains_end() {
        let mut chain = fresh();
        assert_eq!(follow(&mut chain, "http://a/", 301, "/").unwrap_err(), NotFollowed::Loop);
        let mut chain = fresh();
        follow(&mut chain, "http://a/1", 302, "/2").unwrap();
        follow(&mut chain, "http://a/2", 302, "/3").unwrap();
        assert_eq!(follow(&mut chain, "http://a/3", 302, "/1#other").unwrap_err(), NotFollowed::Loop);
        // A cookie was set on the way: the same request is another one now.
        let mut chain = fresh();
        let step =
            chain.follow(&Method::Get, &uri("http://a/1"), Status::FOUND, &location("/2"), (0, 1)).unwrap();
        let back = chain.follow(&Method::Get, &step.uri, Status::FOUND, &location("/1"), (1, 1)).unwrap();
        assert_eq!(back.uri.path(), "/1");
        let mut chain = fresh();
        for n in 0..REDIRECTS_MAX {
            follow(&mut chain, &format!("http://a/{n}"), 302, &format!("/{}", n + 1)).unwrap();
        }
        assert_eq!(follow(&mut chain, "http://a/20", 302, "/21").unwrap_err(), NotFollowed::TooMany);
    }

    /// 9110-15.4-02b, 9110-15.4-02c, 9110-15.4-02e, 9110-17.13-R1; faults K04, K05, K06.
    #[test]
    fn fields_that_go_and_fields_that_stay() {
        let all: Fields = [
            ("Host", "a"),
            ("User-Agent", "x"),
            ("Accept", "*/*"),
            ("Authorization", "Basic eA=="),
            ("Cookie", "a=b"),
            ("Proxy-Authorization", "Basic eA=="),
            ("X-Api-Key", "k"),
            ("PRIVATE-TOKEN", "k"),
            ("X-Plain", "v"),
            ("If-None-Match", "\"x\""),
            ("Range", "bytes=0-"),
            ("If-Range", "\"x\""),
            ("Referer", "http://a/"),
            ("Origin", "http://a"),
            ("Content-Type", "text/plain"),
            ("TE", "trailers"),
            ("Connection", "TE"),
        ]
        .iter()
        .collect();
        let names = |content, origin| {
            let mut fields = all.clone();
            let step = Step { uri: uri("http://b/"), method: Method::Get, content, origin };
            rewrite_fields(&mut fields, &step);
            fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            names(Content::Keep, Origin::Same),
            "User-Agent Accept Authorization Cookie X-Api-Key PRIVATE-TOKEN X-Plain Range If-Range Content-Type"
        );
        assert_eq!(
            names(Content::Keep, Origin::Other),
            "User-Agent Accept X-Plain Range If-Range Content-Type"
        );
        assert_eq!(names(Content::Drop, Origin::Other), "User-Agent Accept X-Plain Range If-Range");
    }

    /// 9110-10.1.3-01, 9110-10.1.3-03, 9110-10.1.3-04, 9110-10.1.3-05; fault K09.
    #[test]
    fn referer_says_no_more_than_it_may() {
        for (from, to, expected) in [
            ("http://u:p@a/x?y#z", "http://a/b", Some("http://a/x?y")),
            ("http://a/x", "http://b/", Some("http://a/")),
            ("https://a/x", "https://b/", Some("https://a/")),
            ("https://a/x", "http://a/", None),
            ("http://a:81/x", "https://a/", Some("http://a:81/")),
        ] {
            assert_eq!(referer(&uri(from), &uri(to)).as_deref(), expected, "{from} {to}");
        }
    }
}
