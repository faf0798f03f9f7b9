//! A seeded random number generator (SplitMix64), so that a failing random test is repeated from the seed it
//! printed. Not for secrets, and not for statistics.

/// A generator; equal seeds give equal sequences, on every machine and in every version.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `bound` - 1; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low).saturating_add(1))
    }

    /// True `parts` times in `whole`.
    pub fn chance(&mut self, parts: u64, whole: u64) -> bool {
        self.below(whole) < parts
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.bits() as u8).collect()
    }

    /// `bytes` cut into pieces of 1 to `piece_bytes_max` bytes.
    pub fn pieces<'a>(&mut self, bytes: &'a [u8], piece_bytes_max: usize) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = self.between(1, piece_bytes_max as u64) as usize;
            let (piece, tail) = rest.split_at(len.min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        pieces
    }

    /// `bytes` with `count` random changes: an octet replaced, inserted or removed, or a stretch repeated.
    pub fn mutated(&mut self, bytes: &[u8], count: usize) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..count {
            let at = self.below(out.len() as u64 + 1) as usize;
            // Half of the new octets are ones that mean something to HTTP.
            let octet =
                if self.chance(1, 2) { *self.pick(b"\r\n\0 \t:;,=\"/0A\x7f\xff") } else { self.bits() as u8 };
            match self.below(4) {
                0 if at < out.len() => out[at] = octet,
                1 if at < out.len() => drop(out.remove(at)),
                2 if at < out.len() => {
                    let end = (at + self.between(1, 32) as usize).min(out.len());
                    let stretch = out[at..end].to_vec();
                    out.splice(at..at, stretch);
                }
                _ => out.insert(at, octet),
            }
        }
        out
    }
}

/// Runs `test` with `count` seeds, or only with the seed in the environment variable `SEED`, and says which
/// seed failed.
///
/// # Panics
/// When `test` panics, after printing its seed.
pub fn each_seed(count: u64, test: impl Fn(&mut Rng)) {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED must be a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    };
    for seed in seeds {
        let guard = PrintSeed(seed);
        test(&mut Rng::new(seed));
        std::mem::forget(guard);
    }
}

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        eprintln!("failed with seed {0}: repeat with SEED={0} cargo test NAME", self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_fixed() {
        let mut rng = Rng::new(0);
        assert_eq!([rng.bits(), rng.bits()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
        assert_eq!(Rng::new(7).bytes(9), Rng::new(7).bytes(9));
        assert_ne!(Rng::new(7).bytes(9), Rng::new(8).bytes(9));
    }

    #[test]
    fn bounds_hold() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 3];
        for _ in 0..1000 {
            assert!(rng.below(10) < 10);
            seen[(rng.between(5, 7) - 5) as usize] = true;
        }
        assert_eq!((seen, rng.below(0), rng.between(4, 4)), ([true; 3], 0, 4));
        assert!((0..1000).filter(|_| rng.chance(1, 4)).count().abs_diff(250) < 80);
    }

    #[test]
    fn pieces_make_the_whole() {
        let mut rng = Rng::new(2);
        let text = rng.bytes(1000);
        let pieces = rng.pieces(&text, 7);
        assert!(pieces.iter().all(|p| (1..=7).contains(&p.len())));
        assert_eq!(pieces.concat(), text);
        assert!(rng.pieces(b"", 5).is_empty());
    }

    #[test]
    fn mutations_change_and_never_panic() {
        let mut rng = Rng::new(3);
        let changed =
            (0..200).filter(|_| rng.mutated(b"GET / HTTP/1.1\r\n", 2) != b"GET / HTTP/1.1\r\n").count();
        assert!(changed > 150, "{changed}");
        for _ in 0..100 {
            rng.mutated(b"", 3);
        }
    }
}
