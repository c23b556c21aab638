//! `GET /metrics`: Prometheus' text format.

use hyper::StatusCode;

use super::Control;
use super::reply::{Reply, reply};
use crate::observe::metrics::render;
use crate::observe::snapshot::Scope;

pub(super) async fn get(control: &dyn Control) -> Reply {
    let snapshot = control.snapshot(Scope::Pools).await;
    reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", render(&snapshot))
}
