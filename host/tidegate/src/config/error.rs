//! What is wrong with a configuration: where it was written, which key, and what was meant.

use std::fmt;
use std::sync::Arc;

/// One thing wrong. Its text is one line: `tidegate.toml:12:1: pool.size_mx: unknown key; did you
/// mean size_max?`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// None: nothing was written, which is the problem.
    pub origin: Option<Origin>,
    /// `pool.size_max`; empty for the file as a whole.
    pub key: String,
    pub problem: Problem,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Line and column count from one; the column counts characters.
    File { file: Arc<str>, line: usize, column: usize },
    /// `--listen`
    Flag(&'static str),
    /// `TIDEGATE_ADMIN_TOKEN`
    Environment(&'static str),
}

/// The kinds of errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Not TOML.
    Syntax(String),
    UnknownKey {
        nearest: Option<String>,
    },
    WrongType {
        expected: &'static str,
        found: &'static str,
    },
    /// The right type, but not a value of it.
    BadValue(String),
    /// Each value is good, both together are not; the text names the other key as `table.name`.
    Contradiction(String),
    /// Needed and not written.
    Missing(String),
    /// A file that is named can't be read.
    Unreadable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Flag(name) | Self::Environment(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { nearest: Some(nearest) } => {
                write!(f, "unknown key; did you mean {nearest}?")
            }
            Self::UnknownKey { nearest: None } => f.write_str("unknown key"),
            Self::WrongType { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Syntax(text)
            | Self::BadValue(text)
            | Self::Contradiction(text)
            | Self::Missing(text)
            | Self::Unreadable(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for ConfigError {}

/// The name most like `written`, if one is near enough to have been meant.
pub(super) fn nearest<'a>(
    written: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(&written, name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score >= 0.75).map(|(_, name)| name)
}
