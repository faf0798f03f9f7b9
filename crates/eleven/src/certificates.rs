//! The certificates of a server: read at start, read again when their files change, and replaced only by ones that
//! were found good (fault A17). For development, made on the spot.

use crate::cli::Tls;
use crate::command::Failure;
use eleven_net::clock;
use eleven_net::tls_certificates::{Loaded, Stamp};
use eleven_net::tls_config::{Identity, Made, ServerConfig, ServerSettings};
use eleven_net::tls_preset::Preset;
use eleven_semantics::date::HttpDate;
use eleven_server::metrics::CertificateInfo;
use eleven_server::serve::TlsSlot;
use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Names that a certificate made on the spot is for.
const DEVELOPMENT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The certificates of all listeners.
#[derive(Default)]
pub struct Certificates {
    sets: Vec<Set>,
    /// Listeners that speak plain HTTP.
    plain: Vec<TlsSlot>,
}

/// Certificates in files, and where listeners find what was made of them.
struct Set {
    settings: ServerSettings,
    self_signed: bool,
    config: Arc<ServerConfig>,
    slot: TlsSlot,
    seen: Vec<Option<Stamp>>,
    /// What was said of certificates and responses; each change is said once.
    said: Vec<String>,
}

impl Certificates {
    /// What the options ask for; `None` for a server without TLS.
    ///
    /// # Errors
    /// If a file is missing or wrong, or key and certificate do not go together.
    pub fn of(options: &Tls) -> Result<Option<(ServerSettings, bool)>, Failure> {
        if options.tls_cert.len() != options.tls_key.len() {
            return Err(Failure("give one --tls-key for each --tls-cert, in the same order".into()));
        }
        if options.tls_cert.is_empty() && !options.tls_self_signed {
            return if options.tls_client_ca.is_empty() {
                Ok(None)
            } else {
                Err(Failure("--tls-client-ca needs a server certificate: --tls-cert and --tls-key".into()))
            };
        }
        let pairs = options.tls_cert.iter().zip(&options.tls_key);
        let settings = ServerSettings {
            identities: pairs
                .map(|(certificate, key)| Identity {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    ocsp: None,
                })
                .collect(),
            client_trust: options.tls_client_ca.clone(),
            client_certificate_optional: options.tls_client_optional,
            preset: Preset::named(&options.tls_preset).unwrap_or_default(),
            loaded: Loaded::default(),
        };
        Ok(Some((settings, options.tls_self_signed)))
    }

    /// Reads and checks those of a listener, which finds them in `slot` after [`Certificates::commit`]; without
    /// settings it speaks plain HTTP. What was made for the slot `before` is used again if it may be.
    ///
    /// # Errors
    /// If a file is missing or wrong, or key and certificate do not go together.
    pub fn add(
        &mut self,
        settings: Option<(ServerSettings, bool)>,
        slot: &TlsSlot,
        before: Option<&Certificates>,
    ) -> Result<(), Failure> {
        let Some((settings, self_signed)) = settings else {
            self.plain.push(slot.clone());
            return Ok(());
        };
        for key in settings.readable_keys() {
            eprintln!(
                "eleven: warning: others than their owner can read the private key {}; chmod 600 it",
                key.display()
            );
        }
        let seen = files(&settings).map(Stamp::of).collect();
        let known = before.and_then(|before| before.sets.iter().find(|set| Arc::ptr_eq(&set.slot, slot)));
        // A certificate made on the spot stays for as long as the process does: browsers were told to trust it.
        let kept = known.filter(|set| set.settings == settings && set.self_signed && self_signed);
        let config = match kept.filter(|set| set.settings.identities.is_empty()) {
            Some(set) => set.config.clone(),
            None => {
                let made = self_signed.then(make).transpose()?;
                settings.build_with(made, known.map(|set| &*set.config))?
            }
        };
        let said = remarks(&settings);
        self.sets.push(Set { settings, self_signed, config, slot: slot.clone(), seen, said });
        Ok(())
    }

    /// Puts all into force, for new connections.
    pub fn commit(&self) {
        self.plain.iter().for_each(|slot| slot.store(None));
        self.sets.iter().for_each(|set| set.slot.store(Some(set.config.clone())));
    }

    /// What is to be told of them to people; each certificate once.
    pub fn facts(&self) -> Vec<CertificateInfo> {
        let mut all: Vec<CertificateInfo> = Vec::new();
        let now = clock::unix_seconds();
        let mut seen = HashSet::new();
        for pair in self.sets.iter().flat_map(|set| set.settings.pairs()) {
            let Some(facts) = pair.facts().filter(|_| seen.insert(Arc::as_ptr(&pair))) else { continue };
            all.push(CertificateInfo {
                names: facts.names.clone(),
                not_after_unix_s: facts.not_after_unix_s,
                ocsp_until_unix_s: pair.stapling(now).map(|stapling| stapling.outcome.ok()),
            });
        }
        all
    }

    /// The files they were read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sets.iter().flat_map(|set| files(&set.settings))
    }

    /// Says which certificates have ended, and what becomes of OCSP responses.
    pub fn say_remarks(&self) {
        let remarks: BTreeSet<_> = self.sets.iter().flat_map(|set| &set.said).collect();
        remarks.iter().for_each(|remark| eprintln!("eleven: {remark}"));
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Reads the files again if they changed, or if asked to. New connections get the new certificates; files
    /// that are wrong change nothing, and are said. So are certificates and OCSP responses that ended meanwhile.
    /// Whether there is something new to tell of them.
    pub fn refresh(&mut self, asked: bool) -> bool {
        // Several listeners show the same certificates: each thing is said once.
        let mut said = BTreeSet::new();
        self.sets.iter_mut().fold(false, |changed, set| changed | set.refresh(asked, &mut said))
    }
}

impl Set {
    /// Says what was not said before. Whether there was anything.
    fn say_changes(&mut self, said: &mut BTreeSet<String>) -> bool {
        let remarks = remarks(&self.settings);
        if remarks == self.said {
            return false;
        }
        for remark in remarks.iter().filter(|remark| !self.said.contains(remark)) {
            say_once(remark.clone(), said);
        }
        self.said = remarks;
        true
    }

    fn refresh(&mut self, asked: bool, said: &mut BTreeSet<String>) -> bool {
        if self.settings.identities.is_empty() {
            return false;
        }
        let now: Vec<_> = files(&self.settings).map(Stamp::of).collect();
        if now == self.seen && !asked {
            return self.say_changes(said);
        }
        self.seen = now;
        match self.settings.build_with(None, Some(&self.config)) {
            Ok(config) => {
                self.config = config.clone();
                self.slot.store(Some(config));
                say_once("certificates read anew".into(), said);
                self.say_changes(said);
                true
            }
            Err(error) => {
                say_once(format!("the certificates stay as they were: {error}"), said);
                false
            }
        }
    }
}

fn files(settings: &ServerSettings) -> impl Iterator<Item = &Path> {
    let identities = settings.identities.iter().flat_map(Identity::files);
    identities.chain(settings.client_trust.iter().map(|path| path.as_path()))
}

fn say_once(remark: String, said: &mut BTreeSet<String>) {
    if !said.contains(&remark) {
        eprintln!("eleven: {remark}");
        said.insert(remark);
    }
}

/// What there is to say of certificates as they were loaded: those that have ended, and what becomes of OCSP responses.
fn remarks(settings: &ServerSettings) -> Vec<String> {
    let now = clock::unix_seconds();
    let date = |unix_s| String::from_utf8_lossy(&HttpDate(unix_s).imf()).into_owned();
    let mut remarks = Vec::new();
    for identity in &settings.identities {
        let Some(pair) = settings.loaded.known(identity) else { continue };
        let certificate = identity.certificate.display();
        if let Some(end) = pair.facts().map(|facts| facts.not_after_unix_s).filter(|end| *end < now) {
            remarks.push(format!(
                "warning: the certificate {certificate} expired on {}: clients will refuse it; put a new one in its place",
                date(end)
            ));
        }
        let Some(stapling) = pair.stapling(now) else { continue };
        let file = stapling.file.display();
        remarks.push(match stapling.outcome {
            Ok(until) => format!("the OCSP response {file} is stapled until {}", date(until)),
            Err(why) => {
                format!("warning: the OCSP response {file} is not stapled to {certificate}: {why}")
            }
        });
    }
    remarks
}

/// A certificate that only this machine's developer will trust.
fn make() -> Result<Made, Failure> {
    let names = DEVELOPMENT_NAMES.map(str::to_owned).to_vec();
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| Failure(format!("cannot make a certificate: {error}")))?;
    Ok(Made { certificate: made.cert.der().to_vec(), key: made.signing_key.serialize_der() })
}
