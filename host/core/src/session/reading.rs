//! How a client's texts are read: by its own settings, else by those that its sessions begin with.

use super::Session;
use crate::settings::Settings;
use crate::statement::{Analysis, StringSyntax, TextEncoding, analyse_with, is_safe_anywhere};
use std::sync::Arc;

impl Session {
    /// With what sessions of this user begin that do not ask for anything else.
    #[must_use]
    pub fn with_server_settings(mut self, server_settings: Arc<Settings>) -> Self {
        self.server_settings = server_settings;
        self.note_settings_that_bind();
        self
    }

    /// The session's value of a setting, or what its sessions begin with, as far as that is known.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).or_else(|| self.server_settings.get(name))
    }

    /// How a text of the client's is to be read now; `None` when that is not certain, or its encoding may hide quotes
    /// from a byte-wise reader.
    pub(super) fn string_syntax(&self, sql: &[u8]) -> Option<StringSyntax> {
        let changing = [&self.touched, &self.probing]
            .into_iter()
            .flatten()
            .any(|touched| touched.changes_reading());
        let encoding = self.setting("client_encoding").unwrap_or_default();
        if changing || TextEncoding::named(encoding) == TextEncoding::Unsafe {
            return is_safe_anywhere(sql).then_some(StringSyntax::Standard);
        }
        match self.setting("standard_conforming_strings") {
            Some("off") => Some(StringSyntax::Backslash),
            _ => Some(StringSyntax::Standard),
        }
    }

    pub(super) fn analyse(&self, sql: &[u8]) -> Analysis {
        match self.string_syntax(sql) {
            Some(syntax) => analyse_with(sql, syntax),
            None => Analysis::unknown(),
        }
    }
}
