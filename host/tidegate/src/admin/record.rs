//! `POST /api/v1/record`: which statements run in the next seconds, as lines of JSON.

use std::time::Duration;

use hyper::StatusCode;
use tidegate_core::limits::RECORD_TIME_MAX;

use super::reply::{Problem, Reply, reply};
use super::{Control, RecordOrder};
use crate::plugins::Who;

/// Unless `seconds=` says otherwise.
const TIME_DEFAULT: Duration = Duration::from_secs(10);

/// Answers when the record has ended.
pub(super) async fn post(control: &dyn Control, query: &str, who: Who) -> Result<Reply, Problem> {
    let Some(record) = control.record(order(query)?, who) else {
        return Err(Problem::new(StatusCode::CONFLICT).detail("somebody else records; try again"));
    };
    Ok(reply(StatusCode::OK, "application/jsonl", record.await))
}

/// `seconds=10&most=1000`.
fn order(query: &str) -> Result<RecordOrder, Problem> {
    let mut order = RecordOrder { time: TIME_DEFAULT, executions_max: u64::MAX };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0);
        match parameter.split_once('=') {
            Some(("seconds", text)) => {
                let time = number(text).map(Duration::from_secs);
                order.time = time.filter(|time| *time <= RECORD_TIME_MAX).ok_or_else(wrong)?;
            }
            Some(("most", text)) => order.executions_max = number(text).ok_or_else(wrong)?,
            _ => return Err(wrong()),
        }
    }
    Ok(order)
}

fn wrong() -> Problem {
    let longest = RECORD_TIME_MAX.as_secs();
    let words =
        format!("only seconds=1 to {longest} and most=1 or more executions are understood here");
    Problem::new(StatusCode::BAD_REQUEST).detail(words)
}
