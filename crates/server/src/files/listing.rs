//! Directory listings, for trees that ask for them: a page for people, and the same as JSON for programs that
//! prefer it by Accept. Bounded in entries; whatever a file is called, its name is text and never markup, and
//! cannot turn the reading direction around (faults P14, P15, P26).
//!
//! The page needs no script and loads nothing: sorting is by links, which every keyboard reaches. Reading a
//! directory can take long, so this runs beside the worker and not on it.

use super::reply::{self, Labels, Representation, Source};
use crate::response::Response;
use base64::Engine as _;
use eleven_messaging::RequestHead;
use eleven_net::file::{self, Entry, Kind, Meta, OpenError, Root, Symlinks};
use eleven_semantics::date::HttpDate;
use eleven_semantics::media_type::MediaType;
use eleven_semantics::negotiation::{self, Variant};
use eleven_semantics::range::RangeLimits;
use eleven_semantics::target::push_encoded_path;
use eleven_semantics::{Fields, Status};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::sync::OnceLock;

/// Limits and choices of listings.
#[derive(Debug, Clone)]
pub struct ListingOptions {
    /// Most entries that are read and shown; a note says where there are more. A page has some 250 octets for
    /// each.
    pub entries_max: usize,
}

impl Default for ListingOptions {
    fn default() -> Self {
        ListingOptions { entries_max: 4_000 }
    }
}

/// What the entries are sorted by. Directories come first in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Key {
    #[default]
    Name,
    Size,
    Modified,
}

/// How the entries are sorted: from the query, `sort=name|size|modified` and `order=ascending|descending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    key: Key,
    descending: bool,
}

impl Order {
    /// Reads a query; what is not understood is ignored.
    pub fn parse(query: &[u8]) -> Order {
        let mut order = Order::default();
        for pair in query.split(|&b| b == b'&') {
            match pair {
                b"sort=name" => order.key = Key::Name,
                b"sort=size" => order.key = Key::Size,
                b"sort=modified" => order.key = Key::Modified,
                b"order=ascending" => order.descending = false,
                b"order=descending" => order.descending = true,
                _ => {}
            }
        }
        order
    }
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    name: Vec<u8>,
    directory: bool,
    size: u64,
    modified: HttpDate,
}

/// The entries of a directory that may be shown.
#[derive(Debug)]
pub struct Listing {
    lines: Vec<Line>,
    truncated: bool,
}

/// Reads a directory, open at the canonical path `path` beneath `root`: what could not be asked for (dotfiles,
/// unfinished uploads, pipes, links that are refused) is not shown. Waits for the disk.
///
/// # Errors
/// If the directory cannot be read.
pub fn read(
    root: &Root,
    path: &[u8],
    directory: &File,
    order: Order,
    options: &ListingOptions,
) -> io::Result<Listing> {
    let (entries, truncated) = file::read_directory(directory, options.entries_max)?;
    let mut lines = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Some(meta) = visible(root, path, directory, &entry) {
            lines.push(Line {
                name: entry.name,
                directory: meta.kind == Kind::Directory,
                size: meta.size,
                modified: HttpDate(meta.modified_seconds),
            });
        }
    }
    lines.sort_by(|a, b| {
        let by_name = || {
            a.name.to_ascii_lowercase().cmp(&b.name.to_ascii_lowercase()).then_with(|| a.name.cmp(&b.name))
        };
        let by_key = match order.key {
            Key::Name => by_name(),
            Key::Size => a.size.cmp(&b.size).then_with(by_name),
            Key::Modified => a.modified.cmp(&b.modified).then_with(by_name),
        };
        b.directory.cmp(&a.directory).then(if order.descending { by_key.reverse() } else { by_key })
    });
    Ok(Listing { lines, truncated })
}

/// The state of an entry, if a request for it would find it.
fn visible(root: &Root, path: &[u8], directory: &File, entry: &Entry) -> Option<Meta> {
    let options = root.options();
    if (entry.name.starts_with(b".") && !options.dot_names) || file::is_temporary_name(&entry.name) {
        return None;
    }
    // Gone since it was read: not shown.
    let meta = file::look_at_entry(directory, &entry.name).ok()?;
    match meta.kind {
        Kind::File | Kind::Directory => Some(meta),
        Kind::Symlink if options.symlinks == Symlinks::Beneath => {
            match root.open(&[path, &entry.name].concat()) {
                Ok(opened) => Some(opened.meta),
                Err(OpenError::NotFound | OpenError::Refused(_) | OpenError::Io(_)) => None,
            }
        }
        Kind::Symlink | Kind::Other => None,
    }
}

/// In which form a listing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Html,
    /// For programs.
    Json,
}

impl Form {
    /// The form that a request prefers by Accept; HTML where it does not say, or accepts neither (RFC 9110
    /// §12.1).
    pub fn of(request: &Fields) -> Form {
        let forms = [Form::Html, Form::Json];
        let offered = forms.map(|form| Variant {
            media_type: MediaType::parse(form.content_type().as_bytes()),
            ..Variant::default()
        });
        negotiation::choose(request, &offered).map_or(Form::Html, |choice| forms[choice.index])
    }

    fn content_type(self) -> &'static str {
        match self {
            Form::Html => "text/html; charset=utf-8",
            Form::Json => "application/json",
        }
    }
}

/// Answers GET and HEAD with a listing that was written by [`Listing::write`].
pub fn respond(
    head: &RequestHead,
    form: Form,
    content: Vec<u8>,
    now: HttpDate,
    limits: &RangeLimits,
    random: fn() -> io::Result<[u8; 16]>,
) -> Response {
    let labels = Labels { content_type: form.content_type(), vary: Some("Accept"), ..Labels::default() };
    let Ok(representation) = Representation::of_content(&content, &labels) else {
        return Response::new(Status::INTERNAL_SERVER_ERROR);
    };
    let source = Source::Memory(content.into());
    let mut response =
        reply::respond(&head.method, &head.fields, &representation, source, now, limits, random);
    if form == Form::Html && matches!(response.status, Status::OK | Status::PARTIAL_CONTENT) {
        response.add("Content-Security-Policy", content_security_policy());
    }
    response
}

const STYLE: &str = include_str!("listing.css");

/// Nothing may run or be loaded but the one style sheet that is in the page.
fn content_security_policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
        format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    })
}

/// The members of the JSON form.
#[derive(Serialize)]
struct JsonListing<'a> {
    path: String,
    truncated: bool,
    entries: Vec<JsonEntry<'a>>,
}

#[derive(Serialize)]
struct JsonEntry<'a> {
    /// Octets that are no UTF-8 are replaced; `href` is exact.
    name: std::borrow::Cow<'a, str>,
    href: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    modified: String,
}

impl Listing {
    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// No line at all.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The listing as it is sent. `shown` is the canonical path of the directory on the site.
    pub fn write(&self, form: Form, shown: &[u8], order: Order) -> Vec<u8> {
        match form {
            Form::Html => self.html(shown, order),
            Form::Json => self.json(shown),
        }
    }

    fn json(&self, shown: &[u8]) -> Vec<u8> {
        let entries = self.lines.iter().map(|line| JsonEntry {
            name: String::from_utf8_lossy(&line.name),
            href: line.href(),
            kind: if line.directory { "directory" } else { "file" },
            size: (!line.directory).then_some(line.size),
            modified: iso(line.modified, "T", ":", "Z"),
        });
        let listing = JsonListing {
            path: String::from_utf8_lossy(shown).into_owned(),
            truncated: self.truncated,
            entries: entries.collect(),
        };
        let mut out = serde_json::to_vec(&listing).unwrap_or_default();
        out.push(b'\n');
        out
    }

    fn html(&self, shown: &[u8], order: Order) -> Vec<u8> {
        let mut page = String::with_capacity(4096 + self.lines.len() * 256);
        let title = visible_text(shown);
        page.push_str(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Index of ",
        );
        push_escaped(&mut page, &title);
        page.push_str(
            "</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>",
        );
        page.push_str(STYLE);
        page.push_str("</style>\n</head>\n<body>\n<main>\n<h1>Index of ");
        push_breadcrumbs(&mut page, shown);
        page.push_str("</h1>\n<table>\n<thead>\n<tr>");
        for (key, name, parameter, class) in [
            (Key::Name, "Name", "name", ""),
            (Key::Size, "Size", "size", " class=\"n\""),
            (Key::Modified, "Modified", "modified", " class=\"n\""),
        ] {
            push_heading(&mut page, order, key, name, parameter, class);
        }
        page.push_str("</tr>\n</thead>\n<tbody>\n");
        if shown != b"/" {
            page.push_str("<tr class=\"d\"><td><a href=\"../\">../</a></td><td class=\"n\"></td><td class=\"n\"></td></tr>\n");
        }
        for line in &self.lines {
            line.push_row(&mut page);
        }
        page.push_str("</tbody>\n</table>\n");
        if self.truncated {
            let _ = writeln!(page, "<p>Only the first {} entries are shown.</p>", self.lines.len());
        } else if self.lines.is_empty() {
            page.push_str("<p>This directory is empty.</p>\n");
        }
        page.push_str("</main>\n</body>\n</html>\n");
        page.into_bytes()
    }
}

/// The path with each directory of it as a link.
fn push_breadcrumbs(page: &mut String, shown: &[u8]) {
    page.push_str("<a href=\"/\">/</a>");
    let mut href = vec![b'/'];
    for segment in shown.split(|&b| b == b'/').filter(|segment| !segment.is_empty()) {
        push_encoded_path(&mut href, segment);
        href.push(b'/');
        page.push_str("<a href=\"");
        push_escaped(page, &String::from_utf8_lossy(&href));
        page.push_str("\">");
        push_escaped(page, &visible_text(segment));
        page.push_str("/</a>");
    }
}

/// A column head that sorts by it, or turns the order around.
fn push_heading(page: &mut String, order: Order, key: Key, name: &str, parameter: &str, class: &str) {
    let current = order.key == key;
    let descending = current && !order.descending;
    let (aria, mark) = match (current, order.descending) {
        (true, false) => (" aria-sort=\"ascending\"", " \u{25b2}"),
        (true, true) => (" aria-sort=\"descending\"", " \u{25bc}"),
        (false, _) => ("", ""),
    };
    let direction = if descending { "descending" } else { "ascending" };
    let _ = write!(
        page,
        "<th scope=\"col\"{class}{aria}><a href=\"?sort={parameter}&amp;order={direction}\">{name}<span aria-hidden=\"true\">{mark}</span></a></th>"
    );
}

impl Line {
    /// Relative to the directory. The leading `./` keeps a name with a colon from being a scheme.
    fn href(&self) -> String {
        let mut href = b"./".to_vec();
        push_encoded_path(&mut href, &self.name);
        if self.directory {
            href.push(b'/');
        }
        String::from_utf8_lossy(&href).into_owned()
    }

    fn push_row(&self, page: &mut String) {
        page.push_str(if self.directory { "<tr class=\"d\"><td><a href=\"" } else { "<tr><td><a href=\"" });
        push_escaped(page, &self.href());
        page.push_str("\"><bdi>");
        push_escaped(page, &visible_text(&self.name));
        page.push_str(if self.directory { "/</bdi></a></td>" } else { "</bdi></a></td>" });
        if self.directory {
            page.push_str("<td class=\"n\"></td>");
        } else {
            let _ = write!(page, "<td class=\"n\" title=\"{} bytes\">{}</td>", self.size, human(self.size));
        }
        let _ = writeln!(
            page,
            "<td class=\"n\"><time datetime=\"{}\">{}</time></td></tr>",
            iso(self.modified, "T", ":", "Z"),
            iso(self.modified, " ", ":", "").get(..16).unwrap_or_default(),
        );
    }
}

/// `2026-11-24T20:40:00Z`, with the separators given.
fn iso(date: HttpDate, between: &str, colon: &str, end: &str) -> String {
    let (year, month, day, hour, minute, second) = date.civil();
    format!("{year:04}-{month:02}-{day:02}{between}{hour:02}{colon}{minute:02}{colon}{second:02}{end}")
}

/// A size in the unit that leaves one to three digits before the point.
fn human(size: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if size < 1024 {
        return format!("{size} B");
    }
    let power = (size.ilog2() / 10) as usize;
    let tenths = u128::from(size) * 10 / (1u128 << (10 * power));
    if tenths >= 1000 {
        format!("{} {}", tenths / 10, UNITS[power - 1])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power - 1])
    }
}

/// A name as text that cannot do anything: octets that are no UTF-8, control characters, and those that turn
/// the reading direction around or hide what is beside them become U+FFFD (fault P26).
fn visible_text(name: &[u8]) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{fff9}'..='\u{fffb}')
    };
    String::from_utf8_lossy(name)
        .chars()
        .map(|c| if harmful(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// Text as HTML, in content and in quoted attributes (fault P14).
fn push_escaped(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            c => page.push(c),
        }
    }
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
