//! The session in a simulated world: random clients against the echo server, over links that split, delay, pretend
//! and break, all from one seed. What comes back is read by a reader that shares nothing with the product,
//! and compared with a small model.

use super::serve;
use crate::apps::service::InProcess;
use crate::echo::Echo;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::request::Local;
use crate::service::Service;
use crate::worker::{Settings, Worker};
use eleven_net::ledger::{Caps, Ledger};
use eleven_net::memory::{Link, MemoryStream, duplex};
use eleven_net::{PeerAddr, Stream};
use eleven_testkit::reader::{Framing, Reader, Response};
use eleven_testkit::rng::{Rng, each_seed};
use std::future::{Future, poll_fn};
use std::io::Cursor;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

/// A request and what must come back.
struct Exchange {
    request: Vec<u8>,
    method: &'static str,
    status: u16,
    body: Option<Vec<u8>>,
    /// The response ends the connection.
    closes: bool,
}

fn exchange(method: &'static str, path: &str, fields: &str, content: &[u8]) -> Exchange {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n").into_bytes();
    request.extend_from_slice(content);
    Exchange { request, method, status: 200, body: None, closes: false }
}

impl Exchange {
    fn gets(mut self, status: u16, body: Option<&[u8]>) -> Exchange {
        (self.status, self.body) = (status, body.map(<[u8]>::to_vec));
        self
    }

    fn closing(mut self) -> Exchange {
        self.closes = true;
        self
    }
}

fn chunked(rng: &mut Rng, content: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    for piece in rng.pieces(content, 3000) {
        let extension = if rng.chance(1, 4) { ";x=\"y;z\"" } else { "" };
        coded.extend_from_slice(format!("{:X}{extension}\r\n", piece.len()).as_bytes());
        coded.extend_from_slice(piece);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(b"000\r\nX-Sum: 1\r\n\r\n");
    coded
}

const GREETING: &[u8] = b"Hello from eleven.\n";

fn any_exchange(rng: &mut Rng) -> Exchange {
    let size = rng.below(20_000) as usize;
    let content = rng.bytes(size);
    match rng.below(14) {
        0 => exchange("GET", "/", "", b"").gets(200, Some(GREETING)),
        1 => exchange("HEAD", "/", "Accept: */*\r\n", b"").gets(200, Some(b"")),
        2 | 3 => {
            let length = format!("Content-Length: {}\r\n", content.len());
            exchange("POST", "/", &length, &content).gets(200, Some(&content))
        }
        4 | 5 => {
            let coded = chunked(rng, &content);
            exchange("PUT", "/", "Transfer-Encoding: chunked\r\n", &coded).gets(200, Some(&content))
        }
        6 => {
            let lines: String = (1..=40).map(|i| format!("line {i} of 40\n")).collect();
            exchange("GET", "/stream/40", "", b"").gets(200, Some(lines.as_bytes()))
        }
        7 => exchange("GET", "/delay/0.050", "", b"").gets(200, Some(b"waited 50 ms\n")),
        8 => exchange("GET", "/status/404", "", b"").gets(404, Some(b"404 Not Found\n")),
        9 => exchange("DELETE", "/", "", b"").gets(405, None),
        10 => {
            // The client does not wait for 100, as it may.
            let fields = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", content.len());
            let sent = if content.is_empty() { &b""[..] } else { &content[..] };
            exchange("POST", "/", &fields, sent).gets(200, Some(&content))
        }
        11 => exchange("BREW", "/", "", b"").gets(501, None),
        12 => {
            // The content is not wanted, little enough to be read away.
            let length = format!("Content-Length: {}\r\n", content.len());
            exchange("GET", "/cookie", &format!("{length}Cookie: a=1; b=2\r\n"), &content)
                .gets(200, Some(b"a=1\nb=2\n"))
        }
        _ => exchange("GET", "/early-hints", "", b"").gets(200, Some(GREETING)),
    }
}

/// The last exchange: one that ends the connection in some way, or nothing special.
fn last_exchange(rng: &mut Rng) -> Exchange {
    match rng.below(5) {
        0 => exchange("GET", "/", "Connection: close\r\n", b"").gets(200, Some(GREETING)).closing(),
        1 => exchange("GET", "/", "Bad Name: x\r\n", b"").gets(400, None).closing(),
        2 => {
            let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
            exchange("POST", "/", both, b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n").gets(400, None).closing()
        }
        3 => {
            let fields = "Transfer-Encoding: chunked\r\n";
            exchange("POST", "/echo", fields, b"5\r\nhelloXX0\r\n\r\n").gets(400, None).closing()
        }
        _ => any_exchange(rng),
    }
}

/// Sends `octets` and reads all that comes, at the same time, as a client with two hands does.
async fn talk(mut stream: MemoryStream, octets: Vec<u8>, half_close: bool) -> Vec<u8> {
    let (mut sent, mut got, mut done_sending) = (0, Vec::new(), false);
    poll_fn(move |cx| {
        while !done_sending {
            if sent == octets.len() {
                if half_close {
                    stream.shutdown_write();
                }
                done_sending = true;
                break;
            }
            match stream.try_write(&octets[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if stream.poll_write_ready(cx).is_pending() {
                        break;
                    }
                }
                Err(_) => done_sending = true,
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match stream.try_read(&mut buffer) {
                Ok(0) => return Poll::Ready(std::mem::take(&mut got)),
                Ok(n) => got.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_read_ready(cx));
                }
                Err(_) => return Poll::Ready(std::mem::take(&mut got)),
            }
        }
    })
    .await
}

/// Runs one connection; what the client got. Fails if the server does not let go of it in time.
fn simulate(rng: &mut Rng, octets: Vec<u8>, forth: Link, back: Link, half_close: bool) -> Vec<u8> {
    simulate_with(Handler::Echo(Echo), rng, octets, forth, back, half_close)
}

fn simulate_with(
    handler: Handler,
    rng: &mut Rng,
    octets: Vec<u8>,
    forth: Link,
    back: Link,
    half_close: bool,
) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(Default::default())
        .unwrap();
    let seed = rng.bits();
    runtime.block_on(async move {
        let ledger = Ledger::new(Caps { connections_max: 10, connections_per_address_max: 0 });
        let service = Rc::new(Service::single(handler));
        let worker =
            Worker::new(service, Settings::default(), ledger.clone(), None, Metrics::default().recorder());
        ledger.sweep();
        let sweeper = ledger.clone();
        tokio::task::spawn_local(async move { sweeper.keep_sweeping().await });
        let (client, server) = duplex(seed, forth, back);
        let slot = ledger.enter(None).unwrap();
        let stream = Stream::Memory(Box::new(server));
        let served = tokio::task::spawn_local(serve(
            stream,
            PeerAddr::Memory,
            Local { port: 80, listener: None },
            slot,
            worker,
        ));
        let got = talk(client, octets, half_close).await;
        // Idle time-outs and lingering end every connection sooner or later.
        tokio::time::timeout(Duration::from_secs(600), served).await.expect("the session hangs").unwrap();
        assert_eq!(ledger.count(), 0, "the place in the ledger was given back");
        got
    })
}

fn check(response: &Response, expected: &Exchange) {
    let request = String::from_utf8_lossy(&expected.request[..expected.request.len().min(300)]).into_owned();
    assert_eq!(response.status, expected.status, "{request}\n{}", response.text());
    if let Some(body) = &expected.body {
        assert!(response.body == *body, "{request}: wrong body, {} octets", response.body.len());
    }
    if expected.closes {
        assert!(response.says_close(), "{request}");
    }
    assert!(response.field("date").is_some(), "{request}");
    if expected.method == "PUT" {
        assert_eq!(response.trailers, [("X-Sum".to_owned(), "1".to_owned())], "{request}");
        assert!(matches!(response.framing, Framing::Chunked { .. }));
    }
}

fn link(rng: &mut Rng) -> Link {
    let mut link = if rng.chance(3, 4) { Link::rough() } else { Link::default() };
    link.capacity_bytes = *rng.pick(&[1, 7, 100, 1000, 65_536]);
    // A small buffer and a delay together would be slower than the minimum rates allow.
    if link.capacity_bytes >= 1000 && rng.chance(1, 2) {
        link.delay = (Duration::ZERO, Duration::from_millis(rng.between(1, 30)));
    }
    link
}

fn exchanges(rng: &mut Rng) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = (0..rng.between(1, 7)).map(|_| any_exchange(rng)).collect();
    exchanges.push(last_exchange(rng));
    exchanges
}

/// 9112-9.3.2-02b, 9112-9.3-R1, 9112-9.3-05, 9112-9.6-R1; faults F01, F02, F04, S40, S89, S90: over links that
/// lose nothing, every request is answered, in order, whatever the splits and delays.
#[test]
fn every_request_is_answered_in_order() {
    each_seed(60, |rng| {
        let exchanges = exchanges(rng);
        let octets = exchanges.iter().flat_map(|e| e.request.clone()).collect();
        let (forth, back) = (link(rng), link(rng));
        let half_close = rng.chance(1, 2);
        if std::env::var_os("SEED").is_some() {
            for e in &exchanges {
                eprintln!(
                    "> {} [{}]",
                    String::from_utf8_lossy(&e.request[..e.request.len().min(120)]).escape_debug(),
                    e.request.len()
                );
            }
            eprintln!("{forth:?} {back:?} {half_close}");
        }
        let got = simulate(rng, octets, forth, back, half_close);
        let mut reader = Reader::new(Cursor::new(got));
        for expected in &exchanges {
            let response = reader.response(expected.method).unwrap_or_else(|why| {
                panic!(
                    "{why}\nfor {}",
                    String::from_utf8_lossy(&expected.request[..expected.request.len().min(300)])
                )
            });
            check(&response, expected);
        }
        reader.end().expect("nothing after the last response");
    });
}

/// 9112-8-R1, 9112-6.3-08; faults F05, F06, R11: over links that break at any byte, what was answered is right,
/// what was not is not, and nothing hangs.
#[test]
fn broken_links_cut_and_never_corrupt() {
    each_seed(120, |rng| {
        let exchanges = exchanges(rng);
        let octets: Vec<u8> = exchanges.iter().flat_map(|e| e.request.clone()).collect();
        let (mut forth, mut back) = (link(rng), link(rng));
        let at = rng.below(octets.len() as u64 + 1);
        match rng.below(4) {
            0 => forth.reset_after_bytes = Some(at),
            1 => forth.end_after_bytes = Some(at),
            2 => back.reset_after_bytes = Some(rng.below(20_000)),
            _ => back.end_after_bytes = Some(rng.below(20_000)),
        }
        let got = simulate(rng, octets, forth, back, false);
        let whole = got.len();
        let mut reader = Reader::new(Cursor::new(got));
        for expected in &exchanges {
            match reader.response(expected.method) {
                Ok(response)
                    if response.status == expected.status
                        && !matches!(response.framing, Framing::UntilClose) =>
                {
                    check(&response, expected);
                }
                // The request was cut: the server says so and closes.
                Ok(response) => {
                    assert!(matches!(response.status, 400 | 408), "{} {}", response.status, response.text());
                    assert!(response.says_close());
                    // To a HEAD that never came whole, the server could not know that it is one.
                    if expected.method != "HEAD" {
                        reader.end().expect("nothing after the last response");
                    }
                    break;
                }
                Err(why) => {
                    assert!(!why.contains("invalid"), "{why} in {whole} octets");
                    break;
                }
            }
        }
    });
}

/// Pieces in memory, small and large ones, many of which go out in one call: they arrive in order and whole, however little
/// of them the link takes at a time.
#[test]
fn pieces_arrive_in_order() {
    each_seed(60, |rng| {
        let pieces: Vec<bytes::Bytes> = (0..rng.between(1, 45))
            .map(|_| {
                let size = *rng.pick(&[0, 1, 100, 8191, 8192, 8193, 65_536, 65_536, 65_536]);
                rng.bytes(size).into()
            })
            .collect();
        let whole = pieces.concat();
        let handler = Handler::InProcess(InProcess::of(move |_| {
            let mut response = crate::response::Response::new(eleven_semantics::Status::OK);
            let parts = pieces.iter().cloned().map(crate::response::Part::Bytes);
            response.content = crate::response::Content::Parts(parts.collect());
            response.into()
        }));
        let request = exchange("GET", "/", "", b"").request.repeat(2);
        let capacity_bytes = *rng.pick(&[1000, 65_536, 100_000, 2_000_000]);
        let back = Link { capacity_bytes, ..Link::default() };
        let got = simulate_with(handler, rng, request, Link::default(), back, true);
        let mut reader = Reader::new(Cursor::new(got));
        for _ in 0..2 {
            let response = reader.response("GET").unwrap();
            assert!(response.body == whole, "{} octets of {}", response.body.len(), whole.len());
        }
    });
}

/// A session on one end of a link without faults, in paused time; what `client` does at the other end.
fn with_session<F, R>(client: impl FnOnce(MemoryStream, Rc<Ledger>) -> F + 'static) -> R
where
    F: Future<Output = R> + 'static,
    R: 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(Default::default())
        .unwrap();
    runtime.block_on(async move {
        let ledger = Ledger::new(Caps { connections_max: 10, connections_per_address_max: 0 });
        let service = Rc::new(Service::single(Handler::Echo(Echo)));
        let worker =
            Worker::new(service, Settings::default(), ledger.clone(), None, Metrics::default().recorder());
        ledger.sweep();
        let sweeper = ledger.clone();
        tokio::task::spawn_local(async move { sweeper.keep_sweeping().await });
        let (ours, theirs) = duplex(1, Link::default(), Link::default());
        let slot = ledger.enter(None).unwrap();
        let stream = Stream::Memory(Box::new(theirs));
        let served = tokio::task::spawn_local(serve(
            stream,
            PeerAddr::Memory,
            Local { port: 80, listener: None },
            slot,
            worker,
        ));
        let result = client(ours, ledger).await;
        tokio::time::timeout(Duration::from_secs(600), served).await.expect("the session hangs").unwrap();
        result
    })
}

/// Sends `octets` one by one, so long apart, until the server has had enough; what it said, and how long it took.
async fn drip(stream: MemoryStream, octets: Vec<u8>, apart: Duration) -> (Vec<u8>, Duration) {
    let started = tokio::time::Instant::now();
    let mut stream = Stream::Memory(Box::new(stream));
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    let mut octets = octets.into_iter();
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(n) if n > 0 => got.extend_from_slice(&buffer[..n]),
                _ => return (got, started.elapsed()),
            },
            () = tokio::time::sleep(apart) => {
                if let Some(octet) = octets.next() {
                    let _ = stream.write_all(&[octet]).await;
                }
            }
        }
    }
}

fn status_of(got: &[u8]) -> Response {
    let mut reader = Reader::new(Cursor::new(got.to_vec()));
    let response = reader.response("GET").unwrap();
    reader.end().unwrap();
    response
}

/// 9112-9.5-01; fault D01: a head that drips in is answered 408 after its deadline, however often an octet comes.
#[test]
fn a_head_that_drips_gets_408() {
    for apart_ms in [400, 5_000] {
        let (got, took) =
            with_session(move |stream, _| drip(stream, vec![b'A'; 1000], Duration::from_millis(apart_ms)));
        let response = status_of(&got);
        assert_eq!(response.status, 408, "{apart_ms}");
        assert!(response.says_close());
        assert!(took < Duration::from_secs(32), "{took:?}");
    }
}

/// 9112-6.3-08; fault D03: content that drips in is answered 408, and the connection ends. Fault S42: nothing of it is
/// taken for a request, however it reads.
#[test]
fn content_that_drips_gets_408() {
    let (got, took) = with_session(|stream, _| {
        let mut octets = b"POST / HTTP/1.1\r\nHost: sim\r\nContent-Length: 1000000\r\n\r\n".to_vec();
        let head = octets.len();
        octets.extend(b"GET /smuggled HTTP/1.1\r\nHost: sim\r\n\r\n".repeat(30));
        async move {
            let mut stream = Stream::Memory(Box::new(stream));
            stream.write_all(&octets[..head]).await.unwrap();
            let Stream::Memory(memory) = stream else { unreachable!("made above") };
            drip(*memory, octets[head..].to_vec(), Duration::from_secs(1)).await
        }
    });
    let response = status_of(&got);
    assert_eq!(response.status, 408);
    assert!(response.says_close());
    assert_eq!(got.windows(9).filter(|octets| octets == b"HTTP/1.1 ").count(), 1);
    assert!(took < Duration::from_secs(120), "{took:?}");
}

/// Fault D04: a reader that does not read what it asked for loses its connection, and the server its burden.
#[test]
fn a_reader_that_does_not_read_is_let_go() {
    let took = with_session(|stream, ledger| async move {
        let started = tokio::time::Instant::now();
        let mut stream = Stream::Memory(Box::new(stream));
        stream.write_all(b"GET /bytes/50000000 HTTP/1.1\r\nHost: sim\r\n\r\n").await.unwrap();
        ledger.emptied().await;
        started.elapsed()
    });
    assert!(took < Duration::from_secs(90), "{took:?}");
}

/// 9112-8-R1: a response that only the close ends, and that is given up on the way, ends in a reset: after an end like any
/// other it would look whole.
#[test]
fn a_response_given_up_before_its_close_ends_in_a_reset() {
    for (target, is_whole) in [("/stream/1000000", false), ("/stream/40", true)] {
        let end = with_session(move |stream, ledger| async move {
            let mut stream = Stream::Memory(Box::new(stream));
            stream.write_all(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
            // Nothing is read until the server has given up, or has said all.
            ledger.emptied().await;
            let mut buffer = vec![0; 4096];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(error) => return Err(error.kind()),
                }
            }
        });
        let expected = if is_whole { Ok(()) } else { Err(std::io::ErrorKind::ConnectionReset) };
        assert_eq!(end, expected, "{target}");
    }
}

/// Fault D05: a connection that asks for nothing is closed without a word.
#[test]
fn a_connection_that_says_nothing_is_closed_in_silence() {
    let (got, took) = with_session(|stream, _| drip(stream, Vec::new(), Duration::from_secs(1)));
    assert!(got.is_empty());
    assert!(took >= Duration::from_secs(60) && took < Duration::from_secs(65), "{took:?}");
}

/// 9112-9.6-01; fault F31: a stop lets the exchange finish, says close, and ends the connection; an idle one ends
/// at once.
#[test]
fn a_stop_finishes_what_runs() {
    let (got, took) = with_session(|stream, ledger| async move {
        let mut stream = Stream::Memory(Box::new(stream));
        stream.write_all(b"GET /delay/5 HTTP/1.1\r\nHost: sim\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        ledger.stop();
        let Stream::Memory(memory) = stream else { unreachable!("made above") };
        drip(*memory, Vec::new(), Duration::from_secs(1)).await
    });
    let response = status_of(&got);
    assert_eq!((response.status, response.text().as_str()), (200, "waited 5000 ms\n"));
    assert!(response.says_close());
    assert!(took < Duration::from_secs(7), "{took:?}");
}

/// Fault D01: while a worker drains (after an upgrade) nobody is hurried: a large head that keeps coming is answered
/// as always.
#[test]
fn a_large_head_may_come_while_the_worker_drains() {
    let (got, took) = with_session(|stream, ledger| {
        let mut octets = b"GET / HTTP/1.1\r\nHost: sim\r\nX: ".to_vec();
        octets.resize(9_000, b'x');
        octets.extend_from_slice(b"\r\n\r\n");
        ledger.drain();
        drip(stream, octets, Duration::from_millis(2))
    });
    assert_eq!(status_of(&got).status, 200);
    assert!(took > Duration::from_secs(15), "longer than a head usually may take: {took:?}");
}

/// How long a stop has to wait for a client that sent `before`, reads nothing and never closes; and what it was sent.
fn stop_beside(before: &'static [u8], after: &'static [u8]) -> (Vec<u8>, Duration) {
    with_session(move |stream, ledger| async move {
        let mut stream = Stream::Memory(Box::new(stream));
        stream.write_all(before).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let started = tokio::time::Instant::now();
        ledger.stop();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if !after.is_empty() {
            stream.write_all(after).await.unwrap();
        }
        let Stream::Memory(memory) = stream else { unreachable!("made above") };
        let (got, _) = drip_until(*memory, &ledger).await;
        (got, started.elapsed())
    })
}

/// Reads until the ledger is empty, without ever closing.
async fn drip_until(stream: MemoryStream, ledger: &Ledger) -> (Vec<u8>, MemoryStream) {
    let mut stream = Stream::Memory(Box::new(stream));
    ledger.emptied().await;
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        got.extend_from_slice(&buffer[..n]);
    }
    let Stream::Memory(memory) = stream else { unreachable!("made above") };
    (got, *memory)
}

/// 9112-9.6-R1: of clients that never close by themselves, a stop waits for one that lies idle only as long as a request
/// may be on its way, and for half a head not as long as a head may usually take.
#[test]
fn a_stop_waits_little_for_clients_that_do_nothing() {
    let request = b"GET / HTTP/1.1\r\nHost: sim\r\n\r\n";
    let (got, took) = stop_beside(b"", b"");
    assert!(got.is_empty() && took < Duration::from_millis(1_000), "{took:?}");
    let (got, took) = stop_beside(request, b"");
    assert!(status_of(&got).status == 200 && took < Duration::from_millis(1_000), "{took:?}");
    // One that came too late is not answered, and its client sees an end and no reset.
    let (got, took) = stop_beside(request, request);
    assert!(took < Duration::from_millis(2_000), "{took:?}");
    assert_eq!(got.windows(8).filter(|octets| octets == b"HTTP/1.1").count(), 1);
    // Half a head: 408 after two seconds, and two more for reading that.
    let (got, took) = stop_beside(&request[..20], b"");
    assert_eq!(status_of(&got).status, 408);
    assert!(took > Duration::from_millis(1_900) && took < Duration::from_millis(5_000), "{took:?}");
    // The rest of a head that comes in time is answered.
    let (got, took) = stop_beside(&request[..20], &request[20..]);
    let response = status_of(&got);
    assert!(response.status == 200 && response.says_close());
    assert!(took < Duration::from_millis(3_000), "{took:?}");
}
