//! What policies cost: a plan, a decision, an answer that is kept, a swap.

use crate::micro::nanos_per_call;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use tidegate_core::policy::plans::Plans;
use tidegate_core::policy::route::{ReplicaMetrics, RoutePlan, RouteTarget};
use tidegate_core::policy::{Safety, Slot, builtin};
use tidegate_policy::bindings::since_v0_1::types::SessionFlags;
use tidegate_policy::{
    Asker, Change, Engine, Execution, Question, Registry, Settings, Silence, Sink, Source,
    embedded, samples,
};

/// Runs the benchmarks of policies and prints a line for each.
pub fn run() -> Result<(), Box<dyn Error>> {
    let engine = Arc::new(Engine::new(Settings::default())?);
    let sink: Arc<dyn Sink> = Arc::new(Silence);
    let registry = Registry::new(engine, 1, &sink);
    let slot = Slot::Routing;
    let source = Source { slot, bytes: embedded(slot).bytes, settings: "" };
    let pair = [registry.load(source)?, registry.load(source)?];
    let activate =
        |index: usize| registry.change(&[(slot, Change::Activate(Arc::clone(&pair[index % 2])))]);
    activate(0)?;
    let number = pair[0].number();
    let view = registry.view();
    let shape = samples::ordinary();
    let asker = Asker { view: &view, session: 1 };
    let question = Question { shape: &shape, tags: &[] };

    line("built-in answer", || {
        black_box(builtin::route(black_box(Safety::ReadsOnly)));
    });
    let mut reader = registry.reader();
    let mut plans: Plans<u128, RoutePlan> = Plans::default();
    for other in 0..5_000 {
        plans.put(other * 0x9e37_79b9_7f4a_7c15, 0, RoutePlan::default());
    }
    let stamp = view.slot(slot).stamp(1);
    plans.put(shape.fingerprint.0, stamp, registry.plan_route(asker, question, &[]).plan);
    line("static plan, kept", || {
        let stamp = reader.view().slot(slot).stamp(black_box(1));
        let plan = plans.get(black_box(shape.fingerprint.0), stamp);
        let target = plan.map(|plan| plan.bind(Safety::ReadsOnly));
        black_box(matches!(target, Some(RouteTarget::Replicas(_))));
    });
    line("plan, whole shape", || {
        black_box(registry.plan_route(asker, black_box(question), &[]));
    });
    let replicas: Vec<ReplicaMetrics> = ["a", "b", "c"].map(samples::replica).into();
    registry.cluster_changed(Some("p"), &replicas);
    let execution =
        Execution { id: 1, session: SessionFlags::empty(), fingerprint_low: 7, end_user_hash: 9 };
    line("decide", || {
        black_box(registry.decide_route(&view, number, black_box(execution)));
    });
    line("push of a cluster state, decide", || {
        registry.cluster_changed(Some("p"), black_box(&replicas));
        black_box(registry.decide_route(&view, number, execution));
    });
    line("weigh three replicas", || {
        black_box(registry.weigh(&view, black_box(&replicas)));
    });
    let mut turn = 0;
    let mut failed = false;
    line("swap", || {
        turn += 1;
        failed |= activate(turn).is_err();
    });
    if failed { Err("a swap failed".into()) } else { Ok(()) }
}

fn line(name: &str, call: impl FnMut()) {
    println!("policy  {name:<40} {:>8.1} ns", nanos_per_call(call));
}
