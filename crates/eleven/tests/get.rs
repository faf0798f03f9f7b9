//! `eleven get` as a user runs it: exit codes, what goes to standard output and what to standard error, and what
//! is on the disk after a `kill -9`.

mod support;

use eleven_testkit::Rng;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Folder, eleven_get, read_head};

/// A server that answers each connection's first request with these octets, and closes.
fn canned(answer: &[u8]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = String::from_utf8_lossy(answer).replace("{port}", &port.to_string()).into_bytes();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            if let Some(head) = read_head(&mut socket) {
                heads.lock().unwrap().push(head);
                let _ = socket.write_all(&answer);
            }
        }
    });
    (port, seen)
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn get(port: u16, arguments: &[&str]) -> Output {
    eleven_get().arg(format!("http://127.0.0.1:{port}/f")).args(arguments).output().unwrap()
}

/// Faults K01, K03, K11, K12, K33, K38, K39, K40, G11, G17, R-rows: one line each, its own exit code, and nothing
/// on standard output that was not the content.
#[test]
fn every_failure_has_its_exit_code_and_one_line() {
    let head = |lines: &str| format!("HTTP/1.1 {lines}\r\n\r\n");
    for (what, answer, arguments, code) in [
        ("fine", head("200 OK\r\nContent-Length: 2") + "hi", &[][..], 0),
        ("not found", head("404 Not Found\r\nContent-Length: 2") + "no", &[], 12),
        ("server error", head("500 No\r\nContent-Length: 2") + "no", &["--retry", "0"], 13),
        ("cut", head("200 OK\r\nContent-Length: 5") + "hi", &["--retry", "0"], 10),
        ("nothing", String::new(), &["--retry", "0"], 10),
        ("a loop", head("302 Found\r\nLocation: /f\r\nContent-Length: 0"), &[], 11),
        ("another scheme", head("302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0"), &[], 11),
        ("no HTTP", "SSH-2.0-x\r\n\r\n".to_owned(), &[], 9),
        ("HTTP/0.9", "hello".to_owned(), &[], 9),
        ("bad chunks", head("200 OK\r\nTransfer-Encoding: chunked") + "+2\r\nhi\r\n0\r\n\r\n", &[], 9),
        ("two lengths", head("200 OK\r\nContent-Length: 2\r\nContent-Length: 3") + "hi", &[], 9),
        (
            "a part nobody asked for",
            head("206 X\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2") + "hi",
            &[],
            9,
        ),
        ("not modified", head("304 Not Modified"), &[], 13),
        (
            "wrong digest",
            head(
                "200 OK\r\nRepr-Digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:\r\nContent-Length: 2",
            ) + "hi",
            &[],
            14,
        ),
        ("too large", head("200 OK\r\nContent-Length: 2") + "hi", &["--max-filesize", "1"], 17),
        (
            "bad coding",
            head("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2") + "hi",
            &["--compressed"],
            16,
        ),
    ] {
        let (port, _) = canned(answer.as_bytes());
        let output = get(port, arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{what}: {errors}");
        if code == 0 {
            assert_eq!((output.stdout.as_slice(), errors.as_str()), (&b"hi"[..], ""), "{what}");
        } else {
            assert_eq!(errors.lines().count(), 1, "{what}: {errors}");
            assert!(errors.starts_with("eleven: ") && !errors.contains('\x1b'), "{what}: {errors}");
        }
        // Saving: the same code, and no file.
        let place = Folder::new();
        let directory = place.path().to_str().unwrap();
        let output = get(port, &[arguments, &["-O", "--output-dir", directory]].concat());
        assert_eq!(output.status.code(), Some(code), "{what} saved: {}", text(&output.stderr));
        assert_eq!(place.names().contains(&"f".to_owned()), code == 0, "{what}: {:?}", place.names());
    }
}

/// Faults K11, K46, R-rows: what cannot be meant is refused before anything is sent.
#[test]
fn wrong_wishes_are_refused_at_once() {
    for (arguments, code) in [
        (&["http://a b/"][..], 3),
        (&["ftp://h/"], 3),
        (&["http://a%2f.b/"], 3),
        (&["http://h/", "http://i/", "-o", "x"], 3),
        (&["http://h/", "-H", "Content-Length: 5"], 3),
        (&["http://h/", "-H", "X: a\r\nY: b"], 3),
        (&["http://h/", "-H", "no colon"], 3),
        (&["http://h/", "-X", "G T"], 3),
        (&["http://h/", "-d", "x", "-T", "y"], 3),
        (&["http://h/", "-u", "user"], 3),
        (&["http://h/", "--resolve", "h:80"], 3),
        (&["http://h/", "--proxy", "socks5://p"], 3),
        (&["http://h/", "--segments", "99"], 2),
        (&["http://h/", "--sha256", "abc"], 2),
        (&[], 2),
    ] {
        let output = eleven_get().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{arguments:?}");
    }
}

/// 9110-8.6-01, 9110-8.3-01: requests in curl's sense.
#[test]
fn requests_as_asked_for() {
    let ok = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    for (arguments, wanted, unwanted) in [
        (&["-I"][..], &["HEAD /f HTTP/1.1\r\n"][..], &["Content-"][..]),
        (
            &["-d", "a=b", "-d", "c"],
            &["POST /f ", "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Length: 5\r\n"],
            &[],
        ),
        (
            &["--json", "{}"],
            &["POST ", "Content-Type: application/json\r\n", "Accept: application/json\r\n"],
            &["*/*"],
        ),
        (&["-X", "DELETE"], &["DELETE /f "], &["Content-Length"]),
        (
            &["-A", "me/1", "-e", "http://x/"],
            &["User-Agent: me/1\r\n", "Referer: http://x/\r\n"],
            &["eleven/"],
        ),
        (&["-H", "Accept: text/x", "-H", "X-Y: z"], &["Accept: text/x\r\n", "X-Y: z\r\n"], &["*/*"]),
        (&["-u", "u:p"], &["Authorization: Basic dTpw\r\n"], &[]),
        (&["-b", "a=b"], &["Cookie: a=b\r\n"], &[]),
        (&["--compressed"], &["Accept-Encoding: gzip, deflate, br, zstd\r\n"], &[]),
        (&["--http1.0"], &["GET /f HTTP/1.0\r\n", "Host: "], &["TE:"]),
        (&["-T", "/dev/null/x"], &[], &["PUT"]),
    ] {
        let (port, seen) = canned(ok);
        let output = get(port, arguments);
        let head = seen.lock().unwrap().first().cloned().unwrap_or_default();
        assert_eq!(output.status.success(), !wanted.is_empty(), "{arguments:?}: {}", text(&output.stderr));
        for part in wanted {
            assert!(head.contains(part), "{arguments:?}: no {part:?} in {head}");
        }
        for part in unwanted {
            assert!(!head.contains(part), "{arguments:?}: {part:?} in {head}");
        }
    }
}

/// Faults K30, K31: heads on request, without secrets.
#[test]
fn heads_are_shown_and_secrets_hidden() {
    let (port, _) = canned(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=secret\r\nX-Evil: \x1b[2J\r\nContent-Length: 2\r\n\r\nhi",
    );
    let output = get(port, &["-v", "-u", "me:password"]);
    // An escape is no field content: the response is refused, and the message is harmless.
    assert_eq!(output.status.code(), Some(9));
    let (port, _) = canned(b"HTTP/1.1 200 OK\r\nSet-Cookie: sid=secret\r\nContent-Length: 2\r\n\r\nhi");
    let output = get(port, &["-v", "-i", "-u", "me:password"]);
    let errors = text(&output.stderr);
    assert!(errors.contains("> GET /f HTTP/1.1") && errors.contains("< HTTP/1.1 200 OK"), "{errors}");
    assert!(!errors.contains("bWU6") && !errors.contains("sid=secret"), "{errors}");
    assert!(
        text(&output.stdout).starts_with("HTTP/1.1 200 OK\r\n") && output.stdout.ends_with(b"\r\n\r\nhi")
    );
}

#[test]
fn records_times_and_progress() {
    let place = Folder::new();
    let har = place.path().join("h.json");
    let (port, _) = canned(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi",
    );
    let url = format!("http://127.0.0.1:{port}/f?a=b");
    let output = eleven_get()
        .args([
            &url,
            "--har",
            har.to_str().unwrap(),
            "--timing",
            "--progress",
            "json",
            "-O",
            "-u",
            "u:secret",
        ])
        .args(["--output-dir", place.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&har).unwrap()).unwrap();
    let entry = &record["log"]["entries"][0];
    assert_eq!(entry["request"]["method"], "GET");
    assert_eq!(entry["request"]["queryString"][0]["name"], "a");
    assert_eq!(
        (&entry["response"]["status"], &entry["response"]["content"]["size"]),
        (&200.into(), &2.into())
    );
    assert!(!record.to_string().contains("dTpz"), "secrets stay out of the record");
    let errors = text(&output.stderr);
    let events: Vec<serde_json::Value> = errors
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.first().unwrap()["event"], "begun");
    assert_eq!(events.last().unwrap()["event"], "done");
    assert!(errors.contains("connect") && errors.contains("/f?a=b"), "{errors}");
}

/// A server with ranges that hands out its content slowly, and tells how much it has sent.
fn slow_server(content: Arc<Vec<u8>>, hold: Arc<Mutex<bool>>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let (content, hold, heads) = (Arc::clone(&content), Arc::clone(&hold), Arc::clone(&heads));
            std::thread::spawn(move || {
                let Some(head) = read_head(&mut socket) else { return };
                heads.lock().unwrap().push(head.clone());
                let from: usize = head
                    .split("Range: bytes=")
                    .nth(1)
                    .and_then(|rest| rest.split('-').next())
                    .map_or(0, |number| number.parse().unwrap());
                let range = if from > 0 {
                    format!(
                        "HTTP/1.1 206 X\r\nContent-Range: bytes {from}-{}/{}\r\n",
                        content.len() - 1,
                        content.len()
                    )
                } else {
                    "HTTP/1.1 200 OK\r\n".to_owned()
                };
                let rest = &content[from..];
                let answer = format!(
                    "{range}ETag: \"x\"\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    rest.len()
                );
                if socket.write_all(answer.as_bytes()).is_err() {
                    return;
                }
                for piece in rest.chunks(64 * 1024) {
                    if socket.write_all(piece).is_err() {
                        return;
                    }
                    if *hold.lock().unwrap() {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    (port, seen)
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool, child: &mut Child) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        assert!(child.try_wait().unwrap().is_none(), "the program ended before {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn journal_lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |text| text.iter().filter(|&&b| b == b'\n').count())
}

/// A `kill -9` in the middle: no file under the final name, and the next run goes on at what was synced.
/// Fault F23.
#[test]
fn killed_and_continued() {
    let place = Folder::new();
    let content = Arc::new(Rng::new(3).bytes(40 << 20));
    let hold = Arc::new(Mutex::new(true));
    let (port, seen) = slow_server(Arc::clone(&content), Arc::clone(&hold));
    let start = || {
        let url = format!("http://127.0.0.1:{port}/f");
        eleven_get()
            .args([&url, "-c", "-q", "-O", "--output-dir", place.path().to_str().unwrap()])
            .spawn()
            .unwrap()
    };
    let journal = place.path().join("f.eleven-journal");
    let mut last = 0;
    for round in 0..2 {
        let mut child = start();
        let before = journal_lines(&journal);
        // Two records of a new journal, one more of an old one.
        wait_for("a checkpoint", || journal_lines(&journal) > before.max(2), &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(place.names(), ["f.eleven-journal", "f.eleven-part"], "round {round}");
    }
    *hold.lock().unwrap() = false;
    assert!(start().wait().unwrap().success());
    assert_eq!(place.names(), ["f"]);
    assert!(std::fs::read(place.path().join("f")).unwrap() == *content);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for head in &seen[1..] {
        let from: usize = head.split("bytes=").nth(1).unwrap().split('-').next().unwrap().parse().unwrap();
        assert!(from > last && head.contains("If-Range: \"x\""), "{head}");
        last = from;
    }
}

/// An interrupt keeps what was received, and says so by its exit code.
#[test]
fn interrupted_and_continued() {
    let place = Folder::new();
    let content = Arc::new(Rng::new(4).bytes(8 << 20));
    let hold = Arc::new(Mutex::new(true));
    let (port, _) = slow_server(Arc::clone(&content), Arc::clone(&hold));
    let url = format!("http://127.0.0.1:{port}/f");
    let arguments = [&url, "-c", "-q", "-O", "--output-dir", place.path().to_str().unwrap()];
    let mut child = eleven_get().args(arguments).spawn().unwrap();
    let part = place.path().join("f.eleven-part");
    wait_for("content", || std::fs::metadata(&part).is_ok_and(|meta| meta.len() > 300_000), &mut child);
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.names(), ["f.eleven-journal", "f.eleven-part"]);
    *hold.lock().unwrap() = false;
    assert!(eleven_get().args(arguments).status().unwrap().success());
    assert!(std::fs::read(place.path().join("f")).unwrap() == *content);
}

/// Fault K27 and the full disk: what cannot be written is said, and nothing is lost.
#[test]
fn special_outputs() {
    let (port, _) = canned(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert!(get(port, &["-o", "/dev/null"]).status.success());
    let output = get(port, &["-o", "/dev/full"]);
    assert_eq!(output.status.code(), Some(15), "{}", text(&output.stderr));
    let output = get(port, &["-o", "/nonexistent/directory/f"]);
    assert_eq!(output.status.code(), Some(15), "{}", text(&output.stderr));
    let output = get(port, &["-o", "-"]);
    assert_eq!(output.stdout, b"hi");
}
