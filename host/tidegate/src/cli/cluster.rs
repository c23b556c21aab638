//! `tidegate topology`, `switchover`, `failover`, `drain`, `undrain`, `resync`: the servers behind a running Tidegate.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use hyper::Method;
use serde::Serialize;

use super::plugin::api::{Admin, Request};
use crate::admin::{
    ClusterReport, ClusterVerb, FailoverQuestion, ServerQuestion, ServerReport, SwitchoverQuestion,
};
use crate::config::flag_value;
use crate::exit::Exit;

pub(super) const SWITCHOVER_EXAMPLES: &str = "\
Examples:
  tidegate switchover
  tidegate switchover --to replica-2

Statements for the primary are held, transactions in progress run to their end, the primary is made
read-only, and the replica is promoted when it has all of its log: nothing is lost. The old primary
stays read-only until failover.rejoin_command, or somebody, makes it a replica.";

pub(super) const FAILOVER_EXAMPLES: &str = "\
Examples:
  tidegate failover --to replica-1
  tidegate failover --to replica-1 --force

For a primary that is gone and is not replaced by itself (failover.interval_min, a replica that lacks more than
failover.lag_bytes_max, replicas that do not confirm it). What the replica has not received is lost: it is said how much
that may be. A primary that answers is not replaced without --force; `tidegate switchover` loses nothing.";

pub(super) const DRAIN_EXAMPLES: &str = "\
Examples:
  tidegate drain replica-1
  tidegate undrain replica-1

Reads that run there end; new ones go to other servers. It holds until `undrain`, a restart of Tidegate, or until the
server becomes primary; a reload does not end it.";

pub(super) const RESYNC_EXAMPLES: &str = "\
Examples:
  tidegate resync replica-1

failover.rejoin_command is run for it, with TIDEGATE_ACTION=resync, and is to make it a copy of the primary again
(pg_rewind, else pg_basebackup); `tidegate topology` tells how it ends.";

/// How often it is looked how far a switchover is.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TopologyArgs {
    #[command(flatten)]
    admin: Admin,
    /// Print what the admin API says
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SwitchoverArgs {
    #[command(flatten)]
    admin: Admin,
    /// The server that becomes primary [default: the replica that has most of the log]
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    /// How long to wait for the end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = flag_value::<Duration>)]
    wait: Duration,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct FailoverArgs {
    #[command(flatten)]
    admin: Admin,
    /// The server that becomes primary
    #[arg(long, value_name = "SERVER")]
    to: String,
    /// Even if the primary answers, or replicas still receive from it
    #[arg(long, visible_alias = "yes")]
    force: bool,
    /// How long to wait for the end
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = flag_value::<Duration>)]
    wait: Duration,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ServerArgs {
    #[command(flatten)]
    admin: Admin,
    /// The replica, as `tidegate topology` calls it
    #[arg(value_name = "SERVER")]
    server: String,
}

pub(super) fn topology(args: &TopologyArgs) -> Exit {
    match read(&args.admin) {
        Err(words) => super::fail(&words),
        Ok((raw, _)) if args.json => {
            super::say(&format!("{raw}\n"));
            Exit::Ok
        }
        Ok((_, report)) => {
            super::say(&told(&report));
            Exit::Ok
        }
    }
}

pub(super) fn switchover(args: &SwitchoverArgs) -> Exit {
    let question = SwitchoverQuestion { to: args.to.clone() };
    change_primary(&args.admin, ClusterVerb::Switchover, &question, args.wait)
}

pub(super) fn failover(args: &FailoverArgs) -> Exit {
    let question = FailoverQuestion { to: args.to.clone(), force: args.force };
    change_primary(&args.admin, ClusterVerb::Failover, &question, args.wait)
}

pub(super) fn drain(args: &ServerArgs) -> Exit {
    order_server(args, ClusterVerb::Drain)
}

pub(super) fn undrain(args: &ServerArgs) -> Exit {
    order_server(args, ClusterVerb::Undrain)
}

pub(super) fn resync(args: &ServerArgs) -> Exit {
    order_server(args, ClusterVerb::Resync)
}

fn order_server(args: &ServerArgs, verb: ClusterVerb) -> Exit {
    let told = order(&args.admin, verb, &ServerQuestion { server: args.server.clone() });
    super::end(told.map(|told| format!("{told}\n")))
}

/// Orders it, and waits until it has ended.
fn change_primary(
    admin: &Admin,
    verb: ClusterVerb,
    question: &impl Serialize,
    wait: Duration,
) -> Exit {
    let before = match read(admin) {
        Err(words) => return super::fail(&words),
        Ok((_, report)) => report,
    };
    let began = Instant::now();
    match order(admin, verb, question) {
        Err(words) => return super::fail(&words),
        Ok(told) if told.is_empty() => {}
        Ok(told) => super::say(&format!("{told}\n")),
    }
    while began.elapsed() < wait {
        let Ok((_, now)) = read(admin) else { continue };
        if now.state == "steady" && now.primary != before.primary {
            let waited = began.elapsed().as_millis();
            super::say(&format!("{} is the primary now, after {waited} ms\n", now.primary));
            return Exit::Ok;
        }
        if now.state == "steady" {
            let last = now.events.last().map_or("it was given up", |event| event.text.as_str());
            return super::fail(last);
        }
        thread::park_timeout(LOOK_INTERVAL);
    }
    super::fail("it has not ended in time; `tidegate topology` tells more")
}

/// What the API says of it.
fn order(admin: &Admin, verb: ClusterVerb, question: &impl Serialize) -> Result<String, String> {
    let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
    let path = format!("/api/v1/cluster/{}", verb.name());
    let answer = admin.ask(Request { body, ..Request::new(Method::POST, path) })?;
    let answer: serde_json::Value =
        serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    Ok(answer["told"].as_str().unwrap_or_default().to_owned())
}

/// As it was sent, and as it is meant.
fn read(admin: &Admin) -> Result<(String, ClusterReport), String> {
    let answer = admin.ask(Request::new(Method::GET, "/api/v1/cluster".to_owned()))?;
    let report = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    Ok((String::from_utf8_lossy(&answer).into_owned(), report))
}

/// A line for each server, then what was decided.
fn told(report: &ClusterReport) -> String {
    let held = if report.held { "; statements for the primary wait" } else { "" };
    let mut out = format!("{}, failover.mode = \"{}\"{held}\n\n", report.state, report.mode);
    for server in &report.servers {
        let _ = writeln!(out, "{}", line(server, server.name == report.primary));
    }
    for server in &report.servers {
        if let Some(why) = &server.load_trouble {
            let _ = writeln!(out, "\nhow busy {} is, is not known: {why}", server.name);
        }
    }
    if let Some(losses) = &report.losses {
        let _ = writeln!(
            out,
            "\nWhen {} took over from {}: {} acknowledged commits lost, {} more may be",
            losses.after, losses.before, losses.lost, losses.uncertain
        );
    }
    if !report.events.is_empty() {
        out.push('\n');
    }
    for event in &report.events {
        let _ = writeln!(out, "{:<5} {}", event.level, event.text);
    }
    out
}

fn load(server: &ServerReport) -> String {
    let known = [
        ("cpu", server.cpu_percent),
        ("memory", server.memory_percent),
        ("disk", server.disk_percent),
    ];
    if known.iter().all(|(_, percent)| percent.is_none()) {
        return "load unknown".to_owned();
    }
    let said = known.map(|(what, percent)| match percent {
        Some(percent) => format!("{what} {percent:.0} %"),
        None => format!("{what} unknown"),
    });
    said.join(", ")
}

fn line(server: &ServerReport, is_in_force: bool) -> String {
    let mark = if is_in_force { '*' } else { ' ' };
    let role = server.role.as_deref().unwrap_or("?");
    let mut line = format!("{mark} {:<12} {:<22} {role:<8}", server.name, server.address);
    if let Some(timeline) = server.timeline {
        let _ = write!(line, " timeline {timeline}");
    }
    if let Some(position) = &server.position {
        let _ = write!(line, ", {position}");
    }
    if let Some(lag) = server.lag_ms {
        let _ = write!(line, ", {lag} ms behind");
    }
    if server.serves_reads {
        line.push_str(", serves reads");
    }
    if server.drained {
        line.push_str(", drained");
    }
    if let Some(why) = &server.ejected {
        let _ = write!(line, ", no reads for now: {why}");
    }
    let _ = write!(line, ", {}", load(server));
    if let Some(fault) = &server.fault {
        let _ = write!(line, " {fault}");
    }
    line
}
