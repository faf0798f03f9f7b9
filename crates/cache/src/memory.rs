//! Stored responses in memory: bounded by octets, shared by all workers, in shards with a short lock each. A
//! hit is one look-up and one count under that lock; content is shared, never copied.
//!
//! All variants of one primary key live and leave together; there is a limit to them, so that a request field
//! with many values cannot fill the cache from one URI (Vary explosion).

use crate::evict::{HashedMap, Queues, Resident, Resides};
use crate::stored::Stored;
use eleven_semantics::Fields;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most shards: with a lock held for well under a microsecond, two workers seldom meet. A store has fewer if
/// its shards would not hold a few of the largest objects otherwise.
const SHARDS_MAX: u64 = 64;

/// Limits of the store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Octets of all stored responses, bookkeeping included.
    pub bytes_max: u64,
    /// Octets of one stored response.
    pub object_bytes_max: u64,
    /// Variants of one primary key; beyond it the oldest leaves.
    pub variants_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes_max: 256 << 20, object_bytes_max: 8 << 20, variants_max: 32 }
    }
}

struct Entry {
    resident: Resident,
    key: Box<[u8]>,
    variants: Vec<Arc<Stored>>,
}

impl Resides for Entry {
    fn resident(&mut self) -> &mut Resident {
        &mut self.resident
    }
}

struct Shard {
    map: HashedMap<Entry>,
    queues: Queues,
}

/// The store.
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    limits: Limits,
    seed: u64,
}

/// What was found for a request.
#[derive(Clone)]
pub enum Found {
    /// This one: the most recent of those that the request selects (9111-4-04, 9111-4.1-03).
    Selected(Arc<Stored>),
    /// These are stored for the URI, but none is selected: their tags may still be of use.
    Unselected(Vec<Arc<Stored>>),
    /// Nothing is stored for the URI.
    Nothing,
}

/// Chooses among the variants of a key.
pub fn select(variants: &[Arc<Stored>], request: &Fields, scratch: &mut Vec<u8>) -> Option<Arc<Stored>> {
    let mut best: Option<&Arc<Stored>> = None;
    for variant in variants {
        if variant.is_selected_by(request, scratch)
            && best.is_none_or(|other| {
                // Date first; of the same second, the one that came last.
                (other.date(), other.id) < (variant.date(), variant.id)
            })
        {
            best = Some(variant);
        }
    }
    best.cloned()
}

impl Memory {
    /// An empty store.
    pub fn new(limits: Limits) -> Memory {
        let count = (limits.bytes_max / (2 * limits.object_bytes_max.max(1))).clamp(1, SHARDS_MAX);
        let per_shard = limits.bytes_max / count;
        let shards = (0..count)
            .map(|_| Mutex::new(Shard { map: HashedMap::default(), queues: Queues::new(per_shard) }))
            .collect();
        // The address of something on the heap and the time: enough to keep a stranger from choosing keys
        // that collide; and where two do, the key itself is compared.
        let seed = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), count);
        Memory { shards, limits, seed }
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The largest response it takes: no more than a shard holds.
    pub fn object_bytes_max(&self) -> u64 {
        self.limits.object_bytes_max.min(self.limits.bytes_max / self.shards.len() as u64)
    }

    #[inline]
    fn shard(&self, key: &[u8]) -> (u64, MutexGuard<'_, Shard>) {
        let hash = xxh3_64_with_seed(key, self.seed);
        // The upper half chooses the shard, the map uses the lower bits.
        let shard = &self.shards[(hash >> 32) as usize % self.shards.len()];
        (hash, shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Finds the stored response for a request.
    #[inline]
    pub fn find(&self, key: &[u8], request: &Fields, scratch: &mut Vec<u8>) -> Found {
        let (hash, mut shard) = self.shard(key);
        let Some(entry) = shard.map.get_mut(&hash).filter(|entry| *entry.key == *key) else {
            return Found::Nothing;
        };
        entry.resident.touch();
        // Nearly always there is one, and it does not vary.
        if let [only] = &entry.variants[..]
            && only.vary.is_empty()
        {
            return Found::Selected(only.clone());
        }
        match select(&entry.variants, request, scratch) {
            Some(stored) => Found::Selected(stored),
            None => Found::Unselected(entry.variants.clone()),
        }
    }

    /// All variants of a key.
    pub fn variants(&self, key: &[u8]) -> Vec<Arc<Stored>> {
        let (hash, shard) = self.shard(key);
        match shard.map.get(&hash) {
            Some(entry) if *entry.key == *key => entry.variants.clone(),
            _ => Vec::new(),
        }
    }

    /// Stores a response in place of the one with the same variant. `false` if it is too large.
    pub fn insert(&self, stored: Arc<Stored>) -> bool {
        let bytes = stored.memory_bytes();
        if bytes > self.object_bytes_max() {
            self.remove_variant(&stored.key, &stored.variant);
            return false;
        }
        let (hash, mut shard) = self.shard(&stored.key);
        let Shard { map, queues } = &mut *shard;
        match map.get_mut(&hash) {
            Some(entry) if entry.key == stored.key => {
                // A Vary that changed leaves the old variants behind; the newest Vary rules which are kept.
                entry.variants.retain(|old| {
                    (old.vary != stored.vary || old.variant != stored.variant) && old.id != stored.id
                });
                if entry.variants.len() >= self.limits.variants_max.max(1) {
                    entry.variants.remove(0);
                }
                entry.variants.push(stored);
                let total = entry.variants.iter().map(|v| v.memory_bytes()).sum();
                queues.resize(&mut entry.resident, total);
            }
            other => {
                if let Some(stranger) = other {
                    queues.forget(&stranger.resident);
                    map.remove(&hash);
                }
                let resident = queues.admit(map, hash, bytes);
                map.insert(hash, Entry { resident, key: stored.key.clone(), variants: vec![stored] });
            }
        }
        let mut evicted = Vec::new();
        while queues.is_over() {
            match queues.evict(map) {
                Some(out) => evicted.push(out),
                None => break,
            }
        }
        drop(shard);
        // Freed outside the lock.
        drop(evicted);
        true
    }

    /// Puts `new` in the place of the stored response it was made from, if that is still there.
    pub fn replace(&self, old_id: u64, new: Arc<Stored>) -> bool {
        let (hash, mut shard) = self.shard(&new.key);
        let Shard { map, queues } = &mut *shard;
        let Some(entry) = map.get_mut(&hash).filter(|entry| entry.key == new.key) else { return false };
        let Some(place) = entry.variants.iter_mut().find(|old| old.id == old_id) else { return false };
        *place = new;
        let total = entry.variants.iter().map(|v| v.memory_bytes()).sum();
        queues.resize(&mut entry.resident, total);
        true
    }

    /// Removes the variants of a key for which `gone` says so; how many.
    pub fn remove_where(&self, key: &[u8], mut gone: impl FnMut(&Stored) -> bool) -> usize {
        let (hash, mut shard) = self.shard(key);
        let Shard { map, queues } = &mut *shard;
        let Some(entry) = map.get_mut(&hash).filter(|entry| *entry.key == *key) else { return 0 };
        let before = entry.variants.len();
        entry.variants.retain(|stored| !gone(stored));
        let removed = before - entry.variants.len();
        if entry.variants.is_empty() {
            queues.forget(&entry.resident);
            map.remove(&hash);
        } else {
            let total = entry.variants.iter().map(|v| v.memory_bytes()).sum();
            queues.resize(&mut entry.resident, total);
        }
        removed
    }

    fn remove_variant(&self, key: &[u8], variant: &[u8]) {
        self.remove_where(key, |stored| *stored.variant == *variant);
    }

    /// Visits every stored response, shard by shard; for purging and listing, not for requests.
    pub fn visit(&self, mut each: impl FnMut(&Arc<Stored>)) {
        for shard in &self.shards {
            let variants: Vec<Arc<Stored>> = {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.map.values().flat_map(|entry| entry.variants.iter().cloned()).collect()
            };
            variants.iter().for_each(&mut each);
        }
    }

    /// Marks every stored response for which `chosen` says so; how many.
    pub fn mark_where(&self, mut chosen: impl FnMut(&Stored) -> bool) -> usize {
        let mut marked = 0;
        self.visit(|stored| {
            if chosen(stored) {
                stored.marked.store(true, Ordering::Relaxed);
                marked += 1;
            }
        });
        marked
    }

    /// Octets held, and number of keys.
    pub fn usage(&self) -> (u64, usize) {
        self.shards.iter().fold((0, 0), |(bytes, keys), shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (bytes + shard.queues.bytes(), keys + shard.map.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn find(memory: &Memory, key: &[u8], request: &[(&str, &str)]) -> Option<u64> {
        match memory.find(key, &request.iter().collect(), &mut Vec::new()) {
            Found::Selected(stored) => Some(stored.id),
            _ => None,
        }
    }

    #[test]
    fn variants_share_a_key_and_replace_each_other() {
        let memory = Memory::new(Limits { variants_max: 3, ..Limits::default() });
        let vary = [("Vary", "Foo")];
        for (value, id) in [("1", 1), ("2", 2)] {
            assert!(memory.insert(stored(b"k", id, &vary, &[("Foo", value)], b"x")));
        }
        assert_eq!(find(&memory, b"k", &[("Foo", "1")]), Some(1));
        assert_eq!(find(&memory, b"k", &[("foo", "2")]), Some(2));
        assert_eq!(find(&memory, b"k", &[("Foo", "3")]), None);
        assert_eq!(find(&memory, b"k", &[]), None);
        assert_eq!(find(&memory, b"j", &[("Foo", "1")]), None);
        assert!(
            matches!(memory.find(b"k", &Fields::new(), &mut Vec::new()), Found::Unselected(v) if v.len() == 2)
        );
        // The same variant again replaces; beyond the limit the oldest leaves.
        memory.insert(stored(b"k", 3, &vary, &[("Foo", "1")], b"y"));
        assert_eq!(find(&memory, b"k", &[("Foo", "1")]), Some(3));
        for id in 4..20 {
            memory.insert(stored(b"k", id, &vary, &[("Foo", &id.to_string())], b"z"));
        }
        assert_eq!(memory.variants(b"k").iter().map(|v| v.id).collect::<Vec<_>>(), [17, 18, 19]);
    }

    /// 9111-4-04, 9111-4.1-03.
    #[test]
    fn the_most_recent_of_those_selected() {
        let memory = Memory::new(Limits::default());
        let date = |hour: u32| format!("Mon, 23 Nov 2026 {hour:02}:00:00 GMT");
        memory.insert(stored(b"k", 1, &[("Date", &date(5)), ("Vary", "Foo")], &[("Foo", "1")], b""));
        memory.insert(stored(b"k", 2, &[("Date", &date(3)), ("Vary", "Bar")], &[("Bar", "1")], b""));
        assert_eq!(find(&memory, b"k", &[("Foo", "1"), ("Bar", "1")]), Some(1));
        assert_eq!(find(&memory, b"k", &[("Foo", "2"), ("Bar", "1")]), Some(2));
        memory.insert(stored(b"k", 3, &[("Date", &date(5))], &[], b""));
        assert_eq!(find(&memory, b"k", &[("Foo", "1"), ("Bar", "1")]), Some(3));
    }

    /// Fault D34.
    #[test]
    fn bounded_by_octets() {
        let limits = Limits { bytes_max: 64 * 20_000, object_bytes_max: 20_000, variants_max: 4 };
        let memory = Memory::new(limits);
        let content = vec![7; 1500];
        for id in 0..5000u64 {
            assert!(memory.insert(stored(&id.to_be_bytes(), id, &[], &[], &content)));
        }
        let (bytes, keys) = memory.usage();
        assert!(bytes <= limits.bytes_max && bytes > limits.bytes_max / 2, "{bytes}");
        assert!(keys > 200 && keys < 900, "{keys}");
        // What is too large is refused, and takes its predecessor with it.
        memory.insert(stored(b"big", 1, &[], &[], b"small"));
        assert!(!memory.insert(stored(b"big", 2, &[], &[], &vec![0; 30_000])));
        assert_eq!(find(&memory, b"big", &[]), None);
        memory.visit(|stored| assert!(stored.content.length() == Some(1500)));
    }

    #[test]
    fn replacing_and_removing() {
        let memory = Memory::new(Limits::default());
        memory.insert(stored(b"k", 1, &[], &[], b"x"));
        assert!(!memory.replace(9, stored(b"k", 2, &[], &[], b"x")));
        assert!(memory.replace(1, stored(b"k", 2, &[], &[], b"longer")));
        assert!(!memory.replace(1, stored(b"k", 3, &[], &[], b"x")));
        assert_eq!(find(&memory, b"k", &[]), Some(2));
        assert_eq!(memory.mark_where(|stored| stored.id == 2), 1);
        assert!(memory.variants(b"k")[0].candidate().marked);
        assert_eq!(memory.remove_where(b"k", |_| true), 1);
        assert_eq!(memory.remove_where(b"k", |_| true), 0);
        assert_eq!(memory.usage(), (0, 0));
    }
}
