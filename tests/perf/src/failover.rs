//! How long writes and reads stand still when a primary is killed, hangs, or is replaced by order.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidegate_test_support::{
    Client, Cluster, ClusterError, ClusterOptions, Durability, Node, Tidegate, TidegateOptions,
    pipeline, wait_until,
};

const LONG: Duration = Duration::from_secs(60);
const READ: &str = "SELECT 1 FROM t WHERE n = 1";
/// So long clients run before and after.
const UNDISTURBED: Duration = Duration::from_millis(1_500);

/// What to do to the primary.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// `kill`: all its processes at once; `hang`: they stop; `switchover`.
    #[arg(long, value_enum, default_value = "kill")]
    fault: Fault,
    #[arg(long, default_value_t = 20)]
    runs: u32,
    /// Clients that write, and as many that read.
    #[arg(long, default_value_t = 4)]
    clients: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Fault {
    Kill,
    Hang,
    Switchover,
}

/// One run, times in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// From the fault to the first acknowledgement of a write that began after it.
    first_ms: f64,
    /// The longest time between two acknowledgements to one writer.
    writes_ms: f64,
    /// The longest time between two answers to one reader.
    reads_ms: f64,
    /// Acknowledged writes that the new primary does not have.
    lost: usize,
    /// Those that Tidegate says are lost, or may be.
    said: u64,
    /// Errors that writers and readers were told.
    errors: usize,
}

/// Measures and prints a table.
pub fn run(options: &Options) -> Result<(), String> {
    let mut outcomes = Vec::new();
    println!(
        "first: from the fault to the first write that began after it; the others: the longest pause of a client"
    );
    let heads = ["run", "first ms", "writes ms", "reads ms", "lost", "said", "errors"];
    let [run, first, writes, reads, lost, said, errors] = heads;
    println!("{run:<6} {first:>12} {writes:>12} {reads:>12} {lost:>6} {said:>6} {errors:>7}");
    for run in 1..=options.runs {
        let outcome = one(options)?;
        let Outcome { first_ms, writes_ms, reads_ms, lost, said, errors } = outcome;
        println!(
            "{run:<6} {first_ms:>12.0} {writes_ms:>12.0} {reads_ms:>12.0} {lost:>6} {said:>6} {errors:>7}"
        );
        if lost as u64 > said {
            return Err(format!("{lost} acknowledged writes are lost, and {said} are said to be"));
        }
        outcomes.push(outcome);
    }
    for (name, part) in [("median", 0.5), ("p95", 0.95), ("max", 1.0)] {
        let at = |value: fn(&Outcome) -> f64| {
            let mut values: Vec<f64> = outcomes.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            let index = ((values.len() as f64 * part).ceil() as usize).clamp(1, values.len()) - 1;
            values.get(index).copied().unwrap_or_default()
        };
        let (first, writes, reads) = (at(|o| o.first_ms), at(|o| o.writes_ms), at(|o| o.reads_ms));
        println!("{name:<6} {first:>12.0} {writes:>12.0} {reads:>12.0}");
    }
    Ok(())
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    next: AtomicU64,
    /// Since when the fault counts, in microseconds after the beginning; 0: not yet.
    fault_us: AtomicU64,
    first_us: AtomicU64,
    writes_gap_us: AtomicU64,
    reads_gap_us: AtomicU64,
    told: Mutex<BTreeSet<u64>>,
    errors: AtomicU64,
}

fn one(options: &Options) -> Result<Outcome, String> {
    let cluster = Cluster::start(&ClusterOptions {
        replicas: 2,
        durability: Durability::Fsync,
        conf: vec!["wal_receiver_timeout = 4s".to_owned()],
        ..ClusterOptions::default()
    })
    .map_err(|error| error.to_string())?;
    let failed = |error: ClusterError| error.to_string();
    cluster.primary().psql("CREATE TABLE t (n bigint PRIMARY KEY)").map_err(failed)?;
    cluster.wait_until_caught_up().map_err(failed)?;
    let url = |node: &Node| node.url("postgres", "postgres");
    let tidegate = Tidegate::start(TidegateOptions {
        primary: url(cluster.primary()),
        replicas: cluster.replicas().iter().map(url).collect(),
        toml: Some("[failover]\nmode = \"embedded\"\nhold_max = \"60s\"\n".to_owned()),
        ..TidegateOptions::default()
    });
    let steady = || tidegate.admin_get("/api/v1/cluster").body.contains("\"state\":\"steady\"");
    wait_until(LONG, "the cluster is steady", steady);
    wait_until(LONG, "reads run on replicas", || is_split(&tidegate));
    let (seen, began) = (Seen::default(), Instant::now());
    thread::scope(|scope| {
        for _ in 0..options.clients {
            scope.spawn(|| write(&tidegate, &seen, began));
            scope.spawn(|| read(&tidegate, &seen));
        }
        stay(UNDISTURBED);
        seen.writes_gap_us.store(0, Ordering::Relaxed);
        seen.reads_gap_us.store(0, Ordering::Relaxed);
        let ordered_us = micros(began);
        match options.fault {
            Fault::Kill => cluster.primary().kill(),
            Fault::Hang => cluster.primary().pause(),
            Fault::Switchover => drop(tidegate.command(&["switchover"])),
        }
        // What began while the fault was being made may have been served by the old primary.
        let is_ordered = options.fault == Fault::Switchover;
        let fault_us = if is_ordered { ordered_us } else { micros(began) };
        seen.fault_us.store(fault_us, Ordering::Relaxed);
        wait_until(LONG, "a write is acknowledged", || seen.first_us.load(Ordering::Relaxed) > 0);
        stay(UNDISTURBED);
        seen.stop.store(true, Ordering::Relaxed);
    });
    let cluster_report = || -> serde_json::Value {
        serde_json::from_str(&tidegate.admin_get("/api/v1/cluster").body).unwrap_or_default()
    };
    let is_told = || options.fault == Fault::Switchover || !cluster_report()["losses"].is_null();
    wait_until(LONG, "it is said what is lost", is_told);
    let answer = cluster_report();
    let said = |what: &str| answer["losses"][what].as_u64().unwrap_or_default();
    let name = answer["primary"].as_str().unwrap_or_default();
    let promoted = cluster.nodes().find(|node| node.name() == name).ok_or("no primary")?;
    let kept = promoted.psql("SELECT n FROM t").map_err(failed)?;
    let kept: BTreeSet<u64> = kept.lines().filter_map(|row| row.parse().ok()).collect();
    let told = seen.told.into_inner().map_err(|error| error.to_string())?;
    let ms = |us: &AtomicU64| us.load(Ordering::Relaxed) as f64 / 1_000.0;
    Ok(Outcome {
        first_ms: ms(&seen.first_us) - ms(&seen.fault_us),
        writes_ms: ms(&seen.writes_gap_us),
        reads_ms: ms(&seen.reads_gap_us),
        lost: told.difference(&kept).count(),
        said: said("lost") + said("uncertain"),
        errors: seen.errors.load(Ordering::Relaxed) as usize,
    })
}

/// Somebody has to use the database before it is known what reads there.
fn is_split(tidegate: &Tidegate) -> bool {
    let mut client = Client::connect(&tidegate.url("postgres", "postgres"));
    client.send(pipeline().query(READ));
    client.read_until_ready();
    let (_, explained) = tidegate.command(&["explain", READ]);
    explained.contains("a replica may run it")
}

/// A scope's threads wake whoever parks.
fn stay(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Writes numbers one by one.
fn write(tidegate: &Tidegate, seen: &Seen, began: Instant) {
    let mut acknowledged = Instant::now();
    while !seen.stop.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_connect(&tidegate.url("postgres", "postgres"), &[]) else {
            continue;
        };
        while !seen.stop.load(Ordering::Relaxed) {
            let number = seen.next.fetch_add(1, Ordering::Relaxed);
            let asked_us = micros(began);
            client.send(pipeline().query(&format!("INSERT INTO t VALUES ({number})")));
            let Some(answer) = client.read_message_or_end() else { break };
            if answer.tag == b'C' {
                seen.writes_gap_us.fetch_max(micros(acknowledged), Ordering::Relaxed);
                acknowledged = Instant::now();
                if let Ok(mut told) = seen.told.lock() {
                    told.insert(number);
                }
                let fault_us = seen.fault_us.load(Ordering::Relaxed);
                if fault_us > 0 && asked_us > fault_us {
                    let first = &seen.first_us;
                    let now = micros(began);
                    let _ = first.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
                }
            } else {
                seen.errors.fetch_add(1, Ordering::Relaxed);
            }
            if client.read_message_or_end().is_none() {
                break;
            }
        }
    }
}

/// Reads, and notes how long each answer takes.
fn read(tidegate: &Tidegate, seen: &Seen) {
    let mut client = Client::connect(&tidegate.url("postgres", "postgres"));
    while !seen.stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        client.send(pipeline().query(READ));
        let answer = client.read_until_ready();
        seen.reads_gap_us.fetch_max(micros(asked), Ordering::Relaxed);
        if answer.iter().any(|message| message.tag == b'E') {
            seen.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}
