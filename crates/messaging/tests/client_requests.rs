//! Requests as a client writes them, what it refuses to write, when it stops, and what may be sent again.

mod common;

use common::fields;
use eleven_messaging::{
    Arrived, ClientConnection, CloseReason, Config, Early, Framing, KeepAlive, Length, Limits, Misuse,
    Options, Persistence, Request, ResponseHead, Retry,
};
use eleven_semantics::{Fields, Method, Version};
use std::sync::Arc;

static NONE: Fields = Fields::new();

fn client() -> ClientConnection {
    ClientConnection::new(Arc::default())
}

/// A client of a server that is known to speak HTTP/1.1.
fn client_of_11() -> ClientConnection {
    let mut client = client();
    client.learn_version(Version::Http11);
    client
}

fn get<'a>(method: &'a Method) -> Request<'a> {
    Request::new(method, b"/", b"a", &NONE)
}

fn written(client: &mut ClientConnection, request: &Request<'_>) -> Result<String, Misuse> {
    let mut out = Vec::new();
    let result = client.send(request, &mut out);
    if result.is_err() {
        assert!(out.is_empty(), "nothing is written of a refused request");
    }
    result.map(|_| String::from_utf8(out).unwrap())
}

/// Hands in octets; panics unless all are taken.
#[track_caller]
fn receive(client: &mut ClientConnection, octets: &str) {
    let mut rest = octets.as_bytes();
    let mut head = ResponseHead::default();
    while !rest.is_empty() {
        let (taken, _) = client.receive(rest, false, &mut head).unwrap();
        assert!(taken > 0, "{rest:?} is left");
        rest = &rest[taken..];
    }
}

/// 9112-3.2-03, 9112-3.2-04, 9112-3.2-05, 9112-3.2.2-02, 9112-6.3-11, 9112-7.4-01, 9112-7.4-03, 9110-7.8-02,
/// 9112-9.3-02, 9112-9.6-01, 9112-6.2-01: what stands in a request head, and in which order.
#[test]
fn heads() {
    let method = |m: &str| Method::from_bytes(m.as_bytes()).unwrap();
    let (get_method, post, options, connect) = (Method::Get, Method::Post, Method::Options, Method::Connect);
    let search = method("M-SEARCH");
    let accept = fields(&[("Accept", "*/*"), ("x-Case", "Kept")]);
    let upgrade = fields(&[("Upgrade", "websocket")]);
    let plain = get(&get_method);
    for (what, request, expected) in [
        ("plain", plain, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "Host comes first, fields keep order and case",
            Request { fields: &accept, ..plain },
            "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nx-Case: Kept\r\n\r\n",
        ),
        (
            "9112-3.2.2-02: Host with absolute-form",
            Request { target: b"http://a/x?y", ..plain },
            "GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "9112-3.2-05: an empty Host",
            Request { host: Some(b""), ..plain },
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
        ),
        (
            "9112-3.2.4-01",
            Request { method: &options, target: b"*", ..plain },
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "9112-3.2.3-01",
            Request { method: &connect, target: b"a:443", host: Some(b"a:443"), ..plain },
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        ),
        ("any method", Request { method: &search, ..plain }, "M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "9112-6.3-12",
            Request { method: &post, length: Length::Known(0), ..plain },
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "9112-6.3-11",
            Request { method: &post, length: Length::Known(70), ..plain },
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70\r\n\r\n",
        ),
        (
            "chunked",
            Request { method: &post, length: Length::Unknown, ..plain },
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            "9112-6.1-03: gzip and then chunked",
            Request { method: &post, length: Length::Known(70), gzip: true, ..plain },
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            "9110-10.1.1: an expectation",
            Request { method: &post, length: Length::Known(1), expect_continue: true, ..plain },
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
        ),
        (
            "9110-10.1.1-03: no expectation without content",
            Request { method: &post, length: Length::Known(0), expect_continue: true, ..plain },
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "9112-9.6-01, 9112-9.3-02",
            Request { close: true, ..plain },
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        ),
        // 9110-7.6.1-01: what is of this hop is named in Connection.
        (
            "9112-7.4-03",
            Request { te_trailers: true, ..plain },
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
        ),
        (
            "all at once",
            Request { te_trailers: true, te_gzip: true, close: true, fields: &upgrade, ..plain },
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nTE: trailers, gzip\r\n\
             Connection: close, upgrade, TE\r\n\r\n",
        ),
        (
            "9110-7.8-02",
            Request { fields: &upgrade, ..plain },
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ),
        (
            "HTTP/1.0 asks to be kept",
            Request { version: Version::Http10, te_trailers: true, ..plain },
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "HTTP/1.0 without Host, and with an end",
            Request { version: Version::Http10, host: None, close: true, ..plain },
            "GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
        ),
    ] {
        assert_eq!(written(&mut client_of_11(), &request).as_deref(), Ok(expected), "{what}");
    }
}

/// What never gets into a request: H14, H22, H23, 9112-11.1-R1, and what the machine writes itself.
#[test]
fn refused_heads() {
    let (get_method, post, connect) = (Method::Get, Method::Post, Method::Connect);
    let plain = get(&get_method);
    let upgrade = fields(&[("Upgrade", "x")]);
    let of = |name: &str| fields(&[(name, "x")]);
    let ours = [
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Expect",
    ]
    .map(of);
    for fields in &ours {
        let request = Request { fields, ..plain };
        assert_eq!(written(&mut client_of_11(), &request), Err(Misuse::ForbiddenField), "{fields:?}");
    }
    for (what, request, expected) in [
        ("H23: a space", Request { target: b"/ HTTP/1.1\r\nX: y", ..plain }, Misuse::InvalidTarget),
        ("H23: CRLF", Request { target: b"/\r\n", ..plain }, Misuse::InvalidTarget),
        ("H15: a fragment", Request { target: b"/#a", ..plain }, Misuse::InvalidTarget),
        ("H16", Request { target: b"/\xc3\xa9", ..plain }, Misuse::InvalidTarget),
        ("nothing", Request { target: b"", ..plain }, Misuse::InvalidTarget),
        ("H13", Request { target: b"*", ..plain }, Misuse::InvalidTarget),
        ("9112-3.2.3-01", Request { method: &connect, ..plain }, Misuse::InvalidTarget),
        ("H04", Request { host: Some(b"u@a"), ..plain }, Misuse::InvalidHost),
        ("H22", Request { host: Some(b"a\r\nX: y"), ..plain }, Misuse::InvalidHost),
        ("9112-3.2-03", Request { host: None, ..plain }, Misuse::InvalidHost),
        (
            "9110-7.8-06",
            Request { version: Version::Http10, fields: &upgrade, ..plain },
            Misuse::ForbiddenField,
        ),
        ("HTTP/0.9 is off", Request { version: Version::Http09, ..plain }, Misuse::VersionOff),
        (
            "S76",
            Request { method: &connect, target: b"a:1", length: Length::Known(1), ..plain },
            Misuse::NoContentAllowed,
        ),
        (
            "no chunked in HTTP/1.0",
            Request { method: &post, version: Version::Http10, length: Length::Unknown, ..plain },
            Misuse::LengthNeeded,
        ),
    ] {
        assert_eq!(written(&mut client_of_11(), &request), Err(expected), "{what}");
    }
}

/// 9112-6.1-10, 9112-6.3-13: no coding for a server that has not shown to be HTTP/1.1.
#[test]
fn codings_only_for_known_servers() {
    let post = Method::Post;
    let unknown = Request { length: Length::Unknown, ..get(&post) };
    let coded = Request { length: Length::Known(9), gzip: true, ..get(&post) };
    assert_eq!(written(&mut client(), &unknown), Err(Misuse::LengthNeeded));
    assert!(written(&mut client(), &coded).unwrap().contains("Content-Length: 9\r\n"));

    let mut met = client();
    written(&mut met, &get(&Method::Get)).unwrap();
    receive(&mut met, "HTTP/1.1 204 X\r\n\r\n");
    assert!(written(&mut met, &unknown).unwrap().contains("Transfer-Encoding: chunked\r\n"));

    let mut old = client();
    written(&mut old, &get(&Method::Get)).unwrap();
    receive(&mut old, "HTTP/1.0 200 X\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(old.peer_version(), Some(Version::Http10));
    assert_eq!(written(&mut old, &unknown), Err(Misuse::LengthNeeded));

    let options = Options { assume_http11: true, ..Options::default() };
    let mut bold = ClientConnection::new(Arc::new(Config { options, ..Config::default() }));
    assert!(written(&mut bold, &unknown).unwrap().contains("Transfer-Encoding: chunked\r\n"));
}

/// HTTP/0.9: a bare GET as the first and only request.
#[test]
fn http_0_9() {
    let options = Options { http09: true, ..Options::default() };
    let config = Arc::new(Config { options, ..Config::default() });
    let method = Method::Get;
    let request = Request { version: Version::Http09, ..get(&method) };
    let mut client = ClientConnection::new(config.clone());
    assert_eq!(written(&mut client, &request).as_deref(), Ok("GET /\r\n"));
    assert_eq!(written(&mut client, &get(&method)), Err(Misuse::OutOfTurn));
    let post = Method::Post;
    let accept = fields(&[("Accept", "*/*")]);
    for refused in [
        Request { method: &post, ..request },
        Request { fields: &accept, ..request },
        Request { length: Length::Known(0), ..request },
    ] {
        assert_eq!(written(&mut ClientConnection::new(config.clone()), &refused), Err(Misuse::OutOfTurn));
    }
}

/// 9112-9.3.2-01, 9112-9.3.2-05, 9112-9.6-02a, 9112-9.6-08a: when another request may follow.
#[test]
fn turns() {
    let (get_method, post, connect) = (Method::Get, Method::Post, Method::Connect);
    let upgrade = fields(&[("Upgrade", "x")]);
    let second = get(&get_method);
    let after = |first: Request<'_>, known: bool| {
        let mut client = if known { client_of_11() } else { client() };
        written(&mut client, &first).unwrap();
        client.may_send()
    };
    assert_eq!(after(second, true), Ok(()));
    assert_eq!(after(second, false), Err(Misuse::MustWait), "not known to persist");
    assert_eq!(after(Request { method: &post, ..second }, true), Err(Misuse::MustWait), "not idempotent");
    assert_eq!(
        after(Request { length: Length::Known(1), ..second }, true),
        Err(Misuse::OutOfTurn),
        "not complete"
    );
    assert_eq!(after(Request { close: true, ..second }, true), Err(Misuse::OutOfTurn));
    assert_eq!(after(Request { fields: &upgrade, ..second }, true), Err(Misuse::OutOfTurn), "may switch");
    let tunnel = Request { method: &connect, target: b"a:1", ..second };
    assert_eq!(after(tunnel, true), Err(Misuse::OutOfTurn), "may switch");

    let limits = Limits { pipelined_requests_max: 2, ..Limits::default() };
    let mut client = ClientConnection::new(Arc::new(Config { limits, ..Config::default() }));
    client.learn_version(Version::Http11);
    written(&mut client, &second).unwrap();
    written(&mut client, &second).unwrap();
    assert_eq!(written(&mut client, &second), Err(Misuse::MustWait));
    receive(&mut client, "HTTP/1.1 204 X\r\n\r\n");
    written(&mut client, &second).unwrap();
    receive(&mut client, "HTTP/1.1 204 X\r\nConnection: close\r\n\r\n");
    assert_eq!(client.may_send(), Err(Misuse::OutOfTurn));
    assert_eq!(client.persistence(), Persistence::Close(CloseReason::ServerAsked));
    // 9112-9.6-08b: the last one is unanswered, and not taken for processed.
    assert_eq!((client.pending(), client.retry(0, true)), (1, Retry::Idempotent));
}

/// Faults R31, R32, 9112-9.3-06: a connection is free only between proven boundaries.
#[test]
fn reuse_needs_a_proof() {
    let method = Method::Get;
    let mut client = client();
    assert!(client.is_reusable(0));
    assert!(!client.is_reusable(1), "R03: surplus octets");
    written(&mut client, &get(&method)).unwrap();
    for part in ["HTTP/1.1 200 X\r\nKeep-Alive: timeout=5, max=99\r\nContent-Length: 3\r\n\r\n", "ab"] {
        assert!(!client.is_reusable(0));
        receive(&mut client, part);
    }
    assert!(!client.is_reusable(0));
    let mut head = ResponseHead::default();
    assert_eq!(client.receive(b"c", false, &mut head), Ok((1, Arrived::Data(b"c"))));
    assert!(!client.is_reusable(0), "its end was not seen yet");
    assert_eq!(client.receive(b"", false, &mut head), Ok((0, Arrived::End(None))));
    assert!(client.is_reusable(0));
    assert_eq!(client.keep_alive(), KeepAlive { timeout_secs: Some(5), requests_left: Some(99) });
    assert_eq!(client.counts(), (1, 1));
    client.stop(CloseReason::IdleTimeout);
    assert!(!client.is_reusable(0));
    assert_eq!(client.may_send(), Err(Misuse::OutOfTurn));
}

/// Promises of `Keep-Alive` that are none.
#[test]
fn keep_alive_is_a_hint() {
    for (value, timeout_secs, requests_left) in [
        ("timeout=5", Some(5), None),
        ("Timeout=0005,MAX=7", Some(5), Some(7)),
        ("timeout=99999999999999999999", Some(u32::MAX), None),
        ("timeout=-5", None, None),
        ("timeout=+5", None, None),
        ("timeout", None, None),
        ("timeout=\"5\"", None, None),
        ("", None, None),
    ] {
        let mut client = client();
        written(&mut client, &get(&Method::Get)).unwrap();
        receive(&mut client, &format!("HTTP/1.1 204 X\r\nKeep-Alive: {value}\r\n\r\n"));
        assert_eq!(client.keep_alive(), KeepAlive { timeout_secs, requests_left }, "{value:?}");
    }
}

/// RFC 9110 §9.2.2, 9112-9.3.2-03, 9112-9.3.2-07a: what may be sent again.
#[test]
fn retries() {
    let (get_method, post) = (Method::Get, Method::Post);
    let head = "HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n";
    for (what, method, octets, sent, expected) in [
        ("nothing went out", &post, "", false, Retry::NotSent),
        ("nothing came back", &get_method, "", true, Retry::Idempotent),
        ("nothing came back", &post, "", true, Retry::NotIdempotent),
        ("an interim response came back", &get_method, "HTTP/1.1 103 X\r\n\r\n", true, Retry::Idempotent),
        ("an interim response came back", &post, "HTTP/1.1 100 X\r\n\r\n", true, Retry::NotIdempotent),
        ("a head came back", &get_method, head, true, Retry::Answered),
    ] {
        let mut client = client();
        written(&mut client, &get(method)).unwrap();
        receive(&mut client, octets);
        assert_eq!(client.retry(0, sent), expected, "{what}");
        assert_eq!(expected.is_safe(), matches!(expected, Retry::NotSent | Retry::Idempotent));
        // The connection breaks: nothing changes.
        let _ = client.receive(b"", true, &mut ResponseHead::default());
        assert_eq!(client.retry(0, sent), expected, "{what}");
    }
    // Of a pipeline, the first one answered: the second one is still open.
    let mut client = client_of_11();
    written(&mut client, &get(&get_method)).unwrap();
    written(&mut client, &get(&get_method)).unwrap();
    receive(&mut client, head);
    assert_eq!((client.retry(0, true), client.retry(1, true)), (Retry::Answered, Retry::Idempotent));
    assert_eq!(client.retry(2, true), Retry::Answered, "there is none");
}

/// Content goes out by its framing; 9112-2.2-06, 9112-6.1-02, 9112-7.1-01.
#[test]
fn content() {
    let method = Method::Put;
    let trailers = fields(&[("X-Sum", "1")]);
    let mut client = client_of_11();
    let mut out = Vec::new();
    let request = Request { length: Length::Unknown, ..get(&method) };
    assert_eq!(client.send(&request, &mut out), Ok(Framing::Chunked { gzip: false }));
    out.clear();
    client.body().unwrap().write(b"hello", &mut out).unwrap();
    client.finish(Some(&trailers), &mut out).unwrap();
    assert_eq!(out, b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert_eq!(client.body().err(), Some(Misuse::OutOfTurn));
    receive(&mut client, "HTTP/1.1 204 X\r\n\r\n");
    assert!(client.is_reusable(0));

    // Less than was announced: the request is cut, and the connection of no more use.
    let request = Request { length: Length::Known(5), ..get(&method) };
    client.send(&request, &mut out).unwrap();
    assert_eq!(client.body().unwrap().write(b"hello!", &mut out), Err(Misuse::TooMuchContent));
    client.body().unwrap().write(b"hell", &mut out).unwrap();
    assert_eq!(client.finish(None, &mut out), Err(Misuse::TooLittleContent));
    assert_eq!(client.persistence(), Persistence::Close(CloseReason::RequestCut));
    assert!(!client.is_reusable(0));
}

/// Waiting for 100: RFC 9110 §10.1.1; fault S50: a final response instead of it.
#[test]
fn expectation() {
    let method = Method::Put;
    let request = Request { length: Length::Known(5), expect_continue: true, ..get(&method) };
    let expecting = || {
        let mut client = client_of_11();
        written(&mut client, &request).unwrap();
        assert!(client.awaits_continue());
        client
    };
    let mut client = expecting();
    receive(&mut client, "HTTP/1.1 103 X\r\n\r\n");
    assert!(client.awaits_continue(), "another interim response says nothing");
    receive(&mut client, "HTTP/1.1 100 X\r\n\r\n");
    assert!(!client.awaits_continue());
    assert_eq!(client.early_response(), None);

    let mut client = expecting();
    client.body().unwrap();
    assert!(!client.awaits_continue(), "patience has an end");
    receive(&mut client, "HTTP/1.1 417 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.early_response(), Some(Early::MayFinish));

    let mut client = expecting();
    receive(&mut client, "HTTP/1.1 417 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.early_response(), Some(Early::Stop));
    assert!(!client.is_reusable(0), "S50: the server may still wait for the content");
    client.abandon();
    assert_eq!(client.early_response(), None);
    assert!(!client.is_reusable(0));
    assert_eq!(client.closing(), Some(CloseReason::RequestCut));
}

/// 9112-9.5-05, 9112-9.5-06: a final response while the content is still going out.
#[test]
fn early_responses() {
    let method = Method::Put;
    let sending = |length, close| {
        let mut client = client_of_11();
        let request = Request { length, close, ..get(&method) };
        written(&mut client, &request).unwrap();
        let mut out = Vec::new();
        client.body().unwrap().write(b"ab", &mut out).unwrap();
        assert_eq!(client.early_response(), None);
        client
    };
    let head = |status: &str, connection: &str| {
        format!("HTTP/1.1 {status} X\r\n{connection}Content-Length: 2\r\n\r\n")
    };
    for (what, close, octets, expected) in [
        ("an echo", false, head("200", ""), Early::MayFinish),
        ("an echo that is the last", true, head("200", ""), Early::MayFinish),
        ("an echo that is the last", false, head("200", "Connection: close\r\n"), Early::MayFinish),
        ("a refusal on a connection that lives on", false, head("413", ""), Early::MayFinish),
        ("a refusal", false, head("413", "Connection: close\r\n"), Early::Stop),
        ("a redirection", false, head("302", "Connection: close\r\n"), Early::Stop),
        ("a whole response, and the end", false, head("200", "Connection: close\r\n") + "hi", Early::Stop),
        ("a whole response", false, head("200", "") + "hi", Early::MayFinish),
    ] {
        let mut client = sending(Length::Known(9), close);
        receive(&mut client, &octets);
        let mut head = ResponseHead::default();
        if octets.ends_with("hi") {
            assert_eq!(client.receive(b"", false, &mut head), Ok((0, Arrived::End(None))));
        }
        assert_eq!(client.early_response(), Some(expected), "{what}");
        assert!(!client.is_reusable(0), "{what}: the request is not complete");
        client.abandon();
        assert!(!client.is_reusable(0), "{what}: the request was cut");
    }
    // The whole of it was sent after all.
    let mut client = sending(Length::Unknown, false);
    receive(&mut client, &(head("413", "") + "hi"));
    assert_eq!(client.receive(b"", false, &mut ResponseHead::default()), Ok((0, Arrived::End(None))));
    assert_eq!(client.may_send(), Err(Misuse::OutOfTurn));
    client.finish(None, &mut Vec::new()).unwrap();
    assert!(client.is_reusable(0));
    assert_eq!(client.may_send(), Ok(()));
}
