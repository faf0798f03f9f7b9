//! The file of an unfinished download: a part beside its final name, the journal that says what of it can be
//! trusted, and the one step that makes it final. The final name appears only with complete content
//! (temporary file, sync, rename), and an octet counts as received only after it was synced.
//!
//! `NAME.eleven-part` and `NAME.eleven-journal` stand in the directory of `NAME`; both are opened without
//! following links (fault K27), and locked, so that two runs do not write into one file.

use crate::commit::{Commit, Committer};
use crate::error::{Cause, Failure, Phase};
use crate::journal::{self, Journal, Subject};
use crate::segments::RangeSet;
use eleven_net::conduit::Conduit;
use eleven_net::file::{self, Existing, Kind, OpenError, Options, Root, Symlinks};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

const PART_SUFFIX: &str = ".eleven-part";
const JOURNAL_SUFFIX: &str = ".eleven-journal";

/// Room asked for at a time, ahead of what is written.
const RESERVE_BYTES: u64 = 32 * 1024 * 1024;

/// Below this nobody asks whether there is room: writing tells.
const ROOM_BYTES_MIN: u64 = 1024 * 1024;

/// How often a part is opened anew that became somebody's file in between.
const RACES_MAX: usize = 8;

/// Names that are tried where a name is taken.
const NUMBERED_MAX: u32 = 10_000;

/// What to do if the final name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Refuse, before anything is sent.
    #[default]
    Refuse,
    /// Replace it, once the new content is complete.
    Replace,
    /// Take the next free `name (1)`.
    Rename,
}

/// The directory files go to.
#[derive(Debug, Clone)]
pub struct Directory {
    root: Arc<Root>,
    path: PathBuf,
    committer: Rc<Committer>,
}

/// A file that has a name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Its length.
    pub bytes: u64,
    /// When it was written, in seconds since 1970.
    pub modified_seconds: i64,
}

/// An unfinished file.
#[derive(Debug)]
pub struct Partial {
    directory: Directory,
    name: String,
    file: Arc<File>,
    subject: Option<Subject>,
    journal: Option<Arc<File>>,
    journal_bytes: u64,
    syncing: Option<oneshot::Receiver<io::Result<()>>>,
    /// It stands under its part's name. Small content has no name until it is complete, or a checkpoint is made.
    is_named: bool,
    /// Nothing was ever written to it.
    is_empty: bool,
    /// There was a journal before this run.
    resumed: bool,
}

fn file_failure(what: &Path, error: &io::Error) -> Failure {
    let text = format!("{}: {error}", what.display());
    Failure::new(Phase::File, Cause::Io(error.kind(), text))
}

fn open_failure(what: &Path, error: OpenError) -> Failure {
    match error {
        OpenError::Io(error) => file_failure(what, &error),
        other => Failure::new(Phase::File, Cause::Unusable(format!("{}: {other}", what.display()))),
    }
}

impl Directory {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// If it does not, or is none.
    pub fn open(path: &Path) -> Result<Directory, Failure> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let options = Options { symlinks: Symlinks::Refuse, dot_names: true };
        let root = Root::open_directory(path, options).map_err(|error| file_failure(path, &error))?;
        let root = Arc::new(root);
        Ok(Directory { committer: Committer::new(Arc::clone(&root)), root, path: path.to_owned() })
    }

    /// The path of a name in it.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether something has this name.
    pub fn exists(&self, name: &str) -> bool {
        self.root.look_at(name.as_bytes()).is_ok()
    }

    /// The regular file that has this name, if one has.
    pub fn present(&self, name: &str) -> Option<Present> {
        let meta = self.root.look_at(name.as_bytes()).ok().filter(|meta| meta.kind == Kind::File)?;
        Some(Present { bytes: meta.size, modified_seconds: meta.modified_seconds })
    }

    /// Opens the file of this name to read it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, name: &str) -> Result<File, Failure> {
        let opened = self.root.open(name.as_bytes());
        opened.map(|opened| opened.file).map_err(|error| open_failure(&self.path_of(name), error))
    }

    /// Whether there is an unfinished download of this name.
    pub fn has_partial(&self, name: &str) -> bool {
        self.exists(&format!("{name}{PART_SUFFIX}"))
    }

    /// The name to use, by what exists and what to do about it.
    ///
    /// # Errors
    /// If the name is taken and must not be replaced.
    pub fn choose(&self, name: &str, overwrite: Overwrite) -> Result<String, Failure> {
        if overwrite == Overwrite::Replace || !self.exists(name) {
            return Ok(name.to_owned());
        }
        let free = (overwrite == Overwrite::Rename).then(|| self.free_names(name).next()).flatten();
        free.ok_or_else(|| self.taken(name))
    }

    fn taken(&self, name: &str) -> Failure {
        let text = format!(
            "{} exists; use --overwrite to replace it, or -o to choose another name",
            self.path_of(name).display()
        );
        Failure::new(Phase::Prepare, Cause::Unusable(text))
    }

    /// `name` and its numbered relatives (fault K24), as far as nothing has these names.
    fn free_names<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let (stem, extension) = match name.rfind('.') {
            Some(at) if at > 0 => name.split_at(at),
            _ => (name, ""),
        };
        let numbered = (1..NUMBERED_MAX).map(move |n| format!("{stem} ({n}){extension}"));
        std::iter::once(name.to_owned()).chain(numbered).filter(|candidate| !self.exists(candidate))
    }
}

impl Partial {
    /// Opens the part of `name`, or of the next name that is free and that no other run is writing if `overwrite` says
    /// so, as [`Partial::open`] does.
    ///
    /// # Errors
    /// If the name is taken and must not be replaced, and as [`Partial::open`].
    pub fn take(
        directory: &Directory,
        name: &str,
        overwrite: Overwrite,
        resume: bool,
    ) -> Result<(Partial, Option<Result<Journal, journal::Unusable>>), Failure> {
        if overwrite != Overwrite::Rename {
            let name = directory.choose(name, overwrite)?;
            return Partial::open(directory, &name, resume);
        }
        for candidate in directory.free_names(name) {
            if let Some(opened) = Partial::open_free(directory, &candidate, resume)? {
                return Ok(opened);
            }
        }
        Err(directory.taken(name))
    }

    /// A file for content that may be complete in a moment: it has no name until then, so that nothing is left of it
    /// after a crash, and nothing stands in the way of another run. Whether the name is free shows when it is given.
    /// Where there is no such thing, or something of an earlier run is left to be cleared away, the same as
    /// [`Partial::take`].
    ///
    /// # Errors
    /// As [`Partial::take`].
    pub fn small(directory: &Directory, name: &str, overwrite: Overwrite) -> Result<Partial, Failure> {
        let nameless = if directory.has_partial(name) {
            None
        } else {
            let opened = directory.root.create_nameless(0o666);
            opened.map_err(|error| open_failure(&directory.path_of(name), error))?
        };
        let Some(file) = nameless else {
            return Partial::take(directory, name, overwrite, false).map(|(partial, _)| partial);
        };
        Ok(Partial {
            directory: directory.clone(),
            name: name.to_owned(),
            file: Arc::new(file),
            subject: None,
            journal: None,
            journal_bytes: 0,
            syncing: None,
            is_named: false,
            is_empty: true,
            resumed: false,
        })
    }

    /// Opens the part of `name`, and reads its journal if `resume`. Without a journal that can be trusted the
    /// part is begun anew; why, is said.
    ///
    /// # Errors
    /// If it cannot be opened, or another run has it.
    pub fn open(
        directory: &Directory,
        name: &str,
        resume: bool,
    ) -> Result<(Partial, Option<Result<Journal, journal::Unusable>>), Failure> {
        Partial::open_free(directory, name, resume)?.ok_or_else(|| {
            let path = directory.path_of(&format!("{name}{PART_SUFFIX}"));
            let text = format!("{}: another run is writing it", path.display());
            Failure::new(Phase::File, Cause::Unusable(text))
        })
    }

    /// The same; nothing if another run has it.
    fn open_free(
        directory: &Directory,
        name: &str,
        resume: bool,
    ) -> Result<Option<(Partial, Option<Result<Journal, journal::Unusable>>)>, Failure> {
        let part = format!("{name}{PART_SUFFIX}");
        let path = directory.path_of(&part);
        let mut opened = None;
        // Whoever had it may have given it its final name just before the lock was free: then it is not ours.
        for _ in 0..RACES_MAX {
            let found = directory
                .root
                .open_for_writing(part.as_bytes(), true, 0o666)
                .map_err(|error| open_failure(&path, error))?;
            if !file::try_lock(&found.file).map_err(|error| file_failure(&path, &error))? {
                return Ok(None);
            }
            let named = directory.root.look_at(part.as_bytes()).ok();
            if named.is_some_and(|named| (named.dev, named.ino) == (found.meta.dev, found.meta.ino)) {
                opened = Some(found);
                break;
            }
        }
        let Some(opened) = opened else { return Ok(None) };
        let mut partial = Partial {
            directory: directory.clone(),
            name: name.to_owned(),
            file: Arc::new(opened.file),
            subject: None,
            journal: None,
            journal_bytes: 0,
            syncing: None,
            is_named: true,
            is_empty: opened.meta.size == 0,
            resumed: resume || opened.meta.size > 0,
        };
        let read = if resume && opened.meta.size > 0 { partial.read_journal()? } else { None };
        match &read {
            Some(Ok(journal)) => {
                // Octets beyond the file's end are not there, whatever the journal says.
                let here = opened.meta.size;
                let sound = journal.done.ranges().iter().all(|&(_, end)| end <= here);
                if !sound {
                    partial.truncate()?;
                    return Ok(Some((partial, Some(Err(journal::Unusable::NotAJournal)))));
                }
                partial.subject = Some(journal.subject.clone());
            }
            _ if opened.meta.size > 0 => partial.truncate()?,
            _ => {}
        }
        Ok(Some((partial, read)))
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.path_of(&format!("{}{suffix}", self.name))
    }

    fn read_journal(&mut self) -> Result<Option<Result<Journal, journal::Unusable>>, Failure> {
        let name = format!("{}{JOURNAL_SUFFIX}", self.name);
        let path = self.path(JOURNAL_SUFFIX);
        let Ok(opened) = self.directory.root.open_for_writing(name.as_bytes(), false, 0o666) else {
            return Ok(None);
        };
        let mut text = Vec::new();
        (&opened.file)
            .take(journal::JOURNAL_BYTES_MAX as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|error| file_failure(&path, &error))?;
        let read = journal::read(&text);
        if let Ok(journal) = &read {
            // Taken up where it is sound: at no moment is there less of it than there was.
            self.journal_bytes = journal.sound_bytes;
            opened.file.set_len(self.journal_bytes).map_err(|error| file_failure(&path, &error))?;
            self.journal = Some(Arc::new(opened.file));
        }
        Ok(Some(read))
    }

    /// Begins anew: nothing of what is here counts any more.
    ///
    /// # Errors
    /// If the files cannot be emptied.
    pub fn begin(&mut self, subject: Subject) -> Result<(), Failure> {
        self.truncate()?;
        self.subject = Some(subject);
        Ok(())
    }

    /// First the journal, then the data: at no moment does a journal speak of octets that are gone.
    fn truncate(&mut self) -> Result<(), Failure> {
        self.remove_journal();
        let path = self.path(PART_SUFFIX);
        if std::mem::replace(&mut self.is_empty, false) {
            return Ok(()); // as it was made
        }
        self.file.set_len(0).map_err(|error| file_failure(&path, &error))
    }

    fn remove_journal(&mut self) {
        self.journal = None;
        self.journal_bytes = 0;
        if !self.is_named {
            return; // there never was one
        }
        let name = format!("{}{JOURNAL_SUFFIX}", self.name);
        let _ = self.directory.root.remove_file(name.as_bytes());
    }

    /// What it is a part of.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Corrects what it is a part of, before the first checkpoint.
    pub fn learn_length(&mut self, length: u64) {
        if let Some(subject) = &mut self.subject {
            subject.length.get_or_insert(length);
        }
    }

    /// The open file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Its length now.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn length(&self) -> Result<u64, Failure> {
        let meta = self.file.metadata().map_err(|error| file_failure(&self.path(PART_SUFFIX), &error))?;
        Ok(meta.len())
    }

    /// Where the file will be.
    pub fn final_path(&self) -> PathBuf {
        self.directory.path_of(&self.name)
    }

    /// Writes octets at their place.
    ///
    /// # Errors
    /// If the disk does not take them.
    pub fn write(&self, octets: &[u8], at: u64) -> Result<(), Failure> {
        self.file.write_all_at(octets, at).map_err(|error| file_failure(&self.path(PART_SUFFIX), &error))
    }

    /// Writes the first `count` octets in a conduit at their place.
    ///
    /// # Errors
    /// If the disk does not take it. The conduit is then of no more use.
    pub fn write_from(&self, conduit: &mut Conduit, at: u64, count: usize) -> Result<(), Failure> {
        let written = conduit.empty_into(&self.file, at, count);
        written.map_err(|error| file_failure(&self.path(PART_SUFFIX), &error))
    }

    /// Asks for room from `at` on, so that the file lies in one piece. Never more at a time than `RESERVE_BYTES`:
    /// nothing is taken by a length that a server merely declares.
    pub fn reserve(&self, at: u64, end: u64) -> u64 {
        let until = end.min(at.saturating_add(RESERVE_BYTES));
        file::reserve(&self.file, at, until.saturating_sub(at));
        until
    }

    /// Whether `missing` octets will fit, as far as the file system tells.
    ///
    /// # Errors
    /// If they will not: before anything is fetched.
    pub fn check_room(&self, missing: u64) -> Result<(), Failure> {
        if missing < ROOM_BYTES_MIN {
            return Ok(());
        }
        match file::free_bytes(&self.file) {
            Some(free) if free < missing => {
                let text = format!(
                    "{}: {missing} octets are to come, and there is room for {free}",
                    self.path(PART_SUFFIX).display()
                );
                Err(Failure::new(Phase::File, Cause::Io(io::ErrorKind::StorageFull, text)))
            }
            _ => Ok(()),
        }
    }

    /// Begins to make `done` durable on the blocking pool: the data, then the journal that says so. One at a
    /// time; a second call while one is under way does nothing. Never waits.
    ///
    /// # Errors
    /// Those of the checkpoint before.
    pub fn checkpoint(&mut self, done: &RangeSet) -> Result<(), Failure> {
        if let Some(syncing) = &mut self.syncing {
            let result = match syncing.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
                Ok(result) => result,
                Err(oneshot::error::TryRecvError::Closed) => Err(io::Error::other("a checkpoint was lost")),
            };
            self.syncing = None;
            result.map_err(|error| file_failure(&self.path(PART_SUFFIX), &error))?;
        }
        // Without a validator a later run could not go on: no journal for that.
        let Some(subject) = self.subject.clone().filter(|subject| subject.if_range().is_some()) else {
            return Ok(());
        };
        if !self.stand() {
            return Ok(());
        }
        let (journal, text) = match &self.journal {
            Some(journal) => (Arc::clone(journal), journal::append(done)),
            None => {
                let name = format!("{}{JOURNAL_SUFFIX}", self.name);
                let opened = self
                    .directory
                    .root
                    .open_for_writing(name.as_bytes(), true, 0o666)
                    .map_err(|error| open_failure(&self.path(JOURNAL_SUFFIX), error))?;
                opened.file.set_len(0).map_err(|error| file_failure(&self.path(JOURNAL_SUFFIX), &error))?;
                let journal = Arc::new(opened.file);
                self.journal = Some(Arc::clone(&journal));
                self.journal_bytes = 0;
                (journal, journal::begin(&subject, done))
            }
        };
        let (file, at) = (Arc::clone(&self.file), self.journal_bytes);
        self.journal_bytes += text.len() as u64;
        let (finished, syncing) = oneshot::channel();
        self.syncing = Some(syncing);
        tokio::task::spawn_blocking(move || {
            let result = file
                .sync_data()
                .and_then(|()| journal.write_all_at(text.as_bytes(), at))
                .and_then(|()| journal.sync_data());
            // Before it is told: the lock must be free as soon as somebody knows.
            drop((file, journal));
            let _ = finished.send(result);
        });
        Ok(())
    }

    /// Gives a nameless file its part's name, so that a later run can find it. Not if another run is writing under that.
    fn stand(&mut self) -> bool {
        if !self.is_named {
            let part = format!("{}{PART_SUFFIX}", self.name);
            self.is_named = self.directory.root.link(&self.file, part.as_bytes()).is_ok()
                && file::try_lock(&self.file).unwrap_or(false);
        }
        self.is_named
    }

    /// Waits for a checkpoint under way.
    ///
    /// # Errors
    /// If it failed: then what it was about is not durable.
    pub async fn settle(&mut self) -> Result<(), Failure> {
        let Some(syncing) = self.syncing.take() else { return Ok(()) };
        let result = syncing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        result.map_err(|error| file_failure(&self.path(PART_SUFFIX), &error))
    }

    /// A last checkpoint, waited for: for the end of a run that did not come to the end of the file. If there is
    /// nothing to go on with later, the part is removed.
    ///
    /// # Errors
    /// If the disk does not take it. What was durable before stays so.
    pub async fn park(&mut self, done: &RangeSet) -> Result<(), Failure> {
        self.settle().await?;
        let resumable = self.subject.as_ref().is_some_and(|subject| subject.if_range().is_some());
        if !resumable || done.total() == 0 {
            self.discard();
            return Ok(());
        }
        // Room that was set aside behind the last octet is given back.
        if let Ok(meta) = self.file.metadata() {
            let _ = self.file.set_len(meta.len());
        }
        self.checkpoint(done)?;
        self.settle().await
    }

    /// Removes part and journal.
    pub fn discard(&mut self) {
        self.remove_journal();
        if self.is_named {
            let name = format!("{}{PART_SUFFIX}", self.name);
            let _ = self.directory.root.remove_file(name.as_bytes());
        }
    }

    /// Keeps the part for inspection, but never to be resumed: its content is wrong (fault K40).
    pub fn distrust(&mut self) {
        self.remove_journal();
    }

    /// Sets when it was modified, in seconds since 1970.
    ///
    /// # Errors
    /// If the file system does not take it.
    pub fn set_modified(&self, seconds: i64) -> Result<(), Failure> {
        let since = std::time::Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds >= 0 {
            std::time::UNIX_EPOCH.checked_add(since)
        } else {
            std::time::UNIX_EPOCH.checked_sub(since)
        };
        let Some(time) = time else { return Ok(()) };
        self.file.set_modified(time).map_err(|error| file_failure(&self.path(PART_SUFFIX), &error))
    }

    /// Gives the complete file its final name.
    ///
    /// # Errors
    /// If sync or rename fail; the part and its journal stay.
    pub async fn commit(mut self, overwrite: Overwrite) -> Result<PathBuf, Failure> {
        self.settle().await?;
        let existing = if overwrite == Overwrite::Replace { Existing::Replace } else { Existing::Keep };
        let mut to = self.name.clone();
        loop {
            let commit = Commit {
                file: Arc::clone(&self.file),
                from: self.is_named.then(|| format!("{}{PART_SUFFIX}", self.name)),
                to: to.clone(),
                existing,
            };
            match self.directory.committer.commit(commit).await {
                Ok(()) => break,
                Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // Somebody took it meanwhile.
                    to = self.directory.choose(&self.name, overwrite)?;
                }
                Err(error) => return Err(open_failure(&self.directory.path_of(&to), error)),
            }
        }
        if self.journal.is_some() || self.resumed {
            self.remove_journal();
        }
        Ok(self.directory.path_of(&to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Temp {
            let path = std::env::temp_dir().join(format!("eleven-partial-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Temp(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = std::fs::read_dir(&self.0)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn subject() -> Subject {
        Subject {
            uri: "u".into(),
            etag: Some("\"a\"".into()),
            last_modified: None,
            length: Some(10),
            repr_digest: None,
        }
    }

    fn done(end: u64) -> RangeSet {
        let mut set = RangeSet::new();
        set.insert(0, end);
        set
    }

    /// Fault F30: a part belongs to one run at a time.
    #[tokio::test(flavor = "local")]
    async fn parked_resumed_and_committed() {
        let temp = Temp::new("life");
        let directory = Directory::open(&temp.0).unwrap();
        let (mut partial, journal) = Partial::open(&directory, "f", true).unwrap();
        assert!(journal.is_none());
        partial.begin(subject()).unwrap();
        partial.write(b"hello", 0).unwrap();
        partial.checkpoint(&done(3)).unwrap();
        partial.park(&done(5)).await.unwrap();
        assert_eq!(temp.names(), ["f.eleven-journal", "f.eleven-part"]);
        let busy = Partial::open(&directory, "f", true).unwrap_err();
        assert!(busy.to_string().contains("another run"), "{busy}");
        drop(partial);
        let (mut partial, journal) = Partial::open(&directory, "f", true).unwrap();
        let journal = journal.unwrap().unwrap();
        assert_eq!((journal.done, &journal.subject), (done(5), &subject()));
        partial.write(b"world", 5).unwrap();
        partial.settle().await.unwrap();
        assert_eq!(partial.commit(Overwrite::Refuse).await.unwrap(), temp.0.join("f"));
        assert_eq!(temp.names(), ["f"]);
        assert_eq!(std::fs::read(temp.0.join("f")).unwrap(), b"helloworld");
    }

    #[tokio::test(flavor = "local")]
    async fn what_cannot_be_trusted_is_begun_anew() {
        let temp = Temp::new("trust");
        let directory = Directory::open(&temp.0).unwrap();
        for (part, journal_text) in [
            (&b"octets of unknown origin"[..], None),
            (b"octets", Some("nonsense".to_owned())),
            // The journal speaks of more than there is.
            (b"oct", Some(journal::begin(&subject(), &done(10)))),
        ] {
            std::fs::write(temp.0.join("f.eleven-part"), part).unwrap();
            let _ = std::fs::remove_file(temp.0.join("f.eleven-journal"));
            if let Some(text) = &journal_text {
                std::fs::write(temp.0.join("f.eleven-journal"), text).unwrap();
            }
            let (mut partial, journal) = Partial::open(&directory, "f", true).unwrap();
            assert!(!matches!(journal, Some(Ok(_))));
            partial.begin(subject()).unwrap();
            assert_eq!(temp.names(), ["f.eleven-part"]);
            assert_eq!(std::fs::metadata(temp.0.join("f.eleven-part")).unwrap().len(), 0);
        }
        // Without a strong validator nothing is kept.
        let (mut partial, _) = Partial::open(&directory, "f", true).unwrap();
        partial.begin(Subject { etag: None, ..subject() }).unwrap();
        partial.write(b"x", 0).unwrap();
        partial.park(&done(1)).await.unwrap();
        assert!(temp.names().is_empty());
    }

    /// Faults K24 and K27.
    #[tokio::test(flavor = "local")]
    async fn names_that_are_taken() {
        let temp = Temp::new("names");
        let directory = Directory::open(&temp.0).unwrap();
        std::fs::write(temp.0.join("f.txt"), "old").unwrap();
        assert!(
            directory.choose("f.txt", Overwrite::Refuse).unwrap_err().to_string().contains("--overwrite")
        );
        assert_eq!(directory.choose("f.txt", Overwrite::Replace).unwrap(), "f.txt");
        assert_eq!(directory.choose("f.txt", Overwrite::Rename).unwrap(), "f (1).txt");
        assert_eq!(directory.choose("new", Overwrite::Refuse).unwrap(), "new");
        // A file that appeared meanwhile is not replaced.
        let (mut partial, _) = Partial::open(&directory, "g", false).unwrap();
        partial.begin(subject()).unwrap();
        std::fs::write(temp.0.join("g"), "theirs").unwrap();
        assert!(partial.commit(Overwrite::Refuse).await.is_err());
        assert_eq!(std::fs::read(temp.0.join("g")).unwrap(), b"theirs");
        // A link at the part's name is not followed.
        let victim = temp.0.join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, temp.0.join("h.eleven-part")).unwrap();
        assert!(Partial::open(&directory, "h", false).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert!(Directory::open(&temp.0.join("absent")).is_err());
    }
}
