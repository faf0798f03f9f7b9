//! Sends spans to a collector: OTLP over HTTP with JSON (OpenTelemetry Protocol 1.x), by the client of this project, on a thread
//! of its own. Spans go out in batches; a collector that does not take them is asked again a few times, ever more rarely,
//! while new ones wait in the bounded queue of `eleven_server::spans`. What a span is called follows OpenTelemetry's conventions
//! for HTTP.
//!
//! `OTEL_EXPORTER_OTLP_HEADERS` (`name=value,name=value`) adds fields such as credentials, which have no place in a
//! configuration.

use crate::command::Failure;
use eleven_client::agent::{Agent, Ask, Options};
use eleven_client::connector::Connector;
use eleven_client::pool::PoolLimits;
use eleven_client::transfer::Content;
use eleven_messaging::server::Length;
use eleven_net::dial::Dialer;
use eleven_net::resolve::Resolver;
use eleven_net::tls_config::ClientSettings;
use eleven_semantics::target::percent_decode;
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Method};
use eleven_server::plan::OtlpPlan;
use eleven_server::spans::{Span, Spans};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Spans in one request.
const BATCH_SPANS: usize = 512;
/// How long a span waits for others.
const BATCH_DELAY: Duration = Duration::from_secs(2);
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a batch is tried.
const TRIES_MAX: u32 = 4;
/// Between the first and the second try; then twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last batch.
const FAREWELL: Duration = Duration::from_secs(3);
/// How soon the thread notices that the process ends.
const TICK: Duration = Duration::from_millis(100);

/// The thread that sends.
pub struct Exporter {
    spans: Arc<Spans>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts it.
    ///
    /// # Errors
    /// If the environment's fields are none, or no thread can be started.
    pub fn start(plan: &OtlpPlan) -> Result<Exporter, Failure> {
        let (spans, receiver) = Spans::new();
        let ends = Arc::new(AtomicBool::new(false));
        let sender = Sender {
            uri: plan.endpoint.clone(),
            service: plan.service_name.to_string(),
            fields: fields(&std::env::var("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default())?,
            spans: spans.clone(),
            ends: ends.clone(),
        };
        let thread = std::thread::Builder::new().name("otlp".into()).spawn(move || sender.run(&receiver))?;
        Ok(Exporter { spans, ends, thread: Some(thread) })
    }

    /// Where the server hands its spans.
    pub fn spans(&self) -> Arc<Spans> {
        self.spans.clone()
    }

    /// Lets the last spans go out, for a moment.
    pub fn end(self) {}
}

impl Drop for Exporter {
    /// Also where the start fails after all.
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let until = Instant::now() + FAREWELL;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(TICK);
            }
        }
    }
}

/// `name=value,name=value`, with percent-encoded values (the form of W3C Baggage).
fn fields(text: &str) -> Result<Fields, Failure> {
    let mut fields = Fields::new();
    for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
        // The value may be a secret: it is not repeated.
        let wrong = || Failure("OTEL_EXPORTER_OTLP_HEADERS: write it as `name=value,name=value`".into());
        let (name, value) = member.split_once('=').ok_or_else(wrong)?;
        let value = percent_decode(value.trim().as_bytes());
        fields.push(name.trim(), &value).map_err(|_| wrong())?;
    }
    Ok(fields)
}

struct Sender {
    uri: Uri,
    service: String,
    fields: Fields,
    spans: Arc<Spans>,
    ends: Arc<AtomicBool>,
}

impl Sender {
    fn run(self, receiver: &Receiver<Span>) {
        let done = eleven_net::worker::run(async {
            let dialer = Dialer::new(Resolver::new(Default::default()), Default::default());
            let connector = Connector::new(dialer, ClientSettings::default(), Arc::new(Default::default()));
            let options = Options { follow: false, ..Options::default() };
            let agent = Agent::new(options, connector, PoolLimits::default());
            while let Some(batch) = self.gather(receiver) {
                if !batch.is_empty() {
                    self.deliver(&agent, &batch).await;
                }
            }
        });
        if let Err(error) = done {
            tracing::error!(%error, "spans are not exported");
        }
    }

    /// The next batch; `None` when the process ends and all are out.
    fn gather(&self, receiver: &Receiver<Span>) -> Option<Vec<Span>> {
        let mut batch = Vec::new();
        let mut until = None;
        while batch.len() < BATCH_SPANS && until.is_none_or(|until| Instant::now() < until) {
            match receiver.recv_timeout(TICK) {
                Ok(span) => {
                    until.get_or_insert_with(|| Instant::now() + BATCH_DELAY);
                    batch.push(span);
                }
                Err(RecvTimeoutError::Timeout) if !self.ends.load(Relaxed) => {}
                Err(_) => return (!batch.is_empty()).then_some(batch),
            }
        }
        Some(batch)
    }

    /// Sends a batch, several times if need be.
    async fn deliver(&self, agent: &Agent, batch: &[Span]) {
        let content = bytes::Bytes::from(request(&self.service, batch).to_string());
        let mut pause = PAUSE;
        for attempt in 1.. {
            let sent = tokio::time::timeout(REQUEST_TIMEOUT, self.send(agent, content.clone())).await;
            let why = match sent {
                Ok(Ok(())) => return self.spans.count_exported(batch.len() as u64),
                Ok(Err(why)) => why,
                Err(_) => Refused::transient("no answer in time"),
            };
            if !why.is_transient || attempt == TRIES_MAX || self.ends.load(Relaxed) {
                tracing::warn!(spans = batch.len(), why = why.why, "the collector did not take spans");
                return self.spans.count_dropped(batch.len() as u64);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn send(&self, agent: &Agent, content: bytes::Bytes) -> Result<(), Refused> {
        let mut ask = Ask::get(self.uri.clone());
        ask.method = Method::Post;
        ask.fields = self.fields.clone();
        let _ = ask.fields.push("Content-Type", "application/json");
        ask.length = Length::Known(content.len() as u64);
        ask.content = Content::Bytes(content);
        let response = agent.send(ask).await.map_err(|why| Refused::transient(why.to_string()))?;
        let status = response.head().status;
        response.drain().await;
        match status.code() {
            200..300 => Ok(()),
            // These alone are worth a second try (OTLP, "Retryable Response Codes").
            429 | 502 | 503 | 504 => Err(Refused::transient(status.to_string())),
            _ => Err(Refused { why: status.to_string(), is_transient: false }),
        }
    }
}

struct Refused {
    why: String,
    is_transient: bool,
}

impl Refused {
    fn transient(why: impl Into<String>) -> Refused {
        Refused { why: why.into(), is_transient: true }
    }
}

/// An `ExportTraceServiceRequest`.
fn request(service: &str, batch: &[Span]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [text("service.name", service), text("service.version", version)];
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{
            "scope": { "name": "eleven", "version": version },
            "spans": batch.iter().flat_map(spans).collect::<Vec<_>>(),
        }],
    }] })
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Numbers of 64 bits are texts in this JSON.
fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// The span of an exchange, and one of the server that was asked for it.
fn spans(span: &Span) -> Vec<Value> {
    const SERVER: u32 = 2;
    const CLIENT: u32 = 3;
    let (begun, ended) = (span.begun_unix_us, span.begun_unix_us + span.duration_us as i64);
    let name = match Method::from_bytes(span.method.as_bytes()) {
        Some(Method::Other(_)) | None => "HTTP",
        Some(_) => &span.method,
    };
    let mut own = json!({
        "traceId": format!("{:032x}", span.id.trace_id),
        "spanId": format!("{:016x}", span.id.span_id),
        "name": name,
        "kind": SERVER,
        "startTimeUnixNano": format!("{begun}000"),
        "endTimeUnixNano": format!("{ended}000"),
        "attributes": attributes(span),
        "status": if span.status >= 500 { json!({ "code": 2 }) } else { json!({}) },
    });
    if let Some(parent) = span.id.parent_id {
        own["parentSpanId"] = format!("{parent:016x}").into();
    }
    let mut all = vec![own];
    if let Some(asked) = &span.asked {
        let mut attributes = vec![text("http.request.method", &span.method)];
        if !asked.name.is_empty() {
            attributes.push(text("eleven.upstream", &asked.name));
        }
        if let Some(address) = asked.address {
            attributes.push(text("server.address", &address.ip().to_string()));
            attributes.push(number("server.port", u64::from(address.port())));
        }
        if asked.tries > 1 {
            attributes.push(number("http.request.resend_count", u64::from(asked.tries - 1)));
        }
        all.push(json!({
            "traceId": format!("{:032x}", span.id.trace_id),
            // Of this process alone: nobody else is told of it, so that it need not be kept.
            "spanId": format!("{:016x}", span.id.span_id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            "parentSpanId": format!("{:016x}", span.id.span_id),
            "name": name,
            "kind": CLIENT,
            "startTimeUnixNano": format!("{}000", ended - asked.total_us as i64),
            "endTimeUnixNano": format!("{ended}000"),
            "attributes": attributes,
        }));
    }
    all
}

fn attributes(span: &Span) -> Vec<Value> {
    let version = span.version.to_string();
    let mut attributes = vec![
        text("http.request.method", &span.method),
        text("url.path", &span.path),
        text("network.protocol.version", version.trim_start_matches("HTTP/")),
        number("http.response.body.size", span.content_bytes),
    ];
    let mut known = |key, value: &str| {
        if !value.is_empty() {
            attributes.push(text(key, value));
        }
    };
    known("server.address", &span.host);
    known("user_agent.original", span.user_agent.as_deref().unwrap_or_default());
    known("client.address", &span.client.map(|client| client.to_string()).unwrap_or_default());
    known("eleven.site", &span.site);
    known("eleven.handler", &span.handler);
    known("eleven.cache", &span.cache);
    let status = span.status.to_string();
    let failed = span.refused.or((span.status >= 500).then_some(&status));
    known("error.type", failed.unwrap_or_default());
    if span.status != 0 {
        attributes.push(number("http.response.status_code", u64::from(span.status)));
    }
    attributes
}
