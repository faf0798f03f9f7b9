//! The house rules that a test can hold: which crate may use which, what the crates without I/O may not say,
//! that no file is dead, and that nothing private to a workplace is committed. It *fails* on these and only
//! *prints* the largest files and longest functions, which are for a person to judge. The floors are drawn in
//! ARCHITECTURE.md.

use eleven_testkit::repo::{self, File};
use std::collections::HashSet;

/// What each crate may name as a dependency, from the lowest floor up. The tests of a crate may use what the
/// crate may use, and the test kit.
const FLOORS: [(&str, &[&str]); 8] = [
    ("semantics", &[]),
    ("messaging", &["semantics"]),
    ("net", &[]),
    ("client", &["semantics", "messaging", "net"]),
    ("cache", &["semantics", "net"]),
    ("server", &["semantics", "messaging", "net", "client", "cache"]),
    ("eleven", &["semantics", "messaging", "net", "client", "cache", "server"]),
    ("testkit", &[]),
];

/// Crates that do no I/O, read no clock and write no log.
const SANS_IO: [&str; 2] = ["semantics", "messaging"];

/// Dependencies that would let them.
const IO_DEPENDENCIES: [&str; 9] =
    ["tokio", "rustix", "socket2", "mio", "libc", "tracing", "log", "getrandom", "rand"];

/// Words that do I/O, read a clock, log, or start something. Addresses may be parsed: `std::net::Ipv6Addr` is
/// a value, not a socket.
const IO_WORDS: [&str; 22] = [
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "ToSocketAddrs",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "tokio",
    "tracing",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "async fn",
    "async move",
    ".await",
    "unsafe {",
    "unsafe fn",
];

/// The two files in which a stream and a connection machine meet.
const MEETING_PLACES: [&str; 2] = ["crates/server/src/session.rs", "crates/client/src/exchange.rs"];

#[test]
fn crates_use_only_what_stands_below_them() {
    let files = repo::files();
    let mut wrong = Vec::new();
    let crates: Vec<&File> =
        files.iter().filter(|f| f.path.starts_with("crates/") && f.path.ends_with("/Cargo.toml")).collect();
    assert_eq!(crates.len(), FLOORS.len(), "a crate without a floor, or a floor without a crate: see FLOORS");
    for manifest in crates {
        let name = manifest.path.split('/').nth(1).expect("crates/NAME/Cargo.toml");
        let floor = FLOORS.iter().find(|(floor, _)| *floor == name);
        let Some((_, allowed)) = floor else {
            wrong.push(format!("{}: the crate has no floor in FLOORS", manifest.path));
            continue;
        };
        for (section, dependency) in dependencies(&manifest.text) {
            let own = dependency.strip_prefix("eleven-");
            let for_tests = dependency == "eleven-testkit" && section == "dev-dependencies";
            if !for_tests && own.is_some_and(|own| !allowed.contains(&own)) {
                wrong.push(format!("{}: {dependency} does not stand below it", manifest.path));
            }
            if SANS_IO.contains(&name) && section == "dependencies" && IO_DEPENDENCIES.contains(&dependency) {
                wrong
                    .push(format!("{}: {dependency} could do I/O, and this crate never does", manifest.path));
            }
        }
        if !manifest.text.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{}: [lints] workspace = true is missing", manifest.path));
        }
    }
    report(wrong);
}

/// (section, name) of each dependency in a Cargo.toml of this project's plain style.
fn dependencies(manifest: &str) -> Vec<(&str, &str)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let end = line.find(['.', ' ', '=']).unwrap_or(0);
            found.extend((end > 0).then(|| (section.rsplit('.').next().unwrap_or(section), &line[..end])));
        }
    }
    found
}

#[test]
fn crates_without_io_do_none() {
    let mut wrong = Vec::new();
    for file in &repo::files() {
        if !SANS_IO.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/"))) {
            continue;
        }
        for (at, line) in code_lines(file.product()) {
            wrong.extend(IO_WORDS.iter().filter(|word| contains_word(line, word)).map(|word| {
                format!(
                    "{}:{at}: `{word}` in a crate that does no I/O, reads no clock and logs nothing",
                    file.path
                )
            }));
        }
    }
    report(wrong);
}

#[test]
fn streams_and_machines_meet_in_two_files() {
    let mut wrong = Vec::new();
    for file in &repo::files() {
        let above = ["client", "cache", "server", "eleven"];
        if !above.iter().any(|name| file.path.starts_with(&format!("crates/{name}/src/")))
            || MEETING_PLACES.contains(&file.path.as_str())
        {
            continue;
        }
        let names = |words: &[&str]| {
            code_lines(file.product()).any(|(_, line)| words.iter().any(|word| contains_word(line, word)))
        };
        if names(&["ServerConnection", "ClientConnection"]) && names(&["Stream"]) {
            wrong.push(format!("{}: names both a stream and a connection machine", file.path));
        }
    }
    report(wrong);
}

#[test]
fn unsafe_code_stands_in_net_alone() {
    let mut wrong = Vec::new();
    for file in repo::files().iter().filter(|f| f.path.ends_with(".rs") && !f.path.starts_with("crates/net/"))
    {
        let allows =
            |line: &str| ["#[allow(unsafe_code", "#![allow(unsafe_code"].iter().any(|a| line.starts_with(a));
        if file.text.lines().any(|line| allows(line.trim_start())) {
            wrong.push(format!("{}: allows unsafe code", file.path));
        }
    }
    report(wrong);
}

#[test]
fn every_source_file_is_part_of_a_crate() {
    let files = repo::files();
    let paths: HashSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
    let mut reached: HashSet<String> = HashSet::new();
    let mut open: Vec<String> =
        files.iter().map(|f| f.path.clone()).filter(|path| is_crate_root(path)).collect();
    while let Some(path) = open.pop() {
        if !reached.insert(path.clone()) {
            continue;
        }
        let file = files.iter().find(|f| f.path == path).expect("only listed files are opened");
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        // The modules of lib.rs, main.rs, mod.rs and test or bench roots stand beside them, others' below.
        let below = match name {
            "mod.rs" => folder.to_owned(),
            _ if is_crate_root(&path) => folder.to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        let mut given_path = None;
        for line in file.text.lines().map(str::trim) {
            if let Some(given) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                given_path = Some(given.to_owned());
            }
            let Some(module) = line.split("mod ").nth(1).and_then(|rest| rest.strip_suffix(';')) else {
                continue;
            };
            let tried = match given_path.take() {
                Some(given) => vec![without_parents(&format!("{folder}/{given}"))],
                None => vec![format!("{below}/{module}.rs"), format!("{below}/{module}/mod.rs")],
            };
            open.extend(tried.into_iter().filter(|path| paths.contains(path.as_str())));
        }
    }
    let dead = paths.iter().filter(|path| path.ends_with(".rs") && !reached.contains(**path));
    report(dead.map(|path| format!("{path}: no `mod` leads to this file")).collect());
}

/// `a/b/../c` as `a/c`.
fn without_parents(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

fn is_crate_root(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = folder.rsplit('/').next().unwrap_or("");
    let own_target = ["tests", "benches", "examples", "bin", "fuzz_targets"].contains(&parent);
    name.ends_with(".rs") && own_target
        || parent == "src" && ["lib.rs", "main.rs"].contains(&name)
        || name == "build.rs"
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let files = repo::files();
    // Test modules in files of their own are told by the file they belong to.
    let inner_tests = |f: &File| f.is_test() && f.path.contains("/src/");
    let silent = files.iter().filter(|f| f.path.ends_with(".rs") && !inner_tests(f)).filter(|f| {
        let mut lines = f.text.lines().skip_while(|line| line.starts_with("#!"));
        lines.next().is_none_or(|line| !line.starts_with("//! ") || line.len() < 12)
    });
    report(
        silent
            .map(|f| format!("{}: does not open with a //! paragraph that says what it decides", f.path))
            .collect(),
    );
}

#[test]
fn nothing_private_is_committed() {
    // Put together from halves, so that this file passes its own check.
    let words: Vec<String> = [
        ("/wo", "rk/"),
        ("/fa", "rm/"),
        ("../sha", "red"),
        ("sha", "red/design"),
        ("sha", "red/style"),
        ("sha", "red/faults"),
        ("sha", "red/requirements"),
        ("sha", "red/rfc"),
        ("crates.io", "/api"),
        ("index.cra", "tes"),
        ("/opt/", "wheels"),
        ("snapshot.deb", "ian"),
        ("deb.deb", "ian.org"),
        ("registry.npm", "js"),
        ("files.python", "hosted"),
        ("BRIEF", ".md"),
    ]
    .iter()
    .map(|(half, other)| format!("{half}{other}"))
    .collect();
    let mut wrong = Vec::new();
    for file in repo::files().iter().filter(|f| f.path != "Cargo.lock") {
        for (at, line) in file.text.lines().enumerate() {
            let found = words.iter().filter(|word| line.contains(word.as_str()));
            wrong.extend(found.map(|word| format!("{}:{}: names `{word}`", file.path, at + 1)));
        }
    }
    report(wrong);
}

/// Prints, and does not fail: run with `cargo test -p eleven-testkit --test tidy -- --nocapture`.
#[test]
fn sizes_for_a_person_to_judge() {
    let files = repo::files();
    let mut sizes: Vec<(usize, &str)> = Vec::new();
    let mut functions: Vec<(usize, String)> = Vec::new();
    for file in files.iter().filter(|f| f.path.starts_with("crates/") && f.path.ends_with(".rs")) {
        sizes.push((code_lines(file.product()).count(), &file.path));
        functions.extend(
            function_lengths(file.product())
                .into_iter()
                .map(|(len, name, at)| (len, format!("{}:{at} {name}", file.path))),
        );
    }
    sizes.sort_by(|a, b| b.cmp(a));
    functions.sort_by(|a, b| b.cmp(a));
    println!("\nLargest files, lines of code without tests and comments:");
    sizes.iter().take(12).for_each(|(len, path)| println!("{len:6} {path}"));
    println!("Longest functions, lines:");
    functions.iter().take(12).for_each(|(len, name)| println!("{len:6} {name}"));
    assert!(!sizes.is_empty() && !functions.is_empty());
}

/// (lines, name, first line) of functions in code laid out by rustfmt: from `fn` to the brace below it.
fn function_lengths(code: &str) -> Vec<(usize, String, usize)> {
    let mut open: Vec<(usize, String, usize)> = Vec::new();
    let mut found = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if let Some(rest) = line.trim_start().split("fn ").nth(1).filter(|_| is_function(line)) {
            let name = rest.split(['(', '<']).next().unwrap_or("").to_owned();
            open.push((indent, name, at + 1));
        }
        if line.trim() == "}" && open.last().is_some_and(|(start, ..)| *start == indent) {
            let (_, name, start) = open.pop().expect("looked at above");
            found.push((at + 2 - start, name, start));
        }
    }
    found
}

fn is_function(line: &str) -> bool {
    let before = line.trim_start().split("fn ").next().unwrap_or("x");
    let words = ["pub", "const", "async", "unsafe", "pub(crate)", "pub(super)"];
    before.split_whitespace().all(|word| words.contains(&word)) && !line.trim_end().ends_with([';', '}'])
}

/// Numbered lines without those that are only comment.
fn code_lines(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered =
        code.lines().enumerate().map(|(at, line)| (at + 1, line.split(" // ").next().unwrap_or("")));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//") && !line.trim().is_empty())
}

/// `word` with no letter, digit or `_` touching it at an end that is one itself.
fn contains_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let touches = |outside: Option<char>, end: Option<char>| part(outside) && part(end);
    line.match_indices(word).any(|(at, _)| {
        let before = touches(line[..at].chars().next_back(), word.chars().next());
        let after = touches(line[at + word.len()..].chars().next(), word.chars().next_back());
        !before && !after
    })
}

#[track_caller]
fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} found:\n{}\n", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_checks_can_fail() {
    let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\n# c = 1\n[dev-dependencies]\nd = { x = 1 }\n[x]\ny = 1";
    let expected = [("dependencies", "a"), ("dependencies", "b"), ("dev-dependencies", "d")];
    assert_eq!(dependencies(manifest), expected);
    assert!(contains_word("use tokio::x;", "tokio") && contains_word("eprintln!(1)", "eprintln!"));
    assert!(!contains_word("use my_tokio_x;", "tokio") && !contains_word("UpStream", "Stream"));
    assert!(!contains_word("eprintln!(1)", "println!"));
    let code = "fn a() {\n    x\n}\nimpl B {\n    pub fn c(&self) {\n        // }\n        y\n    }\n}\n";
    assert_eq!(function_lengths(code), [(3, "a".into(), 1), (4, "c".into(), 5)]);
    assert_eq!(code_lines("a // b\n// c\n\n    //! d\ne").collect::<Vec<_>>(), [(1, "a"), (5, "e")]);
    assert!(is_crate_root("crates/a/src/lib.rs") && is_crate_root("crates/a/tests/b.rs"));
    assert_eq!(without_parents("a/b/../../c/d"), "c/d");
    assert!(!is_crate_root("crates/a/src/b.rs") && !is_crate_root("crates/a/src/tests/c/d.rs"));
}
