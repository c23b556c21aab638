//! SQL text → what it does to a session, and what its shape is.
//!
//! [`analyse`] answers the first with a lexer and a small recogniser that err on the side of caution, for each text.
//! [`ShapeCache`] answers the second, once for each fingerprint, with a parser that it is given.
//!
//! `analyse` takes one pass, and no heap for plain statements. What no text shows stays unseen: functions that are called by
//! triggers, operators, casts, views, rules, defaults and `row.function` notation, and user functions
//! that overload a name of `pg_catalog`.

mod body; // any statement, token by token: calls, temporary objects, cursors
mod cache; // shapes by fingerprint
mod commands; // transaction control, DISCARD, prepared statements, …
mod defaults; // ALTER ROLE … SET, ALTER DATABASE … SET
mod effects; // the answer's types
mod encoding; // what a text's bytes are
mod fingerprint; // folded tokens as 128 bits
mod fold; // tokens without what literals hold
mod functions; // which functions matter
mod grammar; // parentheses that call nothing
mod lexer;
mod processes; // pg_backend_pid, pg_terminate_backend
mod render; // folded tokens as text again
mod settings; // SET, RESET, SHOW, set_config
mod shape; // what is found once for each fingerprint
mod tags; // what comments say
mod words; // keywords as integers

#[cfg(test)]
mod tests;

pub use cache::{CacheCounts, Known, ShapeCache, TextSettings};
pub use effects::{
    Effects, Kind, PreparedTouched, RoleNamed, SettingTouched, StartDefaults, TidegateCommand,
};
pub use encoding::{TextEncoding, is_safe_anywhere};
pub use fingerprint::{Fingerprinter, Reading, Unreadable};
pub use processes::{ProcessCommand, ProcessNamed, Signal, SignalCall, with_number};
pub use shape::{
    Access, By, ColumnUse, Comparison, Family, Fingerprint, FunctionForm, FunctionUse, Grammar,
    Incomplete, Parsed, Shape, ShapeKind, TableUse,
};
pub use tags::Tags;

use crate::limits::STATEMENT_BYTES_MAX;
use body::Body;
pub use functions::is_built_in as is_built_in_function;
use lexer::{Kind as TokenKind, Lexer, Token};

/// How `\` in a plain string literal is read: the setting `standard_conforming_strings`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StringSyntax {
    /// `standard_conforming_strings = on`: a backslash is a character like any other.
    #[default]
    Standard,
    /// `standard_conforming_strings = off`: a backslash escapes what follows.
    Backslash,
}

/// What a text may do to the session that runs it.
///
/// For the extended protocol: analyse at Parse, apply at Execute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    pub effects: Effects,
    /// Non-empty statements; 0 is an empty query, `u16::MAX` is that many or more.
    pub statements: u16,
    /// The first statement's command.
    pub kind: Kind,
    /// Settings by name, in the order of the text; usually empty and then without heap.
    pub names: Vec<SettingTouched>,
    /// SQL-level prepared statements by name, in the order of the text.
    pub prepared: Vec<PreparedTouched>,
    /// Whose sessions begin with other settings when the text has run; usually empty.
    pub start_defaults: Vec<StartDefaults>,
    /// Databases that the text drops, renames, moves or copies, which nobody may be connected to then; usually empty.
    pub vacated: Vec<String>,
    /// Present when the text is exactly one statement and that is about a virtual setting.
    pub tidegate: Option<Box<TidegateCommand>>,
    /// Present when the text is exactly one statement and asks something of server processes by a form that is taken.
    pub process: Option<Box<ProcessCommand>>,
}

impl Analysis {
    /// The answer for a text that is not understood or must not be read: it may do anything.
    pub fn unknown() -> Self {
        Self { effects: Effects::ANY_STATE, statements: 1, kind: Kind::Other, ..Self::default() }
    }

    /// Is it one statement that SQL's PREPARE takes (`PreparableStmt` of gram.y)? What else may be parsed has effects that must be
    /// known when it is bound.
    pub fn is_one_preparable(&self) -> bool {
        self.statements == 1
            && matches!(
                self.kind,
                Kind::Select
                    | Kind::With
                    | Kind::Values
                    | Kind::Table
                    | Kind::Insert
                    | Kind::Update
                    | Kind::Delete
                    | Kind::Merge
            )
    }

    /// Leaves nothing behind in the session and does not begin or end a transaction.
    pub fn is_plain(&self) -> bool {
        self.effects.is_empty()
    }
}

/// Analyses a text as a session with `standard_conforming_strings = on` reads it.
///
/// Only for client encodings in which every byte below 0x80 is that ASCII character (UTF8, LATINn, EUC_*, …):
/// in SJIS, BIG5, GBK, UHC, JOHAB, SHIFT_JIS_2004 and GB18030 a quote or backslash may be half a
/// character, so callers use [`Analysis::unknown`] there.
pub fn analyse(sql: &[u8]) -> Analysis {
    analyse_with(sql, StringSyntax::Standard)
}

/// [`analyse`] for a session with the given string syntax.
pub fn analyse_with(sql: &[u8], strings: StringSyntax) -> Analysis {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Analysis::unknown();
    }
    let mut reader = Reader::new(Lexer::new(sql, strings));
    loop {
        match reader.lexer.token.kind {
            TokenKind::End => break,
            TokenKind::Semicolon => reader.advance(),
            _ => match reader.statement() {
                Ending::Complete => {}
                Ending::Broken => return Analysis::unknown(),
            },
        }
    }
    let mut analysis = reader.analysis;
    if analysis.statements != 1 {
        (analysis.tidegate, analysis.process) = (None, None);
    }
    analysis
}

/// How the reading of a statement ended.
enum Ending {
    /// At its semicolon or at the end of the text.
    Complete,
    /// The text is not what PostgreSQL accepts, or we misread it.
    Broken,
}

/// A text being read: the lexer on the current token, and what is known so far.
struct Reader<'a> {
    lexer: Lexer<'a>,
    analysis: Analysis,
}

impl<'a> Reader<'a> {
    fn new(mut lexer: Lexer<'a>) -> Self {
        lexer.advance();
        Self { lexer, analysis: Analysis::default() }
    }

    #[inline]
    fn advance(&mut self) {
        self.lexer.advance();
    }

    /// The text of a token.
    #[inline]
    fn text(&self, token: Token) -> &'a [u8] {
        &self.lexer.text[token.start()..token.end()]
    }

    /// The current token as a keyword; 0 when it is none.
    #[inline]
    fn word(&self) -> words::Key {
        match self.lexer.token.kind {
            TokenKind::Word => {
                words::key_of(self.lexer.text, self.lexer.token.start(), self.lexer.token.end())
            }
            _ => 0,
        }
    }

    fn may(&mut self, effects: Effects) {
        self.analysis.effects |= effects;
    }

    /// The text calls a function about server processes.
    fn about_processes(&mut self) {
        if self.analysis.process.is_none() {
            self.analysis.process = processes::read(self.lexer.text, self.lexer.strings);
        }
    }

    /// Reads one statement: its command's own grammar as far as that matters, then the rest as a body.
    fn statement(&mut self) -> Ending {
        let mut depth = 0;
        while self.lexer.token.kind == TokenKind::Open {
            depth += 1;
            self.advance();
        }
        let first = self.lexer.token;
        let word = self.word();
        let kind = commands::kind(word, self.text(first));
        if self.analysis.statements == 0 {
            self.analysis.kind = kind;
        }
        self.analysis.statements = self.analysis.statements.saturating_add(1);
        if !matches!(first.kind, TokenKind::Broken | TokenKind::End | TokenKind::Semicolon) {
            self.advance();
        }
        let kind = self.command(kind);
        Body::new(kind, word, depth).read(self)
    }
}
