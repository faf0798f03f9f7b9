//! What the steps after a handler made of a file in memory, kept so that it is made once: fields changed, content
//! compressed, Vary said. A worker's own, no locks, gone with the plan.
//!
//! It is found by where the handler's shared fields are in memory. They are kept along, so that no others can be
//! there; and the content is compared too. Only what depends on nothing else may be kept: see `Steps::after`.

use crate::after::compress::Coding;
use bytes::Bytes;
use eleven_semantics::Fields;
use std::collections::HashMap;
use std::rc::Rc;

/// Most responses that are kept.
const ENTRIES_MAX: usize = 4096;

/// Memory of all that is kept, contents and fields, per worker.
const MEMORY_BYTES_MAX: usize = 16 << 20;

/// What else than the file the result depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Circumstances {
    /// Number of the route.
    pub route: usize,
    /// The connection is secured.
    pub is_secure: bool,
    /// The coding the client gets, if it can be had.
    pub coding: Option<Coding>,
}

#[derive(Debug)]
struct Entry {
    /// What the handler said.
    made_of: (Rc<Fields>, Bytes),
    fields: Rc<Fields>,
    content: Bytes,
}

/// The responses one worker keeps.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    entries: HashMap<(*const Fields, Circumstances), Entry, std::hash::BuildHasherDefault<Mix>>,
    memory_bytes: usize,
}

impl Finished {
    /// Fields and content of the finished response to what the handler said.
    pub fn get(
        &self,
        fields: &Rc<Fields>,
        content: &Bytes,
        circumstances: Circumstances,
    ) -> Option<(Rc<Fields>, Bytes)> {
        let entry = self.entries.get(&(Rc::as_ptr(fields), circumstances))?;
        let known = &entry.made_of.1;
        let is_same = known.as_ptr() == content.as_ptr() && known.len() == content.len();
        is_same.then(|| (entry.fields.clone(), entry.content.clone()))
    }

    /// Keeps what was made of what the handler said.
    pub fn keep(
        &mut self,
        made_of: (Rc<Fields>, Bytes),
        circumstances: Circumstances,
        fields: Rc<Fields>,
        content: Bytes,
    ) {
        let held = made_of.0.memory_bytes() + made_of.1.len() + fields.memory_bytes() + content.len();
        if held > MEMORY_BYTES_MAX / 16 {
            return;
        }
        if self.entries.len() >= ENTRIES_MAX || self.memory_bytes + held > MEMORY_BYTES_MAX {
            // Everything in it is made again in a moment; what is no longer asked for is not.
            self.entries.clear();
            self.memory_bytes = 0;
        }
        let key = (Rc::as_ptr(&made_of.0), circumstances);
        if self.entries.insert(key, Entry { made_of, fields, content }).is_none() {
            self.memory_bytes += held;
        }
    }
}

/// Keys are addresses and small numbers of our own: nobody can choose them.
#[derive(Debug, Default)]
struct Mix(u64);

impl Mix {
    fn mix(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(23) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl std::hash::Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.mix(u64::from(byte));
        }
    }
    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }
    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
    fn write_isize(&mut self, n: isize) {
        self.mix(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Circumstances = Circumstances { route: 1, is_secure: false, coding: None };

    fn said(text: &'static str) -> (Rc<Fields>, Bytes) {
        (Rc::new(Fields::from_iter(&[("X", text)])), Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn only_what_was_said_in_the_same_circumstances_is_found() {
        let mut finished = Finished::default();
        let (fields, content) = said("a");
        let made = Rc::new(Fields::new());
        finished.keep((fields.clone(), content.clone()), PLAIN, made.clone(), Bytes::from_static(b"coded"));
        let (found, coded) = finished.get(&fields, &content, PLAIN).unwrap();
        assert!(Rc::ptr_eq(&found, &made) && coded == "coded");
        let equal = Rc::new((*fields).clone());
        assert!(finished.get(&equal, &content, PLAIN).is_none(), "equal is not the same");
        assert!(finished.get(&fields, &Bytes::from(b"a".to_vec()), PLAIN).is_none(), "other content");
        assert!(finished.get(&fields, &content.slice(..0), PLAIN).is_none(), "a part of it");
        for other in [
            Circumstances { route: 2, ..PLAIN },
            Circumstances { is_secure: true, ..PLAIN },
            Circumstances { coding: Some(Coding::Gzip), ..PLAIN },
        ] {
            assert!(finished.get(&fields, &content, other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut finished = Finished::default();
        let made = Rc::new(Fields::new());
        for _ in 0..ENTRIES_MAX * 2 + 1 {
            finished.keep(said("a"), PLAIN, made.clone(), Bytes::new());
            assert!(finished.entries.len() <= ENTRIES_MAX);
        }
        let large = Bytes::from(vec![0; MEMORY_BYTES_MAX / 20]);
        for _ in 0..100 {
            finished.keep(said("a"), PLAIN, made.clone(), large.clone());
            assert!(finished.memory_bytes <= MEMORY_BYTES_MAX);
        }
        let kept = finished.entries.len();
        finished.keep(said("a"), PLAIN, made, Bytes::from(vec![0; MEMORY_BYTES_MAX / 16]));
        assert_eq!(finished.entries.len(), kept, "too large to keep");
    }
}
