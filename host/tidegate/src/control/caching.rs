//! Whether answers are kept, as policies have it; and what becomes of commits that nobody hears of.

use std::time::Instant;

use tidegate_core::policy::Slot;
use tidegate_policy::Registry;

use super::{Input, WATCH_INTERVAL, Watched, ticks};
use crate::config::Keeping;
use crate::upstream::Asker;

/// Without end.
pub(super) async fn watch(input: &Input, watched: &Watched) {
    let Input { policies, results, .. } = input;
    let target = watched.targets[0].clone();
    let mut primary = Asker::new(&watched.config, 0, target, "tidegate: commits in doubt");
    let mut tick = ticks(WATCH_INTERVAL);
    // Another configuration: the servers may be others.
    results.forget_all();
    loop {
        tick.tick().await;
        results.keep(keeps(policies) && watched.config.keeping() == Keeping::Allowed);
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

/// Does any session follow a policy that may keep something? The one that comes with Tidegate keeps nothing unless it is told to.
fn keeps(policies: &Registry) -> bool {
    let view = policies.view();
    let slot = view.slot(Slot::Caching);
    let candidate = slot.candidate().map(|(candidate, _)| candidate);
    slot.active().into_iter().chain(candidate).any(|generation| !generation.is_untouched())
}
