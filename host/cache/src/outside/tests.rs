use super::*;
use crate::capture::Answer;
use crate::key::{Key, KeyParts};
use crate::lru::Bounds;
use crate::store::{Found, Reader};
use crate::tables::{Builder, RelationRow, Traits};
use proptest::prelude::*;
use tidegate_core::catalogue::RelationKind;

const HOUR: Duration = Duration::from_secs(3_600);

fn database() -> Arc<str> {
    "d".into()
}

/// `public.t1` to `public.t3`, whose OIDs are their numbers.
fn tables() -> Arc<Tables> {
    let mut builder = Builder::default();
    for oid in 1..=3 {
        builder.relation(RelationRow {
            oid,
            schema: "public".into(),
            name: format!("t{oid}"),
            kind: RelationKind::Table,
            traits: Traits { persistence: b'p', ..Traits::default() },
            reads: Vec::new(),
            calls: Vec::new(),
            followers: Vec::new(),
        });
    }
    builder.build().unwrap()
}

struct World {
    store: Store,
    outside: Outside,
    tables: Arc<Tables>,
    /// As of when they were read.
    stamp: Stamp,
    now: Instant,
    flushed: u64,
    meaning: u32,
}

impl World {
    /// Nothing runs, and it is followed.
    fn new() -> Self {
        let now = Instant::now();
        let mut store = Store::new(Bounds { entries: 100, bytes: 1 << 20, ttl: HOUR });
        store.follow();
        let outside = Outside::new(database(), &store);
        let stamp = store.stamp(&database(), now);
        let mut world =
            Self { store, outside, tables: tables(), stamp, now, flushed: 1, meaning: 0 };
        assert!(world.look(1).is_none(), "nothing is kept before it is followed");
        for _ in 0..3 {
            world.answer("10:10:", true);
            world.outside.handle_position(world.flushed);
        }
        assert!(world.outside.is_following());
        world.learn();
        world
    }

    /// The catalogue is read again.
    fn learn(&mut self) {
        self.stamp = self.store.stamp(&database(), self.now);
    }

    fn answer(&mut self, snapshot: &str, names: bool) -> Names {
        self.now += Duration::from_millis(1);
        let meaning = Meaning { own: self.meaning.to_string().into(), shared: "".into() };
        let snapshot = Snapshot::read(snapshot).unwrap();
        let meaning = names.then_some(meaning);
        let answered = Answered { snapshot, flushed: self.flushed, meaning };
        self.outside.handle_answer(answered, self.now, &mut self.store, self.now).unwrap()
    }

    fn tell(&mut self, text: &str) -> Result<(), Lost> {
        self.now += Duration::from_millis(1);
        let known = Some((&*self.tables, self.stamp));
        self.outside.handle_text(text.as_bytes(), known, &mut self.store, self.now)
    }

    fn tell_all(&mut self, texts: &[&str]) {
        texts.iter().for_each(|text| self.tell(text).unwrap());
    }

    /// Under which versions a table may be read; or what is kept of it.
    fn look(&mut self, table: u32) -> Option<Found> {
        let key = Key::new(&KeyParts { text: &table.to_be_bytes(), ..KeyParts::default() }, 0);
        let of = (&database(), self.stamp, &[Tag::Relation(database(), table)][..]);
        match self.store.look(&key, of, Reader::default(), self.now) {
            Found::Pass | Found::Unseen => None,
            found => Some(found),
        }
    }

    fn is_kept(&mut self, table: u32) -> bool {
        matches!(self.look(table), Some(Found::Hit(..)))
    }

    /// Reads a table, if that may be kept.
    fn keep(&mut self, table: u32) {
        let key = Key::new(&KeyParts { text: &table.to_be_bytes(), ..KeyParts::default() }, 0);
        if let Some(Found::Fill(fill)) = self.look(table) {
            self.store.put(key, fill, Answer::of(&[0]), HOUR, self.now);
        }
    }

    fn keep_all(&mut self) {
        (1..=3).for_each(|table| self.keep(table));
    }

    fn kept(&mut self) -> Vec<u32> {
        (1..=3).filter(|table| self.is_kept(*table)).collect()
    }
}

#[test]
fn rows_take_their_table_when_they_are_visible_and_no_other() {
    let mut world = World::new();
    world.keep_all();
    world.tell_all(&["BEGIN 10", "table public.t2: UPDATE: v[text]:'x'", "COMMIT 10"]);
    // It may not be visible: what is read now is not kept.
    world.answer("10:11:10", false);
    let before = world.look(2);
    world.answer("11:11:", false);
    assert_eq!(world.kept(), [1, 3], "{before:?}");
    world.keep(2);
    assert_eq!(world.kept(), [1, 2, 3]);
    assert_eq!(world.outside.counts().transactions, 1);
}

#[test]
fn what_was_read_before_it_was_visible_is_not_kept() {
    let mut world = World::new();
    let Some(Found::Fill(fill)) = world.look(1) else { panic!("it may be read") };
    world.tell_all(&["BEGIN 10", "table public.t1: DELETE: (no-tuple-data)", "COMMIT 10"]);
    assert!(world.look(1).is_none(), "it is being changed");
    world.answer("11:11:", false);
    let key = Key::new(&KeyParts { text: &1_u32.to_be_bytes(), ..KeyParts::default() }, 0);
    world.store.put(key, fill, Answer::of(&[0]), HOUR, world.now);
    assert!(!world.is_kept(1));
}

#[test]
fn several_tables_and_unknown_ones() {
    let mut world = World::new();
    world.keep_all();
    world.tell_all(&["BEGIN 10", "table public.t1, public.t3: TRUNCATE: (no-flags)", "COMMIT 10"]);
    world.answer("11:11:", false);
    assert_eq!(world.kept(), [2]);
    world.keep_all();
    world.tell_all(&["BEGIN 11", "table public.new: INSERT: a[integer]:1", "COMMIT 11"]);
    world.answer("12:12:", false);
    assert_eq!(world.kept(), [], "it may be any");
    world.keep_all();
    world.tell_all(&["BEGIN 12", "table public.t\u{e9}: INSERT: a[integer]:1", "COMMIT 12"]);
    assert_eq!(world.kept(), [], "what is not understood is everything");
    world.answer("13:13:", true);
    world.learn();
    world.keep_all();
    assert_eq!(world.kept(), [1, 2, 3]);
}

#[test]
fn what_changes_no_row_takes_everything_if_names_are_others() {
    let mut world = World::new();
    world.keep_all();
    world.tell_all(&["BEGIN 10", "COMMIT 10"]);
    assert_eq!(world.kept(), [], "nothing is given until it is known");
    let (question, at) = world.outside.next_question(world.now);
    assert_eq!(question, Question::Visible);
    world.now = at;
    world.answer("11:11:", false);
    assert_eq!(world.kept(), []);
    let (question, at) = world.outside.next_question(world.now);
    assert!(question == Question::Names && at <= world.now + NAMES_PAUSE_URGENT);
    assert_eq!(world.answer("11:11:", true), Names::Same);
    assert_eq!(world.kept(), [1, 2, 3], "ANALYZE, say");
    world.tell_all(&["BEGIN 11", "COMMIT 11"]);
    world.meaning += 1;
    assert_eq!(world.answer("12:12:", true), Names::Changed);
    world.learn();
    assert_eq!(world.kept(), []);
    assert_eq!(world.outside.counts().renamed, 1);
}

#[test]
fn what_names_mean_is_read_again_when_anything_has_become_visible() {
    let mut world = World::new();
    let (question, at) = world.outside.next_question(world.now);
    assert!(question == Question::Visible && at <= world.now + ASK_INTERVAL);
    world.tell_all(&["BEGIN 10", "table public.t1: UPDATE: v[text]:'x'", "COMMIT 10"]);
    world.answer("11:11:", false);
    let mut now = world.now;
    for _ in 0..10 {
        let (question, at) = world.outside.next_question(now);
        now = at;
        if question == Question::Names {
            break;
        }
        world.now = at;
        world.answer("11:11:", false);
    }
    assert_eq!(world.outside.next_question(now).0, Question::Names);
    assert!(now <= world.now + NAMES_PAUSE);
    // A transaction with rows has changed names as well.
    world.keep_all();
    world.meaning += 1;
    world.answer("11:11:", true);
    world.learn();
    assert_eq!(world.kept(), []);
}

#[test]
fn names_that_have_changed_meanwhile_take_all_rows() {
    let mut world = World::new();
    world.tell_all(&["BEGIN 10", "table public.t1: UPDATE: v[text]:'x'", "COMMIT 10"]);
    // By a statement that passed: from now on t1 may be what was t2.
    world.store.bump(&[Tag::Database(database())], world.now);
    world.learn();
    world.keep_all();
    assert_eq!(world.kept(), [2, 3]);
    world.answer("11:11:", false);
    assert_eq!(world.kept(), []);
    world.store.bump(&[Tag::Database(database())], world.now);
    let stale = world.stamp;
    world.learn();
    world.keep_all();
    let current = std::mem::replace(&mut world.stamp, stale);
    world.tell_all(&["BEGIN 11", "table public.t1: UPDATE: v[text]:'x'", "COMMIT 11"]);
    world.stamp = current;
    world.answer("12:12:", false);
    assert_eq!(world.kept(), [], "the tables that were known were of before");
}

#[test]
fn a_log_that_is_late_makes_answers_unavailable_and_not_old() {
    let mut world = World::new();
    world.keep_all();
    assert_eq!(world.kept(), [1, 2, 3]);
    // Something becomes visible, the log is written further, and nothing is told.
    world.flushed = 2;
    for xid in 11..30 {
        world.now += ASK_INTERVAL;
        world.answer(&format!("{xid}:{xid}:"), false);
    }
    assert!(world.now > world.outside.fresh_as_of().unwrap() + LEASE);
    assert_eq!(world.kept(), []);
    world.keep_all();
    // It was another database's.
    world.outside.handle_position(2);
    world.answer("30:30:", false);
    world.answer("30:30:", false);
    assert_eq!(world.kept(), [1, 2, 3]);
    for _ in 0..6 {
        world.now += ASK_INTERVAL;
        world.answer("30:30:", false);
    }
    world.now += LEASE;
    assert_eq!(world.kept(), [], "nobody answers");
    // Where nothing has become visible, the log need not be told further.
    world.flushed = 3;
    world.answer("30:30:", false);
    assert_eq!(world.kept(), [1, 2, 3]);
    world.now += LEASE;
    world.answer("31:31:", false);
    assert_eq!(world.kept(), [], "something has");
}

#[test]
fn it_begins_when_all_are_over_that_ran_before() {
    let mut world = World::new();
    world.outside = Outside::new(database(), &world.store);
    world.outside.handle_position(9);
    for snapshot in ["10:12:10", "10:13:10", "13:20:13"] {
        assert!(!world.outside.is_following());
        world.answer(snapshot, true);
    }
    assert!(world.outside.is_following());
}

#[test]
fn nothing_is_kept_when_nobody_follows_any_more() {
    let mut world = World::new();
    world.keep_all();
    world.tell_all(&["BEGIN 10", "table public.t1: UPDATE: v[text]:'x'"]);
    let other = Outside::new(database(), &world.store);
    std::mem::replace(&mut world.outside, other).end(&mut world.store, world.now);
    assert!((1..=3).all(|table| world.look(table).is_none()));
    world.learn();
    assert!((1..=3).all(|table| world.look(table).is_none()));
    // Whoever comes next finds no marks left.
    world.outside.handle_position(world.flushed);
    for _ in 0..3 {
        world.answer("11:11:", true);
    }
    world.learn();
    world.keep_all();
    assert_eq!(world.kept(), [1, 2, 3]);
    world.store.restart();
    world.learn();
    assert!(world.look(1).is_none(), "it was followed before");
    assert_eq!(world.tell("BEGIN 11"), Err(Lost::Restarted));
}

#[test]
fn what_nobody_expects_ends_it() {
    for texts in [
        &["COMMIT 10"][..],
        &["table public.t1: UPDATE: x"],
        &["BEGIN 10", "BEGIN 11"],
        &["BEGIN 10", "COMMIT 11"],
        &["what"],
    ] {
        let mut world = World::new();
        let (last, first) = texts.split_last().unwrap();
        world.tell_all(first);
        assert_eq!(world.tell(last), Err(Lost::NotUnderstood), "{texts:?}");
    }
    let mut world = World::new();
    world.tell("message: transactional: 0 prefix: x, sz: 2 content:hi").unwrap();
    let told = (0..=PENDING_MAX).try_for_each(|n| {
        let xid = n + 10;
        world.tell(&format!("BEGIN {xid}"))?;
        world.tell("table public.t1: UPDATE: x")?;
        world.tell(&format!("COMMIT {xid}"))
    });
    assert_eq!(told, Err(Lost::TooMany));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// In the log.
    Logged,
    Visible,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Property 20: whatever order commits that pass nobody are logged, told and seen in, an answer that is kept when all is heeded
    // is as new as they are; and one whose tables they have not changed is still there.
    #[test]
    fn what_is_kept_is_what_is_there(
        steps in proptest::collection::vec((0..6_u8, 1..4_u32, 1..4_u32), 1..80),
    ) {
        let mut world = World::new();
        // Transaction, table, stage, whether it is told.
        let mut writes: Vec<(u32, u32, Stage, bool)> = Vec::new();
        let mut values = [0_u32; 4];
        let mut kept: std::collections::BTreeMap<u32, u32> = Default::default();
        let mut reads: Vec<(u32, crate::store::Fill, u32)> = Vec::new();
        let snapshot = |writes: &[(u32, u32, Stage, bool)]| {
            let running: Vec<u32> =
                writes.iter().filter(|w| w.2 == Stage::Logged).map(|w| w.0).collect();
            let next = 10 + writes.len() as u32;
            let oldest = running.first().copied().unwrap_or(next);
            let list: Vec<String> = running.iter().map(u32::to_string).collect();
            format!("{oldest}:{next}:{}", list.join(","))
        };
        for (what, table, nth) in steps {
            match what {
                0 => writes.push((10 + writes.len() as u32, table, Stage::Logged, false)),
                1 => {
                    if let Some(write) =
                        writes.iter_mut().filter(|w| w.2 == Stage::Logged).nth(nth as usize - 1)
                    {
                        write.2 = Stage::Visible;
                        values[write.1 as usize] += 1;
                    }
                }
                2 => {
                    if let Some(write) = writes.iter_mut().find(|write| !write.3) {
                        write.3 = true;
                        let (xid, table) = (write.0, write.1);
                        world.tell(&format!("BEGIN {xid}")).unwrap();
                        world.tell(&format!("table public.t{table}: UPDATE: x")).unwrap();
                        world.tell(&format!("COMMIT {xid}")).unwrap();
                    }
                }
                3 => _ = world.answer(&snapshot(&writes), false),
                4 => if let Some(Found::Fill(fill)) = world.look(table) {
                    reads.push((table, fill, values[table as usize]));
                },
                _ => if let Some((table, fill, value)) = reads.pop() {
                    let key = Key::new(
                        &KeyParts { text: &table.to_be_bytes(), ..KeyParts::default() }, 0,
                    );
                    let before = world.store.counts().puts;
                    world.store.put(key, fill, Answer::of(&[0]), HOUR, world.now);
                    if world.store.counts().puts > before {
                        kept.insert(table, value);
                    }
                },
            }
        }
        for write in &mut writes {
            if write.2 == Stage::Logged {
                write.2 = Stage::Visible;
                values[write.1 as usize] += 1;
            }
            if !write.3 {
                let (xid, table) = (write.0, write.1);
                world.tell(&format!("BEGIN {xid}")).unwrap();
                world.tell(&format!("table public.t{table}: UPDATE: x")).unwrap();
                world.tell(&format!("COMMIT {xid}")).unwrap();
            }
        }
        world.answer(&snapshot(&writes), false);
        for table in 1..=3 {
            if world.is_kept(table) {
                prop_assert_eq!(kept.get(&table), Some(&values[table as usize]), "{}", table);
            }
            if writes.iter().all(|write| write.1 != table) {
                prop_assert_eq!(world.is_kept(table), kept.contains_key(&table));
            }
        }
    }
}
