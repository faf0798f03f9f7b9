//! What a message may cost: each octet is looked at a bounded number of times however it comes (fault D13), and what
//! is kept does not grow with what a peer sends (faults D18 to D21, D47, D48). Counted, not timed, so that it holds on
//! any machine: octets handed to the machine, octets it asked to be kept, memory of what it gave back.

use eleven_messaging::chunked::{Chunk, Decoder};
use eleven_messaging::head::{
    Progress, Scan, request_head, response_head, scan_request_head, scan_response_head,
};
use eleven_messaging::{
    BodyDecoder, ClientConnection, Config, Framing, Piece, RequestHead, ResponseHead, ServerConnection,
};
use eleven_semantics::Method;
use std::sync::Arc;

/// A long valid head.
fn long_head(start: &str) -> Vec<u8> {
    let mut head = start.as_bytes().to_vec();
    for i in 0..90 {
        head.extend_from_slice(format!("X-Field-{i}: {}\r\n", "v".repeat(300)).as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// D13: a head that comes octet by octet is read whole twice (once to find that it is incomplete, once at its end),
/// and in between the scan moves on with what came: it never goes back. So the work is at most four times the octets,
/// where reading again at every octet would be thousands of times.
#[test]
fn dripping_heads_are_not_read_again_and_again() {
    let config = Config::default();
    let request = long_head("GET / HTTP/1.1\r\nHost: a\r\n");
    let mut head = RequestHead::default();
    let Ok(Progress::Incomplete(mut scan)) = request_head(&request[..1], &config, &mut head) else {
        panic!("one octet is no head")
    };
    let mut complete_at = None;
    let mut searched = 0;
    for len in 2..=request.len() {
        let complete = scan_request_head(&request[..len], &config, &mut scan, &mut head).unwrap();
        assert!(scan.searched() >= searched, "the scan went back");
        searched = scan.searched();
        if complete {
            assert_eq!(complete_at.replace(len), None);
        } else {
            assert_eq!(scan.searched(), len, "what was seen is not searched again");
        }
    }
    assert_eq!(complete_at, Some(request.len()));

    let response = long_head("HTTP/1.1 200 OK\r\n");
    let mut head = ResponseHead::default();
    let Ok(Progress::Incomplete(mut scan)) = response_head(&response[..1], &config, &Method::Get, &mut head)
    else {
        panic!("one octet is no head")
    };
    for len in 2..response.len() {
        assert!(!scan_response_head(&response[..len], &config, &mut scan).unwrap());
        assert_eq!(scan.searched(), len, "what was seen is not searched again");
    }
    assert!(scan_response_head(&response, &config, &mut scan).unwrap());
    assert_eq!(Scan::default(), Scan::FRESH);
}

/// The machines keep nothing of an incomplete head themselves: it stays the driver's, once.
#[test]
fn connections_are_small() {
    // The goal is a kibibyte for an idle connection with all that the driver adds.
    assert!(size_of::<ServerConnection>() <= 256, "{}", size_of::<ServerConnection>());
    assert!(size_of::<ClientConnection>() <= 256, "{}", size_of::<ClientConnection>());
    assert!(size_of::<BodyDecoder>() <= 64, "{}", size_of::<BodyDecoder>());
    let mut server = ServerConnection::new(Arc::default());
    let mut head = RequestHead::default();
    let request = long_head("GET / HTTP/1.1\r\nHost: a\r\n");
    for len in 1..request.len() {
        let (taken, _) = server.receive(&request[..len], false, &mut head).unwrap();
        assert_eq!(taken, 0);
    }
    assert!(head.fields.memory_bytes() < 4 * request.len());
}

/// Chunks, extensions and trailers without end: octets taken before the refusal are bounded, and so is what is kept.
#[test]
fn floods_in_chunked_bodies_end() {
    let config = Config::default();
    for (what, once, often, taken_max) in [
        ("D18: one-octet chunks", "", "1\r\nx\r\n", 2 << 20),
        ("D18: with one extension each", "", "1;a\r\nx\r\n", 64 << 10),
        ("D19: an extension", "1;", "a", 8 << 10),
        ("D19: a quoted extension", "1;a=\"", "\\\"", 8 << 10),
        ("S61: zeros", "", "0", 1 << 10),
        ("D20: trailers", "0\r\n", "X: y\r\n", 16 << 10),
        ("D20: one trailer", "0\r\nX: ", "y", 16 << 10),
        ("D20: dropped trailers", "0\r\n", "Host: y\r\n", 16 << 10),
    ] {
        let flood: Vec<u8> = once.bytes().chain(often.bytes().cycle().take(4 << 20)).collect();
        let mut decoder = Decoder::new();
        let (mut from, mut to, mut held_max) = (0, 0, 0);
        let refused = loop {
            match decoder.decode(&flood[from..to], &config) {
                Ok((taken, Chunk::Data(_))) => from += taken,
                Ok((taken, Chunk::NeedMore)) => {
                    from += taken;
                    held_max = held_max.max(to - from);
                    if to == flood.len() {
                        break false;
                    }
                    to = (to + 1000).min(flood.len());
                }
                Ok((_, Chunk::End)) => break false,
                Err(_) => break true,
            }
        };
        // One octet of data in six is within the ratio: such a flood is slow, but no amplification.
        let within_ratio = what == "D18: one-octet chunks";
        assert!(refused || within_ratio, "{what} is borne for {to} octets");
        assert!(to <= taken_max || within_ratio, "{what}: {to} octets were read");
        assert!(held_max <= 10 << 10, "{what}: {held_max} octets were kept");
        let kept = decoder.take_trailers().map_or(0, |t| t.memory_bytes());
        assert!(kept <= 64 << 10, "{what}: {kept} octets are held");
    }
}

/// D48: nothing is allocated by a length that a peer merely declares.
#[test]
fn declared_lengths_cost_nothing() {
    let config = Config::default();
    for framing in [Framing::Length(u64::MAX), Framing::Length(1 << 40)] {
        let mut decoder = BodyDecoder::new(framing);
        assert_eq!(decoder.decode(b"x", false, &config), Ok((1, Piece::Data(b"x"))));
        assert!(decoder.remaining().is_some_and(|n| n > 1 << 39));
    }
    let mut decoder = Decoder::new();
    assert_eq!(decoder.decode(b"ffffffffffffffff\r\nx", &config), Ok((19, Chunk::Data(b"x"))));
}

/// G17: a bomb is found out long before it has burst, and no piece of it is large.
#[test]
fn gzip_bombs_are_refused() {
    let config = Config::default();
    let framing = Framing::Chunked { gzip: true };
    let mut wire = Vec::new();
    let mut encoder = eleven_messaging::BodyEncoder::new(framing);
    let zeros = vec![0; 1 << 20];
    for _ in 0..64 {
        encoder.write(&zeros, &mut wire).unwrap();
    }
    encoder.finish(None, &mut wire).unwrap();
    let mut decoder = BodyDecoder::new(framing);
    let (mut from, mut plain) = (0, 0);
    let refused = loop {
        match decoder.decode(&wire[from..], true, &config) {
            Ok((taken, Piece::Decoded(data))) => {
                assert!(data.len() <= 64 << 10);
                from += taken;
                plain += data.len();
            }
            Ok(other) => panic!("{other:?}"),
            Err(malformed) => break malformed,
        }
    };
    assert_eq!(refused, eleven_messaging::Malformed::GzipBomb);
    assert!(plain <= 4 << 20, "{plain} octets came out of {}", wire.len());
}
