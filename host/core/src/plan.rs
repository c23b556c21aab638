//! Where a statement runs: the one joint decision of what it is, what its session is, and what a policy advises.
//!
//! Policies come with the next layer; until then [`Advice::BuiltIn`] is the only answer and every statement uses the
//! primary unless its session says `SET tidegate.route = 'replica'`.

/// Which kind of pool a lease comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The primary's pool for writes.
    Primary,
    /// A replica's pool for reads; the primary's read pool when there is no replica.
    Replica,
}

/// What a policy says about a statement, as plain data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Advice {
    #[default]
    BuiltIn,
}

/// What a session says about where its statements go (`SET tidegate.route`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutePreference {
    #[default]
    Primary,
    Replica,
}

impl RoutePreference {
    /// The name of the setting, which travels like any custom setting of PostgreSQL.
    pub const SETTING: &'static str = "tidegate.route";

    /// Words other than `replica` mean the primary: the safe side.
    pub fn from_setting(value: Option<&str>) -> Self {
        if value == Some("replica") { Self::Replica } else { Self::Primary }
    }
}

/// What the host's decision rests on besides the statement.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionFacts {
    pub route: RoutePreference,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub target: Target,
}

pub fn plan(facts: SessionFacts, advice: Advice) -> Plan {
    let Advice::BuiltIn = advice;
    let target = match facts.route {
        RoutePreference::Primary => Target::Primary,
        RoutePreference::Replica => Target::Replica,
    };
    Plan { target }
}
