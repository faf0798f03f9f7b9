//! A connection in memory for simulation: two ends, each direction with its own faults (short reads and
//! writes, spurious readiness, delay, a bounded buffer, a reset or an end at byte N), all drawn from one seed.
//! The same seed gives the same run. Delays stand on tokio's time, so paused time makes them free.
//!
//! It behaves as a TCP connection does where a program can tell: an end dropped with unread bytes resets the
//! connection, writing to a closed end breaks the pipe, half-closing keeps the other direction.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// The faults of one direction.
#[derive(Debug, Clone)]
pub struct Link {
    /// Bytes in flight at most; a writer waits when they are reached.
    pub capacity_bytes: usize,
    /// Reads and writes move a random number of bytes, from one up to what was asked.
    pub split: bool,
    /// In how many of a hundred calls a ready direction claims it is not (fault F02).
    pub spurious_block_percent: u8,
    /// Each write arrives after a random time between these, never before an earlier one.
    pub delay: (Duration, Duration),
    /// After this many bytes the connection is reset, in both directions.
    pub reset_after_bytes: Option<u64>,
    /// After this many bytes the reader sees the end; the writer does not notice (half-close by a middlebox,
    /// or a writer that died at that byte).
    pub end_after_bytes: Option<u64>,
}

impl Default for Link {
    /// No faults, 64 KiB in flight.
    fn default() -> Link {
        Link {
            capacity_bytes: 65_536,
            split: false,
            spurious_block_percent: 0,
            delay: (Duration::ZERO, Duration::ZERO),
            reset_after_bytes: None,
            end_after_bytes: None,
        }
    }
}

impl Link {
    /// A link that splits everything, in small buffers, with spurious readiness: the usual bad weather.
    pub fn rough() -> Link {
        Link { capacity_bytes: 1000, split: true, spurious_block_percent: 20, ..Link::default() }
    }
}

/// One direction of a connection.
struct Direction {
    link: Link,
    random: Random,
    /// Segments with the time at which they arrive.
    segments: VecDeque<(Instant, VecDeque<u8>)>,
    in_flight_bytes: usize,
    written_bytes: u64,
    last_arrival: Option<Instant>,
    /// The writer ended this direction; it arrives after everything before it.
    ended: Option<Instant>,
    reset: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A small deterministic generator (splitmix64). Not for secrets.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 1 to `most`.
    fn up_to(&mut self, most: usize) -> usize {
        1 + (self.next() % most.max(1) as u64) as usize
    }

    fn percent(&mut self, percent: u8) -> bool {
        percent > 0 && self.next() % 100 < u64::from(percent)
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

impl Direction {
    fn new(link: Link, seed: u64) -> Direction {
        Direction {
            link,
            random: Random(seed),
            segments: VecDeque::new(),
            in_flight_bytes: 0,
            written_bytes: 0,
            last_arrival: None,
            ended: None,
            reset: false,
            reader_gone: false,
            reader: None,
            writer: None,
            timer: None,
        }
    }

    fn wake_both(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// When what is written now arrives.
    fn arrival(&mut self) -> Instant {
        let (least, most) = self.link.delay;
        let spread = most.saturating_sub(least);
        let extra = match spread.as_nanos() as u64 {
            0 => Duration::ZERO,
            nanos => Duration::from_nanos(self.random.next() % nanos),
        };
        let at = (Instant::now() + least + extra).max(self.last_arrival.unwrap_or_else(Instant::now));
        self.last_arrival = Some(at);
        at
    }

    /// How many more bytes pass before the link ends the direction by itself.
    fn until_end(&self) -> u64 {
        self.link.end_after_bytes.map_or(u64::MAX, |n| n.saturating_sub(self.written_bytes))
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<Written> {
        if self.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.ended.is_some() && self.link.end_after_bytes.is_none() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if bytes.is_empty() {
            return Ok(Written { count: 0, reset: false });
        }
        if self.random.percent(self.link.spurious_block_percent) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.until_end() == 0 {
            // The writer does not notice; the bytes go nowhere.
            self.end();
            return Ok(Written { count: bytes.len(), reset: false });
        }
        if self.reader_gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = self.link.capacity_bytes.max(1).saturating_sub(self.in_flight_bytes);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut count = bytes.len().min(room);
        if self.link.split {
            count = self.random.up_to(count);
        }
        count = count.min(usize::try_from(self.until_end()).unwrap_or(usize::MAX));
        let mut reset = false;
        if let Some(limit) = self.link.reset_after_bytes {
            let left = usize::try_from(limit.saturating_sub(self.written_bytes)).unwrap_or(usize::MAX);
            if count >= left {
                (count, reset) = (left, true);
            }
        }
        if count == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let at = self.arrival();
        self.segments.push_back((at, bytes[..count].iter().copied().collect()));
        self.in_flight_bytes += count;
        self.written_bytes += count as u64;
        if self.until_end() == 0 {
            self.end();
        }
        wake(&mut self.reader);
        Ok(Written { count, reset })
    }

    fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let now = Instant::now();
        let arrived = matches!(self.segments.front(), Some((at, _)) if *at <= now);
        if !arrived && self.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !arrived {
            let ended = self.segments.is_empty() && self.ended.is_some_and(|at| at <= now);
            return if ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        if into.is_empty() {
            return Ok(0);
        }
        if self.random.percent(self.link.spurious_block_percent) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut wanted = into.len();
        if self.link.split {
            let available = self.in_flight_bytes.min(wanted);
            wanted = self.random.up_to(available);
        }
        let mut got = 0;
        while got < wanted {
            match self.segments.front_mut() {
                Some((at, segment)) if *at <= now => {
                    while got < wanted {
                        let Some(byte) = segment.pop_front() else { break };
                        into[got] = byte;
                        got += 1;
                    }
                    if segment.is_empty() {
                        self.segments.pop_front();
                    }
                }
                _ => break,
            }
        }
        self.in_flight_bytes -= got;
        wake(&mut self.writer);
        Ok(got)
    }

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = match self.segments.front() {
            Some((at, _)) => Some(*at),
            None if self.reset => return Poll::Ready(()),
            None => self.ended,
        };
        let now = Instant::now();
        let Some(due) = due else {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if due <= now || self.reset {
            self.timer = None;
            return Poll::Ready(());
        }
        self.reader = Some(cx.waker().clone());
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        timer.as_mut().reset(due);
        timer.as_mut().poll(cx)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let full = self.in_flight_bytes >= self.link.capacity_bytes.max(1);
        if !full || self.reset || self.ended.is_some() || self.reader_gone {
            return Poll::Ready(());
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn end(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(self.arrival());
            self.wake_both();
        }
    }

    /// The connection is gone. What had arrived before stays readable only if `keep`: a reset that overtakes
    /// data throws it away.
    fn reset(&mut self, keep: bool) {
        self.reset = true;
        if !keep {
            self.segments.clear();
            self.in_flight_bytes = 0;
        }
        self.wake_both();
    }
}

struct Written {
    count: usize,
    reset: bool,
}

struct Shared {
    directions: [Direction; 2],
}

/// One end of a connection in memory. Dropping it closes the end, as dropping a socket does.
pub struct MemoryStream {
    shared: Rc<RefCell<Shared>>,
    /// Which direction this end writes; it reads the other.
    side: usize,
    reset_on_drop: bool,
}

/// A connection in memory: what the first end writes passes `forth`, what the second end writes passes `back`.
pub fn duplex(seed: u64, forth: Link, back: Link) -> (MemoryStream, MemoryStream) {
    let directions = [Direction::new(forth, seed), Direction::new(back, seed ^ 0x5bd1_e995_9d2c_4a17)];
    let shared = Rc::new(RefCell::new(Shared { directions }));
    let end = |side| MemoryStream { shared: Rc::clone(&shared), side, reset_on_drop: false };
    (end(0), end(1))
}

impl MemoryStream {
    /// Reads what has arrived. `Ok(0)` is the end; `WouldBlock` if nothing is there.
    ///
    /// # Errors
    /// `ConnectionReset` after a reset, and `WouldBlock`.
    pub fn try_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.shared.borrow_mut().directions[1 - self.side].try_read(into)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `ConnectionReset`, `BrokenPipe`, and `WouldBlock` if the buffer is full.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shared = self.shared.borrow_mut();
        let written = shared.directions[self.side].try_write(bytes);
        let reset = match &written {
            Ok(written) => written.reset,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        };
        if reset {
            shared.directions.iter_mut().for_each(|direction| direction.reset(true));
        }
        written.map(|written| written.count)
    }

    /// Ready when a read would not block.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.borrow_mut().directions[1 - self.side].poll_read_ready(cx)
    }

    /// Ready when a write would not block.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.borrow_mut().directions[self.side].poll_write_ready(cx)
    }

    /// Ends the direction this end writes.
    pub fn shutdown_write(&mut self) {
        self.shared.borrow_mut().directions[self.side].end();
    }

    /// From now on dropping this end resets the connection instead of closing it.
    pub fn set_linger_reset(&mut self) {
        self.reset_on_drop = true;
    }

    /// Bytes this end has written so far, delivered or not.
    pub fn written_bytes(&self) -> u64 {
        self.shared.borrow().directions[self.side].written_bytes
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let mut shared = self.shared.borrow_mut();
        let unread = !shared.directions[1 - self.side].segments.is_empty();
        if self.reset_on_drop || unread {
            // TCP answers unread data at close with a reset (RFC 1122 §4.2.2.13), which may overtake what
            // this end has written: the reason for a lingering close.
            shared.directions[self.side].reset(false);
            shared.directions[1 - self.side].reset(true);
        } else {
            shared.directions[self.side].end();
        }
        shared.directions[1 - self.side].reader_gone = true;
        shared.directions[1 - self.side].wake_both();
    }
}

impl std::fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryStream(side {})", self.side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    async fn read_to_end(stream: &mut Stream) -> (Vec<u8>, io::Result<()>) {
        let (mut got, mut buffer) = (Vec::new(), [0; 333]);
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => return (got, Ok(())),
                Ok(n) => got.extend_from_slice(&buffer[..n]),
                Err(error) => return (got, Err(error)),
            }
        }
    }

    fn streams(seed: u64, link: &Link) -> (Stream, Stream) {
        let (a, b) = duplex(seed, link.clone(), link.clone());
        (Stream::Memory(Box::new(a)), Stream::Memory(Box::new(b)))
    }

    /// Faults F01, F02, F04: whatever the weather, the bytes are the same, and the same seed is the same run.
    /// Fault F47.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn rough_links_deliver_the_same_bytes() {
        let sent: Vec<u8> = (0..20_000u32).map(|i| (i * 7) as u8).collect();
        let mut took = Vec::new();
        for seed in [1, 2, 3, 3] {
            let link = Link { delay: (Duration::from_millis(1), Duration::from_millis(20)), ..Link::rough() };
            let (mut a, mut b) = streams(seed, &link);
            let data = sent.clone();
            let start = Instant::now();
            let writer = tokio::task::spawn_local(async move {
                a.write_all(&data).await.unwrap();
                a.shutdown_write().await.unwrap();
                a
            });
            let (got, end) = read_to_end(&mut b).await;
            end.unwrap();
            assert_eq!(got, sent);
            writer.await.unwrap();
            took.push(start.elapsed());
        }
        assert_eq!(took[2], took[3]);
        assert_ne!(took[0], took[1]);
    }

    /// Faults F05 and F06: a reset or an end at every byte.
    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_reset_or_end_comes_at_the_byte_asked_for() {
        for at in 0..=10u64 {
            let link = Link { reset_after_bytes: Some(at), ..Link::default() };
            let (mut a, mut b) = streams(9, &link);
            let wrote = a.write_all(b"0123456789").await;
            assert_eq!(wrote.is_err(), at < 10, "{at}");
            let (got, end) = read_to_end(&mut b).await;
            assert_eq!(got, b"0123456789"[..at as usize]);
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

            let link = Link { end_after_bytes: Some(at), ..Link::default() };
            let (mut a, mut b) = streams(9, &link);
            a.write_all(b"0123456789").await.unwrap();
            let (got, end) = read_to_end(&mut b).await;
            end.unwrap();
            assert_eq!(got, b"0123456789"[..at as usize]);
        }
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn dropping_an_end_is_what_dropping_a_socket_is() {
        // Nothing unread: a clean end after the data.
        let (mut a, mut b) = streams(1, &Link::default());
        a.write_all(b"bye").await.unwrap();
        drop(a);
        let (got, end) = read_to_end(&mut b).await;
        assert!(end.is_ok() && got == b"bye");
        assert_eq!(b.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        // Something unread: a reset that overtakes the data.
        let (mut a, mut b) = streams(1, &Link::default());
        b.write_all(b"unread").await.unwrap();
        a.write_all(b"bye").await.unwrap();
        drop(a);
        let (got, end) = read_to_end(&mut b).await;
        assert!(got.is_empty());
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        // A reset asked for.
        let (mut a, mut b) = streams(1, &Link::default());
        a.set_linger_reset().unwrap();
        drop(a);
        assert!(read_to_end(&mut b).await.1.is_err());
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn half_close_keeps_the_other_direction() {
        let (mut a, mut b) = streams(1, &Link::default());
        a.shutdown_write().await.unwrap();
        assert_eq!(b.read(&mut [0; 8]).await.unwrap(), 0);
        b.write_all(b"still here").await.unwrap();
        let mut buffer = [0; 32];
        assert_eq!(a.read(&mut buffer).await.unwrap(), 10);
        assert_eq!(a.write_all(b"no").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_full_buffer_holds_the_writer() {
        let (mut a, mut b) = streams(1, &Link { capacity_bytes: 10, ..Link::default() });
        assert_eq!(a.try_write(&[1; 20]).unwrap(), 10);
        assert_eq!(a.try_write(&[1; 20]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(b.try_read(&mut [0; 4]).unwrap(), 4);
        assert_eq!(a.try_write(&[1; 20]).unwrap(), 4);
    }
}
