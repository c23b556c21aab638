//! Two processes that share one Redis: all interleavings of a commit, reads, beats, messages that are late or lost, and a Redis that
//! forgets, goes back, or is two for a while, with [`Membership`] itself to decide; and what breaks when one of its rules is left out.
//!
//! Process 0 writes, process 1 reads; what Redis does is that of `scripts.rs`, for one table. What is sent over a connection that may
//! yet break arrives in its order at any later time, also when its sender has long given it up, or never. `G1` and `Order` are as in
//! the model of one process.

mod members; // how a process comes to take part
mod search; // through all states, and what is found
mod setup; // what may happen, and which rule is left out

use setup::{Mutant, Setup};

use super::{Broken, tags};
use crate::membership::{Config, Flight, Membership, Standing};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// One tick is a millisecond, and so is the drift of clocks that is allowed for.
const LEASE_TICKS: u64 = 1;
const TICKS: u64 = 3;
const WRITER: usize = 0;
const READER: usize = 1;

type Versions = [u64; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Order {
    Hello,
    Mark(u64),
    Join(u64),
    Beat(u64),
    End(u64),
    Look,
    Put(Versions, u64),
}

/// On its way to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Message {
    from: usize,
    /// To the replica that was promoted, not to the primary before it.
    is_to_new: bool,
    /// Over which connection.
    connection: u64,
    life: u64,
    session: u64,
    made_at: u64,
    order: Order,
}

/// What is shared. Versions: the cluster's and the table's; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Redis {
    /// Another after each start, and of each server.
    run: u64,
    life: u64,
    number: u64,
    members: [Option<(u64, u64)>; 2],
    versions: Versions,
    /// Somebody may rely on them.
    relied: [bool; 2],
    marks: BTreeSet<(usize, u64, u64)>,
    entry: Option<(Versions, u64)>,
}

#[derive(Clone, Debug)]
struct Process {
    membership: Membership,
    life: u64,
    connection: u64,
    /// Its connection is to the one that was promoted.
    is_at_new: bool,
    /// Being asked of Redis, before it is joined.
    is_asking: bool,
    /// When what it has found may be used, if it is not yet.
    usable_at: Option<u64>,
    marks_left: usize,
    is_beating: bool,
    /// When it last made a beat: once in a tick.
    beat_at: u64,
    /// What a join was answered, and from when on it counts.
    joins: Option<(u64, Joining)>,
    /// Nothing that it sends arrives, which it has not noticed yet.
    is_cut: bool,
    losses: u8,
}

/// When it was made, the number that it drew, and what the members have told.
type Joining = (u64, u64, [Option<u64>; 2]);

/// The session in which something was asked, and, if that was answered, since when it may go on.
type Asked = (u64, Option<u64>);

/// What the reader was told, when it was asked, and the answer that it has read or was given under it.
type Relied = (u64, Versions, Option<u64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writing {
    Idle,
    Marking(Asked),
    Sent(Asked),
    Committed(Asked),
    Ending(Asked),
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reading {
    Idle,
    /// With what must be seen.
    Begun(u64, u64),
    Looking(u64, u64),
    Found(u64, u64, Versions, Option<u64>),
    Asking(u64, Option<Versions>),
    Read(u64, Option<Versions>, u64),
}

#[derive(Clone, Debug)]
struct World {
    start: Instant,
    tick: u64,
    redis: Redis,
    /// The replica that was promoted, which some have found, while others go on with the primary before it.
    new: Option<Redis>,
    before: Option<Redis>,
    next_version: u64,
    next_life: u64,
    processes: [Process; 2],
    /// In the order in which they were sent.
    messages: Vec<Message>,
    database: u64,
    acknowledged: u64,
    seen: u64,
    writing: Writing,
    writes_left: u8,
    reading: Reading,
    looked_at: u64,
    relied: Option<Relied>,
    reads_left: u8,
    served_old: BTreeSet<Broken>,
    wipes: u8,
    restores: u8,
    splits: u8,
}

impl World {
    /// Both serve, and an answer is kept.
    fn new(setup: &Setup) -> Self {
        let config = |own: u8, peer: u8| Config {
            own,
            peers: [peer].into(),
            lease: Duration::from_millis(LEASE_TICKS),
            reliance: Duration::from_millis(setup.reliance),
        };
        let start = Instant::now();
        let process = |own: u8, peer: u8| Process {
            membership: Membership::new(config(own, peer), start),
            life: 0,
            connection: 0,
            is_at_new: false,
            is_asking: false,
            usable_at: None,
            marks_left: 0,
            is_beating: false,
            beat_at: u64::MAX,
            joins: None,
            is_cut: false,
            losses: setup.losses[usize::from(own)],
        };
        let mut world = Self {
            start,
            tick: 0,
            redis: Redis { life: 1, run: 1, ..Redis::default() },
            new: None,
            before: None,
            next_version: 1,
            next_life: 2,
            processes: [process(0, 1), process(1, 0)],
            messages: Vec::new(),
            database: 0,
            acknowledged: 0,
            seen: 0,
            writing: Writing::Idle,
            writes_left: setup.writes,
            reading: Reading::Idle,
            looked_at: 0,
            relied: None,
            reads_left: setup.reads,
            served_old: BTreeSet::new(),
            wipes: setup.wipes,
            restores: setup.restores,
            splits: setup.splits,
        };
        for who in [0, 1] {
            world.connect(who);
            world.deliver_all(setup);
            // What was before has been waited for.
            world.greeted(who);
            world.deliver_all(setup);
            world.joined(who);
        }
        for who in [0, 1, 0, 1] {
            world.beat(who);
            world.deliver_all(setup);
        }
        world.redis.entry = Some((world.versions(setup), 0));
        let goes_back = setup.restores > 0 || setup.splits > 0;
        world.before = Some(world.redis.clone()).filter(|_| goes_back);
        world
    }

    fn deliver_all(&mut self, setup: &Setup) {
        while !self.messages.is_empty() {
            self.arrive(0, setup);
        }
    }

    /// What is sent over a connection that does not break is not late either: it could have been sent later.
    fn deliver_safe(&mut self, setup: &Setup) {
        let is_safe = |world: &World, message: &Message| {
            let process = &world.processes[message.from];
            process.losses == 0 && process.connection == message.connection
        };
        while let Some(at) = self.messages.iter().position(|message| is_safe(self, message)) {
            self.arrive(at, setup);
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.tick)
    }

    fn fresh(&mut self, at: usize, setup: &Setup) -> u64 {
        self.next_version += 1;
        if setup.mutant == Mutant::VersionsRepeat {
            return self.redis.versions[at] + 1;
        }
        self.next_version
    }

    fn versions(&mut self, setup: &Setup) -> Versions {
        for at in [0, 1] {
            if self.redis.versions[at] == 0 {
                self.redis.versions[at] = self.fresh(at, setup);
                self.redis.relied[at] = setup.mutant != Mutant::TrustsWhatIsNew;
            }
        }
        self.redis.versions
    }

    fn send(&mut self, from: usize, session: u64, order: Order) {
        let process = &self.processes[from];
        if process.is_cut {
            return;
        }
        let message = Message {
            from,
            is_to_new: process.is_at_new,
            connection: process.connection,
            life: process.life,
            session,
            made_at: self.tick,
            order,
        };
        self.messages.push(message);
    }

    // --- Redis ---------------------------------------------------------------------------------------

    /// A message arrives; so does its reply, if its sender has not given it up.
    fn arrive(&mut self, at: usize, setup: &Setup) {
        let message = self.messages.remove(at);
        self.at(message.is_to_new, |world| world.arrived(message, setup));
    }

    fn arrived(&mut self, message: Message, setup: &Setup) {
        let Message { from, life, session, order, .. } = message;
        let is_heard = message.connection == self.processes[from].connection;
        if order == Order::Hello {
            if self.redis.life == 0 {
                self.redis.life = self.next_life;
                self.next_life += 1;
                self.redis.number = 0;
                if setup.mutant != Mutant::KeepsMembers {
                    self.redis.members = [None; 2];
                }
            }
            self.redis.members[from] = Some((session, 0));
            self.redis.number += 1;
            if is_heard {
                self.found(from, setup);
            }
            return;
        }
        let is_member = self.redis.members[from].is_some_and(|(known, _)| known == session);
        let needs_session = !matches!(order, Order::Look | Order::Put(..));
        if self.redis.life != life || needs_session && !is_member {
            if is_heard {
                self.lose(from);
            }
            return;
        }
        match order {
            Order::Mark(token) => {
                if !matches!(setup.mutant, Mutant::NoMarks | Mutant::AcknowledgesFirst) {
                    self.redis.marks.insert((from, session, token));
                    self.versions(setup);
                }
            }
            Order::Join(_) => {
                self.redis.marks.retain(|(whose, when, _)| *whose != from || *when == session);
                if setup.mutant != Mutant::LeavesAnswers {
                    self.redis.versions[0] = self.fresh(0, setup);
                    self.redis.relied[0] = setup.mutant != Mutant::TrustsWhatIsNew;
                }
            }
            Order::End(token) => {
                if self.redis.versions[1] != 0 {
                    self.redis.versions[1] = self.fresh(1, setup);
                    self.redis.relied[1] = false;
                }
                self.redis.marks.remove(&(from, session, token));
            }
            Order::Put(versions, value) => {
                if self.redis.marks.is_empty() && self.redis.versions == versions {
                    self.redis.entry = Some((versions, value));
                }
            }
            Order::Hello | Order::Beat(_) | Order::Look => {}
        }
        if let Order::Join(heard) | Order::Beat(heard) = order {
            self.redis.number += 1;
            let own = setup.mutant == Mutant::TellsItsOwnNumber;
            let told = if own { self.redis.number } else { heard };
            self.redis.members[from] = Some((session, told));
        }
        if is_heard {
            self.answered(message, setup);
        }
    }

    fn answered(&mut self, message: Message, setup: &Setup) {
        let who = message.from;
        match message.order {
            Order::Mark(_) | Order::End(_) if self.processes[who].marks_left > 0 => {
                self.processes[who].marks_left -= 1;
                if self.processes[who].marks_left == 0 {
                    self.join(who);
                }
            }
            Order::Mark(_) => {
                if let Writing::Marking((session, _)) = self.writing {
                    let waits = self.redis.relied[1] && setup.mutant != Mutant::WaitsForNoReliance;
                    let open_at = if waits { self.tick + self.wait() } else { self.tick };
                    let is_same = session == message.session;
                    self.writing = Writing::Marking((session, is_same.then_some(open_at)));
                }
            }
            Order::End(_) => match self.writing {
                Writing::Ending((session, _)) => {
                    let is_same = session == message.session;
                    self.writing = Writing::Ending((session, is_same.then_some(self.tick)));
                }
                Writing::Marking((session, _)) if setup.mutant == Mutant::EndsFirst => {
                    self.writing = Writing::Marking((session, Some(self.tick)));
                }
                _ => {}
            },
            Order::Join(_) | Order::Beat(_) => {
                let told = self.redis.members.map(|member| member.map(|(_, told)| told));
                let heard = (message.made_at, self.redis.number, told);
                if let Order::Join(_) = message.order {
                    let is_at_once = setup.mutant == Mutant::ComesBackAtOnce;
                    let wait = if is_at_once { 0 } else { self.wait() };
                    self.processes[who].joins = Some((self.tick + wait, heard));
                    if wait == 0 {
                        self.joined(who);
                    }
                } else {
                    self.processes[who].is_beating = false;
                    self.heard(who, heard);
                }
            }
            Order::Look => {
                if let Reading::Looking(least, order) = self.reading {
                    self.reading = match self.redis.marks.is_empty() {
                        true => {
                            let versions = self.versions(setup);
                            if setup.reliance > 0 {
                                self.redis.relied = [true; 2];
                            }
                            let entry = self.redis.entry.filter(|(known, _)| *known == versions);
                            let value = entry.map(|(_, value)| value);
                            self.relied = Some((self.looked_at, versions, value));
                            Reading::Found(least, order, versions, value)
                        }
                        false => Reading::Asking(order, None),
                    };
                }
            }
            Order::Put(..) | Order::Hello => {}
        }
    }

    /// How many ticks pass until nobody relies any more on what was told before.
    fn wait(&self) -> u64 {
        self.processes[WRITER].membership.wait().as_millis() as u64
    }

    /// What the reader may serve without asking.
    fn relies_on(&self) -> Option<u64> {
        let (from, _, value) = self.relied?;
        let from = self.start + Duration::from_millis(from);
        value.filter(|_| self.processes[READER].membership.may_rely(from, self.now()))
    }

    // --- steps ---------------------------------------------------------------------------------------

    fn steps(&self, setup: &Setup) -> Vec<World> {
        let mut next = Vec::new();
        let mut step = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        if self.tick < TICKS {
            step(&|world| world.tick += 1);
        }
        for (at, message) in self.messages.iter().enumerate() {
            let way = |message: &Message| (message.from, message.connection);
            if !self.messages[..at].iter().any(|before| way(before) == way(message)) {
                step(&|world| world.arrive(at, setup));
            }
        }
        for who in [0, 1] {
            let process = &self.processes[who];
            let standing = process.membership.standing();
            if standing == Standing::Apart && !process.is_asking {
                for is_at_new in [false, true] {
                    if !is_at_new || self.new.is_some() {
                        step(&|world| {
                            world.processes[who].is_at_new = is_at_new;
                            world.connect(who);
                        });
                    }
                }
            }
            if process.usable_at.is_some_and(|at| at <= self.tick) {
                step(&|world| world.at(process.is_at_new, |world| world.greeted(who)));
            }
            let is_due = !process.is_beating && process.beat_at != self.tick;
            if standing == Standing::Joined && is_due {
                step(&|world| world.beat(who));
            }
            if process.joins.is_some_and(|(at, _)| at <= self.tick) {
                step(&|world| world.joined(who));
            }
            if process.is_cut {
                step(&|world| world.lose(who));
            } else if process.losses > 0 && (standing != Standing::Apart || process.is_asking) {
                step(&|world| {
                    world.processes[who].losses -= 1;
                    world.lose(who);
                });
            }
        }
        if self.wipes > 0 {
            step(&|world| {
                world.wipes -= 1;
                // What a process has in its memory is still there.
                world.redis =
                    Redis { entry: world.redis.entry, run: world.redis.run, ..Redis::default() };
            });
        }
        if let Some(before) = self.before.as_ref().filter(|_| self.restores > 0) {
            // Another run: connections break, and a life goes with its run.
            step(&|world| {
                world.restores -= 1;
                world.messages.clear();
                world.redis = Redis { life: 0, run: world.redis.run + 1, ..before.clone() };
                world.processes.iter_mut().for_each(|process| process.is_cut = true);
            });
        }
        if self.splits > 0 {
            // A replica is promoted, and the primary does not know: whoever is connected there goes on. A life goes with its run.
            for known in [Some(&self.redis), self.before.as_ref()].into_iter().flatten() {
                step(&|world| {
                    world.splits -= 1;
                    world.new = Some(Redis { life: 0, run: 1_000, ..known.clone() });
                });
            }
        }
        self.write_steps(setup, &mut next);
        self.read_steps(&mut next, setup);
        next.iter_mut().for_each(|world| world.deliver_safe(setup));
        next
    }

    /// May it go on, since it was answered or nobody serves?
    fn is_open(&self, (session, open_at): Asked, setup: &Setup) -> bool {
        let membership = &self.processes[WRITER].membership;
        let is_lost = membership.standing() == Standing::Apart || membership.session() != session;
        let waits_not = setup.mutant == Mutant::WaitsForNobody && is_lost;
        open_at.is_some_and(|at| at <= self.tick)
            || waits_not
            || membership.is_free(session, self.now())
    }

    fn tell(&mut self, order: Order) -> Asked {
        let membership = &self.processes[WRITER].membership;
        let session = membership.session();
        if membership.standing() != Standing::Apart {
            self.send(WRITER, session, order);
        }
        (session, None)
    }

    fn write_steps(&self, setup: &Setup, next: &mut Vec<World>) {
        let mut step = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        let token = u64::from(self.writes_left);
        match self.writing {
            Writing::Idle if self.writes_left > 0 => step(&|world| {
                let membership = &mut world.processes[WRITER].membership;
                if setup.mutant != Mutant::ForgetsFlights {
                    membership.begin(token, Flight { process: None, tags: tags() });
                }
                let first = match setup.mutant {
                    Mutant::EndsFirst => Order::End(token),
                    _ => Order::Mark(token),
                };
                world.writing = Writing::Marking(world.tell(first));
            }),
            Writing::Marking(asked) if self.is_open(asked, setup) => {
                step(&|world| world.writing = Writing::Sent(asked));
            }
            Writing::Sent(asked) => step(&|world| {
                world.database += 1;
                world.writing = Writing::Committed(asked);
                if setup.mutant == Mutant::AcknowledgesFirst {
                    world.acknowledged = world.database;
                }
            }),
            Writing::Committed(_) => step(&|world| {
                world.processes[WRITER].membership.end(&[token]);
                let asked = world.tell(Order::End(token));
                let is_told = setup.mutant == Mutant::EndsFirst;
                world.writing = Writing::Ending((asked.0, is_told.then_some(0)));
            }),
            Writing::Ending(asked) if self.is_open(asked, setup) => step(&|world| {
                world.acknowledged = world.database;
                world.writes_left -= 1;
                world.writing = if world.writes_left > 0 { Writing::Idle } else { Writing::Over };
            }),
            Writing::Idle | Writing::Marking(_) | Writing::Ending(_) | Writing::Over => {}
        }
    }

    fn read_steps(&self, next: &mut Vec<World>, setup: &Setup) {
        let mut step = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        let may_serve = setup.mutant == Mutant::ServesAlone
            || self.processes[READER].membership.may_serve(self.now());
        match self.reading {
            Reading::Idle if self.reads_left > 0 => step(&|world| {
                world.reads_left -= 1;
                world.reading = Reading::Begun(world.acknowledged, world.seen);
            }),
            Reading::Idle => {}
            Reading::Begun(least, order) if self.relies_on().is_some() => step(&|world| {
                world.serve(world.relies_on().unwrap_or_default(), least, order);
            }),
            Reading::Begun(least, order) if may_serve => step(&|world| {
                world.reading = Reading::Looking(least, order);
                world.looked_at = world.tick;
                let session = world.processes[READER].membership.session();
                world.send(READER, session, Order::Look);
            }),
            Reading::Begun(_, order) => step(&|world| world.reading = Reading::Asking(order, None)),
            // Later, or never.
            Reading::Looking(_, order) => {
                step(&|world| world.reading = Reading::Asking(order, None));
            }
            Reading::Found(least, order, versions, value) => step(&|world| match value {
                Some(value) if may_serve => world.serve(value, least, order),
                _ => world.reading = Reading::Asking(order, Some(versions)),
            }),
            Reading::Asking(order, versions) => step(&|world| {
                world.reading = Reading::Read(order, versions, world.database);
            }),
            Reading::Read(_, versions, value) => step(&|world| {
                let mut versions = versions;
                if setup.mutant == Mutant::VersionsAfterTheRead {
                    versions = Some(world.versions(setup));
                }
                if let Some(versions) = versions {
                    let session = world.processes[READER].membership.session();
                    world.send(READER, session, Order::Put(versions, value));
                    // It has it itself, too.
                    if let Some((_, known, kept)) = &mut world.relied
                        && *known == versions
                    {
                        *kept = Some(value);
                    }
                }
                world.seen = world.seen.max(value);
                world.reading = Reading::Idle;
            }),
        }
    }

    fn serve(&mut self, value: u64, least: u64, order: u64) {
        let old = [(Broken::G1, least), (Broken::Order, order)];
        let old = old.iter().filter(|(_, least)| value < *least);
        self.served_old.extend(old.map(|(broken, _)| *broken));
        self.seen = self.seen.max(value);
        self.reading = Reading::Idle;
    }

    /// A read that takes no time at all.
    fn check(&self, broken: &mut BTreeSet<Broken>, setup: &Setup) {
        broken.extend(&self.served_old);
        let may_serve = setup.mutant == Mutant::ServesAlone
            || self.processes[READER].membership.may_serve(self.now());
        let reader = &self.processes[READER];
        let redis = self.new.as_ref().filter(|_| reader.is_at_new).unwrap_or(&self.redis);
        let is_same = reader.life == redis.life;
        let held = [(Broken::G1, self.acknowledged), (Broken::Order, self.seen)];
        let is_old = |value: u64| held.into_iter().filter(move |(_, least)| value < *least);
        let relied = self.relies_on();
        broken.extend(relied.into_iter().flat_map(is_old).map(|(broken, _)| broken));
        let Some((versions, value)) = redis.entry else { return };
        let stands = versions == redis.versions && redis.marks.is_empty();
        if may_serve && is_same && stands {
            broken.extend(is_old(value).map(|(broken, _)| broken));
        }
    }
}
