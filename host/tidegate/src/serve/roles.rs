//! Another server in the place of the primary, for the whole process: a reload without a file.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_cluster::Mode;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::Handle;
use crate::config::{Config, ServerAddress};
use crate::control::{ClusterOrder, Watched};
use crate::data::worker::{Message, Settled, Transactions};
use crate::settle;
use crate::view::Ordered;

/// A promotion that is under way, and etcd, are given this long at the end; then the lease has to run out by itself.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(3);
const LEAVE_LOOK: Duration = Duration::from_millis(5);

impl Handle {
    /// The configuration, with the server in the place of the primary that has been adopted, if it has it.
    pub(super) fn in_roles(&self, config: Config) -> Config {
        let adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        match &*adopted {
            Some(address) => Config { cluster: config.cluster.led_by(address), ..config },
            None => config,
        }
    }

    /// The server of this name is the primary from now on. Transactions on the one before are lost, and clients are held until
    /// every worker has heard of it.
    ///
    /// # Errors
    /// There is no such server, or it cannot be connected to as the configuration says; nothing has changed.
    pub(super) fn adopt(&self, name: &str) -> Result<(), String> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.settled();
        let address = address_of(&old.config, name)
            .ok_or_else(|| format!("there is no server \"{name}\""))?;
        let config = Config::clone(&old.config);
        let config = Config { cluster: config.cluster.led_by(&address), ..config };
        let hold = self.shared.pools.hold_primary();
        let settled = Arc::new(settle::settle(config, self.fake_secret)?);
        *self.settled.write().unwrap_or_else(PoisonError::into_inner) = settled.clone();
        *self.adopted.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        let (before, now) = (&old.config.cluster, &settled.config.cluster);
        let retiring = self.shared.retiring(before, now, Transactions::Lost, Some(hold));
        self.shared.tell_all(|| Message::Reload(settled.clone(), retiring.clone()));
        self.watch(&settled);
        Ok(())
    }

    /// Has the control plane go by this from now on.
    pub(super) fn watch(&self, settled: &Settled) {
        self.watched.send_replace(watched(settled, self.yields.load(Ordering::Relaxed)));
    }

    /// Nothing is sent to servers for clients from here any more: gives up the lease in etcd, which other Tidegates would wait for.
    pub(super) fn leave(&self) {
        if self.settled().config.failover.policy.mode != Mode::Etcd {
            return;
        }
        let (answer, mut answered) = oneshot::channel();
        let deadline = Instant::now() + LEAVE_TIME_MAX;
        let order = ClusterOrder { what: Ordered::Leave, answer };
        let mut outcome = match self.orders.try_send(order) {
            Ok(()) => answered.try_recv(),
            Err(_) => Err(TryRecvError::Closed),
        };
        while outcome == Err(TryRecvError::Empty) && Instant::now() < deadline {
            thread::park_timeout(LEAVE_LOOK);
            outcome = answered.try_recv();
        }
        match outcome {
            Ok(Ok(_)) => tracing::info!("the lease in etcd is given up"),
            Ok(Err(_)) | Err(_) => tracing::warn!(
                "the lease in etcd is not given up: other Tidegates wait until it has run out"
            ),
        }
    }

    /// Leaves it to another Tidegate to promote and to tell people, or does so itself again, as far as `failover.mode` wants it.
    pub(super) fn set_yields(&self, yields: bool) {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.yields.swap(yields, Ordering::Relaxed);
        let settled = self.settled();
        let config = &settled.config;
        let is_ours = config.failover.policy.mode.promotes() || !config.alerts.is_empty();
        if before != yields && is_ours {
            self.watch(&settled);
        }
    }
}

/// The control plane's part. One that yields only follows whom another Tidegate promotes, and leaves it to that to tell people.
pub(super) fn watched(settled: &Settled, yields: bool) -> Arc<Watched> {
    let mut config = settled.config.clone();
    if yields {
        let config = Arc::make_mut(&mut config);
        config.alerts.clear();
        if config.failover.policy.mode == Mode::Embedded {
            config.failover.policy.mode = Mode::Follow;
        }
    }
    Arc::new(Watched { config, targets: settled.pools.targets.clone(), yields })
}

fn address_of(config: &Config, name: &str) -> Option<ServerAddress> {
    let servers = std::iter::once(&config.cluster.primary).chain(&config.cluster.replicas);
    servers.into_iter().find(|server| server.name == name).map(|server| server.address.clone())
}
