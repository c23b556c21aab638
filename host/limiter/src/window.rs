//! What was used up within a sliding window: a ring of slots.

use std::time::Duration;

/// Full slots of a window; one more is being filled.
const SLOTS: usize = 60;
const RING: usize = SLOTS + 1;

/// One bucket's counts. Units are charged to the slot they fall into and leave with it, so within any span of the
/// window's length no more than the limit is ever taken, and a unit may count for one slot (a sixtieth) too long.
#[derive(Clone, Debug)]
pub struct Window {
    /// In nanoseconds; at least 1.
    slot_nanos: u64,
    /// The slot that is being filled, counted from the clock's beginning.
    tick: u64,
    total: u32,
    ring: [u32; RING],
}

impl Window {
    /// An empty window of this length.
    pub fn new(length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let slot_nanos = nanos.div_ceil(SLOTS as u64).max(1);
        Self { slot_nanos, tick: 0, total: 0, ring: [0; RING] }
    }

    /// Units that count now.
    pub fn used(&mut self, now: Duration) -> u32 {
        self.advance(now);
        self.total
    }

    /// When units fit in below the limit: at once, or after so long if nobody takes them before. `None`: never.
    pub fn fits(&mut self, units: u32, limit: u32, now: Duration) -> Option<Duration> {
        self.advance(now);
        if units > limit {
            return None;
        }
        let Some(mut missing) = self.total.saturating_add(units).checked_sub(limit) else {
            return Some(Duration::ZERO);
        };
        if missing == 0 {
            return Some(Duration::ZERO);
        }
        // From the oldest slot on: what was charged in it leaves a whole ring later.
        for age in (0..RING as u64).rev() {
            let Some(tick) = self.tick.checked_sub(age) else { continue };
            missing = missing.saturating_sub(self.ring[place(tick)]);
            if missing == 0 {
                let leaves = (tick + RING as u64).saturating_mul(self.slot_nanos);
                return Some(Duration::from_nanos(leaves).saturating_sub(now));
            }
        }
        None
    }

    /// Charges units, whatever the limit.
    pub fn charge(&mut self, units: u32, now: Duration) {
        self.advance(now);
        let slot = &mut self.ring[place(self.tick)];
        // No more than the total can still take, so that the total stays their sum.
        let units = units.min(u32::MAX - self.total);
        *slot += units;
        self.total += units;
    }

    /// What counts now, the oldest first: units, and how old they are at least.
    pub fn history(&mut self, now: Duration) -> impl Iterator<Item = (Duration, u32)> {
        self.advance(now);
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        (0..RING as u64).rev().filter_map(move |age| {
            let tick = self.tick.checked_sub(age)?;
            let end = (tick + 1).saturating_mul(self.slot_nanos);
            let units = self.ring[place(tick)];
            (units > 0).then(|| (Duration::from_nanos(nanos.saturating_sub(end)), units))
        })
    }

    /// Adds what another window of the same length has counted.
    pub fn merge(&mut self, other: &mut Window, now: Duration) {
        self.advance(now);
        other.advance(now);
        // Both stand at the same slot, unless a clock went back.
        self.advance_to(other.tick);
        other.advance_to(self.tick);
        for (own, more) in self.ring.iter_mut().zip(other.ring) {
            let more = more.min(u32::MAX - self.total);
            *own += more;
            self.total += more;
        }
    }

    /// Forgets the slots that are too old. A clock that goes backwards is taken to stand still.
    fn advance(&mut self, now: Duration) {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.advance_to(nanos / self.slot_nanos);
    }

    #[inline]
    fn advance_to(&mut self, tick: u64) {
        if tick <= self.tick {
            return;
        }
        let passed = (tick - self.tick).min(RING as u64);
        for tick in tick + 1 - passed..=tick {
            let slot = &mut self.ring[place(tick)];
            self.total -= *slot;
            *slot = 0;
        }
        self.tick = tick;
    }
}

/// Below `RING`.
fn place(tick: u64) -> usize {
    (tick % RING as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_unit_counts_for_the_window_and_at_most_a_slot_longer() {
        let mut window = Window::new(MINUTE);
        window.charge(3, Duration::from_millis(500));
        assert_eq!(window.used(at(60)), 3);
        assert_eq!(window.used(at(61)), 0);
        window.charge(1, at(100));
        assert_eq!(window.used(at(1_000_000)), 0);
    }

    #[test]
    fn it_tells_when_there_will_be_room() {
        let mut window = Window::new(MINUTE);
        window.charge(2, at(10));
        window.charge(3, at(20));
        assert_eq!(window.fits(5, 10, at(21)), Some(Duration::ZERO));
        assert_eq!(window.fits(6, 10, at(21)), Some(at(71 - 21)));
        assert_eq!(window.fits(8, 10, at(21)), Some(at(81 - 21)));
        assert_eq!(window.fits(11, 10, at(21)), None);
    }

    #[test]
    fn what_was_charged_is_told_by_age_and_can_be_added_to_another() {
        let mut window = Window::new(MINUTE);
        window.charge(2, at(10));
        window.charge(3, Duration::from_millis(20_900));
        let mut other = Window::new(MINUTE);
        other.charge(4, at(20));
        window.merge(&mut other, at(21));
        let told: Vec<_> = window.history(at(30)).collect();
        assert_eq!(told, [(at(19), 2), (at(9), 7)]);
        assert_eq!(window.history(at(71)).collect::<Vec<_>>(), [(at(50), 7)]);
        assert_eq!(window.used(at(81)), 0);
    }

    #[test]
    fn counts_never_run_over() {
        let mut window = Window::new(MINUTE);
        window.charge(u32::MAX, at(1));
        window.charge(7, at(2));
        assert_eq!(window.used(at(3)), u32::MAX);
        assert_eq!(window.used(at(62)), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 29: no window of the length admits more than the limit.
        #[test]
        fn no_span_of_the_windows_length_admits_more_than_the_limit(
            length_ms in 1..5_000u64,
            limit in 1..40u32,
            asks in prop::collection::vec((0..400u64, 1..6u32), 1..300),
        ) {
            let length = Duration::from_millis(length_ms);
            let mut window = Window::new(length);
            let mut admitted: Vec<(Duration, u32)> = Vec::new();
            let mut now = Duration::ZERO;
            for (pause_ms, units) in asks {
                now += Duration::from_millis(pause_ms);
                match window.fits(units, limit, now) {
                    Some(Duration::ZERO) => {
                        window.charge(units, now);
                        admitted.push((now, units));
                        let within = admitted.iter().filter(|(then, _)| *then + length > now);
                        let sum: u32 = within.map(|(_, units)| units).sum();
                        prop_assert!(sum <= limit, "{sum} within {length:?}");
                    }
                    // What it says is true: not earlier, and then at once.
                    Some(after) => {
                        let mut later = window.clone();
                        let early = now + after - Duration::from_nanos(1);
                        prop_assert_ne!(later.fits(units, limit, early), Some(Duration::ZERO));
                        prop_assert_eq!(later.fits(units, limit, now + after), Some(Duration::ZERO));
                        // At most one slot longer than an exact log of what was admitted would have said; and the slots
                        // are whole nanoseconds, so that all of them may be so many longer than the window.
                        let slot = length_ms * 1_000_000 / SLOTS as u64 + 1;
                        let slot = Duration::from_nanos(slot + SLOTS as u64);
                        let exact = admitted.iter().map(|(then, _)| *then + length).find(|left| {
                            let within = admitted.iter().filter(|(then, _)| *then + length > *left);
                            within.map(|(_, units)| units).sum::<u32>() + units <= limit
                        });
                        prop_assert!(exact.is_some_and(|exact| now + after <= exact + slot));
                    }
                    None => prop_assert!(units > limit),
                }
            }
        }
    }
}
