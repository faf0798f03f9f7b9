//! Latencies in buckets: eight to each power of two, so that a percentile is off by an eighth at most, whatever the
//! scale. One thread writes, any may read.

use super::Count;

/// Bits of a value that tell buckets of one power of two apart.
const PRECISION_BITS: u32 = 3;
/// Values from here on are in the last bucket: 2^28 microseconds, four minutes and a half.
const EXPONENT_MAX: u32 = 28;
/// Number of buckets.
pub const BUCKETS: usize = bucket((1 << EXPONENT_MAX) - 1) + 1;

/// The bucket of a value.
const fn bucket(value: u64) -> usize {
    let value = if value >= 1 << EXPONENT_MAX { (1 << EXPONENT_MAX) - 1 } else { value };
    if value < 1 << PRECISION_BITS {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros();
    let within = (value >> (exponent - PRECISION_BITS)) & ((1 << PRECISION_BITS) - 1);
    (((exponent - PRECISION_BITS + 1) as u64) << PRECISION_BITS | within) as usize
}

/// The smallest value that is above a bucket.
const fn above(bucket: usize) -> u64 {
    let bucket = bucket as u64 + 1;
    if bucket <= 1 << PRECISION_BITS {
        return bucket;
    }
    let exponent = (bucket >> PRECISION_BITS) + PRECISION_BITS as u64 - 1;
    let within = bucket & ((1 << PRECISION_BITS) - 1);
    (1 << exponent) + (within << (exponent - PRECISION_BITS as u64))
}

/// Counts of latencies, in microseconds.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Count]>,
    sum_us: Count,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: (0..BUCKETS).map(|_| Count::default()).collect(), sum_us: Count::default() }
    }
}

impl Histogram {
    /// Counts a latency, `weight` times.
    #[inline]
    pub fn add(&self, us: u64, weight: u32) {
        self.buckets[bucket(us)].add(u64::from(weight));
        self.sum_us.add(us.saturating_mul(u64::from(weight)));
    }

    /// Adds what was counted so far to a snapshot.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for (sum, count) in snapshot.buckets.iter_mut().zip(&self.buckets) {
            *sum += count.get();
        }
        snapshot.sum_us += self.sum_us.get();
    }
}

/// What histograms held at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    buckets: Box<[u64]>,
    /// All latencies together, in microseconds.
    pub sum_us: u64,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot { buckets: vec![0; BUCKETS].into(), sum_us: 0 }
    }
}

impl Snapshot {
    /// Number of latencies.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What came since an earlier snapshot.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Snapshot {
            buckets: pairs.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }

    /// The latency that this share of all stays below, in microseconds; `None` if there were none.
    pub fn quantile_us(&self, share: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut below = 0;
        for (index, n) in self.buckets.iter().enumerate() {
            below += n;
            if below >= rank {
                return Some(above(index));
            }
        }
        Some(above(BUCKETS - 1))
    }

    /// For each exponent in the range: 2^exponent microseconds, and how many latencies stay below.
    pub fn cumulative(&self, exponents: std::ops::RangeInclusive<u32>) -> Vec<(u64, u64)> {
        let mut steps = Vec::new();
        let (mut index, mut below) = (0, 0);
        for exponent in exponents {
            let bound = 1u64 << exponent;
            while index < BUCKETS && above(index) <= bound {
                below += self.buckets[index];
                index += 1;
            }
            steps.push((bound, below));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eleven_testkit::rng::each_seed;

    /// Every value lies in its bucket, buckets have no gaps, and none is wider than an eighth of what is in it.
    #[test]
    fn buckets_are_narrow_and_without_gaps() {
        let mut lower = 0;
        for index in 0..BUCKETS {
            let upper = above(index);
            assert_eq!((bucket(lower), bucket(upper - 1)), (index, index));
            assert!(upper - lower == 1 || (upper - lower) * 8 <= lower, "{lower}..{upper}");
            lower = upper;
        }
        assert_eq!(lower, 1 << EXPONENT_MAX);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    /// Percentiles agree with those of the sorted values, an eighth of them up or down.
    #[test]
    fn percentiles_are_close() {
        each_seed(50, |rng| {
            let histogram = Histogram::default();
            let mut values: Vec<u64> = (0..1 + rng.below(500))
                .map(|_| {
                    let scale = rng.below(27);
                    rng.below(1 << scale)
                })
                .collect();
            values.iter().for_each(|&value| histogram.add(value, 1));
            values.sort_unstable();
            let mut snapshot = Snapshot::default();
            histogram.add_to(&mut snapshot);
            assert_eq!(snapshot.count(), values.len() as u64);
            assert_eq!(snapshot.sum_us, values.iter().sum::<u64>());
            for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
                let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
                let exact = values[rank - 1];
                let found = snapshot.quantile_us(share).unwrap();
                assert!(found > exact && found <= exact + exact / 8 + 1, "{share}: {found} for {exact}");
            }
            for (bound, below) in snapshot.cumulative(0..=EXPONENT_MAX) {
                assert_eq!(below, values.iter().filter(|&&value| value < bound).count() as u64);
            }
        });
        assert_eq!(Snapshot::default().quantile_us(0.5), None);
    }

    #[test]
    fn a_snapshot_since_another() {
        let histogram = Histogram::default();
        histogram.add(5, 3);
        let mut before = Snapshot::default();
        histogram.add_to(&mut before);
        histogram.add(100, 2);
        let mut after = Snapshot::default();
        histogram.add_to(&mut after);
        let between = after.since(&before);
        assert_eq!((between.count(), between.sum_us), (2, 200));
    }
}
