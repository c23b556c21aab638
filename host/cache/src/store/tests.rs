use super::*;
use crate::capture::Answer;
use crate::key::KeyParts;
use crate::work::{Block, Ran, Work};
use crate::written::Written;
use proptest::prelude::*;
use std::time::Duration;

fn database() -> Arc<str> {
    "d".into()
}

fn relation(oid: u32) -> Tag {
    Tag::Relation(database(), oid)
}

fn key(name: u8) -> Key {
    Key::new(&KeyParts { text: &[name], ..KeyParts::default() }, 0)
}

fn bounds() -> Bounds {
    Bounds { entries: 100, bytes: 1 << 20, ttl: Duration::from_secs(60) }
}

fn look(store: &mut Store, name: u8, tags: &[Tag], now: Instant) -> Found {
    let stamp = store.stamp(&database(), now);
    store.look(&key(name), (&database(), stamp, tags), Reader::default(), now)
}

/// Fills the key if it is not there; says whether it was.
fn read(store: &mut Store, name: u8, tags: &[Tag], now: Instant) -> bool {
    match look(store, name, tags, now) {
        Found::Hit(..) => true,
        Found::Fill(fill) => {
            store.put(key(name), fill, Answer::of(&[name]), Duration::from_secs(60), now);
            false
        }
        Found::Pass | Found::Unseen => false,
    }
}

#[test]
fn answers_under_another_meaning_of_names_are_neither_given_nor_kept() {
    let (mut store, now) = (Store::new(bounds()), Instant::now());
    let stamp = store.stamp(&database(), now);
    assert!(!read(&mut store, 1, &[relation(1)], now));
    assert!(read(&mut store, 1, &[relation(1)], now));
    store.bump(&[Tag::Database(database())], now);
    let tags = [relation(1)];
    let found = store.look(&key(1), (&database(), stamp, &tags), Reader::default(), now);
    assert!(matches!(found, Found::Pass));
    assert!(!read(&mut store, 1, &tags, now), "and the new stamp finds nothing old");
}

#[test]
fn tags_that_make_room_for_others_take_their_answers_along() {
    let (mut store, now) = (Store::with_tags_max(bounds(), 6), Instant::now());
    for oid in 0..20 {
        assert!(!read(&mut store, oid as u8, &[relation(oid)], now));
    }
    // Whatever the places stand for by now, no answer of another's is given.
    for oid in 0..20_u8 {
        if let Found::Hit(answer, _) = look(&mut store, oid, &[relation(oid.into())], now) {
            assert_eq!(answer.rows(), [oid]);
        }
    }
    store.bump(&[relation(19)], now);
    assert!(!read(&mut store, 19, &[relation(19)], now));
}

#[test]
fn nothing_is_kept_of_what_is_being_committed() {
    let (mut store, now) = (Store::new(bounds()), Instant::now());
    let Found::Fill(fill) = look(&mut store, 1, &[relation(1)], now) else { panic!("no fill") };
    let mark = store.mark(&[relation(1)], now);
    store.put(key(1), fill, Answer::of(&[1]), Duration::from_secs(60), now);
    assert!(matches!(look(&mut store, 1, &[relation(1)], now), Found::Pass));
    store.settle(mark);
    assert!(!read(&mut store, 1, &[relation(1)], now));
    assert!(read(&mut store, 1, &[relation(1)], now));
}

#[test]
fn what_is_asked_for_is_read_anew_before_its_time_is_over() {
    let (mut store, start) = (Store::new(bounds()), Instant::now());
    let tags = [relation(1)];
    let at = |ms: u64| start + Duration::from_millis(ms);
    let put = |store: &mut Store, fill, value, now| {
        let term = Term { expiry: Expiry::RefreshAhead, ..Duration::from_secs(10).into() };
        store.put(key(1), fill, Answer::of(&[value]), term, now);
    };
    let Found::Fill(fill) = look(&mut store, 1, &tags, at(0)) else { panic!("no fill") };
    put(&mut store, fill, 1, at(100));
    let is_hit = |store: &mut Store, value, ms| match look(store, 1, &tags, at(ms)) {
        Found::Hit(answer, _) => answer.rows() == [value],
        _ => false,
    };
    assert!(is_hit(&mut store, 1, 7_999));
    // One reads it anew; the others go on, until somebody else tries.
    let Found::Fill(fill) = look(&mut store, 1, &tags, at(8_000)) else { panic!("no fill") };
    assert!(fill.is_ahead() && !store.has(&key(1), &fill));
    assert!(is_hit(&mut store, 1, 8_001) && is_hit(&mut store, 1, 8_999));
    let Found::Fill(second) = look(&mut store, 1, &tags, at(9_000)) else { panic!("no fill") };
    put(&mut store, fill, 2, at(9_001));
    assert!(store.has(&key(1), &second));
    assert!(is_hit(&mut store, 2, 9_002) && is_hit(&mut store, 2, 15_999));
    // A write counts as ever; and while one is under way nothing is read anew.
    let mark = store.mark(&tags, at(16_000));
    assert!(is_hit(&mut store, 2, 16_001));
    store.bump(&tags, at(16_002));
    store.settle(mark);
    assert!(!is_hit(&mut store, 2, 16_003));
    assert_eq!(store.counts().refreshes, 2);
}

#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Write(usize, u32),
    Commit(usize),
    Rollback(usize),
    Fail(usize),
    Read(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..3_usize;
    prop_oneof![
        who().prop_map(Step::Begin),
        (who(), 0..4_u32).prop_map(|(who, oid)| Step::Write(who, oid)),
        who().prop_map(Step::Commit),
        who().prop_map(Step::Rollback),
        who().prop_map(Step::Fail),
        (0..4_u32).prop_map(Step::Read),
    ]
}

/// A client as PostgreSQL sees it.
#[derive(Default)]
struct Client {
    work: Work,
    block: Block,
    wrote: Vec<u32>,
}

impl Client {
    /// One Query that is answered at once; `None`: with an error.
    fn query(
        &mut self,
        written: &Written,
        tag: Option<&[u8]>,
        after: Block,
        store: &mut Store,
        now: Instant,
    ) {
        let before = std::mem::replace(&mut self.block, after);
        let mut handle = |ran| self.work.handle(ran, &database(), store, now);
        handle(Ran::Sent(written));
        handle(tag.map_or(Ran::Failed, Ran::Completed));
        handle(Ran::Ready { before, after, over: true });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Property 20: a committed change takes every answer that was read from what it changed, and a rolled back one none.
    // Property 43: all answers of a tag go at once.
    #[test]
    fn commits_invalidate_and_rollbacks_do_not(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut store, start) = (Store::new(bounds()), Instant::now());
        let mut clients: Vec<Client> = (0..3).map(|_| Client::default()).collect();
        // Of which tables an answer is kept: two for each.
        let mut kept = [false; 4];
        for (number, step) in steps.into_iter().enumerate() {
            let now = start + Duration::from_millis(number as u64);
            match step {
                Step::Begin(who) if clients[who].block == Block::None => {
                    clients[who].query(&Written::Turns, Some(b"BEGIN"), Block::Open, &mut store, now);
                }
                Step::Write(who, oid) => {
                    let client = &mut clients[who];
                    let block = client.block;
                    client.query(&Written::Tags([relation(oid)].into()), Some(b"UPDATE 1"), block, &mut store, now);
                    match block {
                        Block::None => kept[oid as usize] = false,
                        Block::Open => client.wrote.push(oid),
                    }
                }
                Step::Fail(who) => {
                    let block = clients[who].block;
                    clients[who].query(&Written::Tags([relation(0)].into()), None, block, &mut store, now);
                    if block == Block::Open {
                        // The block fails, and what it wrote is a superset of nothing.
                        clients[who].query(&Written::Turns, Some(b"ROLLBACK"), Block::None, &mut store, now);
                        clients[who].wrote.clear();
                    }
                }
                Step::Commit(who) if clients[who].block == Block::Open => {
                    clients[who].query(&Written::Ends, Some(b"COMMIT"), Block::None, &mut store, now);
                    clients[who].wrote.drain(..).for_each(|oid| kept[oid as usize] = false);
                }
                Step::Rollback(who) if clients[who].block == Block::Open => {
                    clients[who].query(&Written::Ends, Some(b"ROLLBACK"), Block::None, &mut store, now);
                    clients[who].wrote.clear();
                }
                Step::Read(oid) => {
                    for half in [0, 100] {
                        let found = read(&mut store, oid as u8 + half, &[relation(oid)], now);
                        prop_assert_eq!(found, kept[oid as usize]);
                    }
                    kept[oid as usize] = true;
                }
                Step::Begin(_) | Step::Commit(_) | Step::Rollback(_) => {}
            }
        }
        for client in &mut clients {
            client.work.handle_undone(&mut store);
            prop_assert!(client.work.is_clean());
        }
        // No mark is left behind.
        let now = start + Duration::from_secs(1);
        for oid in 0..4 {
            let reader = Reader { waits: Waits::Always, saw_at: Some(now) };
            read(&mut store, oid as u8, &[relation(oid)], now);
            let stamp = store.stamp(&database(), now);
            let found = store.look(&key(oid as u8), (&database(), stamp, &[relation(oid)]), reader, now);
            prop_assert!(matches!(found, Found::Hit(..)));
        }
    }
}

#[test]
fn with_no_room_left_an_answer_is_kept_when_it_is_asked_for_again() {
    let now = Instant::now();
    let bounds = Bounds { entries: 4, ..bounds() };
    let (mut plain, mut store) = (Store::new(bounds), Store::new(bounds));
    store.admit_second();
    // While there is room, the first time.
    for name in 0..4 {
        assert!(!read(&mut store, name, &[relation(name.into())], now));
        assert!(read(&mut store, name, &[relation(name.into())], now));
        read(&mut plain, name, &[relation(name.into())], now);
    }
    // A scan of what is asked for once takes nobody's room.
    for name in 10..200 {
        let tags = [relation(1)];
        assert!(matches!(look(&mut store, name, &tags, now), Found::Unseen));
        read(&mut plain, name, &tags, now);
    }
    for name in 0..4 {
        assert!(read(&mut store, name, &[relation(name.into())], now));
        assert!(!read(&mut plain, name, &[relation(name.into())], now), "without it, it does");
    }
    assert_eq!((store.counts().unseen, store.counts().evictions), (190, 0));
    // What is asked for the second time is kept, in place of what was asked for longest ago.
    assert!(!read(&mut store, 10, &[relation(1)], now));
    assert!(read(&mut store, 10, &[relation(1)], now));
    assert_eq!(store.counts().evictions, 1);
    // What was taken by a write is known, though others have come meanwhile.
    store.bump(&[relation(3)], now);
    assert!(!read(&mut store, 3, &[relation(3)], now));
    assert!(read(&mut store, 3, &[relation(3)], now));
}
