//! Everything that waits: sockets, TLS, names, files, time. Knows no HTTP and does not know
//! `eleven-messaging`; the two meet in `server/session.rs` and `client/exchange.rs` only.
//!
//! One operating-system thread per worker, each with a current-thread tokio runtime: futures here need not be
//! `Send`, and nothing takes a lock on the way of a byte.

pub mod address;
pub mod certificate;
pub mod clock;
pub mod conduit;
pub mod descriptors;
pub mod dial;
pub mod file;
pub mod handover;
pub mod ledger;
pub mod listener;
pub mod memory;
pub mod ocsp;
pub mod packet;
pub mod pipe;
pub mod proxy_protocol;
pub mod random;
pub mod resolve;
pub mod stream;
pub mod tls;
pub mod tls_certificates;
pub mod tls_config;
pub mod tls_preset;
pub mod worker;

pub use memory::MemoryStream;
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use stream::{PeerAddr, Stream};

/// Random bytes from the system, fit for secrets.
///
/// # Errors
/// If the system has none to give.
pub fn random_bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
