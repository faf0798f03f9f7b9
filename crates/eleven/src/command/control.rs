//! `eleven reload` and `eleven upgrade`: finds a running server and has it change without losing a connection. What
//! can be known to be wrong is said before the server is asked.

use super::Failure;
use crate::cli::Controlled;
use crate::pid_file;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the progress of an upgrade is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long an upgrade may take: a little more than the server itself allows.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(130);
/// How long the server may take until its new process is seen.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);

/// `eleven reload`.
pub fn reload(options: &Controlled) -> Result<ExitCode, Failure> {
    let server = match Server::find(options)? {
        Found::Server(server) => server,
        Found::Said(code) => return Ok(code),
    };
    server.signal(Signal::HUP)?;
    println!("process {} was asked to read everything anew; its log says what came of it", server.pid);
    Ok(ExitCode::SUCCESS)
}

/// `eleven upgrade`.
pub fn upgrade(options: &Controlled) -> Result<ExitCode, Failure> {
    let server = match Server::find(options)? {
        Found::Server(server) => server,
        Found::Said(code) => return Ok(code),
    };
    server.signal(Signal::USR2)?;
    let Some(path) = &server.pid_file else {
        println!("process {} was asked to upgrade; its log says what came of it", server.pid);
        return Ok(ExitCode::SUCCESS);
    };
    let started = Instant::now();
    let mut begun = false;
    loop {
        if let Some(pid) = pid_file::read(path).filter(|pid| *pid != server.pid && pid_file::is_eleven(*pid))
        {
            println!("process {pid} took over from process {}, which finishes what it has", server.pid);
            return Ok(ExitCode::SUCCESS);
        }
        if !pid_file::is_eleven(server.pid) {
            return Err(Failure(format!("process {} ended; see its log", server.pid)));
        }
        let under_way = server.has_child();
        begun |= under_way;
        // The file may have changed between the two looks.
        let failed = !under_way && (begun || started.elapsed() > BEGIN_TIMEOUT);
        if started.elapsed() > UPGRADE_TIMEOUT || (failed && pid_file::read(path) == Some(server.pid)) {
            return Err(Failure(format!(
                "no new process serves, and process {} goes on; its log says why",
                server.pid
            )));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

enum Found {
    Server(Server),
    /// What is wrong was said.
    Said(ExitCode),
}

/// A running server.
struct Server {
    pid: u32,
    pid_file: Option<PathBuf>,
}

impl Server {
    fn find(options: &Controlled) -> Result<Found, Failure> {
        let mut pid_file = options.pid_file.clone();
        if let Some(file) = &options.config {
            let loaded = match super::check::open(file) {
                Ok(opened) => opened,
                Err(code) => return Ok(Found::Said(code)),
            };
            if loaded.report.has_errors() {
                eprint!("{}", loaded.report.render(&loaded.sources, false));
                return Err(Failure("the server was left alone: the configuration is wrong".into()));
            }
            pid_file = pid_file.or(loaded.plan.process.pid_file);
        }
        let pid = match (options.pid, &pid_file) {
            (Some(pid), _) => pid,
            (None, Some(path)) => pid_file::read(path).ok_or_else(|| {
                Failure(format!("{} names no process; does the server run?", path.display()))
            })?,
            (None, None) => {
                return Err(Failure(
                    "which server? give --pid-file, --pid, or --config with a `pid_file` in it".into(),
                ));
            }
        };
        if !pid_file::is_eleven(pid) {
            return Err(Failure(format!("process {pid} does not run, or is another program")));
        }
        Ok(Found::Server(Server { pid, pid_file }))
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure(format!("{} is no process", self.pid)))?;
        kill_process(pid, signal)
            .map_err(|error| Failure(format!("cannot signal process {}: {error}", self.pid)))
    }

    /// Whether it is starting its successor: the only child of its first thread.
    fn has_child(&self) -> bool {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid));
        children.is_ok_and(|children| {
            children.split(' ').filter_map(|pid| pid.trim().parse().ok()).any(pid_file::is_eleven)
        })
    }
}
