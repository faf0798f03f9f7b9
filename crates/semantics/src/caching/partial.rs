//! Partial content in a cache (RFC 9111 §3.3, §3.4): what part of a representation a response holds, which
//! stored parts may be put together, and whether a range can be served from what is held.

use super::storing::NotStored;
use super::validation::stored_validators;
use crate::date::HttpDate;
use crate::fields::Fields;
use crate::names::Known;
use crate::range::{ContentRange, RangeSpec, Span};
use crate::status::Status;
use crate::validator::last_modified_is_strong;

/// What part of the selected representation a response carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// This span of it, and its complete length where that is known.
    Span(Span, Option<u64>),
}

/// What part this response carries; `length` is that of its content, if known beforehand.
///
/// # Errors
/// If it is a 206 that cannot be placed (9111-3.3-03): several parts, no or an unreadable Content-Range, or a
/// span that is not as long as the content (C18).
pub fn part(status: Status, fields: &Fields, length: Option<u64>) -> Result<Part, NotStored> {
    if status != Status::PARTIAL_CONTENT {
        return Ok(Part::Whole);
    }
    let value = fields.only(Known::ContentRange).one().ok_or(NotStored::Range)?;
    match ContentRange::parse(value) {
        Ok(ContentRange::Part { span, complete }) if length.is_none_or(|length| length == span.len()) => {
            Ok(Part::Span(span, complete))
        }
        _ => Err(NotStored::Range),
    }
}

/// Whether parts of these two responses may be put together (9111-3.4-01): both have the same strong validator.
pub fn may_combine(stored: &Fields, new: &Fields, now: HttpDate) -> bool {
    let (old, new_validators) = (stored_validators(stored, now), stored_validators(new, now));
    match (old.etag, new_validators.etag) {
        (Some(a), Some(b)) => a.strong_eq(&b),
        (None, None) => {
            let strong = |fields: &Fields, modified| {
                last_modified_is_strong(modified, super::freshness::date_value(fields, modified))
            };
            matches!((old.last_modified, new_validators.last_modified),
                (Some(a), Some(b)) if a == b && strong(stored, a) && strong(new, b))
        }
        _ => false,
    }
}

/// The value of If-Range that asks for more of a stored partial response: its strong validator, if it has one.
pub fn if_range(stored: &Fields, now: HttpDate) -> Option<&[u8]> {
    let validators = stored_validators(stored, now);
    match validators.etag {
        Some(tag) if !tag.weak => stored.only(Known::ETag).one(),
        Some(_) => None,
        None => {
            let modified = validators.last_modified?;
            last_modified_is_strong(modified, super::freshness::date_value(stored, modified))
                .then(|| stored.only(Known::LastModified).one())?
        }
    }
}

/// The spans of a representation that are held: sorted, not touching each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    spans: Vec<Span>,
    complete: Option<u64>,
}

impl Held {
    /// Holding one part.
    pub fn new(span: Span, complete: Option<u64>) -> Held {
        Held { spans: vec![span], complete }
    }

    /// The spans.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The complete length, if known.
    pub fn complete(&self) -> Option<u64> {
        self.complete
    }

    /// Adds a part. `false` if the complete lengths contradict each other; then nothing is added.
    pub fn add(&mut self, span: Span, complete: Option<u64>) -> bool {
        let known = self.complete.or(complete);
        if complete.is_some_and(|length| self.complete.is_some_and(|before| before != length)) {
            return false;
        }
        let last = self.spans.iter().map(|s| s.last).chain([span.last]).max().unwrap_or(0);
        if known.is_some_and(|length| last >= length) {
            return false;
        }
        self.complete = known;
        let mut new = span;
        self.spans.retain(|old| {
            let touches = old.first <= new.last.saturating_add(1) && new.first <= old.last.saturating_add(1);
            if touches {
                new = Span { first: old.first.min(new.first), last: old.last.max(new.last) };
            }
            !touches
        });
        let at = self.spans.partition_point(|old| old.first < new.first);
        self.spans.insert(at, new);
        true
    }

    /// Whether the whole representation is held.
    pub fn is_whole(&self) -> bool {
        match (&self.spans[..], self.complete) {
            ([only], Some(length)) => only.first == 0 && only.len() == length,
            _ => false,
        }
    }

    /// Whether every octet of this span is held.
    pub fn holds(&self, span: Span) -> bool {
        self.spans.iter().any(|held| held.first <= span.first && span.last <= held.last)
    }

    /// The span that one range of a request means, if it lies wholly in what is held (9111-3.3-05). Without
    /// the complete length, only a range with both ends can be placed.
    pub fn resolve(&self, spec: RangeSpec) -> Option<Span> {
        let span = match (spec, self.complete) {
            (RangeSpec::From(first, Some(last)), None) => Span { first, last },
            (RangeSpec::From(first, last), Some(length)) => {
                let end = length.checked_sub(1)?;
                Span { first, last: last.unwrap_or(end).min(end) }
            }
            (RangeSpec::Suffix(n), Some(length)) if n > 0 && length > 0 => {
                Span { first: length.saturating_sub(n), last: length - 1 }
            }
            _ => return None,
        };
        (span.first <= span.last && self.holds(span)).then_some(span)
    }

    /// The first octets that are missing to the whole: from the first gap to the next held span or the end.
    pub fn gap(&self) -> Option<(u64, Option<u64>)> {
        let mut at = 0;
        for span in &self.spans {
            if span.first > at {
                return Some((at, Some(span.first - 1)));
            }
            at = span.last.saturating_add(1);
        }
        if self.complete == Some(at) { None } else { Some((at, None)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: HttpDate = HttpDate(1_795_521_600);

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().collect()
    }

    fn span(first: u64, last: u64) -> Span {
        Span { first, last }
    }

    /// 9111-3.3-02, 9111-3.3-03, C18.
    #[test]
    fn parts() {
        for (status, range, length, expected) in [
            (200, None, Some(5), Ok(Part::Whole)),
            (200, Some("bytes 0-4/10"), Some(5), Ok(Part::Whole)),
            (206, Some("bytes 0-4/10"), Some(5), Ok(Part::Span(span(0, 4), Some(10)))),
            (206, Some("bytes 0-4/*"), None, Ok(Part::Span(span(0, 4), None))),
            (206, Some("bytes 4-9/10"), Some(5), Err(NotStored::Range)),
            (206, Some("rows 0-4/10"), Some(5), Err(NotStored::Range)),
            (206, Some("bytes 0-4"), Some(5), Err(NotStored::Range)),
            (206, Some("bytes 4-0/10"), Some(5), Err(NotStored::Range)),
            (206, Some("bytes 0-10/10"), None, Err(NotStored::Range)),
            (206, Some("bytes */10"), Some(5), Err(NotStored::Range)),
            (206, None, Some(5), Err(NotStored::Range)),
        ] {
            let fields = match range {
                Some(range) => fields(&[("Content-Range", range)]),
                None => fields(&[("Content-Type", "multipart/byteranges; boundary=x")]),
            };
            assert_eq!(part(Status::new(status).unwrap(), &fields, length), expected, "{status} {range:?}");
        }
    }

    /// 9111-3.4-01.
    #[test]
    fn combining() {
        let lm = ("Last-Modified", "Mon, 23 Nov 2026 12:00:00 GMT");
        let date = ("Date", "Tue, 24 Nov 2026 11:00:00 GMT");
        for (a, b, expected) in [
            (&[("ETag", "\"a\"")][..], &[("ETag", "\"a\"")][..], true),
            (&[("ETag", "\"a\"")], &[("ETag", "\"b\"")], false),
            (&[("ETag", "W/\"a\"")], &[("ETag", "W/\"a\"")], false),
            (&[("ETag", "\"a\"")], &[], false),
            (&[], &[], false),
            (&[lm, date], &[lm, date], true),
            (&[lm], &[lm], false),
            (&[lm, date, ("ETag", "\"a\"")], &[lm, date], false),
        ] {
            assert_eq!(may_combine(&fields(a), &fields(b), NOW), expected, "{a:?} {b:?}");
        }
        assert_eq!(if_range(&fields(&[("ETag", "\"a\"")]), NOW), Some(&b"\"a\""[..]));
        assert_eq!(if_range(&fields(&[("ETag", "W/\"a\""), lm, date]), NOW), None);
        assert_eq!(if_range(&fields(&[lm, date]), NOW), Some(lm.1.as_bytes()));
        assert_eq!(if_range(&fields(&[lm]), NOW), None);
    }

    /// 9111-3.3-04, 9111-3.3-05, 9111-3.4-02.
    #[test]
    fn holding() {
        let mut held = Held::new(span(10, 19), Some(40));
        assert_eq!(held.gap(), Some((0, Some(9))));
        assert!(held.add(span(30, 39), None));
        assert_eq!(held.spans(), [span(10, 19), span(30, 39)]);
        for (spec, expected) in [
            (RangeSpec::From(10, Some(19)), Some(span(10, 19))),
            (RangeSpec::From(12, Some(14)), Some(span(12, 14))),
            (RangeSpec::From(30, None), Some(span(30, 39))),
            (RangeSpec::From(35, Some(400)), Some(span(35, 39))),
            (RangeSpec::Suffix(5), Some(span(35, 39))),
            (RangeSpec::Suffix(10), Some(span(30, 39))),
            (RangeSpec::Suffix(11), None),
            (RangeSpec::Suffix(0), None),
            (RangeSpec::From(9, Some(12)), None),
            (RangeSpec::From(15, Some(30)), None),
            (RangeSpec::From(40, None), None),
            (RangeSpec::From(0, None), None),
        ] {
            assert_eq!(held.resolve(spec), expected, "{spec:?}");
        }
        // Contradictions change nothing.
        assert!(!held.add(span(0, 4), Some(41)));
        assert!(!held.add(span(38, 40), None));
        assert_eq!(held.spans().len(), 2);
        // Touching and overlapping spans become one.
        assert!(held.add(span(0, 9), Some(40)));
        assert!(!held.is_whole());
        assert_eq!(held.gap(), Some((20, Some(29))));
        assert!(held.add(span(15, 32), None));
        assert!(held.is_whole() && held.gap().is_none());

        let mut unknown = Held::new(span(0, 4), None);
        assert_eq!(unknown.resolve(RangeSpec::From(1, Some(4))), Some(span(1, 4)));
        assert_eq!(unknown.resolve(RangeSpec::From(1, None)), None);
        assert_eq!(unknown.resolve(RangeSpec::Suffix(1)), None);
        assert_eq!(unknown.gap(), Some((5, None)));
        assert!(!unknown.is_whole());
        assert!(unknown.add(span(5, 9), Some(10)) && unknown.is_whole());
        assert!(unknown.add(span(0, u64::MAX), None) || unknown.is_whole());
    }
}
