//! Lengths of files, functions and the core, with a ratchet for what is longer today.
//!
//! `tests/tidy/ratchet.txt` lists what exceeds its budget and by how much it may. Its numbers only fall:
//! `TIDY_BLESS=1 cargo test -p tidegate-tidy budgets` writes today's.

use crate::rust;
use crate::tree::{self, File};
use std::collections::BTreeMap;
use std::fs;

/// Lines of a file of the program.
pub const FILE_LINES_MAX: usize = 500;
/// Lines of a file that only tests compile, or of the crates under `tests/`: tables and models run long.
pub const TEST_FILE_LINES_MAX: usize = 700;
/// Lines of a function of the program.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Lines of the program in `host/core`; past this, `insight`, `migrate` and `listen` leave it first.
pub const CORE_LINES_MAX: usize = 14_000;
/// A listed length may be this much above the real one before it has to be lowered.
const SLACK_LINES: usize = 40;

const RATCHET: &str = "tests/tidy/ratchet.txt";

/// What is longer than its budget: name, to its length and budget.
type Excesses = BTreeMap<String, (usize, usize)>;

fn measure(files: &[File]) -> Excesses {
    let mut excesses = Excesses::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let is_program = file.in_host() && !file.program.trim().is_empty();
        let budget = if is_program { FILE_LINES_MAX } else { TEST_FILE_LINES_MAX };
        let lines = file.text.lines().count();
        if lines > budget {
            excesses.insert(file.path.clone(), (lines, budget));
        }
        if file.in_host() {
            for function in rust::functions(&file.program) {
                if function.lines > FUNCTION_LINES_MAX {
                    let name = format!("{}:{}", file.path, function.name);
                    excesses.insert(name, (function.lines, FUNCTION_LINES_MAX));
                }
            }
        }
    }
    excesses
}

pub fn check(files: &[File]) -> Vec<String> {
    let excesses = measure(files);
    if std::env::var_os("TIDY_BLESS").is_some() {
        let lines = excesses.iter().map(|(name, (lines, _))| format!("{name} {lines}\n"));
        let text: String = lines.collect();
        return match fs::write(tree::root().join(RATCHET), text) {
            Ok(()) => Vec::new(),
            Err(error) => vec![format!("{RATCHET}: {error}")],
        };
    }
    let listed = files.iter().find(|file| file.path == RATCHET);
    let mut complaints = compare(&excesses, listed.map_or("", |file| &file.text));
    let core = files.iter().filter(|file| file.path.starts_with("host/core/src/"));
    let lines: usize =
        core.map(|file| file.program.lines().filter(|l| !l.trim().is_empty()).count()).sum();
    if lines > CORE_LINES_MAX {
        complaints.push(format!(
            "host/core has {lines} lines of code, more than {CORE_LINES_MAX}: move a feature of its own \
             (insight, migrate) to a crate beside it"
        ));
    }
    complaints
}

/// Holds what is too long against the list of what may be.
pub fn compare(excesses: &Excesses, listed: &str) -> Vec<String> {
    let listed: BTreeMap<&str, usize> = listed
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, lines)| Some((name, lines.parse().ok()?)))
        .collect();
    let mut complaints = Vec::new();
    for (name, (lines, budget)) in excesses {
        match listed.get(name.as_str()) {
            None => complaints.push(format!(
                "{name} has {lines} lines, its budget is {budget}: split it where its concerns part"
            )),
            Some(allowed) if lines > allowed => complaints.push(format!(
                "{name} has grown from {allowed} to {lines} lines, its budget is {budget}: it may only shrink"
            )),
            Some(allowed) if lines + SLACK_LINES < *allowed => complaints.push(format!(
                "{name} has {lines} lines, fewer than the {allowed} of {RATCHET}: lower the number there"
            )),
            Some(_) => {}
        }
    }
    for name in listed.keys().filter(|name| !excesses.contains_key(**name)) {
        complaints.push(format!("{name} keeps its budget: remove its line from {RATCHET}"));
    }
    complaints
}
