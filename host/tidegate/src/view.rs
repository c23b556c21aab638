//! What the control plane knows, as the data plane sees it: one immutable snapshot, replaced as a whole.

mod causal; // what reads have to see beyond their session's past
mod commits; // commits that clients have been told of

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustc_hash::FxHashMap;
use tidegate_cache::{Stamp, Tables};
use tidegate_cluster::Load;
use tidegate_core::catalogue::Catalogue;
use tidegate_core::limits::CATALOGUES_MAX;
use tidegate_core::roles::Roles;
use tidegate_core::route::{Lsn, ReplicaView};
use tokio::sync::watch;

use causal::Causal;
pub use commits::{Commit, Commits, Kept, keep};

/// Tags that policies are told of. A plan holds for one shape with these tags.
pub const TAGS_TOLD: [&str; 2] = ["route", "priority"];
/// The tag that names the application's user.
pub const END_USER_TAG: &str = "user_id";

/// The server waits five seconds for others to leave a database (`CountOtherDBBackends`).
const VACATED_TIME: Duration = Duration::from_secs(6);

/// One database's catalogue, and how new it is.
#[derive(Clone, Debug)]
pub struct Known {
    pub catalogue: Arc<Catalogue>,
    /// The count of schema changes that had passed when it was read: later ones are not in it.
    pub schema: u64,
    /// What matters to answers that are kept, if any are.
    pub tables: Option<KnownTables>,
}

/// What a catalogue says about answers that are kept, and how new it is.
#[derive(Clone, Debug)]
pub struct KnownTables {
    /// `None`: nothing is kept of this database, since code that no text names may do anything.
    pub tables: Option<Arc<Tables>>,
    /// It holds as long as this does.
    pub stamp: Stamp,
    /// Another number, another reading; of all databases.
    pub serial: u64,
}

/// Who is a member of which roles, and which reading that is: another number, other memberships.
#[derive(Clone, Debug)]
pub struct KnownRoles {
    pub roles: Arc<Roles>,
    pub stamp: u64,
}

/// How busy a server's machine is, and who says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadView {
    pub load: Load,
    /// `database` or `node_exporter`; `None`: nobody.
    pub source: Option<&'static str>,
    /// Why it is not known.
    pub trouble: Option<Arc<str>>,
}

/// One server, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberView {
    pub name: Arc<str>,
    pub address: Arc<str>,
    /// Writes go there.
    pub is_in_force: bool,
    /// By its own word; `None`: it does not answer.
    pub is_primary: Option<bool>,
    pub timeline: Option<u32>,
    /// Written, or received.
    pub position: Option<Lsn>,
    /// Of a replica.
    pub lag: Option<Duration>,
    pub serves_reads: bool,
    /// It would, and is left out for a time: why.
    pub ejected: Option<&'static str>,
    /// How busy its machine is.
    pub load: LoadView,
    /// An operator wants no new reads there.
    pub is_drained: bool,
    /// Why it does not answer.
    pub fault: Option<&'static str>,
}

/// What was decided about the cluster, and when.
#[derive(Clone, Debug)]
pub struct ClusterEvent {
    pub at: SystemTime,
    pub level: tracing::Level,
    pub text: Arc<str>,
}

/// The cluster, for people.
#[derive(Clone, Debug)]
pub struct Topology {
    /// `steady`, `suspect`, `promoting`, …
    pub state: &'static str,
    /// Another server is about to become primary, by our doing.
    pub is_changing_roles: bool,
    /// Statements for the primary wait.
    pub is_held: bool,
    /// `failover.mode`.
    pub mode: &'static str,
    /// The primary in force, then the others.
    pub members: Vec<MemberView>,
    /// How often another server has become the primary in force.
    pub primary_changes: u64,
    /// The last ones, oldest first.
    pub events: Vec<ClusterEvent>,
    /// Of the last failover.
    pub losses: Option<Arc<LossReport>>,
}

/// Which acknowledged commits a failover has lost.
#[derive(Clone, Debug)]
pub struct LossReport {
    pub at: SystemTime,
    /// Who was primary, and who is.
    pub before: Arc<str>,
    pub after: Arc<str>,
    /// So far the new one has the log of the one before.
    pub fork: Lsn,
    /// What was acknowledged until then is there.
    pub safe_until: Option<SystemTime>,
    /// Commits that are not there, and those of which that is not known.
    pub lost: usize,
    pub uncertain: usize,
    /// Some of these are not kept any more.
    pub is_cut: bool,
    /// The first of both, oldest first.
    pub commits: Vec<LostCommit>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct LostCommit {
    pub acknowledged_at: SystemTime,
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub application: Arc<str>,
    pub verb: &'static str,
    /// It is lost for certain.
    pub is_certain: bool,
}

/// What is ordered about the cluster, by operators but for the last; servers by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// Another primary, without loss; `None`: whoever is best.
    Switchover { to: Option<String> },
    /// Another primary, whatever is lost.
    Failover { to: String, force: Force },
    /// No new reads for this replica.
    Drain { server: String },
    /// Reads as before.
    Undrain { server: String },
    /// This replica is made a copy of the primary again.
    Resync { server: String },
    /// This process ends and has no client any more: other Tidegates need not wait for it. The answer is when they know.
    Leave,
}

/// Whether an operator takes it upon himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Only if the primary is gone as far as can be seen.
    No,
    Yes,
}

/// The replicas, catalogues and roles as they were last seen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// In the order of the configuration.
    pub replicas: Vec<ReplicaView>,
    /// Their names, in the same order.
    pub names: Arc<[Arc<str>]>,
    pub catalogues: FxHashMap<Arc<str>, Known>,
    /// `None` until somebody has wanted them and they were read.
    pub roles: Option<KnownRoles>,
    /// `None` where there are no replicas.
    pub topology: Option<Arc<Topology>>,
}

/// Between the control plane, which writes, and the workers, which read and say what they need.
#[derive(Debug, Default)]
pub struct Views {
    sender: watch::Sender<Arc<View>>,
    /// Databases whose catalogue somebody needs.
    wanted: Mutex<HashSet<Arc<str>>>,
    /// Databases that are to be left alone, and since when.
    vacated: Mutex<HashMap<Box<str>, Instant>>,
    /// How many different memberships were seen.
    role_readings: AtomicU64,
    /// What reads have to see.
    pub causal: Causal,
    /// What clients have been told is committed.
    pub commits: Commits,
    /// Does a policy want to know who is a member of which roles?
    roles_wanted: watch::Sender<bool>,
}

impl Views {
    /// For a worker: the newest view without waiting.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.sender.subscribe()
    }

    pub fn latest(&self) -> Arc<View> {
        self.sender.borrow().clone()
    }

    /// Replaces the view by one that differs in this.
    pub fn update(&self, change: impl FnOnce(&mut View)) {
        self.sender.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// A client has logged in to this database, so a server has said that there is one. Beyond `CATALOGUES_MAX` its statements
    /// stay on the primary.
    pub fn want(&self, database: &Arc<str>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < CATALOGUES_MAX {
            wanted.insert(database.clone());
        }
    }

    /// There is no such database any more: nobody wants it until the next client logs in to it.
    pub fn forget(&self, database: &Arc<str>) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(database);
    }

    /// Those that are wanted, and that nobody is about to drop or rename.
    pub fn wanted(&self) -> Vec<Arc<str>> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut vacated = self.vacated.lock().unwrap_or_else(PoisonError::into_inner);
        vacated.retain(|_, since| since.elapsed() < VACATED_TIME);
        wanted.iter().filter(|name| !vacated.contains_key(&***name)).cloned().collect()
    }

    /// These databases are about to be dropped, renamed or copied, for which nobody may be connected to them, we included.
    pub fn vacate(&self, databases: &[String]) {
        if databases.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut vacated = self.vacated.lock().unwrap_or_else(PoisonError::into_inner);
        vacated
            .extend(databases.iter().take(CATALOGUES_MAX).map(|name| (name.as_str().into(), now)));
    }

    /// Memberships that differ from those before, under a number that none before them had, whatever is reloaded.
    pub fn number_roles(&self, roles: Roles) -> KnownRoles {
        let stamp = self.role_readings.fetch_add(1, Ordering::Relaxed) + 1;
        KnownRoles { roles: Arc::new(roles), stamp }
    }

    /// A policy is asked about somebody, and is to be told their roles.
    pub fn want_roles(&self) {
        self.roles_wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
    }

    /// Resolves when they are wanted.
    pub async fn roles_wanted(&self) {
        // The sender is this one: it cannot be gone.
        let _ = self.roles_wanted.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// The newest view, with roles in it: waits for them until the deadline.
    pub async fn with_roles(&self, deadline: tokio::time::Instant) -> Arc<View> {
        self.want_roles();
        let mut views = self.subscribe();
        let known = views.wait_for(|view| view.roles.is_some());
        match tokio::time::timeout_at(deadline, known).await {
            Ok(Ok(view)) => view.clone(),
            Ok(Err(_)) | Err(_) => self.latest(),
        }
    }
}
