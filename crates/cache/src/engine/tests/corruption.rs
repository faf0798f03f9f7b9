//! Random harm to the files of a store that serves: no wrong octet may leave, and nearly every response must come whole
//! within the request that met the harm. `ELEVEN_CORRUPTIONS=10000` does more of it than a usual run (better with `--release`).

use super::*;
use crate::disk::{Disk, Limits as DiskLimits};
use std::path::{Path, PathBuf};

const SIZES: [usize; 10] = [1, 500, 16_384, 16_385, 65_536, 65_537, 300_000, 1_048_576, 1_048_577, 2_500_000];

fn content(target: &[u8]) -> Vec<u8> {
    let number = target[1..].iter().fold(0usize, |n, &b| n * 10 + usize::from(b - b'0'));
    (0..SIZES[number % SIZES.len()]).map(|i| (i / 7 + number * 31 + i) as u8).collect()
}

/// An origin server with a strong validator, which answers ranges.
fn origin() -> Origin {
    Origin::new(|ask| {
        let content = content(&ask.target);
        let tag = format!("\"{}\"", content.len());
        let validators = eleven_semantics::validator::Validators {
            etag: eleven_semantics::validator::EntityTag::parse(tag.as_bytes()),
            last_modified: None,
            exists: true,
        };
        let length = content.len() as u64;
        let fields = [("Cache-Control", "max-age=1000000000"), ("ETag", tag.as_str())];
        let limits = RangeLimits::default();
        Ok(match range::select(&ask.method, &ask.fields, &validators, length, HttpDate(0), &limits) {
            Ranges::Single(span) => {
                let value = ContentRange::Part { span, complete: Some(length) }.to_bytes();
                let value = String::from_utf8(value).unwrap();
                let part = &content[span.first as usize..=span.last as usize];
                said(206, &[fields[0], fields[1], ("Content-Range", &value)], part)
            }
            _ => {
                let mut answer = said(200, &fields, b"");
                answer.chunks = content.chunks(50_000).map(Bytes::copy_from_slice).collect();
                answer
            }
        })
    })
}

fn files(root: &Path) -> Vec<PathBuf> {
    let directories = std::fs::read_dir(root).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let mut files: Vec<PathBuf> =
        directories.flat_map(|d| std::fs::read_dir(d.path()).unwrap().flatten().map(|e| e.path())).collect();
    files.sort();
    files
}

/// Flips a bit, overwrites a stretch, cuts short, lengthens, empties or removes.
fn harm(path: &Path, rng: &mut impl FnMut(u64) -> u64) {
    let Ok(mut octets) = std::fs::read(path) else { return };
    let length = octets.len() as u64;
    let way = if length == 0 { 5 } else { rng(8) };
    match way {
        0..=3 => octets[rng(length) as usize] ^= 1 << rng(8),
        4 => {
            let (at, value) = (rng(length) as usize, rng(256) as u8);
            let end = (at + rng(5000) as usize + 1).min(octets.len());
            octets[at..end].fill(value);
        }
        5 => return std::fs::remove_file(path).unwrap(),
        6 => octets.truncate(rng(length) as usize),
        _ => octets.extend_from_slice(b"more"),
    }
    std::fs::write(path, octets).unwrap();
}

/// Faults F12, F15, F16 and F18.
#[test]
fn harmed_files_are_never_served_and_healed_within_the_request() {
    let wanted = std::env::var("ELEVEN_CORRUPTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(30u64);
    let root = std::env::temp_dir().join(format!("eleven-corruption-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&root);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut rng = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) % below
    };
    simulate(async {
        // Memory holds nothing of what is on disk, so that every answer is read from there.
        let limits = MemoryLimits { bytes_max: 1 << 16, object_bytes_max: 0, variants_max: 8 };
        let disk = Disk::open(&root, DiskLimits::default()).unwrap();
        let cache = cache_with(Store::Tiered(Tiered::new(Memory::new(limits), disk)), Config::default());
        let origin = origin();
        let targets: Vec<String> = (0..SIZES.len() * 2).map(|n| format!("/{n}")).collect();
        for target in &targets {
            get(&cache, &origin, target, &[]).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cache.usage().disk_keys, targets.len());
        let (mut harmed, mut whole, mut hits) = (0, 0, 0);
        while harmed < wanted {
            let all = files(&root);
            let path = &all[rng(all.len() as u64) as usize];
            harm(path, &mut rng);
            harmed += 1;
            // Nobody knows whose file it was, so everything is asked for, the larger ones less often.
            for target in &targets {
                let expected = content(target.as_bytes());
                if expected.len() > 100_000 && rng(10) > 0 {
                    continue;
                }
                let (first, last) = (expected.len() / 3, expected.len() / 2);
                let range = format!("bytes={first}-{last}");
                let fields: &[(&str, &str)] = if rng(4) == 0 { &[("Range", &range)] } else { &[] };
                let expected = if fields.is_empty() { &expected[..] } else { &expected[first..=last] };
                let got = get(&cache, &origin, target, fields).await;
                hits += u64::from(got.word == "HIT");
                match &got.content {
                    Ok(octets) => {
                        assert!(octets == expected, "wrong octets of {target} after harm {harmed}");
                        whole += 1;
                    }
                    Err(reason) => panic!("{target} broke off after harm {harmed}: {reason}"),
                }
            }
        }
        assert!(
            hits > whole / 2,
            "{hits} of {whole} answers came from the store: the test looks at the disk"
        );
        println!("{harmed} times harmed: {whole} answers, all whole and right; {hits} from the disk");
    });
    let _ = std::fs::remove_dir_all(&root);
}
