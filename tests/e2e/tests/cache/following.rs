//! Reads that wait for another of the same: a server runs one, and whoever follows gets nothing older than without it.

use super::{CONFIG, Kept, SCHEMA, With};
use crate::own::SOON;
use std::thread::{self, JoinHandle};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, Message, pipeline, shared_cluster, wait_until};

/// Keeps a table from being read, past Tidegate.
pub struct Lock(Client);

impl Lock {
    pub fn take(kept: &Kept, table: &str) -> Lock {
        let mut client = Client::connect(&shared_cluster().primary().url(ROLE, &kept.database));
        client.query("BEGIN");
        client.query(&format!("LOCK TABLE {table}"));
        Lock(client)
    }

    pub fn release(mut self) {
        self.0.query("COMMIT");
    }
}

/// Asks on a thread of its own.
pub fn ask(mut client: Client, bytes: &[u8]) -> JoinHandle<Vec<Message>> {
    client.send(bytes);
    thread::spawn(move || client.read_until_ready())
}

pub fn query(sql: &str) -> Vec<u8> {
    pipeline().query(sql).bytes().to_vec()
}

/// Waits until so many reads follow.
#[track_caller]
fn until_followed(kept: &Kept, count: u64) {
    wait_until(SOON, "reads follow", || kept.counter("tidegate_cache_followed_total") >= count);
}

/// Waits until a statement is being parsed or run that waits for a lock.
#[track_caller]
fn until_blocked(kept: &Kept) {
    let mut direct = Client::connect(&shared_cluster().primary().url(ROLE, &kept.database));
    let sql = "SELECT count(*) FROM pg_stat_activity \
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    wait_until(SOON, "a statement waits", || direct.value(sql) != Some("0".to_owned()));
}

#[track_caller]
pub fn until_run(kept: &Kept, mark: &str, times: usize) {
    wait_until(SOON, "it runs", || kept.times_run(mark) >= times);
}

#[test]
fn fifty_clients_that_ask_the_same_cost_one_statement() {
    let mut kept = Kept::start(shared_cluster(), "cache_flight", SCHEMA, With::ThePrimary);
    let mut followed = 0;
    for is_batch in [false, true] {
        let mark = kept.mark();
        let sql = format!("SELECT id, v FROM t ORDER BY id {mark}");
        let bytes = match is_batch {
            false => query(&sql),
            true => pipeline()
                .parse("s", &sql, &[])
                .bind("", "s", &[])
                .execute("")
                .sync()
                .bytes()
                .to_vec(),
        };
        let clients: Vec<Client> = (0..49).map(|_| kept.connect()).collect();
        let lock = Lock::take(&kept, "t");
        let first = ask(kept.connect(), &bytes);
        until_blocked(&kept);
        let others: Vec<_> = clients.into_iter().map(|client| ask(client, &bytes)).collect();
        followed += 49;
        until_followed(&kept, followed);
        lock.release();
        let first = first.join().unwrap();
        assert_eq!(first.iter().filter(|message| message.tag == b'D').count(), 10, "{first:?}");
        for other in others {
            assert_eq!(other.join().unwrap(), first);
        }
        assert_eq!(kept.times_run(&mark), 1);
        assert_eq!(kept.counter("tidegate_cache_followed_served_total"), followed);
    }
}

fn value(reader: JoinHandle<Vec<Message>>) -> String {
    let answer = reader.join().unwrap();
    let row = answer.iter().find(|message| message.tag == b'D').unwrap().row();
    row[0].clone().unwrap()
}

#[test]
fn nobody_gets_what_a_write_has_changed_meanwhile() {
    let mut kept = Kept::start(shared_cluster(), "cache_flight_write", SCHEMA, With::ThePrimary);
    // Long enough that a write may come in between.
    const SLOW: &str =
        "SELECT max(t.v), count(*) FROM t, generate_series(1, 200000) n WHERE t.id <";
    let mut writer = kept.connect();
    for n in 100..105 {
        let mark = kept.mark();
        let bytes = query(&format!("{SLOW} {n} {mark}"));
        let clients: Vec<Client> = (0..11).map(|_| kept.connect()).collect();
        let mut clients = clients.into_iter();
        let first = ask(clients.next().unwrap(), &bytes);
        until_run(&kept, &mark, 1);
        let early: Vec<_> = clients.by_ref().take(5).map(|client| ask(client, &bytes)).collect();
        let update = writer.query(&format!("UPDATE t SET v = {n} WHERE id = 2"));
        assert_eq!(update[0].text(), "UPDATE 1");
        let late: Vec<_> = clients.map(|client| ask(client, &bytes)).collect();
        for reader in late {
            assert_eq!(value(reader), n.to_string(), "it began after the write");
        }
        for reader in early.into_iter().chain([first]) {
            let seen: u32 = value(reader).parse().unwrap();
            assert!(seen == n || seen + 1 == n || n == 100, "{seen} {n}");
        }
    }
}

#[test]
fn whoever_asks_after_a_write_follows_nobody_from_before() {
    let mut kept = Kept::start(shared_cluster(), "cache_flight_late", SCHEMA, With::ThePrimary);
    let mark = kept.mark();
    let bytes = query(&format!("SELECT t.v FROM t JOIN u ON u.t = t.id WHERE t.id = 2 {mark}"));
    let lock = Lock::take(&kept, "u");
    let first = ask(kept.connect(), &bytes);
    until_run(&kept, &mark, 1);
    let early: Vec<_> = (0..3).map(|_| ask(kept.connect(), &bytes)).collect();
    until_followed(&kept, 3);
    kept.connect().query("UPDATE t SET v = 77 WHERE id = 2");
    let late: Vec<_> = (0..3).map(|_| ask(kept.connect(), &bytes)).collect();
    // One of them leads the others.
    until_run(&kept, &mark, 2);
    until_followed(&kept, 5);
    lock.release();
    for reader in early.into_iter().chain(late).chain([first]) {
        assert_eq!(value(reader), "77");
    }
    assert_eq!(kept.times_run(&mark), 2);
}

#[test]
fn when_the_leader_goes_another_leads() {
    let mut kept = Kept::start(shared_cluster(), "cache_flight_gone", SCHEMA, With::ThePrimary);
    let mark = kept.mark();
    let bytes = query(&format!("SELECT id, v FROM t ORDER BY id {mark}"));
    let lock = Lock::take(&kept, "t");
    let mut leader = kept.connect();
    leader.send(&bytes);
    until_run(&kept, &mark, 1);
    let others: Vec<_> = (0..5).map(|_| ask(kept.connect(), &bytes)).collect();
    until_followed(&kept, 5);
    drop(leader);
    until_run(&kept, &mark, 2);
    until_followed(&kept, 9);
    lock.release();
    for other in others {
        assert_eq!(other.join().unwrap().iter().filter(|message| message.tag == b'D').count(), 10);
    }
    assert_eq!(kept.times_run(&mark), 2);
}

#[test]
fn what_cannot_be_kept_is_run_by_all_at_once() {
    let mut kept = Kept::start(shared_cluster(), "cache_flight_unfit", SCHEMA, With::ThePrimary);
    let mark = kept.mark();
    let bytes = query(&format!("SELECT 1 / (v - v) FROM t {mark}"));
    let lock = Lock::take(&kept, "t");
    let first = ask(kept.connect(), &bytes);
    until_run(&kept, &mark, 1);
    let mut others: Vec<_> = (0..5).map(|_| ask(kept.connect(), &bytes)).collect();
    until_followed(&kept, 5);
    lock.release();
    others.push(first);
    for other in others {
        let answer = other.join().unwrap();
        assert_eq!(answer.iter().find(|message| message.tag == b'E').unwrap().sqlstate(), "22012");
    }
    assert_eq!(kept.times_run(&mark), 6);
    // From now on nobody waits for it.
    let lock = Lock::take(&kept, "t");
    let others: Vec<_> = (0..3).map(|_| ask(kept.connect(), &bytes)).collect();
    until_run(&kept, &mark, 9);
    assert_eq!(kept.counter("tidegate_cache_followed_total"), 5);
    lock.release();
    others.into_iter().for_each(|other| drop(other.join().unwrap()));
}

#[test]
fn whoever_waits_can_cancel() {
    let mut kept = Kept::start(shared_cluster(), "cache_flight_cancel", SCHEMA, With::ThePrimary);
    let mark = kept.mark();
    let bytes = query(&format!("SELECT id, v FROM t ORDER BY id {mark}"));
    let lock = Lock::take(&kept, "t");
    let first = ask(kept.connect(), &bytes);
    until_run(&kept, &mark, 1);
    let client = kept.connect();
    let cancel = client.canceller();
    let other = ask(client, &bytes);
    until_followed(&kept, 1);
    cancel();
    let answer = other.join().unwrap();
    let tags: Vec<u8> = answer.iter().map(|message| message.tag).collect();
    assert_eq!((&tags[..], answer[0].sqlstate().as_str()), (&b"EZ"[..], "57014"));
    lock.release();
    let first = first.join().unwrap();
    assert_eq!(first.iter().filter(|message| message.tag == b'D').count(), 10, "{first:?}");
    assert_eq!(kept.times_run(&mark), 1);
}

#[test]
fn nobody_waits_longer_than_it_may() {
    let config = format!("{CONFIG}[cache]\nsingle_flight = \"300ms\"\n");
    let mut kept =
        Kept::start_with(shared_cluster(), "cache_flight_time", SCHEMA, With::ThePrimary, &config);
    let mark = kept.mark();
    let bytes = query(&format!("SELECT id, v FROM t ORDER BY id {mark}"));
    let lock = Lock::take(&kept, "t");
    let first = ask(kept.connect(), &bytes);
    until_run(&kept, &mark, 1);
    let late = ask(kept.connect(), &bytes);
    until_run(&kept, &mark, 2);
    lock.release();
    assert_eq!(first.join().unwrap(), late.join().unwrap());
    assert_eq!(kept.counter("tidegate_cache_followed_served_total"), 0);
}
