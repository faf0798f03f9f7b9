//! The figures as text for scrapers: the text format of Prometheus 0.0.4, or OpenMetrics 1.0 to those that ask for it.
//! Written here, since the figures are added up at this moment from those of the workers and no registry holds them.

use super::process::Process;
use super::{Count, Metrics, PHASES, Words, lock};
use crate::metrics::histogram::Snapshot;
use eleven_semantics::{Fields, Known};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

/// Bounds of latencies that are exposed: powers of two, from 64 microseconds to 67 seconds.
const EXPONENTS: RangeInclusive<u32> = 6..=26;
/// Names of the classes of status codes.
pub(super) const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The text format of Prometheus.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Dialect {
    /// The one that a scraper asks for.
    pub fn of(fields: &Fields) -> Dialect {
        let asked = fields.list(Known::Accept).any(|range| {
            let mut parts = range.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"application/openmetrics-text"))
                && !parts.any(|parameter| parameter == b"q=0")
        });
        if asked { Dialect::OpenMetrics } else { Dialect::Prometheus }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Dialect::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Dialect::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family of samples is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

struct Writer {
    dialect: Dialect,
    out: String,
}

impl Writer {
    /// Begins a family. The name of a counter is given without `_total`.
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        // Prometheus names the samples, OpenMetrics the family.
        let suffix = if kind == Kind::Counter && self.dialect == Dialect::Prometheus { "_total" } else { "" };
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = write!(self.out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {word}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.out.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{label}=\"");
            escape(&mut self.out, text);
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// A counter or gauge of one sample.
    fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        let suffix = if kind == Kind::Counter { "_total" } else { "" };
        self.sample(&format!("{name}{suffix}"), &[], value);
    }

    /// The samples of one histogram.
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], latency: &Snapshot) {
        let count = latency.count().to_string();
        let steps = latency.cumulative(EXPONENTS);
        let steps = steps.iter().map(|(bound, below)| (seconds(*bound).to_string(), below.to_string()));
        for (bound, below) in steps.chain([("+Inf".to_owned(), count.clone())]) {
            self.sample(&format!("{name}_bucket"), &[labels, &[("le", &bound)]].concat(), below);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(latency.sum_us));
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// A counter of words.
    fn words(&mut self, name: &str, label: &str, help: &str, words: &BTreeMap<&'static str, u64>) {
        self.family(name, Kind::Counter, help);
        let name = format!("{name}_total");
        for (word, count) in words {
            self.sample(&name, &[(label, word)], count);
        }
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Microseconds in seconds.
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// Exchanges of one site and handler, over all workers.
#[derive(Default)]
pub(super) struct SeriesSum {
    pub classes: [u64; 6],
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub latency: Snapshot,
}

impl Metrics {
    pub(super) fn sum_series(&self) -> BTreeMap<(Box<str>, &'static str), SeriesSum> {
        let mut sums: BTreeMap<_, SeriesSum> = BTreeMap::new();
        for worker in self.workers() {
            for series in lock(&worker.series).iter() {
                let sum = sums.entry((series.site.clone(), series.handler)).or_default();
                sum.classes.iter_mut().zip(&series.classes).for_each(|(sum, count)| *sum += count.get());
                sum.received_bytes += series.received_bytes.get();
                sum.sent_bytes += series.sent_bytes.get();
                series.latency.add_to(&mut sum.latency);
            }
        }
        sums
    }

    pub(super) fn sum_words(&self, words: impl Fn(&super::Figures) -> &Words) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for worker in self.workers() {
            for word in lock(&words(&worker).0).iter() {
                *sums.entry(word.0).or_default() += word.1.get();
            }
        }
        sums
    }

    pub(super) fn sum(&self, count: impl Fn(&super::Figures) -> &Count) -> u64 {
        self.workers().iter().map(|worker| count(worker).get()).sum()
    }

    /// Everything, as text.
    pub fn exposition(&self, dialect: Dialect) -> String {
        let mut writer = Writer { dialect, out: String::with_capacity(16 * 1024) };
        let w = &mut writer;
        w.family("eleven_build_info", Kind::Gauge, "The program that runs.");
        w.sample("eleven_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.expose_exchanges(w);
        self.expose_connections(w);
        self.expose_queue(w);
        self.expose_cache(w);
        self.expose_upstreams(w);
        self.expose_applications(w);
        self.expose_operation(w);
        expose_process(w, self.started_unix_s.load(Ordering::Relaxed));
        if dialect == Dialect::OpenMetrics {
            writer.out.push_str("# EOF\n");
        }
        writer.out
    }

    fn expose_exchanges(&self, w: &mut Writer) {
        let sums = self.sum_series();
        w.family("eleven_requests", Kind::Counter, "Exchanges by site, handler and class of status.");
        for ((site, handler), sum) in &sums {
            for (class, count) in CLASSES.iter().zip(sum.classes).filter(|(_, count)| *count > 0) {
                let labels = [("site", &**site), ("handler", handler), ("class", class)];
                w.sample("eleven_requests_total", &labels, count);
            }
        }
        let name = "eleven_request_duration_seconds";
        w.family(name, Kind::Histogram, "From the complete head of a request to the end of its response.");
        for ((site, handler), sum) in &sums {
            w.histogram(name, &[("site", site), ("handler", handler)], &sum.latency);
        }
        let name = "eleven_request_duration_recent_seconds";
        w.family(
            name,
            Kind::Gauge,
            "Latencies of the last ten seconds that a share of exchanges stayed below.",
        );
        if let Some(recent) = self.recent() {
            for (label, share) in [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)] {
                if let Some(us) = recent.latency.quantile_us(share) {
                    w.sample(name, &[("quantile", label)], seconds(us));
                }
            }
        }
        w.family("eleven_received_bytes", Kind::Counter, "Octets received with requests.");
        for ((site, handler), sum) in &sums {
            let labels = [("site", &**site), ("handler", *handler)];
            w.sample("eleven_received_bytes_total", &labels, sum.received_bytes);
        }
        w.family("eleven_sent_bytes", Kind::Counter, "Octets sent with responses.");
        for ((site, handler), sum) in &sums {
            w.sample("eleven_sent_bytes_total", &[("site", &**site), ("handler", handler)], sum.sent_bytes);
        }
        let refused = self.sum_words(|worker| &worker.refused);
        w.words("eleven_refusals", "reason", "Requests refused, and responses cut short.", &refused);
    }

    fn expose_connections(&self, w: &mut Writer) {
        let accepted = self.sum(|worker| &worker.accepted);
        w.single("eleven_connections_accepted", Kind::Counter, "Connections accepted.", accepted);
        w.family("eleven_connections", Kind::Gauge, "Connections by what they are doing.");
        for (index, phase) in PHASES.iter().enumerate() {
            w.sample("eleven_connections", &[("state", phase)], self.sum(|worker| &worker.phases[index]));
        }
        let closed = self.sum_words(|worker| &worker.closed);
        w.words("eleven_connections_closed", "reason", "Connections closed, by the reason.", &closed);
        let refused = self.sum_words(|worker| &worker.refused_connections);
        let help = "Connections for which there was no room.";
        w.words("eleven_connections_refused", "reason", help, &refused);
        let handshakes = self.sum(|worker| &worker.handshakes);
        w.single("eleven_tls_handshakes", Kind::Counter, "TLS handshakes that succeeded.", handshakes);
        let failed = self.sum_words(|worker| &worker.failed_handshakes);
        w.words("eleven_tls_handshakes_failed", "reason", "TLS handshakes that failed.", &failed);
    }

    fn expose_queue(&self, w: &mut Writer) {
        w.family("eleven_queue_requests", Kind::Gauge, "Requests to handlers that wait for others.");
        for (state, sum) in
            [("working", self.sum(|worker| &worker.working)), ("waiting", self.sum(|worker| &worker.waiting))]
        {
            w.sample("eleven_queue_requests", &[("state", state)], sum);
        }
        let waited = self.sum(|worker| &worker.queued);
        w.single("eleven_queue_waited", Kind::Counter, "Requests that waited for their turn.", waited);
        let us = self.sum(|worker| &worker.queued_us);
        w.single("eleven_queue_wait_seconds", Kind::Counter, "Time that they waited together.", seconds(us));
    }

    fn expose_cache(&self, w: &mut Writer) {
        let verdicts = self.cache_verdicts();
        w.words("eleven_cache_requests", "verdict", "What the cache did with requests.", &verdicts);
        let reasons = self.sum_words(|worker| &worker.cache_reasons);
        let help = "Requests that the cache forwarded, by the reason (RFC 9211).";
        w.words("eleven_cache_forwards", "reason", help, &reasons);
        let Some(usage) = lock(&self.sources).cache.as_ref().map(|cache| cache.usage()) else { return };
        w.family("eleven_cache_bytes", Kind::Gauge, "Octets stored.");
        w.sample("eleven_cache_bytes", &[("store", "memory")], usage.memory_bytes);
        w.sample("eleven_cache_bytes", &[("store", "disk")], usage.disk_bytes);
        w.family("eleven_cache_keys", Kind::Gauge, "Keys stored under.");
        w.sample("eleven_cache_keys", &[("store", "memory")], usage.memory_keys);
        w.sample("eleven_cache_keys", &[("store", "disk")], usage.disk_keys);
        w.single("eleven_cache_corrupt", Kind::Counter, "Stored responses found damaged.", usage.corrupt);
        w.single("eleven_cache_errors", Kind::Counter, "Failures of the disk.", usage.errors);
    }

    fn expose_upstreams(&self, w: &mut Writer) {
        let servers = self.servers();
        w.family("eleven_upstream_requests", Kind::Counter, "Times a server was asked.");
        for server in &servers {
            w.sample("eleven_upstream_requests_total", &[("upstream", &server.name)], server.asked);
        }
        w.family(
            "eleven_upstream_failures",
            Kind::Counter,
            "Times a server could not be reached or broke off.",
        );
        for server in &servers {
            w.sample("eleven_upstream_failures_total", &[("upstream", &server.name)], server.failed);
        }
        w.family("eleven_upstream_healthy", Kind::Gauge, "Whether the checks find a server healthy.");
        for server in &servers {
            w.sample("eleven_upstream_healthy", &[("upstream", &server.name)], u8::from(server.healthy));
        }
        w.family("eleven_upstream_draining", Kind::Gauge, "Whether a server gets no new requests.");
        for server in &servers {
            w.sample("eleven_upstream_draining", &[("upstream", &server.name)], u8::from(server.draining));
        }
        w.family("eleven_upstream_ejected", Kind::Gauge, "Whether a server is left alone after failures.");
        for server in &servers {
            w.sample("eleven_upstream_ejected", &[("upstream", &server.name)], u8::from(server.ejected));
        }
        w.family("eleven_upstream_connections_opened", Kind::Counter, "Connections opened to a server.");
        for server in &servers {
            let labels = [("upstream", &*server.name)];
            w.sample("eleven_upstream_connections_opened_total", &labels, server.opened);
        }
        w.family(
            "eleven_upstream_connections_idle",
            Kind::Gauge,
            "Connections to a server that wait for use.",
        );
        for server in &servers {
            w.sample("eleven_upstream_connections_idle", &[("upstream", &server.name)], server.idle);
        }
        let name = "eleven_upstream_duration_seconds";
        w.family(name, Kind::Histogram, "From a connection to a server to the head of its response.");
        for server in &servers {
            w.histogram(name, &[("upstream", &server.name)], &server.latency);
        }
        w.family("eleven_upstream_active", Kind::Gauge, "Requests a server is answering.");
        for server in &servers {
            w.sample("eleven_upstream_active", &[("upstream", &server.name)], server.active);
        }
    }

    fn expose_applications(&self, w: &mut Writer) {
        let applications = lock(&self.sources).applications.clone();
        w.family("eleven_application_workers", Kind::Gauge, "Workers of an application that take requests.");
        for application in &applications {
            let labels = [("application", application.name())];
            w.sample("eleven_application_workers", &labels, application.numbers().workers);
        }
        w.family("eleven_application_requests", Kind::Gauge, "Requests that an application has.");
        for application in &applications {
            let (name, numbers) = (application.name(), application.numbers());
            for (state, count) in [("running", numbers.running), ("waiting", numbers.waiting)] {
                let labels = [("application", name), ("state", state)];
                w.sample("eleven_application_requests", &labels, count);
            }
        }
    }

    fn expose_operation(&self, w: &mut Writer) {
        w.family("eleven_reloads", Kind::Counter, "Changes of the configuration, taken or refused.");
        for (result, count) in [("taken", &self.reloads), ("refused", &self.failed_reloads)] {
            w.sample("eleven_reloads_total", &[("result", result)], count.load(Ordering::Relaxed));
        }
        let dropped = lock(&self.sources).log.as_ref().map_or(0, |log| log.dropped());
        if let Some(spans) = &lock(&self.sources).spans {
            let help = "Spans of sampled traces that a collector took.";
            w.single("eleven_spans_exported", Kind::Counter, help, spans.exported());
            let help = "Spans that were given up: the queue was full, or nobody took them.";
            w.single("eleven_spans_dropped", Kind::Counter, help, spans.dropped());
        }
        w.single("eleven_log_lines_dropped", Kind::Counter, "Lines that the access log lost.", dropped);
        w.family("eleven_certificate_not_after_seconds", Kind::Gauge, "When a certificate ends.");
        for certificate in lock(&self.certificates).iter() {
            let name = certificate.names.first().map_or("", String::as_str);
            w.sample("eleven_certificate_not_after_seconds", &[("name", name)], certificate.not_after_unix_s);
        }
        w.family(
            "eleven_certificate_ocsp_until_seconds",
            Kind::Gauge,
            "Until when the OCSP response given for a certificate is stapled; 0 if it is not.",
        );
        for certificate in lock(&self.certificates).iter() {
            let Some(until) = certificate.ocsp_until_unix_s else { continue };
            let name = certificate.names.first().map_or("", String::as_str);
            let labels = [("name", name)];
            w.sample("eleven_certificate_ocsp_until_seconds", &labels, until.unwrap_or(0));
        }
        let draining = u8::from(self.is_draining());
        w.single("eleven_draining", Kind::Gauge, "Whether the server is finishing.", draining);
    }
}

fn expose_process(w: &mut Writer, started_unix_s: i64) {
    let process = Process::now();
    let mut gauge = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            w.single(name, Kind::Gauge, help, value);
        }
    };
    gauge("process_resident_memory_bytes", "Memory in use.", process.resident_bytes);
    gauge("process_virtual_memory_bytes", "Address space in use.", process.virtual_bytes);
    gauge("process_open_fds", "Open descriptors.", process.open_files);
    gauge("process_max_fds", "Descriptors there may be.", process.open_files_max);
    gauge("process_threads", "Threads.", process.threads);
    if let Some(cpu) = process.cpu_seconds {
        w.single("process_cpu_seconds", Kind::Counter, "Processor time used.", cpu);
    }
    w.single("process_start_time_seconds", Kind::Gauge, "When the server started.", started_unix_s);
}
