//! Files that are no plugins, or none for this slot and host: refused, with the check that failed.

use super::{HOSTILE_CACHING, HOSTILE_ROUTING, load, question, select};
use crate::{LoadError, embedded};
use tidegate_core::limits::{POLICY_COMPONENT_BYTES_MAX, POLICY_SETTINGS_BYTES_MAX};
use tidegate_core::policy::Slot;

fn check(bytes: &[u8]) -> LoadError {
    load(Slot::Routing, bytes, "").err().unwrap()
}

#[test]
fn a_file_must_have_a_size_that_makes_sense() {
    for (bytes, words) in
        [(0, "empty"), (7, "fewer than 8"), (POLICY_COMPONENT_BYTES_MAX + 1, "more than")]
    {
        let error = check(&vec![0; bytes]);
        assert_eq!(error.check(), "size");
        assert!(error.to_string().contains(words), "{error}");
    }
    let settings = " ".repeat(POLICY_SETTINGS_BYTES_MAX + 1);
    let long = load(Slot::Routing, HOSTILE_ROUTING, &settings).err().unwrap();
    assert_eq!(long.check(), "settings");
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    for length in (8..HOSTILE_ROUTING.len()).step_by(997) {
        let error = check(&HOSTILE_ROUTING[..length]);
        assert!(matches!(error.check(), "parse" | "types" | "world"), "{length}: {error}");
    }
}

#[test]
fn random_bytes_are_refused_and_changed_ones_do_no_harm() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..random() % 400 + 8).map(|_| random() as u8).collect();
        assert_eq!(check(&bytes).check(), "parse");
        let mut headed = b"\0asm\x0d\0\x01\0".to_vec();
        headed.extend(&bytes);
        assert_eq!(check(&headed).check(), "parse");
    }
    let whole = embedded(Slot::Routing).bytes;
    let mut taken = 0;
    for _ in 0..40 {
        let mut bytes = whole.to_vec();
        let at = random() as usize % bytes.len();
        bytes[at] ^= 1 << (random() % 8);
        // Some fail a check; one that passes all of them is a plugin like any other.
        if let Ok(plugin) = load(Slot::Routing, &bytes, "") {
            let answer = plugin.plan_route(question(&select("orders")), &[]);
            taken += u32::from(answer.is_ok());
        }
    }
    assert!(taken > 0, "a changed bit in a constant or a name goes unnoticed");
}

#[test]
fn a_policy_of_another_kind_is_refused_by_name() {
    let (wanted, found) = (Slot::Routing, Slot::Caching);
    assert_eq!(check(HOSTILE_CACHING), LoadError::World { wanted, found });
}

#[test]
fn a_module_that_says_nothing_of_itself_is_refused() {
    assert_eq!(check(b"\0asm\x01\0\0\0").check(), "world");
}

/// A component that exports an instance of this name, empty, and nothing else.
fn exporting(name: &str) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // An instance section with one instance from no exports, then an export section with it.
    section(&mut bytes, 5, &[1, 1, 0]);
    let mut export = vec![1, 0];
    export.push(name.len() as u8);
    export.extend(name.as_bytes());
    export.extend([5, 0, 0]);
    section(&mut bytes, 11, &export);
    bytes
}

fn section(bytes: &mut Vec<u8>, id: u8, content: &[u8]) {
    bytes.push(id);
    bytes.push(content.len() as u8);
    bytes.extend(content);
}

#[test]
fn another_version_is_refused_with_both_named() {
    let error = check(&exporting("tidegate:policy/route@0.2.0"));
    assert_eq!(error, LoadError::Version { theirs: "0.2.0".to_owned() });
    let words = error.to_string();
    assert!(words.contains("0.2.0") && words.contains("0.1.0"), "{words}");
    assert_eq!(check(&exporting("tidegate:policy/route@0.1.0")), LoadError::NoWorld);
    assert_eq!(check(&exporting("somebody:else/route@0.1.0")), LoadError::NoWorld);
}
