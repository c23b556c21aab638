//! What a walk has found so far: names borrowed from the tree, within bounds.

use crate::names;
use tidegate_core::limits::SHAPE_NAMES_MAX;
use tidegate_core::statement::{
    Access, By, ColumnUse, Comparison, FunctionForm, FunctionUse, Incomplete, Parsed, TableUse,
};

/// A position in [`Found::tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableId(u32);

/// A use of a column, and of which table if that is known.
struct Column<'a> {
    table: Option<TableId>,
    name: &'a str,
    comparison: Comparison,
    by: By,
    always: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Function<'a> {
    schema: Option<&'a str>,
    name: &'a str,
    arguments: u16,
    form: FunctionForm,
}

/// What was found.
pub(crate) struct Found<'a> {
    pub access: Access,
    pub locks: bool,
    pub literal_dependent: bool,
    /// SELECT … INTO.
    pub into: bool,
    pub incomplete: Option<Incomplete>,
    tables: Vec<(Option<&'a str>, &'a str, Access)>,
    columns: Vec<Column<'a>>,
    functions: Vec<Function<'a>>,
}

impl<'a> Found<'a> {
    pub(crate) fn new() -> Self {
        Self {
            access: Access::Reads,
            locks: false,
            literal_dependent: false,
            into: false,
            incomplete: None,
            tables: Vec::with_capacity(4),
            columns: Vec::with_capacity(8),
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
        schema: Option<&'a str>,
        name: &'a str,
        access: Access,
    ) -> Option<TableId> {
        self.access = self.access.and(access);
        if !self.has_room(self.tables.len()) {
            return None;
        }
        self.tables.push((schema, name, access));
        Some(TableId(self.tables.len() as u32 - 1))
    }

    pub(crate) fn column(
        &mut self,
        table: Option<TableId>,
        name: &'a str,
        comparison: Comparison,
        by: By,
        always: bool,
    ) {
        if self.has_room(self.columns.len()) {
            self.columns.push(Column { table, name, comparison, by, always });
        }
    }

    pub(crate) fn function(&mut self, schema: Option<&'a str>, name: &'a str, arguments: usize) {
        self.literal_dependent |= names::is_literal_dependent(name);
        self.name(schema, name, arguments, FunctionForm::Call);
    }

    /// Notes an operator, if it is none of PostgreSQL's own.
    pub(crate) fn operator(&mut self, schema: Option<&'a str>, name: &'a str, operands: usize) {
        let own = schema.is_none_or(|schema| schema == "pg_catalog");
        if !own || !names::is_builtin_operator(name) {
            self.name(schema, name, operands, FunctionForm::Operator);
        }
    }

    /// Notes the type of a cast, if it is none of PostgreSQL's own.
    pub(crate) fn cast(&mut self, schema: Option<&'a str>, name: &'a str) {
        self.literal_dependent |= names::names_an_object(name);
        let own = match schema {
            Some(schema) => schema == "pg_catalog",
            None => names::is_builtin_type(name),
        };
        if !own {
            self.name(schema, name, 1, FunctionForm::Cast);
        }
    }

    fn name(
        &mut self,
        schema: Option<&'a str>,
        name: &'a str,
        arguments: usize,
        form: FunctionForm,
    ) {
        let arguments = u16::try_from(arguments).unwrap_or(u16::MAX);
        let function = Function { schema, name, arguments, form };
        // Most statements call few functions, and those that call many repeat them.
        if self.functions.contains(&function) || !self.has_room(self.functions.len()) {
            return;
        }
        self.functions.push(function);
    }

    /// Owns what was found.
    pub(crate) fn into_parsed(mut self) -> Parsed {
        let mut tables: Vec<TableUse> = self
            .tables
            .iter()
            .map(|&(schema, name, access)| TableUse {
                schema: schema.map(Box::from),
                name: name.into(),
                access,
                columns: Vec::new(),
            })
            .collect();
        let mut columns = Vec::new();
        for Column { table, name, comparison, by, always } in self.columns {
            let table = table.and_then(|TableId(id)| tables.get_mut(id as usize));
            let list = table.map_or(&mut columns, |table| &mut table.columns);
            let used = ColumnUse { column: name.into(), comparison, by, always };
            if !list.contains(&used) {
                list.push(used);
            }
        }
        self.functions.sort_unstable();
        let functions = self.functions.iter().map(|function| FunctionUse {
            schema: function.schema.map(Box::from),
            name: function.name.into(),
            arguments: function.arguments,
            form: function.form,
        });
        let incomplete = self.incomplete;
        Parsed {
            access: if incomplete.is_some() {
                Access::Unknown.and(self.access)
            } else {
                self.access
            },
            locks: self.locks,
            tables,
            columns,
            functions: functions.collect(),
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
