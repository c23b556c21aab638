//! What a database's catalogue says of its relations and functions, as far as it matters to answers that are kept.
//!
//! Like core's catalogue it is a snapshot that errs on the safe side: a name without a schema means every object of that name.

use crate::judge::Deny;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use tidegate_core::catalogue::{FunctionRow, RelationKind};

/// Relations that one statement may reach.
const REACH_MAX: usize = 512;

/// What is special about a relation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// `relpersistence`: `p`, `u` or `t`.
    pub persistence: u8,
    /// It has row security.
    pub row_security: Flag,
    /// Writing it may write anything: triggers, rules, volatile functions of users' own in defaults, checks and policies.
    pub opaque: Flag,
    /// A view that says something else at another time, or by what no list of functions shows.
    pub unfit: Flag,
}

/// As the catalogue's queries say it.
pub type Flag = Option<()>;

/// A row about a relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationRow {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: RelationKind,
    /// What is special about it.
    pub traits: Traits,
    /// What a view, a policy or a parent reads.
    pub reads: Vec<u32>,
    /// Functions that a view or a policy calls, operators' among them.
    pub calls: Vec<u32>,
    /// Whose rows change when rows of this one do.
    pub followers: Vec<Follower>,
}

/// A table that references another by a foreign key with CASCADE, SET NULL or SET DEFAULT: one for each column that it references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Of the table whose rows follow.
    pub oid: u32,
    /// They do when a row of the other is deleted.
    pub on_delete: Flag,
    /// They do when this column of the other gets another value.
    pub on_update: Flag,
    /// Of the other. `None`: it is generated, so any column may change it.
    pub column: Option<Box<str>>,
}

/// What a statement does to the rows that there are of the one table that it writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// Anything.
    Any,
    /// Some may get other values in these columns; none is deleted.
    Columns(&'a [&'a str]),
}

impl Follower {
    fn follows(&self, change: Change<'_>) -> bool {
        match change {
            Change::Any => true,
            Change::Columns(changed) => {
                self.on_update.is_some()
                    && self.column.as_deref().is_none_or(|column| changed.contains(&column))
            }
        }
    }
}

/// How much a function of some name depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Volatility {
    Immutable,
    /// By settings, which are in the key, alone.
    BySettings,
    Stable,
    Volatile,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Named {
    /// The worst of PostgreSQL's own.
    built_in: Option<Volatility>,
    /// Of the users' own.
    own: Option<Volatility>,
}

/// One database's.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables {
    relations: FxHashMap<u32, Relation>,
    names: FxHashMap<Box<str>, Vec<(Box<str>, u32)>>,
    functions: FxHashMap<Box<str>, Named>,
    /// Functions that a text can call like a column: `row.name`.
    attributes: FxHashSet<Box<str>>,
    define: Flag,
}

#[derive(Debug, PartialEq, Eq)]
struct Relation {
    kind: RelationKind,
    fault: Option<Deny>,
    /// It calls what is volatile.
    calls: Flag,
    opaque: Flag,
    reads: Box<[u32]>,
    followers: Box<[Follower]>,
}

impl Relation {
    /// A table whose rows are its own: no view, parent, child or table with policies.
    fn is_plain_table(&self) -> bool {
        self.kind == RelationKind::Table && self.reads.is_empty()
    }
}

/// PostgreSQL's stable functions that depend on settings and nothing else; sorted.
const BY_SETTINGS: [&str; 35] = [
    "array_agg",
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "date_part",
    "date_trunc",
    "extract",
    "format",
    "generate_series",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "length",
    "make_timestamptz",
    "overlaps",
    "phraseto_tsquery",
    "plainto_tsquery",
    "row_to_json",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "ts_headline",
    "websearch_to_tsquery",
];

/// Types whose input reads words like `today`.
const DATE_TYPES: [&str; 11] = [
    "date",
    "datemultirange",
    "daterange",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsmultirange",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
];

/// What the names of functions behind operators on dates are made of: `timestamptz_mi_interval`, and casts between dates.
const DATE_PARTS: [&str; 14] = [
    "cmp",
    "date",
    "eq",
    "ge",
    "gt",
    "interval",
    "le",
    "lt",
    "mi",
    "ne",
    "pl",
    "time",
    "timestamp",
    "timestamptz",
];

fn is_by_settings(name: &str) -> bool {
    BY_SETTINGS.contains(&name) || name.split('_').all(|part| DATE_PARTS.contains(&part))
}

/// Is it the name of a type of dates, or of arrays of such?
pub(crate) fn is_date_type(name: &str) -> bool {
    let name = name.strip_prefix('_').unwrap_or(name);
    DATE_TYPES.contains(&name)
}

/// PostgreSQL's own functions that run a text, or read what a text names: in them anything may be called.
pub(crate) fn runs_texts(name: &str) -> bool {
    name.contains("_to_xml") || matches!(name, "ts_stat" | "ts_rewrite")
}

impl Tables {
    /// May an answer that calls a function of this name be kept?
    ///
    /// # Errors
    /// What stands against it.
    pub(crate) fn function(
        &self,
        schema: Option<&str>,
        name: &str,
        arguments: u16,
    ) -> Result<(), Deny> {
        let named = self.functions.get(name).copied().unwrap_or_default();
        let own_schema = schema.is_some_and(|schema| schema != "pg_catalog");
        if own_schema || schema.is_none() && named.own.is_some() {
            return Err(Deny::UserFunction);
        }
        if arguments == 1 && is_date_type(name) || runs_texts(name) {
            return Err(Deny::Stable);
        }
        match named.built_in {
            Some(Volatility::Immutable | Volatility::BySettings) => Ok(()),
            Some(Volatility::Stable) => Err(Deny::Stable),
            Some(Volatility::Volatile) => Err(Deny::Volatile),
            None => Err(Deny::Unknown),
        }
    }

    /// May a call of a function of this name write?
    pub(crate) fn may_write(&self, schema: Option<&str>, name: &str) -> bool {
        let named = self.functions.get(name).copied().unwrap_or_default();
        if schema.is_none_or(|schema| schema == "pg_catalog") && named.own.is_none() {
            // PostgreSQL's own volatile functions change no rows of tables.
            return named.built_in.is_none() || runs_texts(name);
        }
        named.own.is_none_or(|volatility| volatility == Volatility::Volatile)
    }

    /// Is it the name of a function that a text can call like a column?
    pub(crate) fn is_attribute(&self, name: &str) -> bool {
        self.attributes.contains(name)
    }

    fn named<'a>(&'a self, schema: Option<&'a str>, name: &str) -> impl Iterator<Item = u32> + 'a {
        let all = self.names.get(name).map_or(&[][..], Vec::as_slice);
        let fits = move |place: &&(Box<str>, u32)| schema.is_none_or(|schema| *schema == *place.0);
        all.iter().filter(fits).map(|(_, oid)| *oid)
    }

    /// The relation of this very name.
    pub(crate) fn oid(&self, schema: &str, name: &str) -> Option<u32> {
        self.named(Some(schema), name).next()
    }

    /// The tables that a read of this name reads.
    ///
    /// # Errors
    /// What stands against keeping it.
    pub(crate) fn read(
        &self,
        schema: Option<&str>,
        name: &str,
        found: &mut FxHashSet<u32>,
    ) -> Result<(), Deny> {
        let mut open: Vec<u32> = self.named(schema, name).collect();
        if open.is_empty() {
            return Err(Deny::Unknown);
        }
        let mut seen = FxHashSet::default();
        while let Some(oid) = open.pop() {
            if !seen.insert(oid) {
                continue;
            }
            let relation = self.relations.get(&oid).ok_or(Deny::Unknown)?;
            if let Some(fault) = relation.fault {
                return Err(fault);
            }
            found.insert(oid);
            // What a materialized view shows changes when it is refreshed.
            if relation.kind != RelationKind::MaterializedView {
                open.extend(&relation.reads);
            }
            if found.len() > REACH_MAX {
                return Err(Deny::TooMuch);
            }
        }
        Ok(())
    }

    /// The tables that a write of this name may change. `None`: anything.
    pub(crate) fn write(
        &self,
        schema: Option<&str>,
        name: &str,
        change: Change<'_>,
        found: &mut FxHashSet<u32>,
    ) -> Option<()> {
        // What happens to rows that follow is not looked at: it may be anything.
        let mut open: Vec<(u32, Change<'_>)> =
            self.named(schema, name).map(|oid| (oid, change)).collect();
        if open.is_empty() {
            return None;
        }
        while let Some((oid, change)) = open.pop() {
            if !found.insert(oid) {
                continue;
            }
            let relation = self.relations.get(&oid).filter(|relation| relation.opaque.is_none())?;
            let change = if relation.is_plain_table() { change } else { Change::Any };
            let following = relation.followers.iter().filter(|follower| follower.follows(change));
            let reached = relation.reads.iter().copied().chain(following.map(|one| one.oid));
            open.extend(reached.map(|oid| (oid, Change::Any)));
            if found.len() > REACH_MAX {
                return None;
            }
        }
        Some(())
    }

    /// May a read of this name write, by what its views and policies call?
    pub(crate) fn read_may_write(&self, schema: Option<&str>, name: &str) -> bool {
        let mut open: Vec<u32> = self.named(schema, name).collect();
        let mut seen = FxHashSet::default();
        let known = !open.is_empty();
        while let Some(oid) = open.pop() {
            if seen.insert(oid) {
                let relation = self.relations.get(&oid).filter(|relation| relation.calls.is_none());
                let Some(relation) = relation.filter(|_| seen.len() <= REACH_MAX) else {
                    return true;
                };
                open.extend(&relation.reads);
            }
        }
        !known
    }

    /// May functions of users' own change what names mean?
    pub(crate) fn define(&self) -> bool {
        self.define.is_some()
    }

    /// Relations whose schema and name are such, by their OIDs.
    pub fn relations_named(&self, wanted: impl Fn(&str, &str) -> bool) -> Vec<u32> {
        let all = self.names.iter().flat_map(|(name, places)| {
            places.iter().map(move |(schema, oid)| (&**schema, &**name, *oid))
        });
        all.filter(|(schema, name, _)| wanted(schema, name)).map(|(_, _, oid)| oid).collect()
    }

    /// Relations known.
    pub fn len(&self) -> usize {
        self.relations.len()
    }

    /// Is none known?
    pub fn is_empty(&self) -> bool {
        self.relations.is_empty()
    }
}

/// Takes rows in any order.
#[derive(Debug, Default)]
pub struct Builder {
    functions: Vec<FunctionRow>,
    relations: Vec<RelationRow>,
    stable: FxHashSet<u32>,
    harmless: FxHashSet<u32>,
    attributes: FxHashSet<Box<str>>,
    hidden: Vec<u32>,
    define: Flag,
}

impl Builder {
    /// A function, as core's catalogue has it.
    pub fn function(&mut self, row: FunctionRow) {
        self.functions.push(row);
    }

    /// A function that is stable.
    pub fn stable(&mut self, oid: u32) {
        self.stable.insert(oid);
    }

    /// A volatile function of an extension that is known to write nothing.
    pub fn harmless(&mut self, oid: u32) {
        self.harmless.insert(oid);
    }

    /// The name of a function that can be called like a column.
    pub fn attribute(&mut self, name: &str) {
        self.attributes.insert(name.into());
    }

    /// There are functions whose texts have words of DDL, or run what is put together.
    pub fn define(&mut self) {
        self.define = Some(());
    }

    /// A function that no text names.
    pub fn hidden(&mut self, oid: u32) {
        self.hidden.push(oid);
    }

    /// A relation.
    pub fn relation(&mut self, row: RelationRow) {
        self.relations.push(row);
    }

    /// The snapshot. `None` where functions that no text names may do anything: then nothing is kept, and all writes may be.
    pub fn build(self) -> Option<Arc<Tables>> {
        let mut tables =
            Tables { attributes: self.attributes, define: self.define, ..Tables::default() };
        let mut volatilities: FxHashMap<u32, (Volatility, bool)> = FxHashMap::default();
        for row in &self.functions {
            let built_in = row.schema == "pg_catalog";
            let volatile = row.volatile || !row.calls.is_empty();
            let volatility = match (volatile, self.stable.contains(&row.oid)) {
                // It calls nothing of ours, and tells something new each time.
                (true, _) if self.harmless.contains(&row.oid) => Volatility::Stable,
                (true, _) => Volatility::Volatile,
                (_, true) if built_in && is_by_settings(&row.name) => Volatility::BySettings,
                (_, true) => Volatility::Stable,
                _ => Volatility::Immutable,
            };
            volatilities.insert(row.oid, (volatility, built_in));
            let named = tables.functions.entry(row.name.as_str().into()).or_default();
            let place = if built_in { &mut named.built_in } else { &mut named.own };
            *place = (*place).max(Some(volatility));
        }
        let is_volatile = |oid: &u32| {
            volatilities.get(oid).is_none_or(|(volatility, _)| *volatility == Volatility::Volatile)
        };
        if self.hidden.iter().any(is_volatile) {
            return None;
        }
        for row in self.relations {
            let fault = fault(&row, &volatilities);
            tables
                .names
                .entry(row.name.as_str().into())
                .or_default()
                .push((row.schema.as_str().into(), row.oid));
            let relation = Relation {
                kind: row.kind,
                fault,
                calls: row.calls.iter().any(is_volatile).then_some(()),
                opaque: row.traits.opaque,
                reads: row.reads.into(),
                followers: row.followers.into(),
            };
            tables.relations.insert(row.oid, relation);
        }
        Some(Arc::new(tables))
    }
}

/// What stands against answers from a relation itself; what it reads is looked at in its turn.
fn fault(row: &RelationRow, functions: &FxHashMap<u32, (Volatility, bool)>) -> Option<Deny> {
    if row.schema == "pg_catalog" || row.schema == "information_schema" {
        return Some(Deny::NotATable);
    }
    if matches!(row.kind, RelationKind::Sequence | RelationKind::Foreign | RelationKind::Other) {
        return Some(Deny::NotATable);
    }
    match row.traits.persistence {
        b'p' => {}
        b'u' => return Some(Deny::Unlogged),
        _ => return Some(Deny::Temporary),
    }
    if row.traits.row_security.is_some() {
        return Some(Deny::RowSecurity);
    }
    if row.traits.unfit.is_some() {
        return Some(Deny::View);
    }
    let call = |oid: &u32| match functions.get(oid) {
        Some((Volatility::Immutable | Volatility::BySettings, true)) => None,
        Some((Volatility::Volatile, _)) => Some(Deny::Volatile),
        Some((_, false)) => Some(Deny::UserFunction),
        Some((Volatility::Stable, true)) => Some(Deny::Stable),
        None => Some(Deny::Unknown),
    };
    if row.kind == RelationKind::MaterializedView { None } else { row.calls.iter().find_map(call) }
}
