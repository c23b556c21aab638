//! What an operator orders about server connections: pause, resume, reconnect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_pool::Pauses;

use crate::admin::{PoolsOrder, PoolsReport, PoolsVerb};
use crate::data::worker::{Message, Shared};
use crate::observe::snapshot::PausedSnapshot;
use crate::plugins::Who;

/// How often it is looked whether the last connection has gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// A worker heeds an order within this; one that is stuck heeds it later.
const HEED_TIME_MAX: Duration = Duration::from_secs(2);

/// Carries the order out. A pause is in force whatever comes of the wait.
///
/// # Errors
/// Too many databases are named, as a sentence.
pub(super) async fn run(
    shared: Arc<Shared>,
    order: PoolsOrder,
    who: Who,
) -> Result<PoolsReport, String> {
    let database = order.database.as_deref();
    let of = database.unwrap_or("all databases");
    tracing::info!(target: "tidegate::audit", %who, database = of, "{}", order.verb.name());
    let ordered = match order.verb {
        PoolsVerb::Pause => shared.pools.pause(database),
        PoolsVerb::Resume => shared.pools.resume(database),
        PoolsVerb::Reconnect => {
            shared.pools.reconnect(|key| database.is_none_or(|name| name == &*key.database));
            Ok(())
        }
    };
    ordered.map_err(|_| "too many databases are named; pause all of them".to_owned())?;
    let began = Instant::now();
    // No connection of a paused pool is lent or opened after that; a worker that is stuck heeds it at its next tick.
    shared.tell(Message::Heed, HEED_TIME_MAX).await;
    if order.verb == PoolsVerb::Pause {
        while shared.pools.held(database).open > 0 && began.elapsed() < order.wait {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
    let held = shared.pools.held(database);
    let waited = began.elapsed();
    if order.verb == PoolsVerb::Pause && held.open == 0 {
        tracing::info!(database = of, waited_ms = waited.as_millis(), "paused: no connection left");
    }
    Ok(PoolsReport {
        done: order.verb != PoolsVerb::Pause || held.open == 0,
        open: held.open,
        in_use: held.in_use,
        waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        paused: told(&shared.pools.pauses()),
    })
}

pub(super) fn told(pauses: &Pauses) -> PausedSnapshot {
    let named = pauses.named().map(str::to_owned).collect();
    let (databases, except) =
        if pauses.is_all() { (Vec::new(), named) } else { (named, Vec::new()) };
    PausedSnapshot { all: pauses.is_all(), databases, except }
}
