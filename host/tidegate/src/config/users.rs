//! PgBouncer's `userlist.txt`: one `"user" "secret"` a line.

use std::collections::BTreeMap;

use super::checked::Secret;

/// The users of a file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(BTreeMap<String, UserSecret>);

/// How a user's password is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSecret {
    Plain(Secret),
    /// `md5` and 32 hexadecimal digits: md5 of password then user, as PostgreSQL stores it.
    Md5(Secret),
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as PostgreSQL stores it.
    Scram(Secret),
}

impl Users {
    pub fn get(&self, user: &str) -> Option<&UserSecret> {
        self.0.get(user)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
