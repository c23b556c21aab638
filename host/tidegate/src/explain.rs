//! What Tidegate makes of a statement: how it reads it, where it may run and why, and what each policy plans for it.
//!
//! The statement does not run. The policies are asked as for a client's statement, and count it among their calls.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tidegate_cache::{Deny, is_timeless, judge};
use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::policy::LimitPlan;
use tidegate_core::policy::index::Suggestion;
use tidegate_core::route::judge_read;
use tidegate_core::statement::{Known, ShapeCache, Tags, TextSettings};
use tidegate_grammar::PostgresGrammar;
use tidegate_policy::bindings::since_v0_1::index::{Batch, TableStatistics};
use tidegate_policy::bindings::since_v0_1::types::Identity;
use tidegate_policy::{AnswerSource, Asker, Plan, Question, Registry, samples, tags_told};

use crate::trace::ShapeLine;
use crate::view::{END_USER_TAG, TAGS_TOLD, View};

/// Asks for nobody's session: a canary answers it as it would a session of this number.
const SESSION: u64 = 0;

/// A statement, and who would run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuestion {
    pub sql: String,
    /// The primary URL's unless given; the same for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Unless the text has a tag `user_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_user: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub database: String,
    pub user: String,
    pub end_user: Option<String>,
    pub shape: ShapeLine,
    pub read: Proof,
    /// Whether its answers may be kept, if a policy wants it.
    pub cache: Proof,
    pub plans: Vec<PlanTold>,
    pub replicas: Vec<ReplicaTold>,
}

/// Whether something is proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub proven: bool,
    /// What stands against it: a label of `tidegate_core::route::NotARead`, a rule and label of `tidegate_cache::Deny`, or that the catalogue is not known.
    pub why_not: Option<String>,
}

/// What a slot plans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanTold {
    pub slot: String,
    pub plan: String,
    /// `built-in`, `stand-in` (the plugin failed), or the plugin's generation.
    pub by: String,
}

/// A replica, as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaTold {
    pub name: String,
    pub usable: bool,
    /// Of reads, beside the other replicas' shares.
    pub share: u32,
    pub lag_ms: Option<u64>,
}

/// Statistics of the tables that a statement names, or why there are none.
pub type Statistics = Result<Vec<TableStatistics>, String>;

/// Where the answer comes from.
pub struct Sources<'a> {
    pub view: &'a View,
    pub policies: &'a Registry,
    pub statistics: Statistics,
    /// What the configuration says of somebody's rate.
    pub rate: &'a dyn Fn(&Identity) -> LimitPlan,
}

/// Reads a text. `seed` is the process's, so that fingerprints are those of a record.
pub fn read(sql: &str, seed: u128) -> Known {
    let mut shapes = ShapeCache::new(PostgresGrammar, seed, SHAPE_CACHE_BYTES_MAX);
    shapes.shape_of(sql.as_bytes(), TextSettings::default(), Instant::now())
}

/// Explains a statement for this database and user; `known` is what was read of its text.
pub fn explain(
    sources: &Sources<'_>,
    question: &ExplainQuestion,
    known: &Known,
    (database, user): (&str, &str),
) -> Explanation {
    let now = Instant::now();
    let sql = question.sql.as_bytes();
    let tags = Tags::read(sql, known.begin, known.end);
    let told: Vec<(&str, &str)> = tags.iter().filter(|(key, _)| TAGS_TOLD.contains(key)).collect();
    let end_user = tags.get(END_USER_TAG).or(question.end_user.as_deref());
    let identity = Identity {
        user: user.to_owned(),
        database: database.to_owned(),
        application: question.application.clone().unwrap_or_default(),
        end_user: end_user.map(str::to_owned),
        roles: sources.view.roles.as_ref().map_or(Vec::new(), |known| known.roles.told(user)),
        tags: tags_told(&told),
    };
    let proof = match sources.view.catalogues.get(database) {
        None => Err("catalogue not read: no replicas, or nobody has used the database".to_owned()),
        Some(known_names) => {
            judge_read(&known.shape, &known_names.catalogue).map_err(|why| why.label().to_owned())
        }
    };
    let kept = may_be_kept(sources.view, known, sql, database);
    let asked = Question { shape: &known.shape, tags: &told };
    Explanation {
        database: database.to_owned(),
        user: user.to_owned(),
        end_user: end_user.map(str::to_owned),
        shape: ShapeLine::from(&*known.shape),
        read: Proof { proven: proof.is_ok(), why_not: proof.err() },
        cache: Proof { proven: kept.is_ok(), why_not: kept.err() },
        plans: plans(sources, asked, &identity),
        replicas: replicas(sources.view, now),
    }
}

/// Whether an answer to this very text may be kept; its parameters are looked at when they are there.
fn may_be_kept(view: &View, known: &Known, sql: &[u8], database: &str) -> Result<(), String> {
    let told = |why: Deny| format!("{} {}", why.rule(), why.label());
    let tables = view.catalogues.get(database).and_then(|names| names.tables.as_ref());
    let Some(tables) = tables else {
        return Err(
            "catalogue not read: nothing is kept, or nobody has used the database".to_owned()
        );
    };
    if !is_timeless(sql.get(known.begin..known.end).unwrap_or(sql), b"") {
        return Err(told(Deny::DateWord));
    }
    let names = tables.tables.as_ref().ok_or_else(|| told(Deny::Unknown))?;
    judge(&known.shape, &database.into(), names).map(drop).map_err(told)
}

fn plans(sources: &Sources<'_>, question: Question<'_>, identity: &Identity) -> Vec<PlanTold> {
    let Sources { view, policies, rate, .. } = sources;
    let slots = policies.view();
    let asker = Asker { view: &slots, session: SESSION };
    let names: Vec<&str> = view.names.iter().map(|name| &**name).collect();
    let told = |slot: &str, plan: Plan, source| PlanTold {
        slot: slot.to_owned(),
        plan: plan.to_string(),
        by: by(source),
    };
    let route = policies.plan_route(asker, question, &names);
    let cache = policies.plan_cache(asker, question);
    // Without an answer everything that a policy has tagged is as good as written, which the plan's own source tells.
    let invalidated = policies.plan_invalidate(asker, question).plan.unwrap_or_default();
    let limit = policies.plan_limit(asker, question, identity, || rate(identity));
    let mut plans = vec![
        told("routing", Plan::Route(route.plan), route.source),
        told("caching", Plan::Cache(cache.plan, invalidated), cache.source),
        told("limiting", Plan::Limit(limit.plan), limit.source),
    ];
    plans.extend(advice(sources, asker, question));
    plans
}

/// Indexes that the statement would miss if it were slow, one each.
fn advice(sources: &Sources<'_>, asker: Asker<'_>, question: Question<'_>) -> Vec<PlanTold> {
    let told = |plan, by| PlanTold { slot: "advising".to_owned(), plan, by };
    let tables = match &sources.statistics {
        Ok(tables) if tables.is_empty() => {
            return vec![told("nothing: no table is known".to_owned(), by(AnswerSource::BuiltIn))];
        }
        Ok(tables) => tables.clone(),
        Err(why) => return vec![told(format!("not asked: {why}"), by(AnswerSource::BuiltIn))],
    };
    let batch = Batch { shapes: vec![samples::slow_shape(question)], tables };
    let answer = sources.policies.advise(asker, &batch);
    let by = by(answer.source);
    if answer.plan.is_empty() {
        return vec![told("nothing".to_owned(), by)];
    }
    let index = |own: &Suggestion| told(format!("{}: {}", own.sql(), own.reason), by.clone());
    answer.plan.iter().map(index).collect()
}

fn by(source: AnswerSource) -> String {
    match source {
        AnswerSource::Plugin(generation) => format!("plugin, generation {generation}"),
        AnswerSource::BuiltIn => "built-in".to_owned(),
        AnswerSource::StandIn => "stand-in: the plugin failed".to_owned(),
    }
}

fn replicas(view: &View, now: Instant) -> Vec<ReplicaTold> {
    let lag = |as_of: Instant| {
        u64::try_from(now.saturating_duration_since(as_of).as_millis()).unwrap_or(u64::MAX)
    };
    let told = view.replicas.iter().zip(view.names.iter()).map(|(replica, name)| ReplicaTold {
        name: name.to_string(),
        usable: replica.usable,
        share: replica.weight,
        lag_ms: replica.fresh_as_of.map(lag),
    });
    told.collect()
}

impl Explanation {
    /// For people.
    pub fn text(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let _ = writeln!(out, "as read    {}", self.shape.normalized);
        let end_user = self.end_user.as_ref().map(|user| format!(", end user {user}"));
        let _ = writeln!(
            out,
            "for        user {}, database {}{}",
            self.user,
            self.database,
            end_user.unwrap_or_default()
        );
        let proof = match &self.read.why_not {
            None => "proven to read only: a replica may run it".to_owned(),
            Some(why) => format!("stays on the primary ({why})"),
        };
        let _ = writeln!(out, "proof      {proof}");
        let kept = match &self.cache.why_not {
            None => "may be kept, if the policy wants it".to_owned(),
            Some(why) => format!("not kept ({why})"),
        };
        let _ = writeln!(out, "answer     {kept}");
        for PlanTold { slot, plan, by } in &self.plans {
            let _ = writeln!(out, "{slot:<10} {plan}  [{by}]");
        }
        for ReplicaTold { name, usable, share, lag_ms } in &self.replicas {
            let state = if *usable { "usable" } else { "not usable" };
            let lag = lag_ms.map_or("unknown".to_owned(), |ms| format!("{ms} ms"));
            let _ = writeln!(out, "{name:<10} {state}, share {share}, lag at most {lag}");
        }
        out
    }
}
