//! Reads to replicas, weighted by CPU and response time; hints and critical statements.

use tidegate_sdk::prelude::*;

/// Settings.
#[derive(Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default, deny_unknown_fields)]
struct Balanced {
    /// From here a replica's share falls quickly, in percent.
    cpu_percent_max: f64,
    /// Replicas that lag more get no reads.
    lag_ms_max: u32,
    /// Tables whose statements are critical.
    critical_tables: Vec<String>,
    /// Tables that are read on the primary only.
    primary_tables: Vec<String>,
}

impl Default for Balanced {
    fn default() -> Balanced {
        let (critical_tables, primary_tables) = (Vec::new(), Vec::new());
        Balanced { cpu_percent_max: 80.0, lag_ms_max: 5_000, critical_tables, primary_tables }
    }
}

impl Policy for Balanced {
    fn check(&mut self) -> Result<(), String> {
        let good = self.cpu_percent_max > 0.0 && self.cpu_percent_max <= 100.0;
        if good { Ok(()) } else { Err("cpu_percent_max must be above 0 and at most 100".into()) }
    }
}

impl Routing for Balanced {
    fn plan_route(&self, shape: &Shape) -> RoutePlan {
        let any_of = |names: &[String]| names.iter().any(|name| shape.uses_table(name));
        let rule = ReplicaRule { max_lag_ms: Some(self.lag_ms_max), ..ReplicaRule::default() };
        let plan = match shape.tag("route") {
            Some("primary") => RoutePlan::primary().label("hint"),
            _ if !shape.reads_only() || any_of(&self.primary_tables) => RoutePlan::primary(),
            Some("replica") => RoutePlan::replicas_that(rule).label("hint"),
            _ => RoutePlan::replicas_that(rule),
        };
        let critical = shape.tag("priority") == Some("critical") || any_of(&self.critical_tables);
        if critical { plan.critical() } else { plan }
    }

    fn weigh(&self, replicas: &[ReplicaMetrics]) -> Vec<Weight> {
        let fastest = replicas.iter().filter_map(|r| r.response_ms).fold(f64::INFINITY, f64::min);
        let weigh = |replica: &ReplicaMetrics| {
            let cpu = replica.cpu_percent.unwrap_or(0.0).clamp(0.0, 100.0);
            let idle = if cpu < self.cpu_percent_max { 1.0 - cpu / 200.0 } else { 0.1 };
            let speed = replica.response_ms.map_or(1.0, |ms| fastest.max(0.1) / ms.max(0.1));
            let weight = (replica.base_weight * idle * speed).clamp(1.0, 1_000.0);
            Weight { name: replica.name.clone(), weight }
        };
        replicas.iter().map(weigh).collect()
    }
}

tidegate_sdk::register!(routing: Balanced);

#[cfg(test)]
mod tests;
