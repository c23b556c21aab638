//! The users a server knows: what pass-through authentication asks.
//!
//! In this order: the operator's own user is known from the URL (and looked up all the same, so that
//! no answer tells by its time who that is); others are read from `pg_authid`; a client on this
//! machine whom the server would let in without a password is let in; and where `pg_authid` may not
//! be read, the server decides about a password in clear.

mod query; // users looked up by a query of the operator's
mod stored; // what pg_authid says of a user

pub use query::AuthQuery;

use super::credentials::{Credentials, Secret};
use super::error::ConnectError;
use super::login::{NewServer, Target, bound_query, connect, say_goodbye, simple_query};
use super::passwords::make_verifier;
use crate::config::ServerAddress;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use stored::{IDENTITY_QUERY, read_row, stored_query};
use tidegate_core::limits::{
    LOGIN_TRIALS_MAX, OWN_USER_LOOKUP_TIME_MAX, USER_CACHE_TIME_MAX, USER_DENIED_TIME_MAX,
    USER_LOOKUPS_WAITING_MAX, USERS_CACHED_MAX,
};
use tidegate_core::refusal::Refusal;
use tidegate_core::session::login::{
    CloseReason, Destination, PasswordOutcome, PeerKind, Replication, Standing, Stored, User,
};
use tidegate_wire::auth::Verifier;
use tokio::time::Instant;

/// Settings of the connection that reads `pg_authid`: nothing a user could have created is found by
/// name there.
const LOOKUP_SETTINGS: [(&str, &str); 3] = [
    ("application_name", "tidegate: user look-up"),
    ("client_encoding", "UTF8"),
    ("options", "-c search_path=pg_catalog -c default_transaction_read_only=on"),
];

/// What a login needs to know of its user.
#[derive(Clone, Debug)]
pub struct Found {
    pub user: User,
    /// With what to log in to the server, where that is not what the client proves.
    pub credentials: Option<Credentials>,
}

impl Found {
    pub fn new(user: User) -> Self {
        Self { user, credentials: None }
    }
}

/// Asks one server about its users. Shared by all workers.
#[derive(Debug)]
pub struct UserDirectory {
    target: Target,
    database: String,
    own_user: String,
    own_password: Option<Secret>,
    own_verifier: OnceLock<Verifier>,
    fake_secret: [u8; 32],
    /// At most `USERS_CACHED_MAX`.
    slots: Mutex<HashMap<Question, Slot>>,
    /// One look-up at a time; the connection lives only while others wait for it.
    connection: tokio::sync::Mutex<Option<NewServer>>,
    waiting: AtomicUsize,
    /// Logins that are tried at the server on behalf of strangers.
    trials: tokio::sync::Semaphore,
    denied_until: Mutex<Option<Instant>>,
    /// Which role a name means, by its OID as the server told it last.
    identities: Mutex<HashMap<String, Arc<str>>>,
    /// In place of `pg_authid`, and of what the server would let in.
    query: Option<AuthQuery>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    /// What `pg_authid` says.
    Stored { user: String },
    /// Whether the server lets us in without a password.
    LetIn { user: String, destination: Destination },
}

#[derive(Debug)]
struct Slot {
    asked_at: Instant,
    /// Who holds the lock is finding out; the others wait for the same answer.
    answer: Arc<tokio::sync::Mutex<Option<(Instant, Answer)>>>,
}

#[derive(Clone, Debug)]
enum Answer {
    User(User),
    /// There is a user, without a password.
    NoPassword,
    /// Passwords may not be read.
    Denied,
    /// Without a password we are not let in.
    PasswordWanted,
}

impl UserDirectory {
    /// `user` and `password` are the operator's, from the server's URL; `fake_secret` as in
    /// `LoginParams`.
    pub fn new(
        target: Target,
        database: String,
        user: String,
        password: Option<Secret>,
        fake_secret: [u8; 32],
    ) -> Self {
        Self {
            target,
            database,
            own_user: user,
            own_password: password,
            own_verifier: OnceLock::new(),
            fake_secret,
            slots: Mutex::default(),
            connection: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            trials: tokio::sync::Semaphore::new(LOGIN_TRIALS_MAX),
            denied_until: Mutex::default(),
            identities: Mutex::default(),
            query: None,
        }
    }

    /// What is known of `user`, who comes from `peer` and wants `destination`.
    pub async fn look_up(&self, user: &str, destination: &Destination, peer: PeerKind) -> Found {
        if user == self.own_user
            && let Some(password) = &self.own_password
        {
            // Asked like any other user, though the answer is known: how long it takes until the
            // challenge must not tell which user is the operator's. Without an answer it goes on.
            let asked = self.ask(Question::Stored { user: user.to_owned() });
            let _ = tokio::time::timeout(OWN_USER_LOOKUP_TIME_MAX, asked).await;
            return self.own(password.clone()).await;
        }
        // Whoever is on this machine could as well have connected to the server directly.
        let could_connect =
            peer != PeerKind::Remote && matches!(self.target.address, ServerAddress::Tcp { .. });
        let could_connect = could_connect && self.query.is_none();
        if could_connect
            && self.own_password.is_none()
            && let Some(user) = self.let_in(user, destination).await
        {
            return Found::new(user);
        }
        let answer = match self.ask(Question::Stored { user: user.to_owned() }).await {
            Ok(answer) => answer,
            Err(user) => return Found::new(user),
        };
        let fallback = match answer {
            Answer::User(user) => return Found::new(user),
            Answer::Denied => User::OnlyServerKnows,
            Answer::NoPassword | Answer::PasswordWanted => User::Unknown,
        };
        if could_connect
            && self.own_password.is_some()
            && let Some(user) = self.let_in(user, destination).await
        {
            return Found::new(user);
        }
        Found::new(fallback)
    }

    /// Which role has this name, by its OID as the server told it last.
    pub fn identity(&self, user: &str) -> Option<Arc<str>> {
        let identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        identities.get(user).cloned()
    }

    fn note_identity(&self, user: &str, oid: &str) {
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        identities.insert(user.to_owned(), oid.into());
    }

    /// Forgets what is known of `user`: it may have changed.
    pub fn forget(&self, user: &str) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|question, _| match question {
            Question::Stored { user: known } | Question::LetIn { user: known, .. } => known != user,
        });
    }

    /// The same of everybody. What is being asked at this moment is not kept.
    pub fn forget_all(&self) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Asks the server about a password in clear, by logging in with it.
    pub async fn check_password(
        &self,
        user: &str,
        destination: &Destination,
        password: Secret,
    ) -> PasswordOutcome {
        let credentials = Credentials::Password(password);
        match self.try_login(user, destination, &credentials).await {
            Ok(server) => {
                say_goodbye(server).await;
                PasswordOutcome::Right
            }
            Err(ConnectError::Refused(error)) if error.sqlstate == "28P01" => {
                PasswordOutcome::Wrong
            }
            Err(error) => {
                PasswordOutcome::Refused(reason(&error), error.to_refusal(&self.target.name))
            }
        }
    }

    async fn own(&self, password: Secret) -> Found {
        let verifier = match self.own_verifier.get() {
            Some(verifier) => verifier.clone(),
            None => {
                let verifier = make_verifier(&self.fake_secret, &self.own_user, &password).await;
                self.own_verifier.get_or_init(|| verifier).clone()
            }
        };
        let stored = Stored::Plain(password.clone(), verifier);
        Found {
            user: User::Known { stored, standing: Standing::Valid },
            credentials: Some(Credentials::Password(password)),
        }
    }

    /// Whether the server lets this user in from here without a password, or refuses for another
    /// reason.
    async fn let_in(&self, user: &str, destination: &Destination) -> Option<User> {
        let question = Question::LetIn { user: user.to_owned(), destination: destination.clone() };
        match self.ask(question).await {
            Ok(Answer::User(user)) | Err(user) => Some(user),
            Ok(_) => None,
        }
    }

    /// Answers from the cache, or finds out; the same question is asked once at a time.
    async fn ask(&self, question: Question) -> Result<Answer, User> {
        let answer = self.slot(&question);
        let mut answer = answer.lock().await;
        if let Some((at, known)) = &*answer
            && at.elapsed() < USER_CACHE_TIME_MAX
        {
            return Ok(known.clone());
        }
        let fresh = match &question {
            Question::Stored { user } => self.read_stored(user).await?,
            Question::LetIn { user, destination } => {
                self.try_without_password(user, destination).await?
            }
        };
        *answer = Some((Instant::now(), fresh.clone()));
        Ok(fresh)
    }

    fn slot(&self, question: &Question) -> Arc<tokio::sync::Mutex<Option<(Instant, Answer)>>> {
        let now = Instant::now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(question) {
            slot.asked_at = now;
            return slot.answer.clone();
        }
        if slots.len() >= USERS_CACHED_MAX {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.asked_at);
            if let Some(oldest) = oldest.map(|(question, _)| question.clone()) {
                slots.remove(&oldest);
            }
        }
        let answer = Arc::default();
        slots.insert(question.clone(), Slot { asked_at: now, answer: Arc::clone(&answer) });
        answer
    }

    async fn try_without_password(
        &self,
        user: &str,
        destination: &Destination,
    ) -> Result<Answer, User> {
        match self.try_login(user, destination, &Credentials::None).await {
            Ok(server) => {
                say_goodbye(server).await;
                Ok(Answer::User(User::LetIn))
            }
            Err(ConnectError::Policy(_)) => Ok(Answer::PasswordWanted),
            Err(error) => Err(self.refused(&error)),
        }
    }

    /// Strangers must not fill the server with connections: a few are tried at a time.
    async fn try_login(
        &self,
        user: &str,
        destination: &Destination,
        credentials: &Credentials,
    ) -> Result<NewServer, ConnectError> {
        let permit = self.trials.acquire().await;
        let Destination { database, replication } = destination;
        let parameters: Vec<_> =
            replication.parameter().map(|how| ("replication", how)).into_iter().collect();
        let mut outcome = connect(&self.target, database, user, credentials, &parameters).await;
        // Physical replication answers no SQL.
        if *replication != Replication::Physical
            && let Ok(server) = &mut outcome
            && let Ok(rows) = simple_query(server, IDENTITY_QUERY).await
            && let Some([Some(oid)]) = rows.first().map(Vec::as_slice)
        {
            self.note_identity(user, oid);
        }
        drop(permit);
        outcome
    }

    /// What the query says of `user`, for those whom something else says more about.
    pub async fn look_up_stored(&self, user: &str) -> Found {
        match self.ask(Question::Stored { user: user.to_owned() }).await {
            Ok(Answer::User(user)) | Err(user) => Found::new(user),
            Ok(_) => Found::new(User::Unknown),
        }
    }

    async fn read_stored(&self, user: &str) -> Result<Answer, User> {
        if self.is_denied() {
            return Ok(Answer::Denied);
        }
        let waiting = Waiting::new(self);
        if waiting.position > USER_LOOKUPS_WAITING_MAX {
            let refusal =
                Refusal::fatal("53300", "too many logins wait for their user to be looked up")
                    .detail(format!("{USER_LOOKUPS_WAITING_MAX} wait already."))
                    .hint("Try again in a moment.");
            return Err(User::Refused(CloseReason::ServerUnreachable, refusal));
        }
        // The connection is out of its place while in use: a login that is given up takes it along.
        let mut place = self.connection.lock().await;
        let rows = match self.run(place.take(), user).await {
            Ok((server, rows)) => {
                if waiting.is_alone() {
                    say_goodbye(server).await;
                } else {
                    *place = Some(server);
                }
                rows
            }
            Err(error) if self.query.is_none() && is_denial(&error) => {
                tracing::warn!(
                    server = %self.target.name, user = %self.own_user, %error,
                    "cannot read users' stored passwords; clients must send theirs in clear"
                );
                self.deny();
                return Ok(Answer::Denied);
            }
            Err(error) => return Err(self.failed(&WhoFailed::Server(&error))),
        };
        if self.query.is_some() {
            let answer = query::read_rows(user, &rows);
            return answer.map_err(|reason| self.failed(&WhoFailed::Answer(reason)));
        }
        let row = rows.first().map_or(&[][..], Vec::as_slice);
        if let Some(Some(oid)) = row.last() {
            self.note_identity(user, oid);
        }
        Ok(read_row(row))
    }

    /// Reads what is stored of `user`, over the connection that was kept or a new one.
    async fn run(
        &self,
        kept: Option<NewServer>,
        user: &str,
    ) -> Result<(NewServer, Vec<Vec<Option<String>>>), ConnectError> {
        if let Some(mut server) = kept
            && let Ok(rows) = self.read(&mut server, user).await
        {
            return Ok((server, rows));
        }
        let (database, own_user, credentials) = match &self.query {
            Some(query) => (&query.database, &query.user, query.credentials()),
            None => {
                let password = self.own_password.clone();
                let credentials = password.map_or(Credentials::None, Credentials::Password);
                (&self.database, &self.own_user, credentials)
            }
        };
        let mut server =
            connect(&self.target, database, own_user, &credentials, &LOOKUP_SETTINGS).await?;
        let rows = self.read(&mut server, user).await?;
        Ok((server, rows))
    }

    async fn read(
        &self,
        server: &mut NewServer,
        user: &str,
    ) -> Result<Vec<Vec<Option<String>>>, ConnectError> {
        match &self.query {
            Some(query) => bound_query(server, &query.sql, user).await,
            None => simple_query(server, &stored_query(user)).await,
        }
    }

    fn failed(&self, who: &WhoFailed<'_>) -> User {
        match (&self.query, who) {
            (Some(query), who) => self.refused_by_query(query, who),
            (None, WhoFailed::Server(error)) => self.refused(error),
            (None, WhoFailed::Answer(_)) => User::Unknown,
        }
    }

    fn refused(&self, error: &ConnectError) -> User {
        User::Refused(reason(error), error.to_refusal(&self.target.name))
    }

    fn is_denied(&self) -> bool {
        let until = self.denied_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn deny(&self) {
        let mut until = self.denied_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = Some(Instant::now() + USER_DENIED_TIME_MAX);
    }
}

/// Why nothing could be found out.
enum WhoFailed<'a> {
    Server(&'a ConnectError),
    /// The query ran, and what it answered cannot be used.
    Answer(&'static str),
}

fn is_denial(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused(error) => {
            error.sqlstate == "42501" || error.sqlstate.starts_with("28")
        }
        ConnectError::Policy(_) => true,
        _ => false,
    }
}

fn reason(error: &ConnectError) -> CloseReason {
    match error {
        ConnectError::Refused(_) => CloseReason::ServerRefused,
        _ => CloseReason::ServerUnreachable,
    }
}

/// Counts those who look up or wait to, also when they give up.
struct Waiting<'a> {
    directory: &'a UserDirectory,
    position: usize,
}

impl<'a> Waiting<'a> {
    fn new(directory: &'a UserDirectory) -> Self {
        let position = directory.waiting.fetch_add(1, Ordering::Relaxed);
        Self { directory, position }
    }

    fn is_alone(&self) -> bool {
        self.directory.waiting.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let others = self.directory.waiting.fetch_sub(1, Ordering::Relaxed) - 1;
        // Whoever waits last may give up: then nobody would close the connection kept for it.
        if others == 0
            && let Ok(mut kept) = self.directory.connection.try_lock()
        {
            *kept = None;
        }
    }
}
