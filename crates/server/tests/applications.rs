//! Python applications behind the whole server: real worker processes, real sockets. They need `python3` and so are run
//! by `tests/applications/run.sh`, not by a plain `cargo test`.

use eleven_net::listener::ListenAddr;
use eleven_server::apps::{AppSettings, Application};
use eleven_server::handler::Handler;
use eleven_server::serve::{Options, Running, start};
use eleven_server::service::Service;
use eleven_server::worker::Settings;
use eleven_testkit::reader::{Framing, Reader, Response};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Longer than anything here takes on a busy machine: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    application: Arc<Application>,
    running: Option<Running>,
    address: String,
}

impl Server {
    fn new(application: &str) -> Server {
        Server::with(application, |_| {})
    }

    fn with(application: &str, change: impl FnOnce(&mut AppSettings)) -> Server {
        let mut settings = AppSettings::new(application);
        settings.directory = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
        settings.environment.push(("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()));
        change(&mut settings);
        let application = Application::start(settings, 2).unwrap();
        application.wait_ready().unwrap();
        let handler = Arc::clone(&application);
        let running = start(Options {
            listen: vec![ListenAddr::Tcp { host: Some("127.0.0.1".to_owned()), port: 0 }.into()],
            workers: 2,
            settings: Settings::default(),
            connections_max: 0,
            connections_per_address_max: 0,
            log: None,
            metrics: Default::default(),
            service: Arc::new(move || Service::single(Handler::Application(Arc::clone(&handler)))),
        })
        .unwrap();
        let address = running.addresses()[0].trim_start_matches("http://").trim_end_matches('/').to_owned();
        Server { application, running: Some(running), address }
    }

    fn connect(&self) -> Reader<TcpStream> {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Reader::new(stream)
    }

    /// The response to one request on a connection of its own.
    #[track_caller]
    fn get(&self, target: &str) -> Response {
        ask(&mut self.connect(), "GET", target, "")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.stop();
            self.application.stop();
            running.wait();
        }
    }
}

#[track_caller]
fn ask(connection: &mut Reader<TcpStream>, method: &str, target: &str, more: &str) -> Response {
    send(connection, &format!("{method} {target} HTTP/1.1\r\nHost: a.example:81\r\n{more}\r\n"));
    connection.response(method).unwrap()
}

fn send(connection: &mut Reader<TcpStream>, text: &str) {
    connection.get_mut().write_all(text.as_bytes()).unwrap();
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn requests_and_responses() {
    let server = Server::new("wsgi_apps:application");
    let mut connection = server.connect();
    let response = ask(&mut connection, "GET", "/", "");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(response.framing, Framing::Length(5));
    assert_eq!(response.field("content-type"), Some("text/plain"));
    let head = ask(&mut connection, "HEAD", "/", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    // Pipelined, on the same connection.
    let requests: String = (0..20)
        .map(|n| format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{n:02}"))
        .collect();
    send(&mut connection, &requests);
    for n in 0..20 {
        assert_eq!(connection.response("POST").unwrap().text(), format!("{n:02}"));
    }
    let generator = ask(&mut connection, "GET", "/generator", "");
    assert_eq!(generator.text(), "one,two");
    assert!(matches!(generator.framing, Framing::Chunked { .. }));
    let closing = ask(&mut connection, "GET", "/closing", "");
    assert_eq!((closing.framing, closing.body.as_slice()), (Framing::Length(6), &b"abcdef"[..]));
    assert_eq!(ask(&mut connection, "GET", "/closed", "").text(), "closing");
    assert_eq!(ask(&mut connection, "GET", "/write", "").text(), "written and returned");
    let empty = ask(&mut connection, "GET", "/empty", "");
    assert_eq!((empty.status, empty.field("content-length")), (204, None));
    for status in ["304 Not Modified", "204", "404 Not%20Here"] {
        let response = ask(&mut connection, "GET", &format!("/status?{}", status.replace(' ', "%20")), "");
        assert_eq!(response.status.to_string(), status[..3]);
    }
}

/// 9112-3.2.2-05 (absolute-form overrides Host), faults H18 and H19.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn environ() {
    let server = Server::new("wsgi_apps:application");
    let mut connection = server.connect();
    let text = ask(
        &mut connection,
        "GET",
        "http://right.example:82/%65nviron?a=%20",
        "Proxy: evil\r\nX_A: evil\r\nX-A: 1\r\nX-A: 2\r\nCookie: a=1\r\nX-Latin: \u{e9}\r\n",
    )
    .text();
    let lines: Vec<&str> = text.lines().collect();
    let port = format!("SERVER_PORT='{}'", server.address.rsplit_once(':').unwrap().1);
    for line in [
        "REQUEST_METHOD='GET'",
        "HTTP_HOST='right.example:82'",
        "SERVER_NAME='right.example'",
        "PATH_INFO='/environ'",
        "SCRIPT_NAME=''",
        "QUERY_STRING='a=%20'",
        "HTTP_X_A='1, 2'",
        "HTTP_COOKIE='a=1'",
        "HTTP_X_LATIN='Ã©'",
        "REMOTE_ADDR='127.0.0.1'",
        "SERVER_PROTOCOL='HTTP/1.1'",
        "wsgi.url_scheme='http'",
        "wsgi.input_terminated=True",
        &port,
    ] {
        assert!(lines.contains(&line), "{line} is missing in {text}");
    }
    for name in ["HTTP_PROXY=", "HTTP_CONTENT_LENGTH=", "CONTENT_LENGTH="] {
        assert!(!lines.iter().any(|line| line.starts_with(name)), "{name}");
    }
    assert_eq!(ask(&mut connection, "GET", "/%00", "").status, 400);
    assert_eq!(ask(&mut connection, "GET", "/a/..%2fenviron", "").status, 404);
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn mounted() {
    let server = Server::with("wsgi_apps:application", |settings| settings.mount = "/app".to_owned());
    let text = server.get("/app/environ").text();
    assert!(text.contains("SCRIPT_NAME='/app'") && text.contains("PATH_INFO='/environ'"), "{text}");
}

/// 9110-10.1.1: `100 Continue` is sent when the application reads and not before.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn request_content() {
    let server = Server::new("wsgi_apps:application");
    let mut connection = server.connect();
    let unread =
        ask(&mut connection, "POST", "/unread", "Content-Length: 100000\r\nExpect: 100-continue\r\n");
    assert_eq!((unread.text().as_str(), unread.interim.len()), ("did not read", 0));
    let mut connection = server.connect();
    send(
        &mut connection,
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
    );
    assert_eq!(connection.head().unwrap().start, "HTTP/1.1 100 Continue");
    send(&mut connection, "abc");
    assert_eq!(connection.response("POST").unwrap().text(), "abc");
    // Chunked, with trailers.
    let chunks = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 12\r\n";
    let trailers = ask(&mut connection, "POST", "/trailers", chunks);
    assert_eq!(trailers.text(), "abcde[('X-Sum', '12')]");
    // Chunked without: the application learns the length.
    let environ =
        ask(&mut connection, "POST", "/environ", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n");
    assert!(environ.text().contains("CONTENT_LENGTH='3'"), "{}", environ.text());
    // Large: kept on disk, then streamed to the worker.
    let content = "0123456789".repeat(300_000);
    send(
        &mut connection,
        &format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{content}", content.len()),
    );
    assert_eq!(connection.response("POST").unwrap().text(), content);
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn large_responses() {
    let server = Server::with("wsgi_apps:application", |settings| settings.spool_memory_bytes_max = 10_000);
    let mut connection = server.connect();
    for (path, size, length) in
        [("/big", 300_000, true), ("/file", 199_993, true), ("/long", 1_000_000, false)]
    {
        let response = ask(&mut connection, "GET", path, "");
        assert_eq!((response.body.len(), response.framing == Framing::Length(size as u64)), (size, length));
    }
    assert_eq!(ask(&mut connection, "HEAD", "/file", "").field("content-length"), Some("199993"));
    assert_eq!(ask(&mut connection, "GET", "/closed", "").text(), "long");
    assert_eq!(
        ask(&mut connection, "GET", "/hints", "").interim[0].field("link"),
        Some("</a.css>; rel=preload")
    );
}

/// Every mistake gets its status, the connection stays in a right state, and the next request is answered.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn mistakes_of_the_application() {
    let server = Server::new("wsgi_apps:application");
    let mut connection = server.connect();
    for path in [
        "/raises",
        "/exits",
        "/str",
        "/nostart",
        "/none",
        "/linebreak",
        "/short",
        "/status?x",
        "/status?600%20Six",
        "/status?100%20Continue",
    ] {
        assert_eq!(ask(&mut connection, "GET", path, "").status, 500, "{path}");
    }
    assert_eq!(ask(&mut connection, "GET", "/longstream", "").text(), "long");
    assert_eq!(ask(&mut connection, "GET", "/", "").text(), "hello");
    for path in ["/raiseslate", "/shortstream"] {
        let error = {
            let mut connection = server.connect();
            send(&mut connection, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            connection.response("GET").unwrap_err()
        };
        assert!(error.contains("ended"), "{path}: {error}");
    }
    assert_eq!(server.get("/").text(), "hello");
}

/// A crash costs one request, and those behind it are answered by the next worker.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn crashes() {
    let server = Server::new("wsgi_apps:application");
    let mut connections: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for (n, connection) in connections.iter_mut().enumerate() {
        let path = if n == 3 { "/crash" } else { "/sleep?0.05" };
        send(connection, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    let mut statuses: Vec<u16> = connections.iter_mut().map(|c| c.response("GET").unwrap().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 502]);
}

/// A file that requests to `/wait` wait for.
struct Gate(std::path::PathBuf);

impl Gate {
    fn new(name: &str) -> Gate {
        Gate(std::env::temp_dir().join(format!("eleven-gate-{name}-{}", std::process::id())))
    }

    fn request(&self) -> String {
        format!("GET /wait?{} HTTP/1.1\r\nHost: a\r\n\r\n", self.0.display())
    }

    fn open(&self) {
        std::fs::write(&self.0, "").unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Waits for something to become true.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn time_outs() {
    let server = Server::with("wsgi_apps:application", |settings| {
        settings.limits.request_timeout_ms = 1000;
        settings.limits.queue_timeout_ms = 60_000;
    });
    // On a machine that stands still for a second, this one may be over its time too.
    let pid = || {
        let mut pid = None;
        until("an answer in time", || {
            let response = server.get("/pid");
            pid = (response.status == 200).then(|| response.text());
            pid.is_some()
        });
        pid
    };
    let before = pid();
    assert_eq!(server.get("/sleep?3600").status, 504);
    assert_ne!(pid(), before, "the worker was killed and another started");
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn the_queue_is_limited() {
    let gate = Gate::new("queue");
    let server = Server::with("wsgi_apps:application", |settings| {
        settings.limits.queue_requests_max = 1;
        settings.limits.queue_timeout_ms = 600_000;
        settings.limits.request_timeout_ms = 0;
    });
    let [mut busy, mut waiting] = [server.connect(), server.connect()];
    send(&mut busy, &gate.request());
    until("a request runs", || server.application.numbers().running == 1);
    send(&mut waiting, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    until("a request waits", || server.application.numbers().waiting == 1);
    for _ in 0..3 {
        let response = server.get("/");
        assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    }
    gate.open();
    assert_eq!(busy.response("GET").unwrap().text(), "waited");
    assert_eq!(waiting.response("GET").unwrap().status, 200);
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn waiting_in_the_queue_has_an_end() {
    let gate = Gate::new("wait");
    let server = Server::with("wsgi_apps:application", |settings| {
        settings.limits.queue_timeout_ms = 200;
        settings.limits.request_timeout_ms = 0;
    });
    let mut busy = server.connect();
    send(&mut busy, &gate.request());
    until("a request runs", || server.application.numbers().running == 1);
    let response = server.get("/");
    assert_eq!((response.status, response.field("retry-after")), (503, Some("1")));
    gate.open();
    assert_eq!(busy.response("GET").unwrap().text(), "waited");
}

/// A worker may keep answers to send several at once; nobody waits for that behind a request that takes its time, and
/// nothing is lost with a worker that dies.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn answers_do_not_wait_for_the_next_request() {
    let server = Server::with("wsgi_apps:application", |settings| settings.limits.request_timeout_ms = 0);
    let mut connection = server.connect();
    let wait_behind = |connection: &mut Reader<TcpStream>, last: &str| {
        // Requests so short that the worker is given several.
        for _ in 0..200 {
            assert_eq!(ask(connection, "GET", "/", "").status, 200);
        }
        let quick = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
        send(connection, &format!("{quick}{last}"));
        for _ in 0..3 {
            assert_eq!(connection.response("GET").unwrap().text(), "hello");
        }
    };
    let gate = Gate::new("shelf");
    wait_behind(&mut connection, &gate.request());
    assert_eq!(server.application.numbers().running, 1, "the last one still runs");
    gate.open();
    assert_eq!(connection.response("GET").unwrap().text(), "waited");
    wait_behind(&mut connection, "GET /crash HTTP/1.1\r\nHost: a\r\n\r\n");
    let lost = connection.response("GET").unwrap();
    assert_eq!((lost.status, lost.text().contains("502 Bad Gateway")), (502, true), "{}", lost.text());
}

/// The application is imported once, in a process that no worker is; a reload imports it anew; a worker that dies, or the
/// process that forks them, is replaced; an application that does not import is told as ever.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn preloaded() {
    let server = Server::with("preloaded:application", |settings| {
        settings.preload = true;
    });
    // Importer and worker, of an answer that came.
    let who = || {
        let mut found = None;
        until("an answer", || {
            let response = server.get("/");
            let text = response.text();
            found = text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
            response.status == 200
        });
        found.unwrap()
    };
    let (importer, first) = who();
    assert_ne!(importer, first);
    assert_eq!(server.get("/die").status, 502);
    let (same, second) = who();
    assert_eq!(same, importer);
    assert_ne!(second, first, "another worker was forked");
    assert_eq!(server.get("/child").text(), "7", "workers may have processes of their own");
    server.application.reload_and_wait();
    let (next, _) = who();
    assert_ne!(next, importer, "imported anew");
    let signal = |pid: &str| {
        assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
    };
    signal(&next);
    let (same, worker) = who();
    assert_eq!(same, next, "the workers outlive the process that forked them");
    signal(&worker);
    until("a worker is forked by a new process", || who().0 != next);
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn what_cannot_be_preloaded_is_told() {
    let mut settings = AppSettings::new("broken_module:application");
    settings.directory = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
    settings.preload = true;
    let application = Application::start(settings, 1).unwrap();
    let why = application.wait_ready().unwrap_err();
    assert!(why.contains("Traceback") || why.contains("Error"), "{why}");
    application.stop();
}

/// Reloading under load fails no request, and afterwards the code is new.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn reload_under_load() {
    let server = Server::with("wsgi_apps:application", |settings| {
        settings.workers = 2;
        settings.probe = Some("/".to_owned());
    });
    let before = server.get("/pid").text();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = server.connect();
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(ask(&mut connection, "GET", "/", "").status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            server.application.reload_and_wait();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 0);
    assert_ne!(server.get("/pid").text(), before);
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn a_reload_that_fails_changes_nothing() {
    let folder = std::env::temp_dir().join(format!("eleven-reload-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let module = folder.join("changing_app.py");
    let source =
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'VERSION']\n";
    std::fs::write(&module, source.replace("VERSION", "old")).unwrap();
    let server = Server::with("changing_app:app", |settings| settings.directory = Some(folder.clone()));
    std::fs::write(&module, "this is no Python").unwrap();
    server.application.reload_and_wait();
    assert_eq!(server.get("/").text(), "old");
    std::fs::write(&module, source.replace("VERSION", "new")).unwrap();
    server.application.reload_and_wait();
    assert_eq!(server.get("/").text(), "new");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn workers_are_replaced_after_their_requests() {
    let server = Server::with("wsgi_apps:application", |settings| settings.requests_max = 5);
    let mut connection = server.connect();
    let first = ask(&mut connection, "GET", "/pid", "").text();
    let changed = (0..100_000).any(|_| {
        let response = ask(&mut connection, "GET", "/pid", "");
        assert_eq!(response.status, 200);
        response.text() != first
    });
    assert!(changed);
}

/// One worker, many clients that read nothing: it is free for others all the same.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn slow_readers_hold_no_worker() {
    let server = Server::new("wsgi_apps:application");
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let mut connection = server.connect();
            send(&mut connection, "GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
            connection
        })
        .collect();
    assert_eq!(server.get("/").text(), "hello");
    for mut connection in slow {
        assert_eq!(connection.response("GET").unwrap().body.len(), 1_000_000);
    }
}

/// A client that leaves ends an endless response: the worker is free again.
#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn clients_that_leave_free_the_worker() {
    let server = Server::new("wsgi_apps:application");
    for _ in 0..3 {
        let mut connection = server.connect();
        send(&mut connection, "GET /forever HTTP/1.1\r\nHost: a\r\n\r\n");
        connection.exactly(1000).unwrap();
    }
    assert_eq!(server.get("/").text(), "hello");
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn an_application_that_does_not_import() {
    let mut settings = AppSettings::new("broken_module:app");
    settings.directory = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python"));
    let application = Application::start(settings.clone(), 1).unwrap();
    let why = application.wait_ready().unwrap_err();
    assert!(why.contains("SyntaxError"), "{why}");
    application.stop();
    settings.python = "/nonexistent/python".into();
    let application = Application::start(settings, 1).unwrap();
    assert!(application.wait_ready().unwrap_err().contains("/nonexistent/python"));
    application.stop();
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn threads() {
    let server = Server::with("wsgi_apps:application", |settings| settings.threads = 2);
    let mut connections = [server.connect(), server.connect()];
    for connection in &mut connections {
        send(connection, "GET /meet HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for connection in &mut connections {
        assert_eq!(connection.response("GET").unwrap().text(), "met");
    }
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn asgi() {
    let server = Server::new("asgi_apps:application");
    let mut connection = server.connect();
    assert_eq!(ask(&mut connection, "GET", "/", "").text(), "hello");
    let scope = ask(&mut connection, "GET", "/%73cope?q=1", "X-A: b\r\n").text();
    assert!(scope.starts_with("['GET', '/scope', b'/%73cope', b'q=1', '1.1', ('127.0.0.1', "), "{scope}");
    assert!(scope.contains("(b'host', b'a.example:81'), (b'x-a', b'b')]"), "{scope}");
    let stream = ask(&mut connection, "GET", "/stream", "");
    assert_eq!((stream.text().as_str(), matches!(stream.framing, Framing::Chunked { .. })), ("0,1,2,", true));
    for (path, size) in [("/big", 300_000), ("/long", 1_000_000), ("/path", 200_000)] {
        assert_eq!(ask(&mut connection, "GET", path, "").body.len(), size, "{path}");
    }
    let echo = ask(&mut connection, "POST", "/echo", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n");
    assert_eq!(echo.text(), "abc");
    let content = "x".repeat(200_000);
    send(
        &mut connection,
        &format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n{content}"),
    );
    assert_eq!(connection.response("POST").unwrap().text(), content);
    let trailers = ask(&mut connection, "GET", "/trailers", "TE: trailers\r\nConnection: TE\r\n");
    assert_eq!(trailers.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    assert_eq!(ask(&mut connection, "GET", "/hints", "").interim.len(), 1);
    for path in ["/raises", "/nothing", "/linebreak"] {
        assert_eq!(ask(&mut connection, "GET", path, "").status, 500, "{path}");
    }
    // Slow requests do not stand in the way of others.
    let mut stuck = server.connect();
    send(&mut stuck, "GET /ticks HTTP/1.1\r\nHost: a\r\n\r\n");
    stuck.exactly(1000).unwrap();
    assert_eq!(ask(&mut connection, "GET", "/", "").text(), "hello");
    drop(stuck);
    while !ask(&mut connection, "GET", "/seen", "").text().contains("left: http.disconnect") {
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn a_task_over_its_time_is_ended() {
    let server = Server::with("asgi_apps:application", |settings| settings.limits.request_timeout_ms = 2000);
    assert_eq!(server.get("/stuck").status, 504);
    while !server.get("/seen").text().contains("cancelled") {
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "needs python3: tests/applications/run.sh"]
fn websocket() {
    let server = Server::new("asgi_apps:application");
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\n";
    let mut connection = server.connect();
    let response = ask(&mut connection, "GET", "/ws", handshake);
    assert_eq!(response.status, 101);
    assert_eq!(response.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.field("sec-websocket-protocol"), Some("chat"));
    // Masked with zeros, which is a mask like any other.
    let mut frame = vec![0x81, 0x85, 0, 0, 0, 0];
    frame.extend_from_slice(b"hello");
    connection.get_mut().write_all(&frame).unwrap();
    assert_eq!(connection.exactly(7).unwrap(), b"\x81\x05HELLO");
    connection.get_mut().write_all(b"\x89\x81\0\0\0\0x").unwrap();
    assert_eq!(connection.exactly(3).unwrap(), b"\x8a\x01x");
    connection.get_mut().write_all(b"\x82\x83\0\0\0\x00123").unwrap();
    assert_eq!(connection.exactly(5).unwrap(), b"\x82\x03321");
    connection.get_mut().write_all(b"\x81\x83\0\0\0\0bye").unwrap();
    assert_eq!(connection.exactly(12).unwrap(), b"\x88\x0a\x0f\xa1as asked");
    connection.get_mut().write_all(b"\x88\x82\0\0\0\0\x0f\xa1").unwrap();
    connection.end().unwrap();

    let mut connection = server.connect();
    assert_eq!(ask(&mut connection, "GET", "/ws", handshake).status, 101);
    connection.get_mut().write_all(b"\x81\x00").unwrap();
    assert_eq!(connection.exactly(4).unwrap()[2..], 1002u16.to_be_bytes());
    assert_eq!(ask(&mut server.connect(), "GET", "/refuse", handshake).status, 403);
    let denied = ask(&mut server.connect(), "GET", "/deny", handshake);
    assert_eq!((denied.status, denied.text().as_str()), (401, "denied"));
    while server.application.numbers().running > 0 {
        std::thread::yield_now();
    }
}
