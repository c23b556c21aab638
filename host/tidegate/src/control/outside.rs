//! Who else has a say in which server is the primary: other Tidegates by etcd, Patroni by its API, or Patroni unasked.

use std::time::{Duration, Instant};

use tidegate_cluster::Mode;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Level;

use super::Watched;
use super::acts::is_of_patroni;
use super::cluster::{Cluster, Standing};
use super::leading::{self, Lessee};
use super::patroni::{self, Patroni, system_at};
use crate::config::patroni_beside;
use crate::upstream::Asker;

/// Where Tidegate promotes, it is looked so often whether somebody else does, too.
const FOREIGN_INTERVAL: Duration = Duration::from_secs(30);
const FOREIGN_TIME_MAX: Duration = Duration::from_secs(5);

/// Who is listened to.
#[derive(Debug)]
pub(super) enum Outside {
    Nobody,
    Etcd {
        heard: watch::Receiver<leading::Heard>,
        foreign: watch::Receiver<Option<String>>,
    },
    Patroni(watch::Receiver<Option<patroni::Heard>>),
    /// Nobody must be there.
    Foreign(watch::Receiver<Option<String>>),
}

impl Outside {
    /// Starts what listens: `tasks` end with the configuration, a lease does not.
    pub(super) fn begin(
        watched: &Watched,
        standing: &mut Standing,
        urgent: &watch::Sender<bool>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        standing.trouble.manager = None;
        let failover = &watched.config.failover;
        let settings = failover.etcd.as_ref().filter(|_| failover.policy.mode == Mode::Etcd);
        if settings != standing.lessee.as_ref().map(|lessee| &lessee.settings) {
            standing.lessee = settings.and_then(|settings| {
                let told = |error: String| tracing::error!("etcd cannot be asked: {error}");
                Lessee::start(settings).map_err(told).ok()
            });
        }
        match failover.policy.mode {
            Mode::Off | Mode::Follow => Self::Nobody,
            Mode::Embedded => Self::Foreign(look_for_others(watched, tasks)),
            Mode::Etcd => match &standing.lessee {
                Some(lessee) => {
                    let heard = lessee.heard.clone();
                    Self::Etcd { heard, foreign: look_for_others(watched, tasks) }
                }
                None => Self::Nobody,
            },
            Mode::External => {
                let Some(settings) = failover.patroni.clone() else { return Self::Nobody };
                match Patroni::new(settings, watched.targets.clone()) {
                    Ok(patroni) => {
                        let heard = watch::Sender::new(None);
                        let hears = heard.subscribe();
                        tasks.spawn_local(patroni.watch(urgent.subscribe(), heard));
                        Self::Patroni(hears)
                    }
                    Err(error) => {
                        tracing::error!("Patroni cannot be asked: {error}");
                        Self::Nobody
                    }
                }
            }
        }
    }

    /// Resolves when something was said. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let changed = match self {
            Self::Nobody => return std::future::pending().await,
            Self::Etcd { heard, .. } => heard.changed().await,
            Self::Patroni(heard) => heard.changed().await,
            Self::Foreign(foreign) => foreign.changed().await,
        };
        if changed.is_err() {
            // Whoever spoke has ended: nothing is said any more.
            std::future::pending().await
        }
    }
}

/// Looks again and again whether Patroni manages one of the servers.
fn look_for_others(watched: &Watched, tasks: &mut JoinSet<()>) -> watch::Receiver<Option<String>> {
    let found = watch::Sender::new(None);
    let finds = found.subscribe();
    let askers = watched.targets.iter().enumerate().map(|(member, target)| {
        Asker::for_cluster(&watched.config, member, target.clone(), "tidegate: manager")
    });
    let mut askers: Vec<Asker> = askers.collect();
    tasks.spawn_local(async move {
        while !found.is_closed() {
            for asker in &mut askers {
                let looked = tokio::time::timeout(FOREIGN_TIME_MAX, manager_of(asker)).await;
                asker.close();
                if let Ok(Some(how)) = looked {
                    found.send_replace(Some(format!("\"{}\": {how}", asker.target.name)));
                }
            }
            tokio::time::sleep(FOREIGN_INTERVAL).await;
        }
    });
    finds
}

/// How it is seen that Patroni manages it. A server that cannot be asked is asked before it is promoted.
async fn manager_of(asker: &mut Asker) -> Option<&'static str> {
    if is_of_patroni(asker).await == Ok(true) {
        return Some("by its settings and sessions");
    }
    let url = patroni_beside(&asker.target.address)?;
    let told = system_at(&url).await?;
    let sql = "SELECT system_identifier FROM pg_catalog.pg_control_system()";
    let rows = asker.ask(sql).await.ok()?;
    let own: i64 = rows.first()?.first()?.as_deref()?.parse().ok()?;
    (told == own.cast_unsigned()).then_some("by its REST API on port 8008")
}

impl Cluster<'_> {
    /// After each event: what others have said goes to the decisions.
    pub(super) fn look_outside(&mut self, now: Instant) {
        self.look_at_lease(now);
        self.look_at_patroni(now);
        let foreign = match &self.outside {
            Outside::Etcd { foreign, .. } | Outside::Foreign(foreign) => foreign.borrow().clone(),
            Outside::Nobody | Outside::Patroni(_) => None,
        };
        if let Some(how) = foreign
            && !self.machine.is_foreign()
        {
            self.tell(Level::ERROR, format!("Patroni is found at {how}"));
            self.machine.handle_managed_by_others();
        }
    }
}
