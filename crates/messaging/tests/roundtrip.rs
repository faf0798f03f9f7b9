//! What the client's end writes, the server's end reads, and back: random requests and responses, pipelined, with
//! every framing and random cuts. Properties, not examples: whatever goes in comes out, and both ends agree on
//! whether the connection lives on.

mod common;

use eleven_messaging::{
    Answer, Arrived, ClientConnection, Config, Framing, Length, Options, Persistence, Received, Request,
    RequestHead, ResponseHead, ServerConnection,
};
use eleven_semantics::{Fields, Method, Status, Version};
use eleven_testkit::reader::Reader;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::sync::Arc;

#[derive(Debug, Clone)]
struct Message {
    method: &'static str,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    content: Vec<Vec<u8>>,
    /// Whether the length is told beforehand.
    counted: bool,
    gzip: bool,
    trailers: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone)]
struct Exchange {
    request: Message,
    status: u16,
    response: Message,
    te: (bool, bool),
    close: bool,
}

fn name() -> impl Strategy<Value = String> {
    // A prefix that no known field has: what frames or belongs to the connection is the machines' own.
    "[xX]-[!#$%&'*+.^`|~0-9a-zA-Z-]{0,20}"
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let inner = proptest::collection::vec(
        prop_oneof![8 => 0x21..0x7fu8, 2 => Just(b' '), 1 => Just(b'\t'), 1 => 0x80..=0xffu8],
        0..60,
    );
    inner.prop_map(|v| v.trim_ascii().to_vec())
}

fn section() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    proptest::collection::vec((name(), value()), 0..6)
}

fn message(method: &'static [&'static str]) -> impl Strategy<Value = Message> {
    let target = "/[a-zA-Z0-9._~!$&'()*+,;=:@/-]{0,30}(\\?[a-zA-Z0-9=&/?]{0,20})?";
    let content = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..4);
    (proptest::sample::select(method), target, section(), content, any::<bool>(), any::<bool>(), section())
        .prop_map(|(method, target, fields, content, counted, gzip, trailers)| Message {
            method,
            target,
            fields,
            content,
            counted,
            gzip,
            trailers,
        })
}

fn exchange() -> impl Strategy<Value = Exchange> {
    const STATUSES: [u16; 11] = [200, 200, 200, 204, 205, 206, 299, 302, 304, 404, 500];
    (
        message(&["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]),
        proptest::sample::select(&STATUSES[..]),
        message(&["-"]),
        any::<(bool, bool)>(),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(request, status, response, te, close)| Exchange {
            request,
            status,
            response,
            te,
            close,
        })
}

fn to_fields(lines: &[(String, Vec<u8>)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.push(name.as_str(), value).unwrap();
    }
    fields
}

/// The lines of the test's own among those received.
fn own(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let ours =
        |f: &eleven_semantics::fields::Field<'_>| f.name.starts_with(b"x-") || f.name.starts_with(b"X-");
    fields
        .iter()
        .filter(ours)
        .map(|f| (String::from_utf8(f.name.to_vec()).unwrap(), f.value.to_vec()))
        .collect()
}

fn length(message: &Message) -> Length {
    let total: usize = message.content.iter().map(Vec::len).sum();
    if message.counted { Length::Known(total as u64) } else { Length::Unknown }
}

/// Cuts octets at the places that `cuts` name.
fn pieces<'a>(octets: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect();
    places.sort_unstable();
    let mut rest = octets;
    let mut found = Vec::new();
    let mut before = 0;
    for place in places {
        let (piece, after) = rest.split_at(place - before);
        found.push(piece);
        rest = after;
        before = place;
    }
    found.push(rest);
    found
}

/// A request or response as it came out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    line: String,
    fields: Vec<(String, Vec<u8>)>,
    content: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

/// Has the server read all requests before it answers any.
fn read_requests(server: &mut ServerConnection, octets: &[&[u8]]) -> Vec<Seen> {
    let mut head = RequestHead::default();
    let mut held = Vec::new();
    let mut seen: Vec<Seen> = Vec::new();
    for piece in octets {
        held.extend_from_slice(piece);
        loop {
            let (taken, received) = server.receive(&held, false, &mut head).expect("what we write is valid");
            let more = match received {
                Received::Head => {
                    let target = String::from_utf8(head.target.as_bytes().to_vec()).unwrap();
                    seen.push(Seen {
                        line: format!("{} {target}", head.method),
                        fields: own(&head.fields),
                        ..Seen::default()
                    });
                    true
                }
                Received::Data(data) => {
                    seen.last_mut().unwrap().content.extend_from_slice(data);
                    true
                }
                Received::Decoded(data) => {
                    seen.last_mut().unwrap().content.extend_from_slice(&data);
                    true
                }
                Received::End(trailers) => {
                    seen.last_mut().unwrap().trailers = trailers.map_or(Vec::new(), |t| own(&t));
                    true
                }
                Received::NeedMore | Received::Stopped => false,
                other => panic!("{other:?}"),
            };
            held.drain(..taken);
            if !more {
                break;
            }
        }
    }
    assert!(held.is_empty(), "{} octets are left", held.len());
    seen
}

fn read_responses(client: &mut ClientConnection, octets: &[&[u8]]) -> Vec<Seen> {
    let mut head = ResponseHead::default();
    let mut held = Vec::new();
    let mut seen: Vec<Seen> = Vec::new();
    for piece in octets {
        held.extend_from_slice(piece);
        loop {
            let (taken, arrived) = client.receive(&held, false, &mut head).expect("what we write is valid");
            let more = match arrived {
                Arrived::Head => {
                    let line = head.status.code().to_string();
                    seen.push(Seen { line, fields: own(&head.fields), ..Seen::default() });
                    true
                }
                Arrived::Data(data) => {
                    seen.last_mut().unwrap().content.extend_from_slice(data);
                    true
                }
                Arrived::Decoded(data) => {
                    seen.last_mut().unwrap().content.extend_from_slice(&data);
                    true
                }
                Arrived::End(trailers) => {
                    seen.last_mut().unwrap().trailers = trailers.map_or(Vec::new(), |t| own(&t));
                    true
                }
                Arrived::NeedMore | Arrived::Stopped => false,
                other => panic!("{other:?}"),
            };
            held.drain(..taken);
            if !more {
                break;
            }
        }
    }
    assert!(held.is_empty(), "{} octets are left", held.len());
    seen
}

/// A head as it was written: lines that end in CRLF, none of which begins with white space (9112-2.2-08,
/// 9112-5.2-01), no CR or LF elsewhere (9112-2.2-03), one empty line, which is the last (9112-2.2-05).
fn check_head(head: &[u8]) {
    let lines = head.strip_suffix(b"\r\n").expect("a head ends with an empty line");
    for line in lines.split_inclusive(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("lines end in CRLF");
        assert!(!line.is_empty() && !line.contains(&b'\r'), "{}", head.escape_ascii());
        assert!(!line.starts_with(b" ") && !line.starts_with(b"\t"), "{}", head.escape_ascii());
    }
}

/// What is expected of a message whose framing was this.
fn expected(line: String, message: &Message, framing: Framing) -> Seen {
    let chunked = matches!(framing, Framing::Chunked { .. });
    Seen {
        line,
        fields: message.fields.clone(),
        content: if framing.has_body() { message.content.concat() } else { Vec::new() },
        trailers: if chunked { message.trailers.clone() } else { Vec::new() },
    }
}

fn run(exchanges: &[Exchange], cuts: &[prop::sample::Index]) -> Result<(), TestCaseError> {
    let options = Options { assume_http11: true, ..Options::default() };
    let config = Arc::new(Config { options, ..Config::default() });
    let mut client = ClientConnection::new(config.clone());
    let mut server = ServerConnection::new(config);
    let mut wire = Vec::new();
    let mut wanted = Vec::new();
    let mut asked = Vec::new();
    for exchange in exchanges {
        let message = &exchange.request;
        let method = Method::from_bytes(message.method.as_bytes()).unwrap();
        let fields = to_fields(&message.fields);
        let request = Request {
            length: length(message),
            te_trailers: exchange.te.0,
            te_gzip: exchange.te.1,
            gzip: message.gzip,
            close: exchange.close,
            ..Request::new(&method, message.target.as_bytes(), b"a.example:8080", &fields)
        };
        let begins = wire.len();
        let framing = client.send(&request, &mut wire).unwrap();
        check_head(&wire[begins..]);
        if framing.has_body() {
            for piece in &message.content {
                client.body().unwrap().write(piece, &mut wire).unwrap();
            }
            client.finish(Some(&to_fields(&message.trailers)), &mut wire).unwrap();
        }
        wanted.push(expected(format!("{} {}", message.method, message.target), message, framing));
        asked.push(exchange);
        if exchange.close {
            break;
        }
    }
    prop_assert_eq!(read_requests(&mut server, &pieces(&wire, cuts)), wanted);
    // A strict reader that is not ours takes every octet: no fold, no bare CR or LF, no white space before the
    // first field line, no line too many.
    let mut strict = Reader::new(&wire[..]);
    for _ in &asked {
        prop_assert_eq!(strict.request().err(), None);
    }
    prop_assert_eq!(strict.end(), Ok(()));

    wire.clear();
    let mut wanted = Vec::new();
    let mut last = Persistence::Keep;
    for exchange in &asked {
        let message = &exchange.response;
        let fields = to_fields(&message.fields);
        let answer = Answer {
            status: Status::new(exchange.status).unwrap(),
            fields: &fields,
            added: None,
            length: length(message),
            date: b"Date: Tue, 24 Nov 2026 12:00:00 GMT\r\n",
            close: None,
            content_is_read: false,
            compressible: true,
        };
        let begins = wire.len();
        let framing = server.respond(&answer, &mut wire).unwrap();
        check_head(&wire[begins..]);
        if framing.has_body() {
            for piece in &message.content {
                server.body().unwrap().write(piece, &mut wire).unwrap();
            }
        }
        last = server.finish(Some(&to_fields(&message.trailers)), &mut wire).unwrap();
        wanted.push(expected(exchange.status.to_string(), message, framing));
    }
    let mut strict = Reader::new(&wire[..]);
    for exchange in &asked {
        prop_assert_eq!(strict.response(exchange.request.method).err(), None);
    }
    prop_assert_eq!(strict.end(), Ok(()));
    prop_assert_eq!(read_responses(&mut client, &pieces(&wire, cuts)), wanted);
    let closes = asked.last().is_some_and(|e| e.close);
    prop_assert_eq!(last == Persistence::Keep, !closes);
    prop_assert_eq!(client.is_reusable(0), !closes);
    prop_assert_eq!(server.is_idle(), !closes);
    if !asked.is_empty() {
        prop_assert_eq!(client.peer_version(), Some(Version::Http11));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: RngSeed::Fixed(9112), ..ProptestConfig::default() })]

    /// 9112-2.2-03, 9112-2.2-05, 9112-2.2-08, 9112-5.2-01, 9112-9.2-01, 9112-9.3.2-01, 9112-9.3.2-02b, 9112-6.2-01, 9112-7.1-02, 9112-7.1.2-02, faults S89, S68.
    #[test]
    fn what_one_end_writes_the_other_reads(
        exchanges in proptest::collection::vec(exchange(), 0..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        run(&exchanges, &cuts)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, rng_seed: RngSeed::Fixed(9112), ..ProptestConfig::default() })]

    /// The `gzip` coding over sizes around the pieces it is worked on in, well and badly compressible; R21, G21.
    #[test]
    fn gzip_keeps_every_octet(
        size in prop_oneof![0..200usize, 32_000..33_500usize, 65_000..66_000usize, 90_000..140_000usize],
        noise in any::<u64>(),
        alphabet in 1..=256u64,
        chunk in 1..70_000usize,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut rng = eleven_testkit::rng::Rng::new(noise);
        let content: Vec<u8> = (0..size).map(|_| rng.below(alphabet) as u8).collect();
        let config = Config::default();
        for framing in [Framing::Chunked { gzip: true }, Framing::UntilClose { gzip: true }] {
            let mut wire = Vec::new();
            let mut encoder = eleven_messaging::BodyEncoder::new(framing);
            for piece in content.chunks(chunk) {
                encoder.write(piece, &mut wire).unwrap();
            }
            encoder.finish(None, &mut wire).unwrap();
            prop_assert_eq!(decode(framing, &wire, cut.index(wire.len() + 1), &config), Ok(content.clone()));
            // Cut anywhere before its end, it is cut (fault G21).
            let short = cut.index(wire.len());
            prop_assert!(decode(framing, &wire[..short], 0, &config).is_err(), "cut at {} of {}", short, wire.len());
        }
    }
}

fn decode(
    framing: Framing,
    wire: &[u8],
    cut: usize,
    config: &Config,
) -> Result<Vec<u8>, eleven_messaging::Malformed> {
    use eleven_messaging::Piece;
    let mut decoder = eleven_messaging::BodyDecoder::new(framing);
    let mut content = Vec::new();
    let (mut from, mut to) = (0, cut);
    loop {
        let (taken, piece) = decoder.decode(&wire[from..to], to == wire.len(), config)?;
        from += taken;
        match piece {
            Piece::Data(data) => content.extend_from_slice(data),
            Piece::Decoded(data) => content.extend_from_slice(&data),
            Piece::NeedMore => to = wire.len(),
            Piece::End => {
                assert_eq!(from, wire.len());
                return Ok(content);
            }
        }
    }
}
