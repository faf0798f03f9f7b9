//! Responses cut at every octet, by an end and by a reset: no client ever sees one of them as complete. Faults R11
//! to R16, R18, F05, F06. A few responses over sockets; any number, made at random, in a simulated world: `CUTS=1000
//! cargo test -p eleven-server --lib cuts` does what the end of docs/proxy.md tells of.

use super::world::{Got, Reply, Then, World, plan_of, simulate};
use super::*;
use eleven_net::memory::Link;
use eleven_testkit::rng::Rng;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Whole responses, and whether a plain end may complete them.
fn responses() -> Vec<(String, Vec<u8>, bool)> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
    let body = "0123456789abcdefghijklmnopqrstuvwxyz";
    let large = "x".repeat(70_000);
    let of = |text: &str| text.as_bytes().to_vec();
    vec![
        (format!("{head}Content-Length: 36\r\n\r\n{body}"), of(body), false),
        (format!("{head}Transfer-Encoding: chunked\r\n\r\n24\r\n{body}\r\n0\r\n\r\n"), of(body), false),
        (
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n1e;x=y\r\n{}\r\n0\r\nX-T: 1\r\n\r\n",
                &body[6..]
            ),
            of(body),
            false,
        ),
        (format!("HTTP/1.0 200 OK\r\nContent-Length: 36\r\n\r\n{body}"), of(body), false),
        (format!("HTTP/1.0 200 OK\r\n\r\n{body}"), of(body), true),
        (format!("{head}Content-Length: 70000\r\n\r\n{large}"), of(&large), false),
    ]
}

/// Answers connections with the response, cut and ended as the request's target asks: `/RESPONSE/CUT/MODE`.
fn origin(listener: TcpListener, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) {
    let responses = responses();
    while let Ok((mut stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => seen.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        let target = text.split(' ').nth(1).unwrap_or("").to_owned();
        let mut parts = target.split('/').skip(1).map(|part| part.parse::<usize>().unwrap_or(0));
        let (index, cut, reset) =
            (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next() == Some(1));
        asked.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(&responses[index].0.as_bytes()[..cut]);
        if reset {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Fault R12.
#[test]
fn no_cut_response_is_ever_shown_as_complete() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin_address = listener.local_addr().unwrap();
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let origin = {
        let (stop, asked) = (stop.clone(), asked.clone());
        std::thread::spawn(move || origin(listener, stop, asked))
    };
    let mut with = plan(&[origin_address.port()]);
    with.ejection.failures = 0;
    let front = Front::gateway(with);
    let (mut cases, mut whole) = (0, 0);
    for (index, (wire, body, end_completes)) in responses().into_iter().enumerate() {
        let head_bytes = wire.find("\r\n\r\n").unwrap() + 4;
        let step = if wire.len() > 1000 { 997 } else { 1 };
        for cut in (0..=wire.len()).step_by(step).chain([wire.len()]) {
            for reset in [false, true] {
                let mut stream = front.connect();
                write!(
                    stream,
                    "GET /{index}/{cut}/{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                    u8::from(reset)
                )
                .unwrap();
                let shown = Reader::new(stream).response("GET");
                cases += 1;
                let case = || format!("response {index} cut at {cut} of {} (reset: {reset})", wire.len());
                let Ok(shown) = shown else {
                    assert!(cut < wire.len() || reset, "a whole response was not delivered: {}", case());
                    continue;
                };
                if shown.status == 502 {
                    continue;
                }
                assert_eq!(shown.status, 200, "{}", case());
                let by_end = end_completes && !reset && cut >= head_bytes;
                if by_end {
                    assert_eq!(shown.body, wire.as_bytes()[head_bytes..cut], "{}", case());
                } else {
                    assert!(shown.body == body, "a cut response was shown as complete: {}", case());
                }
                whole += 1;
            }
        }
    }
    assert!(cases > 1000 && whole >= 10, "{cases} cases, {whole} whole");
    stop.store(true, Ordering::Relaxed);
    let _ = TcpStream::connect(origin_address);
    origin.join().unwrap();
}

/// A response as a server sends it, and what it means.
struct Whole {
    wire: Vec<u8>,
    content: Vec<u8>,
    trailers: Vec<(String, String)>,
    /// Where its head ends, if the end of the connection ends its content.
    until_close: Option<usize>,
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn chunked(rng: &mut Rng, body: &[u8], trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in rng.pieces(body, 100) {
        let extension = if rng.chance(1, 4) { ";a=\"b;c\"" } else { "" };
        out.extend_from_slice(format!("{:x}{extension}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

fn any_response(rng: &mut Rng) -> Whole {
    let size = rng.below(250) as usize;
    let content = if rng.chance(1, 2) { rng.bytes(size) } else { b"all work and no play ".repeat(size / 20) };
    let mut head = String::new();
    for _ in 0..rng.below(3) {
        head.push_str("HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n");
    }
    let status = *rng.pick(&["200 OK", "404 Not Found", "206 Partial Content"]);
    let version = *rng.pick(&["1.1", "1.1", "1.0"]);
    let fields: String =
        (0..rng.below(4)).map(|n| format!("X-{n}: {}\r\n", "y".repeat(rng.below(9) as usize))).collect();
    let start = |version: &str| format!("{head}HTTP/{version} {status}\r\n{fields}");
    let with =
        |start: String, fields: &str, body: &[u8]| [format!("{start}{fields}\r\n").as_bytes(), body].concat();
    let mut whole = Whole { wire: Vec::new(), content, trailers: Vec::new(), until_close: None };
    let content = &whole.content;
    match rng.below(7) {
        0 | 1 => {
            let length = format!("Content-Length: {}\r\n", content.len());
            whole.wire = with(start(version), &length, content);
        }
        2 => {
            let body = chunked(rng, content, "");
            whole.wire = with(start("1.1"), "Transfer-Encoding: chunked\r\n", &body);
        }
        3 => {
            let body = chunked(rng, content, "X-Sum: 1\r\nX-Sign: abc\r\n");
            whole.trailers = vec![("X-Sum".into(), "1".into()), ("X-Sign".into(), "abc".into())];
            whole.wire = with(start("1.1"), "Transfer-Encoding: chunked\r\n", &body);
        }
        4 => {
            // The content coding is the client's to undo.
            let coded = gzip(content);
            let fields = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", coded.len());
            whole.wire = with(start(version), &fields, &coded);
            whole.content = coded;
        }
        5 => {
            let body = chunked(rng, &gzip(content), "");
            whole.wire = with(start("1.1"), "Transfer-Encoding: gzip, chunked\r\n", &body);
        }
        _ => {
            let head = with(start(version), "Connection: close\r\n", b"");
            whole.until_close = Some(head.len());
            whole.wire = [&head[..], content].concat();
        }
    }
    whole
}

/// How a client sees a response.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Shown {
    Complete,
    /// Complete as far as anybody can know: the server ended a response that only its end ends.
    EndedByServer,
    Incomplete,
    Refused,
}

fn judge(whole: &Whole, got: &Got, cut: usize, reset: bool, minor: u8) -> Shown {
    let mut reader = Reader::new(Cursor::new(&got.octets));
    let Ok(response) = reader.response("GET") else { return Shown::Incomplete };
    if matches!(response.status, 502 | 504) {
        return Shown::Refused;
    }
    if response.framing == eleven_testkit::reader::Framing::UntilClose && got.reset {
        assert!(whole.content.starts_with(&response.body));
        return Shown::Incomplete;
    }
    if let Some(head) = whole.until_close.filter(|&head| cut >= head && !reset && cut < whole.wire.len()) {
        assert_eq!(response.body, whole.wire[head..cut]);
        return Shown::EndedByServer;
    }
    assert!(response.body == whole.content, "what is shown as complete is something else");
    if minor == 1 {
        assert_eq!(response.trailers, whole.trailers);
    }
    Shown::Complete
}

/// 9112-8-R1, 9112-6.3-08, 9112-8-02; faults R11 to R16: responses of all framings made at random, each cut at every
/// octet, by an end and by a reset, shown to clients of both versions.
#[test]
fn random_responses_cut_at_every_octet_are_never_shown_as_complete() {
    let count = std::env::var("CUTS").map_or(12, |count| count.parse::<u64>().unwrap());
    let (mut cases, mut shown) = (0, [0u32; 4]);
    for seed in 0..count {
        let mut rng = Rng::new(seed);
        let whole = Rc::new(any_response(&mut rng));
        let mut clients = Vec::new();
        let mut about = Vec::new();
        for cut in 0..=whole.wire.len() {
            for reset in [false, true] {
                let minor = if rng.chance(1, 4) { 0 } else { 1 };
                let wire = format!("GET /{cut}/{} HTTP/1.{minor}\r\nHost: h\r\n\r\n", u8::from(reset));
                clients.push((wire.into_bytes(), Link::default(), Link::default()));
                about.push((cut, reset, minor));
            }
        }
        let world = {
            let whole = Rc::clone(&whole);
            Rc::new(World::new(move |_, asked| {
                let (cut, reset) = asked.target[1..].split_once('/').unwrap();
                let then = if reset == "1" { Then::Reset } else { Then::Close };
                let cut: usize = cut.parse().unwrap();
                // As a rule what was sent is under way to the client before the end comes.
                let rest = Duration::from_millis(if cut.is_multiple_of(5) { 0 } else { 10 });
                Reply { rest, then, ..Reply::now(&whole.wire[..cut]) }
            }))
        };
        let mut with = plan_of(1);
        with.pool.connections_per_origin_max = 100_000;
        with.retries_per_ten = 100;
        for (got, (cut, reset, minor)) in simulate(&world, with, clients, true).iter().zip(about) {
            let as_what = judge(&whole, got, cut, reset, minor);
            let all = cut == whole.wire.len();
            let case = || {
                format!(
                    "seed {seed}, cut at {cut} of {}, reset: {reset}, 1.{minor}: {as_what:?}\n{}\n--\n{}",
                    whole.wire.len(),
                    whole.wire.escape_ascii(),
                    got.octets.escape_ascii()
                )
            };
            match as_what {
                Shown::Complete => assert!(all, "a cut response is shown as complete: {}", case()),
                Shown::EndedByServer => {}
                Shown::Incomplete | Shown::Refused => assert!(!all || reset, "{}", case()),
            }
            cases += 1;
            shown[as_what as usize] += 1;
        }
    }
    eprintln!(
        "{count} responses, {cases} cuts: {shown:?} complete, ended by the server, incomplete, refused"
    );
    assert!(shown.iter().all(|&count| count >= 10), "{shown:?}");
}
