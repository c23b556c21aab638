//! What the admin API asks about what is kept.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_cache::{Deny, Entries, Entry, Glob, Tag};

use super::Handle;
use crate::admin::{
    Answer, AnswersReport, CacheControl, CacheReport, DeniedReport, EntriesReport, Invalidated,
    Invalidation, LogReport, RuleReport, WarmQuestion, WarmReport,
};
use crate::plugins::Who;
use crate::results::{FollowState, RuleCounts};

impl CacheControl for Handle {
    fn cache(&self) -> CacheReport {
        let results = &self.shared.results;
        let (counts, entries, bytes) = results.counts();
        let answers = AnswersReport {
            entries,
            bytes,
            hits: counts.hits,
            misses: counts.misses,
            stale: counts.stale,
            puts: counts.puts,
            unseen: counts.unseen,
            warmed: results.warmed(),
            compressed: counts.packed,
            compression_saved_bytes: counts.packed_saved,
            evictions: counts.evictions,
            invalidations: counts.invalidations,
        };
        let denied = Deny::ALL.iter().zip(results.denied()).filter(|(_, count)| *count > 0);
        let denied = denied.map(|(why, statements)| DeniedReport {
            rule: why.rule().to_owned(),
            reason: why.label().to_owned(),
            statements,
        });
        CacheReport {
            keeping: results.round() != 0,
            answers,
            rules: results.rules().iter().map(|rule| rule_report(rule)).collect(),
            denied: denied.collect(),
            entries: entries_report(&self.entries()),
            logs: results
                .logs()
                .map(|logs| logs.all().iter().map(log_report).collect())
                .unwrap_or_default(),
        }
    }

    fn invalidate(&self, what: &Invalidation, who: Who) -> Result<Invalidated, String> {
        let database = || match &what.database {
            Some(name) => name.as_str().into(),
            None => Arc::from(self.settled().config.cluster.primary.database.as_str()),
        };
        let (mut tags, mut entries) = (Vec::new(), 0);
        match what {
            Invalidation { key: Some(key), .. } => {
                entries = usize::from(self.entries().remove(key));
            }
            Invalidation { tag: Some(tag), .. } => {
                entries = self.entries().take_tag(tag);
                tags.push(Tag::Named(database(), tag.as_str().into()));
            }
            Invalidation { pattern: Some(pattern), .. } => {
                let pattern = Glob::new(pattern).map_err(|error| error.to_string())?;
                entries = self.entries().take_matching(&pattern);
            }
            Invalidation { table: Some(table), .. } => tags = self.tables(&database(), table)?,
            // Not the database itself: what its names mean stands.
            Invalidation { database: Some(_), .. } => tags.push(Tag::Rows(database())),
            _ => {
                entries = self.entries().clear();
                let view = self.shared.views.latest();
                tags.extend(view.catalogues.keys().map(|name| Tag::Rows(name.clone())));
            }
        }
        self.shared.results.with(|store| store.bump(&tags, Instant::now()));
        let invalidated = Invalidated { entries, versions: tags.len() };
        tracing::info!(target: "tidegate::audit", %who, ?what, ?invalidated, "invalidate");
        Ok(invalidated)
    }

    fn warm(&self, question: WarmQuestion, who: Who) -> Answer<Result<WarmReport, String>> {
        Box::pin(super::warm::order(self.shared.clone(), self.settled(), question, who))
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        self.entries().get(name, Instant::now())
    }

    fn put_entry(&self, name: &str, entry: Entry, ttl: Duration) -> bool {
        self.entries().put(name, entry, ttl, Instant::now())
    }

    fn remove_entry(&self, name: &str) -> bool {
        self.entries().remove(name)
    }
}

impl Handle {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relations of this name, which may be a pattern.
    fn tables(&self, database: &Arc<str>, written: &str) -> Result<Vec<Tag>, String> {
        let (schema, name) = match written.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, written),
        };
        let glob = |text: &str| Glob::new(text).map_err(|error| error.to_string());
        let (schema, name) = (schema.map(glob).transpose()?, glob(name)?);
        let view = self.shared.views.latest();
        let known = view.catalogues.get(&**database).and_then(|known| known.tables.clone());
        let tables = known.and_then(|known| known.tables);
        // Nothing is kept of a database whose catalogue is not known.
        let tables = tables.ok_or_else(|| format!("nothing is kept of the database {database}"))?;
        let relations = tables.relations_named(|in_schema, table| {
            name.matches(table) && schema.as_ref().is_none_or(|schema| schema.matches(in_schema))
        });
        let tags: Vec<Tag> =
            relations.into_iter().map(|oid| Tag::Relation(database.clone(), oid)).collect();
        if tags.is_empty() {
            return Err(format!("no table {written} is known in the database {database}"));
        }
        Ok(tags)
    }
}

fn rule_report(rule: &RuleCounts) -> RuleReport {
    let (hits, misses, denied) = rule.counts();
    RuleReport {
        database: rule.database.to_string(),
        tables: rule.tables.iter().map(ToString::to_string).collect(),
        ttl_ms: u64::try_from(rule.ttl.as_millis()).unwrap_or(u64::MAX),
        hits,
        misses,
        denied,
    }
}

fn log_report((database, state): &(Arc<str>, FollowState)) -> LogReport {
    let (state, lag, why) = match state {
        FollowState::Starting => ("starting", None, None),
        FollowState::Following(as_of) => ("following", Some(as_of.elapsed()), None),
        FollowState::Lost(why) => ("lost", None, Some(why.to_string())),
    };
    LogReport {
        database: database.to_string(),
        state: state.to_owned(),
        lag_ms: lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        why,
    }
}

fn entries_report(entries: &Entries) -> EntriesReport {
    let counts = entries.counts();
    EntriesReport {
        entries: entries.len(),
        bytes: entries.bytes(),
        hits: counts.hits,
        misses: counts.misses,
        puts: counts.puts,
        evictions: counts.evictions,
        invalidations: counts.invalidations,
    }
}
