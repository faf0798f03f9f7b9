//! What one server thread receives from all workers of an application: frames on response connections, content
//! connections, and notices of the pool. Each goes to the exchange it is for. Decides nothing about responses.

use super::pool::{Notice, Pool, Timing};
use super::protocol::{self, DONE, END, FrameHead, FrameKind, HELLO_BYTES, Ticket};
use super::supervisor::{HELLO_TIMEOUT_MS, Known};
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedReceiver;

/// Room made for reading from a worker.
const READ_BYTES: usize = 65_536;
/// Turns of the runtime that a connection needs from the listener to [`Receiver::workers`], generously.
const WELCOME_TURNS: usize = 5;

/// What an exchange is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame with its payload.
    Frame(FrameHead, Bytes),
    /// The worker opened the content connection.
    Content(UnixStream),
    /// Waited too long for a worker.
    Expired,
    /// The worker died.
    Crashed,
    /// Took too long.
    TimedOut,
}

/// The place where an exchange finds what it is told.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: RefCell<VecDeque<Event>>,
    waker: RefCell<Option<Waker>>,
    /// The worker is done with the request.
    pub(super) done: Cell<bool>,
}

impl Inbox {
    fn put(&self, event: Event) {
        self.events.borrow_mut().push_back(event);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.events.borrow_mut().pop_front() {
            return Poll::Ready(event);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

/// Everything one thread knows of an application.
pub(super) struct Receiver {
    thread: u8,
    pool: Arc<Pool>,
    known: Arc<Known>,
    next: Cell<u32>,
    inboxes: RefCell<HashMap<u32, Rc<Inbox>>>,
    /// The response connections, to be read to their end when a worker is gone.
    workers: RefCell<HashMap<u32, Rc<Connection>>>,
    scratch: RefCell<Vec<u8>>,
}

struct Connection {
    stream: UnixStream,
    buffer: RefCell<BytesMut>,
}

impl Receiver {
    /// Begins to receive on this thread, which must run a local task set.
    ///
    /// # Errors
    /// If the socket cannot be used.
    pub(super) fn start(
        thread: u8,
        listener: std::os::unix::net::UnixListener,
        pool: Arc<Pool>,
        known: Arc<Known>,
    ) -> io::Result<Rc<Receiver>> {
        let listener = UnixListener::from_std(listener)?;
        let receiver = Rc::new(Receiver {
            thread,
            pool,
            known,
            next: Cell::new(0),
            inboxes: RefCell::default(),
            workers: RefCell::default(),
            scratch: RefCell::default(),
        });
        let (sender, notices) = tokio::sync::mpsc::unbounded_channel();
        receiver.pool.attach(thread, sender);
        tokio::task::spawn_local(accept(listener, Rc::downgrade(&receiver)));
        tokio::task::spawn_local(heed(notices, Rc::downgrade(&receiver)));
        Ok(receiver)
    }

    /// A place for a new request.
    pub(super) fn open(&self) -> (Ticket, Rc<Inbox>) {
        let mut inboxes = self.inboxes.borrow_mut();
        let mut request = self.next.get();
        while inboxes.contains_key(&request) {
            request = request.wrapping_add(1);
        }
        self.next.set(request.wrapping_add(1));
        let inbox = Rc::new(Inbox::default());
        inboxes.insert(request, Rc::clone(&inbox));
        (Ticket { thread: self.thread, request }, inbox)
    }

    /// The exchange wants to hear no more; `complete` if it has all of its response.
    pub(super) fn close(&self, ticket: Ticket, inbox: &Inbox, complete: bool) {
        self.inboxes.borrow_mut().remove(&ticket.request);
        if !inbox.done.get() {
            self.pool.withdraw(ticket, complete, Instant::now());
        }
    }

    /// Memory for building messages.
    pub(super) fn scratch(&self) -> std::cell::RefMut<'_, Vec<u8>> {
        self.scratch.borrow_mut()
    }

    fn inbox(&self, request: u32) -> Option<Rc<Inbox>> {
        self.inboxes.borrow().get(&request).map(Rc::clone)
    }

    fn notice(&self, notice: Notice) {
        let (ticket, event) = match notice {
            Notice::Expired(ticket) => (ticket, Event::Expired),
            Notice::Crashed(ticket) => (ticket, Event::Crashed),
            Notice::TimedOut(ticket) => (ticket, Event::TimedOut),
            Notice::WorkerGone(worker) => {
                let connection = self.workers.borrow_mut().remove(&worker);
                if let Some(connection) = connection {
                    // What it sent before it died counts.
                    let _ = self.read_the_rest(worker, &connection);
                }
                return;
            }
        };
        if let Some(inbox) = self.inbox(ticket.request) {
            // Nothing of this request is in any pool now, except one over its time that still runs.
            inbox.done.set(!matches!(event, Event::TimedOut));
            inbox.put(event);
        }
    }

    /// Reads what is there. Returns whether more may come.
    fn read(&self, worker: u32, connection: &Connection) -> io::Result<bool> {
        loop {
            let mut buffer = connection.buffer.borrow_mut();
            buffer.reserve(READ_BYTES);
            let room = buffer.capacity() - buffer.len();
            match connection.stream.try_read_buf(&mut *buffer) {
                Ok(0) => return Ok(false),
                Ok(octets) => {
                    self.take_frames(worker, &mut buffer)?;
                    // A short read has emptied the socket: asking again would only cost a system call.
                    if octets < room {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads what a worker that is gone left behind. Asks the kernel and not the runtime, which may not have heard
    /// yet that there is something.
    fn read_the_rest(&self, worker: u32, connection: &Connection) -> io::Result<()> {
        let mut buffer = connection.buffer.borrow_mut();
        let mut room = vec![0; READ_BYTES];
        loop {
            match rustix::io::read(&connection.stream, room.as_mut_slice()) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(octets) => {
                    buffer.extend_from_slice(&room[..octets]);
                    self.take_frames(worker, &mut buffer)?;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_frames(&self, worker: u32, buffer: &mut BytesMut) -> io::Result<()> {
        while let Some(head) = protocol::frame_head(buffer).map_err(io::Error::other)? {
            if buffer.len() < protocol::FRAME_BYTES + head.payload {
                break;
            }
            let mut frame = buffer.split_to(protocol::FRAME_BYTES + head.payload);
            let payload = frame.split_off(protocol::FRAME_BYTES).freeze();
            self.deliver(worker, head, payload);
        }
        Ok(())
    }

    fn deliver(&self, worker: u32, head: FrameHead, payload: Bytes) {
        let ticket = Ticket { thread: self.thread, request: head.request };
        let inbox = self.inbox(head.request);
        let mut timing = Timing::InTime;
        if head.flags & DONE != 0 {
            if let Some(inbox) = &inbox {
                inbox.done.set(true);
            }
            timing = self.pool.done(worker, ticket, Instant::now());
        } else if head.kind == FrameKind::Response && head.flags & END == 0 {
            timing = self.pool.answered(worker, ticket);
        }
        if let Some(inbox) = inbox {
            // The notice may still be on its way while the task that was ended for it already says so.
            if timing == Timing::TooLate {
                inbox.put(Event::TimedOut);
            }
            inbox.put(Event::Frame(head, payload));
        }
    }
}

/// Takes connections of workers until the application is dropped.
async fn accept(listener: UnixListener, receiver: Weak<Receiver>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files: what is open will close.
                tracing::warn!(%error, "cannot accept a connection of a worker");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if receiver.strong_count() == 0 {
            return;
        }
        tokio::task::spawn_local(welcome(stream, receiver.clone()));
    }
}

async fn welcome(stream: UnixStream, receiver: Weak<Receiver>) {
    let mut octets = [0; HELLO_BYTES];
    let limit = Duration::from_millis(HELLO_TIMEOUT_MS);
    let Ok(Ok(())) = tokio::time::timeout(limit, read_exactly(&stream, &mut octets)).await else { return };
    let Some(receiver) = receiver.upgrade() else { return };
    let Some(hello) = protocol::hello(&octets) else { return };
    if !receiver.known.is_token(hello.worker, &hello.token) {
        tracing::warn!(worker = hello.worker, "a stranger connected to the application's socket");
        return;
    }
    if hello.content {
        // One that comes for a request that is over is closed, which tells the worker.
        if let Some(inbox) = receiver.inbox(hello.request) {
            inbox.put(Event::Content(stream));
        }
        return;
    }
    let connection = Rc::new(Connection { stream, buffer: RefCell::default() });
    receiver.workers.borrow_mut().insert(hello.worker, Rc::clone(&connection));
    let receiver_gone = Rc::downgrade(&receiver);
    drop(receiver);
    responses(hello.worker, connection, receiver_gone).await;
}

async fn read_exactly(stream: &UnixStream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        stream.readable().await?;
        match stream.try_read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(octets) => into = &mut into[octets..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn responses(worker: u32, connection: Rc<Connection>, receiver: Weak<Receiver>) {
    loop {
        if connection.stream.readable().await.is_err() {
            return;
        }
        let Some(receiver) = receiver.upgrade() else { return };
        match receiver.read(worker, &connection) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::error!(worker, %error, "the connection of a worker broke");
                return;
            }
        }
    }
}

async fn heed(mut notices: UnboundedReceiver<Notice>, receiver: Weak<Receiver>) {
    while let Some(notice) = notices.recv().await {
        if let Notice::WorkerGone(worker) = notice {
            // Its connection may be on its way through `accept` and `welcome`: each sleep lets the runtime look at
            // its sockets once.
            for _ in 0..WELCOME_TURNS {
                if receiver.upgrade().is_some_and(|receiver| receiver.workers.borrow().contains_key(&worker))
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let Some(receiver) = receiver.upgrade() else { return };
        receiver.notice(notice);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pool::PoolLimits;
    use super::*;
    use std::io::Write;

    fn response(request: u32) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend_from_slice(&6u32.to_le_bytes());
        frame.extend_from_slice(&request.to_le_bytes());
        frame.extend_from_slice(&[FrameKind::Response as u8, END | DONE]);
        frame.extend_from_slice(&0u16.to_le_bytes());
        frame.extend_from_slice(&6u32.to_le_bytes());
        frame.extend_from_slice(&0i64.to_le_bytes());
        frame.extend_from_slice(b"204 No");
        frame
    }

    /// A worker answers and ends: its answer counts, also when the end is known before the runtime has seen the
    /// answer.
    #[test]
    fn the_last_answer_of_a_worker_counts() {
        let runtime = tokio::runtime::LocalRuntime::new().unwrap();
        let folder = std::env::temp_dir().join(format!("eleven-receiver-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("0");
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.block_on(async {
            let (pool, known) = (Arc::new(Pool::new(PoolLimits::default(), 1)), Arc::new(Known::new()));
            known.admit(7, [9; 16]);
            let receiver = Receiver::start(0, listener, pool, known).unwrap();
            let mut worker = std::os::unix::net::UnixStream::connect(&path).unwrap();
            let mut hello = b"ELR1".to_vec();
            hello.extend_from_slice(&[9; 16]);
            hello.extend_from_slice(&7u32.to_le_bytes());
            hello.extend_from_slice(&0u32.to_le_bytes());
            worker.write_all(&hello).unwrap();
            while !receiver.workers.borrow().contains_key(&7) {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // Let the task that reads see that there is nothing yet.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let (ticket, inbox) = receiver.open();
            worker.write_all(&response(ticket.request)).unwrap();
            drop(worker);
            receiver.notice(Notice::WorkerGone(7));
            let event = inbox.events.borrow_mut().pop_front();
            assert!(matches!(event, Some(Event::Frame(..))), "{event:?}");
        });
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
