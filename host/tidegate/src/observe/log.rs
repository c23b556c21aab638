//! Log lines to standard error, as text or JSON, with a filter that a reload may change.

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::filter::{Directive, EnvFilter};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use crate::config::{LogConfig, LogFormat};

/// The target of orders over the admin API: who gave them, and what came of them. Written whatever the filter says, unless
/// it names this.
const AUDIT: &str = "tidegate::audit";

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
    let colours = std::io::stderr().is_terminal();
    let (subscriber, handle) = subscriber(config, std::io::stderr, colours)?;
    let started = subscriber.try_init();
    started.map_err(|error| format!("logging could not be started: {error}"))?;
    Ok(handle)
}

fn subscriber<W>(
    config: &LogConfig,
    writer: W,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync, LogHandle), String>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(&config.filter)?);
    let lines = match config.format {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
            .boxed(),
        LogFormat::Text => fmt::layer().with_ansi(colours).with_writer(writer).boxed(),
    };
    Ok((tracing_subscriber::registry().with(filter).with(lines), LogHandle(handle)))
}

/// Reads `info`, `warn,tidegate::upstream=debug`, ….
///
/// # Errors
/// A sentence that says what can't be read.
pub fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    let parsed = EnvFilter::builder().parse(filter);
    let parsed = parsed.map_err(|error| format!("not a log filter: {error}"))?;
    if filter.contains(AUDIT) {
        return Ok(parsed);
    }
    let audit: Result<Directive, _> = format!("{AUDIT}=info").parse();
    Ok(parsed.add_directive(audit.map_err(|error| format!("not a log filter: {error}"))?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written when two levels are logged, the filter is made `debug`, and both are logged
    /// again.
    fn lines(format: LogFormat) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = LogConfig { format, filter: "info".to_owned() };
        let (subscriber, handle) = subscriber(&config, move || writer.clone(), false).unwrap();
        let log = |round: u32| {
            tracing::info!(round, "a \"quoted\" line");
            tracing::debug!(round, "details");
        };
        tracing::subscriber::with_default(subscriber, || {
            log(1);
            handle.set_filter("debug").unwrap();
            assert!(handle.set_filter("tidegate=loud").is_err());
            log(2);
        });
        let written = lines.0.lock().unwrap().clone();
        String::from_utf8(written).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn json_lines_are_objects_and_a_filter_can_be_replaced() {
        let lines = lines(LogFormat::Json);
        assert_eq!(lines.len(), 3, "{lines:?}");
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&first["message"], &first["round"]), (&"a \"quoted\" line".into(), &1.into()));
        let last: serde_json::Value = serde_json::from_str(&lines[2]).unwrap();
        assert_eq!((&last["level"], &last["round"]), (&"DEBUG".into(), &2.into()));
    }

    #[test]
    fn orders_are_logged_whatever_the_filter_says_unless_it_names_them() {
        let count = |filter: &str| {
            let lines = Lines::default();
            let writer = lines.clone();
            let config = LogConfig { format: LogFormat::Text, filter: filter.to_owned() };
            let (subscriber, handle) = subscriber(&config, move || writer.clone(), false).unwrap();
            let order = || tracing::info!(target: "tidegate::audit", what = "promote", "order");
            tracing::subscriber::with_default(subscriber, || {
                order();
                tracing::info!("something else");
                handle.set_filter(filter).unwrap();
                order();
            });
            let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            (written.matches("promote").count(), written.matches("else").count())
        };
        assert_eq!(count("warn"), (2, 0));
        assert_eq!(count("off"), (2, 0));
        assert_eq!(count("error,tidegate::upstream=debug"), (2, 0));
        assert_eq!(count("info"), (2, 1));
        assert_eq!(count("warn,tidegate::audit=off"), (0, 0));
        assert_eq!(count("info,tidegate::audit=warn"), (0, 1));
    }

    #[test]
    fn text_lines_hold_level_message_and_fields() {
        let lines = lines(LogFormat::Text);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains(" INFO ") && lines[0].ends_with("line round=1"), "{lines:?}");
    }
}
