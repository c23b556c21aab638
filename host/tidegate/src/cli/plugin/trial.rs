//! `tidegate plugin test`: every check that an upload has to pass, in the same sandbox, here.

use std::sync::Arc;
use std::time::Instant;

use tidegate_core::policy::Slot;
use tidegate_policy::{Engine, Generation, Granted, Settings, Silence, Source};

/// Loads a plugin and asks it about sample statements.
///
/// # Errors
/// The check that failed, and why.
pub(super) fn run(slot: Slot, bytes: &[u8], settings: &str) -> Result<String, String> {
    let engine = Engine::new(Settings { instances: 1, ..Settings::default() });
    let engine = Arc::new(engine.map_err(|error| error.to_string())?);
    let granted = Arc::new(Granted::new(slot, 1, Arc::new(Silence)));
    let begun = Instant::now();
    let source = Source { slot, bytes, settings };
    let generation = Generation::load(&engine, &granted, source)
        .map_err(|error| format!("{}: {error}", error.check()))?;
    let loaded = begun.elapsed();
    generation.rehearse().map_err(|fault| format!("self-test: {fault}"))?;
    let info = generation.info();
    let calls = generation.calls();
    Ok(format!(
        "{} {}: ok ({} bytes, loaded in {} ms, {calls} sample calls)\n",
        info.name,
        info.version,
        generation.bytes(),
        loaded.as_millis()
    ))
}
