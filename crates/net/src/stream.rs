//! One bidirectional byte stream, whatever it runs on: TCP, a Unix socket, TLS over any of these, or memory.
//! A closed enum, so that no type parameter spreads through every signature. Knows no HTTP.
//!
//! The primitives are for a driver that works by readiness: `try_*` never waits, `poll_*_ready` waits. On
//! sockets each costs exactly this many system calls:
//!
//! | primitive | system calls |
//! |---|---|
//! | `poll_read_ready`, `poll_write_ready` | none; the runtime's one `epoll_wait` serves all connections |
//! | `try_read`, `try_write*`, `try_send_file` while readiness is known to be absent | none (`WouldBlock`) |
//! | `try_read` | one `recv` |
//! | `try_write`, `try_write_vectored`, `try_send_file` | one `send`, `writev`, `sendfile` |
//! | `shutdown_write` | one `shutdown` |
//!
//! A read that fills less than its buffer, or a write that takes less than it was given, has emptied or
//! filled the kernel's buffer; readiness is then cleared at once (polling is edge-triggered, so the next
//! arrival sets it again). A request and its response thus cost one `recv`, one `send` and one `epoll_wait`,
//! and no read that only finds out that there is nothing.

use crate::memory::MemoryStream;
use crate::tls::TlsStream;
use rustix::io::Errno;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

/// Bytes read at a time where a file must pass through memory (TLS, memory streams).
const FILE_CHUNK_BYTES: usize = 32_768;

/// A byte stream between two programs.
#[derive(Debug)]
pub enum Stream {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A Unix socket connection.
    Unix(UnixStream),
    /// TLS over another stream.
    Tls(Box<TlsStream>),
    /// A connection in memory, for simulation.
    Memory(Box<MemoryStream>),
}

/// Who is at the other end, as far as the transport knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerAddr {
    /// An address and port.
    Ip(SocketAddr),
    /// A process on this machine.
    Unix,
    /// A simulated peer.
    Memory,
}

impl std::fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerAddr::Ip(addr) => addr.fmt(f),
            PeerAddr::Unix => f.write_str("unix"),
            PeerAddr::Memory => f.write_str("memory"),
        }
    }
}

fn would_block() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

/// What TCP and Unix sockets have in common here.
trait Socket: AsFd {
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
}

impl Socket for TcpStream {
    #[inline]
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        TcpStream::try_io(self, interest, call)
    }
}

impl Socket for UnixStream {
    #[inline]
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        UnixStream::try_io(self, interest, call)
    }
}

/// One non-blocking call on a socket. `short` tells from the result whether the kernel's buffer was emptied
/// or filled by it; then readiness is cleared without asking the kernel again.
#[inline]
fn on_socket(
    socket: &impl Socket,
    interest: Interest,
    mut call: impl FnMut() -> io::Result<usize>,
    short: impl Fn(usize) -> bool,
) -> io::Result<usize> {
    loop {
        let mut moved = None;
        let result = socket.try_io(interest, || {
            let count = call()?;
            if short(count) {
                // What tokio clears readiness on; the count goes around it.
                moved = Some(count);
                return Err(would_block());
            }
            Ok(count)
        });
        match (moved, result) {
            (Some(count), _) => return Ok(count),
            (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            (None, result) => return result,
        }
    }
}

fn receive(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, into, rustix::net::RecvFlags::empty())?.0)
}

fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    // Never a signal for a closed peer (fault F36): the error says it.
    Ok(rustix::net::send(socket, bytes, rustix::net::SendFlags::NOSIGNAL)?)
}

fn send_vectored(socket: impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut no_control = rustix::net::SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(socket, slices, &mut no_control, rustix::net::SendFlags::NOSIGNAL)?)
}

fn total(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

impl Stream {
    /// Ready when [`Stream::try_read`] is worth calling (data, the end, or an error). May be wrong: a read
    /// after it can still say `WouldBlock`.
    ///
    /// # Errors
    /// If the runtime is shutting down.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(socket) => socket.poll_read_ready(cx),
            Stream::Unix(socket) => socket.poll_read_ready(cx),
            Stream::Tls(tls) => tls.poll_read_ready(cx),
            Stream::Memory(memory) => memory.poll_read_ready(cx).map(Ok),
        }
    }

    /// Ready when [`Stream::try_write`] is worth calling. May be wrong, as [`Stream::poll_read_ready`].
    ///
    /// # Errors
    /// If the runtime is shutting down.
    #[inline]
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(socket) => socket.poll_write_ready(cx),
            Stream::Unix(socket) => socket.poll_write_ready(cx),
            Stream::Tls(tls) => tls.poll_write_ready(cx),
            Stream::Memory(memory) => memory.poll_write_ready(cx).map(Ok),
        }
    }

    /// Reads what is there. `Ok(0)` is the end of the peer's direction (or an empty `into`); over TLS only
    /// an end the peer has announced is one, any other is `UnexpectedEof` (RFC 9112 §9.8).
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, and any error of the transport.
    #[inline]
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = into.len();
        let short = |count| count > 0 && count < wanted;
        match self {
            Stream::Tcp(s) => on_socket(s, Interest::READABLE, || receive(&*s, into), short),
            Stream::Unix(s) => on_socket(s, Interest::READABLE, || receive(&*s, into), short),
            Stream::Tls(tls) => tls.try_read(into),
            Stream::Memory(memory) => memory.try_read(into),
        }
    }

    /// Writes what the transport takes now; the bytes counted are out of our hands.
    ///
    /// Over TLS, after `WouldBlock` the next call must begin with the same bytes: they may already be
    /// encrypted. Any sender that works through a queue does that.
    ///
    /// # Errors
    /// `WouldBlock` if nothing can be taken, and any error of the transport.
    #[inline]
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let short = |count| count > 0 && count < bytes.len();
        match self {
            Stream::Tcp(s) => on_socket(s, Interest::WRITABLE, || send(&*s, bytes), short),
            Stream::Unix(s) => on_socket(s, Interest::WRITABLE, || send(&*s, bytes), short),
            Stream::Tls(tls) => tls.try_write_vectored(&[IoSlice::new(bytes)]),
            Stream::Memory(memory) => memory.try_write(bytes),
        }
    }

    /// As [`Stream::try_write`], for several pieces in one call.
    ///
    /// # Errors
    /// As [`Stream::try_write`].
    #[inline]
    pub fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [one] = slices {
            return self.try_write(one);
        }
        let short = |count| count > 0 && count < total(slices);
        match self {
            Stream::Tcp(s) => on_socket(s, Interest::WRITABLE, || send_vectored(&*s, slices), short),
            Stream::Unix(s) => on_socket(s, Interest::WRITABLE, || send_vectored(&*s, slices), short),
            Stream::Tls(tls) => tls.try_write_vectored(slices),
            Stream::Memory(memory) => {
                let mut taken = 0;
                for slice in slices.iter().filter(|slice| !slice.is_empty()) {
                    let count = match memory.try_write(slice) {
                        Err(error) if taken == 0 => return Err(error),
                        Err(_) => break,
                        Ok(count) => count,
                    };
                    taken += count;
                    if count < slice.len() {
                        break;
                    }
                }
                Ok(taken)
            }
        }
    }

    /// Sends up to `max` bytes of `file` from `offset` on and moves `offset` behind them: `sendfile` on
    /// sockets, through memory elsewhere. `Ok(0)` with `max > 0` means that the file ends at `offset`: if
    /// more was promised, the file was truncated while sending (fault P24) and the message cannot be
    /// completed.
    ///
    /// # Errors
    /// `WouldBlock`, and any error of the transport or the file.
    pub fn try_send_file(&mut self, file: &File, offset: &mut u64, max: usize) -> io::Result<usize> {
        // The kernel sends at most 2 GiB less a page a call; a round number below keeps `short` honest.
        let max = max.min(1 << 30);
        let mut at = *offset;
        let before = at;
        let sent = match self {
            Stream::Tcp(s) => {
                on_socket(s, Interest::WRITABLE, || send_file(&*s, file, &mut at, max), |_| false)
            }
            Stream::Unix(s) => {
                on_socket(s, Interest::WRITABLE, || send_file(&*s, file, &mut at, max), |_| false)
            }
            // What was read and encrypted before `WouldBlock` is not read again.
            Stream::Tls(tls) if tls.owes() => tls.try_pay(max),
            Stream::Tls(_) | Stream::Memory(_) => {
                let mut chunk = [MaybeUninit::uninit(); FILE_CHUNK_BYTES];
                let wanted = max.min(FILE_CHUNK_BYTES);
                let (read, _) = rustix::io::pread(file, &mut chunk[..wanted], at)?;
                if read.is_empty() { Ok(0) } else { self.try_write(read) }
            }
        }?;
        *offset = before + sent as u64;
        Ok(sent)
    }

    /// Reads what is there, waiting for the first byte.
    ///
    /// # Errors
    /// Any error of the transport, never `WouldBlock`.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, into)).await
    }

    /// As [`Stream::try_read`], arranging to be woken.
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.poll_read_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// As [`Stream::try_write_vectored`], arranging to be woken.
    #[inline]
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Any error of the transport; how much was written before it is not known.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_vectored(&mut [IoSlice::new(bytes)]).await
    }

    /// Writes all of several pieces, in as few calls as the transport allows.
    ///
    /// # Errors
    /// As [`Stream::write_all`].
    pub async fn write_all_vectored(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match poll_fn(|cx| self.poll_write_vectored(cx, slices)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => IoSlice::advance_slices(&mut slices, count),
            }
        }
        Ok(())
    }

    /// Ends our direction: what was written arrives, then the end. Over TLS it is announced first.
    ///
    /// # Errors
    /// Any error of the transport. A peer that is already gone is no error.
    pub fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match self {
            Stream::Tcp(socket) => shutdown(&*socket),
            Stream::Unix(socket) => shutdown(&*socket),
            Stream::Tls(tls) => std::task::ready!(tls.poll_shutdown_write(cx)),
            Stream::Memory(memory) => {
                memory.shutdown_write();
                Ok(())
            }
        };
        Poll::Ready(match result {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            result => result,
        })
    }

    /// Waits for [`Stream::poll_shutdown_write`].
    ///
    /// # Errors
    /// As [`Stream::poll_shutdown_write`].
    pub async fn shutdown_write(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown_write(cx)).await
    }

    /// Before the stream is dropped: says over TLS that this is the end (close_notify), if that can be said without
    /// waiting. Elsewhere the end says so itself.
    pub fn announce_close(&mut self) {
        if let Stream::Tls(tls) = self {
            tls.announce_close();
        }
    }

    /// The address of the peer. On sockets one system call: remember it.
    ///
    /// # Errors
    /// If the socket is no longer connected.
    pub fn peer_addr(&self) -> io::Result<PeerAddr> {
        match self {
            Stream::Tcp(socket) => socket.peer_addr().map(PeerAddr::Ip),
            Stream::Unix(_) => Ok(PeerAddr::Unix),
            Stream::Tls(tls) => tls.transport().peer_addr(),
            Stream::Memory(_) => Ok(PeerAddr::Memory),
        }
    }

    /// The local address of the connection. On sockets one system call.
    ///
    /// # Errors
    /// If the socket is no longer connected.
    pub fn local_addr(&self) -> io::Result<PeerAddr> {
        match self {
            Stream::Tcp(socket) => socket.local_addr().map(PeerAddr::Ip),
            Stream::Unix(_) => Ok(PeerAddr::Unix),
            Stream::Tls(tls) => tls.transport().local_addr(),
            Stream::Memory(_) => Ok(PeerAddr::Memory),
        }
    }

    /// From now on dropping the stream resets the connection: the peer cannot take what it got for whole.
    /// The honest end for a message that was not completed where the framing has no other way to say it.
    ///
    /// # Errors
    /// If the socket is no longer connected.
    pub fn set_linger_reset(&mut self) -> io::Result<()> {
        let zero = Some(std::time::Duration::ZERO);
        match self {
            Stream::Tcp(socket) => socket2::SockRef::from(&*socket).set_linger(zero),
            Stream::Unix(socket) => socket2::SockRef::from(&*socket).set_linger(zero),
            Stream::Tls(tls) => tls.set_linger_reset(),
            Stream::Memory(memory) => {
                memory.set_linger_reset();
                Ok(())
            }
        }
    }

    /// Small writes go out at once (TCP_NODELAY). A driver that gathers what it has into one write wants this
    /// always; nothing to do elsewhere than on TCP.
    ///
    /// # Errors
    /// If the socket is no longer connected.
    pub fn set_no_delay(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.set_nodelay(true),
            Stream::Tls(tls) => tls.transport().set_no_delay(),
            Stream::Unix(_) | Stream::Memory(_) => Ok(()),
        }
    }

    /// Whether the stream is encrypted.
    #[inline]
    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// What TLS has agreed on, if the stream is encrypted.
    pub fn tls(&self) -> Option<&TlsStream> {
        if let Stream::Tls(tls) = self { Some(tls) } else { None }
    }

    /// The socket itself, for `splice` and the like; `None` where bytes are not what they are on the wire.
    pub fn socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match self {
            Stream::Tcp(socket) => Some(socket.as_fd()),
            Stream::Unix(socket) => Some(socket.as_fd()),
            Stream::Tls(_) | Stream::Memory(_) => None,
        }
    }

    /// Runs one non-blocking call on the socket (splice) under the runtime's readiness: readable if `read`,
    /// else writable. `WouldBlock` clears the readiness.
    ///
    /// # Errors
    /// Those of `call`; `Unsupported` where there is no socket.
    pub fn try_socket<R>(&self, read: bool, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let interest = if read { Interest::READABLE } else { Interest::WRITABLE };
        match self {
            Stream::Tcp(socket) => socket.try_io(interest, call),
            Stream::Unix(socket) => socket.try_io(interest, call),
            Stream::Tls(_) | Stream::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Memory held beside the kernel's buffers, for accounting.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Stream>()
            + match self {
                Stream::Tcp(_) | Stream::Unix(_) => 0,
                Stream::Tls(_) => size_of::<TlsStream>() + crate::tls::SESSION_BYTES,
                Stream::Memory(_) => size_of::<MemoryStream>(),
            }
    }
}

fn send_file(socket: impl AsFd, file: &File, offset: &mut u64, max: usize) -> io::Result<usize> {
    Ok(rustix::fs::sendfile(socket, file, Some(offset), max)?)
}

fn shutdown(socket: impl AsFd) -> io::Result<()> {
    socket2::SockRef::from(&socket).shutdown(Shutdown::Write)
}

/// Whether an error means that the peer or the network ended the connection, as opposed to a fault of ours.
pub fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::TimedOut
    ) || error.raw_os_error() == Some(Errno::HOSTUNREACH.raw_os_error())
        || error.raw_os_error() == Some(Errno::NETUNREACH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tokio::net::{TcpListener, UnixStream};

    #[test]
    fn a_stream_is_small() {
        assert!(size_of::<Stream>() <= 64, "{}", size_of::<Stream>());
    }

    async fn tcp_pair() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (Stream::Tcp(a.unwrap()), Stream::Tcp(b.unwrap().0))
    }

    fn unix_pair() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Stream::Unix(a), Stream::Unix(b))
    }

    fn memory_pair() -> (Stream, Stream) {
        let rough = crate::memory::Link::rough();
        let (a, b) = crate::memory::duplex(5, rough.clone(), rough);
        (Stream::Memory(Box::new(a)), Stream::Memory(Box::new(b)))
    }

    async fn read_all(stream: &mut Stream) -> Vec<u8> {
        let (mut got, mut buffer) = (Vec::new(), vec![0; 5000]);
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => return got,
                n => got.extend_from_slice(&buffer[..n]),
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn every_kind_carries_bytes_files_and_ends() {
        let content: Vec<u8> = (0..300_000u32).map(|i| (i / 3) as u8).collect();
        let mut file = tempfile();
        file.write_all(&content).unwrap();
        for (mut a, mut b) in [tcp_pair().await, unix_pair(), memory_pair()] {
            let reader = tokio::task::spawn_local(async move {
                let got = read_all(&mut b).await;
                b.write_all(b"done").await.unwrap();
                got
            });
            a.write_all_vectored(&mut [IoSlice::new(b""), IoSlice::new(b"head"), IoSlice::new(&content)])
                .await
                .unwrap();
            let mut offset = 100_000u64;
            while offset < 300_000 {
                let max = 300_000 - offset as usize;
                match a.try_send_file(&file, &mut offset, max) {
                    Ok(n) => assert!(n > 0),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        poll_fn(|cx| a.poll_write_ready(cx)).await.unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            // Fault P24: a file that is shorter than promised says so.
            let sent = loop {
                match a.try_send_file(&file, &mut offset, 10) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        poll_fn(|cx| a.poll_write_ready(cx)).await.unwrap();
                    }
                    result => break result.unwrap(),
                }
            };
            assert_eq!((sent, offset), (0, 300_000));
            a.shutdown_write().await.unwrap();
            let got = reader.await.unwrap();
            assert!(got == [b"head", &content[..], &content[100_000..]].concat());
            assert_eq!(read_all(&mut a).await, b"done");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn a_reset_is_an_error_and_not_an_end() {
        for (mut a, mut b) in [tcp_pair().await, memory_pair()] {
            a.write_all(b"some").await.unwrap();
            assert!(b.read(&mut [0; 2]).await.unwrap() > 0);
            a.set_linger_reset().unwrap();
            drop(a);
            let error = loop {
                match b.read(&mut [0; 9]).await {
                    Ok(n) => assert!(n > 0, "a reset looked like an end"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(is_disconnect(&error));
        }
    }

    /// Readiness that was cleared by a short read comes back with the next byte, and with the end.
    #[tokio::test(flavor = "local")]
    async fn short_reads_lose_no_wakeup() {
        for (mut a, mut b) in [tcp_pair().await, unix_pair()] {
            let mut buffer = [0; 64];
            for round in 0..100u8 {
                a.write_all(&[round]).await.unwrap();
                assert_eq!(b.read(&mut buffer).await.unwrap(), 1);
                assert_eq!(buffer[0], round);
                assert_eq!(b.try_read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            }
            a.write_all(b"last").await.unwrap();
            drop(a);
            assert_eq!(b.read(&mut buffer).await.unwrap(), 4);
            assert_eq!(b.read(&mut buffer).await.unwrap(), 0);
        }
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir();
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
        File::from(rustix::fs::open(path, flags, rustix::fs::Mode::from_raw_mode(0o600)).unwrap())
    }
}
