//! With what Tidegate shows a server that it acts for a user.

use tidegate_core::session::login::Proven;
use tidegate_wire::auth::{Keys, ScramSecret};

pub use tidegate_wire::auth::Secret;

/// Never printed; overwritten when dropped.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// For servers that ask for nothing.
    None,
    /// Answers every question of a server.
    Password(Secret),
    /// `md5` and 32 digits: answers an md5 question.
    Md5Hash(Secret),
    /// Learnt when the user logged in: answers SCRAM, where the server has the very verifier that
    /// we checked.
    ScramKeys(Keys),
}

impl Credentials {
    /// What answers a SCRAM question, if anything does.
    pub(super) fn for_scram(&self) -> Option<ScramSecret> {
        match self {
            Self::Password(password) => Some(ScramSecret::Password(password.clone())),
            Self::ScramKeys(keys) => Some(ScramSecret::Keys(keys.clone())),
            Self::None | Self::Md5Hash(_) => None,
        }
    }

    /// The stored hash that answers an md5 question, if there is one.
    pub(super) fn for_md5(&self, user: &str) -> Option<Secret> {
        match self {
            Self::Password(password) => {
                Some(tidegate_wire::auth::md5::stored_hash(user, password.reveal()))
            }
            Self::Md5Hash(hash) => Some(hash.clone()),
            Self::None | Self::ScramKeys(_) => None,
        }
    }
}

impl From<Proven> for Credentials {
    fn from(proven: Proven) -> Self {
        match proven {
            Proven::Nothing => Self::None,
            Proven::Password(password) => Self::Password(password),
            Proven::Md5Hash(hash) => Self::Md5Hash(hash),
            Proven::Keys(keys) => Self::ScramKeys(keys),
        }
    }
}
