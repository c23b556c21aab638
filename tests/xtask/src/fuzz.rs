//! Fuzzing with coverage and AddressSanitizer: libFuzzer around each entry of `tests/fuzz`.

use crate::run::{cargo, root, step, target_directory};
use std::fs;
use std::process::Command;

/// Executions of each entry unless `--runs` says otherwise.
const RUNS: u64 = 100_000;
/// Longer inputs are not tried.
const INPUT_BYTES_MAX: u32 = 4096;
/// Seconds that one input may take before that is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
/// What is instrumented must be built for a named target, so that build scripts and macros are not.
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Coverage as libFuzzer reads it, and AddressSanitizer, whose library every toolchain for Linux brings along.
const FLAGS: &[&str] = &[
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Runs the entries that are named, or all.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (mut runs, mut entries) = (RUNS, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--runs" {
            let number = words.next().and_then(|number| number.replace('_', "").parse().ok());
            runs = number.ok_or("--runs takes a number")?;
        } else {
            entries.push(word.clone());
        }
    }
    let known = known()?;
    if let Some(entry) = entries.iter().find(|entry| !known.contains(entry)) {
        return Err(format!("there is no entry {entry}; there are {}", known.join(", ")));
    }
    if entries.is_empty() {
        entries = known;
    }
    build()?;
    for entry in &entries {
        fuzz(entry, runs)?;
    }
    Ok(())
}

/// Every entry has a corpus: a test of theirs holds that.
fn known() -> Result<Vec<String>, String> {
    let folder = root().join("tests/fuzz/corpus");
    let files = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names: Vec<String> =
        files.flatten().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn build() -> Result<(), String> {
    let mut build = cargo();
    build.args(["build", "--release", "--package", "tidegate-fuzz", "--features", "guided"]);
    build.args(["--target", &target(), "--target-dir"]).arg(target_directory().join("fuzz"));
    // The flags are of the unstable kind, which a stable compiler takes when it is told so.
    build.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", FLAGS.join(" "));
    build.env("CARGO_PROFILE_RELEASE_LTO", "off");
    build.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    build.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    step("building the fuzzer", &mut build)
}

/// What libFuzzer finds is kept in `target/fuzz`: new paths as a corpus, failures beside it.
fn fuzz(entry: &str, runs: u64) -> Result<(), String> {
    let folder = target_directory().join("fuzz");
    let found = folder.join("corpus").join(entry);
    fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
    let mut fuzzer = Command::new(folder.join(target()).join("release/tidegate-fuzz"));
    fuzzer.env("TIDEGATE_FUZZ_ENTRY", entry);
    fuzzer.arg(&found).arg(root().join("tests/fuzz/corpus").join(entry));
    fuzzer.arg(format!("-runs={runs}")).arg(format!("-max_len={INPUT_BYTES_MAX}"));
    fuzzer.arg(format!("-timeout={INPUT_SECONDS_MAX}")).arg("-print_final_stats=1");
    fuzzer
        .arg("-verbosity=0")
        .arg(format!("-artifact_prefix={}/failed-{entry}-", folder.display()));
    step(&format!("{entry}: {runs} executions"), &mut fuzzer)
}
