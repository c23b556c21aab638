//! All interleavings of a few writers, readers and a replica, with the store's own functions as steps; and what breaks when one
//! of its rules is left out.
//!
//! The one table's value is the number of commits. `G1`: a kept answer is no older than a write that was acknowledged before
//! the read began. `Order`: nor than what any read that was over before it began has seen (linearizability). `Own`: nor than
//! what the same session has seen. `Poison`: when all is quiet, no kept answer is old. `Stuck`: nobody waits for what nobody will tell it.

mod followers; // readers that wait for one another
mod outside; // writers who pass nobody
mod shared; // several processes

use crate::capture::Answer;
use crate::key::{Key, KeyParts};
use crate::lru::Bounds;
use crate::packed::Stored;
use crate::store::{Fill, Found, Reader, Stamp, Store, Tag, Waits};
use crate::work::{Block, Doubt, Ran, Work};
use crate::written::Written;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Broken {
    G1,
    Order,
    Own,
    Poison,
    Stuck,
}

/// A rule that is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mutant {
    #[default]
    None,
    /// Versions are taken away before the commit is sent, and not after (configuration 1 of the design's model).
    BumpsBeforeCommit,
    /// Versions are taken when the answer is there (5, and with it 2 and 3).
    VersionsAfterTheRead,
    /// The client hears of it first (7).
    AcknowledgesFirst,
    /// Any replica will do (8).
    AnyReplica,
    /// A lost server is taken for one that rolled back (10).
    ForgetsTheLost,
    /// The doubt about a lost server ends before the server does.
    ResolvesEarly,
    /// No marks (6).
    NoMarks,
    /// A reader is served whatever it has seen (fresh without the session's own rule).
    ForgetsWhatWasSeen,
}

#[derive(Clone, Copy, Default)]
struct Setup {
    mutant: Mutant,
    waits: Waits,
    replica: Option<()>,
    losses: Option<()>,
    writers: usize,
    /// How often each reader reads.
    rounds: &'static [u8],
}

#[derive(Clone, Debug)]
enum Writing {
    Idle,
    /// Sent, and whether the server has committed, and as the how-manieth.
    Sent(Option<u64>),
    /// The server's answer has been heeded but for the client.
    Heeded(u64),
    /// The server is lost.
    Lost(Option<u64>, Option<Doubt>),
    /// The client heard first.
    Told,
    Over,
}

#[derive(Clone, Debug)]
enum Reading {
    Idle,
    Begun,
    Asks(Option<Fill>),
    Read(Option<Fill>, u64),
    /// Its value, and whether it was kept.
    Has(u64, bool),
}

#[derive(Clone, Debug)]
struct Session {
    reading: Reading,
    left: u8,
    acknowledged: u64,
    seen_by_all: u64,
    own: u64,
    saw_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct World {
    store: Store,
    stamp: Stamp,
    start: Instant,
    now: Instant,
    database: u64,
    replica: u64,
    /// When the primary was asked, and what it had committed.
    sample: (Instant, u64),
    acknowledged: u64,
    seen: u64,
    writers: Vec<(Writing, Work)>,
    readers: Vec<Session>,
}

fn name() -> Arc<str> {
    "d".into()
}

fn key() -> Key {
    Key::new(&KeyParts::default(), 0)
}

fn tags() -> Arc<[Tag]> {
    [Tag::Relation(name(), 1)].into()
}

fn value(answer: &Stored) -> u64 {
    u64::from(answer.rows()[0])
}

impl World {
    fn new(setup: &Setup) -> Self {
        let now = Instant::now();
        let hour = Duration::from_secs(3_600);
        let mut store = Store::new(Bounds { entries: 2, bytes: 10_000, ttl: hour });
        let session = |left| Session {
            reading: Reading::Idle,
            left,
            acknowledged: 0,
            seen_by_all: 0,
            own: 0,
            saw_at: None,
        };
        Self {
            stamp: store.stamp(&name(), now),
            store,
            start: now,
            now,
            database: 0,
            replica: 0,
            sample: (now, 0),
            acknowledged: 0,
            seen: 0,
            writers: vec![(Writing::Idle, Work::default()); setup.writers],
            readers: setup.rounds.iter().map(|rounds| session(*rounds)).collect(),
        }
    }

    /// Two states with one digest have the same future.
    fn digest(&self) -> u128 {
        let at = |time: Instant| time.saturating_duration_since(self.start).as_millis() as u64;
        let mut all =
            vec![at(self.now), self.database, self.replica, at(self.sample.0), self.sample.1];
        all.extend([self.acknowledged, self.seen]);
        self.store.describe(self.start, &mut all);
        for (writing, work) in &self.writers {
            let (stage, number) = match writing {
                Writing::Idle => (0, 0),
                Writing::Sent(number) => (1, number.unwrap_or(0)),
                Writing::Heeded(number) => (2, *number),
                Writing::Lost(number, doubt) => {
                    (3 + u64::from(doubt.is_some()), number.unwrap_or(0))
                }
                Writing::Told => (5, 0),
                Writing::Over => (6, 0),
            };
            all.extend([u64::MAX, stage, number]);
            work.describe(&mut all);
        }
        for session in &self.readers {
            let (stage, value, fill) = match &session.reading {
                Reading::Idle => (0, 0, &None),
                Reading::Begun => (1, 0, &None),
                Reading::Asks(fill) => (2, 0, fill),
                Reading::Read(fill, value) => (3, *value, fill),
                Reading::Has(value, kept) => (4 + u64::from(*kept), *value, &None),
            };
            let saw_at = session.saw_at.map_or(u64::MAX, at);
            let Session { left, acknowledged, seen_by_all, own, .. } = session;
            all.extend([
                u64::MAX,
                stage,
                value,
                (*left).into(),
                *acknowledged,
                *seen_by_all,
                *own,
                saw_at,
            ]);
            if let Some(fill) = fill {
                fill.describe(self.start, &mut all);
            }
        }
        let bytes: Vec<u8> = all.iter().flat_map(|word| word.to_le_bytes()).collect();
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(1);
    }

    fn handle(&mut self, writer: usize, ran: Ran<'_>) {
        let (_, work) = &mut self.writers[writer];
        work.handle(ran, &name(), &mut self.store, self.now);
    }

    fn heed(&mut self, writer: usize) {
        self.tick();
        self.handle(writer, Ran::Completed(b"UPDATE 1"));
        self.handle(writer, Ran::Ready { before: Block::None, after: Block::None, over: true });
    }

    fn commit(&mut self) -> u64 {
        self.database += 1;
        self.tick();
        self.database
    }

    fn send(&mut self, writer: usize, setup: &Setup) {
        self.writers[writer].1.note_stamp(self.stamp);
        self.handle(writer, Ran::Sent(&Written::Tags(tags())));
        if setup.mutant == Mutant::NoMarks {
            self.writers[writer].1.handle_undone(&mut self.store);
            // What it wrote is known all the same; the mark is not there.
            let work = Work::without_marks(&tags());
            self.writers[writer].1 = work;
        }
        if setup.mutant == Mutant::BumpsBeforeCommit {
            self.writers[writer].1.handle_undone(&mut self.store);
            self.store.bump(&tags(), self.now);
        }
        self.writers[writer].0 = Writing::Sent(None);
    }

    fn write_steps(&self, setup: &Setup, next: &mut Vec<World>) {
        for writer in 0..self.writers.len() {
            let mut step = |change: &dyn Fn(&mut World)| {
                let mut world = self.clone();
                change(&mut world);
                next.push(world);
            };
            match &self.writers[writer].0 {
                Writing::Idle => step(&|world| world.send(writer, setup)),
                Writing::Sent(None) => {
                    step(&|world| world.writers[writer].0 = Writing::Sent(Some(world.commit())));
                    if setup.losses.is_some() {
                        step(&|world| world.lose(writer, None, setup));
                    }
                }
                Writing::Sent(Some(number)) => {
                    let number = *number;
                    if setup.mutant == Mutant::AcknowledgesFirst {
                        step(&|world| {
                            world.acknowledged = world.acknowledged.max(number);
                            world.writers[writer].0 = Writing::Told;
                        });
                    } else {
                        step(&|world| {
                            world.heed(writer);
                            world.writers[writer].0 = Writing::Heeded(number);
                        });
                    }
                    if setup.losses.is_some() {
                        step(&|world| world.lose(writer, Some(number), setup));
                    }
                }
                Writing::Told => step(&|world| {
                    world.heed(writer);
                    world.writers[writer].0 = Writing::Over;
                }),
                Writing::Heeded(number) => step(&|world| {
                    world.acknowledged = world.acknowledged.max(*number);
                    world.writers[writer].0 = Writing::Over;
                }),
                Writing::Lost(None, doubt) => {
                    let early = setup.mutant == Mutant::ResolvesEarly;
                    // It commits after all, or never.
                    step(&|world| {
                        let number = world.commit();
                        world.writers[writer].0 = Writing::Lost(Some(number), doubt.clone());
                    });
                    if early && doubt.is_some() {
                        step(&|world| {
                            doubt.clone().unwrap_or_default().resolve(&mut world.store, world.now);
                            world.writers[writer].0 = Writing::Lost(None, None);
                        });
                    }
                }
                Writing::Lost(Some(_), doubt) => step(&|world| {
                    if let Some(doubt) = doubt.clone() {
                        doubt.resolve(&mut world.store, world.now);
                    }
                    world.tick();
                    world.writers[writer].0 = Writing::Over;
                }),
                Writing::Over => {}
            }
        }
    }

    fn lose(&mut self, writer: usize, number: Option<u64>, setup: &Setup) {
        let (_, work) = &mut self.writers[writer];
        let doubt = if setup.mutant == Mutant::ForgetsTheLost {
            work.handle_undone(&mut self.store);
            None
        } else {
            Some(work.handle_lost(&name(), &mut self.store, self.now))
        };
        self.tick();
        self.writers[writer].0 = Writing::Lost(number, doubt);
    }

    fn look(&mut self, reader: usize, setup: &Setup) -> Found {
        let saw_at = self.readers[reader].saw_at;
        let saw_at = if setup.mutant == Mutant::ForgetsWhatWasSeen { None } else { saw_at };
        let who = Reader { waits: setup.waits, saw_at };
        self.store.look(&key(), (&name(), self.stamp, &tags()), who, self.now)
    }

    fn read_steps(&self, setup: &Setup, next: &mut Vec<World>) {
        for reader in 0..self.readers.len() {
            let session = &self.readers[reader];
            let mut step = |change: &dyn Fn(&mut World)| {
                let mut world = self.clone();
                change(&mut world);
                next.push(world);
            };
            match &session.reading {
                Reading::Idle if session.left > 0 => step(&|world| {
                    let (acknowledged, seen) = (world.acknowledged, world.seen);
                    let session = &mut world.readers[reader];
                    (session.acknowledged, session.seen_by_all) = (acknowledged, seen);
                    session.reading = Reading::Begun;
                }),
                Reading::Idle => {}
                Reading::Begun => step(&|world| {
                    world.readers[reader].reading = match world.look(reader, setup) {
                        Found::Hit(answer, _) => Reading::Has(value(&answer), true),
                        Found::Fill(fill) => Reading::Asks(Some(fill)),
                        Found::Pass | Found::Unseen => Reading::Asks(None),
                    };
                }),
                Reading::Asks(fill) => {
                    step(&|world| world.read(reader, fill.clone(), world.database));
                    let fresh = (self.replica >= self.sample.1).then_some(self.sample.0);
                    let any = setup.mutant == Mutant::AnyReplica;
                    if setup.replica.is_some() && self.replica < self.database {
                        let kept = fill.clone().filter(|fill| any || fill.allows(fresh));
                        step(&|world| world.read(reader, kept.clone(), world.replica));
                    }
                }
                Reading::Read(fill, value) => {
                    step(&|world| world.keep(reader, fill.clone(), *value, setup));
                }
                Reading::Has(value, kept) => step(&|world| {
                    // Reads of a replica promise less: they are not what others are held against.
                    world.seen = world.seen.max(*value);
                    let now = world.now;
                    let session = &mut world.readers[reader];
                    session.own = session.own.max(*value);
                    if !kept {
                        session.saw_at = Some(now);
                    }
                    session.left -= 1;
                    session.reading = Reading::Idle;
                }),
            }
        }
    }

    /// An answer has come.
    fn read(&mut self, reader: usize, fill: Option<Fill>, value: u64) {
        self.readers[reader].reading = Reading::Read(fill, value);
    }

    fn keep(&mut self, reader: usize, mut fill: Option<Fill>, value: u64, setup: &Setup) {
        if setup.mutant == Mutant::VersionsAfterTheRead {
            fill = match self.look(reader, setup) {
                Found::Fill(fill) => Some(fill),
                _ => None,
            };
        }
        if let Some(fill) = fill {
            let hour = Duration::from_secs(3_600);
            self.store.put(key(), fill, Answer::of(&[value as u8]), hour, self.now);
        }
        self.readers[reader].reading = Reading::Has(value, false);
    }

    fn replica_steps(&self, setup: &Setup, next: &mut Vec<World>) {
        if setup.replica.is_none() {
            return;
        }
        if self.replica < self.database {
            let mut world = self.clone();
            world.replica += 1;
            next.push(world);
        }
        if self.sample.1 < self.database {
            let mut world = self.clone();
            world.sample = (world.now, world.database);
            world.tick();
            next.push(world);
        }
    }

    fn check(&mut self, broken: &mut BTreeSet<Broken>) {
        for session in &self.readers {
            if let Reading::Has(value, true) = session.reading {
                let held = [
                    (Broken::G1, session.acknowledged),
                    (Broken::Order, session.seen_by_all),
                    (Broken::Own, session.own),
                ];
                broken.extend(
                    held.iter().filter(|(_, least)| value < *least).map(|(broken, _)| *broken),
                );
            }
        }
        let quiet = self
            .writers
            .iter()
            .all(|(writing, _)| matches!(writing, Writing::Over | Writing::Idle))
            && self.readers.iter().all(|session| matches!(session.reading, Reading::Idle));
        if quiet {
            let mut store = self.store.clone();
            let found =
                store.look(&key(), (&name(), self.stamp, &tags()), Reader::default(), self.now);
            if let Found::Hit(answer, _) = found
                && value(&answer) < self.database
            {
                broken.insert(Broken::Poison);
            }
        }
    }
}

/// What is broken in any state that can be reached, and how many there are.
fn search(setup: &Setup) -> (BTreeSet<Broken>, usize) {
    let start = World::new(setup);
    let mut seen = HashSet::from([start.digest()]);
    let mut open = VecDeque::from([start]);
    let mut broken = BTreeSet::new();
    while let Some(mut world) = open.pop_front() {
        world.check(&mut broken);
        let mut next = Vec::new();
        world.write_steps(setup, &mut next);
        world.read_steps(setup, &mut next);
        world.replica_steps(setup, &mut next);
        for world in next {
            if seen.insert(world.digest()) {
                open.push_back(world);
            }
        }
        assert!(seen.len() < 2_000_000, "too many states");
    }
    (broken, seen.len())
}

fn fresh() -> Setup {
    Setup { writers: 2, rounds: &[1, 1], ..Setup::default() }
}

fn strict() -> Setup {
    Setup { waits: Waits::Always, ..fresh() }
}

/// A smaller one, for what has more kinds of steps.
fn small() -> Setup {
    Setup { writers: 1, rounds: &[2, 1], ..Setup::default() }
}

#[track_caller]
fn holds(setup: Setup, except: &[Broken]) {
    let (mut broken, states) = search(&setup);
    except.iter().for_each(|allowed| {
        broken.remove(allowed);
    });
    assert!(broken.is_empty(), "{broken:?} in {states} states");
    assert!(states > 500, "{states}");
}

#[track_caller]
fn breaks(setup: Setup, expected: &[Broken]) {
    let (broken, states) = search(&setup);
    for expected in expected {
        assert!(broken.contains(expected), "{expected:?} holds in {states} states: {broken:?}");
    }
}

#[test]
fn what_is_fresh_holds() {
    holds(fresh(), &[Broken::Order]);
}

#[test]
fn what_is_strict_is_one_order_of_all() {
    holds(strict(), &[]);
}

#[test]
fn a_fresh_replica_may_fill() {
    // What a read of a replica itself may show is routing's to bound.
    let setup = Setup { replica: Some(()), ..fresh() };
    holds(Setup { rounds: &[2], ..setup }, &[Broken::Order, Broken::Own]);
    holds(Setup { replica: Some(()), ..small() }, &[Broken::Order, Broken::Own]);
}

#[test]
fn a_server_that_is_lost_poisons_nothing() {
    holds(Setup { losses: Some(()), ..small() }, &[Broken::Order]);
    holds(Setup { losses: Some(()), rounds: &[1, 1], ..strict() }, &[]);
}

#[test]
fn each_rule_that_is_left_out_breaks_something() {
    let mutant = |mutant| Setup { mutant, ..small() };
    breaks(mutant(Mutant::BumpsBeforeCommit), &[Broken::G1, Broken::Poison]);
    breaks(mutant(Mutant::VersionsAfterTheRead), &[Broken::G1, Broken::Poison]);
    breaks(mutant(Mutant::AcknowledgesFirst), &[Broken::G1]);
    breaks(mutant(Mutant::ForgetsWhatWasSeen), &[Broken::Own]);
    breaks(Setup { waits: Waits::Always, ..mutant(Mutant::NoMarks) }, &[Broken::Order]);
    let replica = Setup { replica: Some(()), ..mutant(Mutant::AnyReplica) };
    breaks(replica, &[Broken::G1, Broken::Poison]);
    let losses = |mutant| Setup { losses: Some(()), mutant, ..small() };
    breaks(losses(Mutant::ForgetsTheLost), &[Broken::Poison]);
    breaks(losses(Mutant::ResolvesEarly), &[Broken::Poison]);
}
