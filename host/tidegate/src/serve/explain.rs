//! What a statement would come to: asks the primary about its tables, then the policies.

use std::sync::Arc;
use std::time::Duration;

use super::aside;
use crate::data::worker::{Settled, Shared};
use crate::explain::{ExplainQuestion, Explanation, Sources, Statistics, explain, read};
use crate::plugins::Plugins;
use crate::statistics;
use crate::upstream::Asker;
use tidegate_core::statement::Shape;
use tokio::time::{Instant, timeout_at};

/// Roles and statistics are there within this, or the statement is explained without them.
const ASK_TIME_MAX: Duration = Duration::from_secs(3);

pub(super) async fn run(
    shared: Arc<Shared>,
    settled: Arc<Settled>,
    plugins: Arc<Plugins>,
    question: ExplainQuestion,
) -> Explanation {
    let deadline = Instant::now() + ASK_TIME_MAX;
    let known = read(&question.sql, shared.seed());
    let primary = &settled.config.cluster.primary;
    let database = question.database.clone().unwrap_or_else(|| primary.database.clone());
    let user = question.user.clone().unwrap_or_else(|| primary.user.clone());
    let view = shared.views.with_roles(deadline).await;
    let statistics = ask(&settled, &database, &known.shape, deadline).await;
    // Policies may take their time over advice, in which others are to be answered.
    aside(move || {
        let sources = Sources {
            view: &view,
            policies: plugins.registry(),
            statistics,
            rate: &|identity| shared.limits.built_in(identity),
        };
        explain(&sources, &question, &known, (&database, &user))
    })
    .await
}

async fn ask(settled: &Settled, database: &str, shape: &Shape, deadline: Instant) -> Statistics {
    let Some(target) = settled.pools.targets.first().map(Arc::clone) else {
        return Err("there is no primary".to_owned());
    };
    let mut asker = Asker::new(&settled.config, 0, target, "tidegate: statistics");
    asker.database = database.into();
    match timeout_at(deadline, statistics::read(&mut asker, shape)).await {
        Ok(Ok(tables)) => Ok(tables),
        Ok(Err(error)) => Err(format!("cannot read the statistics: {error}")),
        Err(_) => Err("the statistics did not come in time".to_owned()),
    }
}
