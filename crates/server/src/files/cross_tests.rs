//! Every condition × every If-Range × every range × every coding × GET and HEAD, from memory and from disk,
//! against a model of the RFC's text that shares no code with the product.

use super::tests::{Answer, Scratch, Site, now, options};
use super::*;

/// Is it absent, true of the representation, or false?
#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Absent,
    True,
    False,
}
const IS: [Is; 3] = [Is::Absent, Is::True, Is::False];

/// A Range value, and what it means for 1000 octets; `None` for nothing to be sent, empty for ignored.
const RANGES: [(Option<&str>, Option<&[(usize, usize)]>); 9] = [
    (None, Some(&[])),
    (Some("bytes=0-9"), Some(&[(0, 9)])),
    (Some("bytes=-5"), Some(&[(995, 999)])),
    (Some("bytes=900-5000"), Some(&[(900, 999)])),
    (Some("bytes=500-509,0-9,2000-"), Some(&[(500, 509), (0, 9)])),
    (Some("bytes=100-199,150-299"), Some(&[(100, 299)])),
    (Some("bytes=1000-"), None),
    (Some("bytes=9-0"), Some(&[])),
    (Some("bytes=0-,0-"), Some(&[])),
];

const IF_RANGES: [(&str, bool); 7] = [
    ("", true),
    ("strong", true),
    ("other", false),
    ("weak", false),
    ("date", true),
    ("other date", false),
    ("nonsense", false),
];

const CODINGS: [(&str, &str, &str); 4] =
    [("", "", ""), ("gzip", ".gz", "g"), ("br", ".br", "b"), ("zstd", ".zst", "z")];

fn content(letter: &str) -> Vec<u8> {
    (0..1000).map(|n| letter.as_bytes().first().unwrap_or(&b'-').wrapping_add((n * n % 23) as u8)).collect()
}

#[test]
fn every_combination_follows_the_model() {
    for (size_limit, siblings) in [(64 << 10, true), (0, true), (64 << 10, false)] {
        let scratch = Scratch::new();
        for (_, suffix, letter) in CODINGS {
            if siblings || suffix.is_empty() {
                scratch.file(&format!("f.html{suffix}"), content(letter), 1000);
            }
        }
        let mut options = options();
        options.lookups.siblings = if siblings { Coding::ALL.into() } else { Box::default() };
        let mut site = Site::new(scratch, options);
        let limits = hot::HotLimits { file_bytes_max: size_limit, ..hot::HotLimits::default() };
        site.hot = RefCell::new(Hot::new(limits, 1));
        let codings = if siblings { &CODINGS[..] } else { &CODINGS[..1] };
        // From disk, where it is slow, the conditions one at a time.
        for &coding in codings {
            check_coding(&site, coding, siblings, size_limit > 0);
        }
        assert_eq!(site.hot.borrow().is_empty(), size_limit == 0);
    }
}

fn check_coding(site: &Site, (coding, _, letter): (&str, &str, &str), siblings: bool, all: bool) {
    let accept = [("Accept-Encoding", coding)];
    let accept = if coding.is_empty() { &[][..] } else { &accept };
    let whole = site.get("/f.html", accept);
    assert_eq!((whole.status, &whole.content), (200, &content(letter)));
    assert_eq!(whole.get("Content-Encoding"), coding);
    assert_eq!(whole.get("Vary"), if siblings { "Accept-Encoding" } else { "" });
    let tag = whole.get("ETag").to_owned();
    let weak = format!("W/{tag}");
    let modified = HttpDate(now().0 - 1000).to_string();
    assert_eq!(whole.get("Last-Modified"), modified);
    let (earlier, later) = (HttpDate(now().0 - 1001).to_string(), HttpDate(now().0 - 999).to_string());

    for (if_match, since, none_match, modified_since) in all_conditions(all) {
        let mut lines = accept.to_vec();
        match if_match {
            Is::Absent => {}
            Is::True => lines.push(("If-Match", &tag)),
            Is::False => lines.push(("If-Match", &weak)),
        }
        match since {
            Is::Absent => {}
            Is::True => lines.push(("If-Unmodified-Since", &modified)),
            Is::False => lines.push(("If-Unmodified-Since", &earlier)),
        }
        match none_match {
            Is::Absent => {}
            Is::True => lines.push(("If-None-Match", "\"x\", W/\"y\"")),
            Is::False => lines.push(("If-None-Match", &weak)),
        }
        match modified_since {
            Is::Absent => {}
            Is::True => lines.push(("If-Modified-Since", &earlier)),
            Is::False => lines.push(("If-Modified-Since", &later)),
        }
        // RFC 9110 §13.2.2, steps 1 to 4.
        let status = if if_match == Is::False || (if_match == Is::Absent && since == Is::False) {
            412
        } else if none_match == Is::False || (none_match == Is::Absent && modified_since == Is::False) {
            304
        } else {
            200
        };
        for (if_range, holds) in IF_RANGES {
            let mut lines = lines.clone();
            match if_range {
                "" => {}
                "strong" => lines.push(("If-Range", &tag)),
                "weak" => lines.push(("If-Range", &weak)),
                "date" => lines.push(("If-Range", &modified)),
                "other date" => lines.push(("If-Range", &later)),
                "other" => lines.push(("If-Range", "\"other\"")),
                other => lines.push(("If-Range", other)),
            }
            for (range, spans) in RANGES {
                let mut lines = lines.clone();
                lines.extend(range.map(|value| ("Range", value)));
                for method in [Method::Get, Method::Head] {
                    let ranged = status == 200 && method == Method::Get && range.is_some() && holds;
                    let spans = if ranged { spans } else { Some(&[][..]) };
                    let answer = site.ask(method, "/f.html", &lines);
                    check_answer(&answer, status, spans, !if_range.is_empty(), &whole, &lines);
                }
            }
        }
    }
}

fn all_conditions(all: bool) -> Vec<(Is, Is, Is, Is)> {
    let mut conditions = Vec::new();
    for a in IS {
        for b in IS {
            for c in IS {
                for d in IS {
                    let present = [a, b, c, d].iter().filter(|is| **is != Is::Absent).count();
                    if all || present <= 1 {
                        conditions.push((a, b, c, d));
                    }
                }
            }
        }
    }
    conditions
}

#[track_caller]
fn check_answer(
    answer: &Answer,
    status: u16,
    spans: Option<&[(usize, usize)]>,
    if_range: bool,
    whole: &Answer,
    lines: &[(&str, &str)],
) {
    let names = |answer: &Answer| {
        answer.fields.iter().map(|f| String::from_utf8_lossy(f.name).into_owned()).collect::<Vec<_>>()
    };
    let same = |name: &str| assert_eq!(answer.get(name), whole.get(name), "{name} {lines:?}");
    match (status, spans) {
        (412, _) => {
            assert_eq!(
                (answer.status, answer.fields.len(), &*answer.content),
                (412, 0, &[][..]),
                "{lines:?}"
            );
        }
        // 9110-15.4.5-01, 9110-15.4.5-02, 9110-15.4.5-R1, 9110-13.1.3-06, 9110-8.6-04
        (304, _) => {
            assert_eq!((answer.status, &*answer.kind), (304, "Empty(None)"), "{lines:?}");
            same("ETag");
            same("Vary");
            for name in ["Content-Type", "Content-Encoding", "Last-Modified", "Content-Range"] {
                assert!(!answer.fields.contains(name), "{name} {lines:?}");
            }
        }
        // 9110-15.5.17-01
        (_, None) => {
            assert_eq!((answer.status, answer.get("Content-Range")), (416, "bytes */1000"), "{lines:?}");
            assert_eq!((answer.fields.len(), &*answer.content), (1, &[][..]));
        }
        (_, Some([])) => {
            assert_eq!(answer.status, 200, "{lines:?}");
            assert_eq!(answer.content, whole.content);
            assert_eq!(answer.fields.wire(), whole.fields.wire());
        }
        (_, Some(spans)) => {
            assert_eq!(answer.status, 206, "{lines:?}");
            same("ETag");
            same("Vary");
            same("Accept-Ranges");
            // 9110-15.3.7-03, 9110-15.3.7-04
            let metadata = |name: &str| match if_range {
                true => assert!(!answer.fields.contains(name), "{name} {lines:?}"),
                false => same(name),
            };
            metadata("Content-Encoding");
            metadata("Last-Modified");
            // 9110-15.3.7.1-01, 9110-15.3.7.2-06
            if let [(first, last)] = *spans {
                metadata("Content-Type");
                assert_eq!(answer.get("Content-Range"), format!("bytes {first}-{last}/1000"));
                assert_eq!(answer.content, whole.content[first..=last]);
            } else {
                // 9110-15.3.7.2-01, 9110-15.3.7.2-02, 9110-15.3.7.2-03, 9110-15.3.7.2-04
                assert!(!names(answer).iter().any(|name| name == "Content-Range"));
                let boundary =
                    answer.get("Content-Type").strip_prefix("multipart/byteranges; boundary=").unwrap();
                let mut expected = Vec::new();
                for (index, &(first, last)) in spans.iter().enumerate() {
                    let lead = if index == 0 { "" } else { "\r\n" };
                    let head = format!(
                        "{lead}--{boundary}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Range: bytes {first}-{last}/1000\r\n\r\n"
                    );
                    expected.extend_from_slice(head.as_bytes());
                    expected.extend_from_slice(&whole.content[first..=last]);
                }
                expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
                assert_eq!(answer.content, expected);
            }
        }
    }
}
