//! The PROXY protocol towards us, over sockets (fault X09): relays that are trusted say who a connection is from, nobody
//! else gets in, and what is not exactly a header ends the connection without an answer. The server is a gateway whose
//! server says whom it was told of.

use eleven_net::listener::ListenAddr;
use eleven_net::proxy_protocol::{Header, Version, write};
use eleven_server::handler::Handler;
use eleven_server::proxy::upstream::ServerPlan;
use eleven_server::proxy::{Gateway, GatewayPlan};
use eleven_server::relayed::Relays;
use eleven_server::serve::{Endpoint, Options, Running, start};
use eleven_server::service::Service;
use eleven_server::worker::Settings;
use eleven_testkit::reader::{Reader, Response};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

struct Server {
    running: Running,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.stop();
    }
}

/// Answers with X-Forwarded-For.
fn telling() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = Reader::new(stream);
                while let Ok(request) = reader.request() {
                    let told = request.head.all("x-forwarded-for").join(", ");
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}", told.len());
                    let _ = reader.get_mut().write_all(answer.as_bytes());
                }
            });
        }
    });
    port
}

fn server(address: &str, trusted: &str, per_address: u32) -> Server {
    let endpoint = Endpoint::from(address.parse::<ListenAddr>().unwrap());
    endpoint.relays.store(Some(Arc::new(Relays { networks: [trusted.parse().unwrap()].into() })));
    let plan = Arc::new(GatewayPlan::new(vec![ServerPlan::tcp("127.0.0.1", telling())], "me"));
    let running = start(Options {
        listen: vec![endpoint],
        workers: 1,
        settings: Settings::default(),
        connections_max: 0,
        connections_per_address_max: per_address,
        log: None,
        metrics: Arc::default(),
        service: Arc::new(move || Service::single(Handler::Gateway(Gateway::start(plan.clone())))),
    })
    .unwrap();
    let address = running.addresses()[0].trim_start_matches("http://").trim_end_matches('/').to_owned();
    Server { running, address }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn header(version: Version, source: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let source = source.parse().unwrap();
    write(&mut out, version, &Header::Proxied { source, destination: "192.0.2.80:80".parse().unwrap() });
    out
}

fn told(mut stream: impl Read + Write, octets: &[&[u8]]) -> Response {
    for piece in octets {
        stream.write_all(piece).unwrap();
    }
    Reader::new(stream).response("GET").unwrap()
}

/// All that comes until the connection ends; a reset is an end, too.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    match stream.read_to_end(&mut got) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the connection stays open"),
        _ => got,
    }
}

#[test]
fn relays_say_who_a_connection_is_from() {
    let server = server("127.0.0.1:0", "127.0.0.0/8", 0);
    let mut local = Vec::new();
    write(&mut local, Version::V2, &Header::Local);
    for (header, client) in [
        (header(Version::V1, "203.0.113.7:4711"), "203.0.113.7"),
        (header(Version::V2, "203.0.113.8:4711"), "203.0.113.8"),
        (header(Version::V1, "[2001:db8::9]:4711"), "2001:db8::9"),
        (header(Version::V2, "[2001:db8::a]:4711"), "2001:db8::a"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (local, "127.0.0.1"),
    ] {
        // Header and request in one piece, and octet by octet.
        assert_eq!(told(server.connect(), &[&header, GET]).text(), client);
        let octets: Vec<&[u8]> = header.chunks(1).chain([GET]).collect();
        assert_eq!(told(server.connect(), &octets).text(), client);
        // What a client says of itself is replaced as ever (fault X06).
        let lie = b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n";
        assert_eq!(told(server.connect(), &[&header, lie]).text(), client);
    }
}

#[test]
fn what_is_not_a_header_ends_the_connection_in_silence() {
    let server = server("127.0.0.1:0", "127.0.0.0/8", 0);
    for octets in [
        GET.to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4, 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(),
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0b".as_slice(), &[0; 11], GET].concat(),
        [b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c".as_slice(), &[0; 12], GET].concat(),
        // A second header is no request.
        [&header(Version::V1, "203.0.113.7:1")[..], b"PROXY UNKNOWN\r\n", GET].concat(),
    ] {
        let mut stream = server.connect();
        let _ = stream.write_all(&octets);
        let got = rest(stream);
        assert!(
            got.is_empty() || got.starts_with(b"HTTP/1.1 400 "),
            "{}: {}",
            octets.escape_ascii(),
            got.escape_ascii()
        );
        assert_eq!(got.is_empty(), !octets.ends_with(&[b"PROXY UNKNOWN\r\n", GET].concat()));
    }
    assert_eq!(told(server.connect(), &[b"PROXY UNKNOWN\r\n", GET]).status, 200);
}

#[test]
fn strangers_do_not_get_in_whatever_they_say() {
    let server = server("127.0.0.1:0", "192.0.2.0/24", 0);
    for octets in [GET.to_vec(), [&header(Version::V2, "192.0.2.1:1")[..], GET].concat()] {
        let mut stream = server.connect();
        let _ = stream.write_all(&octets);
        assert_eq!(rest(stream), b"");
    }
}

/// The limit of connections for an address counts clients, not the relay that brings them all.
#[test]
fn clients_are_counted_and_not_their_relay() {
    let server = server("127.0.0.1:0", "127.0.0.1/32", 2);
    let mut open = Vec::new();
    for client in ["203.0.113.1:1", "203.0.113.1:2", "203.0.113.2:1", "203.0.113.2:2", "203.0.113.3:1"] {
        let mut stream = server.connect();
        stream.write_all(&header(Version::V1, client)).unwrap();
        stream.write_all(GET).unwrap();
        let mut reader = Reader::new(stream);
        assert_eq!(reader.response("GET").unwrap().status, 200, "{client}");
        open.push(reader);
    }
    let mut third = server.connect();
    third.write_all(&header(Version::V1, "203.0.113.1:3")).unwrap();
    let _ = third.write_all(GET);
    assert_eq!(rest(third), b"");
    // One that leaves makes room.
    drop(open.remove(0));
    let begun = std::time::Instant::now();
    loop {
        let mut stream = server.connect();
        stream.write_all(&header(Version::V1, "203.0.113.1:4")).unwrap();
        let _ = stream.write_all(GET);
        if Reader::new(stream).response("GET").is_ok() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the place was never given back");
    }
}

/// Over a Unix socket its mode says who may connect.
#[test]
fn unix_sockets_have_relays_too() {
    let name =
        format!("eleven-relayed-{:016x}", u64::from_ne_bytes(eleven_net::random::bytes::<8>().unwrap()));
    let path = std::env::temp_dir().join(name);
    let server = server(&format!("unix:{}", path.display()), "192.0.2.0/24", 0);
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(told(stream, &[&header(Version::V2, "203.0.113.7:1"), GET]).text(), "203.0.113.7");
    drop(server);
}
