//! How much is kept of answers, and whether anything may be.

use std::time::Duration;

use tidegate_cache::Bounds;
use tidegate_core::limits::{FOLLOW_TIME_DEFAULT, WRITE_THROUGH_TIME_DEFAULT};

use super::check::{Checker, timeout};
use super::raw::{At, RawCache};
use super::sharing::RedisSettings;

/// Answers unless configured (property 18).
const ENTRIES_DEFAULT: usize = 1_000;
const ENTRIES_MAX: usize = 10_000_000;
const MEMORY_MIB_DEFAULT: usize = 64;
const MEMORY_MIB_MAX: usize = 1 << 20;
const TTL_DEFAULT: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = tidegate_core::limits::POLICY_TTL_MAX;

/// `[cache]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    pub bounds: Bounds,
    /// So long a read waits for another of the same; `None`: none does.
    pub single_flight: Option<Duration>,
    /// So long a writer waits for answers that are read again; `None`: none are.
    pub write_through: Option<Duration>,
    /// What several processes share, if they do.
    pub redis: Option<RedisSettings>,
}

/// Whether answers may be kept in this process at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    Allowed,
    /// The configuration says so, or other processes may write without this one hearing of it.
    Never,
}

impl super::Config {
    /// Others that clients reach by the same address write past this process, unless all share what they keep; and so does one
    /// that hands over and keeps its clients.
    pub fn keeping(&self) -> Keeping {
        let alone = self.peers.is_empty() || self.cache.redis.is_some();
        let alone = alone && self.handover.dir.is_none();
        if alone && self.cache.bounds.entries > 0 { Keeping::Allowed } else { Keeping::Never }
    }
}

impl Checker {
    pub(super) fn cache(&mut self, written: RawCache) -> CacheSettings {
        let RawCache { entries_max, memory_mib_max, ttl_max, single_flight, write_through, redis } =
            written;
        let entries =
            self.bounded("cache.entries_max", entries_max, 0..=ENTRIES_MAX, ENTRIES_DEFAULT);
        let mib = self.bounded(
            "cache.memory_mib_max",
            memory_mib_max,
            1..=MEMORY_MIB_MAX,
            MEMORY_MIB_DEFAULT,
        );
        let ttl = match ttl_max {
            None => TTL_DEFAULT,
            Some(At { value, origin }) => {
                if value.is_zero() || value > TTL_MAX {
                    let message = format!("{value:?} is not from 1 ms to {TTL_MAX:?}");
                    self.bad_value(&origin, "cache.ttl_max", message);
                }
                value
            }
        };
        let redis = self.redis(redis);
        let bounds = Bounds { entries, bytes: mib << 20, ttl };
        let single_flight = timeout(&single_flight, Some(FOLLOW_TIME_DEFAULT));
        let write_through = timeout(&write_through, Some(WRITE_THROUGH_TIME_DEFAULT));
        CacheSettings { bounds, single_flight, write_through, redis }
    }
}
