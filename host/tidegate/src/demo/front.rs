//! The proxy of the demo: its configuration file, and the one place that starts it in this process.

use super::poll;
use crate::config::raw::{At, Raw, RawAdmin};
use crate::config::{Config, ConfigError, ConfigSource};
use crate::exit::Exit;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Tidegate serves clients within this, or says why not.
const READY_TIME_MAX: Duration = Duration::from_secs(30);
/// One question to the admin API.
const PROBE_TIME_MAX: Duration = Duration::from_secs(2);

/// What the proxy of the demo needs to know.
#[derive(Debug, Clone)]
pub(super) struct Front {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) admin_token_file: PathBuf,
    pub(super) primary: String,
    pub(super) replicas: Vec<String>,
    /// Who asks servers what they are, and promotes; and the password.
    pub(super) keeper: (&'static str, String),
}

impl Front {
    /// Writes `tidegate.toml` into the folder and reads it as `tidegate serve` would.
    pub(super) fn configure(&self, folder: &Path) -> Result<(Config, ConfigSource), String> {
        let file = folder.join("tidegate.toml");
        fs::write(&file, self.text())
            .map_err(|error| format!("could not write {}: {error}", file.display()))?;
        // As a flag, since flags win over a TIDEGATE_ADMIN_TOKEN that was meant for another Tidegate.
        let token_file = At::flag("--admin-token-file", self.admin_token_file.clone());
        let admin = RawAdmin { token_file: Some(token_file), ..RawAdmin::default() };
        let source = ConfigSource::new(Some(file), Raw { admin, ..Raw::default() });
        match source.read() {
            Ok(config) => Ok((config, source)),
            Err(errors) => {
                let lines: Vec<String> = errors.iter().map(ConfigError::to_string).collect();
                Err(lines.join("\n"))
            }
        }
    }

    fn text(&self) -> String {
        let (keeper, password) = &self.keeper;
        let failover = match self.replicas.is_empty() {
            true => String::new(),
            false => format!(
                "[failover]\nmode = \"embedded\"\nuser = {keeper:?}\npassword = {password:?}\n\n"
            ),
        };
        let replicas: Vec<String> = self.replicas.iter().map(|url| format!("{url:?}")).collect();
        format!(
            "# Tidegate as `tidegate demo` runs it.\n\
             listen = [\"{}\"]\n\n\
             [cluster]\nprimary = {:?}\nreplicas = [{}]\n\n\
             [admin]\naddress = \"{}\"\n\n\
             {failover}\
             [limits]\nclients_max = 500\nshutdown_grace = \"2s\"\n\n\
             [rates]\nper_end_user = 5\n\n\
             [log]\nfilter = \"warn\"\n",
            self.listen,
            self.primary,
            replicas.join(", "),
            self.admin
        )
    }

    /// Serves until Ctrl-C or SIGTERM; `ready` runs once, when clients are served.
    pub(super) fn run(
        &self,
        (config, source): (Config, ConfigSource),
        ready: impl FnOnce() + Send,
    ) -> Result<(), String> {
        let ended = AtomicBool::new(false);
        let exit = thread::scope(|scope| {
            scope.spawn(|| {
                let mut healthy = false;
                poll(READY_TIME_MAX, || {
                    healthy = is_healthy(self.admin);
                    healthy || ended.load(Ordering::Relaxed)
                });
                if healthy {
                    ready();
                }
            });
            let exit = crate::serve::run(config, source, crate::serve::Beginning::Alone);
            ended.store(true, Ordering::Relaxed);
            exit
        });
        match exit {
            // Ctrl-C cuts off whoever is still connected: that is how a demo ends.
            Exit::Ok | Exit::NotDrained => Ok(()),
            other => Err(format!("Tidegate ended: {}", other.meaning())),
        }
    }
}

fn is_healthy(admin: SocketAddr) -> bool {
    let probe = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&admin, PROBE_TIME_MAX)?;
        stream.set_read_timeout(Some(PROBE_TIME_MAX))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    };
    probe().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_it_writes_is_a_valid_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("admin.token");
        fs::write(&token, "a-token-of-at-least-some-length\n").unwrap();
        let front = Front {
            listen: "127.0.0.1:16432".parse().unwrap(),
            admin: "127.0.0.1:16433".parse().unwrap(),
            admin_token_file: token,
            primary: "postgres://app:app-password@127.0.0.1:15432/shop".to_owned(),
            replicas: vec!["postgres://app:app-password@127.0.0.1:15433/shop".to_owned()],
            keeper: ("tidegate", "tidegate-password".to_owned()),
        };
        let (config, _) = front.configure(folder.path()).unwrap();
        assert_eq!(config.cluster.replicas.len(), 1);
        let admin = config.admin.unwrap();
        assert_eq!(admin.token.reveal(), "a-token-of-at-least-some-length");
    }
}
