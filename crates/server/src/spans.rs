//! Spans: what an exchange of a sampled trace was, handed on as it ends. The queue is bounded and nobody waits for it: what does
//! not fit is dropped and counted. In which form spans leave the process is not decided here.

use eleven_semantics::Version;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Spans that may wait for the exporter.
pub const QUEUE_SPANS: usize = 4096;

/// Who an exchange is in its trace (W3C Trace Context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId {
    /// The trace.
    pub trace_id: u128,
    /// The exchange itself.
    pub span_id: u64,
    /// Whoever asked; `None` where the trace begins here.
    pub parent_id: Option<u64>,
}

/// An exchange that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Who it is.
    pub id: SpanId,
    /// Its beginning, in microseconds since 1970 UTC.
    pub begun_unix_us: i64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Its method.
    pub method: String,
    /// Path of the target. Not the query, where secrets stand.
    pub path: String,
    /// Host as received.
    pub host: String,
    /// Version of the request.
    pub version: Version,
    /// User-Agent, if there was one.
    pub user_agent: Option<String>,
    /// The client.
    pub client: Option<IpAddr>,
    /// Name of the site.
    pub site: String,
    /// Kind of handler.
    pub handler: String,
    /// Final status; 0 if none was sent.
    pub status: u16,
    /// Octets of response content.
    pub content_bytes: u64,
    /// Why it was refused or cut short.
    pub refused: Option<&'static str>,
    /// Verdict of the cache; empty where none was asked.
    pub cache: String,
    /// The server that was asked, if one was.
    pub asked: Option<AskedServer>,
}

/// The server behind a gateway or proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedServer {
    /// As it stands in the configuration.
    pub name: String,
    /// Where it was reached.
    pub address: Option<SocketAddr>,
    /// How often the request was tried.
    pub tries: u32,
    /// From the first try to the end, in microseconds.
    pub total_us: u64,
}

/// Where spans go, and how many went nowhere.
#[derive(Debug)]
pub struct Spans {
    queue: SyncSender<Span>,
    dropped: AtomicU64,
    exported: AtomicU64,
}

impl Spans {
    /// A queue, and the end from which an exporter takes.
    pub fn new() -> (Arc<Spans>, Receiver<Span>) {
        let (queue, receiver) = sync_channel(QUEUE_SPANS);
        (Arc::new(Spans { queue, dropped: AtomicU64::new(0), exported: AtomicU64::new(0) }), receiver)
    }

    /// Hands on what an exchange was.
    pub fn end(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.count_dropped(1);
        }
    }

    /// So many are given up.
    pub fn count_dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
    }

    /// So many have arrived.
    pub fn count_exported(&self, count: u64) {
        self.exported.fetch_add(count, Relaxed);
    }

    /// How many were given up: the queue was full, or nobody took them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// How many have arrived.
    pub fn exported(&self) -> u64 {
        self.exported.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn what_does_not_fit_is_counted() {
        let (spans, receiver) = Spans::new();
        let span = Record::default().span(SpanId { trace_id: 1, span_id: 2, parent_id: None });
        (0..QUEUE_SPANS + 7).for_each(|_| spans.end(span.clone()));
        assert_eq!(spans.dropped(), 7);
        assert_eq!(receiver.try_iter().count(), QUEUE_SPANS);
        drop(receiver);
        spans.end(span.clone());
        assert_eq!(spans.dropped(), 8);
    }
}
