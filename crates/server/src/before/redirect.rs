//! Where a redirection or a rewrite leads: text with words in braces, filled in from the request. What the client
//! chose is percent-encoded on the way out, so it can neither end a line nor name another host (faults H17, P21), and the
//! host comes from the configuration where the site has a name (fault H11).

use crate::pattern::Caught;
use eleven_semantics::target::{Scheme, push_encoded_path, push_encoded_value};

/// A text with words in braces, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Path,
    Rest,
    Query,
    Host,
    Scheme,
    /// What this group of the route's pattern caught.
    Group(usize),
}

/// Why a template was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidTemplate {
    /// A word that means nothing.
    Word(String),
    /// A brace that is not closed.
    Brace,
    /// A variable as other servers write it.
    Variable(String),
    /// A character that no URI holds; it must be percent-encoded.
    Character(char),
    /// It starts neither with `/` nor with a scheme nor with a word.
    Start,
}

impl std::fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InvalidTemplate::Word(word) => {
                write!(
                    f,
                    "`{{{word}}}` is none of {{path}}, {{rest}}, {{query}}, {{host}}, {{scheme}}, nor {{1}} to {{9}}"
                )
            }
            InvalidTemplate::Variable(name) => {
                let ours = match name.as_str() {
                    "uri" | "request_uri" | "document_uri" => "{path}, and {query} behind it",
                    "args" | "is_args" | "query_string" => "{query}",
                    "host" | "http_host" | "server_name" => "{host}",
                    "scheme" => "{scheme}",
                    number if number.len() == 1 && number.as_bytes()[0].is_ascii_digit() => {
                        return write!(
                            f,
                            "`${number}` is written `{{{number}}}` here (and `%24` is the dollar sign)"
                        );
                    }
                    _ => "in braces: {path}, {rest}, {query}, {host}, {scheme}, {1} to {9}",
                };
                write!(f, "`${name}` is no variable here; write it {ours} (or `%24` for the dollar sign)")
            }
            InvalidTemplate::Brace => f.write_str("a brace is not closed"),
            InvalidTemplate::Character(c) => write!(f, "`{}` must be percent-encoded", c.escape_debug()),
            InvalidTemplate::Start => {
                f.write_str("it starts with `/`, `http://`, `https://` or a word in braces")
            }
        }
    }
}

/// What the words stand for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The canonical path, decoded.
    pub path: &'a [u8],
    /// How much of it is the route's prefix.
    pub prefix_len: usize,
    /// The query as received, without `?`.
    pub query: Option<&'a [u8]>,
    /// Host and port: of the configuration, or as the client asked for and the head was checked.
    pub host: &'a [u8],
    /// Scheme of the connection.
    pub scheme: Scheme,
    /// What the groups of the route's pattern caught, decoded as the path is.
    pub caught: Caught<'a>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// At the first mistake.
    pub fn parse(text: &str) -> Result<Template, InvalidTemplate> {
        let starts = ["/", "http://", "https://", "{"];
        if !starts.iter().any(|start| text.starts_with(start)) {
            return Err(InvalidTemplate::Start);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal = &rest[..rest.find('{').unwrap_or(rest.len())];
            if let Some(bad) = literal.chars().find(|&c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(c)) {
                return Err(InvalidTemplate::Character(bad));
            }
            if let Some((_, rest)) = literal.split_once('$') {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                if end > 0 {
                    return Err(InvalidTemplate::Variable(rest[..end].into()));
                }
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.into()));
            }
            rest = &rest[literal.len()..];
            if let Some(tail) = rest.strip_prefix('{') {
                let close = tail.find('}').ok_or(InvalidTemplate::Brace)?;
                pieces.push(match &tail[..close] {
                    "path" => Piece::Path,
                    "rest" => Piece::Rest,
                    "query" => Piece::Query,
                    "host" => Piece::Host,
                    "scheme" => Piece::Scheme,
                    word if word.len() == 1 && matches!(word.as_bytes()[0], b'1'..=b'9') => {
                        Piece::Group(usize::from(word.as_bytes()[0] - b'0'))
                    }
                    word => return Err(InvalidTemplate::Word(word.into())),
                });
                rest = &tail[close + 1..];
            }
        }
        Ok(Template { pieces: pieces.into() })
    }

    /// The highest number of a group that it names; 0 if it names none.
    pub fn highest_group(&self) -> usize {
        let numbers =
            self.pieces.iter().map(|piece| if let Piece::Group(number) = piece { *number } else { 0 });
        numbers.max().unwrap_or(0)
    }

    /// Fills it in.
    pub fn expand(&self, place: &Place<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Path => push_part(&mut out, place.path),
                Piece::Rest => {
                    let rest = &place.path[place.prefix_len.min(place.path.len())..];
                    push_part(&mut out, rest.strip_prefix(b"/").unwrap_or(rest));
                }
                Piece::Group(number) => push_part(&mut out, place.caught.group(*number)),
                Piece::Query => {
                    if let Some(query) = place.query {
                        out.push(b'?');
                        out.extend_from_slice(query);
                    }
                }
                Piece::Host => out.extend_from_slice(place.host),
                Piece::Scheme => out.extend_from_slice(place.scheme.as_str().as_bytes()),
            }
        }
        // A reference that starts with two slashes names a host (fault P21).
        if out.starts_with(b"//") {
            let slashes = out.iter().take_while(|&&b| b == b'/').count();
            out.drain(1..slashes);
        }
        out
    }
}

/// A part of a path, encoded for where it comes to stand: in a query it must not begin another parameter.
fn push_part(out: &mut Vec<u8>, part: &[u8]) {
    match out.contains(&b'?') {
        true => push_encoded_value(out, part),
        false => push_encoded_path(out, part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    /// Faults H11, H17, P21.
    #[test]
    fn templates_and_what_comes_of_them() {
        for (template, path, prefix_len, query, expected) in [
            ("https://{host}{path}{query}", "/a/b", 0, Some("x=1"), "https://example.org/a/b?x=1"),
            ("https://{host}{path}{query}", "/a/b", 0, None, "https://example.org/a/b"),
            ("/new/{rest}", "/old/a/b", 4, None, "/new/a/b"),
            ("/new/{rest}", "/old", 4, None, "/new/"),
            ("/new/{rest}{query}", "/old/", 4, Some(""), "/new/?"),
            ("{scheme}://x.test/{rest}", "/a", 0, None, "http://x.test/a"),
            ("{path}index.html", "/d/", 0, None, "/d/index.html"),
            ("/{path}", "/evil.test", 0, None, "/evil.test"),
            ("/{path}", "/\r\nX: y\u{e9} \"", 0, None, "/%0D%0AX:%20y%C3%A9%20%22"),
        ] {
            let template = Template::parse(template).unwrap();
            let place = Place {
                path: path.as_bytes(),
                prefix_len,
                query: query.map(str::as_bytes),
                host: b"example.org",
                scheme: Scheme::Http,
                caught: Caught::default(),
            };
            assert_eq!(String::from_utf8(template.expand(&place)).unwrap(), expected);
        }
    }

    /// Faults H17, P21: what a group caught is as little trusted as the path that it is of.
    #[test]
    fn groups_and_queries() {
        for (pattern, template, path, expected) in [
            ("^/u/([0-9]+)$", "/user.html?id={1}", "/u/17", "/user.html?id=17"),
            ("^/(.*)/(.*)$", "/{2}/{1}", "/a b/c", "/c/a%20b"),
            ("^/(.*)$", "/find?q={1}&x=1", "/a&x=2#?é", "/find?q=a%26x%3D2%23%3F%C3%A9&x=1"),
            ("^/(.*)$", "/find?q={path}", "/a/b+c", "/find?q=/a/b%2Bc"),
            ("^/x(/.*)$", "{1}", "/x//evil.test", "/evil.test"),
            ("^/(a)?(b)?$", "/{1}-{2}-{3}", "/b", "/-b-"),
        ] {
            let (pattern, template) = (Pattern::parse(pattern).unwrap(), Template::parse(template).unwrap());
            let place = Place {
                path: path.as_bytes(),
                prefix_len: 0,
                query: None,
                host: b"example.org",
                scheme: Scheme::Http,
                caught: pattern.catch(path.as_bytes()),
            };
            assert_eq!(String::from_utf8(template.expand(&place)).unwrap(), expected);
        }
        for (template, highest) in [("/{path}", 0), ("/{1}", 1), ("/{2}{9}{1}", 9)] {
            assert_eq!(Template::parse(template).unwrap().highest_group(), highest);
        }
    }

    #[test]
    fn templates_that_are_refused() {
        for (text, reason) in [
            ("", InvalidTemplate::Start),
            ("a", InvalidTemplate::Start),
            ("ftp://a", InvalidTemplate::Start),
            ("javascript:alert(1)", InvalidTemplate::Start),
            ("/{pth}", InvalidTemplate::Word("pth".into())),
            ("/{0}", InvalidTemplate::Word("0".into())),
            ("/{10}", InvalidTemplate::Word("10".into())),
            ("/{", InvalidTemplate::Brace),
            ("/}", InvalidTemplate::Character('}')),
            ("https://new.example$request_uri", InvalidTemplate::Variable("request_uri".into())),
            ("/new/$1", InvalidTemplate::Variable("1".into())),
            ("/a b", InvalidTemplate::Character(' ')),
            ("/a\r\nb", InvalidTemplate::Character('\r')),
            ("/é", InvalidTemplate::Character('é')),
        ] {
            assert_eq!(Template::parse(text), Err(reason), "{text:?}");
        }
    }
}
