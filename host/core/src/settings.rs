//! A session's settings that differ from what its server connection started with, and how to move them.
//!
//! Values are the server's own canonical ones, as `current_setting` shows them, so that the same setting written two
//! ways compares equal. Names are lower case: PostgreSQL's setting names are case-insensitive.

use rustc_hash::FxHasher;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::Arc;

/// Settings that change neither what a text means when it is parsed nor what a plan made of it holds. Any other may:
/// so does `extra_float_digits`, since a plan may keep a number that was turned into text while it was made.
const HARMLESS_TO_TEXTS: [&str; 7] = [
    "application_name",
    "client_min_messages",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
];
/// So are our own, which no server heeds.
const OWN_PREFIX: &str = "tidegate.";

fn changes_texts(name: &str) -> bool {
    !HARMLESS_TO_TEXTS.contains(&name) && !name.starts_with(OWN_PREFIX)
}

/// Settings by name. Immutable once shared; compared by pointer, then digest, then content.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<Box<str>, Box<str>>,
    digest: u64,
    /// Of those alone that change what a text means.
    reading_digest: u64,
    /// Is any of them Tidegate's own?
    has_own: bool,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.values == other.values
    }
}

impl Eq for Settings {}

impl Settings {
    pub fn from_pairs<N: AsRef<str>, V: Into<Box<str>>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let values = pairs
            .into_iter()
            .map(|(name, value)| {
                (name.as_ref().to_ascii_lowercase().into_boxed_str(), value.into())
            })
            .collect();
        Self::from_values(values)
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(AsRef::as_ref)
    }

    /// [`Self::get`] for a name that begins with `tidegate.`: each statement asks for several, and few sessions set any.
    #[inline]
    pub fn own(&self, name: &str) -> Option<&str> {
        debug_assert!(name.starts_with(OWN_PREFIX));
        if self.has_own { self.get(name) } else { None }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// These settings with `changes` laid over them; `None` removes.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = (String, Option<String>)>) -> Self {
        let mut values = self.values.clone();
        for (name, value) in changes {
            let name = name.to_ascii_lowercase().into_boxed_str();
            match value {
                Some(value) => values.insert(name, value.into_boxed_str()),
                None => values.remove(&name),
            };
        }
        Self::from_values(values)
    }

    /// Equal for settings that [`Self::read_alike`]; it stands for them in keys, beside a full comparison.
    pub fn reading_digest(&self) -> u64 {
        self.reading_digest
    }

    /// Those that change what a text means, or how its answer looks, in the order of their names.
    pub fn reading(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|(name, _)| changes_texts(name))
    }

    /// Does every text mean the same under both, so that what a server made of it under one serves the other?
    pub fn read_alike(&self, other: &Self) -> bool {
        self.reading_digest == other.reading_digest && self.reading().eq(other.reading())
    }

    fn from_values(values: BTreeMap<Box<str>, Box<str>>) -> Self {
        let has_own = values.keys().any(|name| name.starts_with(OWN_PREFIX));
        let mut settings = Self { values, digest: 0, reading_digest: 0, has_own };
        settings.digest = digest_of(settings.iter());
        settings.reading_digest = digest_of(settings.reading());
        settings
    }
}

fn digest_of<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut pairs = pairs.peekable();
    if pairs.peek().is_none() {
        return 0;
    }
    let mut hasher = FxHasher::default();
    for (name, value) in pairs {
        hasher.write(name.as_bytes());
        hasher.write_u8(0);
        hasher.write(value.as_bytes());
        hasher.write_u8(0);
    }
    hasher.finish()
}

/// Whether a server connection in state `from` serves a client that expects `to` as it is.
#[inline]
pub fn same(from: &Arc<Settings>, to: &Arc<Settings>) -> bool {
    Arc::ptr_eq(from, to) || **from == **to
}

/// The one simple Query that takes a session from `from` to `to`; `None` when there is nothing to do.
///
/// `role` goes first when it is left and last when it is entered: other settings may need the rights of the login role.
/// Values travel through `set_config`, which reads lists (`search_path`) as `current_setting` prints them.
pub fn switch_sql(from: &Settings, to: &Settings) -> Option<String> {
    let mut sql = String::new();
    if from.get("role").is_some() && from.get("role") != to.get("role") {
        sql.push_str("RESET role;");
    }
    for (name, _) in from.iter().filter(|(name, _)| *name != "role" && to.get(name).is_none()) {
        let _ = write!(sql, "RESET {};", quote_setting(name));
    }
    let mut calls = to
        .iter()
        .filter(|(name, value)| *name != "role" && from.get(name) != Some(value))
        .peekable();
    if calls.peek().is_some() {
        sql.push_str("SELECT ");
        let mut separator = "";
        for (name, value) in calls {
            let (name, value) = (quote_literal(name), quote_literal(value));
            let _ = write!(sql, "{separator}pg_catalog.set_config({name},{value},false)");
            separator = ",";
        }
        sql.push(';');
    }
    if let Some(role) = to.get("role").filter(|role| from.get("role") != Some(role)) {
        let _ = write!(sql, "SELECT pg_catalog.set_config('role',{},false);", quote_literal(role));
    }
    (!sql.is_empty()).then_some(sql)
}

/// An SQL string literal that reads the same whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let escape = if text.contains('\\') { " E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// An SQL identifier.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A setting's name for RESET: each part between dots quoted.
fn quote_setting(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(quote_name).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_pairs(pairs.iter().map(|(name, value)| (*name, *value)))
    }

    #[test]
    fn a_switch_resets_what_is_gone_and_sets_what_differs() {
        let from = settings(&[("role", "a"), ("TimeZone", "UTC"), ("app.x", "1")]);
        let to = settings(&[("timezone", "UTC"), ("search_path", "a, \"B\""), ("role", "it's")]);
        assert_eq!(
            switch_sql(&from, &to).unwrap(),
            "RESET role;RESET \"app\".\"x\";SELECT pg_catalog.set_config('search_path','a, \"B\"',false);\
             SELECT pg_catalog.set_config('role','it''s',false);"
        );
        assert_eq!(switch_sql(&to, &to), None);
    }

    #[test]
    fn only_what_is_known_to_be_harmless_lets_texts_be_shared() {
        let plain = settings(&[("timezone", "UTC")]);
        for name in HARMLESS_TO_TEXTS.into_iter().chain(["tidegate.route"]) {
            assert!(plain.read_alike(&settings(&[("timezone", "UTC"), (name, "1")])), "{name}");
        }
        let others = ["search_path", "role", "extra_float_digits", "app.name", "application_names"];
        for name in others {
            assert!(!plain.read_alike(&settings(&[("timezone", "UTC"), (name, "1")])), "{name}");
        }
        assert!(!plain.read_alike(&settings(&[("timezone", "CET")])));
        assert!(!plain.read_alike(&Settings::default()));
    }

    #[test]
    fn literals_are_safe_under_either_string_setting() {
        assert_eq!(quote_literal("a'b"), "'a''b'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn equal_content_is_equal_whatever_the_order(pairs in proptest::collection::btree_map("[a-z]{1,4}", "[a-z]{0,4}", 0..6)) {
            let forward = Settings::from_pairs(pairs.iter().map(|(n, v)| (n, v.as_str())));
            let backward = Settings::from_pairs(pairs.iter().rev().map(|(n, v)| (n, v.as_str())));
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(forward.digest, backward.digest);
            prop_assert!(forward.read_alike(&backward));
            prop_assert_eq!(switch_sql(&forward, &backward), None);
        }
    }
}
