//! The guide, and the page on moving here, are run: each configuration in them is checked, started where commands follow, and each command must say
//! what the guide shows, line by line and in that order.

mod support;

use std::io::{Read, Write};
use std::process::Command;
use support::{Folder, Server};

enum Block {
    Config { text: String, broken: bool },
    Console(String),
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let text: String =
            lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        match kind {
            "toml" | "toml broken" => blocks.push(Block::Config { text, broken: kind != "toml" }),
            "console" => blocks.push(Block::Console(text)),
            _ => {}
        }
    }
    blocks
}

fn folder() -> Folder {
    let folder = Folder::new();
    for (name, content) in [
        ("www/index.html", "<h1>Welcome</h1>\n"),
        ("www/style.css", "h1 { color: teal }\n"),
        ("www/hello.html.en", "<h1>Hello</h1>\n"),
        ("www/hello.html.de", "<h1>Hallo</h1>\n"),
        ("www/long.txt", &"All work and no play makes Jack a dull boy.\n".repeat(100)),
        ("docs/index.html", "<h1>Docs</h1>\n"),
        ("files/here.txt", "x\n"),
        ("note.txt", "A note.\n"),
        ("sites/docs.toml", "[[site]]\nnames = [\"docs.example.org\"]\nroot = \"../docs\"\n"),
        ("www/404.html", "<h1>Not here</h1>\n"),
        ("www/prices.html", "<h1>Prices</h1>\n"),
        ("www/app/index.html", "<h1>App</h1>\n"),
        ("www/backup/site.sql", "secret"),
        ("www/members/index.html", "<h1>Members</h1>\n"),
        ("moved.txt", "/old-prices     /prices\n/jobs/developer /careers/developer\n"),
        ("404.jinja", "<h1>{{ status }} {{ phrase }}</h1>\n"),
        ("users", "ann:$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/\n"),
    ] {
        folder.write(name, content);
    }
    folder
}

/// What `eleven …` writes in the folder.
fn eleven(folder: &Folder, arguments: &str) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_eleven"))
        .args(arguments.split(' '))
        .current_dir(folder.path())
        .output()
        .expect("the binary can be started");
    String::from_utf8([out.stdout, out.stderr].concat()).expect("text")
}

/// Words of a command line: separated by spaces, which quotes keep together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is always one").push(c),
        }
    }
    words
}

/// What curl would write for these arguments: as much of curl as the guide uses, so that the test needs no curl.
fn curl(folder: &Folder, line: &str, server: &Server) -> String {
    let (mut method, mut fields, mut urls) = ("GET".to_owned(), String::new(), Vec::new());
    let (mut head, mut content) = (false, Vec::new());
    let mut words = words(line).into_iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("the option has a value");
        match &*word {
            "-s" => {}
            "-si" => head = true,
            "-sI" => (head, method) = (true, "HEAD".into()),
            "-X" => method = value(),
            "-H" => fields.push_str(&format!("{}\r\n", value())),
            "-u" => {
                let pair = value();
                let (user, password) = pair.split_once(':').expect("user:password");
                let credentials = eleven_semantics::auth::basic::encode(user.as_bytes(), password.as_bytes());
                let credentials = String::from_utf8(credentials.expect("plain names")).expect("ASCII");
                fields.push_str(&format!("Authorization: {credentials}\r\n"));
            }
            "-T" => {
                method = "PUT".into();
                content = std::fs::read(folder.path().join(value())).expect("a file of the guide");
                fields.push_str(&format!("Content-Length: {}\r\n", content.len()));
            }
            option if option.starts_with('-') => panic!("the test does not know curl's {option}"),
            url => urls.push(url.to_owned()),
        }
    }
    if !fields.contains("Host: ") {
        fields.push_str("Host: 127.0.0.1:8080\r\n");
    }
    if !fields.contains("Accept: ") {
        fields.push_str("Accept: */*\r\n");
    }
    let mut said = String::new();
    for url in urls {
        let target = url.strip_prefix("http://127.0.0.1:8080").expect("the guide asks its own server");
        let mut stream = server.connect();
        let request = format!("{method} {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the request can be sent");
        stream.write_all(&content).expect("the content can be sent");
        let mut wire = String::new();
        stream.read_to_string(&mut wire).expect("a response");
        let (response_head, body) = wire.split_once("\r\n\r\n").expect("a head");
        if head {
            said.push_str(&response_head.replace('\r', ""));
            said.push_str("\n\n");
        }
        said.push_str(body);
    }
    said
}

#[test]
fn every_snippet_of_the_guide_does_what_it_says() {
    let (configs, commands) = run(include_str!("../../../docs/guide.md"));
    assert!(configs >= 9 && commands >= 20, "{configs} configurations, {commands} commands");
}

#[test]
fn moving_here_works_as_shown() {
    let (configs, commands) = run(include_str!("../../../docs/migrating.md"));
    assert!(configs >= 1 && commands >= 14, "{configs} configurations, {commands} commands");
}

#[test]
fn the_configurations_about_caching_are_valid() {
    assert_eq!(run(include_str!("../../../docs/caching.md")), (1, 0));
}

/// Runs a page; how many configurations and commands there were.
fn run(page: &str) -> (usize, usize) {
    let folder = folder();
    let mut config = String::new();
    let (mut configs, mut commands) = (0, 0);
    for block in blocks(page) {
        match block {
            Block::Config { text, broken } => {
                folder.write("eleven.toml", &text);
                let checked = eleven(&folder, "check eleven.toml");
                assert_eq!(checked.contains("ok, "), !broken, "{text}\n{checked}");
                config = text;
                configs += 1;
            }
            Block::Console(text) => {
                // The listener of the guide may be in use here.
                let own = config.replace("[[listener]]\naddress = \"127.0.0.1:8080\"\n", "");
                let server = text.contains("$ curl").then(|| Server::configured(&folder, &own));
                for (number, part) in text.split("$ ").skip(1).enumerate() {
                    let (command, expected) = part.split_once('\n').expect("a command is a line");
                    if command.starts_with("eleven ") {
                        folder.write("eleven.toml", &config);
                    }
                    let said = match (command.strip_prefix("curl "), &server) {
                        (Some(arguments), Some(server)) => curl(&folder, arguments, server),
                        _ => eleven(&folder, command.strip_prefix("eleven ").expect("curl or eleven")),
                    };
                    let mut rest = &said[..];
                    for line in expected.lines() {
                        // Fields may come in any order; everything else comes in the one shown.
                        let found =
                            rest.find(line).or_else(|| said.find(line).filter(|_| line.contains(": ")));
                        let Some(at) = found else {
                            panic!("command {number}: {command}\nthe guide says: {line}\nit said:\n{said}");
                        };
                        rest = if said[at..].len() <= rest.len() { &said[at..] } else { rest };
                    }
                    commands += 1;
                }
            }
        }
    }
    (configs, commands)
}
