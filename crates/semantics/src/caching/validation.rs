//! Validation (RFC 9111 §4.3): which conditions go to the origin server for stored responses, what its answer
//! means for them, and how a 304 or a response to HEAD updates stored fields (§3.2, §4.3.4, §4.3.5). Also the
//! conditions of the client, evaluated against a stored response (§4.3.2).

use super::Request;
use super::directives::ResponseDirectives;
use super::freshness::{date_value, parse_date};
use super::storing::fields_to_store;
use crate::conditional::{self, Verdict};
use crate::date::HttpDate;
use crate::fields::Fields;
use crate::names::Known;
use crate::status::{Class, Status};
use crate::validator::{EntityTag, EntityTags, Validators, last_modified_is_strong};

/// What a client's conditions come to against a stored response that may be reused. Only `Proceed` and
/// `NotModified`: the conditions that only the origin server may evaluate send the request past the cache
/// (9111-4.3.2-02, [`super::reuse::bypass`]).
pub fn client_condition(
    request: &Request<'_>,
    status: Status,
    stored: &Fields,
    received: HttpDate,
    now: HttpDate,
) -> Verdict {
    // 9111-4.3.2-01: of a stored 200 or 206.
    if !matches!(status, Status::OK | Status::PARTIAL_CONTENT) {
        return Verdict::Proceed;
    }
    if !request.fields.contains_any(&[Known::IfNoneMatch, Known::IfModifiedSince]) {
        return Verdict::Proceed;
    }
    let mut validators = stored_validators(stored, now);
    if validators.last_modified.is_none() {
        // 9111-4.3.2-03: then the time it was made, or received.
        validators.last_modified = Some(date_value(stored, received));
    }
    match conditional::evaluate(request.method, request.fields, &validators, now) {
        not_modified @ Verdict::NotModified(_) => not_modified,
        Verdict::Proceed | Verdict::Failed(_) => Verdict::Proceed,
    }
}

/// The validators of a stored response, its dates read as caches read dates.
pub fn stored_validators(stored: &Fields, now: HttpDate) -> Validators<'_> {
    let mut validators = Validators::of_response(stored, now);
    if validators.last_modified.is_none() {
        validators.last_modified =
            stored.only(Known::LastModified).one().and_then(|value| parse_date(value, now));
    }
    validators
}

/// Turns the header section of a request into one that validates `stored` responses (RFC 9111 §4.3.1), most
/// preferred first. Range and If-Range are removed: what comes back is for the store as well.
///
/// Returns whether any condition for a stored response is in it; if not, the client's own conditions are left
/// as they were.
pub fn write_conditions(forwarded: &mut Fields, stored: &[&Fields]) -> bool {
    let mut tags: Vec<&[u8]> = Vec::new();
    for fields in stored {
        if let Some(tag) = fields.only(Known::ETag).one()
            && EntityTag::parse(tag).is_some()
            && !tags.contains(&tag)
        {
            tags.push(tag);
        }
    }
    // 9111-4.3.1-02: for a single response only, and as it was received.
    let modified = match stored {
        [only] => only.only(Known::LastModified).one(),
        _ => None,
    };
    if tags.is_empty() && modified.is_none() {
        return false;
    }
    forwarded.remove(Known::Range);
    forwarded.remove(Known::IfRange);
    forwarded.remove(Known::IfModifiedSince);
    // 9111-4.3.2-04: the client's own tags go along, so that a 304 can be for it alone.
    let own = match EntityTags::of(forwarded, Known::IfNoneMatch) {
        EntityTags::List(own) => {
            let mut more = Vec::new();
            for tag in &own {
                let mut text = Vec::new();
                tag.write(&mut text);
                if !tags.contains(&&text[..]) && !more.contains(&text) {
                    more.push(text);
                }
            }
            more
        }
        EntityTags::Any | EntityTags::Malformed => Vec::new(),
    };
    forwarded.remove(Known::IfNoneMatch);
    if !tags.is_empty() {
        let mut list = tags;
        list.extend(own.iter().map(|tag| &tag[..]));
        // Parsed tags and a comma: always a valid field value.
        let _ = forwarded.push(Known::IfNoneMatch, list.join(&b", "[..]));
    }
    if let Some(modified) = modified {
        let _ = forwarded.push(Known::IfModifiedSince, modified);
    }
    true
}

/// What the answer to a validation means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 304 for the stored responses at these places (9111-4.3.3-R1): update and reuse.
    Freshen(Vec<usize>),
    /// 304 for what the client itself has: pass it on.
    ForClient,
    /// 304 that names none of them (9111-4.3.4-01): ask again without conditions.
    Unknown,
    /// A full response (9111-4.3.3-01): it replaces the stored one and answers the client.
    Full,
    /// 500, 502, 503 or 504 (9111-4.3.3-R2): pass it on, or serve stale if that is permitted.
    Error,
}

/// Reads the answer to a validation of `stored`, whose places in that slice it returns. `client` is the
/// request as the client sent it.
pub fn read_answer(
    status: Status,
    answer: &Fields,
    client: &Fields,
    stored: &[&Fields],
    now: HttpDate,
) -> Answer {
    if status != Status::NOT_MODIFIED {
        let error = matches!(status.code(), 500 | 502 | 503 | 504);
        return if error { Answer::Error } else { Answer::Full };
    }
    let identified = identify(answer, stored, now);
    if !identified.is_empty() {
        return Answer::Freshen(identified);
    }
    let own_tags = EntityTags::of(client, Known::IfNoneMatch);
    let answer_tag = answer.only(Known::ETag).one().and_then(EntityTag::parse);
    match (own_tags, answer_tag) {
        (EntityTags::List(own), Some(tag)) if own.iter().any(|t| t.weak_eq(&tag)) => Answer::ForClient,
        // A 304 without a validator, for the one response that was asked about, and nobody else's tags in
        // the question: it can mean nothing else.
        (EntityTags::List(own), None)
            if own.is_empty() && stored.len() == 1 && !answer.contains(Known::LastModified) =>
        {
            Answer::Freshen(vec![0])
        }
        _ => Answer::Unknown,
    }
}

/// The stored responses that a 304 is about (RFC 9111 §4.3.4, 9111-4.3.4-R1).
pub fn identify(answer: &Fields, stored: &[&Fields], now: HttpDate) -> Vec<usize> {
    let new = stored_validators(answer, now);
    let validators: Vec<Validators<'_>> =
        stored.iter().map(|fields| stored_validators(fields, now)).collect();
    let matching = |test: &dyn Fn(&Validators<'_>) -> bool| -> Vec<usize> {
        (0..stored.len()).filter(|&i| test(&validators[i])).collect()
    };
    if let Some(tag) = new.etag.filter(|tag| !tag.weak) {
        // Also the dated form counts as a strong validator, but only where there is no tag to say otherwise.
        return matching(&|old| match old.etag {
            Some(old_tag) => old_tag.strong_eq(&tag),
            None => new.last_modified.is_some() && old.last_modified == new.last_modified,
        });
    }
    if new.etag.is_none()
        && let Some(modified) = new.last_modified
        && last_modified_is_strong(modified, date_value(answer, now))
    {
        return matching(&|old| old.last_modified == Some(modified));
    }
    let weakly = matching(&|old| match (new.etag, old.etag) {
        (Some(a), Some(b)) => a.weak_eq(&b),
        _ => new.last_modified.is_some() && old.last_modified == new.last_modified,
    });
    // The most recent of those that match.
    let recent = weakly.into_iter().max_by_key(|&i| date_value(stored[i], HttpDate(i64::MIN)));
    recent.into_iter().collect()
}

/// The stored header section updated by that of a 304 or a response to HEAD (RFC 9111 §3.2): every field that
/// was received replaces all stored lines of its name, except what is not stored, and what says how the stored
/// octets are to be read (9111-3.2-02, 9111-3.2-03, C20).
pub fn update(stored: &Fields, received: &Fields, directives: &ResponseDirectives, shared: bool) -> Fields {
    let mut new = fields_to_store(received, directives, shared);
    new.retain(|field| !describes_octets(field.name, field.known, stored));
    let mut updated = stored.clone();
    updated.retain(|old| match old.known {
        Some(known) => !new.contains(known),
        None => !new.contains(old.name),
    });
    updated.extend(&new);
    updated
}

/// Fields that stay as stored, because the octets that are kept are those they describe.
fn describes_octets(name: &[u8], known: Option<Known>, stored: &Fields) -> bool {
    match known {
        Some(Known::ContentEncoding | Known::ContentRange | Known::ContentDigest | Known::ReprDigest) => true,
        // The stored tag names the stored octets; a new one only where there was none.
        Some(Known::ETag) => stored.contains(Known::ETag),
        // A different Vary would put the response under a key it was not selected by.
        Some(Known::Vary) => true,
        _ => name.eq_ignore_ascii_case(b"content-md5") || name.eq_ignore_ascii_case(b"digest"),
    }
}

/// Whether a 200 to HEAD is about the stored response (9111-4.3.5-01): then it updates it, else the stored one
/// is stale (9111-4.3.5-02b, C19). Lengths are those of the content, where known.
pub fn head_matches(
    stored: &Fields,
    stored_length: Option<u64>,
    head: &Fields,
    head_length: Option<u64>,
    now: HttpDate,
) -> bool {
    let (old, new) = (stored_validators(stored, now), stored_validators(head, now));
    // A validator on one side only is no match. Without any on either, nothing received contradicts what is
    // stored, and the RFC has it updated: HEAD is the way to refresh what has no validators.
    let has = |name| (stored.contains(name), head.contains(name));
    let tags = match has(Known::ETag) {
        (false, false) => true,
        (true, true) => matches!((old.etag, new.etag), (Some(a), Some(b)) if a == b),
        _ => false,
    };
    let dates = match has(Known::LastModified) {
        (false, false) => true,
        (true, true) => new.last_modified == old.last_modified,
        _ => false,
    };
    let lengths = head_length.is_none() || stored_length.is_none() || head_length == stored_length;
    tags && dates && lengths
}

/// The fields of a 304 made from a stored response (9110-15.4.5-01): what a 200 would have carried of these.
/// Others would only repeat what the client has.
pub fn write_not_modified(stored: &Fields) -> Fields {
    let mut fields = Fields::with_capacity(256);
    for field in stored.iter() {
        let kept = matches!(
            field.known,
            Some(
                Known::CacheControl
                    | Known::ContentLocation
                    | Known::Date
                    | Known::ETag
                    | Known::Expires
                    | Known::Vary
                    | Known::LastModified
                    | Known::CdnCacheControl
                    | Known::Via
                    | Known::CacheStatus
            )
        );
        if kept {
            fields.append_parsed(field.name, field.value, field.known);
        }
    }
    fields
}

/// Whether this status, in answer to a request with our conditions, says that the stored response no longer
/// counts: any final answer that is neither 304 nor a server error.
pub fn supersedes(status: Status) -> bool {
    !status.is_interim() && status != Status::NOT_MODIFIED && status.class() != Class::ServerError
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;

    const NOW: HttpDate = HttpDate(1_795_521_600);
    const LM: &str = "Mon, 23 Nov 2026 12:00:00 GMT";
    const LATER: &str = "Tue, 24 Nov 2026 11:00:00 GMT";

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().collect()
    }

    /// 9111-4.3.2-01, 9111-4.3.2-02, 9111-4.3.2-03.
    #[test]
    fn client_conditions() {
        let check = |status: u16, stored: &[(&str, &str)], request: &[(&str, &str)]| {
            let request_fields = fields(request);
            let request = Request { method: &Method::Get, fields: &request_fields, has_content: false };
            let status = Status::new(status).unwrap();
            client_condition(&request, status, &fields(stored), NOW, NOW) != Verdict::Proceed
        };
        let tagged = [("ETag", "\"a\""), ("Last-Modified", LM)];
        for (status, stored, request, not_modified) in [
            (200, &tagged[..], &[][..], false),
            (200, &tagged, &[("If-None-Match", "\"a\"")], true),
            (200, &tagged, &[("If-None-Match", "W/\"a\"")], true),
            (200, &tagged, &[("If-None-Match", "\"b\", \"a\"")], true),
            (200, &tagged, &[("If-None-Match", "*")], true),
            (200, &tagged, &[("If-None-Match", "\"b\"")], false),
            (200, &tagged, &[("If-None-Match", "a")], false),
            (206, &tagged, &[("If-None-Match", "\"a\"")], true),
            (404, &tagged, &[("If-None-Match", "\"a\"")], false),
            (301, &tagged, &[("If-Modified-Since", LATER)], false),
            // If-None-Match hides If-Modified-Since.
            (200, &tagged, &[("If-None-Match", "\"b\""), ("If-Modified-Since", LATER)], false),
            (200, &tagged, &[("If-Modified-Since", LM)], true),
            (200, &tagged, &[("If-Modified-Since", LATER)], true),
            (200, &tagged, &[("If-Modified-Since", "Sun, 22 Nov 2026 12:00:00 GMT")], false),
            (200, &tagged, &[("If-Modified-Since", "yesterday")], false),
            // Without Last-Modified: Date, else the time of arrival.
            (200, &[("Date", LM)], &[("If-Modified-Since", LATER)], true),
            (200, &[("Date", LATER)], &[("If-Modified-Since", LM)], false),
            (200, &[], &[("If-Modified-Since", LATER)], false),
        ] {
            assert_eq!(check(status, stored, request), not_modified, "{status} {stored:?} {request:?}");
        }
    }

    /// 9111-4.3.1-01, 9111-4.3.1-02, 9111-4.3.2-04.
    #[test]
    fn conditions() {
        for (request, stored, expected) in [
            (&[("A", "1")][..], vec![&[("ETag", "\"a\"")][..]], "A: 1\r\nIf-None-Match: \"a\"\r\n"),
            (
                &[],
                vec![&[("ETag", "W/\"a\""), ("Last-Modified", LM)]],
                "If-None-Match: W/\"a\"\r\nIf-Modified-Since: Mon, 23 Nov 2026 12:00:00 GMT\r\n",
            ),
            (&[], vec![&[("Last-Modified", LM)]], "If-Modified-Since: Mon, 23 Nov 2026 12:00:00 GMT\r\n"),
            // Several stored variants: all tags, no date.
            (
                &[],
                vec![&[("ETag", "\"a\""), ("Last-Modified", LM)], &[("ETag", "\"b\"")], &[("ETag", "\"a\"")]],
                "If-None-Match: \"a\", \"b\"\r\n",
            ),
            // The client's tags go along; its date does not.
            (
                &[("If-None-Match", "\"c\", \"a\""), ("If-Modified-Since", LATER)],
                vec![&[("ETag", "\"a\"")]],
                "If-None-Match: \"a\", \"c\"\r\n",
            ),
            (&[("If-None-Match", "*")], vec![&[("ETag", "\"a\"")]], "If-None-Match: \"a\"\r\n"),
            (
                &[("If-Modified-Since", LATER)],
                vec![&[("Last-Modified", LM)]],
                "If-Modified-Since: Mon, 23 Nov 2026 12:00:00 GMT\r\n",
            ),
            (
                &[("Range", "bytes=0-1"), ("If-Range", "\"a\"")],
                vec![&[("ETag", "\"a\"")]],
                "If-None-Match: \"a\"\r\n",
            ),
            // Nothing to validate with: as it was.
            (&[("If-None-Match", "\"c\"")], vec![&[("X", "1")]], "If-None-Match: \"c\"\r\n"),
            (&[("Range", "bytes=0-1")], vec![&[("ETag", "unquoted")]], "Range: bytes=0-1\r\n"),
        ] {
            let mut forwarded = fields(request);
            let stored: Vec<Fields> = stored.iter().map(|pairs| fields(pairs)).collect();
            let refs: Vec<&Fields> = stored.iter().collect();
            let any = write_conditions(&mut forwarded, &refs);
            assert_eq!(String::from_utf8_lossy(forwarded.wire()), expected, "{request:?}");
            assert_eq!(any, fields(request) != forwarded, "{request:?}");
        }
    }

    /// 9111-4.3.3-R1, 9111-4.3.3-R2, 9111-4.3.3-01, 9111-4.3.4-01, 9111-4.3.4-R1, 9111-4.3.2-06, C21.
    #[test]
    fn answers() {
        let stored = [
            fields(&[("ETag", "\"a\""), ("Date", LM)]),
            fields(&[("ETag", "\"b\""), ("Date", LATER)]),
            fields(&[("ETag", "W/\"c\""), ("Date", LM)]),
            fields(&[("ETag", "\"c\""), ("Date", LATER)]),
            fields(&[("Last-Modified", LM)]),
            fields(&[("ETag", "\"a\"")]),
        ];
        let stored: Vec<&Fields> = stored.iter().collect();
        for (status, answer, client, expected) in [
            (200, &[][..], &[][..], Answer::Full),
            (404, &[], &[], Answer::Full),
            (500, &[], &[], Answer::Error),
            (501, &[], &[], Answer::Full),
            (504, &[], &[], Answer::Error),
            (304, &[("ETag", "\"a\"")], &[], Answer::Freshen(vec![0, 5])),
            (304, &[("ETag", "\"b\"")], &[], Answer::Freshen(vec![1])),
            (304, &[("ETag", "W/\"c\"")], &[], Answer::Freshen(vec![3])),
            (304, &[("ETag", "W/\"a\"")], &[], Answer::Freshen(vec![0])),
            (304, &[("Last-Modified", LM)], &[], Answer::Freshen(vec![4])),
            (304, &[("ETag", "\"z\"")], &[], Answer::Unknown),
            (304, &[("ETag", "\"z\"")], &[("If-None-Match", "\"z\"")], Answer::ForClient),
            (304, &[("ETag", "\"a\"")], &[("If-None-Match", "\"z\"")], Answer::Freshen(vec![0, 5])),
            (304, &[("Last-Modified", LATER)], &[], Answer::Unknown),
            (304, &[], &[], Answer::Unknown),
        ] {
            let got =
                read_answer(Status::new(status).unwrap(), &fields(answer), &fields(client), &stored, NOW);
            assert_eq!(got, expected, "{status} {answer:?} {client:?}");
        }
        // A bare 304 about the one response that was asked about.
        let one = [stored[0]];
        let bare = |client: &[(&str, &str)]| {
            read_answer(Status::NOT_MODIFIED, &Fields::new(), &fields(client), &one, NOW)
        };
        assert_eq!(bare(&[]), Answer::Freshen(vec![0]));
        assert_eq!(bare(&[("If-None-Match", "\"z\"")]), Answer::Unknown);
    }

    /// 9111-3.2-01, 9111-3.2-02, 9111-3.1-02, 9111-4.3.4-02, C20.
    #[test]
    fn updates() {
        let stored = fields(&[
            ("Content-Type", "text/plain"),
            ("Content-Encoding", "gzip"),
            ("X", "1"),
            ("x", "2"),
            ("ETag", "\"a\""),
            ("Kept", "k"),
            ("Vary", "Foo"),
        ]);
        let received = fields(&[
            ("Content-Type", "text/html"),
            ("Content-Encoding", "br"),
            ("Content-Length", "0"),
            ("Content-Range", "bytes 0-0/1"),
            ("Content-MD5", "x"),
            ("Content-Digest", "sha-256=:AA==:"),
            ("Connection", "close, drop"),
            ("Drop", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Age", "5"),
            ("X", "3"),
            ("New", "n"),
            ("ETag", "W/\"a\""),
            ("Vary", "*"),
            ("Set-Cookie", "a=1"),
        ]);
        let updated = update(&stored, &received, &ResponseDirectives::default(), true);
        assert_eq!(
            String::from_utf8_lossy(updated.wire()),
            "Content-Encoding: gzip\r\nETag: \"a\"\r\nKept: k\r\nVary: Foo\r\nContent-Type: text/html\r\nX: 3\r\nNew: n\r\n\
             Set-Cookie: a=1\r\n"
        );
        let directives =
            ResponseDirectives::cache_control(&fields(&[("Cache-Control", "private=\"set-cookie\"")]));
        assert!(!update(&stored, &received, &directives, true).contains(Known::SetCookie));
        let untagged = update(&fields(&[("X", "1")]), &received, &ResponseDirectives::default(), true);
        assert_eq!(untagged.get(Known::ETag), Some(&b"W/\"a\""[..]));
    }

    /// 9111-4.3.5-01, 9111-4.3.5-02a, 9111-4.3.5-02b, 9111-4.3.5-03, C19.
    #[test]
    fn heads() {
        let (tagged, dated, both) =
            (("ETag", "\"a\""), ("Last-Modified", LM), [("ETag", "\"a\""), ("Last-Modified", LM)]);
        for (stored, head, length, matches) in [
            (&both[..], &both[..], None, true),
            (&both, &both, Some(10), true),
            (&both, &both, Some(11), false),
            (&both, &[tagged], None, false),
            (&both, &[], Some(10), false),
            (&[tagged], &[tagged], None, true),
            (&[tagged], &[("ETag", "W/\"a\"")], None, false),
            (&[tagged], &[("ETag", "\"b\"")], None, false),
            (&[tagged], &[("ETag", "b")], None, false),
            (&[tagged], &both, None, false),
            (&[dated], &[dated], Some(10), true),
            (&[dated], &[("Last-Modified", LATER)], Some(10), false),
            (&[], &[], Some(10), true),
            (&[], &[], None, true),
            (&[], &[], Some(9), false),
            (&[], &[tagged], Some(10), false),
        ] {
            let got = head_matches(&fields(stored), Some(10), &fields(head), length, NOW);
            assert_eq!(got, matches, "{stored:?} {head:?} {length:?}");
        }
    }

    /// 9110-15.4.5-01.
    #[test]
    fn not_modified_fields() {
        let stored =
            fields(&[("Content-Type", "a/b"), ("ETag", "\"a\""), ("Date", LM), ("X", "1"), ("Vary", "A")]);
        let got = write_not_modified(&stored);
        assert_eq!(got.wire(), b"ETag: \"a\"\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nVary: A\r\n");
    }
}
