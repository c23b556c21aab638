//! Where a statement runs: the one joint decision of what it is, what its session is, and what a policy advises.
//!
//! Policies come with the next layer; until then [`Advice::BuiltIn`] is the only answer and every statement uses the
//! primary unless its session says `SET tidegate.route = 'replica'`.

use crate::refusal::Refusal;

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

    /// The preference that a word names, in any case, as PostgreSQL reads its enum settings.
    pub fn from_word(word: &str) -> Option<Self> {
        let named = |name| word.eq_ignore_ascii_case(name);
        if named("primary") {
            Some(Self::Primary)
        } else if named("replica") {
            Some(Self::Replica)
        } else {
            None
        }
    }

    /// What is not set means the primary, and so does a wrong word that no text showed: the safe side.
    pub fn from_setting(value: Option<&str>) -> Self {
        value.and_then(Self::from_word).unwrap_or_default()
    }
}

/// Why a setting of Tidegate's own cannot have this value: in the words of PostgreSQL's enum settings.
pub fn refuse_setting(name: &str, value: &str) -> Option<Refusal> {
    let known = !name.eq_ignore_ascii_case(RoutePreference::SETTING)
        || RoutePreference::from_word(value).is_some();
    let name = RoutePreference::SETTING;
    (!known).then(|| {
        Refusal::error("22023", format!("invalid value for parameter \"{name}\": \"{value}\""))
            .hint("Available values: primary, replica.")
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_like_those_of_an_enum_setting() {
        for (word, expected) in [
            ("replica", Some(RoutePreference::Replica)),
            ("Primary", Some(RoutePreference::Primary)),
            ("", None),
            ("replicas", None),
        ] {
            assert_eq!(RoutePreference::from_word(word), expected, "{word}");
            let refusal = refuse_setting("Tidegate.Route", word);
            assert_eq!(refusal.is_some(), expected.is_none(), "{word}");
            assert!(refusal.is_none_or(|refusal| refusal.sqlstate == "22023"));
        }
        assert_eq!(RoutePreference::from_setting(Some("x")), RoutePreference::Primary);
        assert_eq!(refuse_setting("work_mem", "x"), None);
    }
}
