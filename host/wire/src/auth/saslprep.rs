//! SASLprep as PostgreSQL does it: a password that cannot be prepared is used as it is.

use std::borrow::Cow;

/// The normal form of `password` (RFC 4013), or `password` itself when it has a character that RFC
/// forbids.
///
/// Source: `pg_saslprep` and its callers in `src/common/scram-common.c` and `auth-scram.c`.
pub fn saslprep(password: &str) -> Cow<'_, str> {
    match stringprep::saslprep(password) {
        // PostgreSQL also keeps a password whose normal form is empty.
        Ok(prepared) if !prepared.is_empty() => prepared,
        _ => Cow::Borrowed(password),
    }
}
