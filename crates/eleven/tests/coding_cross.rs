//! Codings made on the way, conditions and ranges in every combination, against a model of a few lines: status, entity tag,
//! Vary, Content-Encoding, and every octet. (Compressed siblings are crossed in the files handler's own tests.)

mod support;

use eleven_testkit::reader::Reader;
use std::io::{Read, Write};
use std::time::{Duration, SystemTime};
use support::{Folder, Server};

const LENGTH: usize = 5000;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|i| b"the quick brown fox jumps over the lazy dog\n"[i * i % 44]).collect()
}

/// What the model says of one request.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    status: u16,
    /// Which representation's tag: the uncoded one's, or that of the coding.
    coded: bool,
}

/// RFC 9110 §13.2.2 for one file with one tag for each coding.
struct Model<'a> {
    method: &'a str,
    coding: Option<&'a str>,
    condition: &'a str,
    if_range: &'a str,
    range: &'a str,
}

impl Model<'_> {
    fn expect(&self) -> Expected {
        let asked_coded = self.coding.is_some() && self.condition.contains("coded");
        match self.condition {
            "if-match other" | "if-unmodified-since before" => return Expected { status: 412, coded: false },
            "if-none-match own"
            | "if-none-match any"
            | "if-modified-since after"
            | "if-none-match several" => {
                return Expected { status: 304, coded: false };
            }
            // The tag of a coding that this client does not take now is another representation's.
            "if-none-match coded" if asked_coded => return Expected { status: 304, coded: true },
            _ => {}
        }
        let ranges = self.method == "GET" && !self.range.is_empty();
        if ranges && matches!(self.if_range, "" | "own" | "date") {
            return Expected { status: if self.range == "unsatisfiable" { 416 } else { 206 }, coded: false };
        }
        Expected { status: 200, coded: self.coding.is_some() }
    }
}

fn decode(coding: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        None => out = data.to_vec(),
        Some("gzip") => drop(flate2::read::GzDecoder::new(data).read_to_end(&mut out).unwrap()),
        Some("br") => drop(brotli::Decompressor::new(data, 4096).read_to_end(&mut out).unwrap()),
        Some(_) => out = zstd::decode_all(data).unwrap(),
    }
    out
}

/// 9110-13.2.2-01a to -01e, 9110-8.8.3.3, 9110-12.5.3-R1, 9110-12.5.5-03, 9110-14.2-02, 9110-15.3.7-02, 9110-15.4.5-01.
#[test]
fn every_combination_follows_the_model() {
    let folder = Folder::new();
    let file = folder.write("www/page.txt", content());
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    std::fs::File::options().append(true).open(file).unwrap().set_modified(modified).unwrap();
    let server =
        Server::configured(&folder, "[log]\naccess = \"off\"\n[[site]]\nroot = \"www\"\ncompress = true\n");
    let own = server.get("/page.txt").field("ETag").unwrap().to_owned();
    let tag = |coding: &str| {
        let level = if coding == "br" { 5 } else { 6 };
        format!("{}-{coding}{level}\"", own.trim_end_matches('"'))
    };
    let mut reader = Reader::new(server.connect());
    let mut count = 0;
    for method in ["GET", "HEAD"] {
        for coding in [None, Some("gzip"), Some("br"), Some("zstd")] {
            for condition in [
                "",
                "if-none-match own",
                "if-none-match coded",
                "if-none-match other",
                "if-none-match any",
                "if-none-match several",
                "if-match own",
                "if-match coded",
                "if-match other",
                "if-modified-since after",
                "if-modified-since before",
                "if-unmodified-since after",
                "if-unmodified-since before",
            ] {
                for (if_range, range) in
                    ["", "own", "coded", "weak", "other", "date", "other date"].into_iter().flat_map(
                        |if_range| ["", "one", "several", "unsatisfiable"].map(|range| (if_range, range)),
                    )
                {
                    let model = Model { method, coding, condition, if_range, range };
                    let coded_tag = tag(coding.unwrap_or("gzip"));
                    let mut head = format!("{method} /page.txt HTTP/1.1\r\nHost: a\r\n");
                    let mut add = |name: &str, value: &str| {
                        if !value.is_empty() {
                            head.push_str(&format!("{name}: {value}\r\n"));
                        }
                    };
                    add("Accept-Encoding", coding.unwrap_or(""));
                    let (name, what) = condition.split_once(' ').unwrap_or(("x", ""));
                    add(
                        name,
                        &match what {
                            "own" => own.clone(),
                            "coded" => coded_tag.clone(),
                            "other" => "\"other\"".into(),
                            "any" => "*".into(),
                            "several" => format!("\"other\", W/{own}"),
                            "after" => "Sun, 06 Nov 1994 08:49:38 GMT".into(),
                            "before" => "Sun, 06 Nov 1994 08:49:36 GMT".into(),
                            _ => String::new(),
                        },
                    );
                    add(
                        "If-Range",
                        &match if_range {
                            "own" => own.clone(),
                            "coded" => coded_tag.clone(),
                            "weak" => format!("W/{own}"),
                            "other" => "\"other\"".into(),
                            "date" => "Sun, 06 Nov 1994 08:49:37 GMT".into(),
                            "other date" => "Sun, 06 Nov 1994 08:49:36 GMT".into(),
                            _ => String::new(),
                        },
                    );
                    add(
                        "Range",
                        match range {
                            "one" => "bytes=100-199",
                            "several" => "bytes=0-9,4000-4009",
                            "unsatisfiable" => "bytes=9999-",
                            _ => "",
                        },
                    );
                    head.push_str("\r\n");
                    reader.get_mut().write_all(head.as_bytes()).unwrap();
                    let response = reader.response(method).unwrap_or_else(|fault| panic!("{fault}\n{head}"));
                    let expected = model.expect();
                    assert_eq!(response.status, expected.status, "{head}");
                    count += 1;
                    if matches!(expected.status, 412 | 416) {
                        continue;
                    }
                    let etag = if expected.coded { &coded_tag } else { &own };
                    assert_eq!(response.field("ETag"), Some(&**etag), "{head}");
                    assert_eq!(response.field("Vary"), Some("Accept-Encoding"), "{head}");
                    let named = coding.filter(|_| expected.status == 200);
                    assert_eq!(response.field("Content-Encoding"), named, "{head}");
                    match (expected.status, method) {
                        (_, "HEAD") | (304, _) => assert!(response.body.is_empty(), "{head}"),
                        (200, _) => assert_eq!(decode(named, &response.body), content(), "{head}"),
                        (206, _) if range == "one" => {
                            assert_eq!(response.body, content()[100..200], "{head}")
                        }
                        (206, _) => {
                            let text = String::from_utf8(response.body).unwrap();
                            for (first, last) in [(0, 9), (4000, 4009)] {
                                let part = String::from_utf8(content()[first..=last].to_vec()).unwrap();
                                let part = format!(
                                    "Content-Range: bytes {first}-{last}/{LENGTH}\r\n\r\n{part}\r\n--"
                                );
                                assert!(text.contains(&part), "{head}\n{text}");
                            }
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
    assert_eq!(count, 2 * 4 * 13 * 7 * 4);
}
