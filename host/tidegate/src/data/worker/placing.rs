//! Where a client's statement runs; and, for a read that no replica is fresh enough for, whether one may soon be.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate_core::plan::Target;
use tidegate_core::policy::route::Fallback;
use tidegate_core::refusal::Refusal;
use tidegate_core::route::{Choice, Place, ReadFacts, WhyPrimary, is_shown};

use super::Worker;
use crate::config::Causality;
use crate::data::clients::Client;
use crate::data::connection::Asked;
use crate::data::routing::{Among, Chosen, no_replica};
use crate::observe::served::LentFor;
use crate::upstream::pool::{PoolCell, PoolKey, PoolKind};

/// After a wait that was in vain no read waits for this long: the replicas lag by more than is waited for …
const WAIT_AGAIN_MIN: Duration = Duration::from_millis(50);
/// … and for twice as long after each further one, up to this, until a wait is worth it: it may have been a moment's.
const WAIT_AGAIN_MAX: Duration = Duration::from_secs(1);

/// What one worker keeps in mind between statements.
#[derive(Debug)]
pub(super) struct Placing {
    next_replica: Cell<usize>,
    patience: Cell<Patience>,
}

/// Whether reads wait for a replica. getter: `may_wait`; events: `handle_vain`, `handle_shown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Patience {
    /// Until then none does.
    none_until: Option<Instant>,
    /// Waits in vain one after the other, but for those at the same time.
    vain: u32,
}

impl Patience {
    fn may_wait(self, now: Instant) -> bool {
        self.none_until.is_none_or(|until| now >= until)
    }

    /// A read has waited, and no replica shows what it has to see.
    #[must_use]
    fn handle_vain(self, now: Instant) -> Self {
        if !self.may_wait(now) {
            return self;
        }
        let pause = WAIT_AGAIN_MIN.saturating_mul(2_u32.saturating_pow(self.vain));
        let none_until = Some(now + pause.min(WAIT_AGAIN_MAX));
        Self { none_until, vain: self.vain.saturating_add(1) }
    }

    /// A read has waited, and one does.
    #[must_use]
    fn handle_shown(self) -> Self {
        Self { vain: 0, ..self }
    }
}

/// Where a statement goes.
pub enum Located {
    Now(Asked),
    /// It is to be asked again after this.
    Soon(Pin<Box<dyn Future<Output = ()>>>),
}

impl Placing {
    /// Workers do not all begin with the same replica.
    pub(super) fn new(worker: usize) -> Self {
        Self { next_replica: Cell::new(worker), patience: Cell::default() }
    }
}

impl Worker {
    /// Where a client's statement of this kind runs, and what that makes of it. One that `has_waited` waits no more.
    pub fn locate(
        &self,
        target: Target,
        client: &Client,
        has_waited: bool,
        now: Instant,
    ) -> Result<Located, Refusal> {
        Ok(Located::Now(match target {
            Target::Primary => {
                client.note_may_write(now);
                Asked::PRIMARY
            }
            Target::Read => {
                let facts = self.facts(client, now);
                let Chosen { choice, otherwise, among } =
                    self.routing.borrow_mut().choose(&facts, now);
                if let Choice::Primary(why) = choice
                    && why != WhyPrimary::NoReplica
                    && let Some(soon) = self.catch_up(facts, why, has_waited, now)
                {
                    return Ok(soon);
                }
                if has_waited && matches!(choice, Choice::Replica(_)) {
                    self.placing.patience.set(self.placing.patience.get().handle_shown());
                }
                match (choice, otherwise) {
                    // The view may still be of another configuration.
                    (Choice::Replica(index), _) if index < self.replicas() => {
                        let (place, pool) = (Place::Replica(index), PoolKind::Read);
                        let lent_for = match among {
                            Among::All => LentFor::AnyRead,
                            Among::Some => LentFor::Anything,
                        };
                        Asked { target, place, pool, otherwise, lent_for }
                    }
                    (Choice::Primary(WhyPrimary::NoReplica), Fallback::Primary) => {
                        self.stats.reads_fallen_back.increment();
                        Asked::FALLBACK
                    }
                    (_, Fallback::Primary) => Asked::PRIMARY,
                    (_, Fallback::Refuse) => return Err(no_replica()),
                }
            }
            // Asked for by the client, who takes what there is: replicas in turn, the primary when there is none.
            Target::Replica => {
                let turn = self.placing.next_replica.get();
                self.placing.next_replica.set(turn.wrapping_add(1));
                let replica = self.routing.borrow_mut().in_turn(turn, self.replicas());
                match replica.map(Place::Replica) {
                    Some(place) => Asked { target, place, pool: PoolKind::Read, ..Asked::PRIMARY },
                    None => Asked { target, ..Asked::PRIMARY },
                }
            }
        }))
    }

    /// What a client's next read has to see.
    fn facts(&self, client: &Client, now: Instant) -> ReadFacts {
        let facts = client.facts.get();
        match self.causality() {
            Causality::Session => facts,
            Causality::Global => {
                let wrote_at = facts.wrote_at.max(self.shared.views.causal.last_write());
                ReadFacts { wrote_at, ..facts }
            }
            // What keeps it from replicas for a time is no matter of freshness.
            Causality::Off => {
                let wrote_at = facts.wrote_at.filter(|until| *until > now);
                ReadFacts { wrote_at, saw: None, ..facts }
            }
        }
    }

    pub fn causality(&self) -> Causality {
        self.settled.borrow().config.routing.causality
    }

    /// No replica shows all of that. One may in a moment: has the servers asked at once instead of at the next interval.
    fn catch_up(
        &self,
        facts: ReadFacts,
        why: WhyPrimary,
        has_waited: bool,
        now: Instant,
    ) -> Option<Located> {
        let causal = &self.shared.views.causal;
        let patience = &self.placing.patience;
        // A position may be one that nobody ever reaches: that says nothing of the replicas.
        if has_waited && why != WhyPrimary::Position {
            patience.set(patience.get().handle_vain(now));
        }
        let time_max = self.settled.borrow().config.routing.catch_up_max?;
        // What is to come no replica shows.
        if facts.wrote_at.is_some_and(|wrote_at| wrote_at > now) {
            return None;
        }
        causal.want_freshness();
        if has_waited || !patience.get().may_wait(now) {
            return None;
        }
        self.stats.reads_waited.increment();
        let mut views = self.shared.views.subscribe();
        Some(Located::Soon(Box::pin(async move {
            let shown = views.wait_for(|view| is_shown(&view.replicas, &facts));
            // In time or not, it is looked again.
            let _ = tokio::time::timeout(time_max, shown).await;
        })))
    }

    fn replicas(&self) -> usize {
        self.settled.borrow().config.cluster.replicas.len()
    }

    /// A replica has not taken a read, though it was chosen for it.
    pub fn note_not_taken(&self, place: Place, refusal: &Refusal) {
        self.stats.reads_fallen_back.increment();
        let Place::Replica(index) = place else { return };
        // What it has against one user or database says nothing of it, nor does a pool that is used up.
        if matches!(refusal.sqlstate, "28P01" | "28000" | "3D000" | "42501" | "53300") {
            return;
        }
        let settled = self.settled.borrow();
        if let Some(target) = settled.pools.targets.get(1 + index)
            && let Some(served) = self.shared.pools.served.of(&target.name).of(self.index)
        {
            served.reads_failed.increment();
        }
    }

    /// The pool of reads at a replica; or at the primary, of those that no replica takes.
    pub fn read_pool(&self, client: &Client, place: Place, now: Instant) -> Rc<PoolCell> {
        let instance = match place {
            Place::Primary => 0,
            Place::Replica(index) => 1 + index,
        };
        let mut pools = client.read_pools.borrow_mut();
        if pools.len() <= instance {
            pools.resize(instance + 1, None);
        }
        if let Some(pool) = pools.get(instance).cloned().flatten() {
            return pool;
        }
        let key = PoolKey {
            database: client.database.clone(),
            user: client.user.clone(),
            instance,
            kind: PoolKind::Read,
        };
        let pool = self.pools.pool(&key, &client.credentials, now);
        if let Some(place) = pools.get_mut(instance) {
            *place = Some(pool.clone());
        }
        pool
    }

    /// For a critical statement, the pool of connections that are kept from others, if those of `pool` are in use.
    pub fn critical_pool(&self, client: &Client, pool: Rc<PoolCell>, now: Instant) -> Rc<PoolCell> {
        let key = pool.key();
        let settled = self.settled.borrow();
        if settled.config.pool_settings(&key.database, &key.user).critical_max == 0
            || !pool.is_used_up()
        {
            return pool;
        }
        let key = PoolKey { kind: PoolKind::Critical, ..key.clone() };
        drop(settled);
        let critical = self.pools.pool(&key, &client.credentials, now);
        if critical.is_used_up() { pool } else { critical }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_again_and_again_waits_less_and_less_until_it_is_worth_it() {
        let mut now = Instant::now();
        let mut patience = Patience::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            assert!(patience.may_wait(now));
            patience = patience.handle_vain(now);
            let until = patience.none_until.unwrap();
            assert!(!patience.may_wait(now) && patience.may_wait(until));
            // Others that waited at the same time.
            assert_eq!(patience.handle_vain(now), patience);
            pauses.push((until - now).as_millis());
            now = until;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
        patience = patience.handle_shown();
        assert!(patience.may_wait(now));
        assert_eq!(patience.handle_vain(now).none_until, Some(now + WAIT_AGAIN_MIN));
    }
}
