//! The configuration file: text → [`raw`] (as written, with the place of everything) → [`plan`] (checked, complete).
//! All mistakes are found at once and shown by [`diagnose`]; everything that is known of a key stands in [`keys`].
//! Neither pass opens a socket or asks the network; files that the configuration names are looked at.

pub mod diagnose;
pub mod include;
pub mod keys;
pub mod plan;
pub mod raw;
pub mod schema;

use diagnose::{Report, Sources};
use eleven_server::plan::Plan;
use std::path::Path;

/// A configuration that was read, whether it can be used or not.
pub struct Loaded {
    /// As written.
    pub raw: raw::Table,
    /// What it means; only to be used if the report has no errors.
    pub plan: Plan,
    /// What is wrong with it.
    pub report: Report,
    /// Its text, with that of the files it includes.
    pub sources: Sources,
}

/// Longest configuration that is read, in octets: a device or a log given by mistake must not fill the memory.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Longest file of one secret, in octets.
pub const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Reads a configuration from its text. Relative paths start in the directory of `file`, where it stands.
pub fn load(text: &str, file: &Path) -> Loaded {
    load_with(text, file, &|name| std::env::var(name).ok())
}

/// As [`load`], with the environment given.
pub fn load_with(text: &str, file: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Loaded {
    let mut report = Report::default();
    let mut sources = Sources::new(file, text);
    let directory = sources.directory(&(0..0)).to_path_buf();
    let secret_file = |path: &str| read_limited(&directory.join(path), SECRET_BYTES_MAX);
    let surroundings = raw::Surroundings { variable, secret_file: &secret_file };
    let mut raw = raw::read(text, &keys::ROOT, &surroundings, &mut report);
    include::read_all(&mut raw, &mut sources, variable, &mut report);
    let plan = plan::build(&raw, &sources, &mut report);
    Loaded { raw, plan, report, sources }
}

/// Reads a text file of bounded length.
///
/// # Errors
/// If it cannot be read, is too long, or is not UTF-8.
pub fn read_limited(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is longer than {bytes_max} octets")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
