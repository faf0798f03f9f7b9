//! Whether received content is what it was promised to be: digests of RFC 9530, from fields or trailers, and one
//! that the user gave.

use crate::error::{Cause, Failure, Phase};
use eleven_semantics::digest_fields::{self, Algorithm, Digest, Hasher};
use eleven_semantics::{Fields, Known};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What a digest was promised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The user.
    User,
    /// Repr-Digest.
    Repr,
    /// Content-Digest.
    Content,
}

impl Promise {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Promise::User => "--sha256",
            Promise::Repr => "Repr-Digest",
            Promise::Content => "Content-Digest",
        }
    }
}

/// The digests that content must have.
#[derive(Debug, Clone, Default)]
pub struct Promises(Vec<(Promise, Digest)>);

impl Promises {
    /// Adds the user's own.
    pub fn user(&mut self, sha256: [u8; 32]) {
        self.0.push((Promise::User, Digest { algorithm: Algorithm::Sha256, value: sha256.to_vec() }));
    }

    /// Adds those of a field section, header or trailer. `whole` says that the content is the whole
    /// representation; Content-Digest then counts as well. Only the strongest of a field is taken.
    ///
    /// # Errors
    /// If one cannot be read: a promise that is not understood is not kept (fault K40).
    pub fn add(&mut self, fields: &Fields, whole: bool) -> Result<(), Failure> {
        let names = [(Promise::Repr, Known::ReprDigest), (Promise::Content, Known::ContentDigest)];
        for (promise, name) in names {
            if promise == Promise::Content && !whole {
                continue;
            }
            let digests = digest_fields::promised(fields, name).map_err(|why| {
                let text = format!("{} cannot be read ({why:?})", promise.name());
                Failure::new(Phase::Verify, Cause::Digest(text))
            })?;
            self.0.extend(digests.into_iter().take(1).map(|digest| (promise, digest)));
        }
        Ok(())
    }

    /// Whether nothing was promised.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The algorithms needed.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let mut all: Vec<Algorithm> = self.0.iter().map(|(_, digest)| digest.algorithm).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Compares with what was made of the content; the names of what was kept.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn check(&self, made: &[Digest]) -> Result<Vec<&'static str>, Failure> {
        let mut kept = Vec::new();
        for (promise, wanted) in &self.0 {
            let got = made.iter().find(|digest| digest.algorithm == wanted.algorithm);
            if got != Some(wanted) {
                let text = format!(
                    "{} promises {} {}, the content has {}",
                    promise.name(),
                    wanted.algorithm.name(),
                    hex(&wanted.value),
                    got.map_or_else(|| "none".into(), |digest| hex(&digest.value))
                );
                return Err(Failure::new(Phase::Verify, Cause::Digest(text)));
            }
            kept.push(promise.name());
        }
        Ok(kept)
    }
}

/// In lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Digests that are made while content comes in, as long as it comes from its first octet on without a gap.
#[derive(Debug, Clone)]
pub struct Running {
    hashers: Vec<(Algorithm, Hasher)>,
    at: u64,
}

impl Running {
    /// At the beginning of content.
    pub fn new(algorithms: Vec<Algorithm>) -> Running {
        Running { hashers: algorithms.into_iter().map(|a| (a, Hasher::new(a))).collect(), at: 0 }
    }

    /// Octets that were written at `position`. What does not follow on what was seen so far is left for
    /// [`Running::finish`].
    pub fn push(&mut self, octets: &[u8], position: u64) {
        if position == self.at {
            self.hashers.iter_mut().for_each(|(_, hasher)| hasher.update(octets));
            self.at += octets.len() as u64;
        }
    }

    /// Whether it makes all of these.
    pub fn covers(&self, algorithms: &[Algorithm]) -> bool {
        algorithms.iter().all(|wanted| self.hashers.iter().any(|(made, _)| made == wanted))
    }

    /// Reads what was not seen from the file, on the blocking pool, and ends.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn finish(self, file: Arc<File>) -> Result<Vec<Digest>, Failure> {
        let Running { mut hashers, mut at } = self;
        let made = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<Digest>> {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match file.read_at(&mut buffer, at)? {
                    0 => break,
                    read => {
                        hashers.iter_mut().for_each(|(_, hasher)| hasher.update(&buffer[..read]));
                        at += read as u64;
                    }
                }
            }
            Ok(hashers.into_iter().map(|(_, hasher)| hasher.finish()).collect())
        })
        .await;
        match made {
            Ok(result) => result.map_err(|error| Failure::io(Phase::File, &error)),
            Err(error) => Err(Failure::io(Phase::File, &std::io::Error::other(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault K40.
    #[test]
    fn promises_kept_and_broken() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"content");
        let made = hasher.finish();
        let field = String::from_utf8(digest_fields::value(&made)).unwrap();
        let fields: Fields =
            [("Repr-Digest", field.as_str()), ("Content-Digest", field.as_str())].iter().collect();
        let mut promises = Promises::default();
        assert!(promises.is_empty());
        promises.add(&fields, true).unwrap();
        promises.user(made.value.clone().try_into().unwrap());
        assert_eq!(promises.algorithms(), [Algorithm::Sha256]);
        assert_eq!(
            promises.check(std::slice::from_ref(&made)).unwrap(),
            ["Repr-Digest", "Content-Digest", "--sha256"]
        );
        let other = Hasher::new(Algorithm::Sha256).finish();
        let failure = promises.check(&[other]).unwrap_err();
        assert!(failure.to_string().contains("Repr-Digest promises sha-256 ed7002b4"), "{failure}");
        assert!(promises.check(&[]).is_err());
        let mut part = Promises::default();
        part.add(&fields, false).unwrap();
        assert_eq!(part.check(&[made]).unwrap(), ["Repr-Digest"], "Content-Digest of a part is of the part");
        let bad: Fields = [("Repr-Digest", "sha-256=nonsense")].iter().collect();
        assert!(Promises::default().add(&bad, true).is_err());
    }

    /// Whatever part of the content was seen on its way, the digest is that of the whole file.
    #[tokio::test(flavor = "local")]
    async fn digests_on_the_way_and_afterwards() {
        let content: Vec<u8> = (0..1_000_000u32).map(|i| (i / 5) as u8).collect();
        let path = std::env::temp_dir().join(format!("eleven-verify-{}", std::process::id()));
        std::fs::write(&path, &content).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let _ = std::fs::remove_file(&path);
        let mut expected = Hasher::new(Algorithm::Sha256);
        expected.update(&content);
        let expected = vec![expected.finish()];
        for pieces in [
            &[][..],
            &[(0, 1_000_000)],
            &[(0, 10), (10, 500_000)],
            &[(500_000, 1_000_000), (0, 500_000)],
            &[(5, 100)],
            &[(0, 100), (50, 100), (100, 1_000_000)],
        ] {
            let mut running = Running::new(vec![Algorithm::Sha256]);
            for &(from, to) in pieces {
                running.push(&content[from..to], from as u64);
            }
            assert!(running.covers(&[Algorithm::Sha256]) && !running.covers(&[Algorithm::Sha512]));
            assert_eq!(running.finish(Arc::clone(&file)).await.unwrap(), expected, "{pieces:?}");
        }
    }
}
