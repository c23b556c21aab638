//! What waits for one receiver: in order, bounded, tried again less and less often, and not for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Letters that wait; of more the oldest is given up.
pub const LETTERS_MAX: usize = 64;
/// A letter that could not be sent for so long is given up: what lasts is told again.
pub const LETTER_TIME_MAX: Duration = Duration::from_secs(3600);
/// After a failure it is tried again in this time, and in twice the time after each further one, up to the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why a letter was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may be taken later.
    Passing,
    /// It never will be: the receiver refuses it.
    Final,
}

/// getters: `next`, `wake_at`, `given_up`; `push`; `handle_sent`, `handle_failure` about the letter that `next` gave.
#[derive(Debug)]
pub struct Outbox<T> {
    letters: VecDeque<(T, Instant)>,
    /// The first of them is being sent.
    is_sending: bool,
    pause: Duration,
    not_before: Option<Instant>,
    given_up: u64,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self {
            letters: VecDeque::new(),
            is_sending: false,
            pause: PAUSE_FIRST,
            not_before: None,
            given_up: 0,
        }
    }
}

impl<T> Outbox<T> {
    pub fn push(&mut self, letter: T, now: Instant) {
        if self.letters.len() >= LETTERS_MAX {
            // The first may be on its way.
            self.letters.remove(usize::from(self.is_sending));
            self.given_up += 1;
        }
        self.letters.push_back((letter, now));
    }

    pub fn len(&self) -> usize {
        self.letters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Letters that nobody has got.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// The letter to send now; the next comes when the outcome of this one is known.
    pub fn next(&mut self, now: Instant) -> Option<&T> {
        if self.is_sending {
            return None;
        }
        while let Some((_, since)) = self.letters.front()
            && now.saturating_duration_since(*since) >= LETTER_TIME_MAX
        {
            self.letters.pop_front();
            self.given_up += 1;
        }
        if self.not_before.is_some_and(|at| now < at) {
            return None;
        }
        let (letter, _) = self.letters.front()?;
        self.is_sending = true;
        Some(letter)
    }

    pub fn handle_sent(&mut self) {
        self.finish();
        (self.pause, self.not_before) = (PAUSE_FIRST, None);
    }

    pub fn handle_failure(&mut self, failure: Failure, now: Instant) {
        match failure {
            Failure::Passing => {
                self.is_sending = false;
                self.not_before = Some(now + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
            Failure::Final => {
                self.finish();
                self.given_up += 1;
            }
        }
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.is_sending) {
            self.letters.pop_front();
        }
    }

    /// When to ask for the next, while none is being sent.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let is_due = !self.is_sending && !self.letters.is_empty();
        is_due.then(|| self.not_before.unwrap_or(now))
    }
}
