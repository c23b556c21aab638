//! Fuzz entry points, one per reader of bytes that a peer may send, and a replay of their corpus.
//!
//! `cargo test -p tidegate-fuzz` replays `corpus/<entry>/*` and a bounded number of seeded mutations of each;
//! `TIDEGATE_FUZZ_MUTATIONS=1000000` makes it a longer hunt. See `README.md` for cargo-fuzz.

pub mod session; // a session between a client and a server that send anything
pub mod wire; // readers of the protocol

#[cfg(test)]
mod differential; // our lexer against PostgreSQL's grammar
#[cfg(test)]
mod random; // randomness from a seed
#[cfg(test)]
mod replay;

pub use session::session;
pub use wire::{scram, startup, wire_backend, wire_frontend};

use tidegate_core::statement::{Analysis, Kind, StringSyntax, analyse_with};

/// A reader of bytes, which panics when it is wrong.
pub type Entry = fn(&[u8]);

/// Every entry point with the name of its corpus.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("wire_frontend", wire_frontend),
    ("wire_backend", wire_backend),
    ("startup", startup),
    ("scram", scram),
    ("statement", statement),
    ("session", session),
];

/// Any text is read without a panic, and with consistent answers.
pub fn statement(sql: &[u8]) {
    for strings in [StringSyntax::Standard, StringSyntax::Backslash] {
        let analysis = analyse_with(sql, strings);
        assert_eq!(analysis.statements == 0, analysis.kind == Kind::Empty);
        assert!(analysis.tidegate.is_none() || analysis.statements == 1);
        if analysis == Analysis::unknown() {
            continue;
        }
        // What was understood means the same behind another statement.
        let behind = analyse_with(&[b"SELECT 1;", sql].concat(), strings);
        assert_eq!(behind.effects, analysis.effects);
        assert_eq!(behind.names, analysis.names);
        // A null byte is never in a text that PostgreSQL accepts.
        let broken = analyse_with(&[sql, b"\0"].concat(), strings);
        assert_eq!(broken, Analysis::unknown(), "a null byte was overlooked");
    }
}
