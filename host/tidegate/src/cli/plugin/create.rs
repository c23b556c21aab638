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
    let file = name.replace('-', "_");
    let slot = world.name();
    let cases = cases(world);
    let test = match cases {
        Some(_) => format!("tidegate plugin test {slot} {file}.wasm --cases cases.toml"),
        None => format!("tidegate plugin test {slot} {file}.wasm"),
    };
    let readme = README.replace("NAME", name).replace("SLOT", slot).replace("TEST", &test);
    let mut files = vec![
        (path.join("Cargo.toml"), manifest),
        (source.join("lib.rs"), library(world).to_owned()),
        (path.join("README.md"), readme.replace("FILE", &file)),
        (path.join(".gitignore"), "/target\n/*.wasm\n".to_owned()),
    ];
    files.extend(cases.map(|text| (path.join("cases.toml"), text.replace("FILE", &file))));
    for (file, text) in files {
        fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(format!(
        "{}: a policy for {slot}. Next, in that folder:\n  \
         cargo test\n  \
         tidegate plugin build\n  \
         {test}\n",
        path.display()
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

const README: &str = "\
# NAME

A SLOT policy for Tidegate, in `src/lib.rs`.

```sh
cargo test                        # its own tests, as native code
tidegate plugin build             # makes FILE.wasm
TEST
tidegate plugin push SLOT FILE.wasm --shadow 100
```

The test runs every check of an upload in the same sandbox, and the statements in `cases.toml`, if there is one.
";

/// Statements to ask about; none for advice, which is not about single ones.
fn cases(world: Slot) -> Option<&'static str> {
    match world {
        Slot::Routing => Some(include_str!("templates/routing.cases.txt")),
        Slot::Caching => Some(include_str!("templates/caching.cases.txt")),
        Slot::Limiting => Some(include_str!("templates/limiting.cases.txt")),
        Slot::Advising => None,
    }
}

fn library(world: Slot) -> &'static str {
    match world {
        Slot::Routing => include_str!("templates/routing.rs.txt"),
        Slot::Caching => include_str!("templates/caching.rs.txt"),
        Slot::Limiting => include_str!("templates/limiting.rs.txt"),
        Slot::Advising => include_str!("templates/advising.rs.txt"),
    }
}
