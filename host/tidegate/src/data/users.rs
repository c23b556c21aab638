//! Who may log in: the users of a file, or those that the server knows.

use crate::upstream::Credentials;
use crate::upstream::directory::{Found, UserDirectory, check_stored, make_verifier};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tidegate_core::session::login::{
    PasswordCheck, PasswordOutcome, PeerKind, Standing, Stored, User,
};
use tidegate_wire::auth::{Secret, Verifier, md5};

/// Where the login finds out about users.
#[derive(Clone, Debug)]
pub enum Users {
    File(Arc<UserFile>),
    /// Pass-through: those of the server.
    Server(Arc<UserDirectory>),
    /// There are none: for certificates and trust.
    Nobody,
}

impl Users {
    pub async fn look_up(&self, user: &str, database: &str, peer: PeerKind) -> Found {
        match self {
            Self::File(file) => file.look_up(user).await,
            Self::Server(directory) => directory.look_up(user, database, peer).await,
            Self::Nobody => Found::new(User::Unknown),
        }
    }

    pub fn forget(&self, user: &str) {
        if let Self::Server(directory) = self {
            directory.forget(user);
        }
    }

    pub async fn check_password(
        &self,
        user: &str,
        database: &str,
        password: Secret,
        against: PasswordCheck,
    ) -> PasswordOutcome {
        match (against, self) {
            (PasswordCheck::Stored(stored), _) => check_stored(user, password, stored).await,
            (PasswordCheck::Server, Self::Server(directory)) => {
                directory.check_password(user, database, password).await
            }
            (PasswordCheck::Server, Self::File(_) | Self::Nobody) => PasswordOutcome::Wrong,
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

/// A line of a user file is not what it should be. Does not carry the line, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUserLine {
    /// Counted from 1.
    pub line: usize,
    pub fault: UserLineFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserLineFault {
    /// Not two strings in double quotes.
    Form,
    /// The user's name is empty, or it was there before.
    Name,
    /// It begins like a SCRAM verifier but is none.
    Verifier,
}

impl std::fmt::Display for BadUserLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fault = match self.fault {
            UserLineFault::Form => "expected \"user\" \"secret\"",
            UserLineFault::Name => "the user's name is empty or comes twice",
            UserLineFault::Verifier => "the SCRAM verifier cannot be read",
        };
        write!(f, "line {}: {fault}", self.line)
    }
}

impl UserFile {
    /// Reads the text of a user file. Empty lines and those that begin with `;` or `#` say nothing.
    pub fn parse(text: &str, fake_secret: [u8; 32]) -> Result<Self, BadUserLine> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let bad = |fault| BadUserLine { line: index + 1, fault };
            let (user, rest) = quoted(line).ok_or(bad(UserLineFault::Form))?;
            let (secret, _) = quoted(rest.trim_start()).ok_or(bad(UserLineFault::Form))?;
            let known = if md5::is_stored_hash(&secret) {
                FileUser::Stored(Stored::Md5(Secret::new(secret)))
            } else if secret.starts_with("SCRAM-SHA-256$") {
                let verifier = Verifier::parse(&secret);
                FileUser::Stored(Stored::Scram(verifier.map_err(|_| bad(UserLineFault::Verifier))?))
            } else {
                FileUser::Plain(Secret::new(secret), OnceLock::new())
            };
            if user.is_empty() || users.insert(user, known).is_some() {
                return Err(bad(UserLineFault::Name));
            }
        }
        Ok(Self { users, fake_secret })
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

/// A string in double quotes, where two stand for one, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            None => return Some((value, after)),
            Some(more) => {
                value.push('"');
                rest = more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_like_pgbouncers() {
        let text = "; comment\n\n\"alice\" \"pen\"\"cil\"\n  \"bob\"  \"md5ee69efad287c7423caf0b3229d71f567\" \"\"\n";
        let file = UserFile::parse(text, [0; 32]).unwrap();
        assert!(matches!(&file.users["alice"], FileUser::Plain(p, _) if p.reveal() == "pen\"cil"));
        assert!(matches!(&file.users["bob"], FileUser::Stored(Stored::Md5(_))));
    }

    #[test]
    fn faults_name_their_line() {
        let check = |text: &str, line, fault| {
            assert_eq!(UserFile::parse(text, [0; 32]).unwrap_err(), BadUserLine { line, fault });
        };
        check("\n\"alice\" pencil", 2, UserLineFault::Form);
        check("\"alice\" \"pencil", 1, UserLineFault::Form);
        check("\"a\" \"b\"\n\"a\" \"c\"", 2, UserLineFault::Name);
        check("\"\" \"c\"", 1, UserLineFault::Name);
        check("\"a\" \"SCRAM-SHA-256$x\"", 1, UserLineFault::Verifier);
    }
}
