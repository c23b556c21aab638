//! Answers that are read again: when they are written, before the writer hears of it; and before their time is over.

use super::following::{Lock, ask, query, until_run};
use super::{CONFIG, Kept, SCHEMA, With};
use crate::own::SOON;
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, Message, pipeline, shared_cluster, wait_until};

const THROUGH: &str = r#""ttl_ms": 60000, "write_through": true"#;

fn start(name: &str, rule: &str, config: &str) -> Kept {
    let mut kept = Kept::start_with(shared_cluster(), name, SCHEMA, With::ThePrimary, config);
    kept.set_rules(rule);
    kept
}

fn value(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'D').unwrap().row()[0].clone()
}

#[test]
fn the_new_value_is_there_when_the_writer_hears_of_it() {
    let mut kept = start("cache_through", THROUGH, CONFIG);
    let (mut reader, mut writer) = (kept.connect(), kept.connect());
    // A session of other settings, a statement that is prepared, and a join, each with an answer of its own.
    let mut german = kept.connect();
    german.query("SET DateStyle = 'German'");
    let mark = kept.mark();
    let read = query(&format!("SELECT v, d FROM t WHERE id = 5 {mark}"));
    let joined =
        query(&format!("SELECT t.v + u.v FROM t JOIN u ON u.t = t.id WHERE t.id = 5 {mark}"));
    let prepare = format!("SELECT v FROM t WHERE id = $1 {mark}");
    reader.send(pipeline().parse("s", &prepare, &[23]).sync().bytes());
    reader.read_until_ready();
    let bound = pipeline().bind("", "s", &[Some("5")]).execute("").sync().bytes().to_vec();
    let ask = |client: &mut Client, bytes: &[u8]| {
        client.send(bytes);
        client.read_until_ready()
    };
    for bytes in [&read, &joined, &bound] {
        ask(&mut reader, bytes);
    }
    let dated = ask(&mut german, &read);
    let mut times = kept.times_run(&mark);
    for n in 100..110 {
        match n % 3 {
            0 => drop(writer.query(&format!("UPDATE t SET v = {n} WHERE id = 5"))),
            1 => {
                writer.query("BEGIN");
                writer.query(&format!("UPDATE t SET v = {n} WHERE id = 5"));
                writer.query("COMMIT");
            }
            _ => {
                let update = format!("UPDATE t SET v = {n} WHERE id = $1");
                let batch = pipeline().parse("", &update, &[23]).bind("", "", &[Some("5")]);
                ask(&mut writer, batch.execute("").sync().bytes());
            }
        }
        // All four have been read again, and once.
        times += 4;
        assert_eq!(kept.times_run(&mark), times, "{n}");
        for bytes in [&read, &bound] {
            assert_eq!(value(&ask(&mut reader, bytes)), Some(n.to_string()));
        }
        assert_eq!(value(&ask(&mut reader, &joined)), Some((n + 5).to_string()));
        let now = ask(&mut german, &read);
        assert_eq!(now[1].row(), [Some(n.to_string()), dated[1].row()[1].clone()]);
        assert_eq!(kept.times_run(&mark), times, "{n}: it is there");
    }
    // What is rolled back has nothing read.
    writer.query("BEGIN");
    writer.query("UPDATE t SET v = 1 WHERE id = 5");
    writer.query("ROLLBACK");
    assert_eq!(kept.times_run(&mark), times);
    assert!(kept.counter("tidegate_cache_rereads_total") >= 40);
}

#[test]
fn a_writer_waits_no_longer_than_it_may_and_nothing_old_is_given() {
    let config = format!("{CONFIG}[cache]\nwrite_through = \"200ms\"\n");
    let mut kept = start("cache_through_late", THROUGH, &config);
    let (mut reader, mut writer) = (kept.connect(), kept.connect());
    let mark = kept.mark();
    let sql = format!("SELECT t.v + u.v FROM t JOIN u ON u.t = t.id WHERE t.id = 5 {mark}");
    reader.query(&sql);
    // What it is to be read again from cannot be read.
    let lock = Lock::take(&kept, "u");
    let answer = writer.query("UPDATE t SET v = 50 WHERE id = 5");
    assert_eq!(answer[0].text(), "UPDATE 1");
    let late = ask(kept.connect(), &query(&sql));
    lock.release();
    assert_eq!(value(&late.join().unwrap()), Some("55".to_owned()));
    assert_eq!(reader.value(&sql), Some("55".to_owned()));
    // Off, it is but taken.
    let config = format!("{CONFIG}[cache]\nwrite_through = \"off\"\n");
    let mut kept = start("cache_through_off", THROUGH, &config);
    let (mut reader, mut writer) = (kept.connect(), kept.connect());
    let mark = kept.mark();
    let sql = format!("SELECT v FROM t WHERE id = 5 {mark}");
    reader.query(&sql);
    writer.query("UPDATE t SET v = 50 WHERE id = 5");
    assert_eq!(kept.times_run(&mark), 1);
    assert_eq!(reader.value(&sql), Some("50".to_owned()));
}

#[test]
fn an_answer_is_read_anew_by_one_before_its_time_is_over() {
    const SECONDS: u64 = 10;
    let mut kept = start("cache_warm", &format!(r#""ttl_ms": {SECONDS}000, "warm": true"#), CONFIG);
    let (mut one, mut other) = (kept.connect(), kept.connect());
    let mark = kept.mark();
    let sql = format!("SELECT v FROM t WHERE id = 5 {mark}");
    one.query(&sql);
    // Past Tidegate, so that what is read anew is told apart.
    Client::connect(&shared_cluster().primary().url(ROLE, &kept.database))
        .query("UPDATE t SET v = 50 WHERE id = 5");
    wait_until(Duration::from_secs(2 * SECONDS), "it is read anew", || {
        other.query(&sql);
        kept.times_run(&mark) > 1
    });
    assert_eq!(kept.counter("tidegate_cache_refreshes_total"), 1);
    assert_eq!(one.value(&sql), Some("50".to_owned()));
    assert_eq!(kept.times_run(&mark), 2);
    // While somebody does so, others are given what stands.
    let lock = Lock::take(&kept, "t");
    wait_until(Duration::from_secs(2 * SECONDS), "somebody reads it anew", || {
        let reader = ask(kept.connect(), &query(&sql));
        let deadline = std::time::Instant::now() + Duration::from_millis(500);
        wait_until(SOON, "it is answered, or runs", || {
            reader.is_finished() || std::time::Instant::now() > deadline
        });
        kept.times_run(&mark) > 2
    });
    assert_eq!(one.value(&sql), Some("50".to_owned()));
    lock.release();
    until_run(&kept, &mark, 3);
}
