//! Preconditions (RFC 9110 §13), evaluated in the order of §13.2.2 against the validators of the selected
//! representation. Returns a verdict; writing the 304 or 412 is for whoever asked. A proxy that is neither
//! the origin nor a cache of the target must not call this (9110-13.2.1-03a).

use crate::date::HttpDate;
use crate::fields::{Fields, Only};
use crate::method::Method;
use crate::names::Known;
use crate::status::{Class, Status};
use crate::validator::{EntityTag, EntityTags, Validators, last_modified_is_strong};

/// One of the four conditions on whether a method is performed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// RFC 9110 §13.1.1.
    IfMatch,
    /// RFC 9110 §13.1.4.
    IfUnmodifiedSince,
    /// RFC 9110 §13.1.2.
    IfNoneMatch,
    /// RFC 9110 §13.1.3.
    IfModifiedSince,
}

impl Condition {
    /// The field that states it.
    pub fn field(self) -> Known {
        match self {
            Condition::IfMatch => Known::IfMatch,
            Condition::IfUnmodifiedSince => Known::IfUnmodifiedSince,
            Condition::IfNoneMatch => Known::IfNoneMatch,
            Condition::IfModifiedSince => Known::IfModifiedSince,
        }
    }
}

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Every condition is true, absent or to be ignored: perform the method.
    Proceed,
    /// 304: the client has the representation already. Only for GET and HEAD.
    NotModified(Condition),
    /// 412: do not perform the method.
    Failed(Condition),
}

/// The fields that this file reads: a request without any of them needs no evaluation.
pub const CONDITIONAL_FIELDS: [Known; 4] =
    [Known::IfMatch, Known::IfUnmodifiedSince, Known::IfNoneMatch, Known::IfModifiedSince];

/// Whether preconditions count at all: not where the answer without them would be neither 2xx nor 412
/// (9110-13.2.1-02), and not for CONNECT, OPTIONS and TRACE (9110-13.2.1-04).
pub fn applies(method: &Method, status_without: Status) -> bool {
    !matches!(method, Method::Connect | Method::Options | Method::Trace)
        && (status_without.class() == Class::Successful || status_without == Status::PRECONDITION_FAILED)
}

/// Evaluates the conditions of a request whose answer would otherwise be successful (see [`applies`]).
/// `now` settles obsolete dates, and a date later than now is no valid If-Modified-Since (fault G16).
///
/// A malformed list of entity tags matches nothing in If-Match. In If-None-Match it matches nothing for GET
/// and HEAD, so the client gets the representation, and fails every other method: what cannot be read must
/// not let a change through.
pub fn evaluate(method: &Method, fields: &Fields, validators: &Validators<'_>, now: HttpDate) -> Verdict {
    if !fields.contains_any(&CONDITIONAL_FIELDS) {
        return Verdict::Proceed;
    }
    // 9110-13.2.1-04
    if matches!(method, Method::Connect | Method::Options | Method::Trace) {
        return Verdict::Proceed;
    }
    let reads = matches!(method, Method::Get | Method::Head);

    // Step 1 (9110-13.2.2-01a), and step 2 only without If-Match (9110-13.2.2-01b, 9110-13.1.4-01).
    if fields.contains(Known::IfMatch) {
        if !if_match(fields, validators) {
            return Verdict::Failed(Condition::IfMatch);
        }
    } else if if_unmodified_since(fields, validators, now) == Some(false) {
        return Verdict::Failed(Condition::IfUnmodifiedSince);
    }

    // Step 3 (9110-13.2.2-01c), and step 4 only without If-None-Match (9110-13.2.2-01d, 9110-13.1.3-01).
    if fields.contains(Known::IfNoneMatch) {
        if !if_none_match(fields, validators, reads) {
            // 9110-13.1.2-04
            return match reads {
                true => Verdict::NotModified(Condition::IfNoneMatch),
                false => Verdict::Failed(Condition::IfNoneMatch),
            };
        }
    } else if reads && if_modified_since(fields, validators, now) == Some(false) {
        return Verdict::NotModified(Condition::IfModifiedSince);
    }
    // Step 5 is If-Range, and needs a Range: see `if_range`.
    Verdict::Proceed
}

fn if_match(fields: &Fields, validators: &Validators<'_>) -> bool {
    match EntityTags::of(fields, Known::IfMatch) {
        EntityTags::Any => validators.exists,
        // 9110-13.1.1-01
        EntityTags::List(tags) => {
            validators.etag.is_some_and(|current| tags.iter().any(|tag| tag.strong_eq(&current)))
        }
        EntityTags::Malformed => false,
    }
}

fn if_none_match(fields: &Fields, validators: &Validators<'_>, reads: bool) -> bool {
    match EntityTags::of(fields, Known::IfNoneMatch) {
        EntityTags::Any => !validators.exists,
        // 9110-13.1.2-01
        EntityTags::List(tags) => {
            !validators.etag.is_some_and(|current| tags.iter().any(|tag| tag.weak_eq(&current)))
        }
        EntityTags::Malformed => reads,
    }
}

/// `None` where the field is absent or to be ignored: invalid, several members, or nothing to compare with
/// (9110-13.1.4-02, 9110-13.1.4-03).
fn if_unmodified_since(fields: &Fields, validators: &Validators<'_>, now: HttpDate) -> Option<bool> {
    let date = HttpDate::parse(fields.only(Known::IfUnmodifiedSince).one()?, now)?;
    Some(validators.last_modified? <= date)
}

/// `None` as in [`if_unmodified_since`] (9110-13.1.3-02, 9110-13.1.3-03).
fn if_modified_since(fields: &Fields, validators: &Validators<'_>, now: HttpDate) -> Option<bool> {
    let date = HttpDate::parse(fields.only(Known::IfModifiedSince).one()?, now)?;
    if date > now {
        return None;
    }
    Some(validators.last_modified? > date)
}

/// What If-Range says of a request that has a Range (RFC 9110 §13.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IfRange {
    /// No If-Range: the ranges stand unconditionally.
    Absent,
    /// The representation is the one the client has a part of.
    Matches,
    /// It is another one, or has no such validator.
    Differs,
    /// The tag sent or the current one is weak, or the date is not a strong validator (fault G14).
    Weak,
    /// Neither an entity tag nor a date, or several lines.
    Invalid,
}

impl IfRange {
    /// Whether Range is to be processed; if not, it is ignored (9110-13.1.5-07).
    pub fn allows_ranges(self) -> bool {
        matches!(self, IfRange::Absent | IfRange::Matches)
    }
}

/// Evaluates If-Range. Only for requests with a Range: without one it is ignored (9110-13.1.5-02).
pub fn if_range(fields: &Fields, validators: &Validators<'_>, now: HttpDate) -> IfRange {
    let value = match fields.only(Known::IfRange) {
        Only::Absent => return IfRange::Absent,
        Only::One(value) => value,
        Only::Several => return IfRange::Invalid,
    };
    // A valid entity tag has a DQUOTE among its first three octets, a date has not.
    if value.iter().take(3).any(|&b| b == b'"') {
        let Some(tag) = EntityTag::parse(value) else { return IfRange::Invalid };
        return match validators.etag {
            Some(current) if tag.strong_eq(&current) => IfRange::Matches,
            Some(current) if tag.weak_eq(&current) => IfRange::Weak,
            _ => IfRange::Differs,
        };
    }
    let Some(date) = HttpDate::parse(value, now) else { return IfRange::Invalid };
    match validators.last_modified {
        // Exactly equal, not "not later than".
        Some(current) if current == date && last_modified_is_strong(current, now) => IfRange::Matches,
        Some(current) if current == date => IfRange::Weak,
        _ => IfRange::Differs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: HttpDate = HttpDate(1_000_000);

    fn date(seconds: i64) -> String {
        HttpDate(seconds).to_string()
    }

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            let value = match value.strip_prefix('@') {
                Some(seconds) => date(seconds.parse().unwrap()),
                None => (*value).to_owned(),
            };
            fields.push(*name, value).unwrap();
        }
        fields
    }

    fn strong() -> Validators<'static> {
        Validators { etag: EntityTag::parse(b"\"a\""), last_modified: Some(HttpDate(5000)), exists: true }
    }

    use Condition::{IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince};
    use Verdict::{Failed, NotModified, Proceed};

    /// Fields, the verdict for GET and HEAD, the verdict for everything else.
    type Row<'a> = (&'a [(&'a str, &'a str)], Verdict, Verdict);

    #[track_caller]
    fn check(rows: &[Row<'_>], validators: &Validators<'_>) {
        for (lines, get, put) in rows {
            let fields = fields(lines);
            for (method, expected) in [
                (Method::Get, get),
                (Method::Head, get),
                (Method::Put, put),
                (Method::Delete, put),
                (Method::Post, put),
            ] {
                assert_eq!(evaluate(&method, &fields, validators, NOW), *expected, "{method} {lines:?}");
            }
        }
    }

    /// 9110-13.1.1-01, 9110-13.1.2-01, 9110-13.1.2-04, 9110-13.1.3-05, 9110-13.1.4-05.
    #[test]
    fn each_condition_alone() {
        let rows: &[Row<'_>] = &[
            (&[], Proceed, Proceed),
            (&[("If-Match", "*")], Proceed, Proceed),
            (&[("If-Match", "\"a\"")], Proceed, Proceed),
            (&[("If-Match", "\"b\", \"a\"")], Proceed, Proceed),
            (&[("If-Match", "\"b\""), ("If-Match", "\"a\"")], Proceed, Proceed),
            (&[("If-Match", "\"b\"")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Match", "W/\"a\"")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Match", "a")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Match", "")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Match", "*, \"a\"")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-None-Match", "*")], NotModified(IfNoneMatch), Failed(IfNoneMatch)),
            (&[("If-None-Match", "\"a\"")], NotModified(IfNoneMatch), Failed(IfNoneMatch)),
            (&[("If-None-Match", "W/\"a\"")], NotModified(IfNoneMatch), Failed(IfNoneMatch)),
            (&[("If-None-Match", "\"b\", W/\"a\"")], NotModified(IfNoneMatch), Failed(IfNoneMatch)),
            (&[("If-None-Match", "\"b\"")], Proceed, Proceed),
            (&[("If-None-Match", "")], Proceed, Proceed),
            // Unreadable: the representation for readers, no change for writers.
            (&[("If-None-Match", "a")], Proceed, Failed(IfNoneMatch)),
            (&[("If-Modified-Since", "@5000")], NotModified(IfModifiedSince), Proceed),
            (&[("If-Modified-Since", "@5001")], NotModified(IfModifiedSince), Proceed),
            (&[("If-Modified-Since", "@4999")], Proceed, Proceed),
            (&[("If-Unmodified-Since", "@5000")], Proceed, Proceed),
            (&[("If-Unmodified-Since", "@5001")], Proceed, Proceed),
            (&[("If-Unmodified-Since", "@4999")], Failed(IfUnmodifiedSince), Failed(IfUnmodifiedSince)),
        ];
        check(rows, &strong());
    }

    /// 9110-13.2.2-01a, 9110-13.2.2-01b, 9110-13.2.2-01c, 9110-13.2.2-01d, 9110-13.1.3-01, 9110-13.1.4-01: who goes
    /// first, and who is ignored.
    #[test]
    fn precedence() {
        let rows: &[Row<'_>] = &[
            (&[("If-Match", "\"a\""), ("If-Unmodified-Since", "@1")], Proceed, Proceed),
            (&[("If-Match", "\"b\""), ("If-Unmodified-Since", "@9000")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-None-Match", "\"b\""), ("If-Modified-Since", "@9000")], Proceed, Proceed),
            (
                &[("If-None-Match", "\"a\""), ("If-Modified-Since", "@1")],
                NotModified(IfNoneMatch),
                Failed(IfNoneMatch),
            ),
            (&[("If-Match", "\"b\""), ("If-None-Match", "\"a\"")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-None-Match", "\"a\""), ("If-Match", "\"b\"")], Failed(IfMatch), Failed(IfMatch)),
            (
                &[("If-Match", "\"a\""), ("If-None-Match", "\"a\"")],
                NotModified(IfNoneMatch),
                Failed(IfNoneMatch),
            ),
            (
                &[("If-Unmodified-Since", "@1"), ("If-None-Match", "\"a\"")],
                Failed(IfUnmodifiedSince),
                Failed(IfUnmodifiedSince),
            ),
            (
                &[("If-Unmodified-Since", "@9000"), ("If-Modified-Since", "@9000")],
                NotModified(IfModifiedSince),
                Proceed,
            ),
        ];
        check(rows, &strong());
    }

    /// 9110-13.1.3-02, 9110-13.1.3-03, 9110-13.1.4-02, 9110-13.1.4-03; 9110-13.1.3-04, 9110-13.1.4-04: what is future is
    /// told by our own clock; fault G16.
    #[test]
    fn what_is_ignored() {
        let rows: &[Row<'_>] = &[
            (&[("If-Modified-Since", "yesterday")], Proceed, Proceed),
            (&[("If-Modified-Since", "")], Proceed, Proceed),
            (&[("If-Modified-Since", "@9000"), ("If-Modified-Since", "@9000")], Proceed, Proceed),
            (&[("If-Modified-Since", "Fri, 31 Dec 9999 23:59:59 GMT")], Proceed, Proceed),
            (&[("If-Modified-Since", "@1000001")], Proceed, Proceed),
            (&[("If-Modified-Since", "@1000000")], NotModified(IfModifiedSince), Proceed),
            (&[("If-Modified-Since", "Sat, 01 Jan 0000 00:00:00 GMT")], Proceed, Proceed),
            (&[("If-Unmodified-Since", "yesterday")], Proceed, Proceed),
            (&[("If-Unmodified-Since", "@1"), ("If-Unmodified-Since", "@1")], Proceed, Proceed),
        ];
        check(rows, &strong());
        let dateless = Validators { last_modified: None, ..strong() };
        for name in ["If-Modified-Since", "If-Unmodified-Since"] {
            for seconds in ["@1", "@999999"] {
                check(&[(&[(name, seconds)], Proceed, Proceed)], &dateless);
            }
        }
    }

    /// Without a representation: `If-None-Match: *` makes PUT a creation, `If-Match` refuses it.
    #[test]
    fn nothing_there() {
        let rows: &[Row<'_>] = &[
            (&[("If-None-Match", "*")], Proceed, Proceed),
            (&[("If-None-Match", "\"a\"")], Proceed, Proceed),
            (&[("If-Match", "*")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Match", "\"a\"")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Unmodified-Since", "@1")], Proceed, Proceed),
        ];
        check(rows, &Validators::NONE);
    }

    /// A representation whose own tag is weak never satisfies If-Match.
    #[test]
    fn a_weak_representation() {
        let weak = Validators { etag: EntityTag::parse(b"W/\"a\""), ..strong() };
        let rows: &[Row<'_>] = &[
            (&[("If-Match", "\"a\"")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Match", "W/\"a\"")], Failed(IfMatch), Failed(IfMatch)),
            (&[("If-Match", "*")], Proceed, Proceed),
            (&[("If-None-Match", "\"a\"")], NotModified(IfNoneMatch), Failed(IfNoneMatch)),
        ];
        check(rows, &weak);
    }

    /// 9110-13.2.1-02, 9110-13.2.1-04.
    #[test]
    fn where_conditions_do_not_apply() {
        let failing = fields(&[("If-Match", "\"b\""), ("If-None-Match", "*")]);
        for method in [Method::Options, Method::Trace, Method::Connect] {
            assert_eq!(evaluate(&method, &failing, &strong(), NOW), Proceed);
            assert!(!applies(&method, Status::OK));
        }
        for (status, expected) in [
            (Status::OK, true),
            (Status::NO_CONTENT, true),
            (Status::CREATED, true),
            (Status::PRECONDITION_FAILED, true),
            (Status::NOT_FOUND, false),
            (Status::FOUND, false),
            (Status::UNAUTHORIZED, false),
            (Status::METHOD_NOT_ALLOWED, false),
            (Status::SERVICE_UNAVAILABLE, false),
        ] {
            assert_eq!(applies(&Method::Get, status), expected, "{status}");
        }
    }

    /// 9110-13.1.5-06, 9110-13.1.5-07, 9110-13.1.5-08; fault G14.
    #[test]
    fn if_range_compares_exactly_and_strongly() {
        let weak = Validators { etag: EntityTag::parse(b"W/\"a\""), ..strong() };
        let fresh = Validators { last_modified: Some(NOW), ..strong() };
        let bare = Validators { etag: None, last_modified: None, exists: true };
        for (value, validators, expected) in [
            ("\"a\"", strong(), IfRange::Matches),
            ("\"b\"", strong(), IfRange::Differs),
            ("W/\"a\"", strong(), IfRange::Weak),
            ("\"a\"", weak, IfRange::Weak),
            ("W/\"a\"", weak, IfRange::Weak),
            ("\"a\"", bare, IfRange::Differs),
            ("\"a\", \"b\"", strong(), IfRange::Invalid),
            ("*", strong(), IfRange::Invalid),
            ("a", strong(), IfRange::Invalid),
            ("", strong(), IfRange::Invalid),
            ("\"a", strong(), IfRange::Invalid),
            ("@5000", strong(), IfRange::Matches),
            ("@5001", strong(), IfRange::Differs),
            ("@4999", strong(), IfRange::Differs),
            ("@1000000", fresh, IfRange::Weak),
            ("@5000", bare, IfRange::Differs),
            ("yesterday", strong(), IfRange::Invalid),
        ] {
            let verdict = if_range(&fields(&[("If-Range", value)]), &validators, NOW);
            assert_eq!(verdict, expected, "{value} {validators:?}");
            assert_eq!(verdict.allows_ranges(), verdict == IfRange::Matches);
        }
        assert_eq!(if_range(&Fields::new(), &strong(), NOW), IfRange::Absent);
        assert!(IfRange::Absent.allows_ranges());
        let twice = fields(&[("If-Range", "\"a\""), ("If-Range", "\"a\"")]);
        assert_eq!(if_range(&twice, &strong(), NOW), IfRange::Invalid);
    }
}
