//! What a statement may change: always at least what it does.

use crate::store::Tag;
use crate::tables::{Change, Tables};
use rustc_hash::FxHashSet;
use std::sync::Arc;
use tidegate_core::statement::{
    Access, Analysis, Comparison, Effects, FunctionForm, FunctionUse, Kind, Shape, ShapeKind,
    TableUse,
};

/// What a statement may change, should its transaction be committed. Each is less than those behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Written {
    /// Nothing that anybody keeps.
    #[default]
    Nothing,
    /// Nothing, nor does it commit anything; but a transaction may begin or end with it.
    Turns,
    /// Nothing itself, but it may commit the transaction.
    Ends,
    /// These tables.
    Tags(Arc<[Tag]>),
    /// Any rows of its database.
    Rows,
    /// That, and what names mean there.
    Database,
    /// Anything: roles and their rights too.
    Cluster,
}

impl Written {
    /// The same, when what names mean may have changed since.
    #[must_use]
    pub fn at_least_rows(self) -> Self {
        if let Self::Tags(_) = self { Self::Rows } else { self }
    }
}

/// Effects with which several statements in one text may change more than rows.
const MORE_THAN_ROWS: Effects = Effects::DDL
    .with(Effects::UNKNOWN_SETTINGS)
    .with(Effects::EXECUTES)
    .with(Effects::TWO_PHASE)
    .with(Effects::LOADS)
    .with(Effects::SESSION_BOUND)
    .with(Effects::TEMP_OBJECTS);

/// What a text may change. `tables` is what is known of its database, and whether that is as new as it must be; without it,
/// what writes may write any rows.
pub fn written(
    shape: &Shape,
    analysis: &Analysis,
    database: &Arc<str>,
    tables: Option<&Tables>,
) -> Written {
    if analysis.statements > 1 {
        let more = analysis.effects.intersects(MORE_THAN_ROWS) || analysis.kind == Kind::Other;
        return if more { Written::Cluster } else { Written::Rows };
    }
    match analysis.kind {
        // What was prepared for two phases may be anything.
        Kind::FinishPrepared | Kind::Do | Kind::Load | Kind::Replication => {
            return Written::Cluster;
        }
        Kind::Execute | Kind::Call => return by_call(tables),
        Kind::Commit | Kind::PrepareTransaction => return Written::Ends,
        // These commit nothing, wherever they stand.
        Kind::Begin | Kind::Rollback | Kind::Savepoint | Kind::Release | Kind::RollbackTo => {
            return Written::Turns;
        }
        // What a cursor reads was looked at when it was declared.
        Kind::Fetch | Kind::Notify | Kind::Lock => return Written::Nothing,
        kind if kind.is_about_session() => return Written::Nothing,
        _ => {}
    }
    // What was prepared may be anything, below EXPLAIN and CREATE TABLE AS, too.
    if analysis.effects.contains(Effects::EXECUTES) {
        return if makes(shape, analysis, tables) { Written::Cluster } else { by_call(tables) };
    }
    match shape.kind {
        _ if shape.incomplete.is_some() => unread(analysis, tables),
        ShapeKind::Empty => Written::Nothing,
        ShapeKind::Select
        | ShapeKind::Insert
        | ShapeKind::Update
        | ShapeKind::Delete
        | ShapeKind::Merge
        | ShapeKind::Copy => rows(shape, database, tables),
        ShapeKind::Session if analysis.kind == Kind::Declare => rows(shape, database, tables),
        ShapeKind::Utility if makes(shape, analysis, tables) => Written::Cluster,
        ShapeKind::Utility if analysis.kind == Kind::Explain => rows(shape, database, tables),
        // VACUUM and its kin show nobody other rows; REFRESH is DDL.
        ShapeKind::Utility if analysis.kind == Kind::Maintenance => Written::Nothing,
        _ => Written::Cluster,
    }
}

/// Does it change what names mean? EXPLAIN may run what makes a table: it writes, and to no table that it names, or to one that
/// is not there.
fn makes(shape: &Shape, analysis: &Analysis, tables: Option<&Tables>) -> bool {
    let is_there = |table: &TableUse| {
        let (schema, mut found) = (table.schema.as_deref(), FxHashSet::default());
        tables.is_some_and(|tables| {
            tables.write(schema, &table.name, Change::Any, &mut found).is_some()
        })
    };
    let mut written = shape.tables.iter().filter(|table| table.access != Access::Reads).peekable();
    let names_none = written.peek().is_none() && !analysis.effects.contains(Effects::EXECUTES);
    let explains = analysis.kind == Kind::Explain && shape.access != Access::Reads;
    shape.kind == ShapeKind::Ddl
        || analysis.effects.contains(Effects::DDL)
        || explains && (names_none || !written.all(is_there))
}

/// Texts that were not understood as a whole: those that may be DDL reach beyond rows.
fn unread(analysis: &Analysis, tables: Option<&Tables>) -> Written {
    let is_about_rows = analysis.is_one_preparable() || analysis.kind == Kind::Copy;
    if is_about_rows { by_call(tables) } else { Written::Cluster }
}

/// What a function of the users' own may change.
fn by_call(tables: Option<&Tables>) -> Written {
    match tables {
        Some(tables) if tables.define() => Written::Database,
        _ => Written::Rows,
    }
}

/// The rows that a query changes, itself and by what it calls.
fn rows(shape: &Shape, database: &Arc<str>, tables: Option<&Tables>) -> Written {
    let Some(tables) = tables else {
        // It may read a view that calls what writes.
        let reads_nothing =
            shape.access == Access::Reads && shape.tables.is_empty() && shape.functions.is_empty();
        return if reads_nothing { Written::Nothing } else { Written::Rows };
    };
    // Functions of operators and casts stand against the snapshot as a whole if they are volatile.
    let called = |used: &FunctionUse| {
        used.form == FunctionForm::Call && tables.may_write(used.schema.as_deref(), &used.name)
    };
    let read = |table: &TableUse| tables.read_may_write(table.schema.as_deref(), &table.name);
    if shape.functions.iter().any(called) || shape.tables.iter().any(read) {
        return by_call(Some(tables));
    }
    if shape.access == Access::Reads {
        return Written::Nothing;
    }
    let mut found = FxHashSet::default();
    let changed = changed_columns(shape);
    let change = changed.as_deref().map_or(Change::Any, Change::Columns);
    for table in shape.tables.iter().filter(|table| table.access != Access::Reads) {
        if tables.write(table.schema.as_deref(), &table.name, change, &mut found).is_none() {
            return by_call(Some(tables));
        }
    }
    // It writes, and names nothing that it does.
    if found.is_empty() {
        return by_call(Some(tables));
    }
    Written::Tags(found.into_iter().map(|oid| Tag::Relation(database.clone(), oid)).collect())
}

/// The columns of the one table that a statement writes in which rows that are there may get other values, where it deletes none:
/// what it names as assigned, at least. `None`: it may do more.
fn changed_columns(shape: &Shape) -> Option<Vec<&str>> {
    // Of one that writes a second table, in a WITH, either may be what is deleted.
    let written = shape.tables.iter().filter(|table| table.access != Access::Reads).count();
    if !matches!(shape.kind, ShapeKind::Insert | ShapeKind::Update) || written != 1 {
        return None;
    }
    let all = shape.tables.iter().flat_map(|table| &table.columns).chain(&shape.columns);
    let assigned = all.filter(|used| used.comparison == Comparison::Assigned);
    Some(assigned.map(|used| &*used.column).collect())
}
