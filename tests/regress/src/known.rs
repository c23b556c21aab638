//! Tests that pass directly and cannot pass through Tidegate, each with the reason.

/// The test's name, and why it differs.
pub(crate) const KNOWN: &[(&str, &str)] = &[];

pub(crate) fn reason(test: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(name, _)| *name == test).map(|(_, reason)| *reason)
}
