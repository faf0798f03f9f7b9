//! Media types (RFC 9110 §8.3): type, subtype and parameters, read strictly. Media ranges of Accept are read
//! in `negotiation`, which builds on this.

use crate::grammar::{is_token, parameter, semicolons, token_or_quoted};
use std::borrow::Cow;

/// A media type as written, its parts found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// `text` of `text/html`, as written.
    pub top: &'a [u8],
    /// `html` of `text/html`, as written.
    pub sub: &'a [u8],
    /// What follows, beginning with its `;`, well-formed.
    parameters: &'a [u8],
}

impl<'a> MediaType<'a> {
    /// Reads the value of Content-Type. `None` if anything in it is malformed: a parameter without value,
    /// white space around `=` or `/`, something after the last parameter.
    pub fn parse(text: &'a [u8]) -> Option<MediaType<'a>> {
        let end = text.iter().position(|&b| b == b';' || crate::grammar::is_ows(b)).unwrap_or(text.len());
        let (essence, parameters) = (&text[..end], crate::grammar::trim_ows(&text[end..]));
        let slash = memchr::memchr(b'/', essence)?;
        let (top, sub) = (&essence[..slash], &essence[slash + 1..]);
        if !is_token(top) || !is_token(sub) || !matches!(parameters, [] | [b';', ..]) {
            return None;
        }
        let well_formed = semicolons(parameters).all(|text| {
            // Splitting without copying: the value is a token, or a quoted string to its end.
            parameter(text).is_some_and(|(_, value)| match value {
                [b'"', ..] => crate::grammar::unquote(value).is_some(),
                _ => is_token(value),
            })
        });
        well_formed.then_some(MediaType { top, sub, parameters })
    }

    /// Whether it is this type, whatever its parameters: `is("text/html")`. Case does not matter.
    pub fn is(&self, essence: &str) -> bool {
        let wanted = essence.as_bytes();
        wanted.len() == self.top.len() + 1 + self.sub.len()
            && wanted[..self.top.len()].eq_ignore_ascii_case(self.top)
            && wanted[self.top.len()] == b'/'
            && wanted[self.top.len() + 1..].eq_ignore_ascii_case(self.sub)
    }

    /// Names and values of the parameters in order, values as written (token or quoted string).
    pub fn parameters(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        semicolons(self.parameters).filter_map(parameter)
    }

    /// The value of the first parameter of this name, quotes undone. Names compare without regard to case.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let (_, value) = self.parameters().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()))?;
        Some(match value {
            [b'"', ..] => Cow::Owned(token_or_quoted(value)?),
            _ => Cow::Borrowed(value),
        })
    }

    /// The `charset` parameter (RFC 9110 §8.3.2).
    pub fn charset(&self) -> Option<Cow<'a, [u8]>> {
        self.parameter("charset")
    }

    /// The `boundary` of a multipart type: one to 70 octets that RFC 2046 §5.1.1 allows, not ending in space.
    pub fn boundary(&self) -> Option<Cow<'a, [u8]>> {
        let boundary = self.parameter("boundary")?;
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(b);
        let fits = (1..=70).contains(&boundary.len())
            && boundary.iter().all(allowed)
            && boundary.last() != Some(&b' ');
        fits.then_some(boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &[u8]) -> Option<String> {
        let media = MediaType::parse(text)?;
        let mut out =
            format!("{}/{}", String::from_utf8_lossy(media.top), String::from_utf8_lossy(media.sub));
        for (name, _) in media.parameters() {
            let name = std::str::from_utf8(name).unwrap();
            let value = media.parameter(name).unwrap();
            out.push_str(&format!(" {name}=<{}>", String::from_utf8_lossy(&value)));
        }
        Some(out)
    }

    /// RFC 9110 §8.3.1: the four spellings of one type, and others. 9110-5.6.4-01.
    #[test]
    fn well_formed() {
        for (text, expected) in [
            ("text/html;charset=utf-8", "text/html charset=<utf-8>"),
            ("Text/HTML;Charset=\"utf-8\"", "Text/HTML Charset=<utf-8>"),
            ("text/html; charset=\"utf-8\"", "text/html charset=<utf-8>"),
            ("text/html;charset=UTF-8", "text/html charset=<UTF-8>"),
            ("text/html", "text/html"),
            ("text/html;", "text/html"),
            ("text/html ; ; a=1;;b=2", "text/html a=<1> b=<2>"),
            ("text/html;a=\"x;y=\\\"z\"", "text/html a=<x;y=\"z>"),
            ("application/vnd.api+json", "application/vnd.api+json"),
            (
                "multipart/byteranges; boundary=THIS_SEPARATES",
                "multipart/byteranges boundary=<THIS_SEPARATES>",
            ),
            ("a/b;c=\"\"", "a/b c=<>"),
            ("*/*", "*/*"),
        ] {
            assert_eq!(show(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn malformed() {
        for text in [
            &b""[..],
            b"text",
            b"/",
            b"text/",
            b"/html",
            b"text//html",
            b"text/html/x",
            b"text /html",
            b"text/ html",
            b" text/html",
            b"text/html charset=utf-8",
            b"text/html; charset",
            b"text/html; charset=",
            b"text/html; =utf-8",
            b"text/html; charset =utf-8",
            b"text/html; charset= utf-8",
            b"text/html; charset=utf 8",
            b"text/html; charset=\"utf-8",
            b"text/html; charset=\"utf-8\"x",
            b"text/html; charset=utf\"8",
            b"text/html, text/plain",
            b"text/html; a=b, c",
            b"text/h\xc3\xa9",
        ] {
            assert_eq!(show(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn essence_and_parameters() {
        let media = MediaType::parse(b"Text/HTML; Charset=\"UTF-8\"; charset=latin1").unwrap();
        assert!(media.is("text/html"));
        for other in ["text/htm", "text/htmlx", "texthtml", "text/*", "*/*", "", "tex/thtml", "text.html"] {
            assert!(!media.is(other), "{other}");
        }
        assert_eq!(media.charset().as_deref(), Some(&b"UTF-8"[..]));
        assert_eq!(media.parameter("boundary"), None);
        for (text, expected) in [
            ("multipart/x; boundary=abc", Some("abc")),
            ("multipart/x; boundary=\"gc0:p'()+_,-./=? x\"", Some("gc0:p'()+_,-./=? x")),
            ("multipart/x; boundary=\"\"", None),
            ("multipart/x; boundary=\"ends \"", None),
            ("multipart/x; boundary=\"a<b\"", None),
            ("multipart/x", None),
        ] {
            let boundary = MediaType::parse(text.as_bytes()).unwrap().boundary();
            assert_eq!(boundary.as_deref(), expected.map(str::as_bytes), "{text}");
        }
        let long = format!("multipart/x; boundary={}", "b".repeat(71));
        assert_eq!(MediaType::parse(long.as_bytes()).unwrap().boundary(), None);
    }

    proptest::proptest! {
        /// What parses can be taken apart without surprise.
        #[test]
        fn never_panics(text in "[a-z/;=\" \\\\,]{0,30}|text/[a-z]{1,5}(; ?[a-z]{1,3}=([a-z]{1,3}|\"[a-z;\\\\,]{0,6}\")){0,3}") {
            if let Some(media) = MediaType::parse(text.as_bytes()) {
                for (name, _) in media.parameters() {
                    assert!(media.parameter(std::str::from_utf8(name).unwrap()).is_some());
                }
                let _ = (media.boundary(), media.charset());
            }
        }
    }
}
