//! What a listing shows and hides, and that no name gets out of its place.

use super::super::tests::{Answer, Scratch, Site, options, realise};
use super::*;
use crate::files::Worker;
use crate::handler::Handled;
use eleven_net::file::Options;
use eleven_semantics::Method;

fn site(entries_max: usize, symlinks: Symlinks) -> Site {
    let scratch = Scratch::new();
    scratch
        .file("a.txt", "aaa", 100)
        .file("B.txt", "b", 200)
        .file("c.bin", vec![0; 2048], 50)
        .file("sub/x", "x", 100)
        .file("Zdir/x", "x", 100)
        .file("<img src=x onerror=alert(1)>\"'&.txt", "evil", 100)
        .file("a\x1b]0;x\x07\u{202e}gpj.exe", "evil", 100)
        .file("javascript:alert(1)", "evil", 100)
        .file("100% #1?.txt", "odd", 100)
        .file("Fran\u{e7}ois \u{65e5}\u{672c}", "utf-8", 100)
        .file(".env", "hidden", 100)
        .file(".git/config", "hidden", 100)
        .file("half.eleven-part", "hidden", 100)
        .file("front/index.html", "front", 100)
        .link("inside", "a.txt")
        .link("outside", "/etc/passwd")
        .link("dangling", "nowhere");
    std::fs::create_dir(scratch.0.join("root/empty")).unwrap();
    std::os::unix::net::UnixListener::bind(scratch.0.join("root/socket")).unwrap();
    let mut options = options();
    options.listing = Some(ListingOptions { entries_max });
    Site::mounted(scratch, "", options, Options { symlinks, dot_names: false })
}

async fn ask(site: &Site, method: Method, target: &str, lines: &[(&str, &str)]) -> Answer {
    let mut request = site.request(method, target, lines);
    let worker = Worker { hot: &site.hot, now: site.now, now_ms: site.now_ms, random: || Ok([0xab; 16]) };
    realise(match site.files.handle(&mut request, &worker) {
        Handled::Ready(response) => response,
        Handled::Later(later) => later.await,
        Handled::Soon(soon) => panic!("{soon:?}: files ask nobody"),
    })
}

fn names(json: &[u8]) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap();
    let entries = value["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

const JSON: (&str, &str) = ("Accept", "application/json");

/// Fault P11, P12, P13: what cannot be asked for is not shown; and everything that is shown can be asked for.
#[tokio::test]
async fn shows_what_can_be_asked_for() {
    for (symlinks, link) in [(Symlinks::Refuse, false), (Symlinks::Beneath, true)] {
        let site = site(100, symlinks);
        let answer = ask(&site, Method::Get, "/", &[JSON]).await;
        assert_eq!((answer.status, answer.get("Content-Type")), (200, "application/json"));
        let names = names(&answer.content);
        assert_eq!(names.contains(&"inside".to_owned()), link);
        for hidden in [".env", ".git", "half.eleven-part", "outside", "dangling", "socket"] {
            assert!(!names.iter().any(|name| name == hidden), "{hidden}");
        }
        assert_eq!(names.len(), 12 + usize::from(link), "{names:?}");
        let value: serde_json::Value = serde_json::from_slice(&answer.content).unwrap();
        for entry in value["entries"].as_array().unwrap() {
            let href = entry["href"].as_str().unwrap().strip_prefix('.').unwrap();
            let answer = ask(&site, Method::Get, href, &[]).await;
            assert_eq!(answer.status, 200, "{href}");
            if let Some(size) = entry["size"].as_u64() {
                assert_eq!(answer.content.len() as u64, size, "{href}");
            }
        }
        assert_eq!(ask(&site, Method::Get, "/front/", &[JSON]).await.content, b"front");
    }
}

/// Off by default.
#[test]
fn no_listing_unless_asked_for() {
    let scratch = Scratch::new();
    scratch.file("sub/x", "x", 100);
    let site = Site::new(scratch, options());
    assert_eq!(site.get("/sub/", &[]).status, 404);
    assert_eq!(site.get("/sub", &[]).status, 301);
}

/// Faults P14 and P26: names are text in the page, in attributes and in links.
#[tokio::test]
async fn names_stay_in_their_place() {
    let site = site(100, Symlinks::Refuse);
    let answer = ask(&site, Method::Get, "/", &[]).await;
    assert_eq!(answer.get("Content-Type"), "text/html; charset=utf-8");
    let page = String::from_utf8(answer.content).unwrap();
    for expected in [
        "<bdi>&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;.txt</bdi>",
        "href=\"./%3Cimg%20src=x%20onerror=alert(1)%3E%22%27&amp;.txt\"",
        "<bdi>a\u{fffd}]0;x\u{fffd}\u{fffd}gpj.exe</bdi>",
        "href=\"./javascript:alert(1)\"",
        "href=\"./100%25%20%231%3F.txt\"",
        "<bdi>Fran\u{e7}ois \u{65e5}\u{672c}</bdi>",
        "href=\"./sub/\"",
    ] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
    for bad in
        ["<img", "\x1b", "\x07", "\u{202e}", "href=\"javascript", "<script", "http://", "https://", "src=\""]
    {
        assert!(!page.contains(bad), "{bad:?}");
    }
    // The page may load nothing; its one style sheet is allowed by its hash.
    let policy = answer.fields.get("Content-Security-Policy").unwrap();
    assert!(policy.starts_with(b"default-src 'none'; style-src 'sha256-"), "{}", policy.escape_ascii());
    assert_eq!(page.matches("<style>").count(), 1);
}

/// A name in the path is as harmless as one in the list.
#[tokio::test]
async fn paths_stay_in_their_place() {
    let site = site(100, Symlinks::Refuse);
    std::fs::create_dir(site.scratch.0.join("root/<b>\"x")).unwrap();
    let page = String::from_utf8(ask(&site, Method::Get, "/%3Cb%3E%22x/", &[]).await.content).unwrap();
    assert!(page.contains("<title>Index of /&lt;b&gt;&quot;x/</title>"), "{page}");
    assert!(page.contains("<a href=\"/%3Cb%3E%22x/\">&lt;b&gt;&quot;x/</a>"));
    assert!(page.contains("<a href=\"../\">../</a>") && page.contains("This directory is empty."));
    assert!(!page.contains("<b>"));
}

/// Sorting, by what the links of the page ask for; nonsense is ignored.
#[tokio::test]
async fn sorting() {
    let site = site(100, Symlinks::Refuse);
    for odd in ["<img src=x onerror=alert(1)>\"'&.txt", "a\x1b]0;x\x07\u{202e}gpj.exe", "javascript:alert(1)"]
    {
        std::fs::remove_file(site.scratch.0.join("root").join(odd)).unwrap();
    }
    let directories = ["empty", "front", "sub", "Zdir"];
    let by_name = ["100% #1?.txt", "a.txt", "B.txt", "c.bin", "Fran\u{e7}ois \u{65e5}\u{672c}"];
    let by_size = ["B.txt", "100% #1?.txt", "a.txt", "Fran\u{e7}ois \u{65e5}\u{672c}", "c.bin"];
    let newest_last = ["B.txt", "100% #1?.txt", "a.txt", "Fran\u{e7}ois \u{65e5}\u{672c}", "c.bin"];
    for (query, files, reverse) in [
        ("", by_name, false),
        ("?sort=name", by_name, false),
        ("?sort=name&order=descending", by_name, true),
        ("?order=descending", by_name, true),
        ("?sort=size&order=ascending", by_size, false),
        ("?sort=size&order=descending", by_size, true),
        ("?sort=modified", newest_last, false),
        ("?sort=modified&order=descending", newest_last, true),
        ("?sort=NAME&order=up", by_name, false),
        ("?sort", by_name, false),
        ("?&&=&x=<script>", by_name, false),
    ] {
        let answer = ask(&site, Method::Get, &format!("/{}", query.replace(['<', '>'], "")), &[JSON]).await;
        let names = names(&answer.content);
        let (first, rest) = names.split_at(4);
        let mut first = first.to_vec();
        first.sort_by_key(|name| name.to_ascii_lowercase());
        assert_eq!(first, directories, "{query}");
        let mut files = files.to_vec();
        if reverse {
            files.reverse();
        }
        assert_eq!(rest, files, "{query}");
    }
    let page = String::from_utf8(ask(&site, Method::Get, "/?sort=size", &[]).await.content).unwrap();
    assert!(
        page.contains("aria-sort=\"ascending\"><a href=\"?sort=size&amp;order=descending\">Size"),
        "{page}"
    );
    assert!(page.contains("<a href=\"?sort=name&amp;order=ascending\">Name"));
}

/// Fault P15: a huge directory costs no more than the limit, and says that there is more.
#[tokio::test]
async fn at_most_so_many_entries() {
    let site = site(5, Symlinks::Refuse);
    let answer = ask(&site, Method::Get, "/", &[JSON]).await;
    let value: serde_json::Value = serde_json::from_slice(&answer.content).unwrap();
    assert_eq!(value["truncated"], true);
    assert!(names(&answer.content).len() <= 5);
    let page = String::from_utf8(ask(&site, Method::Get, "/", &[]).await.content).unwrap();
    assert!(page.contains("<p>Only the first "));
    let page = String::from_utf8(ask(&site, Method::Get, "/sub/", &[]).await.content).unwrap();
    assert!(!page.contains("<p>"));
}

/// 9110-9.3.2-02, 9110-13.1.2-04, 9110-12.5.5-03: a listing is a representation like any other.
#[tokio::test]
async fn conditions_and_head() {
    let site = site(100, Symlinks::Refuse);
    let get = ask(&site, Method::Get, "/", &[]).await;
    let head = ask(&site, Method::Head, "/", &[]).await;
    assert_eq!((head.status, head.fields.wire()), (200, get.fields.wire()));
    assert_eq!((get.get("Vary"), get.get("Last-Modified")), ("Accept", ""));
    let tag = get.get("ETag").to_owned();
    let answer = ask(&site, Method::Get, "/", &[("If-None-Match", &tag)]).await;
    assert_eq!((answer.status, answer.get("Vary"), answer.get("ETag")), (304, "Accept", &*tag));
    assert_eq!(ask(&site, Method::Get, "/", &[("If-None-Match", &tag), JSON]).await.status, 200);
    assert_eq!(ask(&site, Method::Get, "/", &[("Range", "bytes=0-8")]).await.content, b"<!doctype");
    assert_eq!(ask(&site, Method::Get, "/?sort=size", &[("If-None-Match", &tag)]).await.status, 200);
    for (accept, json) in [
        ("text/html,application/xhtml+xml,*/*;q=0.8", false),
        ("*/*", false),
        ("application/*", true),
        ("application/json;q=0.5, text/html;q=0.4", true),
        ("image/png", false),
        ("nonsense", false),
    ] {
        let answer = ask(&site, Method::Get, "/", &[("Accept", accept)]).await;
        assert_eq!(answer.get("Content-Type") == "application/json", json, "{accept}");
    }
    assert_eq!(ask(&site, Method::Post, "/", &[]).await.status, 405);
}

#[test]
fn sizes_for_people() {
    for (size, expected) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102_399, "99.9 KiB"),
        (102_400, "100 KiB"),
        (1_048_575, "1023 KiB"),
        (1_048_576, "1.0 MiB"),
        (u64::MAX, "15.9 EiB"),
    ] {
        assert_eq!(human(size), expected);
    }
    assert_eq!(iso(HttpDate(0), "T", ":", "Z"), "1970-01-01T00:00:00Z");
}
