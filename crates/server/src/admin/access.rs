//! Who may talk to the admin listener. Decides only.

use crate::request::Request;
use eleven_net::listener::ListenAddr;
use eleven_semantics::Method;
use eleven_semantics::auth::constant_time_eq;
use eleven_semantics::fields::Only;
use eleven_semantics::names::Known;
use eleven_semantics::target::Authority;
use std::net::IpAddr;
use std::sync::Arc;

/// A secret of this length at least: 128 bits in hexadecimal digits are 32 of them, and nobody types it.
pub const TOKEN_BYTES_MIN: usize = 16;

/// The secret that others than this machine's programs must know.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<[u8]>);

impl Token {
    /// A token, which is sent as `Authorization: Bearer TOKEN`.
    ///
    /// # Errors
    /// If it is short, or has octets that a token cannot have (RFC 6750 §2.1).
    pub fn new(text: &str) -> Result<Token, InvalidToken> {
        if text.len() < TOKEN_BYTES_MIN {
            return Err(InvalidToken::Short);
        }
        let octets = text.trim_end_matches('=').as_bytes();
        if !octets.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(b)) {
            return Err(InvalidToken::Octets);
        }
        Ok(Token(text.as_bytes().into()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It could be guessed.
    #[error("a token of the admin listener has at least 16 characters; `openssl rand -hex 16` makes one")]
    Short,
    /// It could not be sent.
    #[error("a token has letters, digits and -._~+/ only; `openssl rand -hex 16` makes one")]
    Octets,
}

/// An address that needs a token has none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "others than this machine's programs could reach the admin listener on {0}; give it a token, or a loopback address or a Unix socket"
)]
pub struct Exposed(pub String);

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    token: Option<Token>,
    /// Names it is known by, besides addresses and `localhost`; in lower case.
    hosts: Arc<[Box<str>]>,
    /// Browsers cannot be led to a Unix socket, and its clients make up a Host.
    any_host: bool,
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Its Host is a name that is not ours: a stranger's name that leads here (DNS rebinding).
    Host,
    /// A page of another origin sent it.
    OtherOrigin,
    /// It has no token.
    NoToken,
    /// It has a wrong one.
    WrongToken,
}

impl Denied {
    /// What to do, in a sentence.
    pub fn reason(self) -> &'static str {
        match self {
            Denied::Host => {
                "The admin listener is not known by this name. Use its address or localhost, or add the name to `admin.hosts`."
            }
            Denied::OtherOrigin => "The admin listener takes nothing from pages of other origins.",
            Denied::NoToken => "The admin listener wants its token: Authorization: Bearer TOKEN.",
            Denied::WrongToken => "This is not the token of the admin listener.",
        }
    }
}

impl Access {
    /// Who may come in over this address.
    ///
    /// # Errors
    /// If others than this machine's programs can reach it, and there is no token.
    pub fn new(address: &ListenAddr, token: Option<Token>, hosts: Vec<Box<str>>) -> Result<Access, Exposed> {
        let (local, any_host) = match address {
            ListenAddr::Unix(_) => (true, true),
            ListenAddr::Tcp { host: None, .. } | ListenAddr::Inherited(_) => (false, false),
            // Other names are not looked up for this: they may mean something else tomorrow.
            ListenAddr::Tcp { host: Some(host), .. } => {
                let loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
                (loopback || host == "localhost", false)
            }
        };
        if !local && token.is_none() {
            return Err(Exposed(address.to_string()));
        }
        let hosts = hosts.into_iter().map(|host| host.to_ascii_lowercase().into()).collect();
        Ok(Access { token, hosts, any_host })
    }

    /// Whether a token is asked for.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request may come in. Where it is `open`, without the token.
    ///
    /// # Errors
    /// The reason why not.
    pub fn judge(&self, request: &Request, open: bool) -> Result<(), Denied> {
        let authority = request.authority();
        if !self.any_host && !self.is_ours(authority.host) {
            return Err(Denied::Host);
        }
        let fields = &request.head.fields;
        if fields.contains(Known::Origin) && !same_origin(fields.get(Known::Origin), &authority) {
            return Err(Denied::OtherOrigin);
        }
        // Following a link to here shows the page to its reader and nothing to where the link stood.
        let follows_link = request.head.method == Method::Get
            && fields.get("Sec-Fetch-Mode").is_some_and(|mode| mode == b"navigate");
        let foreign =
            fields.get("Sec-Fetch-Site").is_some_and(|site| site == b"cross-site" || site == b"same-site");
        if foreign && !follows_link {
            return Err(Denied::OtherOrigin);
        }
        match &self.token {
            Some(token) if !open => token.judge(fields.only(Known::Authorization)),
            _ => Ok(()),
        }
    }

    fn is_ours(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        // A rebinding page has a name; an address in Host means that the user typed an address.
        let is_address = host.parse::<IpAddr>().is_ok()
            || host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .is_some_and(|h| h.parse::<IpAddr>().is_ok());
        is_address
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.hosts.iter().any(|own| **own == *host)
    }
}

impl Token {
    fn judge(&self, credentials: Only<'_>) -> Result<(), Denied> {
        let Only::One(credentials) = credentials else { return Err(Denied::NoToken) };
        let (scheme, token) = match credentials.iter().position(|&b| b == b' ') {
            Some(at) => (&credentials[..at], credentials[at..].trim_ascii()),
            None => (credentials, &b""[..]),
        };
        if !scheme.eq_ignore_ascii_case(b"bearer") || token.is_empty() {
            return Err(Denied::NoToken);
        }
        if constant_time_eq(token, &self.0) { Ok(()) } else { Err(Denied::WrongToken) }
    }
}

/// Whether an Origin names the authority that the request is for. The scheme is not compared: a page of the same host
/// and port over another scheme does not exist on one listener.
fn same_origin(origin: Option<&[u8]>, authority: &Authority<'_>) -> bool {
    let Some(origin) = origin else { return false };
    let Some(rest) = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://")) else {
        return false;
    };
    Authority::parse(rest)
        .is_ok_and(|theirs| theirs.host.eq_ignore_ascii_case(authority.host) && theirs.port == authority.port)
}
