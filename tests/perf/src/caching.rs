//! What answers that are kept cost and save, beside PostgreSQL itself, beside Tidegate that keeps none, beside Redis, and
//! beside Pgpool-II's cache where that is installed.

use crate::load::{Connections, Load, Mode, Sample, Task};
use crate::pgpool::{self, Pgpool};
use crate::policies::{answers, log_folder};
use crate::quiet;
use crate::report::median;
use crate::targets::{DATABASE, Door, POOL_SIZE, ROLE, START_TIME_MAX, door_of, fill};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_test_support::{
    Cluster, ClusterOptions, Durability, Redis, Tidegate, TidegateOptions, wait_until,
};

/// pgbench's scale: a million accounts.
const SCALE: u32 = 10;
/// Asked for again and again; fewer than answers fit into memory.
const FEW: u32 = 500;
/// The policy that keeps answers about pgbench's accounts.
const RULES: &str = r#"{"rules": [{"table": "pgbench_accounts", "ttl_ms": 600000}]}"#;
/// An aggregate over so many accounts costs a server some 5 ms.
const DEAR_ROWS: u32 = 40_000;
/// Of Redis's own benchmark.
const GETS: u32 = 20_000;

/// What to measure, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Of each run of pgbench.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Each shows every way once under every load; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// simple, extended, prepared
    #[arg(long, value_delimiter = ',', default_value = "simple,prepared")]
    modes: Vec<Mode>,
    /// pgbench's clients, in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32])]
    clients: Vec<u32>,
    /// Wait at most so many seconds for a quiet machine, before each round.
    #[arg(long, default_value_t = 60)]
    quiet_wait: u32,
}

/// One way to get an answer.
struct Way {
    label: &'static str,
    door: Door,
    runs: Runs,
}

/// Lives as long as it is measured.
enum Runs {
    PostgreSql,
    Tidegate(Tidegate),
    Pgpool { _process: Pgpool },
}

/// One load, and what each way made of it, round by round.
struct Row {
    label: String,
    load: Load,
    samples: Vec<Vec<Sample>>,
    /// Of the statements of each way, those answered without a server, in the last round.
    hits: Vec<f64>,
}

/// Measures and prints tables.
pub fn run(options: &Options) -> Result<(), String> {
    eprintln!("starting a primary, a Redis and four Tidegates");
    let cluster = Cluster::start(&ClusterOptions {
        durability: Durability::None,
        // Pgpool-II has no password of its own for it.
        hba: vec![format!("host all {ROLE} 127.0.0.1/32 trust")],
        conf: vec!["max_connections = 500".into(), "shared_buffers = 256MB".into()],
        ..ClusterOptions::default()
    })
    .map_err(|error| error.to_string())?;
    fill(&cluster, SCALE)?;
    let redis = Redis::start(&[]);
    let ways = ways(&cluster, &redis)?;
    let folder = log_folder(&cluster)?;
    let mut rows = rows(options, &folder, ways.len())?;
    let mut gets_us = Vec::new();
    for round in 1..=options.rounds {
        let busy = quiet::wait(Duration::from_secs(options.quiet_wait.into()));
        eprintln!("round {round} of {} (others use {busy} % of the CPU)", options.rounds);
        gets_us.push(bare_get_us(&redis)?);
        for row in &mut rows {
            for (place, way) in ways.iter().enumerate() {
                let before = way.told();
                let sample = row.load.run(&cluster, &way.door, &folder)?;
                row.samples[place].push(sample);
                row.hits[place] = share(before, way.told());
            }
            eprintln!("  {}: done", row.label);
        }
    }
    print!("{}", table(&ways, &rows));
    println!("a bare GET of Redis, 1 client: {:.0} µs in the median", median(&gets_us, |us| *us));
    Ok(())
}

fn ways(cluster: &Cluster, redis: &Redis) -> Result<Vec<Way>, String> {
    let mut ways = vec![Way {
        label: "direct",
        door: Door { port: cluster.primary().port(), role: ROLE, database: DATABASE, tree: None },
        runs: Runs::PostgreSql,
    }];
    let shared = format!("[cache.redis]\nurl = \"redis://127.0.0.1:{}\"\n", redis.port());
    for (label, keeps, toml) in [
        ("no cache", false, ""),
        ("memory", true, ""),
        ("second", true, "admission = \"second\"\n"),
        ("redis", true, shared.as_str()),
    ] {
        let tidegate = tidegate(cluster, label, keeps, toml)?;
        ways.push(Way { label, door: door_of(&tidegate), runs: Runs::Tidegate(tidegate) });
    }
    match pgpool::start(cluster) {
        Ok(process) => ways.push(Way {
            label: "pgpool",
            door: process.door(),
            runs: Runs::Pgpool { _process: process },
        }),
        Err(error) => eprintln!("  without Pgpool-II: {error}"),
    }
    Ok(ways)
}

/// One worker, no password: what is measured is answers.
fn tidegate(cluster: &Cluster, label: &str, keeps: bool, toml: &str) -> Result<Tidegate, String> {
    let mut options = TidegateOptions::for_cluster(cluster, DATABASE);
    options.toml = Some(format!(
        "workers = 1\n[pool]\nsize_max = {POOL_SIZE}\n[auth]\nmethod = \"trust\"\n\
         [cache]\nttl_max = \"10m\"\n{toml}[plugins]\nstate_dir = {:?}\n",
        cluster.directory().join(format!("state of {label}"))
    ));
    let tidegate = Tidegate::start(options);
    wait_until(START_TIME_MAX, "the caching policy answers", || answers(&tidegate, "caching"));
    if keeps {
        let answer = tidegate.admin_put("/api/v1/plugins/caching/config", RULES);
        if answer.status != 200 {
            return Err(format!("the rules were refused: {}", answer.body));
        }
    }
    Ok(tidegate)
}

fn rows(options: &Options, folder: &Path, ways: usize) -> Result<Vec<Row>, String> {
    let one = "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;";
    let few = format!("\\set aid random(1, {FEW})\n{one}\n");
    let dear = format!(
        "\\set n random(1, 10)\n\
         SELECT sum(abalance), count(*) FROM pgbench_accounts WHERE aid <= {DEAR_ROWS} + :n;\n"
    );
    let any = format!("\\set aid random(1, 100000 * {SCALE})\n{one}\n");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok::<PathBuf, String>(path)
    };
    let loads = [
        ("one row, hit", write("few.sql", &few)?),
        ("5 ms, hit", write("dear.sql", &dear)?),
        ("one row, miss", write("any.sql", &any)?),
    ];
    let mut rows = Vec::new();
    for (what, script) in loads {
        for &mode in &options.modes {
            for &clients in &options.clients {
                let task = Task::Script(script.clone());
                let (seconds, connections) = (options.seconds, Connections::Kept);
                rows.push(Row {
                    label: format!("{what}, {}, {clients}", mode.label()),
                    load: Load { mode, clients, seconds, connections, task },
                    samples: vec![Vec::new(); ways],
                    hits: vec![0.0; ways],
                });
            }
        }
    }
    Ok(rows)
}

impl Way {
    /// Hits, and misses, so far.
    fn told(&self) -> (f64, f64) {
        let Runs::Tidegate(tidegate) = &self.runs else { return (0.0, 0.0) };
        let metrics = tidegate.admin_get("/metrics").body;
        let sum = |name: &str| {
            let values = metrics.lines().filter(|line| line.starts_with(name));
            values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        (sum("tidegate_cache_hits_total"), sum("tidegate_cache_misses_total"))
    }
}

fn share(before: (f64, f64), after: (f64, f64)) -> f64 {
    let (hits, misses) = (after.0 - before.0, after.1 - before.1);
    if hits + misses > 0.0 { hits / (hits + misses) } else { 0.0 }
}

/// The median time of a GET by one client of `redis-benchmark`, on a kept connection, of 100 bytes.
fn bare_get_us(redis: &Redis) -> Result<f64, String> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-p", &redis.port().to_string(), "-t", "set,get", "-c", "1", "-d", "100"]);
    let output = command.args(["-n", &GETS.to_string(), "--csv"]).output();
    let output = output.map_err(|error| format!("redis-benchmark: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms",…
    let line = text.lines().find(|line| line.starts_with("\"GET\""));
    let p50_ms = line.and_then(|line| line.split(',').nth(4)?.trim_matches('"').parse().ok());
    p50_ms.map(|ms: f64| ms * 1_000.0).ok_or_else(|| format!("redis-benchmark says:\n{text}"))
}

fn table(ways: &[Way], rows: &[Row]) -> String {
    let mut out = format!("\n{:<32}", "kind, mode, clients");
    for way in ways {
        out += &format!("{:>12}{:>8}{:>8}{:>6}", way.label, "p50 µs", "CPU µs", "hits");
    }
    out.push('\n');
    for row in rows {
        out += &format!("{:<32}", row.label);
        for (samples, hits) in row.samples.iter().zip(&row.hits) {
            let of = |value: fn(&Sample) -> f64| median(samples, value);
            let cpu = of(|sample| sample.cpu_us.unwrap_or(f64::NAN));
            let (per_second, p50) = (of(|sample| sample.per_second), of(|sample| sample.p50_us));
            out += &format!("{per_second:>10.0}/s{p50:>8.0}{cpu:>8.1}{:>5.0}%", hits * 100.0);
        }
        out.push('\n');
    }
    out
}
