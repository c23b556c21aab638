//! The configuration as written: each value optional, each with where it was written.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::alerts::{AlertKind, WebUrl};
use super::cache::Admission;
use super::checked::{
    AuthMethod, ClientTlsMode, IoDriver, Listen, PoolMode, Secret, ServerUrl, TrustRemote,
};
use super::error::Origin;
use super::failover::{FailoverMode, FencingWord};
use super::log::LogFormat;
use super::peers::PeerAddress;
use super::plugins::{FileHash, PublicKey, Signatures};
use super::routing::{Causality, Reads};
use super::servers::ExporterUrl;
use tidegate_core::policy::Slot;
use tidegate_limiter::FailMode;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> At<T> {
    /// A value of the command line.
    pub fn flag(name: &'static str, value: T) -> Self {
        Self { value, origin: Origin::Flag(name) }
    }
}

/// A duration, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(pub Option<Duration>);

/// Log directives that were parsed once, to be sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(pub String);

/// What a file, or the command line, says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    pub listen: Vec<At<Listen>>,
    pub workers: Option<At<usize>>,
    pub io: Option<At<IoDriver>>,
    pub peer_id: Option<At<usize>>,
    pub peers: Vec<RawPeer>,
    pub cluster: RawCluster,
    pub servers: Vec<RawServer>,
    pub admin: RawAdmin,
    pub http: RawHttp,
    pub pool: RawPool,
    pub pools: Vec<RawOverride>,
    pub quotas: Vec<RawQuota>,
    pub routing: RawRouting,
    pub failover: RawFailover,
    pub alerts: Vec<RawAlerts>,
    pub plugins: RawPlugins,
    pub pins: Vec<RawPin>,
    pub auth: RawAuth,
    pub tls: RawTls,
    pub handover: RawHandover,
    pub limits: RawLimits,
    pub rates: RawRates,
    pub cache: RawCache,
    pub log: RawLog,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawCluster {
    pub primary: Option<At<ServerUrl>>,
    pub replicas: Vec<At<ServerUrl>>,
    pub password: Option<At<Secret>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawServer {
    /// Where the table begins.
    pub origin: Origin,
    pub name: Option<At<String>>,
    pub node_exporter: Option<At<ExporterUrl>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawAdmin {
    pub address: Option<At<SocketAddr>>,
    pub token: Option<At<Secret>>,
    pub token_file: Option<At<PathBuf>>,
    pub allow_remote: Option<At<bool>>,
    pub open_metrics: Option<At<bool>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawHttp {
    pub listen: Option<At<SocketAddr>>,
    pub allow_plain: Option<At<bool>>,
    pub cors_origins: Vec<At<String>>,
    pub connections_max: Option<At<usize>>,
    pub body_mib_max: Option<At<usize>>,
    pub result_mib_max: Option<At<usize>>,
    pub time_max: Option<At<Duration>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawPool {
    pub mode: Option<At<PoolMode>>,
    pub size_min: Option<At<usize>>,
    pub size_max: Option<At<usize>>,
    pub critical_max: Option<At<usize>>,
    pub idle_max: Option<At<Duration>>,
    pub lifetime_max: Option<At<Timeout>>,
    pub wait_max: Option<At<Duration>>,
    pub pause_max: Option<At<Duration>>,
    pub utilisation_warn_percent: Option<At<usize>>,
    pub utilisation_clear_percent: Option<At<usize>>,
    pub connect_timeout: Option<At<Duration>>,
    pub transaction_replay: Option<At<bool>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOverride {
    /// Where the table begins.
    pub origin: Origin,
    pub database: Option<At<String>>,
    pub user: Option<At<String>>,
    pub settings: RawPool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawQuota {
    /// Where the table begins.
    pub origin: Origin,
    pub database: Option<At<String>>,
    pub user: Option<At<String>>,
    pub clients_max: Option<At<usize>>,
    pub servers_max: Option<At<usize>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawAlerts {
    /// Where the table begins.
    pub origin: Origin,
    pub kind: Option<At<AlertKind>>,
    pub url: Option<At<Secret>>,
    pub token: Option<At<Secret>>,
    pub from: Option<At<String>>,
    pub to: Vec<At<String>>,
    pub user: Option<At<String>>,
    pub password: Option<At<Secret>>,
    pub root_ca: Option<At<PathBuf>>,
    pub repeat: Option<At<Duration>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRouting {
    pub reads: Option<At<Reads>>,
    pub lag_max: Option<At<Duration>>,
    pub lag_return: Option<At<Duration>>,
    pub causality: Option<At<Causality>>,
    pub catch_up_max: Option<At<Timeout>>,
    pub slow_start: Option<At<Timeout>>,
    pub eject_time: Option<At<Timeout>>,
    pub eject_ratio: Option<At<usize>>,
    pub eject_floor: Option<At<Duration>>,
    pub fallback_percent: Option<At<usize>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawFailover {
    pub mode: Option<At<FailoverMode>>,
    pub hold_max: Option<At<Duration>>,
    pub silent_max: Option<At<Duration>>,
    pub restart_max: Option<At<Duration>>,
    pub lag_bytes_max: Option<At<usize>>,
    pub interval_min: Option<At<Duration>>,
    pub fencing: Option<At<FencingWord>>,
    pub fence_command: Vec<At<String>>,
    pub fence_timeout: Option<At<Duration>>,
    pub rejoin_command: Vec<At<String>>,
    pub resync_after: Option<At<Timeout>>,
    pub user: Option<At<String>>,
    pub password: Option<At<Secret>>,
    pub etcd: RawEtcd,
    pub patroni: RawPatroni,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawEtcd {
    pub urls: Vec<At<WebUrl>>,
    pub user: Option<At<String>>,
    pub password: Option<At<Secret>>,
    pub tls: RawApiTls,
    pub prefix: Option<At<String>>,
    pub lease: Option<At<Duration>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawPatroni {
    pub urls: Vec<At<WebUrl>>,
    pub user: Option<At<String>>,
    pub password: Option<At<Secret>>,
    pub tls: RawApiTls,
}

/// How managers are reached over `https://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawApiTls {
    pub root_ca: Option<At<PathBuf>>,
    pub cert: Option<At<PathBuf>>,
    pub key: Option<At<PathBuf>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawCache {
    pub entries_max: Option<At<usize>>,
    pub memory_mib_max: Option<At<usize>>,
    pub ttl_max: Option<At<Duration>>,
    pub compress_kib_min: Option<At<usize>>,
    pub admission: Option<At<Admission>>,
    pub inspect_per_second: Option<At<usize>>,
    pub single_flight: Option<At<Timeout>>,
    pub write_through: Option<At<Timeout>>,
    pub follow_wal: Option<At<bool>>,
    pub follow_user: Option<At<String>>,
    pub follow_password: Option<At<Secret>>,
    pub warm: Vec<RawWarm>,
    pub redis: RawRedis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawWarm {
    /// Where the table begins.
    pub origin: Origin,
    pub database: Option<At<String>>,
    pub user: Option<At<String>>,
    pub password: Option<At<Secret>>,
    pub settings: Vec<At<String>>,
    pub statements: Vec<At<String>>,
    pub file: Option<At<PathBuf>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRedis {
    pub url: Option<At<Secret>>,
    pub root_ca: Option<At<PathBuf>>,
    pub prefix: Option<At<String>>,
    pub deadline: Option<At<Duration>>,
    pub lease: Option<At<Duration>>,
    pub reliance: Option<At<Timeout>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRateRedis {
    pub url: Option<At<Secret>>,
    pub root_ca: Option<At<PathBuf>>,
    pub prefix: Option<At<String>>,
    pub deadline: Option<At<Duration>>,
    pub fail_mode: Option<At<FailMode>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawPlugins {
    pub state_dir: Option<At<PathBuf>>,
    pub signatures: Option<At<Signatures>>,
    pub keys: Vec<At<PublicKey>>,
    pub memory_mib_max: Option<At<usize>>,
    pub plan_time_max: Option<At<Duration>>,
    pub decide_time_max: Option<At<Duration>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPeer {
    /// Where the table begins.
    pub origin: Origin,
    pub id: Option<At<usize>>,
    pub address: Option<At<PeerAddress>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPin {
    /// Where the table begins.
    pub origin: Origin,
    pub slot: Option<At<Slot>>,
    pub file: Option<At<PathBuf>>,
    pub sha256: Option<At<FileHash>>,
    pub settings: Option<At<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawAuth {
    pub method: Option<At<AuthMethod>>,
    pub users_file: Option<At<PathBuf>>,
    pub hba_file: Option<At<PathBuf>>,
    pub query: Option<At<String>>,
    pub query_user: Option<At<String>>,
    pub query_password: Option<At<Secret>>,
    pub query_database: Option<At<String>>,
    pub trust_remote: Option<At<TrustRemote>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawTls {
    pub mode: Option<At<ClientTlsMode>>,
    pub cert: Option<At<PathBuf>>,
    pub key: Option<At<PathBuf>>,
    pub client_ca: Option<At<PathBuf>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawHandover {
    pub dir: Option<At<PathBuf>>,
    pub grace: Option<At<Duration>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLimits {
    pub clients_max: Option<At<usize>>,
    pub login_timeout: Option<At<Duration>>,
    pub statement_timeout: Option<At<Timeout>>,
    pub critical_statement_timeout: Option<At<Timeout>>,
    pub client_idle_timeout: Option<At<Timeout>>,
    pub idle_in_transaction_timeout: Option<At<Timeout>>,
    pub shutdown_grace: Option<At<Duration>>,
    pub prepared_per_server_max: Option<At<usize>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRates {
    pub per_end_user: Option<At<usize>>,
    pub all: Option<At<usize>>,
    pub window: Option<At<Duration>>,
    pub wait_max: Option<At<Timeout>>,
    pub administrators: Vec<At<String>>,
    pub redis: RawRateRedis,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawLog {
    pub format: Option<At<LogFormat>>,
    pub filter: Option<At<LogFilter>>,
}

impl Raw {
    /// Puts the command line's values over these; lists are replaced, not joined.
    pub fn overlay(&mut self, flags: Self) {
        fn list<T>(under: &mut Vec<T>, over: Vec<T>) {
            if !over.is_empty() {
                *under = over;
            }
        }
        fn one<T>(under: &mut Option<At<T>>, over: Option<At<T>>) {
            if over.is_some() {
                *under = over;
            }
        }
        list(&mut self.listen, flags.listen);
        one(&mut self.workers, flags.workers);
        one(&mut self.cluster.primary, flags.cluster.primary);
        list(&mut self.cluster.replicas, flags.cluster.replicas);
        one(&mut self.admin.address, flags.admin.address);
        one(&mut self.pool.mode, flags.pool.mode);
        one(&mut self.pool.size_max, flags.pool.size_max);
        one(&mut self.auth.method, flags.auth.method);
        one(&mut self.auth.users_file, flags.auth.users_file);
        one(&mut self.tls.cert, flags.tls.cert);
        one(&mut self.tls.key, flags.tls.key);
        one(&mut self.log.format, flags.log.format);
        one(&mut self.log.filter, flags.log.filter);
        // The two ways to name a token are one decision: a flag or the environment replaces both.
        if flags.admin.token_file.is_some() || flags.admin.token.is_some() {
            self.admin.token = flags.admin.token;
            self.admin.token_file = flags.admin.token_file;
        }
    }
}
