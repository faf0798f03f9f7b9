//! Which server gets a request, seen from outside: sticky cookies and hashes by address, field and cookie.

use super::caching::{Caching, CachingPlan};
use super::sticky::{Secure, StickyPlan};
use super::*;
use crate::plan::CacheRules;
use eleven_cache::memory::{Limits, Memory};
use eleven_cache::store::Store;
use eleven_testkit::reader::Response as Seen;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Servers that answer with their number; they end with the test's process.
pub(super) fn numbered(count: usize, fields: &'static str) -> Vec<u16> {
    (0..count)
        .map(|number| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    std::thread::spawn(move || {
                        let mut reader = Reader::new(stream);
                        while reader.request().is_ok() {
                            let answer =
                                format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 1\r\n\r\n{number}");
                            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            port
        })
        .collect()
}

fn ask(front: &Front, fields: &str) -> Seen {
    let mut stream = front.connect();
    write!(stream, "GET / HTTP/1.1\r\nHost: h\r\n{fields}Connection: close\r\n\r\n").unwrap();
    let response = Reader::new(stream).response("GET").unwrap();
    assert_eq!(response.status, 200);
    response
}

/// `name=value` of the cookie that was set.
fn pair(response: &Seen) -> Option<String> {
    let line = response.field("set-cookie")?;
    assert_eq!(response.field("cache-control"), Some("private=\"Set-Cookie\""));
    Some(line.split(';').next().unwrap().to_owned())
}

/// 9111-5.2.2.7-04 (the field name is quoted).
#[test]
fn a_sticky_cookie_brings_clients_back() {
    let mut with = plan(&numbered(4, ""));
    with.sticky = Some(StickyPlan { secure: Secure::Always, ..StickyPlan::new("route") });
    let shared = with.shared.clone();
    let front = Front::gateway(with);
    let mut cookies = Vec::new();
    for turn in 0..4 {
        let first = ask(&front, "");
        assert_eq!(first.text(), turn.to_string());
        let set = first.field("set-cookie").unwrap();
        assert!(set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{set}");
        cookies.push(pair(&first).unwrap());
    }
    assert_eq!(cookies.iter().collect::<BTreeSet<_>>().len(), 4);
    for _ in 0..5 {
        for (server, cookie) in cookies.iter().enumerate().rev() {
            let again = ask(&front, &format!("Cookie: a=b; {cookie}\r\n"));
            assert_eq!((again.text(), pair(&again)), (server.to_string(), None));
        }
    }
    // A drained server keeps its clients and gets no others.
    shared[1].draining.store(true, Ordering::SeqCst);
    assert_eq!(ask(&front, &format!("Cookie: {}\r\n", cookies[1])).text(), "1");
    assert!((0..8).all(|_| ask(&front, "").text() != "1"));
    // One that is out loses them to another, which the cookie names from then on.
    shared[2].healthy.store(false, Ordering::SeqCst);
    let moved = ask(&front, &format!("Cookie: {}\r\n", cookies[2]));
    assert!(matches!(&*moved.text(), "0" | "3"), "{}", moved.text());
    let new = pair(&moved).unwrap();
    assert_eq!(new, cookies[moved.text().parse::<usize>().unwrap()]);
    // What a client makes up leads to anybody.
    assert!(pair(&ask(&front, "Cookie: route=AAAAAAAAAAAAAAAAAAAAAA\r\n")).is_some());
}

/// The server that a cookie names refuses connections: another takes over within the same request.
#[test]
fn a_sticky_server_that_is_gone_costs_nothing() {
    let nobody = Nobody::new();
    let mut with = plan(&[nobody.port(), numbered(1, "")[0]]);
    let sticky = StickyPlan::new("route");
    let lost = super::sticky::Sticky::new(&sticky, &with.servers).set_cookie(0, false).unwrap();
    let lost = String::from_utf8(lost).unwrap();
    with.sticky = Some(sticky);
    let front = Front::gateway(with);
    for _ in 0..3 {
        let response = ask(&front, &format!("Cookie: {}\r\n", lost.split(';').next().unwrap()));
        assert_eq!(response.text(), "0");
        assert!(pair(&response).is_some());
    }
}

/// 9111-5.2.2.7-03a: a cookie is one client's, and never comes out of the cache for another.
#[test]
fn a_sticky_cookie_is_not_stored() {
    let mut with = plan(&numbered(2, "Cache-Control: max-age=60\r\n"));
    with.sticky = Some(StickyPlan::new("route"));
    let with = Arc::new(with);
    let store = Arc::new(Store::Memory(Memory::new(Limits::default())));
    let cache = eleven_cache::Cache::new(store, Default::default(), Default::default());
    let rules = CacheRules { x_cache: true, ..CacheRules::default() };
    let caching = CachingPlan::new(&cache, Arc::new(rules));
    let front = Front::start(Arc::new(move || {
        let gateway = Gateway::start(Arc::clone(&with));
        Service::single(Handler::Caching(Caching::new(Handler::Gateway(gateway), caching.clone())))
    }));
    let first = ask(&front, "");
    assert_eq!(first.field("x-cache"), Some("MISS"));
    assert!(first.field("set-cookie").unwrap().starts_with("route="));
    for _ in 0..3 {
        let hit = ask(&front, "");
        assert_eq!((hit.field("x-cache"), hit.field("set-cookie")), (Some("HIT"), None));
        assert_eq!((hit.text(), hit.field("cache-control")), (first.text(), Some("max-age=60")));
    }
}

#[test]
fn hashes_go_by_what_they_are_told() {
    let ports = numbered(5, "");
    let with = |key: HashKey| {
        let mut with = plan(&ports);
        with.balance = Balance::Hash(key);
        Front::gateway(with)
    };
    // By a field, by a cookie: the same value to the same server, many values to all of them.
    for (key, line) in [
        (HashKey::Field("x-user".into()), "x-uSer: " as &str),
        (HashKey::Cookie("user".into()), "Cookie: a=b; user="),
    ] {
        let front = with(key);
        let mut seen = BTreeSet::new();
        for value in 0..40 {
            let fields = format!("{line}{value}\r\n");
            let server = ask(&front, &fields).text();
            assert_eq!(ask(&front, &fields).text(), server);
            seen.insert(server);
        }
        assert_eq!(seen.len(), 5);
        // Nothing to hash: in turn.
        assert_eq!((0..5).map(|_| ask(&front, "").text()).collect::<BTreeSet<_>>().len(), 5);
    }
    let front = with(HashKey::Address);
    assert_eq!((0..10).map(|_| ask(&front, "").text()).collect::<BTreeSet<_>>().len(), 1);
}
