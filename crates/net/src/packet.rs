//! Two small things of Unix sockets that the standard library does not have: a pair of packet sockets whose
//! messages can be taken back while nobody has received them, and receiving an open file along with octets.
//!
//! A packet (`SOCK_SEQPACKET`) is received whole and by exactly one receiver, so the kernel decides who got it:
//! what [`PacketPair::take_back`] returns was never seen at the other end.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recv, recvmsg, send, sendmsg,
    shutdown, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// A pair of connected packet sockets: messages go from here to another process.
#[derive(Debug)]
pub struct PacketPair {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl PacketPair {
    /// A new pair; both ends are closed in programs that are started.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub fn new() -> io::Result<PacketPair> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok(PacketPair { ours, theirs })
    }

    /// A copy of the other end, to give to a process.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub fn their_end(&self) -> io::Result<OwnedFd> {
        self.theirs.try_clone()
    }

    /// Sends a message without waiting; `false` if there is no room for it now.
    ///
    /// # Errors
    /// If the pair was shut down, or the message is larger than the kernel takes.
    pub fn send(&self, message: &[u8]) -> io::Result<bool> {
        match send(&self.ours, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::NOBUFS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes back the oldest message that was not received; `false` if there is none. Messages longer than
    /// `into` are cut.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn take_back(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&self.theirs, into, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(Errno::AGAIN) => Ok(None),
            Ok((octets, _)) => Ok(Some(octets)),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the messages: the other end receives what is there and then learns that no more will come.
    pub fn finish(&self) {
        // Fails only if it was done before.
        let _ = shutdown(&self.ours, Shutdown::Write);
    }
}

/// A pair of connected packet sockets for both directions: one for here, which never waits, and one for another process.
/// Both are closed in programs that are started.
///
/// # Errors
/// If the process has too many open files.
pub fn two_way_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// Sends a message along with an open file.
///
/// # Errors
/// As `sendmsg(2)`; `WouldBlock` if there is no room for it now.
pub fn send_with_file(socket: impl AsFd, message: &[u8], file: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Ends a process at once, by a descriptor that stands for it (`pidfd_open(2)`) and so for no other that got its number.
///
/// # Errors
/// If it has ended.
pub fn kill(process: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL)?)
}

/// Receives octets, and an open file if one comes along (of several, the last). Does not wait if the socket
/// does not.
///
/// # Errors
/// As `recvmsg(2)`; `WouldBlock` if nothing is there.
pub fn receive_with_file(
    socket: impl AsFd,
    into: &mut [u8],
    file: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(into)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            *file = files.last().or(file.take());
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn messages_are_whole_and_can_be_taken_back() {
        let pair = PacketPair::new().unwrap();
        for message in [&b"one"[..], b"two", b"three"] {
            assert!(pair.send(message).unwrap());
        }
        let theirs = pair.their_end().unwrap();
        let mut buffer = [0; 16];
        let (octets, _) = recv(&theirs, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert_eq!(&buffer[..octets], b"one");
        assert_eq!(pair.take_back(&mut buffer).unwrap(), Some(3));
        assert_eq!(&buffer[..3], b"two");
        pair.finish();
        let (octets, _) = recv(&theirs, &mut buffer[..], RecvFlags::empty()).unwrap();
        assert_eq!(&buffer[..octets], b"three");
        assert_eq!(recv(&theirs, &mut buffer[..], RecvFlags::empty()).unwrap().0, 0);
        assert_eq!(pair.take_back(&mut buffer).unwrap(), None);
        assert!(pair.send(b"four").is_err());
    }

    #[test]
    fn a_full_socket_says_so() {
        let pair = PacketPair::new().unwrap();
        let mut sent = 0;
        while pair.send(&[7; 60_000]).unwrap() {
            sent += 1;
            assert!(sent < 1000);
        }
        assert!(sent > 0);
        assert!(pair.send(&vec![0; 4 << 20]).is_err(), "larger than any socket buffer");
    }

    #[test]
    fn a_process_is_ended_by_its_descriptor() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        kill(&process).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(kill(&process).is_err(), "it has ended");
    }

    #[test]
    fn our_side_of_a_pair_never_waits() {
        let (ours, theirs) = two_way_pair().unwrap();
        let mut buffer = [0; 8];
        let error = receive_with_file(&ours, &mut buffer, &mut None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        send(&theirs, b"hello", SendFlags::empty()).unwrap();
        assert_eq!(receive_with_file(&ours, &mut buffer, &mut None).unwrap(), 5);
        drop(theirs);
        assert_eq!(receive_with_file(&ours, &mut buffer, &mut None).unwrap(), 0);
    }

    #[test]
    fn a_file_comes_along() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let path = std::env::temp_dir().join(format!("eleven-packet-{}", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(b"content").unwrap();
        let opened = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        send_with_file(&a, b"octets", &opened).unwrap();
        let (mut buffer, mut received) = ([0; 16], None);
        assert_eq!(receive_with_file(&b, &mut buffer, &mut received).unwrap(), 6);
        let mut received = std::fs::File::from(received.unwrap());
        received.rewind().unwrap();
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        drop(a);
        let mut none = None;
        assert_eq!(receive_with_file(&b, &mut buffer, &mut none).unwrap(), 0);
        assert!(none.is_none());
    }
}
