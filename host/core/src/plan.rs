//! Where a statement runs: the one joint decision of what it is, what its session is, and what is known of its names.

use crate::statement::StringSyntax;

/// Which kind of pool a lease comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// The primary's pool for writes.
    #[default]
    Primary,
    /// A replica's pool for reads, since the client said so: `SET tidegate.route = 'replica'`. The primary's read pool
    /// when there is no replica.
    Replica,
    /// What is proven to be nothing but a read: a replica, if one shows all that the session has written and seen.
    Read,
}

/// Says what a text is, from the caches of the worker and the newest view of the catalogue.
pub trait Router {
    /// Are there replicas, and is it wanted that they serve reads?
    fn splits(&self) -> bool;

    /// Is the text one statement that is proven to be nothing but a read, on any server?
    fn reads(&mut self, sql: &[u8], strings: StringSyntax) -> bool;
}

/// The router of a cluster without replicas.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrimaryOnly;

impl Router for PrimaryOnly {
    fn splits(&self) -> bool {
        false
    }

    fn reads(&mut self, _: &[u8], _: StringSyntax) -> bool {
        false
    }
}

/// What a session says about where its statements go (`SET tidegate.route`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutePreference {
    /// `auto`, or not set: reads may use replicas.
    #[default]
    Auto,
    Primary,
    Replica,
}

impl RoutePreference {
    /// The name of the setting, which travels like any custom setting of PostgreSQL.
    pub const SETTING: &'static str = "tidegate.route";
    /// What it may be.
    pub const WORDS: [&'static str; 3] = ["auto", "primary", "replica"];

    /// Other words mean the primary: the safe side.
    pub fn from_setting(value: Option<&str>) -> Self {
        match value {
            None | Some("" | "auto") => Self::Auto,
            Some("replica") => Self::Replica,
            Some(_) => Self::Primary,
        }
    }
}

/// What is to run next: everything up to the next moment in which the session may change its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Only statements that are proven to read, and the end of what they are in.
    Reads,
    /// Anything else, or what has not arrived as a whole.
    Anything,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub target: Target,
}

/// Decides from what the session asked for and what is to run.
pub fn plan(preference: RoutePreference, unit: Unit) -> Plan {
    let target = match (preference, unit) {
        (RoutePreference::Replica, _) => Target::Replica,
        (RoutePreference::Auto, Unit::Reads) => Target::Read,
        _ => Target::Primary,
    };
    Plan { target }
}
