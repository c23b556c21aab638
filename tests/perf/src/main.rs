//! Benchmarks: `micro` for single functions, `proxy` for Tidegate beside PostgreSQL itself and PgBouncer, others for single promises.

mod analysis; // what a statement's shape costs
mod caching; // answers that are kept, beside those that are fetched
mod causal; // reads of sessions that write, on replicas
mod failover; // how long clients stand still
mod flame; // where a query's CPU time goes
mod json; // the results for machines
mod limits; // what it costs to look whether there is room
mod load; // pgbench
mod memory; // what idle clients and a long result cost
mod micro; // single functions
mod pgbouncer; // its process
mod pgpool; // its process, with its cache
mod picture; // the results as SVG
mod policies; // what policies, the split and limits cost a query, and a swap under load
mod policy; // plugins
mod process; // CPU time and memory of a process and its children
mod quiet; // waiting for a quiet machine
mod report; // the results as a table
mod run; // the rounds
mod statements; // a million different ones
mod targets; // those that are compared

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Measures Tidegate.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Single pure functions, in nanoseconds per call, and in instructions where valgrind is installed.
    Micro,
    /// What `micro` counts the instructions of.
    #[command(hide = true)]
    Calls(analysis::Calls),
    /// Plugins: a plan, a decision, an answer that is kept, a swap, in nanoseconds.
    Policy,
    /// pgbench through Tidegate with and without policies, replicas and limits, interleaved; and a hundred swaps under load.
    Policies(policies::Options),
    /// Answers from memory and from Redis beside those of servers: hits, dear statements, misses.
    Cache(caching::Options),
    /// How many reads replicas answer of sessions that also write, and see what they have written.
    Causal(causal::Options),
    /// How long writes and reads stand still when the primary is killed, hangs, or is replaced by order.
    Failover(failover::Options),
    /// pgbench direct, through PgBouncer and through Tidegate, interleaved in one run.
    Proxy(run::Options),
    /// Where a query's CPU time goes: a flame graph, and system calls per query. Needs perf and strace.
    Flame(flame::Options),
    /// A million different statements: memory, and what known ones cost before and after.
    Statements(statements::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        What::Micro => {
            micro::run();
            limits::run();
            analysis::run();
            Ok(())
        }
        What::Calls(asked) => {
            analysis::calls(&asked);
            Ok(())
        }
        What::Policy => policy::run().map_err(|error| error.to_string()),
        What::Policies(options) => policies::run(&options),
        What::Cache(options) => caching::run(&options),
        What::Causal(options) => causal::run(&options),
        What::Failover(options) => failover::run(&options),
        What::Proxy(options) => run::run(&options),
        What::Flame(options) => flame::run(&options),
        What::Statements(options) => statements::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
