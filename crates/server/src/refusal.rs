//! The answers that say why nothing else is answered: one readable sentence under the status. Which page of a site
//! takes their place is decided in `after/error_page.rs`; what a gateway says of its next hop, in `proxy.rs`.

use crate::response::Response;
use eleven_messaging::{CloseReason, Malformed};
use eleven_semantics::Status;
use eleven_semantics::target::InvalidPath;

/// A readable refusal. Nothing of the request is repeated in it (fault L11).
pub fn refusal(status: Status, why: &str) -> Response {
    Response::text(status, "text/plain; charset=utf-8", format!("{status}\n{why}\n"))
}

/// The answer to a path that names nothing, where no error page takes its place.
pub(crate) fn bad_path(why: InvalidPath) -> Response {
    refusal(why.status(), &format!("The path of the request leads nowhere: {why}."))
}

/// The answer to octets that are no request.
pub(crate) fn malformed(why: Malformed) -> Response {
    let mut response = refusal(why.status(), &format!("The request cannot be read: {why}."));
    response.close = Some(CloseReason::Malformed(why));
    response
}

/// The answer after a handler failed in a way it should not.
pub(crate) fn internal_error() -> Response {
    refusal(Status::INTERNAL_SERVER_ERROR, "The server failed on this request.")
}
