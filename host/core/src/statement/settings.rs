//! SET, RESET, SHOW and set_config: which settings, for how long.

use super::lexer::{Kind as TokenKind, Token};
use super::words as w;
use super::{Effects, Kind, Reader, SettingTouched, TidegateCommand};
use crate::limits::IDENTIFIER_BYTES_MAX;

/// Tidegate's own settings live under this prefix.
const VIRTUAL: &str = "tidegate.";

/// How long a value lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Session,
    Transaction,
}

impl Reader<'_> {
    /// SET after the first word.
    pub(super) fn set(&mut self) -> Kind {
        let mut scope = Scope::Session;
        if self.take(w::LOCAL) {
            scope = Scope::Transaction;
        } else if self.take(w::SESSION) {
            match self.word() {
                w::CHARACTERISTICS => return self.set_characteristics(scope),
                w::AUTHORIZATION => return self.set_authorization(scope),
                _ => {}
            }
        }
        match self.word() {
            w::TRANSACTION | w::CONSTRAINTS => return self.is(Kind::SetTransaction),
            w::SESSION => {
                self.advance();
                return match self.word() {
                    w::CHARACTERISTICS => self.set_characteristics(scope),
                    _ => self.set_authorization(scope),
                };
            }
            _ => {}
        }
        let before = self.lexer.token;
        let special = self.word();
        let Some(name) = self.setting_name() else {
            return self.set_unknown();
        };
        let assigned = self.word() == w::TO || self.text(self.lexer.token).first() == Some(&b'=');
        if assigned {
            self.advance();
            return self.set_value(scope, name);
        }
        match special {
            w::TIME if self.take(w::ZONE) => self.set_special(scope, "timezone"),
            w::NAMES => self.set_special(scope, "client_encoding"),
            w::ROLE => self.set_special(scope, "role"),
            w::SCHEMA => self.set_path(scope, before.end()),
            w::XML if self.take(w::OPTION) => self.set_special(scope, "xmloption"),
            _ => self.set_unknown(),
        }
    }

    /// SET name TO, with the value as the current token.
    fn set_value(&mut self, scope: Scope, name: String) -> Kind {
        if let Some(own) = name.strip_prefix(VIRTUAL) {
            let own = own.to_owned();
            return self.set_virtual(scope, own);
        }
        if name == "search_path" {
            return self.set_path(scope, self.lexer.token.start());
        }
        self.set_special(scope, &name)
    }

    /// A value for a setting with a fixed name; the value is the current token.
    fn set_special(&mut self, scope: Scope, name: &str) -> Kind {
        let reset = match self.word() {
            w::DEFAULT => true,
            w::LOCAL => name == "timezone",
            // SET NAMES without a value.
            _ => matches!(self.lexer.token.kind, TokenKind::Semicolon | TokenKind::End),
        };
        let name = name.to_owned();
        self.touch(match (scope, reset) {
            (Scope::Transaction, _) => SettingTouched::SetLocal(name),
            (Scope::Session, true) => SettingTouched::Reset(name),
            (Scope::Session, false) => SettingTouched::Set(name),
        });
        self.scoped(scope)
    }

    /// `search_path`: on the temporary schema, later CREATEs make temporary objects that nothing in them shows.
    fn set_path(&mut self, scope: Scope, value_start: usize) -> Kind {
        let kind = self.set_special(scope, "search_path");
        let mut ahead = self.lexer;
        let mut token = self.lexer.token;
        while !matches!(token.kind, TokenKind::Semicolon | TokenKind::End | TokenKind::Broken) {
            token = ahead.next();
        }
        if may_name_temporary_schema(&self.lexer.text[value_start..token.start()]) {
            self.may(Effects::TEMP_OBJECTS);
            if scope == Scope::Session {
                self.may(Effects::SESSION_BOUND);
            }
        }
        kind
    }

    fn set_characteristics(&mut self, scope: Scope) -> Kind {
        let before = self.analysis.names.len();
        self.advance();
        while !matches!(
            self.lexer.token.kind,
            TokenKind::Semicolon | TokenKind::End | TokenKind::Broken
        ) {
            let name = match self.word() {
                w::ISOLATION => "default_transaction_isolation",
                w::READ => "default_transaction_read_only",
                w::DEFERRABLE => "default_transaction_deferrable",
                _ => "",
            };
            let level = self.lexer.token;
            self.advance();
            // READ UNCOMMITTED and READ COMMITTED are levels.
            let read = self.text(level).eq_ignore_ascii_case(b"read");
            if !name.is_empty() && (!read || matches!(self.word(), w::ONLY | w::WRITE)) {
                self.touch(match scope {
                    Scope::Session => SettingTouched::Set(name.to_owned()),
                    Scope::Transaction => SettingTouched::SetLocal(name.to_owned()),
                });
            }
        }
        if self.analysis.names.len() == before {
            return self.set_unknown();
        }
        self.scoped(scope)
    }

    /// AUTHORIZATION as the current token.
    fn set_authorization(&mut self, scope: Scope) -> Kind {
        if self.take(w::AUTHORIZATION) {
            self.set_special(scope, "session_authorization")
        } else {
            self.set_unknown()
        }
    }

    fn set_unknown(&mut self) -> Kind {
        self.may(Effects::SETS | Effects::UNKNOWN_SETTINGS);
        Kind::Set
    }

    fn scoped(&mut self, scope: Scope) -> Kind {
        match scope {
            Scope::Session => Kind::Set,
            Scope::Transaction => self.is(Kind::SetLocal),
        }
    }

    fn set_virtual(&mut self, scope: Scope, name: String) -> Kind {
        let full = format!("{VIRTUAL}{name}");
        let reset = self.word() == w::DEFAULT;
        let (touched, command) = match (scope, reset) {
            (Scope::Session, true) => {
                (SettingTouched::Reset(full), Some(TidegateCommand::Reset { name }))
            }
            (Scope::Session, false) => {
                let value = self.virtual_value();
                let command = value.map(|value| TidegateCommand::Set { name, value });
                (SettingTouched::Set(full), command)
            }
            (Scope::Transaction, _) => {
                let value = self.virtual_value();
                let command = value.map(|value| TidegateCommand::SetLocal { name, value });
                (SettingTouched::SetLocal(full), command)
            }
        };
        self.analysis.names.push(touched);
        self.virtual_setting(command);
        self.scoped(scope)
    }

    fn virtual_setting(&mut self, command: Option<TidegateCommand>) {
        self.may(Effects::TIDEGATE_SET);
        self.analysis.tidegate = command.map(Box::new);
    }

    /// The value of a virtual setting: one literal, or the text as it stands for words and numbers.
    fn virtual_value(&self) -> Option<String> {
        let mut ahead = self.lexer;
        let mut end = self.lexer.token.end();
        let mut token = ahead.next();
        if matches!(self.lexer.token.kind, TokenKind::Plain | TokenKind::Escape) {
            let over = matches!(token.kind, TokenKind::Semicolon | TokenKind::End);
            return self.literal(self.lexer.token).filter(|_| over);
        }
        let bare = |kind| {
            use TokenKind::{Assign, Decimal, Dot, Integer, Operator, Other, Word};
            matches!(kind, Word | Integer | Decimal | Dot | Operator | Assign | Other)
        };
        if !bare(self.lexer.token.kind) {
            return None;
        }
        while !matches!(token.kind, TokenKind::Semicolon | TokenKind::End) {
            if !bare(token.kind) || token.start() != end {
                return None;
            }
            end = token.end();
            token = ahead.next();
        }
        let text = std::str::from_utf8(&self.lexer.text[self.lexer.token.start()..end]).ok()?;
        Some(text.to_ascii_lowercase())
    }

    /// RESET after the first word.
    pub(super) fn reset(&mut self) -> Kind {
        match self.word() {
            w::ALL => self.touch(SettingTouched::ResetAll),
            _ => match self.shown_name() {
                Some(name) => match name.strip_prefix(VIRTUAL) {
                    Some(own) => {
                        let own = own.to_owned();
                        self.analysis.names.push(SettingTouched::Reset(name));
                        self.virtual_setting(Some(TidegateCommand::Reset { name: own }));
                    }
                    None => self.touch(SettingTouched::Reset(name)),
                },
                None => self.may(Effects::SETS | Effects::UNKNOWN_SETTINGS),
            },
        }
        Kind::Reset
    }

    /// SHOW after the first word.
    pub(super) fn show(&mut self) -> Kind {
        if self.text(self.lexer.token).len() >= VIRTUAL.len() - 1
            && let Some(name) = self.shown_name()
            && let Some(own) = name.strip_prefix(VIRTUAL)
        {
            let name = own.to_owned();
            self.virtual_setting(Some(TidegateCommand::Show { name }));
        }
        Kind::Show
    }

    /// The name that RESET and SHOW take, with their special spellings.
    fn shown_name(&mut self) -> Option<String> {
        let special = self.word();
        let name = self.setting_name()?;
        let special = match special {
            w::TIME if self.take(w::ZONE) => "timezone",
            w::SESSION if self.take(w::AUTHORIZATION) => "session_authorization",
            w::TRANSACTION if self.take(w::ISOLATION) => "transaction_isolation",
            _ => return Some(name),
        };
        Some(special.to_owned())
    }

    /// Records a touched setting with the effects that its name implies.
    fn touch(&mut self, touched: SettingTouched) {
        match &touched {
            SettingTouched::SetLocal(_) => {}
            SettingTouched::ResetAll => self.may(Effects::RESET_ALL),
            SettingTouched::Set(name) | SettingTouched::Reset(name) => {
                let more = match name.as_str() {
                    "role" | "session_authorization" => Effects::SESSION_AUTHORIZATION,
                    "seed" => Effects::SEED,
                    _ => Effects::NONE,
                };
                self.may(Effects::SETS | more);
            }
        }
        self.analysis.names.push(touched);
    }

    /// `set_config(`, with the lexer just behind the parenthesis.
    pub(super) fn set_config(&mut self) {
        let mut ahead = self.lexer;
        let mut tokens = || ahead.next();
        let name = tokens();
        let mut next = tokens();
        let setting = self.literal(name).filter(|_| next.kind == TokenKind::Comma);
        let Some(setting) = setting.map(|name| canonical(&name)) else {
            return self.may(Effects::SETS | Effects::UNKNOWN_SETTINGS);
        };
        // The usual spellings of a value are one token, perhaps with a cast; behind others we look no further.
        let value = tokens();
        next = tokens();
        if next.kind == TokenKind::Cast {
            tokens();
            next = tokens();
        }
        let local = tokens();
        let closed = tokens().kind == TokenKind::Close && next.kind == TokenKind::Comma;
        let local = closed && self.text(local).eq_ignore_ascii_case(b"true");
        if setting == "search_path" && may_name_temporary_schema(self.text(value)) {
            let bound = if local { Effects::NONE } else { Effects::SESSION_BOUND };
            self.may(Effects::TEMP_OBJECTS | bound);
        } else if setting == "search_path" && (self.literal(value).is_none() || !closed) {
            // What it is turns out when the transaction has ended.
            self.may(Effects::TEMP_OBJECTS);
        }
        self.touch(if local {
            SettingTouched::SetLocal(setting)
        } else {
            SettingTouched::Set(setting)
        });
    }

    /// A setting's name, dotted or not, in its canonical form; skips it.
    fn setting_name(&mut self) -> Option<String> {
        let mut name = self.identifier(self.lexer.token)?;
        self.advance();
        while self.lexer.token.kind == TokenKind::Dot {
            self.advance();
            name.push('.');
            name.push_str(&self.identifier(self.lexer.token)?);
            self.advance();
        }
        Some(canonical(&name))
    }

    /// A token as an identifier: folded unless quoted, cut as PostgreSQL cuts it.
    pub(super) fn identifier(&self, token: Token) -> Option<String> {
        let text = std::str::from_utf8(self.text(token)).ok()?;
        let mut name = match token.kind {
            TokenKind::Word => text.to_ascii_lowercase(),
            TokenKind::Quoted => text.get(1..text.len() - 1)?.replace("\"\"", "\""),
            _ => return None,
        };
        name.truncate(name.floor_char_boundary(IDENTIFIER_BYTES_MAX));
        Some(name)
    }

    /// The value of a string literal without escapes; `None` for any other token.
    fn literal(&self, token: Token) -> Option<String> {
        let text = std::str::from_utf8(self.text(token)).ok()?;
        let quote = match token.kind {
            TokenKind::Plain | TokenKind::Escape => text.find('\'')?,
            _ => return None,
        };
        let inner = text.get(quote + 1..text.len() - 1)?;
        let escapes = token.kind == TokenKind::Escape && inner.contains(['\\', '\n', '\r']);
        (!escapes).then(|| inner.replace("''", "'"))
    }
}

/// Settings are named without regard to case, and some by an older name (`map_old_guc_names`).
fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "sort_mem" => "work_mem".to_owned(),
        "vacuum_mem" => "maintenance_work_mem".to_owned(),
        _ => name,
    }
}

/// Could the text, as a value of `search_path`, hold `pg_temp`? Escapes count as a yes.
fn may_name_temporary_schema(value: &[u8]) -> bool {
    value.iter().any(|b| matches!(b, b'\\' | b'&'))
        || value.windows(7).any(|seven| seven.eq_ignore_ascii_case(b"pg_temp"))
}
