//! Whether plugins run: while none does, nobody has to look at them, and the thread that would sleeps.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;
use tidegate_core::limits::POLICY_TICK;

/// Ticks beyond those that a call needs: whoever reads the time may read that of a few ticks ago.
const SPARE_TICKS: u64 = 16;
/// The sleeper wakes by itself now and then, so that a mistake here would cost time and no more.
const SLEEP_TIME_MAX: Duration = Duration::from_secs(1);

/// Between the calls and the thread that looks after them.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Ticks so far.
    now: AtomicU64,
    /// The tick up to which a call may have to be looked at.
    until: AtomicU64,
    asleep: AtomicBool,
    /// Tells the sleeper to wake; it takes one word, and more would say the same. Without it nobody sleeps.
    waker: Option<SyncSender<()>>,
}

impl Pulse {
    pub(crate) fn new(waker: SyncSender<()>) -> Self {
        Self { waker: Some(waker), ..Self::default() }
    }

    /// A call begins, or goes on, and is to be looked at in so many ticks. Where calls follow each other, nearly all find
    /// that the next ticks are wanted already.
    #[inline]
    pub(crate) fn want(&self, ticks: u64) {
        let until = self.now.load(Ordering::Relaxed).saturating_add(ticks);
        let is_wanted = self.until.load(Ordering::Relaxed) >= until;
        // Asleep although it is wanted: whoever wants it is about to say so, and may be made to wait before that.
        if !is_wanted || self.asleep.load(Ordering::Relaxed) {
            self.extend(until);
        }
    }

    #[cold]
    fn extend(&self, until: u64) {
        // Each side writes its own word before it reads the other's, so that one of the two sees the other.
        self.until.fetch_max(until.saturating_add(SPARE_TICKS), Ordering::SeqCst);
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

    /// Calls `tick` at every tick that a call wants, and hardly ever otherwise, until it says that it is enough.
    pub(crate) fn keep_time(&self, woken: &Receiver<()>, mut tick: impl FnMut() -> bool) {
        loop {
            let is_wanted = || self.now.load(Ordering::SeqCst) < self.until.load(Ordering::SeqCst);
            let mut wait = POLICY_TICK;
            if !is_wanted() {
                self.asleep.store(true, Ordering::SeqCst);
                if !is_wanted() {
                    wait = SLEEP_TIME_MAX;
                }
            }
            if woken.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            self.asleep.store(false, Ordering::SeqCst);
            self.now.fetch_add(1, Ordering::SeqCst);
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
    use std::sync::mpsc::sync_channel;
    use std::time::Instant;

    #[test]
    fn it_sleeps_while_nothing_runs_and_is_up_as_long_as_a_call_wants() {
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
        // A call that wants ticks gets them, and not many more.
        for wanted in (1..100).chain([1_000]) {
            wait_until(&|| pulse.asleep.load(Ordering::SeqCst));
            let before = ticks.load(Ordering::SeqCst);
            pulse.want(wanted);
            wait_until(&|| ticks.load(Ordering::SeqCst) >= before + wanted);
            wait_until(&|| pulse.asleep.load(Ordering::SeqCst));
            // One by itself each second, on a machine that is very busy.
            assert!(ticks.load(Ordering::SeqCst) <= before + wanted + SPARE_TICKS + 61);
        }
        ends.store(true, Ordering::SeqCst);
        pulse.rouse();
        keeper.join().unwrap();
    }
}
