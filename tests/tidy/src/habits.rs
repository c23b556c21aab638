//! Habits that can be read off a line: headers, panics, sleeps, unsafe, paths of somebody's machine.

use crate::rust::line_of;
use crate::tree::File;

/// Every file of the program begins with its purpose. A `tests.rs` says it by its name.
pub fn check_headers(files: &[File]) -> Vec<String> {
    let silent = |file: &&File| {
        let begins = file.text.trim_start_matches("\u{feff}").starts_with("//!");
        let named = file.path.ends_with("/tests.rs");
        file.in_host() && file.is_rust() && !named && !begins
    };
    let complaint = |file: &File| {
        format!("{}: begin the file with `//!` and its purpose in one sentence", file.path)
    };
    files.iter().filter(silent).map(complaint).collect()
}

/// No panic can reach a client.
pub fn check_panics(files: &[File]) -> Vec<String> {
    const PANICS: &[&str] = &[
        ".unwrap()",
        ".expect(",
        "panic!",
        "todo!",
        "unimplemented!",
        "unreachable!",
        ".unwrap_err()",
        ".expect_err(",
    ];
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.in_host() && file.is_rust()) {
        for name in PANICS {
            for (at, _) in file.program.match_indices(name) {
                complaints.push(format!(
                    "{}:{}: `{name}` outside tests: return an error, or write the state so that there is \
                     nothing to unwrap",
                    file.path,
                    line_of(&file.program, at)
                ));
            }
        }
    }
    complaints
}

/// Tests wait for what they wait for, and all of them run.
pub fn check_waiting(files: &[File]) -> Vec<String> {
    // The vocabulary polls, so that tests need not; benchmarks wait for a quiet machine.
    const MAY_SLEEP: &[&str] = &[
        "tests/support/",
        "tests/perf/",
        "host/tidegate/src/demo/process.rs",
        "tests/e2e/tests/soak.rs",
    ];
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (at, _) in file.code.match_indices("#[ignore") {
            complaints.push(format!(
                "{}:{}: an ignored test proves nothing: make it run, or remove it",
                file.path,
                line_of(&file.code, at)
            ));
        }
        if MAY_SLEEP.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        for (at, _) in file.code.match_indices("thread::sleep") {
            complaints.push(format!(
                "{}:{}: a fixed sleep is slow or flaky: wait for the condition with `wait_until` of \
                 tests/support",
                file.path,
                line_of(&file.code, at)
            ));
        }
    }
    complaints
}

/// Every `unsafe` says why it is sound.
pub fn check_unsafe(files: &[File]) -> Vec<String> {
    /// A comment so many lines above still belongs to the keyword.
    const REACH_LINES: usize = 6;
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, _) in file.code.match_indices("unsafe") {
            let rest = &file.code[at + "unsafe".len()..];
            let is_keyword = rest.starts_with([' ', '{', '('])
                && !file.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let line = line_of(&file.code, at);
            let above = &lines[line.saturating_sub(1 + REACH_LINES)..line];
            let explained = above.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
            if is_keyword && !explained {
                complaints.push(format!(
                    "{}:{line}: say in a `// SAFETY:` comment above why this is sound",
                    file.path
                ));
            }
        }
    }
    complaints
}

/// Nothing names a folder of the machine it was written on.
pub fn check_paths(files: &[File]) -> Vec<String> {
    // In two halves, so that this file does not name them either.
    let folders = [("/wo", "rk/"), ("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/")];
    let mut complaints = Vec::new();
    for file in files {
        for (first, second) in folders {
            let folder = format!("{first}{second}");
            for (at, _) in file.text.match_indices(&folder) {
                let before = file.text[..at].chars().next_back();
                if before.is_none_or(|c| !(c.is_alphanumeric() || "._-~/$}{<>".contains(c))) {
                    complaints.push(format!(
                        "{}:{}: an absolute path ({folder}…) works on one machine only: make it relative, \
                         or an argument",
                        file.path,
                        line_of(&file.text, at)
                    ));
                }
            }
        }
    }
    complaints
}
