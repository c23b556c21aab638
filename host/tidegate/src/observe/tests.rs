//! Tests of counters, metrics and their documentation.

use std::collections::BTreeSet;

use super::metrics::{METRICS, markdown, render};
use super::served::ServedSnapshot;
use super::snapshot::{
    MemberSnapshot, PluginSlotSnapshot, PluginSnapshot, PoolSnapshot, RecordedSnapshot, Snapshot,
};
use super::stats::{ErrorKind, PinReason, WorkerStats, WorkerTotals};

fn snapshot() -> Snapshot {
    let stats = WorkerStats::default();
    stats.clients_accepted.add(7);
    stats.clients_open.increment();
    stats.clients_open.increment();
    stats.clients_open.decrement();
    stats.errors.increment(ErrorKind::PoolTimeout);
    stats.pins.increment(PinReason(0));
    let mut totals = WorkerTotals::default();
    totals.add(&stats.totals());
    totals.add(&stats.totals());
    let pool = PoolSnapshot {
        database: "shop \"quoted\"\n".to_owned(),
        user: "app".to_owned(),
        server: "primary".to_owned(),
        role: "write",
        size_max: 50,
        active: 25,
        ..PoolSnapshot::default()
    };
    let plugin = PluginSnapshot {
        slot: "routing",
        state: "active",
        plugin: "mine".to_owned(),
        generation: 3,
        calls: 9,
        weighings: 3,
        plans: 6,
        plans_within: [1, 2, 3, 4, 5, 5, 5],
        memory_bytes: 65_536,
        faults: [("trap", 2)].into(),
        ..PluginSnapshot::default()
    };
    let slot = PluginSlotSnapshot {
        slot: "routing",
        quarantines: 1,
        canaries_given_up: [("latency", 2)].into(),
        faults: [("trap", 20)].into(),
    };
    let recorded = RecordedSnapshot { slot: "caching", name: "hits".to_owned(), value: 1.5 };
    let server = "replica-1".to_owned();
    let served = ServedSnapshot { server: server.clone(), statements: 3, ..Default::default() };
    let member = MemberSnapshot {
        server,
        lag_seconds: Some(0.5),
        cpu_percent: Some(12.5),
        memory_percent: Some(50.0),
        disk_percent: Some(60.0),
        ..MemberSnapshot::default()
    };
    Snapshot {
        workers: 2,
        totals,
        cluster: vec![member],
        served: vec![served],
        primary_changes: 4,
        pools: vec![pool],
        plugin_slots: vec![slot],
        plugins: vec![plugin],
        recorded: vec![recorded],
        ..Snapshot::default()
    }
}

#[test]
fn totals_of_workers_are_summed_and_gauges_do_not_wrap() {
    let totals = snapshot().totals;
    assert_eq!((totals.clients_accepted, totals.clients_open), (14, 2));
    let stats = WorkerStats::default();
    stats.clients_open.decrement();
    assert_eq!(stats.clients_open.get(), 0);
}

#[test]
fn each_metric_of_the_table_is_rendered_with_help_and_type() {
    let text = render(&snapshot());
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)), "{text}");
        assert!(text.contains(&format!("# TYPE {} {}", metric.name, metric.kind())), "{text}");
    }
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(METRICS.iter().any(|metric| metric.name == name), "not in the table: {line}");
    }
}

#[test]
fn values_and_labels_reach_the_text_and_labels_are_escaped() {
    let text = render(&snapshot());
    assert!(text.contains("tidegate_clients_accepted_total 14\n"), "{text}");
    assert!(text.contains("tidegate_errors_total{kind=\"pool_timeout\"} 2\n"), "{text}");
    assert!(text.contains("tidegate_errors_total{kind=\"internal\"} 0\n"), "{text}");
    assert!(text.contains("tidegate_pins_total{reason=\"temporary_objects\"} 2\n"), "{text}");
    let ratio = "tidegate_pool_utilisation_ratio{database=\"shop \\\"quoted\\\"\\n\",user=\"app\",\
                 server=\"primary\",role=\"write\"} 0.5\n";
    assert!(text.contains(ratio), "{text}");
    let own = "slot=\"routing\",state=\"active\",plugin=\"mine\",generation=\"3\"";
    assert!(text.contains(&format!("tidegate_plugin_calls_total{{{own}}} 9\n")), "{text}");
    let faults = format!("tidegate_plugin_faults_total{{{own},fault=\"trap\"}} 2\n");
    assert!(text.contains(&faults), "{text}");
    assert!(text.contains(&format!("tidegate_plugin_weighings_total{{{own}}} 3\n")), "{text}");
    for whole in [
        "tidegate_plugin_quarantines_total{slot=\"routing\"} 1\n",
        "tidegate_plugin_canaries_given_up_total{slot=\"routing\",reason=\"latency\"} 2\n",
        "tidegate_plugin_slot_faults_total{slot=\"routing\",fault=\"trap\"} 20\n",
    ] {
        assert!(text.contains(whole), "{text}");
    }
    for (most, count) in [("0.00001", 1), ("0.0005", 4), ("0.05", 5), ("+Inf", 6)] {
        let bucket =
            format!("tidegate_plugin_plan_seconds_bucket{{{own},le=\"{most}\"}} {count}\n");
        assert!(text.contains(&bucket), "{text}");
    }
    assert!(text.contains(&format!("tidegate_plugin_memory_bytes{{{own}}} 65536\n")), "{text}");
    let own = "tidegate_plugin_recorded{slot=\"caching\",name=\"hits\"} 1.5\n";
    assert!(text.contains(own), "{text}");
}

#[test]
fn names_are_unique_and_follow_prometheus() {
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        assert!(metric.name.starts_with("tidegate_"), "{}", metric.name);
        let counts = ["_total", "_bucket"].iter().any(|end| metric.name.ends_with(end));
        assert_eq!(metric.kind() == "counter", counts, "{}", metric.name);
        assert!(metric.help.ends_with('.'), "{}", metric.help);
    }
}

#[test]
fn metrics_docs_are_current() {
    crate::config::docs::assert_current("docs/metrics.md", &markdown());
}
