//! Vocabulary of the tests: `Cluster`, `Tidegate`, `Client`, `wait_until`.
//!
//! Everything here panics instead of returning errors: it speaks in tests, where a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a crate for tests alone

pub mod client; // one raw connection, message by message
pub mod clusters; // the cluster that a test program shares
pub mod differential; // the same messages to PostgreSQL and to Tidegate
pub mod etcd; // an etcd, and the trouble that one makes
mod failure; // what a failing test says last
pub mod http; // enough HTTP for the admin API
pub mod message; // what a server sends
pub mod namespaces; // a network and a disk that one server alone has
pub mod patroni; // servers that Patroni manages
pub mod pipeline; // what a client sends
pub mod redis; // a Redis, and the trouble that one makes
pub mod redis_cluster; // several Redises that share the keys
pub mod relay; // trouble between Tidegate and a server
pub mod tidegate; // the built binary as a process
pub mod url; // postgres://user:password@host:port/database

pub use ::tidegate::demo::{
    AtExit, Cluster, ClusterError, ClusterOptions, Durability, HostAuth, Node, free_port,
    password_of, poll,
};
pub use client::Client;
pub use clusters::{shared_cluster, shared_tidegate, target_directory, test_database};
pub use differential::differential;
pub use etcd::{Etcd, EtcdTls};
pub use message::Message;
pub use namespaces::{Link, SmallDisk};
pub use patroni::Patroni;
pub use pipeline::{Pipeline, pipeline};
pub use redis::{Redis, RedisClient, Reply};
pub use redis_cluster::RedisCluster;
pub use relay::{Passing, Relay};
pub use tidegate::{Tidegate, TidegateOptions};
pub use url::Url;

use std::time::Duration;

/// Looks at `condition` every few milliseconds until it holds; panics when it still does not after `limit`.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, condition: impl FnMut() -> bool) {
    assert!(::tidegate::demo::poll(limit, condition), "waited {limit:?} in vain until {what}");
}
