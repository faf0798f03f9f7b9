//! What the server counts and tells of itself: the one place that the admin listener reads. Kept over a reload; whoever
//! counts holds on to it.

use eleven_net::clock;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The figures of a server, shared by its workers and the admin listener.
#[derive(Debug, Default)]
pub struct Metrics {
    started_unix_s: AtomicI64,
    draining: AtomicBool,
}

impl Metrics {
    /// Says when the server started.
    pub(crate) fn started(&self) {
        self.started_unix_s.store(clock::unix_seconds(), Ordering::Relaxed);
    }

    /// Says that the server is finishing: health checks fail from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the server is finishing.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Everything, as one object.
    pub fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started_unix_s": self.started_unix_s.load(Ordering::Relaxed),
            "draining": self.is_draining(),
        })
    }

    /// Everything, in the text format of Prometheus.
    pub fn exposition(&self) -> String {
        format!(
            "# HELP eleven_start_time_seconds When the server started, in seconds since 1970.\n\
             # TYPE eleven_start_time_seconds gauge\neleven_start_time_seconds {}\n",
            self.started_unix_s.load(Ordering::Relaxed)
        )
    }
}
