//! Where credentials come from and to whom they may go: what the user gave, bound to the origin it was given
//! for (faults K04, K07), and `.netrc`.

use eleven_semantics::auth::digest;
use eleven_semantics::uri::{Uri, Userinfo};
use std::collections::HashMap;

/// Longest `.netrc` that is read, in octets.
pub const NETRC_BYTES_MAX: usize = 1024 * 1024;

/// A secret to answer challenges with. Never shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// User and password, for Basic and Digest.
    Password {
        /// The user.
        user: Vec<u8>,
        /// The password.
        password: Vec<u8>,
    },
    /// A bearer token.
    Bearer(Vec<u8>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(<hidden>)")
    }
}

impl From<Userinfo> for Secret {
    fn from(userinfo: Userinfo) -> Secret {
        Secret::Password { user: userinfo.user, password: userinfo.password.unwrap_or_default() }
    }
}

/// Secrets with the origins they belong to.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    given: Option<(Uri, Secret)>,
    netrc: Netrc,
}

impl Credentials {
    /// What the user gave for the URI that was asked for first; it goes to that origin and to no other.
    pub fn give(&mut self, uri: &Uri, secret: Secret) {
        self.given = Some((uri.clone(), secret));
    }

    /// Adds what a `.netrc` says.
    pub fn set_netrc(&mut self, netrc: Netrc) {
        self.netrc = netrc;
    }

    /// The secret for a request to `uri` in a chain that began at `first`. `.netrc` counts only for the first
    /// origin as well: a redirection must not pull another machine's password out of the file (fault K07).
    pub fn find(&self, first: &Uri, uri: &Uri) -> Option<Secret> {
        if let Some((origin, secret)) = &self.given
            && origin.same_origin(uri)
        {
            return Some(secret.clone());
        }
        if !first.same_origin(uri) {
            return None;
        }
        self.netrc.find(uri.host_bare())
    }
}

/// The entries of a `.netrc`.
#[derive(Debug, Clone, Default)]
pub struct Netrc {
    machines: HashMap<String, Entry>,
    default: Option<Entry>,
}

#[derive(Clone, Default)]
struct Entry {
    login: Vec<u8>,
    password: Vec<u8>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
    }
}

/// What is wrong with a `.netrc`, and in which line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNetrc {
    /// The line, from 1.
    pub line: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl std::fmt::Display for InvalidNetrc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: expected {}", self.line, self.expected)
    }
}

impl Netrc {
    /// Reads the file's text. The first entry of a machine counts; `macdef` blocks are skipped up to the next
    /// empty line; a word may be quoted, with `\"` and `\\` inside.
    ///
    /// # Errors
    /// The first line that cannot be understood: guessing about passwords helps nobody.
    pub fn parse(text: &[u8]) -> Result<Netrc, InvalidNetrc> {
        if text.len() > NETRC_BYTES_MAX {
            return Err(InvalidNetrc { line: 1, expected: "a file of at most 1 MiB" });
        }
        let mut words = Words { text, at: 0, line: 1 };
        let mut netrc = Netrc::default();
        let mut current: Option<(Option<String>, Entry)> = None;
        while let Some(word) = words.next()? {
            match word.as_slice() {
                b"machine" => {
                    netrc.keep(current.take());
                    let name = words.expect("a machine's name after `machine`")?;
                    current =
                        Some((Some(String::from_utf8_lossy(&name).to_ascii_lowercase()), Entry::default()));
                }
                b"default" => {
                    netrc.keep(current.take());
                    current = Some((None, Entry::default()));
                }
                b"macdef" => words.skip_macro(),
                keyword @ (b"login" | b"password" | b"account") => {
                    let line = words.line;
                    let value = words.expect("a value")?;
                    let Some((_, entry)) = &mut current else {
                        return Err(InvalidNetrc { line, expected: "`machine` before anything else" });
                    };
                    match keyword {
                        b"login" => entry.login = value,
                        b"password" => entry.password = value,
                        _ => {}
                    }
                }
                _ => {
                    let expected = "`machine`, `default`, `login`, `password`, `account` or `macdef`";
                    return Err(InvalidNetrc { line: words.line, expected });
                }
            }
        }
        netrc.keep(current);
        Ok(netrc)
    }

    fn keep(&mut self, entry: Option<(Option<String>, Entry)>) {
        match entry {
            Some((Some(name), entry)) => {
                self.machines.entry(name).or_insert(entry);
            }
            Some((None, entry)) => {
                self.default.get_or_insert(entry);
            }
            None => {}
        }
    }

    /// The password for a host, in canonical form.
    pub fn find(&self, host: &str) -> Option<Secret> {
        let entry = self.machines.get(host).or(self.default.as_ref())?;
        Some(Secret::Password { user: entry.login.clone(), password: entry.password.clone() })
    }
}

struct Words<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Words<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, InvalidNetrc> {
        loop {
            match self.text.get(self.at) {
                None => return Ok(None),
                Some(b'\n') => {
                    self.line += 1;
                    self.at += 1;
                }
                Some(b) if b.is_ascii_whitespace() => self.at += 1,
                Some(b'#') => {
                    while self.text.get(self.at).is_some_and(|&b| b != b'\n') {
                        self.at += 1;
                    }
                }
                Some(b'"') => return self.quoted().map(Some),
                Some(_) => {
                    let start = self.at;
                    while self.text.get(self.at).is_some_and(|b| !b.is_ascii_whitespace()) {
                        self.at += 1;
                    }
                    return Ok(Some(self.text[start..self.at].to_vec()));
                }
            }
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>, InvalidNetrc> {
        let mut word = Vec::new();
        let unclosed = InvalidNetrc { line: self.line, expected: "a closing quote" };
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                None | Some(b'\n') => return Err(unclosed),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(word);
                }
                Some(b'\\') => {
                    let escaped = *self.text.get(self.at + 1).ok_or(unclosed)?;
                    word.push(match escaped {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        other => other,
                    });
                    self.at += 2;
                }
                Some(&b) => {
                    word.push(b);
                    self.at += 1;
                }
            }
        }
    }

    fn expect(&mut self, expected: &'static str) -> Result<Vec<u8>, InvalidNetrc> {
        let line = self.line;
        self.next()?.ok_or(InvalidNetrc { line, expected })
    }

    fn skip_macro(&mut self) {
        let rest = &self.text[self.at..];
        let end = memmem(rest, b"\n\n").map_or(rest.len(), |at| at + 2);
        self.line += rest[..end].iter().filter(|&&b| b == b'\n').count();
        self.at += end;
    }
}

fn memmem(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// The answer to a Digest challenge, with a nonce of our own. `count` is how often the server's was used, from 1.
pub fn digest_answer(
    challenge: &digest::Challenge,
    user: &[u8],
    password: &[u8],
    method: &str,
    target: &str,
    count: u32,
) -> Option<Vec<u8>> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).ok()?;
    let cnonce: String = random.iter().map(|b| format!("{b:02x}")).collect();
    Some(challenge.answer(user, password, method, target, count, &cnonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        Uri::parse(text.as_bytes()).unwrap().0
    }

    fn password(user: &str, password: &str) -> Secret {
        Secret::Password { user: user.into(), password: password.into() }
    }

    #[test]
    fn netrc_files() {
        let netrc = Netrc::parse(
            b"# comment\nmachine Example.com login me password se#cret\n\
              machine b\n  login \"a b\"\n  password \"q\\\"\\\\\"\n  account x\n\
              macdef init\ncd /pub\nmachine evil login x\n\nmachine b login second password second\n\
              default login anonymous password guest\n",
        )
        .unwrap();
        assert_eq!(netrc.find("example.com"), Some(password("me", "se#cret")));
        assert_eq!(netrc.find("b"), Some(password("a b", "q\"\\")));
        assert_eq!(netrc.find("evil"), Some(password("anonymous", "guest")));
        assert_eq!(Netrc::parse(b"").unwrap().find("a"), None);
        for (text, line) in [
            (&b"login x"[..], 1),
            (b"machine a\n\nlogim x", 3),
            (b"machine", 1),
            (b"machine a login", 1),
            (b"machine a\nlogin \"x", 2),
            (b"machine a password \"x\ny\"", 1),
        ] {
            assert_eq!(Netrc::parse(text).unwrap_err().line, line, "{:?}", String::from_utf8_lossy(text));
        }
        assert!(!format!("{netrc:?}").contains("cret"), "secrets stay out of debug output");
    }

    /// Faults K04 and K07.
    #[test]
    fn secrets_stay_with_their_origin() {
        let mut credentials = Credentials::default();
        let first = uri("http://a/");
        credentials
            .set_netrc(Netrc::parse(b"machine a login n password p machine b login m password q").unwrap());
        assert_eq!(credentials.find(&first, &uri("http://a/x")), Some(password("n", "p")));
        assert_eq!(credentials.find(&first, &uri("http://b/")), None, "b was only redirected to");
        assert_eq!(credentials.find(&uri("http://b/"), &uri("http://b/")), Some(password("m", "q")));
        assert_eq!(credentials.find(&first, &uri("http://a:81/")), None);
        credentials.give(&first, password("u", "v"));
        assert_eq!(credentials.find(&first, &uri("http://a/x")), Some(password("u", "v")));
        for other in ["https://a/", "http://a:81/", "http://b/", "http://a.b/"] {
            assert_eq!(credentials.find(&first, &uri(other)), None, "{other}");
        }
        assert!(!format!("{credentials:?}").contains("118"));
    }
}
