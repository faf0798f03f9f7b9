//! `eleven get` with many URLs: pipelines over several connections and what becomes of them when a server closes early, an
//! interrupt, names that meet.

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use support::{Folder, eleven_get, read_head};

/// The path of the next request; nothing at the end of the connection.
fn next_path(socket: &mut TcpStream) -> Option<String> {
    read_head(socket)?.split(' ').nth(1).map(str::to_owned)
}

/// What a server saw: for each connection, the paths in their order.
type Seen = Arc<Mutex<Vec<Vec<String>>>>;

/// A server that answers each request with its path, `answers` times on a connection, then closes without a word.
fn server(answers: usize) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen: Seen = Arc::default();
    let told = Arc::clone(&seen);
    std::thread::spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            let Ok(mut socket) = socket else { return };
            let told = Arc::clone(&told);
            told.lock().unwrap().push(Vec::new());
            std::thread::spawn(move || {
                for _ in 0..answers {
                    let Some(path) = next_path(&mut socket) else { return };
                    told.lock().unwrap()[number].push(path.clone());
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                    if socket.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, seen)
}

fn list(place: &Folder, port: u16, count: usize) -> PathBuf {
    let path = place.path().join("list");
    let urls: String = (0..count).map(|n| format!("http://127.0.0.1:{port}/f{n:03}\n")).collect();
    std::fs::write(&path, urls).unwrap();
    path
}

/// 9112-9.3.2-01, 9112-9.3.2-03, 9112-9.3.2-04: whatever the server answers before it closes, every file is right; what was not
/// answered is asked for again, and a new connection is asked once before anything is sent ahead on it.
#[test]
fn pipelines_fall_back_when_a_server_closes_early() {
    for (answers, parallel, most) in
        [(1000, "1", 1), (1000, "4", 4), (7, "1", 40), (2, "3", 120), (1, "2", 120)]
    {
        let place = Folder::new();
        let (port, seen) = server(answers);
        let list = list(&place, port, 60);
        let out = place.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let output = eleven_get()
            .args(["-O", "--retry-delay", "0.001", "--pipeline", "8", "--parallel", parallel, "--output-dir"])
            .arg(&out)
            .arg("--urls-from")
            .arg(&list)
            .output()
            .unwrap();
        assert!(output.status.success(), "{answers}: {}", String::from_utf8_lossy(&output.stderr));
        for n in 0..60 {
            let name = format!("f{n:03}");
            assert_eq!(std::fs::read_to_string(out.join(&name)).unwrap(), format!("/{name}"), "{answers}");
        }
        let seen = seen.lock().unwrap();
        assert!(seen.len() <= most, "{answers}: {} connections", seen.len());
        let mut times: HashMap<&String, usize> = HashMap::new();
        seen.iter().flatten().for_each(|path| *times.entry(path).or_default() += 1);
        assert_eq!(times.len(), 60);
        // A server that stays is asked for everything once.
        assert!(answers < 1000 || times.values().all(|&n| n == 1), "{times:?}");
    }
}

/// An interrupt ends what runs and begins nothing more.
#[test]
fn an_interrupt_ends_a_long_list() {
    let place = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new((Mutex::new(0), Condvar::new()));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let _ = next_path(&mut socket);
            held.push(socket); // never answered
            *count.0.lock().unwrap() += 1;
            count.1.notify_all();
        }
    });
    let list = list(&place, port, 50);
    let mut child = eleven_get()
        .args(["-O", "-q", "--parallel", "2", "--output-dir"])
        .arg(place.path())
        .arg("--urls-from")
        .arg(&list)
        .spawn()
        .unwrap();
    let both = asked.1.wait_while(asked.0.lock().unwrap(), |asked| *asked < 2).unwrap();
    drop(both);
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(*asked.0.lock().unwrap(), 2, "nothing was begun after the interrupt");
    assert_eq!(place.names(), ["list"]);
}

/// Fault K24: the same remote name from several URLs at once, with and without pipelining.
#[test]
fn names_that_meet_are_numbered() {
    for more in [&[][..], &["--pipeline", "8"]] {
        let place = Folder::new();
        let (port, _) = server(1000);
        let urls: Vec<String> = (0..12).map(|n| format!("http://127.0.0.1:{port}/{n}/f.txt")).collect();
        let output = eleven_get()
            .args(["-O", "--rename", "--output-dir"])
            .arg(place.path())
            .args(more)
            .args(&urls)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let names = place.names();
        assert_eq!(names.len(), 12, "{names:?}");
        let mut contents: Vec<String> =
            names.iter().map(|name| std::fs::read_to_string(place.path().join(name)).unwrap()).collect();
        contents.sort();
        let mut expected: Vec<String> = (0..12).map(|n| format!("/{n}/f.txt")).collect();
        expected.sort();
        assert_eq!(contents, expected);
    }
}
