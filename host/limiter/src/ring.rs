//! One bucket that several processes count together: a ring of slots in Redis, as `take.lua` and as this reference.
//!
//! It is [`Window`](crate::window::Window) but for three things. Units are taken before they are used, so they count one slot
//! longer. Its clock is Redis's, which may go back: then the ring's goes on from where it was. And it may be lost: each life has
//! a number, so that whoever counted in another one finds out.

use std::time::Duration;

/// Full slots of a window that is long enough.
const SLOTS_MAX: u64 = 60;
/// What is taken may be used for so long, so an answer that comes in time is never too old.
const SLOT_MIN: Duration = Duration::from_millis(50);
/// Of that, what clocks of two machines may differ by.
const DRIFT_DIVISOR: u32 = 64;

/// The function in Redis: `take(keys, args)` and `members(keys, args)`, in Lua.
pub const FUNCTIONS: &str = include_str!("take.lua");

/// How a ring divides its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of a slot.
    pub micros: u64,
    /// Those of the window, the one that is being filled, and one for what is taken before it is used.
    pub slots: u64,
}

impl Span {
    /// For a window of this length.
    pub fn of(window: Duration) -> Self {
        let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX).max(1);
        let micros = window.div_ceil(SLOTS_MAX).max(SLOT_MIN.as_micros() as u64);
        Self { micros, slots: window.div_ceil(micros) + 2 }
    }

    /// How long after they were asked for units may be used.
    pub fn lease(&self) -> Duration {
        let slot = Duration::from_micros(self.micros);
        slot - slot / DRIFT_DIVISOR
    }
}

/// What one process asks of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taking {
    pub span: Span,
    pub limit: u32,
    /// Units without which the others are of no use; 0: it only tells.
    pub need: u32,
    /// And so many more of which each helps.
    pub also: u32,
    /// And these, to use later: no more than one of so many parts of what is left.
    pub extra: u32,
    pub parts: u32,
    /// The life that what follows is about; 0: the process knows of none.
    pub life: u64,
    /// Units that were taken in this slot and not used.
    pub back: Option<(u64, u32)>,
    /// Units that were used without being taken, by how many slots that is ago.
    pub told: Vec<(u32, u32)>,
}

/// What a ring answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub granted: u32,
    /// Of the limit after that; below 0 when more was told than it.
    pub left: i64,
    /// Nothing is granted: there is room after so long, if nobody takes it before.
    pub retry: Duration,
    /// The slot that was charged.
    pub tick: u64,
    /// Which life of the ring this is. If it is not the one that was asked for, what was told and given back was not heeded.
    pub life: u64,
}

/// The ring itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// 0: it is not there.
    life: u64,
    tick: u64,
    /// Slots by which its clock is ahead of Redis's.
    ahead: u64,
    slots: Vec<u64>,
}

impl Ring {
    /// What `take` in `take.lua` does, at a time of Redis in microseconds.
    pub fn take(&mut self, taking: &Taking, micros: u64) -> Taken {
        let Taking { span: Span { micros: width, slots }, limit, need, .. } = *taking;
        let raw = micros / width;
        if self.life == 0 {
            *self = Self { life: micros.max(1), tick: raw, ahead: 0, slots: Vec::new() };
        }
        self.slots.resize(slots as usize, 0);
        let mut now = raw + self.ahead;
        if now < self.tick {
            self.ahead = self.tick - raw;
            now = self.tick;
        }
        for tick in (self.tick + 1).max((now + 1).saturating_sub(slots))..=now {
            self.slots[(tick % slots) as usize] = 0;
        }
        self.tick = now;
        if taking.life == 0 || taking.life == self.life {
            self.heed(taking, now);
        }
        let mut left = i64::from(limit) - self.slots.iter().sum::<u64>().min(1 << 53) as i64;
        let (mut granted, mut retry) = (0, 0);
        if need > 0 && i64::from(need) <= left {
            granted = i64::from(need) + i64::from(taking.also).min(left - i64::from(need));
            let parts = i64::from(taking.parts.max(1));
            granted += i64::from(taking.extra).min((left - granted) / parts);
            self.slots[(now % slots) as usize] += granted as u64;
            left -= granted;
        } else if need > 0 && need <= limit {
            let mut missing = i64::from(need) - left;
            for tick in (now + 1).saturating_sub(slots)..=now {
                missing -= self.slots[(tick % slots) as usize] as i64;
                if missing <= 0 {
                    retry = (tick + slots) * width - (micros + self.ahead * width);
                    break;
                }
            }
        }
        let retry = Duration::from_micros(retry);
        Taken { granted: granted as u32, left, retry, tick: now, life: self.life }
    }

    fn heed(&mut self, taking: &Taking, now: u64) {
        let slots = taking.span.slots;
        if let Some((tick, units)) =
            taking.back.filter(|(tick, _)| *tick <= now && tick + slots > now)
        {
            let slot = &mut self.slots[(tick % slots) as usize];
            *slot -= u64::from(units).min(*slot);
        }
        for (age, units) in taking.told.iter().filter(|(age, _)| u64::from(*age) < slots) {
            let tick = now.saturating_sub(u64::from(*age));
            self.slots[(tick % slots) as usize] += u64::from(*units);
        }
    }

    /// It is lost, with all that it knew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taking(need: u32) -> Taking {
        let span = Span::of(Duration::from_secs(60));
        let told = Vec::new();
        Taking { span, limit: 10, need, also: 0, extra: 0, parts: 4, life: 0, back: None, told }
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_window_has_sixty_slots_and_a_short_one_fewer() {
        let span = |ms| Span::of(Duration::from_millis(ms));
        assert_eq!(span(60_000), Span { micros: SECOND, slots: 62 });
        assert_eq!(span(1_000), Span { micros: 50_000, slots: 22 });
        assert_eq!(span(1), Span { micros: 50_000, slots: 3 });
        assert!(span(60_000).lease() < Duration::from_secs(1));
    }

    #[test]
    fn what_is_taken_counts_for_the_window_and_two_slots_at_most() {
        let mut ring = Ring::default();
        let first = ring.take(&taking(10), 100 * SECOND + SECOND / 2);
        assert_eq!((first.granted, first.left, first.tick), (10, 0, 100));
        let denied = ring.take(&taking(1), 110 * SECOND);
        assert_eq!((denied.granted, denied.retry), (0, Duration::from_secs(52)));
        assert_eq!(ring.take(&taking(1), 162 * SECOND - 1).granted, 0);
        assert_eq!(ring.take(&taking(1), 162 * SECOND).granted, 1);
    }

    #[test]
    fn more_than_is_needed_is_a_part_of_what_is_left() {
        let mut ring = Ring::default();
        let much = Taking { limit: 100, also: 3, extra: 64, parts: 8, ..taking(2) };
        // Two, three, and an eighth of ninety-five.
        assert_eq!(ring.take(&much, SECOND).granted, 2 + 3 + 11);
        let near = Taking { limit: 20, ..much };
        assert_eq!(ring.take(&near, SECOND).granted, 4, "what is left, and no more");
    }

    #[test]
    fn what_is_told_of_another_life_is_not_heeded() {
        let mut ring = Ring::default();
        let life = ring.take(&taking(4), 100 * SECOND).life;
        let back = Taking { life, back: Some((100, 3)), told: vec![(1, 2)], ..taking(0) };
        assert_eq!(ring.take(&back, 101 * SECOND).left, 10 - 4 + 3 - 2);
        assert_eq!(ring.take(&Taking { life: life + 1, ..back.clone() }, 101 * SECOND).left, 7);
        ring.forget();
        let fresh = ring.take(&back, 102 * SECOND);
        assert_eq!((fresh.left, fresh.life), (10, 102 * SECOND));
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_count_less() {
        let mut ring = Ring::default();
        ring.take(&taking(10), 1_000 * SECOND);
        for second in 1..62 {
            assert_eq!(ring.take(&taking(1), (100 + second) * SECOND).granted, 0, "{second}");
        }
        assert_eq!(ring.take(&taking(1), 163 * SECOND).granted, 1, "and it goes on");
    }
}
