//! The SCRAM-SHA-256 exchange, both sides, each step a value that the next message consumes.
//!
//! ```text
//! client                               server
//! ClientFirst::start ── client-first ─▶ ServerFirst::start
//! ClientFirst::answer ◀─ server-first ── │
//!   └▶ ClientFinal ──── client-final ─▶ ServerFirst::verify
//! ClientFinal::finish ◀─ server-final ── └▶ ServerFinal
//! ```
//!
//! Source: RFC 5802, RFC 7677; PostgreSQL's `auth-scram.c` and `fe-auth-scram.c`. What an exchange is
//! bound to, and the nonces, are arguments.

use super::channel::{Channel, Flag};
use super::verifier::{
    Key, SALT_BYTES_MAX, decode, decode_key, encode, hmac_sha256, parse_iterations, sha256,
};
use super::{Keys, Secret, Verifier, same};
use std::fmt;

/// Messages longer than this are not read: a true one has a few hundred bytes.
const MESSAGE_BYTES_MAX: usize = 8_192;

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// The message does not have the form of its step. The text says which part.
    Malformed(&'static str),
    /// What the client says of channel binding does not fit the mechanism it chose, or its proof is
    /// bound to another channel: somebody stands between.
    ChannelBinding,
    /// The client could bind, and was told that the server cannot: somebody stands between.
    Downgrade,
    /// The client wants to act as another user (`a=`), or needs an extension (`m=`).
    Unsupported(&'static str),
    /// The other side changed the nonce.
    Nonce,
    /// The iteration count is zero or above the limit.
    Iterations,
    /// The proof is that of another password.
    WrongPassword,
    /// The server does not know the password: it is not the one it claims to be.
    WrongServer,
    /// The server ended the exchange with an error of its own.
    ServerError,
}

// --- the server's side ---------------------------------------------------------------------------

/// The server has answered the client's first message and waits for its proof.
#[derive(Debug)]
pub struct ServerFirst {
    verifier: Verifier,
    /// What the client has to repeat: its header, and what the exchange is bound to.
    binding: String,
    nonce: String,
    /// client-first-bare "," server-first
    messages: String,
}

/// The client has proven that it knows the password.
#[derive(Debug)]
pub struct ServerFinal {
    /// The data of AuthenticationSASLFinal.
    pub message: String,
    /// The keys with which one can log in as this user at a server that has the same verifier.
    pub keys: Keys,
}

impl ServerFirst {
    /// Reads the client's first message; yields the state and the data of
    /// AuthenticationSASLContinue.
    ///
    /// `nonce` is fresh random printable text without commas; `channel` is what the mechanism that
    /// the client chose says, `Unused` where binding was offered and not chosen. The user name in the message is
    /// ignored, as PostgreSQL does: the one of the StartupMessage counts.
    pub fn start(
        client_first: &[u8],
        verifier: Verifier,
        nonce: &str,
        channel: &Channel,
    ) -> Result<(Self, String), ScramError> {
        let message = text(client_first)?;
        let (flag, rest) = message.split_once(',').ok_or(ScramError::Malformed("header"))?;
        channel.check(Flag::read(flag).ok_or(ScramError::Malformed("channel binding flag"))?)?;
        let (identity, bare) = rest.split_once(',').ok_or(ScramError::Malformed("header"))?;
        if !identity.is_empty() {
            return Err(ScramError::Unsupported("authorization identity"));
        }
        let mut attributes = bare.split(',');
        let user = attributes.next().unwrap_or_default();
        if user.starts_with("m=") {
            return Err(ScramError::Unsupported("mandatory extension"));
        }
        if !user.starts_with("n=") {
            return Err(ScramError::Malformed("user name"));
        }
        let client_nonce = attribute(attributes.next(), "r=")?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Malformed("nonce"));
        }
        let nonce = format!("{client_nonce}{nonce}");
        let reply = format!("r={nonce},s={},i={}", encode(&verifier.salt), verifier.iterations);
        let messages = format!("{bare},{reply}");
        let binding = channel.bind(&format!("{flag},,"));
        Ok((Self { verifier, binding, nonce, messages }, reply))
    }

    /// Checks the client's proof.
    ///
    /// The work is the same whether the proof is right or wrong, and for a verifier that is fake.
    pub fn verify(self, client_final: &[u8]) -> Result<ServerFinal, ScramError> {
        let message = text(client_final)?;
        let (without_proof, proof) =
            message.rsplit_once(",p=").ok_or(ScramError::Malformed("proof"))?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(attributes.next(), "c=")?;
        if !same(binding.as_bytes(), self.binding.as_bytes()) {
            return Err(ScramError::ChannelBinding);
        }
        if !same(attribute(attributes.next(), "r=")?.as_bytes(), self.nonce.as_bytes()) {
            return Err(ScramError::Nonce);
        }
        let proof = decode_key(proof).ok_or(ScramError::Malformed("proof"))?;
        let parts = [self.messages.as_bytes(), b",", without_proof.as_bytes()];
        let signature = hmac_sha256(&self.verifier.stored_key, &parts);
        let client_key = xor(&proof, &signature);
        let server_signature = hmac_sha256(&self.verifier.server_key, &parts);
        let keys = Keys { client_key, server_key: self.verifier.server_key };
        if !same(&sha256(&client_key), &self.verifier.stored_key) {
            return Err(ScramError::WrongPassword);
        }
        Ok(ServerFinal { message: format!("v={}", encode(&server_signature)), keys })
    }
}

// --- the client's side ---------------------------------------------------------------------------

/// What a client proves that it knows.
#[derive(Clone, Debug)]
pub enum ScramSecret {
    Password(Secret),
    /// Keys of the password under the server's own salt, learnt when the user logged in to us.
    Keys(Keys),
}

/// The client has sent its first message.
#[derive(Debug)]
pub struct ClientFirst {
    secret: ScramSecret,
    nonce: String,
    bare: String,
    /// What the proof repeats of the header and the channel.
    binding: String,
}

/// The client has sent its proof and waits for the server's.
pub struct ClientFinal {
    server_signature: Key,
    keys: Keys,
}

impl fmt::Debug for ClientFinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientFinal(…)")
    }
}

impl ClientFirst {
    /// Yields the state and the data of SASLInitialResponse. The user name stays empty, as libpq
    /// does. `channel` is `Unused` where we could bind and the server does not offer it.
    pub fn start(secret: ScramSecret, nonce: &str, channel: &Channel) -> (Self, String) {
        let bare = format!("n=,r={nonce}");
        let header = channel.header();
        let (message, binding) = (format!("{header}{bare}"), channel.bind(header));
        (Self { secret, nonce: nonce.to_owned(), bare, binding }, message)
    }

    /// Reads the server's first message; yields the state and the data of SASLResponse.
    ///
    /// From a password this costs the server's iteration count in HMACs: milliseconds.
    pub fn answer(self, server_first: &[u8]) -> Result<(ClientFinal, String), ScramError> {
        let message = text(server_first)?;
        let (nonce, salt, iterations) = read_server_first(message)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let keys = match self.secret {
            ScramSecret::Password(password) => {
                Keys::from_password(password.reveal(), &salt, iterations)
            }
            ScramSecret::Keys(keys) => keys,
        };
        let without_proof = format!("c={},r={nonce}", self.binding);
        let parts =
            [self.bare.as_bytes(), b",", message.as_bytes(), b",", without_proof.as_bytes()];
        let signature = hmac_sha256(&sha256(&keys.client_key), &parts);
        let proof = encode(&xor(&keys.client_key, &signature));
        let server_signature = hmac_sha256(&keys.server_key, &parts);
        Ok((ClientFinal { server_signature, keys }, format!("{without_proof},p={proof}")))
    }

    /// With what the server's first message has a password hashed: salt and iterations. For whoever knows the keys of
    /// some already.
    pub fn hashed_with(server_first: &[u8]) -> Result<(Vec<u8>, u32), ScramError> {
        read_server_first(text(server_first)?).map(|(_, salt, iterations)| (salt, iterations))
    }

    /// The same exchange with keys that are known, so that nothing is hashed.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { secret: ScramSecret::Keys(keys), ..self }
    }
}

impl ClientFinal {
    /// Checks that the server knows the password too.
    pub fn finish(self, server_final: &[u8]) -> Result<(), ScramError> {
        self.finish_with_keys(server_final).map(drop)
    }

    /// The same, and yields the keys, which are now known to be right.
    pub fn finish_with_keys(self, server_final: &[u8]) -> Result<Keys, ScramError> {
        let message = text(server_final)?;
        if message.starts_with("e=") {
            return Err(ScramError::ServerError);
        }
        let signature = attribute(message.split(',').next(), "v=")?;
        let signature = decode_key(signature).ok_or(ScramError::Malformed("signature"))?;
        if same(&signature, &self.server_signature) {
            Ok(self.keys)
        } else {
            Err(ScramError::WrongServer)
        }
    }
}

/// Nonce, salt and iterations of the server's first message.
fn read_server_first(message: &str) -> Result<(&str, Vec<u8>, u32), ScramError> {
    let mut attributes = message.split(',');
    let nonce = match attributes.next() {
        Some(error) if error.starts_with("e=") => return Err(ScramError::ServerError),
        Some(extension) if extension.starts_with("m=") => {
            return Err(ScramError::Unsupported("mandatory extension"));
        }
        first => attribute(first, "r=")?,
    };
    let salt = decode(attribute(attributes.next(), "s=")?)
        .filter(|salt| (1..=SALT_BYTES_MAX).contains(&salt.len()))
        .ok_or(ScramError::Malformed("salt"))?;
    let iterations =
        parse_iterations(attribute(attributes.next(), "i=")?).ok_or(ScramError::Iterations)?;
    Ok((nonce, salt, iterations))
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed("length"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("encoding"))
}

fn attribute<'a>(found: Option<&'a str>, name: &'static str) -> Result<&'a str, ScramError> {
    found.and_then(|text| text.strip_prefix(name)).ok_or(ScramError::Malformed(name))
}

fn xor(left: &Key, right: &Key) -> Key {
    std::array::from_fn(|i| left[i] ^ right[i])
}
