//! SELECT, INSERT, UPDATE, DELETE, MERGE: which tables, and which expressions are conditions.

use crate::side::Side;
use crate::walker::{LevelId, Place, Role, Task, Walker, WithId};
use pg_raw_parse::raw::SetOperation;
use pg_raw_parse::{Node, nodes};
use tidegate_core::statement::Comparison;

const ALWAYS: Role = Role::Condition { always: true };

/// Output columns that ORDER BY is checked against.
const OUTPUTS_MAX: usize = 256;

impl<'a> Walker<'a> {
    pub(crate) fn walk_query(&mut self, node: Node<'a>, place: Place) {
        match node {
            Node::SelectStmt(select) => self.select(select, place),
            Node::InsertStmt(insert) => self.insert(insert, place),
            Node::UpdateStmt(update) => self.update(update, place),
            Node::DeleteStmt(delete) => self.delete(delete, place),
            Node::MergeStmt(merge) => self.merge(merge, place),
            Node::None => {}
            _ => self.found.unsupported(),
        }
    }

    /// The WITH queries that a statement sees after its own WITH.
    fn with(&mut self, clause: Option<&'a nodes::WithClause>, place: Place) -> Option<WithId> {
        let Some(clause) = clause else { return place.with };
        let mut visible = place.with;
        if clause.recursive {
            for with in clause.ctes().iter() {
                visible = self.add_with(with.ctename().unwrap_or_default(), visible);
            }
        }
        for with in clause.ctes().iter() {
            let place = Place { with: visible, ..place.value() };
            self.tasks.push(Task::Query(with.ctequery(), place));
            if let Some(cycle) = with.cycle_clause() {
                self.expression(cycle.cycle_mark_value(), place);
                self.expression(cycle.cycle_mark_default(), place);
            }
            if !clause.recursive {
                visible = self.add_with(with.ctename().unwrap_or_default(), visible);
            }
        }
        visible
    }

    /// A level for a statement's own FROM, and what is visible in it.
    fn inside(&mut self, clause: Option<&'a nodes::WithClause>, place: Place) -> Place {
        let level = self.new_level(place.level);
        let with = self.with(clause, place);
        Place { level, with, role: Role::Value }
    }

    fn select(&mut self, select: &'a nodes::SelectStmt, place: Place) {
        let inside = self.inside(select.with_clause(), place);
        self.found.locks |= !select.locking_clause().is_empty();
        if let Some(into) = select.into_clause() {
            self.found.into = true;
            self.target(into.rel(), place.level);
        }
        self.expression(select.limit_count(), inside);
        self.expression(select.limit_offset(), inside);
        if select.op != SetOperation::SETOP_NONE {
            // ORDER BY names output columns here.
            self.expressions(select.sort_clause().iter(), inside);
            for side in [select.rarg(), select.larg()].into_iter().flatten() {
                self.tasks.push(Task::Query(side.into(), inside));
            }
            return;
        }
        if !select.sort_clause().is_empty() {
            self.order(select, inside);
        }
        self.expressions(select.window_clause().iter(), inside);
        self.expression(select.having_clause(), inside);
        self.expressions(select.group_clause().iter(), inside.role(Role::Group));
        self.expressions(select.distinct_clause().iter(), inside.role(Role::Group));
        self.expression(select.where_clause(), inside.role(ALWAYS));
        self.expressions(select.values_lists().iter(), inside);
        self.expressions(select.target_list().iter().map(|output| output.val()), inside);
        self.from(select.from_clause().iter(), inside);
    }

    /// ORDER BY, which means output columns before columns of tables.
    fn order(&mut self, select: &'a nodes::SelectStmt, inside: Place) {
        let outputs = select.target_list().iter().take(OUTPUTS_MAX);
        let outputs: Vec<&str> = outputs.filter_map(|output| output.name()).collect();
        let begin = self.tasks.len();
        for sort in select.sort_clause().iter() {
            let role = if is_output(sort.node(), &outputs) { Role::Value } else { Role::Order };
            self.expression(sort.into(), inside.role(role));
        }
        self.tasks[begin..].reverse();
    }

    fn insert(&mut self, insert: &'a nodes::InsertStmt, place: Place) {
        let inside = self.inside(insert.with_clause(), place);
        self.target(insert.relation(), inside.level);
        self.returning(insert.returning_clause(), inside);
        self.assigned_row(insert, inside.level);
        if let Some(conflict) = insert.on_conflict_clause() {
            self.conflict(conflict, inside);
        }
        // The source does not see the target's columns.
        let source = Place { level: place.level, ..inside };
        self.tasks.push(Task::Query(insert.select_stmt(), source));
    }

    /// INSERT of one row with its columns named: which column gets which value.
    fn assigned_row(&mut self, insert: &'a nodes::InsertStmt, level: LevelId) {
        let Node::SelectStmt(source) = insert.select_stmt() else { return };
        let mut rows = source.values_lists().iter();
        let (Some(Node::NodeList(row)), None) = (rows.next(), rows.next()) else { return };
        let target = self.only_owner(level);
        for (column, value) in insert.cols().iter().zip(row.iter()) {
            if let Node::ResTarget(column) = column
                && let Some(name) = column.name()
            {
                let by = Side::of(value).by();
                self.found.column(target, name, Comparison::Assigned, by, false);
            }
        }
    }

    fn conflict(&mut self, conflict: &'a nodes::OnConflictClause, inside: Place) {
        let level = self.new_level(inside.level);
        let place = Place { level, ..inside };
        self.expression(conflict.where_clause(), place);
        self.assignments(conflict.target_list().iter(), inside.level, place);
        if let Some(infer) = conflict.infer() {
            self.expression(infer.where_clause(), inside);
            self.expressions(infer.index_elems().iter(), inside);
        }
    }

    fn update(&mut self, update: &'a nodes::UpdateStmt, place: Place) {
        let inside = self.inside(update.with_clause(), place);
        // The target's columns alone may be assigned, so their level has no other table yet.
        self.target(update.relation(), inside.level);
        self.assignments(update.target_list().iter(), inside.level, inside);
        self.returning(update.returning_clause(), inside);
        self.expression(update.where_clause(), inside.role(ALWAYS));
        self.from(update.from_clause().iter(), inside);
    }

    fn delete(&mut self, delete: &'a nodes::DeleteStmt, place: Place) {
        let inside = self.inside(delete.with_clause(), place);
        self.target(delete.relation(), inside.level);
        self.returning(delete.returning_clause(), inside);
        self.expression(delete.where_clause(), inside.role(ALWAYS));
        self.from(delete.using_clause().iter(), inside);
    }

    fn merge(&mut self, merge: &'a nodes::MergeStmt, place: Place) {
        let inside = self.inside(merge.with_clause(), place);
        self.target(merge.relation(), inside.level);
        let target = self.only_owner(inside.level);
        self.returning(merge.returning_clause(), inside);
        for when in merge.merge_when_clauses().iter() {
            let mut values = when.values().iter();
            for assigned in when.target_list().iter() {
                if let Node::ResTarget(column) = assigned
                    && let Some(name) = column.name()
                {
                    // INSERT has its values beside its columns, UPDATE in them.
                    let by = Side::of(values.next().unwrap_or(column.val())).by();
                    self.found.column(target, name, Comparison::Assigned, by, false);
                }
                self.expression(assigned, inside);
            }
            self.expressions(when.values().iter(), inside);
            self.expression(when.condition(), inside);
        }
        let condition = Role::Condition { always: false };
        self.expression(merge.join_condition(), inside.role(condition));
        self.from([merge.source_relation()], inside);
    }

    /// UPDATE … SET, whose target is the only table of its level by now.
    fn assignments(
        &mut self,
        list: impl Iterator<Item = &'a nodes::ResTarget>,
        target: LevelId,
        place: Place,
    ) {
        let target = self.only_owner(target);
        for assigned in list {
            let by = Side::of(assigned.val()).by();
            if let Some(name) = assigned.name() {
                self.found.column(target, name, Comparison::Assigned, by, false);
            }
            self.expression(assigned.into(), place);
        }
    }

    fn returning(&mut self, clause: Option<&'a nodes::ReturningClause>, place: Place) {
        if let Some(clause) = clause {
            self.expressions(clause.exprs().iter(), place);
        }
    }
}

/// Is this the name of an output column? ORDER BY prefers those to columns of tables.
fn is_output(node: Node<'_>, outputs: &[&str]) -> bool {
    let Node::ColumnRef(column) = node else { return false };
    let mut fields = column.fields().iter();
    match (fields.next().and_then(crate::string), fields.next()) {
        (Some(name), None) => outputs.contains(&name),
        _ => false,
    }
}
