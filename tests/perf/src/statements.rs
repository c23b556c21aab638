//! Statements that are all different, by the hundred thousand: does memory stay bounded, and what do known ones cost then?

use crate::process::Tree;
use crate::quiet;
use crate::targets::{DATABASE, START_TIME_MAX, fill};
use std::time::{Duration, Instant};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Durability, Tidegate, TidegateOptions, pipeline, wait_until,
};

/// Statements that are sent before their answers are read.
const AT_ONCE: u32 = 500;
const KNOWN: u32 = 200_000;

/// What to send.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Different statements.
    #[arg(long, default_value_t = 1_000_000)]
    statements: u32,
    /// Wait at most so many seconds for a quiet machine.
    #[arg(long, default_value_t = 60)]
    quiet_wait: u32,
}

/// Measures and prints a table.
pub fn run(options: &Options) -> Result<(), String> {
    let cluster = Cluster::start(&ClusterOptions {
        replicas: 2,
        durability: Durability::None,
        ..ClusterOptions::default()
    })
    .map_err(|error| error.to_string())?;
    fill(&cluster, 1)?;
    cluster.wait_until_caught_up().map_err(|error| error.to_string())?;
    let mut settings = TidegateOptions::for_cluster(&cluster, DATABASE);
    settings.toml = Some("workers = 1\n".to_owned());
    let tidegate = Tidegate::start(settings);
    let mut client = Client::connect(&tidegate.url(ROLE, DATABASE));
    wait_until(START_TIME_MAX, "the routing policy answers", || {
        tidegate.admin_get("/api/v1/plugins/routing").body.contains("\"source\":\"embedded\"")
    });
    let busy = quiet::wait(Duration::from_secs(options.quiet_wait.into()));
    eprintln!("measuring (others use {busy} % of the CPU)");
    let known = |_| "SELECT abalance FROM pgbench_accounts WHERE aid = 7".to_owned();
    let distinct =
        |number| format!("SELECT abalance AS c{number} FROM pgbench_accounts WHERE aid = 7");
    println!("{:<28} {:>12} {:>10}", "", "CPU µs each", "RSS KiB");
    let mut measure = |label: &str, count: u32, text: &dyn Fn(u32) -> String| {
        let cpu_us = send(&tidegate, &mut client, count, text);
        println!("{label:<28} {cpu_us:>12.1} {:>10}", tidegate.resident_kib());
    };
    measure("known ones, to warm up", KNOWN, &known);
    measure("known ones", KNOWN, &known);
    measure("a tenth of the different", options.statements / 10, &distinct);
    let rest = |number| distinct(number + options.statements / 10);
    measure("the other different", options.statements - options.statements / 10, &rest);
    measure("known ones", KNOWN, &known);
    Ok(())
}

/// CPU time of Tidegate for each of so many statements, in microseconds.
fn send(tidegate: &Tidegate, client: &mut Client, count: u32, text: &dyn Fn(u32) -> String) -> f64 {
    let process = Tree(tidegate.pid());
    let (before, begun) = (process.cpu_us(), Instant::now());
    let mut number = 0;
    while number < count {
        let until = count.min(number + AT_ONCE);
        let mut all = pipeline();
        for number in number..until {
            all = all.query(&text(number));
        }
        client.send(all);
        for _ in number..until {
            client.read_until_ready();
        }
        number = until;
    }
    eprintln!("{count} statements in {:.0} s", begun.elapsed().as_secs_f64());
    (process.cpu_us() - before) as f64 / f64::from(count.max(1))
}
