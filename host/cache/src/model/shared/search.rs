//! The search itself: which states are one, which are found, and what is expected of them.

use super::setup::{Mutant, Setup};
use super::{Message, Order, Reading, Versions, World, Writing};
use crate::model::Broken;
use std::collections::{BTreeSet, HashSet, VecDeque};

impl World {
    /// Two states with one digest have the same future: of numbers and versions only their order counts, and of times only those
    /// that are not over.
    fn digest(&self, setup: &Setup) -> u128 {
        let mut all = Vec::with_capacity(96);
        let (mut numbers, mut versions) = (Vec::new(), vec![0]);
        let both = || [&self.redis].into_iter().chain(&self.new);
        for redis in both() {
            numbers.push(redis.number);
            versions.extend(redis.versions);
            numbers.extend(redis.members.iter().flatten().map(|(_, seen)| *seen));
        }
        let mut entries: Vec<_> = both().map(|redis| redis.entry).collect();
        entries.push(self.before.as_ref().and_then(|before| before.entry));
        versions.extend(entries.iter().flatten().flat_map(|(versions, _)| *versions));
        for message in &self.messages {
            match message.order {
                Order::Join(heard) | Order::Beat(heard) => numbers.push(heard),
                Order::Put(read, _) => versions.extend(read),
                _ => {}
            }
        }
        if let Reading::Found(_, _, read, _)
        | Reading::Asking(_, Some(read))
        | Reading::Read(_, Some(read), _) = self.reading
        {
            versions.extend(read);
        }
        if let Some((_, read, _)) = self.relied {
            versions.extend(read);
        }
        for process in &self.processes {
            process.membership.numbers(&mut numbers);
            if let Some((_, (_, number, told))) = process.joins {
                numbers.push(number);
                numbers.extend(told.into_iter().flatten());
            }
        }
        for known in [&mut numbers, &mut versions] {
            known.sort_unstable();
            known.dedup();
        }
        let rank = |known: &[u64], one: u64| known.partition_point(|other| *other < one) as u64;
        let (number, version) = (|one| rank(&numbers, one), |one| rank(&versions, one));
        all.extend([self.tick, self.splits.into(), u64::from(self.new.is_some())]);
        for redis in both() {
            all.extend([redis.run, redis.life, number(redis.number)]);
            all.extend(redis.versions.map(version));
            all.extend(redis.relied.map(u64::from));
            for member in redis.members {
                all.extend(member.map_or([0, 0], |(session, seen)| [session + 1, number(seen)]));
            }
            for (who, session, token) in &redis.marks {
                all.extend([1_000 + *who as u64, *session, *token]);
            }
        }
        // What is over, or was told without an answer to rely on, is as nothing.
        let relied = self.relied.filter(|(from, ..)| self.tick < from + setup.reliance);
        all.extend(relied.map_or([0; 4], |(from, [one, two], value)| {
            [from + 1, version(one), version(two), value.map_or(0, |value| value + 1)]
        }));
        for entry in entries {
            let known =
                entry.map_or([0; 3], |([one, two], value)| [version(one), version(two), value + 1]);
            all.extend(known);
        }
        for message in &self.messages {
            let (kind, detail) = match message.order {
                Order::Hello => (0, [0; 3]),
                Order::Mark(token) => (1, [token, 0, 0]),
                Order::Join(heard) => (2, [number(heard), 0, 0]),
                Order::Beat(heard) => (3, [number(heard), 0, 0]),
                Order::End(token) => (4, [token, 0, 0]),
                Order::Look => (5, [0; 3]),
                Order::Put([one, two], value) => (6, [version(one), version(two), value]),
            };
            let Message { from, is_to_new, connection, life, session, made_at, .. } = *message;
            all.extend([2_000 + kind, from as u64, connection, life, session, made_at]);
            all.push(is_to_new.into());
            all.extend(detail);
        }
        all.extend([3_000, self.database, self.acknowledged, self.seen]);
        all.extend([self.writes_left, self.reads_left, self.wipes, self.restores].map(u64::from));
        let (stage, (session, open_at)) = match self.writing {
            Writing::Idle => (0, (0, None)),
            Writing::Marking(asked) => (1, asked),
            Writing::Sent(asked) => (2, asked),
            Writing::Committed(asked) => (3, asked),
            Writing::Ending(asked) => (4, asked),
            Writing::Over => (5, (0, None)),
        };
        all.extend([stage, session, open_at.map_or(0, |at| at.max(self.tick) + 1)]);
        let pair =
            |read: Option<Versions>| read.map_or([0; 2], |read| read.map(|v| version(v) + 1));
        let (stage, facts, read) = match self.reading {
            Reading::Idle => (0, [0; 3], None),
            Reading::Begun(least, order) => (1, [least, order, 0], None),
            Reading::Looking(least, order) => (2, [least, order, self.looked_at], None),
            Reading::Found(least, order, read, value) => {
                (3, [least, order, value.map_or(0, |value| value + 1)], Some(read))
            }
            Reading::Asking(order, read) => (4, [order, 0, 0], read),
            Reading::Read(order, read, value) => (5, [order, value, 0], read),
        };
        all.push(stage);
        all.extend(facts);
        all.extend(pair(read));
        for process in &self.processes {
            let flags = [process.is_asking, process.is_beating, process.is_cut].map(u64::from);
            all.extend(flags);
            all.extend([process.life, process.connection, process.marks_left as u64]);
            all.extend([process.losses.into(), u64::from(process.beat_at == self.tick)]);
            all.extend([
                process.is_at_new.into(),
                process.usable_at.map_or(0, |at| at.max(self.tick) + 1),
            ]);
            match process.joins {
                Some((at, (made_at, drawn, told))) => {
                    all.extend([4_000 + at.max(self.tick), made_at, number(drawn)]);
                    all.extend(told.map(|told| told.map_or(0, |told| number(told) + 1)));
                }
                None => all.push(0),
            }
            process.membership.describe((self.start, self.now()), &number, &mut all);
        }
        let bytes: Vec<u8> = all.iter().flat_map(|word| word.to_le_bytes()).collect();
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
}

/// What is broken in any state that can be reached, and how many there are.
fn search(setup: &Setup, expected: Option<Broken>) -> (BTreeSet<Broken>, usize) {
    let start = World::new(setup);
    let mut seen = HashSet::from([start.digest(setup)]);
    let mut open = VecDeque::from([start]);
    let mut broken = BTreeSet::new();
    while let Some(world) = open.pop_front() {
        world.check(&mut broken, setup);
        if expected.is_some_and(|expected| broken.contains(&expected)) {
            break;
        }
        for world in world.steps(setup) {
            if seen.insert(world.digest(setup)) {
                open.push_back(world);
            }
        }
        assert!(seen.len() < 1_500_000, "too many states");
    }
    (broken, seen.len())
}

#[track_caller]
fn holds(setup: Setup) {
    let (broken, states) = search(&setup, None);
    println!("{states} states");
    assert!(broken.is_empty(), "{broken:?} in {states} states");
    assert!(states > 500, "{states}");
}

#[track_caller]
fn breaks(setup: Setup, expected: Broken) {
    let (broken, states) = search(&setup, Some(expected));
    println!("{:?}: {broken:?} in {states} states", setup.mutant);
    assert!(broken.contains(&expected), "{expected:?} holds in {states} states: {broken:?}");
}

fn one_write() -> Setup {
    Setup { writes: 1, reads: 1, losses: [1, 0], ..Setup::default() }
}

#[test]
fn what_is_shared_holds_while_messages_are_late_or_lost() {
    holds(one_write());
    holds(Setup { losses: [1, 1], reads: 0, ..one_write() });
}

#[test]
fn nor_does_a_redis_that_forgets_make_anything_old_valid() {
    holds(Setup { losses: [0, 0], wipes: 1, ..one_write() });
    holds(Setup { reads: 0, wipes: 1, ..one_write() });
}

#[test]
fn nor_one_that_goes_back() {
    holds(Setup { losses: [0, 0], restores: 1, ..one_write() });
}

/// The replica has all, or has not heard of the last: it is promoted before or after. Each may find either, at any time.
#[test]
fn nor_two_of_which_each_process_has_found_another() {
    holds(Setup { splits: 1, reads: 0, ..one_write() });
    holds(Setup { splits: 1, reads: 0, losses: [0, 1], ..one_write() });
}

fn relying() -> Setup {
    Setup { reliance: 1, ..one_write() }
}

#[test]
fn what_was_told_may_be_relied_on_for_a_moment() {
    holds(Setup { losses: [0, 0], reads: 2, ..relying() });
    holds(relying());
    holds(Setup { losses: [0, 0], wipes: 1, ..relying() });
    holds(Setup { losses: [0, 0], restores: 1, ..relying() });
}

#[test]
fn each_rule_of_reliance_that_is_left_out_breaks_something() {
    let mutant = |mutant| Setup { mutant, losses: [0, 0], ..relying() };
    breaks(mutant(Mutant::WaitsForNoReliance), Broken::G1);
    breaks(Setup { losses: [1, 0], ..mutant(Mutant::ComesBackAtOnce) }, Broken::G1);
    breaks(Setup { wipes: 1, ..mutant(Mutant::TrustsWhatIsNew) }, Broken::G1);
}

#[test]
fn each_rule_of_sharing_that_is_left_out_breaks_something() {
    let mutant = |mutant| Setup { mutant, ..one_write() };
    breaks(mutant(Mutant::WaitsForNobody), Broken::G1);
    breaks(mutant(Mutant::ServesAlone), Broken::G1);
    breaks(mutant(Mutant::LeavesAnswers), Broken::G1);
    breaks(mutant(Mutant::NoMarks), Broken::Order);
    breaks(mutant(Mutant::EndsFirst), Broken::G1);
    breaks(mutant(Mutant::AcknowledgesFirst), Broken::G1);
    breaks(mutant(Mutant::VersionsAfterTheRead), Broken::G1);
    breaks(mutant(Mutant::TellsItsOwnNumber), Broken::G1);
    breaks(Setup { reads: 2, ..mutant(Mutant::ForgetsFlights) }, Broken::Order);
    breaks(Setup { splits: 1, ..mutant(Mutant::MovesAtOnce) }, Broken::G1);
    let wiped = |mutant| Setup { wipes: 1, losses: [0, 0], mutant, ..one_write() };
    breaks(wiped(Mutant::VersionsRepeat), Broken::G1);
    let restored = |mutant| Setup { restores: 1, losses: [0, 0], mutant, ..one_write() };
    breaks(restored(Mutant::KeepsMembers), Broken::G1);
}
