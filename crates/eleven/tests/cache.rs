//! The cache as an operator meets it: `cache = {…}` of routes, `forward --cache`, and the commands of `eleven cache`
//! against a running server.

mod support;

use eleven_testkit::reader::Response;
use std::process::{Command, Output};
use support::{Folder, Server, WATCHDOG};

fn folder() -> Folder {
    Folder::new()
}

/// Runs `eleven cache` with these arguments; both outputs.
fn cache(args: &[&str]) -> (Option<i32>, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_eleven"))
        .arg("cache")
        .args(args)
        .output()
        .expect("eleven can be run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// Asks until the answer comes from the store: it is there when its last octet is, a moment after the client has it.
#[track_caller]
fn until_hit(ask: impl Fn() -> Response) -> Response {
    let started = std::time::Instant::now();
    loop {
        let response = ask();
        if response.field("X-Cache") == Some("HIT") {
            return response;
        }
        assert!(
            started.elapsed() < WATCHDOG,
            "nothing is stored: {} {:?}",
            response.status,
            response.field("X-Cache")
        );
    }
}

#[track_caller]
fn word(response: &Response) -> String {
    response.field("X-Cache").unwrap_or_default().to_owned()
}

/// Keys, lifetimes, statuses and methods of a route; another route over the same store is none of its business.
#[test]
fn rules_of_a_route() {
    let folder = folder();
    let origin = Server::echo(&[]);
    let url = format!("http://{}", origin.address);
    let config = format!(
        r#"
cache = {{ x_cache = true }}
log.access = "off"
[[site]]
[[site.route]]
proxy = {{ upstream = "{url}" }}
[site.route.cache]
methods = ["GET"]
statuses = ["2xx"]
sort_query = true
ignore_parameters = ["utm_*"]
key_cookies = ["theme"]
bypass_cookies = ["session", "login_*"]
default_lifetime = "1h"
[[site.route]]
path = "/plain"
strip_prefix = true
proxy = {{ upstream = "{url}", cache = true }}
"#
    );
    let server = Server::configured(&folder, &config);
    let ask = |method: &str, target: &str, fields: &str| {
        server.ask(&format!("{method} {target} HTTP/1.1\nHost: a.test\n{fields}"))
    };
    let first = ask("GET", "/bytes/7?b=1&utm_source=x&a=2", "");
    assert_eq!((word(&first).as_str(), first.status), ("MISS", 200));
    // The order of parameters and those that are ignored make no difference; others do, and so does the cookie.
    until_hit(|| ask("GET", "/bytes/7?a=2&b=1", ""));
    until_hit(|| ask("GET", "/bytes/7?b=1&a=2&utm_medium=y", "Cookie: other=1\n"));
    assert_eq!(word(&ask("GET", "/bytes/7?a=2&b=2", "")), "MISS");
    assert_eq!(word(&ask("GET", "/bytes/7?a=2&b=1", "Cookie: theme=dark\n")), "MISS");
    until_hit(|| ask("GET", "/bytes/7?a=2&b=1", "Cookie: x=1; theme=dark\n"));
    // Who has logged in gets nothing of it, and leaves nothing there.
    for (number, cookie) in ["session=1", "theme=dark; login_7=ann"].iter().enumerate() {
        let own = format!("Cookie: {cookie}\n");
        assert_eq!(word(&ask("GET", "/bytes/7?a=2&b=1", &own)), "");
        assert_eq!(ask("GET", &format!("/bytes/9?n={number}"), &own).status, 200);
        assert_eq!(word(&ask("GET", &format!("/bytes/9?n={number}"), "")), "MISS");
    }
    until_hit(|| ask("GET", "/bytes/7?a=2&b=1", "Cookie: sessions=1\n"));
    // HEAD goes past the store, and a status that is not listed is not stored.
    assert_eq!(word(&ask("HEAD", "/bytes/7?a=2&b=1", "")), "");
    for _ in 0..3 {
        assert_eq!(word(&ask("GET", "/status/404", "")), "MISS");
    }
    // Without a default lifetime nothing of this server is fresh.
    for _ in 0..3 {
        assert_eq!(word(&ask("GET", "/plain/bytes/7", "")), "MISS");
    }
}

/// Any handler may have the cache in front: here files, whose content is read into the store.
#[test]
fn files_behind_a_cache() {
    let folder = folder();
    let content = "0123456789".repeat(50_000);
    folder.write("www/large.txt", &content);
    let config = "cache = { x_cache = true }\nlog.access = \"off\"\n[[site]]\ncache_control = \"max-age=60\"\n\
                  [[site.route]]\nfiles = { root = \"www\" }\ncache = { default_lifetime = \"1m\" }\n";
    let server = Server::configured(&folder, config);
    let first = server.get("/large.txt");
    assert_eq!((first.status, word(&first).as_str()), (200, "MISS"));
    assert!(first.text() == content);
    let second = until_hit(|| server.get("/large.txt"));
    assert!(second.text() == content);
    let part = server.ask("GET /large.txt HTTP/1.1\nHost: localhost\nRange: bytes=499990-");
    assert_eq!((part.status, word(&part).as_str(), &*part.text()), (206, "HIT", "0123456789"));
}

/// `forward --cache` stores what goes through by plain http, for each site on its own.
#[test]
fn a_forward_proxy_with_a_cache() {
    let folder = folder();
    folder.write("www/page.txt", "stored\n");
    let config = "log.access = \"off\"\n[[site]]\nroot = \"www\"\ncache_control = \"max-age=60\"\n";
    let (one, two) = (Server::configured(&folder, config), Server::configured(&folder, config));
    let proxy = Server::start(&["forward", "--cache", "--x-cache", "--allow-destination", "127.0.0.0/8"]);
    let get = |origin: &Server| {
        let address = origin.address;
        proxy.ask(&format!("GET http://{address}/page.txt HTTP/1.1\nHost: {address}"))
    };
    let first = get(&one);
    assert_eq!((first.status, word(&first).as_str(), &*first.text()), (200, "MISS", "stored\n"));
    assert_eq!(until_hit(|| get(&one)).text(), "stored\n");
    assert_eq!(word(&get(&two)), "MISS");
    // In origin-form it is nobody's proxy.
    assert_eq!(proxy.get("/page.txt").status, 400);
}

/// Warm, stats, list, purge (hard, soft, dry) and explain, by the admin listener of a running gateway.
#[test]
fn commands() {
    let folder = folder();
    for name in ["a/1.txt", "a/2.txt", "b.txt"] {
        folder.write(&format!("www/{name}"), name);
    }
    let config = "log.access = \"off\"\n[[site]]\nroot = \"www\"\ncache_control = \"max-age=600\"\n\
                  fields.set = { \"Surrogate-Key\" = \"red\" }\n";
    let origin = Server::configured(&folder, config);
    let socket = folder.path().join("admin.sock");
    let admin = format!("unix:{}", socket.display());
    let store = folder.path().join("store").display().to_string();
    let url = format!("http://{}", origin.address);
    let server =
        Server::start(&["proxy", &url, "--cache=10M", "--cache-dir", &store, "--x-cache", "--admin", &admin]);
    let sitemap = folder.write(
        "map.xml",
        "<urlset><url><loc>http://a.test/a/1.txt</loc></url><url><loc>http://a.test/a/2.txt</loc></url>\
         <url><loc>http://a.test/b.txt</loc></url></urlset>",
    );
    let through = server.address.to_string();
    let (code, told) = cache(&["warm", "--sitemap", sitemap.to_str().unwrap(), "--through", &through]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("3 of 3 fetched"), "{told}");
    let (code, told) = cache(&["warm", "http://a.test/nothing", "--through", &through]);
    assert!(code == Some(1) && told.contains("answered 404"), "{told}");
    let get = |path: &str| server.ask(&format!("GET {path} HTTP/1.1\nHost: a.test"));
    for path in ["/a/1.txt", "/a/2.txt", "/b.txt"] {
        until_hit(|| get(path));
    }
    let run = |args: &[&str]| {
        let (code, told) = cache(&[args, &["--admin", &admin]].concat());
        assert_eq!(code, Some(0), "{args:?}: {told}");
        told
    };
    let told = run(&["stats"]);
    assert!(told.contains("3 keys") && told.contains("% from the store alone"), "{told}");
    // The key has the name that clients ask for, not the server's.
    assert!(
        run(&["purge", &format!("{url}/b.txt"), "--dry-run"]).contains("nothing is stored under this URL")
    );
    let told = run(&["list", "http://a.test/a/*"]);
    assert!(
        told.contains("http://a.test/a/1.txt") && told.contains("tags: red") && !told.contains("b.txt"),
        "{told}"
    );
    assert!(run(&["purge", "--tag", "red", "--dry-run"]).starts_with("3 stored responses"));
    until_hit(|| get("/a/1.txt"));
    assert!(run(&["purge", "http://a.test/a/*"]).starts_with("2 stored responses"));
    assert_eq!(word(&get("/a/1.txt")), "MISS");
    assert_eq!(word(&get("/b.txt")), "HIT");
    run(&["purge", "--tag", "red", "--soft"]);
    assert_eq!(word(&get("/b.txt")), "VALIDATED");
    run(&["purge", "--everything"]);
    assert_eq!(word(&get("/b.txt")), "MISS");
    let told = run(&["explain", &format!("http://{through}/b.txt")]);
    assert!(told.contains("fresh for 10 minutes") && told.contains("RFC 9111 §5.2.2.1"), "{told}");
    assert!(told.contains("The running cache has"), "{told}");
    // What nobody asked for, and where nobody listens.
    assert_eq!(cache(&["purge", "--admin", &admin]).0, Some(2));
    let (code, told) = cache(&["stats", "--admin", &format!("unix:{}.none", socket.display())]);
    assert!(code == Some(1) && told.contains("--admin"), "{told}");
}

/// A head from a file, as JSON and in words.
#[test]
fn a_head_is_explained() {
    let folder = folder();
    let file = folder.write("head", "HTTP/1.1 200 OK\r\nCache-Control: private, max-age=60\r\n\r\n");
    let file = file.to_str().unwrap();
    let (code, told) = cache(&["explain", "--head", file]);
    assert!(code == Some(0) && told.contains("not stored") && told.contains("§5.2.2.7"), "{told}");
    let (_, told) = cache(&["explain", "--head", file, "--private", "--json"]);
    assert!(told.contains("\"fresh_seconds\":60") && told.contains("\"stored\":true"), "{told}");
    let file = folder.write("bad", "no head at all");
    assert_eq!(cache(&["explain", "--head", file.to_str().unwrap()]).0, Some(1));
}

/// `eleven get --cache DIR`: fresh responses without the server, stale ones validated; nothing of a user's own in it.
#[test]
fn a_private_cache_for_get() {
    let folder = folder();
    let large = "0123456789".repeat(200_000);
    folder.write("www/page.txt", "stored\n");
    folder.write("www/large.txt", &large);
    folder.write("www/stale.txt", "validated\n");
    let config = "log.access = \"off\"\n[[site]]\ncache_control = \"private, max-age=600\"\nroot = \"www\"\n\
                  [[site.route]]\nexact = \"/old\"\nredirect = { to = \"/page.txt\", status = 301 }\n\
                  [[site.route]]\nexact = \"/stale.txt\"\nfiles = { root = \"www\" }\ncache_control = \"no-cache\"\n";
    let origin = Server::configured(&folder, config);
    let store = folder.path().join("store").display().to_string();
    let get = |path: &str, more: &[&str]| {
        let url = format!("http://{}{path}", origin.address);
        let output = Command::new(env!("CARGO_BIN_EXE_eleven"))
            .args([&["get", "--cache", &store, "-v", "-o", "-"], more, &[&url]].concat())
            .output()
            .expect("eleven can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned(), said, output.status.code())
    };
    for (path, content, first, second) in [
        ("/page.txt", "stored\n", "MISS", "HIT"),
        ("/large.txt", large.as_str(), "MISS", "HIT"),
        ("/stale.txt", "validated\n", "MISS", "VALIDATED"),
        // The redirection leads to what is stored already.
        ("/old", "stored\n", "HIT", "HIT"),
    ] {
        for word in [first, second] {
            let (printed, said, code) = get(path, &[]);
            assert!(printed == content, "{path}: {} octets, {said}", printed.len());
            assert!(code == Some(0) && said.contains(&format!("cache: {word}")), "{path}, {word}: {said}");
        }
    }
    let (_, said, code) = get("/page.txt", &["-u", "a:b"]);
    assert!(code != Some(0) && said.contains("--cache"), "{said}");
    let (printed, _, code) = get("/nothing", &[]);
    assert!(code != Some(0) && printed.is_empty());
}
