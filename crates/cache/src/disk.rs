//! Stored responses on disk: bounded, sealed, and found again after a restart (invariant 12 of the house).
//!
//! A response is a *head* file (key, header section, times) and, unless it is small, a *body* file of blocks of
//! [`BLOCK_BYTES`], each with an XXH3-128 checksum over its octets, its number and the number of its file. A
//! head has one checksum over all of it. Nothing that does not match leaves this file: the response is dropped,
//! and the caller told so, so that it fetches again.
//!
//! Both files are written under another name and renamed, the body first; what a crash leaves is either whole
//! or unknown to everybody. No fsync: after a power failure the checksums tell what arrived. The index is the
//! names of the head files, so starting reads directories and not files. What was purged by tag or prefix is
//! written down ("bans") and applied when a response is loaded.
//!
//! Everything here blocks. Callers run it on the blocking pool.

use crate::content::{BLOCK_BYTES, Content, Read};
use crate::evict::{HashedMap, Queues, Resident, Resides};
use crate::purge::{How, Selection};
use crate::stored::{self, Stored, Tags, raise_id};
use bytes::Bytes;
use eleven_net::pipe::Reason;
use eleven_semantics::caching::Policy;
use eleven_semantics::date::HttpDate;
use eleven_semantics::{Fields, Known, Status, grammar};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

const MAGIC: &[u8; 8] = b"11cache\x01";
const SUM_BYTES: usize = 16;
/// Content up to this length stands in the head file.
const INLINE_BYTES_MAX: u64 = 16_384;
/// Content up to this length is read and verified whole before anything of it is sent, so that a bad block is
/// healed by fetching again before the client sees anything.
pub const VERIFY_WHOLE_BYTES: u64 = 1 << 20;
/// Largest head file.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// Bans beyond this are applied to every head at once and forgotten.
const BANS_MAX: usize = 512;

/// Limits of the store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Octets of all files.
    pub bytes_max: u64,
    /// Octets of the content of one response.
    pub object_bytes_max: u64,
    /// Variants of one key; beyond it the oldest leaves.
    pub variants_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes_max: 10 << 30, object_bytes_max: 4 << 30, variants_max: 32 }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("cache directory {0} is in use by another process; give each its own")]
    InUse(PathBuf),
    /// An I/O error.
    #[error("cache directory {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

#[derive(Debug, Clone, Copy)]
struct Object {
    id: u64,
    body: u64,
    bytes: u64,
}

struct Entry {
    resident: Resident,
    key_hash: u128,
    objects: Vec<Object>,
}

impl Resides for Entry {
    fn resident(&mut self) -> &mut Resident {
        &mut self.resident
    }
}

struct Index {
    map: HashedMap<Entry>,
    queues: Queues,
}

struct Ban {
    before: u64,
    soft: bool,
    selection: Selection,
}

/// The store.
pub struct Disk {
    root: PathBuf,
    limits: Limits,
    index: Mutex<Index>,
    bans: Mutex<Vec<Ban>>,
    corrupt: AtomicU64,
    errors: AtomicU64,
    /// Held as long as the store is open and not released.
    lock_file: File,
    /// Another process has the directory now: nothing is found, written or removed here.
    released: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn low(key_hash: u128) -> u64 {
    key_hash as u64
}

impl Disk {
    /// Opens or makes the store in this directory, and reads its index.
    ///
    /// # Errors
    /// If another process has it open, or it cannot be read and written.
    pub fn open(root: &Path, limits: Limits) -> Result<Disk, OpenError> {
        let failed = |error| OpenError::Io(root.to_owned(), error);
        fs::create_dir_all(root.join("tmp")).map_err(failed)?;
        let lock_file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(failed)?;
        match lock_file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse(root.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        for entry in fs::read_dir(root.join("tmp")).map_err(failed)?.flatten() {
            let _ = fs::remove_file(entry.path());
        }
        for first in 0..=255u8 {
            let directory = root.join(format!("{first:02x}"));
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
        }
        let disk = Disk {
            root: root.to_owned(),
            limits,
            index: Mutex::new(Index { map: HashedMap::default(), queues: Queues::new(limits.bytes_max) }),
            bans: Mutex::new(Vec::new()),
            corrupt: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            lock_file,
            released: AtomicBool::new(false),
        };
        disk.read_index().map_err(failed)?;
        disk.read_bans();
        Ok(disk)
    }

    /// Leaves the directory to another process. What is being sent from it is sent on; nothing more is found in it,
    /// stored in it or removed from it.
    ///
    /// # Errors
    /// If the lock cannot be given up.
    pub fn release(&self) -> io::Result<()> {
        self.released.store(true, Ordering::Release);
        *lock(&self.index) = Index { map: HashedMap::default(), queues: Queues::new(self.limits.bytes_max) };
        self.lock_file.unlock()
    }

    /// Takes the directory back, with what is in it by now.
    ///
    /// # Errors
    /// If another process has it, or it cannot be read.
    pub fn reclaim(&self) -> Result<(), OpenError> {
        let failed = |error| OpenError::Io(self.root.clone(), error);
        match self.lock_file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse(self.root.clone())),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        self.read_index().map_err(failed)?;
        self.released.store(false, Ordering::Release);
        Ok(())
    }

    fn check_ours(&self) -> io::Result<()> {
        if self.released.load(Ordering::Acquire) {
            return Err(io::Error::other("another process has the store now"));
        }
        Ok(())
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Octets of all files, and number of keys.
    pub fn usage(&self) -> (u64, usize) {
        let index = lock(&self.index);
        (index.queues.bytes(), index.map.len())
    }

    /// Files that did not match their checksums, and other I/O errors, since the start.
    pub fn faults(&self) -> (u64, u64) {
        (self.corrupt.load(Ordering::Relaxed), self.errors.load(Ordering::Relaxed))
    }

    fn directory(&self, key_hash: u128) -> PathBuf {
        self.root.join(format!("{:02x}", (key_hash >> 120) as u8))
    }

    fn head_path(&self, key_hash: u128, object: &Object) -> PathBuf {
        let Object { id, body, bytes } = object;
        self.directory(key_hash).join(format!("{key_hash:032x}.{id:x}.{body:x}.{bytes:x}"))
    }

    fn body_path(&self, key_hash: u128, body: u64) -> PathBuf {
        self.directory(key_hash).join(format!("{body:x}.body"))
    }

    /// Learns what is there from the names of the files, oldest first, and removes what nothing refers to.
    fn read_index(&self) -> io::Result<()> {
        let mut objects: Vec<(u128, Object)> = Vec::new();
        for first in 0..=255u8 {
            let directory = self.root.join(format!("{first:02x}"));
            let (mut bodies, mut wanted) = (Vec::new(), HashSet::new());
            for entry in fs::read_dir(&directory)?.flatten() {
                let name = entry.file_name();
                let Some(name) = name.to_str() else { continue };
                if let Some(body) = name.strip_suffix(".body") {
                    bodies.push((u64::from_str_radix(body, 16).unwrap_or(0), entry.path()));
                } else if let Some((key_hash, object)) =
                    read_name(name).filter(|(hash, _)| (hash >> 120) as u8 == first)
                {
                    wanted.insert(object.body);
                    objects.push((key_hash, object));
                } else {
                    let _ = fs::remove_file(entry.path());
                }
            }
            for (body, path) in bodies {
                if !wanted.contains(&body) {
                    let _ = fs::remove_file(path);
                }
            }
        }
        objects.sort_by_key(|(_, object)| object.id);
        if let Some((_, newest)) = objects.last() {
            raise_id(newest.id, HttpDate(eleven_net::clock::unix_seconds()));
        }
        for (key_hash, object) in objects {
            self.enter(key_hash, object, |_| false);
        }
        Ok(())
    }

    /// Puts an object into the index, in place of those `replaced`; removes what there is no room for.
    fn enter(&self, key_hash: u128, object: Object, mut replaced: impl FnMut(&Object) -> bool) {
        let mut gone: Vec<(u128, Object, bool)> = Vec::new();
        {
            let mut index = lock(&self.index);
            let Index { map, queues } = &mut *index;
            match map.get_mut(&low(key_hash)) {
                Some(entry) if entry.key_hash == key_hash => {
                    entry.objects.retain(|old| {
                        let out = replaced(old);
                        // Written once more under the same name: nothing to remove.
                        let same = (old.id, old.body, old.bytes) == (object.id, object.body, object.bytes);
                        if out && !same {
                            // A validation keeps the body under a new head.
                            gone.push((key_hash, *old, old.body != object.body));
                        }
                        !out
                    });
                    if entry.objects.len() >= self.limits.variants_max.max(1) {
                        gone.push((key_hash, entry.objects.remove(0), true));
                    }
                    entry.objects.push(object);
                    let total = entry.objects.iter().map(|o| o.bytes).sum();
                    queues.resize(&mut entry.resident, total);
                }
                other => {
                    if let Some(stranger) = other {
                        gone.extend(stranger.objects.iter().map(|o| (stranger.key_hash, *o, true)));
                        queues.forget(&stranger.resident);
                        map.remove(&low(key_hash));
                    }
                    let resident = queues.admit(map, low(key_hash), object.bytes);
                    map.insert(low(key_hash), Entry { resident, key_hash, objects: vec![object] });
                }
            }
            while queues.is_over() {
                let Some((_, entry)) = queues.evict(map) else { break };
                gone.extend(entry.objects.iter().map(|o| (entry.key_hash, *o, true)));
            }
        }
        for (hash, old, with_body) in gone {
            self.unlink(hash, &old, with_body);
        }
    }

    fn unlink(&self, key_hash: u128, object: &Object, with_body: bool) {
        let _ = fs::remove_file(self.head_path(key_hash, object));
        if with_body && object.body != 0 {
            let _ = fs::remove_file(self.body_path(key_hash, object.body));
        }
    }

    /// Whether anything is stored for this key. Does not touch the disk.
    pub fn has(&self, key: &[u8]) -> bool {
        let key_hash = xxh3_128(key);
        lock(&self.index).map.get(&low(key_hash)).is_some_and(|entry| entry.key_hash == key_hash)
    }

    /// Loads the variants of a key. What does not match its checksum or its name is dropped; `true` says that
    /// something was.
    pub fn load(&self, key: &[u8], policy: &Policy) -> (Vec<Arc<Stored>>, bool) {
        let key_hash = xxh3_128(key);
        let objects = {
            let mut index = lock(&self.index);
            match index.map.get_mut(&low(key_hash)) {
                Some(entry) if entry.key_hash == key_hash => {
                    entry.resident.touch();
                    entry.objects.clone()
                }
                _ => return (Vec::new(), false),
            }
        };
        let (mut loaded, mut healed) = (Vec::new(), false);
        for object in objects {
            match self.load_object(key_hash, key, &object, policy) {
                Ok(Some(stored)) => loaded.push(Arc::new(stored)),
                Ok(None) => {}
                Err(error) => {
                    healed = true;
                    self.note(&error);
                    self.drop_object(key_hash, object.id);
                }
            }
        }
        (loaded, healed)
    }

    fn note(&self, error: &io::Error) {
        let counter = if error.kind() == io::ErrorKind::InvalidData { &self.corrupt } else { &self.errors };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%error, directory = %self.root.display(), "a stored response is dropped");
    }

    fn load_object(
        &self,
        key_hash: u128,
        key: &[u8],
        object: &Object,
        policy: &Policy,
    ) -> io::Result<Option<Stored>> {
        let octets = read_limited(&self.head_path(key_hash, object))?;
        let mut stored = decode(&octets, policy).ok_or_else(corrupt)?;
        if stored.stored.id != object.id || stored.body != object.body {
            return Err(corrupt());
        }
        if *stored.stored.key != *key {
            // Another key with the same 128 bits: not ours, and not wrong.
            return Ok(None);
        }
        if object.body != 0 {
            let path = self.body_path(key_hash, object.body);
            let body =
                Arc::new(Body { path, id: object.body, length: stored.length, bad: AtomicBool::new(false) });
            body.check_size()?;
            stored.stored.content = if stored.length <= VERIFY_WHOLE_BYTES {
                let (_, blocks) = body.read_blocks(None, 0, u64::MAX).map_err(|_| corrupt())?;
                match <[Bytes; 1]>::try_from(blocks) {
                    Ok([only]) => Content::Whole(only),
                    Err(blocks) => Content::Blocks(blocks.into(), stored.length),
                }
            } else {
                Content::Disk(body.clone())
            };
            stored.stored.body = Some(body);
        }
        Ok(self.apply_bans(key_hash, stored.stored))
    }

    /// `None` if a ban removed it.
    fn apply_bans(&self, key_hash: u128, stored: Stored) -> Option<Stored> {
        for ban in lock(&self.bans).iter() {
            if stored.id < ban.before && ban.selection.chooses(&stored) {
                if !ban.soft {
                    self.drop_object(key_hash, stored.id);
                    return None;
                }
                stored.marked.store(true, Ordering::Relaxed);
            }
        }
        Some(stored)
    }

    fn drop_object(&self, key_hash: u128, id: u64) {
        let mut gone = None;
        {
            let mut index = lock(&self.index);
            let Index { map, queues } = &mut *index;
            if let Some(entry) = map.get_mut(&low(key_hash)).filter(|entry| entry.key_hash == key_hash)
                && let Some(place) = entry.objects.iter().position(|object| object.id == id)
            {
                gone = Some(entry.objects.remove(place));
                if entry.objects.is_empty() {
                    queues.forget(&entry.resident);
                    map.remove(&low(key_hash));
                } else {
                    let total = entry.objects.iter().map(|o| o.bytes).sum();
                    queues.resize(&mut entry.resident, total);
                }
            }
        }
        if let Some(object) = gone {
            self.unlink(key_hash, &object, true);
        }
    }

    /// Removes one stored response, found to be bad or no longer valid.
    pub fn remove(&self, key: &[u8], id: u64) {
        self.drop_object(xxh3_128(key), id);
    }

    /// Removes every variant of a key.
    pub fn remove_key(&self, key: &[u8]) -> usize {
        let key_hash = xxh3_128(key);
        let objects = match lock(&self.index).map.get(&low(key_hash)) {
            Some(entry) if entry.key_hash == key_hash => entry.objects.clone(),
            _ => return 0,
        };
        for object in &objects {
            self.drop_object(key_hash, object.id);
        }
        objects.len()
    }

    /// Begins a body file.
    ///
    /// # Errors
    /// I/O errors.
    pub fn begin(&self, id: u64) -> io::Result<Arc<Unfinished>> {
        self.check_ours()?;
        let path = self.root.join("tmp").join(format!("{id:x}.body"));
        let file = File::options().create_new(true).read(true).write(true).open(&path)?;
        Ok(Arc::new(Unfinished { file, path, id, kept: AtomicBool::default(), bad: AtomicBool::default() }))
    }

    /// Stores a complete response: its head, and its body from memory or as written by `unfinished`. Returns the
    /// body file, if there is one. Replaces the variants that `stored` replaces.
    ///
    /// # Errors
    /// I/O errors; then nothing of it is stored.
    pub fn commit(
        &self,
        stored: &Stored,
        unfinished: Option<(&Unfinished, u64)>,
    ) -> io::Result<Option<Arc<Body>>> {
        self.check_ours()?;
        let key_hash = xxh3_128(&stored.key);
        let (body, length, inline) = match (unfinished, &stored.content) {
            (Some((file, length)), _) => (Some(self.keep_body(key_hash, file, length)?), length, None),
            (None, Content::Whole(bytes)) if bytes.len() as u64 <= INLINE_BYTES_MAX => {
                (None, bytes.len() as u64, Some(bytes.clone()))
            }
            (None, Content::Whole(bytes)) => {
                let length = bytes.len() as u64;
                (Some(self.write_body(key_hash, stored.id, bytes.chunks(BLOCK_BYTES), length)?), length, None)
            }
            (None, Content::Blocks(blocks, length)) => {
                let chunks = blocks.iter().map(|block| &block[..]);
                (Some(self.write_body(key_hash, stored.id, chunks, *length)?), *length, None)
            }
            (None, Content::Disk(body)) => (Some(body.clone()), body.length, None),
            (None, Content::Filling(_) | Content::Parts(_)) => {
                return Err(io::Error::other("content is not whole"));
            }
        };
        let body_id = body.as_ref().map_or(0, |body| body.id);
        let written = self.write_head(key_hash, stored, body_id, length, inline.as_deref());
        if let (Err(_), Some(body)) = (&written, &body) {
            // Nothing will ever refer to it.
            let _ = fs::remove_file(&body.path);
        }
        written.map(|()| body)
    }

    /// Writes a new head for a stored response that was updated: the content stays where it is.
    ///
    /// # Errors
    /// I/O errors; then the old head stays.
    pub fn rewrite(&self, stored: &Stored) -> io::Result<()> {
        self.check_ours()?;
        match &stored.body {
            Some(body) => self.write_head(xxh3_128(&stored.key), stored, body.id, body.length, None),
            None => self.commit(stored, None).map(drop),
        }
    }

    fn write_head(
        &self,
        key_hash: u128,
        stored: &Stored,
        body: u64,
        length: u64,
        inline: Option<&[u8]>,
    ) -> io::Result<()> {
        let octets = encode(stored, body, length, inline);
        if octets.len() as u64 > HEAD_BYTES_MAX {
            return Err(io::Error::other("the header section is too large"));
        }
        let bytes = octets.len() as u64 + if body == 0 { 0 } else { file_length(length) };
        let object = Object { id: stored.id, body, bytes };
        let temporary = self.root.join("tmp").join(format!("{:x}.head", stored.id));
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(&octets))
            .and_then(|()| fs::rename(&temporary, self.head_path(key_hash, &object)));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            self.errors.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        let replaced = self.ids_replaced_by(key_hash, stored, body);
        self.enter(key_hash, object, |old| old.id == stored.id || replaced.contains(&old.id));
        Ok(())
    }

    /// Which objects of the key have the same variant. Reads their heads; few keys have more than one.
    fn ids_replaced_by(&self, key_hash: u128, stored: &Stored, body: u64) -> Vec<u64> {
        let objects = match lock(&self.index).map.get(&low(key_hash)) {
            Some(entry) if entry.key_hash == key_hash => entry.objects.clone(),
            _ => return Vec::new(),
        };
        let same = |object: &Object| {
            if body != 0 && object.body == body {
                return true;
            }
            match read_limited(&self.head_path(key_hash, object))
                .ok()
                .and_then(|o| decode(&o, &Policy::default()))
            {
                Some(old) => old.stored.vary == stored.vary && old.stored.variant == stored.variant,
                None => true,
            }
        };
        objects.iter().filter(|object| same(object)).map(|object| object.id).collect()
    }

    fn keep_body(&self, key_hash: u128, unfinished: &Unfinished, length: u64) -> io::Result<Arc<Body>> {
        if unfinished.bad.load(Ordering::Relaxed) {
            return Err(corrupt());
        }
        let path = self.body_path(key_hash, unfinished.id);
        fs::rename(&unfinished.path, &path)?;
        unfinished.kept.store(true, Ordering::Relaxed);
        Ok(Arc::new(Body { path, id: unfinished.id, length, bad: AtomicBool::new(false) }))
    }

    fn write_body<'a>(
        &self,
        key_hash: u128,
        id: u64,
        chunks: impl Iterator<Item = &'a [u8]>,
        length: u64,
    ) -> io::Result<Arc<Body>> {
        let unfinished = self.begin(id)?;
        for (number, chunk) in chunks.enumerate() {
            unfinished.write_block(number as u64, chunk)?;
        }
        self.keep_body(key_hash, &unfinished, length)
    }

    /// Purges; how many keys or responses are concerned. A ban concerns what is loaded later, so it counts
    /// nothing now; a dry run reads every head.
    pub fn purge(&self, selection: &Selection, how: How, now_id: u64, policy: &Policy) -> io::Result<usize> {
        self.check_ours()?;
        if how == How::DryRun {
            let mut count = 0;
            self.visit(policy, |stored| count += usize::from(selection.chooses(stored)));
            return Ok(count);
        }
        if *selection == Selection::All && how == How::Hard {
            let all: Vec<(u128, Object)> = {
                let index = lock(&self.index);
                let entries = index.map.values();
                entries.flat_map(|e| e.objects.iter().map(|o| (e.key_hash, *o)).collect::<Vec<_>>()).collect()
            };
            for (key_hash, object) in &all {
                self.drop_object(*key_hash, object.id);
            }
            lock(&self.bans).clear();
            let _ = fs::remove_file(self.root.join("bans"));
            return Ok(all.len());
        }
        let ban = Ban { before: now_id, soft: how == How::Soft, selection: selection.clone() };
        let record = ban.record();
        lock(&self.bans).push(ban);
        File::options().create(true).append(true).open(self.root.join("bans"))?.write_all(&record)?;
        if lock(&self.bans).len() > BANS_MAX {
            self.apply_all_bans(policy)?;
        }
        Ok(0)
    }

    /// Applies every ban to every head and forgets them. Soft ones are written into the heads.
    fn apply_all_bans(&self, policy: &Policy) -> io::Result<()> {
        let mut marked = Vec::new();
        self.visit(policy, |stored| {
            if stored.marked.load(Ordering::Relaxed) {
                marked.push(stored.key.clone());
            }
        });
        for key in marked {
            for stored in self.load(&key, policy).0 {
                self.rewrite(&stored)?;
            }
        }
        lock(&self.bans).clear();
        match fs::remove_file(self.root.join("bans")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read_bans(&self) {
        let Ok(octets) = fs::read(self.root.join("bans")) else { return };
        let mut rest = &octets[..];
        let mut bans = Vec::new();
        // A torn record at the end was never answered for.
        while let Some((ban, tail)) = Ban::read(rest) {
            bans.push(ban);
            rest = tail;
        }
        *lock(&self.bans) = bans;
    }

    /// Visits every stored response, without its content.
    pub fn visit(&self, policy: &Policy, mut each: impl FnMut(&Stored)) {
        let all: Vec<(u128, Object)> = {
            let index = lock(&self.index);
            let entries = index.map.values();
            entries.flat_map(|e| e.objects.iter().map(|o| (e.key_hash, *o)).collect::<Vec<_>>()).collect()
        };
        for (key_hash, object) in all {
            let head = read_limited(&self.head_path(key_hash, &object)).ok().and_then(|o| decode(&o, policy));
            match head {
                Some(head) => {
                    if let Some(stored) = self.apply_bans(key_hash, head.stored) {
                        each(&stored);
                    }
                }
                None => self.drop_object(key_hash, object.id),
            }
        }
    }
}

impl Ban {
    fn record(&self) -> Vec<u8> {
        let mut payload = self.before.to_le_bytes().to_vec();
        payload.push(u8::from(self.soft));
        self.selection.write(&mut payload);
        let mut record = (payload.len() as u32).to_le_bytes().to_vec();
        record.extend_from_slice(&payload);
        record.extend_from_slice(&xxh3_64(&payload).to_le_bytes());
        record
    }

    fn read(bytes: &[u8]) -> Option<(Ban, &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (sum, rest) = rest.split_first_chunk::<8>()?;
        if u64::from_le_bytes(*sum) != xxh3_64(payload) {
            return None;
        }
        let (before, payload) = payload.split_first_chunk::<8>()?;
        let (soft, selection) = payload.split_first()?;
        let selection = Selection::read(selection)?;
        Some((Ban { before: u64::from_le_bytes(*before), soft: *soft == 1, selection }, rest))
    }
}

fn corrupt() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a file in the cache directory does not match its checksum")
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > HEAD_BYTES_MAX {
        return Err(corrupt());
    }
    let mut octets = vec![0; length as usize];
    file.read_exact_at(&mut octets, 0)?;
    Ok(octets)
}

/// Key hash and object from the name of a head file.
fn read_name(name: &str) -> Option<(u128, Object)> {
    let mut parts = name.split('.');
    let hash = parts.next().filter(|hash| hash.len() == 32)?;
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    let object = Object { id: number()?, body: number()?, bytes: number()? };
    let key_hash = u128::from_str_radix(hash, 16).ok()?;
    parts.next().is_none().then_some((key_hash, object))
}

/// Length of a body file for content of this length.
fn file_length(content: u64) -> u64 {
    content + content.div_ceil(BLOCK_BYTES as u64) * SUM_BYTES as u64
}

const BLOCK_STRIDE: u64 = (BLOCK_BYTES + SUM_BYTES) as u64;

/// The checksum of a block: of its octets, at its place, in its file.
fn block_sum(file: u64, number: u64, octets: &[u8]) -> [u8; SUM_BYTES] {
    let seed = file.rotate_left(17) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    xxh3_128_with_seed(octets, seed).to_le_bytes()
}

/// Reads and verifies one block of `length` octets.
fn read_block_at(file: &File, id: u64, number: u64, length: usize) -> io::Result<Bytes> {
    let mut octets = vec![0; length + SUM_BYTES];
    file.read_exact_at(&mut octets, number * BLOCK_STRIDE)?;
    let sum = block_sum(id, number, &octets[..length]);
    if octets[length..] != sum {
        return Err(corrupt());
    }
    octets.truncate(length);
    Ok(Bytes::from(octets))
}

/// A body file that is being written. Removed when dropped, unless it was committed.
pub struct Unfinished {
    file: File,
    path: PathBuf,
    id: u64,
    kept: AtomicBool,
    bad: AtomicBool,
}

impl Unfinished {
    /// Writes a block: the first, the second and so on, all full but the last.
    ///
    /// # Errors
    /// I/O errors.
    pub fn write_block(&self, number: u64, octets: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(octets.len() + SUM_BYTES);
        sealed.extend_from_slice(octets);
        sealed.extend_from_slice(&block_sum(self.id, number, octets));
        self.file.write_all_at(&sealed, number * BLOCK_STRIDE)
    }

    /// Reads a full block that was written.
    ///
    /// # Errors
    /// [`Reason::Storage`] if it cannot be read or does not match; the file is not committed then.
    pub fn read_block(&self, number: u64) -> Result<Bytes, Reason> {
        read_block_at(&self.file, self.id, number, BLOCK_BYTES).map_err(|error| {
            tracing::warn!(%error, file = %self.path.display(), "a response on its way into the store cannot be read back");
            self.bad.store(true, Ordering::Relaxed);
            Reason::Storage
        })
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The content of a stored response in a body file.
pub struct Body {
    path: PathBuf,
    id: u64,
    length: u64,
    bad: AtomicBool,
}

impl Body {
    /// Length of the content.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether a block was found that does not match.
    pub fn is_bad(&self) -> bool {
        self.bad.load(Ordering::Relaxed)
    }

    fn check_size(&self) -> io::Result<()> {
        if fs::metadata(&self.path)?.len() == file_length(self.length) { Ok(()) } else { Err(corrupt()) }
    }

    /// Reads and verifies up to `count` blocks from number `first` on, in `file` if it is open already.
    ///
    /// # Errors
    /// [`Reason::Storage`]; the body is bad then.
    pub fn read_blocks(&self, file: Option<Arc<File>>, first: u64, count: u64) -> Read {
        self.try_read(file, first, count).map_err(|error| {
            tracing::warn!(%error, file = %self.path.display(), "a stored response cannot be read");
            self.bad.store(true, Ordering::Relaxed);
            Reason::Storage
        })
    }

    fn try_read(
        &self,
        file: Option<Arc<File>>,
        first: u64,
        count: u64,
    ) -> io::Result<(Option<Arc<File>>, Vec<Bytes>)> {
        let file = match file {
            Some(file) => file,
            None => Arc::new(File::open(&self.path)?),
        };
        let last = self.length.div_ceil(BLOCK_BYTES as u64).min(first.saturating_add(count));
        let mut blocks = Vec::new();
        for number in first..last {
            let left = self.length - number * BLOCK_BYTES as u64;
            blocks.push(read_block_at(&file, self.id, number, left.min(BLOCK_BYTES as u64) as usize)?);
        }
        Ok((Some(file), blocks))
    }
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}

/// The head file.
fn encode(stored: &Stored, body: u64, length: u64, inline: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + stored.fields.wire().len() + inline.map_or(0, <[u8]>::len));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&stored.id.to_le_bytes());
    out.extend_from_slice(&body.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&stored.freshness.response_time.0.to_le_bytes());
    out.extend_from_slice(&stored.received.0.to_le_bytes());
    out.extend_from_slice(&stored.freshness.initial_age.to_le_bytes());
    out.extend_from_slice(&stored.status.code().to_le_bytes());
    out.push(u8::from(stored.marked.load(Ordering::Relaxed)));
    out.extend_from_slice(&(stored.uri_length as u32).to_le_bytes());
    push_part(&mut out, &stored.key);
    push_part(&mut out, &stored.variant);
    out.extend_from_slice(&(stored.vary.len() as u32).to_le_bytes());
    for name in &stored.vary {
        push_part(&mut out, name);
    }
    push_part(&mut out, stored.fields.wire());
    push_part(&mut out, inline.unwrap_or_default());
    let sum = xxh3_128(&out).to_le_bytes();
    out.extend_from_slice(&sum);
    out
}

struct Head {
    stored: Stored,
    body: u64,
    length: u64,
}

/// Takes octets off the front of a head.
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn date(&mut self) -> Option<HttpDate> {
        self.array().map(i64::from_le_bytes).map(HttpDate)
    }

    fn part(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (part, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(part)
    }
}

/// Reads a head file; `None` if it does not match its checksum or is of another version. Lifetimes are worked
/// out anew, by the policy of now.
fn decode(octets: &[u8], policy: &Policy) -> Option<Head> {
    let (octets, sum) = octets.split_last_chunk::<SUM_BYTES>()?;
    if xxh3_128(octets).to_le_bytes() != *sum {
        return None;
    }
    let mut take = Take(octets.strip_prefix(MAGIC)?);
    let (id, body, length) = (take.u64()?, take.u64()?, take.u64()?);
    let (response_time, received) = (take.date()?, take.date()?);
    let initial_age = take.u32()?;
    let status = Status::new(take.array().map(u16::from_le_bytes)?)?;
    let marked = take.array::<1>()? != [0];
    let uri_length = take.u32()? as usize;
    let (key, variant) = (take.part()?, take.part()?);
    let mut vary = Vec::new();
    for _ in 0..take.u32()? {
        vary.push(take.part()?.into());
    }
    let fields = read_fields(take.part()?)?;
    let inline = take.part()?;
    if !take.0.is_empty() || uri_length > key.len() || (body == 0 && inline.len() as u64 != length) {
        return None;
    }
    let times = (response_time, response_time);
    let (directives, freshness) = stored::meaning(status, &fields, policy, times, initial_age);
    let stored = Stored {
        id,
        key: key.into(),
        uri_length,
        vary,
        variant: variant.into(),
        status,
        tags: Tags::of(&fields),
        fields: Arc::new(fields),
        directives,
        freshness,
        received,
        held: None,
        content: Content::Whole(Bytes::copy_from_slice(inline)),
        body: None,
        marked: AtomicBool::new(marked),
    };
    Some(Head { stored, body, length })
}

/// A header section from its wire form.
fn read_fields(wire: &[u8]) -> Option<Fields> {
    let mut fields = Fields::with_capacity(wire.len());
    let mut rest = wire;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, tail) = (&rest[..end], &rest[end + 2..]);
        let colon = line.iter().position(|&b| b == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].strip_prefix(b" ")?);
        if !grammar::is_token(name) || !grammar::is_field_value(value) {
            return None;
        }
        fields.append_parsed(name, value, Known::lookup(name));
        rest = tail;
    }
    Some(fields)
}

#[cfg(test)]
mod tests;
