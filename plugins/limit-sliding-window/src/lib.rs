//! So many statements per window for each end user and for all; administrators pass, counted.

use tidegate_sdk::prelude::*;

/// Settings. A limit of 0 is none.
#[derive(Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default, deny_unknown_fields)]
struct SlidingWindow {
    window_ms: u64,
    end_user: u32,
    all: u32,
    /// A statement over a limit waits so long at most, then is refused.
    wait_ms: u32,
    /// Users or roles.
    administrators: Vec<String>,
}

impl Default for SlidingWindow {
    fn default() -> SlidingWindow {
        let administrators = Vec::new();
        SlidingWindow { window_ms: 60_000, end_user: 100, all: 10_000, wait_ms: 0, administrators }
    }
}

impl Policy for SlidingWindow {
    fn check(&mut self) -> Result<(), String> {
        if self.window_ms > 0 { Ok(()) } else { Err("window_ms must be above 0".into()) }
    }
}

impl Limiting for SlidingWindow {
    fn plan_limit(&self, _shape: &Shape, identity: &Identity) -> LimitPlan {
        if self.end_user == 0 && self.all == 0 {
            return LimitPlan::unlimited();
        }
        let mut buckets = Vec::new();
        if self.end_user > 0 && identity.end_user.is_some() {
            let (key, limit) = ("{end-user}", self.end_user);
            buckets.push(Bucket::per_window("end user", key, limit, self.window_ms));
        }
        if self.all > 0 {
            buckets.push(Bucket::per_window("all", "all", self.all, self.window_ms));
        }
        if identity.is_any_of(&self.administrators) {
            buckets = buckets.into_iter().map(Bucket::count_only).collect();
        } else if self.wait_ms > 0 {
            buckets = buckets.into_iter().map(|bucket| bucket.queue_ms(self.wait_ms)).collect();
        }
        LimitPlan::for_every_shape(buckets)
    }
}

tidegate_sdk::register!(limiting: SlidingWindow);

#[cfg(test)]
mod tests;
