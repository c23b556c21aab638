//! The rounds: every target after the other under the same load, so that what disturbs one disturbs all.

use crate::load::{Connections, Load, Mode, Task};
use crate::memory;
use crate::report::{Login, Machine, Report};
use crate::targets::{Stage, Target};
use crate::{json, picture, quiet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_test_support::target_directory;

/// pgbench's scale: a million accounts, which fit into the server's memory.
const SCALE: u32 = 10;
/// Of those that connect for each transaction.
const CONNECTING_CLIENTS: u32 = 8;
/// What proxies take at once here, and descriptors suffice for.
const IDLE_MAX: i64 = 10_000;
/// Descriptors for all that is not an idle client.
const OTHER_DESCRIPTORS: u64 = 500;

/// What to measure, and for how long.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Of each run of pgbench.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Each shows every target once under every load; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// One round of two seconds, 1 and 32 clients, 500 idle clients, a short wait for quiet.
    #[arg(long)]
    pub quick: bool,
    /// pgbench's clients, in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32, 128])]
    pub clients: Vec<u32>,
    /// simple, extended, prepared
    #[arg(long, value_delimiter = ',', default_value = "simple,extended,prepared")]
    pub modes: Vec<Mode>,
    /// Clients that connect and do nothing, for the memory that each takes.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=IDLE_MAX))]
    pub idle: u32,
    /// Of the long result.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub megabytes: u32,
    /// Wait at most so many seconds for a quiet machine, before each round.
    #[arg(long, default_value_t = 60)]
    pub quiet_wait: u32,
}

impl Options {
    fn resolved(&self) -> Options {
        let mut options = self.clone();
        if self.quick {
            options.seconds = 2;
            options.rounds = 1;
            options.clients = vec![1, 32];
            options.idle = options.idle.min(500);
            options.quiet_wait = options.quiet_wait.min(10);
        }
        options
    }
}

/// Measures everything and writes the report.
pub fn run(options: &Options) -> Result<(), String> {
    let mut options = options.resolved();
    options.idle = options.idle.min(raise_descriptors());
    eprintln!("starting a primary and the proxies");
    let stage = Stage::start(SCALE)?;
    let mut report = Report::new(Machine::look(&stage), &options);
    for round in 1..=options.rounds {
        let busy = quiet::wait(Duration::from_secs(u64::from(options.quiet_wait)));
        report.busy_percent.push(busy);
        eprintln!("round {round} of {} (others use {busy} % of the CPU)", options.rounds);
        Round { options: &options, stage: &stage, folder: log_folder(&stage)? }.run(&mut report);
    }
    print!("{}", report.table());
    let folder = target_directory().join("bench");
    let json = serde_json::to_string_pretty(&json::of(&report)).map_err(|e| e.to_string())?;
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("proxy.json"), json)?;
        fs::write(folder.join("proxy.svg"), picture::draw(&report))
    };
    write().map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("\n{0}/proxy.json and {0}/proxy.svg", folder.display());
    Ok(())
}

fn log_folder(stage: &Stage) -> Result<PathBuf, String> {
    let folder = stage.cluster.directory().join("pgbench-logs");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

/// Lets this process and those it starts hold as many descriptors as the system allows; how many idle clients that
/// is enough for.
fn raise_descriptors() -> u32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct that they are given.
    let held = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur
    };
    u32::try_from(held.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(u32::MAX)
}

struct Round<'a> {
    options: &'a Options,
    stage: &'a Stage,
    folder: PathBuf,
}

impl Round<'_> {
    fn run(&self, report: &mut Report) {
        let targets = self.stage.targets();
        self.loads(&targets, report);
        self.connecting(&targets, report);
        for target in &targets {
            match memory::transfer(&target.door, self.options.megabytes) {
                Ok(transfer) => report.transfers.entry(target.name).or_default().push(transfer),
                Err(error) => report.fail(format!("{}, long result: {error}", target.name.label())),
            }
        }
        eprintln!("  a result of {} MB: done", self.options.megabytes);
        // Once is enough: memory does not depend on what else the machine does, and proxies don't give it back.
        if report.idle.is_empty() {
            self.idle(&targets, report);
        }
    }

    fn loads(&self, targets: &[Target], report: &mut Report) {
        for &mode in &self.options.modes {
            for &clients in &self.options.clients {
                let load = Load {
                    mode,
                    clients,
                    seconds: self.options.seconds,
                    connections: Connections::Kept,
                    task: Task::Select,
                };
                for target in targets {
                    let door = if mode == Mode::Prepared { &target.prepared } else { &target.door };
                    match load.run(&self.stage.cluster, door, &self.folder) {
                        Ok(sample) => report.add(target.name, mode, clients, sample),
                        Err(error) => report.fail(format!("{}, {error}", target.name.label())),
                    }
                }
                eprintln!("  {}, {clients} clients: done", mode.label());
            }
        }
    }

    fn connecting(&self, targets: &[Target], report: &mut Report) {
        let load = Load {
            mode: Mode::Simple,
            clients: CONNECTING_CLIENTS,
            seconds: self.options.seconds,
            connections: Connections::PerTransaction,
            task: Task::Select,
        };
        for login in [Login::Trust, Login::Scram] {
            for target in targets {
                let door = match login {
                    Login::Trust => target.trusting,
                    Login::Scram => Some(target.door),
                };
                let Some(door) = door else { continue };
                match load.run(&self.stage.cluster, &door, &self.folder) {
                    Ok(sample) => {
                        report.connects.entry((login, target.name)).or_default().push(sample);
                    }
                    Err(error) => {
                        report.fail(format!("{}, connecting: {error}", target.name.label()));
                    }
                }
            }
            eprintln!("  connecting, {}: done", login.label());
        }
    }

    fn idle(&self, targets: &[Target], report: &mut Report) {
        for target in targets {
            match memory::idle(&target.door, self.options.idle) {
                Ok(idle) => report.idle.extend(idle.map(|idle| (target.name, idle))),
                Err(error) => report.fail(format!("{}, idle: {error}", target.name.label())),
            }
        }
        eprintln!("  {} idle clients: done", self.options.idle);
    }
}
