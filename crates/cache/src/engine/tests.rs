//! The engine against a scripted origin server: one closure, no connection, simulated time.

mod corruption;
mod filling;
mod model;
mod poisoning;

use super::*;
use crate::memory::{Limits as MemoryLimits, Memory};
use crate::purge::How;
use crate::reply::{Body, Report, Source};
use crate::store::Usage;
use crate::tiered::Tiered;
use bytes::Bytes;
use eleven_net::pipe::{Next, Reason};
use eleven_semantics::Status;
use eleven_semantics::caching::NotStored;
use eleven_semantics::range::{self, ContentRange, RangeLimits, Ranges};
use eleven_semantics::target::Scheme;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// 2026-11-24 12:00:00.
const START: u64 = 1_795_521_600;

/// What the origin server answers.
#[derive(Clone)]
struct Said {
    status: u16,
    fields: Vec<(String, String)>,
    chunks: Vec<Bytes>,
    end: Next2,
    told_length: bool,
    delay_ms: u64,
    chunk_delay_ms: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Next2 {
    Complete,
    Aborted(Reason),
}

fn said(status: u16, fields: &[(&str, &str)], content: &[u8]) -> Said {
    Said {
        status,
        fields: fields.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        chunks: vec![Bytes::copy_from_slice(content)],
        end: Next2::Complete,
        told_length: true,
        delay_ms: 0,
        chunk_delay_ms: 0,
    }
}

type Script = Rc<RefCell<dyn FnMut(&Ask) -> Result<Said, &'static str>>>;

#[derive(Clone)]
struct Origin {
    script: Script,
    asks: Rc<RefCell<Vec<Ask>>>,
    in_flight: Rc<Cell<u32>>,
}

impl Origin {
    fn new(script: impl FnMut(&Ask) -> Result<Said, &'static str> + 'static) -> Origin {
        Origin { script: Rc::new(RefCell::new(script)), asks: Rc::default(), in_flight: Rc::default() }
    }

    fn always(answer: Said) -> Origin {
        Origin::new(move |_| Ok(answer.clone()))
    }

    /// Requests so far.
    fn count(&self) -> usize {
        self.asks.borrow().len()
    }

    /// A field of the last request.
    fn last(&self, name: &str) -> Option<String> {
        let asks = self.asks.borrow();
        asks.last()?.fields.get(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }
}

struct Chunks {
    chunks: std::vec::IntoIter<Bytes>,
    end: Next2,
    delay_ms: u64,
    sleep: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

impl Source for Chunks {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next<()>> {
        if self.delay_ms > 0 {
            let delay = Duration::from_millis(self.delay_ms);
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            std::task::ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(match self.chunks.find(|chunk| !chunk.is_empty()) {
            Some(chunk) => Next::Data(chunk),
            None if self.end == Next2::Complete => Next::Complete(()),
            None => match self.end {
                Next2::Aborted(reason) => Next::Aborted(reason),
                Next2::Complete => Next::Complete(()),
            },
        })
    }
}

use std::future::Future;

impl Inbound for Origin {
    type Error = &'static str;

    async fn send(&self, ask: Ask) -> Result<Answer, &'static str> {
        self.in_flight.set(self.in_flight.get() + 1);
        let said = (self.script.borrow_mut())(&ask);
        self.asks.borrow_mut().push(ask.clone());
        let delay = said.as_ref().map_or(0, |said| said.delay_ms);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        self.in_flight.set(self.in_flight.get() - 1);
        let said = said?;
        let length = said.chunks.iter().map(|c| c.len() as u64).sum();
        Ok(Answer {
            status: Status::new(said.status).unwrap(),
            fields: said
                .fields
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect::<Vec<_>>()
                .iter()
                .collect(),
            length: said.told_length.then_some(length),
            body: Box::new(Chunks {
                chunks: said.chunks.into_iter(),
                end: said.end,
                delay_ms: said.chunk_delay_ms,
                sleep: None,
            }),
        })
    }
}

fn memory_store() -> Store {
    Store::Memory(Memory::new(MemoryLimits::default()))
}

fn cache_with(store: Store, config: Config) -> Arc<Cache> {
    Cache::new(Arc::new(store), config, crate::collapse::Limits::default())
}

fn cache() -> Arc<Cache> {
    cache_with(memory_store(), Config::default())
}

/// What a client got.
#[derive(Debug, PartialEq)]
struct Got {
    status: u16,
    fields: Fields,
    content: Result<Vec<u8>, Reason>,
    word: &'static str,
    report: Report,
}

impl Got {
    fn field(&self, name: &str) -> Option<String> {
        self.fields.get(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }
}

async fn drain(body: Body) -> Result<Vec<u8>, Reason> {
    match body {
        Body::Empty | Body::Described(_) => Ok(Vec::new()),
        Body::Whole(octets) => Ok(octets.to_vec()),
        Body::Reader(mut reader) => reader.read_all().await,
        Body::Pieces(pieces) => Ok(pieces.concat()),
        Body::Flowing(mut source, length) => {
            let mut all = Vec::new();
            loop {
                match std::future::poll_fn(|cx| source.poll_next(cx)).await {
                    Next::Data(data) => all.extend_from_slice(&data),
                    Next::Complete(()) => break,
                    Next::Aborted(reason) => return Err(reason),
                }
            }
            assert!(length.is_none_or(|length| length == all.len() as u64), "the length that was told");
            Ok(all)
        }
    }
}

async fn ask_full(
    cache: &Arc<Cache>,
    origin: &Origin,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Result<Got, Failed<&'static str>> {
    let site = Site { scheme: Scheme::Http, host: b"h".to_vec(), port: 80 };
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let fields: Fields = fields.iter().collect();
    let request = Request {
        method: &method,
        site: &site,
        target: target.as_bytes(),
        fields: &fields,
        has_content: false,
    };
    let reply = match cache.hit(&request, &mut Scratch::default(), now()) {
        Some(reply) => reply,
        None => cache.respond(&request, origin).await?,
    };
    let (status, fields, report) = (reply.status().code(), reply.fields(), reply.report);
    let content = drain(reply.body).await;
    // What was started in the background gets its turn.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    Ok(Got { status, fields, content, word: report.word(), report })
}

use eleven_semantics::caching::key::Site;

async fn get(cache: &Arc<Cache>, origin: &Origin, target: &str, fields: &[(&str, &str)]) -> Got {
    ask_full(cache, origin, "GET", target, fields).await.expect("a reply")
}

/// Runs a test in simulated time, on a worker.
fn simulate(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        clock::set_unix_seconds(START);
        test.await;
    });
    clock::unset();
}

async fn pass_seconds(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

/// 9111-4-02, 9111-4.2-R1, 9111-4-01a, 9111-4-01b, 9111-5.2-01.
#[test]
fn fresh_responses_are_reused_with_age() {
    simulate(async {
        let (cache, origin) =
            (cache(), Origin::always(said(200, &[FRESH, ("X", "1"), ("Age", "5")], b"content")));
        let first = get(&cache, &origin, "/a", &[]).await;
        assert_eq!((first.word, first.content.as_deref()), ("MISS", Ok(&b"content"[..])));
        assert_eq!(first.field("Age").as_deref(), Some("5"));
        assert_eq!(first.field("Cache-Control").as_deref(), Some("max-age=60"));
        pass_seconds(10).await;
        let second = get(&cache, &origin, "/a", &[]).await;
        assert_eq!((second.word, second.content.as_deref()), ("HIT", Ok(&b"content"[..])));
        assert_eq!((second.field("Age").as_deref(), second.field("X").as_deref()), (Some("15"), Some("1")));
        assert_eq!(second.report.ttl_seconds, Some(45));
        assert!(second.fields.contains(Known::Date));
        let head = ask_full(&cache, &origin, "HEAD", "/a", &[]).await.unwrap();
        assert_eq!((head.word, head.content.as_deref()), ("HIT", Ok(&b""[..])));
        assert_eq!(origin.count(), 1);
        get(&cache, &origin, "/a?", &[]).await;
        get(&cache, &origin, "/b", &[]).await;
        assert_eq!(origin.count(), 3);
        pass_seconds(45).await;
        assert_eq!(get(&cache, &origin, "/a", &[]).await.word, "MISS");
    });
}

/// 9111-4.3.1-01, 9111-4.3.1-02, 9111-4.3.3-R1, 9111-4.3.4-02, 9111-3.2-01, 9110-13.1.2-02.
#[test]
fn stale_responses_are_validated_and_freshened() {
    simulate(async {
        let cache = cache();
        let origin = Origin::new(|ask| {
            Ok(match ask.fields.get(Known::IfNoneMatch) {
                Some(b"\"v1\"") => {
                    // The age that it has now is that of the 304.
                    let fields =
                        [("Cache-Control", "max-age=107"), ("ETag", "\"v1\""), ("X", "2"), ("Age", "7")];
                    said(304, &fields, b"")
                }
                _ => said(200, &[FRESH, ("ETag", "\"v1\""), ("X", "1"), ("Kept", "k")], b"content"),
            })
        });
        get(&cache, &origin, "/", &[]).await;
        pass_seconds(61).await;
        let validated = get(&cache, &origin, "/", &[]).await;
        assert_eq!((validated.status, validated.word), (200, "VALIDATED"));
        assert_eq!(validated.content.as_deref(), Ok(&b"content"[..]));
        assert_eq!(
            (validated.field("X").as_deref(), validated.field("Kept").as_deref()),
            (Some("2"), Some("k"))
        );
        assert_eq!(validated.field("Age").as_deref(), Some("7"));
        pass_seconds(99).await;
        let hit = get(&cache, &origin, "/", &[]).await;
        assert_eq!((hit.word, hit.field("X").as_deref()), ("HIT", Some("2")));
        assert_eq!(origin.count(), 2);
        // The client's own validator: 304 to it, from the store and after validation.
        let not_modified = get(&cache, &origin, "/", &[("If-None-Match", "\"v1\"")]).await;
        assert_eq!((not_modified.status, not_modified.word), (304, "HIT"));
        assert_eq!(not_modified.field("ETag").as_deref(), Some("\"v1\""));
        pass_seconds(2).await;
        let not_modified = get(&cache, &origin, "/", &[("If-None-Match", "\"v1\"")]).await;
        assert_eq!((not_modified.status, not_modified.word), (304, "VALIDATED"));
    });
}

/// 9111-4.3.3-02, 9110-13.1.2-02: the tag of what is stored is sent, and a new representation takes the place of the old one.
#[test]
fn a_full_response_to_a_validation_is_stored() {
    simulate(async {
        let cache = cache();
        let version = Rc::new(Cell::new(1u32));
        let current = version.clone();
        let origin = Origin::new(move |_| {
            let tag = format!("\"v{}\"", current.get());
            Ok(said(200, &[FRESH, ("ETag", &tag)], tag.as_bytes()))
        });
        get(&cache, &origin, "/", &[]).await;
        pass_seconds(61).await;
        version.set(2);
        let got = get(&cache, &origin, "/", &[]).await;
        assert_eq!(origin.last("If-None-Match").as_deref(), Some("\"v1\""));
        assert_eq!((got.word, got.content.as_deref()), ("MISS", Ok(&b"\"v2\""[..])));
        let got = get(&cache, &origin, "/", &[]).await;
        assert_eq!((got.word, got.content.as_deref()), ("HIT", Ok(&b"\"v2\""[..])));
        // The old one is gone: nothing offers its tag again.
        pass_seconds(61).await;
        get(&cache, &origin, "/", &[]).await;
        assert_eq!((origin.last("If-None-Match").as_deref(), origin.count()), (Some("\"v2\""), 3));
    });
}

/// 9111-4.3.2-06: a 304 for a tag that the client does not have becomes a 200 from the store.
/// 9111-4.3.2-04: its own tags go along, and a 304 for one of them goes to it.
#[test]
fn tags_of_client_and_cache_together() {
    simulate(async {
        let cache = cache();
        let current = Rc::new(Cell::new("\"v1\""));
        let now_current = current.clone();
        let origin = Origin::new(move |ask| {
            let tag = now_current.get();
            let asked = ask.fields.get(Known::IfNoneMatch).unwrap_or_default();
            Ok(if memchr(asked, tag.as_bytes()) {
                said(304, &[("ETag", tag)], b"")
            } else {
                said(200, &[FRESH, ("ETag", tag)], tag.as_bytes())
            })
        });
        get(&cache, &origin, "/", &[]).await;
        pass_seconds(100).await;
        let got = get(&cache, &origin, "/", &[("If-None-Match", "\"v0\"")]).await;
        assert_eq!((got.status, got.content.as_deref()), (200, Ok(&b"\"v1\""[..])));
        assert_eq!(origin.last("If-None-Match").as_deref(), Some("\"v1\", \"v0\""));
        pass_seconds(100).await;
        current.set("\"v2\"");
        let got = get(&cache, &origin, "/", &[("If-None-Match", "\"v2\"")]).await;
        assert_eq!((got.status, got.field("ETag").as_deref()), (304, Some("\"v2\"")));
        // 9111-4.3.4-01: that changed nothing in the store.
        let got = get(&cache, &origin, "/", &[("Cache-Control", "only-if-cached, max-stale")]).await;
        assert_eq!(got.content.as_deref(), Ok(&b"\"v1\""[..]));
    });
}

fn memchr(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// 9111-4.3.4-01: a 304 that names nothing stored is asked again without conditions, once.
#[test]
fn a_304_for_nothing_known() {
    simulate(async {
        let cache = cache();
        let origin = Origin::new(|ask| {
            Ok(if ask.fields.contains(Known::IfNoneMatch) {
                said(304, &[("ETag", "\"other\"")], b"")
            } else {
                said(200, &[("Cache-Control", "no-cache"), ("ETag", "\"v\"")], b"content")
            })
        });
        get(&cache, &origin, "/", &[]).await;
        let got = get(&cache, &origin, "/", &[]).await;
        assert_eq!((got.status, got.content.as_deref(), origin.count()), (200, Ok(&b"content"[..]), 3));
    });
}

/// 9111-4.2.4-01, 9111-4.2.4-02, 9111-4.3.3-R2, 9111-5.2.2.2-02, 9111-5.2.2.2-03, RFC 5861 §4.
#[test]
fn when_the_origin_server_fails() {
    for (cache_control, answer, expected) in [
        ("max-age=2", None, Ok("STALE")),
        ("max-age=2", Some(503), Ok("MISS")),
        ("max-age=2, stale-if-error=60", Some(503), Ok("STALE")),
        ("max-age=2, stale-if-error=60", None, Ok("STALE")),
        ("max-age=2, stale-if-error=60", Some(404), Ok("MISS")),
        ("max-age=2, must-revalidate", None, Err(Failed::MustRevalidate("down"))),
        ("max-age=2, proxy-revalidate", None, Err(Failed::MustRevalidate("down"))),
        ("s-maxage=2", None, Err(Failed::MustRevalidate("down"))),
        ("max-age=2, no-cache", None, Err(Failed::MustRevalidate("down"))),
        ("no-store", None, Err(Failed::Inbound("down"))),
    ] {
        simulate(async move {
            for etag in [true, false] {
                let cache = cache();
                let asked = Rc::new(Cell::new(0));
                let origin = Origin::new(move |_| {
                    asked.set(asked.get() + 1);
                    match (asked.get(), answer) {
                        (1, _) if etag => {
                            Ok(said(200, &[("Cache-Control", cache_control), ("ETag", "\"a\"")], b"old"))
                        }
                        (1, _) => Ok(said(200, &[("Cache-Control", cache_control)], b"old")),
                        (_, Some(status)) => Ok(said(status, &[], b"error")),
                        (_, None) => Err("down"),
                    }
                });
                get(&cache, &origin, "/", &[]).await;
                pass_seconds(5).await;
                let got = ask_full(&cache, &origin, "GET", "/", &[]).await;
                if !etag && cache_control.contains("no-cache") {
                    // Without a validator it was not stored at all.
                    assert_eq!(got, Err(Failed::MustRevalidate("down")), "{cache_control}");
                    continue;
                }
                match &got {
                    Ok(got) if got.word == "STALE" => {
                        assert_eq!((got.status, got.content.as_deref()), (200, Ok(&b"old"[..])));
                        assert_eq!(got.field("Age").as_deref(), Some("5"));
                    }
                    Ok(got) => assert_eq!(got.content.as_deref(), Ok(&b"error"[..])),
                    Err(_) => {}
                }
                let word = got.as_ref().map(|got| got.word).map_err(|failed| *failed);
                assert_eq!(word, expected, "{cache_control} {answer:?} etag={etag}");
            }
        });
    }
}

/// RFC 5861 §3: served at once, validated by one request in the background.
#[test]
fn stale_while_revalidate() {
    simulate(async {
        let cache = cache();
        let version = Rc::new(Cell::new(0));
        let origin = Origin::new(move |_| {
            version.set(version.get() + 1);
            let mut answer = said(
                200,
                &[("Cache-Control", "max-age=10, stale-while-revalidate=30")],
                &[b'0' + version.get()],
            );
            answer.delay_ms = 1000;
            Ok(answer)
        });
        get(&cache, &origin, "/", &[]).await;
        pass_seconds(15).await;
        for _ in 0..5 {
            let stale = get(&cache, &origin, "/", &[]).await;
            assert_eq!((stale.word, stale.content.as_deref()), ("STALE", Ok(&b"1"[..])));
        }
        assert_eq!(origin.count(), 2, "one for all");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let fresh = get(&cache, &origin, "/", &[]).await;
        assert_eq!((fresh.word, fresh.content.as_deref()), ("HIT", Ok(&b"2"[..])));
        pass_seconds(100).await;
        assert_eq!(get(&cache, &origin, "/", &[]).await.content.as_deref(), Ok(&b"3"[..]));
    });
}

/// 9111-4.1-01, 9111-4.1-R1, 9111-4-01c, 9110-12.5.5-02, C22; several stored variants are offered together.
#[test]
fn variants() {
    simulate(async {
        let cache = cache();
        let origin = Origin::new(|ask| {
            let lang =
                ask.fields.get("Foo").map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
            let tag = format!("\"{lang}\"");
            let asked = ask.fields.get(Known::IfNoneMatch).unwrap_or_default();
            Ok(if lang == "3" && memchr(asked, b"\"1\"") {
                // The same representation for this request as well.
                said(304, &[("ETag", "\"1\""), FRESH, ("Vary", "Foo")], b"")
            } else {
                said(200, &[FRESH, ("ETag", &tag), ("Vary", "Foo")], lang.as_bytes())
            })
        });
        for value in ["1", "2"] {
            let got = get(&cache, &origin, "/", &[("Foo", value)]).await;
            assert_eq!((got.word, got.content.as_deref()), ("MISS", Ok(value.as_bytes())));
        }
        for value in ["1", "2"] {
            let got = get(&cache, &origin, "/", &[("Foo", value)]).await;
            assert_eq!((got.word, got.content.as_deref()), ("HIT", Ok(value.as_bytes())));
        }
        let got = get(&cache, &origin, "/", &[("Foo", "3")]).await;
        assert_eq!(origin.last("If-None-Match").as_deref(), Some("\"1\", \"2\""));
        assert_eq!((got.word, got.content.as_deref()), ("VALIDATED", Ok(&b"1"[..])));
        let got = get(&cache, &origin, "/", &[("Foo", "3")]).await;
        assert_eq!((got.word, got.content.as_deref()), ("HIT", Ok(&b"1"[..])));
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "MISS");
    });
}

/// 9111-4.4-01, 9111-4.4-02, 9111-4.4-03, 9111-4.4-R1, 9111-4-03, C24, RFC 9875.
#[test]
fn unsafe_methods_invalidate() {
    simulate(async {
        for (method, status, fields, gone) in [
            ("POST", 200, &[][..], &["/a"][..]),
            ("PUT", 204, &[], &["/a"]),
            ("DELETE", 303, &[("Location", "/b")], &["/a", "/b"]),
            ("M-SEARCH", 200, &[("Content-Location", "b")], &["/a", "/b"]),
            (
                "POST",
                201,
                &[("Location", "http://elsewhere/b"), ("Content-Location", "http://h:81/b")],
                &["/a"],
            ),
            ("POST", 500, &[("Location", "/b")], &[]),
            ("POST", 404, &[], &[]),
            ("OPTIONS", 200, &[], &[]),
            ("POST", 200, &[("Cache-Group-Invalidation", "\"g\"")], &["/a", "/grouped", "/grouped2"]),
            ("OPTIONS", 200, &[("Cache-Group-Invalidation", "\"g\"")], &[]),
        ] {
            let cache = cache();
            let origin = Origin::new(move |ask| {
                Ok(if ask.method == Method::Get {
                    let grouped = ask.target.starts_with(b"/grouped");
                    said(200, &[FRESH, ("Cache-Groups", if grouped { "\"g\"" } else { "\"x\"" })], b"x")
                } else {
                    said(status, fields, b"")
                })
            });
            let targets = ["/a", "/b", "/grouped", "/grouped2"];
            for target in targets {
                // `/a` and `/b` would fall together by their group; keep them apart here.
                get(&cache, &origin, target, &[]).await;
            }
            let answer = ask_full(&cache, &origin, method, "/a", &[]).await.unwrap();
            assert_eq!((answer.status, answer.word), (status, "BYPASS"));
            for target in targets {
                let hit = get(&cache, &origin, target, &[]).await.word == "HIT";
                let by_group = target == "/b" && !gone.is_empty();
                assert_eq!(
                    hit,
                    !gone.contains(&target) && !by_group,
                    "{method} {status} {fields:?} {target}"
                );
            }
        }
    });
}

/// A response that was asked for before an invalidation is not stored after it.
#[test]
fn invalidation_meets_what_is_under_way() {
    simulate(async {
        let cache = cache();
        let origin = Origin::new(|ask| {
            let mut answer = said(200, &[FRESH], b"old");
            if ask.method == Method::Get {
                answer.chunk_delay_ms = 1000;
            }
            Ok(answer)
        });
        let (c, o) = (cache.clone(), origin.clone());
        let slow = tokio::task::spawn_local(async move { get(&c, &o, "/", &[]).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        ask_full(&cache, &origin, "POST", "/", &[]).await.unwrap();
        assert_eq!(slow.await.unwrap().content.as_deref(), Ok(&b"old"[..]));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "MISS");
    });
}

/// RFC 9110 §9.3.3.
#[test]
fn a_response_to_post_may_answer_get() {
    simulate(async {
        let cache = cache();
        let origin = Origin::always(said(200, &[FRESH, ("Content-Location", "/form")], b"result"));
        let post = ask_full(&cache, &origin, "POST", "/form", &[]).await.unwrap();
        assert_eq!(post.content.as_deref(), Ok(&b"result"[..]));
        let got = get(&cache, &origin, "/form", &[]).await;
        assert_eq!((got.word, got.content.as_deref()), ("HIT", Ok(&b"result"[..])));
        // But the next POST goes through.
        assert_eq!(ask_full(&cache, &origin, "POST", "/form", &[]).await.unwrap().word, "BYPASS");
        assert_eq!(origin.count(), 2);
        ask_full(&cache, &origin, "POST", "/other", &[]).await.unwrap();
        assert_eq!(get(&cache, &origin, "/other", &[]).await.word, "MISS");
    });
}

/// 9111-4.3.5-01, 9111-4.3.5-02a, 9111-4.3.5-02b, C19.
#[test]
fn head_updates_or_marks() {
    simulate(async {
        // Without validators HEAD is the only way to make a response fresh again without fetching it (9111-4.3.5-01).
        let origin = Origin::new(|ask| {
            let max_age = if ask.method == Method::Head { "max-age=1000" } else { "max-age=60" };
            let x = if ask.method == Method::Head { "2" } else { "1" };
            Ok(said(200, &[("Cache-Control", max_age), ("X", x), ("Kept", "k")], b"content"))
        });
        let bare = cache();
        get(&bare, &origin, "/", &[]).await;
        pass_seconds(61).await;
        ask_full(&bare, &origin, "HEAD", "/", &[]).await.unwrap();
        let got = get(&bare, &origin, "/", &[]).await;
        assert_eq!(
            (got.word, got.field("X").as_deref(), got.field("Kept").as_deref()),
            ("HIT", Some("2"), Some("k"))
        );
        assert_eq!(got.content.as_deref(), Ok(&b"content"[..]));
        for (tag, updates) in [("\"v1\"", true), ("\"v2\"", false)] {
            let cache = cache();
            let origin = Origin::new(move |ask| {
                Ok(if ask.method == Method::Head {
                    said(200, &[("Cache-Control", "max-age=1000"), ("ETag", tag), ("X", "2")], b"content")
                } else {
                    said(200, &[FRESH, ("ETag", "\"v1\""), ("X", "1")], b"content")
                })
            });
            get(&cache, &origin, "/", &[]).await;
            pass_seconds(61).await;
            let head = ask_full(&cache, &origin, "HEAD", "/", &[]).await.unwrap();
            assert_eq!((head.field("X").as_deref(), head.content.as_deref()), (Some("2"), Ok(&b""[..])));
            let got = get(&cache, &origin, "/", &[]).await;
            assert_eq!(got.word == "HIT", updates, "{tag}");
            assert_eq!(got.field("X").as_deref(), Some(if updates { "2" } else { "1" }));
        }
    });
}

/// 9111-5.2.1.7-01, 9111-5.2.1.4-R1, 9111-5.2.1.5-01.
#[test]
fn directives_of_requests() {
    simulate(async {
        let (cache, origin) = (cache(), Origin::always(said(200, &[FRESH], b"x")));
        let only = [("Cache-Control", "only-if-cached")];
        let got = get(&cache, &origin, "/", &only).await;
        assert_eq!((got.status, got.word, origin.count()), (504, "NONE", 0));
        get(&cache, &origin, "/", &[("Cache-Control", "no-store")]).await;
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "MISS");
        assert_eq!(get(&cache, &origin, "/", &only).await.word, "HIT");
        for fields in [("Cache-Control", "no-cache"), ("Pragma", "no-cache"), ("Cache-Control", "max-age=0")]
        {
            assert_eq!(get(&cache, &origin, "/", &[fields]).await.word, "MISS", "{fields:?}");
        }
        assert_eq!(get(&cache, &origin, "/", &[("Cache-Control", "no-store")]).await.word, "HIT");
    });
}

/// 9111-4.3.2-02, C03: what only the origin server may judge goes past the store.
#[test]
fn bypasses() {
    simulate(async {
        let (cache, origin) = (cache(), Origin::always(said(200, &[FRESH], b"x")));
        get(&cache, &origin, "/", &[]).await;
        for fields in [("If-Match", "\"a\""), ("If-Unmodified-Since", "x"), ("Range", "rows=1-2")] {
            assert_eq!(get(&cache, &origin, "/", &[fields]).await.word, "BYPASS", "{fields:?}");
        }
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "HIT");
    });
}

/// C29: what broke off is not stored, and every reader is told.
#[test]
fn truncated_responses_are_not_stored() {
    simulate(async {
        for told_length in [true, false] {
            let cache = cache();
            let origin = Origin::new(move |_| {
                let mut answer = said(200, &[FRESH], b"only a part");
                answer.end = Next2::Aborted(Reason::Truncated);
                answer.told_length = told_length;
                Ok(answer)
            });
            assert_eq!(get(&cache, &origin, "/", &[]).await.content, Err(Reason::Truncated));
            assert_eq!(get(&cache, &origin, "/", &[]).await.word, "MISS");
        }
    });
}

/// C30.
#[test]
fn content_that_does_not_match_its_digest_is_not_stored() {
    simulate(async {
        let right = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
        for (content, stored) in [(&b"hello"[..], true), (b"hellO", false)] {
            let (cache, origin) =
                (cache(), Origin::always(said(200, &[FRESH, ("Content-Digest", right)], content)));
            get(&cache, &origin, "/", &[]).await;
            assert_eq!(get(&cache, &origin, "/", &[]).await.word == "HIT", stored);
        }
    });
}

/// 9111-4-R1: 1,000 requests for one expired response: one to the origin server.
#[test]
fn collapsed_requests() {
    simulate(async {
        for etag in [true, false] {
            let cache = cache();
            let origin = Origin::new(move |ask| {
                let mut answer = if ask.fields.contains(Known::IfNoneMatch) {
                    said(304, &[FRESH, ("ETag", "\"a\"")], b"")
                } else if etag {
                    said(200, &[FRESH, ("ETag", "\"a\"")], b"content")
                } else {
                    said(200, &[FRESH], b"content")
                };
                answer.delay_ms = 200;
                answer.chunk_delay_ms = 200;
                Ok(answer)
            });
            for round in 1..=3 {
                let clients: Vec<_> = (0..1000)
                    .map(|_| {
                        let (cache, origin) = (cache.clone(), origin.clone());
                        tokio::task::spawn_local(async move { get(&cache, &origin, "/", &[]).await })
                    })
                    .collect();
                for client in clients {
                    let got = client.await.unwrap();
                    assert_eq!((got.status, got.content.as_deref()), (200, Ok(&b"content"[..])));
                }
                assert_eq!(origin.count(), round);
                pass_seconds(61).await;
            }
        }
    });
}

/// Results that cannot be shared release all who wait at once: no line.
#[test]
fn uncacheable_results_release_the_waiters_together() {
    simulate(async {
        for fields in
            [&[("Cache-Control", "no-store")][..], &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")]]
        {
            let cache = cache();
            let owned: Vec<(&'static str, &'static str)> = fields.to_vec();
            let origin = Origin::new(move |_| {
                let mut answer = said(200, &owned, b"x");
                answer.delay_ms = 100;
                Ok(answer)
            });
            let before = clock::now();
            let clients: Vec<_> = (0..200)
                .map(|_| {
                    let (cache, origin) = (cache.clone(), origin.clone());
                    tokio::task::spawn_local(async move { get(&cache, &origin, "/", &[]).await })
                })
                .collect();
            for client in clients {
                assert_eq!(client.await.unwrap().status, 200);
            }
            assert!(before.elapsed() < Duration::from_millis(250), "two trips, not two hundred");
            assert_eq!(origin.count(), 200);
            // Remembered: the next ones do not wait even once.
            let before = clock::now();
            tokio::join!(get(&cache, &origin, "/", &[]), get(&cache, &origin, "/", &[]));
            assert!(before.elapsed() < Duration::from_millis(150));
        }
    });
}

/// The client that fetches goes away: with nobody else the fetch ends, with others one of them takes over; once
/// the content flows it goes on by itself.
#[test]
fn a_fetcher_that_goes_away() {
    simulate(async {
        let cache = cache();
        let origin = Origin::new(|_| {
            let mut answer = said(200, &[FRESH], b"content");
            answer.delay_ms = 100;
            answer.chunk_delay_ms = 100;
            Ok(answer)
        });
        let spawn = || {
            let (cache, origin) = (cache.clone(), origin.clone());
            tokio::task::spawn_local(async move { get(&cache, &origin, "/", &[]).await })
        };
        let (first, second) = (spawn(), spawn());
        tokio::time::sleep(Duration::from_millis(50)).await;
        first.abort();
        assert_eq!(second.await.unwrap().content.as_deref(), Ok(&b"content"[..]));
        assert_eq!(origin.count(), 2);
        cache.purge(&Selection::All, How::Hard).await;
        let third = spawn();
        tokio::time::sleep(Duration::from_millis(150)).await;
        third.abort();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "HIT");
        assert_eq!(origin.count(), 3);
    });
}

/// When the origin server is down, all who wait learn it at once.
#[test]
fn a_failure_is_shared() {
    simulate(async {
        let cache = cache();
        let origin = Origin::new(|_| Err("down"));
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let (cache, origin) = (cache.clone(), origin.clone());
                tokio::task::spawn_local(
                    async move { ask_full(&cache, &origin, "GET", "/", &[]).await.err() },
                )
            })
            .collect();
        for client in clients {
            assert!(client.await.unwrap().is_some());
        }
        assert!(origin.count() <= 50);
    });
}

/// 9111-3.3-05, 9111-3.3-06, 9110-14.2: ranges from complete stored responses.
#[test]
fn ranges_from_complete_responses() {
    simulate(async {
        let ranges = RangeLimits { gap_bytes_max: 0, ..RangeLimits::default() };
        let cache = cache_with(memory_store(), Config { ranges, ..Config::default() });
        let origin = Origin::always(said(200, &[FRESH, ("ETag", "\"a\"")], b"0123456789A"));
        get(&cache, &origin, "/", &[]).await;
        for (range, status, content, content_range) in [
            ("bytes=0-1", 206, &b"01"[..], Some("bytes 0-1/11")),
            ("bytes=1-", 206, b"123456789A", Some("bytes 1-10/11")),
            ("bytes=-1", 206, b"A", Some("bytes 10-10/11")),
            ("bytes=5-400", 206, b"56789A", Some("bytes 5-10/11")),
            ("bytes=11-", 416, b"", Some("bytes */11")),
            ("bytes=5-1", 200, b"0123456789A", None),
        ] {
            let got = get(&cache, &origin, "/", &[("Range", range)]).await;
            assert_eq!((got.status, got.content.as_deref()), (status, Ok(content)), "{range}");
            assert_eq!(got.field("Content-Range").as_deref(), content_range, "{range}");
            assert_eq!(got.word, "HIT");
        }
        let got = get(&cache, &origin, "/", &[("Range", "bytes=0-1,-1")]).await;
        let media_type = got.field("Content-Type").unwrap();
        let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        let expected = format!(
            "\r\n--{boundary}\r\nContent-Range: bytes 0-1/11\r\n\r\n01\r\n--{boundary}\r\n\
             Content-Range: bytes 10-10/11\r\n\r\nA\r\n--{boundary}--\r\n"
        );
        assert_eq!((got.status, got.content.as_deref()), (206, Ok(expected.as_bytes())));
        let conditional = |tag| [("Range", "bytes=0-1"), ("If-Range", tag)];
        assert_eq!(get(&cache, &origin, "/", &conditional("\"a\"")).await.status, 206);
        assert_eq!(get(&cache, &origin, "/", &conditional("\"b\"")).await.status, 200);
        assert_eq!(origin.count(), 1);
    });
}

/// An origin server that knows ranges, of the digits.
fn ranged(ask: &Ask) -> Said {
    let content = b"0123456789";
    let tag = ("ETag", "\"a\"");
    let limits = RangeLimits::default();
    let no_validators = eleven_semantics::validator::Validators {
        etag: eleven_semantics::validator::EntityTag::parse(b"\"a\""),
        last_modified: None,
        exists: true,
    };
    match range::select(&ask.method, &ask.fields, &no_validators, 10, HttpDate(0), &limits) {
        Ranges::Single(span) => {
            let value = ContentRange::Part { span, complete: Some(10) }.to_bytes();
            let value = String::from_utf8(value).unwrap();
            said(
                206,
                &[FRESH, tag, ("Content-Range", &value)],
                &content[span.first as usize..=span.last as usize],
            )
        }
        _ => said(200, &[FRESH, tag], content),
    }
}

/// 9111-3.3-02, 9111-3.3-04, 9111-3.3-05, 9111-3.4-01, 9111-3.4-02, 9111-4.3.1-03, 9111-4.3.2-05, C18.
/// Faults G05 and G08.
#[test]
fn partial_responses_are_stored_combined_and_completed() {
    simulate(async {
        let (cache, origin) = (cache(), Origin::new(|ask| Ok(ranged(ask))));
        let range = async |range, word, content: &'static [u8]| {
            let got = get(&cache, &origin, "/", &[("Range", range)]).await;
            assert_eq!((got.status, got.word, got.content.as_deref()), (206, word, Ok(content)), "{range}");
        };
        range("bytes=2-5", "MISS", b"2345").await;
        range("bytes=2-5", "HIT", b"2345").await;
        range("bytes=3-4", "HIT", b"34").await;
        range("bytes=5-6", "MISS", b"56").await;
        range("bytes=2-6", "HIT", b"23456").await;
        range("bytes=-1", "MISS", b"9").await;
        range("bytes=-1", "HIT", b"9").await;
        range("bytes=9-", "HIT", b"9").await;
        range("bytes=0-1", "MISS", b"01").await;
        range("bytes=0-6", "HIT", b"0123456").await;
        assert_eq!(origin.count(), 4);
        // Not a prefix with nothing else: the whole is asked for anew, and answers everything afterwards.
        let whole = get(&cache, &origin, "/", &[]).await;
        assert_eq!((whole.status, whole.content.as_deref()), (200, Ok(&b"0123456789"[..])));
        range("bytes=7-8", "HIT", b"78").await;
        assert_eq!(origin.count(), 5);

        // A prefix is completed by asking for the rest.
        cache.purge(&Selection::All, How::Hard).await;
        range("bytes=0-3", "MISS", b"0123").await;
        let whole = get(&cache, &origin, "/", &[]).await;
        assert_eq!((whole.status, whole.content.as_deref()), (200, Ok(&b"0123456789"[..])));
        assert_eq!(origin.last("Range").as_deref(), Some("bytes=4-"));
        assert_eq!(origin.last("If-Range").as_deref(), Some("\"a\""));
        let whole = get(&cache, &origin, "/", &[]).await;
        assert_eq!((whole.word, whole.content.as_deref()), ("HIT", Ok(&b"0123456789"[..])));
        assert_eq!(whole.field("Content-Range"), None);

        // Parts that together are the whole, are it.
        cache.purge(&Selection::All, How::Hard).await;
        range("bytes=5-", "MISS", b"56789").await;
        range("bytes=0-4", "MISS", b"01234").await;
        let whole = get(&cache, &origin, "/", &[]).await;
        assert_eq!((whole.word, whole.content.as_deref()), ("HIT", Ok(&b"0123456789"[..])));
    });
}

/// 9110-15.3.7.3-02, 9110-15.3.7.3-03, 9110-15.3.7.3-04: what parts are put together tells the fields of the newest of
/// them, and is a 200 only once nothing is missing.
#[test]
fn fields_of_what_was_put_together() {
    simulate(async {
        let cache = cache();
        let asked = Rc::new(Cell::new(0));
        let origin = Origin::new(move |ask| {
            asked.set(asked.get() + 1);
            let mut answer = ranged(ask);
            answer.fields.push(("X-Asked".into(), asked.get().to_string()));
            Ok(answer)
        });
        get(&cache, &origin, "/", &[("Range", "bytes=5-9")]).await;
        get(&cache, &origin, "/", &[("Range", "bytes=2-4")]).await;
        let part = get(&cache, &origin, "/", &[("Range", "bytes=2-9")]).await;
        assert_eq!((part.status, part.word, part.content.as_deref()), (206, "HIT", Ok(&b"23456789"[..])));
        assert_eq!(part.field("X-Asked"), Some("2".into()));
        assert_eq!(part.field("Content-Range"), Some("bytes 2-9/10".into()));
        get(&cache, &origin, "/", &[("Range", "bytes=0-1")]).await;
        let whole = get(&cache, &origin, "/", &[]).await;
        assert_eq!(
            (whole.status, whole.word, whole.content.as_deref()),
            (200, "HIT", Ok(&b"0123456789"[..]))
        );
        assert_eq!((whole.field("X-Asked"), whole.field("Content-Range")), (Some("3".into()), None));
    });
}

/// 9111-3.4-01: parts of different representations are never put together.
#[test]
fn parts_of_different_representations() {
    simulate(async {
        let cache = cache();
        let version = Rc::new(Cell::new(0u8));
        let seen = version.clone();
        let origin = Origin::new(move |ask| {
            let mut answer = ranged(ask);
            let tag = format!("\"v{}\"", seen.get());
            for field in &mut answer.fields {
                if field.0 == "ETag" {
                    field.1 = tag.clone();
                }
            }
            answer.chunks =
                answer.chunks.iter().map(|c| c.iter().map(|b| b + seen.get()).collect()).collect();
            Ok(answer)
        });
        get(&cache, &origin, "/", &[("Range", "bytes=0-4")]).await;
        version.set(1);
        get(&cache, &origin, "/", &[("Range", "bytes=5-9")]).await;
        let whole = get(&cache, &origin, "/", &[]).await;
        assert_eq!(whole.content.as_deref(), Ok(&b"123456789:"[..]));
        assert_eq!(whole.word, "MISS");
    });
}

/// C05, C33 and the rest of the disk: a second engine over the same directory finds what the first stored.
#[test]
fn a_cache_on_disk_survives_and_heals() {
    let root = std::env::temp_dir().join(format!("eleven-engine-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    let open = || {
        let disk = crate::disk::Disk::open(&root, crate::disk::Limits::default()).unwrap();
        let limits = MemoryLimits { bytes_max: 1 << 20, object_bytes_max: 1 << 18, variants_max: 8 };
        cache_with(Store::Tiered(Tiered::new(Memory::new(limits), disk)), Config::default())
    };
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    let known = content.clone();
    let origin = move || {
        let content = known.clone();
        Origin::new(move |ask| {
            let content = if ask.target == b"/small" { &content[..1000] } else { &content[..] };
            let tag = ("ETag", "\"a\"");
            let limits = RangeLimits::default();
            let validators = eleven_semantics::validator::Validators {
                etag: eleven_semantics::validator::EntityTag::parse(b"\"a\""),
                last_modified: None,
                exists: true,
            };
            let length = content.len() as u64;
            Ok(match range::select(&ask.method, &ask.fields, &validators, length, HttpDate(0), &limits) {
                Ranges::Single(span) => {
                    let value = ContentRange::Part { span, complete: Some(length) }.to_bytes();
                    let value = String::from_utf8(value).unwrap();
                    let part = &content[span.first as usize..=span.last as usize];
                    said(206, &[FRESH, tag, ("Content-Range", &value)], part)
                }
                _ => {
                    let mut answer = said(200, &[FRESH, tag], b"");
                    answer.chunks = content.chunks(10_000).map(Bytes::copy_from_slice).collect();
                    answer
                }
            })
        })
    };
    simulate(async {
        {
            let (cache, origin) = (open(), origin());
            for target in ["/small", "/large"] {
                get(&cache, &origin, target, &[]).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(cache.usage().disk_keys, 2);
        }
        let (cache, origin) = (open(), origin());
        let small = get(&cache, &origin, "/small", &[]).await;
        assert_eq!((small.word, small.content.as_deref()), ("HIT", Ok(&content[..1000])));
        let large = get(&cache, &origin, "/large", &[]).await;
        assert_eq!(large.word, "HIT");
        assert!(large.content.as_deref() == Ok(&content[..]));
        let part = get(&cache, &origin, "/large", &[("Range", "bytes=1999990-2000009")]).await;
        assert_eq!((part.status, part.content.as_deref()), (206, Ok(&content[1_999_990..2_000_010])));
        assert_eq!(origin.count(), 0);

        // One bad octet in the middle: the client gets every octet right, and the next one a new copy.
        let body = std::fs::read_dir(&root)
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read_dir(entry.path()).ok())
            .flat_map(|directory| directory.flatten().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "body"))
            .unwrap();
        let mut octets = std::fs::read(&body).unwrap();
        octets[2_000_000] ^= 1;
        std::fs::write(&body, octets).unwrap();
        let healed = get(&cache, &origin, "/large", &[]).await;
        assert!(healed.content.as_deref() == Ok(&content[..]));
        assert_eq!(origin.count(), 1);
        assert_eq!(origin.last("If-Range").as_deref(), Some("\"a\""));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = get(&cache, &origin, "/large", &[]).await;
        assert!(again.word == "MISS" && again.content.as_deref() == Ok(&content[..]));
    });
    let _ = std::fs::remove_dir_all(&root);
}

/// A response too large for the store still reaches every client, and the store stays within its limits.
/// Fault D35.
#[test]
fn responses_too_large_pass_through() {
    simulate(async {
        let limits = MemoryLimits { bytes_max: 1 << 20, object_bytes_max: 1 << 18, variants_max: 8 };
        let cache = cache_with(Store::Memory(Memory::new(limits)), Config::default());
        let content: Vec<u8> = (0..5_000_000u32).map(|i| (i / 3) as u8).collect();
        let known = content.clone();
        let origin = Origin::new(move |_| {
            let mut answer = said(200, &[FRESH], b"");
            answer.chunks = known.chunks(50_000).map(Bytes::copy_from_slice).collect();
            answer.told_length = false;
            answer.chunk_delay_ms = 1;
            Ok(answer)
        });
        let clients: Vec<_> = (0..5)
            .map(|_| {
                let (cache, origin) = (cache.clone(), origin.clone());
                tokio::task::spawn_local(async move { get(&cache, &origin, "/", &[]).await })
            })
            .collect();
        for client in clients {
            assert!(client.await.unwrap().content.as_deref() == Ok(&content[..]));
        }
        assert_eq!(origin.count(), 1, "all five follow the one fill");
        assert_eq!(cache.usage(), Usage::default());
        assert_eq!(cache.filling_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert!(get(&cache, &origin, "/", &[]).await.content.as_deref() == Ok(&content[..]));
    });
}

#[test]
fn purging() {
    simulate(async {
        let (cache, origin) = (cache(), Origin::always(said(200, &[FRESH, ("Surrogate-Key", "red")], b"x")));
        for target in ["/a/1", "/a/2", "/b"] {
            get(&cache, &origin, target, &[]).await;
        }
        let prefix = Selection::uri("http://h/a/*").unwrap();
        assert_eq!(cache.purge(&prefix, How::DryRun).await, 2);
        assert_eq!(cache.purge(&prefix, How::Hard).await, 2);
        assert_eq!(get(&cache, &origin, "/b", &[]).await.word, "HIT");
        assert_eq!(get(&cache, &origin, "/a/1", &[]).await.word, "MISS");
        assert_eq!(cache.purge(&Selection::Tag("red".into()), How::Soft).await, 2);
        assert_eq!(get(&cache, &origin, "/b", &[]).await.word, "MISS");
        assert_eq!(get(&cache, &origin, "/b", &[]).await.word, "HIT");
        assert_eq!(cache.purge(&Selection::Tag("blue".into()), How::Hard).await, 0);
    });
}

/// What an operator is told of what is stored: newest first, bounded, and by selection.
#[test]
fn listing() {
    simulate(async {
        let vary = ("Vary", "Foo");
        let origin = Origin::always(said(200, &[FRESH, vary, ("Cache-Tag", "red")], b"octets"));
        let cache = cache();
        for (target, foo) in [("/a?1", "1"), ("/a?1", "2"), ("/b", "1")] {
            get(&cache, &origin, target, &[("Foo", foo)]).await;
        }
        pass_seconds(5).await;
        cache.purge(&Selection::uri("http://h/b").unwrap(), How::Soft).await;
        let (entries, total) = cache.list(&Selection::All, 2).await;
        assert_eq!((entries.len(), total), (2, 3));
        let first = &entries[0];
        assert_eq!((first.uri.as_str(), first.status, first.bytes), ("http://h/b", 200, Some(6)));
        assert_eq!((first.age_seconds, first.ttl_seconds, first.lifetime_from), (5, 55, "max-age"));
        assert!(first.is_marked && first.in_memory && !first.on_disk && !first.is_partial);
        assert_eq!((&first.tags[..], &first.vary[..]), (&["red".to_owned()][..], &["foo".to_owned()][..]));
        assert!(!entries[1].is_marked && entries[1].uri == "http://h/a?1");
        let (entries, total) = cache.list(&Selection::uri("http://h/a?1").unwrap(), 9).await;
        assert_eq!((entries.len(), total), (2, 2));
        // Looking is no use: nothing was asked for meanwhile.
        assert_eq!(origin.count(), 3);
        let (entries, total) = cache.list(&Selection::All, 0).await;
        assert_eq!((entries.len(), total), (0, 3));
    });
}

/// Two routes over one store, each under its own rules: what one makes invalid is invalid for both.
#[test]
fn one_store_under_several_rules() {
    simulate(async {
        let origin = Origin::always(said(200, &[("Cache-Control", "max-age=600")], b"x"));
        let one = cache();
        let short = Policy { lifetime_seconds_max: 10, ..Policy::default() };
        let keys = KeyRules { partition: "b".into(), ..KeyRules::default() };
        let two = one.with(Config { policy: Arc::new(short), keys, ..Config::default() });
        for cache in [&one, &two] {
            assert_eq!(get(cache, &origin, "/", &[]).await.word, "MISS");
            assert_eq!(get(cache, &origin, "/", &[]).await.word, "HIT");
        }
        pass_seconds(11).await;
        assert_eq!(get(&one, &origin, "/", &[]).await.word, "HIT");
        assert_eq!(get(&two, &origin, "/", &[]).await.word, "MISS");
        assert_eq!(one.purge(&Selection::uri("http://h/").unwrap(), How::Hard).await, 2);
        assert_eq!(get(&one, &origin, "/", &[]).await.word, "MISS");
        assert_eq!(get(&two, &origin, "/", &[]).await.word, "MISS");
    });
}

/// C02, C06: what is keyed is what is forwarded.
#[test]
fn ignored_parameters_are_not_forwarded() {
    simulate(async {
        let keys = KeyRules { ignore_parameters: vec!["utm_*".into()], ..KeyRules::default() };
        let cache = cache_with(memory_store(), Config { keys, ..Config::default() });
        let origin = Origin::always(said(200, &[FRESH], b"x"));
        get(&cache, &origin, "/a?utm_source=evil&b=1", &[]).await;
        assert_eq!(origin.asks.borrow()[0].target, b"/a?b=1");
        assert_eq!(get(&cache, &origin, "/a?b=1&utm_x", &[]).await.word, "HIT");
    });
}

/// C07, C08, C09: nothing is stored for what its path looks like; C13, C16: every octet of the target and the
/// host is in the key; C25: PURGE means nothing here; C31, C32: partitions do not see each other; C36: content
/// is never looked into.
#[test]
fn deception_and_poisoning() {
    simulate(async {
        let account =
            Origin::always(said(200, &[("Content-Type", "text/css")], b"private <!--#include --><esi:x/>"));
        let cache = cache();
        for target in
            ["/account/x.css", "/account;x.css", "/account%00.css", "/account%23.css", "/static/..%2faccount"]
        {
            for _ in 0..2 {
                let got = get(&cache, &account, target, &[]).await;
                assert_eq!((got.word, got.content.as_deref().map(<[u8]>::len)), ("MISS", Ok(32)), "{target}");
                assert_eq!(got.report.not_stored, Some(NotStored::NoUse));
            }
        }
        let redirect = Origin::new(|ask| {
            let to = format!("http://h{}", String::from_utf8_lossy(&ask.target));
            Ok(said(301, &[FRESH, ("Location", &to)], b""))
        });
        for target in ["/r?a", "/r?a=", "/r?A", "/r%3Fa", "/r//?a", "/R?a", "/r;x?a"] {
            let got = get(&cache, &redirect, target, &[]).await;
            assert_eq!((got.word, got.field("Location")), ("MISS", Some(format!("http://h{target}"))));
        }
        let before = redirect.count();
        let purge = ask_full(&cache, &redirect, "PURGE", "/r?A", &[]).await.unwrap();
        assert_eq!((purge.word, redirect.count()), ("BYPASS", before + 1));

        let store = Arc::new(memory_store());
        let tenant = |name: &str| {
            let keys = KeyRules { partition: name.into(), ..KeyRules::default() };
            Cache::new(store.clone(), Config { keys, ..Config::default() }, Default::default())
        };
        let origin = Origin::always(said(200, &[FRESH], b"x"));
        let (a, b) = (tenant("a"), tenant("b"));
        get(&a, &origin, "/", &[]).await;
        assert_eq!(get(&b, &origin, "/", &[]).await.word, "MISS");
        assert_eq!(get(&a, &origin, "/", &[]).await.word, "HIT");
    });
}

/// 9111-5.2.1.5-02, 9111-5.2.2.5-01b, 9111-5.2.2.5-02: no-store leaves no copy, on disk or elsewhere.
#[test]
fn no_store_leaves_nothing() {
    let root = std::env::temp_dir().join(format!("eleven-no-store-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    simulate(async {
        let disk = crate::disk::Disk::open(&root, crate::disk::Limits::default()).unwrap();
        let cache = cache_with(
            Store::Tiered(Tiered::new(Memory::new(MemoryLimits::default()), disk)),
            Config::default(),
        );
        let secret = vec![b's'; 100_000];
        let refusing = Origin::always(said(200, &[("Cache-Control", "no-store, max-age=60")], &secret));
        let allowing = Origin::always(said(200, &[FRESH], &secret));
        for (origin, request) in [(&refusing, &[][..]), (&allowing, &[("Cache-Control", "no-store")])] {
            for _ in 0..2 {
                assert_eq!(get(&cache, origin, "/", request).await.word, "MISS");
            }
        }
        assert_eq!(cache.usage(), Usage::default());
        let files = std::fs::read_dir(&root).unwrap().flatten().filter(|entry| entry.path().is_dir());
        assert_eq!(files.flat_map(|directory| std::fs::read_dir(directory.path()).unwrap()).count(), 0);
    });
    let _ = std::fs::remove_dir_all(&root);
}
