//! Names that are taken: files that are complete already, and several downloads of one name.

use super::*;

/// `--continue` on a file that has its final name: G12, and 9110-15.5.17 read by a client. Nothing is appended to it.
#[tokio::test(flavor = "local")]
async fn what_is_complete_is_said_to_be() {
    let good = Behaviour::good(1000);
    let later = "Last-Modified: Fri, 01 Jan 2100 00:00:00 GMT\r\nDate: Sat, 02 Jan 2100 00:00:00 GMT\r\n";
    let earlier = "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n";
    let digest = {
        use eleven_semantics::digest_fields::{Algorithm, Hasher, value};
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&good.content);
        format!("Repr-Digest: {}\r\n", String::from_utf8(value(&hasher.finish())).unwrap())
    };
    let with = |ranges: bool, more: &str| Behaviour { ranges, more: more.to_owned(), ..good.clone() };
    let other: Vec<u8> = good.content.iter().map(|b| !b).collect();
    for (what, behaviour, here, expected) in [
        ("416", good.clone(), &good.content[..], None),
        ("416, old", with(true, earlier), &good.content, None),
        ("no ranges", with(false, ""), &good.content, None),
        ("no ranges, digest", with(false, &digest), &good.content, None),
        ("empty", Behaviour::good(0), b"", None),
        ("416, newer", with(true, later), &good.content, Some("modified later")),
        ("no ranges, newer", with(false, later), &good.content, Some("modified later")),
        ("no ranges, another digest", with(false, &digest), &other, Some("Repr-Digest promises")),
        ("shorter here", good.clone(), &good.content[..400], Some("nothing proves")),
        ("shorter here, no ranges", with(false, ""), &good.content[..400], Some("nothing proves")),
        ("longer here", good.clone(), &[7; 2000], Some("has 1000")),
        ("chunked", Behaviour { chunked: true, ..with(false, "") }, &good.content, Some("does not say")),
        ("nothing here", good.clone(), b"", Some("nothing proves")),
    ] {
        for disposition in [false, true] {
            let place = Place::new("complete");
            std::fs::write(place.0.join("file.bin"), here).unwrap();
            let server = Server::new(behaviour.clone()).await;
            let naming = Naming::Remote { disposition };
            let resume = Options { resume: true, ..quick() };
            let (result, notes) = get_all(vec![server.uri()], &place.0, naming.clone(), resume.clone()).await;
            match (result, expected) {
                (Ok(done), None) => {
                    assert!(done.kept, "{what}");
                    assert_eq!((done.bytes, done.received), (here.len() as u64, 0), "{what}: {notes:?}");
                    assert_eq!(done.path, place.0.join("file.bin"));
                }
                (Err(failure), Some(part)) => {
                    let text = failure.to_string();
                    assert!(text.contains(part) && text.contains("--overwrite"), "{what}: {text}");
                }
                (result, _) => panic!("{what}: {result:?} {notes:?}"),
            }
            assert!(place.read("file.bin") == here, "{what}: untouched");
            assert_eq!(server.requests.borrow().len(), 1, "{what}");
            // What is another file is replaced, or stood beside, if that is wished.
            let overwrite = Options { overwrite: Overwrite::Replace, ..resume.clone() };
            let (result, _) = get_all(vec![server.uri()], &place.0, naming.clone(), overwrite).await;
            assert_eq!(result.unwrap().kept, expected.is_none(), "{what}");
            assert!(place.read("file.bin") == behaviour.content, "{what}");
            std::fs::write(place.0.join("file.bin"), here).unwrap();
            let rename = Options { overwrite: Overwrite::Rename, ..resume };
            let (result, _) = get_all(vec![server.uri()], &place.0, naming, rename).await;
            assert_eq!(result.unwrap().kept, expected.is_none(), "{what}");
            let names = if expected.is_some() { &["file (1).bin", "file.bin"][..] } else { &["file.bin"] };
            assert_eq!(place.names(), names, "{what}");
        }
    }
}

/// The user's own digest settles it without a question; an error of the server does not.
#[tokio::test(flavor = "local")]
async fn what_is_complete_by_the_users_digest() {
    use eleven_semantics::digest_fields::{Algorithm, Hasher};
    let place = Place::new("complete-digest");
    let server = Server::new(Behaviour { first: vec![(404, "")], ..Behaviour::good(1000) }).await;
    std::fs::write(place.0.join("file.bin"), content_of(1, 1000)).unwrap();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&content_of(1, 1000));
    let right: [u8; 32] = hasher.finish().value.try_into().unwrap();
    for (sha256, fine) in [(right, true), ([0; 32], false)] {
        let options = Options { resume: true, sha256: Some(sha256), ..quick() };
        let (result, _) = get(&server, &place, options).await;
        match result {
            Ok(done) => assert!(fine && done.kept && done.verified == ["--sha256"]),
            Err(failure) => assert!(!fine && failure.to_string().contains("--overwrite"), "{failure}"),
        }
        assert!(server.requests.borrow().is_empty());
    }
    let (result, _) = get(&server, &place, Options { resume: true, ..quick() }).await;
    assert_eq!(result.unwrap_err().cause, Cause::Status(404));
    assert!(place.read("file.bin") == content_of(1, 1000));
}

/// Fault K24: several downloads of one remote name at a time each get a name of their own; without `--rename` the
/// first to come has it and the others are refused.
#[tokio::test(flavor = "local")]
async fn one_name_for_several() {
    for length in [1000, 600_000] {
        for overwrite in [Overwrite::Rename, Overwrite::Refuse] {
            let place = Place::new("one-name");
            let server = Server::new(Behaviour::good(length)).await;
            let naming = Naming::Remote { disposition: true };
            let uris: Vec<Uri> = (0..5).map(|n| server.at(&format!("/{n}/file.bin"))).collect();
            let mut running = Vec::new();
            for uri in uris {
                let (path, naming) = (place.0.clone(), naming.clone());
                let options = Options { overwrite, ..quick() };
                running.push(tokio::task::spawn_local(async move {
                    get_all(vec![uri], &path, naming, options).await.0
                }));
            }
            let mut fine = 0;
            for task in running {
                match task.await.unwrap() {
                    Ok(done) => {
                        fine += 1;
                        assert!(std::fs::read(done.path).unwrap() == content_of(1, length));
                    }
                    Err(failure) => assert!(overwrite == Overwrite::Refuse, "{failure}"),
                }
            }
            if overwrite == Overwrite::Rename {
                assert_eq!(fine, 5);
                let names = ["file (1).bin", "file (2).bin", "file (3).bin", "file (4).bin", "file.bin"];
                assert_eq!(place.names(), names);
            } else {
                assert!(fine >= 1);
                assert_eq!(place.names(), ["file.bin"]);
            }
        }
    }
}
