//! Requests that are taken whole before a server is asked: what servers and clients see of it, its limits and its bad
//! ends.

use super::buffer::BufferPlan;
use super::*;
use std::sync::mpsc;

fn buffered(change: impl FnOnce(&mut BufferPlan)) -> BufferPlan {
    let mut plan = BufferPlan::default();
    plan.memory_bytes_max = 1000;
    change(&mut plan);
    plan
}

/// What a server that serves one connection after the other was asked, in order, with the content.
fn one_by_one() -> (u16, mpsc::Receiver<eleven_testkit::reader::Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = Reader::new(stream);
            let Ok(request) = reader.request() else { continue };
            let _ = told.send(request);
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
            let _ = reader.get_mut().write_all(answer);
        }
    });
    (port, asked)
}

fn with_buffer(port: u16, buffer: BufferPlan) -> Front {
    let mut with = plan(&[port]);
    with.buffer = Some(buffer);
    Front::gateway(with)
}

/// Fault D03 as a server sees it: a client that takes its time holds no server, which gets the request whole, with a
/// length (9112-6.3-02), once it is there. The server serves one connection at a time: if the first client held it, the
/// second would never be answered.
#[test]
fn slow_clients_hold_no_server() {
    let (port, asked) = one_by_one();
    let front = with_buffer(port, buffered(|_| {}));
    let mut slow = front.connect();
    slow.write_all(b"POST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        .unwrap();
    for turn in 0..3 {
        let mut quick = front.connect();
        write!(quick, "POST /quick HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n{turn}").unwrap();
        assert_eq!(Reader::new(quick).response("POST").unwrap().text(), "ok");
        slow.write_all(b"6\r\nsecond\r\n").unwrap();
    }
    slow.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(Reader::new(slow).response("POST").unwrap().text(), "ok");
    let asked: Vec<_> = (0..4).map(|_| asked.recv().unwrap()).collect();
    assert_eq!(
        asked.iter().map(|request| &*request.target).collect::<Vec<_>>(),
        ["/quick", "/quick", "/quick", "/slow"]
    );
    assert_eq!(asked[3].body, b"firstsecondsecondsecond");
    assert_eq!(asked[3].head.field("content-length"), Some("23"));
    assert_eq!(asked[3].head.field("transfer-encoding"), None);
}

/// 9110-10.1.1: whoever takes all of the content meets the expectation, and the server is not asked to; trailers need
/// the chunked coding and keep it.
#[test]
fn expectations_are_met_here_and_trailers_kept() {
    play_with(
        r#"
server origin
  await sent
  expect
    | PUT / HTTP/1.1
    | Host: h
    | Via: 1.1 me
    | Content-Length: 5
    |
  expect "hello"
  send "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
  expect
    | PUT /2 HTTP/1.1
    | Host: h
    | Trailer: X-Sum
    | Via: 1.1 me
    | Transfer-Encoding: chunked
    |
  expect "5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"
  send "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
client
  send "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
  expect
    | HTTP/1.1 100 Continue
    |
  send "hello"
  signal sent
  expect
    | HTTP/1.1 201 Created
    | ...
    |
  send "PUT /2 HTTP/1.1\r\nHost: h\r\nTrailer: X-Sum\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
  expect
    | HTTP/1.1 100 Continue
    |
  send "5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"
  expect
    | HTTP/1.1 201 Created
    | ...
    |
"#,
        |plan| plan.buffer = Some(buffered(|_| {})),
    );
}

/// Content that does not fit into memory comes through a file, octet by octet the same, and the file goes with it.
#[test]
fn large_content_goes_by_way_of_a_file() {
    let (port, asked) = one_by_one();
    let buffer = buffered(|_| {});
    let seen = buffer.clone();
    let front = with_buffer(port, buffer);
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i / 251) as u8).collect();
    let mut client = front.connect();
    write!(client, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    for chunk in content.chunks(100_000) {
        write!(client, "{:x}\r\n", chunk.len()).unwrap();
        client.write_all(chunk).unwrap();
        client.write_all(b"\r\n").unwrap();
    }
    let until = |there: bool| {
        let begun = std::time::Instant::now();
        while (seen.disk_bytes() > 0) != there {
            assert!(begun.elapsed() < Duration::from_secs(20), "is in a file: {}", !there);
            std::thread::yield_now();
        }
    };
    until(true);
    client.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(Reader::new(client).response("POST").unwrap().status, 200);
    let request = asked.recv().unwrap();
    assert_eq!(request.head.field("content-length"), Some("3000000"));
    assert!(request.body == content);
    until(false);
}

/// What cannot be kept is refused by name, and no server hears of it.
#[test]
fn limits_and_bad_ends() {
    let gone = std::path::PathBuf::from("/nonexistent/eleven");
    for (buffer, wire, status) in [
        (buffered(|b| b.content_bytes_max = 10), "Content-Length: 11\r\n\r\nhello".to_owned(), 413),
        (
            buffered(|b| b.content_bytes_max = 10),
            "Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n".to_owned(),
            413,
        ),
        (
            buffered(|b| b.directory = gone),
            format!("Content-Length: 200000\r\n\r\n{}", "x".repeat(200_000)),
            507,
        ),
        (
            buffered(|_| {}).with_disk(50_000),
            format!("Content-Length: 200000\r\n\r\n{}", "x".repeat(200_000)),
            503,
        ),
        (buffered(|_| {}), "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n".to_owned(), 400),
    ] {
        // Whoever asks the server anyway gets 502.
        let nobody = Nobody::new();
        let front = with_buffer(nobody.port(), buffer);
        let mut client = front.connect();
        let _ = client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\n");
        let _ = client.write_all(wire.as_bytes());
        let response = Reader::new(client).response("POST").unwrap();
        assert_eq!(response.status, status);
        assert_eq!(response.field("retry-after").is_some(), status == 503);
    }
    // Content that was cut reaches nobody, with a length or without (invariant 9).
    let (port, asked) = one_by_one();
    let front = with_buffer(port, buffered(|_| {}));
    for framing in ["Content-Length: 11", "Transfer-Encoding: chunked"] {
        let mut client = front.connect();
        write!(client, "POST /cut HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n5\r\nhello\r\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    assert_eq!(get(&front, "/whole").status, 200);
    assert_eq!(asked.recv().unwrap().target, "/whole");
}

/// Content that is here can be sent again: a server that dies over an idempotent request costs nothing, even when the
/// content came slowly and lies in a file.
#[test]
fn buffered_requests_are_tried_again_elsewhere() {
    for (method, size, status) in [("PUT", 500, 200), ("PUT", 300_000, 200), ("POST", 300_000, 502)] {
        let dying = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = one_by_one();
        let mut with = plan(&[dying.local_addr().unwrap().port(), port]);
        with.buffer = Some(buffered(|_| {}));
        let front = Front::gateway(with);
        let server = std::thread::spawn(move || {
            let (stream, _) = dying.accept().unwrap();
            Reader::new(stream).request().unwrap().body
        });
        let content: Vec<u8> = (0..size).map(|i| (i / 3) as u8).collect();
        let mut client = front.connect();
        write!(client, "{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n").unwrap();
        // In two pieces: the head alone is not the whole request.
        client.write_all(&content[..size / 2]).unwrap();
        client.write_all(&content[size / 2..]).unwrap();
        assert_eq!(Reader::new(client).response(method).unwrap().status, status, "{method} {size}");
        assert!(server.join().unwrap() == content);
        if status == 200 {
            assert!(asked.recv().unwrap().body == content);
        }
    }
}
