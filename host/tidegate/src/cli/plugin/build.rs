//! `tidegate plugin build`: a crate compiled to WebAssembly, by whichever cargo on this machine can.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tidegate_policy::toolchain::{TARGET, Toolchain};

/// Compiles the crate in a folder and puts `name.wasm` there.
///
/// # Errors
/// No compiler, no crate, or what cargo said went wrong; its own words are on standard error already.
pub(super) fn run(folder: &Path) -> Result<String, String> {
    let toolchain = Toolchain::find("rustc", "cargo")?;
    let Library { name, target } = library(folder)?;
    eprintln!("tidegate: building with {} …", toolchain.name());
    let mut cargo = toolchain.build();
    let status = cargo.current_dir(folder).status().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("{} does not build", folder.display()));
    }
    let file = format!("{name}.wasm");
    let built = Path::new(&target).join(TARGET).join("release").join(&file);
    let own = folder.join(&file);
    let bytes = std::fs::copy(&built, &own)
        .map_err(|error| format!("{} to {}: {error}", built.display(), own.display()))?;
    Ok(format!("{}: {bytes} bytes\n", own.display()))
}

struct Library {
    /// As its file is named.
    name: String,
    /// The target directory.
    target: String,
}

/// What cargo says of the crate.
fn library(folder: &Path) -> Result<Library, String> {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(folder);
    let output = cargo.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("{} is no crate", folder.display()));
    }
    let said: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let targets = said["packages"].as_array().into_iter().flatten();
    let targets = targets.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let is_library = |target: &&Value| {
        target["crate_types"].as_array().is_some_and(|types| types.iter().any(|t| t == "cdylib"))
    };
    let names: Vec<&str> =
        targets.filter(is_library).filter_map(|target| target["name"].as_str()).collect();
    match (&names[..], said["target_directory"].as_str()) {
        ([name], Some(target)) => {
            Ok(Library { name: name.replace('-', "_"), target: target.to_owned() })
        }
        _ => Err(format!(
            "{} has no library with crate-type = [\"cdylib\"], or more than one",
            folder.display()
        )),
    }
}
