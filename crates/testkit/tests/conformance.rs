//! Which rules of the RFCs are cited by a test: compares `docs/conformance.md` with what the tests in the
//! repository say, and rewrites it when the environment variable `UPDATE` is set. Likewise for attacks and faults, and
//! `docs/faults.tsv`. It judges only that a test names an id, not that the test is any good.

use eleven_testkit::repo;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const PAGE: &str = "docs/conformance.md";
const RFCS: [(&str, &str); 4] = [
    ("9110", "HTTP Semantics"),
    ("9111", "HTTP Caching"),
    ("9112", "HTTP/1.1"),
    ("6265", "HTTP State Management (cookies)"),
];
/// Levels that bind, those that advise, and those that allow.
const LEVELS: [(&str, &[&str]); 3] = [
    ("must", &["MUST", "MUST NOT", "RULE"]),
    ("should", &["SHOULD", "SHOULD NOT", "RECOMMENDED"]),
    ("may", &["MAY", "OPTIONAL"]),
];
/// The rows of each group of the catalogue of attacks and faults, whose ids (`S01`) stand in tests too.
const FAULTS: [(char, &str, u32); 12] = [
    ('S', "request framing and smuggling", 90),
    ('R', "response framing", 36),
    ('H', "Host, targets and field injection", 25),
    ('P', "paths and files", 27),
    ('G', "ranges, conditions and codings", 25),
    ('D', "denial of service", 48),
    ('C', "cache poisoning and deception", 36),
    ('X', "proxying and forwarding", 28),
    ('A', "authentication and TLS", 21),
    ('F', "I/O faults, crashes, clock", 49),
    ('K', "clients, downloads, cookies", 46),
    ('L', "logs and what they leak", 15),
];

struct Rule<'a> {
    id: &'a str,
    rfc: &'a str,
    level: &'a str,
    roles: Vec<&'a str>,
    testable: bool,
    text: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Cited,
    Exception,
    NotCited,
    NotTestable,
}

/// What the tests of the repository cite.
#[derive(Default)]
struct Citations {
    /// Rule id → files.
    rules: BTreeMap<String, BTreeSet<String>>,
    faults: BTreeSet<String>,
}

#[test]
fn conformance_page_is_true() {
    let files = repo::files();
    let data = |path: &str| {
        let file = files.iter().find(|f| f.path == path);
        file.unwrap_or_else(|| panic!("{path} is missing")).text.as_str()
    };
    let rules = parse_rules(data("docs/requirements.tsv"));
    let known: BTreeSet<&str> = rules.iter().map(|rule| rule.id).collect();
    let exceptions: BTreeSet<&str> = data("docs/exceptions.md")
        .lines()
        .filter_map(|line| line.strip_prefix("- ")?.split(':').next())
        .collect();

    let mut citations = Citations::default();
    for file in files.iter().filter(|f| is_searched(&f.path)) {
        citations.add(file.tests(), &file.path);
    }
    let mistaken: Vec<String> = citations
        .rules
        .iter()
        .filter(|(id, _)| !known.contains(id.as_str()))
        .map(|(id, files)| format!("{id} in {}", files.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    assert!(
        mistaken.is_empty(),
        "tests cite rules that docs/requirements.tsv does not have:\n{}",
        mistaken.join("\n")
    );
    let unknown: Vec<_> = exceptions.iter().filter(|id| !known.contains(**id)).collect();
    assert!(unknown.is_empty(), "docs/exceptions.md names rules that do not exist: {unknown:?}");

    let page = write_page(&rules, &citations, &exceptions);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(repo::root().join(PAGE), page).expect("docs/ can be written");
        return;
    }
    let present = files.iter().find(|f| f.path == PAGE).map_or("", |f| f.text.as_str());
    let first = page.lines().zip(present.lines().chain(std::iter::repeat(""))).find(|(new, old)| new != old);
    assert!(
        present == page,
        "{PAGE} is not what the tests say (first difference: {first:?});\n\
         rewrite it with: UPDATE=1 cargo test -p eleven-testkit --test conformance"
    );
}

/// Test code of the product; the checks of the kit itself speak about ids without testing a rule.
fn is_searched(path: &str) -> bool {
    (path.starts_with("crates/") || path.starts_with("tests/")) && !path.starts_with("crates/testkit/")
}

fn parse_rules(table: &str) -> Vec<Rule<'_>> {
    let row = |line| {
        let cells: Vec<&str> = str::split(line, '\t').collect();
        let [id, rfc, _section, level, roles, testable, text] = cells[..] else {
            panic!("not seven cells: {line}")
        };
        Rule { id, rfc, level, roles: roles.split(',').collect(), testable: testable != "no", text }
    };
    table.lines().skip(1).map(row).collect()
}

impl Citations {
    fn add(&mut self, code: &str, path: &str) {
        for line in code.lines() {
            for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.') {
                let word = word.trim_end_matches(['.', '-']);
                if is_rule_id(word) {
                    self.rules.entry(word.to_owned()).or_default().insert(path.to_owned());
                } else if is_fault_id(word) {
                    self.faults.insert(word.to_owned());
                }
            }
        }
    }
}

/// `9112-6.3-04`, `9110-15-R1`, `9110-6.6.1-02a`; not the mere section `9112-6.3`.
fn is_rule_id(word: &str) -> bool {
    let Some((rfc, rest)) = word.split_once('-') else { return false };
    let Some((section, number)) = rest.split_once('-') else { return false };
    let digits = number.trim_start_matches('R').trim_end_matches(|c: char| c.is_ascii_lowercase());
    RFCS.iter().any(|(known, _)| *known == rfc)
        && section.starts_with(|c: char| c.is_ascii_digit())
        && !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_fault_id(word: &str) -> bool {
    let Some(group) = word.chars().next() else { return false };
    let Some((_, _, rows)) = FAULTS.iter().find(|(letter, ..)| *letter == group) else { return false };
    word.len() == 3
        && word[1..].bytes().all(|b| b.is_ascii_digit())
        && word[1..].parse().is_ok_and(|n| (1..=*rows).contains(&n))
}

fn write_page(rules: &[Rule], citations: &Citations, exceptions: &BTreeSet<&str>) -> String {
    let standing = |rule: &Rule| {
        if citations.rules.contains_key(rule.id) {
            Standing::Cited
        } else if exceptions.contains(rule.id) {
            Standing::Exception
        } else if rule.testable {
            Standing::NotCited
        } else {
            Standing::NotTestable
        }
    };
    let mut page = String::from(
        "# Conformance: which rules a test cites\n\n\
         Written by `UPDATE=1 cargo test -p eleven-testkit --test conformance`, and compared with the tests by the\n\
         same command without `UPDATE`. A rule counts as cited when its id, as in `requirements.tsv`, stands in the\n\
         code, table or comment of a test. *Exceptions* have their reason in `exceptions.md`; *not testable* are\n\
         rules for people, such as those about choosing a realm's name. A rule with several roles counts in each.\n",
    );
    for (rfc, title) in RFCS {
        let of_rfc: Vec<&Rule> = rules.iter().filter(|rule| rule.rfc == rfc).collect();
        let with = |wanted| of_rfc.iter().filter(move |rule| standing(rule) == wanted);
        let _ = write!(
            page,
            "\n## RFC {rfc}: {title}\n\n{} rules: {} cited, {} exceptions, {} not cited, {} not testable.\n\n\
             | role | must: cited of all | should | may |\n|---|---|---|---|\n",
            of_rfc.len(),
            with(Standing::Cited).count(),
            with(Standing::Exception).count(),
            with(Standing::NotCited).count(),
            with(Standing::NotTestable).count(),
        );
        let roles: BTreeSet<&str> = of_rfc.iter().flat_map(|rule| rule.roles.iter().copied()).collect();
        for role in roles {
            let cells = LEVELS.map(|(_, levels)| {
                let fits = |rule: &&&Rule| {
                    rule.roles.contains(&role)
                        && levels.contains(&rule.level)
                        && standing(rule) != Standing::NotTestable
                };
                let cited =
                    of_rfc.iter().filter(fits).filter(|rule| standing(rule) == Standing::Cited).count();
                format!("{cited} of {}", of_rfc.iter().filter(fits).count())
            });
            let name = if role == "-" { "(everybody)" } else { role };
            let _ = writeln!(page, "| {name} | {} |", cells.join(" | "));
        }
        for (level, levels) in LEVELS {
            let open: Vec<_> = with(Standing::NotCited).filter(|rule| levels.contains(&rule.level)).collect();
            if !open.is_empty() {
                let _ = writeln!(page, "\n### Not cited: {level}\n");
            }
            for rule in open {
                let _ =
                    writeln!(page, "- {} ({}, {}) {}", rule.id, rule.level, rule.roles.join(", "), rule.text);
            }
        }
        let _ = writeln!(page, "\n### Cited\n");
        for rule in with(Standing::Cited) {
            let files: Vec<&str> = citations.rules[rule.id].iter().map(String::as_str).collect();
            let _ = writeln!(page, "- {}: {}", rule.id, files.join(", "));
        }
    }
    page.push_str(
        "\n## Attacks and faults that a test names\n\n| group | named | rows | ids |\n|---|---|---|---|\n",
    );
    for (letter, title, rows) in FAULTS {
        let ids: Vec<&str> =
            citations.faults.iter().filter(|id| id.starts_with(letter)).map(String::as_str).collect();
        let _ = writeln!(page, "| {letter}: {title} | {} | {rows} | {} |", ids.len(), ids.join(" "));
    }
    page
}

/// Every row of the catalogue of attacks and faults is named by a test, or has a reason why none does; not both, so that a
/// reason goes away with its cause.
#[test]
fn every_fault_has_a_test_or_a_reason() {
    let files = repo::files();
    let mut citations = Citations::default();
    for file in files.iter().filter(|f| is_searched(&f.path)) {
        citations.add(file.tests(), &file.path);
    }
    let table = files.iter().find(|f| f.path == "docs/faults.tsv").expect("docs/faults.tsv is there");
    let rows: Vec<[&str; 3]> = table
        .text
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{line}")))
        .collect();
    let ids: Vec<String> = FAULTS
        .iter()
        .flat_map(|(group, _, rows)| (1..=*rows).map(move |row| format!("{group}{row:02}")))
        .collect();
    assert_eq!(rows.iter().map(|[id, ..]| *id).collect::<Vec<_>>(), ids, "a row for every id, in order");
    let mut wrong = Vec::new();
    for [id, what, reason] in &rows {
        assert!(!what.is_empty(), "{id} says nothing");
        match (citations.faults.contains(*id), !reason.is_empty()) {
            (true, true) => wrong.push(format!("{id} ({what}) has a test by now: take its reason out")),
            (false, false) => wrong.push(format!("{id} ({what}) has neither a test nor a reason")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "docs/faults.tsv:\n{}", wrong.join("\n"));
    let reasons = rows.iter().filter(|[.., reason]| !reason.is_empty()).count();
    println!("{} rows: {} named by tests, {reasons} with a reason", rows.len(), rows.len() - reasons);
}

#[test]
fn ids_are_told_from_other_words() {
    for id in ["9112-6.3-04", "9110-15-R1", "9110-6.6.1-02a", "6265-5.4-04e"] {
        assert!(is_rule_id(id), "{id}");
    }
    for word in ["9112-6.3", "9112", "1234-5-06", "9110-x-01", "9110-1-", "9110-1-R", "2026-11-24"] {
        assert!(!is_rule_id(word), "{word}");
    }
    assert!(["S01", "S90", "L15"].iter().all(|id| is_fault_id(id)));
    assert!(!["S00", "S91", "L16", "Q01", "S1", "S001", "SAB", ""].iter().any(|id| is_fault_id(id)));
    let mut citations = Citations::default();
    citations.add("/// 9112-3.2-01, 9112-3.2-R1; faults H07 (9110-1.1-02a).\n(\"S05\", b\"x\")", "a.rs");
    assert_eq!(citations.rules.keys().collect::<Vec<_>>(), ["9110-1.1-02a", "9112-3.2-01", "9112-3.2-R1"]);
    assert_eq!(citations.faults.iter().collect::<Vec<_>>(), ["H07", "S05"]);
}
