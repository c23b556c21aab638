//! What the pure crates may depend on, directly or not, and what they may use of the standard library.

use crate::rust;
use crate::tree::{self, File};
use std::process::Command;

/// Crates that stay pure, and what each may depend on although it is listed below.
const PURE: &[(&str, &[&str])] = &[
    ("tidegate-wire", &[]),
    ("tidegate-hba", &[]),
    ("tidegate-core", &[]),
    ("tidegate-limiter", &[]),
    ("tidegate-listen", &[]),
    ("tidegate-cluster", &[]),
    ("tidegate-pool", &[]),
    ("tidegate-cache", &[]),
    ("tidegate-grammar", &["pg_raw_parse"]),
];

/// The sandbox has clocks and threads, and compiles; it has no sockets and no tasks.
const SANDBOX: &str = "tidegate-policy";
const NOT_IN_THE_SANDBOX: &[&str] =
    &["tokio", "hyper", "redis", "mio", "socket2", "async-std", "smol", "rustls", "wasmtime-wasi"];

/// Dependencies that bring I/O, clocks, tasks or randomness, or C that takes minutes to build.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "redis",
    "wasmtime",
    "rand",
    "getrandom",
    "mio",
    "socket2",
    "async-std",
    "smol",
    "futures",
    "rustls",
    "chrono",
    "time",
    "crossbeam",
    "parking_lot",
    "rayon",
    "tracing",
    "metrics",
    "log",
    "pg_raw_parse",
    "tidegate-grammar",
];

/// Parts of the standard library that do.
const IMPURE_STD: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "Mutex",
    "RwLock",
    "Condvar",
    "LazyLock",
    "OnceLock",
    "thread_local!",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "println!",
    "eprintln!",
];

pub fn check_tree() -> Vec<String> {
    let pure = PURE.iter().map(|(package, allowed)| (*package, IMPURE, *allowed));
    let all = pure.chain([(SANDBOX, NOT_IN_THE_SANDBOX, &[][..])]);
    all.flat_map(|(package, banned, allowed)| check_package(package, banned, allowed)).collect()
}

/// What a package depends on, directly or not, of what it must not; itself and `allowed` excepted.
fn check_package(package: &str, banned: &[&str], allowed: &[&str]) -> Vec<String> {
    let tree = ["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "-p", package];
    let output = Command::new(env!("CARGO")).args(tree).current_dir(tree::root()).output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return vec![format!("cargo tree -p {package}: {error}")];
        }
        Err(error) => return vec![format!("cargo tree -p {package}: {error}")],
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    let family = |name: &&str| {
        banned.iter().any(|banned| {
            name == banned || name.strip_prefix(banned).is_some_and(|rest| rest.starts_with('-'))
        })
    };
    let complaint = |name: &str| {
        format!(
            "{package} depends on {name}: keep it out (`cargo tree -p {package} -i {name}` shows the way in), \
             and let the shell, host/tidegate, do what needs it"
        )
    };
    let own = |name: &&str| *name == package || allowed.contains(name);
    names.filter(family).filter(|name| !own(name)).map(complaint).collect()
}

pub fn check_std(files: &[File]) -> Vec<String> {
    let pure = |file: &&File| {
        [
            "host/cache/src/",
            "host/core/src/",
            "host/grammar/src/",
            "host/hba/src/",
            "host/limiter/src/",
            "host/listen/src/",
            "host/cluster/src/",
            "host/pool/src/",
            "host/wire/src/",
        ]
        .iter()
        .any(|folder| file.path.starts_with(folder))
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(pure) {
        for name in IMPURE_STD {
            for (at, _) in file.program.match_indices(name) {
                let line = rust::line_of(&file.program, at);
                complaints.push(format!(
                    "{}:{line}: `{name}` in a pure crate: take the time as an argument and return what the \
                     shell is to do",
                    file.path
                ));
            }
        }
    }
    complaints
}
