//! Change without loss, over the real binary: reloads and upgrades while clients keep connections alive and pipeline.
//! A client counts everything as a failure that RFC 9112 does not announce: a reset, an end without `Connection: close`
//! before it, an answer of the wrong kind. The long form is `eleven-benches soak`.

mod support;

use eleven_net::tls_config::{ClientConfig, ClientSettings, Trust};
use eleven_testkit::reader::{Reader, Response};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use support::{Folder, Server, WATCHDOG};

/// A server with a PID file, whatever process it is by now.
struct Site {
    folder: Folder,
    server: Server,
}

/// A configuration whose `/generation` says which one it is.
fn config(generation: usize, more: &str) -> String {
    format!(
        "pid_file = \"pid\"\nworkers = 2\n[log]\naccess = \"off\"\n[[site]]\nroot = \"www\"\n\
         [[site.route]]\npath = \"/generation\"\nfixed = {{ text = \"{generation}\" }}\n\
         [[site.route]]\npath = \"/debug\"\nstrip_prefix = true\necho = true\n{more}\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n"
    )
}

impl Site {
    fn start() -> Site {
        Site::start_with(&config(0, ""))
    }

    fn start_with(config: &str) -> Site {
        let folder = Folder::new();
        folder.write("www/page.txt", "page\n");
        folder.write("www/large.bin", vec![b'x'; 300_000]);
        let server = Server::configured(&folder, config.trim_end_matches(LISTENER));
        Site { folder, server }
    }

    fn pid_path(&self) -> PathBuf {
        self.folder.path().join("pid")
    }

    fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(self.pid_path()).ok()?.trim().parse().ok()
    }

    fn control(&self, command: &str) -> Output {
        let mut control = Command::new(env!("CARGO_BIN_EXE_eleven"));
        control.arg(command).arg("--pid-file").arg(self.pid_path());
        control.output().expect("the binary can be started")
    }

    fn configure(&self, text: &str) {
        // Whole or not at all, as an editor does it.
        let written = self.folder.write("new.toml", text);
        std::fs::rename(written, self.folder.path().join("eleven.toml")).expect("files can be renamed");
    }

    /// Reads a configuration anew, and waits until it is in force in every worker.
    fn reload(&self, generation: usize, more: &str) {
        self.configure(&config(generation, more));
        let control = self.control("reload");
        assert!(control.status.success(), "{control:?}");
        self.await_generation(generation);
    }

    fn await_generation(&self, generation: usize) {
        // Each connection meets one of two workers; so many in a row are not chance.
        let (started, mut in_a_row) = (Instant::now(), 0);
        while in_a_row < 20 {
            let same = self.server.get("/generation").body == generation.to_string().as_bytes();
            in_a_row = if same { in_a_row + 1 } else { 0 };
            assert!(started.elapsed() < WATCHDOG, "generation {generation} does not come into force");
        }
    }

    fn upgrade(&self) -> u32 {
        let before = self.pid();
        let control = self.control("upgrade");
        assert!(control.status.success(), "{control:?}");
        let now = self.pid().expect("the new process wrote its number");
        assert_ne!(Some(now), before);
        now
    }
}

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n";

impl Drop for Site {
    fn drop(&mut self) {
        // Processes that took over are nobody's children here.
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

/// Asks without end until told to stop. Requests answered; the first thing that went wrong.
fn keep_asking(
    address: SocketAddr,
    batch: usize,
    stop: &AtomicBool,
    asked: &AtomicU64,
) -> Result<(), String> {
    const PATHS: [(&str, usize); 3] =
        [("/page.txt", 5), ("/large.bin", 300_000), ("/debug/bytes/1000", 1000)];
    let connect = || -> Result<_, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(WATCHDOG)).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Reader::new(stream))
    };
    let mut reader = connect()?;
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let wanted: Vec<_> = (0..batch).map(|n| PATHS[(at + n) % PATHS.len()]).collect();
        let wire: String = wanted
            .iter()
            .map(|(path, _)| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .collect();
        reader.get_mut().write_all(wire.as_bytes()).map_err(|error| format!("send: {error}"))?;
        let mut closes = false;
        for (path, length) in wanted {
            let response: Response =
                reader.response("GET").map_err(|fault| format!("{path} in a batch of {batch}: {fault}"))?;
            if response.status != 200 || response.body.len() != length {
                return Err(format!("{path}: {} with {} octets", response.status, response.body.len()));
            }
            closes = response.says_close();
            asked.fetch_add(1, Ordering::Relaxed);
        }
        at += 1;
        if closes {
            reader.end().map_err(|fault| format!("after Connection: close: {fault}"))?;
            reader = connect()?;
        }
    }
    Ok(())
}

/// Fault F33.
#[test]
fn nothing_is_lost_over_reloads_and_upgrades_under_load() {
    let mut site = Site::start();
    let address = site.server.address;
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let failures: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = [1, 1, 1, 8]
            .into_iter()
            .map(|batch| {
                let (stop, asked) = (&stop, &asked);
                scope.spawn(move || keep_asking(address, batch, stop, asked))
            })
            .collect();
        let change = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..2 {
                for generation in 1..=4 {
                    site.reload(round * 10 + generation, "");
                }
                site.upgrade();
            }
            // The first process ends once it has nothing left.
            assert_eq!(site.server.wait(), Some(0));
            let before = asked.load(Ordering::Relaxed);
            let started = Instant::now();
            while asked.load(Ordering::Relaxed) < before + 100 {
                assert!(started.elapsed() < WATCHDOG, "nobody is served after the upgrades");
                std::thread::yield_now();
            }
        }));
        stop.store(true, Ordering::Relaxed);
        let failures =
            clients.into_iter().filter_map(|client| client.join().expect("no panic").err()).collect();
        if let Err(panic) = change {
            std::panic::resume_unwind(panic);
        }
        failures
    });
    assert!(failures.is_empty(), "{failures:#?} after {} requests", asked.load(Ordering::Relaxed));
}

/// Fault F34.
#[test]
fn what_runs_and_what_lies_idle_outlives_an_upgrade() {
    let mut site = Site::start();
    let mut idle = Reader::new(site.server.connect());
    idle.get_mut().write_all(b"GET /page.txt HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(!idle.response("GET").unwrap().says_close());
    // The beginning of its response has come: it runs.
    let mut running = Reader::new(site.server.connect());
    running
        .get_mut()
        .write_all(b"POST /debug/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        .unwrap();
    let first = site.server.pid();
    let second = site.upgrade();
    assert_ne!(first, second);
    // New connections meet the new process, which lets them live.
    assert!(!site.server.get("/page.txt").says_close());
    // The idle one has a last exchange with the old process.
    idle.get_mut().write_all(b"GET /page.txt HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(idle.response("GET").unwrap().says_close());
    idle.end().unwrap();
    running.get_mut().write_all(b"cd").unwrap();
    let response = running.response("POST").unwrap();
    assert_eq!((response.status, &*response.body), (200, &b"abcd"[..]));
    assert!(response.says_close());
    running.end().unwrap();
    assert_eq!(site.server.wait(), Some(0), "it had nothing left");
    assert_eq!(site.pid(), Some(second), "and left the new process's file alone");
}

/// A server that speaks another protocol: after a request to switch to it, or from the first octet if it is reached by
/// CONNECT. Whatever it is told it says again, `bye` ends the connection, and so does the end of the other side.
fn repeater() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || repeat(stream.unwrap()));
        }
    });
    address
}

fn repeat(mut stream: TcpStream) {
    let mut octets = [0; 1000];
    loop {
        let count = stream.read(&mut octets).unwrap_or(0);
        if count == 0 || octets.starts_with(b"bye") {
            return;
        }
        // Heads are short enough to come in one piece from a gateway that sends them in one.
        let answer: &[u8] = if octets.starts_with(b"GET ") {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        } else {
            &octets[..count]
        };
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// A gateway and a forward proxy to the repeater, and what else is asked of the upstream.
fn tunnels_to(repeater: SocketAddr, timeouts: &str) -> String {
    format!(
        "[[site.route]]\npath = \"/socket\"\nproxy = {{ upstream = \"repeater\" }}\n\
         [[site]]\nnames = \"127.0.0.1\"\n[[site.route]]\n\
         forward = {{ destinations = [\"127.0.0.0/8\"], connect_ports = [{}] }}\n\
         [[upstream]]\nname = \"repeater\"\nservers = [\"http://{repeater}\"]\n{timeouts}\n",
        repeater.port()
    )
}

/// A connection that speaks the repeater's protocol, after a switch.
fn switched<S: Read + Write>(stream: S) -> Reader<S> {
    let mut reader = Reader::new(stream);
    let head =
        b"GET /socket HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    reader.get_mut().write_all(head).unwrap();
    assert_eq!(reader.response("GET").unwrap().status, 101);
    reader
}

/// A connection to the repeater by CONNECT.
fn connected(stream: TcpStream, repeater: SocketAddr) -> Reader<TcpStream> {
    let mut reader = Reader::new(stream);
    let head = format!("CONNECT {repeater} HTTP/1.1\r\nHost: {repeater}\r\n\r\n");
    reader.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(reader.response("CONNECT").unwrap().status, 200);
    reader
}

/// That a tunnel leads there and back.
#[track_caller]
fn flows<S: Read + Write>(tunnel: &mut Reader<S>, text: &str) {
    tunnel.get_mut().write_all(text.as_bytes()).unwrap();
    tunnel.get_mut().flush().unwrap();
    assert_eq!(tunnel.exactly(text.len()).unwrap(), text.as_bytes());
}

/// Fault F34: tunnels keep flowing over a reload that takes their route away and over an upgrade, and end by their own
/// end, from either side. The old process ends with the last of them.
#[test]
fn tunnels_outlive_a_reload_and_an_upgrade() {
    let repeater = repeater();
    let mut site = Site::start_with(&config(1, &tunnels_to(repeater, "")));
    let mut socket = switched(site.server.connect());
    let mut tunnel = connected(site.server.connect(), repeater);
    let mut both = |text: &str| {
        flows(&mut socket, text);
        flows(&mut tunnel, text);
    };
    both("at the start");
    site.reload(2, "");
    both("after a reload without their routes");
    assert_eq!(site.server.get("/socket").status, 404, "nobody gets there any more");
    site.configure(&config(3, &tunnels_to(repeater, "")));
    let second = site.upgrade();
    for _ in 0..20 {
        assert_eq!(site.server.get("/generation").body, b"3", "new connections meet the new process");
    }
    both("in the old process, after an upgrade");
    flows(&mut switched(site.server.connect()), "in the new process");
    flows(&mut connected(site.server.connect(), repeater), "in the new process");
    // One is ended by the client, whose end goes through and comes back; the other one by the server.
    socket.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    socket.end().unwrap();
    flows(&mut tunnel, "after the other one has ended");
    assert!(site.server.is_running(), "the old process has a tunnel left");
    tunnel.get_mut().write_all(b"bye").unwrap();
    tunnel.end().unwrap();
    drop(tunnel);
    assert_eq!(site.server.wait(), Some(0));
    assert_eq!(site.pid(), Some(second));
}

/// A tunnel that nobody ends is ended by its own limit in the old process, and by `drain_timeout` and `stop_timeout` if it
/// never falls silent.
#[test]
fn a_tunnel_that_does_not_end_does_not_keep_the_old_process() {
    let repeater = repeater();
    for (process, timeouts) in [
        ("", "[upstream.timeouts]\ntunnel_idle = \"1s\""),
        ("drain_timeout = \"1ms\"\nstop_timeout = \"1ms\"\n", ""),
    ] {
        let config = format!("{process}{}", config(1, &tunnels_to(repeater, timeouts)));
        let mut site = Site::start_with(&config);
        let mut tunnel = switched(site.server.connect());
        site.upgrade();
        assert_eq!(site.server.wait(), Some(0), "{timeouts}{process}");
        // In order or with a reset: whoever held it is gone.
        let _ = tunnel.end();
        assert_eq!(site.server.get("/generation").body, b"1");
    }
}

/// A connection with TLS, after its handshake.
fn secured(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let name = "localhost".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(client.clone(), name).expect("a client");
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
    let mut stream = rustls::StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).expect("a handshake");
    }
    stream
}

/// Fault F34: with TLS, too. What lies idle has a last exchange with the old process and is ended by a close_notify
/// (9112-9.8-03), a tunnel flows on, and the new process shakes hands, also with whoever brings a ticket of the old one.
#[test]
fn connections_with_tls_outlive_an_upgrade() {
    let folder = Folder::new();
    folder.write("www/page.txt", "page\n");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    folder.write("key.pem", made.signing_key.serialize_pem());
    let trusted = folder.write("certificate.pem", made.cert.pem());
    let settings = ClientSettings { trust: Trust::Files(vec![trusted]), ..ClientSettings::default() };
    let client = settings.build().expect("settings of a client");
    let repeater = repeater();
    // Two listeners by the same words: each finds its own socket again.
    let text = format!(
        "pid_file = \"pid\"\nworkers = 2\n[log]\naccess = \"off\"\n[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n\
         [[site]]\nroot = \"www\"\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n{}",
        tunnels_to(repeater, "")
    );
    let server = Server::configured(&folder, &text);
    let mut site = Site { folder, server };
    let address = site.server.secured.expect("it listens with TLS");
    let ask = |reader: &mut Reader<_>| {
        let stream: &mut rustls::StreamOwned<rustls::ClientConnection, TcpStream> = reader.get_mut();
        stream.write_all(b"GET /page.txt HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        reader.response("GET").unwrap()
    };
    let mut idle = Reader::new(secured(address, &client));
    assert!(!ask(&mut idle).says_close());
    let mut unasked = Reader::new(secured(address, &client));
    let mut socket = switched(secured(address, &client));
    flows(&mut socket, "before");
    site.upgrade();
    for _ in 0..10 {
        let mut new = Reader::new(secured(address, &client));
        let response = ask(&mut new);
        assert_eq!((response.status, response.says_close()), (200, false));
    }
    flows(&mut socket, "in the old process");
    for reader in [&mut idle, &mut unasked] {
        let response = ask(reader);
        assert_eq!((&*response.body, response.says_close()), (&b"page\n"[..], true));
        // Without a close_notify this is an error of the reader.
        reader.end().unwrap();
    }
    assert!(site.server.is_running(), "the old process has a tunnel left");
    socket.get_mut().write_all(b"bye").unwrap();
    socket.end().unwrap();
    drop(socket);
    assert_eq!(site.server.wait(), Some(0));
}

/// Faults F32 and F35.
#[test]
fn an_upgrade_that_fails_leaves_the_old_process_serving() {
    let mut site = Site::start();
    let before = site.pid();
    site.configure("[[site]]\nroot = \"nowhere\"\n");
    let control = site.control("upgrade");
    assert!(!control.status.success());
    let said = String::from_utf8_lossy(&control.stderr).into_owned();
    assert!(said.contains("goes on"), "{said}");
    assert_eq!(site.pid(), before);
    assert_eq!(site.server.get("/page.txt").status, 200);
    // A wrong configuration is refused by a reload, too, and a right one is taken after it.
    site.server.signal("HUP");
    assert_eq!(site.server.get("/page.txt").status, 200);
    site.reload(1, "");
    site.upgrade();
    assert_eq!(site.server.wait(), Some(0));
    assert_eq!(site.server.get("/generation").body, b"1");
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    let site = Site::start();
    let socket = site.folder.path().join("second.sock");
    assert!(UnixStream::connect(&socket).is_err());
    site.reload(1, "[[listener]]\naddress = \"unix:second.sock\"\n");
    let mut second = Reader::new(UnixStream::connect(&socket).expect("listens now"));
    let ask = |reader: &mut Reader<UnixStream>| {
        reader.get_mut().write_all(b"GET /generation HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        reader.response("GET").unwrap()
    };
    assert_eq!(ask(&mut second).body, b"1");
    // It is handed over, too.
    site.upgrade();
    let mut third = Reader::new(UnixStream::connect(&socket).expect("listens still"));
    assert_eq!(ask(&mut third).body, b"1");
    // An address that cannot be bound changes nothing.
    site.configure(&config(2, "[[listener]]\naddress = \"unix:www\"\n"));
    assert!(site.control("reload").status.success());
    assert_eq!(site.server.get("/generation").body, b"1");
    site.reload(3, "");
    let started = Instant::now();
    while socket.exists() {
        assert!(started.elapsed() < WATCHDOG, "the socket that is given up stays");
        std::thread::yield_now();
    }
    assert!(UnixStream::connect(&socket).is_err());
    // Whoever came by it is served on.
    assert_eq!(ask(&mut third).body, b"3");
    drop(second);
}

#[test]
fn the_service_manager_passes_sockets_and_is_told() {
    let folder = Folder::new();
    folder.write("page.txt", "page\n");
    let path = folder.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A shell plays the manager: it puts the socket at descriptor 3 and keeps its number.
    let mut child = Command::new("sh")
        .arg("-c")
        .arg("exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$0\" serve . --quiet --listen fd:web")
        .arg(env!("CARGO_BIN_EXE_eleven"))
        .current_dir(folder.path())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000")
        .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let expect = |wanted: &str| {
        let mut text = [0; 512];
        loop {
            let count = manager.recv(&mut text).expect("the manager is told");
            if String::from_utf8_lossy(&text[..count]).contains(wanted) {
                return;
            }
        }
    };
    expect("READY=1");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /page.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("page\n"), "{answer}");
    expect("WATCHDOG=1");
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    expect("STOPPING=1");
    assert_eq!(support::wait(&mut child), Some(0));
}

#[test]
fn a_pid_file_is_not_taken_from_a_process_that_runs() {
    let site = Site::start();
    let second = Command::new(env!("CARGO_BIN_EXE_eleven"))
        .args(["serve", "--quiet", "--listen", "127.0.0.1:0", "--pid-file"])
        .arg(site.pid_path())
        .arg(site.folder.path())
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("runs"), "{second:?}");
    assert_eq!(site.pid(), Some(site.server.pid()));
    // And what is asked of nobody is refused.
    let nobody = Command::new(env!("CARGO_BIN_EXE_eleven")).args(["reload"]).output().unwrap();
    assert!(!nobody.status.success());
    let gone =
        Command::new(env!("CARGO_BIN_EXE_eleven")).args(["upgrade", "--pid", "4194304"]).output().unwrap();
    assert!(!gone.status.success());
}

/// The lines `Uid`, `Gid`, `Groups` and the like of a thread.
fn status(path: &str, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of the status");
    line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect()
}

#[test]
fn root_is_given_up_and_workers_are_confined() {
    let folder = Folder::new();
    folder.write("www/page.txt", "page\n");
    folder.write("secret.txt", "secret\n");
    let www = folder.path().join("www");
    let is_root = status("/proc/self/status", "Uid")[1] == "0";
    let mut args = vec!["serve", www.to_str().unwrap(), "--workers", "2"];
    if is_root {
        args.extend(["--user", "nobody"]);
    } else {
        eprintln!("not root: what becomes of root is not shown");
    }
    let server = Server::start(&args);
    assert_eq!(server.get("/page.txt").status, 200);
    let process = format!("/proc/{}/status", server.pid());
    if is_root {
        // Every thread, every kind of number, and nothing of root's groups.
        for task in std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap() {
            let path = task.unwrap().path().join("status");
            let path = path.to_str().unwrap();
            for name in ["Uid", "Gid"] {
                let numbers = status(path, name);
                assert!(
                    numbers.iter().all(|number| *number == numbers[0] && number != "0"),
                    "{name} {numbers:?}"
                );
            }
            assert!(!status(path, "Groups").contains(&"0".to_owned()));
            assert_eq!(status(path, "CapEff"), ["0000000000000000"]);
        }
    }
    // The first thread is free, the workers are not: no thread of theirs may gain anything.
    assert_eq!(status(&process, "NoNewPrivs"), ["0"]);
    let confined = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap().filter(|task| {
        let task = task.as_ref().unwrap().path();
        let name = std::fs::read_to_string(task.join("comm")).unwrap();
        name.starts_with("worker-") && status(task.join("status").to_str().unwrap(), "NoNewPrivs") == ["1"]
    });
    assert_eq!(confined.count(), 2);
}

#[test]
fn a_plan_beyond_the_confinement_waits_for_an_upgrade() {
    let mut site = Site::start();
    let elsewhere = Folder::new();
    elsewhere.write("there.txt", "there\n");
    let more = format!(
        "[[site.route]]\npath = \"/elsewhere\"\nstrip_prefix = true\nfiles = {{ root = \"{}\" }}\n",
        elsewhere.path().display()
    );
    site.configure(&config(5, &more));
    assert!(site.control("reload").status.success());
    // A root beneath the old ones is taken; the refusal before it changed nothing.
    let beneath = "[[site.route]]\npath = \"/beneath\"\nstrip_prefix = true\nfiles = { root = \"www\" }\n";
    site.reload(6, beneath);
    assert_eq!(site.server.get("/elsewhere/there.txt").status, 404);
    assert_eq!(site.server.get("/beneath/page.txt").status, 200);
    site.configure(&config(7, &more));
    site.upgrade();
    assert_eq!(site.server.wait(), Some(0));
    assert_eq!(site.server.get("/elsewhere/there.txt").body, b"there\n");
}

#[test]
fn a_cache_on_disk_goes_to_the_new_process() {
    let folder = Folder::new();
    folder.write("www/page.txt", "stored\n");
    let origin = Server::serve(&folder.path().join("www"), &[]);
    let config = |root: &str| {
        format!(
            "pid_file = \"pid\"\nworkers = 1\n[log]\naccess = \"off\"\n[cache]\ndirectory = \"cache\"\nx_cache = true\n\
             [[site]]\ncache_control = \"max-age=1000\"\n[[site.route]]\n\
             proxy = {{ upstream = \"http://{}\", cache = true }}\n[[site.route]]\npath = \"/files\"\n\
             files = {{ root = \"{root}\" }}\n",
            origin.address
        )
    };
    let server = Server::configured(&folder, &config("www"));
    let site = Site { folder, server };
    assert_eq!(site.server.get("/page.txt").status, 200);
    // A new process that fails gives the store back, and one that serves has it.
    site.configure(&format!("{}\n{LISTENER}", config("nowhere")));
    assert!(!site.control("upgrade").status.success());
    assert_eq!(site.server.get("/page.txt").body, b"stored\n");
    site.configure(&format!("{}\n{LISTENER}", config("www")));
    site.upgrade();
    assert_eq!(site.server.get("/page.txt").body, b"stored\n");
    assert!(site.folder.path().join("cache/lock").exists());
}

#[test]
fn a_health_check_says_yes_or_no() {
    let folder = Folder::new();
    folder.write("index.html", "home\n");
    let server = Server::serve(folder.path(), &[]);
    let check = |url: &str| {
        let done =
            Command::new(env!("CARGO_BIN_EXE_eleven")).args(["healthcheck", "--timeout", "20", url]).output();
        let done = done.expect("the binary can be started");
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert_eq!(check(&format!("http://{}/", server.address)), (Some(0), String::new()));
    let (code, why) = check(&format!("http://{}/absent", server.address));
    assert!(code == Some(1) && why.contains("404"), "{code:?} {why}");
    let address = server.address;
    drop(server);
    assert_eq!(check(&format!("http://{address}/")).0, Some(1), "nobody is there");
}
