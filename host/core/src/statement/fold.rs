//! A text as the tokens that make its shape: literals by their kind, lists of literals as one.
//!
//! What reads the tokens (the fingerprint) is a [`Sink`]. The fingerprint and the [`Cut`]s that the renderer goes by come
//! from the same reading, so texts with one fingerprint are rendered alike and parsed alike.
//!
//! Kept apart: kinds of literals (`'1'` and `1` choose different operators), quoted and bare identifiers (`"user"` is
//! a column, `user` a function), parameters by number, casts. Folded: case of bare words, white space, comments, empty
//! statements, a sign that belongs to a number.

use super::StringSyntax;
use super::lexer::{Kind, Lexer, Token};
use super::words::{self as w, Key};

/// A kind of literal, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Literal {
    /// `'…'`, `E'…'`, `U&'…'`, `$$…$$`
    Text = 1,
    /// `N'…'`, which is a `char` by its own word.
    National = 2,
    Integer = 4,
    Decimal = 8,
    Bits = 16,
    Hexadecimal = 32,
    /// NULL, TRUE, FALSE, DEFAULT: literals in lists, words elsewhere.
    Word = 64,
    /// `$n`: a literal in lists where numbers do not matter, a token elsewhere.
    Parameter = 128,
}

/// What to do with `$n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    /// Each is a token, with its number.
    Exact,
    /// All are alike, and lists of them are folded like lists of literals.
    Alike,
}

/// `1, 'a', NULL` after `IN (` or `ARRAY[`, or rows of such after VALUES or `IN (`.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    /// Kinds of its literals, a bit each.
    pub kinds: u16,
    /// Elements of a row; 0 where the elements are no rows.
    pub width: u32,
    /// Where the list begins in the text, behind an opening mark that is no part of it, and where its first element or
    /// row ends.
    pub start: usize,
    pub first_end: usize,
    /// Where the list ends.
    pub end: usize,
}

/// A piece of a text that is rendered otherwise than it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub start: u32,
    pub end: u32,
    pub what: What,
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// White space or comments, unless it is a single blank.
    Gap,
    Literal(Literal),
    /// A list; where its first element or row ends.
    List {
        first_end: u32,
    },
    /// With what lies before the next statement.
    Semicolon,
}

impl Cut {
    pub(super) fn new(what: What, start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32, what }
    }
}

/// What reads folded tokens, in the order of the text.
pub(super) trait Sink {
    /// A word: a keyword, or an identifier without quotes.
    fn word(&mut self, token: Token);
    /// An identifier in quotes.
    fn quoted(&mut self, token: Token);
    /// One of `( ) , .`
    fn mark(&mut self, token: Token);
    /// Any other token as it stands.
    fn token(&mut self, token: Token);
    /// A literal; `token` includes its sign.
    fn literal(&mut self, literal: Literal, token: Token);
    /// A list, without parentheses or brackets around it.
    fn list(&mut self, list: &List);
    /// A semicolon, and where the next statement begins.
    fn semicolon(&mut self, start: usize, next: usize);
    /// White space or comments between two tokens, unless it is a single blank.
    fn gap(&mut self, end: usize, start: usize);
}

/// Where the tokens of a text are, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Folded {
    /// Position of the first token.
    pub begin: usize,
    /// Position behind the last token.
    pub end: usize,
    pub tokens: usize,
    /// A list, or rows, that hold more than literals.
    pub open_list: bool,
}

/// Why folding stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// An unterminated literal or comment, or a null byte.
    Broken,
    TooManyTokens,
}

/// Folds a text into a sink, up to `tokens_max` tokens.
#[inline]
pub(super) fn fold<S: Sink>(
    text: &[u8],
    strings: StringSyntax,
    parameters: Parameters,
    tokens_max: usize,
    sink: &mut S,
) -> Result<Folded, Stop> {
    let mut lexer = Lexer::new(text, strings);
    lexer.advance();
    while lexer.token.kind == Kind::Semicolon {
        lexer.advance();
    }
    let begin = lexer.token.start();
    let mut folded = Folded { begin, end: begin, tokens: 0, open_list: false };
    let mut before = lexer.token;
    before.kind = Kind::Semicolon;
    // Behind a dot a word is a name, whatever it spells.
    let mut qualified = false;
    loop {
        folded.tokens += 1;
        if folded.tokens > tokens_max {
            return Err(Stop::TooManyTokens);
        }
        let token = lexer.token;
        if lexer.gap {
            sink.gap(folded.end, token.start());
        }
        match token.kind {
            Kind::Word => {
                qualified = before.kind == Kind::Dot;
                sink.word(token);
            }
            Kind::Quoted => sink.quoted(token),
            Kind::Comma | Kind::Dot | Kind::Close => sink.mark(token),
            Kind::Semicolon => {
                while lexer.token.kind == Kind::Semicolon {
                    lexer.advance();
                }
                if lexer.token.kind != Kind::End {
                    sink.semicolon(token.start(), lexer.token.start());
                }
                before = token;
                continue;
            }
            Kind::End => {
                folded.tokens -= 1;
                return Ok(folded);
            }
            Kind::Broken => return Err(Stop::Broken),
            _ => {
                let keyword = if qualified { before.closed_at(before.end()) } else { before };
                qualified = false;
                before = other(&mut lexer, keyword, parameters, sink, &mut folded.open_list)
                    .ok_or(Stop::Broken)?;
                folded.end = before.end();
                continue;
            }
        }
        folded.end = token.end();
        before = token;
        lexer.advance();
    }
}

/// Folds what may be more than one token: lists, signs, literals. Returns the last token of it, with the lexer on the
/// next one; `None` for a literal that does not end.
#[inline]
fn other<S: Sink>(
    lexer: &mut Lexer<'_>,
    before: Token,
    parameters: Parameters,
    sink: &mut S,
    open_list: &mut bool,
) -> Option<Token> {
    let text = lexer.text;
    let mut token = lexer.token;
    match token.kind {
        Kind::Open => match list_after(lexer, before, parameters) {
            Some((list, ahead)) => {
                if list.width == 0 || key(text, before) == w::IN {
                    sink.mark(token);
                }
                sink.list(&list);
                *lexer = ahead;
                return Some(token.closed_at(list.end));
            }
            None => {
                *open_list |= matches!(key(text, before), w::IN | w::VALUES);
                sink.mark(token);
            }
        },
        Kind::Other if text[token.start()] == b'[' && key(text, before) == w::ARRAY => {
            sink.token(token);
            if let Some((list, ahead)) = elements(lexer, parameters, b']') {
                sink.list(&list);
                *lexer = ahead;
                return Some(token.closed_at(list.end));
            }
            *open_list = true;
        }
        Kind::Operator if is_minus(text, token) && may_be_sign(text, before) => {
            match signed(lexer) {
                Some(ahead) => {
                    *lexer = ahead;
                    sink.literal(literal(text, lexer.token), lexer.token.from(token));
                    token = lexer.token;
                }
                None => sink.token(token),
            }
        }
        Kind::Parameter if parameters == Parameters::Alike => {
            sink.literal(Literal::Parameter, token);
        }
        Kind::Integer | Kind::Decimal => sink.literal(literal(text, token), token),
        Kind::Plain | Kind::Escape | Kind::Unicode | Kind::Dollar | Kind::Bits => {
            token = quoted(lexer, before, sink)?;
        }
        _ => {
            sink.token(token);
            // `t.* - 1`: the star is no operator.
            if before.kind == Kind::Dot {
                token = token.closed_at(token.end());
            }
        }
    }
    lexer.advance();
    Some(token)
}

/// Folds a literal in quotes: its token, or `None` if it does not end.
fn quoted<S: Sink>(lexer: &mut Lexer<'_>, before: Token, sink: &mut S) -> Option<Token> {
    lexer.whole_literal();
    let token = lexer.token;
    if token.kind == Kind::Broken {
        return None;
    }
    // The escape character decides which name is meant.
    match key(lexer.text, before) {
        w::UESCAPE => sink.token(token),
        _ => sink.literal(literal(lexer.text, token), token),
    }
    Some(token)
}

/// A word's key; 0 for any other token.
#[inline]
fn key(text: &[u8], token: Token) -> Key {
    match token.kind {
        Kind::Word => w::key_of(text, token.start(), token.end()),
        _ => w::NOTHING,
    }
}

#[inline]
fn is_minus(text: &[u8], token: Token) -> bool {
    token.end() - token.start() == 1 && text[token.start()] == b'-'
}

/// Can a minus after this token be nothing but a sign? After a word or an operand it may subtract.
#[inline]
fn may_be_sign(text: &[u8], before: Token) -> bool {
    match before.kind {
        Kind::Operator | Kind::Open | Kind::Comma | Kind::Assign => true,
        Kind::Other => text[before.start()] == b'[',
        _ => false,
    }
}

/// With the lexer on a sign: the lexer on the number after it. A cast binds tighter than the sign, and
/// `-1::money` calls the operator of another type.
fn signed<'a>(lexer: &Lexer<'a>) -> Option<Lexer<'a>> {
    let mut ahead = *lexer;
    ahead.advance();
    let number = ahead;
    let is_number = matches!(number.token.kind, Kind::Integer | Kind::Decimal);
    (is_number && ahead.next().kind != Kind::Cast).then_some(number)
}

/// The kind of a literal's token.
pub(super) fn literal(text: &[u8], token: Token) -> Literal {
    match (token.kind, text[token.start()] | 0x20) {
        (Kind::Integer, _) => Literal::Integer,
        (Kind::Decimal, _) => Literal::Decimal,
        (Kind::Bits, b'x') => Literal::Hexadecimal,
        (Kind::Bits, _) => Literal::Bits,
        (Kind::Plain | Kind::Escape, b'n') => Literal::National,
        _ => Literal::Text,
    }
}

/// With the lexer on `(` behind the given word: the list in it, and the lexer behind the list.
#[inline]
fn list_after<'a>(
    lexer: &Lexer<'a>,
    before: Token,
    parameters: Parameters,
) -> Option<(List, Lexer<'a>)> {
    if before.kind != Kind::Word {
        return None;
    }
    // Two words of all begin lists: their lengths tell most others apart.
    match before.end() - before.start() {
        2 if key(lexer.text, before) == w::IN => elements(lexer, parameters, b')').or_else(|| {
            let mut inner = *lexer;
            let rows = (inner.next().kind == Kind::Open).then(|| rows(&inner, parameters))?;
            let (list, ahead) = rows.filter(|(_, ahead)| ahead.token.kind == Kind::Close)?;
            Some((List { start: lexer.token.end(), ..list }, ahead))
        }),
        6 if key(lexer.text, before) == w::VALUES => rows(lexer, parameters),
        _ => None,
    }
}

/// With the lexer on an opening mark: the literals up to the closing one, and the lexer on that.
fn elements<'a>(lexer: &Lexer<'a>, parameters: Parameters, close: u8) -> Option<(List, Lexer<'a>)> {
    let mut ahead = *lexer;
    let start = lexer.token.end();
    ahead.advance();
    let (kinds, _, first_end, end) = row(&mut ahead, parameters, close)?;
    Some((List { kinds, width: 0, start, first_end, end }, ahead))
}

/// With the lexer on the `(` of a row: rows of literals of one width, and the lexer behind the last.
fn rows<'a>(lexer: &Lexer<'a>, parameters: Parameters) -> Option<(List, Lexer<'a>)> {
    let mut ahead = *lexer;
    let start = ahead.token.start();
    let mut list = List { kinds: 0, width: 0, start, first_end: 0, end: 0 };
    loop {
        ahead.advance();
        let (kinds, width, _, _) = row(&mut ahead, parameters, b')')?;
        if list.width == 0 {
            (list.width, list.first_end) = (width, ahead.token.end());
        }
        if list.width != width {
            return None;
        }
        list.kinds |= kinds;
        list.end = ahead.token.end();
        if ahead.next().kind != Kind::Comma {
            return Some((list, ahead));
        }
        if ahead.next().kind != Kind::Open {
            return None;
        }
    }
}

/// Reads literals and commas up to the closing mark: their kinds, their number, the ends of the first and the last.
fn row(
    lexer: &mut Lexer<'_>,
    parameters: Parameters,
    close: u8,
) -> Option<(u16, u32, usize, usize)> {
    let (mut kinds, mut count, mut first_end) = (0, 0_u32, 0);
    loop {
        kinds |= element(lexer, parameters)? as u16;
        count += 1;
        let end = lexer.token.end();
        if count == 1 {
            first_end = end;
        }
        let next = lexer.next();
        if next.kind == Kind::Comma {
            lexer.advance();
            continue;
        }
        let closes = next.end() > next.start() && lexer.text[next.start()] == close;
        return closes.then_some((kinds, count, first_end, end));
    }
}

/// With the lexer on a literal, or on its sign: its kind, and the lexer on its last token.
fn element(lexer: &mut Lexer<'_>, parameters: Parameters) -> Option<Literal> {
    let token = lexer.token;
    match token.kind {
        Kind::Operator if is_minus(lexer.text, token) => {
            let number = lexer.next();
            let is_number = matches!(number.kind, Kind::Integer | Kind::Decimal);
            is_number.then(|| literal(lexer.text, number))
        }
        Kind::Integer | Kind::Decimal => Some(literal(lexer.text, token)),
        Kind::Plain | Kind::Escape | Kind::Unicode | Kind::Dollar | Kind::Bits => {
            lexer.whole_literal();
            // `N'…'` casts, which a list's first element would not show.
            let kind = literal(lexer.text, token);
            (lexer.token.kind != Kind::Broken && kind != Literal::National).then_some(kind)
        }
        Kind::Parameter if parameters == Parameters::Alike => Some(Literal::Parameter),
        Kind::Word => {
            let word = w::key_of(lexer.text, token.start(), token.end());
            matches!(word, w::NULL | w::TRUE | w::FALSE | w::DEFAULT).then_some(Literal::Word)
        }
        _ => None,
    }
}
