//! Tests of configuration: what is accepted, and how errors read.

mod failover; // who decides which server is primary
mod files; // errors of tidegate.toml, defaults, generated pages
mod urls; // postgres:// URLs
mod users; // the users file

use std::path::Path;

use super::check::check;
use super::checked::{Config, Secret};
use super::error::ConfigError;
use super::read::read;
use super::source::conclude;
use super::value::Context;

/// Reads and checks a file with these environment variables.
fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Vec<ConfigError>> {
    let environment = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let context = Context { base: Path::new("/etc/tidegate"), environment: &environment };
    let reading = read(text, "tidegate.toml", context);
    conclude(reading.errors, check(reading.raw, Some(&Secret::new("made-up"))))
}

/// A file with a primary above it.
fn with_primary(text: &str) -> String {
    format!("cluster.primary = \"postgres://app@db/shop\"\n{text}")
}

fn accepted(text: &str) -> Config {
    load(&with_primary(text), &[]).unwrap()
}

/// The errors of a file below a line that names the primary, as they are printed.
fn errors(text: &str) -> String {
    let errors = load(&with_primary(text), &[]).unwrap_err();
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
