//! HTTP/1.x messages on a connection (RFC 9112), without I/O.
//!
//! Octets come in as slices and go out into buffers; what they mean is `eleven-semantics`, where they come from
//! is the caller's business. Nothing here blocks, reads a clock, or logs. Two machines, [`ServerConnection`] and
//! [`ClientConnection`], hold the rules of a connection: framing, pipelining, 1xx, persistence, hand-over.

pub mod body;
pub mod chunked;
pub mod client;
pub mod cycle;
pub mod error;
pub mod field_section;
pub mod framing;
pub mod gzip;
pub mod head;
pub mod limits;
pub mod persistence;
mod scan;
pub mod server;
pub mod start_line;

pub use body::{BodyDecoder, BodyEncoder, Piece};
pub use client::{Arrived, ClientConnection, Early, KeepAlive, Request, Retry};
pub use error::{Malformed, Misuse};
pub use framing::Framing;
pub use head::{Expectation, RequestHead, ResponseHead};
pub use limits::{Config, Limits, Options};
pub use persistence::{CloseReason, Persistence};
pub use server::{Answer, Length, Received, ServerConnection};
