//! Traces to a collector, with the real binary: a collector of our own takes what it sends and looks at it.
#![cfg(feature = "otlp")]

mod support;

use eleven_testkit::reader::{Reader, Request};
use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use support::{Folder, Server};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Answers the first requests with these statuses and all others with 200; what it was asked.
fn collector(statuses: &'static [u16]) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        for stream in listener.incoming() {
            let mut reader = Reader::new(stream.unwrap());
            while let Ok(request) = reader.request() {
                let status = statuses.next().unwrap_or(&200);
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}");
                let _ = sender.send(request);
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (port, receiver)
}

fn next(asked: &Receiver<Request>) -> (Request, Value) {
    let request = asked.recv_timeout(Duration::from_secs(30)).expect("nothing was exported");
    let value = serde_json::from_slice(&request.body).unwrap();
    (request, value)
}

fn spans(export: &Value) -> Vec<Value> {
    export["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn attribute<'v>(of: &'v Value, key: &str) -> Option<&'v str> {
    let found = of["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object()?.values().next()?.as_str()
}

fn config(collector: u16, origin: u16, more: &str) -> String {
    format!(
        "[trace]\ncontext = \"continue\"\notlp = \"http://127.0.0.1:{collector}\"\n{more}\
         [[upstream]]\nname = \"up\"\nservers = [\"http://127.0.0.1:{origin}\"]\n\
         [[site]]\nnames = [\"h\"]\n[[site.route]]\npath = \"/\"\nproxy = {{ upstream = \"up\" }}\n"
    )
}

/// A server behind: 204 to everything.
fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut reader = Reader::new(stream.unwrap());
                while reader.request().is_ok() {
                    reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                }
            });
        }
    });
    port
}

/// What was sampled is told, with its parent and the server that was asked; what was not is not; the query, and fields, never.
#[test]
fn a_sampled_exchange_is_told() {
    let (port, asked) = collector(&[]);
    let folder = Folder::new();
    let by = ["env", "OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20secret"];
    let server = Server::configured_by(&by, &folder, &config(port, origin(), "service_name = \"shop\"\n"));
    for (path, flags) in [("/left-out", "00"), ("/a/b?token=secret", "01")] {
        let response = server.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nUser-Agent: me\r\nAuthorization: Bearer secret\r\ntraceparent: 00-{TRACE}-{PARENT}-{flags}\r\n\r\n"
        ));
        assert_eq!(response.status, 204);
    }
    let (request, export) = next(&asked);
    assert_eq!((&*request.method, &*request.target), ("POST", "/v1/traces"));
    assert_eq!(request.head.field("content-type"), Some("application/json"));
    assert_eq!(request.head.field("x-key"), Some("a secret"));
    assert!(!request.body.windows(6).any(|octets| octets == b"secret"), "{export}");
    assert_eq!(attribute(&export["resourceSpans"][0]["resource"], "service.name"), Some("shop"));
    let spans = spans(&export);
    let [own, behind] = &spans[..] else { panic!("{export}") };
    assert_eq!((&own["traceId"], &own["parentSpanId"]), (&TRACE.into(), &PARENT.into()));
    assert_eq!((&own["name"], &own["kind"]), (&"GET".into(), &2.into()));
    for (key, value) in [
        ("url.path", "/a/b"),
        ("server.address", "h"),
        ("user_agent.original", "me"),
        ("http.response.status_code", "204"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(own, key), Some(value), "{own}");
    }
    assert_eq!((&behind["traceId"], &behind["kind"]), (&TRACE.into(), &3.into()));
    assert_eq!(behind["parentSpanId"], own["spanId"]);
    assert_eq!(attribute(behind, "server.address"), Some("127.0.0.1"));
    let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    for span in &spans {
        assert!(time(span, "startTimeUnixNano") <= time(span, "endTimeUnixNano"));
    }
    assert!(time(own, "startTimeUnixNano") > 1_700_000_000_000_000_000, "{own}");
}

/// A collector that is overloaded is asked again; whatever is left goes out when the process ends.
#[test]
fn a_batch_is_tried_again_and_the_last_one_is_not_lost() {
    let (port, asked) = collector(&[503]);
    let folder = Folder::new();
    let mut server = Server::configured(&folder, &config(port, origin(), ""));
    let ask =
        |path: &str| assert_eq!(server.ask(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).status, 204);
    ask("/first");
    let (first, _) = next(&asked);
    let (again, export) = next(&asked);
    assert_eq!(first.body, again.body);
    assert_eq!(attribute(&spans(&export)[0], "url.path"), Some("/first"));
    assert_eq!(spans(&export)[0].get("parentSpanId"), None, "the trace begins here");
    ask("/last");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(attribute(&spans(&next(&asked).1)[0], "url.path"), Some("/last"));
}

/// Without a collector nothing waits and nothing fails; it is counted.
#[test]
fn a_collector_that_is_not_there_harms_nobody() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let folder = Folder::new();
    let mut server = Server::configured(&folder, &config(port, origin(), ""));
    for _ in 0..50 {
        assert_eq!(server.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n").status, 204);
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}
