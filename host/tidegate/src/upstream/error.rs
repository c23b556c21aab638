//! Why a server connection did not come about, and how a client is told.

use std::borrow::Cow;
use std::{fmt, io};
use tidegate_core::refusal::Refusal;
use tidegate_pool::OpenFailure;
use tidegate_wire::error_fields::{self, field};

/// Why a connection to a server did not come about.
#[derive(Debug)]
pub enum ConnectError {
    /// No address, or nobody listens.
    Unreachable(io::Error),
    /// It took longer than `CONNECT_TIME_MAX`.
    Timeout,
    /// The server has no TLS where it must, or the handshake failed.
    Tls(String),
    /// The server answered with an error of its own.
    Refused(Box<ServerError>),
    /// The server asks for what we do not give: a password in clear over an open line, or one that
    /// we do not have.
    Policy(String),
    /// The server does not keep to the protocol.
    Protocol(String),
}

/// An ErrorResponse of a server. Fields it did not send are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
    /// The function of the server's source that reported it.
    pub routine: String,
}

impl ServerError {
    /// Reads the body of an ErrorResponse. No field is required, whatever the documentation says.
    pub fn read(body: &[u8]) -> Self {
        let text = |letter| {
            error_fields::find(body, letter)
                .map(|value| String::from_utf8_lossy(value).into_owned())
                .unwrap_or_default()
        };
        let plain = text(field::SEVERITY_PLAIN);
        Self {
            severity: if plain.is_empty() { text(field::SEVERITY) } else { plain },
            sqlstate: text(field::SQLSTATE),
            message: text(field::MESSAGE),
            detail: text(field::DETAIL),
            hint: text(field::HINT),
            routine: text(field::ROUTINE),
        }
    }

    /// The server's own words, for a client that logs in.
    pub fn to_refusal(&self) -> Refusal {
        let message = if self.message.is_empty() {
            Cow::Borrowed("the server refused the connection without a message")
        } else {
            Cow::Owned(self.message.clone())
        };
        let mut refusal = Refusal::fatal(known_sqlstate(&self.sqlstate), message);
        if !self.detail.is_empty() {
            refusal = refusal.detail(self.detail.clone());
        }
        if !self.hint.is_empty() {
            refusal = refusal.hint(self.hint.clone());
        }
        refusal
    }
}

impl ConnectError {
    /// The name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls(_) => "tls",
            Self::Refused(_) => "refused",
            Self::Policy(_) => "policy",
            Self::Protocol(_) => "protocol",
        }
    }

    /// Whether another attempt can be expected to end differently.
    ///
    /// A server that starts up or shuts down (57P03) will be there again soon, so that passes.
    pub fn judge(&self) -> OpenFailure {
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::Tls(_) | Self::Protocol(_) => {
                OpenFailure::Passing
            }
            Self::Policy(_) => OpenFailure::Definitive,
            Self::Refused(error) => match error.sqlstate.as_str() {
                "57P01" | "57P02" | "57P03" => OpenFailure::Passing,
                "53300" => OpenFailure::Full,
                _ => OpenFailure::Definitive,
            },
        }
    }

    /// Whether the server has no slot left for anybody. A limit of the database or role that is
    /// reached has the same SQLSTATE, and other words in every language, but is found elsewhere.
    pub fn is_server_full(&self) -> bool {
        const LIMITS: [&str; 2] = ["CheckMyDatabase", "InitializeSessionUserId"];
        match self {
            Self::Refused(error) => {
                error.sqlstate == "53300" && !LIMITS.contains(&error.routine.as_str())
            }
            _ => false,
        }
    }

    /// How a client is told that the server named `target` could not be had for it.
    pub fn to_refusal(&self, target: &str) -> Refusal {
        let refusal = |sqlstate, detail: String| {
            Refusal::fatal(sqlstate, format!("cannot connect to the server \"{target}\""))
                .detail(detail)
        };
        match self {
            Self::Refused(error) => error.to_refusal(),
            Self::Unreachable(error) => refusal("08006", format!("{error}."))
                .hint("Check that the server runs and accepts connections there."),
            Self::Timeout => refusal("08006", "It did not answer in time.".to_owned())
                .hint("Check the network and the server's load."),
            Self::Tls(reason) => refusal("08006", format!("TLS failed: {reason}."))
                .hint("Check sslmode, sslrootcert and the server's certificate."),
            Self::Policy(reason) => refusal("28000", format!("{reason}."))
                .hint("Log in to Tidegate with a password that the server accepts."),
            Self::Protocol(reason) => refusal("08P01", format!("{reason}.")),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Timeout => f.write_str("did not answer in time"),
            Self::Tls(reason) => write!(f, "TLS failed: {reason}"),
            Self::Refused(error) => {
                write!(f, "{} {}: {}", error.severity, error.sqlstate, error.message)
            }
            Self::Policy(reason) | Self::Protocol(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
    }
}

/// A refusal's SQLSTATE lives as long as the program: those that a login can meet, or that the
/// connection failed.
fn known_sqlstate(sqlstate: &str) -> &'static str {
    const KNOWN: [&str; 27] = [
        "08000", "08003", "08004", "08006", "08P01", "0A000", "22021", "22023", "25006", "28000",
        "28P01", "3D000", "42501", "42601", "42602", "42704", "53000", "53100", "53200", "53300",
        "55000", "55006", "57P01", "57P02", "57P03", "57P04", "XX000",
    ];
    KNOWN.into_iter().find(|known| *known == sqlstate).unwrap_or("08006")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_20_an_error_without_sqlstate_is_still_an_error() {
        let error = ServerError::read(b"SFATAL\0Mgo away\0\0");
        assert_eq!((error.severity.as_str(), error.message.as_str()), ("FATAL", "go away"));
        assert_eq!(error.to_refusal().sqlstate, "08006");
        assert_eq!(ServerError::read(b""), ServerError::default());
        assert!(!ServerError::default().to_refusal().message.is_empty());
        assert_eq!(
            ServerError::read(b"Cxyz\0"),
            ServerError { sqlstate: "xyz".into(), ..Default::default() }
        );
    }

    #[test]
    fn the_servers_words_pass() {
        let refusal =
            ServerError::read(b"SFATAL\0VFATAL\0C3D000\0Mdatabase \"x\" does not exist\0Hh\0\0")
                .to_refusal();
        assert_eq!(
            (refusal.sqlstate, refusal.message.as_ref()),
            ("3D000", "database \"x\" does not exist")
        );
        assert_eq!((refusal.detail, refusal.hint.as_deref()), (None, Some("h")));
    }
}
