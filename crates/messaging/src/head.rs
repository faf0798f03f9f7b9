//! Heads: start line and header section together, read in one pass, with what they say of framing and Host
//! settled before anyone sees them (RFC 9112 §2.1, §3.2).

use crate::error::Malformed;
use crate::field_section::{self, append, field_line, is_dropped};
use crate::framing::{self, Framing};
use crate::limits::Config;
use crate::start_line;
use eleven_semantics::grammar;
use eleven_semantics::names::Known;
use eleven_semantics::target::Authority;
use eleven_semantics::{Fields, Method, RequestTarget, Status, Version};

/// What a request expects before it sends its content (RFC 9110 §10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expectation {
    /// Nothing.
    #[default]
    None,
    /// `100-continue`, and content is announced.
    Continue,
    /// Anything else: answered 417 (faults S47, S48).
    Unknown,
}

/// A request head. Keeps its memory from message to message.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target, checked against the method.
    pub target: RequestTarget,
    /// The version of the message.
    pub version: Version,
    /// The header section in order. Framing fields are still in it as received; nobody above reads them.
    pub fields: Fields,
    /// How the body is delimited.
    pub framing: Framing,
    /// What the client waits for.
    pub expectation: Expectation,
}

impl Default for RequestHead {
    fn default() -> RequestHead {
        RequestHead {
            method: Method::Get,
            target: RequestTarget::default(),
            version: Version::Http11,
            fields: Fields::new(),
            framing: Framing::None,
            expectation: Expectation::None,
        }
    }
}

/// A response head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The version of the message.
    pub version: Version,
    /// The status.
    pub status: Status,
    /// The reason phrase as received; clients ignore its content (9112-4-03).
    pub reason: Vec<u8>,
    /// The header section in order.
    pub fields: Fields,
    /// How the body is delimited.
    pub framing: Framing,
}

impl Default for ResponseHead {
    fn default() -> ResponseHead {
        ResponseHead {
            version: Version::Http11,
            status: Status::OK,
            reason: Vec::new(),
            fields: Fields::new(),
            framing: Framing::None,
        }
    }
}

/// How far a head was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The head ends before this offset.
    Complete(usize),
    /// More octets are needed; every complete line so far was found valid.
    Incomplete(Scan),
}

/// Where reading an incomplete head stopped, so that a head that comes drop by drop is not read again and
/// again (fault D13). Offsets count from the start of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scan {
    line_at: u32,
    searched: u32,
    section_at: u32,
    lines: u32,
}

impl Scan {
    /// Before the first octet.
    pub const FRESH: Scan = Scan { line_at: 0, searched: 0, section_at: 0, lines: 0 };

    /// Nothing was read yet.
    pub fn is_fresh(&self) -> bool {
        self.searched == 0
    }
}

/// Reads a request head from the start of `input`, in one pass.
///
/// # Errors
/// The first rule broken, in the order of the message: line by line, then framing, then Host.
pub fn request_head(input: &[u8], config: &Config, head: &mut RequestHead) -> Result<Progress, Malformed> {
    let limits = &config.limits;
    let Some((first, mut at)) = field_section::line(input, 0)? else {
        check_unfinished_start(input, config)?;
        return Ok(Progress::Incomplete(Scan { searched: input.len() as u32, ..Scan::default() }));
    };
    let (method, version) = start_line::request_line(first, limits, &config.options, &mut head.target)?;
    head.method = method;
    head.version = version;
    head.fields.clear();
    head.framing = Framing::None;
    head.expectation = Expectation::None;
    if version == Version::Http09 {
        return Ok(Progress::Complete(at));
    }
    let section_at = at;
    let mut lines = 0;
    loop {
        let Some((line, next)) = field_section::line(input, at)? else {
            let scan = Scan {
                line_at: at as u32,
                searched: input.len() as u32,
                section_at: section_at as u32,
                lines,
            };
            check_section(&scan, input.len(), config)?;
            return Ok(Progress::Incomplete(scan));
        };
        if line.is_empty() {
            at = next;
            break;
        }
        let field = field_line(line)?;
        lines += 1;
        check_section(&Scan { section_at: section_at as u32, lines, ..Scan::default() }, next, config)?;
        let known = Known::lookup(field.name);
        if let Some(known) = known
            && is_decisive(known)
            && head.fields.contains(known)
        {
            return Err(if known == Known::Host {
                Malformed::HostRepeated
            } else {
                Malformed::Repeated(known)
            });
        }
        if !is_dropped(field.name, known, config.options.keep_underscore_names) {
            append(&mut head.fields, &input[at..next], field, known);
        }
        at = next;
    }
    head.framing = framing::request(version, &head.fields, &config.options)?;
    check_host(version, &head.fields)?;
    if head.method == Method::Connect && head.framing.has_body() {
        return Err(Malformed::ConnectContent);
    }
    head.expectation = expectation(version, head);
    Ok(Progress::Complete(at))
}

/// Goes on with a head that [`request_head`] left incomplete. Whether it may be complete now: if so, read it
/// with [`request_head`]. Each octet is looked at once, and each complete line is checked once.
///
/// # Errors
/// The same as reading the whole head would give for the lines that are there.
pub fn scan_request_head(
    input: &[u8],
    config: &Config,
    scan: &mut Scan,
    spare: &mut RequestHead,
) -> Result<bool, Malformed> {
    loop {
        let found = field_section::line_from(input, scan.line_at as usize, scan.searched as usize)?;
        let Some((line, next)) = found else {
            scan.searched = input.len() as u32;
            if scan.section_at == 0 {
                check_unfinished_start(input, config)?;
            } else {
                check_section(scan, input.len(), config)?;
            }
            return Ok(false);
        };
        if scan.section_at == 0 {
            let (_, version) =
                start_line::request_line(line, &config.limits, &config.options, &mut spare.target)?;
            if version == Version::Http09 {
                return Ok(true);
            }
            scan.section_at = next as u32;
        } else if line.is_empty() {
            return Ok(true);
        } else {
            field_line(line)?;
            scan.lines += 1;
            check_section(scan, next, config)?;
        }
        scan.line_at = next as u32;
        scan.searched = next as u32;
    }
}

/// Reads a response head from the start of `input`, given the method it answers.
///
/// # Errors
/// The first rule broken.
pub fn response_head(
    input: &[u8],
    config: &Config,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Progress, Malformed> {
    let limits = &config.limits;
    let Some((first, mut at)) = field_section::line(input, 0)? else {
        if input.len() > limits.reason_bytes_max + 16 {
            return Err(Malformed::StatusLine);
        }
        return Ok(Progress::Incomplete(Scan { searched: input.len() as u32, ..Scan::default() }));
    };
    let (version, status, reason) = start_line::status_line(first, limits)?;
    head.version = version;
    head.status = status;
    head.reason.clear();
    head.reason.extend_from_slice(reason);
    head.fields.clear();
    let section_at = at;
    let mut lines = 0;
    let mut unfolded = Vec::new();
    loop {
        let Some((mut line, mut next)) = field_section::line(input, at)? else {
            let scan = Scan {
                line_at: at as u32,
                searched: input.len() as u32,
                section_at: section_at as u32,
                lines,
            };
            check_section(&scan, input.len(), config)?;
            return Ok(Progress::Incomplete(scan));
        };
        if line.is_empty() {
            at = next;
            break;
        }
        let mut whole = &input[at..next];
        if config.options.unfold_responses {
            match unfold(input, line, next, &mut unfolded)? {
                Fold::Not => {}
                Fold::Unknown => {
                    let scan = Scan {
                        line_at: at as u32,
                        searched: at as u32,
                        section_at: section_at as u32,
                        lines,
                    };
                    check_section(&scan, input.len(), config)?;
                    return Ok(Progress::Incomplete(scan));
                }
                Fold::Until(end) => {
                    line = &unfolded;
                    whole = &[];
                    next = end;
                }
            }
        }
        let field = field_line(line)?;
        lines += 1;
        check_section(&Scan { section_at: section_at as u32, lines, ..Scan::default() }, next, config)?;
        let known = Known::lookup(field.name);
        if whole.is_empty() {
            head.fields.append_parsed(field.name, field.value, known);
        } else {
            append(&mut head.fields, whole, field, known);
        }
        at = next;
    }
    head.framing = framing::response(method, version, status, &head.fields, &config.options)?;
    Ok(Progress::Complete(at))
}

/// Whether a field line goes on in the next one.
enum Fold {
    Not,
    /// The octet after the line has not come yet.
    Unknown,
    /// The line was joined with its continuations, which end before this offset.
    Until(usize),
}

/// Joins obs-fold with a space each (9112-5.2-04).
fn unfold(input: &[u8], line: &[u8], next: usize, joined: &mut Vec<u8>) -> Result<Fold, Malformed> {
    match input.get(next) {
        None => return Ok(Fold::Unknown),
        Some(b' ' | b'\t') => {}
        Some(_) => return Ok(Fold::Not),
    }
    joined.clear();
    joined.extend_from_slice(line);
    let mut at = next;
    while let Some(b' ' | b'\t') = input.get(at) {
        let Some((line, next)) = field_section::line(input, at)? else { return Ok(Fold::Unknown) };
        joined.push(b' ');
        joined.extend_from_slice(grammar::trim_ows(line));
        at = next;
    }
    Ok(if at < input.len() { Fold::Until(at) } else { Fold::Unknown })
}

/// A start line that has not ended: is it too long already?
fn check_unfinished_start(input: &[u8], config: &Config) -> Result<(), Malformed> {
    let limits = &config.limits;
    match memchr::memchr(b' ', input) {
        None if input.len() > limits.method_bytes_max => {
            Err(if grammar::is_token(input) { Malformed::MethodTooLong } else { Malformed::RequestLine })
        }
        // The two spaces and the version are 10 octets more.
        Some(space) if input.len() - space > limits.target_bytes_max + 12 => {
            Err(if space > limits.method_bytes_max {
                Malformed::MethodTooLong
            } else {
                Malformed::TargetTooLong
            })
        }
        _ => Ok(()),
    }
}

#[inline]
fn check_section(scan: &Scan, end: usize, config: &Config) -> Result<(), Malformed> {
    if end - scan.section_at as usize > config.limits.field_section_bytes_max {
        Err(Malformed::FieldSectionTooLarge)
    } else if scan.lines as usize > config.limits.field_lines_max {
        Err(Malformed::TooManyFields)
    } else {
        Ok(())
    }
}

/// Fields whose repetition would leave open who is speaking, to whom, or what the content is.
#[inline]
fn is_decisive(known: Known) -> bool {
    matches!(
        known,
        Known::Host
            | Known::Authorization
            | Known::ProxyAuthorization
            | Known::ContentType
            | Known::ContentRange
            | Known::Origin
    )
}

/// 9112-3.2-06a to c. HTTP/1.0 needs no Host, but a wrong one is no better there.
#[inline]
fn check_host(version: Version, fields: &Fields) -> Result<(), Malformed> {
    match fields.get(Known::Host) {
        None if version == Version::Http11 => Err(Malformed::HostMissing),
        None => Ok(()),
        Some(value) => Authority::parse(value).map(|_| ()).map_err(Malformed::HostInvalid),
    }
}

/// 9110-10.1.1-01 and following: HTTP/1.0 has no expectations, and content must be announced.
fn expectation(version: Version, head: &RequestHead) -> Expectation {
    if !head.fields.contains(Known::Expect) || version < Version::Http11 {
        return Expectation::None;
    }
    let mut members = head.fields.all(Known::Expect);
    match (members.next(), members.next()) {
        (Some(one), None) if one.eq_ignore_ascii_case(b"100-continue") => {
            if head.framing.has_body() {
                Expectation::Continue
            } else {
                Expectation::None
            }
        }
        _ => Expectation::Unknown,
    }
}
