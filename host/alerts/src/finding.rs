//! What may be wrong, how bad that is, and what there is to do.

use std::time::Duration;

/// Trouble that may end by itself in a moment is told after this.
const BLIP_TIME: Duration = Duration::from_secs(1);

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The primary may be gone, is, or another is taking its place.
    Primary,
    /// The primary is gone, and nobody is promoted.
    Failover,
    /// Statements for the primary are not held any more: they fail.
    Writes,
    /// Acknowledged commits are lost, or may be.
    Losses,
    /// Too few good replicas.
    Replicas,
    /// A replica is too far behind.
    Lag,
    /// A replica does not answer as one of the primary's.
    Replica,
    /// A server is a primary on a timeline that was left behind.
    Outdated,
    /// Two primaries on one timeline.
    Twin,
    /// A server of another cluster.
    OtherSystem,
    /// Tidegate's user may not do what a failover takes.
    Grants,
    /// A pool's circuit breaker is open: statements that need a connection fail at once.
    Breaker,
    /// A pool is nearly used up.
    Pool,
    /// A Redis that several Tidegates share is lost.
    Redis,
    /// Writes past Tidegate cannot be followed in the log of a database.
    Log,
    /// An answer that was given from what is kept was not what the primary has.
    Cache,
    /// etcd or Patroni does not answer, or Patroni is where it must not be.
    Manager,
    /// Somebody wants to see whether alerts arrive.
    Test,
}

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Critical,
    Warning,
    Info,
}

/// Something is wrong now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub condition: Condition,
    /// The server or pool that it is about, if it is about one.
    pub server: Option<String>,
    /// A sentence.
    pub what: String,
    /// Told at once: it is acted upon already.
    pub is_urgent: bool,
}

impl Finding {
    /// What tells it from all others, as long as it lasts.
    pub fn key(&self) -> String {
        match &self.server {
            Some(server) => format!("{}/{server}", self.condition.label()),
            None => self.condition.label().to_owned(),
        }
    }

    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.condition == other.condition && self.server == other.server
    }
}

impl Condition {
    pub const ALL: [Self; 18] = [
        Self::Primary,
        Self::Failover,
        Self::Writes,
        Self::Losses,
        Self::Replicas,
        Self::Lag,
        Self::Replica,
        Self::Outdated,
        Self::Twin,
        Self::OtherSystem,
        Self::Grants,
        Self::Breaker,
        Self::Pool,
        Self::Redis,
        Self::Log,
        Self::Cache,
        Self::Manager,
        Self::Test,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Failover => "failover",
            Self::Writes => "writes",
            Self::Losses => "lost-commits",
            Self::Replicas => "replicas",
            Self::Lag => "lag",
            Self::Replica => "replica",
            Self::Outdated => "outdated-primary",
            Self::Twin => "two-primaries",
            Self::OtherSystem => "other-cluster",
            Self::Grants => "grants",
            Self::Breaker => "breaker",
            Self::Pool => "pool",
            Self::Redis => "redis",
            Self::Log => "cache-log",
            Self::Cache => "cache",
            Self::Manager => "manager",
            Self::Test => "test",
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Self::Primary | Self::Failover | Self::Writes | Self::Losses | Self::Twin => {
                Severity::Critical
            }
            Self::Replicas
            | Self::Lag
            | Self::Replica
            | Self::Outdated
            | Self::OtherSystem
            | Self::Grants
            | Self::Breaker
            | Self::Pool
            | Self::Redis
            | Self::Log
            | Self::Cache
            | Self::Manager => Severity::Warning,
            Self::Test => Severity::Info,
        }
    }

    /// It must have lasted so long.
    pub fn told_after(self) -> Duration {
        match self {
            Self::Primary
            | Self::Replica
            | Self::Pool
            | Self::Redis
            | Self::Log
            | Self::Manager => BLIP_TIME,
            _ => Duration::ZERO,
        }
    }

    /// What to do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Primary => {
                "see why the server is gone; `tidegate topology` shows the cluster. With failover.mode = \"follow\", promote a \
                 replica if it does not come back"
            }
            Self::Failover => {
                "bring the primary back, remove what stands against a failover, or order one: `tidegate failover --to SERVER`"
            }
            Self::Writes => {
                "clients get errors for what they write: bring the primary back, or order a failover: `tidegate failover --to \
                 SERVER`"
            }
            Self::Losses => {
                "GET /api/v1/cluster lists them; the old primary's data directory has what they wrote (pg_waldump) until it is made \
                 a replica. synchronous_standby_names on the primary prevents it"
            }
            Self::Replicas => {
                "bring a replica back, or add one: the next server that is lost may take the service with it"
            }
            Self::Lag => {
                "see what keeps it from replaying: a long query there, its disk, its network, replay that is paused"
            }
            Self::Replica => {
                "see whether it runs and receives (pg_stat_wal_receiver); `tidegate topology` says why it is not used"
            }
            Self::Outdated => {
                "stop it, and make it a replica of the primary in force: pg_rewind, else pg_basebackup"
            }
            Self::Twin => {
                "stop the one that is not the primary before anybody writes there, and make it a replica"
            }
            Self::OtherSystem => "correct [cluster]: the server belongs to another cluster",
            Self::Grants => {
                "run the SQL as a superuser on the primary: until then no failover and no switchover succeeds"
            }
            Self::Breaker => {
                "see why connections to that server fail (Tidegate's log, GET /api/v1/pools); what is open is tried again by itself"
            }
            Self::Pool => {
                "find what keeps connections (GET /api/v1/clients), make transactions shorter, or raise pool.size_max"
            }
            Self::Log => {
                "nothing is kept of that database until its log is followed, by itself: see what stands against it in \
                 docs/cache.md#writes-past-tidegate, or set cache.follow_wal = false"
            }
            Self::Redis => {
                "see whether that Redis runs, answers, and takes Tidegate's password; what is shared in it is shared again by itself"
            }
            Self::Cache => {
                "find what writes past Tidegate (psql to the server, cron, a subscription, a Tidegate that is in nobody's [[peers]]), or \
                 why the statement need not have the same answer twice (no ORDER BY): then take its rule out. `tidegate cache invalidate \
                 --all` takes everything meanwhile"
            }
            Self::Manager => {
                "see whether etcd, or Patroni's REST API, runs and answers ([failover.etcd], [failover.patroni]); beside Patroni, set \
                 failover.mode = \"external\""
            }
            Self::Test => "nothing: somebody has asked for this message",
        }
    }
}

impl Severity {
    pub fn label(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}
