//! Which cargo makes WebAssembly on this machine: Rust's own target where it is installed, else Debian's packages.
//!
//! Part of this crate's build script as well, which makes the default policies with it.

use std::path::Path;
use std::process::Command;

/// What policies are built for: no WASI, so nothing to take away.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Debian's `rustc-web`, `cargo-web` and `lld`.
const DEBIAN: [&str; 3] = ["/usr/bin/rustc", "/usr/bin/cargo", "/usr/bin/wasm-ld"];
/// Debian's `rust-web-src`: its target comes without a built standard library.
const DEBIAN_STD: &str = "/usr/lib/rustlib/src/rust/library/std";

/// Who compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// This cargo, whose rustc has the target.
    Rust(String),
    /// Debian's, which builds the standard library as well: about a minute, once for a target directory.
    Debian,
}

impl Toolchain {
    /// The one there is; `rustc` and `cargo` are tried first.
    ///
    /// # Errors
    /// There is none. The sentence says how to get one.
    pub fn find(rustc: &str, cargo: &str) -> Result<Toolchain, String> {
        let mut ask = Command::new(rustc);
        let libraries = ask.args(["--print", "target-libdir", "--target", TARGET]).output();
        let is_installed = libraries.is_ok_and(|output| {
            output.status.success()
                && Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
        });
        if is_installed {
            return Ok(Toolchain::Rust(cargo.to_owned()));
        }
        if DEBIAN.iter().chain([&DEBIAN_STD]).all(|path| Path::new(path).exists()) {
            return Ok(Toolchain::Debian);
        }
        Err(format!(
            "no Rust for {TARGET}: `rustup target add {TARGET}` installs it, or on Debian `apt-get install rustc-web \
             cargo-web rust-web-src lld` (in Tidegate's own repository, `cargo xtask setup` does)"
        ))
    }

    /// `cargo build --release` for the target.
    pub fn build(&self) -> Command {
        let mut cargo = match self {
            Toolchain::Rust(cargo) => Command::new(cargo),
            Toolchain::Debian => {
                let [rustc, cargo, linker] = DEBIAN;
                let mut cargo = Command::new(cargo);
                cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
                cargo
            }
        };
        cargo.args(["build", "--release", "--target", TARGET]);
        if *self == Toolchain::Debian {
            cargo.args(["-Z", "build-std=std,panic_abort"]);
        }
        cargo
    }

    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Toolchain::Rust(_) => "Rust's own target",
            Toolchain::Debian => "Debian's packages",
        }
    }
}
