//! Which kind of statement, and what of it is worth a walk.

use crate::from::schema_and_name;
use crate::string;
use crate::walker::{OUTSIDE, Task, Walker};
use pg_raw_parse::raw::ObjectType;
use pg_raw_parse::{Node, nodes};
use tidegate_core::statement::{Access, Parsed, ShapeKind};

/// What one statement is.
pub(crate) fn parsed(node: Node<'_>) -> Parsed {
    match node {
        Node::SelectStmt(_) => query(ShapeKind::Select, node),
        Node::InsertStmt(_) => query(ShapeKind::Insert, node),
        Node::UpdateStmt(_) => query(ShapeKind::Update, node),
        Node::DeleteStmt(_) => query(ShapeKind::Delete, node),
        Node::MergeStmt(_) => query(ShapeKind::Merge, node),
        Node::CopyStmt(copy) => self::copy(copy),
        Node::ExplainStmt(explain) => self::explain(explain),
        Node::DeclareCursorStmt(cursor) => query(ShapeKind::Session, cursor.query()),
        _ => control(node).or_else(|| utility(node)).unwrap_or_else(|| definition(node)),
    }
}

/// A statement that holds no names: only its kind, and what it does.
fn plain(kind: ShapeKind, access: Access) -> Parsed {
    Parsed { kind, access, ..Parsed::default() }
}

/// The same, where a literal matters.
fn by_literal(kind: ShapeKind, access: Access) -> Parsed {
    Parsed { literal_dependent: true, ..plain(kind, access) }
}

/// Statements about the transaction or the session.
fn control(node: Node<'_>) -> Option<Parsed> {
    let parsed = match node {
        Node::TransactionStmt(statement) => Parsed {
            literal_dependent: statement.gid().is_some(),
            ..plain(ShapeKind::Transaction, Access::Unknown)
        },
        Node::ConstraintsSetStmt(_) => plain(ShapeKind::Transaction, Access::Unknown),
        Node::VariableShowStmt(_) => plain(ShapeKind::Session, Access::Reads),
        Node::VariableSetStmt(_) | Node::LoadStmt(_) | Node::ListenStmt(_) => {
            by_literal(ShapeKind::Session, Access::Unknown)
        }
        Node::UnlistenStmt(_)
        | Node::DiscardStmt(_)
        | Node::PrepareStmt(_)
        | Node::ExecuteStmt(_)
        | Node::DeallocateStmt(_)
        | Node::FetchStmt(_)
        | Node::ClosePortalStmt(_) => plain(ShapeKind::Session, Access::Unknown),
        _ => return None,
    };
    Some(parsed)
}

/// Statements that work on data or on the server without defining anything.
fn utility(node: Node<'_>) -> Option<Parsed> {
    let mut walker = Walker::new();
    match node {
        Node::NotifyStmt(_) | Node::DoStmt(_) => {
            return Some(by_literal(ShapeKind::Utility, Access::Writes));
        }
        Node::CheckPointStmt(_) => return Some(plain(ShapeKind::Utility, Access::Writes)),
        Node::CallStmt(call) => {
            let call = call.funccall();
            walker.expression(call.into(), walker.outside());
        }
        Node::LockStmt(lock) => {
            walker.found.locks = true;
            written(&mut walker, lock.relations().iter());
        }
        Node::VacuumStmt(vacuum) => {
            for table in vacuum.rels().iter() {
                walker.target(table.relation(), OUTSIDE);
            }
        }
        Node::ClusterStmt(cluster) => written(&mut walker, cluster.relation().map(Node::from)),
        Node::ReindexStmt(reindex) => written(&mut walker, reindex.relation().map(Node::from)),
        _ => return None,
    }
    // A procedure may do anything.
    Some(Parsed { kind: ShapeKind::Utility, access: Access::Writes, ..walker.parsed() })
}

/// Statements that change the catalogue, with the tables that they name outright.
fn definition(node: Node<'_>) -> Parsed {
    let mut walker = Walker::new();
    match node {
        Node::CreateTableAsStmt(create) => {
            written(&mut walker, create.into().and_then(|into| into.rel()).map(Node::from));
            // CREATE TABLE … AS EXECUTE runs what only the session knows.
            if !matches!(create.query(), Node::ExecuteStmt(_)) {
                walker.tasks.push(Task::Query(create.query(), walker.outside()));
            }
        }
        Node::ViewStmt(view) => {
            written(&mut walker, view.view().map(Node::from));
            walker.tasks.push(Task::Query(view.query(), walker.outside()));
        }
        Node::CreateStmt(create) => {
            written(&mut walker, create.relation().map(Node::from));
            written(&mut walker, create.inh_relations().iter());
        }
        Node::TruncateStmt(truncate) => written(&mut walker, truncate.relations().iter()),
        Node::DropStmt(drop) => dropped(&mut walker, drop),
        Node::CreateFunctionStmt(_) => walker.found.literal_dependent = true,
        // The parser gives only nodes that it knows.
        Node::None | Node::Invalid(_) => walker.found.unsupported(),
        _ => written(&mut walker, relation(node).map(Node::from)),
    }
    Parsed { kind: ShapeKind::Ddl, access: Access::Writes, ..walker.parsed() }
}

/// The table that a definition is about.
fn relation<'a>(node: Node<'a>) -> Option<&'a nodes::RangeVar> {
    match node {
        Node::AlterTableStmt(s) => s.relation(),
        Node::IndexStmt(s) => s.relation(),
        Node::RenameStmt(s) => s.relation(),
        Node::RefreshMatViewStmt(s) => s.relation(),
        Node::CreateTrigStmt(s) => s.relation(),
        Node::RuleStmt(s) => s.relation(),
        Node::AlterObjectSchemaStmt(s) => s.relation(),
        Node::CreatePolicyStmt(s) => s.table(),
        Node::AlterPolicyStmt(s) => s.table(),
        Node::CreateSeqStmt(s) => s.sequence(),
        Node::AlterSeqStmt(s) => s.sequence(),
        _ => None,
    }
}

fn written<'a>(walker: &mut Walker<'a>, tables: impl IntoIterator<Item = Node<'a>>) {
    for table in tables {
        match table {
            Node::RangeVar(table) => walker.target(Some(table), OUTSIDE),
            _ => walker.found.unsupported(),
        }
    }
}

fn dropped<'a>(walker: &mut Walker<'a>, drop: &'a nodes::DropStmt) {
    let holds_rows = matches!(
        drop.remove_type,
        ObjectType::OBJECT_TABLE
            | ObjectType::OBJECT_VIEW
            | ObjectType::OBJECT_MATVIEW
            | ObjectType::OBJECT_FOREIGN_TABLE
            | ObjectType::OBJECT_SEQUENCE
    );
    if !holds_rows {
        return;
    }
    for name in drop.objects().iter().filter_map(|object| object.as_node_list()) {
        let parts = name.iter().filter_map(string);
        if let (schema, Some(name)) = schema_and_name(parts) {
            walker.found.table(schema, name, Access::Writes);
        }
    }
}

/// A statement that is a query, or holds nothing else.
fn query(kind: ShapeKind, node: Node<'_>) -> Parsed {
    let mut walker = Walker::new();
    walker.tasks.push(Task::Query(node, walker.outside()));
    walker.run();
    let kind = if walker.found.into { ShapeKind::Ddl } else { kind };
    Parsed { kind, ..walker.found.into_parsed() }
}

fn copy(copy: &nodes::CopyStmt) -> Parsed {
    let mut walker = Walker::new();
    let inside = walker.outside();
    match (copy.relation(), copy.is_from) {
        (Some(_), true) => walker.target(copy.relation(), OUTSIDE),
        (Some(table), false) => walker.from([table.into()], inside),
        (None, _) => walker.tasks.push(Task::Query(copy.query(), inside)),
    }
    walker.expression(copy.where_clause(), inside);
    let mut parsed = Parsed { kind: ShapeKind::Copy, ..walker.parsed() };
    if copy.filename().is_some() {
        // A file or a program on the server.
        parsed.literal_dependent = true;
        parsed.access = Access::Writes;
    }
    parsed
}

fn explain(explain: &nodes::ExplainStmt) -> Parsed {
    let mut inner = match explain.query() {
        // What was prepared is not in the text.
        Node::ExecuteStmt(_) => plain(ShapeKind::Utility, Access::Unknown),
        Node::CreateTableAsStmt(_) | Node::RefreshMatViewStmt(_) => definition(explain.query()),
        query => self::query(ShapeKind::Utility, query),
    };
    inner.kind = ShapeKind::Utility;
    let runs = explain.options().iter().any(|option| {
        let off = matches!(option.arg().as_str(), Some("off" | "false"));
        option.defname() == Some("analyze") && !off
    });
    if !runs && inner.access == Access::Writes {
        // Planned only: nothing is written.
        inner.access = Access::Reads;
        inner.tables.iter_mut().for_each(|table| table.access = Access::Reads);
    }
    inner
}
