//! Stored responses (RFC 9111): key, find, decide, serve, validate, store. The rules are in
//! `eleven_semantics::caching`; here is what has memory: stores in memory and on disk, content on its way, and
//! requests that wait for each other.
//!
//! The engine is handed a way to send a request inbound and knows no connection, so all of it runs in a test
//! with a closure.

pub mod collapse;
pub mod content;
pub mod disk;
pub mod engine;
pub mod evict;
mod fill;
mod heal;
pub mod listing;
pub mod memory;
pub mod purge;
pub mod reply;
pub mod store;
pub mod stored;
pub mod tiered;

#[cfg(test)]
mod testing;

pub use engine::{Cache, Config, Scratch};
pub use reply::{Answer, Ask, Body, Failed, Head, Inbound, Reply, Report, Request, Source};
