//! Responses as a server writes them: framing, persistence, interim responses, switches, and what it refuses to
//! write. RFC 9112 §6 and §9, RFC 9110 §8.6, §9.3, §10.1.1, §15.

mod common;

use common::fields;
use eleven_messaging::{
    Answer, BodyEncoder, CloseReason, Config, Framing, Length, Limits, Malformed, Misuse, Persistence,
    Received, RequestHead, ServerConnection,
};
use eleven_semantics::{Fields, Status};
use std::sync::Arc;

static NONE: Fields = Fields::new();
const DATE: &[u8] = b"Date: Tue, 24 Nov 2026 12:00:00 GMT\r\n";

fn server() -> ServerConnection {
    ServerConnection::new(Arc::default())
}

fn server_with(limits: Limits) -> ServerConnection {
    ServerConnection::new(Arc::new(Config { limits, ..Config::default() }))
}

/// Hands in octets until they are used up or nothing more is read; what was found last.
#[track_caller]
fn receive(server: &mut ServerConnection, octets: &str) -> String {
    let mut rest = octets.as_bytes();
    let mut head = RequestHead::default();
    let mut found = String::new();
    while !rest.is_empty() {
        match server.receive(rest, false, &mut head) {
            Ok((0, Received::End(_))) => {}
            Ok((0, stuck)) => return format!("{stuck:?}"),
            Ok((taken, received)) => {
                found = format!("{received:?}");
                rest = &rest[taken..];
            }
            Err(malformed) => return malformed.name().to_owned(),
        }
    }
    found
}

fn ok<'a>() -> Answer<'a> {
    Answer {
        status: Status::OK,
        fields: &NONE,
        added: None,
        length: Length::Known(0),
        date: b"",
        close: None,
        content_is_read: false,
        compressible: false,
    }
}

/// Writes a response with this content; its octets, and what becomes of the connection.
fn respond(server: &mut ServerConnection, answer: &Answer<'_>, content: &[u8]) -> (String, Persistence) {
    let mut out = Vec::new();
    server.respond(answer, &mut out).unwrap();
    if !server.body().unwrap().is_silent() {
        server.body().unwrap().write(content, &mut out).unwrap();
    }
    let persistence = server.finish(None, &mut out).unwrap();
    (String::from_utf8_lossy(&out).into_owned(), persistence)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
const KEEP: Persistence = Persistence::Keep;

/// How each response is framed, by method, version, status and what is known of its length.
#[test]
fn framing() {
    let old = "GET / HTTP/1.0\r\n\r\n";
    let old_kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let status = |code| Status::new(code).unwrap();
    let close = Persistence::Close;
    for (what, request, code, length, expected, persistence) in [
        ("9112-6.3-09", GET, 200, Length::Known(2), "Content-Length: 2\r\n\r\nhi", KEEP),
        (
            "chunked",
            GET,
            200,
            Length::Unknown,
            "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            KEEP,
        ),
        (
            "9110-9.3.2-02, 9110-8.6-03: HEAD says what GET would",
            HEAD,
            200,
            Length::Known(2),
            "Content-Length: 2\r\n\r\n",
            KEEP,
        ),
        ("9112-6.1-06", HEAD, 200, Length::Unknown, "Transfer-Encoding: chunked\r\n\r\n", KEEP),
        ("HEAD need not know a length", HEAD, 200, Length::Absent, "\r\n", KEEP),
        ("no content is a length", GET, 200, Length::Absent, "Content-Length: 0\r\n\r\n", KEEP),
        ("no content is a length", GET, 404, Length::Absent, "Content-Length: 0\r\n\r\n", KEEP),
        ("9110-8.6-05", GET, 204, Length::Absent, "\r\n", KEEP),
        ("9110-8.6-05", GET, 204, Length::Known(0), "\r\n", KEEP),
        ("9112-6.1-07", GET, 204, Length::Unknown, "\r\n", KEEP),
        ("9110-15.3.6-01", GET, 205, Length::Unknown, "Content-Length: 0\r\n\r\n", KEEP),
        ("304 need not know a length", GET, 304, Length::Absent, "\r\n", KEEP),
        (
            "9110-8.6-04: 304 may tell that of 200",
            GET,
            304,
            Length::Known(7),
            "Content-Length: 7\r\n\r\n",
            KEEP,
        ),
        (
            "9112-6.1-11: no coding for HTTP/1.0",
            old,
            200,
            Length::Unknown,
            "Connection: close\r\n\r\nhi",
            close(CloseReason::OldVersion),
        ),
        (
            "9112-6.1-11: even if kept",
            old_kept,
            200,
            Length::Unknown,
            "Connection: close\r\n\r\nhi",
            close(CloseReason::UntilClose),
        ),
        (
            "9112-9.3-R1: a kept HTTP/1.0 client is told so",
            old_kept,
            200,
            Length::Known(2),
            "Content-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: timeout=60\r\n\r\nhi",
            KEEP,
        ),
    ] {
        let mut server = server();
        receive(&mut server, request);
        let answer = Answer { status: status(code), length, ..ok() };
        let content: &[u8] = if matches!(length, Length::Absent) || code == 205 { b"" } else { b"hi" };
        let (written, became) = respond(&mut server, &answer, content);
        let (line, rest) = written.split_once("\r\n").unwrap();
        assert!(line.starts_with(&format!("HTTP/1.1 {code} ")), "{what}: {line}");
        assert_eq!((rest, became), (expected, persistence), "{what}");
    }
}

/// 9112-4-04: an unknown status keeps its space. Date stands first, and only once (9110-6.6.1-02a).
#[test]
fn the_order_of_a_head() {
    let own = fields(&[("Server", "eleven"), ("Date", "Mon, 23 Nov 2026 12:00:00 GMT")]);
    let plain = fields(&[("Server", "eleven")]);
    for (fields, expected) in [
        (
            &plain,
            "HTTP/1.1 299 \r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nServer: eleven\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            &own,
            "HTTP/1.1 299 \r\nServer: eleven\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let mut server = server();
        receive(&mut server, GET);
        let answer = Answer { status: Status::new(299).unwrap(), fields, date: DATE, ..ok() };
        assert_eq!(respond(&mut server, &answer, b"").0, expected);
    }
}

/// 9112-9.3-03, 9112-9.6-03, 9112-9.6-04, 9112-9.6-06, 9112-9.3-05: why a connection ends, and that the response says so.
#[test]
fn closing() {
    let with_limit = |n| server_with(Limits { requests_per_connection_max: n, ..Limits::default() });
    let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let unread_chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel";
    let unread_large = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\nhel";
    let withheld = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let refused_tunnel = "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, mut server, request, close, reason) in [
        ("9112-9.6-03", server(), asked, None, CloseReason::ClientAsked),
        ("the handler's wish", server(), GET, Some(CloseReason::Handler), CloseReason::Handler),
        ("9112-9.3-03: the last request that may be", with_limit(1), GET, None, CloseReason::RequestsMax),
        (
            "S40, 9112-9.3-05: unread content of unknown length",
            server(),
            unread_chunked,
            None,
            CloseReason::ContentUnread,
        ),
        ("S40, D26: too much unread content", server(), unread_large, None, CloseReason::ContentUnread),
        ("S46, S50: content withheld for want of 100", server(), withheld, None, CloseReason::ContentUnread),
        ("S75", server(), refused_tunnel, None, CloseReason::ConnectRefused),
    ] {
        receive(&mut server, request);
        let answer = Answer { status: Status::FORBIDDEN, close, ..ok() };
        let (written, became) = respond(&mut server, &answer, b"");
        assert!(written.contains("\r\nConnection: close\r\n"), "{what}: {written}");
        assert_eq!(became, Persistence::Close(reason), "{what}");
        assert_eq!(receive(&mut server, GET), "Stopped", "{what}: 9112-9.6-05, 9112-9.6-07");
        assert!(!server.is_idle(), "{what}");
    }
    // Little unread content is read away, and the next request is found behind it.
    let mut server = server();
    receive(&mut server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    let (written, became) = respond(&mut server, &ok(), b"");
    assert!(!written.contains("close"));
    assert_eq!(became, KEEP);
    assert!(server.content_is_unwanted() && !server.is_idle());
    assert_eq!(receive(&mut server, "llo"), "Data([108, 108, 111])");
    assert_eq!(receive(&mut server, GET), "Head");
}

/// `Keep-Alive` promises only what holds, to those who ask (RFC 9112 appendix C.2.2).
#[test]
fn keep_alive_is_truthful() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let limits = Limits { requests_per_connection_max: 3, idle_timeout_secs: 7, ..Limits::default() };
    let mut server = server_with(limits);
    for expected in ["timeout=7, max=2\r\n", "timeout=7, max=1\r\n"] {
        receive(&mut server, request);
        let (written, became) = respond(&mut server, &ok(), b"");
        assert!(written.contains("Connection: keep-alive\r\n") && written.contains(expected), "{written}");
        assert_eq!(became, KEEP);
    }
    receive(&mut server, request);
    let (written, became) = respond(&mut server, &ok(), b"");
    assert!(written.contains("Connection: close\r\n") && !written.contains("Keep-Alive"), "{written}");
    assert_eq!(became, Persistence::Close(CloseReason::RequestsMax));
    receive(&mut server_with(Limits::default()), GET);
}

/// 9112-9.3.2-02b: answers go out in the order of the requests, and a fault behind them does not cost them theirs.
#[test]
fn requests_before_a_fault_are_answered() {
    let mut server = server();
    assert_eq!(receive(&mut server, &format!("{GET}{HEAD}")), "Head");
    assert_eq!(server.pending(), 2);
    assert_eq!(receive(&mut server, "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"), "target");
    let answer = Answer { length: Length::Known(2), ..ok() };
    let (written, became) = respond(&mut server, &answer, b"hi");
    assert_eq!((written.as_str(), became), ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", KEEP));
    let (written, became) = respond(&mut server, &answer, b"");
    assert_eq!((written.as_str(), became), ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", KEEP));
    let (written, became) = respond(&mut server, &Answer { status: Status::BAD_REQUEST, ..ok() }, b"");
    assert_eq!(written, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(matches!(became, Persistence::Close(CloseReason::Malformed(Malformed::Target(_)))));

    // Where the fault stands in the content of a request, that one is refused.
    let mut server = self::server();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n";
    assert_eq!(receive(&mut server, &format!("{GET}{request}")), "chunk-size");
    assert_eq!(respond(&mut server, &ok(), b"").1, KEEP);
    let (written, became) = respond(&mut server, &Answer { status: Status::BAD_REQUEST, ..ok() }, b"");
    assert!(written.contains("Connection: close\r\n"));
    assert_eq!(became, Persistence::Close(CloseReason::Malformed(Malformed::ChunkSize)));
}

/// Faults D23, D24: so many requests wait at most.
#[test]
fn pipelines_are_bounded() {
    let mut server = server_with(Limits { pipelined_requests_max: 3, ..Limits::default() });
    assert_eq!(receive(&mut server, &GET.repeat(5)), "Blocked");
    assert_eq!((server.pending(), server.served()), (3, 3));
    respond(&mut server, &ok(), b"");
    assert_eq!(receive(&mut server, &GET.repeat(2)), "Blocked");
    assert_eq!(server.pending(), 3);
}

/// RFC 9110 §15.2, §10.1.1.
#[test]
fn interim_responses() {
    let hint = fields(&[("Link", "</a>")]);
    let mut out = Vec::new();
    let mut server = server();
    assert_eq!(server.interim(Status::CONTINUE, &NONE, &mut out), Err(Misuse::NothingToAnswer));
    receive(&mut server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(server.awaits_continue());
    assert_eq!(server.interim(Status::EARLY_HINTS, &hint, &mut out), Ok(true));
    assert!(server.awaits_continue(), "103 is not 100");
    assert_eq!(server.interim(Status::CONTINUE, &NONE, &mut out), Ok(true));
    assert!(!server.awaits_continue());
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n");
    out.clear();
    for (status, fields, expected) in [
        (Status::OK, &NONE, Misuse::WrongClass),
        (Status::SWITCHING_PROTOCOLS, &NONE, Misuse::WrongClass),
        (Status::EARLY_HINTS, &self::fields(&[("Content-Length", "5")]), Misuse::ForbiddenField),
    ] {
        assert_eq!(server.interim(status, fields, &mut out), Err(expected));
    }
    server.respond(&ok(), &mut out).unwrap();
    out.clear();
    assert_eq!(server.interim(Status::EARLY_HINTS, &NONE, &mut out), Err(Misuse::OutOfTurn), "too late");
    assert!(out.is_empty());

    // 9110-15.2-02: an HTTP/1.0 client gets none.
    let mut server = self::server();
    receive(&mut server, "GET / HTTP/1.0\r\n\r\n");
    assert!(!server.allows_interim());
    assert_eq!(server.interim(Status::EARLY_HINTS, &hint, &mut out), Ok(false));
    assert!(out.is_empty());

    // 9110-10.1.1-07: who sends content does not wait.
    let mut server = self::server();
    receive(&mut server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nh");
    assert!(!server.awaits_continue());
}

/// RFC 9110 §7.8, §9.3.6: switches happen only where they were offered, and after the whole request.
#[test]
fn switches() {
    let upgrade = fields(&[("Upgrade", "echo")]);
    let mut out = Vec::new();
    let offered = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n";
    let mut server = server();
    receive(&mut server, offered);
    assert!(server.may_switch());
    assert_eq!(
        server.switch(Status::SWITCHING_PROTOCOLS, &NONE, b"", &mut out),
        Err(Misuse::WrongClass),
        "9110-15.2.2-01"
    );
    assert_eq!(server.switch(Status::OK, &upgrade, b"", &mut out), Err(Misuse::WrongClass));
    assert_eq!(server.switch(Status::SWITCHING_PROTOCOLS, &upgrade, b"", &mut out), Ok(()));
    assert_eq!(out, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n");
    assert_eq!(receive(&mut server, "anything"), "Tunnel");
    assert_eq!(server.respond(&ok(), &mut out).err(), Some(Misuse::OutOfTurn));

    // 9112-6.1-08: no framing in a 2xx to CONNECT.
    let mut server = self::server();
    receive(&mut server, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n");
    out.clear();
    assert_eq!(server.respond(&ok(), &mut out).err(), Some(Misuse::WrongClass), "that is a switch");
    assert_eq!(server.switch(Status::OK, &NONE, DATE, &mut out), Ok(()));
    assert_eq!(out, [b"HTTP/1.1 200 OK\r\n", DATE, b"\r\n"].concat());

    for (what, request) in [
        ("not offered", GET),
        ("offered without its connection option", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\n\r\n"),
        (
            "9110-7.8-06: offered in HTTP/1.0",
            "GET / HTTP/1.0\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n",
        ),
        (
            "S71: the content is not complete",
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\nContent-Length: 5\r\n\r\nhel",
        ),
    ] {
        let mut server = self::server();
        receive(&mut server, request);
        out.clear();
        let refused = server.switch(Status::SWITCHING_PROTOCOLS, &upgrade, b"", &mut out);
        assert_eq!(refused, Err(Misuse::NoSwitchOffered), "{what}");
        assert!(out.is_empty());
        respond(&mut server, &ok(), b"");
    }

    // 9110-7.8-12: 100 comes before 101, whether content came after it, without it, or never; and not twice.
    let expecting =
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\nExpect: 100-continue\r\n";
    for (content, asks) in [("\r\n", false), ("Content-Length: 2\r\n\r\nhi", false), ("\r\n", true)] {
        let mut server = self::server();
        receive(&mut server, &format!("{expecting}{content}"));
        if content.len() > 2 {
            let end = server.receive(b"", false, &mut RequestHead::default());
            assert_eq!(end, Ok((0, Received::End(None))));
        }
        out.clear();
        if asks {
            assert_eq!(server.interim(Status::CONTINUE, &NONE, &mut out), Ok(true));
        }
        assert_eq!(server.switch(Status::SWITCHING_PROTOCOLS, &upgrade, b"", &mut out), Ok(()));
        let wire = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&out), wire, "{content:?}");
    }
    // 9110-7.8-04b: layers stand as they were given, the lowest first, in one line or in several.
    for lines in [&[("Upgrade", "lower/1, upper")][..], &[("Upgrade", "lower/1"), ("Upgrade", "upper")]] {
        let mut server = self::server();
        receive(
            &mut server,
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: upper, lower/1\r\nConnection: upgrade\r\n\r\n",
        );
        out.clear();
        assert_eq!(server.switch(Status::SWITCHING_PROTOCOLS, &fields(lines), b"", &mut out), Ok(()));
        let wire = String::from_utf8_lossy(&out);
        assert!(wire.find("lower/1") < wire.find("upper"), "{wire}");
    }

    // S70: declined, the next request is read where it stands.
    let mut server = self::server();
    assert_eq!(receive(&mut server, &format!("{offered}{GET}")), "Blocked");
    assert_eq!(respond(&mut server, &ok(), b"").1, KEEP);
    assert_eq!(receive(&mut server, GET), "Head");
}

/// What is not the caller's to send, and steps out of turn.
#[test]
fn misuse() {
    let mut out = Vec::new();
    for name in ["Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection"] {
        let mut server = server();
        receive(&mut server, GET);
        let fields = fields(&[(name, "5")]);
        let refused = server.respond(&Answer { fields: &fields, ..ok() }, &mut out);
        assert_eq!(refused.err(), Some(Misuse::ForbiddenField), "{name}");
        assert!(out.is_empty());
        assert!(server.owes_response(), "{name}: another answer can still be given");
    }
    let mut server = server();
    assert_eq!(server.body().err(), Some(Misuse::OutOfTurn));
    assert_eq!(server.finish(None, &mut out), Err(Misuse::OutOfTurn));
    receive(&mut server, GET);
    let interim = Answer { status: Status::CONTINUE, ..ok() };
    assert_eq!(server.respond(&interim, &mut out).err(), Some(Misuse::WrongClass));
    server.respond(&ok(), &mut out).unwrap();
    assert_eq!(server.respond(&ok(), &mut out).err(), Some(Misuse::OutOfTurn), "two answers");
    server.finish(None, &mut out).unwrap();

    // Invariant 9: a response that is not complete never looks complete.
    receive(&mut server, GET);
    server.respond(&Answer { length: Length::Known(5), ..ok() }, &mut out).unwrap();
    assert_eq!(server.body().unwrap().write(b"hello!", &mut out), Err(Misuse::TooMuchContent));
    server.body().unwrap().write(b"hell", &mut out).unwrap();
    assert_eq!(server.finish(None, &mut out), Err(Misuse::TooLittleContent));
    assert_eq!(server.closing(), Some(CloseReason::ResponseCut));
    assert_eq!(receive(&mut server, GET), "Stopped");
}

/// Without a request: 408 and the like.
#[test]
fn answers_to_nothing() {
    let mut server = server();
    receive(&mut server, "GET / HT");
    let answer = Answer { status: Status::REQUEST_TIMEOUT, close: Some(CloseReason::HeadTimeout), ..ok() };
    let (written, became) = respond(&mut server, &answer, b"");
    assert_eq!(written, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(became, Persistence::Close(CloseReason::HeadTimeout));
}

/// HTTP/0.9: no head, and the end. Only to those who spoke it.
#[test]
fn http_0_9() {
    let options = eleven_messaging::Options { http09: true, ..Default::default() };
    let mut server = ServerConnection::new(Arc::new(Config { options, ..Config::default() }));
    receive(&mut server, "GET /\r\n");
    let (written, became) = respond(&mut server, &Answer { length: Length::Known(2), ..ok() }, b"hi");
    assert_eq!((written.as_str(), became), ("hi", Persistence::Close(CloseReason::OldVersion)));
}

/// Encoders: octets around content, for every framing; 9112-7.1-01, 9110-6.5.1-01.
#[test]
fn encoders() {
    let trailers = fields(&[("X-Sum", "1")]);
    let late = fields(&[("Content-Length", "1")]);
    let run = |framing, pieces: &[&str], trailers: Option<&Fields>| {
        let mut out = Vec::new();
        let mut encoder = BodyEncoder::new(framing);
        for piece in pieces {
            encoder.write(piece.as_bytes(), &mut out)?;
        }
        encoder.finish(trailers, &mut out)?;
        assert_eq!(encoder.finish(None, &mut out), Err(Misuse::OutOfTurn));
        Ok(String::from_utf8(out).unwrap())
    };
    let chunked = Framing::Chunked { gzip: false };
    let until_close = Framing::UntilClose { gzip: false };
    let long = "x".repeat(0x1234);
    for (framing, pieces, trailers, expected) in [
        (Framing::None, &[][..], None, Ok("")),
        (Framing::None, &["a"], None, Err(Misuse::NoContentAllowed)),
        (Framing::Length(2), &["a", "", "b"], None, Ok("ab")),
        (Framing::Length(2), &["a"], None, Err(Misuse::TooLittleContent)),
        (Framing::Length(2), &["a", "bc"], None, Err(Misuse::TooMuchContent)),
        (Framing::Length(2), &["ab"], Some(&trailers), Ok("ab")),
        (until_close, &["a", "b"], None, Ok("ab")),
        (chunked, &[], None, Ok("0\r\n\r\n")),
        (chunked, &["a", "", "bcdefghijklmnopq"], None, Ok("1\r\na\r\n10\r\nbcdefghijklmnopq\r\n0\r\n\r\n")),
        (chunked, &["a"], Some(&trailers), Ok("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")),
        (chunked, &["a"], Some(&late), Err(Misuse::ForbiddenField)),
        (chunked, &[&long], None, Ok(&*format!("1234\r\n{long}\r\n0\r\n\r\n"))),
    ] {
        assert_eq!(
            run(framing, pieces, trailers).as_deref(),
            expected.as_ref().map(|text| *text),
            "{framing:?} {pieces:?}"
        );
    }
}

/// The `gzip` transfer coding goes to those whose TE asks for it, with a weight or without (9112-7.4-02), and to
/// nobody else.
#[test]
fn gzip_only_where_asked() {
    let large = Answer { length: Length::Known(2000), compressible: true, ..ok() };
    let content = vec![b'x'; 2000];
    for (te, coded) in [
        ("TE: gzip\r\nConnection: TE\r\n", true),
        ("TE: trailers, x-gzip;q=0.5\r\nConnection: TE\r\n", true),
        ("TE: gzip;q=0\r\nConnection: TE\r\n", false),
        ("TE: trailers\r\nConnection: TE\r\n", false),
        ("TE: gzip\r\n", false),
        ("Accept-Encoding: gzip\r\n", false),
        ("", false),
    ] {
        let mut server = server();
        receive(&mut server, &format!("GET / HTTP/1.1\r\nHost: a\r\n{te}\r\n"));
        let (written, _) = respond(&mut server, &large, &content);
        assert_eq!(written.contains("Transfer-Encoding: gzip, chunked\r\n"), coded, "{te:?}");
        assert_eq!(written.contains("Content-Length: 2000\r\n"), !coded, "{te:?}: 9112-6.2-01");
    }
}

/// A stop lets the request under way be answered, with its close, and reads nothing more.
#[test]
fn stopping() {
    let mut server = server();
    receive(&mut server, GET);
    server.stop(CloseReason::Stopping);
    assert_eq!(receive(&mut server, GET), "Stopped");
    let (written, became) = respond(&mut server, &ok(), b"");
    assert!(written.contains("Connection: close\r\n"));
    assert_eq!(became, Persistence::Close(CloseReason::Stopping));

    let mut idle = self::server();
    idle.stop(CloseReason::Stopping);
    assert!(!idle.is_idle());
    let mut head = RequestHead::default();
    assert_eq!(idle.receive(b"x", false, &mut head), Ok((0, Received::Stopped)));
}
