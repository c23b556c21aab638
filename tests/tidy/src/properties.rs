//! Every property that the project claims has a proptest, tagged `// Property N: …`.

use crate::rust;
use crate::tree::File;

/// The properties claimed so far; add a number when its proptest exists.
pub const CLAIMED: &[u32] = &[12, 13, 14, 15, 16, 18, 27, 29, 30, 41, 43];

/// Fewer random cases prove too little.
const CASES_MIN: u32 = 100;

pub fn check(files: &[File], claimed: &[u32]) -> Vec<String> {
    let missing = |property: &&u32| !files.iter().any(|file| has_proptest(file, **property));
    let complaint = |property: &u32| {
        format!(
            "property {property} is claimed but no `proptest!` of {CASES_MIN} cases or more under host/ holds \
             `// Property {property}: …`: write one, or take the number out of `CLAIMED`"
        )
    };
    claimed.iter().filter(missing).map(complaint).collect()
}

/// Does a `proptest!` block of the file hold the tag?
fn has_proptest(file: &File, property: u32) -> bool {
    let tag = format!("// Property {property}:");
    let blocks = file.code.match_indices("proptest!").filter_map(|(start, _)| {
        let open = file.code[start..].find('{')?;
        Some(start..rust::closing(&file.code, start + open))
    });
    file.in_host()
        && blocks.into_iter().any(|block| {
            let text = &file.text[block];
            text.contains(&tag) && cases(text) >= CASES_MIN
        })
}

/// The number of cases that a block asks for; proptest's default is 256.
fn cases(block: &str) -> u32 {
    let Some((_, rest)) = block.split_once("with_cases(") else { return 256 };
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(256)
}
