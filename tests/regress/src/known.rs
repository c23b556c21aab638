//! Tests that pass directly and cannot pass through Tidegate, each with the reason.

/// The test's name, and why it differs.
pub(crate) const KNOWN: &[(&str, &str)] = &[
    ("guc", "expects a session that has not used PL/pgSQL; the server connection has"),
    (
        "sequence",
        "asks currval in another transaction than nextval, without having asked it before",
    ),
    (
        "stats",
        "counts what its own connection has not reported yet, and server connections as sessions",
    ),
    ("temp", "expects a session that never had a temporary schema; the server connection has"),
];

pub(crate) fn reason(test: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(name, _)| *name == test).map(|(_, reason)| *reason)
}
