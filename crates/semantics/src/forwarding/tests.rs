//! What goes on and what does not: rules of RFC 9110 §7.6 to 7.8 and faults X01 to X08, X17 to X20, R29, R30.

use super::*;

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().collect()
}

fn hop() -> Hop<'static> {
    Hop { address: Some(IpAddr::from([192, 0, 2, 7])), secure: false, host: b"a.example" }
}

fn rules() -> Rules {
    Rules { provenance: Provenance::Pass, ..Rules::gateway("me") }
}

fn wire(fields: &Fields) -> String {
    String::from_utf8_lossy(fields.wire()).replace("\r\n", "|")
}

fn forward(pairs: &[(&str, &str)], rules: &Rules) -> (Result<Onward, Refusal>, String) {
    let mut f = fields(pairs);
    let onward = request(&Method::Get, Version::Http11, false, &mut f, rules, &hop());
    (onward, wire(&f))
}

const PLAIN: Onward = Onward::Forward { te_trailers: false, upgrade: false };

/// 9110-5.1-01, 9110-5.3-02: order, case and repetition of what goes on are kept.
#[test]
fn unknown_fields_go_on_as_they_came() {
    let (onward, wire) = forward(
        &[("x-A", "1"), ("Accept", "a"), ("Host", "h"), ("X-a", "2"), ("accept", "b"), ("Cookie", "c=1")],
        &rules(),
    );
    assert_eq!(onward, Ok(PLAIN));
    assert_eq!(wire, "x-A: 1|Accept: a|X-a: 2|accept: b|Cookie: c=1|Via: 1.1 me|");
}

/// 9110-7.6-01, 9110-7.6.1-02, 9110-7.6.1-03; faults X03, X04, X05.
#[test]
fn fields_of_the_hop_end_here() {
    let (_, wire) = forward(
        &[
            ("Connection", "close, X-Hop"),
            ("connection", "x-other , ,"),
            ("X-Hop", "1"),
            ("x-hop", "2"),
            ("X-Other", "3"),
            ("X-Hopper", "stays"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "gzip"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "5"),
            ("Upgrade", "h2c"),
            ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
            ("Proxy-Authorization", "Basic eDp5"),
            ("Proxy-Authenticate", "Basic"),
            ("Expect", "100-continue"),
            ("Trailer", "X-Sum"),
        ],
        &rules(),
    );
    assert_eq!(wire, "X-Hopper: stays|Trailer: X-Sum|Via: 1.1 me|");
    let relay = Rules { relay_proxy_credentials: true, ..rules() };
    let (_, wire) = forward(&[("Proxy-Authorization", "Basic eDp5")], &relay);
    assert_eq!(wire, "Proxy-Authorization: Basic eDp5|Via: 1.1 me|");
    // What is no token names no field, and harms nobody.
    let mut f = fields(&[]);
    f.push("Connection", b"\xff, \"q\", a b").unwrap();
    assert_eq!(request(&Method::Get, Version::Http11, false, &mut f, &rules(), &hop()), Ok(PLAIN));
}

/// Faults X01 and R29, 9110-7.6.1-04: naming an end-to-end field in Connection removes nothing.
#[test]
fn vital_fields_survive_being_named() {
    let vital = [
        ("Authorization", "Basic eDp5"),
        ("Cookie", "sid=1"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("Cache-Control", "no-store"),
        ("Content-Type", "text/plain"),
        ("Origin", "https://a.example"),
        ("Range", "bytes=0-1"),
        ("If-Match", "\"a\""),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ];
    let names: Vec<&str> = vital.iter().map(|(name, _)| *name).collect();
    let mut pairs = vec![("Connection", "close")];
    let named = names.join(", ");
    pairs.push(("Connection", &named));
    pairs.extend_from_slice(&vital);
    let (onward, wire) = forward(&pairs, &rules());
    assert_eq!(onward, Ok(PLAIN));
    for (name, value) in vital {
        assert!(wire.contains(&format!("{name}: {value}|")), "{name} in {wire}");
    }
    let mut f =
        fields(&[("Connection", "Set-Cookie, Content-Length, X-Hop"), ("Set-Cookie", "a=b"), ("X-Hop", "1")]);
    response(Version::Http11, Status::OK, &mut f, &rules()).unwrap();
    assert_eq!(self::wire(&f), "Set-Cookie: a=b|Via: 1.1 me|");
    // What we add ourselves is added after the removal.
    let told = Rules::gateway("me");
    let (_, wire) = forward(&[("Connection", "X-Forwarded-For, Via")], &told);
    assert!(wire.contains("X-Forwarded-For: 192.0.2.7|") && wire.contains("Via: 1.1 me|"), "{wire}");
}

/// Fault X02.
#[test]
fn connection_options_are_counted() {
    let list = vec!["a"; 64].join(",");
    assert_eq!(forward(&[("Connection", &list)], &rules()).0, Ok(PLAIN));
    let refused = forward(&[("Connection", &list), ("Connection", "b")], &rules()).0;
    assert_eq!(refused, Err(Refusal::TooManyConnectionOptions));
    let mut f = fields(&[("Connection", &list), ("Connection", "b")]);
    assert_eq!(
        response(Version::Http11, Status::OK, &mut f, &rules()),
        Err(Refusal::TooManyConnectionOptions)
    );
}

/// 9110-7.6.3-01, 9110-7.6.3-02; faults X18 and X19.
#[test]
fn via_grows_and_shows_loops() {
    for (via, expected) in [
        ("1.1 other", Ok("Via: 1.1 other|Via: 1.1 me|")),
        ("1.0 a, HTTP/1.1 b:80 (comment, me)", Ok("Via: 1.0 a, HTTP/1.1 b:80 (comment, me)|Via: 1.1 me|")),
        ("1.1 me.example, 1.1 notme", Ok("Via: 1.1 me.example, 1.1 notme|Via: 1.1 me|")),
        ("me 1.1", Ok("Via: me 1.1|Via: 1.1 me|")),
        ("1.1 me", Err(Refusal::Loop)),
        ("1.1 a,1.0   ME (x)", Err(Refusal::Loop)),
        ("HTTP/1.1\tme", Err(Refusal::Loop)),
    ] {
        let (onward, wire) = forward(&[("Via", via)], &rules());
        match expected {
            Ok(expected) => assert_eq!((onward, &wire[..]), (Ok(PLAIN), expected)),
            Err(refusal) => assert_eq!(onward, Err(refusal), "{via}"),
        }
    }
    let mut f = fields(&[("Via", "1.1 a"), ("Via", "1.1 me")]);
    let looped = request(&Method::Get, Version::Http11, false, &mut f, &rules(), &hop());
    assert_eq!(looped, Err(Refusal::Loop));
    let many = vec!["1.1 x"; 32].join(", ");
    assert_eq!(forward(&[("Via", &many)], &rules()).0, Ok(PLAIN));
    assert_eq!(forward(&[("Via", &many), ("Via", "1.1 y")], &rules()).0, Err(Refusal::TooManyHops));

    let mut f = fields(&[]);
    request(&Method::Get, Version::Http10, false, &mut f, &rules(), &hop()).unwrap();
    assert_eq!(wire(&f), "Via: 1.0 me|");
    // A response that passes twice is not refused: its request was.
    let mut f = fields(&[("Via", "1.1 me")]);
    response(Version::Http10, Status::OK, &mut f, &rules()).unwrap();
    assert_eq!(wire(&f), "Via: 1.1 me|Via: 1.0 me|");
    let mut f = fields(&[("Server", "x")]);
    response(Version::Http11, Status::OK, &mut f, &Rules { via_in_responses: false, ..rules() }).unwrap();
    assert_eq!(wire(&f), "Server: x|");
    for (name, valid) in
        [("a", true), ("a.example", true), ("", false), ("a b", false), ("a,b", false), ("a\r\n", false)]
    {
        assert_eq!(is_pseudonym(name), valid, "{name:?}");
    }
}

/// 9110-7.6.2-01 to -04, 9110-9.3.7-03; fault X17.
#[test]
fn max_forwards_counts_down_for_trace_and_options() {
    for (value, expected) in [
        ("0", Ok(None)),
        ("00", Ok(None)),
        ("1", Ok(Some("0"))),
        ("10", Ok(Some("9"))),
        ("71", Ok(Some("70"))),
        ("99999999999999999999999999", Ok(Some("70"))),
        ("", Err(Refusal::MaxForwards)),
        ("-1", Err(Refusal::MaxForwards)),
        ("+1", Err(Refusal::MaxForwards)),
        ("1, 2", Err(Refusal::MaxForwards)),
        ("1x", Err(Refusal::MaxForwards)),
    ] {
        for method in [Method::Trace, Method::Options] {
            let mut f = fields(&[("Max-Forwards", value)]);
            let onward = request(&method, Version::Http11, false, &mut f, &rules(), &hop());
            match expected {
                Ok(None) => assert_eq!(onward, Ok(Onward::AnswerHere), "{value}"),
                Ok(Some(less)) => {
                    assert_eq!(onward, Ok(PLAIN), "{value}");
                    assert_eq!(wire(&f), format!("Max-Forwards: {less}|Via: 1.1 me|"));
                }
                Err(refusal) => assert_eq!(onward, Err(refusal), "{value:?}"),
            }
        }
        let mut f = fields(&[("Max-Forwards", value)]);
        request(&Method::Get, Version::Http11, false, &mut f, &rules(), &hop()).unwrap();
        assert_eq!(wire(&f), format!("Max-Forwards: {value}|Via: 1.1 me|"));
    }
    let mut f = fields(&[("Max-Forwards", "1"), ("Max-Forwards", "1")]);
    let twice = request(&Method::Trace, Version::Http11, false, &mut f, &rules(), &hop());
    assert_eq!(twice, Err(Refusal::MaxForwards));
    let mut f = fields(&[]);
    request(&Method::Options, Version::Http11, false, &mut f, &rules(), &hop()).unwrap();
    assert_eq!(wire(&f), "Via: 1.1 me|", "never added by us");
}

/// 9110-7.8-03, 9110-7.8-10, 9110-7.8-11; fault X20: only what is allowed is offered on.
#[test]
fn upgrades_go_on_by_name() {
    for (connection, upgrade, version, content, goes_on) in [
        ("Upgrade", "websocket", Version::Http11, false, true),
        ("keep-alive, upgrade", "WebSocket", Version::Http11, false, true),
        ("close", "websocket", Version::Http11, false, false),
        ("Upgrade", "websocket", Version::Http10, false, false),
        ("Upgrade", "websocket", Version::Http11, true, false),
        ("Upgrade", "h2c", Version::Http11, false, false),
        ("Upgrade", "websocket, h2c", Version::Http11, false, false),
        ("Upgrade", "websocket/13", Version::Http11, false, false),
        ("Upgrade", "", Version::Http11, false, false),
        ("Upgrade, HTTP2-Settings", "h2c", Version::Http11, false, false),
    ] {
        let mut f = fields(&[("Connection", connection), ("Upgrade", upgrade), ("HTTP2-Settings", "AA")]);
        let onward = request(&Method::Get, version, content, &mut f, &rules(), &hop());
        assert_eq!(onward, Ok(Onward::Forward { te_trailers: false, upgrade: goes_on }), "{upgrade}");
        assert_eq!(f.contains(Known::Upgrade), goes_on);
        assert!(!f.contains(Known::Connection) && !f.contains(Known::Http2Settings));
    }
}

/// 9110-15.5.22-01: whoever is told to upgrade is told to what, and to nothing that would not be passed on.
#[test]
fn upgrade_comes_back_where_the_status_is_about_it() {
    for (status, upgrade, stays) in [
        (Status::SWITCHING_PROTOCOLS, "websocket", true),
        (Status::UPGRADE_REQUIRED, "websocket", true),
        (Status::UPGRADE_REQUIRED, "WebSocket", true),
        (Status::UPGRADE_REQUIRED, "h2c", false),
        (Status::UPGRADE_REQUIRED, "websocket, h2c", false),
        (Status::OK, "websocket", false),
        (Status::BAD_REQUEST, "websocket", false),
    ] {
        let mut f = fields(&[("Connection", "Upgrade"), ("Upgrade", upgrade)]);
        response(Version::Http11, status, &mut f, &rules()).unwrap();
        assert_eq!(f.contains(Known::Upgrade), stays, "{status} {upgrade}");
        assert!(!f.contains(Known::Connection));
    }
}

/// 9110-10.1.4-01.
#[test]
fn te_is_read_and_not_passed_on() {
    for (te, trailers) in
        [("trailers", true), ("gzip, Trailers", true), ("gzip", false), ("trailers-x", false)]
    {
        let (onward, wire) = forward(&[("TE", te), ("Connection", "TE")], &rules());
        assert_eq!(onward, Ok(Onward::Forward { te_trailers: trailers, upgrade: false }), "{te}");
        assert_eq!(wire, "Via: 1.1 me|");
    }
}

/// Faults X06, X07 and X08; RFC 7239.
#[test]
fn what_a_client_says_of_itself_is_not_believed() {
    let claims = [
        ("X-Forwarded-For", "127.0.0.1"),
        ("x-forwarded-host", "evil"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Server", "evil"),
        ("X-Real-IP", "127.0.0.1"),
        ("Forwarded", "for=\"a;proto=https\""),
    ];
    let tell = |provenance, pairs: &[(&str, &str)], hop: &Hop<'_>| {
        let mut f = fields(pairs);
        let rules = Rules { provenance, ..rules() };
        request(&Method::Get, Version::Http11, false, &mut f, &rules, hop).unwrap();
        wire(&f).replace("|Via: 1.1 me|", "")
    };
    use Provenance::{Append, Pass, Replace};
    assert_eq!(
        tell(Replace(Told::Legacy), &claims, &hop()),
        "X-Forwarded-For: 192.0.2.7|X-Forwarded-Proto: http|X-Forwarded-Host: a.example"
    );
    assert_eq!(
        tell(Replace(Told::Forwarded), &claims, &hop()),
        "Forwarded: for=192.0.2.7;host=a.example;proto=http"
    );
    assert_eq!(tell(Replace(Told::Nothing), &claims, &hop()), "Via: 1.1 me|");
    let six = Hop { address: Some("2001:db8::1".parse().unwrap()), secure: true, host: b"[::1]:8443" };
    assert_eq!(
        tell(Replace(Told::Both), &[], &six),
        "X-Forwarded-For: 2001:db8::1|X-Forwarded-Proto: https|X-Forwarded-Host: [::1]:8443|\
         Forwarded: for=\"[2001:db8::1]\";host=\"[::1]:8443\";proto=https"
    );
    let mapped = Hop { address: Some("::ffff:192.0.2.9".parse().unwrap()), ..hop() };
    assert_eq!(
        tell(Replace(Told::Forwarded), &[], &mapped),
        "Forwarded: for=192.0.2.9;host=a.example;proto=http"
    );
    let local = Hop { address: None, secure: false, host: b"" };
    assert_eq!(
        tell(Replace(Told::Both), &[], &local),
        "X-Forwarded-Proto: http|Forwarded: for=unknown;proto=http"
    );
    // A trusted intermediary's word stays, and the hop to it is added.
    assert_eq!(
        tell(
            Append(Told::Both),
            &[
                ("X-Forwarded-For", "203.0.113.9"),
                ("X-Forwarded-Proto", "https"),
                ("Forwarded", "for=203.0.113.9")
            ],
            &hop()
        ),
        "X-Forwarded-For: 203.0.113.9|X-Forwarded-Proto: https|Forwarded: for=203.0.113.9|\
         X-Forwarded-For: 192.0.2.7|X-Forwarded-Host: a.example|Forwarded: for=192.0.2.7;host=a.example;proto=http"
    );
    assert!(tell(Pass, &claims, &hop()).contains("X-Real-IP: 127.0.0.1"));
}

/// 9110-6.5.1; fault R30: nothing that frames, routes or authenticates goes on in a trailer section.
#[test]
fn trailers_are_sifted() {
    let all = [
        ("X-Checksum", "abc"),
        ("Content-Digest", "sha-256=:AA==:"),
        ("grpc-status", "0"),
        ("Set-Cookie", "a=b"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
        ("Authorization", "Basic eDp5"),
        ("Host", "evil"),
        ("Connection", "close"),
        ("Cache-Control", "max-age=1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Port", "1"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Original-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Content_Length", "5"),
        ("Proxy-Foo", "x"),
        ("Keep-Alive", "timeout=5"),
    ];
    let sift = |policy| {
        let mut f = fields(&all);
        trailers(&mut f, &Rules { trailers: policy, ..rules() });
        wire(&f)
    };
    assert_eq!(sift(Trailers::Safe), "X-Checksum: abc|Content-Digest: sha-256=:AA==:|grpc-status: 0|");
    let named = Trailers::Only(vec!["x-checksum".into(), "set-cookie".into(), "host".into()]);
    assert_eq!(sift(named), "X-Checksum: abc|");
    assert_eq!(sift(Trailers::None), "");
}

/// Fault X25.
#[test]
fn schemes_that_authenticate_connections_are_known() {
    for (name, value, binds) in [
        ("Authorization", "NTLM TlRMTVNTUAAB", true),
        ("Authorization", "negotiate YII=", true),
        ("WWW-Authenticate", "Basic realm=\"a\", NTLM", true),
        ("WWW-Authenticate", "Negotiate", true),
        ("Authorization", "Basic eDp5", false),
        ("WWW-Authenticate", "Digest realm=\"NTLM\"", false),
        ("X-Authorization", "NTLM x", false),
    ] {
        assert_eq!(binds_connection(&fields(&[(name, value)])), binds, "{name}: {value}");
    }
}
