//! Misbehaves as its settings say: for the tests of the host.

use std::hint::black_box;
use tidegate_sdk::host::{self, state};
use tidegate_sdk::policies::{Execution, RouteDecision};
use tidegate_sdk::prelude::*;

#[derive(Default, Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default)]
struct Hostile {
    /// What it does when it is asked for a plan or for weights.
    plan: String,
    /// What it does when it begins.
    init: String,
    /// The number of the replica that it decides for.
    decide: u32,
}

impl Policy for Hostile {
    fn check(&mut self) -> Result<(), String> {
        match self.init.as_str() {
            "refuse" => Err("these settings are not to my taste".to_owned()),
            other => {
                misbehave(other);
                Ok(())
            }
        }
    }
}

impl Routing for Hostile {
    fn plan_route(&self, shape: &Shape) -> RoutePlan {
        misbehave(&self.plan);
        match self.plan.as_str() {
            "unknown replica" => RoutePlan::replicas_that(ReplicaRule {
                servers: vec!["nobody".to_owned()],
                ..ReplicaRule::default()
            }),
            "long label" => RoutePlan::primary().label("x".repeat(100_000)),
            "control characters" => RoutePlan::reject("a\0b\r\n"),
            "megabytes" => RoutePlan::reject("x".repeat(8 << 20)),
            "count" => {
                let count = state::add("count", 1, 0).unwrap_or(-1);
                RoutePlan::primary().label(count.to_string())
            }
            "every other" if state::add("turn", 1, 0).unwrap_or(0) % 2 == 0 => panic!("my turn"),
            "echo" => RoutePlan::reject(format!("{shape:?}").chars().take(500).collect::<String>()),
            "ask" => RoutePlan::ask(7),
            "primary" => RoutePlan::primary(),
            "as tagged" => as_tagged(shape),
            "random" => RoutePlan::primary().label(host::random().to_string()),
            _ => RoutePlan::replicas(),
        }
    }

    fn weigh(&self, replicas: &[ReplicaMetrics]) -> Vec<Weight> {
        let weight =
            |weight| move |replica: &ReplicaMetrics| Weight { name: replica.name.clone(), weight };
        match self.plan.as_str() {
            "nan" => replicas.iter().map(weight(f64::NAN)).collect(),
            "negative" => replicas.iter().map(weight(-1.0)).collect(),
            "ask" | "as tagged" => replicas.iter().map(weight(1.0)).collect(),
            // All of it to the last.
            "weigh last" => (replicas.iter().enumerate())
                .map(|(n, replica)| weight(f64::from(n + 1 == replicas.len()))(replica))
                .collect(),
            "nothing for anybody" => replicas.iter().map(weight(0.0)).collect(),
            _ => vec![Weight { name: "nobody".to_owned(), weight: 1.0 }],
        }
    }

    fn cluster_changed(&self, state: ClusterState) {
        host::log(host::Level::Info, &format!("{} replicas", state.replicas.len()));
    }

    fn decide(&self, execution: Execution) -> RouteDecision {
        misbehave(if execution.id == 0 { "loop" } else { "" });
        RouteDecision::Replica(self.decide)
    }
}

/// No misbehaviour at all: what a statement's own tags ask for.
fn as_tagged(shape: &Shape) -> RoutePlan {
    let plan = match shape.tag("route") {
        Some("nowhere") => RoutePlan::reject("nobody may run this"),
        Some("replica") => RoutePlan::replicas_that(ReplicaRule {
            otherwise: Fallback::Refuse,
            ..ReplicaRule::default()
        }),
        _ => RoutePlan::default(),
    };
    if shape.tag("priority") == Some("critical") { plan.critical() } else { plan }
}

fn misbehave(how: &str) {
    match how {
        "loop" => loop {
            black_box(());
        },
        "recurse" => {
            black_box(recurse(u64::MAX));
        }
        "memory" => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                all.push(black_box(vec![1; 1 << 20]));
            }
        }
        // Less than a plan may take.
        "slow" => {
            let began = host::monotonic_ns();
            while host::monotonic_ns() < began + 2_000_000 {
                (0..50_000).for_each(|n| {
                    black_box(n);
                });
            }
        }
        "panic" => panic!("as told"),
        "log flood" => loop {
            host::warn("look at me");
        },
        "state flood" => loop {
            black_box(state::put("key", &[0; 10], 0)).ok();
        },
        _ => {}
    }
}

fn recurse(depth: u64) -> u64 {
    if depth == 0 { 0 } else { black_box(recurse(black_box(depth - 1))).wrapping_add(1) }
}

tidegate_sdk::register!(routing: Hostile);
