//! Any statement, token by token: calls of functions, temporary objects, and the words that matter anywhere.

use super::functions::{self, Function};
use super::grammar::{is_column_list_of_cte, is_syntax};
use super::lexer::{Kind as TokenKind, Token};
use super::words::{self as w, Key};
use super::{Effects, Ending, Kind, Reader};

/// The last part of a name that may turn out to be a function's.
#[derive(Clone, Copy)]
struct Name {
    start: usize,
    end: usize,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// No name: the previous token was something else.
    None,
    /// One word without quotes; perhaps a keyword.
    Bare,
    /// Quoted, without a schema.
    Quoted,
    /// Behind `pg_catalog.` or `information_schema.`
    System,
    /// Behind any other schema.
    Foreign,
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
    name: Name,
    /// What `before` was at the first part of `name`.
    before_name: Key,
    seen: Seen,
}

impl Body {
    pub(super) fn new(kind: Kind, first: Key, depth: u32) -> Self {
        let seen = if kind == Kind::Update { Seen::UPDATE } else { 0 };
        let name = Name { start: 0, end: 0, form: Form::None };
        let (before, seen) = (first, Seen(seen));
        Self { kind, depth, atomic: 0, before, name, before_name: w::NOTHING, seen }
    }

    /// Reads to the end of the statement; the reader then stands on the semicolon or the end of the text.
    pub(super) fn read(mut self, reader: &mut Reader<'_>) -> Ending {
        loop {
            match reader.lexer.token.kind {
                TokenKind::Word => self.word(reader),
                TokenKind::Quoted => self.quoted(reader),
                TokenKind::UnicodeQuoted => {
                    // Escapes may spell any name.
                    reader.may(Effects::ANY_STATE);
                    self.other(w::NOTHING);
                }
                TokenKind::Dot if self.name.form == Form::None => self.other(w::NOTHING),
                TokenKind::Dot => self.qualified(reader),
                TokenKind::Open => {
                    self.call(reader);
                    self.depth += 1;
                    self.other(w::NOTHING);
                }
                TokenKind::Close if self.depth == 0 => return Ending::Broken,
                TokenKind::Close => {
                    self.depth -= 1;
                    self.other(w::PAREN_CLOSE);
                }
                TokenKind::Cast => self.other(w::COLONS),
                TokenKind::Semicolon if self.depth == 0 && self.atomic == 0 => break,
                TokenKind::End if self.depth == 0 && self.atomic == 0 => break,
                TokenKind::End | TokenKind::Broken => return Ending::Broken,
                _ => self.other(w::NOTHING),
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
        self.name.form = Form::None;
    }

    #[inline]
    fn word(&mut self, reader: &mut Reader<'_>) {
        let key = reader.word();
        let before = self.before;
        self.named(reader.lexer.token, Form::Bare);
        self.before_name = before;
        self.before = key;
        if may_matter(key, reader.lexer.token.end() - reader.lexer.token.start()) {
            self.keyword(reader, key, before);
        }
    }

    #[inline]
    fn named(&mut self, token: Token, form: Form) {
        self.name = Name { start: token.start(), end: token.end(), form };
    }

    fn keyword(&mut self, reader: &mut Reader<'_>, key: Key, before: Key) {
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
            w::LANGUAGE if self.seen.has(Seen::ROUTINE) => language(reader),
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
        let token = reader.lexer.token.inner();
        let key = w::key_of(reader.lexer.text, token.start(), token.end());
        self.known_relation(reader, key);
        self.named(token, Form::Quoted);
        self.before_name = self.before;
        self.before = w::NOTHING;
    }

    /// The part after a dot: no keyword, whatever it spells.
    fn qualified(&mut self, reader: &mut Reader<'_>) {
        let schema = &reader.lexer.text[self.name.start..self.name.end];
        let mut ahead = reader.lexer;
        let part = ahead.next();
        let token = match part.kind {
            TokenKind::Word => part,
            TokenKind::Quoted => part.inner(),
            _ => return self.other(w::NOTHING),
        };
        reader.lexer = ahead;
        self.known_relation(reader, w::key_of(reader.lexer.text, token.start(), token.end()));
        let system = schema.eq_ignore_ascii_case(b"pg_catalog")
            || schema.eq_ignore_ascii_case(b"information_schema");
        self.named(token, if system { Form::System } else { Form::Foreign });
        self.before = w::NOTHING;
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
        let executes = match self.kind {
            Kind::Explain => true,
            Kind::Create | Kind::DefineRelation => before == w::AS,
            _ => false,
        };
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

    /// An opening parenthesis: what does the name before it, if there is one, call?
    #[inline]
    fn call(&mut self, reader: &mut Reader<'_>) {
        let name = self.name;
        let text = &reader.lexer.text[name.start..name.end];
        let function = match name.form {
            Form::None => return,
            Form::Bare if is_syntax(self.before, self.before_name) => return,
            Form::Bare | Form::Quoted | Form::System => functions::lookup(text),
            Form::Foreign => Function::Unknown,
        };
        match function {
            Function::SetConfig => reader.set_config(),
            Function::Process => reader.about_processes(),
            Function::Known(effects) => reader.may(effects),
            Function::Unknown if self.is_no_call(reader) => {}
            // Helpers of information_schema's views, all stable or better.
            Function::Unknown if name.form == Form::System && text.starts_with(b"_pg_") => {}
            Function::Unknown => reader.may(Effects::UNKNOWN_SETTINGS),
        }
    }

    /// Do grammar and position say that the parenthesis after an unknown name opens no argument list?
    fn is_no_call(&self, reader: &Reader<'_>) -> bool {
        if matches!(self.kind, Kind::Drop | Kind::OtherDdl | Kind::Maintenance) {
            return true;
        }
        match self.before_name {
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
            | w::COLONS => true,
            w::THEN => self.kind == Kind::Merge && self.before == w::INSERT,
            w::ON | w::USING | w::ONLY => self.seen.has(Seen::INDEX),
            // `(VALUES …) v(a, b)`, `unnest(…) u(x)`
            w::PAREN_CLOSE => queries(self.kind) && !self.seen.has(Seen::EXPRESSION_AFTER_CLOSE),
            _ => is_column_list_of_cte(reader.lexer),
        }
    }
}

/// The server loads the library of a function in C when it is made, as LOAD does.
fn language(reader: &mut Reader<'_>) {
    let mut ahead = reader.lexer;
    let token = ahead.next();
    let name = reader.lexer.text[token.start()..token.end()].trim_ascii();
    if matches!(name, b"c" | b"C" | b"'c'" | b"'C'" | b"\"c\"") {
        reader.may(Effects::LOADS);
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

/// Can [`Body::keyword`] care about a word? A cheap no for most: first letter and length decide.
#[inline]
fn may_matter(key: Key, length: usize) -> bool {
    const LENGTHS: [u32; 32] = {
        const WORDS: [Key; 19] = [
            w::TEMP,
            w::TEMPORARY,
            w::INTO,
            w::ON,
            w::OPERATOR,
            w::WITH,
            w::UPDATE,
            w::FROM,
            w::TO,
            w::HOLD,
            w::EXECUTE,
            w::CASE,
            w::END,
            w::ATOMIC,
            w::INDEX,
            w::FUNCTION,
            w::PROCEDURE,
            w::EXTENSION,
            w::LANGUAGE,
        ];
        let mut lengths = [0; 32];
        let mut at = 0;
        while at < WORDS.len() {
            let length = 16 - WORDS[at].leading_zeros() / 8;
            lengths[(WORDS[at] & 31) as usize] |= 1 << length;
            at += 1;
        }
        // pg_temp, pg_temp_12, pg_settings
        lengths[(b'p' & 31) as usize] |= 0x1ff80;
        lengths
    };
    length <= 16 && LENGTHS[(key & 31) as usize] >> length & 1 == 1
}
