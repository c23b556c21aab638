//! The load that a release build learns from: what Tidegate does most. `cargo xtask release` runs it with an
//! instrumented program, which writes what it has counted when it ends.

use crate::load::{Connections, Load, Mode, Task};
use crate::policies::log_folder;
use crate::targets::{Door, door_of, fill, start_tidegate};
use std::path::Path;
use tidegate_test_support::{Cluster, ClusterOptions, Durability};

/// Of pgbench's tables.
const SCALE: u32 = 10;
/// Both ways to wait for sockets: each has code of its own.
const IO: [&str; 2] = ["epoll", "io_uring"];
const MODES: [Mode; 3] = [Mode::Simple, Mode::Extended, Mode::Prepared];
const CLIENTS: [u32; 3] = [1, 8, 32];
/// Of the load in which each transaction is a connection.
const CONNECTING: u32 = 8;

#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Of each run of pgbench.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

/// Runs each load once.
pub fn run(options: &Options) -> Result<(), String> {
    let cluster = Cluster::start(&ClusterOptions {
        durability: Durability::None,
        conf: vec!["max_connections = 200".into(), "shared_buffers = 256MB".into()],
        ..ClusterOptions::default()
    })
    .map_err(|error| error.to_string())?;
    fill(&cluster, SCALE)?;
    let folder = log_folder(&cluster)?;
    for io in IO {
        eprintln!("io = {io:?}");
        let tidegate = start_tidegate(&cluster, &format!("io = {io:?}\n"))?;
        train(options.seconds, &cluster, &door_of(&tidegate), &folder)?;
        let code = tidegate.terminate();
        if code != 0 {
            return Err(format!("Tidegate ended with {code}"));
        }
    }
    Ok(())
}

fn train(seconds: u32, cluster: &Cluster, door: &Door, folder: &Path) -> Result<(), String> {
    let kept = MODES.iter().flat_map(|mode| CLIENTS.map(|clients| (*mode, clients)));
    let kept = kept.map(|(mode, clients)| (mode, clients, Connections::Kept));
    for (mode, clients, connections) in
        kept.chain([(Mode::Simple, CONNECTING, Connections::PerTransaction)])
    {
        let load = Load { mode, clients, seconds, connections, task: Task::Select };
        let sample = load.run(cluster, door, folder)?;
        eprintln!("  {}, {clients} clients: {:.0}/s", mode.label(), sample.per_second);
    }
    Ok(())
}
