//! HTTP semantics (RFC 9110) and caching rules (RFC 9111) as vocabulary and pure functions.
//!
//! Nothing here does I/O, reads a clock, or logs: time comes in as an argument, decisions go out as values
//! with reasons. What a message *looks like* on a connection is the business of `eleven-messaging`.

pub mod auth;
pub mod caching;
pub mod conditional;
pub mod content_disposition;
pub mod cookie;
pub mod date;
pub mod digest_fields;
pub mod expect;
pub mod fields;
pub mod forwarding;
pub mod grammar;
pub mod media_type;
pub mod meta_variables;
pub mod method;
pub mod names;
pub mod negotiation;
pub mod proxy_status;
pub mod range;
pub mod redirect;
pub mod status;
pub mod structured;
pub mod target;
pub mod trace_context;
pub mod uri;
pub mod validator;
pub mod version;

pub use fields::{Field, Fields, InvalidField};
pub use method::Method;
pub use names::Known;
pub use status::Status;
pub use target::RequestTarget;
pub use version::Version;
