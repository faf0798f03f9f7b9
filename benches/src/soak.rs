//! The soak: a server in front of two others, under load by keep-alive, pipelining and TLS clients, while everything about it
//! is changed: configurations read anew, certificates exchanged, origin servers restarted, the server itself replaced
//! by another process. A client counts as a failure whatever HTTP does not announce: a reset, an end of a connection
//! without `Connection: close` before it, an answer that is not the one asked for.

use crate::process::free_port;
use eleven_testkit::reader::Reader;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const LARGE_BYTES: usize = 300_000;

/// How much of what.
pub struct Options {
    /// Changes of each kind but upgrades: ten times as many reloads as upgrades.
    pub upgrades: usize,
    /// The program.
    pub eleven: PathBuf,
}

struct Counts {
    asked: AtomicU64,
    closed: AtomicU64,
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Runs it, and prints the table.
///
/// # Errors
/// If something could not be run, or anything failed.
pub fn run(options: &Options) -> Result<(), String> {
    let folder = std::env::temp_dir().join(format!("eleven-soak-{}", std::process::id()));
    let outcome = soak(options, &folder);
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap_or_default();
    if !pid.trim().is_empty() {
        let _ = Command::new("kill").args(["-KILL", pid.trim()]).status();
    }
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

fn soak(options: &Options, folder: &Path) -> Result<(), String> {
    let io = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(folder.join("www")).map_err(io)?;
    std::fs::write(folder.join("www/page.txt"), "page\n").map_err(io)?;
    std::fs::write(folder.join("www/large.bin"), vec![b'x'; LARGE_BYTES]).map_err(io)?;
    for name in ["a", "b"] {
        certificate(folder, name)?;
    }
    exchange(folder, "a")?;
    let ports = [free_port(), free_port()];
    let mut origins = Vec::new();
    for port in ports {
        origins.push(origin(options, folder, port)?);
    }
    configure(folder, 0, &ports)?;
    let mut server = Command::new(&options.eleven)
        .args(["serve", "--config", "eleven.toml"])
        .current_dir(folder)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    let mut lines = BufReader::new(server.stderr.take().ok_or("no standard error")?).lines();
    let (mut plain, mut secured) = (None, None);
    while plain.is_none() || secured.is_none() {
        let line = lines.next().ok_or("the server did not start")?.map_err(io)?;
        let address = |scheme: &str| {
            let (_, rest) = line.split_once(scheme)?;
            rest.trim_end_matches('/').parse::<SocketAddr>().ok()
        };
        plain = plain.or_else(|| address("http://"));
        secured = secured.or_else(|| address("https://"));
    }
    let (plain, secured) = (plain.ok_or("no address")?, secured.ok_or("no address")?);
    let log = Arc::new(Mutex::new(String::new()));
    let told = log.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Ok(mut log) = told.lock() {
                log.push_str(&line);
                log.push('\n');
            }
        }
    });
    let counts = Counts {
        asked: AtomicU64::new(0),
        closed: AtomicU64::new(0),
        failed: Mutex::new(Vec::new()),
        stop: AtomicBool::new(false),
    };
    let mut tls_load = Command::new("wrk")
        .args(["-t1", "-c8", "-d3600", &format!("https://{secured}/page.txt")])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("wrk: {error}"))?;
    let table = std::thread::scope(|scope| {
        for batch in [1, 1, 1, 1, 8] {
            let counts = &counts;
            scope.spawn(move || {
                if let Err(why) = keep_asking(plain, batch, counts)
                    && let Ok(mut failed) = counts.failed.lock()
                {
                    failed.push(why);
                }
            });
        }
        let table = change_everything(options, folder, plain, &ports, &mut origins, &counts, &mut server);
        counts.stop.store(true, Ordering::Relaxed);
        table
    });
    let _ = Command::new("kill").args(["-INT", &tls_load.id().to_string()]).status();
    let mut report = String::new();
    if let Some(out) = &mut tls_load.stdout {
        let _ = std::io::Read::read_to_string(out, &mut report);
    }
    let _ = tls_load.wait();
    for mut origin in origins {
        let _ = origin.kill();
        let _ = origin.wait();
    }
    let table = table.map_err(|why| {
        format!("{why}\nthe server said:\n{}", log.lock().map(|log| log.clone()).unwrap_or_default())
    })?;
    println!("| change | times | requests meanwhile | failed |\n|---|---:|---:|---:|");
    let failed = counts.failed.lock().map(|failed| failed.clone()).unwrap_or_default();
    for (what, times, asked) in &table {
        println!("| {what} | {times} | {asked} | {} |", failed.len());
    }
    let tls_asked = report
        .lines()
        .find_map(|line| line.split_once(" requests in"))
        .map_or("0".to_owned(), |(count, _)| count.trim().to_owned());
    let tls_wrong: Vec<&str> =
        report.lines().filter(|line| line.contains("Socket errors") || line.contains("Non-2xx")).collect();
    println!("| all of it, seen by 8 TLS connections (wrk) | | {tls_asked} | {} |", tls_wrong.len());
    println!(
        "\n{} connections were closed after a last response that said so.",
        counts.closed.load(Ordering::Relaxed)
    );
    if failed.is_empty() && tls_wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("failed: {failed:#?} {tls_wrong:?}"))
    }
}

/// Rows of what was changed, how often, and how many requests were answered in the meantime.
fn change_everything(
    options: &Options,
    folder: &Path,
    plain: SocketAddr,
    ports: &[u16; 2],
    origins: &mut [Child],
    counts: &Counts,
    server: &mut Child,
) -> Result<Vec<(&'static str, usize, u64)>, String> {
    let mut rows = [
        ("configurations read anew", 0, 0),
        ("certificates exchanged", 0, 0),
        ("origin servers restarted", 0, 0),
        ("server replaced by another process", 0, 0),
    ];
    let mut first_ended = false;
    for at in 0..options.upgrades * 10 {
        let mut note = |row: usize, before: u64| {
            rows[row].1 += 1;
            rows[row].2 += counts.asked.load(Ordering::Relaxed) - before;
        };
        let before = counts.asked.load(Ordering::Relaxed);
        configure(folder, at + 1, ports)?;
        control(options, folder, "reload")?;
        await_generation(plain, at + 1)?;
        note(0, before);
        let before = counts.asked.load(Ordering::Relaxed);
        match at % 10 {
            2 | 7 => {
                exchange(folder, if at % 4 < 2 { "b" } else { "a" })?;
                control(options, folder, "reload")?;
                await_requests(counts, 200)?;
                note(1, before);
            }
            4 | 8 => {
                let which = at / 4 % 2;
                let _ = Command::new("kill").args(["-TERM", &origins[which].id().to_string()]).status();
                let _ = origins[which].wait();
                await_requests(counts, 200)?;
                origins[which] = origin(options, folder, ports[which])?;
                await_requests(counts, 200)?;
                note(2, before);
            }
            9 => {
                control(options, folder, "upgrade")?;
                await_requests(counts, 200)?;
                note(3, before);
                if !std::mem::replace(&mut first_ended, true) {
                    let started = Instant::now();
                    while server.try_wait().map_err(|error| error.to_string())?.is_none() {
                        if started.elapsed() > PATIENCE {
                            return Err("the first process does not end".into());
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
            }
            _ => {}
        }
        if counts.failed.lock().is_ok_and(|failed| !failed.is_empty()) {
            break;
        }
    }
    Ok(rows.to_vec())
}

fn await_requests(counts: &Counts, more: u64) -> Result<(), String> {
    let (started, wanted) = (Instant::now(), counts.asked.load(Ordering::Relaxed) + more);
    while counts.asked.load(Ordering::Relaxed) < wanted {
        if counts.failed.lock().is_ok_and(|failed| !failed.is_empty()) {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err("nobody is served".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn await_generation(address: SocketAddr, generation: usize) -> Result<(), String> {
    let started = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 6 {
        let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        let mut reader = Reader::new(stream);
        let asked = b"GET /generation HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        reader.get_mut().write_all(asked).map_err(|error| error.to_string())?;
        let same = reader.response("GET")?.body == generation.to_string().as_bytes();
        in_a_row = if same { in_a_row + 1 } else { 0 };
        if started.elapsed() > PATIENCE {
            return Err(format!("generation {generation} does not come into force"));
        }
    }
    Ok(())
}

fn keep_asking(address: SocketAddr, batch: usize, counts: &Counts) -> Result<(), String> {
    const PATHS: [(&str, usize); 4] = [
        ("/page.txt", 5),
        ("/app/page.txt", 5),
        ("/large.bin", LARGE_BYTES),
        ("/app/large.bin", LARGE_BYTES),
    ];
    let connect = || -> Result<_, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Reader::new(stream))
    };
    let mut reader = connect()?;
    let mut at = 0;
    while !counts.stop.load(Ordering::Relaxed) {
        let wanted: Vec<_> = (0..batch).map(|n| PATHS[(at + n) % PATHS.len()]).collect();
        let wire: String = wanted
            .iter()
            .map(|(path, _)| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .collect();
        reader.get_mut().write_all(wire.as_bytes()).map_err(|error| format!("send: {error}"))?;
        let mut closes = false;
        for (path, length) in wanted {
            let response =
                reader.response("GET").map_err(|fault| format!("{path} in a batch of {batch}: {fault}"))?;
            if response.status != 200 || response.body.len() != length {
                return Err(format!("{path}: {} with {} octets", response.status, response.body.len()));
            }
            closes = response.says_close();
            counts.asked.fetch_add(1, Ordering::Relaxed);
        }
        at += 1;
        if closes {
            reader.end().map_err(|fault| format!("after Connection: close: {fault}"))?;
            counts.closed.fetch_add(1, Ordering::Relaxed);
            reader = connect()?;
        }
    }
    Ok(())
}

fn origin(options: &Options, folder: &Path, port: u16) -> Result<Child, String> {
    let mut child = Command::new(&options.eleven)
        .args(["serve", "www", "--quiet", "--workers", "1", "--listen", &format!("127.0.0.1:{port}")])
        .current_dir(folder)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
    while let Some(Ok(line)) = lines.next() {
        if line.contains("http://") {
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(child);
        }
    }
    Err("an origin server did not start".into())
}

fn control(options: &Options, folder: &Path, command: &str) -> Result<(), String> {
    let done = Command::new(&options.eleven)
        .args([command, "--pid-file", "pid"])
        .current_dir(folder)
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    if done.status.success() { Ok(()) } else { Err(format!("eleven {command}: {said}")) }
}

fn configure(folder: &Path, generation: usize, ports: &[u16; 2]) -> Result<(), String> {
    let text = format!(
        "workers = 2\npid_file = \"pid\"\n[log]\naccess = \"off\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\naddress = \"localhost:0\"\ntls = true\n\
         [[upstream]]\nname = \"app\"\nservers = [\"http://127.0.0.1:{}\", \"http://127.0.0.1:{}\"]\n\
         [[site]]\nroot = \"www\"\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
         [[site.route]]\npath = \"/generation\"\nfixed = {{ text = \"{generation}\" }}\n\
         [[site.route]]\npath = \"/app\"\nstrip_prefix = true\nproxy = {{ upstream = \"app\" }}\n",
        ports[0], ports[1]
    );
    replace(folder, "eleven.toml", text.as_bytes())
}

/// Puts another certificate and its key in place.
fn exchange(folder: &Path, name: &str) -> Result<(), String> {
    for (from, to) in [("key", "server.key"), ("pem", "server.pem")] {
        let bytes =
            std::fs::read(folder.join(format!("{name}.{from}"))).map_err(|error| error.to_string())?;
        replace(folder, to, &bytes)?;
    }
    Ok(())
}

fn replace(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), String> {
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, folder.join(name)))
        .map_err(|error| format!("{name}: {error}"))
}

fn certificate(folder: &Path, name: &str) -> Result<(), String> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(folder.join(format!("{name}.pem")))
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("openssl: {error}"))?;
    if made.success() { Ok(()) } else { Err("openssl made no certificate".into()) }
}
