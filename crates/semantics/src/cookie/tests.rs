use super::*;

/// Enough of a public suffix list for tables.
fn suffix(domain: &str) -> bool {
    matches!(domain, "com" | "co.uk" | "uk" | "example" | "github.io")
}

fn context(host: &str, secure: bool) -> Context<'_> {
    Context { host, path: b"/dir/page", secure, same_site: true }
}

fn receive(value: &str, host: &str, secure: bool) -> Result<Cookie, Ignored> {
    Cookie::receive(SetCookie::parse(value.as_bytes())?, &context(host, secure), 1000, suffix)
}

/// 6265-1-02, 6265-5.2-02, 6265-5.2-03, 6265-5.2-04, 6265-5.2.5-01, 6265-5.2.6-01.
#[test]
fn names_values_and_flags() {
    for (value, name, expected, secure, http_only) in [
        ("a=b", "a", "b", false, false),
        (" a = b ", "a", "b", false, false),
        ("a=b=c", "a", "b=c", false, false),
        ("a=\"b c\"", "a", "\"b c\"", false, false),
        ("a=", "a", "", false, false),
        ("alone", "", "alone", false, false),
        ("=v", "", "v", false, false),
        ("a=b; SECURE; httponly=x", "a", "b", true, true),
        ("a=b;Secure=no;;unknown=1; =x", "a", "b", true, false),
        ("a=b\tc", "a", "b\tc", false, false),
        ("a=%20%0d", "a", "%20%0d", false, false),
    ] {
        let cookie = SetCookie::parse(value.as_bytes()).unwrap();
        assert_eq!(
            (cookie.name.as_slice(), cookie.value.as_slice(), cookie.secure, cookie.http_only),
            (name.as_bytes(), expected.as_bytes(), secure, http_only),
            "{value}"
        );
    }
}

/// 6265-5.2-01; faults K18, D16.
#[test]
fn fields_ignored_as_a_whole() {
    for value in [&b"a=b\0"[..], b"a\x01=b", b"a=b\x7f; Path=/", b"a=b\r\nX: y", b"a=b\x1b[2J"] {
        assert_eq!(SetCookie::parse(value).unwrap_err(), Ignored::Control, "{value:?}");
    }
    let fits = format!("a={}", "x".repeat(PAIR_BYTES_MAX - 1));
    assert!(SetCookie::parse(fits.as_bytes()).is_ok());
    assert_eq!(SetCookie::parse(format!("{fits}x").as_bytes()).unwrap_err(), Ignored::TooLarge);
    let bomb = format!("a=b; Path=/{}; Secure", "x".repeat(65536));
    let cookie = SetCookie::parse(bomb.as_bytes()).unwrap();
    assert_eq!((cookie.path, cookie.secure), (None, true), "an oversized attribute is left out alone");
    assert_eq!(receive("", "h.com", false).unwrap_err(), Ignored::Empty);
    assert_eq!(receive("=", "h.com", false).unwrap_err(), Ignored::Empty);
}

/// 6265-5.1.1-01, 6265-5.1.1-01a, 6265-5.1.1-01b.
#[test]
fn cookie_dates() {
    for (text, expected) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
        ("Sun Nov  6 08:49:37 1994", 784_111_777),
        ("08:49:37 6 november 94", 784_111_777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("1 Jan 69 0:0:0", 3_124_224_000),
        ("1 Jan 70 0:0:0", 0),
        ("29 Feb 2000 0:0:0x", 951_782_400),
        ("1 Jan 1601 0:0:0", -11_644_473_600),
        ("31 Dec 9999 23:59:59", 253_402_300_799),
        ("6th Nov 1994 08:49:37", 784_111_777),
    ] {
        assert_eq!(parse_date(text.as_bytes()), Some(expected), "{text}");
    }
    for text in [
        "",
        "Sun, 06 Nov 1994",
        "08:49:37 GMT",
        "06 Nov 08:49:37",
        "0 Nov 1994 08:49:37",
        "32 Nov 1994 08:49:37",
        "31 Nov 1994 08:49:37",
        "29 Feb 1900 08:49:37",
        "1 Jan 1600 0:0:0",
        "1 Jan 2000 24:0:0",
        "1 Jan 2000 0:60:0",
        "1 Jan 2000 0:0:60",
        "1 Jan 2000 0:0",
        "1 Jan 20000 0:0:0",
        "1 Foo 2000 0:0:0",
        "never",
    ] {
        assert_eq!(parse_date(text.as_bytes()), None, "{text}");
    }
}

/// 6265-5.2.1-01, 6265-5.2.1-02, 6265-5.2.2-01, 6265-5.3-01a.
#[test]
fn lifetimes() {
    let now = 1_000_000;
    for (attributes, expected) in [
        ("", None),
        ("Max-Age=10", Some(now + 10)),
        ("Max-Age=0", Some(i64::MIN)),
        ("Max-Age=-5", Some(i64::MIN)),
        ("Max-Age=+5", None),
        ("Max-Age=5s", None),
        ("Max-Age=", None),
        ("Max-Age=-", None),
        ("Max-Age=99999999999999999999999", Some(now + LIFETIME_SECONDS_MAX)),
        ("Expires=Thu, 01 Jan 1970 00:00:10 GMT", Some(10)),
        ("Expires=garbage", None),
        ("Expires=1 Jan 9999 0:0:0", Some(now + LIFETIME_SECONDS_MAX)),
        ("Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:10 GMT", Some(now + 10)),
        ("Max-Age=10; Max-Age=20", Some(now + 20)),
        ("Max-Age=10; Max-Age=x", Some(now + 10)),
    ] {
        let cookie = SetCookie::parse(format!("a=b; {attributes}").as_bytes()).unwrap();
        assert_eq!(cookie.expiry(now), expected, "{attributes}");
    }
}

/// 6265-5.2.3-01, 6265-5.2.3-02, 6265-5.3-01b, 6265-5.3-01c, 6265-5.3-01d; faults K13, K14.
#[test]
fn domains() {
    for (host, domain, expected) in [
        ("www.a.com", "", ("www.a.com", true)),
        ("www.a.com", "Domain=a.com", ("a.com", false)),
        ("www.a.com", "Domain=.A.COM", ("a.com", false)),
        ("www.a.com", "Domain=www.a.com", ("www.a.com", false)),
        ("www.a.com", "Domain=", ("www.a.com", true)),
        ("www.a.com", "Domain=b.com; Domain=a.com", ("a.com", false)),
        ("co.uk", "Domain=co.uk", ("co.uk", true)),
        ("github.io", "Domain=github.io", ("github.io", true)),
        ("127.0.0.1", "Domain=127.0.0.1", ("127.0.0.1", true)),
        ("[::1]", "Domain=[::1]", ("[::1]", true)),
    ] {
        // `[::1]` holds colons, which no other Domain may.
        let got = receive(&format!("a=b; {domain}"), host, false);
        if host.starts_with('[') {
            assert_eq!(got.unwrap_err(), Ignored::DomainSyntax);
            continue;
        }
        let cookie = got.unwrap();
        assert_eq!((cookie.domain.as_str(), cookie.host_only), expected, "{host} {domain}");
    }
    for (host, domain, expected) in [
        ("www.a.com", "com", Ignored::PublicSuffix),
        ("www.a.co.uk", "co.uk", Ignored::PublicSuffix),
        ("www.a.co.uk", "Co.UK", Ignored::PublicSuffix),
        ("x.github.io", "github.io", Ignored::PublicSuffix),
        ("www.a.com", "b.com", Ignored::DomainMismatch),
        ("www.a.com", "ww.a.com", Ignored::DomainMismatch),
        ("a.com", "www.a.com", Ignored::DomainMismatch),
        ("www.a.com", "a.com.", Ignored::DomainMismatch),
        ("127.0.0.1", "0.0.1", Ignored::DomainMismatch),
        ("127.0.0.1", "1", Ignored::DomainMismatch),
        ("www.a.com", "a.com:80", Ignored::DomainSyntax),
        ("www.a.com", "a.com/x", Ignored::DomainSyntax),
        ("www.a.com", "ä.com", Ignored::DomainSyntax),
    ] {
        assert_eq!(receive(&format!("a=b; Domain={domain}"), host, false).unwrap_err(), expected, "{domain}");
    }
}

/// 6265-5.1.3-R1, fault K14.
#[test]
fn domain_matching() {
    for (host, domain, expected) in [
        ("a.com", "a.com", true),
        ("www.a.com", "a.com", true),
        ("w.w.a.com", "a.com", true),
        ("xa.com", "a.com", false),
        ("a.com", "www.a.com", false),
        ("1.2.3.4", "3.4", false),
        ("1.2.3.4", "1.2.3.4", true),
        ("a.com", "", false),
        ("a.com.", "a.com", false),
    ] {
        assert_eq!(domain_match(host, domain), expected, "{host} {domain}");
    }
}

/// 6265-5.1.4-01, 6265-5.1.4-R1, 6265-5.2.4-01, 6265-5.3-01e; fault K17.
#[test]
fn paths() {
    for (request, cookie, expected) in [
        ("/foo", "/foo", true),
        ("/foo/", "/foo", true),
        ("/foo/bar", "/foo", true),
        ("/foo/bar", "/foo/", true),
        ("/foobar", "/foo", false),
        ("/Foo", "/foo", false),
        ("/fo", "/foo", false),
        ("/", "/", true),
        ("/x", "/", true),
    ] {
        assert_eq!(path_match(request.as_bytes(), cookie.as_bytes()), expected, "{request} {cookie}");
    }
    for (request, expected) in
        [("/", "/"), ("/a", "/"), ("/a/", "/a"), ("/a/b", "/a"), ("", "/"), ("x", "/"), ("/a/b/c", "/a/b")]
    {
        assert_eq!(default_path(request.as_bytes()), expected.as_bytes(), "{request}");
    }
    for (attribute, expected) in [
        ("", "/dir"),
        ("; Path", "/dir"),
        ("; Path=relative", "/dir"),
        ("; Path=/x", "/x"),
        ("; Path=/x; Path=/y", "/y"),
        ("; Path=/x; Path=", "/dir"),
    ] {
        assert_eq!(receive(&format!("a=b{attribute}"), "h.com", false).unwrap().path, expected.as_bytes());
    }
}

/// 6265-5.3-01f, 6265-5.4-04a, 6265-5.4-04b, 6265-5.4-04c; faults K15, K16.
#[test]
fn secure_prefixes_and_shadows() {
    for (value, secure, expected) in [
        ("a=b; Secure", true, None),
        ("a=b; Secure", false, Some(Ignored::SecureFromInsecure)),
        ("__Secure-a=b; Secure", true, None),
        ("__Secure-a=b", true, Some(Ignored::Prefix)),
        ("__secure-a=b", true, Some(Ignored::Prefix)),
        ("__Host-a=b; Secure; Path=/", true, None),
        ("__Host-a=b; Secure", true, Some(Ignored::Prefix)),
        ("__HOST-a=b; Secure; Path=/; Domain=a.com", true, Some(Ignored::Prefix)),
        ("__Host-a=b; Secure; Path=/x", true, Some(Ignored::Prefix)),
        ("=__Secure-a=b", true, Some(Ignored::Prefix)),
        ("__Host-a", true, Some(Ignored::Prefix)),
        ("a=b; SameSite=None; Secure", true, None),
        ("a=b; SameSite=None", true, Some(Ignored::SameSiteNoneInsecure)),
        ("a=b; SameSite=strict", true, None),
    ] {
        assert_eq!(receive(value, "www.a.com", secure).err(), expected, "{value}");
    }
    let secure = receive("a=1; Secure; Path=/login; Domain=a.com", "www.a.com", true).unwrap();
    for (value, host, shadows) in [
        ("a=2; Path=/login", "www.a.com", true),
        ("a=2; Path=/login/en", "www.a.com", true),
        ("a=2; Path=/login; Domain=a.com", "www.a.com", true),
        ("a=2; Path=/", "www.a.com", false),
        ("a=2; Path=/foo", "www.a.com", false),
        ("b=2; Path=/login", "www.a.com", false),
    ] {
        assert_eq!(receive(value, host, false).unwrap().shadows_secure(&secure), shadows, "{value}");
    }
}

/// 6265-5.4-04a to -04c.
#[test]
fn where_a_cookie_is_sent() {
    let domain = receive("a=b; Domain=a.com; Path=/x", "www.a.com", false).unwrap();
    let host = receive("a=b; Path=/", "www.a.com", false).unwrap();
    let secure = receive("a=b; Secure; Path=/", "www.a.com", true).unwrap();
    let at = |host, path: &'static str, secure, same_site| Context {
        host,
        path: path.as_bytes(),
        secure,
        same_site,
    };
    for (cookie, context, safe, expected) in [
        (&domain, at("b.a.com", "/x/y", false, true), true, true),
        (&domain, at("a.com", "/x", false, true), true, true),
        (&domain, at("a.com", "/xy", false, true), true, false),
        (&domain, at("evila.com", "/x", false, true), true, false),
        (&host, at("www.a.com", "/", false, true), true, true),
        (&host, at("w.www.a.com", "/", false, true), true, false),
        (&secure, at("www.a.com", "/", true, true), true, true),
        (&secure, at("www.a.com", "/", false, true), true, false),
        (&host, at("www.a.com", "/", false, false), true, true),
        (&host, at("www.a.com", "/", false, false), false, false),
    ] {
        assert_eq!(cookie.belongs_to(&context, safe), expected, "{cookie:?} {context:?}");
    }
    assert!(!format!("{secure:?}").contains("=b"), "values stay out of debug output");
}

/// 6265-4.1.1-04, 6265-4.1.1-05, 9110-2.2-01.
#[test]
fn what_the_builder_writes_and_refuses() {
    let full = Builder {
        name: "sid",
        value: "x1",
        max_age: Some(60),
        expires_imf: Some("Sun, 06 Nov 1994 08:49:37 GMT"),
        domain: Some("a.com"),
        path: Some("/"),
        secure: true,
        http_only: true,
        same_site: SameSite::Strict,
    };
    let text = full.build().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&text),
        "sid=x1; Expires=Sun, 06 Nov 1994 08:49:37 GMT; Max-Age=60; Domain=a.com; Path=/; Secure; HttpOnly; SameSite=Strict"
    );
    assert!(SetCookie::parse(&text).is_ok());
    let plain = Builder { name: "a", value: "b", ..Builder::default() };
    assert_eq!(plain.build().unwrap(), b"a=b");
    for (builder, expected) in [
        (Builder { name: "", ..plain.clone() }, InvalidCookie::Name),
        (Builder { name: "a b", ..plain.clone() }, InvalidCookie::Name),
        (Builder { value: "a;b", ..plain.clone() }, InvalidCookie::Value),
        (Builder { value: "a b", ..plain.clone() }, InvalidCookie::Value),
        (Builder { value: "a\r\n", ..plain.clone() }, InvalidCookie::Value),
        (Builder { value: "ä", ..plain.clone() }, InvalidCookie::Value),
        (Builder { path: Some("/;x"), ..plain.clone() }, InvalidCookie::Attribute),
        (Builder { domain: Some("a\n"), ..plain.clone() }, InvalidCookie::Attribute),
        (Builder { same_site: SameSite::None, ..plain.clone() }, InvalidCookie::Useless),
        (Builder { name: "__Host-a", secure: true, ..plain.clone() }, InvalidCookie::Useless),
        (Builder { name: "__Secure-a", ..plain.clone() }, InvalidCookie::Useless),
    ] {
        assert_eq!(builder.build().unwrap_err(), expected, "{builder:?}");
    }
}

#[test]
fn pairs_of_a_cookie_field() {
    let got: Vec<_> = pairs(b"a=b; c=\"d\";e;  f = g=h").collect();
    assert_eq!(got, [(&b"a"[..], &b"b"[..]), (b"c", b"\"d\""), (b"f", b"g=h")]);
}
