//! Expressions: what is compared with what, which functions are called, which types are cast to.

use crate::found::TableId;
use crate::from::schema_and_name;
use crate::side::{Column, Operand, Side, comparison};
use crate::string;
use crate::walker::{LevelId, Owner, Place, Role, Task, Walker};
use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::{A_Expr_Kind, BoolExprType, SQLValueFunctionOp, SubLinkType};
use pg_raw_parse::{Node, nodes};
use tidegate_core::statement::{By, Comparison};

impl<'a> Walker<'a> {
    pub(crate) fn walk_expression(&mut self, node: Node<'a>, place: Place) {
        match node {
            Node::ColumnRef(column) => self.column(column, place),
            Node::A_Expr(operation) => self.operation(operation, place),
            Node::BoolExpr(all) => self.boolean(all, place),
            Node::FuncCall(call) => self.call(call, place),
            Node::TypeCast(cast) => {
                if let Some(kind) = cast.type_name() {
                    self.type_name(kind);
                }
                self.expression(cast.arg(), place.role(within(place.role)));
            }
            Node::ResTarget(target) => {
                self.expressions(target.indirection().iter(), place);
                self.expression(target.val(), place);
            }
            Node::SortBy(sort) => {
                self.operator(sort.use_op(), 2);
                self.expression(sort.node(), place);
            }
            Node::SubLink(link) => self.sub_query(link, place),
            Node::NullTest(test) => match (test.arg(), place.role) {
                (Node::ColumnRef(column), Role::Condition { always }) => {
                    if let Some(column) = Column::of(column) {
                        self.compared(column, Comparison::Null, By::Literal, always, place.level);
                    }
                }
                (arg, role) => self.expression(arg, place.role(compared_with_literal(role))),
            },
            Node::BooleanTest(test) => {
                self.expression(test.arg(), place.role(compared_with_literal(place.role)));
            }
            Node::SQLValueFunction(function) => self.value_function(function),
            Node::ParamRef(_)
            | Node::A_Const(_)
            | Node::None
            | Node::A_Star(_)
            | Node::SetToDefault(_)
            | Node::CurrentOfExpr(_)
            | Node::MergeSupportFunc(_)
            | Node::String(_) => {}
            Node::NodeList(list) => self.expressions(list.iter(), place),
            Node::SelectStmt(_) => self.tasks.push(Task::Query(node, place.value())),
            Node::GroupingSet(set) => self.expressions(set.content().iter(), place),
            _ => self.rarer(node, place.role(within(place.role))),
        }
    }

    /// Expressions that only hand on what they hold.
    fn rarer(&mut self, node: Node<'a>, place: Place) {
        match node {
            Node::RowExpr(row) => self.expressions(row.args().iter(), place),
            Node::CoalesceExpr(all) => self.expressions(all.args().iter(), place),
            Node::MinMaxExpr(all) => self.expressions(all.args().iter(), place),
            Node::A_ArrayExpr(array) => self.expressions(array.elements().iter(), place),
            Node::GroupingFunc(all) => self.expressions(all.args().iter(), place.value()),
            Node::CollateClause(collate) => self.expression(collate.arg(), place),
            Node::NamedArgExpr(named) => self.expression(named.arg(), place),
            Node::MultiAssignRef(row) => self.expression(row.source(), place),
            Node::IndexElem(element) => self.expression(element.expr(), place),
            Node::CaseExpr(case) => {
                self.expression(case.defresult(), place);
                self.expressions(case.args().iter(), place);
                self.expression(case.arg(), place);
            }
            Node::CaseWhen(when) => {
                self.expression(when.result(), place);
                self.expression(when.expr(), place);
            }
            Node::A_Indirection(path) => {
                self.expressions(path.indirection().iter(), place);
                self.expression(path.arg(), place);
            }
            Node::A_Indices(indices) => {
                self.expression(indices.uidx(), place.value());
                self.expression(indices.lidx(), place.value());
            }
            Node::WindowDef(window) => self.window(window, place.value()),
            _ => self.markup(node, place),
        }
    }

    /// XML and JSON.
    fn markup(&mut self, node: Node<'a>, place: Place) {
        match node {
            Node::XmlExpr(xml) => {
                self.expressions(xml.args().iter(), place);
                self.expressions(xml.named_args().iter(), place);
            }
            Node::XmlSerialize(xml) => {
                if let Some(kind) = xml.type_name() {
                    self.type_name(kind);
                }
                self.expression(xml.expr(), place);
            }
            Node::JsonValueExpr(value) => self.expression(value.raw_expr(), place),
            Node::JsonIsPredicate(test) => self.expression(test.expr(), place),
            Node::JsonArgument(argument) => self.expression(argument.val().into(), place),
            Node::JsonBehavior(behavior) => self.expression(behavior.expr(), place),
            Node::JsonKeyValue(pair) => {
                self.expression(pair.value().into(), place);
                self.expression(pair.key(), place);
            }
            Node::JsonOutput(output) => {
                if let Some(kind) = output.type_name() {
                    self.type_name(kind);
                }
            }
            Node::JsonFuncExpr(function) => {
                self.expression(function.output().into(), place);
                self.expression(function.on_error().into(), place);
                self.expression(function.on_empty().into(), place);
                self.expressions(function.passing().iter(), place);
                self.expression(function.pathspec(), place);
                self.expression(function.context_item().into(), place);
            }
            Node::JsonTableColumn(column) => {
                if let Some(kind) = column.type_name() {
                    self.type_name(kind);
                }
                self.expressions(column.columns().iter(), place);
                self.expression(column.on_error().into(), place);
                self.expression(column.on_empty().into(), place);
            }
            _ => self.json_made(node, place),
        }
    }

    /// What makes JSON.
    fn json_made(&mut self, node: Node<'a>, place: Place) {
        match node {
            Node::JsonParseExpr(json) => {
                self.expression(json.output().into(), place);
                self.expression(json.expr().into(), place);
            }
            Node::JsonScalarExpr(json) => {
                self.expression(json.output().into(), place);
                self.expression(json.expr(), place);
            }
            Node::JsonSerializeExpr(json) => {
                self.expression(json.output().into(), place);
                self.expression(json.expr().into(), place);
            }
            Node::JsonObjectConstructor(json) => {
                self.expression(json.output().into(), place);
                self.expressions(json.exprs().iter(), place);
            }
            Node::JsonArrayConstructor(json) => {
                self.expression(json.output().into(), place);
                self.expressions(json.exprs().iter(), place);
            }
            Node::JsonArrayQueryConstructor(json) => {
                self.expression(json.output().into(), place);
                self.tasks.push(Task::Query(json.query(), place.value()));
            }
            Node::JsonObjectAgg(json) => {
                self.expression(json.constructor().into(), place.value());
                self.expression(json.arg().into(), place);
            }
            Node::JsonArrayAgg(json) => {
                self.expression(json.constructor().into(), place.value());
                self.expression(json.arg().into(), place);
            }
            Node::JsonAggConstructor(json) => {
                self.expression(json.output().into(), place);
                self.expression(json.over().into(), place);
                self.expressions(json.agg_order().iter(), place);
                self.expression(json.agg_filter(), place);
            }
            _ => self.found.unsupported(),
        }
    }

    fn boolean(&mut self, all: &'a nodes::BoolExpr, place: Place) {
        let role = match (place.role, all.boolop) {
            (Role::Condition { .. }, BoolExprType::AND_EXPR) => place.role,
            (Role::Condition { .. }, _) => Role::Condition { always: false },
            (role, _) => within(role),
        };
        self.expressions(all.args().iter(), place.role(role));
    }

    fn operation(&mut self, operation: &'a nodes::A_Expr, place: Place) {
        let (left, right) = (operation.lexpr(), operation.rexpr());
        let operands = if matches!(left, Node::None) { 1 } else { 2 };
        // BETWEEN's name is no operator's: it stands for >= and <=.
        let between = A_Expr_Kind::AEXPR_BETWEEN..=A_Expr_Kind::AEXPR_NOT_BETWEEN_SYM;
        let name = match between.contains(&operation.kind) {
            true => None,
            false => self.operator(operation.name(), operands),
        };
        let Role::Condition { always } = place.role else {
            let place = place.role(within(place.role));
            self.expression(right, place);
            return self.expression(left, place);
        };
        let comparison = comparison(operation.kind, name.unwrap_or_default());
        let (left, right) = (Operand::new(left), Operand::new(right));
        match (left.side, right.side) {
            (Side::Row(left), Side::Row(right)) if left.len() == right.len() => {
                for (left, right) in left.iter().zip(right.iter()) {
                    let (left, right) = (Operand::new(left), Operand::new(right));
                    self.compare(left, comparison, right, always, place);
                }
            }
            (Side::Row(columns), _) => {
                self.compare_each(columns, comparison, always, place);
                self.expression(right.node, place.value());
            }
            _ => self.compare(left, comparison, right, always, place),
        }
    }

    /// Columns that are compared with what is an expression of its own.
    fn compare_each(
        &mut self,
        columns: &'a NodeList,
        comparison: Comparison,
        always: bool,
        place: Place,
    ) {
        for column in columns.iter() {
            self.compare(Operand::new(column), comparison, Operand::NONE, always, place);
        }
    }

    fn compare(
        &mut self,
        left: Operand<'a>,
        comparison: Comparison,
        right: Operand<'a>,
        always: bool,
        place: Place,
    ) {
        let level = place.level;
        match (left.side, right.side) {
            (Side::Column(left), Side::Column(right)) => {
                let owners = (self.owner(left, level), self.owner(right, level));
                let comparison = match comparison {
                    Comparison::Equal if owners.0 != owners.1 => Comparison::Join,
                    other => other,
                };
                self.owned(owners.0, left.name, comparison, By::Column, always);
                self.owned(owners.1, right.name, comparison, By::Column, always);
            }
            (Side::Column(column), other) => {
                self.compared(column, comparison, other.by(), always, level);
                self.expression(right.node, place.value());
            }
            (other, Side::Column(column)) => {
                self.compared(column, comparison, other.by(), always, level);
                self.expression(left.node, place.value());
            }
            (left_side, right_side) => {
                self.expression(right.node, place.role(Role::Compared(left_side.by())));
                self.expression(left.node, place.role(Role::Compared(right_side.by())));
            }
        }
    }

    fn column(&mut self, column: &'a nodes::ColumnRef, place: Place) {
        let (comparison, by, always) = match place.role {
            Role::Value => return,
            Role::Condition { always } => (Comparison::Equal, By::Literal, always),
            Role::Compared(by) => (Comparison::Other, by, false),
            Role::Order => (Comparison::Order, By::Column, true),
            Role::Group => (Comparison::Group, By::Column, true),
        };
        if let Some(column) = Column::of(column) {
            self.compared(column, comparison, by, always, place.level);
        }
    }

    fn compared(
        &mut self,
        column: Column<'a>,
        comparison: Comparison,
        by: By,
        always: bool,
        level: LevelId,
    ) {
        let owner = self.owner(column, level);
        self.owned(owner, column.name, comparison, by, always);
    }

    /// Notes a column of which it is known whose it is.
    fn owned(&mut self, owner: Owner, name: &str, comparison: Comparison, by: By, always: bool) {
        match owner {
            Owner::Table(table) => self.found.column(Some(table), name, comparison, by, always),
            Owner::Unclear => self.found.column(None, name, comparison, by, always),
            Owner::NoTable => {}
        }
    }

    fn owner(&self, column: Column<'a>, level: LevelId) -> Owner {
        match column.table {
            Some(table) => self.table_named(table, level).map_or(Owner::NoTable, Owner::Table),
            None => self.only_table(level),
        }
    }

    /// The table of a level that has just its target.
    pub(crate) fn only_owner(&self, level: LevelId) -> Option<TableId> {
        match self.only_table(level) {
            Owner::Table(table) => Some(table),
            _ => None,
        }
    }

    fn call(&mut self, call: &'a nodes::FuncCall, place: Place) {
        self.function(call);
        let place = place.role(within(place.role));
        self.expression(call.over().into(), place.value());
        self.expression(call.agg_filter(), place.value());
        self.expressions(call.agg_order().iter(), place.value());
        self.expressions(call.args().iter(), place);
    }

    pub(crate) fn function(&mut self, call: &'a nodes::FuncCall) {
        let ordered = if call.agg_within_group { call.agg_order().len() } else { 0 };
        match schema_and_name(call.funcname().iter().filter_map(string)) {
            (schema, Some(name)) => {
                self.found.function(schema, name, call.args().len() + ordered);
            }
            _ => self.found.unsupported(),
        }
    }

    fn window(&mut self, window: &'a nodes::WindowDef, place: Place) {
        self.expression(window.end_offset(), place);
        self.expression(window.start_offset(), place);
        self.expressions(window.order_clause().iter(), place);
        self.expressions(window.partition_clause().iter(), place);
    }

    fn sub_query(&mut self, link: &'a nodes::SubLink, place: Place) {
        self.tasks.push(Task::Query(link.subselect(), place.value()));
        let name = self.operator(link.oper_name(), 2);
        match (link.testexpr(), place.role) {
            (test, Role::Condition { always }) => {
                let any = link.sub_link_type == SubLinkType::ANY_SUBLINK;
                let is_in = any && name.is_none_or(|name| name == "=");
                let comparison = if is_in { Comparison::In } else { Comparison::Other };
                let test = Operand::new(test);
                match test.side {
                    Side::Row(columns) => self.compare_each(columns, comparison, always, place),
                    _ => self.compare(test, comparison, Operand::NONE, always, place),
                }
            }
            (test, role) => self.expression(test, place.role(within(role))),
        }
    }

    /// Notes an operator, and returns its name without its schema.
    fn operator(&mut self, name: &'a NodeList, operands: usize) -> Option<&'a str> {
        let (schema, name) = schema_and_name(name.iter().filter_map(string));
        if let Some(name) = name {
            self.found.operator(schema, name, operands);
        }
        name
    }

    pub(crate) fn type_name(&mut self, kind: &'a nodes::TypeName) {
        let names = kind.names().iter().filter_map(|name| name.sval());
        if let (schema, Some(name)) = schema_and_name(names) {
            self.found.cast(schema, name);
        }
        // The grammar allows any expression there.
        self.expressions(kind.typmods().iter(), self.outside());
    }

    /// CURRENT_DATE and its kin, under the names of the functions that do the same.
    fn value_function(&mut self, function: &'a nodes::SQLValueFunction) {
        let name = match function.op {
            SQLValueFunctionOp::SVFOP_CURRENT_ROLE
            | SQLValueFunctionOp::SVFOP_CURRENT_USER
            | SQLValueFunctionOp::SVFOP_USER => "current_user",
            SQLValueFunctionOp::SVFOP_SESSION_USER => "session_user",
            SQLValueFunctionOp::SVFOP_CURRENT_CATALOG => "current_database",
            SQLValueFunctionOp::SVFOP_CURRENT_SCHEMA => "current_schema",
            _ => "now",
        };
        self.found.function(Some("pg_catalog"), name, 0);
    }
}

/// The role of what is inside of an expression with this role.
fn within(role: Role) -> Role {
    match role {
        Role::Compared(_) => role,
        // `WHERE f(a)`: a is part of what rows have to pass.
        Role::Condition { .. } => Role::Compared(By::Expression),
        Role::Value | Role::Order | Role::Group => Role::Value,
    }
}

/// The role of what IS NULL, IS TRUE, … test.
fn compared_with_literal(role: Role) -> Role {
    match role {
        Role::Condition { .. } => Role::Compared(By::Literal),
        other => within(other),
    }
}
