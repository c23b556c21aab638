//! The results for machines: medians, and the single values where they are few numbers.

use crate::load::Sample;
use crate::report::{Report, cpu, median};
use serde_json::{Value, json};

/// Everything that was measured.
pub fn of(report: &Report) -> Value {
    let machine = &report.machine;
    json!({
        "machine": {
            "cpu": machine.cpu, "cores": machine.cores, "postgres": machine.postgres,
            "pgbouncer": machine.pgbouncer, "pgbouncer_prepares": machine.pgbouncer_prepares,
            "load_average": machine.load_average, "busy_percent_by_round": report.busy_percent,
        },
        "options": { "seconds": report.options.seconds, "rounds": report.options.rounds },
        "loads": loads(report),
        "connects": connects(report),
        "transfers": transfers(report),
        "idle": idle(report),
        "failures": report.failures,
    })
}

fn loads(report: &Report) -> Vec<Value> {
    let entry = |samples: &[Sample]| {
        json!({
            "tps": number(median(samples, |s| s.per_second)),
            "p50_us": number(median(samples, |s| s.p50_us)),
            "p99_us": number(median(samples, |s| s.p99_us)),
            "cpu_us_per_query": number(median(samples, cpu)),
        })
    };
    let all = report.samples.iter().map(|((mode, clients, name), samples)| {
        let mut value = entry(samples);
        value["mode"] = mode.label().into();
        value["clients"] = (*clients).into();
        value["target"] = name.label().into();
        value["rounds"] = samples.iter().map(|one| entry(std::slice::from_ref(one))).collect();
        value
    });
    all.collect()
}

fn connects(report: &Report) -> Vec<Value> {
    let all = report.connects.iter().map(|((login, name), samples)| {
        json!({
            "login": login.label(), "target": name.label(),
            "connections_per_second": number(median(samples, |s| s.per_second)),
            "cpu_us_per_connection": number(median(samples, cpu)),
        })
    });
    all.collect()
}

fn transfers(report: &Report) -> Vec<Value> {
    let all = report.transfers.iter().map(|(name, transfers)| {
        json!({
            "target": name.label(),
            "bytes": transfers.first().map(|t| t.bytes),
            "mb_per_second": number(median(transfers, |t| t.mb_per_second)),
            "cpu_us_per_mb": number(median(transfers, |t| t.cpu_us_per_mb)),
            "peak_extra_bytes": number(median(transfers, |t| t.peak_extra_bytes)),
        })
    });
    all.collect()
}

fn idle(report: &Report) -> Vec<Value> {
    let all = report.idle.iter().map(|(name, idle)| {
        json!({
            "target": name.label(), "clients": idle.clients,
            "bytes_per_client": number(idle.bytes_per_client),
        })
    });
    all.collect()
}

/// Two decimals; null when there is no number.
fn number(value: f64) -> Value {
    if value.is_finite() { json!((value * 100.0).round() / 100.0) } else { Value::Null }
}
