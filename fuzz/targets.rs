//! What must hold for any octets at all: one function a reader, used by the fuzz targets and by the test that
//! replays their corpora. None may panic; each also compares two ways to the same result, because a fuzzer finds
//! no mistake that nothing complains about.

use eleven_client::jar::Jar;
use eleven_client::journal;
use eleven_messaging::chunked::{Chunk, Decoder};
use eleven_messaging::head::{
    Progress, Scan, request_head, response_head, scan_request_head, scan_response_head,
};
use eleven_messaging::server::{Answer, Length, Received, ServerConnection};
use eleven_messaging::{Arrived, ClientConnection, Options, Request};
use eleven_messaging::{
    Config, Framing, Malformed, RequestHead, ResponseHead, field_section as section, framing as decide,
};
use eleven_semantics::content_disposition::{NAME_BYTES_MAX, download_name, safe_name};
use eleven_semantics::cookie::{Context, Cookie, SetCookie, domain_match};
use eleven_semantics::date::HttpDate;
use eleven_semantics::range::{RangeLimits, Ranges, parse, resolve};
use eleven_semantics::target::{Authority, canonical_path, push_encoded_path};
use eleven_semantics::{Fields, Method, RequestTarget, Status, Version};
use std::sync::Arc;

/// A head, as a request and as a response. One that comes octet by octet gives the same result, or is refused
/// for the same reason.
pub fn head(data: &[u8]) {
    let config = Config::default();
    let mut whole = RequestHead::default();
    let outcome = request_head(data, &config, &mut whole);
    let mut dripped = RequestHead::default();
    let dripped_outcome = drip_head(data, &config, &mut dripped);
    assert_eq!(progress(&outcome), progress(&dripped_outcome), "dripped, the head differs");
    if let Ok(Progress::Complete(end)) = outcome {
        assert!(end <= data.len());
        assert_eq!(
            (&whole.method, whole.target.as_bytes(), whole.framing),
            (&dripped.method, dripped.target.as_bytes(), dripped.framing)
        );
        again(&whole, &config);
    }
    for unfold_responses in [true, false] {
        let options = Options { unfold_responses, ..Options::default() };
        let config = Config { options, ..Config::default() };
        for method in [Method::Get, Method::Head, Method::Connect] {
            let mut head = ResponseHead::default();
            let outcome = response_head(data, &config, &method, &mut head);
            let mut dripped = ResponseHead::default();
            let dripped_outcome = drip_response_head(data, &config, &method, &mut dripped);
            assert_eq!(progress(&outcome), progress(&dripped_outcome), "dripped, the response head differs");
            if let Ok(Progress::Complete(end)) = outcome {
                assert!(end <= data.len());
                assert_eq!((head.fields, head.framing), (dripped.fields, dripped.framing));
            }
        }
    }
}

/// What two ways of reading must agree on. Where an incomplete head stands is each one's own business.
fn progress(outcome: &Result<Progress, Malformed>) -> Result<Option<usize>, Malformed> {
    match outcome {
        Ok(Progress::Complete(end)) => Ok(Some(*end)),
        Ok(Progress::Incomplete(_)) => Ok(None),
        Err(malformed) => Err(*malformed),
    }
}

fn drip_head(data: &[u8], config: &Config, head: &mut RequestHead) -> Result<Progress, Malformed> {
    let mut scan = Scan::default();
    let mut spare = RequestHead::default();
    for len in 0..=data.len() {
        if scan.is_fresh() || scan_request_head(&data[..len], config, &mut scan, &mut spare)? {
            match request_head(&data[..len], config, head)? {
                Progress::Incomplete(at) => scan = at,
                complete => return Ok(complete),
            }
        }
    }
    Ok(Progress::Incomplete(scan))
}

fn drip_response_head(
    data: &[u8],
    config: &Config,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<Progress, Malformed> {
    let mut scan = Scan::default();
    for len in 0..=data.len() {
        if scan.is_fresh() || scan_response_head(&data[..len], config, &mut scan)? {
            match response_head(&data[..len], config, method, head)? {
                Progress::Incomplete(at) => scan = at,
                complete => return Ok(complete),
            }
        }
    }
    Ok(Progress::Incomplete(scan))
}

/// A head that was accepted is accepted again as we would write it, with the same meaning.
fn again(head: &RequestHead, config: &Config) {
    if head.version == Version::Http09 {
        return;
    }
    let minor = if head.version == Version::Http10 { '0' } else { '1' };
    let mut text = Vec::new();
    text.extend_from_slice(head.method.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(head.target.as_bytes());
    text.extend_from_slice(format!(" HTTP/1.{minor}\r\n").as_bytes());
    for field in head.fields.iter() {
        text.extend_from_slice(field.name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(field.value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    let mut second = RequestHead::default();
    let outcome = request_head(&text, config, &mut second);
    // White space around values is normal form now, so it can only be shorter.
    assert_eq!(progress(&outcome), Ok(Some(text.len())), "our own writing of the head is refused");
    assert_eq!((second.framing, second.expectation), (head.framing, head.expectation));
    assert_eq!(second.fields.len(), head.fields.len());
}

/// Field lines: every line that is accepted holds nothing that could end a line or a name early.
pub fn field_section(data: &[u8]) {
    let mut at = 0;
    while let Ok(Some((line, next))) = section::line(data, at) {
        assert!(next > at && !line.contains(&b'\n'));
        if let Ok(field) = section::field_line(line) {
            assert!(!field.name.is_empty() && field.name.iter().all(|b| b.is_ascii_graphic() && *b != b':'));
            assert!(!field.value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')));
            let mut fields = Fields::new();
            fields.push(field.name, field.value).expect("what was read can be written");
        }
        at = next;
    }
}

/// A chunked body, whole and octet by octet: the same data, the same end, or the same fault.
pub fn chunked(data: &[u8]) {
    let config = Config::default();
    assert_eq!(decode(data, data.len().max(1), &config), decode(data, 1, &config));
}

type Decoded = (Vec<u8>, Option<usize>, Option<Malformed>);

fn decode(data: &[u8], step: usize, config: &Config) -> Decoded {
    let mut decoder = Decoder::new();
    let mut body = Vec::new();
    let (mut from, mut to) = (0, 0);
    loop {
        match decoder.decode(&data[from..to], config) {
            Err(malformed) => return (body, None, Some(malformed)),
            Ok((taken, Chunk::Data(piece))) => {
                assert!(!piece.is_empty());
                body.extend_from_slice(piece);
                from += taken;
            }
            Ok((taken, Chunk::End)) => return (body, Some(from + taken), None),
            Ok((taken, Chunk::NeedMore)) => {
                from += taken;
                if to == data.len() {
                    return (body, None, None);
                }
                to = (to + step).min(data.len());
            }
        }
    }
}

/// Framing from field lines: what is accepted was said without doubt.
pub fn framing(data: &[u8]) {
    let mut fields = Fields::new();
    for line in data.split(|b| *b == b'\n') {
        if let Ok(field) = section::field_line(line.strip_suffix(b"\r").unwrap_or(line)) {
            let _ = fields.push(field.name, field.value);
        }
    }
    let lines = |name: &str| fields.iter().filter(|f| f.name.eq_ignore_ascii_case(name.as_bytes())).count();
    let (lengths, codings) = (lengths_of(&fields), lines("transfer-encoding"));
    for version in [Version::Http10, Version::Http11] {
        match decide::request(version, &fields, &Config::default().options) {
            Ok(Framing::Length(n)) => assert!(codings == 0 && lengths == Some(n), "{n}"),
            Ok(Framing::Chunked { .. }) => {
                assert!(lines("content-length") == 0 && version == Version::Http11)
            }
            Ok(Framing::None) => assert!(lines("content-length") == 0 && codings == 0),
            Ok(Framing::UntilClose { .. }) => panic!("a request cannot end with its connection"),
            Err(malformed) => assert!(malformed.status().code() >= 400),
        }
        for method in [Method::Get, Method::Head, Method::Connect] {
            let _ = decide::response(&method, version, Status::OK, &fields, &Config::default().options);
        }
    }
}

/// The one Content-Length, read the slow way.
fn lengths_of(fields: &Fields) -> Option<u64> {
    let mut found = fields.iter().filter(|f| f.name.eq_ignore_ascii_case(b"content-length"));
    let text = std::str::from_utf8(found.next()?.value).ok()?;
    if found.next().is_some() || !text.bytes().all(|b| b.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// A request target: the path that files are looked up by has no dot segments, and survives being written.
pub fn target(data: &[u8]) {
    for method in [Method::Get, Method::Options, Method::Connect] {
        let Ok(target) = RequestTarget::parse(&method, data) else { continue };
        assert_eq!(target.as_bytes(), data);
        if let Some(authority) = target.authority() {
            Authority::parse(authority).expect("the authority of an accepted target is one");
        }
    }
    if let Ok(path) = canonical_path(data) {
        assert!(path.starts_with(b"/") && !path.contains(&0));
        assert!(!path.split(|b| *b == b'/').any(|segment| matches!(segment, b"." | b"..")));
        let mut written = Vec::new();
        push_encoded_path(&mut written, &path);
        assert!(written.iter().all(|b| b.is_ascii_graphic()));
        assert_eq!(canonical_path(&written).as_deref(), Ok(path.as_slice()));
    }
}

/// A Range value: never more octets than the representation has, and never outside of it.
pub fn range(data: &[u8]) {
    let limits = RangeLimits::default();
    let Ok(specs) = parse(data, &limits) else { return };
    for length in [0, 1, 2, 1000, u64::from(u32::MAX), u64::MAX] {
        match resolve(&specs, length, &limits) {
            Ranges::Single(span) => assert!(span.first <= span.last && span.last < length),
            Ranges::Several(spans) => {
                assert!(spans.len() >= 2);
                assert!(spans.iter().all(|span| span.first <= span.last && span.last < length));
                let total: u128 = spans.iter().map(|span| u128::from(span.len())).sum();
                assert!(total <= u128::from(length), "{total} octets of {length}");
            }
            Ranges::Whole(_) | Ranges::Unsatisfiable => {}
        }
    }
}

/// A date: what was read is written in the one form, and read again as the same moment.
pub fn date(data: &[u8]) {
    for now in [0, 1_800_000_000, i64::from(i32::MAX)] {
        if let Some(date) = HttpDate::parse(data, HttpDate(now)) {
            assert_eq!(HttpDate::parse(&date.imf(), HttpDate(now)), Some(date));
        }
    }
}

/// A whole connection: each request is answered at once; whole and octet by octet, the same happens.
pub fn connection(data: &[u8]) {
    assert_eq!(serve(data, data.len().max(1)), serve(data, 1));
}

/// What the server made of a connection: the requests with their content, and what ended it.
fn serve(data: &[u8], step: usize) -> (Vec<String>, Vec<u8>, String) {
    let mut server = ServerConnection::new(Arc::new(Config::default()));
    let mut head = RequestHead::default();
    let (mut requests, mut content, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let (mut from, mut to) = (0, 0);
    loop {
        let (taken, received) = match server.receive(&data[from..to], to == data.len(), &mut head) {
            Ok(received) => received,
            Err(malformed) => return (requests, content, malformed.name().to_owned()),
        };
        let complete = match received {
            Received::Head => {
                requests.push(format!(
                    "{:?} {:?}",
                    head.method,
                    String::from_utf8_lossy(head.target.as_bytes())
                ));
                !head.framing.has_body()
            }
            Received::Data(piece) => {
                content.extend_from_slice(piece);
                false
            }
            Received::Decoded(piece) => {
                content.extend_from_slice(&piece);
                false
            }
            Received::End(_) => true,
            Received::NeedMore if to < data.len() => {
                to = (to + step).min(data.len());
                false
            }
            end => return (requests, content, format!("{end:?}")),
        };
        from += taken;
        assert!(from <= to);
        if complete {
            out.clear();
            answer(&mut server, &mut out);
        }
    }
}

/// 404, which also declines CONNECT and Upgrade.
fn answer(server: &mut ServerConnection, out: &mut Vec<u8>) {
    let fields = Fields::new();
    let answer = Answer {
        status: Status::NOT_FOUND,
        fields: &fields,
        added: None,
        length: Length::Known(0),
        date: b"",
        close: None,
        content_is_read: false,
        compressible: false,
    };
    server.respond(&answer, out).expect("a complete request can be answered");
    server.finish(None, out).expect("an empty body is complete");
    assert!(out.starts_with(b"HTTP/1.1 404 "));
}

/// What a server sends, in answer to requests that the first octet chooses; whole and octet by octet, the client
/// makes the same of it. A connection is used again only if nothing was refused and nothing is left over.
pub fn client(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    assert_eq!(ask(choice, data, data.len().max(1)), ask(choice, data, 1));
}

/// The request lines of the fuzzed client: pipelined ones first, the last one may offer a switch.
const ASKED: [&[Method]; 6] = [
    &[Method::Get],
    &[Method::Head],
    &[Method::Post],
    &[Method::Connect],
    &[Method::Get, Method::Head, Method::Get],
    &[],
];

/// What the client made of a connection: the responses with their content, and what ended it.
fn ask(choice: u8, data: &[u8], step: usize) -> (Vec<String>, Vec<u8>, String) {
    let http09 = choice & 0x80 != 0;
    let options = Options { http09, assume_http11: true, ..Options::default() };
    let mut client = ClientConnection::new(Arc::new(Config { options, ..Config::default() }));
    let (none, mut upgrade, mut out) = (Fields::new(), Fields::new(), Vec::new());
    upgrade.push("Upgrade", "echo").expect("a field");
    for method in ASKED[usize::from(choice & 0x3f) % ASKED.len()] {
        let connect = *method == Method::Connect;
        let target: &[u8] = if connect { b"a:443" } else { b"/" };
        let fields = if choice & 0x40 != 0 && !connect && client.pending() == 0 { &upgrade } else { &none };
        let request = Request::new(method, target, b"a", fields);
        if client.send(&request, &mut out).is_err() {
            break; // an offered switch must be answered first
        }
    }
    let (mut responses, mut content) = (Vec::new(), Vec::new());
    let mut head = ResponseHead::default();
    let (mut from, mut to) = (0, 0);
    loop {
        let (taken, arrived) = match client.receive(&data[from..to], to == data.len(), &mut head) {
            Ok(found) => found,
            Err(malformed) => {
                assert!(!client.is_reusable(0));
                return (responses, content, malformed.name().to_owned());
            }
        };
        match arrived {
            Arrived::Head | Arrived::Interim | Arrived::Switched => responses.push(format!(
                "{arrived:?} {} {:?} {:?}",
                head.status.code(),
                head.fields,
                head.framing
            )),
            Arrived::Data(piece) => content.extend_from_slice(piece),
            Arrived::Decoded(piece) => content.extend_from_slice(&piece),
            Arrived::End(trailers) => responses.push(format!("{trailers:?}")),
            Arrived::NeedMore if to < data.len() => to = (to + step).min(data.len()),
            end => {
                assert!(!client.is_reusable(0), "the server closed, or no request was answered");
                return (responses, content, format!("{end:?}"));
            }
        }
        from += taken;
        assert!(from <= to);
    }
}

/// A Set-Cookie value, received by a host that the first octet chooses: what is kept belongs to the host, keeps the
/// promises of its name, and comes out of a cookies.txt as it went in.
pub fn set_cookie(data: &[u8]) {
    const NOW: i64 = 1_800_000_000;
    let Some((&choice, value)) = data.split_first() else { return };
    let host = ["localhost", "www.example.com", "192.0.2.1", "[2001:db8::1]"][usize::from(choice & 3)];
    let secure = choice & 4 != 0 || choice & 3 == 1;
    let context = Context { host, path: b"/dir/file", secure, same_site: choice & 8 == 0 };
    let suffix = |name: &str| !name.contains('.');
    let Ok(set) = SetCookie::parse(value) else { return };
    let Ok(cookie) = Cookie::receive(set, &context, NOW, suffix) else { return };
    assert!(secure || !cookie.secure, "a Secure cookie from an unsecured host");
    assert!(if cookie.host_only { cookie.domain == host } else { domain_match(host, &cookie.domain) });
    assert!(!cookie.name.iter().chain(&cookie.value).any(|&b| b < 0x20 && b != b'\t' || b == 0x7f));
    assert!(cookie.path.starts_with(b"/"));
    let name = cookie.name.to_ascii_lowercase();
    assert!(!name.starts_with(b"__secure-") || cookie.secure);
    assert!(!name.starts_with(b"__host-") || (cookie.secure && cookie.host_only && cookie.path == b"/"));
    let mut jar = Jar::new();
    jar.receive([value].into_iter(), &context, NOW);
    let text = jar.write(true, NOW);
    let mut again = Jar::new();
    assert!(again.read(&text, NOW).is_empty(), "a line of our own is refused");
    assert_eq!(again.write(true, NOW), text);
    // Also where it could not be written, what is sent holds nothing that ends a field.
    if let Some(field) = jar.field(&context, true, NOW) {
        assert!(!field.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')));
    }
}

/// A Content-Disposition value: whatever it says, the name is one that can be created in a directory, and is safe as it
/// stands.
pub fn content_disposition(data: &[u8]) {
    for path in ["/dir/file.bin", "/", "/%2e%2e/%2e%2e%2f"] {
        let name = download_name(Some(data), path);
        assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "{name:?}");
        assert!(!name.starts_with(['.', '-', ' ']) && !name.ends_with(['.', ' ']), "{name:?}");
        assert!(!name.contains(['/', '\\']) && !name.chars().any(char::is_control), "{name:?}");
        assert_eq!(safe_name(&name).as_deref(), Some(name.as_str()));
    }
}

/// A journal: what is trusted is what stands in its sound part, lies within the file, and is the same when it is written
/// again.
pub fn journal(data: &[u8]) {
    let Ok(read) = journal::read(data) else { return };
    let sound = read.sound_bytes as usize;
    assert!(sound <= data.len());
    assert_eq!(journal::read(&data[..sound]).as_ref(), Ok(&read));
    let torn = [&data[..sound], b"0123456789abcdef {\"done\":[[0,9]]}"].concat();
    assert_eq!(journal::read(&torn).as_ref(), Ok(&read), "a torn end counts");
    let length = read.subject.length.unwrap_or(u64::MAX);
    let mut end = 0;
    for &(from, to) in read.done.ranges() {
        assert!(from >= end && from < to && to <= length);
        end = to + u64::from(to < u64::MAX);
    }
    let text = journal::begin(&read.subject, &read.done);
    let again = journal::read(text.as_bytes()).expect("what we write can be read");
    assert_eq!((&again.subject, &again.done), (&read.subject, &read.done));
    let more = text + &journal::append(&read.done);
    assert_eq!(journal::read(more.as_bytes()).expect("and appended to").done, read.done);
}
