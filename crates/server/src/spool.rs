//! Content kept between a fast side and a slow one: a little in memory, the rest in a file without a name. First in,
//! first out, or all of it as often as needed. So a slow client costs disk instead of a worker. Knows neither side.

use bytes::{Bytes, BytesMut};
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a piece in memory costs beside its octets; without it tiny pieces would hold many times the limit.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// Read from the file at a time.
const READ_BYTES: usize = 65_536;

/// A queue of octets.
#[derive(Debug)]
pub struct Spool {
    memory: VecDeque<Bytes>,
    memory_bytes: usize,
    memory_bytes_max: usize,
    file: Option<File>,
    read_at: u64,
    write_at: u64,
    directory: PathBuf,
    reserved: Option<Reserved>,
}

/// Octets that spools may keep in files altogether; shared by all workers.
#[derive(Debug)]
pub struct DiskBudget {
    bytes_max: u64,
    used_bytes: AtomicU64,
}

impl DiskBudget {
    /// A budget of so many octets.
    pub fn new(bytes_max: u64) -> DiskBudget {
        DiskBudget { bytes_max, used_bytes: AtomicU64::new(0) }
    }

    /// Octets in files now.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

/// What one spool has of the budget; given back when it is dropped.
#[derive(Debug)]
struct Reserved {
    budget: Arc<DiskBudget>,
    bytes: u64,
}

impl Reserved {
    fn add(&mut self, bytes: u64) -> io::Result<()> {
        let used = self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes += bytes;
        if used > self.budget.bytes_max {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    fn release(&mut self) {
        self.budget.used_bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.release();
    }
}

impl Spool {
    /// An empty spool that keeps up to `memory_bytes_max` in memory and the rest in a file in `directory`.
    pub fn new(memory_bytes_max: usize, directory: &Path) -> Spool {
        Spool {
            memory: VecDeque::new(),
            memory_bytes: 0,
            memory_bytes_max,
            file: None,
            read_at: 0,
            write_at: 0,
            directory: directory.to_owned(),
            reserved: None,
        }
    }

    /// The same, within a budget for the file.
    pub fn within(memory_bytes_max: usize, directory: &Path, budget: Arc<DiskBudget>) -> Spool {
        let reserved = Some(Reserved { budget, bytes: 0 });
        Spool { reserved, ..Spool::new(memory_bytes_max, directory) }
    }

    fn charged(&self) -> usize {
        self.memory_bytes + self.memory.len() * PIECE_OVERHEAD_BYTES
    }

    /// Octets in it.
    pub fn len(&self) -> u64 {
        self.memory_bytes as u64 + (self.write_at - self.read_at)
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds octets at the end.
    ///
    /// # Errors
    /// If the file cannot be made or written, as when the disk is full; `QuotaExceeded` if the budget is used up.
    pub fn push(&mut self, octets: Bytes) -> io::Result<()> {
        if octets.is_empty() {
            return Ok(());
        }
        // What is in the file is younger than what is in memory, so memory is open only while the file is empty.
        if self.read_at == self.write_at && self.charged() + octets.len() <= self.memory_bytes_max {
            self.memory_bytes += octets.len();
            self.memory.push_back(octets);
            return Ok(());
        }
        if let Some(reserved) = &mut self.reserved {
            reserved.add(octets.len() as u64)?;
        }
        if self.file.is_none() {
            self.file = Some(unnamed_file(&self.directory)?);
        }
        if let Some(file) = &self.file {
            // To the page cache: like every write of this kind it takes microseconds.
            file.write_all_at(&octets, self.write_at)?;
            self.write_at += octets.len() as u64;
        }
        Ok(())
    }

    /// Takes octets from the front; empty if there are none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn pop(&mut self) -> io::Result<Bytes> {
        if let Some(octets) = self.memory.pop_front() {
            self.memory_bytes -= octets.len();
            return Ok(octets);
        }
        let left = self.write_at - self.read_at;
        let (Some(file), true) = (&self.file, left > 0) else { return Ok(Bytes::new()) };
        let mut buffer = BytesMut::zeroed(READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES)));
        file.read_exact_at(&mut buffer, self.read_at)?;
        self.read_at += buffer.len() as u64;
        if self.read_at == self.write_at {
            // Starts again from the front, so that a long stream does not fill the disk.
            file.set_len(0)?;
            (self.read_at, self.write_at) = (0, 0);
            if let Some(reserved) = &mut self.reserved {
                reserved.release();
            }
        }
        Ok(buffer.freeze())
    }

    /// What is in it, to be read from its beginning as often as needed.
    pub fn store(self) -> Stored {
        Stored {
            length: self.len(),
            memory: self.memory.into(),
            file: self.file,
            file_range: (self.read_at, self.write_at),
            _reserved: self.reserved,
        }
    }
}

/// Content that is all here.
#[derive(Debug)]
pub struct Stored {
    length: u64,
    memory: Vec<Bytes>,
    file: Option<File>,
    file_range: (u64, u64),
    _reserved: Option<Reserved>,
}

impl Stored {
    /// Octets in it.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// All of it in one piece, if nothing is in a file.
    pub fn in_memory(&self) -> Option<Bytes> {
        let in_file = self.file_range.1 - self.file_range.0;
        match &self.memory[..] {
            _ if in_file > 0 => None,
            [] => Some(Bytes::new()),
            [only] => Some(only.clone()),
            pieces => Some(pieces.concat().into()),
        }
    }

    /// The piece at this distance from the beginning; empty at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn piece(&self, at: u64) -> io::Result<Bytes> {
        let mut begin = 0;
        for piece in &self.memory {
            let end = begin + piece.len() as u64;
            if at < end {
                // What lies within a piece fits into `usize`.
                return Ok(piece.slice((at - begin) as usize..));
            }
            begin = end;
        }
        let offset = self.file_range.0 + (at - begin);
        let left = self.file_range.1.saturating_sub(offset);
        let (Some(file), true) = (&self.file, left > 0) else { return Ok(Bytes::new()) };
        let mut buffer = BytesMut::zeroed(READ_BYTES.min(usize::try_from(left).unwrap_or(READ_BYTES)));
        file.read_exact_at(&mut buffer, offset)?;
        Ok(buffer.freeze())
    }
}

/// A file that has no name, so that nobody finds it and it goes with its last descriptor.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        // Some file systems cannot: a name for a moment.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            let random = eleven_net::random::bytes()?;
            let path = directory.join(format!(".eleven-spool-{:016x}", u64::from_ne_bytes(random)));
            let file = rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
            std::fs::remove_file(&path)?;
            Ok(file.into())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_come_out_in_order_whatever_the_sizes() {
        let mut spool = Spool::new(10, &std::env::temp_dir());
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for round in 0..50u8 {
            for size in [0usize, 3, 9, 1, 40_000, 70_000, 2] {
                let octets = vec![round.wrapping_mul(7).wrapping_add(size as u8); size];
                expected.extend_from_slice(&octets);
                spool.push(octets.into()).unwrap();
            }
            // Sometimes half is taken, sometimes all.
            while round % 3 == 0 && !spool.is_empty() || spool.len() > 200_000 {
                got.extend_from_slice(&spool.pop().unwrap());
            }
        }
        while !spool.is_empty() {
            got.extend_from_slice(&spool.pop().unwrap());
        }
        assert!(got == expected);
        assert!(spool.pop().unwrap().is_empty());
        assert_eq!(spool.file.unwrap().metadata().unwrap().len(), 0);
    }

    #[test]
    fn stored_content_is_read_again_and_again() {
        for sizes in [&[][..], &[5], &[5, 5], &[5, 5, 5], &[5, 200_000, 3], &[100_000]] {
            let budget = Arc::new(DiskBudget::new(1 << 20));
            let mut spool = Spool::within(200, &std::env::temp_dir(), budget.clone());
            let mut expected = Vec::new();
            for (index, &size) in sizes.iter().enumerate() {
                let octets: Vec<u8> = (0..size).map(|i| (i / 7 + index * 50) as u8).collect();
                expected.extend_from_slice(&octets);
                spool.push(octets.into()).unwrap();
            }
            let stored = spool.store();
            assert_eq!(stored.len(), expected.len() as u64);
            let in_file = expected.len() > 200;
            assert_eq!(stored.in_memory().is_none(), in_file);
            assert!(stored.in_memory().is_none_or(|all| all == expected));
            assert_eq!(budget.used_bytes() > 0, in_file);
            for _ in 0..2 {
                let mut got = Vec::new();
                loop {
                    let piece = stored.piece(got.len() as u64).unwrap();
                    if piece.is_empty() {
                        break;
                    }
                    got.extend_from_slice(&piece);
                }
                assert!(got == expected, "{sizes:?}");
            }
            drop(stored);
            assert_eq!(budget.used_bytes(), 0);
        }
    }

    /// All spools together keep no more in files than the budget says, and give back what they had.
    #[test]
    fn a_budget_limits_all_files() {
        let budget = Arc::new(DiskBudget::new(1000));
        let spool = || Spool::within(0, &std::env::temp_dir(), budget.clone());
        let (mut first, mut second) = (spool(), spool());
        first.push(vec![1; 600].into()).unwrap();
        let full = second.push(vec![2; 600].into()).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded);
        drop(second);
        assert_eq!(budget.used_bytes(), 600);
        assert_eq!(first.pop().unwrap().len(), 600);
        assert_eq!(budget.used_bytes(), 0);
        spool().push(vec![3; 1000].into()).unwrap();
    }

    #[test]
    fn little_stays_in_memory() {
        let mut spool = Spool::new(10, Path::new("/nonexistent"));
        spool.push(Bytes::from_static(b"0123456789")).unwrap();
        assert!(spool.push(Bytes::from_static(b"x")).is_err(), "there is no place for a file");
        assert_eq!(spool.pop().unwrap(), "0123456789");
        spool.push(Bytes::from_static(b"again")).unwrap();
        assert_eq!(spool.len(), 5);
    }
}
