//! One command that runs eleven side by side with nginx and with the smallest program that could answer, and
//! prints CPU time for a request, its ratio to the smallest program's, and requests a second, as Markdown. The
//! program under measurement has one core, the load the other; runs are interleaved and medians reported, since
//! the machine's speed changes from minute to minute. How the programs are started stands in `peers`.

mod caches;
mod clients;
mod gateways;
mod load;
mod many_sites;
mod peers;
mod process;
mod relay;
mod restart;
mod secured;
mod smallest;
mod soak;

use load::{Asking, Rate};
use peers::{LARGE_BYTES, PAGE_BYTES, SMALL_BYTES, Site};
use process::{LOAD_CORE, Program};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
cargo run --release -p eleven-benches -- [--rounds N] [--seconds N] [--only NAMES] [--eleven PATH]

  --rounds N     rounds of each comparison; medians are printed (default 5)
  --seconds N    length of one run of wrk (default 3)
  --only NAMES   comma-separated: keep, browser, pipelined, close, configured, large, idle, slow, gateway,
                 gateway-browser, gateway-large, gateway-slow, tunnel; and not part of everything: tls, tls-idle
                 (both against nginx with OpenSSL), cache (against nginx, Varnish and Squid), restart (of a cache on
                 disk), and for clients download, many, delayed, limited, line
  --eleven PATH  the program to measure, instead of building it

Needs taskset and wrk; for clients bash and nginx, and curl, wget2, aria2c where they are installed. nginx (and haproxy, for gateway) are left out when they are not installed.";

/// A browser's request for a page: with Host, twelve fields.
const BROWSER_FIELDS: [&str; 11] = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.5",
    "Referer: http://localhost:8080/articles/index.html",
    "DNT: 1",
    "Connection: keep-alive",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Priority: u=0, i",
];

const PIPELINE_SCRIPT: &str = "\
init = function(args)
  local all = {}
  for i = 1, 16 do all[i] = wrk.format() end
  batch = table.concat(all)
end
request = function() return batch end
";

struct Options {
    rounds: usize,
    seconds: u32,
    only: Option<Vec<String>>,
    eleven: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("smallest" | "relay" | "stream" | "echo" | "drip") => run_small_program(&args),
        Some("soak") => run_soak(&args),
        _ => parse(&args).and_then(|options| compare(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// `soak [--upgrades N] [--eleven PATH]`: see `soak`.
fn run_soak(args: &[String]) -> Result<(), String> {
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let upgrades = match value("--upgrades") {
        Some(text) => text.parse().map_err(|_| format!("--upgrades {text}: not a number"))?,
        None => 10,
    };
    let eleven = value("--eleven").map_or_else(|| "target/release/eleven".into(), PathBuf::from);
    let eleven = eleven.canonicalize().map_err(|error| format!("{}: {error}", eleven.display()))?;
    soak::run(&soak::Options { upgrades, eleven })
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options { rounds: 5, seconds: 3, only: None, eleven: None };
    let mut args = args.iter();
    while let Some(name) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match name.as_str() {
            "--rounds" => options.rounds = value.parse().ok().filter(|n| *n > 0).ok_or(USAGE)?,
            "--seconds" => options.seconds = value.parse().ok().filter(|n| *n > 0).ok_or(USAGE)?,
            "--only" => options.only = Some(value.split(',').map(str::to_owned).collect()),
            "--eleven" => options.eleven = Some(value.into()),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

fn run_small_program(args: &[String]) -> Result<(), String> {
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<u64>().ok()).ok_or(USAGE);
    let port = number(1)? as u16;
    let ended = match args[0].as_str() {
        "relay" => smallest::relay(port, number(2)? as u16),
        "echo" => smallest::echo(port),
        "drip" => return load::drip(port, number(2)? as usize),
        "stream" => return smallest::stream(port, number(2)?).map_err(|e| format!("stream: {e}")),
        _ => {
            let close = args.get(2).is_some_and(|manner| manner == "close");
            let manner = if close { smallest::Manner::Close } else { smallest::Manner::Keep };
            smallest::answer(port, manner, number(3)? as usize)
        }
    };
    ended.map_err(|e| format!("{}: {e}", args[0]))
}

fn compare(options: &Options) -> Result<(), String> {
    let eleven = match &options.eleven {
        Some(path) => path.clone(),
        None => build_eleven()?,
    };
    let site = Site::make().map_err(|e| format!("cannot make the files to serve: {e}"))?;
    print_circumstances(&eleven);
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| only.iter().any(|o| o == name));
    let asking =
        Asking { path: "/small.txt", connections: 32, fields: &[], script: None, seconds: options.seconds };
    let asked = |name: &&str| options.only.as_ref().is_some_and(|only| only.iter().any(|o| o == name));
    if wanted("keep") {
        let programs = servers(&eleven, &site, "keep", SMALL_BYTES)?;
        rates("Keep-alive, 13-byte file", &programs, &asking, SMALL_BYTES, options)?;
    }
    if wanted("browser") {
        let programs = servers(&eleven, &site, "keep", PAGE_BYTES)?;
        let asking = Asking { path: "/page.html", fields: &BROWSER_FIELDS, ..asking.clone() };
        rates("Browser-like request (12 fields), 612-byte file", &programs, &asking, PAGE_BYTES, options)?;
    }
    if wanted("pipelined") {
        let script = site.beside("pipeline.lua");
        std::fs::write(&script, PIPELINE_SCRIPT).map_err(|e| e.to_string())?;
        let programs = servers(&eleven, &site, "keep", SMALL_BYTES)?;
        let asking = Asking { script: Some(&script), ..asking.clone() };
        rates("16 pipelined, 13-byte file", &programs, &asking, SMALL_BYTES, options)?;
    }
    if wanted("close") {
        let programs = servers(&eleven, &site, "close", SMALL_BYTES)?;
        let asking = Asking { fields: &["Connection: close"], ..asking.clone() };
        rates("Connection: close, 13-byte file", &programs, &asking, SMALL_BYTES, options)?;
    }
    if wanted("configured") {
        configured(&eleven, &site, &asking, options)?;
    }
    if wanted("large") {
        large_files(&eleven, &site, options)?;
    }
    if wanted("idle") {
        idle(&eleven, &site)?;
    }
    if wanted("slow") {
        slow(&eleven, &site)?;
    }
    if asked(&"tls") {
        secured::compare(&eleven, &site, options)?;
    }
    if asked(&"tls-idle") {
        secured::idle(&eleven, &site)?;
    }
    for name in gateways::NAMES.into_iter().filter(|name| wanted(name)) {
        gateways::compare(name, &eleven, &site, &asking, options)?;
    }
    if options.only.as_ref().is_some_and(|only| only.iter().any(|name| name == "cache")) {
        caches::compare(&eleven, &site, &asking, options)?;
    }
    if options.only.as_ref().is_some_and(|only| only.iter().any(|name| name == "restart")) {
        restart::measure(&eleven, &site, options)?;
    }
    for (number, name) in clients::NAMES.into_iter().filter(asked).enumerate() {
        if number == 0 {
            clients::print_versions();
        }
        on_load_core(|| clients::compare(name, &eleven, &site, options.rounds))?;
    }
    Ok(())
}

fn build_eleven() -> Result<PathBuf, String> {
    let root = eleven_testkit::repo::root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = std::process::Command::new(cargo)
        .args(["build", "--release", "-p", "eleven"])
        .current_dir(&root)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !built.success() {
        return Err("eleven does not build".to_owned());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/eleven"))
}

fn print_circumstances(eleven: &std::path::Path) {
    let version =
        |name: &str, args: &[&str]| process::first_line(name, args).unwrap_or_else(|| "not here".into());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?").to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "- {}, {}, {}",
        version(&eleven.to_string_lossy(), &["--version"]),
        version("nginx", &["-v"]),
        version("wrk", &["-v"])
    );
    println!(
        "- {model}, Linux {}; load at the start {}",
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    );
    println!("- the program on core {}, the load on core {LOAD_CORE}", process::SERVER_CORE);
}

/// The smallest program, eleven, and nginx twice where it is installed.
fn servers(
    eleven: &std::path::Path,
    site: &Site,
    manner: &str,
    body_bytes: usize,
) -> Result<Vec<Program>, String> {
    let mut programs = vec![peers::smallest(manner, body_bytes)?, peers::eleven(eleven, site)?];
    if process::first_line("nginx", &["-v"]).is_some() {
        programs.push(peers::nginx(site, false)?);
        programs.push(peers::nginx(site, true)?);
    }
    Ok(programs)
}

fn rates(
    title: &str,
    programs: &[Program],
    asking: &Asking,
    body_bytes: usize,
    options: &Options,
) -> Result<(), String> {
    for program in programs {
        load::check(program, asking.path, asking.fields, body_bytes)?;
        load::wrk(program, &Asking { seconds: 1, ..asking.clone() })?;
    }
    let mut rounds: Vec<Vec<Rate>> = Vec::new();
    for _ in 0..options.rounds {
        rounds.push(programs.iter().map(|program| load::wrk(program, asking)).collect::<Result<_, _>>()?);
    }
    println!("\n### {title}\n\n| program | CPU µs a request | × smallest | requests/s |\n|---|---|---|---|");
    for (at, program) in programs.iter().enumerate() {
        let over = |value: &dyn Fn(&[Rate]) -> f64| median(rounds.iter().map(|round| value(round)).collect());
        println!(
            "| {} | {:.2} | {:.2} | {:.0} |",
            program.named(rounds.iter().map(|round| round[at].errors).sum()),
            over(&|round| round[at].cpu_us),
            over(&|round| round[at].cpu_us / round[0].cpu_us),
            over(&|round| round[at].requests_per_s),
        );
    }
    Ok(())
}

/// What sites, routes, a log and compression cost above serving a directory.
fn configured(
    eleven: &std::path::Path,
    site: &Site,
    asking: &Asking,
    options: &Options,
) -> Result<(), String> {
    let host = format!("Host: {}", many_sites::HOST);
    let small = [&*host];
    let browser = [&[&*host][..], &BROWSER_FIELDS].concat();
    let coded = [&[&*host, "Accept-Encoding: gzip, deflate, br, zstd"][..], &BROWSER_FIELDS].concat();
    let cases = [
        ("13-byte file", "/small.txt", &small[..], SMALL_BYTES),
        ("browser's 12 fields, 612-byte page", "/page.html", &browser[..], PAGE_BYTES),
        ("the same, with Accept-Encoding", "/page.html", &coded[..], PAGE_BYTES),
    ];
    let (bare, full) = (peers::eleven(eleven, site)?, peers::eleven_configured(eleven, site)?);
    println!(
        "\n### 50 sites of 20 routes, access log and compression, against `eleven serve DIR` without a log\n"
    );
    println!(
        "| request | bare, CPU µs | configured, CPU µs | configured / bare | least … most |\n|---|---|---|---|---|"
    );
    for (name, path, fields, body_bytes) in cases {
        let asking = Asking { path, fields, ..asking.clone() };
        for program in [&bare, &full] {
            load::check(program, path, fields, body_bytes)?;
            load::wrk(program, &Asking { seconds: 1, ..asking.clone() })?;
        }
        let (mut alone, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            // Who goes first changes, so that neither gains by a machine that grows busier.
            let order = if round % 2 == 0 { [&bare, &full] } else { [&full, &bare] };
            let one = load::wrk(order[0], &asking)?.cpu_us;
            let other = load::wrk(order[1], &asking)?.cpu_us;
            let (bare_us, full_us) = if round % 2 == 0 { (one, other) } else { (other, one) };
            alone.push(bare_us);
            with.push(full_us);
            ratios.push(full_us / bare_us);
        }
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        println!(
            "| {name} | {:.2} | {:.2} | {:.3} | {least:.2} … {most:.2} |",
            median(alone),
            median(with),
            median(ratios)
        );
    }
    Ok(())
}

fn large_files(eleven: &std::path::Path, site: &Site, options: &Options) -> Result<(), String> {
    let programs = &servers(eleven, site, "keep", SMALL_BYTES)?[1..];
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let round =
            programs.iter().map(|p| on_load_core(|| load::large_file(p, "/large.bin", LARGE_BYTES, 8)));
        rounds.push(round.collect::<Result<Vec<_>, _>>()?);
    }
    println!("\n### 256 MiB file\n\n| program | CPU s a GiB | GiB/s |\n|---|---|---|");
    for (at, program) in programs.iter().enumerate() {
        let cpu = median(rounds.iter().map(|round| round[at].0).collect());
        let speed = median(rounds.iter().map(|round| round[at].1).collect());
        println!("| {} | {cpu:.3} | {speed:.2} |", program.name);
    }
    Ok(())
}

fn idle(eleven: &std::path::Path, site: &Site) -> Result<(), String> {
    println!(
        "\n### 10,000 idle keep-alive connections\n\n| program | resident bytes a connection |\n|---|---|"
    );
    for program in servers(eleven, site, "keep", SMALL_BYTES)? {
        let bytes = on_load_core(|| load::idle_connections(&program, "/small.txt", 9_900))?;
        println!("| {} | {bytes:.0} |", program.name);
    }
    Ok(())
}

fn slow(eleven: &std::path::Path, site: &Site) -> Result<(), String> {
    println!("\n### Honest requests while 15,000 connections send one octet of a head a second\n");
    println!("| program | p99 unloaded, ms | p99 under attack, ms | × |\n|---|---|---|---|");
    for program in servers(eleven, site, "keep", SMALL_BYTES)?.iter().skip(1) {
        let (calm, loaded) = on_load_core(|| load::slow_heads(program, "/small.txt", 15_000, 10_000))?;
        println!("| {} | {calm:.3} | {loaded:.3} | {:.2} |", program.name, loaded / calm);
    }
    Ok(())
}

/// Runs the load of this process on its own core; `work` may start threads, which stay there too.
fn on_load_core<T>(work: impl FnOnce() -> T) -> T {
    let whole = rustix::thread::sched_getaffinity(None);
    let mut core = rustix::thread::CpuSet::new();
    core.set(LOAD_CORE.parse().expect("a core's number"));
    let _ = rustix::thread::sched_setaffinity(None, &core);
    let done = work();
    if let Ok(whole) = whole {
        let _ = rustix::thread::sched_setaffinity(None, &whole);
    }
    done
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
