//! The server's side of Digest (RFC 7616): the file of secrets, nonces that expire, and counts that are used once.
//!
//! Nonces are made without a table. Counts need one: for each nonce that was answered rightly, the highest count and
//! the 64 below it, since browsers send several requests at once and they arrive in any order. The table is bounded;
//! what is forgotten counts as stale, so nothing can be replayed by filling it.

use super::watched::Watched;
use super::{Denied, Outcome};
use eleven_semantics::auth::Auth;
use eleven_semantics::auth::digest::{self, Algorithm, Refused, Response, Secret};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Nonces whose counts are remembered.
const NONCES_MAX: usize = 16_384;

/// Users with H(user:realm:password), as htdigest writes them.
#[derive(Debug, Clone, Default)]
pub struct DigestFile {
    md5: HashMap<Box<[u8]>, Box<str>>,
    sha256: HashMap<Box<[u8]>, Box<str>>,
}

/// Why a file of secrets cannot be used; lines from 1.
#[derive(Debug)]
pub enum InvalidDigestFile {
    /// It cannot be read.
    Io(std::io::Error),
    /// The line is not `user:realm:hash`.
    Line(usize),
    /// The hash has neither 32 nor 64 hexadecimal digits.
    Hash(usize),
    /// No line is for this realm.
    NoUser,
}

impl std::fmt::Display for InvalidDigestFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            InvalidDigestFile::Io(error) => write!(f, "it cannot be read: {error}"),
            InvalidDigestFile::Line(line) => write!(f, "line {line} is not `user:realm:hash`"),
            InvalidDigestFile::Hash(line) => {
                write!(f, "line {line}: the hash must have 32 (MD5) or 64 (SHA-256) hexadecimal digits")
            }
            InvalidDigestFile::NoUser => f.write_str("no line is for this realm"),
        }
    }
}

impl std::error::Error for InvalidDigestFile {}

impl From<std::io::Error> for InvalidDigestFile {
    fn from(error: std::io::Error) -> Self {
        InvalidDigestFile::Io(error)
    }
}

impl DigestFile {
    /// Reads the text of a file, keeping the users of one realm.
    ///
    /// # Errors
    /// At the first line that means nothing, or if nobody is left.
    pub fn parse(text: &str, realm: &str) -> Result<DigestFile, InvalidDigestFile> {
        let mut file = DigestFile::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut parts = line.rsplitn(2, ':');
            let (hash, rest) =
                (parts.next().unwrap_or(""), parts.next().ok_or(InvalidDigestFile::Line(number))?);
            let (user, line_realm) = rest.split_once(':').ok_or(InvalidDigestFile::Line(number))?;
            let map = match hash.len() {
                _ if !hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                    return Err(InvalidDigestFile::Hash(number));
                }
                32 => &mut file.md5,
                64 => &mut file.sha256,
                _ => return Err(InvalidDigestFile::Hash(number)),
            };
            if line_realm == realm {
                map.insert(user.as_bytes().into(), hash.into());
            }
        }
        if file.md5.is_empty() && file.sha256.is_empty() { Err(InvalidDigestFile::NoUser) } else { Ok(file) }
    }
}

/// The Digest scheme for a route.
#[derive(Clone)]
pub struct Digest {
    realm: Box<str>,
    users: Arc<Watched<DigestFile, InvalidDigestFile>>,
    nonce_lifetime_s: i64,
    md5: bool,
    /// Makes and recognises nonces.
    key: [u8; 32],
    counts: Arc<Mutex<Counts>>,
    /// Of the next nonce.
    serial: Arc<AtomicU64>,
}

#[derive(Default)]
struct Counts {
    young: HashMap<Box<[u8]>, Used>,
    old: HashMap<Box<[u8]>, Used>,
    /// Nonces made before this that are not in the table were forgotten, not never used.
    forgotten_before_s: i64,
}

#[derive(Clone, Copy, Default)]
struct Used {
    highest: u32,
    /// Bit n: the count `highest - n` was used.
    below: u64,
}

impl Used {
    /// Uses a count; whether it was still unused.
    fn take(&mut self, count: u32) -> bool {
        if count == 0 {
            return false;
        }
        if count > self.highest {
            let ahead = count - self.highest;
            self.below = if ahead < 64 { self.below << ahead } else { 0 } | 1;
            self.highest = count;
            return true;
        }
        let behind = self.highest - count;
        if behind >= 64 || self.below & 1 << behind != 0 {
            return false;
        }
        self.below |= 1 << behind;
        true
    }
}

impl Counts {
    /// Uses a count of a nonce made at a time; `false` if it was used, or if nobody knows any more.
    fn take(&mut self, nonce: &[u8], made_s: i64, count: u32, now_s: i64) -> bool {
        if let Some(used) = self.young.get_mut(nonce) {
            return used.take(count);
        }
        let mut used = match self.old.remove(nonce) {
            Some(used) => used,
            None if made_s < self.forgotten_before_s => return false,
            None => Used::default(),
        };
        let fresh = used.take(count);
        if self.young.len() >= NONCES_MAX / 2 {
            if !self.old.is_empty() {
                self.forgotten_before_s = now_s + 1;
            }
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(nonce.into(), used);
        fresh
    }
}

impl Digest {
    /// For these users. `key` is fresh randomness; `md5` offers MD5 beside SHA-256.
    pub fn new(realm: &str, users: DigestFile, nonce_lifetime_s: i64, md5: bool, key: [u8; 32]) -> Digest {
        Digest::watching(realm, Watched::fixed(users), nonce_lifetime_s, md5, key)
    }

    /// For the users of a file, which is read anew when it changes.
    ///
    /// # Errors
    /// If it cannot be read, one of its lines means nothing, or nobody is in it.
    pub fn of_file(
        realm: &str,
        path: PathBuf,
        nonce_lifetime_s: i64,
        md5: bool,
        key: [u8; 32],
    ) -> Result<Digest, InvalidDigestFile> {
        let of = realm.to_owned();
        let users = Watched::of_file(path, Box::new(move |text| DigestFile::parse(text, &of)))?;
        Ok(Digest::watching(realm, users, nonce_lifetime_s, md5, key))
    }

    /// The file of users and hashes, which is looked at again with requests.
    pub fn file(&self) -> Option<PathBuf> {
        self.users.path()
    }

    fn watching(
        realm: &str,
        users: Watched<DigestFile, InvalidDigestFile>,
        nonce_lifetime_s: i64,
        md5: bool,
        key: [u8; 32],
    ) -> Digest {
        let (users, counts, serial) = (Arc::new(users), Arc::default(), Arc::default());
        Digest { realm: realm.into(), users, nonce_lifetime_s, md5, key, counts, serial }
    }

    fn algorithms(&self, users: &DigestFile) -> impl Iterator<Item = Algorithm> + use<> {
        let sha = (!users.sha256.is_empty()).then_some(Algorithm::Sha256);
        // A file that has MD5 hashes only can be checked by nothing else.
        let md5 = (!users.md5.is_empty() && (self.md5 || sha.is_none())).then_some(Algorithm::Md5);
        sha.into_iter().chain(md5)
    }

    /// The values of WWW-Authenticate, the strongest algorithm first (RFC 7616 §3.7).
    pub fn challenges(&self, stale: bool, now_s: i64) -> Vec<Vec<u8>> {
        let nonce = digest::make_nonce(&self.key, now_s, self.serial.fetch_add(1, Ordering::Relaxed));
        let algorithms = self.algorithms(&self.users.current(now_s));
        algorithms.map(|algorithm| digest::challenge(&self.realm, &nonce, algorithm, stale)).collect()
    }

    /// Judges the credentials of a request.
    pub fn judge(&self, auth: &Auth, method: &str, target: &[u8], now_s: i64) -> Outcome {
        let response = Response::read(auth).map_err(|_| Denied::Malformed)?;
        let sha = auth.parameter("algorithm").and_then(Algorithm::from_bytes).is_some_and(Algorithm::is_sha);
        let file = self.users.current(now_s);
        let (algorithm, users) =
            if sha { (Algorithm::Sha256, &file.sha256) } else { (Algorithm::Md5, &file.md5) };
        if !self.algorithms(&file).any(|offered| offered == algorithm) {
            return Err(Denied::Missing);
        }
        // An unknown user is checked too, against a hash that nothing gives (fault A02).
        const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
        let found = users.get(&response.user[..]);
        let dummy = if sha { NOBODY } else { &NOBODY[..32] };
        let secret = Secret { algorithm, hash: found.map_or(dummy, |hash| hash) };
        match response.check(secret, self.realm.as_bytes(), method, target) {
            Err(Refused::Malformed | Refused::OtherTarget) => return Err(Denied::Malformed),
            Err(Refused::Wrong) => return Err(Denied::Wrong),
            Ok(()) if found.is_none() => return Err(Denied::Wrong),
            Ok(()) => {}
        }
        // Only now: whoever knows the password may cost us a place in the table.
        let age = digest::nonce_age(&response.nonce, &self.key, now_s).ok_or(Denied::Stale)?;
        if !(0..=self.nonce_lifetime_s).contains(&age) {
            return Err(Denied::Stale);
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.take(&response.nonce, now_s - age, response.count, now_s) {
            Ok(response.user.into())
        } else {
            Err(Denied::Stale)
        }
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({:?})", self.realm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_used_once_in_any_order() {
        let mut used = Used::default();
        for (count, fresh) in [
            (0, false),
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (70, true),
            (6, false),
            (7, true),
            (7, false),
            (3, false),
            (u32::MAX, true),
            (u32::MAX, false),
            (70, false),
        ] {
            assert_eq!(used.take(count), fresh, "{count}");
        }
    }

    /// Filling the table makes old nonces stale, never fresh again.
    #[test]
    fn what_is_forgotten_is_stale() {
        let mut counts = Counts::default();
        assert!(counts.take(b"mine", 0, 1, 0));
        for i in 0..NONCES_MAX as u32 * 2 {
            counts.take(&i.to_le_bytes(), 10, 1, 10);
        }
        assert!(!counts.take(b"mine", 0, 1, 11), "a replay");
        assert!(counts.young.len() + counts.old.len() <= NONCES_MAX);
        assert!(counts.take(b"new", 12, 1, 12));
    }
}
