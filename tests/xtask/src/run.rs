//! Steps: a line before, the program's own words, a line after with the time it took; and a summary at the end.

use std::fmt::Write;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// `target/`, wherever it was told to be: this program runs from `target/debug/`.
pub(crate) fn target_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().nth(2).map_or_else(|| root().join("target"), Path::to_owned)
}

/// The cargo that runs us, in the repository.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(root());
    cargo.arg("--color").arg(if std::io::stdout().is_terminal() { "always" } else { "auto" });
    cargo
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

struct Entry {
    name: &'static str,
    outcome: Outcome,
    time: Duration,
    note: String,
}

/// What has run so far.
#[derive(Default)]
pub(crate) struct Report {
    entries: Vec<Entry>,
}

impl Report {
    /// Runs a program as a step and counts the tests it reports.
    pub(crate) fn step(&mut self, name: &'static str, command: &mut Command) -> Outcome {
        self.add(name, || stream(command))
    }

    /// Runs anything as a step; it returns how many tests passed.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<usize, String>,
    ) -> Outcome {
        println!("\n==> {name}");
        let begun = Instant::now();
        let result = work();
        let time = begun.elapsed();
        let (outcome, note) = match result {
            Ok(0) => (Outcome::Passed, String::new()),
            Ok(tests) => (Outcome::Passed, format!("{tests} tests")),
            Err(problem) => (Outcome::Failed, problem),
        };
        println!("==> {name}: {} after {:.1} s {note}", word(outcome), time.as_secs_f64());
        self.entries.push(Entry { name, outcome, time, note });
        outcome
    }

    pub(crate) fn skip(&mut self, name: &'static str, why: &str) {
        let note = why.to_owned();
        self.entries.push(Entry { name, outcome: Outcome::Skipped, time: Duration::ZERO, note });
    }

    pub(crate) fn passed(&self) -> bool {
        self.entries.iter().all(|entry| entry.outcome == Outcome::Passed)
    }

    /// A line a step.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for Entry { name, outcome, time, note } in &self.entries {
            let seconds = time.as_secs_f64();
            let first_line = note.lines().next().unwrap_or("");
            let _ = writeln!(text, "{:8} {name:24} {seconds:7.1} s  {first_line}", word(*outcome));
        }
        let total: Duration = self.entries.iter().map(|entry| entry.time).sum();
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let _ = write!(text, "{verdict:8} {:24} {:7.1} s", "all", total.as_secs_f64());
        text
    }
}

/// Runs a program as a step outside a report.
pub(crate) fn step(name: &str, command: &mut Command) -> Result<(), String> {
    println!("==> {name}");
    let begun = Instant::now();
    stream(command)?;
    println!("==> {name}: done after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Shows a program's output as it comes; returns how many tests `cargo test` said have passed.
fn stream(command: &mut Command) -> Result<usize, String> {
    let shown = shown(command);
    let failed = |error: std::io::Error| format!("could not run {shown}: {error}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut tests = 0;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line.map_err(failed)?).into_owned();
            tests += passed_in(&line);
            println!("{line}");
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() { Ok(tests) } else { Err(format!("{shown} failed ({status})")) }
}

/// The number in `test result: ok. 12 passed; 0 failed; …`; 0 in any other line.
fn passed_in(line: &str) -> usize {
    let Some((_, result)) = line.split_once("test result: ") else { return 0 };
    let Some((before, _)) = result.split_once(" passed") else { return 0 };
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::Skipped => "SKIPPED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_counted_from_the_closing_line() {
        assert_eq!(passed_in("test result: ok. 82 passed; 0 failed; 0 ignored; 0 measured"), 82);
        assert_eq!(passed_in("test result: FAILED. 3 passed; 9 failed"), 3);
        assert_eq!(passed_in("test wire::simple ... ok"), 0);
    }

    #[test]
    fn a_failed_step_fails_the_report() {
        let mut report = Report::default();
        report.add("good", || Ok(2));
        assert!(report.passed());
        assert_eq!(report.add("bad", || Err("it broke".to_owned())), Outcome::Failed);
        assert!(!report.passed());
        assert!(report.summary().contains("it broke"));
    }
}
