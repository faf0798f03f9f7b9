//! First pass: the text of a configuration as it is written, checked in its shape against the tables of
//! [`super::keys`], with the place of every value kept and every default filled in.
//!
//! It goes on after a mistake, so that all are reported at once; a value that was wrong is replaced by its default
//! and never reported again by the second pass. What values *mean* together is [`super::plan`]'s business.

use super::diagnose::{Diagnostic, Report, nearest};
use super::schema::{Default, Key, Kind, Section};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A place in the text, in octets.
pub type Span = Range<usize>;

/// A section as written, complete: every key of the table is here unless it may be absent and is.
#[derive(Debug, Clone)]
pub struct Table {
    /// What it was read by.
    pub section: &'static Section,
    /// Where it stands: its header, or what it stands in if it was not written.
    pub span: Span,
    /// Something in it was not understood: what seems to be missing may only be misspelt.
    pub doubtful: bool,
    values: Vec<(&'static str, Value)>,
    /// Keys that were written but are of no use.
    broken: Vec<&'static str>,
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub struct Value {
    /// Where it stands; for a default, where the section stands.
    pub span: Span,
    /// Written by the operator, not a default.
    pub written: bool,
    /// The value.
    pub data: Data,
}

/// A value of the shape its key wants.
#[derive(Debug, Clone)]
pub enum Data {
    /// Yes or no.
    Bool(bool),
    /// A count, octets, or milliseconds, by the key's kind.
    Integer(u64),
    /// Text, with variables replaced.
    Text(String),
    /// Several.
    List(Vec<Value>),
    /// Free names with their values.
    Map(Vec<(String, Span, Value)>),
    /// A section.
    Table(Table),
}

/// Where values from outside come from. The tests have their own; nothing else is read.
pub struct Surroundings<'a> {
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file that a secret is kept in.
    pub secret_file: &'a dyn Fn(&str) -> std::io::Result<String>,
}

/// Reads a document.
pub fn read(
    text: &str,
    root: &'static Section,
    surroundings: &Surroundings<'_>,
    report: &mut Report,
) -> Table {
    let (document, errors) = DeTable::parse_recoverable(text);
    let broken = !errors.is_empty();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        let message = first_line(error.message());
        let escape = message.contains("escape");
        let diagnostic = report.push(Diagnostic::error(span, format!("invalid TOML: {message}")));
        if escape {
            diagnostic.help(
                "`\\` begins an escape between double quotes; between single quotes it is itself: '\\.php$'"
                    .into(),
            );
        }
    }
    let mut reader = Reader { surroundings, report, quiet: broken };
    reader.table(document.get_ref(), document.span(), root)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

struct Reader<'a> {
    surroundings: &'a Surroundings<'a>,
    report: &'a mut Report,
    /// The text is not TOML: what is missing may only be unreadable, so say nothing of it.
    quiet: bool,
}

impl Reader<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.report.push(Diagnostic::error(span, message.into()))
    }

    fn table(&mut self, table: &DeTable<'_>, span: Span, section: &'static Section) -> Table {
        let mut values: Vec<(&'static str, Value)> = Vec::new();
        let (mut doubtful, mut broken) = (self.quiet, Vec::new());
        for (name, value) in table {
            match section.key(name.get_ref()) {
                Some(key) => {
                    if let Some(value) = self.value(value, &key.kind, key.name) {
                        values.push((key.name, value));
                    } else {
                        // Reported already: the default stands in, as if it had been written.
                        broken.push(key.name);
                        values.extend(self.default(key, &name.span(), true).map(|value| (key.name, value)));
                    }
                }
                None => {
                    doubtful = true;
                    self.unknown_key(name, section);
                }
            }
        }
        for key in section.keys() {
            if values.iter().any(|(name, _)| *name == key.name) {
                continue;
            }
            if matches!(key.default, Default::Required) && !self.quiet && !broken.contains(&key.name) {
                let what =
                    if section.name.is_empty() { "the file".into() } else { format!("`{}`", section.name) };
                self.error(span.clone(), format!("{what} needs `{}`", key.name)).help(format!(
                    "add `{} = {}`: {}",
                    key.name,
                    key.kind.example(),
                    // The rest is for the reference.
                    key.doc.split_inclusive(". ").next().unwrap_or_default().trim_end()
                ));
            }
            values.extend(self.default(key, &span, false).map(|value| (key.name, value)));
        }
        Table { section, span, doubtful, values, broken }
    }

    fn unknown_key(&mut self, name: &Spanned<std::borrow::Cow<'_, str>>, section: &'static Section) {
        let written: &str = name.get_ref();
        let place =
            if section.name.is_empty() { "at the top".into() } else { format!("in `{}`", section.name) };
        let found = super::keys::foreign_name(written)
            .filter(|known| section.key(known).is_some())
            .or_else(|| nearest(written, section.keys().map(|key| key.name)));
        let elsewhere = super::keys::sections_with(written);
        let names: Vec<_> = section.keys().map(|key| key.name).collect();
        let diagnostic = self.error(name.span(), format!("unknown key `{written}` {place}"));
        if let Some(found) = found {
            diagnostic.help(format!("did you mean `{found}`?"));
        } else if std::ptr::eq(section, &super::keys::INCLUDED) && super::keys::ROOT.key(written).is_some() {
            diagnostic.help(format!("`{written}` is said once for the whole server, in the main file"));
        } else if !elsewhere.is_empty() {
            diagnostic.help(format!("`{written}` belongs to {}", elsewhere.join(" or ")));
        } else if let Some(known) = super::keys::foreign_name(written) {
            diagnostic.help(format!("what others call `{written}` is `{known}` here"));
        } else {
            diagnostic.help(format!("known keys {place}: {}", names.join(", ")));
        }
    }

    /// The default of a key: read from the table by the same rules as what an operator writes.
    fn default(&mut self, key: &'static Key, span: &Span, written: bool) -> Option<Value> {
        let text = match (&key.default, &key.kind) {
            (Default::Is(text), _) => *text,
            (Default::Required, _) | (Default::Absent(_), _) => return None,
        };
        let value = DeValue::parse(text).unwrap_or_else(|error| panic!("default of `{}`: {error}", key.name));
        let mut report = Report::default();
        let nothing =
            Surroundings { variable: &|_| None, secret_file: &|_| Err(std::io::ErrorKind::NotFound.into()) };
        let mut reader = Reader { surroundings: &nothing, report: &mut report, quiet: self.quiet };
        let mut value = reader.value(&value, &key.kind, key.name);
        assert!(report.is_empty(), "default of `{}` is wrong: {report:?}", key.name);
        if let Some(value) = &mut value {
            value.place(span, written);
        }
        value
    }

    /// A value of this kind; `None` after reporting that it is not one.
    fn value(&mut self, value: &Spanned<DeValue<'_>>, kind: &'static Kind, name: &str) -> Option<Value> {
        let span = value.span();
        let written = |data| Some(Value { span: value.span(), written: true, data });
        match (kind, value.get_ref()) {
            (Kind::Bool, DeValue::Boolean(flag)) => written(Data::Bool(*flag)),
            (Kind::Integer { min, max }, DeValue::Integer(_)) => {
                let number = self.integer(value, name)?;
                self.within(number, *min, *max, &span, name, |n| n.to_string())
                    .map(Data::Integer)
                    .and_then(written)
            }
            (Kind::Bytes { min, max }, DeValue::Integer(_)) => {
                let number = self.integer(value, name)?;
                self.within(number, *min, *max, &span, name, super::schema::show_bytes)
                    .map(Data::Integer)
                    .and_then(written)
            }
            (Kind::Millis { .. }, DeValue::Integer(number)) => {
                self.error(span, format!("`{name}` needs a unit"))
                    .help(format!("write `\"{number}s\"` or `\"{number}ms\"`"));
                None
            }
            (Kind::Bytes { min, max }, DeValue::String(text)) => {
                let number = self.size(text, &span, name)?;
                self.within(number, *min, *max, &span, name, super::schema::show_bytes)
                    .map(Data::Integer)
                    .and_then(written)
            }
            (Kind::Millis { min, max }, DeValue::String(text)) => {
                let number = self.time(text, &span, name)?;
                self.within(number, *min, *max, &span, name, super::schema::show_millis)
                    .map(Data::Integer)
                    .and_then(written)
            }
            (Kind::Choice(choices), DeValue::String(text)) => {
                self.choice(text, choices, &span, name).map(Data::Text).and_then(written)
            }
            // A code may be written as the number that it is.
            (Kind::Choice(choices), DeValue::Integer(n))
                if choices.iter().any(|(choice, _)| *choice == n.as_str()) =>
            {
                written(Data::Text(n.as_str().to_owned()))
            }
            (Kind::Code(_), DeValue::Integer(n)) if n.radix() == 10 => {
                written(Data::Text(n.as_str().to_owned()))
            }
            (Kind::Text(_) | Kind::Code(_) | Kind::Secret, DeValue::String(text)) => {
                self.expand(text, &span).map(Data::Text).and_then(written)
            }
            (Kind::Secret, DeValue::Table(table)) => {
                self.secret(table, &span, name).map(Data::Text).and_then(written)
            }
            (Kind::List(inner), DeValue::Array(array)) => {
                let values: Vec<_> = array.iter().map(|item| self.value(item, inner, name)).collect();
                written(Data::List(values.into_iter().flatten().collect()))
            }
            // One where several may stand needs no brackets.
            (Kind::List(inner), _) if inner.takes(value.get_ref()) => {
                let one = self.value(value, inner, name)?;
                written(Data::List(vec![one]))
            }
            (Kind::Map(inner), DeValue::Table(table)) => {
                let entries: Vec<_> = table
                    .iter()
                    .filter_map(|(key, item)| {
                        let value = self.value(item, inner, key.get_ref())?;
                        Some((key.get_ref().to_string(), key.span(), value))
                    })
                    .collect();
                written(Data::Map(entries))
            }
            (Kind::Section(section), DeValue::Table(table)) => {
                written(Data::Table(self.table(table, span, section)))
            }
            // `listing = true` is `listing = {}`, where a section may be so switched on.
            (Kind::Section(section), DeValue::Boolean(true))
                if section.keys().all(|key| !matches!(key.default, Default::Required)) =>
            {
                let table = DeTable::new();
                written(Data::Table(self.table(&table, span, section)))
            }
            (Kind::Sections(section), DeValue::Array(array)) => {
                written(Data::List(self.sections(array, section, name)))
            }
            (kind, other) => {
                self.mismatch(kind, other, span, name);
                None
            }
        }
    }

    /// A size in octets, as it is written.
    fn size(&mut self, text: &str, span: &Span, name: &str) -> Option<u64> {
        let number = super::schema::read_bytes(text);
        if number.is_none() {
            self.error(span.clone(), format!("`{name}` wants a size, and `{text}` is none"))
                .help("a whole number of octets, or one with KiB, MiB or GiB: `\"10MiB\"`".into());
        }
        number
    }

    /// A time in milliseconds, as it is written.
    fn time(&mut self, text: &str, span: &Span, name: &str) -> Option<u64> {
        let number = super::schema::read_millis(text);
        if number.is_none() {
            self.error(span.clone(), format!("`{name}` wants a time, and `{text}` is none"))
                .help("a whole number with ms, s, m, h or d: `\"30s\"`".into());
        }
        number
    }

    /// One of a few words.
    fn choice(
        &mut self,
        text: &str,
        choices: &[(&'static str, &'static str)],
        span: &Span,
        name: &str,
    ) -> Option<String> {
        let text = self.expand(text, span)?;
        let names = || choices.iter().map(|(choice, _)| *choice);
        if names().any(|choice| choice == text) {
            return Some(text);
        }
        let help = match nearest(&text, names()) {
            Some(found) => format!("did you mean `\"{found}\"`?"),
            None => {
                format!("one of {}", names().map(|c| format!("`\"{c}\"`")).collect::<Vec<_>>().join(", "))
            }
        };
        self.error(span.clone(), format!("`{name}` cannot be `{text}`")).help(help);
        None
    }

    /// The tables of a list of sections; what is no table is reported and left out.
    fn sections(&mut self, array: &DeArray<'_>, section: &'static Section, name: &str) -> Vec<Value> {
        let mut tables = Vec::new();
        for item in array {
            match item.get_ref() {
                DeValue::Table(table) => tables.push(Value {
                    span: item.span(),
                    written: true,
                    data: Data::Table(self.table(table, item.span(), section)),
                }),
                other => {
                    let found = describe(other);
                    self.error(item.span(), format!("`{name}` wants tables, and this is {found}"));
                }
            }
        }
        tables
    }

    /// Reports that the value is not of the kind its key wants.
    fn mismatch(&mut self, kind: &Kind, found: &DeValue<'_>, span: Span, name: &str) {
        let help = match (kind, found) {
            (Kind::Sections(_), DeValue::Table(_)) => {
                Some(format!("write its header in double brackets: `[[{name}]]`"))
            }
            _ => kind.repair(found),
        };
        let (wants, found) = (kind.describe(), describe(found));
        let diagnostic = self.error(span, format!("`{name}` wants {wants}, and this is {found}"));
        if let Some(help) = help {
            diagnostic.help(help);
        }
    }

    fn integer(&mut self, value: &Spanned<DeValue<'_>>, name: &str) -> Option<u64> {
        let DeValue::Integer(integer) = value.get_ref() else { return None };
        let digits = integer.as_str();
        let number = u64::from_str_radix(digits.strip_prefix('+').unwrap_or(digits), integer.radix()).ok();
        if number.is_none() {
            self.error(
                value.span(),
                format!("`{name}` wants a number that is not negative and fits 64 bits"),
            );
        }
        number
    }

    fn within(
        &mut self,
        number: u64,
        min: u64,
        max: u64,
        span: &Span,
        name: &str,
        show: impl Fn(u64) -> String,
    ) -> Option<u64> {
        if (min..=max).contains(&number) {
            return Some(number);
        }
        let (message, bound) = if number < min { ("at least", min) } else { ("at most", max) };
        let (shown, bound) = (show(number), show(bound));
        self.error(span.clone(), format!("`{name}` must be {message} {bound}, not {shown}"));
        None
    }

    /// Replaces `${NAME}` and `${NAME:-default}`; `$$` is a dollar.
    fn expand(&mut self, text: &str, span: &Span) -> Option<String> {
        if !text.contains('$') {
            return Some(text.to_owned());
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(tail) = after.strip_prefix('$') {
                out.push('$');
                rest = tail;
            } else if let Some(tail) = after.strip_prefix('{') {
                let Some(close) = tail.find('}') else {
                    self.error(span.clone(), "`${` is never closed")
                        .help("write `$$` for a dollar sign".into());
                    return None;
                };
                let (name, default) = match tail[..close].split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (&tail[..close], None),
                };
                match (self.surroundings.variable)(name)
                    .filter(|v| !v.is_empty())
                    .or(default.map(str::to_owned))
                {
                    Some(value) => out.push_str(&value),
                    None => {
                        self.error(span.clone(), format!("the environment has no variable `{name}`"))
                            .help(format!("set it, or write `${{{name}:-value}}` to give a default"));
                        return None;
                    }
                }
                rest = &tail[close + 1..];
            } else {
                out.push('$');
                rest = after;
            }
        }
        out.push_str(rest);
        Some(out)
    }

    /// `{ file = "…" }`: the first line of a file, so that the secret itself does not stand in the configuration.
    fn secret(&mut self, table: &DeTable<'_>, span: &Span, name: &str) -> Option<String> {
        let [(key, value)] = table.iter().collect::<Vec<_>>()[..] else {
            self.error(span.clone(), format!("`{name}` wants a text or `{{ file = \"PATH\" }}`"));
            return None;
        };
        let DeValue::String(path) = value.get_ref() else {
            self.error(value.span(), format!("`{name}`: the path of a file is wanted here"));
            return None;
        };
        if key.get_ref() != "file" {
            self.error(key.span(), format!("unknown key `{}` in `{name}`", key.get_ref()))
                .help("did you mean `file`?".into());
            return None;
        }
        let path = self.expand(path, &value.span())?;
        match (self.surroundings.secret_file)(&path) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                self.error(value.span(), format!("the file of `{name}` cannot be read: {error}"));
                None
            }
        }
    }
}

/// What a TOML value is, in words.
pub fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl Value {
    fn place(&mut self, span: &Span, written: bool) {
        self.span = span.clone();
        self.written = written;
        match &mut self.data {
            Data::List(values) => values.iter_mut().for_each(|value| value.place(span, written)),
            Data::Map(entries) => entries.iter_mut().for_each(|(_, at, value)| {
                *at = span.clone();
                value.place(span, written);
            }),
            Data::Table(table) => {
                table.span = span.clone();
                table.values.iter_mut().for_each(|(_, value)| value.place(span, written));
            }
            Data::Bool(_) | Data::Integer(_) | Data::Text(_) => {}
        }
    }
}

impl Table {
    /// Moves every place in it: the text it was read from stands behind another.
    pub fn shift(&mut self, by: usize) {
        shift(&mut self.span, by);
        self.values.iter_mut().for_each(|(_, value)| value.shift(by));
    }

    /// Takes all values out of a list.
    pub fn empty(&mut self, name: &str) {
        if let Some((_, Value { data: Data::List(values), .. })) =
            self.values.iter_mut().find(|(key, _)| *key == name)
        {
            values.clear();
        }
    }

    /// Puts the sections of another file behind those of this one.
    pub fn append(&mut self, other: Table) {
        self.doubtful |= other.doubtful;
        for (name, value) in other.values {
            let (Some(key), true) = (self.section.key(name), value.written) else { continue };
            if !matches!(key.kind, Kind::Sections(_)) {
                continue;
            }
            match self.values.iter_mut().find(|(own, _)| *own == name) {
                Some((_, own)) => {
                    if let (Data::List(own), Data::List(more)) = (&mut own.data, value.data) {
                        own.extend(more);
                    }
                    own.written = true;
                }
                None => self.values.push((name, value)),
            }
        }
    }
}

impl Value {
    fn shift(&mut self, by: usize) {
        shift(&mut self.span, by);
        match &mut self.data {
            Data::List(values) => values.iter_mut().for_each(|value| value.shift(by)),
            Data::Map(entries) => entries.iter_mut().for_each(|(_, at, value)| {
                shift(at, by);
                value.shift(by);
            }),
            Data::Table(table) => table.shift(by),
            Data::Bool(_) | Data::Integer(_) | Data::Text(_) => {}
        }
    }
}

/// Moves a place.
pub fn shift(span: &mut Span, by: usize) {
    *span = span.start + by..span.end + by;
}

/// A text with its place.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// The text.
    pub text: &'a str,
    /// Where it stands.
    pub span: &'a Span,
}

/// Reading. A name that the section does not have is a bug in this program, found by the test that reads a configuration
/// with every key.
impl Table {
    /// The value of a key, if it has one.
    pub fn get(&self, name: &str) -> Option<&Value> {
        debug_assert!(self.section.key(name).is_some(), "`{}` has no key `{name}`", self.section.name);
        self.values.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Whether the operator wrote it.
    pub fn is_written(&self, name: &str) -> bool {
        self.broken.contains(&name) || self.get(name).is_some_and(|value| value.written)
    }

    /// Where a key's value stands.
    pub fn span_of(&self, name: &str) -> Span {
        self.get(name).map_or(self.span.clone(), |value| value.span.clone())
    }

    /// Yes or no; no if it has no value.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value { data: Data::Bool(true), .. }))
    }

    /// A number; 0 if it has no value.
    pub fn number(&self, name: &str) -> u64 {
        self.optional_number(name).unwrap_or(0)
    }

    /// A number that may be absent.
    pub fn optional_number(&self, name: &str) -> Option<u64> {
        match self.get(name)?.data {
            Data::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// A text that may be absent.
    pub fn text(&self, name: &str) -> Option<Text<'_>> {
        self.get(name)?.text()
    }

    /// All texts of a list.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = Text<'_>> {
        self.list(name).iter().filter_map(Value::text)
    }

    /// All values of a list.
    pub fn list(&self, name: &str) -> &[Value] {
        match self.get(name) {
            Some(Value { data: Data::List(values), .. }) => values,
            _ => &[],
        }
    }

    /// Names and texts of a map.
    pub fn map(&self, name: &str) -> impl Iterator<Item = (Text<'_>, &Value)> {
        let entries = match self.get(name) {
            Some(Value { data: Data::Map(entries), .. }) => &entries[..],
            _ => &[],
        };
        entries.iter().map(|(text, span, value)| (Text { text, span }, value))
    }

    /// A section that may be absent.
    pub fn section(&self, name: &str) -> Option<&Table> {
        match self.get(name) {
            Some(Value { data: Data::Table(table), .. }) => Some(table),
            _ => None,
        }
    }

    /// All sections of a list.
    pub fn sections(&self, name: &str) -> impl Iterator<Item = &Table> {
        self.list(name).iter().filter_map(|value| match &value.data {
            Data::Table(table) => Some(table),
            _ => None,
        })
    }

    /// All values with their keys, in the order of the section's table.
    pub fn values(&self) -> impl Iterator<Item = (&'static Key, &Value)> {
        self.section.keys().filter_map(|key| {
            self.values.iter().find(|(name, _)| *name == key.name).map(|(_, value)| (key, value))
        })
    }
}

impl Value {
    /// All texts of a list.
    pub fn texts(&self) -> impl Iterator<Item = Text<'_>> {
        let values = if let Data::List(values) = &self.data { &values[..] } else { &[] };
        values.iter().filter_map(Value::text)
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<u64> {
        match self.data {
            Data::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<Text<'_>> {
        match &self.data {
            Data::Text(text) => Some(Text { text, span: &self.span }),
            _ => None,
        }
    }
}
