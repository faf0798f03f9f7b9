//! `eleven cache list`, `purge` and `stats`: questions to the admin listener of a running server.

use super::super::Failure;
use super::Trusting;
use crate::admin::AskOptions;
use crate::command::get::show::harmless;
use clap::Args;
use eleven_client::agent::{Ask, Options as AgentOptions};
use eleven_net::listener::ListenAddr;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Known, Method};
use serde_json::Value;
use std::process::ExitCode;

/// Octets of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which stored responses.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Selected {
    /// Everything at this URL; with a final `*`, all URLs that begin so.
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// All with this tag: of Surrogate-Key, Cache-Tag or Cache-Groups.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// All of this site (http://HOST) in this cache group (RFC 9875).
    #[arg(long, num_args = 2, value_names = ["SITE", "GROUP"])]
    group: Option<Vec<String>>,
}

impl Selected {
    fn query(&self) -> Vec<(&'static str, String)> {
        match (&self.url, &self.tag, self.group.as_deref()) {
            (Some(url), _, _) => {
                let full = if url.contains("://") { url.clone() } else { format!("http://{url}") };
                vec![("url", full)]
            }
            (_, Some(tag), _) => vec![("tag", tag.clone())],
            (_, _, Some([site, group])) => vec![("site", site.clone()), ("group", group.clone())],
            _ => Vec::new(),
        }
    }
}

/// `eleven cache list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    selected: Selected,
    /// The newest so many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    max: usize,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AskOptions,
}

/// `eleven cache purge`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(false).args(["url", "tag", "group", "everything"]))]
pub struct Purge {
    #[command(flatten)]
    selected: Selected,
    /// All that is stored.
    #[arg(long)]
    everything: bool,
    /// Do not remove it: have it validated before its next use.
    #[arg(long)]
    soft: bool,
    /// Only count it.
    #[arg(long, conflicts_with = "soft")]
    dry_run: bool,
    #[command(flatten)]
    admin: AskOptions,
}

/// `eleven cache stats`.
#[derive(Debug, Args)]
pub struct Stats {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AskOptions,
}

impl List {
    /// Does it.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        let mut query = self.selected.query();
        query.push(("max", self.max.to_string()));
        let answer = ask(&self.admin, Method::Get, "list", &query).await?;
        if self.json {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        let entries = answer["entries"].as_array().map_or(&[][..], Vec::as_slice);
        if !entries.is_empty() {
            println!("{:>6} {:>10} {:>9} {:>9} {:<11} URL", "STATUS", "BYTES", "AGE", "FRESH", "WHERE");
        }
        for entry in entries {
            println!("{}", line(entry));
        }
        let total = answer["total"].as_u64().unwrap_or(0);
        if total as usize > entries.len() {
            println!("{} of {total}; --max shows more", entries.len());
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A stored response on a line.
pub fn line(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| entry[name].as_i64();
    let (ttl, marked) = (number("ttl_seconds").unwrap_or(0), entry["marked"] == Value::Bool(true));
    let fresh = match (marked, ttl) {
        (true, _) => "purged".into(),
        (false, ttl) if ttl > 0 => seconds(ttl),
        _ => "stale".into(),
    };
    let place = match (entry["memory"] == Value::Bool(true), entry["disk"] == Value::Bool(true)) {
        (true, true) => "memory+disk",
        (true, false) => "memory",
        _ => "disk",
    };
    let list = |name: &str| -> Vec<String> {
        let items = entry[name].as_array().map_or(&[][..], Vec::as_slice);
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let mut more = String::new();
    if entry["partial"] == Value::Bool(true) {
        more.push_str("  part");
    }
    for (word, items) in [("vary", list("vary")), ("tags", list("tags"))] {
        if !items.is_empty() {
            more.push_str(&format!("  {word}: {}", items.join(" ")));
        }
    }
    let bytes = number("bytes").map_or_else(|| "?".into(), |n| n.to_string());
    let (status, age) = (number("status").unwrap_or(0), seconds(number("age_seconds").unwrap_or(0)));
    let shown = harmless(format!("{}{more}", text("url")).as_bytes());
    format!("{status:>6} {bytes:>10} {age:>9} {fresh:>9} {place:<11} {shown}")
}

fn seconds(seconds: i64) -> String {
    match seconds {
        s if s < 600 => format!("{s}s"),
        s if s < 36_000 => format!("{}m", s / 60),
        s if s < 864_000 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

impl Purge {
    /// Does it.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        let mut query = self.selected.query();
        if self.everything {
            query.push(("everything", "1".into()));
        }
        let how = match (self.soft, self.dry_run) {
            (_, true) => "dry-run",
            (true, false) => "soft",
            (false, false) => "hard",
        };
        query.push(("how", how.into()));
        let answer = ask(&self.admin, Method::Post, "purge", &query).await?;
        let count = answer["purged"].as_u64().unwrap_or(0);
        let responses =
            if count == 1 { "1 stored response".into() } else { format!("{count} stored responses") };
        // What is on disk only is met when it is looked for, and not counted before.
        let (place, more) = match answer["counted_all"] {
            Value::Bool(true) => ("", ""),
            _ => (" in memory", ", and whatever matches on disk"),
        };
        match how {
            // Mostly it is the name that differs: keys have the host that clients ask for.
            _ if count == 0 && more.is_empty() && self.selected.url.is_some() => {
                println!("nothing is stored under this URL; `eleven cache list` shows what is")
            }
            "dry-run" => println!("{responses} would be purged"),
            "soft" => println!("{responses}{place}{more}: validated before the next use"),
            _ => println!("{responses}{place} removed{more}"),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Stats {
    /// Does it.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        let answer = ask(&self.admin, Method::Get, "stats", &[]).await?;
        if self.json {
            println!("{answer}");
            return Ok(ExitCode::SUCCESS);
        }
        let number = |name: &str| answer[name].as_u64();
        let of = |used: &str, most: &str| {
            let most = number(most).map_or(String::new(), |most| format!(" of {}", size(most)));
            format!("{}{most}", size(number(used).unwrap_or(0)))
        };
        let count = |name: &str| number(name).unwrap_or(0);
        println!("{}", requests(&answer["requests"]));
        let keys = |name: &str| match count(name) {
            1 => "1 key".to_owned(),
            count => format!("{count} keys"),
        };
        println!("memory    {}, {}", of("memory_bytes", "memory_bytes_max"), keys("memory_keys"));
        if number("disk_bytes_max").is_some() {
            println!("disk      {}, {}", of("disk_bytes", "disk_bytes_max"), keys("disk_keys"));
            println!("corrupt   {} objects dropped since the start", count("corrupt_dropped"));
            println!("errors    {} of the disk since the start", count("disk_errors"));
        }
        println!("fetching  {}", count("fetching"));
        Ok(ExitCode::SUCCESS)
    }
}

/// What became of the requests, and which part of them needed no server.
fn requests(verdicts: &Value) -> String {
    let number = |word: &str| verdicts[word].as_u64().unwrap_or(0);
    let words = ["HIT", "STALE", "VALIDATED", "MISS", "BYPASS"];
    let counts: Vec<String> =
        words.iter().map(|word| format!("{} {}", number(word), word.to_lowercase())).collect();
    let all: u64 = words.iter().map(|word| number(word)).sum();
    let stored = number("HIT") + number("STALE");
    let part = match all {
        0 => String::new(),
        _ => format!("; {:.1} % from the store alone", stored as f64 * 100.0 / all as f64),
    };
    format!("requests  {}{part}", counts.join(", "))
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// Asks the admin listener something about its cache.
pub async fn ask(
    admin: &AskOptions,
    method: Method,
    place: &str,
    query: &[(&str, String)],
) -> Result<Value, Failure> {
    let encoded: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let query = if encoded.is_empty() { String::new() } else { format!("?{}", encoded.join("&")) };
    ask_for(admin, method, &format!("/cache/{place}{query}")).await
}

/// Asks the admin listener for JSON.
///
/// # Errors
/// If it cannot be reached, or answers with anything else.
pub async fn ask_for(admin: &AskOptions, method: Method, target: &str) -> Result<Value, Failure> {
    let address = match &admin.admin {
        Some(address) => address.clone(),
        None => eleven_server::admin::DEFAULT_ADDRESS.parse().map_err(Failure)?,
    };
    let (host, unix_socket) = match &address {
        ListenAddr::Tcp { host, port } => {
            let host = host.clone().unwrap_or_else(|| "localhost".into());
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            (format!("{host}:{port}"), None)
        }
        ListenAddr::Unix(path) => ("localhost".to_owned(), Some(path.clone())),
        ListenAddr::Inherited(_) => {
            return Err(Failure("give the address of the admin listener: HOST:PORT or unix:PATH".into()));
        }
    };
    let (uri, _) = Uri::parse(format!("http://{host}{target}").as_bytes())
        .map_err(|why| Failure(format!("{address}: {why}")))?;
    let trusting = Trusting { cacert: Vec::new(), insecure: false };
    let agent = trusting.agent(AgentOptions { unix_socket, ..AgentOptions::default() }, 1);
    let mut request = Ask::get(uri);
    request.method = method;
    if let Some(token) = admin.token_text()? {
        request.fields.push(Known::Authorization, format!("Bearer {token}"))?;
    }
    let mut response = agent.send(request).await.map_err(|failure| {
        Failure(format!(
            "no answer from the admin listener on {address}: {failure}; was the server started with --admin?"
        ))
    })?;
    let status = response.head().status;
    let mut octets = Vec::new();
    while let Some(data) = response.data().await? {
        octets.extend_from_slice(data);
        if octets.len() > ANSWER_BYTES_MAX {
            return Err(Failure("the answer of the admin listener is too long".into()));
        }
    }
    let value: Option<Value> = serde_json::from_slice(&octets).ok();
    match (status.code(), value) {
        (200, Some(value)) => Ok(value),
        (code, value) => {
            let why = value.as_ref().and_then(|value| value["error"].as_str().map(str::to_owned));
            let text = why.unwrap_or_else(|| harmless(&octets[..octets.len().min(300)]).trim().to_owned());
            Err(Failure(format!("the admin listener on {address} answers {code}: {text}")))
        }
    }
}

/// A value in a query.
pub fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~/:*".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words() {
        for (value, expected) in [("http://h/a?b=c&d", "http://h/a%3Fb%3Dc%26d"), ("é +", "%C3%A9%20%2B")] {
            assert_eq!(encode(value), expected);
        }
        for (bytes, expected) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (10 << 30, "10.0 GiB")] {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!(
            requests(&json!({ "HIT": 6, "STALE": 1, "MISS": 3 })),
            "requests  6 hit, 1 stale, 0 validated, 3 miss, 0 bypass; 70.0 % from the store alone"
        );
        assert_eq!(requests(&json!({})), "requests  0 hit, 0 stale, 0 validated, 0 miss, 0 bypass");
        let entry = json!({
            "url": "http://h/\u{1b}[2J", "status": 200, "bytes": 6, "age_seconds": 5, "ttl_seconds": 7200,
            "marked": false, "memory": true, "disk": true, "tags": ["red"], "vary": [], "partial": false,
        });
        let line = line(&entry);
        assert!(line.contains("200") && line.contains("120m") && line.contains("memory+disk"), "{line}");
        // What strangers named cannot steer the terminal.
        assert!(line.contains("tags: red") && !line.contains('\u{1b}'), "{line}");
    }
}
