//! What answers a policy's questions in native tests: one host a thread, with a clock that tests move.

use crate::host::{Level, MetricKind, StateError};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Everything that a policy did or left behind on this thread.
#[derive(Debug, Default)]
struct Host {
    now_ms: u64,
    random: u64,
    log: Vec<(Level, String)>,
    values: BTreeMap<String, (Value, Option<u64>)>,
    metrics: Vec<(String, MetricKind, f64)>,
}

#[derive(Clone, Debug)]
enum Value {
    Bytes(Vec<u8>),
    Counter(i64),
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Moves the clock.
pub fn advance_ms(ms: u64) {
    HOST.with_borrow_mut(|host| host.now_ms += ms);
}

/// What was logged so far.
pub fn logged() -> Vec<(Level, String)> {
    HOST.with_borrow(|host| host.log.clone())
}

/// The value of a metric.
pub fn metric(name: &str) -> Option<f64> {
    HOST.with_borrow(|host| {
        host.metrics.iter().find(|(own, ..)| own == name).map(|(.., value)| *value)
    })
}

impl Host {
    fn value(&mut self, key: &str) -> Option<&mut (Value, Option<u64>)> {
        let now = self.now_ms;
        self.values.retain(|_, (_, until)| until.is_none_or(|until| now < until));
        self.values.get_mut(key)
    }

    fn bytes(&mut self, key: &str) -> Option<Vec<u8>> {
        self.value(key).map(|(value, _)| match value {
            Value::Bytes(bytes) => bytes.clone(),
            Value::Counter(number) => number.to_le_bytes().to_vec(),
        })
    }

    fn keep(&mut self, key: &str, value: Value, ttl_ms: u64) {
        let until = (ttl_ms > 0).then(|| self.now_ms.saturating_add(ttl_ms));
        self.values.insert(key.to_owned(), (value, until));
    }
}

pub(crate) fn log(level: Level, message: &str) {
    HOST.with_borrow_mut(|host| host.log.push((level, message.to_owned())));
}

pub(crate) fn wall_ms() -> u64 {
    HOST.with_borrow(|host| host.now_ms)
}

pub(crate) fn monotonic_ns() -> u64 {
    HOST.with_borrow(|host| host.now_ms * 1_000_000)
}

pub(crate) fn random() -> u64 {
    HOST.with_borrow_mut(|host| {
        host.random = host.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (host.random ^ (host.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    })
}

pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
    HOST.with_borrow_mut(|host| host.bytes(key))
}

#[allow(clippy::unnecessary_wraps)] // the real host has a quota
pub(crate) fn put(key: &str, value: &[u8], ttl_ms: u64) -> Result<(), StateError> {
    HOST.with_borrow_mut(|host| host.keep(key, Value::Bytes(value.to_vec()), ttl_ms));
    Ok(())
}

pub(crate) fn remove(key: &str) {
    HOST.with_borrow_mut(|host| host.values.remove(key));
}

pub(crate) fn add(key: &str, delta: i64, ttl_ms: u64) -> Result<i64, StateError> {
    HOST.with_borrow_mut(|host| match host.value(key) {
        Some((Value::Counter(number), _)) => {
            *number = number.saturating_add(delta);
            Ok(*number)
        }
        Some((Value::Bytes(_), _)) => Err(StateError::NotACounter),
        None => {
            host.keep(key, Value::Counter(delta), ttl_ms);
            Ok(delta)
        }
    })
}

#[allow(clippy::unnecessary_wraps)] // the real host has a quota
pub(crate) fn compare_and_put(
    key: &str,
    expected: Option<&[u8]>,
    value: &[u8],
    ttl_ms: u64,
) -> Result<bool, StateError> {
    HOST.with_borrow_mut(|host| {
        let same = host.bytes(key).as_deref() == expected;
        if same {
            host.keep(key, Value::Bytes(value.to_vec()), ttl_ms);
        }
        Ok(same)
    })
}

pub(crate) fn define(name: &str, kind: MetricKind) -> Result<u32, String> {
    HOST.with_borrow_mut(|host| {
        let known = host.metrics.iter().position(|(own, ..)| own == name);
        let index = known.unwrap_or_else(|| {
            host.metrics.push((name.to_owned(), kind, 0.0));
            host.metrics.len() - 1
        });
        u32::try_from(index).map_err(|error| error.to_string())
    })
}

pub(crate) fn record(metric: u32, value: f64) {
    HOST.with_borrow_mut(|host| {
        if let Some((_, kind, total)) = host.metrics.get_mut(metric as usize) {
            *total = if *kind == MetricKind::Gauge { value } else { *total + value };
        }
    });
}
