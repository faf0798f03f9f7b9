//! The example on real sockets: what axum does, seen by a strict reader.

use eleven_net::listener::ListenAddr;
use eleven_server::apps::service;
use eleven_server::serve::Running;
use eleven_testkit::reader::{Framing, Reader, Response};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

struct Server(Running);

impl Server {
    fn start() -> Server {
        let address = ListenAddr::Tcp { host: Some("127.0.0.1".to_owned()), port: 0 };
        Server(service::serve(address, eleven_example_axum::app()).unwrap())
    }

    fn stream(&self) -> TcpStream {
        let address = self.0.addresses()[0].trim_start_matches("http://").trim_end_matches('/');
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.stop();
        self.0.wait();
    }
}

#[track_caller]
fn ask(connection: &mut Reader<TcpStream>, request: &str, more: &str, content: &str) -> Response {
    let text = format!("{request} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n{content}");
    connection.get_mut().write_all(text.as_bytes()).unwrap();
    connection.response(request.split(' ').next().unwrap()).unwrap()
}

#[test]
fn routing_and_extractors() {
    let server = Server::start();
    let mut connection = Reader::new(server.stream());
    for (request, more, content, status, expected) in [
        ("GET /", "", "", 200, "Hello, world!"),
        ("GET /hello/Ann", "", "", 200, "Hello, Ann!"),
        ("GET /hello/%C3%A9?greeting=Good%20day", "", "", 200, "Good day, é!"),
        ("GET http://other.example/hello/Bob", "", "", 200, "Hello, Bob!"),
        ("GET /none", "", "", 404, ""),
        ("DELETE /", "", "", 405, ""),
        ("GET /client", "", "", 200, "127.0.0.1"),
        (
            "POST /json",
            "Content-Type: application/json\r\nContent-Length: 7\r\n",
            "{\"a\":1}",
            200,
            "{\"got\":{\"a\":1}}",
        ),
        (
            "POST /json",
            "Content-Length: 1\r\n",
            "x",
            415,
            "Expected request with `Content-Type: application/json`",
        ),
        ("POST /echo", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, "abcde"),
    ] {
        let response = ask(&mut connection, request, more, content);
        assert_eq!((response.status, response.text().as_str()), (status, expected), "{request}");
    }
    let head = ask(&mut connection, "HEAD /", "", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some("13")));
}

#[test]
fn content_that_is_made_while_it_is_sent() {
    let server = Server::start();
    let mut connection = Reader::new(server.stream());
    let response = ask(&mut connection, "GET /count/1000", "", "");
    assert!(matches!(response.framing, Framing::Chunked { .. }));
    assert_eq!(response.text(), (0..1000).map(|n| format!("{n}\n")).collect::<String>());
    assert_eq!(ask(&mut connection, "GET /", "", "").status, 200, "the connection is in step");
}

/// Events arrive one by one while the response goes on; a client that leaves ends it.
#[test]
fn server_sent_events() {
    let server = Server::start();
    let mut stream = server.stream();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
    assert!(lines.any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")));
    for number in 0..3 {
        assert!(lines.any(|line| line == "event: tick"));
        assert_eq!(lines.next().unwrap(), format!("data: {number}"));
    }
}

/// RFC 6455 §1.3 and §5.7: the handshake of the example there, and masked frames.
#[test]
fn websocket() {
    let server = Server::start();
    let mut stream = server.stream();
    let handshake = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    // The first message comes along with the handshake.
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    stream.write_all(&[handshake.as_bytes(), &hello].concat()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        head.push(octet[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    let mut frame = [0; 7];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x05olleH");
    // A close frame is answered by one, and the connection ends.
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest[0], 0x88);
}

#[test]
fn what_is_no_websocket_handshake_is_refused() {
    let server = Server::start();
    let mut connection = Reader::new(server.stream());
    assert_eq!(ask(&mut connection, "GET /chat", "", "").status, 400);
    assert_eq!(ask(&mut connection, "GET /", "", "").status, 200);
}
