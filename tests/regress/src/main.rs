//! PostgreSQL's own regression tests, directly and through Tidegate in transaction mode.
//!
//! `cargo xtask regress` finds PostgreSQL's source and calls this. Each way gets a new cluster, so that both begin with
//! nothing. A test that passes directly must pass through Tidegate, unless [`known`] says why it cannot.

mod known; // tests that cannot pass, each with the reason
mod outcome; // what pg_regress says, and both ways compared
mod suite; // the tests, and the library that they load
mod way; // one run of all tests

use clap::Parser;
use outcome::Comparison;
use std::path::PathBuf;
use std::process::ExitCode;
use suite::Suite;
use way::Way;

/// Runs PostgreSQL's regression tests directly and through Tidegate, and compares.
#[derive(Parser)]
pub(crate) struct Options {
    /// The folder of PostgreSQL's source, which holds `src/test/regress`.
    #[arg(long)]
    source: PathBuf,
    /// Where results and differences are kept.
    #[arg(long)]
    results: PathBuf,
    /// Server connections of each pool of Tidegate: fewer than tests that run at once, so that they share them.
    #[arg(long, default_value_t = 5)]
    pool: usize,
    /// Tests that run at once; 0 for as many as the schedule says, which is 20 at most.
    #[arg(long, default_value_t = 0)]
    max_connections: usize,
    /// Only these tests, one after the other, and what nearly all of them need before them.
    #[arg(long, value_delimiter = ',')]
    tests: Vec<String>,
    /// Minutes after which a way is given up.
    #[arg(long, default_value_t = 30)]
    minutes_max: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("regress: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Both ways, and whether there is nothing that is not known.
fn run(options: &Options) -> Result<bool, String> {
    let suite = Suite::prepare(options)?;
    let direct = suite.run(&Way::direct()?)?;
    let through = suite.run(&Way::through_tidegate(options.pool)?)?;
    let comparison = Comparison::of(&direct.outcomes, &through.outcomes);
    print!("{}", comparison.table());
    println!("\nresults and differences: {}/{{direct,through}}", options.results.display());
    let complete = direct.status.is_some() && through.status.is_some();
    Ok(complete && comparison.is_good())
}
