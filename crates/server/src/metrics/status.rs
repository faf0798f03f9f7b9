//! The figures as one JSON object, which the page and `eleven top` show. Everything that clients chose is text in it
//! and nothing else: whoever shows it has to escape it for where it is shown.

use super::exposition::CLASSES;
use super::process::Process;
use super::{CertificateInfo, Metrics, PHASES, Point, Refusal, Totals, lock, servers_of};
use eleven_net::clock;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

/// Busy paths shown.
const TOP_SHOWN: usize = 12;
/// Refusals shown.
const REFUSALS_SHOWN: usize = 24;

/// A server behind a gateway.
pub(super) struct ServerState {
    pub name: String,
    pub healthy: bool,
    pub draining: bool,
    pub ejected: bool,
    pub active: u32,
    pub asked: u64,
    pub failed: u64,
    pub opened: u64,
    pub idle: u64,
    pub latency: super::histogram::Snapshot,
}

/// What happened in the last seconds.
pub(super) struct Recent {
    pub seconds: f64,
    pub requests: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub latency: super::histogram::Snapshot,
}

impl Metrics {
    pub(super) fn recent(&self) -> Option<Recent> {
        let history = lock(&self.history);
        let (first, last) = (history.totals.front()?, history.totals.back()?);
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        let requests = |totals: &Totals| totals.classes.iter().sum::<u64>();
        (seconds > 0.0).then(|| Recent {
            seconds,
            requests: requests(last) - requests(first),
            received_bytes: last.received_bytes - first.received_bytes,
            sent_bytes: last.sent_bytes - first.sent_bytes,
            latency: last.latency.since(&first.latency),
        })
    }

    /// The servers behind the gateways; a server of several gateways once.
    pub(super) fn servers(&self) -> Vec<ServerState> {
        let now = clock::now();
        let mut servers: BTreeMap<String, ServerState> = BTreeMap::new();
        for (name, shared) in servers_of(&lock(&self.sources)) {
            let state = servers.entry(name.clone()).or_insert(ServerState {
                name,
                healthy: true,
                draining: false,
                ejected: false,
                active: 0,
                asked: 0,
                failed: 0,
                opened: 0,
                idle: 0,
                latency: Default::default(),
            });
            state.healthy &= shared.healthy.load(Ordering::Relaxed);
            state.draining |= shared.draining.load(Ordering::Relaxed);
            state.ejected |= shared.ejected_for(now).is_some();
            state.active += shared.active.load(Ordering::Relaxed);
            state.asked += shared.asked.load(Ordering::Relaxed);
            state.failed += shared.failed.load(Ordering::Relaxed);
            state.opened += shared.opened.load(Ordering::Relaxed);
            state.idle += shared.idle.load(Ordering::Relaxed).max(0) as u64;
        }
        for worker in self.workers() {
            for known in lock(&worker.upstreams).iter() {
                if let Some(state) = servers.get_mut(&*known.0) {
                    known.1.add_to(&mut state.latency);
                }
            }
        }
        servers.into_values().collect()
    }

    /// Everything, as one object.
    pub fn status(&self) -> Value {
        let mut status = self.status_now();
        let history: Vec<Value> = lock(&self.history).points.iter().map(point).collect();
        status["history"] = history.into();
        status
    }

    /// The same without what a reader of earlier ones has already: of the history the last second only.
    pub fn status_now(&self) -> Value {
        let now = clock::unix_seconds();
        let sums = self.sum_series();
        let mut classes = [0; 6];
        sums.values().for_each(|sum| classes.iter_mut().zip(sum.classes).for_each(|(a, b)| *a += b));
        let mut latency = super::histogram::Snapshot::default();
        self.workers().iter().for_each(|worker| {
            lock(&worker.series).iter().for_each(|series| series.latency.add_to(&mut latency));
        });
        let sites: Vec<Value> = sums
            .iter()
            .map(|((site, handler), sum)| {
                json!({
                    "site": site, "handler": handler,
                    "requests": sum.classes.iter().sum::<u64>(),
                    "classes": by_class(&sum.classes),
                    "received_bytes": sum.received_bytes, "sent_bytes": sum.sent_bytes,
                    "p50_us": sum.latency.quantile_us(0.5), "p99_us": sum.latency.quantile_us(0.99),
                })
            })
            .collect();
        let process = Process::now();
        let point = lock(&self.history).points.back().map(point);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now_unix_s": now,
            "started_unix_s": self.started_unix_s.load(Ordering::Relaxed),
            "draining": self.is_draining(),
            "requests": {
                "total": classes.iter().sum::<u64>(),
                "classes": by_class(&classes),
                "statuses": self.statuses(),
                "received_bytes": sums.values().map(|sum| sum.received_bytes).sum::<u64>(),
                "sent_bytes": sums.values().map(|sum| sum.sent_bytes).sum::<u64>(),
                "p50_us": latency.quantile_us(0.5), "p90_us": latency.quantile_us(0.9),
                "p99_us": latency.quantile_us(0.99),
            },
            "recent": self.recent().map(|recent| json!({
                "seconds": recent.seconds,
                "requests_per_s": recent.requests as f64 / recent.seconds,
                "received_bytes_per_s": recent.received_bytes as f64 / recent.seconds,
                "sent_bytes_per_s": recent.sent_bytes as f64 / recent.seconds,
                "p50_us": recent.latency.quantile_us(0.5), "p90_us": recent.latency.quantile_us(0.9),
                "p99_us": recent.latency.quantile_us(0.99),
            })),
            "point": point,
            "sites": sites,
            "busiest": self.busiest(),
            "connections": {
                "accepted": self.sum(|worker| &worker.accepted),
                "states": PHASES.iter().enumerate()
                    .map(|(index, phase)| ((*phase).to_owned(), self.sum(|worker| &worker.phases[index]).into()))
                    .collect::<Map<String, Value>>(),
                "closed": self.sum_words(|worker| &worker.closed),
                "refused": self.sum_words(|worker| &worker.refused_connections),
            },
            "tls": {
                "handshakes": self.sum(|worker| &worker.handshakes),
                "failed": self.sum_words(|worker| &worker.failed_handshakes),
            },
            "certificates": lock(&self.certificates).iter().map(|it| certificate(it, now)).collect::<Vec<_>>(),
            "cache": self.cache(),
            "queue": {
                "working": self.sum(|worker| &worker.working),
                "waiting": self.sum(|worker| &worker.waiting),
                "waited": self.sum(|worker| &worker.queued),
            },
            "upstreams": self.upstreams(),
            "applications": self.applications(),
            "refusals": {
                "reasons": self.sum_words(|worker| &worker.refused),
                "last": self.last_refusals(),
            },
            "reloads": {
                "taken": self.reloads.load(Ordering::Relaxed),
                "refused": self.failed_reloads.load(Ordering::Relaxed),
                "last_unix_s": self.reloaded_unix_s.load(Ordering::Relaxed),
            },
            "log_lines_dropped": lock(&self.sources).log.as_ref().map(|log| log.dropped()),
            "process": {
                "resident_bytes": process.resident_bytes, "cpu_seconds": process.cpu_seconds,
                "threads": process.threads, "open_files": process.open_files,
                "open_files_max": process.open_files_max,
            },
        })
    }

    fn statuses(&self) -> Map<String, Value> {
        let workers = self.workers();
        (100..600usize)
            .filter_map(|code| {
                let count: u64 = workers.iter().map(|worker| worker.statuses[code - 100].get()).sum();
                (count > 0).then(|| (code.to_string(), count.into()))
            })
            .collect()
    }

    fn busiest(&self) -> Vec<Value> {
        let mut sums: HashMap<Box<[u8]>, u64> = HashMap::new();
        for worker in self.workers() {
            lock(&worker.top).add_to(&mut sums);
        }
        let mut most: Vec<_> = sums.into_iter().filter(|(_, count)| *count > 0).collect();
        most.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        most.truncate(TOP_SHOWN);
        most.iter()
            .map(|(name, count)| {
                let at = name.iter().position(|&b| b == b' ').unwrap_or(0);
                json!({ "site": text(&name[..at]), "path": text(&name[at + 1..]), "requests": count })
            })
            .collect()
    }

    fn cache(&self) -> Option<Value> {
        let usage = lock(&self.sources).cache.as_ref().map(|cache| cache.usage());
        let verdicts = self.sum_words(|worker| &worker.cache);
        if usage.is_none() && verdicts.is_empty() {
            return None;
        }
        Some(json!({
            "verdicts": verdicts,
            "forwarded": self.sum_words(|worker| &worker.cache_reasons),
            "usage": usage.map(|usage| json!({
                "memory_bytes": usage.memory_bytes, "memory_keys": usage.memory_keys,
                "disk_bytes": usage.disk_bytes, "disk_keys": usage.disk_keys,
                "corrupt": usage.corrupt, "errors": usage.errors,
            })),
        }))
    }

    /// The servers behind the gateways, and how they are.
    pub(crate) fn upstreams(&self) -> Vec<Value> {
        self.servers()
            .iter()
            .map(|server| {
                json!({
                    "name": server.name, "healthy": server.healthy, "draining": server.draining,
                    "ejected": server.ejected,
                    "active": server.active, "requests": server.asked, "failures": server.failed,
                    "opened": server.opened, "idle": server.idle,
                    "p50_us": server.latency.quantile_us(0.5), "p99_us": server.latency.quantile_us(0.99),
                })
            })
            .collect()
    }

    fn applications(&self) -> Vec<Value> {
        let applications = lock(&self.sources).applications.clone();
        applications
            .iter()
            .map(|application| {
                let numbers = application.numbers();
                json!({
                    "name": application.name(), "workers": numbers.workers,
                    "running": numbers.running, "waiting": numbers.waiting,
                })
            })
            .collect()
    }

    fn last_refusals(&self) -> Vec<Value> {
        let mut all: Vec<Refusal> =
            self.workers().iter().flat_map(|worker| lock(&worker.refusals).clone()).collect();
        all.sort_by_key(|refusal| std::cmp::Reverse(refusal.time_unix_ms));
        all.truncate(REFUSALS_SHOWN);
        all.iter().map(refusal).collect()
    }
}

/// Octets that a client sent, as text.
fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn by_class(classes: &[u64; 6]) -> Map<String, Value> {
    CLASSES
        .iter()
        .zip(classes)
        .filter(|(_, count)| **count > 0)
        .map(|(class, count)| ((*class).to_owned(), (*count).into()))
        .collect()
}

fn point(point: &Point) -> Value {
    json!({
        "unix_s": point.unix_s,
        "seconds": point.seconds,
        "classes": point.classes,
        "received_bytes": point.received_bytes, "sent_bytes": point.sent_bytes,
        "accepted": point.accepted,
        "cache_hits": point.cache_hits, "cache_asked": point.cache_asked,
        "p50_us": point.p50_us, "p99_us": point.p99_us,
    })
}

fn certificate(certificate: &CertificateInfo, now_unix_s: i64) -> Value {
    let left_s = certificate.not_after_unix_s - now_unix_s;
    json!({
        "names": certificate.names,
        "not_after_unix_s": certificate.not_after_unix_s,
        "days_left": left_s.div_euclid(86_400),
        "ocsp": certificate.ocsp_until_unix_s.map(|until| json!({ "stapled_until_unix_s": until })),
    })
}

fn refusal(refusal: &Refusal) -> Value {
    json!({
        "time_unix_ms": refusal.time_unix_ms,
        "client": refusal.client.map(|client| client.to_string()),
        "site": refusal.site,
        "method": text(&refusal.method),
        "target": text(&refusal.target),
        "status": refusal.status,
        "reason": refusal.reason,
    })
}
