//! What statements have used up of their limits: counted by this process alone, or together with others in one Redis.
//!
//! ```text
//!  workers ── admit ──▶ Limiter ── orders ──▶ session (a thread of its own) ──▶ Redis (function.rs)
//!     ▲                    ▲                     │
//!     └── who waited ◀─────┴── what was taken ◀──┘
//! ```
//!
//! What is decided, and why no limit is exceeded, is `host/limiter`'s. Here it is carried out: a statement whose units are not
//! in hand waits for Redis, no longer than a deadline; nobody else waits for anything but the lock around the counts.

mod function; // what runs in Redis, and its calls
mod session; // the thread that owns the connection

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tidegate_limiter::{Counts, Execution, Keyed, Limiter, Name, Order, SharedConfig, Verdict};
use tokio::sync::{mpsc, oneshot};

use crate::config::{RateRedis, Rates};

/// Questions that wait for the thread; of more, the rest is counted here.
const ORDERS_MAX: usize = 8_192;

/// Resolves when it is worth to ask again.
pub type Asking = oneshot::Receiver<()>;

/// The counts, and who waits for them.
struct State {
    limiter: Limiter,
    /// By bucket.
    waiting: FxHashMap<u128, Vec<oneshot::Sender<()>>>,
    /// Why they are not counted together, if they are not; as people have been told.
    said: Option<Option<String>>,
}

/// What the thread shares with everybody else.
struct Inner {
    state: Mutex<State>,
    began: Instant,
    redis: Option<RateRedis>,
}

/// The process's counters. The thread, if there is one, ends with them.
pub struct Counters {
    inner: Arc<Inner>,
    orders: Option<mpsc::Sender<Order>>,
}

/// What is known of those who count together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// They are reached.
    pub is_shared: bool,
    pub members: u32,
    pub counts: Counts,
    /// Where it is, and why it is not reached, if people have been told.
    pub redis: String,
    pub why_not: Option<String>,
}

impl Counters {
    /// `peers`: how many other processes the configuration names. With a Redis, starts the thread that asks it.
    ///
    /// # Errors
    /// The system gives no thread or no event loop.
    pub fn start(rates: &Rates, peers: usize) -> std::io::Result<Arc<Self>> {
        let members = u32::try_from(peers).unwrap_or(u32::MAX).saturating_add(1);
        let limiter = rates.redis.as_ref().map_or_else(Limiter::default, |redis| {
            let RateRedis { deadline, fail_mode, .. } = *redis;
            Limiter::shared(SharedConfig { deadline, fail_mode, members })
        });
        let inner = Arc::new(Inner {
            state: Mutex::new(State { limiter, waiting: FxHashMap::default(), said: None }),
            began: Instant::now(),
            redis: rates.redis.clone(),
        });
        let orders = match &rates.redis {
            Some(redis) => {
                let (sender, orders) = mpsc::channel(ORDERS_MAX);
                session::start(inner.clone(), redis.clone(), orders)?;
                Some(sender)
            }
            None => None,
        };
        Ok(Arc::new(Self { inner, orders }))
    }

    /// Charges all buckets, or none of them. What comes with [`Verdict::Asked`] resolves when it is answered.
    pub fn admit(
        &self,
        buckets: &[Keyed<'_>],
        execution: &Execution,
        name: &mut dyn FnMut(usize) -> Name,
    ) -> (Verdict, Option<Asking>) {
        let mut state = self.inner.state();
        // Read with the lock held, so that it never goes backwards.
        let now = self.inner.now();
        let verdict = state.limiter.admit(buckets, execution, name, now);
        let Verdict::Asked(bucket, _) = verdict else { return (verdict, None) };
        while let Some(order) = state.limiter.poll_order() {
            let (key, number) = (order.key, order.number);
            let is_sent = self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok());
            if !is_sent {
                state.limiter.handle_refused(key, number, now);
            }
        }
        let (sender, asking) = oneshot::channel();
        state.waiting.entry(bucket).or_default().push(sender);
        (verdict, Some(asking))
    }

    /// `None`: each process counts for itself.
    pub fn standing(&self) -> Option<Standing> {
        let redis = self.inner.redis.as_ref()?.url.to_string();
        let state = self.inner.state();
        Some(Standing {
            is_shared: state.limiter.is_reached(),
            members: state.limiter.members(),
            counts: state.limiter.counts(),
            redis,
            why_not: state.said.clone().flatten(),
        })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

impl State {
    /// Those who wait for a bucket may ask again.
    fn wake(&mut self, bucket: u128) {
        if let Entry::Occupied(waiting) = self.waiting.entry(bucket) {
            waiting.remove().into_iter().for_each(wake);
        }
    }

    fn wake_all(&mut self) {
        self.waiting.drain().flat_map(|(_, waiting)| waiting).for_each(wake);
    }

    /// One line at each change.
    fn say(&mut self, redis: &str, why_not: Option<String>) {
        let changed = self.said.as_ref().is_none_or(|said| said.is_some() != why_not.is_some());
        match &why_not {
            _ if !changed => {}
            Some(why) => tracing::warn!(redis, why, "limits are not counted with other Tidegates"),
            None => {
                let members = self.limiter.members();
                tracing::info!(redis, members, "limits are counted with other Tidegates in Redis");
            }
        }
        self.said = Some(why_not);
    }
}

fn wake(waiting: oneshot::Sender<()>) {
    // Whoever waited may have gone.
    let _ = waiting.send(());
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counters")
    }
}
