//! Where storage ends: a file system that is full, a limit on the size of files, a log that cannot be written. The server
//! says so, leaves nothing behind, and goes on.

mod support;

use eleven_testkit::reader::{Reader, Response};
use std::io::Write;
use std::process::Command;
use support::{Folder, Server};

const CONFIG: &str = r#"
[log]
access = "LOG"

[[site]]
root = "www"

[[site.route]]
path = "/up"
strip_prefix = true
files = { root = "up", listing = true, uploads = true }
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("www/page.txt", "page");
    std::fs::create_dir(folder.path().join("up")).unwrap();
    folder
}

/// Uploads so many octets, with their number or without.
fn put(server: &Server, name: &str, octets: usize, chunked: bool) -> Response {
    let mut reader = Reader::new(server.connect());
    let content = "x".repeat(octets);
    let wire = match chunked {
        false => format!("PUT /up/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: {octets}\r\n\r\n{content}"),
        true => format!(
            "PUT /up/{name} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{octets:x}\r\n{content}\r\n0\r\n\r\n"
        ),
    };
    // The answer may come before all of it was taken.
    let _ = reader.get_mut().write_all(wire.as_bytes());
    reader.response("PUT").expect("an answer, and no reset")
}

/// What is in the directory, as the server sees it.
fn names(server: &Server) -> String {
    let listing = server.ask("GET /up/ HTTP/1.1\nHost: a\nAccept: application/json");
    assert_eq!(listing.status, 200);
    let listing: serde_json::Value = serde_json::from_str(&listing.text()).expect("JSON");
    let entries = listing["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["name"].as_str().expect("a name")).collect::<Vec<_>>().join(" ")
}

/// 9110-15.6-01; fault F10: an upload that the file system has no room for is 507, the directory is as before, and the next one that
/// fits is taken. The file system is one in memory, in a mount namespace of the server's own, so that it needs root or
/// user namespaces; where neither is allowed this test can see nothing, and says so.
#[test]
fn a_full_file_system() {
    let folder = folder();
    let up = folder.path().join("up").to_str().expect("temporary folders have plain names").to_owned();
    let mounts = "mount -t tmpfs -o size=256k tmpfs \"$0\" && exec \"$@\"";
    let ways: [&[&str]; 2] = [&["unshare", "-m"], &["unshare", "-U", "-r", "-m"]];
    let allowed = ways.into_iter().find(|way| {
        let tried = Command::new(way[0]).args(&way[1..]).args(["sh", "-c", mounts, &up, "true"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    });
    let Some(way) = allowed else {
        return eprintln!("NOT SEEN: a full file system; nothing may be mounted here");
    };
    let config = CONFIG.replace("LOG", "up/access.log");
    let server = Server::configured_by(&[way, &["sh", "-c", mounts, &up]].concat(), &folder, &config);
    for (octets, chunked) in [(1 << 20, false), (1 << 20, true), (200 << 10, false)] {
        let response = put(&server, "large.bin", octets, chunked);
        let expected = if octets > 256 << 10 { 507 } else { 201 };
        assert_eq!(response.status, expected, "{octets} octets");
        assert!(!response.text().is_empty() || expected == 201);
        let there = if expected == 201 { "access.log large.bin" } else { "access.log" };
        assert_eq!(names(&server), there);
    }
    // What stands is neither lost nor half replaced, and what fits is still taken.
    assert_eq!(put(&server, "large.bin", 100 << 10, true).status, 507);
    assert_eq!(server.get("/up/large.bin").body.len(), 200 << 10);
    assert_eq!(put(&server, "small.txt", 1000, false).status, 201);
    // Full to the last block: the log cannot be written either, and nothing waits for it.
    let mut left = 0;
    while put(&server, &format!("fill-{left}"), 4096, false).status == 201 {
        left += 1;
        assert!(left < 64);
    }
    for _ in 0..3000 {
        assert_eq!(server.get("/page.txt").text(), "page");
    }
    assert_eq!(server.ask("DELETE /up/large.bin HTTP/1.1\nHost: a").status, 204);
    assert_eq!(put(&server, "after.bin", 100 << 10, false).status, 201);
}

/// A limit on the size of files (`ulimit -f`, `LimitFSIZE`) would end the process at the first octet too many, by SIGXFSZ.
#[test]
fn a_limit_on_the_size_of_files() {
    let folder = folder();
    // In units of 512 or 1024 octets, as the shell likes.
    let server = Server::configured_by(
        &["sh", "-c", "ulimit -f 64 && exec \"$0\" \"$@\""],
        &folder,
        &CONFIG.replace("LOG", "access.log"),
    );
    for chunked in [false, true] {
        assert_eq!(put(&server, "large.bin", 1 << 20, chunked).status, 413);
        assert_eq!(names(&server), "");
    }
    // The log grows to its limit, and the server does not end by it.
    for _ in 0..1500 {
        assert_eq!(server.get("/page.txt").text(), "page");
    }
    assert_eq!(put(&server, "small.txt", 1000, false).status, 201);
    assert_eq!(names(&server), "small.txt");
}

/// A log on a device that takes nothing.
#[test]
fn a_log_that_cannot_be_written() {
    let folder = folder();
    let server = Server::configured(&folder, &CONFIG.replace("LOG", "/dev/full"));
    for _ in 0..100 {
        assert_eq!(server.get("/page.txt").text(), "page");
    }
}
