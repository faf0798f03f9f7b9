//! Responses cut at every octet, by an end and by a reset: no client ever sees one of them as complete. Faults R11
//! to R16, R18, F05, F06; issue: "truncated or broken upstream bodies shown as complete: 0".

use super::*;
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
