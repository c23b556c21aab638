//! `[routing]`: which reads replicas serve, and what these see.

use std::time::Duration;

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
