//! The shell around `tidegate-core`: sockets, clocks, tasks, configuration, and the command line.
//!
//! Arrows inside: `main -> cli -> serve -> {admin, data} -> {upstream, stream, tls}`; `data` never imports `admin`.

pub mod admin; // the admin HTTP API, on its own thread
pub mod alerts; // who is told when something is wrong
pub mod cli; // the command line
pub mod config; // as written, as checked, and what is wrong with it
pub mod control; // CONTROL PLANE: replicas watched, catalogues read
pub mod data; // DATA PLANE: listener, login, connection, cancel
pub mod demo; // a throw-away cluster with the proxy in front
pub mod exit; // how the process ends
pub mod explain; // what a statement would come to
pub mod handover; // listening sockets from one process to the next
mod hidden; // what is known of code that no statement names
pub mod http; // the HTTP query endpoint
pub mod observe; // logs and metrics
mod open_files; // the limit of open files
pub mod plugins; // policies as WASM: loaded, kept, swapped
pub mod rates; // what statements have used up, alone or with other processes
mod redis_connection; // TCP, TLS or a Unix socket to a Redis
pub mod results; // answers that are kept
pub mod serve; // builds everything, waits, drains
pub mod settle; // from a checked configuration to what the data plane runs on
pub mod sharing; // answers in Redis, which several processes share
pub mod statistics; // what PostgreSQL knows of tables
pub mod stream; // one type for TCP, Unix and TLS byte streams
pub mod tls; // rustls configurations, libpq's sslmodes
pub mod trace; // records of what ran
pub mod upstream; // server connections: connect, log in, pool
pub mod uring; // sockets by io_uring, where the kernel has it
pub mod view; // what the control plane knows, as the data plane sees it
mod web; // a question by HTTP
