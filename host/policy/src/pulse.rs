//! Whether plugins run: while none does, nobody has to look at them, and the thread that would sleeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;
use tidegate_core::limits::{POLICY_BACKGROUND_TIME_MAX, POLICY_TICK};

/// Without a beat for so long, no call is under way: a call is looked at first when its time is over, and then at every
/// tick, and each look is a beat.
const QUIET_TICKS_MAX: u32 = 2_000;
const _: () = assert!(
    QUIET_TICKS_MAX as u128 * POLICY_TICK.as_millis() >= 2 * POLICY_BACKGROUND_TIME_MAX.as_millis()
);
/// The sleeper wakes by itself now and then, so that a mistake here would cost time and no more.
const SLEEP_TIME_MAX: Duration = Duration::from_secs(1);

/// Between the calls and the thread that looks after them.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// A call has begun or was looked at since the last tick.
    beats: AtomicBool,
    asleep: AtomicBool,
    /// Tells the sleeper to wake; it takes one word, and more would say the same. Without it nobody sleeps.
    waker: Option<SyncSender<()>>,
}

impl Pulse {
    pub(crate) fn new(waker: SyncSender<()>) -> Self {
        Self { waker: Some(waker), ..Self::default() }
    }

    /// A call begins, or goes on. Nearly always the first look says that it has been said.
    #[inline]
    pub(crate) fn beat(&self) {
        if !self.beats.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Each side writes its own flag before it reads the other's, so that one of the two sees the other.
        self.beats.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.rouse();
        }
    }

    /// The sleeper has something to do.
    pub(crate) fn rouse(&self) {
        if let Some(waker) = &self.waker {
            let _ = waker.try_send(());
        }
    }

    /// Calls `tick` at every tick while plugins run, and hardly ever otherwise, until it says that it is enough.
    pub(crate) fn keep_time(&self, woken: &Receiver<()>, mut tick: impl FnMut() -> bool) {
        let mut quiet_ticks = 0;
        loop {
            let sleeps = quiet_ticks >= QUIET_TICKS_MAX;
            self.asleep.store(sleeps, Ordering::SeqCst);
            let is_woken = sleeps && self.beats.load(Ordering::SeqCst);
            let wait = if sleeps { SLEEP_TIME_MAX } else { POLICY_TICK };
            if !is_woken && woken.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            self.asleep.store(false, Ordering::SeqCst);
            if self.beats.swap(false, Ordering::SeqCst) {
                quiet_ticks = 0;
            } else {
                quiet_ticks = (quiet_ticks + 1).min(QUIET_TICKS_MAX);
            }
            if !tick() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc::sync_channel;
    use std::time::Instant;

    #[test]
    fn it_sleeps_while_nothing_runs_and_is_up_again_at_the_first_beat() {
        let (waker, woken) = sync_channel(1);
        let pulse = Arc::new(Pulse::new(waker));
        let (ticks, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let keeper = std::thread::spawn({
            let (pulse, ticks, ends) = (pulse.clone(), ticks.clone(), ends.clone());
            move || {
                pulse.keep_time(&woken, || {
                    ticks.fetch_add(1, Ordering::SeqCst);
                    !ends.load(Ordering::SeqCst)
                });
            }
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let wait_until = |what: &dyn Fn() -> bool| {
            while !what() {
                assert!(Instant::now() < deadline);
                std::thread::yield_now();
            }
        };
        wait_until(&|| pulse.asleep.load(Ordering::SeqCst));
        assert!(ticks.load(Ordering::SeqCst) >= u64::from(QUIET_TICKS_MAX));
        for _ in 0..100 {
            let before = ticks.load(Ordering::SeqCst);
            pulse.beat();
            wait_until(&|| ticks.load(Ordering::SeqCst) > before + 2);
            assert!(!pulse.asleep.load(Ordering::SeqCst));
        }
        ends.store(true, Ordering::SeqCst);
        pulse.rouse();
        keeper.join().unwrap();
    }
}
