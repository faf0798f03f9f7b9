//! Request framing and smuggling over real sockets: rows S and H of the catalogue of faults. Each refusal must be
//! readable and end the connection; no octet behind it may be taken for a request. The rules are decided in
//! `messaging`; here they are seen to hold through sockets, session and handlers.

mod support;

use support::{Row, Server, answered, answered_early, check_rows, ended, refused};

const AFTER: &str = "GET /status/299 HTTP/1.1\r\nHost: after\r\n\r\n";
const AFTER_STATUS: u16 = 299;

/// `POST /` with Host, these field lines, and what follows the head.
fn post(lines: &str, rest: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{rest}").into_bytes()
}

fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked", body)
}

/// As [`post`], for octets that are no text.
fn raw(lines: &[u8], rest: &str) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n", rest.as_bytes()].concat()
}

#[test]
fn lengths_and_codings() {
    let chunk = "5\r\nhello\r\n0\r\n\r\n";
    let smuggled = "GET /status/298 HTTP/1.1\r\nHost: a\r\n\r\n";
    let inside = format!("Content-Length: {}", smuggled.len());
    let rows: Vec<Row> = vec![
        // 9112-6.1-12, 9112-6.1-13, 9112-6.3-03
        refused("S01", &[400], post("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG")),
        refused("S02", &[400], post("Transfer-Encoding: chunked\r\nContent-Length: 4", chunk)),
        refused("S03", &[501], post("Transfer-Encoding: xchunked", "")),
        refused("S03", &[400], post("Transfer-Encoding: cow\r\nContent-Length: 5", "hello")),
        refused("S04", &[400], post("Transfer-Encoding: chunked, identity", chunk)),
        refused("S05", &[400], post("Transfer-Encoding: identity\r\nContent-Length: 5", "hello")),
        refused("S07", &[400], post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", chunk)),
        refused("S08", &[400, 501], post("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", chunk)),
        refused("S09", &[400], post("Transfer-Encoding: chunked, chunked", chunk)),
        refused("S10", &[400], post("Transfer-Encoding: chunked;ext=1", chunk)),
        refused("S11", &[400, 501], post("Transfer-Encoding: \"chunked\"", chunk)),
        refused("S12", &[400], raw(b"Transfer-Encoding: \x0bchunked", chunk)),
        refused("S12", &[400], raw(b"Transfer-Encoding: chunked\x0c", chunk)),
        refused("S12", &[400], raw(b"Transfer-Encoding: chunked\0", chunk)),
        refused("S12", &[400], raw(b"Transfer-Encoding: chunked\xa0", chunk)),
        refused("S12", &[400], raw(b"Transfer-Encoding: chunked\x85", chunk)),
        refused("S13", &[400], post("Transfer-Encoding : chunked", chunk)),
        refused("S13", &[400], post("Transfer-Encoding\t: chunked", chunk)),
        refused("S14", &[400], raw(b"Transfer-Encoding\x85: chunked", chunk)),
        refused("S14", &[400], raw(b"Transfer-Encoding\xa0: chunked", chunk)),
        refused("S14", &[400], raw(b"Transfer-Encoding\0: chunked", chunk)),
        refused("S15", &[400], post("Transfer-Encoding:\r\n chunked", chunk)),
        refused("S16", &[400], post("Transfer-\r\nEncoding: chunked", chunk)),
        // Dropped names frame nothing: these requests have no content.
        answered("S17", &[200], post("Transfer_Encoding: chunked", "")),
        answered("S17", &[200], post("Content_Length: 5", "")),
        refused("S18", &[400], post("X: y\nTransfer-Encoding: chunked", chunk)),
        refused("S19", &[400], post("X: y\rTransfer-Encoding: chunked", chunk)),
        refused("S21", &[400], post("Transfer-Encoding: gzip", "data")),
        refused("S22", &[400], "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        // 9112-6.3-R1: no length, no content; HTTP/1.0 ends with its answer.
        ended("S23", &[200], "POST / HTTP/1.0\r\n\r\ndata"),
        refused("S26", &[400], post("Content-Length: 0\r\nContent-Length: 43", "")),
        refused("S27", &[400], post("Content-Length: 5, 5", "hello")),
        refused("S27", &[400], post("Content-Length: 5\r\nContent-Length: 5", "hello")),
        refused("S28", &[400], post("Content-Length: +5", "hello")),
        refused("S28", &[400], post("Content-Length: -5", "hello")),
        refused("S28", &[400], post("Content-Length: -0", "")),
        refused("S29", &[400], post("Content-Length: 0x5", "hello")),
        refused("S29", &[400], post("Content-Length: 0o5", "hello")),
        refused("S29", &[400], post("Content-Length: 1_0", "hello")),
        refused("S29", &[400], post("Content-Length: 5.0", "hello")),
        answered("S30", &[200], post("Content-Length: 010", "0123456789")),
        answered("S30", &[200], post("Content-Length: \t 5 \t", "hello")),
        refused("S31", &[400], post("Content-Length: 5Z", "hello")),
        refused("S31", &[400], post("Content-Length: 1 5", "hello")),
        refused("S32", &[400], post("Content-Length: ", "")),
        refused("S33", &[400], post("Content-Length: \r\nContent-Length: 43", "")),
        refused("S34", &[400, 413], post("Content-Length: 18446744073709551621", "hello")),
        refused("S34", &[400, 413], post("Content-Length: 9223372036854775813", "hello")),
        refused("S35", &[400], post("Content-Length 5", "hello")),
        refused("S35", &[400], post("Content-Length : 5", "hello")),
        refused("S36", &[400], post("Content-Length: \u{ff15}", "hello")),
        // A body is the request's own, whatever the method and whatever stands in it.
        answered("S38", &[200], post(&inside, smuggled)),
        answered("S43", &[405], format!("DELETE / HTTP/1.1\r\nHost: a\r\n{inside}\r\n\r\n{smuggled}")),
        answered("S44", &[200], format!("GET / HTTP/1.1\r\nHost: a\r\n{inside}\r\n\r\n{smuggled}")),
        answered_early(
            "S39",
            &[204],
            format!(
                "OPTIONS / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
                smuggled.len()
            ),
        ),
        answered("S45", &[200], format!("HEAD / HTTP/1.1\r\nHost: a\r\n{inside}\r\n\r\n{smuggled}")),
        // 9110-10.1.1-01: refused, and the content that follows is still the request's own.
        answered("S47", &[417], get("Expect: y 100-continue\r\nContent-Length: 0")),
        answered("S48", &[417], post("Expect: 100-continue\r\nExpect: x\r\nContent-Length: 4", "body")),
        answered("S46", &[200], post("Expect: 100-continue\r\nContent-Length: 4", "body")),
        refused(
            "S49",
            &[400],
            format!(
                "OPTIONS / HTTP/1.1\r\nHost: a\r\nExpect:\r\n 100-continue\r\n{inside}\r\n\r\n{smuggled}"
            ),
        ),
        answered("S73", &[200], get("Upgrade: TLS/1.0\r\nConnection: upgrade")),
        answered(
            "S72",
            &[200],
            get("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: upgrade, http2-settings"),
        ),
        answered("S88", &[200], post(&format!("{}: x\r\nContent-Length: 5", "n".repeat(256)), "hello")),
        answered(
            "S89",
            &[200, 200],
            [post("Content-Length: 0", ""), post("Content-Length: 5", "hello")].concat(),
        ),
        answered("S20", &[200], gzip_chunked()),
    ];
    check_rows(&Server::echo(&[]), AFTER, AFTER_STATUS, &rows);
}

/// "hello" under the transfer codings gzip and chunked (fault S20, which asks for 501 unless it is implemented).
fn gzip_chunked() -> Vec<u8> {
    let gzip: [u8; 28] = [
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x01, 5, 0, 0xfa, 0xff, b'h', b'e', b'l', b'l', b'o', 0x86, 0xa6,
        0x10, 0x36, 5, 0, 0, 0,
    ];
    [&post("Transfer-Encoding: gzip, chunked", "1c\r\n")[..], &gzip, b"\r\n0\r\n\r\n"].concat()
}

#[test]
fn chunks() {
    let ok = "0\r\n\r\n";
    let mut rows: Vec<Row> = vec![
        answered("9112-7.1-01", &[200], chunked("5\r\nhello\r\n0\r\n\r\n")),
        answered(
            "9112-7.1-01",
            &[200],
            chunked("A;x=y;z=\"q;\\\"\"\r\n0123456789\r\n000\r\nTrailer: x\r\n\r\n"),
        ),
        refused("S51", &[400], chunked("5\nhello\r\n0\r\n\r\n")),
        refused("S52", &[400], chunked("5\r\nhello\n0\r\n\r\n")),
        refused("S53", &[400], chunked("0\r\n\n")),
        refused("S53", &[400], chunked("0\r\nA: b\n\r\n")),
        refused("S54", &[400], chunked("5\rXhello\r\n0\r\n\r\n")),
        refused("S55", &[400], chunked("5\r\nhelloXX0\r\n\r\n")),
        refused("S56", &[400], chunked("5\r\nhello0\r\n\r\n")),
        refused("S57", &[400], chunked("5\r\nhello\r\n\r\n0\r\n\r\n")),
        refused("S59", &[400], chunked("\r\n\r\n")),
        refused("S61", &[400], chunked(&format!("{}5\r\nhello\r\n{ok}", "0".repeat(5000)))),
        refused("S62", &[400], chunked(&format!(" 5\r\nhello\r\n{ok}"))),
        refused("S62", &[400], chunked(&format!("5 \r\nhello\r\n{ok}"))),
        refused("S63", &[400], chunked(&format!("2;\nxx\r\n{ok}"))),
        refused("S64", &[400], chunked(&format!("5;a\rb\r\nhello\r\n{ok}"))),
        refused("S64", &[400], chunked(&format!("5\r\n\r;a\r\nhello{ok}"))),
        refused("S65", &[400], chunked(&format!("5;a=\"x\r\ny\"\r\nhello\r\n{ok}"))),
        refused("S66", &[400], chunked(&format!("5;\0\r\nhello\r\n{ok}"))),
        refused("S69", &[400], chunked("0\r\nXXGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        refused("S90", &[400], chunked("ZZ\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")),
    ];
    for size in ["0x5", "+5", "-5", "0_5", "5h", "g"] {
        rows.push(refused("S58", &[400], chunked(&format!("{size}\r\nhello\r\n{ok}"))));
    }
    // 9112-7.1-03
    for size in ["10000000000000005", "10000000000000000", "fffffffffffffffff"] {
        rows.push(refused("S60", &[400], chunked(&format!("{size}\r\nhello\r\n{ok}"))));
    }
    for name in [
        "Content-Length: 40",
        "Transfer-Encoding: chunked",
        "Host: b",
        "Authorization: x",
        "Connection: close",
    ] {
        // Thrown away: it neither frames nor authorises what follows.
        rows.push(answered("S68", &[200], chunked(&format!("5\r\nhello\r\n0\r\n{name}\r\n\r\n"))));
    }
    check_rows(&Server::echo(&[]), AFTER, AFTER_STATUS, &rows);
}

#[test]
fn heads() {
    let rows: Vec<Row> = vec![
        // 9110-9.3.6-02
        refused("S76", &[400], "CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("S76", &[400], "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 5\r\n\r\nhello"),
        // 9110-9.3.6-R1: no tunnels here, and nothing behind the refusal is read.
        refused("S75", &[405, 501, 404, 403], "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        refused("S77", &[400], "GET / HTTP/1.1\r\nHost: a\r\n\rZGET /evil: x\r\n\r\n"),
        refused("S78", &[400], "GET / HTTP/1.1\nHost: a\n\n"),
        // 9112-2.2-07
        answered("S79", &[200], "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("D22", &[400], format!("{}GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n".repeat(200))),
        refused("S80", &[400], get("X: y\r\n z")),
        refused("S80", &[400], get("X: y\r\n\tz")),
        // 9112-2.2-09
        refused("S80", &[400], "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n"),
        refused("S81", &[400], get("foo")),
        refused("S81", &[400], get(": x")),
        refused("S81", &[400], get("X Y: z")),
        // 9110-5.5-04
        refused("S82", &[400], get("X: a\0b")),
        refused("S82", &[400], get("X: a\x01b")),
        refused("S82", &[400], get("X: a\x7fb")),
        refused("S82", &[400], get("X: a\x1b[2J")),
        answered("9110-5.5-03", &[200], raw(b"X: \xe9\xff", "")),
        answered("9110-5.5-05", &[200], get("X: a\tb")),
        refused("S83", &[400], raw(b"X\xef: y", "")),
        refused("S84", &[400, 505], "GET /\r\n"),
        answered("S85", &[200], "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        answered("S85", &[200], "GET / HTTP/1.9\r\nHost: a\r\n\r\n"),
        refused("S85", &[400], "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
        refused("S85", &[400], "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
        refused("S85", &[400], "GET / HTTP/1\r\nHost: a\r\n\r\n"),
        refused("S85", &[400], "GET / http/1.1\r\nHost: a\r\n\r\n"),
        refused("S85", &[400], "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        refused("S85", &[505], "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        refused("S85", &[400, 505], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        refused("S86", &[400], "G=\":<>(e) / HTTP/1.1\r\nHost: a\r\n\r\n"),
        // 9110-9.1-01, 9110-9.1-03, 9110-9.1-04
        answered("S86", &[501], "PROPFINDX / HTTP/1.1\r\nHost: a\r\n\r\n"),
        answered("S86", &[501], "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
        answered("S86", &[405], "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("S87", &[400], "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("S87", &[400], "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("S87", &[400], "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("S87", &[400], "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        refused("S87", &[400], " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        refused("A20", &[400], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        // 9112-9.6-03, 9112-9.3-01: what ends a connection.
        ended("9112-9.6-03", &[200], get("Connection: close")),
        ended("9112-9.6-03", &[200], get("Connection: x, Close")),
        ended("9112-9.3-01", &[200], "GET / HTTP/1.0\r\n\r\n"),
        answered("9112-9.3-01", &[200], "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
    ];
    check_rows(&Server::echo(&[]), AFTER, AFTER_STATUS, &rows);
}

#[test]
fn hosts_and_targets() {
    let host = |value: &str| format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
    let target = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut rows: Vec<Row> = vec![
        refused("H01", &[400], "GET / HTTP/1.1\r\n\r\n"),
        answered("H01", &[200], "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        refused("H02", &[400], "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        refused("H02", &[400], "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        refused("H02", &[400], "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        refused("H05", &[400], "GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n"),
        refused("H05", &[400], host("a\0.evil")),
        // 9112-3.2.2-01: the target wins over Host.
        answered("H06", &[200], "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
        answered("H10", &[200], host("A.EXAMPLE.:80")),
        answered("H12", &[200], get("X-Original-URL: /status/298\r\nX-Rewrite-URL: /status/298")),
        answered("H25", &[200], get("X-HTTP-Method-Override: DELETE")),
        answered("H13", &[204], "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for value in
        ["a, b", "a@evil", "a/evil", "###", "a b", "a:x", "a:99999999", "[::1", "[::g]", "a\\b", "a,b:80"]
    {
        rows.push(refused("H04", &[400], host(value)));
    }
    for value in ["a", "a:80", "a:", "127.0.0.1:8080", "[::1]", "[::1]:80", "xn--a", "a_b", "%41"] {
        rows.push(answered("H04", &[200], host(value)));
    }
    for bad in [
        "*",
        "a",
        "@evil/x",
        "/a#b",
        "/a\x01b",
        "/a b",
        "/%zz",
        "/%",
        "/\u{e9}",
        "//\0",
        "http:///x",
        "foo://h/",
        "gopher://h/",
        "file:///x",
    ] {
        rows.push(refused("H16", &[400], target(bad)));
    }
    check_rows(&Server::echo(&[]), AFTER, AFTER_STATUS, &rows);
}
