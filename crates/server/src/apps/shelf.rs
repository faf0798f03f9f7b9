//! The shelf of a worker: a file in memory where its threads put whole responses that are to be sent together with the
//! next ones (docs/worker-protocol.md). The server reads it in two cases: the worker is busy with the next request, or
//! dead. It is read like any file and never mapped, so that nothing a worker does to it can harm the server.

use super::protocol::{SHELF_BYTES, SHELF_HEAD_BYTES, SHELF_TURN_AT, ShelfHead, shelf_head};
use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Threads of a worker at most.
const PARTS_MAX: u64 = 1024;

/// Whose shelf is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looking {
    /// A worker that goes on meanwhile: only what stood there at the last look already is sure to be whole.
    AtTheLiving,
    /// A worker that is gone: everything is as it left it.
    AtTheDead,
}

/// A worker's shelf, seen by one thread of the server.
#[derive(Debug)]
pub(super) struct Shelf {
    file: File,
    /// What each part said at the last look.
    before: RefCell<Vec<Option<ShelfHead>>>,
}

impl Shelf {
    /// `None` if the file has no size that a shelf can have.
    pub(super) fn new(file: OwnedFd) -> Option<Shelf> {
        let file = File::from(file);
        let parts = file.metadata().ok()?.len() / SHELF_BYTES as u64;
        (1..=PARTS_MAX)
            .contains(&parts)
            .then(|| Shelf { file, before: RefCell::new(vec![None; parts as usize]) })
    }

    /// The mark of a worker with one thread; `None` of one with several.
    pub(super) fn mark(&self) -> Option<Mark> {
        if self.before.borrow().len() > 1 {
            return None;
        }
        self.file.try_clone().ok().map(Mark)
    }

    fn head(&self, part: usize) -> Option<ShelfHead> {
        let mut head = [0; SHELF_HEAD_BYTES];
        self.file.read_exact_at(&mut head, (part * SHELF_BYTES) as u64).ok()?;
        shelf_head(&head)
    }

    /// The frames for this thread that have to be taken from here; `None` if there are none.
    pub(super) fn look(&self, thread: u8, looking: Looking) -> Option<Vec<u8>> {
        let mut found = Vec::new();
        for (part, before) in self.before.borrow_mut().iter_mut().enumerate() {
            let now = self.head(part);
            let last = std::mem::replace(before, now);
            let Some(head) = now else { continue };
            let is_settled = looking == Looking::AtTheDead || last == now;
            if head.thread != u32::from(thread) || !is_settled {
                continue;
            }
            let start = found.len();
            found.resize(start + head.octets, 0);
            let at = part * SHELF_BYTES + SHELF_HEAD_BYTES;
            let is_read = self.file.read_exact_at(&mut found[start..], at as u64).is_ok();
            // The worker may have sent all of it meanwhile and begun anew.
            if !is_read || self.head(part).is_none_or(|after| after.batch != head.batch) {
                found.truncate(start);
            }
        }
        (!found.is_empty()).then_some(found)
    }
}

/// Where a worker with one thread says which request it has begun: what it was given after that was not executed.
#[derive(Debug)]
pub(super) struct Mark(File);

impl Mark {
    /// The turn of the last request that was begun.
    pub(super) fn begun(&self) -> Option<u32> {
        let mut turn = [0; 4];
        self.0.read_exact_at(&mut turn, SHELF_TURN_AT as u64).ok()?;
        Some(u32::from_ne_bytes(turn))
    }

    /// One that says this, for tests.
    #[cfg(test)]
    pub(super) fn of(turn: u32) -> Mark {
        static MARKS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = MARKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("eleven-mark-{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all_at(&turn.to_ne_bytes(), SHELF_TURN_AT as u64).unwrap();
        Mark(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(parts: usize) -> (Shelf, File) {
        let path = std::env::temp_dir().join(format!(
            "eleven-shelf-{}-{:?}-{parts}",
            std::process::id(),
            std::thread::current().id()
        ));
        let options = || File::options().read(true).write(true).clone();
        let file = options().create(true).truncate(true).open(&path).unwrap();
        file.set_len((parts * SHELF_BYTES) as u64).unwrap();
        let copy = file.try_clone().unwrap();
        std::fs::remove_file(&path).unwrap();
        (Shelf::new(file.into()).unwrap(), copy)
    }

    fn put(file: &File, part: usize, batch: u32, thread: u32, content: &[u8]) {
        let at = (part * SHELF_BYTES) as u64;
        let mut head = Vec::new();
        for word in [batch, content.len() as u32, thread] {
            head.extend_from_slice(&word.to_ne_bytes());
        }
        file.write_all_at(content, at + SHELF_HEAD_BYTES as u64).unwrap();
        file.write_all_at(&head, at).unwrap();
    }

    #[test]
    fn of_the_living_only_what_stays_and_of_the_dead_everything() {
        let (shelf, file) = shelf(2);
        assert_eq!(shelf.look(1, Looking::AtTheLiving), None);
        put(&file, 0, 1, 1, b"one");
        put(&file, 1, 1, 2, b"for thread two");
        assert_eq!(shelf.look(1, Looking::AtTheLiving), None, "it may be sent at any moment");
        assert_eq!(shelf.look(1, Looking::AtTheLiving).unwrap(), b"one");
        // The same length, but another filling.
        put(&file, 0, 2, 1, b"two");
        assert_eq!(shelf.look(1, Looking::AtTheLiving), None);
        put(&file, 0, 3, 1, b"three");
        put(&file, 1, 2, 1, b" and four");
        assert_eq!(shelf.look(1, Looking::AtTheDead).unwrap(), b"three and four");
        put(&file, 0, 3, 1, b"");
        assert_eq!(shelf.look(2, Looking::AtTheDead), None);
        assert!(shelf.mark().is_none(), "of two threads nobody knows which begins what");
    }

    #[test]
    fn a_mark_is_read_again_and_again() {
        let (shelf, file) = shelf(1);
        let mark = shelf.mark().unwrap();
        assert_eq!(mark.begun(), Some(0));
        file.write_all_at(&7u32.to_ne_bytes(), SHELF_TURN_AT as u64).unwrap();
        assert_eq!(mark.begun(), Some(7));
        put(&file, 0, 2, 1, b"a filling leaves it alone");
        assert_eq!(mark.begun(), Some(7));
        file.set_len(4).unwrap();
        assert_eq!(mark.begun(), None);
    }

    #[test]
    fn a_shelf_that_lies_or_shrinks_is_empty() {
        let (shelf, file) = shelf(1);
        put(&file, 0, 1, 1, b"x");
        file.write_all_at(&u32::MAX.to_le_bytes(), 4).unwrap();
        assert_eq!(shelf.look(1, Looking::AtTheDead), None);
        put(&file, 0, 1, 1, b"x");
        file.set_len(4).unwrap();
        assert_eq!(shelf.look(1, Looking::AtTheDead), None);
        file.set_len(0).unwrap();
        assert!(Shelf::new(file.into()).is_none());
    }
}
