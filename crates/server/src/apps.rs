//! Applications: Python in worker processes (WSGI, ASGI), FastCGI, and services of this process. The place where a
//! request leaves HTTP; what it means to the application is decided in `semantics::meta_variables`.

mod content;
mod exchange;
pub mod fastcgi;
mod package;
pub mod pool;
pub mod protocol;
mod python;
mod receiver;
pub mod service;
pub mod settings;
mod shelf;
mod supervisor;
mod websocket;
mod zygote;

pub use python::{Application, stop_all};
pub use settings::{AppSettings, Buffering, Interface};

use crate::response::Response;
use eleven_semantics::Status;

/// What a developer sees when the application fails. Only in development: a traceback tells too much.
fn traceback_page(text: &str) -> Response {
    Response::text(Status::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text.to_owned())
}
