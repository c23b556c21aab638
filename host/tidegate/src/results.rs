//! The answers that are kept: one store of the process, for all workers and the control plane.
//!
//! One lock around it: a look is some hundred nanoseconds, and what several tables, several workers and an exact order of use
//! have to agree on is then agreed on by itself.

mod following; // writes that do not pass, as a log tells of them
mod inspected; // whether what was given was true
mod leading; // single flight
mod rules; // how often what is kept has helped

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_cache::{
    Answer, Counts, Deny, Doubt, FollowCounts, Followers, Landing, Stamp, Store, Stored, Tag,
};
use tokio::sync::{oneshot, watch};

use crate::config::{Admission, CacheSettings};
use crate::sharing::{Gates, Sharing};
pub use following::{FollowState, FollowedCounts, FollowedLogs};
pub use inspected::Inspected;
pub use leading::{Followed, Following, Leading, Run};
pub use rules::RuleCounts;
use rules::Rules;

/// A server process of which nothing is known is taken to have ended after this long.
const UNKNOWN_PROCESS_TIME_MAX: Duration = Duration::from_secs(600);
/// One that is looked for is given this long to be seen.
const DOUBT_TIME_MIN: Duration = Duration::from_secs(2);

/// What may be committed by a server process that nobody hears from any more.
struct Lost {
    process: Option<i32>,
    since: Instant,
    doubt: Doubt,
}

/// What is kept, and who waits for what is to be.
struct Kept {
    store: Store,
    followers: Followers<oneshot::Sender<Landing>>,
}

/// The store, and whether it is in use.
pub struct Results {
    kept: Mutex<Kept>,
    /// 0 while nothing is kept; else the number of this round of keeping.
    round: AtomicU64,
    last_round: AtomicU64,
    readings: AtomicU64,
    is_wanted: watch::Sender<bool>,
    lost: Mutex<Vec<Lost>>,
    /// By `Deny::ALL`.
    denied: [AtomicU64; Deny::ALL.len()],
    rules: Rules,
    seed: u64,
    /// How long a writer waits for what is read again.
    write_through: Option<Duration>,
    rereads: AtomicU64,
    warmed: AtomicU64,
    pub inspected: Inspected,
    /// Answers of at least so many bytes are compressed.
    pack_min: Option<usize>,
    sharing: Option<Arc<Sharing>>,
    /// Where writes are followed that do not pass.
    logs: Option<FollowedLogs>,
}

impl Results {
    /// `seed` is the process's.
    pub fn new(settings: &CacheSettings, seed: u128) -> Arc<Self> {
        let mut store = Store::new(settings.bounds);
        let sharing = settings.redis.clone().map(|redis| Sharing::new(redis, seed));
        if sharing.is_some() {
            store.share();
        }
        if settings.admission == Admission::Second {
            store.admit_second();
        }
        let logs = settings.follow.is_some().then(FollowedLogs::default);
        if logs.is_some() {
            store.follow();
        }
        let followers = Followers::new(settings.single_flight.unwrap_or_default());
        Arc::new(Self {
            kept: Mutex::new(Kept { store, followers }),
            round: AtomicU64::new(0),
            last_round: AtomicU64::new(0),
            readings: AtomicU64::new(0),
            is_wanted: watch::Sender::new(false),
            lost: Mutex::default(),
            denied: std::array::from_fn(|_| AtomicU64::new(0)),
            rules: Rules::default(),
            write_through: settings.write_through,
            rereads: AtomicU64::new(0),
            warmed: AtomicU64::new(0),
            inspected: Inspected::new(settings.inspect_per_second),
            pack_min: settings.pack_min,
            seed: (seed >> 64) as u64 ^ seed as u64,
            sharing,
            logs,
        })
    }

    /// Where several processes share what they keep.
    pub fn sharing(&self) -> Option<&Arc<Sharing>> {
        self.sharing.as_ref()
    }

    /// Where writes are followed that do not pass; `None`: nowhere.
    pub fn logs(&self) -> Option<&FollowedLogs> {
        self.logs.as_ref()
    }

    /// The number of the round of keeping; 0 while nothing is kept. Whoever has sent statements in an earlier round, or in
    /// none, has sent what nobody knows.
    #[inline]
    pub fn round(&self) -> u64 {
        // Sequentially consistent with `keep`: who finds none after a commit knows that no answer was begun before it.
        self.round.load(Ordering::SeqCst)
    }

    /// Begins or ends a round, as a policy has something to keep or not.
    pub fn keep(&self, wanted: bool) {
        if wanted == (self.round() != 0) {
            return;
        }
        let number = self.last_round.fetch_add(1, Ordering::Relaxed) + 1;
        // Whatever was kept or marked before was followed by nobody since.
        self.with(Store::restart);
        self.round.store(if wanted { number } else { 0 }, Ordering::SeqCst);
        self.is_wanted.send_replace(wanted);
        tracing::info!(wanted, "answers are kept");
    }

    /// Resolves when answers are kept.
    pub async fn wanted(&self) {
        // The sender is this one: it cannot be gone.
        let _ = self.is_wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the store. Nothing in it waits; others who share are told, in their time.
    pub fn with<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        self.with_gates(None, act).0
    }

    /// The same, for what may have to wait until others know: a commit on its way to this server process, or from it.
    pub fn with_gates<T>(
        &self,
        process: Option<i32>,
        act: impl FnOnce(&mut Store) -> T,
    ) -> (T, Gates) {
        let mut kept = self.kept();
        let done = act(&mut kept.store);
        let told = kept.store.take_told();
        drop(kept);
        let gates = match &self.sharing {
            Some(sharing) if !told.is_empty() => sharing.tell(told, process),
            _ => Gates::default(),
        };
        (done, gates)
    }

    pub fn stamp(&self, database: &Arc<str>) -> Stamp {
        self.with(|store| store.stamp(database, Instant::now()))
    }

    /// May anything be kept of what was found under this stamp? Where writes are followed that do not pass, not before they are.
    pub fn is_followed(&self, database: &Arc<str>, stamp: Stamp) -> bool {
        let now = Instant::now();
        self.logs.is_none()
            || self.with(|store| {
                store.is_followed(database, now) && store.stamp(database, now) == stamp
            })
    }

    /// A number for a reading of a catalogue that no other has, of whatever database and configuration: what was found by one
    /// says nothing of another.
    pub fn number_reading(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The versions of the cluster and of a database, among all who share, as they were read just now.
    pub fn note_names(&self, database: &Arc<str>, [cluster, own]: [u64; 2]) {
        let tags = [Tag::Cluster, Tag::Database(database.clone())];
        let versions = tags.iter().zip([cluster, own]);
        self.with(|store| store.note_shared(versions, None, Instant::now()));
    }

    /// Nothing that was kept stands: the servers are others, or have lost something.
    pub fn forget_all(&self) {
        self.with(|store| store.bump(&[Tag::Cluster], Instant::now()));
    }

    /// What the names of a database mean was found to have changed without a statement that passed; says what stands from now on.
    pub fn correct(&self, database: &Arc<str>, read_at: Stamp) -> Stamp {
        self.with(|store| {
            let now = Instant::now();
            if store.stamp(database, now) == read_at {
                store.bump(&[Tag::Database(database.clone())], now);
                return store.stamp(database, now);
            }
            read_at
        })
    }

    /// A server is lost that may have committed, or may yet.
    pub fn doubt(&self, process: Option<i32>, doubt: Doubt) {
        if !doubt.is_empty() {
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.push(Lost { process, since: Instant::now(), doubt });
        }
    }

    /// Server processes that are in doubt.
    pub fn doubtful(&self) -> Vec<i32> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let orphans = self.sharing.as_ref().map(|sharing| sharing.orphans());
        lost.iter().filter_map(|lost| lost.process).chain(orphans.unwrap_or_default()).collect()
    }

    /// Is anything in doubt?
    pub fn is_in_doubt(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.has_orphans())
            || !self.lost.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The primary was asked at `asked_at`, and of those in doubt only these run.
    pub fn resolve(&self, running: &[i32], asked_at: Instant) {
        if let Some(sharing) = &self.sharing {
            sharing.resolve(running, asked_at);
        }
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, over) = std::mem::take(&mut *lost).into_iter().partition(|lost: &Lost| {
            let age = asked_at.saturating_duration_since(lost.since);
            match lost.process {
                Some(process) => age < DOUBT_TIME_MIN || running.contains(&process),
                None => age < UNKNOWN_PROCESS_TIME_MAX,
            }
        });
        *lost = open;
        drop(lost);
        let over: Vec<Lost> = over;
        for lost in over {
            self.with(|store| lost.doubt.resolve(store, Instant::now()));
        }
    }

    /// How often reads have waited for others of the same.
    pub fn follow_counts(&self) -> FollowCounts {
        self.kept().followers.counts()
    }

    /// What happened so far; answers that are kept, and their bytes.
    pub fn counts(&self) -> (Counts, usize, usize) {
        self.with(|store| (store.counts(), store.len(), store.bytes()))
    }

    /// How long a writer waits for what is read again; `None`: nothing is.
    pub fn write_through(&self) -> Option<Duration> {
        self.write_through
    }

    /// An answer as it is to be kept. Large ones take their time, so nothing is locked.
    pub fn stored(&self, answer: Answer) -> Arc<Stored> {
        Arc::new(Stored::new(answer, self.pack_min))
    }

    /// Something is read again since it was written.
    pub fn note_reread(&self) {
        self.rereads.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn rereads(&self) -> u64 {
        self.rereads.load(Ordering::Relaxed)
    }

    /// So many answers are kept since an operator has named their statements.
    pub fn note_warmed(&self, count: usize) {
        self.warmed.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// How many those were.
    pub fn warmed(&self) -> u64 {
        self.warmed.load(Ordering::Relaxed)
    }

    /// A policy wanted an answer to be kept that may not be.
    pub fn note_denied(&self, why: Deny) {
        if let Some(place) = Deny::ALL.iter().position(|deny| *deny == why) {
            self.denied[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where statements are counted that a policy wants kept.
    pub fn rule(
        &self,
        database: &Arc<str>,
        tables: Vec<Box<str>>,
        ttl: Duration,
    ) -> Arc<RuleCounts> {
        self.rules.of(database, tables, ttl)
    }

    /// All rules that statements have met.
    pub fn rules(&self) -> Vec<Arc<RuleCounts>> {
        self.rules.all()
    }

    /// By `Deny::ALL`.
    pub fn denied(&self) -> Vec<u64> {
        self.denied.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl std::fmt::Debug for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Results")
    }
}
