//! A way for bytes from a socket into a file that does not lead through this program's memory: the kernel moves
//! pages into a pipe of its own, and from there into the file (`splice`). Costs one copy where reading and writing
//! cost two. Where sockets or file systems cannot do it, the bytes are not lost: they are read out of the pipe
//! and written. Decides nothing about what the bytes are; does not wait.

use crate::stream::Stream;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// What a conduit asks the kernel to hold at most; also the most that a user may have without privilege.
pub const CAPACITY_BYTES: usize = 1024 * 1024;

/// With less room than this a conduit costs more than it saves: reading and writing is then better.
const USEFUL_BYTES_MIN: usize = 256 * 1024;

/// What is read out of the pipe at a time where the file takes no pages.
const COPY_BYTES: usize = 64 * 1024;

/// A pipe in the kernel with bytes on their way to a file.
#[derive(Debug)]
pub struct Conduit {
    out: OwnedFd,
    into: OwnedFd,
    /// Bytes in it.
    held: usize,
    capacity: usize,
    /// The file takes no pages: copy.
    copies: bool,
}

impl Conduit {
    /// A conduit that is large enough to be worth it.
    ///
    /// # Errors
    /// If there is none to be had: descriptors, or the memory that one user's pipes may have.
    pub fn new() -> io::Result<Conduit> {
        let (out, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let capacity = rustix::pipe::fcntl_setpipe_size(&into, CAPACITY_BYTES)?;
        if capacity < USEFUL_BYTES_MIN {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Conduit { out, into, held: 0, capacity, copies: false })
    }

    /// Bytes on their way.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes what is there from a socket, at most `max` bytes and what fits. To be called when empty. `Ok(0)` with
    /// `max > 0` is the end of the peer's direction.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, `Unsupported` where bytes are not what they are on the wire (TLS), and any
    /// error of the transport.
    pub fn try_fill(&mut self, stream: &Stream, max: usize) -> io::Result<usize> {
        let Some(socket) = stream.socket() else { return Err(io::ErrorKind::Unsupported.into()) };
        let max = max.min(self.capacity - self.held.min(self.capacity));
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = loop {
            let moved = stream
                .try_socket(true, || Ok(rustix::pipe::splice(socket, None, &self.into, None, max, flags)?));
            match moved {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.held += count;
        Ok(count)
    }

    /// Writes what is held to `file` at `offset`, `count` bytes of it.
    ///
    /// # Errors
    /// Any error of the file. The conduit is then to be given up: not all that it held need be in it any more.
    pub fn empty_into(&mut self, file: &File, offset: u64, count: usize) -> io::Result<()> {
        let (mut at, mut left) = (offset, count.min(self.held));
        while left > 0 {
            let moved =
                if self.copies { self.copy_into(file, at, left) } else { self.move_into(file, at, left) };
            match moved {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    at += count as u64;
                    left -= count.min(left);
                    self.held -= count.min(self.held);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_refusal(&error) && !self.copies => self.copies = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn move_into(&self, file: &File, at: u64, count: usize) -> io::Result<usize> {
        let mut at = at;
        Ok(rustix::pipe::splice(&self.out, None, file, Some(&mut at), count, SpliceFlags::MOVE)?)
    }

    fn copy_into(&self, file: &File, at: u64, count: usize) -> io::Result<usize> {
        let mut buffer = vec![0; COPY_BYTES.min(count)];
        let count = rustix::io::read(&self.out, &mut buffer)?;
        file.write_all_at(&buffer[..count], at)?;
        Ok(count)
    }
}

/// The file or its system takes no pages from a pipe.
fn is_refusal(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP].iter().any(|errno| code == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    fn file() -> File {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        File::from(rustix::fs::open(std::env::temp_dir(), flags, Mode::from_raw_mode(0o600)).unwrap())
    }

    async fn pairs() -> Vec<(Stream, Stream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (c, d) = UnixStream::pair().unwrap();
        vec![(Stream::Tcp(a.unwrap()), Stream::Tcp(b.unwrap().0)), (Stream::Unix(c), Stream::Unix(d))]
    }

    /// Moves `want` bytes, or up to the end, to `at`; how many.
    async fn move_all(stream: &Stream, conduit: &mut Conduit, file: &File, at: u64, want: usize) -> usize {
        let mut moved = 0;
        while moved < want {
            match conduit.try_fill(stream, want - moved) {
                Ok(0) => break,
                Ok(count) => {
                    assert_eq!(conduit.held(), count);
                    conduit.empty_into(file, at + moved as u64, count).unwrap();
                    assert_eq!(conduit.held(), 0);
                    moved += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| stream.poll_read_ready(cx)).await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        moved
    }

    /// Every octet arrives at its place, none that was not asked for is taken, by either way into the file.
    #[tokio::test(flavor = "local")]
    async fn bytes_arrive_where_they_belong() {
        let content: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
        for copies in [false, true] {
            for (mut sender, mut receiver) in pairs().await {
                let sent = content.clone();
                let sending = tokio::task::spawn_local(async move {
                    sender.write_all(&sent).await.unwrap();
                    sender.write_all(b"behind").await.unwrap();
                });
                let mut conduit = Conduit::new().unwrap();
                conduit.copies = copies;
                let file = file();
                assert_eq!(move_all(&receiver, &mut conduit, &file, 5, content.len()).await, content.len());
                let mut rest = Vec::new();
                let mut buffer = [0; 100];
                while rest.len() < 6 {
                    let count = receiver.read(&mut buffer).await.unwrap();
                    rest.extend_from_slice(&buffer[..count]);
                }
                assert_eq!(rest, b"behind", "what comes behind was left where it was");
                sending.await.unwrap();
                let mut got = vec![0; content.len()];
                file.read_exact_at(&mut got, 5).unwrap();
                assert!(got == content);
                assert_eq!(file.metadata().unwrap().len(), content.len() as u64 + 5);
                assert_eq!(move_all(&receiver, &mut conduit, &file, 0, 10).await, 0, "an end is an end");
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn what_cannot_be_done_is_said() {
        let mut conduit = Conduit::new().unwrap();
        let link = crate::memory::Link::rough();
        let (memory, _other) = crate::memory::duplex(1, link.clone(), link);
        let error = conduit.try_fill(&Stream::Memory(Box::new(memory)), 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        // A file that cannot be written to is an error, not a loss without a word.
        let (mut sender, receiver) = pairs().await.remove(0);
        sender.write_all(b"octets").await.unwrap();
        poll_fn(|cx| receiver.poll_read_ready(cx)).await.unwrap();
        assert_eq!(conduit.try_fill(&receiver, 6).unwrap(), 6);
        let read_only = File::open("/dev/null").unwrap();
        assert!(conduit.empty_into(&read_only, 0, 6).is_err());
        assert_eq!(conduit.held(), 6);
        let file = file();
        conduit.empty_into(&file, 0, 4).unwrap();
        let mut got = [0; 4];
        file.read_exact_at(&mut got, 0).unwrap();
        assert_eq!((&got, conduit.held(), file.metadata().unwrap().len()), (b"octe", 2, 4));
    }
}
