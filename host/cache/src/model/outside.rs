//! All interleavings of writers who pass nobody, the log that tells of them, questions to the primary, and a reader.
//!
//! A commit is in the log, then visible, or told first; replicas show it as soon as it is in the log. `Poison`: when all is told and
//! heeded, no kept answer lacks a commit. `G1`: no answer lacks what has been visible for longer than the lease.

use super::{Broken, key, name};
use crate::capture::Answer;
use crate::lru::Bounds;
use crate::outside::{Answered, LEASE, Meaning, Outside, Snapshot};
use crate::store::{Fill, Found, Reader, Store, Tag};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

const XID: u64 = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mutant {
    #[default]
    None,
    /// What is told is taken then, and not when it is visible (configuration 22 of the design's model).
    TakesWhenTold,
    /// Answers are given however late the log is.
    NoLease,
    /// Any replica will do.
    AnyReplica,
    /// What changes no rows changes nothing.
    RowsAlone,
}

#[derive(Clone, Copy, Default)]
struct Setup {
    mutant: Mutant,
    replica: Option<()>,
    /// The last writer changes no rows, but what names mean.
    renames: Option<()>,
    /// So often time passes.
    waits: u8,
    rounds: u8,
    writers: usize,
    /// So often the primary is asked.
    asks: u8,
}

#[derive(Clone, Debug)]
enum Reading {
    Idle,
    Asks(Option<Fill>),
    Read(Option<Fill>, u8),
    Kept(u8),
}

#[derive(Clone, Debug)]
struct World {
    store: Store,
    outside: Outside,
    start: Instant,
    now: Instant,
    /// Writers in the order of the log; how many of them are told; how many a replica has replayed.
    log: Vec<usize>,
    told: usize,
    replayed: usize,
    /// When the primary was asked for replicas, and what it had.
    sample: (Instant, usize),
    visible: Vec<Option<Instant>>,
    /// What the primary has answered, and when it was asked.
    answer: Option<(Answered, Instant)>,
    reading: Reading,
    left: u8,
    waits: u8,
    asks: u8,
    late: Option<()>,
    ticks: Option<()>,
}

fn bits(writers: impl Iterator<Item = usize>) -> u8 {
    writers.fold(0, |bits, writer| bits | 1 << writer)
}

impl World {
    fn new(setup: &Setup) -> Self {
        let now = Instant::now();
        let hour = Duration::from_secs(3_600);
        let mut store = Store::new(Bounds { entries: 2, bytes: 10_000, ttl: hour });
        if setup.mutant != Mutant::NoLease {
            store.follow();
        }
        let outside = Outside::new(name(), &store);
        let mut world = Self {
            store,
            outside,
            start: now,
            now,
            log: Vec::new(),
            told: 0,
            replayed: 0,
            sample: (now, 0),
            visible: vec![None; setup.writers],
            answer: None,
            reading: Reading::Idle,
            left: setup.rounds,
            waits: setup.waits,
            asks: setup.asks,
            late: None,
            ticks: setup.replica,
        };
        for _ in 0..3 {
            world.ask(setup, Some(()));
            world.hear();
        }
        assert!(world.outside.is_following());
        world
    }

    /// Only who asks replicas has to know what came first.
    fn tick(&mut self) {
        if self.ticks.is_some() {
            self.now += Duration::from_millis(1);
        }
    }

    fn primary(&self) -> u8 {
        bits((0..self.visible.len()).filter(|writer| self.visible[*writer].is_some()))
    }

    fn ask(&mut self, setup: &Setup, names: Option<()>) {
        self.tick();
        let running: Vec<u64> = (0..self.visible.len())
            .filter(|writer| self.visible[*writer].is_none())
            .map(|writer| XID + writer as u64)
            .collect();
        let next = XID + self.visible.len() as u64;
        // Whoever has not begun yet is not known.
        let text = if self.log.is_empty() {
            format!("{XID}:{XID}:")
        } else {
            let list: Vec<String> = running.iter().map(u64::to_string).collect();
            format!("{}:{next}:{}", running.first().unwrap_or(&next), list.join(","))
        };
        let renamed = setup.renames.is_some() && self.visible[setup.writers - 1].is_some();
        let meaning = Meaning { own: renamed.to_string().into(), shared: "".into() };
        let answered = Answered {
            snapshot: Snapshot::read(&text).unwrap(),
            flushed: self.log.len() as u64,
            meaning: names.map(|()| meaning),
        };
        self.answer = Some((answered, self.now));
    }

    fn hear(&mut self) {
        let Some((answered, asked_at)) = self.answer.take() else { return };
        self.tick();
        self.outside.handle_answer(answered, asked_at, &mut self.store, self.now).unwrap();
    }

    fn tell(&mut self, setup: &Setup) {
        let writer = self.log[self.told];
        self.told += 1;
        self.tick();
        let xid = XID as usize + writer;
        let renames = setup.renames.is_some() && writer == setup.writers - 1;
        if !(renames && setup.mutant == Mutant::RowsAlone) {
            let row = (!renames).then(|| "table public.t: UPDATE: a".to_owned());
            let texts = std::iter::once(format!("BEGIN {xid}")).chain(row);
            for text in texts.chain(std::iter::once(format!("COMMIT {xid}"))) {
                let text = text.as_bytes();
                self.outside.handle_text(text, None, &mut self.store, self.now).unwrap();
            }
        }
        self.outside.handle_position(self.told as u64);
        if setup.mutant == Mutant::TakesWhenTold {
            self.outside.take_at_once(&mut self.store, self.now);
        }
    }

    fn look(&mut self) -> Found {
        let stamp = self.store.stamp(&name(), self.now);
        let of = (&name(), stamp, &[Tag::Relation(name(), 1)][..]);
        self.store.look(&key(), of, Reader::default(), self.now)
    }

    /// The reader looks, and is given what is kept or sends its statement.
    fn begin(&mut self) {
        self.reading = match self.look() {
            Found::Hit(answer, _) => {
                let value = super::value(&answer) as u8;
                let due = (0..self.visible.len()).filter(|writer| {
                    self.visible[*writer].is_some_and(|at| self.now >= at + LEASE)
                });
                if bits(due) & !value != 0 {
                    self.late = Some(());
                }
                Reading::Kept(value)
            }
            Found::Fill(fill) => Reading::Asks(Some(fill)),
            Found::Pass | Found::Unseen => Reading::Asks(None),
        };
    }

    fn steps(&self, setup: &Setup) -> Vec<World> {
        let mut next = Vec::new();
        let mut step = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        for writer in 0..setup.writers {
            if !self.log.contains(&writer) {
                step(&|world| world.log.push(writer));
            } else if self.visible[writer].is_none() {
                step(&|world| {
                    world.tick();
                    world.visible[writer] = Some(world.now);
                });
            }
        }
        if self.told < self.log.len() {
            step(&|world| world.tell(setup));
        }
        match &self.answer {
            Some(_) => step(&World::hear),
            None if self.asks > 0 => {
                let mut ask = |names| {
                    step(&|world| {
                        world.asks -= 1;
                        world.ask(setup, names);
                    });
                };
                ask(None);
                if setup.renames.is_some() {
                    ask(Some(()));
                }
            }
            None => {}
        }
        if self.waits > 0 {
            step(&|world| {
                world.waits -= 1;
                world.now += LEASE;
            });
        }
        if setup.replica.is_some() {
            if self.replayed < self.log.len() {
                step(&|world| world.replayed += 1);
            }
            if self.sample.1 < self.log.len() {
                step(&|world| {
                    world.sample = (world.now, world.log.len());
                    world.tick();
                });
            }
        }
        self.read_steps(setup, &mut next);
        next
    }

    fn read_steps(&self, setup: &Setup, next: &mut Vec<World>) {
        let mut step = |reading: Reading| {
            let mut world = self.clone();
            world.reading = reading;
            next.push(world);
        };
        match &self.reading {
            Reading::Idle if self.left > 0 => {
                let mut world = self.clone();
                world.left -= 1;
                world.begin();
                next.push(world);
            }
            Reading::Idle => {}
            Reading::Asks(fill) => {
                step(Reading::Read(fill.clone(), self.primary()));
                if setup.replica.is_some() {
                    let fresh = (self.replayed >= self.sample.1).then_some(self.sample.0);
                    let any = setup.mutant == Mutant::AnyReplica;
                    let fill = fill.clone().filter(|fill| any || fill.allows(fresh));
                    let value = bits(self.log[..self.replayed].iter().copied());
                    step(Reading::Read(fill, value));
                }
            }
            Reading::Read(fill, value) => {
                let mut world = self.clone();
                if let Some(fill) = fill.clone() {
                    let hour = Duration::from_secs(3_600);
                    world.store.put(key(), fill, Answer::of(&[*value]), hour, world.now);
                }
                world.reading = Reading::Idle;
                next.push(world);
            }
            Reading::Kept(_) => step(Reading::Idle),
        }
    }

    /// Is everything told, and heeded?
    fn is_quiet(&self) -> bool {
        self.log.len() == self.visible.len()
            && self.told == self.log.len()
            && self.visible.iter().all(Option::is_some)
            && self.outside.is_idle()
            && self.answer.is_none()
    }

    fn check(&self, setup: &Setup, broken: &mut BTreeSet<Broken>) {
        if self.late.is_some() {
            broken.insert(Broken::G1);
        }
        // What names mean may be read later than all else; where nobody is told of it, it never is.
        if self.is_quiet() && matches!(self.reading, Reading::Idle) {
            let mut world = self.clone();
            if setup.mutant != Mutant::RowsAlone {
                world.ask(setup, None);
                world.hear();
            }
            if let Found::Hit(answer, _) = world.look()
                && super::value(&answer) as u8 != self.primary()
            {
                broken.insert(Broken::Poison);
            }
        }
    }

    fn digest(&self) -> u128 {
        let at = |time: Instant| time.saturating_duration_since(self.start).as_millis() as u64;
        let mut all = vec![at(self.now), self.told as u64, self.replayed as u64];
        all.extend([at(self.sample.0), self.sample.1 as u64, self.left.into()]);
        all.extend([u64::from(self.waits), u64::from(self.asks)]);
        all.extend(self.log.iter().map(|writer| *writer as u64));
        all.push(u64::MAX);
        all.extend(self.visible.iter().map(|at_| at_.map_or(u64::MAX, at)));
        all.push(self.late.map_or(0, |()| 1));
        self.outside.describe(self.start, &mut all);
        self.store.describe(self.start, &mut all);
        if let Some((answered, asked_at)) = &self.answer {
            let named = answered.meaning.as_ref().map_or(0, |m| 1 + m.own.len() as u64);
            all.extend([u64::MAX, at(*asked_at), named, answered.flushed]);
            all.extend(answered.snapshot.describe());
        }
        let (stage, fill, value) = match &self.reading {
            Reading::Idle => (0, &None, 0),
            Reading::Asks(fill) => (1, fill, 0),
            Reading::Read(fill, value) => (2, fill, *value),
            Reading::Kept(value) => (3, &None, *value),
        };
        all.extend([u64::MAX, stage, value.into()]);
        if let Some(fill) = fill {
            fill.describe(self.start, &mut all);
        }
        let bytes: Vec<u8> = all.iter().flat_map(|word| word.to_le_bytes()).collect();
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
}

fn search(setup: &Setup) -> (BTreeSet<Broken>, usize) {
    let start = World::new(setup);
    let mut seen = HashSet::from([start.digest()]);
    let mut open = VecDeque::from([start]);
    let mut broken = BTreeSet::new();
    while let Some(world) = open.pop_front() {
        world.check(setup, &mut broken);
        for world in world.steps(setup) {
            if seen.insert(world.digest()) {
                open.push_back(world);
            }
        }
        assert!(seen.len() < 2_000_000, "too many states");
    }
    (broken, seen.len())
}

#[track_caller]
fn holds(setup: Setup) {
    let (broken, states) = search(&setup);
    assert!(broken.is_empty(), "{broken:?} in {states} states");
    assert!(states > 500, "{states}");
}

#[track_caller]
fn breaks(setup: Setup, expected: Broken) {
    let (broken, states) = search(&setup);
    assert!(broken.contains(&expected), "{expected:?} holds in {states} states: {broken:?}");
}

fn all() -> Setup {
    Setup { writers: 2, rounds: 2, asks: 2, ..Setup::default() }
}

#[test]
fn what_passes_nobody_poisons_nothing_and_is_not_late() {
    holds(all());
    holds(Setup { waits: 1, ..all() });
    holds(Setup { renames: Some(()), ..all() });
    holds(Setup { writers: 1, replica: Some(()), ..all() });
}

#[test]
fn each_rule_that_is_left_out_breaks_something() {
    let mutant = |mutant| Setup { mutant, ..all() };
    breaks(mutant(Mutant::TakesWhenTold), Broken::Poison);
    breaks(Setup { waits: 1, ..mutant(Mutant::NoLease) }, Broken::G1);
    let replica = Setup { writers: 1, replica: Some(()), ..mutant(Mutant::AnyReplica) };
    breaks(replica, Broken::Poison);
    breaks(Setup { renames: Some(()), ..mutant(Mutant::RowsAlone) }, Broken::Poison);
}
