//! The repository's files, read once.

use crate::rust;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold what was built or fetched.
const SKIPPED: &[&str] = &["target", ".git", "node_modules", "__pycache__", ".venv", "corpus"];

/// A file with its path relative to the repository, `/` between parts.
pub struct File {
    pub path: String,
    pub text: String,
    /// For Rust: the text with comments and the insides of literals blanked, offsets and lines unchanged.
    pub code: String,
    /// For Rust: `code` with everything under `#[cfg(test)]` blanked, too; empty in a test file.
    pub program: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        let is_rust = path.ends_with(".rs");
        let code = if is_rust { rust::mask(text) } else { String::new() };
        let program = if is_rust { rust::without_tests(&code) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code, program }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Is it part of the program rather than of what proves it?
    pub fn in_host(&self) -> bool {
        self.path.starts_with("host/")
    }
}

/// The repository's root, found from this crate.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Every text file of the repository.
pub fn read() -> Vec<File> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let mut files: Vec<File> = paths
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            let relative = path.strip_prefix(&root).ok()?.to_str()?.replace('\\', "/");
            Some(File::new(&relative, &text))
        })
        .collect();
    blank_test_files(&mut files);
    files
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&path, paths),
            Ok(kind) if kind.is_file() => paths.push(path),
            _ => {}
        }
    }
}

/// Files that a `#[cfg(test)] mod name;` declares, and files below them, hold no program; nor do a crate's integration
/// tests.
fn blank_test_files(files: &mut [File]) {
    let mut tests = BTreeSet::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let stem = file.path.trim_end_matches(".rs");
        let owner = ["/mod", "/lib", "/main"].iter().find_map(|end| stem.strip_suffix(end));
        for name in rust::test_modules(&file.code) {
            tests.insert(format!("{}/{name}", owner.unwrap_or(stem)));
        }
    }
    for file in files {
        let stem = file.path.trim_end_matches(".rs").to_owned();
        let declared = tests.iter().any(|test| {
            stem.strip_prefix(test.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        let integration =
            file.path.starts_with("host/") && file.path.split('/').nth(2) == Some("tests");
        if declared || integration {
            file.program.clear();
        }
    }
}
