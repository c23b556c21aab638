//! Pages of `docs/` that are generated from tables in the code, and the check that they are
//! current.

#[cfg(test)]
pub(crate) use check::assert_current;

#[cfg(test)]
mod check {
    use std::path::Path;

    /// Fails when the page under the repository's root is not `expected`; with `TIDEGATE_BLESS`
    /// set, writes it.
    pub(crate) fn assert_current(page: &str, expected: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, expected).unwrap();
        }
        let current = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(current == expected, "{page} is not current: run again with TIDEGATE_BLESS=1");
    }
}
