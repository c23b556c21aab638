//! Each of the traps is in the name of a test, or docs/traps.md says what there is instead.

use crate::tree::File;
use std::collections::BTreeSet;

/// They are numbered from 1.
const TRAPS: usize = 121;
const TABLE: &str = "docs/traps.md";

pub fn check(files: &[File]) -> Vec<String> {
    let tested: BTreeSet<usize> =
        files.iter().filter(|file| file.is_rust()).flat_map(|file| in_names(&file.code)).collect();
    let table = files.iter().find(|file| file.path == TABLE);
    let told: BTreeSet<usize> = table.map(|file| in_table(&file.text)).unwrap_or_default();
    let complaint = |trap: usize| match (tested.contains(&trap), told.contains(&trap)) {
        (false, false) => Some(format!(
            "trap {trap}: name a test after it (`trap_{trap}_…`), or say in {TABLE} why there is none"
        )),
        (true, true) => Some(format!("trap {trap}: {TABLE} need not speak of it, a test does")),
        _ => None,
    };
    (1..=TRAPS).filter_map(complaint).collect()
}

/// The numbers in names such as `trap_25_26_…`, `trap_02_and_03_…` and `trap_80_to_84_…`.
fn in_names(code: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    for name in code.split("fn trap_").skip(1) {
        let mut last = None;
        let mut to = false;
        for part in name.split(['_', '(']) {
            match (part, part.parse::<usize>()) {
                ("and", _) => {}
                ("to", _) => to = true,
                (_, Ok(number)) => {
                    let from = if to { last.unwrap_or(number) } else { number };
                    found.extend(from..=number);
                    (last, to) = (Some(number), false);
                }
                (_, Err(_)) => break,
            }
        }
    }
    found
}

fn in_table(text: &str) -> BTreeSet<usize> {
    let first_cell = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse().ok();
    text.lines().filter_map(first_cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_names_and_tables() {
        let code = "fn trap_02_and_03_each() {} fn trap_80_to_84_settings() {} fn trap_7_of_9() {}";
        assert_eq!(Vec::from_iter(in_names(code)), [2, 3, 7, 80, 81, 82, 83, 84]);
        assert_eq!(Vec::from_iter(in_table("| trap | x |\n|--:|\n| 55 | y |\n")), [55]);
        let file = File::new("tests/x.rs", "fn trap_1_to_120_all() {}");
        assert_eq!(check(&[file]).len(), 1);
    }
}
