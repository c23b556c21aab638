//! Readers that follow one another, while others write: all interleavings, with the functions of [`Store`] and [`Followers`] as steps.
//!
//! Two rules keep it true, and each would do alone: a leader is followed only under the versions that stand, and who has followed
//! looks again. `Stuck`: somebody waits and nobody will tell it.

use super::{Broken, key, name, tags, value};
use crate::capture::Answer;
use crate::followers::{Followers, Joined, Landing, Lead};
use crate::lru::Bounds;
use crate::store::{Fill, Found, Reader, Stamp, Store, Waits};
use crate::work::{Block, Ran, Work};
use crate::written::Written;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3_600);

/// A rule that is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mutant {
    #[default]
    None,
    /// Whoever is under way is followed, whatever has been written since.
    FollowsAny,
    /// What the leader brings is believed.
    Believes,
    /// Both.
    FollowsAnyAndBelieves,
    /// A leader that leaves tells nobody.
    LeavesSilently,
}

#[derive(Clone, Copy, Default)]
struct Setup {
    mutant: Mutant,
    waits: Waits,
    writers: usize,
    readers: usize,
}

#[derive(Clone, Debug)]
enum Writing {
    Idle,
    Sent,
    Committed(u64),
    Heeded(u64),
    Over,
}

#[derive(Clone, Debug)]
enum Reading {
    Idle,
    /// It looks, and may follow.
    Looks,
    Follows,
    /// It looks for the last time.
    LooksLast,
    Asks(Option<Fill>, Option<Lead>),
    Read(Option<Fill>, Option<Lead>, u64),
    /// Its value, and whether it was kept.
    Has(u64, bool),
    Over,
}

#[derive(Clone, Debug)]
struct Session {
    reading: Reading,
    acknowledged: u64,
    seen_by_all: u64,
}

#[derive(Clone, Debug)]
struct World {
    store: Store,
    followers: Followers<usize>,
    stamp: Stamp,
    start: Instant,
    now: Instant,
    database: u64,
    acknowledged: u64,
    seen: u64,
    writers: Vec<(Writing, Work)>,
    readers: Vec<Session>,
    /// Reads that a server has run.
    runs: usize,
}

impl World {
    fn new(setup: &Setup) -> Self {
        let now = Instant::now();
        let mut store = Store::new(Bounds { entries: 2, bytes: 10_000, ttl: HOUR });
        let session = Session { reading: Reading::Idle, acknowledged: 0, seen_by_all: 0 };
        Self {
            stamp: store.stamp(&name(), now),
            store,
            followers: Followers::new(HOUR),
            start: now,
            now,
            database: 0,
            acknowledged: 0,
            seen: 0,
            writers: vec![(Writing::Idle, Work::default()); setup.writers],
            readers: vec![session; setup.readers],
            runs: 0,
        }
    }

    fn digest(&self) -> u128 {
        let mut all = vec![self.database, self.acknowledged, self.seen, self.runs as u64];
        all.push(self.now.saturating_duration_since(self.start).as_millis() as u64);
        self.store.describe(self.start, &mut all);
        self.followers.describe(self.start, &mut all);
        for (writing, work) in &self.writers {
            let (stage, number) = match writing {
                Writing::Idle => (0, 0),
                Writing::Sent => (1, 0),
                Writing::Committed(number) => (2, *number),
                Writing::Heeded(number) => (3, *number),
                Writing::Over => (4, 0),
            };
            all.extend([u64::MAX, stage, number]);
            work.describe(&mut all);
        }
        for session in &self.readers {
            let (stage, value, fill) = match &session.reading {
                Reading::Idle => (0, 0, &None),
                Reading::Looks => (1, 0, &None),
                Reading::Follows => (2, 0, &None),
                Reading::LooksLast => (3, 0, &None),
                Reading::Asks(fill, lead) => (4 + u64::from(lead.is_some()), 0, fill),
                Reading::Read(fill, lead, value) => (6 + u64::from(lead.is_some()), *value, fill),
                Reading::Has(value, kept) => (8 + u64::from(*kept), *value, &None),
                Reading::Over => (10, 0, &None),
            };
            all.extend([u64::MAX, stage, value, session.acknowledged, session.seen_by_all]);
            if let Reading::Asks(_, Some(lead)) | Reading::Read(_, Some(lead), _) = &session.reading
            {
                all.push(lead.number());
            }
            if let Some(fill) = fill {
                fill.describe(self.start, &mut all);
            }
        }
        let bytes: Vec<u8> = all.iter().flat_map(|word| word.to_le_bytes()).collect();
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }

    fn handle(&mut self, writer: usize, ran: Ran<'_>) {
        let (_, work) = &mut self.writers[writer];
        work.handle(ran, &name(), &mut self.store, self.now);
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(1);
    }

    fn write(&mut self, writer: usize) {
        self.writers[writer].0 = match self.writers[writer].0 {
            Writing::Idle => {
                self.writers[writer].1.note_stamp(self.stamp);
                self.handle(writer, Ran::Sent(&Written::Tags(tags())));
                Writing::Sent
            }
            Writing::Sent => {
                self.database += 1;
                self.tick();
                Writing::Committed(self.database)
            }
            Writing::Committed(number) => {
                self.tick();
                self.handle(writer, Ran::Completed(b"UPDATE 1"));
                let (before, after) = (Block::None, Block::None);
                self.handle(writer, Ran::Ready { before, after, over: true });
                Writing::Heeded(number)
            }
            Writing::Heeded(number) => {
                self.acknowledged = self.acknowledged.max(number);
                Writing::Over
            }
            Writing::Over => Writing::Over,
        };
    }

    /// Looks, and if it is not there and may follow, follows or leads.
    fn look(&mut self, reader: usize, may_follow: bool, setup: &Setup) -> Reading {
        let who = Reader { waits: setup.waits, saw_at: None };
        let fill = match self.store.look(&key(), (&name(), self.stamp, &tags()), who, self.now) {
            Found::Hit(answer, _) => return Reading::Has(value(&answer), true),
            Found::Pass | Found::Unseen => return Reading::Asks(None, None),
            Found::Fill(fill) => fill,
        };
        if !may_follow {
            return Reading::Asks(Some(fill), None);
        }
        let any = matches!(setup.mutant, Mutant::FollowsAny | Mutant::FollowsAnyAndBelieves);
        let under = self.followers.fill_of(&key()).filter(|_| any);
        let joined =
            self.followers.join(&key(), under.as_ref().unwrap_or(&fill), self.now, || reader);
        match joined {
            Joined::Leads(lead) => Reading::Asks(Some(fill), Some(lead)),
            Joined::Follows => Reading::Follows,
            Joined::Runs => Reading::Asks(Some(fill), None),
        }
    }

    fn land(&mut self, lead: Option<Lead>, landing: Landing, brought: u64, setup: &Setup) {
        let Some(lead) = lead else { return };
        let believes = matches!(setup.mutant, Mutant::Believes | Mutant::FollowsAnyAndBelieves);
        for reader in self.followers.end(lead, landing, self.now) {
            // Some have given up meanwhile.
            if !matches!(self.readers[reader].reading, Reading::Follows) {
                continue;
            }
            self.readers[reader].reading = match landing {
                Landing::Put if believes => Reading::Has(brought, true),
                landing if landing.may_follow() => Reading::Looks,
                _ => Reading::LooksLast,
            };
        }
    }

    fn keep(&mut self, reader: usize, landing: Landing, setup: &Setup) {
        let Reading::Read(fill, lead, value) = self.readers[reader].reading.clone() else { return };
        if let (Some(fill), Landing::Put) = (fill, landing) {
            self.store.put(key(), fill, Answer::of(&[value as u8]), HOUR, self.now);
        }
        self.land(lead, landing, value, setup);
        self.readers[reader].reading = Reading::Has(value, false);
    }

    fn steps(&self, setup: &Setup) -> Vec<World> {
        let mut next = Vec::new();
        let mut step = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        for writer in 0..self.writers.len() {
            if !matches!(self.writers[writer].0, Writing::Over) {
                step(&|world| world.write(writer));
            }
        }
        for reader in 0..self.readers.len() {
            let set = |world: &mut World, reading| world.readers[reader].reading = reading;
            match &self.readers[reader].reading {
                Reading::Idle => step(&|world| {
                    let session = &mut world.readers[reader];
                    session.acknowledged = world.acknowledged;
                    session.seen_by_all = world.seen;
                    session.reading = Reading::Looks;
                }),
                Reading::Looks => step(&|world| {
                    let reading = world.look(reader, true, setup);
                    set(world, reading);
                }),
                Reading::LooksLast => step(&|world| {
                    let reading = world.look(reader, false, setup);
                    set(world, reading);
                }),
                // It may take too long; else it is told, or its client goes.
                Reading::Follows if setup.mutant != Mutant::LeavesSilently => {
                    step(&|world| set(world, Reading::LooksLast));
                    step(&|world| set(world, Reading::Over));
                }
                Reading::Follows => {}
                Reading::Asks(fill, lead) => {
                    step(&|world| {
                        world.runs += 1;
                        set(world, Reading::Read(fill.clone(), lead.clone(), world.database));
                    });
                    step(&|world| {
                        if setup.mutant != Mutant::LeavesSilently {
                            world.land(lead.clone(), Landing::Left, 0, setup);
                        }
                        set(world, Reading::Over);
                    });
                }
                Reading::Read(..) => {
                    step(&|world| world.keep(reader, Landing::Put, setup));
                    step(&|world| world.keep(reader, Landing::Unfit, setup));
                }
                Reading::Has(value, _) => step(&|world| {
                    world.seen = world.seen.max(*value);
                    set(world, Reading::Over);
                }),
                Reading::Over => {}
            }
        }
        next
    }

    fn check(&self, is_last: bool, broken: &mut BTreeSet<Broken>) {
        for session in &self.readers {
            match session.reading {
                Reading::Has(value, true) => {
                    if value < session.acknowledged {
                        broken.insert(Broken::G1);
                    }
                    if value < session.seen_by_all {
                        broken.insert(Broken::Order);
                    }
                }
                Reading::Follows if is_last => {
                    broken.insert(Broken::Stuck);
                }
                _ => {}
            }
        }
        if is_last && !self.followers.is_empty() {
            broken.insert(Broken::Stuck);
        }
    }
}

/// What is broken in any state that can be reached; how many there are, and the least number of reads that a server ran where all
/// readers were answered.
fn search(setup: &Setup) -> (BTreeSet<Broken>, usize, usize) {
    let start = World::new(setup);
    let mut seen = HashSet::from([start.digest()]);
    let mut open = VecDeque::from([start]);
    let (mut broken, mut runs_min) = (BTreeSet::new(), usize::MAX);
    while let Some(world) = open.pop_front() {
        let next = world.steps(setup);
        world.check(next.is_empty(), &mut broken);
        let answered = |session: &Session| matches!(session.reading, Reading::Has(..));
        if world.readers.iter().all(answered) {
            runs_min = runs_min.min(world.runs);
        }
        for world in next {
            if seen.insert(world.digest()) {
                open.push_back(world);
            }
        }
        assert!(seen.len() < 2_000_000, "too many states");
    }
    (broken, seen.len(), runs_min)
}

fn setup() -> Setup {
    Setup { writers: 1, readers: 3, ..Setup::default() }
}

#[track_caller]
fn holds(setup: Setup, except: &[Broken]) {
    let (mut broken, states, runs_min) = search(&setup);
    broken.retain(|broken| !except.contains(broken));
    assert!(broken.is_empty(), "{broken:?} in {states} states");
    assert!(states > 500 && runs_min == 1, "{states} {runs_min}");
}

#[track_caller]
fn breaks(mutant: Mutant, expected: Broken) {
    let (broken, states, _) = search(&Setup { mutant, ..setup() });
    assert!(broken.contains(&expected), "{expected:?} holds in {states} states: {broken:?}");
}

#[test]
fn whoever_follows_gets_what_it_would_have_got() {
    holds(setup(), &[Broken::Order]);
    holds(Setup { writers: 2, readers: 2, ..setup() }, &[Broken::Order]);
    holds(Setup { waits: Waits::Always, ..setup() }, &[]);
}

#[test]
fn either_of_the_two_rules_does() {
    for mutant in [Mutant::FollowsAny, Mutant::Believes] {
        holds(Setup { mutant, ..setup() }, &[Broken::Order]);
    }
}

#[test]
fn without_both_an_old_answer_is_given() {
    breaks(Mutant::FollowsAnyAndBelieves, Broken::G1);
}

#[test]
fn a_leader_that_leaves_silently_leaves_others_waiting() {
    breaks(Mutant::LeavesSilently, Broken::Stuck);
}
