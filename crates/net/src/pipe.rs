//! A bounded channel of bytes between two tasks of one thread, with an end that says how it ended: content on
//! its way through the house (design, invariant 9). Capacity is the back-pressure: a writer waits while the
//! reader is slow. Does no I/O and copies no content.
//!
//! A pipe ends as `Complete` or as `Aborted`. A writer that vanishes without a word has aborted, so no path
//! through an error, a panic or a forgotten branch can turn a broken body into a whole one. A reader that
//! vanishes is seen by the writer at once.

use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What a queued chunk costs beside its content. Without it a sender of one-byte chunks would hold forty
/// times the capacity in bookkeeping.
const CHUNK_OVERHEAD_BYTES: usize = 64;

/// Why a pipe ended before its content did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The writer was dropped without an end: a task that failed, or a bug.
    WriterGone,
    /// The peer that sends the content closed before its end.
    Truncated,
    /// The peer's connection broke (reset, unreachable, TLS failure).
    Broken,
    /// The peer's framing broke a rule of the protocol.
    Malformed,
    /// A deadline passed.
    TimedOut,
    /// A limit was reached: the content is larger than allowed.
    TooLarge,
    /// The store or file the content comes from failed.
    Storage,
    /// The exchange was given up on this side.
    Cancelled,
    /// The end was already taken; asked again by mistake.
    AlreadyEnded,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::WriterGone => "the sender of the content ended without an end",
            Reason::Truncated => "the peer closed before the end of the content",
            Reason::Broken => "the peer's connection broke before the end of the content",
            Reason::Malformed => "the peer's framing of the content is malformed",
            Reason::TimedOut => "a deadline passed before the end of the content",
            Reason::TooLarge => "the content is larger than allowed",
            Reason::Storage => "reading the content from storage failed",
            Reason::Cancelled => "the exchange was given up",
            Reason::AlreadyEnded => "the content had already ended",
        })
    }
}

impl std::error::Error for Reason {}

/// The reader was dropped: nothing written from now on is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderGone;

impl std::fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the reader of the content is gone")
    }
}

impl std::error::Error for ReaderGone {}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Some content, never empty.
    Data(Bytes),
    /// The content is whole; `T` is what came after it (trailers, for instance).
    Complete(T),
    /// The content is not whole and never will be.
    Aborted(Reason),
}

enum End<T> {
    Open,
    Complete(T),
    Aborted(Reason),
    Taken,
}

struct Shared<T> {
    queue: VecDeque<Bytes>,
    /// Content and overhead of what is queued.
    charged_bytes: usize,
    content_bytes: usize,
    capacity_bytes: usize,
    end: End<T>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// A writer that wants to know when the reader first waits.
    wanted: Option<Waker>,
}

impl<T> Shared<T> {
    fn room(&self) -> usize {
        // The overhead of the next chunk is reserved, so that room means content.
        self.capacity_bytes.saturating_sub(self.charged_bytes + CHUNK_OVERHEAD_BYTES)
    }

    fn finish(&mut self, end: End<T>) {
        if matches!(self.end, End::Open) {
            self.end = end;
            wake(&mut self.reader);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn store(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// The sending end.
pub struct PipeWriter<T>(Rc<RefCell<Shared<T>>>);

/// The receiving end.
pub struct PipeReader<T>(Rc<RefCell<Shared<T>>>);

/// A pipe that holds at most `capacity_bytes` of content and bookkeeping, but at least one byte of content.
pub fn pipe<T>(capacity_bytes: usize) -> (PipeWriter<T>, PipeReader<T>) {
    let shared = Rc::new(RefCell::new(Shared {
        queue: VecDeque::new(),
        charged_bytes: 0,
        content_bytes: 0,
        capacity_bytes: capacity_bytes.max(CHUNK_OVERHEAD_BYTES + 1),
        end: End::Open,
        reader_gone: false,
        reader: None,
        writer: None,
        wanted: None,
    }));
    (PipeWriter(Rc::clone(&shared)), PipeReader(shared))
}

impl<T> PipeWriter<T> {
    /// Ready with the number of bytes that [`PipeWriter::push`] takes now (at least one).
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, ReaderGone>> {
        let mut shared = self.0.borrow_mut();
        if shared.reader_gone {
            return Poll::Ready(Err(ReaderGone));
        }
        match shared.room() {
            0 => {
                store(&mut shared.writer, cx);
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Waits for room.
    ///
    /// # Errors
    /// If the reader is gone.
    pub async fn ready(&mut self) -> Result<usize, ReaderGone> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// Takes what fits off the front of `chunk`; how much that was.
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn push(&mut self, chunk: &mut Bytes) -> Result<usize, ReaderGone> {
        let mut shared = self.0.borrow_mut();
        if shared.reader_gone {
            return Err(ReaderGone);
        }
        let fits = shared.room().min(chunk.len());
        if fits > 0 {
            shared.queue.push_back(chunk.split_to(fits));
            shared.charged_bytes += fits + CHUNK_OVERHEAD_BYTES;
            shared.content_bytes += fits;
            wake(&mut shared.reader);
        }
        Ok(fits)
    }

    /// Sends all of `chunk`, waiting for room as needed.
    ///
    /// # Errors
    /// If the reader is gone.
    pub async fn send(&mut self, mut chunk: Bytes) -> Result<(), ReaderGone> {
        while !chunk.is_empty() {
            self.ready().await?;
            self.push(&mut chunk)?;
        }
        Ok(())
    }

    /// Ends the content as whole.
    pub fn complete(self, with: T) {
        self.0.borrow_mut().finish(End::Complete(with));
    }

    /// Ends the content as broken. What was pushed before is still delivered.
    pub fn abort(self, reason: Reason) {
        self.0.borrow_mut().finish(End::Aborted(reason));
    }

    /// Whether the reader is gone.
    pub fn is_reader_gone(&self) -> bool {
        self.0.borrow().reader_gone
    }

    /// Ready when the reader is gone: the writer need not have anything to send to learn it.
    pub fn poll_reader_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.reader_gone {
            return Poll::Ready(());
        }
        store(&mut shared.writer, cx);
        Poll::Pending
    }

    /// Ready when the reader waits for content that is not there: only now is it worth asking the sender for
    /// any (`100 Continue`).
    pub fn poll_wanted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        if shared.reader.is_some() && shared.queue.is_empty() {
            return Poll::Ready(());
        }
        store(&mut shared.wanted, cx);
        Poll::Pending
    }

    /// Bytes of content that were pushed and not yet read.
    pub fn buffered_bytes(&self) -> usize {
        self.0.borrow().content_bytes
    }
}

impl<T> Drop for PipeWriter<T> {
    fn drop(&mut self) {
        self.0.borrow_mut().finish(End::Aborted(Reason::WriterGone));
    }
}

impl<T> PipeReader<T> {
    /// The next piece of content or the end; `None` if the writer has not yet sent it.
    pub fn try_next(&mut self) -> Option<Next<T>> {
        let mut shared = self.0.borrow_mut();
        if let Some(chunk) = shared.queue.pop_front() {
            shared.charged_bytes -= chunk.len() + CHUNK_OVERHEAD_BYTES;
            shared.content_bytes -= chunk.len();
            wake(&mut shared.writer);
            return Some(Next::Data(chunk));
        }
        match std::mem::replace(&mut shared.end, End::Taken) {
            End::Open => {
                shared.end = End::Open;
                None
            }
            End::Complete(with) => Some(Next::Complete(with)),
            End::Aborted(reason) => Some(Next::Aborted(reason)),
            End::Taken => Some(Next::Aborted(Reason::AlreadyEnded)),
        }
    }

    /// As [`PipeReader::try_next`], arranging to be woken.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<T>> {
        match self.try_next() {
            Some(next) => Poll::Ready(next),
            None => {
                let mut shared = self.0.borrow_mut();
                store(&mut shared.reader, cx);
                wake(&mut shared.wanted);
                Poll::Pending
            }
        }
    }

    /// Waits for the next piece of content or the end.
    pub async fn next(&mut self) -> Next<T> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Bytes of content that wait to be read.
    pub fn buffered_bytes(&self) -> usize {
        self.0.borrow().content_bytes
    }

    /// Whether something (content or the end) can be taken without waiting.
    pub fn is_ready(&self) -> bool {
        let shared = self.0.borrow();
        !shared.queue.is_empty() || !matches!(shared.end, End::Open)
    }

    /// Whether the writer has ended the content as whole and how many bytes are left to read, so that a
    /// sender can say the length of content that is already here.
    pub fn complete_bytes(&self) -> Option<usize> {
        let shared = self.0.borrow();
        matches!(shared.end, End::Complete(_)).then_some(shared.content_bytes)
    }
}

impl<T> Drop for PipeReader<T> {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.reader_gone = true;
        shared.queue.clear();
        (shared.charged_bytes, shared.content_bytes) = (0, 0);
        wake(&mut shared.writer);
    }
}

impl<T> std::fmt::Debug for PipeWriter<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PipeWriter({} bytes buffered)", self.buffered_bytes())
    }
}

impl<T> std::fmt::Debug for PipeReader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PipeReader({} bytes buffered)", self.buffered_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counter() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (Arc::clone(&count), Waker::from(count))
    }

    #[test]
    fn content_arrives_in_order_and_then_the_end() {
        let (mut w, mut r) = pipe::<&str>(4096);
        w.push(&mut Bytes::from_static(b"ab")).unwrap();
        w.push(&mut Bytes::from_static(b"c")).unwrap();
        assert_eq!((w.buffered_bytes(), r.complete_bytes()), (3, None));
        w.complete("trailers");
        assert_eq!(r.complete_bytes(), Some(3));
        assert_eq!(r.try_next(), Some(Next::Data(Bytes::from_static(b"ab"))));
        assert_eq!(r.try_next(), Some(Next::Data(Bytes::from_static(b"c"))));
        assert_eq!(r.try_next(), Some(Next::Complete("trailers")));
        assert_eq!(r.try_next(), Some(Next::Aborted(Reason::AlreadyEnded)));
    }

    /// Invariant 9: only an explicit end is a whole end.
    #[test]
    fn a_dropped_writer_has_aborted() {
        let (mut w, mut r) = pipe::<()>(4096);
        w.push(&mut Bytes::from_static(b"half")).unwrap();
        drop(w);
        assert_eq!(r.try_next(), Some(Next::Data(Bytes::from_static(b"half"))));
        assert_eq!(r.try_next(), Some(Next::Aborted(Reason::WriterGone)));
        let (w, mut r) = pipe::<()>(4096);
        w.abort(Reason::Truncated);
        assert_eq!(r.try_next(), Some(Next::Aborted(Reason::Truncated)));
    }

    #[test]
    fn a_full_pipe_holds_the_writer_back_until_the_reader_reads() {
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let (mut w, mut r) = pipe::<()>(100);
        let mut chunk = Bytes::from(vec![7; 50]);
        assert_eq!(w.push(&mut chunk), Ok(36));
        assert_eq!(chunk.len(), 14);
        assert_eq!(w.push(&mut chunk), Ok(0));
        assert!(w.poll_ready(&mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(matches!(r.try_next(), Some(Next::Data(d)) if d.len() == 36));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(w.poll_ready(&mut cx), Poll::Ready(Ok(36)));
    }

    /// Many tiny chunks cost what they cost: bookkeeping counts against the capacity.
    #[test]
    fn tiny_chunks_are_charged_for_their_bookkeeping() {
        let (mut w, _r) = pipe::<()>(65_536);
        let mut chunks = 0;
        while w.push(&mut Bytes::from_static(b"x")) == Ok(1) {
            chunks += 1;
        }
        assert!(chunks <= 65_536 / CHUNK_OVERHEAD_BYTES, "{chunks}");
    }

    #[test]
    fn a_dropped_reader_is_seen_at_once() {
        let (count, waker) = counter();
        let mut cx = Context::from_waker(&waker);
        let (mut w, r) = pipe::<()>(100);
        w.push(&mut Bytes::from_static(b"x")).unwrap();
        assert!(w.poll_reader_gone(&mut cx).is_pending());
        drop(r);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(w.poll_reader_gone(&mut cx), Poll::Ready(()));
        assert_eq!(w.poll_ready(&mut cx), Poll::Ready(Err(ReaderGone)));
        assert_eq!(w.push(&mut Bytes::from_static(b"y")), Err(ReaderGone));
        assert_eq!(w.buffered_bytes(), 0);
    }

    #[tokio::test]
    async fn a_writer_learns_that_content_is_wanted() {
        let (mut writer, mut reader) = pipe::<()>(1000);
        let first = poll_fn(|cx| Poll::Ready(writer.poll_wanted(cx).is_ready())).await;
        assert!(!first, "nobody has asked yet");
        let (next, ()) = tokio::join!(reader.next(), async {
            poll_fn(|cx| writer.poll_wanted(cx)).await;
            writer.push(&mut Bytes::from_static(b"x")).unwrap();
        });
        assert_eq!(next, Next::Data(Bytes::from_static(b"x")));
    }

    #[tokio::test(flavor = "local")]
    async fn a_small_pipe_carries_a_large_content() {
        let (mut w, mut r) = pipe::<u32>(200);
        let sent: Vec<u8> = (0..10_000u32).map(|i| i as u8).collect();
        let data = Bytes::from(sent.clone());
        let writer = tokio::task::spawn_local(async move {
            w.send(data).await.unwrap();
            w.complete(7);
        });
        let mut got = Vec::new();
        loop {
            match r.next().await {
                Next::Data(chunk) => got.extend_from_slice(&chunk),
                Next::Complete(with) => break assert_eq!(with, 7),
                Next::Aborted(reason) => panic!("{reason}"),
            }
        }
        writer.await.unwrap();
        assert_eq!(got, sent);
    }
}
