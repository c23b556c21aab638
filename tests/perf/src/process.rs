//! CPU time and memory of a process and its children, from /proc.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The process will get this signal when ours ends, however it does.
pub fn end_with_us(command: &mut Command, signal: libc::c_int) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// A process and everything below it.
#[derive(Clone, Copy, Debug)]
pub struct Tree(pub u32);

impl Tree {
    /// The processes of the tree that live now.
    pub fn pids(self) -> Vec<u32> {
        let parents: BTreeMap<u32, u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat_field(pid, 1)? as u32)))
            .collect();
        let mut pids = vec![self.0];
        let mut at = 0;
        while at < pids.len() {
            let above = pids[at];
            let children = parents.iter().filter(|(_, parent)| **parent == above);
            pids.extend(children.map(|(pid, _)| *pid));
            at += 1;
        }
        pids
    }

    /// User and system time of all threads since each process began, in microseconds; the kernel counts in hundredths
    /// of a second.
    pub fn cpu_us(self) -> u64 {
        let ticks: u64 = self
            .pids()
            .into_iter()
            .map(|pid| stat_field(pid, 11).unwrap_or(0) + stat_field(pid, 12).unwrap_or(0))
            .sum();
        ticks * 1_000_000 / ticks_per_second()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory since [`Tree::reset_peak`], in bytes.
    pub fn peak_bytes(self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    pub fn reset_peak(self) {
        for pid in self.pids() {
            // Without the right to do so the peak is the one since the start, which is an honest upper bound.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    fn status_bytes(self, name: &str) -> u64 {
        let of = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        self.pids().into_iter().filter_map(of).sum::<u64>() * 1024
    }
}

/// A numeric field of /proc/<pid>/stat, counted from the state, which is 0 (so the parent is 1, utime 11, stime 12).
fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field)?.parse().ok()
}

fn ticks_per_second() -> u64 {
    let output = Command::new("getconf").arg("CLK_TCK").output().ok();
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(100)
}
