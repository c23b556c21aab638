//! Who may log in: the users of a file, or those that the server knows.

use crate::config::UserSecret;
use crate::upstream::directory::{Found, UserDirectory};
use crate::upstream::{Credentials, check_stored, make_verifier};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tidegate_core::limits::OWN_USER_LOOKUP_TIME_MAX;
use tidegate_core::session::login::{
    Destination, PasswordCheck, PasswordOutcome, PeerKind, Standing, Stored, User,
};
use tidegate_wire::auth::{Secret, Verifier};

/// Where the login finds out about users.
#[derive(Clone, Debug)]
pub enum Users {
    File(Arc<UserFile>),
    /// Pass-through: those of the server.
    Server(Arc<UserDirectory>),
    /// Those of a file if there is one, and those that a query finds.
    Query(Option<Arc<UserFile>>, Arc<UserDirectory>),
    /// There are none: for certificates and trust.
    Nobody,
}

impl Users {
    pub async fn look_up(&self, user: &str, destination: &Destination, peer: PeerKind) -> Found {
        match self {
            Self::File(file) => file.look_up(user).await,
            Self::Server(directory) => directory.look_up(user, destination, peer).await,
            Self::Query(file, directory) => look_up_both(file.as_deref(), directory, user).await,
            Self::Nobody => Found::new(User::Unknown),
        }
    }

    /// As [`UserDirectory::identity`]. Who logs in by a file, a certificate or by trust is known by name alone.
    pub fn identity(&self, user: &str) -> Option<Arc<str>> {
        match self {
            Self::Server(directory) => directory.identity(user),
            Self::File(_) | Self::Query(..) | Self::Nobody => None,
        }
    }

    /// Forgets what is known of all: roles have changed.
    pub fn forget_all(&self) {
        if let Self::Server(directory) | Self::Query(_, directory) = self {
            directory.forget_all();
        }
    }

    pub fn forget(&self, user: &str) {
        if let Self::Server(directory) | Self::Query(_, directory) = self {
            directory.forget(user);
        }
    }

    pub async fn check_password(
        &self,
        user: &str,
        destination: &Destination,
        password: Secret,
        against: PasswordCheck,
    ) -> PasswordOutcome {
        match (against, self) {
            (PasswordCheck::Stored(stored), _) => check_stored(user, password, stored).await,
            (PasswordCheck::Server, Self::Server(directory)) => {
                directory.check_password(user, destination, password).await
            }
            (PasswordCheck::Server, Self::File(_) | Self::Query(..) | Self::Nobody) => {
                PasswordOutcome::Wrong
            }
        }
    }
}

/// The file wins. The query is asked about its users too: how long an answer takes must not tell who is in the file.
async fn look_up_both(file: Option<&UserFile>, directory: &UserDirectory, user: &str) -> Found {
    let listed = match file {
        Some(file) => file.look_up(user).await,
        None => Found::new(User::Unknown),
    };
    let asked = directory.look_up_stored(user);
    match listed.user {
        User::Unknown => asked.await,
        _ => {
            let _ = tokio::time::timeout(OWN_USER_LOOKUP_TIME_MAX, asked).await;
            listed
        }
    }
}

/// Users and their secrets from a file of lines `"user" "secret"`: PgBouncer's `userlist.txt`.
///
/// A secret is a password, an md5 hash (`md5…`) or a SCRAM verifier (`SCRAM-SHA-256$…`).
#[derive(Debug)]
pub struct UserFile {
    users: HashMap<String, FileUser>,
    fake_secret: [u8; 32],
}

#[derive(Debug)]
enum FileUser {
    /// The verifier is made when the user first logs in: thousands of them would take seconds.
    Plain(Secret, OnceLock<Verifier>),
    Stored(Stored),
}

impl UserFile {
    /// The users of a file that has been read and checked.
    pub fn new(users: &crate::config::Users, fake_secret: [u8; 32]) -> Self {
        let known = |secret: &UserSecret| match secret {
            UserSecret::Plain(password) => FileUser::Plain(password.clone(), OnceLock::new()),
            UserSecret::Md5(hash) => FileUser::Stored(Stored::Md5(hash.clone())),
            UserSecret::Scram(verifier) => FileUser::Stored(Stored::Scram(verifier.clone())),
        };
        let users = users.iter().map(|(user, secret)| (user.to_owned(), known(secret))).collect();
        Self { users, fake_secret }
    }

    async fn look_up(&self, user: &str) -> Found {
        let standing = Standing::Valid;
        match self.users.get(user) {
            None => Found::new(User::Unknown),
            // An empty password lets nobody in: it says that the user logs in by other means.
            Some(FileUser::Plain(password, _)) if password.reveal().is_empty() => {
                Found::new(User::Unknown)
            }
            Some(FileUser::Plain(password, verifier)) => {
                let verifier = match verifier.get() {
                    Some(verifier) => verifier.clone(),
                    None => {
                        let fresh = make_verifier(&self.fake_secret, user, password).await;
                        verifier.get_or_init(|| fresh).clone()
                    }
                };
                let stored = Stored::Plain(password.clone(), verifier);
                let credentials = Some(Credentials::Password(password.clone()));
                Found { user: User::Known { stored, standing }, credentials }
            }
            Some(FileUser::Stored(stored)) => {
                let credentials = match stored {
                    Stored::Md5(hash) => Some(Credentials::Md5Hash(hash.clone())),
                    _ => None,
                };
                Found { user: User::Known { stored: stored.clone(), standing }, credentials }
            }
        }
    }
}
