//! What a failover takes, on the servers themselves.

use std::process::Stdio;
use std::time::Duration;

use tidegate_cluster::{Observation, point_to};
use tidegate_core::route::Lsn;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::probe::observe;
use crate::config::ServerAddress;
use crate::upstream::{Asker, ConnectError};

/// One statement of ours is given this long.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(5);
/// A switchover does not wait longer for the checkpoint before it.
const CHECKPOINT_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a replica is asked whether it is a primary yet.
const PROMOTION_LOOK: Duration = Duration::from_millis(5);
/// A promotion that is asked for in the moment in which the receiver dies is slept over for `wal_retrieve_retry_interval`
/// (5 s), unless a reload wakes the start-up process.
const PROMOTION_NUDGE: Duration = Duration::from_millis(30);
/// Each reload has every session there read the configuration, beside the promotion: twice the pause after each.
const PROMOTION_NUDGE_MAX: Duration = Duration::from_millis(480);
const PROMOTION_TIME_MAX: Duration = Duration::from_secs(60);
/// A server is made a replica again within this: a base backup may be part of it.
const REJOIN_TIME_MAX: Duration = Duration::from_secs(3600);

/// How a promotion ended.
#[derive(Debug)]
pub(super) enum Promotion {
    Done(Observation),
    /// It was never asked for.
    Refused(String),
    /// It was asked for, and what came of it is not known.
    InDoubt(String),
}

async fn run(asker: &mut Asker, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    match timeout(STATEMENT_TIME_MAX, asker.ask(sql)).await {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it did not answer in time".to_owned()),
    }
}

/// Makes a replica the primary; with `until`, not after then, however long we, or the network, sleep in between: the replica
/// itself looks at its clock.
pub(super) async fn promote(mut replica: Asker, until: Option<std::time::Instant>) -> Promotion {
    match is_of_patroni(&mut replica).await {
        Ok(false) => {}
        Ok(true) => {
            return Promotion::Refused(
                "Patroni manages it, and promotes whom it wants: set failover.mode = \"external\""
                    .to_owned(),
            );
        }
        Err(error) => return Promotion::Refused(error),
    }
    let sql = match until {
        None => "SELECT pg_catalog.pg_promote(false)".to_owned(),
        Some(until) => match promote_before(&mut replica, until).await {
            Ok(sql) => sql,
            Err(error) => return Promotion::Refused(error),
        },
    };
    match timeout(STATEMENT_TIME_MAX, replica.ask(&sql)).await {
        Ok(Ok(rows)) if rows.first().and_then(|row| row.first()?.as_deref()) == Some(TOO_LATE) => {
            return Promotion::Refused("the lease in etcd has run out meanwhile".to_owned());
        }
        Ok(Ok(_)) => {}
        // It has said no, or could not be told.
        Ok(Err(error @ (ConnectError::Refused(_) | ConnectError::Policy(_)))) => {
            return Promotion::Refused(error.to_string());
        }
        Ok(Err(error)) => return Promotion::InDoubt(error.to_string()),
        Err(_) => return Promotion::InDoubt("it did not answer in time".to_owned()),
    }
    let deadline = Instant::now() + PROMOTION_TIME_MAX;
    let mut pause = PROMOTION_NUDGE;
    let mut nudge_at = Instant::now() + pause;
    while Instant::now() < deadline {
        match observe(&mut replica).await {
            Ok(seen) if seen.is_primary() => return Promotion::Done(seen),
            _ => {}
        }
        if Instant::now() >= nudge_at {
            // Whether it may be nudged or not, it becomes primary.
            let _ = run(&mut replica, "SELECT pg_catalog.pg_reload_conf()").await;
            pause = (pause * 2).min(PROMOTION_NUDGE_MAX);
            nudge_at = Instant::now() + pause;
        }
        sleep(PROMOTION_LOOK).await;
    }
    Promotion::InDoubt("it is no primary yet".to_owned())
}

/// How far a primary had replayed the log of the one before when it was promoted. Source: `pg_last_wal_replay_lsn`, which stays as it
/// is after a recovery. `None`: it has begun anew since.
pub(super) async fn fork(mut primary: Asker) -> Result<Option<Lsn>, String> {
    let sql = "SELECT pg_catalog.pg_last_wal_replay_lsn() WHERE NOT pg_catalog.pg_is_in_recovery()";
    let rows = run(&mut primary, sql).await?;
    let row = rows.first().ok_or("it is no primary")?;
    Ok(row.first().and_then(|position| position.as_deref()).and_then(Lsn::parse))
}

const TOO_LATE: &str = "too late";

/// The statement that promotes, unless the replica's clock says that it is too late. It was read at the earliest just before it
/// answered, and at the latest now: what is left of the time is counted from there.
async fn promote_before(replica: &mut Asker, until: std::time::Instant) -> Result<String, String> {
    let sql = "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::numeric(20, 6)";
    let rows = run(replica, sql).await?;
    let clock = rows.first().and_then(|row| row.first()?.clone());
    let clock = clock.filter(|clock| clock.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let clock = clock.ok_or("it does not say what time it is")?;
    let left = until.saturating_duration_since(std::time::Instant::now()).as_micros();
    Ok(format!(
        "SELECT CASE WHEN extract(epoch FROM pg_catalog.clock_timestamp()) < {clock} + {left} / 1000000.0 \
         THEN pg_catalog.pg_promote(false)::text ELSE '{TOO_LATE}' END"
    ))
}

/// What Patroni starts a server with, on its command line, and nobody else all together (`CMDLINE_OPTIONS` in Patroni's
/// `postgresql/config.py`); or its own sessions, which are a superuser's. Who may not see others' sessions sees the former.
const IS_OF_PATRONI_SQL: &str = "\
SELECT (SELECT count(*) = 5 FROM pg_catalog.pg_settings WHERE source = 'command line' AND name IN \
    ('cluster_name', 'hot_standby', 'wal_log_hints', 'track_commit_timestamp', 'max_worker_processes')) \
  OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid \
    WHERE r.rolsuper AND a.backend_type = 'client backend' \
    AND (a.application_name = 'Patroni' OR a.application_name LIKE 'Patroni %'))";

/// Does Patroni manage this server?
pub(super) async fn is_of_patroni(server: &mut Asker) -> Result<bool, String> {
    let rows = run(server, IS_OF_PATRONI_SQL).await?;
    Ok(rows.first().and_then(|row| row.first()?.as_deref()) == Some("t"))
}

/// Has a replica receive from another primary: no restart is needed since PostgreSQL 13.
pub(super) async fn repoint(
    mut replica: Asker,
    mut primary: Asker,
    address: ServerAddress,
) -> Result<(), String> {
    let settings = run(
        &mut replica,
        "SELECT pg_catalog.current_setting('primary_conninfo'), pg_catalog.current_setting('primary_slot_name')",
    )
    .await?;
    let setting = |column: usize| -> Option<String> { settings.first()?.get(column)?.clone() };
    let (conninfo, slot) =
        (setting(0).unwrap_or_default(), setting(1).filter(|slot| !slot.is_empty()));
    let (host, port) = place_of(&address);
    let wanted = point_to(&conninfo, &host, port).map_err(|error| error.to_string())?;
    if let Some(slot) = slot {
        // Without it the replica asks for it every five seconds, for ever.
        let slot = literal(&slot);
        let sql = format!(
            "SELECT pg_catalog.pg_create_physical_replication_slot({slot}, true) \
             WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot})"
        );
        run(&mut primary, &sql).await?;
    }
    run(&mut replica, &format!("ALTER SYSTEM SET primary_conninfo = {}", literal(&wanted))).await?;
    run(&mut replica, "SELECT pg_catalog.pg_reload_conf()").await?;
    Ok(())
}

/// What `settle` has changed, as ALTER SYSTEM had set it before; what is not there was not set so.
#[derive(Clone, Debug, Default)]
pub(super) struct Before(Vec<(String, String)>);

/// The settings that keep a primary from writing.
const FENCES: [(&str, &str); 2] = [
    ("default_transaction_read_only", "on"),
    ("synchronous_standby_names", "ANY 1 (tidegate_switches_over)"),
];

/// A checkpoint while everybody works on: the next one, at the primary's end, is short then.
pub(super) async fn prepare(mut primary: Asker) -> Result<(), String> {
    run(&mut primary, "SET statement_timeout = 0").await?;
    match timeout(CHECKPOINT_TIME_MAX, primary.ask("CHECKPOINT")).await {
        Ok(made) => made.map(|_| ()).map_err(|error| error.to_string()),
        Err(_) => Err("it is not made in time".to_owned()),
    }
}

/// The sessions that are not ours and that we may end. Of superusers only a superuser may end sessions; their commits wait for
/// the standby that nobody is.
const OTHERS: &str = "pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid \
    WHERE a.backend_type = 'client backend' AND a.application_name NOT LIKE 'tidegate: %' \
    AND (NOT r.rolsuper OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER))";
/// They are given this long to end, and looked at so often. The server's own waiting looks ten times a second, for one after
/// the other.
const SESSIONS_END_TIME_MAX: Duration = Duration::from_secs(1);
const SESSIONS_LOOK: Duration = Duration::from_millis(2);

/// Ends the sessions of others, or at least has told them to end.
async fn end_sessions(primary: &mut Asker) -> Result<(), String> {
    let deadline = Instant::now() + SESSIONS_END_TIME_MAX;
    loop {
        // Who has connected in the last moment before the settings were read again is told, too.
        let told = format!("SELECT pg_catalog.pg_terminate_backend(a.pid) FROM {OTHERS}");
        if run(primary, &told).await?.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        sleep(SESSIONS_LOOK).await;
    }
}

/// Brings the primary to rest: no session but ours, no commit that is told to anybody; answers how far it has written.
///
/// A session may set `default_transaction_read_only` off for itself; a commit that waits for a standby that nobody is cannot be
/// told to its client, whatever it sets.
///
/// `before` is filled in before anything is changed.
pub(super) async fn settle(mut primary: Asker, before: &mut Option<Before>) -> Result<Lsn, String> {
    let written = run(
        &mut primary,
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE sourcefile LIKE '%postgresql.auto.conf' \
         AND name IN ('default_transaction_read_only', 'synchronous_standby_names')",
    )
    .await?;
    let pair = |row: Vec<Option<String>>| {
        let mut columns = row.into_iter().flatten();
        Some((columns.next()?, columns.next()?))
    };
    *before = Some(Before(written.into_iter().filter_map(pair).collect()));
    for (name, value) in FENCES {
        run(&mut primary, &format!("ALTER SYSTEM SET {name} = {}", literal(value))).await?;
    }
    run(&mut primary, "SELECT pg_catalog.pg_reload_conf()").await?;
    end_sessions(&mut primary).await?;
    // What was committed without waiting for the disk is in the log, and may not be on its way to the replica: a commit that
    // waits for the disk, and for nothing else, brings all before it there.
    run(&mut primary, "SET synchronous_commit = local").await?;
    let mark = "SELECT pg_catalog.pg_logical_emit_message(true, 'tidegate', 'switchover')";
    run(&mut primary, mark).await?;
    let rows = run(&mut primary, "SELECT pg_catalog.pg_current_wal_flush_lsn()").await?;
    let end = rows.first().and_then(|row| row.first()?.as_deref().and_then(Lsn::parse));
    end.ok_or_else(|| "it does not say how far it has written".to_owned())
}

/// The server may write again, should it be a primary. What an operator has set is left alone: without a record of a switchover,
/// only what none but a switchover sets is taken back.
pub(super) async fn unsettle(mut server: Asker, before: Option<Before>) -> Result<(), String> {
    if before.is_none() {
        let [_, (name, value)] = FENCES;
        let sql = format!("SELECT pg_catalog.current_setting('{name}') = {}", literal(value));
        let rows = run(&mut server, &sql).await?;
        if rows.first().and_then(|row| row.first()?.as_deref()) != Some("t") {
            return Ok(());
        }
    }
    let before = before.unwrap_or_default();
    for (name, _) in FENCES {
        let sql = match before.0.iter().find(|(known, _)| known == name) {
            Some((_, value)) => format!("ALTER SYSTEM SET {name} = {}", literal(value)),
            None => format!("ALTER SYSTEM RESET {name}"),
        };
        run(&mut server, &sql).await?;
    }
    run(&mut server, "SELECT pg_catalog.pg_reload_conf()").await?;
    Ok(())
}

/// A command of the operator's about one server.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    pub(super) command: Vec<String>,
    pub(super) name: String,
    pub(super) address: ServerAddress,
    /// `failover`, `switchover`, `rejoin` or `resync`.
    pub(super) action: &'static str,
    /// The new primary, where that is known.
    pub(super) primary: Option<ServerAddress>,
    pub(super) time_max: Duration,
}

impl Hook {
    /// To make an old primary (`rejoin`) or a replica that does not follow (`resync`) a replica.
    pub(super) fn replica(
        command: Vec<String>,
        action: &'static str,
        name: String,
        address: ServerAddress,
        primary: ServerAddress,
    ) -> Self {
        let primary = Some(primary);
        Self { command, name, address, action, primary, time_max: REJOIN_TIME_MAX }
    }

    /// Runs it to its end. Dropping this leaves it running: what it does to a data directory must not be cut off.
    pub(super) async fn run(self) -> Result<(), String> {
        let (program, arguments) = self.command.split_first().ok_or("there is no command")?;
        let (host, port) = place_of(&self.address);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .env("TIDEGATE_ACTION", self.action)
            .env("TIDEGATE_SERVER", &self.name)
            .env("TIDEGATE_HOST", host)
            .env("TIDEGATE_PORT", port.to_string());
        if let Some(primary) = &self.primary {
            let (host, port) = place_of(primary);
            command
                .env("TIDEGATE_PRIMARY_HOST", host)
                .env("TIDEGATE_PRIMARY_PORT", port.to_string());
        }
        let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        match timeout(self.time_max, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{program}: {status}")),
            Ok(Err(error)) => Err(format!("{program}: {error}")),
            Err(_) => {
                // It is ended, not abandoned; one that has ended meanwhile is as well.
                let _ = child.start_kill();
                Err(format!("{program} did not end within {:?}", self.time_max))
            }
        }
    }
}

fn place_of(address: &ServerAddress) -> (String, u16) {
    match address {
        ServerAddress::Tcp { host, port } => (host.clone(), *port),
        ServerAddress::Unix { dir, port } => (dir.display().to_string(), *port),
    }
}

/// As a literal, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}
