//! When a call has used too much: CPU time, memory, calls of the host, handles.

use crate::pulse::Pulse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidegate_core::limits::{POLICY_HANDLES_MAX, POLICY_HOST_CALLS_MAX, POLICY_TABLE_ENTRIES_MAX};
use wasmtime::{ResourceLimiter, UpdateDeadline};

/// What one call may still use. Armed before each call.
///
/// The engine's epochs are time on the clock, and a thread that waits for a processor has done nothing wrong: so the
/// first look, after the call's time, only notes the thread's CPU time, and each later one compares.
#[derive(Debug)]
pub(crate) struct Watch {
    cpu_budget: Duration,
    /// At the first look.
    cpu_then: Option<Duration>,
    host_calls: u32,
    /// Handles that it holds, since the instance began.
    handles: u32,
    memory_bytes_max: usize,
    pulse: Arc<Pulse>,
    /// Its memory as it last grew.
    memory_bytes: usize,
}

/// Why the host ended a call. Found again in wasmtime's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    Memory,
    HostCalls,
    Handles,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exceeded::Memory => "more memory than allowed",
            Exceeded::HostCalls => "more calls of the host than allowed",
            Exceeded::Handles => "more handles than allowed",
        })
    }
}

impl std::error::Error for Exceeded {}

impl Watch {
    pub(crate) fn new(memory_bytes_max: usize, pulse: Arc<Pulse>) -> Watch {
        Watch {
            pulse,
            cpu_budget: Duration::ZERO,
            cpu_then: None,
            host_calls: 0,
            handles: 0,
            memory_bytes_max,
            memory_bytes: 0,
        }
    }

    /// The instance's memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// For a new call, which is looked at after so many ticks.
    pub(crate) fn arm(&mut self, cpu_budget: Duration, ticks: u64) {
        self.cpu_budget = cpu_budget;
        self.cpu_then = None;
        self.host_calls = POLICY_HOST_CALLS_MAX;
        self.pulse.want(ticks);
    }

    /// A look at a call that still runs.
    pub(crate) fn look(&mut self, cpu_now: Duration) -> UpdateDeadline {
        // The next deadline is set after this, and may be a tick later.
        self.pulse.want(2);
        let then = *self.cpu_then.get_or_insert(cpu_now);
        if cpu_now.saturating_sub(then) >= self.cpu_budget {
            UpdateDeadline::Interrupt
        } else {
            UpdateDeadline::Continue(1)
        }
    }

    /// Counts a call of the host.
    pub(crate) fn host_call(&mut self) -> Result<(), Exceeded> {
        self.host_calls = self.host_calls.checked_sub(1).ok_or(Exceeded::HostCalls)?;
        Ok(())
    }
}

/// Handles outlive the call: a plugin that kept each would have the host's table of them grow for ever.
impl Watch {
    /// Counts a handle that the plugin gets.
    pub(crate) fn lend(&mut self) -> Result<(), Exceeded> {
        if self.handles >= POLICY_HANDLES_MAX {
            return Err(Exceeded::Handles);
        }
        self.handles += 1;
        Ok(())
    }

    /// One that it dropped.
    pub(crate) fn give_back(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }
}

/// CPU time of this thread so far.
pub(crate) fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

impl ResourceLimiter for Watch {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // An error, since a refusal looks like a panic of the plugin.
        if desired > self.memory_bytes_max {
            return Err(Exceeded::Memory.into());
        }
        self.memory_bytes = desired;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > POLICY_TABLE_ENTRIES_MAX { Err(Exceeded::Memory.into()) } else { Ok(true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_cpu_time_after_the_first_look_counts() {
        let mut watch = Watch::new(0, Arc::default());
        watch.arm(3 * MS, 1);
        let goes_on = |update| matches!(update, UpdateDeadline::Continue(1));
        assert!(goes_on(watch.look(100 * MS)));
        assert!(goes_on(watch.look(100 * MS)));
        assert!(goes_on(watch.look(102 * MS)));
        assert!(!goes_on(watch.look(103 * MS)));
        watch.arm(3 * MS, 1);
        assert!(goes_on(watch.look(200 * MS)));
    }

    #[test]
    fn calls_of_the_host_run_out() {
        let mut watch = Watch::new(0, Arc::default());
        assert_eq!(watch.host_call(), Err(Exceeded::HostCalls));
        watch.arm(MS, 1);
        for _ in 0..POLICY_HOST_CALLS_MAX {
            assert_eq!(watch.host_call(), Ok(()));
        }
        assert_eq!(watch.host_call(), Err(Exceeded::HostCalls));
    }

    #[test]
    fn handles_run_out_unless_given_back() {
        let mut watch = Watch::new(0, Arc::default());
        for _ in 0..POLICY_HANDLES_MAX {
            assert_eq!(watch.lend(), Ok(()));
        }
        watch.arm(MS, 1);
        assert_eq!(watch.lend(), Err(Exceeded::Handles));
        watch.give_back();
        assert_eq!((watch.lend(), watch.lend()), (Ok(()), Err(Exceeded::Handles)));
    }

    #[test]
    fn the_thread_has_a_cpu_clock() {
        let before = thread_cpu_time();
        let mut sum = 0u64;
        while thread_cpu_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(thread_cpu_time() > before);
    }
}
