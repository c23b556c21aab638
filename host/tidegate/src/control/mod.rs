//! CONTROL PLANE: watches the replicas and reads catalogues on a thread of its own; nothing in `data` waits for it.

mod catalogues; // what databases say about names
mod memberships; // which roles are members of which
mod schedule; // when a catalogue is read again
mod watcher; // how fresh the replicas are
mod weighing; // their shares of reads

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tidegate_core::route::ReplicaView;
use tidegate_policy::Registry;
use tokio::sync::watch;

use catalogues::Refreshed;

use crate::config::{Config, Reads};
use crate::hidden::HiddenCodes;
use crate::upstream::{Asker, Target};
use crate::view::{View, Views};

/// How often replicas are asked how far they have come. A session's read may use a replica this much after its write, and
/// the time to replay, at the earliest.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// The part of a configuration that this is about.
#[derive(Debug)]
pub struct Watched {
    pub config: Arc<Config>,
    /// The primary, then the replicas.
    pub targets: Vec<Arc<Target>>,
}

/// What the thread works on.
pub struct Input {
    pub views: Arc<Views>,
    /// Replaced at each reload; closed when Tidegate ends.
    pub watched: watch::Receiver<Arc<Watched>>,
    /// Schema changes that passed through this process.
    pub schema: Arc<AtomicU64>,
    pub policies: Arc<Registry>,
    pub hidden: Arc<HiddenCodes>,
}

/// Starts the thread. It ends when the sender of `watched` is dropped.
///
/// # Errors
/// The system gives no thread or no event loop.
pub fn start(input: Input) -> std::io::Result<thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("tidegate-control".to_owned()).spawn(move || {
        runtime.block_on(run(input));
    })
}

async fn run(input: Input) {
    let mut configurations = input.watched.clone();
    loop {
        let watched = configurations.borrow_and_update().clone();
        // All branches are cancel safe: connections are dropped, and a new round begins with the new configuration.
        tokio::select! {
            changed = configurations.changed() => if changed.is_err() { return },
            () = watch_cluster(&input, &watched) => {}
        }
    }
}

/// Three tasks without end, none of which waits for another.
async fn watch_cluster(input: &Input, watched: &Watched) {
    // What was seen under another configuration is void, but for the roles: who is nobody's member for a moment is limited.
    let roles = input.views.latest().roles.clone();
    input.views.update(|view| *view = View { roles, ..View::default() });
    let splits = watched.config.routing.reads == Reads::Split;
    if splits && !watched.config.cluster.replicas.is_empty() {
        let replicas = watch_replicas(input, watched);
        tokio::join!(replicas, read_catalogues(input, watched), watch_roles(input, watched));
    } else {
        // Where there is no choice of servers, nothing but what policies of limits are told.
        watch_roles(input, watched).await;
    }
}

async fn watch_replicas(input: &Input, watched: &Watched) {
    let Input { views, policies, .. } = input;
    let names: Arc<[Arc<str>]> =
        watched.targets.iter().skip(1).map(|target| target.name.clone()).collect();
    let mut watcher = watcher::Watcher::new(watched, policies.clone());
    let mut tick = ticks(WATCH_INTERVAL);
    loop {
        tick.tick().await;
        let replicas: Vec<ReplicaView> = watcher.round().await;
        views.update(|view| {
            view.replicas = replicas;
            view.names = names.clone();
        });
    }
}

/// One database after the other, of those in which clients have logged in.
async fn read_catalogues(input: &Input, watched: &Watched) {
    let Input { views, schema, hidden, .. } = input;
    let mut catalogues = catalogues::Catalogues::new(watched);
    let mut tick = ticks(WATCH_INTERVAL);
    loop {
        tick.tick().await;
        for name in views.wanted() {
            let schema = schema.load(Ordering::Relaxed);
            match catalogues.refresh(&name, schema, hidden).await {
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
