//! What operators order about the cluster.

use std::time::Instant;

use tidegate_cluster::Order;
use tokio::sync::oneshot;
use tracing::Level;

use super::cluster::Cluster;
use crate::view::{Force, Ordered};

/// An order, and whom to answer.
#[derive(Debug)]
pub struct ClusterOrder {
    pub what: Ordered,
    /// What there is to know of it, now that it has begun; or why it has not.
    pub answer: oneshot::Sender<Result<String, String>>,
}

impl Cluster<'_> {
    pub(super) fn handle_order(&mut self, order: ClusterOrder) {
        let ClusterOrder { what, answer } = order;
        let outcome = match what {
            Ordered::Switchover { to: None } => self.switch_over(None),
            Ordered::Switchover { to: Some(name) } => {
                self.find(&name).and_then(|to| self.switch_over(Some(to)))
            }
            Ordered::Failover { to, force } => {
                self.find(&to).and_then(|to| self.fail_over(to, force))
            }
            Ordered::Drain { server } => self.find(&server).and_then(|member| self.drain(member)),
            Ordered::Undrain { server } => {
                self.find(&server).and_then(|member| self.undrain(member))
            }
            Ordered::Resync { server } => self.find(&server).and_then(|member| self.resync(member)),
            Ordered::Leave => {
                self.standing.leaving = Some(answer);
                return;
            }
        };
        // Whoever asks how far it is, once it is told that it has begun, must not be told of before.
        self.publish(Instant::now());
        // Who asked may have gone.
        let _ = answer.send(outcome);
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        let place = self.watched.targets.iter().position(|target| *target.name == *name);
        place.ok_or_else(|| format!("there is no server \"{name}\""))
    }

    fn switch_over(&mut self, to: Option<usize>) -> Result<String, String> {
        self.machine.order(Order::Switchover { to }, Instant::now())?;
        Ok(String::new())
    }

    fn fail_over(&mut self, to: usize, force: Force) -> Result<String, String> {
        let is_forced = force == Force::Yes;
        let lacks = self.machine.lacks(to);
        self.machine.order(Order::Failover { to, is_forced }, Instant::now())?;
        let name = self.name(to).to_owned();
        let loss = match lacks {
            Some(0) => "it has all that the primary is known to have written".to_owned(),
            Some(bytes) => format!(
                "it lacks {bytes} bytes of what the primary is known to have written: commits in these are lost"
            ),
            None => "how much of the primary's log it lacks is not known".to_owned(),
        };
        let told = format!("a failover to \"{name}\" was ordered; {loss}");
        self.tell(Level::WARN, told.clone());
        Ok(told)
    }

    fn drain(&mut self, member: usize) -> Result<String, String> {
        let name = self.name(member).to_owned();
        if member == 0 {
            return Err(format!(
                "\"{name}\" is the primary: `tidegate switchover` gives its place to another, and then it can be drained"
            ));
        }
        if let Some(address) = self.address(member)
            && self.standing.drained.insert(address)
        {
            let told =
                format!("\"{name}\" is drained: no new reads go there, by an operator's order");
            self.tell(Level::WARN, told);
        }
        Ok(format!("\"{name}\" is drained"))
    }

    fn undrain(&mut self, member: usize) -> Result<String, String> {
        let name = self.name(member).to_owned();
        let was_drained =
            self.address(member).is_some_and(|address| self.standing.drained.remove(&address));
        if !was_drained {
            return Err(format!("\"{name}\" is not drained"));
        }
        let told = format!("\"{name}\" is not drained any more: reads may go there");
        self.tell(Level::INFO, told.clone());
        Ok(told)
    }
}
