//! `eleven upstreams`: the servers behind the gateways of a running server, and the switch that takes one out for a while.

use super::Failure;
use crate::admin::AskOptions;
use crate::command::cache::admin::{ask_for, encode};
use crate::command::get::show::harmless;
use clap::Args;
use eleven_semantics::Method;
use serde_json::Value;
use std::fmt::Write;
use std::process::ExitCode;

/// Arguments of `eleven upstreams`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven upstreams                                  all servers, and how they are\n  eleven upstreams --drain http://10.0.0.1:3000     no new requests for this one\n  eleven upstreams --undrain http://10.0.0.1:3000   it gets requests again"
)]
pub struct Upstreams {
    /// Give this server no new requests; those it has are finished. As named by `eleven upstreams`.
    #[arg(long, value_name = "SERVER", conflicts_with = "undrain")]
    drain: Option<String>,
    /// Give it requests again.
    #[arg(long, value_name = "SERVER")]
    undrain: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AskOptions,
}

impl Upstreams {
    /// Turns the switch, then shows all servers.
    ///
    /// # Errors
    /// If the admin listener does not answer, or there is no such server.
    pub fn run(self) -> Result<ExitCode, Failure> {
        eleven_net::worker::run(async move {
            for (place, name) in [("drain", &self.drain), ("undrain", &self.undrain)] {
                if let Some(name) = name {
                    let target = format!("/upstreams/{place}?name={}", encode(name));
                    ask_for(&self.admin, Method::Post, &target).await?;
                }
            }
            let answer = ask_for(&self.admin, Method::Get, "/upstreams/").await?;
            if self.json {
                println!("{answer}");
            } else {
                print!("{}", table(&answer));
            }
            Ok(ExitCode::SUCCESS)
        })?
    }
}

/// How a server is, in a word.
pub fn state(server: &Value) -> &'static str {
    let is = |what: &str| server[what].as_bool() == Some(true);
    match () {
        () if is("draining") => "draining",
        () if !is("healthy") => "down",
        () if is("ejected") => "left alone",
        () => "up",
    }
}

fn table(answer: &Value) -> String {
    let mut out = String::new();
    let servers = answer["upstreams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |server: &Value| harmless(server["name"].as_str().unwrap_or_default().as_bytes());
    let width = servers.iter().map(|server| name(server).chars().count()).max().unwrap_or(0).max(6);
    let _ = writeln!(
        out,
        "{:width$}  {:10}  {:>7}  {:>9}  {:>8}",
        "server", "state", "active", "requests", "failures"
    );
    for server in servers {
        let number = |what: &str| server[what].as_u64().unwrap_or(0);
        let _ = writeln!(
            out,
            "{:width$}  {:10}  {:>7}  {:>9}  {:>8}",
            name(server),
            state(server),
            number("active"),
            number("requests"),
            number("failures"),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn servers_stand_in_columns() {
        let server = |name: &str, healthy: bool, draining: bool| {
            json!({
                "name": name, "healthy": healthy, "draining": draining, "ejected": false,
                "active": 1, "requests": 20, "failures": 3,
            })
        };
        let answer = json!({ "upstreams": [
            server("http://a:1", true, false), server("http://long.example:2", true, true), server("unix:\u{1b}", false, false),
        ]});
        let text = table(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "http://a:1             up                1         20         3");
        assert!(lines[2].contains("draining") && lines[3].contains("down"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
