//! TLS beside nginx with OpenSSL, on the same versions and suites: full handshakes (and resumed ones) a CPU second of the
//! server, by `openssl s_time` with one small request each; and GiB a CPU second of a large file, by curl.

use crate::load;
use crate::peers::{self, LARGE_BYTES, SMALL_BYTES, Site};
use crate::process::{self, LOAD_CORE, Program};
use crate::{Options, median, on_load_core};
use std::path::Path;
use std::process::Command;

/// What kind of key a certificate has.
const KEYS: [(&str, &[&str]); 2] =
    [("ECDSA P-256", &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]), ("RSA 2048", &["rsa:2048"])];

/// Versions and suites of handshakes, and how s_time is asked for them; `{}` is the kind of key.
const HANDSHAKES: [(&str, &[&str]); 3] = [
    ("TLS 1.3", &["-new", "-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]),
    ("TLS 1.2", &["-new", "-tls1_2", "-cipher", "ECDHE+AESGCM+aECDSA:ECDHE+AESGCM+aRSA"]),
    ("TLS 1.2, resumed", &["-reuse", "-tls1_2", "-cipher", "ECDHE+AESGCM+aECDSA:ECDHE+AESGCM+aRSA"]),
];

/// Suites of bulk transfers, all of TLS 1.3.
const BULK: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Runs both parts and prints their tables.
///
/// # Errors
/// When a program is missing, ends, or answers wrongly.
pub fn compare(eleven: &Path, site: &Site, options: &Options) -> Result<(), String> {
    for program in ["openssl", "nginx", "curl"] {
        process::first_line(program, &["version"]).ok_or_else(|| format!("{program} is not installed"))?;
    }
    println!("- {}", process::first_line("openssl", &["version"]).unwrap_or_default());
    println!("\n### TLS handshakes, each with one request for a 13-byte file\n");
    println!(
        "| key | handshake | eleven, a CPU second | nginx, a CPU second | eleven / nginx | least … most |"
    );
    println!("|---|---|---|---|---|---|");
    for (key, kind) in KEYS {
        let programs = both(eleven, site, kind)?;
        for (name, asked) in HANDSHAKES {
            let run = |program: &Program| handshakes(program, asked, options.seconds);
            print_row(&format!("{key} | {name}"), &programs, options.rounds, run)?;
        }
    }
    println!("\n### 256 MiB file over TLS 1.3\n");
    println!(
        "| suite | eleven, GiB a CPU second | nginx, GiB a CPU second | eleven / nginx | least … most |"
    );
    println!("|---|---|---|---|---|");
    let programs = both(eleven, site, KEYS[0].1)?;
    for suite in BULK {
        print_row(suite, &programs, options.rounds, |program| bulk(program, suite))?;
    }
    Ok(())
}

fn both(eleven: &Path, site: &Site, kind: &[&str]) -> Result<[Program; 2], String> {
    let (certificate, key) = (site.beside("tls.pem"), site.beside("tls.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-newkey"])
        .args(kind)
        .args([Path::new("-keyout"), &key, Path::new("-out"), &certificate])
        .output()
        .map_err(|e| format!("cannot run openssl: {e}"))?;
    if !made.status.success() {
        return Err(format!("openssl req: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let programs = [
        peers::eleven_secured(eleven, site, &certificate, &key)?,
        peers::nginx_secured(site, &certificate, &key)?,
    ];
    for program in &programs {
        handshakes(program, HANDSHAKES[0].1, 1)?;
    }
    Ok(programs)
}

/// Rounds in turns, so that a machine that grows busier does it to both; medians, and the spread of the ratio.
fn print_row(
    name: &str,
    programs: &[Program; 2],
    rounds: usize,
    run: impl Fn(&Program) -> Result<f64, String>,
) -> Result<(), String> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let first = round % 2;
        let one = run(&programs[first])?;
        let other = run(&programs[1 - first])?;
        let (our, their) = if first == 0 { (one, other) } else { (other, one) };
        ours.push(our);
        theirs.push(their);
        ratios.push(our / their);
    }
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    println!(
        "| {name} | {:.2} | {:.2} | {:.3} | {least:.2} … {most:.2} |",
        median(ours),
        median(theirs),
        median(ratios)
    );
    Ok(())
}

/// Handshakes a CPU second of the program.
fn handshakes(program: &Program, asked: &[&str], seconds: u32) -> Result<f64, String> {
    let before = program.cpu_s();
    let out = Command::new("taskset")
        .args(["-c", LOAD_CORE, "openssl", "s_time", "-www", "/small.txt"])
        .args(["-connect", &program.address().to_string(), "-time", &seconds.to_string()])
        .args(asked)
        .output()
        .map_err(|e| format!("cannot run openssl: {e}"))?;
    let cpu_s = program.cpu_s() - before;
    let text = String::from_utf8_lossy(&out.stdout);
    // "1234 connections in 1.00s; ..." and "1234 connections in 4 real seconds, 139 bytes read per connection".
    let line = text.lines().find(|line| line.contains(" real seconds, "));
    let count = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let bytes = line.and_then(|line| {
        line.split_once(" real seconds, ")?.1.split_whitespace().next()?.parse::<usize>().ok()
    });
    match (count, bytes) {
        (Some(count), Some(bytes)) if count > 0.0 && bytes > SMALL_BYTES => Ok(count / cpu_s),
        _ => Err(format!("{}: s_time counted nothing: {text}", program.name)),
    }
}

/// GiB a CPU second of the program.
fn bulk(program: &Program, suite: &str) -> Result<f64, String> {
    let times = 4;
    let before = program.cpu_s();
    for _ in 0..times {
        let got = Command::new("taskset")
            .args(["-c", LOAD_CORE, "curl", "-ks", "-o", "/dev/null", "-w", "%{size_download}"])
            .args(["--tlsv1.3", "--tls13-ciphers", suite])
            .arg(format!("https://{}/large.bin", program.address()))
            .output()
            .map_err(|e| format!("cannot run curl: {e}"))?;
        let size = String::from_utf8_lossy(&got.stdout).into_owned();
        if size.parse() != Ok(LARGE_BYTES) {
            return Err(format!("{}: curl got {size} octets by {suite}", program.name));
        }
    }
    let gib = (LARGE_BYTES * times) as f64 / f64::from(1u32 << 30);
    Ok(gib / (program.cpu_s() - before))
}

/// Resident octets for each of `count` TLS connections that have had one answer and are idle.
///
/// # Errors
/// As [`compare`].
pub fn idle(eleven: &Path, site: &Site) -> Result<(), String> {
    println!("\n### 10,000 idle TLS connections\n\n| program | resident bytes a connection |\n|---|---|");
    for program in both(eleven, site, KEYS[0].1)? {
        let bytes = on_load_core(|| load::idle_tls_connections(&program, "/small.txt", 9_900))?;
        println!("| {} | {bytes:.0} |", program.name);
    }
    Ok(())
}
