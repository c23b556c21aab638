//! Where a query's CPU time goes: a flame graph of a worker, shares by part, and system calls per query.

mod graph; // stacks, folded and drawn

use crate::load::Mode;
use crate::quiet;
use crate::targets::{Door, door_of, fill, start_tidegate};
use graph::Graph;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tidegate_test_support::{Cluster, ClusterOptions, Durability};

/// Samples per second; no divisor of what timers use.
const FREQUENCY: &str = "997";
/// Bytes of stack kept with each sample, since nothing is built with frame pointers.
const STACK_BYTES: &str = "dwarf,32768";
/// Transactions of each client while system calls are counted.
const COUNTED: u32 = 2_000;

/// What to look at.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// pgbench's clients.
    #[arg(long, default_value_t = 32)]
    clients: u32,
    /// How statements travel.
    #[arg(long, default_value = "simple")]
    mode: Mode,
    /// Tidegate's `io`.
    #[arg(long, default_value = "auto")]
    io: String,
    /// Seconds that are sampled.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Where the picture goes.
    #[arg(long, default_value = "target/bench/flame.svg")]
    output: PathBuf,
    /// Wait at most so many seconds for a quiet machine.
    #[arg(long, default_value_t = 60)]
    quiet_wait: u32,
}

/// Samples, counts, draws and prints.
pub fn run(options: &Options) -> Result<(), String> {
    let cluster = Cluster::start(&ClusterOptions {
        durability: Durability::None,
        ..ClusterOptions::default()
    })
    .map_err(|error| error.to_string())?;
    fill(&cluster, 10)?;
    let toml = format!("io = \"{}\"\n", options.io);
    let tidegate = start_tidegate(&cluster, &toml)?;
    let door = door_of(&tidegate);
    let busy = quiet::wait(Duration::from_secs(options.quiet_wait.into()));
    let folder = options.output.parent().unwrap_or(Path::new(".")).to_owned();
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;

    let graph = sample(options, &cluster, &door, &folder, tidegate.pid())?;
    let calls = count_calls(options, &cluster, &door, tidegate.pid())?;
    let title = format!(
        "pgbench -S -M {} -c {}, io = {}: {} samples",
        options.mode.label(),
        options.clients,
        options.io,
        graph.samples()
    );
    fs::write(&options.output, graph.draw(&title))
        .map_err(|error| format!("{}: {error}", options.output.display()))?;

    println!("{title} (others used {busy} % of the CPU)\n");
    for (part, share) in graph.parts() {
        println!("{part:<24} {:>6.1} %", share * 100.0);
    }
    println!("\nsystem calls per query");
    for (name, each) in calls {
        println!("{name:<24} {each:>6.2}");
    }
    println!("\n{}", options.output.display());
    Ok(())
}

fn pgbench(options: &Options, cluster: &Cluster, door: &Door) -> Command {
    let mut command = door.pgbench(cluster);
    command.args(["-n", "-S", "-M", options.mode.label()]);
    command.args(["-c", &options.clients.to_string(), "-j", "1"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn sample(
    options: &Options,
    cluster: &Cluster,
    door: &Door,
    folder: &Path,
    pid: u32,
) -> Result<Graph, String> {
    let mut load = pgbench(options, cluster, door);
    // A second before and one after.
    let mut load = Ended(
        load.args(["-T", &(options.seconds + 2).to_string()])
            .spawn()
            .map_err(|error| format!("pgbench: {error}"))?,
    );
    let data = folder.join("flame.data");
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-F", FREQUENCY, "--call-graph", STACK_BYTES, "-D", "1000"]);
    perf.args(["-p", &pid.to_string(), "-o"]).arg(&data);
    perf.args(["--", "sleep", &(options.seconds + 1).to_string()]);
    told("perf", perf.output())?;
    load.wait()?;
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym", "-i"]).arg(&data);
    let text = told("perf", script.output())?;
    let _ = fs::remove_file(&data);
    Ok(Graph::read(&text))
}

/// System calls of all threads for each query, as strace counts them, the most frequent first.
fn count_calls(
    options: &Options,
    cluster: &Cluster,
    door: &Door,
    pid: u32,
) -> Result<Vec<(String, f64)>, String> {
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-U", "calls,name", "-p", &pid.to_string()]);
    strace.stdout(Stdio::null()).stderr(Stdio::piped());
    let strace = strace.spawn().map_err(|error| format!("strace: {error}"))?;
    let mut load = pgbench(options, cluster, door);
    let load = load.args(["-t", &COUNTED.to_string()]).status();
    // It prints its table when it is interrupted.
    let interrupted = Command::new("kill").args(["-INT", &strace.id().to_string()]).status();
    let output = strace.wait_with_output().map_err(|error| format!("strace: {error}"))?;
    let (load, _) = (load.map_err(|error| format!("pgbench: {error}"))?, interrupted);
    if !load.success() {
        return Err("pgbench failed while system calls were counted".to_owned());
    }
    let queries = f64::from(COUNTED * options.clients);
    let text = String::from_utf8_lossy(&output.stderr);
    let mut calls: Vec<(String, f64)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let count: f64 = words.next()?.parse().ok()?;
            Some((words.next()?.to_owned(), count / queries))
        })
        .filter(|(name, each)| name != "total" && *each >= 0.01)
        .collect();
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    if calls.is_empty() {
        return Err(format!("strace counted nothing: {text}"));
    }
    Ok(calls)
}

fn told(name: &str, output: std::io::Result<std::process::Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("{name}: {error} (is it installed?)"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A child that does not outlive us.
struct Ended(Child);

impl Ended {
    fn wait(&mut self) -> Result<(), String> {
        let status = self.0.wait().map_err(|error| format!("pgbench: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("pgbench failed ({status})")) }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
