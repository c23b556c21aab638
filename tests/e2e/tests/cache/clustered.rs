//! Two Tidegates that share answers in a Redis Cluster, through failovers and while their slot moves from node to node.

use super::history::{observe, wait_for};
use super::shared::{BRISK, LONG, Pair, USERS};
use crate::own::metric;
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, RedisCluster, shared_cluster, wait_until};

/// Long enough for many reads and writes.
const MOMENT: Duration = Duration::from_millis(500);

/// What all keys of those in front of this primary have as hash tag.
fn tag() -> String {
    let sql = "SELECT system_identifier || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()";
    let place = shared_cluster().primary().psql(sql).unwrap();
    format!("{{{}}}", place.trim())
}

#[test]
fn nobody_goes_back_while_a_cluster_fails_over_and_their_slot_moves() {
    let cluster = RedisCluster::start(&USERS);
    let (slot, owner) = cluster.place_of(&tag());
    let (others, spare) = ([(owner + 1) % 3, (owner + 2) % 3], cluster.replicate(owner));
    // Of all nodes they know one, which has none of their keys.
    let mut pair = Pair::start(&cluster.nodes[others[0]], "shared_cluster", BRISK);
    let urls = pair.both.each_ref().map(|one| one.url(ROLE, &pair.database));
    let looks =
        || pair.both.iter().map(|one| metric(one, "tidegate_cache_l2_looks_total")).sum::<f64>();
    let goes_on = || {
        wait_until(LONG, "both serve again", || pair.serving() == 2.0);
        let before = looks();
        wait_until(LONG, "answers are asked for", || looks() > before + 50.0);
    };
    let stops = || wait_until(LONG, "nothing is served", || pair.serving() == 0.0);
    observe(&|which| Client::connect(&urls[which % 2]), 0, || {
        wait_for(MOMENT);
        // It hangs, and does not know when it is back that another has taken its place.
        cluster.nodes[owner].pause();
        stops();
        cluster.wait_until_promoted(spare);
        cluster.nodes[owner].resume();
        goes_on();
        cluster.wait_until_synced(owner);
        cluster.begin_to_move(slot, spare, others[1]);
        stops();
        wait_for(MOMENT);
        cluster.finish_to_move();
        goes_on();
    });
    pair.wait_until_shared();
}
