//! What is told to the outside: logs, counters, and snapshots of pools, clients and servers.

pub mod log; // lines to standard error
pub mod metrics; // one table of metrics, and its rendering for Prometheus
pub mod served; // what each server has done
pub mod snapshot; // plain data the admin API answers with
pub mod stats; // counters a worker increments

#[cfg(test)]
mod tests;
