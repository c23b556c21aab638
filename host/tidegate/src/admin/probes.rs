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

/// 200 while new clients are served and the primary can be reached.
pub(super) async fn readyz(control: &dyn Control) -> Reply {
    let phase = control.phase();
    if phase != Phase::Serving {
        return unavailable(format!("the process is {}", phase.as_str()));
    }
    match control.ready().await {
        Ok(()) => json(StatusCode::OK, &json!({ "status": "ready" })),
        Err(reason) => unavailable(reason),
    }
}

fn unavailable(reason: String) -> Reply {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail(reason).into_reply()
}
