//! md5 authentication: the stored hash, and its answer to a salt.
//!
//! Source: `pg_md5_encrypt` in PostgreSQL's `src/common/md5_common.c`. Broken by design (who knows
//! the stored hash can log in), and kept because servers with such users exist.

use super::{Secret, same};
use ::md5::{Digest, Md5};

/// What `pg_authid.rolpassword` holds for an md5 user: `md5` and 32 hexadecimal digits.
pub fn stored_hash(user: &str, password: &str) -> Secret {
    Secret::new(hex_hash(&[password.as_bytes(), user.as_bytes()]))
}

/// Whether `text` has the form of a stored md5 hash.
pub fn is_stored_hash(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|hex| {
        hex.len() == 32 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The answer to AuthenticationMD5Password from a stored hash.
pub fn answer(stored_hash: &str, salt: [u8; 4]) -> String {
    let hex = stored_hash.strip_prefix("md5").unwrap_or(stored_hash);
    hex_hash(&[hex.as_bytes(), &salt])
}

/// Whether `given` is the answer that `stored_hash` gives to `salt`.
pub fn verify(stored_hash: &str, salt: [u8; 4], given: &[u8]) -> bool {
    same(answer(stored_hash, salt).as_bytes(), given)
}

fn hex_hash(parts: &[&[u8]]) -> String {
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    let mut text = String::from("md5");
    for byte in digest.finalize() {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
    text
}
