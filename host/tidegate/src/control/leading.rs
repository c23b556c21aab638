//! A lease in etcd, kept; and what the cluster's decisions have to do with it.

use std::time::{Duration, Instant};

use tidegate_cluster::{Ask, Keeper, LeaseView, Mode, Record};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::acts::{self, Promotion};
use super::cluster::Cluster;
use super::done::Done;
use super::etcd::{Etcd, EtcdError};
use crate::config::EtcdSettings;

const ORDERS_MAX: usize = 4;
/// An order is given this long: some questions of etcd.
const ORDER_TIME_MAX: Duration = Duration::from_secs(4);
/// Who is primary is written down at most so often.
const SETTLE_INTERVAL: Duration = Duration::from_secs(1);

/// What the cluster wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Saying {
    lost: bool,
    urgent: bool,
    campaigns: bool,
    leaves: bool,
}

/// What came of asking etcd.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    pub(super) view: Option<LeaseView>,
    /// Why it does not answer.
    pub(super) trouble: Option<String>,
    /// The lease is given up, and nothing more will be heard.
    pub(super) has_left: bool,
}

/// What is written down about whom to promote.
#[derive(Debug)]
enum Write {
    /// This one, now, as it was decided at this revision.
    Claim { record: Record, revision: u64 },
    /// This one, in a moment.
    Announce { record: Record },
    /// This one is the primary.
    Settle { record: Record },
}

#[derive(Debug)]
struct Order {
    write: Write,
    /// Until when the lease stands.
    answer: oneshot::Sender<Result<Instant, String>>,
}

/// A task that keeps a lease, whatever happens to the configuration but for its own part.
#[derive(Debug)]
pub(super) struct Lessee {
    pub(super) settings: EtcdSettings,
    pub(super) heard: watch::Receiver<Heard>,
    saying: watch::Sender<Saying>,
    orders: mpsc::Sender<Order>,
    #[expect(dead_code, reason = "dropping it ends it")]
    task: JoinSet<()>,
}

impl Lessee {
    /// # Errors
    /// The certificates to trust cannot be read.
    pub(super) fn start(settings: &EtcdSettings) -> Result<Self, String> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = format!("{}/{}", host.trim(), std::process::id());
        let etcd = Etcd::new(settings.clone(), name)?;
        let keeper = Keeper::new(settings.lease, Instant::now());
        let (lost, leaves) = (false, false);
        let saying = watch::Sender::new(Saying { lost, urgent: true, campaigns: true, leaves });
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let heard_of = watch::Sender::new(Heard::default());
        let heard = heard_of.subscribe();
        let mut task = JoinSet::new();
        let keeping =
            Keeping { etcd, keeper, saying: saying.subscribe(), orders: taken, heard: heard_of };
        task.spawn_local(keeping.run());
        Ok(Self { settings: settings.clone(), heard, saying, orders, task })
    }

    fn say(&self, saying: Saying) {
        self.saying.send_if_modified(|before| std::mem::replace(before, saying) != saying);
    }
}

/// The task's own.
struct Keeping {
    etcd: Etcd,
    keeper: Keeper,
    saying: watch::Receiver<Saying>,
    orders: mpsc::Receiver<Order>,
    heard: watch::Sender<Heard>,
}

impl Keeping {
    async fn run(mut self) {
        loop {
            let now = Instant::now();
            let Saying { lost, urgent, campaigns, leaves } = *self.saying.borrow_and_update();
            self.keeper.say(lost, now);
            self.keeper.set_urgent(urgent, now);
            self.keeper.set_campaigns(campaigns, now);
            if leaves {
                self.keeper.leave(now);
            }
            if let Some(ask) = self.keeper.poll_ask(now) {
                self.ask(ask).await;
            }
            if self.keeper.has_left() {
                self.heard.send_modify(|heard| heard.has_left = true);
                return;
            }
            // All branches are cancel safe.
            tokio::select! {
                Some(order) = self.orders.recv() => self.obey(order).await,
                changed = self.saying.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(self.keeper.wake_at().into()) => {}
            }
        }
    }

    async fn ask(&mut self, ask: Ask) {
        // What is answered holds from before it was asked.
        let sent = Instant::now();
        let outcome = match ask {
            Ask::Grant { ttl } => {
                let granted = self.etcd.grant(ttl).await;
                granted.map(|(id, ttl)| self.keeper.handle_granted(id, ttl, sent))
            }
            Ask::Renew { lease } => {
                let renewed = self.etcd.renew(lease).await;
                renewed.map(|ttl| self.keeper.handle_renewed(ttl, sent))
            }
            Ask::Revoke { lease } => {
                let revoked = self.etcd.revoke(lease).await;
                revoked.map(|()| self.keeper.handle_revoked())
            }
            Ask::Look(look) => {
                let looked = self.etcd.look(look).await;
                looked.map(|looked| self.keeper.handle_looked(looked, sent, Instant::now()))
            }
        };
        let trouble = match outcome {
            Ok(()) => None,
            Err(EtcdError::Gone) => {
                self.keeper.handle_gone(Instant::now());
                None
            }
            Err(error) => {
                self.keeper.handle_failed(Instant::now());
                Some(error.to_string())
            }
        };
        let view = self.keeper.view().cloned();
        self.heard.send_if_modified(|heard| {
            let is_new = heard.view != view || heard.trouble != trouble;
            (heard.view, heard.trouble) = (view, trouble);
            is_new
        });
    }

    async fn obey(&mut self, Order { write, answer }: Order) {
        let outcome = self.write(write).await;
        self.keeper.look_soon(Instant::now());
        // Who has ordered it may have gone.
        let _ = answer.send(outcome);
    }

    async fn write(&mut self, write: Write) -> Result<Instant, String> {
        if self.keeper.is_leaving() {
            return Err("this Tidegate ends, and leaves it to others".to_owned());
        }
        let view = self.keeper.view().cloned().ok_or("nothing has been heard of etcd yet")?;
        let written = match write {
            Write::Announce { record } => self.etcd.announce(&record).await,
            Write::Settle { record } => self.etcd.settle(&record).await,
            Write::Claim { record, revision } => {
                let before = view.record.as_ref().filter(|before| before.epoch == record.epoch);
                match before {
                    None => self.etcd.claim(&record, revision).await,
                    Some(before) if before.server == record.server && !before.is_done => {
                        self.etcd.confirm(record.epoch, revision).await
                    }
                    // One promotion in each epoch.
                    Some(_) => {
                        let resigned = self.etcd.resign(record.epoch).await;
                        resigned.map_err(|error| error.to_string())?;
                        return Err("another was about to be promoted: it is tried again".into());
                    }
                }
            }
        };
        match written {
            Ok(true) => Ok(view.until),
            Ok(false) => {
                Err("the lease in etcd is lost, or another Tidegate reaches the primary".to_owned())
            }
            Err(error) => Err(format!("it cannot be written down in etcd: {error}")),
        }
    }
}

/// The right to promote one server, as long as the lease stands.
struct Right {
    orders: mpsc::Sender<Order>,
    write: Write,
}

impl Right {
    async fn take(self) -> Result<Instant, String> {
        let (answer, taken) = oneshot::channel();
        let order = Order { write: self.write, answer };
        let late = || "etcd does not answer in time".to_owned();
        self.orders.try_send(order).map_err(|_| late())?;
        match timeout(ORDER_TIME_MAX, taken).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}

impl Cluster<'_> {
    fn is_by_lease(&self) -> bool {
        self.watched.config.failover.policy.mode == Mode::Etcd
    }

    /// What etcd has said goes to the decisions, and what these want the others to know to etcd.
    pub(super) fn look_at_lease(&mut self, now: Instant) {
        if !self.is_by_lease() {
            return;
        }
        let Some(lessee) = &self.standing.lessee else { return };
        let heard = lessee.heard.borrow().clone();
        if let Some(view) = heard.view.filter(|view| self.lease.as_ref() != Some(view)) {
            let lease = view.for_machine(|server| {
                self.standing.addresses.iter().position(|known| known.to_string() == server)
            });
            let led = self.lease.as_ref().and_then(|view| view.epoch);
            match view.epoch {
                Some(epoch) if led.is_none() => {
                    tracing::info!(epoch, "this Tidegate holds the lease in etcd: it may promote");
                }
                None if led.is_some() => {
                    tracing::info!("the lease in etcd is not held here any more")
                }
                _ => {}
            }
            self.lease = Some(view);
            self.machine.handle_lease(lease, now);
        }
        if heard.trouble.is_some() != self.standing.trouble.manager.is_some() {
            match &heard.trouble {
                Some(why) => tracing::warn!("etcd is asked in vain: {why}"),
                None => tracing::info!("etcd answers"),
            }
        }
        self.standing.trouble.manager = heard.trouble;
        self.say_to_others(now);
    }

    pub(super) fn say_to_others(&mut self, now: Instant) {
        if !self.is_by_lease() {
            return;
        }
        let lost = self.machine.says_lost(self.input.pools.in_use(0));
        let urgent = self.machine.is_urgent();
        if let Some(lessee) = &self.standing.lessee {
            let (campaigns, leaves) = (!self.watched.yields, self.machine.is_leaving());
            lessee.say(Saying { lost, urgent, campaigns, leaves });
        }
        self.settle_record(now);
    }

    /// This process ends: the lease is given up as soon as nobody may become primary by it any more.
    pub(super) fn look_at_leaving(&mut self) {
        if self.standing.leaving.is_none() {
            return;
        }
        let has_left = match &self.standing.lessee {
            Some(lessee) => self.machine.leave() && lessee.heard.borrow().has_left,
            None => true,
        };
        if let Some(answer) = self.standing.leaving.take_if(|_| has_left) {
            // Who asked may have gone.
            let _ = answer.send(Ok(String::new()));
        }
    }

    /// Whoever leads writes down who is the primary, unless that is what is written.
    fn settle_record(&mut self, now: Instant) {
        let Some((epoch, record)) = self.record(0, self.machine.memory().timeline, true) else {
            return;
        };
        let written = self.lease.as_ref().and_then(|view| view.record.clone());
        let is_written = written.is_some_and(|written| Record { epoch, ..written } == record);
        let is_soon =
            self.settled_at.is_some_and(|at| now.saturating_duration_since(at) < SETTLE_INTERVAL);
        if is_written || is_soon || !self.machine.is_settled() || !self.machine.may_act(now) {
            return;
        }
        self.settled_at = Some(now);
        if let Some(right) = self.right(Write::Settle { record }) {
            self.acts.spawn_local(async move { Done::Recorded(right.take().await.map(drop)) });
        }
    }

    /// What is to be written down of a server, in the epoch in which we lead.
    fn record(&self, member: usize, timeline: u32, is_done: bool) -> Option<(u64, Record)> {
        let epoch = self.lease.as_ref()?.epoch?;
        let server = self.address(member)?.to_string();
        let system = self.machine.memory().system?;
        Some((epoch, Record { system, server, timeline, is_done, epoch }))
    }

    fn right(&self, write: Write) -> Option<Right> {
        let lessee = self.standing.lessee.as_ref()?;
        Some(Right { orders: lessee.orders.clone(), write })
    }

    fn next_record(&self, member: usize) -> Option<Record> {
        let timeline = self.machine.memory().timeline + 1;
        self.record(member, timeline, false).map(|(_, record)| record)
    }

    /// Has the replica become primary; where several Tidegates might do that, if etcd lets it be this one.
    pub(super) fn promote(&mut self, member: usize) {
        let Some(asker) = self.asker(member) else { return };
        if !self.is_by_lease() {
            self.acts.spawn_local(async move {
                Done::Promoted(member, acts::promote(asker, None).await)
            });
            return;
        }
        let revision = self.lease.as_ref().map_or(0, |view| view.revision);
        let record = self.next_record(member);
        let right = record.and_then(|record| self.right(Write::Claim { record, revision }));
        self.acts.spawn_local(async move {
            let taken = match right {
                Some(right) => right.take().await,
                None => Err("the lease in etcd is lost".to_owned()),
            };
            match taken {
                Ok(until) => Done::Promoted(member, acts::promote(asker, Some(until)).await),
                Err(why) => Done::Promoted(member, Promotion::Refused(why)),
            }
        });
    }

    /// Tells the other Tidegates that a switchover begins.
    pub(super) fn announce(&mut self, member: usize) {
        let record = self.next_record(member);
        let right = record.and_then(|record| self.right(Write::Announce { record }));
        self.acts.spawn_local(async move {
            let taken = match right {
                Some(right) => right.take().await.map(drop),
                None => Err("the lease in etcd is lost".to_owned()),
            };
            Done::Announced(taken)
        });
    }
}
