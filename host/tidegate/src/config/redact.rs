//! The configuration in force as JSON, under the keys of `tidegate.toml` and without its secrets.

use std::time::Duration;

use serde_json::{Value, json};

use super::alerts::{AlertChannel, AlertReceiver};
use super::cache::{CacheSettings, WarmSettings};
use super::checked::{
    AuthConfig, AuthMethod, ClusterConfig, Config, LimitSettings, Listen, MetricsAccess,
    PoolSettings, ServerUrl, TrustRemote,
};
use super::failover::{FailoverMode, FailoverSettings, FencingWord};
use super::http::{HttpConfig, Origins, PlainHttp};
use super::managers::{root_ca, shown};
use super::peers::Peer;
use super::plugins::PluginsConfig;
use super::quotas::{Quota, Quotas, Whose};
use super::rates::Rates;
use super::routing::RoutingSettings;
use super::servers::ExporterUrl;
use super::users::UserSecret;

/// What `GET /api/v1/config` answers: whether a secret is set is told, never the secret.
pub fn redacted(config: &Config) -> Value {
    let text = |values: &[String]| Value::from(values.to_vec());
    let replicas: Vec<String> = config.cluster.replicas.iter().map(ToString::to_string).collect();
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let admin = config.admin.as_ref().map(|admin| {
        json!({
            "address": admin.address,
            "token": "***",
            "open_metrics": admin.metrics == MetricsAccess::Open,
        })
    });
    let pools: Vec<Value> = config
        .pools
        .iter()
        .map(|pool| {
            let mut value = pool_settings(&pool.settings);
            value["database"] = json!(pool.database);
            value["user"] = json!(pool.user);
            value
        })
        .collect();
    json!({
        "listen": text(&listen),
        "workers": config.workers,
        "io": config.io.as_str(),
        "peer_id": config.peer_id,
        "peers": peers(&config.peers),
        "cluster": {
            "primary": config.cluster.primary.to_string(),
            "replicas": text(&replicas),
            "password": config.cluster.primary.password.as_ref().map(|_| "***"),
        },
        "servers": servers(&config.cluster),
        "admin": admin,
        "http": config.http.as_ref().map(http),
        "pool": pool_settings(&config.pool),
        "pools": pools,
        "quotas": quotas(&config.quotas),
        "routing": routing(&config.routing),
        "failover": failover(&config.failover),
        "alerts": alerts(&config.alerts),
        "cache": cache(&config.cache),
        "plugins": plugins(&config.plugins),
        "pins": pins(&config.plugins),
        "auth": auth(&config.auth),
        "tls": {
            "mode": config.tls.mode.as_str(),
            "cert": config.tls.cert,
            "key": config.tls.key,
            "client_ca": config.tls.client_ca,
        },
        "rates": rates(&config.rates),
        "handover": {
            "dir": config.handover.dir,
            "grace": duration(config.handover.grace),
        },
        "limits": limits(&config.limits),
        "log": { "format": config.log.format.as_str(), "filter": config.log.filter },
    })
}

fn http(http: &HttpConfig) -> Value {
    let origins = match &http.origins {
        Origins::These(origins) => origins.clone(),
        Origins::All => vec!["*".to_owned()],
    };
    json!({
        "listen": http.address,
        "allow_plain": http.plain == PlainHttp::FromAnywhere,
        "cors_origins": origins,
        "connections_max": http.connections_max,
        "body_mib_max": http.body_bytes_max >> 20,
        "result_mib_max": http.result_bytes_max >> 20,
        "time_max": duration(http.time_max),
    })
}

/// Those that more is written of than their URL.
fn servers(cluster: &ClusterConfig) -> Vec<Value> {
    let all = std::iter::once(&cluster.primary).chain(&cluster.replicas);
    let told = all.filter_map(|server| Some((server, server.node_exporter.as_ref()?)));
    let value = |(server, url): (&ServerUrl, &ExporterUrl)| json!({ "name": server.name, "node_exporter": url.to_string() });
    told.map(value).collect()
}

fn warm(warm: &WarmSettings) -> Value {
    let settings = warm.settings.iter().map(|(name, value)| format!("{name}={value}"));
    json!({
        "database": warm.database,
        "user": warm.user,
        "password": warm.password.as_ref().map(|_| "***"),
        "settings": settings.collect::<Vec<_>>(),
        "statements": &warm.statements[..],
    })
}

fn cache(cache: &CacheSettings) -> Value {
    json!({
        "entries_max": cache.bounds.entries,
        "memory_mib_max": cache.bounds.bytes >> 20,
        "ttl_max": duration(cache.bounds.ttl),
        "compress_kib_min": cache.pack_min.unwrap_or_default() >> 10,
        "admission": cache.admission.as_str(),
        "inspect_per_second": cache.inspect_per_second,
        "single_flight": timeout(cache.single_flight),
        "write_through": timeout(cache.write_through),
        "follow_wal": cache.follow.is_some(),
        "follow_user": cache.follow.as_ref().and_then(|follow| follow.user.as_ref()),
        "follow_password": cache.follow.as_ref().and_then(|follow| follow.password.as_ref()).map(|_| "***"),
        "warm": cache.warm.iter().map(warm).collect::<Vec<_>>(),
        "redis": cache.redis.as_ref().map(|redis| json!({
            "url": redis.url.to_string(),
            "root_ca": redis.url.root_ca(),
            "prefix": redis.prefix,
            "deadline": duration(redis.deadline),
            "lease": duration(redis.lease),
            "reliance": timeout(Some(redis.reliance).filter(|time| !time.is_zero())),
        })),
    })
}

fn rates(rates: &Rates) -> Value {
    json!({
        "per_end_user": rates.limits.end_user,
        "all": rates.limits.all,
        "window": duration(rates.limits.window),
        "wait_max": timeout(Some(rates.limits.wait).filter(|wait| !wait.is_zero())),
        "administrators": rates.administrators,
        "redis": rates.redis.as_ref().map(|redis| json!({
            "url": redis.url.to_string(),
            "root_ca": redis.url.root_ca(),
            "prefix": redis.prefix,
            "deadline": duration(redis.deadline),
            "fail_mode": redis.fail_mode.as_str(),
        })),
    })
}

fn routing(routing: &RoutingSettings) -> Value {
    json!({
        "reads": routing.reads.as_str(),
        "lag_max": duration(routing.lag_max),
        "lag_return": duration(routing.lag_return),
        "causality": routing.causality.as_str(),
        "catch_up_max": timeout(routing.catch_up_max),
        "slow_start": timeout(routing.slow_start),
        "eject_time": timeout(routing.outliers.map(|outlier| outlier.time)),
        "eject_ratio": routing.outliers.map(|outlier| outlier.ratio),
        "eject_floor": routing.outliers.map(|outlier| duration(outlier.floor)),
        "fallback_percent": routing.fallback_percent,
    })
}

fn failover(failover: &FailoverSettings) -> Value {
    let policy = &failover.policy;
    json!({
        "mode": FailoverMode(policy.mode).as_str(),
        "hold_max": duration(policy.hold_max),
        "silent_max": duration(policy.silent_max),
        "restart_max": duration(policy.restart_max),
        "lag_bytes_max": policy.lag_bytes_max,
        "interval_min": duration(policy.interval_min),
        "fencing": FencingWord(policy.fencing).as_str(),
        "fence_command": failover.fence_command,
        "fence_timeout": duration(failover.fence_timeout),
        "rejoin_command": failover.rejoin_command,
        "resync_after": timeout(failover.resync.map(|resync| resync.rebuild_after)),
        "user": failover.user,
        "password": failover.password.as_ref().map(|_| "***"),
        "etcd": failover.etcd.as_ref().map(|etcd| json!({
            "urls": etcd.urls.iter().map(shown).collect::<Vec<_>>(),
            "user": etcd.login.as_ref().map(|(user, _)| user),
            "password": etcd.login.as_ref().map(|_| "***"),
            "root_ca": root_ca(&etcd.tls.roots),
            "cert": etcd.tls.own.as_ref().map(|own| &own.certificate),
            "key": etcd.tls.own.as_ref().map(|own| &own.key),
            "prefix": etcd.prefix,
            "lease": duration(etcd.lease),
        })),
        "patroni": failover.patroni.as_ref().map(|patroni| json!({
            "urls": patroni.urls.iter().map(shown).collect::<Vec<_>>(),
            "user": patroni.login.as_ref().map(|(user, _)| user),
            "password": patroni.login.as_ref().map(|_| "***"),
            "root_ca": root_ca(&patroni.tls.roots),
            "cert": patroni.tls.own.as_ref().map(|own| &own.certificate),
            "key": patroni.tls.own.as_ref().map(|own| &own.key),
        })),
    })
}

/// URLs may be secrets: of them the machine alone is shown.
fn alerts(alerts: &[AlertReceiver]) -> Vec<Value> {
    let alert = |receiver: &AlertReceiver| {
        let channel = &receiver.channel;
        let (from, to, user) = match channel {
            AlertChannel::Email { from, to, login, .. } => {
                (Some(from), Some(to), login.as_ref().map(|(user, _)| user))
            }
            _ => (None, None, None),
        };
        json!({
            "kind": channel.kind().as_str(),
            "host": channel.host(),
            "url": "***",
            "from": from,
            "to": to,
            "user": user,
            "repeat": duration(receiver.repeat),
        })
    };
    alerts.iter().map(alert).collect()
}

fn peers(peers: &[Peer]) -> Vec<Value> {
    let peer = |peer: &Peer| json!({ "id": peer.id, "address": peer.address.0.to_string() });
    peers.iter().map(peer).collect()
}

fn auth(auth: &AuthConfig) -> Value {
    let query = auth.query.as_ref();
    json!({
        "method": auth.method.as_str(),
        "users_file": auth.users_file,
        "users": auth.users.len(),
        "hba_file": auth.hba.as_ref().map(|hba| &hba.path),
        "query": query.map(|query| &query.sql),
        "query_user": query.and_then(|query| query.user.as_ref()),
        "query_password": query.and_then(|query| query.password.as_ref()).map(|_| "***"),
        "query_database": query.and_then(|query| query.database.as_ref()),
        "trust_remote": auth.trust_remote.as_str(),
    })
}

fn limits(limits: &LimitSettings) -> Value {
    json!({
        "clients_max": limits.clients_max,
        "login_timeout": duration(limits.login_timeout),
        "statement_timeout": timeout(limits.statement_timeout),
        "critical_statement_timeout": timeout(limits.critical_statement_timeout),
        "client_idle_timeout": timeout(limits.client_idle_timeout),
        "idle_in_transaction_timeout": timeout(limits.idle_in_transaction_timeout),
        "shutdown_grace": duration(limits.shutdown_grace),
        "prepared_per_server_max": limits.prepared_per_server_max,
    })
}

fn quotas(quotas: &Quotas) -> Vec<Value> {
    let quota = |(whose, quota): &(Whose, Quota)| {
        let (database, user) = match whose {
            Whose::Database(name) => (Some(name.as_str()), None),
            Whose::User(name) => (None, Some(name.as_str())),
            Whose::EachDatabase => (Some("*"), None),
            Whose::EachUser => (None, Some("*")),
        };
        json!({
            "database": database,
            "user": user,
            "clients_max": quota.clients_max,
            "servers_max": quota.servers_max,
        })
    };
    quotas.0.iter().map(quota).collect()
}

fn plugins(plugins: &PluginsConfig) -> Value {
    let keys: Vec<String> = plugins.keys.iter().map(ToString::to_string).collect();
    json!({
        "state_dir": plugins.state_dir,
        "signatures": plugins.signatures.as_str(),
        "keys": keys,
        "memory_mib_max": plugins.memory_bytes_max >> 20,
        "plan_time_max": duration(plugins.plan_time_max),
        "decide_time_max": duration(plugins.decide_time_max),
    })
}

fn pins(plugins: &PluginsConfig) -> Vec<Value> {
    let pin = |pin: &super::plugins::Pin| {
        json!({
            "slot": pin.slot.name(),
            "file": pin.file,
            "sha256": pin.sha256.to_string(),
            "settings": pin.settings,
        })
    };
    plugins.pins.iter().map(pin).collect()
}

fn pool_settings(pool: &PoolSettings) -> Value {
    json!({
        "mode": pool.mode.as_str(),
        "size_min": pool.size_min,
        "size_max": pool.size_max,
        "critical_max": pool.critical_max,
        "idle_max": duration(pool.idle_max),
        "lifetime_max": timeout(pool.lifetime_max),
        "wait_max": duration(pool.wait_max),
        "pause_max": duration(pool.pause_max),
        "utilisation_warn_percent": pool.utilisation_warn_percent,
        "utilisation_clear_percent": pool.utilisation_clear_percent,
        "connect_timeout": duration(pool.connect_timeout),
        "transaction_replay": pool.transaction_replay,
    })
}

fn duration(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

fn timeout(timeout: Option<Duration>) -> String {
    timeout.map_or_else(|| "off".to_owned(), duration)
}

/// What is allowed and yet worth a word, at `tidegate check` and at each start.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let remote = config.listen.iter().any(|listen| match listen {
        Listen::Tcp(address) => !address.ip().is_loopback(),
        Listen::Unix(_) => false,
    });
    let auth = &config.auth;
    let trusts = auth.method == AuthMethod::Trust && auth.trust_remote == TrustRemote::Allow;
    if remote && trusts {
        let text = "auth.method is trust and auth.trust_remote is allow: whoever reaches the port \
                    is believed";
        warnings.push(text.to_owned());
    }
    if config.admin.as_ref().is_some_and(|admin| !admin.address.ip().is_loopback()) {
        let text = "the admin API is reachable from other machines over plain HTTP";
        warnings.push(text.to_owned());
    }
    let is_open = |http: &HttpConfig| {
        !http.address.ip().is_loopback()
            && (http.plain == PlainHttp::FromAnywhere || config.tls.accept_files().is_none())
    };
    if config.http.as_ref().is_some_and(is_open) {
        let text = "the HTTP endpoint takes passwords in clear from other machines";
        warnings.push(text.to_owned());
    }
    let unusable = |secret: &UserSecret| match auth.method {
        AuthMethod::ScramSha256 => matches!(secret, UserSecret::Md5(_)),
        AuthMethod::Md5 => matches!(secret, UserSecret::Scram(_)),
        _ => false,
    };
    let mut users = auth.users.iter().filter(|(_, secret)| unusable(secret)).map(|(user, _)| user);
    if let Some(first) = users.next() {
        let (method, count) = (auth.method.as_str(), 1 + users.count());
        warnings.push(format!(
            "auth.method {method} can't check the secrets of {count} users \
             in the users file, such as {first}"
        ));
    }
    warnings
}
