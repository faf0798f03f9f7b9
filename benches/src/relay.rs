//! A line between a client and a server: octets arrive late, or not faster than the line is wide. For comparisons of wall
//! time; what it costs itself is on the load's core. Knows no HTTP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a line does to octets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// How late they arrive, each way.
    pub delay: Duration,
    /// How many pass in a second from the server to all clients together.
    pub bytes_per_s: Option<u64>,
}

/// Octets on the line at most, each way of each connection: what a window of TCP would be.
const WINDOW_PIECES: usize = 64;
const PIECE_BYTES: usize = 64 * 1024;

/// A running relay. Its threads end with the process.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
}

impl Relay {
    /// Relays to `port` on loopback.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start(port: u16, link: Link) -> io::Result<Relay> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let free_at = Arc::new(Mutex::new(Instant::now()));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                for socket in [&client, &server] {
                    let _ = socket.set_nodelay(true);
                }
                let (Ok(from_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                one_way(from_client, to_server, link.delay, None);
                one_way(
                    server,
                    client,
                    link.delay,
                    link.bytes_per_s.map(|rate| (rate, Arc::clone(&free_at))),
                );
            }
        });
        Ok(Relay { address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// One direction: a thread reads and stamps, another writes when the time has come.
fn one_way(
    mut from: TcpStream,
    mut to: TcpStream,
    delay: Duration,
    rate: Option<(u64, Arc<Mutex<Instant>>)>,
) {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(WINDOW_PIECES);
    std::thread::spawn(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Ok(count) = from.read(&mut buffer) {
            let sent = match &rate {
                None => Instant::now(),
                Some((bytes_per_s, free_at)) => {
                    let mut free_at = free_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    let took = Duration::from_secs_f64(count as f64 / *bytes_per_s as f64);
                    *free_at = (*free_at).max(Instant::now()) + took;
                    *free_at
                }
            };
            if sender.send((sent + delay, buffer[..count].to_vec())).is_err() || count == 0 {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        while let Ok((due, octets)) = receiver.recv() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if octets.is_empty() || to.write_all(&octets).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
