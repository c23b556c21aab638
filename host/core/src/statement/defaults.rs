//! ALTER ROLE … SET, ALTER DATABASE … SET: what sessions begin with from then on. DROP DATABASE.

use super::words as w;
use super::{Effects, Reader, RoleNamed, StartDefaults};

impl Reader<'_> {
    /// Looks at what follows ALTER; the reader stays where it is.
    pub(super) fn start_defaults(&mut self) {
        let mut ahead = Self { lexer: self.lexer, analysis: Default::default() };
        let defaults = match ahead.word() {
            w::ROLE | w::USER | w::GROUP => ahead.of_role(),
            w::DATABASE => ahead.of_database(),
            _ => return,
        };
        if matches!(ahead.word(), w::SET | w::RESET) {
            self.analysis.start_defaults.push(defaults);
        }
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
