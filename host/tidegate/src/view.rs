//! What the control plane knows, as the data plane sees it: one immutable snapshot, replaced as a whole.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_core::catalogue::Catalogue;
use tidegate_core::limits::CATALOGUES_MAX;
use tidegate_core::route::ReplicaView;
use tokio::sync::watch;

/// Tags that policies are told of. A plan holds for one shape with these tags.
pub const TAGS_TOLD: [&str; 2] = ["route", "priority"];
/// The tag that names the application's user.
pub const END_USER_TAG: &str = "user_id";

/// One database's catalogue, and how new it is.
#[derive(Clone, Debug)]
pub struct Known {
    pub catalogue: Arc<Catalogue>,
    /// The count of schema changes that had passed when it was read: later ones are not in it.
    pub schema: u64,
}

/// The replicas and catalogues as they were last seen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// In the order of the configuration.
    pub replicas: Vec<ReplicaView>,
    /// Their names, in the same order.
    pub names: Arc<[Arc<str>]>,
    pub catalogues: HashMap<Arc<str>, Known>,
}

/// Between the control plane, which writes, and the workers, which read and say what they need.
#[derive(Debug, Default)]
pub struct Views {
    sender: watch::Sender<Arc<View>>,
    /// Databases whose catalogue somebody needs.
    wanted: Mutex<HashSet<Arc<str>>>,
}

impl Views {
    /// For a worker: the newest view without waiting.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.sender.subscribe()
    }

    pub fn latest(&self) -> Arc<View> {
        self.sender.borrow().clone()
    }

    pub fn publish(&self, view: View) {
        self.sender.send_replace(Arc::new(view));
    }

    /// A client uses this database. Beyond `CATALOGUES_MAX` its statements stay on the primary.
    pub fn want(&self, database: &Arc<str>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < CATALOGUES_MAX {
            wanted.insert(database.clone());
        }
    }

    pub fn wanted(&self) -> Vec<Arc<str>> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.iter().cloned().collect()
    }
}
