//! Answers that are given from memory, read once more on the primary: whether what is kept is true.

use super::{CONFIG, Kept, SCHEMA, With};
use crate::own::SOON;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, pipeline, shared_cluster, wait_until};

#[test]
fn what_is_given_is_compared_with_what_the_primary_has() {
    let config = format!("{CONFIG}[cache]\ninspect_per_second = 20\n");
    let cluster = shared_cluster();
    let kept = Kept::start_with(cluster, "cache_inspected", SCHEMA, With::ThePrimary, &config);
    let (mut client, mut writer) = (kept.connect(), kept.connect());
    let counts = || {
        let of = |name: &str| kept.counter(&format!("tidegate_cache_inspected_{name}total"));
        (of(""), of("different_"))
    };
    let sql = "SELECT id, v, m FROM t WHERE id = 4";
    let batch = pipeline().parse("", sql, &[]).bind("", "", &[]).execute("").sync();
    let mut ask = |rounds: u32| {
        for _ in 0..rounds {
            client.query(sql);
            client.send(batch.bytes());
            client.read_until_ready();
        }
    };
    wait_until(SOON, "some are inspected", || {
        ask(60);
        counts().0 >= 5
    });
    // What is written through Tidegate, while it is read once more, is no fault.
    wait_until(SOON, "more are inspected", || {
        for n in 0..5 {
            writer.query(&format!("UPDATE t SET v = {n} WHERE id = 4"));
            ask(60);
        }
        counts().0 >= 10
    });
    assert_eq!(counts().1, 0, "{}", kept.tidegate.log_tail());
    // What is written past it is.
    let mut direct = Client::connect(&shared_cluster().primary().url(ROLE, &kept.database));
    ask(1);
    direct.query("UPDATE t SET m = 'past it' WHERE id = 4");
    wait_until(SOON, "the difference is told", || {
        ask(60);
        counts().1 > 0 && kept.tidegate.log().contains("is not what the primary has")
    });
    assert!(!kept.tidegate.log().contains("past it"));
}
