//! `eleven serve` over real sockets: paths (rows P), ranges and conditions (rows G), and what RFC 9110 asks of an
//! origin server for files. The rules are decided below; here the files, the kernel and the wire come together.

mod support;

use eleven_testkit::reader::{Framing, Reader, Response};
use eleven_testkit::text::find;
use std::io::Write;
use std::os::unix::fs::symlink;
use support::{Folder, Row, Server, answered, check_rows, ended, refused};

const SECRET: &str = "a secret outside of the root";

/// A root with files, and what must not be reached from it.
fn site() -> Folder {
    let folder = Folder::new();
    folder.write("secret.txt", SECRET);
    folder.write("root/index.html", "<h1>home</h1>");
    folder.write("root/after.txt", "after");
    folder.write("root/small.txt", "0123456789");
    folder.write("root/empty.txt", "");
    folder.write("root/dir/index.html", "<h1>dir</h1>");
    folder.write("root/dir/a b.txt", "a file with a space");
    folder.write("root/no-index/file.txt", "x");
    folder.write("root/.hidden/x", SECRET);
    folder.write("root/.env", SECRET);
    folder.write("root/dir/.git/config", SECRET);
    folder.write("root/back\\slash.txt", "backslash");
    folder.write("root/%2e", "percent");
    folder.write("root/image.png", [0x89, b'P', b'N', b'G']);
    folder.write("root/unknown.zzz", "?");
    symlink("../secret.txt", folder.path().join("root/out")).unwrap();
    symlink("..", folder.path().join("root/up")).unwrap();
    symlink("/etc", folder.path().join("root/etc")).unwrap();
    symlink("/proc/self", folder.path().join("root/proc")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("root/fifo")).status();
    assert!(made.expect("mkfifo can be run").success());
    folder
}

fn serve(folder: &Folder) -> Server {
    Server::serve(&folder.path().join("root"), &[])
}

/// P01 to P18: nothing outside of the root, nothing hidden, nothing that is no file; and no hang.
#[test]
fn paths_stay_beneath_the_root() {
    let folder = site();
    let server = serve(&folder);
    for (id, target, statuses) in [
        ("P01", "/../secret.txt", &[400, 403, 404][..]),
        ("P01", "/dir/../../secret.txt", &[400, 403, 404]),
        ("P02", "/%2e%2e/secret.txt", &[400, 403, 404]),
        ("P02", "/%2E%2E%2Fsecret.txt", &[400, 403, 404]),
        ("P02", "/..%2fsecret.txt", &[400, 403, 404]),
        ("P02", "/dir/..%2f..%2fsecret.txt", &[400, 403, 404]),
        ("P03", "/%252e%252e/secret.txt", &[404]),
        ("P04", "/%c0%ae%c0%ae/secret.txt", &[400, 404]),
        ("P05", "/small.txt%00.html", &[400, 404]),
        ("P06", "/..\\secret.txt", &[400, 404]),
        ("P06", "/..%5csecret.txt", &[400, 404]),
        ("P07", "//etc/passwd", &[400, 403, 404]),
        ("P07", "/etc/passwd", &[403, 404]),
        ("P08", "/out", &[403, 404]),
        ("P08", "/up/secret.txt", &[403, 404]),
        ("P10", "/proc/environ", &[403, 404]),
        ("P10", "/proc/cwd/secret.txt", &[403, 404]),
        ("P11", "/.env", &[403, 404]),
        ("P11", "/.hidden/x", &[403, 404]),
        ("P11", "/dir/.git/config", &[403, 404]),
        ("P11", "/dir/%2egit/config", &[403, 404]),
        ("P13", "/fifo", &[403, 404, 500]),
        ("P16", "/small.txt/", &[404]),
        ("P16", "/small.txt.", &[404]),
        ("P16", "/small.txt%20", &[404]),
        ("P16", "/small.txt/.", &[400, 404]),
        ("P16", "/SMALL.TXT", &[404]),
        ("P18", "/..;/secret.txt", &[404]),
        ("P18", "/small.txt;x", &[404]),
        ("P01", "/none", &[404]),
        ("P15", "/no-index/", &[403, 404]),
    ] {
        let response = server.get(target);
        assert!(statuses.contains(&response.status), "{id} {target}: {}", response.status);
        assert!(!response.text().contains("secret outside"), "{id} {target}");
        assert!(!response.text().contains("root:"), "{id} {target}");
    }
    for (target, content) in [
        ("/", "<h1>home</h1>"),
        ("/dir/", "<h1>dir</h1>"),
        ("/dir/a%20b.txt", "a file with a space"),
        ("/dir/./a%20b.txt", "a file with a space"),
        ("/dir/../small.txt", "0123456789"),
        ("/%73mall.txt?query", "0123456789"),
        ("/back%5cslash.txt", "backslash"),
        ("http://other.example/small.txt", "0123456789"),
    ] {
        let response = server.get(target);
        assert_eq!((response.status, response.text().as_str()), (200, content), "{target}");
    }
}

/// P21, H11, H17: the redirect to a directory's slash names a path on this server, encoded again.
#[test]
fn redirects_stay_here() {
    let folder = site();
    std::fs::create_dir_all(folder.path().join("root/evil.example/x")).unwrap();
    std::fs::create_dir_all(folder.path().join("root/a\r\nX: y")).unwrap();
    let server = serve(&folder);
    for (target, location) in [
        ("/dir", "/dir/"),
        ("/dir?a=b", "/dir/?a=b"),
        ("//evil.example/x", "/evil.example/x/"),
        ("///evil.example/x", "/evil.example/x/"),
        ("/%0d%0aX:%20y", ""),
        ("/a%0d%0aX:%20y", "/a%0D%0AX:%20y/"),
    ] {
        let response = server.ask(&format!("GET {target} HTTP/1.1\nHost: evil.example"));
        let sent = response.field("location").unwrap_or("");
        if location.is_empty() || response.status == 404 || response.status == 400 {
            assert_eq!(sent, "", "{target}");
            continue;
        }
        assert_eq!(response.status, 301, "{target}");
        let path = sent.strip_prefix("http://evil.example").unwrap_or(sent);
        assert!(path == location && !path.starts_with("//"), "{target}: {sent}");
        assert_eq!(response.field("x"), None);
    }
}

/// P22 and the bad input: a root that is missing, and one that goes away.
#[test]
fn a_root_that_goes_away() {
    let folder = site();
    let server = serve(&folder);
    assert_eq!(server.get("/small.txt").status, 200);
    std::fs::rename(folder.path().join("root"), folder.path().join("gone")).unwrap();
    assert!([200, 404].contains(&server.get("/small.txt").status));
    assert!([403, 404].contains(&server.get("/none.txt").status));
}

/// 9110-9.3.1, 9110-9.3.2-02, 9110-8.6-03, 9110-8.3-01, 9110-6.6.1-02a, 9110-8.8.2.1-01, 9110-8.8.3.1-01: what a file's answer says.
#[test]
fn a_file_is_described() {
    let folder = site();
    let server = serve(&folder);
    let response = server.get("/small.txt");
    assert_eq!((response.status, response.text().as_str()), (200, "0123456789"));
    assert_eq!(response.framing, Framing::Length(10));
    for name in ["date", "last-modified", "etag"] {
        assert!(response.field(name).is_some(), "{name}");
    }
    assert_eq!(response.field("accept-ranges"), Some("bytes"));
    assert!(response.field("etag").unwrap().starts_with('"'), "a strong validator");
    assert!(eleven_testkit::reader::is_imf_fixdate(response.field("last-modified").unwrap()));
    let head = server.ask("HEAD /small.txt HTTP/1.1\nHost: a");
    let without_date = |r: &Response| {
        let mut fields = r.head.fields.clone();
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        fields
    };
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(without_date(&head), without_date(&response));
    for (target, media_type) in
        [("/small.txt", "text/plain"), ("/", "text/html"), ("/image.png", "image/png")]
    {
        let response = server.get(target);
        let sent = response.field("content-type").unwrap_or("");
        assert!(sent == media_type || sent.starts_with(&format!("{media_type};")), "{target}: {sent}");
    }
    assert_eq!(server.get("/empty.txt").framing, Framing::Length(0));
    // What is not known is not claimed to be text.
    assert!(!server.get("/unknown.zzz").field("content-type").unwrap_or("").starts_with("text/html"));
}

/// 9110-10.2.1-01, 9110-9.1-03, 9110-9.1-04, 9110-9.3.8 and P27: methods. Followed by another request each, so
/// that content which a method does not want is not taken for one (S37, S40).
#[test]
fn methods() {
    let folder = site();
    let server = serve(&folder);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let response = server.ask(&format!("{method} /small.txt HTTP/1.1\nHost: a\nContent-Length: 0"));
        assert_eq!(response.status, 405, "{method}");
        let allow = response.field("allow").expect("405 has Allow");
        assert!(allow.contains("GET") && allow.contains("HEAD") && !allow.contains(method), "{allow}");
    }
    for target in ["/small.txt", "*"] {
        let response = server.ask(&format!("OPTIONS {target} HTTP/1.1\nHost: a"));
        assert!([200, 204].contains(&response.status), "{target}");
        assert!(response.field("allow").is_some_and(|allow| allow.contains("GET")), "{target}");
    }
    assert!([405, 501].contains(&server.ask("TRACE / HTTP/1.1\nHost: a\nCookie: secret").status));
    assert_eq!(server.ask("BREW /small.txt HTTP/1.1\nHost: a").status, 501);
    assert_eq!(std::fs::read(folder.path().join("root/small.txt")).unwrap(), b"0123456789");
    let inside = "GET /empty.txt HTTP/1.1\r\nHost: a\r\n\r\n";
    let with_body = |method: &str| {
        format!("{method} /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inside}", inside.len())
    };
    let large = "x".repeat(100_000);
    let rows: Vec<Row> = vec![
        answered("S37", &[405], with_body("POST")),
        answered("S43", &[405], with_body("PUT")),
        answered("S44", &[200], with_body("GET")),
        answered(
            "S40",
            &[405],
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{large}"),
        ),
        ended(
            "9112-9.6-03",
            &[405],
            format!("POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n{inside}", inside.len()),
        ),
        refused(
            "S01",
            &[400],
            "POST /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        refused("H01", &[400], "DELETE /none HTTP/1.1\r\n\r\n"),
    ];
    check_rows(&server, "GET /after.txt HTTP/1.1\r\nHost: a\r\n\r\n", 200, &rows);
}

/// 9110-13.2.2-01a, 9110-13.2.2-01b, 9110-13.2.2-01c, 9110-13.2.2-01d: conditions in the RFC's order, on a file; with
/// 9110-13.1.1-01, 9110-13.1.2-01, 9110-13.1.3-01, 9110-13.1.3-02, 9110-13.1.3-06, 9110-13.1.4-01 and G15, G16.
#[test]
fn conditions() {
    let folder = site();
    let server = serve(&folder);
    let first = server.get("/small.txt");
    let etag = first.field("etag").unwrap().to_owned();
    let modified = first.field("last-modified").unwrap().to_owned();
    let many = format!("{}{etag}", "\"x\", ".repeat(500));
    let old = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (fields, status) in [
        (format!("If-None-Match: {etag}"), 304),
        (format!("If-None-Match: W/{etag}"), 304),
        (format!("If-None-Match: \"x\", {etag}"), 304),
        (format!("If-None-Match: \"x\"\nIf-None-Match: {etag}"), 304),
        ("If-None-Match: *".to_owned(), 304),
        ("If-None-Match: \"x\"".to_owned(), 200),
        (format!("If-None-Match: {many}"), 304),
        (format!("If-Modified-Since: {modified}"), 304),
        (format!("If-Modified-Since: {old}"), 200),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT".to_owned(), 200),
        ("If-Modified-Since: Sun Nov  6 08:49:37 1994".to_owned(), 200),
        // Not valid, so ignored.
        ("If-Modified-Since: yesterday".to_owned(), 200),
        (format!("If-Modified-Since: {modified}\nIf-Modified-Since: {modified}"), 200),
        // If-None-Match goes before If-Modified-Since, true or false.
        (format!("If-None-Match: \"x\"\nIf-Modified-Since: {modified}"), 200),
        (format!("If-None-Match: {etag}\nIf-Modified-Since: {old}"), 304),
        (format!("If-Match: {etag}"), 200),
        ("If-Match: *".to_owned(), 200),
        ("If-Match: \"x\"".to_owned(), 412),
        (format!("If-Match: W/{etag}"), 412),
        (format!("If-Unmodified-Since: {modified}"), 200),
        (format!("If-Unmodified-Since: {old}"), 412),
        (format!("If-Match: {etag}\nIf-Unmodified-Since: {old}"), 200),
        (format!("If-Match: \"x\"\nIf-None-Match: {etag}"), 412),
        (format!("If-Match: {etag}\nIf-None-Match: {etag}"), 304),
    ] {
        for method in ["GET", "HEAD"] {
            let response = server.ask(&format!("{method} /small.txt HTTP/1.1\nHost: a\n{fields}"));
            assert_eq!(response.status, status, "{method} {}", &fields[..fields.len().min(200)]);
            if status == 304 {
                // 9110-15.4.5-01
                assert_eq!((response.field("etag"), response.body.len()), (Some(etag.as_str()), 0));
                assert!(response.field("date").is_some());
            }
        }
        // A resource that is not there has no condition to meet (9110-13.2.1-02).
        let response = server.ask(&format!("GET /none HTTP/1.1\nHost: a\n{fields}"));
        assert!([404, 412].contains(&response.status), "{fields}");
        // 9110-9.3.3-R1: neither 304 nor 206 to a method that is not allowed.
        let response = server.ask(&format!("POST /small.txt HTTP/1.1\nHost: a\nContent-Length: 0\n{fields}"));
        assert_eq!(response.status, 405);
    }
    let response =
        server.ask("GET /small.txt HTTP/1.1\nHost: a\nIf-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT");
    assert!([200, 304].contains(&response.status), "G16: no overflow");
}

/// 9110-14.1.1-R1, 9110-14.1.2-01, 9110-14.1.2-R1, 9110-14.2-03, 9110-14.2-09, 9110-14.2-10, 9110-14.4-04,
/// 9110-15.3.7.1-01, 9110-15.5.17-01 and rows G: one range, none that can be had, and those that are ignored.
#[test]
fn ranges() {
    let folder = site();
    let server = serve(&folder);
    let ask = |range: &str, more: &str| {
        server.ask(&format!("GET /small.txt HTTP/1.1\nHost: a\nRange: {range}{more}"))
    };
    let (etag, modified) = {
        let first = server.get("/small.txt");
        (first.field("etag").unwrap().to_owned(), first.field("last-modified").unwrap().to_owned())
    };
    for (range, content, content_range) in [
        ("bytes=0-3", "0123", "bytes 0-3/10"),
        ("bytes=5-", "56789", "bytes 5-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-300", "0123456789", "bytes 0-9/10"),
        ("bytes=0-999", "0123456789", "bytes 0-9/10"),
        ("bytes=9-9", "9", "bytes 9-9/10"),
        ("BYTES=0-0", "0", "bytes 0-0/10"),
        ("bytes= 0-0 ,, ", "0", "bytes 0-0/10"),
        ("bytes=0-18446744073709551615", "0123456789", "bytes 0-9/10"),
        ("bytes=2-18446744073709551616", "23456789", "bytes 2-9/10"),
        // G02: what overlaps or nearly touches is sent as one.
        ("bytes=0-1,1-2,2-3", "0123", "bytes 0-3/10"),
        ("bytes=0-0,99-", "0", "bytes 0-0/10"),
    ] {
        let response = ask(range, "");
        assert_eq!((response.status, response.text().as_str()), (206, content), "{range}");
        assert_eq!(response.field("content-range"), Some(content_range), "{range}");
        // 9110-15.3.7-02
        assert_eq!(response.field("etag"), Some(etag.as_str()));
    }
    for range in ["bytes=10-", "bytes=99-100", "bytes=-0", "bytes=18446744073709551616-"] {
        let response = ask(range, "");
        assert_eq!((response.status, response.field("content-range")), (416, Some("bytes */10")), "{range}");
    }
    let thousand: String = (0..1300).map(|n| format!(",5-{n}")).collect();
    for range in [
        "bytes=5-3",
        "bytes=",
        "bytes",
        "",
        "items=0-1",
        "bytes=a-b",
        "bytes=+0-1",
        "bytes=0-1-2",
        "bytes=--1",
        "bytes=0x0-1",
        &format!("bytes=0-{thousand}"),
    ] {
        let response = ask(range, "");
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "0123456789"),
            "G01 G04 P23: {range:.40}"
        );
        assert_eq!(response.field("content-range"), None);
    }
    // 9110-14.2-02: only GET.
    let head = server.ask("HEAD /small.txt HTTP/1.1\nHost: a\nRange: bytes=0-3");
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")));
    // G13
    let empty = server.ask("GET /empty.txt HTTP/1.1\nHost: a\nRange: bytes=-1");
    assert!([200, 416].contains(&empty.status));
    for (condition, status) in [
        (etag.clone(), 206),
        (format!("W/{etag}"), 200),
        ("\"x\"".to_owned(), 200),
        ("Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 200),
    ] {
        assert_eq!(
            ask("bytes=0-3", &format!("\nIf-Range: {condition}")).status,
            status,
            "G14, 9110-13.1.5-07, 9110-13.1.5-08: {condition}"
        );
    }
    // A date is a strong validator only when it is old enough; both are right (9110-8.8.2.2-R1).
    assert!([200, 206].contains(&ask("bytes=0-3", &format!("\nIf-Range: {modified}")).status));
    // Conditions come first: the file has not changed, whatever part is asked for.
    assert_eq!(ask("bytes=99-", &format!("\nIf-None-Match: {etag}")).status, 304);
    assert_eq!(ask("bytes=99-", "\nIf-Range: \"x\"").status, 200);
}

/// 9110-15.3.7.2-01, 9110-15.3.7.2-02, 9110-15.3.7.2-03, 9110-15.3.7.2-04, 9110-15.3.7.2-09, G07: several ranges as multipart/byteranges with a boundary nobody can guess.
#[test]
fn several_ranges() {
    let folder = site();
    let content: String = (0..4000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    folder.write("root/long.txt", &content);
    let server = serve(&folder);
    let ask = || server.ask("GET /long.txt HTTP/1.1\nHost: a\nRange: bytes=0-9,1000-1009,-5");
    let (response, second) = (ask(), ask());
    assert_eq!((response.status, response.field("content-range")), (206, None));
    let boundary = |response: &Response| {
        let media_type = response.field("content-type").unwrap().to_owned();
        let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").map(str::to_owned);
        boundary.unwrap_or_else(|| panic!("{media_type}")).trim_matches('"').to_owned()
    };
    let own = boundary(&response);
    assert!(own.len() >= 16 && own != boundary(&second), "{own}");
    let text = response.text();
    let parts: Vec<&str> = text.split(&format!("--{own}")).collect();
    assert_eq!(parts.len(), 5, "{text}");
    assert!(parts[0].trim().is_empty() && parts[4].starts_with("--"), "{text}");
    for (part, (range, octets)) in parts[1..4].iter().zip([
        ("bytes 0-9/4000", &content[..10]),
        ("bytes 1000-1009/4000", &content[1000..1010]),
        ("bytes 3995-3999/4000", &content[3995..]),
    ]) {
        let (head, body) = part.split_once("\r\n\r\n").expect("a part has a head");
        assert!(head.contains(&format!("Content-Range: {range}")) && head.contains("text/plain"), "{head}");
        assert_eq!(body.strip_suffix("\r\n"), Some(octets));
    }
    // Never more than the whole: sixteen ranges cost no more than the file and their heads.
    let many: Vec<String> = (0..16).map(|n| format!("{}-{}", n * 200, n * 200 + 100)).collect();
    let response = server.ask(&format!("GET /long.txt HTTP/1.1\nHost: a\nRange: bytes={}", many.join(",")));
    assert!(response.body.len() < content.len() + 16 * 200, "{}", response.body.len());
}

/// A changed file is seen, and P25: its validators change with it.
#[test]
fn a_changed_file_is_seen() {
    let folder = site();
    let server = serve(&folder);
    let before = server.get("/small.txt");
    folder.write("root/new", "a new version");
    std::fs::rename(folder.path().join("root/new"), folder.path().join("root/small.txt")).unwrap();
    let started = std::time::Instant::now();
    let after = loop {
        let response = server.get("/small.txt");
        if response.text() != "0123456789" || started.elapsed() > support::WATCHDOG {
            break response;
        }
    };
    assert_eq!(after.text(), "a new version");
    assert_ne!(after.field("etag"), before.field("etag"));
    std::fs::remove_file(folder.path().join("root/small.txt")).unwrap();
    let started = std::time::Instant::now();
    while server.get("/small.txt").status == 200 {
        assert!(started.elapsed() < support::WATCHDOG, "a removed file is still served");
    }
}

/// P24: a file that shrinks while it is sent ends the connection; it is never padded, and never said to be whole.
#[test]
fn a_file_that_shrinks() {
    let folder = site();
    let path = folder.write("root/large.bin", vec![b'x'; 64 << 20]);
    let server = serve(&folder);
    let mut reader = Reader::new(server.connect());
    reader.get_mut().write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = reader.head().expect("a head");
    assert_eq!(head.field("content-length"), Some("67108864"));
    // More than the kernel holds for us is still to be read from the file.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let rest = reader.rest().map_or(0, |rest| rest.len());
    assert!(rest < 64 << 20, "{rest} octets of a file that has 1 MiB");
    assert_eq!(server.get("/after.txt").status, 200);
}

/// L11, L12: error pages show neither the path as markup nor what the server is made of.
#[test]
fn error_pages_are_harmless() {
    let folder = site();
    let server = serve(&folder);
    let response = server.get("/%3Cscript%3Ealert(1)%3C/script%3E");
    assert_eq!(response.status, 404);
    assert!(find(&response.body, b"<script").is_none());
    assert!(!response.body.is_empty(), "9110-15.5-01: an explanation");
    for needle in ["/tmp/", "panicked", ".rs:"] {
        assert!(!response.text().contains(needle));
    }
}
