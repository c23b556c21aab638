//! A worker's part of limits: asks the policy whom a statement counts for, and the process's counters whether there is room.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::digest::{Context, SHA256};
use tidegate_core::plan::Charge;
use tidegate_core::plan::{Admission, Execution as Statement};
use tidegate_core::policy::builtin::{self, Who};
use tidegate_core::policy::limit::{Bucket, Decision, TransactionState};
use tidegate_core::policy::plans::{PlanCounts, Plans};
use tidegate_core::policy::template::Values;
use tidegate_core::policy::{LimitPlan, Scope, Slot};
use tidegate_core::refusal::Refusal;
use tidegate_core::statement::{Known, StringSyntax, Tags, TextEncoding, TextSettings};
use tidegate_limiter::{Execution as Counted, Keyed, Name, Verdict};
use tidegate_policy::bindings::since_v0_1::types::{Identity, SessionFlags};
use tidegate_policy::{AnswerSource, Asker, Execution, Question, tags_told};

use super::clients::Client;
use super::routing::Routing;
use crate::config::Rates;
use crate::rates::{Asking, Counters};
use crate::view::{END_USER_TAG, TAGS_TOLD};

/// Keeps keys of plans for one shape apart from those for every shape.
const THIS_SHAPE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834;

/// What the workers share: the counters.
#[derive(Debug)]
pub struct Limits {
    rates: Rates,
    pub counters: Arc<Counters>,
    /// Two, for 128 bits: nobody finds a name that counts as another's.
    hashers: [RandomState; 2],
}

impl Limits {
    pub fn new(rates: Rates, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { rates, counters, hashers: [RandomState::new(), RandomState::new()] })
    }

    fn hash(&self, value: impl Hash) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(&value));
        u128::from(high) << 64 | u128::from(low)
    }

    /// What the configuration says of somebody.
    pub fn built_in(&self, identity: &Identity) -> LimitPlan {
        let who = match &identity.end_user {
            _ if is_any_of(identity, &self.rates.administrators) => Who::Administrator,
            Some(_) => Who::EndUser,
            None => Who::Application,
        };
        // The templates are its own, and can be read.
        builtin::limit(&self.rates.limits, who).unwrap_or_default()
    }
}

/// One worker's.
pub struct Limiting {
    shared: Arc<Limits>,
    plans: Plans<u128, Planned>,
    /// The stamp under which nobody is limited.
    unlimited: Option<u64>,
    /// A bucket's key while it is made.
    text: String,
    /// What the statement that was asked about last waits for.
    asking: Option<Asking>,
}

/// A plan, and by which generation.
#[derive(Clone, Debug)]
struct Planned {
    plan: Arc<LimitPlan>,
    planner: Option<u64>,
}

/// Since when a client's next statement waits, and for what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// For a limit to have room.
    room: Option<Instant>,
    /// For those who count together to say whether it has.
    answer: Option<Instant>,
}

impl Waits {
    fn statement(self, charge: Charge, transaction: TransactionState, now: Instant) -> Counted {
        let time = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| now - since);
        Counted { charge, transaction, waited: time(self.room), asked: time(self.answer) }
    }
}

/// Who runs a statement, and what its text says.
struct Subject<'a> {
    user: &'a str,
    database: &'a str,
    application: &'a str,
    end_user: Option<&'a str>,
    tags: &'a [(&'a str, &'a str)],
    known: Option<&'a Known>,
    sql: &'a [u8],
    strings: StringSyntax,
    session: u64,
}

impl Limiting {
    pub fn new(shared: Arc<Limits>) -> Self {
        let plans = Plans::default();
        Self { shared, plans, unlimited: None, text: String::new(), asking: None }
    }

    /// The statement that was asked about last waits from now on: for this besides, if it does.
    pub(super) fn take_asking(&mut self, client: &Client) -> Option<Asking> {
        let asking = self.asking.take()?;
        let waits = client.limited.get();
        // Since the first of its questions: that is how long it may wait for all of them.
        client
            .limited
            .set(Waits { answer: waits.answer.or_else(|| Some(Instant::now())), ..waits });
        Some(asking)
    }

    /// 0 for nobody.
    pub(super) fn end_user_hash(&self, end_user: Option<&str>) -> u64 {
        end_user.map_or(0, |user| self.shared.hash(user) as u64)
    }

    pub(super) fn plan_counts(&self) -> PlanCounts {
        self.plans.counts()
    }

    /// Hashes of what the buckets count.
    fn keyed<'a>(&mut self, buckets: &'a [Bucket], subject: &Subject<'_>) -> Vec<Keyed<'a>> {
        let values = subject.values();
        let key = |bucket: &'a Bucket| {
            self.text.clear();
            bucket.key.render(&values, &mut self.text);
            (bucket, self.shared.hash((&bucket.name, bucket.window, &self.text)))
        };
        buckets.iter().map(key).collect()
    }

    /// Charges all buckets, or none of them.
    fn charge(
        &mut self,
        keyed: &[Keyed<'_>],
        subject: &Subject<'_>,
        statement: &Counted,
    ) -> Verdict {
        let text = &mut self.text;
        let mut name = |number: usize| {
            text.clear();
            let (bucket, _) = keyed[number];
            bucket.key.render(&subject.values(), text);
            shared_name(bucket, text)
        };
        let (verdict, asking) = self.shared.counters.admit(keyed, statement, &mut name);
        self.asking = asking;
        verdict
    }
}

impl Subject<'_> {
    fn values(&self) -> Values<'_> {
        Values {
            user: self.user,
            database: self.database,
            application: self.application,
            end_user: self.end_user.unwrap_or_default(),
            tags: self.tags,
            parameters: &[],
        }
    }
}

/// What a bucket is called among all processes: nobody finds a name that counts as another's.
fn shared_name(bucket: &Bucket, text: &str) -> Name {
    let mut context = Context::new(&SHA256);
    context.update(&bucket.window.as_nanos().to_be_bytes());
    context.update(&bucket.name.len().to_be_bytes());
    context.update(bucket.name.as_bytes());
    context.update(text.as_bytes());
    let digest = context.finish();
    let mut name = [0; 16];
    name.copy_from_slice(&digest.as_ref()[..16]);
    Name(name)
}

impl Routing {
    /// Is anybody limited at all?
    pub(super) fn has_limits(&mut self, session: u64) -> bool {
        let stamp = self.reader.view().slot(Slot::Limiting).stamp(session);
        self.limiting.unlimited != Some(stamp)
    }

    /// May the statement run, as far as limits go?
    pub(super) fn admit(&mut self, client: &Client, next: &Statement<'_>) -> Admission {
        let strings = next.strings.unwrap_or_default();
        // Where there is no comment there are no tags, and then the text need not be read.
        let known = next.sql.contains(&b'*').then(|| self.shape(next.sql, strings));
        let tags = known.as_ref().map(|known| Tags::read(next.sql, known.begin, known.end));
        let tags: Vec<(&str, &str)> = tags.iter().flat_map(Tags::iter).collect();
        let tagged = tags.iter().find(|(key, _)| *key == END_USER_TAG).map(|(_, user)| *user);
        let subject = Subject {
            user: &client.user,
            database: &client.database,
            application: next.application,
            end_user: tagged.or(next.end_user),
            tags: &tags,
            known: known.as_ref(),
            sql: next.sql,
            strings,
            session: client.id.0,
        };
        let planned = self.plan_limit(&subject);
        let (buckets, asked) = match &*planned.plan {
            LimitPlan::Unlimited(_) => return Admission::Pass,
            LimitPlan::Buckets(buckets, _) => (buckets, None),
            LimitPlan::Ask(id, buckets, _) => (buckets, Some(*id)),
        };
        let charge = match (asked.zip(planned.planner), next.charge) {
            (Some((id, planner)), Charge::Statement { .. }) => {
                let shape = self.shape(next.sql, strings).shape;
                let execution = Execution {
                    id,
                    session: self.flags(client, next.transaction),
                    fingerprint_low: shape.fingerprint.0 as u64,
                    end_user_hash: self.limiting.end_user_hash(subject.end_user),
                };
                match self.policies.decide_limit(self.reader.view(), planner, execution) {
                    Decision::Factor(0) => return Admission::Pass,
                    Decision::Factor(factor) => Charge::Statement { factor },
                    Decision::Refuse if next.transaction == TransactionState::Idle => {
                        return Admission::Refuse(Box::new(refused_by_policy()));
                    }
                    Decision::Refuse => next.charge,
                }
            }
            _ => next.charge,
        };
        let keyed = self.limiting.keyed(buckets, &subject);
        let waits = client.limited.get();
        let now = Instant::now();
        let statement = waits.statement(charge, next.transaction, now);
        let verdict = self.limiting.charge(&keyed, &subject, &statement);
        client.limited.set(match verdict {
            // Whoever has waited for room may wait for an answer again.
            Verdict::Later(_) => Waits { room: waits.room.or(Some(now)), answer: None },
            Verdict::Asked(..) => waits,
            Verdict::Pass | Verdict::Over(_) => Waits::default(),
        });
        match verdict {
            Verdict::Later(after) | Verdict::Asked(_, after) => Admission::Later(after),
            Verdict::Pass => Admission::Pass,
            Verdict::Over(over) => Admission::Refuse(Box::new(over.refusal())),
        }
    }

    /// The plan for a statement: for everything that its identity runs, or for its shape.
    fn plan_limit(&mut self, subject: &Subject<'_>) -> Planned {
        let told: Vec<(&str, &str)> =
            subject.tags.iter().filter(|(key, _)| TAGS_TOLD.contains(key)).copied().collect();
        let Subject { user, database, application, end_user, .. } = *subject;
        let stamp = self.reader.view().slot(Slot::Limiting).stamp(subject.session);
        let roles_stamp = self.view.roles.as_ref().map(|known| known.stamp);
        let every =
            self.limiting.shared.hash((user, database, application, end_user, roles_stamp, &told));
        if let Some(planned) = self.limiting.plans.get(every, stamp) {
            return planned.clone();
        }
        let known = match subject.known {
            Some(known) => known.clone(),
            None => self.shape(subject.sql, subject.strings),
        };
        // Texts without a fingerprint have zero: their key is not that of every text.
        let this = every ^ known.shape.fingerprint.0 ^ THIS_SHAPE;
        if let Some(planned) = self.limiting.plans.get(this, stamp) {
            return planned.clone();
        }
        let identity = Identity {
            user: user.to_owned(),
            database: database.to_owned(),
            application: application.to_owned(),
            end_user: end_user.map(str::to_owned),
            roles: self.view.roles.as_ref().map_or(Vec::new(), |known| known.roles.told(user)),
            tags: tags_told(&told),
        };
        let asker = Asker { view: self.reader.view(), session: subject.session };
        let question = Question { shape: &known.shape, tags: &told };
        let shared = &self.limiting.shared;
        let built_in = || shared.built_in(&identity);
        let answer = self.policies.plan_limit(asker, question, &identity, built_in);
        let planner = match answer.source {
            AnswerSource::Plugin(number) => Some(number),
            AnswerSource::BuiltIn | AnswerSource::StandIn => None,
        };
        let planned = Planned { plan: Arc::new(answer.plan), planner };
        // What stood in for a plugin that failed stands for this statement alone.
        if answer.source == AnswerSource::StandIn {
            return planned;
        }
        match scope(&planned.plan) {
            // What is planned for some may depend on their roles: those are read now, and the plan is made anew.
            Scope::ThisShape | Scope::EveryShape if roles_stamp.is_none() => self.want_roles(),
            Scope::ThisShape => self.limiting.plans.put(this, stamp, planned.clone()),
            Scope::EveryShape => self.limiting.plans.put(every, stamp, planned.clone()),
            Scope::EveryIdentity => {
                if let LimitPlan::Unlimited(_) = *planned.plan {
                    self.limiting.unlimited = Some(stamp);
                }
                self.limiting.plans.put(every, stamp, planned.clone());
            }
        }
        planned
    }

    /// What policies are told of a session at each execution.
    pub(super) fn flags(&self, client: &Client, transaction: TransactionState) -> SessionFlags {
        let mut flags = SessionFlags::empty();
        if transaction == TransactionState::Open {
            flags |= SessionFlags::IN_TRANSACTION;
        }
        if !client.pins.get().is_empty() {
            flags |= SessionFlags::PINNED;
        }
        let administrators = &self.limiting.shared.rates.administrators;
        let is_one = administrators.iter().any(|name| **name == *client.user);
        let roles = self.view.roles.as_ref().map(|known| &known.roles);
        if is_one || roles.is_some_and(|roles| roles.is_any_of(&client.user, administrators)) {
            flags |= SessionFlags::ADMINISTRATOR;
        }
        flags
    }

    pub(super) fn shape(&mut self, sql: &[u8], strings: StringSyntax) -> Known {
        // A policy's question: where the encoding makes a difference, it may see another shape, and nothing breaks.
        let settings = TextSettings { strings, encoding: TextEncoding::Utf8 };
        self.shapes.shape_of(sql, settings, Instant::now())
    }
}

fn is_any_of(identity: &Identity, names: &[String]) -> bool {
    let mut own = std::iter::once(&identity.user).chain(&identity.roles);
    own.any(|name| names.contains(name))
}

fn scope(plan: &LimitPlan) -> Scope {
    match plan {
        LimitPlan::Unlimited(scope)
        | LimitPlan::Buckets(_, scope)
        | LimitPlan::Ask(_, _, scope) => *scope,
    }
}

fn refused_by_policy() -> Refusal {
    Refusal::error("53400", "refused by the limiting policy")
        .detail("The policy was asked about this execution and said no.")
        .hint("Ask whoever runs Tidegate which policy is in place: tidegate plugin list limiting.")
}
