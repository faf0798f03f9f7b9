//! The three deliveries: the same bytes whole, byte by byte, and split at every place. A reader of wire bytes
//! must come to the same result whichever way they arrive; every wire test goes through here, so that nobody
//! has to remember. It decides nothing about what the right result is.

use crate::rng::Rng;
use std::fmt::Debug;

/// Above this length not every place is tried: the first and last `EDGE_BYTES`, and `SAMPLES` between them.
/// Splitting everywhere costs the square of the length, and the places that matter are lines and edges.
const EVERYWHERE_BYTES_MAX: usize = 4096;
const EDGE_BYTES: usize = 1024;
const SAMPLES: usize = 512;

/// Feeds `bytes` to `read` whole, byte by byte, and split in two at every place, each time from a fresh
/// start, and returns the one result.
///
/// `read` gets the pieces in order and must build its reader anew on each call. A reader that sees the end
/// of the connection after the last piece does so in `read` itself.
///
/// # Panics
/// When two deliveries give different results; the message names the delivery.
#[track_caller]
pub fn deliver<T: PartialEq + Debug>(bytes: &[u8], mut read: impl FnMut(&[&[u8]]) -> T) -> T {
    let whole = read(&[bytes]);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    same(&whole, read(&single), "byte by byte", bytes);
    for at in split_places(bytes.len()) {
        let (head, tail) = bytes.split_at(at);
        same(&whole, read(&[head, tail]), &format!("split after byte {at}"), bytes);
    }
    whole
}

/// The places at which `deliver` splits a text of `len` bytes.
fn split_places(len: usize) -> Vec<usize> {
    if len <= EVERYWHERE_BYTES_MAX {
        return (1..len).collect();
    }
    let mut rng = Rng::new(len as u64);
    let middle = (len - 2 * EDGE_BYTES) as u64;
    let mut places: Vec<usize> = (1..EDGE_BYTES).chain(len - EDGE_BYTES..len).collect();
    places.extend((0..SAMPLES).map(|_| EDGE_BYTES + rng.below(middle) as usize));
    places
}

#[track_caller]
fn same<T: PartialEq + Debug>(whole: &T, other: T, how: &str, bytes: &[u8]) {
    if *whole != other {
        let shown = crate::text::escape(&bytes[..bytes.len().min(600)]);
        panic!(
            "delivered {how}, the result differs\n whole: {whole:?}\n {how}: {other:?}\n bytes: \"{shown}\""
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_tried_once() {
        let mut seen = Vec::new();
        deliver(b"abcd", |pieces| {
            seen.push(pieces.iter().map(|p| p.len()).collect::<Vec<_>>());
            pieces.concat()
        });
        assert_eq!(seen, [vec![4], vec![1, 1, 1, 1], vec![1, 3], vec![2, 2], vec![3, 1]]);
    }

    #[test]
    fn long_texts_are_sampled_with_both_edges() {
        let places = split_places(100_000);
        assert!(places.len() < 3000 && places.iter().all(|p| (1..100_000).contains(p)));
        assert!([1, 2, 1000, 99_999, 99_000].iter().all(|p| places.contains(p)));
        assert!(places.iter().any(|p| (10_000..90_000).contains(p)));
    }

    #[test]
    #[should_panic(expected = "split after byte 2")]
    fn a_reader_that_depends_on_the_split_is_caught() {
        deliver(b"abcd", |pieces| pieces.len() == 2 && pieces[0].len() == 2);
    }

    #[test]
    fn nothing_is_a_text_too() {
        assert_eq!(deliver(b"", |pieces| pieces.concat().len()), 0);
    }
}
