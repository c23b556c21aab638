//! One entry point in libFuzzer's loop: `cargo xtask fuzz` builds it with coverage and AddressSanitizer and runs it.
//!
//! `TIDEGATE_FUZZ_ENTRY` names the entry; the arguments are libFuzzer's.

#![no_main]

use std::sync::LazyLock;

use tidegate_fuzz::{ENTRIES, Entry};

static ENTRY: LazyLock<Entry> = LazyLock::new(|| {
    let wanted = std::env::var("TIDEGATE_FUZZ_ENTRY").unwrap_or_default();
    let found = ENTRIES.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("TIDEGATE_FUZZ_ENTRY names no entry: {wanted:?}")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| ENTRY(data));
