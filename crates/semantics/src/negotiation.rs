//! Proactive negotiation (RFC 9110 §12): Accept, Accept-Encoding, Accept-Language and Accept-Charset weigh the
//! variants that a server offers; the best one is chosen with the reason why, and ties go to the order in which
//! the server offers them. Which variants there are, and what a 406 says, is decided elsewhere.
//!
//! A member that is malformed is skipped. Languages follow RFC 4647: a range matches every tag that begins
//! with it (§3.3.1), and a tag that is the range cut short matches as a fall-back (§3.4).

use crate::fields::Fields;
use crate::grammar::{is_token, qvalue, semicolons, unquoted};
use crate::media_type::MediaType;
use crate::names::Known;

/// How welcome something is, in thousandths: 0 is "not acceptable" (9110-12.4.2-R1).
pub type Quality = u16;

const BEST: Quality = 1000;

/// One representation that could be sent. What is not given does not take part in the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Variant<'a> {
    /// Its media type, weighed by Accept.
    pub media_type: Option<MediaType<'a>>,
    /// Its charset, weighed by Accept-Charset.
    pub charset: Option<&'a [u8]>,
    /// Its language tag, weighed by Accept-Language.
    pub language: Option<&'a [u8]>,
    /// Its content coding, weighed by Accept-Encoding; `identity` for none.
    pub coding: Option<&'a [u8]>,
}

/// Why a variant was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request states no preference on anything in which the variants could differ.
    NotAsked,
    /// It has the highest quality, or the highest in the server's order.
    Preferred,
    /// No variant has a language that was asked for: languages are disregarded (RFC 9110 §12.5.4).
    LanguageDisregarded,
}

/// The variant chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Its index among those offered.
    pub index: usize,
    /// Why.
    pub reason: Reason,
}

/// No variant is acceptable: 406, or the default after all (RFC 9110 §12.1 leaves it to the server).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAcceptable;

/// Chooses among what is offered, in the server's order of preference.
///
/// Media type, charset and language weigh first, multiplied; the coding decides between variants that are
/// equal in those. A variant of quality 0 in anything is never chosen. If every language is refused or
/// unknown, languages do not count.
///
/// # Errors
/// If nothing is acceptable.
pub fn choose(fields: &Fields, offered: &[Variant<'_>]) -> Result<Choice, NotAcceptable> {
    const ASKS: [Known; 4] =
        [Known::Accept, Known::AcceptCharset, Known::AcceptLanguage, Known::AcceptEncoding];
    if offered.is_empty() {
        return Err(NotAcceptable);
    }
    // Without any preference the first one, but an unencoded one before the encoded ones: everything is
    // acceptable then, and identity is what everybody understands.
    if !fields.contains_any(&ASKS) {
        let index = offered.iter().position(|v| v.coding.is_none_or(is_identity)).unwrap_or(0);
        return Ok(Choice { index, reason: Reason::NotAsked });
    }
    if let Some(index) = best(offered, |v| rank(fields, v, true)) {
        return Ok(Choice { index, reason: Reason::Preferred });
    }
    match best(offered, |v| rank(fields, v, false)) {
        Some(index) => Ok(Choice { index, reason: Reason::LanguageDisregarded }),
        None => Err(NotAcceptable),
    }
}

/// Index of the first offer of the highest rank.
fn best<T, R: Ord>(offered: &[T], rank: impl Fn(&T) -> Option<R>) -> Option<usize> {
    let mut best: Option<(usize, R)> = None;
    for (index, offer) in offered.iter().enumerate() {
        if let Some(rank) = rank(offer)
            && best.as_ref().is_none_or(|(_, highest)| rank > *highest)
        {
            best = Some((index, rank));
        }
    }
    best.map(|(index, _)| index)
}

/// Quality of media type × charset × language, then of the coding. `None` if not acceptable.
fn rank(fields: &Fields, variant: &Variant<'_>, languages: bool) -> Option<(u64, CodingQuality)> {
    let media = variant.media_type.map_or(BEST, |media| media_quality(fields, &media));
    let charset = variant.charset.map_or(BEST, |charset| charset_quality(fields, charset));
    let language = match variant.language {
        Some(tag) if languages => language_quality(fields, tag),
        _ => BEST,
    };
    let coding = match variant.coding {
        Some(coding) => coding_quality(fields, coding),
        None => CodingQuality::Stated(BEST),
    };
    let quality = u64::from(media) * u64::from(charset) * u64::from(language);
    (quality > 0 && coding.is_acceptable()).then_some((quality, coding))
}

/// The names of the fields that chose: for Vary (9110-12.5.5-03). A field counts if the variants differ in
/// what it weighs.
pub fn varies_by(offered: &[Variant<'_>]) -> impl Iterator<Item = Known> {
    let differs = |same: fn(&Variant<'_>, &Variant<'_>) -> bool| {
        offered.split_first().is_some_and(|(first, rest)| rest.iter().any(|other| !same(first, other)))
    };
    [
        (Known::Accept, differs(|a, b| a.media_type == b.media_type)),
        (Known::AcceptCharset, differs(|a, b| a.charset == b.charset)),
        (Known::AcceptEncoding, differs(|a, b| a.coding == b.coding)),
        (Known::AcceptLanguage, differs(|a, b| a.language == b.language)),
    ]
    .into_iter()
    .filter_map(|(known, differs)| differs.then_some(known))
}

/// A list member without its parameters, and its weight. `None` if it has a malformed weight.
///
/// For fields whose members have no other parameter than `q`.
fn weighed(member: &[u8]) -> Option<(&[u8], Quality)> {
    let end = unquoted(member, b';');
    let name = crate::grammar::trim_ows(&member[..end]);
    let mut quality = BEST;
    for parameter in semicolons(&member[end..]) {
        match parameter {
            [b'q' | b'Q', b'=', value @ ..] => quality = qvalue(value)?,
            _ => return None,
        }
    }
    (!name.is_empty()).then_some((name, quality))
}

/// How welcome a media type is by Accept: the most specific range that matches decides (RFC 9110 §12.5.1).
pub fn media_quality(fields: &Fields, media: &MediaType<'_>) -> Quality {
    let mut found: Option<(u32, Quality)> = None;
    let mut any_valid = false;
    for member in fields.list(Known::Accept) {
        let Some(range) = MediaType::parse(member) else { continue };
        let Some((specificity, quality)) = match_range(&range, media, &mut any_valid) else { continue };
        if found.is_none_or(|(best, _)| specificity > best) {
            found = Some((specificity, quality));
        }
    }
    match found {
        Some((_, quality)) => quality,
        // No Accept, or nothing in it that could be read: everything is acceptable.
        None if !any_valid => BEST,
        None => 0,
    }
}

/// Whether a media range covers a type; how specific it is, and its weight. Any parameter named q is the
/// weight, whatever its position (9110-12.5.1-02); the others must be parameters of the type.
fn match_range(range: &MediaType<'_>, media: &MediaType<'_>, any_valid: &mut bool) -> Option<(u32, Quality)> {
    let all = range.top == b"*" && range.sub == b"*";
    if range.top == b"*" && !all {
        return None;
    }
    let quality = match range.parameter("q") {
        Some(value) => qvalue(&value)?,
        None => BEST,
    };
    *any_valid = true;
    let mut specificity = match () {
        () if all => 0,
        () if !range.top.eq_ignore_ascii_case(media.top) => return None,
        () if range.sub == b"*" => 1,
        () if range.sub.eq_ignore_ascii_case(media.sub) => 2,
        () => return None,
    };
    for (name, _) in range.parameters().filter(|(name, _)| !name.eq_ignore_ascii_case(b"q")) {
        let name = std::str::from_utf8(name).ok()?;
        let (wanted, actual) = (range.parameter(name)?, media.parameter(name)?);
        let same = match name.eq_ignore_ascii_case("charset") {
            true => wanted.eq_ignore_ascii_case(&actual),
            false => wanted == actual,
        };
        if !same {
            return None;
        }
        specificity += 3;
    }
    Some((specificity, quality))
}

/// How welcome a content coding is. Ordered: everything stated with a quality above 0 comes before identity
/// that nobody mentioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodingQuality {
    /// `q=0`, or not listed (9110-12.5.3-R1).
    Refused,
    /// Identity, which is acceptable unless refused, but was not asked for.
    ImplicitIdentity,
    /// Listed with this quality, by name or by `*`.
    Stated(Quality),
}

impl CodingQuality {
    /// Whether it may be sent.
    pub fn is_acceptable(self) -> bool {
        self > CodingQuality::Refused
    }
}

/// `identity`, in any case.
pub fn is_identity(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"identity")
}

/// The name under which a coding is registered: x-gzip and x-compress are old spellings (9110-8.4.1.1-01,
/// 9110-8.4.1.3-01).
pub fn canonical_coding(coding: &[u8]) -> &[u8] {
    match coding {
        _ if coding.eq_ignore_ascii_case(b"x-gzip") => b"gzip",
        _ if coding.eq_ignore_ascii_case(b"x-compress") => b"compress",
        _ => coding,
    }
}

/// How welcome a content coding is by Accept-Encoding (RFC 9110 §12.5.3).
///
/// Without the field anything is acceptable by the letter, but only identity is safe to send: coded variants
/// are then refused here. An empty field means identity only.
pub fn coding_quality(fields: &Fields, coding: &[u8]) -> CodingQuality {
    use CodingQuality::{ImplicitIdentity, Refused, Stated};
    let coding = canonical_coding(coding);
    let (mut named, mut star) = (None, None);
    for (name, quality) in fields.list(Known::AcceptEncoding).filter_map(weighed) {
        if name == b"*" {
            star = star.or(Some(quality));
        } else if canonical_coding(name).eq_ignore_ascii_case(coding) {
            named = named.or(Some(quality));
        }
    }
    match named.or(star) {
        Some(0) => Refused,
        Some(quality) => Stated(quality),
        None if is_identity(coding) => ImplicitIdentity,
        None => Refused,
    }
}

/// Chooses a content coding among those offered, in the server's order; `identity` takes part only if it is
/// offered. The index among them.
///
/// # Errors
/// If none is acceptable.
pub fn choose_coding(fields: &Fields, offered: &[&[u8]]) -> Result<usize, NotAcceptable> {
    let rank = |coding: &&[u8]| {
        let quality = coding_quality(fields, coding);
        quality.is_acceptable().then_some(quality)
    };
    best(offered, rank).ok_or(NotAcceptable)
}

/// How welcome a charset is by Accept-Charset (RFC 9110 §12.5.2, a field that is no longer of much use).
pub fn charset_quality(fields: &Fields, charset: &[u8]) -> Quality {
    let (mut named, mut star, mut any_valid) = (None, None, false);
    for (name, quality) in fields.list(Known::AcceptCharset).filter_map(weighed) {
        any_valid = true;
        if name == b"*" {
            star = star.or(Some(quality));
        } else if name.eq_ignore_ascii_case(charset) {
            named = named.or(Some(quality));
        }
    }
    named.or(star).unwrap_or(if any_valid { 0 } else { BEST })
}

/// How welcome a language tag is by Accept-Language (RFC 9110 §12.5.4).
///
/// The longest range that the tag begins with decides; then a range that begins with the tag (the look-up of
/// RFC 4647 §3.4, so `en` serves `en-GB`), the longest such and the most welcome; then `*`.
pub fn language_quality(fields: &Fields, tag: &[u8]) -> Quality {
    let (mut filtered, mut looked_up): (Option<(usize, Quality)>, Option<Quality>) = (None, None);
    let (mut star, mut any_valid) = (None, false);
    for (range, quality) in fields.list(Known::AcceptLanguage).filter_map(weighed) {
        if !is_language_range(range) {
            continue;
        }
        any_valid = true;
        if range == b"*" {
            star = star.or(Some(quality));
        } else if begins_with(tag, range) {
            if filtered.is_none_or(|(longest, _)| range.len() > longest) {
                filtered = Some((range.len(), quality));
            }
        } else if begins_with(range, tag) {
            looked_up = looked_up.max(Some(quality));
        }
    }
    match (filtered, looked_up) {
        (Some((_, quality)), _) => quality,
        // A refused range says nothing of its parent.
        (None, Some(quality @ 1..)) => quality,
        _ => star.unwrap_or(if any_valid { 0 } else { BEST }),
    }
}

/// Whether `tag` is `prefix`, or begins with it and a hyphen. Case does not matter.
fn begins_with(tag: &[u8], prefix: &[u8]) -> bool {
    tag.len() >= prefix.len()
        && tag[..prefix.len()].eq_ignore_ascii_case(prefix)
        && matches!(tag.get(prefix.len()), None | Some(b'-'))
}

/// `*`, or subtags of one to eight letters and digits, the first of letters only (RFC 4647 §2.1).
fn is_language_range(range: &[u8]) -> bool {
    if range == b"*" {
        return true;
    }
    let mut subtags = range.split(|&b| b == b'-');
    let first = subtags.next().unwrap_or_default();
    let fits = |subtag: &[u8]| (1..=8).contains(&subtag.len());
    is_token(first)
        && fits(first)
        && first.iter().all(u8::is_ascii_alphabetic)
        && subtags.all(|subtag| fits(subtag) && subtag.iter().all(u8::is_ascii_alphanumeric))
}

/// Whether a language tag is well-formed enough to be offered: as a range, but for `*`.
pub fn is_language_tag(tag: &[u8]) -> bool {
    tag != b"*" && is_language_range(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.push(*name, value).unwrap();
        }
        fields
    }

    /// RFC 9110 §12.5.1, the table there; 9110-12.5.1-02, 9110-12.4.2-R1.
    #[test]
    fn media_types() {
        let rfc = "text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, text/plain;format=fixed;q=0.4, */*;q=0.5";
        for (accept, media, expected) in [
            (rfc, "text/plain;format=flowed", 1000),
            (rfc, "text/plain", 700),
            (rfc, "text/html", 300),
            (rfc, "image/jpeg", 500),
            (rfc, "text/plain;format=fixed", 400),
            (rfc, "text/html;level=3", 300),
            ("text/html", "text/html;charset=utf-8", 1000),
            ("TEXT/HTML", "text/html", 1000),
            ("text/html;charset=UTF-8", "text/html;charset=utf-8", 1000),
            ("text/html;q=0.5;level=1", "text/html;level=1", 500),
            ("text/html;level=1;q=0.5", "text/html;level=1", 500),
            ("text/html;Q=0.5", "text/html", 500),
            ("text/html;level=1", "text/html", 0),
            ("text/html;level=1", "text/html;level=2", 0),
            ("text/html;q=0", "text/html", 0),
            ("text/html;q=0, */*", "text/html", 0),
            ("*/*, text/html;q=0", "text/html", 0),
            ("text/html;q=0.001", "text/html", 1),
            ("image/*", "text/html", 0),
            ("text/htm", "text/html", 0),
            // Malformed members are skipped; if nothing is left, nothing was asked.
            ("text/html;q=2", "text/html", 1000),
            ("text/html;q=0.1234", "text/html", 1000),
            ("text/html;q=-1, text/*;q=0.2", "text/html", 200),
            ("*/html, image/png", "text/html", 0),
            ("*/html", "text/html", 1000),
            ("", "text/html", 1000),
            (",,", "text/html", 1000),
            ("text", "text/html", 1000),
        ] {
            let media = MediaType::parse(media.as_bytes()).unwrap();
            assert_eq!(media_quality(&fields(&[("Accept", accept)]), &media), expected, "{accept} {media:?}");
        }
        let media = MediaType::parse(b"text/html").unwrap();
        assert_eq!(media_quality(&Fields::new(), &media), 1000);
        let lines = fields(&[("Accept", "image/png"), ("Accept", "text/*;q=0.5")]);
        assert_eq!(media_quality(&lines, &media), 500);
    }

    /// 9110-12.5.3-R1, 9110-12.5.3-02, 9110-8.4.1.1-01, 9110-8.4.1.3-01.
    #[test]
    fn codings() {
        let all: &[&[u8]] = &[b"br", b"gzip", b"identity"];
        for (accept, offered, expected) in [
            (None, all, Some("identity")),
            (Some("gzip, br"), all, Some("br")),
            (Some("gzip"), all, Some("gzip")),
            (Some("x-gzip"), all, Some("gzip")),
            (Some("X-GZIP"), all, Some("gzip")),
            (Some("GZip"), all, Some("gzip")),
            (Some("br;q=0.5, gzip"), all, Some("gzip")),
            (Some("br;q=0, gzip;q=0"), all, Some("identity")),
            (Some("deflate"), all, Some("identity")),
            (Some(""), all, Some("identity")),
            (Some("*"), all, Some("br")),
            (Some("*;q=0.1, gzip"), all, Some("gzip")),
            (Some("br;q=0, *"), all, Some("gzip")),
            // Not mentioned, identity comes last; mentioned, it counts by its weight.
            (Some("gzip;q=0.001"), all, Some("gzip")),
            (Some("gzip;q=0.5, identity"), all, Some("identity")),
            (Some("gzip;q=0.5, identity;q=0.5"), all, Some("gzip")),
            (Some("identity;q=0, gzip"), all, Some("gzip")),
            (Some("identity;q=0"), all, None),
            (Some("*;q=0"), all, None),
            (Some("*;q=0, identity;q=0.1"), all, Some("identity")),
            (Some("identity;q=0, *;q=0.5"), all, Some("br")),
            (Some("gzip"), &[&b"br"[..]], None),
            (Some("br"), &[&b"br"[..]], Some("br")),
            (None, &[&b"br"[..]], None),
            // Malformed members are skipped.
            (Some("br;q=x, gzip"), all, Some("gzip")),
            (Some("br;level=9, gzip"), all, Some("gzip")),
            (Some("br;q=1.5"), all, Some("identity")),
            (Some("br ; q=0.5 , gzip ; q=0.4"), all, Some("br")),
        ] {
            let lines: Vec<_> = accept.map(|value| ("Accept-Encoding", value)).into_iter().collect();
            let chosen = choose_coding(&fields(&lines), offered).ok();
            let chosen = chosen.map(|index| std::str::from_utf8(offered[index]).unwrap());
            assert_eq!(chosen, expected, "{accept:?}");
        }
    }

    /// RFC 9110 §12.5.4 and RFC 4647 §3.3.1, §3.4.
    #[test]
    fn languages() {
        for (accept, tag, expected) in [
            ("da, en-gb;q=0.8, en;q=0.7", "da", 1000),
            ("da, en-gb;q=0.8, en;q=0.7", "en-GB", 800),
            ("da, en-gb;q=0.8, en;q=0.7", "en", 700),
            ("da, en-gb;q=0.8, en;q=0.7", "en-US", 700),
            ("da, en-gb;q=0.8, en;q=0.7", "fr", 0),
            ("de", "de-DE-1996", 1000),
            ("de-de", "de-DE-1996", 1000),
            ("de-de", "de-Deva", 0),
            ("de-de", "de-Latn-DE", 0),
            ("zh-Hant-CN", "zh-Hant", 1000),
            ("zh-Hant-CN", "zh", 1000),
            ("zh-Hant-CN", "zh-Hans", 0),
            ("en-GB;q=0.5, en-US;q=0.8", "en", 800),
            ("en-GB, en;q=0", "en", 0),
            ("en-GB, en;q=0", "en-GB", 1000),
            ("en-GB;q=0, *", "en", 1000),
            ("*;q=0.5, fr", "de", 500),
            ("*;q=0.5, fr", "fr-CA", 1000),
            ("fr;q=0, *", "fr", 0),
            ("eng", "en", 0),
            ("en", "eng", 0),
            // Malformed ranges are skipped.
            ("e n", "fr", 1000),
            ("en_GB", "fr", 1000),
            ("abcdefghi, en;q=0.3", "en", 300),
            ("en--GB", "fr", 1000),
            ("1n", "fr", 1000),
            ("", "fr", 1000),
        ] {
            let lines = fields(&[("Accept-Language", accept)]);
            assert_eq!(language_quality(&lines, tag.as_bytes()), expected, "{accept} {tag}");
        }
        assert_eq!(language_quality(&Fields::new(), b"fr"), 1000);
        for (tag, expected) in
            [("en", true), ("zh-CN", true), ("*", false), ("", false), ("html", true), ("e_n", false)]
        {
            assert_eq!(is_language_tag(tag.as_bytes()), expected, "{tag}");
        }
    }

    /// RFC 9110 §12.5.2.
    #[test]
    fn charsets() {
        for (accept, charset, expected) in [
            ("iso-8859-5, unicode-1-1;q=0.8", "ISO-8859-5", 1000),
            ("iso-8859-5, unicode-1-1;q=0.8", "unicode-1-1", 800),
            ("iso-8859-5, unicode-1-1;q=0.8", "utf-8", 0),
            ("iso-8859-5, *;q=0.1", "utf-8", 100),
            ("utf-8;q=0, *", "utf-8", 0),
            ("utf-8;q=zero", "utf-8", 1000),
            ("", "utf-8", 1000),
        ] {
            let lines = fields(&[("Accept-Charset", accept)]);
            assert_eq!(charset_quality(&lines, charset.as_bytes()), expected, "{accept} {charset}");
        }
    }

    fn variant<'a>(media: &'a str, language: &'a str, coding: &'a str) -> Variant<'a> {
        let some = |text: &'a str| (!text.is_empty()).then_some(text.as_bytes());
        Variant {
            media_type: MediaType::parse(media.as_bytes()),
            charset: None,
            language: some(language),
            coding: some(coding),
        }
    }

    /// RFC 9110 §12.1: one choice over everything; the server's order breaks ties.
    #[test]
    fn whole_variants() {
        let pages =
            [variant("text/html", "en", ""), variant("text/html", "de", ""), variant("text/plain", "fr", "")];
        let coded = [
            variant("text/html", "en", "gzip"),
            variant("text/html", "en", "identity"),
            variant("text/html", "fr", "identity"),
        ];
        use Reason::{LanguageDisregarded, NotAsked, Preferred};
        for (lines, offered, expected) in [
            (&[][..], &pages[..], Some((0, NotAsked))),
            (&[], &coded, Some((1, NotAsked))),
            (&[("User-Agent", "x")], &coded, Some((1, NotAsked))),
            (&[("Accept-Language", "de, en;q=0.5")], &pages, Some((1, Preferred))),
            (&[("Accept-Language", "*")], &pages, Some((0, Preferred))),
            (&[("Accept-Language", "ja")], &pages, Some((0, LanguageDisregarded))),
            (&[("Accept-Language", "en;q=0, ja")], &pages, Some((0, LanguageDisregarded))),
            (&[("Accept", "text/plain")], &pages, Some((2, Preferred))),
            (&[("Accept", "text/plain"), ("Accept-Language", "de")], &pages, Some((2, LanguageDisregarded))),
            (&[("Accept", "text/plain;q=0.9, text/html;q=0.1")], &pages, Some((2, Preferred))),
            (&[("Accept", "image/png")], &pages, None),
            (&[("Accept", "text/html;q=0, text/plain;q=0")], &pages, None),
            (&[("Accept-Encoding", "gzip")], &coded, Some((0, Preferred))),
            // What is said weighs more than how it is packed.
            (
                &[("Accept-Encoding", "gzip"), ("Accept-Language", "fr, en;q=0.9")],
                &coded,
                Some((2, Preferred)),
            ),
            (
                &[("Accept-Encoding", "gzip, identity;q=0"), ("Accept-Language", "fr, en;q=0.9")],
                &coded,
                Some((0, Preferred)),
            ),
            (&[("Accept-Encoding", "br, identity;q=0")], &coded, None),
            (&[("Accept", "text/html")], &[], None),
        ] {
            let choice = choose(&fields(lines), offered).ok().map(|choice| (choice.index, choice.reason));
            assert_eq!(choice, expected, "{lines:?}");
        }
    }

    /// 9110-12.5.5-03: Vary names what could have changed the choice, and nothing else.
    #[test]
    fn what_vary_names() {
        let names = |offered: &[Variant<'_>]| varies_by(offered).collect::<Vec<_>>();
        let html = variant("text/html", "en", "gzip");
        assert_eq!(names(&[]), []);
        assert_eq!(names(&[html]), []);
        assert_eq!(names(&[html, html]), []);
        assert_eq!(names(&[html, variant("text/html", "en", "identity")]), [Known::AcceptEncoding]);
        assert_eq!(names(&[html, variant("text/html", "de", "gzip")]), [Known::AcceptLanguage]);
        assert_eq!(
            names(&[html, html, variant("text/plain", "", "gzip")]),
            [Known::Accept, Known::AcceptLanguage]
        );
    }

    proptest::proptest! {
        /// Whatever is asked for, a choice is one of the offers, is acceptable, and none before it ranks higher.
        #[test]
        fn choices_are_acceptable(
            lines in proptest::collection::vec(
                (0usize..4, "[a-z*/;=q0-9., \"\\\\-]{0,40}|(gzip|br|identity|en|de|en-GB|text/html|text/[*]|[*]/[*]|[*])(;q=[01](.[0-9]{1,3})?)?(, ?(gzip|br|identity|en|de|text/plain|[*])(;q=0(.[0-9]{1,3})?)?){0,3}"),
                0..4,
            ),
        ) {
            let mut fields = Fields::new();
            let names = [Known::Accept, Known::AcceptEncoding, Known::AcceptLanguage, Known::AcceptCharset];
            for (name, value) in &lines {
                let _ = fields.push(names[*name], value.trim());
            }
            let offered = [
                variant("text/html", "en", "gzip"),
                variant("text/html", "en", "identity"),
                variant("text/plain", "de", "br"),
                variant("text/plain", "", "identity"),
            ];
            if let Ok(choice) = choose(&fields, &offered) {
                if choice.reason == Reason::Preferred {
                    let chosen = rank(&fields, &offered[choice.index], true);
                    assert!(chosen.is_some());
                    for (index, other) in offered.iter().enumerate() {
                        let other = rank(&fields, other, true);
                        assert!(other < chosen || (other == chosen && index >= choice.index));
                    }
                }
            } else {
                assert!(offered.iter().all(|v| rank(&fields, v, false).is_none()));
            }
        }
    }
}
