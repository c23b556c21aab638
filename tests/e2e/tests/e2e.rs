//! End-to-end scenarios: applications and raw connections, through Tidegate, against real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests

mod alerts; // who is told when something is wrong
mod auth; // who gets in, and how
mod cables; // a primary's network, cut without a word
mod cache; // answers that are kept
mod chains; // one Tidegate behind another
mod clients; // applications in other languages, and PostgreSQL's own programs
mod disks; // a primary's disk, full
mod failover; // primaries that die, and who takes over
mod faults; // servers that die, clients that vanish, pools that are full
mod flow; // one side reads more slowly than the other sends
mod guests; // policies in other languages
mod handover; // a new process in the place of the one that runs
mod hba; // who may connect from where
mod health; // replicas that are slow or gone, machines, rights
mod hidden; // what no text shows
mod http; // POST /sql
mod leaks; // one server connection for two clients
mod limits; // rates: who is refused
mod listeners; // clients that listen, through what operators do
mod listening; // LISTEN and NOTIFY without keeping a server
mod managers; // etcd and Patroni
mod operations; // reload, drain, admin API, exit codes
mod operators; // what operators order about the cluster
mod own; // a Tidegate of a test's own
mod pausing; // pause, resume, reconnect
mod plugins; // policies loaded, swapped and taken back
mod processes; // the number of a client's process
mod quotas; // clients and server connections of one database or user
mod recording; // what runs, written down
mod rejected; // what the routing policy forbids, and what it has wait before others
mod replay; // transactions that are run again, and a history of writes that is checked
mod replication; // backups, and readers of the log
mod resync; // replicas that do not follow
mod routing; // reads on replicas
mod rust_client; // tokio-postgres
mod session_mode; // a server for as long as a client stays
mod soak; // everything at once
mod timeouts; // clients that say nothing
mod tls; // certificates of clients and of servers
mod tutorial; // docs/plugins.md, done
mod wire; // message by message
