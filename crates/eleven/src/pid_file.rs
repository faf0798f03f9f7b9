//! The file that holds the number of the process, for scripts and for `eleven reload` and `eleven upgrade`. It is
//! written whole or not at all, and removed by the process whose number stands in it.

use crate::command::Failure;
use std::path::{Path, PathBuf};

/// The file of this process.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes the number of this process. Another one that lives and is not `predecessor` is not displaced.
    ///
    /// # Errors
    /// If the file cannot be written, or names another process that runs.
    pub fn write(path: &Path, predecessor: Option<u32>) -> Result<PidFile, Failure> {
        let own = std::process::id();
        if let Some(pid) = read(path)
            && pid != own
            && Some(pid) != predecessor
            && is_eleven(pid)
        {
            return Err(Failure(format!(
                "{}: process {pid} has this file and runs; stop it, or choose another file",
                path.display()
            )));
        }
        let fail = |error| Failure(format!("cannot write the PID file {}: {error}", path.display()));
        let temporary = path.with_extension(format!("{own}.tmp"));
        std::fs::write(&temporary, format!("{own}\n")).map_err(fail)?;
        std::fs::rename(&temporary, path).map_err(fail)?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // After an upgrade it is another's.
        if read(&self.0) == Some(std::process::id()) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

/// The process that a file names.
pub fn read(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a process runs and is this program (numbers are used again).
pub fn is_eleven(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim_end().starts_with("eleven"))
}
