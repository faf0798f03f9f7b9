//! Codings made on the way, conditions and ranges in every combination, against a model of a few lines: status, entity tag,
//! Vary, Content-Encoding, and every octet; the same once more where one of the codings is a compressed sibling, which is a
//! representation of its own, with ranges, beside those made on the way.

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
    /// The coding made on the way.
    coding: Option<&'a str>,
    condition: &'a str,
    if_range: &'a str,
    range: &'a str,
    /// The sibling is what is asked for.
    sibling: bool,
}

impl Model<'_> {
    fn expect(&self) -> Expected {
        let asked_coded = self.coding.is_some() && self.condition.contains("coded");
        match self.condition {
            // That tag belongs to another representation than the sibling.
            "if-match coded" if self.sibling => return Expected { status: 412, coded: false },
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
    cross(false);
}

/// As above, with `page.txt.gz` beside the file: 9110-8.8.3-01 for each representation.
#[test]
fn every_combination_with_a_sibling_follows_the_model() {
    cross(true);
}

/// What stands for the compressed file: nobody looks into it, and so it has ranges that can be checked.
fn sibling() -> Vec<u8> {
    (0..LENGTH).map(|i| b"THE OCTETS OF ANOTHER REPRESENTATION\n"[i * i % 37]).collect()
}

fn cross(has_sibling: bool) {
    let folder = Folder::new();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let write = |name: &str, content: Vec<u8>| {
        let file = folder.write(name, content);
        std::fs::File::options().append(true).open(file).unwrap().set_modified(modified).unwrap();
    };
    write("www/page.txt", content());
    let mut site = String::from("[[site.route]]\nfiles = { root = \"www\" }\n");
    if has_sibling {
        write("www/page.txt.gz", sibling());
        site = site.replace(" }", ", precompressed = \"gzip\" }");
    }
    let config = format!("[log]\naccess = \"off\"\n[[site]]\ncompress = true\n{site}");
    let server = Server::configured(&folder, &config);
    let plain = server.get("/page.txt").field("ETag").unwrap().to_owned();
    let of_sibling = server.ask("GET /page.txt HTTP/1.1\nHost: a\nAccept-Encoding: gzip");
    let of_sibling = of_sibling.field("ETag").unwrap().to_owned();
    let tag = |coding: &str| {
        let level = if coding == "br" { 5 } else { 6 };
        format!("{}-{coding}{level}\"", plain.trim_end_matches('"'))
    };
    assert_eq!(of_sibling != tag("gzip"), has_sibling);
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
                    let sibling_asked = has_sibling && coding == Some("gzip");
                    let own = if sibling_asked { &of_sibling } else { &plain };
                    let made = coding.filter(|_| !sibling_asked);
                    let model =
                        Model { method, coding: made, condition, if_range, range, sibling: sibling_asked };
                    let content = || if sibling_asked { sibling() } else { content() };
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
                    let etag = if expected.coded { &coded_tag } else { own };
                    assert_eq!(response.field("ETag"), Some(&**etag), "{head}");
                    assert_eq!(response.field("Vary"), Some("Accept-Encoding"), "{head}");
                    let named = match sibling_asked {
                        // A 304 and a 206 after If-Range leave out what the client knows (9110-15.4.5-02, RFC 9110
                        // section 15.3.7).
                        true => coding.filter(|_| {
                            expected.status == 200 || expected.status == 206 && if_range.is_empty()
                        }),
                        false => coding.filter(|_| expected.status == 200),
                    };
                    assert_eq!(response.field("Content-Encoding"), named, "{head}");
                    match (expected.status, method) {
                        (_, "HEAD") | (304, _) => assert!(response.body.is_empty(), "{head}"),
                        (200, _) => assert_eq!(decode(made, &response.body), content(), "{head}"),
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
