//! What an intermediary does to a message between receiving and sending it (RFC 9110 §7.6 to 7.8, §6.5.1; RFC
//! 7239): which fields end here, who is told of whom, how often a message may be forwarded, and which trailer
//! fields go on.
//!
//! Fields that belong to one connection are removed here and nowhere else (9110-7.6.1-02); whoever writes the
//! message next writes its own. Framing, Connection, TE, Host and Expect of the outgoing message are the
//! connection's: they are taken out here and handed back as values. Whether a client is believed, and where a
//! request goes, is decided elsewhere.

use crate::fields::Fields;
use crate::grammar;
use crate::method::Method;
use crate::names::Known;
use crate::status::Status;
use crate::version::Version;
use std::net::IpAddr;

/// What an intermediary is configured to do.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Our name in Via, a pseudonym (9110-7.6.3-03). It must be ours alone: it is how loops are found.
    pub pseudonym: Box<str>,
    /// Add Via to responses too: a proxy must (9110-7.6.3-01), a gateway may.
    pub via_in_responses: bool,
    /// Intermediaries a message may have passed already (faults X18, X19).
    pub via_members_max: usize,
    /// Options in Connection, over all its lines (fault X02).
    pub connection_options_max: usize,
    /// The most Max-Forwards is forwarded with (9110-7.6.2-03).
    pub max_forwards_max: u64,
    /// How the next hop is told of the client.
    pub provenance: Provenance,
    /// Protocols a client may switch to through us, in lower case. Anything else that is offered is not
    /// passed on; `h2c` in particular would carry requests past every rule here.
    pub upgrades: Vec<Box<str>>,
    /// Which trailer fields go on.
    pub trailers: Trailers,
    /// Pass Proxy-Authorization on, to a proxy that shares our credentials (9110-11.7.2-01).
    pub relay_proxy_credentials: bool,
}

impl Rules {
    /// The rules of a gateway (a reverse proxy) of this name.
    pub fn gateway(pseudonym: &str) -> Rules {
        Rules {
            pseudonym: pseudonym.into(),
            via_in_responses: true,
            via_members_max: 32,
            connection_options_max: 64,
            max_forwards_max: 70,
            provenance: Provenance::Replace(Told::Legacy),
            upgrades: vec!["websocket".into()],
            trailers: Trailers::Safe,
            relay_proxy_credentials: false,
        }
    }

    /// The rules of a forward proxy of this name: it tells the next hop nothing about the client.
    pub fn proxy(pseudonym: &str) -> Rules {
        Rules { provenance: Provenance::Pass, ..Rules::gateway(pseudonym) }
    }
}

/// What is done to `Forwarded` and its forerunners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// Left as they are.
    Pass,
    /// What the client says of itself is removed, what we know takes its place (faults X06 to X08).
    Replace(Told),
    /// The client is an intermediary that is trusted: what it says is kept, and the hop to it added.
    Append(Told),
}

/// In which fields the next hop is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// In none.
    Nothing,
    /// `X-Forwarded-For`, `-Host`, `-Proto`: what applications read.
    Legacy,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// In both.
    Both,
}

/// Which trailer fields are forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trailers {
    /// Those that frame, route, authenticate or modify nothing, as far as their names tell.
    Safe,
    /// Those named, in lower case, as far as they are safe.
    Only(Vec<Box<str>>),
    /// None.
    None,
}

/// Who sent the request, for [`Provenance`].
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The address the request came from; `None` over a Unix socket.
    pub address: Option<IpAddr>,
    /// Over TLS.
    pub secure: bool,
    /// The authority the client asked for.
    pub host: &'a [u8],
}

/// Why a message is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It has been here before (fault X18).
    Loop,
    /// It has passed too many intermediaries (fault X19).
    TooManyHops,
    /// Connection lists more options than anybody needs (fault X02).
    TooManyConnectionOptions,
    /// Max-Forwards is not one number (fault X17).
    MaxForwards,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refusal::Loop => "the message has passed this intermediary before",
            Refusal::TooManyHops => "the message has passed too many intermediaries",
            Refusal::TooManyConnectionOptions => "Connection lists too many options",
            Refusal::MaxForwards => "Max-Forwards is not a number",
        })
    }
}

impl std::error::Error for Refusal {}

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onward {
    /// It goes on.
    Forward {
        /// The client takes trailers (`TE: trailers`).
        te_trailers: bool,
        /// An Upgrade that may go on was left among the fields.
        upgrade: bool,
    },
    /// Max-Forwards has run out: this is the final recipient (9110-7.6.2-02).
    AnswerHere,
}

/// Prepares the fields of a request for the next hop.
///
/// # Errors
/// See [`Refusal`]; the fields are then unspecified.
pub fn request(
    method: &Method,
    version: Version,
    has_content: bool,
    fields: &mut Fields,
    rules: &Rules,
    hop: &Hop<'_>,
) -> Result<Onward, Refusal> {
    check_hops(fields, rules)?;
    if max_forwards(method, fields, rules)? == Some(0) {
        return Ok(Onward::AnswerHere);
    }
    let te_trailers = fields.contains(Known::Te) && fields.has_member(Known::Te, "trailers");
    // 9110-7.8-11: an offer of HTTP/1.0 is ignored. One with content is not worth the trouble.
    let upgrade = fields.contains(Known::Upgrade)
        && version >= Version::Http11
        && !has_content
        && fields.has_member(Known::Connection, "upgrade")
        && is_allowed_upgrade(fields, rules);
    remove_hop_fields(fields, rules, |known| match known {
        Known::Upgrade => upgrade,
        Known::ProxyAuthorization => rules.relay_proxy_credentials,
        // The connection writes its own.
        Known::Host | Known::Expect | Known::ContentLength => false,
        _ => !known.is_hop_by_hop(),
    })?;
    tell_provenance(fields, rules.provenance, hop);
    add_via(fields, version, rules);
    Ok(Onward::Forward { te_trailers, upgrade })
}

/// Prepares the fields of a response for the client. Upgrade stays where the status is about it: in a 101, and in a
/// 426 whose protocols this hop would pass on, too (9110-15.5.22-01).
///
/// # Errors
/// [`Refusal::TooManyConnectionOptions`]; the fields are then unspecified.
pub fn response(version: Version, status: Status, fields: &mut Fields, rules: &Rules) -> Result<(), Refusal> {
    let upgrade = status == Status::SWITCHING_PROTOCOLS
        || (status == Status::UPGRADE_REQUIRED && is_allowed_upgrade(fields, rules));
    remove_hop_fields(fields, rules, |known| match known {
        Known::Upgrade => upgrade,
        Known::ContentLength => false,
        _ => !known.is_hop_by_hop(),
    })?;
    if rules.via_in_responses {
        add_via(fields, version, rules);
    }
    Ok(())
}

/// Whether credentials or a challenge authenticate the connection and not the request (NTLM, Negotiate): such a
/// connection to a server must never serve another client (fault X25).
pub fn binds_connection(fields: &Fields) -> bool {
    let binds = |value: &[u8]| {
        let scheme = value.split(|&b| b == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    };
    (fields.contains(Known::Authorization) && fields.all(Known::Authorization).any(binds))
        || (fields.contains(Known::WwwAuthenticate) && fields.list(Known::WwwAuthenticate).any(binds))
}

/// Keeps the trailer fields that may go on (9110-6.5.1; fault R30). Framing, routing, authentication and the
/// like never may, whatever the rules say.
pub fn trailers(fields: &mut Fields, rules: &Rules) {
    fields.retain(|field| {
        let safe = match field.known {
            Some(known) => known.allowed_in_trailers() && !known.is_hop_by_hop(),
            None => !is_unsafe_in_trailers(field.name),
        };
        safe && match &rules.trailers {
            Trailers::Safe => true,
            Trailers::Only(names) => {
                names.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(field.name))
            }
            Trailers::None => false,
        }
    });
}

/// Names that this system does not know by meaning, but that others act on before they have seen trailers: who
/// merges them into the header section must not be led astray.
#[rustfmt::skip]
const UNSAFE_TRAILER_PREFIXES: &[&str] = &[
    "x-forwarded", "x-real-ip", "x-original", "x-rewrite", "x-http-method", "x-auth", "x-user", "x-remote",
    "sec-", "proxy-", "access-control-", "if-", "cf-", "true-client", "front-end", "x-csrf", "x-xsrf",
];

fn is_unsafe_in_trailers(name: &[u8]) -> bool {
    let begins = |prefix: &&str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    UNSAFE_TRAILER_PREFIXES.iter().any(begins) || crate::names::collides_by_underscore(name)
}

/// Options of Connection that stand for no field, or for one that is removed anyway.
fn is_plain_option(option: &[u8]) -> bool {
    ["keep-alive", "close", "upgrade", "te"].iter().any(|plain| option.eq_ignore_ascii_case(plain.as_bytes()))
}

/// Removes the fields of this hop: those Connection names, and those known to belong to a hop.
///
/// A field known to be end-to-end is kept though Connection names it: a sender must not do that
/// (9110-7.6.1-04), and obeying would let it strip what others rely on, such as Authorization (faults X01, R29).
fn remove_hop_fields(
    fields: &mut Fields,
    rules: &Rules,
    keep: impl Fn(Known) -> bool,
) -> Result<(), Refusal> {
    let mut nominated: Vec<Box<[u8]>> = Vec::new();
    if fields.contains(Known::Connection) {
        for (count, option) in fields.list(Known::Connection).enumerate() {
            if count >= rules.connection_options_max {
                return Err(Refusal::TooManyConnectionOptions);
            }
            if !is_plain_option(option) && Known::lookup(option).is_none() {
                nominated.push(option.into());
            }
        }
    }
    if nominated.is_empty() {
        fields.retain_known(keep);
        return Ok(());
    }
    fields.retain(|field| match field.known {
        Some(known) => keep(known),
        None => !nominated.iter().any(|name| name.eq_ignore_ascii_case(field.name)),
    });
    Ok(())
}

fn is_allowed_upgrade(fields: &Fields, rules: &Rules) -> bool {
    let mut offered = fields.list(Known::Upgrade).peekable();
    offered.peek().is_some()
        && offered.all(|protocol| {
            rules.upgrades.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(protocol))
        })
}

/// The value of Max-Forwards after taking this hop off, or 0 if it had run out. `None` where it says nothing:
/// only TRACE and OPTIONS have it (9110-7.6.2-01, 9110-7.6.2-04).
fn max_forwards(method: &Method, fields: &mut Fields, rules: &Rules) -> Result<Option<u64>, Refusal> {
    if !matches!(method, Method::Trace | Method::Options) || !fields.contains(Known::MaxForwards) {
        return Ok(None);
    }
    let value = fields.only(Known::MaxForwards).one().and_then(grammar::decimal_saturating);
    let Some(value) = value else { return Err(Refusal::MaxForwards) };
    if value == 0 {
        return Ok(Some(0));
    }
    let mut less = Vec::new();
    grammar::push_decimal(&mut less, (value - 1).min(rules.max_forwards_max));
    // Digits are a valid value.
    let _ = fields.set(Known::MaxForwards, less);
    Ok(Some(value))
}

/// Whether a member of Via is `name`: `[protocol-name "/"] protocol-version RWS received-by [comment]`.
fn is_received_by(member: &[u8], name: &[u8]) -> bool {
    let mut words = member.split(|&b| grammar::is_ows(b)).filter(|word| !word.is_empty());
    words.nth(1).is_some_and(|received_by| received_by.eq_ignore_ascii_case(name))
}

fn check_hops(fields: &Fields, rules: &Rules) -> Result<(), Refusal> {
    if !fields.contains(Known::Via) {
        return Ok(());
    }
    let mut hops = 0;
    for member in fields.list(Known::Via) {
        hops += 1;
        if is_received_by(member, rules.pseudonym.as_bytes()) {
            return Err(Refusal::Loop);
        }
        if hops > rules.via_members_max {
            return Err(Refusal::TooManyHops);
        }
    }
    Ok(())
}

/// Adds a line whose value was made here, of octets that every value may have.
fn own_line(fields: &mut Fields, name: Known, value: &[u8]) {
    fields.append_parsed(name.name().as_bytes(), value, Some(name));
}

/// Adds ourselves to Via, as a line behind the others, which stay as they are (9110-7.6.3-01, -02).
fn add_via(fields: &mut Fields, received: Version, rules: &Rules) {
    let version: &[u8] = match received {
        Version::Http11 => b"1.1 ",
        Version::Http10 => b"1.0 ",
        Version::Http09 => b"0.9 ",
    };
    let mut value = [0u8; 4 + PSEUDONYM_BYTES_MAX];
    let name = rules.pseudonym.as_bytes();
    let name = &name[..name.len().min(PSEUDONYM_BYTES_MAX)];
    value[..4].copy_from_slice(version);
    value[4..4 + name.len()].copy_from_slice(name);
    own_line(fields, Known::Via, &value[..4 + name.len()]);
}

/// Longest pseudonym.
pub const PSEUDONYM_BYTES_MAX: usize = 64;

/// Whether a pseudonym can stand in Via: a token, which covers host names, of bounded length.
pub fn is_pseudonym(name: &str) -> bool {
    name.len() <= PSEUDONYM_BYTES_MAX && grammar::is_token(name.as_bytes())
}

/// Fields that say who the client is and what it asked for, beside the known ones.
fn is_claim(name: &[u8]) -> bool {
    let begins = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    begins("x-forwarded-") || name.eq_ignore_ascii_case(b"x-real-ip")
}

fn tell_provenance(fields: &mut Fields, provenance: Provenance, hop: &Hop<'_>) {
    let (told, believed) = match provenance {
        Provenance::Pass => return,
        Provenance::Replace(told) => (told, false),
        Provenance::Append(told) => (told, true),
    };
    if !believed {
        fields.retain(|field| match field.known {
            Some(
                Known::Forwarded | Known::XForwardedFor | Known::XForwardedHost | Known::XForwardedProto,
            ) => false,
            Some(_) => true,
            None => !is_claim(field.name),
        });
    }
    if matches!(told, Told::Legacy | Told::Both) {
        tell_legacy(fields, hop);
    }
    if matches!(told, Told::Forwarded | Told::Both) {
        tell_forwarded(fields, hop);
    }
}

fn tell_legacy(fields: &mut Fields, hop: &Hop<'_>) {
    let mut text = TextBuffer::new();
    if let Some(address) = hop.address {
        text.address(address);
        own_line(fields, Known::XForwardedFor, text.get());
    }
    // The first intermediary saw what the client asked for: what a believed one says stands.
    if !fields.contains(Known::XForwardedProto) {
        own_line(fields, Known::XForwardedProto, if hop.secure { b"https" } else { b"http" });
    }
    if !fields.contains(Known::XForwardedHost) && !hop.host.is_empty() {
        let _ = fields.push(Known::XForwardedHost, hop.host);
    }
}

/// RFC 7239 §4: `for` with IPv6 in brackets and quotes (§6), `host` and `proto`.
fn tell_forwarded(fields: &mut Fields, hop: &Hop<'_>) {
    let mut value = Vec::with_capacity(64 + hop.host.len());
    value.extend_from_slice(b"for=");
    match hop.address.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(ip)) => value.extend_from_slice(ip.to_string().as_bytes()),
        Some(IpAddr::V6(ip)) => value.extend_from_slice(format!("\"[{ip}]\"").as_bytes()),
        None => value.extend_from_slice(b"unknown"),
    }
    if !hop.host.is_empty() {
        value.extend_from_slice(b";host=");
        grammar::push_token_or_quoted(&mut value, hop.host);
    }
    value.extend_from_slice(if hop.secure { b";proto=https" } else { b";proto=http" });
    let _ = fields.push(Known::Forwarded, value);
}

/// A short text without allocation: this is on the way of every request.
struct TextBuffer {
    bytes: [u8; 48],
    length: usize,
}

impl TextBuffer {
    fn new() -> TextBuffer {
        TextBuffer { bytes: [0; 48], length: 0 }
    }

    fn address(&mut self, address: IpAddr) {
        use std::io::Write;
        let address = address.to_canonical();
        if let IpAddr::V4(ip) = address {
            // Most are of this kind, and formatting costs more than all of their octets.
            for (number, octet) in ip.octets().into_iter().enumerate() {
                if number > 0 {
                    self.push(b'.');
                }
                if octet >= 100 {
                    self.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    self.push(b'0' + octet / 10 % 10);
                }
                self.push(b'0' + octet % 10);
            }
            return;
        }
        let mut rest = &mut self.bytes[..];
        let before = rest.len();
        // The longest address has 45 characters.
        let _ = write!(rest, "{address}");
        self.length = before - rest.len();
    }

    fn push(&mut self, octet: u8) {
        self.bytes[self.length] = octet;
        self.length += 1;
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
#[path = "forwarding/tests.rs"]
mod tests;
