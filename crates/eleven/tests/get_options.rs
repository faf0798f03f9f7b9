//! The options of `eleven get` that users of curl, wget and aria2 bring along, by what the server sees and what the user
//! gets.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use support::{Folder, eleven_get, read_head};

fn read(place: &Folder, name: &str) -> String {
    std::fs::read_to_string(place.path().join(name)).unwrap_or_else(|error| format!("{name}: {error}"))
}

fn write(place: &Folder, name: &str, text: &str, modified_s: u64) {
    let path = place.write(name, text);
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified_s)).unwrap();
}

const CONTENT: &str = "0123456789abcdef";
/// Sun, 06 Nov 1994 08:49:37 GMT.
const MODIFIED_S: u64 = 784_111_777;

struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut text = read_head(socket)?;
    let length = field(&text, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut content = vec![0; length];
    socket.read_exact(&mut content).ok()?;
    text.push_str(&String::from_utf8_lossy(&content));
    Some(text)
}

fn field(request: &str, name: &str) -> Option<String> {
    let head = request.split("\r\n\r\n").next()?;
    head.lines().skip(1).find_map(|line| {
        let (this, value) = line.split_once(": ")?;
        this.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })
}

/// `/plain` knows no ranges; `/moved` redirects, `/cookie` with a cookie; `/missing` is 404; `/wrong` sends another part; `/broken` is 501 twice.
fn answer(request: &str, count: usize) -> String {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let fixed =
        "ETag: \"v\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/x-test\r\n";
    let with = |status: &str, more: &str, content: &str| {
        format!("HTTP/1.1 {status}\r\n{fixed}{more}Content-Length: {}\r\n\r\n{content}", content.len())
    };
    match path {
        "/moved" => return with("302 Found", "Location: /plain\r\n", ""),
        "/cookie" => {
            return with("302 Found", "Set-Cookie: a=b; Path=/; Max-Age=1000\r\nLocation: /plain\r\n", "");
        }
        "/missing" => return with("404 Not Found", "", "nothing here"),
        "/broken" if count <= 2 => return with("501 Not Implemented", "", ""),
        "/wrong" => return with("206 Partial", "Content-Range: bytes 5-6/16\r\n", &CONTENT[5..7]),
        _ => {}
    }
    if field(request, "if-modified-since").is_some_and(|date| date == "Sun, 06 Nov 1994 08:49:37 GMT") {
        return format!("HTTP/1.1 304 Not Modified\r\n{fixed}\r\n");
    }
    let range = field(request, "range").filter(|_| path != "/plain");
    let Some(range) = range else { return with("200 OK", "", CONTENT) };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let end = CONTENT.len();
    let (first, last) = match (first, last) {
        ("", last) => (end - last.parse::<usize>().unwrap().min(end), end - 1),
        (first, "") => (first.parse().unwrap(), end - 1),
        (first, last) => (first.parse().unwrap(), last.parse::<usize>().unwrap().min(end - 1)),
    };
    if first >= end {
        return with("416 Range Not Satisfiable", "Content-Range: bytes */16\r\n", "");
    }
    with("206 Partial", &format!("Content-Range: bytes {first}-{last}/{end}\r\n"), &CONTENT[first..=last])
}

impl Server {
    fn new() -> Server {
        Server::on("127.0.0.1:0")
    }

    fn on(address: &str) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                let told = Arc::clone(&told);
                std::thread::spawn(move || {
                    while let Some(request) = read_request(&mut socket) {
                        let count = {
                            let mut told = told.lock().unwrap();
                            told.push(request.clone());
                            told.len()
                        };
                        if socket.write_all(answer(&request, count).as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Server { port, seen }
    }

    fn get(&self, place: &Path, path: &str, arguments: &[&str]) -> Output {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        eleven_get().current_dir(place).arg(url).args(arguments).output().unwrap()
    }

    /// The last request.
    fn last(&self) -> String {
        self.seen.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn content_in_all_its_forms() {
    let place = Folder::new();
    write(&place, "file", "a b&c\n", 1);
    let server = Server::new();
    for (arguments, method, target, content) in [
        (&["--data-raw", "@x"][..], "POST", "/plain", "@x"),
        (&["--data-urlencode", "a b&c=d"], "POST", "/plain", "a b&c=d"),
        (&["--data-urlencode", "n=\u{e4} +%&"], "POST", "/plain", "n=%C3%A4%20%2B%25%26"),
        (&["--data-urlencode", "=a=b"], "POST", "/plain", "a%3Db"),
        (&["--data-urlencode", "n@file"], "POST", "/plain", "n=a%20b%26c%0A"),
        (&["--data-urlencode", "@file"], "POST", "/plain", "a%20b%26c%0A"),
        (&["--data-urlencode", "a b"], "POST", "/plain", "a%20b"),
        (&["-d", "a=1", "--data-urlencode", "b= ", "--data-raw", "c=3"], "POST", "/plain", "a=1&c=3&b=%20"),
        (&["-G", "-d", "a=1", "-d", "b=2"], "GET", "/plain?a=1&b=2", ""),
        (&["-G", "--data-urlencode", "q=a b"], "GET", "/plain?q=a%20b", ""),
        (&["-X", "OPTIONS", "-d", "a=1"], "OPTIONS", "/plain", "a=1"),
    ] {
        let output = server.get(place.path(), "/plain", arguments);
        let request = server.last();
        let first = request.lines().next().unwrap().to_owned();
        // What was to be percent-encoded has a name only before an `=`.
        let expected = if arguments == ["--data-urlencode", "a b&c=d"] { "a b&c=d" } else { content };
        assert_eq!(first, format!("{method} {target} HTTP/1.1"), "{arguments:?} {}", text(&output.stderr));
        assert_eq!(request.split_once("\r\n\r\n").unwrap().1, expected, "{arguments:?}");
        // 9110-9.3.7-04: content has its media type, also with OPTIONS.
        let typed = field(&request, "content-type").is_some();
        assert_eq!(typed, method != "GET", "{arguments:?}");
    }
    let output = server.get(place.path(), "/plain?x=1", &["-G", "-d", "a=1"]);
    assert!(output.status.success() && server.last().starts_with("GET /plain?x=1&a=1 "));
    for arguments in [&["-G", "-d", "a b"][..], &["-G"], &["-G", "-T", "file"]] {
        assert_eq!(server.get(place.path(), "/plain", arguments).status.code(), Some(3), "{arguments:?}");
    }
}

/// 9110-14.2-02, 9110-14.3-01, 9110-14.3-02, 9110-14.4-01: a range, from servers that know ranges and from those that do not.
#[test]
fn ranges() {
    let place = Folder::new();
    let server = Server::new();
    for path in ["/f", "/plain"] {
        for (range, expected) in [
            ("0-3", Some("0123")),
            ("4-4", Some("4")),
            ("10-", Some("abcdef")),
            ("10-99", Some("abcdef")),
            ("-3", Some("def")),
            ("-99", Some(CONTENT)),
            ("16-", None),
        ] {
            let output = server.get(place.path(), path, &["-r", range]);
            assert_eq!(field(&server.last(), "range"), Some(format!("bytes={range}")));
            match expected {
                Some(expected) => assert_eq!(text(&output.stdout), expected, "{path} {range}"),
                None => assert_eq!((output.status.code(), text(&output.stdout)), (Some(12), String::new())),
            }
            let output = server.get(place.path(), path, &["-r", range, "-o", "part", "--overwrite"]);
            assert_eq!(
                output.status.success(),
                expected.is_some(),
                "{path} {range} {}",
                text(&output.stderr)
            );
            if let Some(expected) = expected {
                assert_eq!(read(&place, "part"), expected, "{path} {range}");
            }
        }
    }
    assert_eq!(server.get(place.path(), "/wrong", &["-r", "0-3"]).status.code(), Some(9));
    assert_eq!(
        server.get(place.path(), "/f", &["-r", "0-3", "-o", "part"]).status.code(),
        Some(3),
        "it exists"
    );
    assert_eq!(server.get(place.path(), "/missing", &["-r", "0-3", "-o", "new"]).status.code(), Some(12));
    assert!(!place.path().join("new").exists());
}

/// 9110-13.1.3-01: If-Modified-Since by the time of what is here; 304 is no failure.
#[test]
fn only_what_is_newer() {
    let place = Folder::new();
    let server = Server::new();
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let modified = |name: &str| {
        let meta = std::fs::metadata(place.path().join(name)).unwrap();
        meta.modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    };
    // -N: fetched, with the server's time; then found to be as new; then replaced where it is older, or another.
    for (here, sends, expected) in [
        (None, None, CONTENT),
        (Some(("same", MODIFIED_S)), Some(date), "same"),
        (Some(("older", 1)), Some("Thu, 01 Jan 1970 00:00:01 GMT"), CONTENT),
    ] {
        if let Some((content, time)) = here {
            write(&place, "f", content, time);
        }
        let output = server.get(place.path(), "/f", &["-O", "-N"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(field(&server.last(), "if-modified-since").as_deref(), sends);
        assert_eq!((read(&place, "f").as_str(), modified("f")), (expected, MODIFIED_S));
    }
    assert!(server.get(place.path(), "/f", &["-R", "-o", "timed"]).status.success());
    assert_eq!(modified("timed"), MODIFIED_S);
    // -z: a date, or the time of a file.
    for condition in [date, "timed"] {
        let output = server.get(place.path(), "/f", &["-z", condition]);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()), "{condition}");
        let output = server.get(place.path(), "/f", &["-z", condition, "-o", "conditional"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(!place.path().join("conditional").exists());
    }
    let output = server.get(place.path(), "/f", &["-z", &format!("-{date}")]);
    assert_eq!(text(&output.stdout), CONTENT);
    assert_eq!(field(&server.last(), "if-unmodified-since").as_deref(), Some(date));
    assert_eq!(server.get(place.path(), "/f", &["-z", "no date"]).status.code(), Some(3));
    // What is there is skipped, whatever it is.
    write(&place, "f", "mine", 1);
    let before = server.seen.lock().unwrap().len();
    assert!(server.get(place.path(), "/f", &["-O", "--skip-existing"]).status.success());
    assert_eq!((read(&place, "f").as_str(), server.seen.lock().unwrap().len()), ("mine", before));
    assert!(server.get(place.path(), "/g", &["-O", "--no-clobber"]).status.success());
    assert_eq!(read(&place, "g"), CONTENT);
}

/// 6265-7.2-02, 6265-7.2-03a, 6265-7.2-03b, 6265-3-02b: without a jar cookies are neither kept nor sent; with one they are, also
/// from a redirection, and stand in a file that users can read and edit (6265-7.2-01).
#[test]
fn cookies_only_where_they_are_wanted() {
    let place = Folder::new();
    let server = Server::new();
    for (arguments, sent) in [(&[][..], None), (&["--cookie-jar", "jar"], Some("a=b"))] {
        let output = server.get(place.path(), "/cookie", arguments);
        assert_eq!(text(&output.stdout), CONTENT, "{}", text(&output.stderr));
        assert_eq!(field(&server.last(), "cookie").as_deref(), sent);
    }
    assert!(read(&place, "jar").contains("127.0.0.1\tFALSE\t/\tFALSE\t"), "{}", read(&place, "jar"));
}

/// 9110-15.6-02, 9110-15.5-02: what became of a transfer, and the content of an error, for who wants to know.
#[test]
fn what_is_told_of_a_transfer() {
    let place = Folder::new();
    let server = Server::new();
    let port = server.port;
    let format = "%{http_code} %{num_redirects} %{size_download} %{content_type} %{url_effective} %{filename_effective} %header{etag}\\n";
    let output = server.get(place.path(), "/moved", &["-w", format, "-o", "f", "-D", "heads"]);
    let expected = format!("200 1 16 text/x-test http://127.0.0.1:{port}/plain f \"v\"\n");
    let told = text(&output.stdout).replace("./f", "f");
    assert_eq!(told, expected, "{}", text(&output.stderr));
    let heads = read(&place, "heads");
    assert!(
        heads.starts_with("HTTP/1.1 302 Found\r\n") && heads.contains("\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{heads}"
    );
    let output = server.get(place.path(), "/f", &["-s", "-w", "|%{http_code}|%{exitcode}|%{size_download}"]);
    assert_eq!(text(&output.stdout), format!("{CONTENT}|200|0|16"));
    let output = server.get(place.path(), "/missing", &["-w", "%{http_code} %{exitcode}", "-o", "no"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(12), "404 12".into()));
    let output = server.get(place.path(), "/missing", &["--fail-with-body"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(12), "nothing here".into()));
    let output = server.get(place.path(), "/f", &["-w", "%{no_such}"]);
    assert_eq!(output.status.code(), Some(3));
    // Several files, each with its name; directories that are missing are made.
    let other = format!("http://127.0.0.1:{port}/g");
    let output = server.get(place.path(), "/f", &["-o", "a/b/one", &other, "-o", "a/two", "--create-dirs"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((read(&place, "a/b/one"), read(&place, "a/two")), (CONTENT.into(), CONTENT.into()));
    assert_eq!(server.get(place.path(), "/f", &["-o", "x/y"]).status.code(), Some(15));
    assert_eq!(server.get(place.path(), "/f", &[&other, "-o", "x"]).status.code(), Some(3));
    // What another attempt will hardly change is tried again if that is wished.
    let fresh = Server::new();
    assert_eq!(fresh.get(place.path(), "/broken", &["--retry-delay", "0.001"]).status.code(), Some(13));
    let fresh = Server::new();
    for arguments in [&["--retry-all-errors", "--retry-delay", "0.001"][..], &["-o", "broken"]] {
        let output = fresh.get(place.path(), "/broken", arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

/// Connections that lead elsewhere: requests name whom they are for (9112-3.2-01).
#[test]
fn where_connections_lead() {
    let place = Folder::new();
    let server = Server::new();
    let port = server.port;
    let url = "http://name.example:81/f";
    for to in [
        format!("name.example:81:127.0.0.1:{port}"),
        format!("::127.0.0.1:{port}"),
        format!("name.example::127.0.0.1:{port}"),
    ] {
        let output =
            eleven_get().current_dir(place.path()).args([url, "--connect-to", &to]).output().unwrap();
        assert_eq!(text(&output.stdout), CONTENT, "{to} {}", text(&output.stderr));
        assert_eq!(field(&server.last(), "host").as_deref(), Some("name.example:81"));
    }
    let here = server.get(place.path(), "/f", &["-4", "--interface", "127.0.0.1"]);
    assert_eq!(text(&here.stdout), CONTENT, "{}", text(&here.stderr));
    let none = server.get(place.path(), "/f", &["-6"]);
    assert_eq!(none.status.code(), Some(5), "{}", text(&none.stderr));
    assert!(text(&none.stderr).contains("no address of the version"), "{}", text(&none.stderr));
    let twisted = eleven_get().args(["http://h/", "--connect-to", "nonsense"]).output().unwrap();
    assert_eq!(twisted.status.code(), Some(3));
}
