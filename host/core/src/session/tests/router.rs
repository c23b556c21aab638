//! Who decides where texts run, whether they may, and what is known of their answers by heart.

use super::fake::Fake;
use crate::plan::{Admission, Charge, Execution, Ran, Router, Text};
use crate::plan::{Recall, Recalled};
use crate::policy::limit::TransactionState;
use crate::refusal::Refusal;
use crate::statement::StringSyntax;
use tidegate_wire::frame;

/// Knows reads by how they begin.
#[derive(Default)]
pub(super) struct Reads {
    pub splits: bool,
    pub limit: Option<Limit>,
    /// What whoever watches was told, if anybody does.
    pub watched: Option<Vec<String>>,
    pub memory: Option<Memory>,
}

/// Knows the answers of some reads by heart: what a server of the client's own would say.
#[derive(Default)]
pub(super) struct Memory {
    /// Each time out of so many it knows nothing; 0: it always does.
    pub gaps: usize,
    pub asked: usize,
    pub answered: usize,
}

impl Memory {
    fn recall(&mut self, next: &Recall<'_>, out: &mut Vec<u8>) -> Recalled {
        self.asked += 1;
        if self.gaps > 0 && self.asked.is_multiple_of(self.gaps) {
            return if self.asked.is_multiple_of(2) { Recalled::No } else { Recalled::Later };
        }
        let settings = next.settings.iter().map(|(name, value)| (name.into(), value.into()));
        let mut fake = Fake::new(settings.collect());
        fake.feed(&next.unit());
        let answer = fake.take_output(usize::MAX);
        let parsed = if next.batch.is_some_and(|batch| batch.parses.is_none()) { 5 } else { 0 };
        let (Some(answer), false) = (answer.get(parsed..answer.len() - 6), failed(&answer)) else {
            return Recalled::No;
        };
        out.extend_from_slice(answer);
        self.answered += 1;
        Recalled::Answered
    }
}

/// Is an error among the messages?
fn failed(mut bytes: &[u8]) -> bool {
    while let Ok(Some(header)) = frame::Header::peek(bytes, 1 << 30) {
        if header.tag == b'E' {
            return true;
        }
        bytes = &bytes[header.frame_bytes()..];
    }
    false
}

/// Answers in turn whether statements may run; the last answer again and again.
#[derive(Default)]
pub(super) struct Limit {
    pub answers: Vec<Admission>,
    pub asked: Vec<(String, Charge, TransactionState)>,
}

pub(super) fn over_limit() -> Admission {
    Admission::Refuse(Box::new(Refusal::error("53400", "too many")))
}

pub(super) fn forbidden() -> Admission {
    Admission::Forbid(Box::new(Refusal::error("42501", "not here")))
}

impl Router for Reads {
    fn splits(&self) -> bool {
        self.splits
    }

    fn reads(&mut self, sql: &[u8], _: StringSyntax) -> bool {
        ["SELECT '", "SELECT 1/0"].iter().any(|start| sql.starts_with(start.as_bytes()))
            && !sql.contains(&b';')
    }

    fn keeps(&self) -> bool {
        self.memory.is_some()
    }

    fn recall(&mut self, next: &Recall<'_>, out: &mut Vec<u8>) -> Recalled {
        let plain = next.sql.starts_with(b"SELECT '") && !next.sql.starts_with(b"SELECT 'veiled'");
        match &mut self.memory {
            Some(memory) if plain && !next.sql.contains(&b';') => memory.recall(next, out),
            _ => Recalled::No,
        }
    }

    fn watches(&self) -> bool {
        self.watched.is_some()
    }

    fn watch(&mut self, ran: Ran<'_>) {
        let text = |text: Text<'_>| String::from_utf8_lossy(text.sql).into_owned();
        let told = match ran {
            Ran::Bound(bound) => format!("bound {}", text(bound)),
            Ran::Query(number, sql) => format!("{number} {}", sql.map_or_else(String::new, text)),
            Ran::Execute(number) => format!("{number} execute"),
            Ran::Call(number) => format!("{number} call"),
            Ran::BoundUnknown => "bound what only the server knows".to_owned(),
            Ran::Completed(_) | Ran::Ready { .. } => return,
            Ran::Failed { first, until, sqlstate } => {
                format!("{first}..{until} {}", String::from_utf8_lossy(sqlstate))
            }
        };
        self.watched.get_or_insert_default().push(told);
    }

    fn guards(&mut self) -> bool {
        self.limit.is_some()
    }

    fn admit(&mut self, next: &Execution<'_>) -> Admission {
        let Some(limit) = &mut self.limit else { return Admission::Pass };
        let sql = String::from_utf8_lossy(next.sql).into_owned();
        let answer = limit.answers.get(limit.asked.len()).or(limit.answers.last());
        limit.asked.push((sql, next.charge, next.transaction));
        match (next.transaction, answer) {
            (TransactionState::Idle, Some(answer)) => answer.clone(),
            (TransactionState::Open, Some(Admission::Forbid(refusal))) => {
                Admission::Forbid(refusal.clone())
            }
            _ => Admission::Pass,
        }
    }
}
