//! What one server thread receives from all workers of an application: frames on response connections, content
//! connections, and notices of the pool. Each goes to the exchange it is for. Decides nothing about responses.

use super::pool::{Notice, Pool, Refused, Submission, Timing};
use super::protocol::{self, DONE, END, FrameHead, FrameKind, HELLO_BYTES, Ticket};
use super::shelf::{Looking, Shelf};
use super::supervisor::{HELLO_TIMEOUT_MS, Known};
use bytes::Bytes;
use eleven_net::packet::receive_with_file;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

/// Room for reading from workers.
const READ_BYTES: usize = 65_536;
/// What a connection keeps of its room for incomplete frames when there are none.
const KEPT_BYTES_AT_REST_MAX: usize = 16_384;
/// How often shelves are looked at: what stands there at two looks is taken.
const SHELF_LOOK_MS: u64 = 5;
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
    /// Was not taken.
    Refused(Refused),
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
    /// Requests of this turn of the runtime, to be submitted together at its end.
    outbox: RefCell<Vec<Submission>>,
    submits: RefCell<Option<Waker>>,
    /// Where octets of workers are read to, the frames found in them, and which of those came too late: kept from one
    /// read to the next.
    room: RefCell<Box<[u8]>>,
    frames: RefCell<Vec<(FrameHead, Bytes)>>,
    late: RefCell<Vec<Ticket>>,
    /// Wakes the task that looks at shelves.
    may_be_held: Rc<Notify>,
}

struct Connection {
    stream: UnixStream,
    /// The beginning of a frame whose end has not come.
    kept: RefCell<Vec<u8>>,
    /// Where the worker keeps responses that it is about to send.
    shelf: Option<Shelf>,
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
            outbox: RefCell::default(),
            submits: RefCell::default(),
            room: RefCell::new(vec![0; READ_BYTES].into()),
            frames: RefCell::default(),
            late: RefCell::default(),
            may_be_held: Rc::default(),
        });
        let (sender, notices) = tokio::sync::mpsc::unbounded_channel();
        receiver.pool.attach(thread, sender);
        tokio::task::spawn_local(accept(listener, Rc::downgrade(&receiver)));
        tokio::task::spawn_local(look_at_shelves(Rc::downgrade(&receiver)));
        tokio::task::spawn_local(submit(Rc::downgrade(&receiver)));
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
            self.outbox.borrow_mut().retain(|submission| submission.ticket != ticket);
            self.pool.withdraw(ticket, complete, Instant::now());
        }
    }

    /// Gives a request to the pool, together with those of the other connections that are ready now: several requests
    /// that come at once then wake a worker once.
    pub(super) fn submit(&self, submission: Submission) {
        self.outbox.borrow_mut().push(submission);
        if let Some(waker) = self.submits.borrow_mut().take() {
            waker.wake();
        }
    }

    fn submit_all(&self) {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() {
            return;
        }
        if let Some(why) = self.pool.submit(&mut outbox, Instant::now()) {
            for Submission { ticket, .. } in outbox.drain(..) {
                if let Some(inbox) = self.inbox(ticket.request) {
                    inbox.done.set(true);
                    inbox.put(Event::Refused(why));
                }
            }
        }
    }

    fn inbox(&self, request: u32) -> Option<Rc<Inbox>> {
        self.inboxes.borrow().get(&request).map(Rc::clone)
    }

    fn notice(&self, notice: Notice) {
        let (ticket, event) = match notice {
            Notice::Expired(ticket) => (ticket, Event::Expired),
            Notice::Crashed(ticket) => (ticket, Event::Crashed),
            Notice::TimedOut(ticket) => (ticket, Event::TimedOut),
            Notice::MayBeHeld => {
                self.may_be_held.notify_one();
                return;
            }
            Notice::WorkerGone(worker) => {
                let connection = self.workers.borrow_mut().remove(&worker);
                if let Some(connection) = connection {
                    // What it sent before it died counts, and what it was about to send.
                    let _ = self.read_the_rest(worker, &connection);
                    if let Some(shelf) = &connection.shelf
                        && let Some(frames) = shelf.look(self.thread, Looking::AtTheDead)
                    {
                        self.take_shelved(worker, &frames);
                    }
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
        let mut room = self.room.borrow_mut();
        loop {
            match connection.stream.try_read(&mut room) {
                Ok(0) => return Ok(false),
                Ok(octets) => {
                    self.take(worker, connection, &room[..octets])?;
                    // A short read has emptied the socket: asking again would only cost a system call.
                    if octets < room.len() {
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
        let mut room = self.room.borrow_mut();
        loop {
            match rustix::io::read(&connection.stream, &mut room[..]) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(octets) => self.take(worker, connection, &room[..octets])?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes what was read: almost always whole frames, else their beginning is kept.
    fn take(&self, worker: u32, connection: &Connection, octets: &[u8]) -> io::Result<()> {
        let mut kept = connection.kept.borrow_mut();
        if kept.is_empty() {
            let taken = self.take_frames(worker, octets)?;
            kept.extend_from_slice(&octets[taken..]);
        } else {
            kept.extend_from_slice(octets);
            let taken = self.take_frames(worker, &kept)?;
            kept.drain(..taken);
        }
        if kept.is_empty() && kept.capacity() > KEPT_BYTES_AT_REST_MAX {
            *kept = Vec::new();
        }
        Ok(())
    }

    /// Takes responses from a worker's shelf. Those that it sends as well are not known any more when they come.
    fn take_shelved(&self, worker: u32, frames: &[u8]) {
        if let Err(error) = self.take_frames(worker, frames) {
            tracing::error!(worker, %error, "what a worker kept is broken");
        }
    }

    /// Takes the whole frames at the beginning of `octets`; returns how many octets they are.
    fn take_frames(&self, worker: u32, octets: &[u8]) -> io::Result<usize> {
        let mut frames = self.frames.borrow_mut();
        let mut at = 0;
        let broken = loop {
            let head = match protocol::frame_head(&octets[at..]) {
                Ok(Some(head)) => head,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            let Some(frame) = octets[at..].get(protocol::FRAME_BYTES..protocol::FRAME_BYTES + head.payload)
            else {
                break None;
            };
            frames.push((head, Bytes::copy_from_slice(frame)));
            at += protocol::FRAME_BYTES + head.payload;
        };
        // First what sets the worker to work again, in one go: while it does that, the responses go out.
        let done = frames.iter().filter(|(head, _)| head.flags & DONE != 0);
        let done = done.map(|(head, _)| Ticket { thread: self.thread, request: head.request });
        let mut late = self.late.borrow_mut();
        self.pool.done(worker, done, Instant::now(), &mut late);
        for (head, payload) in frames.drain(..) {
            self.deliver(worker, head, payload, &late);
        }
        late.clear();
        broken.map_or(Ok(at), |error| Err(io::Error::other(error)))
    }

    fn deliver(&self, worker: u32, head: FrameHead, payload: Bytes, late: &[Ticket]) {
        let ticket = Ticket { thread: self.thread, request: head.request };
        let inbox = self.inbox(head.request);
        let mut timing = Timing::InTime;
        if head.flags & DONE != 0 {
            if let Some(inbox) = &inbox {
                inbox.done.set(true);
            }
            if late.contains(&ticket) {
                timing = Timing::TooLate;
            }
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

impl Drop for Receiver {
    fn drop(&mut self) {
        // The tasks that look at shelves and submit end.
        self.may_be_held.notify_one();
        if let Some(waker) = self.submits.borrow_mut().take() {
            waker.wake();
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
    let reading = read_exactly(&stream, &mut octets);
    let Ok(Ok(shelf)) = tokio::time::timeout(limit, reading).await else { return };
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
    let shelf = shelf.and_then(Shelf::new);
    if let Some(mark) = shelf.as_ref().and_then(Shelf::mark) {
        receiver.pool.set_mark(hello.worker, mark);
    }
    let connection = Rc::new(Connection { stream, kept: RefCell::default(), shelf });
    receiver.workers.borrow_mut().insert(hello.worker, Rc::clone(&connection));
    let receiver_gone = Rc::downgrade(&receiver);
    drop(receiver);
    responses(hello.worker, connection, receiver_gone).await;
}

/// Fills `into`; returns the file that came along.
async fn read_exactly(stream: &UnixStream, mut into: &mut [u8]) -> io::Result<Option<OwnedFd>> {
    let mut file = None;
    while !into.is_empty() {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_with_file(stream, into, &mut file)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(octets) => into = &mut into[octets..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(file)
}

/// Submits what was put into the outbox since the last turn. The runtime comes to it after the tasks that were ready when
/// the first of it was put there.
async fn submit(receiver: Weak<Receiver>) {
    std::future::poll_fn(|cx| {
        let Some(receiver) = receiver.upgrade() else { return Poll::Ready(()) };
        receiver.submit_all();
        let mut waker = receiver.submits.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    })
    .await;
}

/// Looks at the shelves of all workers for responses that stand there longer than they should, because their worker is
/// busy with the next request.
async fn look_at_shelves(receiver: Weak<Receiver>) {
    loop {
        tokio::time::sleep(Duration::from_millis(SHELF_LOOK_MS)).await;
        let Some(receiver) = receiver.upgrade() else { return };
        if !receiver.pool.may_be_held(receiver.thread) {
            let may_be_held = Rc::clone(&receiver.may_be_held);
            drop(receiver);
            may_be_held.notified().await;
            continue;
        }
        let workers: Vec<_> = receiver
            .workers
            .borrow()
            .iter()
            .map(|(&number, connection)| (number, Rc::clone(connection)))
            .collect();
        for (worker, connection) in workers {
            if let Some(shelf) = &connection.shelf
                && let Some(frames) = shelf.look(receiver.thread, Looking::AtTheLiving)
            {
                receiver.take_shelved(worker, &frames);
            }
        }
    }
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
