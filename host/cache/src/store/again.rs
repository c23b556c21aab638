//! Write-through: which answers are read again as soon as what they were read from has been written.
//!
//! An answer that is put with an [`Again`] is found by its tables. A commit that takes it tells so ([`crate::Work::take_due`]), and
//! whoever carries that out asks a server the same once more, under the same rules as anybody: nothing is made up from what was
//! written. What is not read again in time is simply not there.

use super::{Place, Store, Tag};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::time::Instant;
use tidegate_core::limits::{WRITE_THROUGH_MAX, WRITE_THROUGH_PER_TABLE_MAX};
use tidegate_core::settings::Settings;

/// How to ask for an answer once more, as the session would that asked first.
#[derive(Clone, Debug)]
pub struct Again {
    /// Who asks.
    pub user: Arc<str>,
    /// Under which settings.
    pub settings: Arc<Settings>,
    /// What: a Query, or a batch that needs no statements.
    pub unit: Arc<[u8]>,
    /// When a client wanted it last. What nobody has wanted for its whole time is not read again.
    pub wanted_at: Instant,
}

/// Keys of answers by what they were read from.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry(FxHashMap<Place, Vec<u128>>);

impl Registry {
    /// The oldest make room: they are but taken by writes, as without this.
    pub(super) fn add(&mut self, place: Place, hash: u128) {
        let hashes = self.0.entry(place).or_default();
        hashes.retain(|known| *known != hash);
        if hashes.len() >= WRITE_THROUGH_PER_TABLE_MAX {
            hashes.remove(0);
        }
        hashes.push(hash);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Store {
    pub(super) fn is_of_rows(&self, place: Place) -> bool {
        let state = self.states.get(place.0 as usize);
        state.is_some_and(|state| !matches!(state.tag, Tag::Cluster | Tag::Database(_)))
    }

    /// These have just been taken: what of their answers is to be read again. Each is told once, until it is put anew.
    pub(crate) fn take_due(&mut self, tags: &[Tag], now: Instant) -> Vec<Arc<Again>> {
        let mut due = Vec::new();
        if self.again.0.is_empty() {
            return due;
        }
        let mut seen = FxHashSet::default();
        for tag in tags {
            let Some(place) = self.places.get(tag) else { continue };
            for hash in self.again.0.remove(place).unwrap_or_default() {
                let Some(entry) = self.entries.peek_hash(hash) else { continue };
                let Some(again) = &entry.again else { continue };
                let wanted_at = entry.hit_at.max(Some(again.wanted_at)).unwrap_or(again.wanted_at);
                let is_wanted =
                    now < wanted_at + entry.until.saturating_duration_since(entry.began);
                let is_of_it = entry.versions.iter().any(|(at, _)| at == place);
                if is_wanted && is_of_it && due.len() < WRITE_THROUGH_MAX && seen.insert(hash) {
                    due.push(Arc::new(Again { wanted_at, ..(**again).clone() }));
                }
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Answer;
    use crate::key::{Key, KeyParts};
    use crate::lru::Bounds;
    use crate::store::{Expiry, Found, Reader, Term};
    use crate::work::{Block, Ran, Work};
    use crate::written::Written;
    use proptest::prelude::*;
    use std::time::Duration;

    const TTL: Duration = Duration::from_secs(60);
    const TABLES: u8 = 3;

    fn database() -> Arc<str> {
        "d".into()
    }

    fn relation(oid: u8) -> Tag {
        Tag::Relation(database(), oid.into())
    }

    /// A read of two tables (perhaps one twice), kept through writes or not.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Asked {
        tables: [u8; 2],
        through: bool,
    }

    impl Asked {
        fn all() -> impl Iterator<Item = Asked> {
            (0..TABLES * TABLES * 2)
                .map(|n| Asked { tables: [n / 2 % TABLES, n / 2 / TABLES], through: n % 2 == 1 })
        }

        fn unit(self) -> [u8; 3] {
            [self.tables[0], self.tables[1], u8::from(self.through)]
        }

        fn of(unit: &[u8]) -> Self {
            Self { tables: [unit[0], unit[1]], through: unit[2] == 1 }
        }

        fn key(self) -> Key {
            Key::new(&KeyParts { text: &self.unit(), ..KeyParts::default() }, 0)
        }
    }

    struct World {
        store: Store,
        values: [u8; TABLES as usize],
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let bounds = Bounds { entries: 100, bytes: 1 << 20, ttl: TTL };
            Self { store: Store::new(bounds), values: [0; 3], now: Instant::now() }
        }

        fn value(&self, asked: Asked) -> u8 {
            asked.tables.iter().map(|table| self.values[usize::from(*table)]).sum()
        }

        fn look(&mut self, asked: Asked) -> Found {
            let stamp = self.store.stamp(&database(), self.now);
            let mut tags = asked.tables.map(relation).to_vec();
            tags.dedup();
            let of = (&database(), stamp, &tags[..]);
            self.store.look(&asked.key(), of, Reader::default(), self.now)
        }

        /// Whether it was kept; else it is from now on.
        fn read(&mut self, asked: Asked, wanted_at: Instant) -> bool {
            match self.look(asked) {
                Found::Hit(answer, _) => {
                    assert_eq!(answer.rows(), [self.value(asked)]);
                    true
                }
                Found::Fill(fill) => {
                    let again = Again {
                        user: "u".into(),
                        settings: Arc::default(),
                        unit: asked.unit().as_slice().into(),
                        wanted_at,
                    };
                    let again = asked.through.then(|| Arc::new(again));
                    let term = Term { ttl: TTL, expiry: Expiry::Plain, again };
                    let answer = Answer::of(&[self.value(asked)]);
                    self.store.put(asked.key(), fill, answer, term, self.now);
                    false
                }
                Found::Pass | Found::Unseen => panic!("nothing is under way"),
            }
        }

        /// Up to where its client would be acknowledged; what is to be read again.
        fn write(&mut self, table: u8, completed: &[u8]) -> Vec<Arc<Again>> {
            let mut work = Work::default();
            let written = Written::Tags([relation(table)].into());
            let mut handle = |ran| work.handle(ran, &database(), &mut self.store, self.now);
            let block = if completed == b"ROLLBACK" { Block::Open } else { Block::None };
            handle(Ran::Sent(&written));
            if completed != b"ROLLBACK" {
                self.values[usize::from(table)] += 1;
            }
            handle(Ran::Completed(completed));
            handle(Ran::Ready { before: block, after: Block::None, over: true });
            work.take_due()
        }

        fn run(&mut self, due: &[Arc<Again>]) {
            for again in due {
                assert!(!self.read(Asked::of(&again.unit), again.wanted_at), "it was taken");
            }
        }
    }

    #[test]
    fn what_nobody_wants_any_more_is_not_read_again() {
        let mut world = World::new();
        let asked = Asked { tables: [0, 1], through: true };
        world.read(asked, world.now);
        world.now += TTL / 2;
        assert!(world.read(asked, world.now), "it is wanted once more");
        for rounds in 0.. {
            world.now += TTL / 4;
            let due = world.write(1, b"UPDATE 1");
            if due.is_empty() {
                assert_eq!(rounds, 3);
                break;
            }
            world.run(&due);
        }
        assert!(!world.read(asked, world.now));
    }

    #[test]
    fn one_table_has_but_so_many() {
        let mut world = World::new();
        for n in 0..=255_u8 {
            world.now += Duration::from_millis(1);
            let key = Key::new(&KeyParts { text: &[n], ..KeyParts::default() }, 0);
            let stamp = world.store.stamp(&database(), world.now);
            let of = (&database(), stamp, &[relation(0)][..]);
            let found = world.store.look(&key, of, Reader::default(), world.now);
            let Found::Fill(fill) = found else { panic!("{found:?}") };
            let (user, settings, unit) = ("u".into(), Arc::default(), [n].as_slice().into());
            let again = Again { user, settings, unit, wanted_at: world.now };
            let term = Term { ttl: TTL, expiry: Expiry::Plain, again: Some(Arc::new(again)) };
            world.store.put(key, fill, Answer::of(&[n]), term, world.now);
        }
        let due = world.write(0, b"UPDATE 1");
        let units: Vec<u8> = due.iter().map(|again| again.unit[0]).collect();
        let first = 256 - WRITE_THROUGH_PER_TABLE_MAX;
        assert_eq!(units, (first as u8..=255).collect::<Vec<_>>());
        assert!(world.write(0, b"UPDATE 1").is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        // Property 45: when its writer is acknowledged, an answer that is kept through writes has the new value, and has been read
        // for it; what is not kept through writes is gone; and what is rolled back has nothing read.
        #[test]
        fn the_new_value_is_there_when_the_writer_hears_of_it(
            steps in proptest::collection::vec((0..3_u8, 0..TABLES, 0..TABLES, any::<bool>()), 1..60),
        ) {
            let mut world = World::new();
            let mut kept: Vec<Asked> = Vec::new();
            for (what, one, other, through) in steps {
                world.now += Duration::from_millis(1);
                match what {
                    0 => {
                        let asked = Asked { tables: [one, other], through };
                        prop_assert_eq!(world.read(asked, world.now), kept.contains(&asked));
                        kept.retain(|known| *known != asked);
                        kept.push(asked);
                    }
                    1 => prop_assert!(world.write(one, b"ROLLBACK").is_empty()),
                    _ => {
                        let due = world.write(one, b"UPDATE 1");
                        let mut told: Vec<[u8; 3]> =
                            due.iter().map(|again| Asked::of(&again.unit).unit()).collect();
                        let mut wanted: Vec<[u8; 3]> = kept
                            .iter()
                            .filter(|asked| asked.through && asked.tables.contains(&one))
                            .map(|asked| asked.unit())
                            .collect();
                        told.sort_unstable();
                        wanted.sort_unstable();
                        prop_assert_eq!(told, wanted);
                        world.run(&due);
                        kept.retain(|asked| asked.through || !asked.tables.contains(&one));
                    }
                }
                for asked in Asked::all() {
                    let found = world.look(asked);
                    let value = world.value(asked);
                    match found {
                        Found::Hit(answer, _) => {
                            prop_assert!(kept.contains(&asked));
                            prop_assert_eq!(answer.rows(), [value]);
                        }
                        _ => prop_assert!(!kept.contains(&asked)),
                    }
                }
            }
        }
    }
}
