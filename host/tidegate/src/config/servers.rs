//! `[[servers]]`: what is to be known of single servers beside their URLs.

use std::fmt;

use hyper::Uri;
use tidegate_core::limits::SERVERS_MAX;

use super::check::Checker;
use super::checked::{ClusterConfig, ServerUrl};
use super::error::Problem;
use super::raw::{At, RawServer};
use super::value::{Context, FromText};

/// Where node_exporter listens unless its URL says otherwise.
const EXPORTER_PORT: u16 = 9100;
const EXPORTER_PATH: &str = "/metrics";

/// Where a `node_exporter` is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExporterUrl {
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl fmt::Display for ExporterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        match host.contains(':') {
            true => write!(f, "http://[{host}]:{port}{path}"),
            false => write!(f, "http://{host}:{port}{path}"),
        }
    }
}

impl FromText for ExporterUrl {
    const EXPECTED: &'static str = "a URL such as \"http://10.0.0.2:9100/metrics\"";

    fn from_text(text: &str, _: Context<'_>) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
        if uri.scheme_str() != Some("http") {
            return Err("must begin with http://".to_owned());
        }
        let authority = uri.authority().ok_or("has no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') {
            return Err("must name a host, and no user".to_owned());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(EXPORTER_PORT),
            path: if path == "/" { EXPORTER_PATH } else { path }.to_owned(),
        })
    }
}

impl Checker {
    /// Adds what is written of single servers to them.
    pub(super) fn servers(
        &mut self,
        written: Vec<RawServer>,
        mut cluster: Option<&mut ClusterConfig>,
    ) {
        for (index, RawServer { origin, name, node_exporter }) in written.into_iter().enumerate() {
            let Some(At { value: name, origin: named_at }) = name else {
                let message = "needs name: \"primary\", \"replica-1\", …".to_owned();
                self.fail(Some(&origin), "servers", Problem::Missing(message));
                continue;
            };
            if index == SERVERS_MAX {
                self.bad_value(&origin, "servers", format!("more than {SERVERS_MAX} tables"));
                return;
            }
            // Without a primary that is what is wrong.
            let Some(cluster) = cluster.as_deref_mut() else { return };
            let mut all = std::iter::once(&mut cluster.primary).chain(&mut cluster.replicas);
            let Some(server) = all.find(|server: &&mut ServerUrl| server.name == name) else {
                let message = format!(
                    "there is no server \"{name}\": they are called primary, replica-1, replica-2, … in the order of \
                     cluster.replicas"
                );
                self.bad_value(&named_at, "servers.name", message);
                continue;
            };
            if server.node_exporter.is_some() {
                self.contradiction(&named_at, "servers.name", format!("\"{name}\" is there twice"));
                continue;
            }
            server.node_exporter = node_exporter.map(|url| url.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Result<String, String> {
        let nothing = |_: &str| None;
        let context = Context { base: Path::new("/"), environment: &nothing };
        ExporterUrl::from_text(text, context).map(|url| url.to_string())
    }

    #[test]
    fn urls_of_exporters_have_a_port_and_a_path() {
        assert_eq!(read("http://db1").unwrap(), "http://db1:9100/metrics");
        assert_eq!(read("http://[::1]:80/m?a=b").unwrap(), "http://[::1]:80/m?a=b");
        for bad in ["", "db1", "https://db1", "http://me:secret@db1", "ftp://db1"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
