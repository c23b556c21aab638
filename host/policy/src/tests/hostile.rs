//! Plugins that misbehave: each costs itself, and the host goes on.

use super::{
    HOSTILE_CACHING, HOSTILE_ROUTING, Notes, asker, load, load_with, question, registry, replica,
    select,
};
use crate::bindings::since_v0_1::types::SessionFlags;
use crate::{
    AnswerSource, Change, Engine, Execution, Generation, Granted, LoadError, PLAN_TIMES, Settings,
    Source, embedded,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_core::limits::{POLICY_FAULTS_MAX, POLICY_LOG_LINES_MAX};
use tidegate_core::policy::faults::FaultKind;
use tidegate_core::policy::route::{Decision, RoutePlan, RouteTarget};
use tidegate_core::policy::{CachePlan, Slot};

fn hostile(settings: &str) -> Generation {
    load(Slot::Routing, HOSTILE_ROUTING, settings).unwrap()
}

fn execution(id: u32) -> Execution {
    Execution { id, session: SessionFlags::empty(), fingerprint_low: 1, end_user_hash: 0 }
}

fn fault_of(how: &str) -> FaultKind {
    faults_of(&hostile(&format!(r#"{{"plan": "{how}"}}"#)))
}

fn faults_of(plugin: &Generation) -> FaultKind {
    let orders = select("orders");
    let first = plugin.plan_route(question(&orders), &["r1"]).unwrap_err();
    // The next call gets a new instance, which fails in the same way and not in another.
    let second = plugin.plan_route(question(&orders), &["r1"]).unwrap_err();
    assert_eq!(first.kind, second.kind, "{first} / {second}");
    first.kind
}

/// With so much time that what ends it is never the time: where many programs run at once, pages of memory or a deep stack
/// take longer than a plan may.
fn patient(how: &str) -> Generation {
    let settings = Settings { plan_time_max: Duration::from_secs(5), ..Settings::default() };
    let engine = Arc::new(Engine::new(settings).unwrap());
    let granted = Arc::new(Granted::new(Slot::Routing, 1, Arc::<Notes>::default()));
    let settings = &format!(r#"{{"plan": "{how}"}}"#);
    let source = Source { slot: Slot::Routing, bytes: HOSTILE_ROUTING, settings };
    Generation::load(&engine, &granted, source).unwrap()
}

#[test]
fn an_endless_loop_ends() {
    let begin = Instant::now();
    assert_eq!(fault_of("loop"), FaultKind::Deadline);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_rehearsal_that_fails_says_of_what_and_which_limit() {
    let words = |plugin: &Generation| plugin.rehearse().unwrap_err().to_string();
    let looped = words(&hostile(r#"{"plan": "loop"}"#));
    let asked = "asked about `SELECT a FROM t WHERE id = $1`: deadline, a call may take 5ms";
    assert!(looped.contains(asked) && looped.contains("plugins.plan_time_max"), "{looped}");
    let hog = words(&patient("memory"));
    assert!(hog.contains("memory, an instance may have 16777216 bytes"), "{hog}");
    let shares = words(&hostile(r#"{"weigh": "nobody"}"#));
    assert!(shares.contains("asked for the shares of replica-1 and replica-2: answer"), "{shares}");
    let panicked = words(&hostile(r#"{"plan": "panic"}"#));
    assert!(panicked.contains("trap") && !panicked.contains("as told"), "{panicked}");
}

/// A plugin may make Tidegate slower. It is no fault, so an operator has to see it.
#[test]
fn one_that_is_slow_within_its_time_answers_and_its_times_tell() {
    let plugin = patient("slow");
    let orders = select("orders");
    let before = plugin.plans_within();
    for _ in 0..=POLICY_FAULTS_MAX {
        assert!(plugin.plan_route(question(&orders), &["r1"]).is_ok());
    }
    assert_eq!((plugin.faults_total(), plugin.is_quarantined()), (0, false));
    let shorter = PLAN_TIMES.iter().position(|most| *most >= Duration::from_millis(2)).unwrap();
    assert_eq!(plugin.plans_within()[shorter - 1], before[shorter - 1], "none of less than 2 ms");
}

#[test]
fn a_deep_recursion_ends() {
    assert_eq!(faults_of(&patient("recurse")), FaultKind::Trap);
}

#[test]
fn a_memory_hog_is_stopped_as_one() {
    assert_eq!(faults_of(&patient("memory")), FaultKind::Memory);
}

#[test]
fn trap_118_a_panic_is_a_fault_and_its_words_are_logged() {
    let notes = Arc::<Notes>::default();
    let settings = r#"{"plan": "panic"}"#;
    let source = Source { slot: Slot::Routing, bytes: HOSTILE_ROUTING, settings };
    let plugin = load_with(Arc::clone(&notes), source).unwrap();
    let fault = plugin.plan_route(question(&select("orders")), &[]).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert_eq!(notes.with("as told").len(), 1);
}

#[test]
fn floods_of_host_calls_end() {
    assert_eq!(faults_of(&patient("log flood")), FaultKind::HostCalls);
    assert_eq!(faults_of(&patient("state flood")), FaultKind::HostCalls);
}

#[test]
fn a_log_flood_writes_few_lines() {
    let notes = Arc::<Notes>::default();
    let settings = r#"{"plan": "log flood"}"#;
    let source = Source { slot: Slot::Routing, bytes: HOSTILE_ROUTING, settings };
    let plugin = load_with(Arc::clone(&notes), source).unwrap();
    plugin.plan_route(question(&select("orders")), &[]).unwrap_err();
    assert_eq!(notes.with("look at me").len(), POLICY_LOG_LINES_MAX as usize);
}

#[test]
fn answers_that_make_no_sense_are_faults() {
    for how in ["unknown replica", "long label", "control characters"] {
        assert_eq!(fault_of(how), FaultKind::Answer, "{how}");
    }
    let replicas = [replica("r1", 1.0, 1.0)];
    for how in ["nan", "negative", "nothing for anybody", "somebody else"] {
        let plugin = hostile(&format!(r#"{{"plan": "{how}"}}"#));
        assert_eq!(plugin.weigh(&replicas).unwrap_err().kind, FaultKind::Answer, "{how}");
    }
}

#[test]
fn an_answer_of_megabytes_is_not_taken_over() {
    assert_eq!(faults_of(&patient("megabytes")), FaultKind::HostCalls);
}

#[test]
fn a_million_tags_are_a_fault() {
    let cached = |settings: &str| {
        let plugin = load(Slot::Caching, HOSTILE_CACHING, settings).unwrap();
        let plan = plugin.plan_cache(question(&select("orders")));
        let tags = plugin.plan_invalidate(question(&select("orders")));
        (plan.map_err(|fault| fault.kind), tags.map(|tags| tags.len()).map_err(|f| f.kind))
    };
    let (plan, tags) = cached(r#"{"tags": 2, "tag": "orders", "ttl_ms": 1000}"#);
    assert!(matches!(plan, Ok(CachePlan::Store(_))) && tags == Ok(2));
    let refused = |kind| (Err(kind), Err(kind));
    let many = cached(r#"{"tags": 1000, "tag": "t", "ttl_ms": 1000}"#);
    assert_eq!(many, refused(FaultKind::Answer));
    // 24 bytes each in the plugin: more than its memory, if its time is not over before.
    let (_, million) = cached(r#"{"tags": 1000000, "tag": "t", "ttl_ms": 1000}"#);
    assert!(matches!(million, Err(FaultKind::Memory | FaultKind::Deadline)), "{million:?}");
    assert_eq!(
        cached(
            r#"{"tags": 10000, "tag": "so long that ten thousand of them are more than a mebibyte, with what a list takes in memory", "ttl_ms": 1000}"#
        ),
        refused(FaultKind::HostCalls)
    );
    let (plan, _) = cached(r#"{"ttl_ms": 18446744073709551615}"#);
    assert_eq!(plan, Err(FaultKind::Answer));
}

#[test]
fn a_plugin_that_fails_when_it_begins_is_not_taken() {
    let begin = |how: &str| {
        let settings = format!(r#"{{"init": "{how}"}}"#);
        load(Slot::Routing, HOSTILE_ROUTING, &settings).err()
    };
    let words = "these settings are not to my taste".to_owned();
    assert_eq!(begin("refuse"), Some(LoadError::Refused(words)));
    for how in ["panic", "loop", "recurse", "memory", "log flood"] {
        assert!(matches!(begin(how), Some(LoadError::Start(_))), "{how}");
    }
    assert!(matches!(load(Slot::Routing, HOSTILE_ROUTING, "7").err(), Some(LoadError::Refused(_))));
}

#[test]
fn decisions_are_bounded_in_time_and_in_what_they_name() {
    let plugin = hostile(r#"{"decide": 1}"#);
    assert_eq!(plugin.decide_route(execution(1)).unwrap_err().kind, FaultKind::Answer);
    plugin.cluster_changed(Some("p"), &[replica("r0", 1.0, 1.0), replica("r1", 1.0, 1.0)]);
    assert_eq!(plugin.decide_route(execution(1)).unwrap(), Decision::Replica(1));
    assert_eq!(plugin.decide_route(execution(0)).unwrap_err().kind, FaultKind::Deadline);
    // The new instance was told of the cluster, too.
    assert_eq!(plugin.decide_route(execution(1)).unwrap(), Decision::Replica(1));
}

#[test]
fn after_too_many_faults_the_previous_good_version_answers() {
    let (registry, notes) = registry();
    let good = embedded(Slot::Routing).bytes;
    let load =
        |bytes, settings| registry.load(Source { slot: Slot::Routing, bytes, settings }).unwrap();
    let good = load(good, "");
    let bad = load(HOSTILE_ROUTING, r#"{"plan": "panic"}"#);
    let activate = |generation: &Arc<Generation>| {
        registry.change(&[(Slot::Routing, Change::Activate(Arc::clone(generation)))]).unwrap();
    };
    activate(&good);
    activate(&bad);
    let orders = select("orders");
    for _ in 0..POLICY_FAULTS_MAX {
        let view = registry.view();
        let answer = registry.plan_route(asker(&view), question(&orders), &[]);
        assert_eq!(answer.plan, RoutePlan::default());
        assert_eq!(answer.source, AnswerSource::StandIn);
    }
    let view = registry.view();
    let answer = registry.plan_route(asker(&view), question(&orders), &[]);
    assert_eq!(answer.source, AnswerSource::Plugin(good.number()));
    assert!(matches!(answer.plan.target, RouteTarget::Replicas(_)));
    assert_eq!(bad.faults(FaultKind::Trap), POLICY_FAULTS_MAX as u64);
    assert_eq!(notes.with("Fault {").len(), POLICY_FAULTS_MAX);
    let told = notes.with("Quarantined");
    assert!(told.len() == 1 && told[0].contains(&format!("Some({})", good.number())), "{told:?}");
    // It cannot be put back.
    let again = registry.change(&[(Slot::Routing, Change::Activate(bad))]);
    assert!(again.is_err());
}

#[test]
fn without_a_good_version_the_host_answers() {
    let (registry, _) = registry();
    let settings = r#"{"plan": "loop"}"#;
    let source = Source { slot: Slot::Routing, bytes: HOSTILE_ROUTING, settings };
    let bad = registry.load(source).unwrap();
    registry.change(&[(Slot::Routing, Change::Activate(bad))]).unwrap();
    let orders = select("orders");
    let ask = || {
        let view = registry.view();
        registry.plan_route(asker(&view), question(&orders), &[]).source
    };
    let answers: Vec<AnswerSource> = (0..=POLICY_FAULTS_MAX).map(|_| ask()).collect();
    assert!(answers[..POLICY_FAULTS_MAX].iter().all(|source| *source == AnswerSource::StandIn));
    assert_eq!(answers[POLICY_FAULTS_MAX], AnswerSource::BuiltIn);
}
