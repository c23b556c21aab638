//! The results: medians over the rounds, with ratios, as a table and as JSON.

use crate::load::{Mode, Sample};
use crate::memory::{Idle, Transfer};
use crate::quiet;
use crate::run::Options;
use crate::targets::Name;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;
use tidegate_test_support::Cluster;

/// What was measured on.
pub struct Machine {
    cpu: String,
    cores: usize,
    postgres: String,
    pgbouncer: String,
    load_average: f64,
}

impl Machine {
    pub fn look(cluster: &Cluster) -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let version = Command::new("/usr/sbin/pgbouncer").arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        Machine {
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            postgres: cluster.installation().version(),
            pgbouncer: version.unwrap_or_default().lines().next().unwrap_or("none").to_owned(),
            load_average: quiet::load_average(),
        }
    }
}

pub struct Report {
    machine: Machine,
    options: Options,
    /// How busy the machine was when each round began, in percent.
    pub busy_percent: Vec<u64>,
    samples: BTreeMap<(Mode, u32, Name), Vec<Sample>>,
    pub connects: BTreeMap<Name, Vec<Sample>>,
    pub transfers: BTreeMap<Name, Vec<Transfer>>,
    pub idle: BTreeMap<Name, Idle>,
    failures: Vec<String>,
}

/// The median of what a reading of each value gives; NaN when there is none.
pub fn median<T>(values: &[T], read: impl Fn(&T) -> f64) -> f64 {
    let mut numbers: Vec<f64> = values.iter().map(read).filter(|n| n.is_finite()).collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => numbers[n / 2],
        n => (numbers[n / 2 - 1] + numbers[n / 2]) / 2.0,
    }
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu_us.unwrap_or(f64::NAN)
}

impl Report {
    pub fn new(machine: Machine, options: &Options) -> Report {
        Report {
            machine,
            options: options.clone(),
            busy_percent: Vec::new(),
            samples: BTreeMap::new(),
            connects: BTreeMap::new(),
            transfers: BTreeMap::new(),
            idle: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    pub fn add(&mut self, name: Name, mode: Mode, clients: u32, sample: Sample) {
        self.samples.entry((mode, clients, name)).or_default().push(sample);
    }

    /// A run that did not work is part of the result.
    pub fn fail(&mut self, error: String) {
        eprintln!("  failed: {error}");
        self.failures.push(error);
    }

    /// The loads that were measured, in order.
    pub fn loads(&self) -> Vec<(Mode, u32)> {
        let mut loads: Vec<_> =
            self.samples.keys().map(|(mode, clients, _)| (*mode, *clients)).collect();
        loads.dedup();
        loads
    }

    fn of(&self, load: (Mode, u32), name: Name) -> &[Sample] {
        self.samples.get(&(load.0, load.1, name)).map_or(&[], Vec::as_slice)
    }

    pub fn per_second(&self, load: (Mode, u32), name: Name) -> f64 {
        median(self.of(load, name), |sample| sample.per_second)
    }

    pub fn cpu_us(&self, load: (Mode, u32), name: Name) -> f64 {
        median(self.of(load, name), cpu)
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let machine = &self.machine;
        let _ = writeln!(
            out,
            "{}, {} cores; {}; {}\nmedians of {} rounds of {} s; machine busy by others at each round: {:?} %\n",
            machine.cpu,
            machine.cores,
            machine.postgres,
            machine.pgbouncer,
            self.options.rounds,
            self.options.seconds,
            self.busy_percent
        );
        let _ = writeln!(
            out,
            "{:<9} {:>7} {:<10} {:>10} {:>9} {:>9} {:>10}   ratios of tidegate to pgbouncer",
            "mode", "clients", "target", "TPS", "p50 µs", "p99 µs", "CPU µs/q"
        );
        for load in self.loads() {
            for name in Name::ALL {
                self.row(&mut out, load, name);
            }
        }
        self.connects_and_transfers(&mut out);
        for failure in &self.failures {
            let _ = writeln!(out, "failed: {}", failure.trim());
        }
        if self.loads().iter().any(|(mode, _)| *mode == Mode::Prepared) {
            out.push_str(
                "prepared through pgbouncer: a pool in session mode (before 1.21 no other works)\n",
            );
        }
        out
    }

    fn row(&self, out: &mut String, load: (Mode, u32), name: Name) {
        let samples = self.of(load, name);
        if samples.is_empty() {
            return;
        }
        let _ = write!(
            out,
            "{:<9} {:>7} {:<10} {:>10} {:>9} {:>9} {:>10}",
            load.0.label(),
            load.1,
            name.label(),
            show(self.per_second(load, name), 0),
            show(median(samples, |sample| sample.p50_us), 0),
            show(median(samples, |sample| sample.p99_us), 0),
            show(self.cpu_us(load, name), 1),
        );
        if name == Name::Tidegate {
            let tps = self.per_second(load, name) / self.per_second(load, Name::PgBouncer);
            let cpu = self.cpu_us(load, name) / self.cpu_us(load, Name::PgBouncer);
            let _ = write!(out, "   TPS {}× CPU {}×", show(tps, 2), show(cpu, 2));
        }
        out.push('\n');
    }

    fn connects_and_transfers(&self, out: &mut String) {
        let _ = writeln!(out, "\n{:<12} {:>12} {:>14}", "connecting", "per second", "CPU µs each");
        for (name, samples) in &self.connects {
            let rate = show(median(samples, |sample| sample.per_second), 0);
            let _ = writeln!(
                out,
                "{:<12} {:>12} {:>14}",
                name.label(),
                rate,
                show(median(samples, cpu), 0)
            );
        }
        let _ = writeln!(
            out,
            "\n{:<12} {:>12} {:>14} {:>16}",
            format!("{} MB", self.options.megabytes),
            "MB/s",
            "CPU µs/MB",
            "peak + KB"
        );
        for (name, transfers) in &self.transfers {
            let has_proxy = *name != Name::Direct;
            let of_proxy = |value: f64| if has_proxy { show(value, 0) } else { "-".to_owned() };
            let _ = writeln!(
                out,
                "{:<12} {:>12} {:>14} {:>16}",
                name.label(),
                show(median(transfers, |t| t.mb_per_second), 0),
                of_proxy(median(transfers, |t| t.cpu_us_per_mb)),
                of_proxy(median(transfers, |t| t.peak_extra_bytes as f64 / 1024.0)),
            );
        }
        let _ = writeln!(out, "\n{:<12} {:>12} {:>14}", "idle clients", "count", "bytes each");
        for (name, idle) in &self.idle {
            let each = show(idle.bytes_per_client, 0);
            let _ = writeln!(out, "{:<12} {:>12} {:>14}", name.label(), idle.clients, each);
        }
        out.push('\n');
    }

    /// Everything, for machines: medians and the single values.
    pub fn json(&self) -> Value {
        let loads: Vec<Value> = self
            .samples
            .iter()
            .map(|((mode, clients, name), samples)| {
                json!({
                    "mode": mode.label(), "clients": clients, "target": name.label(),
                    "tps": number(median(samples, |s| s.per_second)),
                    "p50_us": number(median(samples, |s| s.p50_us)),
                    "p99_us": number(median(samples, |s| s.p99_us)),
                    "cpu_us_per_query": number(median(samples, cpu)),
                    "rounds": samples.iter().map(|s| json!({
                        "tps": number(s.per_second), "cpu_us_per_query": number(cpu(s)),
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        let connects: Vec<Value> = self
            .connects
            .iter()
            .map(|(name, samples)| {
                json!({
                    "target": name.label(),
                    "connections_per_second": number(median(samples, |s| s.per_second)),
                    "cpu_us_per_connection": number(median(samples, cpu)),
                })
            })
            .collect();
        let transfers: Vec<Value> = self
            .transfers
            .iter()
            .map(|(name, transfers)| {
                json!({
                    "target": name.label(),
                    "bytes": transfers.first().map(|t| t.bytes),
                    "mb_per_second": number(median(transfers, |t| t.mb_per_second)),
                    "cpu_us_per_mb": number(median(transfers, |t| t.cpu_us_per_mb)),
                    "peak_extra_bytes": number(median(transfers, |t| t.peak_extra_bytes as f64)),
                })
            })
            .collect();
        let idle: Vec<Value> = self
            .idle
            .iter()
            .map(|(name, idle)| {
                json!({
                    "target": name.label(), "clients": idle.clients,
                    "bytes_per_client": number(idle.bytes_per_client),
                })
            })
            .collect();
        json!({
            "machine": {
                "cpu": self.machine.cpu, "cores": self.machine.cores, "postgres": self.machine.postgres,
                "pgbouncer": self.machine.pgbouncer, "load_average": self.machine.load_average,
                "busy_percent_by_round": self.busy_percent,
            },
            "options": { "seconds": self.options.seconds, "rounds": self.options.rounds },
            "loads": loads, "connects": connects, "transfers": transfers, "idle": idle,
            "failures": self.failures,
        })
    }
}

/// A number for people; `-` when there is none.
fn show(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "-".to_owned() }
}

/// A number for machines; null when there is none.
fn number(value: f64) -> Value {
    if value.is_finite() { json!((value * 100.0).round() / 100.0) } else { Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_leave_out_what_is_no_number() {
        assert_eq!(median(&[3.0, f64::NAN, 1.0], |n| *n), 2.0);
        assert_eq!(median(&[3.0, 9.0, 1.0], |n| *n), 3.0);
        assert!(median(&[], |n: &f64| *n).is_nan());
    }
}
