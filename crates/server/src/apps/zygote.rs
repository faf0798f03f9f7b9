//! The process that imports an application once and forks its workers, so that they share the memory of what was imported
//! (the `preload` option). It gets a message for each worker, with the worker's end of its queue, and answers with a
//! descriptor that stands for the new process: that is how its end is noticed and brought about. What a worker does is the
//! same as without it.

use eleven_net::packet::{kill, receive_with_file, send_with_file, two_way_pair};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// Who waits for which worker's process.
#[derive(Debug, Default)]
struct Expected(Mutex<HashMap<u32, oneshot::Sender<OwnedFd>>>);

impl Expected {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, oneshot::Sender<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process. Ends when this is dropped; the workers it forked do not.
#[derive(Debug)]
pub(super) struct Zygote {
    /// A packet socket: what the runtime does with one is the same as with a datagram socket.
    ours: Arc<UnixDatagram>,
    expected: Arc<Expected>,
    /// Which reload it belongs to.
    pub(super) generation: u64,
    _child: Child,
}

impl Zygote {
    /// Starts the process that `command` makes, and gives it `settings`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn start(mut command: Command, settings: &[u8], generation: u64) -> io::Result<Zygote> {
        let (ours, theirs) = two_way_pair()?;
        let child = command.stdin(Stdio::from(theirs)).spawn()?;
        // It keeps the other end until it is dropped, and with that the socket would never end.
        drop(command);
        let ours = Arc::new(UnixDatagram::from_std(ours.into())?);
        rustix::io::write(&*ours, settings)?;
        let expected = Arc::default();
        tokio::spawn(listen(Arc::clone(&ours), Arc::clone(&expected)));
        Ok(Zygote { ours, expected, generation, _child: child })
    }

    /// Asks for a worker with these settings, which hold its number, and this end of its queue. The process is told later;
    /// if the zygote ends first, never.
    ///
    /// # Errors
    /// If the zygote has ended.
    pub(super) fn fork(
        &self,
        number: u32,
        settings: &[u8],
        queue: OwnedFd,
    ) -> io::Result<oneshot::Receiver<OwnedFd>> {
        let (sender, receiver) = oneshot::channel();
        self.expected.lock().insert(number, sender);
        send_with_file(&*self.ours, settings, queue)?;
        Ok(receiver)
    }
}

/// Takes the descriptors of new processes until the zygote has ended.
async fn listen(ours: Arc<UnixDatagram>, expected: Arc<Expected>) {
    let mut number = [0; 4];
    while let Ok(()) = ours.readable().await {
        let mut process = None;
        match ours.try_io(Interest::READABLE, || receive_with_file(&*ours, &mut number, &mut process)) {
            Ok(1..) => {
                let sender = expected.lock().remove(&u32::from_le_bytes(number));
                if let (Some(sender), Some(process)) = (sender, process) {
                    let _ = sender.send(process);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => break,
        }
    }
    expected.lock().clear();
}

/// Waits for the end of a forked worker, killing it when told. Returns what is known of its end.
pub(super) async fn attend(process: oneshot::Receiver<OwnedFd>, told: oneshot::Receiver<()>) -> io::Error {
    let Ok(process) = process.await else {
        return io::Error::other("it ended at once, or the process that forks workers did");
    };
    // Such a descriptor becomes readable when its process ends: of all types of the runtime, the reading end of a
    // pipe is the one that waits for just that.
    let ended = match process.try_clone().and_then(pipe::Receiver::from_owned_fd_unchecked) {
        Ok(ended) => ended,
        Err(error) => return error,
    };
    tokio::select! {
        _ = ended.readable() => {}
        // A sender that is dropped means the supervisor has gone, and with it goes the worker.
        _ = told => {
            // It may have ended in this very moment.
            let _ = kill(&process);
            let _ = ended.readable().await;
        }
    }
    io::Error::other("a forked process, whose status nobody is told")
}
