//! Answers that are given from memory, read once more on the primary: whether what is kept is true.

use super::shared::{LONG, Pair, USERS};
use super::{CONFIG, Kept, SCHEMA, With};
use crate::alerts::Hook;
use crate::own::{SOON, json, metric};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, Redis, pipeline, shared_cluster, wait_until};

#[test]
fn what_is_given_is_compared_with_what_the_primary_has() {
    let webhook = Hook::start();
    let url = webhook.url("/");
    let config = format!(
        "{CONFIG}[[alerts]]\nkind = \"webhook\"\nurl = \"{url}\"\n[cache]\ninspect_per_second = 20\n"
    );
    let cluster = shared_cluster();
    let mut kept = Kept::start_with(cluster, "cache_inspected", SCHEMA, With::ThePrimary, &config);
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
    // All answers of the table have been taken, and people are told.
    assert!(kept.runs(&mut client, "SELECT v FROM t WHERE id = 9"));
    assert_eq!(
        client.query(sql).iter().find(|message| message.tag == b'D').unwrap().row()[2].as_deref(),
        Some("past it")
    );
    wait_until(LONG, "it is told", || webhook.told("cache", None).contains(&"fired".to_owned()));
    let report = json(&kept.tidegate, "/api/v1/cache");
    assert!(report["inspected"]["different"].as_u64() >= Some(1), "{report}");
    assert!(report["inspected"]["nines"].as_f64().unwrap() < 2.0, "{report}");
    let (code, said) = kept.tidegate.command(&["cache", "stats"]);
    assert!(code == 0 && said.contains("were not what the primary has"), "{said}");
}

#[test]
fn nor_is_what_another_tidegate_writes_a_fault_where_a_redis_is_shared() {
    let redis = Redis::start(&USERS);
    let timing = "deadline = \"1s\"\nlease = \"3s\"\n[cache]\ninspect_per_second = 100\n";
    let pair = Pair::start(&redis, "shared_inspected", timing);
    let count = |name: &str| {
        pair.both
            .iter()
            .map(|one| {
                metric(one, &format!("tidegate_cache_inspected_{name}total{{layer=\"memory\"}}"))
            })
            .sum::<f64>()
    };
    let (mut reader, mut other, mut writer) = (pair.connect(0), pair.connect(1), pair.connect(1));
    let sql = "SELECT v FROM reg WHERE k = 2";
    let mut n = 0;
    wait_until(LONG, "some are inspected", || {
        for _ in 0..5 {
            n += 1;
            writer.query(&format!("UPDATE reg SET v = {n} WHERE k = 2"));
            for _ in 0..60 {
                assert_eq!(reader.value(sql), Some(n.to_string()));
            }
            other.value(sql);
        }
        count("") >= 10.0
    });
    assert_eq!(count("different_"), 0.0, "{}", pair.both[0].log_tail());
    // What is written past both is found, and both forget.
    let mut direct = Client::connect(&shared_cluster().primary().url(ROLE, &pair.database));
    for client in [&mut reader, &mut other] {
        wait_until(LONG, "it is kept", || {
            client.value(sql);
            client.value("SHOW tidegate.cache").as_deref() == Some("hit")
        });
    }
    direct.query("UPDATE reg SET v = -1 WHERE k = 2");
    wait_until(LONG, "the difference is found", || {
        (0..60).for_each(|_| drop(reader.value(sql)));
        count("different_") > 0.0
    });
    for client in [&mut reader, &mut other] {
        wait_until(LONG, "it is forgotten", || client.value(sql).as_deref() == Some("-1"));
    }
}
