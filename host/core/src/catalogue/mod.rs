//! What a database's catalogue says about the names in a statement: may reading them have an effect, or differ by server?
//!
//! A snapshot, taken on the primary by a query of ours and replaced as a whole. It errs on the side of the primary: a name
//! without a schema means *every* object of that name, so no `search_path` has to be followed; a name that is not known
//! is not safe. What no statement's text names (operators, casts, input functions, functions called by `row.function`)
//! is judged for the database as a whole: if any of these that users have made may have an effect, no statement is safe.

mod build; // rows of the catalogue -> a snapshot

pub use build::{Builder, FunctionRow, RelationKind, RelationRow};

use rustc_hash::{FxHashMap, FxHashSet};

/// Why something is not safe to read on a replica. The names are metric labels and parts of explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsafe {
    /// A function that is declared volatile, or has a volatile default.
    VolatileFunction,
    /// A function or relation whose answer belongs to one server: `inet_server_addr`, `pg_stat_activity`, any system view.
    ServerSpecific,
    /// A view, policy or child table that uses one of these.
    Through,
    /// A sequence, foreign table, or unlogged or temporary table, which is not the same on a replica; a view or policy that locks
    /// rows, which works on none.
    NotReplicated,
    /// The catalogue has no such name (yet).
    UnknownName,
    /// Users have made operators, casts or types whose functions are volatile.
    HiddenFunctions,
}

impl Unsafe {
    pub fn label(self) -> &'static str {
        match self {
            Self::VolatileFunction => "volatile_function",
            Self::ServerSpecific => "server_specific",
            Self::Through => "through_view",
            Self::NotReplicated => "not_replicated",
            Self::UnknownName => "unknown_name",
            Self::HiddenFunctions => "hidden_functions",
        }
    }
}

/// One database's catalogue, as far as it decides about reads.
#[derive(Debug, Default)]
pub struct Catalogue {
    functions: Names,
    relations: Names,
    hidden: Option<Unsafe>,
}

/// A schema that has a name, and what stands against reading it.
type Place = (Box<str>, Option<Unsafe>);

/// For each name the schemas that have it.
#[derive(Debug, Default)]
struct Names(FxHashMap<Box<str>, Vec<Place>>);

impl Names {
    fn insert(&mut self, schema: &str, name: &str, fault: Option<Unsafe>) {
        let places = self.0.entry(name.into()).or_default();
        match places.iter_mut().find(|(place, _)| **place == *schema) {
            Some((_, known)) => *known = known.or(fault),
            None => places.push((schema.into(), fault)),
        }
    }

    fn judge(&self, schema: Option<&str>, name: &str) -> Result<(), Unsafe> {
        let places = self.0.get(name).ok_or(Unsafe::UnknownName)?;
        let mut known = Err(Unsafe::UnknownName);
        for (place, fault) in places {
            if schema.is_none_or(|schema| *schema == **place) {
                match fault {
                    Some(fault) => return Err(*fault),
                    None => known = Ok(()),
                }
            }
        }
        known
    }
}

impl Catalogue {
    /// May a function of this name be called on a replica? `name` as the catalogue spells it.
    pub fn function(&self, schema: Option<&str>, name: &str) -> Result<(), Unsafe> {
        self.functions.judge(schema, name)
    }

    /// May a relation of this name be read on a replica?
    pub fn relation(&self, schema: Option<&str>, name: &str) -> Result<(), Unsafe> {
        self.relations.judge(schema, name)
    }

    /// What stands against every statement, since no text shows it.
    pub fn hidden(&self) -> Result<(), Unsafe> {
        self.hidden.map_or(Ok(()), Err)
    }

    /// Names known: functions and relations.
    pub fn len(&self) -> usize {
        self.functions.0.len() + self.relations.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Does a built-in function that is declared stable or immutable tell of its server or session, or need the primary all the
/// same (`txid_current`, `table_to_xml` of a view that writes)? Most of PostgreSQL's functions about itself do, so those are known that do not.
fn is_server_specific(name: &str) -> bool {
    const ABOUT_ITSELF: [&str; 5] = ["pg_", "txid_", "inet_server_", "lo_", "binary_upgrade_"];
    const AND_YET_THE_SAME: [&str; 9] = [
        "pg_typeof",
        "pg_collation_for",
        "pg_size_pretty",
        "pg_size_bytes",
        "pg_column_size",
        "pg_has_role",
        "pg_get_userbyid",
        "pg_client_encoding",
        "pg_encoding_to_char",
    ];
    // `transaction_read_only` and `in_hot_standby` are settings, too; and what turns tables into XML reads any that is named.
    name == "current_setting"
        || name.contains("_to_xml")
        || ABOUT_ITSELF.iter().any(|prefix| name.starts_with(prefix))
            && !AND_YET_THE_SAME.contains(&name)
            && !name.starts_with("pg_lsn")
}

/// Set of object identifiers.
type Oids = FxHashSet<u32>;

#[cfg(test)]
mod tests;
