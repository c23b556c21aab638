//! `tidegate plugin bench`: what a plugin costs, in the same sandbox.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_core::policy::Slot;
use tidegate_policy::{Bench, Measured, Question, Source, What, bench, samples};

use super::Format;
use super::sandbox::{Reader, Sandbox, Statement};

/// Times every kind of call about these statements, or about four that come with the program.
///
/// # Errors
/// The check that the plugin failed; or a call gave no usable answer, with the table up to there.
pub(super) fn run(source: Source<'_>, texts: &[String], format: Format) -> Result<String, String> {
    let sandbox = Sandbox::new(source.slot)?;
    let statements = statements(texts)?;
    let tags: Vec<_> = statements.iter().map(Statement::told).collect();
    let asked = statements.iter().zip(&tags);
    let questions: Vec<Question<'_>> =
        asked.map(|(statement, tags)| Question { shape: &statement.shape, tags }).collect();
    let measured = bench(&sandbox.engine, &sandbox.granted, source, &questions)
        .map_err(|error| format!("{}: {error}", error.check()))?;
    let told = match format {
        Format::Table => table(source.slot, &measured),
        Format::Json => format!("{:#}\n", as_json(source.slot, &measured)),
    };
    match &measured.fault {
        None => Ok(told),
        Some(fault) => Err(format!("a call gave no usable answer: {fault}\n{told}")),
    }
}

fn statements(texts: &[String]) -> Result<Vec<Statement>, String> {
    if texts.is_empty() {
        let shapes = samples::few().into_iter().chain([samples::ordinary()]);
        return Ok(shapes.map(Statement::from).collect());
    }
    let mut reader = Reader::new();
    let read = |text: &String| {
        let statement = reader.read(text);
        match statement.shape.incomplete {
            Some(why) => Err(format!("{}: {text}", why.label())),
            None => Ok(statement),
        }
    };
    texts.iter().map(read).collect()
}

fn table(slot: Slot, bench: &Bench) -> String {
    let mut out = String::new();
    let Bench { info, bytes, .. } = bench;
    let _ = writeln!(out, "{} {}, {}: {bytes} bytes\n", info.name, info.version, slot.name());
    let _ = writeln!(out, "{:<34}{:>10}{:>10}{:>8}{:>8}", "", "median", "99 %", "calls", "faults");
    let _ =
        writeln!(out, "{:<34}{:>10}{:>10}{:>8}", "compile, once", duration(bench.compile), "", 1);
    for Measured { what, timing, faults } in &bench.calls {
        let (median, p99) = (duration(timing.median), duration(timing.p99));
        let calls = timing.calls;
        let _ = writeln!(out, "{:<34}{median:>10}{p99:>10}{calls:>8}{faults:>8}", words(*what));
    }
    let _ = writeln!(out, "\n{:<34}{:>7} KiB", "memory of an instance", bench.memory_bytes >> 10);
    if slot != Slot::Advising {
        let _ = writeln!(out, "{}", plans(bench));
    }
    if cfg!(debug_assertions) {
        let _ =
            writeln!(out, "This is a debug build of Tidegate; a release is several times faster.");
    }
    out
}

fn words(what: What) -> &'static str {
    match what {
        What::Start => "start an instance",
        What::Plan => "plan, once for each shape",
        What::Decide => "decide, for each execution",
        What::PushAndDecide => "push a cluster state, then decide",
        What::Weigh => "weigh two replicas",
        What::Advise => "advise",
    }
}

fn plans(bench: &Bench) -> String {
    let (fixed, asking) = (bench.plans.fixed, bench.plans.asking);
    match (fixed, asking) {
        (0, 0) => "No statement got a plan.".to_owned(),
        (_, 0) => format!("All {fixed} plans are static: an execution calls nothing."),
        _ => format!("{asking} of {} plans ask again at each execution.", fixed + asking),
    }
}

/// Three digits or so.
fn duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.1} µs", time.as_secs_f64() * 1e6),
        _ => format!("{:.1} ms", time.as_secs_f64() * 1e3),
    }
}

fn as_json(slot: Slot, bench: &Bench) -> Value {
    let call = |measured: &Measured| {
        json!({
            "what": measured.what.name(),
            "calls": measured.timing.calls,
            "median_ns": nanos(measured.timing.median),
            "p99_ns": nanos(measured.timing.p99),
            "faults": measured.faults,
        })
    };
    json!({
        "slot": slot.name(),
        "name": bench.info.name,
        "version": bench.info.version,
        "bytes": bench.bytes,
        "compile_ns": nanos(bench.compile),
        "memory_bytes": bench.memory_bytes,
        "calls": bench.calls.iter().map(call).collect::<Vec<Value>>(),
        "static_plans": bench.plans.fixed,
        "asking_plans": bench.plans.asking,
    })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
