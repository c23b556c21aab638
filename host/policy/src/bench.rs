//! What a plugin costs in the sandbox: to load, to start, to ask, and in memory.

use crate::ask::{Execution, Question};
use crate::bindings::since_v0_1::types::{PluginInfo, SessionFlags};
use crate::component;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::fault::Fault;
use crate::generation::{Generation, Source};
use crate::granted::Granted;
use crate::plan::Subject;
use crate::samples;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::limits::{BENCH_CALLS_MAX, BENCH_STARTS_MAX, BENCH_TIME_MAX};
use tidegate_core::policy::{AskId, Slot};

/// What was measured.
#[derive(Clone, Debug)]
pub struct Bench {
    pub info: PluginInfo,
    /// Of its file.
    pub bytes: usize,
    /// Checks, translation to machine code, and finding of imports.
    pub compile: Duration,
    /// Of one instance, after all calls.
    pub memory_bytes: usize,
    pub calls: Vec<Measured>,
    pub plans: Plans,
    /// What went wrong first; how often stands in `calls`.
    pub fault: Option<Fault>,
}

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub what: What,
    pub timing: Timing,
    /// Calls without a usable answer; they are among those that were timed.
    pub faults: usize,
}

/// The kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An instance is made and takes its settings.
    Start,
    /// Once for each shape of statements.
    Plan,
    /// For each execution of a plan that asks.
    Decide,
    /// The cluster's state handed over, then a decision.
    PushAndDecide,
    /// Two replicas, at each health check.
    Weigh,
    /// About the statements, in the background.
    Advise,
}

impl What {
    /// In a word, for programs.
    pub fn name(self) -> &'static str {
        match self {
            What::Start => "start",
            What::Plan => "plan",
            What::Decide => "decide",
            What::PushAndDecide => "push_and_decide",
            What::Weigh => "weigh",
            What::Advise => "advise",
        }
    }
}

/// How many of the statements' plans ask again at each execution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plans {
    pub fixed: usize,
    pub asking: usize,
}

/// How long calls took, without the clock's own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    pub calls: usize,
    pub median: Duration,
    /// The time that 99 of 100 calls stay within.
    pub p99: Duration,
}

impl Timing {
    /// Times calls one by one, `calls_max` of them unless [`BENCH_TIME_MAX`] is over before.
    pub fn of(calls_max: usize, mut call: impl FnMut()) -> Timing {
        let clock = sampled(BENCH_CALLS_MAX, || {}).median;
        let raw = sampled(calls_max, &mut call);
        let without = |time: Duration| time.saturating_sub(clock);
        Timing { calls: raw.calls, median: without(raw.median), p99: without(raw.p99) }
    }
}

fn sampled(calls_max: usize, mut call: impl FnMut()) -> Timing {
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < calls_max.max(1) && (times.is_empty() || began.elapsed() < BENCH_TIME_MAX) {
        let before = Instant::now();
        call();
        times.push(before.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| {
        times.get((times.len() * percent / 100).min(times.len() - 1)).copied().unwrap_or_default()
    };
    Timing { calls: times.len(), median: at(50), p99: at(99) }
}

/// Loads a plugin and times every kind of call that the host makes, about these statements.
///
/// # Errors
/// It does not load.
pub fn bench(
    engine: &Arc<Engine>,
    granted: &Arc<Granted>,
    source: Source<'_>,
    questions: &[Question<'_>],
) -> Result<Bench, LoadError> {
    let began = Instant::now();
    let checked = component::check(engine, source.slot, source.bytes)?;
    let compile = began.elapsed();
    let generation = Generation::begin(engine, granted, checked, source.settings)?;
    let mut bench = Bench {
        info: generation.info().clone(),
        bytes: generation.bytes(),
        compile,
        memory_bytes: 0,
        calls: Vec::new(),
        plans: Plans::default(),
        fault: None,
    };
    bench.measure(What::Start, BENCH_STARTS_MAX, || generation.start().map(drop));
    if source.slot == Slot::Advising {
        let batch = samples::slow(questions);
        bench.measure(What::Advise, BENCH_CALLS_MAX, || generation.advise(&batch).map(drop));
    } else {
        bench.plans_of(&generation, questions);
    }
    if source.slot == Slot::Routing {
        let replicas = samples::REPLICAS.map(samples::replica);
        bench.measure(What::Weigh, BENCH_CALLS_MAX, || generation.weigh(&replicas).map(drop));
    }
    bench.memory_bytes = generation.memory_bytes();
    Ok(bench)
}

impl Bench {
    fn plans_of(&mut self, generation: &Generation, questions: &[Question<'_>]) {
        let identity = samples::somebody();
        let subject =
            |question| Subject { question, identity: &identity, replicas: &samples::REPLICAS };
        let mut asked = Vec::new();
        for plan in questions.iter().filter_map(|question| generation.plan(subject(*question)).ok())
        {
            match plan.asks() {
                Some(id) => asked.push(id),
                None => self.plans.fixed += 1,
            }
        }
        self.plans.asking = asked.len();
        let mut turn = questions.iter().cycle();
        self.measure(What::Plan, BENCH_CALLS_MAX, || match turn.next() {
            Some(question) => generation.plan(subject(*question)).map(drop),
            None => Ok(()),
        });
        if let Some(id) = asked.first() {
            self.decisions_of(generation, *id);
        }
    }

    fn decisions_of(&mut self, generation: &Generation, id: AskId) {
        let execution =
            Execution { id, session: SessionFlags::empty(), fingerprint_low: 7, end_user_hash: 0 };
        let replicas = samples::REPLICAS.map(samples::replica);
        generation.cluster_changed(Some("primary"), &replicas);
        self.measure(What::Decide, BENCH_CALLS_MAX, || generation.decide(execution).map(drop));
        if generation.slot() == Slot::Routing {
            self.measure(What::PushAndDecide, BENCH_CALLS_MAX, || {
                generation.cluster_changed(Some("primary"), &replicas);
                generation.decide(execution).map(drop)
            });
        }
    }

    fn measure(&mut self, what: What, most: usize, mut call: impl FnMut() -> Result<(), Fault>) {
        let (mut faults, mut first) = (0, None);
        let timing = Timing::of(most, || {
            if let Err(fault) = call() {
                faults += 1;
                first.get_or_insert(fault);
            }
        });
        self.calls.push(Measured { what, timing, faults });
        self.fault = self.fault.take().or(first);
    }
}
