//! What a sender may write into Cache-Control (RFC 9111 §5.2): recipients read much that nobody may send, so what
//! an owner of a site configures is judged here, more strictly than what `directives.rs` reads.

use crate::grammar;
use std::fmt;

/// Why a Cache-Control is not sent as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// A member that is no directive.
    NotADirective(String),
    /// An argument in quotes that is only sent as a token (9111-5.2.2.1-01, 9111-5.2.2.10-02).
    Quoted(String),
    /// No number of seconds where one belongs.
    NoSeconds(String),
    /// Field names without quotes: a comma among them would end the directive (9111-5.2.2.4-03, 9111-5.2.2.7-04).
    Unquoted(String),
    /// An argument to a directive that has none.
    Argument(String),
    /// `must-understand` alone: a cache that does not know it would store what it should not (9111-5.2.2.3-01).
    MustUnderstandAlone,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::NotADirective(member) => write!(f, "`{member}` is no directive of Cache-Control"),
            Unfit::Quoted(name) => write!(f, "the seconds of `{name}` are written without quotes"),
            Unfit::NoSeconds(name) => write!(f, "`{name}` needs a number of seconds: `{name}=60`"),
            Unfit::Unquoted(name) => {
                write!(f, "the field names of `{name}` are written in quotes: `{name}=\"Set-Cookie\"`")
            }
            Unfit::Argument(name) => write!(f, "`{name}` has no argument"),
            Unfit::MustUnderstandAlone => f.write_str("`must-understand` goes together with `no-store`"),
        }
    }
}

/// Judges the value of a Cache-Control of a response. Directives that are not of RFC 9111, 5861 or 8246 may be anything
/// that the grammar allows.
///
/// # Errors
/// The first member that is unfit.
pub fn judge(value: &[u8]) -> Result<(), Unfit> {
    let mut names = Vec::new();
    for member in grammar::list(value) {
        names.push(judge_member(member)?);
    }
    let has = |name: &str| names.iter().any(|other| other == name);
    if has("must-understand") && !has("no-store") {
        return Err(Unfit::MustUnderstandAlone);
    }
    Ok(())
}

fn judge_member(member: &[u8]) -> Result<String, Unfit> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let (name, argument) = match memchr::memchr(b'=', member) {
        None => (member, None),
        Some(at) => (&member[..at], Some(&member[at + 1..])),
    };
    let value = argument.map(|argument| grammar::token_or_quoted(argument).filter(|_| !argument.is_empty()));
    if !grammar::is_token(name) || value == Some(None) {
        return Err(Unfit::NotADirective(text(member)));
    }
    let name = text(name).to_ascii_lowercase();
    let is_quoted = argument.is_some_and(|argument| argument.starts_with(b"\""));
    match &*name {
        "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error" => match value.flatten() {
            Some(_) if is_quoted => Err(Unfit::Quoted(name)),
            Some(value) if grammar::decimal_saturating(&value).is_some() => Ok(name),
            _ => Err(Unfit::NoSeconds(name)),
        },
        "no-cache" | "private" if argument.is_some() && !is_quoted => Err(Unfit::Unquoted(name)),
        "no-store" | "no-transform" | "must-revalidate" | "proxy-revalidate" | "must-understand"
        | "public" | "immutable"
            if argument.is_some() =>
        {
            Err(Unfit::Argument(name))
        }
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9111-5.2.2.1-01, 9111-5.2.2.10-02, 9111-5.2.2.4-03, 9111-5.2.2.7-04, 9111-5.2.2.3-01.
    #[test]
    fn what_may_be_sent() {
        let some = |unfit: fn(String) -> Unfit, what: &str| Err(unfit(what.into()));
        for (value, expected) in [
            ("", Ok(())),
            ("no-cache", Ok(())),
            ("max-age=3600", Ok(())),
            ("public, max-age=60, immutable", Ok(())),
            ("Max-Age=60, s-maxage=0, stale-while-revalidate=5, stale-if-error=86400", Ok(())),
            ("max-age=99999999999999999999", Ok(())),
            ("private=\"Set-Cookie, X-A\", no-cache=\"X-B\"", Ok(())),
            ("must-understand, no-store", Ok(())),
            ("unheard-of, other=token, third=\"quoted, with comma\"", Ok(())),
            ("max-age=\"3600\"", some(Unfit::Quoted, "max-age")),
            ("public, s-maxage=\"1\"", some(Unfit::Quoted, "s-maxage")),
            ("max-age", some(Unfit::NoSeconds, "max-age")),
            ("max-age=1h", some(Unfit::NoSeconds, "max-age")),
            ("max-age=-1", some(Unfit::NoSeconds, "max-age")),
            ("max-age=1.5", some(Unfit::NoSeconds, "max-age")),
            ("stale-if-error=\"x\"", some(Unfit::Quoted, "stale-if-error")),
            ("private=Set-Cookie", some(Unfit::Unquoted, "private")),
            ("no-cache=X-A", some(Unfit::Unquoted, "no-cache")),
            ("no-store=1", some(Unfit::Argument, "no-store")),
            ("must-revalidate=\"a\"", some(Unfit::Argument, "must-revalidate")),
            ("must-understand", Err(Unfit::MustUnderstandAlone)),
            ("must-understand, max-age=5", Err(Unfit::MustUnderstandAlone)),
            ("max-age=", some(Unfit::NotADirective, "max-age=")),
            ("max age=5", some(Unfit::NotADirective, "max age=5")),
            ("max-age =5", some(Unfit::NotADirective, "max-age =5")),
            ("x=\"never ends", some(Unfit::NotADirective, "x=\"never ends")),
            ("public; max-age=5", some(Unfit::NotADirective, "public; max-age=5")),
        ] {
            assert_eq!(judge(value.as_bytes()), expected, "{value}");
        }
    }
}
