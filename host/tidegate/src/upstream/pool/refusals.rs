//! What clients are told when they do not get a server connection: what, why, and what to do.

use super::PoolKey;
use super::open::ConnectFailure;
use std::time::Duration;
use tidegate_core::refusal::{Refusal, Severity};
use tidegate_pool::{Expired, OpenFailure, WaitBound, WaitRefusal};

const HINT_BUSY: &str =
    "Find what holds the connections (GET /api/v1/servers), or raise the pool's maximum.";
const HINT_FALLBACK: &str = "`tidegate topology` tells why no replica serves reads. routing.fallback_percent says \
                             how many reads the primary runs meanwhile.";
const DETAIL_FALLBACK: &str = " No replica can run this read, and the primary runs only so many of them at a time, so that writes have room.";

/// What is said besides, and what is to be done, where a pool is used up.
fn about(key: &PoolKey) -> (&'static str, &'static str) {
    if key.is_fallback() { (DETAIL_FALLBACK, HINT_FALLBACK) } else { ("", HINT_BUSY) }
}

pub(super) fn not_queued(key: &PoolKey, why: WaitRefusal) -> Refusal {
    match why {
        WaitRefusal::QueueFull { waiting, size_max } => {
            let (besides, hint) = about(key);
            Refusal::error("53300", "too many clients wait for a server connection")
                .detail(format!(
                    "{waiting} clients wait for {}, which may have {size_max} connections.{besides}",
                    named(key)
                ))
                .hint(hint)
        }
        WaitRefusal::Draining => {
            Refusal::fatal("57P01", "terminating connection because Tidegate is shutting down")
                .hint("Connect again.")
        }
    }
}

pub(super) fn expired(
    key: &PoolKey,
    expired: &Expired,
    last_failure: Option<&ConnectFailure>,
) -> Refusal {
    let Expired { waited, waiting, size, size_max, .. } = expired;
    if expired.bound == WaitBound::PauseMax {
        let PoolKey { database, .. } = key;
        return Refusal::error("57P03", format!("database \"{database}\" is paused"))
            .detail(format!("The statement was held for {:.1} s.", waited.as_secs_f64()))
            .hint(
                "Try again when it is resumed. pool.pause_max says how long statements are held.",
            );
    }
    let (besides, hint) = about(key);
    let mut detail = format!(
        "Waited {:.1} s for {}, which has {size} of at most {size_max} connections; \
         {waiting} other {}.{besides}",
        waited.as_secs_f64(),
        named(key),
        if *waiting == 1 { "client waits" } else { "clients wait" },
    );
    if let Some(failure) = last_failure {
        detail.push_str(&format!(" The last attempt to open one failed: {}.", failure.text));
    }
    Refusal::error("53300", "timed out waiting for a server connection").detail(detail).hint(hint)
}

/// A server's own refusal goes on with its SQLSTATE and message; the detail says what was tried.
pub(super) fn not_opened(
    key: &PoolKey,
    last_failure: Option<&ConnectFailure>,
    attempts: u32,
) -> Refusal {
    let tried = match attempts {
        1 => format!("One attempt for {}.", named(key)),
        _ => format!("The last of {attempts} attempts for {}.", named(key)),
    };
    let Some(ConnectFailure { failure, refusal, .. }) = last_failure else {
        return Refusal::error("08006", "cannot connect to the server").detail(tried);
    };
    let detail = match &refusal.detail {
        Some(detail) => format!("{detail} {tried}"),
        None => tried,
    };
    let refusal = refusal.clone().detail(detail);
    match failure {
        OpenFailure::Definitive => refusal,
        // Nothing is wrong with the client's connection, and the next statement may succeed.
        OpenFailure::Passing | OpenFailure::Full => {
            Refusal { severity: Severity::Error, ..refusal }
        }
    }
}

pub(super) fn breaker_open(
    key: &PoolKey,
    last_failure: Option<&ConnectFailure>,
    left: Duration,
) -> Refusal {
    let last = last_failure.map_or("unknown", |failure| &failure.text);
    Refusal::error("08006", "cannot connect to the server: it failed too often")
        .detail(format!("The circuit breaker of {} is open. Last error: {last}.", named(key)))
        .hint(format!("Retry in {} s.", left.as_secs() + 1))
}

fn named(key: &PoolKey) -> String {
    let PoolKey { database, user, instance, kind } = key;
    let server = match instance {
        0 => "the primary".to_owned(),
        n => format!("replica {n}"),
    };
    format!("the {} pool of user \"{user}\" for database \"{database}\" at {server}", kind.name())
}
