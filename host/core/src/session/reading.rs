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
        self.heed_settings();
        self
    }

    /// After each change of the settings at transaction borders.
    pub(super) fn heed_settings(&mut self) {
        let encoding = self.setting("client_encoding").unwrap_or_default();
        let backslash = self.setting("standard_conforming_strings") == Some("off");
        self.reading = match (TextEncoding::named(encoding), backslash) {
            (TextEncoding::Unsafe, _) => None,
            (_, true) => Some(StringSyntax::Backslash),
            _ => Some(StringSyntax::Standard),
        };
        self.note_settings_that_bind();
        self.heed_replay_setting();
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
        match self.reading {
            Some(strings) if !changing => Some(strings),
            _ => is_safe_anywhere(sql).then_some(StringSyntax::Standard),
        }
    }

    pub(super) fn analyse(&self, sql: &[u8]) -> Analysis {
        match self.string_syntax(sql) {
            Some(syntax) => analyse_with(sql, syntax),
            None => Analysis::unknown(),
        }
    }
}
