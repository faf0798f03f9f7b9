//! Rows of the faults that proxies share with others, each by its id: content that is owed is never the next request,
//! framing is made anew, and what strangers write leads nowhere.

use super::balance::numbered;
use super::caching::{Caching, CachingPlan};
use super::*;
use crate::plan::CacheRules;
use eleven_cache::memory::{Limits, Memory};
use eleven_cache::store::Store;

/// Fault S67: chunk extensions end here, and chunks are made anew, in both directions.
#[test]
fn chunk_extensions_go_nowhere() {
    play(
        r#"
server origin
  skip-to "Transfer-Encoding: chunked\r\n"
  skip-to "\r\n\r\n"
  expect "5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0005;a;b=\"c\"\r\nworld\r\n000;last=1\r\nX-Sum: 6\r\n\r\n"
client
  send "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n005;junk=\"\\\"x\";y\r\nhello\r\n00;z\r\nX-Sum: 5\r\n\r\n"
  skip-to "Transfer-Encoding: chunked\r\n\r\n"
  expect "5\r\nworld\r\n0\r\nX-Sum: 6\r\n\r\n"
"#,
    );
}

/// Fault S41: a request with content that the cache answers. The content is read away, and is never the next request;
/// whatever answers (a hit, a miss, a refusal), and however the content is framed.
#[test]
fn content_of_a_request_that_the_cache_answers_is_read_away() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let told = told.clone();
            std::thread::spawn(move || {
                let mut reader = Reader::new(stream);
                while let Ok(request) = reader.request() {
                    let _ = told.send(request.head.start.clone());
                    let answer =
                        "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nok";
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let with = Arc::new(plan(&[port]));
    let store = Arc::new(Store::Memory(Memory::new(Limits::default())));
    let cache = eleven_cache::Cache::new(store, Default::default(), Default::default());
    let rules = CacheRules { x_cache: true, ..CacheRules::default() };
    let caching = CachingPlan::new(&cache, Arc::new(rules));
    let front = Front::start(Arc::new(move || {
        let gateway = Gateway::start(Arc::clone(&with));
        Service::single(Handler::Caching(Caching::new(Handler::Gateway(gateway), caching.clone())))
    }));
    let evil = "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = format!("Content-Length: {}\r\n\r\n{evil}", evil.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len());
    for (at, content) in ["\r\n", &length, &chunked, &length].into_iter().enumerate() {
        let mut stream = front.connect();
        write!(stream, "GET /cached HTTP/1.1\r\nHost: h\r\n{content}").unwrap();
        write!(stream, "GET /after{at} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{got}");
        assert_eq!(got.matches("HTTP/1.1 ").count(), 2, "{got}");
    }
    drop(front);
    let asked: Vec<String> = asked.try_iter().collect();
    assert!(asked.iter().all(|line| !line.contains("evil")), "{asked:?}");
    assert!(asked.iter().any(|line| line.contains("/after3")), "{asked:?}");
}

/// Fault S42: a server answers before it has the content, and the client takes the rest of it for a request.
#[test]
fn content_that_is_owed_is_never_a_request() {
    let evil = "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n";
    for status in ["200 OK", "404 Not Found", "500 Internal Server Error"] {
        // The request behind the content is refused by us: whoever had read the content as a request would have had two
        // words of the server's.
        play(&format!(
            r#"
server origin
  skip-to "POST /early HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly"
  close
client
  send "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
  skip-to "HTTP/1.1 {status}\r\n"
  skip-to "\r\n\r\n"
  expect "early"
  send "GET /evil HTTP/1.1\r\nHost: h\r\n\r\n"
  send "GET * HTTP/1.1\r\nHost: h\r\n\r\n"
  expect "HTTP/1.1 400 Bad Request\r\n"
"#,
            length = evil.len()
        ));
    }
}

/// Fault X22: a target that two readers understand differently is one that nobody is asked for.
#[test]
fn ambiguous_targets_are_refused() {
    let nobody = Nobody::new();
    let port = nobody.port();
    let mut with = OpenPlan::new("me");
    with.destinations = vec!["127.0.0.0/8".parse().unwrap()];
    with.tell_details = false;
    let front = Front::forward(with);
    let here = format!("127.0.0.1:{port}");
    for target in [
        &format!("http://{here}#@other.example/"),
        &format!("http://a@{here}/"),
        &format!("http://a@b@{here}/"),
        &format!("http://{here}\\@other.example/"),
        &format!("http:\\\\{here}/"),
        &format!("http:/{here}/"),
        &format!("http:{here}"),
        &format!("http:///{here}/"),
        &format!("http://{here}\t/"),
        &format!("http://[{here}]/"),
        &format!("http://{here}:80/"),
        "http:///",
        "http://?x",
    ] {
        let mut stream = front.connect();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {here}\r\n\r\n").unwrap();
        let response = Reader::new(stream).response("GET").unwrap();
        assert_eq!(response.status, 400, "{target:?}");
    }
    // What is not ambiguous is asked for: nobody is there.
    let response = get(&front, &format!("http://{here}/a@b?c=@d"));
    assert_eq!(
        (response.status, response.field("proxy-status")),
        (502, Some("me; error=connection_refused"))
    );
}

/// Fault X27: a gateway has no pages of its own; what looks like them is its servers'.
#[test]
fn nothing_of_ours_is_shown_through_a_gateway() {
    let front = Front::gateway(plan(&numbered(1, "")));
    for path in
        ["/metrics", "/status", "/status.json", "/health", "/admin", "/server-status", "/nginx_status"]
    {
        assert_eq!(get(&front, path).text(), "0", "{path}");
    }
}

/// Fault X28: what a server says of places and cookies is its own word. It goes on as it came, and is never acted on.
#[test]
fn places_and_cookies_of_servers_are_not_acted_on() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Location: http://inside.example/\r\nRefresh: 0; url=http://inside.example/\r\nSet-Cookie: a=b; Domain=example; Path=/app\r\nSet-Cookie: c=d, e\r\nContent-Length: 0\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "HTTP/1.1 302 Found\r\n"
  skip-to "Location: http://169.254.169.254/latest\r\nContent-Location: http://inside.example/\r\nRefresh: 0; url=http://inside.example/\r\nSet-Cookie: a=b; Domain=example; Path=/app\r\nSet-Cookie: c=d, e\r\n"
"#,
    );
}

/// Fault R34: a server that speaks before the handshake is over says nothing.
#[test]
fn octets_before_a_handshake_are_no_response() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, asked) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").unwrap();
        let _ = stream.read(&mut [0; 4096]);
        // Nobody comes again: the only server would do no better.
        listener.set_nonblocking(true).unwrap();
        asked.recv().unwrap();
        listener.accept().unwrap_err().kind()
    });
    let mut with = plan(&[port]);
    with.servers[0].tls = Some(eleven_net::tls_config::ClientSettings::default().build().unwrap());
    let front = Front::gateway(with);
    let response = get(&front, "/");
    assert_eq!(
        (response.status, response.field("proxy-status")),
        (502, Some("me; error=tls_protocol_error"))
    );
    told.send(()).unwrap();
    assert_eq!(server.join().unwrap(), std::io::ErrorKind::WouldBlock);
}
