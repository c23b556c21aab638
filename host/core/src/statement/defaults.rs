//! ALTER ROLE … SET, ALTER DATABASE … SET: what sessions begin with from then on. Databases that nobody may be connected to:
//! DROP DATABASE, ALTER DATABASE … RENAME and SET TABLESPACE, templates of CREATE DATABASE.

use super::lexer::Kind as TokenKind;
use super::words as w;
use super::{Effects, Kind, Reader, RoleNamed, StartDefaults};

impl Reader<'_> {
    /// Looks at what follows ALTER; the reader stays where it is.
    pub(super) fn start_defaults(&mut self) {
        let mut ahead = Self { lexer: self.lexer, analysis: Default::default() };
        let defaults = match ahead.word() {
            w::ROLE | w::USER | w::GROUP => ahead.of_role(),
            w::DATABASE => ahead.of_database(),
            _ => return,
        };
        let is_database = defaults.role == RoleNamed::Any;
        match ahead.word() {
            w::RENAME if is_database => self.analysis.vacated.extend(defaults.database),
            w::SET if is_database && ahead.next_is(w::TABLESPACE) => {
                self.analysis.vacated.extend(defaults.database);
            }
            w::SET | w::RESET => self.analysis.start_defaults.push(defaults),
            _ => {}
        }
    }

    /// Takes the current token, and says whether this word follows.
    fn next_is(&mut self, word: w::Key) -> bool {
        self.advance();
        self.word() == word
    }

    /// Looks at what follows CREATE; the reader stays where it is.
    pub(super) fn created(&mut self) -> Kind {
        match self.word() {
            w::TABLE | w::INDEX | w::UNIQUE => return self.is(Kind::DefineRelation),
            w::DATABASE => self.copied(),
            _ => {}
        }
        Kind::Create
    }

    /// The template of CREATE DATABASE.
    fn copied(&mut self) {
        let mut ahead = Self { lexer: self.lexer, analysis: Default::default() };
        ahead.advance();
        // The name, which may be any word.
        ahead.advance();
        let mut template = Some("template1".to_owned());
        while !matches!(
            ahead.lexer.token.kind,
            TokenKind::Semicolon | TokenKind::End | TokenKind::Broken
        ) {
            if !ahead.take(w::TEMPLATE) {
                ahead.advance();
                continue;
            }
            if ahead.lexer.token.kind == TokenKind::Operator {
                ahead.advance();
            }
            if ahead.word() != w::DEFAULT {
                template = ahead.identifier(ahead.lexer.token);
            }
        }
        self.analysis.vacated.extend(template);
    }

    /// What follows DROP.
    pub(super) fn dropped(&mut self) -> Effects {
        if self.take(w::DATABASE) && (!self.take(w::IF) || self.take(w::EXISTS)) {
            let name = self.identifier(self.lexer.token);
            self.analysis.vacated.extend(name);
        }
        Effects::DDL | Effects::DROPS
    }

    fn of_role(&mut self) -> StartDefaults {
        self.advance();
        let role = match self.word() {
            w::ALL => RoleNamed::Any,
            w::CURRENT_ROLE | w::CURRENT_USER | w::SESSION_USER => RoleNamed::Own,
            // A name that cannot be read may be any.
            _ => self.identifier(self.lexer.token).map_or(RoleNamed::Any, RoleNamed::Name),
        };
        self.advance();
        let database = match self.take(w::IN) {
            true => self.of_database().database,
            false => None,
        };
        StartDefaults { role, database }
    }

    fn of_database(&mut self) -> StartDefaults {
        self.advance();
        let database = self.identifier(self.lexer.token);
        self.advance();
        StartDefaults { role: RoleNamed::Any, database }
    }
}
