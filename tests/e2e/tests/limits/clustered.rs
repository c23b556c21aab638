//! Two Tidegates that count together in a Redis Cluster, which loses the node that counts.

use super::shared::{LONG, PATIENT, Pair};
use tidegate_test_support::{RedisCluster, wait_until};

/// What all buckets have as hash tag.
const TAG: &str = "{tidegate:limits:1}";

#[test]
fn a_limit_holds_in_a_cluster_and_is_counted_on_after_a_failover() {
    let mut cluster = RedisCluster::start(&[]);
    let (_, owner) = cluster.place_of(TAG);
    let spare = cluster.replicate(owner);
    // Neither of the two has the keys.
    let ports = [1, 2].map(|next| cluster.nodes[(owner + next) % 3].port());
    let url = format!("redis://127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
    let mut pair =
        Pair::shared("limits_cluster", "per_end_user = 10", &format!("url = \"{url}\"\n{PATIENT}"));
    for user in ["7", "8", "9"] {
        let mut passed = pair.passing(0, user, 6) + pair.passing(1, user, 20);
        wait_until(LONG, "all ten pass", || {
            passed += usize::from(pair.passes(1, user));
            passed == 10
        });
        assert_eq!(pair.passing(0, user, 20), 0);
    }
    assert_eq!(pair.metric("tidegate_limits_local_total"), 0.0);
    cluster.nodes[owner].kill();
    // Each has its part meanwhile, and nobody is kept waiting.
    let passed = pair.passing(0, "10", 20) + pair.passing(1, "10", 20);
    assert_eq!(passed, 10);
    cluster.wait_until_promoted(spare);
    pair.wait_until_shared();
    // Neither what was used before, nor what was used meanwhile, is forgotten.
    for user in ["7", "10"] {
        wait_until(LONG, "both are refused", || !pair.passes(0, user) && !pair.passes(1, user));
        assert_eq!(pair.passing(0, user, 10) + pair.passing(1, user, 10), 0);
    }
}
