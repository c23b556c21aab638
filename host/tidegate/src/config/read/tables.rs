//! Tables and values of the document, whatever they are about: taken, converted, and what nobody has taken told of.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Reader;
use crate::config::error::{ConfigError, Origin, Problem, nearest};
use crate::config::keys::{KEYS, TABLES};
use crate::config::raw::At;
use crate::config::value::{Bare, FromText, expand};

/// One table of the document; each key that is taken is known from then on.
pub(super) struct Table<'t, 'i> {
    pub(super) path: &'static str,
    pub(super) entries: &'t DeTable<'i>,
    pub(super) known: Vec<&'static str>,
}

impl<'t, 'i> Table<'t, 'i> {
    pub(super) fn new(path: &'static str, entries: &'t DeTable<'i>) -> Self {
        Self { path, entries, known: Vec::new() }
    }

    pub(super) fn take(&mut self, name: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        debug_assert!(self.is_documented(name), "{} is not in KEYS", self.path_of(name));
        self.known.push(name);
        let found = self.entries.iter().find(|(key, _)| key.get_ref() == name);
        found.map(|(_, value)| value)
    }

    pub(super) fn is_documented(&self, name: &str) -> bool {
        let path = self.path_of(name);
        let is_table = TABLES.iter().any(|(table, _)| *table == path);
        is_table || KEYS.iter().any(|key| key.table == self.path && key.name == name)
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl Reader<'_> {
    /// Reads an array of tables.
    pub(super) fn tables<T>(
        &mut self,
        root: &mut Table<'_, '_>,
        name: &'static str,
        expected: &'static str,
        read: fn(&mut Self, Origin, &mut Table<'_, '_>) -> T,
    ) -> Vec<T> {
        self.tables_at(root, name, name, expected, read)
    }

    /// The same inside another table; `path` is what the whole document calls it.
    pub(super) fn tables_at<T>(
        &mut self,
        outer: &mut Table<'_, '_>,
        name: &'static str,
        path: &'static str,
        expected: &'static str,
        read: fn(&mut Self, Origin, &mut Table<'_, '_>) -> T,
    ) -> Vec<T> {
        let Some(written) = outer.take(name) else {
            return Vec::new();
        };
        let Some(tables) = written.get_ref().as_array() else {
            self.wrong_type(path, written, expected);
            return Vec::new();
        };
        let mut all = Vec::new();
        for written in tables.iter() {
            let Some(entries) = written.get_ref().as_table() else {
                self.wrong_type(path, written, "a table");
                continue;
            };
            let mut table = Table::new(path, entries);
            let origin = self.origin(written.span());
            all.push(read(self, origin, &mut table));
            self.unknown_keys(&table);
        }
        all
    }

    /// Reads a table of the document; a missing one reads as an empty one.
    pub(super) fn table<T>(
        &mut self,
        root: &mut Table<'_, '_>,
        name: &'static str,
        read: fn(&mut Self, &mut Table<'_, '_>) -> T,
    ) -> T {
        self.table_at(root, name, name, read)
    }

    /// The same inside another table; `path` is what the whole document calls it.
    pub(super) fn table_at<T>(
        &mut self,
        outer: &mut Table<'_, '_>,
        name: &'static str,
        path: &'static str,
        read: fn(&mut Self, &mut Table<'_, '_>) -> T,
    ) -> T {
        let empty = DeTable::new();
        let written = outer.take(name);
        let entries = written.and_then(|written| written.get_ref().as_table());
        if let (Some(written), None) = (written, entries) {
            self.wrong_type(path, written, "a table");
        }
        let mut table = Table::new(path, entries.unwrap_or(&empty));
        let read = read(self, &mut table);
        self.unknown_keys(&table);
        read
    }

    pub(super) fn value<T: FromText>(
        &mut self,
        table: &mut Table<'_, '_>,
        name: &'static str,
    ) -> Option<At<T>> {
        let path = table.path_of(name);
        table.take(name).and_then(|written| self.convert(&path, written))
    }

    /// Reads an array; one value alone is an array of one.
    pub(super) fn list<T: FromText>(
        &mut self,
        table: &mut Table<'_, '_>,
        name: &'static str,
    ) -> Vec<At<T>> {
        let path = table.path_of(name);
        let Some(written) = table.take(name) else {
            return Vec::new();
        };
        match written.get_ref() {
            DeValue::Array(items) => {
                items.iter().filter_map(|item| self.convert(&path, item)).collect()
            }
            _ => self.convert(&path, written).into_iter().collect(),
        }
    }

    pub(super) fn convert<T: FromText>(
        &mut self,
        path: &str,
        written: &Spanned<DeValue<'_>>,
    ) -> Option<At<T>> {
        let origin = self.origin(written.span());
        let text = match (written.get_ref(), T::BARE) {
            (DeValue::String(text), _) => expand(text, self.context),
            (DeValue::Integer(number), Bare::Integer) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Ok(number.to_string()),
                    Err(_) => Err("the number is too large".to_owned()),
                }
            }
            (DeValue::Boolean(value), Bare::Boolean) => Ok(value.to_string()),
            _ => {
                self.wrong_type(path, written, T::EXPECTED);
                return None;
            }
        };
        let value = text.and_then(|text| T::from_text(&text, self.context));
        match value {
            Ok(value) => Some(At { value, origin }),
            Err(message) => {
                self.push(origin, path.to_owned(), Problem::BadValue(message));
                None
            }
        }
    }

    pub(super) fn wrong_type(
        &mut self,
        path: &str,
        written: &Spanned<DeValue<'_>>,
        expected: &'static str,
    ) {
        let found = match written.get_ref() {
            DeValue::Integer(_) => "an integer",
            DeValue::Array(_) => "an array",
            DeValue::String(_) => "a string",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Table(_) => "a table",
        };
        let origin = self.origin(written.span());
        self.push(origin, path.to_owned(), Problem::WrongType { expected, found });
    }

    pub(super) fn unknown_keys(&mut self, table: &Table<'_, '_>) {
        for (key, _) in table.entries.iter() {
            let name = key.get_ref().as_ref();
            if table.known.contains(&name) {
                continue;
            }
            // A key of that very name in another table was meant more likely than a similar one
            // here.
            let elsewhere = KEYS.iter().find(|known| known.name == name).map(|key| key.path());
            let here = || nearest(name, table.known.iter().copied()).map(str::to_owned);
            let problem = Problem::UnknownKey { nearest: elsewhere.or_else(here) };
            let origin = self.origin(key.span());
            self.push(origin, table.path_of(name), problem);
        }
    }

    pub(super) fn push(&mut self, origin: Origin, key: String, problem: Problem) {
        self.errors.push(ConfigError { origin: Some(origin), key, problem });
    }

    pub(super) fn origin(&self, span: Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::File {
            file: Arc::clone(&self.file),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}
