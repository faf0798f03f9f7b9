//! Steps before the handler, each in a file of its own. None of them knows another; their order stands in `steps.rs`.

pub mod access;
pub mod auth;
pub mod client;
pub mod cors;
pub mod limit;
pub mod redirect;
pub mod trace;
