//! How many statements may run in a window: what the built-in limiting policy is told.

use std::time::Duration;

use tidegate_core::limits::{
    POLICY_LIMIT_WAIT_DEFAULT, POLICY_LIMIT_WINDOW_DEFAULT, POLICY_LIMIT_WINDOW_MAX,
    POLICY_QUEUE_TIME_MAX, RATE_ADMINISTRATORS_MAX,
};
use tidegate_core::policy::builtin::Limits;
use tidegate_limiter::FailMode;

use super::check::Checker;
use super::raw::{At, RawRateRedis, RawRates, Timeout};
use super::sharing::RedisUrl;

/// `[rates]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    pub limits: Limits,
    /// Users that are counted and never refused.
    pub administrators: Vec<String>,
    /// Where several processes count together, if they do.
    pub redis: Option<RateRedis>,
}

/// `[rates.redis]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateRedis {
    pub url: RedisUrl,
    /// What all keys begin with.
    pub prefix: String,
    /// Statements wait no longer.
    pub deadline: Duration,
    pub fail_mode: FailMode,
}

impl Rates {
    /// The same for the plugin that comes with Tidegate.
    pub fn settings(&self) -> String {
        let Limits { window, end_user, all, wait } = &self.limits;
        serde_json::json!({
            "window_ms": window.as_millis(),
            "end_user": end_user.unwrap_or(0),
            "all": all.unwrap_or(0),
            "wait_ms": wait.as_millis(),
            "administrators": self.administrators,
        })
        .to_string()
    }
}

impl Checker {
    pub(super) fn rates(&mut self, written: RawRates) -> Rates {
        let RawRates { per_end_user, all, window, wait_max, administrators, redis } = written;
        let mut limit = |key: &str, written: Option<At<usize>>| {
            let units = self.bounded(key, written, 0..=u32::MAX as usize, 0);
            u32::try_from(units).ok().filter(|units| *units > 0)
        };
        let end_user = limit("rates.per_end_user", per_end_user);
        let all = limit("rates.all", all);
        Rates {
            limits: Limits {
                window: self.window(window),
                end_user,
                all,
                wait: self.wait(wait_max),
            },
            administrators: self.administrators(administrators),
            redis: self.rate_redis(redis),
        }
    }

    /// Without `url` there is none, whatever else is written.
    fn rate_redis(&mut self, written: RawRateRedis) -> Option<RateRedis> {
        let RawRateRedis { url, root_ca, prefix, deadline, fail_mode } = written;
        Some(RateRedis {
            url: self.redis_url("rates.redis", url?, root_ca)?,
            prefix: self.redis_prefix("rates.redis", prefix),
            deadline: self.redis_deadline("rates.redis", deadline),
            fail_mode: fail_mode.map_or(FailMode::Local, |mode| mode.value),
        })
    }

    fn window(&mut self, written: Option<At<Duration>>) -> Duration {
        let Some(At { value, origin }) = written else { return POLICY_LIMIT_WINDOW_DEFAULT };
        if value < Duration::from_millis(1) || value > POLICY_LIMIT_WINDOW_MAX {
            let message = format!("{value:?} is not from 1 ms to {POLICY_LIMIT_WINDOW_MAX:?}");
            self.bad_value(&origin, "rates.window", message);
        }
        value
    }

    fn wait(&mut self, written: Option<At<Timeout>>) -> Duration {
        let Some(At { value: Timeout(wait), origin }) = written else {
            return POLICY_LIMIT_WAIT_DEFAULT;
        };
        let value = wait.unwrap_or(Duration::ZERO);
        if value > POLICY_QUEUE_TIME_MAX {
            let message = format!("{value:?} is above {POLICY_QUEUE_TIME_MAX:?}");
            self.bad_value(&origin, "rates.wait_max", message);
        }
        value
    }

    fn administrators(&mut self, written: Vec<At<String>>) -> Vec<String> {
        if let Some(At { origin, .. }) = written.get(RATE_ADMINISTRATORS_MAX) {
            let message = format!("more than {RATE_ADMINISTRATORS_MAX} users");
            self.bad_value(origin, "rates.administrators", message);
        }
        written.into_iter().map(|user| user.value).collect()
    }
}
