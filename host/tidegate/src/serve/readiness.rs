//! Whether the primary can be reached, for `GET /readyz`: asked of it when no open connection tells.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_pool::OpenFailure;

use crate::data::worker::{Settled, Shared};
use crate::upstream::{self, ConnectError, Credentials};

/// Orchestrators give a probe a second, unless told otherwise.
const ASK_TIME_MAX: Duration = Duration::from_millis(800);
/// An answer counts for so long: anybody may ask, and not everybody's question is a new connection.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(2);

/// What the primary last answered, and when. Whoever holds the lock asks; the others wait for the answer.
#[derive(Debug, Default)]
pub(super) struct Readiness(tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// # Errors
    /// Why the primary cannot be reached, as a sentence.
    pub(super) async fn check(&self, shared: &Shared, settled: &Settled) -> Result<(), String> {
        if shared.is_primary_connected() {
            return Ok(());
        }
        let mut known = self.0.lock().await;
        if let Some((at, answer)) = &*known
            && at.elapsed() < ANSWER_AGE_MAX
        {
            return answer.clone();
        }
        let answer = ask(settled).await;
        if answer.is_ok() {
            shared.pools.handle_answered(0);
        }
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// Logs in as the operator's user. An answer that says no comes from a server that is there.
async fn ask(settled: &Settled) -> Result<(), String> {
    let Some(target) = settled.pools.targets.first().map(Arc::clone) else {
        return Err("There is no primary.".to_owned());
    };
    let primary = &settled.config.cluster.primary;
    let credentials = primary.password.clone().map_or(Credentials::None, Credentials::Password);
    let asked = upstream::connect(&target, &primary.database, &primary.user, &credentials, &[]);
    let error = match tokio::time::timeout(ASK_TIME_MAX, asked).await {
        Ok(Ok(server)) => {
            upstream::say_goodbye(server).await;
            return Ok(());
        }
        Ok(Err(error)) => error,
        Err(_) => ConnectError::Timeout,
    };
    match error.judge() {
        OpenFailure::Passing => Err(format!("The primary cannot be reached: {error}.")),
        OpenFailure::Full | OpenFailure::Definitive => Ok(()),
    }
}
