//! What the operator allows, what is known of a user, and the reasons a login ends.

use crate::refusal::Refusal;
use tidegate_wire::auth::{Keys, Secret, Verifier};
use tidegate_wire::startup::StartupError;

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As the server would have it: by SCRAM or md5, whichever the user's stored password is.
    Passthrough,
    Scram,
    /// By md5, or by SCRAM for users whose stored password allows only that (as PostgreSQL's `md5`
    /// method does).
    Md5,
    /// The password in clear: only over TLS, the loopback or a Unix socket.
    Password,
    /// A client certificate whose common name is the user's.
    Certificate,
    /// No proof at all: see [`TrustScope`].
    Trust,
    /// The system's word for who is at the other end of a Unix socket.
    Peer(PeerName),
}

/// Whether the system names the user that the client wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerName {
    Same,
    Another,
}

/// Whether clients may, or must, encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// There is no certificate to offer it with.
    Unavailable,
    Optional,
    /// Except for Unix sockets, which never leave the machine.
    Required,
}

/// Whom [`Method::Trust`] trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustScope {
    /// Peers on this machine.
    Local,
    /// Everybody: the operator has insisted.
    Everywhere,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    Unix,
    Loopback,
    Remote,
}

/// The operator's rules for logging in.
#[derive(Clone, Copy, Debug)]
pub struct LoginPolicy {
    pub method: Method,
    pub tls: TlsPolicy,
    pub trust: TrustScope,
}

/// Whether the process takes one more client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Granted,
    /// As many are connected as may be.
    TooManyClients,
    ShuttingDown,
}

impl Admission {
    pub(super) fn refusal(self) -> Option<(CloseReason, Refusal)> {
        match self {
            Self::Granted => None,
            Self::TooManyClients => Some((
                CloseReason::TooManyClients,
                Refusal::fatal("53300", "sorry, too many clients already")
                    .hint("Raise limits.clients_max, or close connections that are not used."),
            )),
            Self::ShuttingDown => Some((
                CloseReason::ShuttingDown,
                Refusal::fatal("57P03", "the database system is shutting down"),
            )),
        }
    }
}

/// What is known of a user.
#[derive(Clone, Debug)]
pub enum User {
    Known {
        stored: Stored,
        standing: Standing,
    },
    /// There is no such user, or it has no password. The client cannot tell this from a wrong
    /// password.
    Unknown,
    /// We cannot read passwords; the server decides about one in clear.
    OnlyServerKnows,
    /// The server lets this user in from this machine without a password.
    LetIn,
    /// Nothing could be found out, or the server said no.
    Refused(CloseReason, Refusal),
}

/// A stored password.
#[derive(Clone, Debug)]
pub enum Stored {
    Scram(Verifier),
    /// `md5` and 32 digits.
    Md5(Secret),
    /// The password itself and a verifier made of it.
    Plain(Secret, Verifier),
}

/// Whether a user whose password is right may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Valid,
    /// `VALID UNTIL` has passed: the password counts as wrong.
    Expired,
    /// `NOLOGIN`.
    NotPermitted,
}

/// What a password in clear is checked against.
#[derive(Clone, Debug)]
pub enum PasswordCheck {
    Stored(Stored),
    /// By logging in to the server with it.
    Server,
}

/// What came of checking a password in clear.
#[derive(Clone, Debug)]
pub enum PasswordOutcome {
    Right,
    Wrong,
    /// The server was asked and refused with an error of its own, or could not be asked.
    Refused(CloseReason, Refusal),
}

/// What the client has shown, for logging in to the server as the same user.
#[derive(Clone, Debug)]
pub enum Proven {
    /// Nothing that could be passed on.
    Nothing,
    Password(Secret),
    Md5Hash(Secret),
    Keys(Keys),
}

/// Why a login ended without success. The client is not always told as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client went away.
    Disconnected,
    /// Reading or writing failed.
    Io,
    TimedOut,
    StartupMalformed(StartupError),
    BytesBeforeTls,
    NegotiationRepeated,
    ProtocolUnsupported,
    TooManyClients,
    ShuttingDown,
    TlsRequired,
    TlsFailed,
    AlpnMissing,
    UserMissing,
    ParameterInvalid,
    MessageUnexpected,
    MessageLength,
    SaslMalformed,
    PasswordWrong,
    PasswordEmpty,
    PasswordExpired,
    UserUnknown,
    LoginNotPermitted,
    CertificateMissing,
    CertificateOfAnother,
    CleartextForbidden,
    TrustForbidden,
    PeerOfAnother,
    /// A rule refuses it.
    HbaRejected,
    /// No rule fits it.
    HbaNoEntry,
    /// A rule about roles could not be judged.
    HbaRolesUnknown,
    /// The server could not be asked about the user.
    ServerUnreachable,
    /// The server was asked and said no.
    ServerRefused,
}

impl CloseReason {
    /// The name for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Io => "io",
            Self::TimedOut => "timed_out",
            Self::StartupMalformed(_) => "startup_malformed",
            Self::BytesBeforeTls => "bytes_before_tls",
            Self::NegotiationRepeated => "negotiation_repeated",
            Self::ProtocolUnsupported => "protocol_unsupported",
            Self::TooManyClients => "too_many_clients",
            Self::ShuttingDown => "shutting_down",
            Self::TlsRequired => "tls_required",
            Self::TlsFailed => "tls_failed",
            Self::AlpnMissing => "alpn_missing",
            Self::UserMissing => "user_missing",
            Self::ParameterInvalid => "parameter_invalid",
            Self::MessageUnexpected => "message_unexpected",
            Self::MessageLength => "message_length",
            Self::SaslMalformed => "sasl_malformed",
            Self::PasswordWrong => "password_wrong",
            Self::PasswordEmpty => "password_empty",
            Self::PasswordExpired => "password_expired",
            Self::UserUnknown => "user_unknown",
            Self::LoginNotPermitted => "login_not_permitted",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateOfAnother => "certificate_of_another",
            Self::CleartextForbidden => "cleartext_forbidden",
            Self::TrustForbidden => "trust_forbidden",
            Self::PeerOfAnother => "peer_of_another",
            Self::HbaRejected => "hba_rejected",
            Self::HbaNoEntry => "hba_no_entry",
            Self::HbaRolesUnknown => "hba_roles_unknown",
            Self::ServerUnreachable => "server_unreachable",
            Self::ServerRefused => "server_refused",
        }
    }

    /// Whether the client showed something that is not what it should be: a guess, perhaps.
    pub(super) fn is_wrong_proof(self) -> bool {
        matches!(
            self,
            Self::PasswordWrong | Self::PasswordEmpty | Self::PasswordExpired | Self::UserUnknown
        )
    }

    /// Whether the failure could come from old knowledge of the user.
    pub(super) fn may_be_outdated(self) -> bool {
        matches!(
            self,
            Self::PasswordWrong
                | Self::PasswordExpired
                | Self::UserUnknown
                | Self::LoginNotPermitted
                | Self::ServerRefused
        )
    }
}
