//! The short way of a forwarded request: over a connection that was there already, everything that can happen
//! between its request and the end of its response. The exchanges of each script after the first go that way.

use super::play_with;

/// Plays a script that goes on after an exchange which left a connection to the server in the pool.
#[track_caller]
fn then(server: &str, client: &str) {
    then_with(server, client, |_| {});
}

#[track_caller]
fn then_with(server: &str, client: &str, change: impl FnOnce(&mut super::GatewayPlan)) {
    let script = format!(
        r#"
server origin
  skip-to "GET /warm HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nw"
{server}
client
  send "GET /warm HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "w"
{client}
"#
    );
    play_with(&script, change);
}

/// What comes whole is written whole, whatever its framing was, and both connections serve on. Fields of one exchange
/// do not show up in another.
#[test]
fn whole_responses_of_every_framing() {
    then(
        r#"
  expect
    | GET /1 HTTP/1.1
    | Host: h
    | x-one: 1
    | Via: 1.1 me
    |
  send "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-A: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\none"
  expect
    | HEAD /2 HTTP/1.1
    | Host: h
    | Via: 1.1 me
    |
  send "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 70000\r\n\r\n"
  expect
    | POST /3 HTTP/1.1
    | Host: h
    | Via: 1.1 me
    | Content-Length: 4
    |
  expect "full"
  send "HTTP/1.1 201 Created\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
  skip-to "GET /4 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 304 Not Modified\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"x\"\r\n\r\n"
  skip-to "GET /5 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
  skip-to "GET /6 HTTP/1.1\r\n"
"#,
        r#"
  send "GET /1 HTTP/1.1\r\nHost: h\r\nx-one: 1\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Date: Sun, 06 Nov 1994 08:49:37 GMT
    | X-A: a
    | Via: 1.1 me
    | Content-Length: 3
    |
  expect "one"
  send "HEAD /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Date: Sun, 06 Nov 1994 08:49:37 GMT
    | Via: 1.1 me
    | Content-Length: 70000
    |
  send "POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nfull"
  expect
    | HTTP/1.1 201 Created
    | Date: Sun, 06 Nov 1994 08:49:37 GMT
    | Via: 1.1 me
    | Content-Length: 3
    |
  expect "abc"
  send "GET /4 HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 304 Not Modified
    | Date: Sun, 06 Nov 1994 08:49:37 GMT
    | ETag: "x"
    | Via: 1.1 me
    |
  send "GET /5 HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\n\r\n"
  skip-to "Transfer-Encoding: chunked\r\n\r\n"
  expect "3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
  send "GET /6 HTTP/1.1\r\nHost: h\r\n\r\n"
"#,
    );
}

/// Invariant 9: content that comes in pieces arrives as it comes; content that is cut never looks whole (fault R01
/// and its kin).
#[test]
fn responses_in_pieces_and_cut_ones() {
    then(
        r#"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Le"
  send "ngth: 6\r\n\r\none"
  await one
  send "two"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none"
  await cut
  close
"#,
        r#"
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "Content-Length: 6\r\n\r\n"
  expect "one"
  signal one
  expect "two"
  send "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "Content-Length: 6\r\n\r\n"
  expect "one"
  signal cut
  expect-close
"#,
    );
}

/// 9110-15.2-04: interim responses go before the final one, also where both come in one read.
#[test]
fn interim_responses_take_the_long_way() {
    for (between, wait) in [("", ""), ("  await hint\n", "  signal hint\n")] {
        then(
            &format!(
                r#"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}"#,
                if between.is_empty() {
                    "HTTP/1.1 204 No Content\\r\\n\\r\\n\"\n".to_owned()
                } else {
                    format!("\"\n{between}  send \"HTTP/1.1 204 No Content\\r\\n\\r\\n\"\n")
                }
            ),
            &format!(
                r#"
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 103 Early Hints
    | Link: </a>
    | Via: 1.1 me
    |
{wait}  expect
    | HTTP/1.1 204 No Content
    | ...
    |
"#
            ),
        );
    }
}

/// 9110-9.2.2-02, 9112-9.5-02: a connection that the server closes under a request costs an idempotent one nothing;
/// another is not sent twice.
#[test]
fn a_connection_that_was_just_closed() {
    then(
        r#"
  skip-to "\r\n\r\n"
  close
  accept
  skip-to "GET /1 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 204 No Content\r\n\r\n"
  skip-to "POST /2 HTTP/1.1\r\n"
  skip-to "\r\n\r\nx"
  close
"#,
        r#"
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 204 No Content
    | ...
    |
  send "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
  expect
    | HTTP/1.1 502 Bad Gateway
    | ...
    |
"#,
    );
}

/// A malformed response is a 502 here too, and surplus octets end the connection (faults R31, R32).
#[test]
fn broken_responses() {
    then(
        r#"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
  expect-close
  accept
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
  wait-for-close
  accept
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3"
"#,
        r#"
  send "POST /0 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
  expect
    | HTTP/1.1 502 Bad Gateway
    | ...
    |
  expect "502 Bad Gateway\n"
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "1"
  send "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "2"
  send "GET /3 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "3"
"#,
    );
}

/// What a client does while it waits: half-close, further requests, and leave.
#[test]
fn the_client_moves_in_the_meantime() {
    then(
        r#"
  skip-to "\r\n\r\n"
  signal asked
  await gone
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
"#,
        r#"
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  await asked
  half-close
  signal gone
  skip-to "\r\n\r\n"
  expect "1"
  expect-close
"#,
    );
    then(
        r#"
  skip-to "GET /1 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  signal asked
  await more
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
"#,
        r#"
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  await asked
  send "TRACE /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  signal more
  skip-to "\r\n\r\n"
  expect "1"
  expect
    | HTTP/1.1 405 Method Not Allowed
    | ...
    |
"#,
    );
    then(
        r#"
  skip-to "\r\n\r\n"
  signal asked
  expect-close
"#,
        r#"
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  await asked
  reset
"#,
    );
}

/// A server that keeps silent is waited for as long as was said, and no longer.
#[test]
fn silence_has_an_end() {
    then_with(
        r#"
  skip-to "\r\n\r\n"
  expect-close
"#,
        r#"
  send "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
  expect
    | HTTP/1.1 504 Gateway Timeout
    | ...
    |
"#,
        |plan| plan.timeouts.head_timeout_ms = 100,
    );
}
