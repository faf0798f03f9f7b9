//! A gateway with a cache in front, between scripted clients and an origin server: what the engine never sees, such as interim
//! responses, trailers, and octets that do not belong to any response.

use super::super::caching::{Caching, CachingPlan};
use super::*;
use crate::plan::CacheRules;
use eleven_cache::memory::{Limits, Memory};
use eleven_cache::store::Store;
use eleven_testkit::rng::each_seed;

/// A gateway to the server on this port, with a cache in memory.
fn front(port: u16) -> Front {
    let mut plan = plan(&[port]);
    plan.rules.provenance = Provenance::Replace(Told::Legacy);
    let plan = Arc::new(plan);
    let store = Arc::new(Store::Memory(Memory::new(Limits::default())));
    let cache = eleven_cache::Cache::new(store, Default::default(), Default::default());
    let caching = CachingPlan::new(&cache, Arc::new(CacheRules::default()));
    Front::start(Arc::new(move || {
        let gateway = Gateway::start(Arc::clone(&plan));
        Service::single(Handler::Caching(Caching::new(Handler::Gateway(gateway), caching.clone())))
    }))
}

/// Plays a script whose `target` is a gateway to its server `origin`, with a cache in memory.
#[track_caller]
fn play_cached(script: &str) {
    let stage = Stage::new(script);
    let front = front(stage.address("origin").port());
    stage.with("target", front.address).run();
}

/// 9111-3-01b: interim responses go to the client who asked, and are no part of what is stored.
#[test]
fn interim_responses_are_forwarded_and_not_stored() {
    play_cached(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nX-Mine: 1\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nDate: Sun, 06 Nov 2094 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nhi"
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 103 Early Hints
    | Link: </style.css>; rel=preload
    | X-Mine: 1
    | Via: 1.1 me
    |
  skip-to "hi"
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Cache-Control: max-age=60
    | Date: Sun, 06 Nov 2094 08:49:37 GMT
    | Via: 1.1 me
    | Age: *
    | Content-Length: 2
    |
  expect "hi"
  close
"#,
    );
}

/// 9111-3.1-05, 9111-3.1-06: trailers reach the client who asked, and are neither stored nor merged into the header section.
#[test]
fn trailers_are_not_stored() {
    play_cached(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nDate: Sun, 06 Nov 2094 08:49:37 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
  send "2\r\nhi\r\n0\r\nCache-Control: no-store\r\nX-Sum: 9\r\nSet-Cookie: a=evil\r\n\r\n"
client
  send "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
  wait-for-close
  connect
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Cache-Control: max-age=60
    | Date: Sun, 06 Nov 2094 08:49:37 GMT
    | Via: 1.1 me
    | Age: *
    | Content-Length: 2
    |
  expect "hi"
  close
"#,
    );
}

/// C01 and C35: where the origin server puts into its content what it is told of the host, it is told the host that is in the
/// key; and nobody is told of the cache unless the operator wants it.
#[test]
fn the_host_that_is_told_is_the_host_that_is_keyed() {
    play_cached(
        r#"
server origin
  expect
    | GET / HTTP/1.1
    | Host: h
    | X-Forwarded-For: 127.0.0.1
    | X-Forwarded-Proto: http
    | X-Forwarded-Host: h
    | Via: 1.1 me
    |
  send "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nDate: Sun, 06 Nov 2094 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nhi"
client
  send "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: nothttps\r\nForwarded: host=evil.example\r\nX-Original-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Cache-Control: max-age=60
    | Date: Sun, 06 Nov 2094 08:49:37 GMT
    | Via: 1.1 me
    | Content-Length: 2
    |
  expect "hi"
  close
"#,
    );
}

/// C31, R03: octets behind a response are no response to the next request, and are not stored as one.
#[test]
fn surplus_octets_are_never_stored() {
    play_cached(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\nevil"
  wait-for-close
  accept
  expect
    | GET /victim HTTP/1.1
    | ...
    |
  send "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\ngood"
client
  send "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\nhi"
  send "GET /victim HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\ngood"
  send "GET /victim HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\ngood"
  close
"#,
    );
}

/// C12, C13: what might make an origin server answer with an error that others then get is refused here, and reaches nobody.
#[test]
fn what_breaks_origin_servers_does_not_reach_them() {
    let bad = [
        "GET / HTTP/1.1\\r\\nHost: h\\r\\nX-Evil: a\\x07b\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\nHost: h\\r\\nX-Evil: a\\x00b\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\nHost: h\\r\\nX Evil: a\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\nHost: h\\r\\nHost: evil\\r\\n\\r\\n",
        "GET /\\x7f HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n",
    ];
    for request in bad {
        play_cached(&format!(
            r#"
server origin
  await refused
  expect
    | GET / HTTP/1.1
    | Host: h
    | ...
    |
  send "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhi"
client
  send "{request}"
  skip-to "HTTP/1.1 400"
  wait-for-close
  signal refused
  connect
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "\r\n\r\nhi"
  close
"#
        ));
    }
}

/// Fault S41: a request with content, for what is stored. Its content is no request, whether the store answers or the server
/// behind. Fault C35: nobody is told of the store who did not ask for it in the configuration.
#[test]
fn content_before_a_hit_is_no_request() {
    play_cached(
        r#"
server origin
  skip-to "\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nDate: Sun, 06 Nov 2094 08:49:37 GMT\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
  close
  accept
  expect
    | GET / HTTP/1.1
    | ...
    | Content-Length: 35
    |
  expect "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
  send "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfat"
client
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "hi"
  send "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
  skip-to "fat"
  send "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
  expect
    | HTTP/1.1 200 OK
    | Cache-Control: max-age=60
    | Date: Sun, 06 Nov 2094 08:49:37 GMT
    | Via: 1.1 me
    | Age: *
    | Content-Length: 2
    |
  expect "hi"
  close
"#,
    );
}

/// Octets of which no two blocks are alike.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at ^ (at >> 8) ^ (at >> 16).wrapping_mul(37)) as u8).collect()
}

/// Answers the GET requests of one connection with so many octets of the pattern as the target says.
fn serve_patterns(mut stream: TcpStream) {
    let mut octets = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let Some(end) = octets.windows(4).position(|four| four == b"\r\n\r\n") else {
            match stream.read(&mut piece) {
                Ok(n) if n > 0 => octets.extend_from_slice(&piece[..n]),
                _ => return,
            }
            continue;
        };
        let head: Vec<u8> = octets.drain(..end + 4).collect();
        let target = head.split(|octet| *octet == b' ').nth(1).unwrap();
        let length: usize = std::str::from_utf8(&target[1..]).unwrap().parse().unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nETag: \"{length}\"\r\nContent-Length: {length}\r\n\r\n"
        );
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&pattern(length))).is_err() {
            return;
        }
    }
}

/// Content that lies in many blocks is written with few calls, of which the socket takes what it can: it arrives octet by
/// octet as it was stored, whole and in ranges, and what is asked for behind it comes behind it.
#[test]
fn content_in_many_blocks_arrives_as_it_was_stored() {
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = front(origin.local_addr().unwrap().port());
    // Ends with the process: it waits for connections that may come.
    std::thread::spawn(move || {
        for stream in origin.incoming().flatten() {
            std::thread::spawn(move || serve_patterns(stream));
        }
    });
    let lengths = [1, 65_536, 65_537, 131_072, 1_048_576, 1_048_577, 2_300_000, 5_000_001];
    let partial = std::cell::Cell::new(0);
    each_seed(12, |rng| {
        let stream = front.connect();
        let mut asked = Vec::new();
        let mut requests = String::new();
        for _ in 0..rng.between(2, 5) {
            let length = *rng.pick(&lengths);
            let first = rng.below(length as u64) as usize;
            let last = first + rng.below((length - first) as u64) as usize;
            let (range, wanted) = match rng.below(3) {
                0 => (format!("Range: bytes={first}-{last}\r\n"), first..last + 1),
                _ => (String::new(), 0..length),
            };
            requests += &format!("GET /{length} HTTP/1.1\r\nHost: h\r\n{range}\r\n");
            asked.push((length, !range.is_empty(), wanted));
        }
        (&stream).write_all(requests.as_bytes()).unwrap();
        let mut reader = Reader::new(stream);
        for (length, is_range, wanted) in asked {
            let response = reader.response("GET").unwrap();
            // The origin server knows no ranges: whoever asks first gets all of it.
            let wanted = if is_range && response.status == 206 { wanted } else { 0..length };
            partial.set(partial.get() + u32::from(response.status == 206));
            assert!(response.body == pattern(length)[wanted.clone()], "{length} {wanted:?}");
        }
    });
    assert!(partial.get() > 0 || std::env::var_os("SEED").is_some());
}
