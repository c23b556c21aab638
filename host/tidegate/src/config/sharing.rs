//! `[cache.redis]`: where answers are that several Tidegates share; and what each table that names a Redis has.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

use super::check::Checker;
use super::checked::{RootCertificates, Secret};
use super::error::Problem;
use super::raw::{At, RawRedis, Timeout};
use crate::tls::trusting;

const PREFIX: &str = "tidegate";
/// Nodes that are written; the others they tell.
const NODES_MAX: usize = 16;
const PREFIX_BYTES_MAX: usize = 64;
const DEADLINE: Duration = Duration::from_millis(50);
const DEADLINE_MAX: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_millis(500);
/// Less is less than it takes to be heard.
const LEASE_MIN: Duration = Duration::from_millis(100);
const LEASE_MAX: Duration = Duration::from_secs(10);
const RELIANCE: Duration = Duration::from_millis(20);
const RELIANCE_MIN: Duration = Duration::from_millis(1);

/// `[cache.redis]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    pub url: RedisUrl,
    /// What all keys begin with.
    pub prefix: String,
    /// Reads wait no longer.
    pub deadline: Duration,
    /// How long each other process counts as heard.
    pub lease: Duration,
    /// How long versions that were told are relied on; zero: not at all.
    pub reliance: Duration,
}

/// Which Redis, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    pub address: RedisAddress,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    Tcp {
        /// Never none. Several: of one cluster.
        nodes: Vec<RedisNode>,
        /// Whose certificates are believed; none: without TLS.
        tls: Option<RootCertificates>,
    },
    Unix(PathBuf),
}

/// One Redis of a cluster, or the only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisNode {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for RedisNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl RedisUrl {
    /// Errors do not repeat the text, which may hold a password.
    fn read(text: &str, roots: RootCertificates) -> Result<Self, String> {
        let (text, tls) = match text.strip_prefix("rediss://") {
            Some(rest) => (format!("redis://{rest}"), Some(roots)),
            None => (text.to_owned(), None),
        };
        let expected =
            || "is not redis://HOST:PORT[,HOST:PORT…], rediss://… or unix:///PATH".to_owned();
        let (text, others) = split_hosts(&text);
        if others.len() >= NODES_MAX {
            return Err(format!("names more than {NODES_MAX} nodes"));
        }
        let read = |text: &str| text.into_connection_info().map_err(|_| expected());
        let tcp = |info: &ConnectionInfo| match info.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(RedisNode { host: host.clone(), port: *port }),
            _ => Err(expected()),
        };
        let known = read(&text)?;
        let address = match known.addr() {
            ConnectionAddr::Unix(path) => RedisAddress::Unix(path.clone()),
            _ => {
                let mut nodes = vec![tcp(&known)?];
                for other in others {
                    nodes.push(tcp(&read(&format!("redis://{other}"))?)?);
                }
                RedisAddress::Tcp { nodes, tls }
            }
        };
        let login = known.redis_settings();
        Ok(Self {
            address,
            user: login.username().map(str::to_owned),
            password: login.password().map(Secret::new),
            database: login.db(),
        })
    }

    pub fn root_ca(&self) -> Option<&Path> {
        match &self.address {
            RedisAddress::Tcp { tls: Some(RootCertificates::File(path)), .. } => Some(path),
            RedisAddress::Tcp { .. } | RedisAddress::Unix(_) => None,
        }
    }
}

/// A URL with the first of its hosts alone, and all others.
fn split_hosts(url: &str) -> (String, Vec<String>) {
    let whole = || (url.to_owned(), Vec::new());
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| *scheme == "redis")
    else {
        return whole();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let mut hosts = hosts.split(',').map(str::to_owned);
    match hosts.next() {
        Some(first) => (format!("{scheme}://{login}{first}{path}"), hosts.collect()),
        None => whole(),
    }
}

/// Without the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = match (&self.user, &self.password) {
            (None, None) => String::new(),
            (user, password) => {
                let password = if password.is_some() { ":***" } else { "" };
                format!("{}{password}@", user.as_deref().unwrap_or_default())
            }
        };
        match &self.address {
            RedisAddress::Unix(path) => write!(f, "unix://{}", path.display()),
            RedisAddress::Tcp { nodes, tls } => {
                let scheme = if tls.is_some() { "rediss" } else { "redis" };
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                write!(f, "{scheme}://{login}{}/{}", nodes.join(","), self.database)
            }
        }
    }
}

impl Checker {
    /// Without `url` there is none, whatever else is written.
    pub(super) fn redis(&mut self, written: RawRedis) -> Option<RedisSettings> {
        let RawRedis { url, root_ca, prefix, deadline, lease, reliance } = written;
        let url = self.redis_url("cache.redis", url?, root_ca)?;
        let lease = self.between("cache.redis.lease", lease, (LEASE_MIN, LEASE_MAX), LEASE);
        let reliance = match reliance {
            Some(At { value: Timeout(None), .. }) => Duration::ZERO,
            Some(At { value: Timeout(Some(value)), origin }) => {
                let written = Some(At { value, origin });
                let bounds = (RELIANCE_MIN, lease / 4);
                self.between("cache.redis.reliance", written, bounds, RELIANCE)
            }
            None => RELIANCE,
        };
        Some(RedisSettings {
            url,
            prefix: self.redis_prefix("cache.redis", prefix),
            deadline: self.redis_deadline("cache.redis", deadline),
            lease,
            reliance,
        })
    }

    /// Of a table that names a Redis.
    pub(super) fn redis_url(
        &mut self,
        table: &str,
        At { value, origin }: At<Secret>,
        root_ca: Option<At<PathBuf>>,
    ) -> Option<RedisUrl> {
        let roots = match root_ca {
            Some(At { value, origin }) => {
                let roots = RootCertificates::File(value);
                if let Err(error) = trusting(&roots) {
                    let problem = Problem::Unreadable(error.to_string());
                    self.fail(Some(&origin), &format!("{table}.root_ca"), problem);
                }
                roots
            }
            None => RootCertificates::System,
        };
        let read = RedisUrl::read(value.reveal(), roots);
        read.map_err(|words| self.bad_value(&origin, &format!("{table}.url"), words)).ok()
    }

    pub(super) fn redis_prefix(&mut self, table: &str, written: Option<At<String>>) -> String {
        let Some(At { value, origin }) = written else { return PREFIX.to_owned() };
        let plain = |c: char| c.is_ascii_graphic() && !"{}:".contains(c);
        if value.len() > PREFIX_BYTES_MAX || !value.chars().all(plain) {
            let message = "is not up to 64 letters, digits and signs other than {, } and :";
            self.bad_value(&origin, &format!("{table}.prefix"), message);
        }
        value
    }

    pub(super) fn redis_deadline(
        &mut self,
        table: &str,
        written: Option<At<Duration>>,
    ) -> Duration {
        let range = (Duration::from_millis(1), DEADLINE_MAX);
        self.between(&format!("{table}.deadline"), written, range, DEADLINE)
    }

    fn between(
        &mut self,
        key: &str,
        written: Option<At<Duration>>,
        (least, most): (Duration, Duration),
        default: Duration,
    ) -> Duration {
        let Some(At { value, origin }) = written else { return default };
        if value < least || value > most {
            self.bad_value(&origin, key, format!("{value:?} is not from {least:?} to {most:?}"));
        }
        value
    }
}
