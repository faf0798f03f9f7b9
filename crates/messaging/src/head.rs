//! Heads: start line and header section together, read in one pass, with what they say of framing and Host
//! settled before anyone sees them (RFC 9112 §2.1, §3.2).

use crate::error::Malformed;
use crate::field_section::{self, append, field_line, is_dropped};
use crate::framing::{self, Framing};
use crate::limits::Config;
use crate::scan;
use crate::start_line;
use eleven_semantics::expect;
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
    /// Which of the fields came that may come once only.
    decisive: u8,
}

impl Scan {
    /// Before the first octet.
    pub const FRESH: Scan = Scan { line_at: 0, searched: 0, section_at: 0, lines: 0, decisive: 0 };

    #[inline]
    fn go_to(&mut self, line_at: usize) {
        self.line_at = line_at as u32;
        self.searched = line_at as u32;
    }

    /// Fields whose repetition would leave open who is speaking, to whom, or what the content is (9112-3.2-06b,
    /// fault X24).
    #[inline]
    fn check_repeated(&mut self, known: Option<Known>) -> Result<(), Malformed> {
        let bit = match known {
            Some(Known::Host) => 1,
            Some(Known::Authorization) => 2,
            Some(Known::ProxyAuthorization) => 4,
            Some(Known::ContentType) => 8,
            Some(Known::ContentRange) => 16,
            Some(Known::Origin) => 32,
            _ => return Ok(()),
        };
        if self.decisive & bit != 0 {
            return Err(known
                .filter(|&known| known != Known::Host)
                .map_or(Malformed::HostRepeated, Malformed::Repeated));
        }
        self.decisive |= bit;
        Ok(())
    }

    /// Octets looked at so far.
    pub fn searched(&self) -> usize {
        self.searched as usize
    }

    /// Nothing was read yet.
    pub fn is_fresh(&self) -> bool {
        self.searched == 0
    }
}

/// Reads a request head from the start of `input`, in one pass. Unless it is complete, `head` is unspecified.
///
/// # Errors
/// The first rule broken, in the order of the message: line by line, then framing, then Host.
pub fn request_head(input: &[u8], config: &Config, head: &mut RequestHead) -> Result<Progress, Malformed> {
    head.fields.clear();
    head.framing = Framing::None;
    head.expectation = Expectation::None;
    let mut scan = Scan::FRESH;
    let Some(at) = request_line(input, config, head)? else {
        scan.searched = input.len() as u32;
        return Ok(Progress::Incomplete(scan));
    };
    let version = head.version;
    if version == Version::Http09 {
        return Ok(Progress::Complete(at));
    }
    scan.section_at = at as u32;
    scan.go_to(at);
    let end = match section::<false>(input, &mut scan, config, &mut head.fields) {
        Ok(Some(end)) => end,
        stopped => {
            head.fields.clear();
            return stopped.map(|_| Progress::Incomplete(scan));
        }
    };
    head.framing = framing::request(version, &head.fields, &config.options)?;
    check_host(version, &head.fields)?;
    if head.method == Method::Connect && head.framing.has_body() {
        return Err(Malformed::ConnectContent);
    }
    head.expectation = expectation(version, head);
    Ok(Progress::Complete(end))
}

/// Reads the request line; where it ends, or `None` if that has not come yet.
#[inline]
fn request_line(input: &[u8], config: &Config, head: &mut RequestHead) -> Result<Option<usize>, Malformed> {
    if let Some(line) = scan::ordinary_request_line(input)
        && line.target.len() <= config.limits.target_bytes_max
    {
        head.target.parse_into(&line.method, line.target).map_err(Malformed::Target)?;
        head.method = line.method;
        head.version = Version::Http11;
        return Ok(Some(line.next));
    }
    let Some((line, next)) = next_line(input, &Scan::FRESH, config, unfinished_request)? else {
        return Ok(None);
    };
    let limits = &config.limits;
    let (method, version) = start_line::request_line(line, limits, &config.options, &mut head.target)?;
    head.method = method;
    head.version = version;
    Ok(Some(next))
}

/// Reads the header section at which the scan stands; where the head ends, or `None` if that has not come yet.
/// Unless it is complete, the fields are of no use, except to be cleared.
#[inline]
fn section<const RESPONSE: bool>(
    input: &[u8],
    scan: &mut Scan,
    config: &Config,
    fields: &mut Fields,
) -> Result<Option<usize>, Malformed> {
    let unfinished = if RESPONSE { unfinished_response } else { unfinished_request };
    let mut at = scan.line_at as usize;
    let limits = &config.limits;
    let end_max = at.saturating_add(limits.field_section_bytes_max);
    // Ordinary lines are only described, and copied all at once, as far as they stand side by side.
    let mut run = at;
    loop {
        while let Some(line) = scan::ordinary_line(input, at) {
            let next = line.value_end + 2;
            // What passes a limit, and a line that goes on, are for the careful way.
            if next > end_max
                || scan.lines as usize >= limits.field_lines_max
                || (RESPONSE && is_fold(input, next))
            {
                break;
            }
            scan.lines += 1;
            if !RESPONSE {
                scan.check_repeated(line.known)?;
            }
            fields.describe_line(at - run, line.colon - at, line.value_end - line.colon - 2, line.known);
            at = next;
        }
        fields.append_run(&input[run..at]);
        if let [b'\r', b'\n', ..] = input[at..] {
            return Ok(Some(at + 2));
        }
        scan.go_to(at);
        let Some((line, mut next)) = next_line(input, scan, config, unfinished)? else {
            scan.searched = input.len() as u32;
            return Ok(None);
        };
        check_section_bytes(scan, next, config)?;
        let field = field_line(line)?;
        scan.lines += 1;
        check_lines(scan, config)?;
        let known = Known::lookup(field.name);
        if !RESPONSE {
            scan.check_repeated(known)?;
            if !is_dropped(field.name, known, config.options.keep_underscore_names) {
                append(fields, &input[at..next], field, known);
            }
        } else if config.options.unfold_responses && is_fold(input, next) {
            let mut value = field.value.to_vec();
            scan.go_to(next);
            let Some(end) = unfold(input, scan, config, &mut value)? else {
                // The line is read again with its continuations.
                scan.lines -= 1;
                scan.go_to(at);
                return Ok(None);
            };
            fields.append_parsed(field.name, grammar::trim_ows(&value), known);
            next = end;
        } else {
            append(fields, &input[at..next], field, known);
        }
        at = next;
        run = next;
    }
}

/// Whether a continuation line begins at `at`.
#[inline]
fn is_fold(input: &[u8], at: usize) -> bool {
    matches!(input.get(at), Some(b' ' | b'\t'))
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
        let Some((line, next)) = next_line(input, scan, config, unfinished_request)? else {
            scan.searched = input.len() as u32;
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
            check_section_bytes(scan, next, config)?;
            let field = field_line(line)?;
            scan.lines += 1;
            check_lines(scan, config)?;
            scan.check_repeated(Known::lookup(field.name))?;
        }
        scan.go_to(next);
    }
}

/// Reads a response head from the start of `input`, given the method it answers. Unless it is complete, `head` is
/// unspecified.
///
/// # Errors
/// The first rule broken.
pub fn response_head(
    input: &[u8],
    config: &Config,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Progress, Malformed> {
    head.fields.clear();
    let mut scan = Scan::FRESH;
    let Some((first, at)) = next_line(input, &scan, config, unfinished_response)? else {
        scan.searched = input.len() as u32;
        return Ok(Progress::Incomplete(scan));
    };
    let (version, status, reason) = start_line::status_line(first, &config.limits)?;
    head.version = version;
    head.status = status;
    head.reason.clear();
    head.reason.extend_from_slice(reason);
    scan.section_at = at as u32;
    scan.go_to(at);
    let end = match section::<true>(input, &mut scan, config, &mut head.fields) {
        Ok(Some(end)) => end,
        stopped => {
            head.fields.clear();
            return stopped.map(|_| Progress::Incomplete(scan));
        }
    };
    head.framing = framing::response(method, version, status, &head.fields, &config.options)?;
    Ok(Progress::Complete(end))
}

/// Goes on with a head that [`response_head`] left incomplete, as [`scan_request_head`] does.
///
/// # Errors
/// The same as reading the whole head would give for the lines that are there.
pub fn scan_response_head(input: &[u8], config: &Config, scan: &mut Scan) -> Result<bool, Malformed> {
    loop {
        let Some((line, next)) = next_line(input, scan, config, unfinished_response)? else {
            scan.searched = input.len() as u32;
            return Ok(false);
        };
        if scan.section_at == 0 {
            start_line::status_line(line, &config.limits)?;
            scan.section_at = next as u32;
        } else if line.is_empty() {
            return Ok(true);
        } else {
            check_section_bytes(scan, next, config)?;
            if scan.lines > 0 && config.options.unfold_responses && matches!(line, [b' ' | b'\t', ..]) {
                field_section::check_value(line)?;
            } else {
                field_line(line)?;
                scan.lines += 1;
                check_lines(scan, config)?;
            }
        }
        scan.go_to(next);
    }
}

/// Joins the continuation lines that begin at the scan's line to `value`, with a space each (9112-5.2-04).
/// Where they end; `None` if that has not come yet.
#[cold]
fn unfold(
    input: &[u8],
    scan: &mut Scan,
    config: &Config,
    value: &mut Vec<u8>,
) -> Result<Option<usize>, Malformed> {
    loop {
        let at = scan.line_at as usize;
        match input.get(at) {
            None => return Ok(None),
            Some(b' ' | b'\t') => {}
            Some(_) => return Ok(Some(at)),
        }
        let Some((line, next)) = next_line(input, scan, config, unfinished_response)? else {
            return Ok(None);
        };
        check_section_bytes(scan, next, config)?;
        field_section::check_value(line)?;
        value.push(b' ');
        value.extend_from_slice(grammar::trim_ows(line));
        scan.go_to(next);
    }
}

/// The line at which the scan stands. However the octets come, the answer is the one of their coming one by one:
/// a limit that is passed before the line ends is found first.
#[inline]
fn next_line<'b>(
    input: &'b [u8],
    scan: &Scan,
    config: &Config,
    unfinished: fn(&[u8], &Config) -> Result<(), Malformed>,
) -> Result<Option<(&'b [u8], usize)>, Malformed> {
    match field_section::line_from(input, scan.line_at as usize, scan.searched as usize) {
        Ok(Some(found)) => Ok(Some(found)),
        Ok(None) => check_unfinished(input, scan, config, unfinished).map(|()| None),
        Err(fault) => {
            let lf = memchr::memchr(b'\n', &input[scan.searched as usize..]).unwrap_or(0);
            let before = &input[..scan.searched as usize + lf];
            check_unfinished(before, scan, config, unfinished).and(Err(fault))
        }
    }
}

#[cold]
fn check_unfinished(
    input: &[u8],
    scan: &Scan,
    config: &Config,
    unfinished: fn(&[u8], &Config) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    if scan.section_at == 0 {
        return unfinished(input, config);
    }
    // A CR alone may begin the empty line, which is not counted.
    let alone = input.len() == scan.line_at as usize + 1 && input.ends_with(b"\r");
    if alone { Ok(()) } else { check_section_bytes(scan, input.len(), config) }
}

/// A status line that has not ended: wrong already?
fn unfinished_response(input: &[u8], config: &Config) -> Result<(), Malformed> {
    // Version, code and two spaces are 13 octets, CR one more.
    let too_long = input.len() > 14 + config.limits.reason_bytes_max;
    if too_long { start_line::status_line(input, &config.limits).map(|_| ()) } else { Ok(()) }
}

#[inline]
fn check_section_bytes(scan: &Scan, end: usize, config: &Config) -> Result<(), Malformed> {
    let bytes = end - scan.section_at as usize;
    if bytes > config.limits.field_section_bytes_max { Err(Malformed::FieldSectionTooLarge) } else { Ok(()) }
}

#[inline]
fn check_lines(scan: &Scan, config: &Config) -> Result<(), Malformed> {
    if scan.lines as usize > config.limits.field_lines_max { Err(Malformed::TooManyFields) } else { Ok(()) }
}

/// A request line that has not ended: wrong already?
fn unfinished_request(input: &[u8], config: &Config) -> Result<(), Malformed> {
    start_line::unfinished_request_line(input, &config.limits)
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

/// What [`expect::expectation`] reads, where content is announced (9110-10.1.1-07).
fn expectation(version: Version, head: &RequestHead) -> Expectation {
    if !head.fields.contains(Known::Expect) {
        return Expectation::None;
    }
    match expect::expectation(version, &head.fields) {
        expect::Expectation::Continue if head.framing.has_body() => Expectation::Continue,
        expect::Expectation::Continue | expect::Expectation::None => Expectation::None,
        expect::Expectation::Unknown => Expectation::Unknown,
    }
}
