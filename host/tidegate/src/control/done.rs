//! What came of what was done.

use std::time::Instant;

use tidegate_cluster::Status;
use tidegate_core::route::Lsn;
use tracing::Level;

use super::acts::{Before, Promotion};
use super::cluster::Cluster;

/// What came of an action.
pub(super) enum Done {
    Fenced(Result<(), String>),
    Promoted(usize, Promotion),
    Repointed(usize, Result<(), String>),
    Prepared(Result<(), String>),
    Settled(Result<Lsn, String>, Option<Before>),
    Unsettled(Result<(), String>),
    /// Who is the primary, in etcd.
    Recorded(Result<(), String>),
    /// Who is to be, in etcd.
    Announced(Result<(), String>),
    /// By Patroni, and what it says.
    Requested(Result<String, String>),
    /// How much of the log the new primary has of the one before.
    Forked(Result<Option<Lsn>, String>),
}

impl Cluster<'_> {
    pub(super) fn handle_done(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Fenced(outcome) => {
                if let Err(error) = &outcome {
                    self.tell(
                        Level::ERROR,
                        format!("the old primary could not be fenced: {error}"),
                    );
                }
                self.machine.handle_fenced(outcome.is_ok(), now);
            }
            Done::Forked(fork) => self.handle_fork(fork),
            Done::Promoted(member, promotion) => self.handle_promoted(member, promotion, now),
            Done::Repointed(member, Err(error)) => self.handle_not_repointed(member, &error),
            Done::Prepared(outcome) => {
                if let Err(error) = outcome {
                    let text = format!("the primary makes no checkpoint before it: {error}");
                    self.tell(Level::WARN, text);
                }
                self.machine.handle_prepared(now);
            }
            Done::Settled(outcome, before) => self.handle_settled(outcome, before, now),
            Done::Unsettled(Err(error)) => {
                self.tell(
                    Level::ERROR,
                    format!("settings of the switchover could not be taken back: {error}"),
                );
            }
            Done::Recorded(Err(error)) => {
                tracing::debug!(error, "who is primary is not written down")
            }
            Done::Announced(outcome) => {
                if let Err(error) = &outcome {
                    self.tell(Level::ERROR, format!("the switchover cannot begin: {error}"));
                }
                self.machine.handle_announced(outcome.is_ok(), now);
            }
            Done::Requested(outcome) => {
                match &outcome {
                    Ok(words) => self.tell(Level::INFO, format!("Patroni says: {words}")),
                    Err(error) => {
                        self.tell(Level::ERROR, format!("Patroni has not done it: {error}"));
                    }
                }
                self.machine.handle_requested(outcome.is_ok());
            }
            Done::Repointed(_, Ok(())) | Done::Unsettled(Ok(())) | Done::Recorded(Ok(())) => {}
        }
    }

    fn handle_promoted(&mut self, member: usize, promotion: Promotion, now: Instant) {
        let name = self.name(member).to_owned();
        match promotion {
            Promotion::Done(seen) => self.machine.handle_observed(member, seen, now),
            Promotion::Refused(error) => {
                self.tell(Level::ERROR, format!("\"{name}\" refuses to become primary: {error}"));
                self.machine.handle_promotion_failed(member, now);
            }
            Promotion::InDoubt(error) => {
                let text = format!("whether \"{name}\" becomes primary is not known: {error}");
                self.tell(Level::WARN, text);
            }
        }
    }

    fn handle_not_repointed(&mut self, member: usize, error: &str) {
        let name = self.name(member).to_owned();
        if let Some(follower) = member.checked_sub(1).and_then(|at| self.followers.get_mut(at)) {
            follower.handle_not_repointed();
        }
        let text = format!("\"{name}\" could not be told who is primary: {error}");
        self.tell(Level::ERROR, text);
    }

    fn handle_settled(
        &mut self,
        outcome: Result<Lsn, String>,
        before: Option<Before>,
        now: Instant,
    ) {
        if let Err(error) = &outcome {
            self.tell(Level::ERROR, format!("the primary could not be brought to rest: {error}"));
        }
        self.standing.settled = self.address(0).zip(before);
        if self.machine.status() == Status::SwitchingOver {
            self.machine.handle_settled(outcome.ok(), now);
        } else {
            // It was given up meanwhile.
            self.unsettle(0);
        }
    }
}
