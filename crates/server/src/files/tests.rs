//! The file handler on real trees: what a path shows and hides, what each method gets, how negotiation chooses,
//! how memory follows the disk.

use super::hot::HotLimits;
use super::*;
use crate::request::Peer;
use crate::response::{Content, Part};
use eleven_net::file::{Options, Symlinks};
use eleven_semantics::RequestTarget;
use eleven_semantics::target::Scheme;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A directory that goes away with its test.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("eleven-files-{}-{number}", std::process::id()));
        std::fs::create_dir_all(path.join("root")).unwrap();
        Scratch(path)
    }

    /// Writes a file beneath `root`, with a modification time `age` seconds before [`NOW`].
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>, age: i64) -> &Scratch {
        let path = self.0.join("root").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs((now().0 - age) as u64);
        File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        self
    }

    pub fn link(&self, name: &str, to: &str) -> &Scratch {
        std::os::unix::fs::symlink(to, self.0.join("root").join(name)).unwrap();
        self
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The time of all requests: a minute after the test began, so that every file made by it has settled.
pub(super) fn now() -> HttpDate {
    static NOW: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    let start = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    HttpDate(*NOW.get_or_init(start) + 60)
}

/// A tree and a worker.
pub(super) struct Site {
    pub scratch: Scratch,
    pub files: Files,
    pub hot: RefCell<Hot>,
    pub now_ms: u64,
    pub now: HttpDate,
}

pub(super) struct Answer {
    pub status: u16,
    pub fields: Fields,
    pub content: Vec<u8>,
    /// How it would be sent.
    pub kind: String,
}

impl Answer {
    pub fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| std::str::from_utf8(value).unwrap())
    }
}

pub(super) fn options() -> FilesOptions {
    let lookups = Lookups { index: Box::new([b"index.html"[..].into()]), ..Lookups::default() };
    FilesOptions { lookups, ..FilesOptions::default() }
}

impl Site {
    pub fn new(scratch: Scratch, options: FilesOptions) -> Site {
        Site::mounted(scratch, "", options, Options::default())
    }

    pub fn mounted(scratch: Scratch, mount: &str, options: FilesOptions, root: Options) -> Site {
        let root = Root::open_directory(&scratch.0.join("root"), root).unwrap();
        Site {
            files: Files::new(root, mount.as_bytes(), options),
            scratch,
            hot: RefCell::new(Hot::new(HotLimits::default(), 7)),
            now_ms: 1_000_000,
            now: now(),
        }
    }

    pub fn request(&self, method: Method, target: &str, lines: &[(&str, &str)]) -> Request {
        let peer =
            Peer { address: None, scheme: Scheme::Http, local_port: 80, listener: None, server_name: None };
        let mut request = Request::new(Rc::new(peer));
        request.head.target = RequestTarget::parse(&method, target.as_bytes()).unwrap();
        request.head.method = method;
        for (name, value) in lines {
            request.head.fields.push(*name, value).unwrap();
        }
        request.renew();
        request
    }

    pub fn ask(&self, method: Method, target: &str, lines: &[(&str, &str)]) -> Answer {
        let mut request = self.request(method, target, lines);
        let worker = Worker { hot: &self.hot, now: self.now, now_ms: self.now_ms, random: || Ok([0xab; 16]) };
        match self.files.handle(&mut request, &worker) {
            Handled::Ready(response) => realise(response),
            Handled::Later(_) | Handled::Soon(_) => panic!("{target}: not at once"),
        }
    }

    pub fn get(&self, target: &str, lines: &[(&str, &str)]) -> Answer {
        self.ask(Method::Get, target, lines)
    }
}

/// The octets that would be sent.
pub(super) fn realise(response: Response) -> Answer {
    let kind = format!("{:?}", response.content);
    let mut content = Vec::new();
    let mut push = |part: Part| match part {
        Part::Bytes(bytes) => content.extend_from_slice(&bytes),
        Part::File(range) => {
            let mut bytes = vec![0; range.length as usize];
            range.file.read_exact_at(&mut bytes, range.offset).unwrap();
            content.extend_from_slice(&bytes);
        }
    };
    let length = response.content.length();
    match response.content {
        Content::Empty => {}
        Content::Bytes(bytes) => push(Part::Bytes(bytes)),
        Content::File(range) => push(Part::File(range)),
        Content::Parts(parts) => parts.into_iter().for_each(push),
        other => panic!("{other:?}"),
    }
    assert!(length.is_none_or(|length| length == content.len() as u64));
    Answer { status: response.status.code(), fields: response.fields.get().clone(), content, kind }
}

fn tree() -> Scratch {
    let scratch = Scratch::new();
    std::fs::write(scratch.0.join("secret"), "secret").unwrap();
    scratch
        .file("index.html", "front", 100)
        .file("a.txt", "a", 100)
        .file("dir/index.html", "dir front", 100)
        .file("dir/b.txt", "b", 100)
        .file("plain/c.txt", "c", 100)
        .file("back\\slash", "literal", 100)
        .file("%2e%2e", "percent", 100)
        .file("semi;colon", "data", 100)
        .file("secret.txt", "s", 100)
        .file("Case.txt", "case", 100)
        .file("empty", "", 100)
        .file(".git/config", "git", 100)
        .file(".env", "env", 100)
        .file(".well-known/security.txt", "wk", 100)
        .file("x.eleven-part", "half", 100)
        .file("locked.txt", "locked", 100)
        .file("a\x1b]0;x\x07", "escape", 100)
        .link("inside", "a.txt")
        .link("outside", "../secret")
        .link("etc", "/etc")
        .link("proc", "/proc/self/environ")
        .link("linked", "dir");
    std::fs::create_dir(scratch.0.join("root/indexless")).unwrap();
    std::fs::create_dir_all(scratch.0.join("root/covered")).unwrap();
    scratch.link("covered/index.html", "../../secret");
    let path = scratch.0.join("root/fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    std::os::unix::net::UnixListener::bind(scratch.0.join("root/socket")).unwrap();
    scratch
}

/// Faults P01 to P13, P16 to P21, P26: what each target shows, with links refused.
#[test]
fn what_targets_show() {
    let site = Site::new(tree(), options());
    for (target, status, shows) in [
        ("/", 200, "front"),
        ("/index.html", 200, "front"),
        ("/a.txt", 200, "a"),
        ("/a.txt?query=/../x", 200, "a"),
        ("http://other/a.txt", 200, "a"),
        ("/dir/", 200, "dir front"),
        ("/dir/b.txt", 200, "b"),
        ("/%61.txt", 200, "a"),
        ("/empty", 200, ""),
        ("/absent", 404, ""),
        ("/a.txt/", 404, ""),
        ("/a.txt/b", 404, ""),
        ("/plain/", 404, ""),
        ("/indexless/", 404, ""),
        // P01, P02, P03
        ("/../secret", 400, ""),
        ("/dir/../../secret", 400, ""),
        ("/%2e%2e/secret", 400, ""),
        ("/..%2fsecret", 404, ""),
        ("/dir%2fb.txt", 404, ""),
        ("/%252e%252e/secret", 404, ""),
        ("/%252e%252e", 200, "percent"),
        ("/dir/../a.txt", 200, "a"),
        // P04, P05
        ("/%c0%ae%c0%ae/secret", 404, ""),
        ("/a.txt%00.html", 400, ""),
        // P06
        ("/back%5cslash", 200, "literal"),
        ("/..%5c..%5csecret", 404, ""),
        // P07
        ("//etc/passwd", 404, ""),
        ("/etc/passwd", 404, ""),
        ("/C:/x", 404, ""),
        ("//a.txt", 200, "a"),
        // P08, P10
        ("/inside", 404, ""),
        ("/outside", 404, ""),
        ("/proc", 404, ""),
        ("/linked/b.txt", 404, ""),
        // An index file that is refused is not passed over.
        ("/covered/", 404, ""),
        // P11
        ("/.git/config", 404, ""),
        ("/.git/", 404, ""),
        ("/.env", 404, ""),
        ("/%2eenv", 404, ""),
        ("/.well-known/security.txt", 200, "wk"),
        // P12
        ("/x.eleven-part", 404, ""),
        // P13: and at once, whoever may write to the FIFO.
        ("/fifo", 403, ""),
        ("/socket", 403, ""),
        // P16, P17, P18, P19
        ("/secret.txt.", 404, ""),
        ("/secret.txt%20", 404, ""),
        ("/a.txt/.", 404, ""),
        ("/dir/.", 200, "dir front"),
        ("/case.txt", 404, ""),
        ("/semi;colon", 200, "data"),
        ("/dir;x/b.txt", 404, ""),
        ("/..;/a.txt", 404, ""),
        ("//dir//b.txt", 200, "b"),
        // P26
        ("/a%1b%5d0;x%07", 200, "escape"),
    ] {
        for _ in 0..2 {
            let answer = site.get(target, &[]);
            assert_eq!((answer.status, &answer.content[..]), (status, shows.as_bytes()), "{target}");
        }
    }
}

/// Faults P08, P09 with links allowed as long as they stay beneath the root; P11 with dotfiles shown.
#[test]
fn links_that_stay_beneath() {
    let root = Options { symlinks: Symlinks::Beneath, dot_names: true };
    let site = Site::mounted(tree(), "", options(), root);
    for (target, status, shows) in [
        ("/inside", 200, "a"),
        ("/linked/b.txt", 200, "b"),
        ("/outside", 404, ""),
        ("/etc/passwd", 404, ""),
        ("/proc", 404, ""),
        ("/covered/", 404, ""),
        ("/.env", 200, "env"),
        ("/x.eleven-part", 404, ""),
    ] {
        let answer = site.get(target, &[]);
        assert_eq!((answer.status, &answer.content[..]), (status, shows.as_bytes()), "{target}");
    }
}

/// A file without permission is 403, and nothing of it is kept. (Root may read everything: then it is shown.)
#[test]
fn unreadable_files() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new(tree(), options());
    let path = site.scratch.0.join("root/locked.txt");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let expected = if File::open(&path).is_ok() { 200 } else { 403 };
    assert_eq!(site.get("/locked.txt", &[]).status, expected);
}

/// Faults P16, P19, P21: a directory is asked for with its slash, and Location never names another host.
#[test]
fn redirects_to_the_slash() {
    let site = Site::new(tree(), options());
    std::fs::create_dir_all(site.scratch.0.join("root/evil.com/<x> y")).unwrap();
    for (target, location) in [
        ("/dir", "/dir/"),
        ("/dir?a=b&c", "/dir/?a=b&c"),
        ("/dir?", "/dir/?"),
        ("//dir", "/dir/"),
        ("//evil.com", "/evil.com/"),
        ("///evil.com", "/evil.com/"),
        ("//x/..//evil.com", "/evil.com/"),
        ("/evil.com/%3Cx%3E%20y", "/evil.com/%3Cx%3E%20y/"),
        ("http://host/dir", "/dir/"),
    ] {
        let answer = site.get(target, &[]);
        assert_eq!((answer.status, answer.get("Location")), (301, location), "{target}");
    }
}

/// Fault P20: a mount ends at a segment.
#[test]
fn a_mounted_tree() {
    let site = Site::mounted(tree(), "/img", options(), Options::default());
    for (target, status, shows, location) in [
        ("/img/", 200, "front", ""),
        ("/img/a.txt", 200, "a", ""),
        ("/img", 301, "", "/img/"),
        ("/img?q", 301, "", "/img/?q"),
        ("/img/dir", 301, "", "/img/dir/"),
        ("/imga.txt", 404, "", ""),
        ("/img../a.txt", 404, "", ""),
        ("/img/../a.txt", 404, "", ""),
        ("/a.txt", 404, "", ""),
        ("/", 404, "", ""),
    ] {
        let answer = site.get(target, &[]);
        let got = (answer.status, &answer.content[..], answer.get("Location"));
        assert_eq!(got, (status, shows.as_bytes(), location), "{target}");
    }
}

/// 9110-9.1-03, 9110-9.1-04, 9110-9.3.7-01, 9110-15.5.6-01; fault P27.
#[test]
fn methods() {
    let site = Site::new(tree(), options());
    for (method, status, allow) in [
        (Method::Get, 200, ""),
        (Method::Head, 200, ""),
        (Method::Options, 204, "GET, HEAD, OPTIONS"),
        (Method::Post, 405, "GET, HEAD, OPTIONS"),
        (Method::Put, 405, "GET, HEAD, OPTIONS"),
        (Method::Delete, 405, "GET, HEAD, OPTIONS"),
        (Method::Patch, 405, "GET, HEAD, OPTIONS"),
        (Method::Trace, 405, "GET, HEAD, OPTIONS"),
        (Method::Other("FOO".into()), 501, ""),
        (Method::Other("get".into()), 501, ""),
    ] {
        let answer = site.ask(method.clone(), "/a.txt", &[]);
        assert_eq!((answer.status, answer.get("Allow")), (status, allow), "{method}");
    }
    assert_eq!(site.ask(Method::Options, "/absent", &[]).status, 204);
}

/// 9110-13.2.1-02: conditions mean nothing where the answer is no 2xx.
#[test]
fn conditions_do_not_change_other_answers() {
    let site = Site::new(tree(), options());
    let lines = [("If-Match", "\"x\""), ("If-None-Match", "*"), ("Range", "bytes=0-0")];
    for (target, status) in [("/absent", 404), ("/dir", 301), ("/fifo", 403), ("/../x", 400), ("/a.txt", 412)]
    {
        assert_eq!(site.get(target, &lines).status, status, "{target}");
    }
    assert_eq!(site.ask(Method::Options, "/a.txt", &lines).status, 204);
    assert_eq!(site.ask(Method::Put, "/a.txt", &lines).status, 405);
}

/// 9110-8.3-01, 9110-8.8.2.1-01, 9110-8.8.3.1-01, 9110-9.3.2-02: the fields of GET, and HEAD has the same.
#[test]
fn fields_of_a_file() {
    let site = Site::new(tree(), options());
    for target in ["/a.txt", "/dir/", "/empty"] {
        let get = site.get(target, &[]);
        let head = site.ask(Method::Head, target, &[]);
        assert_eq!(get.fields.wire(), head.fields.wire());
        assert_eq!(get.content, head.content, "the length is told by this");
        assert_eq!(get.get("Last-Modified"), HttpDate(now().0 - 100).to_string());
        assert_eq!(get.get("Accept-Ranges"), "bytes");
        assert_eq!((get.get("ETag").len(), get.get("Vary")), (24, ""));
    }
    assert_eq!(site.get("/a.txt", &[]).get("Content-Type"), "text/plain; charset=utf-8");
    assert_eq!(site.get("/dir/", &[]).get("Content-Type"), "text/html; charset=utf-8");
    assert_eq!(site.get("/empty", &[]).get("Content-Type"), "application/octet-stream");
}

/// 9110-9.3.1-02, 9110-9.3.2-05, 9110-14.4-03, 9110-14.2-02: content and fields that mean nothing with a method change
/// nothing.
#[test]
fn what_means_nothing_is_ignored() {
    let site = Site::new(tree(), options());
    let whole = site.get("/a.txt", &[]);
    for method in [Method::Get, Method::Head] {
        let lines = [
            ("Content-Range", "bytes 0-0/1"),
            ("Content-Type", "x/y"),
            ("Expect", ""),
            ("Content-Location", "/x"),
        ];
        let mut request = site.request(method.clone(), "/a.txt", &lines);
        request.content = crate::request::RequestContent::Whole(Bytes::from_static(b"content"), None);
        let worker = Worker { hot: &site.hot, now: site.now, now_ms: site.now_ms, random: || Ok([0; 16]) };
        let Handled::Ready(response) = site.files.handle(&mut request, &worker) else { panic!() };
        let answer = realise(response);
        assert_eq!((answer.status, answer.fields.wire()), (200, whole.fields.wire()), "{method}");
    }
    assert_eq!(site.ask(Method::Head, "/a.txt", &[("Range", "bytes=5-")]).status, 200);
}

/// Without randomness there is no boundary, and so no multipart.
#[test]
fn several_ranges_need_randomness() {
    let scratch = Scratch::new();
    scratch.file("f", vec![b'x'; 1000], 100);
    let site = Site::new(scratch, options());
    let failing = || Err(std::io::Error::other("no randomness"));
    for (range, status) in [("bytes=0-0,500-500", 200), ("bytes=0-0", 206)] {
        let worker = Worker { hot: &site.hot, now: site.now, now_ms: site.now_ms, random: failing };
        let mut request = site.request(Method::Get, "/f", &[("Range", range)]);
        let Handled::Ready(response) = site.files.handle(&mut request, &worker) else { panic!() };
        assert_eq!(response.status.code(), status);
    }
}

/// 9110-8.8.2.1-03, 9110-8.8.2.1-04; fault G16: a file from the future.
#[test]
fn a_modification_date_in_the_future() {
    let site = Site::new(tree(), options());
    site.scratch.file("future.txt", "f", -5000);
    let answer = site.get("/future.txt", &[]);
    assert_eq!(answer.get("Last-Modified"), now().to_string());
    assert_eq!(answer.kind, "File(Some(1))");
}

/// Fault P25, 9110-8.8.3-01: every replacement has another entity tag, whatever its size and date, so the tags are
/// strong.
#[test]
fn replaced_files_have_other_tags() {
    let mut site = Site::new(tree(), options());
    let mut tags = Vec::new();
    for content in ["1", "2", "1"] {
        site.scratch.file("new", content, 100);
        std::fs::rename(site.scratch.0.join("root/new"), site.scratch.0.join("root/a.txt")).unwrap();
        site.now_ms += 1000;
        let answer = site.get("/a.txt", &[]);
        assert_eq!(answer.content, content.as_bytes());
        let tag = answer.get("ETag").to_owned();
        assert!(!tags.contains(&tag));
        assert_eq!(site.get("/a.txt", &[("If-None-Match", &tag)]).status, 304);
        for old in &tags {
            let lines = [("Range", "bytes=0-0"), ("If-Range", &**old)];
            assert_eq!(site.get("/a.txt", &lines).status, 200);
            assert_eq!(site.get("/a.txt", &[("If-Match", old)]).status, 412);
        }
        tags.push(tag);
    }
}

/// Memory: a small settled file is sent from it, a change is seen within a second, a new or vanished file too.
#[test]
fn memory_follows_the_disk() {
    let mut site = Site::new(tree(), options());
    site.scratch.file("big", vec![b'x'; 65_537], 100).file("fits", vec![b'x'; 65_536], 100);
    assert_eq!(site.get("/big", &[]).kind, "File(Some(65537))");
    assert_eq!(site.get("/fits", &[]).kind, "Bytes(Some(65536))");
    assert_eq!(site.get("/a.txt", &[]).kind, "Bytes(Some(1))");

    site.scratch.file("a.txt", "changed", 50);
    site.now_ms += 999;
    assert_eq!(site.get("/a.txt", &[]).content, b"a");
    site.now_ms += 1;
    let answer = site.get("/a.txt", &[]);
    assert_eq!((&answer.content[..], &*answer.kind), (&b"changed"[..], "Bytes(Some(7))"));

    // Confirmed, it is good for another second.
    site.now_ms += 5000;
    assert_eq!(site.get("/a.txt", &[]).content, b"changed");
    std::fs::remove_file(site.scratch.0.join("root/a.txt")).unwrap();
    site.now_ms += 999;
    assert_eq!(site.get("/a.txt", &[]).status, 200);
    site.now_ms += 1;
    let entries = site.hot.borrow().len();
    assert_eq!(site.get("/a.txt", &[]).status, 404);
    assert_eq!(site.hot.borrow().len(), entries - 1);
    // What is not there is not remembered.
    site.scratch.file("a.txt", "back", 50);
    assert_eq!(site.get("/a.txt", &[]).content, b"back");
    // A clock that goes back makes entries unchecked, not eternal.
    site.scratch.file("a.txt", "again", 50);
    site.now_ms -= 1;
    assert_eq!(site.get("/a.txt", &[]).content, b"again");
    // It grew beyond what is kept.
    site.scratch.file("a.txt", vec![b'y'; 70_000], 50);
    site.now_ms += 1000;
    let entries = site.hot.borrow().len();
    assert_eq!(site.get("/a.txt", &[]).kind, "File(Some(70000))");
    assert_eq!(site.hot.borrow().len(), entries - 1);
}

/// A file that changed in this or the last second may change again unseen: it is not kept.
#[test]
fn unsettled_files_are_not_kept() {
    let mut site = Site::new(tree(), options());
    site.now = HttpDate(now().0 - 60);
    assert_eq!(site.get("/a.txt", &[]).kind, "File(Some(1))");
    assert!(site.hot.borrow().is_empty());
    site.now = HttpDate(now().0 + 2);
    assert_eq!(site.get("/a.txt", &[]).kind, "Bytes(Some(1))");
}

/// A rewritten path is kept in memory as what it is, not under the target's octets; what the client sees of
/// paths is what it asked for.
#[test]
fn rewritten_paths() {
    let site = Site::new(tree(), options());
    let worker = Worker { hot: &site.hot, now: site.now, now_ms: site.now_ms, random: || Ok([0; 16]) };
    let ask = |target: &str, path: &str| {
        let mut request = site.request(Method::Get, target, &[]);
        request.set_path(path.as_bytes());
        let Handled::Ready(response) = site.files.handle(&mut request, &worker) else { panic!() };
        realise(response)
    };
    for _ in 0..2 {
        assert_eq!(ask("/a.txt", "/dir/b.txt").content, b"b");
        assert_eq!(site.get("/a.txt", &[]).content, b"a");
        // Decoded octets that look like an encoding.
        assert_eq!(ask("/x", "/%2e%2e").content, b"percent");
        assert_eq!(site.get("/%2e%2e", &[]).status, 400);
        assert_eq!(ask("/x", "/absent").status, 404);
        assert_eq!(ask("/x", "/.env").status, 404);
        let answer = ask("/docs%20x?q", "/dir");
        assert_eq!((answer.status, answer.get("Location")), (301, "/docs%20x/?q"));
        assert_eq!(ask("/docs/", "/dir").content, b"dir front");
        assert_eq!(ask("/docs/", "/dir/").content, b"dir front");
        assert_eq!(ask("/", "/a.txt").content, b"a");
    }
    // The same where the target itself was rewritten.
    let ask = |target: &str, path: &str| {
        let mut request = site.request(Method::Get, target, &[]);
        request.rewrite(path.as_bytes()).unwrap();
        let Handled::Ready(response) = site.files.handle(&mut request, &worker) else { panic!() };
        realise(response)
    };
    for _ in 0..2 {
        assert_eq!(ask("/a.txt", "/dir/b.txt").content, b"b");
        assert_eq!(ask("/x", "/%252e%252e").content, b"percent");
        let answer = ask("/docs%20x?q", "/dir?other");
        assert_eq!((answer.status, answer.get("Location")), (301, "/docs%20x/?q"));
        assert_eq!(ask("/docs/", "/dir").content, b"dir front");
    }
}

/// Faults P01 to P13, P19, P20 at random: whatever is asked for and however, nothing outside the tree is shown,
/// nothing hidden, and nothing panics.
#[test]
fn no_request_reaches_what_is_not_shown() {
    const PIECES: [&str; 30] = [
        "/",
        "/",
        "/",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2f",
        "%5c",
        "%00",
        "%25",
        "..;",
        "a.txt",
        "dir",
        "b.txt",
        "secret",
        "root",
        "outside",
        "linked",
        "inside",
        "proc",
        "etc",
        "passwd",
        ".git",
        "config",
        ".env",
        "%c0%ae",
        "x.eleven-part",
        "index.html",
        "//",
    ];
    const FIELDS: [(&str, &str); 12] = [
        ("Range", "bytes=0-2"),
        ("Range", "bytes=-1,0-0"),
        ("Range", "bytes=9-"),
        ("If-Range", "\"x\""),
        ("If-None-Match", "*"),
        ("If-Match", "*"),
        ("If-Match", "\"x"),
        ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Accept-Encoding", "gzip, *;q=0"),
        ("Accept-Language", "de, en;q=0.3"),
        ("Accept", "application/json"),
        ("Content-Range", "bytes 0-0/1"),
    ];
    for symlinks in [Symlinks::Refuse, Symlinks::Beneath] {
        let mut options = options();
        options.lookups.siblings = Coding::ALL.into();
        options.lookups.languages = ["en".into(), "de".into()].into();
        let scratch = tree();
        std::fs::write(scratch.0.join("secret"), "TOP SECRET").unwrap();
        let site = Site::mounted(scratch, "", options, Options { symlinks, dot_names: false });
        let mut rng = eleven_testkit::Rng::new(20);
        let mut shown = 0;
        for _ in 0..20_000 {
            let mut target = String::from("/");
            for _ in 0..rng.below(9) {
                target.push_str(rng.pick::<&str>(&PIECES));
            }
            let lines: Vec<_> = (0..rng.below(3)).map(|_| *rng.pick(&FIELDS)).collect();
            let method = if rng.chance(1, 5) { Method::Head } else { Method::Get };
            let answer = site.ask(method, &target, &lines);
            assert!([200, 206, 301, 304, 400, 403, 404, 412, 416].contains(&answer.status), "{target}");
            if matches!(answer.status, 200 | 206) {
                let text = String::from_utf8_lossy(&answer.content).into_owned();
                let allowed = ["front", "a", "dir front", "b"];
                let part = answer.status == 206;
                let fine = allowed
                    .iter()
                    .any(|file| *file == text || (part && (file.contains(&text) || text.starts_with("--"))));
                assert!(fine, "{target}: {text}");
                assert!(
                    !text.contains("SECRET") && !text.contains("env") && !text.contains("git"),
                    "{target}"
                );
                shown += 1;
            }
            if answer.status == 301 {
                assert!(answer.get("Location").starts_with('/') && !answer.get("Location").starts_with("//"));
            }
        }
        assert!(shown > 1000, "{shown}");
    }
}

/// Two trees in one worker do not see each other's memory.
#[test]
fn trees_are_told_apart() {
    let (one, mut two) = (Site::new(tree(), options()), Site::new(tree(), options()));
    two.scratch.file("a.txt", "two", 100);
    assert_eq!(one.get("/a.txt", &[]).content, b"a");
    two.hot = RefCell::new(one.hot.replace(Hot::new(HotLimits::default(), 1)));
    assert_eq!(two.get("/a.txt", &[]).content, b"two");
}

fn negotiated() -> Site {
    let scratch = Scratch::new();
    scratch
        .file("page.html", "plain", 100)
        .file("page.html.gz", "GZ", 90)
        .file("page.html.br", "BR", 90)
        .file("page.html.zst", "ZST", 90)
        .file("only.html", "only", 100)
        .file("only.html.gz", "ONLYGZ", 90)
        .file("stale.html", "new", 10)
        .file("stale.html.gz", "OLD", 100)
        .file("bundle.tar.gz", "tgz", 100)
        .file("bundle.tar.gz.br", "BR", 100)
        .file("bundle.tar", "tar", 100)
        .file("lang.html", "default", 100)
        .file("lang.html.en", "english", 100)
        .file("lang.html.en.gz", "ENGLISH GZ", 100)
        .file("lang.html.de", "deutsch", 100)
        .file("lang.html.zh-CN", "zhongwen", 100)
        .file("no.html.de", "nein", 100)
        .file("no.html.en", "no", 100)
        .file("sub/index.html.de", "start", 100)
        .file("sub/index.html.en", "begin", 100);
    std::fs::create_dir(scratch.0.join("root/only.html.br")).unwrap();
    let mut options = options();
    options.lookups.siblings = Coding::ALL.into();
    options.lookups.languages = ["en", "de", "zh-CN"].map(Into::into).into();
    Site::new(scratch, options)
}

/// 9110-12.5.3-R1, 9110-12.5.3-02, 9110-12.5.5-03, 9110-8.4-01, 9110-8.4-02; fault G25: each coding is a representation of its
/// own.
#[test]
fn compressed_siblings() {
    let site = negotiated();
    let mut tags = std::collections::HashSet::new();
    for (target, accept, shows, coding, vary) in [
        ("/page.html", None, "plain", "", "Accept-Encoding"),
        ("/page.html", Some("gzip"), "GZ", "gzip", "Accept-Encoding"),
        ("/page.html", Some("x-gzip"), "GZ", "gzip", "Accept-Encoding"),
        ("/page.html", Some("zstd"), "ZST", "zstd", "Accept-Encoding"),
        ("/page.html", Some("gzip, deflate, br, zstd"), "BR", "br", "Accept-Encoding"),
        ("/page.html", Some("gzip, br;q=0.5"), "GZ", "gzip", "Accept-Encoding"),
        ("/page.html", Some("*"), "BR", "br", "Accept-Encoding"),
        ("/page.html", Some("gzip;q=0.5, identity"), "plain", "", "Accept-Encoding"),
        ("/page.html", Some("deflate"), "plain", "", "Accept-Encoding"),
        ("/page.html", Some(""), "plain", "", "Accept-Encoding"),
        ("/page.html", Some("identity;q=0"), "plain", "", "Accept-Encoding"),
        ("/page.html", Some("identity;q=0, gzip"), "GZ", "gzip", "Accept-Encoding"),
        ("/only.html", Some("br, gzip;q=0.1"), "ONLYGZ", "gzip", "Accept-Encoding"),
        // Older than its file: of another content.
        ("/stale.html", Some("gzip"), "new", "", ""),
        // A compressed file has no sibling, and is no coded form of the name without its suffix alone.
        ("/bundle.tar.gz", Some("br, gzip"), "tgz", "", ""),
        ("/bundle.tar", Some("gzip"), "tgz", "gzip", "Accept-Encoding"),
        ("/page.html.gz", Some("gzip"), "GZ", "", ""),
    ] {
        let lines: Vec<_> = accept.map(|value| ("Accept-Encoding", value)).into_iter().collect();
        for _ in 0..2 {
            let answer = site.get(target, &lines);
            let got = (&answer.content[..], answer.get("Content-Encoding"), answer.get("Vary"));
            assert_eq!(got, (shows.as_bytes(), coding, vary), "{target} {accept:?}");
            assert_eq!(answer.status, 200);
            if target == "/page.html" {
                assert_eq!(answer.get("Content-Type"), "text/html; charset=utf-8");
                tags.insert((coding.to_owned(), answer.get("ETag").to_owned()));
            }
        }
    }
    assert_eq!(tags.len(), 4, "one tag for each coding: {tags:?}");
    assert_eq!(site.get("/page.html.gz", &[]).get("Content-Type"), "application/gzip");
}

/// RFC 9110 §12.5.4, §8.5, §8.7; 9110-12.5.5-03.
#[test]
fn language_variants() {
    let site = negotiated();
    let both = "Accept-Encoding, Accept-Language";
    for (target, accept, shows, language, location, vary) in [
        ("/lang.html", None, "default", "", "", "Accept-Language"),
        ("/lang.html", Some("de"), "deutsch", "de", "/lang.html.de", "Accept-Language"),
        ("/lang.html", Some("en-GB, de;q=0.5"), "english", "en", "/lang.html.en", both),
        ("/lang.html", Some("zh"), "zhongwen", "zh-CN", "/lang.html.zh-CN", "Accept-Language"),
        ("/lang.html", Some("fr, de;q=0.1"), "deutsch", "de", "/lang.html.de", "Accept-Language"),
        ("/lang.html", Some("fr"), "default", "", "", "Accept-Language"),
        ("/lang.html", Some("*"), "english", "en", "/lang.html.en", both),
        ("/lang.html", Some("en;q=0, de;q=0"), "default", "", "", "Accept-Language"),
        ("/no.html", None, "no", "en", "/no.html.en", "Accept-Language"),
        ("/no.html", Some("de"), "nein", "de", "/no.html.de", "Accept-Language"),
        ("/no.html", Some("fr"), "no", "en", "/no.html.en", "Accept-Language"),
        ("/sub/", Some("de"), "start", "de", "/sub/index.html.de", "Accept-Language"),
        ("/no.html.de", Some("en"), "nein", "de", "", ""),
    ] {
        let lines: Vec<_> = accept.map(|value| ("Accept-Language", value)).into_iter().collect();
        for _ in 0..2 {
            let answer = site.get(target, &lines);
            let got = (
                &answer.content[..],
                answer.get("Content-Language"),
                answer.get("Content-Location"),
                answer.get("Vary"),
            );
            assert_eq!(got, (shows.as_bytes(), language, location, vary), "{target} {accept:?}");
            assert_eq!(answer.get("Content-Type"), "text/html; charset=utf-8", "{target}");
        }
    }
    // What is said matters before how it is packed.
    let answer = site.get("/lang.html", &[("Accept-Language", "de, en;q=0.9"), ("Accept-Encoding", "gzip")]);
    assert_eq!(answer.content, b"deutsch");
    let answer = site.get("/lang.html", &[("Accept-Language", "en"), ("Accept-Encoding", "gzip")]);
    assert_eq!((&answer.content[..], answer.get("Content-Location")), (&b"ENGLISH GZ"[..], "/lang.html.en"));
    assert_eq!(site.get("/absent.html", &[("Accept-Language", "en")]).status, 404);
}

/// 9110-15.5.7-01: 406 only where the site asks for it.
#[test]
fn strict_negotiation() {
    let mut options = options();
    options.lookups.siblings = Coding::ALL.into();
    options.strict_negotiation = true;
    let scratch = Scratch::new();
    scratch.file("a.html", "plain", 100).file("a.html.gz", "GZ", 100).file("b.html", "b", 100);
    let site = Site::new(scratch, options);
    for (target, accept, status) in [
        ("/a.html", "br, identity;q=0", 406),
        ("/a.html", "*;q=0", 406),
        ("/a.html", "gzip, identity;q=0", 200),
        ("/a.html", "br", 200),
        // One representation only: nothing to negotiate.
        ("/b.html", "identity;q=0", 200),
    ] {
        let answer = site.get(target, &[("Accept-Encoding", accept)]);
        assert_eq!(answer.status, status, "{target} {accept}");
        assert!(status == 200 || answer.content.ends_with(b"any language, gzip\nany language, identity\n"));
    }
}

/// A sibling that appears, changes or goes is seen within a second too.
#[test]
fn memory_follows_siblings() {
    let mut site = negotiated();
    let gzip = [("Accept-Encoding", "gzip")];
    assert_eq!(site.get("/only.html", &gzip).content, b"ONLYGZ");
    std::fs::remove_file(site.scratch.0.join("root/only.html.gz")).unwrap();
    site.now_ms += 1000;
    let answer = site.get("/only.html", &gzip);
    assert_eq!((&answer.content[..], answer.get("Vary")), (&b"only"[..], ""));
    site.scratch.file("only.html.gz", "NEW", 90);
    site.now_ms += 1000;
    let answer = site.get("/only.html", &gzip);
    assert_eq!((&answer.content[..], answer.get("Vary")), (&b"NEW"[..], "Accept-Encoding"));
}

/// Faults G01 to G04, G13, P23 through the whole handler.
#[test]
fn ranges_of_a_file() {
    let scratch = Scratch::new();
    scratch.file("f", "0123456789", 100).file("empty", "", 100);
    let site = Site::new(scratch, options());
    for (target, range, status, shows, content_range) in [
        ("/f", "bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("/f", "bytes=-3", 206, "789", "bytes 7-9/10"),
        ("/f", "bytes=-9223372036854775808", 206, "0123456789", "bytes 0-9/10"),
        ("/f", "bytes=10-", 416, "", "bytes */10"),
        ("/f", "bytes=-0", 416, "", "bytes */10"),
        ("/f", "bytes=5-3", 200, "0123456789", ""),
        ("/f", "", 200, "0123456789", ""),
        ("/f", "items=0-1", 200, "0123456789", ""),
        ("/f", "bytes=0-,0-,0-", 200, "0123456789", ""),
        ("/empty", "bytes=-1", 200, "", ""),
        ("/empty", "bytes=0-", 200, "", ""),
    ] {
        let answer = site.get(target, &[("Range", range)]);
        let got = (answer.status, &answer.content[..], answer.get("Content-Range"));
        assert_eq!(got, (status, shows.as_bytes(), content_range), "{target} {range}");
    }
}

/// 9110-15.3.7.2-01, 9110-15.3.7.2-03, 9110-15.3.7.2-04, 9110-8.3.3-01: a multipart response, octet by octet.
#[test]
fn a_multipart_response() {
    let scratch = Scratch::new();
    scratch.file("f.txt", (0..=255u8).map(|n| b'a' + n % 26).collect::<Vec<_>>(), 100);
    let site = Site::new(scratch, options());
    let answer = site.get("/f.txt", &[("Range", "bytes=0-2,200-201")]);
    assert_eq!(answer.status, 206);
    let boundary = "ab".repeat(16);
    assert_eq!(answer.get("Content-Type"), format!("multipart/byteranges; boundary={boundary}"));
    assert_eq!(answer.get("Content-Range"), "");
    let expected = format!(
        "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-2/256\r\n\r\nabc\
         \r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 200-201/256\r\n\r\nst\
         \r\n--{boundary}--\r\n"
    );
    assert_eq!(String::from_utf8(answer.content).unwrap(), expected);
}

/// Entries are given up by size and number, the one not used first; the map stays right.
#[test]
fn memory_is_bounded() {
    let scratch = Scratch::new();
    for n in 0..200 {
        scratch.file(&format!("{n}"), format!("{n:01000}"), 100);
    }
    let mut site = Site::new(scratch, options());
    let limits = HotLimits { entries_max: 50, ..HotLimits::default() };
    for limits in [limits, HotLimits { memory_bytes_max: 100_000, ..HotLimits::default() }] {
        site.hot = RefCell::new(Hot::new(limits, 3));
        let mut rng = eleven_testkit::Rng::new(11);
        for step in 0..5_000 {
            // One target is asked for all the time and must stay.
            let n = if step % 2 == 0 { 0 } else { rng.below(200) };
            let answer = site.get(&format!("/{n}"), &[]);
            assert_eq!(answer.content, format!("{n:01000}").as_bytes());
            let hot = site.hot.borrow();
            assert!(hot.len() <= limits.entries_max && hot.memory_bytes() <= limits.memory_bytes_max);
            let id = site.files.0.id * 4;
            assert!(step == 0 || !matches!(hot.get(id, b"/0", site.now_ms, 0), Lookup::Absent));
        }
        assert!(site.hot.borrow().len() >= 40, "{}", site.hot.borrow().len());
        let id = site.files.0.id * 4;
        for n in 0..200 {
            site.hot.borrow_mut().remove(id, format!("/{n}").as_bytes());
        }
        assert_eq!((site.hot.borrow().len(), site.hot.borrow().memory_bytes()), (0, 0));
    }
    site.hot = RefCell::new(Hot::new(HotLimits { entries_max: 0, ..limits }, 3));
    assert_eq!(site.get("/1", &[]).status, 200);
    assert!(site.hot.borrow().is_empty());
}
