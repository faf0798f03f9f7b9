//! How long a cache on disk takes to start again: a store of many objects is filled through `eleven proxy`, which is
//! then killed and started again. The time is from the start of the process until it accepts connections; a sample of
//! what was stored must then come from the store.

use crate::load::connect;
use crate::peers::{self, Site};
use crate::process::{Program, free_port};
use crate::{Options, median};
use eleven_testkit::reader::Reader;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Objects in the store.
const OBJECTS: usize = 100_000;
/// Octets of each: 10 GiB in all, and too many to stand in the head file, so that there are two files of each.
const OBJECT_BYTES: usize = 107_375;
/// How many are asked for after a restart.
const SAMPLE: usize = 1000;
/// Requests in flight while it is filled.
const DEPTH: usize = 64;

/// Fills and restarts.
///
/// # Errors
/// When a program cannot be started, answers wrongly, or has forgotten something.
pub fn measure(eleven: &Path, site: &Site, options: &Options) -> Result<(), String> {
    std::fs::write(site.root().join("object"), vec![b'x'; OBJECT_BYTES]).map_err(|e| e.to_string())?;
    let origin = peers::nginx_cacheable(site)?;
    let directory = site.beside("store");
    let cache = start(eleven, origin.port, &directory)?.0;
    fill(&cache)?;
    let started = Instant::now();
    while heads(&directory) < OBJECTS {
        if started.elapsed() > Duration::from_secs(600) {
            return Err(format!("only {} of {OBJECTS} objects are on disk", heads(&directory)));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(cache);
    let mut seconds = Vec::new();
    for _ in 0..options.rounds {
        let (cache, took) = start(eleven, origin.port, &directory)?;
        seconds.push(took);
        let mut reader = Reader::new(connect(&cache)?);
        for sample in 0..SAMPLE {
            let object = sample * (OBJECTS / SAMPLE);
            ask(reader.get_mut(), object)?;
            let response = reader.response("GET")?;
            if response.field("X-Cache") != Some("HIT") || response.body.len() != OBJECT_BYTES {
                return Err(format!("object {object} is not found again: {:?}", response.head));
            }
        }
        // Killed, not asked: nothing may depend on a good end.
        cache.kill();
    }
    println!(
        "\n### Restart of a store of {OBJECTS} objects of {OBJECT_BYTES} octets ({} files)\n\n\
         | program | s until it accepts connections |\n|---|---|\n| eleven | {:.3} |",
        2 * OBJECTS,
        median(seconds)
    );
    Ok(())
}

/// Starts the cache, and says how long it took.
fn start(binary: &Path, origin: u16, directory: &Path) -> Result<(Program, f64), String> {
    let port = free_port();
    let args = [
        "proxy".to_owned(),
        format!("http://127.0.0.1:{origin}"),
        "--cache=16M".to_owned(),
        "--cache-dir".to_owned(),
        directory.display().to_string(),
        "--cache-dir-size=20G".to_owned(),
        "--x-cache".to_owned(),
        "--quiet".to_owned(),
        "--workers=1".to_owned(),
        format!("--listen=127.0.0.1:{port}"),
    ];
    let started = Instant::now();
    let program = Program::start("eleven", port, binary, &args)?;
    Ok((program, started.elapsed().as_secs_f64()))
}

fn ask(stream: &mut TcpStream, object: usize) -> Result<(), String> {
    let request = format!("GET /o/{object} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))
}

/// Asks for every object, some at a time on one connection.
fn fill(cache: &Program) -> Result<(), String> {
    let mut reader = Reader::new(connect(cache)?);
    for first in (0..OBJECTS).step_by(DEPTH) {
        let batch = first..(first + DEPTH).min(OBJECTS);
        for object in batch.clone() {
            ask(reader.get_mut(), object)?;
        }
        for object in batch {
            let response = reader.response("GET")?;
            if response.status != 200 || response.body.len() != OBJECT_BYTES {
                return Err(format!("object {object}: {}", response.status));
            }
        }
    }
    Ok(())
}

/// Head files in the store: what has a name that is no body's.
fn heads(directory: &Path) -> usize {
    let folders = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    folders
        .filter(|entry| entry.file_name().len() == 2)
        .flat_map(|entry| files(entry.path()))
        .filter(|file| !file.file_name().to_string_lossy().ends_with(".body"))
        .count()
}
