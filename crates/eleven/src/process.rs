//! The life of a server as a process: the sockets it begins with, signals while it runs, the process that takes its
//! place, and its end. TERM and INT stop it once what runs has finished, a second one at once; HUP reads everything
//! anew; USR1 opens log files anew; USR2 starts the program from its file again (which may be a newer one) and, once
//! that serves on the same sockets, lets this process finish what it has.

use crate::admin::AdminListener;
use crate::certificates::Certificates;
use crate::command::Failure;
use crate::notify::Manager;
use crate::pid_file::PidFile;
use eleven_cache::disk::Disk;
use eleven_net::handover::{Channel, Inherited};
use eleven_server::serve::Running;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};

/// Says to a process that its standard input is the channel to the one it replaces: the number of that one.
const HANDOVER: &str = "ELEVEN_HANDOVER";
/// How often the files of certificates are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(10);
/// How long a new process may take until it serves.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a new process that gave up may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what runs may take after an upgrade, where nothing else is said.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);

/// This process, before and while it serves.
pub struct Process {
    /// The file it was started from, as it was called then: later it may be a newer one.
    program: io::Result<PathBuf>,
    predecessor: Option<(Channel, u32)>,
    inherited: Inherited,
}

/// What is asked of a process that serves.
pub struct Duties {
    /// What is said to serve, before each address.
    pub what: String,
    /// Where its number is written.
    pub pid_file: Option<PathBuf>,
    /// How long exchanges and tunnels may go on after an upgrade.
    pub drain_timeout: Duration,
    /// The admin listener, which outlives the server.
    pub admin: AdminListener,
    /// The certificates, looked at every few seconds.
    pub certificates: Option<Certificates>,
    /// Told when there is a new certificate in the files.
    pub renewed: Arc<Notify>,
    /// What HUP does besides reading certificates.
    pub hang_up: HangUp,
}

/// What HUP does besides reading certificates.
pub enum HangUp {
    /// Ends the process, as without a handler: a terminal that goes away takes the server along.
    Ends,
    /// Calls this.
    Calls(Box<dyn FnMut(&mut Running, &mut Option<Certificates>)>),
}

impl Process {
    /// Finds out how this process was started. To be called before anything else reads standard input or opens files.
    ///
    /// # Errors
    /// If another process meant to hand its sockets over, and failed.
    pub fn begin() -> Result<Process, Failure> {
        let program = std::env::current_exe();
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_pid() as u32);
        let announced = std::env::var(HANDOVER).ok().and_then(|text| text.parse::<u32>().ok());
        // Children of a process that took over inherit the variable; it does not mean them.
        if let Some(predecessor) = announced.filter(|_| announced == parent) {
            let failed = |error| Failure(format!("cannot take over from process {predecessor}: {error}"));
            let channel = Channel::from_stdin().map_err(failed)?;
            channel.set_timeout(UPGRADE_TIMEOUT).map_err(failed)?;
            let inherited = channel.receive_sockets().map_err(failed)?;
            let predecessor = Some((channel, predecessor));
            return Ok(Process { program, predecessor, inherited });
        }
        let inherited = Inherited::from_manager()
            .map_err(|error| Failure(format!("cannot take the service manager's sockets: {error}")))?;
        Ok(Process { program, predecessor: None, inherited })
    }

    /// Sockets that somebody else opened for this process.
    pub fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    /// Serves until told to stop and what runs has finished.
    ///
    /// # Errors
    /// If signals cannot be listened for, or the PID file cannot be written.
    pub fn serve(self, mut running: Running, duties: Duties) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let manager = Manager::from_environment();
        let outcome = runtime.block_on(self.until_told(&mut running, duties, &manager))?;
        let Told { signals: Signals { mut terminate, mut interrupt, .. }, drains, _admin, _pid_file } =
            outcome;
        let stopper = running.stopper();
        std::thread::spawn(move || {
            runtime.block_on(async {
                if drains {
                    ended(&mut terminate, &mut interrupt).await;
                    stopper.stop();
                }
                // A second signal ends everything at once.
                ended(&mut terminate, &mut interrupt).await;
            });
            std::process::exit(130);
        });
        running.wait();
        Ok(())
    }

    async fn until_told(
        self,
        running: &mut Running,
        duties: Duties,
        manager: &Manager,
    ) -> Result<Told, Failure> {
        let Duties { what, pid_file, drain_timeout, admin, mut certificates, renewed, mut hang_up } = duties;
        // Once it is handled, for ever: a file beyond the limit on the size of files is an error of its write, told to whoever
        // asked for it, and no reason to end.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
            upgrade: signal(SignalKind::user_defined2())?,
        };
        for name in self.inherited.close_rest() {
            eprintln!("eleven: the socket passed as {name:?} is for no address of this server, and closed");
        }
        let predecessor = self.predecessor.as_ref().map(|(_, pid)| *pid);
        let pid_file = pid_file.map(|path| PidFile::write(&path, predecessor)).transpose()?;
        // Not before it can be told to reload, upgrade or stop.
        for address in running.addresses() {
            eprintln!("{what} on {address}");
        }
        if let Some((channel, pid)) = &self.predecessor {
            match channel.send_ready() {
                Ok(()) => eprintln!("eleven: process {} took over from process {pid}", std::process::id()),
                Err(error) => eprintln!("eleven: process {pid}, which this one replaces, is gone: {error}"),
            }
        }
        manager.ready();
        let mut look = tokio::time::interval(CERTIFICATES_EVERY);
        let watchdog = manager.watchdog();
        let mut watch = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
        watch.tick().await;
        let mut upgrade: Option<Upgrade> = None;
        loop {
            tokio::select! {
                _ = ended(&mut signals.terminate, &mut signals.interrupt) => break,
                _ = signals.reopen.recv() => running.reopen_logs(),
                _ = signals.hang_up.recv() => {
                    manager.reloading();
                    match &mut hang_up {
                        HangUp::Ends if certificates.is_none() => std::process::exit(129),
                        HangUp::Calls(call) => call(running, &mut certificates),
                        HangUp::Ends => refresh(running, &mut certificates, true),
                    }
                    manager.ready();
                }
                _ = renewed.notified() => refresh(running, &mut certificates, false),
                _ = look.tick(), if certificates.is_some() => refresh(running, &mut certificates, false),
                _ = watch.tick(), if watchdog.is_some() => {
                    if running.is_alive() {
                        manager.alive();
                    } else {
                        eprintln!("eleven: a worker got no turn for {watch:?}", watch = watch.period());
                    }
                }
                _ = signals.upgrade.recv() => {
                    if upgrade.is_some() {
                        eprintln!("eleven: an upgrade is under way already");
                    } else {
                        match self.begin_upgrade(running, &admin) {
                            Ok(begun) => upgrade = Some(begun),
                            Err(error) => eprintln!("eleven: cannot upgrade, this process serves on: {error}"),
                        }
                    }
                }
                outcome = Upgrade::outcome(&mut upgrade) => {
                    upgrade = None;
                    match outcome {
                        Ok(pid) => {
                            manager.replaced_by(pid);
                            eprintln!("eleven: process {pid} serves now; this one finishes what it has");
                            running.drain(drain_timeout);
                            admin.hand_over();
                            return Ok(Told { signals, drains: true, _admin: admin, _pid_file: pid_file });
                        }
                        Err(why) => eprintln!("eleven: the upgrade failed, this process serves on: {why}"),
                    }
                }
            }
        }
        manager.stopping();
        running.stop();
        Ok(Told { signals, drains: false, _admin: admin, _pid_file: pid_file })
    }

    /// Starts the program anew and hands it the sockets.
    fn begin_upgrade(&self, running: &Running, admin: &AdminListener) -> io::Result<Upgrade> {
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => {
                return Err(io::Error::other(format!("the program's own file is unknown: {error}")));
            }
        };
        let mut sockets = running.sockets()?;
        sockets.extend(admin.sockets()?);
        let (channel, theirs) = Channel::pair()?;
        channel.set_timeout(UPGRADE_TIMEOUT)?;
        // The new process wants the directory of the store for itself.
        let store = running.metrics().stored_responses().and_then(|cache| cache.store().disk().cloned());
        if let Some(store) = &store {
            store.release()?;
        }
        let child = match spawn(program, theirs) {
            Ok(child) => child,
            Err(error) => {
                reclaim(store.as_deref());
                return Err(error);
            }
        };
        let pid = child.id();
        let (done, outcome) = oneshot::channel();
        std::thread::Builder::new().name("upgrade".into()).spawn(move || {
            let outcome = await_ready(child, &channel, &sockets).map(|()| pid);
            if outcome.is_err() {
                reclaim(store.as_deref());
            }
            let _ = done.send(outcome);
        })?;
        Ok(Upgrade(outcome))
    }
}

/// Takes the store back that no new process uses.
fn reclaim(store: Option<&Disk>) {
    if let Some(Err(error)) = store.map(Disk::reclaim) {
        eprintln!("eleven: the cache goes on in memory only: {error}");
    }
}

/// Starts a process that takes over, with its end of the channel as standard input.
fn spawn(program: &Path, channel: OwnedFd) -> io::Result<Child> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    command
        .arg0(arguments.next().unwrap_or_else(|| OsString::from("eleven")))
        .args(arguments)
        .stdin(Stdio::from(channel))
        .env(HANDOVER, std::process::id().to_string());
    // Those are about this process.
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    let spawned = command.spawn();
    spawned.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))
}

/// Hands the sockets over and waits until the new process serves. One that does not is ended.
fn await_ready(mut child: Child, channel: &Channel, sockets: &[(String, OwnedFd)]) -> Result<(), String> {
    let Err(error) = channel.send_sockets(sockets).and_then(|()| channel.receive_ready()) else {
        return Ok(());
    };
    if error.kind() == io::ErrorKind::WouldBlock {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("the new process did not serve within {} seconds", UPGRADE_TIMEOUT.as_secs()));
    }
    // It is ending, or will not: its end of the channel is closed.
    let deadline = Instant::now() + END_TIMEOUT;
    while child.try_wait().is_ok_and(|status| status.is_none()) {
        if Instant::now() > deadline {
            let _ = child.kill();
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    match child.wait() {
        Ok(status) => {
            Err(format!("the new process ended before it served ({status}); what it said stands above"))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// What ended the time of serving.
struct Told {
    signals: Signals,
    /// Another process serves; this one finishes.
    drains: bool,
    _admin: AdminListener,
    /// Removed when everything has ended.
    _pid_file: Option<PidFile>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reopen: Signal,
    upgrade: Signal,
}

/// An upgrade under way: the number of the process that serves, or why none does.
struct Upgrade(oneshot::Receiver<Result<u32, String>>);

impl Upgrade {
    async fn outcome(under_way: &mut Option<Upgrade>) -> Result<u32, String> {
        match under_way {
            Some(Upgrade(outcome)) => outcome.await.unwrap_or_else(|_| Err("it was given up".into())),
            None => std::future::pending().await,
        }
    }
}

async fn ended(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn refresh(running: &Running, certificates: &mut Option<Certificates>, asked: bool) {
    if let Some(certificates) = certificates
        && certificates.refresh(asked)
    {
        running.metrics().set_certificates(certificates.facts());
    }
}
