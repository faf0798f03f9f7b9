//! `--write-out`: what became of one URL, in the words and variables that scripts know from curl.

use super::exit;
use eleven_client::agent::{Hop, Times};
use eleven_client::{Cause, Failure};
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Known, Version};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// What is known of one URL at its end.
pub struct Report {
    uri: Uri,
    method: String,
    begun: Instant,
    /// The last response, if one came.
    pub answer: Option<Answer>,
    /// Octets of content received.
    pub bytes: u64,
    /// Where it was saved.
    pub path: Option<PathBuf>,
}

/// What is known of a response.
pub struct Answer {
    /// Who answered.
    pub uri: Uri,
    /// The way there.
    pub redirects: usize,
    /// Its status.
    pub status: u16,
    /// Its version.
    pub version: Version,
    /// Its fields.
    pub fields: Fields,
    /// How long it took.
    pub times: Times,
    /// The address that answered.
    pub address: Option<SocketAddr>,
}

impl Answer {
    /// Of a response whose content is still to come.
    pub fn of(response: &eleven_client::agent::Response) -> Answer {
        let head = response.head();
        Answer {
            uri: response.uri.clone(),
            redirects: response.hops.len(),
            status: head.status.code(),
            version: head.version,
            fields: head.fields.clone(),
            times: response.times,
            address: response.address(),
        }
    }

    /// Of what a download tells at its end.
    pub fn done(done: &eleven_client::download::Done) -> Answer {
        let hops: &[Hop] = &done.hops;
        Answer {
            uri: done.uri.clone(),
            redirects: hops.len(),
            status: done.status.code(),
            version: Version::Http11,
            fields: done.fields.clone(),
            times: done.times,
            address: done.address,
        }
    }
}

/// The variables there are. `%header{NAME}` is one more.
const VARIABLES: [&str; 23] = [
    "content_type",
    "errormsg",
    "exitcode",
    "filename_effective",
    "http_code",
    "http_version",
    "method",
    "num_redirects",
    "redirect_url",
    "remote_ip",
    "remote_port",
    "response_code",
    "scheme",
    "size_download",
    "speed_download",
    "time_appconnect",
    "time_connect",
    "time_namelookup",
    "time_pretransfer",
    "time_starttransfer",
    "time_total",
    "url",
    "url_effective",
];

/// A piece of a format.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Char(char),
    Variable(&'a str),
    Field(&'a str),
}

/// A format in pieces.
///
/// # Errors
/// The first variable that is unknown.
fn pieces(format: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find(['%', '\\']) {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let mark = &rest[at..];
        let escape = match mark.as_bytes().get(..2) {
            Some(b"%%") => Some('%'),
            Some(b"\\n") => Some('\n'),
            Some(b"\\r") => Some('\r'),
            Some(b"\\t") => Some('\t'),
            Some(b"\\\\") => Some('\\'),
            _ => None,
        };
        let inside = |open: &str| mark.strip_prefix(open).and_then(|rest| rest.split_once('}'));
        rest = if let Some(escape) = escape {
            pieces.push(Piece::Char(escape));
            &mark[2..]
        } else if let Some((name, after)) = inside("%{") {
            if !VARIABLES.contains(&name) {
                return Err(format!(
                    "--write-out has no variable {name:?}; there are {}",
                    VARIABLES.join(", ")
                ));
            }
            pieces.push(Piece::Variable(name));
            after
        } else if let Some((name, after)) = inside("%header{") {
            pieces.push(Piece::Field(name));
            after
        } else {
            pieces.push(Piece::Text(&mark[..1]));
            &mark[1..]
        };
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// Whether a format can be used.
///
/// # Errors
/// Why not.
pub fn check(format: &str) -> Result<(), String> {
    pieces(format).map(|_| ())
}

impl Report {
    /// At the beginning.
    pub fn new(uri: Uri, method: &str) -> Report {
        Report { uri, method: method.to_owned(), begun: Instant::now(), answer: None, bytes: 0, path: None }
    }

    /// The text of a format.
    pub fn text(&self, format: &str, failure: Option<&Failure>) -> Vec<u8> {
        let total = self.begun.elapsed();
        let mut out = Vec::new();
        for piece in pieces(format).unwrap_or_default() {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                Piece::Variable(name) => out.extend_from_slice(self.value(name, failure, total).as_bytes()),
                Piece::Field(name) => out.extend_from_slice(
                    self.answer.as_ref().and_then(|answer| answer.fields.get(name)).unwrap_or_default(),
                ),
            }
        }
        out
    }

    fn value(&self, name: &str, failure: Option<&Failure>, total: Duration) -> String {
        let answer = self.answer.as_ref();
        let field = |name: Known| {
            let value = answer.and_then(|answer| answer.fields.get(name));
            value.map_or(String::new(), |value| String::from_utf8_lossy(value).into_owned())
        };
        let refused = failure.and_then(|failure| match failure.cause {
            Cause::Status(code) => Some(code),
            _ => None,
        });
        let open = answer.map(|answer| answer.times.open).unwrap_or_default();
        let seconds = |duration: Duration| format!("{:.6}", duration.as_secs_f64());
        let connected = open.resolve + open.connect;
        let ready = connected + open.tunnel + open.tls;
        match name {
            "content_type" => field(Known::ContentType),
            "errormsg" => failure.map_or(String::new(), ToString::to_string),
            "exitcode" => failure.map_or(0, exit::number).to_string(),
            "filename_effective" => {
                self.path.as_ref().map_or(String::new(), |path| path.display().to_string())
            }
            "http_code" | "response_code" => {
                format!("{:03}", answer.map(|answer| answer.status).or(refused).unwrap_or(0))
            }
            "http_version" => match answer.map(|answer| answer.version) {
                None => "0",
                Some(Version::Http11) => "1.1",
                Some(Version::Http10) => "1.0",
                Some(Version::Http09) => "0.9",
            }
            .to_owned(),
            "method" => self.method.clone(),
            "num_redirects" => answer.map_or(0, |answer| answer.redirects).to_string(),
            "redirect_url" => field(Known::Location),
            "remote_ip" => answer
                .and_then(|answer| answer.address)
                .map_or(String::new(), |address| address.ip().to_string()),
            "remote_port" => {
                answer.and_then(|answer| answer.address).map_or(0, |address| address.port()).to_string()
            }
            "scheme" => answer.map_or(&self.uri, |answer| &answer.uri).scheme().as_str().to_owned(),
            "size_download" => self.bytes.to_string(),
            "speed_download" => {
                format!("{:.0}", self.bytes as f64 / total.as_secs_f64().max(f64::MIN_POSITIVE))
            }
            "time_appconnect" if !open.tls.is_zero() => seconds(ready),
            "time_appconnect" => seconds(Duration::ZERO),
            "time_connect" => seconds(connected),
            "time_namelookup" => seconds(open.resolve),
            "time_pretransfer" => seconds(ready),
            "time_starttransfer" => {
                seconds(ready + answer.map(|answer| answer.times.wait).unwrap_or_default())
            }
            "time_total" => seconds(total),
            "url" => self.uri.to_string(),
            "url_effective" => answer.map_or(&self.uri, |answer| &answer.uri).to_string(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eleven_client::Phase;

    #[test]
    fn formats() {
        let uri = Uri::parse(b"http://h.example/x").unwrap().0;
        let mut report = Report::new(uri.clone(), "GET");
        report.bytes = 5;
        assert_eq!(report.text("%{http_code} 100%% %{nothing", None), b"000 100% %{nothing");
        report.answer = Some(Answer {
            uri,
            redirects: 2,
            status: 200,
            version: Version::Http11,
            fields: [("Content-Type", "text/html"), ("X-A", "b")].iter().collect(),
            times: Times::default(),
            address: Some("127.0.0.1:80".parse().unwrap()),
        });
        let format = "%{http_code}\\t%{size_download} %{num_redirects} %{content_type} %header{x-a}|%header{none} %{url_effective} %{remote_ip}:%{remote_port} %{exitcode}\\n";
        let expected = "200\t5 2 text/html b| http://h.example/x 127.0.0.1:80 0\n";
        assert_eq!(String::from_utf8(report.text(format, None)).unwrap(), expected);
        let failure = Failure::new(Phase::Head, Cause::Status(404));
        report.answer = None;
        let text =
            String::from_utf8(report.text("%{http_code} %{exitcode} %{errormsg}", Some(&failure))).unwrap();
        assert!(text.starts_with("404 12 ") && text.len() > 8, "{text}");
        for name in VARIABLES {
            assert!(check(&format!("%{{{name}}}")).is_ok());
        }
        assert!(check("%{no_such}").unwrap_err().contains("http_code"));
    }
}
