//! How much a policy may log.

use crate::limits::{POLICY_LOG_BYTES_MAX, POLICY_LOG_INTERVAL, POLICY_LOG_LINES_MAX};
use std::time::Instant;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Written, after so many that were dropped.
    Write {
        dropped: u64,
    },
    Drop,
}

/// Lines within an interval; the rest is counted, and told with the first line of a later interval.
#[derive(Clone, Debug, Default)]
pub struct LogBudget {
    began: Option<Instant>,
    lines: u32,
    dropped: u64,
}

impl LogBudget {
    pub fn handle_line(&mut self, now: Instant) -> Verdict {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= POLICY_LOG_INTERVAL;
        if self.began.is_none_or(is_over) {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines >= POLICY_LOG_LINES_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return Verdict::Drop;
        }
        self.lines += 1;
        Verdict::Write { dropped: std::mem::take(&mut self.dropped) }
    }
}

/// A message as it is written: cut, and on one line.
pub fn clean(message: &str) -> String {
    let cut =
        message.char_indices().take_while(|(at, c)| at + c.len_utf8() <= POLICY_LOG_BYTES_MAX);
    cut.map(|(_, c)| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_line_is_lost_uncounted(pauses_ms in prop::collection::vec(0..400u64, 1..400)) {
            let start = Instant::now();
            let (mut now, mut budget) = (start, LogBudget::default());
            let (mut written, mut told, mut total) = (Vec::new(), 0, 0u64);
            for pause in pauses_ms {
                now += Duration::from_millis(pause);
                total += 1;
                if let Verdict::Write { dropped } = budget.handle_line(now) {
                    written.push(now);
                    told += dropped;
                }
            }
            prop_assert_eq!(written.len() as u64 + told + budget.dropped, total);
            let most = POLICY_LOG_LINES_MAX as usize;
            for lines in written.windows(2 * most + 1) {
                prop_assert!(lines[2 * most] - lines[0] >= POLICY_LOG_INTERVAL);
            }
        }

        #[test]
        fn a_message_is_one_short_line(message in "\\PC{0,2000}|[\u{0}-\u{1f}é]{0,50}") {
            let clean = clean(&message);
            prop_assert!(clean.len() <= POLICY_LOG_BYTES_MAX);
            prop_assert!(!clean.chars().any(char::is_control));
        }
    }
}
