//! `eleven get` side by side with curl, wget2 and aria2: CPU time of the client, wall time and peak memory, with nginx (or
//! a relay of our own that delays or limits) on the other core. Judges no number; fails where a file is not what it
//! should be.

use crate::peers::{self, Site};
use crate::process::{LOAD_CORE, SERVER_CORE, first_line};
use crate::relay::{Link, Relay};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Octets of the file that shows the cost of an octet.
const HUGE_BYTES: u64 = 1 << 30;
/// Octets of the file that is fetched by many connections.
const SPLIT_BYTES: u64 = 128 << 20;
/// Small files.
const MANY_FILES: usize = 1000;
/// What one connection gets where connections are limited.
const CONNECTION_BYTES_PER_S: u64 = 4 << 20;
/// What all connections get together where the line is.
const LINE_BYTES_PER_S: u64 = 40 << 20;
/// Delay each way on the long line.
const DELAY_MS: u64 = 25;

/// What a run of a client cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_s: f64,
    wall_s: f64,
    peak_bytes: u64,
}

/// A client to compare: what the table calls it, and its command line.
struct Client {
    name: String,
    command: Vec<String>,
    /// Left out where it is not installed.
    here: bool,
}

/// The comparisons there are.
pub const NAMES: [&str; 5] = ["download", "many", "delayed", "limited", "line"];

/// Runs one comparison.
///
/// # Errors
/// When a program cannot run, or a file is wrong.
pub fn compare(name: &str, eleven: &Path, site: &Site, rounds: usize) -> Result<(), String> {
    let place = Place::make(site)?;
    let binary = eleven.to_string_lossy().into_owned();
    match name {
        "download" => download(&binary, site, &place, rounds),
        "many" => many(&binary, site, &place, rounds),
        "delayed" => delayed(&binary, site, &place, rounds),
        "limited" => limited(&binary, site, &place, rounds),
        _ => line(&binary, site, &place, rounds),
    }
}

/// Where clients save: a new folder for each run. Small files are not removed before the end: a file system makes new ones
/// at another price for some seconds after many were removed.
struct Place {
    out: PathBuf,
    lists: PathBuf,
    runs: Cell<u32>,
}

impl Place {
    fn make(site: &Site) -> Result<Place, String> {
        let place = Place { out: site.beside("out"), lists: site.beside("lists"), runs: Cell::new(0) };
        std::fs::create_dir_all(&place.lists).map_err(|e| e.to_string())?;
        Ok(place)
    }

    fn next(&self) -> Result<PathBuf, String> {
        self.runs.set(self.runs.get() + 1);
        let out = self.out.join(self.runs.get().to_string());
        std::fs::create_dir_all(&out).map_err(|e| e.to_string())?;
        Ok(out)
    }
}

fn client(name: &str, command: &[&str]) -> Client {
    let program = command[0];
    Client {
        name: name.to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        here: program.contains('/') || first_line(program, &["--version"]).is_some(),
    }
}

fn write_file(path: &Path, bytes: u64) -> Result<(), String> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() == bytes) {
        return Ok(());
    }
    let mut rng = eleven_testkit::Rng::new(bytes);
    let file = std::fs::File::create(path).map_err(|e| e.to_string())?;
    let mut out = std::io::BufWriter::new(file);
    let block = rng.bytes(1 << 20);
    let mut left = bytes as usize;
    while left > 0 {
        let piece = left.min(block.len());
        std::io::Write::write_all(&mut out, &block[..piece]).map_err(|e| e.to_string())?;
        left -= piece;
    }
    Ok(())
}

fn download(eleven: &str, site: &Site, place: &Place, rounds: usize) -> Result<(), String> {
    write_file(&site.root().join("huge.bin"), HUGE_BYTES)?;
    let origin = peers::nginx_origin(site, None)?;
    let url = format!("http://{}/huge.bin", origin.address());
    let clients = [
        client("eleven get", &[eleven, "get", "-q", "-o", "x", &url]),
        client("eleven get --segments auto", &[eleven, "get", "-q", "--segments", "auto", "-o", "x", &url]),
        client("curl", &["curl", "-s", "-o", "x", &url]),
        client("wget2", &["wget2", "-q", "-O", "x", &url]),
        client("aria2 -x4", &["aria2c", "-q", "-x4", "-s4", "--file-allocation=none", "-o", "x", &url]),
    ];
    println!("\n### One file of 1 GiB from nginx to a file\n");
    let check = |out: &Path| one_file(out, HUGE_BYTES);
    table(&clients, place, rounds, &check, "CPU s a GiB", 1.0)
}

fn one_file(out: &Path, bytes: u64) -> Result<(), String> {
    let length = std::fs::metadata(out.join("x")).map_err(|e| e.to_string())?.len();
    if length == bytes { Ok(()) } else { Err(format!("a file of {length} octets instead of {bytes}")) }
}

/// The list in the form each client reads, and a check that every file came.
fn lists(site: &Site, place: &Place, origin: &str) -> Result<(String, String), String> {
    let folder = site.root().join("many");
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let (mut urls, mut curl) = (String::new(), String::new());
    for number in 0..MANY_FILES {
        let name = format!("f{number:04}.bin");
        write_file(&folder.join(&name), 500 + (number as u64 * 7919) % 8000)?;
        urls.push_str(&format!("http://{origin}/many/{name}\n"));
        curl.push_str(&format!("url = \"http://{origin}/many/{name}\"\noutput = \"{name}\"\n"));
    }
    let (urls_path, curl_path) = (place.lists.join("urls"), place.lists.join("curl"));
    std::fs::write(&urls_path, urls).map_err(|e| e.to_string())?;
    std::fs::write(&curl_path, curl).map_err(|e| e.to_string())?;
    Ok((urls_path.to_string_lossy().into_owned(), curl_path.to_string_lossy().into_owned()))
}

fn many_files(out: &Path) -> Result<(), String> {
    let sizes: Vec<u64> = std::fs::read_dir(out)
        .map_err(|e| e.to_string())?
        .filter_map(|entry| entry.ok()?.metadata().ok().map(|meta| meta.len()))
        .collect();
    let expected: u64 = (0..MANY_FILES as u64).map(|number| 500 + (number * 7919) % 8000).sum();
    let got: u64 = sizes.iter().sum();
    if sizes.len() == MANY_FILES && got == expected {
        Ok(())
    } else {
        Err(format!("{} files with {got} octets instead of {MANY_FILES} with {expected}", sizes.len()))
    }
}

fn many(eleven: &str, site: &Site, place: &Place, rounds: usize) -> Result<(), String> {
    let origin = peers::nginx_origin(site, None)?;
    let (urls, curl) = lists(site, place, &origin.address().to_string())?;
    let clients = [
        client("eleven get", &[eleven, "get", "-q", "-O", "--urls-from", &urls]),
        client(
            "eleven get --pipeline 16",
            &[eleven, "get", "-q", "-O", "--pipeline", "16", "--urls-from", &urls],
        ),
        client("curl", &["curl", "-s", "-K", &curl]),
        client("curl --parallel", &["curl", "-s", "--parallel", "-K", &curl]),
        client("wget2", &["wget2", "-q", "-i", &urls]),
        client("aria2", &["aria2c", "-q", "-i", &urls]),
    ];
    println!("\n### 1,000 files of 0.5 to 8.5 kB from nginx\n");
    table(&clients, place, rounds, &many_files, "CPU ms a file", 1000.0 / MANY_FILES as f64)
}

fn delayed(eleven: &str, site: &Site, place: &Place, rounds: usize) -> Result<(), String> {
    let origin = peers::nginx_origin(site, None)?;
    let link = Link { delay: Duration::from_millis(DELAY_MS), ..Link::default() };
    let relay = Relay::start(origin.port, link).map_err(|e| e.to_string())?;
    let (urls, curl) = lists(site, place, &relay.address().to_string())?;
    let clients = [
        client(
            "eleven get --parallel 6",
            &[eleven, "get", "-q", "-O", "--parallel", "6", "--urls-from", &urls],
        ),
        client(
            "eleven get --pipeline 32",
            &[eleven, "get", "-q", "-O", "--pipeline", "32", "--urls-from", &urls],
        ),
        client(
            "curl --parallel --parallel-max 6",
            &["curl", "-s", "--parallel", "--parallel-max", "6", "-K", &curl],
        ),
        client("curl --parallel (50 connections)", &["curl", "-s", "--parallel", "-K", &curl]),
    ];
    println!("\n### The same files over a line with a round trip of {} ms\n", 2 * DELAY_MS);
    table(&clients, place, rounds, &many_files, "CPU ms a file", 1000.0 / MANY_FILES as f64)
}

fn limited(eleven: &str, site: &Site, place: &Place, rounds: usize) -> Result<(), String> {
    write_file(&site.root().join("split.bin"), SPLIT_BYTES)?;
    let origin = peers::nginx_origin(site, Some(CONNECTION_BYTES_PER_S))?;
    let url = format!("http://{}/split.bin", origin.address());
    let clients = [
        client("eleven get --segments auto", &[eleven, "get", "-q", "--segments", "auto", "-o", "x", &url]),
        client("eleven get --segments 16", &[eleven, "get", "-q", "--segments", "16", "-o", "x", &url]),
        client(
            "aria2 -x16",
            &["aria2c", "-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "-o", "x", &url],
        ),
    ];
    println!(
        "\n### 128 MiB from nginx, which gives {} MiB/s to each connection\n",
        CONNECTION_BYTES_PER_S >> 20
    );
    table(&clients, place, rounds, &|out| one_file(out, SPLIT_BYTES), "CPU s a GiB", 8.0)
}

fn line(eleven: &str, site: &Site, place: &Place, rounds: usize) -> Result<(), String> {
    write_file(&site.root().join("split.bin"), SPLIT_BYTES)?;
    let origin = peers::nginx_origin(site, None)?;
    let link = Link { delay: Duration::from_millis(DELAY_MS), bytes_per_s: Some(LINE_BYTES_PER_S) };
    let relay = Relay::start(origin.port, link).map_err(|e| e.to_string())?;
    let url = format!("http://{}/split.bin", relay.address());
    let clients = [
        client("eleven get", &[eleven, "get", "-q", "-o", "x", &url]),
        client("eleven get --segments auto", &[eleven, "get", "-q", "--segments", "auto", "-o", "x", &url]),
        client("curl", &["curl", "-s", "-o", "x", &url]),
        client(
            "aria2 -x16",
            &["aria2c", "-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "-o", "x", &url],
        ),
    ];
    println!(
        "\n### 128 MiB over a line of {} MiB/s for all connections together, round trip {} ms\n",
        LINE_BYTES_PER_S >> 20,
        2 * DELAY_MS
    );
    table(&clients, place, rounds, &|out| one_file(out, SPLIT_BYTES), "CPU s a GiB", 8.0)
}

/// Runs all of them in turn, and prints medians and ratios to the first.
fn table(
    clients: &[Client],
    place: &Place,
    rounds: usize,
    check: &dyn Fn(&Path) -> Result<(), String>,
    unit: &str,
    scale: f64,
) -> Result<(), String> {
    let clients: Vec<&Client> = clients.iter().filter(|client| client.here).collect();
    let mut costs: Vec<Vec<Cost>> = Vec::new();
    for _ in 0..rounds {
        let mut round = Vec::new();
        for client in &clients {
            let out = place.next()?;
            let cost = run(client, &out)?;
            check(&out).map_err(|why| format!("{}: {why}", client.name))?;
            let _ = std::fs::remove_file(out.join("x"));
            round.push(cost);
        }
        costs.push(round);
    }
    println!(
        "| client | {unit} | CPU, × eleven | wall, s | wall, × eleven | peak, MiB |\n|---|---|---|---|---|---|"
    );
    for (at, client) in clients.iter().enumerate() {
        let over = |value: &dyn Fn(&[Cost]) -> f64| {
            crate::median(costs.iter().map(|round| value(round)).collect::<Vec<f64>>())
        };
        println!(
            "| {} | {:.3} | {:.2} | {:.2} | {:.2} | {:.1} |",
            client.name,
            over(&|round| round[at].cpu_s * scale),
            over(&|round| round[at].cpu_s / round[0].cpu_s),
            over(&|round| round[at].wall_s),
            over(&|round| round[at].wall_s / round[0].wall_s),
            over(&|round| round[at].peak_bytes as f64 / f64::from(1 << 20)),
        );
    }
    Ok(())
}

/// One run. The shell's `time` tells the CPU time of the client to a millisecond.
fn run(client: &Client, out: &Path) -> Result<Cost, String> {
    let begun = Instant::now();
    let child = Command::new("taskset")
        .args([
            "-c",
            SERVER_CORE,
            "bash",
            "-c",
            "TIMEFORMAT='%3U %3S'; time \"$@\" >/dev/null 2>&1",
            "client",
        ])
        .args(&client.command)
        .current_dir(out)
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", client.name))?;
    let pid = child.id();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        while stopped
            .recv_timeout(Duration::from_millis(10))
            .is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            peak = peak.max(peak_of_children(pid));
        }
        peak
    });
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    let wall_s = begun.elapsed().as_secs_f64();
    drop(stop);
    let peak_bytes = watch.join().unwrap_or(0);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{} failed ({}): {text}", client.name, output.status));
    }
    let times: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [user, system] = times[..] else { return Err(format!("no times in {text:?}")) };
    Ok(Cost { cpu_s: user + system, wall_s, peak_bytes })
}

/// Most memory that the children of a shell had resident so far.
fn peak_of_children(pid: u32) -> u64 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let peak = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim();
        line.split(' ').next()?.parse::<u64>().ok()
    };
    children.split_whitespace().filter_map(peak).sum::<u64>() * 1024
}

/// What is compared, for the head of the report.
pub fn print_versions() {
    let version = |name: &str| first_line(name, &["--version"]).unwrap_or_else(|| format!("no {name}"));
    println!("- clients: {}, {}, {}", version("curl"), version("wget2"), version("aria2c"));
    println!("- the client on core {SERVER_CORE}, nginx and the relay on core {LOAD_CORE}");
}
