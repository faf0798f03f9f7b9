//! What a response to a request for all or a part of a file means for a download: may its octets be used, where
//! do they belong, and if not, why (RFC 9110 §14, §15.3.7; faults G09 to G12). Pure.

use crate::journal::Subject;
use eleven_messaging::ResponseHead;
use eleven_semantics::date::HttpDate;
use eleven_semantics::range::ContentRange;
use eleven_semantics::validator::{EntityTag, last_modified_is_strong};
use eleven_semantics::{Fields, Known, Status};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// Everything.
    Whole,
    /// From `start` on, up to before `end` if that was said, of this.
    Part {
        /// First octet.
        start: u64,
        /// Behind the last octet.
        end: Option<u64>,
        /// What the part must belong to.
        subject: &'a Subject,
    },
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The whole file from its first octet on.
    Whole(Subject),
    /// A part of what was asked for: octets from `start` up to before `end`, of `length`.
    Part {
        /// First octet.
        start: u64,
        /// Behind the last octet.
        end: u64,
        /// The complete length.
        length: u64,
    },
    /// Nothing is missing: the file has exactly the octets that are here already.
    Complete {
        /// The complete length.
        length: u64,
    },
    /// The server does not do ranges: the whole of the same file came.
    RangeIgnored(Subject),
    /// What is here belongs to something else by now; begin again. The whole of the new one came, or nothing
    /// usable.
    Changed(Option<Subject>, &'static str),
    /// Neither: no download comes of it.
    Unusable(&'static str),
    /// An error status, or a redirection that was not followed.
    Status(u16),
}

/// What a response says its file is.
pub fn subject(uri: &str, head: &ResponseHead) -> Subject {
    let fields = &head.fields;
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).ok();
    let strong_tag = fields
        .only(Known::ETag)
        .one()
        .filter(|tag| EntityTag::parse(tag).is_some_and(|tag| !tag.weak))
        .and_then(text);
    let encoded = fields.list(Known::ContentEncoding).any(|c| !c.eq_ignore_ascii_case(b"identity"));
    Subject {
        uri: uri.to_owned(),
        etag: strong_tag,
        last_modified: strong_date(fields),
        length: head.framing.content_length().filter(|_| !encoded),
        repr_digest: fields.combined(Known::ReprDigest).and_then(|value| text(&value)),
    }
}

/// Last-Modified, if it is a strong validator (9110-8.8.2.2-R1, 9110-13.1.5-05).
fn strong_date(fields: &Fields) -> Option<String> {
    let date = |name| {
        let value = fields.only(name).one()?;
        Some((HttpDate::parse(value, HttpDate(i64::MAX / 2))?, value))
    };
    let (modified, text) = date(Known::LastModified)?;
    let (sent, _) = date(Known::Date)?;
    last_modified_is_strong(modified, sent).then(|| String::from_utf8_lossy(text).into_owned())
}

/// Whether octets of `new` may stand beside octets of `old` (9110-15.3.7.3-01, fault G09): the same strong tag;
/// without tags the same strong date. A part need not repeat Last-Modified (9110-15.3.7-03); then If-Range
/// vouches for it.
fn same(old: &Subject, new: &Subject, is_part: bool) -> bool {
    match (&old.etag, &new.etag) {
        (Some(a), Some(b)) => a == b,
        (Some(_), None) => false,
        (None, _) => match (&old.last_modified, &new.last_modified) {
            (Some(a), Some(b)) => a == b,
            (Some(_), None) => is_part,
            (None, _) => false,
        },
    }
}

/// Decides over a response.
pub fn judge(asked: Asked<'_>, uri: &str, head: &ResponseHead) -> Reply {
    let new = subject(uri, head);
    match (head.status, asked) {
        (Status::PARTIAL_CONTENT, Asked::Whole) => Reply::Unusable("206 although no range was asked for"), // G11
        (Status::PARTIAL_CONTENT, Asked::Part { start, end, subject }) => {
            part(start, end, subject, &new, head)
        }
        (Status::RANGE_NOT_SATISFIABLE, Asked::Part { start, subject, .. }) => {
            unsatisfied(start, subject, &new, head)
        }
        (Status::NO_CONTENT | Status::RESET_CONTENT, _) => {
            Reply::Unusable("the server says there is no content")
        }
        (status, asked) if (200..300).contains(&status.code()) => match asked {
            Asked::Whole => Reply::Whole(new),
            Asked::Part { subject, .. } => {
                let same_length = subject.length == new.length || subject.length.is_none();
                if same(subject, &new, false) && same_length {
                    Reply::RangeIgnored(new)
                } else {
                    Reply::Changed(Some(new), "the file on the server has changed")
                }
            }
        },
        (status, _) => Reply::Status(status.code()),
    }
}

fn part(start: u64, end: Option<u64>, subject: &Subject, new: &Subject, head: &ResponseHead) -> Reply {
    // Ranges count octets of the encoded representation; without a coding asked for there must be none.
    if head.fields.list(Known::ContentEncoding).any(|c| !c.eq_ignore_ascii_case(b"identity")) {
        return Reply::Unusable("a part in a content coding that was not asked for");
    }
    // 9110-15.3.7-01: several parts would come as multipart, and one range was asked for.
    if head
        .fields
        .get(Known::ContentType)
        .is_some_and(|t| t.to_ascii_lowercase().starts_with(b"multipart/byteranges"))
    {
        return Reply::Unusable("several parts although one range was asked for");
    }
    let range = head.fields.only(Known::ContentRange).one().map(ContentRange::parse);
    let Some(Ok(ContentRange::Part { span, complete })) = range else {
        return Reply::Unusable("206 without a usable Content-Range"); // 9110-14.4-01, 9110-14.4-05
    };
    let Some(length) = complete.or(subject.length) else {
        return Reply::Unusable("a part of unknown complete length");
    };
    if subject.length.is_some_and(|known| known != length) {
        return Reply::Changed(None, "a part of a file of another length");
    }
    if new.etag.is_some() && !same(subject, new, true) {
        return Reply::Changed(None, "a part with another validator");
    }
    // A server may send less than was asked for, but neither something else nor more (fault G10).
    if span.first != start || end.is_some_and(|end| span.last >= end) || span.last >= length {
        return Reply::Unusable("another part than the one asked for");
    }
    if head.framing.content_length().is_some_and(|content| content != span.len()) {
        return Reply::Unusable("a part whose length is not that of its range");
    }
    Reply::Part { start, end: span.last + 1, length }
}

fn unsatisfied(start: u64, subject: &Subject, new: &Subject, head: &ResponseHead) -> Reply {
    let complete = match head.fields.only(Known::ContentRange).one().map(ContentRange::parse) {
        Some(Ok(ContentRange::Unsatisfied { complete })) => Some(complete),
        _ => None,
    };
    match complete {
        // Asked for what is behind the end: it is all here (G12).
        Some(length) if length == start && subject.length.is_none_or(|known| known == length) => {
            if new.etag.is_some() && subject.etag.is_some() && new.etag != subject.etag {
                Reply::Changed(None, "the file on the server has changed")
            } else {
                Reply::Complete { length }
            }
        }
        _ => Reply::Changed(None, "the file on the server has become shorter"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eleven_messaging::Framing;

    fn head(status: u16, length: Option<u64>, pairs: &[(&str, &str)]) -> ResponseHead {
        let framing = length.map_or(Framing::UntilClose { gzip: false }, Framing::Length);
        ResponseHead {
            status: Status::new(status).unwrap(),
            fields: pairs.iter().collect(),
            framing,
            ..ResponseHead::default()
        }
    }

    fn old() -> Subject {
        Subject {
            uri: "u".into(),
            etag: Some("\"v1\"".into()),
            last_modified: None,
            length: Some(100),
            repr_digest: None,
        }
    }

    /// 9110-13.1.5-04, 9110-13.1.5-05, 9110-8.8.2.2-R1.
    #[test]
    fn only_strong_validators_are_kept() {
        let now = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (pairs, expected) in [
            (&[("ETag", "\"a\""), now][..], Some("\"a\"")),
            (&[("ETag", "W/\"a\""), now], None),
            (&[("ETag", "a"), now], None),
            (&[("ETag", "\"a\""), ("ETag", "\"b\"")], None),
            (
                &[("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT"), now],
                Some("Sun, 06 Nov 1994 08:00:00 GMT"),
            ),
            (&[("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"), now], None),
            (&[("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT")], None),
            (&[("ETag", "\"a\""), ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT"), now], Some("\"a\"")),
        ] {
            assert_eq!(subject("u", &head(200, Some(5), pairs)).if_range(), expected, "{pairs:?}");
        }
        let coded = head(200, Some(5), &[("Content-Encoding", "gzip")]);
        assert_eq!(subject("u", &coded).length, None, "the length of a coding is not the length of the file");
    }

    /// 9110-14.4-01, 9110-14.4-05, 9110-15.3.7-01, 9110-15.3.7.3-01; faults G09, G10, G11, G12, K12.
    #[test]
    fn every_reply_to_a_range() {
        let subject = old();
        let tag = ("ETag", "\"v1\"");
        let range = |value| ("Content-Range", value);
        let asked = Asked::Part { start: 40, end: Some(60), subject: &subject };
        let part = Reply::Part { start: 40, end: 60, length: 100 };
        for (status, length, pairs, expected) in [
            (206, Some(20), &[range("bytes 40-59/100"), tag][..], Some(part.clone())),
            (206, Some(20), &[range("bytes 40-59/100")], Some(part.clone())),
            (206, None, &[range("bytes 40-59/*"), tag], Some(part.clone())),
            (
                206,
                Some(10),
                &[range("bytes 40-49/100"), tag],
                Some(Reply::Part { start: 40, end: 50, length: 100 }),
            ),
            (206, Some(20), &[range("bytes 40-59/100"), ("ETag", "\"v2\"")], None),
            (206, Some(20), &[range("bytes 40-59/101"), tag], None),
            (206, Some(19), &[range("bytes 40-59/100"), tag], None),
            (206, Some(20), &[range("bytes 41-60/100"), tag], None),
            (206, Some(60), &[range("bytes 40-99/100"), tag], None),
            (206, Some(60), &[range("bytes 0-59/100"), tag], None),
            (206, Some(20), &[range("bytes 40-59/50"), tag], None),
            (206, Some(20), &[range("bytes 59-40/100"), tag], None),
            (206, Some(20), &[range("lines 40-59/100"), tag], None),
            (206, Some(20), &[range("40-59/100"), tag], None),
            (206, Some(20), &[tag], None),
            (206, Some(20), &[range("bytes 40-59/100"), range("bytes 40-59/100")], None),
            (206, Some(20), &[range("bytes 40-59/100"), ("Content-Encoding", "gzip")], None),
            (
                206,
                Some(20),
                // 9110-15.3.7.2-08, 9110-15.3.7.2-10: several ranges are never asked for, and several parts not taken.
                &[range("bytes 40-59/100"), ("Content-Type", "multipart/byteranges; boundary=x")],
                None,
            ),
        ] {
            let got = judge(asked, "u", &head(status, length, pairs));
            match expected {
                Some(expected) => assert_eq!(got, expected, "{pairs:?}"),
                None => assert!(matches!(got, Reply::Changed(..) | Reply::Unusable(_)), "{pairs:?}: {got:?}"),
            }
        }
        assert!(matches!(judge(asked, "u", &head(200, Some(100), &[tag])), Reply::RangeIgnored(_)));
        assert!(matches!(
            judge(asked, "u", &head(200, Some(100), &[("ETag", "\"v2\"")])),
            Reply::Changed(Some(_), _)
        ));
        assert!(matches!(judge(asked, "u", &head(200, Some(99), &[tag])), Reply::Changed(Some(_), _)));
        assert!(matches!(judge(asked, "u", &head(200, Some(100), &[])), Reply::Changed(Some(_), _)));
        let end = Asked::Part { start: 100, end: None, subject: &subject };
        for (asked, pairs, complete) in [
            (end, &[range("bytes */100")][..], true),
            (end, &[range("bytes */100"), tag], true),
            (end, &[range("bytes */100"), ("ETag", "\"v2\"")], false),
            (end, &[range("bytes */90")], false),
            (end, &[], false),
            (asked, &[range("bytes */100")], false),
        ] {
            let got = judge(asked, "u", &head(416, Some(0), pairs));
            assert_eq!(matches!(got, Reply::Complete { length: 100 }), complete, "{pairs:?}: {got:?}");
            assert!(complete || matches!(got, Reply::Changed(None, _)), "{pairs:?}: {got:?}");
        }
        for status in [300, 304, 404, 503] {
            assert_eq!(judge(Asked::Whole, "u", &head(status, Some(0), &[])), Reply::Status(status));
        }
        assert!(matches!(
            judge(Asked::Whole, "u", &head(206, Some(20), &[range("bytes 0-19/100")])),
            Reply::Unusable(_)
        ));
        assert!(matches!(judge(Asked::Whole, "u", &head(204, Some(0), &[])), Reply::Unusable(_)));
        assert!(matches!(judge(Asked::Whole, "u", &head(203, Some(5), &[])), Reply::Whole(_)));
        assert_eq!(judge(Asked::Whole, "u", &head(416, Some(0), &[])), Reply::Status(416));
    }

    #[test]
    fn dates_bind_parts_as_tags_do() {
        let dated =
            Subject { etag: None, last_modified: Some("Sun, 06 Nov 1994 08:00:00 GMT".into()), ..old() };
        let asked = Asked::Part { start: 40, end: None, subject: &dated };
        let range = ("Content-Range", "bytes 40-99/100");
        // 9110-15.3.7-03: a 206 to If-Range need not repeat Last-Modified.
        assert!(matches!(judge(asked, "u", &head(206, Some(60), &[range])), Reply::Part { .. }));
        // Without any validator nothing binds a whole to what is here.
        let none = Subject { etag: None, last_modified: None, ..old() };
        let asked = Asked::Part { start: 40, end: None, subject: &none };
        assert!(matches!(judge(asked, "u", &head(200, Some(100), &[])), Reply::Changed(..)));
    }
}
