//! `eleven cache explain`: asks for a URL, or reads a head that is given, and says what a cache makes of it.

use super::super::Failure;
use super::{Trusting, admin, fields, url};
use crate::admin::AskOptions;
use crate::command::get::show::harmless;
use clap::Args;
use eleven_client::agent::{Ask, Options as AgentOptions};
use eleven_net::clock;
use eleven_semantics::caching::explain::{Explanation, explain};
use eleven_semantics::caching::{Cookies, Policy, Request, Response, invalidation, key};
use eleven_semantics::date::HttpDate;
use eleven_semantics::grammar;
use eleven_semantics::target::Authority;
use eleven_semantics::{Fields, Known, Method, Status};
use serde_json::json;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

/// Octets of a head that is read.
const HEAD_BYTES_MAX: u64 = 256 * 1024;

/// `eleven cache explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven cache explain https://example.com/\n  eleven cache explain -H 'Authorization: x' http://example.com/api\n  curl -sI http://example.com/ | eleven cache explain --head -\n\nWith --admin it also says what the running cache has stored for the URL.",
    mut_arg("admin", |admin| admin.help("Ask this running server's admin listener, too: HOST:PORT or unix:PATH"))
)]
pub struct Explain {
    /// The URL. Redirections are explained, not followed.
    #[arg(value_name = "URL", required_unless_present = "head")]
    url: Option<String>,
    /// Read the response's head from this file (- is standard input) in place of asking.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// The method that is asked with.
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A field of the request. May be given several times.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// As a private cache sees it (a browser), not a shared one.
    #[arg(long)]
    private: bool,
    /// As a cache sees it that is careful with cookies.
    #[arg(long, conflicts_with = "private")]
    careful_with_cookies: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trusting: Trusting,
    #[command(flatten)]
    admin: AskOptions,
}

impl Explain {
    /// Does it.
    pub async fn run(self) -> Result<ExitCode, Failure> {
        let method = Method::from_bytes(self.method.as_bytes())
            .filter(|method| matches!(method, Method::Get | Method::Head | Method::Post))
            .ok_or_else(|| {
                Failure(format!("{}: the responses to GET and POST can be stored", self.method))
            })?;
        let asked = fields(&self.header)?;
        let (status, received) = match &self.head {
            Some(file) => head(&read(file)?)?,
            None => self.fetch(&method, &asked).await?,
        };
        let cookies = if self.careful_with_cookies { Cookies::Careful } else { Cookies::PerRfc };
        let policy = if self.private { Policy::private() } else { Policy { cookies, ..Policy::default() } };
        // The response to HEAD has the fields of the one to GET, which is the one that is stored.
        let judged = if method == Method::Head { Method::Get } else { method };
        let request = Request { method: &judged, fields: &asked, has_content: false };
        let response = Response { status, fields: &received };
        let now = HttpDate(clock::unix_seconds());
        let explained = explain(&request, &response, &policy, self.is_own_location(&received), now);
        if self.json {
            println!("{}", as_json(status, &received, &explained));
        } else {
            print(status, &received, &explained);
        }
        if let (Some(url), Some(_)) = (&self.url, &self.admin.admin) {
            self.stored(url).await?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn fetch(&self, method: &Method, asked: &Fields) -> Result<(Status, Fields), Failure> {
        let uri = url(self.url.as_deref().unwrap_or_default())?;
        let agent = self.trusting.agent(AgentOptions::default(), 1);
        let mut ask = Ask::get(uri);
        ask.method = method.clone();
        ask.fields = asked.clone();
        ask.close = true;
        let response = agent.send(ask).await?;
        let head = response.head();
        Ok((head.status, head.fields.clone()))
    }

    /// Whether Content-Location is the target itself (RFC 9110 §9.3.3).
    fn is_own_location(&self, received: &Fields) -> bool {
        let Some(uri) = self.url.as_deref().and_then(|text| url(text).ok()) else { return false };
        let authority = uri.authority();
        let Ok(authority) = Authority::parse(authority.as_bytes()) else { return false };
        let site = key::Site::new(uri.scheme(), &authority);
        let target = uri.path_and_query().as_bytes();
        received
            .only(Known::ContentLocation)
            .one()
            .and_then(|reference| invalidation::resolve(&site, target, reference))
            .is_some_and(|resolved| resolved == target)
    }

    /// What the running cache has.
    async fn stored(&self, url: &str) -> Result<(), Failure> {
        let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let answer = admin::ask(&self.admin, Method::Get, "list", &[("url", full)]).await?;
        let entries = answer["entries"].as_array().map_or(&[][..], Vec::as_slice);
        println!();
        println!(
            "The running cache has {} of it{}",
            entries.len(),
            if entries.is_empty() { "." } else { ":" }
        );
        for entry in entries {
            println!("{}", admin::line(entry));
        }
        Ok(())
    }
}

fn print(status: Status, received: &Fields, explained: &Explanation) {
    println!("{status}");
    let of_caching = [
        "Date",
        "Age",
        "Cache-Control",
        "CDN-Cache-Control",
        "Surrogate-Control",
        "Expires",
        "Last-Modified",
        "ETag",
        "Vary",
        "Pragma",
        "Set-Cookie",
        "Content-Location",
        "Cache-Status",
    ];
    for name in of_caching {
        for value in received.all(name) {
            println!("  {name}: {}", harmless(value));
        }
    }
    println!();
    for sentence in &explained.sentences {
        println!("- {}", harmless(sentence.as_bytes()));
    }
}

fn as_json(status: Status, received: &Fields, explained: &Explanation) -> serde_json::Value {
    json!({
        "status": status.code(),
        "cache_control": received.combined("Cache-Control").map(|v| String::from_utf8_lossy(&v).into_owned()),
        "stored": explained.stored.is_ok(),
        "not_stored": explained.stored.err().map(|why| why.token()),
        "fresh": explained.is_fresh,
        "fresh_seconds": explained.fresh_seconds,
        "sentences": explained.sentences,
    })
}

fn read(file: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut octets = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().take(HEAD_BYTES_MAX).read_to_end(&mut octets)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(HEAD_BYTES_MAX).read_to_end(&mut octets))
    }
    .map_err(|error| Failure(format!("{}: {error}", file.display())))?;
    Ok(octets)
}

/// A head as people have it in files: a status line (or none: 200), and field lines, ended by whatever.
fn head(octets: &[u8]) -> Result<(Status, Fields), Failure> {
    let (mut status, mut fields) = (Status::OK, Fields::new());
    for (number, line) in octets.split(|&b| b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let wrong = || Failure(format!("line {} is no field: {}", number + 1, harmless(line)));
        if number == 0 && line.starts_with(b"HTTP/") {
            let code = line.split(|&b| b == b' ').nth(1).and_then(grammar::decimal);
            status = code.and_then(|code| Status::new(u16::try_from(code).ok()?)).ok_or_else(wrong)?;
            continue;
        }
        let at = line.iter().position(|&b| b == b':').ok_or_else(wrong)?;
        fields.push(&line[..at], grammar::trim_ows(&line[at + 1..])).map_err(|_| wrong())?;
    }
    Ok((status, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let (status, fields) =
            head(b"HTTP/1.1 404 Not Found\r\nCache-Control:  max-age=5 \r\n\r\nrest").unwrap();
        assert_eq!((status.code(), fields.get("Cache-Control")), (404, Some(&b"max-age=5"[..])));
        let (status, fields) = head(b"Expires: 0\nVary: A").unwrap();
        assert_eq!((status, fields.get("vary")), (Status::OK, Some(&b"A"[..])));
        for bad in [&b"HTTP/1.1 abc\r\n"[..], b"no colon", b": x", b"a b: x", b"HTTP/1.1 99999 x"] {
            assert!(head(bad).is_err(), "{bad:?}");
        }
    }
}
