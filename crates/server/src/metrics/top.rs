//! The busiest of very many, in little memory: the Space-Saving algorithm (Metwally, Agrawal, El Abbadi 2005). Whoever has
//! more than 1/N of all is among the N kept, whatever strangers ask for.

use std::collections::HashMap;

/// Names kept.
const KEPT: usize = 64;
/// Longest name; the rest is cut off.
pub const NAME_BYTES_MAX: usize = 200;

/// Counts of names.
#[derive(Debug, Default)]
pub struct Top {
    places: HashMap<Box<[u8]>, usize>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: Box<[u8]>,
    count: u64,
    /// What it may have been given too much.
    excess: u64,
}

impl Top {
    /// Counts a name, `weight` times.
    pub fn add(&mut self, name: &[u8], weight: u32) {
        let name = &name[..name.len().min(NAME_BYTES_MAX)];
        let weight = u64::from(weight);
        if let Some(&place) = self.places.get(name) {
            self.entries[place].count += weight;
            return;
        }
        let entry = Entry { name: name.into(), count: weight, excess: 0 };
        if self.entries.len() < KEPT {
            self.places.insert(entry.name.clone(), self.entries.len());
            self.entries.push(entry);
            return;
        }
        // The newcomer takes the place, and the count, of the one with the least.
        let least = (0..KEPT).min_by_key(|&place| self.entries[place].count).unwrap_or(0);
        let count = self.entries[least].count;
        let entry = Entry { count: count + weight, excess: count, ..entry };
        self.places.remove(&self.entries[least].name);
        self.places.insert(entry.name.clone(), least);
        self.entries[least] = entry;
    }

    /// Halves all counts, so that what was busy long ago yields to what is busy now.
    pub fn fade(&mut self) {
        for entry in &mut self.entries {
            (entry.count, entry.excess) = (entry.count / 2, entry.excess / 2);
        }
    }

    /// Adds the counts that are certain.
    pub fn add_to(&self, sums: &mut HashMap<Box<[u8]>, u64>) {
        for entry in &self.entries {
            *sums.entry(entry.name.clone()).or_default() += entry.count - entry.excess;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault D37 and its kin: a flood of names that are all different neither grows the table nor hides the busy ones.
    #[test]
    fn the_busy_ones_stay_in_a_flood_of_strangers() {
        let mut top = Top::default();
        for n in 0..100_000u32 {
            top.add(format!("/random/{n}").as_bytes(), 1);
            if n % 10 == 0 {
                top.add(b"/busy", 2);
            }
        }
        assert_eq!((top.entries.len(), top.places.len()), (KEPT, KEPT));
        let mut sums = HashMap::new();
        top.add_to(&mut sums);
        let most = sums.iter().max_by_key(|(_, count)| **count).unwrap();
        assert_eq!(&**most.0, b"/busy");
        assert!(*most.1 > 15_000, "{most:?}");
        for _ in 0..64 {
            top.fade();
        }
        let mut sums = HashMap::new();
        top.add_to(&mut sums);
        assert!(sums.values().all(|&count| count == 0));
    }

    #[test]
    fn long_names_are_cut() {
        let mut top = Top::default();
        top.add(&[b'x'; 5000], 1);
        top.add(&[b'x'; NAME_BYTES_MAX + 1], 1);
        assert_eq!((top.entries.len(), top.entries[0].name.len()), (1, NAME_BYTES_MAX));
    }
}
