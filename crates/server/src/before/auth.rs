//! Who the user is: Basic (RFC 7617) over htpasswd files and Digest (RFC 7616) over htdigest files, judged by the
//! rules of `semantics::auth`. What costs time is a [`Job`] that the caller runs off the worker's thread.
//!
//! An unknown user costs as much as a wrong password (faults A01, A02); a right password is remembered, as a keyed hash,
//! so that it costs once; a wrong one always costs, and only so many are worked on at once (fault A03). Authorization is
//! read from the header section only (fault A08).

mod digest;
mod htpasswd;
mod watched;

pub use digest::{Digest, DigestFile, InvalidDigestFile};
pub use htpasswd::{Hash, InvalidPasswordFile, PasswordFile, UnusableHash};

use eleven_semantics::auth::{Auth, basic};
use eleven_semantics::fields::Only;
use eleven_semantics::{Fields, Known};
use quick_cache::sync::Cache;
use sha2::Digest as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use watched::Watched;

/// Passwords hashed at once in the whole process. Each takes a thread for up to a second.
pub const VERIFICATIONS_MAX: usize = 32;

/// Right passwords remembered for each route.
const REMEMBERED_MAX: usize = 4096;

/// Why a request may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// 401: no credentials.
    Missing,
    /// 401: the user or the password is wrong.
    Wrong,
    /// 401 with `stale=true`: the nonce is too old; the user agent repeats without asking anybody.
    Stale,
    /// 400: Authorization cannot be read, or there are several (fault A04).
    Malformed,
    /// 503: too many passwords are being checked.
    Busy,
}

impl Denied {
    /// For the record.
    pub fn reason(self) -> &'static str {
        match self {
            Denied::Missing => "no-credentials",
            Denied::Wrong => "wrong-credentials",
            Denied::Stale => "stale-nonce",
            Denied::Malformed => "malformed-credentials",
            Denied::Busy => "too-many-password-checks",
        }
    }
}

/// The user, or why there is none.
pub type Outcome = Result<Box<[u8]>, Denied>;

/// What was found out at once, or what remains to be done.
pub enum Judgement {
    /// Settled.
    Settled(Outcome),
    /// A password must be hashed.
    Hash(Job),
}

/// A password to be hashed. Takes milliseconds to a second; not for a worker's thread.
pub struct Job {
    basic: Arc<BasicState>,
    user: Vec<u8>,
    password: Vec<u8>,
    hash: Arc<Hash>,
    known: bool,
    token: [u8; 32],
    _slot: Slot,
}

static VERIFICATIONS: AtomicUsize = AtomicUsize::new(0);

/// One of the [`VERIFICATIONS_MAX`].
struct Slot(&'static AtomicUsize);

impl Slot {
    fn take(taken_of: &'static AtomicUsize) -> Option<Slot> {
        let taken = taken_of.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(taken_of);
        // Too many: the slot is given back by being dropped.
        (taken < VERIFICATIONS_MAX).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Job {
    /// Does it.
    pub fn run(self) -> Outcome {
        let right = self.hash.verify(&self.password);
        if !right || !self.known {
            return Err(Denied::Wrong);
        }
        self.basic.remembered.insert(self.token, ());
        Ok(self.user.into())
    }
}

/// The Basic scheme for a route.
#[derive(Clone)]
pub struct Basic {
    realm: Box<str>,
    state: Arc<BasicState>,
}

struct BasicState {
    users: Watched<PasswordFile, InvalidPasswordFile>,
    /// Keyed hashes of user, password and stored hash that were found right.
    remembered: Cache<[u8; 32], ()>,
    /// Nobody who reads our memory dump should get at passwords by trying them on a plain hash.
    key: [u8; 32],
    /// Passwords being hashed: one count for the process, and one for each test that fills it.
    verifications: &'static AtomicUsize,
}

impl Basic {
    /// The file of users and hashes, which is looked at again with requests.
    pub fn file(&self) -> Option<PathBuf> {
        self.state.users.path()
    }

    /// For users given in the configuration and, if there is a path, in a file. `key` is fresh randomness.
    ///
    /// # Errors
    /// If the file cannot be read or one of its lines means nothing.
    pub fn new(
        realm: &str,
        fixed: PasswordFile,
        path: Option<PathBuf>,
        key: [u8; 32],
    ) -> Result<Basic, InvalidPasswordFile> {
        Basic::counted(realm, fixed, path, key, &VERIFICATIONS)
    }

    fn counted(
        realm: &str,
        fixed: PasswordFile,
        path: Option<PathBuf>,
        key: [u8; 32],
        verifications: &'static AtomicUsize,
    ) -> Result<Basic, InvalidPasswordFile> {
        let users = match path {
            None => Watched::fixed(fixed),
            Some(path) => {
                let parse = move |text: &str| {
                    let mut users = PasswordFile::parse(text)?;
                    users.extend(&fixed);
                    Ok(users)
                };
                Watched::of_file(path, Box::new(parse))?
            }
        };
        let state = BasicState { users, remembered: Cache::new(REMEMBERED_MAX), key, verifications };
        Ok(Basic { realm: realm.into(), state: Arc::new(state) })
    }

    /// The value of WWW-Authenticate.
    pub fn challenge(&self) -> Vec<u8> {
        basic::challenge(&self.realm)
    }

    /// Judges the credentials of a request; `now_s` is for noticing that the file changed.
    pub fn judge(&self, auth: &Auth, now_s: i64) -> Judgement {
        let Some((user, password)) = basic::decode(auth) else {
            return Judgement::Settled(Err(Denied::Malformed));
        };
        let users = self.state.users.current(now_s);
        let found = users.get(&user);
        let known = found.is_some();
        // Nobody there: the work of somebody, so that time does not tell.
        let Some(hash) = found.or_else(|| users.any()) else { return Judgement::Settled(Err(Denied::Wrong)) };
        let token = self.state.token(&user, &password, &hash);
        if known && self.state.remembered.get(&token).is_some() {
            return Judgement::Settled(Ok(user.into()));
        }
        match Slot::take(self.state.verifications) {
            Some(slot) => Judgement::Hash(Job {
                basic: self.state.clone(),
                user,
                password,
                hash,
                known,
                token,
                _slot: slot,
            }),
            None => Judgement::Settled(Err(Denied::Busy)),
        }
    }
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Basic({:?})", self.realm)
    }
}

impl BasicState {
    fn token(&self, user: &[u8], password: &[u8], hash: &Hash) -> [u8; 32] {
        let mut sha = sha2::Sha256::new_with_prefix(self.key);
        for part in [user, password, hash.text().as_bytes()] {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part);
        }
        // Hashed again with the key, so that knowing the inner value does not allow to extend it.
        let inner = sha.finalize();
        sha2::Sha256::new_with_prefix(self.key).chain_update(inner).finalize().into()
    }
}

/// What a route asks for.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// By Basic.
    pub basic: Option<Basic>,
    /// By Digest.
    pub digest: Option<Digest>,
}

impl Authentication {
    /// Files that are looked at again with requests.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let basic = self.basic.as_ref().and_then(Basic::file);
        let digest = self.digest.as_ref().and_then(Digest::file);
        basic.into_iter().chain(digest)
    }

    /// Whether anything is asked for.
    pub fn is_required(&self) -> bool {
        self.basic.is_some() || self.digest.is_some()
    }

    /// Judges a request. `target` is the request target as received (Digest covers it).
    pub fn judge(&self, fields: &Fields, method: &str, target: &[u8], now_s: i64) -> Judgement {
        let value = match fields.only(Known::Authorization) {
            Only::Absent => return Judgement::Settled(Err(Denied::Missing)),
            Only::Several => return Judgement::Settled(Err(Denied::Malformed)),
            Only::One(value) => value,
        };
        let Ok(auth) = Auth::credentials(value) else { return Judgement::Settled(Err(Denied::Malformed)) };
        match (&*auth.scheme, &self.basic, &self.digest) {
            ("basic", Some(basic), _) => basic.judge(&auth, now_s),
            ("digest", _, Some(digest)) => Judgement::Settled(digest.judge(&auth, method, target, now_s)),
            // Another scheme than those asked for is as good as none (9110-11.4-01).
            _ => Judgement::Settled(Err(Denied::Missing)),
        }
    }

    /// Adds every challenge to a 401 (9110-11.6.1-01), the strongest first.
    pub fn challenge(&self, why: Denied, now_s: i64, fields: &mut Fields) {
        if let Some(digest) = &self.digest {
            for value in digest.challenges(why == Denied::Stale, now_s) {
                let _ = fields.push(Known::WwwAuthenticate, value);
            }
        }
        if let Some(basic) = &self.basic {
            let _ = fields.push(Known::WwwAuthenticate, basic.challenge());
        }
    }
}

#[cfg(test)]
mod tests;
