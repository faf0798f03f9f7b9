//! Bad input of whoever runs the server: a wrong key, an expired certificate, a port in use, a log disk that is full. Each is
//! said with what, where and what to do, and nothing that worked stops working.

mod support;

use eleven_testkit::reader::Reader;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Folder, WATCHDOG};

/// A server whose standard error is kept in a file.
struct Server {
    child: Child,
    said: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Folder, config: &str) -> Server {
        let file = folder.write("eleven.toml", config);
        let said = folder.write("said.txt", "");
        let child = Command::new(env!("CARGO_BIN_EXE_eleven"))
            .args(["serve", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::options().append(true).open(&said).expect("the file was made"))
            .spawn()
            .expect("the binary can be started");
        Server { child, said }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).expect("the file was made")
    }

    /// Waits until something was said.
    fn wait_for(&self, what: &str) -> String {
        let started = Instant::now();
        loop {
            let said = self.said();
            if said.contains(what) {
                return said;
            }
            assert!(started.elapsed() < WATCHDOG, "nothing of {what:?} in:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn address(&self, scheme: &str) -> SocketAddr {
        let before = format!(" {scheme}://");
        let said = self.wait_for(&before);
        let rest = said.split_once(&before).expect("it was found").1;
        rest.split('/').next().expect("a split has a first").trim().parse().expect("an address")
    }

    fn reload(&self) {
        let kill = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status();
        assert!(kill.expect("kill can be run").success());
    }
}

fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").expect("it reads");
    Reader::new(stream).response("GET").expect("an answer").text()
}

fn get_secured(address: SocketAddr) -> String {
    let got = Command::new(env!("CARGO_BIN_EXE_eleven"))
        .args([
            "get",
            &format!("https://a.test:{}/", address.port()),
            "--insecure",
            "-o",
            "-",
            "--retry",
            "0",
        ])
        .args(["--resolve", &format!("a.test:{}:127.0.0.1", address.port())])
        .output()
        .expect("the binary can be started");
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    String::from_utf8_lossy(&got.stdout).into_owned()
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("www/index.html", "home\n");
    folder
}

fn certify(folder: &Folder, stem: &str, last_year: i32) {
    let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    folder.write(&format!("{stem}.key"), key.serialize_pem());
    folder.write(&format!("{stem}.pem"), params.self_signed(&key).expect("a certificate").pem());
}

const SECURED: &str = "[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n\
    [[site]]\ndefault = true\nroot = \"www\"\ncertificate = \"a.pem\"\nkey = \"a.key\"\n";

/// The port is named, and the one who has it goes on.
#[test]
fn a_port_in_use() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let config =
        format!("[log]\naccess = \"off\"\n[[listener]]\naddress = \"{address}\"\n[[site]]\nroot = \"www\"\n");
    let mut server = Server::start(&folder, &config);
    let status = support::wait(&mut server.child);
    assert_eq!(status, Some(1));
    let said = server.said();
    let expected =
        format!("cannot listen on {address}: port {} is in use by another program", address.port());
    assert!(said.contains(&expected), "{said}");
}

/// A reload that wants a port in use changes nothing: the sites of before are answered for.
#[test]
fn a_port_in_use_by_a_reload() {
    let folder = folder();
    let first =
        "[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[site]]\nroot = \"www\"\n";
    let server = Server::start(&folder, first);
    let serving = server.address("http");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    folder.write("eleven.toml", format!("{first}[[listener]]\naddress = \"{address}\"\n"));
    server.reload();
    let said = server.wait_for("the configuration stays as it was");
    assert!(said.contains(&format!("port {} is in use", address.port())), "{said}");
    assert_eq!(get(serving), "home\n");
}

/// The key of another certificate: named with both files, at a start and at a reload, which leaves the old pair in force.
#[test]
fn a_wrong_key() {
    let folder = folder();
    certify(&folder, "a", 2100);
    certify(&folder, "b", 2100);
    let server = Server::start(&folder, SECURED);
    let address = server.address("https");
    assert_eq!(get_secured(address), "home\n");
    std::fs::copy(folder.path().join("b.key"), folder.path().join("a.key")).expect("a copy");
    server.reload();
    let said = server.wait_for("the configuration stays as it was");
    assert!(said.contains("a.pem does not go with key") && said.contains("eleven.toml:9:"), "{said}");
    assert_eq!(get_secured(address), "home\n");
    let mut again = Server::start(&folder, SECURED);
    assert_eq!(support::wait(&mut again.child), Some(1));
    assert!(again.said().contains("a.pem does not go with key"), "{}", again.said());
    assert_eq!(get_secured(address), "home\n", "the first is not disturbed by the second");
}

/// It is shown all the same, for clients that look away are better served than none, and said with its date.
#[test]
fn an_expired_certificate() {
    let folder = folder();
    certify(&folder, "a", 2002);
    let server = Server::start(&folder, SECURED);
    let address = server.address("https");
    let said = server.said();
    for word in ["eleven.toml:9:", "expired on Tue, 01 Jan 2002 00:00:00 GMT", "put a new one in its file"] {
        assert!(said.contains(word), "no {word:?} in:\n{said}");
    }
    assert_eq!(get_secured(address), "home\n");
}

/// Fault F10: requests are answered, and the log that cannot be written is named.
#[test]
fn a_full_log_disk() {
    let folder = folder();
    let server = Server::start(
        &folder,
        "[log]\naccess = \"/dev/full\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[site]]\nroot = \"www\"\n",
    );
    let address = server.address("http");
    for _ in 0..3 {
        assert_eq!(get(address), "home\n");
    }
    let said = server.wait_for("lines lost");
    assert!(said.contains("/dev/full") && said.contains("No space left on device"), "{said}");
    assert_eq!(get(address), "home\n");
}
