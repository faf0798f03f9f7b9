//! The page for people, and the events that keep it live. One file, embedded; nothing is fetched from elsewhere, and the policy it
//! is sent with says so: only its own script and style run, whatever text a client smuggled into the figures.

use crate::metrics::Metrics;
use crate::response::{Content, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eleven_net::ledger::Ledger;
use eleven_net::pipe::pipe;
use eleven_semantics::Status;
use eleven_semantics::names::Known;
use sha2::{Digest, Sha256};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const PAGE: &str = include_str!("page.html");
/// Events under way to one reader.
const EVENTS_BYTES_MAX: usize = 256 * 1024;

/// The page.
pub(super) fn page() -> Response {
    static POLICY: OnceLock<String> = OnceLock::new();
    let policy = POLICY.get_or_init(|| {
        let (script, style) = (hash_of("<script>", "</script>"), hash_of("<style>", "</style>"));
        format!(
            "default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    });
    let mut response = Response::text(Status::OK, "text/html; charset=utf-8", PAGE);
    response.add("Content-Security-Policy", policy);
    response
}

/// The hash of an element of the page, as a source of Content-Security-Policy.
fn hash_of(begin: &str, end: &str) -> String {
    let content = PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(c, _)| c);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

/// The figures, once a second: all of them first, then without the history that the reader has. Ends when the listener
/// does.
pub(super) fn events(metrics: &Arc<Metrics>, ledger: &Rc<Ledger>) -> Response {
    let (mut writer, reader) = pipe(EVENTS_BYTES_MAX);
    let (metrics, ledger) = (metrics.clone(), ledger.clone());
    tokio::task::spawn_local(async move {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            interval.tick().await;
            if ledger.is_stopping() {
                return writer.complete(None);
            }
            let status = if std::mem::take(&mut is_first) { metrics.status() } else { metrics.status_now() };
            if writer.send(format!("data: {status}\n\n").into()).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Status::OK);
    response.add(Known::ContentType, "text/event-stream");
    response.content = Content::Pipe(reader, None);
    response
}
