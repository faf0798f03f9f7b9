//! Removes what a crash left of files that never got their name. Where the file system can hold a file without a name
//! there is nothing to remove but in the moment between a link and a rename. What a living process is writing
//! is locked by it and stays.

use super::{Kind, Root, is_temporary_name, read_directory, try_lock};
use std::io;

/// How deep below the root is looked.
const DEPTH_MAX: usize = 32;

/// Removes abandoned temporary files beneath a root; how many there were. Looks at `entries_max` names at most, and
/// follows no link. Blocks on the disk.
///
/// # Errors
/// If the root itself cannot be read.
pub fn reap(root: &Root, entries_max: usize) -> io::Result<usize> {
    let mut left = entries_max;
    let mut removed = 0;
    let mut waiting = vec![(Vec::new(), 0)];
    while let Some((within, depth)) = waiting.pop() {
        let opened = root.open(if within.is_empty() { b"/" } else { &within });
        let directory = match opened {
            Ok(opened) if opened.meta.kind == Kind::Directory => opened.file,
            Err(error) if within.is_empty() => return Err(io::Error::other(error)),
            // Gone, or not ours to read.
            _ => continue,
        };
        let Ok((entries, _)) = read_directory(&directory, left) else { continue };
        left -= entries.len();
        for entry in entries {
            let name = [&within[..], b"/", &entry.name].concat();
            if entry.directory && depth < DEPTH_MAX {
                waiting.push((name, depth + 1));
            } else if entry.file && entry.name.first() == Some(&b'.') && is_temporary_name(&entry.name) {
                removed += usize::from(is_abandoned(root, &name) && root.remove_file(&name).is_ok());
            }
        }
    }
    Ok(removed)
}

fn is_abandoned(root: &Root, name: &[u8]) -> bool {
    let opened = root.open_for_writing(name, false, 0);
    opened.is_ok_and(|opened| try_lock(&opened.file).unwrap_or(false))
}
