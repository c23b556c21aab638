//! What is known of one server, and whether its trouble is the end of it.

use super::observation::{Fault, Observation};
use super::policy::Policy;
use std::time::{Duration, Instant};

/// Two refusals of the machine that a primary ran on are this far apart before they count.
const REFUSED_TIME_MIN: Duration = Duration::from_millis(20);
/// A silent primary has to miss so many answers; after the second its statements are held.
const MISSES_MIN: u32 = 3;
const MISSES_HELD: u32 = 2;

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    pub(super) seen: Option<(Observation, Instant)>,
    pub(super) trouble: Option<Trouble>,
    pub(super) repoint_after: Option<Instant>,
}

/// It has not answered since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) fault: Fault,
    pub(super) misses: u32,
    pub(super) since: Instant,
    /// Since when nobody listens, in an unbroken row.
    pub(super) refused_since: Option<(Instant, u32)>,
    /// It was silent, or out of reach, from then on.
    pub(super) last: Instant,
}

/// Since when the primary is suspected, and what has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    pub(super) since: Instant,
    /// It has said that it stops or starts: somebody may be restarting it.
    pub(super) announced: bool,
    /// Not before then, after a step that failed.
    pub(super) next: Instant,
}

impl Trouble {
    /// Is it grave enough that statements wait?
    pub(super) fn holds(&self) -> bool {
        match self.fault {
            Fault::Refused | Fault::Unreachable | Fault::Starting | Fault::Stopping => true,
            Fault::Silent => self.misses >= MISSES_HELD,
            // The next attempt will say.
            Fault::Closed | Fault::Denied | Fault::Odd => false,
        }
    }

    /// Has it lasted long enough to call the primary gone?
    pub(super) fn is_over(&self, of: Suspicion, policy: &Policy, now: Instant) -> bool {
        let lasted = now.saturating_duration_since(of.since);
        match self.fault {
            Fault::Refused if !of.announced => {
                let is_sure = |(since, count): (Instant, u32)| {
                    count >= 2 && self.last.saturating_duration_since(since) >= REFUSED_TIME_MIN
                };
                self.refused_since.is_some_and(is_sure)
            }
            Fault::Refused | Fault::Starting | Fault::Stopping => lasted >= policy.restart_max,
            Fault::Silent | Fault::Unreachable => {
                lasted >= policy.silent_max && self.misses >= MISSES_MIN
            }
            Fault::Closed | Fault::Denied | Fault::Odd => false,
        }
    }
}
