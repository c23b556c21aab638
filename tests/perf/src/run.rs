//! The rounds: every target after the other under the same load, so that what disturbs one disturbs all.

use crate::load::{Connections, Load, Mode};
use crate::memory;
use crate::report::{Machine, Report};
use crate::targets::Stage;
use crate::{picture, quiet};
use std::fs;
use std::time::Duration;
use tidegate_test_support::target_directory;

/// What to measure, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Of each run of pgbench.
    #[arg(long, default_value_t = 5)]
    pub seconds: u32,
    /// Each shows every target once under every load; the table has the medians.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// One round of one second, 1 and 8 clients, fewer idle clients.
    #[arg(long)]
    pub quick: bool,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 128])]
    pub clients: Vec<u32>,
    /// simple, extended, prepared
    #[arg(long, value_delimiter = ',', default_value = "simple,extended,prepared")]
    pub modes: Vec<Mode>,
    /// Clients that connect and do nothing, for the memory that each takes.
    #[arg(long, default_value_t = 1000)]
    pub idle: u32,
    /// Of the long result.
    #[arg(long, default_value_t = 100)]
    pub megabytes: u32,
    /// Wait at most so many seconds for a quiet machine, before each round.
    #[arg(long, default_value_t = 60)]
    pub quiet_wait: u32,
}

impl Options {
    fn resolved(&self) -> Options {
        let mut options = self.clone();
        if self.quick {
            options.seconds = 1;
            options.rounds = 1;
            options.clients = vec![1, 8];
            options.idle = options.idle.min(200);
        }
        options
    }
}

/// Measures everything and writes the report.
pub fn run(options: &Options) -> Result<(), String> {
    let options = options.resolved();
    eprintln!("starting a primary and the proxies");
    let stage = Stage::start(10)?;
    let mut report = Report::new(Machine::look(&stage.cluster), &options);
    for round in 1..=options.rounds {
        let busy = quiet::wait(Duration::from_secs(u64::from(options.quiet_wait)));
        report.busy_percent.push(busy);
        eprintln!("round {round} of {}", options.rounds);
        one_round(&options, &stage, &mut report)?;
    }
    print!("{}", report.table());
    let folder = target_directory().join("bench");
    let json = serde_json::to_string_pretty(&report.json()).map_err(|error| error.to_string())?;
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("proxy.json"), json)?;
        fs::write(folder.join("proxy.svg"), picture::draw(&report))
    };
    write().map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("\n{0}/proxy.json and {0}/proxy.svg", folder.display());
    Ok(())
}

fn one_round(options: &Options, stage: &Stage, report: &mut Report) -> Result<(), String> {
    let folder = stage.cluster.directory().join("pgbench-logs");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let targets = stage.targets();
    for &mode in &options.modes {
        for &clients in &options.clients {
            for target in &targets {
                let seconds = options.seconds;
                let load = Load { mode, clients, seconds, connections: Connections::Kept };
                match load.run(&stage.cluster, target, &folder) {
                    Ok(sample) => report.add(target.name, mode, clients, sample),
                    Err(error) => report.fail(error),
                }
            }
            eprintln!("  {} with {clients} clients done", mode.label());
        }
    }
    for target in &targets {
        let load = Load {
            mode: Mode::Simple,
            clients: 8,
            seconds: options.seconds,
            connections: Connections::PerTransaction,
        };
        match load.run(&stage.cluster, target, &folder) {
            Ok(sample) => report.connects.entry(target.name).or_default().push(sample),
            Err(error) => report.fail(error),
        }
        match memory::transfer(target, options.megabytes) {
            Ok(transfer) => report.transfers.entry(target.name).or_default().push(transfer),
            Err(error) => report.fail(format!("{}: {error}", target.name.label())),
        }
    }
    // Once is enough: memory does not depend on what else the machine does, and a proxy does not give it back.
    if report.idle.is_empty() {
        for target in &targets {
            match memory::idle(target, options.idle) {
                Ok(idle) => report.idle.extend(idle.map(|idle| (target.name, idle))),
                Err(error) => report.fail(error),
            }
        }
    }
    eprintln!("  connections, a long result, idle clients done");
    Ok(())
}
