//! `tidegate plugin replay`: which answers another plugin would give, for what was recorded.

use std::fmt::Write;

use serde_json::{Value, json};
use tidegate_core::policy::Slot;
use tidegate_core::statement::Shape;
use tidegate_policy::bindings::since_v0_1::types::{Identity, SessionFlags, Tag};
use tidegate_policy::{Execution, Generation, Plan, Question, Subject, samples};

use super::Format;
use super::sandbox::Sandbox;
use crate::trace::{Line, Trace};

/// One side of the comparison.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side<'a> {
    /// Tidegate's own answers.
    BuiltIn,
    Plugin {
        bytes: &'a [u8],
        settings: &'a str,
    },
}

/// What is compared, and how it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay<'a> {
    pub(super) slot: Slot,
    pub(super) before: Side<'a>,
    pub(super) after: Side<'a>,
    pub(super) trace: &'a Trace,
    /// Differences that are told; all are counted.
    pub(super) most: usize,
    pub(super) format: Format,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Same(String),
    Differs(String),
}

impl Outcome {
    pub(super) fn words(self) -> String {
        match self {
            Self::Same(words) | Self::Differs(words) => words,
        }
    }
}

/// Asks both sides about each line, in the sandbox.
///
/// # Errors
/// A plugin does not load, or the slot has no plans.
pub(super) fn run(replay: Replay<'_>) -> Result<Outcome, String> {
    let Some(built_in) = Plan::built_in(replay.slot) else {
        let words =
            "advice is about statistics, which are not recorded: there is nothing to replay";
        return Err(words.to_owned());
    };
    let sandbox = Sandbox::new(replay.slot)?;
    let open = |side: Side<'_>| match side {
        Side::BuiltIn => Ok(Asked::BuiltIn(built_in.clone())),
        Side::Plugin { bytes, settings } => {
            let generation = sandbox.load(replay.slot, bytes, settings)?;
            let replicas: Vec<_> =
                replay.trace.head.replicas.iter().map(|name| samples::replica(name)).collect();
            generation.cluster_changed(Some("primary"), &replicas);
            Ok::<Asked, String>(Asked::Plugin(Box::new(generation)))
        }
    };
    let (before, after) = (open(replay.before)?, open(replay.after)?);
    let mut compared = Compared::default();
    for line in &replay.trace.lines {
        compared.add(line, replay.trace, (&before, &after), replay.most)?;
    }
    let told = match replay.format {
        Format::Table => table(&compared, replay.trace, replay.slot),
        Format::Json => format!("{:#}\n", as_json(&compared, replay.slot)),
    };
    let same = compared.different.lines == 0 && compared.faults.lines == 0;
    Ok(if same { Outcome::Same(told) } else { Outcome::Differs(told) })
}

/// Who answers.
enum Asked {
    BuiltIn(Plan),
    Plugin(Box<Generation>),
}

/// An answer: what it says, and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answered {
    words: String,
    /// The same for answers that the host follows in the same way.
    effect: String,
    is_fault: bool,
}

impl Asked {
    fn ask(&self, shape: &Shape, subject: Subject<'_>) -> Answered {
        match self {
            Asked::BuiltIn(plan) => Answered::of(plan, shape, None),
            Asked::Plugin(generation) => match generation.plan(subject) {
                Ok(plan) => match plan.asks().map(|id| generation.decide(execution(id, shape))) {
                    None => Answered::of(&plan, shape, None),
                    Some(Ok(decision)) => Answered::of(&plan, shape, Some(decision.to_string())),
                    Some(Err(fault)) => Answered::fault(&fault.to_string()),
                },
                Err(fault) => Answered::fault(&fault.to_string()),
            },
        }
    }
}

impl Answered {
    fn of(plan: &Plan, shape: &Shape, decided: Option<String>) -> Self {
        let mut words = plan.to_string();
        let mut effect = plan.effective(shape).to_string();
        if let Some(decided) = decided {
            let _ = write!(words, " → {decided}");
            // Whatever it decides, what may write stays on the primary.
            if matches!(plan, Plan::Cache(..) | Plan::Limit(_)) || shape.is_plain_read() {
                let _ = write!(effect, " → {decided}");
            }
        }
        Self { words, effect, is_fault: false }
    }

    fn fault(words: &str) -> Self {
        let words = format!("fault: {}", words.lines().next().unwrap_or_default());
        Self { effect: words.clone(), words, is_fault: true }
    }
}

fn execution(id: u32, shape: &Shape) -> Execution {
    let fingerprint_low = shape.fingerprint.0 as u64;
    Execution { id, session: SessionFlags::empty(), fingerprint_low, end_user_hash: 0 }
}

/// Lines, and the executions that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    lines: usize,
    executions: u64,
}

impl Counted {
    fn add(&mut self, line: &Line) {
        self.lines += 1;
        self.executions += line.counts.count;
    }
}

#[derive(Debug, Default)]
struct Compared {
    all: Counted,
    different: Counted,
    /// Other words that come to the same.
    without_effect: Counted,
    /// Without an answer by the plugin that is tried; they are not among those that differ.
    faults: Counted,
    shown: Vec<Difference>,
}

#[derive(Debug)]
struct Difference {
    normalized: String,
    user: String,
    kinds: usize,
    executions: u64,
    before: Answered,
    after: Answered,
}

impl Compared {
    fn add(
        &mut self,
        line: &Line,
        trace: &Trace,
        (before, after): (&Asked, &Asked),
        most: usize,
    ) -> Result<(), String> {
        let shape = line.shape.shape()?;
        let tags: Vec<(&str, &str)> =
            line.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let replicas: Vec<&str> = trace.head.replicas.iter().map(String::as_str).collect();
        let subject = Subject {
            question: Question { shape: &shape, tags: &tags },
            identity: &identity(line),
            replicas: &replicas,
        };
        let (before, after) = (before.ask(&shape, subject), after.ask(&shape, subject));
        self.all.add(line);
        if after.is_fault {
            self.faults.add(line);
        } else if before.effect != after.effect {
            self.different.add(line);
        } else {
            if before.words != after.words {
                self.without_effect.add(line);
            }
            return Ok(());
        }
        let difference = Difference {
            normalized: line.shape.normalized.clone(),
            user: line.user.clone(),
            kinds: 1,
            executions: line.counts.count,
            before,
            after,
        };
        self.show(difference, most);
        Ok(())
    }

    /// Kinds that differ by where they ran, or how they ended, are told as one.
    fn show(&mut self, new: Difference, most: usize) {
        let same = |known: &&mut Difference| {
            (&known.normalized, &known.user, &known.before, &known.after)
                == (&new.normalized, &new.user, &new.before, &new.after)
        };
        let has_room = self.shown.len() < most;
        match self.shown.iter_mut().find(same) {
            Some(known) => {
                known.kinds += 1;
                known.executions += new.executions;
            }
            None if has_room => self.shown.push(new),
            None => {}
        }
    }
}

fn identity(line: &Line) -> Identity {
    let tag = |(key, value): &(String, String)| Tag { key: key.clone(), value: value.clone() };
    Identity {
        user: line.user.clone(),
        database: line.database.clone(),
        application: line.application.clone(),
        end_user: line.end_user.clone(),
        roles: Vec::new(),
        tags: line.tags.iter().map(tag).collect(),
    }
}

fn table(compared: &Compared, trace: &Trace, slot: Slot) -> String {
    let mut out = String::new();
    let Compared { all, different, without_effect, faults, shown } = compared;
    for difference in shown {
        let Difference { normalized, user, executions, before, after, .. } = difference;
        let text =
            if normalized.is_empty() { "(a text that was not understood)" } else { normalized };
        let _ = writeln!(out, "{text}\n  {executions} executions by {user}");
        let _ = writeln!(out, "  before: {}\n  after:  {}\n", before.words, after.words);
    }
    let told: usize = shown.iter().map(|difference| difference.kinds).sum();
    let hidden = (different.lines + faults.lines).saturating_sub(told);
    if hidden > 0 {
        let _ = writeln!(out, "… and {hidden} more kinds\n");
    }
    let _ = writeln!(
        out,
        "{}: {} of {} kinds of executions differ ({} of {} executions)",
        slot.name(),
        different.lines,
        all.lines,
        different.executions,
        all.executions
    );
    for (counted, what) in [
        (faults, "have no answer: the plugin failed, and Tidegate's own would stand in"),
        (without_effect, "are answered in other words that come to the same"),
    ] {
        if counted.lines > 0 {
            let _ =
                writeln!(out, "{} kinds ({} executions) {what}", counted.lines, counted.executions);
        }
    }
    let _ = write!(out, "{}", missing(trace));
    out
}

/// What the record itself does not hold.
fn missing(trace: &Trace) -> String {
    match &trace.tail {
        None => "The record was cut off: its last line is missing.\n".to_owned(),
        Some(tail) if tail.dropped + tail.unread > 0 => {
            let count = tail.dropped + tail.unread;
            format!("{count} executions are not in the record.\n")
        }
        Some(_) => String::new(),
    }
}

fn as_json(compared: &Compared, slot: Slot) -> Value {
    let counted =
        |counted: &Counted| json!({ "kinds": counted.lines, "executions": counted.executions });
    let difference = |difference: &Difference| {
        json!({
            "normalized": difference.normalized,
            "user": difference.user,
            "executions": difference.executions,
            "before": difference.before.words,
            "after": difference.after.words,
        })
    };
    json!({
        "slot": slot.name(),
        "all": counted(&compared.all),
        "different": counted(&compared.different),
        "without_effect": counted(&compared.without_effect),
        "faults": counted(&compared.faults),
        "differences": compared.shown.iter().map(difference).collect::<Vec<Value>>(),
    })
}

#[cfg(test)]
mod tests;
