//! How often what a policy wants kept has helped: by database, tables and time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_core::limits::CACHE_RULES_MAX;

/// What became of statements that one rule is about.
#[derive(Debug)]
pub struct RuleCounts {
    pub database: Arc<str>,
    /// In alphabetical order.
    pub tables: Box<[Box<str>]>,
    pub ttl: Duration,
    hits: AtomicU64,
    misses: AtomicU64,
    denied: AtomicU64,
}

impl RuleCounts {
    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub fn deny(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// Hits, misses, and what may not be kept.
    pub fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.hits), read(&self.misses), read(&self.denied))
    }
}

type Name = (Arc<str>, Box<[Box<str>]>, Duration);

/// All rules that statements have met.
#[derive(Debug, Default)]
pub struct Rules(Mutex<BTreeMap<Name, Arc<RuleCounts>>>);

impl Rules {
    /// Where statements with these tables are counted. Of more rules than are told apart, the rest is one without tables.
    pub fn of(
        &self,
        database: &Arc<str>,
        mut tables: Vec<Box<str>>,
        ttl: Duration,
    ) -> Arc<RuleCounts> {
        tables.sort();
        tables.dedup();
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name: Name = (database.clone(), tables.into(), ttl);
        if rules.len() >= CACHE_RULES_MAX && !rules.contains_key(&name) {
            name = ("".into(), Box::default(), Duration::ZERO);
        }
        let (database, tables, ttl) = name.clone();
        let made = || {
            let (hits, misses, denied) = Default::default();
            Arc::new(RuleCounts { database, tables, ttl, hits, misses, denied })
        };
        rules.entry(name).or_insert_with(made).clone()
    }

    /// In alphabetical order.
    pub fn all(&self) -> Vec<Arc<RuleCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_apart_up_to_a_bound() {
        let (rules, database) = (Rules::default(), Arc::from("shop"));
        let ttl = Duration::from_secs(60);
        let of = |names: &[&str]| {
            rules.of(&database, names.iter().map(|name| Box::from(*name)).collect(), ttl)
        };
        of(&["b", "a"]).hit();
        of(&["a", "b", "a"]).hit();
        assert_eq!(of(&["a", "b"]).counts(), (2, 0, 0));
        for n in 0..2 * CACHE_RULES_MAX {
            of(&[&format!("t{n}")]).miss();
        }
        assert_eq!(rules.all().len(), CACHE_RULES_MAX + 1);
        let rest = rules.all().iter().find(|rule| rule.tables.is_empty()).unwrap().counts();
        assert_eq!(rest, (0, CACHE_RULES_MAX as u64 + 1, 0));
    }
}
