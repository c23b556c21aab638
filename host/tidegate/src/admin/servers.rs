//! `GET /api/v1/servers`: server connections, up to a limit.

use hyper::StatusCode;
use serde_json::json;

use super::Control;
use super::reply::{Reply, json};
use crate::observe::snapshot::Scope;

pub(super) async fn get(control: &dyn Control, limit: usize) -> Reply {
    let snapshot = control.snapshot(Scope::Servers).await;
    let total = snapshot.servers.len();
    let body = json!({
        "partial": snapshot.is_partial(),
        "workers": snapshot.workers,
        "workers_silent": snapshot.workers_silent,
        "total": total,
        "servers": snapshot.servers[..total.min(limit)],
    });
    json(StatusCode::OK, &body)
}
