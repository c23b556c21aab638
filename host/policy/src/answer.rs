//! Questions to a slot: whoever is in charge answers, a shadow is compared, and the built-in answer stands in.

use crate::ask::{Execution, Question};
use crate::bindings::since_v0_1::index::Batch;
use crate::bindings::since_v0_1::types::Identity;
use crate::fault::Fault;
use crate::generation::Generation;
use crate::plan::Told;
use crate::registry::{Registry, SlotView, View};
use crate::trial::{Difference, Outcome, Side};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::policy::canary;
use tidegate_core::policy::faults::Verdict;
use tidegate_core::policy::index::Suggestion;
use tidegate_core::policy::limit::{self, LimitPlan};
use tidegate_core::policy::route::{self, RoutePlan};
use tidegate_core::policy::seat::Mode;
use tidegate_core::policy::{CachePlan, ReplicaMetrics, Slot, Template, Weight, builtin};

/// An answer, and how long it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<P> {
    pub plan: P,
    pub source: AnswerSource,
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerSource {
    /// Of the generation with this number. Stands while the slot's stamp does.
    Plugin(u64),
    /// The host's own, since there is no plugin. Stands while the slot's stamp does.
    BuiltIn,
    /// The host's own, since the plugin failed. Stands for this statement alone.
    StandIn,
}

/// Who asks, and in which view.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    pub view: &'a View,
    /// The session's number, which decides whether it belongs to a canary.
    pub session: u64,
}

impl Registry {
    /// Where a shape's statements run.
    pub fn plan_route(
        &self,
        asker: Asker<'_>,
        question: Question<'_>,
        replicas: &[&str],
    ) -> Answer<RoutePlan> {
        let ask = |generation: &Generation| generation.plan_route(question, replicas);
        self.answer(Slot::Routing, asker, Some(question), ask).or(RoutePlan::default)
    }

    /// The shares of replicas from now on.
    pub fn weigh(&self, view: &View, replicas: &[ReplicaMetrics]) -> Answer<Vec<Weight>> {
        let asker = Asker { view, session: 0 };
        let ask = |generation: &Generation| generation.weigh(replicas);
        self.answer(Slot::Routing, asker, None, ask).or(|| builtin::weigh(replicas))
    }

    /// Tells every routing plugin that may be asked.
    pub fn cluster_changed(&self, primary: Option<&str>, replicas: &[ReplicaMetrics]) {
        let view = self.view();
        let own = view.slot(Slot::Routing);
        let candidate = own.candidate().map(|(candidate, _)| candidate);
        for generation in own.active().into_iter().chain(candidate).chain(own.previous()) {
            generation.cluster_changed(primary, replicas);
        }
    }

    /// Whether and how a shape's results are kept.
    pub fn plan_cache(&self, asker: Asker<'_>, question: Question<'_>) -> Answer<CachePlan> {
        let ask = |generation: &Generation| generation.plan_cache(question);
        self.answer(Slot::Caching, asker, Some(question), ask).or(builtin::cache)
    }

    /// What a shape's writes invalidate, besides its tables. Without an answer: `None`, and then everything that a
    /// policy has tagged is as good as written.
    pub fn plan_invalidate(
        &self,
        asker: Asker<'_>,
        question: Question<'_>,
    ) -> Answer<Option<Vec<Template>>> {
        let ask = |generation: &Generation| generation.plan_invalidate(question).map(Some);
        self.answer(Slot::Caching, asker, Some(question), ask).or(|| None)
    }

    /// How somebody's statements of a shape are limited; `built_in` is the configuration's own answer.
    pub fn plan_limit(
        &self,
        asker: Asker<'_>,
        question: Question<'_>,
        identity: &Identity,
        built_in: impl FnOnce() -> LimitPlan,
    ) -> Answer<LimitPlan> {
        let ask = |generation: &Generation| generation.plan_limit(question, identity);
        self.answer(Slot::Limiting, asker, Some(question), ask).or(built_in)
    }

    /// Which indexes slow statements miss. Takes up to a second: not for the data path.
    pub fn advise(&self, asker: Asker<'_>, batch: &Batch) -> Answer<Vec<Suggestion>> {
        self.answer(Slot::Advising, asker, None, |generation| generation.advise(batch)).or(Vec::new)
    }

    /// Where one execution runs, by the generation that planned it.
    #[inline]
    pub fn decide_route(&self, view: &View, planner: u64, execution: Execution) -> route::Decision {
        let decide = |generation: &Generation| generation.decide_route(execution);
        self.decide(Slot::Routing, view, planner, decide).unwrap_or(route::Decision::BuiltIn)
    }

    /// How long one execution's result is kept; `None` for not at all.
    pub fn decide_cache(
        &self,
        view: &View,
        planner: u64,
        execution: Execution,
    ) -> Option<Duration> {
        let decide = |generation: &Generation| generation.decide_cache(execution);
        self.decide(Slot::Caching, view, planner, decide).unwrap_or(None)
    }

    /// What one execution costs.
    pub fn decide_limit(&self, view: &View, planner: u64, execution: Execution) -> limit::Decision {
        let decide = |generation: &Generation| generation.decide_limit(execution);
        let decided = self.decide(Slot::Limiting, view, planner, decide);
        decided.unwrap_or(limit::Decision::Factor(1))
    }

    /// Tells how a statement ended that followed a slot's answer, while a canary runs; gives the canary up when the
    /// numbers say so.
    pub fn handle_statement(
        &self,
        slot: Slot,
        asker: Asker<'_>,
        outcome: Outcome,
        time: Duration,
    ) -> canary::Verdict {
        let own = asker.view.slot(slot);
        let (Some((candidate, Mode::Canary(share))), Some(trial)) = (own.candidate(), own.trial())
        else {
            return canary::Verdict::Wait;
        };
        let side = if share.takes(asker.session) { Side::Candidate } else { Side::Active };
        trial.handle_statement(side, outcome, time);
        let verdict = trial.verdict(candidate.faults_total());
        if let canary::Verdict::RollBack(reason) = verdict {
            self.give_up(slot, candidate.number(), reason);
        }
        verdict
    }

    fn answer<P: Told>(
        &self,
        slot: Slot,
        asker: Asker<'_>,
        question: Option<Question<'_>>,
        ask: impl Fn(&Generation) -> Result<P, Fault>,
    ) -> Asked<P> {
        let own = asker.view.slot(slot);
        let Some(generation) = in_charge(own, asker.session) else {
            return Asked::Nobody;
        };
        match ask(generation) {
            Ok(plan) => {
                if let Some(question) = question {
                    self.compare(own, slot, asker.session, question, (&plan, &ask));
                }
                Asked::Answered(plan, generation.number())
            }
            Err(fault) => {
                self.handle_fault(slot, generation, &fault);
                Asked::Failed
            }
        }
    }

    /// Asks a shadow the same, and notes what it would have done otherwise.
    fn compare<P: Told>(
        &self,
        own: &SlotView,
        slot: Slot,
        session: u64,
        question: Question<'_>,
        (plan, ask): (&P, &impl Fn(&Generation) -> Result<P, Fault>),
    ) {
        let (Some((shadow, Mode::Shadow(share))), Some(trial)) = (own.candidate(), own.trial())
        else {
            return;
        };
        if !share.takes(session) || shadow.is_quarantined() {
            return;
        }
        match ask(shadow) {
            Ok(other) => trial.compare(plan.comes_to(&other, question.shape), || Difference {
                question: question.shape.normalized.clone(),
                active: plan.told(),
                candidate: other.told(),
            }),
            Err(fault) => {
                trial.compare(false, || Difference {
                    question: question.shape.normalized.clone(),
                    active: plan.told(),
                    candidate: fault.to_string().into(),
                });
                self.handle_fault(slot, shadow, &fault);
            }
        }
    }

    #[inline]
    fn decide<T>(
        &self,
        slot: Slot,
        view: &View,
        planner: u64,
        decide: impl FnOnce(&Generation) -> Result<T, Fault>,
    ) -> Option<T> {
        let generation = view.slot(slot).generation(planner)?;
        if generation.is_quarantined() {
            return None;
        }
        match decide(generation) {
            Ok(decision) => Some(decision),
            Err(fault) => {
                self.handle_fault(slot, generation, &fault);
                None
            }
        }
    }

    fn handle_fault(&self, slot: Slot, generation: &Generation, fault: &Fault) {
        if generation.handle_fault(fault, Instant::now()) == Verdict::Quarantine {
            self.quarantine(slot, generation.number(), fault.kind);
        }
    }
}

/// The canary for its sessions, else the active version; nobody in quarantine.
fn in_charge(own: &SlotView, session: u64) -> Option<&Arc<Generation>> {
    let canary = match own.candidate() {
        Some((candidate, Mode::Canary(share))) if share.takes(session) => Some(candidate),
        _ => None,
    };
    let good = |generation: &&Arc<Generation>| !generation.is_quarantined();
    canary.filter(good).or_else(|| own.active().filter(good))
}

impl SlotView {
    /// Who answers a session.
    pub fn in_charge(&self, session: u64) -> Option<&Arc<Generation>> {
        in_charge(self, session)
    }

    /// Is a session's answer that of a plugin of the operator's, or of settings of theirs?
    #[inline]
    pub fn is_own(&self, session: u64) -> bool {
        in_charge(self, session).is_some_and(|generation| !generation.is_untouched())
    }
}

enum Asked<P> {
    Answered(P, u64),
    Nobody,
    Failed,
}

impl<P> Asked<P> {
    fn or(self, built_in: impl FnOnce() -> P) -> Answer<P> {
        match self {
            Asked::Answered(plan, number) => Answer { plan, source: AnswerSource::Plugin(number) },
            Asked::Nobody => Answer { plan: built_in(), source: AnswerSource::BuiltIn },
            Asked::Failed => Answer { plan: built_in(), source: AnswerSource::StandIn },
        }
    }
}
