//! The repository as data, for the checks that read it: which files are committed, which lines of them are
//! test code. It judges nothing; the rules stand in `tests/tidy.rs` and `tests/conformance.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A committed file.
#[derive(Debug)]
pub struct File {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    /// The text; files that are not UTF-8 are read with replacements.
    pub text: String,
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/testkit has two parents")
        .to_owned()
}

/// All files of the repository in order of path: what git tracks or would track, or, where there is no git (a
/// source archive), every file outside `target`.
pub fn files() -> Vec<File> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output()
        .ok()
        .filter(|out| out.status.success() && !out.stdout.is_empty());
    let mut paths = match listed {
        Some(out) => String::from_utf8_lossy(&out.stdout).split_terminator('\0').map(str::to_owned).collect(),
        None => walk(&root),
    };
    paths.sort();
    paths.dedup();
    let read = |path: String| {
        let bytes = std::fs::read(root.join(&path)).ok()?;
        Some(File { path, text: String::from_utf8_lossy(&bytes).into_owned() })
    };
    paths.into_iter().filter_map(read).collect()
}

fn walk(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && !name.as_encoded_bytes().starts_with(b".git") {
                folders.push(path);
            } else if path.is_file() {
                let inside = path.strip_prefix(root).expect("found below the root");
                paths.push(inside.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    paths
}

impl File {
    /// Whether the whole file is test code: it stands in a `tests` folder, or is a test module of its own.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        self.path.split('/').any(|part| part == "tests") || name == "tests.rs" || name.ends_with("_tests.rs")
    }

    /// The lines that are code of the product: those before the test module, without the test-only file kinds.
    pub fn product(&self) -> &str {
        if self.is_test() { "" } else { &self.text[..self.test_module_at()] }
    }

    /// The lines that are test code.
    pub fn tests(&self) -> &str {
        if self.is_test() { &self.text } else { &self.text[self.test_module_at()..] }
    }

    /// Test modules stand at the end of a file in this project, so everything after the mark is test code.
    fn test_module_at(&self) -> usize {
        let mut at = 0;
        let mut lines = self.text.split_inclusive('\n').peekable();
        while let Some(line) = lines.next() {
            let opens = |next: &&str| next.starts_with("mod ") && next.trim_end().ends_with('{');
            if line.starts_with("#[cfg(test)]") && lines.peek().is_some_and(opens) {
                return at;
            }
            at += line.len();
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn product_and_tests_are_told_apart() {
        let text = "fn a() {}\n#[cfg(test)]\nmod far_tests;\nfn b() {}\n#[cfg(test)]\nmod tests {\n}\n";
        let both = file("crates/a/src/a.rs", text);
        assert_eq!(both.product(), "fn a() {}\n#[cfg(test)]\nmod far_tests;\nfn b() {}\n");
        assert_eq!(both.tests(), "#[cfg(test)]\nmod tests {\n}\n");
        for path in
            ["crates/a/tests/x.rs", "crates/a/src/tests.rs", "crates/a/src/far_tests.rs", "tests/real/run.sh"]
        {
            assert_eq!((file(path, text).product(), file(path, text).tests()), ("", text), "{path}");
        }
        assert_eq!(file("a.rs", "fn a() {}").tests(), "");
    }

    #[test]
    fn this_file_is_listed() {
        assert!(
            files()
                .iter()
                .any(|f| f.path == "crates/testkit/src/repo.rs" && f.tests().contains("this_file_is"))
        );
    }
}
