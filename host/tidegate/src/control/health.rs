//! What is made of servers' health between failovers: who is gone for all pools, who is left out of the rotation, what our user
//! lacks.

use std::time::Instant;

use tidegate_cluster::{Change, Ejection, Fault};
use tidegate_core::route::ReplicaView;
use tidegate_pool::Appearance;
use tracing::Level;

use super::cluster::Cluster;
use super::hosts::Told;

impl Cluster<'_> {
    /// A health check has ended: has nobody answered there for a while, all pools of the server give up on it at once.
    pub(super) fn note_presence(&mut self, member: usize, fault: Option<Fault>, now: Instant) {
        let Some(presence) = self.presence.get_mut(member) else { return };
        let appears = match fault {
            Some(Fault::Closed | Fault::Refused | Fault::Silent | Fault::Unreachable) => {
                presence.handle_silence(now)
            }
            // Whatever it says, it is there.
            Some(Fault::Starting | Fault::Stopping | Fault::Denied | Fault::Odd) | None => {
                presence.handle_answer()
            }
        };
        match appears {
            Some(Appearance::Gone) => {
                self.input.pools.handle_gone(member, now);
                let name = self.name(member).to_owned();
                let text = format!(
                    "\"{name}\" has not answered for a while: its pools reject at once whom no open connection can serve"
                );
                self.tell(Level::WARN, text);
            }
            Some(Appearance::Back) => {
                self.input.pools.handle_answered(member);
                let text = format!("\"{}\" answers again", self.name(member));
                self.tell(Level::INFO, text);
            }
            None => {}
        }
    }

    pub(super) fn handle_told(&mut self, told: Told) {
        match told {
            Told::Load(member, load) => self.hosts.set_load(member, load),
            Told::Rights(lacks) => {
                if self.standing.lacks == lacks {
                    return;
                }
                match &lacks {
                    Some(words) => self.tell(Level::WARN, words.clone()),
                    None => self.tell(Level::INFO, "our user may do what a failover takes".into()),
                }
                self.standing.lacks = lacks;
            }
        }
    }

    /// Of the replicas that could serve reads, those do not that are much slower than the others, or fail.
    pub(super) fn leave_out_outliers(&mut self, replicas: &mut [ReplicaView], now: Instant) {
        let good: Vec<bool> = replicas.iter().map(|replica| replica.usable).collect();
        for change in self.weighing.judge(&good, now) {
            match change {
                Change::Ejected { replica, why, time } => {
                    let (name, secs) = (self.name(replica + 1).to_owned(), time.as_secs());
                    let why = match why {
                        Ejection::Slow => "it is much slower than the others",
                        Ejection::Failing => "half of the reads that it is given fail",
                    };
                    self.tell(Level::WARN, format!("reads leave \"{name}\" for {secs} s: {why}"));
                }
                Change::Returned { replica } => {
                    let name = self.name(replica + 1).to_owned();
                    self.tell(
                        Level::INFO,
                        format!("\"{name}\" is given reads again, few at first"),
                    );
                }
            }
        }
        // A reload does not end it.
        let standings = self.weighing.standings();
        let addresses = self.watched.targets.iter().skip(1).map(|target| target.address.clone());
        self.standing.left_out = addresses.zip(standings).collect();
        for (index, replica) in replicas.iter_mut().enumerate() {
            replica.usable &= self.weighing.why_out(index).is_none();
        }
    }
}
