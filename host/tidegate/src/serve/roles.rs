//! Another server in the place of the primary, for the whole process: a reload without a file.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tidegate_cluster::Mode;

use super::Handle;
use crate::config::{Config, ServerAddress};
use crate::control::Watched;
use crate::data::worker::{Message, Settled, Transactions};
use crate::settle;

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
