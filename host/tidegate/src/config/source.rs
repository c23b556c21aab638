//! Where a configuration comes from: a file and a command line, which a reload reads again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tidegate_core::limits::CONFIG_BYTES_MAX;

use super::check::check;
use super::checked::{Config, Secret};
use super::error::{ConfigError, Origin, Problem};
use super::raw::{At, Raw};
use super::read::read;
use super::value::{Context, FromText};

/// The file read when none is named and it is there.
pub const DEFAULT_FILE: &str = "tidegate.toml";
/// The variable that holds the admin token.
const TOKEN_VARIABLE: &str = "TIDEGATE_ADMIN_TOKEN";

/// A file, if any, and what the command line puts over it.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    file: Option<PathBuf>,
    flags: Raw,
    /// The admin token when nobody gave one: made up once, so that a reload keeps it.
    made_up_token: Option<Secret>,
}

impl ConfigSource {
    pub fn new(file: Option<PathBuf>, flags: Raw) -> Self {
        Self { file, flags, made_up_token: make_up_token() }
    }

    /// The file that is read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The admin token that is used if nobody gave one.
    pub fn made_up_token(&self) -> Option<&Secret> {
        self.made_up_token.as_ref()
    }

    /// Reads the file, puts the flags over it, and checks all of it.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file.
    pub fn read(&self) -> Result<Config, Vec<ConfigError>> {
        let environment = |name: &str| std::env::var(name).ok();
        let (mut raw, errors) = match &self.file {
            None => (Raw::default(), Vec::new()),
            Some(path) => read_file(path, &environment)?,
        };
        raw.overlay(self.flags_and_environment(&environment));
        conclude(errors, check(raw, self.made_up_token.as_ref()))
    }

    fn flags_and_environment(&self, environment: &dyn Fn(&str) -> Option<String>) -> Raw {
        let mut flags = self.flags.clone();
        let token = environment(TOKEN_VARIABLE).filter(|token| !token.is_empty());
        if let (Some(token), None) = (token, &flags.admin.token_file) {
            let origin = Origin::Environment(TOKEN_VARIABLE);
            flags.admin.token = Some(At { value: Secret::new(token), origin });
        }
        flags
    }
}

/// Reads the value of a flag, with the rules of the file but without variables: the shell has
/// expanded them.
///
/// # Errors
/// A sentence.
pub(crate) fn flag_value<T: FromText>(text: &str) -> Result<T, String> {
    let environment = |_: &str| None;
    T::from_text(text, Context { base: Path::new(""), environment: &environment })
}

/// Joins what reading and checking found, in the order of the file.
///
/// A value that could not be read is not called missing too, nor does it contradict others.
pub(super) fn conclude(
    mut errors: Vec<ConfigError>,
    checked: Result<Config, Vec<ConfigError>>,
) -> Result<Config, Vec<ConfigError>> {
    let follows = |error: &ConfigError, earlier: &ConfigError| match &error.problem {
        Problem::Missing(_) => {
            let rest = earlier.key.strip_prefix(&error.key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
        Problem::Contradiction(text) => !earlier.key.is_empty() && text.contains(&earlier.key),
        _ => false,
    };
    let more = match checked {
        Ok(config) if errors.is_empty() => return Ok(config),
        Ok(_) => Vec::new(),
        Err(more) => more,
    };
    let told = errors.len();
    for error in more {
        if !errors[..told].iter().any(|earlier| follows(&error, earlier)) {
            errors.push(error);
        }
    }
    errors.sort_by_key(|error| match &error.origin {
        Some(Origin::File { line, column, .. }) => (0, *line, *column),
        Some(_) => (1, 0, 0),
        None => (2, 0, 0),
    });
    Err(errors)
}

fn read_file(
    path: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Raw, Vec<ConfigError>), Vec<ConfigError>> {
    let name = path.display().to_string();
    let text = read_bounded(path, CONFIG_BYTES_MAX).map_err(|error| {
        let problem = Problem::Unreadable(format!("{name} can't be read: {error}"));
        vec![ConfigError { origin: None, key: String::new(), problem }]
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    let reading = read(&text, &name, Context { base, environment });
    Ok((reading.raw, reading.errors))
}

/// Reads a file of text, up to a length.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        let message = format!("it is longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// 32 random bytes in hexadecimal; none when the system has no randomness, and then a token must be
/// given.
fn make_up_token() -> Option<Secret> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(Secret::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}
