//! `tidegate record`: which statements run, into a file that `tidegate plugin replay` reads.

use std::path::PathBuf;

use hyper::Method;
use tidegate_core::limits::{ADMIN_ANSWER_TIME_MAX, RECORD_TIME_MAX};

use super::plugin::api::{Admin, Request};
use crate::exit::Exit;
use crate::trace::Trace;

pub(super) const EXAMPLES: &str = "\
Examples:
  tidegate record --seconds 30 > recorded.jsonl
  tidegate record --most 100000 --out recorded.jsonl
  tidegate plugin replay routing my.wasm --trace recorded.jsonl

No literal and no parameter is recorded: texts are in their normalized form, and the application's users are hashes.
The file's last line says what is not in it.";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RecordArgs {
    #[command(flatten)]
    admin: Admin,
    /// How long, at most 240
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Ends when so many executions were recorded
    #[arg(long, value_name = "N")]
    most: Option<u64>,
    /// Where to write it [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &RecordArgs) -> Exit {
    match perform(args) {
        Ok(words) => {
            eprintln!("tidegate: {words}");
            Exit::Ok
        }
        Err(words) => {
            eprintln!("tidegate: {words}");
            Exit::Failure
        }
    }
}

fn perform(args: &RecordArgs) -> Result<String, String> {
    let most = args.most.map(|most| format!("&most={most}")).unwrap_or_default();
    let path = format!("/api/v1/record?seconds={}{most}", args.seconds);
    let time_max = RECORD_TIME_MAX + ADMIN_ANSWER_TIME_MAX;
    let answer = args.admin.ask_within(time_max, Request::new(Method::POST, path))?;
    let text = std::str::from_utf8(&answer).map_err(|error| error.to_string())?;
    let trace = Trace::read(text)?;
    match &args.out {
        None => super::say(text),
        Some(file) => {
            std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?
        }
    }
    Ok(summary(&trace))
}

/// What the record holds and what not, for people.
fn summary(trace: &Trace) -> String {
    let tail = trace.tail.unwrap_or_default();
    let mut words = format!(
        "{} executions of {} kinds in {:.1} s",
        tail.executions,
        tail.lines,
        tail.lasted_ms as f64 / 1e3
    );
    for (count, what) in [
        (tail.dropped, "for which there was no room"),
        (tail.unread, "whose text is not known"),
        (tail.unanswered, "that were not answered in time"),
    ] {
        if count > 0 {
            words.push_str(&format!("; without {count} {what}"));
        }
    }
    words
}
