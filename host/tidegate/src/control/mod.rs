//! CONTROL PLANE: watches the servers, replaces a primary that is gone, and reads catalogues, on a thread of its own; nothing in
//! `data` waits for it.

mod acts; // what a failover takes, on the servers themselves
mod alerting; // what is wrong
mod caching; // answers that are kept: whether, and what is in doubt
mod catalogues; // what databases say about names
mod cluster; // the servers under watch, and what is done about them
mod done; // what came of it
mod etcd; // etcd, asked
mod following; // writes that do not pass, followed in the log of each database
mod health; // who is gone, left out, or may not do what it takes
mod hosts; // how busy servers are, and what our user may do
mod leading; // a lease in etcd
mod losing; // which acknowledged commits a failover has lost
mod memberships; // which roles are members of which
mod orders; // what operators order
mod outside; // who else decides
mod patroni; // Patroni, asked
mod probe; // one server, asked again and again
mod publishing; // what others see of the cluster
mod resyncing; // servers that are to be replicas again
mod schedule; // when a catalogue is read again
mod told; // what people are told, in words
mod weighing; // their shares of reads

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tidegate_cluster::Mode;
use tidegate_policy::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use catalogues::Refreshed;
pub use orders::ClusterOrder;

use crate::alerts::{Alerts, Report};
use crate::config::{Config, Reads};
use crate::hidden::HiddenCodes;
use crate::rates::Counters;
use crate::results::Results;
use crate::upstream::Target;
use crate::upstream::pool::SharedPools;
use crate::view::{View, Views};

/// How often it is looked whether a catalogue is wanted.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// The part of a configuration that this is about.
#[derive(Debug)]
pub struct Watched {
    pub config: Arc<Config>,
    /// The primary, then the replicas.
    pub targets: Vec<Arc<Target>>,
    /// Another process of ours takes the place of this one, and promotes.
    pub yields: bool,
}

/// Puts a server in the place of the primary.
pub type Adopt = dyn Fn(&str) -> Result<(), String> + Send;

/// What the thread works on.
pub struct Input {
    pub views: Arc<Views>,
    /// Replaced at each reload; closed when Tidegate ends.
    pub watched: watch::Receiver<Arc<Watched>>,
    /// Schema changes that passed through this process.
    pub schema: Arc<AtomicU64>,
    pub policies: Arc<Registry>,
    pub hidden: Arc<HiddenCodes>,
    /// Where statements for the primary are held.
    pub pools: Arc<SharedPools>,
    /// Puts the server of this name in the place of the primary, for the whole process.
    pub adopt: Box<Adopt>,
    pub orders: mpsc::Receiver<ClusterOrder>,
    pub results: Arc<Results>,
    pub counters: Arc<Counters>,
    pub alerts: Alerts,
}

/// Starts the thread. It ends when the sender of `watched` is dropped.
///
/// # Errors
/// The system gives no thread or no event loop.
pub fn start(input: Input) -> std::io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("tidegate-control".to_owned()).spawn(move || {
        LocalSet::new().block_on(&runtime, run(input));
    })
}

async fn run(mut input: Input) {
    let mut configurations = input.watched.clone();
    let mut standing = cluster::Standing::default();
    let mut orders = std::mem::replace(&mut input.orders, mpsc::channel(1).1);
    let mut before: Option<Arc<Watched>> = None;
    loop {
        let watched = configurations.borrow_and_update().clone();
        forget(&input, before.replace(watched.clone()), &watched);
        // All branches are cancel safe: connections are dropped, and a new round begins with the new configuration.
        tokio::select! {
            changed = configurations.changed() => if changed.is_err() { return },
            () = watch_cluster(&input, &watched, &mut standing, &mut orders) => {}
        }
    }
}

/// What was seen under another configuration is void, but for the roles: who is nobody's member for a moment is limited. Where only
/// the roles of the servers have changed, so that it is the same cluster, its catalogues stand until they have been read again,
/// or reads would stay on the primary until then. A replica refuses what a catalogue wrongly calls a read.
fn forget(input: &Input, before: Option<Arc<Watched>>, now: &Watched) {
    let stands = splits(now) && before.is_some_and(|before| before.is_of(now) && splits(&before));
    // The numbers of the servers may be others' now.
    input.pools.forget_gone();
    input.views.update(|view| {
        let View { roles, catalogues, .. } = std::mem::take(view);
        let catalogues = if stands { catalogues } else { Default::default() };
        *view = View { roles, catalogues, ..View::default() };
    });
}

/// Do reads run on replicas?
fn splits(watched: &Watched) -> bool {
    let config = &watched.config;
    !config.cluster.replicas.is_empty() && config.routing.reads == Reads::Split
}

impl Watched {
    /// The same servers, whichever of them is the primary?
    fn is_of(&self, other: &Self) -> bool {
        let has = |all: &Self, one: &Target| all.targets.iter().any(|t| t.address == one.address);
        self.targets.len() == other.targets.len()
            && self.targets.iter().all(|target| has(other, target))
            && other.targets.iter().all(|target| has(self, target))
    }
}

/// Tasks without end, none of which waits for another.
async fn watch_cluster(
    input: &Input,
    watched: &Watched,
    standing: &mut cluster::Standing,
    orders: &mut mpsc::Receiver<ClusterOrder>,
) {
    // Who was told before goes on where it was.
    while !input.alerts.set_receivers(watched.config.alerts.clone()) {
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
    let has_replicas = !watched.config.cluster.replicas.is_empty();
    let splits = splits(watched);
    let fails_over = has_replicas && watched.config.failover.policy.mode != Mode::Off;
    let cluster = async {
        if splits || fails_over {
            cluster::watch(input, watched, standing, orders).await;
        } else {
            standing.lessee = None;
            input.pools.hold_primary_from(None);
            // No trouble of a cluster that is watched no more lasts.
            let _ = input.alerts.report(Report::default());
            tokio::join!(refuse_orders(orders), alerting::watch_process(input, watched));
        }
    };
    let catalogues = async {
        // Where there is no choice of servers, only what is kept needs them.
        if !splits {
            input.results.wanted().await;
        }
        read_catalogues(input, watched).await;
    };
    // The first ends when roles could not be changed: then all begin anew. All branches are cancel safe.
    tokio::select! {
        () = cluster => {}
        () = catalogues => {}
        () = watch_roles(input, watched) => {}
        () = caching::watch(input, watched) => {}
        () = following::watch(input, watched) => {}
    }
}

/// Where there is nobody who could be primary instead.
async fn refuse_orders(orders: &mut mpsc::Receiver<ClusterOrder>) {
    while let Some(ClusterOrder { answer, .. }) = orders.recv().await {
        // Who asked may have gone.
        let _ = answer.send(Err("no replica is configured".to_owned()));
    }
    std::future::pending().await
}

/// One database after the other, of those in which clients have logged in.
async fn read_catalogues(input: &Input, watched: &Watched) {
    let Input { views, schema, hidden, results, .. } = input;
    let mut catalogues = catalogues::Catalogues::new(watched, &views.latest().catalogues);
    let mut tick = ticks(WATCH_INTERVAL);
    loop {
        tick.tick().await;
        for name in views.wanted() {
            let schema = schema.load(Ordering::Relaxed);
            match catalogues.refresh(&name, schema, hidden, results).await {
                Refreshed::No => continue,
                Refreshed::Yes => {}
                Refreshed::Gone => views.forget(&name),
            }
            views.update(|view| view.catalogues = catalogues.known());
        }
    }
}

async fn watch_roles(input: &Input, watched: &Watched) {
    let Input { views, schema, .. } = input;
    let mut memberships = memberships::Memberships::new(watched, views.latest().roles.clone());
    views.roles_wanted().await;
    let mut tick = ticks(catalogues::REREAD_INTERVAL_MIN);
    loop {
        tick.tick().await;
        if memberships.refresh(schema.load(Ordering::Relaxed), views).await {
            views.update(|view| view.roles = memberships.known());
        }
    }
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}
