//! What a cache makes of a response, in plain words with the section each comes from: stored or not, how long it is
//! fresh, what happens afterwards. Words only; every decision is asked of the rule that takes it.

use super::directives::{Delta, Origin, Qualified, ResponseDirectives};
use super::freshness::{Freshness, Source};
use super::key::{self, Vary};
use super::storing::may_store;
use super::{NotStored, Policy, Request, RequestDirectives, Response};
use crate::date::HttpDate;
use crate::names::Known;
use crate::validator::EntityTag;

/// What a cache makes of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it is stored, or why not.
    pub stored: Result<(), NotStored>,
    /// Whether it may answer a later request without asking the origin server.
    pub is_fresh: bool,
    /// Seconds it may be used without asking.
    pub fresh_seconds: u32,
    /// All of it, a sentence each.
    pub sentences: Vec<String>,
}

/// Explains a response to this request. `content_location_is_target` matters to POST only.
pub fn explain(
    request: &Request<'_>,
    response: &Response<'_>,
    policy: &Policy,
    content_location_is_target: bool,
    now: HttpDate,
) -> Explanation {
    let directives = ResponseDirectives::of(response.fields, &policy.targets);
    let freshness = Freshness::of(response, &directives, policy, now, now);
    let stored = may_store(request, response, &directives, &freshness, policy, content_location_is_target);
    let mut words = Vec::new();
    words.push(match stored {
        Ok(()) if policy.shared => "A shared cache stores it (RFC 9111 §3).".to_owned(),
        Ok(()) => "A private cache stores it (RFC 9111 §3).".to_owned(),
        Err(why) => format!("It is not stored: {}.", why.explain()),
    });
    if let Origin::Targeted(place) = directives.origin {
        let name = policy.targets.get(usize::from(place)).map_or("a targeted field", |name| name);
        words.push(format!("{name} counts; Cache-Control and Expires are not looked at (RFC 9213 §2.2)."));
    }
    let usable = directives.no_cache != Qualified::Whole && freshness.is_fresh(now);
    let fresh_seconds = if usable && stored.is_ok() { freshness.remaining(now).max(0) as u32 } else { 0 };
    if stored.is_ok() {
        lifetime(&freshness, &directives, response, policy, now, &mut words);
        afterwards(&directives, response, policy, now, &mut words);
        selection(request, response, policy, &mut words);
    } else if stored == Err(NotStored::ResponseNoStore) && freshness.lifetime > 0 {
        words.push("Its lifetime does not matter: no-store comes first (RFC 9111 §5.2.2.5).".into());
    }
    remarks(request, response, &directives, &mut words);
    Explanation { stored, is_fresh: fresh_seconds > 0, fresh_seconds, sentences: words }
}

fn lifetime(
    freshness: &Freshness,
    directives: &ResponseDirectives,
    response: &Response<'_>,
    policy: &Policy,
    now: HttpDate,
    words: &mut Vec<String>,
) {
    let seconds = freshness.lifetime;
    if directives.no_cache == Qualified::Whole {
        words.push("It is validated before every use: no-cache (RFC 9111 §5.2.2.4).".into());
        return;
    }
    let limited = if seconds == policy.lifetime_seconds_max && seconds > 0 {
        ", which is the most that this cache allows"
    } else {
        ""
    };
    words.push(match freshness.source {
        Source::SMaxage => format!("It is fresh for {}{limited}: s-maxage (RFC 9111 §5.2.2.10).", span(seconds)),
        Source::MaxAge => format!("It is fresh for {}{limited}: max-age (RFC 9111 §5.2.2.1).", span(seconds)),
        Source::Expires if seconds == 0 => "It is stale at once: Expires is not after Date (RFC 9111 §5.3).".into(),
        Source::Expires => {
            format!("It is fresh for {}{limited}: Expires minus Date (RFC 9111 §5.3).", span(seconds))
        }
        Source::Heuristic => {
            let percent = policy.heuristic_percent;
            format!(
                "Nothing says for how long. It counts as fresh for {}: {percent} % of the time since Last-Modified, \
                 with a limit (RFC 9111 §4.2.2).",
                span(seconds)
            )
        }
        Source::Default => {
            format!("Nothing says for how long. This cache's default is {}.", span(seconds))
        }
        Source::Invalid => {
            "It is stale at once: its lifetime cannot be read, or is said twice and differently (RFC 9111 §4.2.1, \
             §5.3)."
                .into()
        }
        Source::Nothing => {
            "It is stale at once: nothing says for how long it is fresh, and there is no Last-Modified to guess \
             by (RFC 9111 §4.2.2)."
                .into()
        }
    });
    let age = freshness.age(now);
    if age > 0 && seconds > 0 {
        let left = freshness.remaining(now);
        let by = if response.fields.contains(Known::Age) { "Age" } else { "Date" };
        words.push(if left > 0 {
            format!(
                "It was {} old when it arrived, by its {by}, so {} are left (RFC 9111 §4.2.3).",
                span(age),
                span(left as u32)
            )
        } else {
            format!(
                "It was {} old when it arrived, by its {by}, and so is stale (RFC 9111 §4.2.3).",
                span(age)
            )
        });
    }
}

fn afterwards(
    directives: &ResponseDirectives,
    response: &Response<'_>,
    policy: &Policy,
    now: HttpDate,
    words: &mut Vec<String>,
) {
    let tag = response.fields.only(Known::ETag).one().and_then(EntityTag::parse);
    let modified = response.fields.only(Known::LastModified).one();
    let modified = modified.is_some_and(|value| super::freshness::parse_date(value, now).is_some());
    words.push(match (tag, modified) {
        (Some(tag), _) => format!(
            "Once stale it is validated with its {} entity tag: a 304 makes it fresh again (RFC 9111 §4.3).",
            if tag.weak { "weak" } else { "strong" }
        ),
        (None, true) => {
            "Once stale it is validated with If-Modified-Since: a 304 makes it fresh again (RFC 9111 §4.3)."
                .into()
        }
        (None, false) => "It has no validator: once stale it is fetched whole (RFC 9111 §4.3.1).".into(),
    });
    if response.fields.contains(Known::ETag) && tag.is_none() {
        words.push("Its ETag is none: a tag stands in quotes, perhaps after `W/` (RFC 9110 §8.8.3).".into());
    }
    if directives.forbids_stale(policy.shared) {
        let why = if directives.must_revalidate {
            "must-revalidate (RFC 9111 §5.2.2.2)"
        } else if directives.no_cache == Qualified::Whole {
            "no-cache (RFC 9111 §5.2.2.4)"
        } else if directives.proxy_revalidate {
            "proxy-revalidate (RFC 9111 §5.2.2.8)"
        } else {
            "s-maxage (RFC 9111 §5.2.2.10)"
        };
        words.push(format!("It is never served stale: {why}; without the origin server the answer is 504."));
        return;
    }
    let allowed =
        |delta: Delta, ours: u32| delta.seconds().unwrap_or(if delta.is_present() { 0 } else { ours });
    let meanwhile = allowed(directives.stale_while_revalidate, policy.stale_while_revalidate_seconds);
    if meanwhile > 0 {
        words.push(format!(
            "For {} after that it is served while it is validated: stale-while-revalidate (RFC 5861 §3).",
            span(meanwhile)
        ));
    }
    let error = allowed(directives.stale_if_error, policy.stale_if_error_seconds);
    if error > 0 {
        words.push(format!(
            "For {} it is served if the origin server fails: stale-if-error (RFC 5861 §4).",
            span(error.min(policy.stale_seconds_max))
        ));
    } else if policy.stale_when_disconnected && !directives.stale_if_error.is_present() {
        words.push(format!(
            "If the origin server cannot be reached it is served for {} more (RFC 9111 §4.2.4).",
            span(policy.stale_seconds_max)
        ));
    }
}

fn selection(request: &Request<'_>, response: &Response<'_>, policy: &Policy, words: &mut Vec<String>) {
    if let Vary::Names(names) = key::nominated(response.fields)
        && !names.is_empty()
    {
        let names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
        words.push(format!("It answers requests with the same {} (RFC 9111 §4.1).", names.join(", ")));
    }
    if policy.shared && request.fields.contains(Known::Authorization) {
        words.push(
            "It is shared although the request has Authorization: the response allows it (RFC 9111 §3.5)."
                .into(),
        );
    }
    if response.fields.contains(Known::SetCookie) {
        words.push(
            "Set-Cookie does not prevent storing: all who get it get the same cookie (RFC 9111 §7.3).".into(),
        );
    }
}

fn remarks(
    request: &Request<'_>,
    response: &Response<'_>,
    directives: &ResponseDirectives,
    words: &mut Vec<String>,
) {
    if response.fields.contains(Known::Pragma) {
        words.push("Pragma means nothing in a response (RFC 9111 §5.4).".into());
    }
    let delta = directives.max_age.is_present() || directives.s_maxage.is_present();
    if delta && directives.origin == Origin::CacheControl && response.fields.contains(Known::Expires) {
        words.push("Expires does not count beside max-age or s-maxage (RFC 9111 §5.3).".into());
    }
    if !RequestDirectives::of(request.fields).is_plain() {
        words.push("The request's own directives may ask for something fresher (RFC 9111 §5.2.1).".into());
    }
}

/// A time in words.
fn span(seconds: u32) -> String {
    let of = |n: u32, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match seconds {
        0 => "0 seconds".into(),
        s if s % 86_400 == 0 => of(s / 86_400, "day"),
        s if s % 3600 == 0 => of(s / 3600, "hour"),
        s if s % 60 == 0 => of(s / 60, "minute"),
        s => of(s, "second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Fields;
    use crate::method::Method;
    use crate::status::Status;

    const NOW: HttpDate = HttpDate(1_795_521_600);

    fn said(
        policy: &Policy,
        request: &[(&str, &str)],
        status: u16,
        response: &[(&str, &str)],
    ) -> Explanation {
        let (asked, fields): (Fields, Fields) = (request.iter().collect(), response.iter().collect());
        let request = Request { method: &Method::Get, fields: &asked, has_content: false };
        let response = Response { status: Status::new(status).unwrap(), fields: &fields };
        explain(&request, &response, policy, false, NOW)
    }

    #[test]
    fn in_plain_words() {
        let shared = Policy::default();
        let day_ago = HttpDate(NOW.0 - 86_400).to_string();
        type Row<'a> = (u16, &'a [(&'a str, &'a str)], u32, &'a [&'a str]);
        let rows: &[Row<'_>] = &[
            (
                200,
                &[("Cache-Control", "max-age=3600"), ("ETag", "\"a\"")],
                3600,
                &["1 hour: max-age", "strong entity tag"],
            ),
            (
                200,
                &[("Cache-Control", "s-maxage=60")],
                60,
                &["s-maxage", "no validator", "never served stale"],
            ),
            (
                200,
                &[("Cache-Control", "max-age=60"), ("Age", "50")],
                10,
                &["50 seconds old", "10 seconds are left"],
            ),
            (200, &[("Cache-Control", "max-age=60"), ("Age", "90")], 0, &["by its Age, and so is stale"]),
            (
                200,
                &[("Cache-Control", "no-store, max-age=9")],
                0,
                &["not stored", "§5.2.2.5", "does not matter"],
            ),
            (200, &[("Cache-Control", "private, max-age=9")], 0, &["not stored", "§5.2.2.7"]),
            (
                200,
                &[("Cache-Control", "no-cache"), ("ETag", "W/\"a\"")],
                0,
                &["before every use", "weak entity tag"],
            ),
            (200, &[("Last-Modified", &day_ago)], 8640, &["10 % of the time", "If-Modified-Since"]),
            (200, &[("ETag", "a")], 0, &["stale at once", "in quotes"]),
            (200, &[("Cache-Control", "max-age=x"), ("ETag", "\"a\"")], 0, &["cannot be read"]),
            (200, &[("Cache-Control", "max-age=9"), ("Vary", "Accept, Foo")], 9, &["same accept, foo"]),
            (200, &[("Cache-Control", "max-age=9"), ("Vary", "*")], 0, &["not stored", "§4.1"]),
            (200, &[("Cache-Control", "max-age=9"), ("Set-Cookie", "a=b")], 9, &["§7.3"]),
            (
                200,
                &[("CDN-Cache-Control", "max-age=9"), ("Cache-Control", "no-store")],
                9,
                &["CDN-Cache-Control counts"],
            ),
            (
                200,
                &[("Cache-Control", "max-age=9, stale-while-revalidate=60, stale-if-error=120")],
                9,
                &["RFC 5861 §3", "2 minutes"],
            ),
            (200, &[("Cache-Control", "max-age=9"), ("Pragma", "no-cache")], 9, &["Pragma means nothing"]),
            (503, &[], 0, &["not stored"]),
            (429, &[("Cache-Control", "max-age=9")], 0, &["not stored", "RFC 6585"]),
        ];
        for (status, response, fresh, words) in rows {
            let got = said(&shared, &[], *status, response);
            assert_eq!(got.fresh_seconds, *fresh, "{response:?}: {got:?}");
            let text = got.sentences.join(" ");
            for word in *words {
                assert!(text.contains(word), "{response:?} lacks {word:?}: {text}");
            }
        }
        let private = said(&Policy::private(), &[], 200, &[("Cache-Control", "private, max-age=9")]);
        assert_eq!((private.stored, private.fresh_seconds), (Ok(()), 9));
        let secret = said(&shared, &[("Authorization", "x")], 200, &[("Cache-Control", "max-age=9")]);
        assert_eq!(secret.stored, Err(NotStored::Authorization));
        let open = said(&shared, &[("Authorization", "x")], 200, &[("Cache-Control", "public, max-age=9")]);
        assert!(open.sentences.join(" ").contains("§3.5"));
    }
}
