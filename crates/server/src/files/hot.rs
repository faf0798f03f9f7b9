//! Small files that are asked for often, kept in memory with their prepared fields. One per worker, no locks.
//!
//! A change of a file is seen within one second: an entry that was not compared with the file system for that
//! long is not used before it has been. Files that changed within the last second are not taken in at all, so
//! that two changes within one tick of the file system's clock cannot hide behind each other. What is not found
//! is never kept: a new file is seen at once. Opens nothing itself.

use super::reply::Representation;
use super::resolve::Coding;
use bytes::Bytes;
use eleven_net::file::Meta;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

/// Limits on what is kept in memory.
#[derive(Debug, Clone, Copy)]
pub struct HotLimits {
    /// Memory of all entries together, contents and fields, per worker.
    pub memory_bytes_max: usize,
    /// Longest content that is kept. Above this, sendfile costs less than the memory.
    pub file_bytes_max: u64,
    /// Most entries.
    pub entries_max: usize,
    /// How long an entry is used without looking at the file again.
    pub unchecked_ms_max: u64,
}

impl Default for HotLimits {
    fn default() -> Self {
        HotLimits {
            memory_bytes_max: 64 << 20,
            file_bytes_max: 64 << 10,
            entries_max: 16_384,
            unchecked_ms_max: 1_000,
        }
    }
}

/// One representation kept in memory.
#[derive(Debug)]
pub struct HotFile {
    /// Its fields and validators.
    pub representation: Representation,
    /// Its content.
    pub content: Bytes,
    /// The state of the file it was read from.
    pub meta: Meta,
    /// Its language, if it is one of several by language.
    pub language: Option<Box<str>>,
    /// Its content coding, if it is a compressed sibling.
    pub coding: Option<Coding>,
}

/// Everything that one target can be answered with.
#[derive(Debug)]
pub struct Entry {
    root: u64,
    target: Box<[u8]>,
    /// The variants, in the server's order; at least one, and one only where nothing is negotiated.
    pub files: Box<[HotFile]>,
    memory_bytes: usize,
    checked_ms: Cell<u64>,
    epoch: Cell<u64>,
    used: Cell<bool>,
}

impl Entry {
    /// Makes an entry for what the target octets `target` mean beneath the tree numbered `root`.
    pub fn new(root: u64, target: &[u8], files: Box<[HotFile]>, now_ms: u64, epoch: u64) -> Entry {
        // The map and the list of slots cost about this much beside what an entry itself holds.
        const OVERHEAD_BYTES: usize = 128;
        let held: usize = files.iter().map(HotFile::memory_bytes).sum();
        Entry {
            root,
            target: target.into(),
            memory_bytes: held + target.len() + size_of::<Entry>() + OVERHEAD_BYTES,
            files,
            checked_ms: Cell::new(now_ms),
            epoch: Cell::new(epoch),
            // The first use is no proof of a second: what is asked for once passes through.
            used: Cell::new(false),
        }
    }

    /// The entry was compared with the file system and is still right. `epoch` is that of before the comparison.
    pub fn confirm(&self, now_ms: u64, epoch: u64) {
        self.checked_ms.set(now_ms);
        self.epoch.set(epoch);
    }
}

impl HotFile {
    fn memory_bytes(&self) -> usize {
        self.content.len() + self.representation.memory_bytes() + size_of::<HotFile>()
    }
}

/// What is known of a target.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// To be used as it is.
    Fresh(&'a Rc<Entry>),
    /// To be compared with the file system first, then [`Entry::confirm`]ed or replaced.
    Unchecked(&'a Rc<Entry>),
    /// Nothing.
    Absent,
}

/// The files one worker keeps in memory.
pub struct Hot {
    limits: HotLimits,
    /// Drawn at random at the start, so that nobody can prepare targets that collide.
    seed: u64,
    by_hash: HashMap<u64, u32, BuildHasherDefault<AlreadyHashed>>,
    entries: Vec<Rc<Entry>>,
    /// Where the search for something to give up goes on.
    hand: usize,
    memory_bytes: usize,
}

impl Hot {
    /// An empty one. `seed` should be random.
    pub fn new(limits: HotLimits, seed: u64) -> Hot {
        Hot { limits, seed, by_hash: HashMap::default(), entries: Vec::new(), hand: 0, memory_bytes: 0 }
    }

    /// Its limits.
    pub fn limits(&self) -> &HotLimits {
        &self.limits
    }

    /// Memory of all entries, for accounting.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn hash(&self, root: u64, target: &[u8]) -> u64 {
        // The number of the tree is spread over all bits; trees are few and numbered by us.
        let seed = self.seed ^ root.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        xxhash_rust::xxh3::xxh3_64_with_seed(target, seed)
    }

    /// What is kept for the octets of a target, as received, beneath the tree numbered `root`. Allocates
    /// nothing: one hash, one look-up, one comparison. `epoch` counts the changes that this server itself made to
    /// the tree: after one, every entry is looked at again before it is used.
    #[inline]
    pub fn get(&self, root: u64, target: &[u8], now_ms: u64, epoch: u64) -> Lookup<'_> {
        let Some(&index) = self.by_hash.get(&self.hash(root, target)) else { return Lookup::Absent };
        let entry = &self.entries[index as usize];
        if entry.root != root || *entry.target != *target {
            return Lookup::Absent;
        }
        entry.used.set(true);
        // A clock that went back makes the entry unchecked as well.
        match now_ms.checked_sub(entry.checked_ms.get()) {
            Some(age_ms) if age_ms < self.limits.unchecked_ms_max && entry.epoch.get() == epoch => {
                Lookup::Fresh(entry)
            }
            _ => Lookup::Unchecked(entry),
        }
    }

    /// Whether files in these states may be kept, by their size and by their age.
    pub fn admits<'a>(&self, files: impl Iterator<Item = &'a Meta>, wall_seconds: i64) -> bool {
        let mut total = 0u64;
        for meta in files {
            total = total.saturating_add(meta.size);
            let settled = |seconds: i64| seconds.saturating_add(1) < wall_seconds;
            if meta.size > self.limits.file_bytes_max
                || !settled(meta.changed_seconds)
                || !settled(meta.modified_seconds)
            {
                return false;
            }
        }
        total <= self.limits.memory_bytes_max as u64 / 4
    }

    /// Keeps an entry, in place of what was kept for its target, and gives up others as the limits demand.
    pub fn insert(&mut self, entry: Rc<Entry>) {
        let hash = self.hash(entry.root, &entry.target);
        if let Some(&index) = self.by_hash.get(&hash) {
            self.remove_at(index as usize);
        }
        if entry.memory_bytes > self.limits.memory_bytes_max || self.limits.entries_max == 0 {
            return;
        }
        while self.entries.len() >= self.limits.entries_max
            || self.memory_bytes + entry.memory_bytes > self.limits.memory_bytes_max
        {
            self.give_one_up();
        }
        self.memory_bytes += entry.memory_bytes;
        self.by_hash.insert(hash, self.entries.len() as u32);
        self.entries.push(entry);
    }

    /// Forgets what is kept for a target.
    pub fn remove(&mut self, root: u64, target: &[u8]) {
        if let Some(&index) = self.by_hash.get(&self.hash(root, target)) {
            self.remove_at(index as usize);
        }
    }

    /// Second chance: the first entry from the hand on that was not used since the hand last passed it.
    fn give_one_up(&mut self) {
        loop {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            if !self.entries[self.hand].used.replace(false) {
                return self.remove_at(self.hand);
            }
            self.hand += 1;
        }
    }

    fn remove_at(&mut self, index: usize) {
        let entry = self.entries.swap_remove(index);
        self.by_hash.remove(&self.hash(entry.root, &entry.target));
        self.memory_bytes -= entry.memory_bytes;
        if let Some(moved) = self.entries.get(index) {
            let hash = self.hash(moved.root, &moved.target);
            self.by_hash.insert(hash, index as u32);
        }
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
