//! Bounds of routing: replicas, and what is known of databases.

use std::time::Duration;

/// What was decided about a cluster, for whoever asks; older events are in the log alone.
pub const CLUSTER_EVENTS_MAX: usize = 100;

/// Positions of the primary's log that are remembered to tell how fresh replicas are. At five a second this is more than
/// twice as far back as a replica may lag and still be read.
pub const FRESHNESS_SAMPLES_MAX: usize = 64;

/// A replica further behind serves no reads (property 10).
pub const REPLICA_LAG_MAX: Duration = Duration::from_secs(5);
/// One that was too far behind serves reads again below this (property 10).
pub const REPLICA_LAG_RETURN: Duration = Duration::from_secs(2);
/// A read waits this long for a replica to catch up, by default: nine of ten writes were replayed within 8 ms.
pub const REPLICA_CATCH_UP_MAX: Duration = Duration::from_millis(10);
/// Databases whose catalogue is kept; statements of others stay on the primary.
pub const CATALOGUES_MAX: usize = 64;
/// A change of a schema that did not pass through Tidegate, or is hidden in a function, is seen after this: what is known of a
/// database is asked for anew.
pub const SCHEMA_SEEN_TIME_MAX: Duration = Duration::from_secs(60);
/// Functions and relations of one database beyond which its catalogue is not kept (some 100 bytes each).
pub const CATALOGUE_ROWS_MAX: usize = 500_000;
/// Tables of one statement that policies of advice are told of, and the columns, values and indexes of these.
pub const STATISTICS_TABLES_MAX: usize = 32;
pub const STATISTICS_ROWS_MAX: usize = 10_000;
/// Grants of roles to roles on a server beyond which none is known (some 100 bytes each).
pub const ROLE_GRANTS_MAX: usize = 100_000;

/// A replica that begins to serve reads has its whole share after this, by default.
pub const SLOW_START_TIME: Duration = Duration::from_secs(10);
/// A replica is slow, by default, if it takes so many times what the others take, and so much more; then it gets no reads for
/// so long, the first time.
pub const EJECT_RATIO: usize = 4;
pub const EJECT_RATIO_MAX: usize = 1_000;
pub const EJECT_FLOOR: Duration = Duration::from_millis(25);
pub const EJECT_TIME: Duration = Duration::from_secs(30);
/// Reads that no replica takes may use so much of a pool's size at the primary, in percent, by default.
pub const FALLBACK_PERCENT: usize = 50;
/// Servers with settings of their own.
pub const SERVERS_MAX: usize = 256;
