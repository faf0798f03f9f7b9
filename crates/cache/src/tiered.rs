//! Memory in front of a disk: what is asked for stays in memory, everything is on disk. Content too large for
//! memory is kept there as a head only. A failing disk costs its copies, never a response.

use crate::content::Content;
use crate::disk::{Disk, Unfinished};
use crate::memory::{Found, Memory, select};
use crate::purge::{How, Selection};
use crate::stored::Stored;
use eleven_semantics::Fields;
use eleven_semantics::caching::Policy;
use std::sync::Arc;

/// Both.
pub struct Tiered {
    memory: Memory,
    disk: Arc<Disk>,
}

/// Runs blocking work on the pool; its default if the pool is shutting down.
async fn blocking<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

impl Tiered {
    /// Memory in front of this disk.
    pub fn new(memory: Memory, disk: Disk) -> Tiered {
        Tiered { memory, disk: Arc::new(disk) }
    }

    /// The memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Finds in memory, else on disk; what was loaded stays in memory.
    pub async fn find(
        &self,
        key: &[u8],
        request: &Fields,
        scratch: &mut Vec<u8>,
        policy: &Arc<Policy>,
    ) -> Found {
        let found = self.memory.find(key, request, scratch);
        if matches!(found, Found::Selected(_)) || !self.disk.has(key) {
            return found;
        }
        let (disk, owned, policy) = (self.disk.clone(), key.to_vec(), policy.clone());
        let (loaded, _) = blocking(move || disk.load(&owned, &policy)).await;
        if loaded.is_empty() {
            return found;
        }
        for stored in &loaded {
            // Not over something newer that arrived meanwhile.
            if !self.memory.variants(key).iter().any(|known| {
                known.id >= stored.id && known.vary == stored.vary && known.variant == stored.variant
            }) {
                self.memory.insert(stored.clone());
            }
        }
        match select(&loaded, request, scratch) {
            Some(stored) => Found::Selected(stored),
            None => match found {
                Found::Unselected(mut variants) => {
                    variants.retain(|known| !loaded.iter().any(|stored| stored.variant == known.variant));
                    variants.extend(loaded);
                    Found::Unselected(variants)
                }
                _ => Found::Unselected(loaded),
            },
        }
    }

    /// Stores in memory at once, then on disk.
    pub async fn insert(&self, stored: Stored, file: Option<(Arc<Unfinished>, u64)>) -> Option<Arc<Stored>> {
        if stored.held.is_some() {
            // Parts are kept in memory only: they are small, and grow.
            let stored = Arc::new(stored);
            return self.memory.insert(stored.clone()).then_some(stored);
        }
        let stored = Arc::new(stored);
        let in_memory = file.is_none() && self.memory.insert(stored.clone());
        let (disk, head) = (self.disk.clone(), stored.clone());
        let body = blocking(move || {
            let unfinished = file.as_ref().map(|(file, length)| (&**file, *length));
            match disk.commit(&head, unfinished) {
                Ok(body) => Some(body),
                Err(error) => {
                    tracing::warn!(%error, "a response cannot be stored on disk");
                    None
                }
            }
        })
        .await;
        let Some(body) = body else { return in_memory.then_some(stored) };
        let Some(body) = body else { return Some(stored) };
        // From now on the body file is known: a validation need not write it again.
        let content = if in_memory { stored.content.clone() } else { Content::Disk(body.clone()) };
        let kept = Arc::new(stored.with_body(content, body));
        if in_memory {
            self.memory.replace(stored.id, kept.clone());
        } else {
            self.memory.insert(kept.clone());
        }
        Some(kept)
    }

    /// Writes the head of a stored response that was updated.
    pub async fn rewrite(&self, stored: Arc<Stored>) {
        if stored.held.is_some() {
            return;
        }
        let disk = self.disk.clone();
        blocking(move || {
            if let Err(error) = disk.rewrite(&stored) {
                tracing::warn!(%error, "an updated response cannot be stored on disk");
                disk.remove_key(&stored.key);
            }
        })
        .await;
    }

    /// Removes one stored response, or all of a key.
    pub async fn remove(&self, key: &[u8], id: Option<u64>) {
        if !self.disk.has(key) {
            return;
        }
        let (disk, key) = (self.disk.clone(), key.to_vec());
        blocking(move || match id {
            Some(id) => disk.remove(&key, id),
            None => {
                disk.remove_key(&key);
            }
        })
        .await;
    }

    /// Purges the disk.
    pub async fn purge(&self, selection: &Selection, how: How, now_id: u64, policy: &Arc<Policy>) -> usize {
        let (disk, selection, policy) = (self.disk.clone(), selection.clone(), policy.clone());
        blocking(move || match disk.purge(&selection, how, now_id, &policy) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%error, "the purge could not be written down; it will be forgotten at a restart");
                0
            }
        })
        .await
    }
}
