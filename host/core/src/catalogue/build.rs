//! Rows of PostgreSQL's catalogue → a snapshot: what views, policies and children use is followed to its end.

use super::{Catalogue, Oids, Unsafe, is_server_specific};
use rustc_hash::FxHashMap;

/// What a relation is (`pg_class.relkind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    View,
    MaterializedView,
    Sequence,
    Foreign,
    Other,
}

impl RelationKind {
    /// From `pg_class.relkind`.
    pub fn from_relkind(relkind: &str) -> Self {
        match relkind {
            "r" | "p" => Self::Table,
            "v" => Self::View,
            "m" => Self::MaterializedView,
            "S" => Self::Sequence,
            "f" => Self::Foreign,
            _ => Self::Other,
        }
    }
}

/// One row of `pg_proc`.
#[derive(Clone, Debug)]
pub struct FunctionRow {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `provolatile = 'v'`; of an aggregate: of any function it is made of.
    pub volatile: bool,
    /// Functions that its defaults call.
    pub calls: Vec<u32>,
}

/// One row of `pg_class`.
#[derive(Clone, Debug)]
pub struct RelationRow {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    /// `relpersistence = 'p'`, so that its contents reach replicas; and reading it locks no rows.
    pub permanent: bool,
    /// Relations that reading it reads: what its view or policies name, its children and partitions.
    pub reads: Vec<u32>,
    /// Functions that reading it calls: in its view or policies.
    pub calls: Vec<u32>,
}

/// Collects rows, in any order.
#[derive(Debug, Default)]
pub struct Builder {
    functions: Vec<FunctionRow>,
    relations: Vec<RelationRow>,
    hidden: Vec<u32>,
}

impl Builder {
    pub fn function(&mut self, row: FunctionRow) {
        self.functions.push(row);
    }

    pub fn relation(&mut self, row: RelationRow) {
        self.relations.push(row);
    }

    /// A function that statements call without naming it: of an operator, a cast, a type's input, a domain's check, or one
    /// that takes a whole row and so reads like a column.
    pub fn hidden_function(&mut self, oid: u32) {
        self.hidden.push(oid);
    }

    /// The snapshot.
    pub fn build(self) -> Catalogue {
        let mut catalogue = Catalogue::default();
        let functions = function_faults(&self.functions);
        for row in &self.functions {
            catalogue.functions.insert(&row.schema, &row.name, functions.get(&row.oid).copied());
        }
        let relations = relation_faults(&self.relations, &functions);
        for row in &self.relations {
            catalogue.relations.insert(&row.schema, &row.name, relations.get(&row.oid).copied());
        }
        if self.hidden.iter().any(|oid| functions.contains_key(oid)) {
            catalogue.hidden = Some(Unsafe::HiddenFunctions);
        }
        catalogue
    }
}

fn function_faults(rows: &[FunctionRow]) -> FxHashMap<u32, Unsafe> {
    let mut faults = FxHashMap::default();
    for row in rows {
        if row.volatile {
            faults.insert(row.oid, Unsafe::VolatileFunction);
        } else if row.schema == "pg_catalog" && is_server_specific(&row.name) {
            faults.insert(row.oid, Unsafe::ServerSpecific);
        }
    }
    // A default may call what is unsafe; a default that calls a function with an unsafe default is as well.
    let edges: Vec<(u32, &[u32])> = rows.iter().map(|row| (row.oid, &*row.calls)).collect();
    for oid in spread(&faults, &edges) {
        faults.entry(oid).or_insert(Unsafe::VolatileFunction);
    }
    faults
}

fn relation_faults(
    rows: &[RelationRow],
    functions: &FxHashMap<u32, Unsafe>,
) -> FxHashMap<u32, Unsafe> {
    let mut faults = FxHashMap::default();
    for row in rows {
        let system = row.schema == "pg_catalog" || row.schema == "information_schema";
        let fault = match row.kind {
            // The catalogue itself is read by those who have just changed it.
            _ if system => Some(Unsafe::ServerSpecific),
            RelationKind::Sequence | RelationKind::Foreign | RelationKind::Other => {
                Some(Unsafe::NotReplicated)
            }
            _ if !row.permanent => Some(Unsafe::NotReplicated),
            _ if row.calls.iter().any(|oid| functions.contains_key(oid)) => Some(Unsafe::Through),
            _ => None,
        };
        if let Some(fault) = fault {
            faults.insert(row.oid, fault);
        }
    }
    let known: Oids = rows.iter().map(|row| row.oid).collect();
    for row in rows {
        // Something it reads that this snapshot has not seen.
        if row.reads.iter().any(|oid| !known.contains(oid)) {
            faults.entry(row.oid).or_insert(Unsafe::UnknownName);
        }
    }
    let edges: Vec<(u32, &[u32])> = rows.iter().map(|row| (row.oid, &*row.reads)).collect();
    for oid in spread(&faults, &edges) {
        faults.entry(oid).or_insert(Unsafe::Through);
    }
    faults
}

/// Who reaches one of `faults` along the edges, at any distance.
fn spread(faults: &FxHashMap<u32, Unsafe>, edges: &[(u32, &[u32])]) -> Oids {
    let mut users: FxHashMap<u32, Vec<u32>> = FxHashMap::default();
    for (from, to) in edges {
        for oid in *to {
            users.entry(*oid).or_default().push(*from);
        }
    }
    let mut found = Oids::default();
    let mut open: Vec<u32> = faults.keys().copied().collect();
    while let Some(oid) = open.pop() {
        for user in users.get(&oid).into_iter().flatten() {
            if found.insert(*user) {
                open.push(*user);
            }
        }
    }
    found
}
