//! Keys of passwords that were right, so that who logs in again and again with one does not hash it each time.
//!
//! Keys are found by a hash of the password with a secret of this process, and put when the other end has proven that they are
//! right: a wrong password costs its hashing each time, whoever it is meant for.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use ring::hmac;
use tidegate_core::limits::HTTP_KEYS_KNOWN_MAX;
use tidegate_wire::auth::{Keys, Secret};

/// Which password, hashed with what.
pub(super) type KeyName = [u8; 32];

/// One process's.
pub struct KnownKeys {
    secret: hmac::Key,
    keys: Mutex<HashMap<KeyName, Keys>>,
}

impl KnownKeys {
    /// # Errors
    /// There are no random numbers.
    pub fn new() -> io::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { secret: hmac::Key::new(hmac::HMAC_SHA256, &secret), keys: Mutex::default() })
    }

    pub(super) fn name(&self, password: &Secret, salt: &[u8], iterations: u32) -> KeyName {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(&(salt.len() as u64).to_le_bytes());
        context.update(salt);
        context.update(&iterations.to_le_bytes());
        context.update(password.reveal().as_bytes());
        let mut name = [0; 32];
        name.copy_from_slice(context.sign().as_ref());
        name
    }

    pub(super) fn get(&self, name: &KeyName) -> Option<Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Keeps keys that are right. When there is no more room, all others are learnt anew.
    pub(super) fn put(&self, name: KeyName, right: Keys) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= HTTP_KEYS_KNOWN_MAX && !keys.contains_key(&name) {
            keys.clear();
        }
        keys.insert(name, right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(of: u8) -> Keys {
        Keys { client_key: [of; 32], server_key: [of; 32] }
    }

    #[test]
    fn keys_are_those_of_one_password_and_salt() {
        let known = KnownKeys::new().unwrap();
        let name = |password: &str, salt: &[u8], n| known.name(&Secret::new(password), salt, n);
        known.put(name("right", b"salt", 4096), keys(1));
        assert_eq!(known.get(&name("right", b"salt", 4096)).map(|k| k.client_key), Some([1; 32]));
        for other in [
            name("wrong", b"salt", 4096),
            name("right", b"other", 4096),
            name("right", b"salt", 4097),
        ] {
            assert!(known.get(&other).is_none());
        }
        for n in 0..HTTP_KEYS_KNOWN_MAX as u32 {
            known.put(name("more", b"salt", n), keys(2));
        }
        assert!(known.keys.lock().unwrap().len() <= HTTP_KEYS_KNOWN_MAX);
    }
}
