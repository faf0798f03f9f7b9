//! A file of secrets that is read anew when it changes, looked at once a second at most. A file that is wrong, half
//! written or gone changes nothing: it must not lock everybody out, nor let anybody in who was there before.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// What tells one state of a file from another.
type Stamp = (u64, u64, u64, i64, i64);

/// Makes the value of a text.
type Parse<T, E> = Box<dyn Fn(&str) -> Result<T, E> + Send>;

/// The value made of a file, or one that never changes.
pub(super) struct Watched<T, E>(Mutex<State<T, E>>);

struct State<T, E> {
    value: Arc<T>,
    file: Option<(PathBuf, Stamp, Parse<T, E>)>,
    looked_s: i64,
}

impl<T, E: From<io::Error> + std::fmt::Display> Watched<T, E> {
    /// One that never changes.
    pub fn fixed(value: T) -> Watched<T, E> {
        Watched(Mutex::new(State { value: Arc::new(value), file: None, looked_s: i64::MIN }))
    }

    /// That of a file.
    ///
    /// # Errors
    /// If it cannot be read, or means nothing.
    pub fn of_file(path: PathBuf, parse: Parse<T, E>) -> Result<Watched<T, E>, E> {
        // Before it is read: what changes meanwhile is read again.
        let stamp = stamp(&std::fs::metadata(&path)?);
        let value = Arc::new(parse(&std::fs::read_to_string(&path)?)?);
        let file = Some((path, stamp, parse));
        Ok(Watched(Mutex::new(State { value, file, looked_s: i64::MIN })))
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<PathBuf> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.file.as_ref().map(|(path, ..)| path.clone())
    }

    /// The value as of this second.
    pub fn current(&self, now_s: i64) -> Arc<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_s != now_s {
            state.looked_s = now_s;
            if let Err(error) = state.refresh() {
                tracing::warn!(%error, "password file: kept the last good one");
            }
        }
        state.value.clone()
    }
}

impl<T, E: From<io::Error>> State<T, E> {
    fn refresh(&mut self) -> Result<(), E> {
        let Some((path, seen, parse)) = &mut self.file else { return Ok(()) };
        let now = stamp(&std::fs::metadata(&*path)?);
        if now != *seen {
            self.value = Arc::new(parse(&std::fs::read_to_string(&*path)?)?);
            *seen = now;
        }
        Ok(())
    }
}

fn stamp(meta: &Metadata) -> Stamp {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}
