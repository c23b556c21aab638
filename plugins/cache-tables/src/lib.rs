//! Results of the tables that its settings name, with lifetimes, row tags and write-through.

use tidegate_sdk::prelude::*;

#[derive(Default, Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default, deny_unknown_fields)]
struct CacheTables {
    /// The first that fits a table and a statement counts.
    rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(crate = "tidegate_sdk::serde", default, deny_unknown_fields)]
struct Rule {
    /// `table`, or `schema.table`.
    table: String,
    /// Only for statements whose normalized text has this in it.
    statement: Option<String>,
    ttl_ms: u64,
    /// A column that tells rows apart.
    row: Option<String>,
    per_end_user: bool,
    write_through: bool,
    warm: bool,
    /// More tags, for its answers, and for what writes of its table take.
    tags: Vec<String>,
    takes: Vec<String>,
}

impl CacheTables {
    fn rule(&self, shape: &Shape, table: &TableUse) -> Option<&Rule> {
        let fits = |part: &String| shape.normalized.contains(part);
        self.rules.iter().find(|r| table.is(&r.table) && r.statement.as_ref().is_none_or(fits))
    }
}

impl Policy for CacheTables {
    fn check(&mut self) -> Result<(), String> {
        let bad = self.rules.iter().any(|rule| rule.table.is_empty() || rule.ttl_ms == 0);
        if bad { Err("each rule needs a table and a ttl_ms above 0".into()) } else { Ok(()) }
    }
}

impl Caching for CacheTables {
    fn plan_cache(&self, shape: &Shape) -> CachePlan {
        let rules = shape.tables.iter().map(|table| self.rule(shape, table));
        let rules: Vec<&Rule> = rules.collect::<Option<_>>().unwrap_or_default();
        let ttl_ms = rules.iter().map(|rule| rule.ttl_ms).min();
        let is_kept = shape.reads_only() && shape.tag("cache") != Some("off");
        let Some(ttl_ms) = ttl_ms.filter(|_| is_kept) else { return CachePlan::Bypass };
        let mut plan = CacheRule::ttl_ms(ttl_ms);
        plan.write_through = rules.iter().any(|rule| rule.write_through);
        plan.warm = rules.iter().any(|rule| rule.warm);
        let is_personal = rules.iter().any(|rule| rule.per_end_user);
        plan.key.extend(is_personal.then_some(KeyPart::EndUser));
        for (table, rule) in shape.tables.iter().zip(&rules) {
            plan.tags.extend([table.tags_of_read(rule.row.as_deref()), rule.tags.clone()].concat());
        }
        plan.store()
    }

    fn plan_invalidate(&self, shape: &Shape) -> Vec<String> {
        let written = shape.tables.iter().filter(|table| table.is_written());
        let ruled = written.filter_map(|table| Some((table, self.rule(shape, table)?)));
        let tags = |(table, rule): (&TableUse, &Rule)| {
            [table.tags_of_write(rule.row.as_deref()), rule.takes.clone()].concat()
        };
        ruled.flat_map(tags).collect()
    }
}

tidegate_sdk::register!(caching: CacheTables);

#[cfg(test)]
mod tests;
