//! Records, heads and scripts; and whole exchanges with FastCGI servers that do what a test says.

use super::*;
use eleven_net::pipe::Next;

#[test]
fn lengths_of_pairs() {
    let mut out = Vec::new();
    push_pair(&mut out, b"AB", &[b'x'; 127]);
    assert_eq!(out[..4], [2, 127, b'A', b'B']);
    out.clear();
    push_pair(&mut out, b"A", &[b'x'; 128]);
    assert_eq!(out[..6], [1, 0x80, 0, 0, 128, b'A']);
}

#[test]
fn requests_open_with_all_variables() {
    let opened = opening(&[7; 40_000], false);
    assert_eq!(opened[..16], [1, BEGIN, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(opened[16..24], [1, PARAMS, 0, 1, 0x80, 0, 0, 0]);
    assert_eq!(opened[opened.len() - 8..], [1, PARAMS, 0, 1, 0, 0, 0, 0]);
    assert_eq!(opening(b"", true)[10], 1, "the connection is to be kept");
    assert_eq!(opened.len(), 16 + 8 + 32_768 + 8 + 7_232 + 8);
}

#[test]
fn records() {
    let mut input = Vec::new();
    push_record(&mut input, STDOUT, b"hello");
    // Padding, and a record of another request.
    input.extend_from_slice(&[1, STDERR, 0, 1, 0, 1, 3, 0, b'e', 0, 0, 0]);
    input.extend_from_slice(&[1, STDOUT, 0, 9, 0, 1, 0, 0, b'x']);
    push_record(&mut input, END, &[0, 0, 0, 0, 0, 0, 0, 0]);
    for step in [1, input.len()] {
        let (mut buffer, mut records) = (BytesMut::new(), Vec::new());
        for part in input.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(found) = record(&mut buffer).unwrap() {
                records.push(found);
            }
        }
        let expected = [
            Record::Out(Bytes::from_static(b"hello")),
            Record::Err(Bytes::from_static(b"e")),
            Record::End(Ok(())),
        ];
        assert_eq!(records, expected);
    }
    let mut bad = BytesMut::from(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..]);
    assert!(record(&mut bad).is_err());
    let mut overloaded = BytesMut::from(&[1, END, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0][..]);
    assert_eq!(record(&mut overloaded), Ok(Some(Record::End(Err("it is overloaded")))));
    let mut short = BytesMut::from(&[1, END, 0, 1, 0, 1, 0, 0, 0][..]);
    assert!(record(&mut short).is_err());
}

#[test]
fn heads_as_cgi_has_them() {
    let read =
        |text: &str| cgi_head(text.as_bytes()).map(|head| head.map(|(at, head)| (at, head.status.code())));
    assert_eq!(read("Content-type: text/html\r\n\r\nbody"), Ok(Some((27, 200))));
    assert_eq!(read("Status: 404 Not Found\nX: y\n\n"), Ok(Some((28, 404))));
    assert_eq!(read("Location: /a\r\n\r\n"), Ok(Some((16, 302))));
    assert_eq!(read("Status: 301\r\nLocation: /a\r\n\r\n"), Ok(Some((29, 301))));
    assert_eq!(read("\n"), Ok(Some((1, 200))));
    assert_eq!(read("Content-type: text/html\r\n"), Ok(None));
    for bad in [
        "no field\r\n\r\n",
        "Status: 99\r\n\r\n",
        "Status: 100 Continue\r\n\r\n",
        "Status: 2000\r\n\r\n",
        "bad name: x\r\n\r\n",
        "X: a\rb\r\n\r\n",
        "Content-Length: +5\r\n\r\n",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    assert!(cgi_head(&vec![b'x'; SECTION_BYTES_MAX + 1]).is_err());
    let (_, head) =
        cgi_head(b"Transfer-Encoding: chunked\nConnection: close\nContent-Length: 7\n\n").unwrap().unwrap();
    assert_eq!((head.fields.len(), head.content_length), (0, Some(7)));
}

/// An upload is not a script, and a script's source is not a file (faults of `cgi.fix_pathinfo`).
#[test]
fn which_script_answers() {
    let folder = std::env::temp_dir().join(format!("eleven-scripts-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("admin.php")).unwrap();
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    for name in ["index.php", "sub/info.php", "evil.jpg"] {
        std::fs::write(folder.join(name), "<?php").unwrap();
    }
    let settings = FastCgiSettings::new(FastCgiAddress::Unix("/nowhere".into()), &folder);
    let root = Root::open_directory(&folder, Default::default()).unwrap();
    let fastcgi = FastCgi::new(Arc::new(settings), Arc::new(root), None);
    let script = |path: &str| fastcgi.script(path.as_bytes());
    let is = |name: &str, rest: &str| Some(Script { name: name.into(), path_info: rest.into() });
    assert_eq!(script("/sub/info.php"), is("/sub/info.php", ""));
    assert_eq!(script("/sub/info.php/a/b.php"), is("/sub/info.php", "/a/b.php"));
    assert_eq!(script("/index.php"), is("/index.php", ""));
    for none in ["/", "/evil.jpg/x.php", "/missing.php", "/admin.php", "/sub/info.phpx", "/sub/info.PHP"] {
        assert_eq!(script(none), None, "{none}");
    }
    assert_eq!(fastcgi.index(), is("/index.php", ""));
    assert!(holds_script_name(b"/a/info.PHP/x", b".php"));
    assert!(!holds_script_name(b"/a/php/x.css", b".php"));
    std::fs::remove_dir_all(&folder).unwrap();
}

// -- exchanges ------------------------------------------------------------------------------------------

/// What a FastCGI server does with one connection, one step after the other.
#[derive(Clone)]
enum Step {
    /// Reads a whole request, up to the end of its content.
    Read,
    /// Sends a whole response with this content, and the end of the request.
    Answer(&'static str),
    /// Sends these octets.
    Send(Vec<u8>),
}

fn end() -> Vec<u8> {
    let mut out = Vec::new();
    push_record(&mut out, END, &[0; 8]);
    out
}

fn out(content: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_record(&mut out, STDOUT, content.as_bytes());
    out
}

/// Reads records up to the empty one of the content; returns the flags of the beginning.
async fn read_request(stream: &mut UnixStream) -> Option<u8> {
    let mut flags = 0;
    loop {
        let mut head = [0; HEAD_BYTES];
        stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let mut content = vec![0; length];
        stream.read_exact(&mut content).await.ok()?;
        match head[1] {
            BEGIN => flags = content[2],
            STDIN if length == 0 => return Some(flags),
            _ => {}
        }
    }
}

/// A FastCGI server that treats its first connection as the first script says, and so on.
struct Peer {
    server: Server,
    /// Connections that were made, and flags of the requests that were read.
    connections: Rc<std::cell::Cell<usize>>,
    flags: Rc<std::cell::RefCell<Vec<u8>>>,
    /// Told when a script is over, which closes its connection.
    closed: tokio::sync::mpsc::UnboundedReceiver<usize>,
    path: std::path::PathBuf,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Peer {
    fn new(idle_per_thread_max: usize, scripts: Vec<Vec<Step>>) -> Peer {
        static PEERS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = PEERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("eleven-fastcgi-{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let settings = FastCgiSettings {
            response_timeout_ms: 60_000,
            idle_per_thread_max,
            idle_timeout_ms: 10_000,
            ..FastCgiSettings::new(FastCgiAddress::Unix(path.clone()), "/srv")
        };
        let kept = Rc::new(Kept::new(settings.idle_per_thread_max, settings.idle_timeout_ms));
        let (connections, flags) = (Rc::default(), Rc::default());
        let (closing, closed) = tokio::sync::mpsc::unbounded_channel();
        let peer = Peer {
            server: Server { settings: Arc::new(settings), kept },
            connections: Rc::clone(&connections),
            flags: Rc::clone(&flags),
            closed,
            path,
        };
        tokio::task::spawn_local(async move {
            for (number, script) in scripts.into_iter().enumerate() {
                let Ok((stream, _)) = listener.accept().await else { return };
                connections.set(connections.get() + 1);
                let (flags, closing) = (Rc::clone(&flags), closing.clone());
                tokio::task::spawn_local(async move {
                    play(stream, script, &flags).await;
                    let _ = closing.send(number);
                });
            }
        });
        peer
    }

    /// Asks with this method; the status, and the content.
    async fn ask(&self, method: &Method) -> (u16, String) {
        let asked = Asked {
            params: Bytes::from_static(b"\x01\x01AB"),
            is_head: *method == Method::Head,
            is_idempotent: method.is_idempotent(),
        };
        let response = exchange(self.server.clone(), asked, None).await;
        let content = match response.content {
            Content::Bytes(octets) => octets.to_vec(),
            Content::Pipe(mut reader, _) => {
                let mut all = Vec::new();
                loop {
                    match reader.next().await {
                        Next::Data(octets) => all.extend_from_slice(&octets),
                        Next::Complete(_) => break all,
                        Next::Aborted(why) => panic!("{why:?}"),
                    }
                }
            }
            _ => Vec::new(),
        };
        (response.status.code(), String::from_utf8(content).unwrap())
    }

    async fn get(&self) -> (u16, String) {
        self.ask(&Method::Get).await
    }

    /// Waits until a connection was closed by the peer.
    async fn closed(&mut self) {
        self.closed.recv().await.unwrap();
    }
}

async fn play(mut stream: UnixStream, script: Vec<Step>, flags: &std::cell::RefCell<Vec<u8>>) {
    for step in script {
        let octets = match step {
            Step::Read => match read_request(&mut stream).await {
                Some(read) => {
                    flags.borrow_mut().push(read);
                    continue;
                }
                None => return,
            },
            Step::Answer(content) => [out("Content-Type: text/plain\r\n\r\n"), out(content), end()].concat(),
            Step::Send(octets) => octets,
        };
        if stream.write_all(&octets).await.is_err() {
            return;
        }
    }
}

/// Runs a test in time that passes only while nothing else is to be done.
fn simulated(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(test);
}

fn ok(content: &str) -> (u16, String) {
    (200, content.to_owned())
}

/// Without being asked to, nothing is kept, and the server is told so.
#[test]
fn each_request_has_its_connection_unless_some_are_kept() {
    simulated(async {
        let script = vec![Step::Read, Step::Answer("one")];
        let peer = Peer::new(0, vec![script.clone(), script]);
        assert_eq!((peer.get().await, peer.get().await), (ok("one"), ok("one")));
        assert_eq!((peer.connections.get(), &*peer.flags.borrow()), (2, &vec![0, 0]));
        let script = vec![Step::Read, Step::Answer("one"), Step::Read, Step::Answer("two"), Step::Read];
        let peer = Peer::new(1, vec![script]);
        assert_eq!((peer.get().await, peer.get().await), (ok("one"), ok("two")));
        assert_eq!((peer.connections.get(), &*peer.flags.borrow()), (1, &vec![1, 1]));
        assert_eq!(peer.server.kept.len(), 1);
    });
}

/// As many as were asked for, and only as long.
#[test]
fn kept_connections_have_limits() {
    simulated(async {
        let script = vec![Step::Read, Step::Answer("x"), Step::Read];
        let mut peer = Peer::new(2, vec![script; 3]);
        let (a, b, c) = tokio::join!(peer.get(), peer.get(), peer.get());
        assert_eq!([a, b, c], [ok("x"), ok("x"), ok("x")]);
        assert_eq!((peer.connections.get(), peer.server.kept.len()), (3, 2));
        peer.closed().await;
        tokio::time::sleep(Duration::from_millis(9_000)).await;
        assert_eq!(peer.server.kept.len(), 2);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(peer.server.kept.len(), 0);
        peer.closed().await;
        peer.closed().await;
    });
}

/// A kept connection that the server closes, at whatever moment, costs no request that may be repeated.
#[test]
fn a_kept_connection_may_be_closed_at_any_time() {
    let first = || vec![Step::Read, Step::Answer("one")];
    let again = || vec![Step::Read, Step::Answer("again")];
    for (closes, repeated) in [
        // While it lies idle.
        (first(), true),
        // When the next request has come.
        ([first(), vec![Step::Read]].concat(), true),
        // After something of the answer: no one knows what it meant.
        ([first(), vec![Step::Read, Step::Send(vec![1])]].concat(), false),
        ([first(), vec![Step::Read, Step::Send(out("Content-Ty"))]].concat(), false),
        ([first(), vec![Step::Read, Step::Send(b"HTTP/1.1 ".to_vec())]].concat(), false),
    ] {
        simulated(async {
            let steps = closes.len();
            let mut peer = Peer::new(1, vec![closes, again()]);
            assert_eq!(peer.get().await, ok("one"));
            if steps == 2 {
                peer.closed().await;
            }
            let second = peer.get().await;
            let expected = if repeated { ok("again") } else { (502, String::new()) };
            assert_eq!(second, expected, "{steps} steps");
            assert_eq!(peer.connections.get(), if repeated { 2 } else { 1 });
        });
    }
}

/// 9110-9.2.2-02: what must not be done twice goes over a new connection, and is not repeated there either.
#[test]
fn what_must_not_be_done_twice_has_a_new_connection() {
    simulated(async {
        let script = || vec![Step::Read, Step::Answer("x"), Step::Read];
        let peer = Peer::new(4, vec![script(), script(), vec![Step::Read], script()]);
        assert_eq!(peer.get().await, ok("x"));
        assert_eq!(peer.ask(&Method::Post).await, ok("x"));
        assert_eq!((peer.connections.get(), peer.server.kept.len()), (2, 2));
        assert_eq!(peer.ask(&Method::Post).await, (502, String::new()));
        assert_eq!(peer.connections.get(), 3);
    });
}

/// Only a connection on which nothing of the last request is left is kept.
#[test]
fn what_is_not_kept() {
    let head = "Content-Type: text/plain\r\n\r\n";
    let mut of_another = end();
    of_another[3] = 9;
    let mut errors = Vec::new();
    push_record(&mut errors, STDERR, b"a warning");
    let mut overloaded = Vec::new();
    push_record(&mut overloaded, END, &[0, 0, 0, 0, 2, 0, 0, 0]);
    for (name, answer, expected, kept) in [
        ("the usual", [out(head), out("x"), end()].concat(), ok("x"), true),
        ("errors are logged", [errors, out(head), out("x"), end()].concat(), ok("x"), true),
        (
            "the end of another request",
            [out(head), of_another.clone(), out("x"), end()].concat(),
            ok("x"),
            true,
        ),
        ("more after the end", [out(head), out("x"), end(), out("y")].concat(), ok("x"), false),
        ("the end of nothing", [out(head), out("x"), end(), vec![1, 3]].concat(), ok("x"), false),
        ("no response", end(), (502, String::new()), false),
        ("overloaded", overloaded, (503, String::new()), false),
        ("an interim status", [out("Status: 100 x\r\n\r\n"), end()].concat(), (502, String::new()), false),
    ] {
        simulated(async {
            let peer = Peer::new(1, vec![vec![Step::Read, Step::Send(answer), Step::Read]]);
            assert_eq!(peer.get().await, expected, "{name}");
            assert_eq!(peer.server.kept.len(), usize::from(kept), "{name}");
        });
    }
}

/// A long response is streamed; its connection is kept when it is over.
#[test]
fn streams_are_kept_when_they_end() {
    simulated(async {
        let parts: Vec<u8> = (0..16).flat_map(|_| out(&"z".repeat(30_000))).collect();
        let script = vec![
            Step::Read,
            Step::Send(out("Content-Type: text/plain\r\n\r\n")),
            Step::Send(parts),
            Step::Send(end()),
            Step::Read,
            Step::Answer("two"),
            Step::Read,
        ];
        let peer = Peer::new(1, vec![script]);
        let (status, content) = peer.get().await;
        assert_eq!((status, content.len()), (200, 30_000 * 16));
        assert_eq!(peer.get().await, ok("two"));
        assert_eq!(peer.connections.get(), 1);
    });
}

/// A server that never answers is given up; its connection is not kept and the request not repeated.
#[test]
fn a_silent_server() {
    simulated(async {
        let script = vec![Step::Read, Step::Answer("one"), Step::Read, Step::Read];
        let peer = Peer::new(1, vec![script]);
        assert_eq!(peer.get().await, ok("one"));
        assert_eq!(peer.get().await, (504, String::new()));
        assert_eq!((peer.connections.get(), peer.server.kept.len()), (1, 0));
    });
}
