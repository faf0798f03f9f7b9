//! The template of an access log line: text with `{words}`. It is read once, when the configuration is; a word
//! that does not exist, or one that would put a secret into the log (fault L05), is refused there.

use eleven_semantics::Known;
use eleven_semantics::grammar::is_token;

/// A template, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) pieces: Vec<Piece>,
}

/// Why a template was refused, and where (an octet offset into it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTemplate {
    /// Where the mistake begins.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for InvalidTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for InvalidTemplate {}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Client,
    User,
    Time,
    IsoTime,
    UnixTime,
    Request,
    Method,
    Target,
    Version,
    Host,
    Site,
    Handler,
    Status,
    ContentBytes,
    SentBytes,
    ReceivedBytes,
    DurationUs,
    Duration,
    FirstOctetUs,
    Connection,
    RequestsBefore,
    Persistence,
    Closed,
    Refused,
    Cache,
    Upstream,
    UpstreamAddress,
    UpstreamTries,
    UpstreamConnectUs,
    UpstreamHeadUs,
    UpstreamTotalUs,
    RequestId,
    Order,
    RequestField(String),
    ResponseField(String),
}

/// Every word of a template without an argument, with what it stands for.
pub const WORDS: &[(&str, &str)] = &[
    ("client", "address of the client"),
    ("user", "authenticated user"),
    ("time", "time as in the common format"),
    ("iso_time", "time as in RFC 3339, with milliseconds"),
    ("unix_time", "seconds since 1970"),
    ("request", "request line"),
    ("method", "method"),
    ("target", "request target, secrets hidden"),
    ("version", "protocol version"),
    ("host", "host asked for"),
    ("site", "name of the site that answered"),
    ("handler", "kind of handler that answered"),
    ("status", "status code"),
    ("content_bytes", "octets of content sent"),
    ("sent_bytes", "all octets sent"),
    ("received_bytes", "all octets received"),
    ("duration_us", "microseconds from complete head to last octet"),
    ("duration", "the same in seconds, three decimals"),
    ("first_octet_us", "microseconds from complete head to first octet"),
    ("connection", "number of the connection"),
    ("requests_before", "requests before this one on its connection"),
    ("persistence", "`+` if the connection persists, `-` if it closes"),
    ("closed", "why the connection closes"),
    ("refused", "why the request was refused"),
    ("cache", "verdict of the cache"),
    ("upstream", "server that a gateway asked"),
    ("upstream_address", "its address and port, of the last try"),
    ("upstream_tries", "how often the request was tried"),
    ("upstream_connect_us", "microseconds to open the connection; `-` if an idle one was used"),
    ("upstream_head_us", "microseconds from there to the response's head"),
    ("upstream_total_us", "microseconds from the first try to the end of the response"),
    ("request_id", "request id"),
    ("order", "number of the line within its worker"),
];

fn piece(word: &str) -> Option<Piece> {
    Some(match word {
        "client" => Piece::Client,
        "user" => Piece::User,
        "time" => Piece::Time,
        "iso_time" => Piece::IsoTime,
        "unix_time" => Piece::UnixTime,
        "request" => Piece::Request,
        "method" => Piece::Method,
        "target" => Piece::Target,
        "version" => Piece::Version,
        "host" => Piece::Host,
        "site" => Piece::Site,
        "handler" => Piece::Handler,
        "status" => Piece::Status,
        "content_bytes" => Piece::ContentBytes,
        "sent_bytes" => Piece::SentBytes,
        "received_bytes" => Piece::ReceivedBytes,
        "duration_us" => Piece::DurationUs,
        "duration" => Piece::Duration,
        "first_octet_us" => Piece::FirstOctetUs,
        "connection" => Piece::Connection,
        "requests_before" => Piece::RequestsBefore,
        "persistence" => Piece::Persistence,
        "closed" => Piece::Closed,
        "refused" => Piece::Refused,
        "cache" => Piece::Cache,
        "upstream" => Piece::Upstream,
        "upstream_address" => Piece::UpstreamAddress,
        "upstream_tries" => Piece::UpstreamTries,
        "upstream_connect_us" => Piece::UpstreamConnectUs,
        "upstream_head_us" => Piece::UpstreamHeadUs,
        "upstream_total_us" => Piece::UpstreamTotalUs,
        "request_id" => Piece::RequestId,
        "order" => Piece::Order,
        _ => return None,
    })
}

impl Template {
    /// Reads a template: text, `{word}` from [`WORDS`], `{request.Name}` and `{response.Name}` for fields, `{{`
    /// and `}}` for braces.
    ///
    /// # Errors
    /// At the first thing that means nothing or would log a secret.
    pub fn parse(source: &str) -> Result<Template, InvalidTemplate> {
        let fail = |at: usize, reason: String| Err(InvalidTemplate { at, reason });
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut chars = source.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '{' | '}' if chars.peek().is_some_and(|&(_, next)| next == c) => {
                    chars.next();
                    literal.push(c);
                }
                '}' => return fail(at, "`}` without `{` (write `}}` for a brace)".into()),
                '{' => {
                    let Some(length) = source[at..].find('}') else {
                        return fail(at, "`{` is never closed (write `{{` for a brace)".into());
                    };
                    let word = &source[at + 1..at + length];
                    while chars.next_if(|&(i, _)| i <= at + length).is_some() {}
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    match read_word(word) {
                        Ok(piece) => pieces.push(piece),
                        Err(reason) => return fail(at, reason),
                    }
                }
                c if c.is_control() && c != '\t' => {
                    return fail(at, "a control character would break the line".into());
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Template { pieces })
    }
}

fn read_word(word: &str) -> Result<Piece, String> {
    let field = |name: &str| {
        if !is_token(name.as_bytes()) {
            return Err(format!("`{name}` is not a field name"));
        }
        let secret = matches!(
            Known::lookup(name.as_bytes()),
            Some(Known::Authorization | Known::ProxyAuthorization | Known::Cookie | Known::SetCookie)
        );
        if secret { Err(format!("`{name}` holds secrets and is not logged")) } else { Ok(name.to_owned()) }
    };
    if let Some(name) = word.strip_prefix("request.") {
        return field(name).map(Piece::RequestField);
    }
    if let Some(name) = word.strip_prefix("response.") {
        return field(name).map(Piece::ResponseField);
    }
    piece(word).ok_or_else(|| format!("`{{{word}}}` is not a word of the access log"))
}
