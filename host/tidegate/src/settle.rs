//! From a checked configuration to what the data plane runs on: targets, TLS, users, pool bounds.

use std::sync::Arc;

use tidegate_core::session::login::TlsPolicy;
use tidegate_pool::PoolConfig;

use crate::config::{
    self, AuthMethod, ClientTlsMode, Config, ProtocolVersion, ServerUrl, TrustRemote,
};
use crate::data::cancel::Peers;
use crate::data::login::{LoginContext, LoginPolicy, Method, TrustScope};
use crate::data::users::{UserFile, Users};
use crate::data::worker::Settled;
use crate::tls::{Acceptor, ServerTls, SslMode};
use crate::upstream::pool::{PoolKey, PoolKind, PoolsConfig, QuotaLimits, QuotaOf};
use crate::upstream::{AuthQuery, Credentials, Target, UserDirectory};

/// Builds what the data plane needs.
///
/// # Errors
/// A sentence: a certificate that cannot be read, a users file that changed meanwhile.
pub fn settle(config: Config, fake_secret: [u8; 32]) -> Result<Settled, String> {
    let config = Arc::new(config);
    let mut targets = vec![Arc::new(target(&config.cluster.primary)?)];
    for replica in &config.cluster.replicas {
        targets.push(Arc::new(target(replica)?));
    }
    let login = login_context(&config, &targets[0], fake_secret)?;
    let bounds = {
        let config = config.clone();
        Box::new(move |key: &PoolKey| pool_bounds(&config, key))
    };
    let pools = Arc::new(PoolsConfig { targets, bounds });
    let warm = configured_pools(&config);
    let peers = peers(&config)?;
    Ok(Settled { config, login, pools, peers, warm })
}

/// The other Tidegates. In clear: they are asked for nothing, and told no more than what the client sent.
fn peers(config: &Config) -> Result<Peers, String> {
    let tls = ServerTls::new(SslMode::Disable, None, None).map_err(|error| error.to_string())?;
    let target = |peer: &config::Peer| Target {
        name: format!("peer-{}", peer.id).into(),
        address: peer.address.0.clone(),
        tls: tls.clone(),
        protocol: ProtocolVersion::default(),
    };
    Ok(config.peers.iter().map(|peer| (peer.id, Arc::new(target(peer)))).collect())
}

/// How many server connections a database or user may have.
pub fn server_quotas(config: &Arc<Config>) -> QuotaLimits {
    let config = Arc::clone(config);
    Box::new(move |of, name| match of {
        QuotaOf::Database => config.quotas.of_database(name).servers_max,
        QuotaOf::User => config.quotas.of_user(name).servers_max,
    })
}

/// The pools whose user's password the configuration knows: they are filled at start.
fn configured_pools(config: &Config) -> Vec<(PoolKey, Credentials)> {
    let servers = std::iter::once(&config.cluster.primary).chain(&config.cluster.replicas);
    let pool = |(instance, server): (usize, &ServerUrl)| {
        let kind = if instance == 0 { PoolKind::Write } else { PoolKind::Read };
        let key = PoolKey {
            database: server.database.as_str().into(),
            user: server.user.as_str().into(),
            instance,
            kind,
        };
        (key, credentials(server))
    };
    servers.enumerate().map(pool).collect()
}

fn credentials(server: &ServerUrl) -> Credentials {
    match &server.password {
        Some(password) => Credentials::Password(password.clone()),
        None => Credentials::None,
    }
}

fn pool_bounds(config: &Config, key: &PoolKey) -> PoolConfig {
    let settings = config.pool_settings(&key.database, &key.user);
    let primary = &config.cluster.primary;
    // Connections are kept ready for the pools that the configuration names. Others are as many as there are users, and
    // a minimum for each would use up the server's connections.
    let named = primary.user == *key.user && primary.database == *key.database
        || config.pools.iter().any(|pool| {
            pool.user.as_deref() == Some(&*key.user)
                && pool.database.as_deref() == Some(&*key.database)
        });
    let (size_min, size_max) = match key.kind {
        // Nobody needs it while replicas serve reads.
        PoolKind::Read if key.is_fallback() => (0, config.routing.fallback_of(settings.size_max)),
        PoolKind::Write | PoolKind::Read if named => (settings.size_min, settings.size_max),
        PoolKind::Write | PoolKind::Read => (0, settings.size_max),
        // A reload may have set none: those that are in use end.
        PoolKind::Critical => (0, settings.critical_max.max(1)),
    };
    PoolConfig {
        size_min,
        size_max,
        idle_max: settings.idle_max,
        lifetime_max: settings.lifetime_max.unwrap_or(tidegate_core::limits::CONFIG_DURATION_MAX),
        wait_max: settings.wait_max,
        pause_max: settings.pause_max,
        ..PoolConfig::default()
    }
}

fn target(server: &ServerUrl) -> Result<Target, String> {
    let (roots, own) = (server.sslrootcert.as_ref(), server.own_certificate.as_ref());
    let tls = ServerTls::new(server.sslmode, roots, own)
        .map_err(|error| format!("TLS towards {}: {error}", server.name))?;
    let tls = ServerTls {
        channel_binding: server.channel_binding,
        negotiation: server.sslnegotiation,
        ..tls
    };
    let (name, address) = (server.name.as_str().into(), server.address.clone());
    Ok(Target { name, address, tls, protocol: server.max_protocol_version })
}

fn users(config: &Config, primary: &Target, fake_secret: [u8; 32]) -> Users {
    let (auth, url) = (&config.auth, &config.cluster.primary);
    let directory = || {
        let directory = UserDirectory::new(
            primary.clone(),
            url.database.clone(),
            url.user.clone(),
            url.password.clone(),
            fake_secret,
        );
        Arc::new(match auth_query(config) {
            Some(query) => directory.with_query(query),
            None => directory,
        })
    };
    let file = || Arc::new(UserFile::new(&auth.users, fake_secret));
    match (auth.method, &auth.users_file, &auth.query) {
        (AuthMethod::Passthrough, ..) => Users::Server(directory()),
        (_, file_name, Some(_)) => Users::Query(file_name.as_ref().map(|_| file()), directory()),
        (_, Some(_), None) => Users::File(file()),
        (_, None, None) => Users::Nobody,
    }
}

fn auth_query(config: &Config) -> Option<AuthQuery> {
    let (query, url) = (config.auth.query.as_ref()?, &config.cluster.primary);
    let user = query.user.clone().unwrap_or_else(|| url.user.clone());
    let own = url.password.clone().filter(|_| user == url.user);
    Some(AuthQuery {
        sql: query.sql.clone(),
        database: query.database.clone().unwrap_or_else(|| url.database.clone()),
        password: query.password.clone().or(own),
        user,
    })
}

fn login_context(
    config: &Config,
    primary: &Target,
    fake_secret: [u8; 32],
) -> Result<LoginContext, String> {
    let auth = &config.auth;
    let users = users(config, primary, fake_secret);
    let policy = LoginPolicy {
        method: match auth.method {
            AuthMethod::Passthrough => Method::Passthrough,
            AuthMethod::ScramSha256 => Method::Scram,
            AuthMethod::Md5 => Method::Md5,
            AuthMethod::Password => Method::Password,
            AuthMethod::Certificate => Method::Certificate,
            AuthMethod::Trust => Method::Trust,
        },
        tls: match config.tls.mode {
            ClientTlsMode::Disable => TlsPolicy::Unavailable,
            ClientTlsMode::Allow | ClientTlsMode::Prefer => TlsPolicy::Optional,
            ClientTlsMode::Require | ClientTlsMode::VerifyFull => TlsPolicy::Required,
        },
        trust: match auth.trust_remote {
            TrustRemote::Refuse => TrustScope::Local,
            TrustRemote::Allow => TrustScope::Everywhere,
        },
    };
    let tls = match config.tls.accept_files() {
        None => None,
        Some(files) => Some(Arc::new(
            Acceptor::new(files).map_err(|error| format!("TLS towards clients: {error}"))?,
        )),
    };
    let time_max = config.limits.login_timeout;
    let primary = &config.cluster.primary;
    let own_user = Some((primary.user.as_str().into(), credentials(primary)));
    let hba = config.auth.hba.as_ref().map(|hba| hba.rules.clone());
    Ok(LoginContext { policy, time_max, tls, users, fake_secret, own_user, hba })
}
