//! Replays the corpora of the fuzz targets, as they are and with seeded mutations, so that what a fuzzer once
//! found stays found without one. What must hold for each input stands in `fuzz/targets.rs`. The names of the
//! files end in the id of the fault that they show.

#[path = "../../../fuzz/targets.rs"]
mod targets;

use eleven_testkit::{repo, rng, text};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mutations of each file. The fuzzer proper goes on where these end.
const MUTATIONS: u64 = 150;

const TARGETS: [(&str, fn(&[u8])); 12] = [
    ("head", targets::head),
    ("field_section", targets::field_section),
    ("chunked", targets::chunked),
    ("framing", targets::framing),
    ("target", targets::target),
    ("range", targets::range),
    ("date", targets::date),
    ("connection", targets::connection),
    ("client", targets::client),
    ("set_cookie", targets::set_cookie),
    ("content_disposition", targets::content_disposition),
    ("journal", targets::journal),
];

/// Parsers on arbitrary octets: no panic, and each way of delivery comes to one result (faults F04, D48, S89).
#[test]
fn corpora_hold() {
    for (name, target) in TARGETS {
        let folder = repo::root().join("fuzz/corpus").join(name);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.expect("a readable folder").path())
            .collect();
        files.sort();
        assert!(files.len() >= 5, "{name} has only {} files", files.len());
        for file in files {
            let octets = std::fs::read(&file).expect("a readable file");
            check(name, target, &octets, &file.display().to_string());
            for seed in 0..MUTATIONS {
                let mut rng = rng::Rng::new(seed);
                let changes = rng.between(1, 4) as usize;
                let mutated = rng.mutated(&octets, changes);
                check(name, target, &mutated, &format!("{}, mutated with seed {seed}", file.display()));
            }
        }
    }
}

fn check(name: &str, target: fn(&[u8]), octets: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(octets))).is_err() {
        panic!("{name} fails on {origin}: \"{}\"", text::escape(octets));
    }
}
