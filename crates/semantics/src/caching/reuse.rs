//! Reuse (RFC 9111 §4): whether a stored response answers a request without asking the origin server, and if
//! not, why. Finding the stored response by key and Vary comes before, validating it after.

use super::directives::{Delta, MaxStale, Qualified, RequestDirectives, ResponseDirectives};
use super::freshness::Freshness;
use super::{Policy, Request};
use crate::date::HttpDate;
use crate::method::Method;
use crate::names::Known;

/// Why a request goes past the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// Its method must be forwarded (9111-4-03), or nothing is stored for it.
    Method,
    /// A GET with content (C03).
    Content,
    /// If-Match or If-Unmodified-Since: only the origin server may evaluate them (9111-4.3.2-02).
    OriginPrecondition,
    /// A Range in another unit than bytes.
    RangeUnit,
    /// A rule of the configuration.
    Rule,
}

/// Why a stored response is served although it is stale (RFC 9111 §4.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stale {
    /// The request's max-stale allows it.
    MaxStale,
    /// stale-while-revalidate allows it while it is validated (RFC 5861 §3).
    WhileRevalidate,
    /// stale-if-error allows it after an error (RFC 5861 §4).
    IfError,
    /// The origin server cannot be reached, and nothing forbids it.
    Disconnected,
}

/// Why a stored response must be validated before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Validate {
    /// It is stale (9111-4-01e).
    Stale,
    /// It says no-cache (9111-4-01d).
    NoCache,
    /// The request says no-cache (9111-5.2.1.4-R1).
    RequestNoCache,
    /// It is older than the request's max-age.
    RequestMaxAge,
    /// It is not fresh for as long as the request's min-fresh asks.
    RequestMinFresh,
    /// It was marked so: by an invalidation, a soft purge, or a HEAD that did not match.
    Marked,
}

/// What is to be done with a stored response that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it; it is fresh.
    Fresh {
        /// `current_age`, for Age.
        age: u32,
    },
    /// Serve it although it is stale.
    Stale {
        /// `current_age`, for Age.
        age: u32,
        /// What allows it. With [`Stale::WhileRevalidate`] it is to be validated as well.
        why: Stale,
    },
    /// Validate it first.
    Validate(Validate),
    /// Nothing stored matches.
    Miss(Miss),
    /// The request is not for the cache.
    Bypass(Bypass),
    /// only-if-cached, and nothing can be served (9111-5.2.1.7-01).
    GatewayTimeout,
}

/// How much of the key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nothing is stored for the URI.
    Uri,
    /// Something is, but no variant matches (9111-4.1-01).
    Vary,
    /// A partial response is, without what was asked for.
    Partial,
}

/// The stored response that was found, as far as the decision needs it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its directives.
    pub directives: &'a ResponseDirectives,
    /// Its freshness.
    pub freshness: Freshness,
    /// It was marked for validation.
    pub marked: bool,
}

/// Whether a request is for the cache at all. HEAD is answered from what GET stored (9111-4-01b).
pub fn bypass(request: &Request<'_>) -> Option<Bypass> {
    if !matches!(request.method, Method::Get | Method::Head) {
        return Some(Bypass::Method);
    }
    if request.has_content {
        return Some(Bypass::Content);
    }
    if request.fields.contains_any(&[Known::IfMatch, Known::IfUnmodifiedSince]) {
        return Some(Bypass::OriginPrecondition);
    }
    if let Some(range) = request.fields.get(Known::Range)
        && !range.get(..6).is_some_and(|unit| unit.eq_ignore_ascii_case(b"bytes="))
    {
        return Some(Bypass::RangeUnit);
    }
    None
}

/// Decides about the stored response that key and Vary selected.
#[inline]
pub fn decide(
    candidate: &Candidate<'_>,
    asked: &RequestDirectives,
    policy: &Policy,
    now: HttpDate,
) -> Verdict {
    let age = candidate.freshness.age(now);
    let fresh = candidate.freshness.lifetime > age;
    let plain = asked.is_plain();
    // The way of nearly every hit.
    if fresh && plain && !candidate.marked && candidate.directives.no_cache != Qualified::Whole {
        return Verdict::Fresh { age };
    }
    let verdict = decide_slowly(candidate, asked, policy, age, fresh);
    if asked.only_if_cached && matches!(verdict, Verdict::Validate(_)) {
        Verdict::GatewayTimeout
    } else {
        verdict
    }
}

fn decide_slowly(
    candidate: &Candidate<'_>,
    asked: &RequestDirectives,
    policy: &Policy,
    age: u32,
    fresh: bool,
) -> Verdict {
    let directives = candidate.directives;
    if candidate.marked {
        return Verdict::Validate(Validate::Marked);
    }
    if directives.no_cache == Qualified::Whole {
        return Verdict::Validate(Validate::NoCache);
    }
    if policy.honour_requests
        && let Some(why) = request_wants_fresher(candidate, asked, age, fresh)
    {
        return Verdict::Validate(why);
    }
    if fresh {
        return Verdict::Fresh { age };
    }
    if directives.forbids_stale(policy.shared) {
        return Verdict::Validate(Validate::Stale);
    }
    let staleness = age - candidate.freshness.lifetime;
    if policy.honour_requests && max_stale_allows(asked.max_stale, staleness) {
        return Verdict::Stale { age, why: Stale::MaxStale };
    }
    let window = allowance(directives.stale_while_revalidate, policy.stale_while_revalidate_seconds);
    if window > 0 && staleness <= window.min(policy.stale_seconds_max) {
        return Verdict::Stale { age, why: Stale::WhileRevalidate };
    }
    Verdict::Validate(Validate::Stale)
}

/// The request directives that make a stored response too old (RFC 9111 §5.2.1).
fn request_wants_fresher(
    candidate: &Candidate<'_>,
    asked: &RequestDirectives,
    age: u32,
    fresh: bool,
) -> Option<Validate> {
    if asked.no_cache {
        return Some(Validate::RequestNoCache);
    }
    // RFC 8246 §2: an immutable response, while fresh, needs no validation for a mere reload.
    if let Delta::Seconds(most) = asked.max_age
        && age > most
        && !(fresh && candidate.directives.immutable)
    {
        return Some(Validate::RequestMaxAge);
    }
    // `max-age=0` asks for validation even of what arrived this second.
    if asked.max_age == Delta::Seconds(0) && !(fresh && candidate.directives.immutable) {
        return Some(Validate::RequestMaxAge);
    }
    if let Delta::Seconds(more) = asked.min_fresh
        && candidate.freshness.lifetime < age.saturating_add(more)
    {
        return Some(Validate::RequestMinFresh);
    }
    None
}

/// 9111-5.2.1.2-R1.
fn max_stale_allows(max_stale: MaxStale, staleness: u32) -> bool {
    match max_stale {
        MaxStale::Absent => false,
        MaxStale::Any => true,
        MaxStale::Seconds(most) => staleness <= most,
    }
}

/// What the response says, else what the operator says. An unusable value allows nothing.
fn allowance(delta: Delta, otherwise: u32) -> u32 {
    match delta {
        Delta::Absent => otherwise,
        Delta::Seconds(seconds) => seconds,
        Delta::Invalid => 0,
    }
}

/// How the attempt to reach the origin server went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It could not be reached, or the exchange broke off.
    Disconnected,
    /// It answered 500, 502, 503 or 504 (RFC 5861 §4).
    Error,
}

/// Whether a stale response may be served after this failure (9111-4.2.4-01, 9111-4.2.4-02,
/// 9111-5.2.2.2-02). `None`: the failure goes to the client, as 504 if it is a missing connection.
pub fn stale_after(
    failure: Failure,
    candidate: &Candidate<'_>,
    asked: &RequestDirectives,
    policy: &Policy,
    now: HttpDate,
) -> Option<(u32, Stale)> {
    let directives = candidate.directives;
    if candidate.marked || directives.forbids_stale(policy.shared) {
        return None;
    }
    if policy.honour_requests && asked.no_cache {
        return None;
    }
    let age = candidate.freshness.age(now);
    let staleness = age.saturating_sub(candidate.freshness.lifetime);
    if staleness > policy.stale_seconds_max {
        return None;
    }
    // RFC 5861 §4: the request may say it too. Either allows it.
    let window = allowance(directives.stale_if_error, policy.stale_if_error_seconds);
    let window = window.max(asked.stale_if_error.seconds().unwrap_or(0));
    if staleness <= window && window > 0 {
        return Some((age, Stale::IfError));
    }
    // A stale-if-error of the response is a bound also for the disconnected case: its author thought of it.
    let bounded = directives.stale_if_error.is_present();
    (failure == Failure::Disconnected && policy.stale_when_disconnected && !bounded)
        .then_some((age, Stale::Disconnected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::freshness::Source;
    use crate::fields::Fields;

    const THEN: HttpDate = HttpDate(1_795_521_600);

    fn judge(
        policy: &Policy,
        response: &str,
        lifetime: u32,
        age: u32,
        request: &str,
        marked: bool,
    ) -> Verdict {
        let fields: Fields = [("Cache-Control", response)].iter().collect();
        let directives = ResponseDirectives::cache_control(&fields);
        let freshness = Freshness { lifetime, source: Source::MaxAge, initial_age: age, response_time: THEN };
        let asked = RequestDirectives::of(&[("Cache-Control", request)].iter().collect());
        decide(&Candidate { directives: &directives, freshness, marked }, &asked, policy, THEN)
    }

    fn fresh(age: u32) -> Verdict {
        Verdict::Fresh { age }
    }

    /// 9111-4-01d, 9111-4-01e, 9111-4.2-R1, 9111-5.2.1.1, 9111-5.2.1.2-R1, 9111-5.2.1.3-R1, 9111-5.2.1.4-R1,
    /// 9111-5.2.1.7-01, 9111-5.2.2.4-01, 9111-5.2.2.10-01, RFC 5861 §3, RFC 8246.
    #[test]
    fn verdicts() {
        use Validate as V;
        let stale = |age, why| Verdict::Stale { age, why };
        let policy = Policy::default();
        for (response, lifetime, age, request, expected) in [
            ("", 10, 0, "", fresh(0)),
            ("", 10, 9, "", fresh(9)),
            ("", 10, 10, "", Verdict::Validate(V::Stale)),
            ("", 0, 0, "", Verdict::Validate(V::Stale)),
            ("no-cache", 10, 0, "", Verdict::Validate(V::NoCache)),
            ("no-cache=\"a\"", 10, 0, "", fresh(0)),
            ("", 10, 0, "no-cache", Verdict::Validate(V::RequestNoCache)),
            ("immutable", 10, 0, "no-cache", Verdict::Validate(V::RequestNoCache)),
            ("", 10, 0, "max-age=0", Verdict::Validate(V::RequestMaxAge)),
            ("", 10, 5, "max-age=4", Verdict::Validate(V::RequestMaxAge)),
            ("", 10, 5, "max-age=5", fresh(5)),
            ("", 10, 5, "max-age=x", fresh(5)),
            ("immutable", 10, 5, "max-age=0", fresh(5)),
            ("immutable", 10, 15, "max-age=0", Verdict::Validate(V::RequestMaxAge)),
            ("", 10, 5, "min-fresh=5", fresh(5)),
            ("", 10, 5, "min-fresh=6", Verdict::Validate(V::RequestMinFresh)),
            ("", 10, 5, "min-fresh=4294967295", Verdict::Validate(V::RequestMinFresh)),
            ("", 10, 5, "no-store", fresh(5)),
            ("", 10, 15, "max-stale", stale(15, Stale::MaxStale)),
            ("", 10, 15, "max-stale=5", stale(15, Stale::MaxStale)),
            ("", 10, 15, "max-stale=4", Verdict::Validate(V::Stale)),
            ("", 10, 15, "max-stale=5, max-age=3", Verdict::Validate(V::RequestMaxAge)),
            ("must-revalidate", 10, 15, "max-stale", Verdict::Validate(V::Stale)),
            ("proxy-revalidate", 10, 15, "max-stale", Verdict::Validate(V::Stale)),
            ("s-maxage=10", 10, 15, "max-stale", Verdict::Validate(V::Stale)),
            ("no-cache", 10, 15, "max-stale", Verdict::Validate(V::NoCache)),
            ("stale-while-revalidate=5", 10, 15, "", stale(15, Stale::WhileRevalidate)),
            ("stale-while-revalidate=4", 10, 15, "", Verdict::Validate(V::Stale)),
            ("stale-while-revalidate=0", 10, 10, "", Verdict::Validate(V::Stale)),
            ("stale-while-revalidate=x", 10, 15, "", Verdict::Validate(V::Stale)),
            ("stale-while-revalidate=60, must-revalidate", 10, 15, "", Verdict::Validate(V::Stale)),
            ("stale-while-revalidate=60", 10, 15, "max-age=12", Verdict::Validate(V::RequestMaxAge)),
            ("", 10, 0, "only-if-cached", fresh(0)),
            ("", 10, 15, "only-if-cached", Verdict::GatewayTimeout),
            ("", 10, 15, "only-if-cached, max-stale", stale(15, Stale::MaxStale)),
            ("no-cache", 10, 0, "only-if-cached", Verdict::GatewayTimeout),
        ] {
            let got = judge(&policy, response, lifetime, age, request, false);
            assert_eq!(got, expected, "response `{response}` {lifetime}/{age}, request `{request}`");
        }
        assert_eq!(judge(&policy, "", 10, 0, "", true), Verdict::Validate(V::Marked));
        // A private cache looks past what is said to shared ones.
        let private = Policy::private();
        assert_eq!(
            judge(&private, "proxy-revalidate", 10, 15, "max-stale", false),
            stale(15, Stale::MaxStale)
        );
        // 9111-5.2.1-01: an operator may not let clients force validation.
        let firm = Policy { honour_requests: false, ..Policy::default() };
        assert_eq!(judge(&firm, "", 10, 5, "no-cache, max-age=0", false), fresh(5));
        assert_eq!(judge(&firm, "", 10, 15, "max-stale", false), Verdict::Validate(V::Stale));
    }

    /// 9111-4-01b, 9111-4-03, 9111-4.3.2-02, C03, C14.
    #[test]
    fn bypasses() {
        for (method, fields, has_content, expected) in [
            (Method::Get, &[][..], false, None),
            (Method::Head, &[], false, None),
            (Method::Get, &[("Range", "bytes=0-1"), ("If-None-Match", "\"a\"")], false, None),
            (Method::Get, &[], true, Some(Bypass::Content)),
            (Method::Post, &[], true, Some(Bypass::Method)),
            (Method::Options, &[], false, Some(Bypass::Method)),
            (Method::Other("get".into()), &[], false, Some(Bypass::Method)),
            (Method::Get, &[("If-Match", "*")], false, Some(Bypass::OriginPrecondition)),
            (Method::Get, &[("If-Unmodified-Since", "x")], false, Some(Bypass::OriginPrecondition)),
            (Method::Get, &[("Range", "rows=1-2")], false, Some(Bypass::RangeUnit)),
            (Method::Get, &[("Range", "bytes")], false, Some(Bypass::RangeUnit)),
        ] {
            let fields: Fields = fields.iter().collect();
            let request = Request { method: &method, fields: &fields, has_content };
            assert_eq!(bypass(&request), expected, "{method} {fields:?}");
        }
    }

    /// 9111-4.2.4-01, 9111-4.2.4-02, 9111-4.3.3-R2, 9111-5.2.2.2-01, 9111-5.2.2.2-02, 9111-5.2.2.8-01, C33,
    /// RFC 5861 §4.
    #[test]
    fn after_failures() {
        use Failure::{Disconnected, Error};
        let policy = Policy { stale_seconds_max: 1000, ..Policy::default() };
        for (failure, response, age, request, expected) in [
            (Disconnected, "", 15, "", Some(Stale::Disconnected)),
            (Disconnected, "", 1010, "", Some(Stale::Disconnected)),
            (Disconnected, "", 1011, "", None),
            (Error, "", 15, "", None),
            (Error, "stale-if-error=60", 15, "", Some(Stale::IfError)),
            (Error, "stale-if-error=5", 15, "", Some(Stale::IfError)),
            (Error, "stale-if-error=4", 15, "", None),
            (Error, "stale-if-error=x", 15, "", None),
            (Error, "stale-if-error=0", 10, "", None),
            (Error, "", 15, "stale-if-error=60", Some(Stale::IfError)),
            (Error, "stale-if-error=99999", 1011, "", None),
            (Disconnected, "stale-if-error=60", 15, "", Some(Stale::IfError)),
            (Disconnected, "stale-if-error=4", 15, "", None),
            (Disconnected, "must-revalidate", 15, "", None),
            (Disconnected, "proxy-revalidate", 15, "", None),
            (Disconnected, "s-maxage=10", 15, "", None),
            (Disconnected, "no-cache", 15, "", None),
            (Error, "must-revalidate, stale-if-error=60", 15, "", None),
            (Disconnected, "", 15, "no-cache", None),
            (Disconnected, "", 5, "", Some(Stale::Disconnected)),
        ] {
            let fields: Fields = [("Cache-Control", response)].iter().collect();
            let directives = ResponseDirectives::cache_control(&fields);
            let freshness =
                Freshness { lifetime: 10, source: Source::MaxAge, initial_age: age, response_time: THEN };
            let asked = RequestDirectives::of(&[("Cache-Control", request)].iter().collect());
            let mut candidate = Candidate { directives: &directives, freshness, marked: false };
            let got = stale_after(failure, &candidate, &asked, &policy, THEN);
            assert_eq!(got, expected.map(|why| (age, why)), "{failure:?} `{response}` {age} `{request}`");
            candidate.marked = true;
            assert_eq!(stale_after(failure, &candidate, &asked, &policy, THEN), None);
        }
        let cautious = Policy { stale_when_disconnected: false, ..Policy::default() };
        let directives = ResponseDirectives::default();
        let freshness =
            Freshness { lifetime: 10, source: Source::MaxAge, initial_age: 15, response_time: THEN };
        let candidate = Candidate { directives: &directives, freshness, marked: false };
        assert_eq!(
            stale_after(Disconnected, &candidate, &RequestDirectives::default(), &cautious, THEN),
            None
        );
    }
}
