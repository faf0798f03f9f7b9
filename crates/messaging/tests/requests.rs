//! Requests as a server must read them: RFC 9112 §2 to §6 and the rows of the fault catalogue, with as many
//! refusals as acceptances. Every row is delivered whole, octet by octet, and split at every place.

mod common;

use common::serve;
use eleven_messaging::{Config, Limits, Options};
use eleven_testkit::deliver::deliver;
use eleven_testkit::rng::Rng;
use std::sync::Arc;

/// What a server made of `bytes`, however they were cut.
#[track_caller]
fn seen_with(config: &Config, bytes: &[u8]) -> String {
    let config = Arc::new(config.clone());
    deliver(bytes, |pieces| serve(&config, pieces)).trim_end().to_owned()
}

#[track_caller]
fn seen(bytes: &[u8]) -> String {
    seen_with(&Config::default(), bytes)
}

/// Each row: its ids, the octets, and the last line of the transcript (a prefix of it).
#[track_caller]
fn check_last(rows: &[(&str, &[u8], &str)]) {
    let mut wrong = Vec::new();
    for (what, bytes, expected) in rows {
        let seen = seen(bytes);
        let last = seen.lines().last().unwrap_or_default();
        if last != *expected {
            wrong.push(format!("{what}: expected {expected:?}, saw\n{seen}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// As [`check_last`], for the whole transcript.
#[track_caller]
fn check_all(config: &Config, rows: &[(&str, &[u8], &str)]) {
    for (what, bytes, expected) in rows {
        assert_eq!(seen_with(config, bytes), expected.trim(), "{what}");
    }
}

/// A request with these lines after the request line, and nothing else.
fn post(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

#[test]
fn request_lines() {
    check_last(&[
        ("9112-2.3-R1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "closed"),
        ("9112-3-R1: the case of a method counts", b"get / HTTP/1.1\r\nHost: a\r\n\r\n", "closed"),
        ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", "closes: old-version"),
        ("9110-6.2-06, S85: a higher minor version is 1.1", b"GET / HTTP/1.9\r\nHost: a\r\n\r\n", "closed"),
        (
            "S85: a higher major version",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "refused 505 version-unsupported",
        ),
        ("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "refused 505 version-unsupported"),
        ("S85", b"GET / HTTP/0.9\r\n\r\n", "refused 505 version-unsupported"),
        ("S85", b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S85", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S85", b"GET / HTTP/1\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S85", b"GET / http/1.1\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S85", b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S85", b"GET / HTTP/+1.1\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S84: HTTP/0.9 is off", b"GET /\r\n", "refused 400 request-line"),
        ("S86: not a token", b"G=\":<>(e) / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 method"),
        ("S86", b"GET\x00 / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 method"),
        ("S87, 9112-3-01", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 request-line"),
        ("S87", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 request-line"),
        ("S87", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S87, 9112-3.2-R1", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S87", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 request-line"),
        ("S87", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", "refused 400 version"),
        ("S78, 9112-2.2-02", b"GET / HTTP/1.1\nHost: a\n\n", "refused 400 bare-lf"),
        ("9112-2.2-04", b"GET / HTTP/1.1\rHost: a\r\n\r\n", "refused 400 version"),
        ("9112-2.2-04", b"GET\r/\r\n\r\n", "refused 400 bare-cr"),
        ("nothing", b"", "closed"),
        ("no request line", b"\x00\x00", "refused 400 not-http"),
        ("A20: TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00", "refused 400 not-http"),
        ("9112-2.2-10", b"\"hello\"\r\n\r\n", "refused 400 method"),
        (
            "9112-2.2-01: a byte-order mark is no text",
            b"\xef\xbb\xbfGET / HTTP/1.1\r\n\r\n",
            "refused 400 not-http",
        ),
        ("9112-2.2-07, S79: one empty line is skipped", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "closed"),
        ("D22: not more", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 empty-lines"),
        ("bare LF is no empty line", b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 bare-lf"),
        ("CR is no empty line", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 bare-cr"),
        ("9112-8-01: cut in the request line", b"GET / HT", "refused 400 head-cut"),
        ("9112-8-01: cut in the fields", b"GET / HTTP/1.1\r\nHost: a\r\n", "refused 400 head-cut"),
        ("9112-8-01: cut before the last LF", b"GET / HTTP/1.1\r\nHost: a\r\n\r", "refused 400 head-cut"),
    ]);
}

#[test]
fn targets_and_hosts() {
    check_last(&[
        ("9112-3.2.2-06: absolute-form", b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "closed"),
        ("9112-3.2.4-R1: asterisk-form", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "closed"),
        ("H13, 9110-7.1-01", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H14", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H14", b"GET @evil/x HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H15", b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H16, 9112-3.2-01", b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H16, 9112-3.2-02", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H16", b"GET /a\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H07", b"GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("H07", b"GET file:///etc HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("9112-3.2.3-R1, 9110-7.1-01", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("9112-3.2.3-R1", b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        ("S76: a bad port", b"CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n", "refused 400 target"),
        (
            "S76: content",
            b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "refused 400 connect-content",
        ),
        ("9112-3.3-01: an empty Host is one", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "closed"),
        ("H01, 9112-3.2-06a", b"GET / HTTP/1.1\r\n\r\n", "refused 400 host-missing"),
        ("H02, 9112-3.2-06b", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "refused 400 host-repeated"),
        ("H02: the same twice", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "refused 400 host-repeated"),
        (
            "H02: found before a later fault",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nx y: z\r\n\r\n",
            "refused 400 host-repeated",
        ),
        (
            "H02: in HTTP/1.0 too",
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            "refused 400 host-repeated",
        ),
        ("H03", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", "refused 400 host-invalid"),
        ("H04, 9112-3.2-06c", b"GET / HTTP/1.1\r\nHost: a@evil\r\n\r\n", "refused 400 host-invalid"),
        ("H04", b"GET / HTTP/1.1\r\nHost: a/evil\r\n\r\n", "refused 400 host-invalid"),
        ("H04", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "refused 400 host-invalid"),
        ("H04", b"GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n", "refused 400 host-invalid"),
        ("H04", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "refused 400 host-invalid"),
        ("H05", b"GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", "refused 400 obs-fold"),
        ("H05", b"GET / HTTP/1.1\r\nHost: a\x00.evil\r\n\r\n", "refused 400 field-value"),
        (
            "X24",
            b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nAuthorization: y\r\n\r\n",
            "refused 400 field-repeated",
        ),
    ]);
}

#[test]
fn field_lines() {
    let lf_hidden = post("X: y\nTransfer-Encoding: chunked\r\n");
    let cr_hidden = post("X: y\rTransfer-Encoding: chunked\r\n");
    check_last(&[
        ("9110-5.5-01: OWS is not part of the value", &post("X: \t y \t\r\n"), "closed"),
        ("9110-5.5-04: obs-text and HTAB are", &post("X: a\tb \u{e9}\r\n"), "closed"),
        ("an empty value", &post("X:\r\n"), "closed"),
        ("S81, 9112-5-R1", &post("foo\r\n"), "refused 400 field-name"),
        ("S81", &post(": x\r\n"), "refused 400 field-name"),
        ("S81, 9110-5.1-R2", &post("X Y: z\r\n"), "refused 400 field-name"),
        ("S35", &post("Content-Length 5\r\n"), "refused 400 field-name"),
        ("S83", &post("X\u{ef}: y\r\n"), "refused 400 field-name"),
        ("S82", &post("X: a\x00b\r\n"), "refused 400 field-value"),
        ("S82", &post("X: a\x7fb\r\n"), "refused 400 field-value"),
        ("S82", &post("X: a\x1bb\r\n"), "refused 400 field-value"),
        ("S13, 9112-5.1-01", &post("Transfer-Encoding : chunked\r\n"), "refused 400 space-before-colon"),
        ("S13", &post("Transfer-Encoding\t: chunked\r\n"), "refused 400 space-before-colon"),
        ("S35", &post("Content-Length : 5\r\n"), "refused 400 space-before-colon"),
        ("S14", &post("Transfer-Encoding\u{a0}: chunked\r\n"), "refused 400 field-name"),
        ("S14", &post("Transfer-Encoding\x00: chunked\r\n"), "refused 400 field-name"),
        ("S15, S80, 9112-5.2-02", &post("Transfer-Encoding:\r\n chunked\r\n"), "refused 400 obs-fold"),
        ("S80", &post("X: y\r\n\tz\r\n"), "refused 400 obs-fold"),
        ("S49", b"OPTIONS / HTTP/1.1\r\nHost: a\r\nExpect:\r\n 100-continue\r\n\r\n", "refused 400 obs-fold"),
        ("S16", &post("Transfer-\r\nEncoding: chunked\r\n"), "refused 400 field-name"),
        ("S18", &lf_hidden, "refused 400 bare-lf"),
        ("S19", &cr_hidden, "refused 400 bare-cr"),
        ("S77", b"GET / HTTP/1.1\r\nHost: a\r\n\rZGET /evil: x\r\n\r\n", "refused 400 bare-cr"),
        ("9112-2.2-09", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "refused 400 obs-fold"),
        ("a CR before CRLF", &post("X: y\r\r\n"), "refused 400 bare-cr"),
        ("a bare LF ends nothing", b"GET / HTTP/1.1\r\nHost: a\r\n\n", "refused 400 bare-lf"),
    ]);
}

/// Faults S17, H18: names that read as a framing field once `_` is `-` are dropped, unless the option keeps them.
#[test]
fn underscore_names() {
    let bytes =
        b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nX_Y: z\r\n\r\n";
    assert_eq!(seen(bytes).lines().next().unwrap(), "GET / HTTP/1.1 [Host: a\\r\\nX_Y: z\\r\\n] none");
    let options = Options { keep_underscore_names: true, ..Options::default() };
    assert_eq!(
        seen_with(&Config { options, ..Config::default() }, bytes).lines().next().unwrap(),
        "GET / HTTP/1.1 [Host: a\\r\\nContent_Length: 5\\r\\nTransfer_Encoding: chunked\\r\\nX_Y: z\\r\\n] none"
    );
}

/// 9112-2.1-R1: the framing decision of RFC 9112 §6.3 for requests, from the whole field section.
#[test]
fn framing() {
    let with = |lines: &str, body: &str| [post(lines), body.as_bytes().to_vec()].concat();
    let chunked = "5\r\nhello\r\n0\r\n\r\n";
    check_last(&[
        ("9112-6.3-R6, S23: no length, no body", &with("", ""), "closed"),
        ("9112-6.3-R5", &with("Content-Length: 5\r\n", "hello"), "closed"),
        ("S30: leading zeros are decimal", &with("Content-Length: 0005\r\n", "hello"), "closed"),
        ("white space around a length", &with("Content-Length: \t 5 \t\r\n", "hello"), "closed"),
        ("zero", &with("Content-Length: 0\r\n", ""), "closed"),
        ("9112-6.1-01, 9112-7.1-02", &with("Transfer-Encoding: chunked\r\n", chunked), "closed"),
        ("9112-7-R1", &with("Transfer-Encoding: ChunKed\r\n", chunked), "closed"),
        ("S06: empty list members", &with("Transfer-Encoding: ,chunked,\r\n", chunked), "closed"),
        (
            "an empty line of the list",
            &with("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", chunked),
            "closed",
        ),
        (
            "S01, 9112-6.1-12",
            &with("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\nG"),
            "refused 400 length-and-coding",
        ),
        (
            "S02, 9112-6.3-R3",
            &with("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "5c\r\n"),
            "refused 400 length-and-coding",
        ),
        ("S03, 9112-6.1-09", &with("Transfer-Encoding: cow\r\n", ""), "refused 501 coding-unknown"),
        ("S03", &with("Transfer-Encoding: xchunked\r\n", ""), "refused 501 coding-unknown"),
        (
            "S04, 9112-6.3-03",
            &with("Transfer-Encoding: chunked, identity\r\n", ""),
            "refused 400 chunked-not-last",
        ),
        ("S04", &with("Transfer-Encoding: chunked, gzip\r\n", ""), "refused 400 chunked-not-last"),
        ("S05", &with("Transfer-Encoding: identity\r\n", ""), "refused 400 transfer-encoding"),
        (
            "S07",
            &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""),
            "refused 400 transfer-encoding",
        ),
        (
            "S08",
            &with("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n", ""),
            "refused 400 chunked-not-last",
        ),
        (
            "S08",
            &with("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n", ""),
            "refused 501 coding-unknown",
        ),
        (
            "S09, 9112-6.1-02",
            &with("Transfer-Encoding: chunked, chunked\r\n", ""),
            "refused 400 transfer-encoding",
        ),
        (
            "S10, 9112-7.1-04",
            &with("Transfer-Encoding: chunked;ext=1\r\n", ""),
            "refused 400 transfer-encoding",
        ),
        (
            "9112-7.2-01",
            &with("Transfer-Encoding: gzip;level=9, chunked\r\n", ""),
            "refused 400 transfer-encoding",
        ),
        ("S11", &with("Transfer-Encoding: \"chunked\"\r\n", ""), "refused 400 transfer-encoding"),
        ("S12", &with("Transfer-Encoding: \x0bchunked\r\n", ""), "refused 400 field-value"),
        ("S12", &with("Transfer-Encoding: chunked\u{a0}\r\n", ""), "refused 400 transfer-encoding"),
        ("S12", &with("Transfer-Encoding: chunked\x0c\r\n", ""), "refused 400 field-value"),
        ("an empty coding", &with("Transfer-Encoding:\r\n", ""), "refused 400 transfer-encoding"),
        (
            "an empty coding does not fall back to a length",
            &with("Transfer-Encoding:\r\nContent-Length: 5\r\n", "hello"),
            "refused 400 length-and-coding",
        ),
        ("S21", &with("Transfer-Encoding: gzip\r\n", ""), "refused 400 chunked-not-last"),
        (
            "S20: gzip twice",
            &with("Transfer-Encoding: gzip, gzip, chunked\r\n", ""),
            "refused 501 coding-unknown",
        ),
        (
            "S22, 9112-6.1-14",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "refused 400 coding-in-1.0",
        ),
        (
            "S26, 9112-6.3-05",
            &with("Content-Length: 0\r\nContent-Length: 43\r\n", ""),
            "refused 400 content-length",
        ),
        ("S27", &with("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), "refused 400 content-length"),
        ("S27", &with("Content-Length: 5, 5\r\n", "hello"), "refused 400 content-length"),
        ("S28", &with("Content-Length: +5\r\n", "hello"), "refused 400 content-length"),
        ("S28", &with("Content-Length: -5\r\n", "hello"), "refused 400 content-length"),
        ("S28", &with("Content-Length: -0\r\n", ""), "refused 400 content-length"),
        ("S29", &with("Content-Length: 0x5\r\n", "hello"), "refused 400 content-length"),
        ("S29", &with("Content-Length: 0o5\r\n", "hello"), "refused 400 content-length"),
        ("S29", &with("Content-Length: 1_0\r\n", "hello"), "refused 400 content-length"),
        ("S29", &with("Content-Length: 5.0\r\n", "hello"), "refused 400 content-length"),
        ("S31", &with("Content-Length: 5Z\r\n", "hello"), "refused 400 content-length"),
        ("S31", &with("Content-Length: 1 5\r\n", "hello"), "refused 400 content-length"),
        ("S32", &with("Content-Length:\r\n", ""), "refused 400 content-length"),
        ("S33", &with("Content-Length:\r\nContent-Length: 43\r\n", ""), "refused 400 content-length"),
        (
            "S34, 9110-8.6-08",
            &with("Content-Length: 18446744073709551621\r\n", ""),
            "refused 400 content-length",
        ),
        ("S34: 2^64", &with("Content-Length: 18446744073709551616\r\n", ""), "refused 400 content-length"),
        (
            "the largest length there is",
            &with("Content-Length: 18446744073709551615\r\n", "x"),
            "refused 400 body-cut",
        ),
        ("S36", &with("Content-Length: \u{ff15}\r\n", ""), "refused 400 content-length"),
        (
            "S44, 9112-6-R1: content with GET",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            "closed",
        ),
        (
            "S24: framing is not hop-by-hop",
            &with("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", chunked),
            "closed",
        ),
        ("S25", &with("Connection: Content-Length\r\nContent-Length: 5\r\n", "hello"), "closed"),
        ("9112-6.3-08: cut", &with("Content-Length: 5\r\n", "hell"), "refused 400 body-cut"),
        (
            "9112-8-R1: no last chunk",
            &with("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
            "refused 400 body-cut",
        ),
        ("9112-8-R1: no last CRLF", &with("Transfer-Encoding: chunked\r\n", "0\r\n"), "refused 400 body-cut"),
    ]);
}

/// The chunked coding, RFC 9112 §7.1.
#[test]
fn chunked_bodies() {
    let long_zeros = format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(15));
    let too_many_zeros = format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(16));
    let long_extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(4096));
    let long_quoted = format!("5;a=\"{}\"\r\nhello\r\n0\r\n\r\n", "\\\"".repeat(2000));
    let overlong = format!("5;{}", "a".repeat(4096));
    let rows: &[(&str, &str, &str)] = &[
        ("9112-7.1-R2", "5\r\nhello\r\n0\r\n\r\n", "closed"),
        ("9112-7.1-R1: both cases", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "closed"),
        ("9112-7.1-R2: several zeros", "5\r\nhello\r\n000\r\n\r\n", "closed"),
        ("sixteen digits", &long_zeros, "closed"),
        ("9112-7.1.1-01: extensions are ignored", "5;a;b=c;d=\"e\\\"f\"\r\nhello\r\n0;g\r\n\r\n", "closed"),
        (
            "white space that the grammar calls bad, and allows",
            "5 ; a = b ;c\r\nhello\r\n0\r\n\r\n",
            "closed",
        ),
        ("a quoted string up to the limit", &long_quoted, "closed"),
        ("9112-7.1-01: trailers", "0\r\nX: y\r\n\r\n", "closed"),
        ("S51", "5\nhello\r\n0\r\n\r\n", "refused 400 bare-lf"),
        ("S52", "5\r\nhello\n0\r\n\r\n", "refused 400 bare-lf"),
        ("S53", "0\r\n\n", "refused 400 bare-lf"),
        ("S53", "0\r\nA: b\n\r\n", "refused 400 bare-lf"),
        ("S54", "5\rXhello\r\n0\r\n\r\n", "refused 400 bare-cr"),
        ("S55", "5\r\nhelloXX0\r\n\r\n", "refused 400 chunk-end"),
        ("S55: CR and another octet", "5\r\nhello\rX0\r\n\r\n", "refused 400 chunk-end"),
        ("S56", "5\r\nhello0\r\n\r\n", "refused 400 chunk-end"),
        ("S57", "5\r\nhello\r\n\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S58", "0x5\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S58", "+5\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S58", "-5\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S58", "0_5\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S59", "\r\n\r\n", "refused 400 chunk-size"),
        ("S60, 9112-7.1-03: 2^64", "10000000000000000\r\n", "refused 400 chunk-size"),
        ("S60", "10000000000000005\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S60: 2^64 - 1 is a number, and a long body", "ffffffffffffffff\r\nhello", "refused 400 body-cut"),
        ("S60: 2^63", "8000000000000000\r\nhello", "refused 400 body-cut"),
        ("S60, 9112-7.1-03: 2^32 + 5 is not 5", "100000005\r\nhello\r\n0\r\n\r\n", "refused 400 body-cut"),
        ("S61", &too_many_zeros, "refused 400 chunk-size"),
        ("S62", " 5\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S62", "5 \r\nhello\r\n0\r\n\r\n", "refused 400 chunk-size"),
        ("S63", "2;\nxx\r\n0\r\n\r\n", "refused 400 bare-lf"),
        ("a name is needed", "2;\r\nxx\r\n0\r\n\r\n", "refused 400 chunk-extension"),
        ("a value is needed", "2;a=\r\nxx\r\n0\r\n\r\n", "refused 400 chunk-extension"),
        ("S64", "5;a\rb\r\nhello\r\n0\r\n\r\n", "refused 400 bare-cr"),
        ("S64", "5\r\r;a\r\nhello\r\n0\r\n\r\n", "refused 400 bare-cr"),
        ("S65", "5;a=\"x\r\ny\"\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-extension"),
        ("S66", "5;\0\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-extension"),
        ("S66", "5;a=\"\0\"\r\nhello\r\n0\r\n\r\n", "refused 400 chunk-extension"),
        ("D19, 9112-7.1.1-R1", &long_extension, "refused 400 chunk-extensions-too-large"),
        ("D19: without an end", &overlong, "refused 400 chunk-extensions-too-large"),
        ("S69", "0\r\nXXGET / HTTP/1.1\r\n\r\n", "refused 400 field-name"),
        (
            "S90: a fault is final",
            "Z\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "refused 400 chunk-size",
        ),
        ("9112-2.2-09 in trailers", "0\r\n X: y\r\n\r\n", "refused 400 obs-fold"),
        ("S82 in trailers", "0\r\nX: \0\r\n\r\n", "refused 400 field-value"),
    ];
    let rows: Vec<(&str, Vec<u8>, &str)> = rows
        .iter()
        .map(|(what, body, last)| {
            (*what, [post("Transfer-Encoding: chunked\r\n"), body.as_bytes().to_vec()].concat(), *last)
        })
        .collect();
    let rows: Vec<(&str, &[u8], &str)> = rows.iter().map(|(w, b, l)| (*w, &b[..], *l)).collect();
    check_last(&rows);
}

/// Fault S68, 9110-6.5.1: forbidden trailers are left out; 9112-7.1.2-02, 9112-7.1.2-03: the others stay apart.
#[test]
fn trailers() {
    check_all(
        &Config::default(),
        &[(
            "S68",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
              2\r\nhi\r\n0\r\nContent-Length: 40\r\nX-Sum: 1\r\nHost: b\r\nAuthorization: c\r\nContent_Length: 4\r\n\r\n",
            "POST / HTTP/1.1 [Host: a\\r\\nTransfer-Encoding: chunked\\r\\n] chunked\n\
             data hi\nend trailers X-Sum: 1\\r\\n\nclosed",
        )],
    );
}

/// Fault S89, 9112-9.3.2-02b, 9112-2.1-R1: where a request ends does not depend on how its octets come.
#[test]
fn pipelined_requests() {
    check_all(
        &Config::default(),
        &[
            (
                "S89",
                b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
                  GET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
                  \r\nPOST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
                  GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\n",
                "POST /1 HTTP/1.1 [Host: a\\r\\nContent-Length: 2\\r\\n] length 2\ndata hi\nend\n\
                 GET /2 HTTP/1.1 [Host: a\\r\\n] none\n\
                 POST /3 HTTP/1.1 [Host: a\\r\\nTransfer-Encoding: chunked\\r\\n] chunked\ndata x\nend\n\
                 GET /4 HTTP/1.1 [Host: a\\r\\nConnection: close\\r\\n] none\n\
                 closes: client-asked",
            ),
            (
                "9112-9.3-R1: 1.0 with keep-alive persists, without does not",
                b"GET /1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
                "GET /1 HTTP/1.0 [Connection: Keep-Alive\\r\\n] none\nGET /2 HTTP/1.0 [] none\n\
                 closes: old-version",
            ),
            (
                "9112-9.6-05: close beats keep-alive",
                b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
                "GET /1 HTTP/1.1 [Host: a\\r\\nConnection: keep-alive, close\\r\\n] none\ncloses: client-asked",
            ),
            (
                "S70: what follows an offered switch waits",
                b"GET /1 HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
                "GET /1 HTTP/1.1 [Host: a\\r\\nUpgrade: echo\\r\\nConnection: Upgrade\\r\\n] none\n\
                 might switch before \"GET /2 HTTP/1.1\\\\r\\\\n\\\\r\\\\n\"",
            ),
            (
                "Upgrade without its connection option is not for us",
                b"GET /1 HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\n\r\n",
                "GET /1 HTTP/1.1 [Host: a\\r\\nUpgrade: echo\\r\\n] none\nclosed",
            ),
            (
                "S71: content comes before the switch",
                b"POST /1 HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nhirest",
                "POST /1 HTTP/1.1 [Host: a\\r\\nUpgrade: echo\\r\\nConnection: upgrade\\r\\nContent-Length: 2\\r\\n] length 2\n\
                 data hi\nend\nmight switch before \"rest\"",
            ),
        ],
    );
}

/// 9110-10.1.1-01, 9110-10.1.1-07; faults S46 to S48.
#[test]
fn expectations() {
    let with = |lines: &str, version: &str| {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\nhi");
        seen(bytes.as_bytes()).lines().next().unwrap().split_once("] ").unwrap().1.to_owned()
    };
    for (lines, version, expected) in [
        ("Content-Length: 2\r\nExpect: 100-continue\r\n", "1.1", "length 2 expects 100"),
        ("Content-Length: 2\r\nExpect: 100-Continue\r\n", "1.1", "length 2 expects 100"),
        ("Content-Length: 0\r\nExpect: 100-continue\r\n", "1.1", "length 0"),
        ("Expect: 100-continue\r\n", "1.1", "none"),
        ("Content-Length: 2\r\nExpect: 100-continue\r\n", "1.0", "length 2"),
        ("Content-Length: 2\r\nExpect: y 100-continue\r\n", "1.1", "length 2 expects the unknown"),
        ("Content-Length: 2\r\nExpect: 100-continue\r\nExpect: x\r\n", "1.1", "length 2 expects the unknown"),
        ("Content-Length: 2\r\nExpect: 100-continue, x\r\n", "1.1", "length 2 expects the unknown"),
    ] {
        assert_eq!(with(lines, version), expected, "{lines:?}");
    }
}

/// Small limits, each passed by one octet or line, and met exactly. The refusal is the same however the octets
/// come, even if another fault stands behind the limit. Faults D11, D12, D14, D15, D21; 9110-5.4-01, 9112-3-02,
/// 9112-3-03.
#[test]
fn limits() {
    let limits = Limits {
        method_bytes_max: 8,
        target_bytes_max: 10,
        field_section_bytes_max: 40,
        field_lines_max: 3,
        trailer_section_bytes_max: 20,
        trailer_lines_max: 2,
        chunk_extension_bytes_max: 10,
        chunk_overhead_free_bytes: 64,
        chunk_overhead_ratio_max: 2,
        pipelined_requests_max: 2,
        ..Limits::default()
    };
    let config = Config { limits, ..Config::default() };
    let chunked =
        |body: &str| format!("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:chunked\r\n\r\n{body}");
    let many_chunks = "1\r\nx\r\n".repeat(60);
    for (what, bytes, expected) in [
        ("a method of 8", "ABCDEFGH / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "closed"),
        (
            "D15: a method of 9",
            "ABCDEFGHI / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "refused 501 method-too-long",
        ),
        ("D15: without end", "ABCDEFGHIJKLMNOPQRS".to_owned(), "refused 501 method-too-long"),
        ("D15: and no token", "ABCDEFG@IJKLMNOPQRS".to_owned(), "refused 400 method"),
        (
            "D15: and no token behind it",
            "ABCDEFGHIJK@LMNOPQRS / x\r\n".to_owned(),
            "refused 501 method-too-long",
        ),
        ("D15: and a bare LF behind it", "ABCDEFGHIJKLMNO\n".to_owned(), "refused 501 method-too-long"),
        ("no request line of 8", "ABCDEFGH\r\n".to_owned(), "refused 400 request-line"),
        ("no request line of 9", "ABCDEFGHI\r\n".to_owned(), "refused 501 method-too-long"),
        ("a target of 10", "GET /234567890 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "closed"),
        (
            "D14: a target of 11",
            "GET /2345678901 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "refused 414 target-too-long",
        ),
        (
            "D14: with a bad version",
            "GET /2345678901 HTTP/9\r\n\r\n".to_owned(),
            "refused 414 target-too-long",
        ),
        ("D14: without end", "GET /2345678901".to_owned(), "refused 414 target-too-long"),
        ("D14: and a bare LF behind it", "GET /23456789012345\n".to_owned(), "refused 414 target-too-long"),
        ("D14: after a bad method", "G@T /2345678901".to_owned(), "refused 400 method"),
        ("a version without end", "GET / HTTP/1.1xxxxxxxx".to_owned(), "refused 400 version"),
        ("a version and a bare LF", "GET / HTTP/1.1xxxxxx\n".to_owned(), "refused 400 version"),
        ("a section of 40", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(26)), "closed"),
        (
            "D12: a section of 41",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(27)),
            "refused 431 field-section-too-large",
        ),
        (
            "D21: without end",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(90)),
            "refused 431 field-section-too-large",
        ),
        (
            "D12: and a bad name",
            format!("GET / HTTP/1.1\r\nHost: a\r\n@: {}\r\n\r\n", "x".repeat(90)),
            "refused 431 field-section-too-large",
        ),
        (
            "D12: and a bare LF behind it",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\n\r\n", "x".repeat(90)),
            "refused 431 field-section-too-large",
        ),
        (
            "D12: and a CR at the limit",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\rx\r\n", "x".repeat(26)),
            "refused 431 field-section-too-large",
        ),
        (
            "a fault before the limit",
            format!("GET / HTTP/1.1\r\nHost@: a\r\nX: {}\r\n\r\n", "x".repeat(90)),
            "refused 400 field-name",
        ),
        ("three lines", "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\n\r\n".to_owned(), "closed"),
        (
            "D11: four lines",
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nE: f\r\n\r\n".to_owned(),
            "refused 431 too-many-fields",
        ),
        (
            "D11: and Host again",
            "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\r\nHost: f\r\n\r\n".to_owned(),
            "refused 431 too-many-fields",
        ),
        (
            "D20: trailers of 21",
            chunked("0\r\nA: 3456789\r\nB: 5678\r\n\r\n"),
            "refused 431 trailers-too-large",
        ),
        ("trailers of 20", chunked("0\r\nA: 345678\r\nB: 5678\r\n\r\n"), "closed"),
        ("D20: without end", chunked("0\r\nA: 3456789012345678901"), "refused 431 trailers-too-large"),
        ("D20: and a bad name", chunked("0\r\n@: 3456789012345678901\r\n"), "refused 431 trailers-too-large"),
        (
            "D20: and a CR at the limit",
            chunked("0\r\nA: 345678\r\nB: 5678\r\n\rx"),
            "refused 431 trailers-too-large",
        ),
        ("two trailers", chunked("0\r\nA: b\r\nC: d\r\n\r\n"), "closed"),
        (
            "D20: three trailers",
            chunked("0\r\nA: b\r\nC: d\r\nE: f\r\n\r\n"),
            "refused 431 trailers-too-large",
        ),
        (
            "D20: three trailers, dropped ones",
            chunked("0\r\nTE:\r\nTE:\r\nTE:\r\n\r\n"),
            "refused 431 trailers-too-large",
        ),
        ("extensions of 10", chunked("1;234\r\nx\r\n0;2345\r\n\r\n"), "closed"),
        (
            "D19: extensions of 11",
            chunked("1;2345\r\nx\r\n0;23456\r\n\r\n"),
            "refused 400 chunk-extensions-too-large",
        ),
        (
            "D19: and a bad one",
            chunked("1;@345678901\r\nx\r\n0\r\n\r\n"),
            "refused 400 chunk-extensions-too-large",
        ),
        (
            "D19: and a bare LF",
            chunked("1;23456789012\nx\r\n0\r\n\r\n"),
            "refused 400 chunk-extensions-too-large",
        ),
        ("D19: not at all", chunked("1x23456789012\r\nx\r\n0\r\n\r\n"), "refused 400 chunk-size"),
        ("D19: a size and a bare LF", chunked("1x\nx\r\n0\r\n\r\n"), "refused 400 chunk-size"),
        ("D18", chunked(&many_chunks), "refused 400 chunk-overhead"),
    ] {
        let seen = seen_with(&config, bytes.as_bytes());
        assert_eq!(seen.lines().last().unwrap(), expected, "{what}: {bytes:?} gave {seen}");
    }
}

/// HTTP/0.9 where the option allows it: a bare GET, no head in the answer, and the end.
#[test]
fn http_0_9() {
    let options = Options { http09: true, ..Options::default() };
    let config = Config { options, ..Config::default() };
    check_all(
        &config,
        &[
            ("a request", b"GET /\r\n", "GET / HTTP/0.9 [] none\ncloses: old-version"),
            (
                "what follows is not read",
                b"GET /\r\nGET /2\r\n",
                "GET / HTTP/0.9 [] none\ncloses: old-version",
            ),
            ("GET only", b"POST /\r\n", "refused 400 request-line"),
            ("a target is a target", b"GET a\r\n", "refused 400 target"),
            (
                "1.1 as ever",
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1 [Host: a\\r\\n] none\nclosed",
            ),
        ],
    );
}

/// Mutations of requests under limits so small that everything touches one: whole, octet by octet and split
/// anywhere, each is refused for the same reason, or read as the same (faults S89, S90, D13).
#[test]
fn mutations_at_the_limits() {
    let limits = Limits {
        method_bytes_max: 4,
        target_bytes_max: 6,
        field_section_bytes_max: 60,
        field_lines_max: 3,
        trailer_section_bytes_max: 12,
        trailer_lines_max: 1,
        chunk_extension_bytes_max: 4,
        chunk_overhead_free_bytes: 20,
        chunk_overhead_ratio_max: 2,
        ..Limits::default()
    };
    let options = Options { http09: true, ..Options::default() };
    let config = Config { limits, options };
    for request in [
        &b"GET /2345 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nPUT / HTTP/1.1\r\nHost: b\r\n\r\n"[..],
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: 0123456789012345\r\n\r\nabcGET /\r\n",
    ] {
        for seed in 0..400 {
            let mut rng = Rng::new(seed);
            let changes = rng.between(1, 3) as usize;
            seen_with(&config, &rng.mutated(request, changes));
        }
    }
}
