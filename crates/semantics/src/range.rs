//! Range requests (RFC 9110 §14): reading Range, resolving it against a length within limits, and reading and
//! writing Content-Range. Knows the unit `bytes` only. Sends nothing: the answer is a list of spans or the
//! reason why there is none.

use crate::conditional::{self, IfRange};
use crate::date::HttpDate;
use crate::fields::{Fields, Only};
use crate::grammar::{decimal, decimal_saturating, list, push_decimal};
use crate::method::Method;
use crate::names::Known;
use crate::validator::Validators;

/// A span of octets, both ends included, as ranges are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Position of the first octet.
    pub first: u64,
    /// Position of the last octet; never before `first`.
    pub last: u64,
}

impl Span {
    /// Number of octets; at least one. Saturates for the one span of 2^64 octets, which no length has.
    pub fn len(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Never: a span holds at least one octet.
    pub fn is_empty(self) -> bool {
        false
    }
}

/// One member of a range set, not yet compared with a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-` or `first-last`. Numbers that pass 64 bits count as the largest one (9110-14.1.2-01).
    From(u64, Option<u64>),
    /// `-length`: the last octets.
    Suffix(u64),
}

/// Limits on what a Range may cost.
#[derive(Debug, Clone, Copy)]
pub struct RangeLimits {
    /// Most members of a range set; more are ignored altogether (faults G01, G02). Apache refuses beyond 200,
    /// real clients (PDF viewers) send up to about a dozen.
    pub ranges_max: usize,
    /// Spans with no more than this between them are sent as one: a part of a multipart costs about as much
    /// (RFC 9110 §15.3.7.2 suggests 80 octets).
    pub gap_bytes_max: u64,
}

impl Default for RangeLimits {
    fn default() -> Self {
        RangeLimits { ranges_max: 16, gap_bytes_max: 80 }
    }
}

/// Why the whole representation is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whole {
    /// No Range at all.
    NotAsked,
    /// Range is defined for GET only (9110-14.2-02).
    Method,
    /// Several Range lines.
    SeveralLines,
    /// Another unit than bytes (9110-14.2-03).
    Unit,
    /// Not the grammar, or last before first (9110-14.1.1-R1; faults G04, P23).
    Malformed,
    /// More members than allowed (faults G01, G02).
    TooMany,
    /// Together longer than the representation: overlapping ranges are an amplifier (faults G01, G06).
    Overlapping,
    /// Nothing to take a range of (9110-14.2-07; fault G13).
    EmptyRepresentation,
    /// If-Range does not hold (9110-13.1.5-07).
    IfRange(IfRange),
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranges {
    /// 200 with everything.
    Whole(Whole),
    /// 206 with Content-Range.
    Single(Span),
    /// 206 as multipart/byteranges; at least two, none overlapping, in the order asked for.
    Several(Vec<Span>),
    /// 416 with `Content-Range: bytes */length` (9110-14.2-10).
    Unsatisfiable,
}

/// Decides what part of a representation of `length` octets a request wants, If-Range included
/// (9110-13.2.2-01e). The other conditions come before and are not looked at here.
pub fn select(
    method: &Method,
    fields: &Fields,
    validators: &Validators<'_>,
    length: u64,
    now: HttpDate,
    limits: &RangeLimits,
) -> Ranges {
    if !fields.contains(Known::Range) {
        return Ranges::Whole(Whole::NotAsked);
    }
    // 9110-14.2-02
    if *method != Method::Get {
        return Ranges::Whole(Whole::Method);
    }
    let Only::One(value) = fields.only(Known::Range) else { return Ranges::Whole(Whole::SeveralLines) };
    let if_range = conditional::if_range(fields, validators, now);
    if !if_range.allows_ranges() {
        return Ranges::Whole(Whole::IfRange(if_range));
    }
    match parse(value, limits) {
        Ok(specs) => resolve(&specs, length, limits),
        Err(reason) => Ranges::Whole(reason),
    }
}

/// Reads the value of Range.
///
/// # Errors
/// Says why it is to be ignored.
pub fn parse(value: &[u8], limits: &RangeLimits) -> Result<Vec<RangeSpec>, Whole> {
    let equals = memchr::memchr(b'=', value).ok_or(Whole::Malformed)?;
    let (unit, set) = (&value[..equals], &value[equals + 1..]);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return Err(if crate::grammar::is_token(unit) { Whole::Unit } else { Whole::Malformed });
    }
    let mut specs = Vec::new();
    for member in list(set) {
        if specs.len() == limits.ranges_max {
            return Err(Whole::TooMany);
        }
        specs.push(parse_spec(member).ok_or(Whole::Malformed)?);
    }
    if specs.is_empty() { Err(Whole::Malformed) } else { Ok(specs) }
}

fn parse_spec(member: &[u8]) -> Option<RangeSpec> {
    let dash = memchr::memchr(b'-', member)?;
    let (first, last) = (&member[..dash], &member[dash + 1..]);
    if first.is_empty() {
        return decimal_saturating(last).map(RangeSpec::Suffix);
    }
    let first = decimal_saturating(first)?;
    if last.is_empty() {
        return Some(RangeSpec::From(first, None));
    }
    let last = decimal_saturating(last)?;
    (first <= last).then_some(RangeSpec::From(first, Some(last)))
}

/// Compares a range set with the length of the representation: clamps (9110-14.1.2-R1), drops what cannot be
/// satisfied, merges what overlaps or nearly touches (9110-15.3.7.2-05), and keeps the order asked for
/// (9110-15.3.7.2-09).
pub fn resolve(specs: &[RangeSpec], length: u64, limits: &RangeLimits) -> Ranges {
    if length == 0 {
        return Ranges::Whole(Whole::EmptyRepresentation);
    }
    if specs.len() > limits.ranges_max {
        return Ranges::Whole(Whole::TooMany);
    }
    let end = length - 1;
    let mut spans: Vec<(usize, Span)> = Vec::with_capacity(specs.len());
    let mut total: u64 = 0;
    for spec in specs {
        let span = match *spec {
            RangeSpec::From(first, last) if first <= end => {
                Span { first, last: last.unwrap_or(end).min(end) }
            }
            RangeSpec::Suffix(wanted @ 1..) => Span { first: length.saturating_sub(wanted), last: end },
            _ => continue,
        };
        total = total.saturating_add(span.len());
        spans.push((spans.len(), span));
    }
    match spans[..] {
        [] => return Ranges::Unsatisfiable,
        [(_, span)] => return Ranges::Single(span),
        _ => {}
    }
    if total > length {
        return Ranges::Whole(Whole::Overlapping);
    }
    spans.sort_by_key(|(_, span)| span.first);
    let mut merged: Vec<(usize, Span)> = Vec::with_capacity(spans.len());
    for (order, span) in spans {
        match merged.last_mut() {
            // No overflow: last is below the length.
            Some((first_asked, open))
                if span.first <= open.last.saturating_add(limits.gap_bytes_max).saturating_add(1) =>
            {
                open.last = open.last.max(span.last);
                *first_asked = (*first_asked).min(order);
            }
            _ => merged.push((order, span)),
        }
    }
    if let [(_, span)] = merged[..] {
        return Ranges::Single(span);
    }
    merged.sort_by_key(|(order, _)| *order);
    Ranges::Several(merged.into_iter().map(|(_, span)| span).collect())
}

/// The value of a Content-Range in bytes (RFC 9110 §14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRange {
    /// `bytes first-last/complete`, the complete length `None` for `*`.
    Part {
        /// What the content is.
        span: Span,
        /// The complete length, if the sender knows it.
        complete: Option<u64>,
    },
    /// `bytes */complete`, as in a 416.
    Unsatisfied {
        /// The complete length.
        complete: u64,
    },
}

/// Why a Content-Range says nothing. Content with such a one must not be combined with other parts
/// (9110-14.4-01, 9110-14.4-05).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InvalidContentRange {
    /// Another unit than bytes.
    Unit,
    /// Not the grammar, or a number beyond 64 bits.
    Malformed,
    /// Last before first, or the complete length not beyond last (fault G10).
    Contradictory,
}

impl ContentRange {
    /// Reads the value, strictly.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(value: &[u8]) -> Result<ContentRange, InvalidContentRange> {
        use InvalidContentRange::{Contradictory, Malformed, Unit};
        let space = memchr::memchr(b' ', value).ok_or(Malformed)?;
        let (unit, rest) = (&value[..space], &value[space + 1..]);
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return Err(if crate::grammar::is_token(unit) { Unit } else { Malformed });
        }
        let slash = memchr::memchr(b'/', rest).ok_or(Malformed)?;
        let (range, complete) = (&rest[..slash], &rest[slash + 1..]);
        if range == b"*" {
            return Ok(ContentRange::Unsatisfied { complete: decimal(complete).ok_or(Malformed)? });
        }
        let dash = memchr::memchr(b'-', range).ok_or(Malformed)?;
        let first = decimal(&range[..dash]).ok_or(Malformed)?;
        let last = decimal(&range[dash + 1..]).ok_or(Malformed)?;
        let complete = match complete {
            b"*" => None,
            digits => Some(decimal(digits).ok_or(Malformed)?),
        };
        if first > last || complete.is_some_and(|complete| complete <= last) {
            return Err(Contradictory);
        }
        Ok(ContentRange::Part { span: Span { first, last }, complete })
    }

    /// Appends the value as it stands in the field.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"bytes ");
        match self {
            ContentRange::Part { span, complete } => {
                push_decimal(out, span.first);
                out.push(b'-');
                push_decimal(out, span.last);
                out.push(b'/');
                match complete {
                    Some(complete) => push_decimal(out, complete),
                    None => out.push(b'*'),
                }
            }
            ContentRange::Unsatisfied { complete } => {
                out.extend_from_slice(b"*/");
                push_decimal(out, complete);
            }
        }
    }

    /// The value as it stands in the field.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        self.write(&mut out);
        out
    }
}

/// Appends a Range value that asks for one span, `last` included or to the end.
pub fn write_range(out: &mut Vec<u8>, first: u64, last: Option<u64>) {
    out.extend_from_slice(b"bytes=");
    push_decimal(out, first);
    out.push(b'-');
    if let Some(last) = last {
        push_decimal(out, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validator::EntityTag;

    /// No gap merging, so that tables show what was asked for.
    const EXACT: RangeLimits = RangeLimits { ranges_max: 16, gap_bytes_max: 0 };

    fn spans(value: &str, length: u64, limits: &RangeLimits) -> String {
        let ranges = match parse(value.as_bytes(), limits) {
            Ok(specs) => resolve(&specs, length, limits),
            Err(reason) => Ranges::Whole(reason),
        };
        let show = |span: &Span| format!("{}-{}", span.first, span.last);
        match ranges {
            Ranges::Whole(reason) => format!("{reason:?}"),
            Ranges::Single(span) => show(&span),
            Ranges::Several(spans) => spans.iter().map(show).collect::<Vec<_>>().join(","),
            Ranges::Unsatisfiable => "416".into(),
        }
    }

    /// 9110-14.1.2-R1, 9110-14.1.2-01, 9110-14.2-09, 9110-14.2-10; faults G03, G13.
    #[test]
    fn satisfiable_and_not() {
        for (value, length, expected) in [
            ("bytes=0-0", 100, "0-0"),
            ("bytes=0-", 100, "0-99"),
            ("bytes=99-", 100, "99-99"),
            ("bytes=0-99", 100, "0-99"),
            ("bytes=0-100", 100, "0-99"),
            ("bytes=50-999999", 100, "50-99"),
            ("bytes=-1", 100, "99-99"),
            ("bytes=-100", 100, "0-99"),
            ("bytes=-101", 100, "0-99"),
            ("BYTES=0-1", 100, "0-1"),
            ("bytes= 0-1 , 5-6 ", 100, "0-1,5-6"),
            ("bytes=,0-1,,5-6,", 100, "0-1,5-6"),
            ("bytes=5-6,0-1", 100, "5-6,0-1"),
            ("bytes=0-1,200-300", 100, "0-1"),
            ("bytes=200-300,0-1,400-", 100, "0-1"),
            ("bytes=00000000000000000000000005-6", 100, "5-6"),
            ("bytes=0-18446744073709551615", 100, "0-99"),
            ("bytes=0-99999999999999999999999999", 100, "0-99"),
            ("bytes=-9223372036854775808", 100, "0-99"),
            ("bytes=-99999999999999999999999999", 100, "0-99"),
            ("bytes=0-18446744073709551614", u64::MAX, "0-18446744073709551614"),
            ("bytes=-1", u64::MAX, "18446744073709551614-18446744073709551614"),
            ("bytes=100-", 100, "416"),
            ("bytes=100-200", 100, "416"),
            ("bytes=-0", 100, "416"),
            ("bytes=-0,100-", 100, "416"),
            ("bytes=18446744073709551615-", 100, "416"),
            ("bytes=99999999999999999999999999-", 100, "416"),
            ("bytes=18446744073709551615-", u64::MAX, "416"),
            ("bytes=-1", 0, "EmptyRepresentation"),
            ("bytes=0-", 0, "EmptyRepresentation"),
            ("bytes=5-9", 0, "EmptyRepresentation"),
        ] {
            assert_eq!(spans(value, length, &EXACT), expected, "{value} of {length}");
        }
    }

    /// 9110-14.1.1-R1, 9110-14.2-03, 9110-14.2-05; faults G04, P23.
    #[test]
    fn ignored() {
        for (value, expected) in [
            ("", "Malformed"),
            ("bytes", "Malformed"),
            ("bytes=", "Malformed"),
            ("bytes=,", "Malformed"),
            ("bytes=-", "Malformed"),
            ("bytes=5-3", "Malformed"),
            ("bytes=0-1,5-3", "Malformed"),
            ("bytes=a-b", "Malformed"),
            ("bytes=0", "Malformed"),
            ("bytes=0-1-2", "Malformed"),
            ("bytes=--1", "Malformed"),
            ("bytes=+0-1", "Malformed"),
            ("bytes=0-+1", "Malformed"),
            ("bytes=0 - 1", "Malformed"),
            ("bytes=0x0-0x1", "Malformed"),
            ("bytes=0-1;5-6", "Malformed"),
            ("bytes=0-1 5-6", "Malformed"),
            ("bytes=\"0-1\"", "Malformed"),
            ("bytes=*", "Malformed"),
            ("bytes =0-1", "Malformed"),
            ("bytes:0-1", "Malformed"),
            ("=0-1", "Malformed"),
            ("bytes=18446744073709551616-3", "Malformed"),
            ("items=0-1", "Unit"),
            ("byte=0-1", "Unit"),
            ("seconds=1-2", "Unit"),
        ] {
            assert_eq!(spans(value, 100, &EXACT), expected, "{value:?}");
        }
    }

    /// Faults G01, G02, G06; 9110-14.2-05, 9110-15.3.7.2-05, 9110-15.3.7.2-09.
    #[test]
    fn many_overlapping_and_near() {
        let killer = format!("bytes=0-{}", (0..1300).map(|n| format!(",5-{n}")).collect::<String>());
        let tiny =
            format!("bytes={}", (0..10_000).map(|n| format!("{}-{},", n * 2, n * 2)).collect::<String>());
        let limits = RangeLimits::default();
        let sixteen = (0..16).map(|n| format!("{}-{}", n * 200, n * 200)).collect::<Vec<_>>().join(",");
        for (value, length, limits, expected) in [
            (&*killer, 10_000, &limits, "Malformed"),
            (&*killer.replace(",5-0,5-1,5-2,5-3,5-4", ""), 10_000, &limits, "TooMany"),
            (&*tiny, 100_000, &limits, "TooMany"),
            (&*format!("bytes={sixteen}"), 10_000, &limits, &*sixteen),
            (&*format!("bytes={sixteen},9000-"), 10_000, &limits, "TooMany"),
            ("bytes=0-,0-", 100, &EXACT, "Overlapping"),
            ("bytes=0-99,-1", 100, &EXACT, "Overlapping"),
            ("bytes=0-49,0-49", 100, &EXACT, "0-49"),
            ("bytes=0-49,50-99", 100, &EXACT, "0-99"),
            ("bytes=50-99,0-49", 100, &EXACT, "0-99"),
            ("bytes=0-9,5-14,30-39", 100, &EXACT, "0-14,30-39"),
            ("bytes=30-39,5-14,0-9", 100, &EXACT, "30-39,0-14"),
            ("bytes=5-14,30-39,0-9", 100, &EXACT, "0-14,30-39"),
            ("bytes=0-9,2-3,20-29", 100, &EXACT, "0-9,20-29"),
            ("bytes=0-0,81-81", 1000, &limits, "0-81"),
            ("bytes=0-0,82-82", 1000, &limits, "0-0,82-82"),
        ] {
            assert_eq!(spans(value, length, limits), expected, "{value:.60} of {length}");
        }
    }

    /// 9110-14.2-02, 9110-13.1.5-02, 9110-13.1.5-07, 9110-13.2.2-01e; fault G14.
    #[test]
    fn selection_by_request() {
        let validators = Validators {
            etag: EntityTag::parse(b"\"a\""),
            last_modified: Some(HttpDate(5000)),
            exists: true,
        };
        let select = |method: &Method, lines: &[(&str, &str)]| {
            let mut fields = Fields::new();
            for (name, value) in lines {
                fields.push(*name, value).unwrap();
            }
            select(method, &fields, &validators, 100, HttpDate(9000), &EXACT)
        };
        let part = Ranges::Single(Span { first: 0, last: 9 });
        let range = ("Range", "bytes=0-9");
        for (method, lines, expected) in [
            (Method::Get, &[range][..], part.clone()),
            (Method::Get, &[], Ranges::Whole(Whole::NotAsked)),
            (Method::Get, &[("If-Range", "\"b\"")], Ranges::Whole(Whole::NotAsked)),
            (Method::Head, &[range], Ranges::Whole(Whole::Method)),
            (Method::Post, &[range], Ranges::Whole(Whole::Method)),
            (Method::Put, &[range], Ranges::Whole(Whole::Method)),
            (Method::Get, &[range, range], Ranges::Whole(Whole::SeveralLines)),
            (Method::Get, &[range, ("If-Range", "\"a\"")], part.clone()),
            (Method::Get, &[range, ("If-Range", "\"b\"")], Ranges::Whole(Whole::IfRange(IfRange::Differs))),
            (Method::Get, &[range, ("If-Range", "W/\"a\"")], Ranges::Whole(Whole::IfRange(IfRange::Weak))),
            (Method::Get, &[range, ("If-Range", "a")], Ranges::Whole(Whole::IfRange(IfRange::Invalid))),
            (Method::Get, &[range, ("If-Range", "Thu, 01 Jan 1970 01:23:20 GMT")], part.clone()),
            (
                Method::Get,
                &[("Range", "bytes=500-"), ("If-Range", "\"b\"")],
                Ranges::Whole(Whole::IfRange(IfRange::Differs)),
            ),
            (Method::Get, &[("Range", "bytes=500-"), ("If-Range", "\"a\"")], Ranges::Unsatisfiable),
        ] {
            assert_eq!(select(&method, lines), expected, "{method} {lines:?}");
        }
    }

    /// 9110-14.4-01, 9110-14.4-04, 9110-14.4-05, 9110-14.4-06; fault G10.
    #[test]
    fn content_range() {
        use InvalidContentRange::{Contradictory, Malformed, Unit};
        let part = |first, last, complete| Ok(ContentRange::Part { span: Span { first, last }, complete });
        for (value, expected) in [
            ("bytes 0-9/100", part(0, 9, Some(100))),
            ("bytes 0-0/1", part(0, 0, Some(1))),
            ("bytes 42-1233/*", part(42, 1233, None)),
            ("Bytes 0-9/10", part(0, 9, Some(10))),
            ("bytes 0-18446744073709551614/18446744073709551615", part(0, u64::MAX - 1, Some(u64::MAX))),
            ("bytes */1234", Ok(ContentRange::Unsatisfied { complete: 1234 })),
            ("bytes */0", Ok(ContentRange::Unsatisfied { complete: 0 })),
            ("bytes 0-9/5", Err(Contradictory)),
            ("bytes 0-9/9", Err(Contradictory)),
            ("bytes 9-0/100", Err(Contradictory)),
            ("bytes 9-0/*", Err(Contradictory)),
            ("bytes */*", Err(Malformed)),
            ("bytes 0-9", Err(Malformed)),
            ("bytes 0-9/", Err(Malformed)),
            ("bytes 0-/10", Err(Malformed)),
            ("bytes -9/10", Err(Malformed)),
            ("bytes 0-9/+10", Err(Malformed)),
            ("bytes +0-9/10", Err(Malformed)),
            ("bytes  0-9/10", Err(Malformed)),
            ("bytes 0 - 9/10", Err(Malformed)),
            ("bytes 0-9 /10", Err(Malformed)),
            ("bytes 0-9/10 ", Err(Malformed)),
            ("bytes=0-9/10", Err(Malformed)),
            ("bytes\t0-9/10", Err(Malformed)),
            ("bytes: 0-9/10", Err(Malformed)),
            ("0-9/10", Err(Malformed)),
            ("bytes 0-9/10, bytes 0-9/10", Err(Malformed)),
            ("bytes 0-18446744073709551616/*", Err(Malformed)),
            ("", Err(Malformed)),
            ("items 0-9/10", Err(Unit)),
        ] {
            assert_eq!(ContentRange::parse(value.as_bytes()), expected, "{value:?}");
            if let Ok(range) = expected {
                assert!(value.as_bytes().eq_ignore_ascii_case(&range.to_bytes()), "{value:?}");
            }
        }
        let mut out = Vec::new();
        write_range(&mut out, 5, None);
        out.push(b' ');
        write_range(&mut out, 5, Some(u64::MAX));
        assert_eq!(out, b"bytes=5- bytes=5-18446744073709551615");
    }

    proptest::proptest! {
        /// Whatever is asked for: what is sent lies inside, does not overlap, holds every octet asked for
        /// that exists, and never more octets than the representation.
        #[test]
        fn resolved_spans_cover_what_was_asked(
            length in 1u64..400,
            gap in 0u64..20,
            asked in proptest::collection::vec((0u64..500, proptest::option::of(0u64..500), proptest::bool::ANY), 1..20),
        ) {
            let limits = RangeLimits { ranges_max: 16, gap_bytes_max: gap };
            let specs: Vec<RangeSpec> = asked.iter().map(|&(a, b, suffix)| match b {
                _ if suffix => RangeSpec::Suffix(a),
                Some(b) => RangeSpec::From(a.min(b), Some(a.max(b))),
                None => RangeSpec::From(a, None),
            }).collect();
            let wanted = |at: u64| specs.iter().any(|spec| match *spec {
                RangeSpec::From(first, last) => at >= first && last.is_none_or(|last| at <= last),
                RangeSpec::Suffix(n) => at >= length.saturating_sub(n),
            });
            let sent = match resolve(&specs, length, &limits) {
                Ranges::Whole(reason) => {
                    assert!(matches!(reason, Whole::TooMany | Whole::Overlapping), "{reason:?}");
                    return Ok(());
                }
                Ranges::Unsatisfiable => vec![],
                Ranges::Single(span) => vec![span],
                Ranges::Several(spans) => { assert!(spans.len() >= 2); spans }
            };
            for at in 0..length {
                let times = sent.iter().filter(|span| (span.first..=span.last).contains(&at)).count();
                assert!(times <= 1);
                assert!(times == 1 || !wanted(at), "{at} of {length} missing");
            }
            for span in &sent {
                assert!(span.first <= span.last && span.last < length);
                assert!(wanted(span.first) && wanted(span.last));
            }
        }

        #[test]
        fn never_panics(value: Vec<u8>, length: u64) {
            let limits = RangeLimits::default();
            if let Ok(specs) = parse(&value, &limits) {
                let _ = resolve(&specs, length, &limits);
            }
            let _ = ContentRange::parse(&value);
        }
    }
}
