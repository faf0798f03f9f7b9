//! Content-Digest, Repr-Digest and their Want- fields (RFC 9530): which digests a message promises, whether
//! the content keeps the promise, and what to ask for. Only the algorithms that RFC 9530 §5 calls active count;
//! a digest by a broken one proves nothing and is passed over.

use crate::fields::Fields;
use crate::grammar::{decimal, list};
use crate::names::Known;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

/// An algorithm that proves integrity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha-256`.
    Sha256,
    /// `sha-512`.
    Sha512,
}

impl Algorithm {
    /// As written in a field: lower case, and only so.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha-256",
            Algorithm::Sha512 => "sha-512",
        }
    }

    fn from_key(key: &[u8]) -> Option<Algorithm> {
        match key {
            b"sha-256" => Some(Algorithm::Sha256),
            b"sha-512" => Some(Algorithm::Sha512),
            _ => None,
        }
    }

    /// Octets of a digest.
    pub fn octets(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// A promised digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// By which algorithm.
    pub algorithm: Algorithm,
    /// Its octets.
    pub value: Vec<u8>,
}

/// Why a digest field cannot be read. A promise that cannot be read is not kept: treat as failed integrity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not a dictionary of byte sequences (RFC 9651 §3.2, §3.3.5).
    Syntax,
    /// A digest of another length than its algorithm has.
    Length,
}

/// The digests of a Content-Digest or Repr-Digest field, over all of its lines; strongest first. The last of
/// equal keys counts (RFC 9651 §3.2).
///
/// # Errors
/// If any line is malformed: structured fields stand or fall as a whole.
pub fn promised(fields: &Fields, name: Known) -> Result<Vec<Digest>, Malformed> {
    let mut digests: Vec<Digest> = Vec::new();
    for member in fields.list(name) {
        let (key, value) = member_parts(member).ok_or(Malformed::Syntax)?;
        let encoded = value
            .strip_prefix(b":")
            .and_then(|rest| rest.split(|&b| b == b':').next().map(|inner| (inner, &rest[inner.len()..])))
            .filter(|(_, rest)| *rest == b":" || rest.starts_with(b":;"))
            .map(|(inner, _)| inner)
            .ok_or(Malformed::Syntax)?;
        let value = STANDARD.decode(encoded).map_err(|_| Malformed::Syntax)?;
        let Some(algorithm) = Algorithm::from_key(key) else { continue };
        if value.len() != algorithm.octets() {
            return Err(Malformed::Length);
        }
        digests.retain(|digest| digest.algorithm != algorithm);
        digests.push(Digest { algorithm, value });
    }
    digests.sort_by_key(|digest| std::cmp::Reverse(digest.algorithm));
    Ok(digests)
}

/// `key=value` of a dictionary: `key = ( lcalpha / "*" ) *( lcalpha / DIGIT / "_" / "-" / "." / "*" )`.
fn member_parts(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', member)?;
    let (key, value) = (&member[..at], &member[at + 1..]);
    let first = *key.first()?;
    let is_key = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(b);
    ((first.is_ascii_lowercase() || first == b'*') && key.iter().all(is_key)).then_some((key, value))
}

/// The value of a digest field.
pub fn value(digest: &Digest) -> Vec<u8> {
    format!("{}=:{}:", digest.algorithm.name(), STANDARD.encode(&digest.value)).into_bytes()
}

/// What a peer wants of Want-Content-Digest or Want-Repr-Digest: the acceptable algorithm with the highest
/// preference. Zero means "not this one"; anything beyond 0 to 10 makes the member worthless (RFC 9530 §4).
pub fn wanted(fields: &Fields, name: Known) -> Option<Algorithm> {
    let mut best: Option<(u64, Algorithm)> = None;
    for (key, value) in fields.all(name).flat_map(list).filter_map(member_parts) {
        let Some(algorithm) = Algorithm::from_key(key) else { continue };
        let Some(preference @ 1..=10) = decimal(value.split(|&b| b == b';').next().unwrap_or(value)) else {
            continue;
        };
        if best.is_none_or(|(highest, of)| (preference, algorithm) > (highest, of)) {
            best = Some((preference, algorithm));
        }
    }
    best.map(|(_, algorithm)| algorithm)
}

/// A digest being made, piece by piece.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// An empty one.
    pub fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(Sha512::new())),
        }
    }

    /// Takes in the next octets.
    pub fn update(&mut self, octets: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(octets),
            Hasher::Sha512(hash) => hash.update(octets),
        }
    }

    /// The digest.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hash) => Digest { algorithm: Algorithm::Sha256, value: hash.finalize().to_vec() },
            Hasher::Sha512(hash) => Digest { algorithm: Algorithm::Sha512, value: hash.finalize().to_vec() },
        }
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Hasher::Sha256(_) => "Hasher(sha-256)",
            Hasher::Sha512(_) => "Hasher(sha-512)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Vec<Algorithm>, Malformed> {
        let mut fields = Fields::new();
        lines.iter().for_each(|line| fields.push(Known::ReprDigest, line).unwrap());
        Ok(promised(&fields, Known::ReprDigest)?.into_iter().map(|d| d.algorithm).collect())
    }

    /// RFC 9530 appendix B.1: the digest of `{"hello": "world"}` and a newline.
    const EXAMPLE: &str = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";

    #[test]
    fn digests_are_made_and_compared() {
        let fields: Fields = [("Repr-Digest", EXAMPLE)].iter().collect();
        let promised = promised(&fields, Known::ReprDigest).unwrap();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"{\"hello\": ");
        hasher.update(b"\"world\"}\n");
        let made = hasher.finish();
        assert_eq!(promised, std::slice::from_ref(&made));
        assert_eq!(value(&made), EXAMPLE.as_bytes());
        let mut other = Hasher::new(Algorithm::Sha256);
        other.update(b"x");
        assert_ne!(promised[0], other.finish());
        assert_eq!(Hasher::new(Algorithm::Sha512).finish().value.len(), 64);
    }

    /// Fault K40: a promise that cannot be read is not passed over.
    #[test]
    fn what_a_digest_field_may_look_like() {
        let sha512 = value(&Hasher::new(Algorithm::Sha512).finish());
        let sha512 = String::from_utf8(sha512).unwrap();
        use Algorithm::{Sha256, Sha512};
        assert_eq!(read(&[]), Ok(vec![]));
        assert_eq!(read(&[EXAMPLE]), Ok(vec![Sha256]));
        assert_eq!(read(&[EXAMPLE, &sha512]), Ok(vec![Sha512, Sha256]));
        assert_eq!(read(&[&format!("{EXAMPLE}, {sha512}")]), Ok(vec![Sha512, Sha256]));
        assert_eq!(read(&["md5=:AAAA:", EXAMPLE]), Ok(vec![Sha256]));
        assert_eq!(read(&["unixsum=:AAAA:"]), Ok(vec![]));
        assert_eq!(read(&[&format!("{EXAMPLE};x=1")]), Ok(vec![Sha256]));
        for bad in [
            "sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
            "sha-256=:###:",
            "sha-256=:AAAA",
            "sha-256",
            "SHA-256=:AAAA:",
            "=:AAAA:",
            "sha-256=:AAAA:x",
            "sha-256=::x:",
        ] {
            assert_eq!(read(&[bad]), Err(Malformed::Syntax), "{bad}");
            assert_eq!(read(&[EXAMPLE, bad]), Err(Malformed::Syntax), "{bad}");
        }
        assert_eq!(read(&["sha-256=:AAAA:"]), Err(Malformed::Length));
        assert_eq!(read(&["sha-256=::"]), Err(Malformed::Length));
    }

    #[test]
    fn what_is_wanted() {
        for (text, expected) in [
            ("sha-256=1", Some(Algorithm::Sha256)),
            ("sha-512=3, sha-256=10, unixsum=0", Some(Algorithm::Sha256)),
            ("sha-512=5, sha-256=5", Some(Algorithm::Sha512)),
            ("sha-256=0", None),
            ("sha-256=11", None),
            ("sha-256=-1", None),
            ("sha-256=1.5", None),
            ("md5=10", None),
            ("", None),
        ] {
            let mut fields = Fields::new();
            fields.push(Known::WantReprDigest, text).unwrap();
            assert_eq!(wanted(&fields, Known::WantReprDigest), expected, "{text}");
        }
    }
}
