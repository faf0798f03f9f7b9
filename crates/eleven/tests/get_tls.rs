//! `eleven get` over TLS against `eleven serve`: whom it trusts, for which name, at which time, and what it says where it
//! does not (RFC 9110 §4.3.4).

mod support;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use support::Folder;

/// An authority that issues certificates into a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: PathBuf,
}

impl Authority {
    fn new(folder: &Folder, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pem = folder.write(&format!("{name}.pem"), issuer.pem());
        Authority { issuer, pem }
    }

    fn issue(
        &self,
        folder: &Folder,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            folder.write(&format!("{file}.crt"), certificate.pem()),
            folder.write(&format!("{file}.key"), key.serialize_pem()),
        )
    }
}

/// `eleven serve` over TLS on a port of its own.
struct Secured {
    child: Child,
    port: u16,
}

impl Secured {
    fn new(root: &Path, identity: &(PathBuf, PathBuf)) -> Secured {
        let mut child = Command::new(env!("CARGO_BIN_EXE_eleven"))
            .arg("serve")
            .arg(root)
            .args(["--quiet", "--listen", "127.0.0.1:0", "--tls-cert"])
            .arg(&identity.0)
            .arg("--tls-key")
            .arg(&identity.1)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the server ended without printing a URL");
            let rest = line.split_once("https://127.0.0.1:").map(|(_, rest)| rest);
            let digits = rest.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            if let Some(port) = digits.and_then(|digits| digits.parse().ok()) {
                break port;
            }
        };
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Secured { child, port }
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eleven"));
    for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    command.arg("get").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn site() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("f.txt"), "over tls").unwrap();
    std::fs::write(root.join("large.bin"), eleven_testkit::Rng::new(3).bytes(3_000_001)).unwrap();
    (folder, root)
}

/// 9110-4.2.2-03, 9110-4.3.3-01, 9110-4.3.4-01, 9110-4.3.4-02, 9110-4.3.4-03 (a name by its DNS-ID, an address by its
/// IP-ID), 9110-4.3.4-04 (never by the common name), 9110-4.3.4-05, 9110-4.3.4-06a, 9110-4.3.4-06b, 9110-4.3.4-07; faults
/// A11, A12: a certificate that does not prove the name, now, by somebody trusted, ends it with its own exit code and a
/// word why, and nothing of the content is shown or saved.
#[test]
fn certificates_must_prove_who_is_asked() {
    let (folder, root) = site();
    let authority = Authority::new(&folder, "good");
    let other = Authority::new(&folder, "other");
    let plain = |_: &mut CertificateParams| {};
    let good = authority.issue(&folder, "good-leaf", &["localhost", "127.0.0.1", "*.site.example"], plain);
    let name_only = authority.issue(&folder, "name-only", &["localhost"], plain);
    let common_name = authority.issue(&folder, "common-name", &[], |params| {
        params.distinguished_name.push(DnType::CommonName, "localhost");
    });
    let expired = authority.issue(&folder, "expired", &["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let future = authority.issue(&folder, "future", &["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    });
    let trusted = authority.pem.to_str().unwrap();
    let foreign = other.pem.to_str().unwrap();
    for (what, identity, host, arguments, code, words) in [
        ("trusted name", &good, "localhost", &["--cacert", trusted][..], 0, &[][..]),
        ("trusted address", &good, "127.0.0.1", &["--cacert", trusted], 0, &[]),
        ("wildcard", &good, "a.site.example", &["--cacert", trusted], 0, &[]),
        ("wildcard of one label only", &good, "a.b.site.example", &["--cacert", trusted], 7, &["name"]),
        ("nobody trusted", &good, "localhost", &[], 7, &["--cacert"]),
        ("another authority", &good, "localhost", &["--cacert", foreign], 7, &["--cacert"]),
        ("another name", &good, "other.test", &["--cacert", trusted], 7, &["name"]),
        ("an address is no name", &name_only, "127.0.0.1", &["--cacert", trusted], 7, &["name"]),
        ("the common name", &common_name, "localhost", &["--cacert", trusted], 7, &["name"]),
        ("expired", &expired, "localhost", &["--cacert", trusted], 7, &["expired"]),
        ("not yet valid", &future, "localhost", &["--cacert", trusted], 7, &["not"]),
        ("insecure", &expired, "other.test", &["--insecure"], 0, &["warning", "not verified"]),
        ("insecure and quiet", &common_name, "localhost", &["--insecure", "-q"], 0, &["warning"]),
    ] {
        let server = Secured::new(&root, identity);
        let url = format!("https://{host}:{}/f.txt", server.port);
        let resolve = format!("{host}:{}:127.0.0.1", server.port);
        let output = get(&[&["--resolve", &resolve, &url], arguments].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{what}: {said}");
        assert_eq!(output.stdout, if code == 0 { &b"over tls"[..] } else { b"" }, "{what}");
        assert!(words.iter().all(|word| said.contains(word)), "{what}: {said}");
        assert_eq!(said.lines().count(), usize::from(!words.is_empty()), "{what}: {said}");
    }
}

/// A file over TLS, by one connection and by several, arrives as it is; a server that speaks no TLS is an error of TLS, and
/// a redirection to an unsecured place is not followed.
#[test]
fn files_over_tls() {
    let (folder, root) = site();
    let authority = Authority::new(&folder, "good");
    let identity = authority.issue(&folder, "leaf", &["localhost"], |_| {});
    let server = Secured::new(&root, &identity);
    let trusted = authority.pem.to_str().unwrap();
    let url = format!("https://localhost:{}/large.bin", server.port);
    let resolve = format!("localhost:{}:127.0.0.1", server.port);
    for (name, segments) in [("one", "1"), ("four", "4"), ("auto", "auto")] {
        let path = folder.path().join(name);
        let to = path.to_str().unwrap();
        let output =
            get(&["-q", "--cacert", trusted, "--resolve", &resolve, "--segments", segments, "-o", to, &url]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(
            std::fs::read(&path).unwrap() == std::fs::read(root.join("large.bin")).unwrap(),
            "{name} differs"
        );
    }
    let unsecured = support::Server::serve(&root, &[]);
    let port = unsecured.connect().peer_addr().unwrap().port();
    let output = get(&["--insecure", &format!("https://127.0.0.1:{port}/f.txt")]);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    let missing = get(&["--cacert", "/nonexistent.pem", &url]);
    assert!(!missing.status.success() && missing.stdout.is_empty());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nonexistent.pem"));
}
