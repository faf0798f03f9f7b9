//! The store of a cache, one enum: memory alone, or memory in front of a disk. Another place to keep
//! responses (one that several machines share) is one more variant here and one more file.
//!
//! What may block runs on the blocking pool; `find_now` never does.

use crate::content::{Content, Keeping};
use crate::disk::{Disk, Unfinished};
use crate::memory::{Found, Memory};
use crate::purge::{How, Selection};
use crate::stored::Stored;
use crate::tiered::Tiered;
use eleven_semantics::Fields;
use eleven_semantics::caching::Policy;
use std::sync::Arc;

/// Where responses are kept.
pub enum Store {
    /// In memory.
    Memory(Memory),
    /// In memory, with everything on disk behind it.
    Tiered(Tiered),
}

/// A store's state in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Octets in memory.
    pub memory_bytes: u64,
    /// Keys in memory.
    pub memory_keys: usize,
    /// Octets on disk.
    pub disk_bytes: u64,
    /// Keys on disk.
    pub disk_keys: usize,
    /// Responses on disk that did not match their checksums and were dropped.
    pub corrupt: u64,
    /// Other I/O errors of the disk.
    pub errors: u64,
}

impl Store {
    /// The memory of either.
    pub fn memory(&self) -> &Memory {
        match self {
            Store::Memory(memory) => memory,
            Store::Tiered(tiered) => tiered.memory(),
        }
    }

    /// The disk, if there is one.
    pub fn disk(&self) -> Option<&Arc<Disk>> {
        match self {
            Store::Memory(_) => None,
            Store::Tiered(tiered) => Some(tiered.disk()),
        }
    }

    /// Finds what is in memory.
    #[inline]
    pub fn find_now(&self, key: &[u8], request: &Fields, scratch: &mut Vec<u8>) -> Found {
        self.memory().find(key, request, scratch)
    }

    /// Finds what is anywhere.
    pub async fn find(
        &self,
        key: &[u8],
        request: &Fields,
        scratch: &mut Vec<u8>,
        policy: &Arc<Policy>,
    ) -> Found {
        match self {
            Store::Memory(memory) => memory.find(key, request, scratch),
            Store::Tiered(tiered) => tiered.find(key, request, scratch, policy).await,
        }
    }

    /// The largest content that is kept, and where content of this length is gathered while it arrives.
    pub fn keeping(&self, length: Option<u64>) -> Keeping {
        let in_memory = self.memory().object_bytes_max();
        match (self, length) {
            (_, None) => Keeping::Memory,
            (_, Some(length)) if length <= in_memory => Keeping::Memory,
            (Store::Tiered(tiered), Some(length)) if length <= tiered.disk().limits().object_bytes_max => {
                Keeping::Disk
            }
            _ => Keeping::Pass,
        }
    }

    /// Stores a response whose content is whole and in memory, or in a body file of this length. Gives back the
    /// stored response as it is kept now; `None` if there was no room anywhere.
    pub async fn insert(&self, stored: Stored, file: Option<(Arc<Unfinished>, u64)>) -> Option<Arc<Stored>> {
        match self {
            Store::Memory(memory) => {
                let stored = Arc::new(stored);
                memory.insert(stored.clone()).then_some(stored)
            }
            Store::Tiered(tiered) => tiered.insert(stored, file).await,
        }
    }

    /// Puts an updated stored response in the place of the old one.
    pub async fn replace(&self, old_id: u64, new: Arc<Stored>) {
        if !self.memory().replace(old_id, new.clone()) {
            self.memory().insert(new.clone());
        }
        if let Store::Tiered(tiered) = self {
            tiered.rewrite(new).await;
        }
    }

    /// Removes one stored response.
    pub async fn remove(&self, stored: &Stored) {
        self.memory().remove_where(&stored.key, |other| other.id == stored.id);
        if let Store::Tiered(tiered) = self {
            tiered.remove(&stored.key, Some(stored.id)).await;
        }
    }

    /// Removes every variant of a key; gives back those that were in memory.
    pub async fn remove_key(&self, key: &[u8]) -> Vec<Arc<Stored>> {
        let variants = self.memory().variants(key);
        self.memory().remove_where(key, |_| true);
        if let Store::Tiered(tiered) = self {
            tiered.remove(key, None).await;
        }
        variants
    }

    /// Purges; how many stored responses are known to be concerned (those on disk are met when they are
    /// loaded; a dry run looks at all of them).
    pub async fn purge(&self, selection: &Selection, how: How, now_id: u64, policy: &Arc<Policy>) -> usize {
        let memory = self.memory();
        let in_memory = match how {
            How::Soft => memory.mark_where(|stored| selection.chooses(stored)),
            How::Hard | How::DryRun => {
                let mut chosen = Vec::new();
                memory.visit(|stored| {
                    if selection.chooses(stored) {
                        chosen.push(stored.clone());
                    }
                });
                if how == How::Hard {
                    for stored in &chosen {
                        memory.remove_where(&stored.key, |other| other.id == stored.id);
                    }
                }
                chosen.len()
            }
        };
        match self {
            Store::Memory(_) => in_memory,
            Store::Tiered(tiered) => tiered.purge(selection, how, now_id, policy).await.max(in_memory),
        }
    }

    /// The numbers.
    pub fn usage(&self) -> Usage {
        let (memory_bytes, memory_keys) = self.memory().usage();
        let mut usage = Usage { memory_bytes, memory_keys, ..Usage::default() };
        if let Some(disk) = self.disk() {
            (usage.disk_bytes, usage.disk_keys) = disk.usage();
            (usage.corrupt, usage.errors) = disk.faults();
        }
        usage
    }

    /// Whether content has turned out to be bad on disk.
    pub fn is_bad(content: &Content) -> bool {
        matches!(content, Content::Disk(body) if body.is_bad())
    }
}
