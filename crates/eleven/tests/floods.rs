//! Floods and slow peers over real sockets: rows D of the catalogue of faults that need no waiting. What needs
//! deadlines runs in simulated time, in the server's own tests.

mod support;

use eleven_testkit::reader::Reader;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Folder, Row, Server, answered, check_rows, refused};

const AFTER: &str = "GET /status/299 HTTP/1.1\r\nHost: after\r\n\r\n";

/// D11 to D21: each size and count has a limit with a status of its own.
#[test]
fn sizes_and_counts() {
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    let post = |body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let many = |count: usize| (0..count).map(|n| format!("a{n}: b")).collect::<Vec<_>>().join("\r\n");
    let rows: Vec<Row> = vec![
        refused("D11", &[431], get(&many(100_000))),
        refused("D11", &[431], get(&many(1000))),
        answered("D11", &[200], get(&many(50))),
        refused("D12", &[431], get(&format!("X: {}", "a".repeat(1 << 20)))),
        refused("D12", &[431], get(&format!("{}: a", "x".repeat(100_000)))),
        // 9110-2.3-02, 9112-3-04: what others send must fit.
        answered("D12", &[200], get(&format!("X: {}", "a".repeat(8000)))),
        refused("D14", &[414], format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1 << 20))),
        answered("9112-3-04", &[404], format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(7900))),
        refused("D15", &[501, 400], format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(1 << 20))),
        refused("D16", &[431], get(&format!("Cookie: {}", "a=b; ".repeat(200 * 1024)))),
        answered("D17", &[200], get(&format!("Cookie: {}", ";".repeat(8000)))),
        refused("D19", &[400], post(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(1 << 20)))),
        refused(
            "D19",
            &[400],
            post(&format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(1000)).repeat(100))),
        ),
        refused("D20", &[400, 431], post(&format!("0\r\n{}\r\n\r\n", many(100_000)))),
        refused("D20", &[400, 431], post(&format!("0\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)))),
        refused("D21", &[431], format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(2 << 20))),
        refused("D22", &[400], "\r\n".repeat(10_000)),
        // Up to sixteen octets of framing for one of data is suffered.
        refused("D18", &[400], post(&format!("{}0\r\n\r\n", "0000000000000001\r\nx\r\n".repeat(20_000)))),
        answered("D18", &[200], post(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(20_000)))),
    ];
    let server = Server::echo(&[]);
    check_rows(&server, AFTER, 299, &rows);
    assert!(server.resident_bytes() < 100 << 20, "D44: {} bytes", server.resident_bytes());
}

/// D23, D24: thousands of requests at once, unread answers: bounded memory, and every one is answered in order.
#[test]
fn a_pipelining_flood() {
    let server = Server::echo(&[]);
    let before = server.resident_bytes();
    let stream = server.connect();
    const REQUESTS: usize = 5000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..REQUESTS {
                let request = format!("GET /bytes/{} HTTP/1.1\r\nHost: a\r\n\r\n", 1000 + n);
                (&stream).write_all(request.as_bytes()).expect("the server reads in the end");
            }
        });
        // Only now does anybody read; what the server holds meanwhile is bounded.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let held = server.resident_bytes().saturating_sub(before);
        assert!(held < 16 << 20, "{held} bytes for unread answers");
        let mut reader = Reader::new(&stream);
        for n in 0..REQUESTS {
            let response = reader.response("GET").expect("an answer");
            assert_eq!(response.body.len(), 1000 + n, "answers come in order");
        }
    });
}

/// D26, 9112-9.6: an upload that is refused gets its answer, although the client is still sending.
#[test]
fn a_refused_upload_is_answered() {
    let folder = Folder::new();
    folder.write("x.txt", "x");
    let server = Server::serve(folder.path(), &[]);
    for _ in 0..10 {
        let stream = server.connect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = &stream;
                let head =
                    format!("POST /x.txt HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1u64 << 40);
                let block = vec![b'x'; 1 << 16];
                if writer.write_all(head.as_bytes()).is_ok() {
                    while writer.write_all(&block).is_ok() {}
                }
            });
            let mut reader = Reader::new(&stream);
            let response = reader.response("POST").expect("the refusal can be read");
            assert!([405, 413].contains(&response.status), "{}", response.status);
            assert!(response.says_close());
            // And the server does not drain a tebibyte.
            let _ = reader.rest();
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// F06, R33: a client that has closed its side for writing still gets its answers.
#[test]
fn a_half_closed_client_is_answered() {
    let server = Server::echo(&[]);
    let mut stream = server.connect();
    stream
        .write_all(b"GET /bytes/100000 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reader = Reader::new(stream);
    assert_eq!(reader.response("GET").unwrap().body.len(), 100_000);
    assert_eq!(reader.response("GET").unwrap().status, 200);
    reader.end().unwrap();
}

/// F05: connections reset at every octet of a request harm nobody.
#[test]
fn resets_at_every_octet() {
    let server = Server::echo(&[]);
    let wire = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let before = open_files(&server);
    for len in 0..=wire.len() {
        let script = format!("client\n send \"{}\"\n reset", eleven_testkit::text::escape(&wire[..len]));
        eleven_testkit::script::play(&script, server.address);
    }
    assert_eq!(server.ask("GET / HTTP/1.1\nHost: a").status, 200);
    let started = std::time::Instant::now();
    while open_files(&server) > before + 4 {
        assert!(started.elapsed() < support::WATCHDOG, "descriptors are not given back");
    }
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("a running process").count()
}

/// D41: without a descriptor left, the server waits without spinning, and goes on as soon as there is one.
#[test]
fn descriptors_run_out() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_eleven")]);
    let server = Server::start_by(command, &["echo", "--workers", "1"]);
    let mut held: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let cpu = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("a running process");
        tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum::<u64>()
    };
    let before = cpu();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let spent_ms = (cpu() - before) / 1_000_000;
    assert!(spent_ms < 100, "{spent_ms} ms of CPU in 500 ms without work");
    held.clear();
    // Asking waits no longer than the watchdog of the tests.
    assert_eq!(server.ask("GET / HTTP/1.1\nHost: a").status, 200);
}

/// R33, F02: open connections without work cost no CPU.
#[test]
fn idleness_is_free() {
    let server = Server::echo(&["--workers", "1"]);
    let mut held = Vec::new();
    for n in 0..20 {
        let mut stream = server.connect();
        // Idle, within a head, within content, and half closed within content.
        let wire: &[u8] = match n % 4 {
            0 => b"",
            1 => b"GET / HTTP/1.1\r\nHo",
            _ => b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
        };
        stream.write_all(wire).unwrap();
        if n % 4 == 3 {
            let _ = stream.shutdown(Shutdown::Write);
        }
        held.push(stream);
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("a running process");
    let ticks = |stat: &str| {
        let after = stat.rsplit(") ").next().expect("a name in brackets").to_owned();
        let numbers: Vec<u64> = after.split(' ').map(|word| word.parse().unwrap_or(0)).collect();
        numbers[11] + numbers[12]
    };
    let before = ticks(&stat());
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(ticks(&stat()) - before <= 5, "idle connections keep the server busy");
}

/// 9112-9.5 and the graceful stop: what runs is finished, with a close, and the exit code is 0 (F31).
#[test]
fn a_stop_finishes_what_runs() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::echo(&[]);
        let mut idle = Reader::new(server.connect());
        idle.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(idle.response("GET").unwrap().status, 200);
        let mut busy = Reader::new(server.connect());
        // They come in one segment, so the answer to the first shows that the second was received.
        let both = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /delay/1 HTTP/1.1\r\nHost: a\r\n\r\n";
        busy.get_mut().write_all(both.as_bytes()).unwrap();
        assert_eq!(busy.response("GET").unwrap().status, 200);
        server.signal(signal);
        let mut reader = busy;
        let response = reader.response("GET").expect("the running request is answered");
        assert_eq!(response.status, 200);
        reader.end().expect("and its connection closed in order");
        idle.end().expect("the idle connection is closed in order");
        assert_eq!(server.wait(), Some(0), "SIG{signal}");
    }
}

/// 9110-15.6.4-01, D29, D45: more than a server behind can do. So many are worked on, some wait, the others are told at once, by the
/// site's own page and with a time to come back; what is answered here is answered all the while, and so is a route that
/// has no limit.
#[test]
fn more_than_can_be_worked_on() {
    let behind = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", behind.local_addr().expect("an address"));
    let folder = Folder::new();
    folder.write("www/page.txt", "page");
    folder.write("busy.html", "<p>Busy.</p>");
    let config = format!(
        "workers = 1\nlog.access = \"off\"\nadmin.address = \"unix:admin.sock\"\n[limits]\nworking_max = 1\nwaiting_max = 1\nwaiting_timeout = \"1h\"\n\
         [[site]]\nroot = \"www\"\n[[site.error_page]]\nstatus = [503]\nfile = \"busy.html\"\n\
         [[site.route]]\npath = \"/slow\"\nproxy = {{ upstream = \"{url}\" }}\n\
         [[site.route]]\npath = \"/free\"\nworking_max = 0\nproxy = {{ upstream = \"{url}\" }}\n"
    );
    let server = Server::configured(&folder, &config);
    let ask = |target: &str| {
        let stream = server.connect();
        (&stream).write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("sent");
        stream
    };
    let arrived = || {
        let (stream, _) = behind.accept().expect("the server comes");
        stream.set_read_timeout(Some(support::WATCHDOG)).expect("a timeout");
        let mut head = Vec::new();
        let mut octet = [0];
        while !head.ends_with(b"\r\n\r\n") {
            (&stream).read_exact(&mut octet).expect("a head");
            head.push(octet[0]);
        }
        stream
    };
    let first = ask("/slow/1");
    let first_behind = arrived();
    // Of the next two, one waits and one is told at once; which of them, nobody can say.
    let (told, answers) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for stream in [ask("/slow/2"), ask("/slow/3")] {
            let told = told.clone();
            scope.spawn(move || {
                // Who does not listen any more has failed already.
                let _ = told.send(Reader::new(stream).response("GET").expect("an answer"));
            });
        }
        let refused = answers.recv_timeout(support::WATCHDOG).expect("one is told");
        assert_eq!((refused.status, &refused.body[..]), (503, &b"<p>Busy.</p>"[..]));
        assert!(refused.field("Retry-After").is_some_and(|after| after.parse::<u8>().is_ok()));
        assert_eq!(server.get("/page.txt").body, b"page");
        let admin = |target: &str| {
            let mut stream =
                UnixStream::connect(folder.path().join("admin.sock")).expect("the admin listener");
            write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            Reader::new(stream).response("GET").expect("an answer").text()
        };
        assert_eq!(admin("/health"), "ok\n");
        assert!(admin("/metrics").contains("eleven_refusals_total{reason=\"overload-queue-full\"} 1\n"));
        let free = ask("/free");
        let free_behind = arrived();
        for behind in [&first_behind, &free_behind] {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone";
            (&mut &*behind).write_all(answer).expect("an answer");
        }
        for stream in [first, free] {
            assert_eq!(Reader::new(stream).response("GET").expect("an answer").body, b"done");
        }
        // A place is free: who waited is let in.
        (&arrived()).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast").expect("an answer");
        let waited = answers.recv_timeout(support::WATCHDOG).expect("the other");
        assert_eq!((waited.status, &waited.body[..]), (200, &b"last"[..]));
    });
}

/// F03, F36: signals in the middle of everything interrupt calls, and a pause stops the process; nothing is lost by either.
#[test]
fn signals_disturb_nothing() {
    let folder = Folder::new();
    folder.write("large.bin", vec![b'x'; 3_000_000]);
    let server = Server::serve(folder.path(), &[]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // None of these means anything to it; PIPE would end a process that does not say so.
                for name in ["CHLD", "WINCH", "URG", "PIPE", "STOP", "CONT"] {
                    server.signal(name);
                }
            }
        });
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let stream = server.connect();
                    let mut reader = Reader::new(&stream);
                    for _ in 0..10 {
                        let get = b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n";
                        (&stream).write_all(get).expect("the server reads");
                        assert_eq!(reader.response("GET").expect("an answer").body.len(), 3_000_000);
                    }
                })
            })
            .collect();
        let ends: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok));
    });
}
