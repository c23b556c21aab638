//! How many statements may run in a window: what the built-in limiting policy is told.

use std::time::Duration;

use tidegate_core::limits::{
    POLICY_LIMIT_WAIT_DEFAULT, POLICY_LIMIT_WINDOW_DEFAULT, POLICY_LIMIT_WINDOW_MAX,
    POLICY_QUEUE_TIME_MAX, RATE_ADMINISTRATORS_MAX,
};
use tidegate_core::policy::builtin::Limits;

use super::check::Checker;
use super::raw::{At, RawRates, Timeout};

/// `[rates]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    pub limits: Limits,
    /// Users that are counted and never refused.
    pub administrators: Vec<String>,
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
        let RawRates { per_end_user, all, window, wait_max, administrators } = written;
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
        }
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
