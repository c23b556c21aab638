//! Answers that several processes share: nothing is served, or kept, but under versions that Redis has just told, or has told a
//! moment before to be relied on.

use std::sync::Arc;
use std::time::Instant;

use tidegate_cache::{Found, Term};
use tidegate_core::plan::Recalled;

use super::{Caching, Later, Wanted};
use crate::data::clients::Client;
use crate::data::routing::Routing;
use crate::results::Followed;
use crate::sharing::{Entry, Gates, Looked, Shared, Sharing};

/// What was asked for, and what is known of it: `None`, nothing in time.
pub(super) type Answered = (Arc<Entry>, Option<Looked>);

impl Routing {
    /// Looks for an answer with what others have said; without that, asks them. An error: nothing is found, or not yet.
    pub(super) fn look_shared(
        &mut self,
        client: &Client,
        wanted: &mut Wanted,
        (looked, followed): (Option<Answered>, Option<Followed>),
        sharing: &Arc<Sharing>,
    ) -> Result<Found, Recalled> {
        let Some((entry, _)) = wanted.shared.clone() else { return Err(Recalled::No) };
        let looked = match looked {
            Some((asked, looked)) if asked.is(&entry) => looked,
            // Nothing is known, or of another: the catalogue may have been read again.
            _ => {
                let now = Instant::now();
                let results = &self.caching.results;
                let (has, reliance) = results.with(|store| {
                    let has = store.shared_of(&wanted.key, &entry.tags, now);
                    (has, store.reliance(&entry.tags, now))
                });
                if let Some(versions) = &has
                    && reliance.from.is_some_and(|from| sharing.may_rely(from, now))
                {
                    wanted.shared = Some((entry.clone(), Some(versions.clone().into())));
                    return Ok(self.look(client, wanted));
                }
                let relies = sharing.relies() && reliance.is_worth_it;
                let looking = sharing.look(entry, has, relies);
                self.caching.later = looking.map(|looking| Later::shared(looking, followed));
                let later = self.caching.later.is_some();
                return Err(if later { Recalled::Later } else { Recalled::No });
            }
        };
        let Some(Looked::Shared(shared)) = looked else { return Err(Recalled::No) };
        let now = Instant::now();
        if !sharing.may_serve(now) || shared.versions.len() != entry.tags.len() {
            return Err(Recalled::No);
        }
        wanted.shared = Some((entry.clone(), Some(shared.versions.clone())));
        let known = entry.tags.iter().zip(shared.versions.iter().copied());
        self.caching.results.with(|store| store.note_shared(known, shared.relied_from, now));
        let found = self.look(client, wanted);
        Ok(self.caching.take(found, wanted, &entry, shared, now))
    }
}

impl Caching {
    pub fn take_gates(&mut self) -> Gates {
        std::mem::take(&mut self.gates)
    }

    /// What others have put is as good as what is here, and is here from now on.
    fn take(
        &self,
        found: Found,
        wanted: &Wanted,
        entry: &Entry,
        shared: Shared,
        now: Instant,
    ) -> Found {
        let (fill, (value, left)) = match (found, shared.value) {
            (Found::Fill(fill), Some(value)) => (fill, value),
            (found, _) => return found,
        };
        // What is damaged is not there.
        let kept = entry.decode(&value).filter(|kept| kept.open().is_some());
        let Some(kept) = kept.map(Arc::new) else { return Found::Fill(fill) };
        let key = wanted.key.clone();
        let term = Term { ttl: left.min(wanted.term.ttl), ..wanted.term.clone() };
        self.results.with(|store| store.put(key, fill, kept.clone(), term, now));
        // When its statement was sent is not known here, but it was before now.
        Found::Hit(kept, now)
    }
}
