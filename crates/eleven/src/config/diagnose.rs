//! Mistakes in a configuration: where, what, why, and what was probably meant. Collected, so that all are shown at once;
//! rendered for people (the line, underlined) or for machines (JSON).

use super::raw::{Span, shift};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is accepted, but probably not meant so.
    Warning,
}

/// One mistake.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where, in octets of the text.
    pub span: Span,
    /// What is wrong, and why.
    pub message: String,
    /// What was probably meant, or what to do.
    pub help: Option<String>,
    /// Another place that has to do with it.
    pub related: Option<(Span, String)>,
}

impl Diagnostic {
    /// An error.
    pub fn error(span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Error, span, message: message.into(), help: None, related: None }
    }

    /// A warning.
    pub fn warning(span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(span, message) }
    }

    /// Adds what was probably meant.
    pub fn help(&mut self, help: String) -> &mut Diagnostic {
        self.help = Some(help);
        self
    }

    /// Adds another place.
    pub fn related(&mut self, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.related = Some((span, message.into()));
        self
    }
}

/// The texts of a configuration, one behind the other: its own and those of the files it includes. A place in any
/// of them is one span.
#[derive(Debug)]
pub struct Sources(Vec<Source>);

#[derive(Debug)]
struct Source {
    path: PathBuf,
    text: String,
    start: usize,
}

impl Sources {
    /// Those of a configuration that includes nothing yet.
    pub fn new(path: &Path, text: &str) -> Sources {
        Sources(vec![Source { path: path.into(), text: text.into(), start: 0 }])
    }

    /// Adds a text; where it starts.
    pub fn add(&mut self, path: &Path, text: String) -> usize {
        let start = self.len() + 1;
        self.0.push(Source { path: path.into(), text, start });
        start
    }

    /// Octets of all texts.
    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |last| last.start + last.text.len())
    }

    /// The path of the configuration itself.
    pub fn main(&self) -> &Path {
        &self.0[0].path
    }

    /// The directory of the file that a place is in.
    pub fn directory(&self, span: &Span) -> &Path {
        let parent = self.of(span).path.parent();
        parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The path of the file that a place is in, if it is an included one.
    pub fn included_from(&self, span: &Span) -> Option<String> {
        let source = self.of(span);
        (source.start > 0).then(|| printable(&source.shown()))
    }

    fn of(&self, span: &Span) -> &Source {
        let after = self.0.partition_point(|source| source.start <= span.start);
        &self.0[after.max(1) - 1]
    }

    /// A place within its own text.
    fn local(&self, span: &Span) -> (&Source, Span) {
        let source = self.of(span);
        (source, span.start - source.start..span.end.max(span.start) - source.start)
    }
}

impl Source {
    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// All mistakes of one configuration.
#[derive(Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
}

/// Mistakes shown of one file; a file that is not a configuration at all would fill the screen.
const SHOWN_MAX: usize = 100;

/// Octets of a line shown before it is cut: beyond, somebody has written a whole file on one line.
const SHOWN_LINE_BYTES_MAX: usize = 400;

impl Report {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        self.diagnostics.push(diagnostic);
        self.diagnostics.last_mut().expect("one was just added")
    }

    /// Nothing to say.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The configuration must be refused.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// How many there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    /// All, by their place in the file, each once.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<_> = self.diagnostics.iter().collect();
        all.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.span.end));
        all.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        all
    }

    /// Takes over what is wrong with a text that stands at `start`.
    pub fn add(&mut self, other: Report, start: usize) {
        self.diagnostics.extend(other.diagnostics.into_iter().map(|mut diagnostic| {
            shift(&mut diagnostic.span, start);
            if let Some((span, _)) = &mut diagnostic.related {
                shift(span, start);
            }
            diagnostic
        }));
    }

    /// For people: the line, underlined, with the reason and the likely fix.
    pub fn render(&self, sources: &Sources, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        let all = self.sorted();
        for diagnostic in all.iter().take(SHOWN_MAX) {
            out.push_str(&render_one(diagnostic, sources, &renderer));
            out.push_str("\n\n");
        }
        if all.len() > SHOWN_MAX {
            out.push_str(&format!("… and {} more\n\n", all.len() - SHOWN_MAX));
        }
        let path = sources.0[0].shown();
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match (errors, warnings) {
            (0, 0) => {}
            (0, w) => out.push_str(&format!("{path}: {}\n", plural(w, "warning"))),
            (e, 0) => out.push_str(&format!("{path}: {}\n", plural(e, "error"))),
            (e, w) => out.push_str(&format!("{path}: {}, {}\n", plural(e, "error"), plural(w, "warning"))),
        }
        out
    }

    /// For machines: a list, one object for each.
    pub fn json(&self, sources: &Sources) -> Json {
        let place = |span: &Span| {
            let (source, span) = sources.local(span);
            let text = &source.text;
            let span = clip(&span, text);
            let ((line, column), (end_line, end_column)) =
                (position(text, span.start), position(text, span.end));
            json!({
                "file": source.shown(),
                "line": line, "column": column, "end_line": end_line, "end_column": end_column,
            })
        };
        let all = self.sorted().into_iter().map(|diagnostic| {
            let mut object = place(&diagnostic.span);
            object["severity"] = json!(match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            });
            object["message"] = json!(diagnostic.message);
            if let Some(help) = &diagnostic.help {
                object["help"] = json!(help);
            }
            if let Some((span, message)) = &diagnostic.related {
                let mut related = place(span);
                related["message"] = json!(message);
                object["related"] = related;
            }
            object
        });
        Json::Array(all.collect())
    }
}

/// A span within the text, on character boundaries, of its first line only: a section's covers many.
fn clip(span: &Span, text: &str) -> Span {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    let line_end = text[start..].find('\n').map_or(text.len(), |n| start + n);
    let end = floor(span.end).clamp(start, line_end.max(start));
    // Something must be underlined.
    if end == start {
        let next = text[start..].chars().next().filter(|&c| c != '\n' && c != '\r').map_or(0, char::len_utf8);
        return start..start + next;
    }
    start..end
}

/// Line and column, from 1; columns count characters.
pub fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn render_one(diagnostic: &Diagnostic, sources: &Sources, renderer: &Renderer) -> String {
    let (source, span) = sources.local(&diagnostic.span);
    let (path, text) = (&*source.shown(), &*source.text);
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let span = clip(&span, text);
    let line_start = text[..span.start].rfind('\n').map_or(0, |n| n + 1);
    let line_end = text[span.start..].find('\n').map_or(text.len(), |n| span.start + n);
    let message = printable(&diagnostic.message);
    let help = diagnostic.help.as_deref().map(printable);
    if line_end - line_start > SHOWN_LINE_BYTES_MAX {
        let (line, column) = position(text, span.start);
        let title = format!("{message}\n  --> {path}:{line}:{column}");
        let mut groups = vec![Group::with_title(level.primary_title(title))];
        groups.extend(help.as_deref().map(|help| Group::with_title(Level::HELP.secondary_title(help))));
        return renderer.render(&groups);
    }
    let mut snippet =
        Snippet::source(text).path(path).fold(true).annotation(AnnotationKind::Primary.span(span));
    let mut elsewhere = None;
    if let Some((span, label)) = &diagnostic.related {
        let (other, span) = sources.local(span);
        if std::ptr::eq(other, source) {
            snippet = snippet.annotation(AnnotationKind::Context.span(clip(&span, text)).label(label));
        } else {
            let (line, column) = position(&other.text, span.start);
            elsewhere = Some(format!("{label}: {}:{line}:{column}", other.shown()));
        }
    }
    let mut group = level.primary_title(&message).element(snippet);
    if let Some(elsewhere) = &elsewhere {
        group = group.element(Level::NOTE.message(elsewhere));
    }
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(help));
    }
    renderer.render(&[group])
}

/// What is quoted from the file may hold anything: controls must not reach a terminal (fault L02).
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The candidate that is nearest to what was written, if one is near enough to have been meant.
pub fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let written = normal(written);
    if written.len() > 64 {
        return None;
    }
    let limit = (written.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| {
            let other = normal(candidate);
            // A plural or a missing end is nearer than its distance says.
            let affix = written.len() >= 4
                && other.len() >= 4
                && (other.starts_with(&written) || written.starts_with(&other));
            (if affix { 1 } else { distance(&written, &other) }, candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many insertions, deletions, replacements and swaps of neighbours lie between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
