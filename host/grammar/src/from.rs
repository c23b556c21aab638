//! FROM: what is read, and under which name.

use crate::found::TableId;
use crate::string;
use crate::walker::{LevelId, Place, Role, Task, Walker};
use pg_raw_parse::raw::JoinType;
use pg_raw_parse::{Node, nodes};
use tidegate_core::statement::{Access, By, Comparison};

impl<'a> Walker<'a> {
    /// Reads a FROM list into the level of `place`; conditions and subqueries are left as tasks.
    pub(crate) fn from(&mut self, list: impl IntoIterator<Item = Node<'a>>, place: Place) {
        let mut list = list.into_iter();
        // The sides of joins come before the rest of the list.
        let mut sides: Vec<Node<'a>> = Vec::new();
        while let Some(item) = sides.pop().or_else(|| list.next()) {
            match item {
                Node::RangeVar(table) => self.range_table(table, place),
                Node::JoinExpr(join) => {
                    sides.push(join.rarg());
                    sides.push(join.larg());
                    self.join(join, place);
                }
                Node::RangeSubselect(query) => {
                    self.tasks.push(Task::Query(query.subquery(), place.value()));
                    self.derived(query.alias(), place.level);
                }
                Node::RangeFunction(function) => {
                    for pair in function.functions().iter().filter_map(|node| node.as_node_list()) {
                        self.expression(pair.first().unwrap_or(Node::None), place.value());
                    }
                    self.column_types(function.coldeflist().iter());
                    self.derived(function.alias(), place.level);
                }
                Node::RangeTableSample(sample) => {
                    sides.push(sample.relation());
                    // A sampling method is a function by its name.
                    let names = sample.method().iter().filter_map(string);
                    if let (schema, Some(name)) = schema_and_name(names) {
                        self.found.function(schema, name, 1);
                    }
                    self.expressions(sample.args().iter(), place.value());
                    self.expression(sample.repeatable(), place.value());
                }
                Node::RangeTableFunc(function) => {
                    self.xml_table(function, place.value());
                    self.derived(function.alias(), place.level);
                }
                Node::JsonTable(table) => {
                    self.json_table(table, place.value());
                    self.derived(table.alias(), place.level);
                }
                Node::None => {}
                _ => self.found.unsupported(),
            }
        }
    }

    fn range_table(&mut self, table: &'a nodes::RangeVar, place: Place) {
        let name = table.relname().unwrap_or_default();
        let is_with = table.schemaname().is_none() && self.is_with(name, place.with);
        let id = match is_with {
            true => None,
            false => self.found.table(table.schemaname(), name, Access::Reads),
        };
        self.named(table.alias(), name, id, place.level);
    }

    /// A table that the statement writes; never a WITH query.
    pub(crate) fn target(&mut self, table: Option<&'a nodes::RangeVar>, level: LevelId) {
        let Some(table) = table else { return self.found.unsupported() };
        let name = table.relname().unwrap_or_default();
        let id = self.found.table(table.schemaname(), name, Access::Writes);
        self.named(table.alias(), name, id, level);
    }

    fn named(
        &mut self,
        alias: Option<&'a nodes::Alias>,
        name: &'a str,
        table: Option<TableId>,
        level: LevelId,
    ) {
        let name = alias.and_then(|alias| alias.aliasname()).unwrap_or(name);
        // `t AS x (a, b)` renames columns, so their names are no longer the table's.
        let renamed = alias.is_some_and(|alias| !alias.colnames().is_empty());
        self.add_range(level, name, table.filter(|_| !renamed));
    }

    fn derived(&mut self, alias: Option<&'a nodes::Alias>, level: LevelId) {
        let name = alias.and_then(|alias| alias.aliasname()).unwrap_or_default();
        self.add_range(level, name, None);
    }

    fn join(&mut self, join: &'a nodes::JoinExpr, place: Place) {
        let always = join.jointype == JoinType::JOIN_INNER;
        self.expression(join.quals(), place.role(Role::Condition { always }));
        if !join.using_clause().is_empty() {
            self.tasks.push(Task::Using(join, place));
        }
        if join.alias().is_some() {
            self.derived(join.alias(), place.level);
        }
    }

    /// `a JOIN b USING (c)` compares `a.c` with `b.c`.
    pub(crate) fn walk_using(&mut self, join: &'a nodes::JoinExpr, place: Place) {
        let always = join.jointype == JoinType::JOIN_INNER;
        for side in [join.larg(), join.rarg()] {
            let table = match side {
                Node::RangeVar(table) => {
                    let alias = table.alias().and_then(|alias| alias.aliasname());
                    let name = alias.or(table.relname()).unwrap_or_default();
                    match self.table_named(name, place.level) {
                        Some(table) => Some(table),
                        None => continue,
                    }
                }
                Node::JoinExpr(_) => None,
                _ => continue,
            };
            for column in join.using_clause().iter().filter_map(|name| name.sval()) {
                self.found.column(table, column, Comparison::Join, By::Column, always);
            }
        }
    }

    fn xml_table(&mut self, function: &'a nodes::RangeTableFunc, place: Place) {
        self.expression(function.docexpr(), place);
        self.expression(function.rowexpr(), place);
        self.expressions(function.namespaces().iter(), place);
        for column in function.columns().iter() {
            if let Some(kind) = column.type_name() {
                self.type_name(kind);
            }
            self.expression(column.colexpr(), place);
            self.expression(column.coldefexpr(), place);
        }
    }

    fn json_table(&mut self, table: &'a nodes::JsonTable, place: Place) {
        self.expression(table.context_item().into(), place);
        self.expressions(table.passing().iter(), place);
        self.expressions(table.columns().iter(), place);
        self.expression(table.on_error().into(), place);
    }

    fn column_types(&mut self, columns: impl Iterator<Item = &'a nodes::ColumnDef>) {
        for kind in columns.filter_map(|column| column.type_name()) {
            self.type_name(kind);
        }
    }
}

/// A name of one or more parts: the schema, if there is one, and the last part.
pub(crate) fn schema_and_name<'a>(
    mut parts: impl DoubleEndedIterator<Item = &'a str>,
) -> (Option<&'a str>, Option<&'a str>) {
    let name = parts.next_back();
    (parts.next_back(), name)
}
