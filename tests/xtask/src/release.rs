//! The program as it is deployed: built twice, the second time by a compiler that knows what runs often.
//!
//! A query passes through little code, but each time with cold caches. Told what that code is, the compiler lays it out
//! together and keeps the rest away from it.

use crate::run::{cargo, step, target_directory};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds, runs the load, builds again, and says where the program is.
pub(crate) fn build() -> Result<(), String> {
    let folder = target_directory().join("pgo");
    let counts = folder.join("counts");
    let profile = folder.join("tidegate.profdata");
    // What an earlier program counted does not fit this one.
    let _ = fs::remove_dir_all(&counts);
    let program = folder.join("release/tidegate");

    let mut instrumented = rustc(&folder, &format!("-Cprofile-generate={}", counts.display()));
    // Else code that nothing calls is kept, and asks for functions that this system may not have.
    instrumented.args(["--", "-Clink-arg=-Wl,--gc-sections"]);
    step("building Tidegate that counts", &mut instrumented)?;

    let mut train = cargo();
    train.args(["run", "--release", "--quiet", "--package", "tidegate-perf", "--", "train"]);
    step("counting under load", train.env("TIDEGATE_BIN", &program))?;

    let tool = profdata().ok_or("there is no llvm-profdata that fits this compiler")?;
    let mut merge = Command::new(tool);
    step("adding up", merge.args(["merge", "-o"]).arg(&profile).arg(&counts))?;

    let mut optimized = rustc(&folder, &format!("-Cprofile-use={}", profile.display()));
    step("building Tidegate for what was counted", &mut optimized)?;
    println!("{}", program.display());
    Ok(())
}

/// In a target directory of its own: with other flags everything is another.
fn rustc(folder: &Path, flag: &str) -> Command {
    let mut rustc = cargo();
    rustc.args(["rustc", "--release", "--locked", "--package", "tidegate", "--bin", "tidegate"]);
    rustc.arg("--target-dir").arg(folder);
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    rustc.env("RUSTFLAGS", format!("{given} {flag}").trim());
    rustc
}

/// What reads the counts that this very compiler's programs write: rustup's component, or LLVM's of the same number.
pub(crate) fn profdata() -> Option<PathBuf> {
    let words = |arguments: &[&str]| {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        let output = rustc.args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let of_rustup =
        Path::new(words(&["--print", "target-libdir"])?.trim()).parent()?.join("bin/llvm-profdata");
    if of_rustup.is_file() {
        return Some(of_rustup);
    }
    let version = words(&["-vV"])?;
    let (_, number) = version.split_once("LLVM version: ")?;
    let name = format!("llvm-profdata-{}", number.split('.').next()?);
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|program| program.is_file())
}
