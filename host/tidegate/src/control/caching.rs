//! Whether answers are kept, as policies have it; what becomes of commits that nobody hears of; and those who share.

use std::sync::Arc;
use std::time::Instant;

use tidegate_core::policy::Slot;
use tidegate_policy::Registry;

use super::{Input, WATCH_INTERVAL, Watched, ticks};
use crate::config::Keeping;
use crate::results::Results;
use crate::sharing::Sharing;
use crate::upstream::Asker;

/// Which cluster it is, and which primary of it: what another has promised is nothing to this one.
const PLACE_SQL: &str = "SELECT system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()";

/// Without end.
pub(super) async fn watch(input: &Input, watched: &Watched) {
    let Input { policies, results, .. } = input;
    // Another configuration: the servers may be others.
    results.forget_all();
    let wanted = || {
        // Who shares follows writes for the others, whatever its own policy keeps.
        let wanted = keeps(policies) || results.sharing().is_some();
        results.keep(wanted && watched.config.keeping() == Keeping::Allowed);
    };
    wanted();
    let sharing = results.sharing().filter(|_| results.round() != 0);
    // Neither ends.
    tokio::join!(resolve(results, watched, wanted), share(sharing, results, watched));
}

/// Asks the primary what has become of commits in doubt.
async fn resolve(results: &Results, watched: &Watched, wanted: impl Fn()) {
    let target = watched.targets[0].clone();
    let mut primary = Asker::new(&watched.config, 0, target, "tidegate: commits in doubt");
    let mut tick = ticks(WATCH_INTERVAL);
    loop {
        tick.tick().await;
        wanted();
        if !results.is_in_doubt() {
            continue;
        }
        let processes: Vec<String> = results.doubtful().iter().map(i32::to_string).collect();
        let asked_at = Instant::now();
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE pid = ANY ('{{{}}}'::int[])",
            processes.join(",")
        );
        // A primary that cannot be asked leaves them in doubt.
        let Ok(rows) = primary.ask(&sql).await else { continue };
        primary.close();
        let running = |row: &Vec<Option<String>>| row.first()?.as_deref()?.parse().ok();
        results.resolve(&rows.iter().filter_map(running).collect::<Vec<i32>>(), asked_at);
    }
}

/// Takes part among those who share, in front of this primary.
async fn share(sharing: Option<&Arc<Sharing>>, results: &Results, watched: &Watched) {
    let Some(sharing) = sharing else { return };
    let config = &watched.config;
    let target = watched.targets[0].clone();
    let mut primary = Asker::new(config, 0, target, "tidegate: which cluster this is");
    let mut tick = ticks(WATCH_INTERVAL);
    let place = loop {
        tick.tick().await;
        let Ok(rows) = primary.ask(PLACE_SQL).await else { continue };
        if let Some([Some(system), Some(timeline)]) = rows.first().map(|row| &row[..]) {
            break format!("{system}/{timeline}");
        }
    };
    primary.close();
    let peers: Vec<u8> = config.peers.iter().map(|peer| peer.id).collect();
    sharing
        .run(config.peer_id, &peers, &place, &|database, versions| {
            results.note_names(database, versions);
        })
        .await;
}

/// Does any session follow a policy that may keep something? The one that comes with Tidegate keeps nothing unless it is told to.
fn keeps(policies: &Registry) -> bool {
    let view = policies.view();
    let slot = view.slot(Slot::Caching);
    let candidate = slot.candidate().map(|(candidate, _)| candidate);
    slot.active().into_iter().chain(candidate).any(|generation| !generation.is_untouched())
}
