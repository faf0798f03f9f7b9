//! Writing, restarting, bounding, corrupting every octet, tearing, purging.

use super::*;
use crate::testing::{NOW, stored};
use std::sync::atomic::AtomicU32;

/// A directory of its own for each test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("eleven-cache-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Directory(path)
    }

    fn open(&self) -> Disk {
        Disk::open(&self.0, Limits::default()).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for directory in fs::read_dir(&self.0).unwrap().flatten().filter(|e| e.path().is_dir()) {
            files.extend(fs::read_dir(directory.path()).unwrap().flatten().map(|e| e.path()));
        }
        files.sort();
        files
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// The content of the only variant of a key.
fn get(disk: &Disk, key: &[u8]) -> Option<Vec<u8>> {
    let (loaded, _) = disk.load(key, &Policy::default());
    let stored = loaded.into_iter().next()?;
    match &stored.content {
        Content::Whole(bytes) => Some(bytes.to_vec()),
        Content::Blocks(blocks, _) => Some(blocks.concat()),
        Content::Disk(body) => Some(body.read_blocks(None, 0, u64::MAX).ok()?.1.concat()),
        _ => None,
    }
}

const FIELDS: [(&str, &str); 3] = [("Cache-Control", "max-age=60"), ("ETag", "\"a\""), ("X-Y", "")];

/// Fault F30: a directory has one owner at a time.
#[test]
fn what_was_stored_is_found_after_a_restart() {
    let directory = Directory::new();
    let lengths = [0usize, 1, 16_384, 16_385, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3_000_000];
    {
        let disk = directory.open();
        for (id, length) in lengths.iter().enumerate() {
            let key = length.to_be_bytes();
            disk.commit(&stored(&key, id as u64 + 1, &FIELDS, &[], &content(*length)), None).unwrap();
            assert_eq!(get(&disk, &key), Some(content(*length)), "{length}");
        }
        // Age is no stored field, and counts all the same.
        let mut aged = stored(b"aged", 99, &FIELDS, &[], b"x").copy();
        aged.freshness.initial_age = 7;
        disk.commit(&aged, None).unwrap();
        assert!(matches!(Disk::open(&directory.0, Limits::default()), Err(OpenError::InUse(_))));
    }
    let disk = directory.open();
    assert_eq!(disk.usage().1, lengths.len() + 1);
    for length in lengths {
        assert_eq!(get(&disk, &length.to_be_bytes()), Some(content(length)), "{length}");
    }
    let (loaded, _) = disk.load(&1usize.to_be_bytes(), &Policy::default());
    assert_eq!(*loaded[0].fields, FIELDS.iter().collect::<Fields>());
    assert_eq!((loaded[0].freshness.lifetime, loaded[0].freshness.response_time), (60, NOW));
    assert_eq!(disk.load(b"aged", &Policy::default()).0[0].freshness.initial_age, 7);
    assert_eq!(get(&disk, b"unknown"), None);
}

#[test]
fn variants_and_replacements() {
    let directory = Directory::new();
    let disk = directory.open();
    let vary = [("Vary", "Foo")];
    for (id, value) in [(1, "1"), (2, "2"), (3, "1")] {
        disk.commit(&stored(b"k", id, &vary, &[("Foo", value)], &content(20_000 + id as usize)), None)
            .unwrap();
    }
    let ids = |disk: &Disk| disk.load(b"k", &Policy::default()).0.iter().map(|s| s.id).collect::<Vec<_>>();
    assert_eq!(ids(&disk), [2, 3]);
    // Two heads and two bodies, nothing else.
    assert_eq!(directory.files().len(), 4);
    // An update keeps the body.
    let (loaded, _) = disk.load(b"k", &Policy::default());
    let updated = Stored { id: 9, ..loaded[0].copy() };
    disk.rewrite(&updated).unwrap();
    assert_eq!(ids(&disk), [3, 9]);
    assert_eq!(directory.files().len(), 4);
    drop(disk);
    let disk = directory.open();
    assert_eq!(ids(&disk), [3, 9]);
    assert_eq!(disk.load(b"k", &Policy::default()).0[1].content.length(), Some(20_002));
    disk.remove(b"k", 3);
    assert_eq!(ids(&disk), [9]);
    assert_eq!(disk.remove_key(b"k"), 1);
    assert!(directory.files().is_empty());
}

#[test]
fn bounded() {
    let directory = Directory::new();
    let limits = Limits { bytes_max: 1 << 20, ..Limits::default() };
    let disk = Disk::open(&directory.0, limits).unwrap();
    for id in 1..200u64 {
        disk.commit(&stored(&id.to_be_bytes(), id, &FIELDS, &[], &content(20_000)), None).unwrap();
        assert!(disk.usage().0 <= limits.bytes_max);
    }
    let on_disk: u64 = directory.files().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(on_disk, disk.usage().0);
    // What does not fit at all leaves nothing behind.
    disk.commit(&stored(b"big", 999, &FIELDS, &[], &content(2 << 20)), None).unwrap();
    assert_eq!(get(&disk, b"big"), None);
    let on_disk: u64 = directory.files().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(on_disk, disk.usage().0);
}

/// C29, and the promise of the file: whatever octet is wrong, nothing wrong is given out, and the response is
/// gone afterwards.
/// Faults F15, F17 and F19.
#[test]
fn every_corrupt_octet_is_found() {
    let directory = Directory::new();
    let good = content(66_000);
    let make = |disk: &Disk| {
        disk.commit(&stored(b"k", 1, &FIELDS, &[], &good), None).unwrap();
        disk.commit(&stored(b"small", 2, &FIELDS, &[], b"inline"), None).unwrap();
    };
    let disk = directory.open();
    make(&disk);
    let files = directory.files();
    assert_eq!(files.len(), 3);
    for path in &files {
        let octets = fs::read(path).unwrap();
        // Every octet of the heads; of the body a part, with both ends of both blocks in it.
        let is_edge = |at: usize| at < 64 || at.abs_diff(65_536) < 64 || at + 64 > octets.len();
        for at in (0..octets.len()).filter(|&at| octets.len() < 10_000 || is_edge(at) || at % 997 == 0) {
            let mut bad = octets.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(path, &bad).unwrap();
            let before = disk.faults().0;
            for (key, expected) in [(&b"k"[..], &good[..]), (b"small", b"inline")] {
                if let Some(got) = get(&disk, key) {
                    assert_eq!(got, expected, "{} at {at}", path.display());
                }
            }
            assert_eq!(disk.faults().0, before + 1, "{} at {at}", path.display());
            make(&disk);
            assert_eq!(directory.files(), files);
        }
    }
}

/// Blocks swapped within a file or between files are as bad as wrong octets.
/// Fault F20.
#[test]
fn blocks_at_the_wrong_place_are_found() {
    let directory = Directory::new();
    let disk = directory.open();
    for (key, id) in [(b"a", 1), (b"b", 2)] {
        disk.commit(&stored(key, id, &FIELDS, &[], &content(3 * BLOCK_BYTES)), None).unwrap();
    }
    let bodies: Vec<PathBuf> =
        directory.files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "body")).collect();
    let octets = fs::read(&bodies[0]).unwrap();
    let stride = BLOCK_STRIDE as usize;
    fs::write(&bodies[0], [&octets[stride..2 * stride], &octets[..stride], &octets[2 * stride..]].concat())
        .unwrap();
    fs::write(&bodies[1], &octets).unwrap();
    assert_eq!((get(&disk, b"a"), get(&disk, b"b")), (None, None));
    assert_eq!(disk.usage(), (0, 0));
}

/// Fault F49: a head file of another version, whole and with the right checksum, is nothing to this one.
#[test]
fn files_of_another_version_are_not_read() {
    let directory = Directory::new();
    let disk = directory.open();
    disk.commit(&stored(b"k", 1, &FIELDS, &[], b"small"), None).unwrap();
    assert_eq!(get(&disk, b"k").as_deref(), Some(&b"small"[..]));
    for path in directory.files() {
        let mut octets = fs::read(&path).unwrap();
        let whole = octets.len() - SUM_BYTES;
        octets[MAGIC.len() - 1] ^= 1;
        let sum = xxh3_128(&octets[..whole]).to_le_bytes();
        octets[whole..].copy_from_slice(&sum);
        fs::write(&path, octets).unwrap();
    }
    drop(disk);
    let disk = directory.open();
    assert_eq!(get(&disk, b"k"), None);
    disk.commit(&stored(b"k", 2, &FIELDS, &[], b"new"), None).unwrap();
    assert_eq!(get(&disk, b"k").as_deref(), Some(&b"new"[..]));
}

/// A crash leaves files cut anywhere, or one of two, or temporary ones: never wrong octets, never a refusal to
/// start.
/// Faults F18, F21 and F22.
#[test]
fn torn_files() {
    let directory = Directory::new();
    let good = content(70_000);
    let files = {
        let disk = directory.open();
        disk.commit(&stored(b"k", 1, &FIELDS, &[], &good), None).unwrap();
        disk.commit(&stored(b"other", 2, &FIELDS, &[], b"other"), None).unwrap();
        directory.files()
    };
    let originals: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let restore = || files.iter().zip(&originals).for_each(|(path, octets)| fs::write(path, octets).unwrap());
    for (path, octets) in files.iter().zip(&originals) {
        for length in (0..octets.len()).filter(|l| l % (1 + octets.len() / 97) == 0) {
            restore();
            fs::write(path, &octets[..length]).unwrap();
            let disk = directory.open();
            for (key, expected) in [(&b"k"[..], &good[..]), (b"other", b"other")] {
                if let Some(got) = get(&disk, key) {
                    assert_eq!(got, expected);
                }
            }
        }
        restore();
        fs::remove_file(path).unwrap();
        let disk = directory.open();
        assert!(get(&disk, b"k").is_none_or(|got| got == good));
    }
    restore();
    // Strangers in the directory are removed.
    fs::write(directory.0.join("00/garbage"), b"x").unwrap();
    fs::write(directory.0.join("00/99.body"), b"x").unwrap();
    fs::write(directory.0.join("tmp/5.body"), b"x").unwrap();
    fs::write(directory.0.join("bans"), b"torn").unwrap();
    let disk = directory.open();
    assert_eq!(get(&disk, b"k"), Some(good));
    assert_eq!(directory.files(), files);
}

#[test]
fn an_unfinished_body_leaves_nothing() {
    let directory = Directory::new();
    let disk = directory.open();
    let unfinished = disk.begin(7).unwrap();
    let block = content(BLOCK_BYTES);
    unfinished.write_block(0, &block).unwrap();
    assert_eq!(unfinished.read_block(0).unwrap(), block);
    assert!(unfinished.read_block(1).is_err());
    assert!(disk.begin(7).is_err());
    drop(unfinished);
    assert!(directory.files().is_empty());
}

/// Faults F09, F13 and F14.
#[test]
fn a_disk_that_fails_says_so() {
    let directory = Directory::new();
    let disk = directory.open();
    fs::remove_dir_all(directory.0.join("tmp")).unwrap();
    assert!(disk.commit(&stored(b"k", 1, &FIELDS, &[], &content(70_000)), None).is_err());
    assert!(disk.commit(&stored(b"k", 1, &FIELDS, &[], b"small"), None).is_err());
    assert_eq!(get(&disk, b"k"), None);
}

#[test]
fn purging_by_bans_survives_a_restart() {
    let directory = Directory::new();
    let policy = Policy::default();
    let red = [("Surrogate-Key", "red"), ("Cache-Control", "max-age=60")];
    let tag = Selection::Tag("red".into());
    {
        let disk = directory.open();
        for (key, id, fields) in [(&b"a"[..], 1, &red[..]), (b"b", 2, &FIELDS), (b"c", 3, &red)] {
            disk.commit(&stored(key, id, fields, &[], b"x"), None).unwrap();
        }
        assert_eq!(disk.purge(&tag, How::DryRun, 9, &policy).unwrap(), 2);
        disk.purge(&tag, How::Soft, 9, &policy).unwrap();
        let (loaded, _) = disk.load(b"a", &policy);
        assert!(loaded[0].candidate().marked);
        disk.purge(&tag, How::Hard, 9, &policy).unwrap();
    }
    let disk = directory.open();
    assert_eq!((get(&disk, b"a"), get(&disk, b"b")), (None, Some(b"x".to_vec())));
    // What is stored later is not concerned.
    disk.commit(&stored(b"a", 10, &red, &[], b"new"), None).unwrap();
    assert_eq!(get(&disk, b"a"), Some(b"new".to_vec()));
    // Many bans become one walk over all heads.
    for n in 0..=BANS_MAX {
        disk.purge(&Selection::Tag(format!("t{n}").into()), How::Hard, 20, &policy).unwrap();
    }
    assert!(lock(&disk.bans).len() < 10);
    assert_eq!(disk.usage().1, 2, "a and b; c was purged by the walk");
    assert_eq!(disk.purge(&Selection::All, How::Hard, 30, &policy).unwrap(), 2);
    assert_eq!(disk.usage(), (0, 0));
}

#[test]
fn names_of_files() {
    let hash = "000102030405060708090a0b0c0d0e0f";
    assert!(read_name(&format!("{hash}.1.0.ff")).is_some());
    for bad in
        ["", hash, &format!("{hash}.1.0"), &format!("{hash}.1.0.ff.2"), &format!("{hash}.x.0.1"), "1.1.1.1"]
    {
        assert!(read_name(bad).is_none(), "{bad}");
    }
}

#[test]
fn a_directory_goes_to_another_process_and_may_come_back() {
    let directory = Directory::new();
    let old = directory.open();
    old.commit(&stored(b"a", 1, &FIELDS, &[], &content(100_000)), None).unwrap();
    let begun = old.begin(7).unwrap();
    old.release().unwrap();
    assert!(!old.has(b"a"));
    assert!(old.begin(2).is_err());
    assert!(old.commit(&stored(b"b", 3, &FIELDS, &[], b"b"), None).is_err());
    assert!(old.purge(&Selection::All, How::Hard, 9, &Policy::default()).is_err());
    {
        let new = directory.open();
        drop(begun);
        assert_eq!(get(&new, b"a"), Some(content(100_000)));
        new.commit(&stored(b"c", 4, &FIELDS, &[], b"c"), None).unwrap();
        assert!(matches!(old.reclaim(), Err(OpenError::InUse(_))));
    }
    old.reclaim().unwrap();
    assert_eq!(get(&old, b"a"), Some(content(100_000)));
    assert_eq!(get(&old, b"c"), Some(b"c".to_vec()));
    old.commit(&stored(b"d", 5, &FIELDS, &[], b"d"), None).unwrap();
    assert_eq!(get(&old, b"d"), Some(b"d".to_vec()));
}
