//! Reads on replicas: what may run there, and what must not.

use super::program::*;
use super::world::{World, map};

/// The texts that servers of one kind have seen.
fn seen_by(world: &World, replica: bool) -> Vec<String> {
    let of_kind = world.servers.iter().filter(|server| server.replica == replica);
    of_kind.flat_map(|server| server.fake.seen.clone()).collect()
}

fn splitting() -> World {
    let mut world = World::new(&[map(&[])]);
    world.router.splits = true;
    world.choice = 1;
    world
}

#[test]
fn trap_97_only_reads_use_replicas() {
    let mut world = splitting();
    world.ask(0, &query("SELECT 'a'"));
    world.ask(0, &query("SET work_mem = 'A'"));
    world.ask(0, &bytes(&[parse("s1", "SELECT 'b'"), bind("", "s1"), Execute("", 0), Sync]));
    world.ask(0, &query("SELECT 'c'; SELECT 'd'"));
    assert!(seen_by(&world, true).contains(&"SELECT 'a'".to_owned()));
    assert!(seen_by(&world, true).contains(&"SELECT 'b'".to_owned()));
    assert!(!seen_by(&world, true).iter().any(|sql| sql.contains("'c'")));
    assert!(!seen_by(&world, false).iter().any(|sql| sql.contains("'a'") || sql.contains("'b'")));
}

#[test]
fn trap_102_a_transaction_stays_on_one_server() {
    let mut world = splitting();
    for sql in ["BEGIN", "SELECT 'a'", "COMMIT", "SELECT 'b'"] {
        world.ask(0, &query(sql));
    }
    assert_eq!(seen_by(&world, true), ["SELECT 'b'"]);
    assert_eq!(seen_by(&world, false), ["BEGIN", "SELECT 'a'", "COMMIT"]);
}

#[test]
fn trap_103_a_batch_is_judged_as_a_whole() {
    let mut world = splitting();
    let mut batch = run("SELECT 'a'");
    batch.extend(run("SET work_mem = 'A'"));
    batch.push(Sync);
    world.ask(0, &bytes(&batch));
    // What has not arrived cannot be judged.
    world.arrive(0, &bytes(&run("SELECT 'b'")));
    world.ask(0, &bytes(&[Sync]));
    assert_eq!(seen_by(&world, true), Vec::<String>::new());
}

#[test]
fn a_write_that_is_pipelined_after_a_read_waits_for_the_primary() {
    let mut world = splitting();
    let mut all = query("SELECT 'a'");
    all.extend(query("SET work_mem = 'A'"));
    all.extend(query("SELECT 'b'"));
    let told = world.ask(0, &all);
    assert_eq!(told.iter().filter(|word| word.starts_with('Z')).count(), 3);
    assert!(seen_by(&world, true).contains(&"SELECT 'a'".to_owned()));
    assert!(seen_by(&world, false).contains(&"SET work_mem = 'A'".to_owned()));
}

#[test]
fn what_may_write_is_told_to_the_shell() {
    let mut world = splitting();
    let mut wrote = |sql: &str| {
        world.ask(0, &query(sql));
        world.clients[0].session.take_wrote()
    };
    assert!(!wrote("SELECT 'a'"));
    assert!(!wrote("BEGIN"));
    assert!(!wrote("SELECT 'a'"));
    assert!(wrote("SELECT poke('work_mem', 'A')"));
    assert!(!wrote("COMMIT"));
}

#[test]
fn a_session_says_itself_where_it_reads() {
    for (word, replica) in [("primary", false), ("auto", true), ("nonsense", false)] {
        let mut world = World::new(&[map(&[("tidegate.route", word)])]);
        world.router.splits = true;
        world.choice = 1;
        world.ask(0, &query("SELECT 'a'"));
        assert_eq!(seen_by(&world, true).contains(&"SELECT 'a'".to_owned()), replica, "{word}");
    }
}
