//! What tools for who writes plugins are told: what a plugin costs, and what any slot's plan is.

use super::{HOSTILE_CACHING, HOSTILE_ROUTING, engine, load, question, select, update};
use crate::bindings::since_v0_1::types::SessionFlags;
use crate::{
    Bench, Decision, Execution, Granted, Plan, Silence, Source, Subject, What, bench, embedded,
    samples,
};
use std::sync::Arc;
use tidegate_core::policy::Slot;
use tidegate_core::policy::faults::FaultKind;

fn measured(slot: Slot, bytes: &[u8], settings: &str) -> Bench {
    let granted = Arc::new(Granted::new(slot, 1, Arc::new(Silence)));
    let (read, write) = (select("t"), update("t"));
    let source = Source { slot, bytes, settings };
    bench(engine(), &granted, source, &[question(&read), question(&write)]).unwrap()
}

#[test]
fn a_plan_that_asks_has_its_decisions_timed() {
    let bench = measured(Slot::Routing, HOSTILE_ROUTING, r#"{"plan": "ask"}"#);
    let kinds: Vec<What> = bench.calls.iter().map(|call| call.what).collect();
    assert_eq!(kinds, [What::Start, What::Plan, What::Decide, What::PushAndDecide, What::Weigh]);
    assert_eq!((bench.plans.fixed, bench.plans.asking), (0, 2));
    assert!(bench.memory_bytes >= 64 << 10, "{bench:?}");
    assert!(bench.calls.iter().all(|call| call.faults == 0), "{bench:?}");
    assert!(bench.calls.iter().all(|call| call.timing.calls > 0), "{bench:?}");
}

#[test]
fn calls_that_fail_are_counted_and_the_first_fault_is_kept() {
    let bench = measured(Slot::Routing, HOSTILE_ROUTING, r#"{"plan": "unknown replica"}"#);
    let plans = bench.calls.iter().find(|call| call.what == What::Plan).unwrap();
    assert_eq!(plans.faults, plans.timing.calls);
    assert_eq!((bench.plans.fixed, bench.plans.asking), (0, 0));
    assert_eq!(bench.fault.unwrap().kind, FaultKind::Answer);
}

#[test]
fn a_plan_of_any_slot_is_asked_for_told_and_named_by_its_first_word() {
    let somebody = samples::somebody();
    let subject = |shape| Subject {
        question: question(shape),
        identity: &somebody,
        replicas: &samples::REPLICAS,
    };
    let read = select("t");
    for (slot, settings, expected) in [
        (Slot::Routing, "", "replicas, lag at most 5000 ms"),
        (Slot::Caching, "", "bypass"),
        (
            Slot::Caching,
            r#"{"rules": [{"table": "t", "ttl_ms": 5, "row": "id", "warm": true}]}"#,
            "store 5 ms, Fresh, tags t:row:{1}, t:rows, at most 1048576 bytes, kept warm",
        ),
    ] {
        let generation = load(slot, embedded(slot).bytes, settings).unwrap();
        let plan = generation.plan(subject(&read)).unwrap();
        assert_eq!(plan.to_string(), expected);
        assert!(Plan::words(slot).contains(&plan.word()), "{plan}");
        assert_eq!(plan.asks(), None);
    }
    let asks = load(Slot::Routing, HOSTILE_ROUTING, r#"{"plan": "ask"}"#).unwrap();
    let plan = asks.plan(subject(&read)).unwrap();
    assert_eq!((plan.to_string().as_str(), plan.asks()), ("ask (7)", Some(7)));
    let execution =
        Execution { id: 7, session: SessionFlags::empty(), fingerprint_low: 1, end_user_hash: 0 };
    asks.cluster_changed(Some("primary"), &samples::REPLICAS.map(samples::replica));
    let decision = asks.decide(execution).unwrap();
    assert!(matches!(decision, Decision::Route(_)) && decision.to_string() == "replica 0");
    let advising = load(Slot::Advising, embedded(Slot::Advising).bytes, "").unwrap();
    assert!(advising.plan(subject(&read)).is_err() && advising.decide(execution).is_err());
    let senseless = load(Slot::Caching, HOSTILE_CACHING, r#"{"ttl_ms": 0}"#).unwrap();
    assert_eq!(senseless.plan(subject(&read)).unwrap_err().kind, FaultKind::Answer);
}

#[test]
fn the_hosts_own_answers_are_plans_too() {
    for slot in Slot::ALL {
        let plan = Plan::built_in(slot);
        assert_eq!(plan.is_none(), Plan::words(slot).is_empty());
        assert!(plan.is_none_or(|plan| Plan::words(slot).contains(&plan.word())));
    }
}
