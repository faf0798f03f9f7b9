//! Responses as a client must read them: the rows of the fault catalogue for hostile servers, and RFC 9112 §4 to
//! §9. Every row is delivered whole, octet by octet, and split at every place.

mod common;

use common::{Asked, ask};
use eleven_messaging::{Config, Options};
use eleven_testkit::deliver::deliver;
use std::sync::Arc;

const GET: &[Asked] = &[Asked::Plain("GET")];
const HEAD: &[Asked] = &[Asked::Plain("HEAD")];

/// Each row: what it shows, the requests, the octets of the server (then it closes), and the transcript.
#[track_caller]
fn check_with(config: Config, rows: &[(&str, &[Asked], &str, &str)]) {
    let config = Arc::new(config);
    for (what, requests, bytes, expected) in rows {
        let seen = deliver(bytes.as_bytes(), |pieces| ask(&config, requests, pieces));
        assert_eq!(seen.trim_end(), expected.trim(), "{what}");
    }
}

#[track_caller]
fn check(rows: &[(&str, &[Asked], &str, &str)]) {
    check_with(Config::default(), rows);
}

/// 9112-6.3-R1 to R7, 9112-9.2-01: what ends a response, and what its end says of the connection.
#[test]
fn the_end_of_a_response_is_found() {
    check(&[
        (
            "9112-6.3-R5: a length",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 5\\r\\n] length 5\ndata hello\nend\nreusable",
        ),
        (
            "9112-6.3-R1: HEAD ends with its head",
            HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 5\\r\\n] none\nreusable",
        ),
        (
            "9112-6.3-R7: until close",
            GET,
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "final HTTP/1.1 200 \"OK\" [] until-close\ndata hello\nend\ncloses: until-close, 0 unanswered",
        ),
        (
            "9112-9.2-01: pipelined answers are matched in order, each by its own method",
            &[Asked::Plain("HEAD"), Asked::Plain("GET")],
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 5\\r\\n] none\n\
             final HTTP/1.1 200 \"OK\" [Content-Length: 2\\r\\n] length 2\ndata hi\nend\nreusable",
        ),
    ]);
}

/// Faults R03, R04, R08, R09, R22, R23.
#[test]
fn hostile_servers_are_refused() {
    check(&[
        (
            "R03: surplus octets are never a response",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 2\\r\\n] length 2\ndata hi\nend\nrefused unsolicited",
        ),
        ("R04: octets without a request", &[], "HTTP/1.1 200 OK\r\n\r\n", "refused unsolicited"),
        (
            "R08: 101 to a plain GET",
            GET,
            "HTTP/1.1 101 X\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n",
            "refused switch-unasked",
        ),
        ("R22: two digits", GET, "HTTP/1.1 20 OK\r\n\r\n", "refused status-line"),
        ("R23: no status line", GET, "hello", "refused status-line"),
    ]);
}

/// HTTP/0.9 only where the option is on.
#[test]
fn http_0_9_is_an_option() {
    let options = Options { http09: true, ..Options::default() };
    check_with(
        Config { options, ..Config::default() },
        &[(
            "a response without head",
            &[Asked::Oldest],
            "hello",
            "final HTTP/0.9 200 \"\" [] until-close\ndata hello\nend\ncloses: client-asked, 0 unanswered",
        )],
    );
}
