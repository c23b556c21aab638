//! What `pg_authid` says of a user.

use super::Answer;
use crate::upstream::Secret;
use tidegate_core::session::login::{Standing, Stored, User};
use tidegate_wire::auth::{Verifier, md5};

/// For a connection that has just logged in.
pub(super) const IDENTITY_QUERY: &str = "SELECT oid::pg_catalog.text FROM pg_catalog.pg_roles \
     WHERE rolname OPERATOR(pg_catalog.=) SESSION_USER";

/// Every name and operator is qualified, and the user's name is a literal that no setting can
/// change the meaning of.
pub(super) fn stored_query(user: &str) -> String {
    let user = user.replace('\\', r"\\").replace('\'', "''");
    format!(
        "SELECT rolpassword, rolcanlogin::pg_catalog.text, \
         (rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now())::pg_catalog.text, \
         oid::pg_catalog.text \
         FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) E'{user}'"
    )
}

pub(super) fn read_row(row: &[Option<String>]) -> Answer {
    let [password, can_login, expired, _oid] = row else { return Answer::User(User::Unknown) };
    let standing = if expired.as_deref() == Some("true") {
        Standing::Expired
    } else if can_login.as_deref() == Some("true") {
        Standing::Valid
    } else {
        Standing::NotPermitted
    };
    let Some(password) = password else { return Answer::NoPassword };
    let stored = if md5::is_stored_hash(password) {
        Stored::Md5(Secret::new(password.clone()))
    } else if let Ok(verifier) = Verifier::parse(password) {
        Stored::Scram(verifier)
    } else {
        return Answer::NoPassword;
    };
    Answer::User(User::Known { stored, standing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_19_a_users_name_stays_a_literal() {
        assert!(
            stored_query(r"a'b\").ends_with(r"= E'a''b\\'")
                || stored_query(r"a'b\").ends_with(r"E'a''b\\'")
        );
        assert!(!stored_query("x").contains("FROM pg_authid"));
    }

    #[test]
    fn rows_of_pg_authid_are_understood() {
        let row = |password: Option<&str>, can_login: &str, expired: Option<&str>| {
            let row = [password, Some(can_login), expired, Some("10")]
                .map(|field| field.map(str::to_owned));
            format!("{:?}", read_row(&row))
        };
        let md5 = Some("md5ee69efad287c7423caf0b3229d71f567");
        assert!(row(md5, "true", None).contains("Md5(Secret(…)), standing: Valid"));
        assert!(row(md5, "true", Some("false")).contains("Valid"));
        assert!(row(md5, "true", Some("true")).contains("Expired"));
        assert!(row(md5, "false", None).contains("NotPermitted"));
        assert_eq!(row(None, "true", None), "NoPassword");
        assert_eq!(row(Some("plain?"), "true", None), "NoPassword");
        assert_eq!(format!("{:?}", read_row(&[])), "User(Unknown)");
    }
}
