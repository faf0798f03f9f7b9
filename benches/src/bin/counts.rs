//! Instructions for a request, counted by valgrind: of the head parser, of the server's machine with head and
//! answer, and of `eleven serve` and of hits in the cache of `eleven proxy` as a whole. A count does not depend on how busy the machine is, so a change
//! of two percent shows; it says nothing of what the kernel does. Without arguments it prints the table.

#[path = "../many_sites.rs"]
mod many_sites;

use eleven_messaging::head::{Progress, request_head};
use eleven_messaging::server::{Answer, Length, Received, ServerConnection};
use eleven_messaging::{Config, RequestHead};
use eleven_semantics::{Fields, Known, Status};
use eleven_testkit::reader::Reader;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Iterations of the short and the long run; only the difference counts.
const SHORT: u32 = 1000;
const LONG: u32 = 3000;

const SMALL: &[u8] = b"GET /small.txt HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";
const BROWSER: &[u8] = b"GET /page.html HTTP/1.1\r\nHost: localhost:8080\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\nReferer: http://localhost:8080/articles/index.html\r\nDNT: 1\r\n\
Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\nPriority: u=0, i\r\n\r\n";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done =
        match words.as_slice() {
            ["run", case, count] => {
                count.parse().map_err(|_| "not a count".to_owned()).and_then(|n| run(case, n))
            }
            ["--eleven", path] => table(Path::new(path)),
            [] => table(&eleven_testkit::repo::root().join("target/release/eleven")),
            _ => Err("counts [--eleven PATH]\nPATH is target/release/eleven when left out; build it before"
                .to_owned()),
        };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn table(eleven: &Path) -> Result<(), String> {
    println!("| what | instructions a request |\n|---|---|");
    for case in ["head-small", "head-browser", "machine-small", "machine-browser"] {
        println!("| {case} | {} |", difference(|count| counted_run(case, count))?);
    }
    if !eleven.exists() {
        return Err(format!("{} is not there; cargo build --release -p eleven makes it", eleven.display()));
    }
    let root = std::env::temp_dir().join(format!("eleven-counts-{}", std::process::id()));
    std::fs::create_dir_all(&root).map_err(|e| e.to_string())?;
    let served = (|| {
        write_old(&root.join("small.txt"), 13)?;
        write_old(&root.join("page.html"), 612)?;
        // A file that has just been written is looked at again for each request, which is not what is counted.
        std::thread::sleep(Duration::from_secs(5));
        for (name, request, is_configured) in [
            ("serve, 13-byte file", SMALL.to_vec(), false),
            ("serve, 612-byte file, browser", BROWSER.to_vec(), false),
            ("50 sites, log, compression: 13-byte file", to_site(SMALL, ""), true),
            ("50 sites, log, compression: 612-byte file, browser", to_site(BROWSER, ""), true),
            ("the same, with Accept-Encoding", to_site(BROWSER, "Accept-Encoding: gzip, br, zstd\r\n"), true),
        ] {
            let count = |count| counted_serve(eleven, &root, &request, is_configured, count);
            println!("| {name} | {} |", difference(count)?);
        }
        hits(eleven, &root)
    })();
    let _ = std::fs::remove_dir_all(&root);
    let _ = std::fs::remove_file(root.with_extension("toml"));
    let _ = std::fs::remove_file(root.with_extension("log"));
    served
}

/// A file of so many octets that was changed a month ago, so that a cache takes it for fresh.
fn write_old(path: &Path, length: usize) -> Result<(), String> {
    let written = || -> std::io::Result<()> {
        std::fs::write(path, vec![b'x'; length])?;
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        std::fs::File::options().write(true).open(path)?.set_modified(std::time::SystemTime::now() - month)
    };
    written().map_err(|e| format!("{}: {e}", path.display()))
}

/// Hits, with `eleven serve` as the origin server.
fn hits(eleven: &Path, root: &Path) -> Result<(), String> {
    let origin = free_address()?;
    let mut server = Command::new(eleven)
        .args([
            "serve",
            &root.to_string_lossy(),
            "--quiet",
            "--workers",
            "1",
            "--listen",
            &origin.to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot run {}: {e}", eleven.display()))?;
    let counted = (|| {
        ask(origin, SMALL, 1)?;
        for (name, request) in [("hit, 13 octets", SMALL), ("hit, 612 octets, browser", BROWSER)] {
            let count = |count| {
                let (listen, url) = (free_address()?, format!("http://{origin}"));
                let listen_text = listen.to_string();
                let args =
                    ["proxy", &url, "--cache=64M", "--quiet", "--workers", "1", "--listen", &listen_text];
                counted_requests(eleven, &args, listen, request, count)
            };
            println!("| {name} | {} |", difference(count)?);
        }
        Ok(())
    })();
    let _ = server.kill();
    let _ = server.wait();
    counted
}

/// The request as one of the sites gets it, with more fields.
fn to_site(request: &[u8], fields: &str) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    let host = format!("Host: {}\r\n{fields}", many_sites::HOST);
    text.replacen("Host: localhost:8080\r\n", &host, 1).into_bytes()
}

fn difference(count: impl Fn(u32) -> Result<u64, String>) -> Result<u64, String> {
    let (short, long) = (count(SHORT)?, count(LONG)?);
    let more = long
        .checked_sub(short)
        .ok_or_else(|| format!("{LONG} requests took {long}, {SHORT} took {short}"))?;
    Ok(more / u64::from(LONG - SHORT))
}

fn valgrind(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The number in `==123== I   refs:      1,234,567`.
fn instructions(child: Child) -> Result<u64, String> {
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stderr);
    let line = text.lines().find_map(|line| line.split_once("refs:"));
    let digits: Option<String> =
        line.map(|(_, number)| number.chars().filter(char::is_ascii_digit).collect());
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| format!("valgrind counted nothing: {text}"))
}

fn counted_run(case: &str, count: u32) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let child = valgrind(&own, &["run", case, &count.to_string()]).spawn();
    instructions(child.map_err(|e| format!("cannot run valgrind: {e}"))?)
}

fn counted_serve(
    eleven: &Path,
    root: &Path,
    request: &[u8],
    is_configured: bool,
    count: u32,
) -> Result<u64, String> {
    let port = free_address()?;
    let listen = port.to_string();
    let root: PathBuf = root.to_owned();
    let config = root.with_extension("toml");
    let (root, file) = (root.to_string_lossy().into_owned(), config.to_string_lossy().into_owned());
    let args = if is_configured {
        let log = config.with_extension("log");
        let text = many_sites::configuration(Path::new(&root), &log, &listen);
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        vec!["serve", "--config", &file]
    } else {
        vec!["serve", &root, "--quiet", "--workers", "1", "--listen", &listen]
    };
    counted_requests(eleven, &args, port, request, count)
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr, String> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|bound| bound.local_addr());
    bound.map_err(|e| e.to_string())
}

/// The instructions of a server with these arguments that answers so many requests.
fn counted_requests(
    eleven: &Path,
    args: &[&str],
    listen: SocketAddr,
    request: &[u8],
    count: u32,
) -> Result<u64, String> {
    let child = valgrind(eleven, args).spawn().map_err(|e| format!("cannot run valgrind: {e}"))?;
    let asked = ask(listen, request, count);
    let pid = rustix::process::Pid::from_child(&child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let counted = instructions(child);
    asked?;
    counted
}

/// `count` requests one after the other on one connection, so that each costs one wake-up.
fn ask(address: SocketAddr, request: &[u8], count: u32) -> Result<(), String> {
    let started = Instant::now();
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) if started.elapsed() < Duration::from_secs(60) => {
                std::thread::sleep(Duration::from_millis(50))
            }
            Err(e) => return Err(format!("eleven does not listen under valgrind: {e}")),
        }
    };
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let mut reader = Reader::new(stream);
    for _ in 0..count {
        reader.get_mut().write_all(request).map_err(|e| e.to_string())?;
        let status = reader.response("GET")?.status;
        if status != 200 {
            return Err(format!("answered {status}"));
        }
    }
    Ok(())
}

fn run(case: &str, count: u32) -> Result<(), String> {
    let request = if case.ends_with("browser") { BROWSER } else { SMALL };
    match case.split('-').next() {
        Some("head") => parse_heads(request, count),
        Some("machine") => serve_requests(request, count),
        _ => return Err(format!("no case {case}")),
    }
    Ok(())
}

fn parse_heads(request: &[u8], count: u32) {
    let config = Config::default();
    let mut head = RequestHead::default();
    for _ in 0..count {
        let read = request_head(std::hint::black_box(request), &config, &mut head);
        assert_eq!(read, Ok(Progress::Complete(request.len())));
        std::hint::black_box(&head);
    }
}

fn serve_requests(request: &[u8], count: u32) {
    let mut server = ServerConnection::new(Arc::new(Config::default()));
    let mut head = RequestHead::default();
    let mut fields = Fields::new();
    for (name, value) in [
        (Known::ContentType, "text/plain; charset=utf-8"),
        (Known::LastModified, "Mon, 23 Nov 2026 12:00:00 GMT"),
        (Known::ETag, "\"0123456789abcdef0123\""),
        (Known::AcceptRanges, "bytes"),
    ] {
        fields.push(name, value).expect("valid fields");
    }
    let mut out = Vec::with_capacity(1024);
    for _ in 0..count {
        let received = server.receive(std::hint::black_box(request), false, &mut head);
        assert!(matches!(received, Ok((taken, Received::Head)) if taken == request.len()));
        out.clear();
        let answer = Answer {
            status: Status::OK,
            fields: &fields,
            added: None,
            length: Length::Known(13),
            date: b"Date: Tue, 24 Nov 2026 12:00:00 GMT\r\n",
            close: None,
            content_is_read: false,
            compressible: false,
        };
        server.respond(&answer, &mut out).expect("a request waits");
        server.body().expect("a response is under way").write(b"Hello, World!", &mut out).expect("13 octets");
        server.finish(None, &mut out).expect("13 octets were written");
        std::hint::black_box(&out);
    }
}
