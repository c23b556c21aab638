//! The data of one instance, and the host's side of what plugins may call.

use crate::bindings::since_v0_1::{clock, log, metrics, random, state, types};
use crate::event::{Level, MetricKind};
use crate::granted::Granted;
use crate::pulse::Pulse;
use crate::watch::Watch;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tidegate_core::policy::state::{Lifetime, StateError};

/// What wasmtime keeps for one instance.
pub(crate) struct Guest {
    pub(crate) watch: Watch,
    granted: Arc<Granted>,
    random: u64,
}

impl Guest {
    pub(crate) fn new(granted: Arc<Granted>, memory_bytes_max: usize, pulse: Arc<Pulse>) -> Guest {
        let random = granted.next_seed();
        Guest { watch: Watch::new(memory_bytes_max, pulse), granted, random }
    }

    /// Writes to the log, within its limits.
    pub(crate) fn say(&self, level: Level, message: &str) {
        self.granted.log(level, message);
    }

    /// SplitMix64.
    pub(crate) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.watch.host_call()?;
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.granted.log(level, &message);
        Ok(())
    }
}

impl clock::Host for Guest {
    fn wall_ms(&mut self) -> wasmtime::Result<u64> {
        self.watch.host_call()?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic_ns(&mut self) -> wasmtime::Result<u64> {
        self.watch.host_call()?;
        Ok(self.granted.age_ns())
    }
}

impl random::Host for Guest {
    fn next(&mut self) -> wasmtime::Result<u64> {
        self.watch.host_call()?;
        Ok(self.next_random())
    }
}

impl state::Host for Guest {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.watch.host_call()?;
        Ok(self.granted.state().get(&key, Instant::now()))
    }

    fn put(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> wasmtime::Result<Result<(), state::StateError>> {
        self.watch.host_call()?;
        let lifetime = Lifetime::from_ms(ttl_ms);
        let put = self.granted.state().put(&key, &value, lifetime, Instant::now());
        Ok(put.map_err(Into::into))
    }

    fn remove(&mut self, key: String) -> wasmtime::Result<()> {
        self.watch.host_call()?;
        self.granted.state().remove(&key);
        Ok(())
    }

    fn add(
        &mut self,
        key: String,
        delta: i64,
        ttl_ms: u64,
    ) -> wasmtime::Result<Result<i64, state::StateError>> {
        self.watch.host_call()?;
        let lifetime = Lifetime::from_ms(ttl_ms);
        let sum = self.granted.state().add(&key, delta, lifetime, Instant::now());
        Ok(sum.map_err(Into::into))
    }

    fn compare_and_put(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> wasmtime::Result<Result<bool, state::StateError>> {
        self.watch.host_call()?;
        let put = (value.as_slice(), Lifetime::from_ms(ttl_ms));
        let mut state = self.granted.state();
        let done = state.compare_and_put(&key, expected.as_deref(), put, Instant::now());
        Ok(done.map_err(Into::into))
    }
}

impl From<StateError> for state::StateError {
    fn from(error: StateError) -> state::StateError {
        match error {
            StateError::QuotaExceeded => state::StateError::QuotaExceeded,
            StateError::TooLarge => state::StateError::TooLarge,
            StateError::NotACounter => state::StateError::NotACounter,
        }
    }
}

impl metrics::Host for Guest {
    fn define(
        &mut self,
        name: String,
        kind: metrics::MetricKind,
    ) -> wasmtime::Result<Result<u32, String>> {
        self.watch.host_call()?;
        let kind = match kind {
            metrics::MetricKind::Counter => MetricKind::Counter,
            metrics::MetricKind::Gauge => MetricKind::Gauge,
            metrics::MetricKind::Histogram => MetricKind::Histogram,
        };
        Ok(self.granted.define(&name, kind))
    }

    fn record(&mut self, metric: u32, value: f64) -> wasmtime::Result<()> {
        self.watch.host_call()?;
        self.granted.record(metric, value);
        Ok(())
    }
}
