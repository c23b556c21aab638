//! Results of the tables that its settings name, with lifetimes, row tags and write-through.

use tidegate_sdk::prelude::*;

#[derive(Default, Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default, deny_unknown_fields)]
struct CacheTables {
    tables: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(crate = "tidegate_sdk::serde", deny_unknown_fields)]
struct Rule {
    /// `table`, or `schema.table`.
    table: String,
    ttl_ms: u64,
    /// A column that tells rows apart: a statement that compares it with a parameter is about one row.
    row: Option<String>,
    #[serde(default)]
    per_end_user: bool,
    #[serde(default)]
    write_through: bool,
    #[serde(default)]
    warm: bool,
}

impl Rule {
    /// Tags after PostgreSQL's own granularity: one row, or any. `whole` is what a statement about many rows gets.
    fn tag(&self, table: &TableUse, whole: &str) -> String {
        let row = self.row.as_deref().and_then(|row| table.parameter_of(row));
        row.map_or(format!("{}:{whole}", self.table), |n| format!("{}:row:{{{n}}}", self.table))
    }
}

impl CacheTables {
    fn rule(&self, table: &TableUse) -> Option<&Rule> {
        self.tables.iter().find(|rule| table.is(&rule.table))
    }
}

impl Policy for CacheTables {}

impl Caching for CacheTables {
    fn plan_cache(&self, shape: &Shape) -> CachePlan {
        let rules: Option<Vec<_>> = shape.tables.iter().map(|t| Some((t, self.rule(t)?))).collect();
        let Some(rules) = rules.filter(|_| shape.reads_only() && shape.tag("cache") != Some("off"))
        else {
            return CachePlan::Bypass;
        };
        let Some(ttl_ms) = rules.iter().map(|(_, rule)| rule.ttl_ms).min() else {
            return CachePlan::Bypass; // no table at all: the database is as fast
        };
        let mut plan = CacheRule::ttl_ms(ttl_ms);
        plan.write_through = rules.iter().any(|(_, rule)| rule.write_through);
        plan.warm = rules.iter().any(|(_, rule)| rule.warm);
        let per_end_user = rules.iter().any(|(_, rule)| rule.per_end_user);
        plan.key.extend(per_end_user.then_some(KeyPart::EndUser));
        plan.tags.extend(rules.iter().map(|(table, rule)| rule.tag(table, "any")));
        plan.store()
    }

    fn plan_invalidate(&self, shape: &Shape) -> Vec<String> {
        let written = shape.tables.iter().filter(|table| table.access != Access::Reads);
        let ruled = written.filter_map(|table| Some((table, self.rule(table)?)));
        ruled.flat_map(|(t, r)| [r.tag(t, "rows"), format!("{}:any", r.table)]).collect()
    }
}

tidegate_sdk::register!(caching: CacheTables);
