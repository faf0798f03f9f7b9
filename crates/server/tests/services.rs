//! Services of this process and FastCGI, behind the whole server on real sockets.

use bytes::Bytes;
use eleven_net::file::Root;
use eleven_net::listener::ListenAddr;
use eleven_server::apps::fastcgi::{FastCgi, FastCgiAddress, FastCgiSettings};
use eleven_server::apps::service::{self, Body, BoxError, Client};
use eleven_server::handler::Handler;
use eleven_server::serve::{Options, Running, start};
use eleven_server::service::Service as Served;
use eleven_testkit::reader::{Framing, Reader, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(60);

fn localhost() -> ListenAddr {
    ListenAddr::Tcp { host: Some("127.0.0.1".to_owned()), port: 0 }
}

fn connect(running: &Running) -> Reader<TcpStream> {
    let address = running.addresses()[0].trim_start_matches("http://").trim_end_matches('/');
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Reader::new(stream)
}

#[track_caller]
fn ask(connection: &mut Reader<TcpStream>, method: &str, target: &str, more: &str) -> Response {
    let text = format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n");
    connection.get_mut().write_all(text.as_bytes()).unwrap();
    connection.response(method).unwrap()
}

/// A service as a router would be: its futures are `Send`.
#[derive(Clone)]
struct Demo;

type Content = UnsyncBoxBody<Bytes, BoxError>;

fn full(octets: impl Into<Bytes>) -> Content {
    Full::new(octets.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Content of these frames, one by one.
fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Content {
    let mut frames = frames.into_iter();
    struct Each<I>(I);
    impl<I: Iterator<Item = Result<Frame<Bytes>, BoxError>> + Unpin> http_body::Body for Each<I> {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Poll::Ready(self.0.next())
        }
    }
    Each(std::iter::from_fn(move || frames.next())).boxed_unsync()
}

impl tower_service::Service<http::Request<Body>> for Demo {
    type Response = http::Response<Content>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Content>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(demo(request).await) })
    }
}

async fn demo(request: http::Request<Body>) -> http::Response<Content> {
    let data = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
    match request.uri().path() {
        "/" => http::Response::new(full("hello")),
        "/head" => {
            let client = request.extensions().get::<Client>().is_some_and(|client| client.address.is_some());
            http::Response::new(full(format!(
                "{} {} {:?} {client}",
                request.method(),
                request.uri(),
                request.headers().get("host").unwrap(),
            )))
        }
        "/echo" => match request.into_body().collect().await {
            Ok(collected) => {
                let trailers = collected.trailers().map_or(0, http::HeaderMap::len);
                let mut response = http::Response::new(full(collected.to_bytes()));
                response.headers_mut().insert("x-trailers", trailers.into());
                response
            }
            Err(why) => panic!("{why}"),
        },
        "/stream" => http::Response::new(frames(vec![data("one,"), data("two")])),
        "/trailers" => {
            let mut map = http::HeaderMap::new();
            map.insert("x-sum", 7.into());
            http::Response::new(frames(vec![data("content"), Ok(Frame::trailers(map))]))
        }
        "/panics" => panic!("as the test wants"),
        "/breaks" => http::Response::new(frames(vec![data("half"), Err("broken".into())])),
        "/status" => {
            let mut response = http::Response::new(full(""));
            *response.status_mut() = http::StatusCode::NO_CONTENT;
            response.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
            response
        }
        "/ws" => service::websocket(&request, full(""), |mut switched| async move {
            let mut octets = [0; 5];
            switched.read_exact(&mut octets).await.unwrap();
            octets.reverse();
            switched.write_all(&octets).await.unwrap();
            switched.shutdown().await.unwrap();
        })
        .unwrap_or_else(|| {
            let mut response = http::Response::new(full("no handshake"));
            *response.status_mut() = http::StatusCode::BAD_REQUEST;
            response
        }),
        _ => {
            let mut response = http::Response::new(full("nothing here"));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response
        }
    }
}

#[test]
fn services() {
    let mut running = service::serve(localhost(), Demo).unwrap();
    let mut connection = connect(&running);
    let hello = ask(&mut connection, "GET", "/", "");
    assert_eq!((hello.text().as_str(), hello.framing), ("hello", Framing::Length(5)));
    assert_eq!(ask(&mut connection, "HEAD", "/", "").field("content-length"), Some("5"));
    // 9112-3.2.2-05: the host of an absolute target.
    let head = ask(&mut connection, "GET", "http://b.example/head?q=1", "").text();
    assert_eq!(head, "GET /head?q=1 \"b.example\" true");
    let echo = ask(&mut connection, "POST", "/echo", "Content-Length: 3\r\n\r\nabc");
    assert_eq!(echo.text(), "abc");
    let chunks = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n";
    let chunked = ask(&mut connection, "POST", "/echo", chunks);
    assert_eq!((chunked.text().as_str(), chunked.field("x-trailers")), ("abc", Some("1")));
    let large = "x".repeat(500_000);
    let text = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len());
    connection.get_mut().write_all(text.as_bytes()).unwrap();
    assert_eq!(connection.response("POST").unwrap().text(), large);
    let stream = ask(&mut connection, "GET", "/stream", "");
    assert_eq!(
        (stream.text().as_str(), matches!(stream.framing, Framing::Chunked { .. })),
        ("one,two", true)
    );
    let trailers = ask(&mut connection, "GET", "/trailers", "TE: trailers\r\nConnection: TE\r\n");
    assert_eq!(trailers.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let status = ask(&mut connection, "GET", "/status", "");
    assert_eq!((status.status, status.says_close()), (204, false));
    assert_eq!(ask(&mut connection, "GET", "/absent", "").status, 404);
    connection.get_mut().write_all(b"GET /breaks HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(connection.response("GET").unwrap_err().contains("ended"));

    // Content nobody reads is not asked for; content that is read is.
    let mut connection = connect(&running);
    let expect = "Content-Length: 3\r\nExpect: 100-continue\r\n";
    assert!(ask(&mut connection, "POST", "/", expect).interim.is_empty());
    let mut connection = connect(&running);
    connection
        .get_mut()
        .write_all(format!("POST /echo HTTP/1.1\r\nHost: a\r\n{expect}\r\n").as_bytes())
        .unwrap();
    assert_eq!(connection.head().unwrap().start, "HTTP/1.1 100 Continue");
    connection.get_mut().write_all(b"abc").unwrap();
    assert_eq!(connection.response("POST").unwrap().text(), "abc");

    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut connection = connect(&running);
    let response = ask(&mut connection, "GET", "/ws", handshake);
    assert_eq!(response.status, 101);
    assert_eq!(response.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    connection.get_mut().write_all(b"12345").unwrap();
    assert_eq!(connection.exactly(5).unwrap(), b"54321");
    connection.end().unwrap();
    assert_eq!(ask(&mut connect(&running), "GET", "/ws", "").status, 400);
    running.stop();
    running.wait();
}

/// Fault F41: a panic in a handler costs its own request and nothing else, not even its connection.
#[test]
fn a_panic_costs_one_request() {
    let mut running = service::serve(localhost(), Demo).unwrap();
    let mut connection = connect(&running);
    for _ in 0..3 {
        let lost = ask(&mut connection, "GET", "/panics", "");
        assert_eq!((lost.status, lost.says_close()), (500, false));
        assert_eq!(ask(&mut connection, "GET", "/", "").text(), "hello");
    }
    running.stop();
    running.wait();
}

/// A FastCGI server that answers each connection by the next of these octets, and says what it was told.
fn fastcgi_server(answers: Vec<Vec<u8>>) -> (FastCgiAddress, std::thread::JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = FastCgiAddress::Tcp(listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        answers
            .into_iter()
            .map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut told = Vec::new();
                loop {
                    let mut head = [0; 8];
                    stream.read_exact(&mut head).unwrap();
                    let mut content = vec![0; usize::from(u16::from_be_bytes([head[4], head[5]]))];
                    stream.read_exact(&mut content).unwrap();
                    // The end of the request's content.
                    if head[1] == 5 && content.is_empty() {
                        break;
                    }
                    told.extend_from_slice(&content);
                }
                stream.write_all(&answer).unwrap();
                told
            })
            .collect()
    });
    (address, thread)
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0], content].concat()
}

#[test]
fn fastcgi() {
    let folder = std::env::temp_dir().join(format!("eleven-fastcgi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.php"), "<?php").unwrap();
    std::fs::write(folder.join("style.css"), "body{}").unwrap();
    let (out, end) = (|text: &[u8]| record(6, text), record(3, &[0; 8]));
    let (address, server) = fastcgi_server(vec![
        [out(b"Content-Type: text/plain\r\n\r\nhello"), end.clone()].concat(),
        [out(b"Status: 404 Not Found\r\n"), out(b"\r\nnone"), record(7, b"a warning"), end.clone()].concat(),
        [out(b"Content-Length: 9\r\n\r\nlong"), out(b" text"), out(b"surplus"), end.clone()].concat(),
        [out(b"\r\n"), out(&[b'x'; 60_000]), out(&[b'y'; 60_000]), end.clone()].concat(),
        // Mistakes: no head, a head that is none, an end without a head, overload, content cut short.
        Vec::new(),
        [out(b"nonsense\r\n\r\n"), end.clone()].concat(),
        end.clone(),
        record(3, &[0, 0, 0, 0, 2, 0, 0, 0]),
        [out(b"Content-Length: 9\r\n\r\nlong"), end].concat(),
    ]);
    let settings = Arc::new(FastCgiSettings::new(address, &folder));
    let (root, files) = (folder.clone(), folder.clone());
    let mut running = start(Options {
        listen: vec![localhost().into()],
        workers: 1,
        settings: Default::default(),
        connections_max: 0,
        connections_per_address_max: 0,
        log: None,
        metrics: Default::default(),
        service: Arc::new(move || {
            let open = |path| Root::open_directory(path, Default::default()).unwrap();
            let files = eleven_server::files::Files::new(open(&files), b"", Default::default());
            let root = Arc::new(open(&root));
            Served::single(Handler::FastCgi(Rc::new(FastCgi::new(Arc::clone(&settings), root, Some(files)))))
        }),
    })
    .unwrap();
    let mut connection = connect(&running);
    let style = ask(&mut connection, "GET", "/style.css", "");
    assert_eq!((style.status, style.text().as_str()), (200, "body{}"));
    let hello = ask(&mut connection, "GET", "/a/b?q", "Proxy: evil\r\n");
    assert_eq!((hello.text().as_str(), hello.framing), ("hello", Framing::Length(5)));
    let missing = ask(&mut connection, "POST", "/", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n");
    assert_eq!((missing.status, missing.text().as_str()), (404, "none"));
    assert_eq!(ask(&mut connection, "GET", "/", "").text(), "long text");
    assert_eq!(ask(&mut connection, "GET", "/", "").body.len(), 120_000);
    for status in [502, 502, 502, 503] {
        assert_eq!(ask(&mut connection, "GET", "/", "").status, status);
    }
    connection.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(connection.response("GET").unwrap_err().contains("ended"));
    let told = server.join().unwrap();
    let has = |told: &[u8], part: &[u8]| told.windows(part.len()).any(|window| window == part);
    assert!(has(&told[0], b"SCRIPT_NAME/index.php") && has(&told[0], b"QUERY_STRINGq"));
    assert!(!has(&told[0], b"evil"), "fault H19");
    assert!(has(&told[1], b"CONTENT_LENGTH3") && told[1].ends_with(b"abc"));
    // Nothing listens any more.
    assert_eq!(ask(&mut connect(&running), "GET", "/", "").status, 502);
    running.stop();
    running.wait();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// A future that is not used otherwise: the trait's method takes a context.
#[test]
fn an_empty_body_ends_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let frame = runtime.block_on(async {
        let mut body = Body::empty();
        poll_fn(move |cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await
    });
    assert!(frame.is_none());
}
