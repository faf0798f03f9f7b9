//! Validators (RFC 9110 §8.8): entity tags, their two comparisons, lists of them as in If-Match, and when a
//! modification date may count as a strong validator. Decides nothing about requests: that is `conditional`.

use crate::date::HttpDate;
use crate::fields::{Fields, Only};
use crate::grammar::{is_ows, trim_ows};
use crate::names::Known;

/// An entity tag (RFC 9110 §8.8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntityTag<'a> {
    /// Marked `W/`: two representations with this tag are interchangeable but not the same octets.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads exactly one entity tag. `W/` is case-sensitive; the quotes are a must; a backslash is an
    /// ordinary octet.
    pub fn parse(text: &'a [u8]) -> Option<EntityTag<'a>> {
        match EntityTag::parse_prefix(text)? {
            (tag, []) => Some(tag),
            _ => None,
        }
    }

    /// Reads the entity tag that `text` begins with; returns it and what follows.
    fn parse_prefix(text: &'a [u8]) -> Option<(EntityTag<'a>, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&b| !is_etagc(b))?;
        (inner[end] == b'"').then(|| (EntityTag { weak, opaque: &inner[..end] }, &inner[end + 1..]))
    }

    /// Strong comparison (9110-8.8.3.2-R1): neither is weak, and both are the same.
    pub fn strong_eq(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Weak comparison (9110-8.8.3.2-R1): the same but for `W/`.
    pub fn weak_eq(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    /// Appends the tag as it stands in ETag.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.weak { b"W/\"" } else { b"\"" });
        out.extend_from_slice(self.opaque);
        out.push(b'"');
    }
}

/// `etagc`: VCHAR except DQUOTE, and obs-text.
fn is_etagc(b: u8) -> bool {
    b == 0x21 || (0x23..=0x7e).contains(&b) || b >= 0x80
}

/// The value of If-Match or If-None-Match, over all of its lines: `*` or a list of entity tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityTags<'a> {
    /// `*`: any representation at all.
    Any,
    /// The tags, in order. May be empty.
    List(Vec<EntityTag<'a>>),
    /// Neither: a tag without quotes, `*` among tags, junk between them. Nothing is known of it.
    Malformed,
}

impl<'a> EntityTags<'a> {
    /// Reads all lines of the field. Linear in their length (fault G15).
    pub fn of(fields: &'a Fields, name: Known) -> EntityTags<'a> {
        EntityTags::parse_lines(fields.all(name))
    }

    /// Reads one value.
    pub fn parse(value: &'a [u8]) -> EntityTags<'a> {
        EntityTags::parse_lines(std::iter::once(value))
    }

    fn parse_lines(lines: impl Iterator<Item = &'a [u8]>) -> EntityTags<'a> {
        let (mut tags, mut any) = (Vec::new(), false);
        for line in lines {
            let mut rest = line;
            loop {
                // Empty members are skipped (9110-5.6.1.2-01), so commas and white space come in any number.
                while let [b, tail @ ..] = rest
                    && (*b == b',' || is_ows(*b))
                {
                    rest = tail;
                }
                if rest.is_empty() {
                    break;
                }
                if let [b'*', tail @ ..] = rest {
                    if any {
                        return EntityTags::Malformed;
                    }
                    any = true;
                    rest = tail;
                } else if let Some((tag, tail)) = EntityTag::parse_prefix(rest) {
                    tags.push(tag);
                    rest = tail;
                } else {
                    return EntityTags::Malformed;
                }
                rest = trim_ows(rest);
                if !matches!(rest, [] | [b',', ..]) {
                    return EntityTags::Malformed;
                }
            }
        }
        match any {
            true if tags.is_empty() => EntityTags::Any,
            true => EntityTags::Malformed,
            false => EntityTags::List(tags),
        }
    }
}

/// What is known of the selected representation: what conditions are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Validators<'a> {
    /// Its entity tag.
    pub etag: Option<EntityTag<'a>>,
    /// Its modification date.
    pub last_modified: Option<HttpDate>,
    /// Whether the target has a current representation at all: what `*` asks for.
    pub exists: bool,
}

impl<'a> Validators<'a> {
    /// Of a target without a current representation.
    pub const NONE: Validators<'static> = Validators { etag: None, last_modified: None, exists: false };

    /// Those of a response, received or stored. A field that is malformed or comes in several lines is no
    /// validator. `now` settles the century of an obsolete date.
    pub fn of_response(fields: &'a Fields, now: HttpDate) -> Validators<'a> {
        Validators {
            etag: match fields.only(Known::ETag) {
                Only::One(value) => EntityTag::parse(value),
                _ => None,
            },
            last_modified: match fields.only(Known::LastModified) {
                Only::One(value) => HttpDate::parse(value, now),
                _ => None,
            },
            exists: true,
        }
    }
}

/// Whether a modification date is a strong validator, seen from a message of this `date` (9110-8.8.2.2-R1):
/// at least one second lies between, so the second it names was over when the message was made. For an
/// origin server comparing with its own representation, `date` is now.
pub fn last_modified_is_strong(last_modified: HttpDate, date: HttpDate) -> bool {
    last_modified < date
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Option<EntityTag<'_>> {
        EntityTag::parse(text.as_bytes())
    }

    /// RFC 9110 §8.8.3: the grammar, both halves.
    #[test]
    fn one_tag() {
        for (text, weak, opaque) in [
            (r#""xyzzy""#, false, "xyzzy"),
            (r#"W/"xyzzy""#, true, "xyzzy"),
            (r#""""#, false, ""),
            (r#"W/"""#, true, ""),
            (r#""a,b""#, false, "a,b"),
            (r#""a\b""#, false, r"a\b"),
            (r#""a\""#, false, r"a\"),
            ("\"caf\u{e9}\"", false, "caf\u{e9}"),
            (r#""!#~""#, false, "!#~"),
        ] {
            let parsed = tag(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((parsed.weak, parsed.opaque), (weak, opaque.as_bytes()), "{text}");
            let mut out = Vec::new();
            parsed.write(&mut out);
            assert_eq!(out, text.as_bytes());
        }
        for text in [
            "",
            "xyzzy",
            "*",
            r#"""#,
            r#""a"#,
            r#"a""#,
            r#"'a'"#,
            r#"w/"a""#,
            r#"W/a"#,
            r#"W / "a""#,
            r#"W/"#,
            r#"W"a""#,
            r#""a b""#,
            "\"a\tb\"",
            "\"a\x7f\"",
            r#""a"b""#,
            r#""a" "#,
            r#" "a""#,
            r#""a","b""#,
            r#"W/W/"a""#,
            r#""a"-gzip"#,
        ] {
            assert_eq!(tag(text), None, "{text:?}");
        }
    }

    /// 9110-8.8.3.2-R1: the table of the RFC, and different opaque parts.
    #[test]
    fn both_comparisons() {
        for (a, b, strong, weak) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#"W/"1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
            (r#""1""#, r#""2""#, false, false),
            (r#""a""#, r#""A""#, false, false),
        ] {
            let (a, b) = (tag(a).unwrap(), tag(b).unwrap());
            assert_eq!((a.strong_eq(&b), a.weak_eq(&b)), (strong, weak), "{a:?} {b:?}");
        }
    }

    /// 9110-5.6.1.2-01, 9110-5.6.1.2-02 for entity tags; a comma or backslash inside a tag is part of it.
    #[test]
    fn lists_of_tags() {
        let opaque = |text: &'static str| match EntityTags::parse(text.as_bytes()) {
            EntityTags::List(tags) => {
                let names = tags.iter().map(|t| String::from_utf8_lossy(t.opaque).into_owned());
                names.collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        };
        for (text, expected) in [
            (r#""a""#, "a"),
            (r#""a", W/"b" ,"c""#, "a b c"),
            (r#""a","b""#, "a b"),
            (r#" , ,"a",, "b" ,"#, "a b"),
            (r#""a,b\", "c""#, r"a,b\ c"),
            ("", ""),
            (",", ""),
            ("*", "Any"),
            (" * ", "Any"),
            ("*,", "Any"),
            (r#"*, "a""#, "Malformed"),
            (r#""a", *"#, "Malformed"),
            ("*, *", "Malformed"),
            ("**", "Malformed"),
            ("a", "Malformed"),
            (r#""a" "b""#, "Malformed"),
            (r#""a""b""#, "Malformed"),
            (r#""a"; "b""#, "Malformed"),
            (r#""a", b"#, "Malformed"),
            (r#""a"#, "Malformed"),
            (r#"w/"a""#, "Malformed"),
        ] {
            assert_eq!(opaque(text), expected, "{text:?}");
        }
    }

    /// All lines are one list (RFC 9110 §5.3); `*` beside tags in another line is malformed as well.
    #[test]
    fn several_lines() {
        let mut fields = Fields::new();
        fields.push(Known::IfMatch, "\"a\"").unwrap();
        fields.push(Known::IfMatch, "W/\"b\"").unwrap();
        let EntityTags::List(tags) = EntityTags::of(&fields, Known::IfMatch) else { panic!() };
        assert_eq!(tags.len(), 2);
        fields.push(Known::IfMatch, "*").unwrap();
        assert_eq!(EntityTags::of(&fields, Known::IfMatch), EntityTags::Malformed);
        assert_eq!(EntityTags::of(&fields, Known::IfNoneMatch), EntityTags::List(Vec::new()));
    }

    /// Fault G15: ten thousand tags are read in one pass.
    #[test]
    fn very_many_tags() {
        let value = "\"0123456789\",".repeat(10_000);
        let EntityTags::List(tags) = EntityTags::parse(value.as_bytes()) else { panic!() };
        assert_eq!(tags.len(), 10_000);
    }

    #[test]
    fn validators_of_a_response() {
        let of = |lines: &[(&str, &str)]| {
            let mut fields = Fields::new();
            for (name, value) in lines {
                fields.push(*name, value).unwrap();
            }
            let v = Validators::of_response(&fields, HttpDate(0));
            (v.etag.map(|tag| tag.weak), v.last_modified.map(|date| date.0))
        };
        let date = "Thu, 01 Jan 1970 00:00:07 GMT";
        assert_eq!(of(&[("ETag", "\"a\""), ("Last-Modified", date)]), (Some(false), Some(7)));
        assert_eq!(of(&[("ETag", "W/\"a\"")]), (Some(true), None));
        assert_eq!(of(&[("ETag", "a"), ("Last-Modified", "yesterday")]), (None, None));
        assert_eq!(of(&[("ETag", "\"a\""), ("ETag", "\"b\"")]), (None, None));
        assert_eq!(of(&[("Last-Modified", date), ("Last-Modified", date)]), (None, None));
    }

    /// 9110-8.8.2.2-R1.
    #[test]
    fn when_a_date_is_strong() {
        for (last_modified, date, strong) in
            [(5, 6, true), (5, 5, false), (6, 5, false), (i64::MAX, i64::MIN, false)]
        {
            assert_eq!(last_modified_is_strong(HttpDate(last_modified), HttpDate(date)), strong);
        }
    }
}
