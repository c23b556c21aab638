//! How busy a server's machine is: processor, memory, disk. What is not known is not guessed.

mod exporter; // what node_exporter says
mod proc; // what Linux says in /proc

pub use exporter::read_exporter;
pub use proc::read_proc;

/// How busy a machine is, in percent; `None`: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Of all its processors.
    pub cpu_percent: Option<f64>,
    /// What programs could not have if they asked for it.
    pub memory_percent: Option<f64>,
    /// Used, of the file system that the data are on.
    pub disk_percent: Option<f64>,
}

/// Time of all processors since the machine was started, in whatever unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuTime {
    pub busy: f64,
    pub all: f64,
}

/// What a machine said once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadReading {
    pub cpu: Option<CpuTime>,
    pub memory_percent: Option<f64>,
    pub disk_percent: Option<f64>,
}

/// Makes of two readings how busy the processors were between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadMeter {
    before: Option<CpuTime>,
}

impl LoadMeter {
    /// The first reading, and the first after the machine was started again, say nothing of the processors.
    pub fn handle_reading(&mut self, reading: LoadReading) -> Load {
        let before = std::mem::replace(&mut self.before, reading.cpu);
        Load {
            cpu_percent: before.zip(reading.cpu).and_then(|(before, now)| busy(before, now)),
            memory_percent: reading.memory_percent,
            disk_percent: reading.disk_percent,
        }
    }
}

fn busy(before: CpuTime, now: CpuTime) -> Option<f64> {
    let (busy, all) = (now.busy - before.busy, now.all - before.all);
    // Waiting for a disk may be counted back a little.
    (all > 0.0 && busy >= -all).then(|| (busy / all * 100.0).clamp(0.0, 100.0))
}

/// The used part, where both numbers make sense.
fn used_percent(size: f64, free: f64) -> Option<f64> {
    let sane = size.is_finite() && free.is_finite() && size > 0.0 && free >= 0.0;
    sane.then(|| ((size - free) / size * 100.0).clamp(0.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn cpu(busy: f64, all: f64) -> LoadReading {
        LoadReading { cpu: Some(CpuTime { busy, all }), memory_percent: None, disk_percent: None }
    }

    #[test]
    fn two_readings_tell_how_busy_it_was_between_them() {
        let mut meter = LoadMeter::default();
        assert_eq!(meter.handle_reading(cpu(100.0, 1_000.0)).cpu_percent, None);
        assert_eq!(meter.handle_reading(cpu(175.0, 1_100.0)).cpu_percent, Some(75.0));
        // Asked twice within a tick.
        assert_eq!(meter.handle_reading(cpu(175.0, 1_100.0)).cpu_percent, None);
        // It was started again.
        assert_eq!(meter.handle_reading(cpu(1.0, 10.0)).cpu_percent, None);
        assert_eq!(meter.handle_reading(LoadReading::default()), Load::default());
        assert_eq!(meter.handle_reading(cpu(2.0, 20.0)).cpu_percent, None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 36: whatever is read, a load is a percentage or not known.
        #[test]
        fn a_load_is_a_percentage_or_unknown(
            text in "[a-z_ 0-9{}=\",/.eNn+-]{0,40}\n?", stat in prop::collection::vec(any::<u64>(), 0..10),
            name in prop::sample::select(vec!["node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes",
                "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}", "node_filesystem_size_bytes{mountpoint=\"/\"}"]),
            value in any::<f64>(),
        ) {
            let words: Vec<String> = stat.iter().map(u64::to_string).collect();
            let mut meter = LoadMeter::default();
            for reading in [
                read_proc(&format!("cpu  {}\n", words.join(" ")), &text),
                read_proc(&text, "MemTotal: 7 kB\nMemAvailable: 9 kB\n"),
                read_exporter(&format!("{text}\n{name} {value}\n"), None),
                read_exporter(&text, Some("/var")),
            ] {
                let load = meter.handle_reading(reading);
                for percent in [load.cpu_percent, load.memory_percent, load.disk_percent] {
                    prop_assert!(percent.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
                }
            }
        }
    }
}
