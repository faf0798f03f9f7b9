//! `eleven cache warm`: asks for URLs through a cache, so that it has them before anybody else asks. What comes is read
//! and thrown away.

use super::super::Failure;
use super::{Trusting, fields, url};
use crate::command::get::show::harmless;
use clap::Args;
use eleven_client::agent::{Agent, Ask, Options as AgentOptions};
use eleven_client::proxies::Proxies;
use eleven_semantics::Fields;
use eleven_semantics::uri::Uri;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

/// Octets of a sitemap or a list.
const LIST_BYTES_MAX: usize = 64 << 20;
/// URLs of one run. The protocol of sitemaps has 50,000 in a file.
const URLS_MAX: usize = 5_000_000;
/// Sitemaps that an index of sitemaps leads to.
const SITEMAPS_MAX: usize = 1000;
/// Failures that are named.
const NAMED_MAX: usize = 20;

/// `eleven cache warm`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven cache warm http://example.com/ http://example.com/a\n  eleven cache warm --list urls.txt --parallel 16\n  eleven cache warm --sitemap https://example.com/sitemap.xml\n  eleven cache warm --list urls.txt --through 127.0.0.1:8080     before the name leads to this cache"
)]
pub struct Warm {
    /// URLs.
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// A file with a URL on each line (- is standard input).
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// A sitemap (https://www.sitemaps.org/protocol.html), or an index of sitemaps: a URL or a file. May be given several times.
    #[arg(long, value_name = "URL|FILE")]
    sitemap: Vec<String>,
    /// Ask this cache for all http URLs, whatever their host.
    #[arg(long, value_name = "HOST:PORT")]
    through: Option<String>,
    /// Requests at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// A field of the requests, for responses that vary by it. May be given several times.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    trusting: Trusting,
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    fetched: usize,
    bytes: u64,
    failed: usize,
    named: Vec<String>,
}

impl Warm {
    /// Does it. Fails if any URL did.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        let mut agent = self.trusting.agent(AgentOptions::default(), usize::from(self.parallel));
        if let Some(through) = &self.through {
            agent = agent.with_proxies(Proxies::one(through, "").map_err(Failure)?);
        }
        let agent = Rc::new(agent);
        let asked = Rc::new(fields(&self.header)?);
        let uris = self.uris(&agent, &asked).await?;
        if uris.is_empty() {
            return Err(Failure("there is nothing to fetch: give URLs, --list or --sitemap".into()));
        }
        if self.through.is_some()
            && let Some(uri) = uris.iter().find(|uri| uri.is_secure())
        {
            return Err(Failure(format!("{}: --through is for http URLs", uri.without_fragment())));
        }
        let bar = self.bar(uris.len());
        let total = uris.len();
        let queue = Rc::new(RefCell::new(VecDeque::from(uris)));
        let outcome = Rc::new(RefCell::new(Outcome::default()));
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..usize::from(self.parallel).min(total) {
            let (agent, asked, queue) = (agent.clone(), asked.clone(), queue.clone());
            let (outcome, bar) = (outcome.clone(), bar.clone());
            running.spawn_local(async move {
                loop {
                    let Some(uri) = queue.borrow_mut().pop_front() else { return };
                    let result = fetch(&agent, &asked, uri.clone()).await;
                    outcome.borrow_mut().note(&uri, result);
                    bar.inc(1);
                }
            });
        }
        while running.join_next().await.is_some() {}
        bar.finish_and_clear();
        let outcome = outcome.borrow();
        for line in &outcome.named {
            eprintln!("{line}");
        }
        if outcome.failed > outcome.named.len() {
            eprintln!("and {} more", outcome.failed - outcome.named.len());
        }
        if !self.quiet {
            println!(
                "{} of {total} fetched, {} octets; {} failed",
                outcome.fetched, outcome.bytes, outcome.failed
            );
        }
        Ok(if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    fn bar(&self, length: usize) -> ProgressBar {
        let shown = !self.quiet && std::io::stderr().is_terminal();
        let target =
            if shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length as u64), target);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}") {
            bar.set_style(style);
        }
        bar
    }

    /// All URLs, each once, in the order in which they were given.
    async fn uris(&self, agent: &Agent, asked: &Fields) -> Result<Vec<Uri>, Failure> {
        let mut texts = self.urls.clone();
        if let Some(list) = &self.list {
            let octets = read(list)?;
            let lines =
                octets.split(|&b| b == b'\n').map(|line| String::from_utf8_lossy(line).trim().to_owned());
            texts.extend(lines.filter(|line| !line.is_empty() && !line.starts_with('#')));
        }
        let mut sitemaps: VecDeque<String> = self.sitemap.iter().cloned().collect();
        let mut seen: HashSet<String> = HashSet::new();
        while let Some(place) = sitemaps.pop_front() {
            if !seen.insert(place.clone()) {
                continue;
            }
            if seen.len() > SITEMAPS_MAX {
                return Err(Failure(format!("there are more than {SITEMAPS_MAX} sitemaps")));
            }
            let octets = match place.contains("://") {
                true => body(agent, asked, url(&place)?).await?,
                false => read(Path::new(&place))?,
            };
            let (is_index, places) = locations(&octets, &place)?;
            if is_index { sitemaps.extend(places) } else { texts.extend(places) }
        }
        let mut known = HashSet::new();
        texts.retain(|text| known.insert(text.clone()));
        if texts.len() > URLS_MAX {
            return Err(Failure(format!("there are more than {URLS_MAX} URLs")));
        }
        texts.iter().map(|text| url(text)).collect()
    }
}

impl Outcome {
    fn note(&mut self, uri: &Uri, result: Result<(u16, u64), String>) {
        let why = match result {
            Ok((status, bytes)) if status < 400 => {
                self.fetched += 1;
                self.bytes += bytes;
                return;
            }
            Ok((status, _)) => format!("answered {status}"),
            Err(why) => why,
        };
        self.failed += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(harmless(format!("{}: {why}", uri.without_fragment()).as_bytes()));
        }
    }
}

/// Status and length of a response that came whole.
async fn fetch(agent: &Agent, asked: &Fields, uri: Uri) -> Result<(u16, u64), String> {
    let mut ask = Ask::get(uri);
    ask.fields = asked.clone();
    let mut response = agent.send(ask).await.map_err(|failure| failure.to_string())?;
    let status = response.head().status.code();
    let mut bytes = 0;
    while let Some(data) = response.data().await.map_err(|failure| failure.to_string())? {
        bytes += data.len() as u64;
    }
    response.finish().await;
    Ok((status, bytes))
}

/// The content of a sitemap.
async fn body(agent: &Agent, asked: &Fields, uri: Uri) -> Result<Vec<u8>, Failure> {
    let shown = uri.without_fragment();
    let mut ask = Ask::get(uri);
    ask.fields = asked.clone();
    let mut response = agent.send(ask).await?;
    let status = response.head().status;
    if status.code() != 200 {
        return Err(Failure(format!("{shown}: answered {status}")));
    }
    let mut octets = Vec::new();
    while let Some(data) = response.data().await? {
        octets.extend_from_slice(data);
        if octets.len() > LIST_BYTES_MAX {
            return Err(Failure(format!("{shown}: longer than {LIST_BYTES_MAX} octets")));
        }
    }
    response.finish().await;
    Ok(octets)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    let most = LIST_BYTES_MAX as u64;
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut octets)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut octets))
    }
    .map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    Ok(octets)
}

/// What stands in `<loc>` of a sitemap, and whether it is an index of sitemaps. A sitemap is so small a part of XML that
/// nothing else needs to be understood.
fn locations(octets: &[u8], place: &str) -> Result<(bool, Vec<String>), Failure> {
    if octets.starts_with(&[0x1f, 0x8b]) {
        return Err(Failure(format!(
            "{place}: is compressed; unpack it first, as with `eleven get URL | gunzip`"
        )));
    }
    let text = String::from_utf8_lossy(octets);
    let is_index = text.contains("<sitemapindex");
    if !is_index && !text.contains("<urlset") {
        return Err(Failure(format!("{place}: is no sitemap: it has neither <urlset> nor <sitemapindex>")));
    }
    let mut places = Vec::new();
    let mut rest = &*text;
    while let Some(at) = rest.find("<loc>") {
        rest = &rest[at + "<loc>".len()..];
        let Some(end) = rest.find("</loc>") else { break };
        let inner = rest[..end].trim();
        let inner =
            inner.strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>")).unwrap_or(inner);
        let mut url = inner.to_owned();
        for (entity, character) in
            [("&quot;", "\""), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")]
        {
            url = url.replace(entity, character);
        }
        places.push(url);
        rest = &rest[end..];
    }
    Ok((is_index, places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sitemaps() {
        let text = b"<?xml version=\"1.0\"?><urlset><url><loc> http://h/a?b&amp;c </loc><priority>1</priority></url>\
                     <url><loc><![CDATA[http://h/d]]></loc></url></urlset>";
        let (is_index, places) = locations(text, "x").unwrap();
        assert_eq!(
            (is_index, &places[..]),
            (false, &["http://h/a?b&c".to_owned(), "http://h/d".to_owned()][..])
        );
        let (is_index, places) = locations(b"<sitemapindex><sitemap><loc>http://h/1.xml</loc>", "x").unwrap();
        assert_eq!((is_index, places.len()), (true, 1));
        for bad in [&b"<html>"[..], b"\x1f\x8b\x08", b""] {
            assert!(locations(bad, "x").is_err());
        }
        let (_, places) = locations(b"<urlset><loc>http://h/never ends", "x").unwrap();
        assert!(places.is_empty());
    }
}
