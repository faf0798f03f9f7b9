//! What a table of keys is made of, and what is derived from the tables: the JSON Schema for editors, the reference for
//! people, and the file of all defaults. The tables themselves are in [`super::keys`]; there is no second list.

use super::diagnose::Sources;
use super::raw::{Data, Table, Value};
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;
use toml::de::DeValue;

/// A section of the configuration.
pub struct Section {
    /// Its full name, such as `site.route.files`; empty for the top of the file.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Its own keys.
    pub own: &'static [Key],
    /// Keys that it shares with other sections.
    pub shared: &'static [Key],
}

/// A key of a section.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds if it is not written.
    pub default: Default,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
}

/// What holds if a key is not written.
pub enum Default {
    /// It must be written.
    Required,
    /// Nothing; in words, what that means.
    Absent(&'static str),
    /// This, as TOML.
    Is(&'static str),
}

/// What a key takes.
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer { min: u64, max: u64 },
    /// Octets: a number, or a text with a unit.
    Bytes { min: u64, max: u64 },
    /// A time: a text with a unit.
    Millis { min: u64, max: u64 },
    /// A text; in words, of what form.
    Text(&'static str),
    /// A text, or a number that stands for one; in words, of what form.
    Code(&'static str),
    /// A text that is not shown; may stand in a file of its own.
    Secret,
    /// One of these.
    Choice(&'static [(&'static str, &'static str)]),
    /// Several, or one without brackets.
    List(&'static Kind),
    /// Free names with values.
    Map(&'static Kind),
    /// A table.
    Section(&'static Section),
    /// Any number of tables.
    Sections(&'static Section),
}

impl std::fmt::Debug for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Section({:?})", self.name)
    }
}

impl Section {
    /// All keys, own ones first.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + Clone + use<> {
        self.own.iter().chain(self.shared)
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys().find(|key| key.name == name)
    }
}

impl Kind {
    /// What it takes, in words.
    pub fn describe(&self) -> String {
        match self {
            Kind::Bool => "`true` or `false`".into(),
            Kind::Integer { .. } => "a whole number".into(),
            Kind::Bytes { .. } => "a size such as `\"10MiB\"`".into(),
            Kind::Millis { .. } => "a time such as `\"30s\"`".into(),
            Kind::Text(form) | Kind::Code(form) => (*form).into(),
            Kind::Secret => "a text or `{ file = \"PATH\" }`".into(),
            Kind::Choice(choices) => {
                choices.iter().map(|(c, _)| format!("`\"{c}\"`")).collect::<Vec<_>>().join(" or ")
            }
            Kind::List(inner) => format!("a list, each {}", inner.describe()),
            Kind::Map(inner) => format!("a table of names, each with {}", inner.describe()),
            Kind::Section(_) => "a table".into(),
            Kind::Sections(_) => "a list of tables".into(),
        }
    }

    /// Something that could stand there.
    pub fn example(&self) -> String {
        match self {
            Kind::Bool => "true".into(),
            Kind::Integer { min, .. } => min.to_string(),
            Kind::Bytes { .. } => "\"1MiB\"".into(),
            Kind::Millis { .. } => "\"30s\"".into(),
            Kind::Choice(choices) => format!("\"{}\"", choices[0].0),
            Kind::Text(_) | Kind::Code(_) | Kind::Secret => "\"…\"".into(),
            Kind::List(inner) => format!("[{}]", inner.example()),
            Kind::Map(inner) => format!("{{ \"…\" = {} }}", inner.example()),
            Kind::Section(_) => "{ … }".into(),
            Kind::Sections(_) => "[{ … }]".into(),
        }
    }

    /// Whether a value has the TOML type that this kind starts from.
    pub fn takes(&self, value: &DeValue<'_>) -> bool {
        match self {
            Kind::Bool => matches!(value, DeValue::Boolean(_)),
            Kind::Integer { .. } => matches!(value, DeValue::Integer(_)),
            Kind::Bytes { .. } | Kind::Millis { .. } | Kind::Code(_) => {
                matches!(value, DeValue::Integer(_) | DeValue::String(_))
            }

            Kind::Text(_) | Kind::Choice(_) => matches!(value, DeValue::String(_)),
            Kind::Secret => matches!(value, DeValue::String(_) | DeValue::Table(_)),
            Kind::List(_) | Kind::Sections(_) => matches!(value, DeValue::Array(_)),
            Kind::Map(_) | Kind::Section(_) => matches!(value, DeValue::Table(_)),
        }
    }

    /// What a value of a wrong type was probably meant to be.
    pub fn repair(&self, value: &DeValue<'_>) -> Option<String> {
        if let Kind::List(inner) = self {
            return inner.repair(value);
        }
        if let (Kind::Section(section), value) = (self, value) {
            // `proxy = "http://…"`: the one thing that must be said was said.
            let mut required = section.keys().filter(|key| matches!(key.default, Default::Required));
            let (Some(only), None) = (required.next(), required.next()) else { return None };
            return match value {
                DeValue::String(text) if only.kind.takes(value) => {
                    Some(format!("write `{{ {} = {} }}`", only.name, quoted(text)))
                }
                _ => None,
            };
        }
        let repaired = match (self, value) {
            (Kind::Bool, DeValue::String(text)) => match &*text.to_ascii_lowercase() {
                "true" | "yes" | "on" | "1" => "true".into(),
                "false" | "no" | "off" | "0" => "false".into(),
                _ => return None,
            },
            (Kind::Bool, DeValue::Integer(n)) if matches!(n.as_str(), "0" | "1") => {
                (n.as_str() == "1").to_string()
            }
            (Kind::Integer { .. }, DeValue::String(text)) if text.parse::<u64>().is_ok() => text.to_string(),
            // The port of an address.
            (Kind::Text(what), DeValue::Integer(n)) if what.starts_with("`\"host:port\"") => {
                format!("\":{}\"", n.as_str())
            }
            (Kind::Text(_) | Kind::Choice(_) | Kind::Secret, DeValue::Integer(n)) => {
                format!("\"{}\"", n.as_str())
            }
            (Kind::Text(_) | Kind::Choice(_), DeValue::Boolean(flag)) => format!("\"{flag}\""),
            _ => return None,
        };
        Some(format!("write `{repaired}`"))
    }
}

/// Octets from text: digits, then nothing, `B`, `KiB`, `MiB`, `GiB` or `TiB` (also `K`, `M`, `G`, `T`).
pub fn read_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Octets in the largest unit that leaves no rest.
pub fn show_bytes(n: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if n > 0 && n.is_multiple_of(1 << shift) {
            return format!("{}{unit}", n >> shift);
        }
    }
    n.to_string()
}

/// Milliseconds from text: digits, then `ms`, `s`, `m`, `h` or `d`.
pub fn read_millis(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Milliseconds in the largest unit that leaves no rest.
pub fn show_millis(n: u64) -> String {
    for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if n > 0 && n.is_multiple_of(factor) {
            return format!("{}{unit}", n / factor);
        }
    }
    format!("{n}ms")
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = eleven_semantics::grammar::decimal(&text.as_bytes()[..end])?;
    Some((number, text[end..].trim_start()))
}

/// A JSON Schema (2020-12) for editors.
pub fn json_schema(root: &'static Section) -> Json {
    let mut definitions = Map::new();
    let mut schema = section_schema(root, &mut definitions);
    let object = schema.as_object_mut().expect("a section's schema is an object");
    object.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    object.insert("title".into(), json!("Configuration of eleven"));
    object.insert("$defs".into(), Json::Object(definitions));
    schema
}

fn section_schema(section: &'static Section, definitions: &mut Map<String, Json>) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in section.keys() {
        let mut schema = kind_schema(&key.kind, definitions);
        let object = schema.as_object_mut().expect("every schema is an object");
        object.insert("description".into(), json!(plain(key.doc)));
        match &key.default {
            Default::Required => required.push(key.name),
            Default::Absent(_) => {}
            Default::Is(text) => {
                if let Ok(value) = toml::from_str::<toml::Table>(&format!("v = {text}")) {
                    let value = value.get("v").and_then(|value| serde_json::to_value(value).ok());
                    object.insert("default".into(), value.unwrap_or(Json::Null));
                }
            }
        }
        properties.insert(key.name.into(), schema);
    }
    let mut schema = json!({
        "type": "object",
        "description": plain(section.doc),
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// A text of the tables as an editor shows it.
fn plain(doc: &str) -> String {
    doc.replace('`', "'")
}

fn kind_schema(kind: &'static Kind, definitions: &mut Map<String, Json>) -> Json {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Bytes { .. } => json!({
            "type": ["integer", "string"], "minimum": 0, "pattern": "^(\\$\\{.*|[0-9]+ ?(B|[KMGT](iB)?)?)$",
        }),
        Kind::Millis { .. } => {
            json!({ "type": "string", "pattern": "^(\\$\\{.*|[0-9]+ ?(ms|s|m|min|h|d))$" })
        }
        Kind::Text(_) => json!({ "type": "string" }),
        Kind::Code(_) => json!({ "type": ["string", "integer"] }),
        Kind::Secret => json!({ "oneOf": [
            { "type": "string" },
            { "type": "object", "properties": { "file": { "type": "string" } }, "required": ["file"], "additionalProperties": false },
        ] }),
        Kind::Choice(choices) => {
            let choices: Vec<_> = choices
                .iter()
                .map(|(choice, doc)| json!({ "const": choice, "description": plain(doc) }))
                .collect();
            json!({ "oneOf": choices })
        }
        Kind::List(inner) => {
            let item = kind_schema(inner, definitions);
            json!({ "anyOf": [{ "type": "array", "items": item.clone() }, item] })
        }
        Kind::Map(inner) => {
            json!({ "type": "object", "additionalProperties": kind_schema(inner, definitions) })
        }
        Kind::Section(section) => {
            let reference = reference(section, definitions);
            if section.keys().any(|key| matches!(key.default, Default::Required)) {
                reference
            } else {
                json!({ "anyOf": [reference, { "const": true }] })
            }
        }
        Kind::Sections(section) => json!({ "type": "array", "items": reference(section, definitions) }),
    }
}

fn reference(section: &'static Section, definitions: &mut Map<String, Json>) -> Json {
    if !definitions.contains_key(section.name) {
        // Before its keys are looked at, so that a section that holds itself would end.
        definitions.insert(section.name.into(), Json::Null);
        let schema = section_schema(section, definitions);
        definitions.insert(section.name.into(), schema);
    }
    json!({ "$ref": format!("#/$defs/{}", section.name) })
}

/// Calls `visit` for every section once, parents first.
pub fn each_section(section: &'static Section, seen: &mut Vec<&'static Section>) {
    if seen.iter().any(|other| std::ptr::eq(*other, section)) {
        return;
    }
    seen.push(section);
    for key in section.keys() {
        if let Kind::Section(inner) | Kind::Sections(inner) = &key.kind {
            each_section(inner, seen);
        }
    }
}

/// The reference: every section with every key, as Markdown.
pub fn reference_page(root: &'static Section) -> String {
    let mut sections = Vec::new();
    each_section(root, &mut sections);
    let mut out = String::new();
    for section in sections {
        let title =
            if section.name.is_empty() { "Top of the file".into() } else { format!("`{}`", section.name) };
        let _ = writeln!(out, "## {title}\n\n{}\n", section.doc);
        let _ = writeln!(out, "| key | takes | default | what it does |\n|---|---|---|---|");
        for key in section.keys() {
            let default = match &key.default {
                Default::Required => "must be written".into(),
                Default::Absent(meaning) => format!("none: {meaning}"),
                Default::Is(text) => format!("`{}`", text.replace('|', "\\|")),
            };
            let mut doc = key.doc.to_owned();
            if let Kind::Choice(choices) = &key.kind {
                for (choice, meaning) in *choices {
                    let _ = write!(doc, " `{choice}`: {meaning}.");
                }
            }
            let takes = match &key.kind {
                Kind::Section(inner) => format!("table `{}`", inner.name),
                Kind::Sections(inner) => format!("tables `{}`", inner.name),
                Kind::Choice(_) => "one of the words".into(),
                kind => kind.describe(),
            };
            let _ = writeln!(out, "| `{}` | {takes} | {default} | {doc} |", key.name);
        }
        out.push('\n');
    }
    out
}

/// The configuration as a file that says everything: what was written and every default, with comments.
pub fn print(table: &Table, sources: &Sources) -> String {
    let mut out = String::new();
    print_table(table, "", sources, &mut out);
    out
}

fn print_table(table: &Table, path: &str, sources: &Sources, out: &mut String) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    // Plain keys first: after a header they would belong to it.
    for key in table.section.keys() {
        match table.get(key.name) {
            Some(Value { data: Data::Table(_), .. }) => {}
            Some(Value { data: Data::List(values), .. })
                if matches!(key.kind, Kind::Sections(_)) && !values.is_empty() => {}
            Some(value) => {
                let _ = writeln!(out, "# {}", key.doc.replace('\n', " "));
                let mut shown = String::new();
                print_value(&key.kind, value, &mut shown);
                let _ = writeln!(out, "{} = {shown}", key.name);
            }
            None => {
                let Default::Absent(meaning) = &key.default else { continue };
                let _ = writeln!(
                    out,
                    "# {}\n# {} = {}    (not set: {meaning})",
                    key.doc,
                    key.name,
                    key.kind.example()
                );
            }
        }
    }
    for (key, value) in table.values() {
        match &value.data {
            Data::Table(inner) => {
                let _ = writeln!(out, "\n# {}\n[{}]", key.doc, join(key.name));
                print_table(inner, &join(key.name), sources, out);
            }
            Data::List(values) if matches!(key.kind, Kind::Sections(_)) => {
                for value in values {
                    if let Data::Table(inner) = &value.data {
                        let _ = writeln!(out, "\n# {}", key.doc);
                        if let (true, Some(file)) = (path.is_empty(), sources.included_from(&inner.span)) {
                            let _ = writeln!(out, "# From {file}; paths are relative to its directory.");
                        }
                        let _ = writeln!(out, "[[{}]]", join(key.name));
                        print_table(inner, &join(key.name), sources, out);
                    }
                }
            }
            _ => {}
        }
    }
}

fn print_value(kind: &Kind, value: &Value, out: &mut String) {
    match (&value.data, kind) {
        (_, Kind::Secret) => out.push_str("\"<hidden>\""),
        (Data::Bool(flag), _) => out.push_str(if *flag { "true" } else { "false" }),
        (Data::Integer(n), Kind::Bytes { .. }) => out.push_str(&quoted(&show_bytes(*n))),
        (Data::Integer(n), Kind::Millis { .. }) => out.push_str(&quoted(&show_millis(*n))),
        (Data::Integer(n), _) => out.push_str(&n.to_string()),
        (Data::Text(text), _) => out.push_str(&quoted(text)),
        (Data::List(values), Kind::List(inner)) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                print_value(inner, value, out);
            }
            out.push(']');
        }
        (Data::List(_), _) => out.push_str("[]"),
        (Data::Map(entries), Kind::Map(inner)) => {
            out.push_str("{ ");
            for (i, (name, _, value)) in entries.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                out.push_str(&quoted(name));
                out.push_str(" = ");
                print_value(inner, value, out);
            }
            out.push_str(" }");
        }
        (Data::Map(_) | Data::Table(_), _) => out.push_str("{}"),
    }
}

/// A TOML text; dollars doubled, so that what is read back is the same.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace("$", "$$")).to_string()
}
