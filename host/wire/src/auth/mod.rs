//! SCRAM-SHA-256 and md5 authentication, both sides, as pure functions and small state machines.

mod channel;
pub mod md5;
mod saslprep;
mod scram;
mod secret;
mod verifier;

pub use channel::{Channel, EndPoint, EndPointHash};
pub use saslprep::saslprep;
pub use scram::{ClientFinal, ClientFirst, ScramError, ScramSecret, ServerFinal, ServerFirst};
pub use secret::Secret;
pub use verifier::{BadVerifier, Keys, Verifier};

use crate::backend::tag;
use crate::frame::{self, Reader, Truncated, write_cstr};
use subtle::ConstantTimeEq;

/// The SASL mechanism that we offer and accept.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The same, bound to the TLS that it runs in: offered and accepted where there is TLS.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Whether two byte strings are equal, in a time that depends on their lengths alone.
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// What a server asks for with an Authentication message (`R`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Ok,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    /// The mechanisms it offers, as a list of zero-terminated names: see [`Request::offers`].
    Sasl {
        mechanisms: &'a [u8],
    },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// Kerberos, GSSAPI, SSPI, …: the code as sent.
    Other(i32),
}

impl Request<'_> {
    /// Whether a SASL request lists `mechanism`.
    pub fn offers(&self, mechanism: &str) -> bool {
        match self {
            Self::Sasl { mechanisms } => {
                mechanisms.split(|&byte| byte == 0).any(|name| name == mechanism.as_bytes())
            }
            _ => false,
        }
    }
}

/// Reads the body of an Authentication message.
pub fn read_request(body: &[u8]) -> Result<Request<'_>, Truncated> {
    let mut reader = Reader::new(body);
    Ok(match reader.i32()? {
        0 => Request::Ok,
        3 => Request::CleartextPassword,
        5 => {
            let salt = reader.bytes(4)?;
            Request::Md5Password { salt: [salt[0], salt[1], salt[2], salt[3]] }
        }
        10 => Request::Sasl { mechanisms: reader.rest() },
        11 => Request::SaslContinue(reader.rest()),
        12 => Request::SaslFinal(reader.rest()),
        code => Request::Other(code),
    })
}

/// Appends an Authentication message. `Other` is written with its code alone.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>) {
    frame::write(out, tag::AUTHENTICATION, |out| {
        let (code, rest): (i32, &[u8]) = match request {
            Request::Ok => (0, &[]),
            Request::CleartextPassword => (3, &[]),
            Request::Md5Password { salt } => (5, salt),
            Request::Sasl { mechanisms } => (10, mechanisms),
            Request::SaslContinue(data) => (11, data),
            Request::SaslFinal(data) => (12, data),
            Request::Other(code) => (*code, &[]),
        };
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(rest);
    });
}

/// Appends a PasswordMessage.
pub fn write_password(out: &mut Vec<u8>, password: &[u8]) {
    frame::write(out, crate::frontend::tag::PASSWORD, |out| write_cstr(out, password));
}

/// Appends a SASLInitialResponse.
pub fn write_sasl_initial(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    frame::write(out, crate::frontend::tag::PASSWORD, |out| {
        write_cstr(out, mechanism.as_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
    });
}

/// Appends a SASLResponse.
pub fn write_sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    frame::write(out, crate::frontend::tag::PASSWORD, |out| out.extend_from_slice(data));
}

/// The body of a SASLInitialResponse: the mechanism and the client's first message.
pub fn read_sasl_initial(body: &[u8]) -> Result<(&[u8], &[u8]), Truncated> {
    let mut reader = Reader::new(body);
    let mechanism = reader.cstr()?;
    let length = usize::try_from(reader.i32()?).map_err(|_| Truncated)?;
    let data = reader.bytes(length)?;
    if reader.is_empty() { Ok((mechanism, data)) } else { Err(Truncated) }
}

/// The body of a PasswordMessage.
pub fn read_password(body: &[u8]) -> Result<&[u8], Truncated> {
    let mut reader = Reader::new(body);
    let password = reader.cstr()?;
    if reader.is_empty() { Ok(password) } else { Err(Truncated) }
}

#[cfg(test)]
mod tests;
