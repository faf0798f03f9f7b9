//! Regular expressions that the path of a request must fit, and the parts of it that their groups catch. The time to match
//! grows with the path's length and never faster, whatever the expression (no backtracking), and an expression that
//! would become large is refused, so neither can be used against the server. They see the canonical path, decoded once,
//! as routes do; what is made of the parts is `before::redirect`'s.

use regex::bytes::{Regex, RegexBuilder};

/// Memory of one compiled expression.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Most groups: those that a template can name by one digit.
pub const GROUPS_MAX: usize = 9;

/// An expression.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvalidPattern {
    /// The syntax is wrong, in words.
    Syntax(String),
    /// Compiled, it would be too large.
    TooLarge,
    /// More groups than can be named.
    Groups,
}

impl std::fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InvalidPattern::Syntax(why) => f.write_str(why),
            InvalidPattern::TooLarge => f.write_str("it would take too much memory"),
            InvalidPattern::Groups => write!(f, "it has more than {GROUPS_MAX} groups"),
        }
    }
}

/// What the groups of an expression caught, the first one first; what caught nothing is empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caught<'p>([&'p [u8]; GROUPS_MAX]);

impl<'p> Caught<'p> {
    /// What the group with this number caught; groups are numbered from 1.
    pub fn group(&self, number: usize) -> &'p [u8] {
        number.checked_sub(1).and_then(|index| self.0.get(index)).copied().unwrap_or_default()
    }
}

impl Pattern {
    /// Reads an expression.
    ///
    /// # Errors
    /// If it means nothing, is too large, or has too many groups.
    pub fn parse(text: &str) -> Result<Pattern, InvalidPattern> {
        let built = RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
        let regex = built.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge,
            // The expression is shown where it is written; the last line says what is wrong.
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                InvalidPattern::Syntax(last.strip_prefix("error: ").unwrap_or(last).to_owned())
            }
        })?;
        if regex.captures_len() - 1 > GROUPS_MAX {
            return Err(InvalidPattern::Groups);
        }
        Ok(Pattern(regex))
    }

    /// Whether a canonical path holds a match.
    pub fn fits(&self, path: &[u8]) -> bool {
        self.0.is_match(path)
    }

    /// How many groups it has.
    pub fn groups(&self) -> usize {
        self.0.captures_len() - 1
    }

    /// What its groups catch of a canonical path.
    pub fn catch<'p>(&self, path: &'p [u8]) -> Caught<'p> {
        let mut caught = Caught::default();
        if self.groups() > 0
            && let Some(captures) = self.0.captures(path)
        {
            for (place, group) in caught.0.iter_mut().zip(captures.iter().skip(1)) {
                *place = group.map_or(&b""[..], |group| group.as_bytes());
            }
        }
        caught
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_and_what_is_caught() {
        for (pattern, path, caught) in [
            ("^/user/([0-9]+)$", "/user/17", Some(["17", ""])),
            ("^/user/([0-9]+)$", "/user/17/x", None),
            ("^/user/([0-9]+)$", "/user/", None),
            (r"\.(bak|sql)$", "/a/b.sql", Some(["sql", ""])),
            (r"\.(bak|sql)$", "/a/b.SQL", None),
            (r"(?i)\.(bak|sql)$", "/a/b.SQL", Some(["SQL", ""])),
            ("^/(?:a|(b))/(.*)$", "/a/c", Some(["", "c"])),
            ("^/é/(.)$", "/é/ü", Some(["ü", ""])),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.fits(path.as_bytes()), caught.is_some(), "{pattern} {path}");
            let groups = pattern.catch(path.as_bytes());
            for (index, expected) in caught.unwrap_or_default().iter().enumerate() {
                assert_eq!(groups.group(index + 1), expected.as_bytes(), "{pattern} {path}");
            }
            assert_eq!((groups.group(0), groups.group(10)), (&b""[..], &b""[..]));
        }
        // A path need not be UTF-8.
        assert!(Pattern::parse("^/a").unwrap().fits(b"/a\xff"));
    }

    #[test]
    fn what_is_refused() {
        for (text, reason) in [
            ("(", "unclosed group"),
            ("[z-a]", "invalid character class range, the start must be <= the end"),
            ("*", "repetition operator missing expression"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)", "look-around, including look-ahead and look-behind, is not supported"),
            (r"(?:\w{1000}){1000}", "it would take too much memory"),
            ("()()()()()()()()()()", "it has more than 9 groups"),
        ] {
            assert_eq!(Pattern::parse(text).unwrap_err().to_string(), reason, "{text}");
        }
    }

    /// Time that grows faster than the path would show here: 100,000 octets against nested repetition.
    /// Fault D39.
    #[test]
    fn hostile_paths_take_linear_time() {
        let pattern = Pattern::parse("^(/?a+)+(b|a+)*$").unwrap();
        let path = [&b"/"[..], &b"a".repeat(100_000), b"!"].concat();
        assert!(!pattern.fits(&path));
    }
}
