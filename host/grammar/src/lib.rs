//! PostgreSQL's own grammar → the shape of a statement.
//!
//! The parser is PostgreSQL 18's, as C, behind `pg_raw_parse`. Its tree is walked here with a stack on the heap, so
//! no depth of nesting can overflow the thread's; the parser itself is a table machine that refuses deep nesting with
//! an error. What a statement holds that is not followed here makes its shape incomplete, never wrong.

mod expression; // expressions: comparisons, functions, casts
mod found; // what was found so far, within bounds
mod from; // FROM: which name is which table
mod names; // PostgreSQL's own types and operators
mod query; // SELECT, INSERT, UPDATE, DELETE, MERGE
mod side; // the sides of comparisons
mod statement; // which kind of statement
mod walker; // the work that is left

#[cfg(test)]
mod tests;

use pg_raw_parse::Node;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tidegate_core::statement::{Access, Grammar, Incomplete, Parsed, ShapeKind};

/// PostgreSQL 18's grammar.
#[derive(Clone, Copy, Debug, Default)]
pub struct PostgresGrammar;

impl Grammar for PostgresGrammar {
    fn parse(&mut self, skeleton: &str) -> Parsed {
        // The accessors of the tree check what they cast; if one of them is wrong about a node, that statement is
        // unknown, and the process goes on.
        let parsed = catch_unwind(AssertUnwindSafe(|| parse(skeleton)));
        parsed.unwrap_or_else(|_| Parsed::unknown(Incomplete::Unsupported))
    }
}

fn parse(skeleton: &str) -> Parsed {
    let Ok(tree) = pg_raw_parse::parse(skeleton) else {
        return Parsed::unknown(Incomplete::Unparseable);
    };
    let mut statements = tree.iter().map(|raw| statement::parsed(raw.stmt()));
    let Some(first) = statements.next() else {
        let (kind, access) = (ShapeKind::Empty, Access::Reads);
        return Parsed { kind, access, ..Parsed::default() };
    };
    statements.fold(first, together)
}

/// What two statements are in one text.
fn together(mut all: Parsed, mut next: Parsed) -> Parsed {
    all.kind = ShapeKind::Multiple;
    all.access = all.access.and(next.access);
    all.locks |= next.locks;
    all.literal_dependent |= next.literal_dependent;
    all.incomplete = next.incomplete.or(all.incomplete).or(Some(Incomplete::Multiple));
    all.tables.append(&mut next.tables);
    all.columns.append(&mut next.columns);
    all.functions.append(&mut next.functions);
    all.functions.sort_unstable();
    all.functions.dedup();
    found::within_bounds(all)
}

/// The name of a node that holds nothing but a string.
fn string<'a>(node: Node<'a>) -> Option<&'a str> {
    match node {
        Node::String(text) => text.sval(),
        _ => None,
    }
}
