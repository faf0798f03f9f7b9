//! What the system says of this process.

use std::fs;

/// Figures of the process; absent where the system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Octets of memory in use.
    pub resident_bytes: Option<u64>,
    /// Octets of address space.
    pub virtual_bytes: Option<u64>,
    /// Processor time used, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors, and how many there may be.
    pub open_files: Option<u64>,
    /// How many descriptors there may be.
    pub open_files_max: Option<u64>,
}

impl Process {
    /// As of now.
    pub fn now() -> Process {
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = statm.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
        let page_bytes = rustix::param::page_size() as u64;
        let mut next_bytes = || pages.next().flatten().map(|n| n * page_bytes);
        let (virtual_bytes, resident_bytes) = (next_bytes(), next_bytes());
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name of the program may hold anything but ends with the last parenthesis.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let cpu_seconds = number(11).zip(number(12)).map(|(user, system)| (user + system) as f64 / ticks);
        Process {
            resident_bytes,
            virtual_bytes,
            cpu_seconds,
            threads: number(17),
            open_files: eleven_net::descriptors::open_count().ok().map(|n| n as u64),
            open_files_max: eleven_net::descriptors::limit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let process = Process::now();
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads.unwrap() >= 1 && process.open_files.unwrap() >= 1);
        assert!(process.cpu_seconds.unwrap() >= 0.0);
    }
}
