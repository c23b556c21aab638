//! Builds the default policies (`plugins/`) for WebAssembly and embeds them.
//!
//! They are another workspace with another target, so that is another cargo, in a target directory of its own that all
//! profiles of the host share. Where Rust's own target is installed, that is used; else Debian's packages, which build
//! the standard library as well. `TIDEGATE_PLUGINS` names a folder of built ones instead.

#[allow(dead_code)] // the program's command line uses more of it
#[path = "src/toolchain.rs"]
mod toolchain;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use toolchain::{TARGET, Toolchain};

fn main() {
    // Asked when it runs: what was compiled elsewhere, in a target directory that is shared, would name that place.
    let Some(manifest) = env::var_os("CARGO_MANIFEST_DIR") else {
        return println!("cargo::error=cargo does not say where this package is");
    };
    let repository = Path::new(&manifest).join("../..");
    for source in ["wit", "sdk", "plugins", "tests/plugins"] {
        println!("cargo::rerun-if-changed={}", repository.join(source).display());
    }
    println!("cargo::rerun-if-env-changed=TIDEGATE_PLUGINS");
    let built = match env::var_os("TIDEGATE_PLUGINS") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => build(&repository.join("plugins")),
    };
    match built {
        Ok(folder) => println!("cargo::rustc-env=TIDEGATE_PLUGINS_BUILT={}", folder.display()),
        Err(problem) => println!("cargo::error={problem}"),
    }
}

/// Compiles the workspace and returns the folder with its `.wasm` files.
fn build(workspace: &Path) -> Result<PathBuf, String> {
    let target = target_directory()?;
    let or = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
    let toolchain = Toolchain::find(&or("RUSTC", "rustc"), &or("CARGO", "cargo"))?;
    let mut cargo = toolchain.build();
    let is_debian = toolchain == Toolchain::Debian;
    cargo.args(["--locked", "--quiet", "--workspace"]);
    forget_our_own_build(&mut cargo, is_debian);
    cargo.current_dir(workspace).env("CARGO_TARGET_DIR", &target);
    let output = cargo.output().map_err(|error| format!("cargo for the plugins: {error}"))?;
    if output.status.success() {
        return Ok(target.join(TARGET).join("release"));
    }
    // A build script's error is one line.
    let words = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
    Err(format!("the plugins do not build: {words}"))
}

/// `target/plugins`: this script's own folder is `target/<profile>/build/<package>/out`.
fn target_directory() -> Result<PathBuf, String> {
    let out = env::var("OUT_DIR").map_err(|error| format!("OUT_DIR: {error}"))?;
    let target = Path::new(&out).ancestors().nth(4);
    target.map(|target| target.join("plugins")).ok_or_else(|| format!("{out} is no OUT_DIR"))
}

/// What our cargo tells its build scripts would mislead the other one.
fn forget_our_own_build(cargo: &mut Command, is_debian: bool) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_flag = ["RUSTFLAGS", "RUSTDOCFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER"];
        let is_ours = is_flag.contains(&&*text)
            || ["CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
            || ["RUSTC_WORKSPACE_WRAPPER", "CARGO_MANIFEST_DIR", "OUT_DIR", "TARGET", "HOST"]
                .contains(&&*text)
            || (text == "RUSTC" && !is_debian);
        if is_ours {
            cargo.env_remove(&name);
        }
    }
}
