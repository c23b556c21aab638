//! What a StartupMessage asks for, checked.

use super::CloseReason;
use crate::limits::IDENTIFIER_BYTES_MAX;
use crate::refusal::Refusal;
use tidegate_wire::startup::{self, OptionsError, Startup};

/// A checked StartupMessage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// At most 63 bytes, as the server would cut it.
    pub user: String,
    /// The user's name when the client gave none.
    pub database: String,
    /// Settings in the order the server applies them: those from `options`, then the packet's own.
    /// A name may come twice; the last one counts.
    pub parameters: Vec<(String, String)>,
    pub replication: Replication,
    /// The minor version of protocol 3 that both sides speak from here on.
    pub minor: u16,
}

/// What a client wants to be connected to: what a server's rules on who may connect look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Means nothing to a server where `replication` is physical.
    pub database: String,
    pub replication: Replication,
}

impl Destination {
    /// A database, for statements.
    pub fn database(name: impl Into<String>) -> Self {
        Self { database: name.into(), replication: Replication::None }
    }
}

/// Whether the client wants to be a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replication {
    None,
    Physical,
    /// Logical replication, connected to a database.
    Logical,
}

impl Replication {
    /// The value of the start-up parameter `replication` that asks for it.
    pub fn parameter(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Physical => Some("true"),
            Self::Logical => Some("database"),
        }
    }
}

impl LoginRequest {
    pub fn destination(&self) -> Destination {
        Destination { database: self.database.clone(), replication: self.replication }
    }

    pub(super) fn read(packet: &Startup) -> Result<Self, (CloseReason, Refusal)> {
        if packet.major != 3 {
            let message = format!(
                "unsupported frontend protocol {}.{}: server supports 3.0 to 3.{}",
                packet.major,
                packet.minor,
                startup::MINOR_MAX
            );
            return Err((CloseReason::ProtocolUnsupported, Refusal::fatal("0A000", message)));
        }
        let user = packet.parameter("user").unwrap_or_default();
        if user.is_empty() {
            let message = "no PostgreSQL user name specified in startup packet";
            return Err((CloseReason::UserMissing, Refusal::fatal("28000", message)));
        }
        let database = packet.parameter("database").filter(|name| !name.is_empty()).unwrap_or(user);
        let replication =
            packet.parameter("replication").map_or(Ok(Replication::None), replication)?;
        let options = packet.parameter("options").unwrap_or_default();
        let mut parameters = startup::parse_options(options).map_err(refuse_options)?;
        parameters.extend(packet.parameters.iter().filter(|(name, _)| is_setting(name)).cloned());
        Ok(Self {
            user: cut(user).to_owned(),
            database: cut(database).to_owned(),
            parameters,
            replication,
            minor: packet.minor_agreed(),
        })
    }
}

fn is_setting(name: &str) -> bool {
    !matches!(name, "user" | "database" | "options" | "replication")
}

/// Cuts a name to what PostgreSQL keeps of it, at a character's edge.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(IDENTIFIER_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// Follows `ProcessStartupPacket`: `database`, or anything `parse_bool` takes.
fn replication(value: &str) -> Result<Replication, (CloseReason, Refusal)> {
    if value == "database" {
        return Ok(Replication::Logical);
    }
    match parse_bool(value) {
        Some(true) => Ok(Replication::Physical),
        Some(false) => Ok(Replication::None),
        None => {
            let refusal = Refusal::fatal(
                "22023",
                format!("invalid value for parameter \"replication\": \"{value}\""),
            )
            .hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".");
            Err((CloseReason::ParameterInvalid, refusal))
        }
    }
}

/// PostgreSQL's `parse_bool`: any unambiguous beginning of true, false, yes, no, on, off, or 1 and
/// 0.
fn parse_bool(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str| !value.is_empty() && word.starts_with(&value);
    match value.as_str() {
        "1" | "on" => Some(true),
        "0" => Some(false),
        _ if begins("true") || begins("yes") => Some(true),
        _ if begins("false") || begins("no") || (value.len() >= 2 && begins("off")) => Some(false),
        _ => None,
    }
}

fn refuse_options(error: OptionsError) -> (CloseReason, Refusal) {
    let refusal = match error {
        OptionsError::ValueMissing(switch) => {
            Refusal::fatal("42601", format!("{switch} requires a value"))
        }
        OptionsError::UnknownSwitch(switch) => Refusal::fatal(
            "42601",
            format!("invalid command-line argument for server process: {switch}"),
        )
        .hint("Settings are given as \"-c name=value\" or \"--name=value\"."),
    };
    (CloseReason::ParameterInvalid, refusal)
}
