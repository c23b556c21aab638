//! Users looked up by a query of the operator's, as PgBouncer's `auth_query` does: it needs no superuser, only a
//! SECURITY DEFINER function that answers for one user at a time.

use super::{Answer, UserDirectory, WhoFailed};
use crate::upstream::error::ConnectError;
use crate::upstream::{Credentials, Secret};
use tidegate_core::refusal::Refusal;
use tidegate_core::session::login::{CloseReason, Standing, Stored, User};
use tidegate_wire::auth::{Verifier, md5};

/// How users are looked up instead of in `pg_authid`.
#[derive(Clone, Debug)]
pub struct AuthQuery {
    /// `$1` is the user; yields its name and what `pg_authid.rolpassword` holds for it.
    pub sql: String,
    pub database: String,
    /// Who runs it.
    pub user: String,
    pub password: Option<Secret>,
}

impl AuthQuery {
    pub(super) fn credentials(&self) -> Credentials {
        self.password.clone().map_or(Credentials::None, Credentials::Password)
    }
}

impl UserDirectory {
    /// Has users looked up by this query.
    pub fn with_query(self, query: AuthQuery) -> Self {
        Self { query: Some(query), ..self }
    }

    /// An error of the operator's query is the operator's to see: who logs in learns that nobody can be looked up.
    pub(super) fn refused_by_query(&self, query: &AuthQuery, error: &WhoFailed<'_>) -> User {
        let (server, user) = (&*self.target.name, &*query.user);
        match error {
            WhoFailed::Server(error) if !is_about_query(error) => return self.refused(error),
            WhoFailed::Server(error) => {
                tracing::warn!(server, user, %error, "auth.query failed");
            }
            WhoFailed::Answer(reason) => {
                tracing::warn!(
                    server,
                    user,
                    reason,
                    "auth.query gave an answer that cannot be used"
                );
            }
        }
        let refusal = Refusal::fatal("58000", "users cannot be looked up")
            .hint("Tidegate's log says what is wrong with auth.query.");
        User::Refused(CloseReason::ServerRefused, refusal)
    }
}

/// Whether the query, or whoever runs it, is at fault; else the server has no room or is not there.
fn is_about_query(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused(error) => {
            error.sqlstate != "53300" && !error.sqlstate.starts_with("57P")
        }
        ConnectError::Policy(_) => true,
        _ => false,
    }
}

/// What the query's rows say of `user`.
pub(super) fn read_rows(user: &str, rows: &[Vec<Option<String>>]) -> Result<Answer, &'static str> {
    let (name, secret) = match rows {
        [] => return Ok(Answer::User(User::Unknown)),
        [row] => match row.as_slice() {
            [name, secret, ..] => (name, secret),
            _ => return Err("it has fewer than two columns"),
        },
        _ => return Err("it has more than one row"),
    };
    if name.as_deref() != Some(user) {
        return Err("it is about another user");
    }
    let Some(secret) = secret else { return Ok(Answer::NoPassword) };
    let stored = if md5::is_stored_hash(secret) {
        Stored::Md5(Secret::new(secret.clone()))
    } else if let Ok(verifier) = Verifier::parse(secret) {
        Stored::Scram(verifier)
    } else {
        return Err("its second column is neither an md5 hash nor a SCRAM verifier");
    };
    Ok(Answer::User(User::Known { stored, standing: Standing::Valid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_row_about_the_user_who_was_asked_for() {
        const MD5: &str = "md5aca706c93ecf11cad94fdc7bc4f1ea6b";
        let read = |rows: &[&[Option<&str>]]| {
            let rows: Vec<Vec<_>> = rows
                .iter()
                .map(|row| row.iter().map(|text| text.map(str::to_owned)).collect())
                .collect();
            read_rows("ann", &rows).map(|answer| format!("{answer:?}"))
        };
        assert_eq!(read(&[]).unwrap(), "User(Unknown)");
        assert_eq!(read(&[&[Some("ann"), None]]).unwrap(), "NoPassword");
        let known = read(&[&[Some("ann"), Some(MD5), Some("more")]]).unwrap();
        assert!(known.contains("Md5(Secret(…)), standing: Valid"), "{known}");
        assert!(read(&[&[Some("bob"), Some(MD5)]]).is_err());
        assert!(read(&[&[None, Some(MD5)]]).is_err());
        assert!(read(&[&[Some("ann")]]).is_err());
        assert!(read(&[&[Some("ann"), Some("secret")]]).is_err());
        assert!(read(&[&[Some("ann"), Some(MD5)], &[Some("ann"), Some(MD5)]]).is_err());
    }
}
