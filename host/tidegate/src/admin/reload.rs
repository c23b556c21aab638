//! `POST /api/v1/reload`: what SIGHUP does, with an answer.

use hyper::StatusCode;

use super::Control;
use super::reply::{Problem, Reply, json};
use crate::plugins::Who;

pub(super) async fn post(control: &dyn Control, who: Who) -> Result<Reply, Problem> {
    let reloaded = control.reload().await;
    let outcome = if reloaded.is_ok() { "done" } else { "refused" };
    tracing::info!(target: "tidegate::audit", %who, outcome, "reload");
    match reloaded {
        Ok(report) => Ok(json(StatusCode::OK, &report)),
        Err(errors) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
            .detail("the configuration has errors; the one in force was kept")
            .errors(errors)),
    }
}
