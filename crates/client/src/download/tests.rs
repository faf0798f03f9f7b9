//! Downloads from a server that has every fault a table can ask for, over loopback. Whatever it does, the file is
//! right or it is not there.

use super::keep::Ramp;
use super::*;
use crate::agent::Options as AgentOptions;
use crate::connector::Connector;
use crate::pool::PoolLimits;
use crate::progress::Event;
use crate::segments::RangeSet;
use eleven_messaging::Config;
use eleven_net::clock;
use eleven_net::dial::{Dialer, Options as DialOptions};
use eleven_net::resolve::{Limits, Resolver};
use eleven_net::tls_config::ClientSettings;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod present;

fn content_of(seed: u64, length: usize) -> Vec<u8> {
    eleven_testkit::Rng::new(seed).bytes(length)
}

/// How the server behaves.
#[derive(Clone)]
struct Behaviour {
    content: Vec<u8>,
    etag: Option<&'static str>,
    /// Answers to ranges at all.
    ranges: bool,
    /// Each response is cut after so many octets of content, once each.
    cuts: Vec<usize>,
    /// Sends at most so many octets every 10 ms on one connection.
    throttle: Option<usize>,
    /// After so many responses this is what it has.
    changes: Option<(usize, Vec<u8>, &'static str)>,
    chunked: bool,
    /// More header lines of a response.
    more: String,
    /// A trailer line of a chunked response.
    trailer: String,
    /// Replaces the Content-Range of a 206.
    content_range: Option<String>,
    /// Statuses answered first, with their header lines.
    first: Vec<(u16, &'static str)>,
}

impl Behaviour {
    fn good(length: usize) -> Behaviour {
        Behaviour {
            content: content_of(1, length),
            etag: Some("\"v1\""),
            ranges: true,
            cuts: Vec::new(),
            throttle: None,
            changes: None,
            chunked: false,
            more: String::new(),
            trailer: String::new(),
            content_range: None,
            first: Vec::new(),
        }
    }
}

struct Server {
    port: u16,
    requests: Rc<RefCell<Vec<String>>>,
    sent: Rc<Cell<usize>>,
}

impl Server {
    async fn new(behaviour: Behaviour) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, sent) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let server = Server { port, requests: requests.clone(), sent: sent.clone() };
        let behaviour = Rc::new(RefCell::new(behaviour));
        tokio::task::spawn_local(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::task::spawn_local(serve(socket, behaviour.clone(), requests.clone(), sent.clone()));
            }
        });
        server
    }

    fn uri(&self) -> Uri {
        self.at("/dir/file.bin")
    }

    fn at(&self, path: &str) -> Uri {
        Uri::parse(format!("http://127.0.0.1:{}{path}", self.port).as_bytes()).unwrap().0
    }
}

async fn serve(
    mut socket: TcpStream,
    behaviour: Rc<RefCell<Behaviour>>,
    requests: Rc<RefCell<Vec<String>>>,
    sent: Rc<Cell<usize>>,
) {
    let mut head = Vec::new();
    let mut octet = [0; 1];
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            match socket.read(&mut octet).await {
                Ok(1) => head.push(octet[0]),
                _ => return,
            }
        }
        let request = String::from_utf8(head.clone()).unwrap();
        requests.borrow_mut().push(request.clone());
        let first = {
            let mut behaviour = behaviour.borrow_mut();
            let served = requests.borrow().len();
            if let Some((after, content, etag)) = behaviour.changes.clone()
                && served > after
            {
                (behaviour.content, behaviour.etag, behaviour.changes) = (content, Some(etag), None);
            }
            (!behaviour.first.is_empty()).then(|| behaviour.first.remove(0))
        };
        if let Some((status, lines)) = first {
            let answer = format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: 2\r\n\r\nno");
            if socket.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        let snapshot = behaviour.borrow().clone();
        let (answer, body) = respond(&request, &snapshot);
        let cut = {
            let mut behaviour = behaviour.borrow_mut();
            let fits = behaviour.cuts.first().is_some_and(|&cut| cut < body.len());
            fits.then(|| behaviour.cuts.remove(0))
        };
        if socket.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        let body = &body[..cut.unwrap_or(body.len())];
        let step = snapshot.throttle.unwrap_or(16 * 1024);
        for piece in body.chunks(step) {
            let wire = if snapshot.chunked {
                [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
            } else {
                piece.to_vec()
            };
            if socket.write_all(&wire).await.is_err() {
                return;
            }
            sent.set(sent.get() + piece.len());
            if snapshot.throttle.is_some() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        if cut.is_some() {
            return;
        }
        if snapshot.chunked
            && socket.write_all(format!("0\r\n{}\r\n", snapshot.trailer).as_bytes()).await.is_err()
        {
            return;
        }
    }
}

fn respond(request: &str, behaviour: &Behaviour) -> (String, Vec<u8>) {
    let field = |name: &str| {
        request.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned)
    };
    let length = behaviour.content.len();
    let matches = field("If-Range").is_none_or(|tag| Some(tag.as_str()) == behaviour.etag);
    let range = field("Range").filter(|_| behaviour.ranges && matches).map(|range| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        (first, last.parse::<usize>().unwrap_or(length - 1).min(length.saturating_sub(1)))
    });
    let mut lines = behaviour.etag.map_or(String::new(), |tag| format!("ETag: {tag}\r\n"));
    lines.push_str(&behaviour.more);
    let (status, body) = match range {
        Some((first, _)) if first >= length => {
            lines.push_str(&format!("Content-Range: bytes */{length}\r\n"));
            (416, Vec::new())
        }
        Some((first, last)) => {
            let range = behaviour.content_range.clone().unwrap_or(format!("bytes {first}-{last}/{length}"));
            lines.push_str(&format!("Content-Range: {range}\r\n"));
            (206, behaviour.content[first..=last].to_vec())
        }
        None => (200, behaviour.content.clone()),
    };
    let framing = if behaviour.chunked && status != 416 {
        "Transfer-Encoding: chunked\r\n".to_owned()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    (format!("HTTP/1.1 {status} X\r\n{lines}{framing}\r\n"), body)
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("eleven-download-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn agent() -> Rc<Agent> {
    let dialer = Dialer::new(Resolver::new(Limits::default()), DialOptions::default());
    let connector = Connector::new(dialer, ClientSettings::default(), Arc::new(Config::default()));
    let limits = PoolLimits { connections_per_origin_max: 16, ..PoolLimits::default() };
    Rc::new(Agent::new(AgentOptions::default(), connector, limits))
}

fn quick() -> Options {
    Options { retry_pause_ms: 1, split_bytes_min: 10_000, checkpoint_ms: 1, ..Options::default() }
}

async fn get_all(
    uris: Vec<Uri>,
    place: &Path,
    naming: Naming,
    options: Options,
) -> (Result<Done, Failure>, Vec<String>) {
    let directory = Directory::open(place).unwrap();
    let notes = Rc::new(RefCell::new(Vec::new()));
    let heard = notes.clone();
    let progress: Progress = Rc::new(move |event| match event {
        Event::Note(text) => heard.borrow_mut().push((*text).to_owned()),
        Event::Retry(failure, _) => heard.borrow_mut().push(format!("retry: {failure}")),
        _ => {}
    });
    let ask = Box::new(|uri: &Uri| Ask::get(uri.clone()));
    let task = Task { uris, ask, directory, naming, options, line: None };
    let result = run(agent(), task, progress, Rc::new(Notify::new())).await;
    let notes = notes.borrow().clone();
    (result, notes)
}

async fn get(server: &Server, place: &Place, options: Options) -> (Result<Done, Failure>, Vec<String>) {
    get_all(vec![server.uri()], &place.0, Naming::Remote { disposition: false }, options).await
}

#[tokio::test(flavor = "local")]
async fn a_file_of_any_length_and_framing() {
    for length in [0, 1, 1000, 300_000] {
        for chunked in [false, true] {
            let place = Place::new(&format!("plain-{length}-{chunked}"));
            let server = Server::new(Behaviour { chunked, ..Behaviour::good(length) }).await;
            let (result, _) = get(&server, &place, quick()).await;
            let done = result.unwrap();
            assert_eq!((done.bytes, done.received), (length as u64, length as u64));
            assert_eq!(place.names(), ["file.bin"]);
            assert!(place.read("file.bin") == content_of(1, length));
        }
    }
}

/// 9110-14.2-08, 9110-13.1.5-01: pieces by several connections, each octet asked for once.
#[tokio::test(flavor = "local")]
async fn segments_share_the_work() {
    for (segments, most) in [(Segments::Fixed(4), 4), (Segments::Fixed(1), 1), (Segments::Auto, 16)] {
        let place = Place::new(&format!("segments-{segments:?}"));
        let length = 600_000;
        let server = Server::new(Behaviour { throttle: Some(4_000), ..Behaviour::good(length) }).await;
        let (result, notes) = get(&server, &place, Options { segments, ..quick() }).await;
        assert_eq!(result.unwrap().received, length as u64, "{notes:?}");
        assert!(place.read("file.bin") == content_of(1, length));
        let requests = server.requests.borrow();
        let ranged = requests.iter().filter(|r| r.contains("Range: bytes=")).count();
        assert!(requests.iter().skip(1).all(|r| r.contains("If-Range: \"v1\"")));
        assert_eq!(ranged > 0, most > 1, "{segments:?}");
        // What was stolen may be under way: a socket buffer's worth per theft, not the file again.
        assert!(server.sent.get() < length * 2, "{}", server.sent.get());
    }
}

/// Cut at any octet, the transfer goes on there, in the same run; nothing is asked for twice.
#[tokio::test(flavor = "local")]
async fn transient_failures_resume_in_the_same_run() {
    let place = Place::new("cuts");
    let cuts = vec![1, 40_000, 77, 0, 5_000];
    let server = Server::new(Behaviour { cuts, ..Behaviour::good(200_000) }).await;
    let (result, notes) = get(&server, &place, quick()).await;
    let done = result.unwrap();
    assert!(place.read("file.bin") == content_of(1, 200_000));
    assert_eq!((done.bytes, done.received), (200_000, 200_000), "{notes:?}");
    assert_eq!(server.sent.get(), 200_000, "no octet came twice");
    // With several connections, too.
    let place = Place::new("cuts-segments");
    let cuts = vec![30_000, 10_000, 5, 20_000, 0, 0];
    let server = Server::new(Behaviour { cuts, throttle: Some(4_000), ..Behaviour::good(400_000) }).await;
    let (result, notes) = get(&server, &place, Options { segments: Segments::Fixed(4), ..quick() }).await;
    assert!(result.is_ok(), "{result:?} {notes:?}");
    assert!(place.read("file.bin") == content_of(1, 400_000));
}

/// A run that fails leaves what it got; the next goes on there (K36 and pains: never thrown away).
#[tokio::test(flavor = "local")]
async fn a_later_run_goes_on() {
    let place = Place::new("later");
    let server = Server::new(Behaviour { cuts: vec![120_000], ..Behaviour::good(200_000) }).await;
    let (result, _) =
        get(&server, &place, Options { retries_max: 0, retry_pause_ms_max: 0, ..quick() }).await;
    // The first failure has made progress and is retried; so end it by a second server that is gone.
    assert!(result.is_ok());
    let place = Place::new("later-2");
    let server =
        Server::new(Behaviour { first: vec![], cuts: vec![120_000, 0], ..Behaviour::good(200_000) }).await;
    let (result, _) = get(&server, &place, Options { retries_max: 0, ..quick() }).await;
    assert_eq!(result.unwrap_err().cause, Cause::Closed);
    assert_eq!(place.names(), ["file.bin.eleven-journal", "file.bin.eleven-part"]);
    let (result, _) = get(&server, &place, Options { resume: true, ..quick() }).await;
    let done = result.unwrap();
    assert_eq!((done.bytes, done.resumed, done.received), (200_000, 120_000, 80_000));
    assert_eq!(place.names(), ["file.bin"]);
    assert!(place.read("file.bin") == content_of(1, 200_000));
    let last = server.requests.borrow().last().unwrap().clone();
    assert!(last.contains("Range: bytes=120000-\r\n") && last.contains("If-Range: \"v1\"\r\n"), "{last}");
}

async fn interrupted(place: &Place, behaviour: &Behaviour) {
    let server = Server::new(Behaviour { cuts: vec![120_000, 0], ..behaviour.clone() }).await;
    let naming = Naming::Fixed("file.bin".into());
    let (result, _) =
        get_all(vec![server.uri()], &place.0, naming, Options { retries_max: 0, ..quick() }).await;
    assert!(result.is_err());
    // The port is another one in the next run; the journal speaks of this one.
    let journal = std::fs::read(place.0.join("file.bin.eleven-journal")).unwrap();
    let journal = crate::journal::read(&journal).unwrap();
    let subject = crate::journal::Subject { uri: "placeholder".into(), ..journal.subject };
    std::fs::write(place.0.join("file.bin.eleven-journal"), crate::journal::begin(&subject, &journal.done))
        .unwrap();
}

async fn resume(place: &Place, behaviour: Behaviour) -> (Result<Done, Failure>, Vec<String>, Server) {
    let server = Server::new(behaviour).await;
    let path = place.0.join("file.bin.eleven-journal");
    let journal = crate::journal::read(&std::fs::read(&path).unwrap()).unwrap();
    let subject = crate::journal::Subject { uri: server.uri().without_fragment(), ..journal.subject };
    std::fs::write(&path, crate::journal::begin(&subject, &journal.done)).unwrap();
    let (result, notes) = get(&server, place, Options { resume: true, ..quick() }).await;
    (result, notes, server)
}

/// 9110-13.1.5, 9110-14.4-05; faults G09, G10, G12, K12: whatever a server does to a resumed download, the
/// result is right, or there is none.
/// Faults F24 and F26.
#[tokio::test(flavor = "local")]
async fn resuming_against_every_fault() {
    let good = Behaviour::good(200_000);
    let new = content_of(9, 150_000);
    let range = |text: &str| Behaviour { content_range: Some(text.to_owned()), ..Behaviour::good(200_000) };
    for (what, behaviour, expected) in [
        ("the same", good.clone(), Some(good.content.clone())),
        (
            "changed",
            Behaviour { content: new.clone(), etag: Some("\"v2\""), ..good.clone() },
            Some(new.clone()),
        ),
        ("ignores ranges", Behaviour { ranges: false, ..good.clone() }, Some(good.content.clone())),
        (
            "changed and ignores ranges",
            Behaviour { content: new.clone(), etag: Some("\"v2\""), ranges: false, ..good.clone() },
            Some(new.clone()),
        ),
        ("lost its validator", Behaviour { etag: None, ..good.clone() }, Some(good.content.clone())),
        // Begun anew, and the whole of it is not lied about.
        ("another total", range("bytes 120000-199999/200001"), Some(good.content.clone())),
        ("another start", range("bytes 119999-199998/200000"), None),
        ("another unit", range("lines 120000-199999/200000"), None),
        ("no sense", range("bytes 199999-120000/200000"), None),
        ("chunked", Behaviour { chunked: true, ..good.clone() }, Some(good.content.clone())),
        ("cut again", Behaviour { cuts: vec![10, 1], ..good.clone() }, Some(good.content.clone())),
    ] {
        let place = Place::new(&format!("faults-{}", what.replace(' ', "-")));
        interrupted(&place, &good).await;
        let (result, notes, _server) = resume(&place, behaviour).await;
        match expected {
            Some(expected) => {
                let done = result.unwrap_or_else(|failure| panic!("{what}: {failure} {notes:?}"));
                assert_eq!(place.names(), ["file.bin"], "{what}");
                assert!(place.read("file.bin") == expected, "{what}: {} octets", done.bytes);
            }
            None => {
                assert!(result.is_err(), "{what} {notes:?}");
                assert!(!place.names().contains(&"file.bin".to_owned()), "{what}");
            }
        }
    }
}

/// G12: everything is here already.
#[tokio::test(flavor = "local")]
async fn a_416_on_a_finished_part_completes_it() {
    let place = Place::new("finished");
    let behaviour = Behaviour { chunked: true, ..Behaviour::good(100_000) };
    let server = Server::new(behaviour.clone()).await;
    std::fs::write(place.0.join("file.bin.eleven-part"), &behaviour.content).unwrap();
    let subject = crate::journal::Subject {
        uri: server.uri().without_fragment(),
        etag: Some("\"v1\"".into()),
        last_modified: None,
        length: None,
        repr_digest: None,
    };
    let mut done = RangeSet::new();
    done.insert(0, 100_000);
    std::fs::write(place.0.join("file.bin.eleven-journal"), crate::journal::begin(&subject, &done)).unwrap();
    let (result, notes) = get(&server, &place, Options { resume: true, ..quick() }).await;
    assert_eq!(result.unwrap().received, 0, "{notes:?}");
    assert!(place.read("file.bin") == behaviour.content);
}

/// Fault K40, RFC 9530: digests in fields and trailers, and the user's own.
/// Fault F27.
#[tokio::test(flavor = "local")]
async fn digests_are_verified() {
    use eleven_semantics::digest_fields::{Algorithm, Hasher, value};
    let content = content_of(1, 50_000);
    let digest_of = |content: &[u8]| {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(content);
        hasher.finish()
    };
    let right = String::from_utf8(value(&digest_of(&content))).unwrap();
    let wrong = String::from_utf8(value(&digest_of(b"other"))).unwrap();
    let good = Behaviour::good(50_000);
    for (what, behaviour, sha256, verified) in [
        (
            "field",
            Behaviour { more: format!("Repr-Digest: {right}\r\n"), ..good.clone() },
            None,
            Some(&["Repr-Digest"][..]),
        ),
        (
            "content",
            Behaviour { more: format!("Content-Digest: {right}\r\n"), ..good.clone() },
            None,
            Some(&["Content-Digest"]),
        ),
        (
            "trailer",
            Behaviour { chunked: true, trailer: format!("Repr-Digest: {right}\r\n"), ..good.clone() },
            None,
            Some(&["Repr-Digest"]),
        ),
        ("wrong-field", Behaviour { more: format!("Repr-Digest: {wrong}\r\n"), ..good.clone() }, None, None),
        (
            "wrong-trailer",
            Behaviour { chunked: true, trailer: format!("Content-Digest: {wrong}\r\n"), ..good.clone() },
            None,
            None,
        ),
        ("unreadable", Behaviour { more: "Repr-Digest: sha-256=?\r\n".into(), ..good.clone() }, None, None),
        ("user", good.clone(), Some(digest_of(&content)), Some(&["--sha256"])),
        ("wrong-user", good.clone(), Some(digest_of(b"x")), None),
        ("none", good.clone(), None, Some(&[])),
    ] {
        let place = Place::new(&format!("digest-{what}"));
        let server = Server::new(behaviour).await;
        let sha256 = sha256.map(|digest| digest.value.try_into().unwrap());
        let (result, _) = get(&server, &place, Options { sha256, ..quick() }).await;
        match verified {
            Some(verified) => assert_eq!(result.unwrap().verified, verified, "{what}"),
            None => {
                assert!(matches!(result.unwrap_err().cause, Cause::Digest(_)), "{what}");
                assert!(!place.names().contains(&"file.bin".to_owned()), "{what}");
                assert!(!place.names().contains(&"file.bin.eleven-journal".to_owned()), "{what}");
            }
        }
    }
}

/// 9110-15.5-02, 9110-10.2.3-R1; faults K24, K43.
#[tokio::test(flavor = "local")]
async fn errors_leave_the_named_file_alone() {
    let place = Place::new("errors");
    std::fs::write(place.0.join("file.bin"), "precious").unwrap();
    let refused = Behaviour { first: vec![(404, ""); 9], ..Behaviour::good(10) };
    let server = Server::new(refused.clone()).await;
    let (result, _) = get(&server, &place, quick()).await;
    assert!(result.unwrap_err().to_string().contains("--overwrite"));
    assert!(server.requests.borrow().is_empty(), "refused before anything was sent");
    let options = Options { overwrite: Overwrite::Replace, ..quick() };
    let (result, _) = get(&server, &place, options.clone()).await;
    assert_eq!(result.unwrap_err().cause, Cause::Status(404));
    assert_eq!(place.names(), ["file.bin"]);
    let (result, _) = get(&server, &place, Options { save_errors: true, ..options.clone() }).await;
    assert!(result.is_err());
    assert_eq!(
        (place.names(), place.read("file.bin.error")),
        (vec!["file.bin".into(), "file.bin.error".into()], b"no".to_vec())
    );
    assert_eq!(place.read("file.bin"), b"precious");
    let (result, _) = get(&server, &place, Options { overwrite: Overwrite::Rename, ..quick() }).await;
    assert!(result.is_err());
    // 503 with Retry-After is waited for; one that asks for too much is not.
    let place = Place::new("unavailable");
    let server =
        Server::new(Behaviour { first: vec![(503, "Retry-After: 0\r\n"), (429, "")], ..Behaviour::good(10) })
            .await;
    assert!(get(&server, &place, quick()).await.0.is_ok());
    let place = Place::new("bomb");
    let server =
        Server::new(Behaviour { first: vec![(503, "Retry-After: 99999999\r\n")], ..Behaviour::good(10) })
            .await;
    assert_eq!(get(&server, &place, quick()).await.0.unwrap_err().cause, Cause::Status(503));
    // G11: a part nobody asked for.
    let place = Place::new("g11");
    let server = Server::new(Behaviour {
        first: vec![(206, "Content-Range: bytes 0-1/10\r\n")],
        ..Behaviour::good(10)
    })
    .await;
    assert!(matches!(get(&server, &place, quick()).await.0.unwrap_err().cause, Cause::Malformed(_)));
}

/// Faults K22 to K28.
#[tokio::test(flavor = "local")]
async fn names_from_the_server_are_made_safe() {
    for (disposition, heed, expected) in [
        ("attachment; filename=\"../../.bashrc\"", true, "bashrc"),
        ("attachment; filename=report.pdf", true, "report.pdf"),
        ("attachment; filename=report.pdf", false, "file.bin"),
        ("attachment; filename*=UTF-8''%2e%2e%2fx", true, "x"),
        ("nonsense=", true, "file.bin"),
    ] {
        let place = Place::new("disposition");
        let more = format!("Content-Disposition: {disposition}\r\n");
        let server = Server::new(Behaviour { more, ..Behaviour::good(10) }).await;
        let naming = Naming::Remote { disposition: heed };
        let (result, _) = get_all(vec![server.uri()], &place.0, naming, quick()).await;
        assert!(result.is_ok());
        assert_eq!(place.names(), [expected], "{disposition}");
    }
    // K28: a redirection does not name the file.
    let place = Place::new("redirected");
    let server =
        Server::new(Behaviour { first: vec![(302, "Location: /evil.sh\r\n")], ..Behaviour::good(10) }).await;
    let (result, _) = get(&server, &place, quick()).await;
    assert_eq!(result.unwrap().hops.len(), 1);
    assert_eq!(place.names(), ["file.bin"]);
}

/// Content that changes under the transfer is never mixed.
/// Fault F25.
#[tokio::test(flavor = "local")]
async fn a_change_in_the_middle_begins_anew() {
    let place = Place::new("change");
    let new = content_of(7, 180_000);
    let changes = Some((1, new.clone(), "\"v2\""));
    let server = Server::new(Behaviour { cuts: vec![90_000], changes, ..Behaviour::good(200_000) }).await;
    let (result, notes) = get(&server, &place, quick()).await;
    assert!(result.is_ok(), "{result:?}");
    assert!(place.read("file.bin") == new);
    assert!(notes.iter().any(|note| note.contains("changed")), "{notes:?}");
}

/// Fault K41.
#[tokio::test(flavor = "local")]
async fn mirrors_must_have_the_same_file() {
    let length = 400_000;
    let slow = Behaviour { throttle: Some(4_000), ..Behaviour::good(length) };
    for (what, mirror, helps) in [
        ("same", slow.clone(), true),
        (
            "other-tag",
            Behaviour { etag: Some("\"x\""), content: content_of(3, length), ..slow.clone() },
            false,
        ),
        ("other-length", Behaviour { content: content_of(3, length - 1), ..slow.clone() }, false),
    ] {
        let place = Place::new(&format!("mirror-{what}"));
        let (one, two) = (Server::new(slow.clone()).await, Server::new(mirror).await);
        let options = Options { segments: Segments::Fixed(2), ..quick() };
        let (result, notes) =
            get_all(vec![one.uri(), two.uri()], &place.0, Naming::Fixed("f".into()), options).await;
        assert!(result.is_ok(), "{what}: {result:?} {notes:?}");
        assert!(place.read("f") == content_of(1, length), "{what}");
        assert!(!two.requests.borrow().is_empty(), "{what}");
        assert_eq!(notes.is_empty(), helps, "{what}: {notes:?}");
    }
}

/// Where the first place has nothing, or breaks off, the next one is asked, without a pause; what is here counts there
/// if it is the same file. The failure told is that of the first.
#[tokio::test(flavor = "local")]
async fn mirrors_take_the_place_of_the_first() {
    let good = Behaviour::good(300_000);
    let refusing = |status| Behaviour { first: vec![(status, ""); 9], ..good.clone() };
    // Never gives more than it gave first, since it cuts every response.
    let breaking = Behaviour { cuts: vec![150_000, 1, 1, 1, 1, 1, 1, 1, 1], ..good.clone() };
    let other = |etag| Behaviour { etag, content: content_of(3, 300_000), ..good.clone() };
    for (what, first, second, seed, asked) in [
        ("404", refusing(404), good.clone(), Ok(1), None),
        ("503", refusing(503), good.clone(), Ok(1), None),
        ("both", refusing(404), refusing(403), Err(404), None),
        ("broken", breaking.clone(), good.clone(), Ok(1), Some("Range: bytes=150000-")),
        ("broken-other", breaking.clone(), other(Some("\"x\"")), Ok(3), Some("Range: bytes=150000-")),
        ("broken-untagged", breaking, other(None), Ok(3), Some("Range: bytes=150000-")),
    ] {
        let place = Place::new(&format!("place-{what}"));
        let (one, two) = (Server::new(first).await, Server::new(second).await);
        let options = Options { retries_max: 0, ..quick() };
        let uris = vec![one.uri(), two.uri()];
        let (result, notes) = get_all(uris, &place.0, Naming::Fixed("f".into()), options).await;
        match (seed, result) {
            (Ok(seed), Ok(_)) => assert!(place.read("f") == content_of(seed, 300_000), "{what}"),
            (Err(code), Err(failure)) => assert_eq!(failure.cause, Cause::Status(code), "{what}"),
            (_, result) => panic!("{what}: {result:?} {notes:?}"),
        }
        assert!(notes.iter().any(|note| note.contains("next mirror")), "{what}: {notes:?}");
        let request = two.requests.borrow()[0].clone();
        assert!(asked.is_none_or(|asked| request.contains(asked)), "{what}: {request}");
    }
    // A refused connection is a reason, too; and what cannot be reached anywhere is told of the first.
    let (place, server) = (Place::new("place-dead"), Server::new(good).await);
    let dead = || Uri::parse(b"http://127.0.0.1:1/f").unwrap().0;
    let options = || Options { retries_max: 0, ..quick() };
    let uris = vec![dead(), server.uri()];
    let (result, _) = get_all(uris, &place.0, Naming::Fixed("f".into()), options()).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(result.unwrap().uri.to_string(), server.uri().to_string());
    let (result, _) = get_all(vec![dead(), dead()], &place.0, Naming::Fixed("g".into()), options()).await;
    assert_eq!(result.unwrap_err().phase, Phase::Connect);
    assert_eq!(place.names(), ["f"]);
}

/// Content that is large enough goes past memory; it arrives as it was, however it is cut, shared out, or proven.
#[tokio::test(flavor = "local")]
async fn large_content_arrives_whole() {
    let length = 5_000_011;
    let good = Behaviour::good(length);
    let digest = {
        let mut hasher =
            eleven_semantics::digest_fields::Hasher::new(eleven_semantics::digest_fields::Algorithm::Sha256);
        hasher.update(&good.content);
        <[u8; 32]>::try_from(hasher.finish().value).unwrap()
    };
    for (what, segments, cuts, chunked, sha256) in [
        ("one", 1, vec![], false, None),
        ("cut", 1, vec![1_500_000, 2_000_000], false, None),
        ("shared", 3, vec![], false, None),
        ("shared-cut", 4, vec![100_000, 1_300_000], false, None),
        ("chunked", 1, vec![], true, None),
        ("proven", 1, vec![1_500_000], false, Some(digest)),
        ("proven-shared", 3, vec![], false, Some(digest)),
    ] {
        let place = Place::new(&format!("large-{what}"));
        let server = Server::new(Behaviour { cuts, chunked, ..good.clone() }).await;
        let options = Options { segments: Segments::Fixed(segments), sha256, ..quick() };
        let (result, notes) = get(&server, &place, options).await;
        let done = result.unwrap_or_else(|failure| panic!("{what}: {failure} {notes:?}"));
        assert!(place.read("file.bin") == good.content, "{what}");
        assert_eq!((done.bytes, done.received), (length as u64, length as u64), "{what}: nothing twice");
        assert_eq!(!done.verified.is_empty(), sha256.is_some(), "{what}");
        assert_eq!(place.names(), ["file.bin"], "{what}");
    }
}

/// What cannot fit is refused before it is fetched, with what to do about it.
/// Fault F11.
#[tokio::test(flavor = "local")]
async fn a_file_that_cannot_fit_is_refused() {
    let place = Place::new("room");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut octets = [0; 4096];
        let _ = socket.read(&mut octets).await;
        let head = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 4611686018427387904\r\n\r\nbegin";
        let _ = socket.write_all(head.as_bytes()).await;
        let _ = socket.read(&mut octets).await;
    });
    let uri = Uri::parse(format!("http://127.0.0.1:{port}/f").as_bytes()).unwrap().0;
    let (result, _) = get_all(vec![uri], &place.0, Naming::Fixed("f".into()), quick()).await;
    let failure = result.unwrap_err();
    assert!(matches!(failure.cause, Cause::Io(std::io::ErrorKind::StorageFull, _)), "{failure}");
    assert!(failure.advice().is_some() && failure.to_string().contains("there is room for"), "{failure}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

/// A cancelled run keeps what it has.
#[tokio::test(flavor = "local")]
async fn cancelling_parks_the_part() {
    let place = Place::new("cancel");
    let server = Server::new(Behaviour { throttle: Some(4_000), ..Behaviour::good(400_000) }).await;
    let cancel = Rc::new(Notify::new());
    let stop = cancel.clone();
    let progress: Progress = Rc::new(move |event| {
        if matches!(event, Event::Here(here) if *here > 50_000) {
            stop.notify_one();
        }
    });
    let task = Task {
        uris: vec![server.uri()],
        ask: Box::new(|uri| Ask::get(uri.clone())),
        directory: Directory::open(&place.0).unwrap(),
        naming: Naming::Fixed("f".into()),
        options: quick(),
        line: None,
    };
    let result = run(agent(), task, progress, cancel).await;
    assert_eq!(result.unwrap_err().cause, Cause::Cancelled);
    assert_eq!(place.names(), ["f.eleven-journal", "f.eleven-part"]);
    let (result, _) = get_all(
        vec![server.uri()],
        &place.0,
        Naming::Fixed("f".into()),
        Options { resume: true, segments: Segments::Fixed(8), ..quick() },
    )
    .await;
    let done = result.unwrap();
    assert!(done.resumed > 50_000 && done.resumed + done.received == 400_000, "{done:?}");
    assert!(place.read("f") == content_of(1, 400_000));
}

/// Faults G17 and G21 through the whole way: a decoded download is whole or not there.
#[tokio::test(flavor = "local")]
async fn decoded_downloads() {
    use std::io::Write;
    let plain = b"text that compresses. ".repeat(5000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&plain).unwrap();
    let gzip = encoder.finish().unwrap();
    let coded = |content: Vec<u8>| Behaviour {
        content,
        more: "Content-Encoding: gzip\r\n".into(),
        ..Behaviour::good(0)
    };
    for (what, content, decode, expected) in [
        ("good", gzip.clone(), true, Some(plain.clone())),
        ("raw", gzip.clone(), false, Some(gzip.clone())),
        ("cut", gzip[..gzip.len() - 1].to_vec(), true, None),
        ("junk", [&gzip[..], b"junk"].concat(), true, None),
    ] {
        let place = Place::new(&format!("decode-{what}"));
        let server = Server::new(coded(content)).await;
        let (result, _) = get(&server, &place, Options { decode, ..quick() }).await;
        match expected {
            Some(expected) => {
                assert!(result.is_ok(), "{what}: {result:?}");
                assert!(place.read("file.bin") == expected, "{what}");
            }
            None => {
                assert!(matches!(result.unwrap_err().cause, Cause::Coding(_)), "{what}");
                assert!(place.names().is_empty(), "{what}: {:?}", place.names());
            }
        }
        let asked = server.requests.borrow()[0].contains("Accept-Encoding: gzip, deflate, br, zstd");
        assert_eq!(asked, decode, "{what}");
    }
}

/// `--segments auto` uses the whole line, and leaves a fast one alone.
#[tokio::test(start_paused = true)]
async fn the_ramp_rises_where_it_helps() {
    // Octets per second by number of connections, octets altogether; the number it comes to.
    for (what, speed, total, expected) in [
        ("limited per connection", (|n| n as f64 * 1e6) as fn(usize) -> f64, 100e6, 16),
        ("a full line", |_| 10e6, 100e6, 16),
        ("done in a moment", |_| 1e9, 500e6, 1),
        ("a stalled start", |n| if n == 1 { 0.0 } else { 1e6 }, 20e6, 16),
    ] {
        let mut ramp = Ramp::new(true);
        let (mut received, mut wanted) = (0.0, 1);
        while received < total {
            wanted = ramp.wanted(received as u64, (total - received) as u64, clock::now(), 16);
            tokio::time::sleep(Duration::from_millis(100)).await;
            received += speed(wanted) * 0.1;
        }
        assert_eq!(wanted, expected, "{what}");
    }
    assert_eq!(Ramp::new(false).wanted(0, 1, clock::now(), 4), 4);
}
