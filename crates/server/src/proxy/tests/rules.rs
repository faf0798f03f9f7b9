//! Rules for proxies and gateways that say what must *not* happen to a message, each by its id: what is not of the connection
//! goes on as it came.

use super::*;

/// 9110-11.6.2-01, 9110-13.2.1-03b, 9110-10.1.3-06, 9110-14.2-04, 9110-13.1.1-07, 9110-13.1.4-10, 9110-7.7-02,
/// 9110-7.7-06: credentials, conditions, ranges, Referer and the host are the client's and the server's affair. 9110-7.6.3-10,
/// 9110-7.6.3-11: members of Via are never combined, their comments stay.
#[test]
fn requests_go_on_as_they_came() {
    play(
        r#"
server origin
  expect
    | GET / HTTP/1.1
    | Host: H.Example:81
    | Authorization: Basic b3JpZ2lu
    | Referer: http://H.Example:81/before
    | If-Match: "a", "b"
    | If-None-Match: W/"c"
    | If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT
    | If-Unmodified-Since: yesterday
    | If-Range: "d"
    | Range: parsecs=1-2
    | Cache-Control: no-transform
    | Via: 1.0 fred
    | Via: HTTP/1.1 p.example.net (a comment)
    | Via: 1.1 me
    |
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: H.Example:81\r\nAuthorization: Basic b3JpZ2lu\r\nReferer: http://H.Example:81/before\r\nIf-Match: \"a\", \"b\"\r\nIf-None-Match: W/\"c\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-Unmodified-Since: yesterday\r\nIf-Range: \"d\"\r\nRange: parsecs=1-2\r\nCache-Control: no-transform\r\nVia: 1.0 fred\r\nVia: HTTP/1.1 p.example.net (a comment)\r\n\r\n"
  skip-to "204 No Content"
"#,
    );
}

/// 9110-10.2.1-02, 9110-11.6.1-03, 9110-12.5.5-01, 9110-7.7-04, 9110-7.7-06, 9110-14.4-02, 9110-15.4.5-03,
/// 9110-15.5.20-02, 9110-6.6.1-05: what a server says of itself and of a representation goes on as it came, whatever the
/// status; nothing is made up.
#[test]
fn responses_go_on_as_they_came() {
    for (status, more, content) in [
        ("200 OK", "Content-Encoding: gzip\\r\\nContent-Length: 5\\r\\n", "!gzip"),
        ("206 Partial Content", "Content-Range: parsecs 1-2/9\\r\\nContent-Length: 2\\r\\n", "ab"),
        ("304 Not Modified", "", ""),
        (
            "401 Unauthorized",
            "WWW-Authenticate: Basic realm=\\\"r\\\", Odd a=b\\r\\nContent-Length: 0\\r\\n",
            "",
        ),
        ("405 Method Not Allowed", "Content-Length: 0\\r\\n", ""),
        ("421 Misdirected Request", "Content-Length: 0\\r\\n", ""),
        ("599 Anything", "Content-Length: 2\\r\\n", "ab"),
    ] {
        let lines = more.replace("\\\"", "\"").replace("\\r\\n", "\n");
        let (lengths, others): (Vec<&str>, Vec<&str>) =
            lines.lines().partition(|line| line.starts_with("Content-Length"));
        let shown = |lines: &[&str]| lines.iter().map(|line| format!("    | {line}\n")).collect::<String>();
        play(&format!(
            r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 {status}\r\nDate: yesterday\r\nAllow: GET, brew\r\nVary: Accept, accept\r\nETag: \"a\"\r\nLast-Modified: never\r\nExpires: 0\r\nCache-Control: no-transform\r\nContent-Location: /x\r\nServer: s\r\nRetry-After: soon\r\n{more}\r\n{content}"
client
  send "GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"a\"\r\n\r\n"
  expect
    | HTTP/1.1 {} *
    | Date: yesterday
    | Allow: GET, brew
    | Vary: Accept, accept
    | ETag: "a"
    | Last-Modified: never
    | Expires: 0
    | Cache-Control: no-transform
    | Content-Location: /x
    | Server: s
    | Retry-After: soon
{}    | Via: 1.1 me
{}    |
  expect "{content}"
"#,
            &status[..3],
            shown(&others),
            shown(&lengths),
        ));
    }
}

/// 9110-6.5.1-02, 9112-7.1.2-01: trailers do not become header fields where there is no place for them.
#[test]
fn trailers_are_not_merged_for_old_clients() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 3\r\n\r\n"
client
  send "GET / HTTP/1.0\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Date: Sun, 06 Nov 1994 08:49:37 GMT
    | Trailer: X-Sum
    | Via: 1.1 me
    | Connection: close
    |
  expect "ab"
  expect-close
"#,
    );
}

/// 9110-7.6.2-03: above 0, what goes on is one less, and no more than our own maximum. 9110-7.6.2-04: other methods have
/// no Max-Forwards, so it says nothing and goes on as it came. 9110-7.6.3-03: Via has our pseudonym.
#[test]
fn max_forwards_runs_out() {
    for (method, came, goes) in [
        ("OPTIONS", "1", "0"),
        ("OPTIONS", "5", "4"),
        ("OPTIONS", "71", "70"),
        ("OPTIONS", "72", "70"),
        ("OPTIONS", "99999999999999999999999999", "70"),
        ("GET", "0", "0"),
        ("GET", "72", "72"),
        ("DELETE", "x", "x"),
    ] {
        play(&format!(
            r#"
server origin
  skip-to "{method} / HTTP/1.1\r\n"
  skip-to "Max-Forwards: {goes}\r\n"
  skip-to "Via: 1.1 me\r\n\r\n"
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "{method} / HTTP/1.1\r\nHost: h\r\nMax-Forwards: {came}\r\n\r\n"
  skip-to "204 No Content"
"#
        ));
    }
}

/// 9110-13.2.1-03a: conditions are the server's to evaluate. Whatever it makes of them goes on, also where we could see
/// that they fail.
#[test]
fn conditions_are_not_evaluated_here() {
    for condition in [
        "If-Match: \\\"other\\\"",
        "If-None-Match: \\\"same\\\"",
        "If-None-Match: *",
        "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT",
        "If-Unmodified-Since: Sun, 06 Nov 1993 08:49:37 GMT",
        "Range: bytes=0-0",
    ] {
        play(&format!(
            r#"
server origin
  skip-to "{condition}\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nETag: \"same\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 4\r\n\r\nfull"
client
  send "GET / HTTP/1.1\r\nHost: h\r\n{condition}\r\n\r\n"
  skip-to "HTTP/1.1 200 OK\r\n"
  skip-to "\r\n\r\n"
  expect "full"
"#
        ));
    }
}

/// 9112-9.3.2-07b: of pipelined requests whose server fails, the responses that were received go on, in order; the one
/// that got none and may not be repeated is answered with 502, so the client knows what became of each.
#[test]
fn a_server_that_fails_amid_pipelined_requests() {
    play(
        r#"
server origin
  skip-to "GET /1 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
  skip-to "POST /2 HTTP/1.1\r\n"
  skip-to "hello"
  reset
  accept
  skip-to "GET /3 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree"
client
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /3 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "HTTP/1.1 200 OK\r\n"
  skip-to "\r\n\r\n"
  expect "one"
  skip-to "HTTP/1.1 502 Bad Gateway\r\n"
  skip-to "\r\n\r\n"
  skip-to "HTTP/1.1 200 OK\r\n"
  skip-to "\r\n\r\n"
  expect "three"
"#,
    );
}

/// Fault R35; RFC 9209 §2.3: what is wrong with a response has the most specific name there is (§2.1.1), and the status recommended.
#[test]
fn faults_of_servers_have_their_names() {
    let long = format!("X: {}\r\n", "a".repeat(300_000));
    let many = "X: a\r\n".repeat(2_000);
    for (response, error) in [
        ("hello\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: x-odd, chunked\r\n\r\n", "http_response_transfer_coding"),
        (&format!("HTTP/1.1 200 OK\r\n{long}\r\n"), "http_response_header_section_size"),
        (&format!("HTTP/1.1 200 OK\r\n{many}\r\n"), "http_response_header_section_size"),
        ("HTTP/1.1 200 OK\r\nContent-", "http_response_incomplete"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "http_upgrade_failed"),
        ("", "connection_terminated"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let response = response.to_owned();
        let server = std::thread::spawn(move || {
            // Twice: what is idempotent is tried again.
            for stream in listener.incoming().take(2).map_while(Result::ok) {
                let mut reader = Reader::new(stream);
                let _ = reader.request();
                // It may be refused before its end.
                let _ = reader.get_mut().write_all(response.as_bytes());
            }
        });
        let mut with = plan(&[port]);
        with.attempts_max = 1;
        let front = Front::gateway(with);
        let mut client = front.connect();
        write!(client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").unwrap();
        let answer = Reader::new(client).response("POST").unwrap();
        assert_eq!(answer.status, 502, "{error}");
        assert_eq!(answer.field("proxy-status"), Some(&*format!("me; error={error}")));
        drop(TcpStream::connect(("127.0.0.1", port)));
        drop(front);
        server.join().unwrap();
    }
}

/// A client of the forward proxy does not wait for ever where all connections to a server are in use.
#[test]
fn connections_of_a_forward_proxy_have_a_queue_with_an_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut with = OpenPlan::new("me");
    with.destinations = vec!["127.0.0.0/8".parse().unwrap()];
    with.tell_details = false;
    with.pool.connections_per_origin_max = 1;
    with.timeouts.queue_timeout_ms = 20;
    (with.dial.resolve_timeout_ms, with.dial.connect_timeout_ms, with.dial.tls_timeout_ms) = (1, 2_000, 1);
    let front = Front::forward(with);
    let ask = || {
        let mut client = front.connect();
        write!(client, "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        client
    };
    let first = ask();
    let mut server = Reader::new(listener.accept().unwrap().0);
    server.request().unwrap();
    let answer = Reader::new(ask()).response("GET").unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("proxy-status"), Some("me; error=connection_limit_reached"));
    server.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(Reader::new(first).response("GET").unwrap().status, 200);
}
