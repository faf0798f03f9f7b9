//! Harm to a file while it is being written and followed by a reader that fell behind: every octet still arrives, and
//! what is bad is not kept.

use super::*;
use crate::disk::{Disk, Limits as DiskLimits};
use std::os::unix::fs::FileExt;
use std::path::Path;

const LENGTH: usize = 2_500_000;
/// So much has arrived when the harm is done.
const ARRIVED: usize = 2_000_000;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|i| (i / 7 + i) as u8).collect()
}

/// How the origin server behaves when it is asked for the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// It sends the rest.
    Ranges,
    /// It knows no ranges, and sends everything again.
    Whole,
    /// It has another representation by now.
    Changed,
    /// It is gone.
    Gone,
}

fn origin(tag: &'static str, told_length: bool, then: Then) -> Origin {
    let mut asked = 0;
    Origin::new(move |ask| {
        asked += 1;
        let all = content();
        let mut fields = vec![("Cache-Control", "max-age=3600"), ("ETag", tag)];
        let length;
        let mut answer = match (then, ask.fields.get(Known::Range)) {
            (Then::Gone, _) if asked > 1 => return Err("gone"),
            (Then::Changed, Some(_)) => {
                fields[1].1 = "\"another\"";
                said(200, &fields, &vec![b'x'; LENGTH])
            }
            (Then::Ranges, Some(range)) => {
                assert_eq!(ask.fields.get(Known::IfRange), Some(tag.as_bytes()));
                let range = std::str::from_utf8(range).unwrap().strip_prefix("bytes=").unwrap();
                let (first, last) = range.split_once('-').unwrap();
                let first: usize = first.parse().unwrap();
                let last = if last.is_empty() { LENGTH - 1 } else { last.parse().unwrap() };
                length = format!("bytes {first}-{last}/{LENGTH}");
                fields.push(("Content-Range", &length));
                said(206, &fields, &all[first..=last])
            }
            _ => {
                let mut answer = said(200, &fields, b"");
                answer.chunks = all.chunks(50_000).map(Bytes::copy_from_slice).collect();
                answer.chunk_delay_ms = 1;
                answer
            }
        };
        answer.told_length = told_length;
        Ok(answer)
    })
}

#[derive(Debug, Clone, Copy)]
enum Harm {
    /// An octet of this block changes.
    Flip(u64),
    /// The file loses everything.
    Empty,
    /// The file loses its name only: nobody who reads it notices.
    Unlink,
}

/// Harms the one file that is being written.
fn harm(root: &Path, harm: Harm) {
    let files: Vec<_> = std::fs::read_dir(root.join("tmp")).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "one fill is under way");
    let path = files[0].path();
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    match harm {
        Harm::Flip(block) => {
            let at = block * (crate::content::BLOCK_BYTES as u64 + 16) + 100;
            let mut octet = [0];
            file.read_exact_at(&mut octet, at).unwrap();
            file.write_all_at(&[octet[0] ^ 4], at).unwrap();
        }
        Harm::Empty => file.set_len(0).unwrap(),
        Harm::Unlink => std::fs::remove_file(&path).unwrap(),
    }
}

/// What two readers of one fill get, the second having begun while it was under way, if the file is harmed meanwhile; how
/// often the origin server was asked for it; and what the next request gets.
async fn harmed(
    origin: &Origin,
    how: Harm,
    name: &str,
) -> ([Result<Vec<u8>, Reason>; 2], usize, Result<Vec<u8>, Reason>) {
    let root = std::env::temp_dir().join(format!("eleven-filling-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    let disk = Disk::open(&root, DiskLimits::default()).unwrap();
    let limits = MemoryLimits { bytes_max: 1 << 20, object_bytes_max: 1 << 18, variants_max: 8 };
    let cache = cache_with(Store::Tiered(Tiered::new(Memory::new(limits), disk)), Config::default());
    let site = Site { scheme: Scheme::Http, host: b"h".to_vec(), port: 80 };
    let (method, fields) = (Method::Get, Fields::new());
    let request = Request { method: &method, site: &site, target: b"/", fields: &fields, has_content: false };
    let first = cache.respond(&request, origin).await.unwrap();
    let second = cache.respond(&request, origin).await.unwrap();
    assert_eq!(origin.count(), 1, "the second reads along");
    while cache_fill_bytes(&root) < ARRIVED as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    harm(&root, how);
    let got = [drain(first.body).await, drain(second.body).await];
    let count = origin.count();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let next = ask_full(&cache, origin, "GET", "/", &[]).await.map_or(Err(Reason::Broken), |got| got.content);
    drop(cache);
    let _ = std::fs::remove_dir_all(&root);
    (got, count, next)
}

/// Octets in the file that is being written.
fn cache_fill_bytes(root: &Path) -> u64 {
    let files = std::fs::read_dir(root.join("tmp")).unwrap().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum()
}

#[test]
fn a_reader_that_fell_behind_is_healed() {
    let all = content();
    let cases = [
        // (harm, its length was told, then, asked)
        (Harm::Flip(0), true, Then::Ranges, 3),
        (Harm::Flip(12), true, Then::Ranges, 3),
        (Harm::Flip(12), false, Then::Ranges, 3),
        (Harm::Flip(12), true, Then::Whole, 3),
        (Harm::Flip(12), false, Then::Whole, 3),
        (Harm::Empty, true, Then::Ranges, 3),
        (Harm::Unlink, true, Then::Ranges, 1),
    ];
    for (place, (how, told, then, asked)) in cases.into_iter().enumerate() {
        simulate(async {
            let origin = origin("\"a\"", told, then);
            let (got, count, next) = harmed(&origin, how, &place.to_string()).await;
            let case = format!("{how:?}, length told: {told}, {then:?}");
            for octets in got.into_iter().chain([next]) {
                assert!(octets.as_deref() == Ok(&all[..]), "{case}: {:?}", octets.map(|all| all.len()));
            }
            assert_eq!(count, asked, "{case}");
        });
    }
}

/// Where it cannot be healed it breaks off where it was harmed, and says so.
#[test]
fn what_cannot_be_healed_breaks_off() {
    let cases = [("W/\"a\"", Then::Ranges), ("\"a\"", Then::Changed), ("\"a\"", Then::Gone)];
    for (place, (tag, then)) in cases.into_iter().enumerate() {
        simulate(async {
            let origin = origin(tag, true, then);
            let (got, ..) = harmed(&origin, Harm::Flip(12), &format!("broken{place}")).await;
            for octets in got {
                assert!(octets == Err(Reason::Storage), "{tag} {then:?}: {:?}", octets.map(|all| all.len()));
            }
        });
    }
}
