//! Which octets of a file are here, which are being fetched, and what to fetch next. Fetchers that run out of
//! work steal the second half of the largest piece left (RFC 9110 §14 ranges underneath). Pure: knows neither
//! connections nor files.

/// No piece is split below this: a request costs a round trip. 1 MiB is 84 ms at 100 Mbit/s.
pub const SPLIT_BYTES_MIN: u64 = 1024 * 1024;

/// Fetchers at most.
pub const SEGMENTS_MAX: usize = 16;

/// Ranges `[start, end)` in ascending order, disjoint and not touching.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    /// An empty set.
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    /// Adds `[start, end)`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // The common case: a fetcher goes on where it was.
        if let Some(last) = self.0.iter_mut().find(|range| range.1 == start) {
            last.1 = end;
        } else {
            self.0.push((start, end));
        }
        self.0.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.0.len());
        for &(start, end) in &self.0 {
            match merged.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        self.0 = merged;
    }

    /// Octets in the set.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Octets in the set from 0 on without a gap.
    pub fn prefix(&self) -> u64 {
        self.0.first().filter(|range| range.0 == 0).map_or(0, |range| range.1)
    }

    /// What is missing of `[0, length)`.
    pub fn gaps(&self, length: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for &(start, end) in &self.0 {
            if start.min(length) > at {
                gaps.push((at, start.min(length)));
            }
            at = at.max(end);
        }
        if at < length {
            gaps.push((at, length));
        }
        gaps
    }

    /// The ranges.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }
}

/// A piece handed to a fetcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Names it in later calls.
    pub id: usize,
    /// First octet to fetch.
    pub start: u64,
    /// Behind the last octet; may move towards `start` later, when somebody steals.
    pub end: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    at: u64,
    end: u64,
    claimed: bool,
}

/// The plan of one download.
#[derive(Debug, Clone)]
pub struct Plan {
    pieces: Vec<Piece>,
    done: RangeSet,
    length: u64,
    split_bytes_min: u64,
    /// What a fetcher takes of another's piece at most.
    share_bytes_max: u64,
}

impl Plan {
    /// A plan for `length` octets of which `done` are here, split into `segments` pieces to begin with.
    pub fn new(length: u64, done: RangeSet, segments: usize, split_bytes_min: u64) -> Plan {
        let split_bytes_min = split_bytes_min.max(1);
        let mut pieces: Vec<Piece> =
            done.gaps(length).into_iter().map(|(at, end)| Piece { at, end, claimed: false }).collect();
        while pieces.len() < segments.clamp(1, SEGMENTS_MAX) {
            let Some(largest) = pieces.iter_mut().max_by_key(|piece| piece.end - piece.at) else { break };
            if largest.end - largest.at < 2 * split_bytes_min {
                break;
            }
            let middle = largest.at + (largest.end - largest.at) / 2;
            let second = Piece { at: middle, end: largest.end, claimed: false };
            largest.end = middle;
            pieces.push(second);
        }
        pieces.sort_unstable_by_key(|piece| piece.at);
        Plan { pieces, done, length, split_bytes_min, share_bytes_max: u64::MAX }
    }

    /// The same for so many fetchers, some of which come later: each takes its share from the end of another's piece and
    /// not half of it, so that it asks for nothing that a third one takes away again. What is on its way by then would
    /// come for nothing, and on a full line in the place of something else.
    #[must_use]
    pub fn shared_by(mut self, fetchers: usize) -> Plan {
        let missing = self.length - self.done.total().min(self.length);
        self.share_bytes_max = missing.div_ceil(fetchers.max(1) as u64).max(self.split_bytes_min);
        self
    }

    /// The next piece for a fetcher that is free: the first that nobody has, else the second half of the piece
    /// with the most left, or a share of it. `None` if there is nothing worth a request.
    pub fn claim(&mut self) -> Option<Claim> {
        let free = self.pieces.iter().position(|piece| !piece.claimed && piece.at < piece.end);
        let id = match free {
            Some(id) => id,
            None => {
                let (victim, left) = self
                    .pieces
                    .iter()
                    .enumerate()
                    .map(|(id, piece)| (id, piece.end - piece.at))
                    .max_by_key(|&(_, left)| left)?;
                if left < 2 * self.split_bytes_min {
                    return None;
                }
                let piece = &mut self.pieces[victim];
                let middle = piece.end - (left - left / 2).min(self.share_bytes_max);
                let stolen = Piece { at: middle, end: piece.end, claimed: false };
                piece.end = middle;
                self.pieces.push(stolen);
                self.pieces.len() - 1
            }
        };
        let piece = &mut self.pieces[id];
        piece.claimed = true;
        Some(Claim { id, start: piece.at, end: piece.end })
    }

    /// Whether [`Plan::claim`] would give something.
    pub fn has_work(&self) -> bool {
        self.pieces.iter().any(|piece| {
            let left = piece.end - piece.at;
            left >= 2 * self.split_bytes_min || (left > 0 && !piece.claimed)
        })
    }

    /// How many of the next `count` octets of a piece are still its own. The rest was stolen: drop it and end
    /// the request.
    pub fn wanted(&self, id: usize, count: u64) -> u64 {
        self.pieces.get(id).map_or(0, |piece| count.min(piece.end - piece.at))
    }

    /// `count` octets of a piece were written. At most [`Plan::wanted`] of them count.
    pub fn advance(&mut self, id: usize, count: u64) {
        let count = self.wanted(id, count);
        if let Some(piece) = self.pieces.get_mut(id) {
            self.done.insert(piece.at, piece.at + count);
            piece.at += count;
        }
    }

    /// Where the next octet of a piece belongs.
    pub fn position(&self, id: usize) -> u64 {
        self.pieces.get(id).map_or(0, |piece| piece.at)
    }

    /// Whether a piece has all of its octets.
    pub fn is_finished(&self, id: usize) -> bool {
        self.pieces.get(id).is_none_or(|piece| piece.at == piece.end)
    }

    /// Gives a piece back, finished or not.
    pub fn release(&mut self, id: usize) {
        if let Some(piece) = self.pieces.get_mut(id) {
            piece.claimed = false;
        }
    }

    /// What is here.
    pub fn done(&self) -> &RangeSet {
        &self.done
    }

    /// The whole length.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether every octet is here.
    pub fn is_complete(&self) -> bool {
        self.done.total() == self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        let mut set = RangeSet::new();
        ranges.iter().for_each(|&(start, end)| set.insert(start, end));
        set
    }

    #[test]
    fn ranges_merge_and_leave_gaps() {
        for (ranges, merged, prefix, gaps) in [
            (&[][..], &[][..], 0, &[(0, 10)][..]),
            (&[(0, 5)], &[(0, 5)], 5, &[(5, 10)]),
            (&[(5, 10)], &[(5, 10)], 0, &[(0, 5)]),
            (&[(0, 3), (3, 5)], &[(0, 5)], 5, &[(5, 10)]),
            (&[(6, 8), (0, 2)], &[(0, 2), (6, 8)], 2, &[(2, 6), (8, 10)]),
            (&[(0, 4), (2, 10)], &[(0, 10)], 10, &[]),
            (&[(3, 3), (5, 4)], &[], 0, &[(0, 10)]),
            (&[(0, 20)], &[(0, 20)], 20, &[]),
            (&[(12, 20)], &[(12, 20)], 0, &[(0, 10)]),
        ] {
            let set = set(ranges);
            assert_eq!((set.ranges(), set.prefix()), (merged, prefix), "{ranges:?}");
            assert_eq!(set.gaps(10), gaps, "{ranges:?}");
        }
    }

    #[test]
    fn pieces_are_even_and_not_too_small() {
        let mut plan = Plan::new(100, RangeSet::new(), 4, 10);
        let claims: Vec<_> = std::iter::from_fn(|| plan.claim()).take(4).map(|c| (c.start, c.end)).collect();
        assert_eq!(claims, [(0, 25), (25, 50), (50, 75), (75, 100)]);
        let mut plan = Plan::new(100, RangeSet::new(), 4, 60);
        assert_eq!(plan.claim(), Some(Claim { id: 0, start: 0, end: 100 }));
        assert_eq!(plan.claim(), None, "too small to share");
        let mut plan = Plan::new(0, RangeSet::new(), 4, 10);
        assert!(plan.is_complete() && plan.claim().is_none());
    }

    #[test]
    fn the_idle_steal_from_the_busiest() {
        let mut plan = Plan::new(100, RangeSet::new(), 2, 10);
        let (a, b) = (plan.claim().unwrap(), plan.claim().unwrap());
        plan.advance(b.id, 50);
        assert!(plan.is_finished(b.id));
        plan.release(b.id);
        plan.advance(a.id, 10);
        let stolen = plan.claim().unwrap();
        assert_eq!((stolen.start, stolen.end), (30, 50));
        assert_eq!(plan.wanted(a.id, 100), 20, "a ends where the thief began");
        plan.advance(a.id, 100);
        assert_eq!(plan.position(a.id), 30);
        plan.advance(stolen.id, 20);
        assert!(plan.is_complete());
        // A failed fetcher gives back the rest, and somebody else goes on where it was.
        // Shares for four: from the end of what the first one has, each asked for once and whole.
        let mut plan = Plan::new(100, RangeSet::new(), 1, 10).shared_by(4);
        let claims: Vec<_> = std::iter::from_fn(|| plan.claim()).take(4).map(|c| (c.start, c.end)).collect();
        assert_eq!(claims, [(0, 100), (75, 100), (50, 75), (25, 50)]);
        assert_eq!(plan.wanted(0, 100), 25);
        let mut plan = Plan::new(100, RangeSet::new(), 1, 100);
        let claim = plan.claim().unwrap();
        plan.advance(claim.id, 40);
        plan.release(claim.id);
        assert_eq!(plan.claim(), Some(Claim { id: 0, start: 40, end: 100 }));
    }

    #[test]
    fn a_resumed_plan_fetches_only_what_is_missing() {
        let mut plan = Plan::new(100, set(&[(0, 30), (50, 60)]), 1, 10);
        let mut got = Vec::new();
        while let Some(claim) = plan.claim() {
            got.push((claim.start, claim.end));
            plan.advance(claim.id, claim.end - claim.start);
            plan.release(claim.id);
        }
        assert_eq!(got, [(30, 50), (60, 100)]);
        assert!(plan.is_complete());
    }

    proptest! {
        /// Whatever the fetchers do, every octet is fetched exactly once, and the plan comes to its end.
        #[test]
        fn every_octet_exactly_once(
            length in 0u64..5000,
            segments in 1usize..6,
            steps in proptest::collection::vec((0usize..6, 1u64..700, any::<bool>()), 0..200),
        ) {
            let mut plan = Plan::new(length, RangeSet::new(), segments, 64);
            let mut seen = vec![0u8; length as usize];
            let mut workers: Vec<Option<Claim>> = vec![None; 6];
            let mut run = |plan: &mut Plan, worker: &mut Option<Claim>, count: u64, fail: bool| {
                let Some(claim) = worker.or_else(|| plan.claim()) else { return false };
                *worker = Some(claim);
                let (at, take) = (plan.position(claim.id), plan.wanted(claim.id, count));
                seen[at as usize..(at + take) as usize].iter_mut().for_each(|octet| *octet += 1);
                plan.advance(claim.id, count);
                if fail || plan.is_finished(claim.id) {
                    plan.release(claim.id);
                    *worker = None;
                }
                true
            };
            for (who, count, fail) in steps {
                run(&mut plan, &mut workers[who], count, fail);
            }
            for worker in &mut workers {
                while worker.is_some() {
                    run(&mut plan, worker, 1000, false);
                }
            }
            let mut last = None;
            while run(&mut plan, &mut last, 1000, false) {}
            prop_assert!(plan.is_complete());
            prop_assert!(seen.iter().all(|&count| count == 1));
        }
    }
}
