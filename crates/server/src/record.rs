//! Everything known of one exchange once it is over: who asked for what, what was answered, how long it took,
//! how many octets went each way, and why it was refused or the connection closed. The access log, the metrics and the
//! status page all read this one value. It borrows; whoever keeps it longer than the exchange copies what it needs.

use crate::access_log;
use crate::metrics::Exchange;
use crate::spans::{AskedServer, Span, SpanId, Spans};
use eleven_semantics::{Fields, Version};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// One exchange: a request and its final response.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// When the request's head was complete, in milliseconds since 1970 UTC.
    pub time_unix_ms: i64,
    /// The client: the peer, or whom trusted proxies say they speak for. `None` on Unix sockets.
    pub client: Option<IpAddr>,
    /// The authenticated user, if the exchange had one.
    pub user: Option<&'a [u8]>,
    /// Method as received; empty if no request line could be read.
    pub method: &'a [u8],
    /// Request target as received.
    pub target: &'a [u8],
    /// Version of the request.
    pub version: Version,
    /// Host the request was for, as received.
    pub host: &'a [u8],
    /// Name of the site that answered; empty for none.
    pub site: &'a str,
    /// Kind of handler that answered (`files`, `proxy`, …); empty if none was reached.
    pub handler: &'a str,
    /// Field section of the request, if it is still at hand.
    pub request_fields: Option<&'a Fields>,
    /// Field section of the response, if it is still at hand.
    pub response_fields: Option<&'a Fields>,
    /// Final status code; 0 if none was sent.
    pub status: u16,
    /// Octets of response content sent.
    pub content_bytes: u64,
    /// All octets sent for the exchange, head and framing included.
    pub sent_bytes: u64,
    /// All octets received for the exchange.
    pub received_bytes: u64,
    /// From the complete head to the last octet handed to the kernel, in microseconds.
    pub duration_us: u64,
    /// From the complete head to the first octet of the response, in microseconds.
    pub first_octet_us: u64,
    /// Number of the connection within this process.
    pub connection: u64,
    /// How many requests came before on this connection.
    pub requests_before: u32,
    /// Why the connection closes after this exchange; `None` if it persists.
    pub closed: Option<&'static str>,
    /// Why the request was refused or its response cut short; `None` if all went as asked.
    pub refused: Option<&'static str>,
    /// Verdict of the cache (`hit`, `miss`, `bypass`, …); empty where none was asked.
    pub cache: &'a str,
    /// The server that a gateway asked; empty for none.
    pub upstream: &'a str,
    /// How asking it went, where a gateway or proxy measured it.
    pub attempts: Option<Attempts>,
    /// Request id, if one was given or made.
    pub request_id: &'a [u8],
}

/// How asking a server went. Where several were tried, address, connection and head are those of the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    /// How often the request was tried; 0 if no server was to be had.
    pub tries: u32,
    /// The address of the server; `None` over a Unix socket, or where there was no connection.
    pub address: Option<SocketAddr>,
    /// For opening the connection, names and TLS included, in microseconds; `None` where an idle one was used.
    pub connect_us: Option<u64>,
    /// From there to the head of the response, in microseconds; `None` if none came.
    pub head_us: Option<u64>,
    /// From the beginning of the first try to the end of the response, or of the last try, in microseconds.
    pub total_us: Option<u64>,
}

/// Octets of a text of a request that a span keeps.
const SPAN_TEXT_BYTES_MAX: usize = 256;

impl Record<'_> {
    /// What it tells of an exchange of a sampled trace. Texts of clients are bounded (fault L01).
    pub fn span(&self, id: SpanId) -> Span {
        let text = |octets: &[u8]| {
            String::from_utf8_lossy(&octets[..octets.len().min(SPAN_TEXT_BYTES_MAX)]).into_owned()
        };
        let asked = self.attempts.filter(|attempts| attempts.tries > 0).map(|attempts| AskedServer {
            name: self.upstream.to_owned(),
            address: attempts.address,
            tries: attempts.tries,
            total_us: attempts.total_us.unwrap_or(self.duration_us).min(self.duration_us),
        });
        Span {
            id,
            begun_unix_us: self.time_unix_ms * 1000,
            duration_us: self.duration_us,
            method: text(self.method),
            path: text(self.target.split(|&b| b == b'?').next().unwrap_or_default()),
            host: text(self.host),
            version: self.version,
            user_agent: self.request_fields.and_then(|fields| fields.get("User-Agent")).map(text),
            client: self.client,
            site: self.site.to_owned(),
            handler: self.handler.to_owned(),
            status: self.status,
            content_bytes: self.content_bytes,
            refused: self.refused,
            cache: self.cache.to_owned(),
            asked,
        }
    }
}

impl Default for Record<'_> {
    fn default() -> Self {
        Record {
            time_unix_ms: 0,
            client: None,
            user: None,
            method: b"",
            target: b"",
            version: Version::Http11,
            host: b"",
            site: "",
            handler: "",
            request_fields: None,
            response_fields: None,
            status: 0,
            content_bytes: 0,
            sent_bytes: 0,
            received_bytes: 0,
            duration_us: 0,
            first_octet_us: 0,
            connection: 0,
            requests_before: 0,
            closed: None,
            refused: None,
            cache: "",
            upstream: "",
            attempts: None,
            request_id: b"",
        }
    }
}

/// What the steps and the handler found out, carried by the response to the record.
#[derive(Debug, Clone, Default)]
pub struct Notes {
    /// Name of the site that answered.
    pub site: Option<Arc<str>>,
    /// Kind of handler that answered; empty for the one of the whole server.
    pub handler: &'static str,
    /// The authenticated user.
    pub user: Option<Box<[u8]>>,
    /// The client, where it is another than the peer.
    pub client: Option<IpAddr>,
    /// Why the request was refused.
    pub refused: Option<&'static str>,
    /// Verdict of the cache; empty where none was asked.
    pub cache: &'static str,
    /// Why the cache did not answer by itself (RFC 9211); empty if it did.
    pub cache_reason: &'static str,
    /// The server that a gateway asked.
    pub upstream: Option<Arc<str>>,
    /// How asking it goes; not over before all of the response has come.
    pub attempts: Option<Rc<Cell<Attempts>>>,
    /// Request id, if one was given or made.
    pub request_id: Option<Box<[u8]>>,
    /// Where it is logged.
    pub log: SiteLog,
    /// Its place in a sampled trace, and who wants to know how it ended.
    pub span: Option<(SpanId, Arc<Spans>)>,
}

/// Where the exchanges of a site are logged, as a worker has it.
#[derive(Debug, Clone, Default)]
pub enum SiteLog {
    /// With those of the other sites.
    #[default]
    Main,
    /// Nowhere.
    Off,
    /// In a log of its own.
    Own(Rc<access_log::Worker>),
}

impl Notes {
    /// Adds them to what is counted.
    #[inline]
    pub fn count_in<'a>(&'a self, counted: &mut Exchange<'a>) {
        counted.site = self.site.as_deref().unwrap_or_default();
        if !self.handler.is_empty() {
            counted.handler = self.handler;
        }
        counted.refused = counted.refused.or(self.refused);
        counted.cache = self.cache;
        counted.cache_reason = self.cache_reason;
    }

    /// Tells of an exchange that is over, if it belongs to a sampled trace.
    pub fn end_span(&self, record: &Record<'_>) {
        if let Some((id, spans)) = &self.span {
            spans.end(record.span(*id));
        }
    }

    /// Adds them to a record.
    pub fn add_to<'a>(&'a self, record: &mut Record<'a>) {
        if let Some(site) = &self.site {
            record.site = site;
        }
        if !self.handler.is_empty() {
            record.handler = self.handler;
        }
        record.user = self.user.as_deref();
        record.client = self.client.or(record.client);
        record.refused = record.refused.or(self.refused);
        record.cache = self.cache;
        record.upstream = self.upstream.as_deref().unwrap_or_default();
        record.attempts = self.attempts.as_deref().map(Cell::get);
        record.request_id = self.request_id.as_deref().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault L01: what a span says of a request is bounded, and its query, where secrets stand, is left out.
    #[test]
    fn what_a_span_tells() {
        let fields: Fields = [("User-Agent", &*"u".repeat(1000))].iter().collect();
        let record = Record {
            method: b"GET",
            target: b"/a/b?token=secret",
            request_fields: Some(&fields),
            status: 200,
            duration_us: 500,
            attempts: Some(Attempts { tries: 2, total_us: Some(900), ..Attempts::default() }),
            ..Record::default()
        };
        let id = SpanId { trace_id: 1, span_id: 2, parent_id: None };
        let span = record.span(id);
        assert_eq!((&*span.path, span.status), ("/a/b", 200));
        assert_eq!(span.user_agent.unwrap().len(), SPAN_TEXT_BYTES_MAX);
        // Nothing of an exchange took longer than the whole.
        assert_eq!(span.asked.map(|asked| (asked.tries, asked.total_us)), Some((2, 500)));
        let nobody = Record { attempts: Some(Attempts::default()), ..record };
        assert_eq!(nobody.span(id).asked, None, "no server was to be had");
    }
}
