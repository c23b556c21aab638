//! Any statement, token by token: calls of functions, temporary objects, and the words that matter anywhere.

use super::functions::{self, Function};
use super::lexer::{Kind as TokenKind, Token};
use super::words::{self as w, Key};
use super::{Effects, Ending, Kind, Reader};

/// What stands before a name, when it is no keyword. Keys of one byte that begin no word.
const NOTHING: Key = 0;
const CLOSE: Key = b')' as Key;
const CAST: Key = b':' as Key;

/// The schema before a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Qualifier {
    None,
    /// `pg_catalog` or `information_schema`.
    System,
    Other,
}

/// A name, perhaps qualified, that may turn out to be a function's.
#[derive(Clone, Copy)]
struct Name {
    /// The last part.
    token: Token,
    /// The last part as a keyword; 0 where it can be none.
    key: Key,
    qualifier: Qualifier,
    /// The token before the first part.
    before: Key,
}

/// Things seen on the way that change how later tokens are read.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen(u8);

impl Seen {
    /// An expression may follow a closing parenthesis: DISTINCT ON (…), OPERATOR(…), RETURNING WITH (…).
    const EXPRESSION_AFTER_CLOSE: u8 = 1;
    /// CREATE INDEX.
    const INDEX: u8 = 2;
    /// CREATE FUNCTION or PROCEDURE.
    const ROUTINE: u8 = 4;
    const UPDATE: u8 = 8;
    const PG_SETTINGS: u8 = 16;
    /// The direction of a COPY.
    const DIRECTION: u8 = 32;

    fn add(&mut self, what: u8) {
        self.0 |= what;
    }

    fn has(self, what: u8) -> bool {
        self.0 & what == what
    }
}

/// The state of reading one statement.
pub(super) struct Body {
    kind: Kind,
    /// Open parentheses.
    depth: u32,
    /// Depth of `BEGIN ATOMIC … END` and the CASEs in it; semicolons do not end the statement there.
    atomic: u32,
    /// The previous token, where it was a keyword or one of the marks above.
    before: Key,
    name: Option<Name>,
    seen: Seen,
}

impl Body {
    pub(super) fn new(kind: Kind, first: Key, depth: u32) -> Self {
        let seen = if kind == Kind::Update { Seen::UPDATE } else { 0 };
        Self { kind, depth, atomic: 0, before: first, name: None, seen: Seen(seen) }
    }

    /// Reads to the end of the statement; the reader then stands on the semicolon or the end of the text.
    pub(super) fn read(mut self, reader: &mut Reader<'_>) -> Ending {
        loop {
            match reader.token.kind {
                TokenKind::Word => self.word(reader),
                TokenKind::Quoted => self.quoted(reader),
                TokenKind::UnicodeQuoted => {
                    // Escapes may spell any name.
                    reader.may(Effects::ANY_STATE);
                    self.other(NOTHING);
                }
                TokenKind::Dot => match self.name.is_some() {
                    true => self.qualified(reader),
                    false => self.other(NOTHING),
                },
                TokenKind::Open => {
                    if let Some(name) = self.name.take() {
                        self.call(reader, name);
                    }
                    self.depth += 1;
                    self.before = NOTHING;
                }
                TokenKind::Close if self.depth == 0 => return Ending::Broken,
                TokenKind::Close => {
                    self.depth -= 1;
                    self.other(CLOSE);
                }
                TokenKind::Cast => self.other(CAST),
                TokenKind::Semicolon if self.depth == 0 && self.atomic == 0 => break,
                TokenKind::End if self.depth == 0 && self.atomic == 0 => break,
                TokenKind::End | TokenKind::Broken => return Ending::Broken,
                _ => self.other(NOTHING),
            }
            reader.advance();
        }
        if self.seen.has(Seen::UPDATE | Seen::PG_SETTINGS) {
            // A rule on that view calls set_config.
            reader.may(Effects::SETS | Effects::UNKNOWN_SETTINGS);
        }
        Ending::Complete
    }

    #[inline]
    fn other(&mut self, mark: Key) {
        self.before = mark;
        self.name = None;
    }

    #[inline]
    fn word(&mut self, reader: &mut Reader<'_>) {
        let key = reader.word();
        let before = self.before;
        self.name = Some(Name { token: reader.token, key, qualifier: Qualifier::None, before });
        self.before = key;
        match key {
            w::TEMP | w::TEMPORARY => self.temporary(reader, before),
            w::INTO => self.selected_into(reader, before),
            w::ON if before == w::DISTINCT => self.seen.add(Seen::EXPRESSION_AFTER_CLOSE),
            w::OPERATOR => self.seen.add(Seen::EXPRESSION_AFTER_CLOSE),
            w::WITH if before == w::RETURNING => self.seen.add(Seen::EXPRESSION_AFTER_CLOSE),
            w::UPDATE => self.seen.add(Seen::UPDATE),
            w::FROM | w::TO if self.kind == Kind::Copy => self.direction(reader, key),
            w::HOLD if before == w::WITH && self.kind == Kind::Declare => {
                reader.may(Effects::HOLD_CURSOR);
            }
            w::EXECUTE => self.execute(reader, before),
            w::CASE | w::END | w::ATOMIC => self.block(key, before),
            w::INDEX if matches!(before, w::CREATE | w::UNIQUE) => self.seen.add(Seen::INDEX),
            w::FUNCTION | w::PROCEDURE if matches!(before, w::CREATE | w::REPLACE) => {
                self.seen.add(Seen::ROUTINE);
            }
            w::EXTENSION if matches!(before, w::CREATE | w::ALTER) => {
                reader.may(Effects::UNKNOWN_SETTINGS);
            }
            _ => self.known_relation(reader, key),
        }
    }

    /// Names that matter wherever they stand.
    #[inline]
    fn known_relation(&mut self, reader: &mut Reader<'_>, key: Key) {
        const SEVEN: Key = (1 << 56) - 1;
        if key & SEVEN == w::PG_TEMP {
            reader.may(Effects::TEMP_OBJECTS);
        } else if key == w::PG_SETTINGS {
            self.seen.add(Seen::PG_SETTINGS);
        }
    }

    fn quoted(&mut self, reader: &mut Reader<'_>) {
        let token = inner(reader.token);
        let key = w::key_of(reader.lexer.text, token.start, token.end);
        self.known_relation(reader, key);
        let name = Name { token, key: 0, qualifier: Qualifier::None, before: self.before };
        self.name = Some(name);
        self.before = NOTHING;
    }

    /// The part after a dot: no keyword, whatever it spells.
    fn qualified(&mut self, reader: &mut Reader<'_>) {
        let Some(mut name) = self.name.take() else { return };
        let schema = reader.text(name.token);
        let mut ahead = reader.lexer;
        let part = ahead.next();
        let token = match part.kind {
            TokenKind::Word => part,
            TokenKind::Quoted => inner(part),
            _ => return self.other(NOTHING),
        };
        let system = schema.eq_ignore_ascii_case(b"pg_catalog")
            || schema.eq_ignore_ascii_case(b"information_schema");
        name.qualifier = if system { Qualifier::System } else { Qualifier::Other };
        name.token = token;
        name.key = 0;
        reader.lexer = ahead;
        self.known_relation(reader, w::key_of(reader.lexer.text, token.start, token.end));
        self.name = Some(name);
        self.before = NOTHING;
    }

    fn temporary(&self, reader: &mut Reader<'_>, before: Key) {
        let created = matches!(before, w::CREATE | w::REPLACE | w::LOCAL | w::GLOBAL);
        let inserted = matches!(self.kind, Kind::Insert | Kind::Merge);
        if created || before == w::INTO && !inserted {
            reader.may(Effects::TEMP_OBJECTS);
        }
    }

    /// SELECT … INTO makes a table.
    fn selected_into(&self, reader: &mut Reader<'_>, before: Key) {
        let selects = matches!(self.kind, Kind::Select | Kind::With | Kind::Values | Kind::Table);
        if selects && !matches!(before, w::INSERT | w::MERGE) {
            reader.may(Effects::DDL);
        }
    }

    fn direction(&mut self, reader: &mut Reader<'_>, key: Key) {
        if self.depth == 0 && !self.seen.has(Seen::DIRECTION) {
            self.seen.add(Seen::DIRECTION);
            reader.may(if key == w::FROM { Effects::COPY_FROM } else { Effects::COPY_TO });
        }
    }

    /// EXPLAIN EXECUTE and CREATE TABLE … AS EXECUTE; not GRANT EXECUTE, not a trigger's EXECUTE FUNCTION.
    fn execute(&mut self, reader: &mut Reader<'_>, before: Key) {
        let executes = self.kind == Kind::Explain || self.kind == Kind::Create && before == w::AS;
        if executes {
            reader.may(Effects::EXECUTES | Effects::UNKNOWN_SETTINGS);
            let mut ahead = reader.lexer;
            let name = ahead.next();
            if let Some(name) = reader.identifier(name) {
                reader.analysis.prepared.push(super::PreparedTouched::Execute(name));
            }
        }
    }

    /// The body of a SQL-standard function: `BEGIN ATOMIC statement; … END`.
    fn block(&mut self, key: Key, before: Key) {
        match key {
            w::ATOMIC if before == w::BEGIN && self.depth == 0 && self.seen.has(Seen::ROUTINE) => {
                self.atomic = 1;
            }
            w::CASE if self.atomic > 0 => self.atomic += 1,
            w::END => self.atomic = self.atomic.saturating_sub(1),
            _ => {}
        }
    }

    /// A name before an opening parenthesis.
    fn call(&mut self, reader: &mut Reader<'_>, name: Name) {
        if is_syntax(name.key, name.before) {
            return;
        }
        let function = match name.qualifier {
            Qualifier::Other => Function::Unknown,
            Qualifier::None | Qualifier::System => functions::lookup(reader.text(name.token)),
        };
        match function {
            Function::SetConfig => reader.set_config(),
            Function::Known(effects) => reader.may(effects),
            Function::Unknown if self.is_no_call(reader, name) => {}
            Function::Unknown if is_information_schema(reader, name) => {}
            Function::Unknown => reader.may(Effects::UNKNOWN_SETTINGS),
        }
    }

    /// Do grammar and position say that the parenthesis after an unknown name opens no argument list?
    fn is_no_call(&self, reader: &Reader<'_>, name: Name) -> bool {
        match name.before {
            w::INTO
            | w::AS
            | w::REFERENCES
            | w::TABLE
            | w::EXISTS
            | w::VIEW
            | w::FUNCTION
            | w::PROCEDURE
            | w::ROUTINE
            | w::AGGREGATE
            | w::WITH
            | w::RECURSIVE
            | w::EXECUTE
            | w::COPY
            | w::ORDINALITY
            | CAST => true,
            w::ON | w::USING | w::ONLY => self.seen.has(Seen::INDEX),
            // `(VALUES …) v(a, b)`, `unnest(…) u(x)`
            CLOSE => queries(self.kind) && !self.seen.has(Seen::EXPRESSION_AFTER_CLOSE),
            _ => {
                matches!(self.kind, Kind::Drop | Kind::OtherDdl | Kind::Maintenance)
                    || is_column_list_of_cte(reader)
            }
        }
    }
}

fn queries(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Select
            | Kind::With
            | Kind::Values
            | Kind::Insert
            | Kind::Update
            | Kind::Delete
            | Kind::Merge
    )
}

/// A quoted identifier without its quotes. A doubled quote stays doubled: no name we know has one.
fn inner(token: Token) -> Token {
    Token { start: token.start + 1, end: token.end - 1, ..token }
}

fn is_information_schema(reader: &Reader<'_>, name: Name) -> bool {
    // Its functions are helpers of its views, all immutable or stable, and begin so.
    name.qualifier == Qualifier::System && reader.text(name.token).starts_with(b"_pg_")
}

/// With the lexer behind `name (`: is this `name (a, b) AS [NOT MATERIALIZED] (query)`?
///
/// A function in FROM may be followed by `AS (column type, …)`, so the query has to begin like one.
fn is_column_list_of_cte(reader: &Reader<'_>) -> bool {
    let mut ahead = reader.lexer;
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
            TokenKind::Word => w::key_of(reader.lexer.text, token.start, token.end),
            TokenKind::Open => b'(' as Key,
            _ => NOTHING,
        }
    };
    const OPEN: Key = b'(' as Key;
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
    next == OPEN
        && match word() {
            w::SELECT | w::WITH | w::TABLE | OPEN => true,
            w::VALUES => word() == OPEN,
            w::INSERT | w::MERGE => word() == w::INTO,
            w::DELETE => word() == w::FROM,
            _ => false,
        }
}

/// Is a keyword before a parenthesis part of the grammar rather than a function's name?
///
/// Reserved words and the words that can't name a function (`pg_get_keywords()`, categories R and C) always are;
/// others are, behind the words that the grammar demands before them.
fn is_syntax(key: Key, before: Key) -> bool {
    match key {
        w::IN
        | w::VALUES
        | w::EXISTS
        | w::COALESCE
        | w::AS
        | w::AND
        | w::OR
        | w::NOT
        | w::ANY
        | w::ALL
        | w::SOME
        | w::FROM
        | w::WHERE
        | w::SELECT
        | w::ON
        | w::USING
        | w::WHEN
        | w::THEN
        | w::ELSE
        | w::CASE
        | w::END
        | w::ARRAY
        | w::ROW
        | w::NULLIF
        | w::GREATEST
        | w::LEAST
        | w::EXTRACT
        | w::SUBSTRING
        | w::POSITION
        | w::OVERLAY
        | w::TRIM
        | w::TREAT
        | w::NORMALIZE
        | w::GROUPING
        | w::UNION
        | w::EXCEPT
        | w::INTERSECT
        | w::DISTINCT
        | w::LIMIT
        | w::OFFSET
        | w::FETCH
        | w::HAVING
        | w::RETURNING
        | w::LATERAL
        | w::BETWEEN
        | w::TO
        | w::BOTH
        | w::GROUP
        | w::ONLY
        | w::WITH
        | w::WINDOW
        | w::FOR => true,
        w::CHECK
        | w::UNIQUE
        | w::REFERENCES
        | w::DEFAULT
        | w::TABLE
        | w::INTO
        | w::ANALYZE
        | w::ANALYSE
        | w::DO
        | w::COLLATE => true,
        w::VARCHAR
        | w::CHAR
        | w::CHARACTER
        | w::NUMERIC
        | w::DECIMAL
        | w::DEC
        | w::FLOAT
        | w::BIT
        | w::INTERVAL
        | w::TIME
        | w::TIMESTAMP
        | w::PRECISION
        | w::INT
        | w::NCHAR
        | w::CURRENT_TIME
        | w::LOCALTIME
        | w::LOCALTIMESTAMP => true,
        w::XMLATTRIBUTES
        | w::XMLCONCAT
        | w::XMLELEMENT
        | w::XMLEXISTS
        | w::XMLFOREST
        | w::XMLNAMESPACES
        | w::XMLPARSE
        | w::XMLPI
        | w::XMLROOT
        | w::XMLSERIALIZE
        | w::XMLTABLE => true,
        // These may name functions, but only if somebody went to the trouble of quoting them at creation.
        w::LIKE | w::ILIKE | w::SIMILAR | w::IS | w::JOIN | w::OPERATOR => true,
        w::OVER | w::FILTER | w::WITHIN => before == CLOSE,
        w::BY => matches!(before, w::ORDER | w::GROUP | w::PARTITION),
        w::KEY => matches!(before, w::PRIMARY | w::FOREIGN),
        w::CONFLICT => before == w::ON,
        w::MATERIALIZED => matches!(before, w::AS | w::NOT),
        w::VARYING => matches!(before, w::CHARACTER | w::CHAR | w::BIT),
        w::SETS => before == w::GROUPING,
        w::ROLLUP | w::CUBE | w::RANGE | w::LIST | w::HASH => before == w::BY,
        w::INCLUDE => before == CLOSE,
        w::STDIN => before == w::FROM,
        w::STDOUT => before == w::TO,
        _ => false,
    }
}
