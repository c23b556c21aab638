//! What texts do, in tables; and laws that hold for any text.

use super::*;

mod cache; // shapes by fingerprint
mod calls; // functions, and parentheses that call nothing
mod fingerprints; // which texts are alike
mod laws; // proptests
mod names; // settings, prepared statements, virtual settings
mod processes; // pg_backend_pid, pg_terminate_backend
mod session; // commands and their effects
mod syntax; // lexical traps
mod tags; // what comments say

/// Effects from their names, separated by blanks.
fn effects(names: &str) -> Effects {
    names.split_whitespace().fold(Effects::NONE, |all, name| {
        let class = Effects::CLASSES.iter().find(|(_, class)| *class == name);
        all | class.unwrap_or_else(|| panic!("no effect is called {name}")).0
    })
}

/// Checks rows of a text and the effects it may have.
fn check(rows: &[(&str, &str)]) {
    for (sql, expected) in rows {
        assert_eq!(analyse(sql.as_bytes()).effects, effects(expected), "{sql}");
    }
}

/// Checks texts that must have no effect.
fn check_plain(rows: &[&str]) {
    for sql in rows {
        let analysis = analyse(sql.as_bytes());
        assert_eq!(analysis.effects, Effects::NONE, "{sql}");
        assert_eq!(analysis.statements, 1, "{sql}");
        assert!(analysis.names.is_empty() && analysis.tidegate.is_none(), "{sql}");
    }
}
