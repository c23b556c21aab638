//! Inspection: an answer that was given is read once more at the primary, and the two are compared.
//!
//! That tells something only if nothing of what it was read from has been written between the two: the versions that the answer
//! stood under when it was given stand when the other has come, and no commit is under way. Whoever commits marks before the commit
//! is sent and takes the versions before the mark goes; so what the second reading sees is either what the first saw, or is
//! known here by then. A difference that is left is a write past this process, an answer that need not be the same twice, or a fault.
//!
//! Where several processes share, whoever looks asks for the shared versions when the other reading has come, and notes them
//! ([`Store::note_shared`]) before it asks here: they are others, or marked, if another process has written. One that writes without
//! telling does not before nobody hears it any more, and is heard again only when it has taken all versions: so whoever hears all
//! others when it asks is told of that, too.

use super::{Store, Tag, Versions};
use crate::key::Key;
use crate::packed::Stored;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An answer that was given, and under which versions.
#[derive(Clone, Debug)]
pub struct Given {
    /// As it is kept.
    pub answer: Arc<Stored>,
    versions: Versions,
}

impl Store {
    /// What is kept under a key, to be read once more.
    pub fn given(&self, key: &Key) -> Option<Given> {
        let entry = self.entries.peek(key)?;
        Some(Given { answer: entry.answer.clone(), versions: entry.versions.clone() })
    }

    /// Has nothing been written of what it was read from, and is no commit of it under way? Ask when the other reading has come.
    pub fn stands(&self, given: &Given) -> bool {
        given.versions.iter().all(|(place, version)| {
            let state = self.states.get(place.0 as usize);
            state.is_some_and(|state| state.version == *version && state.marks == 0)
        })
    }

    /// The answer was found not to be what the primary has. Takes all answers of the tables that it was read from: others may be as old.
    pub fn distrust(&mut self, given: &Given, now: Instant) {
        let tags = given.versions.iter().filter_map(|(place, _)| self.states.get(place.0 as usize));
        let (common, own): (Vec<Tag>, Vec<Tag>) = tags
            .map(|state| state.tag.clone())
            .partition(|tag| matches!(tag, Tag::Cluster | Tag::Database(_) | Tag::Rows(_)));
        let rows = |tag: &Tag| matches!(tag, Tag::Rows(_));
        let all = if own.is_empty() { common.into_iter().filter(rows).collect() } else { own };
        self.bump(&all, now);
    }
}

/// How many nines what is given is known to have of what was inspected: 3 when of 999 none differed, and no more than the number of
/// inspections allows.
pub fn nines(inspected: u64, different: u64) -> f64 {
    let share = (different as f64 + 1.0) / (inspected.max(different) as f64 + 1.0);
    // Neither -0 nor a digit that nobody can believe.
    (-share.log10() * 100.0).round() / 100.0 + 0.0
}

/// Which hits are inspected: one in so many, and no more than so many in a second.
#[derive(Clone, Debug)]
pub struct Sampler {
    per_second_max: u32,
    hits: u32,
    second: Option<(Instant, u32)>,
}

/// One hit in so many at most.
const HITS_PER_SAMPLE: u32 = 100;

impl Sampler {
    /// No more than so many in a second.
    pub fn new(per_second_max: u32) -> Self {
        Self { per_second_max, hits: 0, second: None }
    }

    /// An answer was given. Is it to be inspected?
    pub fn is_due(&mut self, now: Instant) -> bool {
        if self.per_second_max == 0 {
            return false;
        }
        self.hits += 1;
        if self.hits < HITS_PER_SAMPLE {
            return false;
        }
        self.hits = 0;
        let (began, count) = self
            .second
            .filter(|(began, _)| now.saturating_duration_since(*began) < Duration::from_secs(1))
            .unwrap_or((now, 0));
        let is_due = count < self.per_second_max;
        self.second = Some((began, count + u32::from(is_due)));
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Answer;
    use crate::key::KeyParts;
    use crate::lru::Bounds;
    use crate::store::{Found, Reader};
    use crate::work::{Block, Ran, Work};
    use crate::written::Written;
    use proptest::prelude::*;

    #[test]
    fn few_hits_are_inspected_whatever_comes() {
        let mut sampler = Sampler::new(3);
        let start = Instant::now();
        let mut due = 0;
        for n in 0..100_000 {
            due += u32::from(sampler.is_due(start + Duration::from_micros(n * 50)));
        }
        assert_eq!(due, 5 * 3);
        let mut none = Sampler::new(0);
        assert!((0..1_000).all(|_| !none.is_due(start)));
        let mut rare = Sampler::new(1_000);
        assert_eq!((0..1_000).filter(|_| rare.is_due(start)).count(), 10);
    }

    #[test]
    fn nines_are_no_more_than_was_looked_at() {
        assert_eq!(nines(0, 0), 0.0);
        assert_eq!(nines(9, 0), 1.0);
        assert_eq!(nines(999, 0), 3.0);
        assert_eq!(nines(999_999, 9), 5.0);
        assert_eq!(nines(10, 10), 0.0);
    }

    #[test]
    fn what_is_not_true_is_taken_with_all_of_its_tables() {
        let mut world = World {
            store: Store::new(BOUNDS),
            work: Work::default(),
            value: 0,
            now: Instant::now(),
            stage: 0,
        };
        let Found::Fill(fill) = world.look() else { panic!("nothing is there") };
        world.store.put(World::key(), fill, Answer::of(&[0]), Duration::from_secs(60), world.now);
        let given = world.store.given(&World::key()).unwrap();
        world.store.share();
        world.store.distrust(&given, world.now);
        assert!(matches!(world.look(), Found::Fill(_)));
        let told = world.store.take_told();
        let [crate::Told::End { tags, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(tags[..], [Tag::Relation(database(), 1)], "and others are told");
    }

    const BOUNDS: Bounds = Bounds { entries: 4, bytes: 1 << 20, ttl: Duration::from_secs(60) };

    fn database() -> Arc<str> {
        "d".into()
    }

    /// A table with one value, of which a writer commits the next.
    struct World {
        store: Store,
        work: Work,
        value: u8,
        now: Instant,
        /// How far the commit has come: sent, visible, acknowledged.
        stage: u8,
    }

    impl World {
        fn key() -> Key {
            Key::new(&KeyParts::default(), 0)
        }

        fn look(&mut self) -> Found {
            let (database, tags) = (database(), [Tag::Relation(database(), 1)]);
            let stamp = self.store.stamp(&database, self.now);
            self.store.look(&Self::key(), (&database, stamp, &tags), Reader::default(), self.now)
        }

        fn write(&mut self) {
            let tags: Arc<[Tag]> = [Tag::Relation(database(), 1)].into();
            let (none, mut handle) = (Block::None, |ran: Ran<'_>| {
                self.work.handle(ran, &database(), &mut self.store, self.now);
            });
            match self.stage {
                0 => handle(Ran::Sent(&Written::Tags(tags))),
                1 => {}
                _ => {
                    handle(Ran::Completed(b"UPDATE 1"));
                    handle(Ran::Ready { before: none, after: none, over: true });
                }
            }
            // The server has committed before it says so.
            self.value += u8::from(self.stage == 1);
            self.stage = (self.stage + 1) % 3;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 20: where writes go through, no difference is ever told: what was given and stands is what the primary has.
        #[test]
        fn what_stands_is_what_the_primary_has(steps in prop::collection::vec(0..4_u8, 1..80)) {
            let mut world =
                World { store: Store::new(BOUNDS), work: Work::default(), value: 0, now: Instant::now(), stage: 0 };
            let (mut given, mut read) = (None, None);
            for step in steps {
                world.now += Duration::from_millis(1);
                match step {
                    0 => match world.look() {
                        Found::Fill(fill) => {
                            let answer = Answer::of(&[world.value]);
                            world.store.put(World::key(), fill, answer, Duration::from_secs(60), world.now);
                        }
                        Found::Hit(..) => (given, read) = (world.store.given(&World::key()), None),
                        Found::Pass | Found::Unseen => {}
                    },
                    1 => world.write(),
                    2 if given.is_some() && read.is_none() => read = Some(world.value),
                    _ => {
                        if let (Some(known), Some(value)) = (&given, read) {
                            if world.store.stands(known) {
                                prop_assert_eq!(known.answer.rows(), [value]);
                            }
                            (given, read) = (None, None);
                        }
                    }
                }
            }
        }
    }
}
