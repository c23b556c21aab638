//! Answers that several Tidegates share in one Redis: a task that owns the connection, and what everybody else asks of it.
//!
//! ```text
//!  workers ── look, put, mark, end ──▶ queue ──▶ session ──▶ Redis (scripts.rs)
//!     ▲                                            │
//!     └── what was found; gates that open ◀────────┘
//! ```
//!
//! What is decided, and why it holds, is [`Membership`]'s; `host/cache/src/model/shared.rs` searches through it. Here it is
//! carried out: whatever Redis does not answer in time, refuses or has lost ends the session, and the process is apart
//! until there is another. Nobody waits for Redis longer than a deadline; who commits waits besides, once, until no other
//! process can serve what it cannot take away.

mod commands; // the connection, and what it answers
mod entries; // what applications put
mod gate; // what holds bytes back until others know
mod inbox; // who asks, and is answered
mod scripts; // what runs in Redis
mod session; // from the connection to its end
mod tags; // names and numbers as Redis has them

pub use entries::SharedEntryCounts;
pub use gate::{Gate, Gates, poll_open};
pub use inbox::{Looked, Looking, Shared};
pub use session::Note;
pub use tags::{Entry, KEY_SEED};

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidegate_cache::{Flight, Membership, MembershipConfig, Standing, Told};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::config::RedisSettings;
use inbox::{Order, Request};

/// Requests that wait for the task: more than ever are under way, since who asks waits.
const REQUESTS_MAX: usize = 8_192;
/// A server process that is looked for is given this long to be seen.
const ORPHAN_TIME_MIN: Duration = Duration::from_secs(2);
/// One of which nothing is known is taken to have ended after this long.
const ORPHAN_TIME_MAX: Duration = Duration::from_secs(600);

/// What a process of before, under this one's number, had under way when it ended.
#[derive(Debug)]
struct Orphan {
    process: Option<i32>,
    since: Instant,
}

#[derive(Debug)]
struct Core {
    membership: Membership,
    /// While there is a session.
    requests: Option<mpsc::Sender<Request>>,
    /// What people have been told last, if anything.
    said: Option<Said>,
    /// Where it is, for people, and why it is not shared, if it is not.
    redis: String,
    trouble: Option<String>,
}

/// What people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Shares,
    DoesNot,
}

/// What happened so far.
#[derive(Debug, Default)]
pub struct SharingCounts {
    pub looks: AtomicU64,
    /// Looks that were spared, since what was told a moment before stood.
    pub relied: AtomicU64,
    /// Answers that Redis had.
    pub hits: AtomicU64,
    pub puts: AtomicU64,
    /// Looks that were not answered in time.
    pub late: AtomicU64,
    /// Commits that could not be told in time.
    pub untold: AtomicU64,
    /// Ends of sessions.
    pub losses: AtomicU64,
    /// Of what applications put.
    pub entries: SharedEntryCounts,
}

/// One process's part.
pub struct Sharing {
    settings: RedisSettings,
    /// Random, of this process alone; in hexadecimal.
    process: String,
    core: Mutex<Core>,
    orphans: Mutex<Vec<Orphan>>,
    pub counts: SharingCounts,
}

impl Sharing {
    /// `seed` is the process's.
    pub fn new(settings: RedisSettings, seed: u128) -> Arc<Self> {
        let RedisSettings { lease, reliance, .. } = settings;
        // Until it is known who the others are, there is somebody.
        let config = MembershipConfig { own: 0, peers: [0].into(), lease, reliance };
        let core = Core {
            membership: Membership::new(config, Instant::now()),
            requests: None,
            said: None,
            redis: settings.url.to_string(),
            trouble: None,
        };
        Arc::new(Self {
            settings,
            process: format!("{:016x}", (seed >> 64) as u64 ^ (seed as u64).rotate_left(32)),
            core: Mutex::new(core),
            orphans: Mutex::default(),
            counts: SharingCounts::default(),
        })
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads wait for Redis no longer than this.
    pub fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    /// Marks, ends and beats may take this long: as long as there is nothing better than to wait.
    fn patience(&self) -> Duration {
        self.settings.lease / 2
    }

    /// May what is shared be believed now?
    pub fn may_serve(&self, now: Instant) -> bool {
        self.core().membership.may_serve(now)
    }

    /// May versions be believed, without being asked for again, that were asked for then to be relied on?
    pub fn may_rely(&self, from: Instant, now: Instant) -> bool {
        let relies = self.core().membership.may_rely(from, now);
        if relies {
            count(&self.counts.relied);
        }
        relies
    }

    /// Is anything ever relied on?
    pub fn relies(&self) -> bool {
        !self.settings.reliance.is_zero()
    }

    /// Is there a session, and are all others heard?
    pub fn standing(&self) -> (Standing, bool) {
        let core = self.core();
        (core.membership.standing(), core.membership.may_serve(Instant::now()))
    }

    /// Where answers should be shared, and why they are not.
    pub fn trouble(&self) -> Option<(String, String)> {
        let core = self.core();
        core.trouble.clone().map(|why| (core.redis.clone(), why))
    }

    /// May a commit go on that could not be told in this session?
    fn is_free(&self, session: u64, now: Instant) -> bool {
        self.core().membership.is_free(session, now)
    }

    /// Tells the others; what has to wait for that, waits at the gates. `process`: the server process that is to commit.
    pub fn tell(self: &Arc<Self>, all: Vec<Told>, process: Option<i32>) -> Gates {
        let mut gates = Gates::default();
        for told in all {
            match told {
                Told::Mark { token, tags, names } => {
                    let mut core = self.core();
                    core.membership.begin(token, Flight { process, tags: tags.clone() });
                    let order = Order::Mark { token, process, tags, names };
                    gates.to_server.push(self.ask(core, order));
                }
                Told::End { tokens, tags, names } => {
                    let mut core = self.core();
                    core.membership.end(&tokens);
                    let changes = !tags.is_empty();
                    let gate = self.ask(core, Order::End { tokens, tags, names });
                    // That nothing has changed, nobody needs to know.
                    gates.to_client.extend(changes.then_some(gate));
                }
            }
        }
        gates
    }

    fn ask(self: &Arc<Self>, mut core: MutexGuard<'_, Core>, order: Order) -> Gate {
        let session = core.membership.session();
        let answer = self.send(&mut core, order);
        if answer.is_none() {
            count(&self.counts.untold);
        }
        drop(core);
        Gate::new(self.clone(), session, answer, self.patience())
    }

    /// `None`: there is no session, or none any more.
    fn send(&self, core: &mut Core, order: Order) -> Option<inbox::Answer> {
        let requests = core.requests.as_ref()?;
        let (request, answer) = Request::new(order);
        match requests.try_send(request) {
            Ok(()) => return Some(answer),
            Err(TrySendError::Full(_)) => self.lose(core, "too much waits for it"),
            // It has just ended; why, its task says.
            Err(TrySendError::Closed(_)) => self.leave(core),
        }
        None
    }

    /// Whatever was not answered in this session, is not answered any more.
    fn give_up(&self, session: u64, why: &str) {
        let mut core = self.core();
        if core.membership.session() == session {
            self.lose(&mut core, why);
        }
    }

    fn lose(&self, core: &mut Core, why: &str) {
        self.leave(core);
        say(core, Some(why));
    }

    fn leave(&self, core: &mut Core) {
        if core.membership.standing() != Standing::Apart {
            count(&self.counts.losses);
        }
        core.requests = None;
        core.membership.handle_lost();
    }

    /// Now and then in a session: who is silent keeps the others from serving.
    fn note_standing(&self) {
        let mut core = self.core();
        let silent = core.membership.silent(Instant::now());
        let why = silent.map(|id| format!("the Tidegate with peer_id {id} is not heard"));
        say(&mut core, why.as_deref());
    }

    /// Server processes that may still commit what a process of before has begun.
    pub fn orphans(&self) -> Vec<i32> {
        let orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.iter().filter_map(|orphan| orphan.process).collect()
    }

    /// Is anything in doubt?
    pub fn has_orphans(&self) -> bool {
        !self.orphans.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The primary was asked at `asked_at`, and of those only these run.
    pub fn resolve(&self, running: &[i32], asked_at: Instant) {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        orphans.retain(|orphan| {
            let age = asked_at.saturating_duration_since(orphan.since);
            match orphan.process {
                Some(process) => age < ORPHAN_TIME_MIN || running.contains(&process),
                None => age < ORPHAN_TIME_MAX,
            }
        });
    }
}

/// One line at each change.
fn say(core: &mut Core, why_not: Option<&str>) {
    core.trouble = why_not.map(str::to_owned);
    let now = if why_not.is_some() { Said::DoesNot } else { Said::Shares };
    if core.said.replace(now) == Some(now) {
        return;
    }
    let redis = &core.redis;
    match why_not {
        Some(why) => tracing::warn!(
            redis,
            why,
            "no answers are kept or served: others cannot be told of writes"
        ),
        None => tracing::info!(redis, "answers are kept, and shared in Redis"),
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl std::fmt::Debug for Sharing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sharing")
    }
}
