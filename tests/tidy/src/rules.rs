//! Each rule of the cache (R1 to R26, W1 to W13) has a row in docs/cache.md that names the tests which show it.

use crate::tree::File;
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = "docs/cache.md";
/// How many rules there are of each letter.
const RULES: [(char, usize); 2] = [('R', 26), ('W', 13)];
/// Tests that go through a list of statements, and where in its lines the rule stands.
const LISTS: [(&str, &str, usize); 2] = [
    ("each_read_is_kept_or_not_as_the_rules_say", "tests/e2e/tests/cache/reads.txt", 1),
    ("each_write_takes_what_it_changes", "tests/e2e/tests/cache/writes.txt", 0),
];

pub fn check(files: &[File]) -> Vec<String> {
    let table = files.iter().find(|file| file.path == TABLE);
    let told = table.map(|file| in_table(&file.text)).unwrap_or_default();
    let tests: BTreeSet<&str> =
        files.iter().filter(|file| file.is_rust()).flat_map(|file| names(&file.code)).collect();
    let rules =
        RULES.iter().flat_map(|(letter, most)| (1..=*most).map(move |n| format!("{letter}{n}")));
    rules.flat_map(|rule| complaints(&rule, told.get(&rule), &tests, files)).collect()
}

fn complaints(
    rule: &str,
    named: Option<&Vec<String>>,
    tests: &BTreeSet<&str>,
    files: &[File],
) -> Vec<String> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        return vec![format!(
            "{rule}: {TABLE} has no row of it that names a test in its last column"
        )];
    };
    let mut complaints = Vec::new();
    for name in named {
        let name = name.rsplit("::").next().unwrap_or(name);
        if !tests.contains(name) {
            complaints.push(format!("{rule}: there is no test `{name}`, which {TABLE} names"));
        }
        if let Some((_, path, place)) = LISTS.iter().find(|(list, ..)| *list == name)
            && !files.iter().any(|file| file.path == *path && has_rule(&file.text, rule, *place))
        {
            complaints.push(format!("{rule}: no line of {path} is about it, which {TABLE} says"));
        }
    }
    complaints
}

fn has_rule(list: &str, rule: &str, place: usize) -> bool {
    list.lines().any(|line| line.split(' ').nth(place) == Some(rule))
}

/// By rule, what its row has between back-ticks in the last column.
fn in_table(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut told = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", rules, .., last, ""] = cells[..] else { continue };
        let named: Vec<String> = last.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        for rule in rules.split(", ") {
            told.insert(rule.to_owned(), named.clone());
        }
    }
    told
}

/// The functions that a file's tests are.
fn names(code: &str) -> impl Iterator<Item = &str> {
    code.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_needs_a_row_and_its_tests() {
        let table = "| R1, R2 | x | `a::one` |\n| R3 | x | |\n| W1 | x | `two`, `each_write_takes_what_it_changes` |\n";
        let told = in_table(table);
        assert_eq!((told["R1"].len(), told["R2"].len(), told["W1"].len()), (1, 1, 2));
        let files = |list: &str| {
            [
                File::new(TABLE, table),
                File::new(
                    "a.rs",
                    "#[test]\nfn one() {}\n#[test]\nfn each_write_takes_what_it_changes() {}",
                ),
                File::new("tests/e2e/tests/cache/writes.txt", list),
            ]
        };
        let of = |complaints: &[String], rule: &str| {
            complaints.iter().filter(|words| words.starts_with(&format!("{rule}:"))).count()
        };
        let found = check(&files("W2 SELECT 1 | x\n"));
        let counts = ["R1", "R2", "R3", "R4", "W1", "W13"].map(|rule| of(&found, rule));
        assert_eq!(counts, [0, 0, 1, 1, 2, 1]);
        assert_eq!(of(&check(&files("W1 SELECT 1 | x\n")), "W1"), 1);
    }
}
