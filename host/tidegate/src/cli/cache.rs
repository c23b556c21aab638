//! `tidegate cache`: what a running Tidegate keeps, and what takes it.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use hyper::Method;
use tidegate_core::limits::{ADMIN_ANSWER_TIME_MAX, WARM_ANSWER_TIME_MAX};

use super::plugin::api::{Admin, Request};
use crate::admin::{CacheReport, Invalidated, Invalidation, WarmQuestion, WarmReport};
use crate::config::statements_of;
use crate::exit::Exit;

pub(super) const EXAMPLES: &str = "\
Examples:
  tidegate cache stats
  tidegate cache invalidate --table public.products --database shop
  tidegate cache invalidate --tag user-7
  tidegate cache invalidate --pattern 'session:*'
  tidegate cache invalidate --all
  tidegate cache warm --database shop --file warm.sql
  tidegate cache warm \"SELECT * FROM products WHERE featured\"";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// What is kept, and how often it helped, by table
    Stats(StatsArgs),
    /// Take what is kept: the next statement asks a server
    Invalidate(InvalidateArgs),
    /// Ask statements, so that their answers are there
    Warm(WarmArgs),
}

#[derive(Debug, clap::Args)]
struct StatsArgs {
    #[command(flatten)]
    admin: Admin,
    /// The answer of the admin API as it is
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct InvalidateArgs {
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    what: What,
    /// Where the table or tag is [default: the database of the primary's URL]; with --all, its answers alone
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

#[derive(Debug, clap::Args)]
struct WarmArgs {
    #[command(flatten)]
    admin: Admin,
    /// Where [default: the database of the primary's URL]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// As whom: this one's clients find the answers [default: the user of the primary's URL]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A start-up parameter of the clients that are to find them; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Statements, one a line; lines that begin with -- do not count
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Statements, as clients send them
    #[arg(value_name = "STATEMENT", required_unless_present = "file")]
    statements: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The entry of this name
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Entries with this tag
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// Answers read from this table, or from those that match
    #[arg(long, value_name = "[SCHEMA.]NAME")]
    table: Option<String>,
    /// Entries whose names match: *, ?, [abc]
    #[arg(long, value_name = "PATTERN")]
    pattern: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: CacheArgs) -> Exit {
    super::end(match args.command {
        CacheCommand::Stats(args) => stats(&args),
        CacheCommand::Invalidate(args) => invalidate(args),
        CacheCommand::Warm(args) => warm(args),
    })
}

fn stats(args: &StatsArgs) -> Result<String, String> {
    let request = Request::new(Method::GET, "/api/v1/cache".to_owned());
    let answer = args.admin.ask_within(ADMIN_ANSWER_TIME_MAX, request)?;
    let report: CacheReport = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    if args.json {
        let text = serde_json::to_string_pretty(&report);
        return text.map(|text| text + "\n").map_err(|error| error.to_string());
    }
    Ok(told(&report))
}

fn invalidate(args: InvalidateArgs) -> Result<String, String> {
    let What { key, tag, table, pattern, all } = args.what;
    let what = Invalidation { key, tag, table, pattern, all, database: args.database };
    let body = serde_json::to_vec(&what).map_err(|error| error.to_string())?;
    let request = Request::new(Method::POST, "/api/v1/cache/invalidate".to_owned());
    let answer = args.admin.ask_within(ADMIN_ANSWER_TIME_MAX, Request { body, ..request })?;
    let taken: Invalidated = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    let Invalidated { entries, versions } = taken;
    Ok(match (what.table, what.all) {
        (Some(_), _) => format!("answers of {versions} tables taken\n"),
        (None, true) => format!("answers and {entries} entries taken\n"),
        (None, false) => format!("{entries} entries taken\n"),
    })
}

fn warm(args: WarmArgs) -> Result<String, String> {
    let mut statements = args.statements;
    if let Some(file) = &args.file {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        statements.extend(statements_of(&text));
    }
    let setting = |text: String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("--set {text}: it is not NAME=VALUE")),
    };
    let settings = args.settings.into_iter().map(setting).collect::<Result<_, String>>()?;
    let question = WarmQuestion { database: args.database, user: args.user, settings, statements };
    let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
    let request = Request::new(Method::POST, "/api/v1/cache/warm".to_owned());
    let answer = args
        .admin
        .ask_within(WARM_ANSWER_TIME_MAX + ADMIN_ANSWER_TIME_MAX, Request { body, ..request })?;
    let report: WarmReport = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    if !report.done {
        return Ok("it takes long; the log says when it is done\n".to_owned());
    }
    let mut out = format!("{} kept, {} were there\n", report.kept, report.there);
    for not in &report.not_kept {
        // Writing to a string does not fail.
        let _ = writeln!(out, "statement {}: {}", not.statement, not.reason);
    }
    Ok(out)
}

/// For people.
fn told(report: &CacheReport) -> String {
    let CacheReport { keeping, answers, inspected, rules, denied, entries, logs } = report;
    let mut out = String::new();
    let keeping = if *keeping { "" } else { " (none is kept now)" };
    let rate = |hits: u64, misses: u64| match hits + misses {
        0 => "-".to_owned(),
        all => format!("{:.1} %", hits as f64 * 100.0 / all as f64),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "answers{keeping}: {} in {} KiB, {} hits, {} misses ({}), {} evicted",
        answers.entries,
        answers.bytes >> 10,
        answers.hits,
        answers.misses,
        rate(answers.hits, answers.misses),
        answers.evictions
    );
    if inspected.answers > 0 {
        let (all, different, nines) = (inspected.answers, inspected.different, inspected.nines);
        let _ = writeln!(
            out,
            "inspected: {all}, {different} were not what the primary has ({nines} nines)"
        );
    }
    let _ = writeln!(
        out,
        "entries: {} in {} KiB, {} hits, {} misses ({})",
        entries.entries,
        entries.bytes >> 10,
        entries.hits,
        entries.misses,
        rate(entries.hits, entries.misses)
    );
    for log in logs {
        let lag = log.lag_ms.map(|ms| format!(", {ms} ms behind")).unwrap_or_default();
        let why = log.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        let _ = writeln!(out, "log of {}: {}{lag}{why}", log.database, log.state);
    }
    if !rules.is_empty() {
        let _ = writeln!(
            out,
            "\n{:<40} {:>8} {:>10} {:>10} {:>10} {:>8}",
            "tables", "ttl", "hits", "misses", "not kept", "rate"
        );
    }
    for rule in rules {
        let name = match rule.tables.is_empty() {
            true => "(others)".to_owned(),
            false => format!("{}: {}", rule.database, rule.tables.join(", ")),
        };
        let (hits, misses) = (rule.hits, rule.misses);
        let ttl = format!("{} s", rule.ttl_ms as f64 / 1000.0);
        let (denied, rate) = (rule.denied, rate(hits, misses));
        let _ = writeln!(out, "{name:<40} {ttl:>8} {hits:>10} {misses:>10} {denied:>10} {rate:>8}");
    }
    if !denied.is_empty() {
        let _ = writeln!(out, "\nnot kept, by the rules of docs/cache.md:");
    }
    for why in denied {
        let _ = writeln!(out, "{:<4} {:<24} {}", why.rule, why.reason, why.statements);
    }
    out
}
