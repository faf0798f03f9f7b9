//! `eleven top`: the figures of a running server in a terminal, as the admin listener tells them. What strangers sent is
//! shown without anything that could steer the terminal.

use super::Failure;
use crate::admin::AskOptions;
use crate::command::cache::admin::ask_for;
use crate::command::get::show::harmless;
use clap::Args;
use eleven_semantics::Method;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Lines of a list.
const LIST_MAX: usize = 8;
/// Width where the terminal does not say.
const WIDTH: usize = 100;

/// Arguments of `eleven top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven top                            the server behind 127.0.0.1:8011\n  eleven top --admin unix:/run/a.sock   another one\n  eleven top --once                     once, for a pipe or a bug report"
)]
pub struct Top {
    #[command(flatten)]
    admin: AskOptions,
    /// Show it once and end.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

impl Top {
    /// Shows the figures until interrupted.
    ///
    /// # Errors
    /// If the admin listener does not answer.
    pub fn run(self) -> Result<ExitCode, Failure> {
        eleven_net::worker::run(async move {
            let out = std::io::stdout();
            if self.once || !out.is_terminal() {
                let status = ask_for(&self.admin, Method::Get, "/status.json").await?;
                let _ =
                    out.lock().write_all(render(&status, Look { width: WIDTH, colour: false }).as_bytes());
                return Ok(ExitCode::SUCCESS);
            }
            let colour = std::env::var_os("NO_COLOR").is_none();
            let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
            // The other screen, without a cursor; both are undone at the end.
            let _ = out.lock().write_all(b"\x1b[?1049h\x1b[?25l");
            let result = loop {
                let status = match ask_for(&self.admin, Method::Get, "/status.json").await {
                    Ok(status) => status,
                    Err(failure) => break Err(failure),
                };
                let (width, height) = size();
                let text = render(&status, Look { width, colour });
                let lines: Vec<&str> = text.lines().take(height.saturating_sub(1)).collect();
                let mut frame = String::from("\x1b[H");
                for line in lines {
                    let _ = write!(frame, "{line}\x1b[K\r\n");
                }
                frame.push_str("\x1b[J");
                let mut terminal = out.lock();
                if terminal.write_all(frame.as_bytes()).and_then(|()| terminal.flush()).is_err() {
                    break Ok(ExitCode::SUCCESS);
                }
                drop(terminal);
                tokio::select! {
                    _ = &mut interrupted => break Ok(ExitCode::SUCCESS),
                    () = tokio::time::sleep(Duration::from_secs(self.interval)) => {}
                }
            };
            let mut terminal = out.lock();
            let _ = terminal.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| terminal.flush());
            result
        })?
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (WIDTH, 50),
    }
}

/// How it is shown.
#[derive(Clone, Copy)]
struct Look {
    width: usize,
    colour: bool,
}

impl Look {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// How many responses there were of a class of statuses, coloured by it.
    fn class(self, class: &str, n: u64) -> String {
        let code = match class {
            "2xx" => "32",
            "4xx" => "33",
            "5xx" => "31",
            _ => "0",
        };
        self.paint(code, &format!("{class} {}", count(n as f64)))
    }

    fn title(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// A text from a stranger, in so many columns at most.
    fn cut(self, text: &str, width: usize) -> String {
        let text = harmless(text.as_bytes());
        match text.char_indices().nth(width) {
            None => text,
            Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        }
    }
}

/// The figures as text.
fn render(status: &Value, look: Look) -> String {
    let mut out = String::new();
    totals(&mut out, status, look);
    busiest(&mut out, status, look);
    behind(&mut out, status, look);
    certificates(&mut out, status, look);
    refusals(&mut out, status, look);
    let process = &status["process"];
    let _ = writeln!(
        out,
        "\nmemory {}, {} of {} descriptors, {} threads",
        octets(number(&process["resident_bytes"]) as f64),
        number(&process["open_files"]),
        number(&process["open_files_max"]),
        number(&process["threads"]),
    );
    out
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Totals and rates: the process, its requests, connections and cache.
fn totals(out: &mut String, status: &Value, look: Look) {
    let state = match status["draining"].as_bool() {
        Some(true) => look.paint("33", "finishing"),
        _ => look.paint("32", "running"),
    };
    let up = status["now_unix_s"].as_i64().unwrap_or(0) - status["started_unix_s"].as_i64().unwrap_or(0);
    let version = look.cut(status["version"].as_str().unwrap_or("?"), 20);
    let _ = writeln!(out, "{} {version}  {state}  up {}", look.title("eleven"), span(up));
    let (recent, requests) = (&status["recent"], &status["requests"]);
    let _ = writeln!(
        out,
        "requests     {:>9}/s   {} in all   sent {}/s   received {}/s",
        count(recent["requests_per_s"].as_f64().unwrap_or(0.0)),
        count(number(&requests["total"]) as f64),
        octets(recent["sent_bytes_per_s"].as_f64().unwrap_or(0.0)),
        octets(recent["received_bytes_per_s"].as_f64().unwrap_or(0.0)),
    );
    let _ = writeln!(
        out,
        "latency      {:>9}     p90 {}   p99 {}",
        time(&recent["p50_us"]),
        time(&recent["p90_us"]),
        time(&recent["p99_us"])
    );
    let classes: Vec<String> = pairs(&requests["classes"]).map(|(class, n)| look.class(class, n)).collect();
    let _ = writeln!(out, "status       {}", classes.join("   "));
    let connections = &status["connections"];
    let states: Vec<String> = pairs(&connections["states"])
        .filter(|(_, n)| *n > 0)
        .map(|(state, n)| format!("{state} {}", count(n as f64)))
        .collect();
    let states = if states.is_empty() { "none open".into() } else { states.join("   ") };
    let accepted = count(number(&connections["accepted"]) as f64);
    let _ = writeln!(out, "connections  {states}   ({accepted} in all)");
    cache(out, &status["cache"]["verdicts"]);
}

/// How much came out of the cache, if there is one.
fn cache(out: &mut String, verdicts: &Value) {
    let Some(all) = verdicts.as_object() else { return };
    let all: u64 = all.values().map(number).sum();
    let hits: u64 = ["HIT", "STALE", "VALIDATED"].map(|word| number(&verdicts[word])).iter().sum();
    let words: Vec<String> = pairs(verdicts).map(|(word, n)| format!("{word} {}", count(n as f64))).collect();
    let share = if all == 0 { 0.0 } else { 100.0 * hits as f64 / all as f64 };
    let _ = writeln!(out, "cache        {share:.1} % from the store   {}", words.join("   "));
}

/// The paths asked for most.
fn busiest(out: &mut String, status: &Value, look: Look) {
    list(out, look, "\nBUSIEST PATHS", &status["busiest"], |item| {
        let name = format!("{}{}", item["site"].as_str().unwrap_or(""), item["path"].as_str().unwrap_or(""));
        format!(
            "{:>9}  {}",
            count(number(&item["requests"]) as f64),
            look.cut(&name, look.width.saturating_sub(11))
        )
    });
}

/// What stands behind: servers and applications.
fn behind(out: &mut String, status: &Value, look: Look) {
    list(out, look, "\nUPSTREAMS", &status["upstreams"], |item| {
        let health = match (item["draining"].as_bool(), item["healthy"].as_bool()) {
            (Some(true), _) => look.paint("33", "draining"),
            (_, Some(false)) => look.paint("31", "failing "),
            _ if item["ejected"].as_bool() == Some(true) => look.paint("31", "ejected "),
            _ => look.paint("32", "healthy "),
        };
        format!(
            "{health}  {:>5} now  {:>9} requests  {:>7} failures  {}",
            number(&item["active"]),
            count(number(&item["requests"]) as f64),
            count(number(&item["failures"]) as f64),
            look.cut(item["name"].as_str().unwrap_or(""), look.width.saturating_sub(58)),
        )
    });
    list(out, look, "\nAPPLICATIONS", &status["applications"], |item| {
        format!(
            "{:>4} workers  {:>5} running  {:>5} waiting  {}",
            number(&item["workers"]),
            number(&item["running"]),
            number(&item["waiting"]),
            look.cut(item["name"].as_str().unwrap_or(""), look.width.saturating_sub(46)),
        )
    });
}

/// The certificates, with the days they have left.
fn certificates(out: &mut String, status: &Value, look: Look) {
    list(out, look, "\nCERTIFICATES", &status["certificates"], |item| {
        let days = item["days_left"].as_i64().unwrap_or(0);
        let left = match days {
            ..0 => look.paint("31", "ended    "),
            0..15 => look.paint("33", &format!("{days:>4} days")),
            _ => format!("{days:>4} days"),
        };
        let names = item["names"].as_array().map_or(&[][..], Vec::as_slice);
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        format!("{left}  {}", look.cut(&names.join(", "), look.width.saturating_sub(12)))
    });
}

/// What was refused last.
fn refusals(out: &mut String, status: &Value, look: Look) {
    list(out, look, "\nLAST REFUSALS", &status["refusals"]["last"], |item| {
        let what = format!(
            "{} {}{}",
            item["method"].as_str().unwrap_or(""),
            item["site"].as_str().unwrap_or(""),
            item["target"].as_str().unwrap_or("")
        );
        format!(
            "{:>3}  {:<22} {:<16} {}",
            number(&item["status"]),
            look.cut(item["reason"].as_str().unwrap_or(""), 22),
            look.cut(item["client"].as_str().unwrap_or("-"), 39),
            look.cut(what.trim(), look.width.saturating_sub(46)),
        )
    });
}

fn list(out: &mut String, look: Look, title: &str, items: &Value, line: impl Fn(&Value) -> String) {
    let Some(items) = items.as_array().filter(|items| !items.is_empty()) else { return };
    let _ = writeln!(out, "{}", look.title(title));
    for item in items.iter().take(LIST_MAX) {
        let _ = writeln!(out, "{}", line(item));
    }
}

fn pairs(object: &Value) -> impl Iterator<Item = (&str, u64)> {
    object.as_object().into_iter().flatten().map(|(name, n)| (name.as_str(), n.as_u64().unwrap_or(0)))
}

fn scaled(n: f64, base: f64, units: &[&str]) -> String {
    let (mut n, mut unit) = (n, 0);
    while n >= base && unit + 1 < units.len() {
        n /= base;
        unit += 1;
    }
    if n >= 100.0 || n.fract() == 0.0 {
        format!("{n:.0}{}", units[unit])
    } else {
        format!("{n:.1}{}", units[unit])
    }
}

fn count(n: f64) -> String {
    if n < 10_000.0 { scaled(n, f64::INFINITY, &[""]) } else { scaled(n, 1000.0, &["", "k", "M", "G", "T"]) }
}

fn octets(n: f64) -> String {
    scaled(n, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn time(us: &Value) -> String {
    us.as_f64().map_or("-".into(), |us| scaled(us, 1000.0, &[" us", " ms", " s"]))
}

fn span(seconds: i64) -> String {
    match seconds {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Faults L01 and L04: what strangers sent neither ends a line nor steers the terminal.
    #[test]
    fn figures_as_text() {
        let status = json!({
            "version": "1.0", "now_unix_s": 1000, "started_unix_s": 400, "draining": false,
            "requests": { "total": 1_234_567, "classes": { "2xx": 1_000_000, "5xx": 3 } },
            "recent": { "requests_per_s": 12.5, "sent_bytes_per_s": 2048.0, "p50_us": 900, "p99_us": 1_500_000 },
            "connections": { "accepted": 7, "states": { "idle": 5, "head": 0 } },
            "cache": { "verdicts": { "HIT": 3, "MISS": 1 } },
            "busiest": [{ "site": "a.example", "path": "/\u{1b}[2J\nx", "requests": 12 }],
            "upstreams": [{ "name": "http://s:1", "healthy": false, "draining": false, "active": 2, "requests": 9 }],
            "certificates": [{ "names": ["a.example"], "days_left": -1 }, { "names": ["b.example"], "days_left": 3 }],
            "refusals": { "last": [{ "status": 403, "reason": "address", "client": "::1", "method": "GET",
                "site": "", "target": "/\u{9b}31m" }] },
            "process": { "resident_bytes": 5_242_880, "open_files": 9, "open_files_max": 1024, "threads": 3 },
        });
        let text = render(&status, Look { width: 60, colour: false });
        for line in [
            "eleven 1.0  running  up 10 min",
            "status       2xx 1M   5xx 3",
            "connections  idle 5   (7 in all)",
            "cache        75.0 % from the store   HIT 3   MISS 1",
            "ended      a.example",
            "   3 days  b.example",
            "memory 5 MiB, 9 of 1024 descriptors, 3 threads",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert!(text.contains("p99 1.5 s") && text.contains("12.5/s") && text.contains("failing"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{9b}'), "{text:?}");
        assert_eq!(text.lines().filter(|line| line.contains("a.example/")).count(), 1);
        // Without anything it still is a screen.
        assert!(render(&json!({}), Look { width: 10, colour: true }).contains("eleven"));
    }
}
