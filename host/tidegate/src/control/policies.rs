//! The policies that come with the program: started beside the data plane, which answers itself until they are ready.

use std::sync::Arc;
use std::thread;

use tidegate_core::policy::Slot;
use tidegate_policy::{
    Change, Engine, Event, Level, LoadError, Registry, Settings, Sink, Source, embedded,
};

/// Tells the log what happens with plugins.
struct Log;

impl Sink for Log {
    fn handle(&self, slot: Slot, event: &Event<'_>) {
        let slot = slot.name();
        match event {
            Event::Log { level, message, dropped } => match level {
                Level::Error | Level::Warn => tracing::warn!(slot, dropped, "plugin: {message}"),
                Level::Info => tracing::info!(slot, dropped, "plugin: {message}"),
                Level::Debug => tracing::debug!(slot, dropped, "plugin: {message}"),
            },
            Event::Metric { .. } => {}
            Event::Fault { generation, kind, detail } => {
                tracing::warn!(
                    slot,
                    generation,
                    ?kind,
                    detail,
                    "a plugin failed; the built-in answer stands in"
                );
            }
            Event::Quarantined { generation, last, restored } => {
                tracing::error!(
                    slot,
                    generation,
                    ?last,
                    ?restored,
                    "a plugin is taken out: it failed too often"
                );
            }
            Event::RolledBack { generation, reason } => {
                tracing::warn!(slot, generation, ?reason, "a canary is given up");
            }
            Event::Swapped { from, to } => tracing::info!(slot, ?from, ?to, "policy"),
        }
    }
}

/// A registry in which the host answers itself, for so many threads that ask.
///
/// # Errors
/// The system gives no memory for the sandbox.
pub fn registry(threads: usize, seed: u64) -> Result<Arc<Registry>, LoadError> {
    let settings = Settings { instances: threads + 1, ..Settings::default() };
    let engine = Arc::new(Engine::new(settings)?);
    let sink: Arc<dyn Sink> = Arc::new(Log);
    Ok(Arc::new(Registry::new(engine, seed, &sink)))
}

/// Compiles the default policy of a slot on a thread of its own, and has it answer.
///
/// # Errors
/// The system gives no thread.
pub fn start_default(registry: &Arc<Registry>, slot: Slot) -> std::io::Result<()> {
    let registry = Arc::clone(registry);
    let load = move || {
        let policy = embedded(slot);
        let source = Source { slot, bytes: policy.bytes, settings: "" };
        let loaded = registry.load(source).map_err(|error| error.to_string());
        let changed = loaded.and_then(|generation| {
            let change = (slot, Change::Activate(generation));
            registry.change(&[change]).map_err(|error| error.to_string())
        });
        if let Err(error) = changed {
            tracing::error!(
                slot = slot.name(),
                policy = policy.name,
                error,
                "a default policy does not start; the host answers itself"
            );
        }
    };
    thread::Builder::new().name("tidegate-compile".to_owned()).spawn(load).map(drop)
}
