//! Storing (RFC 9111 §3): whether a response may be stored, and which of its fields go with it. What of the
//! content is there to store is `partial`'s.

use super::directives::{Origin, Qualified, ResponseDirectives};
use super::freshness::{Freshness, Source};
use super::key::{self, Vary};
use super::{Cookies, Policy, Request, Response};
use crate::fields::Fields;
use crate::method::Method;
use crate::names::Known;
use crate::status::{Class, Status};

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Not a method whose responses this cache stores (9111-3-01a).
    Method,
    /// A GET with content: the content is in no key (C03).
    RequestContent,
    /// A POST without explicit freshness and a Content-Location of its own target (RFC 9110 §9.3.3).
    PostNotReusable,
    /// An interim response (9111-3-01b).
    Interim,
    /// 206, 304 or must-understand, with a status that is not understood here (9111-3-01c).
    StatusNotUnderstood,
    /// A status that depends on more of the request than the key holds, or that may never be stored.
    StatusNeverStored,
    /// The request says no-store (9111-5.2.1.5-01).
    RequestNoStore,
    /// The response says no-store (9111-3-01d).
    ResponseNoStore,
    /// The response is private and this cache is shared (9111-3-01e).
    Private,
    /// The request has Authorization and the response does not allow a shared cache (9111-3-01f).
    Authorization,
    /// Nothing allows it to be stored (9111-3-01g).
    NoPermission,
    /// Neither fresh for any time nor with a validator: of no use.
    NoUse,
    /// `Vary: *` (9111-4.1-R1): it could never be found again.
    VaryAny,
    /// Vary names more fields than this cache keys by.
    VaryTooLong,
    /// The safer option about cookies ([`Cookies::Careful`]).
    Cookies,
    /// A 206 whose range cannot be read or does not fit its content (9111-3.3-03).
    Range,
    /// Larger than the store takes.
    TooLarge,
    /// The content ended before its end (C29); nothing is kept of it.
    Incomplete,
    /// The content does not match the digest that came with it (C30).
    Digest,
    /// The store failed: no room, or an I/O error.
    Store,
    /// An operator's rule.
    Rule,
}

impl NotStored {
    /// The reason in plain words, with its section.
    pub fn explain(self) -> &'static str {
        match self {
            NotStored::Method => "the method's responses are not stored (RFC 9111 §3)",
            NotStored::RequestContent => "the request has content, which is part of no key (RFC 9110 §9.3.1)",
            NotStored::PostNotReusable => {
                "a response to POST is stored only with an explicit lifetime and a Content-Location that is the \
                 target itself (RFC 9110 §9.3.3)"
            }
            NotStored::Interim => "an interim response is never stored (RFC 9111 §3)",
            NotStored::StatusNotUnderstood => "its status code is not understood (RFC 9111 §3, §5.2.2.3)",
            NotStored::StatusNeverStored => {
                "its status depends on more of the request than the key holds, or must not be stored (RFC 6585)"
            }
            NotStored::RequestNoStore => "the request says no-store (RFC 9111 §5.2.1.5)",
            NotStored::ResponseNoStore => "the response says no-store (RFC 9111 §5.2.2.5)",
            NotStored::Private => "the response is private and this cache is shared (RFC 9111 §5.2.2.7)",
            NotStored::Authorization => {
                "the request has Authorization, and the response says none of public, s-maxage and \
                 must-revalidate (RFC 9111 §3.5)"
            }
            NotStored::NoPermission => {
                "it has no lifetime, is not public, and its status is not heuristically cacheable (RFC 9111 §3)"
            }
            NotStored::NoUse => {
                "it has no lifetime and no validator, so it could never be used (RFC 9111 §3)"
            }
            NotStored::VaryAny => "it varies by * and so matches no later request (RFC 9111 §4.1)",
            NotStored::VaryTooLong => "it varies by more fields than are keyed by",
            NotStored::Cookies => {
                "cookies are involved and the response is not marked public (`careful_with_cookies`)"
            }
            NotStored::Range => "its range cannot be read or does not fit its content (RFC 9111 §3.3)",
            NotStored::TooLarge => "it is larger than the store takes",
            NotStored::Incomplete => "its content broke off (RFC 9111 §3.3)",
            NotStored::Digest => "its content does not match its digest (RFC 9530)",
            NotStored::Store => "the store failed to take it",
            NotStored::Rule => "a rule of this cache's configuration forbids it",
        }
    }

    /// The reason as a token for Cache-Status (RFC 9211 §2.8) and counters.
    pub fn token(self) -> &'static str {
        match self {
            NotStored::Method => "METHOD",
            NotStored::RequestContent => "REQUEST-CONTENT",
            NotStored::PostNotReusable => "POST",
            NotStored::Interim => "INTERIM",
            NotStored::StatusNotUnderstood => "STATUS-NOT-UNDERSTOOD",
            NotStored::StatusNeverStored => "STATUS",
            NotStored::RequestNoStore => "REQUEST-NO-STORE",
            NotStored::ResponseNoStore => "NO-STORE",
            NotStored::Private => "PRIVATE",
            NotStored::Authorization => "AUTHORIZATION",
            NotStored::NoPermission => "NO-PERMISSION",
            NotStored::NoUse => "NO-LIFETIME",
            NotStored::VaryAny => "VARY-ANY",
            NotStored::VaryTooLong => "VARY-TOO-LONG",
            NotStored::Cookies => "COOKIES",
            NotStored::Range => "RANGE",
            NotStored::TooLarge => "TOO-LARGE",
            NotStored::Incomplete => "INCOMPLETE",
            NotStored::Digest => "DIGEST",
            NotStored::Store => "STORE",
            NotStored::Rule => "RULE",
        }
    }

    /// Whether the next response to such a request will most likely not be stored either, so that requests
    /// for it need not wait for each other.
    pub fn is_lasting(self) -> bool {
        !matches!(
            self,
            NotStored::RequestNoStore
                | NotStored::RequestContent
                | NotStored::Method
                | NotStored::Incomplete
                | NotStored::Digest
                | NotStored::Store
                | NotStored::Interim
                | NotStored::Range
        )
    }
}

/// Whether this response may be stored, by the clauses of RFC 9111 §3 in their order. `content_location_is_target`
/// says whether Content-Location names the target URI itself ([`super::invalidation::resolve`]).
///
/// # Errors
/// The first clause that forbids it.
pub fn may_store(
    request: &Request<'_>,
    response: &Response<'_>,
    directives: &ResponseDirectives,
    freshness: &Freshness,
    policy: &Policy,
    content_location_is_target: bool,
) -> Result<(), NotStored> {
    method_allows(request, response, freshness, content_location_is_target)?;
    configuration_allows(request, response.status, policy)?;
    status_allows(response.status, directives, freshness.source)?;
    if request_says_no_store(request) {
        return Err(NotStored::RequestNoStore);
    }
    // 9111-5.2.2.3-02: with must-understand and a status that is understood, no-store does not count.
    let understood = directives.must_understand && response.status.is_understood();
    if directives.no_store && !understood {
        return Err(NotStored::ResponseNoStore);
    }
    if policy.shared {
        shared_allows(request, response, directives, policy)?;
    }
    permission(response, directives, freshness, policy)?;
    match key::nominated(response.fields) {
        Vary::Any => return Err(NotStored::VaryAny),
        Vary::TooLong => return Err(NotStored::VaryTooLong),
        Vary::Names(_) => {}
    }
    let validates = response.fields.contains_any(&[Known::ETag, Known::LastModified]);
    if freshness.lifetime == 0 && !validates {
        return Err(NotStored::NoUse);
    }
    Ok(())
}

/// 9111-3-01a: GET, and POST as RFC 9110 §9.3.3 has it. A response to HEAD updates, but is not stored.
fn method_allows(
    request: &Request<'_>,
    response: &Response<'_>,
    freshness: &Freshness,
    content_location_is_target: bool,
) -> Result<(), NotStored> {
    match request.method {
        Method::Get if request.has_content => Err(NotStored::RequestContent),
        Method::Get => Ok(()),
        Method::Post => {
            let explicit = freshness.source.is_explicit() && freshness.lifetime > 0;
            let success = response.status.class() == Class::Successful;
            if explicit && success && content_location_is_target {
                Ok(())
            } else {
                Err(NotStored::PostNotReusable)
            }
        }
        _ => Err(NotStored::Method),
    }
}

/// What the operator left out.
fn configuration_allows(request: &Request<'_>, status: Status, policy: &Policy) -> Result<(), NotStored> {
    let listed = |&(from, to): &(u16, u16)| (from..=to).contains(&status.code());
    let post = *request.method == Method::Post && !policy.store_post;
    // A part is stored as a part of a 200.
    let listed = policy.statuses.is_empty()
        || policy.statuses.iter().any(listed)
        || (status == Status::PARTIAL_CONTENT
            && policy.statuses.iter().any(|&(a, b)| (a..=b).contains(&200)));
    if post || !listed || policy.bypasses(request.fields) { Err(NotStored::Rule) } else { Ok(()) }
}

fn status_allows(status: Status, directives: &ResponseDirectives, source: Source) -> Result<(), NotStored> {
    if status.is_interim() {
        return Err(NotStored::Interim);
    }
    if directives.must_understand && !status.is_understood() {
        return Err(NotStored::StatusNotUnderstood);
    }
    match status.code() {
        // A 304 updates what is stored; by itself it is no response to keep.
        304 => Err(NotStored::StatusNotUnderstood),
        // RFC 6585 §3 to §6: must not be stored. The others answer to fields that are in no key:
        // preconditions, Range, Expect, Max-Forwards, the size of the request or the connection it came on.
        428 | 429 | 431 | 511 | 407 | 408 | 411 | 412 | 413 | 416 | 417 | 421 | 425 | 426 => {
            Err(NotStored::StatusNeverStored)
        }
        // C12, C15: 400 and 414 often answer to a malformed request. Only an origin that says how long.
        400 | 414 if !source.is_explicit() && source != Source::Heuristic => Err(NotStored::NoPermission),
        _ => Ok(()),
    }
}

fn request_says_no_store(request: &Request<'_>) -> bool {
    request.fields.contains(Known::CacheControl) && super::RequestDirectives::of(request.fields).no_store
}

/// The clauses that hold for shared caches only.
fn shared_allows(
    request: &Request<'_>,
    response: &Response<'_>,
    directives: &ResponseDirectives,
    policy: &Policy,
) -> Result<(), NotStored> {
    if directives.private == Qualified::Whole {
        return Err(NotStored::Private);
    }
    // 9111-3.5-01, C10.
    let allows_shared =
        directives.public || directives.s_maxage.seconds().is_some() || directives.must_revalidate;
    if request.fields.contains(Known::Authorization) && !allows_shared {
        return Err(NotStored::Authorization);
    }
    let cookies = request.fields.contains(Known::Cookie) || response.fields.contains(Known::SetCookie);
    let meant_for_all = directives.public
        || directives.s_maxage.is_present()
        || matches!(directives.origin, Origin::Targeted(_));
    if policy.cookies == Cookies::Careful && cookies && !meant_for_all {
        return Err(NotStored::Cookies);
    }
    Ok(())
}

/// 9111-3-01g: at least one of these.
fn permission(
    response: &Response<'_>,
    directives: &ResponseDirectives,
    freshness: &Freshness,
    policy: &Policy,
) -> Result<(), NotStored> {
    let allowed = directives.public
        || (!policy.shared && directives.private != Qualified::Absent)
        || freshness.source.is_explicit()
        // no-cache asks for a stored response that is validated each time; so does must-understand for
        // statuses that are understood (§5.2.2.3).
        || response.status.is_heuristically_cacheable();
    if allowed { Ok(()) } else { Err(NotStored::NoPermission) }
}

/// The header section to store (RFC 9111 §3.1): all that was received except what belongs to the connection or
/// the proxy, Age (it is generated anew), and what the response excludes by name. `response` has been through
/// [`crate::names`]' forwarding rules or not: hop-by-hop fields are left out here again.
pub fn fields_to_store(response: &Fields, directives: &ResponseDirectives, shared: bool) -> Fields {
    let mut listed: Vec<&[u8]> = Vec::new();
    if response.contains(Known::Connection) {
        listed.extend(response.list(Known::Connection));
    }
    let mut stored = Fields::with_capacity(response.wire().len());
    for field in response.iter() {
        if !is_stored(&field, directives, shared)
            || listed.iter().any(|name| name.eq_ignore_ascii_case(field.name))
        {
            continue;
        }
        stored.append_parsed(field.name, field.value, field.known);
    }
    stored
}

/// Whether a field goes into the store.
fn is_stored(field: &crate::fields::Field<'_>, directives: &ResponseDirectives, shared: bool) -> bool {
    let hop = field.known.is_some_and(|known| {
        // 9111-3.1-02, 9111-3.1-04, 9111-3.1-R1. Content-Length and Trailer belong to one message's framing.
        known.is_hop_by_hop() || matches!(known, Known::Age | Known::ContentLength | Known::Trailer)
    });
    if hop {
        return false;
    }
    let named = |names: &[Box<[u8]>]| names.iter().any(|name| field.name.eq_ignore_ascii_case(name));
    // 9111-5.2.2.7-03a: a shared cache keeps them out; 9111-5.2.2.4-02: no cache may send them unvalidated,
    // so they are not kept either (a 304 brings them again).
    let excluded = named(directives.no_cache.names()) || (shared && named(directives.private.names()));
    !excluded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::date::HttpDate;

    const NOW: HttpDate = HttpDate(1_795_521_600);

    struct Case<'a> {
        method: Method,
        request: &'a [(&'a str, &'a str)],
        status: u16,
        response: &'a [(&'a str, &'a str)],
    }

    fn decide(case: &Case<'_>, policy: &Policy) -> Result<(), NotStored> {
        let request_fields: Fields = case.request.iter().collect();
        let fields: Fields = case.response.iter().collect();
        let request = Request { method: &case.method, fields: &request_fields, has_content: false };
        let response = Response { status: Status::new(case.status).unwrap(), fields: &fields };
        let directives = ResponseDirectives::of(&fields, &policy.targets);
        let freshness = Freshness::of(&response, &directives, policy, NOW, NOW);
        let own = fields.get(Known::ContentLocation) == Some(b"/");
        may_store(&request, &response, &directives, &freshness, policy, own)
    }

    fn get(status: u16, response: &[(&str, &str)]) -> Result<(), NotStored> {
        decide(&Case { method: Method::Get, request: &[], status, response }, &Policy::default())
    }

    const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");
    /// What an operator leaves out is not stored, and says so.
    #[test]
    fn configured() {
        let policy =
            Policy { statuses: vec![(200, 299), (404, 404)], store_post: false, ..Policy::default() };
        let own = ("Content-Location", "/");
        for (method, status, expected) in [
            (Method::Get, 200, Ok(())),
            (Method::Get, 206, Ok(())),
            (Method::Get, 404, Ok(())),
            (Method::Get, 301, Err(NotStored::Rule)),
            (Method::Get, 500, Err(NotStored::Rule)),
            (Method::Post, 200, Err(NotStored::Rule)),
        ] {
            let response = &[FRESH, own];
            let case = Case { method, request: &[], status, response };
            assert_eq!(decide(&case, &policy), expected, "{status}");
        }
    }

    const LM: (&str, &str) = ("Last-Modified", "Mon, 23 Nov 2026 12:00:00 GMT");

    /// 9111-3-01a, 9110-9.3.3-R2.
    #[test]
    fn methods() {
        let post = [FRESH, ("Content-Location", "/")];
        for (method, response, expected) in [
            (Method::Get, &[FRESH][..], Ok(())),
            (Method::Head, &[FRESH], Err(NotStored::Method)),
            (Method::Options, &[FRESH], Err(NotStored::Method)),
            (Method::Put, &[FRESH], Err(NotStored::Method)),
            (Method::Delete, &[FRESH], Err(NotStored::Method)),
            (Method::Other("M-SEARCH".into()), &[FRESH], Err(NotStored::Method)),
            (Method::Other("get".into()), &[FRESH], Err(NotStored::Method)),
            (Method::Post, &post, Ok(())),
            (Method::Post, &[FRESH], Err(NotStored::PostNotReusable)),
            (Method::Post, &[FRESH, ("Content-Location", "/other")], Err(NotStored::PostNotReusable)),
            (Method::Post, &[LM, ("Content-Location", "/")], Err(NotStored::PostNotReusable)),
        ] {
            let case = Case { method, request: &[], status: 200, response };
            assert_eq!(decide(&case, &Policy::default()), expected, "{} {response:?}", case.method);
        }
        let fields = Fields::new();
        let fat = Request { method: &Method::Get, fields: &fields, has_content: true };
        let stored: Fields = [FRESH].iter().collect();
        let response = Response { status: Status::OK, fields: &stored };
        let directives = ResponseDirectives::cache_control(&stored);
        let freshness = Freshness::of(&response, &directives, &Policy::default(), NOW, NOW);
        // C03.
        assert_eq!(
            may_store(&fat, &response, &directives, &freshness, &Policy::default(), false),
            Err(NotStored::RequestContent)
        );
    }

    /// 9111-3-01b, 9111-3-01c, 9111-3-01g, 9111-5.2.2.3-02, C12, C15.
    #[test]
    fn statuses() {
        for (status, response, expected) in [
            (100, &[FRESH][..], Err(NotStored::Interim)),
            (103, &[FRESH], Err(NotStored::Interim)),
            (199, &[FRESH], Err(NotStored::Interim)),
            (200, &[FRESH], Ok(())),
            (299, &[FRESH], Ok(())),
            (302, &[FRESH], Ok(())),
            (302, &[LM], Err(NotStored::NoPermission)),
            (304, &[FRESH], Err(NotStored::StatusNotUnderstood)),
            (400, &[FRESH], Ok(())),
            (400, &[LM], Err(NotStored::NoPermission)),
            (404, &[LM], Ok(())),
            (412, &[FRESH], Err(NotStored::StatusNeverStored)),
            (413, &[FRESH], Err(NotStored::StatusNeverStored)),
            (416, &[FRESH], Err(NotStored::StatusNeverStored)),
            (428, &[FRESH], Err(NotStored::StatusNeverStored)),
            (429, &[FRESH], Err(NotStored::StatusNeverStored)),
            (431, &[FRESH], Err(NotStored::StatusNeverStored)),
            (499, &[FRESH], Ok(())),
            (500, &[LM], Err(NotStored::NoPermission)),
            (511, &[FRESH], Err(NotStored::StatusNeverStored)),
            (599, &[FRESH], Ok(())),
            (599, &[("Cache-Control", "public"), LM], Ok(())),
            (599, &[("Cache-Control", "max-age=60, must-understand")], Err(NotStored::StatusNotUnderstood)),
            (200, &[("Cache-Control", "max-age=60, must-understand, no-store")], Ok(())),
            (
                599,
                &[("Cache-Control", "max-age=60, must-understand, no-store")],
                Err(NotStored::StatusNotUnderstood),
            ),
            (200, &[("Cache-Control", "max-age=60, no-store")], Err(NotStored::ResponseNoStore)),
        ] {
            assert_eq!(get(status, response), expected, "{status} {response:?}");
        }
    }

    /// 9111-3-01d, 9111-3-01e, 9111-3-01g, 9111-5.2.2.5-01a, 9111-5.2.2.7-01, 9111-5.2.2.7-02, C11, C23.
    #[test]
    fn directives_of_the_response() {
        let cookie = ("Set-Cookie", "a=b");
        let careful = Policy { cookies: Cookies::Careful, ..Policy::default() };
        let (shared, private) = (Policy::default(), Policy::private());
        for (policy, status, response, expected) in [
            (&shared, 200, &[("Cache-Control", "private, max-age=60")][..], Err(NotStored::Private)),
            (&shared, 200, &[("Cache-Control", "private=\"x\", max-age=60")], Ok(())),
            (&private, 200, &[("Cache-Control", "private, max-age=60")], Ok(())),
            (&private, 302, &[("Cache-Control", "private"), LM], Ok(())),
            (&private, 302, &[("Cache-Control", "s-maxage=60"), LM], Err(NotStored::NoPermission)),
            (&shared, 302, &[("Cache-Control", "s-maxage=60")], Ok(())),
            (&shared, 200, &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")], Ok(())),
            (&shared, 200, &[("Cache-Control", "no-cache")], Err(NotStored::NoUse)),
            (&shared, 200, &[], Err(NotStored::NoUse)),
            (&shared, 200, &[("ETag", "\"a\"")], Ok(())),
            (&shared, 200, &[FRESH, cookie], Ok(())),
            (&careful, 200, &[FRESH, cookie], Err(NotStored::Cookies)),
            (&careful, 200, &[FRESH], Ok(())),
            (&careful, 200, &[("Cache-Control", "public, max-age=60"), cookie], Ok(())),
            (&careful, 200, &[("CDN-Cache-Control", "max-age=60"), cookie], Ok(())),
            (&shared, 200, &[("CDN-Cache-Control", "no-store"), FRESH], Err(NotStored::ResponseNoStore)),
            (&shared, 200, &[("CDN-Cache-Control", "max-age=5"), ("Cache-Control", "no-store")], Ok(())),
            (
                &private,
                200,
                &[("CDN-Cache-Control", "max-age=5"), ("Cache-Control", "no-store")],
                Err(NotStored::ResponseNoStore),
            ),
            (&shared, 200, &[FRESH, ("Vary", "*")], Err(NotStored::VaryAny)),
            (&shared, 200, &[FRESH, ("Vary", "Accept, *")], Err(NotStored::VaryAny)),
            (&shared, 200, &[FRESH, ("Vary", "Accept")], Ok(())),
        ] {
            let case = Case { method: Method::Get, request: &[], status, response };
            assert_eq!(decide(&case, policy), expected, "{status} {response:?} shared={}", policy.shared);
        }
        let with_cookie =
            Case { method: Method::Get, request: &[("Cookie", "s=1")], status: 200, response: &[FRESH] };
        assert_eq!(decide(&with_cookie, &shared), Ok(()));
        assert_eq!(decide(&with_cookie, &careful), Err(NotStored::Cookies));
    }

    /// C23: who has logged in is given nothing of the store, and gives it nothing.
    #[test]
    fn cookies_that_go_past_the_store() {
        let bypass_cookies = vec!["session".into(), "wordpress_logged_in_*".into()];
        let policy = Policy { bypass_cookies, ..Policy::default() };
        for (cookies, passes) in [
            (&["session=1"][..], true),
            (&["a=b; session=; c=d"], true),
            (&["a=b", "theme=dark;session=x"], true),
            (&["wordpress_logged_in_5f=ann"], true),
            (&["wordpress_logged_in_=ann"], true),
            (&[], false),
            (&["sessions=1; my_session=1; Session=1"], false),
            (&["a=session; b=session=1"], false),
            (&["wordpress_test_cookie=1; wordpress_logged_in"], false),
            (&["session", "; ;=;"], false),
        ] {
            let fields: Vec<_> = cookies.iter().map(|line| ("Cookie", *line)).collect();
            let case = Case { method: Method::Get, request: &fields, status: 200, response: &[FRESH] };
            assert_eq!(policy.bypasses(&fields.iter().collect()), passes, "{cookies:?}");
            assert_eq!(
                decide(&case, &policy),
                if passes { Err(NotStored::Rule) } else { Ok(()) },
                "{cookies:?}"
            );
            assert_eq!(decide(&case, &Policy::default()), Ok(()), "{cookies:?}");
        }
    }

    /// 9111-3-01f, 9111-3.5-01, 9111-5.2.1.5-01, 9111-5.2.2.9-01, C10.
    #[test]
    fn requests() {
        let auth = ("Authorization", "Basic x");
        for (request, cache_control, in_shared, in_private) in [
            (&[auth][..], "max-age=60", Err(NotStored::Authorization), Ok(())),
            (&[auth], "max-age=60, public", Ok(()), Ok(())),
            (&[auth], "max-age=60, must-revalidate", Ok(()), Ok(())),
            (&[auth], "s-maxage=60, max-age=60", Ok(()), Ok(())),
            (&[auth], "max-age=60, proxy-revalidate", Err(NotStored::Authorization), Ok(())),
            (
                &[("Cache-Control", "no-store")],
                "max-age=60",
                Err(NotStored::RequestNoStore),
                Err(NotStored::RequestNoStore),
            ),
            (&[("Cache-Control", "no-cache")], "max-age=60", Ok(()), Ok(())),
        ] {
            let case = Case {
                method: Method::Get,
                request,
                status: 200,
                response: &[("Cache-Control", cache_control)],
            };
            assert_eq!(decide(&case, &Policy::default()), in_shared, "{request:?} {cache_control}");
            assert_eq!(decide(&case, &Policy::private()), in_private, "{request:?} {cache_control}");
        }
    }

    /// 9111-3.1-01, 9111-3.1-02, 9111-3.1-03, 9111-3.1-04, 9111-3.1-R1, 9111-5.2.2.4-02, 9111-5.2.2.7-03a,
    /// 9111-5.2.2.7-03b.
    #[test]
    fn stored_fields() {
        let response: Fields = [
            ("Connection", "close, a"),
            ("A", "1"),
            ("X-Unknown", "2"),
            ("x-unknown", "3"),
            ("Set-Cookie", "s=1"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Authentication-Info", "x"),
            ("Keep-Alive", "5"),
            ("Age", "7"),
            ("Content-Length", "10"),
            ("Cache-Control", "no-cache=\"b\", private=\"Set-Cookie\", max-age=5"),
            ("B", "4"),
            ("ETag", "\"e\""),
        ]
        .iter()
        .collect();
        let directives = ResponseDirectives::cache_control(&response);
        let names = |fields: &Fields| {
            fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect::<Vec<_>>()
        };
        let shared = fields_to_store(&response, &directives, true);
        assert_eq!(names(&shared), ["X-Unknown", "x-unknown", "Cache-Control", "ETag"]);
        let private = fields_to_store(&response, &directives, false);
        assert_eq!(names(&private), ["X-Unknown", "x-unknown", "Set-Cookie", "Cache-Control", "ETag"]);
    }
}
