//! `POST /api/v1/pause`, `/resume`, `/reconnect`: server connections taken away, given back, replaced.

use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_core::limits::PAUSE_ANSWER_TIME_MAX;

use super::Control;
use super::reply::{Problem, Reply, json};
use crate::observe::snapshot::PausedSnapshot;
use crate::plugins::Who;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolsVerb {
    /// Hold what would begin a transaction; close server connections as they come free.
    Pause,
    /// Let it go on.
    Resume,
    /// Replace server connections as they come free.
    Reconnect,
}

impl PoolsVerb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Reconnect => "reconnect",
        }
    }
}

/// An order about the pools of a database, or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolsOrder {
    pub verb: PoolsVerb,
    pub database: Option<String>,
    /// A pause answers when no server connection is left, or after this.
    pub wait: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolsReport {
    /// Of a pause: no server connection is left.
    pub done: bool,
    /// Server connections of what the order names, open or being opened.
    pub open: usize,
    /// Of these, in a client's hands.
    pub in_use: usize,
    pub waited_ms: u64,
    /// What is paused now.
    pub paused: PausedSnapshot,
}

/// The body; every part of it may be left out, and so may the body.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolsQuestion {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// 200 when it is done, 202 for a pause that is in force while transactions still end.
pub(super) async fn post(
    control: &dyn Control,
    verb: PoolsVerb,
    body: &[u8],
    who: Who,
) -> Result<Reply, Problem> {
    let order = order(verb, body)?;
    match control.order_pools(order, who).await {
        Ok(report) => {
            let status = if report.done { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok(json(status, &report))
        }
        Err(words) => Err(Problem::new(StatusCode::CONFLICT).detail(words)),
    }
}

fn order(verb: PoolsVerb, body: &[u8]) -> Result<PoolsOrder, Problem> {
    let wrong = |words: String| Problem::new(StatusCode::BAD_REQUEST).detail(words);
    let question: PoolsQuestion = match body.trim_ascii() {
        b"" => PoolsQuestion::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            let example = r#"{"database": "shop", "wait_ms": 5000}"#;
            wrong(format!("the body is no order such as {example}: {error}"))
        })?,
    };
    let wait = question.wait_ms.map_or(PAUSE_ANSWER_TIME_MAX, Duration::from_millis);
    if wait > PAUSE_ANSWER_TIME_MAX {
        let longest = PAUSE_ANSWER_TIME_MAX.as_millis();
        return Err(wrong(format!("wait_ms is at most {longest}; ask again to wait longer")));
    }
    if question.database.as_deref() == Some("") {
        return Err(wrong("the database is empty; leave it out for all of them".to_owned()));
    }
    Ok(PoolsOrder { verb, database: question.database, wait })
}
