//! A worker's knowledge of where statements may run: the newest view, whose turn it is, what texts are, what policies plan.

mod chosen; // where one read goes

use std::hash::{Hash as _, Hasher as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHasher;
use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::plan::{
    Admission, Execution as Statement, Next, ProcessOwner, Ran, Recall, Recalled, Router, Text,
};
use tidegate_core::policy::limit::TransactionState;
use tidegate_core::policy::plans::Plans;
use tidegate_core::policy::route::{Decision, Fallback, Safety};
use tidegate_core::policy::{RoutePlan, RouteTarget, Slot};
use tidegate_core::refusal::Refusal;
use tidegate_core::route::{Choice, ReadFacts, ReplicaView, Rotation, choose, judge_read};
use tidegate_core::statement::{
    Known, ShapeCache, Signal, StringSyntax, Tags, TextEncoding, TextSettings,
};
use tidegate_grammar::PostgresGrammar;
use tidegate_policy::bindings::since_v0_1::types::SessionFlags;
use tidegate_policy::{AnswerSource, Asker, Execution, Outcome, Question, Reader, Registry};
use tidegate_pool::Priority;
use tokio::sync::watch;

pub use chosen::{Among, Chosen};
use chosen::{among, otherwise};

use super::caching::Caching;
use super::clients::Client;
use super::limiting::{Limiting, Limits};
use super::recording::{Noted, Recorder, Recording, Seen};
use super::worker::Message;
use crate::observe::stats::{PlanSlot, WorkerStats};
use crate::results::Results;
use crate::view::{END_USER_TAG, TAGS_TOLD, View, Views};

/// One worker's.
pub struct Routing {
    views: watch::Receiver<Arc<View>>,
    wishes: Arc<Views>,
    pub(super) view: Arc<View>,
    rotation: Rotation,
    weights: Vec<u32>,
    /// The replicas as a plan allows them, while one is chosen.
    allowed: Vec<ReplicaView>,
    pub(super) shapes: ShapeCache<PostgresGrammar>,
    pub(super) policies: Arc<Registry>,
    pub(super) reader: Reader,
    plans: Plans<u128, Planned>,
    /// What the policy says of the replicas for the read that was judged last.
    wanted: Wanted,
    pub(super) limiting: Limiting,
    pub caching: Caching,
    pub recorder: Recorder,
}

/// A plan, and by which generation.
#[derive(Clone, Debug)]
struct Planned {
    plan: Arc<RoutePlan>,
    planner: Option<u64>,
}

/// Replicas that a policy accepts for a read.
#[derive(Clone, Debug, Default)]
enum Wanted {
    #[default]
    Any,
    Rule(Arc<RoutePlan>),
    One(usize),
}

impl Routing {
    /// `seed` is the process's, for fingerprints.
    pub fn new(
        wishes: Arc<Views>,
        policies: Arc<Registry>,
        limits: Arc<Limits>,
        recording: Arc<Recording>,
        results: Arc<Results>,
        seed: u128,
    ) -> Self {
        let views = wishes.subscribe();
        let view = views.borrow().clone();
        Self {
            views,
            wishes,
            view,
            rotation: Rotation::default(),
            weights: Vec::new(),
            allowed: Vec::new(),
            shapes: ShapeCache::new(PostgresGrammar, seed, SHAPE_CACHE_BYTES_MAX),
            reader: policies.reader(),
            policies,
            plans: Plans::default(),
            wanted: Wanted::Any,
            limiting: Limiting::new(limits),
            caching: Caching::new(results),
            recorder: Recorder::new(recording),
        }
    }

    /// Which replica the read that was judged last may use, and what becomes of it if that one does not take it.
    pub fn choose(&mut self, facts: &ReadFacts, now: Instant) -> Chosen {
        self.refresh();
        let wanted = std::mem::take(&mut self.wanted);
        let (otherwise, among) = match &wanted {
            Wanted::Rule(plan) => (otherwise(plan), among(plan)),
            Wanted::Any => (Fallback::Primary, Among::All),
            Wanted::One(_) => (Fallback::Primary, Among::Some),
        };
        Chosen { choice: self.choose_among(&wanted, facts, now), otherwise, among }
    }

    fn choose_among(&mut self, wanted: &Wanted, facts: &ReadFacts, now: Instant) -> Choice {
        if let Wanted::Any = wanted {
            return choose(&self.view.replicas, facts, &mut self.rotation, &mut self.weights);
        }
        let mut allowed = std::mem::take(&mut self.allowed);
        allowed.clear();
        for (index, replica) in self.view.replicas.iter().enumerate() {
            let usable = replica.usable && self.accepts(wanted, index, replica, now);
            allowed.push(ReplicaView { usable, ..*replica });
        }
        let choice = choose(&allowed, facts, &mut self.rotation, &mut self.weights);
        self.allowed = allowed;
        choice
    }

    /// The replica whose turn it is among the `count` of the configuration: of those that answer and do not lag too much, if
    /// there are any. `None`: there are none at all.
    pub fn in_turn(&mut self, turn: usize, count: usize) -> Option<usize> {
        self.refresh();
        let usable =
            |index: &usize| self.view.replicas.get(*index).is_some_and(|replica| replica.usable);
        let good: Vec<usize> = (0..count).filter(usable).collect();
        match turn.checked_rem(good.len()) {
            Some(place) => good.get(place).copied(),
            None => turn.checked_rem(count),
        }
    }

    fn accepts(&self, wanted: &Wanted, index: usize, replica: &ReplicaView, now: Instant) -> bool {
        match wanted {
            Wanted::Any => true,
            Wanted::One(one) => *one == index,
            Wanted::Rule(plan) => {
                let RouteTarget::Replicas(rule) = &plan.target else { return true };
                let lag = replica.fresh_as_of.map(|as_of| now.saturating_duration_since(as_of));
                let in_time = lag.is_some_and(|lag| lag <= rule.lag_max.unwrap_or(Duration::MAX));
                in_time && self.view.names.get(index).is_some_and(|name| rule.allows(name))
            }
        }
    }

    /// The router for a client's texts. `schema` counts the changes of schemas that have passed.
    pub fn of<'a>(&'a mut self, client: &'a Client, schema: u64) -> SessionRouter<'a> {
        self.refresh();
        SessionRouter { routing: self, client, schema }
    }

    /// What a session asked has been answered: a candidate that it followed, or did not, is judged by such.
    pub fn handle_end(&mut self, session: u64, outcome: Outcome, time: Duration) {
        for slot in [Slot::Routing, Slot::Limiting] {
            let asker = Asker { view: self.reader.view(), session };
            self.policies.handle_statement(slot, asker, outcome, time);
        }
    }

    /// What is planned depends on roles, which are not known yet.
    pub(super) fn want_roles(&self) {
        self.wishes.want_roles();
    }

    /// Tells what became of texts and questions so far.
    pub fn tell(&self, stats: &WorkerStats) {
        let shapes = self.shapes.counts();
        stats.shapes_found.set(shapes.hits);
        stats.shapes_made.set(shapes.misses);
        stats.shapes_evicted.set(shapes.evictions);
        let limiting = self.limiting.plan_counts();
        for (slot, plans) in
            [(PlanSlot::Routing, self.plans.counts()), (PlanSlot::Limiting, limiting)]
        {
            stats.plans_found.set(slot, plans.found);
            stats.plans_made.set(slot, plans.made);
        }
    }

    fn refresh(&mut self) {
        // An atomic read, unless there is something new.
        if self.views.has_changed().unwrap_or(false) {
            self.view = self.views.borrow_and_update().clone();
        }
    }

    /// What the policy plans for a text: asked once for each shape with its tags.
    fn plan(&mut self, sql: &[u8], text: &Known, session: u64) -> Planned {
        let tags = Tags::read(sql, text.begin, text.end);
        let told: Vec<(&str, &str)> =
            tags.iter().filter(|(key, _)| TAGS_TOLD.contains(key)).collect();
        let key = plan_key(text, &told);
        let view = self.reader.view();
        let stamp = view.slot(Slot::Routing).stamp(session);
        if let Some(known) = self.plans.get(key, stamp) {
            return known.clone();
        }
        let replicas: Vec<&str> = self.view.names.iter().map(|name| &**name).collect();
        let asker = Asker { view, session };
        let question = Question { shape: &text.shape, tags: &told };
        let answer = self.policies.plan_route(asker, question, &replicas);
        let planner = match answer.source {
            AnswerSource::Plugin(number) => Some(number),
            AnswerSource::BuiltIn | AnswerSource::StandIn => None,
        };
        let planned = Planned { plan: Arc::new(answer.plan), planner };
        // What stood in for a plugin that failed stands for this statement alone.
        if answer.source != AnswerSource::StandIn {
            self.plans.put(key, stamp, planned.clone());
        }
        planned
    }

    /// A text as a record has it, with the plan that is known for it. Nobody is asked.
    fn seen(&mut self, text: Text<'_>, session: u64) -> Rc<Seen> {
        let settings = match text.strings {
            Some(strings) => TextSettings { strings, encoding: TextEncoding::Utf8 },
            None => TextSettings { encoding: TextEncoding::Unsafe, ..TextSettings::default() },
        };
        let known = self.shapes.shape_of(text.sql, settings, Instant::now());
        let tags = Tags::read(text.sql, known.begin, known.end);
        let told: Vec<(&str, &str)> =
            tags.iter().filter(|(key, _)| TAGS_TOLD.contains(key)).collect();
        let stamp = self.reader.view().slot(Slot::Routing).stamp(session);
        let planned = self.plans.get(plan_key(&known, &told), stamp);
        Rc::new(Seen {
            shape: known.shape,
            tags: told.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            plan: planned.map(|planned| (planned.plan.clone(), planned.planner)),
        })
    }

    /// Whether the policy has a text of this session wait before others.
    pub(super) fn planned_priority(
        &mut self,
        sql: &[u8],
        strings: StringSyntax,
        session: u64,
    ) -> Priority {
        if !self.ranks(sql, session) {
            return Priority::Normal;
        }
        let text = self.shape(sql, strings);
        self.plan(sql, &text, session).plan.priority
    }

    /// The policy that comes with Tidegate goes by a tag alone, as long as nobody tells it more.
    fn ranks(&mut self, sql: &[u8], session: u64) -> bool {
        sql.contains(&b'*') || self.has_own_policy(session)
    }

    /// Has the operator put a policy in place of the one that comes with Tidegate, or set it up?
    fn has_own_policy(&mut self, session: u64) -> bool {
        self.reader.view().slot(Slot::Routing).is_own(session)
    }

    fn rejection(&mut self, reason: &str, session: u64) -> Refusal {
        let view = self.reader.view();
        let by = view.slot(Slot::Routing).in_charge(session).map(|generation| generation.info());
        let detail = by.map_or_else(String::new, |info| {
            format!("Rejected by the routing policy {} {}.", info.name, info.version)
        });
        Refusal::error("42501", reason.to_owned())
            .detail(detail)
            .hint("Ask whoever runs Tidegate why: tidegate plugin list routing.")
    }

    /// Follows a plan for a statement that is proven to read. Says whether a replica may run it.
    fn follow(
        &mut self,
        planned: &Planned,
        text: &Known,
        next: &Next<'_>,
        client: &Client,
    ) -> bool {
        self.wanted = match planned.plan.bind(Safety::ReadsOnly) {
            RouteTarget::BuiltIn => Wanted::Any,
            RouteTarget::Replicas(_) => Wanted::Rule(planned.plan.clone()),
            RouteTarget::Primary | RouteTarget::Reject(_) => return false,
            RouteTarget::Ask(id) => {
                let Some(planner) = planned.planner else { return true };
                let mut session = self.flags(client, TransactionState::Idle);
                if (planned.plan.priority, next.priority) != (Priority::Normal, Priority::Normal) {
                    session |= SessionFlags::CRITICAL;
                }
                let tags = Tags::read(next.sql, text.begin, text.end);
                let tagged =
                    tags.iter().find(|(key, _)| *key == END_USER_TAG).map(|(_, user)| user);
                let execution = Execution {
                    id: *id,
                    session,
                    fingerprint_low: text.shape.fingerprint.0 as u64,
                    end_user_hash: self.limiting.end_user_hash(tagged.or(next.end_user)),
                };
                match self.policies.decide_route(self.reader.view(), planner, execution) {
                    Decision::BuiltIn | Decision::AnyReplica => Wanted::Any,
                    Decision::Replica(index) => Wanted::One(index),
                    Decision::Primary => return false,
                }
            }
        };
        true
    }
}

pub(super) fn plan_key(text: &Known, told: &[(&str, &str)]) -> u128 {
    text.shape.fingerprint.0 ^ u128::from(digest(told))
}

fn digest(told: &[(&str, &str)]) -> u64 {
    if told.is_empty() {
        return 0;
    }
    let mut hasher = FxHasher::default();
    told.hash(&mut hasher);
    hasher.finish()
}

/// For a read that a policy allows on replicas only.
pub fn no_replica() -> Refusal {
    Refusal::error("57P03", "no replica can run this read, and the routing policy keeps it from the primary")
        .hint("Try again: a replica may lag, or be gone for now. `SET tidegate.route = 'primary'` does without the policy.")
}

/// A worker's knowledge, for one session.
pub struct SessionRouter<'a> {
    routing: &'a mut Routing,
    client: &'a Client,
    schema: u64,
}

impl Router for SessionRouter<'_> {
    fn splits(&self) -> bool {
        !self.routing.view.replicas.is_empty()
    }

    fn keeps(&self) -> bool {
        self.routing.caching.results.round() != 0
    }

    fn recall(&mut self, next: &Recall<'_>, out: &mut Vec<u8>) -> Recalled {
        self.routing.recall(self.client, next, out)
    }

    fn watches(&self) -> bool {
        self.routing.recorder.is_on() || self.keeps()
    }

    fn watch(&mut self, ran: Ran<'_>) {
        self.routing.heed_written(self.client, &ran);
        if !self.routing.recorder.is_on() {
            return;
        }
        let session = self.client.id.0;
        let noted = match ran {
            Ran::Bound(text) => Noted::Bound(self.routing.seen(text, session)),
            Ran::Query(number, text) => {
                Noted::Query(number, text.map(|text| self.routing.seen(text, session)))
            }
            Ran::Execute(number) => Noted::Execute(number),
            Ran::Call(number) => Noted::Query(number, None),
            Ran::BoundUnknown | Ran::Completed(_) | Ran::Ready { .. } => return,
            Ran::Failed { first, until, sqlstate } => {
                let sqlstate = sqlstate.try_into().unwrap_or(*b"XX000");
                Noted::Failed { first, until, sqlstate }
            }
        };
        self.routing.recorder.note(noted);
    }

    fn reads(&mut self, sql: &[u8], strings: StringSyntax) -> bool {
        self.proven(sql, strings).is_some()
    }

    fn wants_replica(&mut self, next: &Next<'_>) -> bool {
        let Some(text) = self.proven(next.sql, next.strings) else { return false };
        let planned = self.routing.plan(next.sql, &text, self.client.id.0);
        self.routing.follow(&planned, &text, next, self.client)
    }

    fn ranks(&mut self, sql: &[u8]) -> bool {
        self.routing.ranks(sql, self.client.id.0)
    }

    fn priority(&mut self, next: &Next<'_>) -> Priority {
        self.routing.planned_priority(next.sql, next.strings, self.client.id.0)
    }

    fn owner(&self, number: i32, role: Option<&str>) -> ProcessOwner {
        match self.client.shared().keys.holder_of(number) {
            None => ProcessOwner::Nobody,
            Some((_, user)) if *user == *role.unwrap_or(&self.client.user) => ProcessOwner::Same,
            Some(_) => ProcessOwner::Another,
        }
    }

    fn signal(&mut self, number: i32, signal: Signal) {
        let shared = self.client.shared();
        let Some((holder, _)) = shared.keys.holder_of(number) else { return };
        let Some(sender) = shared.senders.get(holder.worker) else { return };
        if sender.try_send(Message::Signal(holder.client, signal)).is_err() {
            tracing::warn!(number, "a signal to a client is lost: its worker is behind");
        }
    }

    fn guards(&mut self) -> bool {
        // Nobody has asked for what the worker reads itself.
        if self.client.again.is_some() {
            return false;
        }
        let session = self.client.id.0;
        self.routing.has_limits(session) || self.routing.has_own_policy(session)
    }

    fn admit(&mut self, next: &Statement<'_>) -> Admission {
        let session = self.client.id.0;
        // The one that comes with Tidegate rejects nothing.
        if self.routing.has_own_policy(session)
            && !next.sql.is_empty()
            && let Some(rejected) = self.reject(next)
        {
            return rejected;
        }
        if !self.routing.has_limits(session) {
            return Admission::Pass;
        }
        self.routing.admit(self.client, next)
    }
}

impl SessionRouter<'_> {
    /// What the routing policy rejects, or allows on replicas only while there are none.
    fn reject(&mut self, next: &Statement<'_>) -> Option<Admission> {
        let session = self.client.id.0;
        let strings = next.strings.unwrap_or_default();
        let text = self.routing.shape(next.sql, strings);
        let planned = self.routing.plan(next.sql, &text, session);
        match &planned.plan.target {
            RouteTarget::Reject(reason) => {
                Some(Admission::Forbid(Box::new(self.routing.rejection(reason, session))))
            }
            RouteTarget::Replicas(_) if otherwise(&planned.plan) == Fallback::Refuse => {
                // Nobody reads a catalogue where there is no choice: the text alone tells.
                let needs_one = !self.splits() && text.shape.is_plain_read();
                needs_one.then(|| Admission::Refuse(Box::new(no_replica())))
            }
            _ => None,
        }
    }

    /// The text's shape, if it is proven to be nothing but a read.
    fn proven(&mut self, sql: &[u8], strings: StringSyntax) -> Option<Known> {
        let routing = &mut *self.routing;
        let known = routing.view.catalogues.get(&*self.client.database)?;
        if known.schema != self.schema {
            // A change has passed that this catalogue does not show yet.
            return None;
        }
        // The session asks about texts of other encodings only where these make no difference.
        let settings = TextSettings { strings, encoding: TextEncoding::Utf8 };
        let text = routing.shapes.shape_of(sql, settings, Instant::now());
        judge_read(&text.shape, &known.catalogue).is_ok().then_some(text)
    }
}
