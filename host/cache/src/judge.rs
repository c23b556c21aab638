//! May the answers of a statement be kept, and what were they read from? What is not proven is not kept.

use crate::store::Tag;
use crate::tables::{Tables, is_date_type};
use rustc_hash::FxHashSet;
use std::sync::Arc;
use tidegate_core::limits::NORMALIZED_BYTES_MAX;
use tidegate_core::statement::{Access, FunctionForm, Shape, ShapeKind};

/// Why an answer is not kept. The rules are those of `docs/cache.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deny {
    /// Not one SELECT, VALUES or TABLE.
    NotOneRead,
    /// Something is written on the way.
    Writes,
    /// Rows or objects are locked.
    Locks,
    /// A volatile function.
    Volatile,
    /// A function that tells something else at another time, or by the session, the catalogue or the server.
    Stable,
    /// A word like `'today'`, or a cast to a date of what is no literal.
    DateWord,
    /// A function, operator or cast that users have made.
    UserFunction,
    /// A temporary relation, or the session has some.
    Temporary,
    /// An unlogged table.
    Unlogged,
    /// A sequence, foreign table, system catalogue or system column.
    NotATable,
    /// TABLESAMPLE.
    Sampled,
    /// A relation with row security.
    RowSecurity,
    /// A view that calls or casts what a statement may not.
    View,
    /// The session's settings are not certain, or not such that an answer may be kept.
    Session,
    /// Parts of a batch that are not followed: more than one Execute, a named portal, …
    Batch,
    /// A transaction is open.
    Transaction,
    /// It reaches more than is followed.
    TooMuch,
    /// The text or a name was not understood, or the catalogue is not known.
    Unknown,
}

impl Deny {
    /// All, in the order of the rules.
    pub const ALL: [Deny; 18] = [
        Self::NotOneRead,
        Self::Writes,
        Self::Locks,
        Self::Volatile,
        Self::Stable,
        Self::DateWord,
        Self::UserFunction,
        Self::Temporary,
        Self::Unlogged,
        Self::NotATable,
        Self::Sampled,
        Self::RowSecurity,
        Self::View,
        Self::Session,
        Self::Batch,
        Self::Transaction,
        Self::TooMuch,
        Self::Unknown,
    ];

    /// The rule, as the table of `docs/cache.md` numbers them.
    pub fn rule(self) -> &'static str {
        match self {
            Self::NotOneRead => "R1",
            Self::Writes => "R2",
            Self::Locks => "R3",
            Self::Volatile | Self::View => "R4",
            Self::Stable => "R5",
            Self::DateWord => "R7",
            Self::UserFunction => "R8",
            Self::Temporary => "R9",
            Self::Unlogged => "R10",
            Self::NotATable => "R11",
            Self::Sampled => "R12",
            Self::RowSecurity => "R13",
            Self::Session => "R16",
            Self::Batch => "R17",
            Self::Transaction => "R18",
            Self::TooMuch => "R20",
            Self::Unknown => "R26",
        }
    }

    /// For metrics and explanations.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotOneRead => "not_one_read",
            Self::Writes => "writes",
            Self::Locks => "locks",
            Self::Volatile => "volatile_function",
            Self::Stable => "stable_function",
            Self::DateWord => "date_word",
            Self::UserFunction => "user_function",
            Self::Temporary => "temporary",
            Self::Unlogged => "unlogged",
            Self::NotATable => "not_a_table",
            Self::Sampled => "sampled",
            Self::RowSecurity => "row_security",
            Self::View => "view",
            Self::Session => "session",
            Self::Batch => "batch",
            Self::Transaction => "transaction",
            Self::TooMuch => "too_much",
            Self::Unknown => "unknown",
        }
    }
}

/// Columns that every table has and no write is known by.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
/// Constructs that turn texts into values of any type.
const CONVERTING: [&str; 7] = [
    "xmltable",
    "json_table",
    "json_value",
    "json_query",
    "json_exists",
    "xmlserialize",
    "xmlparse",
];

/// Proves that the answers of a statement depend on its tables, its parameters and the session's settings alone; and says which
/// tables. Literals and parameters are looked at for each execution: [`crate::is_timeless`].
///
/// # Errors
/// What stands against it.
pub fn judge(shape: &Shape, database: &Arc<str>, tables: &Tables) -> Result<Arc<[Tag]>, Deny> {
    if shape.incomplete.is_some() || shape.normalized.len() >= NORMALIZED_BYTES_MAX {
        return Err(Deny::Unknown);
    }
    if shape.kind != ShapeKind::Select {
        return Err(Deny::NotOneRead);
    }
    if shape.access != Access::Reads {
        return Err(Deny::Writes);
    }
    if shape.locks {
        return Err(Deny::Locks);
    }
    for used in &shape.functions {
        match used.form {
            FunctionForm::Call => {
                tables.function(used.schema.as_deref(), &used.name, used.arguments)?;
            }
            FunctionForm::Operator | FunctionForm::Cast => return Err(Deny::UserFunction),
        }
    }
    if shape.literal_dependent {
        return Err(Deny::Stable);
    }
    judge_words(&shape.normalized, tables)?;
    let mut found = FxHashSet::default();
    for table in &shape.tables {
        if table.schema.as_deref().is_some_and(|schema| schema.starts_with("pg_temp")) {
            return Err(Deny::Temporary);
        }
        tables.read(table.schema.as_deref(), &table.name, &mut found)?;
    }
    Ok(found.into_iter().map(|oid| Tag::Relation(database.clone(), oid)).collect())
}

/// A word, a parameter or a mark of a normalized text, which has no literals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Quoted(&'a str),
    Parameter,
    Mark(u8),
}

/// What the shape does not tell, by the words of its text.
fn judge_words(normalized: &str, tables: &Tables) -> Result<(), Deny> {
    let lower = normalized.to_ascii_lowercase();
    let tokens = tokens(&lower).ok_or(Deny::Unknown)?;
    // Quoted names are as they were written.
    let written = self::tokens(normalized).ok_or(Deny::Unknown)?;
    let casts = tokens.contains(&Token::Word("cast"));
    for (at, token) in tokens.iter().enumerate() {
        let (Token::Word(word) | Token::Quoted(word)) = *token else { continue };
        if SYSTEM_COLUMNS.contains(&word) {
            return Err(Deny::NotATable);
        }
        if word == "tablesample" {
            return Err(Deny::Sampled);
        }
        if CONVERTING.contains(&word) {
            return Err(Deny::Unknown);
        }
        let name = match written.get(at) {
            Some(Token::Quoted(quoted)) => quoted,
            _ => word,
        };
        if tables.is_attribute(name) {
            return Err(Deny::UserFunction);
        }
        if is_date_type(word) && is_cast_of_no_literal(&tokens[..at], casts) {
            return Err(Deny::DateWord);
        }
    }
    Ok(())
}

/// Is what stands before a type's name a cast to it, of anything but a literal or a parameter?
fn is_cast_of_no_literal(mut before: &[Token<'_>], casts: bool) -> bool {
    if let [rest @ .., Token::Word("pg_catalog") | Token::Quoted("pg_catalog"), Token::Mark(b'.')] =
        before
    {
        before = rest;
    }
    match before {
        [.., what, Token::Mark(b':'), Token::Mark(b':')] => *what != Token::Parameter,
        [.., Token::Word("cast"), Token::Mark(b'('), Token::Parameter, Token::Word("as")] => false,
        [.., Token::Word("as")] => casts,
        _ => false,
    }
}

/// `None`: not what a normalized text is made of.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    let end_of = |from: usize, is_part: fn(u8) -> bool| {
        bytes[from..]
            .iter()
            .position(|byte| !is_part(*byte))
            .map_or(bytes.len(), |length| from + length)
    };
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => at + 1,
            // Stands for the rest of a list.
            b'/' if bytes.get(at + 1) == Some(&b'*') => at + text.get(at..)?.find("*/")? + 2,
            b'"' => {
                let end = at + 1 + text.get(at + 1..)?.find('"')?;
                tokens.push(Token::Quoted(text.get(at + 1..end)?));
                // A quote within a name.
                if bytes.get(end + 1) == Some(&b'"') {
                    return None;
                }
                end + 1
            }
            b'\'' => return None,
            b'$' => {
                tokens.push(Token::Parameter);
                end_of(at + 1, |byte| byte.is_ascii_digit())
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => {
                let is_part =
                    |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
                let end = end_of(at, is_part);
                tokens.push(Token::Word(text.get(at..end)?));
                end
            }
            mark => {
                tokens.push(Token::Mark(*mark));
                at + 1
            }
        };
        at = end;
    }
    let spelt = tokens.windows(3).any(|three| {
        matches!(three, [Token::Word("u" | "U"), Token::Mark(b'&'), Token::Quoted(_)])
    });
    (!spelt).then_some(tokens)
}
