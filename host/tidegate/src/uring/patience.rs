//! Whether to wait for the next completion in the ring itself.

use std::time::Duration;

/// The longest wait: several times what an answer takes that is already on its way, and so short that whoever comes by
/// another way (a new connection, a message from another thread) does not notice.
pub(super) const TIME_MAX: Duration = Duration::from_micros(200);
/// Turns without a wait after many that were in vain.
const SKIPPED_MAX: u32 = 64;

/// Waits as long as that has been worth it: after each wait in vain it lets twice as many turns go by.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Turns to let go by.
    skip: u32,
    /// How many it will be after the next wait in vain, less one.
    next: u32,
}

impl Patience {
    /// Shall this turn wait?
    pub(super) fn waits(&mut self) -> bool {
        let waits = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        waits
    }

    /// How a wait ended.
    pub(super) fn came(&mut self, came: bool) {
        self.skip = if came { 0 } else { self.next + 1 };
        self.next = if came { 0 } else { (2 * self.next + 1).min(SKIPPED_MAX - 1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_in_vain_become_rare_and_one_that_is_worth_it_brings_them_back() {
        let mut patience = Patience::default();
        let mut waits = 0;
        for _ in 0..1_000 {
            if patience.waits() {
                waits += 1;
                patience.came(false);
            }
        }
        assert!((15..30).contains(&waits), "{waits} of 1000");
        while !patience.waits() {}
        patience.came(true);
        assert!(patience.waits());
        patience.came(false);
        assert!(!patience.waits());
        assert!(patience.waits());
    }
}
