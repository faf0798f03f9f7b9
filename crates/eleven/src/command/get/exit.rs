//! Exit codes: one per kind of failure, stable, documented in `docs/get.md`.

use eleven_client::{Cause, Failure, Phase};
use std::process::ExitCode;

/// The exit code of a failure.
pub fn code(failure: &Failure) -> ExitCode {
    ExitCode::from(number(failure))
}

/// As a number.
pub fn number(failure: &Failure) -> u8 {
    match (&failure.cause, failure.phase) {
        (Cause::Cancelled, _) => 130,
        (Cause::Timeout(_), _) => 8,
        (Cause::Redirect(_), _) => 11,
        (Cause::Status(400..=499), Phase::Head) => 12,
        (Cause::Status(_), Phase::Head) => 13,
        (_, Phase::Tunnel) => 18,
        (Cause::NotFound(_), _) => 4,
        (Cause::Certificate(_), _) => 7,
        (Cause::Tls(_), _) | (_, Phase::Tls) => 6,
        (_, Phase::Connect | Phase::Resolve) => 5,
        (Cause::Digest(_) | Cause::Changed(_), _) | (_, Phase::Verify) => 14,
        (_, Phase::File) => 15,
        (Cause::Coding(_), _) => 16,
        (Cause::TooLarge(..), _) => 17,
        (Cause::Malformed(_), _) => 9,
        (Cause::Closed | Cause::Short(..) | Cause::Io(..), _) => 10,
        (Cause::Unusable(_) | Cause::Status(_), _) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_number() {
        for (phase, cause, expected) in [
            (Phase::Prepare, Cause::Unusable(String::new()), 3),
            (Phase::Resolve, Cause::NotFound(String::new()), 4),
            (Phase::Connect, Cause::Io(std::io::ErrorKind::ConnectionRefused, String::new()), 5),
            (Phase::Tls, Cause::Closed, 6),
            (Phase::Tls, Cause::Certificate(String::new()), 7),
            (Phase::Connect, Cause::Timeout(1), 8),
            (Phase::Head, Cause::Malformed(String::new()), 9),
            (Phase::Content, Cause::Short(1, 2), 10),
            (Phase::Head, Cause::Closed, 10),
            (Phase::Head, Cause::Redirect(eleven_semantics::redirect::NotFollowed::Loop), 11),
            (Phase::Head, Cause::Status(404), 12),
            (Phase::Head, Cause::Status(503), 13),
            (Phase::Head, Cause::Status(304), 13),
            (Phase::Verify, Cause::Digest(String::new()), 14),
            (Phase::File, Cause::Io(std::io::ErrorKind::StorageFull, String::new()), 15),
            (Phase::Content, Cause::Coding(String::new()), 16),
            (Phase::Content, Cause::TooLarge("x", 1), 17),
            (Phase::Tunnel, Cause::Status(407), 18),
            (Phase::Content, Cause::Cancelled, 130),
        ] {
            let failure = Failure::new(phase, cause);
            assert_eq!(number(&failure), expected, "{failure}");
        }
    }
}
