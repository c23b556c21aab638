//! A way to a server: none between, or Tidegate.

use std::fs;
use std::path::Path;
use tidegate_test_support::{Cluster, ClusterOptions, HostAuth, Tidegate, TidegateOptions};

/// A new cluster, and what stands before it.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    // Dropped first: it has connections to the cluster.
    tidegate: Option<Tidegate>,
    pub(crate) cluster: Cluster,
}

impl Way {
    pub(crate) fn direct() -> Result<Way, String> {
        Ok(Way { name: "direct", tidegate: None, cluster: cluster()? })
    }

    /// Every database and every user has a pool of so many connections.
    pub(crate) fn through_tidegate(pool: usize) -> Result<Way, String> {
        let cluster = cluster()?;
        let tidegate = Tidegate::start(TidegateOptions {
            primary: cluster.primary().url("postgres", "postgres"),
            toml: Some(configuration(pool)),
            ..TidegateOptions::default()
        });
        Ok(Way { name: "through", tidegate: Some(tidegate), cluster })
    }

    /// Where clients connect.
    pub(crate) fn port(&self) -> u16 {
        let address = self.tidegate.as_ref().map(Tidegate::address);
        let port = address.as_deref().and_then(|address| address.rsplit(':').next()?.parse().ok());
        port.unwrap_or(self.cluster.primary().port())
    }

    pub(crate) fn keep_log(&self, to: &Path) {
        if let Some(tidegate) = &self.tidegate {
            let _ = fs::copy(tidegate.log_path(), to.join("tidegate.log"));
        }
    }
}

fn cluster() -> Result<Cluster, String> {
    let options = ClusterOptions { host_auth: HostAuth::Trust, ..ClusterOptions::default() };
    Cluster::start(&options).map_err(|error| error.to_string())
}

/// Tests whose state pins them keep their server, some for all their life; the others wait for what is left.
fn configuration(pool: usize) -> String {
    format!(
        "[pool]\nmode = \"transaction\"\nsize_min = 0\nsize_max = {pool}\nwait_max = \"10min\"\n\
         utilisation_warn_percent = 100\n\n[auth]\nmethod = \"trust\"\n"
    )
}
