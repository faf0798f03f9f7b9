//! The configuration file: text → [`raw`] (as written, with the place of everything) → [`plan`] (checked, complete).
//! All mistakes are found at once and shown by [`diagnose`]; everything that is known of a key stands in [`keys`].
//! Neither pass opens a socket or asks the network; files that the configuration names are looked at.

pub mod diagnose;
pub mod keys;
pub mod plan;
pub mod raw;
pub mod schema;

use diagnose::Report;
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
}

/// Longest configuration that is read, in octets: a device or a log given by mistake must not fill the memory.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads a configuration from its text. `directory` is where relative paths start.
pub fn load(text: &str, directory: &Path) -> Loaded {
    let variable = |name: &str| std::env::var(name).ok();
    let secret_file = |path: &str| read_limited(&directory.join(path), 64 << 10);
    let surroundings = raw::Surroundings { variable: &variable, secret_file: &secret_file };
    load_with(text, directory, &surroundings)
}

/// As [`load`], with the surroundings given.
pub fn load_with(text: &str, directory: &Path, surroundings: &raw::Surroundings<'_>) -> Loaded {
    let mut report = Report::default();
    let raw = raw::read(text, &keys::ROOT, surroundings, &mut report);
    let plan = plan::build(&raw, directory, &mut report);
    Loaded { raw, plan, report }
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
