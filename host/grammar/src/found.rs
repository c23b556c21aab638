//! What a walk has found so far, within bounds.

use crate::names;
use tidegate_core::limits::SHAPE_NAMES_MAX;
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, FunctionForm, FunctionUse, Incomplete, Parsed, TableUse,
};

/// A position in [`Found::tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableId(u32);

/// Room for columns that a table gets with the first of them.
const COLUMNS_AT_FIRST: usize = 2;

/// What was found.
pub(crate) struct Found {
    pub access: Access,
    pub locks: bool,
    pub literal_dependent: bool,
    /// SELECT … INTO.
    pub into: bool,
    pub incomplete: Option<Incomplete>,
    tables: Vec<TableUse>,
    /// Columns of no certain table.
    columns: Vec<ColumnUse>,
    /// How many columns were found, those that are listed already among them.
    columns_found: usize,
    functions: Vec<FunctionUse>,
}

impl Found {
    pub(crate) fn new() -> Self {
        Self {
            access: Access::Reads,
            locks: false,
            literal_dependent: false,
            into: false,
            incomplete: None,
            tables: Vec::new(),
            columns: Vec::new(),
            columns_found: 0,
            functions: Vec::new(),
        }
    }

    /// Notes that the statement holds what is not followed.
    pub(crate) fn unsupported(&mut self) {
        self.incomplete.get_or_insert(Incomplete::Unsupported);
    }

    /// True when there is room in a list for one more.
    fn has_room(&mut self, length: usize) -> bool {
        let room = length < SHAPE_NAMES_MAX;
        if !room {
            self.incomplete.get_or_insert(Incomplete::TooManyNames);
        }
        room
    }

    pub(crate) fn table(
        &mut self,
        schema: Option<&str>,
        name: &str,
        access: Access,
    ) -> Option<TableId> {
        self.access = self.access.and(access);
        if !self.has_room(self.tables.len()) {
            return None;
        }
        // Shapes are kept for long, and most have one table or two.
        if self.tables.capacity() == 0 {
            self.tables = Vec::with_capacity(1);
        } else if self.tables.len() == self.tables.capacity() {
            self.tables.reserve_exact(self.tables.len());
        }
        let schema = schema.map(Box::from);
        self.tables.push(TableUse { schema, name: name.into(), access, columns: Vec::new() });
        Some(TableId(self.tables.len() as u32 - 1))
    }

    pub(crate) fn column(
        &mut self,
        table: Option<TableId>,
        name: &str,
        comparison: Comparison,
        by: By,
        always: bool,
    ) {
        if !self.has_room(self.columns_found) {
            return;
        }
        self.columns_found += 1;
        let table = table.and_then(|TableId(id)| self.tables.get_mut(id as usize));
        let list = table.map_or(&mut self.columns, |table| &mut table.columns);
        let same = |used: &ColumnUse| {
            (used.comparison, used.by, used.always) == (comparison, by, always)
                && *used.column == *name
        };
        if !list.iter().any(same) {
            if list.capacity() == 0 {
                *list = Vec::with_capacity(COLUMNS_AT_FIRST);
            }
            list.push(ColumnUse { column: name.into(), comparison, by, always });
        }
    }

    pub(crate) fn function(&mut self, schema: Option<&str>, name: &str, arguments: usize) {
        self.literal_dependent |= names::is_literal_dependent(name);
        self.name(schema, name, arguments, FunctionForm::Call);
    }

    /// Notes an operator, if it is none of PostgreSQL's own.
    pub(crate) fn operator(&mut self, schema: Option<&str>, name: &str, operands: usize) {
        let own = schema.is_none_or(|schema| schema == "pg_catalog");
        if !own || !names::is_builtin_operator(name) {
            self.name(schema, name, operands, FunctionForm::Operator);
        }
    }

    /// Notes the type of a cast, if it is none of PostgreSQL's own.
    pub(crate) fn cast(&mut self, schema: Option<&str>, name: &str) {
        self.literal_dependent |= names::names_an_object(name);
        let own = match schema {
            Some(schema) => schema == "pg_catalog",
            None => names::is_builtin_type(name),
        };
        if !own {
            self.name(schema, name, 1, FunctionForm::Cast);
        }
    }

    fn name(&mut self, schema: Option<&str>, name: &str, arguments: usize, form: FunctionForm) {
        let arguments = u16::try_from(arguments).unwrap_or(u16::MAX);
        // Most statements call few functions, and those that call many repeat them.
        let same = |used: &FunctionUse| {
            (used.arguments, used.form) == (arguments, form)
                && *used.name == *name
                && used.schema.as_deref() == schema
        };
        if self.functions.iter().any(same) || !self.has_room(self.functions.len()) {
            return;
        }
        let schema = schema.map(Box::from);
        self.functions.push(FunctionUse { schema, name: name.into(), arguments, form });
    }

    /// What is to be kept of it.
    pub(crate) fn into_parsed(mut self) -> Parsed {
        self.tables.shrink_to_fit();
        self.functions.shrink_to_fit();
        self.functions.sort_unstable();
        let incomplete = self.incomplete;
        Parsed {
            access: if incomplete.is_some() {
                Access::Unknown.and(self.access)
            } else {
                self.access
            },
            locks: self.locks,
            tables: self.tables,
            columns: self.columns,
            functions: self.functions,
            literal_dependent: self.literal_dependent,
            incomplete,
            ..Parsed::default()
        }
    }
}

/// Cuts lists that have grown together beyond their bound.
pub(crate) fn within_bounds(mut parsed: Parsed) -> Parsed {
    let longest = parsed.tables.len().max(parsed.columns.len()).max(parsed.functions.len());
    if longest > SHAPE_NAMES_MAX {
        parsed.tables.truncate(SHAPE_NAMES_MAX);
        parsed.columns.truncate(SHAPE_NAMES_MAX);
        parsed.functions.truncate(SHAPE_NAMES_MAX);
        parsed.incomplete = Some(Incomplete::TooManyNames);
        parsed.access = parsed.access.and(Access::Unknown);
    }
    parsed
}
