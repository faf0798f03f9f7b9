//! Responses as a client must read them: the rows of the fault catalogue for hostile servers, and RFC 9112 §4 to
//! §9. Every row is delivered whole, octet by octet, and split at every place.

mod common;

use common::{Asked, ask};
use eleven_messaging::{BodyEncoder, Config, Framing, Limits, Options};
use eleven_testkit::deliver::deliver;
use eleven_testkit::rng::Rng;
use std::sync::Arc;

const GET: &[Asked] = &[Asked::Plain("GET")];
const HEAD: &[Asked] = &[Asked::Plain("HEAD")];
const CONNECT: &[Asked] = &[Asked::Connecting];
const UPGRADE: &[Asked] = &[Asked::Upgrading];
const THREE: &[Asked] = &[Asked::Plain("GET"), Asked::Plain("HEAD"), Asked::Plain("GET")];

#[track_caller]
fn seen(config: &Config, requests: &[Asked], bytes: &[u8]) -> String {
    let config = Arc::new(config.clone());
    deliver(bytes, |pieces| ask(&config, requests, pieces)).trim_end().to_owned()
}

/// Each row: what it shows, the requests, the octets of the server (then it closes), and the transcript.
#[track_caller]
fn check_with(config: &Config, rows: &[(&str, &[Asked], &str, &str)]) {
    for (what, requests, bytes, expected) in rows {
        assert_eq!(seen(config, requests, bytes.as_bytes()), expected.trim(), "{what}");
    }
}

#[track_caller]
fn check(rows: &[(&str, &[Asked], &str, &str)]) {
    check_with(&Config::default(), rows);
}

/// Each row: what it shows, the requests, the octets, and the last line of the transcript.
#[track_caller]
fn check_last(config: &Config, rows: &[(&str, &[Asked], &[u8], &str)]) {
    let mut wrong = Vec::new();
    for (what, requests, bytes, expected) in rows {
        let seen = seen(config, requests, bytes);
        if seen.lines().last() != Some(*expected) {
            wrong.push(format!("{what}: expected {expected:?}, saw\n{seen}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What ends a response, and what its end says of the connection. 9110-6.1-R1, 9110-6.4.1-R1.
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
            "9112-6.1-01: chunked, with trailers",
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
            "final HTTP/1.1 200 \"OK\" [Transfer-Encoding: chunked\\r\\n] chunked\ndata hello\n\
             end trailers X: y\\r\\n\nreusable",
        ),
        (
            "R30, S68: a trailer that frames or sets cookies is left out",
            GET,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nSet-Cookie: a=b\r\nContent-Length: 3\r\n\r\n",
            "final HTTP/1.1 200 \"OK\" [Transfer-Encoding: chunked\\r\\n] chunked\nend\nreusable",
        ),
        (
            "9112-6.3-R1: HEAD ends with its head",
            HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 5\\r\\n] none\nreusable",
        ),
        (
            "9112-6.1-06: HEAD may tell a coding",
            HEAD,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "final HTTP/1.1 200 \"OK\" [Transfer-Encoding: chunked\\r\\n] none\nreusable",
        ),
        (
            "9112-6.3-R1: 304 may tell the length of the other response",
            GET,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            "final HTTP/1.1 304 \"Not Modified\" [Content-Length: 5\\r\\n] none\nreusable",
        ),
        (
            "9112-6.3-R7: until close",
            GET,
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "final HTTP/1.1 200 \"OK\" [] until-close\ndata hello\nend\ncloses: until-close, 0 unanswered",
        ),
        (
            "9112-4-01, 9112-4-03: no reason phrase, or any",
            THREE,
            "HTTP/1.1 204 \r\n\r\nHTTP/1.1 299 \u{e9} \t!\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204\r\n\r\n",
            "final HTTP/1.1 204 \"\" [] none\n\
             final HTTP/1.1 299 \"\\\\xc3\\\\xa9 \\\\t!\" [Content-Length: 0\\r\\n] none\n\
             final HTTP/1.1 204 \"\" [] none\nreusable",
        ),
        (
            "9112-9.2-01: pipelined answers are matched in order, each by its own method",
            &[Asked::Plain("HEAD"), Asked::Plain("GET")],
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 5\\r\\n] none\n\
             final HTTP/1.1 200 \"OK\" [Content-Length: 2\\r\\n] length 2\ndata hi\nend\nreusable",
        ),
        (
            "R24, 9112-5.2-04: obs-fold becomes a space",
            GET,
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\t \r\n\tc\r\nY:\r\n z\r\nContent-Length: 0\r\n\r\n",
            "final HTTP/1.1 200 \"OK\" [X: a b  c\\r\\nY: z\\r\\nContent-Length: 0\\r\\n] length 0\nreusable",
        ),
        (
            "9112-6.3-04: a list of the same length is that length",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 05\r\n\r\nhello",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 5, 5\\r\\nContent-Length: 05\\r\\n] length 5\n\
             data hello\nend\nreusable",
        ),
        (
            "9112-9.2-02b: an empty line is borne on an idle connection",
            GET,
            "HTTP/1.1 204 X\r\n\r\n\r\n\r\n",
            "final HTTP/1.1 204 \"X\" [] none\nreusable",
        ),
    ]);
}

/// The `gzip` coding under either name (9112-7.2-R1), chunked or ended by the close (9112-6.1-04, 9112-6.3-R4).
/// Faults G21, G22: cut short, or with octets behind its end, it is refused.
#[test]
fn gzip_codings() {
    let coded = |framing, extra: &[u8]| {
        let mut body = Vec::new();
        let mut encoder = BodyEncoder::new(framing);
        encoder.write(b"hello", &mut body).unwrap();
        encoder.finish(None, &mut body).unwrap();
        body.extend_from_slice(extra);
        body
    };
    let until_close = Framing::UntilClose { gzip: true };
    let chunked = Framing::Chunked { gzip: true };
    let head = |coding: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n").into_bytes();
    for (what, coding, body, expected) in [
        (
            "9112-6.3-R4",
            "gzip",
            coded(until_close, b""),
            "data hello\nend\ncloses: until-close, 0 unanswered",
        ),
        (
            "9112-7.2-R1",
            "X-GZip",
            coded(until_close, b""),
            "data hello\nend\ncloses: until-close, 0 unanswered",
        ),
        ("9112-7.2-R1", "x-gzip, chunked", coded(chunked, b""), "data hello\nend\nreusable"),
        ("G22", "gzip", coded(until_close, b"x"), "data hello\nrefused gzip"),
        ("no gzip at all", "gzip", b"hello".to_vec(), "refused gzip"),
        ("nothing at all", "gzip", b"".to_vec(), "refused gzip"),
    ] {
        let seen = seen(&Config::default(), GET, &[head(coding), body].concat());
        let (_, rest) = seen.split_once('\n').unwrap();
        assert_eq!(rest, expected, "{what}");
    }
    let whole = coded(until_close, b"");
    for cut in 1..whole.len() {
        let seen = seen(&Config::default(), GET, &[head("gzip").as_slice(), &whole[..cut]].concat());
        assert!(seen.ends_with("refused gzip"), "G21: cut at {cut}: {seen}");
    }
    let options = Options { transfer_gzip: false, ..Options::default() };
    let off = Config { options, ..Config::default() };
    assert!(seen(&off, GET, &head("gzip")).ends_with("refused coding-unknown"));
}

/// Interim responses: RFC 9110 §15.2.
#[test]
fn interim_responses() {
    check(&[
        (
            "R06, 9110-15.2-03: several, wanted or not",
            GET,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 199 X\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
            "interim HTTP/1.1 100 \"Continue\" [] none\n\
             interim HTTP/1.1 103 \"Early Hints\" [Link: </a>\\r\\n] none\n\
             interim HTTP/1.1 199 \"X\" [] none\nfinal HTTP/1.1 204 \"X\" [] none\nreusable",
        ),
        (
            "R05: an interim response has no body, whatever it says",
            GET,
            "HTTP/1.1 100 Continue\r\nContent-Length: 168\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
            "interim HTTP/1.1 100 \"Continue\" [Content-Length: 168\\r\\n] none\n\
             final HTTP/1.1 204 \"X\" [] none\nreusable",
        ),
    ]);
    let endless = "HTTP/1.1 103 X\r\n\r\n".repeat(40);
    let exactly = format!("{}HTTP/1.1 204 X\r\n\r\n", "HTTP/1.1 103 X\r\n\r\n".repeat(32));
    let fat = format!("HTTP/1.1 103 X\r\nX: {}\r\n\r\n", "x".repeat(400)).repeat(3);
    let limits = Limits { interim_bytes_max: 1000, ..Limits::default() };
    check_last(
        &Config { limits, ..Config::default() },
        &[
            ("R07: 32", GET, exactly.as_bytes(), "reusable"),
            ("R07: more than 32", GET, endless.as_bytes(), "refused too-many-interim"),
            ("R07: few and fat", GET, fat.as_bytes(), "refused too-many-interim"),
        ],
    );
}

/// Switches: RFC 9110 §7.8, §9.3.6.
#[test]
fn switches() {
    check(&[
        (
            "101 that was asked for: what follows is the other protocol's",
            UPGRADE,
            "HTTP/1.1 101 X\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "switched HTTP/1.1 101 \"X\" [Upgrade: echo\\r\\nConnection: Upgrade\\r\\n] none\n\
             tunnel \"HTTP/1.1 200 OK\\\\r\\\\n\\\\r\\\\n\"",
        ),
        (
            "100, then 101",
            UPGRADE,
            "HTTP/1.1 100 X\r\n\r\nHTTP/1.1 101 X\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\nx",
            "interim HTTP/1.1 100 \"X\" [] none\n\
             switched HTTP/1.1 101 \"X\" [Upgrade: echo\\r\\nConnection: Upgrade\\r\\n] none\ntunnel \"x\"",
        ),
        (
            "a switch declined",
            UPGRADE,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "final HTTP/1.1 200 \"OK\" [Content-Length: 2\\r\\n] length 2\ndata hi\nend\nreusable",
        ),
        (
            "9112-6.3-R2, 9112-6.3-01, 9110-9.3.6-07: 2xx to CONNECT, whatever its framing fields say",
            CONNECT,
            "HTTP/1.1 299 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
            "switched HTTP/1.1 299 \"X\" [Content-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n] none\n\
             tunnel \"hello\"",
        ),
        (
            "S75: CONNECT refused ends the connection",
            CONNECT,
            "HTTP/1.1 407 X\r\nContent-Length: 2\r\n\r\nhi",
            "final HTTP/1.1 407 \"X\" [Content-Length: 2\\r\\n] length 2\ndata hi\nend\n\
             closes: connect-refused, 0 unanswered",
        ),
    ]);
    let upgrade = b"HTTP/1.1 101 X\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n";
    check_last(
        &Config::default(),
        &[
            ("R08: 101 to a plain GET", GET, upgrade, "refused switch-unasked"),
            ("R08: 101 to CONNECT", CONNECT, upgrade, "refused switch-unasked"),
            ("S74: 101 without Upgrade", UPGRADE, b"HTTP/1.1 101 X\r\n\r\n", "refused switch-unasked"),
            (
                "S74: Upgrade alone",
                UPGRADE,
                b"HTTP/1.1 101 X\r\nUpgrade: echo\r\n\r\n",
                "refused switch-unasked",
            ),
        ],
    );
}

/// Faults R01 to R28 and R36: each is refused, or ends the connection so that nothing after it is believed.
#[test]
fn hostile_servers() {
    let ok = |rest: &str| [b"HTTP/1.1 200 OK\r\n", rest.as_bytes()].concat();
    let many = ok(&format!("{}\r\n", "A: b\r\n".repeat(101)));
    let fat = ok(&format!("A: {}\r\n\r\n", "b".repeat(33_000)));
    let endless_line = ok(&format!("A: {}", "b".repeat(33_000)));
    let endless_reason = format!("HTTP/1.1 200 {}", "b".repeat(1100));
    let good = "5\r\nhello\r\n";
    let chunked = |body: &str| ok(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    check_last(
        &Config::default(),
        &[
            (
                "R01",
                GET,
                &ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                "refused length-and-coding",
            ),
            (
                "R02, 9112-6.3-06, 9112-6.3-07",
                GET,
                &ok("Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello"),
                "refused content-length",
            ),
            ("R02", GET, &ok("Content-Length: +5\r\n\r\nhello"), "refused content-length"),
            ("R02", GET, &ok("Content-Length: 0x5\r\n\r\nhello"), "refused content-length"),
            ("R02", GET, &ok("Content-Length: -5\r\n\r\nhello"), "refused content-length"),
            ("R02", GET, &ok("Content-Length: 5,\r\n\r\nhello"), "refused content-length"),
            ("R02", GET, &ok("Content-Length:\r\n\r\nhello"), "refused content-length"),
            (
                "R03, 9112-6.3-15",
                GET,
                &ok("Content-Length: 5\r\n\r\nhelloHTTP/1.1 200 POISON\r\n\r\n"),
                "refused unsolicited",
            ),
            ("R04, 9112-9.2-02a", &[], &ok("\r\n"), "refused unsolicited"),
            (
                "R09: 204 with a body",
                GET,
                b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello",
                "closes: ambiguous, 0 unanswered",
            ),
            (
                "R09: 304 with a body",
                GET,
                b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\nhello",
                "refused unsolicited",
            ),
            ("R09: HEAD with a body", HEAD, &ok("Content-Length: 5\r\n\r\nhello"), "refused unsolicited"),
            (
                "R10",
                GET,
                b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "closes: ambiguous, 0 unanswered",
            ),
            (
                "R28 to HEAD, 9112-6.1-14",
                HEAD,
                b"HTTP/1.0 200 X\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
                "closes: ambiguous, 0 unanswered",
            ),
            (
                "R01 to HEAD",
                HEAD,
                &ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
                "closes: ambiguous, 0 unanswered",
            ),
            ("R11, 9112-6.3-08, 9112-8-02", GET, &ok("Content-Length: 10\r\n\r\nhello"), "refused body-cut"),
            ("R13: between chunks", GET, &chunked(good), "refused body-cut"),
            ("R14: inside a chunk", GET, &chunked("a\r\nhello"), "refused body-cut"),
            ("R14: inside a size", GET, &chunked("5\r\nhello\r\n0"), "refused body-cut"),
            ("R14: inside the last CRLF", GET, &chunked("5\r\nhello\r\n0\r\n\r"), "refused body-cut"),
            ("R15", GET, &chunked("5\r\nhello\r\nZZ\r\n"), "refused chunk-size"),
            ("R16", GET, &chunked("-5\r\nhello\r\n0\r\n\r\n"), "refused chunk-size"),
            ("R16", GET, &chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), "refused chunk-size"),
            ("R16", GET, &chunked("0x5\r\nhello\r\n0\r\n\r\n"), "refused chunk-size"),
            ("R17", GET, &ok("Content-Length: 99999999999999999999\r\n\r\nhello"), "refused content-length"),
            ("R20: CR", GET, &ok("X: a\rSet-Cookie: p=1\r\n\r\n"), "refused bare-cr"),
            ("R20: LF", GET, &ok("X: a\nSet-Cookie: p=1\r\n\r\n"), "refused bare-lf"),
            ("R20: NUL", GET, &ok("X: a\0\r\n\r\n"), "refused field-value"),
            ("R20: CR in a folded line", GET, &ok("X: a\r\n b\rc\r\n\r\n"), "refused bare-cr"),
            ("R22, 9112-4-R1", GET, b"HTTP/1.1 20 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/1.1 2000 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/1.1 000 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/1.1 600 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/1.1 +20 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/1.1  200 OK\r\n\r\n", "refused status-line"),
            ("R22, 9112-4-02", GET, b"HTTP/1.1\t200\tOK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/1.1 200OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"ICY 200 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"http/1.1 200 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/11.1 200 OK\r\n\r\n", "refused status-line"),
            ("R22", GET, b"HTTP/2.0 200 OK\r\n\r\n", "refused version-unsupported"),
            ("R23", GET, b"hello", "refused status-line"),
            ("R23: without a line end", GET, b"HTTX", "refused status-line"),
            (
                "an empty line before the status line",
                GET,
                b"\r\nHTTP/1.1 200 OK\r\n\r\n",
                "refused status-line",
            ),
            ("R25, 9112-5.1-02", GET, &ok("Content-Length : 5\r\n\r\nhello"), "refused space-before-colon"),
            ("9112-2.2-09", GET, &ok(" X: y\r\n\r\n"), "refused obs-fold"),
            ("R26", GET, &ok("Transfer-Encoding: br, chunked\r\n\r\n"), "refused coding-unknown"),
            ("R27, S05", GET, &ok("Transfer-Encoding: identity\r\n\r\n"), "refused transfer-encoding"),
            ("R27", GET, &ok("Transfer-Encoding: chunked, identity\r\n\r\n"), "refused chunked-not-last"),
            (
                "R27",
                GET,
                &ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
                "refused transfer-encoding",
            ),
            (
                "R28, 9112-6.1-14",
                GET,
                b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "refused coding-in-1.0",
            ),
            ("R36: many lines", GET, &many, "refused too-many-fields"),
            ("R36: one fat line", GET, &fat, "refused field-section-too-large"),
            ("R36: without end", GET, &endless_line, "refused field-section-too-large"),
            ("R36: an endless reason", GET, endless_reason.as_bytes(), "refused status-line"),
            ("H21: ESC in the reason", GET, b"HTTP/1.1 200 \x1b[31m\r\n\r\n", "refused status-line"),
            ("cut before the head", GET, b"", "closes: peer-closed, 1 unanswered"),
            ("cut in the head, 9112-8-R2", GET, b"HTTP/1.1 200 OK\r\nX: y", "refused head-cut"),
            (
                "cut after the interim response",
                GET,
                b"HTTP/1.1 100 X\r\n\r\n",
                "closes: peer-closed, 1 unanswered",
            ),
        ],
    );
    // R24, 9112-5.2-03: a gateway does without unfolding.
    let options = Options { unfold_responses: false, ..Options::default() };
    check_last(
        &Config { options, ..Config::default() },
        &[("R24", GET, &ok("X: a\r\n b\r\n\r\n"), "refused obs-fold")],
    );
}

/// What either side says of the end of the connection, 9112-9.3-R1; fault R32.
#[test]
fn persistence() {
    let empty = "Content-Length: 0\r\n\r\n";
    let answer = |version: &str, connection: &str| {
        format!("HTTP/{version} 200 OK\r\n{connection}{empty}").into_bytes()
    };
    let pipelined_close =
        [answer("1.1", "").as_slice(), &answer("1.1", "Connection: close\r\n"), &answer("1.1", "")].concat();
    let pipelined_old = [answer("1.0", "").as_slice(), &answer("1.1", "")].concat();
    check_last(
        &Config::default(),
        &[
            ("1.1 persists", GET, &answer("1.1", ""), "reusable"),
            ("1.2 is 1.1", GET, &answer("1.2", ""), "reusable"),
            ("close", GET, &answer("1.1", "Connection: close\r\n"), "closes: server-asked, 0 unanswered"),
            (
                "close in a list, in any case",
                GET,
                &answer("1.1", "Connection: a, CLOSE\r\n"),
                "closes: server-asked, 0 unanswered",
            ),
            (
                "close beats keep-alive",
                GET,
                &answer("1.0", "Connection: keep-alive, close\r\n"),
                "closes: server-asked, 0 unanswered",
            ),
            ("1.0 does not persist", GET, &answer("1.0", ""), "closes: old-version, 0 unanswered"),
            ("1.0 with keep-alive does", GET, &answer("1.0", "Connection: keep-alive\r\n"), "reusable"),
            (
                "R32, 9112-9.6-02b: our close counts, said back or not",
                &[Asked::Closing("GET")],
                &answer("1.1", ""),
                "closes: client-asked, 0 unanswered",
            ),
            ("an HTTP/1.0 request", &[Asked::Old], &answer("1.1", ""), "closes: old-version, 0 unanswered"),
            (
                "an HTTP/1.0 request with a clear answer",
                &[Asked::Old],
                &answer("1.1", "Connection: keep-alive\r\n"),
                "reusable",
            ),
            (
                "9112-9.6-08a: a close in between ends all, and the rest is not read",
                THREE,
                &pipelined_close,
                "closes: server-asked, 1 unanswered",
            ),
            ("an old server answers one", THREE, &pipelined_old, "closes: old-version, 2 unanswered"),
            (
                "the last of several closes",
                &[Asked::Plain("GET"), Asked::Closing("GET")],
                &answer("1.1", "").repeat(2),
                "closes: client-asked, 0 unanswered",
            ),
        ],
    );
}

/// HTTP/0.9 only where the option is on, and then only as the first answer.
#[test]
fn http_0_9_is_an_option() {
    let options = Options { http09: true, ..Options::default() };
    let config = Config { options, ..Config::default() };
    check_with(
        &config,
        &[
            (
                "a response without head",
                &[Asked::Oldest],
                "hello",
                "final HTTP/0.9 200 \"\" [] until-close\ndata hello\nend\ncloses: client-asked, 0 unanswered",
            ),
            (
                "an old server answers a newer request",
                GET,
                "HTT",
                "final HTTP/0.9 200 \"\" [] until-close\ndata HTT\nend\ncloses: until-close, 0 unanswered",
            ),
            (
                "a newer server answers an old request",
                &[Asked::Oldest],
                "HTTP/1.0 400 No\r\n\r\nno",
                "final HTTP/1.0 400 \"No\" [] until-close\ndata no\nend\ncloses: client-asked, 0 unanswered",
            ),
        ],
    );
    check_last(
        &config,
        &[
            ("R23: not to HEAD", HEAD, b"hello", "refused status-line"),
            (
                "R23: not after an interim response",
                GET,
                b"HTTP/1.1 100 X\r\n\r\nhello",
                "refused status-line",
            ),
            (
                "R23: not behind a complete response",
                &[Asked::Plain("GET"), Asked::Plain("GET")],
                b"HTTP/1.1 204 X\r\n\r\nhello",
                "refused status-line",
            ),
        ],
    );
}

/// Mutations of responses under limits so small that everything touches one: however they come, each is refused for
/// the same reason, or read as the same (faults S89, D13).
#[test]
fn mutations_at_the_limits() {
    let limits = Limits {
        reason_bytes_max: 4,
        field_section_bytes_max: 50,
        field_lines_max: 2,
        trailer_section_bytes_max: 12,
        trailer_lines_max: 1,
        chunk_extension_bytes_max: 4,
        interim_responses_max: 1,
        interim_bytes_max: 40,
        ..Limits::default()
    };
    for options in [
        Options { http09: true, ..Options::default() },
        Options { unfold_responses: false, ..Options::default() },
    ] {
        let config = Config { limits: limits.clone(), options };
        for response in [
            &b"HTTP/1.1 103 Hint\r\nX: y\r\n\r\nHTTP/1.1 200 Okay\r\nX: y\r\n z\r\nContent-Length: 3\r\n\r\nabc"[..],
            b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
        ] {
            for seed in 0..300 {
                let mut rng = Rng::new(seed);
                let changes = rng.between(1, 3) as usize;
                seen(&config, &[Asked::Plain("GET"), Asked::Plain("HEAD")], &rng.mutated(response, changes));
            }
        }
    }
}

/// Content that a driver moves past the machine counts as received (9112-6.3-R5), and only plain content can be: no
/// length, no coding, and never more than is to come.
#[test]
fn content_may_pass_by_its_length_only() {
    use eleven_messaging::{Arrived, ClientConnection, Request, ResponseHead};
    use eleven_semantics::{Fields, Method};
    for (framing, first, passable) in [
        ("Content-Length: 10", "he", Some(8)),
        ("Content-Length: 10", "", Some(10)),
        ("Content-Length: 2", "he", Some(0)),
        ("Transfer-Encoding: chunked", "5\r\nhe", None),
        ("X: until close", "he", None),
    ] {
        let mut client = ClientConnection::new(Arc::new(Config::default()));
        let (fields, mut out, mut head) = (Fields::new(), Vec::new(), ResponseHead::default());
        assert_eq!(client.passable_content(), None);
        assert!(client.pass_content(1).is_err(), "there is no content");
        client.send(&Request::new(&Method::Get, b"/", b"h", &fields), &mut out).unwrap();
        let octets = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{first}");
        let mut at = 0;
        loop {
            let (taken, arrived) = client.receive(&octets.as_bytes()[at..], false, &mut head).unwrap();
            at += taken;
            if at == octets.len() || matches!(arrived, Arrived::NeedMore) {
                break;
            }
        }
        assert_eq!(client.passable_content(), passable, "{framing}");
        assert!(client.pass_content(passable.unwrap_or(0) + 1).is_err(), "{framing}");
        let Some(left) = passable else { continue };
        client.pass_content(left).unwrap();
        let (_, arrived) = client.receive(b"", false, &mut head).unwrap();
        assert_eq!(arrived, Arrived::End(None), "{framing}");
        assert!(client.is_reusable(0));
    }
}
