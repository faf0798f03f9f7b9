//! Scripted peers over real sockets: a test as text, so that a bug report becomes a test by pasting bytes.
//!
//! A script names peers and says what each does, one step a line; every peer runs in a thread of its own:
//!
//! ```text
//! server origin                 # listens on a port of its own; {origin} is its address
//!   expect
//!     | GET /a HTTP/1.1         # lines end in CRLF; * stands for any octets, ... for any lines
//!     | ...
//!     |
//!   send "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
//! client                        # connects to the address called `target`; `client NAME ADDRESS` to another
//!   send 3 "x"                  # three times
//!   expect "hi"                 # exactly these octets
//!   half-close | close | reset  # FIN, close, RST
//!   expect-close                # the peer closes in order, without another octet
//! ```
//!
//! and further `send-slowly TEXT` (one octet a write), `skip N` octets, `skip-to TEXT`, `wait-for-close` (skip
//! everything), `expect-reset`, `accept` and `connect` (the next connection), `signal NAME` and `await NAME`
//! between peers. Escapes are those of [`crate::text`]; `#` starts a comment where a step could stand.
//! It knows nothing of HTTP: messages are judged line by line, or with [`crate::reader`].

use crate::text::{escape, line_matches, unescape};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// A peer that waits longer than this for anything fails its test. No step is meant to take time: it only
/// keeps a hanging test from hanging for ever.
const WATCHDOG_S: u64 = 20;

/// Where a scripted client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

/// A parsed script whose servers are already listening, so that the system under test can be told their
/// addresses before anything runs.
#[derive(Debug)]
pub struct Stage {
    peers: Vec<Peer>,
    addresses: HashMap<String, Address>,
}

#[derive(Debug)]
struct Peer {
    name: String,
    role: Role,
    steps: Vec<(usize, Step)>,
}

#[derive(Debug)]
enum Role {
    Client { target: String },
    Server { listener: Option<TcpListener> },
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize, String),
    SendSlowly(String),
    Expect(String),
    ExpectLines(Vec<String>),
    Skip(usize),
    SkipTo(String),
    ExpectClose,
    ExpectReset,
    WaitForClose,
    Close,
    HalfClose,
    Reset,
    NextConnection,
    Signal(String),
    Await(String),
}

/// Runs a script whose clients connect to `target`.
///
/// # Panics
/// When a peer does not see what it expects, or the script has a mistake; the message names the line.
#[track_caller]
pub fn play(script: &str, target: impl Into<Address>) {
    Stage::new(script).with("target", target).run();
}

impl Stage {
    /// Parses `script` and starts listening for its servers.
    ///
    /// # Panics
    /// When the script has a mistake; the message names the line.
    #[track_caller]
    pub fn new(script: &str) -> Stage {
        let mut peers = parse(script).unwrap_or_else(|mistake| panic!("{mistake}"));
        let mut addresses = HashMap::new();
        for peer in &mut peers {
            if let Role::Server { listener } = &mut peer.role {
                let bound = TcpListener::bind(("127.0.0.1", 0)).expect("a free port on loopback");
                let address = bound.local_addr().expect("a bound socket has an address");
                addresses.insert(peer.name.clone(), Address::Tcp(address));
                *listener = Some(bound);
            }
        }
        Stage { peers, addresses }
    }

    /// The address of a server in the script.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn address(&self, server: &str) -> SocketAddr {
        match self.addresses.get(server) {
            Some(Address::Tcp(address)) => *address,
            _ => panic!("no server {server} in the script"),
        }
    }

    /// Names an address that clients connect to, or that texts name as `{NAME}`.
    #[must_use]
    pub fn with(mut self, name: &str, address: impl Into<Address>) -> Stage {
        self.addresses.insert(name.to_owned(), address.into());
        self
    }

    /// Runs all peers to their end.
    ///
    /// # Panics
    /// When one fails: with the first failure's script line, what was expected and what came.
    #[track_caller]
    pub fn run(self) {
        let board = Board::default();
        std::thread::scope(|scope| {
            for peer in &self.peers {
                scope.spawn(|| {
                    if let Err(failure) = peer.act(&self.addresses, &board) {
                        board.fail(failure);
                    }
                });
            }
        });
        let failed = board.state.into_inner().expect("no peer panics while it holds the lock").failure;
        if let Some(failure) = failed {
            panic!("{failure}");
        }
    }
}

/// What peers tell each other.
#[derive(Default)]
struct Board {
    state: Mutex<BoardState>,
    changed: Condvar,
}

#[derive(Default)]
struct BoardState {
    signals: HashSet<String>,
    failure: Option<String>,
}

impl Board {
    fn fail(&self, failure: String) {
        let mut state = self.state.lock().expect("no peer panics while it holds the lock");
        state.failure.get_or_insert(failure);
        self.changed.notify_all();
    }

    fn signal(&self, name: &str) {
        let mut state = self.state.lock().expect("no peer panics while it holds the lock");
        state.signals.insert(name.to_owned());
        self.changed.notify_all();
    }

    fn wait(&self, name: &str) -> Result<(), String> {
        let state = self.state.lock().expect("no peer panics while it holds the lock");
        let unseen = |state: &mut BoardState| state.failure.is_none() && !state.signals.contains(name);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, Duration::from_secs(WATCHDOG_S), unseen)
            .expect("no peer panics while it holds the lock");
        if state.signals.contains(name) { Ok(()) } else { Err(format!("nobody signalled {name}")) }
    }
}

impl Peer {
    fn act(&self, addresses: &HashMap<String, Address>, board: &Board) -> Result<(), String> {
        let mut connection: Option<Connection> = None;
        for (line, step) in &self.steps {
            let failed = |why: String| format!("script line {line} ({}): {why}", self.name);
            match step {
                Step::Signal(name) => board.signal(name),
                Step::Await(name) => board.wait(name).map_err(failed)?,
                Step::NextConnection => connection = Some(self.connect(addresses).map_err(failed)?),
                Step::Close => drop(connection.take()),
                step => {
                    if connection.is_none() {
                        connection = Some(self.connect(addresses).map_err(failed)?);
                    }
                    let open = connection.as_mut().expect("connected above");
                    open.take_step(step, addresses).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    fn connect(&self, addresses: &HashMap<String, Address>) -> Result<Connection, String> {
        let socket = match &self.role {
            Role::Server { listener } => {
                let listener = listener.as_ref().expect("servers listen from Stage::new on");
                Socket::Tcp(accept(listener)?)
            }
            Role::Client { target } => match addresses.get(target) {
                Some(Address::Tcp(address)) => Socket::Tcp(TcpStream::connect(address).map_err(text_of)?),
                Some(Address::Unix(path)) => Socket::Unix(UnixStream::connect(path).map_err(text_of)?),
                None => return Err(format!("no address is called {target}")),
            },
        };
        Connection::new(socket)
    }
}

/// Accepts, but not for ever: the standard library has no deadline for it.
fn accept(listener: &TcpListener) -> Result<TcpStream, String> {
    let waiting = socket2::SockRef::from(listener);
    waiting.set_read_timeout(Some(Duration::from_secs(WATCHDOG_S))).map_err(text_of)?;
    listener.accept().map(|(stream, _)| stream).map_err(|e| format!("nobody connected: {e}"))
}

fn text_of(e: io::Error) -> String {
    e.to_string()
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        }
    }
}

struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(socket: Socket) -> Result<Connection, String> {
        let watchdog = Some(Duration::from_secs(WATCHDOG_S));
        match &socket {
            Socket::Tcp(stream) => stream
                .set_read_timeout(watchdog)
                .and_then(|()| stream.set_write_timeout(watchdog))
                .and_then(|()| stream.set_nodelay(true)),
            Socket::Unix(stream) => {
                stream.set_read_timeout(watchdog).and_then(|()| stream.set_write_timeout(watchdog))
            }
        }
        .map_err(text_of)?;
        Ok(Connection { socket, buffer: Vec::new() })
    }

    fn take_step(&mut self, step: &Step, addresses: &HashMap<String, Address>) -> Result<(), String> {
        let octets = |text: &str| unescape(&named(text, addresses));
        match step {
            Step::Send(count, text) => self.send(&octets(text)?.repeat(*count)),
            Step::SendSlowly(text) => octets(text)?.chunks(1).try_for_each(|octet| self.send(octet)),
            Step::Expect(text) => self.expect(&octets(text)?),
            Step::ExpectLines(lines) => {
                let lines: Vec<String> = lines.iter().map(|line| named(line, addresses)).collect();
                self.expect_lines(&lines)
            }
            Step::Skip(len) => self.exactly(*len).map(drop),
            Step::SkipTo(text) => self.skip_to(&octets(text)?),
            Step::ExpectClose => self.expect_close(),
            Step::ExpectReset => self.expect_reset(),
            Step::WaitForClose => {
                while matches!(self.fill(), Ok(true)) {
                    self.buffer.clear();
                }
                Ok(())
            }
            Step::HalfClose => match &self.socket {
                Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
                Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            }
            .map_err(text_of),
            Step::Reset => match &self.socket {
                // With no time to linger, dropping the socket resets the connection. Another socket takes its
                // place, for steps that wrongly follow.
                Socket::Tcp(stream) => {
                    let socket = socket2::SockRef::from(stream);
                    socket.set_linger(Some(Duration::ZERO)).map_err(text_of)?;
                    let placeholder = UnixStream::pair().map_err(text_of)?.0;
                    self.socket = Socket::Unix(placeholder);
                    Ok(())
                }
                Socket::Unix(_) => Err("a Unix socket cannot be reset".into()),
            },
            Step::Close | Step::NextConnection | Step::Signal(_) | Step::Await(_) => {
                unreachable!("done by Peer::act")
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.socket.write_all(bytes).map_err(|e| format!("send: {e}"))
    }

    /// Reads more; false at the end of the connection.
    fn fill(&mut self) -> io::Result<bool> {
        let mut piece = [0; 65536];
        let len = self.socket.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..len]);
        Ok(len > 0)
    }

    fn more(&mut self, wanted: &str) -> Result<(), String> {
        match self.fill() {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("expected {wanted}, but the peer closed after \"{}\"", self.at_hand())),
            Err(e) => Err(format!("expected {wanted}, got {e} after \"{}\"", self.at_hand())),
        }
    }

    fn at_hand(&self) -> String {
        escape(&self.buffer[..self.buffer.len().min(1000)])
    }

    fn exactly(&mut self, len: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < len {
            self.more(&format!("{len} octets"))?;
        }
        Ok(self.buffer.drain(..len).collect())
    }

    fn expect(&mut self, expected: &[u8]) -> Result<(), String> {
        let mut same = 0;
        loop {
            let got = self.buffer.len().min(expected.len());
            if let Some(at) = (same..got).find(|&at| self.buffer[at] != expected[at]) {
                let wanted = escape(&expected[..expected.len().min(1000)]);
                return Err(format!(
                    "expected \"{wanted}\",\n got \"{}\" (octet {at} differs)",
                    self.at_hand()
                ));
            }
            if got == expected.len() {
                self.buffer.drain(..got);
                return Ok(());
            }
            same = got;
            self.more(&format!("\"{}\"", escape(expected)))?;
        }
    }

    fn line(&mut self, wanted: &str) -> Result<Vec<u8>, String> {
        loop {
            if let Some(at) = crate::text::find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                line.truncate(at);
                return Ok(line);
            }
            self.more(&format!("line \"{wanted}\""))?;
        }
    }

    fn expect_lines(&mut self, patterns: &[String]) -> Result<(), String> {
        let mut any = false;
        for pattern in patterns {
            if pattern == "..." {
                any = true;
                continue;
            }
            loop {
                let line = self.line(pattern)?;
                if line_matches(pattern, &line)? {
                    break;
                }
                // Any lines, but not past the end of the field section.
                if !any || line.is_empty() {
                    let rest = self.at_hand();
                    return Err(format!(
                        "expected line \"{pattern}\",\n got \"{}\" before \"{rest}\"",
                        escape(&line)
                    ));
                }
            }
            any = false;
        }
        Ok(())
    }

    fn skip_to(&mut self, text: &[u8]) -> Result<(), String> {
        loop {
            if let Some(at) = crate::text::find(&self.buffer, text) {
                self.buffer.drain(..at + text.len());
                return Ok(());
            }
            self.more(&format!("\"{}\" to come", escape(text)))?;
        }
    }

    fn expect_close(&mut self) -> Result<(), String> {
        if self.buffer.is_empty()
            && !self.fill().map_err(|e| format!("expected an orderly close, got {e}"))?
        {
            return Ok(());
        }
        Err(format!("expected the peer to close, got \"{}\"", self.at_hand()))
    }

    fn expect_reset(&mut self) -> Result<(), String> {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Err("expected a reset, got an orderly close".into()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(e) => return Err(format!("expected a reset, got {e}")),
            }
        }
    }
}

/// `text` with `{NAME}` replaced by the address of that name.
fn named(text: &str, addresses: &HashMap<String, Address>) -> String {
    addresses.iter().fold(text.to_owned(), |text, (name, address)| match address {
        Address::Tcp(address) => text.replace(&format!("{{{name}}}"), &address.to_string()),
        Address::Unix(path) => text.replace(&format!("{{{name}}}"), &path.to_string_lossy()),
    })
}

fn parse(script: &str) -> Result<Vec<Peer>, String> {
    let mut peers: Vec<Peer> = Vec::new();
    let mut lines = script.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).peekable();
    while let Some((at, line)) = lines.next() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        let mistake = |why: &str| format!("script line {at}: {why}: \"{line}\"");
        if word == "client" || word == "server" {
            let mut names = rest.split_whitespace().take_while(|name| !name.starts_with('#'));
            let name = names.next().unwrap_or(word).to_owned();
            let role = match word {
                "client" => Role::Client { target: names.next().unwrap_or("target").to_owned() },
                _ => Role::Server { listener: None },
            };
            if names.next().is_some() || peers.iter().any(|peer| peer.name == name) {
                return Err(mistake("a peer needs one name of its own"));
            }
            peers.push(Peer { name, role, steps: Vec::new() });
            continue;
        }
        let peer = peers.last_mut().ok_or_else(|| mistake("a step before the first peer"))?;
        let mut block = Vec::new();
        if matches!(word, "send" | "expect") && (rest.is_empty() || rest.starts_with('#')) {
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with('|')) {
                block.push(line[1..].strip_prefix(' ').unwrap_or(&line[1..]).to_owned());
            }
            if block.is_empty() {
                return Err(mistake("neither a quoted text nor lines that start with |"));
            }
        }
        let step = if block.is_empty() {
            parse_step(word, rest, &peer.role).map_err(|why| mistake(&why))?
        } else if word == "send" {
            Step::Send(1, block.iter().map(|line| format!("{line}\\r\\n")).collect())
        } else {
            Step::ExpectLines(block)
        };
        peer.steps.push((at, step));
    }
    Ok(peers)
}

fn parse_step(word: &str, rest: &str, role: &Role) -> Result<Step, String> {
    let (count, text) = match rest.split_once(' ') {
        Some((count, text)) if count.bytes().all(|b| b.is_ascii_digit()) => (count.parse().ok(), text.trim()),
        _ => (None, rest),
    };
    let step = match word {
        "send" => Step::Send(count.unwrap_or(1), quoted(text)?),
        "send-slowly" => Step::SendSlowly(quoted(rest)?),
        "expect" => Step::Expect(quoted(rest)?),
        "skip-to" => Step::SkipTo(quoted(rest)?),
        "skip" => {
            let number = rest.split_whitespace().next().unwrap_or("");
            Step::Skip(number.parse().map_err(|_| "skip needs a number".to_owned())?)
        }
        "signal" | "await" => match rest.split_whitespace().next() {
            Some(name) if word == "signal" => Step::Signal(name.to_owned()),
            Some(name) => Step::Await(name.to_owned()),
            None => return Err("a signal needs a name".into()),
        },
        _ => {
            let step = match word {
                "expect-close" => Step::ExpectClose,
                "expect-reset" => Step::ExpectReset,
                "wait-for-close" => Step::WaitForClose,
                "close" => Step::Close,
                "half-close" => Step::HalfClose,
                "reset" => Step::Reset,
                "accept" if matches!(role, Role::Server { .. }) => Step::NextConnection,
                "connect" if matches!(role, Role::Client { .. }) => Step::NextConnection,
                _ => return Err("unknown step".into()),
            };
            if !rest.is_empty() && !rest.starts_with('#') {
                return Err("nothing may follow this step".into());
            }
            step
        }
    };
    Ok(step)
}

/// The inside of a quoted text, still escaped; what is wrong with it is said here and not while it runs.
fn quoted(text: &str) -> Result<String, String> {
    let inside = text.strip_prefix('"').ok_or("a text stands in double quotes")?;
    let mut escaped = false;
    let end = inside.find(|c| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    let end = end.ok_or("the text has no closing quote")?;
    let after = inside[end + 1..].trim();
    if !after.is_empty() && !after.starts_with('#') {
        return Err("something follows the closing quote".into());
    }
    unescape(&inside[..end])?;
    Ok(inside[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(script: &str) -> String {
        let run = || Stage::new(script).run();
        let panic = std::panic::catch_unwind(run).expect_err("the script should fail");
        panic.downcast_ref::<String>().expect("panics with a text").clone()
    }

    #[test]
    fn two_peers_talk() {
        let script = r#"
            # A whole exchange, with every kind of step.
            server origin
              expect                       # three lines
                | GET http://{origin}/ HTTP/1.1
                | ...
                | X: *z
                |
              signal asked
              send
                | HTTP/1.1 200 OK
                |
              send 3 "ab"
              expect "\x00\"q\" {origin}"
              half-close
              expect "bye"
              expect-close
              accept
              expect-reset
              accept
              await told
              close
            client c origin
              send "GET http://{origin}/ HTTP/1.1\r\nA: b\r\nC: d\r\nX: yz\r\n\r\n"
              await asked
              skip-to "OK\r\n\r\n"
              skip 4
              expect "ab"
              send-slowly "\0\"q\" {origin}"
              expect-close
              send "bye"
              close
              connect
              send "x"
              reset
              connect
              signal told
              wait-for-close
        "#;
        Stage::new(script).run();
    }

    #[test]
    fn a_client_of_a_unix_socket() {
        let folder = std::env::temp_dir().join(format!("eleven-testkit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| listener.accept().unwrap().0.write_all(b"hi").unwrap());
            play("client\n expect \"hi\"\n expect-close", Address::Unix(path.clone()));
        });
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn failures_name_the_line_and_what_came() {
        let got = failure("server s\n send \"abX\"\n close\nclient c s\n expect \"abc\"");
        assert!(got.contains("script line 5 (c)") && got.contains("got \"abX\" (octet 2 differs)"), "{got}");
        let got = failure("server s\n send \"A: b\\r\\n\\r\\n\"\nclient c s\n expect\n | ...\n | B: *");
        assert!(got.contains("script line 4 (c): expected line \"B: *\""), "{got}");
        let got = failure("server s\n send \"surplus\"\nclient c s\n expect-close");
        assert!(got.contains("expected the peer to close, got \"surplus\""), "{got}");
        let got = failure("server s\n send \"a\"\nclient c s\n expect \"ab\"");
        assert!(got.contains("the peer closed after \"a\""), "{got}");
        let got = failure("server s\n accept\n close\nclient c s\n expect-reset");
        assert!(got.contains("got an orderly close"), "{got}");
        // The failure of one peer ends the waiting of another, and is the one that is told.
        let got = failure(
            "server s\n accept\n await never\nclient c s\n send \"x\"\n expect-close\nclient d nowhere\n skip 1",
        );
        assert!(got.contains("no address is called nowhere"), "{got}");
    }

    #[test]
    fn mistakes_in_scripts() {
        for (script, why) in [
            ("send \"x\"", "before the first peer"),
            ("client\n sned \"x\"", "unknown step"),
            ("client\n accept", "unknown step"),
            ("server s\n connect", "unknown step"),
            ("client\n send x", "double quotes"),
            ("client\n send \"x", "no closing quote"),
            ("client\n send \"x\" y", "follows the closing quote"),
            ("client\n send \"\\q\"", "unknown escape"),
            ("client\n send", "neither a quoted text nor lines"),
            ("client\n close now", "nothing may follow"),
            ("client\n skip", "needs a number"),
            ("client\n signal", "needs a name"),
            ("client a b c", "one name"),
            ("client a\nclient a", "one name"),
        ] {
            let got = parse(script);
            assert!(
                got.as_ref().is_err_and(|e| e.contains(why) && e.contains("script line")),
                "{script}: {got:?}"
            );
        }
    }
}
