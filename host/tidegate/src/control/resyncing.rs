//! Servers that are to be replicas of the primary again: the one that it replaced, and those that do not follow.

use std::time::Instant;

use tidegate_cluster::{Remedy, Status};
use tracing::Level;

use super::acts::Hook;
use super::cluster::Cluster;
use crate::config::ServerAddress;

impl Cluster<'_> {
    /// The primary that was replaced is to become a replica of the one in force.
    pub(super) fn rejoin_replaced(&mut self) {
        let Some(address) = self.standing.replaced.take() else { return };
        if !self.machine.may_act(Instant::now()) {
            return;
        }
        let place = self.watched.targets.iter().position(|target| target.address == address);
        if let Some(member @ 1..) = place {
            // Without a command somebody else does it.
            let _ = self.make_replica(member, "rejoin");
        }
    }

    /// Replicas that do not follow are told again who is primary; and made anew where that does not help.
    pub(super) fn look_after_replicas(&mut self, now: Instant) {
        let failover = &self.watched.config.failover;
        let Some(policy) = failover.resync.filter(|_| self.machine.may_act(now)) else { return };
        let is_steady = self.machine.status() == Status::Steady && self.machine.is_primary_well();
        for index in 0..self.followers.len() {
            let member = index + 1;
            let is_being_made = self
                .address(member)
                .is_some_and(|address| self.standing.being_made.contains(&address));
            let (machine, usable) = (&self.machine, is_steady && !is_being_made);
            let seen = |member: usize| {
                machine.seen(member).filter(|_| usable && machine.fault(member).is_none())
            };
            let remedy = self.followers[index].look(seen(member), seen(0), &policy, now);
            match remedy {
                None => {}
                Some(Remedy::Repoint) => {
                    let name = self.name(member).to_owned();
                    let told =
                        format!("\"{name}\" does not follow: it is told again who is primary");
                    self.tell(Level::WARN, told);
                    self.repoint(member);
                }
                Some(Remedy::Rebuild) => {
                    let name = self.name(member).to_owned();
                    match self.make_replica(member, "resync") {
                        Ok(()) => {}
                        Err(why) => self.tell(
                            Level::ERROR,
                            format!("\"{name}\" does not follow the primary, and {why}"),
                        ),
                    }
                }
            }
        }
    }

    /// An operator's order.
    pub(super) fn resync(&mut self, member: usize) -> Result<String, String> {
        let name = self.name(member).to_owned();
        if member == 0 {
            return Err(format!("\"{name}\" is the primary"));
        }
        if self.machine.status() != Status::Steady || !self.machine.is_primary_well() {
            return Err("there is no primary now that a replica could be a copy of".to_owned());
        }
        self.make_replica(member, "resync")?;
        Ok(format!("\"{name}\" is being made a copy of the primary again"))
    }

    /// Has the operator's command make it a replica of the primary. Nobody reads there meanwhile, since it does not answer as one.
    fn make_replica(&mut self, member: usize, action: &'static str) -> Result<(), String> {
        let command = self.watched.config.failover.rejoin_command.clone();
        if command.is_empty() {
            return Err(
                "failover.rejoin_command, which could make it a replica, is not set".to_owned()
            );
        }
        let name = self.name(member).to_owned();
        let (Some(address), Some(primary)) = (self.address(member), self.address(0)) else {
            return Err("its address is not known".to_owned());
        };
        if !self.standing.being_made.insert(address.clone()) {
            return Err("failover.rejoin_command runs for it already".to_owned());
        }
        let told = match action {
            "rejoin" => format!("\"{name}\" is to rejoin as a replica"),
            _ => format!("\"{name}\" is to be made a copy of the primary again"),
        };
        self.tell(Level::INFO, told);
        let hook = Hook::replica(command, action, name, address.clone(), primary);
        self.standing.rejoining.spawn_local(async move { (address, hook.run().await) });
        Ok(())
    }

    pub(super) fn handle_rejoined(&mut self, address: &ServerAddress, outcome: Result<(), String>) {
        self.standing.being_made.remove(address);
        let place = self.watched.targets.iter().position(|target| target.address == *address);
        // A reload may have taken it out.
        let Some(member) = place else { return };
        let name = self.name(member).to_owned();
        match outcome {
            Ok(()) => {
                self.tell(Level::INFO, format!("\"{name}\" has rejoined"));
                // It is a replica now, and may be a primary again one day.
                self.unsettle(member);
            }
            Err(error) => {
                self.tell(Level::ERROR, format!("\"{name}\" could not rejoin: {error}"));
            }
        }
    }
}
