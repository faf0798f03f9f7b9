//! Tunnels (RFC 9110 §3.7): octets from one connection to the other and back, unread, after CONNECT or a switch to
//! another protocol. A direction that ends is ended on the other side; the tunnel is over when both have ended, when
//! one is broken, or when nothing moved for long enough.

use crate::response::Switch;
use bytes::Bytes;
use eleven_net::stream::is_disconnect;
use eleven_net::{Stream, clock};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::time::Sleep;

/// Octets read at a time. One buffer serves all tunnels of a worker: only what the other side does not take at
/// once is kept, so that a tunnel at rest holds no memory.
const SCRATCH_BYTES: usize = 32 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Limits of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Without an octet in either direction.
    pub idle_timeout_ms: u64,
    /// The same, once one direction has ended.
    pub half_closed_timeout_ms: u64,
}

impl Default for TunnelLimits {
    fn default() -> TunnelLimits {
        TunnelLimits { idle_timeout_ms: 600_000, half_closed_timeout_ms: 60_000 }
    }
}

/// A tunnel to `inbound`, waiting for the client's connection.
pub struct Tunnel {
    /// The connection to the server.
    pub inbound: Stream,
    /// What the server has sent of the new protocol already.
    pub early: Vec<u8>,
    /// Limits.
    pub limits: TunnelLimits,
    /// Dropped when the tunnel ends: permits and counts.
    pub held: Box<dyn std::any::Any>,
}

impl Switch for Tunnel {
    fn run(self: Box<Self>, stream: Stream, received: Bytes) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let Tunnel { inbound, early, limits, held } = *self;
            let (sent, got) = relay(stream, inbound, received.into(), early, limits).await;
            tracing::debug!(to_server_bytes = sent, to_client_bytes = got, "a tunnel has ended");
            drop(held);
        })
    }
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not yet written.
    left: Vec<u8>,
    at: usize,
    ended: bool,
    /// The end was passed on, or nothing more goes this way.
    closed: bool,
    /// Why not: whom it goes to takes nothing more.
    refused: Option<io::Error>,
    moved: u64,
}

impl Way {
    fn new(left: Vec<u8>) -> Way {
        Way { left, ..Way::default() }
    }

    /// Moves what can be moved. Whether anything was; an error of reading ends the tunnel. `is_cut`: an end now is no
    /// end, but a breach that the other direction has found.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        scratch: &mut [u8],
        is_cut: bool,
    ) -> io::Result<bool> {
        let mut progress = false;
        while !self.closed {
            if self.at < self.left.len() {
                match poll_write(cx, to, &self.left[self.at..]) {
                    Err(error) => return Ok(self.refuse(error)),
                    Ok(0) => return Ok(progress),
                    Ok(count) => {
                        self.at += count;
                        self.moved += count as u64;
                        progress = true;
                    }
                }
                continue;
            }
            if !self.left.is_empty() {
                (self.left, self.at) = (Vec::new(), 0);
            }
            if self.ended && is_cut {
                self.closed = true;
                return Ok(true);
            }
            if self.ended {
                match to.poll_shutdown_write(cx) {
                    Poll::Pending => return Ok(progress),
                    Poll::Ready(Err(error)) => return Ok(self.refuse(error)),
                    Poll::Ready(Ok(())) => self.closed = true,
                }
                return Ok(true);
            }
            let count = match from.poll_read(cx, scratch) {
                Poll::Pending => return Ok(progress),
                Poll::Ready(result) => result?,
            };
            progress = true;
            if count == 0 {
                self.ended = true;
                continue;
            }
            let written = match poll_write(cx, to, &scratch[..count]) {
                Err(error) => return Ok(self.refuse(error)),
                Ok(written) => written,
            };
            self.moved += written as u64;
            if written < count {
                self.left.extend_from_slice(&scratch[written..count]);
            }
        }
        Ok(progress)
    }

    fn was_reset(&self) -> bool {
        self.refused.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
    }

    /// Nothing more goes this way. What the other end had sent before it closed still goes back (9110-9.3.6-04).
    fn refuse(&mut self, error: io::Error) -> bool {
        (self.left, self.at) = (Vec::new(), 0);
        self.closed = true;
        self.refused = Some(error);
        true
    }
}

/// Writes what goes at once; 0 means that the task will be woken.
fn poll_write(cx: &mut Context<'_>, to: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match to.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match to.poll_write_ready(cx) {
                Poll::Pending => return Ok(0),
                Poll::Ready(ready) => ready?,
            },
            result => return result,
        }
    }
}

/// Relays until the tunnel is over; octets moved from the client to the server, and back.
pub async fn relay(
    mut client: Stream,
    mut server: Stream,
    from_client: Vec<u8>,
    from_server: Vec<u8>,
    limits: TunnelLimits,
) -> (u64, u64) {
    let (mut forth, mut back) = (Way::new(from_client), Way::new(from_server));
    let mut idle = Idle::new(limits.idle_timeout_ms);
    let result: io::Result<()> = poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            if scratch.is_empty() {
                scratch.resize(SCRATCH_BYTES, 0);
            }
            let mut moved = forth.poll(cx, &mut client, &mut server, scratch, back.was_reset())?;
            moved |= back.poll(cx, &mut server, &mut client, scratch, forth.was_reset())?;
            if forth.closed && back.closed {
                let refused = forth.refused.take().or(back.refused.take());
                return Poll::Ready(refused.map_or(Ok(()), Err));
            }
            if moved {
                let half = forth.ended || back.ended || forth.closed || back.closed;
                idle.moved(if half { limits.half_closed_timeout_ms } else { limits.idle_timeout_ms });
            }
            idle.poll(cx).map(Ok)
        })
    })
    .await;
    if let Err(error) = result {
        // Whoever still lives must not take what it got for whole (faults R12, R18).
        if !is_disconnect(&error) || error.kind() == io::ErrorKind::ConnectionReset {
            let _ = client.set_linger_reset();
            let _ = server.set_linger_reset();
        }
        tracing::debug!(%error, "a tunnel broke");
    }
    (forth.moved, back.moved)
}

/// Rings of the timer in an idle limit: a tunnel ends after the limit, and not later than one part of it beyond.
const RINGS: u32 = 8;

/// The idle limit. Octets that move cost a store: the clock is read, and the timer asked, only when it rings.
struct Idle {
    limit_ms: u64,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes.
    waker: Option<Waker>,
    /// Something moved since it rang last.
    moved: bool,
    /// Rings without.
    quiet: u32,
}

impl Idle {
    fn new(limit_ms: u64) -> Idle {
        Idle { limit_ms, sleep: None, waker: None, moved: false, quiet: 0 }
    }

    /// Something moved; from now on this is the limit.
    fn moved(&mut self, limit_ms: u64) {
        if self.limit_ms == limit_ms {
            self.moved = true;
        } else {
            *self = Idle::new(limit_ms);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let step = || clock::deadline(clock::now(), (self.limit_ms / u64::from(RINGS)).max(1));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(step())));
        if !sleep.is_elapsed() && self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        while sleep.as_mut().poll(cx).is_ready() {
            self.quiet = if std::mem::take(&mut self.moved) { 0 } else { self.quiet + 1 };
            if self.quiet >= RINGS {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(step());
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eleven_net::memory::{Link, duplex};
    use std::time::Duration;
    use tokio::time::Instant;

    fn pair(seed: u64, link: &Link) -> (Stream, Stream) {
        let (a, b) = duplex(seed, link.clone(), link.clone());
        (Stream::Memory(Box::new(a)), Stream::Memory(Box::new(b)))
    }

    async fn read_all(stream: &mut Stream) -> io::Result<Vec<u8>> {
        let (mut got, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            match stream.read(&mut buffer).await? {
                0 => return Ok(got),
                count => got.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// 9110-9.3.6-04: what came before an end is delivered. Half-close passes, in both directions, in any weather, and nothing is lost or added.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn octets_and_ends_pass_both_ways() {
        for seed in 0..20 {
            let (mut client, outer) = pair(seed, &Link::rough());
            let (mut server, inner) = pair(seed + 99, &Link::rough());
            let relay = tokio::task::spawn_local(relay(
                outer,
                inner,
                b"early-c".to_vec(),
                b"early-s".to_vec(),
                TunnelLimits::default(),
            ));
            let up: Vec<u8> = (0..30_000u32).map(|i| (i / 3) as u8).collect();
            let down: Vec<u8> = (0..50_000u32).map(|i| (i / 5) as u8).collect();
            let (up_sent, down_sent) = (up.clone(), down.clone());
            let server = tokio::task::spawn_local(async move {
                let got = read_all(&mut server).await.unwrap();
                // The client has ended; the answer still goes back.
                server.write_all(&down_sent).await.unwrap();
                server.shutdown_write().await.unwrap();
                got
            });
            client.write_all(&up_sent).await.unwrap();
            client.shutdown_write().await.unwrap();
            assert!(read_all(&mut client).await.unwrap() == [b"early-s", &down[..]].concat());
            assert!(server.await.unwrap() == [b"early-c", &up[..]].concat());
            assert_eq!(relay.await.unwrap(), (up.len() as u64 + 7, down.len() as u64 + 7));
        }
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_reset_is_passed_on_as_a_reset() {
        let (client, outer) = pair(1, &Link::default());
        let (mut server, inner) = pair(2, &Link::default());
        let mut client = client;
        let task = tokio::task::spawn_local(relay(outer, inner, vec![], vec![], TunnelLimits::default()));
        server.write_all(b"half").await.unwrap();
        let mut buffer = [0; 9];
        assert_eq!(client.read(&mut buffer).await.unwrap(), 4);
        server.set_linger_reset().unwrap();
        drop(server);
        assert_eq!(client.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(task.await.unwrap(), (0, 4));
    }

    /// 9110-9.3.6-04: what a server sent before it went arrives, though it takes nothing more, and that is found out
    /// first; then the client sees that it was broken off.
    #[tokio::test(flavor = "local")]
    async fn last_words_arrive() {
        for from_client in [&b""[..], b"more"] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (inner, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
            let (inner, mut server) = (Stream::Tcp(inner.unwrap()), Stream::Tcp(accepted.unwrap().0));
            server.write_all(b"last words").await.unwrap();
            server.set_linger_reset().unwrap();
            drop(server);
            let (client, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
            let (mut client, outer) = (Stream::Tcp(client.unwrap()), Stream::Tcp(accepted.unwrap().0));
            client.write_all(b"and more").await.unwrap();
            relay(outer, inner, from_client.to_vec(), vec![], TunnelLimits::default()).await;
            let (mut got, mut buffer) = (Vec::new(), [0; 99]);
            let end = loop {
                match client.read(&mut buffer).await {
                    Ok(0) => break None,
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(error) => break Some(error.kind()),
                }
            };
            assert_eq!((&got[..], end), (&b"last words"[..], Some(io::ErrorKind::ConnectionReset)));
        }
    }

    /// Fault F46.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn silence_ends_a_tunnel() {
        let limits = TunnelLimits { idle_timeout_ms: 10_000, half_closed_timeout_ms: 2_000 };
        let (mut client, outer) = pair(1, &Link::default());
        let (mut server, inner) = pair(2, &Link::default());
        let begun = Instant::now();
        let task = tokio::task::spawn_local(relay(outer, inner, vec![], vec![], limits));
        let mut buffer = [0; 9];
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(server.read(&mut buffer).await.unwrap(), 1);
        }
        task.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 37);
        let (mut client, outer) = pair(1, &Link::default());
        let (_server, inner) = pair(2, &Link::default());
        let begun = Instant::now();
        let task = tokio::task::spawn_local(relay(outer, inner, vec![], vec![], limits));
        client.shutdown_write().await.unwrap();
        task.await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 2);
    }
}
