//! `docs/metrics.md`, which is the table.

use std::fmt::Write;

use tidegate_core::policy::canary::Reason;
use tidegate_core::policy::faults::FaultKind;

use super::METRICS;
use crate::observe::stats::{CounterLabel, ErrorKind, GivenUp, HttpOutcome, PinReason};

/// The table as `docs/metrics.md`.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\n`GET /metrics` of the admin API, in Prometheus' text format. This page is generated from the table in \
         `host/tidegate/src/observe/metrics.rs`: `TIDEGATE_BLESS=1 cargo test -p tidegate --lib docs_are_current` writes it.\n\n\
         | metric | kind | labels | meaning |\n|---|---|---|---|\n",
    );
    for metric in METRICS {
        let labels: Vec<_> = metric.labels().iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, help) = (metric.name, metric.kind(), metric.help);
        let _ = writeln!(out, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    out.push_str("\n## Values of labels\n\n");
    let faults = FaultKind::ALL.map(FaultKind::name);
    let reasons = Reason::ALL.map(Reason::name);
    let labels = [
        ("`kind`", ErrorKind::LABELS),
        ("`reason` of `tidegate_pins_total`", PinReason::LABELS),
        ("`reason` of `tidegate_replays_given_up_total`", GivenUp::LABELS),
        ("`reason` of `tidegate_plugin_canaries_given_up_total`", &reasons[..]),
        ("`fault`", &faults[..]),
        ("`outcome`", HttpOutcome::LABELS),
    ];
    for (label, values) in labels {
        let _ = writeln!(out, "- {label}: `{}`.", values.join("`, `"));
    }
    out
}
