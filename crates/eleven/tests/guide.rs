//! The guide is run: each configuration in it is checked, started where commands follow, and each command must say
//! what the guide shows, line by line and in that order.

mod support;

use std::process::Command;
use support::{Folder, Server};

enum Block {
    Config { text: String, broken: bool },
    Console(String),
}

fn blocks() -> Vec<Block> {
    let guide = include_str!("../../../docs/guide.md");
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
        ("404.jinja", "<h1>{{ status }} {{ phrase }}</h1>\n"),
        ("users", "ann:$apr1$saltsalt$yAAkm4libquA.ZWLHbSBq/\n"),
    ] {
        folder.write(name, content);
    }
    folder
}

/// Runs one command in the folder; what it writes, its fields in any case, without CR.
fn run(folder: &Folder, command: &str, server: Option<&Server>) -> String {
    let eleven = env!("CARGO_BIN_EXE_eleven");
    let mut command = match command.strip_prefix("eleven ") {
        Some(rest) => format!("{eleven} {rest} 2>&1"),
        None => command.to_owned(),
    };
    if let Some(server) = server {
        command = command.replace("127.0.0.1:8080", &server.address.to_string());
    }
    let out = Command::new("sh")
        .arg("-c")
        .arg(&command)
        .current_dir(folder.path())
        .output()
        .expect("sh can be run");
    String::from_utf8(out.stdout).expect("text").replace('\r', "")
}

#[test]
fn every_snippet_of_the_guide_does_what_it_says() {
    let folder = folder();
    let mut config = String::new();
    let (mut configs, mut commands) = (0, 0);
    for block in blocks() {
        match block {
            Block::Config { text, broken } => {
                folder.write("eleven.toml", &text);
                let checked = run(&folder, "eleven check eleven.toml", None);
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
                    let said = run(&folder, command, server.as_ref());
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
    assert!(configs >= 9 && commands >= 20, "{configs} configurations, {commands} commands");
}
