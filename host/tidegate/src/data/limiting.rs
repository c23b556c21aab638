//! A worker's part of limits: asks the policy whom a statement counts for, and the process's counters whether there is room.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidegate_core::plan::Charge;
use tidegate_core::plan::{Admission, Execution as Statement};
use tidegate_core::policy::builtin::{self, Who};
use tidegate_core::policy::limit::{Bucket, Decision, TransactionState};
use tidegate_core::policy::plans::{PlanCounts, Plans};
use tidegate_core::policy::template::Values;
use tidegate_core::policy::{LimitPlan, Scope, Slot};
use tidegate_core::refusal::Refusal;
use tidegate_core::statement::{Known, StringSyntax, Tags, TextEncoding, TextSettings};
use tidegate_limiter::{Keyed, Limiter, Verdict};
use tidegate_policy::bindings::since_v0_1::types::{Identity, SessionFlags};
use tidegate_policy::{AnswerSource, Asker, Execution, Question, tags_told};

use super::clients::Client;
use super::routing::Routing;
use crate::config::Rates;
use crate::view::{END_USER_TAG, TAGS_TOLD};

/// Keeps keys of plans for one shape apart from those for every shape.
const THIS_SHAPE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834;

/// What the workers share: the counters.
#[derive(Debug)]
pub struct Limits {
    rates: Rates,
    limiter: Mutex<Limiter>,
    began: Instant,
    /// Two, for 128 bits: nobody finds a name that counts as another's.
    hashers: [RandomState; 2],
}

impl Limits {
    pub fn new(rates: Rates) -> Arc<Self> {
        Arc::new(Self {
            rates,
            limiter: Mutex::default(),
            began: Instant::now(),
            hashers: [RandomState::new(), RandomState::new()],
        })
    }

    fn hash(&self, value: impl Hash) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(&value));
        u128::from(high) << 64 | u128::from(low)
    }

    fn admit(
        &self,
        buckets: &[Keyed<'_>],
        charge: Charge,
        transaction: TransactionState,
        waited: Duration,
    ) -> Verdict {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        // Read with the lock held, so that it never goes backwards.
        limiter.admit(buckets, charge, transaction, waited, self.began.elapsed())
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
}

/// A plan, and by which generation.
#[derive(Clone, Debug)]
struct Planned {
    plan: Arc<LimitPlan>,
    planner: Option<u64>,
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
        Self { shared, plans: Plans::default(), unlimited: None, text: String::new() }
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
        let values = Values {
            user: subject.user,
            database: subject.database,
            application: subject.application,
            end_user: subject.end_user.unwrap_or_default(),
            tags: subject.tags,
            parameters: &[],
        };
        let key = |bucket: &'a Bucket| {
            self.text.clear();
            bucket.key.render(&values, &mut self.text);
            (bucket, self.shared.hash((&bucket.name, bucket.window, &self.text)))
        };
        buckets.iter().map(key).collect()
    }
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
        let now = Instant::now();
        let waited = client.limited_since.get().map_or(Duration::ZERO, |since| now - since);
        match self.limiting.shared.admit(&keyed, charge, next.transaction, waited) {
            Verdict::Later(after) => {
                client.limited_since.set(client.limited_since.get().or(Some(now)));
                Admission::Later(after)
            }
            Verdict::Pass => {
                client.limited_since.set(None);
                Admission::Pass
            }
            Verdict::Over(over) => {
                client.limited_since.set(None);
                Admission::Refuse(Box::new(over.refusal()))
            }
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
