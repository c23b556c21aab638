//! The smallest proxy there is: log the client in, log in to the server for it, copy bytes.

use crate::cluster::Cluster;
use std::process::Output;
use std::sync::{Arc, Mutex};
use tidegate::config::{ProtocolVersion, ServerAddress};
use tidegate::data::login::{
    Admission, Door, LoginContext, LoginOutcome, LoginPolicy, Method, Peer, TrustScope, login,
};
use tidegate::data::users::Users;
use tidegate::stream::Socket;
use tidegate::tls::{AcceptFiles, Acceptor, ClientCertificates, ServerTls, SslMode};
use tidegate::upstream::{
    ConnectError, Credentials, Secret, Target, UserDirectory, cancel, connect,
};
use tidegate_core::limits::LOGIN_TIME_MAX;
use tidegate_core::session::login::TlsPolicy;
use tidegate_wire::backend::{self, TransactionStatus};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;

pub const FAKE_SECRET: [u8; 32] = [5; 32];

pub fn target(mode: SslMode) -> Target {
    let cluster = Cluster::get();
    Target {
        name: "primary".into(),
        address: ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: cluster.port },
        tls: ServerTls::new(mode, None, None).unwrap(),
        protocol: ProtocolVersion::default(),
    }
}

pub fn server_users(user: &str, password: Option<&str>) -> Users {
    let directory = UserDirectory::new(
        target(SslMode::Prefer),
        "postgres".to_owned(),
        user.to_owned(),
        password.map(Secret::new),
        FAKE_SECRET,
    );
    Users::Server(Arc::new(directory))
}

pub fn acceptor(clients: ClientCertificates) -> Arc<Acceptor> {
    let cluster = Cluster::get();
    let files = AcceptFiles {
        certificate: cluster.file("proxy.crt"),
        key: cluster.file("proxy.key"),
        clients,
    };
    Arc::new(Acceptor::new(files).unwrap())
}

pub fn context(method: Method, users: Users) -> LoginContext {
    LoginContext {
        policy: LoginPolicy { method, tls: TlsPolicy::Optional, trust: TrustScope::Local },
        time_max: LOGIN_TIME_MAX,
        tls: Some(acceptor(ClientCertificates::NotAsked)),
        users,
        fake_secret: FAKE_SECRET,
        own_user: None,
        hba: None,
    }
}

/// A listening proxy, and how its logins ended, in order.
pub struct Proxy {
    pub port: u16,
    pub ends: mpsc::UnboundedReceiver<&'static str>,
}

impl Proxy {
    pub async fn start(context: LoginContext) -> Proxy {
        Self::start_with_peer(context, None).await
    }

    /// Clients seem to come from `peer`.
    pub async fn start_with_peer(context: LoginContext, peer: Option<Peer>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, ends) = mpsc::unbounded_channel();
        let context = Arc::new(context);
        tokio::spawn(async move {
            while let Ok((tcp, address)) = listener.accept().await {
                let (context, sender) = (context.clone(), sender.clone());
                let peer = peer.unwrap_or(Peer::Tcp(address));
                tokio::spawn(async move {
                    let _ = sender.send(serve(tcp, peer, &context).await);
                });
            }
        });
        Proxy { port, ends }
    }

    pub async fn ended(&mut self) -> &'static str {
        self.ends.recv().await.unwrap()
    }

    /// Runs psql, with libpq's own idea of every protocol.
    pub async fn psql(&self, options: &str, password: &str, sql: &str) -> Output {
        let port = self.port;
        let connection =
            format!("host=127.0.0.1 port={port} dbname=postgres connect_timeout=20 {options}");
        Command::new("psql")
            .args(["-qAtXw", "-d", &connection, "-c", sql])
            .env("PGPASSWORD", password)
            .env("PGCLIENTENCODING", "UTF8")
            .env("HOME", "/nonexistent")
            .output()
            .await
            .unwrap()
    }

    pub async fn expect(&self, options: &str, password: &str, sql: &str, expected: &str) {
        let output = self.psql(options, password, sql).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim_end(),
            expected,
            "{options}: {errors}"
        );
    }

    pub async fn expect_error(&self, options: &str, password: &str, expected: &str) {
        let output = self.psql(options, password, "SELECT 1").await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(expected), "{options}: {errors}");
    }
}

async fn serve(tcp: TcpStream, peer: Peer, context: &LoginContext) -> &'static str {
    let throttle = Mutex::default();
    let (admission, make_room) = (|| Admission::Granted, || {});
    let door = Door {
        views: &tidegate::view::Views::default(),
        admission,
        throttle: &throttle,
        make_room,
    };
    let mut client = match login(Socket::Tcp(tcp), peer, context, door).await {
        LoginOutcome::Done(client) => client,
        LoginOutcome::Cancel { .. } => return "cancel",
        LoginOutcome::Closed(reason) => return reason.label(),
    };
    let parameters: Vec<_> =
        client.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let target = target(SslMode::Prefer);
    let opened =
        connect(&target, &client.database, &client.user, &client.credentials, &parameters).await;
    let mut out = std::mem::take(&mut client.unsent);
    let mut server = match opened {
        Ok(server) => server,
        Err(error) => {
            let message = format!("server: {error}");
            let fields = tidegate_wire::error_fields::Fields {
                severity: "FATAL",
                sqlstate: "08006",
                message: &message,
                ..Default::default()
            };
            tidegate_wire::error_fields::error_response(&mut out, fields);
            let _ = client.stream.write_all(&out).await;
            return "server";
        }
    };
    for (name, value) in &server.parameters {
        backend::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
    }
    backend::backend_key_data(&mut out, 1, &[0; 4]);
    backend::ready_for_query(&mut out, TransactionStatus::Idle);
    client.stream.write_all(&out).await.unwrap();
    client.stream.flush().await.unwrap();
    server.stream.write_all(&client.pending).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client.stream, &mut server.stream).await;
    "done"
}

/// Runs a query and cancels it; yields what the query came to.
pub async fn cancel_running(
    target: &Target,
    credentials: &Credentials,
) -> Result<(), ConnectError> {
    let mut server = connect(target, "postgres", "admin", credentials, &[]).await?;
    let key = server.backend_key.clone().unwrap();
    let query = tidegate::upstream::simple_query(&mut server, "SELECT pg_catalog.pg_sleep(30)");
    let cancelling = async {
        // A cancel that comes before the query hits nothing: it is repeated until it has.
        loop {
            cancel(target, &key).await?;
        }
    };
    let cancelling = std::pin::pin!(cancelling);
    let query = std::pin::pin!(query);
    tokio::select! {
        result = query => result.map(|_| ()),
        result = cancelling => result,
    }
}
