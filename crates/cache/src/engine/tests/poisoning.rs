//! What attackers try with a shared cache, each by the number of the fault: nobody may have an answer stored for others
//! that others would not have got themselves.

use super::*;

/// What an honest client gets for `target` after others have asked: twice, the second time from the store if it may be.
async fn honest(cache: &Arc<Cache>, origin: &Origin, target: &str) -> (Got, Got) {
    (get(cache, origin, target, &[]).await, get(cache, origin, target, &[]).await)
}

/// An origin server that puts every field of the request into its content: as careless as can be.
fn reflecting() -> Origin {
    Origin::new(|ask| {
        let mut content = format!("{} {}\n", ask.method, String::from_utf8_lossy(&ask.target)).into_bytes();
        for field in ask.fields.iter() {
            content.extend_from_slice(&[field.name, b": ", field.value, b"\n"].concat());
        }
        Ok(said(200, &[FRESH], &content))
    })
}

/// C01, C14, H25: what stands for another host, path or method is not sent on, so its answer is stored for nobody. What is
/// part of the key is sent on, and stored for those who send it too.
#[test]
fn unkeyed_fields_that_are_reflected() {
    simulate(async {
        for name in
            ["X-Forwarded-Host", "x-original-url", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Host"]
        {
            let (cache, origin) = (cache(), reflecting());
            let attack = get(&cache, &origin, "/", &[(name, "evil.example"), ("Accept", "*/*")]).await;
            assert_eq!(attack.content, Ok(b"GET /\nAccept: */*\n".to_vec()), "{name}");
            let (first, _) = honest(&cache, &origin, "/").await;
            assert_eq!(first.content, attack.content, "{name}");
            assert_eq!((first.word, origin.count()), ("HIT", 1));

            let keys = KeyRules { fields: vec![name.into()], ..KeyRules::default() };
            let keyed = cache_with(memory_store(), Config { keys, ..Config::default() });
            let asked = get(&keyed, &origin, "/", &[(name, "a.example")]).await;
            assert!(memchr(&asked.content.unwrap(), b"a.example"), "{name}");
            assert_eq!(get(&keyed, &origin, "/", &[]).await.word, "MISS");
            assert_eq!(get(&keyed, &origin, "/", &[(name, "b.example")]).await.word, "MISS");
            assert_eq!(get(&keyed, &origin, "/", &[(name, "a.example")]).await.word, "HIT");
        }
        // A private cache has one user, who may do to himself what he likes.
        let config = Config { policy: Arc::new(Policy::private()), ..Config::default() };
        let private = cache_with(memory_store(), config);
        let got = get(&private, &reflecting(), "/", &[("X-Host", "mine")]).await;
        assert_eq!(got.content, Ok(b"GET /\nX-Host: mine\n".to_vec()));
    });
}

/// C02: parameters that one side counts and the other does not. Every octet of the query is in the key, unless the operator
/// leaves a parameter out; then it is not forwarded either, whatever is hidden behind it.
#[test]
fn parameters() {
    simulate(async {
        let keys = KeyRules { ignore_parameters: vec!["utm_*".into()], ..KeyRules::default() };
        let cache = cache_with(memory_store(), Config { keys, ..Config::default() });
        let origin = reflecting();
        for (target, sent) in [
            ("/?q=1&utm_content=x;q=evil", "/?q=1"),
            ("/?utm_content=x%26q=evil&q=2", "/?q=2"),
            ("/?q=3;utm_content=evil", "/?q=3;utm_content=evil"),
            ("/?q=4&UTM_content=evil", "/?q=4&UTM_content=evil"),
            ("/?q=5&q=evil", "/?q=5&q=evil"),
        ] {
            let got = get(&cache, &origin, target, &[]).await;
            assert_eq!(
                (got.word, got.content),
                ("MISS", Ok(format!("GET {sent}\n").into_bytes())),
                "{target}"
            );
        }
        for (target, word) in
            [("/?q=1", "HIT"), ("/?q=2", "HIT"), ("/?q=3", "MISS"), ("/?q=4", "MISS"), ("/?q=5", "MISS")]
        {
            let got = get(&cache, &origin, target, &[]).await;
            assert_eq!((got.word, got.content), (word, Ok(format!("GET {target}\n").into_bytes())));
        }
    });
}

/// C03: a GET with content goes past the store both ways.
#[test]
fn fat_get() {
    simulate(async {
        let (cache, origin) = (cache(), Origin::always(said(200, &[FRESH], b"for the content")));
        let site = Site { scheme: Scheme::Http, host: b"h".to_vec(), port: 80 };
        let (method, fields) = (Method::Get, Fields::new());
        let fat = Request { method: &method, site: &site, target: b"/", fields: &fields, has_content: true };
        for _ in 0..2 {
            assert!(cache.hit(&fat, &mut Scratch::default(), now()).is_none());
            let reply = cache.respond(&fat, &origin).await.unwrap();
            assert_eq!(reply.report.word(), "BYPASS");
            assert!(drain(reply.body).await.is_ok());
        }
        assert_eq!((cache.usage(), origin.count()), (Usage::default(), 2));
        assert!(origin.asks.borrow().iter().all(|ask| ask.with_content));
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "MISS");
        // And what is stored is no answer to it.
        assert!(cache.hit(&fat, &mut Scratch::default(), now()).is_none());
    });
}

/// C12, C15: an error that one request brought about is not everybody's. Those about the request are not stored even if they
/// say how long; others only if they do, or for a minute where the RFC lets any cache guess.
#[test]
fn poisoned_errors() {
    let modified = ("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT");
    for (status, fields, stored) in [
        (400, &[][..], false),
        (400, &[modified], false),
        (400, &[FRESH], true),
        (403, &[], false),
        (404, &[], false),
        (404, &[FRESH], true),
        (405, &[], false),
        (413, &[FRESH], false),
        (414, &[], false),
        // What it is about is in the key.
        (414, &[modified], true),
        (416, &[FRESH], false),
        (429, &[FRESH], false),
        (431, &[FRESH], false),
        (500, &[], false),
        (500, &[modified], false),
        (501, &[], false),
        (502, &[], false),
        (503, &[], false),
        (503, &[FRESH], true),
        (504, &[modified], false),
    ] {
        simulate(async {
            let cache = cache();
            let bad: Vec<(String, String)> =
                fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let origin = Origin::new(move |ask| {
                if ask.fields.contains("X-Oversized") {
                    let fields: Vec<(&str, &str)> =
                        bad.iter().map(|(name, value)| (&**name, &**value)).collect();
                    return Ok(said(status, &fields, b"broken"));
                }
                Ok(said(200, &[FRESH], b"fine"))
            });
            let attack = get(&cache, &origin, "/", &[("X-Oversized", "aaaaaaaa")]).await;
            assert_eq!(attack.status, status);
            let honest = get(&cache, &origin, "/", &[]).await;
            let expected = if stored { (status, "HIT") } else { (200, "MISS") };
            assert_eq!((honest.status, honest.word), expected, "{status} {fields:?}");
        });
    }
    // A 404 that says since when it is so is kept for a minute and no longer.
    simulate(async {
        let cache = cache();
        let origin = Origin::always(said(404, &[modified], b"gone"));
        get(&cache, &origin, "/", &[]).await;
        pass_seconds(59).await;
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "HIT");
        pass_seconds(2).await;
        assert_ne!(get(&cache, &origin, "/", &[]).await.word, "HIT");
    });
}

/// C18: a part is stored as a part. What cannot be placed, or is not as long as it says, is not stored.
#[test]
fn poisoned_ranges() {
    simulate(async {
        for (status, fields, content, is_part) in [
            (206, &[FRESH, ("Content-Range", "bytes 0-3/10"), ("ETag", "\"a\"")][..], "evil", true),
            (206, &[FRESH, ("Content-Range", "bytes 0-9/10"), ("ETag", "\"a\"")], "evil", false),
            (206, &[FRESH, ("Content-Range", "bytes 0-3/3"), ("ETag", "\"a\"")], "evil", false),
            (206, &[FRESH, ("Content-Range", "bytes 3-0/10"), ("ETag", "\"a\"")], "evil", false),
            (206, &[FRESH, ("Content-Range", "bytes */10"), ("ETag", "\"a\"")], "evil", false),
            (206, &[FRESH, ("Content-Range", "rows 0-3/10"), ("ETag", "\"a\"")], "evil", false),
            (206, &[FRESH, ("ETag", "\"a\"")], "evil", false),
            (206, &[FRESH, ("Content-Type", "multipart/byteranges; boundary=x")], "evil", false),
            (416, &[FRESH, ("Content-Range", "bytes */10")], "", false),
        ] {
            let cache = cache();
            let answer = said(status, fields, content.as_bytes());
            let origin = Origin::new(move |ask| match ask.fields.get(Known::Range) {
                Some(range) if range == b"bytes=0-3" || range == b"bytes=0-3,5-6" => Ok(answer.clone()),
                _ => Ok(said(200, &[FRESH, ("ETag", "\"b\"")], b"0123456789")),
            });
            for range in ["bytes=0-3", "bytes=0-3,5-6"] {
                get(&cache, &origin, "/", &[("Range", range)]).await;
            }
            let part = get(&cache, &origin, "/", &[("Range", "bytes=1-2")]).await;
            let expected =
                if is_part { (206, Ok(b"vi".to_vec())) } else { (200, Ok(b"0123456789".to_vec())) };
            assert_eq!((part.status, part.content), expected, "{status} {fields:?}");
            let (first, second) = honest(&cache, &origin, "/").await;
            assert_eq!(
                (first.status, first.content),
                (200, Ok(b"0123456789".to_vec())),
                "{status} {fields:?}"
            );
            assert_eq!((second.word, second.content), ("HIT", Ok(b"0123456789".to_vec())));
        }
    });
}

/// C17, C22: a field that responses vary by has as many values as an attacker likes. The variants of one URI are bounded, those
/// that mean the same are one, and the rest of the store is left alone.
/// Fault D36.
#[test]
fn vary_explosion() {
    simulate(async {
        let cache = cache();
        let varied = Origin::new(|ask| {
            let coding = ask.fields.get(Known::AcceptEncoding).unwrap_or_default().to_vec();
            Ok(said(200, &[FRESH, ("Vary", "Accept-Encoding, User-Agent, Cookie")], &coding))
        });
        let others: Vec<String> = (0..100).map(|n| format!("/other/{n}")).collect();
        let plain = Origin::always(said(200, &[FRESH], b"x"));
        for other in &others {
            get(&cache, &plain, other, &[]).await;
        }
        for n in 0..2000 {
            let (agent, cookie) = (format!("agent {n}"), format!("id={n}"));
            let got = get(&cache, &varied, "/", &[("User-Agent", &agent), ("Cookie", &cookie)]).await;
            assert_eq!(got.word, "MISS");
        }
        let limits = MemoryLimits::default();
        let kept = cache.store().memory().variants(&key_of("/")).len();
        assert_eq!(kept, limits.variants_max);
        for other in &others {
            assert_eq!(get(&cache, &plain, other, &[]).await.word, "HIT");
        }
        // The newest ones are those that are kept.
        let newest = [("User-Agent", "agent 1999"), ("Cookie", "id=1999")];
        assert_eq!(get(&cache, &varied, "/", &newest).await.word, "HIT");
        // Codings that nobody serves, other spaces, other cases, another order: still the same variant.
        for (n, coding) in
            ["gzip, br", "br,gzip", "GZIP , BR", "gzip;q=1.0, br;q=1", "x-evil, br, gzip", "br, gzip, e0, e1"]
                .into_iter()
                .enumerate()
        {
            let got = get(&cache, &varied, "/codings", &[("Accept-Encoding", coding)]).await;
            assert_eq!(got.word, if n == 0 { "MISS" } else { "HIT" }, "{coding}");
        }
        assert_eq!(
            get(&cache, &varied, "/codings", &[("Accept-Encoding", "br;q=0.5, gzip")]).await.word,
            "MISS"
        );
    });
}

fn key_of(target: &str) -> Vec<u8> {
    let site = Site { scheme: Scheme::Http, host: b"h".to_vec(), port: 80 };
    let mut key = Vec::new();
    KeyRules::default().write_key(&mut key, &site, target.as_bytes(), &Fields::new());
    key
}

/// C10, C11, C23: what is one user's is not stored for others: with credentials not unless the response allows it, with
/// cookies not where the operator is careful.
#[test]
fn what_belongs_to_one_user() {
    let careful = Policy { cookies: eleven_semantics::caching::Cookies::Careful, ..Policy::default() };
    let credentials = &[("Authorization", "Basic YTpi")][..];
    let cookie = &[("Cookie", "session=1")][..];
    for (policy, request, response, stored) in [
        (Policy::default(), credentials, &[FRESH][..], false),
        (Policy::default(), credentials, &[("Cache-Control", "max-age=60, public")], true),
        (Policy::default(), credentials, &[("Cache-Control", "max-age=60, must-revalidate")], true),
        (Policy::default(), credentials, &[("Cache-Control", "s-maxage=60")], true),
        (Policy::default(), credentials, &[("Cache-Control", "max-age=60, private")], false),
        (Policy::default(), cookie, &[FRESH], true),
        (careful.clone(), cookie, &[FRESH], false),
        (careful.clone(), cookie, &[("Cache-Control", "max-age=60, public")], true),
        (careful.clone(), &[], &[FRESH, ("Set-Cookie", "a=b")], false),
        (careful, &[], &[("Cache-Control", "s-maxage=60"), ("Set-Cookie", "a=b")], true),
    ] {
        simulate(async {
            let config = Config { policy: Arc::new(policy.clone()), ..Config::default() };
            let cache = cache_with(memory_store(), config);
            let origin = Origin::always(said(200, response, b"mine"));
            get(&cache, &origin, "/", request).await;
            let got = get(&cache, &origin, "/", &[]).await;
            assert_eq!(got.word == "HIT", stored, "{request:?} {response:?}");
        });
    }
}

/// C26, C27, C28, C33, C34: lies about time and lifetimes, and a client's own targeted fields.
#[test]
fn lies_about_time() {
    for (request, response, fresh) in [
        (&[][..], &[FRESH, ("Age", "1099511627776")][..], false),
        (&[], &[FRESH, ("Age", "99999999999999999999999")], false),
        (&[], &[FRESH, ("Date", "Fri, 01 Jan 2099 00:00:00 GMT")], true),
        (&[], &[FRESH, ("Date", "Mon, 01 Jan 2001 00:00:00 GMT")], false),
        (&[], &[("Cache-Control", "max-age=99999999999999999999")], true),
        (&[], &[("Cache-Control", "max-age=-1")], false),
        (&[], &[("Cache-Control", "max-age=60, max-age=0")], false),
        (&[], &[("Cache-Control", "max-age=\"60\"")], true),
        (&[], &[("Expires", "0")], false),
        (&[], &[("Expires", "Fri, 01 Jan 2027 00:00:00 GMT"), ("Expires", "0")], false),
        (&[("CDN-Cache-Control", "max-age=600")], &[], false),
        (&[("Surrogate-Control", "max-age=600"), ("Cache-Control", "s-maxage=600")], &[], false),
    ] {
        simulate(async {
            let (cache, origin) = (cache(), Origin::always(said(200, response, b"x")));
            get(&cache, &origin, "/", request).await;
            let got = get(&cache, &origin, "/", request).await;
            assert_eq!(got.word == "HIT", fresh, "{request:?} {response:?}");
        });
    }
    // Stale is not for ever: an origin server that is gone is stood in for, for a week.
    simulate(async {
        let mut first = true;
        let origin = Origin::new(move |_| match std::mem::take(&mut first) {
            true => Ok(said(200, &[FRESH], b"x")),
            false => Err("gone"),
        });
        let cache = cache();
        get(&cache, &origin, "/", &[]).await;
        pass_seconds(60 + 7 * 86_400 - 5).await;
        assert_eq!(get(&cache, &origin, "/", &[]).await.word, "STALE");
        pass_seconds(10).await;
        assert!(ask_full(&cache, &origin, "GET", "/", &[]).await.is_err());
    });
}

/// C19, C20, C21: what a HEAD or a 304 says about fields is not believed where it would change what the octets mean, or
/// where it is about another variant.
#[test]
fn answers_without_content() {
    simulate(async {
        let cache = cache();
        let origin = Origin::new(|ask| {
            Ok(match (&ask.method, ask.fields.get(Known::IfNoneMatch)) {
                (Method::Head, _) => said(200, &[("ETag", "\"other\""), ("X-Evil", "1"), FRESH], b""),
                (_, Some(_)) => said(
                    304,
                    &[
                        ("ETag", "\"a\""),
                        FRESH,
                        ("Content-Length", "1"),
                        ("Content-Encoding", "gzip"),
                        ("Content-Range", "bytes 0-0/1"),
                        ("Transfer-Encoding", "chunked"),
                        ("Connection", "close"),
                        ("X-New", "1"),
                    ],
                    b"",
                ),
                _ => said(200, &[("ETag", "\"a\""), FRESH, ("Content-Type", "text/plain")], b"content"),
            })
        });
        get(&cache, &origin, "/", &[]).await;
        pass_seconds(100).await;
        let got = get(&cache, &origin, "/", &[]).await;
        assert_eq!((got.word, got.content.clone()), ("VALIDATED", Ok(b"content".to_vec())));
        assert_eq!(got.field("X-New").as_deref(), Some("1"));
        for name in ["Content-Length", "Content-Encoding", "Content-Range", "Transfer-Encoding", "Connection"]
        {
            assert_eq!(got.field(name), None, "{name}");
        }
        // Nothing of a HEAD with another tag reaches what is stored; it is asked for again.
        pass_seconds(100).await;
        let head = ask_full(&cache, &origin, "HEAD", "/", &[]).await.unwrap();
        assert_eq!(head.status, 200);
        let after = get(&cache, &origin, "/", &[]).await;
        assert_eq!((after.word, after.field("X-Evil")), ("VALIDATED", None));
    });
}
