//! Links between documents lead somewhere.

use crate::rust::line_of;
use crate::tree::{self, File};
use std::path::{Component, Path, PathBuf};

pub fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (target, at) in targets(&file.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let other = resolve(&file.path, path);
            let exists = path.is_empty() || tree::root().join(&other).exists();
            let anchored = anchor.is_empty()
                || files
                    .iter()
                    .find(|f| Path::new(&f.path) == other)
                    .is_none_or(|f| has_heading(f, anchor));
            if !exists || !anchored {
                complaints.push(format!(
                    "{}:{}: the link to `{target}` leads nowhere: correct it, or write what it promises",
                    file.path,
                    line_of(&file.text, at)
                ));
            }
        }
    }
    complaints
}

/// Relative targets of `[text](target)`, outside code blocks, with their offsets.
pub fn targets(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let mut in_block = false;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if !in_block {
            for (at, _) in line.match_indices("](") {
                let rest = &line[at + 2..];
                let target = rest.split([')', ' ']).next().unwrap_or("");
                let external = target.contains("://") || target.starts_with("mailto:");
                let in_code = line[..at].matches('`').count() % 2 == 1;
                if !external && !in_code && !target.is_empty() {
                    found.push((target.to_owned(), offset + at));
                }
            }
        }
        offset += line.len();
    }
    found
}

fn resolve(from: &str, path: &str) -> PathBuf {
    if path.is_empty() {
        return PathBuf::from(from);
    }
    let folder = Path::new(from).parent().unwrap_or(Path::new(""));
    let mut out = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

/// Anchors are headings in lower case, blanks as `-`, other punctuation dropped.
fn has_heading(file: &File, anchor: &str) -> bool {
    file.text.lines().filter(|line| line.starts_with('#')).any(|line| {
        let heading = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let kept: String =
            heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        kept == anchor
    })
}
