//! TLS by configuration, over the real binary and with a client that checks names: SNI chooses between the certificates of
//! sites, plain requests are redirected, HSTS is said over TLS only, new certificates are taken without a restart, and what
//! is wrong with a certificate is said with its line.

mod support;

use eleven_net::tls_config::{ClientSettings, Trust};
use eleven_testkit::reader::Reader;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use support::{Folder, WATCHDOG};

const CONFIG: &str = r#"
[log]
access = "off"

[[listener]]
address = "unix:plain.sock"

[[listener]]
address = "127.0.0.1:0"
tls = true

[[site]]
names = ["a.test", "*.a.test"]
root = "a"
certificate = "a.pem"
key = "a.key"
https_only = true
security = ["hsts", "nosniff"]

[[site]]
names = "b.test"
root = "b"
certificate = "b.pem"
key = "b.key"
"#;

struct Server {
    child: Child,
    folder: Folder,
    secured: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate for these names and its key, as two files.
fn certify(folder: &Folder, stem: &str, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    // The key first: whoever looks between the two sees a pair that does not match, and goes on with the old one.
    let key = folder.write(&format!("{stem}.key"), made.signing_key.serialize_pem());
    let _ = Command::new("chmod").arg("600").arg(key).status();
    folder.write(&format!("{stem}.pem"), made.cert.pem());
}

fn folder() -> Folder {
    let folder = Folder::new();
    certify(&folder, "a", &["a.test", "*.a.test"]);
    certify(&folder, "b", &["b.test"]);
    folder.write("a/index.html", "site a\n");
    folder.write("b/index.html", "site b\n");
    folder
}

fn serve(config: &str) -> Server {
    let folder = folder();
    let file = folder.write("eleven.toml", config);
    let mut child = Command::new(env!("CARGO_BIN_EXE_eleven"))
        .args(["serve", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let secured = loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).expect("stderr can be read") > 0, "it ended without listening");
        eprint!("{line}");
        let after = line.split_once(" https://").map(|(_, rest)| rest);
        if let Some(address) = after.and_then(|rest| rest.split('/').next()?.trim().parse().ok()) {
            break address;
        }
    };
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::stderr()));
    Server { child, folder, secured }
}

impl Server {
    /// Fetches from a name over TLS, trusting one certificate only.
    fn get(&self, name: &str, trusted: &str, more: &[&str]) -> Output {
        let port = self.secured.port();
        Command::new(env!("CARGO_BIN_EXE_eleven"))
            .args(["get", &format!("https://{name}:{port}/"), "-o", "-", "--retry", "0", "--no-location"])
            .args(["--resolve", &format!("{name}:{port}:127.0.0.1")])
            .arg("--cacert")
            .arg(self.folder.path().join(trusted))
            .args(more)
            .output()
            .expect("the binary can be started")
    }

    fn plain(&self, head: &str) -> String {
        let path = self.folder.path().join("plain.sock");
        let mut stream = UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
        let request = format!("{head}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the request can be sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    }
}

/// 9110-4.3.3: each name is answered with the certificate and the content of its site, and with no other's.
#[test]
fn the_name_asked_for_chooses_certificate_and_site() {
    let server = serve(CONFIG);
    for (name, trusted, expected) in [
        ("a.test", "a.pem", Some("site a\n")),
        ("www.a.test", "a.pem", Some("site a\n")),
        ("b.test", "b.pem", Some("site b\n")),
        ("a.test", "b.pem", None),
        ("b.test", "a.pem", None),
    ] {
        let got = server.get(name, trusted, &[]);
        let shown = String::from_utf8_lossy(&got.stderr).into_owned();
        match expected {
            Some(text) => {
                assert_eq!((&*got.stdout, got.status.success()), (text.as_bytes(), true), "{shown}")
            }
            None => assert!(!got.status.success() && got.stdout.is_empty(), "{name} by {trusted}: {shown}"),
        }
    }
}

/// 9110-7.4-01, 9110-7.4-02: under the certificate of one site nothing is told of another.
/// Fault H09.
#[test]
fn a_site_is_not_shown_under_another_ones_certificate() {
    let server = serve(CONFIG);
    for (name, trusted, host, status) in [
        ("a.test", "a.pem", "b.test", 421),
        ("b.test", "b.pem", "a.test", 421),
        ("b.test", "b.pem", "nobody.test", 421),
        ("a.test", "a.pem", "www.a.test", 200),
        ("b.test", "b.pem", "B.TEST", 200),
    ] {
        let trust = Trust::Files(vec![server.folder.path().join(trusted)]);
        let config =
            ClientSettings { trust, ..ClientSettings::default() }.build().expect("settings of a client");
        let name_asked = name.to_owned().try_into().expect("a name");
        let connection = rustls::ClientConnection::new(config, name_asked).expect("a client");
        let stream = TcpStream::connect(server.secured).expect("the server listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
        let mut reader = Reader::new(rustls::StreamOwned::new(connection, stream));
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        reader.get_mut().write_all(request.as_bytes()).expect("the request can be sent");
        assert_eq!(reader.response("GET").expect("an answer").status, status, "{host} at {name}");
    }
}

/// Plain requests are led to `https` before anything is told; HSTS is said over TLS only (RFC 6797 §7.2).
#[test]
fn plain_requests_are_redirected_and_hsts_is_said_over_tls_only() {
    let server = serve(CONFIG);
    let answer = server.plain("GET /x/y?z=1 HTTP/1.1\r\nHost: www.a.test:80");
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(answer.contains("\r\nLocation: https://a.test/x/y?z=1\r\n"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("strict-transport-security"), "{answer}");
    // A site that does not say `https_only` is served in the clear.
    assert!(server.plain("GET / HTTP/1.1\r\nHost: b.test").ends_with("\r\n\r\nsite b\n"));
    let head = |name: &str, trusted: &str| {
        let got = server.get(name, trusted, &["-I"]);
        String::from_utf8_lossy(&[got.stdout, got.stderr].concat()).to_ascii_lowercase()
    };
    let secured = head("a.test", "a.pem");
    assert!(secured.contains("strict-transport-security: max-age="), "{secured}");
    assert!(secured.contains("x-content-type-options: nosniff"), "{secured}");
    assert!(!head("b.test", "b.pem").contains("strict-transport-security"));
    // Fault A19: plain HTTP to the port of TLS is answered in plain HTTP.
    let mut stream = TcpStream::connect(server.secured).expect("the server listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").expect("the request can be sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("This port speaks TLS"), "{text}");
}

/// A new certificate is shown to new connections once the server was told.
#[test]
fn a_new_certificate_is_taken_without_a_restart() {
    let server = serve(CONFIG);
    std::fs::copy(server.folder.path().join("a.pem"), server.folder.path().join("old.pem")).expect("a copy");
    assert!(server.get("a.test", "old.pem", &[]).status.success());
    certify(&server.folder, "a", &["a.test"]);
    let kill = Command::new("kill").args(["-HUP", &server.child.id().to_string()]).status();
    assert!(kill.expect("kill can be run").success());
    let started = std::time::Instant::now();
    while !server.get("a.test", "a.pem", &[]).status.success() {
        assert!(started.elapsed() < WATCHDOG, "the new certificate is never shown");
    }
    assert!(!server.get("a.test", "old.pem", &[]).status.success());
    assert!(server.get("b.test", "b.pem", &[]).status.success(), "the other site goes on");
}

/// What is wrong with a certificate is said where it is named, and nothing is started.
#[test]
fn wrong_certificates_are_named_with_their_line() {
    let folder = folder();
    folder.write("empty.pem", "");
    folder.write("text.pem", "no certificate\n");
    for (line, wrong, expected) in [
        ("certificate = \"a.pem\"", "certificate = \"absent.pem\"", "absent.pem"),
        ("certificate = \"a.pem\"", "certificate = \"empty.pem\"", "empty.pem"),
        ("certificate = \"a.pem\"", "certificate = \"text.pem\"", "text.pem"),
        ("key = \"a.key\"", "key = \"absent.key\"", "absent.key"),
        ("key = \"a.key\"", "key = \"a.pem\"", "a.pem"),
        ("key = \"a.key\"", "key = \"b.key\"", "a.pem"),
        ("key = \"a.key\"\n", "", "a certificate needs its key"),
        ("certificate = \"a.pem\"\n", "", "a certificate needs its key"),
    ] {
        let text = CONFIG.replacen(line, wrong, 1);
        let file = folder.write("eleven.toml", &text);
        for command in [&["check"][..], &["serve", "--config"]] {
            let out = Command::new(env!("CARGO_BIN_EXE_eleven")).args(command).arg(&file).output();
            let out = out.expect("the binary can be started");
            let shown = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(out.status.code(), Some(1), "{wrong}: {shown}");
            let of_site = text.lines().position(|line| line.contains("root = \"a\"")).expect("site a") + 1;
            let lines = of_site + 1..of_site + 3;
            let named = lines.clone().any(|line| shown.contains(&format!("eleven.toml:{line}:")));
            assert!(named && shown.contains(expected), "{wrong} should be at {lines:?}: {shown}");
        }
    }
}

/// Fault D06: who begins a handshake and falls silent is let go after five seconds; others shake hands meanwhile.
#[test]
fn a_handshake_that_stalls_is_given_up() {
    let server = serve(CONFIG);
    let mut stalled: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(server.secured).expect("the server listens");
            stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
            // The beginning of a record with a ClientHello of 512 octets.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).expect("sent");
            stream
        })
        .collect();
    let got = server.get("a.test", "a.pem", &[]);
    assert_eq!(got.stdout, b"site a\n", "{}", String::from_utf8_lossy(&got.stderr));
    for stream in &mut stalled {
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        assert!(said.len() < 16, "{said:?}");
    }
}
