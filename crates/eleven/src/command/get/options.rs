//! The options of `eleven get`, as typed, and how their values are read.

use clap::{ArgAction, Args, ValueEnum};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// `eleven get`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  eleven get https://example.com/file.iso         save it here, with a progress bar\n  eleven get -c https://example.com/file.iso      go on where an earlier run stopped\n  eleven get --segments auto --sha256 HEX URL     use the whole line, verify the result\n  eleven get --json '{\"a\":1}' https://example.com/api\n  eleven get -o - https://example.com/ | less\n\nExit codes: 0 done, 2 usage, 3 unusable URL or option, 4 name not found, 5 no connection, 6 TLS, 7 certificate,\n8 timeout, 9 protocol broken, 10 closed or incomplete, 11 redirection, 12 status 4xx, 13 other status, 14 wrong\ncontent, 15 file, 16 content coding, 17 a limit, 18 proxy tunnel, 130 interrupted."
)]
pub struct Get {
    /// What to fetch.
    #[arg(value_name = "URL", required_unless_present = "urls_from")]
    pub urls: Vec<String>,
    /// Read more URLs from FILE, one a line; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub urls_from: Option<PathBuf>,
    /// Another place that has the same file; may be given several times.
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,

    /// Save as FILE; - for standard output. With several URLs one for each, in their order.
    #[arg(short, long, value_name = "FILE", help_heading = "Saving")]
    pub output: Vec<PathBuf>,
    /// Save under the remote name, also the one that Content-Disposition suggests, made safe.
    #[arg(short = 'O', long, help_heading = "Saving")]
    pub remote_name: bool,
    /// A private cache in this directory: what is stored there and fresh is printed without asking, what is stale is
    /// validated (RFC 9111). For what is printed.
    #[arg(long, value_name = "DIR", help_heading = "Saving")]
    pub cache: Option<PathBuf>,
    /// The directory to save in.
    #[arg(long, value_name = "DIR", default_value = ".", hide_default_value = true, help_heading = "Saving")]
    pub output_dir: PathBuf,
    /// Go on with what an earlier run left.
    #[arg(short = 'c', long = "continue", help_heading = "Saving")]
    pub resume: bool,
    /// Replace a file that exists.
    #[arg(long, conflicts_with = "rename", help_heading = "Saving")]
    pub overwrite: bool,
    /// Take the next free `name (1)` if the name is taken.
    #[arg(long, help_heading = "Saving")]
    pub rename: bool,
    /// Skip what has its name already, whatever it is.
    #[arg(long, visible_alias = "no-clobber", conflicts_with_all = ["overwrite", "rename", "resume"], help_heading = "Saving")]
    pub skip_existing: bool,
    /// Replace a file that exists if the server's was modified later, else leave it; saved files get the server's time.
    #[arg(short = 'N', long, conflicts_with_all = ["rename", "resume", "skip_existing"], help_heading = "Saving")]
    pub timestamping: bool,
    /// Saved files get the time at which the server's were modified.
    #[arg(short = 'R', long, help_heading = "Saving")]
    pub remote_time: bool,
    /// Make directories that are missing.
    #[arg(long, help_heading = "Saving")]
    pub create_dirs: bool,
    /// Save the content of an error response as well, as NAME.error; to standard output if that is the output.
    #[arg(long, visible_alias = "fail-with-body", help_heading = "Saving")]
    pub save_errors: bool,
    /// The SHA-256 that the file must have.
    #[arg(long, value_name = "HEX", value_parser = sha256, help_heading = "Saving")]
    pub sha256: Option<Sha256>,

    /// Connections for one file: a number up to 16, or auto.
    #[arg(long, value_name = "N", default_value = "1", value_parser = segments, help_heading = "Speed")]
    pub segments: SegmentsArg,
    /// Files at a time.
    #[arg(long, value_name = "N", default_value_t = 4, help_heading = "Speed")]
    pub parallel: usize,
    /// Send so many requests ahead of their answers on one connection, where many small files come from one
    /// origin.
    #[arg(long, value_name = "DEPTH", value_parser = clap::value_parser!(u8).range(1..=64), help_heading = "Speed")]
    pub pipeline: Option<u8>,
    /// Octets per second at most; with K, M or G.
    #[arg(long, value_name = "RATE", value_parser = bytes, help_heading = "Speed")]
    pub limit_rate: Option<Bytes>,
    /// Attempts after the first that make no progress.
    #[arg(long, value_name = "N", default_value_t = 5, help_heading = "Speed")]
    pub retry: u32,
    /// Seconds before the first retry; doubled with each that makes no progress.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds, help_heading = "Speed")]
    pub retry_delay: Seconds,
    /// Try again whatever went wrong with the server, also what another attempt will hardly change.
    #[arg(long, help_heading = "Speed")]
    pub retry_all_errors: bool,
    /// Octets of content at most; with K, M or G.
    #[arg(long, value_name = "SIZE", value_parser = bytes, help_heading = "Speed")]
    pub max_filesize: Option<Bytes>,

    /// The method.
    #[arg(short = 'X', long, value_name = "METHOD", help_heading = "Request")]
    pub request: Option<String>,
    /// A field of the request, `Name: value`; `Name:` leaves one out that would be sent.
    #[arg(short = 'H', long, value_name = "FIELD", help_heading = "Request")]
    pub header: Vec<String>,
    /// Content, as a form; @FILE reads a file. Several are joined by &.
    #[arg(short, long, value_name = "DATA", help_heading = "Request")]
    pub data: Vec<String>,
    /// Content, as it is; @FILE reads a file.
    #[arg(long, value_name = "DATA", help_heading = "Request")]
    pub data_binary: Vec<String>,
    /// Content, as a form; an @ has no meaning.
    #[arg(long, value_name = "DATA", help_heading = "Request")]
    pub data_raw: Vec<String>,
    /// Content, as a form, percent-encoded: CONTENT, NAME=CONTENT, @FILE or NAME@FILE.
    #[arg(long, value_name = "DATA", help_heading = "Request")]
    pub data_urlencode: Vec<String>,
    /// Put the content of -d into the query of a GET.
    #[arg(short = 'G', long, help_heading = "Request")]
    pub get: bool,
    /// Content in JSON; @FILE reads a file.
    #[arg(long, value_name = "DATA", help_heading = "Request")]
    pub json: Vec<String>,
    /// A part of a multipart form: name=value, or name=@FILE[;type=TYPE][;filename=NAME].
    #[arg(short = 'F', long, value_name = "PART", help_heading = "Request")]
    pub form: Vec<String>,
    /// Upload FILE by PUT; - for standard input.
    #[arg(short = 'T', long, value_name = "FILE", help_heading = "Request")]
    pub upload_file: Option<PathBuf>,
    /// USER:PASSWORD. The password can also come from --password-file.
    #[arg(short, long, value_name = "USER", help_heading = "Request")]
    pub user: Option<String>,
    /// Read the password from FILE's first line; - for standard input.
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    pub password_file: Option<PathBuf>,
    /// Read a bearer token from FILE's first line; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "user", help_heading = "Request")]
    pub bearer_file: Option<PathBuf>,
    /// Send credentials only when asked for them.
    #[arg(long, help_heading = "Request")]
    pub auth_on_demand: bool,
    /// Find credentials in ~/.netrc.
    #[arg(short, long, help_heading = "Request")]
    pub netrc: bool,
    /// Find credentials in FILE.
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    pub netrc_file: Option<PathBuf>,
    /// User-Agent.
    #[arg(short = 'A', long, value_name = "NAME", help_heading = "Request")]
    pub user_agent: Option<String>,
    /// Referer.
    #[arg(short = 'e', long, value_name = "URL", help_heading = "Request")]
    pub referer: Option<String>,
    /// Cookies, `name=value; name=value`.
    #[arg(short = 'b', long, value_name = "COOKIES", help_heading = "Request")]
    pub cookie: Option<String>,
    /// Load cookies from FILE and save them there.
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    pub cookie_jar: Option<PathBuf>,
    /// Only these octets, as 0-499, 500- or -500; from a server that sends all of them, too.
    #[arg(short, long, value_name = "RANGE", value_parser = range, allow_hyphen_values = true, conflicts_with_all = ["resume", "compressed", "segments"], help_heading = "Request")]
    pub range: Option<RangeArg>,
    /// Only if it was modified after DATE, an HTTP date or a file whose time is meant. What was not is no failure.
    #[arg(
        short = 'z',
        long,
        value_name = "DATE",
        allow_hyphen_values = true,
        conflicts_with = "resume",
        help_heading = "Request"
    )]
    pub time_cond: Option<String>,
    /// Only fetch the head.
    #[arg(short = 'I', long, help_heading = "Request")]
    pub head: bool,
    /// Ask for compressed content and decompress it.
    #[arg(long, help_heading = "Request")]
    pub compressed: bool,
    /// Wait for 100 before sending content.
    #[arg(long, help_heading = "Request")]
    pub expect: bool,
    /// Do not follow redirections.
    #[arg(long, help_heading = "Request")]
    pub no_location: bool,
    /// Follow redirections; that is the default.
    #[arg(short = 'L', long, hide = true)]
    pub location: bool,
    /// What curl does with these is the default: a status of 400 and above fails, errors are shown.
    #[arg(short = 'f', long, hide = true)]
    pub fail: bool,
    /// See above.
    #[arg(short = 'S', long, hide = true)]
    pub show_error: bool,
    /// Redirections followed at most.
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = "Request")]
    pub max_redirs: usize,
    /// Follow redirections from https to http.
    #[arg(long, help_heading = "Request")]
    pub allow_downgrade: bool,
    /// Speak HTTP/1.0.
    #[arg(long = "http1.0", help_heading = "Request")]
    pub http10: bool,
    /// Understand HTTP/0.9 responses.
    #[arg(long = "http0.9", help_heading = "Request")]
    pub http09: bool,

    /// HOST:PORT:ADDRESS: use this address.
    #[arg(long, value_name = "TRIPLE", help_heading = "Connection")]
    pub resolve: Vec<String>,
    /// HOST1:PORT1:HOST2:PORT2: connections for the first lead to the second; what is left out is any, or the same.
    #[arg(long, value_name = "QUADRUPLE", help_heading = "Connection")]
    pub connect_to: Vec<String>,
    /// Use IPv4 addresses only.
    #[arg(short = '4', long, conflicts_with = "ipv6", help_heading = "Connection")]
    pub ipv4: bool,
    /// Use IPv6 addresses only.
    #[arg(short = '6', long, help_heading = "Connection")]
    pub ipv6: bool,
    /// Connect from this local address.
    #[arg(long, value_name = "ADDRESS", help_heading = "Connection")]
    pub interface: Option<std::net::IpAddr>,
    /// The proxy, instead of those in the environment.
    #[arg(short = 'x', long, value_name = "URL", help_heading = "Connection")]
    pub proxy: Option<String>,
    /// USER:PASSWORD for the proxy.
    #[arg(short = 'U', long, value_name = "USER", help_heading = "Connection")]
    pub proxy_user: Option<String>,
    /// Hosts that are reached without the proxy.
    #[arg(long, value_name = "LIST", help_heading = "Connection")]
    pub no_proxy: Option<String>,
    /// Connect to this socket instead of the host.
    #[arg(long, value_name = "PATH", help_heading = "Connection")]
    pub unix_socket: Option<PathBuf>,
    /// Trust the certificates of this PEM file, and no others.
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub cacert: Vec<PathBuf>,
    /// A certificate to show, in PEM.
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "Connection")]
    pub cert: Option<PathBuf>,
    /// Its key, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Connection")]
    pub key: Option<PathBuf>,
    /// Do not verify certificates. Anybody on the way can then read and change everything.
    #[arg(short = 'k', long, help_heading = "Connection")]
    pub insecure: bool,
    /// Speak TLS 1.3 only.
    #[arg(long = "tlsv1.3", help_heading = "Connection")]
    pub tls13: bool,
    /// Seconds for a connection to be opened.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds, help_heading = "Connection")]
    pub connect_timeout: Seconds,
    /// Seconds for a response to begin.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, help_heading = "Connection")]
    pub head_timeout: Seconds,
    /// Seconds without any progress.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds, help_heading = "Connection")]
    pub idle_timeout: Seconds,
    /// Seconds for everything of one URL.
    #[arg(short = 'm', long, value_name = "SECONDS", value_parser = seconds, help_heading = "Connection")]
    pub max_time: Option<Seconds>,

    /// Print the response head before the content.
    #[arg(short, long, help_heading = "Showing")]
    pub include: bool,
    /// Show heads as they go out and come in. Secrets are hidden.
    #[arg(short, long, action = ArgAction::Count, help_heading = "Showing")]
    pub verbose: u8,
    /// Show nothing but errors.
    #[arg(short, long, visible_alias = "silent", visible_short_alias = 's', help_heading = "Showing")]
    pub quiet: bool,
    /// Write the heads of all responses to FILE, as they came; - for standard output.
    #[arg(short = 'D', long, value_name = "FILE", help_heading = "Showing")]
    pub dump_header: Option<PathBuf>,
    /// After each URL print FORMAT to standard output, with curl's variables: %{http_code}, %{size_download}, %{time_total}…
    #[arg(short = 'w', long, value_name = "FORMAT", help_heading = "Showing")]
    pub write_out: Option<String>,
    /// How to show progress.
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Showing")]
    pub progress: ProgressStyle,
    /// Show how long each phase took.
    #[arg(long, help_heading = "Showing")]
    pub timing: bool,
    /// Record all exchanges in FILE, as HAR 1.2.
    #[arg(long, value_name = "FILE", help_heading = "Showing")]
    pub har: Option<PathBuf>,
}

impl Get {
    /// Whether content goes to files: because that was asked for, or because standard output is a terminal that a
    /// file would be sprayed on.
    pub fn saves(&self) -> bool {
        match self.output.first() {
            Some(path) => path.as_os_str() != "-",
            None if self.remote_name => true,
            None => {
                let plain = !self.head
                    && !self.include
                    && self.request.is_none()
                    && self.data.is_empty()
                    && self.data_binary.is_empty()
                    && self.data_raw.is_empty()
                    && self.data_urlencode.is_empty()
                    && self.range.is_none()
                    && self.json.is_empty()
                    && self.form.is_empty()
                    && self.upload_file.is_none();
                plain && std::io::stdout().is_terminal()
            }
        }
    }
}

/// Octets of a file: from the first to the last, or so many at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeArg {
    /// From this octet to that one, both included; to the end if there is none.
    From(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// A bar on a terminal when saving, else nothing.
    Auto,
    /// A bar.
    Bar,
    /// Lines of JSON on standard error.
    Json,
    /// Nothing.
    None,
}

/// A number of octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

/// A digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

/// A number of connections, or as many as help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentsArg(pub eleven_client::download::Segments);

fn range(text: &str) -> Result<RangeArg, String> {
    let number = |digits: &str| eleven_semantics::grammar::decimal(digits.as_bytes());
    let read = || {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", last) => number(last).filter(|&n| n > 0).map(RangeArg::Last),
            (first, "") => number(first).map(|first| RangeArg::From(first, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(RangeArg::From(first, Some(last)))
            }
        }
    };
    read().ok_or_else(|| "one range as 0-499, 500- or -500 is needed".into())
}

fn bytes(text: &str) -> Result<Bytes, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    eleven_semantics::grammar::decimal(number.as_bytes())
        .and_then(|n| n.checked_mul(unit))
        .filter(|&n| n > 0)
        .map(Bytes)
        .ok_or_else(|| "a number above 0, perhaps with K, M or G, is needed".into())
}

fn seconds(text: &str) -> Result<Seconds, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: Option<f64> = text.parse().ok().filter(|_| digits);
    number
        .filter(|n| *n > 0.0 && *n < 1e9)
        .map(|n| Seconds(Duration::from_secs_f64(n)))
        .ok_or_else(|| "a number of seconds above 0 is needed".into())
}

fn sha256(text: &str) -> Result<Sha256, String> {
    let bytes = text.as_bytes();
    let mut value = [0u8; 32];
    if bytes.len() != 64 {
        return Err("64 hexadecimal digits are needed".into());
    }
    for (octet, pair) in value.iter_mut().zip(bytes.chunks(2)) {
        let digit = |b| eleven_semantics::grammar::hex_digit(b).ok_or("only hexadecimal digits are allowed");
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(Sha256(value))
}

fn segments(text: &str) -> Result<SegmentsArg, String> {
    use eleven_client::download::Segments;
    if text == "auto" {
        return Ok(SegmentsArg(Segments::Auto));
    }
    eleven_semantics::grammar::decimal(text.as_bytes())
        .filter(|n| (1..=16).contains(n))
        .map(|n| SegmentsArg(Segments::Fixed(n as usize)))
        .ok_or_else(|| "a number from 1 to 16, or auto, is needed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_strictly() {
        for (text, expected) in [
            ("1", Some(1)),
            ("2K", Some(2048)),
            ("3m", Some(3 << 20)),
            ("1G", Some(1 << 30)),
            ("0", None),
            ("", None),
            ("K", None),
            ("+5", None),
            ("1.5M", None),
            ("99999999999G", None),
        ] {
            assert_eq!(bytes(text).ok().map(|b| b.0), expected, "{text}");
        }
        for (text, expected) in [
            ("1", Some(1000)),
            ("0.5", Some(500)),
            ("0", None),
            ("-1", None),
            ("inf", None),
            ("1e3", None),
            ("", None),
        ] {
            assert_eq!(seconds(text).ok().map(|s| s.0.as_millis()), expected, "{text}");
        }
        for (text, expected) in [
            ("0-499", Some(RangeArg::From(0, Some(499)))),
            ("5-5", Some(RangeArg::From(5, Some(5)))),
            ("500-", Some(RangeArg::From(500, None))),
            ("-500", Some(RangeArg::Last(500))),
            ("", None),
            ("-", None),
            ("-0", None),
            ("5", None),
            ("5-4", None),
            ("0-1,3-4", None),
            ("+1-2", None),
            ("bytes=0-1", None),
        ] {
            assert_eq!(range(text).ok(), expected, "{text}");
        }
        assert!(sha256(&"aB".repeat(32)).is_ok());
        for bad in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(sha256(bad).is_err(), "{bad}");
        }
        for (text, good) in
            [("1", true), ("16", true), ("auto", true), ("0", false), ("17", false), ("+1", false)]
        {
            assert_eq!(segments(text).is_ok(), good, "{text}");
        }
    }
}
