//! Builds the default policies (`plugins/`) for WebAssembly and embeds them.
//!
//! They are another workspace with another target, so that is another cargo, in a target directory of its own that all
//! profiles of the host share. Where Rust's own target is installed, that is used; else Debian's packages, which build
//! the standard library as well. `TIDEGATE_PLUGINS` names a folder of built ones instead.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
/// Debian's `rustc-web`, `cargo-web` and `lld`.
const DEBIAN: [&str; 3] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/bin/wasm-ld"];
/// Debian's `rust-web-src`: its target comes without a built standard library.
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std";

fn main() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
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
    let mut cargo = match toolchain()? {
        Toolchain::Rust(cargo) => Command::new(cargo),
        Toolchain::Debian => {
            let [rustc, cargo, linker] = DEBIAN;
            let mut cargo = Command::new(cargo);
            cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
            cargo
        }
    };
    let is_debian = cargo.get_program() == DEBIAN[1];
    cargo.args(["build", "--release", "--locked", "--quiet", "--workspace", "--target", TARGET]);
    if is_debian {
        cargo.args(["-Z", "build-std=std,panic_abort"]);
    }
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

enum Toolchain {
    /// The one that builds the host, with the target installed.
    Rust(String),
    Debian,
}

fn toolchain() -> Result<Toolchain, String> {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let mut ask = Command::new(rustc);
    let libraries = ask.args(["--print", "target-libdir", "--target", TARGET]).output();
    let is_installed = libraries.is_ok_and(|output| {
        output.status.success()
            && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
    });
    if is_installed {
        return Ok(Toolchain::Rust(env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())));
    }
    if DEBIAN.iter().chain([&DEBIAN_STD]).all(|path| Path::new(path).exists()) {
        return Ok(Toolchain::Debian);
    }
    Err(format!(
        "no Rust for {TARGET}: `cargo xtask setup` installs it, or `rustup target add {TARGET}`"
    ))
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
