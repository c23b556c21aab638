//! SQL text → what it does to a session: a lexer and a small recogniser that err on the side of caution.

mod effects;

pub use effects::{Effects, Kind, PreparedTouched, SettingTouched, TidegateCommand};

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
    /// Present when the text is exactly one statement and that is about a virtual setting.
    pub tidegate: Option<Box<TidegateCommand>>,
}

impl Analysis {
    /// The answer for a text that is not understood or must not be read: it may do anything.
    pub fn unknown() -> Self {
        Self { effects: Effects::ANY_STATE, statements: 1, kind: Kind::Other, ..Self::default() }
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
pub fn analyse_with(_sql: &[u8], _strings: StringSyntax) -> Analysis {
    Analysis::unknown()
}
