//! How one exchange is written as one line: common, combined, JSON, or by a template. Everything that came from
//! a peer is escaped here, in one function for text and one for JSON (faults L01–L04), cut to a length (L06),
//! and stripped of secrets in queries (L05).

use super::template::{Piece, Template};
use crate::record::Record;
use eleven_semantics::Known;
use eleven_semantics::grammar::push_decimal;
use std::net::{IpAddr, SocketAddr};

/// Octets of one value from a peer that a line holds at most (fault L06).
pub const VALUE_BYTES_MAX: usize = 2048;

/// The format of the lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Format {
    /// The Common Log Format of NCSA httpd.
    Common,
    /// Common, with Referer and User-Agent.
    #[default]
    Combined,
    /// One JSON object a line, with everything that is known.
    Json,
    /// Own words.
    Template(Template),
}

/// Texts that many lines have in common, so that they are made once: the current second, the last client.
#[derive(Default)]
pub(super) struct Texts {
    second: Option<i64>,
    /// `24/Nov/2026:20:40:00 +0000`
    common: Vec<u8>,
    /// `2026-11-24T20:40:00`, to which milliseconds and `Z` are added.
    iso: Vec<u8>,
    /// The client of the last line, and how it is written: a busy connection writes many lines.
    client: Option<IpAddr>,
    client_text: Vec<u8>,
}

impl Texts {
    fn set(&mut self, second: i64) {
        if self.second == Some(second) {
            return;
        }
        self.second = Some(second);
        let days = second.div_euclid(86_400);
        let of_day = second.rem_euclid(86_400) as u64;
        let (year, month, day) = civil(days);
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        use std::io::Write;
        self.common.clear();
        self.iso.clear();
        let name = MONTHS[month as usize - 1];
        let _ = write!(self.common, "{day:02}/{name}/{year:04}:{h:02}:{m:02}:{s:02} +0000");
        let _ = write!(self.iso, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}");
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u32, u32) {
    // Years are counted from March, so that the leap day is the last of a year (the usual era arithmetic).
    let z = days.clamp(-400_000_000, 400_000_000) + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month as u32, (doy - (153 * mp + 2) / 5 + 1) as u32)
}

impl Format {
    /// The format of this name, if it is one of those that need no template.
    pub fn named(name: &str) -> Option<Format> {
        match name {
            "combined" => Some(Format::Combined),
            "common" => Some(Format::Common),
            "json" => Some(Format::Json),
            _ => None,
        }
    }

    /// Whether a line tells more of time than the second of its end.
    pub(super) fn is_timed(&self) -> bool {
        match self {
            Format::Common | Format::Combined => false,
            Format::Json => true,
            Format::Template(template) => template.pieces.iter().any(|piece| {
                matches!(
                    piece,
                    Piece::IsoTime
                        | Piece::DurationUs
                        | Piece::Duration
                        | Piece::FirstOctetUs
                        | Piece::UpstreamAddress
                        | Piece::UpstreamTries
                        | Piece::UpstreamConnectUs
                        | Piece::UpstreamHeadUs
                        | Piece::UpstreamTotalUs
                )
            }),
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, record: &Record<'_>, clock: &mut Texts, order: u64) {
        clock.set(record.time_unix_ms.div_euclid(1000));
        match self {
            Format::Common => common(out, record, clock),
            Format::Combined => {
                common(out, record, clock);
                out.extend_from_slice(b" \"");
                match request_field(record, Known::Referer) {
                    Some(referer) => target(out, referer, text),
                    None => out.push(b'-'),
                }
                out.extend_from_slice(b"\" \"");
                field(out, request_field(record, Known::UserAgent));
                out.push(b'"');
            }
            Format::Json => json(out, record, clock, order),
            Format::Template(template) => {
                for piece in &template.pieces {
                    write_piece(out, piece, record, clock, order);
                }
            }
        }
        out.push(b'\n');
    }
}

fn field(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => text(out, value),
        None => out.push(b'-'),
    }
}

fn request_field<'a>(record: &Record<'a>, name: Known) -> Option<&'a [u8]> {
    record.request_fields.and_then(|fields| fields.get(name))
}

fn common(out: &mut Vec<u8>, record: &Record<'_>, clock: &mut Texts) {
    client(out, record, clock);
    out.extend_from_slice(b" - ");
    word(out, record.user.unwrap_or(b""));
    out.extend_from_slice(b" [");
    out.extend_from_slice(&clock.common);
    out.extend_from_slice(b"] \"");
    request_line(out, record);
    out.extend_from_slice(b"\" ");
    push_decimal(out, u64::from(record.status));
    out.push(b' ');
    // The format has no zero: a response without content is a dash.
    if record.content_bytes == 0 { out.push(b'-') } else { push_decimal(out, record.content_bytes) }
}

fn client(out: &mut Vec<u8>, record: &Record<'_>, clock: &mut Texts) {
    let Some(address) = record.client else { return out.push(b'-') };
    if clock.client != Some(address) {
        clock.client_text.clear();
        push_address(&mut clock.client_text, address);
        clock.client = Some(address);
    }
    out.extend_from_slice(&clock.client_text);
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        // The usual case without the machinery of `fmt`.
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                push_decimal(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => {
            use std::io::Write;
            let _ = write!(out, "{v6}");
        }
    }
}

fn push_socket_address(out: &mut Vec<u8>, address: SocketAddr) {
    let brackets = address.is_ipv6();
    if brackets {
        out.push(b'[');
    }
    push_address(out, address.ip());
    if brackets {
        out.push(b']');
    }
    out.push(b':');
    push_decimal(out, u64::from(address.port()));
}

/// A number, or a dash where nothing was measured.
fn measured(out: &mut Vec<u8>, number: Option<u64>) {
    match number {
        Some(number) => push_decimal(out, number),
        None => out.push(b'-'),
    }
}

fn request_line(out: &mut Vec<u8>, record: &Record<'_>) {
    if record.method.is_empty() {
        out.push(b'-');
        return;
    }
    text(out, record.method);
    out.push(b' ');
    target(out, record.target, text);
    out.push(b' ');
    out.extend_from_slice(record.version.as_str().as_bytes());
}

/// A value that stands between spaces without quotes: `-` if empty, spaces escaped.
fn word(out: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        return out.push(b'-');
    }
    let start = out.len();
    text(out, value);
    if out[start..].contains(&b' ') {
        let escaped = out.split_off(start);
        for b in escaped {
            if b == b' ' { out.extend_from_slice(b"\\x20") } else { out.push(b) }
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Octets that stand for themselves in a text line.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0x20;
    while b < 0x7f {
        table[b] = b != b'"' as usize && b != b'\\' as usize;
        b += 1;
    }
    table
};

/// Whether all octets stand for themselves; eight at a time, since nearly all do.
fn is_plain(value: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The high bit of each octet that is zero; exact as long as no octet of `x` has its own high bit set.
    let zeros = |x: u64| x.wrapping_sub(ONES) & !x;
    let (chunks, rest) = value.as_chunks::<8>();
    let strange = chunks.iter().fold(0, |strange, chunk| {
        let x = u64::from_ne_bytes(*chunk);
        let control = x.wrapping_sub(ONES * 0x20) & !x;
        strange | x | control | zeros(x ^ (ONES * 0x22)) | zeros(x ^ (ONES * 0x5c)) | zeros(x ^ (ONES * 0x7f))
    });
    strange & HIGH == 0 && rest.iter().all(|&b| PLAIN[b as usize])
}

/// Appends a peer's octets so that they stay within quotes and within the line: controls, quotes, backslashes
/// and everything beyond ASCII as `\xHH`.
fn text(out: &mut Vec<u8>, value: &[u8]) {
    let kept = &value[..value.len().min(VALUE_BYTES_MAX)];
    if is_plain(kept) {
        out.extend_from_slice(kept);
    } else {
        for &b in kept {
            if PLAIN[b as usize] {
                out.push(b);
            } else {
                out.extend_from_slice(&[b'\\', b'x', HEX[(b >> 4) as usize], HEX[(b & 15) as usize]]);
            }
        }
    }
    mark_cut(out, value.len());
}

fn mark_cut(out: &mut Vec<u8>, length: usize) {
    if length > VALUE_BYTES_MAX {
        out.extend_from_slice(b"...(");
        push_decimal(out, (length - VALUE_BYTES_MAX) as u64);
        out.extend_from_slice(b" more)");
    }
}

/// Appends a peer's octets as the inside of a JSON string: UTF-8 kept, everything else replaced, controls (C1
/// too: terminals act on them) escaped.
fn json_text(out: &mut Vec<u8>, value: &[u8]) {
    let kept = &value[..value.len().min(VALUE_BYTES_MAX)];
    if is_plain(kept) {
        out.extend_from_slice(kept);
    } else {
        let mut utf8 = [0u8; 4];
        for c in String::from_utf8_lossy(kept).chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') => {
                    use std::io::Write;
                    let _ = write!(out, "\\u{:04x}", c as u32);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
            }
        }
    }
    mark_cut(out, value.len());
}

/// Names of query parameters whose values never reach a log (fault L05).
const SECRET_PARAMETERS: [&[u8]; 14] = [
    b"token",
    b"access_token",
    b"refresh_token",
    b"id_token",
    b"auth",
    b"api_key",
    b"apikey",
    b"key",
    b"password",
    b"passwd",
    b"pwd",
    b"secret",
    b"client_secret",
    b"signature",
];

/// Appends a target or a Referer with the values of secret query parameters hidden.
fn target(out: &mut Vec<u8>, value: &[u8], escape: fn(&mut Vec<u8>, &[u8])) {
    let Some(question) = memchr::memchr(b'?', value) else { return escape(out, value) };
    let query = &value[question + 1..];
    let secret = |pair: &[u8]| {
        let (name, rest) = pair.split_at(memchr::memchr(b'=', pair).unwrap_or(pair.len()));
        rest.len() > 1 && SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
    };
    if !query.split(|b| matches!(b, b'&' | b';')).any(secret) {
        return escape(out, value);
    }
    let mut shown = value[..=question].to_vec();
    for (i, pair) in query.split(|&b| matches!(b, b'&' | b';')).enumerate() {
        if i > 0 {
            shown.push(b'&');
        }
        if secret(pair) {
            shown.extend_from_slice(&pair[..=memchr::memchr(b'=', pair).unwrap_or(0)]);
            shown.extend_from_slice(b"***");
        } else {
            shown.extend_from_slice(pair);
        }
    }
    escape(out, &shown);
}

/// Appends microseconds as seconds with three decimals.
fn seconds(out: &mut Vec<u8>, us: u64) {
    push_decimal(out, us / 1_000_000);
    out.push(b'.');
    let thousandths = us / 1000 % 1000;
    out.extend([100, 10, 1].map(|unit| b'0' + (thousandths / unit % 10) as u8));
}

struct Json<'a> {
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    fn key(&mut self, name: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        push_decimal(self.out, value);
    }

    /// A text from outside; left out if empty.
    fn text(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.key(name);
            self.out.push(b'"');
            json_text(self.out, value);
            self.out.push(b'"');
        }
    }
}

fn json(out: &mut Vec<u8>, record: &Record<'_>, clock: &Texts, order: u64) {
    out.push(b'{');
    let mut json = Json { out };
    json.key("time");
    json.out.push(b'"');
    iso_time(json.out, record, clock);
    json.out.push(b'"');
    json.number("order", order);
    if let Some(address) = record.client {
        json.key("client");
        json.out.push(b'"');
        push_address(json.out, address);
        json.out.push(b'"');
    }
    json.text("user", record.user.unwrap_or(b""));
    json.text("site", record.site.as_bytes());
    json.text("host", record.host);
    json.text("method", record.method);
    if !record.target.is_empty() {
        json.key("target");
        json.out.push(b'"');
        target(json.out, record.target, json_text);
        json.out.push(b'"');
    }
    if !record.method.is_empty() {
        json.text("version", record.version.as_str().as_bytes());
    }
    json.number("status", u64::from(record.status));
    json.text("handler", record.handler.as_bytes());
    json.text("cache", record.cache.as_bytes());
    json.text("upstream", record.upstream.as_bytes());
    if let Some(attempts) = &record.attempts {
        if let Some(address) = attempts.address {
            json.key("upstream_address");
            json.out.push(b'"');
            push_socket_address(json.out, address);
            json.out.push(b'"');
        }
        json.number("upstream_tries", u64::from(attempts.tries));
        for (name, us) in [
            ("upstream_connect_us", attempts.connect_us),
            ("upstream_head_us", attempts.head_us),
            ("upstream_total_us", attempts.total_us),
        ] {
            if let Some(us) = us {
                json.number(name, us);
            }
        }
    }
    json.number("content_bytes", record.content_bytes);
    json.number("sent_bytes", record.sent_bytes);
    json.number("received_bytes", record.received_bytes);
    json.number("duration_us", record.duration_us);
    json.number("first_octet_us", record.first_octet_us);
    json.number("connection", record.connection);
    json.number("requests_before", u64::from(record.requests_before));
    json.text("closed", record.closed.unwrap_or("").as_bytes());
    json.text("refused", record.refused.unwrap_or("").as_bytes());
    json.text("request_id", record.request_id);
    if let Some(referer) = request_field(record, Known::Referer) {
        json.key("referer");
        json.out.push(b'"');
        target(json.out, referer, json_text);
        json.out.push(b'"');
    }
    json.text("user_agent", request_field(record, Known::UserAgent).unwrap_or(b""));
    out.push(b'}');
}

fn iso_time(out: &mut Vec<u8>, record: &Record<'_>, clock: &Texts) {
    out.extend_from_slice(&clock.iso);
    out.push(b'.');
    let ms = record.time_unix_ms.rem_euclid(1000) as u64;
    out.extend([100, 10, 1].map(|unit| b'0' + (ms / unit % 10) as u8));
    out.push(b'Z');
}

fn write_piece(out: &mut Vec<u8>, piece: &Piece, record: &Record<'_>, clock: &mut Texts, order: u64) {
    match piece {
        Piece::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
        Piece::Client => client(out, record, clock),
        Piece::User => word(out, record.user.unwrap_or(b"")),
        Piece::Time => out.extend_from_slice(&clock.common),
        Piece::IsoTime => iso_time(out, record, clock),
        Piece::UnixTime => push_decimal(out, record.time_unix_ms.max(0) as u64 / 1000),
        Piece::Request => request_line(out, record),
        Piece::Method => word(out, record.method),
        Piece::Target => {
            if record.target.is_empty() {
                out.push(b'-')
            } else {
                target(out, record.target, word)
            }
        }
        Piece::Version => out.extend_from_slice(record.version.as_str().as_bytes()),
        Piece::Host => word(out, record.host),
        Piece::Site => word(out, record.site.as_bytes()),
        Piece::Handler => word(out, record.handler.as_bytes()),
        Piece::Status => push_decimal(out, u64::from(record.status)),
        Piece::ContentBytes => push_decimal(out, record.content_bytes),
        Piece::SentBytes => push_decimal(out, record.sent_bytes),
        Piece::ReceivedBytes => push_decimal(out, record.received_bytes),
        Piece::DurationUs => push_decimal(out, record.duration_us),
        Piece::Duration => seconds(out, record.duration_us),
        Piece::FirstOctetUs => push_decimal(out, record.first_octet_us),
        Piece::Connection => push_decimal(out, record.connection),
        Piece::RequestsBefore => push_decimal(out, u64::from(record.requests_before)),
        Piece::Persistence => out.push(if record.closed.is_some() { b'-' } else { b'+' }),
        Piece::Closed => text(out, record.closed.unwrap_or("-").as_bytes()),
        Piece::Refused => text(out, record.refused.unwrap_or("-").as_bytes()),
        Piece::Cache => word(out, record.cache.as_bytes()),
        Piece::Upstream => word(out, record.upstream.as_bytes()),
        Piece::UpstreamAddress => match record.attempts.and_then(|attempts| attempts.address) {
            Some(address) => push_socket_address(out, address),
            None => out.push(b'-'),
        },
        Piece::UpstreamTries => measured(out, record.attempts.map(|attempts| u64::from(attempts.tries))),
        Piece::UpstreamConnectUs => measured(out, record.attempts.and_then(|attempts| attempts.connect_us)),
        Piece::UpstreamHeadUs => measured(out, record.attempts.and_then(|attempts| attempts.head_us)),
        Piece::UpstreamTotalUs => measured(out, record.attempts.and_then(|attempts| attempts.total_us)),
        Piece::RequestId => word(out, record.request_id),
        Piece::Order => push_decimal(out, order),
        Piece::RequestField(name) => {
            let value = record.request_fields.and_then(|fields| fields.get(name.as_str()));
            if name.eq_ignore_ascii_case("referer") {
                target(out, value.unwrap_or(b"-"), text);
            } else {
                text(out, value.unwrap_or(b"-"));
            }
        }
        Piece::ResponseField(name) => {
            let value = record.response_fields.and_then(|fields| fields.get(name.as_str()));
            text(out, value.unwrap_or(b"-"));
        }
    }
}
