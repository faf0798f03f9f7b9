//! The life of an application's workers: starting, warming, watching, replacing, ending. One thread of its own, so
//! that nothing of it ever waits for a request or makes one wait.
//!
//! A worker goes through Starting (imports), Warming (answers the probe), Serving (in the pool), Retiring (finishes
//! what it has) and is gone. Replacing always starts the new one first.

use super::package::RuntimeDirectory;
use super::pool::{Overdue, Pool};
use super::protocol::{self, CONTENT_INLINE, DONE, FrameHead, FrameKind, HELLO_BYTES, REQUEST, Ticket};
use super::settings::{AppSettings, Interface};
use super::zygote::{self, Zygote};
use bytes::{Bytes, BytesMut};
use eleven_net::packet::PacketPair;
use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command as Process};
use tokio::sync::{mpsc, oneshot};

/// How often ages, sizes and deadlines are looked at.
const TICK_MS: u64 = 50;
/// Memory is looked at once in so many ticks.
const MEMORY_TICKS: u64 = 20;
/// First and longest pause before a worker that failed is started again.
const BACK_OFF_MS: (u64, u64) = (100, 10_000);
/// A worker that lived this long did not fail for its start.
const HEALTHY_MS: u64 = 10_000;
/// How long an event loop may take to end a task before its worker is replaced.
const FORCE_GRACE_MS: u64 = 5_000;
/// How long a connection from a worker may take to say what it is.
pub(super) const HELLO_TIMEOUT_MS: u64 = 5_000;

/// What all threads know of the application.
#[derive(Debug)]
pub(super) struct Known {
    interface: AtomicU8,
    is_broken: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: bool,
    reloads: u64,
    broken: Option<Arc<str>>,
    stopped: bool,
    tokens: HashMap<u32, [u8; 16]>,
}

impl Known {
    pub(super) fn new() -> Known {
        Known {
            interface: AtomicU8::new(0),
            is_broken: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the application turned out to speak; `Auto` as long as no worker was ready.
    pub(super) fn interface(&self) -> Interface {
        match self.interface.load(Ordering::Relaxed) {
            1 => Interface::Wsgi,
            2 => Interface::Asgi,
            _ => Interface::Auto,
        }
    }

    /// Why there is no worker, or in development no new one, if the application does not start.
    pub(super) fn broken(&self) -> Option<Arc<str>> {
        if self.is_broken.load(Ordering::Relaxed) { self.lock().broken.clone() } else { None }
    }

    /// Lets the worker with this token connect.
    pub(super) fn admit(&self, worker: u32, token: [u8; 16]) {
        self.update(|state| {
            state.tokens.insert(worker, token);
        });
    }

    pub(super) fn is_token(&self, worker: u32, token: &[u8; 16]) -> bool {
        self.lock().tokens.get(&worker) == Some(token)
    }

    /// Waits until the first worker is ready; an error is the traceback.
    pub(super) fn wait_ready(&self) -> Result<(), Arc<str>> {
        let mut state = self.lock();
        loop {
            if state.ready {
                return Ok(());
            }
            if let Some(why) = &state.broken {
                return Err(Arc::clone(why));
            }
            if state.stopped {
                return Err("the application was stopped".into());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until this many reloads are over, well or not.
    pub(super) fn wait_reloads(&self, reloads: u64) {
        let mut state = self.lock();
        while state.reloads < reloads && !state.stopped {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.is_broken.store(state.broken.is_some(), Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }
}

/// What the application is told from outside.
#[derive(Debug)]
pub(super) enum Command {
    Reload,
    Stop,
}

#[derive(Debug)]
enum Event {
    Command(Command),
    Frame(u32, FrameHead, Bytes),
    Exited(u32, std::io::Result<ExitStatus>),
}

#[derive(Debug)]
enum Phase {
    Starting,
    Warming { status: Option<u16> },
    Serving,
    Retiring { deadline: Instant },
}

#[derive(Debug)]
struct Worker {
    phase: Phase,
    pair: Arc<PacketPair>,
    since: Instant,
    generation: u64,
    replaces: Option<u32>,
    pid: Option<u32>,
    kill: Option<oneshot::Sender<()>>,
    /// This worker's own limits, with the part added by chance.
    requests_max: u64,
    age_max: Duration,
    /// A successor is on its way.
    leaving: bool,
    /// It was killed, or the server said why it ends: no second log line.
    expected: bool,
}

pub(super) struct Supervisor {
    settings: Arc<AppSettings>,
    directory: Arc<RuntimeDirectory>,
    pool: Arc<Pool>,
    known: Arc<Known>,
    threads: usize,
    events: mpsc::UnboundedSender<Event>,
    workers: HashMap<u32, Worker>,
    next: u32,
    generation: u64,
    /// Forks the workers of its generation, with `preload`.
    zygote: Option<Zygote>,
    /// Workers to be replaced, one after the other.
    to_replace: VecDeque<u32>,
    /// When to start so many missing workers.
    restart_at: Option<Instant>,
    missing: usize,
    failures: u32,
    reloading: bool,
    /// A reload that was asked for while one was running.
    reload_again: bool,
    forced: Vec<(u32, Ticket, Instant)>,
    ticks: u64,
    stopping: bool,
}

/// Runs until the application is stopped. Needs a current-thread runtime with I/O and time.
pub(super) async fn run(
    settings: Arc<AppSettings>,
    directory: Arc<RuntimeDirectory>,
    pool: Arc<Pool>,
    known: Arc<Known>,
    threads: usize,
    listener: std::os::unix::net::UnixListener,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut supervisor = Supervisor {
        missing: settings.workers.max(1),
        settings,
        directory,
        pool,
        known: Arc::clone(&known),
        threads,
        events: events.clone(),
        workers: HashMap::new(),
        next: 1,
        generation: 0,
        zygote: None,
        to_replace: VecDeque::new(),
        restart_at: Some(Instant::now()),
        failures: 0,
        reloading: false,
        reload_again: false,
        forced: Vec::new(),
        ticks: 0,
        stopping: false,
    };
    match UnixListener::from_std(listener) {
        Ok(listener) => {
            tokio::spawn(accept(listener, Arc::clone(&known), events.clone()));
        }
        Err(error) => {
            tracing::error!(%error, "the application's control socket cannot be used");
            known.update(|state| state.stopped = true);
            return;
        }
    }
    let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = inbox.recv() => event,
            // Whoever held the application is gone: so is the application.
            command = commands.recv() => Some(Event::Command(command.unwrap_or(Command::Stop))),
            _ = tick.tick() => None,
        };
        match event {
            Some(event) => supervisor.handle(event),
            None => supervisor.tick(),
        }
        if supervisor.stopping && supervisor.workers.is_empty() {
            break;
        }
    }
    known.update(|state| state.stopped = true);
}

async fn accept(listener: UnixListener, known: Arc<Known>, events: mpsc::UnboundedSender<Event>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(control(stream, Arc::clone(&known), events.clone()));
    }
}

/// Reads a worker's control connection. Content connections come here only from the probe, whose content nobody
/// wants.
async fn control(mut stream: UnixStream, known: Arc<Known>, events: mpsc::UnboundedSender<Event>) {
    let mut hello = [0; HELLO_BYTES];
    let read = tokio::time::timeout(Duration::from_millis(HELLO_TIMEOUT_MS), stream.read_exact(&mut hello));
    let Ok(Ok(_)) = read.await else { return };
    let Some(hello) = protocol::hello(&hello).filter(|hello| known.is_token(hello.worker, &hello.token))
    else {
        return;
    };
    if hello.content {
        return;
    }
    let mut buffer = BytesMut::with_capacity(8192);
    loop {
        while let Ok(Some(head)) = protocol::frame_head(&buffer) {
            if buffer.len() < protocol::FRAME_BYTES + head.payload {
                break;
            }
            let mut frame = buffer.split_to(protocol::FRAME_BYTES + head.payload);
            let payload = frame.split_off(protocol::FRAME_BYTES).freeze();
            if events.send(Event::Frame(hello.worker, head, payload)).is_err() {
                return;
            }
        }
        if stream.ready(Interest::READABLE).await.is_err()
            || !matches!(stream.read_buf(&mut buffer).await, Ok(1..))
        {
            return;
        }
    }
}

/// Waits for the end of a worker's process, killing it when told.
async fn attend(
    number: u32,
    mut child: Child,
    kill: oneshot::Receiver<()>,
    events: mpsc::UnboundedSender<Event>,
) {
    let status = tokio::select! {
        status = child.wait() => status,
        // A sender that is dropped means the supervisor has gone, and with it goes the worker.
        _ = kill => {
            // It may have ended in this very moment.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let _ = events.send(Event::Exited(number, status));
}

/// `value` and up to a tenth more, so that workers do not leave together.
fn with_jitter(value: u64, random: u64) -> u64 {
    value.saturating_add(random % (value / 10 + 1))
}

fn resident_bytes(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages = eleven_semantics::grammar::decimal(text.split(' ').nth(1)?.as_bytes())?;
    Some(pages * rustix::param::page_size() as u64)
}

impl Supervisor {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Command(Command::Reload) => self.reload(),
            Event::Command(Command::Stop) => self.stop(),
            Event::Frame(number, head, payload) => self.frame(number, head, &payload),
            Event::Exited(number, status) => self.exited(number, status),
        }
    }

    fn start(&mut self, replaces: Option<u32>) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        match self.spawn(number) {
            Ok(worker) => {
                self.workers.insert(number, Worker { replaces, ..worker });
            }
            Err(error) => {
                let python = self.settings.python.display();
                let why = format!("cannot start the interpreter {python}: {error}");
                tracing::error!("{why}");
                self.failed_to_start(replaces, why.into());
            }
        }
    }

    /// The interpreter with the worker package.
    fn interpreter(&self) -> Process {
        let mut process = Process::new(&self.settings.python);
        process
            .arg(self.directory.package())
            .envs(self.settings.environment.iter().map(|(name, value)| (name, value)))
            // A group of its own: Ctrl-C in the terminal is for the server.
            .process_group(0)
            .kill_on_drop(true);
        process
    }

    /// What a process is told first.
    fn message(&self, number: u32, token: &[u8; 16], preload: bool) -> Vec<u8> {
        let settings = &self.settings;
        let sockets: Vec<_> = (0..=self.threads).map(|t| self.directory.socket(t)).collect();
        let message = serde_json::json!({
            "application": settings.application,
            "interface": settings.interface.name(),
            "factory": settings.factory,
            "directory": settings.directory,
            "python_path": settings.python_path,
            "threads": settings.threads.max(1),
            "sockets": sockets,
            "token": token.iter().map(|b| format!("{b:02x}")).collect::<String>(),
            "worker": number,
            "development": settings.development,
            "watch": settings.watch,
            "preload": preload,
            "event_loop": settings.event_loop,
            "environ": {
                "SERVER_SOFTWARE": concat!("eleven/", env!("CARGO_PKG_VERSION")),
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "SCRIPT_NAME": "",
                "wsgi.url_scheme": "http",
            },
        });
        message.to_string().into_bytes()
    }

    /// Has a worker forked by the zygote of this generation, which is started if there is none.
    fn fork(
        &mut self,
        number: u32,
        message: &[u8],
        pair: &PacketPair,
    ) -> std::io::Result<oneshot::Receiver<OwnedFd>> {
        if let Some(zygote) = self.zygote.as_ref().filter(|zygote| zygote.generation == self.generation)
            && let Ok(process) = zygote.fork(number, message, pair.their_end()?)
        {
            return Ok(process);
        }
        // The first, or that of the code before the reload, or it was killed.
        let settings = self.message(0, &[0; 16], true);
        let zygote = Zygote::start(self.interpreter(), &settings, self.generation)?;
        let process = zygote.fork(number, message, pair.their_end()?);
        self.zygote = Some(zygote);
        process
    }

    fn spawn(&mut self, number: u32) -> std::io::Result<Worker> {
        let pair = Arc::new(PacketPair::new()?);
        let token: [u8; 16] = eleven_net::random::bytes()?;
        self.known.admit(number, token);
        let message = self.message(number, &token, false);
        let (kill, killed) = oneshot::channel();
        let events = self.events.clone();
        let mut pid = None;
        // A worker that watches its files has to import them itself.
        if self.settings.preload && !self.settings.watch {
            let process = self.fork(number, &message, &pair)?;
            tokio::spawn(async move {
                let end = zygote::attend(process, killed).await;
                let _ = events.send(Event::Exited(number, Err(end)));
            });
        } else {
            let child = self.interpreter().stdin(Stdio::from(pair.their_end()?)).spawn()?;
            pair.send(&message)?;
            pid = child.id();
            tokio::spawn(attend(number, child, killed, events));
        }
        let settings = &self.settings;
        let chance = u64::from_ne_bytes(eleven_net::random::bytes()?);
        Ok(Worker {
            phase: Phase::Starting,
            pair,
            since: Instant::now(),
            generation: self.generation,
            replaces: None,
            pid,
            kill: Some(kill),
            requests_max: with_jitter(settings.requests_max, chance),
            age_max: Duration::from_secs(with_jitter(settings.age_max_s, chance)),
            leaving: false,
            expected: false,
        })
    }

    fn frame(&mut self, number: u32, head: FrameHead, payload: &[u8]) {
        match head.kind {
            FrameKind::Ready => self.ready(number, payload),
            FrameKind::Broken => {
                // The worker has logged it.
                let why: Arc<str> = String::from_utf8_lossy(payload).into();
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.expected = true;
                    let replaces = worker.replaces.take();
                    self.failed_to_start(replaces, why);
                }
                // One that watches its files stays to tell of a change.
                if !self.settings.watch {
                    self.kill(number);
                }
            }
            FrameKind::Changed => {
                let path = String::from_utf8_lossy(payload);
                if self.workers.get(&number).is_some_and(|worker| worker.generation == self.generation) {
                    tracing::info!(%path, "a source file changed, reloading");
                    self.reload();
                }
            }
            _ => self.probed(number, head, payload),
        }
    }

    fn ready(&mut self, number: u32, payload: &[u8]) {
        let said: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        if said["version"] != protocol::VERSION {
            tracing::error!(said = %said, "the worker speaks another version of the protocol");
            return self.kill(number);
        }
        let asgi = said["interface"] == "asgi";
        self.known.interface.store(if asgi { 2 } else { 1 }, Ordering::Relaxed);
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.pid = worker.pid.or(said["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()));
        tracing::info!(
            worker = number,
            pid = worker.pid,
            python = said["python"].as_str(),
            interface = said["interface"].as_str(),
            took_ms = worker.since.elapsed().as_millis() as u64,
            "a worker is ready"
        );
        let Some(path) = &self.settings.probe else { return self.serve(number) };
        let message = probe(path, asgi, number);
        worker.phase = Phase::Warming { status: None };
        if !matches!(worker.pair.send(&message), Ok(true)) {
            self.kill(number);
        }
    }

    fn probed(&mut self, number: u32, head: FrameHead, payload: &[u8]) {
        let Some(Worker { phase: Phase::Warming { status }, .. }) = self.workers.get_mut(&number) else {
            return;
        };
        if head.kind == FrameKind::Response {
            *status =
                protocol::app_head(&payload[..head.head], head.fields).ok().map(|head| head.status.code());
        }
        if head.flags & DONE == 0 {
            return;
        }
        match *status {
            Some(code) if code < 500 => self.serve(number),
            code => {
                let why = format!("a new worker answered the probe with {}", code.unwrap_or(500));
                tracing::error!(worker = number, "{why}");
                let replaces = self.workers.get_mut(&number).and_then(|worker| {
                    worker.expected = true;
                    worker.replaces.take()
                });
                self.kill(number);
                self.failed_to_start(replaces, why.into());
            }
        }
    }

    /// A worker is warm: it takes requests, and the one it replaces takes no more.
    fn serve(&mut self, number: u32) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.phase = Phase::Serving;
        let event_loop = self.known.interface() == Interface::Asgi;
        let slots = if event_loop { self.settings.tasks } else { self.settings.threads };
        let replaces = worker.replaces.take();
        self.pool.add(number, Arc::clone(&worker.pair), slots, event_loop, Instant::now());
        self.known.update(|state| {
            state.ready = true;
            state.broken = None;
        });
        if let Some(old) = replaces {
            self.retire(old);
            self.replace_next();
        }
    }

    /// A worker did not come to serve. What it should have replaced stays.
    fn failed_to_start(&mut self, replaces: Option<u32>, why: Arc<str>) {
        self.failures += 1;
        if let Some(old) = replaces {
            if let Some(old) = self.workers.get_mut(&old) {
                old.leaving = false;
            }
            // The others would fail in the same way: the running ones stay, all of them.
            while let Some(next) = self.to_replace.pop_front() {
                if let Some(next) = self.workers.get_mut(&next) {
                    next.leaving = false;
                }
            }
            if self.reloading {
                tracing::error!("the reload failed; the old workers go on");
            }
            if self.settings.development {
                self.known.update(|state| state.broken = Some(why));
            }
            return self.reload_over();
        }
        let serving = self.workers.values().any(|worker| matches!(worker.phase, Phase::Serving));
        if !serving {
            self.known.update(|state| state.broken = Some(why));
        }
        if !self.settings.watch {
            self.start_later(1);
        }
    }

    fn start_later(&mut self, count: usize) {
        self.missing += count;
        let shift = self.failures.saturating_sub(1).min(10);
        let pause = if self.failures == 0 { 0 } else { (BACK_OFF_MS.0 << shift).min(BACK_OFF_MS.1) };
        let at = Instant::now() + Duration::from_millis(pause);
        self.restart_at = Some(self.restart_at.map_or(at, |before| before.max(at)));
    }

    fn exited(&mut self, number: u32, status: std::io::Result<ExitStatus>) {
        let Some(worker) = self.workers.remove(&number) else { return };
        let now = Instant::now();
        self.known.update(|state| {
            state.tokens.remove(&number);
        });
        self.pool.gone(number, now);
        self.forced.retain(|(forced, ..)| *forced != number);
        self.to_replace.retain(|waiting| *waiting != number);
        if self.stopping {
            return;
        }
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        if !worker.expected && !matches!(worker.phase, Phase::Retiring { .. }) {
            tracing::error!(worker = number, pid = worker.pid, %status, "a worker ended by itself");
        }
        match worker.phase {
            Phase::Retiring { .. } => {}
            Phase::Starting | Phase::Warming { .. } if worker.expected => {}
            Phase::Starting | Phase::Warming { .. } => {
                self.failed_to_start(
                    worker.replaces,
                    format!("a worker ended while starting: {status}").into(),
                );
            }
            Phase::Serving if worker.leaving && self.workers.values().any(|w| w.replaces == Some(number)) => {
                // Its successor is already starting and now fills this place.
                self.replace_next();
            }
            Phase::Serving => {
                let healthy =
                    now.saturating_duration_since(worker.since) >= Duration::from_millis(HEALTHY_MS);
                self.failures = if healthy || worker.expected { 0 } else { self.failures + 1 };
                // The first restart is at once: most crashes are of one request.
                self.failures = self.failures.saturating_sub(u32::from(self.failures == 1));
                self.start_later(1);
            }
        }
    }

    fn retire(&mut self, number: u32) {
        let drain = Duration::from_millis(self.settings.drain_timeout_ms);
        let Some(worker) = self.workers.get_mut(&number) else { return };
        worker.phase = Phase::Retiring { deadline: Instant::now() + drain };
        self.pool.retire(number, Instant::now());
        // Those that never served are not in the pool.
        worker.pair.finish();
    }

    fn kill(&mut self, number: u32) {
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.expected = true;
            if let Some(kill) = worker.kill.take() {
                let _ = kill.send(());
            }
        }
    }

    fn reload(&mut self) {
        if self.stopping {
            return;
        }
        if self.reloading {
            self.reload_again = true;
            return;
        }
        self.reloading = true;
        self.generation += 1;
        self.failures = 0;
        let mut serving = Vec::new();
        for (number, worker) in &mut self.workers {
            match worker.phase {
                Phase::Serving => {
                    worker.leaving = true;
                    serving.push(*number);
                }
                // What was starting has the old code.
                Phase::Starting | Phase::Warming { .. } => {
                    worker.expected = true;
                    if let Some(kill) = worker.kill.take() {
                        let _ = kill.send(());
                    }
                }
                Phase::Retiring { .. } => {}
            }
        }
        serving.sort_unstable();
        self.to_replace = serving.into();
        self.missing = self.settings.workers.max(1).saturating_sub(self.to_replace.len());
        self.restart_at = Some(Instant::now());
        if self.to_replace.is_empty() {
            self.reload_over();
        } else {
            self.replace_next();
        }
        self.start_missing();
    }

    fn replace_next(&mut self) {
        match self.to_replace.pop_front() {
            Some(old) => self.start(Some(old)),
            None => self.reload_over(),
        }
    }

    fn reload_over(&mut self) {
        if !self.reloading {
            return;
        }
        self.reloading = false;
        self.known.update(|state| state.reloads += 1);
        tracing::info!("the reload is over");
        if std::mem::take(&mut self.reload_again) {
            self.reload();
        }
    }

    fn start_missing(&mut self) {
        if self.missing > 0 && self.restart_at.is_some_and(|at| at <= Instant::now()) {
            self.restart_at = None;
            for _ in 0..std::mem::take(&mut self.missing) {
                self.start(None);
            }
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let now = Instant::now();
        self.end_the_overdue(now);
        let mut to_kill = Vec::new();
        let mut to_replace = Vec::new();
        let start_timeout = Duration::from_millis(self.settings.start_timeout_ms);
        let look_at_memory = self.settings.memory_bytes_max > 0 && self.ticks.is_multiple_of(MEMORY_TICKS);
        for (&number, worker) in &self.workers {
            let age = now.saturating_duration_since(worker.since);
            match worker.phase {
                Phase::Starting | Phase::Warming { .. } if age > start_timeout && !worker.expected => {
                    to_kill.push((number, "it did not start in time"));
                }
                Phase::Retiring { deadline } if now > deadline && worker.kill.is_some() => {
                    to_kill.push((number, "it did not end in time"));
                }
                Phase::Serving if !worker.leaving => {
                    let served = self.pool.worker(number).map_or(0, |(served, _)| served);
                    let large = look_at_memory
                        && worker
                            .pid
                            .and_then(resident_bytes)
                            .is_some_and(|n| n > self.settings.memory_bytes_max);
                    let old = self.settings.age_max_s > 0 && age > worker.age_max;
                    if large || old || (self.settings.requests_max > 0 && served >= worker.requests_max) {
                        to_replace.push(number);
                    }
                }
                _ => {}
            }
        }
        for (number, why) in to_kill {
            tracing::error!(worker = number, "killing a worker: {why}");
            if let Some(worker) = self.workers.get_mut(&number)
                && matches!(worker.phase, Phase::Starting | Phase::Warming { .. })
            {
                let replaces = worker.replaces.take();
                self.failed_to_start(replaces, format!("a worker was killed: {why}").into());
            }
            self.kill(number);
        }
        if !self.reloading && !self.stopping {
            for number in to_replace {
                tracing::info!(worker = number, "replacing a worker that reached its limits");
                if let Some(worker) = self.workers.get_mut(&number) {
                    worker.leaving = true;
                }
                self.start(Some(number));
            }
        }
        if !self.stopping {
            self.start_missing();
        }
    }

    /// Requests over their time: a worker that has nothing else is killed; in others the task is ended, or the worker
    /// replaced.
    fn end_the_overdue(&mut self, now: Instant) {
        for Overdue { worker, ticket, alone } in self.pool.tick(now) {
            tracing::error!(worker, request = ticket.request, "a request took too long (504)");
            if alone {
                self.kill(worker);
            } else {
                self.pool.force(ticket);
                self.forced.push((worker, ticket, now + Duration::from_millis(FORCE_GRACE_MS)));
            }
        }
        let mut stuck = Vec::new();
        self.forced.retain(|&(worker, ticket, until)| {
            let still = self.pool.has(worker, ticket);
            if still && now >= until {
                stuck.push(worker);
            }
            still && now < until
        });
        for number in stuck {
            if let Some(worker) = self.workers.get(&number)
                && matches!(worker.phase, Phase::Serving)
            {
                // The rest of its requests may finish; then it is killed with the one that does not.
                tracing::error!(worker = number, "replacing a worker with a request that does not end");
                self.retire(number);
                self.start_later(1);
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.pool.close();
        let numbers: Vec<_> = self.workers.keys().copied().collect();
        for number in numbers {
            match self.workers[&number].phase {
                Phase::Serving => self.retire(number),
                Phase::Retiring { .. } => {}
                Phase::Starting | Phase::Warming { .. } => self.kill(number),
            }
        }
    }
}

/// The request a new worker has to answer.
fn probe(path: &str, asgi: bool, number: u32) -> Vec<u8> {
    let mut message = Vec::new();
    protocol::begin_message(REQUEST, Ticket { thread: 0, request: number }, &mut message);
    let (target, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = if asgi {
        vec![
            "GET",
            "1.1",
            "http",
            target,
            target,
            query,
            "",
            "127.0.0.1",
            "0",
            "localhost",
            "80",
            "host",
            "localhost",
        ]
    } else {
        let pairs = [
            ("REQUEST_METHOD", "GET"),
            ("PATH_INFO", target),
            ("QUERY_STRING", query),
            ("REQUEST_URI", path),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("HTTP_HOST", "localhost"),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()
    };
    message.extend_from_slice(parts.join("\0").as_bytes());
    protocol::finish_message(&mut message, CONTENT_INLINE, b"");
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_up_to_a_tenth() {
        assert_eq!(with_jitter(0, 17), 0);
        for random in 0..1000 {
            assert!((1000..=1100).contains(&with_jitter(1000, random)));
        }
        assert_eq!(with_jitter(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn probes_are_messages() {
        for asgi in [false, true] {
            let message = probe("/health?x=1", asgi, 9);
            assert_eq!(protocol::ticket_of(&message), Some(Ticket { thread: 0, request: 9 }));
            let head = &message[protocol::QUEUE_BYTES..];
            assert_eq!(head.split(|&b| b == 0).count() % 2, if asgi { 1 } else { 0 });
        }
    }
}
