//! SCRAM-SHA-256 verifiers: what a server stores instead of a password.
//!
//! Source: RFC 5802, RFC 7677, and `scram_build_secret` / `parse_scram_secret` in PostgreSQL's
//! `scram-common.c`.

use super::{same, saslprep};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::{Zeroize as _, Zeroizing};

/// Iterations of a verifier we make ourselves (PostgreSQL's default of `scram_iterations`).
pub const ITERATIONS_DEFAULT: u32 = 4_096;
/// More iterations than this are refused on both sides: a hostile peer must not buy minutes of our
/// processor.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Bytes of a salt we make ourselves (PostgreSQL: SCRAM_DEFAULT_SALT_LEN).
pub const SALT_BYTES: usize = 16;
/// A longer salt is refused.
pub const SALT_BYTES_MAX: usize = 1_024;

pub(super) type Key = [u8; 32];

/// The stored form of a password. Who has it can check a password, but not log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub iterations: u32,
    pub salt: Vec<u8>,
    pub stored_key: Key,
    pub server_key: Key,
}

/// The keys of a password under one salt. Who has the client key can log in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    pub client_key: Key,
    pub server_key: Key,
}

/// Text that is not a SCRAM-SHA-256 verifier within our limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadVerifier;

impl Verifier {
    /// Makes the verifier of `password`. Costs `iterations` HMACs: milliseconds.
    pub fn from_password(password: &str, salt: &[u8], iterations: u32) -> Self {
        let keys = Keys::from_password(password, salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&keys.client_key),
            server_key: keys.server_key,
        }
    }

    /// A verifier that no password fits, the same one for the same user each time, so that a user
    /// who does not exist is answered like one who does. `secret` is drawn once per process.
    pub fn fake(secret: &[u8; 32], user: &str) -> Self {
        let part = |label: &[u8]| hmac_sha256(secret, &[label, user.as_bytes()]);
        Self {
            iterations: ITERATIONS_DEFAULT,
            salt: part(b"salt:")[..SALT_BYTES].to_vec(),
            stored_key: part(b"stored:"),
            server_key: part(b"server:"),
        }
    }

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    pub fn parse(text: &str) -> Result<Self, BadVerifier> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(BadVerifier)?;
        let (parameters, keys) = rest.split_once('$').ok_or(BadVerifier)?;
        let (iterations, salt) = parameters.split_once(':').ok_or(BadVerifier)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(BadVerifier)?;
        let iterations = parse_iterations(iterations).ok_or(BadVerifier)?;
        let salt = decode(salt).ok_or(BadVerifier)?;
        if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
            return Err(BadVerifier);
        }
        Ok(Self {
            iterations,
            salt,
            stored_key: decode_key(stored_key).ok_or(BadVerifier)?,
            server_key: decode_key(server_key).ok_or(BadVerifier)?,
        })
    }

    /// Whether `password` is the one this verifier was made of. Costs as much as making it.
    pub fn fits(&self, password: &str) -> bool {
        let keys = Keys::from_password(password, &self.salt, self.iterations);
        same(&keys.server_key, &self.server_key)
    }
}

/// Prints the form that [`Verifier::parse`] reads and PostgreSQL stores: not for logs, hence not
/// `Debug`.
impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iterations, salt, stored_key, server_key } = self;
        let (salt, stored_key) = (BASE64.encode(salt), BASE64.encode(stored_key));
        write!(f, "SCRAM-SHA-256${iterations}:{salt}${stored_key}:{}", BASE64.encode(server_key))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

impl Keys {
    /// Costs `iterations` HMACs: milliseconds.
    pub fn from_password(password: &str, salt: &[u8], iterations: u32) -> Self {
        let mut salted = Zeroizing::new([0; 32]);
        let prepared = saslprep(password);
        pbkdf2::pbkdf2_hmac::<Sha256>(prepared.as_bytes(), salt, iterations, salted.as_mut());
        Self {
            client_key: hmac_sha256(&salted, &[b"Client Key"]),
            server_key: hmac_sha256(&salted, &[b"Server Key"]),
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.client_key.zeroize();
        self.server_key.zeroize();
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

pub(super) fn parse_iterations(text: &str) -> Option<u32> {
    let iterations = text.parse().ok()?;
    (1..=ITERATIONS_MAX).contains(&iterations).then_some(iterations)
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

pub(super) fn decode_key(text: &str) -> Option<Key> {
    decode(text)?.try_into().ok()
}

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

pub(super) fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

/// HMAC of the parts one after another.
pub(super) fn hmac_sha256(key: &Key, parts: &[&[u8]]) -> Key {
    // A key shorter than a block is padded with zeros by definition; a whole block cannot fail.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}
