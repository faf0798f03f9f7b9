//! Freshness (RFC 9111 §4.2) and Age (§5.1): how long a response is fresh, how old it is, and where both
//! numbers come from. All arithmetic saturates: a clock that lies makes a response old, never young again (C26).

use super::directives::{Delta, Origin, ResponseDirectives, SECONDS_MAX};
use super::{Policy, Response};
use crate::date::HttpDate;
use crate::fields::{Fields, Only};
use crate::grammar;
use crate::names::Known;
use crate::status::Class;

/// Which rule gave a lifetime (RFC 9111 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `s-maxage`, in a shared cache.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// Expires minus Date.
    Expires,
    /// A part of the time since Last-Modified (§4.2.2).
    Heuristic,
    /// The operator's default.
    Default,
    /// A directive or Expires that is malformed, or said twice differently: stale (§4.2.1).
    Invalid,
    /// Nothing at all: stale.
    Nothing,
}

impl Source {
    /// The origin server gave an expiration time, usable or not: no heuristic may replace it (9111-4.2.2-02).
    pub fn is_explicit(self) -> bool {
        matches!(self, Source::SMaxage | Source::MaxAge | Source::Expires | Source::Invalid)
    }
}

/// How fresh a stored response is: what of it must be kept to tell at any later time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// `freshness_lifetime`, in seconds.
    pub lifetime: u32,
    /// Where it comes from.
    pub source: Source,
    /// `corrected_initial_age`, in seconds.
    pub initial_age: u32,
    /// `response_time`.
    pub response_time: HttpDate,
}

impl Freshness {
    /// Of a response that was asked for at `request_time` and arrived at `response_time` (by this clock).
    pub fn of(
        response: &Response<'_>,
        directives: &ResponseDirectives,
        policy: &Policy,
        request_time: HttpDate,
        response_time: HttpDate,
    ) -> Freshness {
        let (lifetime, source) = lifetime(response, directives, policy, response_time);
        Freshness {
            lifetime,
            source,
            initial_age: initial_age(response.fields, request_time, response_time),
            response_time,
        }
    }

    /// `current_age` (9111-4.2.3-R1), in seconds.
    #[inline]
    pub fn age(&self, now: HttpDate) -> u32 {
        clamp(i64::from(self.initial_age).saturating_add(now.0.saturating_sub(self.response_time.0).max(0)))
    }

    /// 9111-4.2-R1: fresh means that the lifetime is greater than the age.
    #[inline]
    pub fn is_fresh(&self, now: HttpDate) -> bool {
        self.lifetime > self.age(now)
    }

    /// Seconds of freshness left; negative: seconds of staleness.
    pub fn remaining(&self, now: HttpDate) -> i64 {
        i64::from(self.lifetime) - i64::from(self.age(now))
    }
}

fn clamp(seconds: i64) -> u32 {
    seconds.clamp(0, i64::from(SECONDS_MAX)) as u32
}

/// `freshness_lifetime` by the first match of 9111-4.2.1-R1.
fn lifetime(
    response: &Response<'_>,
    directives: &ResponseDirectives,
    policy: &Policy,
    now: HttpDate,
) -> (u32, Source) {
    let (seconds, source) = match explicit(response.fields, directives, policy, now) {
        Some(found) => found,
        None => heuristic(response, directives, policy, now),
    };
    (seconds.min(policy.lifetime_seconds_max), source)
}

/// An expiration time from the origin server.
fn explicit(
    fields: &Fields,
    directives: &ResponseDirectives,
    policy: &Policy,
    now: HttpDate,
) -> Option<(u32, Source)> {
    // 9111-5.3-03, 9111-5.3-02: each of these, present in whatever form, hides what comes after it.
    if policy.shared && directives.s_maxage.is_present() {
        return Some(from_delta(directives.s_maxage, Source::SMaxage));
    }
    if directives.max_age.is_present() {
        return Some(from_delta(directives.max_age, Source::MaxAge));
    }
    // RFC 9213 §2.2: Expires does not count beside a targeted field.
    if directives.origin != Origin::CacheControl {
        return None;
    }
    match fields.only(Known::Expires) {
        Only::Absent => None,
        Only::Several => Some((0, Source::Invalid)),
        // 9111-5.3-01: invalid means expired.
        Only::One(value) => match parse_date(value, now) {
            Some(expires) => {
                let date = date_value(fields, now);
                Some((clamp(expires.0.saturating_sub(date.0)), Source::Expires))
            }
            None => Some((0, Source::Invalid)),
        },
    }
}

fn from_delta(delta: Delta, source: Source) -> (u32, Source) {
    delta.seconds().map_or((0, Source::Invalid), |seconds| (seconds, source))
}

/// RFC 9111 §4.2.2: for statuses that are defined as heuristically cacheable, or a response marked public.
fn heuristic(
    response: &Response<'_>,
    directives: &ResponseDirectives,
    policy: &Policy,
    now: HttpDate,
) -> (u32, Source) {
    if !response.status.is_heuristically_cacheable() && !directives.public {
        return (0, Source::Nothing);
    }
    let is_error = matches!(response.status.class(), Class::ClientError | Class::ServerError);
    let most = if is_error { policy.heuristic_error_seconds_max } else { policy.heuristic_seconds_max };
    let modified = response.fields.only(Known::LastModified).one().and_then(|value| parse_date(value, now));
    match (modified, policy.default_seconds) {
        (Some(modified), _) if policy.heuristic_percent > 0 => {
            let since = date_value(response.fields, now).0.saturating_sub(modified.0).max(0);
            let part = since.saturating_mul(i64::from(policy.heuristic_percent)) / 100;
            (clamp(part).min(most), Source::Heuristic)
        }
        (_, Some(seconds)) => (seconds.min(most), Source::Default),
        _ => (0, Source::Nothing),
    }
}

/// `date_value`: the origin's Date, or the time of arrival if there is none that can be read.
pub fn date_value(fields: &Fields, response_time: HttpDate) -> HttpDate {
    fields.only(Known::Date).one().and_then(|value| parse_date(value, response_time)).unwrap_or(response_time)
}

/// `corrected_initial_age` (9111-4.2.3-R1), in seconds, of a response with these fields.
pub fn initial_age(fields: &Fields, request_time: HttpDate, response_time: HttpDate) -> u32 {
    let apparent_age = response_time.0.saturating_sub(date_value(fields, response_time).0).max(0);
    // 9111-4.2.3-01: what was received counts from the start of the request.
    let response_delay = response_time.0.saturating_sub(request_time.0).max(0);
    let corrected_age_value = i64::from(age_value(fields)).saturating_add(response_delay);
    clamp(apparent_age.max(corrected_age_value))
}

/// The received Age: the first member (9111-5.1-01), ignored if it is no number (9111-5.1-02).
fn age_value(fields: &Fields) -> u32 {
    let Some(first) = fields.get(Known::Age) else { return 0 };
    let first = grammar::trim_ows(&first[..grammar::unquoted(first, b',')]);
    grammar::decimal_saturating(first).map_or(0, |n| n.min(u64::from(SECONDS_MAX)) as u32)
}

/// A date, letters in any case (9111-4.2-01). Anything but GMT is invalid (9111-4.2-04).
pub fn parse_date(value: &[u8], now: HttpDate) -> Option<HttpDate> {
    if let Some(date) = HttpDate::parse(value, now) {
        return Some(date);
    }
    // Longest: a Wednesday of RFC 850.
    if value.len() > 40 || !value.iter().any(u8::is_ascii_alphabetic) {
        return None;
    }
    let mut usual = value.to_ascii_lowercase();
    let mut in_word = false;
    for b in &mut usual {
        if b.is_ascii_alphabetic() && !in_word {
            *b = b.to_ascii_uppercase();
        }
        in_word = b.is_ascii_alphabetic();
    }
    if usual.ends_with(b" Gmt") {
        let zone = usual.len() - 3;
        usual[zone..].make_ascii_uppercase();
    }
    HttpDate::parse(&usual, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    /// 2026-11-24 12:00:00.
    const NOW: HttpDate = HttpDate(1_795_521_600);

    fn at(offset: i64) -> String {
        HttpDate(NOW.0 + offset).to_string()
    }

    fn freshness(policy: &Policy, status: u16, pairs: &[(&str, &str)]) -> Freshness {
        let fields: Fields = pairs.iter().collect();
        let response = Response { status: Status::new(status).unwrap(), fields: &fields };
        let directives = ResponseDirectives::of(&fields, &policy.targets);
        Freshness::of(&response, &directives, policy, NOW, NOW)
    }

    /// 9111-4.2.1-R1, 9111-4.2.1-R2, 9111-5.3-01, 9111-5.3-02, 9111-5.3-03, C27, C28; 9111-4.2-02: HTTP dates
    /// and this clock both count whole seconds, so nothing is rounded.
    #[test]
    fn explicit_lifetimes() {
        let (date, later, past) = (at(0), at(3600), at(-7200));
        let shared = Policy::default();
        let private = Policy::private();
        for (pairs, in_shared, in_private) in [
            (vec![("Cache-Control", "max-age=60")], (60, Source::MaxAge), (60, Source::MaxAge)),
            (vec![("Cache-Control", "max-age=60, s-maxage=5")], (5, Source::SMaxage), (60, Source::MaxAge)),
            (vec![("Cache-Control", "s-maxage=5")], (5, Source::SMaxage), (0, Source::Nothing)),
            (vec![("Cache-Control", "s-maxage=x, max-age=60")], (0, Source::Invalid), (60, Source::MaxAge)),
            (
                vec![("Expires", later.as_str()), ("Date", &date)],
                (3600, Source::Expires),
                (3600, Source::Expires),
            ),
            (vec![("Expires", later.as_str())], (3600, Source::Expires), (3600, Source::Expires)),
            (vec![("Expires", past.as_str()), ("Date", &date)], (0, Source::Expires), (0, Source::Expires)),
            (
                vec![("Expires", later.as_str()), ("Date", "nonsense")],
                (3600, Source::Expires),
                (3600, Source::Expires),
            ),
            (
                vec![("Expires", later.as_str()), ("Expires", &later)],
                (0, Source::Invalid),
                (0, Source::Invalid),
            ),
            (vec![("Expires", "0"), ("Last-Modified", &past)], (0, Source::Invalid), (0, Source::Invalid)),
            (vec![("Expires", "")], (0, Source::Invalid), (0, Source::Invalid)),
            (
                vec![("Expires", later.as_str()), ("Cache-Control", "max-age=0")],
                (0, Source::MaxAge),
                (0, Source::MaxAge),
            ),
            (
                vec![("Expires", later.as_str()), ("Cache-Control", "max-age=x")],
                (0, Source::Invalid),
                (0, Source::Invalid),
            ),
            (
                vec![("Expires", "0"), ("Cache-Control", "max-age=9")],
                (9, Source::MaxAge),
                (9, Source::MaxAge),
            ),
            (
                vec![("Cache-Control", "max-age=99999999999")],
                (SECONDS_MAX, Source::MaxAge),
                (SECONDS_MAX, Source::MaxAge),
            ),
            // RFC 9213 §2.2: Cache-Control and Expires are not looked at, in a cache that the field is for.
            (
                vec![
                    ("CDN-Cache-Control", "max-age=7"),
                    ("Cache-Control", "max-age=60"),
                    ("Expires", &later),
                ],
                (7, Source::MaxAge),
                (60, Source::MaxAge),
            ),
            (
                vec![("CDN-Cache-Control", "foo"), ("Expires", &later)],
                (0, Source::Nothing),
                (3600, Source::Expires),
            ),
        ] {
            for (policy, expected) in [(&shared, in_shared), (&private, in_private)] {
                let got = freshness(policy, 200, &pairs);
                assert_eq!((got.lifetime, got.source), expected, "{pairs:?} shared={}", policy.shared);
            }
        }
    }

    /// 9111-4.2.2-01, 9111-4.2.2-02, 9111-4.2.2-R1, C15.
    #[test]
    fn heuristic_lifetimes() {
        let (day_ago, year_ago) = (at(-86_400), at(-365 * 86_400));
        let policy = Policy::default();
        for (status, pairs, expected) in [
            (200, vec![("Last-Modified", day_ago.as_str())], (8640, Source::Heuristic)),
            (204, vec![("Last-Modified", day_ago.as_str())], (8640, Source::Heuristic)),
            (200, vec![("Last-Modified", year_ago.as_str())], (86_400, Source::Heuristic)),
            (404, vec![("Last-Modified", year_ago.as_str())], (60, Source::Heuristic)),
            (201, vec![("Last-Modified", day_ago.as_str())], (0, Source::Nothing)),
            (302, vec![("Last-Modified", day_ago.as_str())], (0, Source::Nothing)),
            (502, vec![("Last-Modified", day_ago.as_str())], (0, Source::Nothing)),
            (599, vec![("Last-Modified", day_ago.as_str())], (0, Source::Nothing)),
            (
                599,
                vec![("Last-Modified", day_ago.as_str()), ("Cache-Control", "public")],
                (60, Source::Heuristic),
            ),
            (200, vec![("Last-Modified", "yesterday")], (0, Source::Nothing)),
            (200, vec![("Last-Modified", at(500).leak())], (0, Source::Heuristic)),
            (200, vec![], (0, Source::Nothing)),
            (200, vec![("Last-Modified", day_ago.as_str()), ("Expires", "x")], (0, Source::Invalid)),
        ] {
            let got = freshness(&policy, status, &pairs);
            assert_eq!((got.lifetime, got.source), expected, "{status} {pairs:?}");
        }
        let generous = Policy { default_seconds: Some(30), ..Policy::default() };
        assert_eq!(freshness(&generous, 200, &[]).lifetime, 30);
        assert_eq!(freshness(&generous, 500, &[]).lifetime, 0);
    }

    /// 9111-4.2.3-R1, 9111-4.2.3-01, 9111-5.1-01, 9111-5.1-02, C26.
    #[test]
    fn ages() {
        let date = at(0);
        for (pairs, delay, expected) in [
            (vec![], 0, 0),
            (vec![("Date", at(-100))], 0, 100),
            (vec![("Date", at(100))], 0, 0),
            (vec![("Date", "Fri, 31 Dec 2099 23:59:59 GMT".into())], 0, 0),
            (vec![("Age", "30".into()), ("Date", date.clone())], 0, 30),
            (vec![("Age", "30".into()), ("Date", date.clone())], 7, 37),
            (vec![("Age", "30".into()), ("Date", at(-100))], 7, 100),
            (vec![("Age", "1099511627776".into())], 0, SECONDS_MAX),
            (vec![("Age", "99999999999999999999999999".into())], 9, SECONDS_MAX),
            (vec![("Age", "7200, 0".into())], 0, 7200),
            (vec![("Age", "0, 7200".into())], 0, 0),
            (vec![("Age", "5".into()), ("Age", "7200".into())], 0, 5),
            (vec![("Age", "abc".into())], 0, 0),
            (vec![("Age", "-5".into())], 0, 0),
            (vec![("Age", "7200.0".into())], 0, 0),
            (vec![("Age", "7200;a=1".into())], 0, 0),
            (vec![("Age", "".into())], 0, 0),
        ] {
            let fields: Fields = pairs.iter().collect();
            assert_eq!(initial_age(&fields, HttpDate(NOW.0 - delay), NOW), expected, "{pairs:?} {delay}");
        }
    }

    /// 9111-4.2-R1: greater, not equal; C26: clocks that run backwards or jump to the end of time.
    #[test]
    fn resident_time() {
        let fresh = freshness(&Policy::default(), 200, &[("Cache-Control", "max-age=10"), ("Age", "3")]);
        for (later, age, is_fresh, remaining) in
            [(0, 3, true, 7), (6, 9, true, 1), (7, 10, false, 0), (8, 11, false, -1), (-50, 3, true, 7)]
        {
            let now = HttpDate(NOW.0 + later);
            assert_eq!(
                (fresh.age(now), fresh.is_fresh(now), fresh.remaining(now)),
                (age, is_fresh, remaining)
            );
        }
        assert_eq!(fresh.age(HttpDate(i64::MAX)), SECONDS_MAX);
        assert_eq!(fresh.age(HttpDate(i64::MIN)), 3);
        let reversed = HttpDate(NOW.0 + 100);
        let fields = Fields::new();
        assert_eq!(initial_age(&fields, reversed, NOW), 0, "a clock set back during the request");
    }

    /// 9111-4.2-01, 9111-4.2-04, 9111-4.2-03 (zones other than GMT are invalid, so no local time enters).
    #[test]
    fn dates_in_any_case() {
        for text in [
            "Thu, 18 Aug 2050 02:01:18 GMT",
            "THU, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 AUG 2050 02:01:18 gMT",
            "thursday, 18-aug-50 02:01:18 gmt",
            "THU AUG 18 02:01:18 2050",
        ] {
            assert_eq!(parse_date(text.as_bytes(), NOW), Some(HttpDate(2_544_400_878)), "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
        ] {
            assert_eq!(parse_date(text.as_bytes(), NOW), None, "{text}");
        }
    }
}
