//! The commented `tidegate.toml` that `tidegate init` writes, and `docs/configuration.md`: both
//! from the table of keys.

use std::fmt::Write;

use super::keys::{Fallback, KEYS, Key, Reload, TABLES};

const WIDTH: usize = 98;

/// A whole `tidegate.toml`. What is commented out is either the default or an example, and says
/// which.
pub fn template() -> String {
    let mut out = String::from(
        "# Tidegate's configuration. `tidegate check` says what is wrong with it.\n\
         # A value in quotes may hold ${VARIABLE} or ${VARIABLE:-default}; $$ is a dollar sign.\n\
         # Durations are a number and ms, s, min, h or d. Relative paths start at this file's folder.\n",
    );
    for (table, doc) in TABLES {
        if !doc.is_empty() {
            out.push('\n');
            comment(&mut out, doc);
        }
        match *table {
            "" => {}
            // An empty one would be an error, so that its heading is commented out too.
            table if is_repeated(table) => drop(writeln!(out, "# [[{table}]]")),
            table => drop(writeln!(out, "[{table}]")),
        }
        for key in keys_of(table) {
            key_lines(&mut out, key);
        }
    }
    out
}

/// Tables that a file may hold many of.
fn is_repeated(table: &str) -> bool {
    matches!(table, "peers" | "servers" | "pools" | "quotas" | "alerts" | "pins" | "cache.warm")
}

fn key_lines(out: &mut String, key: &Key) {
    if !is_repeated(key.table) {
        out.push('\n');
        comment(out, key.doc);
    }
    let name = key.name;
    let _ = match key.default {
        Fallback::Value(value) => writeln!(out, "# {name} = {value}"),
        Fallback::Needed(value) => writeln!(out, "{name} = {value}"),
        Fallback::Example(value) if is_repeated(key.table) => writeln!(out, "# {name} = {value}"),
        Fallback::Example(value) => writeln!(out, "# {name} = {value}  # an example; no default"),
    };
}

fn keys_of(table: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.table == table)
}

/// Wraps sentences into comment lines.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > 1 {
        out.push_str(&line);
        out.push('\n');
    }
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = String::from(include_str!("configuration.md"));
    for (table, doc) in TABLES {
        let title = match *table {
            "" => "Above the first table".to_owned(),
            table if is_repeated(table) => format!("`[[{table}]]`"),
            table => format!("`[{table}]`"),
        };
        let _ = write!(out, "\n## {title}\n\n");
        if !doc.is_empty() {
            let _ = write!(out, "{doc}\n\n");
        }
        out.push_str("| key | default | reload | meaning |\n|---|---|---|---|\n");
        for key in keys_of(table) {
            let default = match key.default {
                Fallback::Value(value) => format!("`{value}`"),
                Fallback::Needed(example) => format!("needed, as in `{example}`"),
                Fallback::Example(example) => format!("none, as in `{example}`"),
            };
            let reload = match key.reload {
                Reload::Live => "yes",
                Reload::Restart => "restart",
            };
            let _ = writeln!(out, "| `{}` | {default} | {reload} | {} |", key.name, key.doc);
        }
    }
    out
}
