//! What is logged.

use super::check::or;
use super::raw::RawLog;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// `tracing-subscriber`'s directives, such as `info` or `info,tidegate::upstream=debug`.
    pub filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

pub(super) fn log(written: RawLog) -> LogConfig {
    LogConfig {
        format: or(&written.format, LogFormat::Text),
        filter: written.filter.map_or_else(|| "info".to_owned(), |filter| filter.value.0),
    }
}
