//! htpasswd files: `user:hash` lines with the hashes that Apache and nginx users have: bcrypt, argon2, SHA-crypt and
//! apr1. What is no protection (plain text, DES crypt, unsalted SHA-1) is refused with the reason.

use md5::{Digest, Md5};
use std::collections::HashMap;
use std::sync::Arc;

/// Users and the hashes of their passwords.
#[derive(Debug, Clone, Default)]
pub struct PasswordFile {
    users: HashMap<Box<[u8]>, Arc<Hash>>,
    first: Option<Arc<Hash>>,
}

/// The hash of a password, of a kind that can be checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    kind: Kind,
    text: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bcrypt,
    Argon2,
    ShaCrypt,
    Apr1,
}

/// Why a hash cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnusableHash {
    /// Nothing after the colon.
    Empty,
    /// `{SHA}`: SHA-1 without salt.
    Sha1,
    /// Of a known kind, but malformed.
    Malformed,
    /// Costs more than any server should spend on one check.
    TooCostly,
    /// DES crypt, plain text, or something unknown.
    Unknown,
}

impl std::fmt::Display for UnusableHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            UnusableHash::Empty => "the hash is missing",
            UnusableHash::Sha1 => "SHA-1 without salt is no protection; use bcrypt (`htpasswd -B`)",
            UnusableHash::Malformed => "the hash is malformed",
            UnusableHash::TooCostly => "one check would take too much time or memory",
            UnusableHash::Unknown => {
                "neither bcrypt (`$2y$`), argon2 (`$argon2id$`), SHA-crypt (`$5$`, `$6$`) nor apr1 (`$apr1$`)"
            }
        })
    }
}

/// Why a password file cannot be used.
#[derive(Debug)]
pub enum InvalidPasswordFile {
    /// It cannot be read.
    Io(std::io::Error),
    /// A line (from 1) has no colon.
    Line(usize),
    /// A line's hash cannot be used.
    Hash(usize, UnusableHash),
    /// A user (line from 1) is there twice: which one counts?
    Twice(usize),
}

impl std::fmt::Display for InvalidPasswordFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InvalidPasswordFile::Io(error) => write!(f, "it cannot be read: {error}"),
            InvalidPasswordFile::Line(line) => write!(f, "line {line} is not `user:hash`"),
            InvalidPasswordFile::Hash(line, why) => write!(f, "line {line}: {why}"),
            InvalidPasswordFile::Twice(line) => write!(f, "line {line}: the user is there twice"),
        }
    }
}

impl std::error::Error for InvalidPasswordFile {}

impl From<std::io::Error> for InvalidPasswordFile {
    fn from(error: std::io::Error) -> Self {
        InvalidPasswordFile::Io(error)
    }
}

impl PasswordFile {
    /// Reads the text of a file. Empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// At the first line that means nothing.
    pub fn parse(text: &str) -> Result<PasswordFile, InvalidPasswordFile> {
        let mut file = PasswordFile::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or(InvalidPasswordFile::Line(number))?;
            // What follows a second colon is a comment, as in passwd files; no hash holds one.
            let hash = hash.split(':').next().unwrap_or(hash);
            let hash = Hash::parse(hash).map_err(|why| InvalidPasswordFile::Hash(number, why))?;
            if user.is_empty() {
                return Err(InvalidPasswordFile::Line(number));
            }
            if !file.insert(user, hash) {
                return Err(InvalidPasswordFile::Twice(number));
            }
        }
        Ok(file)
    }

    /// Adds a user; `false` if it is there already.
    pub fn insert(&mut self, user: &str, hash: Hash) -> bool {
        let hash = Arc::new(hash);
        self.first.get_or_insert_with(|| hash.clone());
        self.users.insert(user.as_bytes().into(), hash).is_none()
    }

    /// Adds the users of another; those here already stay.
    pub fn extend(&mut self, other: &PasswordFile) {
        for (user, hash) in &other.users {
            self.first.get_or_insert_with(|| hash.clone());
            self.users.entry(user.clone()).or_insert_with(|| hash.clone());
        }
    }

    /// Nobody there.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    pub(super) fn get(&self, user: &[u8]) -> Option<Arc<Hash>> {
        self.users.get(user).cloned()
    }

    /// Anybody's hash, to spend time on.
    pub(super) fn any(&self) -> Option<Arc<Hash>> {
        self.first.clone()
    }
}

impl Hash {
    /// Reads a hash as it stands in a file.
    ///
    /// # Errors
    /// If it cannot be checked, or protects nothing.
    pub fn parse(text: &str) -> Result<Hash, UnusableHash> {
        let parts: Vec<&str> = text.split('$').collect();
        let kind = match parts[..] {
            [""] => return Err(UnusableHash::Empty),
            ["", "2a" | "2b" | "2x" | "2y", cost, salt_and_hash] => {
                let cost = small(cost).ok_or(UnusableHash::Malformed)?;
                // 2^16 rounds take several seconds.
                if cost > 16 {
                    return Err(UnusableHash::TooCostly);
                }
                if cost < 4 || salt_and_hash.len() != 53 || !salt_and_hash.bytes().all(is_crypt64) {
                    return Err(UnusableHash::Malformed);
                }
                Kind::Bcrypt
            }
            ["", "argon2id" | "argon2i" | "argon2d", ..] => {
                let parsed = argon2::PasswordHash::new(text).map_err(|_| UnusableHash::Malformed)?;
                let params = argon2::Params::try_from(&parsed).map_err(|_| UnusableHash::Malformed)?;
                if params.m_cost() > 256 * 1024 || params.t_cost() > 64 {
                    return Err(UnusableHash::TooCostly);
                }
                Kind::Argon2
            }
            ["", "5" | "6", rounds, _, _] if rounds.starts_with("rounds=") => {
                match small(&rounds["rounds=".len()..]) {
                    None => return Err(UnusableHash::Malformed),
                    Some(rounds) if rounds > 1_000_000 => return Err(UnusableHash::TooCostly),
                    Some(_) => Kind::ShaCrypt,
                }
            }
            ["", "5" | "6", _, _] => Kind::ShaCrypt,
            ["", "apr1", salt, hash]
                if salt.len() <= 8 && hash.len() == 22 && hash.bytes().all(is_crypt64) =>
            {
                Kind::Apr1
            }
            ["", "apr1", ..] => return Err(UnusableHash::Malformed),
            [one] if one.starts_with("{SHA}") => return Err(UnusableHash::Sha1),
            _ => return Err(UnusableHash::Unknown),
        };
        let hash = Hash { kind, text: text.into() };
        // A hash of the right length for its kind, so that it is not found out at the first login.
        if kind == Kind::ShaCrypt {
            let tail = text.rsplit('$').next().unwrap_or("");
            let wanted = if text.starts_with("$5$") { 43 } else { 86 };
            if tail.len() != wanted || !tail.bytes().all(is_crypt64) {
                return Err(UnusableHash::Malformed);
            }
        }
        Ok(hash)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is the hash of this password. Takes its time.
    pub fn verify(&self, password: &[u8]) -> bool {
        match self.kind {
            Kind::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
            Kind::Argon2 => {
                use argon2::PasswordVerifier;
                argon2::PasswordHash::new(&self.text)
                    .is_ok_and(|hash| argon2::Argon2::default().verify_password(password, &hash).is_ok())
            }
            Kind::ShaCrypt => {
                use sha_crypt::PasswordVerifier;
                sha_crypt::ShaCrypt::default().verify_password(password, &*self.text).is_ok()
            }
            Kind::Apr1 => {
                let salt = self.text.split('$').nth(2).unwrap_or("");
                let made = apr1(password, salt.as_bytes());
                let stored = self.text.rsplit('$').next().unwrap_or("");
                eleven_semantics::auth::constant_time_eq(made.as_bytes(), stored.as_bytes())
            }
        }
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hash({:?})", self.kind)
    }
}

fn small(digits: &str) -> Option<u64> {
    eleven_semantics::grammar::decimal(digits.as_bytes())
}

fn is_crypt64(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/')
}

const CRYPT64: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Apache's variant of MD5-crypt, without its `$apr1$salt$`.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut md5 = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        md5.update(&inner[..left.min(16)]);
        left = left.saturating_sub(16);
    }
    let mut bits = password.len();
    while bits > 0 {
        // The original reads the first octet of the password here, or of a zeroed buffer.
        if bits & 1 == 1 {
            md5.update([0])
        } else {
            md5.update(&password[..1])
        }
        bits >>= 1;
    }
    let mut sum = md5.finalize();
    for round in 0..1000 {
        let mut md5 = Md5::new();
        if round & 1 == 1 {
            md5.update(password)
        } else {
            md5.update(sum)
        }
        if round % 3 != 0 {
            md5.update(salt);
        }
        if round % 7 != 0 {
            md5.update(password);
        }
        if round & 1 == 1 {
            md5.update(sum)
        } else {
            md5.update(password)
        }
        sum = md5.finalize();
    }
    let mut out = String::with_capacity(22);
    let mut push = |mut value: u32, digits: usize| {
        for _ in 0..digits {
            out.push(char::from(CRYPT64[(value & 63) as usize]));
            value >>= 6;
        }
    };
    let octet = |i: usize| u32::from(sum[i]);
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        push(octet(a) << 16 | octet(b) << 8 | octet(c), 4);
    }
    push(octet(11), 2);
    out
}
