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

    /// What HAR 1.2 says of an object: names of members, their types, and whether they may be missing. Types: `s`tring,
    /// `n`umber, `i`nteger, `t`ime (ISO 8601), `u`ri, or the name of another object, in a list with `*`.
    const HAR: [(&str, &[(&str, &str, bool)]); 14] = [
        ("document", &[("log", "log", true)]),
        (
            "log",
            &[
                ("version", "s", true),
                ("creator", "creator", true),
                ("browser", "creator", false),
                ("pages", "*page", false),
                ("entries", "*entry", true),
                ("comment", "s", false),
            ],
        ),
        ("creator", &[("name", "s", true), ("version", "s", true), ("comment", "s", false)]),
        (
            "entry",
            &[
                ("pageref", "s", false),
                ("startedDateTime", "t", true),
                ("time", "n", true),
                ("request", "request", true),
                ("response", "response", true),
                ("cache", "cache", true),
                ("timings", "timings", true),
                ("serverIPAddress", "s", false),
                ("connection", "s", false),
                ("comment", "s", false),
            ],
        ),
        (
            "request",
            &[
                ("method", "s", true),
                ("url", "u", true),
                ("httpVersion", "s", true),
                ("cookies", "*cookie", true),
                ("headers", "*pair", true),
                ("queryString", "*pair", true),
                ("postData", "postData", false),
                ("headersSize", "i", true),
                ("bodySize", "i", true),
                ("comment", "s", false),
            ],
        ),
        (
            "response",
            &[
                ("status", "i", true),
                ("statusText", "s", true),
                ("httpVersion", "s", true),
                ("cookies", "*cookie", true),
                ("headers", "*pair", true),
                ("content", "content", true),
                ("redirectURL", "s", true),
                ("headersSize", "i", true),
                ("bodySize", "i", true),
                ("comment", "s", false),
            ],
        ),
        ("pair", &[("name", "s", true), ("value", "s", true), ("comment", "s", false)]),
        (
            "cookie",
            &[
                ("name", "s", true),
                ("value", "s", true),
                ("path", "s", false),
                ("domain", "s", false),
                ("expires", "t", false),
                ("comment", "s", false),
            ],
        ),
        ("postData", &[("mimeType", "s", true), ("params", "*pair", true), ("text", "s", true)]),
        (
            "content",
            &[
                ("size", "i", true),
                ("compression", "i", false),
                ("mimeType", "s", true),
                ("text", "s", false),
                ("encoding", "s", false),
                ("comment", "s", false),
            ],
        ),
        ("cache", &[("comment", "s", false)]),
        (
            "timings",
            &[
                ("blocked", "n", false),
                ("dns", "n", false),
                ("connect", "n", false),
                ("send", "n", true),
                ("wait", "n", true),
                ("receive", "n", true),
                ("ssl", "n", false),
                ("comment", "s", false),
            ],
        ),
        ("page", &[("id", "s", true)]),
        ("nothing", &[]),
    ];

    fn check(value: &Value, kind: &str, at: &str, wrong: &mut Vec<String>) {
        let right = match kind {
            "s" => value.is_string(),
            "n" => value.as_f64().is_some_and(|n| n >= -1.0),
            "i" => value.as_i64().is_some_and(|n| n >= -1),
            "u" => {
                value.as_str().is_some_and(|text| eleven_semantics::uri::Uri::parse(text.as_bytes()).is_ok())
            }
            "t" => value.as_str().is_some_and(|text| {
                let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
                shape == "9999-99-99T99:99:99.999Z"
            }),
            _ => {
                if let Some(kind) = kind.strip_prefix('*') {
                    let Some(list) = value.as_array() else {
                        return wrong.push(format!("{at} is no list"));
                    };
                    list.iter().enumerate().for_each(|(n, v)| check(v, kind, &format!("{at}[{n}]"), wrong));
                    return;
                }
                let members = HAR.iter().find(|(name, _)| *name == kind).unwrap().1;
                let Some(object) = value.as_object() else { return wrong.push(format!("{at} is no object")) };
                for (name, kind, needed) in members {
                    match object.get(*name) {
                        Some(value) => check(value, kind, &format!("{at}.{name}"), wrong),
                        None if *needed => wrong.push(format!("{at}.{name} is missing")),
                        None => {}
                    }
                }
                let known = |name: &String| members.iter().any(|(member, ..)| member == name);
                let foreign = object.keys().filter(|name| !known(name) && !name.starts_with('_'));
                return wrong.extend(foreign.map(|name| format!("{at}.{name} is not in HAR 1.2")));
            }
        };
        if !right {
            wrong.push(format!("{at} is {value}, and should be {kind}"));
        }
    }

    fn mistakes(text: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let value: Value = serde_json::from_str(text).unwrap();
        check(&value, "document", "", &mut wrong);
        // The times of an entry add up to its time; TLS is a part of connecting.
        for entry in value["log"]["entries"].as_array().into_iter().flatten() {
            let timings = entry["timings"].as_object().unwrap();
            let sum: f64 = timings
                .iter()
                .filter(|(name, _)| *name != "ssl")
                .filter_map(|(_, ms)| ms.as_f64().filter(|ms| *ms > 0.0))
                .sum();
            if (sum - entry["time"].as_f64().unwrap()).abs() > 0.01 {
                wrong.push(format!("{sum} ms in parts, {} in all", entry["time"]));
            }
        }
        wrong
    }

    /// Real exchanges, with redirections, queries, an error, a broken response and a refused one, make a record that HAR
    /// 1.2 allows in every member; and the check sees what it would not allow.
    #[tokio::test(flavor = "local")]
    async fn records_are_har_1_2() {
        use eleven_client::agent::{Agent, Ask, Listener, Options};
        use eleven_client::connector::Connector;
        use eleven_client::pool::PoolLimits;
        use std::cell::RefCell;
        use std::rc::Rc;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let answers = [
            "HTTP/1.1 302 Found\r\nLocation: /b?x=1&y&=z\r\nSet-Cookie: sid=secret\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX: \u{fc}\r\nContent-Length: 2\r\n\r\nhi",
            "HTTP/1.0 404 \r\n\r\ngone",
            "nonsense\r\n\r\n",
        ];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                let closing = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                socket.write_all(closing.as_bytes()).await.unwrap();
            }
        });
        let dialer = eleven_net::dial::Dialer::new(
            eleven_net::resolve::Resolver::new(Default::default()),
            Default::default(),
        );
        let connector = Connector::new(dialer, Default::default(), Default::default());
        let options = Options { automatic_retries_max: 0, ..Options::default() };
        let agent = Agent::new(options, connector, PoolLimits::default());
        let har = Rc::new(RefCell::new(Har::new()));
        let ear = Rc::clone(&har);
        let listener: Listener = Rc::new(move |told| ear.borrow_mut().hear(told, (784_111_777, 1)));
        agent.listen(Some(listener));
        for path in ["a", "c", "d"] {
            let uri = format!("http://127.0.0.1:{port}/{path}");
            let uri = eleven_semantics::uri::Uri::parse(uri.as_bytes()).unwrap().0;
            if let Ok(response) = agent.send(Ask::get(uri)).await {
                response.drain().await;
            }
        }
        let text = har.borrow().to_json();
        assert_eq!(mistakes(&text), Vec::<String>::new());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["log"]["entries"].as_array().map(Vec::len), Some(4));
        assert!(!text.contains("secret"), "{text}");
        for (from, to, mistake) in [
            ("\"version\": \"1.2\"", "\"versions\": \"1.2\"", "log.version is missing"),
            ("\"status\": 404", "\"status\": \"404\"", "should be i"),
            ("1994-11-06T", "06.11.1994 ", "should be t"),
            ("\"cache\": {}", "\"cache\": []", "is no object"),
            ("\"send\": 0", "\"sent\": 0", "is not in HAR 1.2"),
        ] {
            assert!(text.contains(from), "{from}: {text}");
            let wrong = mistakes(&text.replace(from, to));
            assert!(wrong.iter().any(|wrong| wrong.contains(mistake)), "{from}: {wrong:?}");
        }
    }
}
