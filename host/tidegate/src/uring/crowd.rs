//! Does so much happen at once that the ring pays?
//!
//! What one turn of a worker's tasks sends goes to the kernel by one call, however much it is. A turn that brings one
//! message has nothing to share, and costs more by the ring than by epoll (docs/performance.md).

/// From so many messages a turn on the ring pays, in hundredths.
const BEGINS: u32 = 250;
/// Below so many it no longer does.
const ENDS: u32 = 150;
/// Turns that the mean reaches back, roughly: sockets shall not move at each whim.
const REACH: u32 = 64;

/// How many messages a turn of one worker brings, on average of late.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    messages: u32,
    /// In hundredths of a message, times [`REACH`].
    sum: u32,
    is_there: bool,
}

impl Crowd {
    /// A task has read something.
    pub(super) fn handle_message(&mut self) {
        self.messages = self.messages.saturating_add(1);
    }

    /// All tasks have run. Turns that brought nothing do not count: an idle worker has nothing to gain by moving.
    pub(super) fn handle_turn(&mut self) {
        let messages = std::mem::take(&mut self.messages).min(1_000);
        if messages == 0 {
            return;
        }
        self.sum = self.sum - self.sum / REACH + messages * 100;
        let mean = self.sum / REACH;
        self.is_there = if self.is_there { mean >= ENDS } else { mean >= BEGINS };
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(crowd: &mut Crowd, count: u32, messages: u32) {
        for _ in 0..count {
            (0..messages).for_each(|_| crowd.handle_message());
            crowd.handle_turn();
        }
    }

    #[test]
    fn a_crowd_comes_and_goes_slowly() {
        let mut crowd = Crowd::default();
        turns(&mut crowd, 1_000, 1);
        assert!(!crowd.is_there());
        turns(&mut crowd, 2, 100);
        assert!(crowd.is_there(), "many at once need not be waited for");
        turns(&mut crowd, 60, 1);
        assert!(crowd.is_there(), "a pause is no end");
        turns(&mut crowd, 1_000, 1);
        assert!(!crowd.is_there());
        turns(&mut crowd, 1_000, 2);
        assert!(!crowd.is_there(), "what is between keeps what there is");
        turns(&mut crowd, 1_000, 4);
        turns(&mut crowd, 1_000, 2);
        assert!(crowd.is_there());
        turns(&mut crowd, 1_000_000, 0);
        assert!(crowd.is_there(), "nothing says nothing");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_load_is_too_much(loads in prop::collection::vec((1_u32..2_000, 0_u32..3_000), 1..8)) {
            let mut crowd = Crowd::default();
            for (count, messages) in loads {
                turns(&mut crowd, count.min(100), messages);
                turns(&mut crowd, 400, messages.min(5));
                match messages {
                    0 => {}
                    1 => prop_assert!(!crowd.is_there()),
                    2 => {}
                    _ => prop_assert!(crowd.is_there()),
                }
            }
        }
    }
}
