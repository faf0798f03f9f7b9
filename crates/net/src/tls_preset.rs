//! Named choices of TLS versions, suites and groups, by the names that Mozilla's recommendations for servers made known
//! ("Server Side TLS"). Each is written out, so that a newer library cannot widen it unnoticed. Mozilla's `old` (TLS 1.0,
//! CBC, no forward secrecy) is not among them and cannot be had (fault A10); neither is the finite-field Diffie-Hellman of its
//! `intermediate`, which no client from the last ten years needs.

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};
use std::sync::Arc;

use aws_lc_rs::cipher_suite as suite;
use aws_lc_rs::kx_group as group;

/// Which versions of TLS are spoken, and with which suites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preset {
    /// TLS 1.3 only.
    Modern,
    /// TLS 1.3 and 1.2, the latter with forward secrecy and authenticated encryption only.
    #[default]
    Intermediate,
}

const TLS13: [SupportedCipherSuite; 3] =
    [suite::TLS13_AES_128_GCM_SHA256, suite::TLS13_AES_256_GCM_SHA384, suite::TLS13_CHACHA20_POLY1305_SHA256];

const TLS12: [SupportedCipherSuite; 6] = [
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Which of them is used is the client's choice, as it is for the suites: it knows whether it has AES in hardware.
const GROUPS: [&dyn SupportedKxGroup; 4] =
    [group::X25519MLKEM768, group::X25519, group::SECP256R1, group::SECP384R1];

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const NEWEST: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

impl Preset {
    /// All, with the names that configurations use.
    pub const NAMES: [(&'static str, Preset); 2] =
        [("modern", Preset::Modern), ("intermediate", Preset::Intermediate)];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Preset> {
        Preset::NAMES.iter().find(|(known, _)| *known == name).map(|(_, preset)| *preset)
    }

    /// The cryptography to use.
    pub(crate) fn provider(self) -> Arc<CryptoProvider> {
        let mut cipher_suites = TLS13.to_vec();
        match self {
            Preset::Modern => {}
            Preset::Intermediate => cipher_suites.extend(TLS12),
        }
        Arc::new(CryptoProvider {
            cipher_suites,
            kx_groups: GROUPS.to_vec(),
            ..aws_lc_rs::default_provider()
        })
    }

    /// The versions to speak.
    pub(crate) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Preset::Modern => NEWEST,
            Preset::Intermediate => BOTH,
        }
    }
}
