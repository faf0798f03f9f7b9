use super::*;
use crate::plan::CachePlan;
use crate::request::Peer;
use crate::response::Content;
use eleven_cache::{Answer, Ask, Inbound, content::Reader};
use eleven_semantics::caching::key::Site;
use eleven_semantics::target::Scheme;
use eleven_semantics::{Fields, RequestTarget};
use std::rc::Rc;

/// An origin server that says the same of everything.
#[derive(Clone)]
struct Origin;

impl Inbound for Origin {
    type Error = ();
    async fn send(&self, ask: Ask) -> Result<Answer, ()> {
        let tag = if ask.target.starts_with(b"/a") { "red" } else { "blue" };
        let pairs = [("Cache-Control", "max-age=60"), ("Surrogate-Key", tag), ("Cache-Groups", "\"g\"")];
        let fields: Fields = pairs.iter().collect();
        let body = Box::new(Reader::of(bytes::Bytes::from_static(b"octets")));
        Ok(Answer { status: Status::OK, fields, length: Some(6), body })
    }
}

async fn fill(cache: &Arc<Cache>, target: &str) {
    let site = Site { scheme: Scheme::Http, host: b"h".to_vec(), port: 80 };
    let fields = Fields::new();
    let request = eleven_cache::Request {
        method: &Method::Get,
        site: &site,
        target: target.as_bytes(),
        fields: &fields,
        has_content: false,
    };
    let reply = cache.respond(&request, &Origin).await.expect("the origin server answers");
    // It is stored as it is read.
    match reply.body {
        eleven_cache::Body::Reader(mut reader) => assert_eq!(reader.read_all().await.unwrap(), b"octets"),
        eleven_cache::Body::Flowing(mut source, _) => {
            while let eleven_net::pipe::Next::Data(_) = std::future::poll_fn(|cx| source.poll_next(cx)).await
            {
            }
        }
        _ => panic!("it has content"),
    }
}

async fn ask(cache: &Arc<Cache>, method: Method, target: &str) -> (u16, Value) {
    let mut request = Request::new(Rc::new(Peer {
        address: None,
        scheme: Scheme::Http,
        local_port: 0,
        listener: None,
        server_name: None,
    }));
    request.head.target = RequestTarget::parse(&method, target.as_bytes()).unwrap();
    request.head.method = method;
    let response = match answer(cache.clone(), &[("HIT", 2)].into(), &mut request) {
        Handled::Ready(response) => response,
        Handled::Soon(soon) => soon.into_later(0).1.await,
        Handled::Later(future) => future.await,
    };
    let Content::Bytes(octets) = &response.content else { panic!("it has content") };
    (response.status.code(), serde_json::from_slice(octets).unwrap())
}

/// Every parameter, as many refusals as answers; and that what is purged is gone.
#[test]
fn the_store_is_told_and_purged() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let cache = crate::store::open(&CachePlan { memory_bytes_max: 1 << 20, directory: None }).unwrap();
        for target in ["/a/1", "/a/2?x=y%26z", "/b"] {
            fill(&cache, target).await;
        }
        let get = |target: &str| {
            let (cache, target) = (cache.clone(), target.to_owned());
            async move { ask(&cache, Method::Get, &target).await }
        };
        let post = |target: &str| {
            let (cache, target) = (cache.clone(), target.to_owned());
            async move { ask(&cache, Method::Post, &target).await }
        };
        let (status, stats) = get("/cache/stats").await;
        assert_eq!(stats["requests"], json!({ "HIT": 2 }));
        assert_eq!((status, &stats["memory_keys"], &stats["disk_bytes_max"]), (200, &json!(3), &Value::Null));
        for (query, total) in [
            ("", 3),
            ("?max=1", 3),
            ("?url=http://h/b", 1),
            ("?url=http%3A%2F%2Fh%2Fa%2F2%3Fx=y%2526z", 1),
            ("?prefix=http://h/a/", 2),
            ("?url=http://h/a/*", 2),
            ("?tag=red", 2),
            ("?tag=green", 0),
            ("?group=g&site=http://h", 3),
            ("?group=g&site=https://h", 0),
        ] {
            let (status, told) = get(&format!("/cache/list{query}")).await;
            assert_eq!((status, &told["total"]), (200, &json!(total)), "{query}: {told}");
        }
        let (_, told) = get("/cache/list?max=1").await;
        assert_eq!(told["entries"].as_array().unwrap().len(), 1);
        assert_eq!(told["entries"][0]["url"], "http://h/b");
        assert_eq!(told["entries"][0]["bytes"], 6);
        for (method, target, status) in [
            (Method::Get, "/cache/purge?tag=red", 405),
            (Method::Post, "/cache/list", 405),
            (Method::Get, "/cache/other", 404),
            (Method::Post, "/cache/purge", 400),
            (Method::Post, "/cache/purge?everything=yes", 400),
            (Method::Post, "/cache/purge?url=/b", 400),
            (Method::Post, "/cache/purge?tag=red&url=http://h/b", 400),
            (Method::Post, "/cache/purge?group=g", 400),
            (Method::Post, "/cache/purge?site=http://h", 400),
            (Method::Post, "/cache/purge?tag=red&how=gently", 400),
            (Method::Post, "/cache/purge?tag=%ff", 400),
            (Method::Post, "/cache/purge?tag=%4", 400),
            (Method::Get, "/cache/list?max=many", 400),
            (Method::Get, "/cache/list?hwo=hard", 400),
        ] {
            let (got, told) = ask(&cache, method, target).await;
            assert_eq!(got, status, "{target}: {told}");
            assert!(told["error"].is_string());
        }
        for (query, purged, left) in [
            ("?tag=red&how=dry-run", 2, 3),
            ("?tag=red&how=soft", 2, 3),
            ("?prefix=http://h/a/", 2, 1),
            ("?everything=1", 1, 0),
        ] {
            let (status, told) = post(&format!("/cache/purge{query}")).await;
            assert_eq!((status, &told["purged"]), (200, &json!(purged)), "{query}: {told}");
            assert_eq!(cache.usage().memory_keys, left, "{query}");
        }
    });
}
