//! `POST /api/v1/alerts/test`: do alerts arrive?

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::Control;
use super::reply::{Reply, json};
use crate::plugins::Who;

/// What came of the test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertsTried {
    pub receivers: Vec<ReceiverTried>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverTried {
    /// Kind and machine.
    pub receiver: String,
    /// Why it has not got it; null: it has.
    pub error: Option<String>,
}

pub(super) async fn test(control: &dyn Control, who: Who) -> Reply {
    let tried = control.test_alerts(who).await.into_iter();
    let receivers =
        tried.map(|(receiver, outcome)| ReceiverTried { receiver, error: outcome.err() }).collect();
    json(StatusCode::OK, &AlertsTried { receivers })
}
