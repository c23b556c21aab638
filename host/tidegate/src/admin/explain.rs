//! `POST /api/v1/explain`: what Tidegate and its policies make of a statement, without running it.

use hyper::StatusCode;

use super::Control;
use super::reply::{Problem, Reply, json};
use crate::explain::ExplainQuestion;

pub(super) async fn post(control: &dyn Control, body: &[u8]) -> Result<Reply, Problem> {
    let question: ExplainQuestion = serde_json::from_slice(body).map_err(|error| {
        let example = r#"{"sql": "SELECT 1", "user": "app", "database": "shop"}"#;
        Problem::new(StatusCode::BAD_REQUEST)
            .detail(format!("the body is no question such as {example}: {error}"))
    })?;
    Ok(json(StatusCode::OK, &control.explain(question).await))
}
