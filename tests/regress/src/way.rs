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

    /// How much the clients have shared; nothing without Tidegate.
    pub(crate) fn shared(&self) -> Option<String> {
        let metrics = self.tidegate.as_ref()?.admin_get("/metrics").body;
        let [clients, servers, transactions, waits, settings, probes, pins] = [
            "clients_accepted",
            "servers_opened",
            "transactions",
            "pool_waits",
            "settings_applied",
            "probes",
            "pins",
        ]
        .map(|name| sum(&metrics, &format!("tidegate_{name}_total")));
        Some(format!(
            "{clients} clients on {servers} server connections; {transactions} transactions, {waits} waits for a server; servers \
             were given other settings {settings} times and asked what is left {probes} times; clients kept a server {pins} times"
        ))
    }

    pub(crate) fn keep_log(&self, to: &Path) {
        if let Some(tidegate) = &self.tidegate {
            let _ = fs::copy(tidegate.log_path(), to.join("tidegate.log"));
        }
    }
}

/// The sum of a metric over all its labels.
fn sum(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_whole = rest.starts_with([' ', '{']);
        rest.rsplit(' ').next().filter(|_| is_whole)?.parse::<u64>().ok()
    });
    values.sum()
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

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let metrics =
            "# HELP a_total x\na_total 3\npins_total{reason=\"b\"} 1\npins_total{reason=\"c\"} 2\n";
        assert_eq!(sum(metrics, "pins_total"), 3);
        assert_eq!(sum(metrics, "a_total"), 3);
        assert_eq!(sum(metrics, "a"), 0);
    }
}
