//! Exchanges over connections in memory, with a server that says exactly what a table says. The link splits and
//! delays everything by a seed, so every table row is also a test of the seams.

use super::*;
use crate::error::RetrySafety;
use eleven_messaging::server::Length;
use eleven_messaging::{CloseReason, Config, Persistence};
use eleven_net::memory::{Link, duplex};
use eleven_net::{Stream, pipe};
use eleven_semantics::Method;
use std::sync::Arc;

/// A connection, and the server's end of it.
fn pair(seed: u64) -> (Connection, Stream) {
    let (client, server) = duplex(seed, Link::rough(), Link::rough());
    let connection =
        Connection::new(Stream::Memory(Box::new(client)), Arc::new(Config::default()), "h:80", None);
    (connection, Stream::Memory(Box::new(server)))
}

/// Reads until `end` was received; everything.
async fn read_until(server: &mut Stream, end: &str) -> String {
    let mut got = Vec::new();
    let mut octet = [0; 1];
    while !got.ends_with(end.as_bytes()) {
        match server.read(&mut octet).await {
            Ok(1) => got.push(octet[0]),
            _ => break,
        }
    }
    String::from_utf8(got).unwrap()
}

struct Outcome {
    statuses: Vec<u16>,
    content: Vec<u8>,
    trailers: Option<String>,
    persistence: Persistence,
    reusable: bool,
}

async fn drive(
    connection: &mut Connection,
    method: &Method,
    length: Length,
    expect_continue: bool,
    content: Content,
) -> Result<Outcome, Failure> {
    let fields = Fields::new();
    let request = Request { length, expect_continue, ..Request::new(method, b"/", b"h", &fields) };
    let mut statuses = Vec::new();
    let mut exchange = Exchange::begin(&mut *connection, &request, content, Deadlines::default())?;
    exchange.head(|head| statuses.push(head.status.code())).await?;
    statuses.push(exchange.connection().head().status.code());
    let mut content = Vec::new();
    while let Some(data) = exchange.data().await? {
        content.extend_from_slice(data);
    }
    exchange.settle().await?;
    let trailers = exchange.trailers().map(|t| String::from_utf8_lossy(t.wire()).into_owned());
    let (persistence, reusable) = (connection.persistence(), connection.is_reusable());
    Ok(Outcome { statuses, content, trailers, persistence, reusable })
}

/// A GET answered with exactly these octets, then the end of the connection if `close`.
async fn get(seed: u64, answer: &[u8], close: bool) -> Result<Outcome, Failure> {
    let (mut connection, mut server) = pair(seed);
    let answer = answer.to_vec();
    let serving = tokio::task::spawn_local(async move {
        read_until(&mut server, "\r\n\r\n").await;
        let _ = server.write_all(&answer).await;
        if !close {
            // Stays open: the client must know the end without it.
            read_until(&mut server, "never").await;
        }
    });
    let outcome = drive(&mut connection, &Method::Get, Length::Absent, false, Content::None).await;
    drop(connection);
    let _ = serving.await;
    outcome
}

/// 9112-9.3-06, 9112-6.3-R1, 9112-6.3-R7, 9110-15.2-02.
#[tokio::test(flavor = "local", start_paused = true)]
async fn responses_of_every_framing() {
    for (answer, close, statuses, content, reusable) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, &[200][..], "hello", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, &[204], "", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, &[200], "", true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            &[200],
            "hello",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", true, &[200], "hello", false),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", true, &[200], "hi", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", true, &[200], "hi", false),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nhi",
            false,
            &[103, 100, 404],
            "hi",
            true,
        ),
        ("HTTP/1.1 299 \r\nContent-Length: 1\r\n\r\nx", false, &[299], "x", true),
    ] {
        for seed in 0..20 {
            let outcome =
                get(seed, answer.as_bytes(), close).await.unwrap_or_else(|f| panic!("{answer}: {f}"));
            assert_eq!(outcome.statuses, statuses, "{answer}");
            assert_eq!(
                (outcome.content.as_slice(), outcome.reusable),
                (content.as_bytes(), reusable),
                "{answer}"
            );
            assert_eq!(outcome.persistence == Persistence::Keep, reusable, "{answer}");
        }
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n";
    assert_eq!(get(1, chunked.as_bytes(), false).await.unwrap().trailers.as_deref(), Some("A: b\r\n"));
}

/// 9112-8-02, 9112-8-R1, 9112-8-R2: cut at any octet, it is a failure and never a shorter success. Nothing of a
/// response yet: safe to ask again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn cut_at_every_octet() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ] {
        let head_at = answer.rfind("200 OK").unwrap();
        let head_end = answer[head_at..].find("\r\n\r\n").unwrap() + head_at + 4;
        for end in 0..answer.len() {
            let Err(failure) = get(end as u64, &answer.as_bytes()[..end], true).await else {
                panic!("{end} octets of {answer:?} were taken for a response");
            };
            assert_eq!(failure.cause, Cause::Closed, "{end} {answer:?}");
            let expected = if end < head_end { RetrySafety::Idempotent } else { RetrySafety::Never };
            assert_eq!(failure.retry, expected, "{end} {answer:?}");
            assert!(failure.is_transient());
        }
    }
}

/// 9112-6.3-07, 9112-6.3-15, 9112-9.2-02b; faults D19, D20, D21, K33, K39: bounded, and an error that says so.
#[tokio::test(flavor = "local", start_paused = true)]
async fn hostile_responses_end_in_bounded_errors() {
    let endless = |head: &str, unit: &str| format!("{head}{}", unit.repeat(400_000 / unit.len()));
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (what, answer) in [
        ("endless fields", endless(ok, "X: y\r\n")),
        ("an endless field", endless(ok, "aaaaaaaaaaaaaaaa")),
        ("an endless status line", endless("HTTP/1.1 200 ", "a")),
        ("endless interim responses", endless("", "HTTP/1.1 100 Continue\r\n\r\n")),
        ("endless chunk extensions", endless(&format!("{chunked}1;"), "a=b;")),
        ("an endless trailer section", endless(&format!("{chunked}0\r\n"), "A: b\r\n")),
        ("a chunk size too many", format!("{chunked}ffffffffffffffff1\r\n")),
        ("a bad chunk size", format!("{chunked}+5\r\nhello\r\n0\r\n\r\n")),
        ("a chunk that is too long", format!("{chunked}2\r\nhello\r\n0\r\n\r\n")),
        ("two lengths", format!("{ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")),
        ("a length with a sign", format!("{ok}Content-Length: +5\r\n\r\nhello")),
        ("no HTTP", "SSH-2.0-OpenSSH\r\n".to_owned()),
        ("HTTP/0.9", "<html>".to_owned()),
        ("ICY", "ICY 200 OK\r\n\r\n".to_owned()),
        ("a bare LF", "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\nx".to_owned()),
        ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n".to_owned()),
        (
            "a switch nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
        ),
    ] {
        let failure =
            get(3, answer.as_bytes(), false).await.err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(matches!(failure.cause, Cause::Malformed(_)), "{what}: {failure}");
    }
    // More than the length said: the surplus is nothing, and the connection is not used again (K33).
    let surplus =
        get(3, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", false).await;
    let surplus = surplus.unwrap();
    assert_eq!(surplus.content, b"hi");
}

/// Fault K34, 9112-9.5-01: a server that says nothing, or stops in the middle, costs one deadline.
#[tokio::test(flavor = "local", start_paused = true)]
async fn silence_ends_at_a_deadline() {
    let begun = clock::now();
    for (answer, phase) in [
        ("", Phase::Head),
        ("HTTP/1.1 200", Phase::Head),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", Phase::Content),
    ] {
        let failure = get(1, answer.as_bytes(), false).await.err().unwrap();
        assert_eq!((failure.phase, failure.cause), (phase, Cause::Timeout(60_000)), "{answer}");
    }
    assert!(clock::now() - begun < Duration::from_secs(200));
}

async fn upload(
    answers: &[(&'static str, &'static str)],
    expect: bool,
    content: Content,
    length: Length,
) -> (Result<Outcome, Failure>, String) {
    let (mut connection, mut server) = pair(5);
    let answers = answers.to_vec();
    connection.machine_mut().learn_version(eleven_semantics::Version::Http11);
    let serving = tokio::task::spawn_local(async move {
        let mut seen = String::new();
        for (wait, answer) in answers {
            seen.push_str(&read_until(&mut server, wait).await);
            let _ = server.write_all(answer.as_bytes()).await;
        }
        // A server that closed at once would reset what was not read, and the answer with it.
        read_until(&mut server, "never").await;
        seen
    });
    let outcome = drive(&mut connection, &Method::Put, length, expect, content).await;
    drop(connection);
    (outcome, serving.await.unwrap())
}

/// RFC 9110 §10.1.1: content waits for 100, for a bounded time, and never goes out after a refusal.
#[tokio::test(flavor = "local", start_paused = true)]
async fn the_wait_for_100_is_bounded() {
    let body = || Content::Bytes(Bytes::from_static(b"content"));
    let ok = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";
    let (outcome, seen) = upload(
        &[("\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"), ("content", ok)],
        true,
        body(),
        Length::Known(7),
    )
    .await;
    assert_eq!(outcome.unwrap().statuses, [100, 201]);
    assert!(seen.contains("Expect: 100-continue\r\n") && seen.ends_with("content"));

    let begun = clock::now();
    let (outcome, seen) = upload(&[("content", ok)], true, body(), Length::Known(7)).await;
    assert_eq!(outcome.unwrap().statuses, [201], "a server that does not know 100");
    assert!(seen.ends_with("content"));
    assert!(clock::now() - begun >= Duration::from_millis(1000));

    let refused = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n";
    let (outcome, seen) =
        upload(&[("\r\n\r\n", refused), ("content", "")], true, body(), Length::Known(7)).await;
    let outcome = outcome.unwrap();
    assert_eq!((outcome.statuses.as_slice(), outcome.reusable), (&[417][..], false));
    assert!(!seen.contains("\r\n\r\ncontent"), "content withheld stays withheld");
}

/// 9112-9.5-05, 9112-9.5-06: an early refusal is seen while sending, and ends it.
#[tokio::test(flavor = "local", start_paused = true)]
async fn early_responses_stop_the_content() {
    let large = Content::Bytes(Bytes::from(vec![b'x'; 3_000_000]));
    let early = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno";
    let (outcome, seen) = upload(&[("xxxx", early)], false, large, Length::Known(3_000_000)).await;
    let outcome = outcome.unwrap();
    assert_eq!((outcome.statuses.as_slice(), outcome.content.as_slice()), (&[413][..], &b"no"[..]));
    assert!(!outcome.reusable && seen.len() < 10_000);
}

/// Content that comes as it is made, with trailers; and content whose maker fails, which must not look whole.
#[tokio::test(flavor = "local", start_paused = true)]
async fn content_from_a_pipe() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (mut writer, reader) = pipe::<Option<Fields>>(1000);
    tokio::task::spawn_local(async move {
        for _ in 0..3 {
            writer.send(Bytes::from_static(b"abc")).await.unwrap();
            tokio::task::yield_now().await;
        }
        writer.complete(Some([("Content-Digest", "sha-256=:AA==:")].iter().collect()));
    });
    let done = &[("\r\n0\r\nContent-Digest: sha-256=:AA==:\r\n\r\n", ok)];
    let (outcome, seen) = upload(done, false, Content::Pipe(reader), Length::Unknown).await;
    assert_eq!(outcome.unwrap().statuses, [200]);
    assert!(seen.contains("Transfer-Encoding: chunked\r\n") && seen.matches("abc").count() == 3, "{seen}");

    let (mut writer, reader) = pipe::<Option<Fields>>(1000);
    tokio::task::spawn_local(async move {
        writer.send(Bytes::from_static(b"abc")).await.unwrap();
        writer.abort(eleven_net::pipe::Reason::Storage);
    });
    let (outcome, seen) = upload(done, false, Content::Pipe(reader), Length::Unknown).await;
    assert!(outcome.is_err() && !seen.ends_with("0\r\n\r\n"), "{seen}");
}

/// A response to a request that the server closed on while it was still being sent.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_close_while_sending_is_named_with_its_retry_safety() {
    for (method, expected) in
        [(Method::Put, RetrySafety::Idempotent), (Method::Post, RetrySafety::MayHaveBeenProcessed)]
    {
        let (mut connection, mut server) = pair(9);
        tokio::task::spawn_local(async move {
            read_until(&mut server, "xxxx").await;
        });
        let content = Content::Bytes(Bytes::from(vec![b'x'; 3_000_000]));
        let result = drive(&mut connection, &method, Length::Known(3_000_000), false, content).await;
        assert_eq!(result.err().unwrap().retry, expected, "{method}");
        assert!(!connection.is_reusable());
    }
    // A connection that was closed before: nothing went out at all.
    let (mut connection, server) = pair(9);
    drop(server);
    tokio::task::yield_now().await;
    assert!(!connection.is_alive());
    connection.machine_mut().stop(CloseReason::PeerClosed);
    let result = drive(&mut connection, &Method::Post, Length::Known(0), false, Content::None).await;
    assert_eq!(result.err().unwrap().retry, RetrySafety::NotSent);
}

/// RFC 2616 §8.2.4.
#[test]
fn back_off_doubles_from_the_round_trip() {
    for (round_trip_ms, attempt, expected_ms) in [
        (Some(100), 0, 100),
        (Some(100), 3, 800),
        (None, 0, 5_000),
        (None, 2, 20_000),
        (None, 9, 60_000),
        (Some(1), 99, 60_000),
    ] {
        let round_trip = round_trip_ms.map(Duration::from_millis);
        assert_eq!(back_off(round_trip, attempt), Duration::from_millis(expected_ms));
    }
}
