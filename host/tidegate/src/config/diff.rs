//! What a reload changes: by key, and whether it waits for a restart.

use serde::Serialize;
use serde_json::Value;

use super::checked::{Config, HandoverSettings, Secret};
use super::keys::{KEYS, Reload};
use super::log::LogConfig;
use super::redact::redacted;

/// The answer to a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// Keys whose new value is in force.
    pub changed: Vec<String>,
    /// Keys whose new value waits for a restart.
    pub needs_restart: Vec<String>,
}

/// Names the keys in which two configurations differ, sorted into those a reload puts in force and
/// the others.
pub fn compare(old: &Config, new: &Config) -> ReloadReport {
    let mut keys = Vec::new();
    differing("", &redacted(old), &redacted(new), &mut keys);
    secrets(old, new, &mut keys);
    keys.sort();
    keys.dedup();
    let waits = |key: &String| {
        // `admin` or `http` as a whole appears or goes.
        KEYS.iter().any(|known| {
            known.reload == Reload::Restart && (known.path() == *key || known.table == *key)
        })
    };
    let (needs_restart, changed) = keys.into_iter().partition(waits);
    ReloadReport { changed, needs_restart }
}

/// What is in force after a reload: the new configuration, but for what waits for a restart.
pub fn in_force(old: &Config, new: Config) -> (Config, ReloadReport) {
    let report = compare(old, &new);
    let config = Config {
        listen: old.listen.clone(),
        workers: old.workers,
        io: old.io,
        peer_id: old.peer_id,
        admin: old.admin.clone(),
        http: old.http.clone(),
        plugins: old.plugins.clone(),
        handover: HandoverSettings { dir: old.handover.dir.clone(), grace: new.handover.grace },
        rates: old.rates.clone(),
        cache: old.cache.clone(),
        log: LogConfig { format: old.log.format, filter: new.log.filter },
        ..new
    };
    (config, report)
}

fn differing(path: &str, old: &Value, new: &Value, keys: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differing(&path, old.get(name).unwrap_or(&Value::Null), value, keys);
            }
        }
        (old, new) if old != new => keys.push(path.to_owned()),
        _ => {}
    }
}

/// What the redacted form does not show.
fn secrets(old: &Config, new: &Config, keys: &mut Vec<String>) {
    let token = |config: &Config| config.admin.as_ref().map(|admin| admin.token.clone());
    if let (Some(old), Some(new)) = (token(old), token(new))
        && old != new
    {
        keys.push("admin.token".to_owned());
    }
    let replicas = |config: &Config| -> Vec<Option<Secret>> {
        config.cluster.replicas.iter().map(|replica| replica.password.clone()).collect()
    };
    if old.cluster.primary.password != new.cluster.primary.password {
        keys.push("cluster.primary".to_owned());
    }
    if replicas(old) != replicas(new) {
        keys.push("cluster.replicas".to_owned());
    }
    let password = |config: &Config| config.auth.query.as_ref()?.password.clone();
    if password(old) != password(new) {
        keys.push("auth.query_password".to_owned());
    }
    if old.failover.password != new.failover.password {
        keys.push("failover.password".to_owned());
    }
    let login = |config: &Config| {
        let etcd = config.failover.etcd.as_ref().and_then(|etcd| etcd.login.clone());
        let patroni = config.failover.patroni.as_ref();
        (etcd, patroni.and_then(|patroni| patroni.login.clone()))
    };
    let ((old_etcd, old_patroni), (new_etcd, new_patroni)) = (login(old), login(new));
    if old_etcd != new_etcd {
        keys.push("failover.etcd.password".to_owned());
    }
    if old_patroni != new_patroni {
        keys.push("failover.patroni.password".to_owned());
    }
    if old.alerts != new.alerts {
        keys.push("alerts".to_owned());
    }
    let redis = |config: &Config| config.cache.redis.as_ref().map(|redis| redis.url.clone());
    if redis(old) != redis(new) {
        keys.push("cache.redis.url".to_owned());
    }
    let redis = |config: &Config| config.rates.redis.as_ref().map(|redis| redis.url.clone());
    if redis(old) != redis(new) {
        keys.push("rates.redis.url".to_owned());
    }
    if old.auth.hba != new.auth.hba {
        keys.push("auth.hba_file".to_owned());
    }
    if old.auth.users != new.auth.users {
        keys.push("auth.users_file".to_owned());
    }
    keys.retain(|key| key != "auth.users" && key != "cluster.password");
}
