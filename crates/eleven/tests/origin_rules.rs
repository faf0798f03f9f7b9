//! Rules of RFC 9110 for origin servers, each as a request on a raw socket to the real binary and what must come of it. What
//! holds for every answer (version, Date, explanation, framing, fields that stand once) is checked of every answer here.

mod support;

use eleven_testkit::reader::{Reader, Response};
use std::io::Write;
use support::{Folder, Server};

const CONFIG: &str = r#"
[log]
access = "off"

[[site]]
names = "example.org"
root = "www"
compress = true

[[site.route]]
path = "/up"
strip_prefix = true
files = { root = "www", uploads = true }

[[site.route]]
path = "/secret"
strip_prefix = true
files = { root = "www" }
access = { basic = { realm = "r", users = { ann = "$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/" } } }

[[site.route]]
path = "/inside"
files = { root = "www" }
access = { deny = "127.0.0.0/8" }

[[site.route]]
path = "/fixed"
fixed = { text = "fixed\n" }

[[site.route]]
path = "/later"
fixed = { status = 503, retry_after = "5s" }

[[site.route]]
path = "/socket"
fixed = { status = 426, upgrade = ["websocket", "TLS/1.3"] }

[[site.route]]
path = "/up/moved"
redirect = { to = "/up/elsewhere/{rest}", status = 307 }

[[site.route]]
path = "/debug"
strip_prefix = true
echo = true
"#;

fn serve() -> (Folder, Server) {
    let folder = Folder::new();
    folder.write("www/page.html", "<p>page</p>".repeat(300));
    folder.write("www/small.txt", "small\n");
    folder.write("www/empty.txt", "");
    folder.write("www/.hidden", "secret");
    let server = Server::configured(&folder, CONFIG);
    (folder, server)
}

/// What holds for every answer of an origin server.
fn check_any(head: &str, response: &Response) {
    let status = response.status;
    // 9110-6.2-04, 9110-6.2-05: our own version, whatever minor version was asked in.
    assert_eq!(response.minor, 1, "{head}");
    // 9110-6.6.1-02a; 9110-6.6.1-02b: errors of the server have one as well.
    assert!(response.field("Date").is_some(), "{head}");
    // 9110-10.2.4-01, 9110-10.2.4-02: unless an operator asks for it nothing is told of the software.
    assert_eq!(response.field("Server"), None, "{head}");
    // 9110-15.5-01, 9110-15.6-01, but not for HEAD
    if status >= 400 && !head.starts_with("HEAD ") {
        assert!(!response.body.is_empty(), "{head}: no explanation of {status}");
    }
    // 9110-8.3-01
    if !response.body.is_empty() {
        assert!(response.field("Content-Type").is_some(), "{head}");
    }
    // 9110-5.3-03: what may stand once stands once.
    for name in [
        "Content-Type",
        "Content-Length",
        "Date",
        "ETag",
        "Last-Modified",
        "Location",
        "Retry-After",
        "Content-Encoding",
        "Content-Range",
        "Accept-Ranges",
        "Server",
        "Expires",
    ] {
        let lines = response.head.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).count();
        assert!(lines <= 1, "{head}: {name} {lines} times");
    }
    // 9110-2.2-02: what only a client says, a server does not.
    for name in
        ["Host", "Expect", "TE", "If-Match", "If-None-Match", "Range", "Authorization", "Max-Forwards"]
    {
        assert_eq!(response.field(name), None, "{head}: {name}");
    }
    // 9110-5.6.1.1-01: no list has an empty member.
    for (name, value) in &response.head.fields {
        let is_list = ["Allow", "Vary", "Connection", "Accept-Ranges", "Content-Encoding", "Upgrade"];
        if is_list.iter().any(|list| name.eq_ignore_ascii_case(list)) {
            assert!(value.split(',').all(|member| !member.trim().is_empty()), "{head}: {name}: {value}");
        }
    }
    match status {
        // 9110-15.5.2-01, 9110-11.4-01
        401 => assert!(response.field("WWW-Authenticate").is_some(), "{head}"),
        // 9110-10.2.1-01
        405 => assert!(response.field("Allow").is_some(), "{head}"),
        // 9110-8.6-05
        204 => assert_eq!(response.field("Content-Length"), None, "{head}"),
        // 9110-15.4.5-R1
        304 => assert!(response.body.is_empty(), "{head}"),
        // 9110-15.3.7-02
        206 => assert!(
            response.field("Content-Range").is_some()
                || response.field("Content-Type").is_some_and(|t| t.starts_with("multipart/byteranges")),
            "{head}"
        ),
        _ => {}
    }
}

fn ask(server: &Server, head: &str) -> Response {
    let response = server.ask(head);
    check_any(head, &response);
    response
}

/// Rows: the rules, the request, the status, and a part of the answer's head or content.
#[test]
fn rules_and_requests() {
    let (_folder, server) = serve();
    const H: &str = "HTTP/1.1\nHost: example.org";
    let etag = ask(&server, &format!("GET /small.txt {H}")).field("ETag").expect("9110-15.3.1-01").to_owned();
    let rows = [
        // 9110-6.2-06: a higher minor version is answered, in ours.
        (200, "GET /small.txt HTTP/1.9\nHost: example.org".to_owned(), "small"),
        (200, "GET /small.txt HTTP/1.0\nHost: example.org".to_owned(), "small"),
        // 9110-6.2-R1, 9110-15.6.6-01: which versions are spoken is said.
        (505, "GET /small.txt HTTP/2.0\nHost: example.org".to_owned(), "HTTP/1.1"),
        (505, "GET /small.txt HTTP/3.0\nHost: example.org".to_owned(), "HTTP/1.1"),
        // 9110-7.4-01, 9110-7.4-02: `https` is not answered in the clear.
        (421, format!("GET https://example.org/small.txt {H}"), ""),
        (
            421,
            format!("GET https://example.org/secret/small.txt {H}\nAuthorization: Basic YW5uOnBhc3N3b3Jk"),
            "",
        ),
        (200, format!("GET http://example.org/small.txt {H}"), "small"),
        (421, "GET /small.txt HTTP/1.1\nHost: other.test".to_owned(), ""),
        // 9110-9.1-03, 9110-9.1-04
        (501, format!("BREW /small.txt {H}"), ""),
        (501, format!("get /small.txt {H}"), ""),
        (405, format!("DELETE /small.txt {H}"), ""),
        (405, format!("POST /small.txt {H}\nContent-Length: 0"), ""),
        // 9110-9.3.8-01: nothing is reflected where it was not asked for by an operator.
        (405, format!("TRACE /small.txt {H}"), ""),
        // 9110-9.3.6-03: an origin server may take CONNECT; this one does not.
        (405, "CONNECT example.org:443 HTTP/1.1\nHost: example.org:443".to_owned(), ""),
        // 9110-9.3.3-R1: POST has no ranges and no 304.
        (200, format!("POST /debug/echo {H}\nContent-Length: 0\nRange: bytes=0-1"), "POST /echo"),
        // 9110-13.1.5-03, 9110-14.2-01, 9110-14.3-03: a target without ranges ignores Range and If-Range.
        (200, format!("GET /fixed {H}\nRange: bytes=0-1\nIf-Range: \"x\""), "fixed"),
        // 9110-14.2-07: nothing of nothing.
        (200, format!("GET /empty.txt {H}\nRange: bytes=x"), ""),
        // 9110-13.1.1-04, 9110-13.1.4-07
        (412, format!("GET /small.txt {H}\nIf-Match: \"other\""), ""),
        (412, format!("PUT /up/small.txt {H}\nContent-Length: 0\nIf-Match: \"other\""), ""),
        (
            412,
            format!(
                "PUT /up/small.txt {H}\nContent-Length: 0\nIf-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"
            ),
            "",
        ),
        (304, format!("GET /small.txt {H}\nIf-None-Match: {etag}"), ""),
        (304, format!("HEAD /small.txt {H}\nIf-None-Match: W/{etag}"), ""),
        // 9110-11.4-01, 9110-15.5.2-01: missing, wrong, of another scheme.
        (401, format!("GET /secret/small.txt {H}"), ""),
        (401, format!("GET /secret/small.txt {H}\nAuthorization: Basic YW5uOndyb25n"), ""),
        (401, format!("GET /secret/small.txt {H}\nAuthorization: Bearer abc"), ""),
        (200, format!("GET /secret/small.txt {H}\nAuthorization: bAsIc YW5uOnBhc3N3b3Jk"), "small"),
        // 9110-15.5.4-01, 9110-15.5.4-03: who may not come in is told so; what is hidden is as if it were not there.
        (403, format!("GET /inside/small.txt {H}"), ""),
        (404, format!("GET /.hidden {H}"), ""),
        // 9110-15.6.4-01
        (503, format!("GET /later {H}"), "Retry-After: 5"),
        // 9110-7.8-07, 9110-15.5.22-01: what is wanted instead, and 9110-7.8-10: that it is of this hop.
        (426, format!("GET /socket {H}"), "Upgrade: websocket, TLS/1.3"),
        (426, format!("PUT /socket {H}\nContent-Length: 0"), "Connection: upgrade"),
        // 9110-9.3.4-08: what is meant for another resource is led there, not stored in its place.
        (307, format!("PUT /up/moved/new.txt {H}\nContent-Length: 0"), "Location: /up/elsewhere/new.txt"),
        // 9110-8.4-03, 9110-14.5-01
        (415, format!("PUT /up/x {H}\nContent-Length: 0\nContent-Encoding: gzip"), ""),
        (400, format!("PUT /up/x {H}\nContent-Length: 0\nContent-Range: bytes 0-1/2"), ""),
        // 9110-10.1.1-04
        (417, format!("GET /small.txt {H}\nExpect: 200-ok"), ""),
        (200, format!("GET /small.txt {H}\nExpect: 100-continue"), "small"),
    ];
    let mut wrong = Vec::new();
    for (status, head, part) in rows {
        let response = ask(&server, &head);
        let text = format!(
            "{}\n{}",
            response
                .head
                .fields
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect::<Vec<_>>()
                .join("\n"),
            response.text()
        );
        if response.status != status || !text.contains(part) {
            wrong.push(format!("{} instead of {status}, {part}:\n{head}\n{text}", response.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// 9110-9.3.2-01, 9110-9.3.2-02, 9110-9.3.2-03, 9110-8.6-03: HEAD has the fields of GET and none of its content, whatever
/// the coding; a length it tells is that of GET.
#[test]
fn head_is_get_without_content() {
    let (_folder, server) = serve();
    for target in ["/page.html", "/small.txt", "/fixed", "/nothing", "/secret/", "/later"] {
        for accept in ["", "\nAccept-Encoding: gzip", "\nAccept-Encoding: br"] {
            let rest = format!("{target} HTTP/1.1\nHost: example.org{accept}");
            // Twice, since what is coded may be remembered from then on.
            for _ in 0..2 {
                let head = ask(&server, &format!("HEAD {rest}"));
                let get = ask(&server, &format!("GET {rest}"));
                assert_eq!(head.status, get.status, "{rest}");
                assert!(head.body.is_empty(), "{rest}");
                for name in [
                    "Content-Type",
                    "ETag",
                    "Last-Modified",
                    "Vary",
                    "Content-Encoding",
                    "Content-Range",
                    "WWW-Authenticate",
                ] {
                    assert_eq!(head.field(name), get.field(name), "{name} of {rest}");
                }
                if let Some(length) = head.field("Content-Length") {
                    assert_eq!(length, get.body.len().to_string(), "{rest}");
                }
            }
        }
    }
}

/// 9110-15.4.5-01, 9110-15.3.7-02: what 304 and 206 must say of the 200 they stand for, where that depends on the media type
/// and the length: of index pages, of rewritten paths, of extensions with a type of their own, of compressed siblings.
#[test]
fn partial_answers_say_what_the_whole_one_would() {
    let folder = Folder::new();
    let page = "<p>page</p>".repeat(300);
    folder.write("www/index.html", &page);
    folder.write("www/d/index.html", "short");
    folder.write("www/x.own", &page);
    folder.write("www/sibling.css", &page);
    folder.write("www/sibling.css.gz", "not really");
    folder.write("www/image.png", &page);
    let config = r#"
log.access = "off"
[[site]]
compress = true
cache_control = "no-cache"
cache_rule = [
    { types = "text/own", value = "max-age=7", expires = true },
    { types = "text/html", value = "max-age=60", expires = true },
    { types = "image/*", value = "max-age=600" },
]
[[site.route]]
files = { root = "www", precompressed = "gzip", types = { own = "text/own" }, try = ["/x.own"] }
[[site.route]]
path = "/moved"
rewrite = "/index.html"
files = { root = "www" }
"#;
    let server = Server::configured(&folder, config);
    const FIELDS: [&str; 5] = ["Cache-Control", "Content-Location", "ETag", "Expires", "Vary"];
    for target in [
        "/",
        "/d/",
        "/index.html",
        "/x.own",
        "/tried",
        "/sibling.css",
        "/image.png",
        "/moved",
        "/moved/x.png",
    ] {
        for accept in ["identity", "gzip", "br"] {
            let go = |more: &str| {
                server.ask(&format!("GET {target} HTTP/1.1\nHost: a\nAccept-Encoding: {accept}\n{more}"))
            };
            let whole = go("");
            assert_eq!(whole.status, 200, "{target}");
            let etag = whole.field("ETag").expect("files have one").to_owned();
            let mut answers = vec![(304, go(&format!("If-None-Match: {etag}")))];
            let ranges = [
                "Range: bytes=0-0".to_owned(),
                "Range: bytes=0-0,3-3".to_owned(),
                format!("Range: bytes=1-1\nIf-Range: {etag}"),
            ];
            // Of what is compressed on the way there are no ranges.
            if whole.field("Accept-Ranges").is_some() {
                answers.extend(ranges.iter().map(|range| (206, go(range))));
            }
            for (status, answer) in answers {
                assert_eq!(answer.status, status, "{target} {accept}");
                for name in FIELDS {
                    // One second may lie between them.
                    let same = match name {
                        "Expires" => answer.field(name).is_some() == whole.field(name).is_some(),
                        _ => answer.field(name) == whole.field(name),
                    };
                    let (of_part, of_whole) = (answer.field(name), whole.field(name));
                    assert!(
                        same,
                        "{status} of {target} {accept}: {name} {of_part:?} instead of {of_whole:?}"
                    );
                }
            }
        }
    }
}

/// One connection is nobody's in particular, and nothing is done before the header section is whole.
#[test]
fn requests_stand_alone_and_are_read_whole() {
    let (_folder, server) = serve();
    let mut reader = Reader::new(server.connect());
    let mut go = |text: &str| {
        reader.get_mut().write_all(text.as_bytes()).expect("the request can be sent");
        reader.response("GET").expect("an answer")
    };
    // 9110-3.3-01: who came before does not speak for who comes after.
    let first = "GET /secret/small.txt HTTP/1.1\r\nHost: example.org\r\nAuthorization: Basic YW5uOnBhc3N3b3Jk\r\n\r\n";
    assert_eq!(go(first).status, 200);
    assert_eq!(go("GET /secret/small.txt HTTP/1.1\r\nHost: example.org\r\n\r\n").status, 401);
    // 9110-5.3-04: the last field line counts, though everything else was there before.
    let mut reader = Reader::new(server.connect());
    for piece in ["GET /small.txt HTTP/1.1\r\nHost: example.org\r\n", "If-None-Match: *\r\n", "\r\n"] {
        reader.get_mut().write_all(piece.as_bytes()).expect("the request can be sent");
    }
    assert_eq!(reader.response("GET").expect("an answer").status, 304);
    // 9110-10.1.1-08, 9110-10.1.1-09, 9110-10.1.1-12: 100 comes before any content and is followed by the final status; content
    // that is there already needs none.
    for together in [true, false] {
        let mut reader = Reader::new(server.connect());
        let head = "PUT /up/new.txt HTTP/1.1\r\nHost: example.org\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
        if together {
            reader.get_mut().write_all(format!("{head}abc").as_bytes()).expect("the request can be sent");
        } else {
            reader.get_mut().write_all(head.as_bytes()).expect("the request can be sent");
            let mut interim = [0; 25];
            std::io::Read::read_exact(reader.get_mut(), &mut interim)
                .expect("9110-10.1.1-12: 100 without content");
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
            reader.get_mut().write_all(b"abc").expect("the request can be sent");
        }
        let response = reader.response("PUT").expect("9110-10.1.1-09: a final status");
        assert!(matches!(response.status, 201 | 204), "{}", response.status);
    }
    // 9110-10.1.1-10: an early final status says that the connection ends, or the content is read away.
    let mut reader = Reader::new(server.connect());
    let head =
        "PUT /small.txt HTTP/1.1\r\nHost: example.org\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    reader.get_mut().write_all(head.as_bytes()).expect("the request can be sent");
    let early = reader.response("PUT").expect("an early answer");
    assert_eq!(early.status, 405);
    if !early.says_close() {
        reader
            .get_mut()
            .write_all(b"abcGET /small.txt HTTP/1.1\r\nHost: example.org\r\n\r\n")
            .expect("it goes on");
        assert_eq!(reader.response("GET").expect("the next answer").status, 200);
    }
}
