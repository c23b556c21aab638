//! The configuration after every check: the only shape of it that the rest of the program sees.
//!
//! A value of these types is consistent: bounds are ordered, files named were read where they had
//! to be, an address is an address. [`crate::config::check`] builds them from what was written.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::alerts::AlertReceiver;
use super::cache::CacheSettings;
use super::peers::Peer;
use super::routing::RoutingSettings;
use super::servers::ExporterUrl;
use std::sync::Arc;
use tidegate_hba::Hba;
pub use tidegate_wire::auth::Secret;

use super::failover::FailoverSettings;
use super::http::HttpConfig;
use super::log::LogConfig;
use super::plugins::PluginsConfig;
use super::quotas::Quotas;
use super::rates::Rates;
use super::users::Users;
use super::version::ProtocolVersion;
use crate::tls::{AcceptFiles, ClientCertificates};
pub use crate::tls::{ChannelBinding, OwnCertificate, RootCertificates, SslMode, SslNegotiation};

/// Everything `tidegate serve` needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect; never empty.
    pub listen: Vec<Listen>,
    pub admin: Option<AdminConfig>,
    pub http: Option<HttpConfig>,
    /// Data-plane threads; at least one.
    pub workers: usize,
    pub io: IoDriver,
    /// Which of several Tidegates this is, in its cancel keys; 0 for none.
    pub peer_id: u8,
    pub peers: Vec<Peer>,
    pub cluster: ClusterConfig,
    /// What holds for each pool without an override.
    pub pool: PoolSettings,
    /// In the order written; the first that matches wins.
    pub pools: Vec<PoolOverride>,
    pub quotas: Quotas,
    pub routing: RoutingSettings,
    pub failover: FailoverSettings,
    pub alerts: Vec<AlertReceiver>,
    pub plugins: PluginsConfig,
    pub auth: AuthConfig,
    pub tls: ClientTls,
    pub handover: HandoverSettings,
    pub limits: LimitSettings,
    pub rates: Rates,
    pub cache: CacheSettings,
    pub log: LogConfig,
}

impl Config {
    /// The settings of the pool of one database and user.
    pub fn pool_settings(&self, database: &str, user: &str) -> &PoolSettings {
        let matching = self.pools.iter().find(|pool| pool.matches(database, user));
        matching.map_or(&self.pool, |pool| &pool.settings)
    }
}

/// An address clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    Tcp(SocketAddr),
    /// The socket file itself; libpq looks for `DIR/.s.PGSQL.PORT`.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The admin HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Loopback, unless the configuration allows otherwise.
    pub address: SocketAddr,
    pub token: Secret,
    pub metrics: MetricsAccess,
}

/// Who may read `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Who has the token.
    Token,
    /// Anyone who reaches the address, as scrapers without credentials need.
    Open,
}

/// The servers behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    pub primary: ServerUrl,
    pub replicas: Vec<ServerUrl>,
}

impl ClusterConfig {
    /// 0 is the primary, n is replica n; for a replica that is not configured the primary stands in.
    pub fn server(&self, instance: usize) -> &ServerUrl {
        let replica = instance.checked_sub(1).and_then(|index| self.replicas.get(index));
        replica.unwrap_or(&self.primary)
    }

    /// The same servers, with another of them in the place of the primary. Unchanged if it is none of them.
    #[must_use]
    pub fn led_by(mut self, address: &ServerAddress) -> Self {
        if let Some(leader) = self.replicas.iter_mut().find(|server| server.address == *address) {
            std::mem::swap(&mut self.primary, leader);
        }
        self
    }
}

impl ServerUrl {
    /// Do connections made for one serve for the other, whoever logs in?
    pub fn is_reached_like(&self, other: &Self) -> bool {
        self.address == other.address
            && self.sslmode == other.sslmode
            && self.sslrootcert == other.sslrootcert
            && self.own_certificate == other.own_certificate
            && self.channel_binding == other.channel_binding
            && self.sslnegotiation == other.sslnegotiation
    }
}

/// One server, as its `postgres://` URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// `primary`, `replica-1`, …: what logs, metrics and the admin API call it.
    pub name: String,
    pub address: ServerAddress,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub sslmode: SslMode,
    pub sslrootcert: Option<RootCertificates>,
    /// `sslcert` and `sslkey`.
    pub own_certificate: Option<OwnCertificate>,
    pub channel_binding: ChannelBinding,
    pub sslnegotiation: SslNegotiation,
    pub max_protocol_version: ProtocolVersion,
    /// Of `[[servers]]`: who tells how busy its machine is; none: the server itself, if it may.
    pub node_exporter: Option<ExporterUrl>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// `host` is a name or an address; an IPv6 address is without brackets.
    Tcp { host: String, port: u16 },
    /// The socket is `dir/.s.PGSQL.port`.
    Unix { dir: PathBuf, port: u16 },
}

impl ServerAddress {
    /// The socket file of a Unix address.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp { .. } => None,
            Self::Unix { dir, port } => Some(dir.join(format!(".s.PGSQL.{port}"))),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { dir, port } => write!(f, "{}:{port}", dir.display()),
        }
    }
}

/// How one pool of server connections behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    pub mode: PoolMode,
    /// `size_min <= size_max`, and `size_max` is at least one.
    pub size_min: usize,
    pub size_max: usize,
    /// Beyond those, for critical statements alone.
    pub critical_max: usize,
    /// An idle connection above `size_min` is closed after this.
    pub idle_max: Duration,
    /// A connection is closed at this age when it is next idle; none: never.
    pub lifetime_max: Option<Duration>,
    /// A statement waits for a connection at most this long.
    pub wait_max: Duration,
    /// A statement is held at most this long while its database is paused.
    pub pause_max: Duration,
    /// `1..=100`, and above `utilisation_clear_percent`.
    pub utilisation_warn_percent: u32,
    pub utilisation_clear_percent: u32,
    /// One attempt to connect and log in.
    pub connect_timeout: Duration,
    /// Interrupted transactions are run again, unless the client says otherwise.
    pub transaction_replay: bool,
}

/// How sockets are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoDriver {
    /// io_uring where it works and while it pays, else epoll.
    Auto,
    IoUring,
    Epoll,
}

impl IoDriver {
    pub const ALL: [Self; 3] = [Self::Auto, Self::IoUring, Self::Epoll];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// When a server connection goes back to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// At the end of each transaction.
    Transaction,
    /// When the client leaves.
    Session,
}

impl PoolMode {
    pub const ALL: [Self; 2] = [Self::Transaction, Self::Session];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// Settings for some pools; what an override does not name is as in `[pool]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOverride {
    /// None: every database.
    pub database: Option<String>,
    /// None: every user.
    pub user: Option<String>,
    pub settings: PoolSettings,
}

impl PoolOverride {
    fn matches(&self, database: &str, user: &str) -> bool {
        self.database.as_deref().is_none_or(|wanted| wanted == database)
            && self.user.as_deref().is_none_or(|wanted| wanted == user)
    }
}

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    pub method: AuthMethod,
    pub users_file: Option<PathBuf>,
    /// What `users_file` held when the configuration was read; empty without one.
    pub users: Users,
    pub query: Option<AuthQueryConfig>,
    /// In place of the method.
    pub hba: Option<HbaFile>,
    pub trust_remote: TrustRemote,
}

/// Rules on who may connect, as a file held them when the configuration was read.
#[derive(Clone, Debug)]
pub struct HbaFile {
    pub path: PathBuf,
    pub rules: Arc<Hba>,
    /// What was read, included files and all.
    pub(super) text: String,
}

impl PartialEq for HbaFile {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.text == other.text
    }
}

impl Eq for HbaFile {}

/// How users are looked up at the primary, instead of in `pg_authid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthQueryConfig {
    pub sql: String,
    /// Unless written, the user of the primary's URL.
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: Option<String>,
}

/// What a client is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthMethod {
    /// What the primary would ask, checked by the primary: its users log in with their own
    /// passwords.
    Passthrough,
    ScramSha256,
    Md5,
    /// In clear: over TLS or from this machine only.
    Password,
    /// A certificate of `tls.client_ca` whose common name is the user.
    Certificate,
    /// Nothing; from this machine only, see [`TrustRemote`].
    Trust,
}

impl AuthMethod {
    pub const ALL: [Self; 6] = [
        Self::Passthrough,
        Self::ScramSha256,
        Self::Md5,
        Self::Password,
        Self::Certificate,
        Self::Trust,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::ScramSha256 => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Password => "password",
            Self::Certificate => "certificate",
            Self::Trust => "trust",
        }
    }
}

/// Whether `trust` holds for other machines too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrustRemote {
    /// Loopback addresses and Unix sockets only.
    Refuse,
    /// Everybody who reaches the port is believed: the configuration said so in as many words.
    Allow,
}

impl TrustRemote {
    pub const ALL: [Self; 2] = [Self::Refuse, Self::Allow];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }
}

/// TLS towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    pub mode: ClientTlsMode,
    /// Present unless `mode` is `Disable`.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Present when `mode` is `VerifyFull`.
    pub client_ca: Option<PathBuf>,
}

impl ClientTls {
    /// What the TLS server is made of; none without TLS.
    pub fn accept_files(&self) -> Option<AcceptFiles> {
        if self.mode == ClientTlsMode::Disable {
            return None;
        }
        let clients = match (&self.client_ca, self.mode) {
            (None, _) => ClientCertificates::NotAsked,
            (Some(ca), ClientTlsMode::VerifyFull) => ClientCertificates::Required(ca.clone()),
            (Some(ca), _) => ClientCertificates::Optional(ca.clone()),
        };
        let (certificate, key) = (self.cert.clone()?, self.key.clone()?);
        Some(AcceptFiles { certificate, key, clients })
    }
}

/// What a client is offered, or held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTlsMode {
    Disable,
    /// TLS for who asks.
    Allow,
    /// As `Allow`: the choice is the client's. Kept since PgBouncer's users write it.
    Prefer,
    /// No session without TLS (Unix sockets excepted).
    Require,
    /// And the client shows a certificate of `client_ca`.
    VerifyFull,
}

impl ClientTlsMode {
    pub const ALL: [Self; 5] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyFull];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// One process takes over from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoverSettings {
    /// Where processes find each other; none: they do not.
    pub dir: Option<PathBuf>,
    /// A process that was taken over serves its clients for so long.
    pub grace: Duration,
}

/// Bounds on clients and on the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitSettings {
    pub clients_max: usize,
    /// From accept to the first ReadyForQuery.
    pub login_timeout: Duration,
    /// A client outside a transaction that says nothing for this long is disconnected; none: never.
    /// From when a statement is sent to a server.
    pub statement_timeout: Option<Duration>,
    pub critical_statement_timeout: Option<Duration>,
    pub client_idle_timeout: Option<Duration>,
    /// As above, inside a transaction.
    pub idle_in_transaction_timeout: Option<Duration>,
    /// A drain waits this long for clients to finish.
    pub shutdown_grace: Duration,
    /// Prepared statements kept on one server connection.
    pub prepared_per_server_max: usize,
}
