//! Uploads: what is stored and answered, what is refused before any content is read, and that nothing is left of
//! what failed.

use super::super::tests::{Answer, Scratch, Site, options, realise};
use super::*;
use crate::files::{FilesOptions, Worker};
use crate::handler::Handled;
use bytes::Bytes;
use eleven_net::pipe::{PipeWriter, pipe};
use eleven_semantics::Method;

fn uploads(upload: UploadOptions) -> FilesOptions {
    FilesOptions { upload: Some(upload), ..options() }
}

fn site(upload: UploadOptions) -> Site {
    let scratch = Scratch::new();
    scratch.file("old.txt", "old", 100).file("dir/x", "x", 100).link("link", "old.txt").link("out", "/etc");
    Site::new(scratch, uploads(upload))
}

fn small() -> UploadOptions {
    UploadOptions { content_bytes_max: 1000, ..UploadOptions::default() }
}

fn handle(site: &Site, request: &mut Request) -> Handled {
    let worker = Worker { hot: &site.hot, now: site.now, now_ms: site.now_ms, random: || Ok([0; 16]) };
    site.files.handle(request, &worker)
}

async fn finish(handled: Handled) -> Answer {
    realise(match handled {
        Handled::Ready(response) => response,
        Handled::Later(later) => later.await,
        Handled::Soon(soon) => panic!("{soon:?}: files ask nobody"),
    })
}

async fn send(site: &Site, method: Method, target: &str, lines: &[(&str, &str)], content: &[u8]) -> Answer {
    let mut request = site.request(method, target, lines);
    request.content = RequestContent::Whole(Bytes::copy_from_slice(content), None);
    request.content_length = Some(content.len() as u64);
    finish(handle(site, &mut request)).await
}

async fn put(site: &Site, target: &str, lines: &[(&str, &str)], content: &[u8]) -> Answer {
    send(site, Method::Put, target, lines, content).await
}

/// Names in the tree, to see that nothing is left behind.
fn names(site: &Site, within: &str) -> Vec<String> {
    let entries = std::fs::read_dir(site.scratch.0.join("root").join(within)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn read(site: &Site, name: &str) -> String {
    std::fs::read_to_string(site.scratch.0.join("root").join(name)).unwrap()
}

/// 9110-9.3.4-01, 9110-9.3.4-02, 9110-9.3.4-06, 9110-9.3.5-01, 9110-9.3.5-03: created, replaced, read back, removed.
#[tokio::test]
async fn the_life_of_a_file() {
    let site = site(small());
    let answer = put(&site, "/new.txt", &[("Content-Type", "text/plain")], b"one").await;
    assert_eq!((answer.status, read(&site, "new.txt")), (201, "one".into()));
    let first = answer.get("ETag").to_owned();
    let get = site.get("/new.txt", &[]);
    assert_eq!((get.get("ETag"), get.get("Last-Modified")), (&*first, answer.get("Last-Modified")));

    let answer = put(&site, "/new.txt", &[], b"two").await;
    assert_eq!((answer.status, read(&site, "new.txt")), (204, "two".into()));
    assert_ne!(answer.get("ETag"), first);
    assert_eq!(site.get("/new.txt", &[("If-None-Match", answer.get("ETag"))]).status, 304);

    // 9110-8.7-02, 9110-8.7-04, 9110-9.3.4-05: what else the client says is not kept.
    let lines = [
        ("Content-Location", "/old.txt"),
        ("Content-Language", "de"),
        ("Content-Type", "image/png"),
        ("X-Y", "z"),
    ];
    assert_eq!(put(&site, "/new.txt", &lines, b"three").await.status, 204);
    assert_eq!((read(&site, "new.txt"), read(&site, "old.txt")), ("three".into(), "old".into()));
    let get = site.get("/new.txt", &[]);
    assert_eq!((get.get("Content-Type"), get.fields.len()), ("text/plain; charset=utf-8", 4));

    assert_eq!(put(&site, "/empty.txt", &[], b"").await.status, 201);
    assert_eq!(read(&site, "empty.txt"), "");
    assert_eq!(put(&site, "/dir/a%20b", &[], b"x").await.status, 201);
    assert_eq!(read(&site, "dir/a b"), "x");

    assert_eq!(send(&site, Method::Delete, "/new.txt", &[], b"ignored").await.status, 204);
    assert_eq!(site.get("/new.txt", &[]).status, 404);
    assert_eq!(send(&site, Method::Delete, "/new.txt", &[], b"").await.status, 404);
    assert_eq!(names(&site, ""), ["dir", "empty.txt", "link", "old.txt", "out"]);
}

/// A change made here is seen at once by all workers, not after a second.
#[tokio::test]
async fn own_changes_are_seen_at_once() {
    let mut site = site(small());
    assert_eq!(site.get("/old.txt", &[]).content, b"old");
    let other_worker = std::cell::RefCell::new(crate::files::hot::Hot::new(Default::default(), 5));
    site.hot.swap(&other_worker);
    assert_eq!(site.get("/old.txt", &[]).content, b"old");
    assert_eq!(put(&site, "/old.txt", &[], b"new").await.status, 204);
    assert_eq!(site.get("/old.txt", &[]).content, b"new");
    site.hot.swap(&other_worker);
    assert_eq!(site.get("/old.txt", &[]).content, b"new");
    site.now = HttpDate(site.now.0 + 100);
    assert_eq!(site.get("/old.txt", &[]).kind, "Bytes(Some(3))");
    assert_eq!(send(&site, Method::Delete, "/old.txt", &[], b"").await.status, 204);
    assert_eq!(site.get("/old.txt", &[]).status, 404);
}

/// 9110-13.2.1-01, 9110-13.1.1-02, 9110-13.1.1-03, 9110-13.1.2-03, 9110-13.1.4-06: what a head alone is refused for. Nothing of the content is read: the answer is there at once, so that a
/// client which expects 100 gets it instead (9110-10.1.1-11). 9110-14.5-01, 9110-8.4-03, 9110-15.5.10-01,
/// 9110-15.5.14-01, 9110-9.3.4-04; faults P01, P05, P08, P11, P12, P27.
#[tokio::test]
async fn refused_by_the_head() {
    let site = site(small());
    for (method, target, lines, length, status) in [
        (Method::Put, "/old.txt", &[("Content-Range", "bytes 0-2/3")][..], Some(3), 400),
        (Method::Put, "/old.txt", &[("Content-Range", "nonsense")], Some(3), 400),
        (Method::Put, "/old.txt", &[("Content-Encoding", "gzip")], Some(3), 415),
        (Method::Put, "/old.txt", &[("Content-Encoding", "identity, br")], Some(3), 415),
        (Method::Put, "/old.txt", &[], Some(1001), 413),
        (Method::Put, "/old.txt", &[], Some(u64::MAX), 413),
        (Method::Put, "/dir", &[], Some(3), 409),
        (Method::Put, "/dir/", &[], Some(3), 409),
        (Method::Put, "/new/", &[], Some(3), 409),
        (Method::Put, "/", &[], Some(3), 409),
        (Method::Put, "/.env", &[], Some(3), 403),
        (Method::Put, "/.git/config", &[], Some(3), 403),
        (Method::Put, "/x.eleven-part", &[], Some(3), 403),
        (Method::Put, "/link", &[], Some(3), 403),
        (Method::Put, "/out/passwd", &[], Some(3), 403),
        (Method::Put, "/../x", &[], Some(3), 400),
        (Method::Put, "/a%00", &[], Some(3), 400),
        (Method::Put, "/a%2fb", &[], Some(3), 400),
        (Method::Put, "/old.txt", &[("If-Match", "\"x\"")], Some(3), 412),
        (Method::Put, "/old.txt", &[("If-None-Match", "*")], Some(3), 412),
        (Method::Put, "/old.txt", &[("If-None-Match", "broken")], Some(3), 412),
        (Method::Put, "/old.txt", &[("If-Unmodified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")], Some(3), 412),
        (Method::Put, "/new.txt", &[("If-Match", "*")], Some(3), 412),
        (Method::Put, "/old.txt", &[("Content-Digest", "sha-256=:AAAA:")], Some(3), 400),
        (Method::Put, "/old.txt", &[("Repr-Digest", "sha-256")], Some(3), 400),
        (Method::Delete, "/dir", &[], None, 409),
        (Method::Delete, "/dir/", &[], None, 409),
        (Method::Delete, "/absent", &[], None, 404),
        (Method::Delete, "/absent", &[("If-Match", "*")], None, 404),
        (Method::Delete, "/old.txt", &[("If-Match", "\"x\"")], None, 412),
        (Method::Delete, "/link", &[], None, 403),
        (Method::Delete, "/.env", &[], None, 403),
        (Method::Post, "/old.txt", &[], Some(3), 405),
        (Method::Patch, "/old.txt", &[], Some(3), 405),
    ] {
        let (writer, reader) = pipe(1 << 16);
        let mut request = site.request(method.clone(), target, lines);
        request.content = RequestContent::Pipe(reader);
        request.content_length = length;
        let handled = handle(&site, &mut request);
        assert!(matches!(handled, Handled::Ready(_)) || method == Method::Delete, "{target} {lines:?}");
        let answer = finish(handled).await;
        assert_eq!(answer.status, status, "{method} {target} {lines:?}");
        drop(request);
        assert!(writer.is_reader_gone());
        if status == 415 {
            assert_eq!(answer.get("Accept-Encoding"), "identity");
        } else {
            // 9110-12.5.3-03
            assert_eq!(answer.get("Accept-Encoding"), "");
        }
    }
    assert_eq!(names(&site, ""), ["dir", "link", "old.txt", "out"]);
    assert_eq!(read(&site, "old.txt"), "old");
}

/// 9110-13.1.1-01, 9110-13.1.2-04, 9110-13.1.4-05: conditions that hold.
#[tokio::test]
async fn conditions_that_hold() {
    let site = site(small());
    let tag = site.get("/old.txt", &[]).get("ETag").to_owned();
    let date = site.get("/old.txt", &[]).get("Last-Modified").to_owned();
    assert_eq!(put(&site, "/old.txt", &[("If-Unmodified-Since", &date)], b"1").await.status, 204);
    assert_eq!(put(&site, "/old.txt", &[("If-Match", &tag)], b"2").await.status, 412);
    let tag = site.get("/old.txt", &[]).get("ETag").to_owned();
    assert_eq!(put(&site, "/old.txt", &[("If-Match", &tag)], b"3").await.status, 204);
    assert_eq!(put(&site, "/old.txt", &[("If-Match", "*")], b"4").await.status, 204);
    assert_eq!(put(&site, "/new.txt", &[("If-None-Match", "*")], b"5").await.status, 201);
    assert_eq!(put(&site, "/new.txt", &[("If-None-Match", "*")], b"6").await.status, 412);
    assert_eq!((read(&site, "old.txt"), read(&site, "new.txt")), ("4".into(), "5".into()));
    let tag = site.get("/new.txt", &[]).get("ETag").to_owned();
    let answer = send(&site, Method::Delete, "/new.txt", &[("If-Match", &tag)], b"").await;
    assert_eq!(answer.status, 204);
}

fn begin(site: &Site, target: &str, lines: &[(&str, &str)]) -> (Writer, tokio::task::JoinHandle<Answer>) {
    let (writer, reader) = pipe(1 << 16);
    let mut request = site.request(Method::Put, target, lines);
    request.content = RequestContent::Pipe(reader);
    request.content_length = None;
    let handled = handle(site, &mut request);
    (writer, tokio::task::spawn_local(finish(handled)))
}

type Writer = PipeWriter<Option<Box<Fields>>>;

async fn push(writer: &mut Writer, content: &[u8]) {
    let mut chunk = Bytes::copy_from_slice(content);
    while !chunk.is_empty() {
        if std::future::poll_fn(|cx| writer.poll_ready(cx)).await.is_err() || writer.push(&mut chunk).is_err()
        {
            return;
        }
    }
}

/// Content that comes piece by piece, with digests in front or behind; and every way it can end badly. Nothing is
/// left of what failed. RFC 9530 §2, §3; 9110-15.5.14-01.
#[tokio::test]
async fn content_that_flows() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let site = site(UploadOptions { content_bytes_max: 2 << 20, ..UploadOptions::default() });
            let content: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
            let digest = |content: &[u8]| {
                let mut hasher = Hasher::new(digest_fields::Algorithm::Sha256);
                hasher.update(content);
                String::from_utf8(digest_fields::value(&hasher.finish())).unwrap()
            };
            let right = digest(&content);
            let wrong = digest(b"other");
            let trailers = |value: &str| {
                let mut fields = Fields::new();
                fields.push(Known::ReprDigest, value).unwrap();
                Some(Box::new(fields))
            };
            for (lines, trailers, status) in [
                (&[][..], None, 201),
                (&[("Content-Digest", &*right)], None, 204),
                (&[("Repr-Digest", &*right), ("Content-Digest", &*right)], None, 204),
                (&[("Repr-Digest", "md5=:AAAA:")], None, 204),
                (&[("Content-Digest", &*wrong)], None, 400),
                (&[("Repr-Digest", &*wrong)], None, 400),
                (&[("Content-Digest", &*right), ("Repr-Digest", &*wrong)], None, 400),
                (&[], trailers(&right), 204),
                (&[], trailers(&wrong), 400),
                (&[], trailers("sha-256=nonsense"), 400),
            ] {
                let (mut writer, answer) = begin(&site, "/dir/big", lines);
                push(&mut writer, &content).await;
                writer.complete(trailers);
                assert_eq!(answer.await.unwrap().status, status, "{lines:?}");
                assert_eq!(std::fs::read(site.scratch.0.join("root/dir/big")).unwrap(), content);
                assert_eq!(names(&site, "dir"), ["big", "x"]);
            }
            for (reason, status) in [
                (Some(Reason::Truncated), 400),
                (Some(Reason::Malformed), 400),
                (Some(Reason::TimedOut), 408),
                (Some(Reason::TooLarge), 413),
                (None, 400),
            ] {
                let (mut writer, answer) = begin(&site, "/dir/cut", &[]);
                push(&mut writer, &content).await;
                match reason {
                    Some(reason) => writer.abort(reason),
                    None => drop(writer),
                }
                assert_eq!(answer.await.unwrap().status, status, "{reason:?}");
                assert_eq!(names(&site, "dir"), ["big", "x"]);
            }
            // Too much, though no length said so: it is not read to its end.
            let (mut writer, answer) = begin(&site, "/dir/huge", &[]);
            push(&mut writer, &content).await;
            push(&mut writer, &content).await;
            assert_eq!(answer.await.unwrap().status, 413);
            assert!(writer.is_reader_gone());
            assert_eq!(names(&site, "dir"), ["big", "x"]);
            // A request that is given up midway.
            let (mut writer, answer) = begin(&site, "/dir/dropped", &[]);
            push(&mut writer, &content).await;
            answer.abort();
            assert!(answer.await.is_err());
            // A write that was under way beside the worker may end after its request; it takes the file along.
            for _ in 0..1000 {
                if names(&site, "dir").len() == 2 {
                    break;
                }
                tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
            }
            assert_eq!(names(&site, "dir"), ["big", "x"]);
        })
        .await;
}

/// Two uploads at once: what a condition promised holds at the moment of the rename.
#[tokio::test]
async fn a_slow_upload_does_not_undo_a_fast_one() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let site = site(small());
            let tag = site.get("/old.txt", &[]).get("ETag").to_owned();
            for (target, lines, fast_status) in
                [("/old.txt", [("If-Match", &*tag)], 204), ("/new.txt", [("If-None-Match", "*")], 201)]
            {
                let (mut writer, slow) = begin(&site, target, &lines);
                push(&mut writer, b"slow").await;
                assert_eq!(put(&site, target, &lines, b"fast").await.status, fast_status);
                writer.complete(None);
                assert_eq!(slow.await.unwrap().status, 412);
                assert_eq!(read(&site, &target[1..]), "fast");
            }
            // Without a condition the last one wins, and knows that it replaced something.
            let (mut writer, slow) = begin(&site, "/third.txt", &[]);
            push(&mut writer, b"slow").await;
            assert_eq!(put(&site, "/third.txt", &[], b"fast").await.status, 201);
            writer.complete(None);
            assert_eq!((slow.await.unwrap().status, read(&site, "third.txt")), (204, "slow".into()));
            // A directory came into the way.
            let (writer, slow) = begin(&site, "/fourth", &[]);
            std::fs::create_dir(site.scratch.0.join("root/fourth")).unwrap();
            writer.complete(None);
            assert_eq!(slow.await.unwrap().status, 409);
        })
        .await;
}

/// Missing directories, permission bits, and what Allow says.
#[tokio::test]
async fn choices() {
    use std::os::unix::fs::PermissionsExt;
    let plain = site(small());
    let answer = put(&plain, "/a/b/c.txt", &[], b"x").await;
    assert_eq!((answer.status, &*answer.content), (409, &b"the directory does not exist\n"[..]));
    assert_eq!(put(&plain, "/old.txt/c.txt", &[], b"x").await.status, 409);
    let mode = |site: &Site, name: &str| {
        std::fs::metadata(site.scratch.0.join("root").join(name)).unwrap().permissions().mode() & 0o777
    };
    let path = plain.scratch.0.join("root/old.txt");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(put(&plain, "/old.txt", &[], b"x").await.status, 204);
    assert_eq!(mode(&plain, "old.txt"), 0o600);

    let site = site(UploadOptions { create_directories: true, delete: false, mode: 0o640, ..small() });
    assert_eq!(put(&site, "/a/b/c.txt", &[], b"x").await.status, 201);
    assert_eq!(put(&site, "/a/b/d.txt", &[], b"x").await.status, 201);
    assert_eq!((read(&site, "a/b/c.txt"), mode(&site, "a/b/c.txt") & 0o037), ("x".into(), 0));
    assert_eq!(put(&site, "/old.txt/c.txt", &[], b"x").await.status, 409);
    let answer = send(&site, Method::Delete, "/old.txt", &[], b"").await;
    assert_eq!((answer.status, answer.get("Allow")), (405, "GET, HEAD, OPTIONS, PUT"));
    assert_eq!(plain.ask(Method::Options, "/", &[]).get("Allow"), "GET, HEAD, OPTIONS, PUT, DELETE");
}

/// A full disk is 507, and so are the other errors of a file system told apart.
#[test]
fn errors_of_the_disk() {
    for (number, status) in [
        (28, Some(507)),
        (122, Some(507)),
        (27, Some(413)),
        (30, Some(403)),
        (13, Some(403)),
        (21, Some(409)),
        (5, None),
        (24, None),
    ] {
        let status_of = disk_status(&io::Error::from_raw_os_error(number)).map(Status::code);
        assert_eq!(status_of, status, "{number}");
    }
    assert_eq!(disk_status(&io::Error::other("x")), None);
}
