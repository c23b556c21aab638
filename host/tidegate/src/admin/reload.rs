//! `POST /api/v1/reload`: what SIGHUP does, with an answer.

use hyper::StatusCode;

use super::Control;
use super::reply::{Problem, Reply, json};

pub(super) async fn post(control: &dyn Control) -> Result<Reply, Problem> {
    match control.reload().await {
        Ok(report) => Ok(json(StatusCode::OK, &report)),
        Err(errors) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
            .detail("the configuration has errors; the one in force was kept")
            .errors(errors)),
    }
}
