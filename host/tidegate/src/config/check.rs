//! From what was written to a configuration that holds together, or every reason why it does not.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_core::limits;

use super::checked::{
    AdminConfig, ClientTls, ClientTlsMode, ClusterConfig, Config, HandoverSettings, IoDriver,
    LimitSettings, Listen, MetricsAccess, PoolMode, PoolOverride, PoolSettings, Secret, ServerUrl,
};
use super::error::{ConfigError, Origin, Problem};
use super::log;
use super::raw::{
    At, Raw, RawAdmin, RawCluster, RawHandover, RawLimits, RawOverride, RawPool, RawTls, Timeout,
};
use super::source::read_bounded;
use crate::tls::{Acceptor, ServerTls, TlsError};

/// Checks everything; `made_up_token` is the admin token if nobody gave one.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn check(raw: Raw, made_up_token: Option<&Secret>) -> Result<Config, Vec<ConfigError>> {
    let mut checker = Checker { errors: Vec::new() };
    checker.server_tls(&raw.cluster);
    let listen = checker.listen(raw.listen);
    let workers = checker.workers(raw.workers);
    let io = raw.io.map_or(IoDriver::Auto, |io| io.value);
    let (peer_id, peers) = checker.peers(raw.peer_id, raw.peers);
    let mut cluster = checker.cluster(raw.cluster);
    checker.servers(raw.servers, cluster.as_mut());
    let admin = checker.admin(raw.admin, made_up_token);
    let pool = checker.pool("pool", &raw.pool, &pool_defaults());
    let pools =
        raw.pools.into_iter().map(|written| checker.pool_override(written, &pool)).collect();
    let quotas = checker.quotas(raw.quotas);
    let routing = checker.routing(raw.routing);
    let failover = checker.failover(raw.failover, cluster.as_ref());
    let alerts = checker.alerts(raw.alerts);
    let plugins = checker.plugins(raw.plugins, raw.pins);
    let tls = checker.tls(raw.tls);
    let auth = checker.auth(raw.auth, &tls);
    let http = checker.http(raw.http, &tls);
    let handover = handover(raw.handover);
    let limits = checker.limits(raw.limits);
    let rates = checker.rates(raw.rates);
    let cache = checker.cache(raw.cache);
    let log = log::log(raw.log);
    match cluster {
        Some(cluster) if checker.errors.is_empty() => Ok(Config {
            listen,
            admin,
            http,
            workers,
            io,
            peer_id,
            peers,
            cluster,
            pool,
            pools,
            quotas,
            routing,
            failover,
            alerts,
            plugins,
            auth,
            tls,
            handover,
            limits,
            rates,
            cache,
            log,
        }),
        _ => Err(checker.errors),
    }
}

pub(super) struct Checker {
    errors: Vec<ConfigError>,
}

impl Checker {
    pub(super) fn fail(&mut self, origin: Option<&Origin>, key: &str, problem: Problem) {
        self.errors.push(ConfigError { origin: origin.cloned(), key: key.to_owned(), problem });
    }

    pub(super) fn contradiction(&mut self, origin: &Origin, key: &str, message: impl Into<String>) {
        self.fail(Some(origin), key, Problem::Contradiction(message.into()));
    }

    pub(super) fn bad_value(&mut self, origin: &Origin, key: &str, message: impl Into<String>) {
        self.fail(Some(origin), key, Problem::BadValue(message.into()));
    }

    fn missing(&mut self, key: &str, message: impl Into<String>) {
        self.fail(None, key, Problem::Missing(message.into()));
    }

    fn listen(&mut self, written: Vec<At<Listen>>) -> Vec<Listen> {
        let mut addresses = Vec::with_capacity(written.len().max(1));
        for At { value, origin } in written {
            if addresses.contains(&value) {
                self.contradiction(&origin, "listen", format!("{value} is there twice"));
            }
            addresses.push(value);
        }
        if addresses.is_empty() {
            addresses.push(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 6432))));
        }
        addresses
    }

    fn workers(&mut self, written: Option<At<usize>>) -> usize {
        let asked = self.bounded("workers", written, 0..=limits::WORKERS_MAX, 0);
        match asked {
            0 => std::thread::available_parallelism().map_or(1, NonZero::get),
            asked => asked,
        }
    }

    pub(super) fn bounded(
        &mut self,
        key: &str,
        written: Option<At<usize>>,
        range: std::ops::RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        let Some(At { value, origin }) = written else {
            return default;
        };
        if !range.contains(&value) {
            let (low, high) = (range.start(), range.end());
            let message = match *high {
                usize::MAX => format!("{value} is less than {low}"),
                _ => format!("{value} is not from {low} to {high}"),
            };
            self.bad_value(&origin, key, message);
        }
        value
    }

    fn cluster(&mut self, written: RawCluster) -> Option<ClusterConfig> {
        let password = written.password.map(|password| password.value);
        let complete = |mut server: ServerUrl, name: String| {
            server.name = name;
            if server.password.is_none() {
                server.password.clone_from(&password);
            }
            server
        };
        let mut replicas: Vec<ServerUrl> = Vec::new();
        let primary = written.primary.map(|primary| primary.value);
        for (index, At { value, origin }) in written.replicas.into_iter().enumerate() {
            let same = |other: &ServerUrl| other.address == value.address;
            if primary.as_ref().is_some_and(same) {
                let message = format!("{} is the primary", value.address);
                self.contradiction(&origin, "cluster.replicas", message);
            } else if replicas.iter().any(same) {
                let message = format!("{} is there twice", value.address);
                self.contradiction(&origin, "cluster.replicas", message);
            }
            replicas.push(complete(value, format!("replica-{}", index + 1)));
        }
        let Some(primary) = primary else {
            let url = "\"postgres://USER:PASSWORD@HOST:PORT/DATABASE\"";
            let message = format!(
                "no primary server; write `primary = {url}` under [cluster], or give --primary"
            );
            self.missing("cluster.primary", message);
            return None;
        };
        Some(ClusterConfig { primary: complete(primary, "primary".to_owned()), replicas })
    }

    /// That the certificates of the URLs can be used.
    fn server_tls(&mut self, written: &RawCluster) {
        let primary = written.primary.iter().map(|server| ("cluster.primary", server));
        let replicas = written.replicas.iter().map(|server| ("cluster.replicas", server));
        for (key, At { value: url, origin }) in primary.chain(replicas) {
            let (roots, own) = (url.sslrootcert.as_ref(), url.own_certificate.as_ref());
            if let Err(error) = ServerTls::new(url.sslmode, roots, own) {
                self.fail(Some(origin), key, Problem::Unreadable(error.to_string()));
            }
        }
    }

    fn admin(&mut self, written: RawAdmin, made_up_token: Option<&Secret>) -> Option<AdminConfig> {
        let errors_before = self.errors.len();
        let token = self.admin_token(&written, made_up_token);
        let explained = self.errors.len() > errors_before;
        let open_metrics = written.open_metrics.is_some_and(|open| open.value);
        let allow_remote = written.allow_remote.is_some_and(|allow| allow.value);
        let At { value: address, origin } = written.address?;
        if !address.ip().is_loopback() && !allow_remote {
            let message = format!(
                "{} is reachable from other machines; use 127.0.0.1, or set admin.allow_remote = true \
                 and put TLS in front",
                address.ip()
            );
            self.contradiction(&origin, "admin.address", message);
        }
        let Some(token) = token else {
            if !explained {
                let message = "no token; set TIDEGATE_ADMIN_TOKEN or admin.token_file";
                self.missing("admin.token", message);
            }
            return None;
        };
        let metrics = if open_metrics { MetricsAccess::Open } else { MetricsAccess::Token };
        Some(AdminConfig { address, token, metrics })
    }

    fn admin_token(
        &mut self,
        written: &RawAdmin,
        made_up_token: Option<&Secret>,
    ) -> Option<Secret> {
        let (origin, key, token) = match (&written.token, &written.token_file) {
            (Some(token), Some(_)) => {
                let message = "admin.token and admin.token_file are both there";
                self.contradiction(&token.origin, "admin.token", message);
                return None;
            }
            (Some(token), None) => (&token.origin, "admin.token", token.value.clone()),
            (None, Some(file)) => {
                let text = self.read("admin.token_file", file, limits::TOKEN_FILE_BYTES_MAX)?;
                let first = text.lines().next().unwrap_or_default().trim();
                (&file.origin, "admin.token_file", Secret::new(first))
            }
            (None, None) => return made_up_token.cloned(),
        };
        // Without an address, a variable that is there for somebody else is no error.
        if written.address.is_none() && matches!(origin, Origin::Environment(_)) {
            return None;
        }
        // What a header can carry.
        let text = token.reveal();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.bad_value(origin, key, "a token is visible ASCII without spaces, and not empty");
        }
        Some(token)
    }

    pub(super) fn read(&mut self, key: &str, path: &At<PathBuf>, bytes_max: u64) -> Option<String> {
        match read_bounded(&path.value, bytes_max) {
            Ok(text) => Some(text),
            Err(error) => {
                let problem =
                    Problem::Unreadable(format!("{} can't be read: {error}", path.value.display()));
                self.fail(Some(&path.origin), key, problem);
                None
            }
        }
    }

    fn pool(&mut self, table: &str, written: &RawPool, under: &PoolSettings) -> PoolSettings {
        let key = |name: &str| format!("{table}.{name}");
        let size_max = self.bounded(
            &key("size_max"),
            written.size_max.clone(),
            1..=limits::POOL_SIZE_CONFIG_MAX,
            under.size_max,
        );
        let size_min = match &written.size_min {
            // A minimum nobody wrote bends to a smaller maximum.
            None => under.size_min.min(size_max),
            Some(At { value, origin }) => {
                if *value > size_max {
                    let message = format!("{value} is above {} {size_max}", key("size_max"));
                    self.contradiction(origin, &key("size_min"), message);
                }
                *value
            }
        };
        let critical_max = self.bounded(
            &key("critical_max"),
            written.critical_max.clone(),
            0..=limits::POOL_SIZE_CONFIG_MAX,
            under.critical_max,
        );
        let warn = self.bounded(
            &key("utilisation_warn_percent"),
            written.utilisation_warn_percent.clone(),
            1..=100,
            under.utilisation_warn_percent as usize,
        );
        let clear = match &written.utilisation_clear_percent {
            None => (under.utilisation_clear_percent as usize).min(warn.saturating_sub(1)),
            Some(At { value, origin }) => {
                if *value >= warn {
                    let other = key("utilisation_warn_percent");
                    let message = format!("{value} is not below {other} {warn}");
                    self.contradiction(origin, &key("utilisation_clear_percent"), message);
                }
                *value
            }
        };
        // Both are at most 100 here, or an error was recorded.
        let percent = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        PoolSettings {
            mode: or(&written.mode, under.mode),
            size_min,
            size_max,
            critical_max,
            idle_max: or(&written.idle_max, under.idle_max),
            lifetime_max: timeout(&written.lifetime_max, under.lifetime_max),
            wait_max: or(&written.wait_max, under.wait_max),
            pause_max: or(&written.pause_max, under.pause_max),
            utilisation_warn_percent: percent(warn),
            utilisation_clear_percent: percent(clear),
            connect_timeout: or(&written.connect_timeout, under.connect_timeout),
            transaction_replay: or(&written.transaction_replay, under.transaction_replay),
        }
    }

    fn pool_override(&mut self, written: RawOverride, under: &PoolSettings) -> PoolOverride {
        if written.database.is_none() && written.user.is_none() {
            let message =
                "names neither database nor user; settings for every pool belong in [pool]";
            let problem = Problem::Missing(message.to_owned());
            self.fail(Some(&written.origin), "pools", problem);
        }
        let settings = self.pool("pools", &written.settings, under);
        let text = |written: Option<At<String>>| written.map(|written| written.value);
        PoolOverride { database: text(written.database), user: text(written.user), settings }
    }

    fn tls(&mut self, written: RawTls) -> ClientTls {
        let RawTls { mode, cert, key, client_ca } = written;
        let both = [("tls.cert", &cert, "tls.key"), ("tls.key", &key, "tls.cert")];
        if cert.is_some() != key.is_some() {
            for (name, path, other) in both {
                if let Some(path) = path {
                    self.contradiction(&path.origin, name, format!("needs {other} too"));
                }
            }
        }
        let default = match cert {
            Some(_) => ClientTlsMode::Prefer,
            None => ClientTlsMode::Disable,
        };
        if let Some(At { value, origin }) = &mode {
            let name = value.as_str();
            if *value != ClientTlsMode::Disable && cert.is_none() {
                let message = format!("{name} needs tls.cert and tls.key");
                self.contradiction(origin, "tls.mode", message);
            }
            if *value == ClientTlsMode::VerifyFull && client_ca.is_none() {
                self.contradiction(origin, "tls.mode", format!("{name} needs tls.client_ca"));
            }
        }
        let path = |written: &Option<At<PathBuf>>| written.as_ref().map(|at| at.value.clone());
        let tls = ClientTls {
            mode: mode.map_or(default, |mode| mode.value),
            cert: path(&cert),
            key: path(&key),
            client_ca: path(&client_ca),
        };
        let files = [("tls.cert", cert), ("tls.client_ca", client_ca), ("tls.key", key)];
        self.tls_files(&tls, files);
        tls
    }

    /// That the files make a TLS server; the error belongs to the file it names, else to the last.
    fn tls_files(&mut self, tls: &ClientTls, files: [(&str, Option<At<PathBuf>>); 3]) {
        let Some(Err(error)) = tls.accept_files().map(Acceptor::new) else {
            return;
        };
        let written = || files.iter().filter_map(|(key, file)| Some((*key, file.as_ref()?)));
        let named = written().find(|(_, file)| match &error {
            TlsError::File { path, .. } => *path == file.value,
            _ => false,
        });
        if let Some((key, file)) = named.or_else(|| written().next_back()) {
            self.fail(Some(&file.origin), key, Problem::Unreadable(error.to_string()));
        }
    }

    fn limits(&mut self, written: RawLimits) -> LimitSettings {
        LimitSettings {
            clients_max: self.bounded(
                "limits.clients_max",
                written.clients_max,
                1..=limits::CLIENTS_CONFIG_MAX,
                limits::CLIENTS_MAX,
            ),
            login_timeout: or(&written.login_timeout, limits::LOGIN_TIME_MAX),
            statement_timeout: timeout(&written.statement_timeout, None),
            critical_statement_timeout: timeout(&written.critical_statement_timeout, None),
            client_idle_timeout: timeout(&written.client_idle_timeout, None),
            idle_in_transaction_timeout: timeout(&written.idle_in_transaction_timeout, None),
            shutdown_grace: or(&written.shutdown_grace, limits::SHUTDOWN_GRACE),
            prepared_per_server_max: self.bounded(
                "limits.prepared_per_server_max",
                written.prepared_per_server_max,
                1..=limits::PREPARED_PER_CLIENT_MAX,
                limits::PREPARED_PER_SERVER_MAX,
            ),
        }
    }
}

fn handover(written: RawHandover) -> HandoverSettings {
    let grace = or(&written.grace, limits::HANDOVER_GRACE);
    HandoverSettings { dir: written.dir.map(|dir| dir.value), grace }
}

fn pool_defaults() -> PoolSettings {
    PoolSettings {
        mode: PoolMode::Transaction,
        size_min: limits::POOL_SIZE_MIN,
        size_max: limits::POOL_SIZE_MAX,
        critical_max: limits::POOL_CRITICAL_MAX,
        idle_max: limits::POOL_IDLE_MAX,
        lifetime_max: Some(limits::SERVER_LIFETIME_MAX),
        wait_max: limits::POOL_WAIT_MAX,
        pause_max: limits::POOL_PAUSE_MAX,
        utilisation_warn_percent: limits::POOL_UTILISATION_WARN_PERCENT,
        utilisation_clear_percent: limits::POOL_UTILISATION_CLEAR_PERCENT,
        connect_timeout: limits::CONNECT_TIME_MAX,
        transaction_replay: false,
    }
}

pub(super) fn or<T: Copy>(written: &Option<At<T>>, default: T) -> T {
    written.as_ref().map_or(default, |written| written.value)
}

pub(super) fn timeout(
    written: &Option<At<Timeout>>,
    default: Option<Duration>,
) -> Option<Duration> {
    written.as_ref().map_or(default, |written| written.value.0)
}
