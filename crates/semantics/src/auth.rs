//! The authentication framework (RFC 9110 §11): challenges and credentials as written in fields, which
//! challenge a user agent answers, and comparison that takes the same time whatever the secret.
//!
//! The schemes themselves are in `basic` and `digest`. Does not know users or passwords.

pub mod basic;
pub mod digest;

use crate::fields::Fields;
use crate::grammar::{self, is_ows, is_tchar, is_token, trim_ows};
use crate::names::Known;

/// Challenges read from one message; a server that sends more is not listened to.
pub const CHALLENGES_MAX: usize = 16;
/// Parameters read from one challenge or set of credentials.
pub const PARAMETERS_MAX: usize = 32;

/// What follows the scheme in a challenge or in credentials (RFC 9110 §11.2 to §11.4).
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Arguments {
    /// Nothing.
    #[default]
    None,
    /// A `token68`: base64 and the like.
    Token68(Vec<u8>),
    /// `name=value` pairs; names in lower case, values unquoted.
    Parameters(Vec<(String, Vec<u8>)>),
}

/// A challenge, or credentials: they have the same form.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// The scheme in lower case.
    pub scheme: String,
    /// What follows it.
    pub arguments: Arguments,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What follows may be a secret (fault L05).
        write!(f, "{} <hidden>", self.scheme)
    }
}

/// Why challenges or credentials could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It does not begin with a scheme.
    Scheme,
    /// What follows the scheme is neither a token68 nor parameters.
    Arguments,
    /// A parameter appears twice (9110-11.2-01).
    Duplicate,
    /// More than [`CHALLENGES_MAX`] or [`PARAMETERS_MAX`].
    TooMany,
}

impl Auth {
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        match &self.arguments {
            Arguments::Parameters(list) => {
                list.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
            }
            _ => None,
        }
    }

    /// The token68.
    pub fn token68(&self) -> Option<&[u8]> {
        if let Arguments::Token68(token) = &self.arguments { Some(token) } else { None }
    }

    /// Reads the value of Authorization or Proxy-Authorization: exactly one set of credentials.
    ///
    /// # Errors
    /// If it is malformed, or holds more than one.
    pub fn credentials(value: &[u8]) -> Result<Auth, Malformed> {
        let mut all = parse(value)?;
        match (all.pop(), all.is_empty()) {
            (Some(auth), true) => Ok(auth),
            _ => Err(Malformed::Arguments),
        }
    }
}

/// All challenges of WWW-Authenticate or Proxy-Authenticate, over all lines (9110-11.6.1-R1). A line that is
/// malformed is skipped: its neighbours may be fine.
pub fn challenges(fields: &Fields, name: Known) -> Vec<Auth> {
    let mut all: Vec<Auth> = fields.all(name).filter_map(|line| parse(line).ok()).flatten().collect();
    all.truncate(CHALLENGES_MAX);
    all
}

/// Reads a list of challenges. A comma separates both challenges and parameters, so the one thing that tells
/// them apart is what follows the token: `=` makes it a parameter, a space or the end a scheme.
fn parse(value: &[u8]) -> Result<Vec<Auth>, Malformed> {
    let mut all: Vec<Auth> = Vec::new();
    for element in grammar::list(value) {
        let token_len = element.iter().take_while(|&&b| is_tchar(b)).count();
        let (token, rest) = element.split_at(token_len);
        let after = trim_ows(rest);
        if token.is_empty() {
            return Err(if all.is_empty() { Malformed::Scheme } else { Malformed::Arguments });
        }
        // `name = value`: RFC 9110 §11.2 lets a recipient see BWS around the sign.
        if after.first() == Some(&b'=') {
            let auth = all.last_mut().ok_or(Malformed::Scheme)?;
            push_parameter(&mut auth.arguments, token, trim_ows(&after[1..]))?;
            continue;
        }
        if !rest.is_empty() && !is_ows(rest[0]) {
            return Err(if all.is_empty() { Malformed::Scheme } else { Malformed::Arguments });
        }
        if all.len() == CHALLENGES_MAX {
            return Err(Malformed::TooMany);
        }
        let scheme = String::from_utf8_lossy(token).to_ascii_lowercase();
        all.push(Auth { scheme, arguments: arguments(after)? });
    }
    if all.is_empty() { Err(Malformed::Scheme) } else { Ok(all) }
}

/// What stands between a scheme and the next comma.
fn arguments(text: &[u8]) -> Result<Arguments, Malformed> {
    if text.is_empty() {
        return Ok(Arguments::None);
    }
    if is_token68(text) {
        return Ok(Arguments::Token68(text.to_vec()));
    }
    let at = memchr::memchr(b'=', text).ok_or(Malformed::Arguments)?;
    let mut arguments = Arguments::None;
    push_parameter(&mut arguments, trim_ows(&text[..at]), trim_ows(&text[at + 1..]))?;
    Ok(arguments)
}

fn push_parameter(arguments: &mut Arguments, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
    if matches!(arguments, Arguments::None) {
        *arguments = Arguments::Parameters(Vec::new());
    }
    let Arguments::Parameters(list) = arguments else { return Err(Malformed::Arguments) };
    if !is_token(name) {
        return Err(Malformed::Arguments);
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let value = grammar::token_or_quoted(value).ok_or(Malformed::Arguments)?;
    if list.iter().any(|(n, _)| *n == name) {
        return Err(Malformed::Duplicate);
    }
    if list.len() == PARAMETERS_MAX {
        return Err(Malformed::TooMany);
    }
    list.push((name, value));
    Ok(())
}

/// `token68` (RFC 9110 §11.2): letters, digits, `-._~+/`, then any number of `=`.
pub fn is_token68(text: &[u8]) -> bool {
    let body = text.iter().take_while(|&&b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b)).count();
    body > 0 && text[body..].iter().all(|&b| b == b'=')
}

/// The value of a Bearer Authorization field (RFC 6750 §2.1); `None` if the token is no token68.
pub fn bearer(token: &[u8]) -> Option<Vec<u8>> {
    is_token68(token).then(|| [b"Bearer ", token].concat())
}

/// Whether both are equal, in a time that depends on the lengths only.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let mut difference = usize::from(a.len() != b.len());
    let longest = a.len().max(b.len());
    for i in 0..longest {
        let (x, y) = (a.get(i).copied().unwrap_or(0), b.get(i).copied().unwrap_or(0));
        difference |= usize::from(std::hint::black_box(x ^ y));
    }
    std::hint::black_box(difference) == 0
}

/// Which schemes a user agent may answer with the credentials it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Able {
    /// A bearer token is at hand.
    pub bearer: bool,
    /// User and password are at hand, and Digest may be used.
    pub digest: bool,
    /// User and password are at hand, and may be sent as they are.
    pub basic: bool,
}

/// The challenge to answer: the strongest that can be answered (RFC 9110 §11.6.1 leaves the choice to the user
/// agent). Bearer first, then Digest with SHA-256, Digest with MD5, Basic.
pub fn choose<'a>(challenges: &'a [Auth], able: Able) -> Option<&'a Auth> {
    let strength = |auth: &&'a Auth| match auth.scheme.as_str() {
        "bearer" if able.bearer => 4,
        "digest" if able.digest => match digest::Challenge::read(auth) {
            Ok(challenge) if challenge.algorithm.is_sha() => 3,
            Ok(_) => 2,
            Err(_) => 0,
        },
        "basic" if able.basic => 1,
        _ => 0,
    };
    // The first of equals: a server lists what it prefers first (RFC 7616 §3.7).
    let mut best: Option<(u8, &Auth)> = None;
    for auth in challenges {
        let score = strength(&auth);
        if score > best.map_or(0, |(score, _)| score) {
            best = Some((score, auth));
        }
    }
    best.map(|(_, auth)| auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(value: &str) -> Result<String, Malformed> {
        let all = parse(value.as_bytes())?;
        Ok(all
            .iter()
            .map(|auth| match &auth.arguments {
                Arguments::None => auth.scheme.clone(),
                Arguments::Token68(t) => format!("{} <{}>", auth.scheme, String::from_utf8_lossy(t)),
                Arguments::Parameters(list) => {
                    let list: Vec<_> =
                        list.iter().map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v))).collect();
                    format!("{} {}", auth.scheme, list.join(" "))
                }
            })
            .collect::<Vec<_>>()
            .join(" | "))
    }

    /// 9110-11.6.1-R1, 9110-11.2-01.
    #[test]
    fn lists_of_challenges() {
        for (value, expected) in [
            ("Basic", "basic"),
            ("Basic realm=\"a\"", "basic realm=a"),
            ("Basic realm=\"a, b=c\", charset=\"UTF-8\"", "basic realm=a, b=c charset=UTF-8"),
            (
                "Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\", Basic realm=\"simple\"",
                "newauth realm=apps type=1 title=Login to \"apps\" | basic realm=simple",
            ),
            ("Negotiate, Basic realm=x", "negotiate | basic realm=x"),
            ("Negotiate YWJj==, Basic realm=x", "negotiate <YWJj==> | basic realm=x"),
            (", Basic realm=x,,", "basic realm=x"),
            // 9110-5.6.3-05
            ("Digest realm = \"a\" , qop=\"auth\"", "digest realm=a qop=auth"),
            ("BASIC ReAlM=x", "basic realm=x"),
            ("Basic QWxhZGRpbjpvcGVu", "basic <QWxhZGRpbjpvcGVu>"),
        ] {
            assert_eq!(show(value).as_deref(), Ok(expected), "{value}");
        }
        for (value, expected) in [
            ("", Malformed::Scheme),
            (",", Malformed::Scheme),
            ("realm=x", Malformed::Scheme),
            ("\"Basic\" realm=x", Malformed::Scheme),
            ("Basic realm=x, realm=y", Malformed::Duplicate),
            ("Basic realm=x, REALM=y", Malformed::Duplicate),
            ("Basic realm=\"x", Malformed::Arguments),
            ("Basic realm=", Malformed::Arguments),
            ("Basic a b", Malformed::Arguments),
            ("Basic abc==, realm=x", Malformed::Arguments),
            ("Basic realm=x y", Malformed::Arguments),
        ] {
            // `realm=` alone is a token68 by its grammar, and is then useless: no realm.
            if value == "Basic realm=" {
                assert_eq!(show(value).as_deref(), Ok("basic <realm=>"));
                continue;
            }
            assert_eq!(show(value), Err(expected), "{value}");
        }
        let many = format!("A, {}", "B, ".repeat(CHALLENGES_MAX));
        assert_eq!(show(&many), Err(Malformed::TooMany));
    }

    #[test]
    fn a_bad_line_does_not_hide_a_good_one() {
        let fields: Fields =
            [("WWW-Authenticate", "Basic realm=\"x"), ("WWW-Authenticate", "Basic realm=y")].iter().collect();
        let all = challenges(&fields, Known::WwwAuthenticate);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].parameter("Realm"), Some(&b"y"[..]));
    }

    #[test]
    fn credentials_are_exactly_one() {
        assert_eq!(Auth::credentials(b"Basic eDp5").unwrap().token68(), Some(&b"eDp5"[..]));
        assert!(Auth::credentials(b"Basic eDp5, Basic eDp5").is_err());
        assert!(Auth::credentials(b"").is_err());
        let text = format!("{:?}", Auth::credentials(b"Basic c2VjcmV0").unwrap());
        assert!(!text.contains("c2V"), "{text}");
    }

    #[test]
    fn the_strongest_challenge_is_chosen() {
        let all = parse(
            b"Basic realm=a, Digest realm=a, nonce=n, qop=\"auth\", algorithm=MD5, \
              Digest realm=a, nonce=n, qop=\"auth\", algorithm=SHA-256, Bearer realm=a",
        )
        .unwrap();
        let everything = Able { bearer: true, digest: true, basic: true };
        let pick = |able| {
            choose(&all, able).map(|a| (a.scheme.clone(), a.parameter("algorithm").map(<[u8]>::to_vec)))
        };
        assert_eq!(pick(everything), Some(("bearer".into(), None)));
        assert_eq!(
            pick(Able { bearer: false, ..everything }),
            Some(("digest".into(), Some(b"SHA-256".to_vec())))
        );
        assert_eq!(pick(Able { basic: true, ..Able::default() }), Some(("basic".into(), None)));
        assert_eq!(pick(Able::default()), None);
        assert_eq!(choose(&parse(b"Negotiate").unwrap(), everything), None);
    }

    #[test]
    fn comparison_and_tokens() {
        for (a, b, equal) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "b", false),
            ("a", "ab", false),
            ("ab", "a", false),
            ("a\0", "a", false),
        ] {
            assert_eq!(constant_time_eq(a.as_bytes(), b.as_bytes()), equal, "{a:?} {b:?}");
        }
        assert_eq!(bearer(b"abc.def-_~+/=="), Some(b"Bearer abc.def-_~+/==".to_vec()));
        for bad in [&b""[..], b"a b", b"=", b"a=b", b"a\r\n"] {
            assert_eq!(bearer(bad), None);
        }
    }
}
