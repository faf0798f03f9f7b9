//! The loads: `wrk` for requests by the second, and our own for large files, held connections and slow heads.
//! Each gives numbers and fails on any answer that is not the expected one; none judges the numbers.

use crate::process::{LOAD_CORE, Program};
use eleven_net::tls_config::{ClientConfig, ClientSettings, Trust};
use eleven_testkit::reader::Reader;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{AddressFamily, RecvFlags, SocketType};
use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a run of `wrk` showed.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Requests answered in a second.
    pub requests_per_s: f64,
    /// CPU time of the measured program for a request.
    pub cpu_us: f64,
    /// Requests answered.
    pub requests: f64,
    /// Errors that wrk saw. Ours end the run; others' are shown beside their figures.
    pub errors: u64,
}

/// How `wrk` asks.
#[derive(Debug, Clone)]
pub struct Asking<'a> {
    /// Request target.
    pub path: &'a str,
    /// Connections held at a time.
    pub connections: u32,
    /// Field lines besides Host.
    pub fields: &'a [&'a str],
    /// A script for wrk, for pipelining.
    pub script: Option<&'a Path>,
    /// Length of the run.
    pub seconds: u32,
}

/// One run of wrk against `program`.
///
/// # Errors
/// When wrk cannot run, or any answer of ours is an error.
pub fn wrk(program: &Program, asking: &Asking) -> Result<Rate, String> {
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "wrk", "-t1", "-c", &asking.connections.to_string()]);
    command.args(["-d", &format!("{}s", asking.seconds)]);
    for field in asking.fields {
        command.args(["-H", field]);
    }
    if let Some(script) = asking.script {
        command.arg("-s").arg(script);
    }
    command.arg(format!("http://{}{}", program.address(), asking.path));
    let before = program.cpu_s();
    let started = Instant::now();
    let out = command.output().map_err(|e| format!("cannot run wrk: {e}"))?;
    let (cpu_s, wall_s) = (program.cpu_s() - before, started.elapsed().as_secs_f64());
    let text = String::from_utf8_lossy(&out.stdout);
    let requests = text
        .lines()
        .find_map(|line| line.split_once(" requests in "))
        .and_then(|(count, _)| count.trim().parse::<f64>().ok())
        .filter(|count| *count > 0.0)
        .ok_or_else(|| format!("{}: wrk counted nothing: {text}", program.name))?;
    let errors = errors(&text);
    if errors > 0 && program.is_ours() {
        return Err(format!("{}: wrk saw errors: {text}", program.name));
    }
    Ok(Rate { requests_per_s: requests / wall_s, cpu_us: cpu_s * 1e6 / requests, requests, errors })
}

/// What wrk counted of answers that were none: `Non-2xx or 3xx responses: 3`, `Socket errors: connect 0, read 0, write 0,
/// timeout 8`.
fn errors(text: &str) -> u64 {
    let told = text.lines().filter(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    told.flat_map(|line| line.split([' ', ','])).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Fetches `path` once, with the Host among `fields` if there is one, and checks status and length.
///
/// # Errors
/// When the answer is not a 200 of `body_bytes`.
pub fn check(program: &Program, path: &str, fields: &[&str], body_bytes: usize) -> Result<(), String> {
    let mut reader = Reader::new(connect(program)?);
    let host = fields.iter().find_map(|field| field.strip_prefix("Host: ")).unwrap_or("localhost");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))?;
    let response = reader.response("GET")?;
    if response.status != 200 || response.body.len() != body_bytes {
        let got = (response.status, response.body.len());
        return Err(format!("{} answers {path} with {got:?}, not 200 and {body_bytes} octets", program.name));
    }
    Ok(())
}

/// Reads `path` of `body_bytes` `times` on one connection without copying it out of the kernel; returns the
/// program's CPU seconds for a GiB, and the GiB read in a second.
///
/// # Errors
/// When an answer is cut short or not a 200.
pub fn large_file(program: &Program, path: &str, body_bytes: u64, times: u32) -> Result<(f64, f64), String> {
    let mut stream = connect(program)?;
    let (before, started) = (program.cpu_s(), Instant::now());
    for _ in 0..times {
        ask(&mut stream, path)?;
        skip_head(&mut stream)?;
        discard(&stream, body_bytes)?;
    }
    let gib = (body_bytes * u64::from(times)) as f64 / f64::from(1u32 << 30);
    Ok(((program.cpu_s() - before) / gib, gib / started.elapsed().as_secs_f64()))
}

/// Octet by octet, so that nothing of the body is taken; heads are short.
fn skip_head(stream: &mut TcpStream) -> Result<(), String> {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet).map_err(|e| format!("no head: {e}"))?;
        head.push(octet[0]);
    }
    if head.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(eleven_testkit::text::escape(&head)) }
}

fn discard(stream: &TcpStream, mut len: u64) -> Result<(), String> {
    let mut room = vec![0; 1 << 20];
    while len > 0 {
        let wanted = len.min(room.len() as u64) as usize;
        // TRUNC on a TCP socket drops the octets instead of copying them.
        let (_, got) = rustix::net::recv(stream, &mut room[..wanted], RecvFlags::TRUNC)
            .map_err(|e| format!("read: {e}"))?;
        if got == 0 {
            return Err(format!("the body ended {len} octets early"));
        }
        len -= got as u64;
    }
    Ok(())
}

/// Resident octets that the program grows by for each of `count` connections that have had one answer and
/// are idle.
///
/// # Errors
/// When a connection is refused or answered wrongly.
pub fn idle_connections(program: &Program, path: &str, count: usize) -> Result<f64, String> {
    // What the first connections allocate once is not the price of a connection.
    let _few = hold(program, path, 100)?;
    let before = program.resident_bytes();
    let held = hold(program, path, count)?;
    std::thread::sleep(Duration::from_millis(500));
    let after = program.resident_bytes();
    drop(held);
    Ok((after as f64 - before as f64) / count as f64)
}

fn hold(program: &Program, path: &str, count: usize) -> Result<Vec<Reader<TcpStream>>, String> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut reader = Reader::new(connect(program)?);
        ask(reader.get_mut(), path)?;
        if reader.response("GET")?.status != 200 {
            return Err(format!("{}: not a 200", program.name));
        }
        held.push(reader);
    }
    Ok(held)
}

/// Asks for `path` on `count` connections at once, and reads every answer.
///
/// # Errors
/// When any answer is not a 200 of `body_bytes`.
pub fn at_once(program: &Program, path: &str, count: usize, body_bytes: usize) -> Result<(), String> {
    let mut readers = Vec::with_capacity(count);
    for _ in 0..count {
        readers.push(Reader::new(connect(program)?));
    }
    for reader in &mut readers {
        ask(reader.get_mut(), path)?;
    }
    for reader in &mut readers {
        let response = reader.response("GET")?;
        if (response.status, response.body.len()) != (200, body_bytes) {
            let got = (response.status, response.body.len());
            return Err(format!("{} answers {path} with {got:?}", program.name));
        }
    }
    Ok(())
}

/// As [`idle_connections`], over TLS.
///
/// # Errors
/// As [`idle_connections`].
pub fn idle_tls_connections(program: &Program, path: &str, count: usize) -> Result<f64, String> {
    let settings = ClientSettings { trust: Trust::Anybody, ..ClientSettings::default() };
    let config = settings.build().map_err(|e| e.to_string())?;
    let _few = hold_tls(program, path, 100, &config)?;
    let before = program.resident_bytes();
    let held = hold_tls(program, path, count, &config)?;
    std::thread::sleep(Duration::from_millis(500));
    let after = program.resident_bytes();
    drop(held);
    Ok((after as f64 - before as f64) / count as f64)
}

type TlsReader = Reader<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>;

fn hold_tls(
    program: &Program,
    path: &str,
    count: usize,
    config: &Arc<ClientConfig>,
) -> Result<Vec<TlsReader>, String> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let name = "localhost".try_into().expect("a name");
        let tls = rustls::ClientConnection::new(config.clone(), name).map_err(|e| e.to_string())?;
        let mut reader = Reader::new(rustls::StreamOwned::new(tls, connect(program)?));
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        reader.get_mut().write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))?;
        if reader.response("GET")?.status != 200 {
            return Err(format!("{}: not a 200", program.name));
        }
        held.push(reader);
    }
    Ok(held)
}

/// Resident octets that the program grows by for each of `count` clients that ask for `path` and read nothing of the
/// answer.
///
/// # Errors
/// When a connection is refused.
pub fn unreading(program: &Program, path: &str, count: usize) -> Result<f64, String> {
    let before = program.resident_bytes();
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = connect(program)?;
        // The kernel's share stays small, so that the program's is reached soon.
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 16 * 1024).map_err(|e| e.to_string())?;
        ask(&mut stream, path)?;
        held.push(stream);
    }
    // Until it has taken in what it will: it does not grow for three looks in a row.
    let (mut most, mut quiet) = (0, 0);
    for _ in 0..60 {
        std::thread::sleep(Duration::from_secs(1));
        let now = program.resident_bytes();
        quiet = if now > most + 64 * 1024 { 0 } else { quiet + 1 };
        most = most.max(now);
        if quiet == 3 {
            break;
        }
    }
    let after = program.resident_bytes();
    drop(held);
    Ok((after as f64 - before as f64) / count as f64)
}

/// Small messages through tunnels: each of `count` connections switches protocols, then sends 32 octets and waits until
/// they have come back, for so many seconds.
///
/// # Errors
/// When a connection does not switch, or ends.
pub fn messages(program: &Program, count: usize, seconds: u32) -> Result<Rate, String> {
    const MESSAGE: [u8; 32] = [0x5a; 32];
    let text_of = |e: rustix::io::Errno| e.to_string();
    let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(text_of)?;
    let mut streams = Vec::with_capacity(count);
    for at in 0..count {
        let mut stream = connect(program)?;
        let request =
            b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request).map_err(|e| format!("write: {e}"))?;
        let mut head = Vec::new();
        let mut octet = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut octet).map_err(|e| format!("{}: no head: {e}", program.name))?;
            head.push(octet[0]);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("{}: {}", program.name, eleven_testkit::text::escape(&head)));
        }
        epoll::add(&epoll, &stream, EventData::new_u64(at as u64), EventFlags::IN).map_err(text_of)?;
        stream.write_all(&MESSAGE).map_err(|e| format!("write: {e}"))?;
        streams.push((stream, 0));
    }
    let (before, started) = (program.cpu_s(), Instant::now());
    let mut echoed = 0u64;
    let mut events = Vec::with_capacity(count);
    let mut room = [0; 256];
    while started.elapsed() < Duration::from_secs(seconds.into()) {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).map_err(text_of)?;
        for event in &events {
            let (stream, got) = &mut streams[event.data.u64() as usize];
            *got += match stream.read(&mut room) {
                Ok(0) => return Err(format!("{}: a tunnel ended", program.name)),
                Ok(read) => read,
                Err(e) => return Err(format!("{}: read: {e}", program.name)),
            };
            if *got >= MESSAGE.len() {
                *got = 0;
                echoed += 1;
                stream.write_all(&MESSAGE).map_err(|e| format!("write: {e}"))?;
            }
        }
    }
    let (cpu_s, wall_s) = (program.cpu_s() - before, started.elapsed().as_secs_f64());
    let requests = echoed.max(1) as f64;
    Ok(Rate { requests_per_s: echoed as f64 / wall_s, cpu_us: cpu_s * 1e6 / requests, requests, errors: 0 })
}

/// The 99th percentile of honest requests, each on a new connection, in milliseconds: unloaded, and while
/// `count` connections send one octet of a head each second.
///
/// # Errors
/// When an honest request is refused or fails.
pub fn slow_heads(program: &Program, path: &str, count: usize, honest: usize) -> Result<(f64, f64), String> {
    let unloaded = honest_p99_ms(program, path, honest)?;
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    // On the core of the honest client, and only when that has nothing to do: what is measured is the program.
    let mut attack = Command::new("chrt")
        .args(["--idle", "0"])
        .arg(own)
        .args(["drip", &program.port.to_string(), &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run chrt: {e}"))?;
    let mut told = String::new();
    let begun = attack.stdout.take().map(|out| std::io::BufReader::new(out).read_line(&mut told));
    let loaded = match begun {
        Some(Ok(1..)) => honest_p99_ms(program, path, honest),
        _ => Err("the attack did not begin".to_owned()),
    };
    let _ = attack.kill().and_then(|()| attack.wait());
    Ok((unloaded, loaded?))
}

fn honest_p99_ms(program: &Program, path: &str, count: usize) -> Result<f64, String> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        let mut reader = Reader::new(connect(program)?);
        ask(reader.get_mut(), path)?;
        if reader.response("GET")?.status != 200 {
            return Err(format!("{}: an honest request was refused", program.name));
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[count * 99 / 100])
}

/// Keeps `count` connections dripping until it is killed, and opens a new one for each that the server closes. Says so once
/// they are all there.
///
/// # Errors
/// When there cannot be so many.
pub fn drip(port: u16, count: usize) -> Result<(), String> {
    let head: Vec<u8> = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(4000)).into_bytes();
    let text_of = |e: rustix::io::Errno| e.to_string();
    let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(text_of)?;
    let mut dripping: Vec<Option<(TcpStream, usize)>> = Vec::with_capacity(count);
    let open = |at: usize| -> Result<Option<(TcpStream, usize)>, String> {
        let Ok(stream) = connect_from(ATTACKER, port) else { return Ok(None) };
        stream.set_nonblocking(true).map_err(|e| e.to_string())?;
        let data = EventData::new_u64(at as u64);
        epoll::add(&epoll, &stream, data, EventFlags::RDHUP | EventFlags::HUP).map_err(text_of)?;
        Ok(Some((stream, 0)))
    };
    for at in 0..count {
        dripping.push(open(at)?);
    }
    println!("dripping");
    let mut events = Vec::with_capacity(1024);
    loop {
        let second = Instant::now();
        // In slices of a millisecond: clients that know nothing of each other do not send together, and hundreds of octets at
        // once would be a millisecond of work for any server.
        for (slice, part) in (0..count).collect::<Vec<_>>().chunks(count.div_ceil(1000)).enumerate() {
            events.clear();
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)).map_err(text_of)?;
            for event in &events {
                let at = event.data.u64() as usize;
                dripping[at] = None;
                dripping[at] = open(at)?;
            }
            for &at in part {
                if let Some((stream, sent)) = &mut dripping[at] {
                    let octet = *sent % head.len();
                    *sent += usize::from(stream.write(&head[octet..=octet]).is_ok());
                } else {
                    dripping[at] = open(at)?;
                }
            }
            let due = Duration::from_millis(slice as u64 + 1);
            std::thread::sleep(due.saturating_sub(second.elapsed()));
        }
    }
}

/// Where the attack comes from. From the honest client's own address it would use up half of the ports that lead to this
/// server, and the honest client's kernel would look for a free one for most of a millisecond.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn connect_from(address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    // Ports that were bound are nobody else's: none is to be left behind in TIME_WAIT.
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::bind(&socket, &SocketAddrV4::new(address, 0))?;
    rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    Ok(socket.into())
}

/// Connects, with a limit of time for each read.
///
/// # Errors
/// When it cannot.
pub fn connect(program: &Program) -> Result<TcpStream, String> {
    let stream =
        TcpStream::connect(program.address()).map_err(|e| format!("{}: connect: {e}", program.name))?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|e| e.to_string())?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

fn ask(stream: &mut TcpStream, path: &str) -> Result<(), String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))
}
