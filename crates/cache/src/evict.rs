//! What leaves first when there is no room: S3-FIFO (Yang and others, SOSP 2023). New residents enter a small
//! queue; only those that were used again move to the main one, so a scan of things asked for once runs
//! through the small queue and leaves the main one alone. A ghost list of hashes remembers who was put out of
//! the small queue: who comes back goes straight to the main one.
//!
//! Using a resident is one increment in the resident itself; the queues are touched on insertion and eviction
//! only. Generic over what resides; the memory store and the disk index both use it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Hashes are made by XXH3 with a secret seed; hashing them again would gain nothing.
#[derive(Default)]
pub struct Through(u64);

impl Hasher for Through {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(b);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// A map whose keys are good hashes already.
pub type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<Through>>;

/// What the queues need to know of a resident; lives inside it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resident {
    /// Octets it takes.
    pub bytes: u64,
    /// Uses since it was last looked at, at most [`USES_MAX`].
    uses: u8,
    in_main: bool,
    /// Tells this resident from an earlier one of the same hash.
    turn: u32,
}

const USES_MAX: u8 = 3;

impl Resident {
    /// Notes a use.
    #[inline]
    pub fn touch(&mut self) {
        self.uses = (self.uses + 1).min(USES_MAX);
    }
}

/// Something with a [`Resident`] inside.
pub trait Resides {
    /// The inside.
    fn resident(&mut self) -> &mut Resident;
}

/// The queues.
pub struct Queues {
    small: VecDeque<(u64, u32)>,
    main: VecDeque<(u64, u32)>,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64, BuildHasherDefault<Through>>,
    small_bytes: u64,
    main_bytes: u64,
    bytes_max: u64,
    turn: u32,
}

impl Queues {
    /// Queues for `bytes_max` octets of residents.
    pub fn new(bytes_max: u64) -> Queues {
        Queues {
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_set: HashSet::default(),
            small_bytes: 0,
            main_bytes: 0,
            bytes_max,
            turn: 0,
        }
    }

    /// Octets of all residents.
    pub fn bytes(&self) -> u64 {
        self.small_bytes + self.main_bytes
    }

    /// Most octets of all residents.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Admits a resident of `bytes` octets. The caller puts it in the map, then calls [`Queues::evict`] until
    /// there is room.
    pub fn admit<V: Resides>(&mut self, map: &mut HashedMap<V>, hash: u64, bytes: u64) -> Resident {
        // Those that left by other ways still stand in the queues; not for ever.
        if self.small.len() + self.main.len() > 2 * map.len() + 64 {
            let mut stands = |(hash, turn): &(u64, u32), main: bool| {
                map.get_mut(hash).is_some_and(|value| {
                    let resident = value.resident();
                    resident.turn == *turn && resident.in_main == main
                })
            };
            self.small.retain(|slot| stands(slot, false));
            self.main.retain(|slot| stands(slot, true));
        }
        self.turn = self.turn.wrapping_add(1);
        let in_main = self.ghost_set.remove(&hash);
        self.put(hash, in_main, bytes);
        Resident { bytes, uses: 0, in_main, turn: self.turn }
    }

    fn put(&mut self, hash: u64, in_main: bool, bytes: u64) {
        let turn = self.turn;
        if in_main {
            self.main.push_back((hash, turn));
            self.main_bytes += bytes;
        } else {
            self.small.push_back((hash, turn));
            self.small_bytes += bytes;
        }
    }

    /// A resident left the map by another way than [`Queues::evict`].
    pub fn forget(&mut self, resident: &Resident) {
        let bytes = if resident.in_main { &mut self.main_bytes } else { &mut self.small_bytes };
        *bytes = bytes.saturating_sub(resident.bytes);
    }

    /// A resident changed its size.
    pub fn resize(&mut self, resident: &mut Resident, bytes: u64) {
        let total = if resident.in_main { &mut self.main_bytes } else { &mut self.small_bytes };
        *total = (*total + bytes).saturating_sub(resident.bytes);
        resident.bytes = bytes;
    }

    /// Whether something must leave.
    pub fn is_over(&self) -> bool {
        self.bytes() > self.bytes_max
    }

    /// Takes one resident out of `map`. `None` only if there is none.
    pub fn evict<V: Resides>(&mut self, map: &mut HashedMap<V>) -> Option<(u64, V)> {
        loop {
            let from_small = self.small_bytes * 10 > self.bytes_max || self.main.is_empty();
            if from_small && !self.small.is_empty() {
                if let Some(out) = self.evict_small(map) {
                    return Some(out);
                }
            } else if !self.main.is_empty() {
                if let Some(out) = self.evict_main(map) {
                    return Some(out);
                }
            } else {
                return None;
            }
        }
    }

    fn evict_small<V: Resides>(&mut self, map: &mut HashedMap<V>) -> Option<(u64, V)> {
        let (hash, turn) = self.small.pop_front()?;
        let resident = map.get_mut(&hash)?.resident();
        if resident.turn != turn || resident.in_main {
            return None;
        }
        let bytes = resident.bytes;
        self.small_bytes = self.small_bytes.saturating_sub(bytes);
        if resident.uses > 1 {
            // Used again while here: it has earned its place.
            resident.uses = 0;
            resident.in_main = true;
            self.main.push_back((hash, turn));
            self.main_bytes += bytes;
            return None;
        }
        self.remember(hash, map.len());
        map.remove(&hash).map(|value| (hash, value))
    }

    fn evict_main<V: Resides>(&mut self, map: &mut HashedMap<V>) -> Option<(u64, V)> {
        let (hash, turn) = self.main.pop_front()?;
        let resident = map.get_mut(&hash)?.resident();
        if resident.turn != turn || !resident.in_main {
            return None;
        }
        if resident.uses > 0 {
            resident.uses -= 1;
            self.main.push_back((hash, turn));
            return None;
        }
        self.main_bytes = self.main_bytes.saturating_sub(resident.bytes);
        map.remove(&hash).map(|value| (hash, value))
    }

    /// As many ghosts as there are residents, and some for a start.
    fn remember(&mut self, hash: u64, residents: usize) {
        while self.ghosts.len() > residents.max(64) {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
        self.ghosts.push_back(hash);
        self.ghost_set.insert(hash);
    }
}

#[cfg(test)]
mod zipf;

#[cfg(test)]
mod tests {
    use super::*;

    impl Resides for Resident {
        fn resident(&mut self) -> &mut Resident {
            self
        }
    }

    pub(super) struct Cache {
        map: HashedMap<Resident>,
        queues: Queues,
    }

    impl Cache {
        pub(super) fn new(bytes_max: u64) -> Cache {
            Cache { map: HashMap::default(), queues: Queues::new(bytes_max) }
        }

        /// Whether it was there.
        pub(super) fn ask(&mut self, hash: u64) -> bool {
            if let Some(resident) = self.map.get_mut(&hash) {
                resident.touch();
                return true;
            }
            let resident = self.queues.admit(&mut self.map, hash, 1);
            self.map.insert(hash, resident);
            while self.queues.is_over() {
                self.queues.evict(&mut self.map).expect("something to evict");
            }
            false
        }
    }

    /// A reference: least recently used.
    struct Lru {
        order: VecDeque<u64>,
        max: usize,
    }

    impl Lru {
        fn ask(&mut self, hash: u64) -> bool {
            let at = self.order.iter().position(|&h| h == hash);
            if let Some(at) = at {
                self.order.remove(at);
            } else if self.order.len() == self.max {
                self.order.pop_front();
            }
            self.order.push_back(hash);
            at.is_some()
        }
    }

    /// Zipf-distributed numbers below `n`, by inverting a table.
    pub(super) fn zipf(n: usize, exponent: f64, count: usize) -> Vec<u64> {
        let mut total = 0.0;
        let table: Vec<f64> = (1..=n)
            .map(|rank| {
                total += 1.0 / (rank as f64).powf(exponent);
                total
            })
            .collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let x = (state >> 11) as f64 / (1u64 << 53) as f64 * total;
                table.partition_point(|&sum| sum < x) as u64
            })
            .collect()
    }

    #[test]
    fn better_than_lru_on_a_zipf_trace_at_one_percent() {
        let trace = zipf(20_000, 0.9, 200_000);
        let mut ours = Cache::new(200);
        let mut lru = Lru { order: VecDeque::new(), max: 200 };
        let hits = trace.iter().filter(|&&hash| ours.ask(hash)).count();
        let lru_hits = trace.iter().filter(|&&hash| lru.ask(hash)).count();
        assert!(hits as f64 > lru_hits as f64 * 1.05, "S3-FIFO {hits}, LRU {lru_hits} of {}", trace.len());
    }

    /// Faults D34 and D35.
    #[test]
    fn a_scan_leaves_the_used_ones_alone() {
        let mut cache = Cache::new(100);
        for round in 0..4 {
            for hash in 0..50 {
                assert_eq!(cache.ask(hash), round > 0);
            }
        }
        for hash in 1000..5000 {
            cache.ask(hash);
        }
        let kept = (0..50).filter(|hash| cache.map.contains_key(hash)).count();
        assert_eq!(kept, 50, "all that were used again survive 4000 that were not");
    }

    #[test]
    fn accounting_is_exact() {
        let mut cache = Cache::new(50);
        for hash in 0..500 {
            cache.ask(hash % 70);
            assert_eq!(cache.queues.bytes(), cache.map.len() as u64);
            assert!(cache.queues.bytes() <= 50);
        }
        // Removal and return by other ways.
        let hash = *cache.map.keys().next().unwrap();
        let mut resident = cache.map.remove(&hash).unwrap();
        cache.queues.forget(&resident);
        assert_eq!(cache.queues.bytes(), cache.map.len() as u64);
        cache.ask(hash);
        assert_eq!(cache.queues.bytes(), cache.map.len() as u64);
        resident = *cache.map.get(&hash).unwrap();
        cache.queues.resize(&mut resident, 3);
        cache.map.insert(hash, resident);
        assert_eq!(cache.queues.bytes(), cache.map.len() as u64 + 2);
        // Coming and going by other ways does not fill the queues.
        for _ in 0..10_000 {
            let resident = cache.map.remove(&hash).unwrap();
            cache.queues.forget(&resident);
            cache.ask(hash);
        }
        assert!(cache.queues.small.len() + cache.queues.main.len() < 300);
        while cache.queues.evict(&mut cache.map).is_some() {}
        assert_eq!((cache.queues.bytes(), cache.map.len()), (0, 0));
    }

    #[test]
    fn one_that_comes_back_goes_to_the_main_queue() {
        let mut cache = Cache::new(10);
        for hash in 0..20 {
            cache.ask(hash);
        }
        assert!(!cache.map.contains_key(&5));
        assert!(!cache.ask(5));
        assert!(cache.map[&5].in_main);
    }
}
