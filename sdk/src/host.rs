//! What a policy may ask the host. In native builds a stand-in of the same behaviour answers: see [`crate::testing`].

#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host as there;
#[cfg(target_arch = "wasm32")]
use wasm as there;

pub use crate::bindings::routing::tidegate::policy::log::Level;
pub use crate::bindings::routing::tidegate::policy::metrics::MetricKind;
pub use crate::bindings::routing::tidegate::policy::state::StateError;

/// Writes to the host's log; more than the host's rate are dropped and counted.
pub fn log(level: Level, message: &str) {
    there::log(level, message);
}

/// [`log`] at the level for what an operator should see.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// [`log`] at the level for what is broken.
pub fn error(message: &str) {
    log(Level::Error, message);
}

/// Milliseconds since 1970.
pub fn wall_ms() -> u64 {
    there::wall_ms()
}

/// Nanoseconds that never go back.
pub fn monotonic_ns() -> u64 {
    there::monotonic_ns()
}

/// 64 random bits, not for secrets.
pub fn random() -> u64 {
    there::random()
}

/// Values that all instances of the policy share, and that outlive it.
pub mod state {
    use super::{StateError, there};

    /// The value of a key.
    pub fn get(key: &str) -> Option<Vec<u8>> {
        there::get(key)
    }

    /// Keeps a value; a `ttl_ms` of 0 keeps it until it is removed.
    pub fn put(key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError> {
        there::put(key, value, ttl_ms)
    }

    /// Forgets a key.
    pub fn remove(key: &str) {
        there::remove(key);
    }

    /// Adds to a counter and returns its new value.
    pub fn add(key: &str, delta: i64, ttl_ms: u64) -> Result<i64, StateError> {
        there::add(key, delta, ttl_ms)
    }

    /// Puts only if the value is still `expected`; tells whether it did.
    pub fn compare_and_put(
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<bool, StateError> {
        there::compare_and_put(key, expected, value, ttl_ms)
    }
}

/// A metric of the policy's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric(u32);

impl Metric {
    /// The same name again gives the same metric. The error says why the host does not take it.
    pub fn define(name: &str, kind: MetricKind) -> Result<Metric, String> {
        there::define(name, kind).map(Metric)
    }

    /// Adds to a counter, sets a gauge, or adds to a histogram.
    pub fn record(self, value: f64) {
        there::record(self.0, value);
    }
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use super::{Level, MetricKind, StateError};
    use crate::bindings::routing::tidegate::policy as imports;

    pub(super) fn log(level: Level, message: &str) {
        imports::log::write(level, message);
    }
    pub(super) fn wall_ms() -> u64 {
        imports::clock::wall_ms()
    }
    pub(super) fn monotonic_ns() -> u64 {
        imports::clock::monotonic_ns()
    }
    pub(super) fn random() -> u64 {
        imports::random::next()
    }
    pub(super) fn get(key: &str) -> Option<Vec<u8>> {
        imports::state::get(key)
    }
    pub(super) fn put(key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError> {
        imports::state::put(key, value, ttl_ms)
    }
    pub(super) fn remove(key: &str) {
        imports::state::remove(key);
    }
    pub(super) fn add(key: &str, delta: i64, ttl_ms: u64) -> Result<i64, StateError> {
        imports::state::add(key, delta, ttl_ms)
    }
    pub(super) fn compare_and_put(
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<bool, StateError> {
        imports::state::compare_and_put(key, expected, value, ttl_ms)
    }
    pub(super) fn define(name: &str, kind: MetricKind) -> Result<u32, String> {
        imports::metrics::define(name, kind)
    }
    pub(super) fn record(metric: u32, value: f64) {
        imports::metrics::record(metric, value);
    }
}
