//! Has answers be there before anybody asks: by the configuration at start, and by order of an operator.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tidegate_core::limits::WARM_ANSWER_TIME_MAX;
use tokio::sync::oneshot;

use super::Handle;
use crate::admin::{NotWarmed, WarmQuestion, WarmReport};
use crate::config::WarmSettings;
use crate::data::worker::{Message, Settled, Shared, Unwarmed, Warm, WarmOrder};
use crate::exit::Exit;
use crate::plugins::Who;
use crate::upstream::Credentials;

/// At start, policies are waited for so long.
const WANTED_TIME_MAX: Duration = Duration::from_secs(60);

/// Begins with what the configuration names, on a thread that ends with it.
pub(super) fn begin(control: &Handle) -> Result<(), (Exit, String)> {
    let settled = control.settled();
    if settled.config.cache.warm.is_empty() {
        return Ok(());
    }
    let failed = |error: std::io::Error| (Exit::Failure, format!("cannot start to warm: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (runtime, shared) = (runtime.map_err(failed)?, control.shared.clone());
    let work = move || {
        runtime.block_on(async {
            let wanted = tokio::time::timeout(WANTED_TIME_MAX, shared.results.wanted()).await;
            if wanted.is_err() {
                tracing::warn!("no answers are warmed: no caching policy wants any kept");
                return;
            }
            for warm in &settled.config.cache.warm {
                let order = of_settings(warm, &settled);
                let (database, user) = (order.database.clone(), order.user.clone());
                if let Err(why) = run(&shared, order).await {
                    tracing::warn!(%database, %user, why, "answers are not warmed");
                }
            }
        });
    };
    thread::Builder::new().name("tidegate-warm".to_owned()).spawn(work).map(drop).map_err(failed)
}

/// By order of an operator.
///
/// # Errors
/// Why nothing was asked, as a sentence.
pub(super) async fn order(
    shared: Arc<Shared>,
    settled: Arc<Settled>,
    question: WarmQuestion,
    who: Who,
) -> Result<WarmReport, String> {
    let primary = &settled.config.cluster.primary;
    let WarmQuestion { database, user, settings, statements } = question;
    let user: Arc<str> = user.as_deref().unwrap_or(&primary.user).into();
    let order = WarmOrder {
        database: database.as_deref().unwrap_or(&primary.database).into(),
        credentials: own_credentials(&settled, &user),
        user,
        settings: settings.into_iter().collect(),
        statements: statements.into(),
    };
    let (database, user) = (&order.database, &order.user);
    let count = order.statements.len();
    tracing::info!(target: "tidegate::audit", %who, %database, %user, statements = count, "warm");
    match tokio::time::timeout(WARM_ANSWER_TIME_MAX, run(&shared, order)).await {
        Ok(found) => found.map(report),
        // It goes on, and is in the log when it is done.
        Err(_) => Ok(WarmReport { statements: count, ..WarmReport::default() }),
    }
}

fn of_settings(warm: &WarmSettings, settled: &Settled) -> WarmOrder {
    let primary = &settled.config.cluster.primary;
    let user: Arc<str> = warm.user.as_deref().unwrap_or(&primary.user).into();
    let password = warm.password.clone().map(Credentials::Password);
    WarmOrder {
        database: warm.database.as_deref().unwrap_or(&primary.database).into(),
        credentials: password.or_else(|| own_credentials(settled, &user)),
        user,
        settings: warm.settings.clone(),
        statements: warm.statements.clone(),
    }
}

/// What the configuration has for this user.
fn own_credentials(settled: &Settled, user: &str) -> Option<Credentials> {
    let own = settled.warm.iter().find(|(key, _)| *key.user == *user);
    own.map(|(_, credentials)| credentials.clone())
}

/// Has the first worker do it that can log in as the user.
async fn run(shared: &Shared, order: WarmOrder) -> Result<Vec<Warm>, String> {
    let stopping = || "Tidegate is stopping".to_owned();
    for sender in &shared.senders {
        let (told, is_told) = oneshot::channel();
        sender.send(Message::Warm(order.clone(), told)).await.map_err(|_| stopping())?;
        match is_told.await.map_err(|_| stopping())? {
            Ok(found) => return Ok(found),
            Err(Unwarmed::Stranger) => {}
            Err(Unwarmed::Failed(why)) => return Err(why),
        }
    }
    Err(format!(
        "no password of {} is known here: it has to log in first, or to have one in [[cache.warm]]",
        order.user
    ))
}

fn report(found: Vec<Warm>) -> WarmReport {
    let mut report = WarmReport { statements: found.len(), done: true, ..WarmReport::default() };
    for (place, warm) in found.into_iter().enumerate() {
        match warm {
            Warm::Kept => report.kept += 1,
            Warm::There => report.there += 1,
            Warm::NotKept(reason) => {
                report.not_kept.push(NotWarmed { statement: place + 1, reason });
            }
        }
    }
    report
}
