//! `POST /api/v1/drain`: what SIGTERM does.

use hyper::StatusCode;
use serde_json::json;

use super::Control;
use super::reply::{Reply, json};
use crate::plugins::Who;

/// Answers before the drain is over: `/healthz` fails from now on.
pub(super) fn post(control: &dyn Control, who: Who) -> Reply {
    tracing::info!(target: "tidegate::audit", %who, "drain");
    control.drain();
    json(StatusCode::ACCEPTED, &json!({ "status": control.phase() }))
}
