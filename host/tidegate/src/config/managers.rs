//! `[failover.etcd]` and `[failover.patroni]`: who decides with Tidegate, or for it, which server is the primary.

use std::path::Path;
use std::time::Duration;

use rustls::ClientConfig;

use super::alerts::{WebUrl, place};
use super::check::Checker;
use super::checked::{ClusterConfig, RootCertificates, Secret, ServerAddress};
use super::error::Problem;
use super::raw::{At, RawApiTls, RawEtcd, RawPatroni};
use super::value::{Context, FromText};
use crate::tls::{OwnCertificate, TlsError, trusting, trusting_as};

const PREFIX: &str = "/tidegate";
const PREFIX_BYTES_MAX: usize = 200;
const LEASE: Duration = Duration::from_secs(6);
/// etcd keeps none for less than one and a half times its election timeout, which is a second.
const LEASE_MIN: Duration = Duration::from_secs(2);
const LEASE_MAX: Duration = Duration::from_secs(60);
/// Patroni's REST API, unless its configuration says otherwise.
const PATRONI_PORT: u16 = 8008;

/// `[failover.etcd]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Of the members of one etcd cluster; never empty.
    pub urls: Vec<WebUrl>,
    pub tls: ApiTls,
    pub login: Option<(String, Secret)>,
    /// What all keys begin with, without a slash at its end.
    pub prefix: String,
    pub lease: Duration,
}

/// `[failover.patroni]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatroniSettings {
    /// Of REST APIs of one Patroni cluster; never empty.
    pub urls: Vec<WebUrl>,
    pub tls: ApiTls,
    pub login: Option<(String, Secret)>,
}

/// Whose certificates are good, and which is shown, where a URL has `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTls {
    pub roots: RootCertificates,
    pub own: Option<OwnCertificate>,
}

impl ApiTls {
    /// # Errors
    /// A file cannot be read, or the key is another certificate's.
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        match &self.own {
            Some(own) => trusting_as(&self.roots, own),
            None => trusting(&self.roots),
        }
    }
}

/// For people, and for keys that are shown.
pub(super) fn shown(url: &WebUrl) -> String {
    let scheme = if url.tls { "https" } else { "http" };
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    format!("{scheme}://{host}:{}", url.port)
}

pub(super) fn root_ca(roots: &RootCertificates) -> Option<&Path> {
    match roots {
        RootCertificates::File(path) => Some(path),
        RootCertificates::System => None,
    }
}

impl FromText for WebUrl {
    const EXPECTED: &'static str = "a URL such as https://10.0.0.5:2379";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        let (uri, host) = place(text)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("must begin with https:// or http://".to_owned()),
        };
        let port = uri.port_u16().ok_or("has no port")?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err("has something after the port".to_owned());
        }
        Ok(Self { tls, host, port, path: Secret::new("/") })
    }
}

impl Checker {
    /// Without `urls` there is none, whatever else is written.
    pub(super) fn etcd(&mut self, written: RawEtcd) -> Option<EtcdSettings> {
        let RawEtcd { urls, user, password, tls, prefix, lease } = written;
        let tls = self.api_tls("failover.etcd", tls);
        let login = self.api_login("failover.etcd", user, password);
        let lease = match lease {
            None => LEASE,
            Some(At { value, origin }) => {
                let is_whole = value.subsec_nanos() == 0;
                if !(LEASE_MIN..=LEASE_MAX).contains(&value) || !is_whole {
                    let message = format!(
                        "{value:?} is not a whole number of seconds from {} to {}",
                        LEASE_MIN.as_secs(),
                        LEASE_MAX.as_secs()
                    );
                    self.bad_value(&origin, "failover.etcd.lease", message);
                }
                value
            }
        };
        let prefix = match prefix {
            None => PREFIX.to_owned(),
            Some(At { value, origin }) => {
                let prefix = value.trim_end_matches('/');
                if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX {
                    let message = format!("is not from 1 to {PREFIX_BYTES_MAX} bytes long");
                    self.bad_value(&origin, "failover.etcd.prefix", message);
                }
                prefix.to_owned()
            }
        };
        let urls: Vec<WebUrl> = urls.into_iter().map(|url| url.value).collect();
        (!urls.is_empty()).then_some(EtcdSettings { urls, tls, login, prefix, lease })
    }

    /// Without `urls`, the servers' own machines are asked.
    pub(super) fn patroni(
        &mut self,
        written: RawPatroni,
        cluster: Option<&ClusterConfig>,
    ) -> Option<PatroniSettings> {
        let RawPatroni { urls, user, password, tls } = written;
        let tls = self.api_tls("failover.patroni", tls);
        let login = self.api_login("failover.patroni", user, password);
        let mut urls: Vec<WebUrl> = urls.into_iter().map(|url| url.value).collect();
        if let (true, Some(cluster)) = (urls.is_empty(), cluster) {
            let servers = std::iter::once(&cluster.primary).chain(&cluster.replicas);
            let url = |address: &ServerAddress| patroni_beside(address);
            urls = servers.filter_map(|server| url(&server.address)).collect();
            // Whoever of them is primary, they are the same.
            urls.sort_by(|one, other| one.host.cmp(&other.host));
            urls.dedup();
        }
        (!urls.is_empty()).then_some(PatroniSettings { urls, tls, login })
    }

    fn api_tls(&mut self, table: &str, written: RawApiTls) -> ApiTls {
        let RawApiTls { root_ca, cert, key } = written;
        let unreadable = |error: TlsError| Problem::Unreadable(error.to_string());
        let roots = match root_ca {
            None => RootCertificates::System,
            Some(At { value, origin }) => {
                let roots = RootCertificates::File(value);
                if let Err(error) = trusting(&roots) {
                    self.fail(Some(&origin), &format!("{table}.root_ca"), unreadable(error));
                }
                roots
            }
        };
        let own = match (cert, key) {
            (Some(cert), Some(key)) => {
                let own = OwnCertificate { certificate: cert.value, key: key.value };
                if let Err(error) = trusting_as(&RootCertificates::System, &own) {
                    self.fail(Some(&cert.origin), &format!("{table}.cert"), unreadable(error));
                }
                Some(own)
            }
            (None, None) => None,
            (Some(At { origin, .. }), None) => {
                self.contradiction(&origin, &format!("{table}.cert"), "has no key");
                None
            }
            (None, Some(At { origin, .. })) => {
                self.contradiction(&origin, &format!("{table}.key"), "has no cert");
                None
            }
        };
        ApiTls { roots, own }
    }

    fn api_login(
        &mut self,
        table: &str,
        user: Option<At<String>>,
        password: Option<At<Secret>>,
    ) -> Option<(String, Secret)> {
        match (user, password) {
            (Some(user), Some(password)) => Some((user.value, password.value)),
            (None, None) => None,
            (Some(At { origin, .. }), None) => {
                self.contradiction(&origin, &format!("{table}.user"), "has no password");
                None
            }
            (None, Some(At { origin, .. })) => {
                let message = "has no user";
                self.contradiction(&origin, &format!("{table}.password"), message);
                None
            }
        }
    }
}

/// Where Patroni's REST API is, if it is where it usually is.
pub(crate) fn patroni_beside(address: &ServerAddress) -> Option<WebUrl> {
    match address {
        ServerAddress::Tcp { host, .. } => Some(WebUrl {
            tls: false,
            host: host.clone(),
            port: PATRONI_PORT,
            path: Secret::new("/"),
        }),
        ServerAddress::Unix { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_scheme_host_and_port_alone() {
        let read = |text: &str| {
            let context = Context {
                base: Path::new("/"),
                environment: &|_: &str| -> Option<String> { None },
            };
            WebUrl::from_text(text, context)
        };
        let url = read("https://[::1]:2379/").unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port), (true, "::1", 2379));
        assert_eq!(shown(&url), "https://[::1]:2379");
        let url = read("http://etcd-1:2379").unwrap();
        assert_eq!((url.tls, shown(&url).as_str()), (false, "http://etcd-1:2379"));
        for bad in
            ["", "etcd:2379", "ftp://etcd:1", "http://etcd", "http://u@etcd:1", "http://etcd:1/v3"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
