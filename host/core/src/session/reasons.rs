//! Why a session ended.

/// Why a session ended. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client said Terminate.
    ClientTerminated,
    /// The client's connection broke or ended without Terminate.
    ClientDisconnected,
    /// The client broke the protocol.
    ClientProtocol,
    /// The server ended the session with a FATAL error.
    ServerFatal,
    /// The server's connection broke.
    ServerDisconnected,
    /// The server's replies did not fit what was asked.
    ServerProtocol,
    /// A server could not be had, and the answer was FATAL.
    Refused,
    /// Tidegate shuts down.
    ShuttingDown,
}

impl CloseReason {
    pub fn label(self) -> &'static str {
        match self {
            Self::ClientTerminated => "client_terminated",
            Self::ClientDisconnected => "client_disconnected",
            Self::ClientProtocol => "client_protocol",
            Self::ServerFatal => "server_fatal",
            Self::ServerDisconnected => "server_disconnected",
            Self::ServerProtocol => "server_protocol",
            Self::Refused => "refused",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
