//! Random octets: from the operating system, or from a seed in a simulated run that must be repeatable. Fit for
//! nonces and boundaries in the first case only.

use std::cell::Cell;
use std::io;

thread_local! {
    /// The state of this thread's seeded generator, if a test set one.
    static SEEDED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// `N` random octets.
///
/// # Errors
/// If the operating system has none, which on Linux happens in the first moments after boot only.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let Some(mut state) = SEEDED.get() else {
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        return Ok(bytes);
    };
    for chunk in bytes.chunks_mut(8) {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
    }
    SEEDED.set(Some(state));
    Ok(bytes)
}

/// Lets this thread draw from a seed (or, with `None`, from the system again). For simulation; nothing in a
/// running server calls it.
pub fn set_seed(seed: Option<u64>) {
    SEEDED.set(seed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeded_runs_repeat_and_others_do_not() {
        set_seed(Some(1));
        let first: [u8; 21] = bytes().unwrap();
        let second: [u8; 21] = bytes().unwrap();
        set_seed(Some(1));
        assert_eq!(bytes::<21>().unwrap(), first);
        assert_eq!(bytes::<21>().unwrap(), second);
        assert_ne!(first, second);
        set_seed(None);
        assert_ne!(bytes::<21>().unwrap(), bytes::<21>().unwrap());
    }
}
