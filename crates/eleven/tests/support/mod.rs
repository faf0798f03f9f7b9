//! The real binary under test: started on a free port of loopback, asked over real sockets, ended with the value
//! that holds it. And tables of wire texts, each delivered in several ways.
#![allow(dead_code, reason = "each test program uses its own part")]

use eleven_testkit::reader::{Reader, Response};
use eleven_testkit::{Rng, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A test that waits longer than this for the server fails.
pub const WATCHDOG: Duration = Duration::from_secs(30);

/// A running `eleven`.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens with TLS, if that listener stands before the other one.
    pub secured: Option<SocketAddr>,
}

impl Server {
    /// `eleven serve ROOT` with further arguments.
    pub fn serve(root: &Path, args: &[&str]) -> Server {
        let root = root.to_str().expect("temporary folders have plain names");
        Server::start(&[&["serve", root], args].concat())
    }

    /// `eleven echo` with further arguments.
    pub fn echo(args: &[&str]) -> Server {
        Server::start(&[&["echo"], args].concat())
    }

    /// `eleven serve --config` with this text in a file of the folder, and a listener on a free port after it.
    pub fn configured(folder: &Folder, config: &str) -> Server {
        Server::configured_by(&[], folder, config)
    }

    /// [`Server::configured`] by way of another program that becomes it: its name and arguments, which ours follow.
    pub fn configured_by(by: &[&str], folder: &Folder, config: &str) -> Server {
        let text = format!("{config}\n[[listener]]\naddress = \"127.0.0.1:0\"\n");
        let file = folder.write("eleven.toml", text);
        let file = file.to_str().expect("temporary folders have plain names");
        let words = [by, &[env!("CARGO_BIN_EXE_eleven"), "serve", "--config", file]].concat();
        Server::spawn(Command::new(words[0]), &words[1..])
    }

    /// A command that listens on a port of its own choice and prints its URL.
    pub fn start(args: &[&str]) -> Server {
        Server::start_by(Command::new(env!("CARGO_BIN_EXE_eleven")), args)
    }

    /// [`Server::start`] by way of a prepared command, such as one with other limits.
    pub fn start_by(command: Command, args: &[&str]) -> Server {
        Server::spawn(command, &[args, &["--listen", "127.0.0.1:0", "--quiet"]].concat())
    }

    fn spawn(mut command: Command, args: &[&str]) -> Server {
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (mut line, mut secured) = (String::new(), None);
        let address = loop {
            line.clear();
            let len = lines.read_line(&mut line).expect("stderr can be read");
            assert!(len > 0, "eleven {args:?} ended without printing a URL");
            // `Gateway to URL on URL`: the last one is its own.
            let of = |scheme| {
                let after = line.rsplit_once(scheme).map(|(_, rest)| rest);
                let authority = after.and_then(|rest| rest.split(['/', ' ', '\n']).next());
                authority.and_then(|authority| authority.parse().ok())
            };
            secured = secured.or_else(|| of("https://"));
            if let Some(address) = of("http://") {
                break address;
            }
        };
        // Whatever else it says belongs to the test's own output.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::stderr()));
        Server { child, address, secured }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
        stream.set_write_timeout(Some(WATCHDOG)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        stream
    }

    /// One request on a connection of its own; `head` without the line ends at its end.
    #[track_caller]
    pub fn ask(&self, head: &str) -> Response {
        let mut reader = Reader::new(self.connect());
        let wire = format!("{}\r\n\r\n", head.trim_end().replace('\n', "\r\n").replace("\r\r", "\r"));
        reader.get_mut().write_all(wire.as_bytes()).expect("the request can be sent");
        let method = head.split(' ').next().unwrap_or("GET");
        reader.response(method).unwrap_or_else(|fault| panic!("{fault}\nto {head}"))
    }

    /// `GET target` with Host.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        self.ask(&format!("GET {target} HTTP/1.1\nHost: localhost"))
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill can be run").success());
    }

    /// Waits for the process to end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait(&mut self.child)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_none()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let statm =
            std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("a running process");
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child to end; its exit code.
pub fn wait(child: &mut Child) -> Option<i32> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the child can be asked") {
            return status.code();
        }
        assert!(started.elapsed() < WATCHDOG, "the process does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder that is removed with its value.
pub struct Folder(PathBuf);

impl Folder {
    /// A new empty folder.
    pub fn new() -> Folder {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("eleven-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder can be written");
        Folder(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The names in it, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("it is there");
        let mut names: Vec<_> =
            entries.map(|e| e.expect("it is read").file_name().into_string().expect("plain")).collect();
        names.sort();
        names
    }

    /// Writes a file below it, with the folders that lead there.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("folders can be made");
        std::fs::write(&path, content).expect("files can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `eleven get`, without the proxies that the surroundings may name.
pub fn eleven_get() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eleven"));
    command.arg("get").stdin(Stdio::null());
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    command
}

/// The head of the next request, for servers made by a test; nothing at the end of the connection.
pub fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read(&mut octet).ok()? == 0 {
            return None;
        }
        head.push(octet[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// What follows the answers that a row expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The connection goes on: the request after it is answered.
    GoesOn,
    /// The server closes without reading on: the request after it is *not* answered.
    Closes,
    /// The client asked for the close, so whatever it sends behind is its own loss: the server may even reset.
    ClosesAsAsked,
    /// Either, as far as the server had read when it answered: content of unknown length is not waited for.
    GoesOnOrCloses,
}

/// A wire text and what must come of it.
pub struct Row {
    /// The fault or rule that it shows.
    pub id: &'static str,
    /// What is sent.
    pub wire: Vec<u8>,
    /// The statuses of the answers, in order; of each, any one.
    pub statuses: Vec<Vec<u16>>,
    /// And then.
    pub then: Then,
}

/// A row whose text is refused with one of `statuses`, and whose connection ends.
pub fn refused(id: &'static str, statuses: &[u16], wire: impl AsRef<[u8]>) -> Row {
    Row { id, wire: wire.as_ref().to_vec(), statuses: vec![statuses.to_vec()], then: Then::Closes }
}

/// A row whose requests are answered with `statuses`, and whose connection goes on.
pub fn answered(id: &'static str, statuses: &[u16], wire: impl AsRef<[u8]>) -> Row {
    let statuses = statuses.iter().map(|status| vec![*status]).collect();
    Row { id, wire: wire.as_ref().to_vec(), statuses, then: Then::GoesOn }
}

/// A row whose request is answered before its content has come.
pub fn answered_early(id: &'static str, statuses: &[u16], wire: impl AsRef<[u8]>) -> Row {
    Row { then: Then::GoesOnOrCloses, ..answered(id, statuses, wire) }
}

/// A row whose requests are answered, and whose connection ends as it must.
pub fn ended(id: &'static str, statuses: &[u16], wire: impl AsRef<[u8]>) -> Row {
    Row { then: Then::ClosesAsAsked, ..answered(id, statuses, wire) }
}

/// Sends each row whole, octet by octet, and in random pieces, with another request directly behind it, which
/// would be answered if the server mistook where the row ends.
#[track_caller]
pub fn check_rows(server: &Server, after: &str, after_status: u16, rows: &[Row]) {
    let mut wrong = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let wire = [row.wire.as_slice(), after.as_bytes()].concat();
        let mut rng = Rng::new(at as u64);
        let deliveries = [
            ("whole", vec![wire.as_slice()]),
            ("octet by octet", wire.chunks(1).collect()),
            ("in pieces", rng.pieces(&wire, 40)),
            ("head and rest", {
                let (head, rest) = wire.split_at(row.wire.len());
                vec![head, rest]
            }),
        ];
        for (how, pieces) in deliveries {
            // Octet by octet is for texts, not for floods.
            if pieces.len() > 20_000 {
                continue;
            }
            if let Err(why) = check_delivery(server, row, &pieces, after_status) {
                let shown = text::escape(&row.wire[..row.wire.len().min(300)]);
                wrong.push(format!("{} ({how}): {why}\n    \"{shown}\"", row.id));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows × 4 deliveries fail:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

fn check_delivery(server: &Server, row: &Row, pieces: &[&[u8]], after_status: u16) -> Result<(), String> {
    let stream = server.connect();
    let mut writer = stream.try_clone().map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in pieces {
                // A server that refuses may stop reading; that is judged by what it answers.
                if writer.write_all(piece).is_err() {
                    return;
                }
            }
        });
        let mut reader = Reader::new(&stream);
        let method = if row.wire.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        let outcome = (|| {
            let mut closing = false;
            for (at, allowed) in row.statuses.iter().enumerate() {
                let response = reader.response(method).map_err(|e| format!("answer {}: {e}", at + 1))?;
                closing = response.says_close();
                if !allowed.contains(&response.status) {
                    return Err(format!("answer {}: {} instead of {allowed:?}", at + 1, response.status));
                }
            }
            match row.then {
                Then::Closes => reader.end().map_err(|e| format!("after the answer: {e}")),
                Then::ClosesAsAsked => match reader.end() {
                    Err(e) if !e.contains("reset by peer") || !e.ends_with("\"\"") => Err(e),
                    _ => Ok(()),
                },
                Then::GoesOnOrCloses if closing => reader.end().map_err(|e| format!("after the answer: {e}")),
                Then::GoesOn | Then::GoesOnOrCloses => match reader.response("GET") {
                    Ok(response) if response.status == after_status => Ok(()),
                    Ok(response) => Err(format!("the request after it got {}", response.status)),
                    Err(e) => Err(format!("the request after it: {e}")),
                },
            }
        })();
        let _ = stream.shutdown(Shutdown::Both);
        outcome
    })
}

/// Reads to the end and throws away; for connections whose answers do not matter.
pub fn drain(mut stream: impl Read) -> u64 {
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0)
}
