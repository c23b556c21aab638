//! Replays every entry's corpus, and seeded mutations of it.

use crate::random::Random;
use crate::{ENTRIES, Entry};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutations of each corpus file in an ordinary run.
const MUTATIONS: u32 = 300;
/// Mutated inputs grow at most to this.
const INPUT_BYTES_MAX: usize = 4096;

fn corpus(entry: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(entry)
}

/// The corpus of an entry, sorted by name so that a seed means the same everywhere.
fn inputs(entry: &str) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(corpus(entry))
        .expect("every entry has a corpus")
        .map(|file| {
            let file = file.expect("a readable folder");
            let name = file.file_name().to_string_lossy().into_owned();
            (name, fs::read(file.path()).expect("a readable file"))
        })
        .collect();
    found.sort();
    found
}

/// Runs an entry and says which input broke it, in a form that can be kept.
fn run(entry: &str, call: Entry, input: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| call(input))).is_err() {
        let escaped = input.escape_ascii();
        panic!(
            "{entry} fails on {origin}; keep the input with\n  \
             printf '%b' \"$(cat <<'END'\n{escaped}\nEND\n)\" > tests/fuzz/corpus/{entry}/<what it shows>"
        );
    }
}

/// Changes an input in one to four places; `other` lends a piece of itself now and then.
fn mutate(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    const BYTES: &[u8] = b"\0\x01\x04\x7f\x80\xff'\"$\\/*-;().,QPBESXZCDKHI";
    let mut out = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(out.len());
        let end = (at + random.below(16) + 1).min(out.len());
        match random.below(7) {
            _ if out.is_empty() => out.push(BYTES[random.below(BYTES.len())]),
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = BYTES[random.below(BYTES.len())],
            2 => out.insert(at, BYTES[random.below(BYTES.len())]),
            3 => drop(out.drain(at..end)),
            4 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            5 => out.truncate(at),
            _ => {
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                out.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    out.truncate(INPUT_BYTES_MAX);
    out
}

#[test]
fn the_corpus_is_survived() {
    for (entry, call) in ENTRIES {
        let inputs = inputs(entry);
        assert!(inputs.len() >= 3, "{entry} has a corpus worth the name");
        for (name, input) in inputs {
            run(entry, *call, &input, &name);
            // Every beginning of an input is an input that has not arrived whole.
            for length in 0..input.len() {
                run(entry, *call, &input[..length], &format!("the first {length} bytes of {name}"));
            }
        }
    }
}

#[test]
fn mutations_of_the_corpus_are_survived() {
    let asked = std::env::var("TIDEGATE_FUZZ_MUTATIONS").ok().and_then(|n| n.parse().ok());
    let mutations: u32 = asked.unwrap_or(MUTATIONS);
    for (entry, call) in ENTRIES {
        let inputs = inputs(entry);
        for (position, (name, input)) in inputs.iter().enumerate() {
            let mut random = Random(position as u64);
            for number in 0..mutations {
                let other = &inputs[random.below(inputs.len())].1;
                let mutated = mutate(input, other, &mut random);
                run(entry, *call, &mutated, &format!("mutation {number} of {name}"));
            }
        }
    }
}

#[test]
fn every_corpus_has_an_entry() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for file in fs::read_dir(folder).expect("the corpus") {
        let name = file.expect("a readable folder").file_name();
        assert!(ENTRIES.iter().any(|(entry, _)| name == *entry), "{name:?} belongs to no entry");
    }
}
