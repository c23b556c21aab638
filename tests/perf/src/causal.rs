//! Of the reads of sessions that also write, how many replicas answer, though each must see what its session has written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tidegate_test_support::{
    Client, Cluster, ClusterError, ClusterOptions, Durability, Node, Tidegate, TidegateOptions,
    pipeline, wait_until,
};

const LONG: Duration = Duration::from_secs(60);
/// Of ten statements of a session one writes.
const WRITES_EACH: u64 = 10;

/// How long, how many, and how late replicas are.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Of each run.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Sessions, each of which writes a row of its own and reads it.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
    clients: u32,
    /// Replicas replay a commit so much later than they could, in milliseconds, in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20])]
    delays: Vec<u32>,
    /// A session waits so long before each statement, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause: u32,
    /// Two seconds and four sessions.
    #[arg(long)]
    quick: bool,
}

/// What the sessions of one run have seen; times in milliseconds.
#[derive(Debug, Default)]
struct Seen {
    reads: Vec<f64>,
    writes: Vec<f64>,
    /// Reads that did not show what their session had written.
    stale: u64,
    errors: u64,
}

/// Measures and prints a table.
pub fn run(options: &Options) -> Result<(), String> {
    let mut options = options.clone();
    if options.quick {
        (options.seconds, options.clients) = (2, options.clients.min(4));
    }
    let (cluster, tidegate) = start(options.clients)?;
    println!(
        "{} sessions, {} of {WRITES_EACH} statements read; on replicas: the part of the reads that they answer",
        options.clients,
        WRITES_EACH - 1
    );
    println!(
        "{:>8} {:>12} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>9}",
        "delay ms",
        "on replicas",
        "reads/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "write p50",
        "write p99",
        "waited",
        "fell back"
    );
    for &delay in &options.delays {
        set_delay(&cluster, delay)?;
        let before = Told::look(&tidegate);
        let seen = sessions(&options, &tidegate)?;
        let told = Told::look(&tidegate).since(&before);
        if seen.stale + seen.errors > 0 {
            let Seen { stale, errors, .. } = seen;
            return Err(format!(
                "{stale} reads did not show what their session had written; {errors} errors"
            ));
        }
        // Each session has read once before.
        let reads = seen.reads.len() as f64 + f64::from(options.clients);
        let (read, write) = (Percentiles::of(seen.reads), Percentiles::of(seen.writes));
        println!(
            "{delay:>8} {:>11.1}% {:>9.0} {:>8.2} {:>8.2} {:>8.2} {:>9.2} {:>9.2} {:>8.0} {:>9.0}",
            100.0 * told.on_replicas / reads.max(1.0),
            reads / f64::from(options.seconds),
            read.at(0.5),
            read.at(0.95),
            read.at(0.99),
            write.at(0.5),
            write.at(0.99),
            told.waited,
            told.fallen_back
        );
    }
    Ok(())
}

fn start(clients: u32) -> Result<(Cluster, Tidegate), String> {
    let failed = |error: ClusterError| error.to_string();
    let cluster = Cluster::start(&ClusterOptions {
        replicas: 2,
        durability: Durability::Fsync,
        conf: vec!["max_connections = 500".to_owned()],
        ..ClusterOptions::default()
    })
    .map_err(failed)?;
    let table = format!(
        "CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL); \
         INSERT INTO t SELECT id, 0 FROM generate_series(1, {clients}) id"
    );
    cluster.primary().psql(&table).map_err(failed)?;
    cluster.wait_until_caught_up().map_err(failed)?;
    let url = |node: &Node| node.url("postgres", "postgres");
    let tidegate = Tidegate::start(TidegateOptions {
        primary: url(cluster.primary()),
        replicas: cluster.replicas().iter().map(url).collect(),
        ..TidegateOptions::default()
    });
    let mut client = Client::connect(&tidegate.url("postgres", "postgres"));
    wait_until(LONG, "replicas answer reads", || {
        client.send(pipeline().query("SELECT n FROM t WHERE id = 1"));
        client.read_until_ready();
        let told = tidegate.admin_get("/metrics").body;
        cluster.replicas().iter().all(|replica| statements(&told, replica.name()) > 0.0)
    });
    Ok((cluster, tidegate))
}

/// Replicas replay what is committed from now on so much later.
fn set_delay(cluster: &Cluster, ms: u32) -> Result<(), String> {
    for replica in cluster.replicas() {
        for sql in [
            format!("ALTER SYSTEM SET recovery_min_apply_delay = '{ms}ms'"),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            replica.psql(&sql).map_err(|error| error.to_string())?;
        }
        let is_set = || {
            let shown = replica
                .psql("SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'");
            shown.is_ok_and(|shown| shown == ms.to_string())
        };
        wait_until(LONG, "the delay is in force", is_set);
    }
    cluster.wait_until_caught_up().map_err(|error| error.to_string())
}

fn sessions(options: &Options, tidegate: &Tidegate) -> Result<Seen, String> {
    let (stop, all) = (AtomicBool::new(false), Mutex::new(Seen::default()));
    thread::scope(|scope| {
        for id in 1..=options.clients {
            let (stop, all) = (&stop, &all);
            scope.spawn(move || {
                let seen = session(id, options, tidegate, stop);
                if let Ok(mut all) = all.lock() {
                    all.reads.extend(seen.reads);
                    all.writes.extend(seen.writes);
                    all.stale += seen.stale;
                    all.errors += seen.errors;
                }
            });
        }
        stay(Duration::from_secs(options.seconds.into()));
        stop.store(true, Ordering::Relaxed);
    });
    all.into_inner().map_err(|error| error.to_string())
}

fn session(id: u32, options: &Options, tidegate: &Tidegate, stop: &AtomicBool) -> Seen {
    let mut client = Client::connect(&tidegate.url("postgres", "postgres"));
    let mut seen = Seen::default();
    let read = format!("SELECT n FROM t WHERE id = {id}");
    let mut written = client.value(&read).and_then(|n| n.parse().ok()).unwrap_or(0_u64);
    // Sessions are not in step.
    let mut count = u64::from(id);
    while !stop.load(Ordering::Relaxed) {
        if options.pause > 0 {
            stay(Duration::from_millis(options.pause.into()));
        }
        count += 1;
        let writes = count % WRITES_EACH == 0;
        let sql = match writes {
            true => format!("UPDATE t SET n = {} WHERE id = {id}", written + 1),
            false => read.clone(),
        };
        let asked = Instant::now();
        client.send(pipeline().query(&sql));
        let answer = client.read_until_ready();
        let ms = asked.elapsed().as_secs_f64() * 1_000.0;
        if answer.iter().any(|message| message.tag == b'E') {
            seen.errors += 1;
        } else if writes {
            written += 1;
            seen.writes.push(ms);
        } else {
            let row = answer.iter().find(|message| message.tag == b'D');
            let shown = row.and_then(|row| row.row().swap_remove(0));
            seen.stale += u64::from(shown != Some(written.to_string()));
            seen.reads.push(ms);
        }
    }
    seen
}

/// What Tidegate has counted.
struct Told {
    on_replicas: f64,
    waited: f64,
    fallen_back: f64,
}

impl Told {
    fn look(tidegate: &Tidegate) -> Told {
        let told = tidegate.admin_get("/metrics").body;
        Told {
            on_replicas: statements(&told, "replica-1") + statements(&told, "replica-2"),
            waited: value(&told, "tidegate_reads_waited_total "),
            fallen_back: value(&told, "tidegate_reads_fallen_back_total "),
        }
    }

    fn since(self, before: &Told) -> Told {
        Told {
            on_replicas: self.on_replicas - before.on_replicas,
            waited: self.waited - before.waited,
            fallen_back: self.fallen_back - before.fallen_back,
        }
    }
}

fn statements(told: &str, server: &str) -> f64 {
    value(told, &format!("tidegate_server_statements_total{{server=\"{server}\"}} "))
}

fn value(told: &str, begin: &str) -> f64 {
    let value = told.lines().find_map(|line| line.strip_prefix(begin)?.parse().ok());
    value.unwrap_or_default()
}

struct Percentiles(Vec<f64>);

impl Percentiles {
    fn of(mut values: Vec<f64>) -> Percentiles {
        values.sort_by(f64::total_cmp);
        Percentiles(values)
    }

    fn at(&self, part: f64) -> f64 {
        let index = (self.0.len() as f64 * part) as usize;
        self.0.get(index).or(self.0.last()).copied().unwrap_or_default()
    }
}

/// A scope's threads wake whoever parks.
fn stay(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}
