//! `tidegate plugin new`: a crate that builds, with a test that passes.

use std::fs;
use std::path::Path;

use tidegate_core::policy::Slot;

/// Makes the folder and writes its files.
///
/// # Errors
/// A sentence; the folder is there already, most likely.
pub(super) fn run(path: &Path, world: Slot, sdk: Option<&Path>) -> Result<String, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_plain) {
        return Err(fail(&"a plugin's name is of a-z, 0-9 and -, and begins with a letter"));
    }
    let sdk = match sdk {
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        Some(folder) => {
            let folder =
                folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
            format!("{{ path = {:?} }}", folder.display().to_string())
        }
    };
    fs::create_dir(path).map_err(|error| fail(&error))?;
    let source = path.join("src");
    fs::create_dir(&source).map_err(|error| fail(&error))?;
    let manifest = MANIFEST.replace("NAME", name).replace("SDK", &sdk);
    let files = [
        (path.join("Cargo.toml"), manifest),
        (source.join("lib.rs"), library(world).to_owned()),
        (path.join(".gitignore"), "/target\n".to_owned()),
    ];
    for (file, text) in files {
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let (folder, file) = (path.display(), name.replace('-', "_"));
    let slot = world.name();
    Ok(format!(
        "{folder}: a policy for {slot}. Next, in that folder:\n  \
         cargo test\n  \
         cargo build --release --target wasm32-unknown-unknown\n  \
         tidegate plugin test {slot} target/wasm32-unknown-unknown/release/{file}.wasm\n"
    ))
}

const MANIFEST: &str = r#"[package]
name = "NAME"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
tidegate-sdk = SDK

[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
panic = "abort"
strip = "debuginfo"

[workspace]
"#;

fn library(world: Slot) -> &'static str {
    match world {
        Slot::Routing => include_str!("templates/routing.rs.txt"),
        Slot::Caching => include_str!("templates/caching.rs.txt"),
        Slot::Limiting => include_str!("templates/limiting.rs.txt"),
        Slot::Advising => include_str!("templates/advising.rs.txt"),
    }
}
