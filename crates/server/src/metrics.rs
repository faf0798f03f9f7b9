//! What the server counts and tells of itself: the one place that the admin listener reads. Kept over a reload; nothing of
//! it is on the way of another worker's request.
//!
//! Each worker counts into figures of its own, with plain loads and stores ([`Count`]); they are added up when somebody
//! asks. What would cost time with every request (reading a clock twice, looking a path up) is done for the first
//! `EXACT_A_TICK` exchanges of each quarter of a second, and beyond them for one in `SPARSE`, which then counts for
//! all of these: exact where there is little traffic, and cheap where there is much. Labels come from the configuration
//! and from this program, never from clients, and their number is bounded.

pub mod exposition;
mod histogram;
mod process;
mod status;
mod top;

use crate::access_log::AccessLog;
use crate::apps::Application;
use crate::proxy::GatewayPlan;
use crate::proxy::upstream::Shared;
use crate::record::Record;
use crate::spans::Spans;
use eleven_cache::Cache;
use eleven_net::clock;
use histogram::{Histogram, Snapshot};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use top::Top;

/// Exchanges a tick of the ledger (250 ms) and worker that are timed each.
const EXACT_A_TICK: u32 = 64;
/// Beyond them, one of so many is timed and counts for all.
const SPARSE: u32 = 16;
/// Pairs of site and handler counted apart, per worker; the others are counted together.
const SERIES_MAX: usize = 256;
/// Words of a kind counted apart, per worker; the others are counted together.
const WORDS_MAX: usize = 128;
/// Servers behind gateways whose latency is kept apart, per worker; further ones are not.
const UPSTREAMS_MAX: usize = 256;
/// What further series and words are counted as.
const OTHER: &str = "other";
/// Refusals remembered, per worker.
const REFUSALS_KEPT: usize = 32;
/// Refusals remembered a tick and worker, so that a flood of them costs little.
const REFUSALS_A_TICK: u32 = 8;
/// Octets of a target remembered with a refusal.
const REFUSED_TARGET_BYTES_MAX: usize = 128;
/// Seconds of history kept.
const HISTORY_SECONDS: usize = 300;
/// Seconds that "recent" percentiles are of.
const RECENT_SECONDS: usize = 10;
/// How often the counts of busy paths are halved, in seconds.
const FADE_SECONDS: u64 = 60;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Figures that a panic left half-way are still figures.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that one thread counts up and any may read.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only one thread may: it is no read-modify-write, and so costs no more than a plain variable.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted with every exchange.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exchange<'a> {
    /// Name of the site; empty for none.
    pub site: &'a str,
    /// Kind of handler; empty if none was reached.
    pub handler: &'static str,
    /// Final status code; 0 if none was sent.
    pub status: u16,
    /// All octets received for the exchange.
    pub received_bytes: u64,
    /// All octets sent for the exchange.
    pub sent_bytes: u64,
    /// Why it was refused or cut short.
    pub refused: Option<&'static str>,
    /// Verdict of the cache; empty where none was asked.
    pub cache: &'static str,
    /// Why the cache did not answer by itself; empty if it did.
    pub cache_reason: &'static str,
}

/// Exchanges of one site and handler.
#[derive(Debug)]
struct Series {
    site: Box<str>,
    handler: &'static str,
    /// By the first digit of the status; 0 where none was sent.
    classes: [Count; 6],
    received_bytes: Count,
    sent_bytes: Count,
    latency: Histogram,
}

/// Words of a kind, with how often each came.
#[derive(Debug, Default)]
struct Words(Mutex<Vec<Arc<(&'static str, Count)>>>);

/// What one worker counted.
#[derive(Debug)]
struct Figures {
    series: Mutex<Vec<Arc<Series>>>,
    /// How long servers behind gateways took up to the head of their response.
    upstreams: Mutex<Vec<Arc<(Box<str>, Histogram)>>>,
    /// By status code, from 100.
    statuses: Box<[Count]>,
    accepted: Count,
    handshakes: Count,
    /// Connections by phase, as of the last second.
    phases: [Count; PHASES.len()],
    /// Requests worked on and waiting, as of the last second.
    working: Count,
    waiting: Count,
    /// Requests that waited, and how long together.
    queued: Count,
    queued_us: Count,
    closed: Words,
    refused: Words,
    refused_connections: Words,
    failed_handshakes: Words,
    cache: Words,
    cache_reasons: Words,
    top: Mutex<Top>,
    refusals: Mutex<VecDeque<Refusal>>,
}

/// Names of the phases of connections, in the order of the ledger.
const PHASES: [&str; 7] = ["idle", "head", "content", "handling", "sending", "lingering", "tunnel"];

impl Default for Figures {
    fn default() -> Figures {
        Figures {
            series: Mutex::default(),
            upstreams: Mutex::default(),
            statuses: (100..600).map(|_| Count::default()).collect(),
            accepted: Count::default(),
            handshakes: Count::default(),
            phases: Default::default(),
            working: Count::default(),
            waiting: Count::default(),
            queued: Count::default(),
            queued_us: Count::default(),
            closed: Words::default(),
            refused: Words::default(),
            refused_connections: Words::default(),
            failed_handshakes: Words::default(),
            cache: Words::default(),
            cache_reasons: Words::default(),
            top: Mutex::default(),
            refusals: Mutex::default(),
        }
    }
}

/// A request that was refused, as it is shown to people.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    time_unix_ms: i64,
    client: Option<IpAddr>,
    site: Box<str>,
    method: Box<[u8]>,
    /// Without its query, which may hold secrets (fault L05).
    target: Box<[u8]>,
    status: u16,
    reason: &'static str,
}

/// One worker's end of the figures: counts without waiting for anybody.
#[derive(Debug)]
pub struct Recorder {
    figures: Arc<Figures>,
    series: RefCell<Vec<Arc<Series>>>,
    last: Cell<usize>,
    tick: Cell<u64>,
    in_tick: Cell<u32>,
    refusals_in_tick: Cell<u32>,
}

impl Recorder {
    fn new(figures: Arc<Figures>) -> Recorder {
        Recorder {
            figures,
            series: RefCell::default(),
            last: Cell::new(0),
            tick: Cell::new(u64::MAX),
            in_tick: Cell::new(0),
            refusals_in_tick: Cell::new(0),
        }
    }

    /// For how many exchanges the one that begins now shall be timed: 0 if another one stands for it. `tick` changes
    /// a few times a second.
    #[inline]
    pub fn weigh(&self, tick: u64) -> u32 {
        if self.tick.get() != tick {
            self.tick.set(tick);
            self.in_tick.set(0);
            self.refusals_in_tick.set(0);
        }
        let n = self.in_tick.get() + 1;
        self.in_tick.set(n);
        match n {
            1..=EXACT_A_TICK => 1,
            n if n % SPARSE == 0 => SPARSE,
            _ => 0,
        }
    }

    /// Counts an exchange.
    #[inline]
    pub fn count(&self, exchange: &Exchange<'_>) {
        let figures = &self.figures;
        self.with_series(exchange.site, exchange.handler, |series| {
            series.classes[usize::from(exchange.status / 100).min(5)].add(1);
            series.received_bytes.add(exchange.received_bytes);
            series.sent_bytes.add(exchange.sent_bytes);
        });
        if let Some(count) = figures.statuses.get(usize::from(exchange.status).wrapping_sub(100)) {
            count.add(1);
        }
        if let Some(reason) = exchange.refused {
            figures.refused.add(reason);
        }
        if !exchange.cache.is_empty() {
            figures.cache.add(exchange.cache);
            if !exchange.cache_reason.is_empty() {
                figures.cache_reasons.add(exchange.cache_reason);
            }
        }
    }

    /// Notes how long an exchange took and for what, on behalf of `weight` of them.
    pub fn sample(&self, record: &Record<'_>, handler: &'static str, weight: u32) {
        if weight > 0 && !record.method.is_empty() {
            self.with_series(record.site, handler, |series| series.latency.add(record.duration_us, weight));
            let path = without_query(record.target);
            lock(&self.figures.top).add(&[record.site.as_bytes(), path].join(&b' '), weight);
            // Of a forward proxy the servers are the clients' choice.
            if let Some(head_us) = record.attempts.and_then(|attempts| attempts.head_us)
                && handler != "forward"
                && !record.upstream.is_empty()
            {
                self.upstream(record.upstream, head_us, weight);
            }
        }
        if let Some(reason) = record.refused {
            self.remember(record, reason);
        }
    }

    fn upstream(&self, name: &str, head_us: u64, weight: u32) {
        let mut upstreams = lock(&self.figures.upstreams);
        match upstreams.iter().find(|known| *known.0 == *name) {
            Some(known) => known.1.add(head_us, weight),
            None if upstreams.len() < UPSTREAMS_MAX => {
                let known = Arc::new((name.into(), Histogram::default()));
                known.1.add(head_us, weight);
                upstreams.push(known);
            }
            None => {}
        }
    }

    fn remember(&self, record: &Record<'_>, reason: &'static str) {
        let n = self.refusals_in_tick.get();
        if n >= REFUSALS_A_TICK {
            return;
        }
        self.refusals_in_tick.set(n + 1);
        let path = without_query(record.target);
        let refusal = Refusal {
            time_unix_ms: record.time_unix_ms,
            client: record.client,
            site: record.site.into(),
            method: record.method.into(),
            target: path[..path.len().min(REFUSED_TARGET_BYTES_MAX)].into(),
            status: record.status,
            reason,
        };
        let mut kept = lock(&self.figures.refusals);
        if kept.len() == REFUSALS_KEPT {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    #[inline]
    fn with_series(&self, site: &str, handler: &'static str, count: impl FnOnce(&Series)) {
        let known = self.series.borrow();
        if let Some(series) = known.get(self.last.get())
            && series.is_of(site, handler)
        {
            return count(series);
        }
        let place = known.iter().position(|series| series.is_of(site, handler));
        drop(known);
        let place = place.unwrap_or_else(|| self.new_series(site, handler));
        self.last.set(place);
        if let Some(series) = self.series.borrow().get(place) {
            count(series);
        }
    }

    #[cold]
    fn new_series(&self, site: &str, handler: &'static str) -> usize {
        let mut known = self.series.borrow_mut();
        let full = known.len() >= SERIES_MAX;
        let (site, handler) = if full { (OTHER, OTHER) } else { (site, handler) };
        if full && let Some(place) = known.iter().position(|series| series.is_of(site, handler)) {
            return place;
        }
        let series = Arc::new(Series {
            site: site.into(),
            handler,
            classes: Default::default(),
            received_bytes: Count::default(),
            sent_bytes: Count::default(),
            latency: Histogram::default(),
        });
        lock(&self.figures.series).push(series.clone());
        known.push(series);
        known.len() - 1
    }

    /// Counts a connection that came.
    pub fn accepted(&self) {
        self.figures.accepted.add(1);
    }

    /// Counts a connection that came and was not let in.
    pub fn refused_connection(&self, why: &'static str) {
        self.figures.refused_connections.add(why);
    }

    /// Counts the end of a connection.
    pub fn closed(&self, why: &'static str) {
        self.figures.closed.add(why);
    }

    /// Counts a TLS handshake, with the reason if it failed.
    pub fn handshake(&self, result: Result<(), &'static str>) {
        match result {
            Ok(()) => self.figures.handshakes.add(1),
            Err(why) => self.figures.failed_handshakes.add(why),
        }
    }

    /// Counts a request that waited for its turn.
    pub fn queued(&self, how_long: Duration) {
        self.figures.queued.add(1);
        self.figures.queued_us.add(u64::try_from(how_long.as_micros()).unwrap_or(u64::MAX));
    }

    /// Says how many connections are in which phase, and how many requests are worked on and wait.
    pub fn publish(&self, phases: [usize; PHASES.len()], (working, waiting): (usize, usize)) {
        self.figures.working.set(working as u64);
        self.figures.waiting.set(waiting as u64);
        for (count, now) in self.figures.phases.iter().zip(phases) {
            count.set(now as u64);
        }
    }
}

impl Series {
    #[inline]
    fn is_of(&self, site: &str, handler: &str) -> bool {
        *self.site == *site && (std::ptr::eq(self.handler, handler) || self.handler == handler)
    }
}

impl Words {
    fn add(&self, word: &'static str) {
        let mut words = lock(&self.0);
        let full = words.len() >= WORDS_MAX;
        let place = words.iter().position(|known| is_same(known.0, word));
        let word = if full && place.is_none() { OTHER } else { word };
        match place.or_else(|| words.iter().position(|known| known.0 == word)) {
            Some(place) => words[place].1.add(1),
            None => {
                let known = Arc::new((word, Count::default()));
                known.1.add(1);
                words.push(known);
            }
        }
    }
}

/// Most words are the very ones that were counted before.
fn is_same(known: &str, word: &str) -> bool {
    std::ptr::eq(known, word) || known == word
}

fn without_query(target: &[u8]) -> &[u8] {
    target.split(|&b| b == b'?').next().unwrap_or_default()
}

/// What can be asked for its own figures, as of the plan in force.
#[derive(Default, Clone)]
pub struct Sources {
    /// Gateways.
    pub gateways: Vec<Arc<GatewayPlan>>,
    /// Applications.
    pub applications: Vec<Arc<Application>>,
    /// The store of stored responses.
    pub cache: Option<Arc<Cache>>,
    /// The access log.
    pub log: Option<Arc<AccessLog>>,
    /// Spans on their way to a collector.
    pub spans: Option<Arc<Spans>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sources({} gateways, {} applications)", self.gateways.len(), self.applications.len())
    }
}

/// The servers behind the gateways, by name.
fn servers_of(sources: &Sources) -> Vec<(String, Arc<Shared>)> {
    let gateways = sources.gateways.iter();
    gateways
        .flat_map(|plan| plan.servers.iter().map(ToString::to_string).zip(plan.shared.iter().cloned()))
        .collect()
}

/// A certificate that is shown to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// What it is for.
    pub names: Vec<String>,
    /// Its last second, in seconds since 1970.
    pub not_after_unix_s: i64,
    /// The OCSP response for it, if one was given: until when it is stapled, or that it is not.
    pub ocsp_until_unix_s: Option<Option<i64>>,
}

/// Everything that was counted, at a moment.
#[derive(Debug, Clone)]
struct Totals {
    at: Instant,
    classes: [u64; 6],
    received_bytes: u64,
    sent_bytes: u64,
    accepted: u64,
    cache_hits: u64,
    cache_asked: u64,
    latency: Snapshot,
}

/// A second of history.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    unix_s: i64,
    /// Over how long, in seconds.
    seconds: f64,
    classes: [u64; 6],
    received_bytes: u64,
    sent_bytes: u64,
    accepted: u64,
    cache_hits: u64,
    cache_asked: u64,
    p50_us: Option<u64>,
    p99_us: Option<u64>,
}

#[derive(Debug, Default)]
struct History {
    totals: VecDeque<Totals>,
    points: VecDeque<Point>,
    seconds: u64,
}

/// The figures of a server, shared by its workers and the admin listener.
#[derive(Debug, Default)]
pub struct Metrics {
    started_unix_s: AtomicI64,
    draining: AtomicBool,
    workers: Mutex<Vec<Arc<Figures>>>,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    reloaded_unix_s: AtomicI64,
    sources: Mutex<Sources>,
    certificates: Mutex<Vec<CertificateInfo>>,
    history: Mutex<History>,
}

impl Metrics {
    /// Says when the server started.
    pub(crate) fn started(&self) {
        self.started_unix_s.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    /// One worker's end.
    pub fn recorder(&self) -> Recorder {
        let figures = Arc::new(Figures::default());
        lock(&self.workers).push(figures.clone());
        Recorder::new(figures)
    }

    /// Says that the server is finishing: health checks fail from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is finishing.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a change of the configuration, taken or refused.
    pub fn reloaded(&self, taken: bool) {
        if taken {
            self.reloads.fetch_add(1, Ordering::Relaxed);
            self.reloaded_unix_s.store(clock::unix_seconds(), Ordering::Relaxed);
        } else {
            self.failed_reloads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The store of responses of the plan in force.
    pub fn stored_responses(&self) -> Option<Arc<Cache>> {
        lock(&self.sources).cache.clone()
    }

    /// Says what has figures of its own from now on.
    pub fn set_sources(&self, sources: Sources) {
        let mut current = lock(&self.sources);
        // A server that is in the new plan as well goes on counting where it was.
        let mut before = servers_of(&current);
        let new = servers_of(&sources);
        before.retain(|(_, before)| !new.iter().any(|(_, shared)| Arc::ptr_eq(before, shared)));
        for (name, shared) in &new {
            for (_, before) in before.extract_if(.., |(known, _)| known == name) {
                shared.asked.fetch_add(before.asked.load(Ordering::Relaxed), Ordering::Relaxed);
                shared.failed.fetch_add(before.failed.load(Ordering::Relaxed), Ordering::Relaxed);
                shared.opened.fetch_add(before.opened.load(Ordering::Relaxed), Ordering::Relaxed);
                // An operator's switch, which a configuration knows nothing of.
                shared.draining.fetch_or(before.draining.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        *current = sources;
    }

    /// Turns an operator's switch for a server, in all gateways that have it; in how many.
    pub(crate) fn set_draining(&self, name: &str, draining: bool) -> usize {
        let servers = servers_of(&lock(&self.sources));
        let named = servers.iter().filter(|(known, _)| known == name);
        named.map(|(_, shared)| shared.draining.store(draining, Ordering::Relaxed)).count()
    }

    /// What the cache did with requests since the start, in the words of X-Cache.
    pub fn cache_verdicts(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.sum_words(|worker| &worker.cache)
    }

    /// The store of stored responses that is in force.
    pub fn store(&self) -> Option<Arc<Cache>> {
        lock(&self.sources).cache.clone()
    }

    /// Says which certificates are shown to clients from now on.
    pub fn set_certificates(&self, certificates: Vec<CertificateInfo>) {
        *lock(&self.certificates) = certificates;
    }

    fn workers(&self) -> Vec<Arc<Figures>> {
        lock(&self.workers).clone()
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            at: clock::now(),
            classes: [0; 6],
            received_bytes: 0,
            sent_bytes: 0,
            accepted: 0,
            cache_hits: 0,
            cache_asked: 0,
            latency: Snapshot::default(),
        };
        for worker in self.workers() {
            totals.accepted += worker.accepted.get();
            for series in lock(&worker.series).iter() {
                for (sum, count) in totals.classes.iter_mut().zip(&series.classes) {
                    *sum += count.get();
                }
                totals.received_bytes += series.received_bytes.get();
                totals.sent_bytes += series.sent_bytes.get();
                series.latency.add_to(&mut totals.latency);
            }
            for word in lock(&worker.cache.0).iter() {
                totals.cache_asked += word.1.get();
                if matches!(word.0, "HIT" | "STALE" | "VALIDATED") {
                    totals.cache_hits += word.1.get();
                }
            }
        }
        totals
    }

    /// Adds a point to the history. To be called once a second.
    fn note_second(&self) {
        let now = self.totals();
        let mut history = lock(&self.history);
        history.seconds += 1;
        if let Some(before) = history.totals.back() {
            let latency = now.latency.since(&before.latency);
            let mut classes = [0; 6];
            for (class, (now, before)) in classes.iter_mut().zip(now.classes.iter().zip(before.classes)) {
                *class = now - before;
            }
            let point = Point {
                unix_s: clock::unix_seconds(),
                seconds: now.at.saturating_duration_since(before.at).as_secs_f64().max(0.001),
                classes,
                received_bytes: now.received_bytes - before.received_bytes,
                sent_bytes: now.sent_bytes - before.sent_bytes,
                accepted: now.accepted - before.accepted,
                cache_hits: now.cache_hits - before.cache_hits,
                cache_asked: now.cache_asked - before.cache_asked,
                p50_us: latency.quantile_us(0.5),
                p99_us: latency.quantile_us(0.99),
            };
            if history.points.len() == HISTORY_SECONDS {
                history.points.pop_front();
            }
            history.points.push_back(point);
        }
        if history.totals.len() > RECENT_SECONDS {
            history.totals.pop_front();
        }
        history.totals.push_back(now);
        if history.seconds.is_multiple_of(FADE_SECONDS) {
            for worker in self.workers() {
                lock(&worker.top).fade();
            }
        }
    }

    /// Keeps the history, a point a second, as long as the figures are somebody's. Runs once, on the admin worker.
    pub(crate) async fn keep_history(metrics: std::sync::Weak<Metrics>) {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Some(metrics) = metrics.upgrade() else { return };
            metrics.note_second();
        }
    }
}

#[cfg(test)]
mod tests;
