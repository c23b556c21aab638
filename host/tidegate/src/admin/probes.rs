//! `GET /healthz` and `GET /readyz`: for load balancers and orchestrators, without a token.

use hyper::StatusCode;
use serde_json::json;

use super::reply::{Problem, Reply, json};
use super::{Control, Phase};

/// 200 exactly while new clients are served.
pub(super) fn healthz(control: &dyn Control) -> Reply {
    match control.phase() {
        Phase::Serving => json(StatusCode::OK, &json!({ "status": Phase::Serving })),
        phase => unavailable(format!("the process is {}", phase.as_str())),
    }
}

/// 200 while new clients are served and a connection to the primary works.
pub(super) fn readyz(control: &dyn Control) -> Reply {
    match (control.phase(), control.ready()) {
        (Phase::Serving, Ok(())) => json(StatusCode::OK, &json!({ "status": "ready" })),
        (Phase::Serving, Err(reason)) => unavailable(reason),
        (phase, _) => unavailable(format!("the process is {}", phase.as_str())),
    }
}

fn unavailable(reason: String) -> Reply {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail(reason).into_reply()
}
