//! Certificates with their keys, loaded from files and chosen by name: the first that has the name asked for, then the first
//! that has `*.` and what follows its first label (RFC 9525 §6.3), else the first of all (fault A13). A file is read
//! again only if it has changed. An OCSP response is shown until it expires and not a second longer.

use crate::certificate::Facts;
use crate::clock;
use crate::ocsp::{self, OcspProblem, Stapling};
use crate::tls_config::{Identity, TlsConfigError};
use crate::tls_preset::Preset;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What tells one state of a file from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    modified_s: i64,
    modified_ns: i64,
    inode: u64,
    size_bytes: u64,
}

impl Stamp {
    /// Of a file as it is now; `None` if there is none.
    pub fn of(path: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            modified_s: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
        })
    }
}

/// A certificate chain with its key, and what is stapled to it.
#[derive(Debug)]
pub struct Pair {
    plain: Arc<CertifiedKey>,
    /// The same with its OCSP response, and when that ends in seconds since 1970 UTC.
    stapled: Option<(Arc<CertifiedKey>, i64)>,
    facts: Option<Facts>,
    stapling: Option<Stapling>,
    stamps: Vec<Option<Stamp>>,
}

impl Pair {
    /// One that is in no file.
    pub(crate) fn unfiled(key: CertifiedKey) -> Pair {
        let facts = key.end_entity_cert().ok().and_then(|leaf| Facts::of(leaf));
        Pair { plain: Arc::new(key), stapled: None, facts, stapling: None, stamps: Vec::new() }
    }

    fn load(identity: &Identity, provider: &CryptoProvider) -> Result<Pair, TlsConfigError> {
        // Before the files are read: what changes in between is seen as a change the next time.
        let stamps = identity.stamps();
        let (chain, key) = identity.read()?;
        let mut pair = Pair::unfiled(
            CertifiedKey::from_der(chain, key, provider).map_err(|error| identity.mismatch(error))?,
        );
        pair.stamps = stamps;
        if let Some(file) = &identity.ocsp {
            let read = read_response(file).and_then(|response| {
                let leaf = pair.plain.end_entity_cert().map_err(|_| OcspProblem::OtherCertificate)?;
                let until = ocsp::usable_until(&response, leaf, clock::unix_seconds())?;
                Ok((response, until))
            });
            let outcome = read.map(|(response, until)| {
                let key = CertifiedKey { ocsp: Some(response), ..(*pair.plain).clone() };
                pair.stapled = Some((Arc::new(key), until));
                until
            });
            pair.stapling =
                Some(Stapling { file: file.clone(), certificate: identity.certificate.clone(), outcome });
        }
        Ok(pair)
    }

    /// What is told of it to people.
    pub fn facts(&self) -> Option<&Facts> {
        self.facts.as_ref()
    }

    /// What becomes of its OCSP response at this time; `None` if it has none.
    pub fn stapling(&self, now_unix_s: i64) -> Option<Stapling> {
        let mut stapling = self.stapling.clone()?;
        if stapling.outcome.as_ref().is_ok_and(|until| *until <= now_unix_s) {
            stapling.outcome = Err(OcspProblem::Expired);
        }
        Some(stapling)
    }

    fn at(&self, now_unix_s: i64) -> &Arc<CertifiedKey> {
        match &self.stapled {
            Some((stapled, until)) if now_unix_s < *until => stapled,
            _ => &self.plain,
        }
    }
}

fn read_response(file: &Path) -> Result<Vec<u8>, OcspProblem> {
    let unreadable = |error: std::io::Error| OcspProblem::Unreadable(error.to_string());
    let mut response = Vec::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened.take(ocsp::RESPONSE_BYTES_MAX + 1).read_to_end(&mut response).map_err(unreadable)?;
    if response.len() as u64 > ocsp::RESPONSE_BYTES_MAX { Err(OcspProblem::Malformed) } else { Ok(response) }
}

/// A thread costs as much as loading some of them.
const PAIRS_PER_THREAD_MIN: usize = 8;

/// Pairs that were loaded from files: each once for all settings that share this, and again when its files change.
#[derive(Debug, Clone, Default)]
pub struct Loaded(Arc<Mutex<HashMap<Identity, Arc<Pair>>>>);

impl Loaded {
    /// The pair of these files as they are now.
    ///
    /// # Errors
    /// See [`TlsConfigError`].
    pub(crate) fn load(
        &self,
        identity: &Identity,
        provider: &CryptoProvider,
    ) -> Result<Arc<Pair>, TlsConfigError> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(identity).cloned();
        if let Some(pair) = known.filter(|pair| pair.stamps == identity.stamps()) {
            return Ok(pair);
        }
        let pair = Arc::new(Pair::load(identity, provider)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(identity.clone(), Arc::clone(&pair));
        Ok(pair)
    }

    /// The pairs of all these files as they are now, in their order. Many are loaded on all cores.
    ///
    /// # Errors
    /// Of each pair by itself: see [`TlsConfigError`].
    pub fn load_all(&self, identities: &[Identity]) -> Vec<Result<Arc<Pair>, TlsConfigError>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.load_all_on(identities, cores.min(identities.len() / PAIRS_PER_THREAD_MIN))
    }

    /// [`Loaded::load_all`] on so many threads.
    pub(crate) fn load_all_on(
        &self,
        identities: &[Identity],
        threads: usize,
    ) -> Vec<Result<Arc<Pair>, TlsConfigError>> {
        let provider = Preset::default().provider();
        let outcomes: Vec<_> = identities.iter().map(|identity| (identity, OnceLock::new())).collect();
        let next = AtomicUsize::new(0);
        let load = || {
            while let Some((identity, outcome)) = outcomes.get(next.fetch_add(1, Ordering::Relaxed)) {
                outcome.get_or_init(|| self.load(identity, &provider));
            }
        };
        std::thread::scope(|scope| {
            let begin = || std::thread::Builder::new().name("certificates".into());
            if threads > 1 {
                // Whatever serves them will want random octets, and the first ones take longer than hundreds of pairs.
                let _ = begin().spawn_scoped(scope, || provider.secure_random.fill(&mut [0]));
            }
            for _ in 1..threads {
                // What a thread that cannot be had would have loaded is loaded by the others.
                let _ = begin().spawn_scoped(scope, load);
            }
            load();
        });
        let missing = |identity| self.load(identity, &provider);
        outcomes
            .into_iter()
            .map(|(identity, outcome)| outcome.into_inner().unwrap_or_else(|| missing(identity)))
            .collect()
    }

    /// The pair of these files as it was loaded last.
    pub fn known(&self, identity: &Identity) -> Option<Arc<Pair>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(identity).cloned()
    }
}

/// What was loaded is no setting: two that name the same files are the same.
impl PartialEq for Loaded {
    fn eq(&self, _: &Loaded) -> bool {
        true
    }
}

impl Eq for Loaded {}

/// Chooses the certificate by the name asked for.
#[derive(Debug, Default)]
pub(crate) struct ByName {
    first: Option<Arc<Pair>>,
    exact: HashMap<Box<str>, Arc<Pair>>,
    wildcard: HashMap<Box<str>, Arc<Pair>>,
}

impl ByName {
    pub(crate) fn new(pairs: Vec<Arc<Pair>>) -> ByName {
        let mut chooser = ByName { first: pairs.first().cloned(), ..ByName::default() };
        for pair in pairs {
            for name in pair.facts.iter().flat_map(|facts| &facts.names) {
                let name = name.to_ascii_lowercase();
                let (table, key) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut chooser.wildcard, parent),
                    None => (&mut chooser.exact, &*name),
                };
                table.entry(key.into()).or_insert_with(|| Arc::clone(&pair));
            }
        }
        chooser
    }

    pub(crate) fn choose(&self, name: Option<&str>) -> Option<&Arc<Pair>> {
        let named = name.and_then(|name| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(&*name).or_else(|| self.wildcard.get(parent?))
        });
        named.or(self.first.as_ref())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name())?.at(clock::unix_seconds())))
    }
}
