//! Content in the cache: blocks in memory or on disk, content that is still arriving, and the reader that
//! gives any of them out as chunks with an explicit end. Knows no HTTP.
//!
//! A fill is written by one task and read by many, on any worker, from the first octet on, while it is still
//! arriving. Readers share blocks without copying; only the unfinished last block is copied out. A fill that
//! breaks off ends for every reader as `Aborted`, never as complete (invariant 9 of the house).

use crate::disk::{Body, Unfinished};
use bytes::Bytes;
use eleven_net::pipe::{Next, Reason};
use eleven_semantics::range::Span;
use std::collections::VecDeque;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;

/// Size of a block of content, in memory and on disk: the unit of checksums, and large enough that a request
/// for 1 MiB touches sixteen of them.
pub const BLOCK_BYTES: usize = 65_536;

/// How far a fill that is not kept may run ahead of its slowest reader.
const PASS_WINDOW_BYTES: u64 = 1 << 20;

/// Blocks of a fill to disk that stay in memory for readers close behind.
const SPILL_WINDOW_BLOCKS: usize = 8;

/// Stored content, cheap to clone.
#[derive(Clone)]
pub enum Content {
    /// In memory, in one piece.
    Whole(Bytes),
    /// In memory: blocks of [`BLOCK_BYTES`], the last one shorter, and the length of all.
    Blocks(Arc<[Bytes]>, u64),
    /// On disk.
    Disk(Arc<Body>),
    /// Still arriving.
    Filling(Arc<Fill>),
    /// Parts of a representation, in memory.
    Parts(Arc<Parts>),
}

/// Parts of a representation: sorted, not touching.
pub struct Parts(pub Vec<(Span, Bytes)>);

impl Content {
    /// The empty content.
    pub fn empty() -> Content {
        Content::Whole(Bytes::new())
    }

    /// Its length, if known already. Of parts: what is held.
    pub fn length(&self) -> Option<u64> {
        match self {
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Blocks(_, length) => Some(*length),
            Content::Disk(body) => Some(body.length()),
            Content::Filling(fill) => fill.expected(),
            Content::Parts(parts) => Some(parts.0.iter().map(|(span, _)| span.len()).sum()),
        }
    }

    /// Octets of memory it holds.
    pub fn memory_bytes(&self) -> u64 {
        match self {
            Content::Disk(_) | Content::Filling(_) => 0,
            other => other.length().unwrap_or(0),
        }
    }

    /// A reader of all of it, or of one span of the representation. `None` if that span is not held, or if a
    /// fill has already let its beginning go.
    pub fn reader(&self, span: Option<Span>) -> Option<Reader> {
        if let Content::Parts(parts) = self {
            let span = span?;
            let (held, bytes) =
                parts.0.iter().find(|(held, _)| held.first <= span.first && span.last <= held.last)?;
            let from = (span.first - held.first) as usize;
            let piece = bytes.slice(from..from + span.len() as usize);
            return Some(Reader::of(piece));
        }
        let (at, end) = match (span, self.length()) {
            (None, length) => (0, length),
            (Some(span), length) => {
                if length.is_some_and(|length| span.last >= length) {
                    return None;
                }
                (span.first, Some(span.last + 1))
            }
        };
        let source = match self {
            Content::Whole(bytes) => Source::Whole(bytes.clone()),
            Content::Blocks(blocks, _) => Source::Blocks(blocks.clone()),
            Content::Disk(body) => {
                Source::Disk { body: body.clone(), reading: None, file: None, ready: VecDeque::new() }
            }
            Content::Filling(fill) => Source::Filling { follower: Fill::follow(fill, at)?, reading: None },
            Content::Parts(_) => return None,
        };
        Some(Reader { source, at, end })
    }
}

/// Gives out content as chunks, and says how it ends.
pub struct Reader {
    source: Source,
    /// Position of the next octet.
    at: u64,
    /// Position after the last octet wanted, if known.
    end: Option<u64>,
}

enum Source {
    Whole(Bytes),
    Blocks(Arc<[Bytes]>),
    Disk { body: Arc<Body>, reading: Reading, file: Option<Arc<File>>, ready: VecDeque<Bytes> },
    Filling { follower: Follower, reading: Reading },
}

impl Reader {
    /// A reader of bytes in memory.
    pub fn of(bytes: Bytes) -> Reader {
        let end = bytes.len() as u64;
        Reader { source: Source::Whole(bytes), at: 0, end: Some(end) }
    }

    /// Position of the next octet in the representation.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// How many octets are still to come, if known.
    pub fn remaining(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.at))
    }

    /// Everything that is still to come, if it lies in memory in one piece: then nothing needs to be awaited.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        let (at, end) = (self.at, self.end?);
        let piece = match &self.source {
            Source::Whole(bytes) => bytes.slice(at as usize..end as usize),
            Source::Blocks(blocks)
                if at == end || at as usize / BLOCK_BYTES == (end - 1) as usize / BLOCK_BYTES =>
            {
                if at == end { Bytes::new() } else { slice_block(blocks, at, end) }
            }
            _ => return None,
        };
        self.at = end;
        Some(piece)
    }

    /// Everything that is still to come, as pieces, if all of it lies in memory.
    pub fn take_pieces(&mut self) -> Option<Vec<Bytes>> {
        if let Some(whole) = self.take_whole() {
            return Some(vec![whole]);
        }
        let (Source::Blocks(blocks), Some(end)) = (&self.source, self.end) else { return None };
        let mut pieces = Vec::with_capacity((end - self.at) as usize / BLOCK_BYTES + 2);
        while self.at < end {
            let piece = slice_block(blocks, self.at, end);
            if piece.is_empty() {
                return None;
            }
            self.at += piece.len() as u64;
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// The next chunk, or how the content ended. After an end it is [`Reason::AlreadyEnded`] only where the
    /// source knows; do not ask again.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>> {
        if self.end == Some(self.at) && !matches!(self.source, Source::Filling { .. }) {
            return Poll::Ready(Next::Complete(()));
        }
        let next = match &mut self.source {
            Source::Whole(bytes) => {
                let end = self.end.unwrap_or(bytes.len() as u64);
                Next::Data(bytes.slice(self.at as usize..end as usize))
            }
            Source::Blocks(blocks) => Next::Data(slice_block(blocks, self.at, self.end.unwrap_or(u64::MAX))),
            Source::Disk { body, reading, file, ready } => {
                if ready.is_empty() {
                    match std::task::ready!(poll_disk(body, reading, file, self.at, cx)) {
                        Ok(blocks) => ready.extend(blocks),
                        Err(reason) => return Poll::Ready(Next::Aborted(reason)),
                    }
                }
                // Only the first block of a range begins in its middle.
                let from = (self.at % BLOCK_BYTES as u64) as usize;
                match ready.pop_front() {
                    Some(block) if from < block.len() => Next::Data(block.slice(from..)),
                    _ => Next::Aborted(Reason::Storage),
                }
            }
            Source::Filling { follower, reading } => {
                std::task::ready!(follower.poll_next(reading, self.at, self.end, cx))
            }
        };
        if let Next::Data(mut data) = next {
            if let Some(end) = self.end {
                data.truncate((end - self.at).min(data.len() as u64) as usize);
            }
            self.at += data.len() as u64;
            return Poll::Ready(Next::Data(data));
        }
        Poll::Ready(next)
    }

    /// As [`Reader::poll_next`], to await.
    pub async fn next(&mut self) -> Next<()> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// If the content ended before its end.
    pub async fn read_all(&mut self) -> Result<Vec<u8>, Reason> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Next::Data(data) => all.extend_from_slice(&data),
                Next::Complete(()) => return Ok(all),
                Next::Aborted(reason) => return Err(reason),
            }
        }
    }
}

/// What of `blocks` from `at` on lies in one block, not beyond `end`.
fn slice_block(blocks: &[Bytes], at: u64, end: u64) -> Bytes {
    let (index, from) = ((at / BLOCK_BYTES as u64) as usize, (at % BLOCK_BYTES as u64) as usize);
    let Some(block) = blocks.get(index) else { return Bytes::new() };
    let until = (end - (at - from as u64)).min(block.len() as u64) as usize;
    block.slice(from..until)
}

/// Blocks that one trip to the blocking pool reads: few enough to start soon, enough to pay for the trip.
const READ_BLOCKS: u64 = 4;

/// What a read on the blocking pool brings: the file, kept open so that an eviction meanwhile does no harm,
/// and some blocks.
pub type Read = Result<(Option<Arc<File>>, Vec<Bytes>), Reason>;

type Reading = Option<JoinHandle<Read>>;

fn poll_disk(
    body: &Arc<Body>,
    reading: &mut Reading,
    file: &mut Option<Arc<File>>,
    at: u64,
    cx: &mut Context<'_>,
) -> Poll<Result<Vec<Bytes>, Reason>> {
    let task = reading.get_or_insert_with(|| {
        let (body, file) = (body.clone(), file.take());
        tokio::task::spawn_blocking(move || body.read_blocks(file, at / BLOCK_BYTES as u64, READ_BLOCKS))
    });
    let result = std::task::ready!(Pin::new(task).poll(cx));
    *reading = None;
    let (opened, blocks) = result.unwrap_or(Err(Reason::Storage))?;
    *file = opened;
    Poll::Ready(Ok(blocks))
}

/// What becomes of the octets of a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// All stay in memory.
    Memory,
    /// They go to disk; a few blocks stay in memory.
    Disk,
    /// None are kept: they pass through, no faster than the slowest reader.
    Pass,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Complete,
    Aborted(Reason),
}

struct State {
    keeping: Keeping,
    /// Full blocks in memory; the first of them is block number `first`.
    blocks: VecDeque<Bytes>,
    first: u64,
    /// The block that is not full yet.
    open: Vec<u8>,
    length: u64,
    end: End,
    /// The file behind it, and how many of its blocks can be read.
    file: Option<(Arc<Unfinished>, u64)>,
    /// Position and waker of each reader; `None` where one has gone.
    readers: Vec<Option<(u64, Option<Waker>)>>,
    writer: Option<Waker>,
}

impl State {
    fn wake_readers(&mut self) {
        for (_, waker) in self.readers.iter_mut().flatten() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    fn slowest(&self) -> Option<u64> {
        self.readers.iter().flatten().map(|(at, _)| *at).min()
    }

    /// Position of the first octet that is still in memory or on disk.
    fn beginning(&self) -> u64 {
        if self.keeping == Keeping::Disk && self.file.is_some() { 0 } else { self.first * BLOCK_BYTES as u64 }
    }

    /// Drops the blocks that nobody will ask for again.
    fn trim(&mut self) {
        let keep_from = match self.keeping {
            Keeping::Memory => return,
            Keeping::Disk => {
                let written = self.file.as_ref().map_or(0, |(_, blocks)| *blocks);
                let recent =
                    (self.first + self.blocks.len() as u64).saturating_sub(SPILL_WINDOW_BLOCKS as u64);
                written.min(recent)
            }
            Keeping::Pass => self.slowest().unwrap_or(self.length) / BLOCK_BYTES as u64,
        };
        while self.first < keep_from && self.blocks.pop_front().is_some() {
            self.first += 1;
        }
    }
}

/// Content on its way into the store: one writer, many readers.
pub struct Fill {
    state: Mutex<State>,
    expected: Option<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the numbers consistent: every change below is made of steps that cannot panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fill {
    /// A fill of `expected` octets, if that is known.
    pub fn new(expected: Option<u64>, keeping: Keeping) -> Arc<Fill> {
        // Nothing is allocated by a length that a peer merely declared, beyond one block.
        let open = Vec::with_capacity(expected.unwrap_or(4096).min(BLOCK_BYTES as u64) as usize);
        Arc::new(Fill {
            expected,
            state: Mutex::new(State {
                keeping,
                blocks: VecDeque::new(),
                first: 0,
                open,
                length: 0,
                end: End::Open,
                file: None,
                readers: Vec::new(),
                writer: None,
            }),
        })
    }

    /// The length that was announced, or the real one once complete.
    pub fn expected(&self) -> Option<u64> {
        self.expected.or_else(|| {
            let state = lock(&self.state);
            (state.end == End::Complete).then_some(state.length)
        })
    }

    /// Octets that have arrived.
    pub fn length(&self) -> u64 {
        lock(&self.state).length
    }

    /// Readers at this moment.
    pub fn readers(&self) -> usize {
        lock(&self.state).readers.iter().flatten().count()
    }

    /// Whether it ended, and how: `Some(Ok)` if complete.
    pub fn ended(&self) -> Option<Result<(), Reason>> {
        match lock(&self.state).end {
            End::Open => None,
            End::Complete => Some(Ok(())),
            End::Aborted(reason) => Some(Err(reason)),
        }
    }

    /// A reader from `at` on; `None` if those octets are gone.
    fn follow(fill: &Arc<Fill>, at: u64) -> Option<Follower> {
        let mut state = lock(&fill.state);
        if state.beginning() > at || matches!(state.end, End::Aborted(_)) {
            return None;
        }
        let place = state.readers.iter().position(Option::is_none).unwrap_or_else(|| {
            state.readers.push(None);
            state.readers.len() - 1
        });
        state.readers[place] = Some((at, None));
        drop(state);
        Some(Follower { fill: fill.clone(), place })
    }

    /// Waits until more may be pushed. Only a fill that is not kept ever waits: for its slowest reader.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.keeping != Keeping::Pass {
            return Poll::Ready(());
        }
        match state.slowest() {
            Some(slowest) if state.length - slowest.min(state.length) >= PASS_WINDOW_BYTES => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Adds octets. Returns the blocks that became full, for the disk.
    pub fn push(&self, mut data: &[u8]) -> Vec<Bytes> {
        let mut full = Vec::new();
        let mut state = lock(&self.state);
        if state.end != End::Open {
            return full;
        }
        state.length += data.len() as u64;
        while !data.is_empty() {
            let room = BLOCK_BYTES - state.open.len();
            let (now, later) = data.split_at(data.len().min(room));
            state.open.extend_from_slice(now);
            data = later;
            if state.open.len() == BLOCK_BYTES {
                let block = Bytes::from(std::mem::take(&mut state.open));
                state.open.reserve(data.len().min(BLOCK_BYTES));
                full.push(block.clone());
                state.blocks.push_back(block);
            }
        }
        state.trim();
        state.wake_readers();
        full
    }

    /// What becomes of the octets changes. From memory to disk: the blocks so far are returned, to be written.
    pub fn change_keeping(&self, keeping: Keeping, file: Option<Arc<Unfinished>>) -> Vec<Bytes> {
        let mut state = lock(&self.state);
        state.keeping = keeping;
        if keeping == Keeping::Pass {
            // What is on disk stays readable for those who follow; nobody may begin there any more.
            return Vec::new();
        }
        state.file = file.map(|file| (file, 0));
        state.blocks.iter().cloned().collect()
    }

    /// The first `blocks` blocks can be read from the file now.
    pub fn written(&self, blocks: u64) {
        let mut state = lock(&self.state);
        if let Some((_, written)) = &mut state.file {
            *written = blocks;
        }
        state.trim();
    }

    /// The octets of the last block, which is not full.
    pub fn open_block(&self) -> Bytes {
        Bytes::copy_from_slice(&lock(&self.state).open)
    }

    /// What was gathered in memory, as stored content. Only of a complete fill that is kept in memory.
    pub fn gathered(&self) -> Option<Content> {
        let mut state = lock(&self.state);
        if state.keeping != Keeping::Memory || state.end != End::Complete || state.first != 0 {
            return None;
        }
        let length = state.length;
        if state.blocks.is_empty() {
            let open = std::mem::take(&mut state.open);
            let whole = Bytes::from(open.into_boxed_slice());
            // Readers that still follow find the octets where they were.
            if !whole.is_empty() {
                state.blocks.push_back(whole.clone());
            }
            return Some(Content::Whole(whole));
        }
        let mut blocks: Vec<Bytes> = state.blocks.iter().cloned().collect();
        if !state.open.is_empty() {
            let last = Bytes::from(std::mem::take(&mut state.open).into_boxed_slice());
            state.blocks.push_back(last.clone());
            blocks.push(last);
        }
        Some(Content::Blocks(blocks.into(), length))
    }

    /// Ends it: everything has arrived. A different length than announced is no end (C29).
    pub fn complete(&self) -> bool {
        let mut state = lock(&self.state);
        if state.end == End::Open {
            let whole = self.expected.is_none_or(|expected| expected == state.length);
            state.end = if whole { End::Complete } else { End::Aborted(Reason::Truncated) };
            state.wake_readers();
        }
        state.end == End::Complete
    }

    /// Ends it before its end.
    pub fn abort(&self, reason: Reason) {
        let mut state = lock(&self.state);
        if state.end == End::Open {
            state.end = End::Aborted(reason);
            state.wake_readers();
        }
    }
}

/// One reader's place in a fill.
struct Follower {
    fill: Arc<Fill>,
    place: usize,
}

enum Step {
    Have(Next<()>),
    FromDisk(Arc<Unfinished>),
}

impl Follower {
    fn poll_next(
        &mut self,
        reading: &mut Reading,
        at: u64,
        end: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Next<()>> {
        if reading.is_none() {
            match std::task::ready!(self.poll_step(at, end, cx)) {
                Step::Have(next) => return Poll::Ready(next),
                Step::FromDisk(file) => {
                    let block = at / BLOCK_BYTES as u64;
                    *reading = Some(tokio::task::spawn_blocking(move || {
                        file.read_block(block).map(|block| (None, vec![block]))
                    }));
                }
            }
        }
        let Some(task) = reading else { return Poll::Ready(Next::Aborted(Reason::Storage)) };
        let result = std::task::ready!(Pin::new(task).poll(cx));
        *reading = None;
        let from = (at % BLOCK_BYTES as u64) as usize;
        Poll::Ready(match result.unwrap_or(Err(Reason::Storage)) {
            Ok((_, blocks)) if blocks.first().is_some_and(|b| b.len() > from) => {
                Next::Data(blocks[0].slice(from..))
            }
            Ok(_) => Next::Aborted(Reason::Storage),
            Err(reason) => Next::Aborted(reason),
        })
    }

    fn poll_step(&mut self, at: u64, end: Option<u64>, cx: &mut Context<'_>) -> Poll<Step> {
        let mut state = lock(&self.fill.state);
        if let Some(Some(place)) = state.readers.get_mut(self.place) {
            place.0 = at;
        }
        if state.keeping == Keeping::Pass {
            state.trim();
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
        }
        let at_end = end.is_some_and(|end| at >= end);
        if at_end && end != self.fill.expected {
            // A range that ends before the fill does: its octets are all there.
            return Poll::Ready(Step::Have(Next::Complete(())));
        }
        if at < state.length && !at_end {
            let (block, from) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
            if block < state.first {
                return Poll::Ready(match &state.file {
                    Some((file, written)) if block < *written => Step::FromDisk(file.clone()),
                    _ => Step::Have(Next::Aborted(Reason::Storage)),
                });
            }
            let data = match state.blocks.get((block - state.first) as usize) {
                Some(bytes) => bytes.slice(from..),
                None => Bytes::copy_from_slice(&state.open[from..]),
            };
            return Poll::Ready(Step::Have(Next::Data(data)));
        }
        match state.end {
            End::Complete => Poll::Ready(Step::Have(Next::Complete(()))),
            End::Aborted(reason) => Poll::Ready(Step::Have(Next::Aborted(reason))),
            End::Open => {
                if let Some(Some(place)) = state.readers.get_mut(self.place) {
                    place.1 = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = lock(&self.fill.state);
        if let Some(place) = state.readers.get_mut(self.place) {
            *place = None;
        }
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(length: usize) -> (Vec<u8>, Content) {
        let octets: Vec<u8> = (0..length).map(|i| (i / 3) as u8).collect();
        let blocks: Vec<Bytes> = octets.chunks(BLOCK_BYTES).map(Bytes::copy_from_slice).collect();
        (octets, Content::Blocks(blocks.into(), length as u64))
    }

    fn spans(length: u64) -> Vec<Span> {
        let block = BLOCK_BYTES as u64;
        let edges = [0, 1, block - 1, block, block + 1, 2 * block - 1, 2 * block, length - 1];
        let all = edges.iter().flat_map(|&first| edges.iter().map(move |&last| Span { first, last }));
        all.filter(|span| span.first <= span.last && span.last < length).collect()
    }

    #[tokio::test]
    async fn every_span_of_blocks() {
        let (octets, content) = blocks(3 * BLOCK_BYTES - 5);
        assert_eq!(content.reader(None).unwrap().read_all().await.unwrap(), octets);
        for span in spans(octets.len() as u64) {
            let expected = &octets[span.first as usize..=span.last as usize];
            assert_eq!(content.reader(Some(span)).unwrap().read_all().await.unwrap(), expected, "{span:?}");
            let pieces = content.reader(Some(span)).unwrap().take_pieces().unwrap();
            assert_eq!(pieces.concat(), expected, "{span:?}");
            if let Some(whole) = content.reader(Some(span)).unwrap().take_whole() {
                assert_eq!(whole, expected);
            }
        }
        let beyond = Span { first: 0, last: octets.len() as u64 };
        assert!(content.reader(Some(beyond)).is_none());
    }

    #[tokio::test]
    async fn readers_follow_a_fill_from_anywhere() {
        let (octets, _) = blocks(2 * BLOCK_BYTES + 777);
        let fill = Fill::new(Some(octets.len() as u64), Keeping::Memory);
        let content = Content::Filling(fill.clone());
        let mut readers: Vec<(Span, Reader)> =
            spans(octets.len() as u64).into_iter().map(|s| (s, content.reader(Some(s)).unwrap())).collect();
        let mut whole = content.reader(None).unwrap();
        let writer = async {
            for chunk in octets.chunks(997) {
                fill.push(chunk);
                tokio::task::yield_now().await;
            }
            assert!(fill.complete());
        };
        let (_, all) = tokio::join!(writer, whole.read_all());
        assert_eq!(all.unwrap(), octets);
        for (span, reader) in &mut readers {
            let expected = &octets[span.first as usize..=span.last as usize];
            assert_eq!(reader.read_all().await.unwrap(), expected, "{span:?}");
        }
        // What was gathered is the same, and readers that are late still read on.
        let mut late = content.reader(None).unwrap();
        assert!(matches!(late.next().await, Next::Data(_)));
        let gathered = fill.gathered().unwrap();
        assert_eq!(gathered.length(), Some(octets.len() as u64));
        assert_eq!(gathered.reader(None).unwrap().take_pieces().unwrap().concat(), octets);
        assert!(late.read_all().await.is_ok());
        assert_eq!(fill.readers(), 1 + readers.len() + 1);
    }

    /// Invariant 9: only a fill that ended whole ends whole for its readers (C29).
    #[tokio::test]
    async fn ends_are_told_apart() {
        for (expected, pushed, aborted, end) in [
            (Some(5), &b"12345"[..], None, Ok(())),
            (None, b"12345", None, Ok(())),
            (None, b"", None, Ok(())),
            (Some(6), b"12345", None, Err(Reason::Truncated)),
            (Some(4), b"12345", None, Err(Reason::Truncated)),
            (Some(5), b"12345", Some(Reason::Broken), Err(Reason::Broken)),
        ] {
            let fill = Fill::new(expected, Keeping::Memory);
            let mut reader = Content::Filling(fill.clone()).reader(None).unwrap();
            fill.push(pushed);
            match aborted {
                Some(reason) => fill.abort(reason),
                None => assert_eq!(fill.complete(), end.is_ok()),
            }
            assert_eq!(reader.read_all().await.map(|_| ()), end, "{expected:?} {pushed:?}");
            assert_eq!(fill.ended(), Some(end));
            assert_eq!(fill.gathered().is_some(), end.is_ok());
            // The first end counts.
            fill.abort(Reason::Cancelled);
            assert_eq!(fill.ended(), Some(end));
        }
    }

    #[tokio::test]
    async fn a_fill_that_is_not_kept_waits_for_its_slowest_reader() {
        let fill = Fill::new(None, Keeping::Pass);
        let content = Content::Filling(fill.clone());
        let (mut fast, mut slow) = (content.reader(None).unwrap(), content.reader(None).unwrap());
        let chunk = vec![7; BLOCK_BYTES];
        let full = || async {
            tokio::time::timeout(std::time::Duration::ZERO, poll_fn(|cx| fill.poll_room(cx))).await
        };
        let mut pushed = 0;
        while full().await.is_ok() {
            fill.push(&chunk);
            pushed += 1;
            assert!(matches!(fast.next().await, Next::Data(_)));
            assert!(pushed < 100, "it never waits");
        }
        assert_eq!(pushed * BLOCK_BYTES as u64 / PASS_WINDOW_BYTES, 1);
        // One that falls behind what was let go cannot begin; one that reads on makes room.
        assert!(matches!(slow.next().await, Next::Data(_)));
        assert!(matches!(slow.next().await, Next::Data(_)));
        assert!(full().await.is_ok());
        assert!(content.reader(None).is_none());
        drop(slow);
        fill.push(&chunk);
        assert!(full().await.is_ok());
    }
}
