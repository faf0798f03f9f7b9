use super::*;
use diagnose::{Severity, position};
use std::path::PathBuf;

/// A certificate made for these tests, and its key, which opens nothing.
const CA: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdTCCARugAwIBAgIUMcI8o/NaopjwGqIWQ7MSDXTjA4cwCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQyMTM1MTNaGA8yMTI2MTAzMTIxMzUx\n\
M1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIIa\n\
6BFk1XZ1nwgXxPD0aeWq4qt1fYrDts933G08mv/SjEGj4b8HqNCOIZz6u3Xpko4H\n\
PntFwPsCOvZggGECG1GjUzBRMB0GA1UdDgQWBBSb8CpRLPOXIKbGmOn5B8ezgfKt\n\
GDAfBgNVHSMEGDAWgBSb8CpRLPOXIKbGmOn5B8ezgfKtGDAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0gAMEUCIAfHlosf8muZzS7Yqo7F+mvszBeQVaaaGAfi\n\
RDkOXc2XAiEAsCQvvRD1B06jFZjnhcqLvmAAXpxNY7MzPrm68EFRxm8=\n\
-----END CERTIFICATE-----\n\
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgMQXhFQ50JYXPM8Q+\n\
X4E8wJumOYn0/7aN2eFWcPqYGwChRANCAASCGugRZNV2dZ8IF8Tw9GnlquKrdX2K\n\
w7bPd9xtPJr/0oxBo+G/B6jQjiGc+rt16ZKOBz57RcD7Ajr2YIBhAhtR\n\
-----END PRIVATE KEY-----\n\
";

/// A directory with what the examples name.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("eleven-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("www")).unwrap();
        std::fs::create_dir_all(path.join("images")).unwrap();
        std::fs::create_dir_all(path.join("more")).unwrap();
        std::fs::write(path.join("users"), "ann:$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/\n").unwrap();
        std::fs::write(path.join("digest"), "ann:restricted:0123456789abcdef0123456789abcdef\n").unwrap();
        for (name, pem) in [("ca.pem", CA), ("client.pem", CA), ("client.key", KEY)] {
            std::fs::write(path.join(name), pem).unwrap();
        }
        std::fs::write(path.join("redirects.txt"), "# From the old shop\n/a /b\n\n/c/* /d/{rest} 307\n")
            .unwrap();
        std::fs::write(
            path.join("wrong.txt"),
            "/a /b;\n/c\n/d /e 200\nf /g\n/h /i 301 x\n/j /k\n/j /l\n/there /m\n/{n} o\n/p /p\n",
        )
        .unwrap();
        std::fs::write(path.join("ocsp.der"), include_bytes!("ocsp.der")).unwrap();
        std::fs::write(path.join("404.html"), "<h1>no</h1>").unwrap();
        std::fs::write(path.join("5xx.jinja"), "{{ status }}").unwrap();
        Place(path)
    }

    fn load(&self, text: &str) -> Loaded {
        let variable = |name: &str| (name == "NAME").then(|| "value".to_owned());
        load_with(text, &self.0.join("f.toml"), &variable)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Every key of every section, with a value that is right.
const EVERYTHING: &str = include_str!("everything.toml");

#[test]
fn a_configuration_with_every_key_is_read() {
    let place = Place::new("everything");
    let loaded = place.load(EVERYTHING);
    assert!(loaded.report.is_empty(), "{}", loaded.report.render(&loaded.sources, false));
    // Every key of the tables stands in it: a key that is never read would not be noticed otherwise.
    let mut sections = Vec::new();
    schema::each_section(&keys::ROOT, &mut sections);
    let mut missing = Vec::new();
    for section in sections {
        for key in section.keys() {
            let written = EVERYTHING.lines().any(|line| {
                let line = line.trim().trim_start_matches("[[").trim_start_matches('[');
                line.starts_with(&format!("{} ", key.name))
                    || line.split('.').any(|part| part.trim_end_matches(']') == key.name)
                    || line.contains(&format!(" {} = ", key.name))
            });
            if !written {
                missing.push(format!("{}.{}", section.name, key.name));
            }
        }
    }
    assert!(missing.is_empty(), "not in everything.toml: {missing:?}");
}

fn render(loaded: &Loaded) -> String {
    loaded.report.render(&loaded.sources, false)
}

/// The place, the message and the help of every mistake, one a line.
fn mistakes(place: &Place, text: &str) -> String {
    let report = place.load(text).report;
    let mut out = String::new();
    for diagnostic in report.sorted() {
        let (line, column) = position(text, diagnostic.span.start);
        let end = diagnostic.span.end.min(text.len());
        let under = text[diagnostic.span.start.min(end)..end].lines().next().unwrap_or("");
        let severity = if diagnostic.severity == Severity::Warning { " warning" } else { "" };
        out.push_str(&format!("{line}:{column}{severity} [{under}] {}", diagnostic.message));
        if let Some(help) = &diagnostic.help {
            out.push_str(&format!(" | {help}"));
        }
        out.push('\n');
    }
    out.replace(place.0.to_str().unwrap(), "DIR")
}

/// Blocks of `mistakes.txt`: a configuration, a line of dashes, what is said of it. `UPDATE=1` writes them anew.
#[test]
fn every_mistake_has_its_place_its_reason_and_its_fix() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/mistakes.txt");
    let place = Place::new("mistakes");
    let file = std::fs::read_to_string(path).unwrap();
    let mut new = String::new();
    let mut wrong = 0;
    for block in file.split("=====\n").filter(|block| !block.trim().is_empty()) {
        let (text, expected) = block.split_once("-----\n").expect("a line of dashes");
        let found = mistakes(&place, text);
        assert!(!found.is_empty() || expected.is_empty(), "nothing is said of:\n{text}");
        if found != expected {
            wrong += 1;
            eprintln!("in:\n{text}expected:\n{expected}found:\n{found}");
        }
        new.push_str(&format!("{text}-----\n{found}=====\n"));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, new).unwrap();
    } else {
        assert_eq!(wrong, 0, "run with UPDATE=1 and read the difference");
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let place = Place::new("all");
    let text = "workrs = 3\nserver_field = 1\n[limits]\nhead_timeout = \"5 parsecs\"\n[[site]]\nnames = [\"a b\", \"ok\"]\nroot = \"nowhere\"\n";
    let Loaded { report, sources, .. } = place.load(text);
    assert_eq!(report.count(Severity::Error), 5, "{}", report.render(&sources, false));
    let json = report.json(&sources);
    let lines: Vec<_> =
        json.as_array().unwrap().iter().map(|object| object["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 2, 4, 6, 7]);
    assert_eq!(json[0]["help"], "did you mean `workers`?");
    assert_eq!((json[0]["column"].as_u64(), json[0]["end_column"].as_u64()), (Some(1), Some(7)));
    assert!(place.load("").report.has_errors());
}

#[test]
fn a_report_shows_the_line_and_underlines_it() {
    let place = Place::new("render");
    let text = "[[site]]\nroot = \"www\"\ncompres = true\n";
    let shown = render(&place.load(text));
    for part in [
        "error: unknown key `compres`",
        "f.toml:3:1",
        "compres = true",
        "^^^^^^^",
        "did you mean `compress`?",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    // Fault L02: what a file holds does not act on a terminal.
    let text = "\"\\u001b[2J\" = 1\n";
    assert!(!render(&place.load(text)).contains('\u{1b}'));
    let text = format!("x = \"{}\"\n", "y".repeat(100_000));
    assert!(render(&place.load(&text)).len() < 5000);
}

#[test]
fn variables_and_secrets() {
    let place = Place::new("secrets");
    std::fs::write(place.0.join("hash"), "$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/\n").unwrap();
    let text = "server_field = \"${NAME} $$5 ${NOT_SET:-x}\"\n[[site]]\nroot = \"www\"\naccess.basic.users.ann = { file = \"hash\" }\n";
    let loaded = place.load(text);
    assert!(loaded.report.is_empty(), "{}", loaded.report.render(&loaded.sources, false));
    assert_eq!(&*loaded.plan.server_field, "value $5 x");
    let printed = schema::print(&loaded.raw, &loaded.sources);
    assert!(!printed.contains("saltsalt"), "{printed}");
}

/// What `config --print` writes is read back as the same configuration.
#[test]
fn everything_printed_is_read_back_the_same() {
    let place = Place::new("print");
    let print = |loaded: &Loaded| schema::print(&loaded.raw, &loaded.sources);
    for text in [EVERYTHING, "[[site]]\nroot = \"www\"\n"] {
        // Secrets are not printed, so what is read back would have none.
        let is_secret = |line: &str| line.contains("apr1") || line.starts_with("token = ");
        let text: String =
            text.lines().filter(|line| !is_secret(line)).map(|line| format!("{line}\n")).collect();
        let first = print(&place.load(&text));
        let again = place.load(&first);
        assert!(!again.report.has_errors(), "{}", again.report.render(&again.sources, false));
        assert_eq!(print(&again), first);
    }
}

#[test]
fn sizes_and_times() {
    for (text, octets) in [
        ("0", Some(0)),
        ("10", Some(10)),
        ("10B", Some(10)),
        ("64KiB", Some(65_536)),
        ("1 MiB", Some(1 << 20)),
        ("2G", Some(2 << 30)),
        ("1TiB", Some(1 << 40)),
        ("", None),
        ("KiB", None),
        ("1kb", None),
        ("-1", None),
        ("+1", None),
        ("1.5MiB", None),
        ("99999999999TiB", None),
        ("99999999999999999999999", None),
    ] {
        assert_eq!(schema::read_bytes(text), octets, "{text}");
    }
    for (text, ms) in [
        ("500ms", Some(500)),
        ("30s", Some(30_000)),
        ("5m", Some(300_000)),
        ("2 h", Some(7_200_000)),
        ("1d", Some(86_400_000)),
        ("30", None),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("1.5s", None),
        ("99999999999999999999d", None),
    ] {
        assert_eq!(schema::read_millis(text), ms, "{text}");
    }
    for n in [1, 999, 1000, 59_000, 60_000, 90_000, 3_600_000, 86_400_000] {
        assert_eq!(schema::read_millis(&schema::show_millis(n)), Some(n));
    }
    for n in [0, 1, 1023, 1024, 1 << 20, 3 << 30, (1 << 40) + 1] {
        assert_eq!(schema::read_bytes(&schema::show_bytes(n)), Some(n));
    }
}

/// 10,000 mutations of valid configurations: never a panic, and every refusal names a line that exists.
#[test]
fn random_mutations_never_panic_and_every_refusal_names_a_line() {
    let place = Place::new("mutations");
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    };
    let words: Vec<&str> = EVERYTHING.split_whitespace().collect();
    let sources =
        [EVERYTHING, "[[site]]\nroot = \"www\"\n[[site.route]]\npath = \"/a\"\nfixed = { status = 410 }\n"];
    let (mut refused, mut accepted) = (0, 0);
    for round in 0..10_000 {
        let mut bytes = sources[usize::from(round % 4 == 0)].as_bytes().to_vec();
        // Most of the long one is left out, or 10,000 rounds would take minutes.
        if bytes.len() > 1000 {
            let lines: Vec<&[u8]> = bytes.split(|&b| b == b'\n').collect();
            let start = next(lines.len());
            let kept = lines[start..].iter().take(12).copied().collect::<Vec<_>>().join(&b'\n');
            bytes = kept;
        }
        for _ in 0..1 + next(4) {
            let at = next(bytes.len());
            match next(7) {
                0 => drop(bytes.splice(at..at, [next(256) as u8])),
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 if !bytes.is_empty() => bytes[at] = b" \n\"'[]{}=.,#$-+0x\\"[next(18)],
                3 => drop(bytes.splice(at..at, words[next(words.len())].bytes())),
                4 => bytes.truncate(at),
                5 => {
                    let mut lines: Vec<Vec<u8>> = bytes.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
                    let (a, b) = (next(lines.len()), next(lines.len()));
                    lines.swap(a, b);
                    bytes = lines.join(&b'\n');
                }
                _ => {
                    let end = (at + next(40)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = next(bytes.len());
                    bytes.splice(to..to, copy);
                }
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let loaded = place.load(&text);
        if loaded.report.has_errors() {
            refused += 1;
            let lines = text.matches('\n').count() + 1;
            for object in loaded.report.json(&loaded.sources).as_array().unwrap() {
                let line = object["line"].as_u64().unwrap() as usize;
                assert!((1..=lines).contains(&line), "line {line} of {lines} in\n{text}");
            }
            let shown = loaded.report.render(&loaded.sources, round % 2 == 0);
            assert!(shown.contains("f.toml:"), "{shown}");
        } else {
            accepted += 1;
            schema::print(&loaded.raw, &loaded.sources);
        }
    }
    assert!(refused > 2000 && accepted > 50, "{refused} refused, {accepted} accepted");
}

/// The reference, the schema and the example are derived; CI keeps what is checked in true. `UPDATE=1` writes them.
#[test]
fn derived_files_are_up_to_date() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let schema = serde_json::to_string_pretty(&schema::json_schema(&keys::ROOT)).unwrap() + "\n";
    let page = include_str!("configuration.head.md").to_owned() + &schema::reference_page(&keys::ROOT);
    for (name, content) in [("config.schema.json", schema), ("configuration.md", page)] {
        let path = docs.join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&docs).unwrap();
            std::fs::write(&path, &content).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == content, "docs/{name} is out of date: run the test with UPDATE=1");
    }
}

/// The schema accepts what the reader accepts, as far as a schema can tell.
#[test]
fn the_schema_knows_every_key_that_is_written() {
    fn check(value: &toml::Value, schema: &serde_json::Value, root: &serde_json::Value, path: &str) -> bool {
        let follow = |schema: &serde_json::Value| match schema["$ref"].as_str() {
            Some(reference) => root["$defs"][reference.trim_start_matches("#/$defs/")].clone(),
            None => schema.clone(),
        };
        let schema = follow(schema);
        for any in ["anyOf", "oneOf"] {
            if let Some(options) = schema[any].as_array() {
                return options.iter().any(|option| check(value, option, root, path));
            }
        }
        if let Some(constant) = schema.get("const") {
            return serde_json::to_value(value).unwrap() == *constant;
        }
        let types = match &schema["type"] {
            serde_json::Value::Array(types) => types.iter().filter_map(|t| t.as_str()).collect(),
            other => vec![other.as_str().unwrap_or("")],
        };
        match value {
            toml::Value::Table(table) => {
                types.contains(&"object")
                    && table.iter().all(|(name, inner)| {
                        let known = schema["properties"]
                            .get(name)
                            .or_else(|| schema.get("additionalProperties").filter(|other| other.is_object()));
                        known.is_some_and(|known| check(inner, known, root, &format!("{path}.{name}")))
                    })
            }
            toml::Value::Array(values) => {
                types.contains(&"array")
                    && values.iter().all(|inner| check(inner, &schema["items"], root, path))
            }
            toml::Value::String(_) => types.contains(&"string"),
            toml::Value::Integer(_) => types.contains(&"integer"),
            toml::Value::Boolean(_) => types.contains(&"boolean"),
            _ => false,
        }
    }
    let schema = schema::json_schema(&keys::ROOT);
    let value: toml::Value = toml::from_str::<toml::Table>(EVERYTHING).unwrap().into();
    for (name, inner) in value.as_table().unwrap() {
        assert!(check(inner, &schema["properties"][name], &schema, name), "{name}");
    }
    assert!(!check(&toml::Value::Boolean(true), &schema["properties"]["workers"], &schema, ""));
}

/// Sections of other files stand behind those of the main one; their mistakes are shown where they are made.
#[test]
fn included_files() {
    let place = Place::new("include");
    let write = |name: &str, text: &str| {
        let path = place.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("sites/www/index.html", "");
    write("sites/b.toml", "[[site]]\nnames = \"b.test\"\nroot = \"www\"\n");
    write("sites/a.toml", "include = \"deep/one.toml\"\n[[site]]\nnames = \"a.test\"\nroot = \"../www\"\n");
    write("sites/deep/one.toml", "[[site]]\nnames = \"deep.test\"\nroot = \"${NAME:-x}\"\n");
    write("sites/deep/value/index.html", "");
    write("sites/.hidden.toml", "not read");
    write("sites/a.toml~", "not read");
    let main = "include = \"sites/*.toml\"\n[[site]]\nroot = \"www\"\n";
    let loaded = place.load(main);
    assert!(loaded.report.is_empty(), "{}", render(&loaded));
    let names: Vec<_> = loaded.plan.sites.iter().map(|site| &*site.name).collect();
    assert_eq!(names, ["default", "a.test", "deep.test", "b.test"]);
    let printed = schema::print(&loaded.raw, &loaded.sources);
    assert!(printed.contains("# From ") && printed.contains("sites/deep/one.toml; paths are"), "{printed}");

    let all = |text: &str| {
        let loaded = place.load(text);
        let json = loaded.report.json(&loaded.sources);
        let one = |object: &serde_json::Value| {
            let file = object["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            let message = object["message"].as_str().unwrap();
            let help = object["help"].as_str().map_or(String::new(), |help| format!(" | {help}"));
            let related = &object["related"];
            let related = match related["file"].as_str() {
                Some(file) => format!(" | {}:{}", file.rsplit('/').next().unwrap(), related["line"]),
                None => String::new(),
            };
            format!("{file}:{}: {message}{help}{related}", object["line"])
        };
        let found: Vec<_> = json.as_array().unwrap().iter().map(one).collect();
        let rendered = render(&loaded);
        assert!(found.is_empty() || rendered.contains(" --> "), "{rendered}");
        found.join("\n").replace(place.0.to_str().unwrap(), "DIR")
    };
    let mut wrong = Vec::new();
    for (name, text, expected) in [
        ("none.toml", "", ""),
        (
            "bad.toml",
            "\n\n[[site]]\nnames = \"bad.test\"\nrooot = \"www\"\n",
            "bad.toml:5: unknown key `rooot` in `site` | did you mean `root`?",
        ),
        (
            "bad.toml",
            "workers = 3\n",
            "bad.toml:1: unknown key `workers` at the top | `workers` is said once for the whole server, in the main file",
        ),
        ("bad.toml", "[[site]\n", "bad.toml:1: invalid TOML: unclosed array table, expected `]`"),
        (
            "bad.toml",
            "[[site]]\nnames = \"a.test\"\nroot = \".\"\n",
            "bad.toml:2: `a.test` leads to two sites | a.toml:3",
        ),
        ("bad.toml", "include = \"*.toml\"\n", "bad.toml:1: `DIR/wrong/bad.toml` includes itself"),
        ("bad.toml", "include = \"n?ne.toml\"\n", ""),
        (
            "bad.toml",
            "include = \"not-there.toml\"\n",
            "bad.toml:1: `DIR/wrong/not-there.toml` cannot be read: No such file or directory (os error 2)",
        ),
        (
            "bad.toml",
            "include = \"not-there/*.toml\"\n",
            "bad.toml:1: `DIR/wrong/not-there` cannot be read: No such file or directory (os error 2)",
        ),
        (
            "bad.toml",
            "include = \"../sites\"\n",
            "bad.toml:1: `DIR/wrong/../sites` cannot be read: it is not a regular file",
        ),
        (
            "bad.toml",
            "include = [\"none.toml\", \"none.toml\"]\n",
            "bad.toml:1: `DIR/wrong/none.toml` is included twice | bad.toml:1",
        ),
    ] {
        write(&format!("wrong/{name}"), text);
        let found = all(&format!("include = [\"sites/*.toml\", \"wrong/{name}\"]\n"));
        if found != expected {
            wrong.push(format!("{text}{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
