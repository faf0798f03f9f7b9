//! The user agent: connections and their pool, exchanges, redirections, cookies, credentials, content decoding,
//! and downloads that are right or are not there.
//!
//! Only `exchange.rs` names both a stream and a connection machine. Everything that can be decided without a
//! connection (which cookie, which proxy, which segment next) is in files of its own and takes time as an
//! argument.

pub mod agent;
mod commit;
pub mod connector;
pub mod credentials;
pub mod decode;
pub mod download;
pub mod edge;
pub mod error;
pub mod exchange;
pub mod jar;
pub mod journal;
pub mod partial;
pub mod pipeline;
pub mod pool;
pub mod progress;
pub mod proxies;
pub mod rate;
pub mod replies;
pub mod segments;
pub mod transfer;
pub mod verify;

pub use error::{Cause, Failure, Phase, RetrySafety};
