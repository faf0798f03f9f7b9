//! The access log: one line per exchange, in the common, the combined or a JSON format, or by a template.
//!
//! A worker formats the line into a buffer of its own; one thread per log writes the buffers out. A worker never waits
//! for a disk or a pipe: when its buffer is full the line is dropped and counted (faults L08, F10, F44). One exchange is
//! one line whatever the peer sent (L01–L04, L06), and what is secret does not get in (L05). The file is opened
//! anew when asked (SIGUSR1) or when it was renamed away (L07). Times are UTC (F39).

mod format;
mod template;

pub use format::Format;
pub use template::{InvalidTemplate, Template, WORDS};

use crate::record::Record;
use format::Texts;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Octets of lines one worker may have waiting. At 200 octets a line this is a burst of 5,000 requests.
pub const WAITING_BYTES_MAX: usize = 1 << 20;

/// The writer is woken early when a worker has this much waiting.
const WAITING_BYTES_EAGER: usize = 64 << 10;

/// How long a line may wait for others, so that a busy server writes few large blocks.
const GATHER: Duration = Duration::from_millis(100);

/// How long a flush or the end of the process waits for an output that does not move.
pub const STUCK_OUTPUT: Duration = Duration::from_secs(5);

/// How often the writer looks whether its file was renamed away.
const RENAME_CHECK: Duration = Duration::from_secs(1);

/// A log shared by all workers of the process. Dropping the last handle writes what is waiting.
pub struct AccessLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    format: Format,
    slots: Mutex<Vec<Arc<Mutex<Slot>>>>,
    signal: Mutex<Signal>,
    wake: Condvar,
    written: Condvar,
    reopen: AtomicBool,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Signal {
    /// Some slot has lines.
    pending: bool,
    /// Do not gather: somebody waits, or a slot is filling up.
    hurry: bool,
    stop: bool,
    /// The writer has returned.
    ended: bool,
    /// Flushes asked for, and flushes done.
    asked: u64,
    done: u64,
}

/// What one worker has waiting, and what it needs to write the next line cheaply.
struct Slot {
    lines: Vec<u8>,
    clock: Texts,
    order: u64,
}

/// One worker's end of a log.
#[derive(Clone)]
pub struct Worker {
    slot: Arc<Mutex<Slot>>,
    shared: Arc<Shared>,
    is_timed: bool,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({:?})", self.shared.format)
    }
}

impl std::fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessLog({:?})", self.shared.format)
    }
}

/// Where the lines go.
enum Output {
    Stdout,
    File {
        path: PathBuf,
        file: File,
        checked: Instant,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

/// A poisoned lock means that a formatter panicked half-way through a line; the buffer is still text.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AccessLog {
    /// A log on standard output.
    ///
    /// # Errors
    /// If the writer's thread cannot be started.
    pub fn stdout(format: Format) -> io::Result<AccessLog> {
        AccessLog::start(format, Output::Stdout)
    }

    /// A log appended to a file, which is created if needed.
    ///
    /// # Errors
    /// If the file cannot be opened or the writer's thread cannot be started.
    pub fn file(format: Format, path: &Path) -> io::Result<AccessLog> {
        let file = open(path)?;
        AccessLog::start(format, Output::File { path: path.into(), file, checked: Instant::now() })
    }

    fn start(format: Format, output: Output) -> io::Result<AccessLog> {
        let shared = Arc::new(Shared {
            format,
            slots: Mutex::default(),
            signal: Mutex::default(),
            wake: Condvar::new(),
            written: Condvar::new(),
            reopen: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_loop(&theirs, output))?;
        let mut in_use = lock(&IN_USE);
        in_use.retain(|log| log.strong_count() > 0);
        in_use.push(Arc::downgrade(&shared));
        drop(in_use);
        Ok(AccessLog { shared, writer: Mutex::new(Some(writer)) })
    }

    /// An end of the log for one worker.
    pub fn worker(&self) -> Worker {
        let slot = Slot { lines: Vec::new(), clock: Texts::default(), order: 0 };
        let slot = Arc::new(Mutex::new(slot));
        lock(&self.shared.slots).push(slot.clone());
        Worker { slot, shared: self.shared.clone(), is_timed: self.shared.format.is_timed() }
    }

    /// Opens the file anew before the next write: after a rotation.
    pub fn reopen(&self) {
        self.shared.reopen();
    }

    /// Lines lost because the writer could not keep up or the disk was full.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line recorded before the call was handed to the system, but no longer than
    /// [`STUCK_OUTPUT`]. Not for a request's way.
    pub fn flush(&self) {
        self.shared.flush();
    }
}

/// The logs of the process that are in use, so that what is asked of all reaches those of sites too.
static IN_USE: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

fn in_use() -> Vec<Arc<Shared>> {
    lock(&IN_USE).iter().filter_map(Weak::upgrade).collect()
}

/// [`AccessLog::reopen`] for every log.
pub fn reopen_all() {
    in_use().iter().for_each(|log| log.reopen());
}

/// [`AccessLog::flush`] for every log.
pub fn flush_all() {
    in_use().iter().for_each(|log| log.flush());
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.ask(|signal| signal.stop = true);
        // A pipe that nobody reads must not keep the process alive: then the thread is left to its end.
        let ended = self.shared.wait_until(lock(&self.shared.signal), |signal| signal.ended);
        if let Some(writer) = lock(&self.writer).take().filter(|_| ended) {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        self.ask(|signal| signal.hurry = true);
    }

    fn flush(&self) {
        let mut signal = lock(&self.signal);
        signal.asked += 1;
        signal.hurry = true;
        let mine = signal.asked;
        self.wake.notify_one();
        let _ = self.wait_until(signal, |signal| signal.done >= mine || signal.ended);
    }

    fn wait_until(&self, signal: MutexGuard<'_, Signal>, done: impl Fn(&Signal) -> bool) -> bool {
        let (signal, _) = self
            .written
            .wait_timeout_while(signal, STUCK_OUTPUT, |signal| !done(signal))
            .unwrap_or_else(PoisonError::into_inner);
        done(&signal)
    }

    fn ask(&self, change: impl FnOnce(&mut Signal)) {
        change(&mut lock(&self.signal));
        self.wake.notify_one();
    }
}

impl Worker {
    /// Whether lines tell how long an exchange took, or when it was to the millisecond: the clock need not be read
    /// otherwise.
    pub fn is_timed(&self) -> bool {
        self.is_timed
    }

    /// Adds the line of one exchange. Never waits for the writer's output.
    pub fn record(&self, record: &Record<'_>) {
        let mut slot = lock(&self.slot);
        let slot = &mut *slot;
        let before = slot.lines.len();
        if before >= WAITING_BYTES_MAX {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        slot.order += 1;
        self.shared.format.write(&mut slot.lines, record, &mut slot.clock, slot.order);
        let after = slot.lines.len();
        if before == 0 {
            self.shared.ask(|signal| signal.pending = true);
        } else if before < WAITING_BYTES_EAGER && after >= WAITING_BYTES_EAGER {
            self.shared.ask(|signal| signal.hurry = true);
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().append(true).create(true).open(path)
}

/// The writer's life: sleep until there are lines, let some gather, take them, write them.
fn write_loop(shared: &Shared, mut output: Output) {
    let mut batch = Vec::new();
    loop {
        let (stop, asked) = wait(shared);
        let slots: Vec<_> = lock(&shared.slots).clone();
        if shared.reopen.swap(false, Ordering::Relaxed) {
            output.reopen(true);
        } else {
            output.reopen(false);
        }
        for slot in &slots {
            // The buffers change places, so the worker keeps its memory and its lock is held for a moment only.
            std::mem::swap(&mut lock(slot).lines, &mut batch);
            if let Err((lost, error)) = output.write_lines(&batch) {
                shared.dropped.fetch_add(lost, Ordering::Relaxed);
                tracing::warn!(
                    %error,
                    lost,
                    file = %output.name(),
                    "access log: lines lost; requests are answered all the same, and lines are written again as soon as they can be"
                );
            }
            batch.clear();
            batch.shrink_to(WAITING_BYTES_EAGER * 2);
        }
        drop(slots);
        // A slot that only the log holds belonged to a worker that ended.
        lock(&shared.slots).retain(|slot| Arc::strong_count(slot) > 1 || !lock(slot).lines.is_empty());
        let mut signal = lock(&shared.signal);
        signal.done = signal.done.max(asked);
        signal.ended = stop;
        shared.written.notify_all();
        if stop {
            return;
        }
    }
}

/// Returns when there is something to do: whether it is the last time, and the flushes asked for so far.
fn wait(shared: &Shared) -> (bool, u64) {
    let mut signal = lock(&shared.signal);
    while !(signal.pending || signal.hurry || signal.stop) {
        signal = shared.wake.wait(signal).unwrap_or_else(PoisonError::into_inner);
    }
    let started = Instant::now();
    while !(signal.hurry || signal.stop) {
        let Some(left) = GATHER.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { break };
        signal = shared.wake.wait_timeout(signal, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    (signal.pending, signal.hurry) = (false, false);
    (signal.stop, signal.asked)
}

impl Output {
    /// Where lines go, for people.
    fn name(&self) -> std::path::Display<'_> {
        match self {
            Output::File { path, .. } => path.display(),
            _ => Path::new("standard output").display(),
        }
    }

    /// Opens the file anew if asked to, or if its name now means another file (looked at once a second).
    fn reopen(&mut self, asked: bool) {
        let Output::File { path, file, checked } = self else { return };
        if !asked && checked.elapsed() < RENAME_CHECK {
            return;
        }
        *checked = Instant::now();
        if !asked && same_file(path, file) {
            return;
        }
        match open(path) {
            Ok(new) => *file = new,
            // The old file is still good: lines go on into it.
            Err(error) => tracing::warn!(%error, path = %path.display(), "access log: cannot be opened anew"),
        }
    }

    /// Writes whole lines; on failure how many lines were lost.
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut rest = lines;
        while !rest.is_empty() {
            let result = match self {
                Output::Stdout => io::stdout().lock().write(rest),
                Output::File { file, .. } => file.write(rest),
                #[cfg(test)]
                Output::Test(sink) => sink.write(rest),
            };
            match result {
                Ok(0) => return Err((count(rest), io::ErrorKind::WriteZero.into())),
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody made our standard output non-blocking; this thread may wait for it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err((count(rest), error)),
            }
        }
        if let Output::Stdout = self {
            io::stdout().lock().flush().map_err(|error| (0, error))?;
        }
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&b| b == b'\n').count() as u64
}

fn same_file(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
