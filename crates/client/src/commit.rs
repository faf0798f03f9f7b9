//! The last step of finished downloads, taken together: content is synced before its name is given, names are synced
//! before anybody is told. What comes to its end while the disk works is committed with the next batch, so that many
//! small files cost a few waits for the disk and not one each. Knows nothing of downloads.

use eleven_net::file::{self, Durability, Existing, OpenError, Root};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Files committed together at most.
const BATCH_MAX: usize = 256;

/// Where several files came to their end together, more will: so long is waited for them.
const LINGER: Duration = Duration::from_millis(15);

/// A file whose content is complete, to be given its name.
#[derive(Debug)]
pub(crate) struct Commit {
    /// The file.
    pub(crate) file: Arc<File>,
    /// Its name so far, if it has one.
    pub(crate) from: Option<String>,
    /// Its name to be.
    pub(crate) to: String,
    /// What to do if that is taken.
    pub(crate) existing: Existing,
}

type Outcome = Result<(), OpenError>;

/// What waits to be committed in one directory.
#[derive(Debug)]
pub(crate) struct Committer {
    root: Arc<Root>,
    waiting: RefCell<Vec<(Commit, oneshot::Sender<Outcome>)>>,
    at_work: Cell<bool>,
}

impl Committer {
    /// For a directory.
    pub(crate) fn new(root: Arc<Root>) -> Rc<Committer> {
        Rc::new(Committer { root, waiting: RefCell::default(), at_work: Cell::new(false) })
    }

    /// Commits a file; comes back when it and its name are on the disk.
    ///
    /// # Errors
    /// If it has no name then; a name that is taken is [`OpenError::Io`] with `AlreadyExists`.
    pub(crate) async fn commit(self: &Rc<Self>, commit: Commit) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        self.waiting.borrow_mut().push((commit, reply));
        if !self.at_work.replace(true) {
            tokio::task::spawn_local(work(AtWork(Rc::clone(self))));
        }
        outcome.await.unwrap_or_else(|error| Err(OpenError::Io(io::Error::other(error))))
    }
}

/// Whoever works a committer, and says so when it ends, however it ends.
struct AtWork(Rc<Committer>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.set(false);
    }
}

async fn work(at_work: AtWork) {
    let committer = &at_work.0;
    let mut last = 0;
    loop {
        // Whoever is at the same point now is taken along.
        tokio::task::yield_now().await;
        if last > 1 && committer.waiting.borrow().len() < BATCH_MAX / 4 {
            tokio::time::sleep(LINGER).await;
        }
        let (commits, replies): (Vec<Commit>, Vec<oneshot::Sender<Outcome>>) = {
            let mut waiting = committer.waiting.borrow_mut();
            let count = waiting.len().min(BATCH_MAX);
            waiting.drain(..count).unzip()
        };
        if commits.is_empty() {
            return;
        }
        last = commits.len();
        let root = Arc::clone(&committer.root);
        let outcomes = match tokio::task::spawn_blocking(move || commit_all(&root, commits)).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let text = error.to_string();
                replies.iter().map(|_| Err(OpenError::Io(io::Error::other(text.clone())))).collect()
            }
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            let _ = reply.send(outcome);
        }
    }
}

/// All contents, then all names, then the directory. Files are closed before anybody is told, so that their locks are
/// free by then.
fn commit_all(root: &Root, commits: Vec<Commit>) -> Vec<Outcome> {
    if commits.len() > 1 {
        // All are on their way to the disk before the first is waited for.
        commits.iter().for_each(|commit| file::begin_sync(&commit.file));
    }
    let synced: Vec<io::Result<()>> = commits.iter().map(|commit| commit.file.sync_all()).collect();
    let mut outcomes: Vec<Outcome> = commits
        .iter()
        .zip(synced)
        .map(|(commit, synced)| {
            synced.map_err(OpenError::Io)?;
            let to = commit.to.as_bytes();
            match &commit.from {
                Some(from) => {
                    root.rename(&commit.file, from.as_bytes(), to, commit.existing, Durability::Unsynced)
                }
                None => root.adopt(&commit.file, to, commit.existing),
            }
        })
        .collect();
    if let Err(error) = root.sync() {
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            *outcome = Err(OpenError::Io(io::Error::new(error.kind(), error.to_string())));
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use eleven_net::file::{Options, Symlinks};
    use std::io::Write;

    /// Each file gets its own outcome; what is refused keeps its old name and content.
    #[tokio::test(flavor = "local")]
    async fn many_are_committed_together() {
        let path = std::env::temp_dir().join(format!("eleven-commit-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("taken-3"), "theirs").unwrap();
        let options = Options { symlinks: Symlinks::Refuse, dot_names: true };
        let root = Arc::new(Root::open_directory(&path, options).unwrap());
        let committer = Committer::new(root);
        let mut tasks = Vec::new();
        for number in 0..600 {
            let from = format!("part-{number}");
            let mut file = File::create(path.join(&from)).unwrap();
            write!(file, "{number}").unwrap();
            let to = if number == 3 { "taken-3".to_owned() } else { format!("final-{number}") };
            let commit = Commit { file: Arc::new(file), from: Some(from), to, existing: Existing::Keep };
            let committer = Rc::clone(&committer);
            tasks.push(tokio::task::spawn_local(async move { committer.commit(commit).await }));
        }
        for (number, task) in tasks.into_iter().enumerate() {
            let outcome = task.await.unwrap();
            let refused =
                matches!(&outcome, Err(OpenError::Io(e)) if e.kind() == io::ErrorKind::AlreadyExists);
            assert_eq!((outcome.is_ok(), refused), (number != 3, number == 3), "{number}: {outcome:?}");
            if number != 3 {
                let text = std::fs::read_to_string(path.join(format!("final-{number}"))).unwrap();
                assert_eq!(text, number.to_string());
            }
        }
        assert_eq!(std::fs::read_to_string(path.join("taken-3")).unwrap(), "theirs");
        assert!(path.join("part-3").exists());
        // Whoever worked goes home a moment after the last answer.
        while committer.at_work.get() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = std::fs::remove_dir_all(&path);
    }
}
