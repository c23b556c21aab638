//! The results: medians over the rounds, with ratios, as a table and as JSON.

use crate::load::{Mode, Sample};
use crate::memory::{Idle, Transfer};
use crate::pgbouncer;
use crate::quiet;
use crate::run::Options;
use crate::targets::{Name, POOL_SIZE, Stage};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

/// What was measured on.
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub postgres: String,
    pub pgbouncer: String,
    /// How PgBouncer serves prepared statements.
    pub pgbouncer_prepares: &'static str,
    pub load_average: f64,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Login {
    Trust,
    Scram,
}

impl Login {
    pub fn label(self) -> &'static str {
        match self {
            Login::Trust => "trust",
            Login::Scram => "scram-sha-256",
        }
    }
}

impl Machine {
    pub fn look(stage: &Stage) -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            cpu: model.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            postgres: stage.cluster.installation().version(),
            pgbouncer: pgbouncer::version_line().unwrap_or_else(|| "no PgBouncer".to_owned()),
            pgbouncer_prepares: stage.pgbouncer_prepares(),
            load_average: quiet::load_average(),
        }
    }
}

pub struct Report {
    pub machine: Machine,
    pub options: Options,
    /// How busy the machine was when each round began, in percent.
    pub busy_percent: Vec<u64>,
    pub samples: BTreeMap<(Mode, u32, Name), Vec<Sample>>,
    pub connects: BTreeMap<(Login, Name), Vec<Sample>>,
    pub transfers: BTreeMap<Name, Vec<Transfer>>,
    pub idle: BTreeMap<Name, Idle>,
    pub failures: Vec<String>,
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

pub fn cpu(sample: &Sample) -> f64 {
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
        let (machine, options) = (&self.machine, &self.options);
        let _ = writeln!(
            out,
            "{}, {} cores; {}; {}; pools of {POOL_SIZE}\n\
             medians of {} rounds of {} s; CPU in use by others before each round: {:?} %",
            machine.cpu,
            machine.cores,
            machine.postgres,
            machine.pgbouncer,
            options.rounds,
            options.seconds,
            self.busy_percent
        );
        out.push_str("in parentheses: times PgBouncer's\n\n");
        let _ = writeln!(
            out,
            "{:<9} {:>7} {:<11}{:>16}{:>16}{:>16}{:>16}",
            "mode", "clients", "target", "TPS", "p50 µs", "p99 µs", "CPU µs/query"
        );
        for load in self.loads() {
            for name in Name::ALL {
                self.row(&mut out, load, name);
            }
        }
        self.connect_rows(&mut out);
        self.transfer_rows(&mut out);
        self.idle_rows(&mut out);
        if self.loads().iter().any(|(mode, _)| *mode == Mode::Prepared) {
            let _ = writeln!(out, "\nprepared through pgbouncer: {}", machine.pgbouncer_prepares);
        }
        for failure in &self.failures {
            let _ = writeln!(out, "failed: {}", failure.trim());
        }
        out
    }

    fn row(&self, out: &mut String, load: (Mode, u32), name: Name) {
        let samples = self.of(load, name);
        if samples.is_empty() {
            return;
        }
        let (mode, clients) = (load.0.label(), load.1);
        let _ = write!(out, "{mode:<9} {clients:>7} {:<11}", name.label());
        let mut reading = |read: fn(&Sample) -> f64, decimals| {
            let reference = median(self.of(load, Name::PgBouncer), read);
            cell(out, name, median(samples, read), reference, decimals);
        };
        reading(|sample| sample.per_second, 0);
        reading(|sample| sample.p50_us, 0);
        reading(|sample| sample.p99_us, 0);
        reading(cpu, 1);
        out.push('\n');
    }

    fn connect_rows(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<17} {:<11}{:>16}{:>16}",
            "connecting by", "target", "per second", "CPU µs each"
        );
        for ((login, name), samples) in &self.connects {
            let reference =
                self.connects.get(&(*login, Name::PgBouncer)).map_or(&[][..], Vec::as_slice);
            let _ = write!(out, "{:<17} {:<11}", login.label(), name.label());
            let readings: [fn(&Sample) -> f64; 2] = [|sample| sample.per_second, cpu];
            for read in readings {
                cell(out, *name, median(samples, read), median(reference, read), 0);
            }
            out.push('\n');
        }
    }

    fn transfer_rows(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n{:<17} {:<11}{:>16}{:>16}{:>16}",
            "one result", "target", "MB/s", "CPU µs/MB", "peak RSS + KB"
        );
        let reference = self.transfers.get(&Name::PgBouncer).map_or(&[][..], Vec::as_slice);
        for (name, transfers) in &self.transfers {
            let megabytes = format!("{} MB", self.options.megabytes);
            let _ = write!(out, "{megabytes:<17} {:<11}", name.label());
            let readings: [fn(&Transfer) -> f64; 3] = [
                |transfer| transfer.mb_per_second,
                |transfer| transfer.cpu_us_per_mb,
                |transfer| transfer.peak_extra_bytes / 1024.0,
            ];
            for read in readings {
                cell(out, *name, median(transfers, read), median(reference, read), 0);
            }
            out.push('\n');
        }
    }

    fn idle_rows(&self, out: &mut String) {
        let _ = writeln!(out, "\n{:<17} {:<11}{:>16}", "idle clients", "target", "bytes each");
        let reference = self.idle.get(&Name::PgBouncer).map_or(f64::NAN, |i| i.bytes_per_client);
        for (name, idle) in &self.idle {
            let _ = write!(out, "{:<17} {:<11}", idle.clients, name.label());
            cell(out, *name, idle.bytes_per_client, reference, 0);
            out.push('\n');
        }
    }
}

/// A value, and for Tidegate how many times PgBouncer's it is.
fn cell(out: &mut String, name: Name, value: f64, reference: f64, decimals: usize) {
    let ratio = value / reference;
    let note = if name.is_tidegate() && ratio.is_finite() {
        format!("({ratio:.2}×)")
    } else {
        String::new()
    };
    let _ = write!(out, "{:>8}{note:>8}", show(value, decimals));
}

/// A number for people; `-` when there is none.
fn show(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "-".to_owned() }
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
