use super::*;
use crate::request::Peer;
use eleven_semantics::RequestTarget;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

fn compress(credentialed: bool) -> Arc<Compress> {
    Arc::new(Compress::new(
        &[Coding::Zstd, Coding::Br, Coding::Gzip],
        100,
        TypeSet::parse(["text/*", "application/json"]).unwrap(),
        Levels { gzip: 6, br: 5, zstd: 6 },
        credentialed,
        1 << 20,
    ))
}

fn text(length: usize) -> Bytes {
    b"All work and no play makes Jack a dull boy.\n"
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect::<Vec<_>>()
        .into()
}

fn response(content: Content, lines: &[(&str, &str)]) -> Response {
    let mut response = Response::new(Status::OK);
    response.fields = Fields::from_iter(lines).into();
    response.content = content;
    response
}

fn html(content: impl Into<Bytes>) -> Response {
    response(
        Content::Bytes(content.into()),
        &[("Content-Type", "text/html"), ("ETag", "\"v1\""), ("Accept-Ranges", "bytes")],
    )
}

fn decode(coding: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        b"gzip" => drop(flate2::read::GzDecoder::new(data).read_to_end(&mut out).unwrap()),
        b"br" => drop(brotli::Decompressor::new(data, 4096).read_to_end(&mut out).unwrap()),
        b"zstd" => out = zstd::decode_all(data).unwrap(),
        other => panic!("{other:?}"),
    }
    out
}

fn go(
    compress: &Arc<Compress>,
    method: Method,
    request: &[(&str, &str)],
    mut response: Response,
) -> (Fields, Response) {
    let mut fields = Fields::from_iter(request);
    let mut asked = compress.ask(&method, &mut fields);
    asked.remember(&request_for("/a"));
    compress.apply(&asked, &mut response, None, compress, || None);
    (fields, response)
}

fn request_for(target: &str) -> Request {
    let scheme = eleven_semantics::target::Scheme::Http;
    let peer = Peer { address: None, scheme, local_port: 0, listener: None, server_name: None };
    let mut request = Request::new(std::rc::Rc::new(peer));
    request.head.target = RequestTarget::parse(&Method::Get, target.as_bytes()).unwrap();
    request
}

fn get(response: &Response, name: Known) -> String {
    response.fields.get().get(name).map_or(String::new(), |value| String::from_utf8_lossy(value).into_owned())
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap().block_on(future)
}

async fn collect(content: Content) -> Result<Vec<u8>, Reason> {
    match content {
        Content::Bytes(bytes) => Ok(bytes.to_vec()),
        Content::Pipe(mut reader, _) => {
            let mut all = Vec::new();
            loop {
                match reader.next().await {
                    Next::Data(data) => all.extend_from_slice(&data),
                    Next::Complete(_) => return Ok(all),
                    Next::Aborted(reason) => return Err(reason),
                }
            }
        }
        other => panic!("{other:?}"),
    }
}

/// 9110-12.5.3-R1, 9110-12.5.3-02, 9110-8.4-01, 9110-12.5.5-03: the coding by q-value, the tag of the coded
/// representation, and Vary for everybody.
#[test]
fn the_coding_that_is_liked_best() {
    let compress = compress(false);
    for (accept, coding, etag) in [
        (None, "", "\"v1\""),
        (Some(""), "", "\"v1\""),
        (Some("gzip"), "gzip", "\"v1-gzip6\""),
        (Some("gzip, deflate, br, zstd"), "zstd", "\"v1-zstd6\""),
        (Some("gzip, br"), "br", "\"v1-br5\""),
        (Some("gzip;q=1, br;q=0.5"), "gzip", "\"v1-gzip6\""),
        (Some("x-gzip"), "gzip", "\"v1-gzip6\""),
        (Some("*"), "zstd", "\"v1-zstd6\""),
        (Some("zstd;q=0, *"), "br", "\"v1-br5\""),
        (Some("gzip;q=0"), "", "\"v1\""),
        (Some("identity, gzip;q=0.5"), "", "\"v1\""),
        (Some("identity;q=0.5, gzip"), "gzip", "\"v1-gzip6\""),
        (Some("deflate"), "", "\"v1\""),
        (Some("identity;q=0, br;q=0.001"), "br", "\"v1-br5\""),
    ] {
        let request: Vec<(&str, &str)> =
            accept.map(|accept| ("Accept-Encoding", accept)).into_iter().collect();
        for _ in 0..2 {
            let (_, response) = go(&compress, Method::Get, &request, html(text(1000)));
            assert_eq!(get(&response, Known::ContentEncoding), coding, "{accept:?}");
            assert_eq!(get(&response, Known::ETag), etag, "{accept:?}");
            assert_eq!(get(&response, Known::Vary), "Accept-Encoding", "{accept:?}");
            assert_eq!(response.fields.get().contains(Known::AcceptRanges), coding.is_empty());
            let Content::Bytes(bytes) = &response.content else { panic!() };
            if coding.is_empty() {
                assert_eq!(bytes, &text(1000));
            } else {
                assert!(bytes.len() < 500);
                assert_eq!(decode(coding.as_bytes(), bytes), text(1000));
            }
            // 9110-9.3.2-02: HEAD says the same.
            let (_, head) = go(&compress, Method::Head, &request, html(text(1000)));
            assert_eq!(head.fields.get(), response.fields.get(), "{accept:?}");
            assert_eq!(head.content.length(), response.content.length(), "{accept:?}");
        }
    }
}

/// 9111-5.2.2.6-01, among others.
/// Fault G23.
#[test]
fn what_is_left_alone() {
    let compress = compress(false);
    let accept = ("Accept-Encoding", "gzip");
    let content = || Content::Bytes(text(1000));
    let plain = ("Content-Type", "text/plain");
    for (why, vary, request, response) in [
        ("short", false, vec![accept], response(Content::Bytes(text(99)), &[plain])),
        ("type", false, vec![accept], response(content(), &[("Content-Type", "image/png")])),
        ("no type", false, vec![accept], response(content(), &[])),
        ("coded", false, vec![accept], response(content(), &[plain, ("Content-Encoding", "br")])),
        (
            "partial",
            false,
            vec![accept],
            response(content(), &[plain, ("Content-Range", "bytes 0-999/2000")]),
        ),
        (
            "no-transform",
            false,
            vec![accept],
            response(content(), &[plain, ("Cache-Control", "max-age=1, no-transform")]),
        ),
        ("empty", false, vec![accept], response(Content::Bytes(Bytes::new()), &[plain])),
        // BREACH: what is secret is not compressed, but a cache must know that others get it compressed.
        ("cookie", true, vec![accept, ("Cookie", "a=b")], response(content(), &[plain])),
        ("credentials", true, vec![accept, ("Authorization", "Basic YTpi")], response(content(), &[plain])),
        ("not asked", true, vec![], response(content(), &[plain])),
        ("does not shrink", true, vec![accept], {
            let noise: Vec<u8> =
                (0..1000u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
            let mut state = 1u64;
            let noise: Vec<u8> = noise
                .iter()
                .map(|b| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    b ^ (state >> 33) as u8
                })
                .collect();
            self::response(Content::Bytes(noise.into()), &[plain])
        }),
    ] {
        let before = response.content.length();
        let coded = response.fields.get().get(Known::ContentEncoding).map(<[u8]>::to_vec);
        let (_, response) = go(&compress, Method::Get, &request, response);
        assert_eq!(response.content.length(), before, "{why}");
        assert_eq!(response.fields.get().get(Known::ContentEncoding), coded.as_deref(), "{why}");
        assert_eq!(response.fields.get().contains(Known::Vary), vary, "{why}");
    }
    let (_, response) =
        go(&self::compress(true), Method::Get, &[accept, ("Cookie", "a=b")], html(text(1000)));
    assert_eq!(get(&response, Known::ContentEncoding), "gzip");
    // 9110-15.3.7-02
    for (length, vary) in [("2000", true), ("99", false)] {
        let range = format!("bytes 0-9/{length}");
        let mut partial = self::response(content(), &[plain, ("Content-Range", &range)]);
        partial.status = Status::PARTIAL_CONTENT;
        let (_, response) = go(&compress, Method::Get, &[accept], partial);
        assert!(!response.fields.get().contains(Known::ContentEncoding));
        assert_eq!(response.fields.get().contains(Known::Vary), vary, "{length}");
    }
}

/// 9110-8.8.3.3, 9110-15.4.5-01: the handler sees its own tags, the client sees the coded representation's.
#[test]
fn conditions_on_coded_representations() {
    let compress = compress(false);
    for (accept, sent, seen, restored) in [
        ("gzip", "\"v1-gzip6\"", "\"v1\"", "\"v1-gzip6\""),
        ("gzip", "W/\"v1-gzip6\"", "W/\"v1\"", "\"v1-gzip6\""),
        ("gzip", "\"v1\"", "\"v1\"", "\"v1\""),
        ("gzip", "\"v0\", \"v1-gzip6\"", "\"v0\", \"v1\"", "\"v1-gzip6\""),
        // Another coding's tag, or another effort's, is another representation.
        ("gzip", "\"v1-br5\"", "\"v1-br5\"", "\"v1\""),
        ("gzip", "\"v1-gzip9\"", "\"v1-gzip9\"", "\"v1\""),
        ("identity", "\"v1-gzip6\"", "\"v1-gzip6\"", "\"v1\""),
        ("gzip", "*", "*", "\"v1\""),
        ("gzip", "nonsense-gzip6", "nonsense-gzip6", "\"v1\""),
    ] {
        let mut not_modified = Response::new(Status::NOT_MODIFIED);
        not_modified.fields = Fields::from_iter(&[("ETag", "\"v1\"")]).into();
        let request = [("Accept-Encoding", accept), ("If-None-Match", sent)];
        let (fields, response) = go(&compress, Method::Get, &request, not_modified);
        assert_eq!(fields.get(Known::IfNoneMatch), Some(seen.as_bytes()), "{accept} {sent}");
        assert_eq!(get(&response, Known::ETag), restored, "{accept} {sent}");
        assert_eq!(get(&response, Known::Vary), "Accept-Encoding");
    }
    // A change may be based on what was read in any coding.
    let mut fields = Fields::from_iter(&[("If-Match", "\"v1-br5\", \"v1-gzip6\", \"x\"")]);
    compress.ask(&Method::Put, &mut fields);
    assert_eq!(fields.get(Known::IfMatch), Some(&b"\"v1\", \"v1\", \"x\""[..]));
}

/// Results are kept by resource, tag and coding: never another resource's.
#[test]
fn results_are_kept_and_never_mixed_up() {
    let compress = compress(false);
    let accept = [("Accept-Encoding", "gzip")];
    let (_, first) = go(&compress, Method::Get, &accept, html(text(1000)));
    assert_eq!(compress.results.len(), 1);
    let Content::Bytes(first) = first.content else { panic!() };
    let (_, again) = go(&compress, Method::Get, &accept, html(text(1000)));
    let Content::Bytes(again) = again.content else { panic!() };
    assert_eq!(first.as_ptr(), again.as_ptr(), "from memory");
    let mut fields = Fields::from_iter(&accept);
    let asked = compress.ask(&Method::Get, &mut fields);
    let mut other = html(Bytes::from(vec![b'x'; 1000]));
    compress.apply(&asked, &mut other, Some(&request_for("/other")), &compress, || None);
    let Content::Bytes(other) = other.content else { panic!() };
    assert_eq!(decode(b"gzip", &other), vec![b'x'; 1000]);
    // Without a strong tag nothing is kept.
    let weak = response(Content::Bytes(text(1000)), &[("Content-Type", "text/html"), ("ETag", "W/\"v1\"")]);
    let (_, response) = go(&compress, Method::Get, &accept, weak);
    assert_eq!(get(&response, Known::ETag), "W/\"v1-gzip6\"");
    assert_eq!(compress.results.len(), 2);
}

#[test]
fn long_content_flows_and_is_kept() {
    let long = text(500_000);
    let path = std::env::temp_dir().join(format!("eleven-compress-{}", std::process::id()));
    std::fs::write(&path, &long).unwrap();
    run(async {
        for coding in ["gzip", "br", "zstd"] {
            let compress = compress(false);
            let accept = [("Accept-Encoding", coding)];
            let file = Rc::new(std::fs::File::open(&path).unwrap());
            let file = || {
                Content::File(crate::response::FileRange { file: file.clone(), offset: 0, length: 500_000 })
            };
            let lines = [("Content-Type", "text/html"), ("ETag", "\"v1\"")];
            let (_, first) = go(&compress, Method::Get, &accept, response(file(), &lines));
            assert_eq!(first.content.length(), None);
            assert!(!get(&first, Known::ETag).starts_with("W/"), "a file gives the same octets each time");
            let first = collect(first.content).await.unwrap();
            assert_eq!(decode(coding.as_bytes(), &first), long);
            let (_, second) = go(&compress, Method::Get, &accept, response(file(), &lines));
            assert_eq!(second.content.length(), Some(first.len() as u64), "{coding}");
            assert_eq!(collect(second.content).await.unwrap(), first);
            let (_, head) = go(&compress, Method::Head, &accept, response(file(), &lines));
            assert_eq!(head.content.length(), Some(first.len() as u64));
            let (_, bytes) = go(&self::compress(false), Method::Get, &accept, html(long.clone()));
            assert_eq!(collect(bytes.content).await.unwrap(), first, "the same octets from memory");
        }
        // Fault P24: a file that shrank ends broken, never short.
        let compress = compress(false);
        let file = Rc::new(std::fs::File::open(&path).unwrap());
        let content = Content::File(crate::response::FileRange { file, offset: 0, length: 600_000 });
        let (_, response) = go(
            &compress,
            Method::Get,
            &[("Accept-Encoding", "gzip")],
            response(content, &[("Content-Type", "text/html")]),
        );
        assert_eq!(collect(response.content).await, Err(Reason::Storage));
    });
    std::fs::remove_file(&path).unwrap();
}

/// What is sent in pieces with pauses arrives in pieces: an event is not held back by the encoder.
#[test]
fn a_pause_flushes() {
    run(async {
        for coding in ["gzip", "br", "zstd"] {
            let compress = compress(false);
            let (mut writer, reader) = pipe(1 << 20);
            let content = Content::Pipe(reader, None);
            let lines = [("Content-Type", "text/event-stream"), ("ETag", "\"s\"")];
            let (_, response) =
                go(&compress, Method::Get, &[("Accept-Encoding", coding)], response(content, &lines));
            assert!(get(&response, Known::ETag).starts_with("W/\"s-"), "{}", get(&response, Known::ETag));
            let Content::Pipe(mut reader, None) = response.content else { panic!() };
            let mut all = Vec::new();
            for _ in 0..3 {
                writer.send(Bytes::from_static(b"data: tick\n\n")).await.unwrap();
                let before = all.len();
                while all.len() == before {
                    match reader.next().await {
                        Next::Data(data) => all.extend_from_slice(&data),
                        other => panic!("{other:?}"),
                    }
                }
            }
            let trailers = Fields::from_iter(&[("X-Sum", "1")]);
            writer.complete(Some(Box::new(trailers)));
            let end = loop {
                match reader.next().await {
                    Next::Data(data) => all.extend_from_slice(&data),
                    other => break other,
                }
            };
            let Next::Complete(Some(trailers)) = end else { panic!("{end:?}") };
            assert!(trailers.contains("X-Sum"));
            assert_eq!(decode(coding.as_bytes(), &all), b"data: tick\n\n".repeat(3));
            assert_eq!(compress.results.len(), 0);
        }
        // Invariant 9: broken before, broken after.
        let compress = compress(false);
        let (mut writer, reader) = pipe(1 << 20);
        let content = Content::Pipe(reader, None);
        let (_, response) = go(
            &compress,
            Method::Get,
            &[("Accept-Encoding", "gzip")],
            response(content, &[("Content-Type", "text/plain")]),
        );
        writer.send(text(1000)).await.unwrap();
        writer.abort(Reason::Truncated);
        assert_eq!(collect(response.content).await, Err(Reason::Truncated));
    });
}
