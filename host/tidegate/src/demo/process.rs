//! Signals for a server's processes, and the waiting that belongs to them.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

/// How often a condition is looked at while we wait for it.
const POLL_EVERY: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Fast shutdown of a postmaster.
    Interrupt,
    /// Immediate shutdown of a postmaster.
    Quit,
    Kill,
    Stop,
    Continue,
}

/// Sends a signal; that the process is gone already is no error, since that is what a race looks like.
pub(super) fn send(pid: u32, signal: Signal) {
    let number = match signal {
        Signal::Interrupt => libc::SIGINT,
        Signal::Quit => libc::SIGQUIT,
        Signal::Kill => libc::SIGKILL,
        Signal::Stop => libc::SIGSTOP,
        Signal::Continue => libc::SIGCONT,
    };
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    if pid <= 1 {
        return; // 0 and 1 address groups and the system itself
    }
    // SAFETY: kill touches no memory of ours; the pid is a positive number of a child or of a child's child.
    unsafe { libc::kill(pid, number) };
}

/// The processes a postmaster has started. Each is in a session of its own, so a process group does not find them.
pub(super) fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| parent_in(&stat) == Some(parent))
        })
        .collect()
}

/// Has the process ended, whether somebody has asked how or not?
pub(super) fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let state = stat.rsplit_once(')').and_then(|(_, after)| after.split_whitespace().next());
    matches!(state, None | Some("Z" | "X"))
}

/// The parent's pid in the text of `/proc/<pid>/stat`; the name before it may hold spaces and parentheses.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// Looks at `condition` until it holds or the time is over; says whether it held.
pub fn poll(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// Waits for the end of a child; says whether it came in time.
pub(super) fn ended_within(child: &mut Child, limit: Duration) -> bool {
    poll(limit, || !matches!(child.try_wait(), Ok(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_after_any_name() {
        assert_eq!(parent_in("12 (a) b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("12 (postgres) S 1 12"), Some(1));
        assert_eq!(parent_in(""), None);
    }

    #[test]
    fn our_own_child_is_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(children_of(std::process::id()).contains(&child.id()));
        send(child.id(), Signal::Kill);
        assert!(ended_within(&mut child, Duration::from_secs(10)));
    }
}
