//! Listening sockets that others opened: handed over by the process that this one replaces, or by the service manager
//! (`LISTEN_FDS`, sd_listen_fds(3)). A socket that is handed over keeps its queue of connections, so nobody who
//! connects meanwhile is lost; one that is bound anew would reset them.
//!
//! Between two of our processes they travel over a socket pair that is the newcomer's standard input, not through
//! inherited descriptors: so no other child can be left holding them. Decides nothing about when to hand over.

use crate::listener::ListenAddr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

/// Longest name of a socket, or message, on a channel.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Follows the last socket.
const LAST: &[u8] = b"\0last";
/// What a process says when it serves.
const READY: &[u8] = b"\0ready";
/// The first descriptor that a service manager passes (SD_LISTEN_FDS_START).
const MANAGER_FIRST: i32 = 3;
/// Most sockets that a service manager may pass.
const MANAGER_COUNT_MAX: i32 = 4096;

/// One end of the channel between a process and the one that replaces it.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two ends. Both are closed in children that are not given one on purpose.
    ///
    /// # Errors
    /// If the system has no socket to give.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Channel(ours), theirs))
    }

    /// The end that came as standard input, which then reads as empty.
    ///
    /// # Errors
    /// If standard input is no such channel.
    pub fn from_stdin() -> io::Result<Channel> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        if sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "standard input is no channel"));
        }
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok(Channel(fd))
    }

    /// Waits no longer than this in any call.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_timeout(&self, patience: Duration) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(patience))?;
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, Some(patience))?;
        Ok(())
    }

    fn send(&self, message: &[u8], socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let sockets: &[BorrowedFd<'_>] = socket.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(sockets));
        }
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)
        })?;
        if sent == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&self) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut message = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let into = &mut [IoSliceMut::new(&mut message)];
            rustix::net::recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        message.truncate(received.bytes);
        let socket = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
            _ => None,
        });
        Ok((message, socket))
    }

    /// Sends sockets, each with the address that was asked for.
    ///
    /// # Errors
    /// If the other end is gone.
    pub fn send_sockets(&self, sockets: &[(String, OwnedFd)]) -> io::Result<()> {
        for (name, socket) in sockets {
            self.send(name.as_bytes(), Some(socket.as_fd()))?;
        }
        self.send(LAST, None)
    }

    /// Receives what [`Channel::send_sockets`] sends.
    ///
    /// # Errors
    /// If the other end is gone, or speaks otherwise.
    pub fn receive_sockets(&self) -> io::Result<Inherited> {
        let mut sockets = Vec::new();
        loop {
            match self.receive()? {
                (message, None) if message == LAST => break,
                (name, Some(socket)) => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    sockets.push(Offered { name, socket, ours: true });
                }
                (_, None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(Inherited(Mutex::new(sockets)))
    }

    /// Says that this process serves.
    ///
    /// # Errors
    /// If the other end is gone.
    pub fn send_ready(&self) -> io::Result<()> {
        self.send(READY, None)
    }

    /// Waits for [`Channel::send_ready`] of the other end.
    ///
    /// # Errors
    /// `UnexpectedEof` if the other process ended before it was ready, `WouldBlock` if it took too long.
    pub fn receive_ready(&self) -> io::Result<()> {
        match self.receive()? {
            (message, _) if message == READY => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A socket that somebody else opened.
#[derive(Debug)]
struct Offered {
    /// The address it was asked for by, or the service manager's name for it.
    name: String,
    socket: OwnedFd,
    /// It comes from the process that we replace, and so does its file if it has one.
    ours: bool,
}

/// Sockets that somebody else opened, until they are claimed.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<Offered>>);

impl Inherited {
    /// Those of the service manager; none if it passed none to this very process.
    ///
    /// # Errors
    /// If what it says in the environment cannot be true.
    pub fn from_manager() -> io::Result<Inherited> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
        let (Some(pid), Some(count)) = (number("LISTEN_PID"), number("LISTEN_FDS")) else {
            return Ok(Inherited::default());
        };
        if i64::from(pid) != i64::from(std::process::id()) || !(1..=MANAGER_COUNT_MAX).contains(&count) {
            return Ok(Inherited::default());
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = Vec::new();
        for fd in MANAGER_FIRST..MANAGER_FIRST + count {
            let name = names.next().unwrap_or_default().to_owned();
            // Closed or taken already: the environment is from somebody else.
            if !Path::new(&format!("/proc/self/fd/{fd}")).exists() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("LISTEN_FDS says {count}, but there is no descriptor {fd}"),
                ));
            }
            sockets.push(Offered { name, socket: adopt(fd), ours: false });
        }
        for offered in &sockets {
            // They are nothing for children.
            rustix::io::fcntl_setfd(&offered.socket, rustix::io::FdFlags::CLOEXEC)?;
        }
        Ok(Inherited(Mutex::new(sockets)))
    }

    /// Takes all sockets for an address: those that were asked for by the same words, those with the manager's name
    /// for it (`fd:NAME`), and those that are bound to it. Whether one came from the process that we replace.
    pub fn take(&self, address: &ListenAddr) -> (Vec<OwnedFd>, bool) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wanted = address.to_string();
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut *all).into_iter().partition(|offered| {
            offered.name == wanted
                || matches!(address, ListenAddr::Inherited(name) if !offered.ours && *name == offered.name)
                || (!offered.ours && is_bound_to(&offered.socket, address))
        });
        *all = left;
        let ours = taken.iter().any(|offered| offered.ours);
        (taken.into_iter().map(|offered| offered.socket).collect(), ours)
    }

    /// The names of those that nobody claimed, which are closed now.
    pub fn close_rest(&self) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::take(&mut *all).into_iter().map(|offered| offered.name).collect()
    }
}

/// Takes over a descriptor that the service manager has passed.
#[allow(unsafe_code, reason = "no safe call makes an owner of an inherited descriptor")]
fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: the descriptor is open (the caller looked), it was passed to this process by number, and LISTEN_PID
    // names this process: nothing else in it owns the descriptor. This runs once, before any thread is started.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn is_bound_to(socket: &OwnedFd, address: &ListenAddr) -> bool {
    let Ok(bound) = socket2::SockRef::from(socket).local_addr() else { return false };
    match address {
        ListenAddr::Unix(path) => {
            bound.as_pathname().is_some_and(|bound| bound.as_os_str() == OsStr::new(path))
        }
        ListenAddr::Tcp { host, port } => {
            let Some(bound) = bound.as_socket() else { return false };
            bound.port() == *port
                && match host {
                    None => bound.ip().is_unspecified(),
                    Some(host) => host.parse().is_ok_and(|ip: std::net::IpAddr| ip == bound.ip()),
                }
        }
        ListenAddr::Inherited(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Bound, adopt, bind};
    use std::io::{Read, Write};

    #[test]
    fn sockets_keep_their_queue_on_the_way() {
        let address: ListenAddr = "127.0.0.1:0".parse().unwrap();
        let bound = bind(&address, 2).unwrap();
        let port = bound[0][0].local_addr().unwrap().port();
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"waiting").unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs);
        let sockets: Vec<_> =
            bound.iter().flatten().map(|b| (address.to_string(), b.to_owned_fd().unwrap())).collect();
        drop(bound);
        ours.send_sockets(&sockets).unwrap();
        drop(sockets);
        let inherited = theirs.receive_sockets().unwrap();
        theirs.send_ready().unwrap();
        ours.receive_ready().unwrap();
        let (sockets, ours_before) = inherited.take(&"127.0.0.1:1".parse().unwrap());
        assert!(sockets.is_empty() && !ours_before, "another address");
        let (sockets, ours_before) = inherited.take(&address);
        assert!(ours_before);
        assert_eq!(sockets.len(), 2);
        assert!(inherited.close_rest().is_empty());
        // Three workers share two sockets; one worker takes both.
        let of_three = adopt(&address, sockets, ours_before, 3).unwrap();
        assert!(of_three.iter().all(|of_worker| of_worker.len() == 1));
        let mut answered = false;
        for bound in of_three.iter().flatten() {
            let Bound::Tcp(listener) = bound else { panic!("not TCP") };
            assert_eq!(listener.local_addr().unwrap().port(), port);
            if let Ok((mut stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                let mut text = [0; 7];
                stream.read_exact(&mut text).unwrap();
                assert_eq!(&text, b"waiting");
                answered = true;
            }
        }
        assert!(answered, "the connection in the queue came along");
    }

    #[test]
    fn an_end_that_goes_away_is_an_error() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        assert!(ours.receive_ready().is_err());
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs);
        ours.send(b"127.0.0.1:80", None).unwrap();
        assert!(theirs.receive_sockets().is_err(), "a name without a socket");
        ours.set_timeout(Duration::from_millis(1)).unwrap();
        assert_eq!(ours.receive_ready().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn only_listening_sockets_are_taken() {
        let address: ListenAddr = "127.0.0.1:0".parse().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(adopt(&address, vec![file.into()], false, 1).is_err());
        let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        assert!(adopt(&address, vec![unbound.into()], false, 1).is_err());
        let nothing = adopt(&"fd:web".parse().unwrap(), Vec::new(), false, 1).unwrap_err();
        assert!(nothing.to_string().contains("service manager"), "{nothing}");
    }
}
