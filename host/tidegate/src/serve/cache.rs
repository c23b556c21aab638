//! What the admin API asks about what is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_cache::{Deny, Entries, Entry, Glob, Tag, taken_by_name};

use super::Handle;
use crate::admin::{
    Answer, AnswersReport, CacheControl, CacheReport, DeniedReport, EntriesReport, InspectedReport,
    Invalidated, Invalidation, LogReport, NotDone, RuleReport, WarmQuestion, WarmReport,
};
use crate::plugins::Who;
use crate::results::{FollowState, RuleCounts};
use crate::sharing::{SharedEntryCounts, Sharing};

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
        let (inspected, different) = results.inspected.counts();
        let nines = tidegate_cache::nines(inspected, different);
        let denied = Deny::ALL.iter().zip(results.denied()).filter(|(_, count)| *count > 0);
        let denied = denied.map(|(why, statements)| DeniedReport {
            rule: why.rule().to_owned(),
            reason: why.label().to_owned(),
            statements,
        });
        CacheReport {
            keeping: results.round() != 0,
            answers,
            inspected: InspectedReport { answers: inspected, different, nines },
            rules: results.rules().iter().map(|rule| rule_report(rule)).collect(),
            denied: denied.collect(),
            entries: match results.sharing() {
                Some(sharing) => shared_report(&sharing.counts.entries),
                None => entries_report(&self.entries()),
            },
            logs: results
                .logs()
                .map(|logs| logs.all().iter().map(log_report).collect())
                .unwrap_or_default(),
        }
    }

    fn invalidate(&self, what: Invalidation, who: Who) -> Answer<Result<Invalidated, NotDone>> {
        // Answers first: they are taken, whatever becomes of entries.
        let tags = match self.tags_of(&what) {
            Ok(tags) => tags,
            Err(why) => return Box::pin(std::future::ready(Err(NotDone::Unknown(why)))),
        };
        self.shared.results.with(|store| store.bump(&tags, Instant::now()));
        let here = self.take_here(&what);
        let sharing = self.shared.results.sharing().cloned();
        Box::pin(async move {
            let entries = match sharing {
                Some(sharing) => take_shared(&sharing, &what).await?,
                None => here?,
            };
            let invalidated = Invalidated { entries, versions: tags.len() };
            tracing::info!(target: "tidegate::audit", %who, ?what, ?invalidated, "invalidate");
            Ok(invalidated)
        })
    }

    fn warm(&self, question: WarmQuestion, who: Who) -> Answer<Result<WarmReport, String>> {
        Box::pin(super::warm::order(self.shared.clone(), self.settled(), question, who))
    }

    fn entry(&self, name: Arc<str>) -> Answer<Result<Option<Entry>, NotDone>> {
        match self.shared.results.sharing().cloned() {
            Some(sharing) => {
                Box::pin(async move { sharing.entry(&name).await.map_err(NotDone::Unshared) })
            }
            None => {
                let found = self.entries().get(&name, Instant::now());
                Box::pin(std::future::ready(Ok(found)))
            }
        }
    }

    fn put_entry(
        &self,
        name: Arc<str>,
        entry: Entry,
        ttl: Duration,
    ) -> Answer<Result<bool, NotDone>> {
        match self.shared.results.sharing().cloned() {
            Some(sharing) => Box::pin(async move {
                let put = sharing.put_entry(&name, &entry, ttl).await;
                put.map(|()| true).map_err(NotDone::Unshared)
            }),
            None => {
                let put = self.entries().put(&name, entry, ttl, Instant::now());
                Box::pin(std::future::ready(Ok(put)))
            }
        }
    }

    fn remove_entry(&self, name: Arc<str>) -> Answer<Result<bool, NotDone>> {
        match self.shared.results.sharing().cloned() {
            Some(sharing) => Box::pin(async move {
                let taken = sharing.take_entries(&[&name]).await;
                taken.map(|taken| taken > 0).map_err(NotDone::Unshared)
            }),
            None => {
                let removed = self.entries().remove(&name);
                Box::pin(std::future::ready(Ok(removed)))
            }
        }
    }
}

/// Takes entries that all share.
async fn take_shared(sharing: &Sharing, what: &Invalidation) -> Result<usize, NotDone> {
    let taken = match what {
        Invalidation { key: Some(key), .. } => sharing.take_entries(&[key]).await,
        Invalidation { tag: Some(tag), .. } => sharing.take_tagged(tag).await,
        Invalidation { pattern: Some(pattern), .. } => {
            let pattern = Glob::new(pattern).map_err(|why| NotDone::Unknown(why.to_string()))?;
            sharing.take_matching(&pattern).await
        }
        Invalidation { table: Some(_), .. } | Invalidation { database: Some(_), .. } => Ok(0),
        _ => sharing.clear_entries().await,
    };
    taken.map_err(NotDone::Unshared)
}

impl Handle {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes entries of this process alone.
    fn take_here(&self, what: &Invalidation) -> Result<usize, NotDone> {
        Ok(match what {
            Invalidation { key: Some(key), .. } => usize::from(self.entries().remove(key)),
            Invalidation { tag: Some(tag), .. } => self.entries().take_tag(tag),
            Invalidation { pattern: Some(pattern), .. } => {
                let pattern =
                    Glob::new(pattern).map_err(|why| NotDone::Unknown(why.to_string()))?;
                self.entries().take_matching(&pattern)
            }
            Invalidation { table: Some(_), .. } | Invalidation { database: Some(_), .. } => 0,
            _ => self.entries().clear(),
        })
    }

    /// What of answers is meant.
    fn tags_of(&self, what: &Invalidation) -> Result<Vec<Tag>, String> {
        let database = || match &what.database {
            Some(name) => name.as_str().into(),
            None => Arc::from(self.settled().config.cluster.primary.database.as_str()),
        };
        Ok(match what {
            Invalidation { key: Some(_), .. } | Invalidation { pattern: Some(_), .. } => Vec::new(),
            Invalidation { tag: Some(tag), .. } => taken_by_name(tag, &database()),
            Invalidation { table: Some(table), .. } => self.tables(&database(), table)?,
            // Not the database itself: what its names mean stands.
            Invalidation { database: Some(_), .. } => vec![Tag::Rows(database())],
            _ => {
                let view = self.shared.views.latest();
                view.catalogues.keys().map(|name| Tag::Rows(name.clone())).collect()
            }
        })
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

fn shared_report(counts: &SharedEntryCounts) -> EntriesReport {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    EntriesReport {
        entries: usize::try_from(count(&counts.entries)).unwrap_or(usize::MAX),
        bytes: 0,
        hits: count(&counts.hits),
        misses: count(&counts.misses),
        puts: count(&counts.puts),
        evictions: count(&counts.evictions),
        invalidations: count(&counts.invalidations),
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
