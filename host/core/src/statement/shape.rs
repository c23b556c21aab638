//! A statement's shape: what its text says apart from its literals, as plain data.
//!
//! One shape stands for all texts with the same fingerprint, so it never depends on what a literal holds. What
//! only the catalogue knows (volatile functions, what a view reads, row security) is judged elsewhere, by these names.

use super::functions;
use std::mem::size_of;

/// The identity of a shape within this process: a keyed 128-bit hash of the text's tokens without its literals.
///
/// Equal fingerprints mean equal tokens, but for literals and the lengths of lists of literals. It differs between
/// processes, so that nobody can make two statements collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

/// Shapes that differ only in the lengths of lists of parameters share a family: `IN ($1)` and `IN ($1, $2)`. For
/// statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Family(pub u128);

/// What a statement is, found once for each fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub fingerprint: Fingerprint,
    pub family: Family,
    /// The text with a parameter for each literal, numbered after its own, and one element for each list of literals;
    /// cut at `limits::NORMALIZED_BYTES_MAX`. Never holds a literal. Empty where the text has no tokens we trust.
    pub normalized: Box<str>,
    pub kind: ShapeKind,
    pub access: Access,
    /// FOR UPDATE, FOR SHARE and their kin, LOCK.
    pub locks: bool,
    /// Each use of a table; a table joined to itself is used twice. Names of WITH queries are
    /// no tables. For [`ShapeKind::Ddl`] only what the text names outright: treat it as touching everything.
    pub tables: Vec<TableUse>,
    /// Columns that are compared, of which the text does not say whose they are.
    pub columns: Vec<ColumnUse>,
    /// Each function, and each operator and type that is none of PostgreSQL's own, once. A call written as
    /// `row.function` looks like a column and is not among them.
    pub functions: Vec<FunctionUse>,
    /// The highest n of `$n`.
    pub parameters: u16,
    /// A literal says what is read, written or changed: `nextval('s')`, `SET`, `dblink('…')`. Look at each text.
    pub literal_dependent: bool,
    /// Why less is known than the text says. Such a statement runs on the primary, and its result is not kept.
    pub incomplete: Option<Incomplete>,
}

/// What kind of statement it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShapeKind {
    /// SELECT, VALUES, TABLE, with or without WITH. Look at `access`: a WITH query may write.
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Copy,
    /// CREATE, ALTER, DROP, TRUNCATE, GRANT, SELECT INTO and whatever else changes the catalogue.
    Ddl,
    /// BEGIN, COMMIT, SAVEPOINT, PREPARE TRANSACTION, …
    Transaction,
    /// SET, SHOW, DISCARD, PREPARE, EXECUTE, DECLARE, FETCH, LISTEN, …
    Session,
    /// EXPLAIN, LOCK, VACUUM, CALL, DO, NOTIFY, …
    Utility,
    /// More than one statement. `access`, `tables` and the rest are those of all together.
    Multiple,
    /// No statement: only white space, comments and semicolons.
    Empty,
    #[default]
    Unknown,
}

/// What is done to data, by the text alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads and nothing else, unless a function or view that it names does more.
    Reads,
    Writes,
    /// The text does not tell: EXECUTE, FETCH, SET, BEGIN, or a text that was not understood.
    #[default]
    Unknown,
}

impl Access {
    /// What two statements do together.
    #[must_use]
    pub fn and(self, other: Access) -> Access {
        match (self, other) {
            (Access::Writes, _) | (_, Access::Writes) => Access::Writes,
            (Access::Reads, Access::Reads) => Access::Reads,
            _ => Access::Unknown,
        }
    }
}

/// One use of a table, view or sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableUse {
    /// As written; `None` means that search_path decides.
    pub schema: Option<Box<str>>,
    pub name: Box<str>,
    /// A target of INSERT, UPDATE, … is `Writes`, although UPDATE reads it, too.
    pub access: Access,
    pub columns: Vec<ColumnUse>,
}

/// A column and what it is compared by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnUse {
    pub column: Box<str>,
    pub comparison: Comparison,
    pub by: By,
    /// Every row taken from the table passes this comparison: it is not under OR or NOT, nor in an outer join's ON.
    pub always: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal,
    /// `<`, `<=`, `>`, `>=`, BETWEEN.
    Range,
    /// IN, `= ANY`.
    In,
    /// LIKE, ILIKE, SIMILAR TO, regular expressions.
    Like,
    /// IS NULL, IS NOT NULL.
    Null,
    /// With a column of another table.
    Join,
    Order,
    /// GROUP BY, DISTINCT ON.
    Group,
    /// Given a value: UPDATE … SET, and an INSERT of one row with its columns named.
    Assigned,
    /// Any other operator, or the column is part of an expression that is compared.
    Other,
}

/// The other side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// `$n`.
    Parameter(u16),
    /// A list of consecutive parameters, from the first to the last: `IN ($2, $3, $4)`.
    Parameters(u16, u16),
    Literal,
    Column,
    Expression,
}

/// A function that is called; or an operator, or the type of a cast, that is none of PostgreSQL's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionUse {
    /// As written; `None` means that search_path decides.
    pub schema: Option<Box<str>>,
    pub name: Box<str>,
    pub arguments: u16,
    pub form: FunctionForm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FunctionForm {
    #[default]
    Call,
    /// `name` is the operator's.
    Operator,
    /// `name` is the type's.
    Cast,
}

/// Why a shape is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Incomplete {
    /// Longer than `limits::SHAPE_TEXT_BYTES_MAX`, or than `limits::SHAPE_PARSE_BYTES_MAX` without its literals.
    TooLarge,
    /// More than `limits::SHAPE_TOKENS_MAX` tokens without its literals.
    TooManyTokens,
    /// More tables, columns or functions than `limits::SHAPE_NAMES_MAX`.
    TooManyNames,
    /// PostgreSQL's grammar does not accept it. The server's may be another version: the server decides.
    Unparseable,
    /// Not UTF-8 outside of its literals, or an encoding in which a quote may be half a character.
    Encoding,
    /// More than one statement.
    Multiple,
    /// A construct that this version of Tidegate does not follow.
    Unsupported,
}

impl Incomplete {
    /// For metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Incomplete::TooLarge => "too-large",
            Incomplete::TooManyTokens => "too-many-tokens",
            Incomplete::TooManyNames => "too-many-names",
            Incomplete::Unparseable => "unparseable",
            Incomplete::Encoding => "encoding",
            Incomplete::Multiple => "multiple",
            Incomplete::Unsupported => "unsupported",
        }
    }
}

/// What a grammar says of one text: the part of a [`Shape`] that takes a parser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub kind: ShapeKind,
    pub access: Access,
    pub locks: bool,
    pub tables: Vec<TableUse>,
    pub columns: Vec<ColumnUse>,
    pub functions: Vec<FunctionUse>,
    pub literal_dependent: bool,
    pub incomplete: Option<Incomplete>,
}

impl Parsed {
    /// The answer where nothing is known but why.
    pub fn unknown(why: Incomplete) -> Parsed {
        Parsed { literal_dependent: true, incomplete: Some(why), ..Parsed::default() }
    }
}

/// A parser of SQL, as the cache needs it.
pub trait Grammar {
    /// Reads a text in which every literal is empty or 1 and every list of literals has one element
    /// (see `render::skeleton`). Never panics, and bounds its own stack and memory.
    fn parse(&mut self, skeleton: &str) -> Parsed;
}

impl Shape {
    /// One SELECT that only reads as far as its text tells: what a replica may answer and a cache may keep, if the
    /// catalogue has nothing against its functions and views.
    pub fn is_plain_read(&self) -> bool {
        self.kind == ShapeKind::Select
            && self.access == Access::Reads
            && !self.locks
            && self.incomplete.is_none()
    }

    /// Does it name what belongs to a session: temporary tables, or functions of PostgreSQL's own for advisory locks,
    /// sequences, large objects, …?
    pub fn touches_session(&self) -> bool {
        let temporary = |schema: Option<&str>| schema.is_some_and(|s| s.starts_with("pg_temp"));
        let touches = |used: &FunctionUse| match used.schema.as_deref() {
            None | Some("pg_catalog") => {
                used.form == FunctionForm::Call && functions::touches_session(used.name.as_bytes())
            }
            other => temporary(other),
        };
        self.tables.iter().any(|table| temporary(table.schema.as_deref()))
            || self.functions.iter().any(touches)
    }

    /// Memory that the shape holds, in bytes.
    pub fn bytes(&self) -> usize {
        let schema = |name: &Option<Box<str>>| name.as_ref().map_or(0, |name| name.len());
        let columns = |columns: &Vec<ColumnUse>| {
            let names: usize = columns.iter().map(|used| used.column.len()).sum();
            names + columns.capacity() * size_of::<ColumnUse>()
        };
        let tables = self
            .tables
            .iter()
            .map(|table| schema(&table.schema) + table.name.len() + columns(&table.columns));
        let functions = self.functions.iter().map(|f| schema(&f.schema) + f.name.len());
        size_of::<Shape>()
            + self.normalized.len()
            + self.tables.capacity() * size_of::<TableUse>()
            + self.functions.capacity() * size_of::<FunctionUse>()
            + columns(&self.columns)
            + tables.sum::<usize>()
            + functions.sum::<usize>()
    }
}
