//! Questions about statements, as they come over HTTP.

use super::*;
use crate::explain::{Sources, explain, read};
use crate::view::View;
use tidegate_core::policy::LimitPlan;
use tidegate_policy::{Engine, Registry, Settings, Silence, Sink};

const PATH: &str = "/api/v1/explain";

impl Api {
    pub(super) fn ask(&self, body: &str) -> Answered {
        self.send(PATH, body)
    }

    /// A POST with a body.
    pub(super) fn send(&self, path: &str, body: &str) -> Answered {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.exchange(request.as_bytes())
    }
}

/// As a Tidegate without replicas and plugins explains it.
pub(super) fn explained(question: &ExplainQuestion) -> Explanation {
    let sink: Arc<dyn Sink> = Arc::new(Silence);
    let engine = Arc::new(Engine::new(Settings::default()).unwrap());
    let sources = Sources {
        view: &View::default(),
        policies: &Registry::new(engine, 1, &sink),
        statistics: Ok(Vec::new()),
        rate: &|_| LimitPlan::default(),
    };
    explain(&sources, question, &read(&question.sql, 1), ("shop", "app"))
}

#[test]
fn a_statement_is_explained() {
    let api = started();
    let answer = api.ask(r#"{"sql": "SELECT * FROM t WHERE id = 7 /*user_id='5'*/"}"#);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told: Explanation = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told.shape.normalized, "SELECT * FROM t WHERE id = $1");
    assert_eq!((told.end_user.as_deref(), told.read.proven), (Some("5"), false));
    let plans: Vec<_> = told.plans.iter().map(|plan| (&*plan.slot, &*plan.by)).collect();
    let by = "built-in";
    assert_eq!(plans, [("routing", by), ("caching", by), ("limiting", by), ("advising", by)]);
    let text = told.text();
    assert!(text.contains("stays on the primary (catalogue not read"), "{text}");
}

#[test]
fn a_bad_question_is_told_how_to_ask() {
    let api = started();
    for wrong in ["", "SELECT 1", "{}", r#"{"sql": "SELECT 1", "what": 1}"#] {
        let answer = api.ask(wrong);
        assert_eq!(answer.status, 400);
        assert!(answer.body.contains("the body is no question such as"), "{}", answer.body);
    }
}
