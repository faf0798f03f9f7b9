//! Gateways side by side: what forwarding costs above relaying octets, for small and large responses, for clients that do
//! not read, and for tunnels. The origin server shares the core of the load.

use crate::load::{self, Asking};
use crate::peers::{self, LARGE_BYTES, SMALL_BYTES, Site};
use crate::process::{self, LOAD_CORE, Program};
use crate::{BROWSER_FIELDS, Options, median, on_load_core, rates};
use std::path::Path;

/// The comparisons.
pub const NAMES: [&str; 5] = ["gateway", "gateway-browser", "gateway-large", "gateway-slow", "tunnel"];

/// Octets of the response that nobody reads, and how many do not.
const UNREAD_BYTES: u64 = 20_000_000;
const UNREADING_CLIENTS: usize = 300;

/// Runs the comparison of this name and prints its table.
///
/// # Errors
/// When a program cannot be started or answers wrongly.
pub fn compare(
    name: &str,
    eleven: &Path,
    site: &Site,
    asking: &Asking,
    options: &Options,
) -> Result<(), String> {
    match name {
        "gateway" => {
            let origin = peers::origin(LOAD_CORE)?;
            let programs = programs(eleven, site, origin.port, false)?;
            rates("Gateway, keep-alive, 13 bytes", &programs, asking, SMALL_BYTES, options)
        }
        "gateway-browser" => {
            let origin = peers::origin(LOAD_CORE)?;
            let programs = programs(eleven, site, origin.port, false)?;
            let asking = Asking { fields: &BROWSER_FIELDS, ..asking.clone() };
            rates(
                "Gateway, browser-like request (12 fields), 13 bytes",
                &programs,
                &asking,
                SMALL_BYTES,
                options,
            )
        }
        "gateway-large" => large(eleven, site, options),
        "gateway-slow" => unread(eleven, site),
        _ => tunnel(eleven, site, options),
    }
}

/// The smallest relay, eleven, and nginx and HAProxy where they are installed.
fn programs(eleven: &Path, site: &Site, origin: u16, switches: bool) -> Result<Vec<Program>, String> {
    let mut programs = vec![peers::relay(origin)?, peers::eleven_gateway(eleven, origin)?];
    if process::first_line("nginx", &["-v"]).is_some() {
        programs.push(peers::nginx_gateway(site, origin, switches)?);
    }
    if let Some(version) = process::first_line("haproxy", &["-v"]) {
        println!("\n- {version}");
        programs.push(peers::haproxy_gateway(site, origin)?);
    }
    Ok(programs)
}

fn large(eleven: &Path, site: &Site, options: &Options) -> Result<(), String> {
    let origin = peers::large_origin(LOAD_CORE, LARGE_BYTES)?;
    let programs = programs(eleven, site, origin.port, false)?;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let round =
            programs.iter().map(|p| on_load_core(|| load::large_file(p, "/large.bin", LARGE_BYTES, 4)));
        rounds.push(round.collect::<Result<Vec<_>, _>>()?);
    }
    println!(
        "\n### Gateway, 256 MiB response\n\n| program | CPU s a GiB | × smallest | GiB/s |\n|---|---|---|---|"
    );
    for (at, program) in programs.iter().enumerate() {
        let over =
            |value: &dyn Fn(&[(f64, f64)]) -> f64| median(rounds.iter().map(|round| value(round)).collect());
        println!(
            "| {} | {:.3} | {:.2} | {:.2} |",
            program.name,
            over(&|round| round[at].0),
            over(&|round| round[at].0 / round[0].0),
            over(&|round| round[at].1)
        );
    }
    Ok(())
}

fn unread(eleven: &Path, site: &Site) -> Result<(), String> {
    let origin = peers::large_origin(LOAD_CORE, UNREAD_BYTES)?;
    println!("\n### {UNREADING_CLIENTS} clients that do not read a response of 20 MB\n");
    println!("| program | resident KiB a client |\n|---|---|");
    // The relay waits for each client in turn, and so has no part in this.
    for program in programs(eleven, site, origin.port, false)?.iter().skip(1) {
        let bytes = on_load_core(|| load::unreading(program, "/large.bin", UNREADING_CLIENTS))?;
        println!("| {} | {:.1} |", program.name, bytes / 1024.0);
    }
    Ok(())
}

fn tunnel(eleven: &Path, site: &Site, options: &Options) -> Result<(), String> {
    let origin = peers::echo_origin(LOAD_CORE)?;
    let programs = programs(eleven, site, origin.port, true)?;
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let round = programs.iter().map(|p| on_load_core(|| load::messages(p, 32, options.seconds)));
        rounds.push(round.collect::<Result<Vec<_>, _>>()?);
    }
    println!("\n### Tunnel after Upgrade, messages of 32 bytes and back, 32 connections\n");
    println!("| program | CPU µs a message and its echo | × smallest | messages/s |\n|---|---|---|---|");
    for (at, program) in programs.iter().enumerate() {
        let over =
            |value: &dyn Fn(&[load::Rate]) -> f64| median(rounds.iter().map(|round| value(round)).collect());
        println!(
            "| {} | {:.2} | {:.2} | {:.0} |",
            program.name,
            over(&|round| round[at].cpu_us),
            over(&|round| round[at].cpu_us / round[0].cpu_us),
            over(&|round| round[at].requests_per_s)
        );
    }
    Ok(())
}
