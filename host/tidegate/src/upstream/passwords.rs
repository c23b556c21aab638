//! Work on passwords: the slow part on threads that serve no clients, and random numbers.

use std::io;
use tidegate_core::session::login::{PasswordOutcome, Stored};
use tidegate_wire::auth::{self, Secret, Verifier, md5};

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Makes the verifier of a password known in clear, with a salt that is the user's for the life of
/// the process.
pub async fn make_verifier(fake_secret: &[u8; 32], user: &str, password: &Secret) -> Verifier {
    let fake = Verifier::fake(fake_secret, user);
    let password = password.clone();
    let (salt, iterations) = (fake.salt.clone(), fake.iterations);
    let task = tokio::task::spawn_blocking(move || {
        Verifier::from_password(password.reveal(), &salt, iterations)
    });
    // Cancelled only when the process ends: then a verifier that nothing fits is as good as any.
    task.await.unwrap_or(fake)
}

/// Whether a password in clear is the stored one. The slow part runs on a thread that serves no
/// clients.
pub async fn check_stored(user: &str, password: Secret, stored: Stored) -> PasswordOutcome {
    let right = match stored {
        Stored::Plain(known, _) => known == password,
        Stored::Md5(hash) => auth::same(
            md5::stored_hash(user, password.reveal()).reveal().as_bytes(),
            hash.reveal().as_bytes(),
        ),
        Stored::Scram(verifier) => {
            let task = tokio::task::spawn_blocking(move || verifier.fits(password.reveal()));
            task.await.unwrap_or(false)
        }
    };
    if right { PasswordOutcome::Right } else { PasswordOutcome::Wrong }
}

/// 144 random bits as text (PostgreSQL: SCRAM_RAW_NONCE_LEN).
pub fn nonce() -> io::Result<String> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes)?;
    let digits = bytes.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits.map(|digit| char::from(HEX_DIGITS[usize::from(digit)])));
    Ok(text)
}
