//! What `eleven` says to a person who starts it: one clear line and an exit code for each mistake, never a
//! backtrace.

mod support;

use std::process::{Command, Stdio};
use support::{Folder, Server};

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str]) -> Outcome {
    let out = Command::new(env!("CARGO_BIN_EXE_eleven")).args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("plain text");
    Outcome { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
}

/// P22 and the bad input: mistakes end with one line that names what is wrong, and code 1 or 2.
#[test]
fn mistakes_are_named_in_a_line() {
    let folder = Folder::new();
    let file = folder.write("a-file", "x");
    let used = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let used = used.local_addr().unwrap().to_string();
    let root = folder.path().to_str().unwrap();
    let port = used.rsplit(':').next().unwrap();
    for (args, words) in [
        (&["serve", "/no/such/directory"][..], &["/no/such/directory"][..]),
        (&["serve", file.to_str().unwrap()], &["a-file"]),
        (&["serve", root, "--listen", &used], &[port]),
        (&["echo", "--listen", &used], &[port]),
        (&["serve", root, "--listen", "192.0.2.1:80"], &["192.0.2.1"]),
        (&["serve", root, "--listen", "unix:/no/such/folder/socket"], &["/no/such/folder"]),
    ] {
        let outcome = run(args);
        assert!(matches!(outcome.code, Some(1 | 2)), "{args:?}: {:?}", outcome.code);
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{args:?}: {}", outcome.stderr);
        assert!(words.iter().all(|word| lines[0].contains(word)), "{args:?}: {}", lines[0]);
        assert!(!outcome.stderr.contains("panicked") && !outcome.stdout.contains("http://"), "{args:?}");
    }
}

/// Usage mistakes end with code 2 and name the argument.
#[test]
fn usage() {
    for (args, word) in [
        (&["serve", "--no-such-option"][..], "--no-such-option"),
        (&["no-such-command"], "no-such-command"),
        (&["serve", "--workers", "many"], "many"),
        (&["serve", "--listen", "not an address"], "not an address"),
        (&["serve", "--listen", "127.0.0.1:99999"], "99999"),
    ] {
        let outcome = run(args);
        assert!(matches!(outcome.code, Some(1 | 2)), "{args:?}: {:?}", outcome.code);
        assert!(outcome.stderr.contains(word), "{args:?}: {}", outcome.stderr);
    }
    for args in [&["--help"][..], &["serve", "--help"], &["echo", "--help"], &["--version"]] {
        let outcome = run(args);
        assert_eq!(outcome.code, Some(0), "{args:?}");
        assert!(outcome.stdout.contains("eleven") && outcome.stderr.is_empty(), "{args:?}");
    }
}

/// A Unix socket is served too, and a stale one is replaced.
#[test]
fn a_unix_socket() {
    let folder = Folder::new();
    folder.write("root/x.txt", "hello");
    let socket = folder.path().join("socket");
    let listen = format!("unix:{}", socket.display());
    for _ in 0..2 {
        let server = Server::serve(&folder.path().join("root"), &["--listen", &listen]);
        let script = "client\n send \"GET /x.txt HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n\"\n\
                      expect\n | HTTP/1.1 200 OK\n | ...\n |\n expect \"hello\"\n expect-close";
        eleven_testkit::script::play(script, eleven_testkit::script::Address::Unix(socket.clone()));
        // Killed, so that the socket stays behind.
        drop(server);
    }
}
