//! Servers that are killed and restarted in turn while requests run: nothing that may be repeated fails, nothing else
//! is done twice. `REQUESTS=100000 cargo test -p eleven-server --lib killed` is the long form. And servers that active
//! checks take out of service.

use super::*;
use std::collections::HashMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

/// A server that can be killed: its listener and all its connections go at once, as with a killed process. On a Unix
/// socket, whose name nobody else takes in between.
struct Mortal {
    path: PathBuf,
    alive: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<UnixStream>>>,
    done: Arc<Mutex<HashMap<String, u32>>>,
}

impl Mortal {
    fn new(done: Arc<Mutex<HashMap<String, u32>>>) -> Mortal {
        let name =
            format!("eleven-mortal-{:016x}", u64::from_ne_bytes(eleven_net::random::bytes::<8>().unwrap()));
        let path = std::env::temp_dir().join(name);
        let mortal = Mortal { path, alive: Arc::default(), connections: Arc::default(), done };
        mortal.restart();
        mortal
    }

    fn plan(&self) -> ServerPlan {
        ServerPlan { place: Place::Unix(self.path.clone()), ..ServerPlan::tcp("", 80) }
    }

    fn run(&self, listener: UnixListener) {
        self.alive.store(true, Ordering::SeqCst);
        let (alive, connections, done) = (self.alive.clone(), self.connections.clone(), self.done.clone());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if !alive.load(Ordering::SeqCst) {
                    return;
                }
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                let done = done.clone();
                std::thread::spawn(move || serve(stream, &done));
            }
        });
    }

    fn kill(&self) {
        self.alive.store(false, Ordering::SeqCst);
        // Wakes the accepting thread, which drops the listener.
        let _ = UnixStream::connect(&self.path);
        let _ = std::fs::remove_file(&self.path);
        for stream in self.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn restart(&self) {
        let listener = UnixListener::bind(&self.path).unwrap();
        self.run(listener);
    }
}

fn serve(stream: UnixStream, done: &Mutex<HashMap<String, u32>>) {
    let mut reader = Reader::new(stream);
    while let Ok(request) = reader.request() {
        if request.method == "POST" {
            *done.lock().unwrap().entry(request.target).or_insert(0) += 1;
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        if reader.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}

/// 9110-9.2.2-02; faults F08, K44.
#[test]
fn killed_servers_fail_no_idempotent_request_and_double_no_other() {
    let done: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    let servers = [Mortal::new(done.clone()), Mortal::new(done.clone()), Mortal::new(done.clone())];
    let mut with = GatewayPlan::new(servers.iter().map(Mortal::plan).collect(), "me");
    with.ejection.first_ms = 20;
    with.ejection.longest_ms = 50;
    let front = Front::gateway(with);
    let requests = std::env::var("REQUESTS").map_or(3200, |count| count.parse::<u32>().unwrap());
    let (running, failed, answered) = (AtomicBool::new(true), AtomicU16::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for client in 0..8 {
            let (front, failed, answered) = (&front, &failed, &answered);
            clients.push(scope.spawn(move || {
                let mut reader = Reader::new(front.connect());
                for n in 0..requests / 8 {
                    let method = ["GET", "PUT", "GET", "DELETE", "POST"][n as usize % 5];
                    let post = method == "POST";
                    let content =
                        if post || method == "PUT" { "Content-Length: 2\r\n\r\nhi" } else { "\r\n" };
                    let wire = format!("{method} /{client}/{n} HTTP/1.1\r\nHost: h\r\n{content}");
                    reader.get_mut().write_all(wire.as_bytes()).unwrap();
                    let response = reader.response(method).unwrap();
                    assert!(matches!(response.status, 200 | 502), "{}", response.status);
                    if response.status != 200 && !post {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    if response.says_close() {
                        reader = Reader::new(front.connect());
                    }
                }
            }));
        }
        let (servers, running, answered) = (&servers, &running, &answered);
        let killer = scope.spawn(move || {
            for turn in 0.. {
                if !running.load(Ordering::Relaxed) {
                    break;
                }
                let before = answered.load(Ordering::Relaxed);
                let server = &servers[turn % servers.len()];
                server.kill();
                server.restart();
                // As often as so many requests, not as so much time: a slow machine is no other test.
                while answered.load(Ordering::Relaxed) < before + 50 && running.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
        });
        let results: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        running.store(false, Ordering::Relaxed);
        killer.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0, "idempotent requests failed");
    let done = done.lock().unwrap();
    let twice: Vec<_> = done.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "done twice: {twice:?}");
    assert_eq!(answered.load(Ordering::Relaxed), requests / 8 * 8);
    // Most of them were done: a server rarely dies over one.
    assert!(done.len() as u32 > requests / 10, "{}", done.len());
    eprintln!(
        "{requests} requests, {} of {} not idempotent done, 0 failed or doubled",
        done.len(),
        requests / 5
    );
    for server in &servers {
        server.kill();
    }
}

#[test]
fn checks_take_servers_out_and_bring_them_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let healthy = Arc::new(AtomicBool::new(true));
    let state = healthy.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let state = state.clone();
            std::thread::spawn(move || {
                let mut reader = Reader::new(stream);
                while let Ok(request) = reader.request() {
                    let good = request.target != "/health" || state.load(Ordering::SeqCst);
                    let status = if good { "200 OK" } else { "500 Internal Server Error" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                    if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut with = plan(&[port]);
    with.health = Some(HealthPlan { interval_ms: 5, path: "/health".into(), ..HealthPlan::default() });
    let front = Front::gateway(with);
    let until = |status: u16| {
        let begun = std::time::Instant::now();
        while get(&front, "/").status != status {
            assert!(begun.elapsed() < Duration::from_secs(20), "never {status}");
        }
    };
    until(200);
    healthy.store(false, Ordering::SeqCst);
    until(503);
    assert_eq!(get(&front, "/").field("proxy-status"), Some("me; error=destination_unavailable"));
    healthy.store(true, Ordering::SeqCst);
    until(200);
}
