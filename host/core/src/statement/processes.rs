//! What a text asks of server processes, where its form leaves no doubt: its own number, and signals to others.
//!
//! Only forms are taken in which a number of ours can stand for a server's without being met by one: a SELECT of
//! `pg_backend_pid()` beside plain values, or of one signal, that reads from nothing. What compares the number with
//! `pg_stat_activity` or `pg_locks`, or hands it to another function, wants the server's.

use super::StringSyntax;
use super::lexer::{Kind as TokenKind, Lexer, Token};
use std::ops::Range;

/// A statement about server processes. Positions are in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessCommand {
    /// `SELECT pg_backend_pid()`, perhaps beside plain values: where the calls stand.
    Number(Vec<Range<usize>>),
    Signal(SignalCall),
}

/// `SELECT pg_terminate_backend(…)` or `SELECT pg_cancel_backend(…)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalCall {
    pub signal: Signal,
    pub process: ProcessNamed,
    call: Range<usize>,
    argument: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Cancel,
    Terminate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessNamed {
    Literal(i32),
    /// `$1`, the only parameter.
    Parameter,
}

/// Functions without arguments whose values say nothing about processes.
const PLAIN_CALLS: [&str; 13] = [
    "clock_timestamp",
    "current_database",
    "current_schema",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "now",
    "pg_is_in_recovery",
    "pg_postmaster_start_time",
    "statement_timestamp",
    "txid_current",
    "version",
];
const PLAIN_WORDS: [&str; 6] = [
    "current_catalog",
    "current_role",
    "current_timestamp",
    "current_user",
    "session_user",
    "user",
];
const INTEGERS: [&str; 3] = ["int", "int4", "integer"];
/// What a number may be cast to.
const CASTS: [&str; 7] = ["bigint", "int", "int4", "int8", "integer", "text", "varchar"];

/// Reads a text of one statement that calls one of the functions.
pub(super) fn read(text: &[u8], strings: StringSyntax) -> Option<Box<ProcessCommand>> {
    let mut items = Items { lexer: Lexer::new(text, strings), calls: Vec::new(), signal: None };
    items.advance();
    items.is_word(&["select"]).then(|| items.advance())?;
    let mut count = 0;
    loop {
        items.item()?;
        count += 1;
        match items.lexer.token.kind {
            TokenKind::Comma => items.advance(),
            TokenKind::Semicolon | TokenKind::End => break,
            _ => return None,
        }
    }
    Some(Box::new(match items.signal {
        Some(signal) if count == 1 => ProcessCommand::Signal(signal),
        None if !items.calls.is_empty() => ProcessCommand::Number(items.calls),
        _ => return None,
    }))
}

/// The items that a SELECT lists, being read.
struct Items<'a> {
    lexer: Lexer<'a>,
    calls: Vec<Range<usize>>,
    signal: Option<SignalCall>,
}

impl Items<'_> {
    fn advance(&mut self) {
        self.lexer.advance();
    }

    fn is(&self, kind: TokenKind) -> bool {
        self.lexer.token.kind == kind
    }

    /// Is the current token one of the words, without quotes?
    fn is_word(&self, words: &[&str]) -> bool {
        let Token { kind, .. } = self.lexer.token;
        kind == TokenKind::Word
            && words.iter().any(|word| self.text().eq_ignore_ascii_case(word.as_bytes()))
    }

    fn text(&self) -> &[u8] {
        &self.lexer.text[self.lexer.token.start()..self.lexer.token.end()]
    }

    fn take(&mut self, kind: TokenKind) -> Option<Token> {
        let token = self.lexer.token;
        (token.kind == kind).then(|| self.advance())?;
        Some(token)
    }

    /// One item with its cast and its name.
    fn item(&mut self) -> Option<()> {
        match self.lexer.token.kind {
            TokenKind::Integer | TokenKind::Decimal | TokenKind::Plain => self.advance(),
            TokenKind::Word => self.value()?,
            _ => return None,
        }
        if self.is(TokenKind::Cast) {
            self.advance();
            self.is_word(&CASTS).then(|| self.advance())?;
        }
        if self.is_word(&["as"]) {
            self.advance();
            matches!(self.lexer.token.kind, TokenKind::Word | TokenKind::Quoted).then_some(())?;
        }
        if matches!(self.lexer.token.kind, TokenKind::Word | TokenKind::Quoted) {
            self.advance();
        }
        Some(())
    }

    /// A call, or a word that stands for a value.
    fn value(&mut self) -> Option<()> {
        let start = self.lexer.token.start();
        if self.is_word(&PLAIN_WORDS) {
            self.advance();
            return Some(());
        }
        if self.is_word(&["pg_catalog"]) {
            self.advance();
            self.take(TokenKind::Dot)?;
        }
        let signal = match () {
            () if self.is_word(&["pg_terminate_backend"]) => Signal::Terminate,
            () if self.is_word(&["pg_cancel_backend"]) => Signal::Cancel,
            () => {
                let own = self.is_word(&["pg_backend_pid"]);
                (own || self.is_word(&PLAIN_CALLS)).then(|| self.advance())?;
                self.take(TokenKind::Open)?;
                let end = self.take(TokenKind::Close)?.end();
                self.calls.extend(own.then_some(start..end));
                return Some(());
            }
        };
        self.advance();
        self.signal(signal, start)
    }

    /// The arguments of a signal, whose name begins at `start`.
    fn signal(&mut self, signal: Signal, start: usize) -> Option<()> {
        self.take(TokenKind::Open)?;
        let first = self.lexer.token;
        let process = match first.kind {
            TokenKind::Parameter if self.text() == b"$1" => ProcessNamed::Parameter,
            TokenKind::Integer => {
                ProcessNamed::Literal(std::str::from_utf8(self.text()).ok()?.parse().ok()?)
            }
            _ => return None,
        };
        let mut argument = first;
        self.advance();
        if self.is(TokenKind::Cast) {
            self.advance();
            self.is_word(&INTEGERS).then_some(())?;
            argument = self.lexer.token.from(first);
            self.advance();
        }
        // How long to wait for the end of it.
        if signal == Signal::Terminate && self.is(TokenKind::Comma) {
            self.advance();
            self.take(TokenKind::Integer)?;
        }
        let call = start..self.take(TokenKind::Close)?.end();
        let argument = argument.start()..argument.end();
        self.signal = Some(SignalCall { signal, process, call, argument });
        Some(())
    }
}

/// The text with the number in place of the calls. A column keeps the name that it has by the function.
pub fn with_number(sql: &[u8], calls: &[Range<usize>], number: i32) -> Vec<u8> {
    let value = format!("(SELECT {number} AS pg_backend_pid)");
    let mut text = Vec::with_capacity(sql.len() + calls.len() * value.len());
    let mut at = 0;
    for call in calls {
        text.extend_from_slice(&sql[at..call.start]);
        text.extend_from_slice(value.as_bytes());
        at = call.end;
    }
    text.extend_from_slice(&sql[at..]);
    text
}

impl SignalCall {
    /// Is the number cast to what the function takes?
    pub fn has_cast(&self) -> bool {
        self.process == ProcessNamed::Parameter && self.argument.len() > b"$1".len()
    }

    /// The text with what it answers when the signal has been sent, by whomever. It takes the same parameters.
    pub fn answered(&self, sql: &[u8]) -> Vec<u8> {
        let name = match self.signal {
            Signal::Cancel => "pg_cancel_backend",
            Signal::Terminate => "pg_terminate_backend",
        };
        let argument = &sql[self.argument.clone()];
        let end = format!(")::pg_catalog.int4 IS NOT NULL AS {name})");
        let value = [b"(SELECT (", argument, end.as_bytes()].concat();
        [&sql[..self.call.start], &value, &sql[self.call.end..]].concat()
    }

    /// The text that sends the signal to the server process which runs it.
    pub fn to_itself(&self, sql: &[u8]) -> Vec<u8> {
        let Range { start, end } = self.argument;
        let value = [
            b"CASE WHEN (",
            &sql[start..end],
            b")::pg_catalog.int4 IS NOT NULL THEN pg_catalog.pg_backend_pid() END",
        ]
        .concat();
        [&sql[..start], &value, &sql[end..]].concat()
    }
}
