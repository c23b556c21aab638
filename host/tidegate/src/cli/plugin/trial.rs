//! `tidegate plugin test`: every check that an upload has to pass, in the same sandbox, here; and the author's own cases.

use std::time::Instant;

use tidegate_core::policy::Slot;

use super::cases::Cases;
use super::sandbox::Sandbox;

/// Loads a plugin and asks it about sample statements, then about its cases.
///
/// # Errors
/// The check that failed, and why; or the cases that did.
pub(super) fn run(
    slot: Slot,
    bytes: &[u8],
    settings: &str,
    cases: Option<&Cases>,
) -> Result<String, String> {
    let sandbox = Sandbox::new(slot)?;
    let begun = Instant::now();
    let generation = sandbox.load(slot, bytes, settings)?;
    let loaded = begun.elapsed();
    generation.rehearse().map_err(|unfit| format!("self-test: {unfit}\n{}", unfit.fault.detail))?;
    let info = generation.info();
    let calls = generation.calls();
    let told = format!(
        "{} {}: ok ({} bytes, loaded in {} ms, {calls} sample calls)\n",
        info.name,
        info.version,
        generation.bytes(),
        loaded.as_millis()
    );
    match cases {
        None => Ok(told),
        Some(cases) => Ok(told + &cases.run(&generation)?),
    }
}
