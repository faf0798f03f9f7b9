//! TLS settings, checked whole before they are used: whom a client trusts, which certificates a server shows,
//! whom it asks for one. Files are read here once; a reload makes a new setting and swaps it, so a half-written
//! file changes nothing (fault A17). TLS 1.2 and 1.3 only (fault A10), ALPN `http/1.1` only (fault A21), no
//! early data (fault A16).

use crate::ocsp::Stapling;
use crate::tls_certificates::{ByName, Loaded, Pair, Stamp};
use crate::tls_preset::Preset;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
pub use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
pub use rustls::server::ClientHello;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
pub use rustls::{ClientConfig, ServerConfig};
use rustls_platform_verifier::BuilderVerifierExt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The one protocol that is spoken (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// What is wrong with TLS settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds no certificate or key in PEM, or a broken one.
    #[error("{path} holds no usable {what} in PEM: {detail}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// The parser's word.
        detail: String,
    },
    /// Certificate and key do not belong together, or the key is of a kind that is not supported.
    #[error("certificate {certificate} does not go with key {key}: {error}")]
    Pair {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Why.
        error: rustls::Error,
    },
    /// No certificate was given.
    #[error("a TLS server needs at least one certificate")]
    NoCertificate,
    /// Anything else rustls refuses.
    #[error("TLS settings refused: {0}")]
    Rustls(#[from] rustls::Error),
}

/// Whom a client trusts.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// The operating system's roots and rules.
    #[default]
    Platform,
    /// The roots that Mozilla's programme had when this was built, for systems without any.
    Bundled,
    /// The certificates of these PEM files and nobody else.
    Files(Vec<PathBuf>),
    /// Anybody. The connection is then encrypted to nobody in particular.
    Anybody,
}

/// A certificate chain and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The key of the leaf.
    pub key: PathBuf,
    /// An OCSP response in DER to staple for as long as it holds; the certificate is shown without one, too.
    pub ocsp: Option<PathBuf>,
}

/// Settings of a client.
#[derive(Debug, Clone, Default)]
pub struct ClientSettings {
    /// Whom to trust.
    pub trust: Trust,
    /// A certificate to show when asked for one.
    pub identity: Option<Identity>,
    /// Versions and suites.
    pub preset: Preset,
}

/// Settings of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// Certificates to show: the first that is valid for the name the client asks for, else the first.
    pub identities: Vec<Identity>,
    /// Ask clients for a certificate issued by one of these PEM files.
    pub client_trust: Vec<PathBuf>,
    /// Serve clients that show none, too.
    pub client_certificate_optional: bool,
    /// Versions and suites.
    pub preset: Preset,
    /// Certificates that were loaded already, to be shared by all settings that show them.
    pub loaded: Loaded,
}

/// A certificate made for the occasion and its key, in DER: for development, where there are no files.
#[derive(Debug)]
pub struct Made {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// Its key, in PKCS #8.
    pub key: Vec<u8>,
}

impl ClientSettings {
    /// Checks the settings and reads their files. SNI is the host that is dialed (fault A14).
    ///
    /// # Errors
    /// See [`TlsConfigError`].
    pub fn build(&self) -> Result<Arc<ClientConfig>, TlsConfigError> {
        let provider = self.preset.provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.preset.versions())?;
        let builder = match &self.trust {
            Trust::Platform => builder.with_platform_verifier()?,
            Trust::Bundled => {
                let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                builder.with_root_certificates(roots)
            }
            Trust::Files(files) => builder.with_root_certificates(roots(files)?),
            Trust::Anybody => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody(provider)))
            }
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = identity.read()?;
                builder.with_client_auth_cert(chain, key).map_err(|error| identity.mismatch(error))?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

impl ServerSettings {
    /// Checks the settings and reads their files. Sessions are resumed only under the settings they began
    /// under, so a client certificate asked for by one site never counts at another (fault A15).
    ///
    /// # Errors
    /// See [`TlsConfigError`].
    pub fn build(&self) -> Result<Arc<ServerConfig>, TlsConfigError> {
        self.build_with(None, None)
    }

    /// As [`ServerSettings::build`], with a certificate that is in no file behind those that are. Tickets given out
    /// under the settings `before` stay good where nobody is asked for a certificate.
    ///
    /// # Errors
    /// See [`TlsConfigError`].
    pub fn build_with(
        &self,
        made: Option<Made>,
        before: Option<&ServerConfig>,
    ) -> Result<Arc<ServerConfig>, TlsConfigError> {
        let provider = self.preset.provider();
        let mut certificates = Vec::new();
        for identity in &self.identities {
            certificates.push(self.loaded.load(identity, &provider)?);
        }
        if let Some(made) = made {
            let key = PrivateKeyDer::Pkcs8(made.key.into());
            let pair = CertifiedKey::from_der(vec![made.certificate.into()], key, &provider)?;
            certificates.push(Arc::new(Pair::unfiled(pair)));
        }
        if certificates.is_empty() {
            return Err(TlsConfigError::NoCertificate);
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.preset.versions())?;
        let builder = if self.client_trust.is_empty() {
            builder.with_no_client_auth()
        } else {
            let roots = Arc::new(roots(&self.client_trust)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if self.client_certificate_optional {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(
                verifier
                    .build()
                    .map_err(|error| TlsConfigError::Rustls(rustls::Error::General(error.to_string())))?,
            )
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName::new(certificates)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Its keys change every six hours, and are the same for all workers.
        config.ticketer = match before.filter(|_| self.client_trust.is_empty()) {
            Some(before) => before.ticketer.clone(),
            None => aws_lc_rs::Ticketer::new()?,
        };
        Ok(Arc::new(config))
    }

    /// Key files that others than their owner may read (fault A18): worth a warning at start.
    pub fn readable_keys(&self) -> Vec<&Path> {
        use std::os::unix::fs::PermissionsExt;
        let exposed = |path: &&Path| {
            std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o044 != 0)
        };
        self.identities.iter().map(|identity| identity.key.as_path()).filter(exposed).collect()
    }
}

impl ServerSettings {
    /// The certificates as they were loaded last.
    pub fn pairs(&self) -> impl Iterator<Item = Arc<Pair>> {
        self.identities.iter().filter_map(|identity| self.loaded.known(identity))
    }

    /// What becomes of each OCSP response at this time, as they were loaded last.
    pub fn staplings(&self, now_unix_s: i64) -> impl Iterator<Item = Stapling> {
        self.pairs().filter_map(move |pair| pair.stapling(now_unix_s))
    }
}

/// Settings that answer a challenge in the handshake: one certificate, one protocol, nothing kept.
///
/// # Errors
/// See [`TlsConfigError`].
pub fn challenge_settings(made: Made, protocol: &[u8]) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let preset = Preset::default();
    let provider = preset.provider();
    let key = provider.key_provider.load_private_key(PrivateKeyDer::Pkcs8(made.key.into()))?;
    // Not looked into: the extension that makes it an answer is critical, and unknown to whoever verifies.
    let pair = CertifiedKey::new(vec![made.certificate.into()], key);
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(preset.versions())?;
    let chooser = ByName::new(vec![Arc::new(Pair::unfiled(pair))]);
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(chooser));
    config.alpn_protocols = vec![protocol.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

impl Identity {
    /// The files it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.certificate, &self.key].into_iter().chain(&self.ocsp).map(PathBuf::as_path)
    }

    /// The state of its files.
    pub(crate) fn stamps(&self) -> Vec<Option<Stamp>> {
        self.files().map(Stamp::of).collect()
    }

    pub(crate) fn read(
        &self,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsConfigError> {
        let chain = certificates(&self.certificate)?;
        let pem = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsConfigError::Pem {
            path: self.key.clone(),
            what: "private key",
            detail: error.to_string(),
        })?;
        Ok((chain, key))
    }

    pub(crate) fn mismatch(&self, error: rustls::Error) -> TlsConfigError {
        TlsConfigError::Pair { certificate: self.certificate.clone(), key: self.key.clone(), error }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsConfigError> {
    std::fs::read(path).map_err(|error| TlsConfigError::Read { path: path.to_owned(), error })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let pem = read(path)?;
    let bad = |detail: String| TlsConfigError::Pem { path: path.to_owned(), what: "certificate", detail };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(bad("there is none in it".into())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(bad(error.to_string())),
    }
}

fn roots(files: &[PathBuf]) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for path in files {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| TlsConfigError::Pem {
                path: path.clone(),
                what: "certificate",
                detail: error.to_string(),
            })?;
        }
    }
    Ok(roots)
}

/// [`Trust::Anybody`]: checks that the peer holds the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a peer's certificate was refused, for error messages and exit codes (fault A12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateProblem {
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotValidYet,
    /// It is for other names.
    WrongName,
    /// Nobody trusted has issued it.
    UnknownIssuer,
    /// Its issuer has revoked it.
    Revoked,
    /// It is for another purpose.
    WrongPurpose,
    /// Anything else, in rustls' words.
    Other(String),
}

impl CertificateProblem {
    /// The problem behind a failed handshake, if it was one of the certificate.
    pub fn from_error(error: &rustls::Error) -> Option<CertificateProblem> {
        let rustls::Error::InvalidCertificate(error) = error else { return None };
        Some(match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                CertificateProblem::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                CertificateProblem::NotValidYet
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                CertificateProblem::WrongName
            }
            CertificateError::UnknownIssuer => CertificateProblem::UnknownIssuer,
            CertificateError::Revoked => CertificateProblem::Revoked,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                CertificateProblem::WrongPurpose
            }
            other => CertificateProblem::Other(other.to_string()),
        })
    }
}

impl std::fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CertificateProblem::Expired => "it has expired",
            CertificateProblem::NotValidYet => "it is not valid yet",
            CertificateProblem::WrongName => "it is for other names",
            CertificateProblem::UnknownIssuer => "nobody trusted has issued it",
            CertificateProblem::Revoked => "it has been revoked",
            CertificateProblem::WrongPurpose => "it is for another purpose",
            CertificateProblem::Other(detail) => detail,
        })
    }
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;
