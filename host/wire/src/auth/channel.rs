//! What a SCRAM exchange is bound to: the certificate of the TLS around it, so that nobody can stand
//! between.
//!
//! Source: RFC 5929 (`tls-server-end-point`), and PostgreSQL's `be_tls_get_certificate_hash`.

use super::ScramError;
use super::verifier::encode;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// The channel binding type that we know, as a header names it.
const BOUND: &str = "p=tls-server-end-point,,";

/// The hash of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndPoint(Vec<u8>);

/// With what a certificate is hashed: what it is signed with, and SHA-256 in place of MD5 and SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndPointHash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl EndPoint {
    /// `certificate` is in DER.
    pub fn new(certificate: &[u8], hash: EndPointHash) -> Self {
        Self(match hash {
            EndPointHash::Sha224 => Sha224::digest(certificate).to_vec(),
            EndPointHash::Sha256 => Sha256::digest(certificate).to_vec(),
            EndPointHash::Sha384 => Sha384::digest(certificate).to_vec(),
            EndPointHash::Sha512 => Sha512::digest(certificate).to_vec(),
        })
    }
}

/// What one exchange is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// There is nothing to bind to, or we do not want to.
    None,
    /// There is, and the other side does not make use of it.
    Unused,
    Bound(EndPoint),
}

/// What a client's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// `n`: it cannot bind.
    Unable,
    /// `y`: it can, and thinks that the server cannot.
    NotOffered,
    /// `p=`: it binds.
    Bound(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    EndPoint,
    Other,
}

impl Flag {
    pub(super) fn read(flag: &str) -> Option<Self> {
        match flag {
            "n" => Some(Self::Unable),
            "y" => Some(Self::NotOffered),
            "p=tls-server-end-point" => Some(Self::Bound(Kind::EndPoint)),
            _ => flag.starts_with("p=").then_some(Self::Bound(Kind::Other)),
        }
    }
}

impl Channel {
    /// As the server: whether the client's header fits the mechanism that it chose.
    pub(super) fn check(&self, flag: Flag) -> Result<(), ScramError> {
        match (self, flag) {
            (Self::None | Self::Unused, Flag::Unable) | (Self::None, Flag::NotOffered) => Ok(()),
            // It was offered, so that somebody must have taken it out of the offer.
            (Self::Unused, Flag::NotOffered) => Err(ScramError::Downgrade),
            (Self::Bound(_), Flag::Bound(Kind::EndPoint)) => Ok(()),
            (Self::Bound(_), Flag::Bound(Kind::Other)) => {
                Err(ScramError::Unsupported("channel binding type"))
            }
            (Self::Bound(_), Flag::Unable | Flag::NotOffered)
            | (Self::None | Self::Unused, Flag::Bound(_)) => Err(ScramError::ChannelBinding),
        }
    }

    /// As the client: what the first message begins with.
    pub(super) fn header(&self) -> &'static str {
        match self {
            Self::None => "n,,",
            Self::Unused => "y,,",
            Self::Bound(_) => BOUND,
        }
    }

    /// The value of `c=` in the final message.
    pub(super) fn bind(&self, header: &str) -> String {
        match self {
            Self::None | Self::Unused => encode(header.as_bytes()),
            Self::Bound(end_point) => encode(&[header.as_bytes(), &end_point.0].concat()),
        }
    }
}
