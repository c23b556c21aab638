//! One server, asked again and again what it is.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_cluster::{Fault, Observation, Receiver, Role};
use tidegate_core::route::Lsn;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::upstream::{Asker, ConnectError, ServerError};
use crate::view::Views;

/// How often servers are asked. A session's read may use a replica this much after its write, and the time to replay, at the
/// earliest.
const INTERVAL: Duration = Duration::from_millis(200);
/// A replica is asked after this at the latest, where nothing is heard of the primary.
const INTERVAL_REPLICA: Duration = Duration::from_millis(300);
/// The same while it is not certain which server is the primary.
const INTERVAL_URGENT: Duration = Duration::from_millis(25);
/// Where reads wait for a replica to catch up, the primary is asked how far it is once in this time at most.
const FRESHNESS_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// And replicas, so often and so long, until they have replayed what it said.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(1);
const CATCH_UP_ASKED_MAX: Duration = Duration::from_millis(50);
/// A server that does not answer within this is silent.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// What a server is and how far it has come, in one question that any user may ask; who may not see the receiver's state is told
/// that there is one. Source: "Recovery Information Functions", "Control Data Functions" and `pg_stat_wal_receiver` in
/// PostgreSQL's documentation. The timeline of a primary is that of the file it writes: the control data know it only after
/// the next checkpoint.
const WHAT_SQL: &str = "\
SELECT s.system_identifier, p.is_replica, p.written, p.received, p.replayed, \
  CASE WHEN NOT p.is_replica THEN ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(p.written), 1, 8))::bit(32)::bigint \
       ELSE coalesce(r.received_tli, c.timeline_id) END, \
  CASE WHEN r.pid IS NULL THEN 'gone' ELSE coalesce(r.status, 'hidden') END, \
  p.is_replica AND pg_catalog.pg_is_wal_replay_paused() \
FROM (SELECT pg_catalog.pg_is_in_recovery() AS is_replica, \
        CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END AS written, \
        pg_catalog.pg_last_wal_receive_lsn() AS received, pg_catalog.pg_last_wal_replay_lsn() AS replayed OFFSET 0) p \
  CROSS JOIN pg_catalog.pg_control_system() s CROSS JOIN pg_catalog.pg_control_checkpoint() c \
  LEFT JOIN pg_catalog.pg_stat_wal_receiver r ON true";

/// What came of asking one server.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) member: usize,
    /// Before the question was sent.
    pub(super) asked_at: Instant,
    /// The answer, and how long it took.
    pub(super) outcome: Result<(Observation, Duration), Fault>,
    /// Reads wait until replicas have replayed what it says.
    pub(super) is_awaited: bool,
}

/// Something was heard of the primary.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beat {
    pub(super) count: u64,
    /// Reads wait until replicas have replayed this.
    pub(super) awaited: Option<Lsn>,
}

/// When to ask.
#[derive(Debug)]
pub(super) struct Pace {
    /// Is it uncertain which server is the primary?
    pub(super) urgent: watch::Receiver<bool>,
    /// What was heard of the primary. A replica is asked at once then: what it has replayed is to be compared with what the
    /// primary had written a moment before, not an interval before. The primary itself does not wait for it.
    pub(super) beat: watch::Receiver<Beat>,
    /// Who waits for replicas.
    pub(super) views: Arc<Views>,
}

/// What a replica is to have replayed, since when that is waited for.
#[derive(Clone, Copy, Debug, Default)]
struct Awaited(Option<(Lsn, Instant)>);

impl Awaited {
    fn begin(&mut self, awaited: Option<Lsn>, now: Instant) {
        if let Some(position) = awaited {
            self.0 = Some((position, now));
        }
    }

    /// After an answer: when to ask again, if it is not there yet and may be soon.
    fn pause(&mut self, seen: Option<&Observation>, now: Instant) -> Option<Duration> {
        let (position, since) = self.0?;
        let is_there = match seen.map(|seen| &seen.role) {
            Some(Role::Replica { replayed: Some(replayed), .. }) => *replayed >= position,
            _ => true,
        };
        if is_there || now.saturating_duration_since(since) >= CATCH_UP_ASKED_MAX {
            self.0 = None;
        }
        self.0.map(|_| CATCH_UP_INTERVAL)
    }
}

/// Asks for ever. Ends when nobody listens.
pub(super) async fn probe(
    mut asker: Asker,
    member: usize,
    reports: mpsc::Sender<Report>,
    mut pace: Pace,
) {
    let mut awaited = Awaited::default();
    loop {
        // In this order: who wants to know from here on wrote before the question is asked.
        let is_awaited = member == 0 && pace.views.causal.take_wanted();
        let asked_at = Instant::now();
        let outcome = observe(&mut asker).await.map(|seen| (seen, asked_at.elapsed()));
        let is_well = outcome.is_ok();
        let pause = awaited.pause(outcome.as_ref().ok().map(|(seen, _)| seen), asked_at);
        if reports.send(Report { member, asked_at, outcome, is_awaited }).await.is_err() {
            return;
        }
        let is_urgent = *pace.urgent.borrow_and_update();
        let pause = pause.unwrap_or(match (is_urgent, member) {
            (true, _) => INTERVAL_URGENT,
            (false, 0) => INTERVAL,
            (false, _) => INTERVAL_REPLICA,
        });
        // All branches are cancel safe.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = pace.urgent.changed() => if changed.is_err() { return },
            changed = pace.beat.changed(), if member > 0 => {
                if changed.is_err() { return }
                awaited.begin(pace.beat.borrow_and_update().awaited, Instant::now());
            }
            () = pace.views.causal.freshness_wanted(), if member == 0 => {
                tokio::time::sleep_until((asked_at + FRESHNESS_INTERVAL_MIN).into()).await;
            }
            last_word = asker.ended(), if is_well => {
                // The system tells of a server that dies at once, long before the next question is due.
                let fault = last_word.as_ref().map_or(Fault::Closed, fault_of_error);
                let report = Report {
                    member,
                    asked_at: Instant::now(),
                    outcome: Err(fault),
                    is_awaited: false,
                };
                if reports.send(report).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Asks once.
pub(super) async fn observe(asker: &mut Asker) -> Result<Observation, Fault> {
    match timeout(ANSWER_TIME_MAX, asker.ask(WHAT_SQL)).await {
        Ok(Ok(rows)) => rows.first().and_then(|row| read(row)).ok_or(Fault::Odd),
        Ok(Err(error)) => {
            tracing::debug!(server = &*asker.target.name, %error, "cannot ask what it is");
            Err(fault_of(&error))
        }
        Err(_) => Err(Fault::Silent),
    }
}

fn read(row: &[Option<String>]) -> Option<Observation> {
    let text = |column: usize| row.get(column)?.as_deref();
    let position = |column: usize| text(column).and_then(Lsn::parse);
    let role = match text(1)? {
        "f" => Role::Primary { written: position(2)? },
        _ => Role::Replica {
            received: position(3),
            replayed: position(4),
            receiver: match text(6)? {
                "streaming" => Receiver::Streaming,
                "hidden" => Receiver::Hidden,
                _ => Receiver::Gone,
            },
            paused: text(7)? == "t",
        },
    };
    // Written as a signed number, whatever it is.
    let system = text(0)?.parse::<i64>().ok()?.cast_unsigned();
    Some(Observation { system, timeline: text(5)?.parse().ok()?, role })
}

fn fault_of(error: &ConnectError) -> Fault {
    match error {
        ConnectError::Unreachable(error) => match error.kind() {
            // Of a Unix socket, the file is gone.
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Fault::Refused,
            ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
                Fault::Closed
            }
            _ => Fault::Unreachable,
        },
        ConnectError::Timeout => Fault::Silent,
        ConnectError::Refused(error) => fault_of_error(error),
        ConnectError::Policy(_) => Fault::Denied,
        ConnectError::Tls(_) | ConnectError::Protocol(_) => Fault::Odd,
    }
}

/// Source: "PostgreSQL Error Codes"; `secure_read` in `be-secure.c`, which says 57P01 as well when the postmaster has died.
fn fault_of_error(error: &ServerError) -> Fault {
    match (error.sqlstate.as_str(), error.routine.as_str()) {
        ("57P01", "secure_read" | "secure_write") => Fault::Closed,
        ("57P01", _) => Fault::Stopping,
        ("57P02" | "57P03", _) => Fault::Starting,
        ("53300", _) => Fault::Denied,
        (sqlstate, _) if sqlstate.starts_with("28") || sqlstate.starts_with("42501") => {
            Fault::Denied
        }
        ("3D000", _) => Fault::Denied,
        _ => Fault::Odd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sqlstate: &str, routine: &str) -> ConnectError {
        let (sqlstate, routine) = (sqlstate.to_owned(), routine.to_owned());
        ConnectError::Refused(Box::new(ServerError { sqlstate, routine, ..Default::default() }))
    }

    #[test]
    fn a_server_that_is_there_is_never_called_dead() {
        let cases = [
            (error("57P01", "ProcessInterrupts"), Fault::Stopping),
            (error("57P01", "secure_read"), Fault::Closed),
            (error("57P02", "quickdie"), Fault::Starting),
            (error("57P03", "ProcessStartupPacket"), Fault::Starting),
            (error("53300", "InitProcess"), Fault::Denied),
            (error("28P01", "auth_failed"), Fault::Denied),
            (error("XX000", ""), Fault::Odd),
            (ConnectError::Policy(String::new()), Fault::Denied),
            (ConnectError::Timeout, Fault::Silent),
            (ConnectError::Unreachable(ErrorKind::ConnectionRefused.into()), Fault::Refused),
            (ConnectError::Unreachable(ErrorKind::ConnectionReset.into()), Fault::Closed),
            (ConnectError::Unreachable(ErrorKind::HostUnreachable.into()), Fault::Unreachable),
        ];
        for (error, fault) in cases {
            assert_eq!(fault_of(&error), fault, "{error:?}");
        }
    }

    #[test]
    fn a_replica_is_asked_until_it_has_what_is_awaited() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let seen = |replayed| Observation {
            system: 1,
            timeline: 1,
            role: Role::Replica {
                received: None,
                replayed: Some(Lsn(replayed)),
                receiver: Receiver::Streaming,
                paused: false,
            },
        };
        let mut awaited = Awaited::default();
        awaited.begin(None, start);
        assert_eq!(awaited.pause(Some(&seen(0)), start), None);
        awaited.begin(Some(Lsn(7)), start);
        assert_eq!(awaited.pause(Some(&seen(6)), at(1)), Some(CATCH_UP_INTERVAL));
        // What is heard of a primary in between takes nothing back.
        awaited.begin(None, at(2));
        assert_eq!(awaited.pause(Some(&seen(6)), at(3)), Some(CATCH_UP_INTERVAL));
        assert_eq!(awaited.pause(Some(&seen(7)), at(4)), None);
        assert_eq!(awaited.pause(Some(&seen(0)), at(5)), None);
        awaited.begin(Some(Lsn(7)), at(10));
        assert_eq!(awaited.pause(Some(&seen(6)), at(10) + CATCH_UP_ASKED_MAX), None);
        awaited.begin(Some(Lsn(7)), at(100));
        assert_eq!(awaited.pause(None, at(101)), None, "a fault ends it");
    }

    #[test]
    fn answers_are_read() {
        let row = |text: &str| -> Vec<Option<String>> {
            text.split(' ').map(|word| (word != "-").then(|| word.to_owned())).collect()
        };
        let primary = read(&row("-7 f 0/10 - - 3 gone f")).unwrap();
        assert_eq!((primary.timeline, primary.role), (3, Role::Primary { written: Lsn(16) }));
        assert_eq!(primary.system, (-7_i64).cast_unsigned());
        let replica = read(&row("7 t - 0/20 0/1F 3 streaming t")).unwrap();
        let (received, replayed) = (Some(Lsn(32)), Some(Lsn(31)));
        assert_eq!(
            replica.role,
            Role::Replica { received, replayed, receiver: Receiver::Streaming, paused: true }
        );
        assert_eq!(read(&row("7 t - 0/20")), None);
        assert_eq!(read(&[]), None);
    }
}
