//! `[routing]`: which reads replicas serve, and what these see.

use std::time::Duration;

use tidegate_cluster::OutlierPolicy;
use tidegate_core::limits;

use super::check::{Checker, or, timeout};
use super::raw::{At, RawRouting};

/// Where statements run that a client has not directed itself (`SET tidegate.route`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingSettings {
    pub reads: Reads,
    /// A replica further behind serves no reads.
    pub lag_max: Duration,
    /// A replica that was too far behind serves reads again below this; at most `lag_max`.
    pub lag_return: Duration,
    pub causality: Causality,
    /// A read that no replica is fresh enough for waits this long for one to catch up; `None`: not at all.
    pub catch_up_max: Option<Duration>,
    /// A replica that begins to serve reads has its whole share after this; `None`: at once.
    pub slow_start: Option<Duration>,
    /// Whom the others are so much faster than gets no reads for a time; `None`: nobody.
    pub outliers: Option<OutlierPolicy>,
    /// Reads that no replica takes may use so much of a pool's size at the primary, `1..=100`.
    pub fallback_percent: usize,
}

impl RoutingSettings {
    /// How many connections to the primary such reads may have, beside a pool of this size.
    pub fn fallback_of(&self, size_max: usize) -> usize {
        (size_max * self.fallback_percent).div_ceil(100).max(1)
    }
}

impl Checker {
    pub(super) fn routing(&mut self, written: RawRouting) -> RoutingSettings {
        let lag_max = or(&written.lag_max, limits::REPLICA_LAG_MAX);
        let lag_return = match &written.lag_return {
            None => limits::REPLICA_LAG_RETURN.min(lag_max),
            Some(At { value, origin }) => {
                if *value > lag_max {
                    let message = format!("{value:?} is above routing.lag_max {lag_max:?}");
                    self.contradiction(origin, "routing.lag_return", message);
                }
                *value
            }
        };
        let ratio = self.bounded(
            "routing.eject_ratio",
            written.eject_ratio,
            2..=limits::EJECT_RATIO_MAX,
            limits::EJECT_RATIO,
        );
        let fallback_percent = self.bounded(
            "routing.fallback_percent",
            written.fallback_percent,
            1..=100,
            limits::FALLBACK_PERCENT,
        );
        let floor = or(&written.eject_floor, limits::EJECT_FLOOR);
        let ratio = u32::try_from(ratio).unwrap_or(u32::MAX);
        let outlier = |time| OutlierPolicy { ratio, floor, time };
        RoutingSettings {
            reads: or(&written.reads, Reads::Split),
            lag_max,
            lag_return,
            causality: or(&written.causality, Causality::Session),
            catch_up_max: timeout(&written.catch_up_max, Some(limits::REPLICA_CATCH_UP_MAX)),
            slow_start: timeout(&written.slow_start, Some(limits::SLOW_START_TIME)),
            outliers: timeout(&written.eject_time, Some(limits::EJECT_TIME)).map(outlier),
            fallback_percent,
        }
    }
}

/// What reads on replicas are sure to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Causality {
    /// What their own session has written and seen.
    Session,
    /// That, and what any session has written through this process before.
    Global,
    /// Nothing but what bounds the lag.
    Off,
}

impl Causality {
    pub const ALL: [Self; 3] = [Self::Session, Self::Global, Self::Off];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Global => "global",
            Self::Off => "off",
        }
    }
}

/// Where reads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reads {
    /// On replicas, as far as that is proven to make no difference.
    Split,
    /// With everything else, on the primary.
    Primary,
}

impl Reads {
    pub const ALL: [Self; 2] = [Self::Split, Self::Primary];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Primary => "primary",
        }
    }
}
