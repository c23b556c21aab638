//! A worker's part of answers that are kept: asks the policy and the proof, looks, and heeds what is written.

mod following; // reads that wait for another of the same
mod named; // what the policy names
mod shared; // what several processes share
pub mod told; // `SHOW tidegate.cache`
mod written; // what clients write

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_cache::{
    Again, Answer, Deny, Described, Expiry, Fill, Found, Given, Key, KeyParts, Reader, Sampler,
    Stamp, Tag, Term, Waits, Written, is_timeless, judge,
};
use tidegate_core::plan::{
    Describes, END_USER_SETTING, Recall, Recalled, RecalledBatch, shows_cache,
};
use tidegate_core::policy::cache::{CacheRule, ExpiryMode, KeyPart, Tier, WriteMode};
use tidegate_core::policy::plans::Plans;
use tidegate_core::policy::{CachePlan, Slot};
use tidegate_core::route::Place;
use tidegate_core::settings::Settings;
use tidegate_core::statement::{Known, Shape, Tags, TextEncoding, TextSettings};
use tidegate_policy::bindings::since_v0_1::types::SessionFlags;
use tidegate_policy::{AnswerSource, Asker, Execution, Question};

use super::clients::Client;
use super::routing::Routing;
use crate::results::{Leading, Results, RuleCounts};
use crate::sharing::{Entry, Gates, KEY_SEED};
use crate::view::{END_USER_TAG, KnownTables};

pub use following::{Come, Later};
pub use told::CacheNote;
pub use written::{Lost, Tracked};

/// Tags that a caching policy is told of.
const TAGS_TOLD: [&str; 1] = ["cache"];

/// What an answer was read from, or why it is not kept; found once for each shape and reading of the catalogue.
type Verdict = Result<Arc<[Tag]>, Deny>;

/// One worker's.
pub struct Caching {
    pub results: Arc<Results>,
    plans: Plans<u128, Planned>,
    verdicts: Plans<u128, Verdict>,
    writes: Plans<u128, Written>,
    /// What the policy says that writes take, by the reading of their database's catalogue, too.
    taken: Plans<(u128, u64), Arc<[Tag]>>,
    /// What the unit that was looked for last is to be kept under, if a server answers it now.
    filling: Option<Filling>,
    /// What the unit that was looked for last waits for.
    later: Option<Later>,
    /// What has come of that, for the unit that is looked for next.
    come: Come,
    /// What the statements of this step have to wait for.
    gates: Gates,
    /// What is to be read again since this step has committed.
    due: Vec<Arc<Again>>,
    /// Where keys are put together.
    scratch: Vec<u8>,
    sampler: Sampler,
    /// What was given last, and is to be read once more.
    inspection: Option<Box<Inspection>>,
}

#[derive(Clone, Debug)]
struct Planned {
    plan: Arc<CachePlan>,
    planner: Option<u64>,
    /// Of the rule, where the plan is one.
    counts: Option<Arc<RuleCounts>>,
    constant: named::Constant,
}

impl Planned {
    fn count(&self, count: fn(&RuleCounts)) {
        if let Some(counts) = &self.counts {
            count(counts);
        }
    }
}

/// An answer that is wanted.
#[derive(Debug)]
pub struct Filling {
    pub key: Key,
    pub fill: Fill,
    pub term: Term,
    pub bytes_max: usize,
    /// Where others find it, and the versions among all.
    pub shared: Option<(Arc<Entry>, Arc<[u64]>)>,
    /// Others may wait for it.
    pub leading: Option<Leading>,
}

/// An answer that was given, how to read it once more, and what to call the statement.
#[derive(Debug)]
pub struct Inspection {
    pub given: Given,
    pub again: Again,
    pub shape: Arc<Shape>,
    pub key: Key,
    /// Where others share it.
    pub shared: Option<Arc<Entry>>,
}

impl Caching {
    pub fn new(results: Arc<Results>) -> Self {
        Self {
            sampler: Sampler::new(results.inspected.per_second_max),
            inspection: None,
            results,
            plans: Plans::default(),
            verdicts: Plans::default(),
            writes: Plans::default(),
            taken: Plans::default(),
            filling: None,
            later: None,
            come: Come::default(),
            gates: Gates::default(),
            due: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub fn take_due(&mut self) -> Vec<Arc<Again>> {
        std::mem::take(&mut self.due)
    }

    pub fn take_inspection(&mut self) -> Option<Box<Inspection>> {
        self.inspection.take()
    }

    pub fn take_filling(&mut self) -> Option<Filling> {
        self.filling.take()
    }
}

impl Routing {
    /// May an answer be kept that comes from there now?
    pub fn may_keep(&self, fill: &Fill, place: Place) -> bool {
        match place {
            Place::Primary => true,
            Place::Replica(index) => {
                fill.allows(self.view.replicas.get(index).and_then(|replica| replica.fresh_as_of))
            }
        }
    }

    /// Answers a unit from what is kept; or notes how its answer may be.
    pub(super) fn recall(
        &mut self,
        client: &Client,
        next: &Recall<'_>,
        out: &mut Vec<u8>,
    ) -> Recalled {
        self.caching.filling = None;
        let come = std::mem::take(&mut self.caching.come);
        if shows_cache(next.sql) {
            told::tell(client, next.batch.as_ref(), out);
            return Recalled::Answered;
        }
        let (note, recalled) = self.recall_kept(client, next, come, out);
        if recalled != Recalled::Later {
            client.note_cache(note);
        }
        recalled
    }

    /// The same, and what there is to tell of it.
    fn recall_kept(
        &mut self,
        client: &Client,
        next: &Recall<'_>,
        come: Come,
        out: &mut Vec<u8>,
    ) -> (CacheNote, Recalled) {
        let mut wanted = match self.wanted(client, next) {
            Ok(wanted) => wanted,
            Err(note) => return (note, Recalled::No),
        };
        let Come { looked, followed } = come;
        let found = match self.caching.results.sharing().cloned() {
            None => self.look(client, &wanted),
            Some(sharing) => {
                match self.look_shared(client, &mut wanted, (looked, followed), &sharing) {
                    Ok(found) => found,
                    Err(Recalled::Later) => return (CacheNote::NotLooked, Recalled::Later),
                    Err(recalled) => {
                        wanted.planned.count(RuleCounts::miss);
                        return (CacheNote::Unshared, recalled);
                    }
                }
            }
        };
        let Some((found, leading)) = self.follow_or_lead(client, next, &wanted, found, followed)
        else {
            return (CacheNote::NotLooked, Recalled::Later);
        };
        match found {
            Found::Hit(answer, began) => {
                let Some(answer) = answer.open() else {
                    wanted.planned.count(RuleCounts::miss);
                    return (CacheNote::Passed, Recalled::No);
                };
                write(next.batch.as_ref(), &answer, out);
                client.note_kept(began);
                if self.caching.sampler.is_due(Instant::now()) {
                    self.inspect(client, next, &wanted);
                }
                wanted.planned.count(RuleCounts::hit);
                (CacheNote::Hit, Recalled::Answered)
            }
            Found::Fill(fill) => {
                wanted.planned.count(RuleCounts::miss);
                let Wanted { key, mut term, bytes_max, shared, .. } = wanted;
                term.again = (wanted.write == WriteMode::WriteThrough)
                    .then(|| Arc::new(written::again(client, next)));
                let shared = shared.and_then(|(entry, versions)| Some((entry, versions?)));
                self.caching.filling =
                    Some(Filling { key, fill, term, bytes_max, shared, leading });
                (CacheNote::Miss, Recalled::No)
            }
            Found::Pass => {
                wanted.planned.count(RuleCounts::miss);
                (CacheNote::Passed, Recalled::No)
            }
            Found::Unseen => {
                wanted.planned.count(RuleCounts::miss);
                (CacheNote::Unseen, Recalled::No)
            }
        }
    }

    /// Has what is given now be read once more.
    fn inspect(&mut self, client: &Client, next: &Recall<'_>, wanted: &Wanted) {
        let Some(given) = self.caching.results.with(|store| store.given(&wanted.key)) else {
            return;
        };
        let (again, shape) = (written::again(client, next), wanted.shape.clone());
        let (key, shared) =
            (wanted.key.clone(), wanted.shared.as_ref().map(|(entry, _)| entry.clone()));
        self.caching.inspection = Some(Box::new(Inspection { given, again, shape, key, shared }));
    }

    /// What to look for, if the unit's answer may be kept.
    fn wanted(&mut self, client: &Client, next: &Recall<'_>) -> Result<Wanted, CacheNote> {
        let known = self.known_tables(&client.database).ok_or(CacheNote::Unknown)?;
        let settings = TextSettings { strings: next.strings, encoding: TextEncoding::Utf8 };
        let text = self.shapes.shape_of(next.sql, settings, Instant::now());
        let planned = self.cache_plan(next.sql, &text, client);
        let (CachePlan::Store(rule) | CachePlan::Ask(_, rule)) = &*planned.plan else {
            return Err(CacheNote::NotWanted);
        };
        let tags = self.cache_tags(next, &text, client, &known).map_err(|why| {
            self.caching.results.note_denied(why);
            planned.count(RuleCounts::deny);
            CacheNote::Denied(why)
        })?;
        let tags =
            named::with_named((tags, known.serial), (&planned, rule), next, &client.database);
        let ttl = self.cache_ttl(&planned, rule, &text, next).ok_or(CacheNote::NotWanted)?;
        let own = self.own_parts(next, &text, rule);
        let policy = self.reader.view().slot(Slot::Caching).stamp(client.id.0);
        let scratch = &mut self.caching.scratch;
        let seed = self.caching.results.seed();
        let key = key(client, next, &text, (policy, seed), (&own, &mut *scratch));
        let shared = self.caching.results.sharing().map(|_| {
            // Numbers of policies are each process's own. What one has answers told apart by is in their own parts; how long it
            // keeps them, here.
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let key = self::key(client, next, &text, (ttl, KEY_SEED), (&own, &mut *scratch));
            (Arc::new(Entry::new(key, &client.database, &tags)), None)
        });
        let waits = if rule.tier == Tier::Strict { Waits::Always } else { Waits::IfSeen };
        let expiry = match rule.expiry {
            ExpiryMode::Expire => Expiry::Plain,
            ExpiryMode::Warm => Expiry::RefreshAhead,
        };
        let term = Term { ttl, expiry, again: None };
        let (stamp, bytes_max, write) = (known.stamp, rule.bytes_max, rule.write);
        let shape = text.shape;
        Ok(Wanted { key, stamp, tags, waits, term, write, bytes_max, shared, planned, shape })
    }

    fn look(&self, client: &Client, wanted: &Wanted) -> Found {
        let reader =
            Reader { waits: wanted.waits, saw_at: client.facts.get().saw.map(|(_, at)| at) };
        let of = (&client.database, wanted.stamp, &wanted.tags[..]);
        let now = Instant::now();
        self.caching.results.with(|store| store.look(&wanted.key, of, reader, now))
    }

    fn known_tables(&self, database: &str) -> Option<KnownTables> {
        self.view.catalogues.get(database)?.tables.clone()
    }

    fn cache_plan(&mut self, sql: &[u8], text: &Known, client: &Client) -> Planned {
        let tags = Tags::read(sql, text.begin, text.end);
        let told: Vec<(&str, &str)> =
            tags.iter().filter(|(key, _)| TAGS_TOLD.contains(key)).collect();
        let key = super::routing::plan_key(text, &told);
        let view = self.reader.view();
        let session = client.id.0;
        let stamp = view.slot(Slot::Caching).stamp(session);
        if let Some(known) = self.caching.plans.get(key, stamp) {
            return known.clone();
        }
        let asker = Asker { view, session };
        let answer = self.policies.plan_cache(asker, Question { shape: &text.shape, tags: &told });
        let planner = match answer.source {
            AnswerSource::Plugin(number) => Some(number),
            AnswerSource::BuiltIn | AnswerSource::StandIn => None,
        };
        let counts = match &answer.plan {
            CachePlan::Bypass => None,
            CachePlan::Store(rule) | CachePlan::Ask(_, rule) => {
                let tables = text.shape.tables.iter().map(|table| table.name.clone()).collect();
                Some(self.caching.results.rule(&client.database, tables, rule.ttl))
            }
        };
        let plan = Arc::new(answer.plan);
        let planned = Planned { plan, planner, counts, constant: named::Constant::default() };
        if answer.source != AnswerSource::StandIn {
            self.caching.plans.put(key, stamp, planned.clone());
        }
        planned
    }

    /// What the answer is read from, if it may be kept.
    fn cache_tags(
        &mut self,
        next: &Recall<'_>,
        text: &Known,
        client: &Client,
        known: &KnownTables,
    ) -> Verdict {
        let bound = next.batch.as_ref().map_or(&[][..], |batch| batch.bound);
        let sql = next.sql.get(text.begin..text.end).ok_or(Deny::Unknown)?;
        match is_timeless(sql, bound) {
            true => self.verdict(text, client, known),
            false => Err(Deny::DateWord),
        }
    }

    fn verdict(&mut self, text: &Known, client: &Client, known: &KnownTables) -> Verdict {
        // What has no fingerprint shares one.
        let tables = known.tables.as_deref().filter(|_| text.shape.incomplete.is_none());
        let tables = tables.ok_or(Deny::Unknown)?;
        let key = text.shape.fingerprint.0;
        if let Some(verdict) = self.caching.verdicts.get(key, known.serial) {
            return verdict.clone();
        }
        let verdict = judge(&text.shape, &client.database, tables);
        self.caching.verdicts.put(key, known.serial, verdict.clone());
        verdict
    }

    fn cache_ttl(
        &mut self,
        planned: &Planned,
        rule: &CacheRule,
        text: &Known,
        next: &Recall<'_>,
    ) -> Option<Duration> {
        let CachePlan::Ask(id, _) = &*planned.plan else { return Some(rule.ttl) };
        let tags = Tags::read(next.sql, text.begin, text.end);
        let end_user = tags.get(END_USER_TAG).or(next.settings.own(END_USER_SETTING));
        let execution = Execution {
            id: *id,
            session: SessionFlags::empty(),
            fingerprint_low: text.shape.fingerprint.0 as u64,
            end_user_hash: self.limiting.end_user_hash(end_user),
        };
        self.policies.decide_cache(self.reader.view(), planned.planner?, execution)
    }

    /// What the policy adds to the key.
    fn own_parts(&self, next: &Recall<'_>, text: &Known, rule: &CacheRule) -> Vec<String> {
        let tags = Tags::read(next.sql, text.begin, text.end);
        rule.key.iter().map(|part| own_part(part, next.settings, &tags)).collect()
    }
}

/// Where others have an answer, and the versions among all, when they have been read.
type Elsewhere = (Arc<Entry>, Option<Arc<[u64]>>);

/// What to look for.
struct Wanted {
    key: Key,
    stamp: Stamp,
    tags: Arc<[Tag]>,
    waits: Waits,
    term: Term,
    write: WriteMode,
    bytes_max: usize,
    shared: Option<Elsewhere>,
    planned: Planned,
    shape: Arc<Shape>,
}

fn key(
    client: &Client,
    next: &Recall<'_>,
    text: &Known,
    (policy, seed): (u64, u64),
    (own, scratch): (&[String], &mut Vec<u8>),
) -> Key {
    let (types, bound, described, rows_max) = match &next.batch {
        None => (&[][..], &[][..], Described::Query, 0),
        Some(RecalledBatch { types, bound, describes, rows_max, .. }) => {
            let described = match describes {
                Describes::Nothing => Described::Nothing,
                Describes::Portal => Described::Portal,
                Describes::Statement => Described::Statement,
            };
            (*types, *bound, described, *rows_max)
        }
    };
    let parts = KeyParts {
        database: &client.database,
        user: &client.user,
        policy,
        settings: Some(next.settings),
        text: next.sql.get(text.begin..text.end).unwrap_or(next.sql),
        types,
        bound,
        described,
        rows_max,
        own,
    };
    Key::build(&parts, seed, scratch)
}

/// A part of a key that a policy adds: nobody's value is another's, and no value is none.
fn own_part(part: &KeyPart, settings: &Settings, tags: &Tags<'_>) -> String {
    let (name, value) = match part {
        // It is a part of every key.
        KeyPart::User => ("user", None),
        KeyPart::Application => ("application", settings.get("application_name")),
        KeyPart::EndUser => ("end-user", tags.get(END_USER_TAG).or(settings.own(END_USER_SETTING))),
        KeyPart::Tag(tag) => (&**tag, tags.get(tag)),
    };
    value.map_or_else(|| format!("{name}-"), |value| format!("{name}={value}"))
}

/// What a server would have said, but for its ReadyForQuery.
fn write(batch: Option<&RecalledBatch<'_>>, answer: &Answer, out: &mut Vec<u8>) {
    match batch {
        Some(batch) => batch.write(answer.description(), answer.rows(), out),
        None => {
            out.extend_from_slice(answer.description());
            out.extend_from_slice(answer.rows());
        }
    }
}
