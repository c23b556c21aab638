//! The registry while it is asked: whole changes, shadows, canaries, what outlives a swap.

use super::{HOSTILE_ROUTING, asker, question, registry, replica, select, update};
use crate::{
    AnswerSource, Asker, Change, ChangeError, Generation, Outcome, PLAN_TIMES, Registry, Source,
    embedded,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tidegate_core::limits::POLICY_DIFFERENCES_MAX;
use tidegate_core::policy::canary::{Share, Verdict};
use tidegate_core::policy::route::{RoutePlan, RouteTarget};
use tidegate_core::policy::seat::{Mode, SeatError};
use tidegate_core::policy::{CachePlan, Slot};
use tidegate_core::statement::Shape;

fn routing(registry: &Registry, plan: &str) -> Arc<Generation> {
    let settings = format!(r#"{{"plan": "{plan}"}}"#);
    let source = Source { slot: Slot::Routing, bytes: HOSTILE_ROUTING, settings: &settings };
    registry.load(source).unwrap()
}

fn default(registry: &Registry, slot: Slot, settings: &str) -> Arc<Generation> {
    registry.load(Source { slot, bytes: embedded(slot).bytes, settings }).unwrap()
}

fn all() -> Share {
    Share::percent(100).unwrap()
}

#[test]
fn an_empty_registry_answers_by_itself() {
    let (registry, _) = registry();
    let view = registry.view();
    let (orders, asker) = (select("orders"), asker(&view));
    let route = registry.plan_route(asker, question(&orders), &[]);
    assert_eq!((route.plan, route.source), (RoutePlan::default(), AnswerSource::BuiltIn));
    assert_eq!(registry.plan_cache(asker, question(&orders)).plan, CachePlan::Bypass);
    assert_eq!(registry.plan_invalidate(asker, question(&orders)).plan, None);
}

#[test]
fn a_change_is_whole_or_nothing() {
    let (registry, notes) = registry();
    let router = default(&registry, Slot::Routing, "");
    let cache = default(&registry, Slot::Caching, "");
    let wrong = registry.change(&[
        (Slot::Routing, Change::Activate(Arc::clone(&router))),
        (Slot::Limiting, Change::Activate(Arc::clone(&cache))),
    ]);
    let generation = cache.number();
    assert_eq!(wrong, Err(ChangeError::OtherSlot { slot: Slot::Limiting, generation }));
    assert!(registry.view().slot(Slot::Routing).active().is_none());
    let promote = registry.change(&[(Slot::Routing, Change::Promote)]);
    let error = SeatError::NoCandidate;
    assert_eq!(promote, Err(ChangeError::Seat { slot: Slot::Routing, error }));
    registry
        .change(&[
            (Slot::Routing, Change::Activate(router)),
            (Slot::Caching, Change::Activate(cache)),
        ])
        .unwrap();
    assert_eq!(notes.with("Swapped").len(), 2);
}

#[test]
fn whoever_asks_sees_both_slots_of_a_change_or_neither() {
    let (registry, _) = registry();
    let both = |settings| {
        let router = default(&registry, Slot::Routing, settings);
        [router, default(&registry, Slot::Caching, "")]
    };
    let pairs = [both(""), both(r#"{"lag_ms_max": 1}"#)];
    let activate = |[router, cache]: &[Arc<Generation>; 2]| {
        let parts = [
            (Slot::Routing, Change::Activate(Arc::clone(router))),
            (Slot::Caching, Change::Activate(Arc::clone(cache))),
        ];
        registry.change(&parts).unwrap();
    };
    activate(&pairs[0]);
    let partner = |number: u64| {
        let pair = pairs.iter().find(|[router, _]| router.number() == number).unwrap();
        pair[1].number()
    };
    let done = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let askers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut reader, orders) = (registry.reader(), select("orders"));
                    let mut asked = 0u32;
                    while asked < 200 || !done.load(Ordering::Relaxed) {
                        let view = Arc::clone(reader.view());
                        let asker = asker(&view);
                        let route = registry.plan_route(asker, question(&orders), &[]).source;
                        let cache = registry.plan_cache(asker, question(&orders)).source;
                        let AnswerSource::Plugin(router) = route else { panic!("{route:?}") };
                        assert_eq!(cache, AnswerSource::Plugin(partner(router)));
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for turn in 0..200 {
            activate(&pairs[turn % 2]);
        }
        done.store(true, Ordering::Relaxed);
        askers.into_iter().map(|asker| asker.join().unwrap()).sum::<u32>()
    });
    assert!(asked >= 400);
    let faults: u64 = pairs.iter().flatten().map(|generation| generation.faults_total()).sum();
    assert_eq!(faults, 0);
}

#[test]
fn old_generations_are_freed() {
    let (registry, _) = registry();
    let mut reader = registry.reader();
    let mut old = Vec::new();
    for _ in 0..5 {
        let generation = default(&registry, Slot::Routing, "");
        old.push(Arc::downgrade(&generation));
        registry.change(&[(Slot::Routing, Change::Activate(generation))]).unwrap();
        assert!(reader.view().slot(Slot::Routing).active().is_some());
    }
    let alive = old.iter().filter(|generation| generation.strong_count() > 0).count();
    assert_eq!(alive, 2, "the active one and the previous one");
}

#[test]
fn what_a_policy_keeps_outlives_a_swap() {
    let (registry, _) = registry();
    let mut labels = Vec::new();
    for _ in 0..3 {
        let generation = routing(&registry, "count");
        registry.change(&[(Slot::Routing, Change::Activate(generation))]).unwrap();
        let view = registry.view();
        let plan = registry.plan_route(asker(&view), question(&select("orders")), &[]).plan;
        labels.push(plan.label.unwrap().to_string());
    }
    assert_eq!(labels, ["1", "2", "3"]);
}

#[test]
fn random_numbers_repeat_with_the_seed() {
    let numbers = || {
        let (registry, _) = registry();
        let plugin = routing(&registry, "random");
        let orders = select("orders");
        [(); 3].map(|()| plugin.plan_route(question(&orders), &[]).unwrap().label)
    };
    let first = numbers();
    assert_eq!(first, numbers());
    assert!(first[0] != first[1] && first[1] != first[2]);
}

#[test]
fn a_shadow_is_asked_and_compared_and_answers_nobody() {
    let (registry, notes) = registry();
    let (active, shadow) = (routing(&registry, ""), routing(&registry, "every other"));
    let parts = [
        (Slot::Routing, Change::Activate(Arc::clone(&active))),
        (Slot::Routing, Change::TryOut(Arc::clone(&shadow), Mode::Shadow(all()))),
    ];
    registry.change(&parts).unwrap();
    let view = registry.view();
    let orders = select("orders");
    for _ in 0..8 {
        let answer = registry.plan_route(asker(&view), question(&orders), &[]);
        assert_eq!(answer.source, AnswerSource::Plugin(active.number()));
    }
    let trial = view.slot(Slot::Routing).trial().unwrap();
    assert_eq!((trial.compared(), trial.different()), (8, 4));
    assert_eq!((active.faults_total(), shadow.faults_total()), (0, 4));
    let first = &trial.differences()[0];
    assert!(first.active.contains("replicas") && first.candidate.starts_with("trap"), "{first:?}");
    registry.change(&[(Slot::Routing, Change::Promote)]).unwrap();
    assert_eq!(registry.view().slot(Slot::Routing).active().unwrap().number(), shadow.number());
    assert_eq!(notes.with("Swapped").len(), 2);
}

#[test]
fn what_comes_to_the_same_is_no_difference_and_one_difference_is_kept_once() {
    let (registry, _) = registry();
    let parts = [
        (Slot::Routing, Change::Activate(routing(&registry, ""))),
        (Slot::Routing, Change::TryOut(routing(&registry, "as tagged"), Mode::Shadow(all()))),
    ];
    registry.change(&parts).unwrap();
    let view = registry.view();
    let ask = |shape: &Shape| registry.plan_route(asker(&view), question(shape), &[]).plan;
    let read = ask(&select("orders"));
    assert!(matches!(read.target, RouteTarget::Replicas(_)), "{read:?}");
    let trial = view.slot(Slot::Routing).trial().unwrap();
    // Replicas, or as the host would: for a read that is the same, and for a write nobody's word counts.
    ask(&update("orders"));
    assert_eq!((trial.compared(), trial.different()), (2, 0), "{:?}", trial.differences());
    registry.change(&[(Slot::Routing, Change::Withdraw)]).unwrap();
    let primary =
        (Slot::Routing, Change::TryOut(routing(&registry, "primary"), Mode::Shadow(all())));
    registry.change(&[primary]).unwrap();
    let view = registry.view();
    let trial = view.slot(Slot::Routing).trial().unwrap();
    // As several workers ask, each for itself.
    for shape in [select("orders"), select("orders"), update("orders")] {
        registry.plan_route(asker(&view), question(&shape), &[]);
    }
    assert_eq!((trial.compared(), trial.different(), trial.differences().len()), (3, 2, 1));
}

#[test]
fn calls_for_shares_are_no_calls_for_plans() {
    let (registry, _) = registry();
    let router = default(&registry, Slot::Routing, "");
    let change = Change::Activate(Arc::clone(&router));
    registry.change(&[(Slot::Routing, change)]).unwrap();
    let view = registry.view();
    registry.plan_route(asker(&view), question(&select("orders")), &[]);
    for _ in 0..3 {
        registry.weigh(&view, &[replica("a", 1.0, 1.0)]);
    }
    assert_eq!((router.calls(), router.plans().0, router.weighings()), (4, 1, 3));
    assert!(router.plans_within()[PLAN_TIMES.len() - 1] <= 1, "nor in the histogram");
}

#[test]
fn the_first_hundred_differences_are_kept() {
    let (registry, _) = registry();
    let parts = [
        (Slot::Routing, Change::Activate(routing(&registry, ""))),
        (Slot::Routing, Change::TryOut(routing(&registry, "count"), Mode::Shadow(all()))),
    ];
    registry.change(&parts).unwrap();
    let (view, orders) = (registry.view(), select("orders"));
    for _ in 0..POLICY_DIFFERENCES_MAX + 20 {
        registry.plan_route(asker(&view), question(&orders), &[]);
    }
    let trial = view.slot(Slot::Routing).trial().unwrap();
    assert_eq!(trial.different(), POLICY_DIFFERENCES_MAX as u64 + 20);
    assert_eq!(trial.differences().len(), POLICY_DIFFERENCES_MAX);
    assert!(trial.differences()[0].candidate.contains("[1]"));
}

#[test]
fn a_canary_answers_its_share_and_is_given_up_when_statements_fare_worse() {
    let (registry, notes) = registry();
    let (active, canary) = (routing(&registry, ""), routing(&registry, "ask"));
    let share = Share::percent(30).unwrap();
    let parts = [
        (Slot::Routing, Change::Activate(Arc::clone(&active))),
        (Slot::Routing, Change::TryOut(Arc::clone(&canary), Mode::Canary(share))),
    ];
    registry.change(&parts).unwrap();
    let (view, orders) = (registry.view(), select("orders"));
    let stamp = |session| view.slot(Slot::Routing).stamp(session);
    let mut verdict = Verdict::Wait;
    for session in 0..2_000 {
        let asker = Asker { view: &view, session };
        let answer = registry.plan_route(asker, question(&orders), &[]);
        let is_canary = answer.source == AnswerSource::Plugin(canary.number());
        assert_eq!(is_canary, share.takes(session));
        assert_eq!(is_canary, answer.plan.target == RouteTarget::Ask(7));
        assert_eq!(is_canary, stamp(session) == canary.number());
        let outcome = if is_canary { Outcome::Error } else { Outcome::Success };
        let time = Duration::from_micros(300);
        verdict = registry.handle_statement(Slot::Routing, asker, outcome, time);
        if verdict != Verdict::Wait {
            break;
        }
    }
    assert!(matches!(verdict, Verdict::RollBack(_)), "{verdict:?}");
    let after = registry.view();
    assert!(after.slot(Slot::Routing).candidate().is_none());
    assert_eq!(after.slot(Slot::Routing).active().unwrap().number(), active.number());
    assert_eq!(notes.with("RolledBack").len(), 1);
}

#[test]
fn stamps_change_with_whoever_answers() {
    let (registry, _) = registry();
    let stamp = || registry.view().slot(Slot::Routing).stamp(1);
    let mut seen = vec![stamp()];
    for change in [
        Change::Activate(routing(&registry, "")),
        Change::Activate(routing(&registry, "ask")),
        Change::RollBack,
        Change::TryOut(routing(&registry, ""), Mode::Shadow(all())),
        Change::Withdraw,
        Change::Disable,
    ] {
        registry.change(&[(Slot::Routing, change)]).unwrap();
        assert!(!seen.contains(&stamp()));
        seen.push(stamp());
    }
}
