//! Whoever watches is told of each statement once, and which failed.

use super::program::*;
use super::world::{World, map};
use proptest::prelude::*;

fn watched() -> World {
    let mut world = World::new(&[map(&[])]);
    world.router.watched = Some(Vec::new());
    world
}

fn told(world: &mut World) -> Vec<String> {
    world.router.watched.replace(Vec::new()).unwrap_or_default()
}

#[test]
fn each_statement_has_its_number_and_its_text() {
    let mut world = watched();
    world.ask(0, &query("SELECT 'a'"));
    world.ask(0, &bytes(&[parse("s", "SELECT 'b'"), bind("", "s"), Execute("", 0), Sync]));
    world.ask(0, &bytes(&[bind("", "s"), Execute("", 0), Execute("", 0), Sync]));
    world.ask(0, &bytes(&[FunctionCall]));
    let expected = [
        "0 SELECT 'a'",
        "bound SELECT 'b'",
        "1 execute",
        "bound SELECT 'b'",
        "2 execute",
        "3 execute",
        "4 call",
    ];
    assert_eq!(told(&mut world), expected);
    assert_eq!(world.clients[0].session.answered(), 5);
}

#[test]
fn an_error_takes_the_rest_of_its_batch_along_and_nothing_else() {
    let mut world = watched();
    world.ask(0, &query("SELECT 1/0"));
    assert_eq!(told(&mut world), ["0 SELECT 1/0", "0..1 22012"]);
    let mut batch = run("SELECT 'a'");
    batch.extend(run("SELECT 1/0"));
    batch.extend(run("SELECT 'b'"));
    batch.push(Sync);
    batch.extend(run("SELECT 'c'"));
    batch.push(Sync);
    world.ask(0, &bytes(&batch));
    let all = told(&mut world);
    assert_eq!(all.last().map(String::as_str), Some("2..4 22012"), "{all:?}");
    assert_eq!(all.iter().filter(|told| told.ends_with("execute")).count(), 4, "{all:?}");
    assert_eq!(world.clients[0].session.answered(), 5);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_sent_is_answered_or_failed(kinds in prop::collection::vec(0..6usize, 1..12)) {
        let mut world = watched();
        let mut messages = Vec::new();
        for kind in kinds {
            match kind {
                0 => messages.push(Query("SELECT 'a'".to_owned())),
                1 => messages.push(Query("SELECT 1/0".to_owned())),
                2 => messages.extend(run("SELECT 'b'")),
                3 => messages.extend(run("SELECT 1/0")),
                4 => messages.push(Sync),
                _ => messages.push(FunctionCall),
            }
        }
        messages.push(Sync);
        world.ask(0, &bytes(&messages));
        let all = told(&mut world);
        let number = |told: &String| told.split([' ', '.']).next()?.parse::<u32>().ok();
        let sent = all.iter().filter(|told| !told.contains("..")).filter_map(number);
        prop_assert!(sent.clone().eq(0..world.clients[0].session.answered()), "{all:?}");
        for failed in all.iter().filter(|told| told.contains("..")) {
            prop_assert!(number(failed) <= sent.clone().next_back(), "{all:?}");
        }
    }
}
