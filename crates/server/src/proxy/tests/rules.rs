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
