//! What the connections of one worker share: the service, the ledger, limits, buffers, and the date. Lives on
//! one thread; nothing in it is locked.

use crate::access_log;
use crate::files;
use crate::files::hot::{Hot, HotLimits};
use crate::metrics::Recorder;
use crate::overload;
use crate::overload::gated::Gate;
use crate::record::{Notes, SiteLog};
use crate::request::{Peer, Request};
use crate::service::Service;
use bytes::Bytes;
use eleven_messaging::Config;
use eleven_net::clock;
use eleven_net::ledger::Ledger;
use eleven_semantics::Fields;
use eleven_semantics::date::HttpDate;
use eleven_semantics::target::Scheme;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// How long things may take, and how slow they may be. Deadlines are checked a few times a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first octet of a head to its end (fault D01).
    pub head_timeout_ms: u64,
    /// The same for a head that keeps coming at [`Timeouts::head_rate_min`].
    pub head_timeout_extended_ms: u64,
    /// Octets a second at which a head may take the longer time.
    pub head_rate_min: u64,
    /// For the TLS handshake (fault D06).
    pub handshake_timeout_ms: u64,
    /// Between requests, and before the first (fault D05).
    pub idle_timeout_ms: u64,
    /// Over how long the rates of content and of reading are averaged (faults D03, D04).
    pub progress_window_ms: u64,
    /// Octets a second of request content, at least.
    pub content_rate_min: u64,
    /// Octets a second that a reader must take, at least, while there is something to send.
    pub send_rate_min: u64,
    /// A connection that closes in stages is read from so long (9112-9.6-R1).
    pub linger_timeout_ms: u64,
    /// … and no longer than this after the last octet.
    pub linger_idle_timeout_ms: u64,
    /// Octets read away from a connection that closes in stages (fault D26).
    pub linger_bytes_max: u64,
    /// How long running exchanges get when the server stops.
    pub stop_timeout_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            head_timeout_ms: 10_000,
            head_timeout_extended_ms: 30_000,
            head_rate_min: 500,
            handshake_timeout_ms: 5_000,
            idle_timeout_ms: 60_000,
            progress_window_ms: 30_000,
            content_rate_min: 1024,
            send_rate_min: 1024,
            linger_timeout_ms: 10_000,
            linger_idle_timeout_ms: 2_000,
            linger_bytes_max: 64 * 1024 * 1024,
            stop_timeout_ms: 30_000,
        }
    }
}

/// Limits of the session, beside those of the protocol engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// Content of a request, in octets; 413 beyond. Handlers may set lower ones.
    pub content_bytes_max: u64,
    /// Content on its way between the connection and a handler, each way.
    pub pipe_bytes_max: usize,
    /// Pipelined safe requests of one connection that are worked on at once (9112-9.3.2-02a).
    pub concurrent_requests_max: usize,
    /// Octets of responses gathered before they are written.
    pub out_bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            content_bytes_max: 1 << 40,
            pipe_bytes_max: 64 * 1024,
            concurrent_requests_max: 8,
            out_bytes_max: 128 * 1024,
        }
    }
}

/// Everything that decides how connections are served; one per worker, replaced as a whole on reload.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The protocol engine's.
    pub protocol: Arc<Config>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Limits of the session.
    pub limits: SessionLimits,
    /// Requests at work and in the queue, of the whole process.
    pub overload: overload::Limits,
}

/// Octets read at a time.
const INPUT_BYTES: usize = 64 * 1024;
/// Buffers kept for reuse.
const SCRATCH_KEPT: usize = 4;
/// An output buffer that grew beyond this is not kept.
const OUT_KEPT_BYTES: usize = 256 * 1024;
/// Lines that took more are not kept.
const ADDED_KEPT_BYTES: usize = 1024;

/// Buffers of one round of a connection. Between rounds a connection holds none.
pub(crate) struct Scratch {
    pub input: Vec<u8>,
    pub out: Vec<u8>,
    pub request: Request,
}

/// The state of a worker.
pub struct Worker {
    service: RefCell<Rc<Service>>,
    settings: RefCell<Rc<Settings>>,
    ledger: Rc<Ledger>,
    #[expect(clippy::vec_box, reason = "a session takes its box away and brings it back")]
    scratch: RefCell<Vec<Box<Scratch>>>,
    added: RefCell<Vec<Fields>>,
    date: RefCell<DateLine>,
    log: RefCell<Option<Rc<access_log::Worker>>>,
    recorder: Recorder,
    connections: Cell<u64>,
    nobody: Rc<Peer>,
    hot: RefCell<Hot>,
    gate: Rc<Gate>,
}

struct DateLine {
    seconds: i64,
    line: [u8; 37],
    checked_ms: u64,
}

impl Worker {
    /// A worker that serves with this. What `settings` say of overload is this worker's share.
    pub fn new(
        service: Rc<Service>,
        settings: Settings,
        ledger: Rc<Ledger>,
        log: Option<access_log::Worker>,
        recorder: Recorder,
    ) -> Rc<Worker> {
        let gate = Gate::new(settings.overload);
        let nobody = Rc::new(Peer {
            address: None,
            scheme: Scheme::Http,
            local_port: 0,
            listener: None,
            server_name: None,
        });
        Rc::new(Worker {
            service: RefCell::new(service),
            settings: RefCell::new(Rc::new(settings)),
            ledger,
            scratch: RefCell::new(Vec::new()),
            added: RefCell::default(),
            date: RefCell::new(DateLine { seconds: i64::MIN, line: [0; 37], checked_ms: u64::MAX }),
            log: RefCell::new(log.map(Rc::new)),
            recorder,
            connections: Cell::new(0),
            nobody,
            hot: RefCell::new(Hot::new(HotLimits::default(), seed())),
            gate,
        })
    }

    /// The service in force.
    pub fn service(&self) -> Rc<Service> {
        self.service.borrow().clone()
    }

    /// The settings in force.
    pub fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    /// Replaces service and settings; connections take them between requests.
    pub fn replace(&self, service: Rc<Service>, settings: Settings) {
        *self.service.borrow_mut() = service;
        self.gate.set_limits(settings.overload);
        *self.settings.borrow_mut() = Rc::new(settings);
    }

    /// The gate before handlers that have none of their own. What went through it is counted on over a change.
    pub fn gate(&self) -> &Rc<Gate> {
        &self.gate
    }

    /// Requests that are worked on, and that wait, at all gates.
    pub(crate) fn queued(&self) -> (usize, usize) {
        let service = self.service.borrow();
        let gates = service.gates().iter().map(|gate| gate.counts());
        gates.fold(self.gate.counts(), |sum, of| (sum.0 + of.0, sum.1 + of.1))
    }

    /// The ledger of its connections.
    pub fn ledger(&self) -> &Rc<Ledger> {
        &self.ledger
    }

    /// Whether any exchange is logged.
    pub(crate) fn is_logged(&self) -> bool {
        self.log.borrow().is_some() || self.service.borrow().site_logs().any
    }

    /// Whether any log tells times.
    pub(crate) fn is_log_timed(&self) -> bool {
        self.log.borrow().as_ref().is_some_and(|log| log.is_timed())
            || self.service.borrow().site_logs().timed
    }

    /// The log of an exchange, if it has one.
    pub(crate) fn log_of(&self, notes: Option<&Notes>) -> Option<Rc<access_log::Worker>> {
        match notes.map(|notes| &notes.log) {
            Some(SiteLog::Own(log)) => Some(log.clone()),
            Some(SiteLog::Off) => None,
            Some(SiteLog::Main) | None => self.log.borrow().clone(),
        }
    }

    /// Writes the lines of further exchanges there.
    pub fn replace_log(&self, log: Option<access_log::Worker>) {
        *self.log.borrow_mut() = log.map(Rc::new);
    }

    /// Its end of the figures.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// For how many exchanges the one that begins now shall be timed; 0 for none.
    #[inline]
    pub(crate) fn weigh(&self) -> u32 {
        self.recorder.weigh(self.ledger.now_ms())
    }

    /// What the files handler needs: memory, time and randomness.
    pub(crate) fn lend_to_files(&self) -> files::Worker<'_> {
        files::Worker { hot: &self.hot, now: self.now(), now_ms: self.ledger.now_ms(), random }
    }

    /// A number for a new connection.
    pub(crate) fn next_connection(&self) -> u64 {
        let n = self.connections.get() + 1;
        self.connections.set(n);
        n
    }

    pub(crate) fn take_scratch(&self) -> Box<Scratch> {
        self.scratch.borrow_mut().pop().unwrap_or_else(|| {
            Box::new(Scratch {
                input: vec![0; INPUT_BYTES],
                out: Vec::with_capacity(INPUT_BYTES),
                request: Request::new(self.nobody.clone()),
            })
        })
    }

    pub(crate) fn return_scratch(&self, mut scratch: Box<Scratch>) {
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < SCRATCH_KEPT && scratch.out.capacity() <= OUT_KEPT_BYTES {
            scratch.out.clear();
            kept.push(scratch);
        }
    }

    /// Lines to add to stored ones, in memory that was used for others before.
    pub(crate) fn take_added(&self) -> Fields {
        // Room for Age and one line more.
        self.added.borrow_mut().pop().unwrap_or_else(|| Fields::with_capacity(64))
    }

    pub(crate) fn return_added(&self, mut added: Fields) {
        let mut kept = self.added.borrow_mut();
        if kept.len() < SCRATCH_KEPT && added.wire().len() <= ADDED_KEPT_BYTES {
            added.clear();
            kept.push(added);
        }
    }

    /// The wall time, as of the last sweep.
    pub(crate) fn now(&self) -> HttpDate {
        self.with_date(|_| ());
        HttpDate(self.date.borrow().seconds)
    }

    /// Calls `f` with the line `Date: … CRLF` (9110-6.6.1-02a). The clock is asked once a sweep.
    #[inline]
    pub(crate) fn with_date<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let mut date = self.date.borrow_mut();
        let now_ms = self.ledger.now_ms();
        if date.checked_ms != now_ms {
            date.checked_ms = now_ms;
            let seconds = clock::unix_seconds();
            if seconds != date.seconds {
                date.seconds = seconds;
                date.line[..6].copy_from_slice(b"Date: ");
                date.line[6..35].copy_from_slice(&HttpDate(seconds).imf());
                date.line[35..].copy_from_slice(b"\r\n");
            }
        }
        f(&date.line)
    }
}

/// 128 random bits.
fn random() -> std::io::Result<[u8; 16]> {
    eleven_net::random_bytes()
}

/// Makes the hash of hot files unpredictable (fault D37).
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

/// What a connection refused for want of room is told.
pub(crate) fn busy_response() -> Bytes {
    Bytes::from_static(
        b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n\
          Content-Type: text/plain; charset=utf-8\r\nContent-Length: 30\r\n\r\nToo many connections for now.\n",
    )
}
