//! A connection for questions of ours about a server and its databases.

use std::sync::Arc;

use super::credentials::Credentials;
use super::error::{ConnectError, ServerError};
use super::log_stream::LogStream;
use super::login::{NewServer, Target, connect, simple_query};
use super::messages::Messages;
use crate::config::{Config, FollowSettings};
use tidegate_wire::backend::tag;

/// Nothing a user could have created is found by name with these.
const SETTINGS: [(&str, &str); 2] = [
    ("client_encoding", "UTF8"),
    // A database's defaults may be what no replica takes. Whoever waits here gives up, and the server is to do so, too.
    (
        "options",
        r"-c search_path=pg_catalog -c default_transaction_isolation=read\ committed -c statement_timeout=5s -c lock_timeout=2s",
    ),
];

/// A connection for questions of ours, opened when it is needed and again after a failure.
#[derive(Debug)]
pub struct Asker {
    pub target: Arc<Target>,
    pub database: Arc<str>,
    user: String,
    credentials: Credentials,
    application: &'static str,
    server: Option<NewServer>,
}

impl Asker {
    /// `instance` is the primary (0) or a replica (1, …) of the configuration, whose URL says user and database.
    pub fn new(
        config: &Config,
        instance: usize,
        target: Arc<Target>,
        application: &'static str,
    ) -> Self {
        let servers = std::iter::once(&config.cluster.primary).chain(&config.cluster.replicas);
        let url = servers.into_iter().nth(instance).unwrap_or(&config.cluster.primary);
        let credentials = match &url.password {
            Some(password) => Credentials::Password(password.clone()),
            None => Credentials::None,
        };
        Self {
            target,
            database: url.database.as_str().into(),
            user: url.user.clone(),
            credentials,
            application,
            server: None,
        }
    }

    /// For questions about the cluster, and what is done about it: as the user whom `[failover]` names, if it names one.
    pub fn for_cluster(
        config: &Config,
        instance: usize,
        target: Arc<Target>,
        application: &'static str,
    ) -> Self {
        let asker = Self::new(config, instance, target, application);
        let failover = &config.failover;
        let Some(user) = failover.user.clone() else { return asker };
        let credentials = match &failover.password {
            Some(password) => Credentials::Password(password.clone()),
            None => Credentials::None,
        };
        Self { user, credentials, ..asker }
    }

    /// For questions about a database whose log is followed: as whoever follows it.
    pub fn for_log(config: &Config, target: Arc<Target>, application: &'static str) -> Self {
        let asker = Self::new(config, 0, target, application);
        let Some(FollowSettings { user: Some(user), password }) = config.cache.follow.clone()
        else {
            return asker;
        };
        let credentials = password.map_or(Credentials::None, Credentials::Password);
        Self { user, credentials, ..asker }
    }

    /// Has the log of its database streamed, as the same user.
    ///
    /// # Errors
    /// The server can't be reached, or refuses.
    pub async fn stream_log(&self, slot: &str) -> Result<LogStream, ConnectError> {
        let whose = (&*self.database, &*self.user);
        LogStream::open(&self.target, whose, &self.credentials, self.application, slot).await
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// Runs statements and yields the rows of all of them.
    ///
    /// # Errors
    /// The server can't be reached, or refuses; the next question opens another connection.
    pub async fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
        let mut server = match self.server.take() {
            Some(server) => server,
            None => {
                let mut settings = vec![("application_name", self.application)];
                settings.extend(SETTINGS);
                connect(&self.target, &self.database, &self.user, &self.credentials, &settings)
                    .await?
            }
        };
        let rows = simple_query(&mut server, sql).await?;
        self.server = Some(server);
        Ok(rows)
    }

    /// Resolves when the server ends the connection, to what it said last; never while there is none. Cancel safe, but for a
    /// notice that arrives in pieces.
    pub async fn ended(&mut self) -> Option<ServerError> {
        let Some(server) = &mut self.server else { return std::future::pending().await };
        let mut messages = Messages::new(&mut server.stream);
        let last_word = loop {
            match messages.next().await {
                Ok((tag::ERROR_RESPONSE, body)) => break Some(ServerError::read(body)),
                // Notices and changes of settings.
                Ok(_) => {}
                Err(_) => break None,
            }
        };
        self.server = None;
        last_word
    }

    /// Gives the connection's place on the server back.
    pub fn close(&mut self) {
        self.server = None;
    }
}
