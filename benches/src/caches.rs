//! Caches side by side: eleven, nginx, Varnish and Squid in front of the same origin server, each with the same memory,
//! and the smallest program that could answer. Hits of three sizes, misses, a mix of many objects that does not fit
//! into memory, and many clients at once for one that has expired. Configurations stand here in full.

use crate::load::{self, Asking, Rate};
use crate::peers::{self, PAGE_BYTES, SMALL_BYTES, Site};
use crate::process::{self, Program, free_port};
use crate::{BROWSER_FIELDS, Options, median};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

/// Octets of the large response.
const MIB_BYTES: usize = 1 << 20;
/// Octets of an object of the mix.
const OBJECT_BYTES: usize = 4096;
/// Objects of the mix: ten times what fits into memory.
const OBJECTS: usize = 160_000;
/// Clients at once for one object.
const CLIENTS: usize = 1000;
/// Memory of each cache.
const MEMORY_MIB: usize = 64;

/// Compares them.
///
/// # Errors
/// When a program cannot be started, or answers wrongly.
pub fn compare(eleven: &Path, site: &Site, asking: &Asking<'_>, options: &Options) -> Result<(), String> {
    std::fs::write(site.root().join("mib.bin"), vec![b'x'; MIB_BYTES]).map_err(|e| e.to_string())?;
    std::fs::write(site.root().join("object"), vec![b'x'; OBJECT_BYTES]).map_err(|e| e.to_string())?;
    let origin = peers::nginx_cacheable(site)?;
    println!("- {}", versions().join(", "));
    for (title, path, fields, body_bytes) in [
        ("A hit, 13 octets", "/small.txt", &[][..], SMALL_BYTES),
        ("A hit, browser's 12 fields, 612 octets", "/page.html", &BROWSER_FIELDS[..], PAGE_BYTES),
        ("A hit, 1 MiB", "/mib.bin", &[][..], MIB_BYTES),
    ] {
        let mut programs = vec![peers::smallest("keep", body_bytes)?];
        programs.extend(caches(eleven, site, origin.port)?);
        let asking = Asking { path, fields, ..asking.clone() };
        crate::rates(title, &programs, &asking, body_bytes, options)?;
    }
    let script = site.beside("miss.lua");
    std::fs::write(&script, MISS_SCRIPT).map_err(|e| e.to_string())?;
    let mut programs = vec![peers::relay(origin.port)?];
    programs.extend(caches(eleven, site, origin.port)?);
    let misses = Asking { path: "/o/first", script: Some(&script), ..asking.clone() };
    let title = "A miss that is stored, 4 KiB (the origin server shares the load's core)";
    crate::rates(title, &programs, &misses, OBJECT_BYTES, options)?;
    drop(programs);
    mix(eleven, site, &origin, asking, options)?;
    expired(eleven, site, &origin, options)
}

/// How many of [`CLIENTS`] requests at once for one expired object reach the origin server, which takes two seconds.
fn expired(eleven: &Path, site: &Site, origin: &Program, options: &Options) -> Result<(), String> {
    println!(
        "\n### {CLIENTS} clients at once for one expired object\n\n| program | requests to the origin server |\n|---|---|"
    );
    for program in caches(eleven, site, origin.port)? {
        let mut counts = Vec::new();
        for round in 0..options.rounds {
            let path = format!("/brief/{}-{round}", program.port);
            load::at_once(&program, &path, 1, OBJECT_BYTES)?;
            // Not a race: the object is stale after one second, and three make it surely so.
            std::thread::sleep(std::time::Duration::from_secs(3));
            let before = asked(origin)?;
            load::at_once(&program, &path, CLIENTS, OBJECT_BYTES)?;
            counts.push(asked(origin)? - before - 1.0);
        }
        println!("| {} | {:.0} |", program.name, median(counts));
    }
    Ok(())
}

/// Zipf(0.9) over ten times as many octets as fit into memory.
fn mix(
    eleven: &Path,
    site: &Site,
    origin: &Program,
    asking: &Asking<'_>,
    options: &Options,
) -> Result<(), String> {
    let script = site.beside("zipf.lua");
    std::fs::write(&script, ZIPF_SCRIPT.replace("OBJECTS", &OBJECTS.to_string()))
        .map_err(|e| e.to_string())?;
    let mix = Asking { path: "/o/0", script: Some(&script), ..asking.clone() };
    let programs = caches(eleven, site, origin.port)?;
    for program in &programs {
        // Full, and used to it.
        load::wrk(program, &Asking { seconds: 10, ..mix.clone() })?;
    }
    let mut rounds: Vec<Vec<(Rate, f64)>> = Vec::new();
    for _ in 0..options.rounds {
        let mut round = Vec::new();
        for program in &programs {
            let before = asked(origin)?;
            let rate = load::wrk(program, &mix)?;
            let answered = rate.requests;
            round.push((rate, 1.0 - (asked(origin)? - before - 1.0) / answered));
        }
        rounds.push(round);
    }
    println!(
        "\n### Zipf(0.9) over {OBJECTS} objects of 4 KiB, {MEMORY_MIB} MiB of memory\n\n\
         | program | CPU µs a request | hits, % | requests/s |\n|---|---|---|---|"
    );
    for (at, program) in programs.iter().enumerate() {
        let over =
            |value: &dyn Fn(&(Rate, f64)) -> f64| median(rounds.iter().map(|r| value(&r[at])).collect());
        println!(
            "| {} | {:.2} | {:.1} | {:.0} |",
            program.named(rounds.iter().map(|round| round[at].0.errors).sum()),
            over(&|(rate, _)| rate.cpu_us),
            over(&|(_, hits)| hits * 100.0),
            over(&|(rate, _)| rate.requests_per_s),
        );
    }
    Ok(())
}

/// Requests that the origin server has had.
fn asked(origin: &Program) -> Result<f64, String> {
    let read = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(origin.address())?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|e| format!("the origin server's status: {e}"))?;
    let line = text.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1);
    line.and_then(|line| line.split_whitespace().nth(2)?.parse().ok())
        .ok_or_else(|| format!("no status: {text}"))
}

fn versions() -> Vec<String> {
    let first =
        |name: &str, args: &[&str]| process::first_line(name, args).unwrap_or_else(|| format!("no {name}"));
    vec![first("nginx", &["-v"]), first("varnishd", &["-V"]), first("squid", &["-v"])]
}

/// The caches that are installed, in front of this origin server.
fn caches(eleven: &Path, site: &Site, origin: u16) -> Result<Vec<Program>, String> {
    let mut programs = vec![eleven_cache(eleven, origin)?];
    if process::first_line("nginx", &["-v"]).is_some() {
        programs.push(peers::nginx_cache(site, origin)?);
    }
    if process::first_line("varnishd", &["-V"]).is_some() {
        programs.push(varnish(site, origin)?);
    }
    if process::first_line("squid", &["-v"]).is_some() {
        programs.push(squid(site, origin)?);
    }
    Ok(programs)
}

fn texts(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn eleven_cache(binary: &Path, origin: u16) -> Result<Program, String> {
    let port = free_port();
    let (listen, server) = (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{origin}"));
    let cache = format!("--cache={MEMORY_MIB}M");
    let args = texts(&["proxy", &server, &cache, "--quiet", "--workers", "1", "--listen", &listen]);
    Program::start("eleven", port, binary, &args)
}

/// Varnish with memory only, and as few threads as it takes.
fn varnish(site: &Site, origin: u16) -> Result<Program, String> {
    let port = free_port();
    let folder = site.beside(&format!("varnish-{port}"));
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let vcl = folder.join("default.vcl");
    let text = format!("vcl 4.1;\nbackend default {{ .host = \"127.0.0.1\"; .port = \"{origin}\"; }}\n");
    std::fs::write(&vcl, text).map_err(|e| e.to_string())?;
    let (listen, storage) = (format!("127.0.0.1:{port}"), format!("malloc,{MEMORY_MIB}m"));
    let (folder, vcl) = (folder.to_string_lossy().into_owned(), vcl.to_string_lossy().into_owned());
    let args = texts(&[
        "-F",
        "-j",
        "none",
        "-n",
        &folder,
        "-a",
        &listen,
        "-f",
        &vcl,
        "-s",
        &storage,
        "-p",
        "thread_pools=1",
    ]);
    Program::start("Varnish", port, Path::new("varnishd"), &args)
}

/// Squid as an accelerator, memory only, one worker.
fn squid(site: &Site, origin: u16) -> Result<Program, String> {
    let port = free_port();
    let folder = site.beside(&format!("squid-{port}"));
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let config = format!(
        "http_port 127.0.0.1:{port} accel defaultsite=localhost\n\
         cache_peer 127.0.0.1 parent {origin} 0 no-query originserver no-digest\n\
         http_access allow all\ncache_mem {MEMORY_MIB} MB\nmaximum_object_size_in_memory 8 MB\n\
         memory_cache_mode always\naccess_log none\ncache_log /dev/null\npid_filename none\n\
         shutdown_lifetime 0 seconds\nnetdb_filename none\n",
    );
    let path = folder.join("squid.conf");
    std::fs::write(&path, config).map_err(|e| e.to_string())?;
    // Its shared memory is called after the service, and one that was killed leaves it behind.
    let service = format!("bench{port}");
    let args = texts(&["-N", "-n", &service, "-f", &path.to_string_lossy()]);
    Program::start("Squid", port, Path::new("squid"), &args)
}

const MISS_SCRIPT: &str = "\
local n = 0
local run = tostring(os.time()) .. tostring(math.random(1000000))
math.randomseed(os.time())
init = function(args) run = tostring(os.time()) .. '-' .. tostring(math.random(1000000000)) end
request = function()
  n = n + 1
  return wrk.format('GET', '/o/' .. run .. '-' .. n)
end
";

/// By inverting the approximate distribution: with exponent 0.9, rank = (u * n^0.1)^10.
const ZIPF_SCRIPT: &str = "\
local n = OBJECTS
init = function(args) math.randomseed(os.time()) end
request = function()
  local top = (n + 1) ^ 0.1
  local rank = math.floor((1 + math.random() * (top - 1)) ^ 10)
  return wrk.format('GET', '/o/' .. rank)
end
";
