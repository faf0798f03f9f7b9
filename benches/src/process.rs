//! The programs under measurement as processes: started on one core, found by their port, watched through
//! `/proc`, and ended with the value that holds them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The core of whatever is measured.
pub const SERVER_CORE: &str = "0";
/// The core of whatever makes the load.
pub const LOAD_CORE: &str = "1";
const START_MS_MAX: u64 = 10_000;

/// A running program that listens on loopback.
#[derive(Debug)]
pub struct Program {
    /// What the table calls it.
    pub name: String,
    /// Where it listens.
    pub port: u16,
    child: Child,
}

impl Program {
    /// Whether its errors are ours, and end a run, or those of a peer, which are shown.
    pub fn is_ours(&self) -> bool {
        self.name.starts_with("eleven") || self.name.starts_with("smallest")
    }

    /// Its name for a table, with the errors that were seen.
    pub fn named(&self, errors: u64) -> String {
        match errors {
            0 => self.name.clone(),
            errors => format!("{} ({errors} errors)", self.name),
        }
    }

    /// Starts `command` pinned to [`SERVER_CORE`] and waits until it accepts connections on `port`.
    ///
    /// # Errors
    /// When it cannot be started, ends at once, or does not listen within ten seconds.
    pub fn start(name: &str, port: u16, program: &Path, args: &[String]) -> Result<Program, String> {
        Program::start_on(SERVER_CORE, name, port, program, args)
    }

    /// [`Program::start`] on a core of choice.
    ///
    /// # Errors
    /// As [`Program::start`].
    pub fn start_on(
        core: &str,
        name: &str,
        port: u16,
        program: &Path,
        args: &[String],
    ) -> Result<Program, String> {
        let child = Command::new("taskset")
            .args(["-c", core])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start {name} ({}) with taskset: {e}", program.display()))?;
        let mut program = Program { name: name.to_owned(), port, child };
        let started = Instant::now();
        while TcpStream::connect(program.address()).is_err() {
            if let Ok(Some(status)) = program.child.try_wait() {
                return Err(format!("{name} ended at once: {status}"));
            }
            if started.elapsed() > Duration::from_millis(START_MS_MAX) {
                return Err(format!("{name} does not listen on port {port}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(program)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Ends it at once, without being asked.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// CPU time of the program, its threads and its children so far, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.pids().iter().map(|pid| threads_cpu_ns(*pid)).sum::<u64>() as f64 / 1e9
    }

    /// Resident memory of the program and its children, in bytes; what the kernel holds for its sockets is
    /// not part of it.
    pub fn resident_bytes(&self) -> u64 {
        let pages = |pid: u32| {
            let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
            statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0)
        };
        self.pids().iter().map(|pid| pages(*pid)).sum::<u64>() * rustix::param::page_size() as u64
    }

    /// The process and its children, such as nginx's master and worker.
    fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut at = 0;
        while at < pids.len() {
            let path = format!("/proc/{0}/task/{0}/children", pids[at]);
            let children = std::fs::read_to_string(path).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        pids
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // A polite end first: nginx's master takes its worker with it.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(3) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn threads_cpu_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
        })
        .sum()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let bound = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    bound.local_addr().expect("a bound socket has an address").port()
}

/// The first line that `program ARGS` prints, such as its version; none when it cannot be run.
pub fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let out = Command::new(program).args(args).output().ok()?;
    let text = [out.stdout, out.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
}
