//! Who the user is: Basic (RFC 7617) over htpasswd files and Digest (RFC 7616) over htdigest files, judged by the
//! rules of `semantics::auth`. What costs time is a [`Job`] that the caller runs off the worker's thread.
//!
//! An unknown user costs as much as a wrong password (faults A01, A02); a right password is remembered, as a keyed hash,
//! so that it costs once; a wrong one always costs, and only so many are worked on at once (fault A03). Authorization is
//! read from the header section only (fault A08).

mod digest;
mod htpasswd;

pub use digest::{Digest, DigestFile, InvalidDigestFile};
pub use htpasswd::{Hash, InvalidPasswordFile, PasswordFile, UnusableHash};

use eleven_semantics::auth::{Auth, basic};
use eleven_semantics::fields::Only;
use eleven_semantics::{Fields, Known};
use quick_cache::sync::Cache;
use sha2::Digest as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

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
    users: Mutex<Watched>,
    /// Keyed hashes of user, password and stored hash that were found right.
    remembered: Cache<[u8; 32], ()>,
    /// Nobody who reads our memory dump should get at passwords by trying them on a plain hash.
    key: [u8; 32],
    /// Passwords being hashed: one count for the process, and one for each test that fills it.
    verifications: &'static AtomicUsize,
}

/// A password file, read anew when it changes.
struct Watched {
    users: Arc<PasswordFile>,
    fixed: PasswordFile,
    file: Option<(PathBuf, Option<SystemTime>)>,
    looked_s: i64,
}

impl Basic {
    /// The file of users and hashes, which is looked at again with requests.
    pub fn file(&self) -> Option<std::path::PathBuf> {
        let users = self.state.users.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        users.file.as_ref().map(|(path, _)| path.to_path_buf())
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
        let mut watched =
            Watched { users: Arc::default(), fixed, file: path.map(|path| (path, None)), looked_s: i64::MIN };
        watched.read()?;
        let state = BasicState {
            users: Mutex::new(watched),
            remembered: Cache::new(REMEMBERED_MAX),
            key,
            verifications,
        };
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
        let users = self.state.current(now_s);
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
    fn current(&self, now_s: i64) -> Arc<PasswordFile> {
        let mut watched = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.looked_s != now_s {
            watched.looked_s = now_s;
            if let Err(error) = watched.read() {
                // A half-written file must not lock everybody out, nor let anybody in who was there before by an
                // empty one: the last good one holds.
                tracing::warn!(%error, "password file: kept the last good one");
            }
        }
        watched.users.clone()
    }

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

impl Watched {
    fn read(&mut self) -> Result<(), InvalidPasswordFile> {
        let Some((path, modified)) = &mut self.file else {
            if self.users.is_empty() {
                self.users = Arc::new(self.fixed.clone());
            }
            return Ok(());
        };
        let changed =
            std::fs::metadata(&*path).and_then(|meta| meta.modified()).map_err(InvalidPasswordFile::Io)?;
        if *modified == Some(changed) {
            return Ok(());
        }
        let text = std::fs::read_to_string(&*path).map_err(InvalidPasswordFile::Io)?;
        let mut users = PasswordFile::parse(&text)?;
        users.extend(&self.fixed);
        *modified = Some(changed);
        self.users = Arc::new(users);
        Ok(())
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
