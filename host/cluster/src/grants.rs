//! What Tidegate's user must be allowed to do where it promotes, and the SQL that allows it.

use std::fmt::Write as _;

/// A right that a failover by Tidegate takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// To see whether replicas receive.
    Monitor,
    /// To end sessions on a primary that is replaced in an orderly way.
    Signal,
    Checkpoint,
    Promote,
    Reload,
    /// `ALTER SYSTEM`, to tell replicas who is primary …
    Conninfo,
    /// … and to keep the old primary from writing.
    ReadOnly,
    Standbys,
    /// To make slots.
    Replication,
}

/// The first version of PostgreSQL in which `ALTER SYSTEM` can be granted.
const VERSION_OF_PARAMETER_RIGHTS: u32 = 150_000;

impl Right {
    pub const ALL: [Self; 9] = [
        Self::Monitor,
        Self::Signal,
        Self::Checkpoint,
        Self::Promote,
        Self::Reload,
        Self::Conninfo,
        Self::ReadOnly,
        Self::Standbys,
        Self::Replication,
    ];

    /// A truth value of SQL about the user who asks.
    fn test(self) -> String {
        let member = |role: &str| format!("pg_catalog.pg_has_role('{role}', 'USAGE')");
        let execute =
            |name: &str| format!("pg_catalog.has_function_privilege('{name}', 'EXECUTE')");
        let alter =
            |name: &str| format!("pg_catalog.has_parameter_privilege('{name}', 'ALTER SYSTEM')");
        match self {
            Self::Monitor => member("pg_monitor"),
            Self::Signal => member("pg_signal_backend"),
            Self::Checkpoint => member("pg_checkpoint"),
            Self::Promote => execute("pg_catalog.pg_promote(boolean, integer)"),
            Self::Reload => execute("pg_catalog.pg_reload_conf()"),
            Self::Conninfo => alter("primary_conninfo"),
            Self::ReadOnly => alter("default_transaction_read_only"),
            Self::Standbys => alter("synchronous_standby_names"),
            Self::Replication => {
                "(SELECT rolreplication FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER)"
                    .to_owned()
            }
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Monitor => Kind::Role("pg_monitor"),
            Self::Signal => Kind::Role("pg_signal_backend"),
            Self::Checkpoint => Kind::Role("pg_checkpoint"),
            Self::Promote => Kind::Function("pg_promote(boolean, integer)"),
            Self::Reload => Kind::Function("pg_reload_conf()"),
            Self::Conninfo => Kind::Parameter("primary_conninfo"),
            Self::ReadOnly => Kind::Parameter("default_transaction_read_only"),
            Self::Standbys => Kind::Parameter("synchronous_standby_names"),
            Self::Replication => Kind::Attribute("REPLICATION"),
        }
    }
}

enum Kind {
    Role(&'static str),
    Function(&'static str),
    Parameter(&'static str),
    Attribute(&'static str),
}

/// The first question: one row of version, whether the user is a superuser, its name, and the database's.
pub const WHO_SQL: &str = "SELECT pg_catalog.current_setting('server_version_num'), r.rolsuper, r.rolname, \
    pg_catalog.current_database() FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER";

/// The second, from PostgreSQL 15 on: a row with an answer for each of [`Right::ALL`].
pub fn rights_sql() -> String {
    let tests: Vec<String> = Right::ALL.into_iter().map(Right::test).collect();
    format!("SELECT {}", tests.join(", "))
}

/// Who asks, as [`WHO_SQL`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    pub user: String,
    pub database: String,
    pub version: u32,
    pub is_superuser: bool,
}

impl Asking {
    pub fn read(row: &[Option<String>]) -> Option<Self> {
        let text = |column: usize| row.get(column)?.clone();
        Some(Self {
            version: text(0)?.parse().ok()?,
            is_superuser: text(1)? == "t",
            user: text(2)?,
            database: text(3)?,
        })
    }

    /// Can it be asked for its rights one by one?
    pub fn may_be_granted(&self) -> bool {
        self.version >= VERSION_OF_PARAMETER_RIGHTS
    }
}

/// Those of the rights that the answer to [`rights_sql`] denies.
pub fn missing(row: &[Option<String>]) -> Vec<Right> {
    let denied = |(_, answer): &(Right, &Option<String>)| answer.as_deref() != Some("t");
    Right::ALL.into_iter().zip(row).filter(denied).map(|(right, _)| right).collect()
}

/// The statements that give these rights, in one line; empty for none.
pub fn grants(user: &str, rights: &[Right]) -> String {
    let user = quoted(user);
    let (mut roles, mut functions, mut parameters, mut attributes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for right in rights {
        match right.kind() {
            Kind::Role(name) => roles.push(name),
            Kind::Function(name) => functions.push(name),
            Kind::Parameter(name) => parameters.push(name),
            Kind::Attribute(name) => attributes.push(name),
        }
    }
    let mut sql = String::new();
    let mut add = |begin: &str, names: &[&str]| {
        if !names.is_empty() {
            let space = if sql.is_empty() { "" } else { " " };
            // Writing to a string cannot fail.
            let _ = write!(sql, "{space}GRANT {begin}{} TO {user};", names.join(", "));
        }
    };
    add("", &roles);
    add("EXECUTE ON FUNCTION ", &functions);
    add("ALTER SYSTEM ON PARAMETER ", &parameters);
    for name in attributes {
        let space = if sql.is_empty() { "" } else { " " };
        let _ = write!(sql, "{space}ALTER ROLE {user} {name};");
    }
    sql
}

/// A name as SQL takes it.
pub fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    match begins && name.chars().all(plain) && name != "user" {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(answers: &str) -> Vec<Option<String>> {
        answers.chars().map(|answer| Some(answer.to_string())).collect()
    }

    #[test]
    fn what_is_missing_is_granted_in_few_statements() {
        assert_eq!(missing(&row("ttttttttt")), []);
        assert_eq!(grants("app", &[]), "");
        let lacks = missing(&row("tfftftftf"));
        assert_eq!(
            lacks,
            [Right::Signal, Right::Checkpoint, Right::Reload, Right::ReadOnly, Right::Replication]
        );
        assert_eq!(
            grants("app", &lacks),
            "GRANT pg_signal_backend, pg_checkpoint TO app; GRANT EXECUTE ON FUNCTION pg_reload_conf() TO app; \
             GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only TO app; ALTER ROLE app REPLICATION;"
        );
        assert_eq!(grants("a\"B", &[Right::Replication]), "ALTER ROLE \"a\"\"B\" REPLICATION;");
        assert_eq!(missing(&[None]), [Right::Monitor], "what is not known is not there");
    }

    #[test]
    fn each_right_is_asked_for_and_can_be_granted() {
        let sql = rights_sql();
        for right in Right::ALL {
            assert!(sql.contains(&right.test()));
            assert!(grants("u", &[right]).ends_with(';'));
        }
    }

    #[test]
    fn who_asks_is_read() {
        let row: Vec<Option<String>> =
            ["150018", "f", "app", "shop"].map(|word| Some(word.to_owned())).into();
        let asking = Asking::read(&row).unwrap();
        assert!(asking.may_be_granted() && !asking.is_superuser);
        assert_eq!((&*asking.user, &*asking.database), ("app", "shop"));
        assert_eq!(Asking::read(&row[..3]), None);
    }
}
