//! Limits carried out: a plan's buckets, counted in memory or together with other processes, and what that means for the next
//! statement.
//!
//! commands: `admit`, `flush`; `poll_order` says what to ask of the Redis that all share; events: `handle_taken`, `handle_refused`,
//! `handle_late`, `handle_reached`, `handle_members`, `handle_lost`; getters: `is_reached`, `probe_at`, `members`, `counts`. One
//! for the process; whoever asks holds it alone.

mod breaker; // whether what is shared is asked
mod ring; // one bucket of all processes
mod share; // the same as one process sees it
mod shared; // all of them
mod window; // one bucket's counts
mod windows; // all buckets, bounded

#[cfg(test)]
mod simulation; // several processes, one ring, and a network
#[cfg(test)]
mod tests;

pub use ring::{FUNCTIONS, Ring, Span, Taken, Taking};
pub use share::Name;
use share::Room;
use shared::Shared;
pub use shared::{Counts, FailMode, Order, SharedConfig};
use std::time::Duration;
use tidegate_core::plan::Charge;
use tidegate_core::policy::limit::{Bucket, OverLimit, TransactionState};
use tidegate_core::refusal::Refusal;
use window::Window;
use windows::Windows;

/// What a statement that nobody can count is told to wait, at least.
const LOST_WAIT_MIN: Duration = Duration::from_secs(1);

/// Whether the next statement may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Charged.
    Pass,
    /// Nothing is charged. There may be room after so long; ask again then.
    Later(Duration),
    /// Nothing is charged. Whoever shares is asked about this bucket: ask again when that is answered, or after so long.
    Asked(u128, Duration),
    /// Nothing is charged.
    Over(Over),
}

/// Which bucket had no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    pub bucket: Box<str>,
    pub limit: u32,
    pub window: Duration,
    /// When there will be room if nobody takes it before; `None`: never, for it asks for more than the limit.
    pub retry_after: Option<Duration>,
    pub why: Why,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is used up.
    Used,
    /// Nobody can tell: what is shared does not answer.
    Lost,
}

/// A statement that is to run.
#[derive(Clone, Copy, Debug)]
pub struct Execution {
    pub charge: Charge,
    pub transaction: TransactionState,
    /// How long it has been told to come later.
    pub waited: Duration,
    /// How long it has waited for an answer of those who share.
    pub asked: Duration,
}

/// Counts what buckets have used.
#[derive(Debug, Default)]
pub struct Limiter {
    windows: Windows,
    /// Where several processes count together.
    shared: Option<Shared>,
}

/// A bucket with the hash of whom it counts.
pub type Keyed<'a> = (&'a Bucket, u128);

impl Limiter {
    /// One that counts together with others, once they are reached.
    pub fn shared(config: SharedConfig) -> Self {
        Self { windows: Windows::default(), shared: Some(Shared::new(config)) }
    }

    /// Charges all buckets, or none of them if one has no room. `now` is since any fixed moment. `name` says what the bucket
    /// of this number is called among those who share; it is asked once while the bucket is known.
    pub fn admit(
        &mut self,
        buckets: &[Keyed<'_>],
        execution: &Execution,
        name: &mut dyn FnMut(usize) -> Name,
        now: Duration,
    ) -> Verdict {
        let mut later = Duration::ZERO;
        let mut asks: u64 = 0;
        for (number, keyed @ (bucket, _)) in buckets.iter().enumerate() {
            let patience = match bucket.over.bind(execution.transaction) {
                OverLimit::Count => continue,
                OverLimit::Reject => Duration::ZERO,
                OverLimit::Queue(most) => most.saturating_sub(execution.waited),
            };
            let (retry_after, why) = match self.room(*keyed, execution, || name(number), now) {
                Room::Here => continue,
                Room::Unknown => {
                    asks |= 1 << number;
                    continue;
                }
                Room::After(Some(after)) if after <= patience => {
                    later = later.max(after);
                    continue;
                }
                Room::After(retry_after) => (retry_after, Why::Used),
                Room::Lost => (Some(LOST_WAIT_MIN), Why::Lost),
            };
            self.note_denied(execution);
            let Bucket { name, limit, window, .. } = bucket;
            let (bucket, limit, window) = (name.clone(), *limit, *window);
            return Verdict::Over(Over { bucket, limit, window, retry_after, why });
        }
        if later > Duration::ZERO {
            self.note_denied(execution);
            return Verdict::Later(later);
        }
        if asks != 0 {
            return self.ask(buckets, asks, execution, now);
        }
        if let Charge::Statement { .. } = execution.charge {
            self.charge(buckets, execution, name, now);
        }
        Verdict::Pass
    }

    #[inline]
    fn room(
        &mut self,
        (bucket, key): Keyed<'_>,
        execution: &Execution,
        name: impl FnOnce() -> Name,
        now: Duration,
    ) -> Room {
        let place = self.windows.place(key, bucket.window, now);
        let entry = self.windows.at(place);
        let (units, limit) = (units(bucket, execution.charge), bucket.limit);
        let Some(shared) = &self.shared else {
            return alone(&mut entry.window, units, limit, now);
        };
        let (window, share) = entry.shared(bucket.window, name);
        let room = share.room(units, limit, now);
        if room != Room::Unknown || shared.may_ask(share, execution.asked, now) {
            return room;
        }
        match shared.fail_mode() {
            FailMode::Local => alone(window, units, shared.part(limit).max(units), now),
            FailMode::Open => Room::Here,
            FailMode::Closed => Room::Lost,
        }
    }

    fn charge(
        &mut self,
        buckets: &[Keyed<'_>],
        execution: &Execution,
        name: &mut dyn FnMut(usize) -> Name,
        now: Duration,
    ) {
        let (mut taken, mut owed) = (0, 0);
        for (number, (bucket, key)) in buckets.iter().enumerate() {
            let place = self.windows.place(*key, bucket.window, now);
            let entry = self.windows.at(place);
            let units = units(bucket, execution.charge);
            entry.window.charge(units, now);
            let Some(shared) = &mut self.shared else { continue };
            let (_, share) = entry.shared(bucket.window, || name(number));
            if share.use_up(units, now) {
                taken += 1;
                continue;
            }
            share.owe(units, bucket.window, now);
            shared.list(*key, share);
            if bucket.over.bind(execution.transaction) != OverLimit::Count {
                owed += 1;
            }
        }
        if let Some(shared) = &mut self.shared {
            shared.note_passed(taken, owed);
        }
    }

    fn note_denied(&mut self, execution: &Execution) {
        if let Some(shared) = &mut self.shared {
            shared.note_denied(execution.asked);
        }
    }
}

/// Room in a window that is not shared, or as if it were not.
#[inline]
fn alone(window: &mut Window, units: u32, limit: u32, now: Duration) -> Room {
    match window.fits(units, limit, now) {
        Some(Duration::ZERO) => Room::Here,
        retry_after => Room::After(retry_after),
    }
}

#[inline]
fn units(bucket: &Bucket, charge: Charge) -> u32 {
    match charge {
        Charge::Statement { factor } => bucket.cost.saturating_mul(factor),
        Charge::Transaction => bucket.cost,
    }
}

impl Over {
    /// What the client is told (property 28).
    pub fn refusal(&self) -> Refusal {
        let Over { bucket, limit, window, retry_after, why } = self;
        let window = window.as_secs_f64();
        let message = match why {
            Why::Used => {
                format!("rate limit \"{bucket}\" exceeded: {limit} statements in {window} s")
            }
            Why::Lost => format!(
                "rate limit \"{bucket}\" cannot be counted: the Redis that counts it is lost"
            ),
        };
        let refusal = Refusal::error("53400", message);
        match retry_after {
            Some(after) => {
                let ms = after.as_millis().max(1);
                let seconds = after.as_secs_f64().ceil().max(1.0);
                refusal
                    .detail(format!(
                        "bucket={bucket} limit={limit} window_s={window} remaining=0 retry_after_ms={ms}"
                    ))
                    .hint(format!("Retry after {seconds} s."))
            }
            None => refusal
                .detail(format!("bucket={bucket} limit={limit} window_s={window}: the statement alone costs more."))
                .hint("It cannot run under this limit, however long you wait."),
        }
    }
}
