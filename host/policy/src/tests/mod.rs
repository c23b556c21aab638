//! Plugins in the real sandbox.

mod defaults; // the embedded policies

use crate::{Engine, Generation, Granted, LoadError, Settings, Silence, Source};
use std::sync::{Arc, OnceLock};
use tidegate_core::policy::Slot;

/// One engine for all tests: it is made for several generations.
pub(crate) fn engine() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| Arc::new(Engine::new(Settings::default()).unwrap()))
}

pub(crate) fn load(slot: Slot, bytes: &[u8], settings: &str) -> Result<Generation, LoadError> {
    let granted = Arc::new(Granted::new(slot, 1, Arc::new(Silence)));
    Generation::load(engine(), &granted, Source { slot, bytes, settings })
}
