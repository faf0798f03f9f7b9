//! Certificates from an authority (ACME, RFC 8555): ordered for the names of each site, proved by HTTP-01 or TLS-ALPN-01,
//! stored, and renewed early, when the authority suggests it (ARI, RFC 9773) or after two thirds of their life. A
//! thread of its own does it, so nothing ever waits for an authority: until there is a certificate, one made here
//! stands in, which browsers refuse.
//!
//! A certificate and its key are one file, so that no moment sees a pair that does not match; it is written beside
//! the old one, mode 0600, and renamed.

use crate::command::Failure;
use eleven_net::tls_config::{Identity, Made, challenge_settings};
use eleven_server::acme::{Answered, PROTOCOL, answer_handshake, answer_text};
use eleven_server::plan::{AcmeCertificate, AcmePlan};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, watch};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The issuer of certificates that stand in.
const STAND_IN: &str = "eleven stands in until a certificate is issued";
/// How long a challenge or an order may take.
const ORDER_TIMEOUT: Duration = Duration::from_secs(90);
/// After an attempt that did not reach the authority, and after one that it refused; then twice as long each time.
const RETRY_UNREACHED: Duration = Duration::from_secs(5);
const RETRY_REFUSED: Duration = Duration::from_secs(120);
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);
/// How often the authority is asked when a certificate should be renewed, and files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(6 * 3600);

/// The thread that orders certificates, until it is dropped.
pub struct Acme {
    plans: watch::Sender<Option<AcmePlan>>,
}

/// Makes sure that every certificate of the plan has a file, before anybody reads it.
///
/// # Errors
/// If the store cannot be written.
pub fn prepare(plan: &AcmePlan) -> Result<(), Failure> {
    let fail = |error| Failure(format!("cannot write certificates into {}: {error}", plan.store.display()));
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(&plan.store).map_err(fail)?;
    for certificate in &plan.certificates {
        if !certificate.file.exists() {
            store(&certificate.file, &stand_in(&certificate.names)?).map_err(fail)?;
        }
    }
    Ok(())
}

/// The identity of a certificate: both in one file.
pub fn identity(certificate: &AcmeCertificate) -> Identity {
    Identity { certificate: certificate.file.clone(), key: certificate.file.clone(), ocsp: None }
}

impl Acme {
    /// Starts ordering what a plan asks for; `changed` is told when there is a new certificate.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(plan: AcmePlan, changed: Arc<Notify>) -> Result<Acme, Failure> {
        let (plans, watched) = watch::channel(Some(plan));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        std::thread::Builder::new()
            .name("acme".into())
            .spawn(move || runtime.block_on(run(watched, &changed)))?;
        Ok(Acme { plans })
    }

    /// Orders what another plan asks for from now on.
    pub fn replace(&self, plan: Option<AcmePlan>) {
        let _ = self.plans.send_if_modified(|old| {
            let differs = *old != plan;
            *old = plan;
            differs
        });
    }
}

/// What is known of a certificate between attempts.
struct Task {
    certificate: AcmeCertificate,
    due: SystemTime,
    failures: u32,
}

async fn run(mut plans: watch::Receiver<Option<AcmePlan>>, changed: &Notify) {
    loop {
        let plan = plans.borrow_and_update().clone();
        let ended = match plan {
            None => plans.changed().await.is_err(),
            Some(plan) => {
                tokio::select! {
                    ended = plans.changed() => ended.is_err(),
                    () = keep(&plan, changed) => false,
                }
            }
        };
        if ended {
            return;
        }
    }
}

/// Keeps the certificates of a plan good, for ever.
async fn keep(plan: &AcmePlan, changed: &Notify) {
    let now = SystemTime::now();
    let certificates = plan.certificates.iter().cloned();
    let mut tasks: Vec<Task> =
        certificates.map(|certificate| Task { certificate, due: now, failures: 0 }).collect();
    let mut account = None;
    loop {
        let Some(task) = tasks.iter_mut().min_by_key(|task| task.due) else {
            return std::future::pending().await;
        };
        let wait = task.due.duration_since(SystemTime::now()).unwrap_or_default();
        // Not longer at a time: the clock may be set meanwhile.
        tokio::time::sleep(wait.min(LOOK_EVERY)).await;
        if wait > LOOK_EVERY {
            continue;
        }
        let names = task.certificate.names.join(", ");
        match attempt(plan, &task.certificate, &mut account).await {
            Ok(Outcome::Good { until }) => {
                task.due = until.min(SystemTime::now() + LOOK_EVERY);
                task.failures = 0;
            }
            Ok(Outcome::Issued { until }) => {
                eprintln!("eleven: a certificate for {names} was issued by {}", plan.directory);
                // The authority is not asked at once whether it is time again: one that says so of a new certificate would
                // be asked for ever.
                let now = SystemTime::now();
                task.due = until.clamp(now + RETRY_UNREACHED, now + LOOK_EVERY);
                task.failures = 0;
                changed.notify_one();
            }
            Err(error) => {
                let refused = matches!(error, Failed::Refused(_));
                let first = if refused { RETRY_REFUSED } else { RETRY_UNREACHED };
                let pause = jittered(first.saturating_mul(1 << task.failures.min(16)).min(RETRY_MAX));
                task.failures += 1;
                task.due = SystemTime::now() + pause;
                // An account may be the reason; it is looked at anew.
                account = None;
                eprintln!(
                    "eleven: no certificate for {names} from {}: {error}; trying again in {} seconds",
                    plan.directory,
                    pause.as_secs()
                );
            }
        }
    }
}

enum Outcome {
    /// The stored one is good until it is looked at again.
    Good { until: SystemTime },
    /// There is a new one, which is good until then.
    Issued { until: SystemTime },
}

#[derive(Debug)]
enum Failed {
    /// The authority said no.
    Refused(String),
    /// Anything that may pass by itself.
    Passing(String),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Failed::Refused(why) | Failed::Passing(why)) = self;
        f.write_str(why)
    }
}

impl From<instant_acme::Error> for Failed {
    fn from(error: instant_acme::Error) -> Failed {
        match error {
            instant_acme::Error::Api(problem) => {
                let kind = problem.r#type.as_deref().unwrap_or_default();
                let passes = ["badNonce", "serverInternal"].iter().any(|passing| kind.ends_with(passing));
                let text = problem.to_string();
                if passes { Failed::Passing(text) } else { Failed::Refused(text) }
            }
            other => {
                // The cause says more than the library: refused connections, names that do not resolve.
                let (mut text, mut source) = (other.to_string(), std::error::Error::source(&other));
                while let Some(cause) = source {
                    text = format!("{text}: {cause}");
                    source = cause.source();
                }
                Failed::Passing(text)
            }
        }
    }
}

fn passing(error: impl std::fmt::Display) -> Failed {
    Failed::Passing(error.to_string())
}

/// Looks at the stored certificate, and orders another if it is time.
async fn attempt(
    plan: &AcmePlan,
    certificate: &AcmeCertificate,
    account: &mut Option<Account>,
) -> Result<Outcome, Failed> {
    let stored = Stored::read(&certificate.file, &certificate.names);
    let mut replaces = None;
    if let Some(stored) = &stored {
        let mut renew_at = stored.renew_at(&certificate.file);
        // Asked only while it is good by itself: an authority out of reach is no reason not to try.
        if let Some(id) = stored.id.as_ref().filter(|_| renew_at > SystemTime::now())
            && let Ok(account) = opened(plan, account).await
            && let Ok((info, _)) = account.renewal_info(id).await
        {
            let (start, end) = (info.suggested_window.start, info.suggested_window.end);
            let window = u64::try_from((end - start).whole_seconds()).unwrap_or(0);
            let start = UNIX_EPOCH + Duration::from_secs(u64::try_from(start.unix_timestamp()).unwrap_or(0));
            // The same point of the window each time it is asked.
            renew_at =
                renew_at.min(start + Duration::from_secs(window * stored.chance(&certificate.file) / 100));
        }
        if renew_at > SystemTime::now() {
            return Ok(Outcome::Good { until: renew_at });
        }
        replaces.clone_from(&stored.id);
    }
    let account = opened(plan, account).await?;
    let identifiers: Vec<Identifier> = certificate.names.iter().cloned().map(Identifier::Dns).collect();
    let mut wanted = NewOrder::new(&identifiers);
    if let Some(id) = replaces.clone() {
        wanted = wanted.replaces(id);
    }
    let mut order = match account.new_order(&wanted).await {
        // An authority may have no such certificate (any more), or know nothing of replacing.
        Err(_) if replaces.is_some() => account.new_order(&NewOrder::new(&identifiers)).await?,
        other => other?,
    };
    let answered = tokio::time::timeout(ORDER_TIMEOUT, prove(plan, &mut order)).await;
    answered.map_err(|_| passing("the challenges took too long"))??;
    let key = KeyPair::generate().map_err(passing)?;
    let mut params = CertificateParams::new(certificate.names.clone()).map_err(passing)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(passing)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&RetryPolicy::new().timeout(ORDER_TIMEOUT)).await?;
    store(&certificate.file, &format!("{}{}", key.serialize_pem(), chain)).map_err(passing)?;
    let issued = Stored::read(&certificate.file, &certificate.names)
        .ok_or_else(|| passing("the certificate that was issued cannot be used"))?;
    Ok(Outcome::Issued { until: issued.renew_at(&certificate.file) })
}

/// Answers the challenges of an order until it is ready to be finalized.
async fn prove(plan: &AcmePlan, order: &mut Order) -> Result<(), Failed> {
    let mut answered: Vec<Answered> = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            status => return Err(Failed::Refused(format!("an authorization is {status:?}"))),
        }
        let kind = if plan.tls_alpn { ChallengeType::TlsAlpn01 } else { ChallengeType::Http01 };
        let mut challenge = authorization
            .challenge(kind)
            .ok_or_else(|| Failed::Refused("the authority does not offer the challenge asked for".into()))?;
        let authorization = challenge.key_authorization();
        if plan.tls_alpn {
            let Identifier::Dns(name) = challenge.identifier().identifier.clone() else {
                return Err(Failed::Refused("the authority asks for something that is no name".into()));
            };
            let made = challenge_certificate(&name, authorization.digest().as_ref())?;
            let settings = challenge_settings(made, PROTOCOL).map_err(passing)?;
            answered.push(answer_handshake(&name, settings));
        } else {
            answered.push(answer_text(&challenge.token, authorization.as_str()));
        }
        challenge.set_ready().await?;
    }
    match order.poll_ready(&RetryPolicy::new().timeout(ORDER_TIMEOUT)).await? {
        OrderStatus::Ready => Ok(()),
        status => {
            let why = refusals(order).await;
            Err(Failed::Refused(format!("the order is {status:?}{why}")))
        }
    }
}

/// Why an authority did not believe it.
async fn refusals(order: &mut Order) -> String {
    let mut text = String::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        for problem in state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            text.push_str(&format!("; {problem}"));
        }
    }
    text
}

/// The certificate that answers TLS-ALPN-01 (RFC 8737 §3).
fn challenge_certificate(name: &str, digest: &[u8]) -> Result<Made, Failed> {
    let key = KeyPair::generate().map_err(passing)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(passing)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let made = params.self_signed(&key).map_err(passing)?;
    Ok(Made { certificate: made.der().to_vec(), key: key.serialize_der() })
}

/// The account, from the store or registered now.
async fn opened<'a>(plan: &AcmePlan, account: &'a mut Option<Account>) -> Result<&'a Account, Failed> {
    if account.is_none() {
        *account = Some(open_account(plan).await?);
    }
    account.as_ref().ok_or_else(|| passing("no account"))
}

async fn open_account(plan: &AcmePlan) -> Result<Account, Failed> {
    let builder = || match &plan.ca {
        Some(file) => Account::builder_with_root(file),
        None => Account::builder(),
    };
    // One for each authority: staging and production have accounts of their own.
    let path = plan.store.join(format!("account-{}.json", file_name(&plan.directory)));
    if let Ok(text) = std::fs::read(&path) {
        let credentials: AccountCredentials = serde_json::from_slice(&text).map_err(|error| {
            Failed::Passing(format!("{} is damaged ({error}); remove it to register anew", path.display()))
        })?;
        return Ok(builder()?.from_credentials(credentials).await?);
    }
    let contact: Vec<&str> = plan.contact.iter().map(|contact| &**contact).collect();
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder()?.create(&wanted, plan.directory.clone(), None).await?;
    let text = serde_json::to_string(&credentials).map_err(passing)?;
    store(&path, &text).map_err(passing)?;
    eprintln!("eleven: an account was registered with {}", plan.directory);
    Ok(account)
}

/// A text as part of the name of a file.
pub fn file_name(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    text.trim_start_matches("https://").chars().map(keep).collect()
}

/// Writes a file that only its owner can read, whole or not at all.
fn store(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary: PathBuf = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// A certificate made here, for as long as there is none that was issued.
fn stand_in(names: &[String]) -> Result<String, Failure> {
    let fail = |error: rcgen::Error| Failure(format!("cannot make a certificate: {error}"));
    let key = KeyPair::generate().map_err(fail)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(fail)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, STAND_IN);
    let made = params.self_signed(&key).map_err(fail)?;
    Ok(format!("{}{}", key.serialize_pem(), made.pem()))
}

/// What the stored certificate says of itself.
struct Stored {
    not_before: u64,
    not_after: u64,
    id: Option<CertificateIdentifier<'static>>,
}

impl Stored {
    /// A certificate that was issued for these names; `None` if there is none, or it only stands in.
    fn read(path: &Path, names: &[String]) -> Option<Stored> {
        let text = std::fs::read(path).ok()?;
        let pem =
            Pem::iter_from_buffer(&text).filter_map(Result::ok).find(|pem| pem.label == "CERTIFICATE")?;
        let (_, leaf) = X509Certificate::from_der(&pem.contents).ok()?;
        if leaf.issuer().iter_common_name().any(|name| name.as_str().is_ok_and(|name| name == STAND_IN)) {
            return None;
        }
        let facts = eleven_net::certificate::Facts::of(&pem.contents)?;
        if names.iter().any(|name| !facts.names.iter().any(|other| other.eq_ignore_ascii_case(name))) {
            return None;
        }
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let der = rustls_der(&pem.contents);
        Some(Stored {
            not_before: seconds(leaf.validity().not_before),
            not_after: seconds(leaf.validity().not_after),
            id: CertificateIdentifier::try_from(&der).ok().map(CertificateIdentifier::into_owned),
        })
    }

    /// After two thirds of its life, less up to a twentieth, so that many servers do not come at once.
    fn renew_at(&self, path: &Path) -> SystemTime {
        let life = self.not_after.saturating_sub(self.not_before);
        let early = life / 20 * self.chance(path) / 100;
        UNIX_EPOCH + Duration::from_secs(self.not_before + life * 2 / 3 - early.min(life / 2))
    }

    /// A number below 100 that stays the same for one certificate in one place.
    fn chance(&self, path: &Path) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (path, self.not_before, self.not_after, self.id.as_ref().map(ToString::to_string)).hash(&mut hasher);
        hasher.finish() % 100
    }
}

fn rustls_der(der: &[u8]) -> eleven_net::tls_config::CertificateDer<'_> {
    der.into()
}

/// Up to a quarter more.
fn jittered(pause: Duration) -> Duration {
    let random = eleven_net::random_bytes::<1>().map_or(0, |bytes| u32::from(bytes[0]));
    pause + pause / 1024 * random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_in_their_directory() {
        for (text, expected) in [
            ("https://acme.example/dir", "acme.example_dir"),
            ("../../etc/passwd", ".._.._etc_passwd"),
            ("example.org", "example.org"),
        ] {
            assert_eq!(file_name(text), expected);
        }
    }

    #[test]
    fn a_stand_in_is_made_once_and_known_as_such() {
        use std::os::unix::fs::PermissionsExt;
        let store = std::env::temp_dir().join(format!("eleven-acme-{}", std::process::id()));
        let names = vec!["example.org".to_owned(), "www.example.org".to_owned()];
        let certificate = AcmeCertificate { names: names.clone(), file: store.join("example.org.pem") };
        let plan = AcmePlan {
            directory: "https://127.0.0.1:1/dir".into(),
            contact: Vec::new(),
            store: store.clone(),
            ca: None,
            tls_alpn: false,
            certificates: vec![certificate.clone()],
        };
        prepare(&plan).unwrap();
        let first = std::fs::read(&certificate.file).unwrap();
        assert_eq!(std::fs::metadata(&certificate.file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&store).unwrap().permissions().mode() & 0o777, 0o700);
        prepare(&plan).unwrap();
        assert_eq!(std::fs::read(&certificate.file).unwrap(), first, "what is there stays");
        assert!(Stored::read(&certificate.file, &names).is_none(), "it is no certificate that was issued");
        // It serves: key and certificate in one file are a pair.
        let settings = eleven_net::tls_config::ServerSettings {
            identities: vec![identity(&certificate)],
            ..Default::default()
        };
        settings.build().unwrap();
        std::fs::remove_dir_all(&store).unwrap();
    }

    #[test]
    fn renewal_is_early_and_not_at_once_for_all() {
        let stored = Stored { not_before: 1_000_000, not_after: 1_000_000 + 90 * 86_400, id: None };
        let mut seen = std::collections::HashSet::new();
        for n in 0..50 {
            let at =
                stored.renew_at(Path::new(&format!("/{n}"))).duration_since(UNIX_EPOCH).unwrap().as_secs();
            let day = (at - 1_000_000) / 86_400;
            assert!((55..=60).contains(&day), "day {day}");
            seen.insert(at);
        }
        assert!(seen.len() > 10);
        let at = stored.renew_at(Path::new("/a"));
        assert_eq!(at, stored.renew_at(Path::new("/a")), "and the same whenever it is asked");
    }
}
