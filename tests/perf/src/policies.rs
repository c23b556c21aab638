//! What policies, the split of reads and limits cost a query, and what a hundred swaps do to those that run meanwhile.

use crate::load::{Connections, Load, Mode, Sample, Task};
use crate::quiet;
use crate::report::median;
use crate::targets::{DATABASE, POOL_SIZE, START_TIME_MAX, door_of, fill};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tidegate_test_support::{
    Cluster, ClusterOptions, Durability, Tidegate, TidegateOptions, wait_until,
};

/// pgbench's scale.
const SCALE: u32 = 10;
/// Busy clients while policies are swapped, and how often they are.
const SWAP_CLIENTS: u32 = 128;
const SWAPS: u32 = 100;

/// What to measure, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Of each run of pgbench.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Each shows every way once in every mode; the table has the medians. 0: swaps alone.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    rounds: u32,
    /// Of each run of pgbench with swaps, and of those before and after: a hundred swaps take half a minute.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=600))]
    swap_seconds: u32,
    /// pgbench's clients.
    #[arg(long, default_value_t = 32)]
    clients: u32,
    /// Wait at most so many seconds for a quiet machine, before each round.
    #[arg(long, default_value_t = 60)]
    quiet_wait: u32,
}

/// One way to run Tidegate; all with one worker.
struct Way {
    label: &'static str,
    tidegate: Tidegate,
    /// CPU time per query, by mode.
    cpu_us: Vec<Vec<f64>>,
}

const MODES: [Mode; 3] = [Mode::Simple, Mode::Extended, Mode::Prepared];

/// Measures and prints a table.
pub fn run(options: &Options) -> Result<(), String> {
    eprintln!("starting a primary, two replicas and five Tidegates");
    let cluster = Cluster::start(&ClusterOptions {
        replicas: 2,
        durability: Durability::None,
        conf: vec!["max_connections = 500".into(), "shared_buffers = 256MB".into()],
        ..ClusterOptions::default()
    })
    .map_err(|error| error.to_string())?;
    fill(&cluster, SCALE)?;
    cluster.wait_until_caught_up().map_err(|error| error.to_string())?;
    let mut ways = vec![
        way(&cluster, "no policies", false, "", true)?,
        way(&cluster, "default policies", false, "", false)?,
        way(
            &cluster,
            "limits, by the application's user",
            false,
            "per_end_user = 1000000\nall = 4000000000",
            false,
        )?,
        way(&cluster, "split, no policies", true, "", true)?,
        way(&cluster, "split, default policies", true, "", false)?,
    ];
    let folder = log_folder(&cluster)?;
    for round in 1..=options.rounds {
        let busy = quiet::wait(Duration::from_secs(options.quiet_wait.into()));
        eprintln!("round {round} of {} (others use {busy} % of the CPU)", options.rounds);
        for (place, mode) in MODES.into_iter().enumerate() {
            for way in &mut ways {
                let sample = load(mode, options.clients, options.seconds).run(
                    &cluster,
                    &door_of(&way.tidegate),
                    &folder,
                )?;
                way.cpu_us[place].extend(sample.cpu_us);
            }
        }
    }
    if options.rounds > 0 {
        print!("{}", table(&ways, options));
    }
    let split = ways.pop().ok_or("no way was measured")?;
    swaps(&cluster, &split.tidegate, &folder, options)
}

/// Measures and prints what clients notice of swaps.
fn swaps(
    cluster: &Cluster,
    tidegate: &Tidegate,
    folder: &Path,
    options: &Options,
) -> Result<(), String> {
    let busy = quiet::wait(Duration::from_secs(options.quiet_wait.into()));
    eprintln!("swaps (others use {busy} % of the CPU)");
    let load = load(Mode::Prepared, SWAP_CLIENTS, options.swap_seconds);
    let run = || {
        let sample = load.run(cluster, &door_of(tidegate), folder)?;
        Ok::<_, String>((sample, tidegate.resident_kib()))
    };
    let before = run()?;
    let (swaps, during) = swapped(tidegate, run)?;
    let after = run()?;
    println!("\n{SWAP_CLIENTS} clients, prepared      TPS   p99 µs  p99.9 µs   max µs  RSS KiB");
    for (label, (sample, kib)) in [("before", before), ("swapping", during), ("after", after)] {
        let Sample { per_second, p99_us, p999_us, max_us, .. } = sample;
        println!(
            "{label:<22} {per_second:>8.0} {p99_us:>8.0} {p999_us:>9.0} {max_us:>8.0} {kib:>8}"
        );
    }
    println!("{swaps} swaps of the routing policy; pgbench ends at the first error, and none came");
    Ok(())
}

fn load(mode: Mode, clients: u32, seconds: u32) -> Load {
    Load { mode, clients, seconds, connections: Connections::Kept, task: Task::Select }
}

pub fn log_folder(cluster: &Cluster) -> Result<PathBuf, String> {
    let folder = cluster.directory().join("pgbench-logs");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn way(
    cluster: &Cluster,
    label: &'static str,
    splits: bool,
    rates: &str,
    is_bare: bool,
) -> Result<Way, String> {
    let mut options = TidegateOptions::for_cluster(cluster, DATABASE);
    if !splits {
        options.replicas.clear();
    }
    options.toml = Some(format!(
        "workers = 1\n[pool]\nsize_max = {POOL_SIZE}\n[auth]\nmethod = \"trust\"\n[rates]\n{rates}\n\
         [plugins]\nstate_dir = {:?}\n",
        cluster.directory().join(format!("state of {label}"))
    ));
    let tidegate = Tidegate::start(options);
    let slots = ["routing", "caching", "limiting", "advising"];
    wait_until(START_TIME_MAX, "the default policies answer", || {
        slots.iter().all(|slot| answers(&tidegate, slot))
    });
    for slot in slots.into_iter().filter(|_| is_bare) {
        tidegate.admin_post(&format!("/api/v1/plugins/{slot}/disable"), "");
    }
    Ok(Way { label, tidegate, cpu_us: vec![Vec::new(); MODES.len()] })
}

pub fn answers(tidegate: &Tidegate, slot: &str) -> bool {
    let answer = tidegate.admin_get(&format!("/api/v1/plugins/{slot}"));
    let told: Option<serde_json::Value> = serde_json::from_str(&answer.body).ok();
    told.is_some_and(|told| !told["active"].is_null())
}

/// Swaps policies, each with other settings, while something runs; how often it came to that.
fn swapped<T: Send>(
    tidegate: &Tidegate,
    run: impl FnOnce() -> Result<T, String> + Send,
) -> Result<(u32, T), String> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            let result = run();
            done.store(true, Ordering::Relaxed);
            result
        });
        let mut swaps = 0;
        while !done.load(Ordering::Relaxed) && swaps < SWAPS {
            let settings = format!("{{\"lag_ms_max\": {}}}", 5_000 + swaps);
            let answer = tidegate.admin_put("/api/v1/plugins/routing/config", &settings);
            if answer.status != 200 {
                return Err(format!("a swap was refused: {}", answer.body));
            }
            swaps += 1;
        }
        let result = running.join().map_err(|_| "pgbench's thread ended early".to_owned())??;
        Ok((swaps, result))
    })
}

fn table(ways: &[Way], options: &Options) -> String {
    let mut out = format!(
        "\nproxy CPU per query in µs, {} clients (times the first)\n{:<34}",
        options.clients, ""
    );
    for mode in MODES {
        out += &format!("{:>18}", mode.label());
    }
    out.push('\n');
    let first: Vec<f64> = ways.first().map_or(Vec::new(), |way| {
        way.cpu_us.iter().map(|samples| median(samples, |us| *us)).collect()
    });
    for way in ways {
        out += &format!("{:<34}", way.label);
        for (samples, first) in way.cpu_us.iter().zip(&first) {
            let cpu = median(samples, |us| *us);
            out += &format!("{:>10.1} ({:.2}×)", cpu, cpu / first);
        }
        out.push('\n');
    }
    out
}
