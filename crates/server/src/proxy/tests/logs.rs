//! What the access log tells of forwarded requests: every line whole, on whichever way a request went and whether or
//! not the log tells times, and who was asked how often, where, and for how long.

use super::balance::numbered;
use super::*;
use crate::access_log::{AccessLog, Format, Template};
use serde_json::Value;

/// A front whose log goes to a file, to be read when it has stopped.
struct Logged {
    front: Front,
    log: Arc<AccessLog>,
    path: std::path::PathBuf,
}

impl Logged {
    fn start(name: &str, format: Format, handler: impl Fn() -> Handler + Send + Sync + 'static) -> Logged {
        let path = std::env::temp_dir().join(format!("eleven-proxy-{name}-{}.log", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let log = Arc::new(AccessLog::file(format, &path).unwrap());
        let front = Front::start_with(Arc::new(move || Service::single(handler())), Some(Arc::clone(&log)));
        Logged { front, log, path }
    }

    fn gateway(name: &str, format: Format, plan: GatewayPlan) -> Logged {
        let plan = Arc::new(plan);
        Logged::start(name, format, move || Handler::Gateway(Gateway::start(Arc::clone(&plan))))
    }

    fn lines(self) -> Vec<String> {
        drop(self.front);
        self.log.flush();
        let text = std::fs::read_to_string(&self.path).unwrap();
        std::fs::remove_file(&self.path).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn objects(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// More requests in a moment than are timed for the figures.
#[test]
fn a_log_without_times_tells_of_every_request() {
    let logged = Logged::gateway("all", Format::Common, plan(&numbered(1, "")));
    let mut reader = Reader::new(logged.front.connect());
    for number in 0..300 {
        write!(reader.get_mut(), "GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(reader.response("GET").unwrap().status, 200);
    }
    drop(reader);
    let lines = logged.lines();
    assert_eq!(lines.len(), 300);
    for (number, line) in lines.iter().enumerate() {
        assert!(line.contains(&format!("\"GET /{number} HTTP/1.1\" 200 1")), "{line}");
    }
}

#[test]
fn the_log_tells_of_attempts() {
    let (good, nobody) = (numbered(1, "")[0], Nobody::new());
    let with = plan(&[nobody.port(), good]);
    let logged = Logged::gateway("attempts", Format::Json, with);
    let mut reader = Reader::new(logged.front.connect());
    for _ in 0..3 {
        write!(reader.get_mut(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(reader.response("GET").unwrap().status, 200);
    }
    drop(reader);
    let lines = objects(&logged.lines());
    let name = format!("127.0.0.1:{good}");
    for line in &lines {
        assert_eq!(line["upstream"], format!("http://{name}"), "{line}");
        assert_eq!(line["upstream_address"], name, "{line}");
        let (head, total) = (&line["upstream_head_us"], &line["upstream_total_us"]);
        assert!(head.as_u64().unwrap() <= total.as_u64().unwrap(), "{line}");
        assert!(total.as_u64().unwrap() <= line["duration_us"].as_u64().unwrap(), "{line}");
    }
    // The first of the two servers refuses the first request; by turns, then, and an idle connection is used again.
    assert_eq!(lines[0]["upstream_tries"], 2);
    assert!(lines[0]["upstream_connect_us"].is_u64());
    let reused: Vec<&Value> = lines.iter().filter(|line| line["upstream_connect_us"].is_null()).collect();
    assert!(reused.iter().any(|line| line["upstream_tries"] == 1), "{lines:?}");
}

#[test]
fn the_log_tells_of_failures_and_long_responses() {
    let nobody = Nobody::new();
    let template = "{status} {upstream_tries} {upstream_address} {upstream_connect_us} {upstream_head_us} {upstream_total_us}";
    let format = Format::Template(Template::parse(template).unwrap());
    let logged = Logged::gateway("failures", format, plan(&[nobody.port()]));
    let mut reader = Reader::new(logged.front.connect());
    write!(reader.get_mut(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(reader.response("GET").unwrap().status, 502);
    drop(reader);
    let lines = logged.lines();
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert_eq!(words[..5], ["502", "1", "-", "-", "-"], "{words:?}");
    assert!(words[5].parse::<u64>().is_ok(), "{words:?}");

    // The end of a response that flows is its end, not its head.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let mut reader = Reader::new(listener.accept().unwrap().0);
        reader.request().unwrap();
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n";
        reader.get_mut().write_all(head.as_bytes()).unwrap();
        may_go_on.recv_timeout(Duration::from_secs(20)).unwrap();
        reader.get_mut().write_all(&vec![b'x'; 200_000]).unwrap();
    });
    let logged = Logged::gateway("long", Format::Json, plan(&[port]));
    let mut client = logged.front.connect();
    write!(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut first = [0];
    client.read_exact(&mut first).unwrap();
    let held = std::time::Instant::now();
    while held.elapsed() < Duration::from_millis(20) {
        std::thread::yield_now();
    }
    go_on.send(()).unwrap();
    let mut rest = vec![0; 200_000];
    client.read_exact(&mut rest).unwrap();
    server.join().unwrap();
    drop(client);
    let line = &objects(&logged.lines())[0];
    let (head, total) =
        (line["upstream_head_us"].as_u64().unwrap(), line["upstream_total_us"].as_u64().unwrap());
    assert!(total >= head + 20_000, "{line}");
}

#[test]
fn the_log_tells_where_a_forward_proxy_went() {
    let port = numbered(1, "")[0];
    let mut with = OpenPlan::new("me");
    with.destinations = vec!["127.0.0.0/8".parse().unwrap()];
    with.connect_ports = vec![port];
    let with = Arc::new(with);
    let logged =
        Logged::start("forward", Format::Json, move || Handler::Forward(OpenProxy::start(Arc::clone(&with))));
    let mut reader = Reader::new(logged.front.connect());
    write!(reader.get_mut(), "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(reader.response("GET").unwrap().status, 200);
    write!(reader.get_mut(), "CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert_eq!(reader.response("CONNECT").unwrap().status, 200);
    drop(reader);
    let lines = objects(&logged.lines());
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        assert_eq!(line["upstream"], format!("127.0.0.1:{port}"), "{line}");
        assert_eq!(line["upstream_address"], format!("127.0.0.1:{port}"), "{line}");
        assert_eq!(line["upstream_tries"], 1, "{line}");
        assert!(line["upstream_connect_us"].is_u64() && line["upstream_total_us"].is_u64(), "{line}");
    }
}

/// Whoever waited for a connection to the only server is not made to wait again and again; a try of it is one.
#[test]
fn a_queue_is_stood_in_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut with = plan(&[listener.local_addr().unwrap().port()]);
    with.pool.connections_per_origin_max = 1;
    with.timeouts.queue_timeout_ms = 1;
    (with.dial.resolve_timeout_ms, with.dial.connect_timeout_ms, with.dial.tls_timeout_ms) = (1, 2_000, 1);
    let logged = Logged::gateway("queue", Format::Json, with);
    let ask = || {
        let mut client = logged.front.connect();
        write!(client, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        client
    };
    let first = ask();
    let mut server = Reader::new(listener.accept().unwrap().0);
    server.request().unwrap();
    let answer = Reader::new(ask()).response("GET").unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.field("proxy-status"), Some("me; error=connection_limit_reached"));
    server.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(Reader::new(first).response("GET").unwrap().status, 200);
    let lines = objects(&logged.lines());
    let refused = lines.iter().find(|line| line["status"] == 503).unwrap();
    assert_eq!(refused["upstream_tries"], 1, "{refused}");
    assert_eq!(refused["refused"], "connection_limit_reached", "{refused}");
}
