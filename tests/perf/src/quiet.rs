//! Waiting for a quiet machine, with a bound.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Of all CPU time, in percent.
const BUSY_MAX: u64 = 10;
const LOOK_TIME: Duration = Duration::from_millis(500);

/// Waits until others use little CPU, at most `limit`; says how busy it was at last, in percent.
///
/// The load average is too slow for this: it remembers a minute, ours included.
pub fn wait(limit: Duration) -> u64 {
    let deadline = Instant::now() + limit;
    let mut told = false;
    loop {
        let busy = busy_percent();
        if busy <= BUSY_MAX {
            return busy;
        }
        if Instant::now() >= deadline {
            eprintln!("  the machine stays busy ({busy} %): measuring all the same");
            return busy;
        }
        if !told {
            eprintln!("  waiting for a quiet machine ({busy} % busy)");
            told = true;
        }
    }
}

/// The load of the last minute as the kernel tells it.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn busy_percent() -> u64 {
    let (busy, all) = cpu_ticks();
    sleep(LOOK_TIME);
    let (busy_after, all_after) = cpu_ticks();
    let all = all_after.saturating_sub(all).max(1);
    busy_after.saturating_sub(busy) * 100 / all
}

/// Busy and all CPU time since the machine began.
fn cpu_ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; the guests are within user.
    let all: u64 = fields.iter().take(8).sum();
    let idle = fields.get(3).unwrap_or(&0) + fields.get(4).unwrap_or(&0);
    (all - idle.min(all), all)
}
