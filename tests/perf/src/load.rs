//! pgbench against one target, and what it cost the proxy.

use crate::targets::Door;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tidegate_test_support::Cluster;

/// How statements travel (`pgbench -M`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Simple,
    Extended,
    Prepared,
}

impl Mode {
    pub fn label(self) -> &'static str {
        match self {
            Mode::Simple => "simple",
            Mode::Extended => "extended",
            Mode::Prepared => "prepared",
        }
    }
}

impl FromStr for Mode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Mode::Simple, Mode::Extended, Mode::Prepared]
            .into_iter()
            .find(|mode| mode.label() == text)
            .ok_or_else(|| "modes are simple, extended and prepared".into())
    }
}

/// What one run of pgbench showed.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Transactions per second without the time for connecting; with `-C`, connections per second.
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
    /// CPU time of the proxy per transaction; none for the database itself.
    pub cpu_us: Option<f64>,
}

/// Whether clients connect once or for each transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    Kept,
    PerTransaction,
}

/// One run.
pub struct Load {
    pub mode: Mode,
    pub clients: u32,
    pub seconds: u32,
    pub connections: Connections,
    pub task: Task,
}

/// What pgbench's clients ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// `pgbench -S`: an account out of all.
    #[default]
    Select,
    /// A file of pgbench's own language.
    Script(PathBuf),
}

/// Of the transactions that pgbench logs; writing all of them would slow it down.
const LOGGED: &str = "0.2";

impl Load {
    /// Runs pgbench and reads its report and its log.
    pub fn run(&self, cluster: &Cluster, door: &Door, folder: &Path) -> Result<Sample, String> {
        let prefix = folder.join("pgbench");
        remove_logs(folder);
        let mut command = door.pgbench(cluster);
        command.args(["-n", "-M", self.mode.label()]);
        match &self.task {
            Task::Select => command.arg("-S"),
            Task::Script(path) => command.arg("-f").arg(path),
        };
        command.args(["-c", &self.clients.to_string(), "-j", &self.clients.min(2).to_string()]);
        command.args(["-T", &self.seconds.to_string(), "-l", "--sampling-rate", LOGGED]);
        command.arg("--log-prefix").arg(&prefix);
        if self.connections == Connections::PerTransaction {
            command.arg("-C");
        }
        let before = door.tree.map(|tree| tree.cpu_us());
        let output = command.output().map_err(|error| format!("pgbench: {error}"))?;
        let after = door.tree.map(|tree| tree.cpu_us());
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(format!("pgbench -M {} -c {}: {error}", self.mode.label(), self.clients));
        }
        let transactions = number_after(&text, "number of transactions actually processed: ")
            .filter(|count| *count > 0.0)
            .ok_or_else(|| format!("pgbench says nothing:\n{text}"))?;
        let mut latencies = latencies_us(folder);
        latencies.sort_unstable();
        Ok(Sample {
            per_second: number_after(&text, "tps = ").unwrap_or(0.0),
            p50_us: percentile(&latencies, 500),
            p99_us: percentile(&latencies, 990),
            p999_us: percentile(&latencies, 999),
            max_us: percentile(&latencies, 1000),
            cpu_us: before
                .zip(after)
                .map(|(before, after)| after.saturating_sub(before) as f64 / transactions),
        })
    }
}

fn number_after(text: &str, label: &str) -> Option<f64> {
    let (_, rest) = text.split_once(label)?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn logs(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("pgbench."))
        .map(|entry| entry.path())
}

fn remove_logs(folder: &Path) {
    for path in logs(folder) {
        let _ = fs::remove_file(path);
    }
}

/// The third column of the log: a transaction's time in microseconds.
fn latencies_us(folder: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for path in logs(folder) {
        let text = fs::read_to_string(path).unwrap_or_default();
        let third = |line: &str| line.split(' ').nth(2)?.parse::<u32>().ok();
        found.extend(text.lines().filter_map(third));
    }
    found
}

fn percentile(sorted: &[u32], per_mille: usize) -> f64 {
    let at = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().map_or(f64::NAN, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_report() {
        let text = "number of transactions actually processed: 1234/5000\ntps = 5678.9 (without)\n";
        assert_eq!(number_after(text, "actually processed: "), Some(1234.0));
        assert_eq!(number_after(text, "tps = "), Some(5678.9));
        assert_eq!(number_after(text, "latency = "), None);
    }

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&values, 500), 51.0);
        assert_eq!(percentile(&values, 990), 100.0);
        assert_eq!(percentile(&values, 1000), 100.0);
        assert!(percentile(&[], 500).is_nan());
    }
}
