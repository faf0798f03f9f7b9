//! The Python side, kept inside the binary and written to a private directory when an application starts, so that
//! nothing but Python has to be installed. The directory also holds the sockets; only the server's user may
//! enter it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FILES: [(&str, &str); 7] = [
    ("__main__.py", include_str!("python/__main__.py")),
    ("eleven_worker/__init__.py", include_str!("python/eleven_worker/__init__.py")),
    ("eleven_worker/asgi.py", include_str!("python/eleven_worker/asgi.py")),
    ("eleven_worker/boot.py", include_str!("python/eleven_worker/boot.py")),
    ("eleven_worker/watch.py", include_str!("python/eleven_worker/watch.py")),
    ("eleven_worker/wire.py", include_str!("python/eleven_worker/wire.py")),
    ("eleven_worker/wsgi.py", include_str!("python/eleven_worker/wsgi.py")),
];

/// Names tried for the directory before giving up.
const ATTEMPTS_MAX: usize = 16;

/// The directory of one application, removed when dropped.
#[derive(Debug)]
pub struct RuntimeDirectory {
    path: PathBuf,
}

impl RuntimeDirectory {
    /// Makes the directory beneath `within` and writes the package into it.
    ///
    /// # Errors
    /// If it cannot be made, or its path is too long for a socket's name.
    pub fn create(within: &Path) -> io::Result<RuntimeDirectory> {
        let mut attempt = 0;
        let path = loop {
            let random = eleven_net::random::bytes()?;
            let path = within.join(format!("eleven-{:016x}", u64::from_ne_bytes(random)));
            // Made with its final mode: nobody can put anything into it, and a name that exists is not taken.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS_MAX => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let directory = RuntimeDirectory { path };
        DirBuilder::new().mode(0o700).recursive(true).create(directory.package().join("eleven_worker"))?;
        for (name, source) in FILES {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(directory.package().join(name))?;
            file.write_all(source.as_bytes())?;
        }
        Ok(directory)
    }

    /// What Python is started with.
    pub fn package(&self) -> PathBuf {
        self.path.join("python")
    }

    /// The name of a thread's socket.
    pub fn socket(&self, thread: usize) -> PathBuf {
        self.path.join(thread.to_string())
    }
}

impl Drop for RuntimeDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the application's directory was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_directory_is_private_complete_and_goes_away() {
        let directory = RuntimeDirectory::create(&std::env::temp_dir()).unwrap();
        let path = directory.path.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(directory.package().join("eleven_worker/wsgi.py").is_file());
        drop(directory);
        assert!(!path.exists());
    }

    /// A Python file that is added but not embedded would be missing only in the shipped binary.
    #[test]
    fn every_python_file_is_embedded() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/apps/python");
        let mut found = Vec::new();
        for folder in ["", "eleven_worker/"] {
            for entry in fs::read_dir(source.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.ends_with(".py") {
                    found.push(format!("{folder}{name}"));
                }
            }
        }
        found.sort();
        let mut embedded: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        embedded.sort();
        assert_eq!(found, embedded);
    }
}
