//! Gateway and forward proxy between scripted clients and servers, over sockets on loopback. Rules of forwarding,
//! faults R01 to R36, S (what reaches a server is one unambiguous message or nothing), X, H by their ids.

use super::open::{OpenPlan, OpenProxy};
use super::*;
use crate::handler::Handler;
use crate::serve::{Options, Running, start};
use crate::service::Service;
use crate::worker::Settings;
use eleven_testkit::reader::Reader;
use eleven_testkit::script::Stage;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

mod balance;
mod buffering;
mod cached;
mod cuts;
mod faults;
mod kills;
mod logs;
mod rules;
mod smuggling;
mod soon;
mod world;

/// A server in this process, stopped with the value.
pub(super) struct Front {
    running: Running,
    pub(super) address: SocketAddr,
}

impl Front {
    fn start(service: Arc<dyn Fn() -> Service + Send + Sync>) -> Front {
        Front::start_with(service, None)
    }

    fn start_with(
        service: Arc<dyn Fn() -> Service + Send + Sync>,
        log: Option<Arc<crate::access_log::AccessLog>>,
    ) -> Front {
        let running = start(Options {
            listen: vec!["127.0.0.1:0".parse::<eleven_net::listener::ListenAddr>().unwrap().into()],
            workers: 1,
            settings: Settings::default(),
            connections_max: 0,
            connections_per_address_max: 0,
            log,
            metrics: Default::default(),
            service,
        })
        .unwrap();
        let url = running.addresses()[0].clone();
        let address = url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap();
        Front { running, address }
    }

    pub(super) fn gateway(plan: GatewayPlan) -> Front {
        let plan = Arc::new(plan);
        Front::start(Arc::new(move || Service::single(Handler::Gateway(Gateway::start(Arc::clone(&plan))))))
    }

    fn forward(plan: OpenPlan) -> Front {
        let plan = Arc::new(plan);
        Front::start(Arc::new(move || Service::single(Handler::Forward(OpenProxy::start(Arc::clone(&plan))))))
    }

    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.running.stop();
    }
}

/// A port that is taken and refuses connections.
struct Nobody(socket2::Socket);

impl Nobody {
    fn new() -> Nobody {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Nobody(socket)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().as_socket().unwrap().port()
    }
}

pub(super) fn plan(ports: &[u16]) -> GatewayPlan {
    let servers = ports.iter().map(|&port| ServerPlan::tcp("127.0.0.1", port)).collect();
    let mut plan = GatewayPlan::new(servers, "me");
    plan.rules.provenance = Provenance::Replace(Told::Nothing);
    plan
}

/// Plays a script whose `target` is a gateway to its server `origin`.
#[track_caller]
fn play(script: &str) {
    play_with(script, |_| {});
}

#[track_caller]
fn play_with(script: &str, change: impl FnOnce(&mut GatewayPlan)) {
    let stage = Stage::new(script);
    let mut plan = plan(&[stage.address("origin").port()]);
    change(&mut plan);
    let front = Front::gateway(plan);
    stage.with("target", front.address).run();
}

/// Plays a script whose `target` is a forward proxy that may lead to this machine.
#[track_caller]
fn play_open(script: &str, change: impl FnOnce(&mut OpenPlan)) {
    let stage = Stage::new(script);
    let mut plan = OpenPlan::new("me");
    plan.destinations = vec!["127.0.0.0/8".parse().unwrap()];
    plan.tell_details = false;
    change(&mut plan);
    let front = Front::forward(plan);
    stage.with("target", front.address).run();
}

/// 9112-2.3-01, 9110-5.1-01, 9110-5.3-02, 9110-5.3-R1, 6265-3-03, 9110-7.6.1-02, 9110-7.6.3-01, 9110-7.6.3-02: rebuilt, never copied.
/// Fault H20.
#[test]
fn a_request_and_its_response_are_rebuilt() {
    play(
        r#"
server origin
  expect
    | GET /a?b=%20c HTTP/1.1
    | Host: h.example
    | x-one: 1
    | ACCEPT: a
    | X-One: 2
    | Via: 1.1 me
    |
  send "HTTP/1.1 200 Fine\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nset-cookie: a=1\r\nConnection: X-Hop\r\nX-Hop: 1\r\nSet-Cookie: b=2\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nhi"
client
  send "GET /a?b=%20c HTTP/1.1\r\nHost: h.example\r\nx-one: 1\r\nConnection: close, X-Secret\r\nACCEPT: a\r\nX-Secret: s\r\nX-One: 2\r\nProxy-Connection: keep-alive\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Date: Sun, 06 Nov 1994 08:49:37 GMT
    | set-cookie: a=1
    | Set-Cookie: b=2
    | Via: 1.1 me
    | Content-Length: 2
    | Connection: close
    |
  expect "hi"
  expect-close
"#,
    );
}

/// 9110-6.6.1-04: a response without Date gets one.
#[test]
fn a_missing_date_is_added() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 204 No Content
    | Date: *
    | Via: 1.1 me
    |
"#,
    );
}

/// 9112-9.3-04: one connection to the server serves several clients, one after the other.
#[test]
fn connections_to_servers_are_used_again() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
  skip-to "GET /2 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n"
  skip-to "HEAD /3 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n"
client
  send "GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "1"
  expect-close
  connect
  send "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "Content-Length: 1\r\n\r\n"
  expect "2"
  send "HEAD /3 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "Content-Length: 33\r\n\r\n"
"#,
    );
}

/// Content of any framing arrives with the framing that fits, and trailers both ways (fault R30).
#[test]
fn content_and_trailers_pass_both_ways() {
    play(
        r#"
server origin
  expect
    | POST / HTTP/1.1
    | Host: h
    | Trailer: X-Sum
    | Via: 1.1 me
    | Transfer-Encoding: chunked
    | TE: trailers
    | Connection: TE
    |
  expect "5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 3\r\nSet-Cookie: evil=1\r\nContent-Length: 9\r\n\r\n"
client
  send "POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 5\r\nAuthorization: Basic eDp5\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Date: Sun, 06 Nov 1994 08:49:37 GMT
    | Trailer: X-Sum
    | Via: 1.1 me
    | Transfer-Encoding: chunked
    |
  expect "3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n"
"#,
    );
}

/// 9112-6.1-11, 9112-6.3-R7: HTTP/1.0 on either side.
#[test]
fn old_clients_and_old_servers() {
    play(
        r#"
server origin
  expect
    | GET /1 HTTP/1.1
    | Host: 127.0.0.1*
    | Via: 1.0 me
    |
  send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil "
  await go
  send "close"
  close
client
  send "GET /1 HTTP/1.0\r\n\r\n"
  skip-to "Via: 1.1 me\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
  expect "ab"
  expect-close
  connect
  send "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "Via: 1.0 me\r\nTransfer-Encoding: chunked\r\n\r\n"
  expect "6\r\nuntil \r\n"
  signal go
  expect "5\r\nclose\r\n0\r\n\r\n"
"#,
    );
}

/// 9110-15.2-04, fault R06: interim responses pass to HTTP/1.1 clients and not to HTTP/1.0 clients.
#[test]
fn interim_responses_pass() {
    for (request, interim) in
        [("GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n", true), ("GET / HTTP/1.0\\r\\n\\r\\n", false)]
    {
        let expected = if interim {
            "  expect\n    | HTTP/1.1 103 Early Hints\n    | Link: </a>\n    | Via: 1.1 me\n    |\n  expect\n    | HTTP/1.1 103 Early Hints\n    | Link: </b>\n    | Via: 1.1 me\n    |\n"
        } else {
            ""
        };
        play(&format!(
            r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: 1\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n"
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "{request}"
{expected}  expect
    | HTTP/1.1 204 No Content
    | ...
    |
"#
        ));
    }
}

/// 9110-10.1.1-13: the expectation is passed on at once, the 100 and the content follow.
#[test]
fn expectations_are_met_end_to_end() {
    play(
        r#"
server origin
  expect
    | PUT / HTTP/1.1
    | Host: h
    | ...
    | Expect: 100-continue
    |
  signal head
  send "HTTP/1.1 100 Continue\r\n\r\n"
  expect "hello"
  send "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
client
  send "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
  await head
  expect
    | HTTP/1.1 100 Continue
    |
  send "hello"
  expect
    | HTTP/1.1 201 Created
    | ...
    |
"#,
    );
}

/// A final response instead of 100 reaches the client, which never sends the content (faults S46, S50).
#[test]
fn a_refusal_instead_of_100_reaches_the_client() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
  expect-close
client
  send "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
  expect
    | HTTP/1.1 413 Content Too Large
    | ...
    | Connection: close
    |
  expect-close
"#,
    );
}

/// RFC 2616 §8.2.3: a next hop known to speak HTTP/1.0 is not asked for 100; another server gets the content after
/// some patience (9110-10.1.1-05).
#[test]
fn expectations_that_cannot_be_met() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\n"
  send "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
  expect
    | HTTP/1.1 417 Expectation Failed
    | ...
    |
"#,
    );
    play_with(
        r#"
server origin
  skip-to "\r\n\r\n"
  expect "hello"
  send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
client
  send "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
  expect
    | HTTP/1.1 100 Continue
    |
  send "hello"
  expect
    | HTTP/1.1 200 OK
    | ...
    |
"#,
        |plan| plan.timeouts.continue_timeout_ms = 20,
    );
}

/// 9110-7.5-01, 9112-9.5-05: a response that comes while the client is still sending reaches it, and the rest of the
/// content still reaches the server.
#[test]
fn early_responses_pass_while_content_still_flows() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  expect "5\r\nfirst\r\n"
  send "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
  expect "6\r\nsecond\r\n0\r\n\r\n"
  send "3\r\ntwo\r\n0\r\n\r\n"
client
  send "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
  skip-to "\r\n\r\n"
  expect "3\r\none\r\n"
  send "6\r\nsecond\r\n0\r\n\r\n"
  expect "3\r\ntwo\r\n0\r\n\r\n"
  send "GET"
"#,
    );
}

/// 9112-9.5-06: a refusal during the upload reaches the client; the connection to the server is not used again.
#[test]
fn an_early_refusal_ends_the_upload() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  expect "first"
  send "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
  expect-close
client
  send "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nfirst"
  expect
    | HTTP/1.1 403 Forbidden
    | ...
    | Connection: close
    |
  expect "no"
"#,
    );
}

/// A client that cuts its request short: the server never sees it as whole (invariant 9).
#[test]
fn a_cut_request_is_cut_for_the_server_too() {
    for framing in ["Content-Length: 11", "Transfer-Encoding: chunked"] {
        play(&format!(
            r#"
server origin
  skip-to "\r\n\r\n"
  signal head
  wait-for-close
client
  send "POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"
  send "5\r\nhello\r\n"
  await head
  half-close
  wait-for-close
"#
        ));
    }
}

/// What is wrong with a response is a 502 with a name, and never passed on. R02, R08, R17, R20, R22 to R25, R27,
/// R28, R36; 9112-6.3-06, 9110-8.6-09, 9110-8.6-10.
/// Fault R35.
#[test]
fn malformed_responses_become_502() {
    let large = format!("HTTP/1.1 200 OK\\r\\nX: {}\\r\\n\\r\\n", "a".repeat(70_000));
    for response in [
        "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nContent-Length: 5\\r\\n\\r\\nhello",
        "HTTP/1.1 200 OK\\r\\nContent-Length: 2, 5\\r\\n\\r\\nhello",
        "HTTP/1.1 200 OK\\r\\nContent-Length: +5\\r\\n\\r\\nhello",
        "HTTP/1.1 200 OK\\r\\nContent-Length: 0x5\\r\\n\\r\\nhello",
        "HTTP/1.1 200 OK\\r\\nContent-Length: -5\\r\\n\\r\\nhello",
        "HTTP/1.1 200 OK\\r\\nContent-Length: 99999999999999999999\\r\\n\\r\\nhello",
        "HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: x\\r\\nConnection: upgrade\\r\\n\\r\\n",
        "HTTP/1.1 200 OK\\r\\nX: a\\rSet-Cookie: p=1\\r\\nContent-Length: 0\\r\\n\\r\\n",
        "HTTP/1.1 200 OK\\r\\nX: a\\0b\\r\\nContent-Length: 0\\r\\n\\r\\n",
        "HTTP/1.1 20 OK\\r\\n\\r\\n",
        "HTTP/1.1 2000 OK\\r\\n\\r\\n",
        "HTTP/1.1 000 OK\\r\\n\\r\\n",
        "ICY 200 OK\\r\\n\\r\\n",
        "HTTP/2.0 200 OK\\r\\n\\r\\n",
        "hello",
        "HTTP/1.1 200 OK\\r\\nContent-Length : 5\\r\\n\\r\\nhello",
        "HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked, identity\\r\\n\\r\\n0\\r\\n\\r\\n",
        "HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked, chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
        "HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n-5\\r\\nhello\\r\\n",
        "HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n10000000000000005\\r\\nhello\\r\\n",
        &large,
    ] {
        // A POST is never tried again, so that the script's one connection suffices.
        play(&format!(
            r#"
server origin
  skip-to "\r\n\r\n"
  send "{response}"
  close
client
  send "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
  expect
    | HTTP/1.1 502 Bad Gateway
    | ...
    | Proxy-Status: me; error=*
    | ...
    |
"#
        ));
    }
}

/// Faults R03, R04, R05, R09, R10: what follows a response is never the next one.
#[test]
fn surplus_octets_poison_nothing() {
    for first in [
        "HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhelloHTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nPOISON",
        "HTTP/1.1 204 No Content\\r\\nContent-Length: 6\\r\\n\\r\\nPOISON",
        "HTTP/1.1 304 Not Modified\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nPOISON",
        "HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5\\r\\nhello\\r\\n0\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nPOISON",
    ] {
        play(&format!(
            r#"
server origin
  skip-to "\r\n\r\n"
  send "{first}"
  signal sent
  accept
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
client
  send "GET /1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
  wait-for-close
  connect
  send "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "good"
"#
        ));
    }
}

/// Fault R07: endless interim responses end in 502.
#[test]
fn interim_floods_end() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send 40 "HTTP/1.1 103 Early Hints\r\n\r\n"
  wait-for-close
client
  send "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
  skip-to "HTTP/1.1 502 Bad Gateway\r\n"
"#,
    );
}

/// Faults R31, F07: silence is 504, a refused connection 502, each with its name.
#[test]
fn servers_that_do_not_answer() {
    play_with(
        r#"
server origin
  skip-to "\r\n\r\n"
  wait-for-close
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 504 Gateway Timeout
    | ...
    | Proxy-Status: me; error=http_response_timeout
    | ...
    |
"#,
        |plan| plan.timeouts.head_timeout_ms = 30,
    );
    let nobody = Nobody::new();
    let front = Front::gateway(plan(&[nobody.port()]));
    let response = get(&front, "/");
    assert_eq!(response.status, 502);
    assert_eq!(response.field("proxy-status"), Some("me; error=connection_refused"));
    // L12, L13: nothing of the request or the address in it.
    assert!(!response.text().contains("127.0.0.1"), "{}", response.text());
}

fn get(front: &Front, target: &str) -> eleven_testkit::reader::Response {
    let mut stream = front.connect();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    Reader::new(stream).response("GET").unwrap()
}

/// 9110-9.2.2-02, fault K44: what may be repeated is repeated, and nothing else.
#[test]
fn only_safe_attempts_are_repeated() {
    // The server closes an idle connection just as the next request is on its way.
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
  skip-to "PUT /2 HTTP/1.1\r\n"
  skip-to "\r\n\r\nhello"
  close
  accept
  skip-to "PUT /2 HTTP/1.1\r\n"
  skip-to "\r\n\r\nhello"
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\n"
  send "PUT /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
  skip-to "HTTP/1.1 204 No Content\r\n"
"#,
    );
    play(
        r#"
server origin
  skip-to "POST /1 HTTP/1.1\r\n"
  skip-to "\r\n\r\nhello"
  close
client
  send "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
  expect
    | HTTP/1.1 502 Bad Gateway
    | ...
    | Proxy-Status: me; error=connection_terminated
    | ...
    |
"#,
    );
}

/// A server that cannot be reached costs a retry elsewhere, also for what may not be repeated: nothing was sent.
#[test]
fn other_servers_take_over() {
    let nobody = Nobody::new();
    let stage = Stage::new(
        r#"
server origin
  skip-to "\r\n\r\nhello"
  send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
  skip-to "\r\n\r\nhello"
  send "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
client
  send "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
  skip-to "HTTP/1.1 200 OK\r\n"
  skip-to "\r\n\r\n"
  send "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
  skip-to "HTTP/1.1 200 OK\r\n"
"#,
    );
    let front = Front::gateway(plan(&[nobody.port(), stage.address("origin").port()]));
    stage.with("target", front.address).run();
}

/// Faults X18, X19: a request that was here before, or at too many others.
#[test]
fn loops_are_named() {
    let many = "1.1 a, ".repeat(40);
    for via in ["1.1 me", "1.0 other, HTTP/1.1 ME (comment)", &many] {
        let nobody = Nobody::new();
        let front = Front::gateway(plan(&[nobody.port()]));
        let mut stream = front.connect();
        write!(stream, "GET / HTTP/1.1\r\nHost: h\r\nVia: {via}\r\n\r\n").unwrap();
        let response = Reader::new(stream).response("GET").unwrap();
        assert_eq!(response.status, 502);
        assert_eq!(response.field("proxy-status"), Some("me; error=proxy_loop_detected"), "{via}");
    }
}

/// Faults X16, X17; 9110-7.6.2-02, 9110-7.6-02.
#[test]
fn loops_and_last_stops_are_answered_here() {
    for (request, status) in [
        ("OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n", 204),
        ("TRACE / HTTP/1.1\r\nHost: h\r\nCookie: secret\r\n\r\n", 405),
        ("OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: x\r\n\r\n", 400),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 405),
        ("GET /%2e%2e/%00/.. HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /../.. HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ] {
        // Whoever tries to reach a server gets 502.
        let nobody = Nobody::new();
        let front = Front::gateway(plan(&[nobody.port()]));
        let mut stream = front.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let response = Reader::new(stream).response(request.split(' ').next().unwrap()).unwrap();
        assert_eq!(response.status, status, "{request}");
        assert!(!response.text().contains("secret"));
        told(&response);
    }
}

/// What this server says itself names the reason in a sentence, and 405 what is allowed (9110-15.5.6-01).
#[track_caller]
fn told(response: &eleven_testkit::reader::Response) {
    if response.status >= 400 {
        assert!(
            response.text().lines().nth(1).is_some_and(|line| line.ends_with('.')),
            "{}",
            response.text()
        );
    }
    assert_eq!(response.field("allow").is_some(), matches!(response.status, 204 | 405));
}

/// Fault X16; 9110-15.5.6-01: a forward proxy echoes nothing either.
#[test]
fn a_forward_proxy_traces_nothing() {
    let front = Front::forward(OpenPlan::new("me"));
    for more in ["", "Max-Forwards: 0\r\n", "Max-Forwards: 3\r\n"] {
        let mut stream = front.connect();
        write!(stream, "TRACE http://h.example/ HTTP/1.1\r\nHost: h.example\r\nCookie: secret\r\n{more}\r\n")
            .unwrap();
        let response = Reader::new(stream).response("TRACE").unwrap();
        assert_eq!(response.status, 405, "{more}");
        assert!(!response.text().contains("secret"));
        told(&response);
    }
}

/// 9110-7.7-03, 9110-7.7-R1, fault X21: the path goes on as it came, unless it has dot segments.
#[test]
fn targets_go_on_as_they_came_or_canonical() {
    for (target, prefix, onward) in [
        ("/a//b/%7Euser/%41?x=/../y", "", "/a//b/%7Euser/%41?x=/../y"),
        ("/", "", "/"),
        ("/?", "", "/?"),
        ("http://h/x?y", "", "/x?y"),
        ("http://h", "", "/"),
        ("/a/../b", "", "/b"),
        ("/a/%2e%2E/b?q", "", "/b?q"),
        ("/a/./b%20c/", "", "/a/b%20c/"),
        ("/.well-known/x", "", "/.well-known/x"),
        ("/a...b/..c", "", "/a...b/..c"),
        ("/x%2Fy", "", "/x%2Fy"),
        ("/x?y", "/app", "/app/x?y"),
        ("/../x", "/app", "400"),
        ("/a/../x", "/app", "/app/x"),
    ] {
        if onward == "400" {
            continue; // shown above
        }
        play_with(
            &format!(
                r#"
server origin
  expect
    | GET {onward} HTTP/1.1
    | Host: h
    | Via: 1.1 me
    |
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "204 No Content"
"#
            ),
            |plan| plan.servers[0].prefix = prefix.into(),
        );
    }
}

#[test]
fn the_host_is_kept_or_replaced_by_choice() {
    for (policy, expected) in [
        (HostPolicy::Keep, "Host: h.example:81"),
        (HostPolicy::Server, "Host: 127.0.0.1:*"),
        (HostPolicy::Fixed("inner".into()), "Host: inner"),
    ] {
        play_with(
            &format!(
                r#"
server origin
  expect
    | GET / HTTP/1.1
    | {expected}
    | X-Forwarded-For: 127.0.0.1
    | X-Forwarded-Proto: http
    | X-Forwarded-Host: h.example:81
    | Via: 1.1 me
    |
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h.example:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\r\n"
  skip-to "204 No Content"
"#
            ),
            |plan| {
                plan.host = policy;
                plan.rules.provenance = Provenance::Replace(Told::Legacy);
            },
        );
    }
}

/// 9110-7.8-04a, 9110-7.8-05; faults X20, R08: a switch that was offered passes, octets flow, ends pass.
#[test]
fn upgrades_become_tunnels() {
    play(
        r#"
server origin
  expect
    | GET /chat HTTP/1.1
    | Host: h
    | Upgrade: websocket
    | Sec-WebSocket-Key: x
    | Via: 1.1 me
    | Connection: *
    |
  send "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst"
  expect "ping"
  send "pong"
  expect-close
  send "last"
  close
client
  send "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
  expect
    | HTTP/1.1 101 Switching Protocols
    | ...
    |
  expect "first"
  send "ping"
  expect "pong"
  half-close
  expect "last"
  expect-close
"#,
    );
    // h2c is not offered on, and a switch to something else is refused.
    play(
        r#"
server origin
  expect
    | GET / HTTP/1.1
    | Host: h
    | Via: 1.1 me
    |
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
  skip-to "204 No Content"
"#,
    );
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n"
  expect-close
client
  send "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
  expect
    | HTTP/1.1 502 Bad Gateway
    | ...
    | Proxy-Status: me; error=http_upgrade_failed
    | ...
    |
"#,
    );
    // A server that declines answers as usual.
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"
client
  send "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "no"
"#,
    );
}

/// Faults X06 to X08 with a trusted intermediary before us, and the PROXY protocol towards the server (X09).
#[test]
fn the_server_is_told_of_the_client() {
    play_with(
        r#"
server origin
  skip-to "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 127.0.0.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
  skip-to "204 No Content"
"#,
        |plan| {
            plan.rules.provenance = Provenance::Replace(Told::Legacy);
            plan.trusted.networks = ["127.0.0.0/8".parse().unwrap()].into();
        },
    );
    play_with(
        r#"
server origin
  expect "PROXY TCP4 127.0.0.1 0.0.0.0 "
  skip-to "\r\nGET / HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "204 No Content"
"#,
        |plan| plan.servers[0].proxy_protocol = Some(proxy_protocol::Version::V1),
    );
}

/// Back-pressure: a client that does not read stops the server, and nothing is lost.
#[test]
fn a_slow_reader_slows_the_server_and_gets_everything() {
    const LENGTH: usize = 30_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = Front::gateway(plan(&[listener.local_addr().unwrap().port()]));
    let (told, sent) = std::sync::mpsc::channel();
    let origin = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        assert!(stream.read(&mut buffer).unwrap() > 0);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").unwrap();
        let chunk: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        for n in 0..LENGTH / chunk.len() {
            stream.write_all(&chunk).unwrap();
            let _ = told.send(n);
        }
    });
    let mut stream = front.connect();
    write!(stream, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    // Until the server can write no more: for this long it has got nothing rid.
    let mut written = 0;
    while let Ok(n) = sent.recv_timeout(Duration::from_millis(300)) {
        written = n * 10_000;
    }
    assert!(written < LENGTH - 10_000, "the server was never held back");
    let response = Reader::new(stream).response("GET").unwrap();
    assert_eq!(response.body.len(), LENGTH);
    assert!(response.body.chunks(10_000).all(|chunk| chunk.iter().enumerate().all(|(i, &b)| b == i as u8)));
    origin.join().unwrap();
}

/// Fault X25: a connection that was authenticated as such serves nobody else.
#[test]
fn authenticated_connections_are_not_shared() {
    play(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n"
  expect-close
  accept
  skip-to "GET /2 HTTP/1.1\r\n"
  skip-to "\r\n\r\n"
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "HTTP/1.1 401 Unauthorized\r\n"
  skip-to "\r\n\r\n"
  send "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "HTTP/1.1 204 No Content\r\n"
"#,
    );
}

/// Fault X26: with many clients at once, everybody gets the answer to his own request, whatever its framing.
#[test]
fn answers_go_to_whom_they_belong() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = Reader::new(stream);
                while let Ok(request) = reader.request() {
                    let content = request.target.repeat(request.target.len() % 7 + 1);
                    let answer = if content.len() % 2 == 0 {
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len())
                    } else {
                        let (a, b) = content.split_at(content.len() / 2);
                        let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
                        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                        format!("{head}{}{}0\r\n\r\n", chunk(a), chunk(b))
                    };
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let front = Front::gateway(plan(&[port]));
    std::thread::scope(|scope| {
        for client in 0..12 {
            let front = &front;
            scope.spawn(move || {
                let mut reader = Reader::new(front.connect());
                for n in 0..60 {
                    let target = format!("/nonce-{client}-{}", "x".repeat(n));
                    // Every now and then somebody leaves before his answer comes (fault R31).
                    let leaves = n % 10 == 9;
                    let wire = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
                    reader.get_mut().write_all(wire.as_bytes()).unwrap();
                    if leaves {
                        reader = Reader::new(front.connect());
                        continue;
                    }
                    let response = reader.response("GET").unwrap();
                    assert_eq!(response.text(), target.repeat(target.len() % 7 + 1));
                }
            });
        }
    });
}

// --- the forward proxy ---

/// 9112-3.2.2-R1, 9112-3.2.2-01, 9112-3.2.2-03, 9112-3.2.2-04, 9112-3.2.4-02: the target decides, in whatever form.
#[test]
fn absolute_form_goes_to_the_server_it_names() {
    play_open(
        r#"
server origin
  expect
    | GET /x?y HTTP/1.1
    | Host: {origin}
    | Accept: a
    | X-Forwarded-For: 1.2.3.4
    | Via: 1.1 me
    |
  send "HTTP/1.1 204 No Content\r\n\r\n"
  expect
    | OPTIONS * HTTP/1.1
    | Host: {origin}
    | Via: 1.1 me
    |
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET http://{origin}/x?y HTTP/1.1\r\nHost: other\r\nAccept: a\r\nProxy-Connection: keep-alive\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
  skip-to "\r\n\r\n"
  send "OPTIONS http://{origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n"
  skip-to "\r\n\r\n"
"#,
        |_| {},
    );
}

/// 9112-9.3-07: with a client of HTTP/1.0 no connection is kept, whatever it asks for: what it says of its
/// connection may have been meant for somebody else.
#[test]
fn no_connection_is_kept_with_old_clients() {
    play_open(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
client
  send "GET http://{origin}/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET http://{origin}/2 HTTP/1.0\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | ...
    | Connection: close
    |
  expect "hi"
  expect-close
"#,
        |_| {},
    );
}

/// 9110-9.3.6-R1, 9110-9.3.6-06, 9110-8.6-06; faults X14, S75.
#[test]
fn connect_opens_a_tunnel_to_allowed_ports() {
    let script = r#"
server origin
  expect "hello"
  send "world"
  close
client
  send "CONNECT {origin} HTTP/1.1\r\nHost: {origin}\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Date: *
    |
  send "hello"
  expect "world"
  expect-close
"#;
    let stage = Stage::new(script);
    let port = stage.address("origin").port();
    let mut plan = OpenPlan::new("me");
    plan.destinations = vec!["127.0.0.0/8".parse().unwrap()];
    plan.connect_ports = vec![port];
    let front = Front::forward(plan);
    stage.with("target", front.address).run();
    // Another port, or no port, or where it may not lead: refused, and the connection ends.
    for (target, allow, status, error) in [
        ("127.0.0.1:25", true, 403, "http_request_denied"),
        ("127.0.0.1:443", false, 502, "destination_ip_prohibited"),
        ("169.254.169.254:443", false, 502, "destination_ip_prohibited"),
        ("[::ffff:127.0.0.1]:443", false, 502, "destination_ip_prohibited"),
        ("0x7f.1:443", false, 502, "dns_error"),
    ] {
        let mut plan = OpenPlan::new("me");
        plan.tell_details = false;
        if allow {
            plan.destinations = vec!["127.0.0.0/8".parse().unwrap()];
        }
        let front = Front::forward(plan);
        let mut stream = front.connect();
        write!(stream, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nGET / HTTP/1.1\r\n\r\n").unwrap();
        let mut reader = Reader::new(stream);
        let response = reader.response("CONNECT").unwrap();
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.field("proxy-status"), Some(&*format!("me; error={error}")), "{target}");
        assert!(response.says_close());
        let rest = reader.rest().unwrap_or_default();
        assert!(!rest.starts_with(b"HTTP/"), "octets for the tunnel were taken for a request");
    }
}

/// Faults X10, X11, X12, X15, X23: what a forward proxy refuses by default.
#[test]
fn a_forward_proxy_is_closed_by_default() {
    let front = Front::forward(OpenPlan::new("me"));
    for (target, status) in [
        ("http://127.0.0.1:1/", 502),
        ("http://localhost:1/", 502),
        ("http://[::1]:1/", 502),
        ("http://169.254.169.254/latest/meta-data/", 502),
        ("http://10.0.0.1/", 502),
        ("http://2130706433/", 502),
        ("https://h.example/", 400),
        ("/", 400),
    ] {
        let response = get(&front, target);
        assert_eq!(response.status, status, "{target}");
        told(&response);
    }
    // X15: a way back to itself, found by where it leads, not by what it is called.
    let mut plan = OpenPlan::new("me");
    plan.destinations = vec!["127.0.0.0/8".parse().unwrap()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    plan.own_ports = vec![port];
    let front = Front::forward(plan);
    let response = get(&front, &format!("http://127.0.0.1:{port}/"));
    assert_eq!(response.status, 502);
}

/// 9110-11.4-02, 9110-11.7.1-01, 9110-15.5.8-01; fault X05: passwords are asked for, and stay here.
#[test]
fn passwords_of_a_proxy() {
    use crate::before::auth::{Authentication, Basic, PasswordFile};
    let users = PasswordFile::parse(&format!("u:{}\n", bcrypt::hash("password", 4).unwrap())).unwrap();
    let basic = Basic::new("proxy", users, None, [7; 32]).unwrap();
    play_open(
        r#"
server origin
  expect
    | GET / HTTP/1.1
    | Host: {origin}
    | Authorization: Basic b3JpZ2lu
    | Via: 1.1 me
    |
  send "HTTP/1.1 204 No Content\r\n\r\n"
client
  send "GET http://{origin}/ HTTP/1.1\r\nHost: {origin}\r\n\r\n"
  expect
    | HTTP/1.1 407 Proxy Authentication Required
    | ...
    | Proxy-Authenticate: Basic realm="proxy"*
    | ...
    |
  skip-to "407 Proxy Authentication Required\n"
  send "GET http://{origin}/ HTTP/1.1\r\nHost: {origin}\r\nAuthorization: Basic b3JpZ2lu\r\nProxy-Authorization: Basic dTpwYXNzd29yZA==\r\n\r\n"
  skip-to "204 No Content"
"#,
        |plan| plan.authentication = Authentication { basic: Some(basic), digest: None },
    );
}

/// A plan whose next proxy is at this address, with credentials there.
fn through(parent: SocketAddr) -> OpenPlan {
    let proxy = eleven_client::proxies::Proxy::parse(&format!("http://me:secret@{parent}")).unwrap();
    let mut plan = OpenPlan::new("me");
    plan.tell_details = false;
    plan.parent = Some(super::open::Parent { proxy, tls: None });
    plan
}

/// 9112-3.2.2-01, 9110-11.7.2-01, 9110-9.3.6-R1; fault X05: through a parent requests go in absolute-form, with our
/// credentials and not the client's; tunnels are asked for.
#[test]
fn everything_goes_through_a_parent() {
    let stage = Stage::new(
        r#"
server parent
  expect
    | GET http://h.example/x?y HTTP/1.1
    | Host: h.example
    | Via: 1.1 me
    | Proxy-Authorization: Basic bWU6c2VjcmV0
    |
  send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
  accept
  expect
    | CONNECT h.example:443 HTTP/1.1
    | Host: h.example:443
    | Via: 1.1 me
    | Proxy-Authorization: Basic bWU6c2VjcmV0
    |
  send "HTTP/1.1 200 OK\r\n\r\nearly"
  expect "hello"
  send "world"
  close
client
  send "GET http://h.example/x?y HTTP/1.1\r\nHost: h.example\r\nProxy-Authorization: Basic Y2xpZW50OnM=\r\n\r\n"
  skip-to "\r\n\r\n"
  expect "hi"
  connect
  send "CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | ...
    |
  expect "early"
  send "hello"
  expect "world"
  expect-close
"#,
    );
    let front = Front::forward(through(stage.address("parent")));
    stage.with("target", front.address).run();
}

/// 9110-9.3.6-05; RFC 9931 §3; faults X11, X15, X18, S75: what a parent refuses is refused, and the connection ends; what
/// is special by its address never gets there; two proxies that lead to each other are noticed.
#[test]
fn what_does_not_go_through_a_parent() {
    let stage = Stage::new(
        r#"
server parent
  skip-to "\r\n\r\n"
  send "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret"
client
  send "CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\nGET / HTTP/1.1\r\n\r\n"
  expect
    | HTTP/1.1 502 Bad Gateway
    | ...
    | Proxy-Status: me; error=connection_refused
    | ...
    | Connection: close
    |
  expect "502 Bad Gateway\n"
  wait-for-close
"#,
    );
    let front = Front::forward(through(stage.address("parent")));
    stage.with("target", front.address).run();

    // Whoever asks the parent gets another error.
    let nobody = Nobody::new();
    let front = Front::forward(through(([127, 0, 0, 1], nobody.port()).into()));
    for (method, target, status, error) in [
        ("GET", "http://127.0.0.1/", 502, "destination_ip_prohibited"),
        ("GET", "http://localhost./", 502, "destination_ip_prohibited"),
        ("GET", "http://a.localhost/", 502, "destination_ip_prohibited"),
        ("GET", "http://[::ffff:10.0.0.1]/", 502, "destination_ip_prohibited"),
        ("GET", "http://0x7f.1/", 502, "destination_ip_prohibited"),
        ("GET", "http://2130706433/", 502, "destination_ip_prohibited"),
        ("CONNECT", "169.254.169.254:443", 502, "destination_ip_prohibited"),
        ("CONNECT", "h.example:25", 403, "http_request_denied"),
        ("GET", "http://1.1.1.1/", 502, "connection_refused"),
        ("CONNECT", "h.example:443", 502, "connection_refused"),
    ] {
        let mut stream = front.connect();
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let response = Reader::new(stream).response(method).unwrap();
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.field("proxy-status"), Some(&*format!("me; error={error}")), "{target}");
        assert!(method == "GET" || response.says_close());
    }
    for (method, target) in [("GET", "http://h.example/"), ("CONNECT", "h.example:443")] {
        let mut stream = front.connect();
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: h\r\nVia: 1.1 other, 1.1 me\r\n\r\n").unwrap();
        let response = Reader::new(stream).response(method).unwrap();
        assert_eq!(response.status, 502);
        assert_eq!(response.field("proxy-status"), Some("me; error=proxy_loop_detected"));
    }
}

/// Fault X12, DNS rebinding: a name that means another address each time it is asked about. It is asked about once for
/// each connection, and that goes to the very address that was judged, or nowhere.
#[test]
fn names_that_change_their_meaning_lead_only_where_they_were_judged() {
    let port = balance::numbered(1, "")[0];
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut with = OpenPlan { tell_details: false, connect_ports: vec![port], ..OpenPlan::new("me") };
    // What stands for the public Internet; the other loopback address is as forbidden as ever.
    with.destinations = vec!["127.0.0.1/32".parse().unwrap()];
    // Every request has to connect anew.
    with.pool.idle_timeout_ms = 0;
    let (with, count) = (Arc::new(with), Arc::clone(&asked));
    let front = Front::start(Arc::new(move || {
        let count = Arc::clone(&count);
        let answer = move |_: &str| {
            let turn = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(vec![if turn.is_multiple_of(2) { "127.0.0.1" } else { "::1" }.parse().unwrap()])
        };
        let limits = resolve::Limits { found_ttl_ms: 0, ..resolve::Limits::default() };
        let resolver = Resolver::with_lookup(limits, answer);
        Service::single(Handler::Forward(OpenProxy::with_resolver(Arc::clone(&with), resolver)))
    }));
    for turn in 0..8 {
        let (method, target) = if turn < 4 {
            ("GET", format!("http://turns.example:{port}/"))
        } else {
            ("CONNECT", format!("turns.example:{port}"))
        };
        let mut stream = front.connect();
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: turns.example:{port}\r\n\r\n").unwrap();
        let response = Reader::new(stream).response(method).unwrap();
        if turn % 2 == 0 {
            assert_eq!(response.status, 200, "{turn}");
        } else {
            assert_eq!(response.status, 502, "{turn}");
            assert_eq!(response.field("proxy-status"), Some("me; error=destination_ip_prohibited"));
        }
    }
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 8);
}

/// Fault X12: it is addresses that are judged, those that are then connected to: what a name is made to mean, by whom and
/// when, changes nothing.
#[test]
fn names_lead_nowhere_that_their_addresses_may_not() {
    let stage = Stage::new("server origin\n  skip-to \"never\"\n");
    let port = stage.address("origin").port();
    let plan = Arc::new(OpenPlan { tell_details: false, ..OpenPlan::new("me") });
    let front = Front::start(Arc::new(move || {
        let resolver = Resolver::new(resolve::Limits::default());
        resolver.set("both.example", None, &["127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap()]);
        resolver.set("inside.example", None, &["::1".parse().unwrap()]);
        Service::single(Handler::Forward(OpenProxy::with_resolver(Arc::clone(&plan), resolver)))
    }));
    for name in ["both.example", "inside.example", "both.example"] {
        let response = get(&front, &format!("http://{name}:{port}/"));
        assert_eq!(response.status, 502);
        assert_eq!(response.field("proxy-status"), Some("me; error=destination_ip_prohibited"));
    }
}

/// Fault D27: a server that does not read stops the client, and little of its content is kept meanwhile.
#[test]
fn a_slow_server_slows_the_client() {
    const LENGTH: usize = 30_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = Front::gateway(plan(&[listener.local_addr().unwrap().port()]));
    let mut stream = front.connect();
    let (told, sent) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        write!(stream, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LENGTH}\r\n\r\n").unwrap();
        let chunk: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        for n in 0..LENGTH / chunk.len() {
            stream.write_all(&chunk).unwrap();
            let _ = told.send(n);
        }
        Reader::new(stream).response("POST").unwrap().status
    });
    let (mut server, _) = listener.accept().unwrap();
    // Until the client can write no more: for this long it has got nothing rid.
    let mut written = 0;
    while let Ok(n) = sent.recv_timeout(Duration::from_millis(300)) {
        written = n * 10_000;
    }
    assert!(written < LENGTH / 2, "{written} octets were taken for a server that does not read");
    let (mut got, mut buffer) = (0, vec![0; 1 << 16]);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        server.read_exact(&mut buffer[..1]).unwrap();
        head.push(buffer[0]);
    }
    while got < LENGTH {
        got += server.read(&mut buffer).unwrap();
    }
    write!(server, "HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert_eq!(client.join().unwrap(), 204);
}

/// Fault D28: a response that stops coming is given up, and shown as cut.
#[test]
fn a_response_that_stops_coming_is_cut() {
    play_with(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel"
  wait-for-close
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "hel"
  wait-for-close
"#,
        |plan| plan.timeouts.idle_timeout_ms = 30,
    );
}

/// Fault D43: no port is left to connect from. That is a lack of ours, and passes.
#[test]
fn running_out_of_ports_is_our_lack() {
    let io = |kind: std::io::ErrorKind| Failure::io(Phase::Connect, &std::io::Error::from(kind));
    let none = proxy_error(&io(std::io::ErrorKind::AddrNotAvailable));
    assert_eq!((none, none.status()), (ProxyError::ConnectionLimitReached, Status::SERVICE_UNAVAILABLE));
    let refused = proxy_error(&io(std::io::ErrorKind::ConnectionRefused));
    assert_eq!((refused, refused.status()), (ProxyError::ConnectionRefused, Status::BAD_GATEWAY));
}
