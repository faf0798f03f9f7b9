use super::*;
use eleven_testkit::reader::{Reader, Response as Received};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// An admin listener on a port of its own.
struct Listening {
    running: Running,
    metrics: Arc<Metrics>,
    address: String,
}

impl Listening {
    fn new(token: Option<&str>, mounts: Mounts) -> Listening {
        let address = ListenAddr::Tcp { host: Some("127.0.0.1".into()), port: 0 };
        let token = token.map(|token| Token::new(token).unwrap());
        let plan = AdminPlan::new(address, token, vec!["admin.example".into()]).unwrap();
        let metrics = Arc::new(Metrics::default());
        let running = start(&plan, metrics.clone(), mounts, &Inherited::default()).unwrap();
        let address = running.addresses()[0].trim_start_matches("http://").trim_end_matches('/').to_owned();
        Listening { running, metrics, address }
    }

    fn ask(&self, method: &str, target: &str, fields: &str) -> Received {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let address = &self.address;
        let host = if fields.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
        let fields = fields.replace("SELF", address);
        write!(stream, "{method} {target} HTTP/1.1\r\n{host}{fields}Connection: close\r\n\r\n").unwrap();
        Reader::new(stream).response(method).unwrap()
    }

    fn get(&self, target: &str) -> Received {
        self.ask("GET", target, "")
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.running.stop();
        self.running.wait();
    }
}

/// What a name, a page or a missing token may do.
#[test]
fn who_may_come_in() {
    let free = Listening::new(None, Mounts::default());
    let guarded = Listening::new(Some(TOKEN), Mounts::default());
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let rows: &[(&Listening, &str, &str, u16)] = &[
        (&free, "/status.json", "", 200),
        (&free, "/status.json", "Host: localhost:1\r\n", 200),
        (&free, "/status.json", "Host: LOCALHOST\r\n", 200),
        (&free, "/status.json", "Host: eleven.localhost\r\n", 200),
        (&free, "/status.json", "Host: [::1]:8011\r\n", 200),
        (&free, "/status.json", "Host: Admin.Example:1\r\n", 200),
        // A name of somebody else's that leads here.
        (&free, "/status.json", "Host: rebind.example\r\n", 421),
        (&free, "/health", "Host: rebind.example\r\n", 421),
        (&free, "/status.json", "Host: localhost.example\r\n", 421),
        (&free, "/status.json", "Host: 127.0.0.1.example\r\n", 421),
        (&free, "/status.json", "Host: \r\n", 421),
        // Pages of other origins.
        (&free, "/status.json", "Origin: http://SELF\r\n", 200),
        (&free, "/status.json", "Origin: http://127.0.0.1:1\r\n", 403),
        (&free, "/status.json", "Origin: https://evil.example\r\n", 403),
        (&free, "/status.json", "Origin: null\r\n", 403),
        (&free, "/status.json", "Sec-Fetch-Site: same-origin\r\n", 200),
        (&free, "/status.json", "Sec-Fetch-Site: none\r\n", 200),
        (&free, "/status.json", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403),
        (&free, "/status.json", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n", 200),
        // Tokens.
        (&guarded, "/status.json", "", 401),
        (&guarded, "/metrics", "", 401),
        (&guarded, "/health", "", 200),
        (&guarded, "/status.json", &bearer, 200),
        (&guarded, "/status.json", &format!("Authorization: bearer  {TOKEN}\r\n"), 200),
        (&guarded, "/status.json", &format!("Authorization: Bearer {TOKEN}0\r\n"), 401),
        (&guarded, "/status.json", &format!("Authorization: Bearer {}\r\n", &TOKEN[1..]), 401),
        (&guarded, "/status.json", "Authorization: Bearer\r\n", 401),
        (&guarded, "/status.json", "Authorization: Bearer \r\n", 401),
        (&guarded, "/status.json", &format!("Authorization: Basic {TOKEN}\r\n"), 401),
        (&guarded, "/nothing", "", 401),
        (&guarded, "/nothing", &bearer, 404),
    ];
    for (listening, target, fields, status) in rows {
        let response = listening.ask("GET", target, fields);
        assert_eq!(response.status, *status, "{target} {fields:?}");
        assert_eq!(response.field("access-control-allow-origin"), None);
        assert_eq!(response.field("cache-control"), Some("no-store"), "{target} {fields:?}");
        assert_eq!(response.field("www-authenticate").is_some(), *status == 401);
        assert!(!response.text().contains(TOKEN));
    }
}

/// Nothing is shown to a network by leaving something out.
/// Fault X27.
#[test]
fn addresses_that_need_a_token() {
    for (address, needs) in [
        ("127.0.0.1:1", false),
        ("127.8.0.1:1", false),
        ("[::1]:1", false),
        ("localhost:1", false),
        ("unix:/run/x.sock", false),
        (":1", true),
        ("0.0.0.0:1", true),
        ("[::]:1", true),
        ("10.0.0.1:1", true),
        ("localhost.example:1", true),
    ] {
        let address: ListenAddr = address.parse().unwrap();
        assert_eq!(AdminPlan::new(address.clone(), None, Vec::new()).is_err(), needs, "{address}");
        let token = Token::new(TOKEN).ok();
        assert!(AdminPlan::new(address.clone(), token, Vec::new()).is_ok(), "{address}");
    }
    assert_eq!(Token::new("short").unwrap_err(), access::InvalidToken::Short);
    assert_eq!(Token::new("0123456789abcdef\n").unwrap_err(), access::InvalidToken::Octets);
    assert_eq!(Token::new("0123456789 abcdef").unwrap_err(), access::InvalidToken::Octets);
    // Fault L05: no log shows it.
    assert_eq!(format!("{:?}", Token::new(TOKEN).unwrap()), "Token(hidden)");
}

#[test]
fn health_says_when_the_server_is_finishing() {
    let listening = Listening::new(None, Mounts::default());
    let response = listening.get("/health");
    assert_eq!((response.status, response.text().as_str()), (200, "ok\n"));
    listening.metrics.drain();
    let response = listening.get("/health");
    assert_eq!((response.status, response.text().as_str()), (503, "draining\n"));
    assert_eq!(listening.ask("HEAD", "/health", "").status, 503);
    let response = listening.ask("POST", "/health", "");
    assert_eq!((response.status, response.field("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn the_longest_mount_answers_and_only_whom_is_let_in() {
    let says = |text: &'static str| -> Mounted {
        Arc::new(move |_: &mut Request| Response::text(Status::OK, TEXT, text).into())
    };
    let mut mounts = Mounts::default();
    mounts.add("/cache/", says("cache"));
    mounts.add("/cache/purge/", says("purge"));
    mounts.add("/health/", says("never the listener's own"));
    let listening = Listening::new(Some(TOKEN), mounts);
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for (method, target, status, text) in [
        ("GET", "/cache/", 200, "cache"),
        ("POST", "/cache/x", 200, "cache"),
        ("DELETE", "/cache/purge/x?y", 200, "purge"),
        ("GET", "/health", 200, "ok\n"),
    ] {
        let response = listening.ask(method, target, &bearer);
        assert_eq!((response.status, response.text().as_str()), (status, text), "{target}");
    }
    assert_eq!(listening.ask("GET", "/cache", &bearer).status, 404);
    assert_eq!(listening.ask("POST", "/cache/x", "").status, 401);
}

/// A Unix socket is its owner's.
#[test]
fn over_a_unix_socket() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("eleven-admin-{}.sock", std::process::id()));
    let plan = AdminPlan::new(ListenAddr::Unix(path.clone()), None, Vec::new()).unwrap();
    let mut running = start(&plan, Arc::default(), Mounts::default(), &Inherited::default()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(Reader::new(stream).response("GET").unwrap().text(), "ok\n");
    running.stop();
    running.wait();
}

/// The page runs its own script and nothing else, fetches nothing from elsewhere, and writes nothing as markup.
#[test]
fn the_page_is_self_contained() {
    let listening = Listening::new(Some(TOKEN), Mounts::default());
    let response = listening.get("/");
    assert_eq!(response.status, 200);
    let policy = response.field("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-") && !policy.contains("unsafe"));
    let page = response.text();
    for forbidden in
        ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("]
    {
        let allowed = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!allowed.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains(" style=\"") && !page.contains(" onclick="));
}

/// Events come as they should: all figures first, then those of each second, until the listener ends.
#[test]
fn events_follow_each_other() {
    let mut listening = Listening::new(None, Mounts::default());
    let recorder = listening.metrics.recorder();
    recorder.count(&crate::metrics::Exchange { status: 200, ..Default::default() });
    let mut stream = TcpStream::connect(&listening.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut reader = Reader::new(stream);
    let head = reader.head().unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let mut text = String::new();
    while text.matches("\n\n").count() < 2 {
        text.push_str(&String::from_utf8(reader.exactly(1).unwrap()).unwrap());
    }
    let events: Vec<serde_json::Value> = text
        .split("data: ")
        .skip(1)
        .map(|event| {
            let object = &event[..event.rfind('}').unwrap() + 1];
            serde_json::from_str(object).unwrap()
        })
        .collect();
    assert_eq!(events[0]["requests"]["total"], 1);
    assert!(events[0]["history"].is_array() && events[1].get("history").is_none());
    listening.running.stop();
    listening.running.wait();
    let rest = String::from_utf8(reader.rest().unwrap()).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
}
