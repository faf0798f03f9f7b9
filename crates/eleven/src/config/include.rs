//! Files that a configuration includes: found by patterns, read each once, their sections put behind those of the main
//! file. What is wrong in one is shown in that file and at that line; a pattern that leads nowhere, where it stands.
//!
//! Patterns know `*` and `?` within a segment. Files come in the order of their names, so that the result is the same
//! on every machine. Only sites, upstreams and listeners may be included: settings of the whole server have one place.

use super::diagnose::{Diagnostic, Report, Sources};
use super::raw::{self, Span, Surroundings, Table};
use super::{FILE_BYTES_MAX, keys, read_limited};
use std::path::{Component, Path, PathBuf};

/// Files of one configuration.
const FILES_MAX: usize = 4096;

/// Octets of all files of one configuration.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Reads everything that the table includes, and puts it into the table.
pub fn read_all(
    main: &mut Table,
    sources: &mut Sources,
    variable: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) {
    let file = sources.main().to_owned();
    let own = std::fs::canonicalize(&file).unwrap_or(file);
    let mut reader = Reader { sources, variable, report, seen: vec![(own, 0..0)], within: vec![0] };
    let included = reader.includes_of(main);
    for table in included {
        main.append(table);
    }
    // What was included stands in the table now.
    main.empty("include");
}

struct Reader<'a> {
    sources: &'a mut Sources,
    variable: &'a dyn Fn(&str) -> Option<String>,
    report: &'a mut Report,
    /// Every file read, and where it was asked for.
    seen: Vec<(PathBuf, Span)>,
    /// Of these, the ones being read: each includes the next.
    within: Vec<usize>,
}

impl Reader<'_> {
    fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.report.push(Diagnostic::error(span.clone(), message))
    }

    fn includes_of(&mut self, table: &Table) -> Vec<Table> {
        let mut tables = Vec::new();
        for pattern in table.texts("include") {
            let base = self.sources.directory(pattern.span).to_path_buf();
            let found = match find(&base, pattern.text) {
                Ok(found) => found,
                Err((directory, error)) => {
                    let shown = directory.display();
                    self.error(pattern.span, format!("`{shown}` cannot be read: {error}"));
                    continue;
                }
            };
            for path in found {
                self.file(&path, pattern.span, &mut tables);
            }
        }
        tables
    }

    fn file(&mut self, path: &Path, span: &Span, tables: &mut Vec<Table>) {
        let own = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if let Some(at) = self.seen.iter().position(|(other, _)| *other == own) {
            let (shown, before) = (path.display().to_string(), self.seen[at].1.clone());
            if self.within.contains(&at) {
                self.error(span, format!("`{shown}` includes itself"));
            } else {
                self.error(span, format!("`{shown}` is included twice")).related(before, "the first time");
            }
            return;
        }
        if self.seen.len() >= FILES_MAX || self.sources.len() > TEXT_BYTES_MAX {
            self.error(span, format!("more than {FILES_MAX} files or {} MiB", TEXT_BYTES_MAX >> 20));
            return;
        }
        self.within.push(self.seen.len());
        self.seen.push((own, span.clone()));
        match read_limited(path, FILE_BYTES_MAX) {
            Ok(text) => {
                let table = self.text(path, text);
                let inner = self.includes_of(&table);
                tables.push(table);
                tables.extend(inner);
            }
            Err(error) => {
                let shown = path.display();
                self.error(span, format!("`{shown}` cannot be read: {error}"));
            }
        }
        self.within.pop();
    }

    fn text(&mut self, path: &Path, text: String) -> Table {
        let start = self.sources.add(path, text.clone());
        let directory = self.sources.directory(&(start..start)).to_path_buf();
        let secret_file = |path: &str| read_limited(&directory.join(path), super::SECRET_BYTES_MAX);
        let surroundings = Surroundings { variable: self.variable, secret_file: &secret_file };
        let mut report = Report::default();
        let mut table = raw::read(&text, &keys::INCLUDED, &surroundings, &mut report);
        table.shift(start);
        self.report.add(report, start);
        table
    }
}

/// The files that a pattern means, in order; a name without pattern is taken as it is, whether there is such a file or
/// not. The directory that cannot be read, if one cannot.
fn find(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, (PathBuf, std::io::Error)> {
    let mut found = vec![base.to_path_buf()];
    for component in Path::new(pattern).components() {
        let name = component.as_os_str().to_string_lossy();
        let is_pattern = matches!(component, Component::Normal(_)) && name.contains(['*', '?']);
        if !is_pattern {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let mut next = Vec::new();
        for directory in found {
            // Beneath a pattern there may be files among the directories.
            if directory.is_file() {
                continue;
            }
            let entries = std::fs::read_dir(&directory).map_err(|error| (directory.clone(), error))?;
            for entry in entries {
                let entry = entry.map_err(|error| (directory.clone(), error))?;
                if matches_name(name.as_bytes(), entry.file_name().as_encoded_bytes()) {
                    next.push(entry.path());
                }
            }
        }
        next.sort();
        found = next;
    }
    if pattern.contains(['*', '?']) {
        found.retain(|path| path.exists());
    }
    Ok(found)
}

/// Whether a name fits a pattern. Names that begin with a dot fit only if it is written: editors leave such files.
fn matches_name(pattern: &[u8], name: &[u8]) -> bool {
    fn fits(pattern: &[u8], name: &[u8]) -> bool {
        // The last star, and how much of the name it has taken: going back there is all that is ever needed.
        let (mut at, mut of_name, mut star) = (0, 0, None);
        while of_name < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, of_name));
                    at += 1;
                }
                Some(&b) if b == b'?' || b == name[of_name] => {
                    at += 1;
                    of_name += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else { return false };
                    star = Some((star_at, taken + 1));
                    (at, of_name) = (star_at + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|&b| b == b'*')
    }
    (name.first() != Some(&b'.') || pattern.first() == Some(&b'.')) && fits(pattern, name)
}

#[cfg(test)]
mod tests {
    use super::matches_name;

    #[test]
    fn names_and_patterns() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", false),
            (".*", ".toml", true),
            ("*.toml", ".a.toml.swp", false),
            ("*.toml", "a.toml~", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?.toml", "a.toml", true),
            ("?.toml", "ab.toml", false),
            ("?", "", false),
            ("site-?*", "site-1", true),
            ("site-?*", "site-", false),
            ("**", "anything", true),
            ("[a]", "a", false),
        ] {
            assert_eq!(matches_name(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        // Many stars do not take long.
        assert!(!matches_name(&b"*a".repeat(60), &b"b".repeat(5000)));
    }
}
