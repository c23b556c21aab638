//! Log lines to standard error, as text or JSON, with a filter that a reload may change.

use std::io::IsTerminal;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use crate::config::{LogConfig, LogFormat};

/// Changes the filter of a running process. The format stays: readers of the log rely on it.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Takes the filter of a new configuration.
    ///
    /// # Errors
    /// A sentence, when the filter can't be parsed.
    pub fn set_filter(&self, filter: &str) -> Result<(), String> {
        let filter = parse_filter(filter)?;
        self.0.reload(filter).map_err(|error| format!("the log filter was not replaced: {error}"))
    }
}

/// Starts logging for the process.
///
/// # Errors
/// A sentence: the filter can't be parsed, or logging was started before.
pub fn init(config: &LogConfig) -> Result<LogHandle, String> {
    let (filter, handle) = reload::Layer::new(parse_filter(&config.filter)?);
    let lines = match config.format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Text => fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|error| format!("logging could not be started: {error}"))?;
    Ok(LogHandle(handle))
}

/// Reads `info`, `warn,tidegate::upstream=debug`, ….
///
/// # Errors
/// A sentence that says what can't be read.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|error| format!("not a log filter: {error}"))
}
