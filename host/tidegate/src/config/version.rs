//! Versions of PostgreSQL's protocol.

/// Which version of the protocol a server is asked for. It may answer with an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolVersion {
    /// What every server and everything before one speaks.
    #[default]
    V3_0,
    /// PostgreSQL 18's: keys that cancel statements are too long to be guessed.
    V3_2,
}

impl ProtocolVersion {
    pub const ALL: &'static [Self] = &[Self::V3_0, Self::V3_2];

    /// As libpq's `max_protocol_version` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3_0 => "3.0",
            Self::V3_2 => "3.2",
        }
    }

    /// The minor version of protocol 3.
    pub fn minor(self) -> u16 {
        match self {
            Self::V3_0 => 0,
            Self::V3_2 => 2,
        }
    }
}
