//! Hit ratios on a Zipf(0.9) trace at one percent of the working set, beside other ways to choose what leaves: LRU,
//! W-TinyLFU and S3-FIFO as it stands in the paper. All of one size, so that only the choice is compared.

use super::tests::{Cache, zipf};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Whether what was asked for was there; it is afterwards, if it was let in.
trait Choice {
    fn ask(&mut self, hash: u64) -> bool;
}

impl Choice for Cache {
    fn ask(&mut self, hash: u64) -> bool {
        Cache::ask(self, hash)
    }
}

/// Keys in the order of their last use.
#[derive(Default)]
struct Order {
    places: HashMap<u64, u64>,
    keys: BTreeMap<u64, u64>,
    next: u64,
}

impl Order {
    /// Puts a key at the end; whether it was there.
    fn touch(&mut self, key: u64) -> bool {
        let known = self.remove(key);
        self.next += 1;
        self.places.insert(key, self.next);
        self.keys.insert(self.next, key);
        known
    }

    fn remove(&mut self, key: u64) -> bool {
        self.places.remove(&key).map(|place| self.keys.remove(&place)).is_some()
    }

    fn first(&self) -> Option<u64> {
        self.keys.first_key_value().map(|(_, key)| *key)
    }

    fn pop(&mut self) -> Option<u64> {
        let key = self.first()?;
        self.remove(key);
        Some(key)
    }

    fn len(&self) -> usize {
        self.keys.len()
    }
}

struct Lru(Order, usize);

impl Choice for Lru {
    fn ask(&mut self, hash: u64) -> bool {
        let known = self.0.touch(hash);
        if self.0.len() > self.1 {
            self.0.pop();
        }
        known
    }
}

/// W-TinyLFU (Einziger and others, 2017): a window of one percent, and a segmented main part that a key enters only if
/// it is asked for more often than the one that would leave. Counts are exact and halved now and then, which is better
/// than the sketch they have in programs.
struct TinyLfu {
    window: Order,
    probation: Order,
    protected: Order,
    counts: HashMap<u64, u32>,
    counted: usize,
    max: usize,
}

impl TinyLfu {
    fn new(max: usize) -> TinyLfu {
        TinyLfu {
            window: Order::default(),
            probation: Order::default(),
            protected: Order::default(),
            counts: HashMap::new(),
            counted: 0,
            max,
        }
    }

    fn count(&self, key: u64) -> u32 {
        self.counts.get(&key).copied().unwrap_or(0)
    }
}

impl Choice for TinyLfu {
    fn ask(&mut self, hash: u64) -> bool {
        let count = self.counts.entry(hash).or_default();
        *count = (*count + 1).min(15);
        self.counted += 1;
        if self.counted >= self.max * 10 {
            self.counted /= 2;
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
        let window_max = (self.max / 100).max(1);
        let main_max = self.max - window_max;
        if self.protected.places.contains_key(&hash) {
            return self.protected.touch(hash);
        }
        if self.probation.remove(hash) {
            self.protected.touch(hash);
            if self.protected.len() > main_max * 8 / 10
                && let Some(key) = self.protected.pop()
            {
                self.probation.touch(key);
            }
            return true;
        }
        if self.window.touch(hash) {
            return true;
        }
        if self.window.len() > window_max
            && let Some(candidate) = self.window.pop()
        {
            if self.probation.len() + self.protected.len() < main_max {
                self.probation.touch(candidate);
            } else if let Some(victim) = self.probation.first()
                && self.count(candidate) > self.count(victim)
            {
                self.probation.pop();
                self.probation.touch(candidate);
            }
        }
        false
    }
}

/// S3-FIFO (Yang and others, 2023), algorithm 1.
struct S3Fifo {
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
    uses: HashMap<u64, u8>,
    max: usize,
}

impl S3Fifo {
    fn new(max: usize) -> S3Fifo {
        S3Fifo {
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_set: HashSet::new(),
            uses: HashMap::new(),
            max,
        }
    }

    fn evict(&mut self) {
        if self.small.len() >= self.max / 10 {
            while let Some(key) = self.small.pop_front() {
                if self.uses[&key] > 1 {
                    self.main.push_back(key);
                    continue;
                }
                self.uses.remove(&key);
                self.ghosts.push_back(key);
                self.ghost_set.insert(key);
                if self.ghosts.len() > self.max * 9 / 10
                    && let Some(old) = self.ghosts.pop_front()
                {
                    self.ghost_set.remove(&old);
                }
                return;
            }
        }
        while let Some(key) = self.main.pop_front() {
            let uses = self.uses.get_mut(&key).expect("it is there");
            if *uses == 0 {
                self.uses.remove(&key);
                return;
            }
            *uses -= 1;
            self.main.push_back(key);
        }
    }
}

impl Choice for S3Fifo {
    fn ask(&mut self, hash: u64) -> bool {
        if let Some(uses) = self.uses.get_mut(&hash) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        while self.uses.len() >= self.max {
            self.evict();
        }
        if self.ghost_set.remove(&hash) {
            self.ghosts.retain(|ghost| *ghost != hash);
            self.main.push_back(hash);
        } else {
            self.small.push_back(hash);
        }
        self.uses.insert(hash, 0);
        false
    }
}

#[test]
fn as_good_as_the_best_of_others() {
    const OBJECTS: usize = 50_000;
    let trace = zipf(OBJECTS, 0.9, 400_000);
    let max = OBJECTS / 100;
    let ratio = |mut choice: Box<dyn Choice>| {
        // What comes before the cache is full says little.
        let (warm, counted) = trace.split_at(trace.len() / 4);
        warm.iter().for_each(|&hash| {
            choice.ask(hash);
        });
        counted.iter().filter(|&&hash| choice.ask(hash)).count() as f64 / counted.len() as f64
    };
    let ours = ratio(Box::new(Cache::new(max as u64)));
    let lru = ratio(Box::new(Lru(Order::default(), max)));
    let (tiny, s3) = (ratio(Box::new(TinyLfu::new(max))), ratio(Box::new(S3Fifo::new(max))));
    println!("ours {ours:.4}, LRU {lru:.4}, W-TinyLFU {tiny:.4}, S3-FIFO {s3:.4}");
    let best = lru.max(tiny).max(s3);
    assert!(ours >= 0.98 * best, "ours {ours:.4}, LRU {lru:.4}, W-TinyLFU {tiny:.4}, S3-FIFO {s3:.4}");
}
