//! `/proc/stat` and `/proc/meminfo`. Source: `Documentation/filesystems/proc.rst` of the Linux kernel.

use super::{CpuTime, LoadReading, used_percent};

/// Reads both files. Free space on disks is in no file of `/proc`.
pub fn read_proc(stat: &str, meminfo: &str) -> LoadReading {
    LoadReading { cpu: cpu(stat), memory_percent: memory(meminfo), disk_percent: None }
}

/// The first line: `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, where `user` and `nice` hold what
/// guests have used.
fn cpu(stat: &str) -> Option<CpuTime> {
    let mut words = stat.lines().next()?.split_ascii_whitespace();
    if words.next()? != "cpu" {
        return None;
    }
    let ticks: Vec<f64> = words.take(8).map_while(|word| word.parse().ok()).collect();
    let (idle, waiting) = (ticks.get(3)?, ticks.get(4).copied().unwrap_or(0.0));
    let all: f64 = ticks.iter().sum();
    Some(CpuTime { busy: all - idle - waiting, all })
}

fn memory(meminfo: &str) -> Option<f64> {
    let kib = |name: &str| -> Option<f64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    used_percent(kib("MemTotal")?, kib("MemAvailable")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "cpu  100 20 30 700 50 0 10 90 5 5\ncpu0 50 10 15 350 25 0 5 45 2 2\nintr 7\n";
    const MEMINFO: &str =
        "MemTotal:        8000 kB\nMemFree:         100 kB\nMemAvailable:    6000 kB\n";

    #[test]
    fn what_linux_says_is_read() {
        let reading = read_proc(STAT, MEMINFO);
        assert_eq!(reading.cpu, Some(CpuTime { busy: 250.0, all: 1_000.0 }));
        assert_eq!(reading.memory_percent, Some(25.0));
        assert_eq!(reading.disk_percent, None);
    }

    #[test]
    fn what_is_no_such_file_says_nothing() {
        assert_eq!(read_proc("", ""), LoadReading::default());
        assert_eq!(read_proc("intr 7\n", "MemTotal: 8000 kB\n"), LoadReading::default());
        assert_eq!(
            read_proc("cpu 1 2\n", "MemTotal: x\nMemAvailable: 1\n"),
            LoadReading::default()
        );
    }
}
