//! The same odd messages through the gateway to two servers that read as differently as servers do: what reaches them
//! is one unambiguous message or nothing. Faults S: a differential test. The second server is naive on purpose: it
//! believes the first Content-Length it finds, or the word "chunked" anywhere, and takes bare LF for a line end.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// What a server read: the requests by its own lights.
type Seen = Vec<(String, Vec<u8>)>;

/// A strict server: the test kit's reader.
fn strict(bytes: &[u8]) -> Result<Seen, String> {
    let mut reader = Reader::new(bytes);
    let mut seen = Vec::new();
    // The reader takes all octets at once, so that what is left is found by reading on.
    loop {
        match reader.request() {
            Ok(request) => seen.push((format!("{} {}", request.method, request.target), request.body)),
            Err(fault) => return if reader.rest()?.is_empty() { Ok(seen) } else { Err(fault) },
        }
    }
}

/// A naive server, with `prefer_length` or without.
fn naive(bytes: &[u8], prefer_length: bool) -> Seen {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let mut rest = bytes;
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let mut lines = Vec::new();
        while let Some(at) = rest.iter().position(|&b| b == b'\n') {
            let line = text(&rest[..at]).trim_end_matches('\r').to_owned();
            rest = &rest[at + 1..];
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let Some(first) = lines.first().cloned() else { break };
        let find = |name: &str| {
            lines[1..].iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
            })
        };
        let length: Option<usize> =
            find("content-length").and_then(|value| value.trim_start_matches('+').parse().ok());
        let chunked = find("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        let mut body = Vec::new();
        if chunked && !(prefer_length && length.is_some()) {
            while let Some(at) = rest.iter().position(|&b| b == b'\n') {
                let size = text(&rest[..at]);
                let size =
                    usize::from_str_radix(size.trim().split(';').next().unwrap_or(""), 16).unwrap_or(0);
                rest = &rest[at + 1..];
                if size == 0 {
                    let end = rest.windows(2).position(|w| w == b"\r\n").map_or(rest.len(), |p| p + 2);
                    rest = &rest[end..];
                    break;
                }
                body.extend_from_slice(&rest[..size.min(rest.len())]);
                rest = rest.get(size + 2..).unwrap_or(&[]);
            }
        } else if let Some(length) = length {
            let length = length.min(rest.len());
            body.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
        let start: Vec<&str> = first.split(' ').take(2).collect();
        seen.push((start.join(" "), body));
    }
    seen
}

/// Sends `wire` to the gateway; all octets that its servers got, by connection.
fn through(wire: &[u8]) -> Vec<Vec<u8>> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let front = Front::gateway(plan(&[address.port()]));
    let stop = Arc::new(AtomicBool::new(false));
    let (done, seen) = mpsc::channel();
    let stopping = Arc::clone(&stop);
    let accepting = std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            if stopping.load(Ordering::Relaxed) {
                return;
            }
            let done = done.clone();
            std::thread::spawn(move || done.send(answer_all(stream)));
        }
    });
    let mut stream = front.connect();
    let _ = stream.write_all(wire);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    // The gateway stops, its connections end, and each server says what it got.
    drop(front);
    stop.store(true, Ordering::Relaxed);
    let _ = TcpStream::connect(address);
    accepting.join().unwrap();
    seen.iter().collect()
}

/// Answers whatever a strict reader finds complete, to the end of the connection; all that came.
fn answer_all(mut stream: TcpStream) -> Vec<u8> {
    let (mut seen, mut answered) = (Vec::new(), 0);
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&buffer[..count]);
        let complete = strict(&seen).map_or(0, |seen| seen.len());
        while answered < complete {
            answered += 1;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
    seen
}

/// 9112-11.2-R1, 9112-6.3-02: only what was framed anew, and without doubt, is forwarded.
#[test]
fn what_reaches_servers_is_unambiguous() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let n = smuggled.len();
    let post = "POST / HTTP/1.1\r\nHost: h\r\n";
    for (id, wire) in [
        (
            "S01",
            format!("{post}Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "S01",
            format!(
                "{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{n:x}\r\n{smuggled}\r\n0\r\n\r\n"
            ),
        ),
        ("S02", format!("{post}Content-Length: 0\r\nContent-Length: {n}\r\n\r\n{smuggled}")),
        ("S02", format!("{post}Content-Length: 0, {n}\r\n\r\n{smuggled}")),
        ("S03", format!("{post}Content-Length: +{n}\r\n\r\n{smuggled}")),
        ("S03", format!("{post}Content-Length: 0x{n:x}\r\n\r\n{smuggled}")),
        ("S05", format!("{post}Content-Length : {n}\r\n\r\n{smuggled}")),
        ("S06", format!("{post} Content-Length: {n}\r\n\r\n{smuggled}")),
        ("S10", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("S11", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}")),
        (
            "S12",
            format!(
                "{post}Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        ("S13", format!("{post}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("S14", format!("{post}X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("S15", format!("{post}X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("S17", format!("{post}Content_Length: {n}\r\nTransfer_Encoding: chunked\r\n\r\n{smuggled}")),
        ("S18", format!("POST / HTTP/1.1\nHost: h\nContent-Length: {n}\n\n{smuggled}")),
        (
            "S20",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: {n}\r\n\r\n{smuggled}"),
        ),
        (
            "S25",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n{smuggled}"),
        ),
        ("S26", format!("{post}Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n{smuggled}")),
        ("S27", format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n{smuggled}")),
        ("S40", format!("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n{smuggled}")),
        ("S50", format!("{post}Expect: 100-continue\r\nContent-Length: {n}\r\n\r\n{smuggled}")),
        ("X01", format!("{post}Connection: Content-Length, Host\r\nContent-Length: {n}\r\n\r\n{smuggled}")),
        ("H01", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        ("H02", "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n".to_owned()),
        ("ok", format!("{post}Content-Length: 5\r\n\r\nhello{smuggled}")),
        ("ok", format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
    ] {
        for seen in through(wire.as_bytes()) {
            let text = String::from_utf8_lossy(&seen).into_owned();
            let by_strict = strict(&seen);
            // A message that was cut because its client was refused half-way is nothing, by every reader.
            let Ok(by_strict) = by_strict else {
                assert!(!text.contains("\r\n0\r\n\r\n"), "{id}: a broken message with an end:\n{text}");
                continue;
            };
            assert_eq!(naive(&seen, false), by_strict, "{id}: servers disagree on\n{text}");
            assert_eq!(naive(&seen, true), by_strict, "{id}: servers disagree on\n{text}");
            if id != "ok" {
                let smuggled_reached = by_strict.iter().any(|(start, _)| start == "GET /smuggled");
                let allowed = matches!(id, "S17" | "S20");
                assert!(!smuggled_reached || allowed, "{id}: the hidden request got through:\n{text}");
            }
        }
    }
}

/// Fault S67: of a chunk its data goes on; sizes are our own, and extensions stay here. 9112-7.1.1-01.
#[test]
fn chunk_extensions_stay_here() {
    let wire = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
                00005;junk=\"1;2\";other\r\nhello\r\n0;last\r\n\r\n";
    for seen in through(wire.as_bytes()) {
        let text = String::from_utf8_lossy(&seen).into_owned();
        assert!(!text.contains("junk") && !text.contains("last") && !text.contains("00005"), "{text}");
        assert!(strict(&seen).is_ok_and(|seen| seen.len() == 1 && seen[0].1 == b"hello"), "{text}");
    }
}

/// Fault G20: content that says it is compressed goes on as it came, whatever it would become.
#[test]
fn compressed_requests_are_not_unpacked() {
    let octets = "\u{1f}not gzip";
    let wire = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{octets}",
        octets.len()
    );
    for seen in through(wire.as_bytes()) {
        let seen = strict(&seen).unwrap();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].1, octets.as_bytes());
    }
}
