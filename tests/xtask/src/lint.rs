//! Lints while it builds: what is used is compiled once, and not once more to be looked at.

use std::process::Command;

/// What cargo calls instead of rustc for packages of a workspace (`RUSTC_WORKSPACE_WRAPPER`): rustc with Clippy's lints.
const LINTER: &str = "clippy-driver";
/// Where it looks for further arguments, and what stands between them (Clippy's `src/driver.rs`).
const ARGUMENTS: &str = "CLIPPY_ARGS";
const BETWEEN: &str = "__CLIPPY_HACKERY__";

/// A cargo whose every build of ours fails at a warning of Clippy's or of rustc's.
pub(crate) fn linting(mut cargo: Command) -> Command {
    cargo.env("RUSTC_WORKSPACE_WRAPPER", LINTER);
    cargo.env(ARGUMENTS, format!("-D{BETWEEN}warnings{BETWEEN}"));
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Of a package with this in it, what a linting cargo says.
    fn built(source: &str) -> Result<(), String> {
        let folder = std::env::temp_dir().join(format!(
            "tidegate-lint-{}-{}",
            std::process::id(),
            source.len()
        ));
        fs::create_dir_all(folder.join("src")).unwrap();
        let manifest = "[package]\nname = \"linted\"\nedition = \"2024\"\n[workspace]\n";
        fs::write(folder.join("Cargo.toml"), manifest).unwrap();
        fs::write(folder.join("src/lib.rs"), source).unwrap();
        let mut cargo = linting(crate::run::cargo());
        cargo.env("CARGO_TARGET_DIR", folder.join("target")).args(["build", "--offline"]);
        let output = cargo.current_dir(&folder).output().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(words) }
    }

    #[test]
    fn a_build_fails_at_what_clippy_or_rustc_warns_of() {
        assert_eq!(built("pub fn is_none(all: &[u8]) -> bool { all.is_empty() }"), Ok(()));
        let clippy = built("pub fn is_none(all: &[u8]) -> bool { all.len() == 0 }");
        assert!(clippy.is_err_and(|words| words.contains("clippy::len-zero")));
        let rustc = built("pub fn none(all: &[u8]) {}");
        assert!(rustc.is_err_and(|words| words.contains("unused-variables")));
    }
}
