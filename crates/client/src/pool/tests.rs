//! The pool with connections in memory and time that stands still.

use super::*;
use crate::transfer::{Content, Deadlines, Exchange};
use eleven_messaging::Config;
use eleven_messaging::client::Request;
use eleven_net::Stream;
use eleven_net::memory::{Link, duplex};
use eleven_semantics::{Fields, Method};
use std::cell::Cell;

fn key(host: &str) -> Rc<Key> {
    Rc::new(Key { host: host.into(), port: 80, ..Key::default() })
}

/// Opens connections to a server that answers every request with the same octets, `count` times.
async fn connect(answer: &'static str, count: usize) -> Result<Connection, Failure> {
    let (client, server) = duplex(7, Link::rough(), Link::rough());
    let mut server = Stream::Memory(Box::new(server));
    tokio::task::spawn_local(async move {
        let mut seen = Vec::new();
        let mut octet = [0; 1];
        for _ in 0..count {
            while !seen.ends_with(b"\r\n\r\n") {
                match server.read(&mut octet).await {
                    Ok(1) => seen.push(octet[0]),
                    _ => return,
                }
            }
            seen.clear();
            if server.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let stream = Stream::Memory(Box::new(client));
    Ok(Connection::new(stream, std::sync::Arc::new(Config::default()), "h:80", None))
}

async fn get(pooled: &mut Pooled) {
    let fields = Fields::new();
    let request = Request::new(&Method::Get, b"/", b"h", &fields);
    let mut exchange = Exchange::begin(&mut **pooled, &request, Content::None, Deadlines::default()).unwrap();
    exchange.head(|_| {}).await.unwrap();
    while exchange.data().await.unwrap().is_some() {}
    exchange.settle().await.unwrap();
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// 9112-9.3-04: one connection serves many requests; other keys get other connections (K21).
#[tokio::test(flavor = "local", start_paused = true)]
async fn connections_are_used_again_by_the_same_key_only() {
    let pool = Pool::new(PoolLimits::default());
    for n in 0..5 {
        let mut pooled = pool.checkout(&key("a"), || connect(OK, 99)).await.unwrap();
        assert_eq!(pooled.is_reused(), n > 0);
        get(&mut pooled).await;
        assert_eq!(pooled.release(), Released::Kept);
    }
    for other in [
        Key { host: "b".into(), ..(*key("a")).clone() },
        Key { secure: true, ..(*key("a")).clone() },
        Key { port: 81, ..(*key("a")).clone() },
        Key { proxy: Some("http://p:1".into()), ..(*key("a")).clone() },
        Key { proxy_credentials: 1, ..(*key("a")).clone() },
        Key { tls: 1, ..(*key("a")).clone() },
        Key { isolation: 1, ..(*key("a")).clone() },
        Key { unix_socket: Some("/s".into()), ..(*key("a")).clone() },
    ] {
        let pooled = pool.checkout(&Rc::new(other), || connect(OK, 1)).await.unwrap();
        assert!(!pooled.is_reused());
    }
    assert_eq!(pool.counts(), PoolCounts { opened: 9, reused: 4, ..PoolCounts::default() });
}

/// 9112-9.2-02b, 9112-9.5-02, 9112-9.6-08a: what the server closed, is about to close, or talks on by itself is
/// not used again.
#[tokio::test(flavor = "local", start_paused = true)]
async fn dead_connections_are_not_used() {
    for (answer, count, released) in [
        (OK, 1, Released::Kept), // and then the server closes
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            9,
            Released::Closed,
        ),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 9, Released::Closed),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 9, Released::Closed),
        ("HTTP/1.1 200 OK\r\nKeep-Alive: max=0\r\nContent-Length: 0\r\n\r\n", 9, Released::Closed),
    ] {
        let pool = Pool::new(PoolLimits::default());
        let mut pooled = pool.checkout(&key("a"), || connect(answer, count)).await.unwrap();
        get(&mut pooled).await;
        let kept = pooled.release();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let again = pool.checkout(&key("a"), || connect(OK, 1)).await.unwrap();
        assert!(!again.is_reused(), "{answer}");
        // Unasked octets may still have been on their way when it was given back.
        assert!(kept == released || (released == Released::Closed && pool.counts().dead == 1), "{answer}");
    }
}

/// Our limit and the server's promise, whichever is shorter.
#[tokio::test(flavor = "local", start_paused = true)]
async fn rest_has_an_end() {
    let promise = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n";
    let short = "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n";
    for (answer, wait_ms, reused) in [
        (OK, 59_000, true),
        (OK, 61_000, false),
        (promise, 3_900, true),
        (promise, 4_100, false),
        (short, 400, true),
        (short, 600, false),
    ] {
        let pool = Pool::new(PoolLimits::default());
        let mut pooled = pool.checkout(&key("a"), || connect(answer, 9)).await.unwrap();
        get(&mut pooled).await;
        assert_eq!(pooled.release(), Released::Kept);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let pooled = pool.checkout(&key("a"), || connect(OK, 1)).await.unwrap();
        assert_eq!(pooled.is_reused(), reused, "{answer} after {wait_ms} ms");
    }
    let pool = Pool::new(PoolLimits::default());
    let mut pooled = pool.checkout(&key("a"), || connect(OK, 9)).await.unwrap();
    get(&mut pooled).await;
    pooled.release();
    tokio::task::spawn_local(pool.clone().sweep_every(Duration::from_secs(10)));
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(pool.idle_count(), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(pool.idle_count(), 0);
}

/// No more connections than allowed; those in line get what is given back, or the place of what was closed.
#[tokio::test(flavor = "local", start_paused = true)]
async fn the_limit_holds_and_nobody_waits_for_ever() {
    let pool = Pool::new(PoolLimits { connections_per_origin_max: 2, ..PoolLimits::default() });
    let (open, peak, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let (pool, open, peak, done) = (pool.clone(), open.clone(), peak.clone(), done.clone());
            tokio::task::spawn_local(async move {
                let mut pooled = pool.checkout(&key("a"), || connect(OK, 99)).await.unwrap();
                open.set(open.get() + 1);
                peak.set(peak.get().max(open.get()));
                tokio::time::sleep(Duration::from_millis(10)).await;
                get(&mut pooled).await;
                open.set(open.get() - 1);
                // Every third is broken off: its place goes to the next.
                if n % 3 == 0 {
                    drop(pooled)
                } else {
                    assert_eq!(pooled.release(), Released::Kept)
                }
                done.set(done.get() + 1);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((done.get(), peak.get()), (20, 2));
    // A failed or cancelled connect gives its place back as well.
    let b = key("b");
    for _ in 0..5 {
        let failed = pool
            .checkout_fresh(&key("b"), || async {
                Err(Failure::new(crate::Phase::Connect, crate::Cause::Closed))
            })
            .await;
        assert!(failed.is_err());
        let never = pool.checkout_fresh(&b, std::future::pending);
        assert!(tokio::time::timeout(Duration::from_secs(1), never).await.is_err());
    }
    assert!(pool.checkout(&key("b"), || connect(OK, 1)).await.is_ok());
}
