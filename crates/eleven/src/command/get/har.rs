//! The record of all exchanges, as HAR 1.2. Secrets are left out: such a file is made to be passed on.

use super::show;
use eleven_client::agent::{Times, Told};
use eleven_messaging::ResponseHead;
use eleven_semantics::{Fields, Known};
use serde_json::{Value, json};
use std::time::Duration;

/// Exchanges recorded at most.
const ENTRIES_MAX: usize = 10_000;

/// A record in the making.
#[derive(Debug, Default)]
pub struct Har {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    started: String,
    url: String,
    address: Option<String>,
    request: Vec<u8>,
    response: Option<Value>,
    times: Times,
    octets: u64,
    receive: Duration,
}

impl Har {
    /// An empty record.
    pub fn new() -> Har {
        Har::default()
    }

    /// Takes in what the agent tells, at this wall time.
    pub fn hear(&mut self, told: &Told<'_>, wall: (i64, u32)) {
        match told {
            Told::Request(id, connection, uri) if self.entries.len() < ENTRIES_MAX => {
                self.entries.push(Entry {
                    id: *id,
                    started: timestamp(wall),
                    url: uri.without_fragment(),
                    address: connection.address().map(|address| address.ip().to_string()),
                    request: connection.queued().to_vec(),
                    response: None,
                    times: Times::default(),
                    octets: 0,
                    receive: Duration::ZERO,
                });
            }
            Told::Head(id, head, times) => {
                if let Some(entry) = self.entry(*id) {
                    entry.response = Some(response(head));
                    entry.times = **times;
                }
            }
            Told::End(id, octets, took, _) => {
                if let Some(entry) = self.entry(*id) {
                    (entry.octets, entry.receive) = (*octets, *took);
                }
            }
            _ => {}
        }
    }

    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().rev().find(|entry| entry.id == id)
    }

    /// The whole record.
    pub fn to_json(&self) -> String {
        let entries: Vec<Value> = self.entries.iter().map(Entry::to_json).collect();
        let value = json!({"log": {
            "version": "1.2",
            "creator": {"name": "eleven", "version": env!("CARGO_PKG_VERSION")},
            "entries": entries,
        }});
        let mut text = format!("{value:#}");
        text.push('\n');
        text
    }
}

impl Entry {
    fn to_json(&self) -> Value {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        // An opening that did not happen has no time: -1 says so.
        let or_none = |duration: Duration| if duration.is_zero() { -1.0 } else { ms(duration) };
        let open = self.times.open;
        // HAR counts TLS as a part of connecting.
        let connect = open.connect + open.tunnel + open.tls;
        let (blocked, wait, receive) = (ms(self.times.blocked), ms(self.times.wait), ms(self.receive));
        let mut response = self.response.clone().unwrap_or_else(|| {
            json!({"status": 0, "statusText": "", "httpVersion": "", "cookies": [], "headers": [],
                   "content": {"size": 0, "mimeType": ""}, "redirectURL": "", "headersSize": -1, "bodySize": -1})
        });
        if self.response.is_some() {
            response["bodySize"] = json!(self.octets);
            response["content"]["size"] = json!(self.octets);
        }
        let mut entry = json!({
            "startedDateTime": self.started,
            "time": blocked + ms(open.resolve) + ms(connect) + wait + receive,
            "request": self.request(),
            "response": response,
            "cache": {},
            "timings": {
                "blocked": blocked, "dns": or_none(open.resolve), "connect": or_none(connect),
                "ssl": or_none(open.tls), "send": 0, "wait": wait, "receive": receive,
            },
        });
        if let Some(address) = &self.address {
            entry["serverIPAddress"] = json!(address);
        }
        entry
    }

    fn request(&self) -> Value {
        let lines = show::head_lines(&self.request);
        let first = lines.first().cloned().unwrap_or_default();
        let mut words = first.split(' ');
        let method = words.next().unwrap_or_default();
        let version = words.next_back().unwrap_or_default();
        let headers: Vec<Value> = lines
            .iter()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let query: Vec<Value> = self
            .url
            .split_once('?')
            .map_or("", |(_, query)| query)
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                json!({"name": name, "value": value})
            })
            .collect();
        json!({
            "method": method, "url": self.url, "httpVersion": version, "cookies": [], "headers": headers,
            "queryString": query, "headersSize": self.request.len(), "bodySize": -1,
        })
    }
}

fn response(head: &ResponseHead) -> Value {
    let text = |name| {
        head.fields.get(name).map_or(String::new(), |value| String::from_utf8_lossy(value).into_owned())
    };
    json!({
        "status": head.status.code(),
        "statusText": String::from_utf8_lossy(&head.reason),
        "httpVersion": format!("HTTP/1.{}", u8::from(head.version == eleven_semantics::Version::Http11)),
        "cookies": [],
        "headers": headers(&head.fields),
        "content": {"size": 0, "mimeType": text(Known::ContentType)},
        "redirectURL": text(Known::Location),
        "headersSize": show::response_head(head).len(),
        "bodySize": -1,
    })
}

fn headers(fields: &Fields) -> Vec<Value> {
    fields
        .iter()
        .map(|field| {
            let secret = matches!(field.known, Some(Known::SetCookie))
                || field.known.is_none() && eleven_semantics::redirect::is_sensitive_name(field.name);
            let value = if secret { "<hidden>".into() } else { String::from_utf8_lossy(field.value) };
            json!({"name": String::from_utf8_lossy(field.name), "value": value})
        })
        .collect()
}

/// ISO 8601, as HAR wants it.
fn timestamp((seconds, nanoseconds): (i64, u32)) -> String {
    let (year, month, day, hour, minute, second) = eleven_semantics::date::HttpDate(seconds).civil();
    let millis = nanoseconds / 1_000_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_iso_8601() {
        assert_eq!(timestamp((784_111_777, 5_000_000)), "1994-11-06T08:49:37.005Z");
    }

    #[test]
    fn an_empty_record_is_a_record() {
        let value: Value = serde_json::from_str(&Har::new().to_json()).unwrap();
        assert_eq!(value["log"]["version"], "1.2");
        assert_eq!(value["log"]["entries"].as_array().map(Vec::len), Some(0));
    }
}
