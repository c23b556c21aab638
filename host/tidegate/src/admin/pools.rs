//! `GET /api/v1/pools`: server connections by database, user and server.

use hyper::StatusCode;
use serde_json::json;

use super::Control;
use super::reply::{Reply, json};
use crate::observe::snapshot::Scope;

pub(super) async fn get(control: &dyn Control) -> Reply {
    let snapshot = control.snapshot(Scope::Pools).await;
    let body = json!({
        "partial": snapshot.is_partial(),
        "workers": snapshot.workers,
        "workers_silent": snapshot.workers_silent,
        "paused": snapshot.paused,
        "pools": snapshot.pools,
    });
    json(StatusCode::OK, &body)
}
