//! File descriptors of the process: how many it may have, how many it has. A server that runs out cannot
//! accept, and cannot open the file it wants to serve either, so the limit is raised once at start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises the soft limit of open descriptors to the hard limit; what it is now. `None` means no limit.
///
/// # Errors
/// If the system refuses, which it does not for a rise up to the hard limit.
pub fn raise_limit() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// The soft limit of open descriptors. `None` means no limit.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many descriptors are open. Reads a directory of `/proc`: for diagnostics, not for the way of a request.
///
/// # Errors
/// If `/proc` is not there.
pub fn open_count() -> io::Result<usize> {
    // Reading the directory holds one open itself.
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

/// Whether an error means that this process or the system is out of descriptors or memory for sockets: not
/// the peer's fault, and worth a pause before the next try.
pub fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|e| code == Some(e.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault D42.
    #[test]
    fn the_limit_is_raised_and_descriptors_are_counted() {
        let raised = raise_limit().unwrap();
        assert_eq!(raised, limit());
        let held: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close descriptors meanwhile.
        assert!(open_count().unwrap() >= held.len());
        // EMFILE, ENFILE, ENOBUFS and ENOMEM; not EAGAIN.
        for errno in [24, 23, 105, 12] {
            assert!(is_exhausted(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(!is_exhausted(&io::Error::from_raw_os_error(11)));
        assert!(!is_exhausted(&io::ErrorKind::ConnectionReset.into()));
    }
}
