//! Which parentheses belong to the grammar rather than to a call.

use super::lexer::{Kind as TokenKind, Lexer};
use super::words::{self as w, Key};

/// With the lexer behind `name (`: is this `name (a, b) AS [NOT MATERIALIZED] (query)`?
///
/// A function in FROM may be followed by `AS (column type, …)`, so the query has to begin like one.
pub(super) fn is_column_list_of_cte(mut ahead: Lexer<'_>) -> bool {
    // Only names and commas are passed over, which no other look-ahead passes again: linear.
    loop {
        match ahead.next().kind {
            TokenKind::Word | TokenKind::Quoted | TokenKind::Comma => {}
            TokenKind::Close => break,
            _ => return false,
        }
    }
    let mut word = || {
        let token = ahead.next();
        match token.kind {
            TokenKind::Word => w::key_of(ahead.text, token.start(), token.end()),
            TokenKind::Open => w::PAREN_OPEN,
            _ => w::NOTHING,
        }
    };
    if word() != w::AS {
        return false;
    }
    let mut next = word();
    if next == w::NOT {
        next = word();
    }
    if next == w::MATERIALIZED {
        next = word();
    }
    next == w::PAREN_OPEN
        && match word() {
            w::SELECT | w::WITH | w::TABLE | w::PAREN_OPEN => true,
            w::VALUES => word() == w::PAREN_OPEN,
            w::INSERT | w::MERGE => word() == w::INTO,
            w::DELETE => word() == w::FROM,
            _ => false,
        }
}

/// Is a keyword before a parenthesis part of the grammar rather than a function's name?
///
/// Reserved words and the words that can't name a function (`pg_get_keywords()`, categories R and C) always are;
/// others are, behind the words that the grammar demands before them.
#[rustfmt::skip] // one word a line would hide the groups
pub(super) fn is_syntax(key: Key, before: Key) -> bool {
    match key {
        w::IN | w::CAST | w::VALUES | w::EXISTS | w::COALESCE | w::AS | w::AND | w::OR | w::NOT | w::ANY
        | w::ALL | w::SOME | w::FROM | w::WHERE | w::SELECT | w::ON | w::USING | w::WHEN | w::THEN | w::ELSE
        | w::CASE | w::END | w::ARRAY | w::ROW | w::NULLIF | w::GREATEST | w::LEAST | w::EXTRACT
        | w::SUBSTRING | w::POSITION | w::OVERLAY | w::TRIM | w::TREAT | w::NORMALIZE | w::GROUPING | w::UNION
        | w::EXCEPT | w::INTERSECT | w::DISTINCT | w::LIMIT | w::OFFSET | w::FETCH | w::HAVING | w::RETURNING
        | w::LATERAL | w::BETWEEN | w::TO | w::BOTH | w::GROUP | w::ONLY | w::WITH | w::WINDOW | w::FOR => true,
        // definitions
        w::CHECK | w::UNIQUE | w::REFERENCES | w::DEFAULT | w::TABLE | w::INTO | w::ANALYZE | w::ANALYSE
        | w::DO | w::COLLATE => true,
        // types
        w::VARCHAR | w::CHAR | w::CHARACTER | w::NUMERIC | w::DECIMAL | w::DEC | w::FLOAT | w::BIT
        | w::INTERVAL | w::TIME | w::TIMESTAMP | w::PRECISION | w::INT | w::NCHAR | w::CURRENT_TIME
        | w::LOCALTIME | w::LOCALTIMESTAMP => true,
        w::XMLATTRIBUTES | w::XMLCONCAT | w::XMLELEMENT | w::XMLEXISTS | w::XMLFOREST | w::XMLNAMESPACES
        | w::XMLPARSE | w::XMLPI | w::XMLROOT | w::XMLSERIALIZE | w::XMLTABLE => true,
        // These may name functions, but only if somebody went to the trouble of quoting them at creation.
        w::LIKE | w::ILIKE | w::SIMILAR | w::IS | w::JOIN | w::OPERATOR => true,
        w::OVER | w::FILTER | w::WITHIN | w::INCLUDE => before == w::PAREN_CLOSE,
        w::BY => matches!(before, w::ORDER | w::GROUP | w::PARTITION),
        w::KEY => matches!(before, w::PRIMARY | w::FOREIGN),
        w::CONFLICT => before == w::ON,
        w::ALSO | w::INSTEAD => before == w::DO,
        w::MATERIALIZED => matches!(before, w::AS | w::NOT),
        w::VARYING => matches!(before, w::CHARACTER | w::CHAR | w::BIT),
        w::SETS => before == w::GROUPING,
        w::ROLLUP | w::CUBE | w::RANGE | w::LIST | w::HASH => before == w::BY,
        w::STDIN => before == w::FROM,
        w::STDOUT => before == w::TO,
        _ => false,
    }
}
