//! The rules of the codebase, as tests: `cargo test -p tidegate-tidy`.
//!
//! A rule is a function from the repository's files to complaints; each complaint says where and what to do.

pub mod arrows; // who may import whom
pub mod budgets; // lengths of files, functions and crates, with a ratchet
pub mod dependencies; // what the pure crates may depend on
pub mod habits; // headers, panics, sleeps, unsafe, paths
pub mod links; // links between documents
pub mod plugins; // the default policies
pub mod properties; // a proptest for every property that is claimed
pub mod rules; // a test for each rule of the cache
pub mod rust; // just enough reading of Rust
pub mod traps; // a test or a word for each trap
pub mod tree; // the repository's files

#[cfg(test)]
mod tests;
