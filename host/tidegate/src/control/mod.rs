//! CONTROL PLANE: watches the replicas and reads catalogues on a thread of its own; nothing in `data` waits for it.

mod catalogues; // what databases say about names
mod watcher; // how fresh the replicas are
mod weighing; // their shares of reads

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tidegate_core::route::ReplicaView;
use tidegate_policy::Registry;
use tokio::sync::watch;

use crate::config::{Config, Reads};
use crate::hidden::HiddenCodes;
use crate::upstream::{ConnectError, Credentials, NewServer, Target, connect, simple_query};
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

/// Rounds without end.
async fn watch_cluster(input: &Input, watched: &Watched) {
    let Input { views, schema, policies, hidden, .. } = input;
    // What was seen under another configuration is void.
    views.publish(View::default());
    let splits = watched.config.routing.reads == Reads::Split;
    if !splits || watched.config.cluster.replicas.is_empty() {
        return std::future::pending().await;
    }
    let names: Arc<[Arc<str>]> =
        watched.targets.iter().skip(1).map(|target| target.name.clone()).collect();
    let mut watcher = watcher::Watcher::new(watched, policies.clone());
    let mut catalogues = catalogues::Catalogues::new(watched);
    let mut tick = tokio::time::interval(WATCH_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let replicas: Vec<ReplicaView> = watcher.round().await;
        catalogues.refresh(views.wanted(), schema.load(Ordering::Relaxed), hidden).await;
        let names = names.clone();
        views.publish(View { replicas, names, catalogues: catalogues.known() });
    }
}

/// Settings of the connections that watch: nothing a user could have created is found by name there.
const WATCH_SETTINGS: [(&str, &str); 2] = [
    ("client_encoding", "UTF8"),
    // A database's defaults may be what no replica takes.
    ("options", r"-c search_path=pg_catalog -c default_transaction_isolation=read\ committed"),
];

/// A connection for questions of ours, opened when it is needed and again after a failure.
#[derive(Debug)]
struct Asker {
    target: Arc<Target>,
    database: Arc<str>,
    user: String,
    credentials: Credentials,
    application: &'static str,
    server: Option<NewServer>,
}

impl Asker {
    fn new(
        config: &Config,
        instance: usize,
        target: Arc<Target>,
        application: &'static str,
    ) -> Self {
        let servers = std::iter::once(&config.cluster.primary).chain(&config.cluster.replicas);
        let url = servers.into_iter().nth(instance).unwrap_or(&config.cluster.primary);
        let credentials = match &url.password {
            Some(password) => Credentials::Password(password.clone()),
            None => Credentials::None,
        };
        Self {
            target,
            database: url.database.as_str().into(),
            user: url.user.clone(),
            credentials,
            application,
            server: None,
        }
    }

    async fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
        let mut server = match self.server.take() {
            Some(server) => server,
            None => {
                let mut settings = vec![("application_name", self.application)];
                settings.extend(WATCH_SETTINGS);
                connect(&self.target, &self.database, &self.user, &self.credentials, &settings)
                    .await?
            }
        };
        let rows = simple_query(&mut server, sql).await?;
        self.server = Some(server);
        Ok(rows)
    }
}
