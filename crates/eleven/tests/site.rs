//! `eleven serve --config` over real sockets: sites, routes, the steps before and after handlers, every status that a
//! server of this kind can meet, and the rules of conditions, ranges and codings in every combination.

mod support;

use eleven_testkit::reader::{Reader, Response};
use std::io::{Read, Write};
use support::{Folder, Server};

/// Two sites with one of everything.
const CONFIG: &str = r#"
[log]
access = "access.log"
format = "json"

[limits]
head_timeout = "300ms"
head_timeout_extended = "300ms"
target_bytes_max = "1KiB"
field_section_bytes_max = "2KiB"
content_bytes_max = "10KiB"

[[upstream]]
name = "silent"
servers = "http://127.0.0.1:7"
timeouts = { head = "200ms" }

[[site]]
names = ["example.org", "*.example.org"]
redirect_names = "example.com"
root = "www"
security = ["nosniff", "hsts", "deny-frames"]
cache_control = "no-cache"
fields.set = { "X-Site" = "main" }
fields.remove = "Accept-Ranges"

[[site.cache_rule]]
types = "text/plain"
value = "max-age=60"
expires = true

[[site.error_page]]
status = 404
template = "404.jinja"

[[site.route]]
path = "/up"
strip_prefix = true
files = { root = "up", uploads = { content_bytes_max = "1KiB", create_directories = true } }

[[site.route]]
path = "/old"
redirect = { to = "https://{host}/new/{rest}{query}", status = 301 }

[[site.route]]
path = "/found"
redirect = { to = "/www{query}", status = 302 }

[[site.route]]
path = "/other"
redirect = { to = "/www", status = 303 }

[[site.route]]
path = "/temporary"
redirect = { to = "/www", status = 307 }

[[site.route]]
path = "/gone"
fixed = { status = 410 }

[[site.route]]
path = "/maintenance"
fixed = { status = 503, text = "soon\n", retry_after = "2m" }
[[site.route]]
path = "/secret"
files = { root = "www" }
access = { basic = { file = "users" } }

[[site.route]]
path = "/digest"
files = { root = "www" }
access = { digest = { file = "digest" } }

[[site.route]]
path = "/inside"
files = { root = "www" }
access = { allow = "10.0.0.0/8" }

[[site.route]]
path = "/either"
strip_prefix = true
files = { root = "www" }
access = { allow = "127.0.0.0/8", basic = { file = "users" }, satisfy = "any" }

[[site.route]]
path = "/slowly"
rate = { requests = 1, per = "1h" }
fixed = { text = "once\n" }

[[site.route]]
path = "/api"
cors = { origins = "https://app.example", methods = ["GET", "PUT"], expose = "ETag" }
fixed = { text = "api\n" }

[[site.route]]
path = "/pages"
strip_prefix = true
files = { root = "www", try = ["{path}.txt", "/index.html"] }

[[site.route]]
path = "/strict"
strip_prefix = true
files = { root = "www", precompressed = "gzip", strict_negotiation = true }

[[site.route]]
path = "/debug"
strip_prefix = true
echo = true

[[site.route]]
path = "/nobody"
proxy = { upstream = "http://127.0.0.1:1" }

[[site.route]]
path = "/app"
proxy = { upstream = "http://127.0.0.1:7" }

[[site.route]]
path = "/silent"
proxy = { upstream = "silent" }

[[site.route]]
path = "/careful"
strip_prefix = true
files = { root = "up", uploads = { conditional = true } }

[[site.route]]
path = "/hints"
strip_prefix = true
early_hints = "</style.css>; rel=preload; as=style"
files = { root = "www" }

[[site]]
names = "other.test"
root = "other"

[[site]]
names = "methods.test"
[[site.route]]
exact = "/exact"
methods = ["POST", "PUT"]
fixed = { status = 410 }
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("www/index.html", "<h1>home</h1>\n");
    folder.write("www/page.txt", "page\n");
    folder.write("www/a b.txt", "space\n");
    folder.write("www/doc.txt", "doc\n");
    folder.write("www/doc.txt.gz", "not looked into\n");
    folder.write("other/index.html", "<h1>other</h1>\n");
    folder.write("up/there.txt", "old\n");
    folder.write("up/dir/x", "x");
    folder.write("404.jinja", "<h1>{{ status }} nothing here</h1>");
    folder.write("users", "ann:$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/\n");
    // MD5 of ann:restricted:password.
    folder.write("digest", "ann:restricted:c1a3f8ef6af7b4a5e0f6a0b6b2a45e0c\n");
    folder
}

fn serve(folder: &Folder) -> Server {
    Server::configured(folder, &CONFIG.replace("127.0.0.1:7\"", &format!("{}\"", origin())))
}

#[track_caller]
fn ask(server: &Server, head: &str) -> Response {
    server.ask(head)
}

const HOST: &str = "HTTP/1.1\nHost: example.org";

/// An origin server that says what it is asked to: a status, another protocol, or nothing at all.
fn origin() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut head = Vec::new();
                let mut octet = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut octet).is_ok_and(|n| n > 0) {
                    head.push(octet[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = match path.rsplit_once('/') {
                    Some((_, "silent")) => {
                        // Until the gateway gives up.
                        let _ = stream.read(&mut octet);
                        return;
                    }
                    Some((_, "switch")) => {
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nswitched".into()
                    }
                    Some((_, "426")) => {
                        "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno".into()
                    }
                    Some((_, status)) => {
                        format!("HTTP/1.1 {status} Said\r\nConnection: close\r\nContent-Length: 4\r\n\r\nsaid")
                    }
                    None => return,
                };
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    address
}

/// The situation in which each status of RFC 9110 §15 and RFC 6585 is produced.
#[test]
fn every_status_in_its_situation() {
    let folder = folder();
    let server = serve(&folder);
    let page = ask(&server, &format!("GET /page.txt {HOST}"));
    let etag = page.field("ETag").expect("9110-15.3.1-01").to_owned();
    let big = "x".repeat(3000);
    let ann = "Authorization: Basic YW5uOnBhc3N3b3Jk";
    for (status, head) in [
        (200, format!("GET /page.txt {HOST}")),
        (200, format!("HEAD /page.txt {HOST}")),
        (200, format!("GET /a%20b.txt {HOST}")),
        (201, format!("PUT /up/new.txt {HOST}\nContent-Length: 0")),
        (204, format!("PUT /up/new.txt {HOST}\nContent-Length: 0")),
        (204, format!("DELETE /up/new.txt {HOST}")),
        (204, format!("OPTIONS * {HOST}")),
        (204, format!("OPTIONS /page.txt {HOST}")),
        (206, format!("GET /page.txt {HOST}\nRange: bytes=1-2")),
        (301, format!("GET /old/a {HOST}")),
        (302, format!("GET /found {HOST}")),
        (303, format!("GET /other {HOST}")),
        (304, format!("GET /page.txt {HOST}\nIf-None-Match: {etag}")),
        (307, format!("GET /temporary {HOST}")),
        (308, "GET /x HTTP/1.1\nHost: example.com".to_owned()),
        (400, "GET / HTTP/1.1".to_owned()),
        (400, format!("GET /%00 {HOST}")),
        (401, format!("GET /secret/page.txt {HOST}")),
        (401, format!("GET /digest/page.txt {HOST}")),
        (400, format!("GET /secret/page.txt {HOST}\nAuthorization: Basic !!!")),
        (403, format!("GET /inside/page.txt {HOST}")),
        (404, format!("GET /nothing {HOST}")),
        (404, format!("GET /.htaccess {HOST}")),
        (404, format!("GET /a%2fb {HOST}")),
        (405, format!("PUT /page.txt {HOST}\nContent-Length: 0")),
        (405, "GET /exact HTTP/1.1\nHost: methods.test".to_owned()),
        (406, format!("GET /strict/doc.txt {HOST}\nAccept-Encoding: *;q=0")),
        (408, String::new()),
        (409, format!("PUT /up/dir {HOST}\nContent-Length: 0")),
        (410, format!("GET /gone {HOST}")),
        (410, format!("PUT /gone {HOST}\nContent-Length: 0")),
        (412, format!("PUT /up/there.txt {HOST}\nContent-Length: 0\nIf-Match: \"no\"")),
        (412, format!("PUT /up/there.txt {HOST}\nContent-Length: 0\nIf-None-Match: *")),
        (413, format!("PUT /up/big {HOST}\nContent-Length: 2000")),
        (413, format!("POST /debug/ {HOST}\nContent-Length: 20000")),
        (414, format!("GET /{big} {HOST}")),
        (415, format!("PUT /up/coded {HOST}\nContent-Length: 0\nContent-Encoding: magic")),
        (416, format!("GET /page.txt {HOST}\nRange: bytes=99-")),
        (417, format!("GET / {HOST}\nExpect: a miracle")),
        (421, "GET / HTTP/1.1\nHost: nobody.test".to_owned()),
        (429, format!("GET /slowly {HOST}")),
        (431, format!("GET / {HOST}\nX-Big: {big}")),
        (501, format!("BREW /page.txt {HOST}")),
        (502, format!("GET /nobody {HOST}")),
        (503, format!("GET /maintenance {HOST}")),
        (505, "GET / HTTP/2.0\nHost: example.org".to_owned()),
        // What only a gateway can meet, with an origin server of the test's own.
        (101, format!("GET /app/switch {HOST}\nConnection: upgrade\nUpgrade: websocket")),
        (504, format!("GET /silent/silent {HOST}")),
        // What only an application says: it comes through as it was said. 411 would need a handler that must know the
        // length before it begins, and there is none: content of unknown length is taken. 500 of this server itself is a
        // bug (`services` has one that panics), 507 a full disk (`storage` fills one), 407 that of `forward`,
        // 305 and 306 mean nothing any more and are said by nobody.
        (300, format!("GET /app/say/300 {HOST}")),
        (402, format!("GET /app/say/402 {HOST}")),
        (411, format!("POST /app/say/411 {HOST}\nContent-Length: 0")),
        (422, format!("GET /app/say/422 {HOST}")),
        (426, format!("GET /app/say/426 {HOST}")),
        (428, format!("PUT /careful/there.txt {HOST}\nContent-Length: 0")),
        (428, format!("DELETE /careful/there.txt {HOST}")),
        (500, format!("GET /app/say/500 {HOST}")),
        (507, format!("GET /app/say/507 {HOST}")),
        (511, format!("GET /app/say/511 {HOST}")),
    ] {
        let response = match status {
            408 => {
                let mut reader = Reader::new(server.connect());
                reader.get_mut().write_all(b"GET / HT").unwrap();
                reader.response("GET").expect("an answer before the close")
            }
            101 => {
                // The strict reader takes it for an interim response, which it is as well.
                let mut stream = server.connect();
                stream.write_all(format!("{}\r\n\r\n", head.replace('\n', "\r\n")).as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
                assert!(answer.ends_with("\r\n\r\nswitched"), "{answer}");
                continue;
            }
            429 => {
                assert_eq!(ask(&server, &head).status, 200);
                ask(&server, &head)
            }
            _ => ask(&server, &head),
        };
        assert_eq!(response.status, status, "{head}");
        match status {
            // 9110-15.5.2-01, 9110-11.6.1-01
            401 => assert!(response.field("WWW-Authenticate").is_some(), "{head}"),
            // 9110-10.2.1-01, 9110-15.5.6-01
            405 => assert!(response.field("Allow").is_some(), "{head}"),
            // 9110-15.4.2-01, 9110-15.4.3-01, 9110-15.4.8-02, 9110-15.4.9-01
            301 | 302 | 303 | 307 | 308 => assert!(response.field("Location").is_some(), "{head}"),
            // 9110-10.2.3-R1
            429 | 503 => assert!(response.field("Retry-After").is_some(), "{head}"),
            _ => {}
        }
        // 9110-15.5-01, 9110-6.6.1-02a
        if status >= 400 {
            assert!(!response.body.is_empty(), "{head}: no explanation");
        }
        assert!(response.field("Date").is_some(), "{head}");
    }
    let secret = ask(&server, &format!("GET /secret/page.txt {HOST}\n{ann}"));
    assert_eq!(secret.status, 404, "the route does not strip its prefix");
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path().join("up")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["dir", "there.txt"], "refused uploads leave nothing behind");
}

/// Faults H06, H10, H11; 9112-3.2.2-06; 9112-3.3-R1: the target URI is of the scheme of the connection, the authority of
/// the target or of Host, and the target; 421 for nobody's name.
#[test]
fn sites_by_authority() {
    let folder = folder();
    let server = serve(&folder);
    for (target, host, expected) in [
        ("/", "example.org", "200 <h1>home</h1>"),
        ("/", "EXAMPLE.ORG.:8080", "200 <h1>home</h1>"),
        ("/", "a.b.example.org", "200 <h1>home</h1>"),
        ("/", "other.test", "200 <h1>other</h1>"),
        ("http://other.test/", "example.org", "200 <h1>other</h1>"),
        ("http://example.org/", "nobody.test", "200 <h1>home</h1>"),
        ("/", "nobody.test", "421"),
        ("http://nobody.test/", "example.org", "421"),
        ("/", "127.0.0.1", "421"),
    ] {
        let response = ask(&server, &format!("GET {target} HTTP/1.1\nHost: {host}"));
        let shown = format!("{} {}", response.status, response.text());
        assert!(shown.starts_with(expected), "{target} {host}: {shown}");
    }
    let response = ask(&server, "GET /a/b?c=d HTTP/1.1\nHost: EXAMPLE.com");
    assert_eq!(response.field("Location"), Some("http://example.org/a/b?c=d"));
    let response = ask(&server, "GET /old/a%20b/?c=%0d HTTP/1.1\nHost: evil.example.org");
    assert_eq!(response.field("Location"), Some("https://example.org/new/a%20b/?c=%0d"));
}

#[test]
fn fields_pages_and_routes() {
    let folder = folder();
    let server = serve(&folder);
    let page = ask(&server, &format!("GET /page.txt {HOST}"));
    for (name, value) in [
        ("Cache-Control", Some("max-age=60")),
        ("X-Site", Some("main")),
        ("X-Content-Type-Options", Some("nosniff")),
        ("X-Frame-Options", Some("DENY")),
        ("Content-Security-Policy", Some("frame-ancestors 'none'")),
        ("Accept-Ranges", None),
        ("Strict-Transport-Security", None),
    ] {
        assert_eq!(page.field(name), value, "{name}");
    }
    // 9110-15.4.5-01: the 304 says of caching what the 200 says.
    let etag = page.field("ETag").unwrap();
    let not_modified = ask(&server, &format!("GET /page.txt {HOST}\nIf-None-Match: {etag}"));
    assert_eq!((not_modified.status, not_modified.field("Cache-Control")), (304, Some("max-age=60")));
    assert!(not_modified.field("Expires").is_some());
    assert_eq!(ask(&server, &format!("GET / {HOST}")).field("Cache-Control"), Some("no-cache"));
    // Errors: the site's page for people, a problem document for programs.
    let html = ask(&server, &format!("GET /nothing {HOST}\nAccept: text/html"));
    assert_eq!(html.text(), "<h1>404 nothing here</h1>");
    let json = ask(&server, &format!("GET /nothing {HOST}\nAccept: application/json"));
    assert_eq!(json.field("Content-Type"), Some("application/problem+json"));
    // Tries: without extension, and the page of an application.
    assert_eq!(ask(&server, &format!("GET /pages/page {HOST}")).text(), "page\n");
    assert_eq!(ask(&server, &format!("GET /pages/some/state?x {HOST}")).text(), "<h1>home</h1>\n");
    assert!(ask(&server, &format!("GET /debug/echo?x {HOST}")).text().starts_with("GET /echo?x HTTP/1.1"));
    // An allowed address needs no password here.
    assert_eq!(ask(&server, &format!("GET /either/page.txt {HOST}")).status, 200);
    // CORS, on refusals too, and preflights.
    let api = ask(&server, &format!("GET /api {HOST}\nOrigin: https://app.example"));
    assert_eq!(api.field("Access-Control-Allow-Origin"), Some("https://app.example"));
    let stranger = ask(&server, &format!("GET /api {HOST}\nOrigin: https://evil.example"));
    assert_eq!(
        (stranger.field("Access-Control-Allow-Origin"), stranger.field("Vary")),
        (None, Some("Origin"))
    );
    let preflight =
        format!("OPTIONS /api {HOST}\nOrigin: https://app.example\nAccess-Control-Request-Method: PUT");
    let preflight = ask(&server, &preflight);
    assert_eq!((preflight.status, preflight.field("Access-Control-Allow-Methods")), (204, Some("GET, PUT")));
}

/// 103 to clients of HTTP/1.1 that ask for a page, and to nobody else (9110-15.2-01).
#[test]
fn early_hints() {
    let folder = folder();
    let server = serve(&folder);
    for (version, accept, hinted) in [
        ("1.1", "text/html,*/*;q=0.8", true),
        ("1.0", "text/html,*/*;q=0.8", false),
        ("1.1", "image/png", false),
    ] {
        let mut stream = server.connect();
        let request = format!(
            "GET /hints/ HTTP/{version}\r\nHost: example.org\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\nHTTP/1.1 200 OK\r\n";
        assert_eq!(text.starts_with(hint), hinted, "{version} {accept}: {text}");
        assert!(text.ends_with("<h1>home</h1>\n"), "{text}");
    }
}

/// 9110-10.1.1-11, fault A09: what is refused is refused before any of the content is asked for.
#[test]
fn nothing_is_asked_for_that_will_be_refused() {
    let folder = folder();
    let server = serve(&folder);
    for (status, head) in [
        (
            401,
            "PUT /secret/x HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        ),
        (
            403,
            "PUT /inside/x HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        ),
        (
            413,
            "PUT /up/x HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n",
        ),
        (
            412,
            "PUT /up/there.txt HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\nIf-None-Match: *\r\nExpect: 100-continue\r\n\r\n",
        ),
        (421, "PUT /up/x HTTP/1.1\r\nHost: nobody\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
    ] {
        let mut stream = server.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(first, format!("HTTP/1.1 {status}").as_bytes(), "{head}");
    }
    let mut stream = server.connect();
    let head =
        "PUT /up/asked HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    let mut reader = Reader::new(stream);
    assert_eq!(reader.response("PUT").unwrap().status, 201);
    assert_eq!(std::fs::read(folder.path().join("up/asked")).unwrap(), b"hello");
    // Content of unknown length is cut where it passes the limit, and nothing of it stays.
    let mut stream = server.connect();
    let head = "PUT /up/chunked HTTP/1.1\r\nHost: example.org\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..5 {
        // It may have answered and stopped reading.
        let _ = stream.write_all(format!("1f4\r\n{}\r\n", "x".repeat(500)).as_bytes());
    }
    let mut reader = Reader::new(stream);
    assert_eq!(reader.response("PUT").unwrap().status, 413);
    assert!(!folder.path().join("up/chunked").exists());
}

/// What the steps found out is in the log, and the log survives a rotation (fault L07).
#[test]
fn the_log_says_who_what_and_why() {
    let folder = folder();
    let mut server = serve(&folder);
    ask(&server, &format!("GET /secret/?token=abc {HOST}\nAuthorization: Basic YW5uOnBhc3N3b3Jk"));
    ask(&server, &format!("GET /inside/ {HOST}"));
    ask(&server, &format!("GET /pages/x {HOST}"));
    ask(&server, &format!("GET /debug/delay/0 {HOST}"));
    let log = folder.path().join("access.log");
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let wait = |path: &std::path::Path, count: usize| {
        let started = std::time::Instant::now();
        while lines(path).lines().count() < count {
            assert!(started.elapsed() < support::WATCHDOG, "{}", lines(path));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    wait(&log, 4);
    let text = lines(&log);
    let find = |part: &str| {
        text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}:\n{text}"))
    };
    let line = find("/secret/");
    for part in [
        "\"user\":\"ann\"",
        "\"site\":\"example.org\"",
        "token=***",
        "\"handler\":\"files\"",
        "\"status\":404",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(find("/inside/").contains("\"refused\":\"address\""), "{text}");
    assert!(
        find("\"/pages/x\"").contains("\"status\":200"),
        "what was asked for, not what was tried:\n{text}"
    );
    assert!(find("/debug/delay/0").contains("\"handler\":\"echo\""), "{text}");
    std::fs::rename(&log, folder.path().join("access.log.1")).unwrap();
    server.signal("USR1");
    let started = std::time::Instant::now();
    while !log.exists() {
        assert!(started.elapsed() < support::WATCHDOG);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    ask(&server, &format!("GET /gone {HOST}"));
    wait(&log, 1);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

/// Each exchange is in the log of its site and in no other, through a rotation; `off` is nowhere.
#[test]
fn sites_with_logs_of_their_own() {
    let folder = folder();
    let mut config = String::from("[log]\naccess = \"main.log\"\nformat = \"common\"\n");
    for (site, log) in [
        ("main", ""),
        ("own", "log = { access = \"own.log\" }"),
        ("timed", "log = { access = \"timed.log\", format = \"{site} {target} {status} {duration_us}\" }"),
        ("shared", "log = { access = \"own.log\" }"),
        ("same", "log = { access = \"main.log\" }"),
        ("off", "log = { access = \"off\" }"),
    ] {
        config.push_str(&format!(
            "[[site]]\nnames = \"{site}.test\"\n{log}\n[[site.route]]\npath = \"/here\"\n"
        ));
        config.push_str("strip_prefix = true\necho = true\n");
    }
    let mut server = Server::configured(&folder, &config);
    let go = |round: &str| {
        for site in ["main", "own", "timed", "shared", "same", "off"] {
            // At once, later, and where there is no route.
            ask(&server, &format!("GET /here/{round}-{site} HTTP/1.1\nHost: {site}.test"));
            ask(&server, &format!("GET /here/delay/0?{round}-{site} HTTP/1.1\nHost: {site}.test"));
            ask(&server, &format!("GET /nowhere/{round}-{site} HTTP/1.1\nHost: {site}.test"));
        }
        ask(&server, &format!("GET /nobody/{round} HTTP/1.1\nHost: nobody.test"));
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let check = |round: &str| {
        for (name, count, sites) in [
            ("main.log", 7, &["main", "same"][..]),
            ("own.log", 6, &["own", "shared"]),
            ("timed.log", 3, &["timed"]),
        ] {
            let started = std::time::Instant::now();
            let mut text = read(name);
            while text.lines().count() < count {
                assert!(started.elapsed() < support::WATCHDOG, "{name}: {text}");
                std::thread::sleep(std::time::Duration::from_millis(5));
                text = read(name);
            }
            assert_eq!(text.lines().count(), count, "{name}: {text}");
            for site in ["main", "own", "timed", "shared", "same", "off"] {
                let lines = text.lines().filter(|line| line.contains(&format!("{round}-{site}"))).count();
                assert_eq!(lines, if sites.contains(&site) { 3 } else { 0 }, "{site} in {name}: {text}");
            }
        }
        assert!(read("main.log").contains(&format!("GET /nobody/{round} ")), "{}", read("main.log"));
        let timed = read("timed.log");
        assert!(timed.contains(&format!("timed.test /here/{round}-timed 404 ")), "{timed}");
    };
    go("first");
    check("first");
    for name in ["main.log", "own.log", "timed.log"] {
        std::fs::rename(folder.path().join(name), folder.path().join(format!("{name}.1"))).unwrap();
    }
    server.signal("USR1");
    for name in ["main.log", "own.log", "timed.log"] {
        let started = std::time::Instant::now();
        while !folder.path().join(name).exists() {
            assert!(started.elapsed() < support::WATCHDOG, "{name} is not opened anew");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    go("second");
    check("second");
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

/// A server that is killed in the middle of an upload leaves nothing, or removes it when it starts the next time.
#[test]
fn killed_in_the_middle_of_an_upload() {
    let folder = folder();
    folder.write("up/.left.0123456789abcdef.eleven-part", "by a crash");
    let server = serve(&folder);
    let names = || {
        let entries = std::fs::read_dir(folder.path().join("up")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let wait = || {
        let started = std::time::Instant::now();
        while names() != ["dir", "there.txt"] {
            assert!(started.elapsed() < support::WATCHDOG, "{:?}", names());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    wait();
    let mut stream = server.connect();
    let head = "PUT /up/half.txt HTTP/1.1\r\nHost: example.org\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(&[b'x'; 500]).unwrap();
    // Killed by being dropped.
    drop(server);
    let _server = serve(&folder);
    wait();
}

/// A broken configuration never starts a server half-way, and says all that is wrong.
#[test]
fn a_broken_configuration_starts_nothing() {
    let folder = folder();
    let text = "[[listener]]\naddress = \"127.0.0.1:0\"\n[[site]]\nroot = \"www\"\ncompres = true\nnames = \"a b\"\n";
    let file = folder.write("broken.toml", text);
    let run =
        |args: &[&str]| std::process::Command::new(env!("CARGO_BIN_EXE_eleven")).args(args).output().unwrap();
    let file = file.to_str().unwrap();
    for args in [&["serve", "--config", file][..], &["check", file]] {
        let out = run(args);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{said}");
        for part in ["broken.toml:5:1", "did you mean `compress`?", "broken.toml:6:9", "2 errors"] {
            assert!(said.contains(part), "{part}:\n{said}");
        }
        assert!(!said.contains("http://127"), "it started: {said}");
    }
    let out = run(&["check", file, "--format", "json"]);
    let json = String::from_utf8(out.stdout).unwrap();
    assert!(json.contains("\"line\": 5") && json.contains("\"help\""), "{json}");
    assert_eq!(run(&["check", "/nowhere.toml"]).status.code(), Some(2));
    assert_eq!(run(&["serve", "--config", "/nowhere.toml"]).status.code(), Some(2));
    let printed = run(&["config", "--print"]);
    let printed_file = folder.write("printed.toml", printed.stdout);
    let out = run(&["check", printed_file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(run(&["config", "--schema"]).stdout.starts_with(b"{"));
}

/// Fifty sites of twenty routes: each answers as itself.
#[test]
fn many_sites_and_routes() {
    let folder = folder();
    let mut config = String::from("[log]\naccess = \"off\"\n");
    for site in 0..50 {
        config.push_str(&format!("[[site]]\nnames = [\"s{site}.test\", \"*.s{site}.test\"]\n"));
        for route in 0..20 {
            config.push_str(&format!(
                "[[site.route]]\npath = \"/r{route}\"\nfixed = {{ text = \"{site} {route}\\n\" }}\n"
            ));
        }
    }
    let server = Server::configured(&folder, &config);
    for (host, path, expected) in [
        ("s0.test", "/r0", "0 0\n"),
        ("s49.test", "/r19/deep/er", "49 19\n"),
        ("x.s7.test", "/r3", "7 3\n"),
        ("s7.test", "/r30", ""),
    ] {
        let response = ask(&server, &format!("GET {path} HTTP/1.1\nHost: {host}"));
        if expected.is_empty() {
            assert_eq!(response.status, 404);
        } else {
            assert_eq!(response.text(), expected);
        }
    }
}

/// `proxy.cache`: the second answer comes from the store, also after a reload, and a route without it asks each time.
#[test]
fn a_cache_on_a_route_stays_over_a_reload() {
    let folder = folder();
    folder.write("origin/page.txt", "stored\n");
    let origin = Server::configured(
        &folder,
        "[log]\naccess = \"origin.log\"\n[[site]]\nroot = \"origin\"\ncache_control = \"max-age=1000\"\n",
    );
    let url = format!("http://{}", origin.address);
    let config = format!(
        "cache = {{ x_cache = true }}\n[log]\naccess = \"off\"\n[[site]]\n\
         [[site.route]]\nproxy = {{ upstream = \"{url}\", cache = true }}\n\
         [[site.route]]\npath = \"/direct\"\nstrip_prefix = true\nproxy = {{ upstream = \"{url}\" }}\n"
    );
    let server = Server::configured(&folder, &config);
    let get = |path: &str| ask(&server, &format!("GET {path} HTTP/1.1\nHost: a.test"));
    let verdict = |path: &str| {
        let response = get(path);
        assert_eq!((response.status, &*response.text()), (200, "stored\n"), "{path}");
        response.field("X-Cache").unwrap_or_default().to_owned()
    };
    // Two workers share one store.
    assert!(verdict("/page.txt").contains("MISS"));
    // It is stored when its last octet is, which may be a moment after the client has it.
    let started = std::time::Instant::now();
    while !verdict("/page.txt").contains("HIT") {
        assert!(started.elapsed() < support::WATCHDOG, "nothing is stored");
    }
    for _ in 0..4 {
        assert!(verdict("/page.txt").contains("HIT"));
    }
    assert_eq!(verdict("/direct/page.txt"), "");
    let config = format!("{config}[[site.route]]\npath = \"/new\"\nfixed = {{ text = \"new\\n\" }}\n");
    folder.write("eleven.toml", format!("{config}\n[[listener]]\naddress = \"127.0.0.1:0\"\n"));
    server.signal("HUP");
    let started = std::time::Instant::now();
    // Each worker takes the new plan for itself.
    while (0..8).any(|_| get("/new").text() != "new\n") {
        assert!(started.elapsed() < support::WATCHDOG, "the reload is not seen");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(verdict("/page.txt").contains("HIT"), "the store stays");
}

/// A site that keeps to a listener is not reached by another, whatever name a client says (fault H10).
#[test]
fn sites_of_one_listener_are_not_reached_by_another() {
    let folder = Folder::new();
    for name in ["public", "inner", "named"] {
        folder.write(&format!("{name}/who.txt"), name);
    }
    let config = r#"
log.access = "off"
[[listener]]
address = "unix:inner.sock"
[[site]]
names = "a.test"
root = "public"
[[site]]
listeners = "unix:inner.sock"
root = "inner"
[[site]]
names = ["b.test", "b.test:8081"]
listeners = "unix:inner.sock"
root = "named"
[[site]]
names = "b.test"
root = "public"
"#;
    let server = Server::configured(&folder, config);
    let by_socket = |host: &str| {
        let stream = std::os::unix::net::UnixStream::connect(folder.path().join("inner.sock")).unwrap();
        let mut reader = Reader::new(stream);
        let request = format!("GET /who.txt HTTP/1.1\r\nHost: {host}\r\n\r\n");
        reader.get_mut().write_all(request.as_bytes()).unwrap();
        let response = reader.response("GET").unwrap();
        (response.status, response.text())
    };
    let by_port = |host: &str| {
        let response = ask(&server, &format!("GET /who.txt HTTP/1.1\nHost: {host}"));
        (response.status, response.text())
    };
    for (host, port, socket) in [
        ("a.test", (200, "public"), (200, "public")),
        ("b.test", (200, "public"), (200, "named")),
        ("b.test:8081", (200, "public"), (200, "named")),
        ("nobody.test", (421, "421 Misdirected"), (200, "inner")),
        ("", (421, "421 Misdirected"), (200, "inner")),
    ] {
        for (found, expected) in [(by_port(host), port), (by_socket(host), socket)] {
            assert!(found.0 == expected.0 && found.1.starts_with(expected.1), "{host}: {found:?}");
        }
    }
}

/// What sites bring along from nginx, Apache and Netlify: patterns, many redirections, logs of routes.
#[test]
fn patterns_redirections_and_logs_of_routes() {
    let folder = Folder::new();
    folder.write("www/user.html", "user");
    folder.write("www/old.sql", "secret");
    folder.write("www/docs/x.sql", "open");
    folder.write(
        "redirects.txt",
        "# shop\n/shop/shoes /store/shoes 301\n/shop/* https://shop.test/{rest}{query}\n",
    );
    let config = r#"
log.access = "all.log"
log.format = "{target}"
[[site]]
root = "www"
[site.redirects]
file = "redirects.txt"
status = "302"
paths = { "/feed" = "/rss.xml" }
[[site.route]]
pattern = '(?i)\.(sql|bak)$'
fixed = { status = 403 }
[[site.route]]
pattern = "^/user/([0-9]+)$"
rewrite = "/user.html?id={1}"
files = { root = "www" }
[[site.route]]
pattern = "^/(..)/p/(.*)$"
redirect = { to = "/p/{2}?lang={1}" }
[[site.route]]
path = "/docs"
files = { root = "www" }
log.access = "off"
[[site.route]]
path = "/own"
fixed = { text = "x" }
log.access = "own.log"
"#;
    let mut server = Server::configured(&folder, config);
    for (target, status, expected) in [
        ("/feed", 302, "/rss.xml"),
        ("/feed/", 404, ""),
        ("/shop/shoes", 301, "/store/shoes"),
        ("/shop/hats/x?y=1", 302, "https://shop.test/hats/x?y=1"),
        ("/shop", 302, "https://shop.test/"),
        ("/old.sql", 403, ""),
        ("/old%2Esql", 403, ""),
        ("/x/y.BAK", 403, ""),
        ("/docs/x.sql", 200, "open"),
        ("/user/17", 200, "user"),
        ("/user/17x", 404, ""),
        ("/de/p/a&b", 308, "/p/a&b?lang=de"),
        ("/?&/p/x", 404, ""),
        ("/%26%3D/p/x", 308, "/p/x?lang=%26%3D"),
        ("/own", 200, "x"),
    ] {
        let response = server.get(target);
        assert_eq!(response.status, status, "{target}");
        let text = response.text();
        let said = response.field("Location").unwrap_or(&text);
        assert!(said.starts_with(expected), "{target}: {said}");
    }
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let log = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(log("own.log"), "/own\n");
    assert!(log("all.log").contains("/user/17\n") && !log("all.log").contains("/docs"), "{}", log("all.log"));
    assert!(!log("all.log").contains("/own"));
}
