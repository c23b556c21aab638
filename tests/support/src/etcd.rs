//! A throw-away etcd, and the trouble that one makes.

use crate::tidegate::{leash, new_directory};
use crate::{free_port, http, wait_until};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A running `etcd` of one member. Dropping it, or the end of the test program, kills it.
#[derive(Debug)]
pub struct Etcd {
    port: u16,
    directory: PathBuf,
    running: Option<(Child, Child)>,
    tls: Option<EtcdTls>,
}

/// It is reached over TLS, and by clients alone whose certificates lead to this authority. Files, PEM.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// For 127.0.0.1, and good for a client, too: its gateway shows it to itself.
    pub cert: String,
    pub key: String,
    pub client_ca: String,
}

impl Etcd {
    /// Waits until it answers.
    #[track_caller]
    pub fn start() -> Etcd {
        Etcd::launch(None)
    }

    /// Waits until it listens.
    #[track_caller]
    pub fn start_with(tls: EtcdTls) -> Etcd {
        Etcd::launch(Some(tls))
    }

    #[track_caller]
    fn launch(tls: Option<EtcdTls>) -> Etcd {
        let (port, directory) = (free_port().unwrap(), new_directory());
        let mut etcd = Etcd { port, directory, running: None, tls };
        etcd.start_again();
        etcd
    }

    /// After `kill`, at the same port: with what it had saved.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "it runs");
        std::fs::create_dir_all(&self.directory).unwrap();
        let log = File::create(self.directory.join("log")).unwrap();
        let (client, peer) = (self.url(), format!("http://127.0.0.1:{}", free_port().unwrap()));
        let mut command = Command::new("etcd");
        if let Some(EtcdTls { cert, key, client_ca }) = &self.tls {
            command.args(["--cert-file", cert, "--key-file", key, "--client-cert-auth"]);
            command.args(["--trusted-ca-file", client_ca]);
        }
        let child = command
            .args(["--data-dir", "data", "--unsafe-no-fsync"])
            // One member is its own leader after a moment; leases may be short.
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("etcd: {error}"));
        let leash = leash(&child, &self.directory);
        self.running = Some((child, leash));
        wait_until(START_TIME_MAX, "etcd answers", || {
            if self.tls.is_some() {
                return TcpStream::connect(self.address()).is_ok();
            }
            let body = r#"{"key":"YQ=="}"#;
            let answer = http::request(self.address(), "POST", "/v3/kv/range", "", body);
            answer.is_ok_and(|answer| answer.status == 200)
        });
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let Some((mut child, mut leash)) = self.running.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
        // Its folder stays for the next.
        let _ = leash.kill();
        let _ = leash.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
