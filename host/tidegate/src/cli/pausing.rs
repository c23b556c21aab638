//! `tidegate pause`, `resume`, `reconnect`: server connections of a running Tidegate.

use std::time::{Duration, Instant};

use hyper::Method;
use tidegate_core::limits::{ADMIN_ANSWER_TIME_MAX, PAUSE_ANSWER_TIME_MAX};

use super::plugin::api::{Admin, Request};
use crate::admin::{PoolsQuestion, PoolsReport, PoolsVerb};
use crate::config::flag_value;
use crate::exit::Exit;
use crate::observe::snapshot::PausedSnapshot;

pub(super) const PAUSE_EXAMPLES: &str = "\
Examples:
  tidegate pause shop && pg_ctl restart && tidegate resume shop
  tidegate pause --wait 5min

Statements that would begin a transaction are held, transactions in progress run to their end, and
server connections are closed as they come free. It ends well when none is left. A client in session
mode, or one that is pinned, keeps its connection until it leaves. pool.pause_max bounds how long a
statement is held. With 1 the pause is in force all the same: `tidegate resume` ends it.";

pub(super) const RECONNECT_EXAMPLES: &str = "\
Examples:
  tidegate reconnect
  tidegate reconnect shop

It returns at once: each server connection is replaced when it comes free.";

/// How often progress is asked for and told.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PoolsArgs {
    #[command(flatten)]
    admin: Admin,
    /// The database [default: all of them]
    #[arg(value_name = "DATABASE")]
    database: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PauseArgs {
    #[command(flatten)]
    pools: PoolsArgs,
    /// How long to wait for transactions to end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = flag_value::<Duration>)]
    wait: Duration,
}

pub(super) fn pause(args: &PauseArgs) -> Exit {
    let deadline = Instant::now() + args.wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match ask(&args.pools, PoolsVerb::Pause, left.min(TELL_INTERVAL)) {
            Err(words) => return super::fail(&words),
            Ok(report) if report.done => {
                super::say(&format!("{}; no server connection is left\n", told(&report.paused)));
                return Exit::Ok;
            }
            Ok(report) => {
                let PoolsReport { open, in_use, .. } = report;
                eprintln!("tidegate: {open} server connections are open, {in_use} in use");
                if left.is_zero() {
                    return super::fail("paused, but transactions have not ended in time");
                }
            }
        }
    }
}

pub(super) fn resume(args: &PoolsArgs) -> Exit {
    match ask(args, PoolsVerb::Resume, Duration::ZERO) {
        Err(words) => super::fail(&words),
        Ok(report) => {
            super::say(&format!("{}\n", told(&report.paused)));
            Exit::Ok
        }
    }
}

pub(super) fn reconnect(args: &PoolsArgs) -> Exit {
    match ask(args, PoolsVerb::Reconnect, Duration::ZERO) {
        Err(words) => super::fail(&words),
        Ok(PoolsReport { in_use, .. }) => {
            super::say(&format!("{in_use} server connections are in use and replaced later\n"));
            Exit::Ok
        }
    }
}

fn ask(args: &PoolsArgs, verb: PoolsVerb, wait: Duration) -> Result<PoolsReport, String> {
    let wait_ms = u64::try_from(wait.min(PAUSE_ANSWER_TIME_MAX).as_millis()).ok();
    let question = PoolsQuestion { database: args.database.clone(), wait_ms };
    let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    let path = format!("/api/v1/{}", verb.name());
    let request = Request { body, ..Request::new(Method::POST, path) };
    let answer = args.admin.ask_within(ADMIN_ANSWER_TIME_MAX, request)?;
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}

/// What is paused, for people.
fn told(paused: &PausedSnapshot) -> String {
    match paused {
        PausedSnapshot { all: true, except, .. } if except.is_empty() => {
            "all databases are paused".to_owned()
        }
        PausedSnapshot { all: true, except, .. } => {
            format!("all databases are paused but {}", except.join(", "))
        }
        PausedSnapshot { databases, .. } if databases.is_empty() => "nothing is paused".to_owned(),
        PausedSnapshot { databases, .. } => format!("paused: {}", databases.join(", ")),
    }
}
