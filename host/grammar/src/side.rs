//! Comparisons: of which kind they are, and what their sides are.

use crate::string;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::A_Expr_Kind;
use pg_raw_parse::{Node, nodes};
use tidegate_core::statement::{By, Comparison};

/// A column as written: `schema.table.column`, `table.column`, `column`.
#[derive(Clone, Copy)]
pub(crate) struct Column<'a> {
    pub table: Option<&'a str>,
    pub name: &'a str,
}

impl<'a> Column<'a> {
    /// `None` for `*`.
    pub(crate) fn of(column: &'a nodes::ColumnRef) -> Option<Self> {
        let mut fields = column.fields().iter().rev();
        let name = fields.next().and_then(string)?;
        Some(Self { name, table: fields.next().and_then(string) })
    }
}

/// One side of a comparison.
#[derive(Clone, Copy)]
pub(crate) enum Side<'a> {
    Column(Column<'a>),
    Row(&'a NodeList),
    /// Parameters, literals, and lists of one of them.
    Plain(By),
    Expression,
}

impl<'a> Side<'a> {
    pub(crate) fn of(node: Node<'a>) -> Self {
        match node {
            Node::ColumnRef(column) => Column::of(column).map_or(Side::Expression, Side::Column),
            Node::RowExpr(row) => Side::Row(row.args()),
            Node::NodeList(list) => list_side(list),
            Node::A_ArrayExpr(array) => list_side(array.elements()),
            _ => plain(node).map_or(Side::Expression, Side::Plain),
        }
    }

    pub(crate) fn by(self) -> By {
        match self {
            Side::Column(_) => By::Column,
            Side::Plain(by) => by,
            Side::Row(_) | Side::Expression => By::Expression,
        }
    }
}

/// One side of a comparison, with the node that it is.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'a> {
    pub node: Node<'a>,
    pub side: Side<'a>,
}

impl<'a> Operand<'a> {
    /// What is an expression of its own.
    pub(crate) const NONE: Self = Self { node: Node::None, side: Side::Expression };

    pub(crate) fn new(node: Node<'a>) -> Self {
        Self { node, side: Side::of(node) }
    }
}

/// What an operator compares.
pub(crate) fn comparison(kind: A_Expr_Kind::Type, name: &str) -> Comparison {
    match (kind, name) {
        (A_Expr_Kind::AEXPR_OP, "=") => Comparison::Equal,
        (A_Expr_Kind::AEXPR_OP, "<" | "<=" | ">" | ">=") => Comparison::Range,
        (A_Expr_Kind::AEXPR_OP, "~~" | "~~*" | "~" | "~*") => Comparison::Like,
        (A_Expr_Kind::AEXPR_IN | A_Expr_Kind::AEXPR_OP_ANY, "=") => Comparison::In,
        (A_Expr_Kind::AEXPR_NOT_DISTINCT, _) => Comparison::Equal,
        (A_Expr_Kind::AEXPR_BETWEEN | A_Expr_Kind::AEXPR_BETWEEN_SYM, _) => Comparison::Range,
        (
            A_Expr_Kind::AEXPR_LIKE | A_Expr_Kind::AEXPR_ILIKE | A_Expr_Kind::AEXPR_SIMILAR,
            "~~" | "~~*" | "~",
        ) => Comparison::Like,
        _ => Comparison::Other,
    }
}

/// A parameter or literal, also behind casts.
fn plain(mut node: Node<'_>) -> Option<By> {
    loop {
        match node {
            Node::ParamRef(parameter) => {
                return u16::try_from(parameter.number).ok().map(By::Parameter);
            }
            Node::A_Const(_) => return Some(By::Literal),
            Node::TypeCast(cast) => node = cast.arg(),
            _ => return None,
        }
    }
}

/// A list of literals alone, or of consecutive parameters alone; or the rows of `IN ((…), (…))`.
fn list_side<'a>(list: &'a NodeList) -> Side<'a> {
    let mut sides = list.iter().map(plain);
    let Some(Some(first)) = sides.next() else { return Side::Expression };
    let whole = sides.try_fold(first, |so_far, next| match (so_far, next?) {
        (By::Literal, By::Literal) => Some(By::Literal),
        (By::Parameter(first), By::Parameter(next)) if first.checked_add(1) == Some(next) => {
            Some(By::Parameters(first, next))
        }
        (By::Parameters(first, last), By::Parameter(next)) if last.checked_add(1) == Some(next) => {
            Some(By::Parameters(first, next))
        }
        _ => None,
    });
    whole.map_or(Side::Expression, Side::Plain)
}
