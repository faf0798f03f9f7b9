//! The agent against servers that answer one canned response after the other, over real sockets on loopback.

use super::*;
use crate::credentials::Netrc;
use eleven_messaging::Config;
use eleven_net::dial::{Dialer, Options as DialOptions};
use eleven_net::resolve::{Limits, Resolver};
use eleven_net::tls_config::ClientSettings;
use redirect::NotFollowed;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that gives the next answer to the next request, whatever connection it comes on. `{port}` in an
/// answer is its port; an answer that ends in `!` is followed by a close, `!` alone is a close without a word.
/// What was asked, heads and contents, is collected.
struct Canned {
    port: u16,
    seen: Rc<RefCell<Vec<String>>>,
    connections: Rc<Cell<u32>>,
}

impl Canned {
    async fn new(answers: &[&str]) -> Canned {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let connections = Rc::new(Cell::new(0));
        let answers: Rc<RefCell<Vec<String>>> = Rc::new(RefCell::new(
            answers.iter().rev().map(|a| a.replace("{port}", &port.to_string())).collect(),
        ));
        let server = Canned { port, seen: seen.clone(), connections: connections.clone() };
        tokio::task::spawn_local(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                connections.set(connections.get() + 1);
                let (answers, seen) = (answers.clone(), seen.clone());
                tokio::task::spawn_local(async move {
                    while let Some(request) = read_request(&mut socket).await {
                        seen.borrow_mut().push(request);
                        let answer = answers.borrow_mut().pop().unwrap_or_else(|| "!".into());
                        let (text, close) = match answer.strip_suffix('!') {
                            Some(text) => (text.to_owned(), true),
                            None => (answer, false),
                        };
                        if socket.write_all(text.as_bytes()).await.is_err() || close {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    fn uri(&self, target: &str) -> Uri {
        uri(&format!("http://127.0.0.1:{}{target}", self.port))
    }

    fn request(&self, index: usize) -> String {
        self.seen.borrow()[index].clone()
    }
}

async fn read_request(socket: &mut tokio::net::TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut octet = [0; 1];
    while !text.ends_with(b"\r\n\r\n") {
        if socket.read(&mut octet).await.ok()? == 0 {
            return None;
        }
        text.push(octet[0]);
    }
    let head = String::from_utf8(text).unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |value| value.parse().unwrap());
    let mut content = vec![0; length];
    socket.read_exact(&mut content).await.ok()?;
    Some(head + &String::from_utf8(content).unwrap())
}

fn uri(text: &str) -> Uri {
    Uri::parse(text.as_bytes()).unwrap().0
}

fn agent(options: Options) -> Agent {
    let dialer = Dialer::new(Resolver::new(Limits::default()), DialOptions::default());
    dialer.resolver().set("a.example", None, &["127.0.0.1".parse().unwrap()]);
    dialer.resolver().set("b.example", None, &["127.0.0.1".parse().unwrap()]);
    let connector = Connector::new(dialer, ClientSettings::default(), Arc::new(Config::default()));
    Agent::new(options, connector, PoolLimits::default())
}

async fn content(mut response: Response) -> String {
    let mut all = Vec::new();
    while let Some(data) = response.data().await.unwrap() {
        all.extend_from_slice(data);
    }
    response.finish().await;
    String::from_utf8(all).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// 9112-3.2-03, 9112-3.2-04, 9110-7.2-01, 9110-7.2-02, 9110-10.1.5-01, 9112-9.3-01.
#[tokio::test(flavor = "local")]
async fn requests_are_right_and_connections_kept() {
    let server = Canned::new(&[OK, OK, OK]).await;
    let agent = agent(Options::default());
    for n in 0..3 {
        let response = agent.send(Ask::get(server.uri("/a?b#c"))).await.unwrap();
        assert_eq!(response.times.reused, n > 0);
        assert_eq!(content(response).await, "hi");
    }
    assert_eq!(server.connections.get(), 1);
    let request = server.request(0);
    assert!(
        request.starts_with(&format!("GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", server.port)),
        "{request}"
    );
    assert!(request.contains("\r\nUser-Agent: eleven/") && request.contains("\r\nAccept: */*\r\n"));
}

/// 9110-15.4-01, 9110-15.4-02d, 9110-15.4-02e; fault K10.
#[tokio::test(flavor = "local")]
async fn redirections_change_method_and_content() {
    for (status, method, content_kept) in [
        (301, "GET", false),
        (302, "GET", false),
        (303, "GET", false),
        (307, "POST", true),
        (308, "POST", true),
    ] {
        let redirect = format!("HTTP/1.1 {status} X\r\nLocation: /next\r\nContent-Length: 3\r\n\r\nabc");
        let server = Canned::new(&[&redirect, OK]).await;
        let agent = agent(Options::default());
        let mut ask = Ask::get(server.uri("/"));
        ask.method = Method::Post;
        ask.content = Content::Bytes("payload".into());
        ask.length = Length::Known(7);
        ask.fields.push("Content-Type", "text/plain").unwrap();
        let response = agent.send(ask).await.unwrap();
        assert_eq!((response.uri.path(), response.hops.len()), ("/next", 1));
        assert_eq!(content(response).await, "hi");
        let second = server.request(1);
        assert!(second.starts_with(&format!("{method} /next ")), "{status}: {second}");
        assert_eq!(second.ends_with("payload"), content_kept, "{status}");
        assert_eq!(second.contains("Content-Type"), content_kept, "{status}");
        assert_eq!(server.connections.get(), 1, "the redirection's content was read away");
    }
}

/// Faults K01, K02, K11.
#[tokio::test(flavor = "local")]
async fn redirections_that_are_not_followed() {
    for (location, expected) in [
        ("/", NotFollowed::Loop),
        ("file:///etc/passwd", NotFollowed::InvalidLocation(eleven_semantics::uri::InvalidUri::Scheme)),
        ("http://u:p@127.0.0.1:{port}/x", NotFollowed::Userinfo),
    ] {
        let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let server = Canned::new(&[&redirect, &redirect]).await;
        let failure = agent(Options::default()).send(Ask::get(server.uri("/"))).await.unwrap_err();
        assert_eq!(failure.cause, Cause::Redirect(expected), "{location}");
    }
    let server = Canned::new(&["HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nno"]).await;
    let stay = agent(Options { follow: false, ..Options::default() });
    assert_eq!(content(stay.send(Ask::get(server.uri("/"))).await.unwrap()).await, "no");
}

/// Faults K04, K05, K06, K07, K20; 9110-17.13-R1: what was dropped on the way to another origin stays dropped on
/// the way back.
#[tokio::test(flavor = "local")]
async fn secrets_do_not_cross_origins() {
    let there = "HTTP/1.1 302 Found\r\nLocation: http://b.example:{port}/b\r\nContent-Length: 0\r\n\r\n";
    let back = "HTTP/1.1 302 Found\r\nLocation: http://a.example:{port}/a2\r\nContent-Length: 0\r\n\r\n";
    let server = Canned::new(&[there, back, OK]).await;
    let mut credentials = Credentials::default();
    credentials.set_netrc(
        Netrc::parse(b"machine a.example login u password p machine b.example login v password q").unwrap(),
    );
    let mut jar = Jar::new();
    jar.give(b"sid=1", "a.example", 0);
    let agent = agent(Options::default()).with_credentials(credentials).with_jar(jar);
    let mut ask = Ask::get(uri(&format!("http://a.example:{}/a", server.port)));
    ask.fields.push("X-Api-Key", "secret").unwrap();
    ask.fields.push("Cookie", "own=2").unwrap();
    ask.fields.push("X-Plain", "kept").unwrap();
    content(agent.send(ask).await.unwrap()).await;
    let first = server.request(0);
    assert!(
        first.contains("Authorization: Basic dTpw") && first.contains("Cookie: own=2; sid=1\r\n"),
        "{first}"
    );
    for (index, absent) in [(1, &["Authorization", "X-Api-Key", "Cookie"][..]), (2, &["X-Api-Key", "own=2"])]
    {
        let request = server.request(index);
        for name in absent {
            assert!(!request.contains(name), "{name} in {request}");
        }
        assert!(request.contains("X-Plain: kept"), "{request}");
    }
    // The jar's cookie belongs to a.example and goes there again; that is not regained but its own.
    assert!(server.request(2).contains("Cookie: sid=1"));
}

/// 6265-5.4-01, 6265-3-02b: cookies of any status, and of redirections.
#[tokio::test(flavor = "local")]
async fn cookies_are_kept_on_the_way() {
    let server = Canned::new(&[
        "HTTP/1.1 302 Found\r\nLocation: /\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2; Domain=example\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nSet-Cookie: c=3\r\nContent-Length: 2\r\n\r\nno",
        OK,
    ])
    .await;
    let agent = agent(Options::default()).with_jar(Jar::new());
    let response = agent.send(Ask::get(server.uri("/"))).await.unwrap();
    assert_eq!(response.head().status, Status::NOT_FOUND, "no loop: a cookie was set on the way");
    content(response).await;
    content(agent.send(Ask::get(server.uri("/"))).await.unwrap()).await;
    assert!(server.request(1).contains("Cookie: a=1\r\n"));
    assert!(server.request(2).contains("Cookie: a=1; c=3\r\n"));
}

/// 9110-11.5-01, 9110-15.5.2-02, 9110-15.5.2-03; fault K08.
#[tokio::test(flavor = "local")]
async fn challenges_are_answered_once() {
    let digest = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x, Digest realm=\"r\", nonce=\"n1\", qop=\"auth\", algorithm=SHA-256\r\nContent-Length: 2\r\n\r\nno";
    let basic = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 2\r\n\r\nno";
    let with = |preemptive, server: &Canned| {
        let mut credentials = Credentials::default();
        credentials.give(&server.uri("/"), Secret::Password { user: b"u".to_vec(), password: b"p".to_vec() });
        agent(Options { preemptive, ..Options::default() }).with_credentials(credentials)
    };
    let server = Canned::new(&[digest, OK, OK]).await;
    let agent = with(false, &server);
    assert_eq!(content(agent.send(Ask::get(server.uri("/x"))).await.unwrap()).await, "hi");
    assert_eq!(content(agent.send(Ask::get(server.uri("/y"))).await.unwrap()).await, "hi");
    assert!(!server.request(0).contains("Authorization"));
    assert!(
        server.request(1).contains("Authorization: Digest username=\"u\"")
            && server.request(1).contains("nc=00000001")
    );
    assert!(
        server.request(2).contains("uri=\"/y\"") && server.request(2).contains("nc=00000002"),
        "the nonce is used again"
    );

    let server = Canned::new(&[basic, basic, OK]).await;
    let response = with(false, &server).send(Ask::get(server.uri("/"))).await.unwrap();
    assert_eq!(response.head().status, Status::UNAUTHORIZED, "refused again: shown to the user");
    assert_eq!(server.seen.borrow().len(), 2);

    let server = Canned::new(&[basic, OK]).await;
    let response = with(true, &server).send(Ask::get(server.uri("/"))).await.unwrap();
    assert_eq!(response.head().status, Status::UNAUTHORIZED, "the same credentials are not tried twice");
    assert!(server.request(0).contains("Authorization: Basic dTpw"));
}

/// 9110-9.2.2-01, 9110-9.2.2-03; fault K44.
#[tokio::test(flavor = "local")]
async fn what_is_retried_without_asking() {
    for (method, answers, requests, succeeds) in [
        (Method::Get, &["!", OK][..], 2, true),
        (Method::Put, &["!", OK], 2, true),
        (Method::Get, &["!", "!", OK], 2, false),
        (Method::Post, &["!", OK], 1, false),
        (Method::Get, &["HTTP/1.1 200!", OK], 2, true),
        (Method::Get, &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe!", OK], 1, true),
    ] {
        let server = Canned::new(answers).await;
        let agent = agent(Options::default());
        let mut ask = Ask::get(server.uri("/"));
        if method == Method::Post || method == Method::Put {
            ask.content = Content::Bytes("x".into());
            ask.length = Length::Known(1);
        }
        ask.method = method.clone();
        let result = agent.send(ask).await;
        assert_eq!(result.is_ok(), succeeds, "{method} {answers:?}");
        assert_eq!(server.seen.borrow().len(), requests, "{method} {answers:?}");
    }
    // An idle connection that the server closed just now costs nobody a failure, nor a second one.
    let server = Canned::new(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", "!", OK]).await;
    let agent = agent(Options::default());
    content(agent.send(Ask::get(server.uri("/"))).await.unwrap()).await;
    assert_eq!(content(agent.send(Ask::get(server.uri("/"))).await.unwrap()).await, "hi");
}

/// 9112-3.2.2-01, 9112-3.2.2-02, 9112-3.2.3-01, 9110-9.3.6-01; fault K21.
#[tokio::test(flavor = "local")]
async fn proxies_get_the_target_they_need() {
    let proxy = Canned::new(&[OK, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"]).await;
    let proxies = Proxies::one(&format!("http://me:pw@127.0.0.1:{}", proxy.port), "").unwrap();
    let agent = agent(Options::default()).with_proxies(proxies);
    content(agent.send(Ask::get(uri("http://a.example/x"))).await.unwrap()).await;
    let seen = proxy.request(0);
    assert!(seen.starts_with("GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n"), "{seen}");
    assert!(seen.contains("Proxy-Authorization: Basic bWU6cHc=\r\n"), "{seen}");
    let failure = agent.send(Ask::get(uri("https://a.example/x"))).await.unwrap_err();
    assert_eq!((failure.phase, failure.cause), (Phase::Tunnel, Cause::Status(403)));
    assert!(proxy.request(1).starts_with("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n"));
}

#[tokio::test(flavor = "local")]
async fn unix_sockets_and_refusals() {
    let path = std::env::temp_dir().join(format!("eleven-agent-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::task::spawn_local(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        let _ = socket.read(&mut buffer).await;
        let _ = socket.write_all(OK.as_bytes()).await;
    });
    let agent_ = agent(Options { unix_socket: Some(path.clone()), ..Options::default() });
    assert_eq!(content(agent_.send(Ask::get(uri("http://anything/x"))).await.unwrap()).await, "hi");
    std::fs::remove_file(&path).unwrap();
    // A port that nobody listens on: a listener that was just dropped.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let failure = agent(Options::default())
        .send(Ask::get(uri(&format!("http://127.0.0.1:{port}/"))))
        .await
        .unwrap_err();
    assert_eq!((failure.phase, failure.retry), (Phase::Connect, RetrySafety::NotSent));
    assert!(failure.is_transient());
}

/// 9110-15.5.8-02, RFC 7616: Digest towards proxies, for requests and for tunnels; asked for once, then sent at once,
/// and a refusal of the same nonce is final unless it became stale.
#[tokio::test(flavor = "local")]
async fn proxies_may_ask_for_digest() {
    let asks = |nonce: &str, more: &str| {
        format!(
            "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\nProxy-Authenticate: Digest realm=\"r\", \
             nonce=\"{nonce}\", qop=\"auth\", algorithm=SHA-256{more}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let (first, stale) = (asks("n1", ""), asks("n2", ", stale=true"));
    let proxy = Canned::new(&[&first, OK, OK, &stale, OK, refusal, &first, OK]).await;
    let proxies = Proxies::one(&format!("http://me:pw@127.0.0.1:{}", proxy.port), "").unwrap();
    let agent_ = agent(Options::default()).with_proxies(proxies);
    for path in ["/1", "/2", "/3"] {
        let response = agent_.send(Ask::get(uri(&format!("http://a.example{path}")))).await.unwrap();
        assert_eq!(content(response).await, "hi");
    }
    let failure = agent_.send(Ask::get(uri("https://a.example/"))).await.unwrap_err();
    assert_eq!((failure.phase, failure.cause), (Phase::Tunnel, Cause::Status(403)));
    for (index, parts) in [
        (0, &["GET http://a.example/1 ", "Proxy-Authorization: Basic bWU6cHc="][..]),
        (1, &["Digest username=\"me\"", "nonce=\"n1\"", "uri=\"http://a.example/1\"", "nc=00000001"]),
        (2, &["nonce=\"n1\"", "uri=\"http://a.example/2\"", "nc=00000002"]),
        (3, &["nonce=\"n1\"", "nc=00000003"]),
        (4, &["nonce=\"n2\"", "uri=\"http://a.example/3\"", "nc=00000001"]),
        (5, &["CONNECT a.example:443 ", "nonce=\"n2\"", "uri=\"a.example:443\"", "nc=00000002"]),
    ] {
        let seen = proxy.request(index);
        assert!(parts.iter().all(|part| seen.contains(part)), "{index}: {seen}");
    }
    // A known nonce that is refused without being stale: the answer stands.
    let response = agent_.send(Ask::get(uri("http://a.example/4"))).await.unwrap();
    assert_eq!(response.head().status, Status::PROXY_AUTHENTICATION_REQUIRED);

    // A tunnel asks again by itself, on a new connection.
    let proxy = Canned::new(&[&first, refusal]).await;
    let proxies = Proxies::one(&format!("http://me:pw@127.0.0.1:{}", proxy.port), "").unwrap();
    let failure =
        agent(Options::default()).with_proxies(proxies).send(Ask::get(uri("https://a.example/"))).await;
    assert_eq!(failure.unwrap_err().cause, Cause::Status(403));
    assert!(proxy.request(1).contains("Digest username=\"me\"") && proxy.connections.get() == 2);
    // Without credentials there is nothing to answer with.
    let proxy = Canned::new(&[&first, OK]).await;
    let proxies = Proxies::one(&format!("http://127.0.0.1:{}", proxy.port), "").unwrap();
    let agent_ = agent(Options::default()).with_proxies(proxies);
    let response = agent_.send(Ask::get(uri("http://a.example/"))).await.unwrap();
    assert_eq!(response.head().status, Status::PROXY_AUTHENTICATION_REQUIRED);
    assert_eq!(proxy.seen.borrow().len(), 1);
}

/// 9110-10.1.1-06: what is refused for its expectation is sent once more without it; not again and again.
/// 9110-10.1.1-02: nothing is expected without content.
#[tokio::test(flavor = "local")]
async fn an_expectation_that_failed_is_given_up() {
    let refused = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Rc<RefCell<Vec<String>>> = Rc::default();
    let heard = Rc::clone(&seen);
    tokio::task::spawn_local(async move {
        // The content of a request that expects is never sent, so this server reads heads only.
        for answer in [refused, OK, refused, refused] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (mut head, mut octet) = (Vec::new(), [0; 1]);
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut octet).await.unwrap() == 1 {
                head.push(octet[0]);
            }
            heard.borrow_mut().push(String::from_utf8(head).unwrap());
            socket.write_all(answer.as_bytes()).await.unwrap();
            let _ = socket.shutdown().await;
        }
    });
    let agent_ = agent(Options { automatic_retries_max: 0, ..Options::default() });
    let put = || Ask {
        method: Method::Put,
        content: Content::Bytes("content".into()),
        length: Length::Known(7),
        expect_continue: true,
        close: true,
        ..Ask::get(uri(&format!("http://127.0.0.1:{port}/")))
    };
    assert_eq!(agent_.send(put()).await.unwrap().head().status, Status::OK);
    assert_eq!(agent_.send(put()).await.unwrap().head().status, Status::EXPECTATION_FAILED);
    let expects: Vec<bool> =
        seen.borrow().iter().map(|head| head.contains("Expect: 100-continue\r\n")).collect();
    assert_eq!(expects, [true, false, true, false]);
    let server = Canned::new(&[OK]).await;
    let nothing = Ask { expect_continue: true, ..Ask::get(server.uri("/")) };
    content(agent(Options::default()).send(nothing).await.unwrap()).await;
    assert!(!server.request(0).contains("Expect"));
}

/// 9110-9.3.8-02, 9110-9.3.8-04: TRACE comes back to whoever looks on.
#[tokio::test(flavor = "local")]
async fn trace_carries_no_secrets_and_no_content() {
    let server = Canned::new(&[OK, OK]).await;
    let mut credentials = Credentials::default();
    credentials.give(&server.uri("/"), Secret::Password { user: b"u".to_vec(), password: b"p".to_vec() });
    let mut jar = Jar::new();
    jar.give(b"sid=1", "127.0.0.1", clock::unix_seconds());
    let agent_ = agent(Options::default()).with_credentials(credentials).with_jar(jar);
    let fields: Fields = [("X-Auth-Token", "t"), ("X-Plain", "kept"), ("Cookie", "own=1")].iter().collect();
    let ask = |method| Ask { method, fields: fields.clone(), ..Ask::get(server.uri("/")) };
    content(agent_.send(ask(Method::Trace)).await.unwrap()).await;
    content(agent_.send(ask(Method::Get)).await.unwrap()).await;
    let (trace, get) = (server.request(0), server.request(1));
    for secret in ["Authorization", "X-Auth-Token", "Cookie"] {
        assert!(!trace.contains(secret) && get.contains(secret), "{secret}: {trace} {get}");
    }
    assert!(trace.contains("X-Plain: kept"), "{trace}");
    let content = Ask { content: Content::Bytes("x".into()), length: Length::Known(1), ..ask(Method::Trace) };
    assert_eq!(agent_.send(content).await.unwrap_err().phase, Phase::Prepare);
    assert_eq!(server.seen.borrow().len(), 2);
}

/// What every request has, and what none has unless the user asks for it: 9110-4.2.4-01 (no userinfo), 9110-6.2-01 (the
/// highest version), 9110-6.2-02, 9110-8.6-02 (no length without content), 9110-9.3.1-01, 9110-9.3.2-04, 9110-9.3.5-02
/// (no content), 9110-10.1.2-01 (no From), 9110-10.1.3-02 (no Referer), 9110-10.1.5-04 (a plain User-Agent),
/// 9110-12.5.4-01 (no Accept-Language), 9110-6.6.1-06 (no Date).
#[tokio::test(flavor = "local")]
async fn requests_say_no_more_than_they_must() {
    for method in [Method::Get, Method::Head, Method::Delete, Method::Options, Method::Trace] {
        let server = Canned::new(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
        let (target, userinfo) =
            Uri::parse(format!("http://user:word@127.0.0.1:{}/p?q", server.port).as_bytes()).unwrap();
        assert!(userinfo.is_some());
        let ask = Ask { method: method.clone(), ..Ask::get(target) };
        agent(Options::default()).send(ask).await.unwrap().drain().await;
        let request = server.request(0);
        let lines: Vec<&str> = request.trim_end().lines().collect();
        assert_eq!(lines[0], format!("{method} /p?q HTTP/1.1"));
        let names: Vec<&str> = lines[1..].iter().map(|line| line.split(':').next().unwrap()).collect();
        let rest: Vec<&&str> = names
            .iter()
            .filter(|n| !["Host", "User-Agent", "Accept", "TE", "Connection"].contains(n))
            .collect();
        assert!(rest.is_empty(), "{request}");
        assert!(request.contains(concat!("User-Agent: eleven/", env!("CARGO_PKG_VERSION"), "\r\n")));
        assert!(!request.contains("user") && !request.contains("word"), "{request}");
    }
}

/// 9110-15-01: an unknown status is that of its class; 9110-15-02: what is none at all is the server's fault.
/// 9110-15.4.2-02, 9110-15.4.3-02, 9110-15.4.8-03: a Location is followed where that may be done, and 9110-15.5.4-01: what
/// was refused is not sent again.
#[tokio::test(flavor = "local")]
async fn statuses_are_taken_by_their_class() {
    for (line, expected, requests) in [
        ("299 Odd", Ok(299), 1),
        ("399 Odd", Ok(399), 1),
        ("499 Odd", Ok(499), 1),
        ("599 Odd", Ok(599), 1),
        ("403 No", Ok(403), 1),
        ("301 Moved", Ok(200), 2),
        ("302 Found", Ok(200), 2),
        ("307 There", Ok(200), 2),
        ("308 There", Ok(200), 2),
        ("199 Odd", Err(()), 1),
        ("99 Odd", Err(()), 1),
        ("1000 Odd", Err(()), 1),
    ] {
        let answer = format!("HTTP/1.1 {line}\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n");
        let answers =
            if line.starts_with("199") { [answer.clone() + "!", answer] } else { [answer, OK.into()] };
        let server = Canned::new(&answers.each_ref().map(String::as_str)).await;
        let agent_ = agent(Options { automatic_retries_max: 0, ..Options::default() });
        let result = agent_.send(Ask::get(server.uri("/"))).await;
        let status = result.map(|response| response.head().status.code());
        assert_eq!(status.map_err(|_| ()), expected, "{line}");
        assert_eq!(server.seen.borrow().len(), requests, "{line}");
    }
}

/// Fault R34: what a proxy, or whoever is between, sends behind its 200 to CONNECT is nobody's TLS.
#[tokio::test(flavor = "local")]
async fn octets_before_a_tunnel_is_used_are_refused() {
    let proxy = Canned::new(&["HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\nplain"]).await;
    let proxies = Proxies::one(&format!("http://127.0.0.1:{}", proxy.port), "").unwrap();
    let agent = agent(Options::default()).with_proxies(proxies);
    let failure = agent.send(Ask::get(uri("https://a.example/x"))).await.unwrap_err();
    assert!(matches!(failure.cause, Cause::Malformed(_)) || failure.phase == Phase::Tls, "{failure}");
}
