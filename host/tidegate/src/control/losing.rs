//! Which acknowledged commits a failover has lost: what the new primary has of the old one's log, held against what clients were told.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidegate_cluster::{Fate, Losses, WrittenLog};
use tidegate_core::limits::LOSSES_LISTED_MAX;
use tidegate_core::route::Lsn;
use tracing::Level;

use super::acts;
use super::cluster::Cluster;
use super::done::Done;
use crate::view::{Commit, LossReport, LostCommit};

/// A new primary that does not say where it began is asked again after this, and so often.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASKED_MAX: u32 = 30;
/// So many commits are named where the event is told; all that are listed are in the admin API.
const NAMED_MAX: usize = 5;
/// An alert about it lasts so long.
const ALERT_TIME: Duration = Duration::from_secs(600);

/// A primary that was lost.
#[derive(Debug)]
pub(super) struct Predecessor {
    name: Arc<str>,
    log: WrittenLog,
    /// How often the new one was asked, and when it is asked next.
    asked: u32,
    ask_at: Option<Instant>,
}

impl Predecessor {
    /// Whoever was asking does so no more.
    pub(super) fn ask_anew(&mut self) {
        self.ask_at = Some(Instant::now());
    }
}

impl Cluster<'_> {
    /// Another server becomes primary: what is known of the one before is kept, unless it has been brought to rest.
    pub(super) fn note_predecessor(&mut self) {
        let log = std::mem::take(&mut self.standing.written);
        let rests = self.standing.settled.as_ref().map(|(address, _)| address);
        self.standing.predecessor = match self.watched.targets.first() {
            Some(primary) if rests != Some(&primary.address) => Some(Predecessor {
                name: primary.name.clone(),
                log,
                asked: 0,
                ask_at: Some(Instant::now()),
            }),
            _ => None,
        };
    }

    /// Asks the new primary, when it is there.
    pub(super) fn look_for_losses(&mut self, now: Instant) {
        let is_there = self.machine.seen(0).is_some_and(|seen| seen.is_primary());
        let (Some(predecessor), true) = (&mut self.standing.predecessor, is_there) else { return };
        if predecessor.ask_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        predecessor.asked += 1;
        if let Some(asker) = self.asker(0) {
            self.acts.spawn_local(async { Done::Forked(acts::fork(asker).await) });
        }
    }

    pub(super) fn handle_fork(&mut self, fork: Result<Option<Lsn>, String>) {
        let Some(mut predecessor) = self.standing.predecessor.take() else { return };
        match fork {
            Ok(Some(fork)) => self.tell_losses(&predecessor, fork),
            Err(_) if predecessor.asked < ASKED_MAX => {
                predecessor.ask_at = Some(Instant::now() + ASK_AGAIN);
                self.standing.predecessor = Some(predecessor);
            }
            other => {
                let why = other.err().unwrap_or_else(|| "it has been started anew".to_owned());
                let name = self.name(0).to_owned();
                let text = format!(
                    "which acknowledged commits of \"{}\" are lost is not known: \"{name}\" does not say how much of its log it \
                     has: {why}",
                    predecessor.name
                );
                self.tell(Level::ERROR, text);
            }
        }
    }

    fn tell_losses(&mut self, predecessor: &Predecessor, fork: Lsn) {
        let losses = predecessor.log.losses(fork);
        let recalled = self.input.views.commits.recall();
        let is_cut = recalled.dropped_at.is_some_and(|at| losses.fate(at, at) != Fate::Safe);
        let commits =
            recalled.commits.into_iter().filter(|commit| commit.server == predecessor.name);
        let mut report = LossReport {
            at: SystemTime::now(),
            before: predecessor.name.clone(),
            after: self.name(0).into(),
            fork,
            safe_until: losses.safe_until.map(time_of),
            lost: 0,
            uncertain: 0,
            is_cut,
            commits: Vec::new(),
        };
        commits.for_each(|commit| count(&mut report, &losses, &commit));
        let is_clean = report.lost + report.uncertain == 0 && !report.is_cut;
        self.tell(if is_clean { Level::INFO } else { Level::ERROR }, sentence(&report));
        self.standing.losses = Some(Arc::new(report));
    }

    /// For an alert: the last failover, if it was a short time ago and has lost something.
    pub(super) fn recent_losses(&self) -> Option<String> {
        let report = self.standing.losses.as_deref()?;
        let is_recent = report.at.elapsed().is_ok_and(|age| age < ALERT_TIME);
        let has_lost = report.lost + report.uncertain > 0 || report.is_cut;
        (is_recent && has_lost).then(|| sentence(report))
    }
}

fn count(report: &mut LossReport, losses: &Losses, commit: &Commit) {
    let is_certain = match losses.fate(commit.sent_at, commit.acknowledged_at) {
        Fate::Safe => return,
        Fate::Lost => true,
        Fate::Unknown => false,
    };
    *(if is_certain { &mut report.lost } else { &mut report.uncertain }) += 1;
    if report.commits.len() < LOSSES_LISTED_MAX {
        report.commits.push(LostCommit {
            acknowledged_at: time_of(commit.acknowledged_at),
            user: commit.user.clone(),
            database: commit.database.clone(),
            application: commit.application.clone(),
            verb: commit.verb,
            is_certain,
        });
    }
}

fn time_of(at: Instant) -> SystemTime {
    SystemTime::now() - at.elapsed()
}

/// `1764576000.123`: seconds since 1970, as logs and `to_timestamp` take them.
fn seconds(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:03}", since.as_secs(), since.subsec_millis())
}

fn sentence(report: &LossReport) -> String {
    let LossReport { before, after, fork, lost, uncertain, .. } = report;
    let has = format!("\"{after}\" has the log of \"{before}\" up to {fork}");
    if lost + uncertain == 0 && !report.is_cut {
        return format!("no acknowledged commit is lost: {has}");
    }
    let mut text = format!(
        "{lost} acknowledged commits are lost, and {uncertain} more may be: {has}; safe is {}",
        match report.safe_until {
            Some(until) => format!("what was acknowledged until {}", seconds(until)),
            None => "nothing that was acknowledged since Tidegate watches".to_owned(),
        }
    );
    if report.is_cut {
        text.push_str("; some are not remembered any more");
    }
    for commit in report.commits.iter().take(NAMED_MAX) {
        let LostCommit { user, database, application, verb, is_certain, .. } = commit;
        let doubt = if *is_certain { "lost" } else { "may be lost" };
        let at = seconds(commit.acknowledged_at);
        let _ = write!(text, "; {doubt}: {verb} at {at} by {user} in {database}");
        if !application.is_empty() {
            let _ = write!(text, " ({application})");
        }
    }
    if lost + uncertain > NAMED_MAX {
        text.push_str("; the others: GET /api/v1/cluster");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_counts_names_and_admits() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut log = WrittenLog::default();
        log.handle_answer(at(10), at(11), Lsn(100));
        log.handle_answer(at(20), at(21), Lsn(200));
        let losses = log.losses(Lsn(150));
        let mut report = LossReport {
            at: SystemTime::now(),
            before: "primary".into(),
            after: "replica-1".into(),
            fork: Lsn(150),
            safe_until: losses.safe_until.map(time_of),
            lost: 0,
            uncertain: 0,
            is_cut: false,
            commits: Vec::new(),
        };
        assert_eq!(
            sentence(&report),
            "no acknowledged commit is lost: \"replica-1\" has the log of \"primary\" up to 0/96"
        );
        for (sent, acknowledged) in [(5, 9), (12, 15), (22, 25)] {
            let commit = Commit {
                sent_at: at(sent),
                acknowledged_at: at(acknowledged),
                user: "anna".into(),
                database: "shop".into(),
                application: "till".into(),
                verb: "INSERT",
                server: "primary".into(),
            };
            count(&mut report, &losses, &commit);
        }
        assert_eq!((report.lost, report.uncertain, report.commits.len()), (1, 1, 2));
        let text = sentence(&report);
        assert!(text.starts_with("1 acknowledged commits are lost, and 1 more may be: "), "{text}");
        assert!(text.contains("may be lost: INSERT at "), "{text}");
        assert!(text.contains("; lost: INSERT at ") && text.contains("by anna in shop (till)"));
    }
}
